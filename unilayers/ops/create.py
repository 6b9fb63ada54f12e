"""Ops that make values from nothing: fills, ranges, sizes. They expand to constants, so no backend lists them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.backend import get_backend
from unilayers.config import floatx
from unilayers.graph import Sample, Value, constant, is_tracing
from unilayers.ops.define import composite, dtype_of, put_beside, shape_of
from unilayers.spec import Dim, DimLike, Shape, Spec, check_dtype


def literal(array: Any, dtype: str | None = None) -> Any:
    """Numbers as a value, of the array's dtype unless given: a constant node while tracing, else an array of the
    default backend."""
    array = np.asarray(array)
    dtype = dtype or array.dtype.name
    if is_tracing():
        return constant(array, dtype)
    backend = get_backend()
    return backend.put_as([array], [dtype], backend.device(None))[0]


# ---- fills ------------------------------------------------------------------


def _full_infer(*, shape: Shape, value: float, dtype: str) -> Spec:
    return Spec(shape, dtype)


@composite(
    infer=_full_infer, cost=lambda **attrs: 0, reference=lambda shape, value, dtype: np.full(shape, value, dtype),
    samples=lambda rng: [Sample((), {"shape": (2, 3), "value": 1.5, "dtype": "float32"}, False)],
)  # fmt: skip
def full_(*, shape: Shape, value: float, dtype: str) -> Any:
    """An array of one value."""
    return ops.broadcast_to(literal(np.asarray(value), dtype), shape)


def full(shape: Any, fill_value: Any, dtype: str | None = None) -> Any:
    """An array of the given shape, filled with one value, or with an array that broadcasts to it."""
    shape = (shape,) if isinstance(shape, (int, Dim)) else tuple(shape)
    dtype = check_dtype(dtype or floatx())
    if shape_of(fill_value):
        return ops.broadcast_to(ops.astype(ops.convert_to_tensor(fill_value), dtype), shape)
    return full_(shape=shape, value=fill_value, dtype=dtype)


def zeros(shape: Any, dtype: str | None = None) -> Any:
    """An array of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: str | None = None) -> Any:
    """An array of ones."""
    return full(shape, 1, dtype)


def full_like(x: Any, fill_value: Any, dtype: str | None = None) -> Any:
    """An array of one value with the shape of x, its dtype unless given, on x's backend and device."""
    dtype = check_dtype(dtype or dtype_of(x))
    if isinstance(x, Value) or shape_of(fill_value) or (is_tracing() and hasattr(x, "as_operand")):
        return full(shape_of(x), fill_value, dtype)
    return put_beside(x, np.full(shape_of(x), fill_value), dtype)  # type: ignore[arg-type]


def zeros_like(x: Any, dtype: str | None = None) -> Any:
    """Zeros with the shape and dtype of x."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: str | None = None) -> Any:
    """Ones with the shape and dtype of x."""
    return full_like(x, 1, dtype)


# ---- ranges and sizes -------------------------------------------------------


def _arange_infer(*, start: Any, stop: Any, step: Any, dtype: str) -> Spec:
    if not isinstance(start, Dim) and not isinstance(stop, Dim):
        return Spec((max(0, math.ceil((stop - start) / step)),), dtype)
    return Spec(((stop - start + (step - 1)) // step,), dtype)


@composite(
    infer=_arange_infer, cost=lambda **attrs: 0, reference=np.arange,
    samples=lambda rng: [Sample((), {"start": 1, "stop": 8, "step": 3, "dtype": "int32"}, False)],
)  # fmt: skip
def arange_(*, start: Any, stop: Any, step: Any, dtype: str) -> Any:
    """start, start + step, ... below stop."""
    return literal(np.arange(start, stop, step), dtype)


def arange(start: Any, stop: Any = None, step: Any = None, dtype: str | None = None, like: Any = None) -> Any:
    """start, start + step, ... below stop; with one argument, counts from 0.

    Args:
        start: First number, or how many numbers if ``stop`` is None.
        stop: The numbers stay below it.
        step: Difference of neighbours, above 0; None: 1.
        dtype: Of the result; None: int32, or the default float dtype if a number is a float.
        like: An array on whose backend and device the result shall be; None: the default backend.
    """
    if stop is None:
        start, stop = 0, start
    step = 1 if step is None else step
    dtype = check_dtype(dtype or (floatx() if any(isinstance(n, float) for n in (start, stop, step)) else "int32"))
    if like is None or isinstance(like, Value) or is_tracing():
        return arange_(start=start, stop=stop, step=step, dtype=dtype)
    return put_beside(like, np.arange(start, stop, step), dtype)


def _size_infer(*, value: DimLike, dtype: str) -> Spec:
    return Spec((), dtype)


@composite(
    infer=_size_infer, cost=lambda **attrs: 0, reference=lambda value, dtype: np.asarray(value, dtype),
    samples=lambda rng: [Sample((), {"value": 12, "dtype": "float32"}, False)],
)  # fmt: skip
def size_value(*, value: DimLike, dtype: str) -> Any:
    """A size that may still be symbolic, as a scalar."""
    return literal(np.asarray(value), dtype)


def size(x: Any, axis: tuple[int, ...] | None = None, dtype: str | None = None) -> Any:
    """How many elements x has along ``axis`` (None: in all): an int, or a scalar value where a size is symbolic."""
    total: DimLike = 1
    for a, d in enumerate(shape_of(x)):
        total = total * d if axis is None or a in axis else total
    return size_value(value=total, dtype=dtype or dtype_of(x)) if isinstance(total, Dim) else total
