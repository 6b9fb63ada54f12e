"""Graphs rewritten for aten: what one of its kernels does in one go becomes one node.

A rule looks at one node and at what stands around it, and says what takes its place. The joined ops are in no graph
that others see: they exist between here and the compiled step, and have functions in ``JOINED``, but no records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unilayers.graph import Graph, Node, Value
from unilayers.graph.emit import Made
from unilayers.graph.node import LEAVES
from unilayers.spec import Spec, is_float

from . import neural, windows

Values = Sequence[Value]


class Scene:
    """A graph that a rule rewrites: who reads what, and what has become of it.

    Attributes:
        device: Where it will run.
        new: What stands in the place of each value so far; operands come before who reads them.
        notes: Whatever the rule keeps for later nodes.
    """

    def __init__(self, graph: Graph, device: str) -> None:
        self.device = device
        self.new: dict[Value, Value] = {}
        self.notes: dict[Any, Any] = {}
        self._returned = {*graph.outputs.values(), *graph.updates.values()}
        self._readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            for v in dict.fromkeys(node.inputs):
                self._readers.setdefault(v, []).append(node)

    def readers(self, value: Value, op: str | None = None) -> list[Node]:
        """The nodes that read a value, all or those of an op."""
        return [n for n in self._readers.get(value, []) if op is None or n.op == op]

    def only(self, value: Value, *readers: Node) -> bool:
        """Whether nobody but these nodes reads a value."""
        return value not in self._returned and all(n in readers for n in self._readers.get(value, []))

    def made_by(self, value: Value, op: str, reader: Node) -> Node | None:
        """The node of this op that makes a value for this reader alone."""
        return value.node if value.node.op == op and self.only(value, reader) else None

    def now(self, values: Values) -> list[Value]:
        return [self.new[v] for v in values]


Rule = Callable[[Scene, Node], "Values | None"]


def fuse(graph: Graph, device: str) -> Graph:
    """The graph with all rules applied, in order. It runs by the functions of the table and of ``JOINED``."""
    for rule in RULES:
        graph = _applied(rule, graph, device)
    return graph


def _applied(rule: Rule, graph: Graph, device: str) -> Graph:
    scene = Scene(graph, device)
    for node in graph.nodes:
        found = None if node.op in LEAVES else rule(scene, node)
        if found is None:  # new nodes throughout, so that they stay in order
            found = node.outputs if node.op in LEAVES else _copied(node, scene.now(node.inputs))
        scene.new.update(zip(node.outputs, found, strict=True))
    outputs, updates = ({k: scene.new[v] for k, v in part.items()} for part in (graph.outputs, graph.updates))
    return Graph(graph.inputs, graph.state, outputs, updates)


def _copied(node: Node, inputs: Values) -> Values:
    specs = tuple(v.spec for v in node.outputs)
    return Node(node.op, tuple(inputs), node.attrs, specs if node.multiple else specs[0]).outputs


def _joined(op: str, inputs: Values, *specs: Spec, multiple: bool = False, **attrs: Any) -> Values:
    return Node(op, tuple(inputs), attrs, specs if multiple else specs[0]).outputs


# ---- an op and its gradient ---------------------------------------------------------

# The gradient's op; how many values the op keeps for it; whether the gradient reads the result, too.
PAIRS: dict[str, tuple[str, int, bool]] = {
    "batch_norm": ("batch_norm_grad", 1, False),
    "layer_norm": ("layer_norm_grad", 2, False),
    "attention": ("attention_grad", 1, True),
    "sparse_softmax_cross_entropy": ("sparse_softmax_cross_entropy_grad", 2, False),
    "max_pool": ("max_pool_grad", 1, False),
}
_OF = {grad: op for op, (grad, _, _) in PAIRS.items()}
_UNKNOWN = Spec((), "float32")  # of what is kept; nobody asks


def keep_for_gradient(scene: Scene, node: Node) -> Values | None:
    """The gradient of an op takes what the op has found out: statistics, places of maxima, probabilities."""
    if node.op in PAIRS:
        grad, count, with_result = PAIRS[node.op]
        matching = [n for n in scene.readers(node.inputs[0], grad) if _matches(node, n)]
        if not matching or (node.op == "max_pool" and len(node.attrs["window"]) == 1):
            return None
        specs = [v.spec for v in node.outputs] + [_UNKNOWN] * count
        found = _joined(f"{node.op}_kept", scene.now(node.inputs), *specs, multiple=True, **node.attrs)
        results, kept = found[:-count], found[-count:]
        if node.op == "batch_norm":
            kept = (found[1], *kept)  # the mean
        for n in matching:
            scene.notes[n] = (*results[:1], *kept) if with_result else kept
        return results
    if node in scene.notes:
        inputs = node.inputs[:2] if node.op == "max_pool_grad" else node.inputs
        specs = [v.spec for v in node.outputs]
        given = (*scene.now(inputs), *scene.notes[node])
        return _joined(f"{_OF[node.op]}_from", given, *specs, multiple=node.multiple, **node.attrs)
    return None


def _matches(node: Node, grad: Node) -> bool:
    """Whether one node is the gradient of the other."""
    same = all(a is b for a, b in zip(node.inputs, grad.inputs[1:], strict=False))
    return same and dict(node.attrs) == dict(grad.attrs)


def relu_after_pooling(scene: Scene, node: Node) -> Values | None:
    """``max_pool(relu(x))`` is ``relu(max_pool(x))``, with fewer elements; and so are the gradients."""
    new = scene.new
    if node.op == "relu":
        y = node.outputs[0]
        pools, grads = scene.readers(y, "max_pool"), scene.readers(y, "max_pool_grad")
        gates = [n for g in grads for n in scene.readers(g.outputs[0], "relu_grad") if n.inputs[1] is y]
        closed = len(pools) == 1 and scene.only(y, *pools, *grads, *gates)
        # Each gradient belongs to that pooling, and goes through the relu alone.
        mine = all(_matches(pools[0], g) and g.inputs[2] is pools[0].outputs[0] for g in grads) if closed else False
        if mine and len(gates) == len(grads) and all(scene.only(g.outputs[0], *gates) for g in grads):
            scene.notes[pools[0]] = pools[0]
            scene.notes.update(dict.fromkeys([*grads, *gates], pools[0]))
            return (new[node.inputs[0]],)
    elif node in scene.notes:
        pool = scene.notes[node]
        if node is pool:
            pooled = _joined("max_pool", scene.now(node.inputs), node.outputs[0].spec, **node.attrs)
            scene.notes["pooled", node] = pooled[0]
            return _joined("relu", pooled, node.outputs[0].spec)
        if node.op == "max_pool_grad":
            g = _joined("relu_grad", (new[node.inputs[0]], new[pool.outputs[0]]), node.inputs[0].spec)[0]
            given = (g, new[node.inputs[1]], scene.notes["pooled", pool])
            return _joined("max_pool_grad", given, node.outputs[0].spec, **node.attrs)
        return (new[node.inputs[0]],)
    return None


# ---- convolutions of what was padded -----------------------------------------------------


def pad_inside(scene: Scene, node: Node) -> Values | None:
    """Zeros around data are put there by the convolution, and cut off by its gradient, where aten can do so."""
    if node.op in ("conv", "conv_kernel_grad") and node.inputs[0].node.op == "pad":
        pad = node.inputs[0].node
        x, attrs = pad.inputs[0], pad.attrs
        edges = list(zip(attrs["low"], attrs["high"], strict=True))
        padding = _wider(node.attrs["padding"], edges[1:-1])
        outer = (edges[0], edges[-1]) == ((0, 0), (0, 0)) and not any(attrs["interior"]) and attrs["value"] == 0
        if outer and padding is not None:
            inputs = (scene.new[x], *scene.now(node.inputs[1:]))
            return _joined(node.op, inputs, node.outputs[0].spec, **{**node.attrs, "padding": padding})
    if node.op == "slice":
        grad, out = scene.made_by(node.inputs[0], "conv_input_grad", node), node.outputs[0].spec
        if grad is None or set(node.attrs["step"]) != {1}:
            return None
        ends = zip(node.attrs["start"], node.attrs["stop"], node.inputs[0].shape, strict=True)
        edges = [(start, size - stop) for start, stop, size in ends]
        padding = _wider(grad.attrs["padding"], edges[1:-1])
        if (edges[0], edges[-1]) == ((0, 0), (0, 0)) and padding is not None:
            attrs = {**grad.attrs, "shape": tuple(out.shape), "padding": padding}
            return _joined("conv_input_grad", scene.now(grad.inputs), out, **attrs)
    return None


def _wider(padding: Sequence[Any], edges: Sequence[Any]) -> Any:
    """The padding with edges around it; None if that is not the same on both sides, or takes something away."""
    wide = tuple((low + a, high + b) for (low, high), (a, b) in zip(padding, edges, strict=True))
    fits = all(low == high for low, high in wide) and all(n >= 0 for pair in edges for n in pair)
    return wide if fits else None


# ---- a product and what is done with it ------------------------------------------------


def add_bias(scene: Scene, node: Node) -> Values | None:
    """A vector added to a product of matrices, perhaps reshaped in between, or to a convolution."""
    if node.op != "add" or not is_float(node.outputs[0].dtype):
        return None
    for y, bias in (node.inputs, node.inputs[::-1]):
        shape, out = tuple(bias.shape), node.outputs[0].spec
        if not shape or y.shape != out.shape or shape != tuple(y.shape)[-len(shape) :]:
            continue
        conv = scene.made_by(y, "conv", node)
        if conv is not None and len(shape) == 1:
            return _joined("conv_bias", (*scene.now(conv.inputs), scene.new[bias]), out, **conv.attrs)
        cut = scene.made_by(y, "reshape", node)
        product = scene.made_by(cut.inputs[0], "matmul", cut) if cut else scene.made_by(y, "matmul", node)
        if product is None or any(v.ndim != 2 for v in product.inputs):
            continue
        made = product.outputs[0].spec
        if made.shape[1] != math.prod(shape):
            continue
        vector = _reshaped(scene.new[bias], made.shape[1:])
        affine = _joined("linear", (vector, *scene.now(product.inputs)), made)[0]
        return (_reshaped(affine, out.shape),)
    return None


def normalise(scene: Scene, node: Node) -> Values | None:
    """A convolution whose filters are normalised with given statistics."""
    if node.op != "batch_norm_inference":
        return None
    conv = scene.made_by(node.inputs[0], "conv", node)
    if conv is None or tuple(node.attrs["axes"]) != tuple(range(node.inputs[0].ndim - 1)):
        return None
    attrs = {**conv.attrs, "epsilon": node.attrs["epsilon"]}
    return _joined("conv_norm", scene.now([*conv.inputs, *node.inputs[1:]]), node.outputs[0].spec, **attrs)


def _reshaped(value: Value, shape: Sequence[Any]) -> Value:
    if tuple(value.shape) == tuple(shape):
        return value
    return _joined("reshape", (value,), Spec(tuple(shape), value.dtype), shape=tuple(shape))[0]


def add_relu(scene: Scene, node: Node) -> Values | None:
    """The relu of a product of matrices with its bias."""
    if node.op != "relu":
        return None
    y = node.inputs[0]
    cut = scene.made_by(y, "reshape", node)
    affine = scene.made_by(cut.inputs[0], "linear", cut) if cut else scene.made_by(y, "linear", node)
    if affine is None:
        return None
    made = _joined("linear_relu", scene.now(affine.inputs), affine.outputs[0].spec)[0]
    return (_reshaped(made, y.shape),)


LARGE = 1 << 21  # multiplications: below, oneDNN's calls cost more than its products save
_by_onednn: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # a name that PyTorch keeps for itself


def large_product(scene: Scene, node: Node) -> Values | None:
    """Products by oneDNN: PyTorch's other library for float32, MKL, took twice as long on an AMD EPYC."""
    if node.op not in ("matmul", "linear", "linear_relu") or scene.device != "cpu" or _by_onednn is None:
        return None
    a, b = node.inputs[-2:]
    if a.dtype != "float32" or (a.ndim, b.ndim) != (2, 2):
        return None
    sizes: Any = (*a.shape, b.shape[1])
    if math.prod(sizes) < LARGE or min(sizes) < 4:
        return None
    return _joined(f"large_{node.op}", scene.now(node.inputs), node.outputs[0].spec)


