"""Metrics of binary decisions at many thresholds: areas under curves, and the best of one rate given another."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, Literal

import numpy as np

from unilayers import ops
from unilayers.errors import UnilayersError
from unilayers.hints import PositiveInt, Probability
from unilayers.losses import EPSILON
from unilayers.metrics.base import Metric, as_array, named, outputs_of, ratio
from unilayers.metrics.confusion import are_even, decisions, within_01
from unilayers.ops import shape_of
from unilayers.variable import Variable

# ---- curves over many thresholds ------------------------------------------------------------------------------------


class _Curve(Metric):
    """Base class: decisions at many thresholds, from 0 to 1 in equal steps or as given.

    Instead of counting at each threshold, the predictions of positive and of negative labels are sorted into bins
    between the thresholds: one addition per prediction. The result sums the bins up.
    """

    direction = "up"

    class_id = None  # not annotated; see _Counts

    def __post_init__(self) -> None:
        super().__post_init__()
        self._bins: Any = None

    def _start(self, thresholds: np.ndarray, even: bool) -> None:
        """Set the thresholds, in ascending order; ``even`` if they are equal steps from 0 to 1, give or take."""
        self._thresholds, self._even = thresholds, even

    def _create(self, *labels: int) -> None:
        self._bins = self.add_variable((2, len(self._thresholds) + 1, *labels), name="bins")

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
            self.create_for(y_true, y_pred)
            self._count(*decisions(y_true, y_pred, sample_weight, self._dtype, None, self.class_id))

    def _count(self, labels: Any, y_pred: Any, weights: Any) -> None:
        bins = self._bins
        row = ops.astype(ops.logical_not(labels), "int32")
        place = ops.add(ops.multiply(row, bins.shape[1]), self._exceeded(y_pred))
        if bins.ndim == 3:
            place = ops.add(ops.multiply(place, bins.shape[2]), np.arange(bins.shape[2], dtype="int32"))
        weights, place = ops.reshape(weights, (-1,)), ops.reshape(place, (-1,))
        added = ops.take_grad(weights, place, axis=0, size=math.prod(bins.shape))
        bins.assign_add(ops.reshape(added, bins.shape))

    def _exceeded(self, y_pred: Any) -> Any:
        """How many thresholds each prediction exceeds; NaN none."""
        if not self._even:
            column = ops.expand_dims(y_pred, -1)
            return ops.sum(ops.astype(ops.greater(column, self._thresholds.astype(self._dtype)), "int32"), axis=-1)
        steps = ops.astype(_steps_above(y_pred, len(self._thresholds)), "int32")
        return ops.maximum(steps, 1) if self._thresholds[0] < 0 else steps

    def _table(self) -> tuple[Any, Any, Any, Any]:
        """True positives, false positives, true negatives, false negatives at each threshold, on the first axis."""
        above, size = _from_each_on(self._bins), self._bins.shape[1]
        in_all = ops.slice_axis(above, 1, 0, 1)
        above = ops.slice_axis(above, 1, 1, size)
        below = ops.subtract(in_all, above)
        (tp, fp), (fn, tn) = ((x[0], x[1]) for x in (above, below))
        return tp, fp, tn, fn


class _BestAt(_Curve):
    """The best of one rate among the thresholds where another is at least the value that the class's first argument
    asks for; 0 if it is nowhere."""

    num_thresholds = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_thresholds == 1:
            self._start(np.array([0.5]), even=False)
        else:
            self._start(np.linspace(0.0, 1.0, self.num_thresholds), even=True)
        self._create()

    def _best(self, rate: Any, other: Any, least: float) -> Any:
        return ops.max(ops.where(ops.greater_equal(other, least), rate, 0.0))


class SensitivityAtSpecificity(_BestAt):
    """The largest sensitivity (share of the positive labels that are found) among the thresholds where the specificity
    (share of the negative labels that are recognised) is at least ``specificity``.

    Args:
        specificity: From 0 to 1.
        num_thresholds: How many thresholds, in equal steps from 0 to 1, are looked at.
        class_id: Only this entry of the last axis counts.

    Example:
        >>> float(SensitivityAtSpecificity(0.5)([0, 0, 0, 1, 1], [0.0, 0.3, 0.8, 0.3, 0.8]))
        0.5
    """

    specificity: Probability
    num_thresholds: PositiveInt = 200
    class_id: int | None = None  # type: ignore[assignment]
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None

    def result(self) -> Any:
        tp, fp, tn, fn = self._table()
        return self._best(ratio(tp, ops.add(tp, fn)), ratio(tn, ops.add(tn, fp)), self.specificity)


class SpecificityAtSensitivity(_BestAt):
    """The largest specificity (share of the negative labels that are recognised) among the thresholds where the
    sensitivity (share of the positive labels that are found) is at least ``sensitivity``.

    Args:
        sensitivity: From 0 to 1.
        num_thresholds: How many thresholds, in equal steps from 0 to 1, are looked at.
        class_id: Only this entry of the last axis counts.
    """

    sensitivity: Probability
    num_thresholds: PositiveInt = 200
    class_id: int | None = None  # type: ignore[assignment]
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None

    def result(self) -> Any:
        tp, fp, tn, fn = self._table()
        return self._best(ratio(tn, ops.add(tn, fp)), ratio(tp, ops.add(tp, fn)), self.sensitivity)


class PrecisionAtRecall(_BestAt):
    """The largest precision among the thresholds where the recall is at least ``recall``.

    Args:
        recall: From 0 to 1.
        num_thresholds: How many thresholds, in equal steps from 0 to 1, are looked at.
        class_id: Only this entry of the last axis counts.
    """

    recall: Probability
    num_thresholds: PositiveInt = 200
    class_id: int | None = None  # type: ignore[assignment]
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None

    def result(self) -> Any:
        tp, fp, _, fn = self._table()
        return self._best(ratio(tp, ops.add(tp, fp)), ratio(tp, ops.add(tp, fn)), self.recall)


class RecallAtPrecision(_BestAt):
    """The largest recall among the thresholds where the precision is at least ``precision``.

    Args:
        precision: From 0 to 1.
        num_thresholds: How many thresholds, in equal steps from 0 to 1, are looked at.
        class_id: Only this entry of the last axis counts.
    """

    precision: Probability
    num_thresholds: PositiveInt = 200
    class_id: int | None = None  # type: ignore[assignment]
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None

    def result(self) -> Any:
        tp, fp, _, fn = self._table()
        return self._best(ratio(tp, ops.add(tp, fn)), ratio(tp, ops.add(tp, fp)), self.precision)


class AUC(_Curve):
    """The area under a curve of two rates over all thresholds, approximated at ``num_thresholds`` of them.

    Args:
        num_thresholds: How many thresholds, in equal steps from 0 to 1; at least 2.
        curve: ``"ROC"`` (true positive rate over false positive rate), ``"PR"`` (precision over recall) or
            ``"PRGAIN"`` (precision gain over recall gain).
        summation_method: What stands between two thresholds: ``"interpolation"`` (the mean; for the PR curve an
            interpolation of the counts), ``"minoring"`` (the smaller) or ``"majoring"`` (the larger).
        thresholds: The thresholds between 0 and 1 instead of equal steps; 0 and 1 are added.
        multi_label: Whether each entry of the last axis has a curve of its own; the result is the areas' mean.
        num_labels: How many there are, where that shall be known before the first data.
        label_weights: A weight for each entry of the last axis: of its area with ``multi_label``, else of its
            predictions.
        from_logits: Whether the predictions are logits; probabilities if not.

    Reference:
        Davis & Goadrich, The relationship between precision-recall and ROC curves, 2006 (interpolated PR curves).

    Example:
        >>> round(float(AUC()([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9])), 4)
        0.75
    """

    num_thresholds: PositiveInt = 200
    curve: Literal["ROC", "PR", "PRGAIN", "roc", "pr", "prgain"] = "ROC"
    summation_method: Literal["interpolation", "minoring", "majoring", "Interpolation", "Minoring", "Majoring"] = (
        "interpolation"
    )
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None
    thresholds: list[Probability] | np.ndarray | None = None
    multi_label: bool = False
    num_labels: PositiveInt | None = None
    label_weights: Any = None
    from_logits: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_labels and not self.multi_label:
            raise UnilayersError("num_labels without multi_label", where="AUC", fix="Pass multi_label=True")
        if self.thresholds is None and self.num_thresholds < 2:
            raise UnilayersError("too few thresholds", where="AUC", expected="num_thresholds at least 2", received="1")
        if self.thresholds is None:
            inner = np.linspace(0.0, 1.0, self.num_thresholds)[1:-1]
        else:
            inner = np.sort(np.asarray(self.thresholds, "float64"))
        even = self.thresholds is None or are_even(np.array([0.0, *inner, 1.0]))
        self._start(np.array([-EPSILON, *inner, 1.0 + EPSILON]), even)
        if not self.multi_label:
            self._create()
        elif self.num_labels:
            self._create(self.num_labels)

    def create_for(self, y_true: Any, y_pred: Any) -> None:
        if self._bins is None:
            self._create(outputs_of(as_array(y_pred)))

    def _count(self, labels: Any, y_pred: Any, weights: Any) -> None:
        if self.from_logits:
            y_pred = ops.sigmoid(y_pred)
        if self.label_weights is not None and not self.multi_label:
            weights = ops.multiply(weights, np.asarray(self.label_weights, self.dtype))
        super()._count(labels, y_pred, weights)

    def result(self) -> Any:
        if self._bins is None:
            return ops.zeros((), self.dtype)
        method, curve = self.summation_method.lower(), self.curve.upper()
        if curve == "PR" and method == "interpolation":
            areas = _interpolated_pr_areas(*self._table())
        else:
            x, y = _CURVES[curve](*self._table())
            left, right = _neighbours(y)
            heights = {
                "interpolation": lambda: ops.divide(ops.add(left, right), 2.0),
                "minoring": lambda: ops.minimum(left, right),
                "majoring": lambda: ops.maximum(left, right),
            }[method]()
            areas = ops.multiply(ops.subtract(*_neighbours(x)), heights)
        if not self.multi_label:
            return ops.sum(areas)
        by_label = ops.sum(areas, axis=0)
        if self.label_weights is None:
            return ops.mean(by_label)
        weights = np.asarray(self.label_weights, self.dtype)
        return ratio(ops.sum(ops.multiply(by_label, weights)), ops.sum(weights))


# ---- the curves -----------------------------------------------------------------------------------------------------


def _roc(tp: Any, fp: Any, tn: Any, fn: Any) -> tuple[Any, Any]:
    return ratio(fp, ops.add(fp, tn)), ratio(tp, ops.add(tp, fn))


def _pr(tp: Any, fp: Any, tn: Any, fn: Any) -> tuple[Any, Any]:
    return ratio(tp, ops.add(tp, fn)), ratio(tp, ops.add(tp, fp))


def _prgain(tp: Any, fp: Any, tn: Any, fn: Any) -> tuple[Any, Any]:
    odds = ratio(ops.add(tp, fn), ops.add(tn, fp))
    recall = ops.subtract(1.0, ops.multiply(odds, ratio(fn, tp)))
    precision = ops.subtract(1.0, ops.multiply(odds, ratio(fp, tp)))
    none = ops.equal(tp, 0)
    return ops.maximum(ops.where(none, 0.0, recall), 0.0), ops.where(none, 1.0, precision)


_CURVES = {"ROC": _roc, "PR": _pr, "PRGAIN": _prgain}


def _neighbours(x: Any) -> tuple[Any, Any]:
    """The values at all thresholds but the last, and at all but the first."""
    size = shape_of(x)[0]
    return ops.slice_axis(x, 0, 0, size - 1), ops.slice_axis(x, 0, 1, size)


def _interpolated_pr_areas(tp: Any, fp: Any, tn: Any, fn: Any) -> Any:
    """Between two thresholds the true positives are taken to grow in proportion to the positive decisions p, so the
    precision is ``slope + intercept / p``, which is integrated over the recall."""
    decided = ops.add(tp, fp)
    (tp_left, tp_right), (left, right) = _neighbours(tp), _neighbours(decided)
    more = ops.subtract(tp_left, tp_right)
    slope = ratio(more, ops.maximum(ops.subtract(left, right), 0.0))
    intercept = ops.subtract(tp_right, ops.multiply(slope, right))
    both = ops.logical_and(ops.greater(left, 0), ops.greater(right, 0))
    growth = ops.where(both, ratio(left, right), 1.0)
    area = ops.multiply(slope, ops.add(more, ops.multiply(intercept, ops.log(growth))))
    return ratio(area, _neighbours(ops.add(tp, fn))[1])


def _from_each_on(bins: Variable) -> Any:
    """For each place on axis 1 the sum from there to the end: of blocks first, then of whole blocks. By additions only,
    which are exact for whole numbers, while some engines round what they multiply as matrices."""
    rows, size, *rest = bins.shape
    side = math.isqrt(size - 1) + 1
    filled = ops.pad(bins, [(0, 0), (0, side * side - size), *[(0, 0)] * len(rest)])
    blocks = ops.reshape(filled, (rows, side, 1, side, math.prod(rest)))
    here, after = (np.triu(np.ones((side, side), bins.dtype), k)[:, :, None] for k in (0, 1))
    within = ops.sum(ops.multiply(blocks, here), axis=3)
    whole = ops.slice_axis(within, 2, 0, 1)
    behind = ops.sum(ops.multiply(ops.reshape(whole, (rows, 1, side, -1)), after), axis=2)
    sums = ops.add(within, ops.expand_dims(behind, 2))
    return ops.slice_axis(ops.reshape(sums, (rows, side * side, *rest)), 1, 0, size)


def _steps_above(y_pred: Any, size: int) -> Any:
    """How many of ``size`` thresholds in equal steps from 0 to 1 each prediction exceeds, as a float; NaN none."""
    return ops.ceil(ops.multiply(within_01(y_pred), float(size - 1)))
