"""Pooling, one axis of the window at a time where that is allowed, else one place in the window at a time."""

from __future__ import annotations

import math
from typing import Any

from .contract import Array, Batch, Calls, dense, kernel, scalar
from .conv import Geometry, Sizes

Pairs = tuple[tuple[int, int], ...]


def _geometry(shape: Sizes, window: Sizes, strides: Sizes, padding: Pairs) -> Geometry:
    return Geometry(shape, (*window, shape[-1], shape[-1]), strides, padding, (1,) * len(window), 1)


def _padded(do: Calls, x: Array, g: Geometry, value: float) -> Array:
    if not g.is_padded:
        return dense(do, x)
    wide = do.workspace((x.shape[0], *g.padded, x.shape[-1]), x.dtype)
    do(wide.fill, value)
    do(do.xp.copyto, wide[g.inside], x)
    return wide


def _reduced(do: Calls, name: str, x: Array, y: Array, g: Geometry) -> None:
    """y becomes the reduction of every window, axis by axis. The first leaves the longest rows in one piece, and so it
    comes first: it shrinks the array for the others."""
    function = getattr(do.xp, name)
    for axis in range(1, len(g.window) + 1):
        shape = (*x.shape[:axis], g.counts[axis - 1], *x.shape[axis + 1 :])
        found = y if axis == len(g.window) else do.workspace(shape, x.dtype)
        places = [_place(x, g, axis, t) for t in range(g.window[axis - 1])]
        if len(places) == 1:
            do(do.xp.copyto, found, places[0])
        else:
            do(function, places[0], places[1], out=found)
        for place in places[2:]:
            do(function, found, place, out=found)
        x = found


def _place(x: Array, g: Geometry, axis: int, at: int) -> Array:
    """What is at one place of each window along an axis."""
    count, stride = g.counts[axis - 1], g.strides[axis - 1]
    return x[(slice(None),) * axis + (slice(at, at + (count - 1) * stride + 1, stride),)]


# ---- maximum ------------------------------------------------------------------------


@kernel("max_pool")
def max_pool(do: Calls, x: Array, y: Array, *, window: Sizes, strides: Sizes, padding: Pairs) -> None:
    g = _geometry(x.shape, window, strides, padding)
    _reduced(do, "maximum", _padded(do, x, g, -math.inf), y, g)


@kernel("max_pool_grad")
def max_pool_grad(
    do: Calls, g: Array, x: Array, y: Array, result: Array, *, window: Sizes, strides: Sizes, padding: Pairs
) -> None:
    """To the first maximum of each window: a pair of columns, then a pair of rows, or place by place."""
    geometry = _geometry(x.shape, window, strides, padding)
    if window == strides == (2, 2) and not geometry.is_padded:
        _route_pairs(do, g, dense(do, x), result, geometry)
    else:
        _route_places(do, g, x, y, result, geometry)


def _route_pairs(do: Calls, g: Array, x: Array, result: Array, geometry: Geometry) -> None:
    """Windows of 2x2 that touch. The larger of each pair of neighbours is known again; of equal ones the first wins,
    first in the row, then between the rows: that is the first of the window in row-major order."""
    xp = do.xp
    if any(n % 2 for n in x.shape[1:3]):
        do(result.fill, 0)  # what no window sees
    rows, columns = geometry.counts
    seen, into = (a[:, : 2 * rows, : 2 * columns] for a in (x, result))
    left, right = seen[:, :, ::2], seen[:, :, 1::2]
    larger, routed = (do.workspace(left.shape, x.dtype) for _ in range(2))
    do(xp.maximum, left, right, out=larger)
    upper = do.workspace(g.shape, "bool")
    do(xp.greater_equal, larger[:, ::2], larger[:, 1::2], upper)
    do(xp.multiply, g, upper, routed[:, ::2])
    do(xp.subtract, g, routed[:, ::2], routed[:, 1::2])
    first = do.workspace(left.shape, "bool")
    do(xp.greater_equal, left, right, first)
    do(xp.multiply, routed, first, into[:, :, ::2])
    do(xp.subtract, routed, into[:, :, ::2], into[:, :, 1::2])


def _route_places(do: Calls, g: Array, x: Array, y: Array, result: Array, geometry: Geometry) -> None:
    xp, each = do.xp, Batch(do)
    wide = _padded(do, x, geometry, -math.inf)
    target = do.workspace(wide.shape, wide.dtype) if geometry.is_padded else result
    hit, open_ = (do.workspace(y.shape, "bool") for _ in range(2))  # open: windows whose maximum was not met yet
    share = do.workspace(g.shape, g.dtype)
    do(target.fill, 0)
    do(open_.fill, True)
    for _, where in geometry.taps():
        each(xp.equal, wide[where], y, hit)
        each(xp.logical_and, hit, open_, hit)
        each(xp.logical_xor, open_, hit, open_)
        each(xp.multiply, g, hit, share)
        each(xp.add, target[where], share, target[where])
    each.run()
    if geometry.is_padded:
        do(xp.copyto, result, target[geometry.inside])


# ---- mean -----------------------------------------------------------------------------


def _counted(do: Calls, g: Geometry, dtype: Any) -> Array:
    """How many real elements each window sees, to broadcast against the result: a constant."""

    def count() -> Array:
        real = do.xp.zeros((1, *g.padded, 1), dtype)
        real[g.inside] = 1
        return sum(real[where] for _, where in g.taps())

    if not g.is_padded:
        return scalar(do, math.prod(g.window), dtype)
    return do.constant(("counted", g, str(dtype)), count)


@kernel("avg_pool")
def avg_pool(do: Calls, x: Array, y: Array, *, window: Sizes, strides: Sizes, padding: Pairs) -> None:
    g = _geometry(x.shape, window, strides, padding)
    _reduced(do, "add", _padded(do, x, g, 0), y, g)
    do(do.xp.divide, y, _counted(do, g, y.dtype), y)


@kernel("avg_pool_grad")
def avg_pool_grad(
    do: Calls, g: Array, result: Array, *, shape: Sizes, window: Sizes, strides: Sizes, padding: Pairs
) -> None:
    xp, geometry, each = do.xp, _geometry(shape, window, strides, padding), Batch(do)
    share = do.workspace(g.shape, g.dtype)
    target = do.workspace((shape[0], *geometry.padded, shape[-1]), g.dtype) if geometry.is_padded else result
    do(xp.divide, g, _counted(do, geometry, g.dtype), share)
    do(target.fill, 0)
    for _, where in geometry.taps():
        each(xp.add, target[where], share, target[where])
    each.run()
    if geometry.is_padded:
        do(xp.copyto, result, target[geometry.inside])
