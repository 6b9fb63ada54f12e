"""Cross-entropies of labels and predicted probabilities, and their variants for hard or wrong labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.hints import Bounds, Probability
from unilayers.losses.base import SampleLoss
from unilayers.losses.shapes import EPSILON, _ndim, alike, cast, class_numbers, floats
from unilayers.ops import dtype_of, shape_of
from unilayers.spec import normalize_axis, public_shape


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
    y_true, y_pred = alike(y_true, y_pred)
    y_true = _smoothed(y_true, label_smoothing)
    if from_logits:
        return ops.mean(ops.sigmoid_cross_entropy(y_pred, y_true), axis=axis)
    return ops.mean(_binary_values(y_true, y_pred), axis=axis)


class BinaryCrossentropy(SampleLoss, aliases=("bce",)):
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
    y_true, y_pred = alike(y_true, y_pred)
    y_true = _smoothed(y_true, label_smoothing)
    p = ops.sigmoid(y_pred) if from_logits else y_pred
    right = ops.multiply(y_true, p) + ops.multiply(1.0 - y_true, 1.0 - p)
    values = ops.multiply(ops.power(1.0 - right, gamma), _binary_values(y_true, p))
    if apply_class_balancing:
        values = ops.multiply(y_true * alpha + (1.0 - y_true) * (1.0 - alpha), values)
    return ops.mean(values, axis=axis)


class BinaryFocalCrossentropy(SampleLoss):
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


class CategoricalCrossentropy(SampleLoss):
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
    weights = ops.multiply(ops.power(1.0 - p, gamma), alpha if isinstance(alpha, float) else cast(alpha, dtype_of(p)))
    return ops.negative(ops.sum(ops.multiply(weights, ops.multiply(y_true, ops.log(p))), axis=axis))


class CategoricalFocalCrossentropy(SampleLoss):
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


def _classes_alike(y_true: Any, y_pred: Any, label_smoothing: float, axis: int) -> tuple[Any, Any]:
    """Labels, smoothed, and predictions of one shape. (Keras shares the smoothed part among as many classes as the last
    axis has, also where the classes have another axis.)"""
    y_pred = floats(y_pred)
    _require_classes(y_pred, axis)
    y_true, y_pred = alike(y_true, y_pred, "For labels that are class numbers use SparseCategoricalCrossentropy")
    if label_smoothing:
        classes = ops.size(y_pred, (normalize_axis(axis, _ndim(y_pred)),))
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / classes
    return y_true, y_pred


def _require_classes(y_pred: Any, axis: int) -> None:
    if shape_of(y_pred)[normalize_axis(axis, _ndim(y_pred))] == 1:
        raise ShapeError(
            "one class only, whose probability is always 1",
            expected="at least two classes",
            received=f"y_pred of shape {public_shape(shape_of(y_pred))}",
            fix="Use BinaryCrossentropy for one output per sample",
        )


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
    y_pred = floats(y_pred)
    axis = normalize_axis(axis, _ndim(y_pred))
    _require_classes(y_pred, axis)
    labels = class_numbers(y_true, y_pred, axis)
    y_pred = ops.moveaxis(y_pred, axis, -1) if axis != _ndim(y_pred) - 1 else y_pred
    if ignore_class is None:
        return _sparse_values(labels, y_pred, from_logits)
    counts = ops.not_equal(labels, ignore_class)
    values = _sparse_values(ops.where(counts, labels, 0), y_pred, from_logits)
    return ops.where(counts, values, 0.0)


class SparseCategoricalCrossentropy(SampleLoss):
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


def _sparse_values(labels: Any, y_pred: Any, from_logits: bool) -> Any:
    if from_logits:
        return ops.sparse_softmax_cross_entropy(y_pred, labels)
    return ops.sparse_cross_entropy(y_pred, labels, epsilon=EPSILON)


def _log_probability(p: Any) -> Any:
    return ops.log(ops.clip(p, minimum=EPSILON, maximum=1.0 - EPSILON))


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
    y_pred = floats(y_pred)
    labels = class_numbers(y_true, y_pred)
    hot = ops.one_hot(labels, shape_of(y_pred)[-1], dtype=dtype_of(y_pred))
    p = ops.sum(ops.multiply(y_pred, hot), axis=-1)
    possible = ops.greater(p, 0.0)
    return (1.0 - ops.where(possible, ops.power(ops.where(possible, p, 1.0), q), 0.0)) / q


class CategoricalGeneralizedCrossEntropy(SampleLoss):
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
