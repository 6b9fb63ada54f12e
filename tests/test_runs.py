"""Run folders: listed, shown, drawn over one another, compared; whole ones made by training, and damaged ones."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from safetensors.numpy import load_file, save
from typer.testing import CliRunner
from unilayers.cli.app import app

from tests.conftest import require_backend
from tests.test_cli import call, fail
from unilayers.backend import get_backend
from unilayers.errors import CheckpointError, UnilayersError
from unilayers.recipe import load_recipe
from unilayers.recipe.run import CHECKPOINT, ENVIRONMENT, HISTORY, RECIPE
from unilayers.registry import Registry
from unilayers.runs import Run, compare_states, curves, draw, find_runs, read_run, setting_differences
from unilayers.runs.curves import SIZE
from unilayers.runs.folder import FAMILIES, FILES
from unilayers.utils.charts import LIGHT, ticks

SPIRALS = load_recipe("spirals-mlp", ["fit.epochs=2", "data.n=90"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs: ``first``, ``again`` with the same recipe, ``other``, ``digits`` further down."""
    place = tmp_path_factory.mktemp("trained") / "runs"
    SPIRALS.train(place / "first", verbose=0)
    SPIRALS.train(place / "again", verbose=0)
    SPIRALS.changed("optimizer.Adam.learning_rate=0.02", "fit.epochs=3").train(place / "other", verbose=0)
    load_recipe("digits-mlp", ["fit.epochs=2", "backend=numpy"]).train(place / "more" / "digits", verbose=0)
    for i, name in enumerate(("first", "again", "other", "more/digits")):  # a second is all that the clock tells apart
        change_json(place / name / ENVIRONMENT, started=f"2025-01-0{i + 1}T10:00:00+00:00")
    return place


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them, to be damaged, as ``runs`` in the current folder."""
    shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return Path("runs")


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder: Path, change: Any) -> None:
    """Write a checkpoint again with other tensors."""
    path = folder / CHECKPOINT
    size = int.from_bytes(path.read_bytes()[:8], "little")
    metadata = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
    tensors = load_file(path)
    change(tensors)
    path.write_bytes(save({name: np.array(x, order="C") for name, x in tensors.items()}, metadata))


# ---- one run --------------------------------------------------------------------------------------------------------


def test_a_run_is_what_training_said(tmp_path: Path) -> None:
    result = SPIRALS.train(tmp_path / "run", verbose=0)
    run = read_run(tmp_path / "run")
    assert (run.name, run.backend, run.device, run.done, run.wanted) == ("spirals-mlp", "numpy", "cpu", 2, 2)
    assert run.problems == [] and run.started is not None
    assert run.settings == SPIRALS.settings
    assert run.names == ["loss", "accuracy", "val_loss", "val_accuracy"]
    for name in run.names:
        assert run.values(name) == list(enumerate(result.history[name], 1))
    assert run.seconds == pytest.approx(sum(result.history["seconds"]))
    found = result.history["val_accuracy"]
    assert run.best == ("val_accuracy", max(found), found.index(max(found)) + 1)


LINES = [{"loss": 3.0, "mae": 2.0, "a_accuracy": 0.1}, {"loss": 1.0, "mae": 4.0, "a_accuracy": 0.3}]


@pytest.mark.parametrize(
    ("metrics", "lines", "best"),
    [
        (["mae"], LINES, ("mae", 2.0, 1)),
        ([{"MeanAbsoluteError": {"name": "mae"}}], LINES, ("mae", 2.0, 1)),
        ({"a": ["accuracy"]}, LINES, ("a_accuracy", 0.3, 2)),
        (["acc"], LINES, ("loss", 1.0, 2)),
        ([], LINES, ("loss", 1.0, 2)),
        ([{"my_module:Mine": {}}, 3, "nothing"], LINES, ("loss", 1.0, 2)),
        (["mae"], [*LINES, {"loss": 1.0, "val_loss": 5.0}, {"val_loss": 4.0}], ("val_loss", 4.0, 4)),
        (["mae"], [{"mae": None}, {"mae": [1.0, 3.0]}], ("mae", 2.0, 2)),
        ([], [{"size": 1.0}], None),
        ([], [], None),
    ],
)
def test_the_best_value(metrics: Any, lines: list[dict[str, Any]], best: Any) -> None:
    run = Run(Path(), {"metrics": metrics}, epochs=[{"epoch": i, **line} for i, line in enumerate(lines, 1)])
    assert run.best == best


def test_a_run_that_never_had_a_number() -> None:
    name, value, epoch = Run(Path(), epochs=[{"epoch": 1, "loss": None}]).best or ("", 0.0, 0)
    assert (name, epoch) == ("loss", 1) and math.isnan(value)


@pytest.mark.parametrize("name", ["spirals-mlp", "digits-cnn", "two-layer-relu"])
def test_a_recipe_of_the_changes_alone_is_the_same(name: str) -> None:
    recipe = load_recipe(name)
    changes = Run(Path(), recipe.settings).changes()
    kept = {k for k in recipe.settings if k in ("data", "model", "loss", "optimizer")}
    assert kept <= {re.split(r"[.\[]", path)[0] for path in changes}

    def shrunk(value: Any, path: str) -> Any:
        """The settings without whatever the changes do not speak of."""
        if path in changes:
            return value
        if isinstance(value, list):
            return [shrunk(item, f"{path}[{i}]") for i, item in enumerate(value)]
        assert isinstance(value, dict), path
        inside = {key: f"{path}.{key}".removeprefix(".") for key in value}
        only = next(iter(value)) if len(value) == 1 else ""
        if changes.get(path) == only or (only and any(only in family for family in FAMILIES.values())):
            return {
                k: shrunk(v, inside[k]) if any(said(c, inside[k]) for c in changes) else None for k, v in value.items()
            }
        return {k: shrunk(v, inside[k]) for k, v in value.items() if any(said(c, inside[k]) for c in changes)}

    def said(change: str, path: str) -> bool:
        return change == path or change.startswith((f"{path}.", f"{path}["))

    small = shrunk(recipe.settings, "") | {"name": recipe.name, "description": recipe.description}
    again = type(recipe)(json.dumps(small))
    assert again.settings == recipe.settings
    assert len(json.dumps(small)) < len(json.dumps(recipe.settings)) / 2


def test_families_are_those_of_the_recipe() -> None:
    assert FAMILIES.keys() <= SPIRALS.settings.keys()
    assert all(isinstance(family, Registry) for family in FAMILIES.values())


# ---- many runs ------------------------------------------------------------------------------------------------------


def test_runs_are_found_newest_first(runs: Path) -> None:
    (runs / ".hidden").mkdir()
    shutil.copytree(runs / "first", runs / ".hidden" / "run")
    shutil.copytree(runs / "first", runs / "first" / "inside")
    (runs / "recipes").mkdir()
    shutil.copy(runs / "first" / RECIPE, runs / "recipes")
    assert [str(run.folder) for run in find_runs()] == ["runs/more/digits", "runs/other", "runs/again", "runs/first"]
    assert [run.folder for run in find_runs(runs / "other")] == [runs / "other"]
    with pytest.raises(UnilayersError, match="nowhere: no such folder"):
        find_runs("nowhere")


def damage(run: Path, name: str, how: str) -> None:
    content = (run / name).read_bytes()
    if how == "missing":
        (run / name).unlink()
    elif how == "a folder":
        (run / name).unlink()
        (run / name).mkdir()
    else:
        change = {"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff\xfe\0{]", "deep": b"[" * 1500}
        (run / name).write_bytes({**change, "another type": b"[1, 2]\n", "strange": STRANGE[name]}[how])


STRANGE = {
    RECIPE: b"fit: [1]\nmetrics: {a: {b: 1}}\nmodel: 3\nloss: [{}]\ndata: {dataset: []}\noptimizer: {Adam: 3}",
    HISTORY: b'{"epoch": "1"}\n{"epoch": 1, "loss": "x"}\n{"epoch": 2, "loss": {}}\n3\n{"epoch": 1, "loss": []}\n',
    ENVIRONMENT: b'{"started": 3, "backend": [], "device": {}, "packages": 3}',
    CHECKPOINT: b"PK\x03\x04",
}


@pytest.mark.parametrize("how", ["missing", "a folder", "empty", "cut", "noise", "deep", "another type", "strange"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_runs_are_rows_that_say_what_is_wrong(name: str, how: str, runs: Path) -> None:
    damage(runs / "other", name, how)
    found = {run.folder.name: run for run in find_runs(runs)}
    assert not any(found[other].problems for other in ("first", "again", "digits"))
    if (name, how) not in ((RECIPE, "strange"), (ENVIRONMENT, "strange")):  # readable, as far as that goes
        assert found["other"].problems and all(problem.startswith(FILES) for problem in found["other"].problems)
        assert f" {found['other'].problems[0].split()[0]} " in call("runs")
    assert len(re.findall(r" [023]/(?:[23]|\?) ", call("runs"))) == 4
    told = {Path(one["folder"]).name: one["problems"] for one in json.loads(call("runs", "--json"))}
    assert told["other"] == found["other"].problems
    shown = call("runs", "show", runs / "other")
    assert all(f"Problem: {problem}." in shown for problem in found["other"].problems)
    json.loads(call("runs", "show", runs / "other", "--json"))


@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_is_named(name: str, runs: Path) -> None:
    damage(runs / "other", name, "missing")
    problems = read_run(runs / "other").problems
    told = {CHECKPOINT: f"{name}: missing, no epoch is complete"}.get(name, f"{name}: missing")
    assert problems == [told] + [f"{name}: ends at epoch 0, the checkpoint at 3"] * (name == HISTORY)
    assert f"Problem: {told}." in call("runs", "show", runs / "other")


def test_lines_that_are_damaged_are_named_and_the_others_read(runs: Path) -> None:
    path = runs / "other" / HISTORY
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], lines[2][:30]]))
    run = read_run(runs / "other")
    assert [line["epoch"] for line in run.epochs] == [1]
    assert run.problems == [
        f"{HISTORY}: line 2 is damaged",
        f"{HISTORY}: line 3 is damaged or cut short",
        f"{HISTORY}: ends at epoch 1, the checkpoint at 3",
    ]


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_list(runs: Path) -> None:
    text = call("runs")
    head, first, *rest = text.splitlines()
    assert head.split() == ["When", "Run", "Recipe", "Backend", "Device", "Epochs", "Best", "Time"]
    best = read_run(runs / "more" / "digits").best
    assert best is not None
    expected = ["more/digits", "digits-mlp", "numpy", "cpu", "2/2", "val_accuracy", f"{best.value:.4g}"]
    assert re.match(r"2025-01-04 \d\d:\d\d ", first) and first.split()[2:9] == expected
    assert [line.split()[2] for line in rest] == ["other", "again", "first"]
    assert call("runs", "runs") == call("runs", "list") == text
    assert fail("runs", "nowhere").startswith("nowhere: no such folder.")
    (runs / "none").mkdir()
    assert call("runs", runs / "none") == "No runs in runs/none.\n"
    told = json.loads(call("runs", "--json"))
    assert [one["folder"] for one in told] == [str(run.folder) for run in find_runs()]
    assert told[0]["best"] == best._asdict() and told[1]["epochs"] == told[1]["wanted"] == 3


def test_runs_explains_itself() -> None:
    text = call("runs", "--help")
    assert "show" in text and "list" in text and "A run folder" in call("runs", "show", "--help")
    assert "Where to look" in call("runs", "list", "--help")


def test_one_run_shown(runs: Path) -> None:
    text = call("runs", "show", runs / "other", "--last", 2)
    run = read_run(runs / "other")
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("spirals-mlp on numpy (cpu): 3 of 3 epochs, ")
    assert ["optimizer.Adam.learning_rate", "0.02"] in lines and ["fit.epochs", "3"] in lines
    assert ["model[1].Dense.kernel_initializer", "HeNormal"] in lines
    assert not any("beta_1" in line or "use_bias" in line or "Dense.name" in line for line in text.splitlines())
    packages = next(line for line in lines if line[:1] == ["packages"])
    assert packages[packages.index("numpy:") + 1].strip(",") == np.__version__
    table = [line for line in lines if line and line[0] in ("1", "2", "3")]
    assert [row[0] for row in table] == ["2", "3"]
    assert table[-1][1:5] == [f"{run.values(name)[-1][1]:.6g}" for name in run.names]
    assert run.best is not None and lines[-1] == [
        "Best",
        *f"val_accuracy: {run.best.value:.6g} in epoch".split(),
        str(run.best.epoch),
    ]
    told = json.loads(call("runs", "show", runs / "other", "--json", "--last", 1))
    assert told["settings"] == run.changes() and told["history"] == run.epochs[-1:]
    assert (
        "loss"
        not in call("runs", "show", runs / "other", "--last", 0).replace("val_loss", "").partition("Environment")[2]
    )
    assert fail("runs", "show", runs).startswith("runs: not a run folder. Expected a folder with recipe.yaml")
    assert fail("runs", "show", "x").startswith("x: no such run folder.")


# ---- curves ---------------------------------------------------------------------------------------------------------


def test_curves_are_the_histories(runs: Path) -> None:
    folders = [runs / "first", runs / "other"]
    found = curves(folders)
    assert [c.label for c in found] == ["first loss", "first val_loss", "other loss", "other val_loss"]
    assert [c.colour for c in found] == [0, 0, 1, 1]
    assert found[0].dash == found[2].dash != found[1].dash == found[3].dash
    for run, pair in zip(map(read_run, folders), (found[:2], found[2:]), strict=True):
        assert [c.points for c in pair] == [run.values("loss"), run.values("val_loss")]
    shutil.copytree(runs / "first", runs / "more" / "first")
    assert [c.label for c in curves([runs / "first", runs / "more/first"], ["loss"])] == [
        "runs/first",
        "runs/more/first",
    ]
    many = curves([runs / "first"] * 9, ["loss"])
    assert len({(c.colour, c.dash) for c in many}) == 9


def test_curves_that_are_not_there(runs: Path) -> None:
    path = runs / "other" / HISTORY
    path.write_text("".join(f'{{"epoch": {i}, "loss": {v}}}\n' for i, v in enumerate(("null", 1, 2, "null", 3), 1)))
    assert [c.label for c in curves([runs / "first", runs / "other"])] == ["first loss", "first val_loss", "other loss"]
    [curve] = curves([runs / "other"])
    assert curve.points[1:3] == [(2, 1.0), (3, 2.0)] and all(math.isnan(v) for e, v in curve.points if e in (1, 4))
    for kind in ("png", "svg", "html"):
        draw([runs / "other"], f"curves.{kind}")
    with pytest.raises(UnilayersError, match=r"no run has a metric 'acuracy'\. Did you mean 'accuracy'"):
        curves([runs / "first"], ["loss", "acuracy"])
    with pytest.raises(UnilayersError, match=r"no run has a metric 'loss'\. Is any epoch complete"):
        path.write_text("")
        curves([runs / "other"])
    with pytest.raises(UnilayersError, match="nothing to draw"):
        curves([])


def test_the_page_shows_every_point_and_needs_nothing_else(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (runs / "first").rename(runs / "<a>&b")
    told = call("plot", runs / "<a>&b", runs / "other", "--metric", "val_loss", "--out", "sub/curves.html")
    assert told == "Wrote sub/curves.html\n"
    text = Path("sub/curves.html").read_text()
    assert not re.search(r"https?:|src=|href=|<script", text)
    page = ElementTree.fromstring(text.partition("\n")[2])
    chart = page.find("body/div/svg")
    assert chart is not None
    points = [point for run in ("<a>&b", "other") for point in read_run(runs / run).values("val_loss")]
    circles = chart.findall("circle")
    said = [(c.findtext("title") or "").partition(", epoch ")[2] for c in circles]
    assert said == [f"{epoch}: {value:.6g}" for epoch, value in points]
    xs, ys = ([float(c.attrib[k]) for c in circles] for k in ("cx", "cy"))
    assert all(0 < x < SIZE[0] for x in xs) and all(0 < y < SIZE[1] for y in ys)
    assert np.argsort(ys).tolist() == np.argsort([-value for _, value in points]).tolist()
    heights = [(p[1], y) for p, y in zip(points, ys, strict=True)]
    slope = {round((y - heights[0][1]) / (v - heights[0][0]), 0) for v, y in heights[1:]}
    assert len(slope) == 1 and max(slope) < 0  # on one scale, upwards
    assert len(page.findall(".//table/tbody/tr")) == 2


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures(kind: str, runs: Path) -> None:
    pytest.importorskip("matplotlib")
    (runs / "first").rename(runs / "_$first$")
    call("plot", runs / "_$first$", runs / "other", "--metric", "loss", "--out", f"curves.{kind}")
    content = Path(f"curves.{kind}").read_bytes()
    if kind == "png":
        assert content.startswith(b"\x89PNG") and len(content) > 10_000
        return
    text = content.decode()
    assert ">other</text>" in text and re.search(r"> ?_\$first\$</text>", text)
    assert all(colour in text for colour in LIGHT[:2]) and LIGHT[2] not in text
    draw([runs / "_$first$", runs / "other"], "again.svg", ["loss"])
    assert Path("again.svg").read_bytes() == content


def test_pictures_that_cannot_be(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Expected a file png, svg, html." in fail("plot", runs / "first", "--out", "curves.bmp")
    (runs / "file").touch()
    assert "cannot write the curves" in fail("plot", runs / "first", "--out", runs / "file" / "curves.html")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = fail("plot", runs / "first", "--out", "curves.png")
    assert message == (
        "a .png file of curves needs the package 'matplotlib'. "
        "Install it with: pip install 'unilayers[plot]', or write a .html file."
    )
    assert not Path("curves.png").exists()


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (-3, 5), (0.1, 0.1), (0, 0), (1e-12, 3e-12), (-1e30, 1e30), (5, 5.0000001), (1e-300, 2e-300)],
)
def test_ticks_lie_around_what_is_drawn(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and found[0] < found[-1]
    assert 2 <= len(found) <= 9 and found == sorted(set(found))


# ---- differences ----------------------------------------------------------------------------------------------------


def diff(*arguments: Any) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["diff", *map(str, arguments)])
    assert result.stderr == "", result.output
    return result.exit_code, result.stdout


def test_the_same_recipe_gives_the_same_bits(runs: Path) -> None:
    found = compare_states(runs / "first", runs / "again")
    assert found.same and not (found.tensors or found.settings or found.environment or found.problems)
    assert found.compared == {"weights": 6, "optimizer": 14}
    code, text = diff(runs / "first", runs / "again" / CHECKPOINT)
    assert code == 0 and text == (
        "weights: 0 of 6 tensors differ\noptimizer: 0 of 14 tensors differ\nThe same numbers, bit for bit.\n"
    )


def test_another_recipe(runs: Path) -> None:
    found = compare_states(runs / "first", runs / "other")
    assert not found.same and len(found.parted) == 20
    assert [(d.path, d.a, d.b) for d in found.settings] == [
        ("optimizer.Adam.learning_rate", 0.005, 0.02),
        ("fit.epochs", 2, 3),
    ]
    assert [(d.path, d.a, d.b) for d in found.position if d.path != "step"] == [("epoch", 2, 3), ("sweep", 2, 3)]
    assert found.history is not None and found.history.epoch == 1
    loss = [read_run(runs / name).values("loss")[0][1] for name in ("first", "other")]
    assert found.history.values["loss"] == tuple(loss)
    code, text = diff(runs / "first", runs / "other", "--limit", 3)
    assert code == 1 and "weights: 6 of 6 tensors differ\noptimizer: 14 of 14" in text and "... and 17 more" in text
    files = compare_states(runs / "first" / CHECKPOINT, runs / "other" / CHECKPOINT)
    assert [d.path for d in files.settings] == ["compile.optimizer.Adam.learning_rate"] and files.history is None
    code, text = diff(runs / "first", runs / "other", "--json")
    told = json.loads(text)
    assert code == 1 and told["same"] is False and told["tensors"] == json.loads(json.dumps(asdict(found)))["tensors"]


def test_every_way_in_which_a_tensor_differs(runs: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["dense/kernel"][1, 2] += 0.5
        tensors["dense/bias"] = tensors["dense/bias"][:-1]
        tensors["dense_1/kernel"] = tensors["dense_1/kernel"].astype("float64")
        tensors["dense_1/bias"][:] = tensors["dense_1/bias"][0] * 0 - 0.0
        tensors["dense_2/bias"][1] = np.nan
        tensors["new"] = tensors.pop("dense_2/kernel")
        tensors["optimizer/iterations"] += 1

    before = load_file(runs / "first" / CHECKPOINT)
    change_tensors(runs / "again", change)
    found = compare_states(runs / "first", runs / "again")
    assert [(d.name, d.problem) for d in found.tensors] == [
        ("new", "only in the second"),
        ("dense/bias", "shape (64,), then (63,)"),
        ("dense/kernel", ""),
        ("dense_1/bias", ""),
        ("dense_1/kernel", "dtype float32, then float64"),
        ("dense_2/bias", "not finite in the same places"),
        ("dense_2/kernel", "only in the first"),
        ("optimizer/iterations", ""),
    ]
    kernel = found.tensors[2]
    after = load_file(runs / "again" / CHECKPOINT)["dense/kernel"]
    far = np.abs(before["dense/kernel"].astype("float64") - after)
    assert (kernel.elements, kernel.size, kernel.absolute) == (1, 128, far.max())
    assert kernel.relative == pytest.approx(far.max() / max(np.abs(before["dense/kernel"]).max(), np.abs(after).max()))
    assert [d.name for d in compare_states(runs / "first", runs / "again", 1e6).parted] == [
        "new", "dense/bias", "dense_2/bias", "dense_2/kernel",
    ]  # fmt: skip
    assert diff(runs / "first", runs / "again", "--json")[0] == 1
    text = diff(runs / "first", runs / "again", "--tolerance", 0.9)[1]
    assert "within the tolerance" in text and "shape (64,), then (63,)" in text


def test_signs_of_zero_and_nan(runs: Path) -> None:
    def fill(value: float) -> Any:
        return lambda tensors: tensors["dense/bias"].fill(value)

    change_tensors(runs / "first", fill(0.0))
    change_tensors(runs / "again", fill(-0.0))
    [found] = compare_states(runs / "first", runs / "again").parted
    assert (found.problem, found.elements, found.absolute) == ("bits only", 0, 0.0)
    assert compare_states(runs / "first", runs / "again", 1e-9).same
    for name in ("first", "again"):
        change_tensors(runs / name, fill(math.nan))
    assert compare_states(runs / "first", runs / "again").same


@pytest.mark.parametrize(("tolerance", "same"), [(0, False), (1e-4, False), (1e-2, True)])
def test_the_tolerance_holds_for_small_tensors_as_for_large(tolerance: float, same: bool, runs: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["optimizer/dense/bias/velocity"] *= np.float32(1.001)

    change_tensors(runs / "again", change)
    found = compare_states(runs / "first", runs / "again", tolerance)
    assert [d.name for d in found.tensors] == ["optimizer/dense/bias/velocity"] and found.same is same
    assert found.tensors[0].absolute < 1e-4 and found.tensors[0].relative == pytest.approx(1e-3, rel=0.05)
    assert diff(runs / "first", runs / "again", "--tolerance", tolerance)[0] == (0 if same else 1)


def test_the_first_epoch_in_which_histories_part(runs: Path) -> None:
    path = runs / "again" / HISTORY
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    loss, lines[1]["val_loss"] = lines[1]["val_loss"], lines[1]["val_loss"] * 1.001
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = compare_states(runs / "first", runs / "again")
    assert not found.tensors and not found.same
    assert found.history is not None and (found.history.epoch, list(found.history.values)) == (2, ["val_loss"])
    assert found.history.values["val_loss"] == (loss, loss * 1.001)
    assert "The histories part in epoch 2:" in diff(runs / "first", runs / "again")[1]
    assert compare_states(runs / "first", runs / "again", 0.01).same
    path.write_text(json.dumps(lines[0]) + "\n")
    found = compare_states(runs / "first", runs / "again", 0.01)
    assert found.history is not None and found.history.epoch == 2 and found.history.values["loss"][1] is None
    assert found.problems == ["runs/again: history.jsonl: ends at epoch 1, the checkpoint at 2"]


def test_settings_and_machines_explain_and_do_not_count(runs: Path) -> None:
    recipe = runs / "again" / RECIPE
    recipe.write_text(recipe.read_text().replace("activation: relu", "activation: tanh", 1))
    change_json(runs / "again" / ENVIRONMENT, cpu_count=999, packages={"numpy": "0.1"})
    found = compare_states(runs / "first", runs / "again")
    assert found.same and [(d.path, d.b) for d in found.settings] == [("model[1].Dense.activation", "tanh")]
    packages = {f"packages.{name}" for name in ("numpy", "unilayers", *get_backend("numpy").libraries())}
    assert {d.path for d in found.environment} == {"cpu_count", *packages}
    code, text = diff(runs / "first", runs / "again")
    assert code == 0 and "model[1].Dense.activation" in text and "999" in text


def test_settings_that_differ() -> None:
    a = {"model": [{"Dense": {"units": 1}}, {"ReLU": {}}], "loss": "mse", "seed": 1}
    b = {"model": [{"Dense": {"units": 1}}, {"Dense": {"units": 2}}, {"ReLU": {}}], "loss": "mse", "fit": {"epochs": 2}}
    assert [(d.path, d.a, d.b) for d in setting_differences(a, b)] == [
        ("model[1]", {"ReLU": {}}, {"Dense": {"units": 2}}),
        ("model[2]", None, {"ReLU": {}}),
        ("seed", 1, None),
        ("fit", None, {"epochs": 2}),
    ]


def test_what_cannot_be_compared(runs: Path) -> None:
    assert fail("diff", runs / "first", "nowhere") == "nowhere: no such checkpoint."
    assert fail("diff", runs / "first", runs).startswith("runs: not a run folder.")
    for tolerance in (-1, math.nan, math.inf):
        with pytest.raises(UnilayersError, match="not a tolerance"):
            compare_states(runs / "first", runs / "first", tolerance)
    damage(runs / "again", CHECKPOINT, "cut")
    with pytest.raises(CheckpointError, match="damaged"):
        compare_states(runs / "first", runs / "again")


@pytest.mark.parametrize("name", ["torch", "tensorflow", "jax"])
def test_another_engine_comes_to_nearly_the_same(name: str, runs: Path) -> None:
    require_backend(name)
    SPIRALS.train(runs / name, backend=name, verbose=0)
    found = compare_states(runs / "first", runs / name, 1e-4)
    assert found.same and [(d.path, d.a, d.b) for d in found.settings] == [("backend", "numpy", name)]
    assert read_run(runs / name).backend == name
    assert any(d.path.startswith("packages.") for d in found.environment)
