"""Losses against Keras 3 and PyTorch, for every reduction and kind of weights; traced, and on every backend."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from tests.traced import Step
from unilayers import losses, ops
from unilayers.autodiff import gradients, value_and_grad
from unilayers.config import dtype_scope
from unilayers.errors import ShapeError, UnilayersError
from unilayers.losses import Loss
from unilayers.registry import resolve, serialize, snake_case

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

CLASSES = [cls for cls in Loss.registry if cls.__module__.startswith(losses.__name__)]
OTHERS = [name for name in BACKENDS if name != "numpy"]
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None]
RNG = np.random.default_rng(5)
N, K, T = 6, 4, 3


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def probabilities(*shape: int, axis: int = -1) -> np.ndarray:
    p = RNG.uniform(0.1, 1.0, shape)
    return p / p.sum(axis, keepdims=True)


def numbers(*shape: int) -> np.ndarray:
    return RNG.integers(0, K, shape).astype("int32")


def one_hot(*shape: int) -> np.ndarray:
    return np.eye(K)[numbers(*shape)]


def area(*shape: int) -> np.ndarray:
    return RNG.integers(0, 2, shape)


def chances(*shape: int) -> np.ndarray:
    """Numbers between 0 and 1 that do not add up to 1."""
    return RNG.uniform(0.05, 0.95, shape)


def directions(*shape: int) -> np.ndarray:
    x = normal(*shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


SPELLINGS = np.array([[1, 2, 3], [2, 2, 0], [3, 0, 0], [0, 0, 0], [1, 3, 1], [3, 3, 3]])


class SumSquaredErrorInKeras(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.sum(keras.ops.square(y_pred - y_true), axis=-1)


@dataclass(frozen=True)
class Case:
    """A loss with arguments on data, and the tolerance of a comparison with Keras."""

    cls: type[Loss]
    y_true: np.ndarray
    y_pred: np.ndarray
    kwargs: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-6

    def ours(self, **more: Any) -> Loss:
        return self.cls(**self.kwargs, **more)

    def keras(self, **more: Any) -> Any:
        cls = getattr(keras.losses, self.cls.__name__, SumSquaredErrorInKeras)
        return cls(**self.kwargs, **more, dtype="float64")

    def values(self) -> np.ndarray:
        return np.asarray(self.ours(reduction="none")(self.y_true, self.y_pred))

    def weights(self) -> list[np.ndarray | None]:
        """None, and weights of every shape that fits."""
        shape = self.values().shape or (N,)  # samples may share one value
        shapes = {shape, (shape[0], *[1] * (len(shape) - 1)), (*shape, 1) if len(shape) == 1 else shape}
        if "ignore_class" in self.kwargs:  # Keras multiplies the mask into the weights in place
            shapes = {shape}
        rng = np.random.default_rng(3)
        return [None, *(rng.uniform(0.2, 2.0, s) for s in sorted(shapes)), np.zeros(shape)]

    def __str__(self) -> str:
        settings = ",".join(f"{k}={v}" for k, v in self.kwargs.items())
        return f"{self.cls.__name__}({settings}){self.y_true.shape}{self.y_pred.shape}".replace(" ", "")


CASES = [
    *(
        Case(cls, normal(*true), normal(*pred))
        for cls in (losses.MeanSquaredError, losses.MeanAbsoluteError, losses.SumSquaredError, losses.Huber)
        for true, pred in [((N, K), (N, K)), ((N, T, K), (N, T, K)), ((N,), (N, 1)), ((N, T, 1), (N, T))]
        if cls is not losses.SumSquaredError or len(true) == len(pred)
    ),
    Case(losses.MeanSquaredError, numbers(N, K), normal(N, K)),
    Case(losses.Huber, normal(N, K), normal(N, K), {"delta": 0.3}),
    *(
        Case(losses.BinaryCrossentropy, true, pred, {"from_logits": logits, **more})
        for more in ({}, {"label_smoothing": 0.2})
        for logits, pred in ((False, RNG.uniform(0.05, 0.95, (N, K))), (True, 3 * normal(N, K)))
        for true in (RNG.uniform(size=(N, K)), RNG.integers(0, 2, (N, K)))
    ),
    Case(losses.BinaryCrossentropy, RNG.integers(0, 2, N), RNG.uniform(0.05, 0.95, (N, 1))),
    Case(losses.BinaryCrossentropy, RNG.uniform(size=(N, T, K)), normal(N, T, K), {"from_logits": True, "axis": 1}),
    *(
        Case(losses.CategoricalCrossentropy, true, pred, {"from_logits": logits, **more})
        for more in ({}, {"label_smoothing": 0.2})
        for logits, pred in ((False, RNG.uniform(0.1, 2, (N, K))), (True, 3 * normal(N, K)))
        for true in (one_hot(N), probabilities(N, K))
    ),
    Case(losses.CategoricalCrossentropy, one_hot(N, T), normal(N, T, K), {"from_logits": True}),
    *(
        Case(losses.CategoricalCrossentropy, probabilities(N, K, T, axis=1), pred, {"from_logits": logits, "axis": 1})
        for logits, pred in ((False, probabilities(N, K, T, axis=1)), (True, normal(N, K, T)))
    ),
    *(
        Case(losses.SparseCategoricalCrossentropy, true, pred, {"from_logits": logits, **more})
        for more in ({}, {"ignore_class": 2})
        for shape in ((N,), (N, T))
        for logits, pred in ((False, RNG.uniform(0.1, 2, (*shape, K))), (True, 3 * normal(*shape, K)))
        for true in (numbers(*shape), numbers(*shape, 1), numbers(*shape).astype("float64"))
    ),
    Case(losses.SparseCategoricalCrossentropy, numbers(N, T), normal(N, K, T), {"from_logits": True, "axis": 1}),
    Case(losses.SparseCategoricalCrossentropy, numbers(N, T), probabilities(N, K, T, axis=1), {"axis": 1}),
    Case(losses.SparseCategoricalCrossentropy, np.full(N, 2), normal(N, K), {"from_logits": True, "ignore_class": 2}),
    Case(losses.MeanAbsolutePercentageError, normal(N, K), normal(N, K)),
    Case(losses.MeanAbsolutePercentageError, numbers(N), normal(N, 1)),
    Case(losses.MeanSquaredLogarithmicError, RNG.uniform(-0.5, 3, (N, K)), RNG.uniform(-0.5, 3, (N, K))),
    Case(losses.LogCosh, normal(N, T, K), 5 * normal(N, T, K)),
    Case(losses.CosineSimilarity, normal(N, K), normal(N, K)),
    Case(losses.CosineSimilarity, normal(N, T, K), normal(N, T, K), {"axis": 1}),
    *(
        Case(cls, true, pred)
        for cls in (losses.Hinge, losses.SquaredHinge)
        for true, pred in [(2 * area(N, K) - 1, normal(N, K)), (area(N), normal(N, 1)), (normal(N, K), normal(N, K))]
    ),
    Case(losses.CategoricalHinge, one_hot(N), normal(N, K)),
    Case(losses.CategoricalHinge, one_hot(N, T), 5 * normal(N, T, K)),
    Case(losses.KLDivergence, probabilities(N, K), probabilities(N, K)),
    Case(losses.KLDivergence, one_hot(N, T), chances(N, T, K)),
    Case(losses.Poisson, numbers(N, K), 3 * chances(N, K)),
    *(
        Case(losses.BinaryFocalCrossentropy, true, pred, {"from_logits": logits, **more})
        for more in ({}, {"apply_class_balancing": True, "alpha": 0.3, "gamma": 1.5, "label_smoothing": 0.2})
        for logits, true, pred in ((False, area(N, K), chances(N, K)), (True, chances(N, K), normal(N, K)))
    ),
    Case(losses.BinaryFocalCrossentropy, area(N, T, K), chances(N, T, K), {"axis": 1, "gamma": 0.0}),
    *(
        Case(losses.CategoricalFocalCrossentropy, true, pred, {"from_logits": logits, **more})
        for more in ({}, {"alpha": [0.1, 0.2, 0.3, 0.4], "gamma": 1.5, "label_smoothing": 0.2})
        for logits, true, pred in ((False, one_hot(N), chances(N, K)), (True, probabilities(N, K), normal(N, K)))
    ),
    Case(losses.CategoricalFocalCrossentropy, one_hot(N, T), normal(N, T, K), {"axis": 1, "from_logits": True}),
    Case(losses.CategoricalGeneralizedCrossEntropy, numbers(N), probabilities(N, K), {"q": 0.5}),
    Case(losses.CategoricalGeneralizedCrossEntropy, numbers(N, T), chances(N, T, K), {"q": 0.2}),
    Case(losses.Dice, area(N, T, K), chances(N, T, K)),
    Case(losses.Dice, area(N, T, K), chances(N, T, K), {"axis": (1, 2)}),
    Case(losses.Dice, area(N), chances(N, 1)),
    Case(losses.Tversky, area(N, T, K), chances(N, T, K), {"alpha": 0.2, "beta": 0.9}),
    Case(losses.Tversky, area(N, T, K), chances(N, T, K), {"alpha": 0.8, "axis": [1, -1]}),
    Case(losses.Circle, np.array([0, 1, 0, 2, 1, 1]), directions(N, 3), tolerance=1e-5),
    Case(losses.Circle, np.array([[0], [1], [0], [2], [1], [1]]), directions(N, 3), {"gamma": 3.0, "margin": 0.1}),
    Case(losses.Circle, numbers(N) // 2, directions(N, 3), {"remove_diagonal": False}, tolerance=1e-5),
    Case(losses.CTC, SPELLINGS, normal(N, 7, K)),
]  # fmt: skip
cases = pytest.mark.parametrize("case", CASES, ids=str)
# One for each class and setting.
distinct_cases = pytest.mark.parametrize("case", {(c.cls, repr(c.kwargs)): c for c in CASES}.values(), ids=str)


def by_keras(case: Case, weights: Any, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient by Keras on PyTorch's autograd."""
    y_pred = torch.tensor(case.y_pred, requires_grad=True)
    y_true = case.y_true[:, None] if case.y_true.ndim == 1 and case.y_pred.shape == (N, 1) else case.y_true
    value = case.keras(**more)(torch.tensor(y_true), y_pred, weights)
    value.sum().backward()
    return value.detach().numpy(), y_pred.grad.numpy()


