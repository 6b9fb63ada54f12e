"""What a step will do and where its values will be: actions in order, views, lifetimes, shared memory.

The plan knows shapes and strides, never addresses: those come when a step is linked (``emit``).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np

from unilayers.graph import Graph, Node, Value
from unilayers.graph.node import LEAVES
from unilayers.spec import Spec

from . import onednn
from .action import MOVES, Action
from .arena import Storage, lower_bound, place, together
from .direct import direct_inputs
from .fuse import fuse
from .kernels import Kernel, Rehearsal, from_function
from .order import ordered
from .state import snapshot_exchanged_state, write_state_in_place
from .table import known
from .views import as_view, view

Array = Any
Table = Mapping[str, Callable[..., Any]]
Join = Callable[["Plan", list[Action]], list[Action]]


class Plan:
    """A graph made ready to run.

    Args:
        graph: Specialised and lowered.
        table: Functions for ops without a kernel.
        direct: Whether inputs may be read where the caller has them.
        apart: Whether these are known to lie apart from the state.
        library: oneDNN, where it is to be used.
        join: What joins actions.

    Attributes:
        actions: In running order.
        storage: Where each value lives.
        base: For a value that is a view, the value whose memory it shows; ``views`` is the reverse.
        direct: Inputs that are not loaded.
        arena_bytes, lower_bound: The arena's size, and the bytes that are alive at the fullest moment.
    """

    def __init__(
        self,
        graph: Graph,
        table: Table,
        direct: bool = False,
        apart: bool = False,
        library: onednn.Library | None = None,
        join: Join | None = None,
    ) -> None:
        self.graph, self.table, self.library = graph, table, library
        self.base: dict[Value, Value] = {}
        self.views: dict[Value, list[Value]] = {}
        self.storage: dict[Value, Storage] = {}
        self.sketch: dict[Value, np.ndarray] = {}  # arrays with the shape and strides of the real ones; never touched
        for node in graph.nodes:
            self._lay_out(node)
        actions = (join or fuse)(self, _actions(self))
        self.direct = direct_inputs(self, actions) if direct else set()
        actions = [a for a in actions if a.op != "load" or a.outputs[0] not in self.direct]
        for v in self.direct:
            self.storage[v].kind = "input"
        snapshot_exchanged_state(self, actions)
        self.actions = ordered(self, actions, write_state_in_place(self, actions, apart))
        _lay_adjacent(self)
        _measure_lifetimes(self)
        _reuse_dying_operands(self)
        _rehearse(self)
        arena = self.arena_storages()
        self.lower_bound = lower_bound(arena)
        self.arena_bytes = place(arena)
        self.sketch.clear()

    # ---- values

    def _lay_out(self, node: Node) -> None:
        """Decide for each output whether it is a view or has memory of its own."""
        if node.inputs:
            seen = as_view(node, self.sketch[node.inputs[0]])
            if seen is not None:
                (value,) = node.outputs
                root = self.base[value] = self.root(node.inputs[0])
                self.views.setdefault(root, []).append(value)
                self.storage[value], self.sketch[value] = self.storage[node.inputs[0]], seen
                return
        kind = node.op if node.op in ("state", "constant") else "arena"
        for v in node.outputs:
            self.give_memory(v, kind)

    def give_memory(self, value: Value, kind: str = "arena") -> None:
        """Memory of its own for a value."""
        self.sketch[value] = np.empty(value.shape, known(value.spec.dtype))  # type: ignore[arg-type]
        self.storage[value] = Storage(kind, self.sketch[value].nbytes)

    def root(self, value: Value) -> Value:
        """The value whose memory a value shows: itself unless it is a view."""
        return self.base.get(value, value)

    def needs(self, value: Value) -> set[Value]:
        """The roots that must be there before a value is read: its own, and what barriers on its way wait for."""
        found, stack = {self.root(value)}, [value]
        while stack:
            v = stack.pop()
            if v in self.base:
                stack.append(v.node.inputs[0])
                if v.node.op == "barrier":
                    found.update(map(self.root, v.node.inputs[1:]))
                    stack.extend(v.node.inputs[1:])
        return found

    def is_whole(self, value: Value) -> bool:
        """Whether a value is all of its memory, in order, and not only a part of it or the elements rearranged."""
        seen = self.sketch[value]
        return bool(seen.flags.c_contiguous) and seen.nbytes == self.storage[value].nbytes

    def same_layout(self, a: Value, b: Value) -> bool:
        """Whether two values on the same memory have their elements at the same places."""
        x, y = self.sketch[a], self.sketch[b]
        return x.shape == y.shape and x.dtype == y.dtype and self.is_whole(a) and self.is_whole(b)

    def takes_over(self, action: Action, result: Value, storage: Storage, suspects: Container[Value] = ()) -> bool:
        """Whether an action's kernel allows that a result takes a storage over from all operands that are on it, or
        could be, as the suspects and views of them."""
        on_it = [self.storage[v] is storage or self.root(v) in suspects for v in action.inputs]
        touching = [i for i, on in enumerate(on_it) if on]
        allowed, at = action.overwritable(), action.outputs.index(result)
        return all((at, i) in allowed and self.same_layout(action.inputs[i], result) for i in touching)

    def move(self, value: Value, storage: Storage) -> None:
        """Let a value, with all views of it, live in another storage."""
        for v in (value, *self.views.get(value, ())):
            self.storage[v] = storage

    def new_value(self, spec: Spec) -> Value:
        """A value that is in no graph, with memory of its own."""
        value = Node("own", (), {}, spec).outputs[0]
        self.give_memory(value)
        return value

    def copy_of(self, value: Value) -> tuple[Value, Action]:
        """A further value with the same elements in memory of its own, and the action that fills it."""
        copied = self.new_value(value.spec)
        return copied, Action("copy", (value,), (copied,))

    def arena_storages(self) -> list[Storage]:
        """The storages that share the arena."""
        own = [s for v in self.storage for s in (self.storage[v].whole,) if s.kind == "arena" and s.start >= 0]
        work = [s for a in self.actions for s, _, _ in a.workspaces]
        return list(dict.fromkeys([*own, *work]))

    def constants(self) -> list[Value]:
        return [n.outputs[0] for n in self.graph.nodes if n.op == "constant"]

    # ---- kernels

    def kernel(self, action: Action) -> Kernel:
        """The kernel of an action, or one made from the table's function."""
        faster = onednn.kernel(self.library, action.op) if self.library else None
        return faster or action.kernel or from_function(action.op, self.table[action.op], len(action.outputs))

    def arrays(self, make: Callable[[Storage, Spec], Array], xp: Any) -> dict[Value, Array]:
        """An array for every value in use. ``make(storage, spec)`` gives those with memory of their own."""
        found: dict[Value, Array] = {}
        for value, storage in self.storage.items():
            if storage.whole.start < 0:
                continue
            if value in self.base:
                found[value] = view(xp, value.node, found[value.node.inputs[0]])
            else:
                found[value] = make(self.storage[value], value.spec)
        return found


