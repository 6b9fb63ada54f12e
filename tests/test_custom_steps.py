"""Steps that a model writes itself: written once, on every backend, compiled and op by op."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers, ops
from unilayers.errors import UnilayersError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6)).astype("float32")
Y = RNG.normal(size=(20, 2)).astype("float32")


class Written(ul.Model):
    """The usual step, as Keras's guides write it: a tape, trackers of its own, their values as logs."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        self.hidden, self.drop = layers.Dense(5, activation="tanh"), layers.Dropout(0.3)
        self.out = layers.Dense(2, kernel_regularizer="l2")
        self.loss_tracker = ul.metrics.Mean(name="loss")
        self.mae = ul.metrics.MeanAbsoluteError(name="mae")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(self.drop(self.hidden(x), training=training))

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with ul.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = ops.mean(ops.square(y - y_pred)) + self.regularization_losses()[0]
        grads = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.trainable_variables, strict=True))
        self.loss_tracker.update_state(loss)
        self.mae.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        y_pred = self(x, training=False)
        self.mae.update_state(y, y_pred)
        return {"mae": self.mae.result()}

    @property
    def metrics(self) -> list[Any]:
        return [self.loss_tracker, self.mae]


class Plain(Written):
    """The same model with the built-in steps."""

    train_step, test_step, metrics = ul.Model.train_step, ul.Model.test_step, ul.Model.metrics


class Doubled(Plain):
    """A step built on the usual one."""

    def train_step(self, data: Any) -> dict[str, Any]:
        logs = super().train_step(data)
        return {**logs, "twice": logs["loss"] * 2.0}


def trained(cls: type[ul.Model], backend: str, eager: bool = False, **fit: Any) -> tuple[Any, dict[str, Any]]:
    model = cls()
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=eager)
    data = {"x": X, "y": Y, "batch_size": 8, "epochs": 3, "verbose": 0, "backend": backend, **fit}
    return model, model.fit(**data).history


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_written_step_is_the_usual_one(backend: str, eager: bool) -> None:
    require_backend(backend)
    _, expected = trained(Plain, "numpy", validation_data=(X, Y))
    model, found = trained(Written, backend, eager, validation_data=(X, Y))
    assert found.keys() == {"loss", "mae", "val_mae"}
    for name in ("mae", "val_mae"):
        assert_close(np.array(found[name]), np.array(expected[name]), rtol=2e-5, atol=0, what=name)
    assert model.position.step == 9
    assert model.train_on_batch(X[:4], Y[:4], return_dict=True, backend=backend).keys() == {"loss", "mae"}
    value = model.evaluate(X, Y, verbose=0, backend=backend)
    assert value == pytest.approx(float(np.abs(model.predict(X, verbose=0) - Y).mean()), rel=1e-5)


def test_a_step_on_top_of_the_usual_one() -> None:
    for eager in (False, True):
        _, expected = trained(Plain, "numpy")
        _, found = trained(Doubled, "numpy", eager)
        assert_close(np.array(found["loss"]), np.array(expected["loss"]), rtol=1e-5, atol=0, what="loss")
        assert_close(np.array(found["twice"]), 2 * np.array(found["loss"]), rtol=1e-6, atol=0, what="twice")


class Adversaries(ul.Model):
    """Two networks with an optimizer each, data without targets, and no ``call``."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.critic = ul.Sequential([ul.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
        self.maker = ul.Sequential([ul.Input((3,)), layers.Dense(6)])

    def compile(self, critic: Any, maker: Any, **kwargs: Any) -> None:
        super().compile(**kwargs)
        self.critic_optimizer, self.maker_optimizer = critic, maker

    def train_step(self, real: Any) -> dict[str, Any]:
        noise = ops.sin(real[:, :3] * 7.0)
        with ul.GradientTape() as tape:
            fake = self.maker(noise)
            loss = ops.mean(self.critic(fake)) - ops.mean(self.critic(real))
        weights = self.critic.trainable_weights
        self.critic_optimizer.apply(tape.gradient(loss, weights), weights)
        with ul.GradientTape() as tape:
            other = -ops.mean(self.critic(self.maker(noise)))
        weights = self.maker.trainable_weights
        self.maker_optimizer.apply(tape.gradient(other, weights), weights)
        return {"critic": loss, "maker": other}


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_optimizers(backend: str) -> None:
    require_backend(backend)

    def run(name: str, eager: bool) -> tuple[dict[str, Any], list[np.ndarray]]:
        model = Adversaries()
        model.compile(ul.optimizers.Adam(0.01), ul.optimizers.SGD(0.1, momentum=0.5), run_eagerly=eager)
        return model.fit(X, batch_size=10, epochs=3, verbose=0, backend=name).history, model.get_weights()

    expected, weights = run("numpy", True)
    found, others = run(backend, False)
    for name in ("critic", "maker"):
        assert_close(np.array(found[name]), np.array(expected[name]), rtol=1e-5, atol=1e-6, what=name)
    for a, e in zip(others, weights, strict=True):
        assert_close(a, e, rtol=1e-5, atol=1e-6, what="weights")


def test_logs_must_be_a_dict() -> None:
    class Wrong(Written):
        def train_step(self, data: Any) -> Any:
            return 3.0

    with pytest.raises(UnilayersError, match=r"train_step gives no logs\. Expected a dict of scalars by name"):
        trained(Wrong, "numpy")


class Parts(ul.Model):
    """The usual step with a loss and metrics of its own."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        self.dense = layers.Dense(2, kernel_regularizer="l2")
        self.largest = ul.metrics.Mean(name="largest")

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight) + ops.mean(y_pred**2)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        self.largest.update_state(ops.max(ops.abs(y_pred)))
        return {**super().compute_metrics(x, y, y_pred, sample_weight), "one": ops.ones(())}


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_and_metrics_of_the_models_own(backend: str, eager: bool) -> None:
    require_backend(backend)
    model = Parts()
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=eager, backend=backend)
    kernel = model(X) is not None and model.get_weights()[0]
    y_pred = X @ kernel
    wanted = {
        "loss": 2 * (np.mean((y_pred - Y) ** 2) + 0.01 * np.sum(kernel**2)) + np.mean(y_pred**2),
        "mae": np.mean(np.abs(y_pred - Y)),
        "largest": np.abs(y_pred).max(),
        "one": 1.0,
    }
    found = model.evaluate(X, Y, verbose=0, return_dict=True)
    history = model.fit(X, Y, batch_size=len(X), epochs=2, verbose=0).history
    assert found.keys() == history.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(found[name], np.float64(value), rtol=1e-5, atol=0, what=f"evaluate {name}")
        assert_close(history[name][0], np.float64(value), rtol=1e-5, atol=0, what=f"fit {name}")
    assert history["loss"][1] < history["loss"][0]
