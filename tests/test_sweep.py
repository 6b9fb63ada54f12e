"""Sweeps: the points they try, what came of them beside separate trainings, breaks, failures, reports."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner
from unilayers.cli.app import app

from tests.compare import assert_close
from tests.test_cli import RECIPE, call, fail
from tests.test_compare import Page
from tests.test_recipes import PressIn, comparable
from unilayers.backend import backend_names
from unilayers.errors import RecipeError, UnilayersError
from unilayers.recipe import Interrupted, Recipe, load_recipe
from unilayers.recipe.run import CHECKPOINT
from unilayers.runs import compare_states, find_runs, read_run
from unilayers.sweep import Axis, Range, Space, Sweep, parse_axis, sweep
from unilayers.sweep import run as running
from unilayers.sweep.report import overview, progress, seeds
from unilayers.sweep.search import suggest
from unilayers.sweep.space import overrides

RATES = "optimizer.Adam.learning_rate=0.1,0.001"


def scores(found: Sweep) -> list[float | None]:
    return [best and best.value for best in map(found.score, found.trials)]


# ---- what is tried --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=1e-4,1e-3", (1e-4, 1e-3)),
        ("a=1..3", (1, 2, 3)),
        ("a=-1..1, 5", (-1, 0, 1, 5)),
        ("a=[3,3],[5,5]", ([3, 3], [5, 5])),
        ("a=[3,3]", ([3, 3],)),
        ("a=[]", ([],)),
        ("a=", (None,)),
        ("a=relu, 'a, b',\"c,d\"", ("relu", "a, b", "c,d")),
        ("a={x: 1, y: 2},{x: 3}", ({"x": 1, "y": 2}, {"x": 3})),
        ("a=SGD,{Adam: {learning_rate: 1e-2, beta_1: .8}}", ("SGD", {"Adam": {"learning_rate": 0.01, "beta_1": 0.8}})),
        ("a=true,null,1,x=y", (True, None, 1, "x=y")),
        ("a=0.5..1.5", Range(0.5, 1.5)),
        ("a=log:1e-5..0.1", Range(1e-5, 0.1, True)),
        ("a=log:8..512", Range(8, 512, True)),
        ("a=1..1000000000", Range(1, 10**9)),
    ],
)
def test_values_are_yaml_between_commas(text: str, values: Any) -> None:
    axis = parse_axis(text)
    assert (axis.path, axis.values) == ("a", values)
    if not isinstance(values, Range):
        assert [json.dumps(v) for v in axis.values] == [json.dumps(v) for v in values]  # 1 is not 1.0 or true


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed", "--set seed: no values to try. Expected path=values, as in"),
        ("=1,2", "no values to try"),
        ("a=[1,2", "--set a=[1,2: not valid YAML"),
        ("a=5..1", "a range without numbers. Expected the least before the largest. Received 5..1."),
        ("a=log:0..1.5", "Expected the least before the largest, both more than 0. Received log:0..1.5."),
        ("a=0.1..0.2,0.5", "a range to draw from beside other values. Received 0.1..0.2."),
        ("a=1..3,2", "sweep: a: a value that stands twice. Received 2."),
        ("a=!!python/object:x 1", "a tag that recipes do not have"),
    ],
)
def test_values_that_are_none(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_axis(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [1, 1.5, 1e-7, True, None, "a, b", "torch:x", [3, 3], {"a": [1, {"b": None}]}, "1..5",
                                   math.inf, -math.inf])  # fmt: skip
def test_points_are_overrides(value: Any) -> None:
    told = overrides({"description": value, "backend": "numpy"})
    text = told[0].partition("=")[2]
    assert parse_axis(f"a=[{text}]").values == ([value],) or value == "1..5"
    assert told[1] == 'backend="numpy"'


def test_draws_spread_over_their_ranges() -> None:
    rng = np.random.default_rng(0)
    for low, high in ((1e-5, 1e-1), (0.3, 0.7)):
        for log in (True, False):
            drawn = np.array([Range(low, high, log).draw(rng) for _ in range(2000)])
            middle = math.sqrt(low * high) if log else (low + high) / 2
            assert drawn.min() >= low and drawn.max() <= high and 0.45 < (drawn < middle).mean() < 0.55
    for log in (True, False):
        counts = np.bincount([int(Range(1, 4, log).draw(rng)) for _ in range(4000)])[1:]
        share = np.log(np.arange(1.5, 5) / np.arange(0.5, 4)) / np.log(9) if log else np.full(4, 0.25)
        assert_close(counts / 4000, share, rtol=0, atol=0.03, what="shares")


def test_draws_are_distinct_and_the_first_of_more() -> None:
    space = Space([parse_axis("a=1..3"), parse_axis("b=x,y")])
    found = list(space.draws([7]))
    assert len(found) == space.size == 6 and sorted(map(str, found)) == sorted(map(str, space.grid()))
    assert list(islice(space.draws([7]), 4)) == found[:4] != list(islice(space.draws([8]), 4))


@pytest.mark.parametrize(
    ("axes", "told", "said"),
    [
        ([], {}, "nothing to try"),
        (["seed=3"], {}, "sweep: nothing to try, there is one value of each. Name several, as in --set seed=1..5"),
        (["seed=1,2", "seed=3"], {}, "'seed' is given 2 times. Put all its values into one"),
        (["seed=1,2"], {"random": 3}, "Expected from 1 to 2 trials. Received 3. Leave --random and --search out"),
        (["seed=1,2"], {"random": 0}, "Expected from 1 to 2 trials. Received 0."),
        (["seed=1,2"], {"random": 1, "search": 1}, "--random beside --search"),
        (["seed=1,2"], {"jobs": 0}, "no such number of jobs. Expected at least 1. Received 0."),
        (["seed=1,2"], {"mode": "up"}, "unknown mode. Expected auto, min or max. Received 'up'."),
        (["seed=1,2"], {"monitor": "val_thing"}, "nothing says whether 'val_thing' is better when larger or smaller"),
        (["seed=1,2"], {"backends": ["numpy", "numpy"]}, "a value that stands twice"),
        (["seed=1,2"], {"backends": ["nump"]}, "unknown backend 'nump'. Did you mean 'numpy'?"),
        (["fit.batch_size=8,0"], {}, "fit.batch_size: "),
        (["optimizer.Adam.learning_rat=1,2"], {}, "unknown key 'learning_rat'. Did you mean 'learning_rate'?"),
        (["model[9].Dense.units=1,2"], {}, "no such item"),
        (["optimizer=Adam,Adma"], {}, "unknown optimizer 'Adma'"),
        (["optimizer.Adam.learning_rate=0.1..0.5"], {}, "a range has no grid"),
        (["seed=0..9999", "fit.epochs=1..9"], {}, "too many trials. Expected up to 10,000. Received 90,000."),
        (["model[1].Dense.units=0.5..1.5"], {"random": 3}, "model[1].Dense.units"),
        (["model[1].Dense.units=0.5..1.5"], {"search": 3}, "model[1].Dense.units"),
    ],
)
def test_what_cannot_be_swept(axes: list[str], told: Any, said: str, tmp_path: Path) -> None:
    if "search" in told and len(told) == 1:
        pytest.importorskip("optuna")
    with pytest.raises(UnilayersError) as caught:
        sweep(Recipe(RECIPE), axes, out=tmp_path / "s", in_process=True, **told)
    assert said in str(caught.value)
    assert not (tmp_path / "s").exists()


# ---- what comes of it -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Two rates, two seeds."""
    text = RECIPE.replace("description: Of my own", "description: a <b> & c")
    return sweep(Recipe(text), [RATES, "seed=1..2"], out=tmp_path_factory.mktemp("made") / "s", in_process=True)


