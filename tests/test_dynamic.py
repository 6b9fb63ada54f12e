"""Networks made while they run: the same numbers as plain NumPy, as the same networks in graphs, on every backend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers, ops
from unilayers.graph.passes import every_node
from unilayers.graph.serialize import to_json
from unilayers.training.steps import Batch, train_program

OTHERS = [name for name in BACKENDS if name != "numpy"]

# ---- four networks ------------------------------------------------------------------
# Each is a loss of weights and one example. With m = numpy it is the witness, with m = ops it is what is tested.

Weights = dict[str, Any]


def conditional(m: Any, w: Weights, x: Any) -> Any:
    y = m.matmul(x, w["yes"]) if m.sum(x) > 0 else m.matmul(x, w["no"])
    return m.sum(m.square(y))


def recurrent(m: Any, w: Weights, word: Any) -> Any:
    letters, target = word
    h = w["first"]
    for letter in letters:
        h = m.tanh(w["letter"][letter] + m.matmul(h, w["memory"]))
    return m.square(m.sum(h * w["answer"]) - target)


def tree_state(m: Any, w: Weights, tree: Any) -> Any:
    if isinstance(tree, bool):
        return w["letter"][int(tree)]
    name, left, right = tree
    both = m.concatenate([tree_state(m, w, left), tree_state(m, w, right)])
    return m.tanh(m.matmul(both, w[name]))


def recursive(m: Any, w: Weights, tree: Any) -> Any:
    return m.square(m.sum(tree_state(m, w, tree) * w["answer"]) - 1.0)


def modular(m: Any, w: Weights, question: Any) -> Any:
    names, x = question
    for name in names:
        x = m.tanh(m.matmul(x, w[name])) if name == "bend" else m.matmul(x, w[name])
    return m.sum(m.square(x))


# ---- the same as graphs ---------------------------------------------------------------
# Losses of all examples: how to make arrays of them, and the function of weights and arrays.


def conditional_arrays(examples: Sequence[Any]) -> list[np.ndarray]:
    return [np.stack(examples)]


def conditional_graph(w: Weights, x: Any) -> Any:
    def one(x: Any) -> Any:
        y = ops.cond(ops.sum(x) > 0, lambda: ops.matmul(x, w["yes"]), lambda: ops.matmul(x, w["no"]))
        return ops.sum(ops.square(y))

    return ops.map(one, x)


def recurrent_arrays(examples: Sequence[Any]) -> list[np.ndarray]:
    """Letters (longest, words), whether there is one, targets."""
    shape = max(len(letters) for letters, _ in examples), len(examples)
    padded, there = np.zeros(shape, "int32"), np.zeros(shape, bool)
    for i, (letters, _) in enumerate(examples):
        padded[: len(letters), i], there[: len(letters), i] = letters, True
    return [padded, there, np.array([target for _, target in examples])]


def recurrent_graph(w: Weights, padded: Any, there: Any, targets: Any) -> Any:
    def step(h: Any, now: Any) -> Any:
        letter, real = now
        new = ops.tanh(ops.take(w["letter"], letter, 0) + ops.matmul(h, w["memory"]))
        return ops.where(real[:, None], new, h), None

    h, _ = ops.scan(step, ops.broadcast_to(w["first"], (targets.shape[0], 3)), (padded, there))
    return ops.square(ops.sum(h * w["answer"], 1) - targets)


MODULES = "bend", "turn", "stretch"


def modular_arrays(examples: Sequence[Any]) -> list[np.ndarray]:
    """Numbers of modules (questions, longest), 0 where there is none; inputs."""
    numbers = np.zeros((len(examples), max(len(names) for names, _ in examples)), "int32")
    for row, (names, _) in zip(numbers, examples, strict=True):
        row[: len(names)] = [1 + MODULES.index(n) for n in names]
    return [numbers, np.stack([x for _, x in examples])]


def modular_graph(w: Weights, numbers: Any, xs: Any) -> Any:
    branches = [
        lambda x: x,
        lambda x: ops.tanh(ops.matmul(x, w["bend"])),
        lambda x: ops.matmul(x, w["turn"]),
        lambda x: ops.matmul(x, w["stretch"]),
    ]

    def one(example: Any) -> Any:
        names, x = example
        last, _ = ops.scan(lambda x, name: (ops.switch(name, branches, x), None), x, names)
        return ops.sum(ops.square(last))

    return ops.map(one, (numbers, xs))


# ---- examples and weights --------------------------------------------------------------

RNG = np.random.default_rng(7)


def weights(**shapes: tuple[int, ...]) -> Weights:
    return {name: RNG.normal(size=shape) * 0.7 for name, shape in shapes.items()}


@dataclass
class Network:
    """A network in Python and as a graph.

    Args:
        loss: ``loss(m, weights, example)``.
        weights: NumPy arrays.
        examples: Of several shapes and ways through the network.
        arrays: The examples as arrays, for the graph; None if ``ul.fold`` runs the Python on all of them.
        graph: ``graph(weights, *arrays)``, the losses of all.
    """

    loss: Callable[..., Any]
    weights: Weights
    examples: Sequence[Any]
    arrays: Callable[..., Any] | None = None
    graph: Callable[..., Any] | None = None


X = RNG.normal(size=(2, 3))
NETWORKS = {
    "conditional": Network(
        conditional, weights(yes=(3, 2), no=(3, 2)), [np.abs(X), -np.abs(X)], conditional_arrays, conditional_graph
    ),
    "recurrent": Network(
        recurrent, weights(letter=(4, 3), memory=(3, 3), first=(3,), answer=(3,)),
        [([0, 2, 1], 1.0), ([3], -1.0), ([1, 1, 0, 2], 0.5)], recurrent_arrays, recurrent_graph,
    ),
    "recursive": Network(
        recursive, weights(letter=(2, 3), both=(6, 3), either=(6, 3), answer=(3,)),
        [True, ("both", True, False), ("either", ("both", False, True), ("either", True, True)), ("both", True, True)],
    ),
    "modular": Network(
        modular, weights(bend=(3, 3), turn=(3, 3), stretch=(3, 3)),
        [(["turn"], X[0]), (["bend", "turn", "bend"], X[1]), (["stretch", "bend"], X[0] + X[1])],
        modular_arrays, modular_graph,
    ),
}  # fmt: skip


class Ops:
    """``ops`` under NumPy's names."""

    concatenate = staticmethod(ops.concat)

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, name)


