"""Two states of training side by side: weights, optimizer, history; and in what their recipes and machines differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from unilayers.errors import UnilayersError
from unilayers.recipe.document import dotted
from unilayers.recipe.run import CHECKPOINT
from unilayers.runs.folder import BESIDE, Run, Step, read_run
from unilayers.saving import read

# By how a tensor's name begins; the others are weights.
PARTS = {f"{part}/": part for part in ("optimizer", "metrics", "callbacks")}


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that is not the same bits in both.

    Args:
        name: Its name in the checkpoint.
        part: ``weights``, ``optimizer``, ``metrics`` or ``callbacks``.
        beyond: Whether it differs by more than the tolerance.
        problem: Why there is no number: it is in one only, of another shape, or not finite in the same places.
        elements: How many of its elements differ.
        size: How many there are.
        absolute: The largest difference.
        relative: The same, as a share of the largest magnitude in the tensor, in either of the two.
    """

    name: str
    part: str
    beyond: bool
    problem: str = ""
    elements: int = 0
    size: int = 0
    absolute: float = math.inf
    relative: float = math.inf


@dataclass(frozen=True)
class HistoryDifference:
    """The first epoch in which two histories part, with the values that do: None where one has no value."""

    epoch: int
    values: dict[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class SettingDifference:
    """A setting, or a fact of the environment, with its two values: None where there is none."""

    path: str
    a: Any
    b: Any


@dataclass
class Difference:
    """In what two states of training differ.

    Args:
        tolerance: The relative difference up to which numbers count as the same; 0 asks for the same bits.
        compared: Number of tensors by part, those of either side.
        tensors: Those that are not the same bits, in the order of the model's layers.
        position: How far training has come, where that differs.
        history: Where the histories part by more than the tolerance, if they do.
        settings: In what the recipes differ; of checkpoints without recipes, the model and what it was compiled with.
        environment: In what the environments differ, the time left out.
        problems: What could not be read, and so was not compared.
    """

    tolerance: float
    compared: dict[str, int] = field(default_factory=dict)
    tensors: list[TensorDifference] = field(default_factory=list)
    position: list[SettingDifference] = field(default_factory=list)
    history: HistoryDifference | None = None
    settings: list[SettingDifference] = field(default_factory=list)
    environment: list[SettingDifference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def parted(self) -> list[TensorDifference]:
        """The tensors that differ by more than the tolerance."""
        return [one for one in self.tensors if one.beyond]

    @property
    def same(self) -> bool:
        """Whether all numbers are the same: tensors, position and history. Settings and environment are what may
        explain a difference, and are none."""
        return not (self.parted or self.position or self.history)


def compare_states(a: str | PathLike[str], b: str | PathLike[str], tolerance: float = 0.0) -> Difference:
    """Compare two checkpoints, or two run folders with all that is in them.

    A tensor differs by its largest difference, as a share of the largest magnitude in it: so one tolerance fits weights
    and the far smaller moments of an optimizer. NaN is the same as NaN.

    Args:
        a: A checkpoint file or a run folder.
        b: Another.
        tolerance: The relative difference up to which numbers count as the same; 0 asks for the same bits.

    Raises:
        CheckpointError: if one of the checkpoints is missing or damaged.
        UnilayersError: for a tolerance that is none.
    """
    if not tolerance >= 0 or math.isinf(tolerance):
        raise UnilayersError(
            "not a tolerance", where="tolerance", expected="a number from 0 on", received=f"{tolerance}"
        )
    paths = [Path(p).expanduser() for p in (a, b)]
    runs = [read_run(path) if path.is_dir() else None for path in paths]
    (tensors_a, about_a), (tensors_b, about_b) = (read(p / CHECKPOINT if p.is_dir() else p) for p in paths)
    found = Difference(tolerance)
    found.tensors = list(_tensors(tensors_a, tensors_b, _layer_names(about_a), tolerance, found.compared))
    found.position = list(setting_differences(about_a.get("position", {}), about_b.get("position", {})))
    first, second = runs
    if first is not None and second is not None:
        found.history = _history(first, second, tolerance)
        found.settings = list(setting_differences(first.settings, second.settings))
        found.environment = list(setting_differences(_facts(first), _facts(second)))
    else:
        found.settings = list(setting_differences(_built(about_a), _built(about_b)))
    found.problems = [f"{run.folder}: {problem}" for run in runs if run is not None for problem in run.problems]
    return found


def _facts(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.environment.items() if name not in ("started", "before")}


def _built(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in ("model", "compile") if about.get(name)}


# ---- tensors --------------------------------------------------------------------------------------------------------


def _tensors(
    a: Mapping[str, np.ndarray],
    b: Mapping[str, np.ndarray],
    layers: Sequence[str],
    tolerance: float,
    compared: dict[str, int],
) -> Iterator[TensorDifference]:
    """Those that differ, weights first and in the layers' order; counts all of them in ``compared``."""
    place = {name: i for i, name in reversed(list(enumerate(layers)))}
    kinds = ["weights", *PARTS.values()]

    def order(name: str) -> tuple[int, int]:
        return kinds.index(_part(name)), max((place.get(step, -1) for step in name.split("/")), default=-1)

    for name in sorted(sorted(a.keys() | b.keys()), key=order):
        part = _part(name)
        compared[part] = compared.get(part, 0) + 1
        if name not in a or name not in b:
            yield TensorDifference(name, part, True, f"only in the {'first' if name in a else 'second'}")
        elif a[name].shape != b[name].shape:
            yield TensorDifference(name, part, True, f"shape {a[name].shape}, then {b[name].shape}")
        elif not _same_bits(a[name], b[name]):
            yield _measured(name, part, a[name], b[name], tolerance)


def _part(name: str) -> str:
    return next((part for start, part in PARTS.items() if name.startswith(start)), "weights")


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))