def test_trials_are_separate_trainings(made: Sweep, tmp_path: Path) -> None:
    assert [t.values for t in made.trials] == [
        {"optimizer.Adam.learning_rate": rate, "seed": seed} for rate in (0.1, 0.001) for seed in (1, 2)
    ]
    for trial in made.trials:
        told = [f"{path}={value}" for path, value in trial.values.items()]
        alone = Recipe(made.recipe, overrides=told).train(tmp_path / trial.name, verbose=0)
        assert compare_states(tmp_path / trial.name, trial.run.folder).same
        assert alone.scores == trial.scores and trial.state == "done"
        best = made.score(trial)
        assert best is not None and best.value == min(alone.history["val_loss"])
    assert made.best is not None and made.ranked[0] is made.best
    assert [made.score(t).value for t in made.ranked] == sorted(scores(made))  # type: ignore[union-attr, type-var]
    assert len(find_runs(made.folder)) == 4


def test_processes_give_the_same(made: Sweep, tmp_path: Path) -> None:
    watched: list[int] = []
    found = sweep(Recipe(made.recipe), [RATES, "seed=1..2"], jobs=3, out=tmp_path / "s",
                  watch=lambda s: watched.append(sum(t.state == "trains" for t in s.trials)))  # fmt: skip
    assert scores(found) == scores(made) and max(watched) == 3
    for a, b in zip(found.trials, made.trials, strict=True):
        assert compare_states(a.run.folder, b.run.folder).same


