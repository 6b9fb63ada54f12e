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
from unilayers.errors import UnilayersError
from unilayers.registry import resolve, serialize
from unilayers.regularizers import L1, L1L2, L2, Regularizer
from unilayers.variable import Variable

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

CLASSES = [cls for cls in Regularizer.registry if cls.__module__ == regularizers.__name__]
X = np.random.default_rng(0).normal(size=(4, 3))
CASES = [
    (L1(), 0.01 * np.sign(X)),
    (L1(0.3), 0.3 * np.sign(X)),
    (L2(), 0.02 * X),
    (L2(0.2), 0.4 * X),
    (L1L2(0.1, 0.2), 0.1 * np.sign(X) + 0.4 * X),
    (L1L2(l2=0.2), 0.4 * X),
    (L1L2(), 0 * X),
]
cases = pytest.mark.parametrize(("regularizer", "gradient"), CASES, ids=lambda x: repr(x) if callable(x) else "")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_a_case_and_keras_arguments(cls: type[Regularizer]) -> None:
    assert any(type(case) is cls for case, _ in CASES)
    ours, theirs = (inspect.signature(c).parameters for c in (cls, getattr(keras.regularizers, cls.__name__)))
    assert {n: p.default for n, p in ours.items()} == {n: p.default for n, p in theirs.items()}


@cases
def test_value_equals_keras_and_gradient_its_closed_form(regularizer: Regularizer, gradient: np.ndarray) -> None:
    theirs = getattr(keras.regularizers, type(regularizer).__name__)(**regularizer.get_config())
    assert_close(regularizer(X), np.asarray(theirs(X), "float64"), rtol=1e-6, atol=0, what="value")
    assert_close(grad(regularizer)(X), gradient, rtol=1e-14, atol=0, what="gradient")


@pytest.mark.parametrize("backend", BACKENDS)
@cases
def test_on_weights_of_every_backend(backend: str, regularizer: Regularizer, gradient: np.ndarray) -> None:
    engine, expected = require_backend(backend), np.asarray(regularizer(X))
    [there] = engine.put([X], engine.device("cpu"))
    assert_close(engine.get(regularizer(there)), expected, rtol=1e-14, atol=0, what="array")
    weight = Variable(X, dtype="float64")
    with GradientTape() as tape:
        penalty = regularizer(weight)
    assert_close(tape.gradient(penalty, weight), gradient, rtol=1e-14, atol=0, what="gradient of a weight")
    step = Step(lambda x: regularizer(weight) + ops.sum(x), [np.zeros(2)], backend)
    assert_close(step(np.zeros(2)), expected, rtol=1e-14, atol=0, what="traced")


@cases
def test_config_round_trip(regularizer: Regularizer, gradient: np.ndarray) -> None:
    again = resolve(Regularizer.registry, serialize(regularizer))
    assert again == regularizer == type(regularizer).from_config(regularizer.get_config())


def test_names_and_functions() -> None:
    for identifier in ("l2", "L2", L2, {"L2": None}, {"class_name": "L2", "config": {"l2": 0.01}}):
        assert regularizers.get(identifier) == L2()
    assert regularizers.get("l1_l2") == L1L2()
    assert regularizers.get(None) is None
    assert float(regularizers.get(lambda w: ops.max(w))(X)) == X.max()


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("l3", "Dense.x: unknown regularizer 'l3'. Valid names: L1, L1L2, L2"),
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
