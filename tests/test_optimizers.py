"""Optimizers against Keras 3 and PyTorch over 20 steps, with every kind of clipping; traced, and on every backend."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from tests.traced import Step
from unilayers import ops, optimizers
from unilayers.autodiff import GradientTape, gradients
from unilayers.config import dtype_scope
from unilayers.errors import ShapeError, UnilayersError
from unilayers.optimizers import (
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Ftrl,
    Lamb,
    Lion,
    Muon,
    Nadam,
    Optimizer,
    RMSprop,
    ScheduleFreeAdamW,
    schedules,
)
from unilayers.registry import resolve, serialize, snake_case
from unilayers.variable import Variable, current_trace, place_together

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

OURS = [cls for cls in Optimizer.registry if cls.__module__.startswith(optimizers.__name__)]
CLASSES = [cls for cls in OURS if cls is not optimizers.LossScaleOptimizer]  # which needs another: test_precision.py
STEPS = 20
Arrays = list[np.ndarray]

VARIANTS: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.8, "nesterov": True}),
    (RMSprop, {}),
    (RMSprop, {"rho": 0.7, "momentum": 0.5, "epsilon": 1e-4}),
    (RMSprop, {"centered": True}),
    (RMSprop, {"momentum": 0.5, "centered": True}),
    (Adagrad, {}),
    (Adagrad, {"initial_accumulator_value": 0.5, "epsilon": 1e-3}),
    (Adam, {}),
    (Adam, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    (Adam, {"amsgrad": True, "beta_2": 0.6}),
    (AdamW, {}),
    (AdamW, {"weight_decay": 0.1, "amsgrad": True}),
    (Adadelta, {}),
    (Adadelta, {"learning_rate": 1.0, "rho": 0.7}),
    (Ftrl, {}),
    (Ftrl, {"l1_regularization_strength": 0.1, "l2_regularization_strength": 0.2, "beta": 0.3}),
    (Ftrl, {"l2_shrinkage_regularization_strength": 0.1, "learning_rate_power": -0.3}),
    (Adamax, {}),
    (Nadam, {}),
    (Lamb, {}),
    (ScheduleFreeAdamW, {}),
    (ScheduleFreeAdamW, {"warmup_steps": 7, "beta_1": 0.8}),
    (Lion, {}),
    (Adafactor, {}),
    (Adafactor, {"relative_step": False, "clip_threshold": 0.5}),
    (Muon, {}),
    (Muon, {"nesterov": False, "rms_rate": None, "exclude_layers": ["w0"], "adam_lr_ratio": 0.5}),
]
COMMON = [{}, {"clipnorm": 0.5}, {"clipvalue": 0.2}, {"global_clipnorm": 0.7}, {"weight_decay": 0.05}]
# Every variant, and the common arguments once more with the two ends of the table.
CASES = [*VARIANTS, *((cls, {**kwargs, **more}) for cls, kwargs in (VARIANTS[1], VARIANTS[11]) for more in COMMON[1:])]
cases = pytest.mark.parametrize(("cls", "kwargs"), CASES, ids=lambda x: getattr(x, "__name__", None) or repr(x))


def make(cls: type[Optimizer], kwargs: dict[str, Any], **more: Any) -> Optimizer:
    return cls(**{"learning_rate": 0.05, **kwargs, **more})


def start() -> Arrays:
    rng = np.random.default_rng(4)
    return [rng.normal(size=shape) for shape in ((3, 2), (4,), ())]


def gradients_at(step: int, weights: Sequence[np.ndarray]) -> Arrays:
    """Of a quadratic with waves on it, and noise."""
    rng = np.random.default_rng(step)
    return [(i + 1) * w + np.cos(3 * w) + 0.3 * rng.normal(size=w.shape) for i, w in enumerate(weights)]


def by_us(optimizer: Optimizer, dtype: str = "float64") -> Arrays:
    variables = [Variable(w, dtype=dtype, name=f"w{i}") for i, w in enumerate(start())]
    for step in range(STEPS):
        grads = gradients_at(step, [v.numpy() for v in variables])
        optimizer.apply_gradients(zip(grads, variables, strict=True))
    return [v.numpy() for v in variables]


def by_keras(optimizer: Any) -> Arrays:
    variables = [keras.Variable(w, dtype="float64", name=f"w{i}") for i, w in enumerate(start())]
    for step in range(STEPS):
        grads = gradients_at(step, [v.value.detach().numpy() for v in variables])
        optimizer.apply([torch.tensor(g) for g in grads], variables)
    return [v.value.detach().numpy() for v in variables]


def by_torch(make: Callable[..., Any]) -> Arrays:
    weights = [torch.tensor(w, requires_grad=True) for w in start()]
    optimizer = make(weights)
    for step in range(STEPS):
        for w, g in zip(weights, gradients_at(step, [w.detach().numpy() for w in weights]), strict=True):
            w.grad = torch.tensor(g)
        optimizer.step()
    return [w.detach().numpy() for w in weights]


def assert_all_close(found: Arrays, expected: Arrays, rtol: float, atol: float) -> None:
    for i, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert_close(mine, theirs, rtol=rtol, atol=atol, what=f"weight {i}")


# ---- the same steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_a_case(cls: type[Optimizer]) -> None:
    assert any(cls is case for case, _ in VARIANTS)


@pytest.mark.parametrize("common", COMMON, ids=repr)
@pytest.mark.parametrize(("cls", "kwargs"), VARIANTS, ids=lambda x: getattr(x, "__name__", None) or repr(x))
def test_twenty_steps_equal_keras(cls: type[Optimizer], kwargs: dict[str, Any], common: dict[str, Any]) -> None:
    """To float32's precision, which Keras's scalars have on PyTorch."""
    settings = {"learning_rate": 0.05, **kwargs, **common}
    if cls is ScheduleFreeAdamW and not common:  # on PyTorch Keras overwrites the fast weights that it still reads
        expected = schedule_free(**settings)
    elif cls is ScheduleFreeAdamW:
        return
    else:
        expected = by_keras(getattr(keras.optimizers, cls.__name__)(**settings))
    assert_all_close(by_us(cls(**settings)), expected, 1e-6, 1e-6)


def schedule_free(
    learning_rate: float, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8, warmup_steps: int = 0
) -> Arrays:
    """By the paper: fast weights z, their average x, and y between them, where gradients are taken."""
    z, x, y = start(), start(), start()
    squares = [np.zeros_like(w) for w in z]
    for step in range(STEPS):
        rate = learning_rate * min((step + 1) / warmup_steps if warmup_steps else 1.0, 1.0)
        for i, g in enumerate(gradients_at(step, y)):
            squares[i] = beta_2 * squares[i] + (1 - beta_2) * g * g
            z[i] = z[i] - rate * g / (np.sqrt(squares[i] / (1 - beta_2 ** (step + 1))) + epsilon)
            x[i] = x[i] * (step / (step + 1)) + z[i] / (step + 1)
            y[i] = (1 - beta_1) * z[i] + beta_1 * x[i]
    return y


TINY = 1e-30  # PyTorch adds epsilon elsewhere
BY_TORCH: list[tuple[Optimizer, Callable[..., Any]]] = [
    (SGD(0.05), lambda w: torch.optim.SGD(w, 0.05)),
    (SGD(0.05, 0.9), lambda w: torch.optim.SGD(w, 0.05, momentum=0.9)),
    (SGD(0.05, 0.9, True), lambda w: torch.optim.SGD(w, 0.05, momentum=0.9, nesterov=True)),
    *(
        (RMSprop(0.05, 0.8, m, TINY, c), lambda w, m=m, c=c: torch.optim.RMSprop(w, 0.05, 0.8, TINY, 0.0, m, c))
        for m in (0.0, 0.5)
        for c in (False, True)
    ),
    (
        Adagrad(0.05, 0.2, TINY),
        lambda w: torch.optim.Adagrad(w, 0.05, initial_accumulator_value=0.2, eps=TINY),
    ),
    (Adam(0.05, epsilon=TINY), lambda w: torch.optim.Adam(w, 0.05, eps=TINY)),
    (AdamW(0.05, 0.1, epsilon=TINY), lambda w: torch.optim.AdamW(w, 0.05, eps=TINY, weight_decay=0.1)),
]


@pytest.mark.parametrize(("ours", "theirs"), BY_TORCH, ids=[repr(o) for o, _ in BY_TORCH])
def test_twenty_steps_equal_torch_in_float64(ours: Optimizer, theirs: Callable[..., Any]) -> None:
    assert_all_close(by_us(ours), by_torch(theirs), 1e-12, 1e-14)


def test_clipping_equals_torch() -> None:
    weights, grads = [Variable(w, dtype="float64") for w in start()], gradients_at(0, start())
    SGD(1.0, global_clipnorm=0.7).apply(grads, weights)
    tensors = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads]
    for t, g in zip(tensors, grads, strict=True):
        t.grad = torch.tensor(g)
    assert torch.nn.utils.clip_grad_norm_(tensors, 0.7) > 0.7
    for v, w, t in zip(weights, start(), tensors, strict=True):
        np.testing.assert_allclose(v.numpy(), w - t.grad.numpy(), 2e-6)  # PyTorch divides by norm + 1e-6


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_small_gradients_are_not_touched(clip: str) -> None:
    assert_all_close(by_us(SGD(0.05, **{clip: 1e3})), by_us(SGD(0.05)), 0, 0)


def test_no_gradient_at_all_and_one_that_is_not_finite() -> None:
    for clip in ("clipnorm", "global_clipnorm"):
        variables = [Variable(np.ones(2), name="a"), Variable(np.ones(2), name="b")]
        optimizer = SGD(1.0, **{clip: 1.0})
        optimizer.apply([np.zeros(2, "float32")] * 2, variables)
        np.testing.assert_array_equal([v.numpy() for v in variables], np.ones((2, 2)))
    with np.errstate(all="ignore"):
        optimizer.apply([np.array([np.inf, 1.0], "float32"), np.ones(2, "float32")], variables)
    assert np.isnan([v.numpy() for v in variables]).all()


# ---- traced, and on every backend ---------------------------------------------------------------------------------


class Net:
    """A small network without any layer, so that only the optimizer is on trial."""

    def __init__(self, dtype: str) -> None:
        rng = np.random.default_rng(2)
        shapes = {"kernel": (3, 4), "bias": (4,), "out/kernel": (4, 2)}
        self.variables = [Variable(rng.normal(size=s), dtype=dtype, name=n) for n, s in shapes.items()]
        self.x, self.y = (rng.normal(size=(8, k)).astype(dtype) for k in (3, 2))

    def loss(self, x: Any, y: Any) -> Any:
        kernel, bias, out = self.variables
        return ops.mean(ops.square(ops.matmul(ops.tanh(ops.matmul(x, kernel) + bias), out) - y))

    def eagerly(self, optimizer: Optimizer) -> None:
        with GradientTape() as tape:
            loss = self.loss(self.x, self.y)
        grads = tape.gradient(loss, self.variables)
        optimizer.apply_gradients(zip(grads, self.variables, strict=True))

    def step(self, optimizer: Optimizer, backend: str) -> Callable[[], Any]:
        def train(x: Any, y: Any) -> Any:
            loss = self.loss(x, y)
            optimizer.build(self.variables)
            optimizer.apply(gradients(loss, [current_trace().read(v) for v in self.variables]))
            return loss

        traced = Step(train, (self.x, self.y), backend)
        return lambda: traced(self.x, self.y)


def everything(net: Net, optimizer: Optimizer) -> Arrays:
    return [v.numpy() for v in (*net.variables, *optimizer.variables)]


@pytest.mark.parametrize("backend", BACKENDS)
@cases
def test_the_same_steps_on_every_backend(backend: str, cls: type[Optimizer], kwargs: dict[str, Any]) -> None:
    """Weights and all of the state after 20 steps along given gradients: eagerly on NumPy, and as a program."""
    for dtype, tolerance in (("float32", 5e-6), ("float64", 1e-14)):
        eager, traced = ([Variable(w, dtype=dtype, name=f"w{i}") for i, w in enumerate(start())] for _ in range(2))
        first, second = make(cls, kwargs), make(cls, kwargs)

        def update(*grads: Any, second: Any = second, traced: Any = traced) -> Any:
            second.build(traced)
            second.apply([ops.sum(g, axis=0) for g in grads])
            return ops.identity(second.iterations)

        step = None
        for number in range(STEPS):
            grads = [g.astype(dtype) for g in gradients_at(number, start())]
            first.apply(grads, eager)
            step = step or Step(update, [g[None] for g in grads], backend)
            step(*(g[None] for g in grads))
        found, expected = ([v.numpy() for v in (*v, *o.variables)] for v, o in ((traced, second), (eager, first)))
        assert_all_close(found, expected, tolerance, tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("cls", "kwargs"), VARIANTS[::2], ids=lambda x: getattr(x, "__name__", None) or repr(x))
def test_training_traced_equals_eager(backend: str, cls: type[Optimizer], kwargs: dict[str, Any]) -> None:
    eager, traced = Net("float64"), Net("float64")
    first, second = make(cls, kwargs), make(cls, kwargs)
    run = traced.step(second, backend)
    for _ in range(STEPS):
        eager.eagerly(first)
        run()
    assert_all_close(everything(traced, second), everything(eager, first), 1e-12, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_eager_steps_where_the_weights_are(backend: str) -> None:
    engine = require_backend(backend)
    here, there = Net("float32"), Net("float32")
    first, second = Adam(0.05, weight_decay=0.1), Adam(0.05, weight_decay=0.1)
    second.build(there.variables)
    place_together([*there.variables, *second.variables], engine, engine.device("cpu"))
    for _ in range(3):
        here.eagerly(first)
        there.eagerly(second)
    assert all(v.store is not None and v.store.backend is engine for v in (*there.variables, *second.variables))
    assert_all_close(everything(there, second), everything(here, first), 1e-6, 1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_learning_rate_changes_without_another_trace(backend: str) -> None:
    net, optimizer = Net("float32"), SGD(0.1)
    run = net.step(optimizer, backend)
    run()
    before = everything(net, optimizer)
    optimizer.learning_rate = 0.0
    run()
    assert_all_close([v.numpy() for v in net.variables], before[:3], 0, 0)
    optimizer.learning_rate = 0.25
    assert optimizer.learning_rate == 0.25
    run()
    assert not np.array_equal(net.variables[0].numpy(), before[0])
    assert int(optimizer.iterations.numpy()) == 3


# ---- state --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [
        (SGD(), []),
        (SGD(momentum=0.9), ["momentum"]),
        (RMSprop(), ["velocity"]),
        (RMSprop(momentum=0.9, centered=True), ["velocity", "momentum", "average_gradient"]),
        (Adagrad(), ["accumulator"]),
        (Adam(), ["momentum", "velocity"]),
        (AdamW(amsgrad=True), ["momentum", "velocity", "velocity_hat"]),
    ],
    ids=repr,
)
def test_order_paths_and_dtypes_of_the_state(optimizer: Optimizer, slots: list[str]) -> None:
    assert optimizer.variables == []
    weights = [
        Variable(np.zeros(2), name="kernel", path="dense/kernel"), Variable(0.0, dtype="float64", name="b", path="d/b")
    ]  # fmt: skip
    optimizer.build(weights)
    paths = ["optimizer/iterations", "optimizer/learning_rate"]
    paths += [f"optimizer/{w}/{s}" for s in slots for w in ("dense/kernel", "d/b")]
    assert [v.path for v in optimizer.variables] == paths
    assert [v.dtype for v in optimizer.variables] == ["int32", "float64", *["float32", "float64"] * len(slots)]
    assert [v.shape for v in optimizer.variables] == [(), (), *[(2,), ()] * len(slots)]
    start = getattr(optimizer, "initial_accumulator_value", 0.0)
    assert all(np.all(v.numpy() == np.float32(start)) or float(v) == start for v in optimizer.variables[2:])
    assert not any(v.trainable for v in optimizer.variables)
    optimizer.build(weights)  # again: nothing happens
    assert [v.path for v in optimizer.variables] == paths


def test_weights_of_two_dtypes() -> None:
    expected = {dtype: by_us(Adam(0.05, weight_decay=0.1), dtype) for dtype in ("float32", "float64")}
    optimizer = Adam(0.05, weight_decay=0.1)
    dtypes = ["float32", "float64", "float32"]
    variables = [Variable(w, dtype=d) for w, d in zip(start(), dtypes, strict=True)]
    for step in range(STEPS):
        optimizer.apply(gradients_at(step, [v.numpy() for v in variables]), variables)
    for i, (v, dtype) in enumerate(zip(variables, dtypes, strict=True)):
        assert_close(v.numpy(), expected[dtype][i], rtol=1e-6 if dtype == "float32" else 1e-14, atol=0, what=dtype)


def test_dtype_of_the_learning_rate() -> None:
    for dtypes, expected in (([], "float32"), (["float16"], "float32"), (["float64"], "float64")):
        optimizer = SGD()
        optimizer.build([Variable(0.0, dtype=d) for d in dtypes])
        assert optimizer.variables[1].dtype == expected
    with dtype_scope("float64"):
        other = SGD()
        other.build([])
    assert other.variables[1].dtype == "float64"


def test_learning_rate_reads_and_writes() -> None:
    optimizer, v = Adam(1e-3), Variable(np.zeros(2))
    assert optimizer.learning_rate == 1e-3
    optimizer.learning_rate = 2e-3
    optimizer.build([v])
    assert optimizer.learning_rate == 2e-3  # as written, though its variable is a float32
    assert float(optimizer.variables[1]) == np.float32(2e-3)
    optimizer.learning_rate = np.float32(0.1)
    assert optimizer.get_config()["learning_rate"] == float(np.float32(0.1)) == float(optimizer.variables[1])
    optimizer.variables[1].assign(np.float32(0.5))  # as a checkpoint does
    assert repr(optimizer) == "Adam(learning_rate=0.5)"
    for wrong, message in (("0.1", "unknown schedule '0.1'"), (None, "Expected a number or LearningRateSchedule")):
        with pytest.raises(UnilayersError, match=f"^Adam.learning_rate: .*{message}"):
            optimizer.learning_rate = wrong
    assert optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    ("exclude", "decaying"),
    [
        ({}, [True, True, True]),
        ({"var_names": ["bias"]}, [True, False, True]),
        ({"var_names": ["^kernel$", "nothing"]}, [False, True, False]),
        ({"var_names": ["out/"]}, [True, True, False]),
        ({"var_list": [0, 1]}, [False, False, True]),
    ],
)
@pytest.mark.parametrize("cls", CLASSES)
def test_weights_excluded_from_decay(cls: type[Optimizer], exclude: dict[str, Any], decaying: list[bool]) -> None:
    paths = ["in/kernel", "in/bias", "out/kernel"]
    variables = [Variable(np.ones(2), name=p.rpartition("/")[2], path=p) for p in paths]
    if "var_list" in exclude:
        exclude = {"var_list": [variables[i] for i in exclude["var_list"]]}
    optimizer = cls(0.5, weight_decay=0.25, **({"adam_weight_decay": 0.25} if cls is Muon else {}))
    optimizer.exclude_from_weight_decay(**exclude)
    optimizer.apply([np.zeros(2, "float32")] * 3, variables)
    assert [optimizer.decay_of(v) for v in variables] == [0.25 if decays else 0.0 for decays in decaying]
    if cls not in (Ftrl, ScheduleFreeAdamW):  # which move weights without a gradient, too
        expected = [1 - 0.5 * 0.25 if decays else 1.0 for decays in decaying]
        np.testing.assert_allclose([v.numpy()[0] for v in variables], expected, 1e-7)
    with pytest.raises(UnilayersError, match=r"the optimizer is built already\. Exclude weights before"):
        optimizer.exclude_from_weight_decay(**exclude)


def test_a_missing_gradient_leaves_its_weight_and_slots_alone() -> None:
    variables = [Variable(np.ones(2), name=n) for n in "abc"]
    optimizer = Adam(0.1)
    grads = [np.ones(2, "float32"), None, np.ones(2, "float32")]
    with pytest.warns(UserWarning, match=r"^b: no gradient, so not updated$"):
        optimizer.apply(grads, variables)
    assert [v.numpy()[0] == 1 for v in variables] == [False, True, False]
    assert [v.numpy()[0] == 0 for v in optimizer.variables[2:]] == [False, True, False] * 2
    optimizer.apply(grads[::2], variables[::2])  # some of the variables it was built for
    assert float(optimizer.iterations) == 2


# ---- schedules ----------------------------------------------------------------------------------------------------

SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 9, "power": 2.0}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 9, "end_learning_rate": 0.02, "cycle": True}),
    ("PiecewiseConstantDecay", {"boundaries": [3, 9], "values": [0.1, 0.05, 0.01]}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 12, "alpha": 0.1}),
    ("CosineDecay", {"initial_learning_rate": 0.01, "decay_steps": 9, "warmup_target": 0.1, "warmup_steps": 5}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 4}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 5, "t_mul": 1.0, "m_mul": 0.7}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 3, "m_mul": 0.8, "alpha": 0.1}),
]
schedule_cases = pytest.mark.parametrize(("name", "kwargs"), SCHEDULES)


def test_every_schedule_has_a_case() -> None:
    ours = [c for c in schedules.LearningRateSchedule.registry if c.__module__ == schedules.__name__]
    assert {c.__name__ for c in ours} == {name for name, _ in SCHEDULES}


@schedule_cases
def test_schedule_equals_keras(name: str, kwargs: dict[str, Any]) -> None:
    ours = schedules.get({name: kwargs})
    theirs = getattr(keras.optimizers.schedules, name)(**kwargs)
    expected = np.array([float(theirs(step)) for step in range(30)])
    assert_close(np.array([float(ours(step)) for step in range(30)]), expected, rtol=2e-6, atol=1e-8, what=name)
    parameters = inspect.signature(type(theirs)).parameters
    assert {n: p.default for n, p in inspect.signature(type(ours)).parameters.items()} == {
        n: p.default for n, p in parameters.items()
    }


@schedule_cases
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_schedule_in_training(backend: str, name: str, kwargs: dict[str, Any]) -> None:
    """Part of the program: each step at its own rate, and kept in the config."""
    require_backend(backend)
    net, optimizer = Net("float64"), SGD({name: kwargs})
    run = net.step(optimizer, backend)
    schedule, other = schedules.get({name: kwargs}), Net("float64")
    assert optimizer.learning_rate == schedule == optimizers.get(serialize(optimizer)).learning_rate
    for step in range(12):
        run()
        other.eagerly(SGD(float(schedule(step))))
    found, expected = ([v.numpy() for v in n.variables] for n in (net, other))
    assert_all_close(found, expected, 1e-9, 1e-12)


def test_a_schedule_and_a_number_are_not_exchanged_once_built() -> None:
    optimizer, _ = built()
    with pytest.raises(UnilayersError, match="cannot be exchanged with a number"):
        optimizer.learning_rate = {"CosineDecay": {"initial_learning_rate": 0.1, "decay_steps": 10}}
    assert optimizer.learning_rate == 0.01


# ---- what is common to all ----------------------------------------------------------------------------------------


def in_micro_batches(cls: type[Optimizer], kwargs: dict[str, Any], every: int, backend: str) -> Arrays:
    """Steps with the given gradients, each cut into ``every`` parts; traced."""
    variables = [Variable(w, dtype="float64", name=f"w{i}") for i, w in enumerate(start())]
    optimizer = make(cls, kwargs, gradient_accumulation_steps=every)

    def update(*grads: Any) -> Any:
        optimizer.build(variables)
        optimizer.apply([ops.sum(g, axis=0) for g in grads])
        return ops.identity(optimizer.iterations)

    step = None
    rng = np.random.default_rng(8)
    for number in range(6):
        whole = gradients_at(number, start())
        parts = [[g + n for g in whole] for n in centred(rng.normal(size=every))]
        for part in parts:
            step = step or Step(update, [g[None] for g in part], backend)
            step(*(g[None] for g in part))
    assert int(optimizer.iterations) == 6, "as many updates, as in Keras"
    return [v.numpy() for v in variables]


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("cls", CLASSES)
def test_micro_batches_equal_one_large_batch(backend: str, cls: type[Optimizer]) -> None:
    require_backend(backend)
    kwargs = {"weight_decay": 0.1, "clipnorm": 2.0}
    variables = [Variable(w, dtype="float64", name=f"w{i}") for i, w in enumerate(start())]
    whole = make(cls, kwargs)
    for number in range(6):
        whole.apply(gradients_at(number, start()), variables)
    expected = [v.numpy() for v in variables]
    assert_all_close(in_micro_batches(cls, kwargs, 3, backend), expected, 1e-9, 1e-9)


@pytest.mark.parametrize("frequency", [None, 3])
def test_moving_average_of_the_weights_equals_keras(frequency: int | None) -> None:
    settings = {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": frequency}
    mine, theirs = Adam(0.05, **settings), keras.optimizers.Adam(0.05, **settings)
    found, expected = by_us(mine), by_keras(theirs)
    assert_all_close(found, expected, 1e-6, 1e-6)
    averages = [v.numpy() for v in mine.variables if v.name == "average"]
    assert_all_close(averages, [v.value.detach().numpy() for v in theirs._model_variables_moving_average], 1e-6, 1e-6)
    weights = list(mine._index)
    mine.finalize_variable_values(weights)
    assert_all_close([v.numpy() for v in weights], averages, 0, 0)


def test_loss_scale() -> None:
    optimizer, v = SGD(1.0, loss_scale_factor=8.0), Variable(np.ones(2), dtype="float64")
    with GradientTape() as tape:
        loss = optimizer.scale_loss(ops.sum(ops.multiply(v, v)))
    optimizer.apply([tape.gradient(loss, v)], [v])
    assert float(ops.to_numpy(loss)) == 16.0
    np.testing.assert_array_equal(v.numpy(), [-1.0, -1.0])


# ---- one of one's own, names, configs -----------------------------------------------------------------------------


class SignOfMomentum(Optimizer):
    """Written for one weight, the Keras way: with a constructor of its own."""

    def __init__(self, learning_rate: float = 1e-3, beta: float = 0.9, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta = beta

    def slots(self) -> dict[str, float]:
        return {"momentum": 0.0}

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, momentum: Any) -> Any:
        direction = ops.sign(momentum * self.beta + gradient * (1 - self.beta))
        return parameter - direction * learning_rate, momentum * 0.99 + gradient * 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_optimizer_of_ones_own(backend: str) -> None:
    theirs = keras.optimizers.Lion(0.05, weight_decay=0.1)
    assert_all_close(by_us(SignOfMomentum(0.05, weight_decay=0.1)), by_keras(theirs), 1e-6, 1e-6)
    net, optimizer = Net("float64"), SignOfMomentum(0.05, weight_decay=0.1)
    other, second = Net("float64"), SignOfMomentum(0.05, weight_decay=0.1)
    run = net.step(optimizer, backend)
    for _ in range(3):
        run()
        other.eagerly(second)
    assert_all_close(everything(net, optimizer), everything(other, second), 1e-13, 1e-13)


@cases
def test_config_round_trip(cls: type[Optimizer], kwargs: dict[str, Any]) -> None:
    optimizer = make(cls, kwargs, name="mine")
    for again in (cls.from_config(optimizer.get_config()), resolve(Optimizer.registry, serialize(optimizer))):
        assert again.get_config() == optimizer.get_config()
        assert repr(again) == repr(optimizer)
    assert_all_close(by_us(again), by_us(optimizer), 0, 0)


@pytest.mark.parametrize("cls", CLASSES)
def test_arguments_and_defaults_are_those_of_keras(cls: type[Optimizer]) -> None:
    theirs = inspect.signature(getattr(keras.optimizers, cls.__name__)).parameters
    ours = inspect.signature(cls).parameters
    assert ours.keys() == theirs.keys() - {"kwargs"}
    assert all(p.default == theirs[n].default for n, p in ours.items() if n != "name")
    positional = [n for n, p in ours.items() if p.kind is not p.KEYWORD_ONLY]
    assert positional == list(theirs)[: len(positional)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_name_of_a_class(cls: type[Optimizer]) -> None:
    name = snake_case(cls.__name__)
    for identifier in (cls, cls.__name__, cls.__name__.lower(), {name: {}}, {"class_name": name, "config": {}}):
        found = optimizers.get(identifier)
        assert (type(found), found.name, repr(found)) == (cls, name, f"{cls.__name__}()")
    assert optimizers.get(None) is None


# ---- errors -------------------------------------------------------------------------------------------------------


def built() -> tuple[Optimizer, list[Variable]]:
    optimizer, variables = SGD(), [Variable(np.zeros(2), name="a"), Variable(np.zeros(3), name="b")]
    optimizer.build(variables)
    return optimizer, variables


ONES = np.ones(2, "float32")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda o, v: o.build([Variable(0.0, name="c")]), UnilayersError,
            "SGD(): the optimizer belongs to other variables. Expected 2 of ['a', 'b']. Received 1 variables, "
            "with ['c'] unknown. Make a new optimizer for other variables.",
        ),
        (
            lambda o, v: o.apply([ONES]), UnilayersError,
            "SGD(): the optimizer belongs to other variables. Expected 1 of ['a', 'b']. Received 2 variables. "
            "Make a new optimizer for other variables.",
        ),
        (
            lambda o, v: SGD().apply([ONES]), UnilayersError,
            "SGD(): the optimizer is not built. Expected variables, or build() first. Received 0 variables.",
        ),
        (
            lambda o, v: o.apply([ONES, ONES], v), ShapeError,
            "b: a gradient does not fit its variable. Expected (3,). Received (2,).",
        ),
        (
            lambda o, v: o.apply([None, None], v), UnilayersError,
            "SGD(): no variable has a gradient. Received None for ['a', 'b'].",
        ),
        (
            lambda o, v: Adam(clipnorm=1.0, clipvalue=0.5), UnilayersError,
            "Adam: several kinds of clipping. Expected at most one of clipnorm, clipvalue, global_clipnorm. "
            "Received clipnorm=1.0, clipvalue=0.5.",
        ),
        (
            lambda o, v: optimizers.get("sgdd"), UnilayersError, "unknown optimizer 'sgdd'. Did you mean 'SGD'?",
        ),
        (
            lambda o, v: optimizers.get({"SGD": {"momentum": 1.5}}), UnilayersError,
            "SGD.momentum: a value that does not fit. Expected a number at least 0 and at most 1. "
            "Received 1.5 (float).",
        ),
    ],
)  # fmt: skip
def test_errors(call: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        call(*built())
    assert str(raised.value) == message
