"""Results as figures, Markdown and JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.suite.runner import PAUSE, REMOVED, THREADS, Result
from benchmarks.suite.targets import Comparison, comparisons
from benchmarks.suite.workloads import Workload

PACKAGES = ("unilayers", "numpy", "torch", "tensorflow", "tensorflow-cpu", "jax", "keras")
HOW = f"""\
Each contestant is a process of its own, which starts first, and stays; then they take turns, one running at a time.
The time of a turn is the median of its blocks of steps (of epochs, for `fit`); tables show the median of the turns and
their quartiles. A ratio is that of turns of the same round, to the fastest of those it is compared with; `of the least`
that of the shortest blocks, which other work on the machine disturbs least. All have the same weights and batches at
first; `differs` is how far the losses (or outputs) of the first steps, without dropout, are from those of the first
contestant. `first step` is building, compiling and the first step. Of a `short` run, in tiny sizes, the figures say
nothing about speed. With the `processor` clock, times are those that all threads of a process have had.

Between turns are {PAUSE} s, in which pools of threads stop spinning; `idle` is the processor time that a waiting
contestant spent at most before one of its turns. {", ".join(f"`{v}`" for v in THREADS)} are set to the number of
threads, and processes held to as many CPUs; how threads wait is left as the frameworks have it.
{" and ".join(f"`{v}`" for v in REMOVED)} are removed; caches of compiled code are empty at first. All run on the
CPU.
"""


@dataclass
class Judged:
    """A comparison with its figures.

    Args:
        comparison: What was compared.
        base: The one that was compared with: the fastest.
        value: Ratio, or microseconds more.
        low: Lower quartile over the rounds.
        high: Upper quartile.
        least: The same of the shortest blocks.
    """

    comparison: Comparison
    base: str
    value: float
    low: float
    high: float
    least: float

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None if there is none."""
        return None if self.comparison.limit is None else self.value <= self.comparison.limit


@dataclass
class Report:
    """All that a run has found.

    Args:
        settings: How it was run.
        found: Of each workload, the results of its groups.
    """

    settings: dict[str, Any]
    found: list[tuple[Workload, list[list[Result]]]]

    def write(self, folder: Path) -> None:
        """Write ``results.md`` and ``results.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.md").write_text(self.markdown())
        (folder / "results.json").write_text(json.dumps(self.data(), indent=1) + "\n")

    def data(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        workloads = [
            {
                "name": w.name,
                "title": w.title,
                "groups": [[asdict(r) for r in group] for group in groups],
                "comparisons": [asdict(j) | {"met": j.met} for j in judged(w, groups)],
            }
            for w, groups in self.found
        ]
        return {"settings": self.settings, "workloads": workloads}

    def markdown(self) -> str:
        """Everything, for readers: what fell short first."""
        parts = ["# Benchmarks", "\n".join(f"- {k}: {_told(v)}" for k, v in self.settings.items()), HOW, self.short()]
        parts += ["\n\n".join(self.of(*one)) for one in self.found]
        return "\n\n".join(parts) + "\n"

    def short(self) -> str:
        """The comparisons of all workloads, those that missed their target first."""
        rows = [(w, j) for w, groups in self.found for j in judged(w, groups)]
        rows.sort(key=lambda row: {False: 0, True: 1, None: 2}[row[1].met])
        targets = [j.met for _, j in rows if j.met is not None]
        line = f"{targets.count(True)} of {len(targets)} targets met."
        return f"## Targets\n\n{line}\n\n" + table(("workload", *_JUDGED), ([w.name, *_row(j)] for w, j in rows))

    def of(self, w: Workload, groups: Sequence[Sequence[Result]]) -> Iterable[str]:
        """The sections of a workload."""
        yield f"## {w.name}: {w.title}"
        head = ("contestant", "ms a step", "quartiles", "least", "first step, s", "import, s", "MB", "idle, s", "CPUs")
        for group in groups:
            yield table((*head, "differs"), map(_result, group))
        rows = [_row(j) for j in judged(w, groups)]
        if rows:
            yield table(_JUDGED, rows)


# ---- figures ------------------------------------------------------------------------------------------------


def judged(w: Workload, groups: Sequence[Sequence[Result]]) -> list[Judged]:
    """The comparisons of a workload that can be made: those of contestants that ran in turns."""
    found = []
    for comparison in comparisons(w):
        for group in groups:
            ran = {r.name: r for r in group if r.counts}
            others = [ran[n] for n in comparison.against if n in ran]
            if comparison.ours in ran and others:
                base = min(others, key=lambda r: statistics.median(middles(r)))
                found.append(_judge(comparison, ran[comparison.ours], base))
                break
    return found


def _judge(comparison: Comparison, ours: Result, base: Result) -> Judged:
    def value(a: float, b: float) -> float:
        return (a - b) * 1e3 if comparison.more else a / b

    values = [value(a, b) for a, b in zip(middles(ours), middles(base), strict=True)]
    low, middle, high = quartiles(values)
    return Judged(comparison, base.name, middle, low, high, value(least(ours), least(base)))


def middles(result: Result) -> list[float]:
    """The median of each turn, in milliseconds."""
    return [statistics.median(turn["ms"]) for turn in result.turns]


def least(result: Result) -> float:
    return min(ms for turn in result.turns for ms in turn["ms"])


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


# ---- Markdown -----------------------------------------------------------------------------------------------

_JUDGED = ("contestant", "against", "ratio", "quartiles", "of the least", "target", "met")


def _row(j: Judged) -> list[str]:
    unit, limit = " µs more" if j.comparison.more else "", j.comparison.limit
    target = "" if limit is None else f"{limit:g}{unit}"
    met = {True: "yes", False: "**no**", None: ""}[j.met]
    spread = f"{figure(j.low)} to {figure(j.high)}"
    return [j.comparison.ours, j.base, f"{figure(j.value)}{unit}", spread, figure(j.least), target, met]


def _result(r: Result) -> list[str]:
    if r.error:
        return [r.name, f"did not run: {r.error}", *[""] * 8]
    low, middle, high = quartiles(middles(r))
    differs = f"{r.deviation:.0e}" if r.agrees else f"**{r.deviation:.0e}: computes something else**"
    memory, idle = max(t["memory_mb"] for t in r.turns), max(t["idle_s"] for t in r.turns)
    cpus = statistics.median(t["cpus"] for t in r.turns)
    figures = [middle, f"{figure(low)} to {figure(high)}", least(r), r.first_s, r.import_s, f"{memory:.0f}"]
    return [r.name, *(x if isinstance(x, str) else figure(x) for x in figures), figure(idle), f"{cpus:.1f}", differs]


def figure(x: float) -> str:
    """Three figures, without an exponent.

    Example:
        >>> figure(0.012345), figure(1234.5)
        ('0.0123', '1234')
    """
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:#.3g}" if abs(x) >= 1e-3 else f"{x:.4f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _told(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


# ---- the machine --------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Versions of the packages that take part, without importing one."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
