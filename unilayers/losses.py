"""Losses: how far predictions are from the truth, as a number to minimise.

Each loss is a function of samples (``mean_squared_error``) and a class (``MeanSquaredError``) that weights and reduces
what the function gives. Both are written in ops: inside a trace they become part of the training graph, on arrays they
run at once on the arrays' own backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import ShapeError, UnilayersError
from unilayers.hints import Bounds, PositiveFloat, Probability
from unilayers.ops import dtype_of, shape_of
from unilayers.ops.define import TAPES, Box, boxed, mask_of, put_beside, unboxed
from unilayers.registry import Configurable, arguments_of, parameters, resolve, snake_case
from unilayers.spec import INTS, Dim, is_float, normalize_axis, promote, public_shape

EPSILON = 1e-7  # Keras's fuzz factor: probabilities are kept this far from 0 and 1 before their logarithm

Axes: TypeAlias = int | Sequence[int] | None
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

    def mask(self, y_true: Any, y_pred: Any, values: Any) -> Any:
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
            result = self._on_boxes(mask_of(y_pred), *map(boxed, given))
        except UnilayersError as error:
            raise error.inside(repr(self)) from None
        return result if TAPES.get() or any(isinstance(x, Box) for x in given) else unboxed(result)

    def _on_boxes(self, steps: Any, y_true: Any, y_pred: Any, sample_weight: Any) -> Any:
        """Operators in ``call`` are ops, also on an engine's arrays. ``steps`` is the mask that layers have put on the
        predictions."""
        dtype = self.dtype or promote(dtype_of(y_pred), floatx())
        y_pred = cast(y_pred, dtype)
        y_true = beside(y_true if self.integer_labels else cast(y_true, dtype), y_pred)
        values = self.call(y_true, y_pred)
        mask = self.mask(y_true, y_pred, values)
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


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """``100 * mean(abs((y_true - y_pred) / y_true))`` over the last axis; a true value counts as 1e-7 at least."""
    y_true, y_pred = _alike(y_true, y_pred)
    size = ops.maximum(ops.abs(y_true), EPSILON)
    return 100.0 * ops.mean(ops.abs(ops.divide(ops.subtract(y_true, y_pred), size)), axis=-1)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """``mean((log(y_true + 1) - log(y_pred + 1))**2)`` over the last axis; values below 1e-7 count as 1e-7."""
    y_true, y_pred = _alike(y_true, y_pred)
    logs = [ops.log(ops.maximum(y, EPSILON) + 1.0) for y in (y_pred, y_true)]
    return ops.mean(ops.square(ops.subtract(*logs)), axis=-1)


def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """``mean(log(cosh(y_pred - y_true)))`` over the last axis, without overflow."""
    y_true, y_pred = _alike(y_true, y_pred)
    error = ops.subtract(y_pred, y_true)
    return ops.mean(error + ops.softplus(-2.0 * error) - math.log(2.0), axis=-1)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """The cosine of the angle between y_true and y_pred, times -1; 0 where one of them is 0.

    Args:
        y_true: Vectors along ``axis``.
        y_pred: As many vectors.
        axis: The axis of the vectors.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    unit_true, unit_pred = (ops.unit_norm(y, axis, EPSILON) for y in (y_true, y_pred))
    return ops.negative(ops.sum(ops.multiply(unit_true, unit_pred), axis=axis))


# ---- margins ------------------------------------------------------------------------------------------------------


def hinge(y_true: Any, y_pred: Any) -> Any:
    """``mean(max(1 - y_true * y_pred, 0))`` over the last axis.

    Args:
        y_true: Labels -1 and 1. If all of them are 0 or 1, as in Keras, 0 stands for -1.
        y_pred: Scores, of the same shape.
    """
    return ops.mean(_behind_margin(y_true, y_pred), axis=-1)


def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """``mean(max(1 - y_true * y_pred, 0)**2)`` over the last axis; arguments as of `hinge`."""
    return ops.mean(ops.square(_behind_margin(y_true, y_pred)), axis=-1)