def witness(network: Network) -> tuple[np.ndarray, Weights]:
    """The losses by NumPy, and the gradient of their sum by central differences."""

    def total(w: Weights) -> float:
        return sum(network.loss(np, w, e) for e in network.examples)

    slopes = {name: np.zeros_like(a) for name, a in network.weights.items()}
    for name, a in network.weights.items():
        for at in np.ndindex(a.shape):
            high, low = (a.copy() for _ in range(2))
            high[at] += 1e-6
            low[at] -= 1e-6
            change = total({**network.weights, name: high}) - total({**network.weights, name: low})
            slopes[name][at] = change / 2e-6
    return np.array([network.loss(np, network.weights, e) for e in network.examples]), slopes


def check(network: Network, losses: Any, slopes: dict[str, Any], engine: Any, how: str) -> None:
    expected, expected_slopes = witness(network)
    assert_close(engine.get(losses), expected, rtol=1e-12, atol=1e-13, what=f"{how} losses")
    for name, e in expected_slopes.items():
        assert_close(engine.get(slopes[name]), e, rtol=1e-6, atol=1e-7, what=f"{how} gradient of {name}")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_in_python(backend: str, name: str) -> None:
    network, engine = NETWORKS[name], require_backend(backend)
    device = engine.device("cpu")
    with ul.GradientTape() as tape:
        w = {k: tape.watch(engine.put([a], device)[0]) for k, a in network.weights.items()}
        losses = [network.loss(Ops(), w, e) for e in network.examples]
        total = sum(losses[1:], losses[0])
    check(network, ops.stack(losses).array, tape.gradient(total, w), engine, "eager")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_as_a_graph(backend: str, name: str) -> None:
    """One graph for all examples, with its gradient in it; trees are folded."""
    network, engine = NETWORKS[name], require_backend(backend)

    def run(w: Weights, *arrays: Any) -> Any:
        with ul.GradientTape() as tape:
            w = {k: tape.watch(v) for k, v in w.items()}
            if network.graph is None:
                losses = ul.fold(lambda e: network.loss(Ops(), w, e), network.examples, stack=True)
            else:
                losses = network.graph(w, *arrays)
            total = ops.sum(losses)
        return losses, tape.gradient(total, w)

    arrays = network.arrays(network.examples) if network.arrays is not None else ()
    losses, slopes = ul.function(run, backend=backend)(network.weights, *arrays)
    check(network, losses, slopes, engine, "graph")
    if network.graph is None:
        losses, slopes = run({k: engine.put([a], engine.device("cpu"))[0] for k, a in network.weights.items()})
        check(network, losses.array, slopes, engine, "folded")


