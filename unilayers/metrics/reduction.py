"""Sums and means over batches, and means of functions of samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from unilayers import losses, ops
from unilayers.losses import cast, divide_no_nan, own_arguments, same_ndim, stretchable
from unilayers.metrics.base import Metric, as_array, named
from unilayers.ops import shape_of
from unilayers.ops.define import mask_of


class Sum(Metric):
    """The sum of all values, each multiplied by its sample's weight.

    Example:
        >>> total = Sum()
        >>> total.update_state([1.0, 2.0]); float(total([3.0, 4.0], sample_weight=[1.0, 0.0]))
        6.0
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.total = self.add_variable(name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Add values, ``(batch, ...)`` or a scalar, with a weight per sample or value."""
        values, weights = _values_and_weights(values, sample_weight, self.total.dtype, ops.sum)
        self.total.assign_add(ops.sum(values if weights is None else ops.multiply(values, weights)))

    def result(self) -> Any:
        return ops.identity(self.total)


class Mean(Metric):
    """The mean of all samples' values, weighted; 0 before the first. Several values of a sample count as their mean.

    Example:
        >>> mean = Mean(name="loss")
        >>> mean.update_state([1.0, 2.0]); float(mean([6.0]))
        3.0
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Take in values, ``(batch, ...)`` or a scalar, with a weight per sample or value."""
        values, weights = _values_and_weights(values, sample_weight, self.total.dtype, ops.mean)
        axes = tuple(range(1, len(shape_of(values))))
        if weights is None:
            self.total.assign_add(_sum_of_means(values, axes))
            self.count.assign_add(ops.size(values, (0,), self.count.dtype))
        else:
            self.total.assign_add(_sum_of_means(ops.multiply(values, weights), axes))
            self.count.assign_add(_sum_of_means(ops.broadcast_to(weights, shape_of(values)), axes))

    def result(self) -> Any:
        return divide_no_nan(self.total, self.count)


def _sum_of_means(x: Any, axes: tuple[int, ...]) -> Any:
    """The sum of the means over ``axes``."""
    if not shape_of(x):
        return x
    return ops.divide(ops.sum(x), ops.size(x, axes)) if axes else ops.sum(x)


def _values_and_weights(values: Any, weights: Any, dtype: str, reduce: Callable[..., Any]) -> tuple[Any, Any]:
    """Both in ``dtype``; values have no more axes than their weights, or are as they came without any."""
    values = cast(values, dtype)
    if weights is None:
        return values, None
    values, weights = same_ndim(values, cast(weights, dtype))
    ndim = len(shape_of(weights))
    if len(shape_of(values)) > ndim:
        values = reduce(values, axis=tuple(range(ndim, len(shape_of(values)))))
    return stretchable(values, weights)


def masked(weights: Any, mask: Any, dtype: str) -> Any:
    """Weights that are 0 where the mask is false."""
    mask = cast(mask, dtype)
    return mask if weights is None else ops.multiply(*stretchable(mask, cast(weights, dtype)))


class SampleMean(Mean, abstract=True):
    """The mean of a function of samples; the fields that a class adds are the function's keyword arguments."""

    function: ClassVar[Callable[..., Any]]

    def values(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred, **own_arguments(self, Metric))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take in a batch.

        Args:
            y_true: The truth.
            y_pred: The predictions.
            sample_weight: A weight per sample, ``(batch,)``, or per value of the function; sizes of 1 stretch. What
                the mask of ``y_pred`` leaves out, where layers have put one on it, does not count.

        Raises:
            ShapeError: naming the metric, if shapes do not fit.
        """
        y_true, y_pred = as_array(y_true), as_array(y_pred)
        with named(self):
            if mask_of(y_pred) is not None:
                sample_weight = masked(sample_weight, mask_of(y_pred), self.total.dtype)
            super().update_state(self.values(losses.beside(y_true, y_pred), y_pred), sample_weight)


class MeanMetricWrapper(SampleMean):
    """The mean of a function of (y_true, y_pred) that gives one value, or several, per sample.

    Args:
        fn: The function.
        name: The name in logs; the function's if None.
        dtype: Float dtype of the variables.
        **kwargs: Handed on to the function.

    Example:
        >>> import numpy as np
        >>> bias = MeanMetricWrapper(lambda y_true, y_pred: y_pred - y_true, name="bias")
        >>> float(bias(np.array([1.0, 2.0]), np.array([1.5, 3.0])))
        0.75
    """

    def __init__(
        self, fn: Callable[..., Any], name: str | None = None, dtype: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name or getattr(fn, "__name__", None) or getattr(fn, "name", None), dtype)
        self.fn, self.options = fn, kwargs

    def values(self, y_true: Any, y_pred: Any) -> Any:
        return self.fn(y_true, y_pred, **self.options)
