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
    assert (
        optimizer.learning_rate == 0.125 and ul.optimizers.SGD.from_config({"learning_rate": 0.5}).learning_rate == 0.5
    )
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
    """Layer, initializer, regularizer, constraint, loss, metric, optimizer, schedule in one model; saved and loaded."""
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


def test_a_size_that_is_not_known_counts_as_a_number() -> None:
    """Of a graph it is a value; called at once it is an int."""
    x = ul.Input((None, 3))

    class Sizes(ul.Layer):
        def call(self, inputs: Any) -> Any:
            batch, steps, _ = ul.ops.shape(inputs)
            return (
                inputs / steps
                + ul.ops.cast(batch, "float32")
                - ul.ops.cast(ul.ops.maximum(batch, 2) * batch, "float32")
            )

    layer = Sizes()
    data = RNG.normal(size=(4, 5, 3)).astype("float32")
    found = ul.Model(x, layer(x)).predict(data)
    assert_close(found, data / 5 + 4 - 16, rtol=1e-6, atol=1e-6, what="y")
    assert_close(layer(data), found, rtol=1e-6, atol=1e-6, what="at once")


# ---- state as values ------------------------------------------------------------------------------------------------


def stateful() -> Any:
    layers = [ul.layers.Dense(4, activation="tanh", kernel_regularizer="l2"), ul.layers.BatchNormalization()]
    return ul.Sequential([ul.Input((5,)), *layers, ul.layers.Dropout(0.3), ul.layers.Dense(2)], seed=1)


@on_all
@pytest.mark.parametrize("way", ["at once", "function", "jit"])
def test_a_loop_with_state_as_values_is_fit(backend: str, way: str) -> None:
    """The loop that Keras's guide writes for JAX, on every backend; for JAX with its own transformations, too."""
    engine = require_backend(backend)
    if way == "jit" and backend != "jax":
        pytest.skip("a transformation of JAX")
    whole = stateful()
    expected = trained(whole, {"optimizer": ul.optimizers.Adam(0.01, weight_decay=0.1), "loss": "mse"}, backend=backend)
    model, loss_fn, tracker = stateful(), ul.losses.MeanSquaredError(), ul.metrics.Mean()
    optimizer = ul.optimizers.Adam(0.01, weight_decay=0.1)
    optimizer.build(model.trainable_variables)
    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables, tracker.variables)
    kept = [[v.numpy() for v in group] for group in groups]

    def compute_loss(weights: Any, others: Any, x: Any, y: Any) -> Any:
        y_pred, others, added = model.stateless_call(weights, others, x, training=True, return_losses=True)
        return loss_fn(y, y_pred) + sum(added), others

    def gradients(weights: Any, others: Any, x: Any, y: Any) -> Any:
        with ul.GradientTape() as tape:
            watched = [tape.watch(w) for w in weights]
            loss, others = compute_loss(watched, others, x, y)
        return (loss, others), tape.gradient(loss, watched)

    if way == "jit":
        import jax

        gradients = jax.value_and_grad(compute_loss, has_aux=True)

    def step(state: Any, x: Any, y: Any) -> Any:
        weights, others, own, sums = state
        (loss, others), grads = gradients(weights, others, x, y)
        weights, own = optimizer.stateless_apply(own, grads, weights)
        return weights, others, own, tracker.stateless_update_state(sums, loss, sample_weight=6.0)

    def there(x: np.ndarray) -> Any:
        return engine.put([x.copy()], engine.device(None))[0]

    step = {"at once": lambda f: f, "function": ul.function, "jit": lambda f: jax.jit(f)}[way](step)
    state: Any = tuple([there(v) for v in group] for group in kept)
    first, found = state, []
    for _ in range(3):
        for i in range(0, 24, 6):
            state = step(state, there(X[i : i + 6]), there(Y[i : i + 6]))
        found.append(float(ul.ops.to_numpy(tracker.stateless_result(state[3]))))
        state = (*state[:3], tracker.stateless_reset_state())
    assert_close(np.asarray(found), np.asarray(expected["loss"]), rtol=2e-5, atol=0, what="loss")
    for before, given, group in zip(kept, first, groups, strict=True):
        for value, array, variable in zip(before, given, group, strict=True):
            assert_close(ul.ops.to_numpy(array), value, rtol=0, atol=0, what=f"what was given for {variable.path}")
            assert_close(variable.numpy(), value, rtol=0, atol=0, what=variable.path)
    for value, variable in zip(
        state[0] + state[1], whole.trainable_variables + whole.non_trainable_variables, strict=True
    ):
        assert_close(ul.ops.to_numpy(value), variable.numpy(), rtol=2e-5, atol=2e-6, what=variable.path)


