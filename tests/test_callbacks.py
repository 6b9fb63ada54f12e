"""Callbacks: against Keras's on the same values, and their promises."""

from __future__ import annotations

import csv
import inspect
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import callbacks, layers, metrics
from unilayers.errors import CheckpointError, UnilayersError

keras = pytest.importorskip("keras")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5)).astype("float32")
Y = RNG.normal(size=(24, 2)).astype("float32")


def make(**optimizer: Any) -> ul.Model:
    model = ul.Sequential(
        [ul.Input((5,)), layers.Dense(4, activation="tanh"), layers.Dropout(0.3), layers.Dense(2)], seed=1
    )
    model.compile(ul.optimizers.Adam(0.01, **optimizer), "mse")
    return model


@pytest.mark.parametrize(
    "kwargs",
    [{"patience": 1}, {"patience": 2, "cooldown": 1, "min_lr": 0.02}, {"factor": 0.5, "patience": 1, "min_delta": 0.5}],
)
def test_reduced_rates_equal_keras(kwargs: dict[str, Any]) -> None:
    values = [5, 4, 4, 4, 3.7, 3.6, 3.6, 3.6, 3.6, 3.6, 3.0, 3.1, 3.2, 3.3]
    rates = []
    for module, own in ((callbacks, 0), (keras.callbacks, 1)):
        optimizer = keras.optimizers.SGD(1.0) if own else SimpleNamespace(learning_rate=1.0)
        callback = module.ReduceLROnPlateau(monitor="loss", mode="min", **kwargs)
        callback.set_model(SimpleNamespace(optimizer=optimizer, stop_training=False))
        callback.on_train_begin()
        seen = []
        for epoch, value in enumerate(values):
            callback.on_epoch_end(epoch, {"loss": value})
            seen.append(float(optimizer.learning_rate))
        rates.append(np.array(seen))
    assert_close(*rates, rtol=1e-6, atol=0, what="rates")
    assert rates[0][-1] < 1


def test_reduction_reaches_the_training_step() -> None:
    model = make()
    history = model.fit(
        X, Y, epochs=4, verbose=0, callbacks=[callbacks.ReduceLROnPlateau("loss", 0.5, 1, min_delta=9.0)]
    )
    assert [round(r / 0.01, 4) for r in history.history.get("learning_rate", [])] in ([], [1.0, 1.0, 0.5, 0.25])
    assert round(float(model.optimizer.learning_rate) / 0.01, 4) == 0.125


