"""Branches and loops on every backend, eager and compiled, against the same loops in plain Python."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from tests.test_ops import all_calls
from unilayers import ops
from unilayers.backend import Backend
from unilayers.graph import OPS, Graph, leaf, make_node, tracing
from unilayers.graph.emit import own_results
from unilayers.ops.define import bind
from unilayers.program import compile_graph
from unilayers.spec import Spec

Arrays = Sequence[np.ndarray]


def as_body(function: Callable[..., Any], *specs: Spec) -> Graph:
    """A Python function of values as a graph."""
    inputs = [leaf("input", f"x{i}", s) for i, s in enumerate(specs)]
    with tracing():
        results = function(*inputs)
        return Graph(
            tuple(inputs),
            (),
            {str(i): ops.constant(v) if isinstance(v, np.ndarray) else v for i, v in enumerate(results)},
        )


def spec(x: np.ndarray) -> Spec:
    return Spec(x.shape, x.dtype.name)


def compiled(name: str, arrays: Arrays, backend: Backend, **attrs: Any) -> list[np.ndarray]:
    leaves = [leaf("input", f"x{i}", spec(a)) for i, a in enumerate(arrays)]
    graph = Graph(tuple(leaves), (), {str(i): v for i, v in enumerate(make_node(OPS[name], leaves, attrs))})
    function = compile_graph(graph, backend, "cpu")
    for _ in range(2):  # what the first run leaves behind must not be seen in the second
        _, outputs = function([], backend.put(arrays, "cpu"))
    return [backend.get(outputs[name]) for name in graph.outputs]


def eager(name: str, arrays: Arrays, backend: Backend, **attrs: Any) -> list[np.ndarray]:
    found = bind(OPS[name], backend.put(arrays, "cpu"), attrs)
    return [np.asarray(backend.get(y)) for y in found]


HOW = {"eager": eager, "compiled": compiled}


@pytest.fixture(params=HOW)
def run(request: pytest.FixtureRequest, backend: Backend) -> Callable[..., list[np.ndarray]]:
    """``run(op, arrays, **attrs)`` on a backend."""
    return lambda name, *arrays, **attrs: HOW[request.param](name, list(map(np.asarray, arrays)), backend, **attrs)


def check(found: Arrays, wanted: Arrays, what: str) -> None:
    assert len(found) == len(wanted)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert spec(a) == spec(np.asarray(b)), f"{what}, result {i}: {spec(a)}"
        close = {"float32": 1e-5, "float64": 1e-12}.get(a.dtype.name, 0)
        assert_close(a, np.asarray(b), rtol=close, atol=close, what=f"{what}, result {i}")


# ---- scan ---------------------------------------------------------------------------


def cell(h: Any, n: Any, x: Any, flag: Any, w: Any) -> Any:
    """Carries a state and a count; gives the old state, whether it stays small, and a number of the slice."""
    new = ops.tanh(ops.matmul(h, w) + x)
    return new, n + 1, h, ops.logical_and(flag, ops.less(ops.sum(ops.square(new)), 1.5)), ops.sum(x)


def cells_by_hand(h: Any, n: Any, xs: Any, flags: Any, w: Any, reverse: bool) -> list[np.ndarray]:
    length = len(xs)
    ys = [np.zeros((length, *h.shape), h.dtype), np.zeros(length, bool), np.zeros(length, h.dtype)]
    for t in range(length)[:: -1 if reverse else 1]:
        new = np.tanh(h @ w + xs[t])
        ys[0][t], ys[1][t], ys[2][t] = h, flags[t] and (new**2).sum() < 1.5, xs[t].sum()
        h, n = new, n + np.int32(1)
    return [h, n, *ys]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 5])
def test_scan(run: Any, length: int, reverse: bool, dtype: str) -> None:
    rng = np.random.default_rng(length)
    h, w = rng.normal(size=(2, 3)).astype(dtype), rng.normal(size=(3, 3)).astype(dtype)
    xs, flags = rng.normal(size=(length, 2, 3)).astype(dtype), rng.random(length) < 0.7
    n = np.int32(40)
    small = Spec((2, 3), dtype)
    body = as_body(cell, small, Spec((), "int32"), small, Spec((), "bool"), spec(w))
    found = run("scan", h, n, xs, flags, w, body=body, carried=2, scanned=2, reverse=reverse)
    check(found, cells_by_hand(h, n, xs, flags, w, reverse), f"scan of {length}")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool", "float16", "float64"])
def test_scan_of_dtypes(run: Any, dtype: str) -> None:
    """Values of 64 bits keep them, those of 8 wrap; a map without carries."""
    x = np.array([1, 0, 1, 1, 1]).astype(dtype) if dtype == "bool" else np.array([100, 50, 27, 1, 2]).astype(dtype)
    if dtype in ("int64", "float64"):
        x = x + np.asarray(2**40, dtype)
    step = ops.logical_xor if dtype == "bool" else ops.add
    body = as_body(lambda total, v: (step(total, v), total), Spec((), dtype), Spec((), dtype))
    totals = [np.zeros((), dtype)]
    with np.errstate(all="ignore"):
        for v in x:
            totals.append(np.asarray(totals[-1] ^ v if dtype == "bool" else totals[-1] + v, dtype))
    found = run("scan", np.zeros((), dtype), x, body=body, carried=1, scanned=1, reverse=False)
    check(found, [totals[-1], np.array(totals[:-1])], dtype)
    twice = as_body(lambda v: (step(v, v),), Spec((), dtype))
    check(run("scan", x, body=twice, carried=0, scanned=1, reverse=False), [x ^ x if dtype == "bool" else x + x], "map")


def test_scan_returns_what_it_is_given(run: Any) -> None:
    """Slices, constants, carries that are exchanged, one value as several results, a constant of the body."""
    a, b, xs, c = (np.arange(2.0) + 10 * i for i in range(4))
    xs = np.stack([xs, xs + 1, xs + 2])
    pair = Spec((2,), "float64")
    fixed = np.array([7.0, 8.0])
    body = as_body(lambda a, b, x, c: (b, a, x, x, c, fixed, a, ops.flip(x, 0)), pair, pair, pair, pair)
    found = run("scan", a, b, xs, c, body=body, carried=2, scanned=1, reverse=False)
    rows = [xs, xs, np.stack([c] * 3), np.stack([fixed] * 3), np.stack([a, b, a]), xs[:, ::-1]]
    check(found, [b, a, *rows], "what comes in")
    body = as_body(lambda a, x: (x, fixed), pair, pair)
    check(run("scan", a, xs, body=body, carried=1, scanned=1, reverse=True), [xs[0], rows[3]], "the last slice")


def test_scan_over_strides(run: Any) -> None:
    """Slices along the first axis of a transposed array, that lie apart from each other in memory."""
    x = np.arange(24.0).reshape(2, 3, 4)
    row = Spec((2, 4), "float64")
    inner = as_body(lambda total, v: (total + ops.transpose(v), ops.matmul(v, total)), Spec((4, 2), "float64"), row)

    def whole(total: Any, x: Any) -> Any:
        attrs = {"body": inner, "carried": 1, "scanned": 1, "reverse": False}
        return make_node(OPS["scan"], (total, ops.permute_dims(x, (1, 0, 2))), attrs)

    branch = as_body(whole, Spec((4, 2), "float64"), Spec((2, 3, 4), "float64"))
    total, ys = np.zeros((4, 2)), []
    for t in range(3):
        ys.append(x[:, t] @ total)
        total = total + x[:, t].T
    check(run("switch", np.int32(0), np.zeros((4, 2)), x, branches=(branch,)), [total, np.stack(ys)], "strides")


def test_constants_over_strides(backend: Backend) -> None:
    """A constant that is a view of something else, seen in another shape by the body; with other values every run."""
    a, xs = leaf("input", "a", Spec((2, 3), "float64")), leaf("input", "xs", Spec((4, 6), "float64"))
    row, turned = Spec((6,), "float64"), Spec((3, 2), "float64")
    body = as_body(lambda h, x, c: (h + x * ops.reshape(c, (6,)),), row, row, turned)
    branch = as_body(lambda c, h: (ops.reshape(c, (6,)) + h,), turned, row)
    with tracing():
        flat, view = ops.reshape(a, (6,)), ops.transpose(a)
        attrs = {"body": body, "carried": 1, "scanned": 1, "reverse": False}
        (total,) = make_node(OPS["scan"], (flat, xs, view), attrs)
        (after,) = make_node(OPS["switch"], (ops.constant(0), view, total), {"branches": (branch,)})
    function = compile_graph(Graph((a, xs), (), {"total": total, "after": after}), backend, "cpu")
    for seed in range(3):
        values = [np.random.default_rng(seed).normal(size=v.shape) for v in (a, xs)]
        _, outputs = function([], backend.put(values, "cpu"))
        wanted = values[0].reshape(6) + (values[1] * values[0].T.reshape(6)).sum(0)
        found = [backend.get(outputs[name]) for name in ("total", "after")]
        check(found, [wanted, values[0].T.reshape(6) + wanted], f"run {seed}")


# ---- while_loop -----------------------------------------------------------------------


def collatz(n: Any, steps: Any, big: Any, three: Any) -> Any:
    odd = ops.equal(ops.remainder(n, 2), 1)
    return ops.where(odd, three * n + 1, ops.floor_divide(n, 2)), steps + 1, ops.logical_or(big, n > 50)


@pytest.mark.parametrize("maximum", [None, 0, 1, 6, 1000, 2**40])
@pytest.mark.parametrize("start", [1, 2, 7])
def test_while_loop(run: Any, start: int, maximum: int | None) -> None:
    """Counts the steps of a well-known sequence; from 1 it takes none."""
    number, count, flag = Spec((), "int64"), Spec((), "int32"), Spec((), "bool")
    specs = (number, count, flag, number)
    n, steps, big = start, 0, False
    while n != 1 and (maximum is None or steps < maximum):
        big |= n > 50
        n, steps = (3 * n + 1 if n % 2 else n // 2), steps + 1
    found = run(
        "while_loop", np.int64(start), np.int32(0), np.bool_(False), np.int64(3), carried=3, maximum=maximum,
        cond=as_body(lambda n, steps, big, three: (ops.not_equal(n, 1),), *specs), body=as_body(collatz, *specs),
    )  # fmt: skip
    check(found, [np.int64(n), np.int32(steps), np.bool_(big)], f"from {start}")


def test_while_loop_on_arrays(run: Any) -> None:
    """Newton's root of every element until all are close, with a constant array; carries change places."""
    a, x = np.array([2.0, 9.0, 0.25]), np.ones(3)
    specs = [spec(x)] * 3

    def close(x: Any, old: Any, a: Any) -> Any:
        return (ops.max(ops.abs(x - old)) > 1e-9,)

    found = run(
        "while_loop", x, x + 1, a, carried=2, maximum=None, cond=as_body(close, *specs),
        body=as_body(lambda x, old, a: (0.5 * (x + a / x), x), *specs),
    )  # fmt: skip
    new, old = x, x + 1
    while np.abs(new - old).max() > 1e-9:
        new, old = 0.5 * (new + a / new), new
    check(found, [new, old], "roots")