def _measured(name: str, part: str, a: np.ndarray, b: np.ndarray, tolerance: float) -> TensorDifference:
    wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    x, y = a.astype(wide), b.astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        difference = np.where(same, 0.0, np.abs(x - y))
    elements = int(np.count_nonzero(~same))
    if not np.isfinite(difference).all():
        return TensorDifference(name, part, True, "not finite in the same places", elements, a.size)
    magnitudes = np.abs(np.concatenate([x.reshape(-1), y.reshape(-1)]))
    absolute = float(difference.max(initial=0.0))
    relative = absolute / float(magnitudes.max(initial=0.0, where=np.isfinite(magnitudes))) if absolute else 0.0
    problem = f"dtype {a.dtype}, then {b.dtype}" if a.dtype != b.dtype else "bits only" if not elements else ""
    beyond = relative > tolerance or tolerance == 0
    return TensorDifference(name, part, beyond, problem, elements, a.size, absolute, relative)


def _layer_names(about: Any) -> list[str]:
    """Every name in the description of a model, as they come."""
    if isinstance(about, Mapping):
        own = [about["name"]] if isinstance(about.get("name"), str) else []
        return own + [name for value in about.values() for name in _layer_names(value)]
    return [name for value in about for name in _layer_names(value)] if isinstance(about, list) else []


# ---- history and settings -------------------------------------------------------------------------------------------


def _history(a: Run, b: Run, tolerance: float) -> HistoryDifference | None:
    lines = [{line["epoch"]: line for line in run.epochs} for run in (a, b)]
    for epoch in sorted(lines[0].keys() | lines[1].keys()):
        one, other = (side.get(epoch, {}) for side in lines)
        names = [name for name in dict.fromkeys([*one, *other]) if name not in BESIDE]
        pairs = [dict(run.values(name)).get(epoch) for name in names for run in (a, b)]
        parted = {n: (x, y) for n, x, y in zip(names, pairs[::2], pairs[1::2], strict=True) if _apart(x, y, tolerance)}
        if parted:
            return HistoryDifference(epoch, parted)
    return None


def _apart(x: float | None, y: float | None, tolerance: float) -> bool:
    if x is None or y is None:
        return x is not y
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) != math.isnan(y)
    return abs(x - y) > tolerance * max(abs(x), abs(y))


def setting_differences(a: Any, b: Any, at: tuple[Step, ...] = ()) -> Iterator[SettingDifference]:
    """In what two nested settings differ, by dotted path; an object of another class differs as a whole.

    Example:
        >>> [(d.path, d.a, d.b) for d in setting_differences({"x": [1, {"y": 2}]}, {"x": [1, {"y": 3}]})]
        [('x[1].y', 2, 3)]
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping) and (set(a) & set(b) or not at):
        for key in dict.fromkeys([*a, *b]):
            yield from setting_differences(a.get(key), b.get(key), (*at, key))
    elif isinstance(a, list) and isinstance(b, list):
        for i, (x, y) in enumerate(zip_longest(a, b)):
            yield from setting_differences(x, y, (*at, i))
    elif a != b:
        yield SettingDifference(dotted(at), a, b)
