"""Activations against Keras's, by name and with arguments, eagerly and symbolically."""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np
import pytest

from unilayers import activations, layers, ops
from unilayers.errors import UnilayersError
from unilayers.graph import Value

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own

X = np.concatenate([np.linspace(-7, 7, 29), [0.3, -0.3, 30.0, -30.0]]).reshape(3, 11)


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def expected(keras: Any, name: str, **kwargs: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(getattr(keras.activations, name)(keras.ops.convert_to_tensor(X), **kwargs))


@pytest.mark.parametrize("name", [n for n in activations.BUILTIN if n != "swish"])
def test_each_equals_keras(keras: Any, name: str) -> None:
    function = activations.get(name)
    np.testing.assert_allclose(function(X), expected(keras, name), 1e-12, 1e-14)
    np.testing.assert_allclose(layers.Activation(name, dtype="float64")(X), function(X), 0, 0)
    mine, theirs = (inspect.signature(f).parameters.values() for f in (function, getattr(keras.activations, name)))
    assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("relu", {"negative_slope": 0.2}),
        ("relu", {"max_value": 2.0}),
        ("relu", {"threshold": 1.25}),
        ("relu", {"negative_slope": 0.2, "max_value": 2.0, "threshold": 1.25}),
        ("leaky_relu", {"negative_slope": 0.7}),
        ("elu", {"alpha": 0.3}),
        ("gelu", {"approximate": True}),
        ("softmax", {"axis": 0}),
        ("log_softmax", {"axis": 0}),
    ],
    ids=str,
)
def test_arguments_equal_keras(keras: Any, name: str, kwargs: dict[str, Any]) -> None:
    np.testing.assert_allclose(activations.get(name)(X, **kwargs), expected(keras, name, **kwargs), 1e-12, 1e-14)


@pytest.mark.parametrize("name", list(activations.BUILTIN))
def test_symbolic_values_keep_shape_and_dtype(name: str) -> None:
    y = activations.get(name)(layers.Input((4, 3)))
    assert isinstance(y, Value)
    assert y.spec == layers.Input((4, 3)).spec


def test_get() -> None:
    assert activations.get(None) is activations.linear
    assert activations.get("ReLU") is activations.relu
    assert activations.get("swish") is activations.get("silu")
    assert activations.get(np.tanh) is np.tanh


def test_unknown_names_are_told() -> None:
    with pytest.raises(UnilayersError) as error:
        activations.get("sigmod", where="Dense.activation")
    assert str(error.value) == "Dense.activation: unknown activation 'sigmod'. Did you mean 'sigmoid'?"
    with pytest.raises(UnilayersError) as error:
        activations.get("elsewhere:function")
    assert str(error.value) == "unknown activation 'elsewhere:function'. Make it known with activations.register."
    with pytest.raises(UnilayersError) as error:
        activations.get(3)  # type: ignore[arg-type]
    assert str(error.value) == "not an activation. Expected a name or a function. Received 3 (int)."


def cube(x: Any) -> Any:
    return x * x * x


def test_names() -> None:
    for name in activations.BUILTIN:
        assert activations.get(activations.name_of(activations.get(name))) is activations.get(name)
    assert activations.register(cube) is cube
    assert activations.get(activations.name_of(cube)) is cube
    assert activations.get(f"{__name__}:cube") is cube
    with pytest.raises(UnilayersError, match="has no name by which it could be found again"):
        activations.register(lambda x: x)


def test_a_layer_keeps_what_leads_back_to_its_activation() -> None:
    assert layers.Dense(2, activation=activations.relu).get_config()["activation"] == "relu"
    assert layers.Dense(2, activation=ops.sigmoid).get_config()["activation"] == "sigmoid"
    own = layers.Dense(2, activation=cube)
    again = layers.Dense.from_config(own.get_config())
    assert activations.get(again.activation) is cube  # type: ignore[arg-type]
    nameless = layers.Dense(2, activation=lambda x: x * 2.0)
    with pytest.raises(UnilayersError, match="Make it known with activations"):
        layers.Dense.from_config(nameless.get_config())


def test_a_layer_may_be_an_activation() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3))
    made = [
        layers.Dense(4, activation=layers.LeakyReLU(0.5), dtype="float64"),
        layers.Dense(4, activation={"LeakyReLU": {"negative_slope": 0.5}}, dtype="float64"),
    ]
    for layer in made:
        layer(x)
        plain = x @ layer.kernel.numpy()
        np.testing.assert_allclose(layer(x), np.where(plain > 0, plain, plain / 2), 1e-12)
        assert layer.get_config()["activation"]["LeakyReLU"]["negative_slope"] == 0.5
        assert [type(part) for part in layer.layers_below] == [layers.Dense, layers.LeakyReLU]
        np.testing.assert_allclose(layers.Dense.from_config(layer.get_config())(x), layer(x))
