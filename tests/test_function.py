"""Compiled functions: what they compute, when they are traced, what happens to variables, what they refuse."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import warnings
import weakref
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers, ops
from unilayers.errors import BackendError, DTypeError, GraphError, UnilayersError
from unilayers.functions import KEPT, MANY
from unilayers.graph.serialize import to_json
from unilayers.graph.verify import verify
from unilayers.variable import Variable, place_together

ROOT = Path(__file__).parents[1]
X = np.random.default_rng(0).normal(size=(4, 3))
Point = namedtuple("Point", "x y")


def host(backend: Any, x: Any) -> np.ndarray:
    assert backend.device_of(x) is not None, f"{type(x)} is not an array of {backend}"
    return backend.get(x)


# ---- values and structures -------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
def test_results_are_arrays_of_the_backend_in_the_functions_own_nesting(name: str) -> None:
    backend = require_backend(name)

    @ul.function(backend=name)
    def f(x: Any, pair: Any, *, scale: Any) -> Any:
        return {"b": [x * scale, (None, ops.sum(pair["k"]))], "a": Point(pair["j"] + 1, 2.5)}

    found = f(X, {"k": X, "j": X[0]}, scale=np.float64(3.0))
    assert list(found) == ["b", "a"]
    assert isinstance(found["a"], Point)
    assert found["b"][1][0] is None
    for got, expected, what in [
        (found["b"][0], 3 * X, "first"),
        (found["b"][1][1], X.sum(), "sum"),
        (found["a"].x, X[0] + 1, "second"),
        (found["a"].y, np.float32(2.5), "number"),
    ]:
        assert_close(host(backend, got), np.asarray(expected), rtol=1e-12, atol=0, what=what)


@pytest.mark.parametrize("name", BACKENDS)
def test_results_stay_when_the_function_runs_again_and_its_arguments_change(name: str) -> None:
    backend = require_backend(name)
    f = ul.function(lambda x: (x, x + 1, ops.reshape(x, (-1,)), x), backend=name)
    x = X.copy()
    first = f(x)
    before = [host(backend, a) for a in first]
    x[:] = 0
    f(x)
    for a, b in zip(first, before, strict=True):
        np.testing.assert_array_equal(host(backend, a), b)
    np.testing.assert_array_equal(before[0], X)


@pytest.mark.parametrize("name", BACKENDS)
def test_it_runs_where_its_array_arguments_are(name: str) -> None:
    backend = require_backend(name)
    there = backend.put([X.astype("float32")], backend.device(None))[0]
    f = ul.function(lambda a, b: a * b)
    assert_close(
        host(backend, f(X[0].astype("float32"), there)), (X[0] * X).astype("float32"), rtol=1e-6, atol=0, what="y"
    )
    assert isinstance(f(X, X), np.ndarray)  # NumPy where nobody says otherwise
    assert isinstance(ul.function(lambda a: a + 1, backend="numpy")(there), np.ndarray)


def test_arrays_of_two_engines_need_a_word(backend: Any) -> None:
    other = require_backend("torch" if backend.name != "torch" else "jax")
    a, b = (e.put([X], e.device(None))[0] for e in (backend, other))
    if backend.name == "numpy":  # NumPy's arrays go wherever the others are
        host(other, ul.function(ops.add)(a, b))
        return
    with pytest.raises(BackendError, match=r"function 'add': arrays of two backends among the arguments: .* and "):
        ul.function(ops.add)(a, b)
    assert_close(ul.function(ops.add, backend="numpy")(a, b), 2 * X, rtol=1e-12, atol=0, what="sum")


def test_the_default_backend_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = require_backend("torch")
    monkeypatch.setenv("UNILAYERS_BACKEND", "torch")
    host(torch, ul.function(lambda: ops.zeros((2,)))())


def test_float64_stays_and_results_equal_plain_calls() -> None:
    def f(x: Any, y: Any) -> Any:
        return ops.softmax(x @ y) * 0.1

    found = ul.function(f)(X, X.T)
    assert found.dtype == np.float64
    assert_close(found, f(X, X.T), rtol=1e-14, atol=0, what="y")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_function_without_array_arguments(name: str) -> None:
    backend = require_backend(name)
    f = ul.function(lambda n: ops.arange(n) * 2, backend=name)
    np.testing.assert_array_equal(host(backend, f(3)), [0, 2, 4])
    np.testing.assert_array_equal(host(backend, f(4)), [0, 2, 4, 6])
    assert ul.function(lambda: None)() is None


# ---- tracing -----------------------------------------------------------------------


def test_one_trace_for_each_form_of_the_arguments() -> None:
    seen: list[Any] = []

    @ul.function
    def f(x: Any, n: Any = 1, *, flag: Any = None) -> Any:
        seen.append((x.shape, x.dtype, n, flag))
        return x * n if n else x

    for _ in range(2):
        for x in (X, X.astype("float32"), X[:2]):
            f(x)
        for n in (1, True, 1.0, 0.0, -0.0, float("nan")):
            f(X, n)
        f(X, flag="a"), f(X, flag=len), f(flag=len, x=X)
    assert len(seen) == len(f.graphs) == 3 + 6 + 3
    assert [seen[0][0], seen[1][1], seen[2][0]] == [(4, 3), "float32", (2, 3)]


def test_arrays_of_every_engine_share_a_trace() -> None:
    f = ul.function(lambda d: d["b"] - d["a"])
    for name in BACKENDS:
        backend = require_backend(name)
        a, b = backend.put([X, X + 1], backend.device(None))
        np.testing.assert_array_equal(host(backend, f({"a": a, "b": b})), (X + 1) - X)
        np.testing.assert_array_equal(host(backend, f({"b": b, "a": a})), (X + 1) - X)
    assert len(f.graphs) == 1


def test_graphs_can_be_looked_at_without_running() -> None:
    @ul.function
    def f(x: Any, *rest: Any, **options: Any) -> Any:
        return {"y": x + rest[0] + options["z"]["w"][0]}

    graph = f.trace(X, X[0], z={"w": [X[1]]})
    assert verify(graph) is f.graphs[0]
    assert [v.node.attrs["name"] for v in graph.inputs] == ["x", "rest/0", "z/w/0"]
    assert list(graph.outputs) == ["y"]
    assert "input x: float64[4, 3]" in str(graph)
    f(X, X[0], z={"w": [X[1]]})
    assert len(f.graphs) == 1
    assert f.__name__ == "f"
    assert "traced for 1" in repr(f)


def test_few_forms_are_kept_and_many_are_warned_of_once() -> None:
    f = ul.function(lambda x, n: x + n)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(KEPT + 5):
            f(X, n)
        assert len(caught) == 1
    assert f"function '<lambda>' was traced {MANY} times" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert len(f.graphs) == KEPT


def test_default_float_dtype_belongs_to_the_form() -> None:
    f = ul.function(lambda: ops.zeros((2,)))
    assert f().dtype == np.float32
    with ul.config.dtype_scope("float64"):
        assert f().dtype == np.float64
    assert f().dtype == np.float32


def test_inside_another_trace_it_is_part_of_that_graph() -> None:
    inner = ul.function(lambda x: ops.tanh(x))
    outer = ul.function(lambda x: inner(x) * 2)
    assert_close(outer(X), 2 * np.tanh(X), rtol=1e-12, atol=0, what="nested")
    assert [n.op for n in outer.graphs[0].nodes] == ["input", "tanh", "constant", "multiply"]
    assert not inner.graphs
    x = ul.Input((3,))
    model = ul.Model(x, inner(layers.Identity()(x)))
    assert_close(model.predict(X, verbose=0), np.tanh(X.astype("float32")), rtol=1e-5, atol=1e-7, what="in a model")


def test_inside_an_eager_layer_operators_of_its_result_are_ops() -> None:
    class Twice(layers.Layer):
        @ul.function
        def double(self, x: Any) -> Any:
            return x + x

        def call(self, x: Any) -> Any:
            y = self.double(x)
            assert type(y) is type(x)
            return y * np.ones(
                3, "float32" if isinstance(x, np.ndarray) else "int32"
            )  # TensorFlow itself would refuse the mixture

    for name in BACKENDS:
        backend = require_backend(name)
        x = backend.put([X.astype("float32")], backend.device(None))[0]
        assert_close(host(backend, Twice()(x)), 2 * X.astype("float32"), rtol=0, atol=0, what=name)


# ---- methods -----------------------------------------------------------------------


class Scaler:
    def __init__(self, factor: float) -> None:
        self.factor, self.bias = factor, None

    @ul.function
    def __call__(self, x: Any) -> Any:
        if self.bias is None:
            self.bias = ul.Variable(np.full(3, self.factor), dtype="float64")
        self.bias.assign_add(np.ones(3))
        return x * self.factor + self.bias


def test_a_method_is_a_function_for_each_object() -> None:
    for factor in (2.0, 3.0):
        scaler = Scaler(factor)
        for call in (1, 2):
            assert_close(scaler(X), factor * X + factor + call, rtol=1e-12, atol=0, what=f"call {call}")
        assert len(type(scaler).__call__.__get__(scaler).graphs) == 1
        other = copy.copy(scaler)
        other.factor = 5.0
        assert_close(other(X), 5 * X + factor + 3, rtol=1e-12, atol=0, what="copy")
    gone = weakref.ref(scaler)
    del scaler, other
    gc.collect()
    assert gone() is None


def test_a_model_or_layer_is_a_function_too() -> None:
    model = ul.Sequential([ul.Input((3,)), layers.Dense(2)])
    f = ul.function(model)
    assert_close(f(X.astype("float32")), model.predict(X, verbose=0), rtol=1e-6, atol=0, what="model")
    with pytest.raises(UnilayersError, match=r"ul\.function: not a function\. Received 3\."):
        ul.function(3)


# ---- variables ---------------------------------------------------------------------


@pytest.mark.parametrize("home", [None, *BACKENDS])
@pytest.mark.parametrize("name", BACKENDS)
def test_variables_are_read_where_they_live_and_updated_there(name: str, home: str | None) -> None:
    backend = require_backend(name)
    total, factor = ul.Variable(np.zeros(3), dtype="float64"), ul.Variable(2.0, dtype="float64")
    if home is not None:
        there = require_backend(home)
        ul.variable.place_together([factor, total], there, there.device(None))

    @ul.function(backend=name)
    def add(x: Any) -> Any:
        total.assign_add(x * factor)
        return ops.sum(total)

    for step in (1, 2):
        found = add(np.ones(3))
        assert_close(host(backend, found), np.float64(6 * step)[()] * np.ones(()), rtol=0, atol=0, what="result")
        assert_close(total.numpy(), np.full(3, 2.0 * step), rtol=0, atol=0, what="variable")
        factor.assign(2.0)
    assert total.store.backend.name == (home or name)
    total.assign(np.zeros(3))
    add(np.ones(3))
    assert_close(total.numpy(), np.full(3, 2.0), rtol=0, atol=0, what="after assign")


def test_without_arguments_it_runs_where_its_variables_are(backend: Any) -> None:
    v = ul.Variable(np.arange(3.0))
    ul.variable.place_together([v], backend, backend.device(None))
    swap = ul.function(lambda: (v.assign(v[::-1]), v, v * 1)[1:])
    first = swap()
    second = swap()
    for found, expected in ((first, [2, 1, 0]), (second, [0, 1, 2])):
        for part in found:
            np.testing.assert_array_equal(host(backend, part), expected)


def test_variables_in_two_stores_of_one_device(backend: Any) -> None:
    a, b = ul.Variable(np.ones(2)), ul.Variable(np.ones(2))
    for v in (a, b):
        ul.variable.place_together([v], backend, backend.device(None))
    f = ul.function(lambda x: (a.assign_add(x), b.assign(a * 2))[2:], backend=backend.name)
    for _ in range(2):
        assert f(np.ones(2, "float32")) == ()
    np.testing.assert_array_equal(a.numpy(), [3, 3])
    np.testing.assert_array_equal(b.numpy(), [6, 6])
    assert a.store is not b.store


def test_variables_made_at_the_first_call_stay() -> None:
    made: list[Any] = []

    @ul.function
    def f(x: Any) -> Any:
        if not made:
            made.append(ul.Variable(np.zeros(()), dtype="float64"))
        made[0].assign_add(ops.sum(x))
        return made[0]

    assert [float(f(np.ones(2))), float(f(np.ones(2))), float(f(np.ones(3)))] == [2, 4, 7]
    assert len(made) == 1


def test_variables_made_at_every_call_are_refused() -> None:
    @ul.function
    def f(x: Any) -> Any:
        return x + ul.Variable(np.zeros(3), name="fresh")

    with pytest.raises(
        UnilayersError,
        match=r"^function 'f': creates the variable 'fresh' anew whenever it is traced\. Create variables outside, ",
    ):
        f(X)
    assert not f.graphs


def test_a_layer_is_built_at_the_first_call(backend: Any) -> None:
    layer, twin = layers.Dense(2), layers.Dense(2)
    x = X.astype("float32")
    f = ul.function(layer, backend=backend.name)
    f(x)
    assert_close(host(backend, f(x)), np.asarray(twin(x)), rtol=1e-5, atol=1e-6, what="dense")


def test_losses_of_layers_can_be_taken_inside() -> None:
    class Bounded(layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(ops.sum(x))
            return x

    layer = Bounded()
    f = ul.function(lambda x: (layer(x), layer(x), layer.take_losses(), layer.take_losses())[2:])
    (first, second), none = f(X.astype("float32"))
    assert none == []
    assert first == second == X.astype("float32").sum(dtype="float32") or abs(first - X.sum()) < 1e-5


# ---- gradients ---------------------------------------------------------------------


def test_under_a_tape_it_is_differentiated() -> None:
    weight = ul.Variable(np.full(3, 2.0), dtype="float64")
    f = ul.function(lambda x: {"y": ops.sum(x**3 * weight)})
    f(X)
    with ul.GradientTape() as tape:
        x = tape.watch(X)
        y = f(x)["y"]
    dx, dw = tape.gradient(y, [x, weight])
    assert_close(np.asarray(dx), 6 * X**2, rtol=1e-12, atol=0, what="by x")
    assert_close(np.asarray(dw), (X**3).sum(0), rtol=1e-12, atol=0, what="by the variable")
    with ul.GradientTape() as tape:  # no argument is watched, but the variable is
        y = f(X)["y"]
    assert_close(np.asarray(tape.gradient(y, weight)), (X**3).sum(0), rtol=1e-12, atol=0, what="variable alone")


def test_under_a_tape_that_watches_nothing_it_stays_compiled() -> None:
    calls: list[int] = []
    f = ul.function(lambda x: (calls.append(1), x + 1)[1])
    with ul.GradientTape() as tape:
        w = tape.watch(np.ones(3))
        y = f(X) * w
        f(X)
    assert calls == [1]
    assert_close(np.asarray(tape.gradient(y, w)), (X + 1).sum(0), rtol=1e-12, atol=0, what="by w")


def test_gradient_and_second_derivative_of_a_compiled_function() -> None:
    f = ul.function(lambda x: ops.sum(x**3))
    assert_close(np.asarray(ul.grad(f)(X)), 3 * X**2, rtol=1e-12, atol=0, what="first")
    second = ul.grad(lambda x: ops.sum(ul.grad(f)(x)))
    assert_close(np.asarray(second(X)), 6 * X, rtol=1e-12, atol=0, what="second")


@pytest.mark.parametrize("name", BACKENDS)
def test_compiled_gradients_of_first_and_second_order(name: str) -> None:
    backend = require_backend(name)
    first = ul.function(ul.grad(lambda x: ops.sum(x**3)), backend=name)
    assert_close(host(backend, first(X)), 3 * X**2, rtol=1e-12, atol=0, what="first")
    second = ul.function(ul.grad(lambda x: ops.sum(ul.grad(lambda z: ops.sum(z**3))(x))), backend=name)
    assert_close(host(backend, second(X)), 6 * X, rtol=1e-12, atol=0, what="second")


def net() -> ul.Model:
    return ul.Sequential(
        [ul.Input((3,)), layers.Dense(5, activation="tanh"), layers.BatchNormalization(), layers.Dropout(0.3)], seed=4
    )


@pytest.mark.parametrize("name", BACKENDS)
def test_a_whole_training_step_is_one_function(name: str) -> None:
    """Layers, a tape, an optimizer and a metric: the numbers of the same code run op by op."""
    backend = require_backend(name)

    def make() -> tuple[Any, ul.Model, Any]:
        model, optimizer, mean = net(), ul.optimizers.Adam(0.05, global_clipnorm=1.0), ul.metrics.Mean()

        def step(x: Any, y: Any) -> Any:
            with ul.GradientTape() as tape:
                loss = ops.mean(ops.square(model(x, training=True) - y))
            weights = model.trainable_weights
            optimizer.apply(tape.gradient(loss, weights), weights)
            mean.update_state(loss)
            return {"loss": loss, "mean": mean.result()}

        return step, model, optimizer

    x, y = X.astype("float32"), np.ones((4, 5), "float32")
    plain, eager_model, _ = make()
    fn, model, optimizer = make()
    step = ul.function(fn, backend=name)
    for i in range(5):
        expected, found = plain(x, y), step(x, y)
        for key, value in found.items():
            assert_close(host(backend, value), np.asarray(expected[key]), rtol=1e-4, atol=1e-6, what=f"{key} {i}")
    assert len(step.graphs) == 1
    assert int(optimizer.iterations.numpy()) == 5
    for a, b in zip(model.variables, eager_model.variables, strict=True):
        assert a.store.backend is backend
        assert_close(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5, what=a.path)


# ---- refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            "text",
            r"^function 'f': the result is not an array\. Expected arrays, numbers and Nones, .* Received str 'text'",
        ),
        ({"a": [1, object]}, r"the result at 'a/1' is not an array\. .* Received type <class 'object'>\.$"),
    ],
)
def test_a_result_that_is_no_array_is_named(result: Any, message: str) -> None:
    def f(x: Any) -> Any:
        return result

    with pytest.raises(UnilayersError, match=message):
        ul.function(f)(X)


def test_python_conditions_on_values_are_refused() -> None:
    f = ul.function(lambda x: x if ops.sum(x) > 0 else -x)
    with pytest.raises(GraphError, match=r"function '<lambda>': a symbolic value has no truth value .*ops\.where"):
        f(X)


def test_values_that_leaked_from_another_trace_are_refused() -> None:
    kept: list[Any] = []

    @ul.function
    def f(x: Any) -> Any:
        kept.append(x * 2)
        return kept[0] + 1

    f(X)
    with pytest.raises(
        GraphError, match=r"function 'f': a symbolic value from outside is used\. Received 'x'\. Pass it"
    ):
        f(X[:1])


def test_arguments_that_are_not_numbers_are_refused() -> None:
    def f(x: Any) -> Any:
        return x

    with pytest.raises(DTypeError, match=r"function 'f': unknown dtype 'object'"):
        ul.function(f)(np.array([None]))


# ---- saved graphs ------------------------------------------------------------------

RUN_SAVED = """
import sys
import numpy as np
from unilayers.backend import get_backend
from unilayers.graph.serialize import from_json
from unilayers.program import compile_graph
folder, name = sys.argv[1:]
backend = get_backend(name)
step = compile_graph(from_json(open(folder + "/graph.json").read()), backend, backend.device(None))
given = np.load(folder + "/given.npz")
state = backend.put([given["state"]], backend.device(None))
for _ in range(2):
    state, outputs = step(state, backend.put([given["x"]], backend.device(None)))
