"""A graph as one straight-line Python function of table calls: how every backend but the embedded one runs it.

The function has no loop over nodes and no look-up: PyTorch runs it as it stands, TensorFlow and JAX trace it once.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from unilayers.graph.node import LEAVES, Graph, Node, Value, bodies_of, make_node
from unilayers.graph.record import OPS

Step = Callable[[list[Any], Any], tuple[list[Any], dict[str, Any]]]
# An op's variant that overwrites operands, and ``written(node)``: the number of the operand that each output goes into.
Overwriting = Mapping[str, tuple[Callable[..., Any], Callable[[Node], Sequence[int]]]]


class Made:
    """A function in a table that is made for each node: ``make(**attrs)`` gives what is called with the operands alone.

    So what follows from attributes is found once, and the function may remember what it met.
    """

    def __init__(self, make: Callable[..., Callable[..., Any]]) -> None:
        self.make = make

    def __call__(self, *operands: Any, **attrs: Any) -> Any:
        return self.make(**attrs)(*operands)


def straight_line(
    graph: Graph,
    table: Mapping[str, Callable[..., Any]],
    put: Callable[[np.ndarray], Any],
    overwriting: Overwriting | None = None,
    views: Container[str] = (),
) -> Step:
    """Compile a specialised, lowered graph to ``f(state, inputs) -> (new_state, outputs)``; ``f.source`` is its text.

    Args:
        graph: The graph.
        table: Op name to function.
        put: Moves a constant to the device.
        overwriting: Variants of ops that write their outputs into operands. They are used where these operands are the
            state that the outputs replace, and nothing reads the old state afterwards.
        views: Ops whose result may share memory with an operand. With ``overwriting``, give a graph of ``own_results``.
    """
    order, in_place = _order(graph, overwriting or {}, views)
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
            value = node.attrs["value"]
            array = put(value.array)
            own = value.array.dtype.name == value.dtype
            namespace[names[node.outputs[0]]] = array if own else table["astype"](array, dtype=value.dtype)
            continue
        found = (overwriting or {})[node.op][0] if node in in_place else table[node.op]
        made = isinstance(found, Made)
        function = f"{node.op}_{number}" if made or node in in_place else node.op
        namespace[function] = found.make(**node.attrs) if isinstance(found, Made) else found
        arguments = [names[v] for v in node.inputs]
        if not made:
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
    if _plain(value):
        return repr(value)
    namespace[name] = value
    return name


def _plain(value: Any) -> bool:
    """Whether the source text of a value is the value: not of a graph, nor of an infinity."""
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return isinstance(value, (int, str, type(None))) or (isinstance(value, float) and value - value == 0)


def own_results(graph: Graph, views: Container[str], names: Container[str] | None = None) -> Graph:
    """The graph with copies (``identity`` nodes) where a result would share memory with state, an input, a constant or
    another result: for backends that overwrite state.

    Args:
        graph: The graph.
        views: Ops whose result may share memory with an operand.
        names: The outputs that matter; None: all.
    """
    memory = _memory(graph, views)
    taken = {*graph.inputs, *graph.state, *(v for n in graph.nodes if n.op == "constant" for v in n.outputs)}

    def own(value: Value) -> Value:
        shared = memory[value] & taken
        taken.update(memory[value])
        return make_node(OPS["identity"], (value,), {})[0] if shared else value

    kept = {v.node.attrs["name"]: v for v in graph.state}
    updates = {k: v if v is kept[k] else own(v) for k, v in graph.updates.items()}
    outputs = {k: own(v) if names is None or k in names else v for k, v in graph.outputs.items()}
    return Graph(graph.inputs, graph.state, outputs, updates)


def _memory(graph: Graph, views: Container[str]) -> dict[Value, frozenset[Value]]:
    """The values in whose memory each value may lie: its own, or what it is a view of.

    A view shows its first operand. What comes out of control flow may be any of the operands, or another result, unless
    the bodies make it anew.
    """
    memory: dict[Value, frozenset[Value]] = {}
    for node in graph.nodes:
        bodies = [body for _, body in bodies_of(node)] if node.op in views and node.op in OPS else []
        operands = frozenset[Value]().union(*(memory[v] for v in (node.inputs if bodies else node.inputs[:1])))
        for v in node.outputs:
            own = node.op not in views or (bodies and _made_anew(node, v.index, bodies, views))
            memory[v] = frozenset((v,)) if own else operands.union(node.outputs if bodies else ())
    return memory


def _made_anew(node: Node, index: int, bodies: Sequence[Graph], views: Container[str]) -> bool:
    """Whether a result of branches, or one of those that a scan stacks, is none of the operands."""
    if node.op == "while_loop" or (node.op == "scan" and index < node.attrs["carried"]):
        return False  # what a loop begins with, if it never runs
    results = [(body, list(body.outputs.values())[index]) for body in bodies]
    return not any(_memory(body, views)[v] & {*body.inputs} for body, v in results)


def _order(graph: Graph, overwriting: Overwriting, views: Container[str]) -> tuple[list[Node], set[Node]]:
    """The nodes in running order, and those that may overwrite their state: these, and what needs them, come last."""
    nodes = [n for n in graph.nodes if n.op not in ("input", "state")]
    candidates = {n for n in nodes if n.op in overwriting}
    late: set[Node] = set()
    for n in nodes:
        if n in candidates or any(v.node in late for v in n.inputs):
            late.add(n)
    memory = _memory(graph, views) if candidates else {}
    returned = {*graph.outputs.values(), *graph.updates.values()}

    def safe(node: Node) -> bool:
        written = overwriting[node.op][1](node)
        lost = [node.inputs[i] for i in written]
        replaced = all(
            old.node.op == "state" and graph.updates.get(old.node.attrs["name"]) is new
            for old, new in zip(lost, node.outputs, strict=True)
        )
        read = [v for other in late if other is not node for v in other.inputs]
        read += [v for i, v in enumerate(node.inputs) if i not in written]
        return replaced and len(set(lost)) == len(lost) and not any(memory[v] & {*lost} for v in (*read, *returned))

    return [n for n in nodes if n not in late] + [n for n in nodes if n in late], {n for n in candidates if safe(n)}
