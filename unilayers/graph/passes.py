"""Graph to graph: specialise, lower, fold constants, merge equal nodes, tidy up. Dead code goes by itself.

``Graph.nodes`` holds only what outputs and updates need, so every rewrite drops what nobody reads any more.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unilayers.graph.node import (
    LEAVES,
    SCOPE,
    Const,
    Graph,
    Node,
    Value,
    bodies_of,
    leaf,
    make_node,
    schedule,
    tracing,
)
from unilayers.graph.record import OPS
from unilayers.spec import Dim, Spec, evaluate

# ``replace(node, new_inputs, attrs)``: the outputs that take a node's place, or None to copy it. The attributes are the
# node's own, with its bodies rewritten already.
Replace = Callable[[Node, tuple[Value, ...], Mapping[str, Any]], "Sequence[Value | None] | None"]


def rewrite(graph: Graph, replace: Replace, new: dict[Value, Any] | None = None) -> Graph:
    """Rebuild the graph, and the bodies in it, with what ``replace`` gives in the place of each node.

    Args:
        graph: The graph.
        replace: See ``Replace``.
        new: What each value has become; a body shares it with the graph around it, so that what two bodies have in
            common stays common.
    """
    new = {} if new is None else new
    around = SCOPE.set(SCOPE.get())
    try:
        for node in graph.nodes:
            if node.outputs[0] in new:
                continue
            inputs = tuple(new[v] for v in node.inputs)
            attrs = _with_bodies(node, lambda body: rewrite(body, replace, new))
            SCOPE.set(node.origin)
            outputs = replace(node, inputs, attrs)
            if outputs is None:
                same = attrs is node.attrs and all(a is b for a, b in zip(inputs, node.inputs, strict=True))
                outputs = node.outputs if same else make_node(OPS[node.op], inputs, attrs)
            new.update(zip(node.outputs, outputs, strict=True))
    finally:
        SCOPE.reset(around)
    rebuilt = Graph(
        inputs=tuple(new[v] for v in graph.inputs),
        state=tuple(new[v] for v in graph.state),
        outputs={k: new[v] for k, v in graph.outputs.items()},
        updates={k: new[v] for k, v in graph.updates.items()},
    )
    return graph if _same(graph, rebuilt) else rebuilt


def _same(a: Graph, b: Graph) -> bool:
    """Whether two graphs are made of the same values."""
    pairs = [(a.inputs, b.inputs), (a.state, b.state)]
    pairs += [(tuple(x.values()), tuple(y.values())) for x, y in ((a.outputs, b.outputs), (a.updates, b.updates))]
    return all(v is w for x, y in pairs for v, w in zip(x, y, strict=True))


def _with_bodies(node: Node, change: Callable[[Graph], Graph]) -> Mapping[str, Any]:
    """The node's attributes with its bodies changed; the very same mapping if nothing is."""
    changed = {}
    for name in OPS[node.op].bodies:
        old = node.attrs[name]
        new = map_attr(old, change)
        if any(a is not b for a, b in zip(_as_tuple(old), _as_tuple(new), strict=True)):
            changed[name] = new
    return {**node.attrs, **changed} if changed else node.attrs


def _as_tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def every_node(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of all bodies in it."""
    for node in graph.nodes:
        yield node
        for _, body in bodies_of(node):
            yield from every_node(body)


def map_attr(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to an attribute and, inside tuples, to its parts."""
    if isinstance(value, (tuple, list)):
        return tuple(map_attr(v, change) for v in value)
    return change(value)


def specialise(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """Put numbers in the place of symbolic sizes."""

    def concrete(value: Any) -> Any:
        return evaluate(value, sizes) if isinstance(value, Dim) else value

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value]:
        return make_node(OPS[node.op], inputs, {k: map_attr(v, concrete) for k, v in attrs.items()})

    return rewrite(graph, replace)


def lower(graph: Graph, table: Container[str]) -> Graph:
    """Expand every composite op that ``table`` does not list, until only listed ops and primitives are left."""

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value] | None:
        op = OPS[node.op]
        if op.expand is None or node.op in table:
            return None
        return as_values(op.expand(*inputs, **attrs))

    with tracing():
        while any(OPS[n.op].expand is not None and n.op not in table for n in every_node(graph)):
            graph = rewrite(graph, replace)
    return graph


