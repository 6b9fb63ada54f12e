"""The ops of control flow: loops, branches, functions with a gradient of their own. Their attributes hold graphs.

A *body* is a graph that is a function of its inputs alone; what it takes from outside is a further operand. Users call
the functions of ``ops.control``, which trace Python functions into bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import GraphError, ShapeError
from unilayers.graph import OPS, Graph, Op, Sample, Value, constant, leaf, tracing
from unilayers.graph.passes import named, subgraph
from unilayers.graph.record import register
from unilayers.ops.define import bind, constant_beside, put_beside
from unilayers.spec import Spec, is_float

# ---- bodies -----------------------------------------------------------------


def results_of(body: Graph) -> tuple[Value, ...]:
    return tuple(body.outputs.values())


def run_body(body: Graph, operands: Sequence[Any]) -> list[Any]:
    """What a body gives for operands: as further nodes for symbolic ones, at once for arrays."""
    known: dict[Value, Any] = dict(zip(body.inputs, operands, strict=True))
    for node in body.nodes:
        if node.outputs[0] in known:
            continue
        if node.op == "constant":
            value = node.outputs[0]
            known[value] = value if _symbolic(operands) else constant_beside(operands[0], node.attrs["value"])
            continue
        found = bind(OPS[node.op], [known[v] for v in node.inputs], dict(node.attrs))
        known.update(zip(node.outputs, found if node.multiple else (found,), strict=True))
    return [known[v] for v in results_of(body)]


def _symbolic(operands: Iterable[Any]) -> bool:
    return any(isinstance(x, Value) for x in operands)


def body_cost(body: Graph) -> Any:
    """Operations of one run."""
    return sum(OPS[n.op].cost(*(v.spec for v in n.inputs), **n.attrs) for n in body.nodes)


def body_reference(body: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One run by the references of the ops in the body."""
    known: dict[Value, Any] = dict(zip(body.inputs, arrays, strict=True))
    for node in body.nodes:
        if node.op == "constant":
            known[node.outputs[0]] = node.attrs["value"].array
        elif node.op != "input":
            reference: Any = OPS[node.op].reference
            found = reference(*(known[v] for v in node.inputs), **node.attrs)
            known.update(zip(node.outputs, found if node.multiple else (found,), strict=True))
    return [np.asarray(known[v]) for v in results_of(body)]


def _fits(body: Graph, operands: Sequence[Spec], what: str) -> None:
    wanted = tuple(v.spec for v in body.inputs)
    if wanted != tuple(operands):
        raise ShapeError(f"operands do not fit the {what}", expected=str(wanted), received=str(tuple(operands)))


def _keeps(results: Sequence[Spec], operands: Sequence[Spec], what: str) -> None:
    """A loop's values keep their shapes and dtypes."""
    for i, (new, old) in enumerate(zip(results, operands, strict=False)):
        if new != old:
            raise ShapeError(
                f"the {what} changes value {i} of the loop", expected=f"{old}, as it comes in", received=str(new),
                fix="Start with the shape and dtype that the loop computes, or use ops.astype",
            )  # fmt: skip


def _specs(values: Iterable[Value]) -> tuple[Spec, ...]:
    return tuple(v.spec for v in values)


def _gradients(ys: Sequence[Value], xs: Sequence[Value], flows: Sequence[Any]) -> list[Value]:
    from unilayers.autodiff import gradients  # autodiff is built on ops

    return gradients(list(ys), list(xs), list(flows))


def backward_body(body: Graph, flowing: Sequence[int]) -> Graph:
    """A body's gradient: a function of its inputs and of what flows into the results with the numbers ``flowing``, that
    gives a gradient for every float input. It computes again what it needs of the body."""
    results = results_of(body)
    flows = [leaf("input", f"g{i}", results[i].spec) for i in flowing]
    wanted = [v for v in body.inputs if is_float(v.dtype)]
    with tracing():
        found = _gradients([results[i] for i in flowing], wanted, flows)
    return subgraph([*body.inputs, *flows], found)


def _for_floats(operands: Sequence[Any], found: Iterable[Any]) -> list[Any]:
    """Gradients in the places of the float operands, None for the others."""
    given = iter(found)
    return [next(given) if is_float(ops.dtype_of(x)) else None for x in operands]


def _flowing(g: Sequence[Any]) -> list[int]:
    return [i for i, x in enumerate(g) if x is not None]


def sample_body(function: Any, *specs: Spec) -> Graph:
    """A body for samples, from a function of its inputs that returns a tuple."""
    inputs = [leaf("input", f"x{i}", s) for i, s in enumerate(specs)]
    with tracing():
        return Graph(tuple(inputs), (), named(function(*inputs)))


