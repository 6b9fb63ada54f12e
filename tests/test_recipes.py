"""Recipes: the shipped ones, what is wrong with broken ones, overrides, runs and their folders, the schema."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.conftest import BACKENDS, require_backend
from unilayers import layers
from unilayers.backend import Backend
from unilayers.callbacks import Callback
from unilayers.errors import BackendError, CheckpointError, DataError, RecipeError, UnilayersError
from unilayers.recipe import Interrupted, Recipe, evaluate_run, load_recipe, open_run, read_history, shipped
from unilayers.recipe.cost import cost
from unilayers.recipe.docstrings import parse_arguments
from unilayers.recipe.document import parse, to_yaml
from unilayers.recipe.fit import check_fit
from unilayers.recipe.schema import json_schema
from unilayers.recipe.tables import as_csv, likeliest, read_samples, write_arrays
from unilayers.saving import load_state

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))

SMALL = """\
name: small
seed: 3
data: {dataset: blobs, n: 60, features: 4, validation_split: 0.2}
model:
  - Input: {shape: [4]}
  - Dense: {units: 8, activation: relu}
  - Dropout: {rate: 0.25}
  - Dense: {units: 3}
loss: {SparseCategoricalCrossentropy: {from_logits: true}}
optimizer: {Adam: {learning_rate: 1e-2}}
metrics: [accuracy]
fit: {epochs: 3, batch_size: 16}
"""

GRAPH = """\
description: |
  Two heads
  on two branches.
data: {dataset: digits, validation_split: 0.2}
model:
  - Input: {shape: [8, 8, 1], name: image}
  - Conv2D: {filters: 4, kernel_size: 3, activation: relu}
  - Flatten: {name: left}
  - AveragePooling2D: {inputs: image}
  - Flatten: {name: right}
  - Concatenate: {inputs: [left, right], name: both}
  - Dense: {units: 10, name: digit}
  - Dense:
      {units: 10, name: again, inputs: both, kernel_regularizer: l2, activation: {LeakyReLU: {negative_slope: 0.1}}}
outputs: [digit, again]
loss:
  digit: {SparseCategoricalCrossentropy: {from_logits: true}}
  again: {SparseCategoricalCrossentropy: {from_logits: true}}
loss_weights: [1, 0.5]
optimizer: sgd
metrics: {digit: [accuracy]}
fit: {epochs: 1, callbacks: [TerminateOnNaN, {EarlyStopping: {patience: 3}}]}
"""


def changed(old: str, new: str, text: str = SMALL) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def message(text: str | bytes, *overrides: str, **options: Any) -> str:
    """What is said about a broken recipe."""
    with pytest.raises(RecipeError) as caught:
        Recipe(text, "r.yaml", overrides, **options).build()
    return str(caught.value)


def tiny(recipe: Recipe, n: int = 6) -> tuple[np.ndarray, Any]:
    """A few samples and targets of the shapes that the recipe's model wants."""
    model, rng = recipe.build(), np.random.default_rng(0)
    shape = model.output_shape[0] if isinstance(model.output_shape, list) else model.output_shape
    x = rng.random((n, *model.input_shape[1:])).astype("float32")
    if "Sparse" in str(recipe.settings["loss"]):
        return x, rng.integers(0, shape[-1], n).astype("int32")
    return x, rng.random((n, *shape[1:])).astype("float32")


# ---- the shipped recipes --------------------------------------------------------------------------------------------


def test_the_folder_is_what_is_shipped() -> None:
    assert sorted(shipped()) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_is_found_by_name_and_by_path(name: str) -> None:
    by_name, by_path = load_recipe(name), load_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert by_name.resolved() == by_path.resolved()
    assert by_name.name == name
    assert by_name.description
    assert by_name.source.startswith("#"), "a shipped recipe begins with a comment for its reader"


@pytest.mark.parametrize(
    "text", [*(shipped()[name] for name in RECIPES), SMALL, GRAPH], ids=[*RECIPES, "small", "graph"]
)
def test_a_resolved_recipe_is_complete_and_resolves_to_itself(text: str) -> None:
    recipe = Recipe(text)
    written = recipe.to_yaml()
    again = Recipe(written, "another name.yaml")
    assert again.resolved() == recipe.resolved()
    assert again.to_yaml() == written
    made = {x.name: x for x in again.build().layers if not isinstance(x, layers.InputLayer)}
    for described in recipe.resolved()["model"][1:]:
        [(_, arguments)] = described.items()
        layer = made.pop(arguments["name"])
        assert arguments.keys() - {"inputs"} == layer.get_config().keys()
    assert not made


# The larger nets take long to compile on some backends; the graph below stands for convolutions among the fast tests.
STEPS = [pytest.param(shipped()[n], id=n, marks=[pytest.mark.slow] * n.endswith("-cnn")) for n in RECIPES]


@pytest.mark.parametrize("text", [*STEPS, pytest.param(GRAPH, id="graph")])
def test_two_steps(text: str, backend: Backend) -> None:
    """Two training steps on every backend: the losses are those of the reference backend."""
    recipe = Recipe(text)
    x, y = tiny(recipe)
    found, expected = (recipe_losses(recipe, name, x, y) for name in (backend.name, "numpy"))
    assert all(map(math.isfinite, found))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def recipe_losses(recipe: Recipe, backend: str, x: np.ndarray, y: Any) -> list[float]:
    model = recipe.build()
    return [model.train_on_batch(x, y, return_dict=True, backend=backend, device="cpu")["loss"] for _ in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_digits_net_is_good(dtype: str, backend: Backend, tmp_path: Path) -> None:
    recipe = load_recipe("digits-cnn", [f"dtype={dtype}"])
    result = recipe.train(tmp_path / "run", backend=backend.name, verbose=0)
    assert result.scores["val_accuracy"] >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("name", "score"), [("digits-mlp", 0.93), ("spirals-mlp", 0.97)])
def test_the_other_nets_learn(name: str, score: float, tmp_path: Path) -> None:
    assert load_recipe(name).train(tmp_path / "run", verbose=0).scores["val_accuracy"] >= score