def _behind_margin(y_true: Any, y_pred: Any) -> Any:
    y_true, y_pred = _alike(y_true, y_pred)
    binary = ops.all(ops.logical_or(ops.equal(y_true, 0), ops.equal(y_true, 1)))
    signs = ops.where(binary, 2.0 * y_true - 1.0, y_true)
    return ops.maximum(1.0 - ops.multiply(signs, y_pred), 0.0)


def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """``max(worst - right + 1, 0)``: how much the best wrong class is above the right one, less a margin of 1.

    Args:
        y_true: One-hot labels.
        y_pred: A score for each class. As in Keras, the right class stands among the wrong ones with the score 0.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    right = ops.sum(ops.multiply(y_true, y_pred), axis=-1)
    worst = ops.max(ops.multiply(1.0 - y_true, y_pred), axis=-1)
    return ops.maximum(worst - right + 1.0, 0.0)


# ---- distributions ------------------------------------------------------------------------------------------------


def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """``sum(y_true * log(y_true / y_pred))`` over the last axis; probabilities below 1e-7 count as 1e-7."""
    y_true, y_pred = (ops.clip(y, minimum=EPSILON, maximum=1.0) for y in _alike(y_true, y_pred))
    return ops.sum(ops.multiply(y_true, ops.log(ops.divide(y_true, y_pred))), axis=-1)


def poisson(y_true: Any, y_pred: Any) -> Any:
    """``mean(y_pred - y_true * log(y_pred + 1e-7))`` over the last axis: counts y_true with the mean y_pred."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(ops.subtract(y_pred, ops.multiply(y_true, ops.log(y_pred + EPSILON))), axis=-1)


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
    y_true = _smoothed(y_true, label_smoothing)
    if from_logits:
        return ops.mean(ops.sigmoid_cross_entropy(y_pred, y_true), axis=axis)
    return ops.mean(_binary_values(y_true, y_pred), axis=axis)


def binary_focal_crossentropy(
    y_true: Any, y_pred: Any, apply_class_balancing: bool = False, alpha: float = 0.25, gamma: float = 2.0,
    from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1,
) -> Any:  # fmt: skip
    """The binary cross-entropy times ``(1 - probability of the label)**gamma``: what is learned counts little.

    Args:
        y_true: Labels between 0 and 1.
        y_pred: Probabilities, or logits; of the same shape.
        apply_class_balancing: Whether label 1 is weighted with ``alpha`` and label 0 with ``1 - alpha``.
        alpha: The weight of label 1.
        gamma: How little; 0 gives the binary cross-entropy.
        from_logits: Whether ``y_pred`` are logits. As in Keras, they become probabilities first, so that no value
            exceeds 16.1.
        label_smoothing: Moves the labels this part of the way to 0.5.
        axis: The axis of the mean.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    y_true = _smoothed(y_true, label_smoothing)
    p = ops.sigmoid(y_pred) if from_logits else y_pred
    right = ops.multiply(y_true, p) + ops.multiply(1.0 - y_true, 1.0 - p)
    values = ops.multiply(ops.power(1.0 - right, gamma), _binary_values(y_true, p))
    if apply_class_balancing:
        values = ops.multiply(y_true * alpha + (1.0 - y_true) * (1.0 - alpha), values)
    return ops.mean(values, axis=axis)


def _smoothed(y_true: Any, label_smoothing: float) -> Any:
    return y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing if label_smoothing else y_true


def _binary_values(y_true: Any, p: Any) -> Any:
    p = ops.clip(p, minimum=EPSILON, maximum=1.0 - EPSILON)
    return ops.negative(ops.multiply(y_true, ops.log(p)) + ops.multiply(1.0 - y_true, ops.log(1.0 - p)))


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
    y_true, y_pred = _classes_alike(y_true, y_pred, label_smoothing, axis)
    if from_logits:
        return ops.softmax_cross_entropy(y_pred, y_true, axis=axis)
    p = y_pred / ops.sum(y_pred, axis=axis, keepdims=True)
    return ops.negative(ops.sum(ops.multiply(y_true, _log_probability(p)), axis=axis))


def categorical_focal_crossentropy(
    y_true: Any, y_pred: Any, alpha: float | Sequence[float] = 0.25, gamma: float = 2.0, from_logits: bool = False,
    label_smoothing: float = 0.0, axis: int = -1,
) -> Any:  # fmt: skip
    """``-sum(alpha * (1 - p)**gamma * y_true * log(p))`` over the classes: what is learned counts little.

    Args:
        y_true: A probability for each class, or one-hot rows.
        y_pred: Probabilities p, which are divided by their sum, or logits; of the same shape.
        alpha: A weight, or one for each class (along the last axis).
        gamma: How little; 0 and an alpha of 1 give the categorical cross-entropy.
        from_logits: Whether ``y_pred`` are logits, and p their softmax. As in Keras, p is kept away from 0, so that no
            value exceeds 16.1 * alpha.
        label_smoothing: This part of each label is shared equally by all classes.
        axis: The axis of the classes.

    Raises:
        ShapeError: if the shapes differ, or there is one class only.
    """
    y_true, y_pred = _classes_alike(y_true, y_pred, label_smoothing, axis)
    p = ops.softmax(y_pred, axis) if from_logits else y_pred / ops.sum(y_pred, axis=axis, keepdims=True)
    p = ops.clip(p, minimum=EPSILON, maximum=1.0 - EPSILON)
    weights = ops.multiply(ops.power(1.0 - p, gamma), alpha if _is_number(alpha) else cast(alpha, dtype_of(p)))
    return ops.negative(ops.sum(ops.multiply(weights, ops.multiply(y_true, ops.log(p))), axis=axis))


def categorical_generalized_cross_entropy(y_true: Any, y_pred: Any, q: float) -> Any:
    """``(1 - p[y_true]**q) / q``, between the cross-entropy (q near 0) and the absolute error (q near 1).

    Args:
        y_true: Class numbers, of y_pred's shape without the last axis or with 1 there. A number that is no class has
            the probability 0.
        y_pred: Probabilities p of the classes. The gradient, infinite where the label's is 0, is 0 there.
        q: Between 0 and 1: how much noise in the labels is expected.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    y_pred = _floats(y_pred)
    labels = class_numbers(y_true, y_pred)
    hot = ops.one_hot(labels, shape_of(y_pred)[-1], dtype=dtype_of(y_pred))
    p = ops.sum(ops.multiply(y_pred, hot), axis=-1)
    possible = ops.greater(p, 0.0)
    return (1.0 - ops.where(possible, ops.power(ops.where(possible, p, 1.0), q), 0.0)) / q


