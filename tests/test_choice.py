"""``backend="auto"``: the fastest engine is found by trying, nothing else changes. Time is made up here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from unilayers.cli.app import app

import unilayers as ul
import unilayers.backend as registry
from unilayers import layers, ops
from unilayers.backend import AUTO, EMBEDDED, GROUP, VARIABLE, Backend, backend_names, get_backend, register_backend
from unilayers.callbacks import LambdaCallback
from unilayers.errors import BackendError
from unilayers.models import Model
from unilayers.recipe import Recipe
from unilayers.recipe.schema import json_schema
from unilayers.training import choice
from unilayers.training.choice import choose
from unilayers.training.feed import ArrayFeed
from unilayers.training.steps import state_of

RECIPE = """\
name: chosen
data: {dataset: blobs, n: 60, features: 4, validation_split: 0.2}
model:
  - Input: {shape: [4]}
  - Dense: {units: 8, activation: relu}
  - Dropout: {rate: 0.25}
  - BatchNormalization
  - Dense: {units: 3}
loss: {SparseCategoricalCrossentropy: {from_logits: true}}
optimizer: {Adam: {learning_rate: 1e-2}}
metrics: [accuracy]
fit: {epochs: 2, batch_size: 16}
backend: auto
"""
STEPS = 3  # of an epoch
LONG = 10**6  # steps, where trying is to pay


class Engines:
    """The engines there are, with the time that they take: a clock that only their steps move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.real = get_backend(EMBEDDED)
        self.steps: dict[str, int] = {}
        self.compiled: dict[str, int] = {}

    def clock(self) -> float:
        return self.now

    def add(
        self, name: str, step: float | Callable[[int], float], compiling: float = 0.0, like: Backend | None = None,
        **hooks: Any,
    ) -> Backend:  # fmt: skip
        """An engine that computes as another does; ``step`` are seconds, or a function of the number of the step."""
        real = like or self.real
        self.steps[name] = self.compiled[name] = 0

        def slowly(graph: Any, device: str) -> Any:
            run = real.compile(graph, real.device(None))
            self.now += compiling
            self.compiled[name] += 1

            def timed(state: list[Any], inputs: Sequence[Any]) -> Any:
                self.now += step(self.steps[name]) if callable(step) else step
                self.steps[name] += 1
                return run(state, inputs)

            return timed

        return replace(real, name=name, **{"compile": slowly, **hooks})

    def register(self, name: str, step: float | Callable[[int], float], *args: Any, **hooks: Any) -> Backend:
        return register_backend(self.add(name, step, *args, **hooks))


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    """No engine but those that a test registers; they are there already when a test begins to choose."""
    made = Engines()
    monkeypatch.setenv(choice.FOLDER, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choice, "perf_counter", made.clock)
    monkeypatch.setattr(registry, "_loaded", {EMBEDDED: made.real})
    monkeypatch.setattr(registry, "_installed", dict)
    made.register(EMBEDDED, 4.0)
    return made


def samples() -> tuple[np.ndarray, np.ndarray]:
    train: tuple[np.ndarray, np.ndarray] = Recipe(RECIPE).parts().train
    return train


def fit(model: Model, epochs: int = 1, **options: Any) -> ul.callbacks.History:
    return model.fit(*samples(), batch_size=16, epochs=epochs, **{"backend": AUTO, **options})


def try_all(model: Model, steps: int | None = LONG, batch_size: int = 16, **options: Any) -> list[str]:
    """What is said when engines are tried for a model that is not trained."""
    said: list[str] = []
    data = model._data(*samples())
    feed = ArrayFeed(data, batch_size)
    choose(model._program("train", data), feed, steps=steps, say=said.append, **options)
    return said


def values(model: Model) -> dict[str, np.ndarray]:
    return {f"{i} {v.path}": v.numpy() for i, v in enumerate(state_of(model, model._objectives))}


def assert_same_bits(model: Model, other: Model) -> None:
    a, b = values(model), values(other)
    assert a.keys() == b.keys() and len(a) > 10
    for name, array in a.items():
        np.testing.assert_array_equal(array, b[name], err_msg=name)


