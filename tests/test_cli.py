"""The command line: every command, every way to fail, one run in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from unilayers.cli.app import app

from unilayers.backend import backend_names, get_backend
from unilayers.graph import OPS
from unilayers.graph.node import LEAVES
from unilayers.recipe import Recipe, load_recipe, read_history, shipped

NOWHERE = "nowhere: no such run folder. Expected a folder with recipe.yaml and checkpoint.safetensors."
COMMANDS = [command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]

RECIPE = """\
# A comment.
name: mine
description: Of my own
data: {dataset: blobs, n: 60, features: 4, validation_split: 0.2}
model:
  - Input: {shape: [4]}
  - Dense: {units: 8, activation: relu}
  - Dense: {units: 3}
loss: {SparseCategoricalCrossentropy: {from_logits: true}}
optimizer: {Adam: {learning_rate: 1e-2}}
metrics: [accuracy]
fit: {epochs: 3, batch_size: 16}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path / "mine.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained run."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    Recipe(RECIPE).train(folder, verbose=0)
    return folder


def call(*arguments: Any) -> str:
    """What a command prints, when it succeeds."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def fail(*arguments: Any) -> str:
    """What a command says when it fails: one message, no traceback, exit code 1."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").removesuffix("\n")


# ---- help -----------------------------------------------------------------------------------------------------------


def test_help_lists_every_command_with_what_it_does() -> None:
    text = call("--help")
    assert all(command in text for command in COMMANDS)
    assert "unilayers train digits-cnn" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    text = call(command, "--help")
    described = next(c for c in app.registered_commands if c.callback and c.callback.__name__ == command)
    assert (described.callback.__doc__ or "").split(";")[0].split()[0] in text


def test_version() -> None:
    import unilayers

    assert call("--version") == unilayers.__version__ + "\n"


