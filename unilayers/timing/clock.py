"""Compiled graphs timed side by side: warm, in turns, until the device has finished."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from unilayers.backend import Array, Backend
from unilayers.compare.machine import CLOCKS
from unilayers.graph import Graph, leaf, tracing
from unilayers.program import compile_graph
from unilayers.spec import Spec, host_dtype

BLOCK = 2e-3  # seconds: what is shorter is run several times between two looks at the clock
ROUNDS = 3, 100  # of all in turn: at least, at most

Clock = Callable[[], float]
K = TypeVar("K", bound=Hashable)


class Timed(Protocol):
    """What can be timed."""

    def run(self, now: Clock = time.perf_counter) -> float:
        """Seconds of a run by a clock."""


class Runner:
    """A compiled graph with arrays of its own to run on.

    Args:
        graph: Specialised.
        backend: The engine.
        device: A device of it.
        inputs: Arrays of the engine, which are only read.
        state: NumPy arrays by the names of the state; the others are zeros.
        again: Whether each time begins with that state: what is trained on one batch for long ends at gradients that
            are no normal numbers any more, with which processors are slow.
    """

    def __init__(
        self,
        graph: Graph,
        backend: Backend,
        device: str,
        inputs: Sequence[Array] = (),
        state: Mapping[str, np.ndarray] | None = None,
        again: bool = False,
    ) -> None:
        self._backend, self._device, self._inputs, self._count = backend, device, list(inputs), 1
        self._function = compile_graph(graph, backend, device)
        given, specs = state or {}, {v.node.attrs["name"]: v.spec for v in graph.state}
        self._hosts = [given[n] if n in given else _zeros(s) for n, s in specs.items()]
        self._dtypes, self._again = [s.dtype for s in specs.values()], False
        self._begin()
        self._count = max(1, math.ceil(BLOCK / max(self.run(), 1e-7)))
        self._again = again and self._count > 1

    def _begin(self) -> None:
        """Put the state there, and do what is done at a first call."""
        self._state = self._backend.put_as(self._hosts, self._dtypes, self._device)
        self._state, _ = self._function(self._state, self._inputs)
        self._backend.synchronize()

    def run(self, now: Clock = time.perf_counter) -> float:
        """Seconds of a run by a clock: the mean of some, one after the other."""
        if self._again:
            self._begin()
        outputs: Any = None
        start = now()
        for _ in range(self._count):
            self._state, outputs = self._function(self._state, self._inputs)
        self._backend.synchronize()
        seconds = now() - start
        del outputs  # an engine may wait only for arrays that somebody holds
        return seconds / self._count


def _zeros(spec: Spec) -> np.ndarray:
    shape: Any = spec.shape
    return np.zeros(shape, host_dtype(spec.dtype))


def empty(backend: Backend, device: str) -> Runner:
    """What does next to nothing, as slowly as anything must that is called.

    Args:
        backend: The engine.
        device: A device of it.
    """
    number = leaf("state", "number", Spec((), "float32"))
    with tracing():
        more = number + 1.0
    return Runner(Graph((), (number,), {}, {"number": more}), backend, device)


def in_turns(runners: Mapping[K, Timed], seconds: float, clock: str = "wall") -> dict[K, list[float]]:
    """Seconds of a run of each, round by round: other work on the machine disturbs all of them alike.

    Args:
        runners: What is timed.
        seconds: How long, more or less; of what takes longer there are three rounds.
        clock: ``wall``, or ``processor`` for the time that all threads of the process have had.
    """
    found: dict[K, list[float]] = {key: [] for key in runners}
    start, (least, most) = time.perf_counter(), ROUNDS
    for number in range(most):
        if number >= least and time.perf_counter() - start > seconds:
            break
        for key, runner in runners.items():
            found[key].append(runner.run(CLOCKS[clock]))
    return found


def quartiles(seconds: Sequence[float]) -> list[float]:
    """The lower quartile, the median and the upper quartile.

    Example:
        >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
        [2.0, 3.0, 4.0]
    """
    return [float(q) for q in np.percentile(seconds, (25, 50, 75))]
