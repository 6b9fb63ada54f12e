"""Regularizers against Keras 3 and the closed form of their gradients; on weights, traced, and on every backend."""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from tests.traced import Step
from unilayers import ops, regularizers
from unilayers.autodiff import GradientTape, grad
from unilayers.errors import ShapeError, UnilayersError
from unilayers.registry import resolve, serialize, snake_case
from unilayers.regularizers import L1, L1L2, L2, OrthogonalRegularizer, Regularizer
from unilayers.variable import Variable

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

CLASSES = [cls for cls in Regularizer.registry if cls.__module__ == regularizers.__name__]
X = np.random.default_rng(0).normal(size=(4, 3))


def orthogonal_gradient(x: np.ndarray) -> np.ndarray:
    """Of the sum of abs(cosine) over all ordered pairs of rows."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / norms
    cosines = unit @ unit.T
    signs = np.sign(cosines) - np.eye(len(x))
    return 2 * (signs @ unit - np.sum(signs * cosines, 1, keepdims=True) * unit) / norms


CASES = [
    (L1(), 0.01 * np.sign(X)),
    (L1(0.3), 0.3 * np.sign(X)),
    (L2(), 0.02 * X),
    (L2(0.2), 0.4 * X),
    (L1L2(0.1, 0.2), 0.1 * np.sign(X) + 0.4 * X),
    (L1L2(l2=0.2), 0.4 * X),
    (L1L2(), 0 * X),
    (OrthogonalRegularizer(), 0.01 / 12 * orthogonal_gradient(X)),
    (OrthogonalRegularizer(0.6, mode="columns"), 0.1 * orthogonal_gradient(X.T).T),
]
cases = pytest.mark.parametrize(("regularizer", "gradient"), CASES, ids=lambda x: repr(x) if callable(x) else "")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_a_case_and_keras_arguments(cls: type[Regularizer]) -> None:
    assert any(type(case) is cls for case, _ in CASES)
    name = {"L1L2": "l1_l2"}.get(cls.__name__, snake_case(cls.__name__))
    assert getattr(regularizers, name) is cls and hasattr(keras.regularizers, name)
    ours, theirs = (inspect.signature(c).parameters for c in (cls, getattr(keras.regularizers, cls.__name__)))
    assert {n: p.default for n, p in ours.items()} == {n: p.default for n, p in theirs.items()}


@cases
def test_value_equals_keras_and_gradient_its_closed_form(regularizer: Regularizer, gradient: np.ndarray) -> None:
    theirs = getattr(keras.regularizers, type(regularizer).__name__)(**regularizer.get_config())
    expected = keras.ops.convert_to_numpy(theirs(torch.tensor(X))).astype("float64")
    assert_close(regularizer(X), expected, rtol=1e-6, atol=0, what="value")
    assert_close(grad(regularizer)(X), gradient, rtol=1e-13, atol=1e-17, what="gradient")


@pytest.mark.parametrize("backend", BACKENDS)
@cases
def test_on_weights_of_every_backend(backend: str, regularizer: Regularizer, gradient: np.ndarray) -> None:
    engine, expected = require_backend(backend), np.asarray(regularizer(X))
    [there] = engine.put([X], engine.device("cpu"))
    assert_close(engine.get(regularizer(there)), expected, rtol=1e-13, atol=0, what="array")
    weight = Variable(X, dtype="float64")
    with GradientTape() as tape:
        penalty = regularizer(weight)
    assert_close(tape.gradient(penalty, weight), gradient, rtol=1e-13, atol=1e-17, what="gradient of a weight")
    step = Step(lambda x: regularizer(weight) + ops.sum(x), [np.zeros(2)], backend)
    assert_close(step(np.zeros(2)), expected, rtol=1e-13, atol=0, what="traced")


@cases
def test_config_round_trip(regularizer: Regularizer, gradient: np.ndarray) -> None:
    again = resolve(Regularizer.registry, serialize(regularizer))
    assert again == regularizer == type(regularizer).from_config(regularizer.get_config())


def test_orthogonal_edges() -> None:
    """Rows of zeros count as orthogonal, with a finite gradient; a single row has no pairs."""
    x = np.array([[0.0, 0.0], [3.0, 4.0], [4.0, 3.0]])
    theirs = keras.regularizers.OrthogonalRegularizer(0.5)
    assert_close(OrthogonalRegularizer(0.5)(x), np.float64(0.5 * 0.96 / 3), rtol=1e-12, atol=0, what="value")
    assert_close(
        OrthogonalRegularizer(0.5)(x),
        np.asarray(theirs(torch.tensor(x)), "float64"),
        rtol=1e-6,
        atol=0,
        what="as Keras",
    )
    assert np.isfinite(grad(OrthogonalRegularizer(0.5))(x)).all()
    assert float(OrthogonalRegularizer()(x[1:2])) == 0
    with pytest.raises(
        ShapeError, match=r"OrthogonalRegularizer\(\): not a matrix. Expected two axes. Received \(3,\)"
    ):
        OrthogonalRegularizer()(x[:, 0])


def test_names_and_functions() -> None:
    for identifier in ("l2", "L2", L2, {"L2": None}, {"class_name": "L2", "config": {"l2": 0.01}}):
        assert regularizers.get(identifier) == L2()
    assert regularizers.get("l1_l2") == L1L2()
    assert regularizers.get(None) is None
    assert float(regularizers.get(lambda w: ops.max(w))(X)) == X.max()


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("l3", "Dense.x: unknown regularizer 'l3'. Valid names:"),
        (
            {"L2": {"l2": -1}},
            "Dense.x > L2.l2: a value that does not fit. Expected a number at least 0.",
        ),
        (
            3,
            "Dense.x: not a regularizer. Expected a name, {name: arguments}, or a regularizer object.",
        ),
    ],
)
def test_errors(identifier: Any, message: str) -> None:
    with pytest.raises(UnilayersError) as error:
        regularizers.get(identifier, where="Dense.x")
    assert str(error.value).startswith(message)