def test_a_process_of_its_own(recipe: Path) -> None:
    code = "import sys; from unilayers.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "mine.yaml", "--out", "run"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "mine on numpy (cpu, float32, seed 0): 67 parameters, 3 steps of 16 an epoch"
    assert [line.split()[1] for line in lines[1:4]] == ["1/3", "2/3", "3/3"]
    assert lines[4].startswith("val_loss: ")
    assert lines[5] == "Run folder: run"
    wrong = [sys.executable, "-c", code, "train", "mine.yaml", "--out", "run"]
    failed = subprocess.run(wrong, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == (
        "Error: run: there is a run in this folder already. "
        "Go on with it: unilayers train --resume run; or choose another folder.\n"
    )


# ---- train ----------------------------------------------------------------------------------------------------------


def test_train_takes_its_options_into_the_recipe(recipe: Path, tmp_path: Path) -> None:
    place = ["--backend", "numpy", "--device", "cpu", "--dtype", "float64"]
    numbers = ["--seed", 5, "--epochs", 2, "--batch-size", 8]
    values = ["--set", "optimizer.Adam.epsilon=1e-3", "--set", "model[1].Dense.units=4"]
    text = call("train", recipe, *place, *numbers, *values, "--out", "run")
    assert "mine on numpy (cpu, float64, seed 5): 35 parameters, 6 steps of 8 an epoch" in text
    settings = load_recipe(tmp_path / "run" / "recipe.yaml").settings
    assert (settings["dtype"], settings["seed"], settings["fit"]["epochs"], settings["fit"]["batch_size"]) == (
        "float64", 5, 2, 8,
    )  # fmt: skip
    assert settings["optimizer"]["Adam"]["epsilon"] == 1e-3


def test_train_by_name_into_the_default_folder(recipe: Path, tmp_path: Path) -> None:
    text = call("train", "digits-mlp", "--epochs", 1)
    assert "val_accuracy: " in text
    [folder] = (tmp_path / "runs").iterdir()
    assert f"Run folder: runs/{folder.name}" in text
    assert folder.name.startswith("digits-mlp-")


def test_quiet_and_verbose(recipe: Path) -> None:
    quiet = call("train", recipe, "--quiet", "--out", "quiet")
    assert quiet.startswith("val_loss: ") and quiet.count("\n") == 1
    verbose = call("train", recipe, "--verbose", "--out", "verbose")
    assert "dense (Dense)" in verbose and "Total params: 67" in verbose


def test_resume(recipe: Path, tmp_path: Path) -> None:
    call("train", recipe, "--epochs", 1, "--out", "run")
    text = call("train", "--resume", "run", "--epochs", 3)
    assert "Epoch 2/3" in text and "Epoch 1/3" not in text
    assert read_history(tmp_path / "run")["epoch"] == [1, 2, 3]
    assert "All 3 epochs are trained already; ask for more with --epochs." in call("train", "--resume", "run")


def test_ctrl_c_says_how_to_go_on(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unilayers.callbacks import EarlyStopping

    def interrupt(self: Any, epoch: int, logs: Any = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EarlyStopping, "on_epoch_end", interrupt)
    stop = ["--set", "fit.callbacks=[EarlyStopping]"]
    result = CliRunner().invoke(app, ["train", str(recipe), "--out", "run", *stop])
    assert result.exit_code == 130
    assert result.stderr == "Interrupted. Go on with: unilayers train --resume run\n"
    monkeypatch.undo()
    monkeypatch.chdir(recipe.parent)
    assert "Epoch 3/3" in call("train", "--resume", "run")


@pytest.mark.slow
def test_ctrl_c_in_a_process_of_its_own(recipe: Path) -> None:
    code = "import sys; from unilayers.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-u", "-c", code, "train", "mine.yaml", "--out", "run", "--epochs", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        while "Epoch 2/" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert said == "Interrupted. Go on with: unilayers train --resume run\n"
    assert (recipe.parent / "run" / "checkpoint.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train", "train: nothing to train. Expected RECIPE for a new run, or --resume RUN to go on with one. "
         "See what there is with: unilayers recipes."),
        ("train mine.yaml --resume run", "train: one recipe or one run. "
         "Expected RECIPE for a new run, or --resume RUN to go on with one."),
        ("train --resume a --out b", "train: --out beside --resume. A run is resumed in its own folder."),
        ("train --resume nowhere", NOWHERE),
        ("train digits-cn", "no recipe 'digits-cn'. Expected a file or a shipped recipe. Did you mean 'digits-cnn'?"),
        ("train none.yaml", "none.yaml: cannot read the recipe: No such file or directory."),
        ("train mine.yaml --backend pytorch", "--set backend=pytorch: backend: "
         "unknown backend 'pytorch'. Did you mean 'torch'?"),
        ("train mine.yaml --device cuda", "backend 'numpy': device 'cuda' is not available. Devices here: cpu."),
        ("train mine.yaml --epochs 0", "--set fit.epochs=0: fit.epochs: a value that does not fit. "
         "Expected an int at least 1. Received 0 (int)."),
        ("train mine.yaml --set fit.epoch=1", "--set fit.epoch=1: fit.epoch: "
         "unknown key 'epoch'. Did you mean 'epochs'?"),
        ("train mine.yaml --set model[1].Dense.units=x", "--set model[1].Dense.units=x: model[1].Dense.units: "
         "a value that does not fit. Expected an int at least 1. Received 'x' (str)."),
        ("train mine.yaml --set model[2].Dense.units=2", "mine.yaml:8:12: model[2].Dense: too few outputs for the "
         "classes of 'blobs'. Expected at least 3. Received output shape (None, 2)."),
        ("check mine.yaml --set model[0].Input.shape=[5]", "mine.yaml:6:12: model[0].Input: "
         "x has another feature shape. "
         "Expected (n, 5). Received (48, 4)."),
        ("show mine.yaml --set loss=mze", "--set loss=mze: loss: unknown loss 'mze'. Did you mean 'mse'?"),
        ("evaluate nowhere", NOWHERE),
        ("evaluate .", ".: not a run folder. Expected a folder with recipe.yaml and checkpoint.safetensors."),
        ("predict nowhere x.npz", NOWHERE),
    ],
)  # fmt: skip
def test_failures_are_one_clear_line(arguments: str, said: str, recipe: Path) -> None:
    assert fail(*arguments.split()) == said


def test_a_folder_that_cannot_be_made_is_said_clearly(recipe: Path) -> None:
    (recipe.parent / "file").touch()
    assert fail("train", recipe, "--out", "file/run") == "file/run: cannot make the run folder: Not a directory."


def test_the_traceback_can_be_asked_for(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["--traceback", "train", "none.yaml"])
    assert type(result.exception).__name__ == "RecipeError"
    monkeypatch.setenv("UNILAYERS_TRACEBACK", "1")
    assert type(CliRunner().invoke(app, ["train", "none.yaml"]).exception).__name__ == "RecipeError"


def test_classes_of_the_users_own_need_a_flag(recipe: Path) -> None:
    (recipe.parent / "my_cli_layers.py").write_text(
        "from unilayers.layers import Layer\nclass Twice(Layer):\n    def call(self, x):\n        return x * 2\n"
    )
    recipe.write_text(RECIPE.replace("  - Dense: {units: 3}", "  - my_cli_layers:Twice\n  - Dense: {units: 3}"))
    for command in ("train", "check", "show"):
        assert "--allow-imports" in fail(command, recipe)
    assert "Run folder: run" in call("train", recipe, "--allow-imports", "--out", "run", "--epochs", 1)
    assert "accuracy: " in call("evaluate", "run", "--allow-imports")


# ---- the other commands ---------------------------------------------------------------------------------------------


