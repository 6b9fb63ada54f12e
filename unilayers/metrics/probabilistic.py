"""Metrics of predicted probabilities: cross-entropies and the like."""

from __future__ import annotations

from typing import Any

from unilayers import losses, ops
from unilayers.hints import Probability
from unilayers.metrics.base import as_array
from unilayers.metrics.reduction import SampleMean, masked

# ---- divergences ----------------------------------------------------------------------------------------------------


class KLDivergence(SampleMean, aliases=("kld", "kullback_leibler_divergence")):
    """``sum(y_true * log(y_true / y_pred))`` over the last axis, averaged over the samples."""

    direction = "down"

    function = staticmethod(losses.kl_divergence)


class Poisson(SampleMean):
    """``y_pred - y_true * log(y_pred)``, averaged over the last axis and the samples."""

    direction = "down"

    function = staticmethod(losses.poisson)


# ---- cross-entropies ------------------------------------------------------------------------------------------------


class BinaryCrossentropy(SampleMean, aliases=("bce",)):
    """Cross-entropy of labels that are 0, 1 or between, averaged over the last axis and the samples.

    Args:
        from_logits: Whether the predictions are logits; probabilities if not.
        label_smoothing: Moves the labels this part of the way to 0.5.
    """

    direction = "down"

    from_logits: bool = False
    label_smoothing: Probability = 0.0
    function = staticmethod(losses.binary_crossentropy)


class CategoricalCrossentropy(SampleMean):
    """Cross-entropy of one label among several classes, given as a row of probabilities or one-hot.

    Args:
        from_logits: Whether the predictions are logits; probabilities if not.
        label_smoothing: This part of each label is shared equally by all classes.
        axis: The axis of the classes.
    """

    direction = "down"

    from_logits: bool = False
    label_smoothing: Probability = 0.0
    axis: int = -1
    function = staticmethod(losses.categorical_crossentropy)


class SparseCategoricalCrossentropy(SampleMean):
    """Cross-entropy of one label among several classes, given as the class's number.

    Args:
        from_logits: Whether the predictions are logits; probabilities if not.
        ignore_class: Samples with this label do not count, as in the loss.
        axis: The axis of the classes.
    """

    direction = "down"

    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1
    function = staticmethod(losses.sparse_categorical_crossentropy)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take in a batch of class numbers and predictions."""
        if self.ignore_class is not None:
            y_true, y_pred = as_array(y_true), as_array(y_pred)
            counts = ops.not_equal(losses.class_numbers(y_true, y_pred, self.axis), self.ignore_class)
            sample_weight = masked(sample_weight, counts, self.total.dtype)
        super().update_state(y_true, y_pred, sample_weight)
