"""The layers' computations by Keras's names: normalizations, cross-entropies, attention, decoding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np  # noqa: F401  (for the examples)

from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.ops.attention import attention_weights, causal_mask
from unilayers.ops.define import dtype_of, shape_of
from unilayers.ops.special import floats
from unilayers.spec import is_float, normalize_axes, normalize_axis, public_shape

__all__ = [
    "batch_normalization", "binary_crossentropy", "categorical_crossentropy", "ctc_decode", "dot_product_attention",
    "hard_swish", "layer_normalization", "rms_normalization", "sparse_categorical_crossentropy", "swish",
]  # fmt: skip

swish, hard_swish = ops.silu, ops.hard_silu

EPSILON = 1e-7  # where none is given; and the smallest probability whose logarithm is taken

# ---- normalizations -----------------------------------------------------------------


def _along(features: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """An array of the sizes of x along ``axes``, or one that broadcasts already, to broadcast against x."""
    if len(shape_of(features)) != len(axes):
        return features
    return ops.reshape(features, tuple(d if a in axes else 1 for a, d in enumerate(shape_of(x))))


def batch_normalization(
    x: Any, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None, epsilon: float = 1e-3
) -> Any:
    """``(x - mean) / sqrt(variance + epsilon) * scale + offset`` for every feature along ``axis``.

    Args:
        x: Any shape.
        mean: Of each feature.
        variance: Of each feature.
        axis: Where the features are.
        offset: Is added to each feature; None: nothing.
        scale: Each feature is multiplied by it; None: by 1.
        epsilon: Added to the variance.

    Reference:
        Ioffe, Szegedy, Batch Normalization, 2015, arXiv 1502.03167.

    Example:
        >>> batch_normalization(np.array([[1.0, 6.0]]), np.array([1.0, 2.0]), np.array([1.0, 4.0]), -1, epsilon=0.0)
        array([[0., 2.]])
    """
    axes = (normalize_axis(axis, len(shape_of(x))),)
    factor = ops.rsqrt(ops.add(variance, epsilon))
    factor = factor if scale is None else ops.multiply(factor, scale)
    y = ops.multiply(ops.subtract(x, _along(mean, x, axes)), _along(factor, x, axes))
    return y if offset is None else ops.add(y, _along(offset, x, axes))


def layer_normalization(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float | None = None
) -> Any:
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta``, with mean and variance along ``axis``.

    Args:
        x: Any shape.
        gamma: Of the sizes of x along ``axis``; None: 1.
        beta: Likewise; None: 0.
        axis: The axis or axes.
        epsilon: Added to the variance; None: 1e-7.

    Reference:
        Ba, Kiros, Hinton, Layer Normalization, 2016, arXiv 1607.06450.

    Example:
        >>> layer_normalization(np.array([[1.0, 3.0]]), epsilon=0.0)
        array([[-1.,  1.]])
    """
    epsilon = EPSILON if epsilon is None else epsilon
    axes = normalize_axes(axis if isinstance(axis, int) else tuple(axis), len(shape_of(x)))
    if gamma is not None and beta is not None and len(shape_of(gamma)) == len(shape_of(beta)) == len(axes):
        return ops.layer_norm(x, gamma, beta, axes=axes, epsilon=epsilon)
    centred = ops.subtract(x, ops.mean(x, axes, keepdims=True))
    variance = ops.mean(ops.square(centred), axes, keepdims=True)
    y = ops.multiply(centred, ops.rsqrt(ops.add(variance, epsilon)))
    y = y if gamma is None else ops.multiply(y, _along(gamma, x, axes))
    return y if beta is None else ops.add(y, _along(beta, x, axes))


def rms_normalization(x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None) -> Any:
    """``x / sqrt(mean(x**2) + epsilon) * scale``, the mean along ``axis``. Arguments as of ``layer_normalization``.

    Reference: Zhang, Sennrich, Root Mean Square Layer Normalization, 2019, arXiv 1910.07467.

    Example:
        >>> rms_normalization(np.array([[3.0, -3.0]]), epsilon=0.0)
        array([[ 1., -1.]])
    """
    axes = normalize_axes(axis if isinstance(axis, int) else tuple(axis), len(shape_of(x)))
    square = ops.mean(ops.square(x), axes, keepdims=True)
    y = ops.multiply(x, ops.rsqrt(ops.add(square, EPSILON if epsilon is None else epsilon)))
    return y if scale is None else ops.multiply(y, _along(scale, x, axes))


# ---- cross-entropies ---------------------------------------------------------------------


def _probabilities(p: Any) -> Any:
    """Probabilities away from 0 and 1, so that they have logarithms."""
    return ops.clip(p, EPSILON, 1.0 - EPSILON)


