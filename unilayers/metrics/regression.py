"""Errors and correlations of predictions that are numbers."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, Literal

from unilayers import losses, ops
from unilayers.hints import NonNegativeInt
from unilayers.losses import cast, same_shape
from unilayers.metrics.base import Metric, as_array, named, outputs_of, weights_like
from unilayers.metrics.reduction import SampleMean
from unilayers.ops import dtype_of
from unilayers.spec import is_float

# ---- functions of samples -----------------------------------------------------------------------------------------


def squared_error(y_true: Any, y_pred: Any) -> Any:
    """``(y_pred - y_true)**2``, elementwise."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.square(ops.subtract(y_pred, y_true))


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """The cosine of the angle between truth and prediction along ``axis``: 1 where they point the same way."""
    return ops.negative(losses.cosine_similarity(y_true, y_pred, axis))


def pearson_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """The covariance along ``axis`` divided by both standard deviations: from -1 to 1; NaN where one is 0."""
    y_true, y_pred = _alike(y_true, y_pred)
    true, pred = _centred(y_true, axis), _centred(y_pred, axis)
    true = ops.divide(true, ops.std(true, axis, keepdims=True))
    pred = ops.divide(pred, ops.std(pred, axis, keepdims=True))
    return ops.mean(ops.multiply(true, pred), axis=axis)


def concordance_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Lin's coefficient along ``axis``, ``2 * cov / (var_true + var_pred + (mean_true - mean_pred)**2)``: 1 where the
    predictions equal the truth."""
    y_true, y_pred = _alike(y_true, y_pred)
    true, pred = _centred(y_true, axis), _centred(y_pred, axis)
    apart = ops.subtract(ops.mean(y_true, axis, keepdims=True), ops.mean(y_pred, axis, keepdims=True))
    spread = ops.add(ops.var(true, axis, keepdims=True), ops.var(pred, axis, keepdims=True))
    spread = ops.add(ops.add(spread, ops.square(apart)), losses.EPSILON)
    return ops.mean(ops.divide(ops.multiply(2.0, ops.multiply(true, pred)), spread), axis=axis)


def _centred(x: Any, axis: int) -> Any:
    return ops.subtract(x, ops.mean(x, axis, keepdims=True))


def _alike(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Both in the float dtype of y_pred, and of one shape."""
    y_pred = as_array(y_pred)
    y_pred = y_pred if is_float(dtype_of(y_pred)) else cast(y_pred, ops.floatx())
    return same_shape(cast(y_true, dtype_of(y_pred)), y_pred)


# ---- errors ---------------------------------------------------------------------------------------------------------


class MeanSquaredError(SampleMean, aliases=("mse",)):
    """The squared error, averaged over the last axis and the samples."""

    direction = "down"

    function = staticmethod(losses.mean_squared_error)


class RootMeanSquaredError(SampleMean, aliases=("rmse",)):
    """The square root of the mean squared error of all samples.

    Example:
        >>> import numpy as np
        >>> float(RootMeanSquaredError()(np.zeros(2), np.array([3.0, 3.0])))
        3.0
    """

    direction = "down"

    function = staticmethod(squared_error)

    def result(self) -> Any:
        return ops.sqrt(super().result())


class MeanAbsoluteError(SampleMean, aliases=("mae",)):
    """The absolute error, averaged over the last axis and the samples."""

    direction = "down"

    function = staticmethod(losses.mean_absolute_error)


class MeanAbsolutePercentageError(SampleMean, aliases=("mape",)):
    """The absolute error in percent of the true value, averaged over the last axis and the samples."""

    direction = "down"

    function = staticmethod(losses.mean_absolute_percentage_error)


class MeanSquaredLogarithmicError(SampleMean, aliases=("msle",)):
    """``(log(y_true + 1) - log(y_pred + 1))**2``, averaged over the last axis and the samples; negative values count
    as 0."""

    direction = "down"

    function = staticmethod(losses.mean_squared_logarithmic_error)


class LogCoshError(SampleMean):
    """The logarithm of the hyperbolic cosine of the error, averaged over the last axis and the samples: half the
    squared error where that is small, the absolute error where it is large."""

    direction = "down"

    name: str | None = "logcosh"
    function = staticmethod(losses.log_cosh)


class CosineSimilarity(SampleMean):
    """The cosine of the angle between truth and prediction along an axis, averaged over the samples; from -1 to 1.

    Args:
        axis: The axis along which the vectors lie.

    Example:
        >>> round(float(CosineSimilarity()([[0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]])), 4)
        0.5
    """

    direction = "up"

    axis: int = -1
    function = staticmethod(cosine_similarity)


