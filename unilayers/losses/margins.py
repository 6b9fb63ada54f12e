"""Margins by which the right class should win."""

from __future__ import annotations

from typing import Any

from unilayers import ops
from unilayers.losses.base import SampleLoss
from unilayers.losses.shapes import alike


def hinge(y_true: Any, y_pred: Any) -> Any:
    """``mean(max(1 - y_true * y_pred, 0))`` over the last axis.

    Args:
        y_true: Labels -1 and 1. If all of them are 0 or 1, as in Keras, 0 stands for -1.
        y_pred: Scores, of the same shape.
    """
    return ops.mean(_behind_margin(y_true, y_pred), axis=-1)


class Hinge(SampleLoss):
    """How far scores are below 1 on the side of their label, averaged over the last axis; see `Loss`.

    Labels are -1 and 1. If all of the batch are 0 or 1, as in Keras, 0 stands for -1.

    Example:
        >>> import numpy as np
        >>> float(Hinge()(np.array([[-1.0, 1.0]]), np.array([[-2.0, 0.5]])))
        0.25
    """

    function = staticmethod(hinge)


def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """``mean(max(1 - y_true * y_pred, 0)**2)`` over the last axis; arguments as of `hinge`."""
    return ops.mean(ops.square(_behind_margin(y_true, y_pred)), axis=-1)


class SquaredHinge(SampleLoss):
    """The square of how far scores are below 1 on the side of their label, averaged over the last axis; see `Hinge`.

    Example:
        >>> import numpy as np
        >>> float(SquaredHinge()(np.array([[-1.0, 1.0]]), np.array([[-2.0, 0.5]])))
        0.125
    """

    function = staticmethod(squared_hinge)


def _behind_margin(y_true: Any, y_pred: Any) -> Any:
    y_true, y_pred = alike(y_true, y_pred)
    binary = ops.all(ops.logical_or(ops.equal(y_true, 0), ops.equal(y_true, 1)))
    signs = ops.where(binary, 2.0 * y_true - 1.0, y_true)
    return ops.maximum(1.0 - ops.multiply(signs, y_pred), 0.0)


def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """``max(worst - right + 1, 0)``: how much the best wrong class is above the right one, less a margin of 1.

    Args:
        y_true: One-hot labels.
        y_pred: A score for each class. As in Keras, the right class stands among the wrong ones with the score 0.
    """
    y_true, y_pred = alike(y_true, y_pred)
    right = ops.sum(ops.multiply(y_true, y_pred), axis=-1)
    worst = ops.max(ops.multiply(1.0 - y_true, y_pred), axis=-1)
    return ops.maximum(worst - right + 1.0, 0.0)


class CategoricalHinge(SampleLoss):
    """How much the best wrong class is above the right one, less a margin of 1; see `Loss` for the arguments.

    Labels are one-hot. As in Keras, the right class stands among the wrong ones with the score 0, so that the loss is
    the crossing of margins only where wrong scores are not all negative.

    Example:
        >>> import numpy as np
        >>> float(CategoricalHinge()(np.array([[0.0, 1.0, 0.0]]), np.array([[0.5, 1.0, 0.25]])))
        0.5
    """

    function = staticmethod(categorical_hinge)