# ---- switch, and all of them together -----------------------------------------------------


@pytest.mark.parametrize("index", [-3, 0, 1, 2, 9])
def test_switch(run: Any, index: int) -> None:
    x, n, fixed = np.array([1.0, 2.0]), np.int32(3), np.array([5.0, 6.0])
    specs = spec(x), Spec((), "int32")
    branches = tuple(
        as_body(f, *specs)
        for f in (lambda x, n: (x, n, x), lambda x, n: (x * 2, n + 1, x * 2), lambda x, n: (fixed, n, x))
    )
    wanted = [(x, n, x), (x * 2, n + np.int32(1), x * 2), (fixed, n, x)][min(max(index, 0), 2)]
    check(run("switch", np.int32(index), x, n, branches=branches), wanted, f"branch {index}")


def test_switch_of_one(run: Any) -> None:
    branch = as_body(lambda x: (x + 1,), Spec((2,), "float64"))
    check(run("switch", np.int32(3), np.zeros(2), branches=(branch,)), [np.ones(2)], "one branch")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nested(run: Any, dtype: str) -> None:
    """A while loop over a switch, one of whose branches is a scan, whose body holds a switch."""
    number, vector, count = Spec((), dtype), Spec((3,), dtype), Spec((), "int32")

    def inner(total: Any, x: Any) -> Any:
        less = as_body(lambda t, x: (t + x,), number, number)
        more = as_body(lambda t, x: (t * 0.5,), number, number)
        index = ops.astype(total > 4.0, "int32")
        (new,) = make_node(OPS["switch"], (index, total, x), {"branches": (less, more)})
        return new, new

    def scanned(total: Any, xs: Any) -> Any:
        body = as_body(inner, number, number)
        attrs = {"body": body, "carried": 1, "scanned": 1, "reverse": False}
        total, ys = make_node(OPS["scan"], (total, xs), attrs)
        return total, ys

    def step(turn: Any, total: Any, xs: Any) -> Any:
        plain = as_body(lambda t, xs: (t + 1, xs - 1), number, vector)
        nested = as_body(scanned, number, vector)
        found = make_node(OPS["switch"], (ops.remainder(turn, 2), total, xs), {"branches": (nested, plain)})
        return turn + 1, *found

    specs = count, number, vector
    turn, total, xs = 0, np.asarray(1.0, dtype), np.arange(3).astype(dtype)
    found = run(
        "while_loop", np.int32(turn), total, xs, carried=3, maximum=9,
        cond=as_body(lambda turn, total, xs: (turn < 5,), *specs), body=as_body(step, *specs),
    )  # fmt: skip
    for turn in range(5):
        if turn % 2:
            total, xs = np.asarray(total + 1, dtype), xs - 1
            continue
        ys = []
        for x in xs:
            total = np.asarray(total * 0.5 if total > 4 else total + x, dtype)
            ys.append(total)
        xs = np.array(ys)
    check(found, [np.int32(5), total, xs], "nested")


