"""Distributions: how far one is from another, and counts."""

from __future__ import annotations

from typing import Any

from unilayers import ops
from unilayers.losses.base import SampleLoss
from unilayers.losses.shapes import EPSILON, alike


def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """``sum(y_true * log(y_true / y_pred))`` over the last axis; probabilities below 1e-7 count as 1e-7."""
    y_true, y_pred = (ops.clip(y, minimum=EPSILON, maximum=1.0) for y in alike(y_true, y_pred))
    return ops.sum(ops.multiply(y_true, ops.log(ops.divide(y_true, y_pred))), axis=-1)


class KLDivergence(SampleLoss, aliases=("kld",)):
    """The Kullback-Leibler divergence of y_pred from y_true, both probabilities along the last axis; see `Loss`.

    Probabilities below 1e-7 count as 1e-7.

    Example:
        >>> import numpy as np
        >>> round(float(KLDivergence()(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))), 4)
        0.6931
    """

    function = staticmethod(kl_divergence)


def poisson(y_true: Any, y_pred: Any) -> Any:
    """``mean(y_pred - y_true * log(y_pred + 1e-7))`` over the last axis: counts y_true with the mean y_pred."""
    y_true, y_pred = alike(y_true, y_pred)
    return ops.mean(ops.subtract(y_pred, ops.multiply(y_true, ops.log(y_pred + EPSILON))), axis=-1)


class Poisson(SampleLoss):
    """-log of the probability of the counts y_true if their means are y_pred, less what does not depend on y_pred.

    Averaged over the last axis; see `Loss` for the arguments.

    Example:
        >>> import numpy as np
        >>> round(float(Poisson()(np.array([[2.0]]), np.array([[1.0]]))), 4)
        1.0
    """

    function = staticmethod(poisson)
