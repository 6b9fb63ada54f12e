"""Models that run op by op: the compiled step's numbers, any Python in ``call``, nothing ever traced."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, each_name, require_backend
from unilayers import layers, ops
from unilayers.backend import get_backend
from unilayers.callbacks import Callback, EarlyStopping, LearningRateScheduler
from unilayers.errors import GraphError, ShapeError, UnilayersError
from unilayers.graph import Value
from unilayers.training.deferred import Memory

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


@each_name
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
        metrics={"kind": ["accuracy"], "size": ["mae"]},
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
@each_name
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
        start = np.zeros(v.shape, "float32") if v.name == "bias" else v.draw()
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
    model(X), model(X)
    assert len(model.take_losses()) == 1


# ---- steps whose ops are noted and run as one graph -----------------------------------


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by the program of each step that ran as one graph."""
    runs: list[Any] = []
    find = Memory.program

    def counting(self: Memory, *args: Any) -> Any:
        found = find(self, *args)
        if found is not None:
            runs.append(found)
        return found

    monkeypatch.setattr(Memory, "program", counting)
    return runs


def both(whole: list[Any], use: Callable[[], dict[str, Any]]) -> tuple[int, Any]:
    """Run ``use`` with steps that are noted and without; compare the numbers. How many steps were one graph, and what
    the first run gave."""
    whole.clear()
    found = use()
    count = len(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Memory, "begin", lambda *args: None)
        expected = use()
    assert len(whole) == count
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(np.asarray(found[name]), np.asarray(value), rtol=2e-4, atol=2e-5, what=name)
    return count, found


