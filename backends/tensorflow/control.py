"""Branches and loops as TensorFlow's own, in a traced function and at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf

from unilayers.graph import Graph
from unilayers.graph.emit import straight_line
from unilayers.graph.node import LEAVES
from unilayers.graph.passes import every_node
from unilayers.spec import is_float

Body = Callable[..., list[Any]]

# A loop of such steps is compiled as a whole: TensorFlow's own takes some microseconds for each op of each step.
_NAMES = (
    "add subtract multiply divide maximum minimum negative abs square sqrt rsqrt reciprocal exp expm1 log log1p sin",
    "cos tanh sigmoid relu erf softmax equal not_equal less less_equal greater greater_equal logical_and logical_or",
    "logical_not where astype identity stop_gradient sum max min matmul reshape permute_dims broadcast_to concat",
    "slice pad flip",
)
COMPILED = frozenset(name for line in _NAMES for name in line.split())
LONG = 16  # steps; compiling a shorter loop takes longer than it saves


def control(table: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The entries for control flow; what is in the bodies is looked up in ``table``, where they may be added."""
    known: WeakKeyDictionary[Graph, Any] = WeakKeyDictionary()

    def compiled(body: Graph) -> Body:
        """Kept for eager runs; constants that are made while a function is traced belong to that function."""
        if not tf.executing_eagerly():
            return _function(body, straight_line(body, table, tf.constant))
        if body not in known:
            known[body] = straight_line(body, table, tf.constant)
        return _function(body, known[body])

    def switch(index: Any, *operands: Any, branches: tuple[Graph, ...]) -> tuple[Any, ...]:
        found = tf.switch_case(  # which takes the last branch for all that are not there
            tf.maximum(index, 0), [lambda branch=b: compiled(branch)(*operands) for b in branches]
        )
        return tuple(found)

    def while_loop(*operands: Any, cond: Graph, body: Graph, carried: int, maximum: int | None) -> tuple[Any, ...]:
        constants = operands[carried:]
        found = tf.while_loop(
            lambda *values: compiled(cond)(*values, *constants)[0],
            lambda *values: compiled(body)(*values, *constants),
            list(operands[:carried]),
            maximum_iterations=None if maximum is None else min(maximum, tf.int32.max),  # what it counts in
        )
        return tuple(found)

    def scan(*operands: Any, body: Graph, carried: int, scanned: int, reverse: bool) -> tuple[Any, ...]:
        def loop(*operands: Any) -> tuple[Any, ...]:
            return _loop(compiled, operands, body, carried, scanned, reverse)

        length = operands[carried].shape[0]
        if tf.executing_eagerly() or length < LONG or not (_can_be_compiled(body) and _has_xla()):
            return loop(*operands)
        return tuple(tf.function(loop, autograph=False, jit_compile=True)(*operands))

    return {"switch": switch, "while_loop": while_loop, "scan": scan, "barrier": barrier}


def _loop(
    compiled: Callable[[Graph], Body], operands: Sequence[Any], body: Graph, carried: int, scanned: int, reverse: bool
) -> tuple[Any, ...]:  # fmt: skip
    """A scan in TensorFlow's own ops."""
    xs, constants = operands[carried : carried + scanned], operands[carried + scanned :]
    length, specs = xs[0].shape[0], [v.spec for v in body.outputs.values()][carried:]
    if not length:
        return (*operands[:carried], *(tf.zeros((0, *s.shape), s.dtype) for s in specs))
    rows = [_array(length, x.dtype, x.shape[1:]).unstack(x) for x in xs]
    made = [_array(length, s.dtype, s.shape) for s in specs]

    def step(turn: Any, values: Sequence[Any], ys: Sequence[Any]) -> Any:
        at = length - 1 - turn if reverse else turn
        found = compiled(body)(*values, *(r.read(at) for r in rows), *constants)
        return turn + 1, found[:carried], [y.write(at, f) for y, f in zip(ys, found[carried:], strict=True)]

    start = (tf.constant(0), list(operands[:carried]), made)
    _, values, ys = tf.while_loop(lambda turn, *_: turn < length, step, start, maximum_iterations=length)
    return (*values, *(tf.ensure_shape(y.stack(), (length, *s.shape)) for y, s in zip(ys, specs, strict=True)))


def _can_be_compiled(body: Graph) -> bool:
    """Whether XLA does all of it as TensorFlow does, in full precision."""
    nodes = [n for n in every_node(body) if n.op not in LEAVES]
    dtypes = {v.dtype for n in nodes for v in (*n.inputs, *n.outputs)}
    return all(n.op in COMPILED for n in nodes) and all(d in ("float32", "float64") for d in dtypes if is_float(d))


@cache
def _has_xla() -> bool:
    """Not all of TensorFlow's builds come with it."""
    try:
        with tf.init_scope():
            tf.function(tf.identity, jit_compile=True)(tf.constant(0.0))
    except tf.errors.OpError:
        return False
    return True


def barrier(x: Any, *after: Any) -> Any:
    with tf.control_dependencies(after):
        return tf.identity(x)


def _array(length: int, dtype: Any, shape: Any) -> Any:
    return tf.TensorArray(dtype, length, element_shape=shape, clear_after_read=False)


def _function(body: Graph, step: Callable[..., Any]) -> Body:
    """A straight line without state as a plain function, with the shapes that TensorFlow may have lost."""
    specs = [v.spec for v in body.outputs.values()]

    def run(*arrays: Any) -> list[Any]:
        found = list(step([], arrays)[1].values())
        for y, spec in zip(found, specs, strict=True):
            y.set_shape(spec.shape)
        return found

    return run
