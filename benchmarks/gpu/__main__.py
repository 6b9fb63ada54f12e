"""Everything that wants a CUDA device, from the project's root:

    python -m benchmarks.gpu [--only W1,R50] [--contestants unilayers:torch,torch:graph] [--rounds 5] [--seconds 2]

Runs the tests that are marked ``gpu``, then the workloads: the built-in backend, PyTorch and JAX beside PyTorch by hand
(eager, as a CUDA graph, compiled). Writes ``tests.txt``, ``results.md`` and ``results.json``. Ends with 1 if a test
failed, or if a contestant computed something else or did not run; with 2, having said why, where there is no device.
"""

from __future__ import annotations

import argparse
import gc
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.gpu.contestants import BY_HAND, CHOSEN, DEVICE, OURS, build, clock_of
from benchmarks.gpu.report import Report, of
from benchmarks.suite.contestant import Clock, Contestant
from benchmarks.suite.report import versions
from benchmarks.suite.runner import ROOT, Result, deviation
from benchmarks.suite.workloads import Workload, short
from unilayers.backend import backend_names, get_backend
from unilayers.errors import BackendError

ENGINES = [name.partition(":")[2] for name in OURS]


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CHOSEN), help=f"of {', '.join(CHOSEN)}")
    parser.add_argument("--contestants", default=",".join((*BY_HAND, *OURS)), help="names, by commas")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=2, help="length of a turn")
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see whether it works")
    parser.add_argument("--no-tests", action="store_true", help="the tables only")
    parser.add_argument("--out", type=Path, help="folder; benchmarks/results/<date>-<device> if not given")
    args = parser.parse_args(given)
    seeing, why = engines()
    if not seeing:
        print("There is no CUDA device here, so nothing was run.", *why, sep="\n")
        return 2
    facts = get_backend(seeing[0]).hardware.facts(DEVICE)
    settings: dict[str, Any] = {"date": date.today().isoformat(), "device": str(facts), "versions": versions()}
    settings |= {"rounds": args.rounds, "seconds": args.seconds, "short": args.short, "not seen by": why}
    name = re.sub(r"[^\w]+", "-", f"{settings['date']} {facts.name or 'cuda'}").strip("-")
    folder = args.out or ROOT / "benchmarks" / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    failed = False if args.no_tests else run_tests(folder)
    report = Report(settings, [])
    names = [n for n in args.contestants.split(",") if n.partition(":")[2] in seeing or n in BY_HAND]
    for chosen in args.only.split(","):
        w = short(CHOSEN[chosen]) if args.short else CHOSEN[chosen]
        report.found.append((w, run(w, names, args.rounds, args.seconds)))
        report.write(folder)
        print(f"{w.name}: {w.title}\n\n{of(report.found[-1][1])}\n", flush=True)
    return int(failed or any(r.error or not r.agrees for _, results in report.found for r in results))


def engines() -> tuple[list[str], list[str]]:
    """The engines that see the device, and why others do not."""
    seeing, why = [], []
    for name in (n for n in backend_names() if n in ENGINES):
        try:
            backend = get_backend(name)
        except BackendError as error:
            why.append(f"{name}: {error}")
            continue
        if DEVICE in backend.devices():
            seeing.append(name)
        else:
            why.append(f"{name}: {backend.hardware.missing()}")
    return seeing, why


def run_tests(folder: Path) -> bool:
    """Run the tests for devices; keeps what they say. Whether some failed, or none ran."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    (folder / "tests.txt").write_text(done.stdout.replace(str(ROOT), "."))
    print("\n".join(done.stdout.splitlines()[-12:]), flush=True)
    return done.returncode != 0


def run(
    w: Workload, names: Sequence[str], rounds: int, seconds: float,
    make: Callable[..., Contestant] = build, clock: Callable[[str], Clock] = clock_of,
    memory: Callable[[str], float] | None = None,
) -> list[Result]:  # fmt: skip
    """Let contestants run a workload in turns.

    Args:
        w: The workload.
        names: The contestants.
        rounds: Turns of each.
        seconds: Length of a turn.
        make: Builds one, see ``contestants.build``.
        clock: What one is timed by.
        memory: Megabytes of the device that one has in use.
    """
    results, running, reference = [Result(name) for name in names], dict[str, Any](), list[Any]()
    for result in results:
        try:
            running[result.name] = _start(result, w, make, reference), clock(result.name)
        except Exception as error:  # each framework has its own
            result.error = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    for _ in range(rounds):
        for result in (r for r in results if not r.error):
            contestant, its_clock = running[result.name]
            try:
                ms, count = contestant.turn(seconds, its_clock)
            except Exception as error:
                result.error = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                continue
            result.turns.append({"ms": ms, "steps": count, "memory_mb": (memory or _in_use)(result.name)})
    running.clear()
    gc.collect()
    return results


def _start(result: Result, w: Workload, make: Callable[..., Contestant], reference: list[Any]) -> Contestant:
    """Build a contestant, and compare its first results with those of the first."""
    begin = time.perf_counter()
    contestant = make(result.name, w)
    found = contestant.results(1)
    result.first_s = time.perf_counter() - begin
    if w.dropout:  # whose masks differ
        found = make(result.name, w, dropout=False).results(w.checked)
    else:
        found += contestant.results(w.checked - 1)
    losses = [r.ravel().tolist() for r in found]
    reference[:] = reference or losses
    result.deviation = deviation(losses, reference)
    result.agrees = result.deviation <= w.tolerance
    return contestant


def _in_use(name: str) -> float:
    engine = name.partition(":")[2] if name in OURS else "torch"
    return next(iter(get_backend(engine).memory(DEVICE).values()), 0) / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