# ---- training in Python --------------------------------------------------------------------


class Reader(ul.Layer):
    """A recurrent network with a loop in Python."""

    def __init__(self, units: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.letter, self.memory = layers.Embedding(5, units), layers.Dense(units)
        self.answer = layers.Dense(1)

    def call(self, words: Any) -> Any:
        h = ops.zeros((words.shape[0], self.units), self.compute_dtype)
        for t in range(words.shape[1]):
            h = ops.tanh(self.letter(words[:, t]) + self.memory(h))
        return self.answer(h)


def losses_of_training(backend: str) -> tuple[list[float], list[np.ndarray]]:
    engine, rng = require_backend(backend), np.random.default_rng(3)
    net, adam = Reader(dtype="float64"), ul.optimizers.Adam(0.05)
    loss_of, found = ul.losses.BinaryCrossentropy(from_logits=True), []
    for length in (2, 3, 2, 3, 2):
        words = rng.integers(0, 5, size=(6, length), dtype="int32")
        y = (words[:, :1] < words[:, 1:2]).astype("float64")
        x, y = engine.put([words, y], engine.device("cpu"))
        with ul.GradientTape() as tape:
            loss = loss_of(y, net(x))
        adam.apply(tape.gradient(loss, net.trainable_weights), net.trainable_weights)
        found.append(float(ops.to_numpy(loss)))
    return found, net.get_weights()


@pytest.mark.parametrize("backend", OTHERS)
def test_training_in_python_gives_the_same_numbers(backend: str) -> None:
    expected, final = losses_of_training("numpy")
    found, weights = losses_of_training(backend)
    assert len(set(expected)) == 5
    assert_close(np.array(found), np.array(expected), rtol=1e-10, atol=0, what="losses")
    for a, b in zip(weights, final, strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-10, what="weights")


# ---- loops inside of layers -------------------------------------------------------------------


class Looped(ul.Layer):
    """A recurrent network with dropout in its step, and a second way to go through short or long data."""

    def __init__(self, how: str, units: int = 4) -> None:
        super().__init__(name="looped", dtype="float64")
        self.how, self.units = how, units
        self.row, self.memory, self.drop = layers.Dense(units), layers.Dense(units), layers.Dropout(0.4)
        self.calm, self.wild = layers.Dense(1), layers.Dense(1)

    def step(self, h: Any, row: Any) -> Any:
        h = ops.tanh(self.row(row) + self.drop(self.memory(h)))
        return h, h

    def call(self, x: Any) -> Any:  # (batch, length, 3)
        h = ops.zeros((x.shape[0], self.units), "float64")
        if self.how == "scan":
            h, _ = ops.scan(self.step, h, ops.permute_dims(x, (1, 0, 2)))
        else:
            for t in range(x.shape[1]):
                h, _ = self.step(h, x[:, t])
        return ops.cond(ops.sum(x) > 0, lambda: self.calm(h), lambda: self.wild(h) * 2.0)


def make(how: str, length: int | None = None) -> ul.Model:
    model = ul.Sequential([ul.Input((length, 3), dtype="float64"), Looped(how)], seed=11, dtype="float64")
    model.compile(ul.optimizers.Adam(0.02), "mse")
    return model


def batch(length: int, sign: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(length)
    x = rng.normal(size=(5, length, 3))
    return x - x.mean() + 0.1 * sign, rng.normal(size=(5, 1))


BATCHES = [batch(3, 1.0), batch(2, 1.0), batch(3, -1.0), batch(2, -1.0), batch(3, 1.0)]


def test_masks_in_a_loop_are_those_of_the_written_out_loop() -> None:
    """The counter of the masks is carried from step to step."""
    scan, plain = make("scan"), make("python", 3)
    found, expected = ([m.train_on_batch(*BATCHES[0]) for _ in range(4)] for m in (scan, plain))
    assert_close(np.array(found), np.array(expected), rtol=1e-12, atol=0, what="losses")
    assert [int(v.numpy()) for v in scan.variables if v.name == "random_counter"] == [12]


EXPECTED: list[float] = []


def expected_losses() -> list[float]:
    if not EXPECTED:
        model = make("scan")
        EXPECTED.extend(model.train_on_batch(*b, backend="numpy") for b in BATCHES)
    return EXPECTED


@pytest.mark.parametrize("backend", OTHERS)
def test_a_loop_with_masks_trains_alike(backend: str) -> None:
    require_backend(backend)
    model = make("scan")
    found = [model.train_on_batch(*b, backend=backend) for b in BATCHES]
    assert_close(np.array(found), np.array(expected_losses()), rtol=1e-10, atol=0, what="losses")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_with_masks_trains_alike_op_by_op(backend: str) -> None:
    require_backend(backend)
    some = BATCHES[0], BATCHES[2], BATCHES[4]
    model, compiled = make("scan"), make("scan")
    model.run_eagerly = True
    found = [model.train_on_batch(*b, backend=backend) for b in some]
    expected = [compiled.train_on_batch(*b, backend="numpy") for b in some]
    assert_close(np.array(found), np.array(expected), rtol=1e-10, atol=0, what="losses")


# ---- saved, and trained where nothing of it is known ---------------------------------------------

GO_ON = """
import sys
import numpy as np
from unilayers.backend import get_backend
from unilayers.graph.serialize import from_json
from unilayers.program import compile_graph

engine = get_backend(sys.argv[1])
graph, device = from_json(open("step.json").read()), engine.device(None)
saved = np.load("saved.npz")
state = engine.put([saved[v.node.attrs["name"]] for v in graph.state], device)
steps = {}
for i in range(int(saved["count"])):
    x, y = saved[f"x{i}"], saved[f"y{i}"]
    if x.shape not in steps:
        sizes = {"batch": len(x), str(graph.inputs[0].shape[1]): x.shape[1]}
        steps[x.shape] = compile_graph(graph, engine, device, sizes)
    state, outputs = steps[x.shape](state, engine.put([x, y], device))
    print(float(engine.get(outputs["loss"])))
assert not {"unilayers.layers", "unilayers.training", "unilayers.models"} & set(sys.modules)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_saved_training_step_goes_on_in_another_process(backend: str, tmp_path: Path) -> None:
    require_backend(backend)
    model = make("scan")
    program = train_program(model, model._objectives, Batch(*BATCHES[0]))
    assert {"scan", "switch"} <= {n.op for n in every_node(program.graph)}
    (tmp_path / "step.json").write_text(to_json(program.graph))
    arrays = {f"{k}{i}": a for i, b in enumerate(BATCHES) for k, a in zip("xy", b, strict=True)}
    state = {v.path: v.numpy() for v in program.variables}
    np.savez(tmp_path / "saved.npz", count=len(BATCHES), **state, **arrays)
    done = subprocess.run(
        [sys.executable, "-c", GO_ON, backend], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [float(line) for line in done.stdout.split()]
    assert_close(np.array(found), np.array(expected_losses()), rtol=1e-10, atol=0, what="losses")