F64, I32 = Spec((), "float64"), Spec((), "int32")

# ---- switch -----------------------------------------------------------------


def _switch_infer(index: Spec, *operands: Spec, branches: tuple[Graph, ...]) -> tuple[Spec, ...]:
    if index != I32:
        raise ShapeError("the index is not a number", expected=str(I32), received=str(index))
    first = _specs(results_of(branches[0]))
    for i, branch in enumerate(branches):
        _fits(branch, operands, f"branch {i}")
        found = _specs(results_of(branch))
        if found != first or not first:
            raise ShapeError(f"branch {i} gives something else", expected=str(first), received=str(found))
    return first


def _switch_vjp(g: Any, y: Any, index: Any, *operands: Any, branches: tuple[Graph, ...]) -> list[Any]:
    flowing = _flowing(g)
    back = tuple(backward_body(b, flowing) for b in branches)
    if not results_of(back[0]):
        return [None] * (len(operands) + 1)
    found = switch_op(index, *operands, *(g[i] for i in flowing), branches=back)
    return [None, *_for_floats(operands, found)]


def _switch_reference(index: np.ndarray, *operands: np.ndarray, branches: tuple[Graph, ...]) -> Any:
    return tuple(body_reference(branches[min(max(int(index), 0), len(branches) - 1)], operands))


def _switch_samples(rng: np.random.Generator) -> list[Sample]:
    specs = Spec((3,), "float64"), Spec((2, 3), "float64")
    branches = tuple(
        sample_body(f, *specs)
        for f in (
            lambda a, b: (a * b, ops.sum(a)),
            lambda a, b: (b, ops.sum(b)),
            lambda a, b: (ops.tanh(b) + a, ops.sum(ops.square(a))),
        )
    )
    a, b = rng.normal(size=3), rng.normal(size=(2, 3))
    return [Sample((np.array(i, np.int32), a, b), {"branches": branches}) for i in (0, 1, 2, -4, 7)]


SWITCH = register(
    Op(
        "switch", _switch_infer, _switch_vjp, reference=_switch_reference, samples=_switch_samples,
        cost=lambda *specs, branches: max(body_cost(b) for b in branches),
        defaults={"branches": ()}, operands=("index", "*operands"), bodies=("branches",),
        doc="Runs one of several branches on the operands: the one with the number index, or the nearest there is.",
    )
)  # fmt: skip


def switch_op(index: Any, *operands: Any, branches: tuple[Graph, ...]) -> tuple[Any, ...]:
    return bind(SWITCH, (index, *operands), {"branches": branches})


# ---- scan -------------------------------------------------------------------


def _scan_infer(*operands: Spec, body: Graph, carried: int, scanned: int, reverse: bool) -> tuple[Spec, ...]:
    sequences = operands[carried : carried + scanned]
    if not sequences or any(s.ndim == 0 or s.shape[0] != sequences[0].shape[0] for s in sequences):
        raise ShapeError("nothing to loop over", expected="arrays of one length", received=str(sequences))
    slices = [s.with_shape(s.shape[1:]) for s in sequences]
    _fits(body, (*operands[:carried], *slices, *operands[carried + scanned :]), "body")
    results = _specs(results_of(body))
    _keeps(results, operands[:carried], "body")
    length = sequences[0].shape[0]
    return (*results[:carried], *(s.with_shape((length, *s.shape)) for s in results[carried:]))


