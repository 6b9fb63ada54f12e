"""Dynamic batching: folded as one example at a time, in values and gradients; and batches are really formed."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers, ops
from unilayers.autodiff import GradientTape
from unilayers.backend import Backend
from unilayers.errors import ShapeError
from unilayers.graph import OPS, Op
from unilayers.graph.node import LEAVES
from unilayers.ops.batching import RULES, covered, run_stacked
from unilayers.ops.define import bind
from unilayers.structure import leaves_of
from unilayers.variable import Variable, place_together

# ---- every op -------------------------------------------------------------------
# Three calls made of each sample of a record: its numbers in another order, so that labels stay labels.

CALLS = 3
WHOLE = ("cholesky",)  # whose operands are stacks of matrices that cannot have any numbers: they change their order


def shuffled(x: Any, seed: int, whole: bool) -> np.ndarray:
    x = np.asarray(x)
    return np.roll(x, seed, 0) if whole else np.random.default_rng(seed).permutation(x.ravel()).reshape(x.shape)


def variants(op: Op) -> Iterator[tuple[list[list[np.ndarray]], dict[str, Any]]]:
    """The operands of each call, and the attributes."""
    assert op.samples is not None
    for sample in op.samples(np.random.default_rng(3)):
        inputs = [np.asarray(x) for x in sample.inputs]
        yield (
            [[shuffled(x, 11 * c + i, op.name in WHOLE) for i, x in enumerate(inputs)] for c in range(CALLS)],
            {
                **op.defaults,
                **sample.attrs,
            },
        )


def as_tuple(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


SAMPLED = [name for name, op in OPS.items() if name not in LEAVES and op.samples is not None]


@pytest.mark.parametrize("name", [name for name in SAMPLED if name in RULES])
def test_rules(name: str) -> None:
    """Stacked at once as one call after the other, whichever operands are stacked."""
    op = OPS[name]
    for calls, attrs in variants(op):
        for stacked in itertools.product([True, False], repeat=len(calls[0])):
            if not any(stacked):
                continue
            given_ = [[x if s else calls[0][i] for i, (x, s) in enumerate(zip(c, stacked, strict=True))] for c in calls]
            expected = np.stack([bind(op, xs, attrs) for xs in given_])
            operands = [np.stack([c[i] for c in calls]) if s else calls[0][i] for i, s in enumerate(stacked)]
            found = run_stacked(op, operands, stacked, attrs, CALLS)
            assert_close(found, expected, rtol=1e-12, atol=1e-12, what=f"{name}{attrs} stacked {stacked}")


@pytest.mark.parametrize("name", SAMPLED)
def test_every_op_can_be_folded(name: str) -> None:
    """Those without a rule, too: they are expanded, or run one by one."""
    op = OPS[name]
    for calls, attrs in variants(op):
        expected = [as_tuple(bind(op, xs, attrs)) for xs in calls]
        found = ul.fold(lambda xs, op=op, attrs=attrs: as_tuple(bind(op, xs, attrs)), calls)
        for f, e in zip(found, expected, strict=True):
            assert len(f) == len(e)
            for y, z in zip(f, e, strict=True):
                assert_close(y, z, rtol=1e-12, atol=1e-12, what=f"{name}{attrs}")


def test_coverage_is_reported() -> None:
    assert set(covered()) == set(OPS)
    assert covered()["matmul"] and not covered()["adam_update"]


# ---- random programs over random trees ------------------------------------------
# A state is a vector of four numbers. A program says what is done at leaves of each kind and at inner nodes.

SIZE, WORDS = 4, 5
rng = np.random.default_rng(0)
TABLE, WIDE, SQUARE, BIAS = (rng.normal(size=s) * 0.5 for s in ((WORDS, SIZE), (2 * SIZE, SIZE), (SIZE, SIZE), (SIZE,)))

Weights = dict[str, Any]

UNARY: dict[str, Callable[[Weights, Any], Any]] = {
    "tanh": lambda w, x: ops.tanh(x),
    "sigmoid": lambda w, x: ops.sigmoid(x) - 0.25,
    "product": lambda w, x: ops.matmul(x, w["square"]),
    "column": lambda w, x: ops.matmul(w["square"], x),
    "outer": lambda w, x: ops.sum(ops.matmul(ops.expand_dims(x, 1), ops.expand_dims(x, 0)), 0),
    "bias": lambda w, x: x + w["bias"],
    "softmax": lambda w, x: ops.softmax(x),
    "centred": lambda w, x: x - ops.mean(x, keepdims=True),
    "scaled": lambda w, x: x * ops.sum(x),
    "turned": lambda w, x: ops.concat([x[2:], x[:2]]),
    "padded": lambda w, x: ops.pad(x[1:3], [(1, 1)]),
    "folded": lambda w, x: ops.reshape(ops.transpose(ops.reshape(x, (2, 2))), (SIZE,)),
    "stretched": lambda w, x: ops.sum(ops.broadcast_to(x, (3, SIZE)) * w["square"][:3], 0),
    "sorted": lambda w, x: ops.take(x, np.array([3, 1, 1, 0], np.int32), 0),
    "best": lambda w, x: ops.take(w["table"], ops.reshape(ops.argmax(x), (1,)), 0)[0] + x,
    "clipped": lambda w, x: ops.clip(x, minimum=-0.4, maximum=0.6),
    "normal": lambda w, x: ops.layer_norm(x, w["bias"], w["bias"] * 0.1),
    "flipped": lambda w, x: ops.flip(x),
    "reused": lambda w, x: ops.tanh(x) * x + ops.tanh(x),
    "zeros": lambda w, x: ops.maximum(x, ops.zeros((SIZE,), "float64")),
    "weights": lambda w, x: ops.matmul(x, w["square"] * 2.0 + w["square"]),
}
BINARY: dict[str, Callable[[Weights, Any, Any], Any]] = {
    "add": lambda w, a, b: a + b,
    "multiply": lambda w, a, b: a * b,
    "joined": lambda w, a, b: ops.tanh(ops.matmul(ops.concat([a, b]), w["wide"]) + w["bias"]),
    "larger": lambda w, a, b: ops.where(a > b, a, b * 0.5),
    "dot": lambda w, a, b: a * ops.matmul(ops.reshape(a, (1, SIZE)), ops.reshape(b, (SIZE, 1)))[0],
    "stacked": lambda w, a, b: ops.sum(ops.stack([a, b, w["bias"]]), 0),
    "first": lambda w, a, b: a,
    "twice": lambda w, a, b: a - ops.tanh(b) * b,
}
LEAF: dict[type, dict[str, Callable[[Weights, Any], Any]]] = {
    int: {
        "word": lambda w, n: ops.take(w["table"], n, 0),
        "hot": lambda w, n: ops.matmul(ops.one_hot(ops.take(w["numbers"], n), WORDS, dtype="float64"), w["table"]),
    },
    float: {"scaled": lambda w, r: w["bias"] * r, "shifted": lambda w, r: ops.tanh(w["bias"] + r)},
    np.ndarray: {"as it is": lambda w, v: ops.add(v, 0.0), "product": lambda w, v: ops.matmul(v, w["square"])},
}


def programs(most: int) -> st.SearchStrategy[Any]:
    """What is done at leaves, and at two kinds of inner nodes, told apart by the tree: pairs and lists."""
    some = st.lists(st.sampled_from(sorted(UNARY)), max_size=most)
    leaf = st.fixed_dictionaries({kind: st.tuples(st.sampled_from(sorted(c)), some) for kind, c in LEAF.items()})
    node = st.fixed_dictionaries({kind: st.tuples(st.sampled_from(sorted(BINARY)), some) for kind in (tuple, list)})
    return st.fixed_dictionaries({"leaf": leaf, "node": node})


def forests(trees: int, leaves: int) -> st.SearchStrategy[Any]:
    """Trees of words, numbers and vectors."""
    leaf = st.one_of(
        st.integers(0, WORDS - 1),
        st.sampled_from([0.5, -1.0, 2.0]),
        st.integers(0, 3).map(lambda i: ("vector", i)),
    )
    tree = st.recursive(
        leaf, lambda t: st.one_of(st.tuples(t, t), st.lists(t, min_size=2, max_size=2)), max_leaves=leaves
    )
    return st.lists(tree, min_size=1, max_size=trees)


VECTORS = np.random.default_rng(1).normal(size=(4, SIZE))


def evaluate(program: Any, weights: Weights, vectors: list[Any], t: Any) -> Any:
    """The state of a tree."""
    if isinstance(t, tuple) and t[0] == "vector":
        t = vectors[t[1]]
    kind = type(t) if type(t) in (int, float, tuple, list) else np.ndarray
    if kind in (tuple, list):
        parts = [evaluate(program, weights, vectors, part) for part in t]
        name, rest = program["node"][kind]
        x = BINARY[name](weights, *parts)
    else:
        name, rest = program["leaf"][kind]
        x = LEAF[kind][name](weights, t)
    for name in rest:
        x = UNARY[name](weights, x)
    return x


def outcome(program: Any, examples: list[Any], engine: Backend, run: Callable[..., Any]) -> list[np.ndarray]:
    """The results, and the gradients of a loss over them to all weights and leaf vectors."""
    device = engine.device("cpu")
    weights = {
        k: Variable(v, dtype="float64", name=k)
        for k, v in (("table", TABLE), ("wide", WIDE), ("square", SQUARE), ("bias", BIAS))
    }
    weights["numbers"] = Variable(np.arange(WORDS), dtype="int32", trainable=False, name="numbers")
    place_together(list(weights.values()), engine, device)
    with GradientTape() as tape:
        vectors = [tape.watch(v) for v in engine.put(list(VECTORS), device)]
        results = run(lambda t: evaluate(program, weights, vectors, t), examples)
        loss = sum((ops.sum(y * (i + 1.0)) for i, y in enumerate(results)), 0.0)
    sources = [v for v in weights.values() if v.trainable] + vectors
    slopes = tape.gradient(loss, sources)
    shapes = [ops.shape_of(s) for s in sources]
    return [
        *map(ops.to_numpy, results),
        *(np.zeros(s) if g is None else ops.to_numpy(g) for g, s in zip(slopes, shapes, strict=True)),
    ]


def one_by_one(function: Callable[[Any], Any], examples: Any) -> list[Any]:
    return [function(x) for x in examples]


# How many examples, how many ops after each node, how many trees, how many leaves of each.
SIZES = {"numpy": (80, 3, 5, 7), "torch": (30, 3, 5, 7)}
SMALL = (3, 1, 2, 3)  # the others compile slowly


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_programs(backend: str) -> None:
    engine = require_backend(backend)
    count, most, size, leaves = SIZES.get(backend, SMALL)

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(programs(most), forests(size, leaves))
    def check(program: Any, examples: list[Any]) -> None:
        expected = outcome(program, examples, engine, one_by_one)
        found = outcome(program, examples, engine, ul.fold)
        for i, (f, e) in enumerate(zip(found, expected, strict=True)):
            largest = max(1.0, float(np.abs(e).max()))
            assert_close(f, e, rtol=1e-9, atol=1e-10 * largest, what=f"output {i} of {program} on {examples}")

    check()


# ---- grouping -------------------------------------------------------------------


@contextmanager
def counted_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often the NumPy backend is asked for each op, and the largest operand of each as ``max <op>``."""
    engine, counts = require_backend("numpy"), Counter[str]()
    table = dict(engine.table)

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arrays: Any, **attrs: Any) -> Any:
            counts[name] += 1
            counts[f"max {name}"] = max(counts[f"max {name}"], *(np.size(a) for a in arrays), 0)
            return function(*arrays, **attrs)

        return call

    with monkeypatch.context() as patch:
        for name, function in table.items():
            patch.setitem(engine.table, name, counting(name, function))  # type: ignore[arg-type]
        yield counts