# ---- correlations ---------------------------------------------------------------------------------------------------


class PearsonCorrelation(SampleMean):
    """The correlation of truth and prediction along an axis, averaged over the samples; from -1 to 1.

    Args:
        axis: The axis along which values are compared.

    Example:
        >>> metric = PearsonCorrelation()
        >>> round(float(metric([[0, 1, 0.5], [1, 1, 0.2]], [[0.1, 0.9, 0.5], [1, 0.9, 0.2]])), 4)
        0.9967
    """

    direction = "up"

    axis: int = -1
    function = staticmethod(pearson_correlation)


class ConcordanceCorrelation(SampleMean):
    """Lin's concordance correlation along an axis, averaged over the samples: 1 where predictions equal the truth.

    Args:
        axis: The axis along which values are compared.

    Reference:
        Lin, A concordance correlation coefficient to evaluate reproducibility, 1989.
    """

    direction = "up"

    axis: int = -1
    function = staticmethod(concordance_correlation)


class R2Score(Metric):
    """The coefficient of determination: 1 minus the squared error divided by the truth's variance.

    Args:
        class_aggregation: What is made of the outputs' scores: ``"uniform_average"``, ``"variance_weighted_average"``,
            or None (nothing: a result of shape ``(outputs,)``).
        num_regressors: How many inputs the model has, for the adjusted score; 0 for the plain one, which is also taken
            while there are not more than ``num_regressors + 1`` values.

    Example:
        >>> round(float(R2Score()([[1.0], [4.0], [3.0]], [[2.0], [4.0], [4.0]])), 4)
        0.5714
    """

    direction = "up"

    class_aggregation: Literal["uniform_average", "variance_weighted_average"] | None = "uniform_average"
    num_regressors: NonNegativeInt = 0
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.num_samples = self.add_variable(name="num_samples")
        self.squared_sum: Any = None

    def create_for(self, y_true: Any, y_pred: Any) -> None:
        if self.squared_sum is None:
            shape = (outputs_of(y_pred),)
            self.squared_sum = self.add_variable(shape, name="squared_sum")
            self.sum = self.add_variable(shape, name="sum")
            self.residual = self.add_variable(shape, name="residual")
            self.count = self.add_variable(shape, name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in a batch.

        Args:
            y_true: The truth, ``(batch, outputs)``.
            y_pred: The predictions, ``(batch, outputs)``.
            sample_weight: A weight per sample, ``(batch,)``, or per value.

        Raises:
            ShapeError: naming the metric, if shapes do not fit.
        """
        with named(self):
            y_pred = cast(as_array(y_pred), self._dtype)
            y_true, y_pred = same_shape(cast(losses.beside(as_array(y_true), y_pred), self._dtype), y_pred)
            self.create_for(y_true, y_pred)
            weights = weights_like(y_true, sample_weight, self._dtype)
            weighted = ops.multiply(y_true, weights)
            error = ops.multiply(ops.square(ops.subtract(y_true, y_pred)), weights)
            found = {
                "sum": weighted,
                "squared_sum": ops.multiply(y_true, weighted),
                "residual": error,
                "count": weights,
            }
            for name, values in found.items():
                getattr(self, name).assign_add(ops.sum(values, axis=0))
            self.num_samples.assign_add(ops.size(y_true, None, self._dtype))

    def result(self) -> Any:
        if self.squared_sum is None:
            return ops.zeros((), self._dtype)
        mean = ops.divide(self.sum, self.count)
        spread = ops.subtract(self.squared_sum, ops.multiply(self.sum, mean))
        score = ops.subtract(1.0, ops.divide(self.residual, spread))
        score = ops.where(ops.isinf(score), 0.0, score)
        if self.class_aggregation == "uniform_average":
            score = ops.mean(score)
        elif self.class_aggregation == "variance_weighted_average":
            score = ops.divide(ops.sum(ops.multiply(spread, score)), ops.sum(spread))
        if not self.num_regressors:
            return score
        more = ops.subtract(self.num_samples, 1.0)
        free = ops.subtract(more, float(self.num_regressors))
        enough = ops.greater(free, 0.0)
        adjusted = ops.divide(ops.multiply(ops.subtract(1.0, score), more), ops.where(enough, free, 1.0))
        return ops.where(enough, ops.subtract(1.0, adjusted), score)
