"""A step recorded once as a CUDA graph: from then on one launch, whatever the number of kernels.

What an engine calls streams, events and recordings stands in its own folder; when to record and how inputs get to
their places is said here for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from operator import is_
from threading import Lock
from typing import Any, Protocol

import numpy as np

from unilayers.backend import Executable
from unilayers.graph import Value
from unilayers.spec import host_dtype

Array = Any
Result = tuple[list[Array], dict[str, Array]]


class Queue(Protocol):
    """An engine's way to queue work on a CUDA device.

    Attributes:
        main, copying: The streams that steps run on, and that inputs come on; each has ``wait_event(event)``.
    """

    main: Any
    copying: Any

    def running(self) -> AbstractContextManager[Any]:
        """While active, what the engine is asked for goes to the main stream."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """An array on the device."""

    def pinned(self, shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, Any]:
        """Memory of the host that the device copies from by itself: as NumPy sees it, and as the engine does."""

    def send(self, source: Any, there: Array) -> None:
        """Copy pinned memory to the device on the copying stream, without waiting."""

    def assign(self, there: Array, value: Array) -> None:
        """Copy into an array on the device; the dtype may be another."""

    def copy(self, array: Array) -> Array:
        """A copy on the device."""

    def event(self) -> Any:
        """An event, with ``record(stream)`` and ``synchronize()``; one that was never recorded is over."""

    def record(self, run: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Record what ``run`` asks for on the main stream, without doing it; gives what does it, and run's result."""


class Replayed:
    """``f(state, inputs) -> (state, outputs)``, as the step itself, whose state must be updated in place.

    With new state the step runs once as it is, which compiles its kernels; the next run is recorded. Where that is not
    possible, since the host has to look at a value on the way, the step goes on to run as it is.

    Args:
        step: Made of calls on arrays at fixed places.
        queue: Of the device.
        inputs: The graph's inputs.

    Attributes:
        why: What stopped the recording, if something did.
    """

    def __init__(self, step: Executable, queue: Queue, inputs: Sequence[Value]) -> None:
        self._step, self._queue, self._inputs = step, queue, inputs
        self._feed: Feed | None = None
        self._state: list[Array] | None = None
        self._recorded: tuple[Callable[[], None], dict[str, Array]] | None = None
        self.why = ""
        self._lock = Lock()

    def __call__(self, state: list[Array], inputs: Sequence[Array]) -> Result:
        with self._lock, self._queue.running():
            if self._feed is None:
                self._feed = Feed(self._queue, self._inputs)
            fed = self._feed(inputs)
            if self.why:
                return self._step(state, fed)
            if self._state is None or len(state) != len(self._state) or not all(map(is_, state, self._state)):
                self._recorded = None
                state, outputs = self._step(state, fed)
                self._state = list(state)
                return state, outputs
            if self._recorded is None:
                self._record(state, fed)
            if self._recorded is None:
                return self._step(state, fed)
            launch, fixed = self._recorded
            launch()
            return state, {name: self._queue.copy(y) for name, y in fixed.items()}

    def _record(self, state: list[Array], fed: Sequence[Array]) -> None:
        try:
            launch, (_, outputs) = self._queue.record(lambda: self._step(list(state), fed))
        except Exception as error:  # engines have many classes for what cannot be recorded
            self.why = f"{type(error).__name__}: {error}"
        else:
            self._recorded = launch, outputs


class Feed:
    """Brings inputs to fixed places on the device; those from the host over pinned memory on a stream of its own.

    Two rounds take turns, so that a batch is on its way while the step before it still runs.

    Args:
        queue: Of the device.
        inputs: What there is to bring.
    """

    def __init__(self, queue: Queue, inputs: Sequence[Value]) -> None:
        self._queue = queue
        self._places = [queue.empty(_sizes(v), v.dtype) for v in inputs]
        self._rounds = [_Round(queue, inputs) for _ in range(2)]

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """The fixed arrays, filled as soon as what is queued on the main stream comes to it."""
        queue, now = self._queue, self._rounds[0]
        self._rounds.reverse()
        host = [i for i, x in enumerate(arrays) if type(x) is np.ndarray]
        if host:
            now.arrived.synchronize()
            queue.copying.wait_event(now.taken)
            for i in host:
                seen, source = now.pinned[i]
                seen[...] = arrays[i]
                queue.send(source, now.staged[i])
            now.arrived.record(queue.copying)
            queue.main.wait_event(now.arrived)
        for i, place in enumerate(self._places):
            queue.assign(place, now.staged[i] if i in host else arrays[i])
        if host:
            now.taken.record(queue.main)
        return self._places


class _Round:
    """A copy of the inputs in pinned memory, and one on the device, with the events that say when they are free."""

    def __init__(self, queue: Queue, inputs: Sequence[Value]) -> None:
        self.pinned = [queue.pinned(_sizes(v), host_dtype(v.dtype)) for v in inputs]
        self.staged = [queue.empty(_sizes(v), host_dtype(v.dtype)) for v in inputs]
        self.arrived, self.taken = queue.event(), queue.event()


def _sizes(value: Value) -> tuple[int, ...]:
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]  # specialised: all are numbers


def in_place(step: Executable, assign: Callable[[Array, Array], None], copy: Callable[[Array], Array]) -> Executable:
    """A step that leaves new state in the arrays of the old, for one that may return others.

    Args:
        step: The step.
        assign: ``assign(there, value)`` copies.
        copy: ``copy(array)`` gives a copy.
    """

    def run(state: list[Array], inputs: Sequence[Array]) -> Result:
        old = list(state)
        new, outputs = step(state, inputs)
        moved = [(a, b) for a, b in zip(old, new, strict=True) if a is not b]
        # What is returned may be the old value of another state: all is read before any is written.
        for place, value in [(a, copy(b)) for a, b in moved] if len(moved) > 1 else moved:
            assign(place, value)
        return old, outputs

    return run
