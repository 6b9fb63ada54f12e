"""Metrics: numbers that describe training, gathered over batches in variables.

The sums live in `Variable` s and are written in ops: inside a trace ``update_state`` becomes part of the training graph
and the sums stay on the device; on arrays it runs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from unilayers import initializers, losses, ops
from unilayers.config import floatx
from unilayers.errors import UnilayersError
from unilayers.hints import PositiveInt, Probability
from unilayers.losses import cast, divide_no_nan, fitting_kind, own_arguments, same_ndim, same_shape, stretchable
from unilayers.ops import dtype_of, shape_of
from unilayers.registry import Configurable, resolve, snake_case
from unilayers.variable import Variable

# ---- the family -------------------------------------------------------------------------------------------------


class Metric(Configurable, family="metric"):
    """Base class of all metrics.

    A subclass creates its variables with ``add_variable``, in ``__post_init__`` or in an ``__init__`` of its own, and
    writes ``update_state`` and ``result``. Metrics kept as attributes are part of it.

    Args:
        name: The name in logs; the class's name in snake_case if None.
        dtype: Float dtype of the variables; the default float dtype if None. A float32 counts whole numbers exactly
            up to 2**24 = 16,777,216, a float64 up to 2**53.

    Example:
        >>> class Largest(Metric):
        ...     def __post_init__(self):
        ...         super().__post_init__()
        ...         self.value = self.add_variable(name="value")
        ...     def update_state(self, y_true, y_pred, sample_weight=None):
        ...         self.value.assign(ops.maximum(self.value, ops.max(y_pred)))
        ...     def result(self):
        ...         return ops.identity(self.value)
        >>> float(Largest()(np.zeros(2), np.array([3.0, 1.0])))
        3.0
    """

    name: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        self.name = self.name or snake_case(type(self).__name__)

    @cached_property  # made when needed, so that a hand-written __init__ may add variables before super().__init__()
    def _variables(self) -> list[Variable]:
        return []

    def add_variable(
        self, shape: Sequence[int] = (), initializer: Any = "zeros", dtype: str | None = None, name: str | None = None
    ) -> Variable:
        """Create a variable of the metric, called ``metrics/<metric>/<name>``.

        Args:
            shape: Its shape.
            initializer: See ``initializers.get``.
            dtype: The metric's dtype if None.
            name: Short name; ``variable`` if None.
        """
        shape, name, dtype = tuple(shape), name or "variable", dtype or self.dtype or floatx()
        draw = initializers.get(initializer or "zeros", where=f"{type(self).__name__}.initializer")
        assert draw is not None

        def initial(path: str) -> np.ndarray:
            return draw(shape, dtype)

        variable = Variable(initial, shape, dtype, False, name, lambda: f"metrics/{self.name}/{name}")
        self._variables.append(variable)
        return variable

    add_weight = add_variable

    @property
    def variables(self) -> list[Variable]:
        """The variables in order of creation, then those of metrics among the attributes."""
        parts = [part for part in vars(self).values() if isinstance(part, Metric)]
        return list(dict.fromkeys([*self._variables, *(v for part in parts for v in part.variables)]))

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take in a batch: ``update_state(y_true, y_pred, sample_weight=None)``."""
        raise NotImplementedError(f"{type(self).__name__} has no update_state() method")

    def result(self) -> Any:
        """The value over all batches since the last ``reset_state``, as a scalar."""
        raise NotImplementedError(f"{type(self).__name__} has no result() method")

    def reset_state(self) -> None:
        """Set all variables to zero."""
        for variable in self.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take in a batch and give the value so far."""
        self.update_state(*args, **kwargs)
        return self.result()


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
        >>> get("accuracy", np.zeros(8), np.zeros((8, 3))), get("mse"), get({"TopKCategoricalAccuracy": {"k": 2}})
        (SparseCategoricalAccuracy(name='accuracy'), MeanSquaredError(name='mse'), TopKCategoricalAccuracy(k=2))
    """
    if not isinstance(identifier, str):
        return resolve(Metric.registry, identifier, where=where, wrap=MeanMetricWrapper)
    kind = _KINDS.get(identifier.lower())
    metric = resolve(
        Metric.registry, f"{fitting_kind(identifier, y_true, y_pred)}_{kind}" if kind else identifier, where=where
    )
    metric.name = identifier
    return metric


_KINDS = {"accuracy": "accuracy", "acc": "accuracy", "crossentropy": "crossentropy", "ce": "crossentropy"}


# ---- sums and means -----------------------------------------------------------------------------------------------


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


class _SampleMean(Mean):
    """The mean of a function of samples; the fields that a class adds are the function's keyword arguments."""

    function: ClassVar[Callable[..., Any]]

    def values(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred, **own_arguments(self, Metric))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take in a batch.

        Args:
            y_true: The truth.
            y_pred: The predictions.
            sample_weight: A weight per sample, ``(batch,)``, or per value of the function; sizes of 1 stretch.

        Raises:
            ShapeError: naming the metric, if shapes do not fit.
        """
        try:
            super().update_state(self.values(losses.beside(y_true, y_pred), y_pred), sample_weight)
        except UnilayersError as error:
            raise error.inside(repr(self)) from None


class MeanMetricWrapper(_SampleMean):
    """The mean of a function of (y_true, y_pred) that gives one value, or several, per sample.

    Args:
        fn: The function.
        name: The name in logs; the function's if None.
        dtype: Float dtype of the variables.
        **kwargs: Handed on to the function.

    Example:
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


