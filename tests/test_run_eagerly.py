"""Models that run op by op: the compiled step's numbers, any Python in ``call``, nothing ever traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers, ops
from unilayers.callbacks import Callback, EarlyStopping, LearningRateScheduler
from unilayers.errors import GraphError, UnilayersError
from unilayers.graph import Value

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6)).astype("float32")
Y = RNG.integers(0, 3, 20).astype("int32")
WEIGHT = RNG.uniform(size=20)
LOGITS = ul.losses.SparseCategoricalCrossentropy(from_logits=True)
MODES = pytest.mark.parametrize("run_eagerly", [False, True], ids=["compiled", "eager"])


class StepLosses(Callback):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.append(logs["batch_loss"])


# ---- the same numbers ------------------------------------------------------------


def digits_net(**kwargs: Any) -> ul.Model:
    model = ul.Sequential(
        [
            ul.Input((8, 8, 1)),
            layers.Conv2D(6, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(10),
        ],
        seed=3,
    )
    model.compile("adam", LOGITS, metrics=["accuracy"], **kwargs)
    return model


def digits_run(backend: str, run_eagerly: bool) -> dict[str, Any]:
    """What 50 steps, an evaluation and a prediction give."""
    data, watch = ul.data.load("digits"), StepLosses()
    x, y = data.x[:400], data.y[:400]
    model = digits_net(backend=backend, run_eagerly=run_eagerly)
    history = model.fit(
        x, y, batch_size=16, epochs=2, verbose=0, callbacks=[watch], validation_data=(x[:50], y[:50])
    ).history
    assert len(watch.losses) == 50
    assert {v.store.backend.name for v in model.variables} == {backend}
    return {
        "losses": np.array(watch.losses),
        "accuracy": np.array(history["accuracy"]),
        "validation": np.array(history["val_loss"]),
        "evaluate": np.array(model.evaluate(x, y, verbose=0)),
        "predict": model.predict(x, verbose=0),
    } | {v.path: v.numpy() for v in model.variables}


@pytest.mark.parametrize("backend", BACKENDS)
def test_fifty_steps_equal_the_compiled_ones(backend: str) -> None:
    require_backend(backend)
    expected, found = digits_run(backend, False), digits_run(backend, True)
    for name, value in expected.items():
        assert_close(found[name], value, rtol=2e-4, atol=2e-5, what=f"{name} on {backend}")


class Keep(layers.Layer):
    """Keeps its input in a weight."""

    def build(self, input_shape: Any) -> None:
        self.kept = self.add_weight((7, input_shape[1]), "zeros", trainable=False, name="kept")

    def call(self, x: Any) -> Any:
        self.kept.assign(x)
        return x


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_are_bit_equal(backend: str) -> None:
    require_backend(backend)
    masks = []
    for run_eagerly in (False, True):
        keep = Keep()
        model = ul.Sequential([ul.Input((50,), batch_size=7), layers.Dropout(0.3), keep, layers.Dense(1)], seed=1)
        model.compile("sgd", "mse", backend=backend, run_eagerly=run_eagerly)
        for _ in range(3):
            model.train_on_batch(np.ones((7, 50), "float32"), np.zeros((7, 1), "float32"))
            masks.append(keep.kept.numpy())
    assert len({m.tobytes() for m in masks}) == 3
    for compiled, eager in zip(masks[:3], masks[3:], strict=True):
        np.testing.assert_array_equal(eager, compiled)


# ---- everything compile and fit offer ---------------------------------------------


class Penalised(layers.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(ops.mean(ops.square(x)))
        return x * 2


def plain(**kwargs: Any) -> tuple[ul.Model, Any, Any, Any]:
    model = ul.Sequential(
        [layers.Dense(5, kernel_regularizer=ul.regularizers.L2(0.1)), Penalised(), layers.Dense(3)], seed=2
    )
    model.compile("adam", LOGITS, metrics=["accuracy"], weighted_metrics=["crossentropy"], **kwargs)
    return model, X, Y, WEIGHT


def only_added_losses(**kwargs: Any) -> tuple[ul.Model, Any, Any, Any]:
    model = ul.Sequential([ul.Input((6,)), layers.Dense(4), Penalised()], seed=2)
    model.compile(ul.optimizers.SGD(0.1, momentum=0.9), **kwargs)
    return model, X, None, None


def branches(**kwargs: Any) -> tuple[ul.Model, Any, Any, Any]:
    a, b = ul.Input((6,), name="a"), ul.Input((6,), dtype="int32", name="b")
    h = layers.Concatenate()([layers.Dense(5, activation="tanh")(a), ops.astype(b, "float32") * 0.1])
    frozen = layers.Dense(4)
    h = frozen(h)
    frozen.trainable = False
    model = ul.Model([a, b], {"kind": layers.Dense(3)(h), "size": layers.Dense(1)(h[:, :2])}, seed=2)
    model.compile(
        ul.optimizers.AdamW(0.01, global_clipnorm=0.5),
        {"kind": LOGITS, "size": "mse"},
        {"kind": ["accuracy"], "size": ["mae"]},
        loss_weights={"kind": 1.0, "size": 0.5},
        **kwargs,
    )
    x = {"b": np.arange(120).reshape(20, 6), "a": X.astype("float64")}
    return model, x, {"size": X[:, :1], "kind": Y}, {"kind": np.linspace(0, 1, 20), "size": np.ones(20)}


class Written(ul.Model):
    """Nothing is known before the first batch; a part of the weights takes no part in the loss."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.last, self.unused = layers.Dense(4), layers.Dense(3), layers.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        h = self.first(x)
        self.unused(h)
        return self.last(ops.relu(h) * (2.0 if training else 1.0))