def _classes_alike(y_true: Any, y_pred: Any, label_smoothing: float, axis: int) -> tuple[Any, Any]:
    """Labels, smoothed, and predictions of one shape."""
    y_pred = _floats(y_pred)
    _require_classes(y_pred, axis)
    y_true, y_pred = _alike(y_true, y_pred, "For labels that are class numbers use SparseCategoricalCrossentropy")
    if label_smoothing:
        classes = ops.size(y_pred, (normalize_axis(axis, _ndim(y_pred)),))
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / classes
    return y_true, y_pred


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


# ---- overlap of areas ---------------------------------------------------------------------------------------------


def dice(y_true: Any, y_pred: Any, axis: Axes = None) -> Any:
    """1 - Dice's coefficient ``2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred) + 1e-7)``.

    Args:
        y_true: Which elements belong to the area, as 0 and 1.
        y_pred: The probabilities of that, of the same shape.
        axis: The axes of the sums; None: all, which gives one value for the whole batch.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    both = ops.sum(ops.multiply(y_true, y_pred), axis)
    return 1.0 - ops.divide(2.0 * both, ops.sum(y_true, axis) + ops.sum(y_pred, axis) + EPSILON)


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
    y_true, y_pred = _alike(y_true, y_pred)
    both = ops.sum(ops.multiply(y_true, y_pred), axis)
    missed = ops.sum(ops.multiply(y_true, 1.0 - y_pred), axis)
    added = ops.sum(ops.multiply(1.0 - y_true, y_pred), axis)
    return 1.0 - ops.divide(both, both + missed * alpha + added * beta + EPSILON)


# ---- similarity, sequences ----------------------------------------------------------------------------------------


def circle(
    y_true: Any, y_pred: Any, ref_labels: Any = None, ref_embeddings: Any = None, remove_diagonal: bool = True,
    gamma: float = 80, margin: float = 0.4,
) -> Any:  # fmt: skip
    """How far embeddings of one class are apart, and of different classes together; a value per sample.

    As in Keras, the gradient also flows through the weights of the pairs, which the paper holds fixed. A sample that no
    other shares its class with, or all do, costs 0.

    Args:
        y_true: Class numbers, ``(batch,)`` or ``(batch, 1)``.
        y_pred: Embeddings of length 1, ``(batch, features)``.
        ref_labels: Class numbers of what the samples are compared with; None: of the samples themselves.
        ref_embeddings: Embeddings to compare with; None: those of the samples.
        remove_diagonal: Whether sample i is not compared with reference i.
        gamma: The scale: how much the worst pairs dominate.
        margin: How far beyond the perfect similarities the weights reach.

    Raises:
        ShapeError: if the embeddings do not have two axes, or the labels are not one for each.

    Reference:
        Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, 2020, arXiv 2002.10857.
    """
    y_pred = _floats(y_pred)
    labels = _one_label_each(y_true, y_pred)
    references = y_pred if ref_embeddings is None else cast(ref_embeddings, dtype_of(y_pred))
    others = labels if ref_labels is None else _one_label_each(ref_labels, references)
    distance = ops.maximum(1.0 - ops.matmul(y_pred, ops.permute_dims(references, (1, 0))), 0.0)
    same = ops.equal(ops.expand_dims(labels, 1), ops.expand_dims(others, 0))
    different = ops.logical_not(same)
    if remove_diagonal:
        rows, columns = (ops.arange(n, like=y_pred) for n in shape_of(distance))
        same = ops.logical_and(same, ops.not_equal(ops.expand_dims(rows, 1), ops.expand_dims(columns, 0)))
    apart = -gamma * (ops.maximum(distance + margin, 0.0) * (margin - distance))
    together = gamma * (ops.maximum(1.0 + margin - distance, 0.0) * (1.0 - margin - distance))
    lowest = -3e4 if dtype_of(distance) == "float16" else -1e38  # as good as -inf, without its NaN in gradients
    parts = [ops.logsumexp(ops.where(*pair, lowest), 1) for pair in ((same, apart), (different, together))]
    return ops.softplus(ops.add(*parts))


def ctc(y_true: Any, y_pred: Any) -> Any:
    """Connectionist temporal classification: -log of the probability that frames of logits spell the labels.

    See `ops.ctc_loss`, which also takes lengths, for the computation and for labels that the frames are too few for.

    Args:
        y_true: Labels from 1, ``(batch, labels)``, filled up with zeros.
        y_pred: Logits, ``(batch, frames, classes)``; class 0 is the blank.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    labels = cast(y_true, "int32")
    lengths = ops.sum(ops.astype(ops.not_equal(labels, 0), "int32"), axis=-1)
    return ops.ctc_loss(labels, _floats(y_pred), lengths)


