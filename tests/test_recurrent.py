"""Recurrent layers against Keras: outputs, states, gradients, masks; the same on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers, ops
from unilayers.autodiff import GradientTape
from unilayers.backend import node_runner
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import OPS
from unilayers.graph.passes import every_node, optimise, specialise
from unilayers.layers import recurrent
from unilayers.structure import leaves_of

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1], [0, 1, 1, 1, 1]], bool)

ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("SimpleRNN", {}),
    ("SimpleRNN", {"activation": "relu", "use_bias": False, "return_state": True}),
    ("LSTM", {}),
    ("LSTM", {"return_sequences": True, "return_state": True}),
    ("LSTM", {"return_sequences": True, "go_backwards": True, "zero_output_for_mask": True}),
    ("LSTM", {"unroll": True, "use_bias": False, "recurrent_activation": "hard_sigmoid"}),
    ("GRU", {}),
    ("GRU", {"reset_after": False, "return_state": True}),
    ("GRU", {"reset_after": False, "use_bias": False}),
    ("GRU", {"return_sequences": True, "go_backwards": True}),
]
cases = pytest.mark.parametrize(("name", "kwargs"), ARGUMENTS)


def pair(name: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Ours and Keras's layer with the same weights."""
    ours, theirs = getattr(recurrent, name)(6, **kwargs), getattr(keras.layers, name)(6, **kwargs)
    ours(X), theirs(X)
    weights = [RNG.normal(size=w.shape).astype("float32") * 0.5 for w in theirs.get_weights()]
    ours.set_weights(weights), theirs.set_weights(weights)
    return ours, theirs


def outputs_and_gradients(layer: Any, x: Any, mask: Any) -> list[np.ndarray]:
    """Ours: all outputs, then the gradients of their summed squares by x and the weights."""
    with GradientTape() as tape:
        watched = tape.watch(x)
        y = leaves_of(layer(watched, mask=mask))
        total = sum((ops.sum(v * v) for v in y), start=0.0)
    return [np.asarray(ops.to_numpy(v)) for v in (*y, *tape.gradient(total, [watched, *layer.trainable_weights]))]


def by_keras(layer: Any, mask: Any) -> list[np.ndarray]:
    x = torch.tensor(X, requires_grad=True)
    y = leaves_of(layer(x, mask=mask))
    sum((v * v).sum() for v in y).backward()
    grads = [x.grad, *(w.value.grad for w in layer.trainable_weights)]
    found = [v.detach().numpy().copy() for v in (*y, *grads)]
    for w in layer.trainable_weights:
        w.value.grad = None
    return found


@cases
@pytest.mark.parametrize("masked", [False, True])
def test_equals_keras(name: str, kwargs: dict[str, Any], masked: bool) -> None:
    ours, theirs = pair(name, kwargs)
    mask = MASK if masked else None
    for i, (a, e) in enumerate(zip(outputs_and_gradients(ours, X, mask), by_keras(theirs, mask), strict=True)):
        assert_close(a, e, rtol=1e-4, atol=1e-5, what=f"result {i}")