def written(**kwargs: Any) -> tuple[ul.Model, Any, Any, Any]:
    model = Written(seed=2)
    model.compile(
        ul.optimizers.Adam(0.01, weight_decay=0.1),
        lambda y_true, y_pred: ops.mean((y_pred - ops.reshape(y_true, (-1, 1))) ** 2, axis=-1),
        metrics=[lambda y_true, y_pred: y_true * 2 - y_pred[:, 0]],
        **kwargs,
    )
    return model, X, Y, None


CASES = [plain, only_added_losses, branches, written]


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_compile_offers_gives_the_same_numbers(backend: str, make: Callable[..., Any]) -> None:
    require_backend(backend)
    runs = []
    for run_eagerly in (False, True):
        model, x, y, weight = make(run_eagerly=run_eagerly, backend=backend)
        found = {
            "first": model.train_on_batch(x, y, sample_weight=weight, return_dict=True),
            "fit": model.fit(x, y, batch_size=7, epochs=2, sample_weight=weight, verbose=0).history,
            "evaluate": model.evaluate(x, y, batch_size=6, sample_weight=weight, return_dict=True, verbose=0),
            "test": model.test_on_batch(x, y, sample_weight=weight, return_dict=True),
        }
        numbers = {f"{k} {name}": np.array(v) for k, logs in found.items() for name, v in logs.items()}
        outputs = model.predict(x, batch_size=9, verbose=0)
        outputs = outputs if isinstance(outputs, dict) else {"y": outputs}
        runs.append(numbers | outputs | {v.path: v.numpy() for v in model.variables})
        assert model.metrics_names == list(found["first"])
    assert runs[0].keys() == runs[1].keys()
    for name, value in runs[0].items():
        assert_close(runs[1][name], value, rtol=1e-4, atol=1e-5, what=f"{name} on {backend}")


@MODES
def test_inputs_given_by_name_come_in_any_order(run_eagerly: bool) -> None:
    a, b = ul.Input((2,), name="a"), ul.Input((2,), name="b")
    model = ul.Model([a, b], a - 2.0 * b)
    model.run_eagerly = run_eagerly
    data = {"a": np.ones((3, 2), "float32"), "b": np.full((3, 2), 5.0, "float32")}
    for given in (data, dict(reversed(data.items())), data | {"unused": np.ones(3)}):
        np.testing.assert_array_equal(model.predict(given, verbose=0), np.full((3, 2), -9.0))

    class Named(ul.Model):
        def call(self, x: Any) -> Any:
            return x["a"] - 2.0 * x["b"]

    model = Named()
    model.run_eagerly = run_eagerly
    for given in (data, dict(reversed(data.items()))):
        np.testing.assert_array_equal(model.predict(given, verbose=0), np.full((3, 2), -9.0))


