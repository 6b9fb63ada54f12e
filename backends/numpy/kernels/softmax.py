"""Softmax, its logarithm, and the cross-entropies on top of them, each in one piece."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .contract import Array, Calls, dense, first, kernel, ones, scalar
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


@kernel("softmax_grad")
def softmax_grad(do: Calls, g: Array, y: Array, x: Array, *, axis: int) -> None:
    do(do.xp.multiply, g, y, x)
    total = _total(do, x, axis)
    do(do.xp.subtract, g, total, x)
    do(do.xp.multiply, x, y, x)


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
    """Not an op: the same with the sum of the losses, in fewer calls (see ``fuse``)."""
    xp, rows, classes = do.xp, labels.size, logits.shape[-1]
    logits, e, found = dense(do, logits).reshape(rows, classes), gradient.reshape(rows, classes), _Labels(do, labels)
    hot, weight = found.hot(classes, logits.dtype, scale), found.weight(classes, logits.dtype)
    low = do.workspace((rows, classes), logits.dtype)
    _shifted(do, logits, low, 1)
    do(xp.exp, low, e)
    total = _scaled_total(do, e, 1 / scale)
    do(xp.divide, e, total.reshape(rows, 1), e)
    do(xp.subtract, e, hot, e)
    do(xp.log, total, total)
    do(_Difference(scale), total, weight, low.reshape(-1), hot.reshape(-1), loss)


def _scaled_total(do: Calls, x: Array, factor: float) -> Array:
    """The sums of rows times a number."""
    total, classes, name = do.workspace(x.shape[:1], x.dtype), x.shape[1], x.dtype.name
    do(do.xp.dot, x, do.constant(("full", classes, factor, name), lambda: do.xp.full(classes, factor, name)), total)
    return total


class _Labels:
    """Labels as rows of tables that have a row before the first class and one behind the last, for those that are no
    class."""

    def __init__(self, do: Calls, labels: Array) -> None:
        xp, self.do, self.index = do.xp, do, do.workspace((labels.size,), "int64")
        most = np.iinfo("int32").max
        known = dense(do, labels) if labels.dtype.kind == "i" else class_index(do, dense(do, labels), most)
        do(xp.add, known if known.ndim == 1 else known.reshape(-1), scalar(do, 1, "int64"), self.index)

    def hot(self, classes: int, dtype: Any, scale: float) -> Array:
        """One-hot rows times a number; of zeros for what is no class."""
        do, xp, name = self.do, self.do.xp, dtype.name
        if classes > LARGEST_TABLE:
            hit, rows = (do.workspace((self.index.size, classes), d) for d in ("bool", dtype))
            numbers = do.constant(("arange", 1, classes), lambda: xp.arange(1, classes + 1))
            do(xp.equal, self.index.reshape(-1, 1), numbers, hit)
            do(xp.multiply, hit, scalar(do, scale, dtype), rows)
            return rows
        return self._rows(
            ("one_hot", classes, name, scale), lambda: xp.pad(xp.eye(classes) * scale, ((1, 1), (0, 0))), dtype
        )

    def weight(self, classes: int, dtype: Any) -> Array:
        """1, and NaN for what is no class."""
        xp, nan = self.do.xp, float("nan")
        return self._rows(("weights", classes, dtype.name), lambda: xp.asarray([nan, *[1.0] * classes, nan]), dtype)

    def _rows(self, key: Any, make: Any, dtype: Any) -> Array:
        do = self.do
        table = do.constant(key, lambda: make().astype(dtype))
        rows = do.workspace((self.index.size, *table.shape[1:]), dtype)
        if do.xp is not np:  # whose ``pick`` leaves an index inside as it is, and nothing else
            do(do.xp.maximum, self.index, scalar(do, 0, "int64"), out=self.index)
            do(do.xp.minimum, self.index, scalar(do, len(table) - 1, "int64"), out=self.index)
        pick(do, table, self.index, 0, rows)
        return rows


class _Difference:
    """Of the sum of weighted logarithms, taken of numbers divided by the scale, and a scaled sum of products."""

    __name__ = "loss_sum"

    def __init__(self, scale: float) -> None:
        self.scale, self.log = scale, math.log(scale)

    def __call__(self, logs: Array, weight: Array, low: Array, hot: Array, loss: Array) -> None:
        loss[...] = float(logs.dot(weight)) + logs.size * self.log - float(low.dot(hot)) / self.scale


# ---- cross-entropy of probabilities -------------------------------------------------


class _Shares:
    """Of rows of probabilities: their sums, divided by a number; and the label's part of it, NaN for what is no class,
    as it is and kept inside the limits. ``same`` is 1 where these are equal."""

    def __init__(self, do: Calls, p: Array, labels: Array, epsilon: float, scale: float = 1.0) -> None:
        xp, (rows, classes), dtype = do.xp, p.shape, p.dtype
        self.labels, self.total = _Labels(do, labels), _scaled_total(do, p, 1 / scale)
        known = self.labels.weight(classes, dtype)
        at, self.share, self.inside = (do.workspace((rows,), d) for d in ("int64", dtype, dtype))
        starts = do.constant(("starts before", rows, classes), lambda: xp.arange(rows) * classes - 1)
        do(xp.add, self.labels.index, starts, at)
        if xp is not np:
            do(xp.maximum, at, scalar(do, 0, "int64"), out=at)
            do(xp.minimum, at, scalar(do, p.size - 1, "int64"), out=at)
        pick(do, p.reshape(-1), at, 0, self.share)
        do(xp.divide, self.share, self.total, self.share)
        do(xp.multiply, self.share, known, self.share)
        do(xp.maximum, self.share, scalar(do, epsilon * scale, dtype), out=self.inside)
        do(xp.minimum, self.inside, scalar(do, (1 - epsilon) * scale, dtype), out=self.inside)
        self.same = do.workspace((rows,), "bool")
        do(xp.equal, self.inside, self.share, self.same)


@kernel("sparse_cross_entropy")
def sparse_cross_entropy(do: Calls, p: Array, labels: Array, losses: Array, *, epsilon: float) -> None:
    shares, losses = _Shares(do, dense(do, p).reshape(-1, p.shape[-1]), labels, epsilon), losses.reshape(-1)
    do(do.xp.log, shares.inside, losses)
    do(do.xp.negative, losses, losses)


@kernel("sparse_cross_entropy_grad")
def sparse_cross_entropy_grad(do: Calls, g: Array, p: Array, labels: Array, y: Array, *, epsilon: float) -> None:
    xp, rows, classes, g = do.xp, labels.size, p.shape[-1], dense(do, g).reshape(-1)
    shares, y = _Shares(do, dense(do, p).reshape(rows, classes), labels, epsilon), y.reshape(rows, classes)
    each, share = do.workspace((rows, 1), p.dtype), shares.share
    flat = each.reshape(-1)
    do(xp.multiply, g, shares.same, flat)
    do(xp.divide, flat, shares.total, flat)
    do(xp.fmax, share, scalar(do, epsilon, p.dtype), share)  # a number, too, for what is no class
    do(xp.divide, flat, share, share)
    do(xp.multiply, shares.labels.hot(classes, p.dtype, 1.0), share.reshape(rows, 1), y)
    do(xp.subtract, each, y, y)


@kernel("sparse_loss_and_gradient")
def sparse_loss_and_gradient(
    do: Calls, p: Array, labels: Array, loss: Array, gradient: Array, *, epsilon: float, scale: float
) -> None:
    """Not an op: the sum of ``sparse_cross_entropy`` of a softmax p, and its gradient through the softmax times
    ``scale``: p over its sum minus one-hot labels, or nothing for what is kept away from 0 and 1 (see ``fuse``)."""
    xp, rows, classes = do.xp, labels.size, p.shape[-1]
    p, gradient = dense(do, p).reshape(rows, classes), gradient.reshape(rows, classes)
    shares = _Shares(do, p, labels, epsilon, scale)
    do(xp.divide, p, shares.total.reshape(rows, 1), gradient)
    do(xp.subtract, gradient, shares.labels.hot(classes, p.dtype, scale), gradient)
    do(xp.multiply, gradient, shares.same.reshape(rows, 1), gradient)
    do(xp.log, shares.inside, shares.inside)
    do(_Sum(scale), shares.inside, ones(do, rows, p.dtype), loss)


class _Sum:
    """The sum of logarithms of numbers times a scale, without it; negative."""

    __name__ = "loss_sum"

    def __init__(self, scale: float) -> None:
        self.log = math.log(scale)

    def __call__(self, logs: Array, ones: Array, loss: Array) -> None:
        loss[...] = logs.size * self.log - float(logs.dot(ones))
