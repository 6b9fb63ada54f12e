"""Metrics of binary decisions: counts of right and wrong ones at one or more thresholds, and what follows from them."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

import numpy as np

from unilayers import losses, ops
from unilayers.errors import ShapeError
from unilayers.hints import PositiveInt, Probability
from unilayers.losses import EPSILON, cast, same_shape
from unilayers.metrics.base import Metric, as_array, last_size, named, ratio, weights_like
from unilayers.ops import shape_of
from unilayers.spec import normalize_axis, public_shape

# Below any prediction that is in use: what is not among the k largest gets it, and what is shall exceed the threshold.
LOWEST = -1e10

Thresholds = Probability | list[Probability] | None


# ---- counts at thresholds -------------------------------------------------------------------------------------------


class _Counts(Metric):
    """Base class: weighted counts of decisions, a variable of shape ``(thresholds,)`` for each kind in ``kinds``."""

    kinds: ClassVar[tuple[str, ...]] = ()
    top_k = class_id = None  # not annotated, which would make them arguments, or fix the place of those

    thresholds: Thresholds = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.thresholds
        if given is None:
            given = 0.5 if self.top_k is None else LOWEST
        self._thresholds = np.atleast_1d(np.asarray(given, "float64"))
        self._counts = {kind: self.add_variable((len(self._thresholds),), name=kind) for kind in self.kinds}
        vars(self).update(self._counts)  # by name, too: self.true_positives

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in a batch.

        Args:
            y_true: Labels: 0 is negative, all else positive.
            y_pred: Predictions of the same shape, from 0 to 1.
            sample_weight: A weight per sample, ``(batch,)``, or per prediction; sizes of 1 stretch.

        Raises:
            ShapeError: naming the metric, if shapes do not fit.
        """
        with named(self):
            labels, y_pred, weights = decisions(y_true, y_pred, sample_weight, self._dtype, self.top_k, self.class_id)
            labels, y_pred, weights = (ops.reshape(x, (-1,)) for x in (labels, y_pred, weights))
            decided = _exceeds(y_pred, self._thresholds, self._dtype)
            for kind, count in self._counts.items():
                of_kind = ops.where(labels, *((weights, 0.0) if kind in _OF_POSITIVES else (0.0, weights)))
                hits = (of_kind, 0.0) if kind in _POSITIVE_DECISIONS else (0.0, of_kind)
                count.assign_add(ops.sum(ops.where(decided, *hits), axis=1))

    def _one_or_all(self, values: Any) -> Any:
        """A scalar if there is one threshold."""
        return ops.reshape(values, ()) if len(self._thresholds) == 1 else values


_OF_POSITIVES = ("true_positives", "false_negatives")
_POSITIVE_DECISIONS = ("true_positives", "false_positives")


class _Count(_Counts):
    """One count is the result."""

    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None

    def result(self) -> Any:
        return self._one_or_all(ops.identity(self._counts[self.kinds[0]]))


class TruePositives(_Count):
    """How many positive labels have a prediction above the threshold, each counted with its weight.

    Args:
        thresholds: A number from 0 to 1, 0.5 if None; or several, for a result of shape ``(thresholds,)``.

    Example:
        >>> float(TruePositives()([0, 1, 1, 1], [0.1, 0.9, 0.2, 0.7]))
        2.0
    """

    kinds = ("true_positives",)


class TrueNegatives(_Count):
    """How many negative labels have a prediction at or below the threshold, each counted with its weight.

    Args:
        thresholds: A number from 0 to 1, 0.5 if None; or several, for a result of shape ``(thresholds,)``.
    """

    kinds = ("true_negatives",)


class FalsePositives(_Count):
    """How many negative labels have a prediction above the threshold, each counted with its weight.

    Args:
        thresholds: A number from 0 to 1, 0.5 if None; or several, for a result of shape ``(thresholds,)``.
    """

    kinds = ("false_positives",)


class FalseNegatives(_Count):
    """How many positive labels have a prediction at or below the threshold, each counted with its weight.

    Args:
        thresholds: A number from 0 to 1, 0.5 if None; or several, for a result of shape ``(thresholds,)``.
    """

    kinds = ("false_negatives",)