def by_us(case: Case, weights: Any, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    loss = case.ours(**more)
    return value_and_grad(lambda y_pred: loss(case.y_true, y_pred, weights))(case.y_pred)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_a_case(cls: type[Loss]) -> None:
    assert any(case.cls is cls for case in CASES)


@cases
def test_value_and_gradient_equal_keras(case: Case) -> None:
    """To float32's precision, in which Keras divides on PyTorch; `test_values_equal_torch` is the sharper witness."""
    for weights, reduction in itertools.product(case.weights(), REDUCTIONS):
        (value, grad), (expected, expected_grad) = (
            run(case, weights, reduction=reduction) for run in (by_us, by_keras)
        )
        what = f"{reduction}, weights {np.shape(weights)}"
        close = {"rtol": case.tolerance, "atol": case.tolerance}
        assert_close(value, expected.astype("float64"), what=what, **close)
        assert_close(grad, expected_grad.astype("float64"), what=f"gradient, {what}", **close)


@cases
def test_functional_forms_give_the_values_of_samples(case: Case) -> None:
    function = getattr(losses, snake_case(case.cls.__name__))
    found = function(case.y_true, case.y_pred, **case.kwargs)
    assert_close(found, case.values(), rtol=0, atol=0, what="values")
    if hasattr(keras.losses, function.__name__) and case.y_true.ndim > 1:
        expected = getattr(keras.losses, function.__name__)(
            torch.tensor(case.y_true), torch.tensor(case.y_pred), **case.kwargs
        )
        assert_close(found, expected.numpy().astype("float64"), rtol=1e-6, atol=1e-6, what="values")


def moved(x: np.ndarray) -> Any:
    """Classes on the second axis, as PyTorch has them."""
    return torch.tensor(np.moveaxis(x, -1, 1))


F = torch.nn.functional
BY_TORCH: list[tuple[Loss, np.ndarray, np.ndarray, Any]] = [
    (losses.MeanSquaredError(), a := normal(N, K), b := normal(N, K), F.mse_loss(torch.tensor(b), torch.tensor(a))),
    (losses.MeanAbsoluteError(), a, b, F.l1_loss(torch.tensor(b), torch.tensor(a))),
    (losses.SumSquaredError(reduction="sum"), a, b, F.mse_loss(torch.tensor(b), torch.tensor(a), reduction="sum")),
    (losses.Huber(delta=0.4), a, b, F.huber_loss(torch.tensor(b), torch.tensor(a), delta=0.4)),
    (
        losses.BinaryCrossentropy(), p := RNG.uniform(0.01, 0.99, (N, K)), q := RNG.uniform(0.01, 0.99, (N, K)),
        F.binary_cross_entropy(torch.tensor(q), torch.tensor(p)),
    ),
    (
        losses.BinaryCrossentropy(from_logits=True), p, 9 * a,
        F.binary_cross_entropy_with_logits(torch.tensor(9 * a), torch.tensor(p)),
    ),
    (
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), h := one_hot(N, T), c := normal(N, T, K),
        F.cross_entropy(moved(c), moved(h), label_smoothing=0.1),
    ),
    (
        losses.CategoricalCrossentropy(), h, np.exp(c), F.cross_entropy(moved(c), moved(h)),
    ),
    (losses.LogCosh(), a, b, torch.log(torch.cosh(torch.tensor(b - a))).mean()),
    (losses.CosineSimilarity(), a, b, -F.cosine_similarity(torch.tensor(a), torch.tensor(b)).mean()),
    (
        losses.KLDivergence(), u := probabilities(N, K), v := probabilities(N, K),
        F.kl_div(torch.tensor(v).log(), torch.tensor(u), reduction="batchmean"),
    ),
    (losses.Poisson(), p, q, F.poisson_nll_loss(torch.tensor(q), torch.tensor(p), log_input=False, eps=1e-7)),
    (losses.Hinge(), k := 2 * area(N, K) - 1, b, torch.relu(1 - torch.tensor(k * b)).mean()),
    (
        losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1), n := numbers(N, T), c,
        F.cross_entropy(moved(c), torch.tensor(n).long(), ignore_index=1),
    ),
    (
        losses.SparseCategoricalCrossentropy(ignore_class=1), n, np.exp(c),
        F.cross_entropy(moved(c), torch.tensor(n).long(), ignore_index=1),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "y_true", "y_pred", "expected"), BY_TORCH, ids=lambda x: repr(x)[:40])
