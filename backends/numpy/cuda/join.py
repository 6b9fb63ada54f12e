"""Which actions of a plan become one kernel.

Every action gets a level, above those of all it needs; two that may be one kernel stay on one level. So whatever is
joined within a level, no kernel can wait for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from unilayers.backends.numpy.action import Action
from unilayers.backends.numpy.kernels import Kernel
from unilayers.backends.numpy.kernels.contract import Array, Calls

from unilayers.graph import Value

from .index import own_kernels
from .launch import Launch
from .lowering import Domain, Read, lower, lowerable, may_be_in, own_domain, reads, sizes
from .program import REDUCTIONS, Program, Shape
from .source import source

if TYPE_CHECKING:
    from unilayers.backends.numpy.plan import Plan

MOST_ARRAYS = 128  # operands and results of one kernel


def join(plan: Plan, actions: list[Action]) -> list[Action]:
    """The actions with as many as possible joined into kernels of our own, and kernels for others."""
    for action in actions:
        action.own = own_kernels(action)
    scene = _Scene(plan, actions)
    joined: dict[Action, Action] = {}
    for domain, group in scene.groups():
        new = _joined(plan, scene, domain, group)
        if new is not None:
            joined.update(dict.fromkeys(group, new))
    return list(dict.fromkeys(joined.get(a, a) for a in actions))


class _Scene:
    """The actions, what each needs, and in which domain each is run."""

    def __init__(self, plan: Plan, actions: Sequence[Action]) -> None:
        self.plan, self.maker = plan, {v: a for a in actions for v in a.outputs}
        self.readers: dict[Value, list[Action | None]] = {}
        for a in actions:
            for v in a.reads:
                self.readers.setdefault(plan.root(v), []).append(a)
        for node in plan.graph.nodes:
            if node.op == "barrier":
                for v in node.inputs[1:]:
                    self.readers.setdefault(plan.root(v), []).append(None)
        self.needs = {a: {self.maker[r] for v in a.reads for r in plan.needs(v) if r in self.maker} for a in actions}
        self.actions = _in_order(actions, self.needs)
        self.domains = self._domains()

    # ---- domains

    def _domains(self) -> dict[Action, Domain]:
        """Of all that can be part of a kernel: that of the rows it touches, else its own shape."""
        candidates = [a for a in self.actions if lowerable(a)]
        found = {a: d for a in candidates if (d := own_domain(a)) is not None}
        neighbours: dict[Action, list[Action]] = {a: [] for a in candidates}
        for a in candidates:
            for b in self.needs[a]:
                if b in neighbours:
                    neighbours[a].append(b)
                    neighbours[b].append(a)
        queue = list(found)
        for a in queue:  # grows as it is walked
            for b in neighbours[a]:
                if b not in found and may_be_in(b, found[a]):
                    found[b] = found[a]
                    queue.append(b)
        return {a: found.get(a) or Domain(sizes(a.outputs[0])) for a in candidates}

    def one_kernel(self, maker: Action, reader: Action) -> bool:
        """Whether one action can read what the other makes within a kernel."""
        domain = self.domains.get(maker)
        if domain is None or self.domains.get(reader) != domain:
            return False
        for read in reads(reader, domain):
            root = self.plan.root(read.value)
            if root in maker.outputs:
                if not _in_place(self.plan, read, domain, _is_row(root, domain, maker)):
                    return False
            elif not self.plan.needs(read.value).isdisjoint(maker.outputs):  # a barrier waits for it
                return False
        return True

    # ---- levels

    def groups(self) -> Iterable[tuple[Domain, list[Action]]]:
        """The actions of each kernel."""
        levels = self._levels()
        parent = {a: a for a in self.domains}

        def top(a: Action) -> Action:
            while parent[a] is not a:
                parent[a] = a = parent[parent[a]]
            return a

        for a in self.domains:
            for b in self.needs[a]:
                if levels[b] == levels[a]:
                    parent[top(b)] = top(a)
        for readers in self.readers.values():  # those that read the same, to read it once
            mates = [a for a in readers if a in self.domains]
            for a, b in pairwise(sorted(mates, key=lambda a: levels[a])):
                if levels[a] == levels[b] and self.domains[a] == self.domains[b]:
                    parent[top(a)] = top(b)
        found: dict[Action, list[Action]] = {}
        for a in self.domains:
            found.setdefault(top(a), []).append(a)
        return [(self.domains[a], group) for a, group in found.items()]

    def _levels(self) -> dict[Action, int]:
        levels: dict[Action, int] = {}
        pairs = {(b, a): self.one_kernel(b, a) for a in self.actions for b in self.needs[a]}
        followers: dict[Action, list[Action]] = {}
        for a in self.actions:
            levels[a] = max((levels[b] + (not pairs[b, a]) for b in self.needs[a]), default=0)
            for b in self.needs[a]:
                followers.setdefault(b, []).append(a)
        for a in reversed(self.actions):  # as late as it is wanted: there it joins those that want it
            if a in self.domains and a in followers:
                levels[a] = min(levels[b] - (not pairs[a, b]) for b in followers[a])
        return levels


def _in_order(actions: Sequence[Action], needs: Mapping[Action, Iterable[Action]]) -> list[Action]:
    """The actions so that each comes after those it needs."""
    found: dict[Action, None] = {}
    for action in actions:
        stack = [action]
        while stack:
            missing = [b for b in needs[stack[-1]] if b not in found]
            if missing:
                stack.extend(missing)
            else:
                found[stack.pop()] = None
    return list(found)


def _is_row(value: Value, domain: Domain, maker: Action) -> bool:
    """Whether what an action makes has one element a row."""
    return value.shape != domain.shape or maker.op in REDUCTIONS


def _in_place(plan: Plan, read: Read, domain: Domain, row: bool) -> bool:
    """Whether an element is read at the place where it is made."""
    x = plan.sketch[read.value]
    stretched = np.broadcast_to(x, read.to)
    strides = [s // x.itemsize for s in stretched.strides]
    if not row:
        return not read.row and read.to == domain.shape and _same(domain.shape, strides, _dense(domain.shape))
    lead = len(domain.lead)
    along = _same(domain.lead, strides[:lead], _dense(domain.lead))
    return along and all(d == 1 or s == 0 for d, s in zip(read.to[lead:], strides[lead:], strict=True))


def _dense(shape: Shape) -> list[int]:
    return list(np.empty(shape, "int8").strides)


def _same(shape: Shape, a: Sequence[int], b: Sequence[int]) -> bool:
    return all(d == 1 or x == y for d, x, y in zip(shape, a, b, strict=True))


# ---- a kernel ---------------------------------------------------------------------------


def _joined(plan: Plan, scene: _Scene, domain: Domain, group: Sequence[Action]) -> Action | None:
    """One action in the place of a group."""
    program, inside = Program(domain.shape, domain.trailing), set(group)
    items: dict[Value, int] = {}
    slots: dict[Read, int] = {}
    for action in (a for a in scene.actions if a in inside):
        args = []
        for read in reads(action, domain):
            root = plan.root(read.value)
            if root in items:
                args.append(items[root])
                continue
            number = _number(root)
            if number is not None:
                args.append(program.constant(number, read.value.dtype))
                continue
            if read not in slots:
                slots[read] = program.operand(read.value.dtype, read.to, read.row)
            args.append(slots[read])
        items.update(zip(action.outputs, lower(program, action, args), strict=True))
    outputs = [v for v in items if not inside.issuperset(scene.readers.get(v, ()))]
    if len(slots) + len(outputs) > MOST_ARRAYS:
        return None
    program.results = [(items[v], _is_row(v, domain, scene.maker[v])) for v in outputs]
    inputs = tuple(read.value for read in slots)
    safe = [(n, i) for n, v in enumerate(outputs) for i, r in enumerate(slots) if r.to == r.value.shape == v.shape]
    return Action("chain", inputs, tuple(outputs), own=_kernel(program, safe))


def _number(root: Value) -> Any:
    """The number that a constant is, if it has one element."""
    if root.node.op != "constant" or root.spec.size != 1:
        return None
    return root.node.attrs["value"].array.item()


def _kernel(program: Program, overwrites: list[tuple[int, int]]) -> Kernel:
    def build(do: Calls, *arrays: Array) -> None:
        count = len(program.operands)
        do(Launch(do.xp, source(program, arrays[:count], arrays[count:])), *arrays)

    return Kernel(build, lambda operands, attrs: overwrites)
