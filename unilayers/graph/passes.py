"""Graph to graph: specialise, lower, fold constants, merge equal nodes, tidy up. Dead code goes by itself.

``Graph.nodes`` holds only what outputs and updates need, so every rewrite drops what nobody reads any more.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from unilayers.graph.node import LEAVES, Const, Graph, Node, Value, leaf, make_node, tracing
from unilayers.graph.record import OPS
from unilayers.spec import Dim, Spec, evaluate

Replace = Callable[[Node, tuple[Value, ...]], Sequence[Value] | None]


def rewrite(graph: Graph, replace: Replace) -> Graph:
    """Rebuild the graph; ``replace(node, new_inputs)`` gives the outputs that take a node's place, or None to copy."""
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        inputs = tuple(new[v] for v in node.inputs)
        outputs = replace(node, inputs)
        if outputs is None:
            unchanged = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            outputs = node.outputs if unchanged else make_node(OPS[node.op], inputs, node.attrs)
        new.update(zip(node.outputs, outputs, strict=True))
    return Graph(
        inputs=tuple(new[v] for v in graph.inputs),
        state=tuple(new[v] for v in graph.state),
        outputs={k: new[v] for k, v in graph.outputs.items()},
        updates={k: new[v] for k, v in graph.updates.items()},
    )


def map_attr(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to an attribute and, inside tuples, to its parts."""
    if isinstance(value, (tuple, list)):
        return tuple(map_attr(v, change) for v in value)
    return change(value)


def specialise(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """Put numbers in the place of symbolic sizes."""

    def concrete(value: Any) -> Any:
        return evaluate(value, sizes) if isinstance(value, Dim) else value

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        attrs = {k: map_attr(v, concrete) for k, v in node.attrs.items()}
        return make_node(OPS[node.op], inputs, attrs)

    return rewrite(graph, replace)


def lower(graph: Graph, table: Container[str]) -> Graph:
    """Expand every composite op that ``table`` does not list, until only listed ops and primitives are left."""

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        op = OPS[node.op]
        if op.expand is None or node.op in table:
            return None
        return as_values(op.expand(*inputs, **node.attrs))

    with tracing():
        while any(OPS[n.op].expand is not None and n.op not in table for n in graph.nodes):
            graph = rewrite(graph, replace)
    return graph


def as_values(result: Any) -> tuple[Value, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def eliminate_common(graph: Graph) -> Graph:
    """Compute equal expressions once (common subexpression elimination)."""
    seen: dict[Any, tuple[Value, ...]] = {}

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        key = (node.op, inputs, tuple(sorted(node.attrs.items(), key=lambda item: item[0])))
        if key not in seen:
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            seen[key] = node.outputs if same else make_node(OPS[node.op], inputs, node.attrs)
        return seen[key]

    return rewrite(graph, replace)


FOLD_LIMIT = 1 << 16  # bytes: larger constants are cheaper to compute again than to keep


def fold_constants(graph: Graph, run: Callable[[Node, list[np.ndarray]], Sequence[np.ndarray]]) -> Graph:
    """Compute now what depends on constants only. ``run(node, arrays)`` evaluates one node on the target backend."""

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        size = sum(v.spec.nbytes for v in node.outputs if isinstance(v.spec.nbytes, int))
        known = all(v.node.op == "constant" for v in inputs) and all(
            isinstance(v.spec.nbytes, int) for v in node.outputs
        )
        if node.op in LEAVES or not known or size > FOLD_LIMIT or attrs_unknown(node.attrs):
            return None
        arrays = run(node, [v.node.attrs["value"].array for v in inputs])
        fixed = [np.asarray(a, dtype=v.dtype).reshape(v.shape) for a, v in zip(arrays, node.outputs, strict=True)]  # type: ignore[arg-type]
        return [make_node(OPS["constant"], (), {"value": Const(a)})[0] for a in fixed]

    return rewrite(graph, replace)


def attrs_unknown(attrs: Mapping[str, Any]) -> bool:
    """Whether an attribute still holds a symbolic size."""
    found = []

    def look(value: Any) -> Any:
        found.append(isinstance(value, Dim))
        return value

    for value in attrs.values():
        map_attr(value, look)
    return any(found)


def _is_constant(value: Value, number: float) -> bool:
    return value.node.op == "constant" and bool((value.node.attrs["value"].array == number).all())


def _neutral(node: Node, inputs: tuple[Value, ...]) -> Value | None:
    """The operand that already is the result, if there is one."""
    out = node.outputs[0].spec
    keep: list[Value] = []
    match node.op:
        case "multiply":
            keep = [a for a, b in (inputs, inputs[::-1]) if _is_constant(b, 1)]
        case "add":
            keep = [a for a, b in (inputs, inputs[::-1]) if _is_constant(b, 0)]
        case "divide" if _is_constant(inputs[1], 1):
            keep = [inputs[0]]
        case "subtract" if _is_constant(inputs[1], 0):
            keep = [inputs[0]]
        case "astype" | "reshape" | "broadcast_to" | "identity" | "stop_gradient":
            keep = [inputs[0]]
        case "permute_dims" if node.attrs["axes"] == tuple(range(len(out.shape))):
            keep = [inputs[0]]
    return next((v for v in keep if v.spec == out), None)


def simplify(graph: Graph) -> Graph:
    """Algebraic clean-up: drop steps that change nothing, join chains of reshapes and of permutations."""

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        kept = _neutral(node, inputs)
        if kept is not None:
            return (kept,)
        before = inputs[0].node if inputs else None
        if node.op == "reshape" and before is not None and before.op == "reshape":
            return make_node(OPS["reshape"], before.inputs, node.attrs)
        if node.op == "permute_dims" and before is not None and before.op == "permute_dims":
            axes = tuple(before.attrs["axes"][a] for a in node.attrs["axes"])
            if axes == tuple(range(len(axes))):
                return before.inputs
            return make_node(OPS["permute_dims"], before.inputs, {"axes": axes})
        return None

    return rewrite(graph, replace)


def optimise(
    graph: Graph, table: Container[str], run: Callable[[Node, list[np.ndarray]], Sequence[np.ndarray]]
) -> Graph:
    """All passes a backend wants before it compiles a specialised graph."""
    graph = simplify(eliminate_common(lower(graph, table)))
    return eliminate_common(simplify(fold_constants(graph, run)))


def subgraph(inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
    """The piece of a graph between ``inputs`` and ``outputs``, with fresh input leaves."""
    cut = {v: leaf("input", f"x{i}", Spec(v.shape, v.dtype)) for i, v in enumerate(inputs)}
    new: dict[Value, Value] = dict(cut)

    def copy(value: Value) -> Value:
        stack = [value]
        while stack:
            v = stack[-1]
            missing = [i for i in v.node.inputs if i not in new] if v not in new else []
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if v not in new:
                made = make_node(OPS[v.node.op], (new[i] for i in v.node.inputs), v.node.attrs)
                new.update(zip(v.node.outputs, made, strict=True))
        return new[value]

    return Graph(tuple(cut.values()), (), {f"y{i}": copy(v) for i, v in enumerate(outputs)})
