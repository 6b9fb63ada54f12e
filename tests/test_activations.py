"""Activations against Keras's, by name and with arguments, eagerly and symbolically."""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from unilayers import activations, layers, ops
from unilayers.autodiff import grad
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import Value

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own

KINKS = [-6.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0]
X = np.concatenate([np.linspace(-7, 7, 20), KINKS, [0.3, -0.3, 30.0, -30.0, 300.0]]).reshape(3, 12)
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in activations.BUILTIN if name != "threshold"),
    ("threshold", {"threshold": 0.5, "default_value": -2.0}),
    ("relu", {"negative_slope": 0.2}),
    ("relu", {"max_value": 2.0}),
    ("relu", {"max_value": 6.0}),
    ("relu", {"threshold": 1.25}),
    ("relu", {"threshold": -1.25, "max_value": 2.0}),
    ("relu", {"negative_slope": 0.2, "max_value": 2.0, "threshold": 1.25}),
    ("leaky_relu", {"negative_slope": 0.7}),
    ("celu", {"alpha": 0.3}),
    ("elu", {"alpha": 0.3}),
    ("gelu", {"approximate": True}),
    ("glu", {"axis": 1}),
    ("hard_shrink", {"threshold": 2.0}),
    ("soft_shrink", {"threshold": 2.0}),
    ("squareplus", {"b": 0.5}),
    ("softmax", {"axis": 0}),
    ("softmax", {"axis": (0, 1)}),
    ("log_softmax", {"axis": 0}),
    ("log_softmax", {"axis": (0, 1)}),
    ("sparsemax", {"axis": 0}),
]
cases = pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def theirs(keras: Any, name: str) -> Any:
    return getattr(keras.activations, {"swish": "silu", "hard_swish": "hard_silu"}.get(name, name))


@cases
def test_value_and_gradient_equal_keras(keras: Any, name: str, kwargs: dict[str, Any]) -> None:
    """At kinks, too: there the gradients are those that Keras has on PyTorch."""
    torch = pytest.importorskip("torch")
    if name == "sparsemax":
        pytest.skip("Keras 3.15's is wrong where more than one probability is not 0; the op's own tests have a witness")
    function, given = activations.get(name), torch.tensor(X, requires_grad=True)
    result = theirs(keras, name)(given, **kwargs)
    expected, u = result.detach().numpy(), np.random.default_rng(0).normal(size=result.shape)
    assert_close(function(X, **kwargs), expected, rtol=1e-12, atol=1e-13, what="value")
    (result * torch.tensor(u)).sum().backward()
    found = grad(lambda x: ops.sum(function(x, **kwargs) * u))(X)
    # PyTorch has some constants in float32 only.
    assert_close(found, given.grad.numpy(), rtol=1e-6, atol=1e-8, what="gradient")


@pytest.mark.parametrize("name", [name for name, kwargs in CASES if not kwargs])
def test_the_layer_and_the_arguments(keras: Any, name: str) -> None:
    function = activations.get(name)
    np.testing.assert_array_equal(layers.Activation(name, dtype="float64")(X), function(X))
    mine, other = (inspect.signature(f).parameters.values() for f in (function, theirs(keras, name)))
    assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in other]


def test_every_activation_has_a_case_and_keras_has_no_more(keras: Any) -> None:
    assert {name for name, _ in CASES} == set(activations.BUILTIN)
    public = {name for name in dir(keras.activations) if not name.startswith("_")}
    assert public - {"deserialize", "get", "serialize"} <= set(activations.BUILTIN)


@cases
def test_symbolic_values_keep_dtype_and_shape(name: str, kwargs: dict[str, Any]) -> None:
    x = layers.Input((4, 6))
    y = activations.get(name)(x, **kwargs)
    assert isinstance(y, Value)
    half = {"glu": kwargs.get("axis", 2)}.get(name)
    assert y.spec == x.spec.with_shape(n // 2 if i == half else n for i, n in enumerate(x.shape))


@cases
def test_nan_stays_nan(name: str, kwargs: dict[str, Any]) -> None:
    """A training that diverges must show it."""
    assert np.isnan(activations.get(name)(np.full((2, 2), np.nan), **kwargs)).all()


@cases
def test_half_precision_has_the_same_values(name: str, kwargs: dict[str, Any]) -> None:
    x = np.array([[-300.0, -3.5, -1.0, -0.25], [0.0, 0.25, 7.0, 10.0]])
    found = activations.get(name)(x.astype("float16"), **kwargs)
    assert_close(found, activations.get(name)(x, **kwargs).astype("float16"), rtol=4e-3, atol=1e-2, what="value")


def test_glu_of_an_odd_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"cannot be halved. Expected an even size of axis 1. Received \(2, 3\)"):
        activations.glu(np.zeros((2, 3)))


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