np.savez(folder + "/found.npz", state=backend.get(state[0]), **{k: backend.get(v) for k, v in outputs.items()})
assert "unilayers.functions" not in sys.modules
"""


@pytest.mark.parametrize("name", BACKENDS)
def test_a_saved_graph_runs_in_a_process_that_never_saw_the_function(name: str, tmp_path: Path) -> None:
    backend = require_backend(name)
    weight = ul.Variable(np.full(3, 0.5), dtype="float64", name="weight")

    @ul.function(backend=name)
    def step(x: Any) -> Any:
        error = x @ weight - 1.0
        weight.assign_sub(0.1 * (error @ x))
        return {"loss": ops.sum(error**2), "weight": weight}

    (tmp_path / "graph.json").write_text(to_json(step.trace(X)))
    np.savez(tmp_path / "given.npz", x=X, state=weight.numpy())
    subprocess.run([sys.executable, "-c", RUN_SAVED, str(tmp_path), name], check=True, cwd=ROOT)
    step(X)
    expected = step(X)
    found = np.load(tmp_path / "found.npz")
    for key in ("loss", "weight"):
        assert_close(found[key], host(backend, expected[key]), rtol=1e-15, atol=0, what=key)
    assert_close(found["state"], weight.numpy(), rtol=1e-15, atol=0, what="state")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_assigned_array_is_not_overwritten_by_a_compiled_update(backend: str) -> None:
    """Two variables that were given views of one array, and the array itself, stay apart."""
    engine = require_backend(backend)
    device = engine.device("cpu")
    array = engine.put([np.arange(4.0)], device)[0]
    a, b = Variable(np.zeros(4), dtype="float64", name="a"), Variable(np.zeros((2, 2)), dtype="float64", name="b")
    place_together([a, b], engine, device)
    a.assign(array)
    b.assign(ops.reshape(array, (2, 2)))
    optimizer = ul.optimizers.SGD(1.0)

    @ul.function(backend=engine)
    def step() -> Any:
        optimizer.build([a])
        optimizer.apply([ops.ones_like(a)])
        return ops.identity(a)

    for _ in range(2):
        step()
    found = {"a": a.numpy(), "b": b.numpy().ravel(), "array": engine.get(array)}
    for name, value in (("a", np.arange(4.0) - 2), ("b", np.arange(4.0)), ("array", np.arange(4.0))):
        np.testing.assert_array_equal(found[name], value)
