"""F-scores: precision and recall of each class in one number."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Annotated, Any, ClassVar, Literal

from unilayers import losses, ops
from unilayers.hints import Bounds, PositiveFloat
from unilayers.losses import EPSILON, cast, same_shape
from unilayers.metrics.base import Metric, as_array, named, outputs_of, weights_like


class _FScore(Metric):
    """Base class: the counts of each class, or of all together."""

    direction = "up"

    average: ClassVar[str | None] = None
    beta: ClassVar[float] = 1.0
    threshold: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts: Any = None

    def create_for(self, y_true: Any, y_pred: Any) -> None:
        if self._counts is None:
            shape = () if self.average == "micro" else (outputs_of(y_pred),)
            self._counts = [self.add_variable(shape, name=kind) for kind in _KINDS]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in a batch.

        Args:
            y_true: 0 or 1 for each class, ``(batch, classes)``.
            y_pred: Predictions, ``(batch, classes)``.
            sample_weight: A weight per sample, ``(batch,)``.

        Raises:
            ShapeError: naming the metric, if shapes do not fit.
        """
        with named(self):
            y_pred = cast(as_array(y_pred), self._dtype)
            y_true, y_pred = same_shape(cast(losses.beside(as_array(y_true), y_pred), self._dtype), y_pred)
            self.create_for(y_true, y_pred)
            decided = self._decided(y_pred)
            weights = None if sample_weight is None else weights_like(y_pred, sample_weight, self._dtype)
            axis = None if self.average == "micro" else 0

            def count(values: Any) -> Any:
                return ops.sum(values if weights is None else ops.multiply(values, weights), axis=axis)

            missed, wrong = ops.subtract(1.0, decided), ops.subtract(1.0, y_true)
            found = [ops.multiply(a, b) for a, b in ((decided, y_true), (decided, wrong), (missed, y_true))]
            for variable, values in zip(self._counts, [*found, y_true], strict=True):
                variable.assign_add(count(values))

    def _decided(self, y_pred: Any) -> Any:
        if self.threshold is not None:
            return ops.astype(ops.greater(y_pred, self.threshold), self._dtype)
        largest = ops.greater_equal(y_pred, ops.max(y_pred, axis=-1, keepdims=True))
        return ops.astype(ops.logical_and(largest, ops.greater(ops.abs(y_pred), 1e-9)), self._dtype)

    def result(self) -> Any:
        if self._counts is None:
            return ops.zeros((), self._dtype)
        right, wrong, missed, occurs = self._counts
        square = self.beta**2
        precision = right / (right + wrong + EPSILON)
        recall = right / (right + missed + EPSILON)
        scores = (1.0 + square) * precision * recall / (square * precision + recall + EPSILON)
        if self.average == "weighted":
            return ops.sum(scores * (occurs / (ops.sum(occurs) + EPSILON)))
        return scores if self.average is None else ops.mean(scores)


_KINDS = ("true_positives", "false_positives", "false_negatives", "intermediate_weights")


class FBetaScore(_FScore):
    """The weighted harmonic mean of precision and recall, ``(1 + beta**2) * p * r / (beta**2 * p + r)``, per class.

    Args:
        average: What is made of the classes' scores: None (nothing: a result of shape ``(classes,)``), ``"macro"``
            (their mean), ``"weighted"`` (weighted with how often each class occurs), or ``"micro"`` (one score of the
            counts of all classes together).
        beta: How many times as much the recall counts as the precision.
        threshold: Predictions above it are positive; if None the largest of each sample, unless it is 0.

    Example:
        >>> import numpy as np
        >>> y_true = [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
        >>> y_pred = [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0.0]]
        >>> np.round(FBetaScore(beta=2.0, threshold=0.5)(y_true, y_pred), 4)
        array([0.3846, 0.9091, 0.8333], dtype=float32)
    """

    average: Literal["micro", "macro", "weighted"] | None = None  # type: ignore[misc]
    beta: PositiveFloat = 1.0  # type: ignore[misc]
    threshold: Annotated[float, Bounds(gt=0, le=1)] | None = None  # type: ignore[misc]
    _: KW_ONLY
    name: str | None = "fbeta_score"
    dtype: str | None = None


class F1Score(_FScore):
    """The harmonic mean of precision and recall, ``2 * p * r / (p + r)``, per class.

    Args:
        average: What is made of the classes' scores: None (nothing: a result of shape ``(classes,)``), ``"macro"``
            (their mean), ``"weighted"`` (weighted with how often each class occurs), or ``"micro"`` (one score of the
            counts of all classes together).
        threshold: Predictions above it are positive; if None the largest of each sample, unless it is 0.

    Example:
        >>> metric = F1Score(average="macro")
        >>> round(float(metric([[1, 0], [0, 1], [0, 1]], [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])), 4)
        0.6667
    """

    average: Literal["micro", "macro", "weighted"] | None = None  # type: ignore[misc]
    threshold: Annotated[float, Bounds(gt=0, le=1)] | None = None  # type: ignore[misc]
    _: KW_ONLY
    name: str | None = "f1_score"
    dtype: str | None = None
