"""Constraints against Keras 3 and what they promise; on weights, traced, and on every backend."""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from tests.traced import Step
from unilayers import constraints, ops
from unilayers.constraints import Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm
from unilayers.errors import UnilayersError
from unilayers.registry import resolve, serialize, snake_case
from unilayers.variable import Variable

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

CLASSES = [cls for cls in Constraint.registry if cls.__module__ == constraints.__name__]
RNG = np.random.default_rng(0)
MATRIX, KERNEL = RNG.normal(size=(4, 3)), RNG.normal(size=(2, 2, 3, 2))
MATRIX[:, 1] = 0  # a unit without weights
CASES = [
    (NonNeg(), MATRIX),
    (MaxNorm(), 3 * MATRIX),
    (MaxNorm(0.5, axis=1), MATRIX),
    (MaxNorm(1.0, axis=[0, 1, 2]), KERNEL),
    (MaxNorm(0.0), MATRIX),
    (MinMaxNorm(), MATRIX),
    (MinMaxNorm(0.5, 1.0, 0.25), MATRIX),
    (MinMaxNorm(2.0, 3.0, axis=(0, 1)), KERNEL),
    (UnitNorm(), MATRIX),
    (UnitNorm(axis=-1), KERNEL),
]
cases = pytest.mark.parametrize(("constraint", "w"), CASES, ids=lambda x: repr(x) if callable(x) else "")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_a_case_and_keras_names_and_arguments(cls: type[Constraint]) -> None:
    assert any(type(case) is cls for case, _ in CASES)
    assert getattr(constraints, snake_case(cls.__name__)) is cls and hasattr(
        keras.constraints, snake_case(cls.__name__)
    )
    ours, theirs = (inspect.signature(c).parameters for c in (cls, getattr(keras.constraints, cls.__name__)))
    plain = {n: p.default for n, p in theirs.items() if n not in ("args", "kwargs")}
    assert {n: p.default for n, p in ours.items()} == plain


@cases
def test_equals_keras(constraint: Constraint, w: np.ndarray) -> None:
    theirs = getattr(keras.constraints, type(constraint).__name__)(**constraint.get_config())
    expected = keras.ops.convert_to_numpy(theirs(torch.tensor(w))).astype("float64")
    assert_close(constraint(w), expected, rtol=1e-6, atol=0, what="weight")


@pytest.mark.parametrize("backend", BACKENDS)
@cases
def test_on_weights_of_every_backend(backend: str, constraint: Constraint, w: np.ndarray) -> None:
    engine, expected = require_backend(backend), np.asarray(constraint(w))
    [there] = engine.put([w], engine.device("cpu"))
    assert_close(engine.get(constraint(there)), expected, rtol=1e-14, atol=0, what="array")
    assert_close(ops.to_numpy(constraint(Variable(w, dtype="float64"))), expected, rtol=1e-14, atol=0, what="variable")
    step = Step(lambda x: constraint(x) * 1.0, [w], backend)
    assert_close(step(w), expected, rtol=1e-14, atol=0, what="traced")


def test_norms_are_where_they_may_be() -> None:
    norms = np.linalg.norm(MATRIX, axis=0)
    full = norms > 0
    for constraint, expected in [
        (MaxNorm(1.5), np.minimum(norms, 1.5)),
        (MinMaxNorm(1.2, 1.5), np.clip(norms, 1.2, 1.5)),
        (MinMaxNorm(1.2, 1.5, 0.5), (np.clip(norms, 1.2, 1.5) + norms) / 2),
        (UnitNorm(), np.ones(3)),
    ]:
        found = np.linalg.norm(constraint(MATRIX), axis=0)
        np.testing.assert_allclose(found[full], expected[full], rtol=1e-6)
        assert (found[~full] == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("cls", CLASSES)
def test_the_dtype_stays_and_zeros_stay_zeros(cls: type[Constraint], dtype: str) -> None:
    np.testing.assert_array_equal(cls()(np.zeros((2, 2), dtype)), np.zeros((2, 2), dtype), strict=True)


@cases
def test_config_round_trip(constraint: Constraint, w: np.ndarray) -> None:
    assert resolve(Constraint.registry, serialize(constraint)) == constraint


def test_names_and_functions() -> None:
    for identifier in ("max_norm", "MaxNorm", "maxnorm", MaxNorm, {"MaxNorm": None}, {"class_name": "MaxNorm"}):
        assert constraints.get(identifier) == MaxNorm()
    assert constraints.get("non_neg") == NonNeg() and constraints.get("min_max_norm") == MinMaxNorm()
    assert constraints.get(None) is None
    np.testing.assert_array_equal(constraints.get(lambda w: ops.abs(w))(MATRIX), abs(MATRIX))


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("max_nrom", "Dense.x: unknown constraint 'max_nrom'. Did you mean 'MaxNorm'?"),
        (
            {"MaxNorm": {"max_value": -1}},
            "Dense.x > MaxNorm.max_value: a value that does not fit. Expected a number at least 0.",
        ),
        (3, "Dense.x: not a constraint. Expected a name, {name: arguments}, or a constraint object."),
    ],
)
def test_errors(identifier: Any, message: str) -> None:
    with pytest.raises(UnilayersError) as error:
        constraints.get(identifier, where="Dense.x")
    assert str(error.value).startswith(message)
