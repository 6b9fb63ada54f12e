"""The compiler of the embedded backend against a straight line of table calls: every op, and random graphs."""

from __future__ import annotations

import math
import random
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unilayers.backends.numpy import fuse as fusing
from unilayers.backends.numpy import kernels
from unilayers.backends.numpy import plan as planning
from unilayers.backends.numpy import state as state_rules
from unilayers.backends.numpy.arena import Storage, lower_bound, place
from unilayers.backends.numpy.order import ordered
from unilayers.backends.numpy.table import numpy_like

from tests.compare import assert_close
from tests.host_cuda import OtherModule
from tests.test_ops import attrs_in_dtype
from unilayers import ops
from unilayers.autodiff import gradients
from unilayers.backend import get_backend
from unilayers.errors import BackendError, DataError, GraphError
from unilayers.graph import OPS, Graph, Sample, Value, leaf, make_node, tracing
from unilayers.graph.emit import straight_line
from unilayers.graph.passes import eliminate_common, lower
from unilayers.graph.verify import verify
from unilayers.program import Program, compile_graph
from unilayers.spec import Dim, Spec
from unilayers.variable import Trace, Variable, trace_into

BACKEND = get_backend("numpy")
NAIVE = numpy_like(np)
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}


def planned(graph: Graph) -> Any:
    """The compiled graph, without the passes that would tidy it up first."""
    return BACKEND.compile(lower(verify(graph), BACKEND.table), "cpu")


def naive(graph: Graph) -> Callable[..., Any]:
    """The same by plain table calls, each into a new array."""
    step = straight_line(lower(graph, NAIVE), NAIVE, lambda a: a)

    def run(state: list[np.ndarray], inputs: Sequence[np.ndarray]) -> Any:
        with np.errstate(all="ignore"):
            return step(state, inputs)

    return run


def assert_same(found: Any, wanted: Any, factor: float = 1.0, what: str = "result") -> None:
    """Shape and dtype equal, elements close for their dtype."""
    close = TOLERANCE.get(np.asarray(wanted).dtype.name, 0.0) * factor
    assert_close(found, wanted, rtol=close, atol=close, what=what)


# ---- every op ---------------------------------------------------------------------

SAMPLES = [
    pytest.param(name, i, dtype, id=f"{name}-{i}-{dtype}")
    for name, op in OPS.items()
    if op.samples is not None
    for i, sample in enumerate(op.samples(np.random.default_rng(0)))
    for dtype in ("float32", "float64")
]


def arrays_of(sample: Sample, dtype: str) -> list[np.ndarray]:
    arrays = [np.asarray(a) for a in sample.inputs]
    return [a.astype(dtype) if a.dtype == np.float64 else a for a in arrays]


def graph_of(name: str, attrs: dict[str, Any], arrays: Sequence[np.ndarray]) -> Graph:
    """One op on inputs like these arrays."""
    leaves = [leaf("input", f"x{i}", Spec(a.shape, a.dtype.name)) for i, a in enumerate(arrays)]
    with tracing():
        results = make_node(OPS[name], leaves, {**OPS[name].defaults, **attrs})
    return Graph(tuple(leaves), (), {f"y{i}": v for i, v in enumerate(results)})


def check_sample(name: str, index: int, dtype: str) -> None:
    op = OPS[name]
    assert op.samples is not None
    sample, other = (op.samples(np.random.default_rng(seed))[index] for seed in (0, 1))
    arrays = arrays_of(sample, dtype)
    graph = graph_of(name, attrs_in_dtype(op, sample.attrs, dtype), arrays)
    step = planned(graph)
    step([], arrays_of(other, dtype))  # leaves its traces in the buffers
    kept = [a.copy() for a in arrays]
    _, found = step([], arrays)
    _, wanted = naive(graph)([], arrays)
    for key, value in wanted.items():
        assert_same(found[key], value, max(1.0, op.tolerance / 1e-5))
    for before, after in zip(kept, arrays, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("name", "index", "dtype"), SAMPLES)