def _one_label_each(labels: Any, embeddings: Any) -> Any:
    """Class numbers of embeddings as ``(batch,)``."""
    if _ndim(embeddings) != 2:
        raise ShapeError(
            "not embeddings", expected="shape (batch, features)", received=str(public_shape(shape_of(embeddings)))
        )
    # With a last axis of 1, so that labels are told apart from embeddings by their axes.
    return class_numbers(labels, ops.slice_axis(embeddings, 1, 0, 1))


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


class MeanAbsolutePercentageError(_SampleLoss, aliases=("mape",)):
    """The absolute error in percent of the true value, averaged over the last axis; see `Loss` for the arguments.

    A true value counts as 1e-7 at least, so that one of 0 makes the loss large.

    Example:
        >>> import numpy as np
        >>> float(MeanAbsolutePercentageError()(np.array([[2.0, 4.0]]), np.array([[1.0, 4.0]])))
        25.0
    """

    function = staticmethod(mean_absolute_percentage_error)


class MeanSquaredLogarithmicError(_SampleLoss, aliases=("msle",)):
    """The squared difference of the logarithms of 1 + the values, averaged over the last axis; see `Loss`.

    Negative values count as 0 (as 1e-7).

    Example:
        >>> import numpy as np
        >>> round(float(MeanSquaredLogarithmicError()(np.array([[0.0]]), np.array([[np.e - 1]]))), 6)
        1.0
    """

    function = staticmethod(mean_squared_logarithmic_error)