@cases
def test_constructor_and_config(name: str, kwargs: dict[str, Any]) -> None:
    ours, theirs = pair(name, kwargs)
    again = type(ours).from_config(ours.get_config())
    again(X)
    assert [w.shape for w in again.weights] == [tuple(w.shape) for w in theirs.weights]
    assert [w.name for w in again.weights] == [w.name for w in theirs.weights]
    usual = {k: v for k, v in theirs.get_config().items() if isinstance(v, (bool, int, float, str, type(None)))}
    mine = ours.get_config()
    assert {k: mine[k] for k in usual.keys() & mine.keys() - {"name"}} == {
        k: v for k, v in usual.items() if k in mine and k != "name"
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stack_with_masks_trains_as_in_keras(backend: str) -> None:
    """Embedding, LSTM, two directions, a layer for each step: masks travel through, and the loss leaves out what they
    do; three epochs."""
    require_backend(backend)
    rng = np.random.default_rng(1)
    ids = rng.integers(1, 6, (8, 7)).astype("int32")
    ids[:, 5:], ids[0, 2:] = 0, 0
    y = rng.normal(size=(8, 7, 2)).astype("float32")

    def build(module: Any, rnn: Any) -> Any:
        return module.Sequential(
            [
                module.Input((7,), dtype="int32"),
                module.layers.Embedding(6, 4, mask_zero=True),
                rnn.LSTM(5, return_sequences=True),
                rnn.Bidirectional(rnn.GRU(3, return_sequences=True)),
                rnn.TimeDistributed(module.layers.Dense(2)),
            ]
        )

    ours, theirs = build(ul, recurrent), build(keras, keras.layers)
    ours.set_weights(theirs.get_weights())
    losses = []
    for model, module, place in ((ours, ul, {"backend": backend}), (theirs, keras, {})):
        model.compile(optimizer=module.optimizers.SGD(0.1), loss="mse")
        history = model.fit(ids, y, epochs=3, batch_size=4, shuffle=False, verbose=0, **place).history
        losses.append(np.array(history["loss"]))
    assert_close(*losses, rtol=1e-5, atol=0, what="losses")
    for a, e in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert_close(a, e, rtol=1e-4, atol=1e-5, what="weights")


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "numpy"])
def test_dropped_inputs_and_states_are_equal_everywhere(backend: str) -> None:
    require_backend(backend)
    y = RNG.normal(size=(6, 2)).astype("float32")
    x = RNG.normal(size=(6, 4, 3)).astype("float32")

    def losses(name: str) -> np.ndarray:
        model = ul.Sequential(
            [
                ul.Input((None, 3)),
                recurrent.LSTM(4, dropout=0.3, recurrent_dropout=0.4, return_sequences=True),
                recurrent.RNN([recurrent.GRUCell(3, dropout=0.2), recurrent.SimpleRNNCell(2)]),
            ],
            seed=3,
        )
        model.compile("sgd", "mse")
        return np.array(model.fit(x, y, epochs=4, batch_size=3, verbose=0, backend=name).history["loss"])

    assert_close(losses(backend), losses("numpy"), rtol=1e-5, atol=0, what="losses")


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("kwargs", [{}, {"return_sequences": True, "return_state": True}])
def test_both_directions_equal_keras(mode: str | None, kwargs: dict[str, Any]) -> None:
    ours = recurrent.Bidirectional(recurrent.LSTM(3, **kwargs), merge_mode=mode)
    theirs = keras.layers.Bidirectional(keras.layers.LSTM(3, **kwargs), merge_mode=mode)
    ours(X), theirs(X)
    ours.set_weights(theirs.get_weights())
    for mask in (None, MASK):
        expected = leaves_of(theirs(X, mask=mask))
        for a, e in zip(leaves_of(ours(X, mask=mask)), expected, strict=True):
            assert_close(a, e.detach().numpy(), rtol=1e-5, atol=1e-6, what=f"{mode}")
    again = type(ours).from_config(ours.get_config())
    assert leaves_of(again(X))[0].shape == leaves_of(ours(X))[0].shape


def test_states_given_and_returned() -> None:
    ours, theirs = pair("LSTM", {"return_state": True, "return_sequences": True})
    states = [RNG.normal(size=(3, 6)).astype("float32") for _ in range(2)]
    expected = theirs(X, initial_state=[torch.tensor(s) for s in states])
    for a, e in zip(ours(X, initial_state=states), expected, strict=True):
        assert_close(a, e.detach().numpy(), rtol=1e-5, atol=1e-6, what="with given states")
    inputs = ul.Input((5, 4))
    y, h, c = recurrent.LSTM(6, return_state=True)(inputs)
    z = recurrent.LSTM(6)(inputs, initial_state=[h, c])
    assert ul.Model(inputs, [y, z]).predict(X, verbose=0)[1].shape == (3, 6)


def test_cells_of_ones_own() -> None:
    class Leaky(layers.Layer):
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = self.state_size = units

        def build(self, input_shape: Any) -> None:
            self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")

        def call(self, inputs: Any, states: Any) -> Any:
            h = states[0] * 0.5 + ops.matmul(inputs, self.kernel)
            return ops.tanh(h), [h]

    layer = recurrent.RNN([Leaky(3), recurrent.LSTMCell(2)], return_sequences=True)
    y = layer(X)
    kernel = layer.cell.cells[0].kernel.numpy()
    state, seen = np.zeros((3, 3), "float32"), []
    for t in range(5):
        state = state * 0.5 + X[:, t] @ kernel
        seen.append(np.tanh(state))
    top = recurrent.RNN(recurrent.LSTMCell(2), return_sequences=True)
    below = np.stack(seen, 1)
    top(below)
    top.set_weights([w.numpy() for w in layer.cell.cells[1].weights])
    assert_close(y, top(below), rtol=1e-5, atol=1e-6, what="stack")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_stateful_layer_goes_on_where_it_was(backend: str) -> None:
    require_backend(backend)
    whole, theirs = pair("GRU", {})
    inputs = ul.Input(batch_shape=(3, None, 4))
    model = ul.Model(inputs, recurrent.GRU(6, stateful=True, name="gru")(inputs))
    model.set_weights(theirs.get_weights())
    expected = whole(X)
    for _ in range(2):
        model.predict(X[:, :2], verbose=0, backend=backend)
        y = model.predict(X[:, 2:], verbose=0, backend=backend)
        assert_close(y, expected, rtol=1e-5, atol=1e-6, what="in two parts")
        model.get_layer("gru").reset_state()
    assert len(model.weights) == 3
    with pytest.raises(ShapeError, match="must know the size of its batches"):
        ul.Sequential([ul.Input((5, 4)), recurrent.GRU(2, stateful=True)]).predict(X, verbose=0)