def test_values_equal_torch(loss: Loss, y_true: np.ndarray, y_pred: np.ndarray, expected: Any) -> None:
    assert_close(loss(y_true, y_pred), expected.numpy(), rtol=1e-13, atol=0, what="value")


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "none"])
@cases
def test_traced_equals_eager(case: Case, reduction: str) -> None:
    weights = case.weights()[1]
    loss = case.ours(reduction=reduction)
    step = Step(loss, (case.y_true, case.y_pred, weights))
    for rows in (slice(None), slice(1, 3)):
        given = case.y_true[rows], case.y_pred[rows], weights[rows]
        assert_close(step(*given), loss(*given), rtol=1e-13, atol=1e-14, what="value")


@pytest.mark.parametrize("backend", OTHERS)
@distinct_cases
def test_backends_agree_with_numpy(backend: str, case: Case) -> None:
    """At once in float32; traced, with the gradient, in float64."""
    engine, loss = require_backend(backend), case.ours()
    given = case.y_true, case.y_pred, case.weights()[1]

    def with_grad(y_true: Any, y_pred: Any, weights: Any) -> dict[str, Any]:
        value = loss(y_true, y_pred, weights)
        return {"value": value, "grad": gradients(value, [y_pred])[0]}

    found = Step(with_grad, given, backend)(*given)
    value, grad = by_us(case, given[2])
    assert_close(found["value"], value, rtol=1e-13, atol=1e-14, what="value")
    assert_close(found["grad"], grad, rtol=1e-12, atol=1e-14, what="gradient")
    given = tuple(x.astype("float32") if x.dtype.kind == "f" else x for x in given)
    [there] = engine.put([given[1]], engine.device("cpu"))
    assert_close(engine.get(loss(given[0], there, given[2])), loss(*given), rtol=3e-6, atol=3e-7, what="float32")


