"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError
from unilayers.graph import OPS, Sample
from unilayers.ops.define import bind, composite, dtype_of, primitive, shape_of
from unilayers.spec import Spec, is_float, normalize_axes, normalize_axis

Axis = int | tuple[int, ...] | None


def _reduced(x: Spec, axis: tuple[int, ...], keepdims: bool) -> Spec:
    return x.with_shape(1 if a in axis else d for a, d in enumerate(x.shape) if keepdims or a not in axis)


def _infer(x: Spec, *, axis: tuple[int, ...], keepdims: bool) -> Spec:
    return _reduced(x, axis, keepdims)


def _bool_infer(x: Spec, *, axis: tuple[int, ...], keepdims: bool) -> Spec:
    if x.dtype != "bool":
        raise DTypeError("needs a bool operand", received=x.dtype)
    return _reduced(x, axis, keepdims)


def kept(reduced: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """A reduction's result (or gradient) with the reduced axes back at size 1, to broadcast against x."""
    return ops.reshape(reduced, tuple(1 if a in axis else d for a, d in enumerate(shape_of(x))))


def _prepare(x: Any, axis: Axis, keepdims: bool) -> Any:
    return (x,), {"axis": normalize_axes(axis, len(shape_of(x))), "keepdims": bool(keepdims)}


def _samples(rng: np.random.Generator) -> list[Sample]:
    x = rng.normal(size=(2, 3, 4))
    return [
        Sample((x,), {"axis": axis, "keepdims": keep})
        for axis, keep in [((0, 1, 2), False), ((1,), False), ((0, 2), True), ((), False)]
    ]


def _by(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    return lambda x, axis, keepdims: function(x, axis, keepdims=keepdims)


def _bool_samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample((s.inputs[0] > 0.5,), s.attrs, False) for s in _samples(rng)]


def _cost(x: Spec, **attrs: Any) -> Any:
    return x.size


def counted(x: Any) -> Any:
    """x, or bools as integers, to be added up."""
    return ops.astype(x, "int32") if dtype_of(x) == "bool" else x


def _roomy(x: Any) -> Any:
    """x, or narrow integers as int32, which has room for sums and products of them."""
    return ops.astype(x, "int32") if dtype_of(x) in ("bool", "int8", "uint8", "int16") else x


def _sum_vjp(g: Any, y: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    return (ops.broadcast_to(kept(g, x, axis), shape_of(x)),)


@primitive(infer=_infer, vjp=_sum_vjp, cost=_cost, reference=_by(np.sum), samples=_samples)
def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum of the elements over ``axis`` (None: all); 0 for an empty axis. Counts bools.

    Engines: Of int8, the sum is int64 in NumPy and PyTorch, int32 in JAX and int8 in TensorFlow; here narrow integers
    and bools are summed in int32, and other dtypes are kept.
    """
    return _prepare(_roomy(x), axis, keepdims)


def _prod_vjp(g: Any, y: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    """The product of the others: 0 for all but x itself where x is the only 0, and for all where there are more."""
    zero = ops.equal(x, 0.0)
    count, own = ops.sum(zero, axis, keepdims=True), ops.astype(zero, "int32")
    factors = ops.where(zero, 1.0, x)
    others = ops.prod(factors, axis, keepdims=True) / factors
    return (ops.where(ops.equal(count, own), kept(g, x, axis) * others, 0.0),)


@primitive(infer=_infer, vjp=_prod_vjp, cost=_cost, reference=_by(np.prod), samples=_samples)
def prod(x: Any, axis: Axis = None, keepdims: bool = False, dtype: str | None = None) -> Any:
    """Product of the elements over ``axis`` (None: all).

    Engines: Dtypes of integers differ as for ``sum``; here narrow integers and bools are multiplied in int32.
    """
    return _prepare(_roomy(x) if dtype is None else ops.astype(x, dtype), axis, keepdims)


def _extreme_vjp(g: Any, y: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    """To the largest (smallest) element; ties share equally."""
    hit = ops.astype(ops.equal(x, kept(y, x, axis)), dtype_of(y))
    return (kept(g, x, axis) * hit / ops.sum(hit, axis, keepdims=True),)


@primitive(infer=_infer, vjp=_extreme_vjp, cost=_cost, reference=_by(np.max), samples=_samples)
def max_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest element over ``axis`` (None: all); ties share the gradient equally."""
    return _prepare(x, axis, keepdims)


def max(x: Any, axis: Axis = None, keepdims: bool = False, initial: float | None = None) -> Any:
    """The largest element over ``axis`` (None: all), at least ``initial``; ties share the gradient equally.

    Engines: Ties share the gradient in TensorFlow, JAX and PyTorch's amax, as here, while PyTorch's max along an axis
    gives it all to one. Of bools TensorFlow has no maximum; here it is ``any``. Of no elements TensorFlow gives -inf
    and the others raise, also here.
    """
    y = max_(x, axis, keepdims)
    return y if initial is None else ops.maximum(y, initial)


@primitive(infer=_infer, vjp=_extreme_vjp, cost=_cost, reference=_by(np.min), samples=_samples)
def min_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest element over ``axis`` (None: all); ties share the gradient equally."""
    return _prepare(x, axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False, initial: float | None = None) -> Any:
    """The smallest element over ``axis`` (None: all), at most ``initial``; ties share the gradient equally.

    Engines: As for ``max``.
    """
    y = min_(x, axis, keepdims)
    return y if initial is None else ops.minimum(y, initial)


def _no_vjp(g: Any, y: Any, x: Any, **attrs: Any) -> tuple[None]:
    return (None,)


@primitive(infer=_bool_infer, vjp=_no_vjp, cost=_cost, reference=_by(np.all), samples=_bool_samples)
def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether all over ``axis`` are true; numbers count as true where they are not 0."""
    return _prepare(ops.truth(x), axis, keepdims)


@primitive(infer=_bool_infer, vjp=_no_vjp, cost=_cost, reference=_by(np.any), samples=_bool_samples)
def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether any over ``axis`` is true; numbers count as true where they are not 0."""
    return _prepare(ops.truth(x), axis, keepdims)


def _arg_infer(x: Spec, *, axis: int) -> Spec:
    return _reduced(x, (axis,), False).with_dtype("int32")


def _arg_samples(rng: np.random.Generator) -> list[Sample]:
    ties = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]])
    x = rng.normal(size=(3, 4))
    return [Sample((v,), {"axis": a}, False) for v, a in ((x, 0), (x, 1), (ties, 1))]


@primitive(infer=_arg_infer, vjp=_no_vjp, cost=_cost, reference=np.argmax, samples=_arg_samples)
def argmax_(x: Any, axis: int = -1) -> Any:
    """Index of the largest element along ``axis``, as int32; the first of ties."""
    return (x,), {"axis": normalize_axis(axis, len(shape_of(x)))}


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Index of the largest element along ``axis`` (None: of all in one row), as int32; the first of ties.

    Engines: TensorFlow passes over NaN; here the first NaN is the largest element, as in the
    others. The dtype is int32 in JAX and int64 in the others; here int32.
    """
    return place_of(argmax_, x, axis, keepdims)


def place_of(find: Callable[..., Any], x: Any, axis: int | None, keepdims: bool) -> Any:
    """``find(x, axis)``, where None stands for all elements in one row, and the axis may be kept at size 1."""
    if axis is not None:
        return ops.expand_dims(find(x, axis), axis) if keepdims else find(x, axis)
    y = find(ops.reshape(x, (-1,)), 0)
    return ops.reshape(y, (1,) * len(shape_of(x))) if keepdims else y


@primitive(infer=_arg_infer, vjp=_no_vjp, cost=_cost, reference=np.argmin, samples=_arg_samples)
def argmin_(x: Any, axis: int = -1) -> Any:
    """Index of the smallest element along ``axis``, as int32; the first of ties."""
    return (x,), {"axis": normalize_axis(axis, len(shape_of(x)))}


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Index of the smallest element along ``axis`` (None: of all in one row), as int32; the first of ties.

    Engines: TensorFlow passes over NaN; here the first NaN is the smallest element, as in the
    others. The dtype is int32 in JAX and int64 in the others; here int32.
    """
    return place_of(argmin_, x, axis, keepdims)


# ---- composites -------------------------------------------------------------


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Arithmetic mean over ``axis`` (None: all); integers are brought to the default float dtype first.

    Engines: Of integers PyTorch has no mean, and TensorFlow rounds it to an integer; here it is a float, as in the
    others. TensorFlow adds up float16 in float16, which overflows; here it is added up in float32, as in the others.
    """
    if dtype_of(x) == "float16":  # has no room for sums, nor for how many there are
        return ops.astype(mean(ops.astype(x, "float32"), axis, keepdims), "float16")
    if not is_float(dtype_of(x)):
        x = ops.astype(x, ops.floatx())
    shape = shape_of(x)
    axes = normalize_axes(axis, len(shape))
    count = 1
    for a in axes:
        count = count * shape[a]  # type: ignore[assignment]
    total = bind(OPS["sum"], (x,), {"axis": axes, "keepdims": bool(keepdims)})
    return ops.divide(total, count if isinstance(count, int) else ops.size(x, axes))


def var(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Mean squared distance from the mean over ``axis`` (divisor N).

    Engines: PyTorch divides by N - 1, the others by N, as here.
    """
    axes = normalize_axes(axis, len(shape_of(x)))
    return mean(ops.square(ops.subtract(x, mean(x, axes, keepdims=True))), axes, keepdims)


def std(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Square root of ``var``.

    Engines: PyTorch divides by N - 1, the others by N, as here. Where all elements are equal the gradient is 0 in
    PyTorch, and NaN in TensorFlow, in JAX and here.
    """
    return ops.sqrt(var(x, axis, keepdims))


def _lse_reference(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    return np.log(np.sum(np.exp(x), axis, keepdims=keepdims))


def _lse_vjp(g: Any, y: Any, x: Any, *, axis: Any, keepdims: bool) -> tuple[Any]:
    axes = normalize_axes(axis, len(shape_of(x)))
    y = ops.where(ops.equal(y, -math.inf), 0.0, y)  # all of x is -inf then, and has no gradient
    return (kept(g, x, axes) * ops.exp(x - kept(y, x, axes)),)


@composite(reference=_lse_reference, samples=_samples, vjp=_lse_vjp, cost=lambda x, **a: x.size * 4)
def logsumexp_(x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over ``axis``, without overflow."""
    axes = normalize_axes(axis, len(shape_of(x)))
    top = ops.stop_gradient(max(x, axes, keepdims=True))
    top = ops.where(ops.isfinite(top), top, 0.0)  # infinity less itself would be NaN
    y = ops.log(sum(ops.exp(x - top), axes, keepdims=True)) + top
    return y if keepdims else ops.reshape(y, tuple(d for a, d in enumerate(shape_of(x)) if a not in axes))


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over ``axis`` (None: all), without overflow.

    Engines: The gradient of a row of -inf alone is NaN in PyTorch, TensorFlow and JAX; here it is 0.
    """
    return logsumexp_(x, axis=normalize_axes(axis, len(shape_of(x))), keepdims=keepdims)
