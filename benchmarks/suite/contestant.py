"""What a contestant is: something that runs steps, whose results can be compared and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from benchmarks.suite.workloads import Workload, batches, epoch

BLOCKS = 8  # of steps, in a turn; each is timed
Clock = Callable[[], float]


class Steps:
    """A function called once a batch.

    Args:
        step: Called with the parts of a batch.
        data: The batches as it takes them.
        read: Gives a result of it as NumPy's, after waiting for all that was begun.
    """

    def __init__(self, step: Callable[..., Any], data: Sequence[tuple[Any, ...]], read: Callable[[Any], Any]) -> None:
        self._step, self._data, self._read = step, cycle(data), read
        self._count = 1

    def _run(self, count: int) -> Any:
        result = None
        for batch in islice(self._data, count):
            result = self._step(*batch)
        return self._read(result)

    def results(self, count: int) -> list[Any]:
        """What each of the next steps gives: losses, or outputs."""
        return [np.asarray(self._run(1), "float64") for _ in range(count)]

    def turn(self, seconds: float, clock: Clock = time.perf_counter) -> tuple[list[float], int]:
        """Run for some time after a short warming-up: milliseconds a step, for each block; and the number of steps."""
        begin, steps = clock(), 0
        while steps == 0 or clock() - begin < 0.15 * seconds:
            self._run(self._count)
            steps += self._count
        self._count = max(1, round(seconds / BLOCKS * steps / (clock() - begin)))
        found, begin = list[float](), clock()
        while not found or clock() - begin < seconds:
            start = clock()
            self._run(self._count)
            found.append((clock() - start) / self._count * 1e3)
        return found, steps + len(found) * self._count


class Fit:
    """``model.fit`` as a whole: shuffling, cutting batches, metrics, callbacks; an epoch is what is timed.

    Args:
        model: Compiled.
        callback: The library's class of callbacks.
        w: The workload.
    """

    def __init__(self, model: Any, callback: type, w: Workload) -> None:
        self._model, self._w, self._epoch = model, w, epoch(w)
        self._data = cycle(batches(w))

        class Watch(callback):  # type: ignore[misc]
            def on_train_begin(self, logs: Any = None) -> None:
                self.times = list[float]()

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.start = self.clock()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.times.append(self.clock() - self.start)
                if len(self.times) > 1 and sum(self.times[1:]) > self.seconds:
                    self.model.stop_training = True

        self._watch = Watch()

    def results(self, count: int) -> list[Any]:
        """The losses of the next batches, an epoch each."""
        found = []
        for x, y in islice(self._data, count):
            history = self._model.fit(x, y, batch_size=self._w.batch, epochs=1, verbose=0)
            found.append(np.asarray(history.history["loss"][0], "float64"))
        return found

    def turn(self, seconds: float, clock: Clock = time.perf_counter) -> tuple[list[float], int]:
        """As `Steps.turn`; the first epoch is not counted."""
        self._watch.seconds, self._watch.clock = seconds, clock
        x, y = self._epoch
        self._model.fit(x, y, batch_size=self._w.batch, epochs=1_000_000, verbose=0, callbacks=[self._watch])
        times = self._watch.times
        return [t / self._w.steps * 1e3 for t in times[1:]], len(times) * self._w.steps


Contestant = Steps | Fit