def _log_shares(output: Any, axis: int) -> Any:
    """The logarithms of probabilities that are made to add up to 1."""
    return ops.log(_probabilities(ops.divide(output, ops.sum(output, axis, keepdims=True))))


def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Any:
    """``-target * log(output) - (1 - target) * log(1 - output)`` for each element.

    Args:
        target: Between 0 and 1.
        output: Probabilities or, if ``from_logits``, what ``sigmoid`` makes into them; of the shape of the target.
        from_logits: Which of the two.

    Engines: PyTorch keeps logarithms above -100, Keras probabilities 1e-7 away from 0 and 1, as here.

    Example:
        >>> binary_crossentropy(np.array([1.0, 0.0]), np.array([0.5, 0.5])).round(4)
        array([0.6931, 0.6931])
    """
    output = floats(output)
    target = ops.astype(target, dtype_of(output))
    if from_logits:
        return ops.sigmoid_cross_entropy(output, target)
    p = _probabilities(output)
    return ops.negative(target * ops.log(p) + (1.0 - target) * ops.log(1.0 - p))


def categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """``-sum(target * log(output))`` along ``axis``.

    Args:
        target: Probabilities of the classes.
        output: Probabilities, which are divided by their sum, or, if ``from_logits``, what ``softmax`` makes into them.
        from_logits: Which of the two.
        axis: Where the classes are.

    Raises:
        ShapeError: if the shapes differ.

    Example:
        >>> categorical_crossentropy(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]])).round(4)
        array([0.6931])
    """
    output = floats(output)
    target = ops.astype(target, dtype_of(output))
    if tuple(shape_of(target)) != tuple(shape_of(output)):
        raise ShapeError(
            "target and output differ", where="ops.categorical_crossentropy",
            expected=str(public_shape(shape_of(output))), received=str(public_shape(shape_of(target))),
        )  # fmt: skip
    if from_logits:
        return ops.softmax_cross_entropy(output, target, axis)
    return ops.negative(ops.sum(ops.multiply(target, _log_shares(output, axis)), axis))


def sparse_categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """``-log(output[target])``: ``categorical_crossentropy`` with the numbers of the classes.

    Args:
        target: Integers, of the shape of the output without ``axis``, or with 1 there.
        output: As of ``categorical_crossentropy``.
        from_logits: As of ``categorical_crossentropy``.
        axis: Where the classes are.

    Raises:
        ShapeError: if the shapes do not fit.

    Engines: A label outside raises in PyTorch and TensorFlow, and costs 0 in Keras on JAX; here NaN.

    Example:
        >>> sparse_categorical_crossentropy(np.array([1]), np.array([[0.5, 0.5]])).round(4)
        array([0.6931])
    """
    output = floats(output)
    rank = len(shape_of(output))
    axis = normalize_axis(axis, rank)
    if len(shape_of(target)) == rank and shape_of(target)[axis] == 1:
        target = ops.squeeze(target, axis)
    if is_float(dtype_of(target)):
        target = ops.astype(target, "int32")
    logs = ops.log_softmax(output, axis) if from_logits else _log_shares(output, axis)
    rest = tuple(d for a, d in enumerate(shape_of(output)) if a != axis)
    if tuple(shape_of(target)) != rest:
        raise ShapeError(
            "target and output do not fit", where="ops.sparse_categorical_crossentropy",
            expected=str(public_shape(rest)), received=str(public_shape(shape_of(target))),
        )  # fmt: skip
    known = ops.logical_and(ops.greater_equal(target, 0), ops.less(target, ops.size(logs, (axis,), dtype_of(target))))
    picked = ops.take_along_axis_(logs, ops.expand_dims(ops.where(known, target, 0), axis), axis)
    return ops.where(known, ops.negative(ops.squeeze(picked, axis)), math.nan)


# ---- attention ---------------------------------------------------------------------------------