@pytest.mark.parametrize("from_logits", [False, True])
def test_extreme_predictions_equal_keras(from_logits: bool) -> None:
    sure = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    y_pred = 2000.0 * (sure - 0.5) if from_logits else sure
    for cls, y_true in [
        (losses.BinaryCrossentropy, np.array([[0, 1, 1], [0, 0, 1]])),
        (losses.CategoricalCrossentropy, np.array([[0, 1, 0], [0, 1, 0]])),
        (losses.SparseCategoricalCrossentropy, np.array([1, 1])),
    ]:
        case = Case(cls, y_true, y_pred, {"from_logits": from_logits})
        (value, grad), (expected, expected_grad) = by_us(case, None), by_keras(case, None)
        assert_close(value, expected.astype("float64"), rtol=1e-6, atol=1e-6, what="value")
        assert_close(grad, expected_grad, rtol=1e-6, atol=1e-6, what="gradient")


@pytest.mark.parametrize("cls", [losses.BinaryFocalCrossentropy, losses.CategoricalFocalCrossentropy])
@pytest.mark.parametrize("from_logits", [False, True])
def test_focal_losses_of_extreme_predictions_equal_keras(cls: type[Loss], from_logits: bool) -> None:
    sure = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    case = Case(cls, np.array([[0, 1, 0], [0, 1, 0]]), 2000.0 * (sure - 0.5) if from_logits else sure)
    (value, grad), (expected, expected_grad) = (run(case, None) for run in (by_us, by_keras))
    assert_close(value, expected.astype("float64"), rtol=1e-6, atol=1e-6, what="value")
    assert_close(grad, expected_grad, rtol=1e-6, atol=1e-6, what="gradient")


