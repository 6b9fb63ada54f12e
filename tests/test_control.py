"""Control flow against plain Python: random programs, values and gradients, on every backend; saved graphs; errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.autodiff import gradients, value_and_grad
from unilayers.backend import get_backend, node_runner
from unilayers.errors import GraphError, ShapeError, UnilayersError
from unilayers.graph import Graph, leaf
from unilayers.graph.passes import every_node, merge_scans, optimise, prune
from unilayers.graph.serialize import from_json, to_json
from unilayers.graph.verify import verify
from unilayers.program import compile_graph
from unilayers.spec import Dim, Spec

# ---- random programs ------------------------------------------------------------
# A program is a list of statements on a state: a vector a, a number b and a counter n.

State = dict[str, Any]
ROWS = np.linspace(-1.0, 1.0, 12).reshape(4, 3)  # what loops go over

STEPS: dict[str, Callable[[Any, State], State]] = {  # written once: m is numpy or ops
    "sine": lambda m, s: {**s, "a": m.sin(s["a"]) * s["b"]},
    "mix": lambda m, s: {**s, "a": s["a"] * 0.5 + s["b"], "b": m.sum(s["a"]) * 0.3},
    "squash": lambda m, s: {**s, "b": m.tanh(s["b"] + m.sum(s["a"] * s["a"]))},
    "count": lambda m, s: {**s, "n": s["n"] + 1},
    "swap": lambda m, s: {**s, "a": s["a"] - s["b"], "b": s["b"] * 1.5},
}

step = st.sampled_from(sorted(STEPS)).map(lambda name: ("step", name))
question = st.one_of(
    st.sampled_from(["a", "b"]).map(lambda name: ("positive", name)), st.integers(0, 3).map(lambda k: ("below", k))
)


def programs(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    block = st.lists(inner, min_size=1, max_size=2)
    return st.one_of(
        st.tuples(st.just("if"), question, block, block),
        st.tuples(st.just("switch"), st.lists(block, min_size=2, max_size=3)),
        st.tuples(st.just("for"), st.integers(0, 3), block),
        st.tuples(st.just("while"), st.integers(1, 4), block),
        st.tuples(st.just("scan"), st.booleans(), block),
        st.tuples(st.just("map"), block),
    )


program = st.lists(st.recursive(step, programs, max_leaves=5), min_size=1, max_size=3)


class Plain:
    """Runs a program with Python's own control flow and NumPy, and notes how near a decision was to the other one."""

    def __init__(self) -> None:
        self.margin = np.inf

    def asks(self, what: tuple[str, Any], s: State) -> bool:
        if what[0] == "below":
            return bool(s["n"] < what[1])
        value = float(np.sum(s[what[1]]))
        self.margin = min(self.margin, abs(value))
        return value > 0

    def block(self, statements: list[Any], s: State) -> State:
        for statement in statements:
            s = self.one(statement, s)
        return s

    def one(self, statement: Any, s: State) -> State:
        match statement:
            case ("step", name):
                return STEPS[name](np, s)
            case ("if", what, yes, no):
                return self.block(yes if self.asks(what, s) else no, s)
            case ("switch", branches):
                return self.block(branches[min(max(s["n"], 0), len(branches) - 1)], s)
            case ("for", count, body):
                for _ in range(count):
                    s = self.block(body, s)
                return s
            case ("while", limit, body):
                for _ in range(limit):
                    if not np.sum(s["b"]) < 2.0:
                        break
                    self.margin = min(self.margin, abs(float(s["b"]) - 2.0))
                    s = self.block(body, s)
                return s
            case ("scan", backwards, body):
                seen = []
                for row in ROWS[::-1] if backwards else ROWS:
                    s = self.block(body, {**s, "a": s["a"] + row})
                    seen.append(s["a"] * s["b"])
                seen = seen[::-1] if backwards else seen
                return {**s, "a": s["a"] + np.stack(seen)[0] - np.stack(seen)[-1] * 0.5}
            case ("map", body):
                mapped = [self.block(body, {**s, "a": row})["a"] for row in ROWS]
                return {**s, "a": s["a"] * 0.3 + np.sum(np.stack(mapped), 0)}
        raise AssertionError(statement)