def test_bodies_that_share_inputs(run: Any) -> None:
    """A branch inside a loop has the very inputs of the loop's body, as what stands for the operands it is given."""
    h, x = (leaf("input", n, Spec((2,), "float64")) for n in "hx")
    with tracing():
        swapped, mixed = Graph((h, x), (), {"0": x}), Graph((h, x), (), {"0": h * 2.0 - x})
        index = ops.astype(ops.sum(h) > 0.0, "int32")
        (new,) = make_node(OPS["switch"], (index, x, h), {"branches": (swapped, mixed)})
    body = Graph((h, x), (), {"0": new, "1": h})
    start, xs, ys = np.array([1.0, -0.5]), np.arange(6.0).reshape(3, 2) - 3, []
    found = run("scan", start, xs, body=body, carried=1, scanned=1, reverse=False)
    now = start
    for row in xs:
        ys.append(now)
        now = row * 2 - now if now.sum() > 0 else now
    check(found, [now, np.stack(ys)], "shared inputs")


# ---- state around control flow --------------------------------------------------------------

RATE = 0.5


def new_state(kind: str, flag: Any, w: Any) -> Any:
    """What state w becomes: half of it, or w itself where the flag is 0; through control flow of a kind."""
    weights = w.spec
    keep, halve = as_body(lambda w: (w,), weights), as_body(lambda w: (w * 0.5,), weights)
    if kind == "switch":
        return make_node(OPS["switch"], (flag, w), {"branches": (keep, halve)})[0]
    if kind == "while_loop":
        specs = Spec((), "int32"), weights
        attrs = {
            "cond": as_body(lambda n, w: (n > 0,), *specs), "body": as_body(lambda n, w: (n - 1, w * 0.5), *specs),
            "carried": 2, "maximum": None,
        }  # fmt: skip
        return make_node(OPS["while_loop"], (flag, w), attrs)[1]
    if kind == "scan":  # whose last slice is the result
        xs = ops.stack([w, w * ops.where(ops.equal(flag, 0), 1.0, 0.5)])
        attrs = {"body": as_body(lambda h, x: (x,), weights, weights), "carried": 1, "scanned": 1, "reverse": False}
        return make_node(OPS["scan"], (w, xs), attrs)[0]
    if kind == "rows":  # which a scan gives back as they come
        body = as_body(lambda n, x: (n + 1, x), flag.spec, Spec((3,)))
        return make_node(OPS["scan"], (flag, w), {"body": body, "carried": 1, "scanned": 1, "reverse": False})[1]
    assert kind == "constants"
    fixed = [as_body(lambda w, value=v: (np.full(w.shape, value, "float32"),), weights) for v in (3.0, 4.0)]
    return make_node(OPS["switch"], (flag, w), {"branches": tuple(fixed)})[0]


