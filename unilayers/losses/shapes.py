"""Shapes, weights and reductions that losses share, with the metrics too."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import ShapeError
from unilayers.ops import dtype_of, shape_of
from unilayers.ops.define import put_beside
from unilayers.spec import INTS, Dim, is_float, normalize_axis, public_shape

EPSILON = 1e-7  # Keras's fuzz factor: probabilities are kept this far from 0 and 1 before their logarithm

Reduction: TypeAlias = Literal["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none"] | None


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


def cast(x: Any, dtype: str) -> Any:
    """x in ``dtype``; itself if it has it already."""
    if not hasattr(x, "dtype"):
        x = np.asarray(x)  # numbers keep all their digits
    return x if dtype_of(x) == dtype else ops.astype(x, dtype)


def floats(x: Any) -> Any:
    return cast(x, dtype_of(x) if is_float(dtype_of(x)) else floatx())


def alike(y_true: Any, y_pred: Any, fix: str = "") -> tuple[Any, Any]:
    """Both in the float dtype of y_pred, and of one shape."""
    y_pred = floats(y_pred)
    return same_shape(cast(y_true, dtype_of(y_pred)), y_pred, fix)


def _ndim(x: Any) -> int:
    return len(shape_of(x))


def _differ(a: Any, b: Any) -> bool:
    """Whether two sizes are known to differ."""
    return a != b and not isinstance(a, Dim) and not isinstance(b, Dim)
