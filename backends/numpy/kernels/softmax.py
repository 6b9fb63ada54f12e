"""Softmax, its logarithm, and the cross-entropies on top of them, each in one piece."""

from __future__ import annotations

import numpy as np

from .contract import Array, Calls, dense, first, kernel, ones, scalar
from .reduce import reduce_over

LARGEST_TABLE = 512  # classes up to which one-hot rows are looked up in a table of all of them

# ---- softmax --------------------------------------------------------------------


def _shifted(do: Calls, x: Array, y: Array, axis: int) -> None:
    """y becomes x minus its largest element along the axis."""
    top = do.workspace(_kept(x, axis), x.dtype)
    reduce_over(do, "maximum", x, top, (axis,))
    do(do.xp.subtract, x, top, y)


def _total(do: Calls, x: Array, axis: int) -> Array:
    """The sums along the axis, which stays with size 1."""
    total = do.workspace(_kept(x, axis), x.dtype)
    if axis == x.ndim - 1 and x.flags.c_contiguous and x.size:
        do(do.xp.dot, x.reshape(-1, x.shape[-1]), ones(do, x.shape[-1], x.dtype), total.reshape(-1))
    else:
        reduce_over(do, "add", x, total, (axis,))
    return total


def _kept(x: Array, axis: int) -> tuple[int, ...]:
    return tuple(1 if a == axis else d for a, d in enumerate(x.shape))


@kernel("softmax", overwrites=first)
def softmax(do: Calls, x: Array, y: Array, *, axis: int) -> None:
    _shifted(do, x, y, axis)
    do(do.xp.exp, y, y)
    do(do.xp.divide, y, _total(do, y, axis), y)


@kernel("log_softmax", overwrites=first)
def log_softmax(do: Calls, x: Array, y: Array, *, axis: int) -> None:
    e = do.workspace(x.shape, x.dtype)
    _shifted(do, x, y, axis)
    do(do.xp.exp, y, e)
    total = _total(do, e, axis)
    do(do.xp.log, total, total)
    do(do.xp.subtract, y, total, y)


# ---- labels ---------------------------------------------------------------------


def class_index(do: Calls, labels: Array, classes: int) -> Array:
    """Labels as indices; one that is no class becomes ``classes``: seen as unsigned numbers all of those are large."""
    if labels.dtype.itemsize < 4:
        wide = do.workspace(labels.shape, "int64")
        do(do.xp.copyto, wide, labels)
        labels = wide
    unsigned = labels.view(f"u{labels.dtype.itemsize}")
    index = do.workspace(labels.shape, "int64")
    do(do.xp.minimum, unsigned, scalar(do, classes, unsigned.dtype), out=index, casting="same_kind")
    return index


@kernel("one_hot")
def one_hot(do: Calls, indices: Array, y: Array, *, num_classes: int, axis: int, dtype: str) -> None:
    """Rows of a table of all classes, with a row of zeros for what is no class; many classes are compared instead."""
    xp, at = do.xp, axis % y.ndim
    if num_classes > LARGEST_TABLE or at != y.ndim - 1:
        _compared(do, indices, y, num_classes, at)
        return
    table = do.constant(("one_hot", num_classes, dtype), lambda: xp.eye(num_classes + 1, num_classes, dtype=dtype))
    do(xp.take, table, class_index(do, indices, num_classes), 0, y, "clip")


def _compared(do: Calls, indices: Array, y: Array, num_classes: int, at: int) -> None:
    xp, dtype = do.xp, indices.dtype if indices.dtype.itemsize >= 4 else np.dtype("int64")
    classes = do.constant(("arange", num_classes, dtype.name), lambda: xp.arange(num_classes, dtype=dtype))
    hit = do.workspace(y.shape, "bool")
    along = classes.reshape(tuple(num_classes if a == at else 1 for a in range(y.ndim)))
    do(xp.equal, indices.reshape(tuple(1 if a == at else d for a, d in enumerate(y.shape))), along, hit)
    do(xp.copyto, y, hit)


# ---- cross-entropy ----------------------------------------------------------------


@kernel("softmax_cross_entropy")
def softmax_cross_entropy(do: Calls, logits: Array, labels: Array, y: Array, *, axis: int) -> None:
    low = do.workspace(logits.shape, logits.dtype)
    log_softmax(do, logits, low, axis=axis)
    do(do.xp.multiply, low, labels, low)
    do(do.xp.negative, _total(do, low, axis).reshape(y.shape), y)


@kernel("sparse_softmax_cross_entropy")
def sparse_softmax_cross_entropy(do: Calls, logits: Array, labels: Array, y: Array) -> None:
    losses_and_softmax(do, logits, labels, y, do.workspace(logits.shape, logits.dtype), normalise=False)


@kernel("losses_and_softmax")
def losses_and_softmax(
    do: Calls, logits: Array, labels: Array, losses: Array, softmax: Array, *, normalise: bool = True
) -> None:
    """Not an op: ``sparse_softmax_cross_entropy`` and the softmax that its gradient needs (see ``fuse``).

    The shifted logits get a further column of NaN, which labels that are no class pick.
    """
    xp, (*_, classes) = do.xp, logits.shape
    rows = losses.size
    logits, softmax = dense(do, logits).reshape(rows, classes), softmax.reshape(rows, classes)
    padded = do.workspace((rows, classes + 1), logits.dtype)
    low = padded[:, :classes]
    do(padded[:, classes].fill, float("nan"))
    _shifted(do, logits, low, 1)
    do(xp.exp, low, softmax)
    total = _total(do, softmax, 1)
    if normalise:
        do(xp.divide, softmax, total, softmax)
    index = class_index(do, dense(do, labels), classes).reshape(-1)
    starts = do.constant(("starts", rows, classes + 1), lambda: xp.arange(rows) * (classes + 1))
    do(xp.add, index, starts, index)
    picked = losses.reshape(-1)
    do(xp.take, padded.reshape(-1), index, None, picked, "clip")
    log_total = total.reshape(-1)
    do(xp.log, log_total, log_total)
    do(xp.subtract, log_total, picked, picked)