class LogCosh(_SampleLoss):
    """The logarithm of the error's hyperbolic cosine, averaged over the last axis; see `Loss` for the arguments.

    Near 0 half the squared error, far from it the absolute error less log(2).

    Example:
        >>> import numpy as np
        >>> round(float(LogCosh()(np.array([[0.0]]), np.array([[10.0]]))), 4)
        9.3069
    """

    function = staticmethod(log_cosh)


class CosineSimilarity(_SampleLoss):
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


class Hinge(_SampleLoss):
    """How far scores are below 1 on the side of their label, averaged over the last axis; see `Loss`.

    Labels are -1 and 1. If all of the batch are 0 or 1, as in Keras, 0 stands for -1.

    Example:
        >>> import numpy as np
        >>> float(Hinge()(np.array([[-1.0, 1.0]]), np.array([[-2.0, 0.5]])))
        0.25
    """

    function = staticmethod(hinge)


class SquaredHinge(_SampleLoss):
    """The square of how far scores are below 1 on the side of their label, averaged over the last axis; see `Hinge`.

    Example:
        >>> import numpy as np
        >>> float(SquaredHinge()(np.array([[-1.0, 1.0]]), np.array([[-2.0, 0.5]])))
        0.125
    """

    function = staticmethod(squared_hinge)


class CategoricalHinge(_SampleLoss):
    """How much the best wrong class is above the right one, less a margin of 1; see `Loss` for the arguments.

    Labels are one-hot. As in Keras, the right class stands among the wrong ones with the score 0, so that the loss is
    the crossing of margins only where wrong scores are not all negative.

    Example:
        >>> import numpy as np
        >>> float(CategoricalHinge()(np.array([[0.0, 1.0, 0.0]]), np.array([[0.5, 1.0, 0.25]])))
        0.5
    """

    function = staticmethod(categorical_hinge)


class KLDivergence(_SampleLoss, aliases=("kld",)):
    """The Kullback-Leibler divergence of y_pred from y_true, both probabilities along the last axis; see `Loss`.

    Probabilities below 1e-7 count as 1e-7.

    Example:
        >>> import numpy as np
        >>> round(float(KLDivergence()(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))), 4)
        0.6931
    """

    function = staticmethod(kl_divergence)


class Poisson(_SampleLoss):
    """-log of the probability of the counts y_true if their means are y_pred, less what does not depend on y_pred.

    Averaged over the last axis; see `Loss` for the arguments.

    Example:
        >>> import numpy as np
        >>> round(float(Poisson()(np.array([[2.0]]), np.array([[1.0]]))), 4)
        1.0
    """

    function = staticmethod(poisson)


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


class BinaryFocalCrossentropy(_SampleLoss):
    """The binary cross-entropy times ``(1 - probability of the label)**gamma``: what is learned counts little.

    Args:
        apply_class_balancing: Whether label 1 is weighted with ``alpha`` and label 0 with ``1 - alpha``.
        alpha: The weight of label 1.
        gamma: How little; 0 gives the binary cross-entropy.
        from_logits: Whether the predictions are logits. As in Keras, they become probabilities first, which are kept
            1e-7 away from 0 and 1, so that no value exceeds 16.1.
        label_smoothing: Moves the labels this part of the way to 0.5.
        axis: The axis of the mean.

    Reference:
        Lin, Goyal, Girshick, He, Dollar, Focal Loss for Dense Object Detection, 2017, arXiv 1708.02002.

    Example:
        >>> import numpy as np
        >>> round(float(BinaryFocalCrossentropy()(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]))), 4)
        0.1733
    """

    apply_class_balancing: bool = False
    alpha: float = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: Probability = 0.0
    axis: int = -1
    function = staticmethod(binary_focal_crossentropy)


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


