"""Branches and loops for engines whose steps run in Python: the condition is read, and Python decides."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import repeat
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from unilayers.graph.emit import own_results, straight_line
from unilayers.graph.node import Graph

Array = Any
Body = Callable[..., Sequence[Array]]


def python_loops(
    table: dict[str, Callable[..., Any]],
    put: Callable[..., Array],
    get: Callable[[Array], Any],
    device_of: Callable[[Array], Any] | None = None,
    unstack: Callable[[Array], Sequence[Array]] | None = None,
    stack: Callable[[Sequence[Array]], Array] | None = None,
    views: Container[str] | None = None,
) -> dict[str, Callable[..., Any]]:
    """The entries ``switch``, ``while_loop`` and ``scan`` for a backend's table: ``TABLE |= python_loops(TABLE, ...)``.

    A body is compiled at its first run and kept as long as its graph lives.

    Args:
        table: Functions for what is in the bodies; the entries may be added to it afterwards.
        put: ``put(array)`` moves a constant to the device; ``put(array, device)`` where ``device_of`` is given.
        get: Reads a scalar.
        device_of: The device of an array, if the engine has several.
        unstack: The slices of an array along its first axis. By default each is cut out by the table's functions.
        stack: The reverse of it, for one array or more.
        views: For an engine that overwrites arrays: ops whose result may share memory with an operand. Then every
            result has memory of its own.
    """
    unstack, stack = unstack or _unstack(table), stack or _stack(table)
    bodies: WeakKeyDictionary[Graph, dict[Any, Body]] = WeakKeyDictionary()

    def compiled(body: Graph, operands: Sequence[Array], kept: int) -> Body:
        """The body as a function of arrays beside the operands; its first ``kept`` results stay after the loop."""
        place = (device_of(operands[0]),) if device_of else ()
        known = bodies.setdefault(body, {})
        if (place, kept) not in known:
            graph = body if views is None else own_results(body, views, list(body.outputs)[:kept])
            known[place, kept] = _results(straight_line(graph, table, lambda a: put(a, *place)))
        return known[place, kept]

    def switch(index: Array, *operands: Array, branches: tuple[Graph, ...]) -> tuple[Array, ...]:
        branch = branches[min(max(int(get(index)), 0), len(branches) - 1)]
        return tuple(compiled(branch, (index,), len(branch.outputs))(*operands))

    def while_loop(*operands: Array, cond: Graph, body: Graph, carried: int, maximum: int | None) -> tuple[Array, ...]:
        test, step = compiled(cond, operands, 0), compiled(body, operands, carried)
        values: Sequence[Array] = _unchanged(table, operands[:carried])
        constants = operands[carried:]
        for _ in repeat(None) if maximum is None else repeat(None, maximum):
            if not get(*test(*values, *constants)):
                break
            values = step(*values, *constants)
        return tuple(values)

    def scan(*operands: Array, body: Graph, carried: int, scanned: int, reverse: bool) -> tuple[Array, ...]:
        step = compiled(body, operands, carried)
        xs, constants = operands[carried : carried + scanned], operands[carried + scanned :]
        rows = list(zip(*map(unstack, xs), strict=True))
        if not rows:
            place = (device_of(operands[0]),) if device_of else ()
            specs = [v.spec for v in body.outputs.values()][carried:]
            empty = [table["astype"](put(np.zeros((0, *s.shape), "float32"), *place), dtype=s.dtype) for s in specs]
            return (*_unchanged(table, operands[:carried]), *empty)
        values: Sequence[Array] = operands[:carried]
        made = []
        for row in reversed(rows) if reverse else rows:
            found = step(*values, *row, *constants)
            values = found[:carried]
            made.append(found[carried:])
        if reverse:
            made.reverse()
        return (*values, *map(stack, zip(*made, strict=True)))

    return {"switch": switch, "while_loop": while_loop, "scan": scan}


def _results(step: Callable[..., Any]) -> Body:
    """A straight line without state as a plain function."""
    return lambda *arrays: list(step([], arrays)[1].values())


def _unchanged(table: dict[str, Callable[..., Any]], operands: Iterable[Array]) -> list[Array]:
    """What a loop that never runs gives back."""
    return [table["identity"](x) for x in operands]


def _unstack(table: dict[str, Callable[..., Any]]) -> Callable[[Array], list[Array]]:
    def unstack(x: Array) -> list[Array]:
        length, *shape = x.shape
        rest, step = [0] * len(shape), (1,) * (1 + len(shape))
        rows = (table["slice"](x, start=(t, *rest), stop=(t + 1, *shape), step=step) for t in range(length))
        return [table["reshape"](row, shape=tuple(shape)) for row in rows]

    return unstack


def _stack(table: dict[str, Callable[..., Any]]) -> Callable[[Sequence[Array]], Array]:
    def stack(arrays: Sequence[Array]) -> Array:
        return table["concat"](*(table["reshape"](a, shape=(1, *a.shape)) for a in arrays), axis=0)

    return stack
