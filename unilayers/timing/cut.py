"""A training step cut into what each layer does in it, forward and backward: graphs that can be run by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from unilayers.graph import OPS, Graph, Node, Value, leaf
from unilayers.graph.passes import subgraph
from unilayers.models import Model

FORWARD, BACKWARD = "forward", "backward"
LOSS, OPTIMIZER, METRICS = "[loss]", "[optimizer]", "[metrics]"  # what is in a step besides layers
VIEWS = ("reshape", "identity", "stop_gradient")  # which no engine computes
GATHERS = ("take", "take_along_axis")  # which read the rows they are asked for

Key = tuple[str, str]  # a row, and which way through it


@dataclass
class Piece:
    """What one layer does in one direction; values of other pieces are its inputs.

    Args:
        nodes: Its ops.
        takes: Values of other pieces, and data, that it reads.
        reads: State that it reads.
        gives: Its values that other pieces read, or the step returns.
        updates: New values of state, by the state's name.
    """

    nodes: list[Node] = field(default_factory=list)
    takes: dict[Value, None] = field(default_factory=dict)
    reads: dict[Value, None] = field(default_factory=dict)
    gives: dict[Value, None] = field(default_factory=dict)
    updates: dict[str, Value] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        """Floating-point operations, as the op records count them."""
        return sum(int(OPS[n.op].cost(*(v.spec for v in n.inputs), **n.attrs)) for n in self.nodes)

    @property
    def bytes(self) -> int:
        """Bytes that come in and go out, each value once; what stays inside is not counted."""
        gathered: dict[Value, int] = {}
        others: set[Value] = set()
        for node in self.nodes:
            for i, v in enumerate(map(source, node.inputs)):
                if node.op in GATHERS and i == 0:
                    gathered[v] = gathered.get(v, 0) + _bytes(node.outputs[0])
                else:
                    others.add(v)
        read = (
            min(_bytes(v), gathered[v]) if v in gathered and v not in others else _bytes(v)
            for v in (*self.takes, *self.reads)
        )
        return sum(read) + sum(map(_bytes, dict.fromkeys((*self.gives, *self.updates.values()))))

    def graph(self, state: Mapping[str, Value]) -> Graph:
        """The piece as a graph of its own. What it gives it writes into state, whose memory is there already, as a
        whole step has memory for what its layers give to one another.

        Args:
            state: The state of the step by its names.
        """
        new = {f"gives {i}": v for i, v in enumerate(self.gives) if v not in self.updates.values()} | self.updates
        body = subgraph([*self.takes], [*new.values()])
        read = {n.attrs["name"]: n.outputs[0] for n in body.nodes if n.op == "state"}
        written = {name: leaf("state", name, state[name].spec if name in state else v.spec) for name, v in new.items()}
        return Graph(
            body.inputs, tuple((written | read).values()), {}, dict(zip(new, body.outputs.values(), strict=True))
        )


def cut(graph: Graph, rows: Iterable[str]) -> dict[Key, Piece]:
    """The pieces of a specialised training step, by row and way, in the order of the step.

    A row is a layer, with everything inside of it; the loss, with what else is outside of layers; the optimizer; the
    metrics. Views and constants belong to nobody: whoever reads them has them.

    Args:
        graph: The step; its nodes know where they come from.
        rows: Paths of the layers that are rows.
    """
    place = _placing(rows)
    owners = {node: place(node) for node in graph.nodes if node.inputs and node.op not in VIEWS}
    pieces: dict[Key, Piece] = {}
    for node, key in owners.items():
        piece = pieces.setdefault(key, Piece())
        piece.nodes.append(node)
        for v in map(source, node.inputs):
            owner = owners.get(v.node)
            if v.node.op == "state":
                piece.reads[v] = None
            elif v.node.op == "input" or owner not in (None, key):
                piece.takes[v] = None
            if owner not in (None, key):
                pieces[owner].gives[v] = None
    for v in map(source, graph.outputs.values()):
        if v.node in owners:
            pieces[owners[v.node]].gives[v] = None
    for name, v in graph.updates.items():
        if source(v).node in owners:
            pieces[owners[source(v).node]].updates[name] = v
    return pieces


def source(value: Value) -> Value:
    """What a value is a view of."""
    while value.node.op in VIEWS:
        value = value.node.inputs[0]
    return value


def layers_of(model: Model) -> dict[str, str]:
    """The layers that are rows: the class of each by its path; of models inside the model, their layers.

    Args:
        model: The model.
    """
    found: dict[str, str] = {}
    for layer in model.layers:
        found |= layers_of(layer) if isinstance(layer, Model) else {layer.path: type(layer).__name__}
    return found


def _placing(rows: Iterable[str]) -> Callable[[Node], Key]:
    """Which row and way a node belongs to."""
    known = set(rows)

    def row(scope: str) -> str:
        outer = scope
        while outer and outer not in known:
            outer = outer.rpartition("/")[0]
        return outer or scope or LOSS

    def place(node: Node) -> Key:
        whole = {"update": OPTIMIZER, "metrics": METRICS}.get(node.part)
        if whole:
            return whole, FORWARD
        return row(node.scope), BACKWARD if node.part.startswith("gradient") else FORWARD

    return place


def _bytes(value: Value) -> int:
    size = value.spec.nbytes
    assert isinstance(size, int), "a step that is not specialised"
    return size