def test_equal_ops_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of 3, a chain of 5 and a full tree of depth 4: five levels, and no more products than that."""
    weight = np.random.default_rng(0).normal(size=(6, 3)) * 0.4

    def state(t: Any) -> Any:
        if isinstance(t, float):
            return ops.multiply(np.ones(3), t)
        return ops.tanh(ops.matmul(ops.concat([state(t[0]), state(t[1])]), weight))

    def chain(n: int) -> Any:
        return (chain(n - 1), 0.1 * n) if n else 0.5

    def full(n: int) -> Any:
        return (full(n - 1), full(n - 1)) if n else -0.3

    examples = [chain(3), chain(5), full(4)]
    expected = [state(t) for t in examples]
    with counted_runs(monkeypatch) as counts:
        found = ul.fold(state, examples)
    for y, z in zip(found, expected, strict=True):
        assert_close(y, z, rtol=1e-12, atol=0, what="state")
    assert (counts["matmul"], counts["tanh"], counts["multiply"]) == (5, 5, 1)
    assert (
        counts["max matmul"] == 12 * 6
    )  # two rows of chains, eight of the full tree, two to fill up; no copied weight


def test_operands_in_order_are_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = list(np.random.default_rng(0).normal(size=(7, 4)))
    with counted_runs(monkeypatch) as counts:
        ul.fold(lambda x: ops.exp((s := ops.sin(x)) * ops.cos(x)) + s, examples, stack=True)
    assert counts["take"] == counts["concat"] == counts["slice"] == 0
    assert {counts[name] for name in ("sin", "cos", "multiply", "exp", "add")} == {1}


def test_what_is_the_same_in_all_calls_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ops on variables only, and fills, are not repeated for each example."""
    weight = Variable(np.eye(3) * 2.0, dtype="float64")

    def double(x: Any) -> Any:
        return ops.matmul(x, weight * 2.0) + ops.ones((3,), "float64")

    examples = list(np.arange(12.0).reshape(4, 3))
    with counted_runs(monkeypatch) as counts:
        found = ul.fold(double, examples, stack=True)
    assert_close(found, np.arange(12.0).reshape(4, 3) * 4 + 1, rtol=0, atol=0, what="doubled")
    assert counts["multiply"] == 1 and counts["max multiply"] == 9