def large_matmul(a: Tensor, b: Tensor) -> Tensor:
    return _by_onednn(a, b.t(), None, "none", [], "")


def large_linear(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _by_onednn(a, b.t(), bias, "none", [], "")


def large_linear_relu(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.relu_(large_linear(bias, a, b))  # oneDNN's own relu would make 0 of NaN


# ---- masks of dropout ---------------------------------------------------------------------


def mask(scene: Scene, node: Node) -> Values | None:
    """``astype(random_bits >= least) * scale``."""
    if node.op != "multiply":
        return None
    cast, scale = node.inputs
    chosen = scene.made_by(cast, "astype", node)
    compared = scene.made_by(chosen.inputs[0], "greater_equal", chosen) if chosen else None
    bits = scene.made_by(compared.inputs[0], "random_bits", compared) if compared else None
    if bits is None or compared is None or any(v.node.op != "constant" for v in (scale, compared.inputs[1])):
        return None
    least, factor = (v.node.attrs["value"].array for v in (compared.inputs[1], scale))
    if least.size != 1 or factor.size != 1 or not is_float(node.outputs[0].dtype):
        return None
    attrs = {**bits.attrs, "least": int(least.item()), "scale": float(factor.item()), "dtype": node.outputs[0].dtype}
    return _joined("dropout_mask", scene.now(bits.inputs), node.outputs[0].spec, **attrs)


# ---- fewer calls, and less memory ------------------------------------------------------------


def sum_of_floats(scene: Scene, node: Node) -> Values | None:
    """A sum that need not be told its dtype; also one that keeps its axes, only to be reshaped to what it is without.

    No axes are all of them to PyTorch, so that a sum over none stays what it is.
    """
    made = scene.made_by(node.inputs[0], "sum", node) if node.op == "reshape" else node if node.op == "sum" else None
    if made is None or not made.attrs["axis"] or not is_float(made.inputs[0].dtype):
        return None
    attrs, out = dict(made.attrs), node.outputs[0].spec
    if made is not node:
        shape = tuple(d for a, d in enumerate(made.inputs[0].shape) if a not in attrs["axis"])
        if shape != tuple(out.shape):
            return None
        attrs["keepdims"] = False
    return _joined("float_sum", scene.now(made.inputs), out, **attrs)


def blend(scene: Scene, node: Node) -> Values | None:
    """``x * a + y * (1 - a)`` of a leaf: a moving average. (Of two infinities the joined op makes NaN.)"""
    if node.op != "add" or node.inputs[0].spec != node.inputs[1].spec:
        return None
    parts = [scene.made_by(v, "multiply", node) for v in node.inputs]
    pairs = [p.inputs for p in parts if p is not None and p.inputs[0].spec == p.outputs[0].spec]
    if len(pairs) < 2 or any(s.node.op != "constant" or s.spec.size != 1 for _, s in pairs):
        return None
    (x, a), (y, b) = pairs
    shares = [float(s.node.attrs["value"].array.item()) for s in (a, b)]
    if abs(sum(shares) - 1) > 1e-7 or x.node.op not in LEAVES or not is_float(x.dtype):
        return None
    return _joined("blend", scene.now((y, x)), node.outputs[0].spec, weight=shares[0])


def transpose(scene: Scene, node: Node) -> Values | None:
    if node.op == "permute_dims" and node.attrs["axes"] == (1, 0):
        return _joined("transpose", scene.now(node.inputs), node.outputs[0].spec)
    return None


_INTO_FIRST = {"add": True, "multiply": True, "subtract": False, "relu": False, "relu_grad": False}  # whether symmetric


def in_place(scene: Scene, node: Node) -> Values | None:
    """Results go where an operand was that nobody else reads: fresh memory costs more than arithmetic."""
    if node.op not in _INTO_FIRST:
        return None
    out = node.outputs[0].spec
    for operands in (node.inputs, node.inputs[::-1])[: 2 if _INTO_FIRST[node.op] else 1]:
        x = operands[0]
        if x.spec == out and operands.count(x) == 1 and _dead(scene, x, node):
            return _joined(f"{node.op}_into", scene.now(operands), out)
    return None


def _dead(scene: Scene, value: Value, reader: Node) -> bool:
    """Whether the memory of a value is its own, and nobody looks at it after this reader.

    Of several results of an op that is not known here, one might show another's memory.
    """
    while value.node.op in VIEWS and value.node.op != "broadcast_to" and scene.only(value, reader):
        reader, value = value.node, value.node.inputs[0]
    node = value.node
    own = node.op not in LEAVES and node.op not in VIEWS and (not node.multiple or node.op in JOINED)
    return own and scene.only(value, reader)


RULES: list[Rule] = [
    pad_inside, relu_after_pooling, keep_for_gradient, add_bias, normalise, add_relu, large_product, mask, blend,
    sum_of_floats, transpose, in_place,
]  # fmt: skip

# Ops whose result may be a view of an operand, or the operand itself (astype, where there is nothing to convert).
VIEWS = frozenset(
    {"stop_gradient", "reshape", "permute_dims", "broadcast_to", "slice", "astype", "barrier", "transpose"}
)

_gate_into = torch.ops.aten.threshold_backward.grad_input

JOINED: dict[str, Callable[..., Any]] = {
    **neural.KERNELS,  # which fit, where graphs come from ``compile``
    "batch_norm_kept": Made(neural.batch_norm_keeping),
    "batch_norm_from": Made(neural.batch_norm_gradient),
    "layer_norm_kept": neural.layer_norm_kept,
    "layer_norm_from": neural.layer_norm_from,
    "attention_kept": neural.attention_kept,
    "attention_from": neural.attention_from,
    "sparse_softmax_cross_entropy_kept": neural.losses_kept,
    "sparse_softmax_cross_entropy_from": neural.losses_from,
    "max_pool_kept": windows.max_pool_kept,
    "max_pool_from": windows.max_pool_from,
    "conv_bias": Made(windows.conv_with),
    "conv_norm": Made(windows.conv_with),
    "linear": torch.addmm,
    "linear_relu": torch._addmm_activation,
    "large_matmul": large_matmul,
    "large_linear": large_linear,
    "large_linear_relu": large_linear_relu,
    "float_sum": Made(lambda axis, keepdims: lambda x: torch.sum(x, axis, keepdims)),
    "dropout_mask": neural.dropout_mask,
    "blend": torch.lerp,
    "transpose": Tensor.t,
    "add_into": Tensor.add_,
    "multiply_into": Tensor.mul_,
    "subtract_into": Tensor.sub_,
    "relu_into": torch.relu_,
    "relu_grad_into": lambda g, y: _gate_into(g, y, 0.0, grad_input=g),
}