def test_where_keras_has_no_gradient_ours_is_finite() -> None:
    """Zeros as directions, samples without a pair, classes that are impossible."""
    zeros, alone = normal(N, 3), directions(N, 3)
    zeros[1] = 0
    for case in (
        Case(losses.CosineSimilarity, normal(N, 3), zeros),
        Case(losses.Circle, np.arange(N), alone),
        Case(losses.Circle, np.zeros(N, "int32"), alone),
        Case(losses.CategoricalGeneralizedCrossEntropy, np.zeros(N, "int32"), np.eye(3)[[0, 1, 2, 0, 1, 2]]),
    ):
        (value, grad), (expected, expected_grad) = (run(case, None) for run in (by_us, by_keras))
        assert_close(value, expected.astype("float64"), rtol=1e-6, atol=1e-6, what="value")
        assert np.isfinite(grad).all()
        known = np.isfinite(expected_grad)
        assert_close(grad[known], expected_grad[known], rtol=1e-6, atol=1e-6, what="gradient")


def test_circle_with_references_equals_keras() -> None:
    labels, embeddings, others, references = numbers(N), directions(N, 3), numbers(5), directions(5, 3)
    expected = keras.losses.circle(*map(torch.tensor, (labels, embeddings, others, references)), False, 5.0, 0.3)
    found = losses.circle(labels, embeddings, others, references, False, 5.0, 0.3)
    assert_close(found, expected.numpy().astype("float64"), rtol=1e-5, atol=1e-6, what="values")


def test_circle_is_the_paper_s_formula() -> None:
    """Equation 6, by similarities, with m = 0.25 and a scale of 8."""
    labels, x, m = [0, 0, 0, 1, 1], directions(5, 3), 0.25
    found = losses.circle(np.array(labels), x, gamma=8.0, margin=m)
    for i, value in enumerate(found):
        terms = {True: 0.0, False: 0.0}
        for j in set(range(5)) - {i}:
            s, same = x[i] @ x[j], labels[i] == labels[j]
            weight = max(1 + m - s, 0) if same else max(s + m, 0)
            terms[same] += np.exp(8 * weight * ((1 - m - s) if same else (s - m)))
        np.testing.assert_allclose(value, np.log1p(terms[True] * terms[False]), rtol=1e-12)


# ---- connectionist temporal classification ------------------------------------------------------------------------


def spelled(path: tuple[int, ...]) -> tuple[int, ...]:
    """What the classes of frames spell."""
    return tuple(label for label, _ in itertools.groupby(path) if label)


