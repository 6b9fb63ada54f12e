"""Training that is cut, at any step, and resumed ends as if it had not been: with every callback, also one's own."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import each_name, require_backend
from tests.test_cli import call
from tests.test_recipes import SMALL, PressIn, comparable
from tests.test_saving import joined, parted
from tests.test_tensorboard import numbers
from tests.test_tensorboard import read as read_events
from unilayers import callbacks, layers
from unilayers.errors import CheckpointError
from unilayers.recipe import Interrupted, Recipe
from unilayers.recipe.run import CHECKPOINT
from unilayers.recipe.sections import CALLBACKS
from unilayers.saving import read

WILD = "optimizer.Adam.learning_rate=3.0"
EMA = "optimizer={Adam: {learning_rate: 0.05, use_ema: true, ema_momentum: 0.5}}"
# What is said of a callback, with what makes it act within a few epochs.
CASES = {
    "EarlyStopping": ["{monitor: val_loss, patience: 2, restore_best_weights: true}", WILD],
    "ReduceLROnPlateau": ["{monitor: val_loss, patience: 1, cooldown: 1, factor: 0.3}", WILD],
    "SwapEMAWeights": ["{swap_on_epoch: true}", EMA],
    "TerminateOnNaN": ["{}", "optimizer.Adam.learning_rate=1e30"],
    "ModelCheckpoint": ["{filepath: 'best/{epoch}-{val_loss:.9f}', save_best_only: true, save_weights_only: true}",
                        WILD],
    "CSVLogger": ["{filename: table.csv}"],
    "TensorBoard": ["{update_freq: 2, write_graph: false}"],
}  # fmt: skip
PER_EPOCH = 3  # steps


def recipe_with(name: str, backend: str = "numpy") -> Recipe:
    arguments, *more = CASES[name]
    told = [f"fit.callbacks=[{{{name}: {arguments}}}]", "fit.batch_size=16", "fit.epochs=8", f"backend={backend}"]
    return Recipe(SMALL, overrides=[*more, *told])


def end_of(folder: Path) -> dict[str, Any]:
    """All that a run leaves, as far as two runs can be equal in it."""
    tensors, about = read(folder / CHECKPOINT)
    found: dict[str, Any] = {"history": comparable(folder), "position": about["position"], "tensors": tensors}
    found["states"] = {name: state for name, state in about.get("callbacks", {}).items() if name != "CSVLogger"}
    found["tables"] = [path.read_bytes() for path in sorted(folder.glob("*.csv"))]
    found["best"] = {path.name: load_file(path) for path in sorted(folder.glob("best/*"))}
    boards = {place.name: read_events(place) for place in folder.glob("logs/*")}
    found["board"] = {(n, tag): numbers(b, tag) for n, b in boards.items() for tag in b.summary_metadata}
    return found


def require_equal(cut: Path, whole: Path) -> None:
    np.testing.assert_equal(end_of(cut), end_of(whole))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of the uncut run with a callback on a backend, trained once."""
    place, trained = tmp_path_factory.mktemp("whole"), set()

    def get(name: str, backend: str) -> Path:
        folder = place / f"{name}-{backend}"
        if folder not in trained:
            recipe_with(name, backend).train(folder, verbose=0)
            trained.add(folder)
        return folder

    return get


def test_every_callback_of_recipes_has_a_case() -> None:
    assert set(CASES) == set(CALLBACKS.names())


def cut_and_resumed(recipe: Recipe, step: int, folder: Path) -> None:
    with pytest.raises(Interrupted):
        recipe.train(folder, callbacks=[PressIn(step)], verbose=0)
    recipe.train(folder, resume=True, verbose=0)


@pytest.mark.parametrize("name", CASES)
def test_wherever_it_is_cut(name: str, whole: Any, tmp_path: Path) -> None:
    steps = read(whole(name, "numpy") / CHECKPOINT)[1]["position"]["step"]
    for step in range(1, steps + 1):
        cut_and_resumed(recipe_with(name), step, tmp_path / str(step))
        require_equal(tmp_path / str(step), whole(name, "numpy"))


