"""Graphs as JSON: a saved graph, a whole training step included, runs without the code that made it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from unilayers.errors import GraphError, nearest
from unilayers.graph.node import Const, Graph, Value, make_node
from unilayers.graph.passes import merge_scans
from unilayers.graph.record import OPS
from unilayers.spec import Dim, host_dtype

VERSION = 1


def to_json(graph: Graph) -> str:
    """The graph as a JSON text with a version number."""
    return json.dumps({"format": "unilayers.graph", "version": VERSION, **_document(merge_scans(graph))})


def _document(graph: Graph) -> dict[str, Any]:
    number = {v: i for i, v in enumerate(v for n in graph.nodes for v in n.outputs)}
    nodes = [{"op": n.op, "inputs": [number[v] for v in n.inputs], "attrs": encode_attrs(n.attrs)} for n in graph.nodes]
    return {
        "nodes": nodes,
        "inputs": [number[v] for v in graph.inputs],
        "state": [number[v] for v in graph.state],
        "outputs": {k: number[v] for k, v in graph.outputs.items()},
        "updates": {k: number[v] for k, v in graph.updates.items()},
    }


def from_json(text: str) -> Graph:
    """The graph a JSON text describes.

    Raises:
        GraphError: not a graph, written by a newer version, or with an op this version does not have.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise GraphError("not a saved graph", expected="JSON", received=str(error)) from None
    if not isinstance(document, dict) or document.get("format") != "unilayers.graph":
        raise GraphError("not a saved graph", expected="format 'unilayers.graph'")
    if document["version"] > VERSION:
        raise GraphError(
            "saved by a newer version of unilayers",
            expected=f"graph version up to {VERSION}",
            received=str(document["version"]),
            fix="Upgrade with: pip install -U unilayers",
        )
    return _graph(document)


def _graph(document: Mapping[str, Any]) -> Graph:
    values: list[Value] = []
    for i, n in enumerate(document["nodes"]):
        if n["op"] not in OPS:
            raise GraphError(f"unknown op {n['op']!r}", where=f"nodes[{i}]", fix=nearest(n["op"], OPS))
        values += make_node(OPS[n["op"]], (values[j] for j in n["inputs"]), decode_attrs(n["attrs"]))
    return Graph(
        inputs=tuple(values[i] for i in document["inputs"]),
        state=tuple(values[i] for i in document["state"]),
        outputs={k: values[i] for k, i in document["outputs"].items()},
        updates={k: values[i] for k, i in document["updates"].items()},
    )


def encode_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """An op's attributes as JSON."""
    return {k: _encode(v) for k, v in attrs.items()}


def decode_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that ``encode_attrs`` wrote."""
    return {k: _decode(v) for k, v in attrs.items()}


def _encode(value: Any) -> Any:
    """JSON for an attribute: plain values as they are, the rest as a one-key object that names its kind."""
    if isinstance(value, (tuple, list)):
        return [_encode(v) for v in value]
    if isinstance(value, Dim):
        return {"dim": [[[_encode(a) for a in m], k] for m, k in value.terms]}
    if isinstance(value, Graph):
        return {"graph": _document(value)}
    if isinstance(value, Const):
        a = value.array
        return {"array": [value.dtype, list(a.shape), base64.b64encode(a.tobytes()).decode()]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise GraphError("attribute cannot be saved", expected="numbers, strings, tuples, arrays", received=repr(value))


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v) for v in value)
    if isinstance(value, dict):
        kind, body = next(iter(value.items()))
        if kind == "dim":
            return Dim({tuple(_decode(a) for a in m): k for m, k in body})
        if kind == "graph":
            return _graph(body)
        dtype, shape, data = body
        return Const(np.frombuffer(base64.b64decode(data), host_dtype(dtype)).reshape(shape), dtype)
    return value