def _scan_vjp(
    g: Any, y: Any, *operands: Any, body: Graph, carried: int, scanned: int, reverse: bool
) -> Sequence[Any]:  # fmt: skip
    """A loop the other way round. It carries the gradients of the carried values and the sums of those of the
    constants, and reads what the rule of each step needs: the forward loop, run with these as further results (the
    same loop once ``merge_scans`` has seen both)."""
    inputs, results = body.inputs, results_of(body)
    floats = [i for i, v in enumerate(inputs) if is_float(v.dtype)]
    states = [i for i in floats if i < carried]
    constants = [i for i in floats if i >= carried + scanned]
    sequences = [i for i in floats if carried <= i < carried + scanned]
    outs = [i for i in _flowing(g) if i >= carried]
    state_flows = [leaf("input", f"g{i}", results[i].spec) for i in states]
    out_flows = [leaf("input", f"g{i}", results[i].spec) for i in outs]
    sums = [leaf("input", f"sum{i}", inputs[i].spec) for i in constants]
    with tracing():
        ys = [results[i] for i in (*states, *outs)]
        found = dict(zip(floats, _gradients(ys, [inputs[i] for i in floats], [*state_flows, *out_flows]), strict=True))
        totals = [ops.add(total, found[i]) for total, i in zip(sums, constants, strict=True)]
    stepped = [*(found[i] for i in states), *totals, *(found[i] for i in sequences)]
    saved = _saved(body, carried, scanned, stepped)
    whole = Graph(inputs, (), named((*results, *saved)))
    kept = scan_op(*operands, body=whole, carried=carried, scanned=scanned, reverse=reverse)[len(results) :]
    xs, rest = inputs[carried : carried + scanned], inputs[carried + scanned :]
    back = scan_op(
        *(g[i] if g[i] is not None else ops.zeros_like(y[i]) for i in states),
        *(ops.zeros_like(operands[i]) for i in constants),
        *(g[i] for i in outs), *kept, *operands[carried:],
        body=subgraph([*state_flows, *sums, *out_flows, *saved, *xs, *rest], stepped),
        carried=len(states) + len(constants), scanned=len(outs) + len(saved) + scanned, reverse=not reverse,
    ) if stepped else ()  # fmt: skip
    given: list[Any] = [None] * len(operands)
    for i, gradient in zip((*states, *constants, *sequences), back, strict=True):
        given[i] = gradient
    return given


def _saved(body: Graph, carried: int, scanned: int, stepped: Sequence[Value]) -> list[Value]:
    """The values of a step that its gradient reads, without the slices, which are there anyway. What depends on
    constants alone is computed again."""
    slices = set(body.inputs[carried : carried + scanned])
    varying = {*body.inputs[: carried + scanned]}
    for node in body.nodes:
        if any(v in varying for v in node.inputs):
            varying.update(node.outputs)
    found: dict[Value, None] = {}
    seen: set[Value] = set()
    stack = list(stepped)
    while stack:
        v = stack.pop()
        if v in seen:
            continue
        seen.add(v)
        if v in varying:
            found[v] = None
        else:
            stack.extend(v.node.inputs)
    return [v for v in found if v not in slices]


def _scan_reference(
    *operands: np.ndarray, body: Graph, carried: int, scanned: int, reverse: bool
) -> tuple[np.ndarray, ...]:  # fmt: skip
    carry, sequences, rest = (
        list(operands[:carried]),
        operands[carried : carried + scanned],
        operands[carried + scanned :],
    )
    rows, steps = [], range(len(sequences[0]))
    for t in reversed(steps) if reverse else steps:
        found = body_reference(body, [*carry, *(x[t] for x in sequences), *rest])
        carry = found[:carried]
        rows.append(found[carried:])
    columns = zip(*(reversed(rows) if reverse else rows), strict=True)
    return (*carry, *(np.stack(column) for column in columns))


def _scan_samples(rng: np.random.Generator) -> list[Sample]:
    vector, matrix = Spec((3,), "float64"), Spec((3, 3), "float64")
    cell = sample_body(
        lambda h, x, w: (ops.tanh(ops.matmul(h, w) + x), ops.sum(h * x), ops.matmul(h, w)), vector, vector, matrix
    )
    counting = sample_body(lambda n, x, y: (n + 1, x * ops.astype(n, "float64") + y), I32, vector, vector)
    mapped = sample_body(lambda x, a: (ops.sin(x) * a,), F64, F64)
    xs, ys, h = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=3)
    w, n = rng.normal(size=(3, 3)), np.array(0, np.int32)
    return [
        Sample((h, xs, w), {"body": cell, "carried": 1, "scanned": 1, "reverse": False}),
        Sample((h, xs, w), {"body": cell, "carried": 1, "scanned": 1, "reverse": True}),
        Sample((n, xs, ys), {"body": counting, "carried": 1, "scanned": 2, "reverse": True}),
        Sample((xs[:, 0], h[0]), {"body": mapped, "carried": 0, "scanned": 1, "reverse": False}),
    ]


def _scan_cost(*specs: Spec, body: Graph, carried: int, scanned: int, reverse: bool) -> Any:
    return specs[carried].shape[0] * body_cost(body)


SCAN = register(
    Op(
        "scan", _scan_infer, _scan_vjp, cost=_scan_cost, reference=_scan_reference, samples=_scan_samples,
        defaults={"body": None, "carried": 0, "scanned": 1, "reverse": False}, operands=("*operands",),
        bodies=("body",),
        doc="Loops over the leading axis of arrays: the body takes the carried values, a slice of each array and the "
        "constants, and gives the next carried values and further results, which are stacked.",
    )
)  # fmt: skip


