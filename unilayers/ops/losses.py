"""Losses straight from logits: cross-entropies with the short gradient probabilities minus labels, and CTC."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError, ShapeError
from unilayers.graph import Sample
from unilayers.ops.define import broadcast_spec, composite, dtype_of, per_element, require_float, shape_of
from unilayers.spec import INTS, Spec, normalize_axis, promote, public_shape

__all__ = [
    "ctc_loss", "sigmoid_cross_entropy", "softmax_cross_entropy", "softmax_cross_entropy_", "sparse_cross_entropy",
    "sparse_cross_entropy_grad", "sparse_softmax_cross_entropy", "sparse_softmax_cross_entropy_grad",
]  # fmt: skip

# ---- labels as probabilities ----------------------------------------------------


def _infer(logits: Spec, labels: Spec, *, axis: int) -> Spec:
    require_float(logits.dtype)
    if logits.shape != labels.shape:
        raise ShapeError("logits and labels differ", expected=str(logits.shape), received=str(labels.shape))
    return logits.with_shape(d for a, d in enumerate(logits.shape) if a != axis)


def _vjp(g: Any, y: Any, logits: Any, labels: Any, *, axis: int) -> tuple[Any, Any]:
    g = ops.expand_dims(g, axis)
    total = ops.sum(labels, axis, keepdims=True)
    return (
        g * (ops.softmax_(logits, axis=axis) * total - labels),
        ops.negative(g * ops.log_softmax_(logits, axis=axis)),
    )


def _reference(logits: np.ndarray, labels: np.ndarray, axis: int) -> np.ndarray:
    return np.sum(labels * (np.logaddexp.reduce(logits, axis, keepdims=True) - logits), axis)


def _samples(rng: np.random.Generator) -> list[Sample]:
    large = np.array([[1000.0, 0.0, -1000.0]]), np.array([[0.5, 0.25, 0.25]])
    shapes = [((3, 5), 1), ((2, 4, 3), 1)]
    return [
        *(Sample((rng.normal(size=s), rng.uniform(size=s)), {"axis": a}) for s, a in shapes),
        Sample(large, {"axis": 1}, False),
    ]


@composite(infer=_infer, vjp=_vjp, cost=per_element(7), reference=_reference, samples=_samples, promotes=0)
def softmax_cross_entropy_(logits: Any, labels: Any, *, axis: int) -> Any:
    """-sum(labels * log_softmax(logits)) along an axis."""
    return ops.negative(ops.sum(labels * ops.log_softmax_(logits, axis=axis), axis))


def softmax_cross_entropy(logits: Any, labels: Any, axis: int = -1) -> Any:
    """Cross-entropy of softmax(logits) with labels that are probabilities: -sum(labels * log_softmax(logits)).

    Args:
        logits: Unnormalised scores, any shape.
        labels: Probabilities, of the same shape.
        axis: The classes; it is summed away.

    Returns:
        One loss per sample. The gradient to the logits is softmax(logits) * sum(labels) - labels.

    Example:
        >>> import numpy as np
        >>> softmax_cross_entropy(np.zeros((1, 4)), np.array([[0.0, 1.0, 0.0, 0.0]])).round(4)
        array([1.3863])
    """
    return softmax_cross_entropy_(logits, labels, axis=normalize_axis(axis, len(shape_of(logits))))


# ---- labels as class numbers ------------------------------------------------------


def _sparse_infer(logits: Spec, labels: Spec) -> Spec:
    require_float(logits.dtype)
    if labels.dtype not in INTS:
        raise DTypeError("labels must be integers", received=labels.dtype, fix="Use ops.astype(labels, 'int32')")
    if not logits.shape or labels.shape != logits.shape[:-1]:
        raise ShapeError("one label per row of logits", expected=str(logits.shape[:-1]), received=str(labels.shape))
    return logits.with_shape(labels.shape)


def _sparse_vjp(g: Any, y: Any, logits: Any, labels: Any) -> tuple[Any, None]:
    return ops.sparse_softmax_cross_entropy_grad(g, logits, labels), None


def _sparse_reference(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    losses = np.zeros(labels.shape, logits.dtype)
    for at in np.ndindex(*labels.shape):
        known = 0 <= labels[at] < logits.shape[-1]
        losses[at] = np.logaddexp.reduce(logits[at]) - logits[at][labels[at]] if known else math.nan
    return losses


def _sparse_samples(rng: np.random.Generator) -> list[Sample]:
    outside = np.array([0, -1, 3], np.int32)
    return [
        Sample((rng.normal(size=(4, 3)), np.array([2, 0, 1, 1], np.int32))),
        Sample((rng.normal(size=(2, 2, 5)) * 100, np.array([[4, 0], [1, 3]], np.int32))),
        Sample((rng.normal(size=(3, 3)), outside), {}, False),
    ]


@composite(
    infer=_sparse_infer, vjp=_sparse_vjp, cost=lambda x, labels: 6 * x.size, reference=_sparse_reference,
    samples=_sparse_samples,
)  # fmt: skip
def sparse_softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    """Cross-entropy of softmax(logits) with class numbers: ``-log_softmax(logits)[label]``, a loss per sample.

    Shapes: logits ``(..., classes)``, labels ``(...)`` of integers -> ``(...)``. A label outside ``0..classes - 1``
    gives NaN on every backend, and a finite gradient.

    Engines: A label outside raises in PyTorch and TensorFlow, and costs 0 in Keras on JAX; here NaN.
    """
    classes = shape_of(logits)[-1]
    known = ops.logical_and(labels >= 0, labels < classes)
    inside = ops.where(known, labels, 0)
    picked = ops.take_along_axis(ops.log_softmax(logits), ops.expand_dims(inside, -1), -1)
    losses = ops.negative(ops.reshape(picked, shape_of(labels)))
    return ops.where(known, losses, math.nan)


def _sparse_grad_infer(g: Spec, logits: Spec, labels: Spec) -> Spec:
    if tuple(g.shape) != tuple(_sparse_infer(logits, labels).shape):
        raise ShapeError("one gradient per label", expected=str(labels.shape), received=str(g.shape))
    return logits


def _sparse_grad_reference(g: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True))
    for at in np.ndindex(*labels.shape):
        if 0 <= labels[at] < logits.shape[-1]:
            shares[(*at, labels[at])] -= 1
    return g[..., None] * shares


def _sparse_grad_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.normal(size=s.inputs[1].shape), *s.inputs), {}, (0, 1) if s.differentiable else False)
        for s in _sparse_samples(rng)
    ]


@composite(
    infer=_sparse_grad_infer, cost=lambda g, x, labels: 7 * x.size, reference=_sparse_grad_reference,
    samples=_sparse_grad_samples,
)  # fmt: skip
def sparse_softmax_cross_entropy_grad(g: Any, logits: Any, labels: Any) -> Any:
    """The gradient of ``sparse_softmax_cross_entropy`` to the logits, from that of the losses: g times softmax minus
    one-hot labels. A label outside the classes is none of them."""
    hot = ops.one_hot(labels, shape_of(logits)[-1], dtype=dtype_of(logits))
    return ops.expand_dims(g, -1) * (ops.softmax(logits) - hot)


# ---- class numbers and probabilities ------------------------------------------------


def _probability(p: Any, labels: Any) -> tuple[Any, Any]:
    """Which labels are classes, and the label's share in its row."""
    known = ops.logical_and(labels >= 0, labels < shape_of(p)[-1])
    picked = ops.take_along_axis(p, ops.expand_dims(ops.where(known, labels, 0), -1), -1)
    return known, ops.reshape(picked, shape_of(labels)) / ops.sum(p, -1)


