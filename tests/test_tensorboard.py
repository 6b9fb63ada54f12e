"""The TensorBoard callback: what it writes is read back by TensorBoard, and has Keras's names."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from tests.test_cli import RECIPE, call
from unilayers import callbacks, layers
from unilayers.callbacks.tensorboard import pictures, png
from unilayers.errors import UnilayersError
from unilayers.recipe import Recipe, read_history

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 6)).astype("float32"), RNG.normal(size=(24, 2)).astype("float32")
PLUGINS = {"scalars", "histograms", "images"}


def make() -> ul.Model:
    model = ul.Sequential([ul.Input((6,)), layers.Dense(4, activation="tanh", name="hidden"), layers.Dense(2)], seed=1)
    model.compile(ul.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model


def read(folder: Path) -> Any:
    """What TensorBoard makes of a folder."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulators.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def numbers(found: Any, tag: str) -> dict[int, float]:
    """The values of a tag by step."""
    assert found.summary_metadata[tag].plugin_data.plugin_name == "scalars"
    return {e.step: e.tensor_proto.float_val[0] for e in found.Tensors(tag)}


def tags(folder: Path) -> dict[str, set[str]]:
    """The tags in a folder's ``train`` and ``validation``, but for what describes a model."""
    found = {name: read(folder / name) for name in ("train", "validation") if (folder / name).is_dir()}
    return {
        name: {t for t in f.Tags()["tensors"] if f.summary_metadata[t].plugin_data.plugin_name in PLUGINS}
        for name, f in found.items()
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_of_epochs(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    require_backend(backend)
    model = make()
    board = callbacks.TensorBoard(tmp_path)
    history = model.fit(X, Y, 8, 3, 0, [board], validation_data=(X, Y), backend=backend).history
    train, validation = read(tmp_path / "train"), read(tmp_path / "validation")
    assert sorted(train.Tags()["tensors"]) == ["epoch_learning_rate", "epoch_loss", "epoch_mae"]
    for name in ("loss", "mae"):
        for found, tag, kept in (
            (train, f"epoch_{name}", history[name]),
            (validation, f"epoch_{name}", history[f"val_{name}"]),
            (validation, f"evaluation_{name}_vs_iterations", history[f"val_{name}"]),
        ):
            values = numbers(found, tag)
            assert [*values] == ([3, 6, 9] if "iterations" in tag else [0, 1, 2])
            assert_close(np.array([*values.values()]), np.array(kept), rtol=1e-6, atol=0, what=tag)
    assert {round(v, 6) for v in numbers(train, "epoch_learning_rate").values()} == {0.01}


@pytest.mark.parametrize(("every", "steps"), [("batch", [1, 2, 3, 4, 5, 6]), (4, [4])])
def test_values_of_batches(every: Any, steps: list[int], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    seen: list[float] = []
    note = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    board = callbacks.TensorBoard(tmp_path, update_freq=every, write_steps_per_second=True)
    make().fit(X, Y, 8, 2, 0, [note, board])
    found = read(tmp_path / "train")
    values = numbers(found, "batch_loss")
    assert [*values] == steps
    assert_close(np.array([*values.values()]), np.array([seen[s - 1] for s in steps]), rtol=1e-6, atol=0, what="loss")
    assert all(v > 0 for v in numbers(found, "batch_steps_per_second").values())
    assert [*numbers(found, "epoch_steps_per_second")] == [0, 1]


def test_weights_as_histograms_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    image = pytest.importorskip("PIL.Image")
    model = make()
    keep: list[list[np.ndarray]] = []
    note = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: keep.append(model.get_weights()))
    board = callbacks.TensorBoard(tmp_path, histogram_freq=2, write_images=True)
    model.fit(X, Y, 8, 3, 0, [note, board])
    found = read(tmp_path / "train")
    for i, path in enumerate(w.path for w in model.weights):
        events = found.Tensors(f"{path}/histogram")
        assert [e.step for e in events] == [0, 2]
        for event in events:
            rows = np.frombuffer(event.tensor_proto.tensor_content, "<f8").reshape(-1, 3)
            counts, edges = np.histogram(keep[event.step][i].astype("float64"), 30)
            assert_close(rows[:, 2], counts.astype("float64"), rtol=0, atol=0, what="counts")
            assert_close(rows[:, :2], np.stack([edges[:-1], edges[1:]], 1), rtol=1e-12, atol=1e-15, what="edges")
        width, height, *files = found.Tensors(f"{path}/image")[-1].tensor_proto.string_val
        picture = np.asarray(image.open(io.BytesIO(files[0])))
        weight = keep[2][i]
        wide = weight[None] if weight.ndim == 1 else weight.T if weight.shape[0] > weight.shape[1] else weight
        assert picture.shape == wide.shape == (int(height), int(width))
        shades = 255 * (wide - wide.min()) / (wide.max() - wide.min())
        assert_close(picture.astype("float64"), shades.astype("float64"), rtol=0, atol=0.51, what="shades")


class Blocks(ul.Model):
    def __init__(self) -> None:
        super().__init__(seed=1)
        self.block = ul.Sequential([layers.Dense(4, activation="relu"), layers.Dropout(0.5)], name="block")
        self.out = layers.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(self.block(x, training=training)) + 1.0


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
def test_the_graph_has_the_layers_as_groups(eager: bool, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model = Blocks()
    model.compile("adam", "mse", run_eagerly=eager)
    model.fit(X, Y, verbose=0, callbacks=[callbacks.TensorBoard(tmp_path)])
    nodes = {n.name: n for n in read(tmp_path / "train").Graph().node}
    groups = {name.rpartition("/")[0] for name in nodes}
    assert groups >= {layer.path for layer in model.layers_below if layer.path not in ("", "block")} | {"loss"}
    assert {w.path for w in model.weights} <= {*nodes}
    position = {name: i for i, name in enumerate(nodes)}
    for name, node in nodes.items():  # every edge leads to a node before it
        assert all(position[i.partition(":")[0]] < position[name] for i in node.input)
    (kernel,) = [n for n in nodes.values() if f"{model.out.path}/kernel" in n.input]
    assert kernel.name.startswith(model.out.path)
    assert [d.size for d in kernel.attr["_output_shapes"].list.shape[0].dim] == [-1, 2]


def test_a_model_that_cannot_be_traced_has_no_graph(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    class Deciding(ul.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.out(x) if float(ul.ops.sum(x)) < 1e9 else x

    model = Deciding()
    model.compile("adam", "mse", run_eagerly=True)
    with pytest.warns(UserWarning, match="TensorBoard: no graph is written, as the model cannot be traced"):
        model.fit(X, Y, verbose=0, callbacks=[callbacks.TensorBoard(tmp_path)])
    assert not read(tmp_path / "train").Tags()["graph"]


def test_tags_are_those_of_keras(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    settings = {"histogram_freq": 1, "write_images": True, "write_steps_per_second": True, "update_freq": 2}
    theirs = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="dense")]
    )
    theirs.compile("adam", "mse", metrics=["mae"])
    for module, model in ((callbacks, make()), (keras.callbacks, theirs)):
        folder = tmp_path / module.__name__.partition(".")[0]
        board = module.TensorBoard(str(folder), **settings)
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, validation_data=(X, Y), callbacks=[board])

    def plain(found: dict[str, set[str]]) -> dict[str, set[str]]:
        """Without the name of the model, which Keras puts before its weights'."""
        return {folder: {t.removeprefix(f"{theirs.name}/") for t in names} for folder, names in found.items()}

    assert plain(tags(tmp_path / "unilayers")) == plain(tags(tmp_path / "keras"))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_tensorflow_is_not_loaded(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    require_backend(backend)
    code = (
        "import sys, numpy as np, unilayers as ul\n"
        "model = ul.Sequential([ul.Input((3,)), ul.layers.Dense(2)])\n"
        "model.compile('adam', 'mse')\n"
        f"board = ul.callbacks.TensorBoard({str(tmp_path)!r}, 1, True, True, True, 'batch')\n"
        "model.fit(np.ones((8, 3)), np.ones((8, 2)), verbose=0, validation_split=0.5, callbacks=[board],\n"
        f"          backend={backend!r})\n"
        "print('tensorflow' in sys.modules, 'tensorboard' in sys.modules)"
    )
    root = Path(ul.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["False", "True"]
    assert len([*tmp_path.glob("*/*tfevents*")]) == 2


def test_evaluation_and_a_second_fit(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model, board = make(), callbacks.TensorBoard(tmp_path)
    model.fit(X, Y, verbose=0, callbacks=[board])
    model.fit(X, Y, epochs=2, initial_epoch=1, verbose=0, callbacks=[board])
    loss = model.evaluate(X, Y, verbose=0, callbacks=[board])[0]
    assert sorted(numbers(read(tmp_path / "train"), "epoch_loss")) == [0, 1]
    (value,) = numbers(read(tmp_path / "validation"), "evaluation_loss_vs_iterations").values()
    assert_close(np.array(value), np.array(loss), rtol=1e-6, atol=0, what="loss")


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 2)])
def test_pictures_can_be_opened(shape: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = np.arange(np.prod(shape), dtype="uint8").reshape(shape) * 7
    opened = image.open(io.BytesIO(png(picture)))
    opened.load()
    assert_close(np.asarray(opened), picture, rtol=0, atol=0, what="picture")


def test_which_weights_are_pictures() -> None:
    shapes = {(3,): (1, 1, 3), (5, 2): (1, 2, 5), (2, 5): (1, 2, 5), (3, 4, 2): (2, 3, 4), (3, 1, 2): (1, 2, 3)}
    for shape, expected in shapes.items():
        made = pictures(np.zeros(shape))
        assert made is not None
        assert made.shape == expected
    assert pictures(np.zeros((3, 3, 2, 4))) is None
    assert pictures(np.zeros(())) is None


@pytest.mark.parametrize(
    "wrong",
    [{"profile_batch": 2}, {"profile_batch": (10, 20)}, {"embeddings_freq": 1}, {"embeddings_metadata": "a.tsv"}],
)
def test_what_is_not_supported_is_said(wrong: dict[str, Any], tmp_path: Path) -> None:
    (name,) = wrong
    with pytest.raises(UnilayersError, match=rf"TensorBoard\.{name}: not supported\. Received "):
        callbacks.TensorBoard(tmp_path, **wrong)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(
        UnilayersError, match=r"TensorBoard: needs the package .*pip install 'unilayers\[tensorboard\]'"
    ):
        callbacks.TensorBoard(tmp_path)


# ---- recipes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["the option", "the recipe"])
def test_tensorboard_reads_a_run_folder(how: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    said = "fit: {callbacks: [TensorBoard, {TensorBoard: {log_dir: more}}], " if how == "the recipe" else "fit: {"
    (tmp_path / "r.yaml").write_text(RECIPE.replace("fit: {", said))
    option = ["--tensorboard"] if how == "the option" else []
    call("train", tmp_path / "r.yaml", "--out", tmp_path / "run", "--epochs", 2, *option)
    again = call("train", "--resume", tmp_path / "run", "--epochs", 3, "--tensorboard")
    assert "Run folder" in again
    history = read_history(tmp_path / "run")
    for place in ("logs", *(["more"] if how == "the recipe" else [])):
        train, validation = (read(tmp_path / "run" / place / name) for name in ("train", "validation"))
        for found, tag, kept in ((train, "epoch_loss", "loss"), (validation, "epoch_accuracy", "val_accuracy")):
            values = numbers(found, tag)
            assert [*values] == [0, 1, 2]
            assert_close(np.array([*values.values()]), np.array(history[kept]), rtol=1e-6, atol=0, what=tag)


@pytest.mark.parametrize("path", ["/tmp/x", "../x", "a/../../x", "[1]", "null"])
def test_recipes_write_into_the_run_folder_only(path: str) -> None:
    for one in (f"TensorBoard: {{log_dir: {path}}}", f"CSVLogger: {{filename: {path}}}"):
        said = r"fit\.callbacks\[0\].*(not a path in the run folder\. Expected a relative|a value that does not fit)"
        with pytest.raises(UnilayersError, match=said):
            Recipe(RECIPE, overrides=[f"fit.callbacks=[{{{one}}}]"])
