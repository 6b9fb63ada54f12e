"""How far one training is from another, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unilayers.compare.record import Record


@dataclass(frozen=True)
class Difference:
    """How far a value of each step is from the reference's.

    Args:
        curve: The relative difference of each step that both have come to.
        tolerance: What is exceeded, or not.
    """

    curve: Sequence[float]
    tolerance: float

    @property
    def largest(self) -> float:
        """The largest; 0 if there are none."""
        return max(self.curve, default=0.0)

    @property
    def at(self) -> int | None:
        """The step with the largest."""
        return self.curve.index(self.largest) + 1 if self.curve else None

    @property
    def first(self) -> int | None:
        """The first step that exceeds the tolerance, or None."""
        return next((i + 1 for i, d in enumerate(self.curve) if d > self.tolerance), None)


def difference(value: Any, reference: Any) -> float:
    """``max |value - reference| / max |reference|``, of numbers or arrays; infinite where one is not a number.

    Args:
        value: A number or an array.
        reference: Of the same shape.

    Example:
        >>> difference(1.01, 1.0), difference([1.0, 0.0], [1.0, 0.5]), difference(float("nan"), 1.0)
        (0.010000000000000009, 0.5, inf)
    """
    a, b = np.asarray(value, "float64"), np.asarray(reference, "float64")
    if a.shape != b.shape:
        return math.inf
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    if not (np.isfinite(a) & np.isfinite(b))[~same].all():
        return math.inf
    scale = np.abs(b[np.isfinite(b)]).max()
    return float(np.abs(a[~same] - b[~same]).max() / scale) if scale else math.inf


def differences(record: Record, reference: Record, tolerance: float) -> dict[str, Difference]:
    """The difference of each value of the steps, by its name.

    Args:
        record: A training.
        reference: What it is compared with.
        tolerance: See `Difference`.
    """
    found = {}
    for name in reference.values:
        pairs = zip(record.curve(name), reference.curve(name), strict=False)  # one may have been stopped before
        found[name] = Difference([difference(a, b) for a, b in pairs], tolerance)
    return found
