"""A run folder as it lies there, whatever has become of it: what can be read, and what is wrong with the rest."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unilayers import losses, metrics, optimizers
from unilayers.data import Source
from unilayers.errors import CheckpointError, RecipeError, UnilayersError
from unilayers.layers.base import Layer
from unilayers.recipe.document import dotted, parse
from unilayers.recipe.fields import Checker, families_in
from unilayers.recipe.run import CHECKPOINT, ENVIRONMENT, HISTORY, RECIPE
from unilayers.recipe.sections import Data, Fit, Settings
from unilayers.registry import Registry, defaults_of, hints_of, parameters, snake_case
from unilayers.saving import describe

FILES = (RECIPE, HISTORY, CHECKPOINT, ENVIRONMENT)
BESIDE = ("epoch", "seconds")  # in a line of the history, what is no value of the model
Step = str | int


class Best(NamedTuple):
    """The best value of a run, and the epoch that had it."""

    name: str
    value: float
    epoch: int


@dataclass
class Run:
    """What a run folder holds, as far as it can be read.

    Args:
        folder: The folder.
        settings: Its recipe with every default written out, as plain data.
        environment: When, where and with which versions it was trained last; ``before`` has the times before.
        epochs: The lines of its history.
        position: How far its checkpoint has come, by the fields of ``Position``; empty without a checkpoint.
        problems: What is missing or damaged, each in a sentence without a full stop.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    position: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The recipe's name; empty if it cannot be read."""
        return str(self.settings.get("name", ""))

    @property
    def backend(self) -> str:
        return str(self.environment.get("backend") or self.settings.get("backend") or "")

    @property
    def device(self) -> str:
        return str(self.environment.get("device") or self.settings.get("device") or "")

    @property
    def started(self) -> datetime | None:
        """When it was last started."""
        try:
            found = datetime.fromisoformat(self.environment["started"])
        except (KeyError, TypeError, ValueError):
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    @property
    def done(self) -> int:
        """Epochs in the checkpoint; those in the history if there is none."""
        return self.position.get("epoch", self.epochs[-1]["epoch"] if self.epochs else 0)

    @property
    def wanted(self) -> int | None:
        """Epochs that the recipe asks for."""
        fit = self.settings.get("fit")
        found = fit.get("epochs") if isinstance(fit, Mapping) else None
        return found if isinstance(found, int) else None

    @property
    def seconds(self) -> float:
        """Time in training, validation included."""
        return math.fsum(value for _, value in self.values("seconds") if math.isfinite(value))

    @property
    def names(self) -> list[str]:
        """What the history has values of, in the order in which they came."""
        return list(dict.fromkeys(name for line in self.epochs for name in line if name not in BESIDE))

    def values(self, name: str) -> list[tuple[int, float]]:
        """The values of one name with their epochs: of several the mean, NaN for one that was not finite."""
        return [(line["epoch"], _mean(line[name])) for line in self.epochs if name in line]

    @property
    def best(self) -> Best | None:
        """The best value on the validation part, or where there is none in training: of the first metric of which it is
        known whether more is better, else of the loss."""
        held = [name for name in self.names if name.startswith("val_")] or self.names
        for name in sorted(held, key=lambda name: (name.endswith("loss"), name.removeprefix("val_") != "loss")):
            direction = direction_of(name, self.settings.get("metrics"))
            if direction is not None:
                return self.best_of(name, direction)
        return None

    def best_of(self, name: str, direction: str) -> Best | None:
        """The best value of one name; None if there is none.

        Args:
            name: As the history has it.
            direction: ``up`` if more is better, ``down`` if less is.
        """
        values = self.values(name)
        finite = [(epoch, value) for epoch, value in values if math.isfinite(value)]
        if not values:
            return None
        epoch, value = (max if direction == "up" else min)(finite or values, key=lambda pair: pair[1])
        return Best(name, value, epoch)

    def changes(self) -> dict[str, Any]:
        """The settings that are not those that a recipe has where it says nothing, by their dotted path.

        Example:
            >>> from unilayers.recipe import load_recipe
            >>> found = Run(Path("."), load_recipe("digits-mlp").settings).changes()
            >>> found["optimizer"], found["model[2].Dense.units"], "model[2].Dense.use_bias" in found
            ('Adam', 128, False)
        """
        return {dotted(path): value for path, value in _changes(self.settings)}


