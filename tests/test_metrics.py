"""Metrics against Keras 3 over several batches, with every kind of weights; traced into programs on every backend."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from tests.traced import Step
from unilayers import losses, metrics, ops
from unilayers.config import dtype_scope
from unilayers.errors import ShapeError, UnilayersError
from unilayers.metrics import Metric
from unilayers.ops.define import with_mask
from unilayers.recipe import load_recipe
from unilayers.registry import parameters, resolve, serialize, snake_case

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

CLASSES = [cls for cls in Metric.registry if cls.__module__.startswith(metrics.__name__)]
RNG = np.random.default_rng(8)
K, T = 6, 3
Batch = tuple[np.ndarray, ...]
Draw = Callable[..., np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def uniform(*shape: int) -> np.ndarray:
    return RNG.uniform(0.05, 0.95, shape)


def bits(*shape: int) -> np.ndarray:
    return RNG.integers(0, 2, shape)


def numbers(*shape: int) -> np.ndarray:
    return RNG.integers(0, K, shape).astype("int32")


def one_hot(*shape: int) -> np.ndarray:
    return np.eye(K)[numbers(*shape[:-1])]


@dataclass(frozen=True)
class Case:
    """A metric with arguments, and how its arguments are drawn, ``draw(batch, *shape)``."""

    cls: type[Metric]
    draws: tuple[tuple[Draw, tuple[int, ...]], ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    weighted: tuple[tuple[int, ...], ...] | None = None  # shapes of a sample's weights; those of all metrics if None

    def ours(self, **more: Any) -> Metric:
        return self.cls(**self.kwargs, **more)

    def keras(self) -> Any:
        return getattr(keras.metrics, self.cls.__name__)(**self.kwargs, dtype="float64")

    def batches(self) -> list[Batch]:
        return [tuple(draw(n, *shape) for draw, shape in self.draws) for n in (5, 2, 8)]

    def weights(self) -> list[Draw]:
        """Weights per sample; the same with a last axis; per position where there are several."""
        rank = max(len(shape) for _, shape in self.draws)
        shapes = self.weighted or ([(), (1,)] if rank < 2 else [(), (T,)])
        return [lambda n, s=s: RNG.uniform(0, 2, (n, *s)) for s in shapes]

    def __str__(self) -> str:
        settings = ",".join(f"{k}={v}" for k, v in self.kwargs.items())
        return f"{self.cls.__name__}({settings}){[shape for _, shape in self.draws]}".replace(" ", "")


def pair(
    cls: type[Metric], true: Draw, pred: Draw, *shapes: tuple[int, ...], weighted: Any = None, **kwargs: Any
) -> Case:
    return Case(cls, ((true, shapes[0]), (pred, shapes[-1])), kwargs, weighted)


def tenths(*shape: int) -> np.ndarray:
    """Predictions that hit thresholds exactly, and leave 0 to 1."""
    return RNG.integers(-1, 12, shape) / 10


def rows(*shape: int) -> np.ndarray:
    """A prediction for each class, with ties."""
    return RNG.integers(0, 4, shape) / 4


def sorted_ids(*shape: int) -> np.ndarray:
    return RNG.permuted(np.broadcast_to(np.arange(K), shape), axis=-1).astype("int32")


def beyond(*shape: int) -> np.ndarray:
    """Class numbers, and numbers that are none."""
    return RNG.integers(-2, 6, shape).astype("int32")


COUNTS = [metrics.TruePositives, metrics.TrueNegatives, metrics.FalsePositives, metrics.FalseNegatives]
SHARES = [metrics.Precision, metrics.Recall]
BEST = {
    metrics.SensitivityAtSpecificity: "specificity",
    metrics.SpecificityAtSensitivity: "sensitivity",
    metrics.PrecisionAtRecall: "recall",
    metrics.RecallAtPrecision: "precision",
}
PER_SAMPLE = ((),)


CASES = [
    *(Case(cls, ((normal, s),)) for cls in (metrics.Mean, metrics.Sum) for s in ((), (1,), (T,), (T, 2))),
    *(
        pair(cls, normal, normal, *shapes)
        for cls in (metrics.MeanSquaredError, metrics.MeanAbsoluteError, metrics.RootMeanSquaredError)
        for shapes in (((4,),), ((T, 4),), ((1,),))
    ),
    pair(metrics.RootMeanSquaredError, normal, normal, (), (1,)),
    *(pair(metrics.Accuracy, bits, bits, *shapes) for shapes in (((),), ((1,),), ((T,),), ((), (1,)))),
    *(pair(metrics.BinaryAccuracy, bits, uniform, *shapes) for shapes in (((1,),), ((T,),), ((), (1,)))),
    pair(metrics.BinaryAccuracy, bits, uniform, (1,), threshold=0.3),
    *(pair(metrics.CategoricalAccuracy, one_hot, normal, s) for s in ((K,), (T, K))),
    *(pair(metrics.SparseCategoricalAccuracy, numbers, normal, *s) for s in (((), (K,)), ((1,), (K,)), ((T,), (T, K)))),
    *(pair(metrics.TopKCategoricalAccuracy, one_hot, normal, s, k=k) for s in ((K,), (T, K)) for k in (1, 3)),
    *(
        pair(metrics.SparseTopKCategoricalAccuracy, numbers, normal, *s, k=k)
        for s in (((), (K,)), ((T,), (T, K)))
        for k in (2, 5)
    ),
    *(
        pair(metrics.BinaryCrossentropy, bits, pred, (4,), from_logits=logits, label_smoothing=smoothing)
        for logits, pred in ((False, uniform), (True, normal))
        for smoothing in (0.0, 0.2)
    ),
    *(
        pair(metrics.CategoricalCrossentropy, one_hot, pred, s, from_logits=logits, label_smoothing=smoothing)
        for s in ((K,), (T, K))
        for logits, pred in ((False, uniform), (True, normal))
        for smoothing in (0.0, 0.2)
    ),
    *(
        pair(metrics.SparseCategoricalCrossentropy, numbers, pred, *s, from_logits=logits)
        for s in (((), (K,)), ((T,), (T, K)))
        for logits, pred in ((False, uniform), (True, normal))
    ),
    pair(metrics.SparseCategoricalCrossentropy, numbers, normal, (T,), (K, T), from_logits=True, axis=1),
    pair(
        metrics.SparseTopKCategoricalAccuracy, numbers, sorted_ids, (), (K,), k=2, from_sorted_ids=True,
        weighted=PER_SAMPLE,
    ),
    *(
        pair(cls, true, uniform, s)
        for cls, true in (
            (metrics.MeanAbsolutePercentageError, normal),
            (metrics.MeanSquaredLogarithmicError, uniform),
            (metrics.LogCoshError, normal),
            (metrics.CosineSimilarity, normal),
            (metrics.Hinge, bits),
            (metrics.SquaredHinge, bits),
            (metrics.CategoricalHinge, one_hot),
            (metrics.KLDivergence, uniform),
            (metrics.Poisson, uniform),
        )
        for s in ((K,), (T, K))
    ),
    *(
        pair(cls, normal, normal, (T, K), axis=axis, weighted=PER_SAMPLE)
        for cls in (metrics.CosineSimilarity, metrics.PearsonCorrelation, metrics.ConcordanceCorrelation)
        for axis in (1, -1)
    ),
    *(
        pair(cls, bits, tenths, shape, thresholds=thresholds, weighted=((), shape))
        for cls in (*COUNTS, *SHARES)
        for shape in ((), (4,))
        for thresholds in (None, 0.3, [0.8, 0.2, 0.5], [0.0, 0.25, 0.5, 0.75, 1.0])
    ),
    *(pair(cls, bits, uniform, (1,)) for cls in (*COUNTS, *SHARES)),
    *(
        pair(cls, bits, uniform, (K,), weighted=PER_SAMPLE, **kwargs)
        for cls in SHARES
        for kwargs in ({"top_k": 2}, {"class_id": 1}, {"top_k": 3, "class_id": 4, "thresholds": 0.6}, {"top_k": 9 - K})
    ),
    pair(metrics.Recall, bits, uniform, (T, K), top_k=2, class_id=3, weighted=((T,),)),
    *(
        pair(cls, bits, pred, shape, weighted=((), shape), **{at: value}, num_thresholds=number)
        for cls, at in BEST.items()
        for value, number, shape, pred in (
            (0.5, 200, (), uniform), (0.7, 11, (4,), tenths), (0.3, 1, (), uniform), (0.0, 2, (), tenths)
        )
    ),
    *(pair(cls, bits, uniform, (K,), weighted=PER_SAMPLE, **{at: 0.4}, class_id=2) for cls, at in BEST.items()),
    *(
        pair(metrics.AUC, bits, pred, shape, weighted=((), shape), curve=curve, summation_method=method, **kwargs)
        for curve in ("ROC", "PR", "PRGAIN")
        for method in ("interpolation", "minoring", "majoring")
        for pred, shape, kwargs in (
            (uniform, (), {}),
            (tenths, (1,), {"num_thresholds": 11}),
            (tenths, (4,), {"thresholds": [0.9, 0.1, 0.35]}),
            (tenths, (4,), {"num_thresholds": 6, "multi_label": True}),
        )
    ),
    pair(metrics.AUC, bits, tenths, (4,), thresholds=[0.25, 0.5, 0.75], label_weights=[1.0, 0.0, 2.0, 0.5]),
    pair(metrics.AUC, bits, normal, (4,), from_logits=True, curve="pr", num_thresholds=9),
    *(
        pair(
            metrics.AUC, bits, uniform, (3,), curve=curve, thresholds=thresholds,
            multi_label=True, num_labels=3, label_weights=[1.0, 0.0, 2.0],
        )
        for curve in ("ROC", "PR")
        for thresholds in (None, [0.4, 0.5, 0.95])
    ),
    *(
        pair(cls, bits, pred, (K,), average=average, threshold=threshold, weighted=PER_SAMPLE, **kwargs)
        for cls, kwargs in ((metrics.F1Score, {}), (metrics.FBetaScore, {"beta": 0.5}))
        for average in (None, "micro", "macro", "weighted")
        for pred, threshold in ((rows, None), (uniform, 0.4), (tenths, 1.0))
    ),
    *(
        pair(cls, bits, uniform, shape, **kwargs, weighted=(shape,))
        for cls, kwargs in ((metrics.BinaryIoU, {}), (metrics.BinaryIoU, {"target_class_ids": [1], "threshold": 0.3}))
        for shape in ((), (T,))
    ),
    *(
        pair(cls, numbers, numbers, shape, num_classes=K, weighted=(shape,), **kwargs)
        for cls, kwargs in (
            (metrics.IoU, {"target_class_ids": [0, 2]}),
            (metrics.IoU, {"target_class_ids": [1], "ignore_class": 2}),
            (metrics.MeanIoU, {}),
            (metrics.MeanIoU, {"ignore_class": 0}),
        )
        for shape in ((), (T,), (T, 2))
    ),
    pair(metrics.BinaryIoU, bits, rows, (), weighted=PER_SAMPLE),  # hits the threshold
    pair(metrics.MeanIoU, beyond, beyond, (), num_classes=4, weighted=PER_SAMPLE),
    pair(
        metrics.IoU, numbers, normal, (T,), (T, K), num_classes=K, target_class_ids=[1, 5], sparse_y_pred=False,
        weighted=((T,),),
    ),
    *(
        pair(cls, one_hot, pred, (T, K), shape, num_classes=K, sparse_y_pred=sparse, weighted=((T,),), **kwargs)
        for cls, kwargs in ((metrics.OneHotIoU, {"target_class_ids": [0, 3]}), (metrics.OneHotMeanIoU, {}))
        for pred, shape, sparse in ((normal, (T, K), False), (numbers, (T,), True))
    ),
    *(
        pair(cls, normal, normal, (4,), (4,), **kwargs)
        for cls in (metrics.PearsonCorrelation, metrics.ConcordanceCorrelation)
        for kwargs in ({}, {"axis": -1})
    ),
    *(
        pair(metrics.R2Score, normal, normal, (3,), class_aggregation=how, num_regressors=p, weighted=((), (1,), (3,)))
        for how in ("uniform_average", "variance_weighted_average", None)
        for p in (0, 2)
    ),
]  # fmt: skip
cases = pytest.mark.parametrize("case", CASES, ids=str)
# One of each form, the first. What a class does depends on which arguments are given, unless it only hands them on.
ONE_FORM = (*COUNTS, *BEST, metrics.Mean, metrics.Sum)
FORMS = {(c.cls, *(() if issubclass(c.cls, ONE_FORM) else c.kwargs)): c for c in reversed(CASES)}
DISTINCT = list(FORMS.values())[::-1]


def result(metric: Any) -> np.ndarray:
    return np.asarray(metric.result(), "float64")


def torch_like(batch: Batch) -> Batch:
    """Labels as Keras wants them: with as many axes as predictions of one value."""
    return tuple(x[:, None] if x.ndim == 1 and batch[-1].shape[1:] == (1,) else x for x in batch)


@pytest.mark.parametrize("cls", [c for c in CLASSES if c is not metrics.MeanMetricWrapper])
def test_every_class_has_a_case(cls: type[Metric]) -> None:
    assert any(case.cls is cls for case in CASES)


@cases
def test_results_equal_keras(case: Case) -> None:
    for draw in (None, *case.weights()):
        ours, theirs = case.ours(dtype="float64"), case.keras()
        for batch in case.batches():
            weights = None if draw is None else draw(len(batch[0]))
            ours.update_state(*batch, sample_weight=weights)
            theirs.update_state(*torch_like(batch), sample_weight=weights)
            expected = np.asarray(theirs.result(), "float64")
            what = f"weights {np.shape(weights)}"
            # Keras counts in float32, whatever the dtype; what it subtracts may leave a rounding error.
            assert_close(result(ours), expected, rtol=2e-6, atol=1e-6, what=what)


@cases
def test_an_unused_metric_and_one_that_was_reset_are_zero(case: Case) -> None:
    metric = case.ours()
    assert not np.any(metric.result())
    first, second, _ = case.batches()
    metric.update_state(*first)
    metric.reset_state()
    assert not any(np.any(v.numpy()) for v in metric.variables)
    if case.cls is not metrics.R2Score:  # without data there is no variance
        assert not np.any(metric.result())
    fresh = case.ours()
    assert_close(metric(*second), fresh(*second), rtol=0, atol=0, what="after a reset")


@pytest.mark.parametrize("backend", BACKENDS)
def test_traced_equals_eager_on_every_backend(backend: str) -> None:
    """All forms of metrics in one program."""
    eager, traced = ([case.ours() for case in DISTINCT] for _ in range(2))
    batches = [[_batch(case, n) for case in DISTINCT] for n in (6, 6, 6)]

    def together(*flat: Any) -> dict[str, Any]:
        given = iter(flat)
        found = {}
        for i, (metric, case) in enumerate(zip(traced, DISTINCT, strict=True)):
            *batch, weights = (next(given) for _ in range(len(case.draws) + 1))
            found[str(i)] = metric(*batch, sample_weight=weights)
        return found

    step = Step(together, _flat(batches[0]), backend)
    assert set(step.program.variables) == {v for metric in traced for v in metric.variables}

    def check(batch: list[list[np.ndarray]], what: str) -> None:
        found = step(*_flat(batch))
        for i, (metric, case) in enumerate(zip(eager, DISTINCT, strict=True)):
            expected = np.asarray(metric(*batch[i][:-1], sample_weight=batch[i][-1]))
            assert_close(found[str(i)], expected, rtol=3e-6, atol=2e-6, what=f"{case} {what}")  # a sum may cancel
            assert found[str(i)].dtype == "float32"

    for number, batch in enumerate(batches):
        check(batch, f"batch {number}")
    for ours, theirs, case in list(zip(traced, eager, DISTINCT, strict=True))[::12]:
        read, expected = step.engine.get(ours.result()), np.asarray(theirs.result())
        assert_close(read, expected, rtol=3e-6, atol=2e-6, what=f"{case} read after the program ran")
    for metric in (*traced, *eager):
        metric.reset_state()
    check(batches[0], "after a reset")


def _flat(batch: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [x for part in batch for x in part]


def _batch(case: Case, size: int) -> list[np.ndarray]:
    """Data and weights as a training step gets them."""
    weights = case.weights()[0](size)
    if "IoU" in case.cls.__name__:  # which counts in whole numbers
        weights = RNG.integers(0, 3, weights.shape)
    arrays = [*(draw(size, *shape) for draw, shape in case.draws), weights]
    return [x.astype({"float64": "float32", "int64": "int32"}.get(x.dtype.name, x.dtype)) for x in arrays]


@pytest.mark.parametrize("backend", BACKENDS)
def test_eagerly_on_arrays_of_any_backend(backend: str) -> None:
    engine = require_backend(backend)
    for case in DISTINCT[::20]:
        *batch, weights = _batch(case, 5)
        *there, predictions = engine.put(batch, engine.device("cpu"))
        expected = np.asarray(case.ours()(*batch, sample_weight=weights))
        for mixed in (there, batch[:-1]):  # labels may be elsewhere
            found = case.ours()(*mixed, predictions, sample_weight=weights)
            assert_close(ops.to_numpy(found), expected, rtol=3e-6, atol=2e-6, what=str(case))


# ---- definitions of our own ---------------------------------------------------------------------------------------


def test_ignored_classes_do_not_count() -> None:
    """Keras counts them as zeros unless there are weights; we take the mean that the loss takes."""
    y_true, y_pred = numbers(20), normal(20, K)
    metric = metrics.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2, dtype="float64")
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2)
    assert_close(metric(y_true, y_pred), loss(y_true, y_pred), rtol=1e-13, atol=0, what="unweighted")
    metric.reset_state()
    weights = RNG.uniform(size=20)
    theirs = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2, dtype="float64")
    expected = np.asarray(theirs(y_true, y_pred, weights), "float64")
    assert_close(result_of(metric, y_true, y_pred, weights), expected, rtol=1e-6, atol=0, what="weighted")


def result_of(metric: Metric, *args: Any) -> np.ndarray:
    metric.update_state(*args)
    return result(metric)


def test_ties_and_nan_in_top_k() -> None:
    y_pred = np.array([[0.3, 0.3, 0.3, 0.1], [0.3, 0.3, 0.3, 0.1], [np.nan, 0.5, 0.2, 0.1], [np.nan, 0.5, 0.2, 0.1]])
    hits = metrics.sparse_top_k_categorical_accuracy(np.array([2, 3, 0, 1]), y_pred, k=1)
    np.testing.assert_array_equal(hits, [1, 0, 0, 1])


def test_one_value_per_sample_needs_no_last_axis() -> None:
    y_true, y_pred = normal(9), normal(9, 1)
    for name in ("mse", "mae", "rmse"):
        expected = metrics.get(name)(y_true[:, None], y_pred)
        np.testing.assert_array_equal(metrics.get(name)(y_true, y_pred), expected)


def test_counts_are_exact_up_to_the_precision_of_the_dtype() -> None:
    for dtype, limit in (("float32", 2**24), ("float64", 2**53)):
        metric = metrics.Mean(dtype=dtype)
        for weight in (limit // 2, limit // 2 - 1, 1):
            metric.update_state(1.0, sample_weight=weight)
        assert float(metric.count) == limit == float(metric.total)


def test_a_scalar_with_the_batch_size_as_weight() -> None:
    mean = metrics.Mean()
    mean.update_state(2.0, sample_weight=64)
    mean.update_state(np.float32(5.0), sample_weight=np.array(32))
    assert float(mean.result()) == 3.0


# ---- names, functions, configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("true", "pred", "kind"),
    [
        ((8, 1), (8, 1), "Binary"),
        ((8,), (8, 1), "Binary"),
        ((8,), (8,), "Binary"),
        ((8,), (8, 4), "SparseCategorical"),
        ((8, 1), (8, 4), "SparseCategorical"),
        ((8, T), (8, T, 4), "SparseCategorical"),
        ((8, 4), (8, 4), "Categorical"),
    ],
)
def test_names_that_fit_the_shapes(true: tuple[int, ...], pred: tuple[int, ...], kind: str) -> None:
    endings = {"accuracy": "Accuracy", "acc": "Accuracy", "crossentropy": "Crossentropy", "ce": "Crossentropy"}
    for name, ending in endings.items():
        metric = metrics.get(name, y_true=np.zeros(true), y_pred=np.zeros(pred))
        assert (type(metric).__name__, metric.name) == (kind + ending, name)
        assert metric.variables[0].path == f"metrics/{name}/total"
    if len(pred) > 1:
        theirs = keras.src.trainers.compile_utils.get_metric("acc", np.zeros(true), np.zeros(pred))
        assert (type(theirs).__name__, theirs.name) == (f"{kind}Accuracy", "acc")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_name_of_a_class(cls: type[Metric]) -> None:
    if cls in (metrics.Accuracy, metrics.MeanMetricWrapper):
        return
    required = {n: p.default for n, p in parameters(cls).items() if p.default is p.empty}
    kwargs = {n: next(c for c in CASES if c.cls is cls).kwargs[n] for n in required}
    usual = parameters(cls)["name"].default or snake_case(cls.__name__)
    for identifier in (cls.__name__, snake_case(cls.__name__)) if not required else ():
        metric = metrics.get(identifier)
        assert type(metric) is cls
        assert metric.name == identifier
    others: list[Any] = [{cls.__name__: kwargs}, {"class_name": cls.__name__, "config": kwargs}]
    for other in others if required else [cls, *others]:
        metric = metrics.get(other)
        assert (type(metric), metric.name) == (cls, usual)
        assert repr(metric) == f"{cls.__name__}({', '.join(f'{n}={v!r}' for n, v in kwargs.items())})"


@pytest.mark.parametrize("cls", CLASSES)
def test_arguments_and_defaults_are_those_of_keras(cls: type[Metric]) -> None:
    theirs, ours = (inspect.signature(c).parameters for c in (getattr(keras.metrics, cls.__name__), cls))
    assert ours.keys() == theirs.keys()
    assert {n: p.default for n, p in ours.items() if n != "name"} == {
        n: p.default for n, p in theirs.items() if n != "name"
    }
    first = [n for n in ours if n not in ("name", "dtype")]  # in Keras's order, by position, too
    assert first == [n for n in theirs if n not in ("name", "dtype")]


def test_every_metric_and_function_of_keras_is_here() -> None:
    theirs = {n for n in dir(keras.metrics) if not n.startswith("_")}
    assert theirs - set(dir(metrics)) == set()


@cases
def test_config_round_trip(case: Case) -> None:
    metric = case.ours(name="mine", dtype="float64")
    batch = case.batches()[0]
    for again in (type(metric).from_config(metric.get_config()), resolve(Metric.registry, serialize(metric))):
        assert again.get_config() == metric.get_config()
        assert again.name == "mine"
        assert_close(again(*batch), case.ours(dtype="float64")(*batch), rtol=0, atol=0, what="result")


def largest_error(y_true: Any, y_pred: Any, power: int = 1) -> Any:
    return ops.max(ops.abs(y_pred - y_true) ** power, axis=-1)


def test_functions_as_metrics() -> None:
    y_true, y_pred = normal(5, K), normal(5, K)
    expected = np.abs(y_pred - y_true).max(-1)
    metric = metrics.get(largest_error)
    assert metric.name == "largest_error"
    np.testing.assert_allclose(metric(y_true, y_pred), expected.mean(), 1e-6)
    metric = metrics.MeanMetricWrapper(largest_error, "fourth", power=4)
    assert metric.name == "fourth"
    assert repr(metric) == f"MeanMetricWrapper(fn={largest_error!r}, name='fourth', power=4)"
    mean = np.average(expected**4, weights=np.arange(5))
    np.testing.assert_allclose(metric(y_true, y_pred, np.arange(5)), mean, 1e-6)
    as_loss = metrics.get(losses.MeanSquaredError())
    assert as_loss.name == "mean_squared_error"
    np.testing.assert_allclose(as_loss(y_true, y_pred), np.square(y_true - y_pred).mean(), 1e-6)


class Ratio(Metric):
    """A metric written the Keras way, with other metrics inside."""

    def __init__(self, name: str = "ratio", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.above, self.below = metrics.Mean("above"), metrics.Mean("below")
        self.seen = self.add_weight(shape=(2,), initializer="ones", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.above.update_state(y_pred, sample_weight)
        self.below.update_state(y_true, sample_weight)
        self.seen.assign_add(ops.ones((2,)))

    def result(self) -> Any:
        return ops.divide(self.above.result(), self.below.result())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_metric_of_ones_own(backend: str) -> None:
    y_true, y_pred = uniform(7), uniform(7)
    metric = Ratio()
    paths = ["metrics/ratio/seen", *(f"metrics/{n}/{v}" for n in ("above", "below") for v in ("total", "count"))]
    assert [v.path for v in metric.variables] == paths
    np.testing.assert_allclose(metric(y_true, y_pred), y_pred.mean() / y_true.mean(), 1e-6)
    np.testing.assert_array_equal(metric.seen.numpy(), [2, 2])
    metric.reset_state()
    found = Step(metric, (y_true, y_pred), backend)(y_true, y_pred)
    np.testing.assert_allclose(found, y_pred.mean() / y_true.mean(), 1e-6)


def test_names_come_first_where_keras_has_them_first() -> None:
    assert metrics.Mean("train_loss").name == "train_loss"
    assert metrics.SparseCategoricalAccuracy("accuracy").name == "accuracy"
    assert metrics.TopKCategoricalAccuracy(3).k == 3
    assert "name" in parameters(metrics.TopKCategoricalAccuracy)
    assert metrics.get(None) is None


# ---- in training ----------------------------------------------------------------------------------------------------


class KerasStyle(Metric):
    """Written as in Keras's guide; its variable is created at the first data."""

    def __init__(self, name: str = "largest", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._built = False

    def _build(self, shape: Any) -> None:
        self.largest = self.add_weight(shape=(shape[-1],), initializer="zeros", name="largest")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = ops.astype(y_pred, self.dtype)
        if not self._built:
            self._build(y_pred.shape)
        self.largest.assign(ops.maximum(self.largest, ops.max(y_pred, axis=0)))

    def result(self) -> Any:
        return self.largest

    def reset_state(self) -> None:
        if self._built:
            self.largest.assign(ops.zeros(self.largest.shape))


def told(m: Any) -> dict[str, list[Any]]:
    """What is told compile; the first two have the same name."""
    plain = [m.AUC(num_thresholds=9, name="auc"), m.AUC(num_thresholds=9, curve="PR", name="auc"), m.F1Score()]
    plain += [m.Precision(thresholds=[0.2, 0.6], name="precision"), "accuracy"]
    return {"metrics": plain, "weighted_metrics": [m.CategoricalAccuracy(name="accuracy"), m.R2Score()]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_logs_of_fit_equal_keras(backend: str) -> None:
    """With a learning rate of 0, so that all see the same predictions."""
    require_backend(backend)
    x, kernel, weights = normal(24, 4).astype("float32"), normal(4, 3).astype("float32"), uniform(24)
    y = np.eye(3, dtype="float32")[RNG.integers(0, 3, 24)]
    theirs = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax", use_bias=False)])
    theirs.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy", **told(keras.metrics))
    ours = ul.Sequential([ul.layers.Input((4,)), ul.layers.Dense(3, "softmax", use_bias=False)])
    ours.compile(ul.optimizers.SGD(0.0), "categorical_crossentropy", **told(metrics))
    for model in (ours, theirs):
        model.set_weights([kernel])
    fit = {"batch_size": 8, "epochs": 1, "sample_weight": weights, "validation_data": (x[:16], y[:16])}
    expected = theirs.fit(x, y, **fit, verbose=0).history
    found = ours.fit(x, y, **fit, verbose=2, backend=backend).history
    assert found.keys() == expected.keys()
    assert {"auc", "auc_1", "weighted_accuracy", "val_f1_score"} <= found.keys()
    for name, values in expected.items():
        for mine, epoch in zip(found[name], values, strict=True):
            mine, epoch = np.asarray(mine, "float32"), np.asarray(epoch, "float32")
            assert_close(mine, epoch, rtol=1e-5, atol=1e-6, what=name)


SEVERAL = """
seed: 3
data: {dataset: blobs, n: 60, features: 4, classes: 2}
model: [{Input: {shape: [4]}}, {Dense: {units: 1, activation: sigmoid}}]
loss: binary_crossentropy
optimizer: sgd
metrics: [{Precision: {thresholds: [0.2, 0.6]}}, AUC]
fit: {epochs: 1}
"""


def test_several_values_in_the_history_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "several.yaml").write_text(SEVERAL)
    run = load_recipe(tmp_path / "several.yaml").train(tmp_path / "run", verbose=0)
    line = json.loads((tmp_path / "run" / "history.jsonl").read_text())
    assert line["precision"] == run.history["precision"][0]
    assert len(line["precision"]) == 2
    assert line["AUC"] == run.history["AUC"][0]


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_metric_that_is_created_at_the_first_data(run_eagerly: bool, capsys: pytest.CaptureFixture[str]) -> None:
    x, metric = uniform(20, 3).astype("float32"), KerasStyle()
    model = ul.Sequential([ul.layers.Input((3,)), ul.layers.ReLU()])
    model.compile("sgd", "mse", metrics=[metric], run_eagerly=run_eagerly)
    found = model.fit(x, x, epochs=2, batch_size=8, verbose=1).history["largest"]
    for epoch in found:
        assert_close(epoch, x.max(0), rtol=0, atol=0, what="largest")
    assert f"largest: {x.max(0).mean():.4f}" in capsys.readouterr().out


def test_what_a_mask_leaves_out_does_not_count() -> None:
    y_pred, y_true, mask = normal(6, T, K), numbers(6, T), RNG.integers(0, 2, (6, T)).astype(bool)
    weights = uniform(6, T)

    def metric(y_true: Any, y_pred: Any, mask: Any, weights: Any) -> dict[str, Any]:
        y_pred = with_mask(y_pred, mask)
        plain, weighted = (metrics.SparseCategoricalAccuracy(name=n) for n in ("plain", "weighted"))
        return {"plain": plain(y_true, y_pred), "weighted": weighted(y_true, y_pred, weights)}

    found = Step(metric, (y_true, y_pred, mask, weights))(y_true, y_pred, mask, weights)
    hits = y_pred.argmax(-1) == y_true
    assert_close(found["plain"], np.float32(hits[mask].mean()), rtol=1e-6, atol=0, what="without weights")
    expected = np.float32(np.average(hits, weights=weights * mask))
    assert_close(found["weighted"], expected, rtol=1e-6, atol=0, what="with weights")


# ---- edges ----------------------------------------------------------------------------------------------------------

BINARY = [c for c in DISTINCT if c.cls in (*COUNTS, *SHARES, *BEST, metrics.AUC) and c.draws[-1][1] == ()]


@pytest.mark.parametrize("case", BINARY, ids=str)
def test_one_class_only_and_predictions_on_thresholds(case: Case) -> None:
    grid = (np.arange(41) / 40).astype("float32")  # hits many thresholds, as far as a float32 can
    for label in (np.zeros(41), np.ones(41), np.arange(41) % 2):
        ours, theirs = case.ours(), getattr(keras.metrics, case.cls.__name__)(**case.kwargs)
        ours.update_state(label, grid)
        theirs.update_state(label, grid)
        expected = np.asarray(theirs.result())
        assert_close(np.asarray(ours.result()), expected, rtol=1e-6, atol=1e-6, what=f"labels {label[:2]}")


@pytest.mark.parametrize("case", BINARY, ids=str)
def test_a_prediction_that_is_nan_exceeds_no_threshold(case: Case) -> None:
    labels, y_pred = np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.2, np.nan, np.nan, 0.1], "float32")
    at_zero = np.where(np.isnan(y_pred), -1.0, y_pred)  # below all
    assert_close(case.ours()(labels, y_pred), case.ours()(labels, at_zero), rtol=0, atol=0, what="NaN")


