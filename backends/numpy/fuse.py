"""What is rewritten for this backend alone: graphs first, then actions.

Neighbouring actions are joined into one with a kernel of its own, before anything has memory. A rule looks at one
action and what stands around it, and says which action replaces which others. The joined ops are not in graphs: they
exist between here and their kernels only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unilayers.graph import OPS, Const, Graph, Node, Value, make_node
from unilayers.graph.passes import rewrite
from unilayers.spec import Spec

from . import onednn
from .action import Action
from .kernels import KERNELS
from .kernels.elementwise import UFUNCS
from .kernels.softmax import LARGEST_TABLE, MOST_IN_ONE_SUM

if TYPE_CHECKING:
    from .plan import Plan


Values = Sequence[Value]

# ---- graphs -------------------------------------------------------------------------


def unstretch(graph: Graph) -> Graph:
    """Compute with numbers, not with arrays that repeat one: ``f(broadcast_to(a))`` is ``broadcast_to(f(a))``, and a
    number among the operands of an array is stretched by the ufunc itself."""

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Values | None:
        out = node.outputs[0]
        if node.op not in UFUNCS or out.spec.size == 1:
            return None
        numbers = [_number(v) for v in inputs]
        if all(n is not None for n in numbers):
            found = make_node(OPS[node.op], [n for n in numbers if n is not None], node.attrs)
            return make_node(OPS["broadcast_to"], found, {"shape": out.shape})
        if any(v.shape == out.shape for v, n in zip(inputs, numbers, strict=True) if n is None):
            operands = [v if n is None else n for v, n in zip(inputs, numbers, strict=True)]
            if any(a is not b for a, b in zip(operands, inputs, strict=True)):
                return make_node(OPS[node.op], operands, node.attrs)
        return None

    return rewrite(graph, replace)


def _number(value: Value) -> Value | None:
    """The scalar that a value is everywhere, if it is known to be one."""
    while value.node.op in ("broadcast_to", "reshape") and value.spec.size != 1:
        value = value.node.inputs[0]
    if value.ndim == 0:
        return value
    if value.node.op == "constant":
        array = value.node.attrs["value"].array
        if _is_uniform(array):
            return make_node(OPS["constant"], (), {"value": Const(array.reshape(-1)[0], value.dtype)})[0]
    return make_node(OPS["reshape"], (value,), {"shape": ()})[0] if value.spec.size == 1 else None


def _is_uniform(array: np.ndarray) -> bool:
    """Whether an array is one number again and again."""
    return array.size > 0 and array.tobytes() == array.reshape(-1)[:1].tobytes() * array.size


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

    def constant(self, value: Value) -> Any:
        """The number in every element, if the value is one number known now."""
        root = self.plan.root(value)
        array = root.node.attrs["value"].array if root.node.op == "constant" else None
        return array.reshape(-1)[0] if array is not None and _is_uniform(array) else None

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
    for rule in (*SHARED, *onednn.RULES) if plan.library else (*SHARED, _pooled):
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
    if number is not None and not any(number.tobytes()):  # +0: all bits are 0
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
        scene.replace([labels, action, both], "losses_and_gradient", both.inputs, (losses, *action.outputs), scale=1.0)


def _scaled_gradient(scene: Scene, action: Action) -> None:
    """... times a number: that of a mean over the batch."""
    if action.op != "multiply":
        return
    for gradient, factor in (action.inputs, action.inputs[::-1]):
        both, number = scene.maker(gradient, "losses_and_gradient"), scene.constant(factor)
        if both is None or number is None or gradient is not both.outputs[1] or not scene.private(gradient, action):
            continue
        same = action.outputs[0].shape == gradient.shape and gradient.dtype in _SUMMED
        if both.attrs["scale"] == 1.0 and same and 1e-6 <= number.item() <= 1e6:
            outputs = (both.outputs[0], *action.outputs)
            scene.replace([action, both], "losses_and_gradient", both.inputs, outputs, scale=number.item())
        return


def _summed_losses(scene: Scene, action: Action) -> None:
    """... with the sum of the losses alone, where nobody wants each."""
    if action.op != "sum" or action.outputs[0].spec.size != 1:
        return
    losses = action.inputs[0]
    both = scene.maker(losses, "losses_and_gradient")
    if both is None or losses is not both.outputs[0] or losses.dtype not in _SUMMED:
        return
    if scene.plan.sketch[both.inputs[0]].size <= MOST_IN_ONE_SUM and scene.private(losses, action):
        outputs = (*action.outputs, both.outputs[1])
        scene.replace([action, both], "loss_and_gradient", both.inputs, outputs, **both.attrs)


def _sparse_loss_and_gradient(scene: Scene, action: Action) -> None:
    """A mean of cross-entropies of a softmax's probabilities, and its gradient through the softmax."""
    if action.op != "softmax_grad" or action.attrs["axis"] != action.inputs[0].ndim - 1:
        return
    gradient, p = action.inputs
    before, softmax = scene.maker(gradient, "sparse_cross_entropy_grad"), scene.maker(p, "softmax")
    if before is None or softmax is None or before.inputs[1] is not p or not scene.private(gradient, action):
        return
    number, given = scene.constant(before.inputs[0]), (p, before.inputs[2])
    few = scene.plan.sketch[p].size <= MOST_IN_ONE_SUM
    if number is None or not 1e-6 <= number <= 1e6 or not few or p.dtype not in _SUMMED:
        return
    for losses in [a for a in scene.readers(p) if a.inputs == given and a.op == "sparse_cross_entropy"]:
        total = next(iter(scene.readers(losses.outputs[0])), losses)
        alone = total.op == "sum" and total.inputs == losses.outputs and scene.private(losses.outputs[0], total)
        if losses.attrs != before.attrs or not alone or total.outputs[0].spec.size != 1:
            continue
        outputs = (*total.outputs, *action.outputs)
        scene.replace(
            [losses, total, before, action], "sparse_loss_and_gradient", given, outputs, **losses.attrs,
            scale=number.item(),
        )  # fmt: skip
        return


