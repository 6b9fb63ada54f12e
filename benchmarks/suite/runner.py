"""Contestants in turns: each in its own process, one running at a time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite.workloads import Workload

ROOT = Path(__file__).parents[2]
PAUSE = 0.25  # seconds between turns, in which the thread pools of the last one stop spinning
REMOVED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # they hold NumPy's BLAS to older kernels than a user gets
THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How contestants are run.

    Args:
        rounds: Turns of each.
        seconds: Length of a turn.
        threads: How many CPUs a contestant has, and threads of a pool.
        clock: ``wall``; ``processor``, the time that all threads of the process have had: on a machine that others
            use, it says what a single thread would need on a quiet one.
        short: Whether in tiny sizes.
        limit: Seconds that a start or a turn may take.
    """

    rounds: int = 5
    seconds: float = 2
    threads: int = 1
    clock: str = "wall"
    short: bool = False
    limit: float = 900


@dataclass
class Result:
    """What became of a contestant.

    Args:
        name: Its name.
        first_s: Seconds of building and the first step.
        import_s: Seconds of importing the framework.
        deviation: How far its first results were from those of the contestant it is checked against, relatively.
        agrees: Whether that is near enough.
        turns: What it answered, turn by turn.
        error: Why it did not run, or not to the end.
    """

    name: str
    first_s: float = 0.0
    import_s: float = 0.0
    deviation: float = 0.0
    agrees: bool = True
    turns: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def counts(self) -> bool:
        """Whether its times say anything."""
        return bool(self.turns) and self.agrees and not self.error


class Process:
    """A contestant's process.

    Args:
        name: The contestant.
        w: The workload.
        how: How it is run.
        cache: Folder for what is compiled, which is empty at first.
    """

    def __init__(self, name: str, w: Workload, how: Settings, cache: str) -> None:
        self._limit, self._errors = how.limit, tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed at its end)
        told = {"name": name, "workload": w.name, "threads": how.threads, "short": how.short, "clock": how.clock}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.suite.worker", json.dumps(told)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT,
            env=environment(name, how.threads, cache),
        )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        """What it says next.

        Raises:
            RuntimeError: if it ends, or takes too long.
        """
        assert self._process.stdout is not None
        timer = threading.Timer(self._limit, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            self._errors.seek(0)
            said = [
                x for x in self._errors.read().splitlines() if re.match(r"[\w.]+(Error|Exception|Unsupported)\b", x)
            ]
            raise RuntimeError(_public(said[-1]) if said else f"ended with {self._process.wait()}")
        return json.loads(line)

    def turn(self, seconds: float) -> dict[str, Any]:
        """Let it run."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()


def environment(name: str, threads: int, cache: str) -> dict[str, str]:
    """Variables of a contestant's process: those of this one, and what makes it the same for everybody."""
    found = {k: v for k, v in os.environ.items() if k not in REMOVED}
    found |= dict.fromkeys(THREADS, str(threads))
    found |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    found |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TORCHINDUCTOR_CACHE_DIR": cache}
    family, second, *_ = name.split(":")
    return found | ({"KERAS_BACKEND": second} if family == "keras" else {})


def _public(message: str) -> str:
    """An error without the paths of this machine."""
    return re.sub(r"(?:/[^\s:'\"]+)+", "(path)", message)[:200]


def run(w: Workload, names: Sequence[str], how: Settings, reference: list[Any]) -> list[Result]:
    """Run contestants of a workload in turns.

    Args:
        w: The workload.
        names: The contestants.
        how: How they are run.
        reference: What the first steps should give; filled by the first contestant if it is empty.
    """
    results = {name: Result(name) for name in names}
    processes: dict[str, Process] = {}
    with tempfile.TemporaryDirectory() as cache:
        try:
            for name, result in results.items():
                processes[name] = Process(name, w, how, cache)
                _attempt(result, lambda r, p=processes[name]: _started(r, p.answer(), w, reference))
            for _ in range(how.rounds):
                for name, result in results.items():
                    if not result.error:
                        time.sleep(0 if how.short else PAUSE)
                        _attempt(result, lambda r, p=processes[name]: r.turns.append(p.turn(how.seconds)))
        finally:
            for process in processes.values():
                process.end()
    return list(results.values())


def _attempt(result: Result, act: Any) -> None:
    try:
        act(result)
    except (RuntimeError, OSError) as error:
        result.error = str(error) or type(error).__name__


def _started(result: Result, said: dict[str, Any], w: Workload, reference: list[Any]) -> None:
    result.first_s, result.import_s = said["first_s"], said["import_s"]
    if not reference:
        reference += said["results"]
    result.deviation = deviation(said["results"], reference)
    result.agrees = result.deviation <= w.tolerance


def deviation(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """The largest difference, of the largest value; infinite for other shapes, or what is no number."""
    a, b = np.array(found), np.array(wanted)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - b).max() / np.abs(b).max())
