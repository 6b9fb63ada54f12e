"""One contestant in a process of its own, which answers its parent's lines of JSON and else waits.

Its one argument is JSON, too: the names of the contestant and the workload, how many CPUs, whether in short; and
the clock that steps are timed by.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what loads NumPy is imported when imports are timed
    from benchmarks.suite.contestant import Contestant


def main() -> None:
    told = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print is no answer

    def answer(**values: object) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    if hasattr(os, "sched_setaffinity"):  # which thread pools go by that no variable reaches
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: told["threads"]])
    clock = {"wall": time.perf_counter, "processor": time.process_time}[told.pop("clock")]
    contestant, found = _start(**told)
    answer(**found)
    used = time.process_time()
    for line in sys.stdin:
        seconds, idle, begin = float(line), time.process_time() - used, time.perf_counter()
        ms, count = contestant.turn(seconds, clock)
        used, before = time.process_time(), used + idle
        wall = time.perf_counter() - begin
        answer(ms=ms, steps=count, idle_s=idle, cpus=(used - before) / wall, memory_mb=_peak())


def _start(name: str, workload: str, threads: int, short: bool) -> tuple[Contestant, dict[str, object]]:
    """Import, build, run the first steps. Gives the contestant, and how long that took and what the steps gave."""
    family, *rest = name.split(":")
    begin = time.perf_counter()
    import_module(family)
    if family == "unilayers":
        import_module(f"unilayers.backends.{rest[0]}")
    imported = time.perf_counter() - begin
    from benchmarks.suite import workloads

    build, w = builder(name), workloads.WORKLOADS[workload]
    w = workloads.short(w) if short else w
    begin = time.perf_counter()
    contestant = build(w)
    results = contestant.results(1)
    first = time.perf_counter() - begin
    if w.dropout:  # whose masks differ
        results = build(w, dropout=False).results(w.checked)
    else:
        results += contestant.results(w.checked - 1)
    return contestant, {"import_s": imported, "first_s": first, "results": [r.ravel().tolist() for r in results]}


def builder(name: str) -> Callable[..., Contestant]:
    """The function of a workload that makes a contestant; ``dropout=False`` leaves dropout out."""
    family, *rest = name.split(":")
    module = {"unilayers": "ours", "keras": "keras3"}.get(family, f"native_{family}")
    build = import_module(f"benchmarks.suite.{module}").build
    return lambda w, **options: build(w, *rest, **options)


def _peak() -> float:
    """The most memory that this process has had, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