def test_state_as_values_must_fit() -> None:
    model, metric = stateful(), ul.metrics.Mean()
    weights, others = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
    with pytest.raises(UnilayersError, match="another number of values than of variables"):
        model.stateless_call(weights[1:], others, X)
    with pytest.raises(ShapeError, match="value does not fit the variable"):
        model.stateless_call(weights[::-1], others, X)
    with pytest.raises(UnilayersError, match="another number of values than of variables"):
        metric.stateless_result([])
    with pytest.raises(UnilayersError, match="not built"):
        ul.optimizers.SGD().stateless_apply([], [np.zeros(2)], [np.zeros(2)])


# ---- layers and models ----------------------------------------------------------------------------------------------


@ul.utils.register_keras_serializable("own")
class Counted(ul.Layer):
    """Keeps a Python list beside its weights, and a kernel in another form; is built with two numbers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words: list[int] = []
        self.dense = ul.layers.Dense(2)

    def build(self, rows: int, columns: int = 3) -> None:
        self.rows, self.columns = rows, columns
        self.kernel = self.add_weight(shape=(rows, columns), initializer="ones")

    def get_build_config(self) -> dict[str, Any]:
        return {"rows": self.rows, "columns": self.columns}

    def build_from_config(self, config: Any) -> None:
        self.build(**config)

    def call(self, x: Any) -> Any:
        return self.dense(ul.ops.matmul(x, self.kernel))

    def save_own_variables(self, store: Any) -> None:
        store["words"] = np.asarray(self.words)
        store["negative"] = -self.kernel.numpy()

    def load_own_variables(self, store: Any) -> None:
        self.words = store["words"].tolist()
        self.kernel.assign(-store["negative"])


class Holder(ul.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = Counted()

    def call(self, x: Any) -> Any:
        return self.inner(x)


def test_a_layer_keeps_what_it_wants_in_files(tmp_path: Path) -> None:
    model = Holder(seed=2)
    model.inner.build(5, columns=4)
    model.inner.built = True
    y = model.predict(X)
    model.inner.words = [3, 1]
    model.inner.kernel.assign(RNG.normal(size=(5, 4)))
    y = model.predict(X)
    model.save(tmp_path / "whole.keras")
    loaded = ul.load_model(tmp_path / "whole.keras")
    assert loaded.inner.words == [3, 1] and loaded.inner.columns == 4
    assert_close(loaded.predict(X), y, rtol=0, atol=0, what="prediction")
    model.save_weights(tmp_path / "part.weights.h5")
    other = Holder(seed=3)
    other.inner.build(5, columns=4)
    other.inner.built = True
    other.predict(X)
    other.load_weights(tmp_path / "part.weights.h5")
    assert other.inner.words == [3, 1]
    assert_close(other.predict(X), y, rtol=0, atol=0, what="prediction")


def test_the_usual_layer_in_own_files() -> None:
    one, other = ul.layers.Dense(2), ul.layers.Dense(2)
    assert one.get_build_config() is None
    one(X)
    assert one.get_build_config() == {"input_shape": (24, 5)}
    other.build_from_config({"input_shape": [24, 5]})
    assert other.built and other.kernel.shape == (5, 2)
    store: dict[str, Any] = {}
    one.save_own_variables(store)
    assert list(store) == ["0", "1"]
    other.load_own_variables(store)
    assert_close(other(X), one(X), rtol=0, atol=0, what="y")
    with pytest.raises(ShapeError, match="another number of values"):
        other.load_own_variables({"0": store["0"]})
    attention = ul.layers.MultiHeadAttention(2, 3)
    attention(X[:, None], X[:, None])
    again = ul.layers.MultiHeadAttention(2, 3)
    again.build_from_config(attention.get_build_config())
    assert [v.shape for v in again.weights] == [v.shape for v in attention.weights]
    spec = one.compute_output_spec(ul.Input((5,)))
    assert spec.shape[1:] == (2,) and spec.dtype == "float32" and one.compute_output_shape((None, 5)) == (None, 2)


class Classes(ul.Model):
    """Predicts classes, not scores."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = ul.layers.Dense(3)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.dense(x) + (1.0 if training else 0.0)

    def predict_step(self, data: Any) -> Any:
        x, _, _ = ul.utils.unpack_x_y_sample_weight(data)
        scores = self(x, training=False)
        return {"class": ul.ops.argmax(scores, axis=-1), "best": ul.ops.max(scores, axis=-1)}


@modes
@on_all
def test_a_step_of_prediction_of_ones_own(backend: str, run_eagerly: bool) -> None:
    require_backend(backend)
    model = Classes(seed=4)
    model.compile(backend=backend, run_eagerly=run_eagerly)
    scores = ul.ops.to_numpy(model(X))
    for _ in range(3):  # the later ones may run from what the first has noted
        found = model.predict(X, batch_size=10)
    assert found.keys() == {"class", "best"}
    assert_close(found["class"].astype("int64"), scores.argmax(-1), rtol=0, atol=0, what="class")
    assert_close(found["best"], scores.max(-1), rtol=1e-6, atol=1e-6, what="best")