def _share(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label's share in its row, NaN where a label is no class."""
    known = (labels >= 0) & (labels < p.shape[-1])
    picked = np.take_along_axis(p, np.where(known, labels, 0)[..., None], -1)[..., 0]
    return np.where(known, picked / p.sum(-1), math.nan)


def _share_samples(rng: np.random.Generator) -> list[Sample]:
    edges = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.5, 0.25, 0.25]]), np.array([1, 2, 0], np.int32)
    return [
        Sample((rng.uniform(0.1, 1, (4, 3)), np.array([2, 0, 1, 1], np.int32)), {"epsilon": 1e-7}),
        Sample((rng.uniform(0.1, 1, (2, 2, 5)), np.array([[4, 0], [1, 3]], np.int32)), {"epsilon": 0.2}),
        Sample((*edges,), {"epsilon": 1e-3}, False),
        Sample((rng.uniform(0.1, 1, (3, 3)), np.array([0, -1, 3], np.int32)), {"epsilon": 1e-7}, False),
    ]


def _share_grad_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.normal(size=s.inputs[1].shape), *s.inputs), s.attrs, (0, 1) if s.differentiable else False)
        for s in _share_samples(rng)
    ]


def _share_grad_reference(g: np.ndarray, p: np.ndarray, labels: np.ndarray, epsilon: float) -> np.ndarray:
    share, found = _share(p, labels), np.zeros_like(p)
    for at in np.ndindex(*labels.shape):
        if epsilon <= share[at] <= 1 - epsilon:
            found[at] += g[at] / p[at].sum()
            found[(*at, labels[at])] -= g[at] / p[(*at, labels[at])]
    return found