def as_values(result: Any) -> tuple[Value, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def eliminate_common(graph: Graph) -> Graph:
    """Compute equal expressions once (common subexpression elimination)."""
    seen: dict[Any, tuple[Value, ...]] = {}

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value] | None:
        if node.op in ("input", "state"):  # the inputs of two bodies may have one name
            return None
        key = (node.op, inputs, tuple(sorted(attrs.items(), key=lambda item: item[0])))
        if key not in seen:
            same = attrs is node.attrs and all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            seen[key] = node.outputs if same else make_node(OPS[node.op], inputs, attrs)
        return seen[key]

    return rewrite(graph, replace)


FOLD_LIMIT = 1 << 16  # bytes: larger constants are cheaper to compute again than to keep


def fold_constants(graph: Graph, run: Callable[[Node, list[np.ndarray]], Sequence[np.ndarray]]) -> Graph:
    """Compute now what depends on constants only. ``run(node, arrays)`` evaluates one node on the target backend."""

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value] | None:
        size = sum(v.spec.nbytes for v in node.outputs if isinstance(v.spec.nbytes, int))
        known = all(v.node.op == "constant" for v in inputs) and all(
            isinstance(v.spec.nbytes, int) for v in node.outputs
        )
        if node.op in LEAVES or not known or size > FOLD_LIMIT or attrs_unknown(node.attrs):
            return None
        if attrs is not node.attrs:
            node = make_node(OPS[node.op], inputs, attrs)[0].node
        arrays = run(node, [v.node.attrs["value"].array for v in inputs])
        fixed = [Const(np.reshape(a, v.shape), v.dtype) for a, v in zip(arrays, node.outputs, strict=True)]
        return [make_node(OPS["constant"], (), {"value": value})[0] for value in fixed]

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

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value] | None:
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


# ---- loops and branches ----------------------------------------------------------


def named(values: Iterable[Value]) -> dict[str, Value]:
    """Results of a body under their numbers."""
    return {str(i): v for i, v in enumerate(values)}


def merge_scans(graph: Graph) -> Graph:
    """Run loops once that differ only in what they return of each step.

    A gradient needs values of every step of a loop, so it repeats the loop with these as further results: here the two
    become one.
    """
    groups: dict[Any, list[Node]] = {}
    for node in dict.fromkeys(n for n in every_node(graph) if n.op == "scan"):
        body, carried = node.attrs["body"], node.attrs["carried"]
        same = (node.inputs, body.inputs, tuple(body.outputs.values())[:carried], carried, node.attrs["reverse"])
        groups.setdefault(same, []).append(node)
    twins = {n: group for group in groups.values() if len(group) > 1 for n in group}
    if not twins:
        return graph
    new: dict[Value, Any] = {}
    made: dict[Node, Sequence[Value]] = {}

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value] | None:
        if node not in twins:
            return None
        first, carried = twins[node][0], node.attrs["carried"]
        results = dict.fromkeys(v for n in twins[node] for v in tuple(n.attrs["body"].outputs.values())[carried:])
        if first not in made:
            carries = tuple(first.attrs["body"].outputs.values())[:carried]
            body = rewrite(Graph(first.attrs["body"].inputs, (), named((*carries, *results))), replace, new)
            made[first] = make_node(OPS["scan"], inputs, {**attrs, "body": body})
        place = {v: carried + i for i, v in enumerate(results)}
        mine = tuple(node.attrs["body"].outputs.values())[carried:]
        return [*made[first][:carried], *(made[first][place[v]] for v in mine)]

    return rewrite(graph, replace, new)


def prune(graph: Graph) -> Graph:
    """Drop results of loops and branches that nobody reads, and what is computed for them alone."""
    if not any(OPS[n.op].bodies for n in graph.nodes):
        return graph
    needed: set[Value] = {*graph.outputs.values(), *graph.updates.values()}
    slim: dict[Node, _Slim] = {}
    mine = set(graph.nodes)
    for node in reversed(graph.nodes):
        wanted = [i for i, v in enumerate(node.outputs) if v in needed]
        if wanted and node.op in ("scan", "switch"):
            slim[node] = (_slim_scan if node.op == "scan" else _slim_switch)(node, wanted)
            needed.update(node.inputs[i] for i in (*slim[node].operands, *slim[node].unchanged.values()))
        elif wanted:
            needed.update(node.inputs)

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value | None] | None:
        if node in slim:
            how = slim[node]
            operands = tuple(inputs[i] for i in how.operands)
            results = make_node(OPS[node.op], operands, {**attrs, **how.attrs}) if how.results else ()
            found: list[Value | None] = [None] * len(node.outputs)
            for i, v in zip(how.results, results, strict=True):
                found[i] = v
            for i, operand in how.unchanged.items():
                found[i] = inputs[operand]
            return found
        here = node in mine and node.op not in LEAVES  # not in a body, where others decide what is needed
        dead = here and not any(v in needed for v in node.outputs)
        return [None] * len(node.outputs) if dead else None

    return rewrite(graph, replace)