def test_table_of_epochs(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    model = make()
    first = model.fit(X, Y, epochs=2, verbose=0, validation_split=0.25, callbacks=[callbacks.CSVLogger(path)])
    second = model.fit(X, Y, epochs=3, initial_epoch=2, verbose=0, validation_split=0.25,
                       callbacks=[callbacks.CSVLogger(path, append=True)])  # fmt: skip
    rows = list(csv.DictReader(path.open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    expected = [*first.history["val_loss"], *second.history["val_loss"]]
    assert [float(row["val_loss"]) for row in rows] == expected


def test_a_broken_run_goes_on_from_its_backup(tmp_path: Path) -> None:
    """With the same bits as a run that was not broken."""

    class Broken(callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    whole = make().fit(X, Y, epochs=5, batch_size=8, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        make().fit(X, Y, epochs=5, batch_size=8, verbose=0, callbacks=[callbacks.BackupAndRestore(tmp_path), Broken()])
    assert (tmp_path / "backup.safetensors").is_file()
    rest = make().fit(X, Y, epochs=5, batch_size=8, verbose=0, callbacks=[callbacks.BackupAndRestore(tmp_path)])
    assert rest.epoch == [2, 3, 4]
    assert rest.history["loss"] == whole.history["loss"][2:]
    assert not (tmp_path / "backup.safetensors").exists()


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("every", "broken_after", "goes_on_with"), [(2, 9, 8), (4, 11, 8), (5, 7, 5)])
def test_a_run_goes_on_in_the_middle_of_an_epoch(
    every: int, broken_after: int, goes_on_with: int, backend: str, eager: bool, tmp_path: Path
) -> None:
    """With the same bits: masks, slots, order of the samples and running means; in epochs of five batches."""
    require_backend(backend)
    steps: list[int] = []

    class Broken(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            steps.append(self.model.position.step)
            if self.model.position.step == broken_after and len(steps) == broken_after:
                raise KeyboardInterrupt

    def fit(*watching: Any) -> tuple[ul.Model, Any]:
        model = make()
        model.run_eagerly = eager
        return model, model.fit(X, Y, 5, 3, 0, watching, backend=backend)

    whole, history = fit()
    backup = [callbacks.BackupAndRestore(tmp_path, every), Broken()]
    with pytest.raises(KeyboardInterrupt):
        fit(*backup)
    model, rest = fit(*backup)
    assert steps == [*range(1, broken_after + 1), *range(goes_on_with + 1, 16)]
    assert rest.epoch == [1, 2]
    exact = {"rtol": 1e-5 if eager else 0, "atol": 0}  # steps run op by op until one like it has been met
    assert_close(np.array(rest.history["loss"]), np.array(history.history["loss"][1:]), **exact, what="loss")
    for a, e in zip(model.get_weights(), whole.get_weights(), strict=True):
        assert_close(a, e, **exact, what="weights")
    assert model.position == whole.position
    assert not [*tmp_path.iterdir()]


def test_a_fit_after_a_broken_one_begins_with_the_first_batch() -> None:
    model, seen = make(), list[int]()

    def note(batch: int, logs: Any) -> None:
        seen.append(batch)
        if len(seen) == 2:
            raise KeyboardInterrupt

    told = [callbacks.LambdaCallback(on_train_batch_end=note)]
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, 8, verbose=0, callbacks=told)
    model.fit(X, Y, 8, verbose=0, callbacks=told)
    assert seen == [0, 1, 0, 1, 2]


def test_a_damaged_backup_has_one_before_it(tmp_path: Path) -> None:
    def fit(**settings: Any) -> Any:
        keep = callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False, **settings)
        return make().fit(X, Y, epochs=3, verbose=0, callbacks=[keep])

    fit()
    (only,) = tmp_path.iterdir()
    assert fit().epoch == []  # all is done already
    only.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        fit()
    only.unlink()
    history = fit(double_checkpoint=True).history["loss"]
    assert len([*tmp_path.iterdir()]) == 2
    only.write_bytes(b"nothing")
    again = fit(double_checkpoint=True)
    assert (again.epoch, again.history["loss"]) == ([2], history[2:])
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        fit(double_checkpoint=True)


def test_a_model_without_weights_cannot_be_restored(tmp_path: Path) -> None:
    def fit() -> Any:
        model = ul.Sequential([layers.Dense(2)])
        model.compile("adam", "mse", run_eagerly=True)
        return model.fit(X, Y, verbose=0, callbacks=[callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)])

    fit()
    with pytest.raises(UnilayersError, match="a model without weights cannot be restored"):
        fit()


def test_averages_are_evaluated_and_weights_are_trained() -> None:
    settings = {"use_ema": True, "ema_momentum": 0.9}
    seen: dict[str, list[np.ndarray]] = {}

    class Look(callbacks.Callback):
        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            seen["test"] = self.model.get_weights()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            seen["train"] = self.model.get_weights()
            seen["mean"] = [v.numpy() for v in self.model.optimizer.variables if v.name == "average"]

    model, plain = make(**settings), make(**settings)
    swap = callbacks.SwapEMAWeights()
    history = model.fit(X, Y, epochs=2, verbose=0, validation_data=(X, Y), batch_size=24, callbacks=[swap, Look()])
    expected = plain.fit(X, Y, epochs=2, verbose=0, batch_size=24)
    assert history.history["loss"] == expected.history["loss"]
    assert not np.array_equal(seen["test"][0], seen["train"][0])
    for a, e in zip(model.get_weights(), plain.get_weights(), strict=True):
        assert_close(a, e, rtol=0, atol=0, what="weights after fit")


# ---- decisions, against Keras's on random values ---------------------------------

VALUES = np.array([0.5, 0.75, 1.0, 1.25, 1.5, 2.0, np.nan, np.inf])  # exact also in Keras's float32


def histories(seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    return list(rng.choice(VALUES, 12, p=[0.1, 0.15, 0.15, 0.15, 0.15, 0.2, 0.05, 0.05]))


@pytest.mark.parametrize("seed", range(40))
def test_stopping_equals_keras(seed: int) -> None:
    rng, values = np.random.default_rng(seed + 1000), histories(seed)
    settings = {
        "mode": str(rng.choice(["min", "max"])),
        "patience": int(rng.integers(4)),
        "min_delta": float(rng.choice([0.0, 0.25])),
        "baseline": [None, 1.0][rng.integers(2)],
        "restore_best_weights": bool(rng.integers(2)),
        "start_from_epoch": int(rng.integers(3)),
    }
    seen = []
    for module in (callbacks, keras.callbacks):
        model: Any = SimpleNamespace(stop_training=False, restored=None)
        model.get_weights = lambda model=model: model.epoch
        model.set_weights = lambda w, model=model: setattr(model, "restored", w)
        stop = module.EarlyStopping("loss", **settings)
        stop.set_model(model)
        stop.on_train_begin()
        for model.epoch, value in enumerate(values):
            stop.on_epoch_end(model.epoch, {"loss": value})
            if model.stop_training:
                break
        stop.on_train_end()
        seen.append((model.epoch, model.stop_training, stop.stopped_epoch, stop.wait, model.restored))
    assert seen[0] == seen[1], (settings, values)


@pytest.mark.parametrize("seed", range(40))
def test_plateaus_equal_keras(seed: int) -> None:
    rng, values = np.random.default_rng(seed + 2000), histories(seed)
    settings = {
        "mode": str(rng.choice(["min", "max"])),
        "patience": int(rng.integers(1, 4)),
        "cooldown": int(rng.integers(3)),
        "min_delta": float(rng.choice([0.0, 0.25])),
        "min_lr": float(rng.choice([0.0, 0.25])),
        "factor": 0.5,
    }
    rates: list[list[float]] = []
    for module, optimizer in (
        (callbacks, SimpleNamespace(learning_rate=1.0)),
        (keras.callbacks, keras.optimizers.SGD(1.0)),
    ):
        reduce = module.ReduceLROnPlateau("loss", **settings)
        reduce.set_model(SimpleNamespace(optimizer=optimizer))
        reduce.on_train_begin()
        rates.append([])
        for epoch, value in enumerate(values):
            reduce.on_epoch_end(epoch, {"loss": value})
            rates[-1].append(float(optimizer.learning_rate))
    assert rates[0] == rates[1], (settings, values)


@pytest.mark.parametrize("seed", range(30))
def test_checkpoints_equal_keras(seed: int, tmp_path: Path) -> None:
    rng, values = np.random.default_rng(seed + 3000), histories(seed)
    best = bool(rng.integers(2))
    settings = {
        "mode": str(rng.choice(["min", "max"])),
        "save_best_only": best,
        "save_freq": "epoch" if best else ["epoch", 1, 3, 7][rng.integers(4)],
        "initial_value_threshold": [None, 1.0][rng.integers(2)],
    }
    place = "{epoch}-{batch}" if settings["save_freq"] != "epoch" else "{epoch}"
    steps = int(rng.integers(2, 6))
    saved: list[list[str]] = []
    for module in (callbacks, keras.callbacks):
        names: list[str] = []
        saved.append(names)
        keep = module.ModelCheckpoint(str(tmp_path / (place + "-{loss:.2f}.keras")), "loss", **settings)
        keep.set_model(SimpleNamespace(save=lambda path, overwrite=True, names=names: names.append(str(path))))
        for epoch, value in enumerate(values):
            keep.on_epoch_begin(epoch)
            for batch in range(steps):
                keep.on_train_batch_end(batch, {"loss": value})
            keep.on_epoch_end(epoch, {"loss": value})
    assert saved[0] == saved[1], settings
    assert saved[0] or best


def keras_directions() -> dict[str, str]:
    fixed = {"num_classes": 3, "target_class_ids": [0]}
    found = {}
    for name, cls in vars(keras.metrics).items():
        if inspect.isclass(cls):
            parameters = inspect.signature(cls.__init__).parameters.values()
            asked = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
            if not {"fn", "name"} & {*asked}:  # base classes
                made = cls(**{a: fixed.get(a, 0.5) for a in asked if a != "self"})
                found[name] = getattr(made, "_direction", None)
    return found


def test_directions_of_metrics_are_those_of_keras() -> None:
    theirs = keras_directions()
    ours = {cls.__name__: cls.direction for cls in metrics.Metric.registry if cls.__name__ in theirs}
    assert len(ours) > 35
    assert ours == {name: theirs[name] for name in ours}


@pytest.mark.parametrize(
    ("metric", "monitor", "larger"),
    [("mae", "mae", False), (metrics.CosineSimilarity(name="near"), "val_near", True)],
)
def test_mode_auto_asks_the_metric(metric: Any, monitor: str, larger: bool) -> None:
    model = make()
    model.compile("adam", "mse", metrics=[metric])
    stop = callbacks.EarlyStopping(monitor, patience=9)
    logs = model.fit(X, Y, epochs=6, verbose=0, validation_split=0.25, callbacks=[stop]).history[monitor]
    assert stop.best == (max if larger else min)(logs)


def test_mode_auto_of_a_function_is_asked_for(tmp_path: Path) -> None:
    model = make()
    model.compile("adam", "mse", metrics=[metrics.MeanMetricWrapper(lambda y, p: abs(y - p), name="mean")])
    with pytest.raises(UnilayersError, match=r"nothing says whether 'mean' is better when larger or smaller\. Pass"):
        model.fit(X, Y, verbose=0, callbacks=[callbacks.ModelCheckpoint(tmp_path / "x", "mean", save_best_only=True)])
    assert not [*tmp_path.iterdir()]


def test_a_value_that_is_not_there_is_warned_of() -> None:
    stop = callbacks.EarlyStopping("val_loss", patience=1)
    with pytest.warns(UserWarning, match="EarlyStopping: nothing called 'val_loss' to monitor. Did you mean 'loss'?"):
        history = make().fit(X, Y, epochs=3, verbose=0, callbacks=[stop])
    assert len(history.epoch) == 3
    with pytest.warns(UserWarning, match="nothing called 'val_loss'"):  # as on every other epoch here
        make().fit(X, Y, epochs=4, verbose=0, validation_data=(X, Y), validation_freq=2, callbacks=[stop])
    assert stop.best is not None


# ---- what they print, write and send -----------------------------------------------


def test_checkpoints_are_loadable_models_in_new_folders(tmp_path: Path) -> None:
    model = make()
    path = tmp_path / "a" / "b" / "at-{epoch:02d}-{batch}-{batch_loss:.3f}.safetensors"
    model.fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=[callbacks.ModelCheckpoint(path, save_freq=4)])
    (only,) = (tmp_path / "a" / "b").iterdir()  # the fourth of six steps, and no temporary file
    assert only.name.startswith("at-02-1-")
    loaded = ul.models.load_model(only)
    assert loaded.position.step == 4
    assert float(loaded.optimizer.iterations) == 4
    with pytest.raises(UnilayersError, match=r"no value for 'los' in the name of the file\. Did you mean 'loss'"):
        model.fit(X, Y, verbose=0, callbacks=[callbacks.ModelCheckpoint(tmp_path / "{los}")])


def test_what_callbacks_say(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = make()
    told: list[Any] = [
        callbacks.LearningRateScheduler(lambda epoch: 0.5**epoch, verbose=1),
        callbacks.ModelCheckpoint(tmp_path / "{epoch}.x", verbose=1),
        callbacks.EarlyStopping("loss", mode="max", patience=1, min_delta=100, verbose=1, restore_best_weights=True),
    ]
    model.fit(X, Y, epochs=5, verbose=0, callbacks=told)
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 1: learning rate is 1",
        f"Epoch 1: saved {tmp_path / '1.x'}",
        "Epoch 2: learning rate is 0.5",
        f"Epoch 2: saved {tmp_path / '2.x'}",
        "Epoch 2: stopped early",
        "The weights are those of epoch 1, the best",
    ]


def test_schedules_take_one_or_two_numbers() -> None:
    model = make()
    rates: list[float] = []
    note = callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    halve = callbacks.LearningRateScheduler(lambda epoch, rate: np.float32(rate / 2))
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[halve, note])
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callbacks.LearningRateScheduler(lambda epoch: 1.0 + epoch), note])
    assert_close(np.array(rates), np.array([0.005, 0.0025, 1.0, 2.0]), rtol=1e-6, atol=0, what="rates")

    def broken(epoch: int, rate: float) -> float:
        return rate + None  # type: ignore[operator]

    with pytest.raises(TypeError, match="unsupported operand"):  # not taken for a schedule of the epoch alone
        model.fit(X, Y, verbose=0, callbacks=[callbacks.LearningRateScheduler(broken)])
    with pytest.raises(UnilayersError, match=r"gives no learning rate\. Expected a number\. Received None"):
        model.fit(X, Y, verbose=0, callbacks=[callbacks.LearningRateScheduler(lambda epoch: None)])


