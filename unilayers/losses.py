"""Losses: how far predictions are from the truth, as a number to minimise.

Each loss is a function of samples (``mean_squared_error``) and a class (``MeanSquaredError``) that weights and reduces
what the function gives. Both are written in ops: inside a trace they become part of the training graph, on arrays they
run at once on the arrays' own backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import ShapeError, UnilayersError
from unilayers.hints import PositiveFloat, Probability
from unilayers.ops import dtype_of, shape_of
from unilayers.ops.define import TAPES, Box, boxed, mask_of, put_beside, unboxed
from unilayers.registry import Configurable, arguments_of, parameters, resolve, snake_case
from unilayers.spec import INTS, Dim, is_float, normalize_axis, promote, public_shape

EPSILON = 1e-7  # Keras's fuzz factor: probabilities are kept this far from 0 and 1 before their logarithm

Reduction: TypeAlias = Literal["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none"] | None


# ---- the family -------------------------------------------------------------------------------------------------


class Loss(Configurable, family="loss"):
    """Base class of all losses: ``loss(y_true, y_pred, sample_weight)``.

    A subclass writes ``call(y_true, y_pred)``, which gives one value per sample.

    Args:
        reduction: What is made of the samples' values after they are multiplied by their weights:
            ``"sum_over_batch_size"`` or ``"mean"`` (sum divided by how many there are), ``"sum"``,
            ``"mean_with_sample_weight"`` (sum divided by the sum of the weights), ``"none"`` or None (nothing).
        name: The name in logs; the class's name in snake_case if None.
        dtype: Float dtype of the computation; if None that of ``y_pred``, at least the default float dtype.

    Example:
        >>> import numpy as np
        >>> class FourthPower(Loss):
        ...     def call(self, y_true, y_pred):
        ...         return ops.mean((y_pred - y_true) ** 4, axis=-1)
        >>> float(FourthPower(reduction="sum")(np.zeros((3, 2)), np.ones((3, 2))))
        3.0
    """

    # Whether y_true are class numbers, which are not cast to a float dtype.
    integer_labels: ClassVar[bool] = False

    _: KW_ONLY
    reduction: Reduction = "sum_over_batch_size"
    name: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        self.name = self.name or snake_case(type(self).__name__)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One value per sample, unweighted."""
        raise NotImplementedError(f"{type(self).__name__} has no call(y_true, y_pred) method")

    def mask(self, y_true: Any, y_pred: Any) -> Any:
        """Which of the values of ``call`` count, as bools; None if all do."""
        return None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The weighted and reduced loss.

        Args:
            y_true: The truth.
            y_pred: The predictions.
            sample_weight: A weight per sample, ``(batch,)``, or per value that ``call`` gives; sizes of 1 stretch.

        Raises:
            ShapeError: naming the loss, if shapes do not fit.
        """
        given = (y_true, y_pred, sample_weight)
        try:
            result = self._on_boxes(*map(boxed, given), mask_of(y_pred))
        except UnilayersError as error:
            raise error.inside(repr(self)) from None
        return result if TAPES.get() or any(isinstance(x, Box) for x in given) else unboxed(result)

    def _on_boxes(self, y_true: Any, y_pred: Any, sample_weight: Any, steps: Any) -> Any:
        """Operators in ``call`` are ops, also on an engine's arrays. ``steps`` is the mask that layers have put on the
        predictions."""
        dtype = self.dtype or promote(dtype_of(y_pred), floatx())
        y_pred = cast(y_pred, dtype)
        y_true = beside(y_true if self.integer_labels else cast(y_true, dtype), y_pred)
        values = self.call(y_true, y_pred)
        mask = self.mask(y_true, y_pred)
        if steps is not None:
            mask = steps if mask is None else ops.logical_and(mask, steps)
        return weighted_reduction(values, sample_weight, mask, self.reduction)


def get(identifier: Any, y_true: Any = None, y_pred: Any = None, *, where: str = "") -> Loss | None:
    """The loss for a name, ``{name: arguments}``, a class, an instance, a function of (y_true, y_pred), or None.

    Args:
        identifier: What stands for the loss; ``"crossentropy"`` or ``"ce"`` takes the cross-entropy that fits the
            shapes of ``y_true`` and ``y_pred``. A function gives one value per sample.
        y_true: The truth, or anything with its shape.
        y_pred: Predictions, or anything with their shape.
        where: The place to name in errors.

    Example:
        >>> get("mse"), get({"Huber": {"delta": 0.5}}), get(lambda y_true, y_pred: y_pred - y_true).name
        (MeanSquaredError(), Huber(delta=0.5), '<lambda>')
    """
    if isinstance(identifier, str) and identifier.lower() in ("crossentropy", "ce"):
        identifier = f"{fitting_kind(identifier, y_true, y_pred)}_crossentropy"
    return resolve(Loss.registry, identifier, where=where, wrap=_from_function)


# ---- distances ----------------------------------------------------------------------------------------------------


def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """``mean((y_pred - y_true)**2)`` over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(ops.square(ops.subtract(y_pred, y_true)), axis=-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """``mean(abs(y_pred - y_true))`` over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(ops.abs(ops.subtract(y_pred, y_true)), axis=-1)


def sum_squared_error(y_true: Any, y_pred: Any) -> Any:
    """``sum((y_pred - y_true)**2)`` over the last axis: the squared Euclidean distance."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.sum(ops.square(ops.subtract(y_pred, y_true)), axis=-1)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Half the squared error up to ``delta``, and from there on the tangent; averaged over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    error = ops.subtract(y_pred, y_true)
    size = ops.abs(error)
    values = ops.where(size <= delta, 0.5 * ops.square(error), delta * size - 0.5 * delta**2)
    return ops.mean(values, axis=-1)


# ---- cross-entropies ----------------------------------------------------------------------------------------------


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """``-mean(y_true * log(p) + (1 - y_true) * log(1 - p))`` over ``axis``.

    Args:
        y_true: Labels between 0 and 1.
        y_pred: Probabilities p, or logits; of the same shape.
        from_logits: Whether ``y_pred`` are logits, and p their sigmoid.
        label_smoothing: Moves the labels this part of the way to 0.5.
        axis: The axis of the mean.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return ops.mean(ops.sigmoid_cross_entropy(y_pred, y_true), axis=axis)
    p = ops.clip(y_pred, minimum=EPSILON, maximum=1.0 - EPSILON)
    values = ops.multiply(y_true, ops.log(p)) + ops.multiply(1.0 - y_true, ops.log(1.0 - p))
    return ops.negative(ops.mean(values, axis=axis))


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """``-sum(y_true * log(p))`` over the classes.

    Args:
        y_true: A probability for each class, or one-hot rows.
        y_pred: Probabilities p, which are divided by their sum, or logits; of the same shape.
        from_logits: Whether ``y_pred`` are logits, and p their softmax.
        label_smoothing: This part of each label is shared equally by all classes.
        axis: The axis of the classes.

    Raises:
        ShapeError: if the shapes differ, or there is one class only.
    """
    y_pred = _floats(y_pred)
    _require_classes(y_pred, axis)
    y_true, y_pred = _alike(y_true, y_pred, "For labels that are class numbers use SparseCategoricalCrossentropy")
    if label_smoothing:
        classes = ops.size(y_pred, (normalize_axis(axis, _ndim(y_pred)),))
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / classes
    if from_logits:
        return ops.softmax_cross_entropy(y_pred, y_true, axis=axis)
    p = y_pred / ops.sum(y_pred, axis=axis, keepdims=True)
    return ops.negative(ops.sum(ops.multiply(y_true, _log_probability(p)), axis=axis))


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Any:
    """``-log(p[y_true])``: the categorical cross-entropy for labels that are class numbers.

    Args:
        y_true: Class numbers, of y_pred's shape without ``axis`` or with 1 there. A number that is no class gives NaN.
        y_pred: Probabilities p, which are divided by their sum, or logits.
        from_logits: Whether ``y_pred`` are logits, and p their softmax.
        ignore_class: Samples with this label get the value 0.
        axis: The axis of the classes.

    Raises:
        ShapeError: if the shapes do not fit, or there is one class only.
    """
    y_pred = _floats(y_pred)
    axis = normalize_axis(axis, _ndim(y_pred))
    _require_classes(y_pred, axis)
    labels = class_numbers(y_true, y_pred, axis)
    y_pred = ops.moveaxis(y_pred, axis, -1) if axis != _ndim(y_pred) - 1 else y_pred
    if ignore_class is None:
        return _sparse_values(labels, y_pred, from_logits)
    counts = ops.not_equal(labels, ignore_class)
    values = _sparse_values(ops.where(counts, labels, 0), y_pred, from_logits)
    return ops.where(counts, values, 0.0)


def _sparse_values(labels: Any, y_pred: Any, from_logits: bool) -> Any:
    if from_logits:
        return ops.sparse_softmax_cross_entropy(y_pred, labels)
    known = ops.logical_and(ops.greater_equal(labels, 0), ops.less(labels, shape_of(y_pred)[-1]))
    picked = ops.take_along_axis(y_pred, ops.expand_dims(ops.where(known, labels, 0), -1), -1)
    p = ops.squeeze(picked, -1) / ops.sum(y_pred, axis=-1)
    return ops.where(known, ops.negative(_log_probability(p)), math.nan)


def _log_probability(p: Any) -> Any:
    return ops.log(ops.clip(p, minimum=EPSILON, maximum=1.0 - EPSILON))


# ---- the classes --------------------------------------------------------------------------------------------------


class _SampleLoss(Loss):
    """A loss that is a function of samples; the fields it adds are the function's keyword arguments."""

    function: ClassVar[Callable[..., Any]]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred, **own_arguments(self, Loss))