def forget(graph: Graph) -> Graph:
    """Let ops keep nothing for a gradient that nobody takes."""
    keeping = [n for n in graph.nodes if OPS[n.op].kept and n.attrs["keeps"]]
    if not keeping:
        return graph
    read = {*graph.outputs.values(), *graph.updates.values(), *(v for n in graph.nodes for v in n.inputs)}
    idle = {n for n in keeping if not any(v in read for v in n.outputs[-OPS[n.op].kept :])}

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value | None] | None:
        if node not in idle:
            return None
        return [*make_node(OPS[node.op], inputs, {**attrs, "keeps": False}), *[None] * OPS[node.op].kept]

    return rewrite(graph, replace)


@dataclass
class _Slim:
    """What is left of a loop or of branches.

    Args:
        operands, results: Numbers of those that stay.
        attrs: The attributes that change.
        unchanged: Results that are an operand as it is.
    """

    operands: list[int]
    results: list[int]
    attrs: dict[str, Any]
    unchanged: dict[int, int]


def _reads(graph: Graph, results: Iterable[Value]) -> set[int]:
    """The numbers of the inputs that results depend on."""
    reached = set(schedule((), results))
    return {i for i, v in enumerate(graph.inputs) if v.node in reached}


def _slim_scan(node: Node, wanted: list[int]) -> _Slim:
    body, carried, scanned = prune(node.attrs["body"]), node.attrs["carried"], node.attrs["scanned"]
    results = tuple(body.outputs.values())
    fixed = [i for i in range(carried) if results[i] is body.inputs[i]]  # carried along without a change
    keep = {i for i in wanted if i not in fixed}
    while True:  # a kept result may need further carried values
        read = _reads(body, (results[i] for i in keep))
        more = {i for i in read if i < carried and i not in fixed} - keep
        if not more:
            break
        keep |= more
    sequences = [i for i in range(carried, carried + scanned) if i in read] or [carried]
    constants = [
        *(i for i in fixed if i in read),
        *(i for i in range(carried + scanned, len(node.inputs)) if i in read),
    ]
    stay = sorted(keep)
    carries = [i for i in stay if i < carried]
    operands = [*carries, *sequences, *constants]
    attrs = {
        "body": Graph(tuple(body.inputs[i] for i in operands), (), named(results[i] for i in stay)),
        "carried": len(carries),
        "scanned": len(sequences),
    }
    return _Slim(operands, stay, attrs, {i: i for i in wanted if i in fixed})


def _slim_switch(node: Node, wanted: list[int]) -> _Slim:
    branches = [prune(b) for b in node.attrs["branches"]]
    results = [[tuple(b.outputs.values())[i] for i in wanted] for b in branches]
    read = sorted(set[int]().union(*(_reads(b, r) for b, r in zip(branches, results, strict=True))))
    slim = tuple(Graph(tuple(b.inputs[i] for i in read), (), named(r)) for b, r in zip(branches, results, strict=True))
    return _Slim([0, *(i + 1 for i in read)], wanted, {"branches": slim}, {})


# ---- all together -------------------------------------------------------------------


def optimise(
    graph: Graph, table: Container[str], run: Callable[[Node, list[np.ndarray]], Sequence[np.ndarray]]
) -> Graph:
    """All passes a backend wants before it compiles a specialised graph."""
    from unilayers.graph.collect import collect  # which is written with these passes

    graph = collect(forget(prune(merge_scans(simplify(eliminate_common(lower(graph, table)))))))
    return eliminate_common(simplify(fold_constants(graph, run)))


def subgraph(inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
    """The piece of a graph between ``inputs`` and ``outputs``, as a body: a function of its inputs alone."""
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

    return Graph(tuple(cut.values()), (), named(copy(v) for v in outputs))