def scan_op(*operands: Any, body: Graph, carried: int, scanned: int, reverse: bool = False) -> tuple[Any, ...]:
    return bind(SCAN, operands, {"body": body, "carried": carried, "scanned": scanned, "reverse": reverse})


# ---- while_loop ---------------------------------------------------------------


def _while_infer(*operands: Spec, cond: Graph, body: Graph, carried: int, maximum: int | None) -> tuple[Spec, ...]:
    _fits(cond, operands, "condition")
    _fits(body, operands, "body")
    verdict = _specs(results_of(cond))
    if verdict != (Spec((), "bool"),):
        raise ShapeError("the condition of a loop is one bool", received=", ".join(map(str, verdict)))
    results = _specs(results_of(body))
    _keeps(results, operands[:carried], "body")
    if len(results) != carried or not carried:
        raise GraphError("wrong number of loop values", expected=str(carried), received=str(len(results)))
    return results


def _while_vjp(
    g: Any, y: Any, *operands: Any, cond: Graph, body: Graph, carried: int, maximum: int | None
) -> Sequence[Any]:  # fmt: skip
    """A loop of known length in which the body runs as long as the condition holds has a gradient: that of ``scan``."""
    if maximum is None:
        raise GraphError(
            "while_loop has a gradient only if its number of steps is bounded", fix="Pass maximum_iterations"
        )
    going, count = leaf("input", "going", Spec((), "bool")), leaf("input", "count", I32)
    inputs = body.inputs
    with tracing():
        go = ops.logical_and(going, run_body(cond, inputs)[0])
        stay = Graph(inputs, (), named(inputs[:carried]))
        new = switch_op(ops.astype(go, "int32"), *inputs, branches=(stay, body))
    bounded = Graph((going, *inputs[:carried], count, *inputs[carried:]), (), named((go, *new)))
    start, steps = _beside(operands[0], np.array(True)), _beside(operands[0], np.arange(maximum, dtype=np.int32))
    given = _scan_vjp(
        (None, *g), (start, *y), start, *operands[:carried], steps, *operands[carried:],
        body=bounded, carried=carried + 1, scanned=1, reverse=False,
    )  # fmt: skip
    return [*given[1 : carried + 1], *given[carried + 2 :]]


def _beside(x: Any, array: np.ndarray) -> Any:
    """A constant for an operation with x."""
    return constant(array) if isinstance(x, Value) else put_beside(x, array)


def _while_reference(*operands: np.ndarray, cond: Graph, body: Graph, carried: int, maximum: int | None) -> Any:
    carry, rest, count = list(operands[:carried]), operands[carried:], 0
    while (maximum is None or count < maximum) and body_reference(cond, [*carry, *rest])[0]:
        carry, count = body_reference(body, [*carry, *rest]), count + 1
    return tuple(carry)


def _while_samples(rng: np.random.Generator) -> list[Sample]:
    vector = Spec((3,), "float64")
    specs = (I32, vector, vector)
    cond = sample_body(lambda n, x, a: (n < 5,), *specs)
    body = sample_body(lambda n, x, a: (n + 1, ops.sin(x) * a + x), *specs)
    far = sample_body(lambda x, a: (ops.sum(ops.square(x)) < 20.0,), vector, vector)
    grow = sample_body(lambda x, a: (x * 1.5 + a,), vector, vector)
    x, a, n = rng.normal(size=3), rng.uniform(0.5, 1, 3), np.array(2, np.int32)
    return [
        Sample((n, x, a), {"cond": cond, "body": body, "carried": 2, "maximum": 8}),
        Sample((n, x, a), {"cond": cond, "body": body, "carried": 2, "maximum": 2}),
        Sample((n * 5, x, a), {"cond": cond, "body": body, "carried": 2, "maximum": 2}),
        Sample((x, a), {"cond": far, "body": grow, "carried": 1, "maximum": None}, False),
        Sample((x, a), {"cond": far, "body": grow, "carried": 1, "maximum": 20}),
    ]


def _while_cost(*specs: Spec, cond: Graph, body: Graph, carried: int, maximum: int | None) -> Any:
    return (maximum or 1) * (body_cost(body) + body_cost(cond))


WHILE = register(
    Op(
        "while_loop", _while_infer, _while_vjp, cost=_while_cost, reference=_while_reference, samples=_while_samples,
        defaults={"cond": None, "body": None, "carried": 1, "maximum": None}, operands=("*operands",),
        bodies=("cond", "body"),
        doc="Repeats the body on the carried values while the condition on them holds, at most maximum times.",
    )
)  # fmt: skip