class MeanSquaredError(_SampleLoss, aliases=("mse",)):
    """The squared error, averaged over the last axis; see `Loss` for the arguments.

    Example:
        >>> import numpy as np
        >>> float(MeanSquaredError()(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]])))
        0.25
    """

    function = staticmethod(mean_squared_error)


class MeanAbsoluteError(_SampleLoss, aliases=("mae",)):
    """The absolute error, averaged over the last axis; see `Loss` for the arguments."""

    function = staticmethod(mean_absolute_error)


class SumSquaredError(_SampleLoss, aliases=("sse",)):
    """The squared error, summed over the last axis; see `Loss` for the arguments.

    With ``reduction="sum"`` it is the plain L2 loss ``sum((y_pred - y_true)**2)`` over all elements.

    Example:
        >>> import numpy as np
        >>> float(SumSquaredError(reduction="sum")(np.zeros((2, 3)), np.full((2, 3), 2.0)))
        24.0
    """

    function = staticmethod(sum_squared_error)


class Huber(_SampleLoss):
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


class BinaryCrossentropy(_SampleLoss, aliases=("bce",)):
    """Cross-entropy of labels that are 0, 1 or between, each on its own, averaged over ``axis``.

    Args:
        from_logits: Whether the predictions are logits; probabilities if not.
        label_smoothing: Moves the labels this part of the way to 0.5.
        axis: The axis of the mean.

    Example:
        >>> import numpy as np
        >>> round(float(BinaryCrossentropy()(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]))), 4)
        0.6931
    """

    from_logits: bool = False
    label_smoothing: Probability = 0.0
    axis: int = -1
    function = staticmethod(binary_crossentropy)


