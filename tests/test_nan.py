"""Training that comes to NaN: it stops, and the message names what went bad first, on every backend."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers, ops
from unilayers.backend import node_runner
from unilayers.callbacks import TerminateOnNaN
from unilayers.errors import NonFiniteError
from unilayers.graph import Graph, leaf, scope
from unilayers.graph.passes import optimise, specialise
from unilayers.graph.serialize import to_json
from unilayers.spec import Spec
from unilayers.training import steps

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype("float32")
Y = RNG.normal(size=(32, 2)).astype("float32")


def chain(*middle: Any, **settings: Any) -> ul.Model:
    return ul.Sequential([ul.Input((4,)), layers.Dense(4), *middle, layers.Dense(2)], seed=1, **settings)


def function(f: Callable[[Any], Any], name: str) -> layers.Layer:
    return layers.Lambda(f, name=name)


def spoiled(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[17, 1] = value
    return array


def functional() -> ul.Model:
    x = ul.Input((4,), name="table")
    left, right = layers.Dense(3, name="left")(x), layers.Dense(3, name="right")(x)
    y = layers.Add()([function(ops.log, "logs")(ops.abs(left) * 0.0), right])
    return ul.Model(x, layers.Dense(2)(y), seed=1)


class Block(layers.Layer):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner, self.logs = layers.Dense(4), function(lambda x: ops.log(-ops.abs(x)), "logs")

    def call(self, x: Any) -> Any:
        return self.logs(self.inner(x))


class Subclassed(ul.Model):
    def __init__(self) -> None:
        super().__init__(seed=1)
        self.block, self.out = Block(), layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.out(self.block(x))


class Stepping(Subclassed):
    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with ul.GradientTape() as tape:
            loss = ops.mean(ops.square(y - self(x, training=True)))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


class Barrier(ul.regularizers.Regularizer):
    def __call__(self, w: Any) -> Any:
        return ops.log(ops.sum(w) * 0.0)


def masked(where: str) -> ul.Model:
    """Attention over 4 steps with the last two masked away by minus infinity, and a logarithm of 0 ``where``."""

    def attend(x: Any) -> Any:
        steps_ = ops.reshape(x, (-1, 4, 1))
        scores = ops.matmul(steps_, ops.permute_dims(steps_, (0, 2, 1)))
        bias = ops.log(np.array([1.0, 1.0, 0.0, 0.0], "float32"))  # an infinity that is computed
        weights = ops.softmax(ops.where(np.array([True, True, False, False]), scores, float("-inf")) + bias, axis=-1)
        return ops.reshape(ops.matmul(weights, steps_), (-1, 4))

    late = [function(lambda x: ops.log(ops.relu(x) * 0.0), "late")] if where == "late" else []
    empty = [function(lambda x: ops.softmax(x + float("-inf"), axis=-1), "empty")] if where == "empty" else []
    return chain(function(attend, "attend"), *late, *empty)


def beside(x: Any) -> Any:
    """NaN in some columns, beside an infinity that was computed before it."""
    below = ops.log(ops.relu(x) * 0.0)
    return ops.where(np.array([True, False, True, False]), ops.sqrt(-ops.abs(x) - 1.0), below)


def dropped() -> ul.Model:
    return chain(layers.Dropout(0.5), function(lambda x: ops.log(ops.abs(x)), "logs"))


SOME = r"\(\d+ of \d+, such as -?[\d.e-]+\)"
# What is trained, on which data, with which loss and optimizer; and the message.
CASES: dict[str, tuple[Callable[[], ul.Model], dict[str, Any], str]] = {
    "sequential": (
        lambda: chain(function(ops.log, "logs")),
        {},
        rf"Batch 0: loss is nan. First in layer 'logs' \(Lambda\), op 'log': input 0 has values <= 0 {SOME}; ",
    ),
    "functional": (functional, {}, r"Batch 0: loss is .*. First in layer 'logs' \(Lambda\), op 'log': .* values <= 0 "),
    "nested": (Subclassed, {}, r"Batch 0: loss is nan. First in layer 'block/logs' \(Lambda\), op 'log': "),
    "own step": (Stepping, {}, r"Batch 0: loss is nan. First in layer 'block/logs' \(Lambda\), op 'log': "),
    "masked, later log": (
        lambda: masked("late"),
        {},
        r"Batch 0: loss is nan. First in layer 'late' \(Lambda\), op 'log': .*; it turns to nan in layer 'dense_1' ",
    ),
    "all masked": (
        lambda: masked("empty"),
        {},
        r"Batch 0: loss is nan. First in layer 'empty' \(Lambda\), op 'softmax'",
    ),
    "beside an infinity": (
        lambda: chain(function(beside, "beside")),
        {},
        rf"Batch 0: loss is nan. First in layer 'beside' \(Lambda\), op 'sqrt': input 0 has values < 0 {SOME}; ",
    ),
    "composite": (
        lambda: chain(function(lambda x: ops.squareplus(x * 1e30), "parts")),
        {},
        r"Batch 0: loss is (nan|inf). First in layer 'parts' \(Lambda\), op 'squareplus', in it '\w+': its inputs are ",
    ),
    "random mask": (dropped, {}, r"Batch 0: loss is .*. First in layer 'logs' \(Lambda\), op 'log': .* values <= 0 "),
    "loss": (
        lambda: chain(),
        {"loss": lambda t, p: ops.mean(ops.sqrt(p))},
        rf"Batch 0: loss is nan. First in the loss, op 'sqrt': input 0 has values < 0 {SOME}; ",
    ),
    "gradient": (
        lambda: chain(function(lambda x: ops.sqrt(ops.relu(x) * 0.0) + x, "root")),
        {},
        r"Batch 1: loss is nan. Batch 0 has made 'dense/kernel' nan. First in the gradient of op 'sqrt' "
        r"in layer 'root' \(Lambda\), op 'divide': input 1 has values 0 ",
    ),
    "gradient, at once": (
        lambda: chain(function(lambda x: ops.sqrt(ops.relu(x) * 0.0) + x, "root")),
        {"weights": True},
        r"Batch 0: 'dense/kernel' is not finite after the update. First in the gradient of op 'sqrt' in layer 'root' ",
    ),
    "update": (
        lambda: chain(),
        {"optimizer": lambda: ul.optimizers.SGD(1e38, momentum=0.9), "loss": lambda t, p: 1e6 * ops.mean(p)},
        r"Batch 1: loss is (nan|inf). Batch 0 has made '[^']*' inf. "
        r"First in the optimizer's update, op 'sgd_update', in it '\w+': its inputs",
    ),
    "inputs": (
        lambda: chain(),
        {"x": spoiled(X, np.inf)},
        r"Batch 2: loss is .*. It is in the data: 'input' has inf in sample 1 of the batch, number 17 of the data; ",
    ),
    "targets": (
        lambda: chain(),
        {"y": spoiled(Y, np.nan)},
        r"Batch 2: loss is nan. It is in the data: 'y0' has nan in sample 1 of the batch, number 17 of the data; ",
    ),
    "penalty": (
        lambda: ul.Sequential([ul.Input((4,)), layers.Dense(2, kernel_regularizer=Barrier())]),
        {},
        r"Batch 0: loss is (nan|-inf). First in the model itself, op 'log': input 0 has values <= 0 ",
    ),
}


def trained(case: str, backend: str, eager: bool, **settings: Any) -> ul.Model:
    """A model trained to where it stops; without shuffling, in batches of 8."""
    make, given, _ = CASES[case]
    model = make()
    model.compile(given.get("optimizer", lambda: "adam")(), given.get("loss", "mse"), run_eagerly=eager)
    stop = TerminateOnNaN(weights=given.get("weights", False), **settings)
    with np.errstate(all="ignore"):
        model.fit(given.get("x", X), given.get("y", Y), 8, 2, 0, [stop], shuffle=False, backend=backend)
    return model


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_the_first_fault_is_named(case: str, backend: str, eager: bool, capsys: pytest.CaptureFixture[str]) -> None:
    require_backend(backend)
    model = trained(case, backend, eager)
    out = capsys.readouterr().out
    assert re.match(CASES[case][2], out), out
    assert out.endswith("; training stops.\n")
    assert out.count("\n") == 1
    assert model.stop_training


class Deciding(ul.Model):
    """Looks at a number in its call, so that it cannot be traced."""

    def __init__(self, kind: str) -> None:
        super().__init__(seed=1)
        self.first, self.logs, self.out, self.kind = layers.Dense(4), function(ops.log, "logs"), layers.Dense(2), kind

    def call(self, x: Any) -> Any:
        x = self.first(x)
        if float(ops.sum(x)) == 1.5 or self.kind == "forward":
            x = self.logs(x)
        elif self.kind == "gradient":
            x = x + ops.sqrt(ops.relu(x) * 0.0)
        return self.out(x)


UNTRACED = {
    "forward": r"Batch 0: loss is nan. First in layer 'logs' \(Lambda\), op 'log': input 0 has values <= 0 ",
    "data": r"Batch 2: loss is nan. It is in the data: 'input 0' has nan in sample 1 of the batch, number 17 ",
    "gradient": r"Batch 1: loss is nan. Batch 0 has made 'dense/kernel' nan. First in the gradient of op 'sqrt'"
    r": its inputs are 0 to 0; ",
}


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", UNTRACED)
def test_steps_that_cannot_be_traced(kind: str, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    require_backend(backend)
    weights = []
    for explain in (True, False):
        model = Deciding(kind)
        model.compile("adam", "mse", run_eagerly=True)
        x = spoiled(X, np.nan) if kind == "data" else X
        with np.errstate(all="ignore"):
            model.fit(x, Y, 8, 2, 0, [TerminateOnNaN(explain=explain)], shuffle=False, backend=backend)
        weights.append(model.get_weights())
    out = capsys.readouterr().out
    assert re.match(UNTRACED[kind], out), out
    for a, e in zip(*weights, strict=True):  # to look has changed nothing
        assert_close(a, e, rtol=0, atol=0, what="weights after the step")


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_metrics_are_not_to_blame(capsys: pytest.CaptureFixture[str]) -> None:
    """One output has a metric only, and is NaN; the weights become so by the gradient of the other."""
    h = layers.Dense(4)(x := ul.Input((4,)))
    root = function(lambda x: ops.sqrt(ops.relu(x) * 0.0) + x, "root")
    outputs = [layers.Dense(2, name="seen")(function(ops.log, "logs")(h)), layers.Dense(2, name="learnt")(root(h))]
    model = ul.Model(x, outputs, seed=1)
    model.compile("adam", {"learnt": "mse"}, metrics={"seen": ["mae"]})
    model.fit(X, {"seen": Y, "learnt": Y}, verbose=0, callbacks=[TerminateOnNaN(weights=True)])
    assert "First in the gradient of op 'sqrt' in layer 'root'" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_settings(capsys: pytest.CaptureFixture[str]) -> None:
    trained("sequential", "numpy", False, explain=False)
    assert capsys.readouterr().out == "Batch 0: loss is nan; training stops.\n"
    with pytest.raises(NonFiniteError, match=r"TerminateOnNaN: Batch 0: loss is nan\. First in layer 'logs'") as caught:
        trained("sequential", "numpy", False, raise_error=True)
    assert isinstance(caught.value, RuntimeError)  # which Keras raises
    model = chain()
    model.compile("adam", "mse")
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[TerminateOnNaN(weights=True)])
    other = chain()
    other.compile("adam", "mse")
    assert history.history == other.fit(X, Y, epochs=3, verbose=0).history
    assert capsys.readouterr().out == ""


# ---- where nodes come from -----------------------------------------------------------


def test_nodes_know_where_they_come_from() -> None:
    model = Subclassed()
    model.compile("adam", "mse", metrics=["mae"])
    graph = steps.train_program(model, model._objectives, steps.Batch(X, Y)).graph
    found = {(n.scope, n.part, n.op) for n in graph.nodes}
    assert ("block/logs", "", "log") in found
    assert ("block/logs", "gradient of log", "divide") in found
    assert {scope for scope, part, _ in found if part.startswith("gradient")} >= {"block/dense", "block/logs", "dense"}
    assert {part for _, part, _ in found if not part.startswith("gradient")} == {"", "loss", "update", "metrics"}
    engine = require_backend("numpy")
    ready = optimise(specialise(graph, {"batch": 8}), engine.table, node_runner(engine, "cpu"))
    kept = {(n.scope, n.part) for n in ready.nodes}
    assert kept >= {
        ("block/dense", ""),
        ("block/logs", ""),
        ("block/logs", "gradient of log"),
        ("", "loss"),
        ("", "update"),
    }


def test_the_origin_is_neither_compared_nor_saved() -> None:
    def graph() -> Graph:
        x = leaf("input", "x", Spec((3,), "float32"))
        y = ops.exp(x)
        with scope("here", "loss"):
            z = ops.exp(x)
        return Graph((x,), (), {"y": ops.add(y, z)})

    made = graph()
    with scope("there"):
        other = graph()
    assert to_json(made) == to_json(other)
    assert {n.scope for n in other.nodes} == {"there", "here"}
    once = optimise(made, {"input", "add", "exp"}, lambda node, arrays: arrays)
    assert [n.op for n in once.nodes] == ["input", "exp", "add"]