@pytest.mark.parametrize("case", DISTINCT, ids=str)
def test_a_batch_without_samples_changes_nothing(case: Case) -> None:
    metric = case.ours()
    expected = np.asarray(metric(*case.batches()[0]))
    metric.update_state(*(draw(0, *shape) for draw, shape in case.draws))
    assert_close(np.asarray(metric.result()), expected, rtol=0, atol=0, what="result")


def test_thresholds_need_not_be_sorted_and_single_ones_are_scalars() -> None:
    labels, y_pred = [0, 1, 1, 1], [0.9, 0.9, 0.2, 0.7]
    np.testing.assert_allclose(metrics.Recall(thresholds=[0.8, 0.1])(labels, y_pred), [1 / 3, 1])
    np.testing.assert_allclose(metrics.Recall(thresholds=[0.8])(labels, y_pred), 1 / 3)
    areas = [float(metrics.AUC(thresholds=t)(labels, y_pred)) for t in ([0.8, 0.1], np.array([0.1, 0.8]))]
    np.testing.assert_allclose(areas, 1 / 6, 1e-6)  # a triangle from (0, 0) to (1, 1/3)


@pytest.mark.filterwarnings("ignore:.*R2 score. Falling back:UserWarning")
def test_r2_where_it_is_not_defined() -> None:
    """A truth that does not vary counts as 0; the adjusted score needs more samples than inputs."""
    constant = np.array([[2.0, 1.0], [2.0, 3.0], [2.0, 7.0]])
    for kwargs, y_true in (({}, constant), ({"num_regressors": 5}, constant), ({"num_regressors": 9}, constant)):
        ours, theirs = metrics.R2Score(**kwargs), keras.metrics.R2Score(**kwargs)
        theirs.update_state(y_true, constant + 0.5)
        expected = np.asarray(theirs.result())
        assert_close(ours(y_true, constant + 0.5), expected, rtol=1e-6, atol=0, what=str(kwargs))