def test_inputs_are_multiplied_once_and_not_in_the_loop() -> None:
    model = ul.Sequential([ul.Input((5, 4)), recurrent.LSTM(6, recurrent_activation="hard_sigmoid")])
    model.compile("sgd", "mse")
    program = model._program("train", ul.training.steps.Batch(X, np.zeros((3, 6), "float32")))
    loops = [n for n in program.graph.nodes if n.op == "scan"]
    inside = {id(n) for loop in loops for b in OPS["scan"].bodies for n in every_node(loop.attrs[b])}
    products = [n for n in every_node(program.graph) if n.op == "matmul" and n.inputs[-1].shape == (4, 24)]
    assert loops and products and not any(id(n) in inside for n in products)


# ---- whole sequences as one op --------------------------------------------------------

WHOLE: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {}),
    ("LSTM", {"go_backwards": True, "return_sequences": True, "return_state": True, "use_bias": False}),
    ("GRU", {"return_sequences": True}),
    ("GRU", {"go_backwards": True, "return_state": True, "use_bias": False}),
]


@pytest.mark.parametrize(("name", "kwargs"), WHOLE)
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_op_does_what_the_loop_does(backend: str, name: str, kwargs: dict[str, Any]) -> None:
    """A mask of ones takes the loop. Outputs and gradients of compiled graphs in float32, as PyTorch's kernels want it;
    from states that are given."""
    engine, rng = require_backend(backend), np.random.default_rng(2)
    layer = getattr(recurrent, name)(6, **kwargs)
    states = [rng.normal(size=(3, 6)).astype("float32") for _ in range(2 if name == "LSTM" else 1)]
    long = rng.normal(size=(3, 20, 4)).astype("float32")

    def both(mask: Any) -> list[np.ndarray]:
        def whole(x: Any, *states: Any) -> Any:
            with GradientTape() as tape:
                watched = [tape.watch(a) for a in (x, *states)]
                y = leaves_of(layer(watched[0], initial_state=watched[1:], mask=mask))
                total = sum((ops.sum(ops.sin(v)) for v in y), start=0.0)
            return [*y, *tape.gradient(total, [*watched, *layer.trainable_weights])]

        return [ops.to_numpy(v) for v in ul.function(whole, backend=backend)(long, *states)]

    layer(long)
    layer.set_weights([rng.normal(size=w.shape).astype("float32") * 0.5 for w in layer.get_weights()])
    for a, b in zip(both(None), both(np.ones((3, 20), bool)), strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-5, what=f"{name}{kwargs} on {engine.name}")


def ops_of(model: ul.Model, x: np.ndarray) -> set[str]:
    return {n.op for n in every_node(model._program("predict", ul.training.steps.Batch(x)).graph)}


@pytest.mark.parametrize(
    ("layer", "op"),
    [
        (recurrent.LSTM(3), "lstm"),
        (recurrent.LSTM(3, recurrent_dropout=0.5), "lstm"),  # not in training
        (recurrent.GRU(3, activation=ul.activations.tanh), "gru"),
        (recurrent.Bidirectional(recurrent.GRU(3)), "gru"),
        (recurrent.RNN(recurrent.LSTMCell(3)), "lstm"),
        (recurrent.LSTM(3, activation="relu"), "scan"),
        (recurrent.LSTM(3, recurrent_activation="hard_sigmoid"), "scan"),
        (recurrent.GRU(3, reset_after=False), "scan"),
        (recurrent.SimpleRNN(3), "scan"),
        (recurrent.RNN([recurrent.LSTMCell(3), recurrent.LSTMCell(2)]), "scan"),
    ],
)
def test_which_layers_are_one_op(layer: Any, op: str) -> None:
    found = ops_of(ul.Sequential([ul.Input((5, 4)), layer]), X)
    assert found & {"lstm", "gru", "scan"} == {op}


