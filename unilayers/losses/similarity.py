"""Embeddings that should be alike or not."""

from __future__ import annotations

from typing import Any

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.hints import PositiveFloat
from unilayers.losses.base import SampleLoss
from unilayers.losses.shapes import _ndim, cast, class_numbers, floats
from unilayers.ops import dtype_of, shape_of
from unilayers.spec import public_shape


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
    y_pred = floats(y_pred)
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


class Circle(SampleLoss):
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


def _one_label_each(labels: Any, embeddings: Any) -> Any:
    """Class numbers of embeddings as ``(batch,)``."""
    if _ndim(embeddings) != 2:
        raise ShapeError(
            "not embeddings", expected="shape (batch, features)", received=str(public_shape(shape_of(embeddings)))
        )
    # With a last axis of 1, so that labels are told apart from embeddings by their axes.
    return class_numbers(labels, ops.slice_axis(embeddings, 1, 0, 1))