class Traced(Plain):
    """Runs a program with ``ops``."""

    def asks(self, what: tuple[str, Any], s: State) -> Any:
        return s["n"] < what[1] if what[0] == "below" else ops.sum(s[what[1]]) > 0.0

    def one(self, statement: Any, s: State) -> State:
        match statement:
            case ("step", name):
                return STEPS[name](ops, s)
            case ("if", what, yes, no):
                return ops.cond(self.asks(what, s), lambda s: self.block(yes, s), lambda s: self.block(no, s), s)
            case ("switch", branches):
                return ops.switch(s["n"], [lambda b=b: self.block(b, s) for b in branches])  # by what stands around
            case ("for", count, body):
                return ops.fori_loop(0, count, lambda i, s: self.block(body, s), s)
            case ("while", limit, body):
                (s,) = ops.while_loop(lambda s: s["b"] < 2.0, lambda s: (self.block(body, s),), (s,), limit)
                return s
            case ("scan", backwards, body):

                def go(s: State, row: Any) -> tuple[State, Any]:
                    s = self.block(body, {**s, "a": s["a"] + row})
                    return s, s["a"] * s["b"]

                s, seen = ops.scan(go, s, self.rows(s), reverse=backwards)
                return {**s, "a": s["a"] + seen[0] - seen[-1] * 0.5}
            case ("map", body):
                mapped = ops.map(lambda row: self.block(body, {**s, "a": row})["a"], self.rows(s))
                return {**s, "a": s["a"] * 0.3 + ops.sum(mapped, 0)}
        raise AssertionError(statement)

    def rows(self, s: State) -> Any:
        return ops.add(ROWS, s["a"] * 0.0)  # an array of the engine


def result(m: Any, run: Plain, statements: list[Any], a: Any, b: Any, n: Any) -> Any:
    s = run.block(statements, {"a": a, "b": b, "n": n})
    return m.sum(s["a"] * s["a"]) + s["b"]


A, B = np.array([0.3, -0.7, 0.5]), np.array(0.4)
EXAMPLES = {"numpy": 60, "torch": 40}  # the others compile slowly


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_programs(backend: str) -> None:
    engine = require_backend(backend)

    @settings(
        max_examples=EXAMPLES.get(backend, 6), deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )  # fmt: skip
    @given(program)
    def check(statements: list[Any]) -> None:
        plain = Plain()
        expected = result(np, plain, statements, A, B, 0)
        assume(plain.margin > 1e-3 and abs(expected) < 1e6)
        slopes = [numeric(lambda a: result(np, Plain(), statements, a, B, 0), A)]
        slopes.append(numeric(lambda b: result(np, Plain(), statements, A, b, 0), B))
        for how, found in (("compiled", compiled(statements, engine)), ("eager", eager(statements, engine))):
            assert_close(found[0], np.asarray(expected), rtol=1e-9, atol=1e-9, what=f"{how} value")
            for g, e in zip(found[1:], slopes, strict=True):
                assert_close(g, e, rtol=1e-5, atol=1e-5 * max(1.0, abs(expected)), what=f"{how} gradient")

    check()


def numeric(function: Callable[[np.ndarray], Any], x: np.ndarray, h: float = 1e-6) -> np.ndarray:
    slope = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        d = np.zeros_like(x)
        d[i] = h
        slope[i] = (function(x + d) - function(x - d)) / (2 * h)
    return slope


def compiled(statements: list[Any], engine: Any) -> list[np.ndarray]:
    """The program as a graph that has been through JSON, with its gradient."""
    a, b, n = (
        leaf("input", k, Spec(s, d)) for k, s, d in (("a", (3,), "float64"), ("b", (), "float64"), ("n", (), "int32"))
    )
    y = result(ops, Traced(), statements, a, b, n)
    graph = verify(Graph((a, b, n), (), {"y": y, **dict(zip("ab", gradients(y, [a, b]), strict=True))}))
    graph = from_json(to_json(graph))
    device = engine.device("cpu")
    _, found = compile_graph(graph, engine, device)([], engine.put([A, B, np.array(0, np.int32)], device))
    return [engine.get(found[k]) for k in ("y", "a", "b")]