def test_the_lecture_net_learns_what_cannot_be_learnt(tmp_path: Path) -> None:
    losses = load_recipe("two-layer-relu").train(tmp_path / "run", epochs=20, verbose=0).history["loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]


# ---- a recipe is the Python it stands for ---------------------------------------------------------------------------


def test_a_recipe_builds_what_python_builds() -> None:
    model = Recipe(SMALL).build()
    stack = [layers.Dense(8, activation="relu"), layers.Dropout(0.25), layers.Dense(3)]
    same = ul.Sequential([ul.Input((4,)), *stack], seed=3)
    for a, b in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    same.compile(
        ul.optimizers.Adam(1e-2), ul.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    data = ul.data.load("blobs", n=60, features=4)
    runs = [m.fit(data.x, data.y, 16, 2, validation_split=0.2, verbose=0).history for m in (model, same)]
    assert runs[0] == runs[1]


def test_a_graph_has_branches_heads_and_losses_of_their_own() -> None:
    recipe = Recipe(GRAPH)
    model = recipe.build()
    assert model.output_shape == [(None, 10), (None, 10)]
    assert recipe.resolved()["model"][3]["AveragePooling2D"]["inputs"] == ["image"]
    assert recipe.resolved()["model"][4]["Flatten"]["inputs"] == ["average_pooling2d"]
    x = ul.data.load("digits").x[:5]
    digit, again = model.predict(x, verbose=0)
    kernel = {v.path: v.numpy() for v in model.weights}
    pooled = x.reshape(5, 4, 2, 4, 2).mean((2, 4)).reshape(5, 16)
    assert digit.shape == (5, 10)
    both = np.maximum(conv(x, kernel["conv2d/kernel"]) + kernel["conv2d/bias"], 0).reshape(5, -1)
    linear = np.concatenate([both, pooled], 1) @ kernel["again/kernel"] + kernel["again/bias"]
    np.testing.assert_allclose(again, np.where(linear > 0, linear, 0.1 * linear), atol=1e-5)


def conv(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Valid convolution by its definition."""
    k, n = kernel.shape[0], x.shape[1]
    return sum(x[:, i : i + n - k + 1, j : j + n - k + 1] @ kernel[i, j] for i in range(k) for j in range(k))  # type: ignore[return-value]


def test_dtype_and_seed_reach_the_weights() -> None:
    weights = {
        seed: Recipe(SMALL, overrides=[f"seed={seed}", "dtype=float64"]).build().get_weights() for seed in (1, 2)
    }
    assert all(w.dtype == np.float64 for w in weights[1])
    assert not np.array_equal(weights[1][0], weights[2][0])


def test_the_variable_is_the_default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNILAYERS_BACKEND", "torch")
    assert Recipe(SMALL).backend == "torch"
    assert Recipe(SMALL + "backend: numpy\n").backend == "numpy"


# ---- what is wrong --------------------------------------------------------------------------------------------------

DENSE = "  - Dense: {units: 8, activation: relu}\n"
BROKEN = {
    # YAML
    "": "r.yaml: the recipe is empty. See a shipped one with: unilayers show digits-cnn.",
    "# only a comment\n": "r.yaml: the recipe is empty. See a shipped one with: unilayers show digits-cnn.",
    "- Dense\n": "r.yaml:1:1: not a recipe. Expected a mapping: name, data, model... Received ['Dense'] (a list).",
    "digits": "r.yaml:1:1: not a recipe. Expected a mapping: name, data, model... Received 'digits' (a string).",
    "data:\n\tdataset: digits\n": "r.yaml:2:1: a tab where YAML wants spaces. Indent with spaces.",
    "seed: 1\nseed: 2\n": "r.yaml:2:1: seed: the key 'seed' stands twice. Received first in line 1.",
    "seed: [1\n": "r.yaml:2:1: not valid YAML: expected ',' or ']', "
    "but got '<stream end>' (while parsing a flow sequence).",
    "a: b: c": "r.yaml:1:5: not valid YAML: mapping values are not allowed here.",
    "a: 1\n---\nb: 2": "r.yaml:2:1: more than one document. Keep what is above the line '---'.",
    "a: !!python/object/apply:os.system [x]": "r.yaml:1:4: a: a tag that recipes do not have. "
    "Received tag:yaml.org,2002:python/object/apply:os.system.",
    "a: !!int x": "r.yaml:1:4: a: not of kind int. Received 'x'.",
    "1: x": "r.yaml:1:1: a key that is not a name. Received '1'.",
    "a: &x [*x]": "r.yaml:1:4: a[0]: aliases that stand for too much. Write the values out.",
    "a: *x": "r.yaml:1:4: not valid YAML: found undefined alias 'x'.",
    # keys
    "seed: 1": "r.yaml:1:1: missing key 'data'.",
    changed("loss:", "los:"): "r.yaml:9:1: los: unknown key 'los'. Did you mean 'loss'?",
    changed("seed: 3", "seed: -1"): "r.yaml:2:7: seed: a value that does not fit. "
    "Expected an int at least 0. Received -1 (int).",
    changed("seed: 3", "dtype: float31"): "r.yaml:2:8: dtype: a value that does not fit. "
    "Expected 'float32' or 'float64' or 'mixed_bfloat16' or 'mixed_float16' or 'bfloat16' or 'float16'. "
    "Received 'float31' (str).",
    changed("seed: 3", "backend: pytorch"): "r.yaml:2:10: backend: unknown backend 'pytorch'. Did you mean 'torch'?",
    # data
    changed("blobs", "blob"): "r.yaml:3:17: data.dataset: unknown dataset 'blob'. Did you mean 'blobs'?",
    changed("dataset: blobs, ", ""): "r.yaml:3:1: data: missing key 'dataset'.",
    changed("dataset: blobs", "dataset: [blobs]"): "r.yaml:3:17: data.dataset: a value that does not fit. "
    "Expected a string. Received ['blobs'] (list).",
    changed("n: 60", "n: 0"): "r.yaml:3:27: data.n: a value that does not fit. "
    "Expected an int at least 1. Received 0 (int).",
    changed("n: 60", "samples: 60"): "r.yaml:3:24: data.samples: unknown key 'samples'. "
    "Valid names: classes, dataset, features, n, noise, seed, validation, validation_split.",
    changed("blobs, n: 60, features: 4", "none/x"): None,
    changed("blobs, n: 60, features: 4", "t.csv, path: t.csv"): "r.yaml:3:24: data.path: "
    "a path beside a data set that is one. Received 't.csv' (a string).",
    changed("_split: 0.2", "_split: 0.2, validation: digits"): "r.yaml:3:67: data.validation: "
    "validation and validation_split at once. Keep one of them.",
    changed("validation_split: 0.2", "validation: {n: 3}"): "r.yaml:3:44: data.validation: missing key 'dataset'.",
    changed("{dataset: blobs, n: 60, features: 4, validation_split: 0.2}", "digits"): "r.yaml:3:7: data: "
    "not a mapping of options. Received 'digits' (a string).",
    # layers
    changed("  - Input: {shape: [4]}\n", ""): "r.yaml:5:5: model[0]: the model does not begin with its input. "
    "Expected Input: {shape: [8, 8, 1]}. Received Dense.",
    changed("units: 8", "units: 0"): "r.yaml:6:20: model[1].Dense.units: a value that does not fit. "
    "Expected an int at least 1. Received 0 (int).",
    changed("units: 8", "units: '8'"): "r.yaml:6:20: model[1].Dense.units: a value that does not fit. "
    "Expected an int at least 1. Received '8' (str).",
    changed("units: 8", "unit: 8"): "r.yaml:6:13: model[1].Dense.unit: unknown key 'unit'. Did you mean 'units'?",
    changed("units: 8, ", ""): "r.yaml:6:5: model[1].Dense: missing key 'units'.",
    changed(DENSE, "  - Dence\n"): "r.yaml:6:5: model[1]: unknown layer 'Dence'. Did you mean 'Dense'?",
    changed(DENSE, "  - Dense\n"): "r.yaml:6:5: model[1]: missing key 'units'.",
    changed(DENSE, "  - Dense: 8\n"): "r.yaml:6:12: model[1].Dense: arguments without names. "
    "Expected {argument: value}. Received 8 (an int).",
    changed(DENSE, "  - 8\n"): "r.yaml:6:5: model[1]: not a layer. "
    "Expected a name or {name: arguments} of a layer. Received 8 (an int).",
    changed(DENSE, "  - {}\n"): "r.yaml:6:5: model[1]: names no single layer. "
    "Expected a name or {name: arguments} of a layer. Received the keys (none).",
    changed(DENSE, "  - Dense: {units: 8}\n    name: a\n"): "r.yaml:7:5: model[1].name: names no single layer. "
    "Expected a name or {name: arguments} of a layer. Received the keys Dense, name. "
    "Write name and inputs among the arguments: {Dense: {units: 10, name: head, inputs: body}}.",
    changed("relu", "rlu"): "r.yaml:6:35: model[1].Dense.activation: unknown activation 'rlu'. Did you mean 'relu'?",
    changed("relu", "{LeakyReLU: {negative_slop: 1}}"): "r.yaml:6:35: model[1].Dense.activation: "
    "unknown argument 'negative_slop'. Did you mean 'negative_slope'?",
    changed("activation: relu", "use_bias: no"): "r.yaml:6:33: model[1].Dense.use_bias: a value that does not fit. "
    "Expected true or false. Received 'no' (a string). Write false.",
    changed("activation: relu", "kernel_initializer: glorot"): "r.yaml:6:43: model[1].Dense.kernel_initializer: "
    "unknown initializer 'glorot'. Did you mean 'GlorotNormal'?",
    changed("activation: relu", "kernel_initializer: {RandomNormal: {stddev: -1}}"): "r.yaml:6:67: "
    "model[1].Dense.kernel_initializer.RandomNormal.stddev: a value that does not fit. "
    "Expected a number at least 0. Received -1 (int).",
    changed("[4]}", "[]}"): "r.yaml:6:12: model[1].Dense: input has the wrong number of axes. "
    "Expected at least 2 axes, the batch included. Received (None,). "
    "Add the axis that is missing: x[None] for the batch, x[..., None] for the channels.",
    changed("activation: relu", "name: a}\n  - Dense: {units: 8, name: a"): "r.yaml:7:5: model[2]: "
    "two layers are called 'a'. Received the other is model[1].",
    # graphs
    changed("units: 3}", "units: 3, inputs: hidden}"): "r.yaml:8:5: model[3]: no layer is called 'hidden'. "
    "Valid names: dense, dropout, input.",
    changed("units: 3}", "units: 3, inputs: dense}"): "r.yaml:7:5: model[2]: nothing uses the output of 'dropout'. "
    "Name it in another layer's inputs or in outputs.",
    changed("units: 8,", "units: 8, inputs: dense_1,"): "r.yaml:6:5: model[1]: layer 'dense_1' comes later.",
    changed("units: 8,", "units: 8, inputs: [],"): "r.yaml:6:31: model[1].Dense.inputs: not the names of layers. "
    "Expected a name or a list of names. Received [] (a list).",
    changed("{shape: [4]}", "{shape: [4], inputs: dense}"): "r.yaml:5:5: model[0]: an Input with inputs.",
    changed("seed: 3", "outputs: [head]"): "r.yaml:2:11: outputs[0]: no layer is called 'head'. "
    "Valid names: dense, dense_1, dropout, input.",
    changed("digit: {Sp", "digits: {Sp", GRAPH): "r.yaml:17:3: loss.digits: "
    "no output is called 'digits'. Did you mean 'digit'?",
    changed("[1, 0.5]", "[1]", GRAPH): "r.yaml:19:15: loss_weights: not one entry for each output. "
    "Expected 2. Received 1.",
    changed("[left, right]", "[left, image]", GRAPH): "r.yaml:10:5: model[4]: nothing uses the output of 'right'. "
    "Name it in another layer's inputs or in outputs.",
    # the rest
    changed("from_logits", "from_logit"): "r.yaml:9:40: loss.SparseCategoricalCrossentropy.from_logit: "
    "unknown key 'from_logit'. Did you mean 'from_logits'?",
    changed("Adam", "Adm"): "r.yaml:10:13: optimizer.Adm: unknown optimizer 'Adm'. Did you mean 'Adam'?",
    changed("1e-2", "fast"): None,
    changed("accuracy", "acuracy"): "r.yaml:11:11: metrics[0]: unknown metric 'acuracy'. Did you mean 'Accuracy'?",
    changed("epochs: 3", "epoch: 3"): "r.yaml:12:7: fit.epoch: unknown key 'epoch'. Did you mean 'epochs'?",
    changed("epochs: 3", "epochs: 2.5"): "r.yaml:12:15: fit.epochs: a value that does not fit. "
    "Expected an int at least 1. Received 2.5 (float).",
    changed("epochs: 3", "callbacks: [EarlyStoping]"): "r.yaml:12:19: fit.callbacks[0]: "
    "unknown callback 'EarlyStoping'. Did you mean 'EarlyStopping'?",
    changed("epochs: 3", "callbacks: [{EarlyStopping: {mode: up}}]"): "r.yaml:12:35: fit.callbacks[0].EarlyStopping: "
    "unknown mode. Expected auto, min or max. Received 'up'.",
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [(k, v) for k, v in BROKEN.items() if v], ids=lambda v: v[:30])
def test_what_is_said_about_a_broken_recipe(text: str, expected: str) -> None:
    assert message(text) == expected


def test_messages_that_depend_on_the_machine_or_another_class() -> None:
    said = message(changed("blobs, n: 60, features: 4", "none/x"))
    assert said.startswith("r.yaml:3:17: data.dataset: no such file or folder. Looked for /")
    said = message(changed("1e-2", "fast"))
    assert said.startswith("r.yaml:10:35: optimizer.Adam.learning_rate: unknown schedule 'fast'. Valid names: Cosine")
    said = message(changed("1e-2", "null"))
    assert said.startswith("r.yaml:10:35: optimizer.Adam.learning_rate: a value that does not fit. Expected a number")


def test_bytes_that_are_no_text() -> None:
    assert message(b"a: \x07").startswith("r.yaml: not readable as UTF-8 text. Received ")
    assert message(b"a: \xff\xff").startswith("r.yaml: not readable as UTF-8 text. Received ")


def test_aliases_cannot_fill_the_memory() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "aliases that stand for too much" in message("\n".join(lines))


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'digits-cn'\. .*Did you mean 'digits-cnn'\?"):
        load_recipe("digits-cn")
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot read the recipe: No such file or directory\."):
        load_recipe(tmp_path / "none.yaml")


# ---- YAML -----------------------------------------------------------------------------------------------------------


def test_plain_values_are_those_of_yaml_1_2() -> None:
    text = "[1e-3, -2E5, .5, 010, 0x1F, 0o17, +3, .inf, -.inf, no, on, Yes, true, ~, null, '1', 1_0, 12:30, 2020-01-01]"
    expected = [1e-3, -2e5, 0.5, 10, 31, 15, 3, math.inf, -math.inf, "no", "on", "Yes", True, None, None, "1", "1_0"]
    assert parse(f"v: {text}", "r").value["v"] == [*expected, "12:30", "2020-01-01"]
    assert math.isnan(parse("v: .nan", "r").value["v"])


@pytest.mark.parametrize(
    "value",
    ["1e-3", "no", "true", "~", "", "012", "a: b", "1", "two\nlines\n", "é", 1e-6, 1e16, math.inf, True, None, 10**20],
    ids=repr,
)
def test_written_yaml_reads_back(value: Any) -> None:
    text = to_yaml({"v": value, "list": [value, {"k": [value]}]})
    found = parse(text, "r").value
    assert found == {"v": value, "list": [value, {"k": [value]}]}
    assert type(found["v"]) is type(value)


# ---- overrides ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=9", ("seed",), 9),
        ("optimizer.Adam.learning_rate=1e-4", ("optimizer", "Adam", "learning_rate"), 1e-4),
        ("optimizer.adam.beta_1=0.5", ("optimizer", "Adam", "beta_1"), 0.5),
        ("optimizer={SGD: {momentum: 0.9}}", ("optimizer", "SGD", "momentum"), 0.9),
        ("optimizer=sgd", ("optimizer", "SGD", "momentum"), 0.0),
        ("model[2].Dropout.rate=0.5", ("model", 2, "Dropout", "rate"), 0.5),
        ("model.2.Dropout.rate=0.5", ("model", 2, "Dropout", "rate"), 0.5),
        ("model[-1].Dense.use_bias=false", ("model", 3, "Dense", "use_bias"), False),
        ("model[2]=Flatten", ("model", 2, "Flatten", "trainable"), True),
        (
            "fit.callbacks=[TerminateOnNaN]",
            ("fit", "callbacks"),
            [{"TerminateOnNaN": {"raise_error": False, "explain": True, "weights": False}}],
        ),
        ("metrics=", ("metrics",), []),
        ("description=a = b", ("description",), "a = b"),
        ("loss_weights=2", ("loss_weights",), 2),
    ],
)
def test_overrides(override: str, path: tuple[Any, ...], value: Any) -> None:
    found: Any = Recipe(SMALL, overrides=[override]).resolved()
    for step in path:
        found = found[step]
    assert found == value


def test_an_override_goes_into_what_is_only_a_name_or_is_missing() -> None:
    text = changed("{Adam: {learning_rate: 1e-2}}", "adam").replace("fit: {epochs: 3, batch_size: 16}\n", "")
    found = Recipe(text, overrides=["optimizer.Adam.epsilon=1e-3", "fit.epochs=4"]).resolved()
    assert (found["optimizer"]["Adam"]["epsilon"], found["fit"]["epochs"]) == (1e-3, 4)


def test_a_later_override_wins() -> None:
    assert Recipe(SMALL, overrides=["seed=1", "seed=2"]).changed("seed=4").seed == 4


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("fit.epoch=3", "--set fit.epoch=3: fit.epoch: unknown key 'epoch'. Did you mean 'epochs'?"),
        ("lr=3", "--set lr=3: lr: unknown key 'lr'. Valid names: "),
        (
            "model[2].Dropout.rate=2",
            "--set model[2].Dropout.rate=2: model[2].Dropout.rate: a value that does not fit. "
            "Expected a number at least 0 and at most 1. Received 2 (int).",
        ),
        ("model[9].Dropout.rate=0", "--set model[9].Dropout.rate=0: model: "
        "no such item. Expected an index from 0 to 3. Received 9."),
        ("model.dense.units=0", "--set model.dense.units=0: model: "
        "a list has no names. Expected an index. Received 'dense'. As in model[0]."),
        (
            "optimizer.SGD.momentum=0",
            "--set optimizer.SGD.momentum=0: optimizer.SGD: names no single optimizer. "
            "Expected a name or {name: arguments} of an optimizer. Received the keys Adam, SGD. "
            "Keep one; to replace it: --set 'optimizer={SGD: {...}}'.",
        ),
        ("seed.x=1", "--set seed.x=1: seed: leads nowhere. Received 3 (an int)."),
        ("name.x=1", "--set name.x=1: name: leads nowhere. "
        "Received 'small' (a string). To replace it: --set 'name={x: {...}}'."),
        ("fit[0]=1", "--set fit[0]=1: fit: not a list. Received {'epochs': 3, 'batch_size': 16} (a mapping)."),
        ("seed", "--set seed: not an override. Expected path=value, as in "),
        ("=1", "--set =1: not an override. Expected path=value, as in "),
        ("a..b=1", "--set a..b=1: not an override. Expected path=value, as in "),
        ("seed=[1", "--set seed=[1: not valid YAML: "),
        ("seed=!!python/name:os.system x", "--set seed=!!python/name:os.system x: a tag that recipes do not have. "),
    ],
)  # fmt: skip
def test_what_is_said_about_a_wrong_override(override: str, expected: str) -> None:
    said = message(SMALL, override)
    assert said == expected if expected.endswith((".", "?")) else said.startswith(expected)


# ---- classes of the user's own --------------------------------------------------------------------------------------

MODULE = '''
from unilayers import layers, losses, ops

class Scale(layers.Layer):
    """Times a learnt number.

    Args:
        start: Where it starts.
    """

    start: float = 1.0

    def build(self, input_shape):
        self.factor = self.add_weight((), {"Constant": {"value": self.start}}, name="factor")

    def call(self, x):
        return x * self.factor

class Fourth(losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean((y_true - y_pred) ** 4, axis=-1)
'''


def with_scale(module: str) -> str:
    return changed(DENSE, f"  - {module}:Scale: {{start: 2.5}}\n  - {module}:Scale\n")


def test_a_layer_of_the_users_own_by_import_path(tmp_path: Path) -> None:
    (tmp_path / "own_layers_a.py").write_text(MODULE)
    (tmp_path / "mine.yaml").write_text(with_scale("own_layers_a"))
    recipe = load_recipe(tmp_path / "mine.yaml", allow_imports=True)
    assert [float(v.numpy()) for v in recipe.build().weights[:2]] == [2.5, 1.0]
    assert recipe.resolved()["model"][1]["own_layers_a:Scale"]["start"] == 2.5
    result = recipe.train(tmp_path / "run", epochs=1, verbose=0)
    (tmp_path / "run" / "own_layers_a.py").symlink_to(tmp_path / "own_layers_a.py")
    _, model = open_run(tmp_path / "run", allow_imports=True)
    for a, b in zip(model.get_weights(), result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_of_the_users_own_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_layers_b.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)  # the current folder counts as well
    text = changed("{SparseCategoricalCrossentropy: {from_logits: true}}", "own_layers_b:Fourth")
    assert type(Recipe(text, allow_imports=True).build()._compiled["loss"]).__name__ == "Fourth"


def test_importing_must_be_allowed(tmp_path: Path) -> None:
    (tmp_path / "own_layers_c.py").write_text("raise SystemExit('this code must not run')")
    assert message(with_scale("own_layers_c"), folder=tmp_path) == (
        "r.yaml:6:5: model[1].own_layers_c:Scale: layer 'own_layers_c:Scale' is not part of unilayers. "
        "Importing runs that module's code: say --allow-imports (allow_imports=True) if you trust it."
    )


def test_imports_that_fail(tmp_path: Path) -> None:
    said = message(with_scale("no_such_module_x"), allow_imports=True)
    assert "cannot import 'no_such_module_x:Scale': No module named 'no_such_module_x'" in said
    said = message(with_scale("json"), allow_imports=True)
    assert "the module has no layer 'Scale'. Expected a subclass of Layer." in said


# ---- model and data -------------------------------------------------------------------------------------------------


def fit_message(text: str, data: Any = None) -> str:
    recipe = Recipe(text, "r.yaml")
    data = data or recipe.data()
    with pytest.raises((RecipeError, DataError)) as caught:
        check_fit(recipe, recipe.build(), data, recipe.parts(data))
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            changed("[4]", "[5]"),
            "r.yaml:5:12: model[0].Input: x has another feature shape. Expected (n, 5). Received (48, 4).",
        ),
        (
            changed("units: 3", "units: 2"),
            "r.yaml:8:12: model[3].Dense: too few outputs for the classes of 'blobs'. "
            "Expected at least 3. Received output shape (None, 2).",
        ),
        (
            changed("blobs, n: 60, features: 4", "random_regression, d_in: 4, d_out: 1"),
            "r.yaml:9:7: loss: the targets of 'random_regression' are numbers, not class numbers. Expected integers. "
            "Received float32 of shape (51, 1). Use a loss for numbers, such as MeanSquaredError.",
        ),
        (
            changed("{SparseCategoricalCrossentropy: {from_logits: true}}", "bce").replace("units: 3", "units: 1"),
            "r.yaml:9:7: loss: y has 16 values that are out of range. Expected labels 0 to 1 for 2 classes. "
            "Received 2 at index 2.",
        ),
        (
            changed(
                "Dense: {units: 8, activation: relu}", "Input: {shape: [4], name: b}\n  - Add: {inputs: [input, b]}"
            ),
            "r.yaml:6:5: model[1]: a data set gives one array of samples, and the model has several inputs. "
            "Train it from Python: model = load_recipe(...).build(); model.fit({'a': ..., 'b': ...}, y).",
        ),
    ],
    ids=["shape", "classes", "numbers", "binary", "inputs"],
)
def test_a_model_that_does_not_fit_its_data(text: str, expected: str) -> None:
    assert fit_message(text) == expected


def test_labels_out_of_range_are_found_without_a_number_of_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((10, 4), "float32"), y=np.array([0, 1, 2, 7] * 2 + [0, 1]))
    data = f"{{dataset: {tmp_path / 'd.npz'}, task: classification, num_classes: 8}}"
    text = changed("{dataset: blobs, n: 60, features: 4, validation_split: 0.2}", data)
    assert "too few outputs" in fit_message(text)
    plain = ul.data.Dataset(np.zeros((4, 4), "float32"), np.array([0, 1, 2, 3]), "plain")
    recipe = Recipe(SMALL, "r.yaml", ["data.validation_split=0"])
    with pytest.raises(RecipeError, match=r"r\.yaml:9:7: loss: y has 1 value that is out of range\. Expected labels 0"):
        check_fit(recipe, recipe.build(), plain, recipe.parts(plain))


def test_nothing_is_left_behind_when_shapes_do_not_fit(tmp_path: Path) -> None:
    text = changed(
        "{SparseCategoricalCrossentropy: {from_logits: true}}", "{CategoricalCrossentropy: {from_logits: true}}"
    )
    with pytest.raises(UnilayersError, match="y_true and y_pred do not fit"):
        Recipe(text).train(tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_data_from_a_file_by_its_path(tmp_path: Path) -> None:
    rows = ["a,b,label,c", *(f"{i},{i % 5},{'xyz'[i % 3]},{i * 2}" for i in range(30))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    text = changed("blobs, n: 60, features: 4", f"{tmp_path / 't.csv'}, target: label").replace("[4]", "[3]")
    recipe = Recipe(text)
    assert recipe.resolved()["data"]["dataset"] == "csv"
    assert recipe.resolved()["data"]["path"] == str(tmp_path / "t.csv")
    parts = recipe.parts()
    assert (parts.train[0].shape, parts.validation[0].shape) == ((24, 3), (6, 3))  # type: ignore[index]


def test_a_validation_set_of_its_own() -> None:
    for validation in ("blobs", "{dataset: blobs, features: 4, n: 9}"):
        text = changed("validation_split: 0.2", f"validation: {validation}").replace("features: 4, v", "features: 2, v")
        recipe = Recipe(text)
        size = recipe.settings["data"]["validation"]["n"]
        assert recipe.parts().validation[0].shape[0] == size  # type: ignore[index]
        assert Recipe(recipe.to_yaml()).resolved() == recipe.resolved()


# ---- runs -----------------------------------------------------------------------------------------------------------

FILES = {"recipe.yaml", "history.jsonl", "checkpoint.safetensors", "environment.json"}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def comparable(folder: Path) -> list[dict[str, Any]]:
    """The history without its times."""
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_run_folder(tmp_path: Path, backend: Backend) -> None:
    recipe = Recipe(SMALL)
    result = recipe.train(tmp_path / "run", backend=backend.name, epochs=2, verbose=0)
    assert set(files(tmp_path / "run")) == FILES
    written = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert (written.backend, written.epochs) == (backend.name, 2)
    assert written.changed(f"backend={recipe.backend}", "fit.epochs=3").resolved() == recipe.resolved()
    lines = comparable(tmp_path / "run")
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} < set(lines[0])
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (environment["backend"], environment["device"]) == (backend.name, "cpu")
    assert {"unilayers", "numpy", *backend.packages, *backend.libraries()} == set(environment["packages"])
    assert all(environment["packages"].values())
    assert result.trained == 2
    assert result.scores == {name: lines[-1][name] for name in ("val_loss", "val_accuracy")}
    assert read_history(tmp_path / "run")["loss"] == result.history["loss"] == [line["loss"] for line in lines]


def test_training_twice_gives_the_same_run(tmp_path: Path) -> None:
    first, second = (Recipe(SMALL).train(tmp_path / name, verbose=0) for name in "ab")
    assert comparable(first.folder) == comparable(second.folder)
    kept = [{k: v for k, v in files(r.folder).items() if k.endswith(("yaml", "safetensors"))} for r in (first, second)]
    assert kept[0] == kept[1]


def test_the_history_is_there_while_training_goes_on(tmp_path: Path) -> None:
    seen = []

    class Look(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            seen.append(len((tmp_path / "run" / "history.jsonl").read_text().splitlines()))
            assert (tmp_path / "run" / "checkpoint.safetensors").exists() is (epoch > 0)

    Recipe(SMALL).train(tmp_path / "run", callbacks=[Look()], verbose=0)
    assert seen == [0, 1, 2]


def test_the_default_folder_is_new_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [Recipe(SMALL).train(epochs=1, verbose=0).folder for _ in range(2)]
    assert len(set(folders)) == 2
    assert all(folder.parent == Path("runs") and folder.name.startswith("small-") for folder in folders)


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    Recipe(SMALL).train(tmp_path / "run", epochs=1, verbose=0)
    before = files(tmp_path / "run")
    with pytest.raises(UnilayersError, match=r"run: there is a run in this folder already\. Go on with it: unilayers"):
        Recipe(SMALL).train(tmp_path / "run", verbose=0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(UnilayersError, match="the run folder must be new or empty"):
        Recipe(SMALL).train(tmp_path / "other", verbose=0)
    assert files(tmp_path / "run") == before


def test_resuming_equals_never_stopping(tmp_path: Path, backend: Backend) -> None:
    """With dropout, momenta and shuffling: everything that an epoch depends on is in the checkpoint."""
    recipe = Recipe(SMALL, overrides=[f"backend={backend.name}", "fit.epochs=4"])
    whole = recipe.train(tmp_path / "whole", verbose=0)
    recipe.train(tmp_path / "cut", epochs=2, verbose=0)
    resumed = recipe.train(tmp_path / "cut", resume=True, verbose=0)
    assert resumed.trained == 2
    assert comparable(tmp_path / "cut") == comparable(tmp_path / "whole")
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    environment = json.loads((tmp_path / "cut" / "environment.json").read_text())
    assert [earlier["backend"] for earlier in environment["before"]] == [backend.name]


class StopIn(Callback):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.stop, self.now = epoch, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.now == self.stop and batch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_interrupted_run_goes_on(epoch: int, tmp_path: Path) -> None:
    whole = Recipe(SMALL).train(tmp_path / "whole", verbose=0)
    with pytest.raises(Interrupted) as caught:
        Recipe(SMALL).train(tmp_path / "cut", callbacks=[StopIn(epoch)], verbose=0)
    assert caught.value.folder == tmp_path / "cut"
    resumed = load_recipe(tmp_path / "cut" / "recipe.yaml").train(tmp_path / "cut", resume=True, verbose=0)
    assert resumed.trained == 3 - epoch
    assert comparable(tmp_path / "cut") == comparable(tmp_path / "whole")
    np.testing.assert_array_equal(whole.model.get_weights()[0], resumed.model.get_weights()[0])


class PressIn(Callback):
    """Ctrl-C, by a real signal, at one step; twice, if somebody is impatient."""

    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.model.position.step == self.step:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("step", [1, 4, 9])
@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_finishes_the_step_and_the_run_goes_on_after_it(backend: str, step: int, tmp_path: Path) -> None:
    require_backend(backend)
    recipe = Recipe(SMALL).changed(f"backend={backend}", "fit.batch_size=20")
    before = signal.getsignal(signal.SIGINT)
    whole = recipe.train(tmp_path / "whole", verbose=0)
    per_epoch = whole.model.position.step // 3
    with pytest.raises(Interrupted):
        recipe.train(tmp_path / "cut", callbacks=[PressIn(step)], verbose=0)
    assert signal.getsignal(signal.SIGINT) is before
    found = recipe.build()
    load_state(found, tmp_path / "cut" / "checkpoint.safetensors")
    assert found.position.step == step and found.position.of_epoch == step % per_epoch
    resumed = recipe.train(tmp_path / "cut", resume=True, verbose=0)
    assert comparable(tmp_path / "cut") == comparable(tmp_path / "whole")  # losses and metrics of the cut epoch, too
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    recipe = Recipe(SMALL).changed("fit.batch_size=20")
    with pytest.raises(Interrupted):
        recipe.train(tmp_path / "cut", callbacks=[PressIn(2, times=2)], verbose=0)
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()


def test_long_epochs_are_saved_in_between(tmp_path: Path) -> None:
    seen = []

    class Look(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            seen.append((tmp_path / "run" / "checkpoint.safetensors").exists())

    Recipe(SMALL).changed("fit.batch_size=20", "fit.save_seconds=1e-9").train(
        tmp_path / "run", callbacks=[Look()], verbose=0
    )
    assert not seen[0] and all(seen[1:])


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_is_killed_at_any_moment_goes_on(backend: str, tmp_path: Path) -> None:
    """Killed a hundred times, also while a checkpoint is written; at the end the same bits as if nothing had been."""
    require_backend(backend)
    recipe = Recipe(SMALL).changed(f"backend={backend}", "fit.batch_size=4", "fit.epochs=4", "fit.save_seconds=1e-6")
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    arguments = [tmp_path / "r.yaml", tmp_path / "run", tmp_path / "count", "100"]
    subprocess.run([sys.executable, "-m", "tests.killed", *map(str, arguments)], cwd=ROOT, check=True)
    runs, kills = map(int, (tmp_path / "count").read_text().split())
    assert runs > 0 and kills >= 100
    for i in range(1, runs + 1):
        assert comparable(tmp_path / f"run-{i}") == comparable(tmp_path / "run-0")
        kept = [(tmp_path / f"run-{n}" / "checkpoint.safetensors").read_bytes() for n in (0, i)]
        assert kept[0] == kept[1]


def test_an_epoch_that_has_a_line_but_no_checkpoint_is_done_again(tmp_path: Path) -> None:
    recipe = Recipe(SMALL)
    recipe.train(tmp_path / "cut", epochs=2, verbose=0)
    with (tmp_path / "cut" / "history.jsonl").open("a") as file:
        file.write('{"epoch": 3, "loss": 9.0}\n{"epoch": 4, "lo')  # a crash after the line, another within one
    recipe.train(tmp_path / "cut", resume=True, verbose=0)
    recipe.train(tmp_path / "whole", verbose=0)
    assert comparable(tmp_path / "cut") == comparable(tmp_path / "whole")


def test_a_run_goes_on_on_another_backend(tmp_path: Path, backend: Backend) -> None:
    recipe = Recipe(SMALL)
    whole = recipe.train(tmp_path / "whole", verbose=0)
    recipe.train(tmp_path / "cut", epochs=1, verbose=0)
    resumed = recipe.train(tmp_path / "cut", backend=backend.name, resume=True, verbose=0)
    np.testing.assert_allclose(resumed.history["loss"], whole.history["loss"], rtol=1e-4)


def test_resuming_with_another_learning_rate(tmp_path: Path) -> None:
    recipe = Recipe(SMALL)
    recipe.train(tmp_path / "run", epochs=1, verbose=0)
    same = recipe.train(tmp_path / "run", epochs=2, resume=True, verbose=0).model
    assert same.optimizer.learning_rate == pytest.approx(1e-2)
    slower = recipe.changed("optimizer.Adam.learning_rate=1e-5", "fit.epochs=3")
    before = same.get_weights()[0]
    after = slower.train(tmp_path / "run", resume=True, verbose=0).model
    assert after.optimizer.learning_rate == pytest.approx(1e-5)
    assert np.abs(after.get_weights()[0] - before).max() < 1e-4


def test_resuming_what_is_complete_changes_nothing(tmp_path: Path) -> None:
    done = Recipe(SMALL).train(tmp_path / "run", verbose=0)
    again = Recipe(SMALL).train(tmp_path / "run", resume=True, verbose=0)
    assert again.trained == 0
    assert again.scores == done.scores
    assert again.history == done.history


def test_resuming_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UnilayersError, match="no such run folder"):
        Recipe(SMALL).train(tmp_path / "none", resume=True)
    with pytest.raises(UnilayersError, match="not a run folder"):
        Recipe(SMALL).train(tmp_path, resume=True)
    with pytest.raises(UnilayersError, match="no run folder to go on with"):
        Recipe(SMALL).train(resume=True)
    Recipe(SMALL).train(tmp_path / "run", epochs=1, verbose=0)
    wider = Recipe(changed("units: 8", "units: 9"))
    with pytest.raises(CheckpointError, match="'dense/kernel' has another shape"):
        wider.train(tmp_path / "run", resume=True, verbose=0)


def test_a_device_that_is_not_there_is_told_before_anything_is_read(tmp_path: Path) -> None:
    recipe = load_recipe("mnist-cnn")
    with pytest.raises(BackendError, match=r"device 'cuda:7' is not available\. Devices here: cpu"):
        recipe.train(tmp_path / "run", device="cuda:7")
    assert not (tmp_path / "run").exists()


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    stop = "fit.callbacks=[{EarlyStopping: {monitor: val_loss, patience: 2, restore_best_weights: true}}]"
    recipe = Recipe(SMALL, overrides=["fit.epochs=60", "optimizer.Adam.learning_rate=0.5", stop])
    result = recipe.train(tmp_path / "run", verbose=0)
    losses = result.history["val_loss"]
    assert len(losses) < 60
    assert result.scores["val_loss"] == pytest.approx(min(losses), rel=1e-6)
    _, kept = open_run(tmp_path / "run")
    np.testing.assert_array_equal(kept.get_weights()[0], result.model.get_weights()[0])


def test_evaluating_a_run(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((30, 4)).astype("float32"), np.arange(30) % 3
    np.savez(tmp_path / "d.npz", x=x, y=y, tx=x[:9], ty=y[:9])
    data = f"{{dataset: {tmp_path / 'd.npz'}, x_test: tx, y_test: ty, validation_split: 0.2}}"
    recipe = Recipe(changed("{dataset: blobs, n: 60, features: 4, validation_split: 0.2}", data))
    result = recipe.train(tmp_path / "run", verbose=0)
    assert set(result.scores) == {"val_loss", "val_accuracy", "test_loss", "test_accuracy"}
    recipe, model = open_run(tmp_path / "run")
    parts = {part: evaluate_run(recipe, model, part=part) for part in ("train", "validation", "test")}
    assert [samples for _, samples, _ in parts.values()] == [24, 6, 9]
    assert parts["test"] == evaluate_run(recipe, model)
    assert parts["test"][2]["loss"] == pytest.approx(result.scores["test_loss"], rel=1e-6)
    name, samples, _ = evaluate_run(recipe, model, data={"blobs": {"features": 4, "n": 7}})
    assert (name, samples) == ("blobs", 7)
    with pytest.raises(UnilayersError, match=r"small: no part 'tests'\. Did you mean 'test'\?"):
        evaluate_run(recipe, model, part="tests")


# ---- samples and predictions in files -------------------------------------------------------------------------------


def test_samples_come_from_archives_arrays_and_tables(tmp_path: Path) -> None:
    x = np.arange(8, dtype="float32").reshape(2, 4)
    np.savez(tmp_path / "a.npz", x=x, other=x + 1)
    np.savez(tmp_path / "one.npz", whatever=x)
    np.save(tmp_path / "b.npy", x)
    (tmp_path / "c.csv").write_text("p,q,r,s\n0,1,2,3\n4,5,6,7\n")
    (tmp_path / "label.csv").write_text("p,q,label,r,s\n0,1,a,2,3\n4,5,b,6,7\n")
    recipe = Recipe(changed("blobs, n: 60, features: 4", f"{tmp_path / 'label.csv'}, target: label"))
    model = recipe.build()
    for name in ("a.npz", "one.npz", "b.npy", "c.csv", "label.csv"):
        np.testing.assert_array_equal(read_samples(tmp_path / name, recipe, model), x)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.npz", None, "no such file"),
        ("x.txt", b"", r"not a file of samples\. Expected \.npz or \.npy or \.csv\. Received '\.txt'"),
        ("x.npz", b"nonsense", "not a readable NumPy file"),
        ("x.csv", b"a,b\n1,2\n", r"x has another feature shape\. Expected \(n, 4\)\. Received \(1, 2\)"),
        ("y.csv", b"a,b,c,d\n1,2,x,4\n", "not a finite number"),
    ],
)
def test_samples_that_cannot_be_taken(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    recipe = Recipe(SMALL)
    with pytest.raises(DataError, match=said):
        read_samples(tmp_path / name, recipe, recipe.build())


def test_an_archive_without_x(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", xs=np.zeros(3), ys=np.zeros(3))
    recipe = Recipe(SMALL)
    with pytest.raises(DataError, match=r"no array 'x'"):
        read_samples(tmp_path / "a.npz", recipe, recipe.build())


def test_predictions_go_into_files(tmp_path: Path) -> None:
    y = np.array([[0.25, 0.75], [1.0, 0.0]], "float32")
    write_arrays(tmp_path / "y.npz", {"y": y, "z": y[0]})
    with np.load(tmp_path / "y.npz") as file:
        np.testing.assert_array_equal(file["y"], y)
        np.testing.assert_array_equal(file["z"], y[0])
    write_arrays(tmp_path / "y.npy", {"y": y})
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), y)
    write_arrays(tmp_path / "y.csv", {"y": y})
    assert (tmp_path / "y.csv").read_text() == "y0,y1\n0.25,0.75\n1.0,0.0\n"
    with pytest.raises(DataError, match="does not fit into a table"):
        as_csv({"y": np.zeros((2, 2, 2))})
    for name, arrays in (("y.npy", {"y": y, "z": y}), ("y.txt", {"y": y})):
        with pytest.raises(DataError, match="cannot write predictions there"):
            write_arrays(tmp_path / name, arrays)
    np.testing.assert_array_equal(likeliest(y), [1, 0])


# ---- cost -----------------------------------------------------------------------------------------------------------


def test_costs_are_those_of_the_formulas() -> None:
    n, a, b = 16, 8, 3
    text = changed("  - Dropout: {rate: 0.25}\n", "").replace("relu", "linear")
    recipe = Recipe(text)
    found = cost(recipe, recipe.build())
    assert (found.parameters, found.trainable, found.parameter_bytes) == (67, 67, 4 * 67)
    products, sums = 2 * n * (4 * a + a * b), n * (a + b)
    assert found.forward == products + sums
    # Backward: each kernel's gradient, and the gradient that goes on to the first layer's output; then the rest.
    assert found.training_step > found.forward + products + 2 * n * a * b
    assert found.training_step < 2 * (found.forward + products + 2 * n * a * b)
    half = Recipe(text, overrides=["fit.batch_size=8", "dtype=float64"])
    assert cost(half, half.build()).forward * 2 == found.forward
    assert cost(half, half.build()).parameter_bytes == 8 * 67


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_cost(name: str) -> None:
    recipe = load_recipe(name)
    found = cost(recipe, recipe.build())
    assert found.training_step > 2 * found.forward > 0


# ---- JSON Schema ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize(
    "text", [*(shipped()[name] for name in RECIPES), SMALL, GRAPH], ids=[*RECIPES, "small", "graph"]
)
def test_the_schema_takes_recipes_as_written_and_resolved(text: str, validator: Any) -> None:
    validator.validate(parse(text, "r").value)
    validator.validate(Recipe(text).resolved())


# What a schema cannot know: names that refer to each other, shapes, what a constructor computes.
BEYOND = ("nothing uses", "two layers", "no layer is called", "comes later", "no output is called", "an Input with",
          "Expected 2",
          "wrong number of axes", "unknown mode", "does not begin", "a path beside",
          "at once", "unknown argument")  # fmt: skip
VISIBLE = [
    text for text, said in BROKEN.items() if said and ": {" in text and not any(words in said for words in BEYOND)
]


@pytest.mark.parametrize("text", VISIBLE, ids=[(BROKEN[text] or "")[:40] for text in VISIBLE])
def test_the_schema_refuses_broken_recipes(text: str, validator: Any) -> None:
    assert not validator.is_valid(parse(text, "r").value)


def test_the_schema_takes_paths_and_imports(validator: Any) -> None:
    for text in (
        with_scale("my_module"),
        changed("blobs, n: 60, features: 4", "some/data.csv, target: label"),
        changed("validation_split: 0.2", "validation: {dataset: blobs, n: 9}"),
        changed("accuracy", "mse, acc, {TopKCategoricalAccuracy: {k: 2}}"),
        changed("seed: 3", "fit_: 3").replace("fit_: 3\n", ""),
    ):
        validator.validate(parse(text, "r").value)


def test_every_argument_is_described() -> None:
    families = (layers.Layer, ul.losses.Loss, ul.metrics.Metric, ul.optimizers.Optimizer, ul.data.Source)
    families += (ul.initializers.Initializer, ul.regularizers.Regularizer)
    # Classes of other tests may be registered, too.
    ours = {c.__name__ for family in families for c in family.registry if c.__module__.startswith("unilayers.")}
    schema = json_schema()
    missing = [
        f"{name}.{argument}"
        for name, definition in schema["$defs"].items()
        for argument, described in definition.get("properties", {}).items()
        if "." in name and name.rpartition(".")[2] in ours and not described.get("description")
    ]
    assert not missing
    assert all(schema["properties"][key].get("description") for key in schema["properties"])


def test_the_args_section_of_a_docstring() -> None:
    text = """Sum.

    Args:
        x: First: a ``name``,
            and more.
        *rest: Others.
        y (int): Second.

    Returns:
        z: No argument.
    """
    assert parse_arguments(text) == {"x": "First: a name, and more.", "rest": "Others.", "y": "Second."}


def test_a_run_folder_can_be_moved(tmp_path: Path) -> None:
    result = Recipe(SMALL).train(tmp_path / "run", epochs=1, verbose=0)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    recipe, model = open_run(tmp_path / "elsewhere")
    assert evaluate_run(recipe, model)[2]["loss"] == pytest.approx(result.scores["val_loss"], rel=1e-6)
