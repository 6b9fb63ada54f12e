"""Metrics: numbers that describe training, gathered over batches in variables.

The sums live in `Variable` s and are written in ops: inside a trace ``update_state`` becomes part of the training graph
and the sums stay on the device; on arrays it runs at once.
"""

# ruff: noqa: F401

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unilayers.losses import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_hinge,
    fitting_kind,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from unilayers.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from unilayers.metrics.base import Metric, named
from unilayers.metrics.confusion import (
    FalseNegatives,
    FalsePositives,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from unilayers.metrics.curves import (
    AUC,
    PrecisionAtRecall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
)
from unilayers.metrics.fscore import F1Score, FBetaScore
from unilayers.metrics.hinge import CategoricalHinge, Hinge, SquaredHinge
from unilayers.metrics.iou import BinaryIoU, IoU, MeanIoU, OneHotIoU, OneHotMeanIoU
from unilayers.metrics.probabilistic import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
)
from unilayers.metrics.reduction import Mean, MeanMetricWrapper, Sum
from unilayers.metrics.regression import (
    ConcordanceCorrelation,
    CosineSimilarity,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    PearsonCorrelation,
    R2Score,
    RootMeanSquaredError,
    concordance_correlation,
    cosine_similarity,
    pearson_correlation,
    squared_error,
)
from unilayers.registry import resolve, serialize


def get(identifier: Any, y_true: Any = None, y_pred: Any = None, *, where: str = "") -> Metric | None:
    """The metric for a name, ``{name: arguments}``, a class, an instance, a function of (y_true, y_pred), or None.

    Args:
        identifier: What stands for the metric. A string becomes the metric's name in logs. ``"accuracy"`` (``"acc"``)
            and ``"crossentropy"`` (``"ce"``) take the one that fits the shapes of ``y_true`` and ``y_pred``: one
            prediction per sample is binary, labels with fewer axes than predictions are class numbers, others one-hot.
        y_true: The truth, or anything with its shape.
        y_pred: Predictions, or anything with their shape.
        where: The place to name in errors.

    Raises:
        UnilayersError: for an unknown name, with the nearest; for one that needs shapes where none are given.

    Example:
        >>> import numpy as np
        >>> get("accuracy", np.zeros(8), np.zeros((8, 3))), get("mse"), get({"TopKCategoricalAccuracy": {"k": 2}})
        (SparseCategoricalAccuracy(name='accuracy'), MeanSquaredError(name='mse'), TopKCategoricalAccuracy(k=2))
    """
    if isinstance(identifier, str):
        kind = _KINDS.get(identifier.lower())
        name = f"{fitting_kind(identifier, y_true, y_pred)}_{kind}" if kind else identifier
        metric = resolve(Metric.registry, name, where=where)
        metric.name = identifier
    else:
        metric = resolve(Metric.registry, identifier, where=where, wrap=MeanMetricWrapper)
    if metric is not None and y_pred is not None:
        with named(metric):
            metric.create_for(y_true, y_pred)
    return metric


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Metric | None:
    """The metric of a config that ``serialize`` gave.

    Args:
        config: ``{name: arguments}`` or ``{"class_name": name, "config": arguments}``.
        custom_objects: Classes by name that come before those of the registry.

    Example:
        >>> deserialize(serialize(TopKCategoricalAccuracy(k=2)))
        TopKCategoricalAccuracy(k=2)
    """
    if custom_objects and "class_name" in config and config["class_name"] in custom_objects:
        found: Metric = custom_objects[config["class_name"]].from_config(config.get("config") or {})
        return found
    return get(config)


_KINDS = {"accuracy": "accuracy", "acc": "accuracy", "crossentropy": "crossentropy", "ce": "crossentropy"}