@pytest.mark.parametrize("as_json", [False, True])
def test_values_are_sent(as_json: bool) -> None:
    got: list[tuple[str, dict[str, str], bytes]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    root = f"http://127.0.0.1:{server.server_port}"
    send = callbacks.RemoteMonitor(root, "/here", "values", {"X-Run": "7"}, send_as_json=as_json)
    try:
        history = make().fit(X, Y, epochs=2, verbose=0, callbacks=[send]).history
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.warns(UserWarning, match="cannot be reached"):
        make().fit(X, Y, verbose=0, callbacks=[send])
    assert [(path, headers["X-Run"]) for path, headers, _ in got] == [("/here", "7")] * 2
    bodies = [body.decode() if as_json else parse_qs(body.decode())["values"][0] for *_, body in got]
    assert [json.loads(body) for body in bodies] == [{"epoch": i, "loss": x} for i, x in enumerate(history["loss"])]


# ---- lists and functions -----------------------------------------------------------


def test_callbacks_may_be_nested_or_single() -> None:
    seen: list[str] = []
    one = callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append("one"))
    two = callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append("two"))
    make().fit(X, Y, verbose=0, callbacks=[one, (two, [one])])
    make().fit(X, Y, verbose=0, callbacks=two)
    assert seen == ["one", "two", "one", "two"]