def becomes(kind: str, flag: int, w: np.ndarray) -> np.ndarray:
    if kind == "constants":
        return np.full_like(w, 3.0 + flag)
    if kind == "rows":
        return w
    return w * np.float32(0.5) if flag else w


@pytest.mark.parametrize("kind", ["switch", "while_loop", "scan", "rows", "constants"])
def test_state_through_control_flow(backend: Backend, kind: str) -> None:
    """State that a branch may return as it is, also as an output and as another state, is not corrupted by a step that
    writes its update in place, then or later; nor is a constant of a branch."""
    flag, g = leaf("input", "flag", Spec((), "int32")), leaf("input", "g", Spec((2, 3)))
    w, other = leaf("state", "w", Spec((2, 3))), leaf("state", "other", Spec((2, 3)))
    with tracing():
        chosen = new_state(kind, flag, w)
        (moved,) = ops.sgd_update(RATE, other, g, count=1)
        moves = Graph((flag, g), (w, other), {"chosen": chosen, "old": w}, {"w": chosen, "other": moved})
        (straight,) = ops.sgd_update(RATE, w, g, count=1)
        same = Graph((flag, g), (w, other), {"chosen": chosen}, {"w": straight, "other": chosen})
    steps = [compile_graph(graph, backend, "cpu") for graph in (moves, same)]
    start = [np.arange(6, dtype="float32").reshape(2, 3), np.ones((2, 3), "float32")]
    state, (gradient,) = backend.put(start, "cpu"), backend.put([np.ones((2, 3), "float32")], "cpu")
    flags = backend.put([np.int32(0), np.int32(1)], "cpu")
    a, b = start
    seen: list[tuple[Any, np.ndarray]] = []
    for turn, flag_now in enumerate((0, 1, 0, 0, 1, 0)):
        state, outputs = steps[turn % 2](state, [flags[flag_now], gradient])
        chosen_now = becomes(kind, flag_now, a)
        seen.append((outputs["chosen"], chosen_now))
        if turn % 2 == 0:
            seen.append((outputs["old"], a))
        a, b = (chosen_now, b - np.float32(RATE)) if turn % 2 == 0 else (a - np.float32(RATE), chosen_now)
        for array, wanted in zip(state, (a, b), strict=True):
            assert_close(backend.get(array), wanted, rtol=0, atol=0, what=f"{kind}: state after step {turn}")
    for array, wanted in seen:
        assert_close(backend.get(array), wanted, rtol=0, atol=0, what=f"{kind}: an output, looked at in the end")


