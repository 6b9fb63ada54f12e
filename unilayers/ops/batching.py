"""How an op runs for many calls at once: the operands of the calls are stacked along a new first axis.

An operand that is the same in all calls is not stacked. An op without a rule runs call by call: right, but slow; a
composite op without one is better expanded first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from unilayers import ops
from unilayers.graph import OPS, Op
from unilayers.ops import activation, elementwise, reduce
from unilayers.ops.define import bind, shape_of
from unilayers.spec import normalize_axis

Attrs = dict[str, Any]
Rule = Callable[[Op, Sequence[Any], Sequence[bool], Attrs, int], Any]

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Make the function the rule of the named ops: ``f(op, operands, stacked, attrs, count)`` gives the stacked result.

    At least one operand is stacked; ``stacked`` says which are, ``count`` how many calls there are.
    """

    def decorate(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return decorate


def run_stacked(op: Op, operands: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    """The results of ``count`` calls of an op, stacked along a first axis (a tuple of such where it has several).

    Args:
        op: Which op.
        operands: Arrays; those that differ from call to call have the calls as their first axis.
        stacked: For each operand whether it has that axis; one at least does.
        attrs: The attributes, as for one call.
        count: How many calls.

    Example:
        >>> import numpy as np
        >>> x = np.arange(6.0).reshape(3, 2)  # three calls with two numbers each
        >>> run_stacked(OPS["sum"], [x], [True], {"axis": (0,), "keepdims": False}, 3)
        array([1., 5., 9.])
    """
    return RULES.get(op.name, one_by_one)(op, operands, stacked, attrs, count)


def one_by_one(op: Op, operands: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    """The rule of ops that have no other: one call after the other."""
    rows = [
        bind(op, [ops.take(x, i, 0) if s else x for x, s in zip(operands, stacked, strict=True)], attrs)
        for i in range(count)
    ]
    if isinstance(rows[0], (tuple, list)):
        return tuple(ops.stack(parts) for parts in zip(*rows, strict=True))
    return ops.stack(rows)


# ---- helpers ----------------------------------------------------------------


def rank(x: Any, stacked: bool) -> int:
    """How many axes the operand has in one call."""
    return len(shape_of(x)) - stacked


def sizes(x: Any) -> tuple[Any, ...]:
    """The shape, with sizes as they come."""
    return shape_of(x)


def level(operands: Sequence[Any], stacked: Sequence[bool]) -> list[Any]:
    """The operands with axes of size 1 put in after the first, so that they broadcast as those of one call do."""
    top = max(rank(x, s) for x, s in zip(operands, stacked, strict=True))
    result = []
    for x, s in zip(operands, stacked, strict=True):
        missing = top - rank(x, s) if s else 0
        if missing:
            count, *shape = shape_of(x)
            x = ops.reshape(x, (count, *([1] * missing), *shape))
        result.append(x)
    return result


def spread(x: Any, stacked: bool, count: int) -> Any:
    """The operand stacked, if need be as often as there are calls."""
    return x if stacked else ops.broadcast_to(x, (count, *shape_of(x)))


def shift(axis: Any, ndim: int) -> Any:
    """One axis or several of a call, counted in the stacked operand."""
    if isinstance(axis, int):
        return normalize_axis(axis, ndim) + 1
    return tuple(normalize_axis(a, ndim) + 1 for a in axis)


def moved(x: Any, source: int, destination: int) -> Any:
    return x if source == destination else ops.moveaxis(x, source, destination)


# ---- families ---------------------------------------------------------------


def _ops_of(module: Any, *, axis: bool) -> list[str]:
    """Names of the ops that a module defines, those with or those without an ``axis``."""
    found = [f.op for f in vars(module).values() if isinstance(getattr(f, "op", None), Op)]
    return [op.name for op in found if ("axis" in op.defaults) is axis]


@rule(*_ops_of(elementwise, axis=False), *_ops_of(activation, axis=False), "sigmoid_cross_entropy")
def _elementwise(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    return bind(op, level(xs, stacked), attrs)


@rule(
    *_ops_of(reduce, axis=True), *_ops_of(activation, axis=True),
    "argsort", "concat", "take_along_axis", "softmax_cross_entropy",
)  # fmt: skip
def _along_axis(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    axis = attrs["axis"]
    ndim = rank(xs[0], stacked[0])
    if axis is None:
        axis = tuple(range(ndim))
    xs = [spread(x, s, count) for x, s in zip(xs, stacked, strict=True)]
    return bind(op, xs, {**attrs, "axis": shift(axis, ndim)})


@rule("sparse_softmax_cross_entropy", "cholesky", "pinv", "solve", "triangular_solve")
def _row_by_row(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    return bind(op, [spread(x, s, count) for x, s in zip(xs, stacked, strict=True)], attrs)


@rule("layer_norm")
def _layer_norm(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    if list(stacked) != [True, False, False]:
        return one_by_one(op, xs, stacked, attrs, count)
    return bind(op, xs, {**attrs, "axes": shift(attrs["axes"], rank(xs[0], True))})


@rule("conv", "max_pool", "avg_pool")
def _windows(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    """The calls join the batch axis that x has already."""
    if not stacked[0] or any(stacked[1:]):
        return one_by_one(op, xs, stacked, attrs, count)
    _, batch, *rest = shape_of(xs[0])
    y = bind(op, [ops.reshape(xs[0], (count * batch, *rest)), *xs[1:]], attrs)
    return ops.reshape(y, (count, batch, *shape_of(y)[1:]))


# ---- products ---------------------------------------------------------------


@rule("matmul")
def _matmul(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    """One product where one side is the same matrix in all calls, a stack of products otherwise."""
    a, b = xs
    if not stacked[1] and rank(b, False) == 2:
        return ops.matmul(a, b)
    if not stacked[0] and rank(a, False) == rank(b, True) == 2:
        # y = a b is y^T = b^T a^T: the columns of all calls are the rows of one matrix.
        k, columns = sizes(b)[1:]
        rows = ops.reshape(ops.matrix_transpose(b) if columns > 1 else b, (count * columns, k))
        y = ops.reshape(ops.matmul(rows, ops.matrix_transpose(a)), (count, columns, -1))
        return ops.matrix_transpose(y) if columns > 1 else ops.reshape(y, (count, -1, 1))
    return bind(op, level(xs, stacked), attrs)


# ---- shapes -----------------------------------------------------------------


@rule("reshape")
def _reshape(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    return bind(op, xs, {"shape": (count, *attrs["shape"])})


@rule("broadcast_to")
def _broadcast_to(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    shape = attrs["shape"]
    size, *own = shape_of(xs[0])
    x = ops.reshape(xs[0], (size, *([1] * (len(shape) - len(own))), *own)) if len(own) < len(shape) else xs[0]
    return bind(op, [x], {"shape": (count, *shape)})


@rule("permute_dims")
def _permute_dims(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    return bind(op, xs, {"axes": (0, *(a + 1 for a in attrs["axes"]))})


@rule("flip")
def _flip(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    return bind(op, xs, {"axes": shift(attrs["axes"], rank(xs[0], True))})


@rule("slice")
def _slice(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    first = {"start": 0, "stop": count, "step": 1}
    return bind(op, xs, {k: (first[k], *v) for k, v in attrs.items()})


@rule("pad")
def _pad(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    return bind(op, xs, {k: v if k == "value" else (0, *v) for k, v in attrs.items()})


# ---- picking by index -------------------------------------------------------


@rule("take")
def _take(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    x, indices = xs
    axis = attrs["axis"]
    if not stacked[1]:
        return bind(op, xs, {"axis": axis + 1})
    if not stacked[0]:  # one table: the calls are the first axis of the indices, and come out where ``axis`` was
        return moved(ops.take_(x, indices, axis=axis), axis, 0)
    # A table each: all tables in one, and the indices moved on to their own.
    x = moved(x, axis + 1, 1)
    size, *rest = sizes(x)[1:]
    starts = ops.arange(0, count * size, size, dtype=ops.dtype_of(indices), like=indices) if size else indices
    starts = ops.reshape(starts, (count, *([1] * rank(indices, True))))
    y = ops.take_(ops.reshape(x, (count * size, *rest)), ops.add(indices, starts), 0)
    k = rank(indices, True)
    order = [0, *(1 + k + a for a in range(axis)), *range(1, 1 + k), *range(1 + k + axis, 1 + k + len(rest))]
    return y if axis == 0 else ops.permute_dims(y, order)


@rule("one_hot")
def _one_hot(op: Op, xs: Sequence[Any], stacked: Sequence[bool], attrs: Attrs, count: int) -> Any:
    return bind(op, xs, {**attrs, "axis": shift(attrs["axis"], rank(xs[0], True) + 1)})


def covered() -> dict[str, bool]:
    """Every op by name, and whether it has a rule."""
    return {name: name in RULES for name in OPS}
