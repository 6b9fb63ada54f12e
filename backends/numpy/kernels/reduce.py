"""Reductions into given memory."""

from __future__ import annotations

import math
from collections.abc import Callable

from .contract import KERNELS, Array, Calls, Kernel, kernel, ones


def _reduction(ufunc: str) -> Kernel:
    def build(do: Calls, x: Array, y: Array, *, axis: tuple[int, ...], keepdims: bool) -> None:
        reduce_over(do, ufunc, x, y, axis)

    return Kernel(build)


def reduce_over(do: Calls, ufunc: str, x: Array, y: Array, axis: tuple[int, ...]) -> None:
    """y becomes the reduction of x over some axes; y may have them at size 1 or not at all."""
    if not axis:
        do(do.xp.copyto, y, x.reshape(y.shape))
        return
    bare = y.reshape(tuple(d for a, d in enumerate(x.shape) if a not in axis))
    do(getattr(do.xp, ufunc).reduce, x, axis if len(axis) > 1 else axis[0], None, bare)


REDUCTIONS = {
    "sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum", "all": "logical_and", "any": "logical_or",
}  # fmt: skip
KERNELS.update({op: _reduction(ufunc) for op, ufunc in REDUCTIONS.items()})
_by_ufunc = KERNELS["sum"].build


@kernel("sum")
def sum_(do: Calls, x: Array, y: Array, *, axis: tuple[int, ...], keepdims: bool) -> None:
    """Over the leading or the trailing axes of a contiguous array: a product with ones, which BLAS does faster."""
    if x.dtype.kind == "f" and x.dtype.itemsize >= 4 and x.flags.c_contiguous and x.size and 0 < len(axis) < x.ndim:
        n = len(axis)
        size = math.prod(x.shape[a] for a in axis)
        if axis == tuple(range(n)):
            do(do.xp.dot, ones(do, size, x.dtype), x.reshape(size, -1), y.reshape(-1))
            return
        if axis == tuple(range(x.ndim - n, x.ndim)):
            do(do.xp.dot, x.reshape(-1, size), ones(do, size, x.dtype), y.reshape(-1))
            return
    _by_ufunc(do, x, y, axis=axis, keepdims=keepdims)


def _arg(name: str) -> Callable[..., None]:
    def build(do: Calls, x: Array, y: Array, *, axis: int) -> None:
        found = do.workspace(y.shape, "int64")
        do(getattr(do.xp, name), x, axis, found)
        do(do.xp.copyto, y, found, "unsafe")

    return build


KERNELS.update({name: Kernel(_arg(name)) for name in ("argmax", "argmin")})
