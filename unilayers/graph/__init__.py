"""The intermediate representation: op records, nodes, graphs, and the passes over them."""

from unilayers.graph.node import (
    Const,
    Graph,
    Node,
    Value,
    bodies_of,
    constant,
    is_tracing,
    leaf,
    make_node,
    schedule,
    scope,
    tracing,
)
from unilayers.graph.record import OPS, Op, Sample

__all__ = [
    "OPS",
    "Const",
    "Graph",
    "Node",
    "Op",
    "Sample",
    "Value",
    "bodies_of",
    "constant",
    "is_tracing",
    "leaf",
    "make_node",
    "schedule",
    "scope",
    "tracing",
]