# ---- actions --------------------------------------------------------------------


def _actions(plan: Plan) -> list[Action]:
    """What a graph asks for, unordered."""
    graph = plan.graph
    kernels = [n for n in graph.nodes if n.op not in LEAVES and n.outputs[0] not in plan.base]
    made = [Action(n.op, n.inputs, n.outputs, n.attrs) for n in kernels]
    returns = [Action("return", (v,), attrs={"name": name}) for name, v in graph.outputs.items()]
    state = {v.node.attrs["name"]: v for v in graph.state}
    stores = [Action("store", (v, state[k])) for k, v in graph.updates.items() if v is not state[k]]
    read = {plan.root(v) for a in (*made, *returns, *stores) for v in a.inputs}
    loads = [Action("load", (), (v,), {"position": i}) for i, v in enumerate(graph.inputs) if v in read]
    return [*loads, *made, *returns, *stores]


# ---- memory -----------------------------------------------------------------------


def _lay_adjacent(plan: Plan) -> None:
    """Put operands that a kernel wants side by side into one storage; what cannot be made there is copied there."""
    producer = {v: a for a in plan.actions for v in a.outputs}
    for action in list(plan.actions):
        positions, inputs = action.adjacent(), list(action.inputs)
        parts = together([plan.sketch[inputs[i]].nbytes for i in positions])
        for i, part in zip(positions, parts, strict=True):
            root = plan.root(inputs[i])
            free = root in producer and producer[root].op != "load" and plan.storage[root].kind == "arena"
            if not (free and plan.is_whole(inputs[i]) and plan.storage[root].inside is None):
                root, copying = plan.copy_of(inputs[i])
                inputs[i] = root
                plan.actions.insert(plan.actions.index(action), copying)
            plan.move(root, part)
        action.inputs = tuple(inputs)


def _measure_lifetimes(plan: Plan) -> None:
    for time, action in enumerate(plan.actions):
        for v in (*action.inputs, *action.outputs):
            plan.storage[v].touch(time)


def _reuse_dying_operands(plan: Plan) -> None:
    """Let a result take the memory of an operand that nobody reads any more, where the kernel allows that."""
    for time, action in enumerate(plan.actions):
        for at, i in action.overwritable():
            result, operand = action.outputs[at], action.inputs[i]
            mine, its = plan.storage[result], plan.storage[operand]
            if (
                mine.kind == its.kind == "arena"
                and mine.inside is None and its.inside is None
                and mine is not its and its.stop == time
                and not any(plan.storage[v] is its for v in action.outputs)
                and plan.same_layout(operand, result)
                and plan.takes_over(action, result, its)
            ):  # fmt: skip
                its.stop = mine.stop
                plan.move(result, its)


def _rehearse(plan: Plan) -> None:
    """Learn which workspaces the kernels need."""
    for time, action in enumerate(plan.actions):
        if action.op not in MOVES:
            listener = Rehearsal(plan.library)
            arrays = [plan.sketch[v] for v in (*action.inputs, *action.outputs)]
            plan.kernel(action).build(listener, *arrays, **action.attrs)
            action.workspaces = [
                (Storage("arena", w.nbytes, time, time), w.shape, w.dtype) for w in listener.workspaces
            ]
