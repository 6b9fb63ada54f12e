"""Modules and functions of one engine as layers: values, gradients and training against the engine itself."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import require_backend
from unilayers import layers as L
from unilayers import ops
from unilayers.autodiff import GradientTape
from unilayers.errors import BackendError, GraphError, UnilayersError
from unilayers.layers.native import JaxFunctionLayer, NativeLayer, TensorFlowFunctionLayer, TorchModuleLayer

RNG = np.random.default_rng(4)
KERNEL, BIAS = RNG.normal(size=(5, 3)).astype("float32"), RNG.normal(size=3).astype("float32")
X, Y = RNG.normal(size=(24, 5)).astype("float32"), RNG.normal(size=(24, 1)).astype("float32")


def torch_layer() -> TorchModuleLayer:
    torch = pytest.importorskip("torch")
    linear = torch.nn.Linear(5, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(KERNEL.T))
        linear.bias.copy_(torch.tensor(BIAS))
    return TorchModuleLayer(torch.nn.Sequential(linear, torch.nn.Tanh()), name="native")


def tensorflow_layer() -> TensorFlowFunctionLayer:
    tf = pytest.importorskip("tensorflow")

    class Affine(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = tf.Variable(KERNEL, name="w"), tf.Variable(BIAS, name="b")

        def __call__(self, x: Any) -> Any:
            return tf.tanh(x @ self.w + self.b)

    return TensorFlowFunctionLayer(Affine(), name="native")


def jax_layer() -> JaxFunctionLayer:
    jnp = pytest.importorskip("jax").numpy
    return JaxFunctionLayer(
        lambda p, x: jnp.tanh(x @ p["w"] + p["rest"][0]), {"w": KERNEL, "rest": [BIAS]}, name="native"
    )


MAKE = {"torch": torch_layer, "tensorflow": tensorflow_layer, "jax": jax_layer}
each = pytest.mark.parametrize("name", MAKE)


def twin() -> L.Layer:
    """The same in our own layers."""
    return L.Dense(3, "tanh", kernel_initializer=KERNEL, bias_initializer=BIAS, name="native")


def by_shape(arrays: Any) -> dict[tuple[int, ...], np.ndarray]:
    """Arrays with the kernel the way round that Dense has it, whatever their order."""
    found = [ops.to_numpy(a) for a in arrays]
    return {a.shape if a.shape != (3, 5) else (5, 3): a.T if a.shape == (3, 5) else a for a in found}


def test_every_engine_has_a_layer() -> None:
    assert set(MAKE) == {cls.engine for cls in NativeLayer.__subclasses__()}


@each
def test_values_and_gradients_are_those_of_our_layer(name: str) -> None:
    backend = require_backend(name)
    [x] = backend.put([X], backend.device("cpu"))
    results = []
    for layer in (MAKE[name](), twin()):
        with GradientTape() as tape:
            box = tape.watch(x)
            loss = ops.sum(ops.square(layer(box)))
        to_x, *to_weights = tape.gradient(loss, [box, *layer.trainable_weights])
        results.append((ops.to_numpy(layer(x)), ops.to_numpy(to_x), by_shape(to_weights)))
        assert backend.device_of(layer(x)) and backend.device_of(to_x)
    (y, to_x, to_weights), (wanted, wanted_x, wanted_weights) = results
    assert_close(y, wanted, rtol=1e-5, atol=1e-6, what="y")
    assert_close(to_x, wanted_x, rtol=1e-4, atol=1e-5, what="gradient by x")
    assert to_weights.keys() == wanted_weights.keys()
    for shape, g in to_weights.items():
        assert_close(g, wanted_weights[shape], rtol=1e-4, atol=1e-5, what=f"gradient by {shape}")


@each
def test_training_is_that_of_our_layer(name: str) -> None:
    require_backend(name)
    histories, weights = [], []
    for first in (MAKE[name](), twin()):
        model = ul.Sequential([L.Rescaling(0.5), first, L.Dense(1)], seed=3)
        model.compile(ul.optimizers.Adam(0.05), "mse", run_eagerly=True)
        history = model.fit(X, Y, epochs=3, batch_size=8, backend=name, verbose=0).history["loss"]
        histories.append([*history, model.evaluate(X, Y, backend=name, verbose=0)])
        weights.append(by_shape(first.get_weights()))
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)
    for shape, w in weights[0].items():
        assert_close(w, weights[1][shape], rtol=1e-3, atol=1e-4, what=f"weight {shape}")


def stack(first: L.Layer) -> ul.Model:
    return ul.Sequential([ul.Input((5,)), L.Rescaling(0.5), first, L.Dense(1)], seed=3)


def graph(first: L.Layer) -> ul.Model:
    x = ul.Input((5,))
    return ul.Model(x, L.Dense(1)(L.Add()([first(L.Rescaling(0.5)(x)), L.Dense(3)(x)])), seed=3)


def nested(first: L.Layer) -> ul.Model:
    x = ul.Input((5,))
    return ul.Model(x, L.Dense(1)(ul.Sequential([ul.Input((5,)), L.Dense(5), first])(x)), seed=3)


@pytest.mark.parametrize("make", [stack, graph, nested])
@each
def test_models_with_declared_inputs_train_on_its_engine(name: str, make: Any) -> None:
    """Nothing has to be said: eagerly, on the engine of the code."""
    require_backend(name)
    model, same = make(MAKE[name]()), make(twin())
    assert model.output_shape == same.output_shape == (None, 1)
    assert model.count_params() == same.count_params()
    for m in (model, same):
        m.compile("adam", "mse", metrics=["mae"])
    told = {"epochs": 3, "batch_size": 10, "verbose": 0, "validation_data": (X[:4], Y[:4])}
    found, wanted = model.fit(X, Y, **told).history, same.fit(X, Y, backend=name, **told).history
    for key, values in wanted.items():
        assert found[key] == pytest.approx(values, rel=1e-4)
    assert {v.store.backend.name for v in model.variables} == {name}
    assert_close(model.predict(X), same.predict(X), rtol=1e-3, atol=1e-4, what="predict")


@each
def test_numpy_arrays_are_guests(name: str) -> None:
    require_backend(name)
    layer = MAKE[name]()
    assert_close(ops.to_numpy(layer(X)), twin()(X), rtol=1e-5, atol=1e-6, what="y")
    with GradientTape() as tape:
        loss = ops.sum(layer(X))
    assert by_shape(tape.gradient(loss, layer.trainable_weights)).keys() == {(5, 3), (3,)}


@each
def test_weights_go_out_and_in(name: str, tmp_path: Path) -> None:
    require_backend(name)
    model = ul.Sequential([MAKE[name](), L.Dense(1)], seed=3)
    with pytest.raises(UnilayersError, match="the layer has not been called yet"):
        model.layers[0].export()
    before = ops.to_numpy(model(X))
    model.save_weights(tmp_path / "w.safetensors")
    first = model.layers[0]
    first.set_weights([w * 2 for w in first.get_weights()])
    exported = first.export()
    again = type(first)(*((exported,) if name != "jax" else (first.function, exported)))
    np.testing.assert_array_equal(ops.to_numpy(again(X)), ops.to_numpy(first(X)))
    assert (ops.to_numpy(model(X)) != before).any()
    model.load_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(ops.to_numpy(model(X)), before)


@each
def test_where_it_cannot_be(name: str) -> None:
    backend = require_backend(name)
    layer = MAKE[name]()
    with pytest.raises(GraphError, match=rf"code of {name} cannot be part of a graph. Call the layer on arrays"):
        ul.function(lambda x: layer(x), backend=name)(X)
    other = require_backend(next(n for n in MAKE if n != name))
    [x] = other.put([X], other.device("cpu"))
    with pytest.raises(BackendError, match=f"computes with its own arrays. Received those of {other.name}"):
        layer(x)
    [x] = backend.put([X], backend.device("cpu"))
    with GradientTape() as outer:
        box = outer.watch(x)
        with GradientTape() as inner:
            inner.watch(box)
            loss = ops.sum(layer(box))
        with pytest.raises(GraphError, match="no second derivatives through an engine's own code"):
            inner.gradient(loss, box)


@each
def test_a_model_of_another_backend_refuses_it(name: str) -> None:
    require_backend(name)
    model = ul.Sequential([MAKE[name](), L.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(BackendError):
        model.fit(X, Y, epochs=2, backend="numpy", verbose=0)


def test_torch_statistics_and_several_arguments() -> None:
    torch = pytest.importorskip("torch")
    require_backend("torch")
    norm, plain = torch.nn.BatchNorm1d(5), torch.nn.BatchNorm1d(5)
    layer, x = TorchModuleLayer(norm), torch.tensor(X)
    plain.train()
    for _ in range(2):
        y = layer(x, training=True)
        assert_close(ops.to_numpy(y), plain(x).detach().numpy(), rtol=1e-5, atol=1e-6, what="y")
    wanted = [v.detach().numpy() for v in (*plain.parameters(), *plain.buffers())]
    for mine, theirs in zip(layer.get_weights(), wanted, strict=True):
        assert_close(mine, theirs, rtol=1e-6, atol=0, what="statistics")
    plain.eval()
    assert_close(ops.to_numpy(layer(x)), plain(x).detach().numpy(), rtol=1e-5, atol=1e-6, what="inference")
    assert [v.trainable for v in layer.weights] == [True, True, False, False, False]
    both = TorchModuleLayer(torch.nn.Bilinear(5, 2, 3))
    assert tuple(both([x, x[:, :2]]).shape) == (24, 3)


def test_torch_module_is_trained_as_by_torch() -> None:
    """Steps of SGD on a convolution with dropout switched off, by both."""
    torch = pytest.importorskip("torch")
    require_backend("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(6, 1))
    theirs = deepcopy(module)
    model = ul.Sequential([TorchModuleLayer(module)])
    model.compile(ul.optimizers.SGD(0.1), "mse", run_eagerly=True)
    found = model.fit(X[:, None], Y, epochs=4, batch_size=24, shuffle=False, backend="torch", verbose=0).history["loss"]
    optimizer, wanted = torch.optim.SGD(theirs.parameters(), 0.1), []
    for _ in range(4):
        loss = torch.nn.functional.mse_loss(theirs(torch.tensor(X[:, None])), torch.tensor(Y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wanted.append(loss.item())
    assert found == pytest.approx(wanted, rel=1e-5)


def test_names_of_keras() -> None:
    assert L.TorchModuleWrapper is TorchModuleLayer is L.Layer.registry.get("TorchModuleWrapper")


def jax_affine(params: Any, inputs: Any) -> Any:
    return pytest.importorskip("jax").numpy.tanh(inputs @ params["w"] + params["rest"][0])


@pytest.mark.parametrize("given", [True, False])
def test_a_layer_of_jax_as_keras_has_it(given: bool) -> None:
    require_backend("jax")
    start = {"w": KERNEL, "rest": [BIAS]}
    layer = L.JaxLayer(jax_affine, params=start) if given else L.JaxLayer(jax_affine, lambda rng, inputs: start)
    results = []
    for first in (layer, twin()):
        model = ul.Sequential([first, L.Dense(1)], seed=3)
        model.compile(ul.optimizers.Adam(0.05), "mse", run_eagerly=True)
        results.append(model.fit(X, Y, epochs=3, batch_size=8, backend="jax", verbose=0).history["loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    assert_close(layer.export()[0]["w"], by_shape(layer.get_weights())[5, 3], rtol=0, atol=0, what="exported")


def test_state_and_keys_of_a_layer_of_jax() -> None:
    jax = pytest.importorskip("jax")

    def call(params: Any, state: Any, rng: Any, inputs: Any, training: bool) -> Any:
        noise = jax.random.normal(rng, inputs.shape) if training else 0.0
        return inputs * params + noise, {"calls": state["calls"] + 1.0}

    def init(rng: Any, inputs: Any) -> Any:
        return jax.random.normal(rng, inputs.shape[1:]), {"calls": np.zeros((), "float32")}

    layers = [L.JaxLayer(call, init, seed=seed, name="native") for seed in (None, None, 5)]
    first, again, other = ([ops.to_numpy(layer(X, training=True)) for _ in range(3)] for layer in layers)
    assert (first[0] != first[1]).any() and (first[0] != other[0]).any()
    np.testing.assert_array_equal(first, again)
    layer = layers[0]
    params, state = layer.export()
    assert state["calls"] == 3.0 and params.shape == (5,) and len(layer.trainable_weights) == 1
    np.testing.assert_array_equal(ops.to_numpy(layer(X)), X * params)
    assert layer.export()[1]["calls"] == 3.0  # inference changes nothing
    with GradientTape() as tape:
        loss = ops.sum(layer(X))
    [gradient] = tape.gradient(loss, layer.trainable_weights)
    assert_close(ops.to_numpy(gradient), X.sum(0), rtol=1e-5, atol=1e-5, what="gradient")


def test_what_a_layer_of_jax_cannot_call() -> None:
    with pytest.raises(UnilayersError, match=r"JaxLayer\.call_fn: an argument 'x'\. Expected some of params, state"):
        L.JaxLayer(lambda x: x)
    with pytest.raises(UnilayersError, match=r"JaxLayer: call_fn wants params\. Give params or init_fn\."):
        L.JaxLayer(lambda params, inputs: inputs)


def test_configs_cannot_hold_it() -> None:
    with pytest.raises(UnilayersError, match="a Sequential cannot be written into a config"):
        torch_layer().get_config()
