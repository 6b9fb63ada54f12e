"""One contestant in a process of its own, which answers its parent's lines of JSON and else waits.

Its one argument is JSON, too: the names of the contestant and the workload, how many CPUs, whether in short.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> None:
    import json

    told = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print is no answer

    def answer(**values: object) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    if hasattr(os, "sched_setaffinity"):  # which thread pools go by that no variable reaches
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: told["threads"]])
    answer(**_start(**told))
    used = time.process_time()
    for line in sys.stdin:
        seconds, idle, begin = float(line), time.process_time() - used, time.perf_counter()
        ms, count = _contestant.turn(seconds)
        used, before = time.process_time(), used + idle
        wall = time.perf_counter() - begin
        answer(ms=ms, steps=count, idle_s=idle, cpus=(used - before) / wall, memory_mb=_peak())


def _start(name: str, workload: str, threads: int, short: bool) -> dict[str, object]:
    """Import, build, run the first steps; gives how long that took and what the steps gave."""
    global _contestant
    from importlib import import_module

    family, *rest = name.split(":")
    begin = time.perf_counter()
    import_module(family)
    if family == "unilayers":
        import_module(f"unilayers.backends.{rest[0]}")
    imported = time.perf_counter() - begin
    module = {"unilayers": "ours", "keras": "keras3"}.get(family, f"native_{family}")
    build = import_module(f"benchmarks.suite.{module}").build
    from benchmarks.suite import workloads

    w = workloads.WORKLOADS[workload]
    w = workloads.short(w) if short else w
    begin = time.perf_counter()
    _contestant = build(w, *rest)
    results = _contestant.results(1)
    first = time.perf_counter() - begin
    if w.dropout:  # whose masks differ
        results = build(w, *rest, dropout=False).results(w.checked)
    else:
        results += _contestant.results(w.checked - 1)
    return {"import_s": imported, "first_s": first, "results": [r.ravel().tolist() for r in results]}


def _peak() -> float:
    """The most memory that this process has had, in MB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
