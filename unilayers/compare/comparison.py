"""Records of several engines, and how far they are from the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from unilayers.compare.differences import Difference, differences
from unilayers.compare.record import Record, from_plain, plain
from unilayers.compare.trace import Traced
from unilayers.errors import UnilayersError

LOSS = "loss"
NOTABLE = {"float64": 1e-9, "float32": 1e-3}  # the tolerance where none is given
COARSE = 5e-2  # and for dtypes with fewer digits
UPDATED = "though from one state outputs and gradients agree: it is how weights are updated, or has added up"


@dataclass
class Comparison:
    """One recipe on several engines.

    Args:
        name: The recipe's.
        recipe: The resolved recipe.
        dtype: Of its numbers.
        records: One for each engine; the first that came to a step is the reference.
        tolerance: The largest relative difference of a step's loss that is no departure. None: 1e-3 in float32, 1e-9
            in float64, 5e-2 with fewer digits.
        traced: Where differences come from, if somebody looked.
        folder: Where the reports are.
    """

    name: str
    recipe: str
    dtype: str
    records: Sequence[Record]
    tolerance: float | None = None
    traced: Traced | None = None
    folder: Path | None = field(default=None, compare=False)

    @property
    def reference(self) -> Record:
        """What the others are compared with: the first that came to a step."""
        return next((r for r in self.records if r.steps), self.records[0])

    @property
    def others(self) -> list[Record]:
        """All but the reference."""
        return [r for r in self.records if r is not self.reference]

    @property
    def limit(self) -> float:
        """The tolerance that counts."""
        return NOTABLE.get(self.dtype, COARSE) if self.tolerance is None else self.tolerance

    @cached_property
    def differences(self) -> Mapping[str, Mapping[str, Difference]]:
        """By name of the engine, the reference aside, and by name of the value."""
        return {r.name: differences(r, self.reference, self.limit) for r in self.others}

    @property
    def step_to_trace(self) -> int | None:
        """The first step at which an engine departs, else the last that the reference and another have come to."""
        found = [step for d in self.differences.values() if LOSS in d and (step := d[LOSS].first) is not None]
        common = [len(d[LOSS].curve) for d in self.differences.values() if LOSS in d and d[LOSS].curve]
        return min(found) if found else max(common, default=None)

    @property
    def problems(self) -> list[str]:
        """A sentence for each engine that failed or departs from the reference, failures first."""
        found = [f"{r.name} has not come to its end: {r.problem}" for r in self.records if r.problem]
        for record in self.others:
            difference = self.differences[record.name].get(LOSS)
            if difference is None or (step := difference.first) is None:
                continue
            have, want = (r.curve(LOSS)[step - 1] for r in (record, self.reference))
            by = f"loss {have!r} instead of {want!r}, a relative difference of {difference.curve[step - 1]:.3g}"
            text = f"{record.name} departs from {self.reference.name} at step {step}: {by}"
            if self.traced and self.traced.step == step and record.name in self.traced.places:
                text += f", {self.traced.where(record.name, self.limit) or UPDATED}"
            found.append(text)
        return found

    def require(self) -> None:
        """Raise a ``UnilayersError`` if an engine failed, or departs from the reference by more than the tolerance."""
        if self.problems:
            expected = f"relative differences of the loss up to {self.limit:g} at every step"
            raise UnilayersError("; ".join(self.problems), where="compare", expected=expected)

    def to_plain(self) -> dict[str, Any]:
        """Everything as JSON has it, with figures and differences, which follow from the rest."""
        runs = []
        for record in self.records:
            found = {
                name: {"largest": d.largest, "at_step": d.at, "first_over_tolerance": d.first, "curve": list(d.curve)}
                for name, d in self.differences.get(record.name, {}).items()
            }
            runs.append({**asdict(record), "figures": record.figures(), "differences": found})
        traced = None if self.traced is None else asdict(self.traced)
        about = {"name": self.name, "dtype": self.dtype, "tolerance": self.tolerance, "limit": self.limit}
        return plain({**about, "problems": self.problems, "runs": runs, "traced": traced, "recipe": self.recipe})

    @classmethod
    def from_plain(cls, document: Mapping[str, Any]) -> Comparison:
        """What ``to_plain`` has given.

        Args:
            document: The content of a ``report.json``.
        """
        runs, traced = from_plain(document["runs"]), from_plain(document["traced"])
        derived = ("figures", "differences")
        records = [Record(**{k: v for k, v in run.items() if k not in derived}) for run in runs]
        found = None if traced is None else Traced(**traced)
        about = (document["name"], document["recipe"], document["dtype"])
        return cls(*about, records, document["tolerance"], found)
