"""Distances between numbers, and between directions."""

from __future__ import annotations

import math
from typing import Any

from unilayers import ops
from unilayers.hints import PositiveFloat
from unilayers.losses.base import SampleLoss
from unilayers.losses.shapes import EPSILON, alike


def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """``mean((y_pred - y_true)**2)`` over the last axis."""
    y_true, y_pred = alike(y_true, y_pred)
    return ops.mean(ops.square(ops.subtract(y_pred, y_true)), axis=-1)


class MeanSquaredError(SampleLoss, aliases=("mse",)):
    """The squared error, averaged over the last axis; see `Loss` for the arguments.

    Example:
        >>> import numpy as np
        >>> float(MeanSquaredError()(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]])))
        0.25
    """

    function = staticmethod(mean_squared_error)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """``mean(abs(y_pred - y_true))`` over the last axis."""
    y_true, y_pred = alike(y_true, y_pred)
    return ops.mean(ops.abs(ops.subtract(y_pred, y_true)), axis=-1)


class MeanAbsoluteError(SampleLoss, aliases=("mae",)):
    """The absolute error, averaged over the last axis; see `Loss` for the arguments."""

    function = staticmethod(mean_absolute_error)


def sum_squared_error(y_true: Any, y_pred: Any) -> Any:
    """``sum((y_pred - y_true)**2)`` over the last axis: the squared Euclidean distance."""
    y_true, y_pred = alike(y_true, y_pred)
    return ops.sum(ops.square(ops.subtract(y_pred, y_true)), axis=-1)


class SumSquaredError(SampleLoss, aliases=("sse",)):
    """The squared error, summed over the last axis; see `Loss` for the arguments.

    With ``reduction="sum"`` it is the plain L2 loss ``sum((y_pred - y_true)**2)`` over all elements.

    Example:
        >>> import numpy as np
        >>> float(SumSquaredError(reduction="sum")(np.zeros((2, 3)), np.full((2, 3), 2.0)))
        24.0
    """

    function = staticmethod(sum_squared_error)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """``100 * mean(abs((y_true - y_pred) / y_true))`` over the last axis; a true value counts as 1e-7 at least."""
    y_true, y_pred = alike(y_true, y_pred)
    size = ops.maximum(ops.abs(y_true), EPSILON)
    return 100.0 * ops.mean(ops.abs(ops.divide(ops.subtract(y_true, y_pred), size)), axis=-1)


class MeanAbsolutePercentageError(SampleLoss, aliases=("mape",)):
    """The absolute error in percent of the true value, averaged over the last axis; see `Loss` for the arguments.

    A true value counts as 1e-7 at least, so that one of 0 makes the loss large.

    Example:
        >>> import numpy as np
        >>> float(MeanAbsolutePercentageError()(np.array([[2.0, 4.0]]), np.array([[1.0, 4.0]])))
        25.0
    """

    function = staticmethod(mean_absolute_percentage_error)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """``mean((log(y_true + 1) - log(y_pred + 1))**2)`` over the last axis; values below 1e-7 count as 1e-7."""
    y_true, y_pred = alike(y_true, y_pred)
    logs = [ops.log(ops.maximum(y, EPSILON) + 1.0) for y in (y_pred, y_true)]
    return ops.mean(ops.square(ops.subtract(*logs)), axis=-1)


class MeanSquaredLogarithmicError(SampleLoss, aliases=("msle",)):
    """The squared difference of the logarithms of 1 + the values, averaged over the last axis; see `Loss`.

    Negative values count as 0 (as 1e-7).

    Example:
        >>> import numpy as np
        >>> round(float(MeanSquaredLogarithmicError()(np.array([[0.0]]), np.array([[np.e - 1]]))), 6)
        1.0
    """

    function = staticmethod(mean_squared_logarithmic_error)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Half the squared error up to ``delta``, and from there on the tangent; averaged over the last axis."""
    y_true, y_pred = alike(y_true, y_pred)
    error = ops.subtract(y_pred, y_true)
    size = ops.abs(error)
    values = ops.where(size <= delta, 0.5 * ops.square(error), delta * size - 0.5 * delta**2)
    return ops.mean(values, axis=-1)


class Huber(SampleLoss):
    """Half the squared error up to ``delta`` and linear beyond, averaged over the last axis.

    Args:
        delta: The error from which on the loss grows linearly.

    Reference:
        Huber, Robust estimation of a location parameter, 1964.

    Example:
        >>> import numpy as np
        >>> Huber(delta=1.0, reduction="none")(np.zeros((2, 1)), np.array([[0.5], [3.0]]))
        array([0.125, 2.5  ])
    """

    delta: PositiveFloat = 1.0
    function = staticmethod(huber)


def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """``mean(log(cosh(y_pred - y_true)))`` over the last axis, without overflow."""
    y_true, y_pred = alike(y_true, y_pred)
    error = ops.subtract(y_pred, y_true)
    return ops.mean(error + ops.softplus(-2.0 * error) - math.log(2.0), axis=-1)


class LogCosh(SampleLoss):
    """The logarithm of the error's hyperbolic cosine, averaged over the last axis; see `Loss` for the arguments.

    Near 0 half the squared error, far from it the absolute error less log(2).

    Example:
        >>> import numpy as np
        >>> round(float(LogCosh()(np.array([[0.0]]), np.array([[10.0]]))), 4)
        9.3069
    """

    function = staticmethod(log_cosh)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """The cosine of the angle between y_true and y_pred, times -1; 0 where one of them is 0.

    Args:
        y_true: Vectors along ``axis``.
        y_pred: As many vectors.
        axis: The axis of the vectors.
    """
    y_true, y_pred = alike(y_true, y_pred)
    unit_true, unit_pred = (ops.unit_norm(y, axis, EPSILON) for y in (y_true, y_pred))
    return ops.negative(ops.sum(ops.multiply(unit_true, unit_pred), axis=axis))


class CosineSimilarity(SampleLoss):
    """The cosine of the angle between y_true and y_pred, times -1: from -1 (one direction) to 1 (opposite).

    Vectors shorter than 1e-7 are not stretched to length 1, so that the loss of zeros is 0 and its gradient finite.

    Args:
        axis: The axis of the vectors.

    Example:
        >>> import numpy as np
        >>> CosineSimilarity(reduction="none")(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [2.0, 2.0]]))
        array([-0., -1.])
    """

    axis: int = -1
    function = staticmethod(cosine_similarity)
