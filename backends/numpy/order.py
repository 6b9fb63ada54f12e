"""The order of a step's actions: what data and old state demand, and within that what keeps the arena small."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from unilayers.graph import Value

from .action import Action

if TYPE_CHECKING:
    from .plan import Plan

Before = Mapping[Action, Iterable[Action]]


def ordered(plan: Plan, actions: Sequence[Action], before: Before) -> list[Action]:
    """The actions so that each comes after what it needs.

    Of those that could run, inputs are loaded first; then one comes that frees as much memory as it takes; else the
    one with the longest way still to go, so that what is needed late is computed late.

    Args:
        plan: Says where values live.
        actions: In any order; on a tie, the first goes first.
        before: For an action, others that must come before it although it does not read what they make.
    """
    queue = _Queue(plan, actions, before)
    return [queue.take() for _ in actions]


class _Queue:
    """The actions that could run next: those that free memory, and the others."""

    def __init__(self, plan: Plan, actions: Sequence[Action], before: Before) -> None:
        self.plan = plan
        self.number = {a: i for i, a in enumerate(actions)}
        self.waiting: dict[Action, int] = {}
        self.followers: dict[Action, list[Action]] = {a: [] for a in actions}
        self.readers: dict[Value, set[Action]] = {}  # who still has to read a value or a view of it
        self._connect(actions, before)
        # Values laid side by side take their memory all at once, whenever the first of them is made.
        self.reserved = {plan.root(a.inputs[i]) for a in actions for i in a.adjacent()}
        self.height = self._heights()
        self.freeing: list[tuple[int, int, Action]] = []
        self.others: list[tuple[int, int, Action]] = []
        self.taken: set[Action] = set()
        for a in actions:
            if not self.waiting[a]:
                self._offer(a)

    def _connect(self, actions: Sequence[Action], before: Before) -> None:
        maker = {v: a for a in actions for v in a.outputs}
        for a in actions:
            roots = {self.plan.root(v) for v in a.reads}
            needed = set().union(*map(self.plan.needs, a.reads))
            needs = {maker[r] for r in needed if r in maker} | set(before.get(a, ()))
            self.waiting[a] = len(needs)
            for b in needs:
                self.followers[b].append(a)
            for r in roots:
                self.readers.setdefault(r, set()).add(a)

    def _heights(self) -> dict[Action, int]:
        """How many actions stand between each one and the end, on the longest way."""
        order = [a for a, n in self.waiting.items() if not n]
        left = dict(self.waiting)
        for a in order:  # grows as it is walked
            for b in self.followers[a]:
                left[b] -= 1
                if not left[b]:
                    order.append(b)
        assert len(order) == len(left), "the actions wait for each other"
        height: dict[Action, int] = {}
        for a in reversed(order):
            height[a] = 1 + max((height[b] for b in self.followers[a]), default=0)
        return height

    def _offer(self, action: Action) -> None:
        """Queue an action that could run; again when it has come to free more."""
        growth = self._growth(action) if action.op != "load" else -sys.maxsize
        if growth <= 0:
            heapq.heappush(self.freeing, (growth, self.number[action], action))
        else:
            heapq.heappush(self.others, (-self.height[action], self.number[action], action))

    def _growth(self, action: Action) -> int:
        """By how many bytes the living values grow."""
        made = sum(self._nbytes(v) for v in action.outputs if v not in self.reserved)
        last = {r for r in map(self.plan.root, action.reads) if len(self.readers[r]) == 1 and r not in self.reserved}
        return made - sum(map(self._nbytes, last))

    def _nbytes(self, root: Value) -> int:
        storage = self.plan.storage[root]
        return storage.nbytes if storage.kind == "arena" else 0

    def take(self) -> Action:
        """The next action."""
        action = heapq.heappop(self.freeing or self.others)[-1]
        while action in self.taken:  # it was offered more than once
            action = heapq.heappop(self.freeing or self.others)[-1]
        self.taken.add(action)
        for r in {self.plan.root(v) for v in action.reads}:
            self.readers[r].remove(action)
            for last in self.readers[r] if len(self.readers[r]) == 1 else ():
                if not self.waiting[last]:
                    self._offer(last)
        for b in self.followers[action]:
            self.waiting[b] -= 1
            if not self.waiting[b]:
                self._offer(b)
        return action