def dot_product_attention(
    query: Any, key: Any, value: Any, bias: Any = None, mask: Any = None, scale: float | None = None,
    is_causal: bool = False, flash_attention: bool | None = None, attn_logits_soft_cap: float | None = None,
) -> Any:  # fmt: skip
    """Attention with several heads: ``softmax(query @ key^T * scale + bias) @ value`` for each.

    Args:
        query: ``(batch, queries, heads, size)``.
        key: ``(batch, keys, key_heads, size)``; each head of the keys serves ``heads / key_heads`` of the queries.
        value: As the keys.
        bias: Is added to the scores; broadcasts to ``(batch, heads, queries, keys)``.
        mask: True where a query sees a key; broadcasts likewise.
        scale: None: ``1 / sqrt(size)``.
        is_causal: Whether a query sees no later key.
        flash_attention: Left to the backend, which may run attention as one kernel.
        attn_logits_soft_cap: Scores are held below this number: ``cap * tanh(score / cap)``.

    Returns:
        As the query.

    Raises:
        ShapeError: if the shapes do not fit.

    Reference:
        Vaswani et al., Attention is all you need, 2017, arXiv 1706.03762.

    Example:
        >>> x = np.ones((1, 2, 1, 3))
        >>> dot_product_attention(x, x, x, is_causal=True)[0, :, 0]
        array([[1., 1., 1.],
               [1., 1., 1.]])
    """
    shapes: list[Any] = [shape_of(x) for x in (query, key, value)]
    heads, served = shapes[0][2:3], shapes[1][2:3]
    fits = all(len(s) == 4 for s in shapes) and shapes[1][:3] == shapes[2][:3] and shapes[0][3] == shapes[1][3]
    if not fits or heads[0] % served[0]:
        raise ShapeError(
            "the heads do not fit", where="ops.dot_product_attention", expected="(batch, time, heads, size) each, with "
            "heads of the query a multiple of those of keys and values",
            received=", ".join(str(public_shape(s)) for s in shapes),
        )  # fmt: skip
    if heads[0] != served[0]:
        key, value = (ops.repeat(x, heads[0] // served[0], 2) for x in (key, value))
    q, k, v = (ops.permute_dims(x, (0, 2, 1, 3)) for x in (query, key, value))
    if bias is None and attn_logits_soft_cap is None:
        y = ops.attention(q, k, v, *(() if mask is None else (mask,)), scale=scale, causal=bool(is_causal))
        return ops.permute_dims(y, (0, 2, 1, 3))
    scores = ops.matmul(q, ops.matrix_transpose(k)) * (shapes[0][3] ** -0.5 if scale is None else scale)
    if attn_logits_soft_cap is not None:
        scores = ops.tanh(scores / attn_logits_soft_cap) * attn_logits_soft_cap
    scores = scores if bias is None else scores + bias
    if is_causal:
        seen = causal_mask(shapes[0][1], shapes[1][1], scores)
        mask = seen if mask is None else ops.logical_and(seen, mask)
    return ops.permute_dims(ops.matmul(attention_weights(scores, mask), v), (0, 2, 1, 3))


# ---- decoding --------------------------------------------------------------------------------------


def ctc_decode(
    inputs: Any, sequence_lengths: Any, strategy: str = "greedy", beam_width: int = 100, top_paths: int = 1,
    merge_repeated: bool = True, mask_index: int | None = 0,
) -> tuple[Any, Any]:  # fmt: skip
    """The labels that frames spell, by the most likely class of each: what ``ctc_loss`` trains.

    Args:
        inputs: Scores of the classes, ``(batch, frames, classes)``.
        sequence_lengths: How many frames of each sample count, ``(batch,)``.
        strategy: "greedy"; the search by beams is not offered.
        beam_width: Of a search by beams.
        top_paths: 1.
        merge_repeated: Whether equal neighbours are one label.
        mask_index: The class that is the blank; None: the last.

    Returns:
        The labels, ``(1, batch, frames)`` in int32 with -1 behind the last, and minus the sum of the scores that were
        taken, ``(batch, 1)``.

    Raises:
        UnilayersError: for another strategy.

    Example:
        >>> frames = np.array([[[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 2.0]]])
        >>> ctc_decode(frames, np.array([4]))[0].tolist()
        [[[1, 2, -1, -1]]]
    """
    if strategy != "greedy" or top_paths != 1:
        raise UnilayersError(
            "only the greedy strategy is offered", where="ops.ctc_decode", expected="strategy='greedy', top_paths=1",
            received=f"strategy={strategy!r}, top_paths={top_paths}",
        )  # fmt: skip
    _, frames, classes = shape_of(inputs)
    blank = classes - 1 if mask_index is None else mask_index
    best = ops.argmax(inputs, -1)
    places = ops.arange(frames, like=inputs)
    inside = ops.less(places, ops.expand_dims(ops.astype(sequence_lengths, "int32"), 1))
    scores = ops.sum(ops.where(inside, ops.max(inputs, -1), 0.0), 1, keepdims=True)
    kept = ops.logical_and(inside, ops.not_equal(best, blank))
    if merge_repeated:
        before = ops.slice_axis(ops.pad(best, [(0, 0), (1, 0)], constant_values=-1), 1, 0, frames)
        kept = ops.logical_and(kept, ops.not_equal(best, before))
    # What stays moves to the front, in its order: the others are numbered behind all places.
    order = ops.argsort(ops.where(kept, places, ops.add(places, frames)), -1)
    labels = ops.take_along_axis(ops.where(kept, best, -1), order, 1)
    return ops.expand_dims(labels, 0), ops.negative(scores)