def test_engines_are_an_axis(tmp_path: Path) -> None:
    names = [name for name in ("numpy", "torch") if name in backend_names()]
    found = sweep(Recipe(RECIPE), ["seed=1,2"], [f"{name}:cpu" for name in names], in_process=True, out=tmp_path / "s")
    assert [read_run(t.run.folder).backend for t in found.trials] == names * 2
    by_engine = np.array(scores(found), float).reshape(2, len(names))
    assert_close(by_engine[:, 0], by_engine[:, -1], rtol=1e-4, atol=0, what="scores")


def test_what_counts(tmp_path: Path) -> None:
    for i, (told, name, direction) in enumerate((
        ({}, "val_loss", "down"), ({"monitor": "val_accuracy"}, "val_accuracy", "up"),
        ({"monitor": "loss", "mode": "max"}, "loss", "up"),
    )):  # fmt: skip
        found = sweep(Recipe(RECIPE), [RATES], in_process=True, out=tmp_path / str(i), **told)  # type: ignore[arg-type]
        assert (found.monitor, found.direction) == (name, direction)
        best = [(max if direction == "up" else min)(v for _, v in t.run.values(name)) for t in found.trials]
        assert (
            scores(found) == best and found.best is found.trials[best.index((max if direction == "up" else min)(best))]
        )
    whole = RECIPE.replace(", validation_split: 0.2", "")
    assert sweep(Recipe(whole), [RATES], in_process=True, out=tmp_path / "w").monitor == "loss"


def test_a_name_that_no_trial_has_is_a_row_after_an_epoch(tmp_path: Path) -> None:
    found = sweep(Recipe(RECIPE), [RATES], in_process=True, monitor="val_acuracy", mode="max", out=tmp_path / "s")
    assert found.best is None and {len(t.run.epochs) for t in found.trials} <= {0, 1}
    assert found.trials[0].problem == "sweep: no value 'val_acuracy' to monitor. Did you mean 'val_accuracy'?"


@pytest.mark.parametrize("in_process", [True, False])
def test_a_trial_that_fails_is_a_row(in_process: bool, tmp_path: Path) -> None:
    """For a device that is not there, and for data that does not fit the model."""
    axes = ["data.features=4,5", "backend=numpy,'numpy:cuda:77'"]
    found = sweep(Recipe(RECIPE), axes, in_process=in_process, jobs=2, out=tmp_path / "s")
    assert [t.state for t in found.trials] == ["done", "failed", "failed", "failed"]
    assert "device 'cuda:77' is not available" in found.trials[1].problem
    assert "shape" in found.trials[2].problem
    assert overview(found)[1][0][-1] == "done" and found.best is found.trials[0]
    again = sweep(Recipe(RECIPE), axes, in_process=True, out=tmp_path / "s")
    assert [t.problem for t in again.trials] == [t.problem for t in found.trials]