def test_matrices_of_equal_shape_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two weights at one level, as plain arrays: a product for each, and neither copied for each example."""
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(2, 20, 20))
    examples = list(generator.normal(size=(30, 2, 20)))

    def both(pair: Any) -> Any:
        return ops.matmul(pair[0], left) + ops.matmul(pair[1], right)

    with counted_runs(monkeypatch) as counts:
        found = ul.fold(both, examples)
    assert counts["matmul"] == 2 and counts["max matmul"] <= 30 * 20
    for y, (a, b) in zip(found, examples, strict=True):
        assert_close(y, a @ left + b @ right, rtol=1e-12, atol=1e-12, what="sum of products")


# ---- layers, functions, variables -----------------------------------------------


class Gate(layers.Layer):
    """A layer with weights of its own and a part; with ``branch`` it looks at numbers."""

    units: int = 3
    branch: bool = False

    def __post_init__(self) -> None:
        self.inner = layers.Dense(self.units, activation="tanh")
        self.calls = 0

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight((self.units,), "ones", name="scale")

    def call(self, x: Any, state: Any) -> Any:
        self.calls += 1
        h, c = state
        y = self.inner(ops.concat([x, h], -1))
        if self.branch and ops.sum(y) > 0:
            y = y * 2.0
        return y * self.scale, c + y


SEQUENCES = [list(np.random.default_rng(n).normal(size=(n, 1, 2)).astype("float32")) for n in (1, 4, 2, 4)]


@pytest.mark.parametrize(("backend", "branch"), [("numpy", True), *((name, False) for name in BACKENDS)])
def test_a_layer_as_the_cell(backend: str, branch: bool) -> None:
    engine = require_backend(backend)
    cell = Gate(3, branch)

    def last(xs: Any) -> Any:
        state = (ops.zeros((1, 3)), ops.zeros((1, 3)))
        for x in xs:
            state = cell(x, state)
        return {"h": state[0], "c": state[1]}

    last(SEQUENCES[0])  # builds
    place_together(cell.variables, engine, engine.device("cpu"))
    outcomes = []
    for run in (one_by_one, ul.fold):
        cell.calls = 0
        with GradientTape() as tape:
            results = run(last, SEQUENCES)
            loss = sum((ops.sum(r["h"] * r["c"]) for r in results), 0.0)
        grads = tape.gradient(loss, cell.trainable_weights)
        outcomes.append([ops.to_numpy(x) for x in [*leaves_of(results), *grads]])
        calls = cell.calls
    for found, expected in zip(outcomes[1], outcomes[0], strict=True):
        assert_close(found, expected, rtol=2e-5, atol=1e-5, what=f"{backend}, branch {branch}")
    # Its numbers decide: every call is noted op by op, after one try. Else it is traced once.
    assert calls == (12 if branch else 1)


def test_a_compiled_function_as_the_cell() -> None:
    weight = Variable(np.random.default_rng(0).normal(size=(4, 2)), dtype="float64")
    seen = []

    @ul.function
    def join(a: Any, b: Any) -> Any:
        seen.append(ops.shape_of(a))
        return ops.tanh(ops.matmul(ops.concat([a, b]), weight))

    def state(t: Any) -> Any:
        return join(state(t[0]), state(t[1])) if isinstance(t, tuple) else ops.ones((2,), "float64") * t

    examples = [(1.0, (2.0, 3.0)), 0.5, ((1.0, 2.0), (3.0, 4.0))]
    found = ul.fold(state, examples)
    assert seen == [(2,)]
    for y, t in zip(found, examples, strict=True):
        assert_close(y, np.asarray(state(t)), rtol=1e-12, atol=0, what=str(t))


def test_a_whole_layer_over_trees() -> None:
    """What gets a tree is not one step; the layers in it are."""

    class Tree(layers.Layer):
        def __post_init__(self) -> None:
            self.words, self.join = layers.Embedding(5, 3), layers.Dense(3, activation="tanh")

        def call(self, t: Any) -> Any:
            if not isinstance(t, tuple):
                return self.words(np.array([t], np.int32))
            return self.join(ops.concat([self.call(t[0]), self.call(t[1])], -1))

    model = Tree()
    examples = [(1, (2, 3)), 4, ((0, 1), (1, 1))]
    found = ul.fold(model, examples, stack=True)
    assert found.shape == (3, 1, 3)
    assert_close(found, np.stack([model(t) for t in examples]), rtol=1e-6, atol=1e-7, what="trees")


@pytest.mark.parametrize("layer", [layers.Dropout(0.4, seed=3), layers.BatchNormalization()], ids=["mask", "average"])
def test_layers_with_a_state(layer: Any) -> None:
    """Each call changes the state, in order, as it does one by one."""
    examples = list(np.random.default_rng(0).normal(size=(4, 3, 5)).astype("float32"))
    outcomes = []
    for run in (one_by_one, ul.fold):
        twin = type(layer).from_config(layer.get_config())
        results = run(lambda x, twin=twin: twin(x * 2.0, training=True) + 1.0, examples)
        outcomes.append([*results, *twin.get_weights(), *(v.numpy() for v in twin.variables)])
    for found, expected in zip(outcomes[1], outcomes[0], strict=True):
        assert_close(found, expected, rtol=1e-6, atol=1e-6, what=repr(layer))


def test_a_variable_is_read_when_it_is_used() -> None:
    count = Variable(0.0, (), "float64", False)

    @ul.function
    def counted(x: Any) -> Any:
        return count * x

    def numbered(x: Any) -> Any:
        count.assign_add(1.0)
        return count * x, counted(ops.square(x))

    found = ul.fold(numbered, [1.0, 1.0, 10.0])
    assert [[float(y) for y in pair] for pair in found] == [[1.0, 1.0], [2.0, 2.0], [30.0, 300.0]]
    assert float(count) == 3.0


# ---- numbers that are asked for -------------------------------------------------


def test_conditions_on_values() -> None:
    """Halved until below 1: each example as often as it needs."""

    def halve(x: Any) -> Any:
        y, steps = ops.multiply(x, 1.0), 0
        while y > 1.0:
            y, steps = y * 0.5, steps + 1
        return y, steps

    found = ul.fold(halve, [8.0, 0.5, 3.0])
    assert [(float(y), n) for y, n in found] == [(1.0, 3), (0.5, 0), (0.75, 2)]


def test_a_value_knows_its_shape_and_gives_its_numbers() -> None:
    seen = []

    def look(x: Any) -> Any:
        y = ops.exp(x)
        seen.append((y.shape, y.dtype, y.ndim, len(y), repr(y)))
        seen.append((np.asarray(y).tolist(), float(y[0]), int(y[0]), [float(v) for v in y], y.numpy().shape))
        return y

    ul.fold(look, [np.zeros(2)])
    assert seen[0] == ((2,), "float64", 1, 2, "<Lazy shape=(2,) dtype=float64>")
    assert seen[1] == ([1.0, 1.0], 1.0, 1, [1.0, 1.0], (2,))


def test_values_outlive_the_call() -> None:
    kept = []
    ul.fold(lambda x: kept.append(ops.square(x)), [2.0, 3.0])
    assert float(ops.add(kept[1], 1.0)) == 10.0


def test_folds_may_be_nested() -> None:
    def outer(xs: Any) -> Any:
        y = ops.sum(np.asarray(xs))
        return sum(ul.fold(lambda x: ops.square(x) + y, xs), 0.0)

    assert [float(y) for y in ul.fold(outer, [[1.0, 2.0], [3.0]])] == [11.0, 12.0]


# ---- in a graph -----------------------------------------------------------------


def test_inside_a_compiled_function() -> None:
    """The graph holds the batched ops; its gradient is that of the loop."""
    weight = Variable(np.random.default_rng(0).normal(size=(3, 3)), dtype="float64")
    shapes = [((0, 1), 2), (2, (1, (0, 0))), 1]

    def loss(run: Callable[..., Any], x: Any) -> Any:
        def state(t: Any) -> Any:
            return ops.tanh(ops.matmul(state(t[0]) + state(t[1]), weight)) if isinstance(t, tuple) else x[t]

        return sum((ops.sum(y * y) for y in run(state, shapes)), 0.0)

    x = np.random.default_rng(1).normal(size=(3, 3))
    slope = ul.function(lambda x: ul.grad(lambda x: loss(ul.fold, x))(x))
    assert_close(slope(x), ul.grad(lambda x: loss(one_by_one, x))(x), rtol=1e-10, atol=1e-12, what="gradient")
    folded = ul.function(lambda x: loss(ul.fold, x)).trace(x)
    assert Counter(n.op for n in folded.nodes)["matmul"] == 3  # levels; the loop has five


def test_a_cell_that_uses_a_value_around_it() -> None:
    """Neither results of the same fold nor values of a trace around it are mistaken for constants."""

    def scaled(xs: Any) -> Any:
        total = ops.sum(xs)
        share = ul.function(lambda x: x / total)
        return [share(x) for x in xs]

    class Plus(layers.Layer):
        def call(self, x: Any) -> Any:
            return x + self.offset

    layer = Plus()

    def moved(x: Any) -> Any:
        layer.offset = ops.exp(x)
        return layer(x)

    found = ul.fold(scaled, [np.array([1.0, 3.0]), np.array([2.0, 2.0])])
    assert [[float(y) for y in ys] for ys in found] == [[0.25, 0.75], [0.5, 0.5]]
    x = np.arange(2.0, dtype="float32")
    assert_close(ul.fold(moved, list(x), stack=True), np.exp(x) + x, rtol=1e-6, atol=0, what="moved")

    def shifted(x: Any, offset: Any) -> Any:
        layer.offset = offset * 2.0
        return ul.fold(lambda i: layer(x[i]), [0, 1], stack=True)

    found = ul.function(shifted)(np.arange(4.0).reshape(2, 2), np.array(5.0))
    assert_close(found, np.arange(4.0).reshape(2, 2) + 10, rtol=0, atol=0, what="shifted")


def test_arrays_are_freed_with_the_results() -> None:
    """Without the help of the collector of cycles: large arrays would wait for it."""
    watched = []

    def step(x: Any) -> Any:
        y = ops.exp(x)
        watched.append(weakref.ref(y))
        return ops.sum(y * y)

    gc.collect()
    gc.disable()
    try:
        ul.fold(step, list(np.ones((3, 4))))
        assert [w() for w in watched] == [None] * 3
    finally:
        gc.enable()


# ---- results and errors ---------------------------------------------------------


def test_results_as_they_are() -> None:
    found = ul.fold(lambda x: {"y": ops.square(x), "x": x, "none": None}, [2.0, 3])
    assert [(float(r["y"]), r["x"], r["none"]) for r in found] == [(4.0, 2.0, None), (9.0, 3, None)]
    assert found[1]["y"].dtype == np.int32
    assert ul.fold(ops.square, []) == []


def test_stacked_results() -> None:
    found = ul.fold(lambda x: (ops.sum(x), [ops.exp(x)], ops.ones((2,), "float64")), list(np.eye(3)), stack=True)
    assert_close(found[0], np.ones(3), rtol=0, atol=0, what="sums")
    assert_close(found[1][0], np.exp(np.eye(3)), rtol=0, atol=0, what="exponentials")
    assert_close(found[2], np.ones((3, 2)), rtol=0, atol=0, what="ones")


def test_what_cannot_be_stacked() -> None:
    with pytest.raises(ShapeError, match=r"ul.fold: results differ in shape. Received \(2,\) and \(3,\). Use stack=F"):
        ul.fold(ops.exp, [np.ones(2), np.ones(3)], stack=True)
    with pytest.raises(ShapeError, match=r"ul.fold: results differ in nesting. Expected one or more, all nested alike"):
        ul.fold(lambda x: [ops.exp(x)] * int(x), [1.0, 2.0], stack=True)
    with pytest.raises(ShapeError, match="results differ in nesting"):
        ul.fold(ops.exp, [], stack=True)


def test_shapes_are_checked_where_the_op_is_called() -> None:
    def wrong(x: Any) -> Any:
        y = ops.exp(x)
        return ops.matmul(y, np.ones((5, 2)))

    with pytest.raises(ShapeError, match="op 'matmul': matrices do not fit"):
        ul.fold(wrong, [np.ones(3)])
    assert_close(ops.exp(np.zeros(2)), np.ones(2), rtol=0, atol=0, what="an op after the error")
