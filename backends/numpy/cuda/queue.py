"""CuPy's streams, events and recordings, for ``backends.replay``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from unilayers.backends.replay import Array, Result


class CupyQueue:
    """See ``backends.replay.Queue``.

    Args:
        xp: CuPy, with the device current.
    """

    def __init__(self, xp: Any) -> None:
        self.xp, self.empty = xp, xp.empty
        self.main = xp.cuda.Stream()  # not the default one, which cannot be recorded; but in order with it
        self.copying = xp.cuda.Stream(non_blocking=True)

    def running(self) -> AbstractContextManager[Any]:
        stream: AbstractContextManager[Any] = self.main
        return stream

    def pinned(self, shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, Any]:
        count = int(np.prod(shape))
        memory = self.xp.cuda.alloc_pinned_memory(max(1, count * np.dtype(dtype).itemsize))
        seen = np.frombuffer(memory, dtype, count).reshape(shape)
        return seen, seen

    def send(self, source: np.ndarray, there: Array) -> None:
        there.set(source, stream=self.copying)

    def assign(self, there: Array, value: Array) -> None:
        there[...] = value

    def copy(self, array: Array) -> Array:
        return array.copy()

    def event(self) -> Any:
        return self.xp.cuda.Event(disable_timing=True)

    def record(self, run: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """What the run allocates comes from a pool of its own, which nobody else is given."""
        pool = self.xp.cuda.MemoryPool()
        with self.xp.cuda.using_allocator(pool.malloc):
            self.main.begin_capture()
            try:
                result = run()
            finally:
                graph = self.main.end_capture()

        def launch(kept: Any = pool) -> None:
            graph.launch()

        return launch, result
