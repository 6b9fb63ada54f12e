"""Op name to NumPy (or CuPy) function. ``numpy_like(xp)`` is the same table over either array module."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .windows import windowed

SAME_NAME = (
    "add subtract multiply divide floor_divide remainder power maximum minimum equal not_equal less less_equal greater "
    "greater_equal logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor isnan isinf isfinite "
    "negative abs sign floor ceil exp expm1 log log1p sqrt square sin cos tan sinh cosh tanh matmul where"
).split()
RENAMED = {
    "bitwise_left_shift": "left_shift", "bitwise_right_shift": "right_shift", "bitwise_invert": "invert", "round": "rint",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2", 

}  # fmt: skip

# ---- erf: rational approximations after W. J. Cody (1969), as NumPy has none -----

_erf_scalar = np.vectorize(math.erf, otypes=[float])


def numpy_like(xp: Any) -> dict[str, Callable[..., Any]]:
    """The table over an array module with NumPy's interface."""

    def reduce_bool(name: str) -> Callable[..., Any]:
        return lambda x, axis, keepdims: getattr(xp, name)(x, axis=axis, keepdims=keepdims)

    def reduction(name: str) -> Callable[..., Any]:
        return lambda x, axis, keepdims: getattr(xp, name)(x, axis=axis, keepdims=keepdims, **({"dtype": x.dtype} if name in ("sum", "prod") else {}))

    def slice_(x: Any, start: Any, stop: Any, step: Any) -> Any:
        return x[tuple(map(slice, start, stop, step))]

    def pad(x: Any, low: Any, high: Any, interior: Any, value: float) -> Any:
        sizes = [d + a + b + max(0, d - 1) * i for d, a, b, i in zip(x.shape, low, high, interior, strict=True)]
        y = xp.full(sizes, value, x.dtype)
        y[tuple(slice(a, a + max(0, (d - 1) * (i + 1) + 1), i + 1) for d, a, i in zip(x.shape, low, interior, strict=True))] = x
        return y

    def take_grad(g: Any, indices: Any, axis: int, size: int) -> Any:
        y = xp.zeros((*g.shape[:axis], size, *g.shape[axis + indices.ndim :]), g.dtype)
        xp.add.at(y, (slice(None),) * axis + (indices,), g)
        return y

    special: Mapping[str, Callable[..., Any]] = {
        "rsqrt": lambda x: 1 / xp.sqrt(x),
        "reciprocal": lambda x: 1 / x,
        "erf": lambda x: _erf_scalar(x).astype(x.dtype),
        "astype": lambda x, dtype: x.astype(dtype),
        "permute_dims": lambda x, axes: xp.transpose(x, axes),
        "broadcast_to": lambda x, shape: xp.broadcast_to(x, shape),
        "flip": lambda x, axes: xp.flip(x, axes),
        "identity": lambda x: x,
        "stop_gradient": lambda x: x,
        "reshape": lambda x, shape: x.reshape(shape),
        "concat": lambda *xs, axis: xp.concatenate(xs, axis),
        "slice": slice_,
        "pad": pad,
        "argmax": lambda x, axis: xp.argmax(x, axis).astype("int32"),
        "argmin": lambda x, axis: xp.argmin(x, axis).astype("int32"),
        "take": lambda x, indices, axis: xp.take(x, indices, axis),
        "take_grad": take_grad,
        "take_along_axis": lambda x, indices, axis: xp.take_along_axis(x, indices, axis),
    }
    table = {name: getattr(xp, name) for name in SAME_NAME}
    table |= {name: getattr(xp, numpy_name) for name, numpy_name in RENAMED.items()}
    table |= {name: reduction(name) for name in ("sum", "prod", "max", "min")}
    table |= {name: reduce_bool(name) for name in ("any", "all")}
    return {**table, **special, **windowed(xp)}