class CategoricalFocalCrossentropy(_SampleLoss):
    """The categorical cross-entropy with each class weighted by ``alpha * (1 - p)**gamma``: what is learned counts
    little.

    Args:
        alpha: A weight, or one for each class (along the last axis).
        gamma: How little; 0 and an alpha of 1 give the categorical cross-entropy.
        from_logits: Whether the predictions are logits. As in Keras, their softmax p is kept 1e-7 away from 0 and 1, so
            that no value exceeds 16.1 * alpha.
        label_smoothing: This part of each label is shared equally by all classes.
        axis: The axis of the classes.

    Reference:
        Lin, Goyal, Girshick, He, Dollar, Focal Loss for Dense Object Detection, 2017, arXiv 1708.02002.

    Example:
        >>> import numpy as np
        >>> y_true, y_pred = np.array([[0.0, 1.0, 0.0]]), np.array([[0.25, 0.5, 0.25]])
        >>> round(float(CategoricalFocalCrossentropy()(y_true, y_pred)), 4)
        0.0433
    """

    alpha: float | Sequence[float] = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: Probability = 0.0
    axis: int = -1
    function = staticmethod(categorical_focal_crossentropy)


class CategoricalGeneralizedCrossEntropy(_SampleLoss):
    """``(1 - p**q) / q`` of the probability p of the label's class: robust against wrong labels.

    Labels are class numbers and predictions probabilities along the last axis. A number that is no class counts as one
    with the probability 0. Where p is 0 the gradient, which would be infinite (NaN in Keras), is 0.

    Args:
        q: How much noise in the labels is expected: near 0 the loss is the cross-entropy, near 1 the absolute error.

    Reference:
        Zhang, Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels, 2018,
        arXiv 1805.07836.

    Example:
        >>> import numpy as np
        >>> float(CategoricalGeneralizedCrossEntropy()(np.array([1]), np.array([[0.75, 0.25]])))
        1.0
    """

    q: Annotated[float, Bounds(gt=0, lt=1)] = 0.5
    function = staticmethod(categorical_generalized_cross_entropy)
    integer_labels = True


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

    def mask(self, y_true: Any, y_pred: Any, values: Any) -> Any:
        if self.ignore_class is None:
            return None
        return ops.not_equal(class_numbers(y_true, y_pred, self.axis), self.ignore_class)


class Dice(_SampleLoss):
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


class Tversky(_SampleLoss):
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


class Circle(_SampleLoss):
    """How far embeddings of one class are apart, and those of different classes together, within a batch.

    Labels are class numbers, predictions vectors of length 1, as `UnitNormalization` gives. Samples that cost nothing
    do not count in a mean. As in Keras, the gradient also flows through the weights of the pairs, which the paper holds
    fixed; a sample that no other shares its class with, or all do, costs 0.

    Args:
        gamma: The scale: how much the worst pairs dominate.
        margin: How far beyond the perfect similarities the weights reach.
        remove_diagonal: Whether a sample is not compared with itself.

    Reference:
        Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, 2020, arXiv 2002.10857.

    Example:
        >>> import numpy as np
        >>> y_pred = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> Circle(gamma=1.0, reduction="none")(np.array([0, 0, 1]), y_pred).round(4)
        array([1.3427, 1.5568, 0.    ])
    """

    gamma: PositiveFloat = 80.0
    margin: float = 0.4
    remove_diagonal: bool = True
    function = staticmethod(circle)
    integer_labels = True

    def mask(self, y_true: Any, y_pred: Any, values: Any) -> Any:
        return ops.greater(values, 0.0)


class CTC(_SampleLoss):
    """Connectionist temporal classification: -log of the probability that frames of logits spell a sequence of labels.

    Labels, ``(batch, labels)``, count from 1 and are filled up with zeros; predictions are logits, ``(batch, frames,
    classes)``, of which class 0 is the blank. Labels that the frames are too few for cost infinity and have the
    gradient 0; see `ops.ctc_loss`.

    Reference:
        Graves, Fernandez, Gomez, Schmidhuber, Connectionist Temporal Classification, 2006.

    Example:
        >>> import numpy as np
        >>> round(float(CTC()(np.array([[1, 0]]), np.zeros((1, 2, 2)))), 4)  # three of four ways spell "1"
        0.2877
    """

    function = staticmethod(ctc)
    integer_labels = True


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


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float))


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