def test_what_a_cell_does_by_itself_is_not_passed_over() -> None:
    class Half(recurrent.LSTMCell, abstract=True):
        def step(self, z: Any, states: Any, masks: Any) -> Any:
            y, new = super().step(z, states, masks)
            return ops.multiply(y, 0.5), new

    class Double(recurrent.LSTMCell, abstract=True):
        def project(self, x: Any, masks: Any) -> Any:
            return super().project(ops.multiply(x, 2.0), masks)

    usual = recurrent.RNN(recurrent.LSTMCell(3))
    usual(X)
    for cell, (before, after) in ((Half, (1.0, 2.0)), (Double, (0.5, 1.0))):
        layer = recurrent.RNN(cell(3))
        layer(X)
        layer.set_weights(usual.get_weights())
        assert_close(layer(X * np.float32(before)) * after, usual(X), rtol=1e-5, atol=1e-6, what=cell.__name__)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "numpy"])
def test_first_hundred_losses_agree(backend: str, name: str) -> None:
    """A sequence long enough for loops to be compiled."""
    require_backend(backend)
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(200, 20, 4)).astype("float32"), rng.integers(0, 3, 200)
    losses = []
    for place in ("numpy", backend):
        model = ul.Sequential([ul.Input((20, 4)), getattr(recurrent, name)(8), layers.Dense(3)], seed=1)
        model.compile(ul.optimizers.Adam(0.01), ul.losses.SparseCategoricalCrossentropy(from_logits=True))
        seen: list[float] = []
        note = ul.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs, seen=seen: seen.append(logs["loss"]))
        model.fit(x, y, batch_size=20, epochs=10, verbose=0, backend=place, callbacks=[note])
        losses.append(np.array(seen))
    assert len(losses[0]) == 100
    assert_close(losses[1], losses[0], rtol=1e-4, atol=0, what=f"{name}'s losses on {backend}")


# ---- PyTorch: oneDNN ------------------------------------------------------------------


def operands(dtype: str) -> list[Any]:
    shapes = (6, 3, 4), (3, 5), (3, 5), (4, 20), (5, 20), (20,)
    return [torch.tensor(np.random.default_rng(4).normal(size=s).astype(dtype)) for s in shapes]


def test_torch_keeps_its_own_and_reads_both() -> None:
    """oneDNN takes float32; the gradient goes by what is kept, and knows values that are not oneDNN's."""
    table = require_backend("torch").table
    for dtype, native in (("float32", True), ("float64", False)):
        given = operands(dtype)
        results = table["lstm"](*given, reverse=False, keeps=True)
        assert bool((results[3] == torch.finfo(results[3].dtype).max).all()) is native
        flow = torch.ones_like(results[0])
        found = table["lstm_grad"](*given, results[0], *results[3:], flow, flowing=(0,), reverse=False)
        plain = OPS["lstm"].reference(*(a.numpy() for a in given), reverse=False, keeps=True)
        wanted = OPS["lstm_grad"].reference(
            *(a.numpy() for a in given), plain[0], *plain[3:], flow.numpy(), flowing=(0,), reverse=False
        )
        again = table["lstm_grad"](*given, results[0], *map(torch.tensor, plain[3:]), flow, flowing=(0,), reverse=False)
        copied = table["lstm_grad"](
            *given, results[0], *(v + 0 for v in results[3:]), flow, flowing=(0,), reverse=False
        )
        for a, b, c, e in zip(found, again, copied, wanted, strict=True):
            assert_close(c.numpy(), e, rtol=1e-4, atol=1e-5, what=f"by copies of what is kept in {dtype}")
            assert_close(a.numpy(), e, rtol=1e-4, atol=1e-5, what=f"by what is kept in {dtype}")
            assert_close(b.numpy(), e, rtol=1e-4, atol=1e-5, what=f"by values in {dtype}")


def test_torch_has_a_gradient_of_the_gradient_in_float32() -> None:
    given = [a.numpy() for a in operands("float32")]

    def twice(*arrays: Any) -> Any:
        with GradientTape() as outer:
            x = outer.watch(arrays[0])
            with GradientTape() as inner:
                watched = inner.watch(x)
                total = ops.sum(ops.sin(ops.lstm(watched, *arrays[1:])[0]))
            slope = ops.sum(ops.square(inner.gradient(total, watched)))
        return outer.gradient(slope, x)

    found, wanted = (ops.to_numpy(ul.function(twice, backend=b)(*given)) for b in ("torch", "numpy"))
    assert_close(found, wanted, rtol=1e-4, atol=1e-5, what="gradient of the gradient")