@composite(
    infer=lambda p, labels, *, epsilon: _sparse_infer(p, labels), cost=lambda p, labels, *, epsilon: 2 * p.size,
    reference=lambda p, labels, epsilon: -np.log(np.clip(_share(p, labels), epsilon, 1 - epsilon)),
    samples=_share_samples,
    vjp=lambda g, y, p, labels, *, epsilon: (ops.sparse_cross_entropy_grad(g, p, labels, epsilon=epsilon), None),
)  # fmt: skip
def sparse_cross_entropy(p: Any, labels: Any, *, epsilon: float) -> Any:
    """``-log`` of the label's share of the sum of its row, a loss per sample; shares are kept ``epsilon`` away from 0
    and 1.

    Shapes: p ``(..., classes)``, labels ``(...)`` of integers -> ``(...)``. A label outside ``0..classes - 1`` gives
    NaN, and the gradient 0.
    """
    known, share = _probability(p, labels)
    losses = ops.negative(ops.log(ops.minimum(ops.maximum(share, epsilon), 1.0 - epsilon)))
    return ops.where(known, losses, math.nan)


@composite(
    infer=lambda g, p, labels, *, epsilon: _sparse_grad_infer(g, p, labels),
    cost=lambda g, p, labels, *, epsilon: 4 * p.size, reference=_share_grad_reference, samples=_share_grad_samples,
)  # fmt: skip
def sparse_cross_entropy_grad(g: Any, p: Any, labels: Any, *, epsilon: float) -> Any:
    """The gradient of ``sparse_cross_entropy`` to p, from that of the losses: 0 where a share is kept away from 0 or
    1."""
    known, share = _probability(p, labels)
    inside = ops.logical_and(known, ops.logical_and(share >= epsilon, share <= 1.0 - epsilon))
    each = ops.where(inside, g, 0.0) / ops.sum(p, -1)
    hot = ops.one_hot(labels, shape_of(p)[-1], dtype=dtype_of(p))
    return ops.expand_dims(each, -1) * (1.0 - hot / ops.expand_dims(ops.where(inside, share, 1.0), -1))


# ---- independent labels -----------------------------------------------------------


def _sigmoid_infer(logits: Spec, labels: Spec) -> Spec:
    require_float(logits.dtype)
    return broadcast_spec(logits, labels)


def _sigmoid_samples(rng: np.random.Generator) -> list[Sample]:
    far = np.array([[-80.0, 80.0, 0.0]]), np.array([[1.0, 0.0, 1.0]])
    return [
        *(Sample((rng.normal(size=(3, 4)), rng.uniform(size=s))) for s in ((3, 4), (4,))),
        Sample(far, {}, False),
    ]


@composite(
    infer=_sigmoid_infer, cost=per_element(8), samples=_sigmoid_samples, promotes=0,
    vjp=lambda g, y, x, z: (g * (ops.sigmoid(x) - z), ops.negative(g * x)),
    reference=lambda x, z: np.logaddexp(0, x) * (1 - z) + np.logaddexp(0, -x) * z,
)  # fmt: skip
def sigmoid_cross_entropy(logits: Any, labels: Any) -> Any:
    """Cross-entropy of sigmoid(logits) with labels between 0 and 1, elementwise and without overflow."""
    return ops.maximum(logits, 0.0) - logits * labels + ops.log1p(ops.exp(ops.negative(ops.abs(logits))))


# ---- connectionist temporal classification ------------------------------------------

NEVER = -1e30  # the logarithm of the probability 0: a number, so that differences of two are numbers, too