def test_functions_are_called_as_keras_calls_them() -> None:
    def calls(module: Any, model: Any) -> list[str]:
        seen: list[str] = []
        hooks = [h for h in callbacks.base.HOOKS if "predict" not in h]

        def note(hook: str) -> Any:
            def hear(*args: Any, **kwargs: Any) -> None:
                *number, logs = [*args, *kwargs.values()]
                seen.append(f"{hook} {number} {sorted(logs) if 'epoch_end' in hook else ''}")

            return hear

        model.fit(X, Y, batch_size=16, epochs=2, verbose=0, validation_data=(X, Y),
                  callbacks=[module.LambdaCallback(**{h: note(h) for h in hooks})])  # fmt: skip
        return seen

    theirs = keras.Sequential([keras.layers.Dense(2)])
    theirs.compile("adam", "mse")
    assert calls(callbacks, make()) == calls(keras.callbacks, theirs)


def test_short_names_of_hooks() -> None:
    seen: list[int] = []
    make().fit(
        X, Y, 8, verbose=0, callbacks=callbacks.LambdaCallback(on_batch_end=lambda batch, logs: seen.append(batch))
    )
    assert seen == [0, 1, 2]


def test_a_loop_of_ones_own_drives_callbacks(capsys: pytest.CaptureFixture[str]) -> None:
    model = make()
    stop = callbacks.EarlyStopping("loss", patience=1)
    hooks = callbacks.CallbackList([stop], add_history=True, add_progbar=True, model=model, epochs=3, verbose=2)
    assert [type(c).__name__ for c in hooks.callbacks] == ["EarlyStopping", "History", "ProgbarLogger"]
    hooks.on_train_begin()
    for epoch, loss in enumerate([2.0, 1.0, 1.5]):
        hooks.on_epoch_begin(epoch)
        hooks.on_train_batch_begin(0)
        hooks.on_train_batch_end(0, {"loss": loss})
        hooks.on_epoch_end(epoch, {"loss": loss})
    hooks.on_train_end()
    assert model.stop_training
    assert model.history.history == {"loss": [2.0, 1.0, 1.5]}
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["Epoch", f"{i}/3"] for i in (1, 2, 3)
    ]
    mine = callbacks.History()
    assert callbacks.CallbackList(mine, add_history=True).callbacks == [mine]


