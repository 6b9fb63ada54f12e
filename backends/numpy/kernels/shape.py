"""Kernels that move elements: what ``views`` cannot express, joining, padding."""

from __future__ import annotations

from typing import Any

from .contract import Array, Calls, kernel


@kernel("copy")
def copy(do: Calls, x: Array, y: Array) -> None:
    """Not an op: the compiler's own copies."""
    do(do.xp.copyto, y, x)


@kernel("reshape")
def reshape(do: Calls, x: Array, y: Array, *, shape: tuple[int, ...]) -> None:
    """Where x's strides do not allow a view: y, which is contiguous, is seen in x's shape instead."""
    do(do.xp.copyto, y.reshape(x.shape), x)


@kernel("concat")
def concat(do: Calls, *arrays: Array, axis: int) -> None:
    *xs, y = arrays
    start = 0
    for x in xs:
        stop = start + x.shape[axis]
        do(do.xp.copyto, y[(slice(None),) * axis + (slice(start, stop),)], x)
        start = stop


@kernel("pad")
def pad(do: Calls, x: Array, y: Array, *, low: Any, high: Any, interior: Any, value: float) -> None:
    do(y.fill, value)
    if x.size:
        sizes = zip(x.shape, low, interior, strict=True)
        do(do.xp.copyto, y[tuple(slice(a, a + (d - 1) * (i + 1) + 1, i + 1) for d, a, i in sizes)], x)