def test_what_depends_on_the_data_is_created_when_that_is_known() -> None:
    for metric in (metrics.F1Score(), metrics.R2Score(), metrics.AUC(multi_label=True)):
        before = len(metric.variables)
        assert len(metrics.get(metric, np.zeros((4, 3)), np.zeros((4, 3))).variables) > before
        count = len(metric.variables)
        metric.update_state(np.zeros((4, 3)), np.zeros((4, 3)))
        assert len(metric.variables) == count


def test_zeros_decide_nothing_in_f_scores() -> None:
    labels, y_pred = [[1, 0], [0, 1], [1, 0]], [[0.0, 0.0], [0.2, 0.2], [0.9, 0.1]]
    ours, theirs = metrics.F1Score(), keras.metrics.F1Score()
    theirs.update_state(labels, y_pred)
    expected = np.asarray(theirs.result(), "float32")
    assert_close(ours(labels, y_pred), expected, rtol=1e-6, atol=0, what="scores")
    np.testing.assert_allclose(expected, [0.5, 1.0], 1e-6)


def test_classes_on_another_axis() -> None:
    y_true, y_pred = one_hot(5, T, K), normal(5, T, K)
    expected = metrics.OneHotIoU(num_classes=K, target_class_ids=[1, 4])(y_true, y_pred)
    moved = [np.moveaxis(x, -1, 1) for x in (y_true, y_pred)]
    found = metrics.OneHotIoU(num_classes=K, target_class_ids=[1, 4], axis=1)(*moved)
    assert_close(found, expected, rtol=0, atol=0, what="overlap")