_SUMMED = ("float32", "float64")


def _relu_gate(scene: Scene, action: Action) -> None:
    """A gate that is open where a relu's result is above 0: that is read off its bits."""
    if action.op != "gate":
        return
    above = scene.maker(action.inputs[0], "greater")
    if above is None or not scene.private(action.inputs[0], action):
        return
    kept, zero = above.inputs
    number, dtype = scene.constant(zero), kept.dtype
    relu = scene.maker(kept, "relu") or scene.maker(kept, "conv_bias")
    if (
        relu is None
        or not relu.attrs.get("relu", True)
        or number is None
        or number != 0
        or dtype != action.inputs[1].dtype
    ):
        return
    if kept.shape == action.outputs[0].shape:
        scene.replace([above, action], "relu_gate", (kept, action.inputs[1]), action.outputs)


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


def _pooled(scene: Scene, action: Action) -> None:
    """Convolution, bias, relu and the largest in pools that touch: windows in the order of their places in the pools,
    so that all that follows the product runs along memory, and what no pool sees is not computed; and back."""
    if action.op != "max_pool" or action.attrs["window"] != action.attrs["strides"]:
        return
    full, (largest,), every = action.inputs[0], action.outputs, action.attrs["window"]
    conv = scene.maker(full, "conv_bias")
    if conv is None or not conv.attrs["relu"] or conv.attrs["groups"] != 1 or math.prod(every) == 1:
        return
    if any(low or high for low, high in action.attrs["padding"]) or full.dtype not in ("float32", "float64", "float16"):
        return
    attrs = {k: conv.attrs[k] for k in ("strides", "padding", "dilation")}
    if scene.private(full, action):
        scene.replace([conv, action], "conv_pool", conv.inputs, (largest,), **attrs, every=every)
        return
    back = _way_back(scene, action, conv)
    if back is None:
        return
    g, readers = back
    above = scene.plan.new_value(Spec((full.shape[0], math.prod(every), *largest.shape[1:]), "bool"))
    route = [a for a in scene.readers(full) if a is not action]
    wanted = {_BACK[a.op]: v for a in readers for v in a.outputs}
    scene.replace([conv, action], "conv_pool", conv.inputs, (above, largest), **attrs, every=every)
    inputs, outputs = (g, above, *conv.inputs[:2]), tuple(wanted.values())
    scene.replace([*route, *readers], "conv_pool_grad", inputs, outputs, **attrs, every=every, wanted=tuple(wanted))


_BACK = {"conv_kernel_grad": "kernel", "conv_input_grad": "input", "sum": "bias"}


def _way_back(scene: Scene, pool: Action, conv: Action) -> tuple[Value, list[Action]] | None:
    """The gradient of a pool's result, and who makes of it those of kernel, input and bias; None if anything else than
    the usual way back reads what lies between."""
    full = pool.inputs[0]
    others = [a for a in scene.readers(full) if a is not pool]
    if sorted(a.op for a in others) != ["max_pool_grad", "relu_gate"]:
        return None
    spread, gate = sorted(others, key=lambda a: a.op)
    through = spread.inputs[1] is full and spread.inputs[2] is pool.outputs[0] and spread.attrs == pool.attrs
    if not through or gate.inputs != (full, spread.outputs[0]) or not scene.private(spread.outputs[0], gate):
        return None
    gated = gate.outputs[0]
    readers = scene.readers(gated)
    back = {"conv_kernel_grad": (conv.inputs[0], gated), "conv_input_grad": (gated, conv.inputs[1])}
    for a in readers:
        if a.op == "sum":
            fits = a.inputs[0] is gated and a.attrs["axis"] == tuple(range(gated.ndim - 1))
        else:
            fits = a.inputs == back.get(a.op) and all(a.attrs[k] == conv.attrs[k] for k in CONVOLUTION)
        if not fits:
            return None
    several = len({a.op for a in readers}) < len(readers)
    return None if several else (spread.inputs[0], list(readers))


CONVOLUTION = ("strides", "padding", "dilation", "groups")

SHARED: list[Rule] = [
    _gate, _losses_and_softmax, _losses_and_gradient, _scaled_gradient, _summed_losses, _sparse_loss_and_gradient,
    _bias, _bias_relu, _relu_gate,
]  # fmt: skip
JOINED = (
    "gate", "losses_and_softmax", "losses_and_gradient", "loss_and_gradient", "sparse_loss_and_gradient", "conv_bias",
    "relu_gate", "conv_pool", "conv_pool_grad",
)  # fmt: skip
assert set(JOINED) <= KERNELS.keys()