def test_state_as_an_input() -> None:
    """NumPy reads inputs where they are, also where that is the state; the loop's values must not go there yet."""
    backend = require_backend("numpy")
    x, w = leaf("input", "x", Spec((3, 3))), leaf("state", "w", Spec((3, 3)))
    body = as_body(lambda h, row: (h + row, ops.sum(h)), Spec((3, 3)), Spec((3,)))
    attrs = {"body": body, "carried": 1, "scanned": 1, "reverse": False}
    with tracing():
        h, ys = make_node(OPS["scan"], (ops.zeros((3, 3)), x), attrs)
    step = compile_graph(Graph((x,), (w,), {"y": ys}, {"w": h}), backend, "cpu")
    values = np.arange(9, dtype="float32").reshape(3, 3)
    (array,) = backend.put([values], "cpu")
    (new,), _ = step([array], [array])
    check([backend.get(new)], [np.zeros_like(values) + values.sum(0)], "the new state")


def copied(result: Callable[[Any], Any]) -> bool:
    """Whether ``own_results`` copies what is computed from a state, where control flow may hand operands on."""
    w = leaf("state", "w", Spec((2, 3)))
    with tracing():
        graph = Graph((), (w,), {"y": result(w)})
    owned = own_results(graph, {"switch", "while_loop", "scan", "reshape"})
    return owned.outputs["y"] is not graph.outputs["y"]


