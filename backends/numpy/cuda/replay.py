"""The whole step recorded once as a CUDA graph: from then on one launch, whatever the number of kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from threading import Lock
from typing import Any

import numpy as np

from unilayers.graph import Value

Array = Any
Step = Callable[[list[Array], Sequence[Array]], tuple[list[Array], dict[str, Array]]]


class Replayed:
    """``f(state, inputs) -> (state, outputs)``, as the step itself, whose state must be updated in place.

    With new state the step runs once as it is, which compiles its kernels; the next run is recorded. Where it cannot be,
    since the host has to look at a value on the way, the step goes on to run as it is.

    Args:
        step: Made of calls on arrays at fixed places.
        xp: CuPy.
        inputs: The graph's inputs.

    Attributes:
        why: What stopped the recording, if something did.
    """

    def __init__(self, step: Step, xp: Any, inputs: Sequence[Value]) -> None:
        self._step, self._xp, self._inputs = step, xp, inputs
        self._stream = xp.cuda.Stream()  # not the default one, which cannot be recorded; but in order with it
        self._feed: Feed | None = None
        self._state: list[Array] | None = None
        self._recorded: tuple[Any, dict[str, Array], Any] | None = None
        self.why = ""
        self._lock = Lock()

    def __call__(self, state: list[Array], inputs: Sequence[Array]) -> tuple[list[Array], dict[str, Array]]:
        with self._lock, self._stream:
            if self.why:
                return self._step(state, inputs)
            if self._feed is None:
                self._feed = Feed(self._xp, self._inputs, self._stream)
            fed = self._feed(inputs)
            if self._state is None or not all(map(is_, state, self._state)):
                self._recorded = None
                state, outputs = self._step(state, fed)
                self._state = list(state)
                return state, outputs
            if self._recorded is None:
                self._record(state, fed)
            if self._recorded is None:
                return self._step(state, fed)
            graph, fixed, _ = self._recorded
            graph.launch()
            return state, {name: y.copy() for name, y in fixed.items()}

    def _record(self, state: list[Array], fed: Sequence[Array]) -> None:
        """Record a run, which does not run it. Memory that it allocates stays its own."""
        pool = self._xp.cuda.MemoryPool()
        try:
            with self._xp.cuda.using_allocator(pool.malloc):
                self._stream.begin_capture()
                try:
                    _, outputs = self._step(state, fed)
                finally:
                    graph = self._stream.end_capture()
        except Exception as error:  # CuPy has many classes for what cannot be recorded
            self.why = f"{type(error).__name__}: {error}"
        else:
            self._recorded = graph, outputs, pool


class Feed:
    """Brings inputs to fixed places on the device; those from the host over pinned memory on a stream of its own.

    Two rounds take turns, so that a batch is on its way while the step before it still runs.

    Args:
        xp: CuPy.
        inputs: What there is to bring.
        stream: Where the step runs.
    """

    def __init__(self, xp: Any, inputs: Sequence[Value], stream: Any) -> None:
        self._places = [xp.empty(v.shape, v.dtype) for v in inputs]
        self._stream, self._copying = stream, xp.cuda.Stream(non_blocking=True)
        self._rounds = [_Round(xp, inputs) for _ in range(2)]

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """The fixed arrays, filled as soon as what is queued on the stream comes to it."""
        now = self._rounds[0]
        self._rounds.reverse()
        host = [i for i, x in enumerate(arrays) if type(x) is np.ndarray]
        if host:
            now.arrived.synchronize()
            self._copying.wait_event(now.taken)
            for i in host:
                now.pinned[i][...] = arrays[i]
                now.staged[i].set(now.pinned[i], stream=self._copying)
            now.arrived.record(self._copying)
            self._stream.wait_event(now.arrived)
        for i, place in enumerate(self._places):
            place[...] = now.staged[i] if i in host else arrays[i]
        now.taken.record(self._stream)
        return self._places


class _Round:
    """A copy of the inputs in pinned memory, and one on the device, with the events that say when they are free."""

    def __init__(self, xp: Any, inputs: Sequence[Value]) -> None:
        self.pinned = [_pinned(xp, tuple(v.shape), v.dtype) for v in inputs]
        self.staged = [xp.empty(v.shape, v.dtype) for v in inputs]
        self.arrived, self.taken = xp.cuda.Event(disable_timing=True), xp.cuda.Event(disable_timing=True)


def _pinned(xp: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    count = int(np.prod(shape))
    memory = xp.cuda.alloc_pinned_memory(max(1, count * np.dtype(dtype).itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)