@pytest.mark.parametrize("name", CASES)
@each_name
def test_on_every_backend(backend: str, name: str, whole: Any, tmp_path: Path) -> None:
    require_backend(backend)
    cut_and_resumed(recipe_with(name, backend), 2, tmp_path / "cut")
    require_equal(tmp_path / "cut", whole(name, backend))


def test_the_cases_act(whole: Any) -> None:
    """So that a state that is lost would show."""
    ends = {name: end_of(whole(name, "numpy")) for name in CASES}
    stopped = {name: len(end["history"]) for name, end in ends.items()}
    assert 2 < stopped["EarlyStopping"] < 8 and stopped["TerminateOnNaN"] == 1
    rates = [line["learning_rate"] for line in ends["ReduceLROnPlateau"]["history"]]
    assert len(set(rates)) > 2
    assert 1 < len(ends["ModelCheckpoint"]["best"]) < 8 and len(ends["CSVLogger"]["tables"]) == 1
    assert len(ends["TensorBoard"]["board"]["train", "batch_loss"]) == 8 * PER_EPOCH // 2


def test_what_has_been_stopped_stays_stopped(tmp_path: Path) -> None:
    recipe = recipe_with("EarlyStopping")
    done = recipe.train(tmp_path / "run", verbose=0)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    again = recipe.train(tmp_path / "again", resume=True, verbose=0)
    assert again.trained == 0 and again.scores == done.scores
    require_equal(tmp_path / "again", tmp_path / "run")
    text = call("train", "--resume", tmp_path / "again", "--quiet")
    assert text.startswith(f"Training had been stopped after {len(done.history['loss'])} of 8 epochs; to go on, change")
    # With more patience there is nothing that stops it; without the callback neither.
    longer = CASES["EarlyStopping"][0].replace("patience: 2", "patience: 4")
    assert recipe.changed(f"fit.callbacks=[{{EarlyStopping: {longer}}}]").train(
        tmp_path / "again", resume=True, verbose=0
    ).trained > 0  # fmt: skip
    assert recipe.changed("fit.callbacks=[]").train(tmp_path / "run", resume=True, verbose=0).trained > 0


def test_lines_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    recipe = recipe_with("CSVLogger")
    with pytest.raises(Interrupted):
        recipe.train(tmp_path / "cut", callbacks=[PressIn(7)], verbose=0)
    with (tmp_path / "cut" / "table.csv").open("a") as file:
        file.write("2,0.5,0.5,0.5,0.5\n3,0.")  # killed after the line, before the checkpoint
    recipe.train(tmp_path / "cut", resume=True, verbose=0)
    recipe.train(tmp_path / "whole", verbose=0)
    assert (tmp_path / "cut" / "table.csv").read_text() == (tmp_path / "whole" / "table.csv").read_text()
    with pytest.raises(Interrupted):
        recipe.train(tmp_path / "lost", callbacks=[PressIn(7)], verbose=0)
    (tmp_path / "lost" / "table.csv").unlink()
    recipe.train(tmp_path / "lost", resume=True, verbose=0)
    rows = list(csv.DictReader((tmp_path / "lost" / "table.csv").open()))
    assert [row["epoch"] for row in rows] == [str(i) for i in range(2, 8)]


# ---- in Python ------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)).astype("float32"), RNG.normal(size=(40, 1)).astype("float32")


class Own(callbacks.Callback):
    """Counts what it sees, and slows training down by it; stops it in the end."""

    state_names = ("seen", "worst", "notes")

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps

    def on_train_begin(self, logs: Any = None) -> None:
        self.seen, self.worst = 0, np.zeros(2)
        self.notes: dict[str, Any] = {"epochs": [], "first": None, "last": (0, True)}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        self.worst = np.maximum(self.worst, [logs["batch_loss"], batch])
        self.model.optimizer.learning_rate = 0.1 / self.seen
        if self.steps and self.model.position.step == self.steps:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.notes["epochs"].append(logs["loss"])
        self.notes["first"] = self.notes["first"] or {"loss": logs["loss"], "array": np.array([epoch])}
        self.model.stop_training = len(self.notes["epochs"]) == 5