def test_only_what_may_be_an_operand_is_copied() -> None:
    def switch(*functions: Callable[[Any], Any]) -> Callable[[Any], Any]:
        branches = tuple(as_body(lambda w, f=f: (f(w),), Spec((2, 3))) for f in functions)
        return lambda w: make_node(OPS["switch"], (ops.constant(0), w), {"branches": branches})[0]

    def scan(f: Callable[[Any, Any], Any], index: int) -> Callable[[Any], Any]:
        body = as_body(f, Spec((3,)), Spec((3,)))
        attrs = {"body": body, "carried": 1, "scanned": 1, "reverse": False}
        return lambda w: make_node(OPS["scan"], (w[0], w), attrs)[index]

    again = lambda w: ops.reshape(ops.reshape(w, (6,)), (2, 3))  # noqa: E731
    assert copied(switch(ops.sin, again)) and copied(switch(again)) and not copied(switch(ops.sin, ops.exp))
    assert copied(switch(switch(ops.sin, again), ops.cos)) and not copied(switch(switch(ops.sin), ops.cos))
    assert copied(scan(lambda h, x: (h + x, x), 1)) and not copied(scan(lambda h, x: (h, ops.sin(x)), 1))
    assert copied(scan(lambda h, x: (h + x, x), 0))


# ---- barrier ------------------------------------------------------------------------------


def test_barrier(run: Any, backend: Backend) -> None:
    x, y = np.arange(3.0), np.ones((2, 2), "float32")
    found = backend.table["barrier"](*backend.put([x, y], "cpu"))
    check([backend.get(found)], [x], "eager")
    a, b = leaf("input", "a", spec(x)), leaf("input", "b", spec(x))
    with tracing():
        first = ops.exp(ops.sin(a))
        again = make_node(OPS["barrier"], (a, first, b), {})[0]
        second = ops.exp(ops.sin(again))
        graph = Graph((a, b), (), {"first": first, "second": second, "again": again, "b": b})
    _, outputs = compile_graph(graph, backend, "cpu")([], backend.put([x, 2 * x], "cpu"))
    wanted = [np.exp(np.sin(x)), np.exp(np.sin(x)), x, 2 * x]
    check([backend.get(outputs[name]) for name in graph.outputs], wanted, "compiled")


def test_what_a_barrier_waits_for_is_not_joined() -> None:
    """A convolution with its bias is one action, unless a barrier waits for the convolution."""
    x, kernel, bias = (
        leaf("input", "x", Spec((1, 5, 2))),
        leaf("input", "k", Spec((3, 2, 2))),
        leaf("input", "b", Spec((2,))),
    )
    for waits in (False, True):
        with tracing():
            filtered = ops.conv(x, kernel)
            later = make_node(OPS["barrier"], (bias, filtered) if waits else (bias,), {})[0]
            graph = Graph((x, kernel, bias), (), {"y": filtered + bias, "z": ops.sin(later)})
        order = [a.op for a in require_backend("numpy").compile(graph, "cpu").plan.actions]
        assert ("conv_bias" in order) is not waits
        assert not waits or order.index("conv") < order.index("sin")


# ---- memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["table", "compile"])
def test_bodies_are_forgotten(backend: Backend, how: str) -> None:
    """What is compiled for a body goes with the body."""
    x, start, attrs = np.arange(3.0), np.zeros(()), {"carried": 1, "scanned": 1, "reverse": False}
    alive = []
    for turn in range(3):
        body = as_body(lambda h, v, turn=turn: (h + v * float(turn), h), Spec((), "float64"), Spec((), "float64"))
        alive.append(weakref.ref(body))
        if how == "table":
            total = backend.table["scan"](*backend.put([start, x], "cpu"), body=body, **attrs)[0]
        else:
            leaves = [leaf("input", f"x{i}", spec(a)) for i, a in enumerate((start, x))]
            graph = Graph(tuple(leaves), (), {"y": make_node(OPS["scan"], leaves, {"body": body, **attrs})[0]})
            total = backend.compile(graph, "cpu")([], backend.put([start, x], "cpu"))[1]["y"]
            del graph, leaves
        check([np.asarray(backend.get(total))], [np.asarray(3.0 * turn)], "sum")
        del body
    gc.collect()
    assert not any(ref() for ref in alive)