# ---- reading --------------------------------------------------------------------------------------------------------


def read_run(folder: str | PathLike[str]) -> Run:
    """What a run folder holds; what is missing or damaged in it is among the ``problems`` of the run.

    Raises:
        UnilayersError: if there is no such folder, or it holds nothing of a run.
    """
    place = Path(folder).expanduser()
    if not any((place / name).is_file() for name in FILES):
        problem = "not a run folder" if place.is_dir() else "no such run folder"
        raise UnilayersError(problem, where=str(folder), expected=f"a folder with {', '.join(FILES)}")
    run = Run(place)
    try:
        run.settings = parse((place / RECIPE).read_bytes(), RECIPE).value
        lacking = [key for key in parameters(Settings) if key not in run.settings and key not in defaults_of(Settings)]
        if lacking:
            run.problems.append(f"{RECIPE}: cut short, there is no {', '.join(lacking)}")
    except RecipeError as error:
        run.problems.append(str(error).rstrip("."))
    except (OSError, RecursionError) as error:
        run.problems.append(_why(RECIPE, error))
    try:
        found = json.loads((place / ENVIRONMENT).read_text("utf-8"))
        run.environment = found if isinstance(found, dict) else {}
        if not isinstance(found, dict):
            run.problems.append(f"{ENVIRONMENT}: not a mapping")
    except (OSError, ValueError, RecursionError) as error:
        run.problems.append(_why(ENVIRONMENT, error))
    _read_history(run)
    try:
        run.position = describe(place / CHECKPOINT).get("position", {})
    except CheckpointError as error:
        missing = not (place / CHECKPOINT).is_file()
        run.problems.append(f"{CHECKPOINT}: " + ("missing, no epoch is complete" if missing else error.problem))
    last = run.epochs[-1]["epoch"] if run.epochs else 0
    if last < run.position.get("epoch", 0):
        run.problems.append(f"{HISTORY}: ends at epoch {last}, the checkpoint at {run.position['epoch']}")
    return run


