"""Kernels that pick elements by index."""

from __future__ import annotations

from .contract import Array, Calls, kernel


@kernel("take")
def take(do: Calls, x: Array, indices: Array, y: Array, *, axis: int) -> None:
    """An index outside is the caller's mistake and is clipped: checking would make NumPy buffer the result."""
    do(do.xp.take, x, indices, axis, y, "clip")