def test_sums_are_float32_at_least() -> None:
    for floatx, expected in (("float16", "float32"), ("float64", "float64")):
        with dtype_scope(floatx):
            metric = metrics.Mean()
        assert (metric.dtype, metric.total.dtype) == (expected, expected)
    assert metrics.Mean(dtype="float16").total.dtype == "float16"


def test_metrics_in_lists_and_dicts_are_part_of_a_metric() -> None:
    class Several(Metric):
        def __init__(self, name: str = "several") -> None:
            super().__init__(name=name)
            self.parts = [metrics.Sum("a"), {"b": metrics.Sum("b")}]

    assert [v.path for v in Several().variables] == ["metrics/a/total", "metrics/b/total"]


def test_lists_are_data() -> None:
    assert float(metrics.BinaryAccuracy()([[1], [1], [0], [0]], [[0.98], [1], [0], [0.6]])) == 0.75
    assert float(metrics.Accuracy()([1, 2, 3, 4], [0, 2, 3, 4], sample_weight=[1, 1, 0, 0])) == 0.5
    assert float(metrics.SparseTopKCategoricalAccuracy(k=1)([2, 1], [[0.1, 0.9, 0.8], [0.05, 0.95, 0]])) == 0.5


def test_float_weights_of_whole_counts_are_said() -> None:
    metric = metrics.MeanIoU(num_classes=2)
    with pytest.warns(UserWarning, match="weights are cut to whole numbers"):
        metric.update_state([0, 1], [0, 1], [0.5, 2.5])
    np.testing.assert_array_equal(metric.total_cm.numpy(), [[0, 0], [0, 2]])
    kept = metrics.MeanIoU(num_classes=2, dtype="float32")
    kept.update_state([0, 1], [0, 1], [0.5, 2.5])
    np.testing.assert_array_equal(kept.total_cm.numpy(), [[0.5, 0], [0, 2.5]])