def test_every_op_by_its_kernel(name: str, index: int, dtype: str) -> None:
    check_sample(name, index, dtype)


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which kernels begin to work in rows and blocks, made so small that samples of ops reach them."""
    small = {
        "ROW": 8, "WORTH": 1, "BLOCK": 3, "COLUMN_BYTES": 64, "BLOCK_ROWS": 4, "RESULT_BYTES": 128, "LARGEST_TABLE": 2,
        "SHORT": 4, "FEW": 0,
    }  # fmt: skip
    for module in [m for m in vars(kernels).values() if isinstance(m, ModuleType)]:
        for name in small.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, small[name])


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize(("name", "index", "dtype"), [p for p in SAMPLES if p.values[2] == "float64"])
def test_every_op_in_blocks(name: str, index: int, dtype: str) -> None:
    check_sample(name, index, dtype)


@pytest.mark.parametrize("name", sorted(n for n in BACKEND.table if OPS[n].composite and OPS[n].samples is not None))
def test_fused_ops_run_eagerly_as_their_expansion(name: str) -> None:
    op = OPS[name]
    assert op.samples is not None
    for sample in op.samples(np.random.default_rng(2)):
        arrays = arrays_of(sample, "float64")
        found = BACKEND.table[name](*arrays, **{**op.defaults, **sample.attrs})
        wanted = naive(graph_of(name, dict(sample.attrs), arrays))([], arrays)[1]
        found = found if isinstance(found, tuple) else (found,)
        for y, (_, value) in zip(found, wanted.items(), strict=True):
            assert_same(y, value)


# ---- random graphs ------------------------------------------------------------------

SHAPES = [(3, 4), (4, 3), (12,), (3, 1), (4,), (), (2, 2, 3), (1, 4)]
Choose = Callable[[int], int]


def _reshaped(x: Value, choose: Choose) -> Value | None:
    fits = [s for s in SHAPES if np.prod(s, dtype=int) == np.prod(x.shape, dtype=int)]
    return ops.reshape(x, fits[choose(len(fits))]) if fits else None


def _sliced(x: Value, choose: Choose) -> Value:
    axis = choose(x.ndim)
    start, step = choose(2), 1 + choose(2)
    return ops.slice_axis(x, axis, min(start, x.shape[axis] - 1), x.shape[axis], step)


def _taken(x: Value, choose: Choose) -> Value:
    index = ops.argmax(x, choose(x.ndim))
    return ops.take(x, ops.astype(ops.minimum(index, 0), "int32"), axis=0)


def _selected(x: Value, choose: Choose) -> Value:
    other = ops.sin(x) if choose(2) else 0.5
    return ops.where(x > 0.1, x, other) if choose(2) else ops.where(x > 0.1, other, x)


# Each makes a value from one or two others; None where they do not fit.
RULES: list[Callable[[Value, Value, Choose], Value | None]] = [
    lambda a, b, choose: a + b if _broadcast(a, b) else None,
    lambda a, b, choose: a * b if _broadcast(a, b) else None,
    lambda a, b, choose: a - b if _broadcast(a, b) else None,
    lambda a, b, choose: ops.maximum(a, b) if _broadcast(a, b) else None,
    lambda a, b, choose: a + a,
    lambda a, b, choose: ops.tanh(a),
    lambda a, b, choose: ops.relu(a),
    lambda a, b, choose: ops.sigmoid(a),
    lambda a, b, choose: a * 0.5,
    lambda a, b, choose: _selected(a, choose),
    lambda a, b, choose: _reshaped(a, choose),
    lambda a, b, choose: ops.transpose(a),
    lambda a, b, choose: ops.flip(a, choose(a.ndim)) if a.ndim else None,
    lambda a, b, choose: _sliced(a, choose) if a.ndim else None,
    lambda a, b, choose: ops.broadcast_to(a, b.shape) if _stretches(a, b) else None,
    lambda a, b, choose: ops.identity(a),
    lambda a, b, choose: ops.stop_gradient(a),
    lambda a, b, choose: ops.concat([a, b], 0) if a.ndim and a.ndim == b.ndim and a.shape[1:] == b.shape[1:] else None,
    lambda a, b, choose: (
        ops.matmul(a, ops.transpose(b)) if a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1] else None
    ),
    lambda a, b, choose: ops.sum(a, choose(a.ndim), keepdims=bool(choose(2))) if a.ndim else None,
    lambda a, b, choose: ops.softmax(a) if a.ndim else None,
    lambda a, b, choose: ops.pad(a, [(1, 0)] + [(0, 0)] * (a.ndim - 1), constant_values=0.25) if a.ndim else None,
    lambda a, b, choose: _taken(a, choose) if a.ndim else None,
]


def _broadcast(a: Value, b: Value) -> bool:
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        return False
    return True


def _stretches(a: Value, b: Value) -> bool:
    return _broadcast(a, b) and np.broadcast_shapes(a.shape, b.shape) == b.shape


def more_values(values: list[Value], choose: Choose, rules: Sequence[Any], count: int) -> list[Value]:
    """The values, and others made from them by rules."""
    values = list(values)
    with tracing():
        for _ in range(count):
            made = rules[choose(len(rules))](values[choose(len(values))], values[choose(len(values))], choose)
            if made is not None and np.prod(made.shape, dtype=int) <= 200:
                values.append(made)
    return values


def random_body(specs: Sequence[Spec], results: Sequence[Spec], free: int, choose: Choose, depth: int) -> Graph:
    """A body for these inputs with results of the given kinds, and some of any kind behind them."""
    inputs = [leaf("input", f"x{i}", s) for i, s in enumerate(specs)]
    values = more_values(inputs, choose, RULES if not depth else [*RULES, *control_rules(depth - 1)], choose(7))
    fits = [[v for v in values if v.spec == s] for s in results]
    found = [f[choose(len(f))] for f in fits] + [values[choose(len(values))] for _ in range(free)]
    return Graph(tuple(inputs), (), {str(i): v for i, v in enumerate(found)})


def control_rules(depth: int) -> list[Callable[[Value, Value, Choose], Value | None]]:
    """Rules that make a value by branches and loops, over bodies that may hold more of them.

    One operand is given in several places, so that nothing can be overwritten that is read elsewhere.
    """

    def number(x: Value) -> Value:
        return ops.astype(ops.sum(x) * 1.5, "int32")

    def switch(a: Value, b: Value, choose: Choose) -> Value:
        branches = tuple(random_body([a.spec, b.spec], [a.spec, b.spec], 0, choose, depth) for _ in range(2))
        return make_node(OPS["switch"], (number(a), a, b), {"branches": branches})[choose(2)]

    def scan(a: Value, b: Value, choose: Choose) -> Value | None:
        if not a.ndim:
            return None
        row = Spec(a.shape[1:], a.dtype)
        body = random_body([a.spec, b.spec, row, b.spec], [a.spec, b.spec], 2, choose, depth)
        attrs = {"body": body, "carried": 2, "scanned": 1, "reverse": bool(choose(2))}
        return make_node(OPS["scan"], (a, b, a, b), attrs)[choose(4)]

    def while_loop(a: Value, b: Value, choose: Choose) -> Value:
        count = Spec((), "int32")
        turn, *inputs = (leaf("input", f"x{i}", s) for i, s in enumerate((count, a.spec, b.spec, a.spec)))
        inner = random_body([v.spec for v in inputs], [a.spec, b.spec], 0, choose, depth)
        with tracing():
            new = make_node(OPS["switch"], (ops.constant(0), *inputs), {"branches": (inner,)})
            body = Graph((turn, *inputs), (), {str(i): v for i, v in enumerate((turn + 1, *new))})
            cond = Graph((turn, *inputs), (), {"0": turn < 3})
        attrs = {"cond": cond, "body": body, "carried": 3, "maximum": choose(4)}
        return make_node(OPS["while_loop"], (number(b) * 0, a, b, a), attrs)[1 + choose(2)]

    return [switch, scan, while_loop]


def random_graph(choose: Choose, rules: Sequence[Any] = ()) -> Graph:
    """A graph with inputs, state, updates and outputs chosen from whatever has been made, also by further rules."""
    inputs = [leaf("input", f"x{i}", Spec(SHAPES[choose(len(SHAPES))], "float64")) for i in range(1 + choose(2))]
    state = [leaf("state", f"s{i}", Spec(SHAPES[choose(3)], "float64")) for i in range(1 + choose(4))]
    values = more_values([*inputs, *state], choose, [*RULES, *rules], 2 + choose(14))
    updates = {}
    for v in state:
        fits = [w for w in values if w.spec == v.spec]
        if choose(4):
            updates[v.node.attrs["name"]] = fits[choose(len(fits))]
    outputs = {f"y{i}": values[choose(len(values))] for i in range(1 + choose(4))}
    return Graph(tuple(inputs), tuple(state), outputs, updates)


def check(graph: Graph, runs: int = 3, tolerance: float = 1.0) -> None:
    """Planned and naive agree, run after run; outputs stay what they are; inputs are not touched."""
    rng = np.random.default_rng(3)
    ours, theirs = planned(graph), naive(graph)
    state = BACKEND.put([rng.normal(size=v.shape) for v in graph.state], "cpu")
    expected = [a.copy() for a in state]
    seen: list[tuple[Any, np.ndarray]] = []
    for _ in range(runs):
        inputs = [rng.normal(size=v.shape) for v in graph.inputs]
        given = [x.copy() for x in inputs]
        state, found = ours(state, inputs)
        expected, wanted = theirs([np.array(a) for a in expected], given)
        for key, value in wanted.items():
            assert_same(found[key], value, tolerance)
            seen.append((found[key], np.array(value)))
        for a, b in zip(state, expected, strict=True):
            assert_same(a, b, tolerance)
        for a, b in zip(inputs, given, strict=True):
            np.testing.assert_array_equal(a, b)
    for array, value in seen:
        assert_same(array, value, tolerance)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_graphs_agree_with_a_straight_line(data: st.DataObject) -> None:
    check(random_graph(lambda n: data.draw(st.integers(0, n - 1))))


@pytest.mark.parametrize("seed", range(60))
def test_seeded_control_flow_agrees_with_python_loops(seed: int) -> None:
    check(random_graph(random.Random(seed).randrange, control_rules(1) * 4), tolerance=1e3)


def by_seed(seed: int) -> Graph:
    source = random.Random(seed)
    return random_graph(source.randrange)


@pytest.mark.parametrize("seed", range(100))
def test_seeded_graphs_agree_with_a_straight_line(seed: int) -> None:
    check(by_seed(seed))


def _no_lifetime(self: Storage, time: int) -> None:
    self.whole.start = self.whole.stop = time


MUTANTS = {
    "lifetimes end too early": (Storage, "touch", _no_lifetime),
    "any operand is overwritten": (planning.Plan, "takes_over", lambda *args: True),
    "old state is not waited for": (planning, "ordered", lambda plan, actions, before: ordered(plan, actions, {})),
    "swapped state is not copied": (planning, "snapshot_exchanged_state", lambda plan, actions: None),
    "readers behind the writer": (state_rules._Waits, "behind", lambda self, action: set()),
    "every value is whole": (planning.Plan, "is_whole", lambda self, value: True),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_planner_would_be_noticed(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises((AssertionError, ValueError)):
        for seed in range(200):
            check(by_seed(seed))


# ---- state ----------------------------------------------------------------------------


def counting(name: str = "s", shape: tuple[int, ...] = (3,)) -> Graph:
    """Adds the input to the state; returns the old value, the new one, and a view of the new one."""
    x, s = leaf("input", "x", Spec(shape, "float64")), leaf("state", name, Spec(shape, "float64"))
    new = s + x
    return Graph((x,), (s,), {"old": s, "new": new, "view": ops.reshape(new, (1, *shape))}, {name: new})


def test_state_is_updated_in_place_and_the_same_list_comes_back() -> None:
    step = planned(counting())
    state = BACKEND.put([np.zeros(3)], "cpu")
    (array,) = state
    new, first = step(state, [np.ones(3)])
    _, second = step(new, [np.ones(3)])
    assert new is state
    assert state[0] is array
    np.testing.assert_array_equal(array, [2.0, 2.0, 2.0])
    np.testing.assert_array_equal([first["old"], first["new"], first["view"][0]], [[0.0] * 3, [1.0] * 3, [1.0] * 3])
    np.testing.assert_array_equal([second["old"], second["new"]], [[1.0] * 3, [2.0] * 3])


def test_state_shifted_along_by_an_input_keeps_what_was_there() -> None:
    x = leaf("input", "x", Spec((3,), "float64"))
    a, b, c = (leaf("state", name, x.spec) for name in "abc")
    for updates in ({"a": b, "b": x}, {"a": x, "b": a}, {"a": b, "b": c, "c": x}, {"c": b, "b": a, "a": x}):
        check(Graph((x,), (a, b, c), {"y": x}, updates))


def test_outputs_share_no_memory_with_anything() -> None:
    step = planned(counting())
    state, x = BACKEND.put([np.zeros(3)], "cpu"), np.ones(3)
    _, outputs = step(state, [x])
    for name, y in outputs.items():
        others = [x, *state, *(v for k, v in outputs.items() if k != name), step._memory]
        assert not any(np.shares_memory(y, other) for other in others)


def test_another_state_links_the_step_again() -> None:
    step = planned(counting())
    a, b = (BACKEND.put([np.full(3, v)], "cpu") for v in (0.0, 10.0))
    for _ in range(2):
        step(a, [np.ones(3)])
        step(b, [np.ones(3)])
    np.testing.assert_array_equal([a[0], b[0]], [[2.0] * 3, [12.0] * 3])
    a[0] = np.full(3, 5.0)  # as an assigned variable does
    step(a, [np.ones(3)])
    np.testing.assert_array_equal(a[0], [6.0] * 3)


def test_two_executables_share_one_state() -> None:
    add, double = planned(counting()), planned(_doubling())
    state = BACKEND.put([np.zeros(3)], "cpu")
    for _ in range(3):
        state, _ = add(state, [np.ones(3)])
        state, _ = double(state, [])
    np.testing.assert_array_equal(state[0], [14.0] * 3)


def _doubling() -> Graph:
    s = leaf("state", "s", Spec((3,), "float64"))
    return Graph((), (s,), {"y": s * 2.0}, {"s": s * 2.0})


def test_state_that_cannot_be_updated_in_place_is_replaced_by_copies() -> None:
    spec = Spec((2, 2), "float64")
    a, b = leaf("state", "a", spec), leaf("state", "b", spec)
    step = planned(Graph((), (a, b), {}, {"a": a + 1.0, "b": b + 10.0}))
    frozen = np.zeros((2, 2))
    frozen.flags.writeable = False
    shared, strided = np.zeros((2, 2)), np.zeros((4, 4))[::2, ::2]
    for state in ([shared, shared], [frozen, strided], [np.asfortranarray(np.zeros((2, 2))), np.zeros((2, 2))]):
        kept = list(state)
        for _ in range(2):
            state, _ = step(state, [])
        np.testing.assert_array_equal(state[0], np.full((2, 2), 2.0))
        np.testing.assert_array_equal(state[1], np.full((2, 2), 20.0))
        assert all(np.sum(array) in (0.0, 8.0, 80.0) for array in kept)


def test_wrong_state_is_refused() -> None:
    step = planned(counting())
    with pytest.raises(
        GraphError, match=r"s: a state array does not fit. Expected float64\[3\]. Received float32\[3\]."
    ):
        step([np.zeros(3, "float32")], [np.ones(3)])
    with pytest.raises(GraphError, match=r"wrong number of state arrays\. Expected 1\. Received 0\."):
        step([], [np.ones(3)])


# ---- memory ---------------------------------------------------------------------------


def test_put_packs_arrays_of_one_dtype_in_order_with_scalars_last() -> None:
    given = [
        np.arange(6.0).reshape(2, 3),
        np.array(7, "int32"),
        np.array(0.5),
        np.arange(3.0),
        np.arange(2, dtype="int32"),
    ]
    found = BACKEND.put(given, "cpu")
    for a, b in zip(given, found, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
        assert not np.shares_memory(a, b)
    first, number, rate, second, small = (a.ctypes.data for a in found)
    assert first % 64 == small % 64 == 0
    assert (second, rate, number) == (first + 48, second + 24, small + 8)


def test_arena_never_overlaps_what_is_alive_and_stays_near_the_bound() -> None:
    source = random.Random(1)
    for _ in range(50):
        storages = []
        for _ in range(40):
            start = source.randrange(60)
            nbytes = source.choice([4, 64, 100, 4096, 100_000])
            storages.append(Storage("arena", nbytes, start, start + source.randrange(20)))
        size, bound = place(storages), lower_bound(storages)
        assert bound <= size <= 1.2 * bound
        for i, a in enumerate(storages):
            assert a.offset + a.nbytes <= size
            for b in storages[:i]:
                apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
                assert apart or a.stop < b.start or b.stop < a.start


def test_a_chain_of_elementwise_ops_runs_in_one_buffer() -> None:
    x = leaf("input", "x", Spec((100, 100), "float64"))
    y = x
    for _ in range(5):
        y = ops.tanh(y) + 1.0
    step = planned(Graph((x,), (), {"y": y}))
    assert step.plan.arena_bytes == step.plan.lower_bound == 80_000


# ---- optimizers ---------------------------------------------------------------------------

UPDATES = [
    ("sgd_update", 0, {}), ("sgd_update", 1, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("rmsprop_update", 3, {"momentum": 0.5, "centered": True}), ("adagrad_update", 1, {"weight_decay": 0.1}),
    ("adam_update", 2, {}), ("adam_update", 3, {"amsgrad": True, "weight_decay": 0.01}),
]  # fmt: skip


def training(update: str, slots: int, attrs: dict[str, Any], dtype: str, frozen: bool = False) -> Graph:
    """A two-layer network with its update; ``frozen`` puts a state between the weights that is not trained."""
    shapes = {"w": (4, 5), "b": (5,), "v": (5, 3)}
    x, y = leaf("input", "x", Spec((6, 4), dtype)), leaf("input", "y", Spec((6,), "int32"))
    params = {k: leaf("state", k, Spec(s, dtype)) for k, s in shapes.items()}
    extra = leaf("state", "extra", Spec((2, 2), dtype))
    kept = [leaf("state", f"{k}/{i}", Spec(s, dtype)) for i in range(slots) for k, s in shapes.items()]
    rate, count = leaf("state", "rate", Spec((), dtype)), leaf("state", "count", Spec((), "int32"))
    w, b, v = params.values()
    with tracing():
        loss = ops.mean(ops.sparse_softmax_cross_entropy(ops.matmul(ops.relu(ops.matmul(x, w) + b), v), y))
        grads = gradients(loss, [w, b, v])
        scalars = [rate, count] if update == "adam_update" else [rate]
        new = make_node(OPS[update], [*scalars, w, b, v, *grads, *kept], {**OPS[update].defaults, **attrs, "count": 3})
        after = ops.sum(ops.square(new[0]))
    updates = {old.node.attrs["name"]: n for old, n in zip([w, b, v, *kept], new, strict=True)} | {"count": count + 1}
    state = [w, extra, b, v, count, rate, *kept] if frozen else [w, b, v, count, rate, *kept, extra]
    return Graph((x, y), tuple(state), {"loss": loss, "after": after, "before": w}, updates)


def initial(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    values: dict[str, Any] = {"rate": 0.01, "count": 0}
    drawn = [values.get(v.node.attrs["name"], rng.uniform(0.1, 1, v.shape)) for v in graph.state]
    return [np.asarray(a, v.dtype) for a, v in zip(drawn, graph.state, strict=True)]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("update", "slots", "attrs"), UPDATES)
@pytest.mark.usefixtures("tiny_blocks")
def test_training_agrees_with_the_expansions(update: str, slots: int, attrs: dict, dtype: str, frozen: bool) -> None:
    graph = training(update, slots, attrs, dtype, frozen)
    ours, theirs = planned(graph), naive(graph)
    expected = initial(graph)
    state, rng = BACKEND.put(expected, "cpu"), np.random.default_rng(5)
    for _ in range(4):
        inputs = [rng.normal(size=(6, 4)).astype(dtype), rng.integers(0, 3, 6).astype("int32")]
        state, found = ours(state, inputs)
        expected, wanted = theirs(expected, inputs)
        for a, b in zip([*found.values(), *state], [*wanted.values(), *expected], strict=True):
            assert_same(a, b, 3.0)


@pytest.mark.parametrize(("frozen", "vectors"), [(False, 1), (True, 2)])
def test_packed_weights_are_updated_as_one_vector(frozen: bool, vectors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    whole = kernels.optimizer.runs
    monkeypatch.setattr(kernels.optimizer, "runs", lambda *args: found.append([*whole(*args)]) or found[-1])
    graph = training("adam_update", 2, {}, "float32", frozen)
    step = planned(graph)
    found.clear()
    step(BACKEND.put(initial(graph), "cpu"), [np.ones((6, 4), "float32"), np.zeros(6, "int32")])
    ((*runs,),) = found
    assert [run[0].size for run in runs] == ([40] if not frozen else [20, 20])
    assert len(runs) == vectors
    step([a.copy() for a in initial(graph)], [np.ones((6, 4), "float32"), np.zeros(6, "int32")])
    assert [run[0].size for run in found[-1]] == [20, 5, 15]  # arrays that nobody packed


def test_shared_and_transposed_gradients_are_updated_rightly() -> None:
    spec = Spec((3, 3), "float64")
    x, a, b = leaf("input", "x", spec), leaf("state", "a", spec), leaf("state", "b", spec)
    rate = leaf("state", "rate", Spec((), "float64"))
    with tracing():
        g = ops.tanh(x)
        new = ops.sgd_update(rate, a, b, a, g, ops.transpose(g), g, count=3)
    check(Graph((x,), (a, b, rate), {"y": g}, {"a": new[0], "b": new[1]}))


# ---- joined actions -------------------------------------------------------------------------


def source_of(graph: Graph) -> str:
    step = planned(graph)
    inputs = [np.zeros(v.shape, v.dtype) for v in graph.inputs]
    step(BACKEND.put([np.ones(v.shape, v.dtype) for v in graph.state], "cpu"), inputs)
    return step.source


def test_cross_entropy_and_its_gradient_share_the_exponential() -> None:
    x, y = leaf("input", "x", Spec((5, 4), "float64")), leaf("input", "y", Spec((5,), "int32"))
    with tracing():
        loss = ops.sum(ops.sparse_softmax_cross_entropy(x, y))
        (gradient,) = gradients(loss, [x])
    graph = Graph((x, y), (), {"loss": loss, "gradient": gradient})
    assert source_of(graph).count("exp(") == 1
    assert source_of(Graph((x, y), (), {"loss": loss, "softmax": ops.softmax(x)})).count("exp(") == 1
    for labels in ([0, 1, 2, 3, 3], [0, -1, 4, 99, 1]):
        inputs = [np.random.default_rng(0).normal(size=(5, 4)), np.array(labels, "int32")]
        (_, found), (_, wanted) = planned(graph)([], inputs), naive(graph)([], inputs)
        assert_same(found["loss"], wanted["loss"])
        assert_same(found["gradient"], wanted["gradient"])


def test_labels_that_come_from_the_softmax_are_computed_first() -> None:
    x = leaf("input", "x", Spec((5, 4), "float64"))
    with tracing():
        p = ops.softmax(x)
        loss = ops.sparse_softmax_cross_entropy(x, ops.argmax(p, 1))
    check(Graph((x,), (), {"p": p, "loss": loss}))


@pytest.mark.parametrize("kind", ["bias", "relu", "kept", "no vector"])
def test_bias_and_relu_join_a_convolution_where_nothing_else_reads_it(kind: str) -> None:
    x = leaf("input", "x", Spec((3, 6, 5, 2), "float64"))
    kernel, bias = leaf("state", "kernel", Spec((3, 2, 2, 4), "float64")), leaf("state", "bias", Spec((4,), "float64"))
    with tracing():
        conv = ops.conv(x, kernel, padding="same")
        y = ops.add(bias, conv) if kind != "no vector" else ops.add(conv, ops.reshape(bias, (1, 1, 4, 1))[:, :, :1])
        y = ops.relu(y) if kind == "relu" else y
    graph = Graph((x,), (kernel, bias), {"y": y, **({"conv": conv} if kind == "kept" else {})})
    check(graph)
    joined = [a.op for a in planned(graph).plan.actions if a.op.startswith("conv")]
    assert joined == (["conv"] if kind in ("kept", "no vector") else ["conv_bias"])


def joined(graph: Graph) -> list[str]:
    """The actions of a graph that are no moves."""
    return [a.op for a in planned(graph).plan.actions if a.op not in ("load", "store", "return")]


def mean_loss(rows: int, classes: int, dtype: str = "int32", of: str = "logits") -> Graph:
    """The mean cross-entropy and its gradient."""
    x, y = leaf("input", "x", Spec((rows, classes), "float64")), leaf("input", "y", Spec((rows,), dtype))
    with tracing():
        if of == "logits":
            loss = ops.mean(ops.sparse_softmax_cross_entropy(x, y))
        else:
            loss = ops.mean(ops.sparse_cross_entropy(ops.softmax(x), y, epsilon=0.05))
        (gradient,) = gradients(loss, [x])
    return eliminate_common(lower(Graph((x, y), (), {"loss": loss, "gradient": gradient}), BACKEND.table))


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize(("rows", "classes"), [(5, 3), (40, 7), (3, 100), (1, 1)])
@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_a_mean_loss_and_its_gradient_are_one_piece(
    of: str, rows: int, classes: int, dtype: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", OtherModule("cupy"))
    graph, rng = mean_loss(rows, classes, dtype, of), np.random.default_rng(0)
    pieces = ["loss_and_gradient", "divide"] if of == "logits" else ["softmax", "sparse_loss_and_gradient", "divide"]
    assert rows < 2 or joined(graph) == pieces
    ours = BACKEND.compile(lower(graph, BACKEND.table), device)
    known = rng.integers(0, classes, rows).astype(dtype)
    outside = np.where(np.arange(rows) % 2 == 1, 127 if dtype == "uint8" else -3, known).astype(dtype)
    far = np.where(np.arange(rows) % 2 == 1, np.iinfo(dtype).max, known).astype(dtype)
    for labels in (known, outside, far):
        inputs = [rng.normal(size=(rows, classes)) * 9, labels]
        (_, found), (_, wanted) = ours([], inputs), naive(graph)([], inputs)
        assert_same(found["loss"], wanted["loss"])
        assert_same(found["gradient"], wanted["gradient"])


@pytest.mark.parametrize("kept", ["losses", "gradient", "nothing"])
def test_a_loss_of_probabilities_that_is_read_elsewhere_stays(kept: str) -> None:
    x, y = leaf("input", "x", Spec((6, 4), "float64")), leaf("input", "y", Spec((6,), "int32"))
    with tracing():
        p = ops.softmax(x)
        losses = ops.sparse_cross_entropy(p, y, epsilon=0.05)
        loss = ops.mean(losses)
        (to_p,), (to_x,) = gradients(loss, [p]), gradients(loss, [x])
    more = {"losses": {"losses": losses}, "gradient": {"to_p": to_p}}.get(kept, {})
    graph = eliminate_common(lower(Graph((x, y), (), {"p": p, "loss": loss, "to_x": to_x, **more}), BACKEND.table))
    assert ("sparse_loss_and_gradient" in joined(graph)) == (kept == "nothing")
    inputs = [np.random.default_rng(0).normal(size=(6, 4)) * 3, np.array([0, 1, 2, 3, 4, -1], "int32")]
    (_, found), (_, wanted) = planned(graph)([], inputs), naive(graph)([], inputs)
    for name, value in wanted.items():
        assert_same(found[name], value, what=name)


@pytest.mark.parametrize("change", ["each loss", "softmax", "no mean", "in large"])
def test_losses_that_something_else_reads_stay(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = mean_loss(6, 4)
    x, y = graph.inputs
    with tracing():
        losses = ops.sparse_softmax_cross_entropy(x, y)
        loss = ops.sum(losses) if change == "no mean" else ops.mean(losses)
        (gradient,) = gradients(loss, [x])
        more = {"each loss": losses, "softmax": ops.softmax(x)}
    if change == "in large":
        monkeypatch.setattr(fusing, "MOST_IN_ONE_SUM", 23)
    kept = {change: more[change]} if change in more else {}
    graph = Graph((x, y), (), {"loss": loss, "gradient": gradient, **kept})
    graph = eliminate_common(lower(graph, BACKEND.table))
    expected = {"softmax": "losses_and_softmax", "no mean": "loss_and_gradient"}.get(change, "losses_and_gradient")
    assert expected in joined(graph)
    inputs = [np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 3, 4, -1], "int32")]
    (_, found), (_, wanted) = planned(graph)([], inputs), naive(graph)([], inputs)
    for name, value in wanted.items():
        assert_same(found[name], value, what=name)


POOLED: list[tuple[tuple[int, ...], tuple[int, ...], Any, dict[str, Any]]] = [  # shape, kernel, pool, convolution
    ((3, 6, 6, 2), (3, 3, 2, 4), 2, {"padding": "same"}),
    ((3, 9, 8, 2), (3, 2, 2, 4), 2, {}),  # rows that no pool sees
    ((2, 11, 10, 1), (3, 3, 1, 5), (3, 2), {"strides": (1, 2)}),
    ((2, 12, 9, 3), (2, 2, 3, 2), (2, 1), {"dilation_rate": 2, "padding": "same"}),
    ((4, 13, 2), (3, 2, 3), 2, {}),
    ((2, 4, 6, 4, 2), (1, 3, 2, 2, 3), (2, 2, 2), {"padding": "same"}),
    ((3, 8, 8, 2), (1, 1, 2, 3), 2, {}),
]


def convnet(shape: Any, kernel: Any, pool: Any, attrs: Any, kind: str) -> Graph:
    """Convolution, bias, relu, pools, and what a training step has of them."""
    x = leaf("input", "x", Spec(shape, "float64"))
    w, b = leaf("state", "w", Spec(kernel, "float64")), leaf("state", "b", Spec(kernel[-1:], "float64"))
    with tracing():
        full = ops.relu(ops.conv(x, w, **attrs) + b)
        y = ops.max_pool(full, pool)
        found = {"y": y}
        if kind != "inference":
            wanted = {"weights": [w, b], "bias": [b], "input": [x], "all": [w, b, x], "kept": [w, b, x]}[kind]
            grads = gradients(ops.sum(ops.sin(y)), wanted)
            found |= {v.node.attrs["name"]: g for v, g in zip(wanted, grads, strict=True)}
        if kind == "kept":
            found["full"] = full
    return Graph((x,), (w, b), found)


@pytest.mark.parametrize("blocks", ["tiny_blocks", "large"])
@pytest.mark.parametrize("kind", ["inference", "weights", "bias", "input", "all", "kept"])
@pytest.mark.parametrize(("shape", "kernel", "pool", "attrs"), POOLED)
def test_convolutions_with_touching_pools_are_one_piece(
    shape: Any, kernel: Any, pool: Any, attrs: Any, kind: str, blocks: str, request: pytest.FixtureRequest
) -> None:
    if blocks == "tiny_blocks":
        request.getfixturevalue(blocks)
    graph = convnet(shape, kernel, pool, attrs, kind)
    actions = joined(graph)
    assert ("conv_pool" in actions) == (kind != "kept")
    assert ("conv_pool_grad" in actions) == (kind not in ("inference", "kept"))
    check(graph, tolerance=10)


def test_pooled_convolutions_run_over_another_array_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", OtherModule("cupy"))
    graph, rng = convnet(*POOLED[0], "all"), np.random.default_rng(0)
    state, inputs = ([rng.normal(size=v.shape) for v in leaves] for leaves in (graph.state, graph.inputs))
    _, found = BACKEND.compile(lower(graph, BACKEND.table), "cuda:0")([a.copy() for a in state], inputs)
    for name, value in naive(graph)(state, inputs)[1].items():
        assert_same(found[name], value, 10, name)


def test_equal_results_in_a_pool_give_their_gradient_to_the_first() -> None:
    graph, rng = convnet((3, 8, 8, 1), (1, 1, 1, 2), 2, {}, "all"), np.random.default_rng(0)
    state, inputs = [np.ones((1, 1, 1, 2)), np.zeros(2)], [rng.integers(-1, 2, (3, 8, 8, 1)).astype("float64")]
    assert "conv_pool" in joined(graph)
    _, wanted = naive(graph)(state, inputs)
    np.testing.assert_array_equal(planned(graph)(state, inputs)[1]["x"], wanted["x"])


@pytest.mark.parametrize("limit", [0.0, 9.0])
@pytest.mark.parametrize(
    "attrs",
    [{}, {"padding": "same"}, {"padding": "same", "dilation_rate": (1, 2)}, {"strides": (2, 1), "padding": "same"}],
)
def test_both_ways_to_an_inputs_gradient(attrs: Any, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.conv, "WIDER", limit)
    x, w = leaf("input", "x", Spec((3, 7, 8, 2), "float64")), leaf("state", "w", Spec((3, 2, 2, 4), "float64"))
    with tracing():
        (gradient,) = gradients(ops.sum(ops.sin(ops.conv(x, w, **attrs))), [x])
    check(Graph((x,), (w,), {"gradient": gradient}), tolerance=10)


@pytest.mark.parametrize("size", [3, 70_000])
def test_the_gate_of_a_relu_is_read_off_its_bits(size: int) -> None:
    x = leaf("input", "x", Spec((size,), "float32"))
    with tracing():
        y = ops.relu(x)
        (gradient,) = gradients(ops.sum(ops.exp(y)), [x])
    graph = Graph((x,), (), {"gradient": gradient})
    assert "relu_gate" in joined(graph)
    values = np.resize(np.array([-1.0, 0.0, 1e-45, 2.0, -np.inf, -0.0, 3.0], "float32"), size)
    (_, found), (_, wanted) = planned(graph)([], [values]), naive(graph)([], [values])
    assert_same(found["gradient"], wanted["gradient"])


def test_numbers_are_computed_by_python() -> None:
    dtypes = {"x": "float32", "s": "float32", "n": "int32", "zero": "float32"}
    x, s, n, zero = (leaf("state", k, Spec((), d)) for k, d in dtypes.items())
    two = ops.constant(2.0)
    updates = {"x": (x + s) * 0.5 - s, "s": ops.negative(s) / two, "n": n * 3}
    graph = Graph((), (x, s, n, zero), {"ratio": x / zero, "least": updates["n"]}, updates)
    assert "add(" not in source_of(graph)
    assert "multiply(" not in source_of(graph)
    step, plain = planned(graph), naive(graph)
    wanted = [np.array(v, d) for v, d in zip((0.3, 0.7, 2**30 + 5, 0.0), dtypes.values(), strict=True)]
    state = BACKEND.put(wanted, "cpu")
    for _ in range(4):
        (state, found), (wanted, expected) = step(state, []), plain(wanted, [])
        for a, b in zip([*state, *found.values()], [*wanted, *expected.values()], strict=True):
            assert_same(a, b)


def test_selecting_between_a_value_and_zero_is_one_and() -> None:
    x = leaf("input", "x", Spec((4, 4), "float32"))
    nan = float("nan")
    graph = Graph((x,), (), {"y": ops.where(x > 0.0, ops.log(x), 0.0), "z": ops.where(x > 0.0, 1.0 / x, -0.0)})
    assert [a.op for a in planned(graph).plan.actions if a.op in ("gate", "where")] == ["gate", "where"]
    values = np.array([[1.0, -1.0, 0.0, nan]] * 4, "float32")
    _, found = planned(graph)([], [values])
    np.testing.assert_array_equal(found["y"][0], np.array([0.0, 0.0, 0.0, 0.0], "float32"))
    np.testing.assert_array_equal(np.signbit(found["z"][0]), [False, True, True, True])


def test_numbers_are_stretched_only_where_arrays_are_needed() -> None:
    x = leaf("input", "x", Spec((100, 200), "float64"))
    with tracing():
        (gradient,) = gradients(ops.mean(ops.square(x)), [x])
    graph = Graph((x,), (), {"gradient": gradient})
    step = planned(graph)
    assert [a.op for a in step.plan.actions] == ["multiply", "return"]
    check(graph)


# ---- kernels on their own -----------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "close"), [("float32", 2e-7), ("float64", 5e-16), ("float16", 1e-3)])
def test_erf_is_accurate_relative_to_its_value(dtype: str, close: float) -> None:
    x = np.concatenate([np.linspace(-7, 7, 20_001), 10.0 ** np.arange(-7, 0)]).astype(dtype)
    found = BACKEND.table["erf"](x)
    wanted = np.array([math.erf(float(v)) for v in x])
    assert found.dtype == x.dtype
    np.testing.assert_allclose(
        found.astype("float64"), wanted, rtol=close, atol=float(np.finfo(dtype).smallest_subnormal)
    )
    ends = BACKEND.table["erf"](np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype))
    np.testing.assert_array_equal(ends, [1.0, -1.0, np.nan, 0.0, 0.0])
    assert np.signbit(ends[-1])


def test_many_numbers_are_added_up_without_much_rounding() -> None:
    x = leaf("input", "x", Spec((60_000, 8), "float32"))
    values = np.random.default_rng(0).random((60_000, 8), dtype=np.float32)
    _, found = planned(Graph((x,), (), {"y": ops.sum(x, 0)}))([], [values])
    np.testing.assert_allclose(found["y"], values.sum(0, dtype="float64"), rtol=3e-7)


@pytest.mark.parametrize("bad", [-5, 4, 2**31 - 1])
def test_an_index_outside_is_an_error(bad: int) -> None:
    x, i = leaf("input", "x", Spec((4, 2), "float32")), leaf("input", "i", Spec((3,), "int32"))
    step = planned(Graph((x, i), (), {"y": ops.take(x, i, 0)}))
    step([], [np.ones((4, 2), "float32"), np.array([0, 3, 1], "int32")])
    with pytest.raises(DataError, match=r"op 'take': index out of range\. Expected 0 to 3\."):
        step([], [np.ones((4, 2), "float32"), np.array([0, bad, 1], "int32")])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_labels_of_every_integer_type(dtype: str) -> None:
    x, y = leaf("input", "x", Spec((4, 200), "float64")), leaf("input", "y", Spec((4,), dtype))
    graph = Graph((x, y), (), {"hot": ops.one_hot(y, 200), "loss": ops.sparse_softmax_cross_entropy(x, y)})
    labels = np.array([0, 100, 127, 5 if dtype == "uint8" else -1]).astype(dtype)
    _, found = planned(graph)([], [np.zeros((4, 200)), labels])
    wanted = np.zeros((4, 200), "float32")
    for row, label in enumerate(labels.tolist()):
        wanted[row, label] = label >= 0
    np.testing.assert_array_equal(found["hot"], wanted)
    assert_same(found["loss"], np.where(labels >= 0, math.log(200), math.nan))


def test_empty_batches() -> None:
    x, y = leaf("input", "x", Spec((0, 6, 6, 2), "float64")), leaf("input", "y", Spec((0,), "int32"))
    kernel, bias = leaf("state", "kernel", Spec((3, 3, 2, 4), "float64")), leaf("state", "bias", Spec((4,), "float64"))
    with tracing():
        conv = ops.max_pool(ops.relu(ops.conv(x, kernel, padding="same") + bias), 2)
        logits = ops.reshape(ops.avg_pool(ops.erf(ops.dropout(conv, 3, rate=0.5, key=(1, 2))), 3), (0, 4))
        loss = ops.sum(ops.sparse_softmax_cross_entropy(logits, y) + ops.sum(ops.softmax(ops.relu(logits)), 1))
        grads = gradients(loss, [kernel, bias, x])
    outputs = {"loss": loss, "logits": logits, "kernel": grads[0], "bias": grads[1], "x": grads[2]}
    step, given = planned(Graph((x, y), (kernel, bias), outputs)), [np.zeros(v.shape, v.dtype) for v in (x, y)]
    step._memory.view("f8")[:] = math.nan  # as it may be when it is new
    _, found = step(BACKEND.put([np.ones((3, 3, 2, 4)), np.ones(4)], "cpu"), given)
    for name, value in outputs.items():
        assert_same(found[name], np.zeros(value.shape))


@pytest.mark.parametrize("shape", [(7, 9), (8, 12)])
def test_ties_in_touching_windows_go_to_the_first(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (3, *shape, 2)).astype("float64")
    x = leaf("input", "x", Spec(values.shape, "float64"))
    with tracing():
        (gradient,) = gradients(ops.sum(ops.square(ops.max_pool(x, 2) + 1.0)), [x])
    graph = Graph((x,), (), {"gradient": gradient})
    _, found = planned(graph)([], [values])
    _, wanted = naive(graph)([], [values])
    np.testing.assert_array_equal(found["gradient"], wanted["gradient"])


# ---- the step ---------------------------------------------------------------------------


def test_the_step_is_a_flat_function_without_allocation() -> None:
    x, w = leaf("input", "x", Spec((8, 4), "float32")), leaf("state", "dense/kernel", Spec((4, 2), "float32"))
    step = planned(Graph((x,), (w,), {"y": ops.sum(ops.relu(ops.matmul(x, w)))}))
    step(BACKEND.put([np.ones((4, 2), "float32")], "cpu"), [np.ones((8, 4), "float32")])
    assert "dot(x, dense_kernel, v1)" in step.source
    body = [line for line in step.source.splitlines()[1:] if not line.strip().startswith("#")]
    assert all(line.startswith("    ") and not line.startswith("     ") for line in body)


def test_inputs_are_read_where_they_are_unless_a_kernel_takes_them_apart() -> None:
    spec = Spec((4, 6), "float64")
    a, b = leaf("input", "a", spec), leaf("input", "b", spec)
    with tracing():
        outputs = {"plain": ops.matmul(a, ops.transpose(a)), "parts": ops.sum(b, 1), "slice": ops.exp(b[1:])}
    step = planned(Graph((a, b), (), outputs))
    assert [x.attrs["position"] for x in step.plan.actions if x.op == "load"] == [1]
    values = np.random.default_rng(0).normal(size=(2, 8, 12))
    for x, y in [values[:, ::2, ::2], values[:, :4, :6].astype("float32")]:
        _, found = step([], [x, y])
        np.testing.assert_allclose(found["plain"], x.astype("float64") @ x.T.astype("float64"), rtol=1e-13)
        np.testing.assert_allclose(found["parts"], y.sum(1, dtype="float64"), rtol=1e-13)


def test_an_input_may_be_the_state_itself() -> None:
    x, s = leaf("input", "x", Spec((3,), "float64")), leaf("state", "s", Spec((3,), "float64"))
    new = s + 1.0
    step = planned(Graph((x,), (s,), {"new": ops.tanh(new), "old": ops.exp(x)}, {"s": new}))
    state = BACKEND.put([np.zeros(3)], "cpu")
    _, found = step(state, [state[0]])
    np.testing.assert_array_equal(found["old"], np.ones(3))
    np.testing.assert_array_equal(state[0], np.ones(3))


def test_no_warning_leaves_the_step() -> None:
    x = leaf("input", "x", Spec((4,), "float32"))
    graph = Graph((x,), (), {"y": ops.log(x), "z": ops.exp(x * 1e30), "w": 1.0 / (x - x)})
    step = planned(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(all="raise"):
            _, outputs = step([], [np.array([0.0, -1.0, 1.0, np.inf], "float32")])
            assert np.isnan(outputs["y"][1])
            with pytest.raises(FloatingPointError):
                np.log(np.zeros(1))  # the caller's own setting is as it was


def test_runs_are_deterministic() -> None:
    graph = by_seed(11)
    results = []
    for _ in range(2):
        step, state = planned(graph), BACKEND.put([np.ones(v.shape) for v in graph.state], "cpu")
        results.append(step(state, [np.linspace(-1, 1, int(np.prod(v.shape))).reshape(v.shape) for v in graph.inputs]))
    for a, b in zip(results[0][1].values(), results[1][1].values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_op_without_a_kernel_runs_by_its_table_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(kernels.KERNELS, "tanh")
    monkeypatch.delitem(kernels.KERNELS, "concat")
    x = leaf("input", "x", Spec((2, 2), "float64"))
    check(Graph((x,), (), {"y": ops.concat([ops.tanh(x), x], 1)}))


# ---- devices --------------------------------------------------------------------------------


def test_devices_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert BACKEND.devices() == ["cpu"]
    assert BACKEND.device(None) == BACKEND.device("cpu") == "cpu"
    with pytest.raises(BackendError, match=r"device 'cuda' is not available\. Devices here: cpu\."):
        BACKEND.device("cuda")


def test_cupy_is_asked_only_for_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    runtime = SimpleNamespace(getDeviceCount=lambda: asked.append(1) or 2)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), ndarray=dict))
    assert BACKEND.device(None) == BACKEND.device("cpu") == "cpu"
    assert not asked
    assert BACKEND.device("cuda") == "cuda:0"
    assert BACKEND.device("cuda:1") == "cuda:1"
    assert BACKEND.devices() == ["cpu", "cuda:0", "cuda:1"]


def test_bfloat16_is_refused_by_name() -> None:
    x = leaf("input", "x", Spec((2,), "bfloat16"))
    with pytest.raises(BackendError, match="NumPy has no dtype 'bfloat16'"):
        planned(Graph((x,), (), {"y": x + x}))


def test_a_program_of_layers_and_optimizer_runs_compiled() -> None:
    x, w = leaf("input", "x", Spec((4, 3), "float64")), leaf("state", "w", Spec((3, 2), "float64"))
    graph = Graph((x,), (w,), {"y": ops.matmul(x, w)}, {"w": w - 0.1 * w})
    step = compile_graph(graph, BACKEND, "cpu")
    state, outputs = step(BACKEND.put([np.ones((3, 2))], "cpu"), [np.ones((4, 3))])
    assert_same(outputs["y"], np.full((4, 2), 3.0))
    assert_same(state[0], np.full((3, 2), 0.9))


def test_a_program_takes_arrays_of_any_kind_in_turn() -> None:
    x = leaf("input", "x", Spec((Dim.symbol("batch"), 3), "float64"))
    w = Variable(np.ones((3, 2)), dtype="float64")
    with trace_into(trace := Trace()):
        y = ops.matmul(x, trace.leaf(w))
        graph = trace.graph([x], {"y": y})
    program = Program(graph, trace.variables)
    store, rng = program.place(BACKEND, "cpu"), np.random.default_rng(0)
    for size, dtype in [(4, "float64"), (4, "float64"), (2, "float64"), (2, "float32"), (2, "float64"), (4, "int32")]:
        values = rng.normal(size=(size, 3)).astype(dtype)
        assert_same(program.run(store, [values])["y"], values.astype("float64") @ np.ones((3, 2)))
    other = program.place(BACKEND, "cpu")
    other.arrays[0] *= 2.0
    assert_same(program.run(other, [np.ones((4, 3))])["y"], np.full((4, 2), 6.0))