def test_evaluate(run: Path) -> None:
    text = call("evaluate", run)
    found = json.loads(call("evaluate", run, "--json"))
    assert (found["part"], found["samples"]) == ("validation", 12)
    assert text == f"validation (12 samples): loss: {found['loss']:.4g} - accuracy: {found['accuracy']:.4f}\n"
    assert found["loss"] == pytest.approx(read_history(run)["val_loss"][-1], rel=1e-6)
    assert json.loads(call("evaluate", run, "--json", "--part", "train"))["samples"] == 48
    other = json.loads(call("evaluate", run, "--json", "--set", "data.n=90", "--set", "data.validation_split=0"))
    assert (other["part"], other["samples"]) == ("train", 90)
    assert "no part 'test'" in fail("evaluate", run, "--part", "test")


def test_evaluate_on_other_data(run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((6, 4), "float32"), y=np.arange(6) % 3)
    assert call("evaluate", run, "--data", tmp_path / "d.npz").startswith("d.npz (6 samples): loss: ")
    assert "x has another feature shape" in fail("evaluate", run, "--data", "digits")


def test_evaluate_on_another_backend(run: Path) -> None:
    found = [json.loads(call("evaluate", run, "--json", "--backend", b))["loss"] for b in ("numpy", "torch")]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_predict(run: Path, tmp_path: Path) -> None:
    from unilayers.recipe import open_run

    x = np.random.default_rng(0).random((5, 4)).astype("float32")
    np.savez(tmp_path / "x.npz", x=x)
    expected = open_run(run)[1].predict(x, verbose=0)
    assert (
        call("predict", run, tmp_path / "x.npz", "--out", tmp_path / "y.npz") == f"y (5, 3) -> {tmp_path / 'y.npz'}\n"
    )
    with np.load(tmp_path / "y.npz") as file:
        np.testing.assert_array_equal(file["y"], expected)
    lines = call("predict", run, tmp_path / "x.npz").splitlines()
    assert lines[0] == "y0,y1,y2"
    np.testing.assert_allclose([[float(v) for v in line.split(",")] for line in lines[1:]], expected, rtol=1e-6)
    classes = call("predict", run, tmp_path / "x.npz", "--classes").splitlines()
    assert classes == ["y", *(str(c) for c in expected.argmax(1))]
    assert "no such file" in fail("predict", run, "none.npz")


def test_check(recipe: Path) -> None:
    text = call("check", recipe, "--batch-size", 10)
    assert "dense (Dense)" in text and "(None, 8)" in text
    lines = {line.partition(":")[0]: line.partition(":")[2].strip() for line in text.splitlines() if ":" in line}
    assert lines["parameters"] == "67 (67 trainable), 268 B"
    assert lines["forward"].endswith("FLOP for a batch of 10")
    assert lines["data"] == "blobs: 48 to train, 12 to validate; samples (4,), 3 classes"
    assert text.endswith("mine is valid.\n")
    assert not list(recipe.parent.glob("run*"))


def test_check_does_not_need_the_data(recipe: Path) -> None:
    text = call("check", "mnist-cnn")
    assert "not read: data/mnist: no such folder." in text
    assert "mnist-cnn is valid." in text


def test_show(recipe: Path) -> None:
    text = call("show", recipe, "--set", "seed=9")
    assert Recipe(text).resolved() == Recipe(RECIPE, overrides=["seed=9"]).resolved()
    assert call("show", recipe, "--source") == RECIPE
    assert call("show", "digits-cnn", "--source") == shipped()["digits-cnn"]


def test_recipes() -> None:
    text = call("recipes")
    for name in shipped():
        assert name in text
        assert load_recipe(name).description in text


def test_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    text = call("backends")
    assert all(name in text for name in backend_names())
    assert f"numpy {np.__version__}" in text
    listed = call("backends", "--ops").splitlines()
    ops = {line.split()[0]: line.split()[1:] for line in listed[-listed[::-1].index("") + 1 :]}
    assert set(ops) == {name for name in OPS if name not in LEAVES}
    assert {"primitive"} == set(ops["matmul"])
    for name in backend_names():
        backend = get_backend(name)
        lines = [line for line in text.splitlines() if line.startswith(name)]
        for device in backend.devices():
            assert any(device in line and str(backend.hardware.facts(device)) in line for line in lines)
        if backend.hardware.missing():
            assert any("not usable: " in line for line in lines)
    assert set().union(*ops.values()) == {"primitive", "fused", "expanded"}


def test_backends_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import unilayers.backend as backend
    from unilayers.errors import BackendError

    def missing(name: str) -> Any:
        if name == "torch":
            raise BackendError("backend 'torch' needs the package 'torch'", fix="pip install 'unilayers[torch]'")
        return real(name)

    real = backend.get_backend
    monkeypatch.setattr(backend, "get_backend", missing)
    [line] = [line for line in call("backends").splitlines() if line.startswith("torch")]
    assert "not installed" in line and "pip install 'unilayers[torch]'" in line


def test_schema() -> None:
    schema = json.loads(call("schema"))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["required"]) == {"data", "model", "loss", "optimizer"}
