"""Overlap of areas, for segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from unilayers import ops
from unilayers.losses.base import SampleLoss
from unilayers.losses.shapes import EPSILON, alike

Axes: TypeAlias = int | Sequence[int] | None


def dice(y_true: Any, y_pred: Any, axis: Axes = None) -> Any:
    """1 - Dice's coefficient ``2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred) + 1e-7)``.

    Args:
        y_true: Which elements belong to the area, as 0 and 1.
        y_pred: The probabilities of that, of the same shape.
        axis: The axes of the sums; None: all, which gives one value for the whole batch.
    """
    y_true, y_pred = alike(y_true, y_pred)
    both = ops.sum(ops.multiply(y_true, y_pred), axis)
    return 1.0 - ops.divide(2.0 * both, ops.sum(y_true, axis) + ops.sum(y_pred, axis) + EPSILON)


class Dice(SampleLoss):
    """1 - Dice's coefficient, twice the overlap of two areas over the sum of their sizes.

    Args:
        axis: The axes of the sums, as the pixels of images; None: all, which gives one value for the whole batch.

    Example:
        >>> import numpy as np
        >>> round(float(Dice()(np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0, 0.0]]))), 4)
        0.3333
    """

    axis: Axes = None
    function = staticmethod(dice)


def tversky(y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Axes = None) -> Any:
    """1 - Tversky's index ``both / (both + alpha * missed + beta * added + 1e-7)``; 0.5 and 0.5 give `dice`.

    Args:
        y_true: Which elements belong to the area, as 0 and 1.
        y_pred: The probabilities of that, of the same shape.
        alpha: The weight of what belongs to the area and is missed. (So Keras computes it, whose documentation says
            that it is the weight of what is wrongly added.)
        beta: The weight of what is wrongly added.
        axis: The axes of the sums; None: all, which gives one value for the whole batch.
    """
    y_true, y_pred = alike(y_true, y_pred)
    both = ops.sum(ops.multiply(y_true, y_pred), axis)
    missed = ops.sum(ops.multiply(y_true, 1.0 - y_pred), axis)
    added = ops.sum(ops.multiply(1.0 - y_true, y_pred), axis)
    return 1.0 - ops.divide(both, both + missed * alpha + added * beta + EPSILON)


class Tversky(SampleLoss):
    """1 - Tversky's index, the overlap of two areas over itself plus what is missed and what is wrongly added.

    Args:
        alpha: The weight of what belongs to the area and is missed. (So Keras computes it, whose documentation says
            that it is the weight of what is wrongly added.)
        beta: The weight of what is wrongly added.
        axis: The axes of the sums, as the pixels of images; None: all, which gives one value for the whole batch.

    Reference:
        Salehi, Erdogmus, Gholipour, Tversky loss function for image segmentation, 2017, arXiv 1706.05721.

    Example:
        >>> import numpy as np
        >>> y_true, y_pred = np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0, 0.0]])
        >>> round(float(Tversky(alpha=1.0)(y_true, y_pred)), 4), round(float(Tversky(beta=1.0)(y_true, y_pred)), 4)
        (0.5, 0.3333)
    """

    alpha: float = 0.5
    beta: float = 0.5
    axis: Axes = None
    function = staticmethod(tversky)
