"""Training: the same numbers on every backend, runs cut into pieces, callbacks, the loop's promises."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers
from unilayers.callbacks import (
    Callback,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    TerminateOnNaN,
)
from unilayers.errors import DataError
from unilayers.recipe import load_recipe, shipped

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
Y = RNG.integers(0, 3, 40).astype("int32")
DIGITS_RECIPES = [name for name in shipped() if name.startswith("digits")]
REFERENCE = "numpy"
OTHERS = [name for name in BACKENDS if name != REFERENCE]

# Relative difference of the training loss, over the first 100 steps.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def make(**kwargs: object) -> ul.Model:
    model = ul.Sequential(
        [
            ul.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.Dropout(0.4),
            layers.BatchNormalization(),
            layers.Dense(3),
        ],
        seed=5,
    )
    model.compile("adam", ul.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"], **kwargs)
    return model


class BatchLosses(Callback):
    """Keeps the loss of every step; stops after ``limit``."""

    def __init__(self, limit: int | None = None) -> None:
        self.losses: list[float] = []
        self.limit = limit

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.losses.append(logs["batch_loss"])
        if len(self.losses) == self.limit:
            self.model.stop_training = True


# ---- the same numbers everywhere ---------------------------------------------------


def first_losses(recipe: str, backend: str, dtype: str) -> tuple[list[np.ndarray], list[float]]:
    """Initial weights and the training losses of the first 100 steps."""
    loaded = load_recipe(recipe, [f"dtype={dtype}"])
    model, data, watch = loaded.build(), loaded.data(), BatchLosses(100)
    start = model.get_weights()
    model.fit(data.x, data.y, batch_size=16, epochs=5, callbacks=[watch], verbose=0, backend=backend)
    assert len(watch.losses) == 100
    return start, watch.losses


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("recipe", DIGITS_RECIPES)
@pytest.mark.parametrize("backend", OTHERS)
def test_first_hundred_losses_agree(recipe: str, backend: str, dtype: str) -> None:
    require_backend(backend)
    start, expected = first_losses(recipe, REFERENCE, dtype)
    other_start, found = first_losses(recipe, backend, dtype)
    for a, b in zip(start, other_start, strict=True):
        np.testing.assert_array_equal(a, b)
    assert_close(np.array(found), np.array(expected), rtol=TOLERANCE[dtype], atol=0, what=f"{recipe} on {backend}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_initial_state_is_bit_equal_after_moving(backend: str) -> None:
    require_backend(backend)
    here, there = make(), make(backend=backend)
    there.predict(X[:2], verbose=0)
    for a, b in zip(here.get_weights(), there.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", OTHERS)
def test_going_on_elsewhere_equals_staying(backend: str) -> None:
    """Weights, optimizer slots, mask counters, statistics and the order of samples all carry over."""
    require_backend(backend)
    stay, move = make(), make()
    expected = stay.fit(X, Y, batch_size=7, epochs=6, verbose=0, backend=REFERENCE).history
    found = [
        move.fit(X, Y, batch_size=7, epochs=2, verbose=0, backend=name).history["loss"]
        for name in (REFERENCE, backend, REFERENCE)
    ]
    assert_close(np.concatenate(found), np.array(expected["loss"]), rtol=1e-5, atol=0, what="loss")
    for a, b in zip(move.get_weights(), stay.get_weights(), strict=True):
        assert_close(a, b, rtol=1e-3, atol=1e-5, what="weights")
    assert move.position == stay.position


@pytest.mark.parametrize("backend", BACKENDS)
def test_cut_equals_uncut_bit_for_bit_on_one_backend(backend: str) -> None:
    require_backend(backend)
    whole, cut = make(backend=backend), make(backend=backend)
    losses = whole.fit(X, Y, batch_size=7, epochs=4, verbose=0).history["loss"]
    pieces = [cut.fit(X, Y, batch_size=7, epochs=n, verbose=0).history["loss"] for n in (1, 3)]
    assert [loss for piece in pieces for loss in piece] == losses
    for a, b in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", OTHERS)
def test_two_models_on_two_backends_at_once(backend: str) -> None:
    require_backend(backend)
    alone = make(backend=REFERENCE).fit(X, Y, epochs=3, verbose=0).history["loss"]
    here, there = make(backend=REFERENCE), make(backend=backend)
    found = []
    for _ in range(3):
        found.append(here.fit(X, Y, epochs=1, verbose=0).history["loss"][0])
        there.fit(X, Y, epochs=1, verbose=0)
    assert found == alone


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluate_and_predict_agree_with_the_reference(backend: str) -> None:
    require_backend(backend)
    model = make()
    model.fit(X, Y, epochs=2, verbose=0, backend=REFERENCE)
    expected = model.evaluate(X, Y, verbose=0, backend=REFERENCE)
    probabilities = model.predict(X, verbose=0, backend=REFERENCE)
    assert_close(
        np.array(model.evaluate(X, Y, verbose=0, backend=backend)),
        np.array(expected),
        rtol=1e-5,
        atol=0,
        what="evaluate",
    )
    assert_close(model.predict(X, verbose=0, backend=backend), probabilities, rtol=1e-5, atol=1e-6, what="predict")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_last_smaller_batch_counts_by_its_size(backend: str) -> None:
    require_backend(backend)
    model = make(backend=backend)
    together, apart = (model.evaluate(X, Y, batch_size=n, verbose=0) for n in (40, 7))
    assert_close(np.array(apart), np.array(together), rtol=1e-5, atol=0, what="batch size")


# ---- the choice of a backend -----------------------------------------------------------


def test_a_call_overrules_compile_and_compile_overrules_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNILAYERS_BACKEND", "nonsense")
    model = make(backend="numpy")
    model.fit(X, Y, epochs=1, verbose=0)
    assert model.variables[0].store.backend.name == "numpy"
    with pytest.raises(ul.errors.BackendError, match="nonsense"):
        make().fit(X, Y, epochs=1, verbose=0)
    make().fit(X, Y, epochs=1, verbose=0, backend="numpy")


@pytest.mark.parametrize("backend", OTHERS)
def test_evaluation_stays_where_training_left_the_weights(backend: str) -> None:
    require_backend(backend)
    model = make()
    model.fit(X, Y, epochs=1, verbose=0, backend=backend)
    model.evaluate(X, Y, verbose=0)
    assert model.variables[0].store.backend.name == backend


# ---- the loop ----------------------------------------------------------------------------


def test_hooks_are_called_in_keras_order() -> None:
    seen: list[str] = []

    def note(name: str) -> object:
        return lambda *args: seen.append(name)

    hooks = {
        n: note(n)
        for n in (
            "on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_test_begin",
            "on_test_batch_end", "on_test_end", "on_epoch_end", "on_train_end",
        )
    }  # fmt: skip
    make().fit(
        X[:20],
        Y[:20],
        batch_size=10,
        epochs=1,
        validation_data=(X[:5], Y[:5]),
        callbacks=[LambdaCallback(**hooks)],
        verbose=0,
    )
    step = ["on_train_batch_begin", "on_train_batch_end"]
    test = ["on_test_begin", "on_test_batch_end", "on_test_end"]
    assert seen == ["on_train_begin", "on_epoch_begin", *step, *step, *test, "on_epoch_end", "on_train_end"]


def test_history_holds_validation_and_metrics() -> None:
    history = make().fit(X, Y, epochs=3, validation_split=0.25, verbose=0)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history.epoch == [0, 1, 2]


def test_validation_split_takes_the_end_before_shuffling() -> None:
    a, b = make(), make()
    split = a.fit(X, Y, epochs=2, validation_split=0.25, verbose=0).history
    given = b.fit(X[:30], Y[:30], epochs=2, validation_data=(X[30:], Y[30:]), verbose=0).history
    assert split == given


def test_sample_weights_zero_means_absent() -> None:
    weights = np.r_[np.ones(20), np.zeros(20)].astype("float32")
    model = make()
    weighted = model.test_on_batch(X, Y, sample_weight=weights, return_dict=True)
    half = model.test_on_batch(X[:20], Y[:20], return_dict=True)
    # As in Keras the loss is divided by the number of samples, weighted or not, and metrics ignore the weights
    # unless they are given as weighted_metrics.
    assert_close(np.float64(weighted["loss"]), np.float64(half["loss"] / 2), rtol=1e-5, atol=0, what="loss")
    assert weighted["accuracy"] == model.test_on_batch(X, Y, return_dict=True)["accuracy"]
    model.compile("sgd", model._compiled["loss"], weighted_metrics=["accuracy"])
    assert model.test_on_batch(X, Y, sample_weight=weights, return_dict=True)["accuracy"] == half["accuracy"]


def test_train_on_batch_reports_this_batch_alone() -> None:
    model, twin = make(), make()
    first = model.train_on_batch(X[:10], Y[:10])
    second = model.train_on_batch(X[10:20], Y[10:20])
    watch = BatchLosses()
    twin.fit(X[:20], Y[:20], batch_size=10, shuffle=False, verbose=0, callbacks=[watch])
    assert [first[0], second[0]] == watch.losses


def test_early_stopping_restores_the_best_weights() -> None:
    model = make()
    stop = EarlyStopping("loss", patience=2, restore_best_weights=True, mode="max")
    history = model.fit(X, Y, epochs=20, verbose=0, callbacks=[stop])
    assert len(history.epoch) < 20
    assert model.stop_training


def test_learning_rate_schedule_is_followed_and_saved() -> None:
    model = make()
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))])
    assert model.optimizer.learning_rate == pytest.approx(0.1 / 3)
    assert model.optimizer.get_config()["learning_rate"] == pytest.approx(0.1 / 3)


def test_learning_rate_change_takes_effect_without_retracing() -> None:
    model = make()
    model.fit(X, Y, epochs=1, verbose=0)
    before = model.get_weights()
    model.optimizer.learning_rate = 0.0
    model.fit(X, Y, epochs=1, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_model_checkpoint_keeps_the_best(tmp_path: object) -> None:
    path = tmp_path / "best-{epoch}.safetensors"
    make().fit(X, Y, epochs=3, verbose=0, callbacks=[ModelCheckpoint(path, monitor="loss", save_best_only=True)])
    assert len(list(tmp_path.iterdir())) >= 1
    ul.load_model(next(tmp_path.iterdir()))


def test_nan_stops_training(capsys: pytest.CaptureFixture[str]) -> None:
    model = make()
    model.compile("sgd", "mse")
    bad = np.where(X > 2, np.float32(np.nan), X) if (X > 2).any() else np.full_like(X, np.nan)
    model.fit(bad, np.ones((40, 3), "float32"), epochs=5, verbose=0, callbacks=[TerminateOnNaN()])
    assert model.stop_training
    assert "training stops" in capsys.readouterr().out


def test_lists_of_numbers_are_data() -> None:
    assert make().fit(X.tolist(), Y.tolist(), epochs=1, verbose=0).history["loss"][0] > 0


def test_progress_is_a_line_an_epoch_when_not_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    make().fit(X, Y, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert "accuracy" in lines[0]


# ---- Keras as a witness ----------------------------------------------------------------------


def test_training_equals_keras() -> None:
    """The same weights, batches and definitions: a whole fit, with validation, is Keras's to rounding."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    data = ul.data.load("digits")
    x, y = data.x[:600], data.y[:600]

    def build(k: Any) -> Any:
        model = k.Sequential(
            [
                k.Input((8, 8, 1)),
                k.layers.Conv2D(8, 3, padding="same", strides=2, activation="relu"),
                k.layers.BatchNormalization(),
                k.layers.MaxPooling2D(),
                k.layers.Flatten(),
                k.layers.Dense(20, activation="gelu", kernel_regularizer=k.regularizers.L2(0.001)),
                k.layers.Dense(10),
            ]
        )
        model.compile("adam", k.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        return model

    ours, theirs = build(ul), build(keras)
    theirs.set_weights(ours.get_weights())
    told = {"epochs": 3, "shuffle": False, "validation_split": 0.1, "verbose": 0}
    found, expected = ours.fit(x, y, **told).history, theirs.fit(x, y, **told).history
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert_close(np.array(found[name]), np.array(values), rtol=2e-4, atol=1e-6, what=name)


@pytest.mark.parametrize("one_hot", [False, True])
def test_class_weights_are_sample_weights(one_hot: bool) -> None:
    targets = np.eye(3, dtype="float32")[Y] if one_hot else Y
    weights = {0: 2.0, 2: 0.5}
    kind = "CategoricalCrossentropy" if one_hot else "SparseCategoricalCrossentropy"
    found = []
    for given in ({"class_weight": weights}, {"sample_weight": np.array([weights.get(int(c), 1.0) for c in Y])}):
        model = make()
        model.compile("adam", {kind: {"from_logits": True}})
        found.append(model.fit(X, targets, epochs=2, verbose=0, **given).history["loss"])
    assert found[0] == found[1]
    plain = make()
    plain.compile("adam", {kind: {"from_logits": True}})
    assert plain.fit(X, targets, epochs=2, verbose=0).history["loss"] != found[0]
    with pytest.raises(DataError, match="class_weight needs targets of one output"):
        plain.fit(X, [targets, targets], class_weight=weights, verbose=0)
