"""Results on a device, as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.suite.report import figure, least, middles, quartiles, table
from benchmarks.suite.runner import Result
from benchmarks.suite.workloads import Workload

HOW = """\
All run on one device, in turns, one after the other, in one process; batches are on the device already. Times are
between CUDA's events around blocks of steps, and for JAX, which has none, by the host's clock around steps that are
waited for. The time of a turn is the median of its blocks, tables show the median of the turns and their quartiles;
`least` is the shortest block. `of the fastest by hand` is the median of the ratios, turn by turn, to that PyTorch
program by hand that is fastest. `differs` is how far the losses of the first steps, without dropout, are from those of
the first contestant. `first step` is building, compiling and the first step; `MB` the device's memory in use.
"""


@dataclass
class Report:
    """All that a run has found.

    Args:
        settings: How it was run, and on what.
        found: The results of each workload.
    """

    settings: dict[str, Any]
    found: list[tuple[Workload, list[Result]]]

    def write(self, folder: Path) -> None:
        """Write ``results.md`` and ``results.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.md").write_text(self.markdown())
        workloads = [{"name": w.name, "title": w.title, "results": [asdict(r) for r in rs]} for w, rs in self.found]
        (folder / "results.json").write_text(json.dumps({"settings": self.settings, "workloads": workloads}, indent=1))

    def markdown(self) -> str:
        parts = ["# On a CUDA device", "\n".join(f"- {k}: {v}" for k, v in self.settings.items()), HOW]
        return "\n\n".join([*parts, *(f"## {w.name}: {w.title}\n\n{of(results)}" for w, results in self.found)]) + "\n"


def of(results: Sequence[Result]) -> str:
    """The table of a workload."""
    by_hand = [r for r in results if r.name.startswith("torch:") and r.counts]
    base = min(by_hand, key=lambda r: quartiles(middles(r))[1]) if by_hand else None
    head = ("contestant", "ms a step", "quartiles", "least", "of the fastest by hand", "first step, s", "MB", "differs")
    return table(head, (_row(r, base) for r in results))


def _row(r: Result, base: Result | None) -> list[str]:
    if r.error:
        return [r.name, f"did not run: {r.error}", *[""] * 6]
    low, middle, high = quartiles(middles(r))
    ratio = ""
    if base is not None and r.counts:
        ratio = figure(quartiles([a / b for a, b in zip(middles(r), middles(base), strict=True)])[1])
    differs = f"{r.deviation:.0e}" if r.agrees else f"**{r.deviation:.0e}: computes something else**"
    memory = max(turn["memory_mb"] for turn in r.turns)
    return [
        r.name, figure(middle), f"{figure(low)} to {figure(high)}", figure(least(r)), ratio, figure(r.first_s),
        f"{memory:.0f}", differs,
    ]  # fmt: skip
