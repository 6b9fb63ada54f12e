"""Nodes, values and graphs: small, immutable, printable."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from unilayers.errors import DTypeError, GraphError, UnilayersError
from unilayers.graph.operators import Operators
from unilayers.graph.record import OPS, Op, Specs, register
from unilayers.spec import TEXT, Dim, Shape, Spec, dtype_name, host_dtype, public_shape

LEAVES = ("input", "state", "constant")

_TRACING: ContextVar[bool] = ContextVar("tracing", default=False)


@contextmanager
def tracing(on: bool = True) -> Iterator[None]:
    """While active, ops without operands (``ops.zeros``...) record nodes instead of computing."""
    token = _TRACING.set(on)
    try:
        yield
    finally:
        _TRACING.reset(token)


def is_tracing() -> bool:
    return _TRACING.get()


SCOPE: ContextVar[tuple[str, str]] = ContextVar("scope", default=("", ""))  # what new nodes take as their origin


@contextmanager
def scope(path: str | None = None, part: str | None = None) -> Iterator[None]:
    """While active, new nodes are marked with where they come from; see `Node`. None: as around the block."""
    around = SCOPE.get()
    token = SCOPE.set((around[0] if path is None else path, around[1] if part is None else part))
    try:
        yield
    finally:
        SCOPE.reset(token)


class Const:
    """An array as an attribute: compared and hashed by its bytes.

    Args:
        array: The array.
        dtype: Of the values, if it is not that of the array: bfloat16 is held as float32.
    """

    __slots__ = ("array", "dtype", "key")

    def __init__(self, array: Any, dtype: str | None = None) -> None:
        dtype = dtype or dtype_name(np.asarray(array).dtype)
        self.dtype, self.array = dtype, np.array(array, host_dtype(dtype), order="C")
        self.array.flags.writeable = False
        self.key = (dtype, self.array.shape, self.array.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        if self.array.size <= 4:
            return np.array2string(self.array, separator=",").replace("\n", "")
        return f"<{self.array.dtype}{list(self.array.shape)}>"


_serial = itertools.count()


class Node:
    """One application of an op: ``op(*inputs, **attrs)``. Create with ``make_node``.

    Where it comes from is for people who look for it, and is neither compared nor saved: ``scope`` is the path of the
    layer that was called, empty outside of layers; ``part`` the part of a step: ``loss``, ``gradient of exp`` (with the
    scope of that op), ``update``, ``metrics``; empty in a forward pass. Passes keep it.
    """

    __slots__ = ("attrs", "inputs", "multiple", "op", "origin", "outputs", "serial")

    def __init__(self, op: str, inputs: tuple[Value, ...], attrs: Mapping[str, Any], specs: Specs) -> None:
        self.op, self.inputs, self.attrs = op, inputs, attrs
        self.multiple = isinstance(specs, tuple)  # an op with a tuple of outputs, even if it holds one
        specs = specs if isinstance(specs, tuple) else (specs,)
        self.origin = SCOPE.get()
        self.serial = next(_serial)  # creation order: a stable order for independent nodes
        self.outputs = tuple(Value(self, i, spec) for i, spec in enumerate(specs))

    @property
    def scope(self) -> str:
        return self.origin[0]

    @property
    def part(self) -> str:
        return self.origin[1]

    def __repr__(self) -> str:
        specs = ", ".join(map(repr, (v.spec for v in self.outputs)))
        return f"{self.op}({', '.join(repr(v.spec) for v in self.inputs)}){dict(self.attrs) or ''} -> {specs}"


class Value(Operators):
    """A symbolic array: output ``index`` of ``node``. Arithmetic on it records further nodes.

    ``origin`` is set on the outputs of a layer called outside any model, so that a functional model can replay it;
    ``mask`` by layers on what they return, see ``layers.base``.
    """

    __slots__ = ("__weakref__", "index", "mask", "node", "origin", "spec")

    def __init__(self, node: Node, index: int, spec: Spec) -> None:
        self.node, self.index, self.spec = node, index, spec
        self.origin: Any = None

    @property
    def shape(self) -> Shape:
        return self.spec.shape

    @property
    def dtype(self) -> str:
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return len(self.spec.shape)

    def __repr__(self) -> str:
        return f"<Value {self.node.op} shape={public_shape(self.shape)} dtype={self.dtype}>"

    def __bool__(self) -> bool:
        raise GraphError(
            "a symbolic value has no truth value while a model is traced",
            fix="Use ops.cond or ops.where, ops.while_loop or ops.scan; or run_eagerly=True for Python control flow",
        )


def make_node(op: Op, inputs: Iterable[Value], attrs: Mapping[str, Any]) -> tuple[Value, ...]:
    """Apply ``op`` symbolically: infer the specs and return the output values."""
    inputs = tuple(inputs)
    for v in inputs:
        if v.spec.dtype == TEXT:
            raise DTypeError(
                "texts are no part of a graph", where=f"op '{op.name}'", received=repr(v),
                fix="Begin the model with a layer that reads them: TextVectorization, StringLookup, Hashing",
            )  # fmt: skip
    try:
        specs = op.infer(*(v.spec for v in inputs), **attrs)
    except UnilayersError as error:
        raise error.inside(f"op '{op.name}'") from None
    return Node(op.name, inputs, attrs, specs).outputs


# ---- leaves -----------------------------------------------------------------

_leaf_attrs = {"name": "", "shape": (), "dtype": "float32"}
for _kind in ("input", "state"):
    register(Op(_kind, infer=lambda *, name, shape, dtype: Spec(shape, dtype), defaults=_leaf_attrs, operands=()))
register(
    Op(
        "constant",
        infer=lambda *, value: Spec(value.array.shape, value.dtype),
        defaults={"value": None},
        operands=(),
    )
)


def leaf(kind: str, name: str, spec: Spec) -> Value:
    """An ``input`` or ``state`` value with a name."""
    return make_node(OPS[kind], (), {"name": name, "shape": spec.shape, "dtype": spec.dtype})[0]


def constant(value: Any, dtype: str | None = None) -> Value:
    """A constant value; Python floats become ``dtype`` or float32, ints int32."""
    array, dtype = np.asarray(value), None if dtype == TEXT else dtype
    if dtype is None and isinstance(value, (float, int)) and not isinstance(value, bool):
        dtype = "float32" if isinstance(value, float) else "int32"
    return make_node(OPS["constant"], (), {"value": Const(array, dtype)})[0]


# ---- graph ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Graph:
    """A function of inputs and state: named outputs, and new values for some of the state.

    As an attribute of a node (what a loop repeats, the branches of a conditional) it is a function of its inputs alone.

    Args:
        inputs: ``input`` leaves in call order.
        state: ``state`` leaves (parameters, optimizer slots, metric sums, counters) in storage order.
        outputs: What a run returns, by name.
        updates: New values of state entries, by the state's name; applied together at the end of a run.
    """

    inputs: tuple[Value, ...]
    state: tuple[Value, ...] = ()
    outputs: Mapping[str, Value] = field(default_factory=dict)
    updates: Mapping[str, Value] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that an output or update needs, inputs and state first, operands before their users."""
        return schedule((*self.inputs, *self.state), (*self.outputs.values(), *self.updates.values()))

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Names of the sizes still unknown."""
        dims = [d for v in self.inputs for d in v.shape if isinstance(d, Dim)]
        return frozenset(s for d in dims for s in d.symbols())

    def __repr__(self) -> str:
        return f"<Graph of {len(self.nodes)} nodes: {len(self.inputs)} inputs to {len(self.outputs)} outputs>"

    def __str__(self) -> str:
        names: dict[Value, str] = {}
        lines = []
        for node in self.nodes:
            for v in node.outputs:
                names[v] = node.attrs["name"] if node.op in ("input", "state") else f"v{len(names)}"
            left = ", ".join(f"{names[v]}: {v.spec}" for v in node.outputs)
            if node.op in ("input", "state"):
                lines.append(f"{node.op} {left}")
                continue
            plain = {k: v for k, v in node.attrs.items() if k not in OPS[node.op].bodies}
            args = [names[v] for v in node.inputs] + [f"{k}={v!r}" for k, v in plain.items()]
            lines.append(f"{left} = {node.op}({', '.join(args)})")
            for name, body in bodies_of(node):
                lines += [f"    {name}:", *(f"        {line}" for line in str(body).splitlines())]
        lines += [f"update {name} := {names[v]}" for name, v in self.updates.items()]
        lines += [f"return {name} = {names[v]}" for name, v in self.outputs.items()]
        return "\n".join(lines)


def bodies_of(node: Node) -> list[tuple[str, Graph]]:
    """The graphs among a node's attributes, with their names: ``body``, ``branches[0]``."""
    found = []
    for name in OPS[node.op].bodies:
        attr = node.attrs[name]
        several = isinstance(attr, tuple)
        found += [(f"{name}[{i}]", g) for i, g in enumerate(attr)] if several else [(name, attr)]
    return found


def schedule(first: Iterable[Value], roots: Iterable[Value]) -> tuple[Node, ...]:
    """A topological order: the nodes of ``first``, then what ``roots`` need, in order of creation where free."""
    needed: dict[Node, None] = {v.node: None for v in first}
    stack = [v.node for v in roots]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed[node] = None
            stack.extend(v.node for v in node.inputs)
    # A node is created after its operands, so creation order is a topological order.
    heads = list(dict.fromkeys(v.node for v in first))
    rest = sorted((n for n in needed if n not in set(heads)), key=lambda n: n.serial)
    return (*heads, *rest)