# ---- Python in the model -----------------------------------------------------------


class Deciding(ul.Model):
    """Conditions on values, a loop as long as the data says, layers made on the way."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.up, self.down, self.last = layers.Dense(4), layers.Dense(4), layers.Dense(3)
        self.seen: list[Any] = []

    def call(self, x: Any) -> Any:
        assert not isinstance(x, Value), "the model is traced"
        self.seen.append((type(x).__name__, x.shape, float(ops.sum(x))))
        h = self.up(x) if ops.sum(x) > 0 else self.down(x)
        for _ in range(int(ops.max(ops.abs(x)))):
            h = h * 0.9
        return self.last(h)


def by_hand(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    name = "dense" if x.sum() > 0 else "dense_1"
    h = x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]
    h = h * 0.9 ** int(np.abs(x).max())
    return h @ weights["dense_2/kernel"] + weights["dense_2/bias"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_decides_by_values_trains(backend: str) -> None:
    require_backend(backend)
    x = np.concatenate([np.abs(X[:10]), -np.abs(X[10:])])
    model = Deciding(seed=1)
    model.compile(ul.optimizers.Adam(0.02), LOGITS, metrics=["accuracy"], backend=backend, run_eagerly=True)
    history = model.fit(x, Y, batch_size=10, epochs=20, shuffle=False, verbose=0).history
    assert len(model.seen) == 40, "each batch runs once, the first one, too"
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    for v in model.trainable_weights:  # those, too, that the second batch created
        start = np.zeros(v.shape, "float32") if v.name == "bias" else v._initial(v.path)
        assert np.abs(v.numpy() - start).max() > 0.05, v
    assert all(v.store.backend.name == backend for v in [*model.variables, *model.optimizer.variables])
    weights = {v.path: v.numpy() for v in model.weights}
    expected = np.concatenate([by_hand(weights, part) for part in (x[:10], x[10:])])
    assert_close(model.predict(x, batch_size=10, verbose=0), expected, rtol=1e-4, atol=1e-5, what="predict")


def test_it_is_saved_and_built_again_without_a_trace(tmp_path: Any) -> None:
    class Counting(ul.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.first = layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.first(x) if float(ops.sum(x)) < 1e9 else x

    model = Counting(seed=1)
    model.compile("adam", LOGITS, run_eagerly=True)
    model.fit(X, Y, epochs=2, verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = ul.load_model(tmp_path / "model.safetensors")
    assert again.run_eagerly
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    assert again.fit(X, Y, epochs=1, verbose=0).history == model.fit(X, Y, epochs=1, verbose=0).history


def test_without_run_eagerly_it_fails_with_the_way_out() -> None:
    class Plain(ul.Model):
        def call(self, x: Any) -> Any:
            return x if ops.sum(x) > 0 else -x

    model = Plain()
    model.compile("adam", "mse")
    with pytest.raises(GraphError, match=r"model 'plain': .*no truth value.*run_eagerly=True"):
        model.fit(X, X, verbose=0)
    model.run_eagerly = True
    np.testing.assert_array_equal(model.predict(X[:1] * 0 - 1, verbose=0), np.ones((1, 6)))


def test_nothing_to_minimise_is_said() -> None:
    model = ul.Sequential([layers.Dense(2)])
    model.compile("adam", run_eagerly=True)
    with pytest.raises(UnilayersError, match="nothing to minimise"):
        model.fit(X, verbose=0)


@MODES
def test_the_optimizer_may_scale_the_loss_and_average_the_weights(run_eagerly: bool) -> None:
    """Scaling by a power of two changes no bit; at the end of ``fit`` the averages are the weights."""
    runs = []
    for options in ({}, {"loss_scale_factor": 1024.0}, {"use_ema": True, "ema_momentum": 0.5}):
        model, x, y, _ = plain(run_eagerly=run_eagerly)
        model.compile(ul.optimizers.SGD(0.1, **options), LOGITS, run_eagerly=run_eagerly)
        steps: list[list[np.ndarray]] = []
        watch = ul.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, model=model, steps=steps: steps.append(model.get_weights())
        )
        model.fit(x, y, batch_size=10, epochs=2, verbose=0, callbacks=[watch])
        runs.append((steps, model.get_weights()))
    (steps, last), (_, scaled), (seen, averaged) = runs
    for i, weights in enumerate(last):
        np.testing.assert_array_equal(scaled[i], weights)
        np.testing.assert_array_equal(seen[-1][i], weights)
        mean = steps[0][i]
        for step in steps[1:]:
            mean = 0.5 * mean + 0.5 * step[i]
        assert_close(averaged[i], mean, rtol=1e-5, atol=1e-6, what="average")


# ---- where the state is -------------------------------------------------------------


def test_it_is_a_property_and_a_keyword() -> None:
    model, x, y, _ = plain()
    assert model.run_eagerly is False
    model.fit(x, y, epochs=1, verbose=0)
    model.run_eagerly = True
    model.fit(x, y, epochs=1, verbose=0)
    model.compile("sgd", LOGITS)
    assert model.run_eagerly is False


@pytest.mark.parametrize("backend", BACKENDS)
def test_eager_and_compiled_training_take_turns_on_any_backend(backend: str) -> None:
    require_backend(backend)
    stay, move = digits_net(), digits_net()
    data = ul.data.load("digits")
    x, y = data.x[:48], data.y[:48]
    expected = stay.fit(x, y, batch_size=16, epochs=4, verbose=0, backend="numpy").history["loss"]
    found = []
    for run_eagerly, name in ((True, backend), (False, backend), (True, "numpy"), (False, backend)):
        move.run_eagerly = run_eagerly
        found += move.fit(x, y, batch_size=16, epochs=1, verbose=0, backend=name).history["loss"]
        assert {v.store.backend.name for v in move.variables} == {name}
    assert_close(np.array(found), np.array(expected), rtol=1e-4, atol=0, what="loss")
    for a, b in zip(move.get_weights(), stay.get_weights(), strict=True):
        assert_close(a, b, rtol=1e-3, atol=1e-4, what="weights")


def test_state_stays_in_one_store_from_step_to_step() -> None:
    model, x, y, _ = plain(run_eagerly=True)
    model.train_on_batch(x, y)
    store = model.variables[0].store
    for _ in range(2):
        model.train_on_batch(x, y)
        model.evaluate(x, y, verbose=0)
    state = [*model.variables, *model.optimizer.variables, *(v for m in model.metrics for v in m.variables)]
    assert {v.store for v in state} == {store}


def test_callbacks_reach_in() -> None:
    model, x, y, _ = plain(run_eagerly=True)
    rates = LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    stop = EarlyStopping("loss", patience=1, restore_best_weights=True, mode="max")
    model.fit(x, y, epochs=9, verbose=0, callbacks=[rates, stop])
    assert model.stop_training
    assert model.optimizer.learning_rate == pytest.approx(0.05)

    class Move(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.predict(X, verbose=0, backend="torch")

    require_backend("torch")
    still, moved = plain(run_eagerly=True)[0], plain(run_eagerly=True)[0]
    expected = still.fit(x, y, batch_size=5, verbose=0, backend="numpy").history["loss"]
    found = moved.fit(x, y, batch_size=5, verbose=0, backend="numpy", callbacks=[Move()]).history["loss"]
    assert_close(np.array(found), np.array(expected), rtol=1e-5, atol=0, what="loss")
    assert moved.variables[0].store.backend.name == "torch"


def test_losses_of_earlier_calls_do_not_count() -> None:
    model, x, y, _ = plain(run_eagerly=True)
    twin, *_ = plain(run_eagerly=True)
    model(X), model(X)
    twin(X)
    assert model.train_on_batch(x, y) == twin.train_on_batch(x, y)
    assert len(model.take_losses()) == 2
