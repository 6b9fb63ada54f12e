"""Classes of one's own, written as for Keras: the same text trains here, on every backend, as Keras trains it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers.errors import ShapeError, UnilayersError

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5)).astype("float32")
Y = RNG.normal(size=(24, 2)).astype("float32")
modes = pytest.mark.parametrize("run_eagerly", [False, True], ids=["compiled", "eager"])
on_all = pytest.mark.parametrize("backend", BACKENDS)


def classes(k: Any) -> SimpleNamespace:
    """The classes, of Keras or of unilayers, which is ``k``."""
    ops = k.ops

    class HeavyBall(k.optimizers.Optimizer):  # type: ignore[misc]
        def __init__(
            self, learning_rate: Any = 0.01, momentum: float = 0.9, name: str = "heavy_ball", **kwargs: Any
        ) -> None:
            super().__init__(learning_rate=learning_rate, name=name, **kwargs)
            self.momentum = momentum

        def build(self, variables: Any) -> None:
            if self.built:
                return
            super().build(variables)
            self.paces = []
            for variable in variables:
                self.paces.append(self.add_variable_from_reference(variable, name="pace"))

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            learning_rate = ops.cast(learning_rate, variable.dtype)
            gradient = ops.cast(gradient, variable.dtype)
            pace = self.paces[self._get_variable_index(variable)]
            self.assign(pace, self.momentum * pace - learning_rate * gradient)
            self.assign_add(variable, pace)

        def get_config(self) -> dict[str, Any]:
            config = super().get_config()
            config.update({"momentum": self.momentum})
            return config  # type: ignore[no-any-return]

    class Annealed(k.optimizers.Optimizer):  # type: ignore[misc]
        """With several variables a weight, one for all, and the number of the step."""

        def __init__(self, learning_rate: Any = 0.05, epsilon: float = 1e-3, **kwargs: Any) -> None:
            super().__init__(learning_rate=learning_rate, **kwargs)
            self.epsilon = epsilon

        def build(self, variables: Any) -> None:
            if self.built:
                return
            super().build(variables)
            self.means, self.squares = self.add_optimizer_variables(variables, ["mean", "square"])
            self.total = self.add_variable(shape=(), initializer="ones", name="total")

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            i = self._get_variable_index(variable)
            step = ops.cast(self.iterations + 1, variable.dtype)
            self.assign_add(self.means[i], (gradient - self.means[i]) * 0.1)
            self.assign_add(self.squares[i], (ops.square(gradient) - self.squares[i]) * 0.01)
            self.assign_add(self.total, ops.sum(ops.abs(gradient)))
            wide = ops.sqrt(self.squares[i] / (1 - ops.power(0.99, step))) + self.epsilon
            self.assign_sub(variable, learning_rate * self.means[i] / (wide * ops.log(1.0 + self.total)))

    class Halving(k.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __init__(self, start: float, every: int = 4) -> None:
            self.start = start
            self.every = every

        def __call__(self, step: Any) -> Any:
            step = ops.cast(step, "float32")
            return self.start * ops.power(0.5, ops.floor(step / self.every))

        def get_config(self) -> dict[str, Any]:
            return {"start": self.start, "every": self.every}

    class Lopsided(k.losses.Loss):  # type: ignore[misc]
        def __init__(self, above: float = 2.0, reduction: str = "sum_over_batch_size", name: str = "lopsided") -> None:
            super().__init__(name=name, reduction=reduction)
            self.above = above

        def call(self, y_true: Any, y_pred: Any) -> Any:
            error = y_pred - y_true
            return ops.mean(ops.where(error > 0, self.above * error, -error), axis=-1)

        def get_config(self) -> dict[str, Any]:
            config = super().get_config()
            config.update({"above": self.above})
            return config  # type: ignore[no-any-return]

    class Worst(k.metrics.Metric):  # type: ignore[misc]
        def __init__(self, name: str = "worst", **kwargs: Any) -> None:
            super().__init__(name=name, **kwargs)
            self.worst = self.add_variable(shape=(), initializer="zeros", name="worst")
            self.seen = self.add_weight(name="seen", initializer="zeros")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            error = ops.max(ops.abs(ops.cast(y_true, self.dtype) - ops.cast(y_pred, self.dtype)))
            self.worst.assign(ops.maximum(self.worst, error))
            self.seen.assign_add(ops.cast(ops.shape(y_pred)[0], self.dtype))

        def result(self) -> Any:
            return self.worst + 0.001 * self.seen

        def reset_state(self) -> None:
            self.worst.assign(0.0)
            self.seen.assign(0.0)

    class FourthPower(k.regularizers.Regularizer):  # type: ignore[misc]
        def __init__(self, strength: float = 0.01) -> None:
            self.strength = strength

        def __call__(self, x: Any) -> Any:
            return self.strength * ops.sum(ops.power(x, 4))

        def get_config(self) -> dict[str, Any]:
            return {"strength": self.strength}

    class InTheBall(k.constraints.Constraint):  # type: ignore[misc]
        def __init__(self, radius: float = 1.0) -> None:
            self.radius = radius

        def __call__(self, w: Any) -> Any:
            return w * ops.minimum(1.0, self.radius / ops.sqrt(ops.sum(ops.square(w))))

        def get_config(self) -> dict[str, Any]:
            return {"radius": self.radius}

    class Stripes(k.initializers.Initializer):  # type: ignore[misc]
        def __init__(self, height: float = 1.0) -> None:
            self.height = height

        def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
            flat = ops.cos(ops.arange(int(np.prod(shape)), dtype=dtype or "float32"))
            return self.height * ops.reshape(flat, shape)

        def get_config(self) -> dict[str, Any]:
            return {"height": self.height}

    class Mixing(k.layers.Layer):  # type: ignore[misc]
        """Weights without names, as the guides write them, variables of its own, and a buffer."""

        def __init__(self, units: int, kernel_regularizer: Any = None, kernel_constraint: Any = None, **kwargs: Any):
            super().__init__(**kwargs)
            self.units = units
            self.kernel_regularizer = k.regularizers.get(kernel_regularizer)
            self.kernel_constraint = k.constraints.get(kernel_constraint)
            self.calls = k.Variable(0.0, trainable=False)
            self.scale = k.Variable(initializer=lambda shape, dtype: ops.ones(shape, dtype), shape=(units,))

        def build(self, input_shape: Any) -> None:
            shape = (input_shape[-1], self.units)
            regularizer, constraint = self.kernel_regularizer, self.kernel_constraint
            self.w = self.add_weight(
                shape=shape, initializer=Stripes(0.3), trainable=True, regularizer=regularizer, constraint=constraint
            )
            self.v = self.add_weight(shape=shape, initializer=Stripes(0.2), trainable=True, aggregation="mean")
            self.b = self.add_weight(shape=(self.units,), initializer="zeros", overwrite_with_gradient=False)

        def call(self, inputs: Any) -> Any:
            self.calls.assign_add(1.0)
            first = ops.matmul(inputs, self.w) * self.scale.value
            return first + ops.tanh(ops.matmul(inputs, self.v)) + self.b[None] * self.scale[0]

        def get_config(self) -> dict[str, Any]:
            config = super().get_config()
            config.update(
                {
                    "units": self.units,
                    "kernel_regularizer": k.regularizers.serialize(self.kernel_regularizer),
                    "kernel_constraint": k.constraints.serialize(self.kernel_constraint),
                }
            )
            return config  # type: ignore[no-any-return]

    found = {name: thing for name, thing in locals().items() if isinstance(thing, type)}
    return SimpleNamespace(**found)


THEIRS, OURS = classes(keras), classes(ul)


def model_of(k: Any, own: SimpleNamespace, **layer: Any) -> Any:
    return k.Sequential(
        [k.Input((5,)), own.Mixing(3, **layer), k.layers.Dense(2, kernel_initializer=own.Stripes(0.4), name="last")]
    )


def trained(model: Any, settings: dict[str, Any], *, epochs: int = 3, **place: Any) -> dict[str, list[float]]:
    """What ``fit`` shows."""
    model.compile(**settings, **place)
    return model.fit(X, Y, batch_size=6, epochs=epochs, shuffle=False, verbose=0).history  # type: ignore[no-any-return]


def assert_same_history(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        theirs = np.asarray([float(v) for v in values])
        assert len(set(theirs)) == len(theirs), f"{name} stays as it is, which proves nothing"
        assert_close(np.asarray(found[name]), theirs, rtol=2e-5, atol=1e-6, what=name)


# ---- optimizers -----------------------------------------------------------------------------------------------------

COMMON: list[dict[str, Any]] = [
    {},
    {"clipnorm": 0.3},
    {"clipvalue": 0.1},
    {"global_clipnorm": 0.5},
    {"weight_decay": 0.1},
    {"use_ema": True, "ema_momentum": 0.8},
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    {"gradient_accumulation_steps": 2},
    {"loss_scale_factor": 8.0},
    {"learning_rate": "cosine"},
    {"learning_rate": "own"},
]


def optimizer_of(k: Any, own: SimpleNamespace, name: str, given: dict[str, Any]) -> Any:
    rates = {"cosine": lambda: k.optimizers.schedules.CosineDecay(0.05, 10), "own": lambda: own.Halving(0.1, every=3)}
    rate = given.get("learning_rate", 0.03)
    return getattr(own, name)(**{**given, "learning_rate": rates[rate]() if rate in rates else rate})


def compare_optimizer(name: str, given: dict[str, Any], backend: str, run_eagerly: bool) -> None:
    require_backend(backend)
    theirs, ours = model_of(keras, THEIRS), model_of(ul, OURS)
    expected = trained(theirs, {"optimizer": optimizer_of(keras, THEIRS, name, given), "loss": "mse"})
    optimizer = optimizer_of(ul, OURS, name, given)
    found = trained(ours, {"optimizer": optimizer, "loss": "mse"}, backend=backend, run_eagerly=run_eagerly)
    assert_same_history(found, expected)
    assert int(optimizer.iterations) == int(theirs.optimizer.iterations)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert_close(mine, other, rtol=2e-5, atol=2e-6, what="weight")


@modes
@pytest.mark.parametrize("given", COMMON, ids=repr)
@pytest.mark.parametrize("name", ["HeavyBall", "Annealed"])
def test_optimizers_train_as_in_keras(name: str, given: dict[str, Any], run_eagerly: bool) -> None:
    compare_optimizer(name, given, "numpy", run_eagerly)


@modes
@on_all
@pytest.mark.parametrize("name", ["HeavyBall", "Annealed"])
def test_optimizers_train_on_every_backend(name: str, backend: str, run_eagerly: bool) -> None:
    compare_optimizer(name, {"weight_decay": 0.1, "clipnorm": 0.5, "learning_rate": "own"}, backend, run_eagerly)


@on_all
def test_an_optimizer_goes_on_from_a_file(backend: str, tmp_path: Path) -> None:
    """Saved after half of the steps, loaded with its class given by name, trained on: as without a break."""
    require_backend(backend)
    whole = model_of(ul, OURS)
    settings = {"optimizer": optimizer_of(ul, OURS, "Annealed", {"learning_rate": "own"}), "loss": OURS.Lopsided(3.0)}
    expected = trained(whole, settings, epochs=4, backend=backend)
    half = model_of(ul, OURS)
    settings["optimizer"] = optimizer_of(ul, OURS, "Annealed", {"learning_rate": "own", "epsilon": 1e-3})
    trained(half, settings, epochs=2, backend=backend)
    half.save(tmp_path / "half.keras")
    loaded = ul.load_model(tmp_path / "half.keras", custom_objects=vars(OURS))
    assert isinstance(loaded.optimizer, OURS.Annealed) and loaded.optimizer.learning_rate.every == 3
    more = loaded.fit(X, Y, batch_size=6, initial_epoch=2, epochs=4, shuffle=False, verbose=0, backend=backend).history
    assert_close(np.asarray(more["loss"]), np.asarray(expected["loss"][2:]), rtol=1e-6, atol=0, what="loss")


@pytest.mark.parametrize("name", ["HeavyBall", "Annealed"])
def test_the_config_of_an_optimizer_makes_it_again(name: str) -> None:
    given = {"learning_rate": 0.2, "clipnorm": 0.5, "weight_decay": 0.1}
    theirs, ours = optimizer_of(keras, THEIRS, name, given), optimizer_of(ul, OURS, name, given)
    wanted, config = theirs.get_config(), ours.get_config()
    assert set(given) <= config.keys() and all(config[key] == pytest.approx(wanted[key]) for key in given)
    again = type(ours).from_config(ours.get_config())
    assert again.get_config() == config
    assert ul.optimizers.deserialize(ul.optimizers.serialize(ours)).get_config() == config
    schedule = ul.optimizers.schedules.serialize(OURS.Halving(0.5, every=2))
    assert ul.optimizers.schedules.deserialize(schedule)(4) == ul.optimizers.schedules.deserialize(schedule)(5) == 0.125
    scheduled = type(ours)(learning_rate=OURS.Halving(0.5))
    rate = type(ours).from_config(scheduled.get_config(), custom_objects=vars(OURS)).learning_rate
    assert isinstance(rate, OURS.Halving) and rate.get_config() == {"start": 0.5, "every": 4}


def test_the_rate_and_the_state_can_be_set() -> None:
    optimizer, variables = OURS.HeavyBall(0.5), [ul.Variable(np.zeros(2), name="a"), ul.Variable(np.ones(3), name="b")]
    optimizer.apply_gradients(zip([np.ones(2, "float32"), np.ones(3, "float32")], variables, strict=True))
    assert optimizer.learning_rate == 0.5 and float(optimizer.learning_rate.numpy()) == 0.5
    optimizer.learning_rate.assign(0.25)
    assert optimizer.learning_rate == 0.25 and optimizer.get_config()["learning_rate"] == 0.25
    optimizer.learning_rate = np.float32(0.125)
    assert optimizer.learning_rate == 0.125 and ul.optimizers.SGD.from_config({"learning_rate": 0.5}).learning_rate == 0.5
    assert [v.path for v in optimizer.variables[2:]] == ["optimizer/a/pace", "optimizer/b/pace"]
    state = [v.numpy() + 1 for v in optimizer.variables]
    optimizer.set_weights(state)
    assert int(optimizer.iterations) == 2 and optimizer.learning_rate == 1.125
    assert_close(optimizer.paces[0].numpy(), np.full(2, 0.5, "float32"), rtol=0, atol=0, what="pace")
    with pytest.raises(ShapeError, match="weights do not fit"):
        optimizer.set_weights(state[1:])
    with pytest.raises(ShapeError, match="not built"):
        OURS.HeavyBall().set_weights(state)
    with pytest.raises(UnilayersError, match="came to be after build"):
        optimizer.extend([ul.Variable(0.0)])


def test_a_weight_is_overwritten_with_its_gradient() -> None:
    found = []
    for k in (keras, ul):
        kept, moved = k.Variable(np.ones(2, "float32")), k.Variable(np.ones(2, "float32"))
        kept.overwrite_with_gradient = True
        grads = [k.ops.convert_to_tensor(np.full(2, g, "float32")) for g in (7.0, 0.5)]
        k.optimizers.SGD(1.0).apply(grads, [kept, moved])
        found.append([np.array(k.ops.convert_to_numpy(v)) for v in (kept, moved)])
    assert np.array_equal(*found)


# ---- all the rest ---------------------------------------------------------------------------------------------------


@modes
@on_all
def test_every_kind_of_class_trains_as_in_keras(backend: str, run_eagerly: bool, tmp_path: Path) -> None:
    """Layer, initializer, regularizer, constraint, loss, metric, optimizer and schedule in one model; saved and loaded."""
    require_backend(backend)

    def settings(k: Any, own: SimpleNamespace) -> dict[str, Any]:
        optimizer = own.HeavyBall(own.Halving(0.1), clipnorm=1.0)
        return {"optimizer": optimizer, "loss": own.Lopsided(above=3.0), "metrics": [own.Worst(), "mae"]}

    def built(k: Any, own: SimpleNamespace) -> Any:
        return model_of(k, own, kernel_regularizer=own.FourthPower(0.3), kernel_constraint=own.InTheBall(0.9))

    theirs, ours = built(keras, THEIRS), built(ul, OURS)
    expected = trained(theirs, settings(keras, THEIRS))
    found = trained(ours, settings(ul, OURS), backend=backend, run_eagerly=run_eagerly)
    assert_same_history(found, expected)
    assert float(ours.layers[0].calls) == float(theirs.layers[0].calls.value) == 12
    ours.save(tmp_path / "all.keras")
    loaded = ul.load_model(tmp_path / "all.keras", custom_objects=vars(OURS))
    assert_close(loaded.predict(X), ours.predict(X), rtol=1e-5, atol=1e-6, what="prediction")
    layer, loss = loaded.layers[0], loaded._objectives
    assert (layer.kernel_regularizer.strength, layer.kernel_constraint.radius) == (0.3, 0.9)
    kept = loaded.evaluate(X, Y, verbose=0, return_dict=True, backend=backend)
    assert kept == pytest.approx(ours.evaluate(X, Y, verbose=0, return_dict=True, backend=backend), rel=1e-6)
    assert loss.built and set(kept) == {"loss", "worst", "mae"}