def eager(statements: list[Any], engine: Any) -> list[np.ndarray]:
    a, b = engine.put([A, B], engine.device("cpu"))
    y, found = value_and_grad(lambda a, b: result(ops, Traced(), statements, a, b, 0), (0, 1))(a, b)
    return [np.asarray(ops.to_numpy(x)) for x in (y, *found)]


# ---- what compilers make of it ------------------------------------------------------


def run(graph: Graph, arrays: list[np.ndarray], backend: str = "numpy", **sizes: int) -> dict[str, np.ndarray]:
    engine = require_backend(backend)
    device = engine.device("cpu")
    _, found = compile_graph(verify(graph), engine, device, sizes)([], engine.put(arrays, device))
    return {k: engine.get(v) for k, v in found.items()}


def optimised(graph: Graph) -> Graph:
    engine = get_backend("numpy")
    return verify(optimise(graph, engine.table, node_runner(engine, "cpu")))


def symbols(*shapes: tuple[Any, ...]) -> list[Any]:
    return [leaf("input", f"x{i}", Spec(s, "float64")) for i, s in enumerate(shapes)]


def recurrent(x: Any, w: Any) -> tuple[Any, Any]:
    """The last state and all states of a network over the rows of x."""
    return ops.scan(lambda h, row: (ops.tanh(row + ops.matmul(h, w)),) * 2, ops.zeros_like(x[0]), x)


def test_a_loop_and_its_gradient_are_two_loops() -> None:
    """What the gradient needs of the forward loop is taken from the forward loop, not computed again; and the gradient
    of the data, which nobody asks for, is not computed at all."""
    x, w = symbols((5, 2, 3), (3, 3))
    loss = ops.sum(ops.square(recurrent(x, w)[1]))
    graph = optimised(Graph((x, w), (), {"loss": loss, "w": gradients(loss, [w])[0]}))
    loops = [n for n in every_node(graph) if n.op == "scan"]
    assert len(loops) == 2 and [n.attrs["reverse"] for n in loops] == [False, True]
    work = [sum(n.op in ("matmul", "tanh") for n in every_node(loop.attrs["body"])) for loop in loops]
    assert work == [2, 1]  # forward: product and tanh; back: the product for the state
    assert len(loops[1].outputs) == 2  # the state, and rows for the weights: they are one product after the loop


