"""What a training did on one engine, kept as JSON lines while it happens: what a process leaves that was killed."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unilayers.backend import get_backend
from unilayers.callbacks import Callback
from unilayers.compare.machine import machine
from unilayers.program import sizes_of
from unilayers.recipe.cost import flops

Entry = dict[str, Any]


@dataclass
class Record:
    """A training on one engine, as far as it came.

    Args:
        name: What reports call it: the engine, with the device where one was asked for.
        backend: The engine.
        device: The device that was asked for; None: the engine's first.
        begin: ``environment``, ``import_seconds`` (None if the engine was imported before), ``steps_an_epoch``.
        steps: A step each: ``step`` and ``epoch`` from 1 on, ``samples``, ``seconds``, and ``values`` by name: ``loss``
            of its batch, the running metrics of the epoch.
        epochs: An epoch each: ``epoch``, ``step`` (its last), ``seconds``, ``values`` with those of validation.
        end: ``peak_memory`` of the process and ``peak_device_memory`` in bytes, where they are known; ``flops`` of a
            step with a whole batch, ``peak_flops`` in a second, see `Machine`; ``scores``.
        problem: Why the training did not come to its end; empty if it did.
    """

    name: str
    backend: str
    device: str | None = None
    begin: Entry = field(default_factory=dict)
    steps: list[Entry] = field(default_factory=list)
    epochs: list[Entry] = field(default_factory=list)
    end: Entry = field(default_factory=dict)
    problem: str = ""

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take in one line."""
        kind, content = entry["kind"], {k: v for k, v in entry.items() if k != "kind"}
        if kind == "step":
            self.steps.append(content)
        elif kind == "epoch":
            self.epochs.append(content)
        elif kind == "problem":
            self.problem = content["problem"]
        else:
            (self.begin if kind == "begin" else self.end).update(content)

    @property
    def values(self) -> list[str]:
        """Names of the values of a step."""
        return list(self.steps[0]["values"]) if self.steps else []

    def curve(self, name: str) -> list[Any]:
        """A value of each step."""
        return [step["values"].get(name) for step in self.steps]

    @property
    def first_step(self) -> float | None:
        """Seconds of the first step, which compiles."""
        return self.steps[0]["seconds"] if self.steps else None

    @property
    def step_seconds(self) -> list[float]:
        """Seconds of the lower quartile, the median and the upper quartile of steps with a whole batch, without the
        first, which compiles; empty if there are none."""
        if not self.steps:
            return []
        whole = self._whole
        found = [step["seconds"] for step in self.steps if step["samples"] == whole][1:]
        return [float(q) for q in np.percentile(found, (25, 50, 75))] if found else []

    @property
    def samples_per_second(self) -> float | None:
        """Samples in a second of steps of median length."""
        return self._whole / self.step_seconds[1] if self.step_seconds else None

    @property
    def flops_per_second(self) -> float | None:
        """Floating-point operations in a second of steps of median length."""
        flops = self.end.get("flops")
        return flops / self.step_seconds[1] if flops and self.step_seconds else None

    @property
    def share_of_peak(self) -> float | None:
        """The same, of what the engine reaches in a large matrix product."""
        reached, peak = self.flops_per_second, self.end.get("peak_flops")
        return reached / peak if reached and peak else None

    @property
    def _whole(self) -> int:
        """Samples in most batches."""
        return Counter(step["samples"] for step in self.steps).most_common(1)[0][0]

    def figures(self) -> Entry:
        """Times and memory, for reports: seconds and bytes."""
        return {
            "step_seconds": self.step_seconds,
            "samples_per_second": self.samples_per_second,
            "first_step_seconds": self.first_step,
            "import_seconds": self.begin.get("import_seconds"),
            "peak_memory": self.end.get("peak_memory"),
            "peak_device_memory": self.end.get("peak_device_memory"),
            "flops_per_second": self.flops_per_second,
            "share_of_peak": self.share_of_peak,
        }


# ---- lines --------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value as JSON has it, floats exact; those that are not finite, which JSON has not, as their names.

    Example:
        >>> plain({"loss": np.float64(0.1), "f1": np.array([0.5, np.nan])})
        {'loss': 0.1, 'f1': [0.5, 'nan']}
    """
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)) and np.shape(value) != ():
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating, np.ndarray)):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    return value


def from_plain(value: Any) -> Any:
    """What ``plain`` was given: ``'nan'``, ``'inf'`` and ``'-inf'`` are numbers again."""
    if isinstance(value, dict):
        return {k: from_plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [from_plain(v) for v in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


class Lines:
    """The lines of a file that grows: each call of ``new`` gives those that are complete since the last.

    Args:
        path: The file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new(self) -> Iterator[Entry]:
        """The entries that were not given yet."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # cut short: somebody is writing, or was killed while they were
                    return
                self._offset += len(line)
                yield from_plain(json.loads(line))


def read_record(path: Path, name: str, backend: str, device: str | None = None) -> Record:
    """The record in a file, as far as it was written.

    Args:
        path: A file of JSON lines.
        name: See `Record`.
        backend: See `Record`.
        device: See `Record`.
    """
    record = Record(name, backend, device)
    for entry in Lines(path).new():
        record.take(entry)
    return record


class Recorder(Callback):
    """Writes the lines of a training while it happens. A step is timed until the device has finished it.

    Args:
        write: Takes each entry.
        begin: What the first entry says besides what training tells.
        steps: After how many steps training stops; None: as the recipe says.
        own: Whether the process does nothing else, so that its memory is that of the training.
    """

    def __init__(
        self, write: Callable[[Entry], None], begin: Entry, steps: int | None = None, own: bool = True
    ) -> None:
        self._write, self._begin, self._limit, self._own = write, begin, steps, own
        self._whole: Any = None  # the step and the shapes of the first batch

    def on_train_begin(self, logs: Any = None) -> None:
        self._backend, self._whole = get_backend(self.params["backend"]), None
        self._write({"kind": "begin", **self._begin, "steps_an_epoch": self.params["steps"]})

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._epoch_start = epoch + 1, time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._backend.synchronize()
        seconds = time.perf_counter() - self._start
        program, arrays, _ = self.model._running
        self._whole = self._whole or (program, [a.shape for a in arrays])
        values = {name: logs[name] for name in logs}
        values["loss"] = values.pop("batch_loss", values["loss"])  # the batch's own, not the mean of the epoch
        step = self.model.position.step
        about = {"step": step, "epoch": self._epoch, "samples": len(arrays[0]), "seconds": seconds}
        self._write({"kind": "step", **about, "values": values})
        if step == self._limit:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        about = {"epoch": epoch + 1, "step": self.model.position.step}
        seconds = time.perf_counter() - self._epoch_start
        self._write({"kind": "epoch", **about, "seconds": seconds, "values": dict(logs or {})})

    def on_train_end(self, logs: Any = None) -> None:
        device = self._backend.memory(self.params["device"]).get("peak")
        peak = peak_memory() if self._own else None
        self._write({"kind": "memory", "peak_memory": peak, "peak_device_memory": device})
        if self._whole is not None:  # after the memory, of which the peak takes some
            program, shapes = self._whole
            graph = program.traced().graph
            rates = machine(self._backend.name, self.params["device"], self.model.compute_dtype)
            done = flops(graph, sizes_of(graph.inputs, shapes))
            self._write({"kind": "rates", "flops": done, "peak_flops": rates.flops})


def peak_memory() -> int | None:
    """The most bytes of memory that this process has held so far, or None where the system does not tell."""
    with suppress(OSError, StopIteration):  # Linux; what getrusage says there counts the parent's memory, too
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return None