def ctc_loss(target: Any, output: Any, target_length: Any, output_length: Any = None, mask_index: int = 0) -> Any:
    """Connectionist temporal classification: -log of the probability that frames of logits spell a sequence of labels.

    A frame gives a label or a blank; equal neighbours count once, and blanks are left out. The forward algorithm, with
    logarithms, adds up the probabilities of all ways to spell the labels.

    Args:
        target: Labels, ``(batch, labels)``.
        output: Logits, ``(batch, frames, classes)``. The loss is computed in float32 at least.
        target_length: How many labels each sample has, ``(batch,)``; 0 is allowed.
        output_length: How many frames each sample has, ``(batch,)``; None: all.
        mask_index: The class that is the blank.

    Returns:
        A loss per sample.

    Raises:
        ShapeError: if the shapes do not fit.

    Engines: Labels that the frames are too few for cost infinity with a gradient of NaN in PyTorch, and about 1e5 in
    Keras on JAX and NumPy; here infinity, with a gradient of 0.

    Reference:
        Graves, Fernandez, Gomez, Schmidhuber, Connectionist Temporal Classification, 2006.

    Example:
        >>> import numpy as np
        >>> logits = np.log([[[0.25, 0.75], [0.5, 0.5]]])  # "1" is spelled by 01, 10 and 11
        >>> np.exp(-ctc_loss(np.array([[1]]), logits, np.array([1]))).round(4)  # 1/8 + 3/8 + 3/8
        array([0.875])
    """
    if len(shape_of(target)) != 2 or len(shape_of(output)) != 3:
        raise ShapeError(
            "labels and logits do not fit", where="ops.ctc_loss",
            expected="labels (batch, labels) and logits (batch, frames, classes)",
            received=f"{public_shape(shape_of(target))} and {public_shape(shape_of(output))}",
        )  # fmt: skip
    output = ops.astype(output, promote(dtype_of(output), "float32"))
    batch, _, classes = shape_of(output)
    # The states of a spelling: a blank before, between and after the labels.
    labels = ops.expand_dims(ops.astype(target, "int32"), 2)
    count = 2 * shape_of(target)[1] + 1
    pairs = ops.concat([ops.full_like(labels, mask_index), labels], 2)
    states = ops.pad(ops.reshape(pairs, (batch, count - 1)), [(0, 0), (0, 1)], constant_values=mask_index)
    # A blank may be skipped between two labels that differ.
    skips = ops.logical_and(ops.not_equal(states, mask_index), ops.not_equal(states, _shifted(states, 2, mask_index)))
    chances = ops.maximum(ops.log_softmax(output), NEVER)
    chosen = ops.matmul(chances, ops.one_hot(states, classes, axis=1, dtype=dtype_of(chances)))
    frames = ops.permute_dims(chosen, (1, 0, 2))
    places = ops.arange(count, like=frames)
    first = ops.astype(ops.where(ops.equal(places, 0), 0.0, NEVER), dtype_of(frames))

    def step(state: Any, given: tuple[Any, ...]) -> tuple[Any, None]:
        chosen, *counts = given
        ways = [state, _shifted(state, 1, NEVER), ops.where(skips, _shifted(state, 2, NEVER), NEVER)]
        new = ops.logsumexp(ops.stack(ways, 2), 2) + chosen
        return (ops.where(counts[0], new, state) if counts else new), None

    given = (frames,) if output_length is None else (frames, _inside(output_length, frames))
    last, _ = ops.scan(step, ops.broadcast_to(first, (batch, count)), given)
    # A spelling ends in the last label or in the blank after it.
    end = 2 * ops.expand_dims(ops.astype(target_length, "int32"), 1)
    ends = ops.logical_or(ops.equal(places, end), ops.equal(places, end - 1))
    total = ops.logsumexp(ops.where(ends, last, NEVER), 1)
    return ops.where(ops.less(total, NEVER / 2), math.inf, ops.negative(total))


def _shifted(x: Any, by: int, value: float) -> Any:
    """Rows moved to the right, with ``value`` at their beginning."""
    return ops.slice_axis(ops.pad(x, [(0, 0), (by, 0)], constant_values=value), 1, 0, shape_of(x)[1])


def _inside(length: Any, frames: Any) -> Any:
    """Which frames count, as (frames, batch, 1)."""
    at = ops.reshape(ops.arange(shape_of(frames)[0], like=frames), (-1, 1, 1))
    return ops.less(at, ops.reshape(ops.astype(length, "int32"), (1, -1, 1)))