def adding(rows: Any, columns: Any) -> tuple[Any, ...]:
    """Sums over steps, all linear in products or sums, and one that is neither."""

    def step(totals: Any, now: Any) -> Any:
        a, b, c, d, e = totals
        x, y = now
        a = a + ops.matmul(ops.transpose(x), y)
        b = ops.matmul(x, ops.transpose(y)) + b
        c = c + ops.sum(y, 0) + ops.reshape(ops.matmul(x, ops.transpose(x)), (-1,))[:3]
        d = d - ops.pad(-ops.sum(x, 0, keepdims=True), ((0, 0), (1, 0)))
        return (a, b, c, d, e + ops.exp(x)), None

    x = rows[0]
    start = (ops.ones_like(ops.matmul(ops.transpose(x), x)), ops.zeros_like(ops.matmul(x, ops.transpose(x))))
    start = (*start, ops.zeros_like(x[0]), ops.pad(x[:1], ((0, 0), (1, 0))), x)
    return tuple(ops.scan(step, start, (rows, columns), reverse=True)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_of_products_are_taken_after_the_loop(backend: str) -> None:
    x, y = symbols((5, 2, 3), (5, 2, 3))
    graph = Graph((x, y), (), {str(i): v for i, v in enumerate(adding(x, y))})
    engine, rng = require_backend(backend), np.random.default_rng(0)
    (loop,) = (n for n in optimise(graph, engine.table, node_runner(engine, "cpu")).nodes if n.op == "scan")
    assert loop.attrs["carried"] == len(loop.outputs) == 1
    assert not any(n.op in ("matmul", "sum") for n in loop.attrs["body"].nodes)
    a, b = rng.normal(size=(2, 5, 2, 3))
    summed = -np.pad(-a.sum((0, 1), keepdims=True)[0], ((0, 0), (1, 0)))
    expected = [
        1 + np.einsum("tbi,tbj->ij", a, b), np.einsum("tbi,tci->bc", a, b),
        b.sum((0, 1)) + np.stack([(r @ r.T).ravel()[:3] for r in a]).sum(0),
        np.pad(a[0, :1], ((0, 0), (1, 0))) + summed, a[0] + np.exp(a).sum(0),
    ]  # fmt: skip
    for i, (found, wanted) in enumerate(zip(run(graph, [a, b], backend).values(), expected, strict=True)):
        assert_close(found, wanted, rtol=1e-12, atol=1e-12, what=f"sum {i}")


def test_sums_stay_in_loops_where_they_would_take_much_memory() -> None:
    """What is added depends on large values that are made in each step, from small rows."""
    x, w = symbols((50, 2, 2), (2, 100))

    def step(total: Any, row: Any) -> Any:
        wide = ops.exp(ops.matmul(row, w))
        return total + ops.matmul(ops.transpose(wide), wide), None

    total, _ = ops.scan(step, ops.zeros((100, 100), "float64"), x)
    (loop,) = (n for n in optimised(Graph((x, w), (), {"y": total})).nodes if n.op == "scan")
    assert len(loop.outputs) == 1 and any(n.op == "exp" for n in loop.attrs["body"].nodes)


def test_a_saved_loop_is_saved_once() -> None:
    x, w = symbols((5, 3), (3, 3))
    loss = ops.sum(recurrent(x, w)[1])
    again = from_json(to_json(Graph((x, w), (), {"w": gradients(loss, [w])[0], "loss": loss})))
    assert sum(n.op == "scan" for n in again.nodes) == 2
    assert merge_scans(again) is again and str(from_json(to_json(again))) == str(again)


def test_pruning_keeps_the_numbers() -> None:
    """Results, carried values and branches that nobody reads go; what does not change in a loop leaves it."""
    x, w = symbols((4, 3), (3,))

    def step(state: Any, row: Any) -> Any:
        used, fixed, unused = state
        return (used * fixed + row, fixed, unused + ops.exp(row)), (ops.sin(used), ops.cos(unused))

    (used, fixed, _), (sines, _) = ops.scan(step, (w, w * 2.0, w), x)
    graph = Graph((x, w), (), {"used": used, "fixed": fixed, "sines": sines})
    (loop,) = (n for n in prune(graph).nodes if n.op == "scan")
    assert (loop.attrs["carried"], len(loop.outputs)) == (1, 2)
    assert not any(n.op in ("exp", "cos") for n in loop.attrs["body"].nodes)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(4, 3)), rng.normal(size=3)]
    state, seen = arrays[1], []
    for row in arrays[0]:
        seen.append(np.sin(state))
        state = state * 2 * arrays[1] + row
    found = run(graph, arrays)
    for name, expected in (("used", state), ("fixed", 2 * arrays[1]), ("sines", np.stack(seen))):
        assert_close(found[name], expected, rtol=1e-12, atol=0, what=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unknown_sizes(backend: str) -> None:
    """Batch and length known only when a graph is compiled."""
    batch, length = Dim.symbol("batch"), Dim.symbol("length")
    x, w = symbols((length, batch, 3), (3, 3))
    last, _ = recurrent(x, w)
    graph = from_json(to_json(Graph((x, w), (), {"last": last, "w": gradients(ops.sum(last), [w])[0]})))
    assert graph.symbols == {"batch", "length"}
    rng = np.random.default_rng(0)
    for sizes in ({"batch": 2, "length": 4}, {"batch": 1, "length": 1}):
        arrays = [rng.normal(size=(sizes["length"], sizes["batch"], 3)), rng.normal(size=(3, 3))]
        found = run(graph, arrays, backend, **sizes)
        state = np.zeros((sizes["batch"], 3))
        for row in arrays[0]:
            state = np.tanh(row + state @ arrays[1])
        assert_close(found["last"], state, rtol=1e-12, atol=1e-12, what="last")


# ---- checkpoints and gradients of one's own -------------------------------------------


def deep(x: Any, w: Any, wrap: Callable[..., Any]) -> Any:
    block = wrap(lambda x: ops.tanh(ops.tanh(ops.tanh(ops.matmul(x, w) * 1.1) * 1.2) * 1.3))
    for _ in range(6):
        x = block(x)
    return ops.sum(ops.square(x))


def test_checkpoint_keeps_less_and_computes_more() -> None:
    from unilayers.backends.numpy.plan import Plan

    x, w = symbols((64, 32), (32, 32))
    found = {}
    for name, wrap in (("plain", lambda f: f), ("checkpoint", ops.checkpoint)):
        loss = deep(x, w, wrap)
        graph = Graph((x, w), (), {"loss": loss, "w": gradients(loss, [w])[0]})
        ready = optimised(graph)
        count = sum(n.op == "tanh" for n in every_node(ready))
        rng = np.random.default_rng(0)
        numbers = run(graph, [rng.normal(size=(64, 32)), rng.normal(size=(32, 32)) * 0.2])
        found[name] = (count, Plan(ready, get_backend("numpy").table).lower_bound, numbers)
    (few, much, a), (many, little, b) = found["plain"], found["checkpoint"]
    assert (few, many) == (18, 36)
    assert little < 0.6 * much
    for name in a:
        assert_close(b[name], a[name], rtol=1e-12, atol=0, what=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_checkpoint_on_every_backend(backend: str) -> None:
    engine = require_backend(backend)
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(4, 3)), rng.normal(size=(3, 3))]
    x, w = symbols((4, 3), (3, 3))
    expected = run(Graph((x, w), (), {"w": gradients(deep(x, w, lambda f: f), [w])[0]}), arrays)["w"]
    traced = run(Graph((x, w), (), {"w": gradients(deep(x, w, ops.checkpoint), [w])[0]}), arrays, backend)["w"]
    now = value_and_grad(lambda w, x: deep(x, w, ops.checkpoint))(*engine.put(arrays[::-1], engine.device("cpu")))[1]
    for found in (traced, engine.get(now)):
        assert_close(found, expected, rtol=1e-10, atol=1e-12, what="gradient")