def while_op(*operands: Any, cond: Graph, body: Graph, carried: int, maximum: int | None) -> tuple[Any, ...]:
    return bind(WHILE, operands, {"cond": cond, "body": body, "carried": carried, "maximum": maximum})


# ---- barrier --------------------------------------------------------------------

BARRIER = register(
    Op(
        "barrier", lambda x, *after: x, lambda g, y, x, *after: (g, *(None for _ in after)),
        reference=lambda x, *after: x,
        samples=lambda rng: [Sample((rng.normal(size=(2, 3)), rng.normal(size=3))), Sample((rng.normal(size=3),))],
        operands=("x", "*after"),
        doc="x, used only once ``after`` is computed. No compiler merges what is computed from the result with what is "
        "computed from x.",
    )
)  # fmt: skip


# ---- functions with a gradient of their own ----------------------------------------


def _body_infer(*operands: Spec, body: Graph, **attrs: Any) -> tuple[Spec, ...]:
    _fits(body, operands, "function")
    return _specs(results_of(body))


def _body_expand(*operands: Any, body: Graph, **attrs: Any) -> tuple[Any, ...]:
    return tuple(run_body(body, operands))


def _custom_vjp(g: Any, y: Any, *operands: Any, body: Graph, pull: Graph, returned: int) -> list[Any]:
    """What the user's function says; for values that it reads (they are results, too), the gradient of the body."""
    floats = [i for i in range(returned) if is_float(ops.dtype_of(y[i]))]
    flows = [g[i] if g[i] is not None else ops.zeros_like(y[i]) for i in floats]
    found = _for_floats(operands, run_body(pull, [*operands, *y[returned:], *flows]))
    flowing = [i for i in _flowing(g) if i >= returned]
    if flowing:
        more = _for_floats(operands, run_body(backward_body(body, flowing), [*operands, *(g[i] for i in flowing)]))
        found = [a if b is None else ops.add(a, b) for a, b in zip(found, more, strict=True)]
    return found


def _custom_samples(rng: np.random.Generator) -> list[Sample]:
    vector = Spec((3,), "float64")
    body = sample_body(lambda x: (ops.log(1.0 + ops.exp(x)), ops.exp(x)), vector)
    pull = sample_body(lambda x, e, g: (g * (1.0 - 1.0 / (1.0 + e)),), vector, vector, vector)
    return [Sample((rng.normal(size=3),), {"body": body, "pull": pull, "returned": 1})]


CUSTOM = register(
    Op(
        "custom", _body_infer, _custom_vjp, _body_expand, cost=lambda *specs, body, **attrs: body_cost(body),
        reference=lambda *operands, body, **attrs: tuple(body_reference(body, operands)), samples=_custom_samples,
        defaults={"body": None, "pull": None, "returned": 1}, operands=("*operands",), bodies=("body", "pull"),
        doc="A function whose gradient is another function, of the operands, of further results and of what flows in.",
    )
)  # fmt: skip


def custom_op(*operands: Any, body: Graph, pull: Graph, returned: int) -> tuple[Any, ...]:
    return bind(CUSTOM, operands, {"body": body, "pull": pull, "returned": returned})


def _checkpoint_vjp(g: Any, y: Any, *operands: Any, body: Graph) -> list[Any]:
    flowing = _flowing(g)
    flows = [g[i] for i in flowing]
    again = [bind(BARRIER, (x, *flows), {}) for x in operands]
    return _for_floats(operands, run_body(backward_body(body, flowing), [*again, *flows]))


def _checkpoint_samples(rng: np.random.Generator) -> list[Sample]:
    vector, matrix = Spec((3,), "float64"), Spec((3, 2), "float64")
    body = sample_body(lambda x, w: (ops.tanh(ops.matmul(ops.sin(x), w)), ops.sum(x)), vector, matrix)
    chain = sample_body(lambda x: (ops.sin(x) * x,), vector)
    return [
        Sample((rng.normal(size=3), rng.normal(size=(3, 2))), {"body": body}),
        Sample((rng.normal(size=3),), {"body": chain}),
    ]


CHECKPOINT = register(
    Op(
        "checkpoint", _body_infer, _checkpoint_vjp, _body_expand, cost=lambda *specs, body: body_cost(body),
        reference=lambda *operands, body: tuple(body_reference(body, operands)), samples=_checkpoint_samples,
        defaults={"body": None}, operands=("*operands",), bodies=("body",),
        doc="A function whose gradient computes the function again instead of keeping what it needs of it.",
    )
)  # fmt: skip


def checkpoint_op(*operands: Any, body: Graph) -> tuple[Any, ...]:
    return bind(CHECKPOINT, operands, {"body": body})
