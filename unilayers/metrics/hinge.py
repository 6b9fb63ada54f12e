"""Hinges: how far decisions are from a margin."""

from __future__ import annotations

from unilayers import losses
from unilayers.metrics.reduction import SampleMean


class Hinge(SampleMean):
    """``max(1 - y_true * y_pred, 0)`` for labels -1 and 1 (or 0 and 1), averaged over the last axis and the samples.

    Example:
        >>> round(float(Hinge()([[0, 1], [0, 0]], [[0.6, 0.4], [0.4, 0.6]])), 4)
        1.3
    """

    direction = "down"

    function = staticmethod(losses.hinge)


class SquaredHinge(SampleMean):
    """``max(1 - y_true * y_pred, 0)**2`` for labels -1 and 1 (or 0 and 1), averaged over the last axis and the
    samples."""

    direction = "down"

    function = staticmethod(losses.squared_hinge)


class CategoricalHinge(SampleMean):
    """``max(neg - pos + 1, 0)``, where pos is the prediction of the one-hot label's class and neg the largest of the
    others; averaged over the samples."""

    direction = "down"

    function = staticmethod(losses.categorical_hinge)