class CategoricalCrossentropy(_SampleLoss):
    """Cross-entropy of one label among several classes, given as a row of probabilities or one-hot.

    Args:
        from_logits: Whether the predictions are logits; probabilities if not.
        label_smoothing: This part of each label is shared equally by all classes.
        axis: The axis of the classes.

    Example:
        >>> import numpy as np
        >>> y_true, y_pred = np.array([[0.0, 1.0, 0.0]]), np.array([[0.25, 0.5, 0.25]])
        >>> round(float(CategoricalCrossentropy()(y_true, y_pred)), 4)
        0.6931
    """

    from_logits: bool = False
    label_smoothing: Probability = 0.0
    axis: int = -1
    function = staticmethod(categorical_crossentropy)


class SparseCategoricalCrossentropy(_SampleLoss):
    """Cross-entropy of one label among several classes, given as the class's number.

    Args:
        from_logits: Whether the predictions are logits; probabilities if not.
        ignore_class: Samples with this label count neither in the sum nor in the number that divides it.
        axis: The axis of the classes.

    Example:
        >>> import numpy as np
        >>> y_true, y_pred = np.array([1, -1]), np.array([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]])
        >>> round(float(SparseCategoricalCrossentropy(ignore_class=-1)(y_true, y_pred)), 4)
        0.6931
    """

    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1
    function = staticmethod(sparse_categorical_crossentropy)
    integer_labels = True

    def mask(self, y_true: Any, y_pred: Any) -> Any:
        if self.ignore_class is None:
            return None
        return ops.not_equal(class_numbers(y_true, y_pred, self.axis), self.ignore_class)