# ---- the winner ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", ["a_slow_one", "z_slow_one"])
def test_the_fastest_is_chosen(engines: Engines, slow: str, capsys: pytest.CaptureFixture[str]) -> None:
    engines.register(EMBEDDED, 1.0)
    engines.register(slow, 10.0)
    model = Recipe(RECIPE).build()
    history = fit(model, epochs=4, verbose=1)
    assert capsys.readouterr().out.splitlines()[0] == (
        f"auto: numpy 1000.000 ms, {slow} 10000.000 ms a step (batch 16); numpy."
    )
    assert (history.params["backend"], history.params["device"]) == (EMBEDDED, "cpu")
    assert {v.place()[0].name for v in model.variables} == {EMBEDDED}
    assert 0 < engines.steps[slow] < 20


@pytest.mark.parametrize("slow", ["a_slow_one", "z_slow_one"])
def test_the_same_bits_as_with_the_engine_named(backend: Backend, engines: Engines, slow: str) -> None:
    """Also in the middle of a training, that began elsewhere."""
    engines.register(slow, 2.0)
    engines.register(backend.name, 1.0, like=backend)
    models = [Recipe(RECIPE).build() for _ in range(2)]
    histories = []
    for model, name in zip(models, (AUTO, backend.name), strict=True):
        fit(model, backend=slow, verbose=0)
        found = fit(model, epochs=20, backend=name, validation_split=0.1, verbose=0)
        assert found.params["backend"] == backend.name
        histories.append(found.history)
    assert histories[0] == histories[1]
    assert models[0].position == models[1].position
    assert_same_bits(*models)


def test_trying_changes_nothing(backend: Backend, engines: Engines) -> None:
    engines.register("slow", 10.0)
    engines.register(backend.name, 1.0, like=backend)
    model, other = (Recipe(RECIPE).build() for _ in range(2))
    fit(model, backend="slow", verbose=0)
    fit(other, backend="slow", verbose=0)
    stores, position = [v.store for v in model.variables], replace(model.position)
    before = engines.steps[backend.name]
    said = try_all(model)
    assert engines.steps[backend.name] > before + 1, said
    assert [v.store for v in model.variables] == stores and model.position == position
    assert_same_bits(model, other)


def test_compilation_counts(engines: Engines) -> None:
    engines.register(EMBEDDED, 1.0)
    engines.register("compiler", 0.5, compiling=100.0)
    said = try_all(Recipe(RECIPE).build(), steps=100)
    assert said == [
        "auto: numpy 1000.000 ms, compiler 500.000 ms a step (batch 16); numpy is done first, with 100 steps ahead."
    ]
    assert try_all(Recipe(RECIPE).build(), steps=1000)[-1].endswith("measured before; compiler.")
    assert try_all(Recipe(RECIPE).build(), steps=None)[-1].endswith("measured before; compiler.")


@pytest.mark.parametrize("quiet", [range(7, 999), [3]], ids=["after the first rounds", "once"])
def test_engines_that_are_near_are_timed_again(engines: Engines, quiet: Sequence[int]) -> None:
    """Something else runs most of the time; that makes a step longer, but not faster."""
    engines.register(EMBEDDED, lambda number: 0.05 if number in quiet else 0.06)
    engines.register("steady", 0.055)
    assert try_all(Recipe(RECIPE).build())[-1] == "auto: numpy 50.000 ms, steady 55.000 ms a step (batch 16); numpy."


def test_a_slow_step_is_not_run_often(engines: Engines) -> None:
    engines.register(EMBEDDED, 60.0)
    engines.register("slower", 70.0)
    try_all(Recipe(RECIPE).build())
    assert all(2 <= count <= 3 for count in engines.steps.values())


def test_only_the_winner_keeps_what_was_compiled(engines: Engines) -> None:
    for name, step in (("a", 1.2), (EMBEDDED, 1.0), ("b", 1.1), ("c", 5.0)):
        engines.register(name, step)
    model = Recipe(RECIPE).build()
    data = model._data(*samples())
    try_all(model)
    assert [key[0] for key in model._program("train", data)._compiled] == [EMBEDDED]


