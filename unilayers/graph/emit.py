"""A graph as one straight-line Python function of table calls: how every backend but the embedded one runs it.

The function has no loop over nodes and no look-up: PyTorch runs it as it stands, TensorFlow and JAX trace it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unilayers.graph.node import LEAVES, Graph, Node, Value

Step = Callable[[list[Any], Any], tuple[list[Any], dict[str, Any]]]


def straight_line(
    graph: Graph,
    table: Mapping[str, Callable[..., Any]],
    put: Callable[[np.ndarray], Any],
    overwriting: Mapping[str, Callable[..., Any]] | None = None,
) -> Step:
    """Compile a specialised, lowered graph to ``f(state, inputs) -> (new_state, outputs)``; ``f.source`` is its text.

    Args:
        graph: The graph.
        table: Op name to function.
        put: Moves a constant to the device.
        overwriting: Variants of ops that write into those state operands which their outputs replace. They are used
            where nothing reads the old state afterwards.
    """
    order, in_place = _order(graph, overwriting or {})
    namespace: dict[str, Any] = {}
    names: dict[Value, str] = {}
    last: dict[Value, Node] = {v: node for node in order for v in node.inputs}
    kept = {*graph.outputs.values(), *graph.updates.values()}
    lines = []
    for kind, leaves in (("s", graph.state), ("x", graph.inputs)):
        names.update({v: f"{kind}{i}" for i, v in enumerate(leaves)})
    if graph.state:
        lines.append(f"[{', '.join(names[v] for v in graph.state)}] = state")
    if graph.inputs:
        lines.append(f"[{', '.join(names[v] for v in graph.inputs)}] = inputs")
    for number, node in enumerate(order):
        for v in node.outputs:
            names[v] = f"v{number}" if len(node.outputs) == 1 else f"v{number}_{v.index}"
        if node.op == "constant":
            namespace[names[node.outputs[0]]] = put(node.attrs["value"].array)
            continue
        function = f"{node.op}_{number}" if node in in_place else node.op
        namespace[function] = (overwriting or {})[node.op] if node in in_place else table[node.op]
        arguments = [names[v] for v in node.inputs]
        arguments += [f"{k}={_literal(v, f'{k}_{number}', namespace)}" for k, v in node.attrs.items()]
        left = ", ".join(names[v] for v in node.outputs) + ("," if node.multiple and len(node.outputs) == 1 else "")
        lines.append(f"{left} = {function}({', '.join(arguments)})")
        dead = [v for v in dict.fromkeys(node.inputs) if last[v] is node and v not in kept and v.node.op not in LEAVES]
        dead += [v for v in node.outputs if v not in last and v not in kept]
        if dead:
            lines.append(f"del {', '.join(names[v] for v in dead)}")
    updated = [names[graph.updates.get(v.node.attrs["name"], v)] for v in graph.state]
    outputs = ", ".join(f"{k!r}: {names[v]}" for k, v in graph.outputs.items())
    lines.append(f"return [{', '.join(updated)}], {{{outputs}}}")
    source = "def step(state, inputs):\n" + "".join(f"    {line}\n" for line in lines)
    exec(compile(source, "<graph>", "exec"), namespace)
    step: Any = namespace["step"]
    step.source = source
    return step


def _literal(value: Any, name: str, namespace: dict[str, Any]) -> str:
    """An attribute as source text, or the name of a constant in the namespace."""
    text = repr(value)
    if isinstance(value, (int, str, bool, type(None), tuple)) or (isinstance(value, float) and value - value == 0):
        return text
    namespace[name] = value
    return name


def _order(graph: Graph, overwriting: Mapping[str, Any]) -> tuple[list[Node], set[Node]]:
    """The nodes in running order, and those that may overwrite their state: these, and what needs them, come last."""
    nodes = [n for n in graph.nodes if n.op not in ("input", "state")]
    candidates = {n for n in nodes if n.op in overwriting}
    late: set[Node] = set()
    for n in nodes:
        if n in candidates or any(v.node in late for v in n.inputs):
            late.add(n)
    state = {v.node.attrs["name"]: v for v in graph.state}

    def replaced(node: Node) -> set[Value]:
        return {state[name] for name, v in graph.updates.items() if v.node is node}

    returned = {*graph.outputs.values(), *graph.updates.values()}
    safe = {
        n
        for n in candidates
        if not replaced(n) & returned and not any(replaced(n) & set(other.inputs) for other in late if other is not n)
    }
    return [n for n in nodes if n not in late] + [n for n in nodes if n in late], safe