class _Function(Loss):
    """A plain function of (y_true, y_pred) as a loss."""

    function: Callable[..., Any]

    def __post_init__(self) -> None:
        self.name = self.name or getattr(self.function, "__name__", None)
        super().__post_init__()

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)


def _from_function(function: Callable[..., Any]) -> Loss:
    known = (cls for cls in Loss.registry if getattr(cls, "function", None) is function)
    return next(known, lambda: _Function(function))()


# ---- shapes, weights and reduction, shared with the metrics -------------------------------------------------------


def weighted_reduction(values: Any, sample_weight: Any, mask: Any, reduction: Reduction) -> Any:
    """Values of samples multiplied by their weights and reduced; see `Loss`. Values outside the mask count nothing.

    Args:
        values: One or more values per sample.
        sample_weight: Weights that stretch to the shape of ``values``, or None.
        mask: Bools of the shape of ``values``, or None.
        reduction: How to reduce.
    """
    weights = None if sample_weight is None else cast(sample_weight, dtype_of(values))
    if mask is not None:
        weights = _masked(weights, cast(mask, dtype_of(values)), reduction)
    if weights is not None:
        values, weights = stretchable(values, weights)
        values = ops.multiply(values, weights)
    if reduction in (None, "none"):
        return values
    total = ops.sum(values)
    if reduction == "sum":
        return total
    if reduction == "mean_with_sample_weight" and weights is not None:
        return divide_no_nan(total, ops.sum(weights))
    count = ops.size(values)
    return ops.divide(total, max(count, 1) if isinstance(count, int) else ops.maximum(count, 1))


def _masked(weights: Any, mask: Any, reduction: Reduction) -> Any:
    """Weights that also hold the mask; where a mean divides by all values, they make up for those that do not count."""
    if reduction in ("mean", "sum_over_batch_size"):
        mask = ops.multiply(mask, divide_no_nan(ops.size(mask), ops.sum(mask)))
    if weights is None:
        return mask
    mask, weights = stretchable(mask, weights)
    return ops.multiply(mask, weights)


def same_shape(y_true: Any, y_pred: Any, fix: str = "") -> tuple[Any, Any]:
    """Both with the same axes; see `same_ndim`.

    Raises:
        ShapeError: if their shapes differ, or there is no axis; it ends with ``fix``.
    """
    true, pred = same_ndim(y_true, y_pred)
    a, b = shape_of(true), shape_of(pred)
    if not a or len(a) != len(b) or any(map(_differ, a, b)):
        raise ShapeError(
            "y_true and y_pred do not fit",
            expected="equal shapes (batch, ...)",
            received=f"{public_shape(shape_of(y_true))} and {public_shape(shape_of(y_pred))}",
            fix=fix,
        )
    return true, pred


