"""Reductions into given memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .contract import KERNELS, Array, Calls, Kernel, divisor, ones

Axes = tuple[int, ...]

SHORT = 512  # numbers that are added up one after the other at most

UFUNC = {
    "sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum", "all": "logical_and", "any": "logical_or",
}  # fmt: skip


def reduce_over(do: Calls, op: str, x: Array, y: Array, axis: Axes) -> None:
    """y becomes the reduction of x over some axes; y may have them at size 1 or not at all."""
    bare = y.reshape(tuple(d for a, d in enumerate(x.shape) if a not in axis))
    if not axis:
        do(do.xp.copyto, bare, x)
    elif op == "sum" and _by_product(do, x, bare, axis):
        return
    elif do.xp is np:  # without the detour that np.sum and its like make
        do(getattr(np, UFUNC[op]).reduce, x, axis if len(axis) > 1 else axis[0], None, bare)
    else:
        do(getattr(do.xp, op), x, axis, out=bare)


def _by_product(do: Calls, x: Array, y: Array, axis: Axes) -> bool:
    """Sum the leading or the trailing axes of a contiguous array as a product with ones, which BLAS does faster."""
    inner = math.prod(x.shape[a] for a in axis)
    leading, trailing = axis == tuple(range(len(axis))), axis == tuple(range(x.ndim - len(axis), x.ndim))
    if x.dtype.name not in ("float32", "float64") or not x.flags.c_contiguous or not x.size or leading == trailing:
        return False
    if leading:
        _sum_rows(do, x.reshape(inner, -1), y.reshape(-1))
    else:
        do(do.xp.dot, x.reshape(-1, inner), ones(do, inner, x.dtype), y.reshape(-1))
    return True


def _sum_rows(do: Calls, x: Array, y: Array) -> None:
    """Many rows in two steps, sums of short blocks first: in one, the rounding errors of thousands of additions to the
    same number would add up."""
    rows, columns = x.shape
    short = divisor(rows, SHORT)
    if rows > 4 * SHORT and short >= SHORT // 16:
        sums = do.workspace((rows // short, 1, columns), x.dtype)
        do(do.xp.matmul, ones(do, short, x.dtype).reshape(1, -1), x.reshape(-1, short, columns), out=sums)
        x = sums.reshape(-1, columns)
    do(do.xp.dot, ones(do, len(x), x.dtype), x, y)


def _reduction(op: str) -> Kernel:
    def build(do: Calls, x: Array, y: Array, *, axis: Axes, keepdims: bool) -> None:
        reduce_over(do, op, x, y, axis)

    return Kernel(build)


def _arg(name: str) -> Callable[..., None]:
    def build(do: Calls, x: Array, y: Array, *, axis: int) -> None:
        found = do.workspace(y.shape, "int64")
        do(getattr(do.xp, name), x, axis=axis, out=found)
        do(do.xp.copyto, y, found, "unsafe")

    return build


KERNELS.update({op: _reduction(op) for op in UFUNC})
KERNELS.update({name: Kernel(_arg(name)) for name in ("argmax", "argmin")})