def test_every_backend_is_here() -> None:
    assert {"switch", "while_loop", "scan", "barrier"} <= set.intersection(
        *(set(require_backend(b).table) for b in BACKENDS)
    )


def test_barrier_holds_back_in_a_plan() -> None:
    """On NumPy, where the order is free, what reads the barrier's result comes after what the barrier waits for, also
    through views, and where that is a part of a joined action; the barrier itself costs nothing."""
    x, w = leaf("input", "x", Spec((4, 4))), leaf("state", "w", Spec((4, 4)))
    with tracing():
        late = ops.relu(ops.matmul(x, w))
        seen = ops.transpose(make_node(OPS["barrier"], (w, ops.reshape(late, (16,))), {})[0])
        again = make_node(OPS["barrier"], (seen, ops.exp(seen)), {})[0]
        graph = Graph((x,), (w,), {"late": ops.sum(late), "y": ops.sin(ops.sin(again))}, {"w": ops.cos(w)})
    step = require_backend("numpy").compile(graph, "cpu")
    order = [a.op for a in step.plan.actions]
    assert sorted(order) == sorted(["matmul", "relu", "exp", "sin", "sin", "cos", "sum", "return", "return"])
    assert order.index("matmul") < order.index("relu") < order.index("exp") < order.index("sin")
    values = np.random.default_rng(1).normal(size=(2, 4, 4)).astype("float32")
    (new,), outputs = step([values[0].copy()], [values[1]])
    assert_close(outputs["y"], np.sin(np.sin(values[0].T)), rtol=1e-6, atol=0, what="y")
    assert_close(new, np.cos(values[0]), rtol=1e-6, atol=0, what="w")


# ---- TensorFlow: loops that XLA compiles ------------------------------------------------


def test_what_xla_compiles_for_tensorflow_gives_the_same() -> None:
    """Every op that may be in such a loop, on its samples."""
    engine = require_backend("tensorflow")
    tf: Any = pytest.importorskip("tensorflow")
    from unilayers.backends.tensorflow.control import COMPILED

    for name in sorted(COMPILED):
        op = OPS[name]
        for call in all_calls(op):
            function = partial(engine.table[name], **call.attrs)
            arrays = engine.put(call.inputs, "cpu")
            found = tf.function(function, autograph=False, jit_compile=True)(*arrays)
            tolerance = 1e-5 if call.dtype == "float32" else 1e-12
            assert_close(engine.get(found), engine.get(function(*arrays)), rtol=tolerance, atol=tolerance, what=name)


@pytest.mark.parametrize(
    ("long", "function", "compiled"),
    [
        (True, ops.tanh, True),
        (False, ops.tanh, False),
        (True, ops.floor, False),
        (True, lambda x: ops.astype(ops.astype(x, "float16"), "float32"), False),
    ],
)
def test_which_loops_xla_compiles_for_tensorflow(long: bool, function: Any, compiled: bool) -> None:
    engine = require_backend("tensorflow")
    tf: Any = pytest.importorskip("tensorflow")
    from unilayers.backends.tensorflow.control import LONG

    length = LONG if long else LONG - 1
    body = as_body(lambda h, x: (function(h) + x, h), Spec((2,), "float32"), Spec((2,), "float32"))

    @tf.function(autograph=False)
    def step(h: Any, xs: Any) -> Any:
        return engine.table["scan"](h, xs, body=body, carried=1, scanned=1, reverse=False)

    h, xs = np.ones(2, "float32"), np.ones((length, 2), "float32")
    graph = step.get_concrete_function(*engine.put([h, xs], "cpu")).graph.as_graph_def()
    assert any(n.attr["_XlaMustCompile"].b for n in graph.node) is compiled
    reference: Any = OPS["scan"].reference
    for a, b in zip(step(h, xs), reference(h, xs, body=body, carried=1, scanned=1, reverse=False), strict=True):
        assert_close(a.numpy(), b, rtol=1e-3 if long else 1e-5, atol=0, what="results")
