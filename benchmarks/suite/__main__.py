"""The speed of unilayers beside PyTorch, TensorFlow, JAX and Keras, from the project's root:

    python -m benchmarks.suite [--only W1,W7] [--contestants 'unilayers:numpy,torch:*'] [--rounds 5] [--seconds 2]

On a machine that others use, too, ``--threads 1 --clock processor`` disturbs the ratios least.

Writes ``results.md`` and ``results.json``, anew as it goes on. Ends with 1 if a contestant computed something
else than the others, or died.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

from benchmarks.suite.report import Report, cpus, versions
from benchmarks.suite.runner import ROOT, Settings, run
from benchmarks.suite.targets import contestants, groups
from benchmarks.suite.workloads import WORKLOADS
from unilayers.timing.engines import processor


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(WORKLOADS), help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--contestants", default="*", help="names or patterns, by commas")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=2, help="length of a turn")
    parser.add_argument("--threads", type=int, default=cpus(), help="of each contestant")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="what steps are timed by")
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see whether it works")
    parser.add_argument("--out", type=Path, help="folder; benchmarks/results/<date>-<processor> if not given")
    args = parser.parse_args(given)
    unknown = sorted(set(args.only.split(",")) - set(WORKLOADS))
    if unknown:
        parser.error(f"no workload is called {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    rounds, seconds = (2, 0.02) if args.short else (args.rounds, args.seconds)
    how = Settings(rounds, seconds, args.threads, args.clock, args.short)
    settings = {"date": date.today().isoformat(), "processor": processor(), **asdict(how), "versions": versions()}
    name = re.sub(r"[^\w]+", "-", f"{settings['date']} {settings['processor']} {args.threads} threads").strip("-")
    folder = args.out or ROOT / "benchmarks" / "results" / name
    report = Report(settings, [])
    for w in (WORKLOADS[name] for name in args.only.split(",")):
        begin, reference = time.perf_counter(), list[float]()
        report.found.append((w, []))
        for names in groups(w, contestants(w, args.contestants)):
            print(f"{w.name}: {', '.join(names)}", flush=True)
            report.found[-1][1].append(run(w, names, how, reference))
            report.write(folder)
        print("\n\n".join(report.of(*report.found[-1])), f"\n\n{time.perf_counter() - begin:.0f} s\n", flush=True)
    print(report.short())
    results = [r for _, found in report.found for group in found for r in group]
    return int(any(r.error or not r.agrees for r in results))


if __name__ == "__main__":
    raise SystemExit(main())
