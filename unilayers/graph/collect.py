"""Sums over the steps of a loop, taken after it.

The gradient of a loop adds up, step by step, what flows into its weights: ``total + transpose(x) @ g``. One product of
all rows of x and g gives the same, faster. So where a loop's value is only added to, and what is added is linear in a
product or a sum, the operands of these are kept for all steps, and the value is computed when the loop is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unilayers.graph.node import Graph, Node, Value, make_node
from unilayers.graph.passes import named, rewrite
from unilayers.graph.record import OPS
from unilayers.spec import is_float

Stack = Callable[[Value], Value]  # from a value of the body to the array of it at all steps
Build = Callable[[Stack], Value]

LINEAR = ("reshape", "permute_dims", "slice", "negative")  # ops of which a sum is the op of the sum


@dataclass(frozen=True)
class _Sum:
    """How a value of the body is summed over the steps.

    Args:
        reads: The values of the body that are needed of all steps.
        build: Gives the sum.
    """

    reads: tuple[Value, ...]
    build: Build


def collect(graph: Graph) -> Graph:
    """Take sums of products out of loops, where that at most doubles the memory that the loop's arrays take."""

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value] | None:
        return _without_sums(inputs, attrs) if node.op == "scan" else None

    return rewrite(graph, replace)


def _without_sums(inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value] | None:
    """The results of a loop with its sums taken afterwards; None if it has none."""
    body, carried, scanned = attrs["body"], attrs["carried"], attrs["scanned"]
    results, own = list(body.outputs.values()), body.inputs
    rows = dict(zip(own[carried : carried + scanned], inputs[carried : carried + scanned], strict=True))
    sums = _totals(body, carried, scanned)
    kept = dict.fromkeys(results[carried:])  # the values of the body that are stacked, with those there were before
    more = dict.fromkeys(v for s in sums.values() for v in s.reads if v not in rows and v not in kept)
    if not sums or _size(more) > _size((*rows, *kept)):
        return None
    stay = [i for i in range(carried) if i not in sums]
    stacked = [*kept, *more]
    operands = [*stay, *range(carried, len(own))]
    step = Graph(tuple(own[i] for i in operands), (), named([*(results[i] for i in stay), *stacked]))
    made: tuple[Value, ...] = ()
    if stay or stacked:
        new = {**attrs, "body": step, "carried": len(stay)}
        made = make_node(OPS["scan"], [inputs[i] for i in operands], new)
    arrays = {**rows, **dict(zip(stacked, made[len(stay) :], strict=True))}
    last = dict(zip(stay, made, strict=False))
    for i, s in sums.items():
        last[i] = s.build(arrays.__getitem__, inputs[i])
    return [*(last[i] for i in range(carried)), *(arrays[v] for v in results[carried:])]


def _size(values: Iterable[Value]) -> Any:
    return sum(v.spec.size for v in values)


@dataclass(frozen=True)
class _Total:
    """A carried value that is a sum over the steps.

    Args:
        terms: What is added to it in a step, or taken from it, and how that is summed.
    """

    terms: tuple[tuple[str, _Sum], ...]

    @property
    def reads(self) -> tuple[Value, ...]:
        return tuple(v for _, s in self.terms for v in s.reads)

    def build(self, stack: Stack, total: Value) -> Value:
        """The last value, from the first."""
        for op, term in self.terms:
            (total,) = make_node(OPS[op], (total, term.build(stack)), {})
        return total


def _totals(body: Graph, carried: int, scanned: int) -> dict[int, _Total]:
    """The carried values that are nothing but sums, by their numbers."""
    results, own = list(body.outputs.values()), body.inputs
    varying = {*own[: carried + scanned]}
    uses: dict[Value, int] = {}
    for node in body.nodes:
        if any(v in varying for v in node.inputs):
            varying.update(node.outputs)
        for v in node.inputs:
            uses[v] = uses.get(v, 0) + 1
    for v in results:
        uses[v] = uses.get(v, 0) + 1
    found = {}
    for i, (total, new) in enumerate(zip(own[:carried], results, strict=False)):
        terms = _terms(new, total, uses) if is_float(total.dtype) and uses.get(total) == 1 else None
        sums = [(op, _sum_of(v, varying)) for op, v in terms or ()]
        known = tuple((op, s) for op, s in sums if s is not None)
        if known and len(known) == len(sums):
            found[i] = _Total(known)
    return found


def _terms(new: Value, total: Value, uses: Mapping[Value, int]) -> list[tuple[str, Value]] | None:
    """``add`` or ``subtract``, and what is added to or taken from a total to get its new value; None if it is more."""
    if new is total:
        return []
    if new.node.op not in ("add", "subtract") or uses[new] > 1 or new.shape != total.shape:
        return None
    a, b = new.node.inputs
    for before, term in ((a, b), (b, a))[: 2 if new.node.op == "add" else 1]:
        terms = _terms(before, total, uses)
        if terms is not None and term.shape == total.shape:
            return [*terms, (new.node.op, term)]
    return None


def _sum_of(value: Value, varying: set[Value]) -> _Sum | None:
    """How to sum a value over the steps by way of products and sums; None if it is neither."""
    node = value.node
    operands = node.inputs
    if value not in varying:
        return None
    if node.op == "matmul" and all(v in varying and v.ndim == 2 for v in operands):
        return _sum_of_products(*operands)
    if node.op == "sum":
        return _Sum(operands, lambda stack: _sum_of_sums(node, stack(operands[0])))
    if node.op not in LINEAR and node.op != "add" and not (node.op == "pad" and node.attrs["value"] == 0):
        return None
    parts = [_sum_of(v, varying) for v in operands]
    known = [p for p in parts if p is not None]
    if len(known) < len(parts) or (node.op == "add" and any(v.shape != value.shape for v in operands)):
        return None
    reads = tuple(v for p in known for v in p.reads)
    return _Sum(reads, lambda stack: make_node(OPS[node.op], [p.build(stack) for p in known], node.attrs)[0])


def _sum_of_products(a: Value, b: Value) -> _Sum:
    """``a @ b`` of all steps is one product, over the inner axes of all of them."""
    left, turned = _unturned(a)
    right, twisted = _unturned(b)

    def build(stack: Stack) -> Value:
        x, y = stack(left), stack(right)
        columns = _turn(_rows(x), (1, 0)) if turned else _turn(_rows(_turn(x, (0, 2, 1))), (1, 0))
        return make_node(OPS["matmul"], (columns, _rows(_turn(y, (0, 2, 1)) if twisted else y)), {})[0]

    return _Sum((left, right), build)


def _unturned(x: Value) -> tuple[Value, bool]:
    """A matrix, without the transposition it may have had, and whether it had one."""
    turned = x.node.op == "permute_dims" and x.node.attrs["axes"] == (1, 0)
    return (x.node.inputs[0] if turned else x), turned


def _turn(x: Value, axes: tuple[int, ...]) -> Value:
    return make_node(OPS["permute_dims"], (x,), {"axes": axes})[0]


def _rows(x: Value) -> Value:
    """The rows of all matrices."""
    count, rows, columns = x.shape
    return _reshape(x, (count * rows, columns))


def _sum_of_sums(node: Node, x: Value) -> Value:
    axes = (0, *(a + 1 for a in node.attrs["axis"]))
    return _reshape(make_node(OPS["sum"], (x,), {"axis": axes, "keepdims": False})[0], node.outputs[0].shape)


def _reshape(x: Value, shape: tuple[Any, ...]) -> Value:
    return make_node(OPS["reshape"], (x,), {"shape": shape})[0]
