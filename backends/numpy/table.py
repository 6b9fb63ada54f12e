"""Op name to NumPy (or CuPy) function. ``numpy_like(xp)`` is the same table over either array module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from unilayers.errors import BackendError, DataError
from unilayers.graph.loops import python_loops
from unilayers.ops.sorting import empty_segment

from .linalg import decompositions
from .special import erf_like, random_bits_like
from .windows import windowed

SAME_NAME = (  # noqa: SIM905
    "add subtract multiply divide floor_divide remainder power maximum minimum equal not_equal less less_equal greater "
    "greater_equal logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor isnan isinf "
    "isfinite negative abs sign floor ceil exp expm1 log log1p sqrt square reciprocal sin cos tan sinh cosh tanh "
    "matmul where"
).split()
RENAMED = {
    "bitwise_left_shift": "left_shift", "bitwise_right_shift": "right_shift", "bitwise_invert": "invert",
    "round": "rint", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2",
}  # fmt: skip


def known(dtype: str) -> np.dtype[Any]:
    """NumPy's dtype of that name.

    Raises:
        BackendError: for bfloat16, which NumPy does not have.
    """
    # Also where another package has taught NumPy the name: its arithmetic is not that of the other dtypes.
    if dtype == "bfloat16":
        raise BackendError(
            f"NumPy has no dtype {dtype!r}", where="backend 'numpy'",
            fix="Use float32 or mixed_float16 here, or another backend for bfloat16",
        )  # fmt: skip
    return np.dtype(dtype)


def check_indices(indices: Any, size: int, op: str) -> None:
    """Raise unless 0 <= index < size.

    Raises:
        DataError: with the indices' range.
    """
    # A negative number seen as an unsigned one is large.
    if indices.size and indices.view(f"u{indices.dtype.itemsize}").max() >= size:
        raise DataError(
            "index out of range", where=f"op '{op}'", expected=f"0 to {size - 1}",
            received=f"{indices.min()} to {indices.max()}",
        )  # fmt: skip


def numpy_like(xp: Any) -> dict[str, Callable[..., Any]]:
    """The table over an array module with NumPy's interface."""

    def reduction(name: str) -> Callable[..., Any]:
        function = getattr(xp, name)
        return lambda x, axis, keepdims: function(x, axis=axis, keepdims=keepdims)

    def accumulation(name: str) -> Callable[..., Any]:
        function = getattr(xp, name)  # these would widen small integers
        return lambda x, axis, keepdims: function(x, axis=axis, keepdims=keepdims, dtype=x.dtype)

    def pad(x: Any, low: Any, high: Any, interior: Any, value: float) -> Any:
        axes = list(zip(x.shape, low, high, interior, strict=True))
        y = xp.full([n + a + b + max(0, n - 1) * gap for n, a, b, gap in axes], value, x.dtype)
        y[tuple(slice(a, a + max(0, (n - 1) * (gap + 1) + 1), gap + 1) for n, a, _, gap in axes)] = x
        return y

    def take(x: Any, indices: Any, axis: int) -> Any:
        if xp is np:  # on a GPU it would have to wait for the answer
            check_indices(indices, x.shape[axis], "take")
        return xp.take(x, indices, axis)

    def take_along_axis(x: Any, indices: Any, axis: int) -> Any:
        if xp is np:
            check_indices(indices, x.shape[axis], "take_along_axis")
        return xp.take_along_axis(x, indices, axis)

    def take_grad(g: Any, indices: Any, axis: int, size: int) -> Any:
        y = xp.zeros((*g.shape[:axis], size, *g.shape[axis + indices.ndim :]), g.dtype)
        xp.add.at(y, (slice(None),) * axis + (indices,), g)
        return y

    def segment_reduce(data: Any, segment_ids: Any, kind: str, size: int) -> Any:
        y = xp.full((size, *data.shape[1:]), empty_segment(kind, str(data.dtype)), data.dtype)
        getattr(xp, {"max": "maximum", "min": "minimum", "prod": "multiply"}[kind]).at(y, segment_ids, data)
        return y

    table: dict[str, Callable[..., Any]] = {
        **{name: getattr(xp, name) for name in SAME_NAME},
        **{name: getattr(xp, theirs) for name, theirs in RENAMED.items()},
        # ---- elementwise
        "rsqrt": lambda x: xp.reciprocal(xp.sqrt(x)),
        "erf": erf_like(xp),
        "astype": lambda x, dtype: x.astype(known(dtype)),
        "identity": lambda x: x,
        "stop_gradient": lambda x: x,
        # ---- reductions
        **{name: accumulation(name) for name in ("sum", "prod")},
        **{name: reduction(name) for name in ("max", "min", "any", "all")},
        "argmax": lambda x, axis: xp.argmax(x, axis).astype("int32"),
        "argmin": lambda x, axis: xp.argmin(x, axis).astype("int32"),
        # ---- shape
        "reshape": lambda x, shape: x.reshape(shape),
        "permute_dims": lambda x, axes: xp.transpose(x, axes),
        "broadcast_to": lambda x, shape: xp.broadcast_to(x, shape),
        "flip": lambda x, axes: xp.flip(x, axes),
        "concat": lambda *xs, axis: xp.concatenate(xs, axis),
        "slice": lambda x, start, stop, step: x[tuple(map(slice, start, stop, step))],
        "pad": pad,
        # ---- indices
        "take": take,
        "take_grad": take_grad,
        "take_along_axis": take_along_axis,
        "argsort": lambda x, axis: xp.argsort(x, axis, kind="stable").astype("int32"),
        "segment_reduce": segment_reduce,
        # ---- families of their own
        "random_bits": random_bits_like(xp),
        **windowed(xp),
        **decompositions(xp),
    }  # fmt: skip
    device_of = None if xp is np else (lambda a: str(a.device))
    table |= {
        "barrier": lambda x, *after: x,
        **python_loops(table, lambda a, *device: xp.asarray(a), lambda a: a.item(), device_of, list, xp.stack),
    }
    return table