def numbers(model: ul.Model, x: Any = X, y: Any = Y, **kwargs: Any) -> dict[str, Any]:
    """Losses of each step of a fit, and all state at its end."""
    watch = StepLosses()
    model.fit(x, y, verbose=0, callbacks=[watch], **kwargs)
    found = {"losses": np.array(watch.losses), "evaluate": np.array(model.evaluate(x, y, verbose=0))}
    return found | {v.path: v.numpy() for v in [*model.variables, *model.optimizer.variables]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_noted_steps_give_the_same_numbers(backend: str, whole: list[Any]) -> None:
    require_backend(backend)
    count, _ = both(whole, lambda: digits_run(backend, True))
    assert count > 45  # all but the first steps of each kind, and batches of another size


class Residual(layers.Layer):
    """A user's layer with ops, a weight, a penalty, a NumPy array and a list of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = layers.Dense(6, activation="tanh", kernel_regularizer="l2")
        self.drop = layers.Dropout(0.3)
        self.calls: list[str] = []
        self.table = np.zeros(6, "float32")

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight((6,), "ones", name="scale")

    def call(self, x: Any, training: bool = False) -> Any:
        self.calls.append(f"{'train' if training else 'test'} {x.shape}")
        self.table += 0.01  # in place: the step must see it as it is now
        h = self.drop(self.inner(x))
        self.add_loss(0.1 * ops.mean(ops.square(h)))
        h = x + h * self.scale + self.table
        self.calls.append("end")
        low, high = ops.split(h, 2, axis=-1)
        return ops.concat([low * 0.5, high, x[:, :1]], axis=-1)


class Residuals(ul.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.one, self.norm, self.last = Residual(), layers.BatchNormalization(), layers.Dense(3)
        self.steps = 0

    def call(self, x: Any) -> Any:
        self.steps += 1
        return self.last(ops.relu(self.norm(self.one(x))))


def residuals(backend: str | None = None) -> Residuals:
    model = Residuals(seed=4)
    model.compile(ul.optimizers.Adam(0.01), LOGITS, metrics=["accuracy"], run_eagerly=True, backend=backend)
    return model


@each_name
def test_python_between_layers_runs_once_a_step(backend: str, whole: list[Any]) -> None:
    require_backend(backend)
    calls = []

    def use() -> dict[str, Any]:
        model = residuals(backend)
        found = numbers(model, epochs=5, batch_size=6)  # 6, 6, 6, 2
        calls.append(model.one.calls)
        assert model.steps == 21
        return found

    count, _ = both(whole, use)
    assert count == 13 + 4, "of 15 and 5 training steps all but the first, and the second of the first size"
    assert calls[0] == calls[1]
    assert calls[0][:4] == ["train (6, 6)", "end", "train (6, 6)", "end"]
    assert calls[0][6:8] == ["train (2, 6)", "end"]


@pytest.mark.parametrize(
    ("make", "noted"), [(plain, True), (only_added_losses, True), (branches, True), (written, False)]
)
def test_what_compile_offers_is_noted(make: Callable[..., Any], noted: bool, whole: list[Any]) -> None:
    """Several inputs and outputs, weights, penalties; a loss of the user's own is Python that runs at every step."""

    def use() -> dict[str, Any]:
        model, x, y, weight = make(run_eagerly=True)
        found = model.fit(x, y, batch_size=5, epochs=3, sample_weight=weight, verbose=0).history
        outputs = [model.predict(x, batch_size=4, verbose=0) for _ in range(2)]
        for i, y in enumerate(outputs):
            found |= {f"{i} {k}": v for k, v in (y.items() if isinstance(y, dict) else [("y", y)])}
        return found | {v.path: v.numpy() for v in model.variables}

    count, _ = both(whole, use)
    assert count == (10 if noted else 0) + 8, "training; and predictions, all but two"


class Asking(ul.Model):
    """Looks at numbers from some call on."""

    def __init__(self, look: Callable[[Any], Any], start: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.last = layers.Dense(4, activation="relu"), layers.Dense(3)
        self.look, self.start, self.count, self.seen = look, start, 0, []

    def call(self, x: Any) -> Any:
        self.count += 1
        h = ops.multiply(self.first(x), 2.0)
        if self.count >= self.start:
            self.seen.append(self.look(h))
        return self.last(h * 0.5)


LOOKS: dict[str, Callable[[Any], Any]] = {
    "if": lambda h: 1.0 if ops.sum(h) > 1 else 0.0,
    "float": lambda h: float(ops.max(h)),
    "int": lambda h: int(ops.sum(h)),
    "numpy": lambda h: h.numpy(),
    "asarray": lambda h: np.asarray(h),
    "numpy function": lambda h: np.sin(h),
    "to_numpy": lambda h: ops.to_numpy(h),
    "repr": lambda h: len(repr(h)),
    "copy": lambda h: copy.deepcopy(h).numpy(),
    "loop": lambda h: ops.to_numpy(ops.while_loop(lambda x: ops.sum(x) > 1, lambda x: (x * 0.5,), (h,))[0]),
    "tape": lambda h: _slope(h),
}


def _slope(h: Any) -> Any:
    with ul.GradientTape() as tape:
        x = tape.watch(h)
        y = ops.sum(x * x)
    return ops.to_numpy(tape.gradient(y, x))


@pytest.mark.parametrize("start", [1, 5])
@pytest.mark.parametrize("look", LOOKS)
def test_who_asks_sees_numbers(look: str, start: int, whole: list[Any]) -> None:
    """From the step on in which somebody asks, all runs op by op."""

    def use() -> dict[str, Any]:
        model = Asking(LOOKS[look], start, seed=1)
        model.compile("adam", LOGITS, run_eagerly=True)
        watch = StepLosses()
        model.fit(X, Y, batch_size=5, epochs=2, shuffle=False, verbose=0, callbacks=[watch])
        assert model.count == 8
        found = {"losses": np.array(watch.losses), "seen": np.array(model.seen)}
        return found | {v.path: v.numpy() for v in model.variables}

    count, _ = both(whole, use)
    assert count == (0 if start == 1 else 2)


def test_who_asked_once_may_ask_again(whole: list[Any]) -> None:
    model = Asking(float, 99, seed=1)
    model.compile("adam", LOGITS, run_eagerly=True)
    for i in range(9):
        model.look, model.start = (lambda h: float(ops.sum(h))), 5 if i == 4 else 99
        model.train_on_batch(X, Y)
    assert len(model.seen) == 1
    assert len(whole) == 1, "of four steps; none after the fifth"


def test_printing_shows_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    model = Asking(print, 4, seed=1)
    model.compile("adam", LOGITS, run_eagerly=True)
    model.fit(X, Y, batch_size=20, epochs=6, verbose=0)
    shown = capsys.readouterr().out.strip().split("<float32 array(")[1:]
    assert len(shown) == 3
    assert all(x.startswith("[[") for x in shown)


def test_arrays_met_in_the_python_are_data(whole: list[Any]) -> None:
    class Noisy(ul.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.last, self.noise = layers.Dense(3), np.random.default_rng(1)
            self.constant = get_backend("torch").put([np.ones(6, "float32")], "cpu")[0]

        def call(self, x: Any) -> Any:
            noise = self.noise.normal(size=6).astype("float32")
            self.constant *= 0.5
            h = self.last(x + noise - [0.1, 0.2, 0.3, 0.4, 0.5, 0.6] + np.float32(0.5) * self.constant)
            noise[:] = 100
            self.constant *= 1.5
            return h * ops.ones((3,))

    def use() -> dict[str, Any]:
        model = Noisy(seed=1)
        model.compile("sgd", LOGITS, run_eagerly=True, backend="torch")
        return numbers(model, epochs=3, batch_size=10)

    require_backend("torch")
    count, _ = both(whole, use)
    assert count == 4
    assert len(set(whole)) == 1, "one program for all numbers"


def test_python_numbers_are_part_of_the_step(whole: list[Any]) -> None:
    class Scheduled(ul.Model):
        def __init__(self, factors: list[Any], **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.last, self.factors = layers.Dense(3), factors

        def call(self, x: Any) -> Any:
            return self.last(x) * self.factors.pop(0)

    def use(*factors: Any) -> dict[str, Any]:
        model = Scheduled([*factors, 1.0], seed=1)
        model.compile("sgd", LOGITS, run_eagerly=True)
        return numbers(model, epochs=len(factors), batch_size=20)

    count, _ = both(whole, lambda: use(1, 2.0, 3.0, 2.0, 3.0, 2, 2.0, -2.0))
    assert count == 3
    count, _ = both(whole, lambda: use(*range(20), *[3] * 5))
    assert count == 0, "after many different steps none is noted any more"


class Each(Callback):
    def __init__(self, change: Callable[[Any, int], None]) -> None:
        self.change = change

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.change(self.model, epoch)


def _rate(model: Any, epoch: int) -> None:
    model.layers[0].rate = (0.5, 0.0, 0.5, 0.1)[epoch]


def _momentum(model: Any, epoch: int) -> None:
    model.optimizer.momentum = (0.9, 0.9, 0.5, 0.7)[epoch]


def _learning_rate(model: Any, epoch: int) -> None:
    model.optimizer.learning_rate = (0.1, 0.2, 0.3, 0.4)[epoch]


def _constraint(model: Any, epoch: int) -> None:
    model.layers[1].kernel.constraint = ul.constraints.get("non_neg") if epoch == 2 else None


def _activation(model: Any, epoch: int) -> None:
    model.layers[1].activation = (ops.tanh, ops.relu, lambda x: x * x, ops.tanh)[epoch]


def _add(model: Any, epoch: int) -> None:
    if epoch == 2:
        model.add(layers.Activation("tanh"))
    if epoch == 3:
        model.pop()


@pytest.mark.parametrize(
    ("change", "expected"),
    [(_rate, 12), (_momentum, 12), (_learning_rate, 14), (_constraint, 13), (_activation, 12), (_add, 13)],
)
def test_settings_may_change_between_epochs(change: Any, expected: int, whole: list[Any]) -> None:
    def use() -> dict[str, Any]:
        model = ul.Sequential([ul.Input((6,)), layers.Dropout(0.5), layers.Dense(4), layers.Dense(3)], seed=1)
        model.compile(ul.optimizers.SGD(0.1, momentum=0.9), LOGITS, run_eagerly=True)
        watch = StepLosses()
        model.fit(X, Y, batch_size=5, epochs=4, verbose=0, callbacks=[watch, Each(change)])
        return {"losses": np.array(watch.losses)} | {v.path: v.numpy() for v in model.variables}

    count, _ = both(whole, use)
    assert count == expected


def test_a_setting_that_changes_during_the_step(whole: list[Any]) -> None:
    class Fading(ul.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.drop, self.last = layers.Dropout(0.5), layers.Dense(3)

        def call(self, x: Any, training: bool = False) -> Any:
            h = self.drop(x)
            self.drop.rate = 0.9 * self.drop.rate
            return self.last(h)

    def use() -> dict[str, Any]:
        model = Fading(seed=1)
        model.compile("sgd", LOGITS, run_eagerly=True)
        return numbers(model, epochs=6, batch_size=20)

    both(whole, use)


def test_layers_freeze_between_fits(whole: list[Any]) -> None:
    def use() -> dict[str, Any]:
        model = residuals()
        found = numbers(model, epochs=3, batch_size=10)
        model.one.trainable = False
        before = model.one.inner.kernel.numpy()
        found |= {f"frozen {k}": v for k, v in numbers(model, epochs=3, batch_size=10).items()}
        np.testing.assert_array_equal(model.one.inner.kernel.numpy(), before)
        model.one.trainable, model.norm.trainable = True, False
        return found | {f"again {k}": v for k, v in numbers(model, epochs=3, batch_size=10).items()}

    count, _ = both(whole, use)
    assert count == 4 + 4 + 4


def test_ragged_lengths_stay_right(whole: list[Any]) -> None:
    class Sums(ul.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.last = layers.Dense(3)

        def call(self, x: Any) -> Any:
            total = x[:, 0]
            for i in range(1, x.shape[1]):
                total = ops.tanh(total + x[:, i])
            return self.last(total)

    lengths = [2, 3, 2, 3, 2, *range(3, 22), 2, 2, 2]

    def use() -> dict[str, Any]:
        model = Sums(seed=1)
        model.compile("sgd", LOGITS, run_eagerly=True)
        rng = np.random.default_rng(2)
        losses = [model.train_on_batch(rng.normal(size=(4, n, 6)).astype("float32"), Y[:4]) for n in lengths]
        return {"losses": np.array(losses)} | {v.path: v.numpy() for v in model.variables}

    count, _ = both(whole, use)
    assert count < 8


def test_an_error_in_the_python_leaves_the_weights(whole: list[Any]) -> None:
    model = residuals()
    for _ in range(5):
        model.train_on_batch(X[:10], Y[:10])
    assert len(whole) == 2, "of five steps: the first builds, and is the only one of its program; two are looked at"
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    seen: list[Any] = []

    def fail(x: Any) -> Any:
        seen.append(model.norm(x))
        raise RuntimeError("enough")

    model.last = fail
    with pytest.raises(RuntimeError, match="enough"):
        model.train_on_batch(X[:10], Y[:10])
    for v, value in zip([*model.variables, *model.optimizer.variables], before, strict=True):
        np.testing.assert_array_equal(v.numpy(), value, err_msg=v.path)
    assert np.isfinite(ops.to_numpy(seen[0])).all(), "whoever has a value of that step may look at it"


def test_a_wrong_shape_is_said_where_it_is() -> None:
    class Wrong(ul.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.first, self.last, self.width, self.lines = layers.Dense(4), layers.Dense(3), 4, []

        def call(self, x: Any) -> Any:
            h = self.first(x)
            self.lines.append("before")
            h = self.last(h[:, : self.width])
            self.lines.append("after")
            return h + np.zeros(self.width - 1, "float32")

    messages = []
    for width in (3, 5):
        for noted in (True, False):
            model = Wrong(seed=1)
            model.compile("sgd", LOGITS, run_eagerly=True)
            model.fit(X, Y, epochs=3, verbose=0)
            model.width, model.lines = width, []
            with pytest.MonkeyPatch.context() as patch, pytest.raises(ShapeError) as error:
                if not noted:
                    patch.setattr(Memory, "begin", lambda *args: None)
                model.train_on_batch(X, Y)
            messages.append(str(error.value))
            assert model.lines == (["before"] if width == 3 else ["before", "after"])
    assert messages[0] == messages[1]
    assert "last" in messages[0] or "dense_1" in messages[0]
    assert messages[2] == messages[3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_that_are_kept_have_their_numbers(backend: str, whole: list[Any]) -> None:
    """Also those of steps that ran as one graph; they stay as they are."""
    require_backend(backend)

    class Keeping(ul.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.first, self.last = layers.Dense(4), layers.Dense(3)
            self.kept: list[Any] = []
            self.state: Any = np.zeros((5, 4), "float32")

        def call(self, x: Any) -> Any:
            self.state = ops.tanh(self.first(x) + self.state)
            y = self.last(self.state)
            self.kept += [self.state, y, x]
            return y

    def use() -> dict[str, Any]:
        model = Keeping(seed=1)
        model.compile("adam", LOGITS, run_eagerly=True, backend=backend)
        model.fit(X, Y, batch_size=5, epochs=3, verbose=0)
        return {str(i): ops.to_numpy(x) for i, x in enumerate(model.kept)}

    count, found = both(whole, use)
    assert count == 10
    assert len(found) == 36


def test_variables_assigned_in_the_python(whole: list[Any]) -> None:
    class Assigning(ul.Model):
        def __init__(self, value: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.last, self.value = layers.Dense(3), value

        def build(self, shape: Any) -> None:
            self.scale = self.add_weight((), "ones", name="scale")
            self.mean = self.add_weight((6,), "zeros", name="mean", trainable=False)

        def call(self, x: Any) -> Any:
            h = x * self.scale
            self.value(self, x)
            return self.last(h * self.scale - self.mean)

    def constant(model: Any, x: Any) -> None:
        model.scale.assign(0.5)

    def count_up(model: Any, x: Any) -> None:
        model.scale.assign_add(1.0)

    def moving(model: Any, x: Any) -> None:
        model.mean.assign(ops.mean(x, axis=0) * 0.1 + model.mean * 0.9)

    def kernel(model: Any, x: Any) -> None:
        model.last(x)
        model.last.bias.assign(np.full(3, float(model.last.bias.numpy().sum()) + 1, "float32"))

    for value in (constant, count_up, moving, kernel):

        def use(value: Any = value) -> dict[str, Any]:
            model = Assigning(value, seed=1)
            model.compile("sgd", LOGITS, run_eagerly=True)
            return numbers(model, epochs=3, batch_size=10)

        both(whole, use)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_go_along(backend: str, whole: list[Any]) -> None:
    require_backend(backend)

    class Passing(layers.Layer):
        supports_masking = True

        def call(self, x: Any, mask: Any = None) -> Any:
            return x * 2.0 + ops.expand_dims(ops.astype(mask, "float32"), -1)

    class Tagger(ul.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.embed = layers.Embedding(9, 4, mask_zero=True)
            self.between, self.run, self.last = Passing(), layers.SimpleRNN(3, return_sequences=True), layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.last(self.run(self.between(self.embed(x))))

    tokens = RNG.integers(0, 9, (8, 5)).astype("int32")
    targets = RNG.normal(size=(8, 5, 2)).astype("float32")

    def use() -> dict[str, Any]:
        model = Tagger(seed=1)
        model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True, backend=backend)
        return numbers(model, tokens, targets, epochs=3, batch_size=4)

    count, _ = both(whole, use)
    assert count == 4


def test_functions_of_the_user_inside_built_in_layers_run(whole: list[Any]) -> None:
    calls: list[Any] = []

    def active(x: Any) -> Any:
        calls.append(x.shape)
        return ops.tanh(x)

    def use() -> dict[str, Any]:
        model = ul.Sequential(
            [ul.Input((6,)), layers.Dense(4, activation=active), layers.Lambda(active), layers.Dense(3)]
        )
        model.compile("sgd", LOGITS, run_eagerly=True)
        calls.clear()
        found = numbers(model, epochs=4, batch_size=20)
        assert len(calls) == 10
        return found

    count, _ = both(whole, use)
    assert count == 2


@ops.custom_gradient
def _reversed(x: Any) -> Any:
    return x * 1.0, lambda g: -0.5 * g


@ul.function
def _compiled(x: Any, w: Any) -> Any:
    return ops.tanh(x) * w


INSIDE: dict[str, Callable[[Any, Any], Any]] = {
    "custom gradient": lambda model, h: _reversed(h),
    "checkpoint": lambda model, h: ops.checkpoint(lambda x: ops.tanh(model.inner(x)))(h),
    "function": lambda model, h: _compiled(h, model.scale),
    "fold": lambda model, h: ul.fold(lambda i: ops.tanh(h[i]) * model.scale, range(2), stack=True),
    "cond": lambda model, h: ops.cond(ops.sum(h) > 0, lambda x: x * model.scale, lambda x: -x, h),
    "scan": lambda model, h: ops.scan(lambda c, x: (c + x * model.scale, c), ops.zeros((4,)), h)[1],
    "another model": lambda model, h: h + model.other.predict(np.ones((1, 4), "float32"), verbose=0),
    "random layer": lambda model, h: model.drop(model.drop(h)),
    "recurrent layer": lambda model, h: model.run(ops.expand_dims(h, 1)),
    "several arguments": lambda model, h: model.attend(ops.expand_dims(h, 0), ops.expand_dims(h * 2.0, 0))[0],
    "a list": lambda model, h: model.join([h, model.inner(h)])[:, 2:6],
}


@pytest.mark.parametrize("inside", INSIDE)
def test_what_may_be_used_inside(inside: str, whole: list[Any]) -> None:
    class Using(ul.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.first, self.inner, self.last = layers.Dense(4), layers.Dense(4), layers.Dense(3)
            self.drop, self.run, self.join = layers.Dropout(0.4), layers.LSTM(4), layers.Concatenate()
            self.attend = layers.MultiHeadAttention(2, 3)
            other = ul.Sequential([ul.Input((4,)), layers.Dense(4)], seed=3)
            other.run_eagerly = True
            object.__setattr__(self, "other", other)

        def build(self, shape: Any) -> None:
            self.scale = self.add_weight((4,), "ones", name="scale")

        def call(self, x: Any) -> Any:
            h = self.first(x)
            return self.last(ops.tanh(INSIDE[inside](self, h)) + h)

    def use() -> dict[str, Any]:
        model = Using(seed=1)
        model.compile("sgd", LOGITS, run_eagerly=True)
        return numbers(model, X[:2], Y[:2], epochs=6, batch_size=2)

    count, _ = both(whole, use)
    noted = ("function", "scan", "random layer", "recurrent layer", "several arguments", "a list")
    assert (count > 0) == (inside in noted)
