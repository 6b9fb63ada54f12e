"""New state over old: which updates are computed right into the state's memory, and what must come before them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from unilayers.graph import Value

from .action import Action

if TYPE_CHECKING:
    from .plan import Plan


def snapshot_exchanged_state(plan: Plan, actions: list[Action]) -> None:
    """Where an update is the old value of a state that is updated too (two of them swapped, say), copy that first."""
    written = {a.inputs[1] for a in actions if a.op == "store"}
    for action in [a for a in actions if a.op == "store" and plan.root(a.inputs[0]) in written]:
        copied, copying = plan.copy_of(action.inputs[0])
        action.inputs = (copied, action.inputs[1])
        actions.append(copying)


def write_state_in_place(plan: Plan, actions: list[Action], apart: bool) -> dict[Action, set[Action]]:
    """Let updates be computed right into the state's memory where the old value is not needed any more by then.

    Their stores are taken out of ``actions``.

    Args:
        plan: Says where values live.
        actions: What a graph asks for.
        apart: Whether inputs that are read in place are known not to be the state's own memory.

    Returns:
        For each action, those that must come before it for the sake of the old values they read.
    """
    # An input that is read in place could be the state's own memory: then it counts as the old state.
    suspects = set() if apart else plan.direct
    waits = _Waits(plan, actions)
    stores = [a for a in actions if a.op == "store"]
    for store in stores:  # all of these before any choice: a maker that waits for a store must see whom it would pass
        waits.let_pass(set(waits.readers.get(store.inputs[1], ())) - {store}, store)
    for store in stores:
        value, state = store.inputs
        readers = {a for v in (state, *suspects) for a in waits.readers.get(v, ())} - {store}
        maker = waits.maker.get(plan.root(value))
        if (
            maker is not None
            and _may_overwrite(plan, maker, value, state, suspects)
            and not readers & waits.behind(maker)
        ):
            plan.move(plan.root(value), plan.storage[state])
            actions.remove(store)
            waits.let_pass(readers - {maker}, maker)
        else:
            waits.let_pass(readers - waits.behind(store), store)
    return waits.before


def _may_overwrite(plan: Plan, maker: Action, value: Value, state: Value, suspects: set[Value]) -> bool:
    """Whether the action that makes ``value`` may put it where the old ``state`` is, which it may be reading."""
    root = plan.root(value)
    if maker.op == "load" or plan.storage[root].kind != "arena" or not plan.is_whole(value):
        return False
    return plan.takes_over(maker, root, plan.storage[state], suspects)


class _Waits:
    """Which actions wait for which: for what these make, or until they have read."""

    def __init__(self, plan: Plan, actions: Iterable[Action]) -> None:
        self.maker = {v: a for a in actions for v in a.outputs}
        self.readers: dict[Value, list[Action]] = {}
        self.before: dict[Action, set[Action]] = {a: set() for a in actions}
        self._followers: dict[Action, set[Action]] = {a: set() for a in actions}
        for a in actions:
            for root in {plan.root(v) for v in a.reads}:
                self.readers.setdefault(root, []).append(a)
            for root in set().union(*map(plan.needs, a.reads)):
                if root in self.maker:
                    self._followers[self.maker[root]].add(a)

    def let_pass(self, first: set[Action], action: Action) -> None:
        """Make an action wait for others."""
        self.before[action] |= first
        for a in first:
            self._followers[a].add(action)

    def behind(self, action: Action) -> set[Action]:
        """Everything that can only run after an action."""
        found: set[Action] = set()
        stack = [action]
        while stack:
            new = self._followers[stack.pop()] - found
            found |= new
            stack.extend(new)
        return found