def test_layers_are_added_without_being_built() -> None:
    model = ul.Sequential([ul.Input((5,))])
    model.add(ul.layers.Dense(3), rebuild=False)
    assert not model.layers[0].built
    model.add(ul.layers.Dense(2))
    assert model.layers[0].built and model.pop(rebuild=False).units == 2 and model.output_shape == (None, 3)


# ---- variables ------------------------------------------------------------------------------------------------------

VARIABLES: list[tuple[str, dict[str, Any]]] = [
    ("float", {"initializer": 1.5}),
    ("int", {"initializer": 3, "trainable": False}),
    ("bool", {"initializer": True, "trainable": False}),
    ("list", {"initializer": [1, 2], "trainable": False}),
    ("float16", {"initializer": np.ones((2, 3), "float16")}),
    ("int8", {"initializer": np.int8(3), "trainable": False}),
    ("dtype", {"initializer": [1, 2], "dtype": "float32", "trainable": False}),
    ("name", {"initializer": "ones", "shape": (2, 3)}),
    ("function", {"initializer": lambda shape, dtype: 7 * np.ones(shape, dtype), "shape": (2,)}),
    ("inert", {"initializer": 0.0, "aggregation": "sum", "synchronization": "on_read", "autocast": False, "name": "n"}),
]