@ops.custom_gradient
def log1pexp(x: Any) -> Any:
    e = ops.exp(x)
    return ops.log(1.0 + e), lambda g: g * (1.0 - 1.0 / (1.0 + e))


@ops.custom_gradient
def twice_wrong(a: Any, n: Any, b: Any) -> Any:
    """Two results, an integer among the arguments, and a gradient that is not that of the function."""
    return (a * b, a + b), lambda g, h: (g * 10.0, None, h * ops.astype(n, "float64"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_custom_gradient(backend: str) -> None:
    """Eagerly and traced, first and second derivative; finite where the usual rule gives nan."""
    engine = require_backend(backend)
    x0 = np.array([-2.0, 0.5, 800.0])
    s = 1 / (1 + np.exp(-x0))
    (x,) = symbols((3,))
    first = gradients(ops.sum(log1pexp(x)), [x])[0]
    traced = run(Graph((x,), (), {"1": first, "2": gradients(ops.sum(first), [x])[0]}), [x0], backend)
    array = engine.put([x0], engine.device("cpu"))[0]

    def slope(x: Any) -> Any:
        return value_and_grad(lambda x: ops.sum(log1pexp(x)))(x)[1]

    now = [slope(array), value_and_grad(lambda x: ops.sum(slope(x)))(array)[1]]
    for order, expected in (("1", s), ("2", s * (1 - s))):
        for found in (traced[order], engine.get(now[int(order) - 1])):
            assert_close(found[:2], expected[:2], rtol=1e-9, atol=1e-12, what=f"derivative {order}")
    assert traced["1"][2] == 1.0 and engine.get(now[0])[2] == 1.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_custom_gradient_of_several(backend: str) -> None:
    engine = require_backend(backend)
    values = [np.array([1.0, 2.0]), np.array(3, np.int32), np.array([5.0, 7.0])]
    a, n, b = (leaf("input", f"x{i}", Spec(v.shape, v.dtype.name)) for i, v in enumerate(values))

    def total(a: Any, b: Any, n: Any) -> Any:
        y, z = twice_wrong(a, n, b)
        return ops.sum(y) + ops.sum(z * 2.0)

    y = total(a, b, n)
    graph = from_json(to_json(Graph((a, n, b), (), dict(zip("yab", [y, *gradients(y, [a, b])], strict=True)))))
    found = run(graph, values, backend)
    place = engine.device("cpu")
    now, slopes = value_and_grad(lambda a, b: total(a, b, engine.put([values[1]], place)[0]), (0, 1))(
        *engine.put([values[0], values[2]], place)
    )
    expected = {"y": np.array(19.0 + 30.0), "a": np.full(2, 10.0), "b": np.full(2, 6.0)}
    for name, e in expected.items():
        assert_close(found[name], e, rtol=1e-12, atol=0, what=f"traced {name}")
    for name, x in zip("yab", [now, *slopes], strict=True):
        assert_close(engine.get(x), expected[name], rtol=1e-12, atol=0, what=f"eager {name}")


# ---- structures, numbers, variables ------------------------------------------------


def test_structures_and_numbers() -> None:
    """Nested states of any kind, None among results, Python numbers that take the other's dtype."""
    x = leaf("input", "x", Spec((3,), "float32"))
    state, y = ops.scan(
        lambda s, row: ({"sum": s["sum"] + row, "pair": (s["pair"][1], s["pair"][0] + 1)}, [row * 2.0, None]),
        {"sum": 0.0, "pair": (0, 1)}, x,
    )  # fmt: skip
    assert y[1] is None and isinstance(y, list) and state["pair"][0].dtype == "int32"
    chosen = ops.cond(ops.sum(x) > 0.0, lambda: (x[0], 1), lambda: (0.0, 2))
    graph = Graph((x,), (), dict(enumerate([state["sum"], *state["pair"], y[0], *chosen])))  # type: ignore[arg-type]
    found = run(graph, [np.array([1, 2, 3], "float32")])
    assert [found[i].tolist() for i in range(6)] == [6.0, 2, 2, [2.0, 4.0, 6.0], 1.0, 1]  # type: ignore[index]


ERRORS: list[tuple[Callable[[Any], Any], type[UnilayersError], str]] = [
    (lambda x: ops.cond(x > 0.0, lambda: x, lambda: x), ShapeError, "the condition is not one bool"),
    (lambda x: ops.cond(x[0] > 0.0, lambda: x, lambda: (x, x)), GraphError, "another structure"),
    (lambda x: ops.cond(x[0] > 0.0, lambda: x, lambda: x[:1]), ShapeError, "true_fn gives another shape or dtype"),
    (lambda x: ops.scan(lambda s, r: (ops.astype(s, "float32"), None), x, x), ShapeError, "another shape or dtype"),
    (lambda x: ops.scan(lambda s, r: s + r, x[0], x), GraphError, "must return two things"),
    (lambda x: ops.scan(lambda s, r: (s, r), x, (x, x[:2])), ShapeError, "arrays of different lengths"),
    (lambda x: ops.while_loop(lambda s: s[0] > 0.0, lambda s: (s, s), x), GraphError, "another structure"),
    (lambda x: ops.switch(1, []), GraphError, "no branches"),
    (
        lambda x: gradients(ops.while_loop(lambda s: s[0] > 0.0, lambda s: s - 1.0, x), [x]), GraphError,
        "while_loop has a gradient only if its number of steps is bounded. Pass maximum_iterations.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[e[2][:30] for e in ERRORS])
def test_error(call: Callable[[Any], Any], error: type[UnilayersError], message: str) -> None:
    with pytest.raises(error) as raised:
        call(leaf("input", "x", Spec((3,), "float64")))
    assert message in str(raised.value)


def test_wrong_number_of_gradients() -> None:
    wrong = ops.custom_gradient(lambda a, b: (a * b, lambda g: g))
    with pytest.raises(GraphError, match="one for each float argument"):
        wrong(*symbols((3,), (3,)))