def test_classes_of_ones_own_in_processes(tmp_path: Path) -> None:
    (tmp_path / "twice_of_mine.py").write_text(
        "from unilayers import layers\nclass Twice(layers.Layer):\n    def call(self, x):\n        return x + x\n"
    )
    text = RECIPE.replace("  - Dense: {units: 8, activation: relu}", "  - 'twice_of_mine:Twice'")
    (tmp_path / "r.yaml").write_text(text)
    found = sweep(load_recipe(tmp_path / "r.yaml", allow_imports=True), ["seed=1..2"], jobs=2, out=tmp_path / "s")
    assert [(t.state, t.problem) for t in found.trials] == [("done", "")] * 2


def test_a_combination_that_fits_no_recipe_is_a_row(tmp_path: Path) -> None:
    axes = ["model[1].Dense.name=other,dense", "model[2].Dense.name=null,dense"]
    found = sweep(Recipe(RECIPE), axes, in_process=True, out=tmp_path / "s")
    assert [t.state for t in found.trials] == ["done", "done", "done", "failed"]
    assert "two layers are called 'dense'" in found.trials[3].problem


def test_not_a_number_is_the_last(tmp_path: Path) -> None:
    rates = "optimizer.Adam.learning_rate=1e38,0.01"
    found = sweep(Recipe(RECIPE), [rates, "model[1].Dense.activation=linear"], in_process=True, out=tmp_path / "s")
    assert [t.number for t in found.ranked] == [2, 1] and math.isnan(scores(found)[0] or 0.0)
    json.loads((tmp_path / "s" / "report.json").read_text(), parse_constant=lambda x: pytest.fail(x))


# ---- breaks ---------------------------------------------------------------------------------------------------------


