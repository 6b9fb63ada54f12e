"""The rules a graph must keep; every graph built in the tests goes through here."""

from __future__ import annotations

from unilayers.errors import GraphError
from unilayers.graph.node import Graph, Value, bodies_of
from unilayers.graph.record import OPS


def verify(graph: Graph) -> Graph:
    """Return the graph unchanged, or say which invariant is broken.

    Raises:
        GraphError: an unknown op or attribute, an operand that is not computed before its use, a spec that the op's
            own rule does not give, a name taken twice, an update of unknown state or of another shape or dtype.
    """
    known: set[Value] = set()
    for node in graph.nodes:
        op = OPS.get(node.op)
        if op is None:
            raise GraphError(f"unknown op {node.op!r}", where=repr(node))
        for v in node.inputs:
            if v not in known:
                raise GraphError("operand used before it is computed", where=repr(node), received=repr(v))
        if set(node.attrs) != set(op.defaults):
            raise GraphError(
                "attributes do not fit the op",
                where=repr(node),
                expected=str(sorted(op.defaults)),
                received=str(sorted(node.attrs)),
            )
        for name, body in bodies_of(node):
            if body.state or body.updates:
                raise GraphError("a body has state", where=f"{name} of {node!r}", fix="Pass it as an operand")
            try:
                verify(body)
            except GraphError as error:
                raise error.inside(f"{name} of {node.op}") from None
        specs = op.infer(*(v.spec for v in node.inputs), **node.attrs)
        specs = specs if isinstance(specs, tuple) else (specs,)
        if specs != tuple(v.spec for v in node.outputs):
            raise GraphError("spec differs from the op's rule", where=repr(node), expected=str(specs))
        known.update(node.outputs)
    for kind, leaves in (("input", graph.inputs), ("state", graph.state)):
        names = [v.node.attrs["name"] for v in leaves if v.node.op == kind]
        if len(set(names)) != len(leaves):
            raise GraphError(f"the graph's {kind} must be distinct {kind} leaves", received=str(names))
    used = {n for n in graph.nodes if n.op in ("input", "state")}
    stray = used - {v.node for v in (*graph.inputs, *graph.state)}
    if stray:
        raise GraphError("leaves that the graph does not list", received=str(sorted(map(repr, stray))))
    state = {v.node.attrs["name"]: v.spec for v in graph.state}
    for name, v in graph.updates.items():
        if state.get(name) != v.spec:
            raise GraphError(
                "update does not fit its state", where=name, expected=str(state.get(name)), received=str(v.spec)
            )
    return graph
