"""Branches that cost less to compute than to wait for the host, which would have to look which one is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unilayers.graph import OPS, Const, Graph, Node, Value, make_node
from unilayers.graph.passes import rewrite

from .expressions import EXPRESSIONS
from .updates import SCALARS

CHEAP = {*EXPRESSIONS, *SCALARS, "input", "constant", "astype", "reshape", "broadcast_to", "identity", "stop_gradient"}


def without_branches(graph: Graph) -> Graph:
    """The graph with both sides of a branch computed, and one chosen, where all in them is elementwise."""

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value] | None:
        if node.op != "switch" or not all(n.op in CHEAP for b in attrs["branches"] for n in b.nodes):
            return None
        index, *operands = inputs
        *others, chosen = [_results(branch, operands) for branch in attrs["branches"]]
        for number, results in reversed(list(enumerate(others))):
            limit = make_node(OPS["constant"], (), {"value": Const(number, index.dtype)})[0]
            here = make_node(OPS["less_equal"], (index, limit), {})[0]
            chosen = [make_node(OPS["where"], (here, a, b), {})[0] for a, b in zip(results, chosen, strict=True)]
        return chosen

    return rewrite(graph, replace)


def _results(body: Graph, operands: Sequence[Value]) -> list[Value]:
    """What a body gives for operands, its nodes among those of the graph around it."""
    found = dict(zip(body.inputs, operands, strict=True))
    for node in body.nodes:
        if node.op != "input":
            made = make_node(OPS[node.op], [found[v] for v in node.inputs], node.attrs)
            found.update(zip(node.outputs, made, strict=True))
    return [found[v] for v in body.outputs.values()]