class Trained:
    """Which trials were trained, and how often; a trial can be broken off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[str] = []
        self.cut = ""
        before = Recipe.train

        def train(recipe: Recipe, folder: Any, callbacks: Any = (), **told: Any) -> Any:
            self.runs.append(Path(folder).name)
            more = [PressIn(5)] if Path(folder).name == self.cut else []
            return before(recipe, folder, callbacks=[*callbacks, *more], **told)

        monkeypatch.setattr(Recipe, "train", train)


@pytest.mark.parametrize("told", [{}, {"random": 4}, {"search": 4}], ids=["grid", "random", "search"])
def test_a_sweep_goes_on_where_it_was(told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "search" in told:
        pytest.importorskip("optuna")
    axes = [RATES, "seed=1..2"] if not told else ["optimizer.Adam.learning_rate=log:1e-3..1e-1", "fit.batch_size=8,16"]
    whole = sweep(Recipe(RECIPE), axes, in_process=True, out=tmp_path / "whole", **told)
    trained = Trained(monkeypatch)
    trained.cut = "003"
    with pytest.raises(Interrupted, match="interrupted") as caught:
        sweep(Recipe(RECIPE), axes, in_process=True, out=tmp_path / "cut", **told)
    assert caught.value.fix == f"Go on with the same command; what is done is in {tmp_path / 'cut'}"
    assert trained.runs == ["001", "002", "003"]
    trained.cut, trained.runs = "", []
    found = sweep(Recipe(RECIPE), axes, in_process=True, out=tmp_path / "cut", **told)
    assert trained.runs == ["003", "004"]
    assert [t.values for t in found.trials] == [t.values for t in whole.trials]
    assert scores(found) == scores(whole)
    for a, b in zip(found.trials, whole.trials, strict=True):
        assert comparable(a.run.folder) == comparable(b.run.folder)
        assert compare_states(a.run.folder, b.run.folder).same
    trained.runs = []
    assert scores(sweep(Recipe(RECIPE), axes, in_process=True, out=tmp_path / "cut", **told)) == scores(whole)
    assert trained.runs == []
    if told:  # more of the same
        [(how, _)] = told.items()
        longer = sweep(Recipe(RECIPE), axes, in_process=True, out=tmp_path / "cut", **{how: 5})
        assert trained.runs == ["005"] and scores(longer)[:4] == scores(whole)


def test_the_folder_is_that_of_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained = Trained(monkeypatch)
    first = sweep(Recipe(RECIPE), ["seed=1..2"], in_process=True)
    assert sweep(Recipe(RECIPE), ["seed=1..2"], in_process=True).folder == first.folder and len(trained.runs) == 2
    other = sweep(Recipe(RECIPE), ["seed=1..3"], in_process=True)
    assert other.folder != first.folder and other.folder.name.startswith("mine-sweep-")
    for changed, told, said in (
        (RECIPE, ["seed=1..3"], "another axes"),
        (RECIPE.replace("1e-2", "1e-3"), ["seed=1..2"], "another recipe"),
    ):
        with pytest.raises(UnilayersError, match=f"there is another sweep in this folder, with {said}"):
            sweep(Recipe(changed), told, in_process=True, out=first.folder)
    (first.folder / "sweep.json").write_text("[")
    with pytest.raises(UnilayersError, match=r"sweep\.json is damaged"):
        sweep(Recipe(RECIPE), ["seed=1..2"], in_process=True, out=first.folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x").touch()
    for place in ("notes", "notes/x"):
        with pytest.raises(UnilayersError, match="the folder must be new or empty"):
            sweep(Recipe(RECIPE), ["seed=1..2"], in_process=True, out=place)


SLOW = RECIPE.replace("fit: {epochs: 3, batch_size: 16}", "fit: {epochs: 4000, batch_size: 4, save_seconds: 0.05}")


def started(folder: Path, tmp_path: Path) -> subprocess.Popen[str]:
    """A sweep in a process of its own, once its two trials train."""
    (tmp_path / "slow.yaml").write_text(SLOW)
    code = "from unilayers.cli import main; main()"
    arguments = ["sweep", str(tmp_path / "slow.yaml"), "--set", "seed=1..2", "--jobs", "2", "--out", str(folder)]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not all((folder / "runs" / n / CHECKPOINT).is_file() for n in ("001", "002")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def at_rest(folder: Path) -> bool:
    """Whether nothing is written any more."""
    before = [(p, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()]
    time.sleep(1.0)
    return before == [(p, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()]


def test_a_sweep_is_for_one_process(tmp_path: Path) -> None:
    def again(_: Sweep) -> None:
        with pytest.raises(UnilayersError, match="another process is at work on this sweep"):
            sweep(Recipe(RECIPE), ["seed=1..2"], in_process=True, out=tmp_path / "s")
        seen.append(1)

    pytest.importorskip("fcntl")
    seen: list[int] = []
    sweep(Recipe(RECIPE), ["seed=1..2"], in_process=True, out=tmp_path / "s", watch=again)
    assert len(seen) >= 2
    assert len(sweep(Recipe(RECIPE), ["seed=1..2"], in_process=True, out=tmp_path / "s").trials) == 2


@pytest.mark.slow
def test_ctrl_c_lets_every_trial_save(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    process = started(folder, tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(60) == 130
    assert said == f"Interrupted. Go on with the same command; what is done is in {folder}\n"
    assert at_rest(folder)
    for run in find_runs(folder):
        assert run.problems == [] and 0 < run.done < 4000


@pytest.mark.slow
def test_trials_do_not_outlive_a_sweep_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    process = started(folder, tmp_path)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while not at_rest(folder):
        assert time.monotonic() < deadline
    assert len(find_runs(folder)) == 2


@pytest.mark.slow
def test_a_process_that_is_killed_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = running.child

    def child(module: str, function: str, told: Any, *more: Any) -> Any:
        if told["run"].endswith("001"):
            module, function = "tests.test_sweep", "killed"
        return before(module, function, told, *more)

    monkeypatch.setattr(running, "child", child)
    found = sweep(Recipe(RECIPE), ["seed=1..2"], out=tmp_path / "s")
    assert [t.state for t in found.trials] == ["failed", "done"]
    assert found.trials[0].problem == "the process was killed by signal SIGKILL; its last words: here"
    monkeypatch.undo()
    again = sweep(Recipe(RECIPE), ["seed=1..2"], out=tmp_path / "s")
    assert [t.state for t in again.trials] == ["done", "done"]


def killed() -> None:
    print("here", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


# ---- search ---------------------------------------------------------------------------------------------------------


def test_a_search_finds_what_is_good() -> None:
    """A bowl with two numbers and a choice: near its bottom after thirty looks, nearer than at random."""
    pytest.importorskip("optuna")
    space = Space([parse_axis("a=log:1e-5..1e-1"), parse_axis("b=-10..10"), parse_axis("c=x,y,z"), parse_axis("d=0")])

    def height(point: Any) -> float:
        return (math.log10(point["a"]) + 3) ** 2 + (point["b"] - 4) ** 2 / 10 + 3 * (point["c"] != "y")

    for larger in (False, True):
        ends = []
        for seed in range(3):
            known: list[tuple[Any, float | None]] = []
            for number in range(30):
                point = suggest(space, known, [], larger, (seed, number))
                known.append((point, None if number == 3 else -height(point) if larger else height(point)))
            assert len({json.dumps(p) for p, _ in known}) == 30 and all(p["d"] == 0 for p, _ in known)
            ends.append(min(abs(s) for _, s in known if s is not None))
        drawn = [min(height(p) for p in islice(space.draws([seed]), 30)) for seed in range(3)]
        assert np.median(ends) < 0.5 and np.median(ends) < np.median(drawn)
    assert suggest(space, known[:5], [known[6][0]], False, (1, 2)) == suggest(
        space, known[:5], [known[6][0]], False, (1, 2)
    )


def test_a_search_tries_no_point_twice() -> None:
    pytest.importorskip("optuna")
    space = Space([parse_axis("a=1..3"), Axis("b", ([1], [2]))])
    known: list[Any] = []
    for number in range(6):
        known.append((suggest(space, known[:-1], [p for p, _ in known[-1:]], False, (0, number)), float(number)))
    assert len({json.dumps(p) for p, _ in known}) == 6


def test_a_search_without_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UnilayersError) as caught:
        sweep(Recipe(RECIPE), ["seed=1..9"], search=3, out=tmp_path / "s")
    assert str(caught.value) == (
        "sweep: a search needs the package 'optuna'. Install it with: pip install 'unilayers[search]'; "
        "or draw at random with --random N."
    )
    assert not (tmp_path / "s").exists()


# ---- reports --------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_holds_the_figures(made: Sweep) -> None:
    text = (made.folder / "report.html").read_text()
    page = Page(text)
    assert page.open == [] and page.loads == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(word not in text for word in ("http:", "https:", "url(", "@import"))
    assert all(cell in page.text for table in (overview(made), seeds(made)) for row in table[1] for cell in row)
    assert "a <b> & c" in page.text and made.best is not None
    assert (
        f"Best: trial {made.best.name} (learning_rate 0.1, seed {made.best.values['seed']}) with val_loss" in page.text
    )
    charts = ElementTree.fromstring(text.partition("\n")[2]).findall(".//div[@class='charts']/div/svg")
    assert len(charts) == 4  # curves, by rate, by seed, by trial
    said = [c.findtext("title") or "" for c in charts[0].findall("circle")]
    assert len(said) == 4 * 3
    for trial in made.trials:
        name = (
            f"{trial.name}: learning_rate {trial.values['optimizer.Adam.learning_rate']:g}, seed {trial.values['seed']}"
        )
        told = [f"{name}, epoch {epoch}: {value:.6g}" for epoch, value in trial.run.values("val_loss")]
        assert set(told) <= set(said)
        best = made.score(trial)
        for chart in charts[1:]:
            assert best and f"{name}: {best.value:.6g}" in [c.findtext("title") for c in chart.findall("circle")]


def test_points_lie_where_their_numbers_are(made: Sweep) -> None:
    text = (made.folder / "report.html").read_text()
    chart = ElementTree.fromstring(text.partition("\n")[2]).findall(".//div[@class='charts']/div/svg")[1]
    circles = {(c.findtext("title") or "")[:3]: c.attrib for c in chart.findall("circle")}
    across = [float(circles[t.name]["cx"]) for t in made.trials]
    assert across[0] == across[1] > across[2] == across[3]  # 0.1, 0.1, 0.001, 0.001
    heights = [float(circles[t.name]["cy"]) for t in made.trials]
    assert np.argsort(heights).tolist() == np.argsort([-float(s or 0) for s in scores(made)]).tolist()


def test_json_holds_everything(made: Sweep) -> None:
    document = json.loads((made.folder / "report.json").read_text(), parse_constant=lambda x: pytest.fail(x))
    assert document["how"] == "grid" and document["axes"] == {a.path: list(a.values) for a in made.axes}  # type: ignore[arg-type]
    assert [t["score"] for t in document["trials"]] == scores(made)
    assert document["best"] == made.best.number if made.best else False
    for told, trial in zip(document["trials"], made.trials, strict=True):
        assert told["values"] == trial.values and told["history"] == trial.run.epochs
        assert (made.folder / told["folder"] / CHECKPOINT).is_file()
    assert Recipe(document["recipe"]).resolved() == Recipe(made.recipe).resolved()
    text = (made.folder / "report.md").read_text()
    assert text.count("\n| 00") == 4 and "## Over seeds" in text


def test_seeds_are_taken_together(made: Sweep) -> None:
    head, rows = seeds(made)
    values = np.array(scores(made), float).reshape(2, 2)
    found = {row[0]: row[1:] for row in rows}
    for rate, pair in zip((0.1, 0.001), values, strict=True):
        expected = ["2", *(f"{x:.5g}" for x in (pair.mean(), pair.min(), pair.max())), f"{pair.std(ddof=1):.3g}"]
        assert found[f"learning_rate {rate}"] == expected
    assert head[2] == "Mean val_loss"


def test_progress_is_a_table_while_it_goes_on(made: Sweep) -> None:
    head, rows = progress(made)
    assert len(rows) == 5 and rows[-1][0] == "4" and rows[-1][-1] == "4 done" and all(len(r) == len(head) for r in rows)


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RECIPE)
    arguments = [
        "sweep",
        "mine.yaml",
        "--set",
        RATES,
        "--set",
        "seed=1,2",
        "--random",
        3,
        "--epochs",
        2,
        "--in-process",
    ]
    text = call(*arguments)
    head, *rows, end = text.splitlines()
    assert head.split()[:5] == ["Trial", "learning_rate", "seed", "val_loss", "Epoch"]
    values = [float(row.split()[3]) for row in rows]
    assert len(rows) == 3 and values == sorted(values) and all(row.split()[-1] == "done" for row in rows)
    [folder] = Path("runs").iterdir()
    assert end == f"Reports: {folder}"
    names = {"records", "runs", "sweep.json", "report.json", "report.md", "report.html"}
    assert {p.name for p in folder.iterdir()} == names
    assert call(*arguments) == text
    assert call(*arguments, "--quiet") == ""
    assert len(json.loads(call("runs", "--json"))) == 3
    shutil.rmtree("runs")
    result = CliRunner().invoke(app, ["sweep", "mine.yaml", "--set", "seed=1,2", "--in-process", "--quiet",
                                      "--monitor", "val_x", "--mode", "max"])  # fmt: skip
    assert result.exit_code == 1 and re.match("Error: sweep: no trial has come to its end: ", result.stderr)
    assert fail("sweep", "mine.yaml").startswith("sweep: nothing to try")