def find_runs(folder: str | PathLike[str] = "runs") -> list[Run]:
    """All runs in a folder and the folders inside it, the newest first; the folder itself may be one.

    Args:
        folder: Where to look. Hidden folders, links and what lies inside a run are left out.

    Raises:
        UnilayersError: if there is no such folder.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise UnilayersError("no such folder", where=str(folder), fix="Train something: unilayers train digits-cnn")
    runs = [read_run(found) for found in _run_folders(place)]
    # A run that does not know when it was is placed by its folder.
    when = {id(run): run.started or datetime.fromtimestamp(run.folder.stat().st_mtime, UTC) for run in runs}
    return sorted(runs, key=lambda run: (when[id(run)], str(run.folder)), reverse=True)


def _run_folders(place: Path) -> Iterator[Path]:
    """Folders with two or more of a run's files: one alone may be something else, such as a recipe of one's own."""
    for folder, below, files in os.walk(place):
        if len(set(FILES) & set(files)) > 1:
            below.clear()
            yield Path(folder)
        below[:] = [name for name in below if not name.startswith(".")]


def _read_history(run: Run) -> None:
    try:
        lines = (run.folder / HISTORY).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        run.problems.append(_why(HISTORY, error))
        return
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if _is_line(line):
            run.epochs.append(line)
        else:
            run.problems.append(f"{HISTORY}: line {number} is damaged" + " or cut short" * (number == len(lines)))


def _is_line(line: Any) -> bool:
    return isinstance(line, dict) and type(line.get("epoch")) is int and all(map(_is_value, line.values()))


def _is_value(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(item is None or type(item) in (int, float) for item in items)


def _mean(value: Any) -> float:
    items = value if isinstance(value, list) else [value]
    return float(np.mean([math.nan if item is None else item for item in items])) if items else math.nan


def _why(name: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name}: missing"
    if isinstance(error, RecursionError):
        return f"{name}: damaged (nested too deep)"
    return f"{name}: {getattr(error, 'strerror', None) or f'damaged ({error})'}"


def direction_of(name: str, metrics: Any) -> str | None:
    """Whether more is better (``up``) or less (``down``) of a value in a history; None if nothing says so.

    Args:
        name: The value.
        metrics: The metrics, as a recipe describes them.

    Example:
        >>> direction_of("val_loss", []), direction_of("val_accuracy", ["accuracy"]), direction_of("size", [])
        ('down', 'up', None)
    """
    own = name.removeprefix("val_")
    if own == "loss" or own.endswith("_loss"):
        return "down"
    ends = [way for known, way in _directions(metrics).items() if own == known or own.endswith(f"_{known}")]
    return next(iter(ends), None)


def _directions(described: Any) -> dict[str, str]:
    """Whether more is better (``up``) or less (``down``), by the names that metrics have in a history."""
    if isinstance(described, Mapping) and not any(name in metrics.Metric.registry for name in described):
        described = list(described.values())  # by output
    if isinstance(described, list):
        return {name: way for one in described for name, way in _directions(one).items()}
    try:
        metric: Any = metrics.get(described, np.zeros(1), np.zeros((1, 2)))
        return {metric.name: metric.direction} if metric is not None and metric.direction else {}
    except (UnilayersError, TypeError):
        return {}


# ---- settings -------------------------------------------------------------------------------------------------------

FAMILIES: dict[str, Registry] = {
    "model": Layer.registry,
    "loss": losses.Loss.registry,
    "optimizer": optimizers.Optimizer.registry,
    "metrics": metrics.Metric.registry,
}
Found = Iterator[tuple[tuple[Step, ...], Any]]


def _changes(settings: Mapping[str, Any]) -> Found:
    usual = Checker().defaults(Settings)
    for key, value in settings.items():
        if key in ("name", "description") or (key in usual and usual[key] == value):
            continue
        if key in FAMILIES:
            yield from _in_object([FAMILIES[key]], value, (key,))
        elif key == "data" and isinstance(value, Mapping):
            known = Source.registry.get(value["dataset"]) if value.get("dataset") in Source.registry else None
            yield from _in_arguments([Data, *([known] if known else [])], value, (key,))
        elif key == "fit" and isinstance(value, Mapping):
            yield from _in_arguments([Fit], value, (key,))
        else:
            yield (key,), value


def _in_arguments(classes: Iterable[type], arguments: Mapping[str, Any], at: tuple[Step, ...]) -> Found:
    usual = {name: value for cls in classes for name, value in Checker().defaults(cls).items()}
    hints = {name: hint for cls in classes for name, hint in hints_of(cls).items()}
    for name, value in arguments.items():
        if not (name in usual and usual[name] == value):
            yield from _in_object(families_in(hints.get(name)), value, (*at, name))


def _in_object(families: Iterable[Registry], value: Any, at: tuple[Step, ...]) -> Found:
    """What is said of an object, ``{name: arguments}``: its arguments, or its name if all are the usual ones."""
    families = list(families)
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            yield from _in_object(families, item, (*at, i))
        return
    name, arguments = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else ("", None)
    registry = next((family for family in families if name in family), None)
    if registry is None or not isinstance(arguments, Mapping):
        yield at, value
        return
    if registry is Layer.registry and re.fullmatch(rf"{snake_case(name)}(_\d+)?", str(arguments.get("name"))):
        arguments = {key: own for key, own in arguments.items() if key != "name"}  # as it would be called anyway
    found = list(_in_arguments([registry.get(name)], arguments, (*at, name)))
    yield from found or [(at, name)]