# ---- functions of samples -----------------------------------------------------------------------------------------


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


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """1 where the prediction of the class whose number is the label is among the k largest of the last axis.

    It is if fewer than k predictions are larger; so a tie at the k-th place counts as a hit, and NaN never does.
    """
    labels = losses.class_numbers(y_true, y_pred)
    own = ops.take_along_axis(y_pred, ops.expand_dims(labels, -1), -1)
    larger = ops.sum(ops.astype(ops.greater(y_pred, own), "int32"), axis=-1)
    return _hits(ops.logical_and(ops.less(larger, k), ops.logical_not(ops.isnan(ops.squeeze(own, -1)))))


def squared_error(y_true: Any, y_pred: Any) -> Any:
    """``(y_pred - y_true)**2``, elementwise."""
    y_true, y_pred = same_shape(y_true, y_pred)
    return ops.square(ops.subtract(y_pred, y_true))


def _hits(bools: Any) -> Any:
    return ops.astype(bools, floatx())


# ---- accuracies ---------------------------------------------------------------------------------------------------


class Accuracy(_SampleMean):
    """How often predictions equal labels.

    ``compile(metrics=["accuracy"])`` does not mean this class but the accuracy that fits the labels; see `get`.

    Example:
        >>> round(float(Accuracy()(np.array([1, 2, 3]), np.array([1, 2, 4]))), 4)
        0.6667
    """

    function = staticmethod(accuracy)


class BinaryAccuracy(_SampleMean):
    """How often ``prediction > threshold`` is what the label, 0 or 1, says.

    Args:
        threshold: What a prediction of 1 is larger than.
    """

    threshold: Probability = 0.5
    function = staticmethod(binary_accuracy)


class CategoricalAccuracy(_SampleMean):
    """How often the largest prediction is that of the one-hot label; the first of equal predictions counts."""

    function = staticmethod(categorical_accuracy)


class SparseCategoricalAccuracy(_SampleMean):
    """How often the largest prediction is that of the class whose number is the label.

    Example:
        >>> y_pred = np.array([[0.1, 0.9], [0.8, 0.2]])
        >>> metric = SparseCategoricalAccuracy()
        >>> float(metric(np.array([1, 1]), y_pred)), float(metric(np.array([0, 1]), y_pred, sample_weight=[0.0, 2.0]))
        (0.5, 0.25)
    """

    function = staticmethod(sparse_categorical_accuracy)


class TopKCategoricalAccuracy(_SampleMean):
    """How often the class of the one-hot label is among the k with the largest predictions.

    Args:
        k: How many classes; a tie at the k-th place counts as a hit.
    """

    k: PositiveInt = 5
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None
    function = staticmethod(top_k_categorical_accuracy)


class SparseTopKCategoricalAccuracy(_SampleMean):
    """How often the class whose number is the label is among the k with the largest predictions.

    Args:
        k: How many classes; a tie at the k-th place counts as a hit.
    """

    k: PositiveInt = 5
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None
    function = staticmethod(sparse_top_k_categorical_accuracy)


# ---- errors and cross-entropies -----------------------------------------------------------------------------------


class MeanSquaredError(_SampleMean, aliases=("mse",)):
    """The squared error, averaged over the last axis and the samples."""

    function = staticmethod(losses.mean_squared_error)


class RootMeanSquaredError(_SampleMean, aliases=("rmse",)):
    """The square root of the mean squared error of all samples.

    Example:
        >>> float(RootMeanSquaredError()(np.zeros(2), np.array([3.0, 3.0])))
        3.0
    """

    function = staticmethod(squared_error)

    def result(self) -> Any:
        return ops.sqrt(super().result())


class MeanAbsoluteError(_SampleMean, aliases=("mae",)):
    """The absolute error, averaged over the last axis and the samples."""

    function = staticmethod(losses.mean_absolute_error)


class BinaryCrossentropy(_SampleMean, aliases=("bce",)):
    """Cross-entropy of labels that are 0, 1 or between, averaged over the last axis and the samples.

    Args:
        from_logits: Whether the predictions are logits; probabilities if not.
        label_smoothing: Moves the labels this part of the way to 0.5.
    """

    from_logits: bool = False
    label_smoothing: Probability = 0.0
    function = staticmethod(losses.binary_crossentropy)


class CategoricalCrossentropy(_SampleMean):
    """Cross-entropy of one label among several classes, given as a row of probabilities or one-hot.

    Args:
        from_logits: Whether the predictions are logits; probabilities if not.
        label_smoothing: This part of each label is shared equally by all classes.
        axis: The axis of the classes.
    """

    from_logits: bool = False
    label_smoothing: Probability = 0.0
    axis: int = -1
    function = staticmethod(losses.categorical_crossentropy)


class SparseCategoricalCrossentropy(_SampleMean):
    """Cross-entropy of one label among several classes, given as the class's number.

    Args:
        from_logits: Whether the predictions are logits; probabilities if not.
        ignore_class: Samples with this label do not count, as in the loss.
        axis: The axis of the classes.
    """

    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1
    function = staticmethod(losses.sparse_categorical_crossentropy)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take in a batch of class numbers and predictions."""
        if self.ignore_class is not None:
            counts = ops.not_equal(losses.class_numbers(y_true, y_pred, self.axis), self.ignore_class)
            counts = ops.astype(counts, self.total.dtype)
            sample_weight = counts if sample_weight is None else ops.multiply(*stretchable(counts, sample_weight))
        super().update_state(y_true, y_pred, sample_weight)
