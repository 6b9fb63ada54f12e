"""Optimizers: each rule as the op's own expansion, traced once, over runs of weights that lie one behind the other."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from unilayers.backends.numpy.kernels import KERNELS, Kernel
from unilayers.backends.numpy.kernels.contract import Array, Calls, dense
from unilayers.backends.numpy.kernels.optimizer import runs

from unilayers.graph import OPS, Graph, leaf, make_node, tracing
from unilayers.graph.passes import lower
from unilayers.spec import Spec

from .expressions import known
from .launch import Launch
from .program import Program
from .source import source

SCALARS = {f"{rule}_update": len(OPS[f"{rule}_update"].operands) - 1 for rule in ("sgd", "rmsprop", "adagrad", "adam")}


@cache
def update(name: str) -> Kernel:
    """The kernel of an optimizer's op."""
    scalars = SCALARS[name]

    def build(do: Calls, *arrays: Array, count: int, **attrs: Any) -> None:
        tensors = [dense(do, a) for a in arrays[scalars:]]
        groups = list(zip(*(tensors[i : i + count] for i in range(0, len(tensors), count)), strict=True))
        for dtype in dict.fromkeys(group[0].dtype for group in groups):
            mine = [group for group in groups if group[0].dtype == dtype and group[0].size]
            for run in runs(do.xp, mine):
                given = [*arrays[:scalars], *run]
                dtypes = tuple(a.dtype.name for a in given)
                program = _sized(_traced(name, dtypes, tuple(attrs.items())), run[0].size)
                kept = len(program.operands)
                do(Launch(do.xp, source(program, given[:kept], given[kept:])), *given)

    return Kernel(build, KERNELS[name].overwrites, KERNELS[name].adjacent)


@cache
def _traced(name: str, dtypes: tuple[str, ...], attrs: tuple[tuple[str, Any], ...]) -> Program:
    """The rule for one weight.

    Args:
        name: The op.
        dtypes: Of the scalars, the weights, gradients, slots, and of the new weights and slots.
        attrs: The op's attributes.
    """
    scalars = SCALARS[name]
    operands = scalars + 1 + (len(dtypes) - scalars) // 2
    leaves = [leaf("input", f"x{i}", Spec(() if i < scalars else (2,), d)) for i, d in enumerate(dtypes[:operands])]
    with tracing():
        results = make_node(OPS[name], leaves, {**dict(attrs), "count": 1})
    outputs = {f"y{i}": v for i, v in enumerate(results)}
    graph = lower(Graph(tuple(leaves), (), outputs), [n for n, op in OPS.items() if not op.composite])
    program = Program((2,))
    items = {v: program.operand(v.dtype, (2,), False) for v in graph.inputs}
    for node in graph.nodes:
        (value,) = node.outputs
        args = tuple(items[v] for v in node.inputs)
        match node.op:
            case "input":
                pass
            case "constant":
                items[value] = program.constant(node.attrs["value"].array.reshape(-1)[0].item(), value.dtype)
            case "reshape" | "broadcast_to":
                (items[value],) = args  # of numbers
            case op:
                assert known(op, [v.dtype for v in node.inputs]), f"{name} has {op} in its expansion"
                items[value] = program.add(op, args, value.dtype)
    program.results = [(items[v], False) for v in graph.outputs.values()]
    return program


def _sized(program: Program, size: int) -> Program:
    """The same over vectors of another size."""
    to = (("to", (size,)), ("row", False))
    items = [replace(item, attrs=to) if item.op == "operand" else item for item in program.items]
    return Program((size,), 0, items, program.results)
