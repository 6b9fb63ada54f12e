"""Ops that only look at their operand's memory in another way: done once, when a step is linked, then free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unilayers.graph import Node

Array = Any


def _slice(xp: Any, x: Array, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Array:
    return x[tuple(map(slice, start, stop, step))]


def _flip(xp: Any, x: Array, axes: tuple[int, ...]) -> Array:
    return x[tuple(slice(None, None, -1 if a in axes else None) for a in range(x.ndim))]


VIEWS: Mapping[str, Callable[..., Array]] = {
    "reshape": lambda xp, x, shape: x.reshape(shape),  # a view only where the strides allow it
    "permute_dims": lambda xp, x, axes: x.transpose(axes),
    "broadcast_to": lambda xp, x, shape: xp.broadcast_to(x, shape),
    "slice": _slice,
    "flip": _flip,
    "identity": lambda xp, x: x,
    "stop_gradient": lambda xp, x: x,
    "barrier": lambda xp, x: x,  # what it waits for: see ``Plan.needs``
}


def view(xp: Any, node: Node, x: Array) -> Array:
    """The result of a view op on its operand's array."""
    return VIEWS[node.op](xp, x, **node.attrs)


def as_view(node: Node, x: np.ndarray) -> np.ndarray | None:
    """The result as a view of x, or None where the op must copy elements: another op, or a reshape across strides."""
    if node.op not in VIEWS:
        return None
    y = view(np, node, x)
    return y if node.op != "reshape" or x.size == 0 or np.may_share_memory(x, y) else None