def test_pixels_beyond_a_float32_are_counted() -> None:
    metric = metrics.MeanIoU(num_classes=2)
    metric.total_cm.assign(np.array([[2**24, 0], [0, 0]]))
    metric.update_state([0, 0, 0], [0, 0, 0])
    assert metric.total_cm.numpy()[0, 0] == 2**24 + 3


# ---- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "shapes", "message"),
    [
        (
            metrics.CategoricalAccuracy(), [(5,), (5, 4)],
            "CategoricalAccuracy(): y_true and y_pred do not fit. Expected equal shapes (batch, ...). "
            "Received (5,) and (5, 4).",
        ),
        (
            metrics.SparseCategoricalAccuracy(name="acc"), [(5, 4), (5, 4)],
            "SparseCategoricalAccuracy(name='acc'): y_true does not fit y_pred. Expected class numbers of shape (5,). "
            "Received y_true of shape (5, 4), y_pred of shape (5, 4). Use the categorical variant, without Sparse, for "
            "one-hot labels.",
        ),
        (
            metrics.MeanSquaredError(), [(5, 4), (5, 4), (3,)],
            "MeanSquaredError(): sample_weight does not fit. Expected a shape that stretches to (5,), the values per "
            "sample. Received (3,).",
        ),
        (
            metrics.F1Score(), [(5,), (5,)],
            "F1Score(): predictions of another shape. Expected y_pred of shape (batch, outputs). Received (5,).",
        ),
        (
            metrics.AUC(multi_label=True), [(5, 2, 2), (5, 2, 2)],
            "AUC(multi_label=True): predictions of another shape. Expected y_pred of shape (batch, outputs). "
            "Received (5, 2, 2).",
        ),
        (
            metrics.Precision(class_id=4), [(5, 4), (5, 4)],
            "Precision(class_id=4): axis out of range. Expected -4 to 3. Received 4.",
        ),
        (
            metrics.Recall(class_id=0), [(5,), (5,)],
            "Recall(class_id=0): class_id needs an axis of classes. Expected y_pred of shape (batch, ..., classes). "
            "Received (5,).",
        ),
    ],
)  # fmt: skip
def test_shape_errors(metric: Metric, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeError) as error:
        metric.update_state(*map(np.zeros, shapes))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("accuracy", "'accuracy' depends on the shapes of labels and predictions, which are not known here."),
        ("acurracy", "unknown metric 'acurracy'. Did you mean 'Accuracy'?"),
        (
            {"TopKCategoricalAccuracy": {"k": 0}},
            "TopKCategoricalAccuracy.k: a value that does not fit.",
        ),
        ({"Precision": {"thresholds": [0.5, 1.5]}}, "Precision.thresholds: a value that does not fit."),
        ({"AUC": {"num_labels": 3}}, "AUC: num_labels without multi_label. Pass multi_label=True."),
        ({"AUC": {"num_thresholds": 1}}, "AUC: too few thresholds. Expected num_thresholds at least 2. Received 1."),
        (
            {"IoU": {"num_classes": 3, "target_class_ids": [3]}},
            "IoU.target_class_ids: a class that is not there. Expected numbers from 0 to 2. Received [3].",
        ),
        ({"F1Score": {"average": "mean"}}, "F1Score.average: a value that does not fit."),
    ],
)
def test_errors_of_names_and_arguments(identifier: Any, message: str) -> None:
    with pytest.raises(UnilayersError) as error:
        metrics.get(identifier)
    assert str(error.value).startswith(message)
