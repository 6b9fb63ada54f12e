"""Callbacks: against Keras's on the same values, and their promises."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from unilayers import callbacks, layers
from unilayers.errors import UnilayersError

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


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UnilayersError, match="not a factor that reduces"):
        callbacks.ReduceLROnPlateau(factor=2.0)
    with pytest.raises(UnilayersError, match=r"the optimizer keeps no averages\. Make it with use_ema=True"):
        make().fit(X, Y, verbose=0, callbacks=[callbacks.SwapEMAWeights()])
    with pytest.raises(UnilayersError, match="a backup is made after each epoch"):
        callbacks.BackupAndRestore(tmp_path, save_freq=100)  # type: ignore[arg-type]