@pytest.mark.parametrize("every", ["epoch", 1, 3])
@pytest.mark.parametrize("backup_first", [True, False])
def test_callbacks_of_ones_own(backup_first: bool, every: Any, tmp_path: Path) -> None:
    def fit(step: int, *saving: Any) -> tuple[Any, Any, Own]:
        body = [layers.Dense(4, "tanh"), layers.Dropout(0.3), layers.Dense(1)]
        model = ul.Sequential([layers.Input((3,)), *body], seed=1)
        model.compile("adam", "mse")
        own = Own(step)
        slower = callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
        told = [*saving, own, slower] if backup_first else [slower, own, *saving]
        return model, model.fit(X, Y, 10, 9, 0, told), own

    whole, history, expected = fit(0)
    assert len(history.epoch) == 5
    for step in range(2, 18, 3):
        with pytest.raises(KeyboardInterrupt):
            fit(step, callbacks.BackupAndRestore(tmp_path, every))
        model, rest, own = fit(0, callbacks.BackupAndRestore(tmp_path, every))
        assert rest.history["loss"] == history.history["loss"][rest.epoch[0] :]
        assert own.get_state().keys() == set(Own.state_names)
        np.testing.assert_equal(json.loads(json.dumps(own.notes, default=np.ndarray.tolist)),
                                json.loads(json.dumps(expected.notes, default=np.ndarray.tolist)))  # fmt: skip
        assert own.seen == expected.seen
        assert_close(own.worst, expected.worst, rtol=0, atol=0, what="an array")
        for a, b in zip(model.get_weights(), whole.get_weights(), strict=True):
            assert_close(a, b, rtol=0, atol=0, what="weights")


def fitted(path: Path, value: Any) -> ul.Model:
    class Mine(callbacks.Callback):
        state_names = ("value",)

    mine = Mine()
    mine.value = value  # type: ignore[attr-defined]
    model = ul.Sequential([layers.Input((3,)), layers.Dense(1)])
    model.compile("adam", "mse")
    keep = callbacks.BackupAndRestore(path, delete_checkpoint=False)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[keep, mine, callbacks.EarlyStopping("loss")])
    return model


@pytest.mark.parametrize("value", [object(), len, {1: 2}, {"$array": "x"}, [np.array(["a"])], {"a": {1, 2}}])
def test_what_cannot_be_saved(value: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Mine.*: a callback's state that cannot be saved\. Expected numbers, "):
        fitted(tmp_path, value)


def test_states_that_are_damaged(tmp_path: Path) -> None:
    fitted(tmp_path, {"a": [np.arange(3)]})
    path = tmp_path / "backup.safetensors"
    header, about, values = parted(path.read_bytes())
    mine = next(name for name in about["callbacks"] if name.endswith("Mine"))
    for wrong in (3, [], "x"):
        path.write_bytes(joined(header, {**about, "callbacks": wrong}, values))
        with pytest.raises(CheckpointError, match="a mapping 'callbacks'"):
            fitted(tmp_path, 0)
    for wrong in (3, None, {}, {"value": {"$array": "nowhere"}}, {"value": {"$array": []}}):
        path.write_bytes(joined(header, {**about, "callbacks": {**about["callbacks"], mine: wrong}}, values))
        with pytest.raises(CheckpointError, match=r"no state of .*Mine in it"):
            fitted(tmp_path, 0)
    path.write_bytes(joined(header, {**about, "callbacks": {"Another": {"x": 1}}}, values))
    fitted(tmp_path, 0)  # a callback that is not there any more


def test_models_that_are_saved_know_nothing_of_callbacks(tmp_path: Path) -> None:
    fitted(tmp_path, 3).save(tmp_path / "m.safetensors")
    tensors, about = read(tmp_path / "m.safetensors")
    assert "callbacks" not in about and not any(name.startswith("callbacks/") for name in tensors)