def test_ctc_adds_up_all_ways_to_spell() -> None:
    logits = normal(len(SPELLINGS), 5, K)
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for labels, given, value in zip(SPELLINGS, probability, losses.ctc(SPELLINGS, logits), strict=True):
        ways = [path for path in itertools.product(range(K), repeat=5) if spelled(path) == tuple(labels[labels > 0])]
        total = sum(np.prod([given[t, label] for t, label in enumerate(path)]) for path in ways)
        np.testing.assert_allclose(np.exp(-value), total, rtol=1e-12)


def test_ctc_of_given_lengths_equals_torch() -> None:
    logits, blank = torch.tensor(normal(N, 8, K), requires_grad=True), K - 1
    target, frames, lengths = numbers(N, 3) % blank, np.array([8, 7, 6, 5, 8, 6]), np.array([3, 2, 1, 0, 3, 2])
    chance = torch.log_softmax(logits, -1).permute(1, 0, 2)
    expected = F.ctc_loss(chance, *map(torch.tensor, (target, frames, lengths)), blank=blank, reduction="none")
    expected.sum().backward()

    def total(x: Any) -> Any:
        return ops.sum(ops.ctc_loss(target, x, lengths, frames, mask_index=blank))

    value, grad = value_and_grad(total)(logits.detach().numpy())
    assert_close(value, expected.detach().numpy().sum(), rtol=1e-12, atol=0, what="value")
    assert_close(grad, logits.grad.numpy(), rtol=1e-11, atol=1e-14, what="gradient")


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_too_long_for_their_frames_cost_infinity_and_move_nothing(backend: str) -> None:
    labels, logits = np.array([[1, 1, 0], [1, 2, 0]]), normal(2, 2, K)
    expected = -np.sum(logits[1, [0, 1], [1, 2]] - np.log(np.exp(logits[1]).sum(-1)))

    def both(y_true: Any, y_pred: Any) -> dict[str, Any]:
        values = losses.CTC(reduction="none")(y_true, y_pred)
        return {"values": values, "grad": gradients(ops.sum(values), [y_pred])[0]}

    found = Step(both, (labels, logits), backend)(labels, logits)
    np.testing.assert_allclose(found["values"], [np.inf, expected], rtol=1e-13)
    assert (found["grad"][0] == 0).all() and np.isfinite(found["grad"]).all() and (found["grad"][1] != 0).all()


def test_ctc_of_impossible_classes_and_of_no_labels() -> None:
    logits = np.zeros((1, 3, K))
    logits[:, :, 3] = -np.inf
    value, grad = value_and_grad(lambda x: ops.sum(losses.ctc(np.array([[1, 0]]), x)))(logits)
    np.testing.assert_allclose(np.exp(-value), 6 / 27, rtol=1e-12)  # 100, 010, 001, 110, 011, 111
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(np.exp(-losses.ctc(np.zeros((1, 0), "int32"), logits)), [1 / 27], rtol=1e-12)


# ---- other edges --------------------------------------------------------------------------------------------------


def test_a_weight_per_sample_also_weights_many_values_per_sample() -> None:
    y_true, y_pred, weights = normal(N, N, K), normal(N, N, K), RNG.uniform(size=N)
    loss = losses.MeanSquaredError(reduction="sum")
    expected = np.sum(np.square(y_true - y_pred).mean(-1) * weights[:, None])
    np.testing.assert_allclose(loss(y_true, y_pred, weights), expected, rtol=1e-13)


def test_labels_that_are_no_class_give_nan() -> None:
    labels = np.array([0, K, -1])
    for from_logits, y_pred in ((True, normal(3, K)), (False, probabilities(3, K))):
        values = losses.sparse_categorical_crossentropy(labels, y_pred, from_logits)
        np.testing.assert_array_equal(np.isnan(values), [False, True, True])


def test_an_empty_batch_costs_nothing() -> None:
    assert float(losses.MeanSquaredError()(np.zeros((0, K)), np.zeros((0, K)))) == 0.0


@pytest.mark.parametrize(
    ("y_pred", "floats", "dtype", "expected"),
    [
        ("float32", "float32", None, "float32"),
        ("float64", "float32", None, "float64"),
        ("float16", "float32", None, "float32"),
        ("float32", "float64", None, "float64"),
        ("int32", "float32", None, "float32"),
        ("float32", "float32", "float64", "float64"),
    ],
)
def test_dtype_of_the_computation(y_pred: str, floats: str, dtype: str | None, expected: str) -> None:
    with dtype_scope(floats):
        found = losses.MeanSquaredError(dtype=dtype)(np.zeros((2, 2)), np.ones((2, 2), y_pred))
    assert found.dtype == expected