def test_nothing_is_kept_for_predictions() -> None:
    engine = require_backend("torch")
    model = ul.Sequential([ul.Input((5, 4)), recurrent.LSTM(6), layers.Dense(2)])
    graph = model._program("predict", ul.training.steps.Batch(X)).graph
    graph = optimise(specialise(graph, {"batch": 3}), engine.table, node_runner(engine, "cpu"))
    assert [n.attrs["keeps"] for n in graph.nodes if n.op == "lstm"] == [False]
    model.compile("sgd", "mse")
    graph = model._program("train", ul.training.steps.Batch(X, np.zeros((3, 2), "float32"))).graph
    graph = optimise(specialise(graph, {"batch": 3}), engine.table, node_runner(engine, "cpu"))
    assert [n.attrs["keeps"] for n in graph.nodes if n.op == "lstm"] == [True]


def test_errors() -> None:
    with pytest.raises(UnilayersError, match="not a cell"):
        recurrent.RNN(layers.Dense(3))
    with pytest.raises(ShapeError, match="at least 3 axes"):
        recurrent.LSTM(3)(np.ones((2, 3), "float32"))
    with pytest.raises(UnilayersError, match="both layers go the same way"):
        recurrent.Bidirectional(recurrent.GRU(2), backward_layer=recurrent.GRU(2))
    with pytest.raises(ShapeError, match="cannot be unrolled"):
        ul.Sequential([ul.Input((None, 4)), recurrent.GRU(2, unroll=True)]).predict(X, verbose=0)


PICTURES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("ConvLSTM1D", (2, 3, 6, 2), {"filters": 3, "kernel_size": 2}),
    ("ConvLSTM1D", (2, 3, 7, 2), {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same",
                                  "return_state": True}),
    ("ConvLSTM2D", (2, 3, 5, 4, 2), {"filters": 3, "kernel_size": (3, 2), "return_sequences": True}),
    ("ConvLSTM2D", (2, 3, 5, 6, 1), {"filters": 2, "kernel_size": 2, "dilation_rate": 2, "use_bias": False}),
    ("ConvLSTM2D", (2, 3, 2, 5, 4), {"filters": 3, "kernel_size": 2, "data_format": "channels_first",
                                     "return_sequences": True, "go_backwards": True, "return_state": True}),
    ("ConvLSTM3D", (2, 2, 3, 4, 3, 1), {"filters": 2, "kernel_size": 2, "unit_forget_bias": False}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "kwargs"), PICTURES)
def test_pictures_equal_keras(name: str, shape: tuple[int, ...], kwargs: dict[str, Any]) -> None:
    x = RNG.normal(size=shape).astype("float32")
    ours, theirs = getattr(layers, name)(**kwargs), getattr(keras.layers, name)(**kwargs)
    ours(x), theirs(x)
    weights = [RNG.normal(size=w.shape).astype("float32") * 0.5 for w in theirs.get_weights()]
    ours.set_weights(weights), theirs.set_weights(weights)
    mask = np.ones(shape[:2], bool)
    mask[0, -1] = False
    for given in (None, mask):
        expected = leaves_of(theirs(x, mask=given))
        for a, e in zip(leaves_of(ours(x, mask=given)), expected, strict=True):
            assert_close(np.asarray(a), e.detach().numpy(), rtol=1e-4, atol=1e-5, what=name)
    again = type(ours).from_config(ours.get_config())
    assert leaves_of(again(x))[0].shape == leaves_of(ours(x))[0].shape


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "numpy"])
def test_pictures_train_the_same_everywhere(backend: str) -> None:
    require_backend(backend)
    x, y = RNG.normal(size=(6, 3, 5, 5, 1)).astype("float32"), RNG.normal(size=(6, 4, 4, 2)).astype("float32")

    def losses(name: str) -> np.ndarray:
        stack = [ul.Input((3, 5, 5, 1)), layers.ConvLSTM2D(2, 2, dropout=0.2, recurrent_dropout=0.2)]
        model = ul.Sequential(stack, seed=2)
        model.compile("sgd", "mse")
        return np.array(model.fit(x, y, epochs=3, batch_size=3, verbose=0, backend=name).history["loss"])

    assert_close(losses(backend), losses("numpy"), rtol=1e-5, atol=0, what="losses")