def test_a_model_with_a_step_of_its_own(engines: Engines) -> None:
    class Own(ul.Sequential):
        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with ul.GradientTape() as tape:
                loss = ops.mean(ops.square(self(x, training=True)[:, 0] - ops.astype(y, "float32")))
            self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
            return {"loss": loss}

    engines.register(EMBEDDED, 10.0)
    engines.register("fast", 1.0)
    results = []
    for name in (AUTO, "fast"):
        model = Own([ul.Input((4,)), layers.Dense(1, kernel_initializer="ones")])
        model.compile("adam", backend=name)
        history = model.fit(*samples(), epochs=9, verbose=0)
        assert history.params["backend"] == "fast"
        results.append((history.history["loss"], model.get_weights()))
    assert results[0][0] == results[1][0]
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stream_loses_no_batch(engines: Engines) -> None:
    engines.register("fast", 1.0)
    x, y = samples()
    models = [Recipe(RECIPE).build() for _ in range(2)]
    for model, name in zip(models, (AUTO, "fast"), strict=True):
        batches = ((x[i : i + 4], y[i : i + 4]) for _ in range(9) for i in range(0, 48, 4))  # only once
        history = model.fit(batches, epochs=9, steps_per_epoch=12, backend=name, verbose=0)
        assert history.params["backend"] == "fast" and model.position.step == 9 * 12
    assert_same_bits(*models)