# ---- names, functions, configs --------------------------------------------------------------------------------------


@cases
def test_config_round_trip(case: Case) -> None:
    loss = case.ours(reduction="sum", name="mine")
    for again in (type(loss).from_config(loss.get_config()), resolve(Loss.registry, serialize(loss))):
        assert again.get_config() == loss.get_config()
        np.testing.assert_array_equal(again(case.y_true, case.y_pred), loss(case.y_true, case.y_pred))


@pytest.mark.parametrize("cls", CLASSES)
def test_arguments_and_defaults_are_those_of_keras(cls: type[Loss]) -> None:
    theirs = inspect.signature(getattr(keras.losses, cls.__name__, SumSquaredErrorInKeras)).parameters
    ours = inspect.signature(cls).parameters
    assert ours.keys() == theirs.keys()
    assert {n: p.default for n, p in ours.items() if n != "name"} == {
        n: p.default for n, p in theirs.items() if n != "name"
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_every_name_of_a_class(cls: type[Loss]) -> None:
    name, function = snake_case(cls.__name__), getattr(losses, snake_case(cls.__name__))
    for identifier in (cls, cls.__name__, name, function, {cls.__name__: {}}, {"class_name": name, "config": None}):
        found = losses.get(identifier)
        assert type(found) is cls
        assert found.name == name
        assert repr(found) == f"{cls.__name__}()"


@pytest.mark.parametrize(
    ("alias", "cls"),
    [
        ("mse", losses.MeanSquaredError),
        ("MSE", losses.MeanSquaredError),
        ("mae", losses.MeanAbsoluteError),
        ("bce", losses.BinaryCrossentropy),
        ("mape", losses.MeanAbsolutePercentageError),
        ("MSLE", losses.MeanSquaredLogarithmicError),
        ("kld", losses.KLDivergence),
    ],
)
def test_aliases(alias: str, cls: type[Loss]) -> None:
    assert type(losses.get(alias)) is cls


@pytest.mark.parametrize(
    ("true", "pred", "cls"),
    [
        ((N, 1), (N, 1), losses.BinaryCrossentropy),
        ((N,), (N, 1), losses.BinaryCrossentropy),
        ((N,), (N, K), losses.SparseCategoricalCrossentropy),
        ((N, 1), (N, K), losses.SparseCategoricalCrossentropy),
        ((N, K), (N, K), losses.CategoricalCrossentropy),
    ],
)
def test_crossentropy_is_chosen_by_shape(true: tuple[int, ...], pred: tuple[int, ...], cls: type[Loss]) -> None:
    for name in ("crossentropy", "ce"):
        assert type(losses.get(name, np.zeros(true), np.zeros(pred))) is cls
    with pytest.raises(UnilayersError, match="'ce' depends on the shapes of labels and predictions"):
        losses.get("ce")


def per_sample(y_true: Any, y_pred: Any) -> Any:
    return ops.sum((y_pred - y_true) ** 4, axis=-1)


class FourthPower(Loss):
    """A loss written the Keras way."""

    def __init__(self, factor: float = 1.0, name: str = "fourth", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.factor = factor

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.factor * per_sample(y_true, y_pred)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [lambda: losses.get(per_sample), FourthPower], ids=["function", "class"])
def test_a_loss_of_ones_own(backend: str, make: Callable[[], Loss]) -> None:
    engine, y_true, y_pred = require_backend(backend), numbers(N, K), normal(N, K)
    [there] = engine.put([y_pred], engine.device("cpu"))
    loss = make()
    expected = np.square(np.square(y_pred - y_true)).sum(-1)
    found = loss(y_true, there, np.arange(N))
    np.testing.assert_allclose(engine.get(found), np.mean(expected * np.arange(N)), rtol=1e-12)
    np.testing.assert_allclose(Step(loss, (y_true, y_pred), backend)(y_true, y_pred), expected.mean(), rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_on_the_left_of_an_operator_keep_the_gradient(backend: str) -> None:
    """An engine's own tensor comes first in ``y_true * ...``; it must leave the operation to the recorded value."""
    engine, labels, p = require_backend(backend), one_hot(N), probabilities(N, K)
    loss = losses.get(lambda y_true, y_pred: ops.negative(ops.sum(y_true * ops.log(y_pred), axis=-1)))
    [there] = engine.put([p], engine.device("cpu"))
    _, grad = value_and_grad(lambda y_pred: loss(labels, y_pred))(there)
    assert_close(engine.get(grad), -labels / p / N, rtol=1e-14, atol=0, what="gradient")


def test_names_of_functions_and_configs_of_ones_own() -> None:
    assert losses.get(per_sample).name == "per_sample"
    assert FourthPower(2.0, reduction="sum").get_config() == {"factor": 2.0, "name": "fourth", "reduction": "sum"}
    assert losses.get(None) is None


# ---- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "true", "pred", "weights", "message"),
    [
        (
            losses.MeanSquaredError(), (N, 3), (N, 4), None,
            "MeanSquaredError(): y_true and y_pred do not fit. Expected equal shapes (batch, ...). "
            "Received (6, 3) and (6, 4).",
        ),
        (
            losses.CategoricalCrossentropy(from_logits=True), (N, 1), (N, 4), None,
            "CategoricalCrossentropy(from_logits=True): y_true and y_pred do not fit. Expected equal shapes "
            "(batch, ...). Received (6, 1) and (6, 4). For labels that are class numbers use "
            "SparseCategoricalCrossentropy.",
        ),
        (
            losses.SparseCategoricalCrossentropy(), (N, 4), (N, 4), None,
            "SparseCategoricalCrossentropy(): y_true does not fit y_pred. Expected class numbers of shape (6,). "
            "Received y_true of shape (6, 4), y_pred of shape (6, 4). Use the categorical variant, without Sparse, for "
            "one-hot labels.",
        ),
        (
            losses.SparseCategoricalCrossentropy(), (N,), (N, 1), None,
            "SparseCategoricalCrossentropy(): one class only, whose probability is always 1. Expected at least two "
            "classes. Received y_pred of shape (6, 1). Use BinaryCrossentropy for one output per sample.",
        ),
        (
            losses.MeanSquaredError(), (N, 4), (N, 4), (5,),
            "MeanSquaredError(): sample_weight does not fit. Expected a shape that stretches to (6,), the values per "
            "sample. Received (5,).",
        ),
        (
            losses.Circle(), (N,), (N, 3, 2), None,
            "Circle(): not embeddings. Expected shape (batch, features). Received (6, 3, 2).",
        ),
        (
            losses.CTC(), (N, 3), (N, 4), None,
            "CTC() > ops.ctc_loss: labels and logits do not fit. Expected labels (batch, labels) and logits (batch, "
            "frames, classes). Received (6, 3) and (6, 4).",
        ),
        (
            losses.MeanSquaredError(), (), (), None,
            "MeanSquaredError(): y_true and y_pred do not fit. Expected equal shapes (batch, ...). Received () and ().",
        ),
    ],
)  # fmt: skip
def test_shape_errors(loss: Loss, true: Any, pred: Any, weights: Any, message: str) -> None:
    with pytest.raises(ShapeError) as error:
        loss(np.zeros(true), np.ones(pred), None if weights is None else np.ones(weights))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("mean_square_error", "unknown loss 'mean_square_error'. Did you mean 'MeanSquaredError'?"),
        (
            {"Huber": {"delta": 0}},
            "Huber.delta: a value that does not fit. Expected a number greater than 0. Received 0",
        ),
        (
            {"CategoricalGeneralizedCrossEntropy": {"q": 1}},
            "CategoricalGeneralizedCrossEntropy.q: a value that does not fit. Expected a number greater than 0 and "
            "less than 1. Received 1",
        ),
        (
            {"MeanSquaredError": {"reduction": "avg"}},
            "MeanSquaredError.reduction: a value that does not fit. Expected 'sum_over_batch_size' or 'mean' or 'sum'",
        ),
    ],
)
def test_errors_of_names_and_arguments(identifier: Any, message: str) -> None:
    with pytest.raises(UnilayersError) as error:
        losses.get(identifier)
    assert str(error.value).startswith(message)
