"""Softmax, its logarithm, and the cross-entropies on top of them, each in one piece."""

from __future__ import annotations

import math

import numpy as np

from .contract import Array, Calls, dense, first, kernel, scalar
from .index import pick
from .reduce import reduce_over

LARGEST_TABLE = 512  # classes up to which one-hot rows are looked up in a table of all of them
MOST_IN_ONE_SUM = 1 << 16  # logits of a batch up to which one sum of products does not round much
FEW_CLASSES = 64  # up to which the largest of a row is found faster across rows

# ---- softmax --------------------------------------------------------------------


def _shifted(do: Calls, x: Array, y: Array, axis: int) -> None:
    """y becomes x minus its largest element along the axis."""
    top = do.workspace(_kept(x, axis), x.dtype)
    if x.ndim == 2 and axis == 1 and 1 < x.shape[1] <= FEW_CLASSES and len(x) >= 16:
        turned = do.workspace(x.shape[::-1], x.dtype)
        do(do.xp.copyto, turned, x.T)
        reduce_over(do, "max", turned, top.reshape(-1), (0,))
    else:
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
    steps = _Losses(do, logits, labels, do.workspace(logits.shape, logits.dtype))
    steps.write(y)


@kernel("losses_and_softmax")
def losses_and_softmax(do: Calls, logits: Array, labels: Array, losses: Array, softmax: Array) -> None:
    """Not an op: ``sparse_softmax_cross_entropy`` and the softmax that its gradient needs (see ``fuse``)."""
    steps = _Losses(do, logits, labels, softmax)
    steps.normalise()
    steps.write(losses)


@kernel("losses_and_gradient")
def losses_and_gradient(
    do: Calls, logits: Array, labels: Array, losses: Array, gradient: Array, *, scale: float
) -> None:
    """Not an op: the same, with ``scale * (softmax - one_hot(labels))`` (see ``fuse``)."""
    steps = _Losses(do, logits, labels, gradient)
    steps.normalise()
    steps.subtract_labels()
    if scale != 1.0:
        do(do.xp.multiply, steps.e, scalar(do, scale, gradient.dtype), steps.e)
    steps.write(losses)


class _Losses:
    """Cross-entropies with class numbers, step by step: ``e`` becomes exp(logits), shifted, and ``total`` its sums.

    The shifted logits get a further column of NaN, which labels that are no class pick.
    """

    def __init__(self, do: Calls, logits: Array, labels: Array, e: Array) -> None:
        xp, classes, rows = do.xp, logits.shape[-1], labels.size
        self.do, self.e = do, e.reshape(rows, classes)
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

    def write(self, losses: Array) -> None:
        """The logarithm of the sum, less the label's logit. Uses the index up."""
        do, (rows, width), total, losses = self.do, self.padded.shape, self.total.reshape(-1), losses.reshape(-1)
        starts = do.constant(("starts", rows, width), lambda: do.xp.arange(rows) * width)
        do(do.xp.add, self.index, starts, self.index)
        pick(do, self.padded.reshape(-1), self.index, 0, losses)
        do(do.xp.log, total, total)
        do(do.xp.subtract, total, losses, losses)


@kernel("loss_and_gradient")
def loss_and_gradient(do: Calls, logits: Array, labels: Array, loss: Array, gradient: Array, *, scale: float) -> None:
    """Not an op: the same with the sum of the losses, in fewer calls (see ``fuse``).

    Labels are looked up in tables that have a row before the first class and one behind the last, for labels that are
    no class: of zeros in the one-hot rows; in the weights of the losses, of NaN instead of 1.
    """
    xp, classes, rows, dtype = do.xp, logits.shape[-1], labels.size, logits.dtype
    logits, e = dense(do, logits).reshape(rows, classes), gradient.reshape(rows, classes)
    index = do.workspace((rows,), "int64")
    known = dense(do, labels) if labels.dtype.kind == "i" else class_index(do, dense(do, labels), classes)
    do(xp.add, known if known.ndim == 1 else known.reshape(-1), scalar(do, 1, index.dtype), index)
    if xp is not np:  # whose ``pick`` leaves an index inside as it is, and nothing else
        do(xp.maximum, index, scalar(do, 0, index.dtype), out=index)
        do(xp.minimum, index, scalar(do, classes + 1, index.dtype), out=index)

    def rows_of_zeros() -> Array:
        return xp.pad(xp.eye(classes, dtype=dtype) * xp.asarray(scale, dtype), ((1, 1), (0, 0)))

    hot, weight = do.workspace((rows, classes), dtype), do.workspace((rows,), dtype)
    low, total = do.workspace((rows, classes), dtype), do.workspace((rows,), dtype)
    name = dtype.name
    pick(do, do.constant(("one_hot", classes, name, scale), rows_of_zeros), index, 0, hot)
    nan = float("nan")
    weights = do.constant(("weights", classes, name), lambda: xp.asarray([nan, *[1] * classes, nan], dtype))
    pick(do, weights, index, 0, weight)
    _shifted(do, logits, low, 1)
    do(xp.exp, low, e)
    shares = do.constant(("full", classes, 1 / scale, name), lambda: xp.full(classes, 1 / scale, dtype))
    do(xp.dot, e, shares, total)
    do(xp.divide, e, total.reshape(rows, 1), e)
    do(xp.subtract, e, hot, e)
    do(xp.log, total, total)
    do(_Difference(scale), total, weight, low.reshape(-1), hot.reshape(-1), loss)


class _Difference:
    """Of the sum of weighted logarithms, taken of numbers divided by the scale, and a scaled sum of products."""

    __name__ = "loss_sum"

    def __init__(self, scale: float) -> None:
        self.scale, self.log = scale, math.log(scale)

    def __call__(self, logs: Array, weight: Array, low: Array, hot: Array, loss: Array) -> None:
        loss[...] = float(logs.dot(weight)) + logs.size * self.log - float(low.dot(hot)) / self.scale