def test_each_step_takes_the_next_batch(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the size of a whole one."""
    seen = []
    monkeypatch.setattr(Backend, "fed", lambda self, inputs, *how: seen.append(inputs) or inputs)
    engines.register(EMBEDDED, 0.05)
    model = Recipe(RECIPE).build()
    try_all(model, batch_size=20)  # of 48
    x = samples()[0]
    assert len(seen) > 5
    for i, (batch, labels) in enumerate(seen):
        np.testing.assert_array_equal(batch, x[20 * (i % 2) :][:20])
        assert labels.shape == (20,) and labels.dtype == "int32"


# ---- where there is nothing to choose --------------------------------------------------------------------------------


def test_other_calls_run_where_the_weights_are(engines: Engines) -> None:
    engines.register("fast", 1.0)
    engines.register(EMBEDDED, 9.0)
    x, y = samples()
    model = Recipe(RECIPE).build()
    model.predict(x, verbose=0)
    assert {v.place()[0].name for v in model.variables} == {EMBEDDED}
    fit(model, epochs=9, verbose=0)
    before = dict(engines.steps)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0, backend=AUTO)
    model.train_on_batch(x, y, backend=AUTO)
    assert {v.place()[0].name for v in model.variables} == {"fast"}
    assert engines.steps[EMBEDDED] == before[EMBEDDED]


@pytest.mark.parametrize("how", ["eagerly", "no epochs"])
def test_no_graph_or_no_steps_no_trying(engines: Engines, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    engines.register("fast", 1.0)
    model = Recipe(RECIPE).build()
    model.run_eagerly = how == "eagerly"
    history = fit(model, epochs=1, initial_epoch=int(how == "no epochs"))
    assert history.params["backend"] == EMBEDDED
    assert "auto" not in capsys.readouterr().out and engines.compiled["fast"] == 0


def test_a_named_backend_wins_over_auto(engines: Engines) -> None:
    engines.register("fast", 1.0)
    model = Recipe(RECIPE).build()  # compiled with auto
    assert fit(model, backend=EMBEDDED, verbose=0).params["backend"] == EMBEDDED
    assert engines.compiled["fast"] == 0


def test_the_environment_may_say_auto(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.register(EMBEDDED, 10.0)
    engines.register("fast", 1.0)
    monkeypatch.setenv(VARIABLE, AUTO)
    assert get_backend().name == EMBEDDED
    model = Recipe(RECIPE.replace("backend: auto\n", "")).build()
    assert fit(model, backend=None, epochs=9, verbose=0).params["backend"] == "fast"
    other = ul.Sequential([ul.Input((4,)), layers.Dense(1)])
    other.compile("sgd", "mse")
    assert fit(other, backend=None, epochs=9, verbose=0).params["backend"] == "fast"
    fit(other, backend=EMBEDDED, verbose=0)
    assert fit(other, backend=None, verbose=0).params["backend"] == EMBEDDED  # where its weights are


def test_auto_is_no_backend() -> None:
    with pytest.raises(BackendError) as caught:
        get_backend(AUTO)
    assert str(caught.value) == (
        "'auto' is a choice among backends for training. Expected one backend here. "
        f"Valid names: {', '.join(backend_names())}."
    )


# ---- engines that cannot ---------------------------------------------------------------------------------------------


def fail(*args: Any) -> Any:
    raise MemoryError("no\nroom")


def fail_later(graph: Any, device: str) -> Any:
    return fail


BROKEN: dict[str, dict[str, Any]] = {
    "compile": {"compile": fail},
    "step": {"compile": fail_later},
    "put": {"put": fail},
    "synchronize": {"synchronize": fail},
}


@pytest.mark.parametrize("where", BROKEN)
def test_an_engine_that_fails_is_left_out(engines: Engines, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    engines.register("broken", 0.1, **BROKEN[where])
    engines.register(EMBEDDED, 1.0)
    for line in ("a step (batch 16); numpy.", "a step (batch 16), measured before; numpy."):
        history = fit(Recipe(RECIPE).build(), epochs=9, verbose=1)
        assert capsys.readouterr().out.splitlines()[:2] == [
            "auto: broken is left out: MemoryError: no room", f"auto: numpy 1000.000 ms {line}",
        ]  # fmt: skip
        assert history.params["backend"] == EMBEDDED


def test_an_engine_that_fails_in_a_later_round(engines: Engines) -> None:
    def step(number: int) -> float:
        return fail() if number > 7 else 0.05

    engines.register(EMBEDDED, 0.051)
    engines.register("weak", step)
    assert try_all(Recipe(RECIPE).build()) == [
        "auto: weak is left out: MemoryError: no room", "auto: numpy 51.000 ms a step (batch 16); numpy.",
    ]  # fmt: skip


def test_engines_without_the_device_or_the_framework_are_left_out(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(arrays: Sequence[np.ndarray], device: str) -> list[Any]:
        assert device == "cuda:0"
        return engines.real.put(arrays, "cpu")

    engines.register("gpu", 1.0, devices=lambda: ["cpu", "cuda:0"], put=put, feed=None)
    gone = EntryPoint("gone", "no_such_framework:BACKEND", GROUP)
    monkeypatch.setattr(registry, "_installed", lambda: {"gone": gone})
    assert try_all(Recipe(RECIPE).build(), device="cuda") == [
        "auto: numpy is left out: backend 'numpy': device 'cuda' is not available. Devices here: cpu.",
        "auto: gone is left out: backend 'gone' needs the package 'no_such_framework'. "
        "Install it with: pip install 'unilayers[gone]'.",
        "auto: gpu 1000.000 ms a step (batch 16); gpu.",
    ]
    engines.register("gone", 0.5, devices=lambda: ["cuda:0"], put=put, feed=None)  # somebody has installed it
    assert try_all(Recipe(RECIPE).build(), device="cuda")[1:] == [
        "auto: gpu 1000.000 ms, gone 500.000 ms a step (batch 16); gone."
    ]


def test_no_engine_can(engines: Engines) -> None:
    engines.register(EMBEDDED, 1.0, compile=fail)
    engines.register("other", 1.0, put=fail)
    with pytest.raises(BackendError) as caught:
        fit(Recipe(RECIPE).build(), verbose=0)
    assert str(caught.value) == (
        "backend 'auto': no backend can run this training. "
        "Received numpy: MemoryError: no room; other: MemoryError: no room."
    )


# ---- engines that are not imported yet -------------------------------------------------------------------------------


@pytest.fixture
def heavy(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Engines ``first`` and ``second`` whose import takes 3 and 8 seconds; the names of those that were imported."""
    imported: list[str] = []
    module = sys.modules[__name__]

    class Importing(EntryPoint):
        def load(self) -> Backend:
            imported.append(self.name)
            engines.now += {"first": 3.0, "second": 8.0}[self.name]
            return engines.add(self.name, {"first": 1.0, "second": 0.5}[self.name])

    points = {name: Importing(name, f"{module.__name__}:{name}", GROUP) for name in ("second", "first")}
    monkeypatch.setattr(registry, "_installed", lambda: points)
    engines.register(EMBEDDED, 2.0)
    return imported


def test_a_short_training_imports_nothing(engines: Engines, heavy: list[str]) -> None:
    assert try_all(Recipe(RECIPE).build(), steps=2) == [
        "auto: first, second not tried: to import and compile cannot pay, as numpy is done in 6.0 s.",
        "auto: numpy 2000.000 ms a step (batch 16); numpy.",
    ]
    assert heavy == []


def test_what_is_imported_grows_with_the_training(engines: Engines, heavy: list[str]) -> None:
    assert choice.loading("first") == choice.UNKNOWN_LOADING
    try_all(Recipe(RECIPE).build(), steps=10)
    assert heavy == ["first"]  # then the time is spent
    assert try_all(Recipe(RECIPE).build(), steps=LONG)[-1] == (
        "auto: numpy 2000.000 ms, first 1000.000 ms, second 500.000 ms a step (batch 16); second."
    )
    assert heavy == ["first", "second"]


def test_engines_are_tried_in_the_order_of_their_import(
    engines: Engines, heavy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that costs is known from the last time, and counts where a process has not imported them."""
    try_all(Recipe(RECIPE).build())
    loaded = {EMBEDDED: registry._loaded[EMBEDDED]}
    monkeypatch.setattr(registry, "_loaded", dict(loaded))
    assert [choice.loading(name) for name in (EMBEDDED, "first", "second")] == [0.0, 3.0, 8.0]
    heavy.clear()
    assert try_all(Recipe(RECIPE).build(), steps=4)[-1].endswith(
        "measured before; first is done first, with 4 steps ahead."
    )
    assert heavy == ["first"]
    monkeypatch.setattr(registry, "_loaded", dict(loaded))
    heavy.clear()
    try_all(Recipe(RECIPE).build(), retime=True)
    assert heavy == ["first", "second"]


# ---- what was measured before ----------------------------------------------------------------------------------------


@pytest.fixture
def two(engines: Engines) -> Engines:
    engines.register(EMBEDDED, 1.0)
    engines.register("other", 2.0)
    return engines


def tried(engines: Engines, **options: Any) -> bool:
    """Whether a new model like the others is tried on the other engine."""
    before = engines.compiled["other"]
    said = try_all(Recipe(RECIPE).build(), **options)
    again = engines.compiled["other"] > before
    assert ("measured before" in said[-1]) is not again
    return again


def test_what_was_measured_is_kept(two: Engines, tmp_path: Path) -> None:
    assert tried(two)
    assert not tried(two)
    assert tried(two, batch_size=8) and tried(two, device="cpu") and not tried(two, batch_size=8)
    assert tried(two, retime=True) and not tried(two)
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 3 and all(len(file.stem) == 64 and file.suffix == ".json" for file in files)


def test_another_model_is_tried(two: Engines) -> None:
    assert tried(two)
    wider = Recipe(RECIPE, overrides=["model[1].Dense.units=9"]).build()
    assert "before" not in try_all(wider)[-1]


@pytest.mark.parametrize("what", ["unilayers", "numpy", "the_framework"])
def test_a_new_version_is_timed_again(engines: Engines, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    versions = {"unilayers": "1", "numpy": "1", "the_framework": "1"}
    monkeypatch.setattr(choice, "version_of", versions.get)
    engines.register(EMBEDDED, 1.0)
    engines.register("other", 2.0, packages=("the_framework",))
    assert tried(engines) and not tried(engines)
    versions[what] = "2"
    assert tried(engines) and not tried(engines)


@pytest.mark.parametrize("what", ["_processor", "_cores", "OMP_NUM_THREADS"])
def test_another_machine_is_timed_again(two: Engines, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    assert tried(two) and not tried(two)
    if hasattr(choice, what):
        monkeypatch.setattr(choice, what, lambda: "another")
    else:
        monkeypatch.setenv(what, "77")
    assert tried(two)


@pytest.mark.parametrize("text", ["", "[1]", '{"numpy": 3}', '{"numpy": {"step": 1, "speed": 2}}', '{"numpy": {"st'])
def test_a_damaged_file_is_none(two: Engines, tmp_path: Path, text: str) -> None:
    tried(two)
    for file in (tmp_path / "cache").iterdir():
        file.write_text(text)
    assert tried(two) and not tried(two)


def test_a_number_that_is_none(two: Engines, tmp_path: Path) -> None:
    tried(two)
    [file] = (tmp_path / "cache").iterdir()
    file.write_text(file.read_text().replace('"step": 1.0', '"step": "fast"'))
    assert "fast" in file.read_text() and tried(two)


def test_an_engine_that_is_gone_is_left_out(two: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    two.register(EMBEDDED, 3.0)
    assert try_all(Recipe(RECIPE).build())[-1].endswith("; other.")
    monkeypatch.delitem(registry._loaded, "other")
    assert try_all(Recipe(RECIPE).build()) == ["auto: numpy 3000.000 ms a step (batch 16), measured before; numpy."]


def test_where_no_file_can_be_written_the_process_remembers(two: Engines, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    model = Recipe(RECIPE).build()
    assert "before" not in try_all(model)[-1]
    assert "before" in try_all(model)[-1]
    assert tried(two)  # another model


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(choice.FOLDER, "~/here")
    assert choice.cache_folder() == Path.home() / "here"
    monkeypatch.delenv(choice.FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert choice.cache_folder() == tmp_path / "unilayers"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert choice.cache_folder().is_relative_to(Path.home())


def test_nothing_is_written_unless_engines_are_tried(tmp_path: Path) -> None:
    code = (
        "import numpy as np, unilayers as ul, unilayers.cli\n"
        "m = ul.Sequential([ul.Input((2,)), ul.layers.Dense(1)])\n"
        "m.compile('sgd', 'mse')\n"
        "m.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0{})"
    )
    environment = {**os.environ, choice.FOLDER: str(tmp_path / "cache")}
    for argument, written in (("", False), (", backend='auto'", True)):
        subprocess.run([sys.executable, "-c", code.format(argument)], check=True, env=environment, timeout=300)
        assert (tmp_path / "cache").exists() is written


# ---- recipes and the command line ------------------------------------------------------------------------------------


def call(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def backends_of(folder: Path) -> tuple[str, str]:
    """The backend that the recipe of a run names, and that of its environment."""
    recipe = Recipe((folder / "recipe.yaml").read_text())
    return recipe.backend, json.loads((folder / "environment.json").read_text())["backend"]


def test_a_run_names_the_backend_and_is_resumed_on_it(engines: Engines, tmp_path: Path) -> None:
    engines.register(EMBEDDED, 9.0)
    engines.register("fast", 1.0)
    recipe, run = Recipe(RECIPE), tmp_path / "run"
    assert recipe.backend == AUTO and AUTO in json_schema()["properties"]["backend"]["enum"]
    recipe.train(run, verbose=0)
    assert backends_of(run) == ("fast", "fast")
    engines.register("fast", 99.0)
    assert "auto" not in " ".join(call("train", "--resume", "run", "--epochs", "3"))
    assert backends_of(run) == ("fast", "fast")
    lines = call("train", "--resume", "run", "--epochs", "9", "--backend", "auto", "--retime")
    assert lines[0] == "auto: numpy 9000.000 ms, fast 99000.000 ms a step (batch 16); numpy."
    assert backends_of(run) == (EMBEDDED, EMBEDDED)


def test_a_recipe_gives_the_same_run_as_with_the_engine_named(engines: Engines, tmp_path: Path) -> None:
    engines.register("slow", 9.0)
    engines.register(EMBEDDED, 1.0)
    runs = [Recipe(RECIPE).train(tmp_path / name, backend=name, verbose=0) for name in (AUTO, EMBEDDED)]
    for file in ("recipe.yaml", "checkpoint.safetensors"):
        a, b = ((tmp_path / name / file).read_bytes() for name in (AUTO, EMBEDDED))
        assert a == b, file
    assert_same_bits(*(run.model for run in runs))


def test_the_command_line(engines: Engines, tmp_path: Path) -> None:
    engines.register(EMBEDDED, 1.0)
    engines.register("slow", 9.0)
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("auto", "slow"))
    lines = call("train", "mine.yaml", "--backend", "auto", "--out", "run")
    assert lines[0] == "auto: numpy 1000.000 ms, slow 9000.000 ms a step (batch 16); numpy."
    assert lines[1].startswith("chosen on numpy (cpu, float32, seed 0): ")
    again = call("train", "mine.yaml", "--backend", "auto", "--out", "again")
    assert again[0] == "auto: numpy 1000.000 ms, slow 9000.000 ms a step (batch 16), measured before; numpy."
    retimed = call("train", "mine.yaml", "--backend", "auto", "--out", "retimed", "--retime")
    assert retimed[0] == lines[0]
    assert len(call("train", "mine.yaml", "--backend", "auto", "--out", "quiet", "--quiet")) == 1
    assert call("evaluate", "run")[0].startswith("validation (12 samples): ")


def test_the_chosen_backend_is_told_to_callbacks(engines: Engines) -> None:
    engines.register(EMBEDDED, 9.0)
    engines.register("fast", 1.0)
    seen = []
    watch = LambdaCallback(on_train_begin=lambda logs: seen.append(watch.params["backend"]))
    fit(Recipe(RECIPE).build(), epochs=9, callbacks=[watch], verbose=0)
    assert seen == ["fast"]
