"""What came of a sweep: its trials, as far as they are, and which is the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unilayers.runs import Best, Run
from unilayers.sweep.space import Axis, Point, Space, shown

WAITS, TRAINS, DONE, FAILED = "waits", "trains", "done", "failed"
SEED = "seed"


@dataclass
class Trial:
    """One training of a sweep.

    Args:
        number: From 1 on.
        values: The value of each path.
        run: Its run folder, with the history as far as it is.
        state: ``waits``, ``trains``, ``done`` or ``failed``.
        scores: Loss and metrics of the trained model.
        problem: Why it failed.
    """

    number: int
    values: Point
    run: Run
    state: str = WAITS
    scores: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def name(self) -> str:
        """Its number as folders and tables have it."""
        return f"{self.number:03}"


@dataclass
class Sweep:
    """One recipe, trained with many settings.

    Args:
        name: The recipe's.
        recipe: The resolved recipe, before anything is set.
        axes: What is varied.
        how: ``grid``, ``random`` or ``search``.
        monitor: Name of the value that counts.
        direction: ``up`` if more of it is better, ``down`` if less is.
        folder: Where everything is.
        trials: All trials in order, those that wait too.
    """

    name: str
    recipe: str
    axes: Sequence[Axis]
    how: str
    monitor: str
    direction: str
    folder: Path
    trials: list[Trial] = field(default_factory=list)

    @property
    def space(self) -> Space:
        """All points that could be tried."""
        return Space(self.axes)

    @property
    def varied(self) -> list[str]:
        """The paths with more than one value."""
        return self.space.varied

    @property
    def short(self) -> dict[str, str]:
        """A name for each path that varies: its last step, or all of it where another has the same."""
        last = {path: path.rpartition(".")[2] for path in self.varied}
        return {path: name if list(last.values()).count(name) == 1 else path for path, name in last.items()}

    def label(self, trial: Trial, without: str = "") -> str:
        """What is special about a trial, in a line.

        Args:
            trial: The trial.
            without: A path to leave out.
        """
        names = {path: name for path, name in self.short.items() if path != without}
        return ", ".join(f"{name} {shown(trial.values[path])}" for path, name in names.items())

    def score(self, trial: Trial) -> Best | None:
        """The best value that counts of a trial, and its epoch; None if it has none."""
        return trial.run.best_of(self.monitor, self.direction)

    @property
    def ranked(self) -> list[Trial]:
        """All trials: those that are done, the best first, then the others by number."""

        def key(trial: Trial) -> tuple[bool, float, int]:
            best = self.score(trial) if trial.state == DONE else None
            known = best is not None and not math.isnan(best.value)
            value = best.value if best is not None and known else 0.0
            return not known, -value if self.direction == "up" else value, trial.number

        return sorted(self.trials, key=key)

    @property
    def best(self) -> Trial | None:
        """The best of the trials that are done; None as long as there is none."""
        first = next(iter(self.ranked), None)
        return first if first is not None and first.state == DONE and self.score(first) is not None else None

    def groups(self) -> dict[str, list[Trial]]:
        """The trials that are done and differ in their seed alone, by a name for each group; none if seeds are not
        varied, or nothing else is."""
        found: dict[str, list[Trial]] = {}
        for trial in self.ranked if SEED in self.varied and len(self.varied) > 1 else ():
            if trial.state == DONE:
                found.setdefault(self.label(trial, without=SEED), []).append(trial)
        return found

    def to_plain(self) -> dict[str, Any]:
        """Everything as JSON has it."""
        from unilayers.compare.record import plain

        trials = [
            {
                "number": t.number, "values": t.values, "state": t.state, "problem": t.problem, "scores": t.scores,
                "score": (best := self.score(t)) and best.value, "epoch": best and best.epoch,
                "folder": str(t.run.folder.relative_to(self.folder)), "history": t.run.epochs,
            }
            for t in self.trials
        ]  # fmt: skip
        first = self.best
        about = {"name": self.name, "how": self.how, "monitor": self.monitor, "direction": self.direction}
        axes = {axis.path: axis.plain() for axis in self.axes}
        found: dict[str, Any] = plain(
            {**about, "axes": axes, "best": first and first.number, "trials": trials, "recipe": self.recipe}
        )
        return found
