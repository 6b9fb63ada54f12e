"""What is rewritten for this backend alone: graphs first, then actions.

Neighbouring actions are joined into one with a kernel of its own, before anything has memory. A rule looks at one
action and what stands around it, and says which action replaces which others. The joined ops are not in graphs: they
exist between here and their kernels only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unilayers.graph import OPS, Graph, Node, Value, make_node
from unilayers.graph.passes import rewrite

from . import accelerated
from .action import Action
from .kernels import KERNELS
from .kernels.elementwise import UFUNCS
from .kernels.softmax import LARGEST_TABLE

if TYPE_CHECKING:
    from .plan import Plan


Values = Sequence[Value]

# ---- graphs -------------------------------------------------------------------------


def unstretch(graph: Graph) -> Graph:
    """Compute with numbers before they are stretched to arrays: ``f(broadcast_to(a))`` is ``broadcast_to(f(a))``."""

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Values | None:
        if node.op not in UFUNCS or node.outputs[0].spec.size == 1:
            return None
        numbers = [n for v in inputs if (n := _number(v)) is not None]
        if len(numbers) < len(inputs):
            return None
        return make_node(
            OPS["broadcast_to"], make_node(OPS[node.op], numbers, node.attrs), {"shape": node.outputs[0].shape}
        )

    return rewrite(graph, replace)


def _number(value: Value) -> Value | None:
    """The scalar that a value is everywhere, if it is known to be one."""
    while value.node.op in ("broadcast_to", "reshape") and value.spec.size != 1:
        value = value.node.inputs[0]
    if value.spec.size != 1:
        return None
    return value if value.ndim == 0 else make_node(OPS["reshape"], (value,), {"shape": ()})[0]


# ---- actions ------------------------------------------------------------------------


class Scene:
    """The actions, and who makes and reads what."""

    def __init__(self, plan: Plan, actions: Iterable[Action]) -> None:
        self.plan, self.actions = plan, dict.fromkeys(actions)
        self._maker = {v: a for a in self.actions for v in a.outputs}
        self._readers: dict[Value, list[Action]] = {}
        for a in self.actions:
            for v in a.inputs:
                self._readers.setdefault(plan.root(v), []).append(a)
        for node in plan.graph.nodes:
            if node.op == "barrier":  # what it waits for must not vanish in a joined action
                for v in node.inputs[1:]:
                    self._readers.setdefault(plan.root(v), []).append(Action("barrier", ()))

    def maker(self, value: Value, op: str) -> Action | None:
        """The action that makes a value, if it is of this op."""
        found = self._maker.get(value)
        return found if found is not None and found.op == op else None

    def readers(self, value: Value) -> list[Action]:
        """The actions that read a value or a view of it."""
        return self._readers.get(self.plan.root(value), [])

    def private(self, value: Value, reader: Action) -> bool:
        """Whether nobody but this action reads a value."""
        return all(a is reader for a in self.readers(value))

    def constant(self, value: Value) -> np.ndarray | None:
        """The number in every element, as an array, if the value is one number known now."""
        root = self.plan.root(value)
        array = root.node.attrs["value"].array if root.node.op == "constant" else None
        return array if array is not None and array.size == 1 else None

    def depends(self, value: Value, on: Action) -> bool:
        """Whether a value could not be computed without an action."""
        seen: set[Value] = set()
        stack = [*self.plan.needs(value)]
        while stack:
            maker = self._maker.get(stack.pop())
            if maker is on:
                return True
            new = set().union(*map(self.plan.needs, maker.inputs)) - seen if maker else set()
            seen |= new
            stack.extend(new)
        return False

    def replace(
        self, old: Sequence[Action], op: str, inputs: Sequence[Value], outputs: Sequence[Value], **attrs: Any
    ) -> None:
        """Put one action in the place of others."""
        new = Action(op, tuple(inputs), tuple(outputs), attrs)
        for a in old:
            del self.actions[a]
            for v in a.inputs:
                self.readers(v).remove(a)
        self.actions[new] = None
        self._maker.update((v, new) for v in outputs)
        for v in inputs:
            self._readers.setdefault(self.plan.root(v), []).append(new)


Rule = Callable[[Scene, Action], None]


def fuse(plan: Plan, actions: list[Action]) -> list[Action]:
    """The actions with the rules applied, without those whose results nobody reads any more."""
    scene = Scene(plan, actions)
    for rule in (*RULES, *(accelerated.RULES if plan.library else ())):
        for action in list(scene.actions):
            if action in scene.actions:
                rule(scene, action)
    return list(scene.actions)


# ---- rules ------------------------------------------------------------------------


def _gate(scene: Scene, action: Action) -> None:
    """``where(c, a, 0)``: one bitwise and."""
    if action.op != "where":
        return
    condition, a, b = action.inputs
    number = scene.constant(b)
    if number is not None and not number.view(f"u{number.itemsize}").any():  # +0: all bits are 0
        scene.replace([action], "gate", (condition, a), action.outputs)


def _losses_and_softmax(scene: Scene, action: Action) -> None:
    """Cross-entropy with the softmax of the same logits, which its gradient needs: one exponential for both."""
    if action.op != "sparse_softmax_cross_entropy":
        return
    logits, labels = action.inputs
    for other in scene.readers(logits):
        same = other.op == "softmax" and other.inputs[0] is logits and other.attrs["axis"] == logits.ndim - 1
        if same and not scene.depends(labels, other):
            scene.replace([other, action], "losses_and_softmax", action.inputs, (*action.outputs, *other.outputs))
            return


def _losses_and_gradient(scene: Scene, action: Action) -> None:
    """... and softmax minus one-hot labels, where that is all the softmax is for."""
    if action.op != "subtract":
        return
    softmax, hot = action.inputs
    both, labels = scene.maker(softmax, "losses_and_softmax"), scene.maker(hot, "one_hot")
    if both is None or labels is None or labels.inputs[0] is not both.inputs[1]:
        return
    if labels.attrs["num_classes"] > LARGEST_TABLE:
        return
    if scene.private(softmax, action) and scene.private(hot, action) and labels.attrs["axis"] in (-1, hot.ndim - 1):
        losses = both.outputs[0]
        scene.replace([labels, action, both], "losses_and_gradient", both.inputs, (losses, *action.outputs))


def _bias(scene: Scene, action: Action) -> None:
    """A bias added to a convolution's result while its blocks are in cache."""
    if action.op != "add":
        return
    for result, bias in (action.inputs, action.inputs[::-1]):
        conv = scene.maker(result, "conv")
        if conv is None or not scene.private(result, action) or action.outputs[0].shape != result.shape:
            continue
        if _is_vector(scene.plan.sketch[bias], result.shape[-1]):
            scene.replace([conv, action], "conv_bias", (*conv.inputs, bias), action.outputs, **conv.attrs, relu=False)
            return


def _is_vector(x: np.ndarray, size: Any) -> bool:
    return x.size == size == x.shape[-1] and bool(x.flags.c_contiguous) if x.ndim else False


def _bias_relu(scene: Scene, action: Action) -> None:
    if action.op != "relu":
        return
    conv = scene.maker(action.inputs[0], "conv_bias")
    if conv is not None and scene.private(action.inputs[0], action):
        scene.replace([conv, action], "conv_bias", conv.inputs, action.outputs, **{**conv.attrs, "relu": True})


RULES: list[Rule] = [_gate, _losses_and_softmax, _losses_and_gradient, _bias, _bias_relu]
assert {"gate", "losses_and_softmax", "losses_and_gradient", "conv_bias"} <= KERNELS.keys()