def class_numbers(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Labels as integers, of y_pred's shape without the axis of the classes.

    Raises:
        ShapeError: if they have another shape.
    """
    axis = normalize_axis(axis, _ndim(y_pred))
    labels = cast(y_true, dtype_of(y_true) if dtype_of(y_true) in INTS else "int32")
    if _ndim(labels) == _ndim(y_pred) and shape_of(labels)[axis] == 1:
        labels = ops.squeeze(labels, axis)
    shape, have = shape_of(y_pred), shape_of(labels)
    expected = (*shape[:axis], *shape[axis + 1 :])
    if len(have) != len(expected) or any(map(_differ, have, expected)):
        one_hot = len(have) == len(shape) and not any(map(_differ, have, shape))
        raise ShapeError(
            "y_true does not fit y_pred",
            expected=f"class numbers of shape {public_shape(expected)}",
            received=f"y_true of shape {public_shape(shape_of(y_true))}, y_pred of shape {public_shape(shape)}",
            fix="Use the categorical variant, without Sparse, for one-hot labels" if one_hot else "",
        )
    return labels


def divide_no_nan(a: Any, b: Any) -> Any:
    """``a / b``, and a where b is 0."""
    return ops.divide(a, ops.where(ops.equal(b, 0), 1.0, b))


def stretchable(values: Any, weights: Any) -> tuple[Any, Any]:
    """Values and weights with axes that fit: a weight per sample also weights samples of several values.

    Raises:
        ShapeError: if the weights do not stretch to the values' shape.
    """
    values, weights = same_ndim(values, weights)
    shape, have = shape_of(values), shape_of(weights)
    if shape and (len(have) > len(shape) or any(_differ(w, d) and w != 1 for w, d in zip(have, shape, strict=False))):
        raise ShapeError(
            "sample_weight does not fit",
            expected=f"a shape that stretches to {public_shape(shape)}, the values per sample",
            received=str(public_shape(have)),
        )
    if 0 < len(have) < len(shape):
        weights = ops.reshape(weights, (*have, *[1] * (len(shape) - len(have))))
    return values, weights


def same_ndim(a: Any, b: Any) -> tuple[Any, Any]:
    """Both with as many axes, if they differ by a last axis of size 1: ``(batch,)`` gets it, more axes lose it."""
    if _ndim(a) < _ndim(b):
        b, a = same_ndim(b, a)
    elif _ndim(a) == _ndim(b) + 1 and shape_of(a)[-1] == 1:
        if _ndim(b) == 1:
            b = ops.expand_dims(b, -1)
        else:
            a = ops.squeeze(a, -1)
    return a, b


def beside(y_true: Any, y_pred: Any) -> Any:
    """y_true where y_pred is, if that is another engine's array, so that plain operators can mix the two."""
    if isinstance(y_pred, (ops.Value, np.ndarray)) or not isinstance(y_true, (np.ndarray, np.generic)):
        return y_true
    return put_beside(y_pred, np.asarray(y_true))


def own_arguments(instance: Configurable, base: type[Configurable]) -> Mapping[str, Any]:
    """The arguments that an object's class has beyond those of ``base``."""
    common = parameters(base)  # type: ignore[arg-type]
    return {name: value for name, value in arguments_of(instance).items() if name not in common}


def fitting_kind(name: str, y_true: Any, y_pred: Any) -> Literal["binary", "categorical", "sparse_categorical"]:
    """Which labels these are, by Keras's rule: one prediction per sample is binary; labels with fewer axes than the
    predictions, or with a last axis of 1, are class numbers; others are one-hot.

    Raises:
        UnilayersError: if the shapes are not known.
    """
    if y_true is None or y_pred is None:
        raise UnilayersError(f"{name!r} depends on the shapes of labels and predictions, which are not known here")
    true, pred = shape_of(y_true), shape_of(y_pred)
    if len(pred) < 2 or pred[-1] == 1:
        return "binary"
    return "sparse_categorical" if len(true) < len(pred) or true[-1] == 1 else "categorical"


# ---- details --------------------------------------------------------------------------------------------------------


def _ndim(x: Any) -> int:
    return len(shape_of(x))


def cast(x: Any, dtype: str) -> Any:
    """x in ``dtype``; itself if it has it already."""
    if not hasattr(x, "dtype"):
        x = np.asarray(x)  # numbers keep all their digits
    return x if dtype_of(x) == dtype else ops.astype(x, dtype)


def _floats(x: Any) -> Any:
    return cast(x, dtype_of(x) if is_float(dtype_of(x)) else floatx())


def _differ(a: Any, b: Any) -> bool:
    """Whether two sizes are known to differ."""
    return a != b and not isinstance(a, Dim) and not isinstance(b, Dim)


def _alike(y_true: Any, y_pred: Any, fix: str = "") -> tuple[Any, Any]:
    """Both in the float dtype of y_pred, and of one shape."""
    y_pred = _floats(y_pred)
    return same_shape(cast(y_true, dtype_of(y_pred)), y_pred, fix)


def _require_classes(y_pred: Any, axis: int) -> None:
    if shape_of(y_pred)[normalize_axis(axis, _ndim(y_pred))] == 1:
        raise ShapeError(
            "one class only, whose probability is always 1",
            expected="at least two classes",
            received=f"y_pred of shape {public_shape(shape_of(y_pred))}",
            fix="Use BinaryCrossentropy for one output per sample",
        )
