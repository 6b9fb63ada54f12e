"""Accuracies: how often predictions are right."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any

from unilayers import losses, ops
from unilayers.config import floatx
from unilayers.hints import PositiveInt, Probability
from unilayers.losses import cast, same_shape
from unilayers.metrics.base import last_size
from unilayers.metrics.reduction import SampleMean
from unilayers.ops import dtype_of, shape_of


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where y_pred equals y_true, 0 elsewhere."""
    y_true, y_pred = same_shape(y_true, y_pred)
    return _hits(ops.equal(y_true, y_pred))


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """1 where ``y_pred > threshold`` is what y_true (0 or 1) says, 0 elsewhere."""
    y_true, y_pred = same_shape(y_true, y_pred)
    return _hits(ops.equal(ops.astype(ops.greater(y_pred, threshold), dtype_of(y_true)), y_true))


def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where the largest prediction is that of the one-hot label; over the last axis."""
    y_true, y_pred = same_shape(y_true, y_pred)
    return _hits(ops.equal(ops.argmax(y_true, axis=-1), ops.argmax(y_pred, axis=-1)))


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where the largest prediction, over the last axis, is that of the class whose number is the label."""
    return _hits(ops.equal(losses.class_numbers(y_true, y_pred), ops.argmax(y_pred, axis=-1)))


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """1 where the prediction of the one-hot label's class is among the k largest of the last axis."""
    y_true, y_pred = same_shape(y_true, y_pred)
    return sparse_top_k_categorical_accuracy(ops.argmax(y_true, axis=-1), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Any:
    """1 where the prediction of the class whose number is the label is among the k largest of the last axis.

    It is if fewer than k predictions are larger; so a tie at the k-th place counts as a hit, and NaN never does.

    Args:
        y_true: Class numbers.
        y_pred: A prediction for each class; or with ``from_sorted_ids`` class numbers, the likeliest first.
        k: How many classes.
        from_sorted_ids: What ``y_pred`` holds.
    """
    if from_sorted_ids:
        labels = cast(ops.expand_dims(losses.class_numbers(y_true, y_pred), -1), dtype_of(y_pred))
        first = y_pred if last_size(y_pred) <= k else ops.slice_axis(y_pred, len(shape_of(y_pred)) - 1, 0, k)
        return _hits(ops.any(ops.equal(labels, first), axis=-1))
    labels = losses.class_numbers(y_true, y_pred)
    own = ops.take_along_axis(y_pred, ops.expand_dims(labels, -1), -1)
    larger = ops.sum(ops.astype(ops.greater(y_pred, own), "int32"), axis=-1)
    return _hits(ops.logical_and(ops.less(larger, k), ops.logical_not(ops.isnan(ops.squeeze(own, -1)))))


def _hits(bools: Any) -> Any:
    return ops.astype(bools, floatx())


# ---- the classes ----------------------------------------------------------------------------------------------------


class Accuracy(SampleMean):
    """How often predictions equal labels.

    ``compile(metrics=["accuracy"])`` does not mean this class but the accuracy that fits the labels; see `get`.

    Example:
        >>> import numpy as np
        >>> round(float(Accuracy()(np.array([1, 2, 3]), np.array([1, 2, 4]))), 4)
        0.6667
    """

    direction = "up"

    function = staticmethod(accuracy)


class BinaryAccuracy(SampleMean):
    """How often ``prediction > threshold`` is what the label, 0 or 1, says.

    Args:
        threshold: What a prediction of 1 is larger than.
    """

    direction = "up"

    threshold: Probability = 0.5
    function = staticmethod(binary_accuracy)


class CategoricalAccuracy(SampleMean):
    """How often the largest prediction is that of the one-hot label; the first of equal predictions counts."""

    direction = "up"

    function = staticmethod(categorical_accuracy)


class SparseCategoricalAccuracy(SampleMean):
    """How often the largest prediction is that of the class whose number is the label.

    Example:
        >>> import numpy as np
        >>> y_pred = np.array([[0.1, 0.9], [0.8, 0.2]])
        >>> metric = SparseCategoricalAccuracy()
        >>> float(metric(np.array([1, 1]), y_pred)), float(metric(np.array([0, 1]), y_pred, sample_weight=[0.0, 2.0]))
        (0.5, 0.25)
    """

    direction = "up"

    function = staticmethod(sparse_categorical_accuracy)


class TopKCategoricalAccuracy(SampleMean):
    """How often the class of the one-hot label is among the k with the largest predictions.

    Args:
        k: How many classes; a tie at the k-th place counts as a hit.
    """

    direction = "up"

    k: PositiveInt = 5
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None
    function = staticmethod(top_k_categorical_accuracy)


class SparseTopKCategoricalAccuracy(SampleMean):
    """How often the class whose number is the label is among the k with the largest predictions.

    Args:
        k: How many classes; a tie at the k-th place counts as a hit.
        from_sorted_ids: Whether predictions are class numbers, the likeliest first, instead of a value for each class.
    """

    direction = "up"

    k: PositiveInt = 5
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None
    from_sorted_ids: bool = False
    function = staticmethod(sparse_top_k_categorical_accuracy)