class _Share(_Counts):
    """The share of the true positives in the two counts; 0 where both are 0."""

    direction = "up"

    top_k: PositiveInt | None = None  # type: ignore[assignment]
    class_id: int | None = None  # type: ignore[assignment]
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None

    def result(self) -> Any:
        right, wrong = self._counts.values()
        return self._one_or_all(ratio(right, ops.add(right, wrong)))


class Precision(_Share):
    """Which share of the positive decisions is right: ``true_positives / (true_positives + false_positives)``.

    Args:
        thresholds: A decision is positive above it: a number from 0 to 1, or several for a result of shape
            ``(thresholds,)``. If None 0.5, or with ``top_k`` no threshold.
        top_k: Only the k largest predictions of each sample may be positive; of equal ones the first.
        class_id: Only this entry of the last axis counts.

    Example:
        >>> round(float(Precision()([0, 1, 1, 1], [0.9, 0.9, 0.2, 0.7])), 4)
        0.6667
    """

    kinds = ("true_positives", "false_positives")


class Recall(_Share):
    """Which share of the positive labels is found: ``true_positives / (true_positives + false_negatives)``.

    Args:
        thresholds: A decision is positive above it: a number from 0 to 1, or several for a result of shape
            ``(thresholds,)``. If None 0.5, or with ``top_k`` no threshold.
        top_k: Only the k largest predictions of each sample may be positive; of equal ones the first.
        class_id: Only this entry of the last axis counts.

    Example:
        >>> Recall(thresholds=[0.1, 0.5])([0, 1, 1, 1], [0.9, 0.9, 0.2, 0.7])
        array([1.       , 0.6666667], dtype=float32)
    """

    kinds = ("true_positives", "false_negatives")


# ---- predictions and thresholds -------------------------------------------------------------------------------------


def decisions(
    y_true: Any, y_pred: Any, sample_weight: Any, dtype: str, top_k: int | None, class_id: int | None
) -> tuple[Any, Any, Any]:
    """Labels as bools, predictions and weights, all of one shape."""
    y_pred = cast(y_pred, dtype)
    y_true, y_pred = same_shape(losses.beside(as_array(y_true), y_pred), y_pred)
    if top_k is not None:
        y_pred = _only_top_k(y_pred, top_k)
    if class_id is not None:
        if len(shape_of(y_pred)) < 2:
            raise ShapeError(
                "class_id needs an axis of classes", expected="y_pred of shape (batch, ..., classes)",
                received=str(public_shape(shape_of(y_pred))),
            )  # fmt: skip
        at = normalize_axis(class_id, last_size(y_pred))
        last = len(shape_of(y_pred)) - 1
        y_true, y_pred = (ops.slice_axis(x, last, at, at + 1) for x in (y_true, y_pred))
    return ops.not_equal(y_true, 0), y_pred, weights_like(y_pred, sample_weight, dtype)


def _only_top_k(y_pred: Any, k: int) -> Any:
    """The k largest predictions of the last axis; the others are far below any threshold."""
    classes = last_size(y_pred)
    left = y_pred
    for _ in range(min(k, classes)):
        first = ops.one_hot(ops.argmax(left, axis=-1), classes, dtype="bool")
        left = ops.where(first, -np.inf, left)
    return ops.where(ops.equal(left, -np.inf), y_pred, LOWEST)


def are_even(thresholds: np.ndarray) -> bool:
    """Whether these are three or more thresholds in equal steps from 0 to 1."""
    size = len(thresholds)
    return size >= 3 and np.allclose(thresholds, np.arange(size, dtype="float32") / (size - 1), atol=EPSILON)


def within_01(y_pred: Any) -> Any:
    return ops.where(ops.greater(y_pred, 0.0), ops.minimum(y_pred, 1.0), 0.0)


def _exceeds(y_pred: Any, thresholds: np.ndarray, dtype: str) -> Any:
    """Which predictions exceed which threshold, ``(thresholds, predictions)``."""
    if are_even(thresholds):  # compared as steps, as the curves do: rounding must not depend on how many are asked for
        y_pred = ops.multiply(within_01(y_pred), float(len(thresholds) - 1))
        thresholds = np.arange(len(thresholds))
    return ops.greater(ops.expand_dims(y_pred, 0), thresholds.astype(dtype)[:, None])