@pytest.mark.parametrize("given", [v for _, v in VARIABLES], ids=[n for n, _ in VARIABLES])
def test_variables_are_what_keras_makes(given: dict[str, Any]) -> None:
    mine, theirs = ul.Variable(**given), keras.Variable(**given)
    assert (mine.shape, mine.ndim, mine.dtype) == (tuple(theirs.shape), theirs.ndim, theirs.dtype)
    for name in ("trainable", "aggregation", "synchronization", "overwrite_with_gradient"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert given.get("name") in (None, mine.name)

    def same(a: Any, b: Any) -> None:
        assert_close(ul.ops.to_numpy(a), keras.ops.convert_to_numpy(b), rtol=1e-6, atol=0, what="value")

    same(mine, theirs)
    same(mine.value, theirs.value)
    same(np.asarray(mine), theirs)
    if mine.dtype == "bool":
        return
    same(mine.assign_add(np.ones(mine.shape, mine.dtype)), theirs.assign_add(np.ones(mine.shape, mine.dtype)))
    same(mine.assign_sub(np.full(mine.shape, 2, mine.dtype)), theirs.assign_sub(np.full(mine.shape, 2, mine.dtype)))
    same(mine.assign(mine * 2), theirs.assign(theirs * 2))
    same(mine, theirs)
    for op in ("__lt__", "__le__", "__gt__", "__ge__", "__sub__", "__rsub__", "__truediv__", "__matmul__", "__neg__"):
        if op == "__matmul__" and mine.ndim == 0:
            continue
        other = [] if op == "__neg__" else [np.ones((3, 2) if op == "__matmul__" and mine.ndim == 2 else mine.shape)]
        if "int" in mine.dtype and op in ("__truediv__", "__matmul__"):
            continue
        arguments = [o.astype(mine.dtype) for o in other]
        same(getattr(mine, op)(*arguments), getattr(theirs, op)(*arguments))
    if mine.ndim:
        same(mine[0], theirs[0])
        same(mine[..., -1:], theirs[..., -1:])


def test_random_variables_differ_and_come_again() -> None:
    def three() -> list[np.ndarray]:
        ul.set_random_seed(5)
        named = [ul.Variable("glorot_uniform", (3, 3), name=n) for n in "ab"]
        return [v.numpy() for v in (*named, ul.Variable(ul.initializers.RandomNormal(), (3, 3)))]

    first, again = three(), three()
    assert all(np.array_equal(a, b) for a, b in zip(first[:2], again[:2], strict=True))
    assert len({x.tobytes() for x in first}) == 3
    assert not np.array_equal(*(ul.Variable("glorot_uniform", (3, 3)).numpy() for _ in range(2))), "without names"
    assert ul.Variable("zeros", (2,), dtype=np.float64).dtype == "float64"


def test_variables_that_cannot_be() -> None:
    with pytest.raises(ShapeError, match=r"shape is missing.*Say Variable\(initializer, shape\)"):
        ul.Variable("zeros")
    with pytest.raises(ShapeError, match="the value has another shape"):
        ul.Variable(np.zeros(2), shape=(3,))
    with pytest.raises(UnilayersError, match=r"Variable.initializer: unknown initializer 'zeroes'"):
        ul.Variable("zeroes", shape=(3,))


@modes
@on_all
def test_the_value_of_a_variable_is_differentiated(backend: str, run_eagerly: bool) -> None:
    """``value``, and what ``assign`` gives, in a layer: a compiled step and one that runs op by op learn alike."""
    require_backend(backend)

    class Valued(ul.Layer):
        def build(self, input_shape: Any) -> None:
            self.w = self.add_weight(shape=(input_shape[-1], 2), initializer="ones")
            self.count = ul.Variable(0.0, trainable=False)

        def call(self, x: Any) -> Any:
            return ul.ops.matmul(x, self.w.value) * self.count.assign_add(1.0) / self.count.value

    plain = ul.Sequential([ul.Input((5,)), ul.layers.Dense(2, use_bias=False, kernel_initializer="ones")])
    expected = trained(plain, {"optimizer": "sgd", "loss": "mse"}, backend="numpy")
    model = ul.Sequential([ul.Input((5,)), Valued()])
    found = trained(model, {"optimizer": "sgd", "loss": "mse"}, backend=backend, run_eagerly=run_eagerly)
    assert_close(np.asarray(found["loss"]), np.asarray(expected["loss"]), rtol=2e-5, atol=0, what="loss")
    assert [v.path for v in model.layers[0].variables] == ["valued/weight", "valued/count"]
    assert float(model.layers[0].count) == 12


# ---- configs written by hand ----------------------------------------------------------------------------------------


@ul.utils.register_keras_serializable("own")
class Activated(ul.Layer):
    """Around another layer, which it builds and describes itself."""

    def __init__(self, inner: Any, activation: Any = "tanh", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner, self.activation = inner, ul.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        self.inner.build(input_shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return self.activation(self.inner(x))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        inner = ul.saving.serialize_keras_object(self.inner)
        return {**config, "inner": inner, "activation": ul.activations.serialize(self.activation)}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        config["inner"] = ul.saving.deserialize_keras_object(config.pop("inner"))
        return cls(**config)


class Nameless(ul.Layer):
    """Its constructor takes no name."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, x: Any) -> Any:
        return x * self.factor


def graph_of_layers() -> Any:
    x = ul.Input((5,))
    return ul.Model(x, Nameless(2.0)(Activated(ul.layers.Dense(3))(Nameless(0.5)(Activated(ul.layers.Dense(4))(x)))))


def stack_of_layers() -> Any:
    return ul.Sequential([ul.Input((5,)), Activated(ul.layers.Dense(3)), Nameless(0.5)])


@pytest.mark.parametrize("make", [graph_of_layers, stack_of_layers])
def test_configs_written_by_hand_make_models_again(make: Any, tmp_path: Path) -> None:
    model = make()
    frozen = next(layer for layer in model.layers if isinstance(layer, Activated))
    frozen.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = ul.load_model(tmp_path / "model.keras")
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables] and len(loaded.weights) % 2 == 0
    assert len(loaded.trainable_weights) == len(model.trainable_weights) < len(model.weights)
    assert_close(loaded.predict(X), model.predict(X), rtol=0, atol=0, what="prediction")
    again = Activated.from_config(frozen.get_config())
    assert again.name == frozen.name and not again.trainable


@modes
def test_a_step_of_ones_own_sees_the_rate_of_now(run_eagerly: bool) -> None:
    class Telling(ul.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.tracker = ul.layers.Dense(2), ul.metrics.Mean(name="loss")

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with ul.GradientTape() as tape:
                loss = ul.ops.mean((y - self(x, training=True)) ** 2)
            weights = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            self.tracker.update_state(loss)
            return {"rate": self.optimizer.learning_rate, "loss": self.tracker.result()}

    model = Telling()
    model.compile(ul.optimizers.SGD(0.5), run_eagerly=run_eagerly)
    assert model.fit(X, Y, verbose=0).history["rate"] == [0.5]
    model.optimizer.learning_rate = 0.25
    assert model.fit(X, Y, verbose=0).history["rate"] == [0.25]
    assert [v.path for v in model.metrics_variables if "loss" in v.path]


def test_remat_is_checkpoint() -> None:
    assert ul.remat is ul.ops.checkpoint


def test_scopes_lie_in_one_another_and_keep_dtypes() -> None:
    half, count = ul.Variable(np.ones(2, "float16")), ul.Variable(1)
    with ul.StatelessScope([(half, np.full(2, 3, "float16"))]) as outer, ul.StatelessScope() as inner:
        half.assign_add(np.ones(2, "float32"))
        count.assign(2.5)
    assert outer.get_current_value(half).tolist() == [3, 3] and inner.get_current_value(half).tolist() == [4, 4]
    assert inner.get_current_value(half).dtype == "float16" and int(inner.get_current_value(count)) == 2
    assert half.numpy().tolist() == [1, 1] and outer.get_current_value(count) is None
    assert ul.function(lambda: half.assign(np.ones(2, "float32")))().dtype == "float16"
