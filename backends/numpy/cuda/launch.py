"""A kernel as a call on arrays."""

from __future__ import annotations

from functools import cache
from typing import Any

from .expressions import PRELUDE
from .source import Source

Array = Any
OPTIONS = ("--std=c++17",)


class Launch:
    """``f(*operands, *results)``.

    Args:
        xp: CuPy, which compiles the kernel at the first call; NumPy where a plan is only looked at.
        source: The kernel.
    """

    def __init__(self, xp: Any, source: Source) -> None:
        self.source, self.__name__ = source, source.name.partition("_")[0]
        self._kernel = made(xp, source) if hasattr(xp, "RawKernel") else None

    def __call__(self, *arrays: Array) -> None:
        if self.source.grid:
            assert self._kernel is not None
            self._kernel((self.source.grid,), (self.source.block,), arrays)


@cache
def made(xp: Any, source: Source) -> Any:
    """The kernel as CuPy has it, one for the same text."""
    return xp.RawKernel(PRELUDE + source.body, source.name, OPTIONS)
