"""Inputs that a step can read where the caller has them, instead of copying them into the arena first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unilayers.graph import Value

from .action import MOVES, Action
from .kernels import Rehearsal

if TYPE_CHECKING:
    from .plan import Plan

# The views that a step makes anew from each input, as source text.
TEXT = {"reshape": "{x}.reshape({shape})", "permute_dims": "{x}.transpose({axes})"}
SAME = ("identity", "stop_gradient", "barrier")


def direct_inputs(plan: Plan, actions: Sequence[Action]) -> set[Value]:
    """Inputs whose readers hand them to NumPy as they are, or turned by a view that ``TEXT`` can express.

    Where a kernel works on parts of an input, these are made once, when a step is linked: then it must be loaded.
    """
    inputs = {v for a in actions if a.op == "load" for v in a.outputs}
    found = {v for v in inputs if all(w.node.op in (*TEXT, *SAME) for w in plan.views.get(v, ()))}
    for action in actions:
        if action.op not in MOVES:
            found -= _taken_apart(plan, action, found & {plan.root(v) for v in action.inputs})
    return found


def _taken_apart(plan: Plan, action: Action, inputs: set[Value]) -> set[Value]:
    """Those inputs of which an action's kernel uses parts, or which it puts into lists."""
    if not inputs:
        return set()
    watcher = _Watcher(plan.library, {v: [plan.sketch[w] for w in (v, *plan.views.get(v, ()))] for v in inputs})
    plan.kernel(action).build(watcher, *(plan.sketch[v] for v in (*action.inputs, *action.outputs)), **action.attrs)
    return watcher.taken_apart


class _Watcher(Rehearsal):
    """Looks what a kernel does with some operands: ``known`` are the arrays that stand for each."""

    def __init__(self, library: Any, known: dict[Value, list[np.ndarray]]) -> None:
        super().__init__(library)
        self.known = known
        self.taken_apart: set[Value] = set()

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        for arg in (getattr(function, "__self__", None), *args, *kwargs.values()):
            self._look(arg, inside=False)

    def _look(self, arg: Any, inside: bool) -> None:
        if isinstance(arg, (list, tuple)):
            for part in arg:
                self._look(part, inside=True)
                self._look(getattr(part, "__self__", None), inside=True)  # an array whose method is in the list
        elif isinstance(arg, np.ndarray):
            for value, arrays in self.known.items():
                if np.may_share_memory(arg, arrays[0]) and (inside or not any(arg is a for a in arrays)):
                    self.taken_apart.add(value)
