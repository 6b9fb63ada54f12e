"""Softmax, its logarithm, and the cross-entropies on top of them, each in one piece."""

from __future__ import annotations

import numpy as np

from .contract import Array, Calls, dense, first, kernel, scalar
from .index import pick
from .reduce import reduce_over

LARGEST_TABLE = 512  # classes up to which one-hot rows are looked up in a table of all of them

# ---- softmax --------------------------------------------------------------------


def _shifted(do: Calls, x: Array, y: Array, axis: int) -> None:
    """y becomes x minus its largest element along the axis."""
    top = do.workspace(_kept(x, axis), x.dtype)
    reduce_over(do, "max", x, top, (axis,))
    do(do.xp.subtract, x, top, y)


def _total(do: Calls, x: Array, axis: int) -> Array:
    """The sums along the axis, which stays with size 1."""
    total = do.workspace(_kept(x, axis), x.dtype)
    reduce_over(do, "sum", x, total, (axis,))
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
    index = do.workspace(labels.shape, "int64")
    unsigned = index.view("uint64")
    do(do.xp.copyto, index, labels)
    do(do.xp.minimum, unsigned, scalar(do, classes, unsigned.dtype), out=unsigned)
    return index


@kernel("one_hot")
def one_hot(do: Calls, indices: Array, y: Array, *, num_classes: int, axis: int, dtype: str) -> None:
    """Rows of a table of all classes, with a row of zeros for what is no class; many classes are compared instead."""
    at = axis % y.ndim
    if num_classes > LARGEST_TABLE or at != y.ndim - 1:
        _compared(do, indices, y, num_classes, at)
        return
    look_up_one_hot(do, class_index(do, indices, num_classes), y)


def look_up_one_hot(do: Calls, index: Array, y: Array) -> None:
    """Rows for a ``class_index``."""
    xp, classes, dtype = do.xp, y.shape[-1], y.dtype.name
    table = do.constant(("one_hot", classes, dtype), lambda: xp.eye(classes + 1, classes, dtype=dtype))
    pick(do, table, index, 0, y)


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
    _Losses(do, logits, labels, y, do.workspace(logits.shape, logits.dtype)).write()


@kernel("losses_and_softmax")
def losses_and_softmax(do: Calls, logits: Array, labels: Array, losses: Array, softmax: Array) -> None:
    """Not an op: ``sparse_softmax_cross_entropy`` and the softmax that its gradient needs (see ``fuse``)."""
    steps = _Losses(do, logits, labels, losses, softmax)
    steps.normalise()
    steps.write()


@kernel("losses_and_gradient")
def losses_and_gradient(do: Calls, logits: Array, labels: Array, losses: Array, gradient: Array) -> None:
    """Not an op: the same, with ``softmax - one_hot(labels)`` (see ``fuse``)."""
    steps = _Losses(do, logits, labels, losses, gradient)
    steps.normalise()
    steps.subtract_labels()
    steps.write()


class _Losses:
    """Cross-entropies with class numbers, step by step: ``e`` becomes exp(logits), shifted, and ``total`` its sums.

    The shifted logits get a further column of NaN, which labels that are no class pick.
    """

    def __init__(self, do: Calls, logits: Array, labels: Array, losses: Array, e: Array) -> None:
        xp, classes, rows = do.xp, logits.shape[-1], losses.size
        self.do, self.losses, self.e = do, losses.reshape(-1), e.reshape(rows, classes)
        self.index = class_index(do, dense(do, labels), classes).reshape(-1)
        self.padded = do.workspace((rows, classes + 1), logits.dtype)
        do(self.padded[:, classes].fill, float("nan"))
        low = self.padded[:, :classes]
        _shifted(do, dense(do, logits).reshape(rows, classes), low, 1)
        do(xp.exp, low, self.e)
        self.total = _total(do, self.e, 1)

    def normalise(self) -> None:
        self.do(self.do.xp.divide, self.e, self.total, self.e)

    def subtract_labels(self) -> None:
        do, hot = self.do, self.do.workspace(self.e.shape, self.e.dtype)
        look_up_one_hot(do, self.index, hot)
        do(do.xp.subtract, self.e, hot, self.e)

    def write(self) -> None:
        """The logarithm of the sum, less the label's logit. Uses the index up."""
        do, (rows, width), total = self.do, self.padded.shape, self.total.reshape(-1)
        starts = do.constant(("starts", rows, width), lambda: do.xp.arange(rows) * width)
        do(do.xp.add, self.index, starts, self.index)
        pick(do, self.padded.reshape(-1), self.index, 0, self.losses)
        do(do.xp.log, total, total)
        do(do.xp.subtract, total, self.losses, self.losses)