SIGNATURES = [name for name in callbacks.__all__ if hasattr(keras.callbacks, name)]


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_are_those_of_keras(name: str) -> None:
    """The same names in the same order with the same defaults; ours may have more behind them."""

    def arguments(cls: type) -> list[tuple[str, Any]]:
        taken = inspect.signature(cls).parameters.values()
        return [(p.name, p.default) for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD]

    theirs = arguments(getattr(keras.callbacks, name))
    assert arguments(getattr(callbacks, name))[: len(theirs)] == theirs


def test_every_callback_of_keras_is_here() -> None:
    theirs = {n for n, cls in vars(keras.callbacks).items() if inspect.isclass(cls)}
    assert theirs - {*callbacks.__all__} <= {"OrbaxCheckpoint"}  # which needs a package of JAX's


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UnilayersError, match="not a factor that reduces"):
        callbacks.ReduceLROnPlateau(factor=2.0)
    with pytest.raises(UnilayersError, match=r"the optimizer keeps no averages\. Make it with use_ema=True"):
        make().fit(X, Y, verbose=0, callbacks=[callbacks.SwapEMAWeights()])
    for wrong in ("batch", 0, 2.0, True):
        with pytest.raises(UnilayersError, match=r"not a frequency\. Expected 'epoch' or a number of batches"):
            callbacks.ModelCheckpoint(tmp_path, save_freq=wrong)  # type: ignore[arg-type]
        with pytest.raises(UnilayersError, match=r"BackupAndRestore\.save_freq: not a frequency"):
            callbacks.BackupAndRestore(tmp_path, wrong)  # type: ignore[arg-type]
    with pytest.raises(UnilayersError, match=r"unknown hook 'on_epoch_ended'\. Did you mean 'on_epoch_end'"):
        callbacks.LambdaCallback(on_epoch_ended=print)
