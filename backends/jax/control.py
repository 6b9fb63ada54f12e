"""Branches and loops as XLA's own, compiled once for each body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from unilayers.graph import OPS, Graph
from unilayers.graph.emit import straight_line

from .precision import in_64_bits

Body = Callable[..., list[Any]]


def switch(index: Any, *operands: Any, branches: tuple[Body, ...]) -> tuple[Any, ...]:
    return tuple(lax.switch(index, branches, *operands))


def while_loop(*operands: Any, cond: Body, body: Body, carried: int, maximum: int | None) -> tuple[Any, ...]:
    constants = operands[carried:]

    def goes_on(state: tuple[Any, list[Any]]) -> Any:
        turn, values = state
        (go,) = cond(*values, *constants)
        return go if maximum is None else jnp.logical_and(turn < maximum, go)

    def step(state: tuple[Any, list[Any]]) -> Any:
        turn, values = state
        return turn + 1, body(*values, *constants)

    _, values = lax.while_loop(goes_on, step, (jnp.zeros((), "int64"), list(operands[:carried])))
    return tuple(values)


def scan(*operands: Any, body: Body, carried: int, scanned: int, reverse: bool) -> tuple[Any, ...]:
    xs, constants = operands[carried : carried + scanned], operands[carried + scanned :]

    def step(values: list[Any], row: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
        found = body(*values, *row, *constants)
        return found[:carried], found[carried:]

    values, ys = lax.scan(step, list(operands[:carried]), xs, reverse=reverse)
    return (*values, *ys)


def barrier(x: Any, *after: Any) -> Any:
    return lax.optimization_barrier((x, *after))[0]


# ---- compiled once ----------------------------------------------------------------


def with_bodies(name: str, function: Callable[..., Any], table: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The table's function for an op with bodies: compiled for them at the first call, and kept as long as they live.

    JAX itself would keep graphs that are static arguments, and what is compiled for them, long after their last use.
    """
    known: WeakKeyDictionary[Graph, Any] = WeakKeyDictionary()
    bodies = OPS[name].bodies

    def call(*operands: Any, **attrs: Any) -> Any:
        graphs = [g for b in bodies for g in (attrs[b] if isinstance(attrs[b], tuple) else (attrs[b],))]
        place: Any = known
        for graph in graphs:  # a tree, of which everything below a graph goes with that graph
            place = place.setdefault(graph, (WeakKeyDictionary(), {}))
            last, place = place[1], place[0]
        key = tuple((k, v) for k, v in attrs.items() if k not in bodies)
        if key not in last:
            steps = {k: _as_bodies(v, table) if k in bodies else v for k, v in attrs.items()}
            last[key] = jax.jit(partial(function, **steps), inline=True)
        return last[key](*operands)

    return in_64_bits(call)


def _as_bodies(attr: Any, table: Mapping[str, Callable[..., Any]]) -> Any:
    """Functions in the place of graphs."""
    if isinstance(attr, tuple):
        return tuple(_as_bodies(a, table) for a in attr)
    step = straight_line(attr, table, np.asarray)  # no arrays of JAX: made inside a trace, they would belong to it
    return lambda *arrays: list(step([], arrays)[1].values())
