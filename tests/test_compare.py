"""Comparing engines: the figures are those of separate trainings, and what is wrong is found and named."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from unilayers.cli.app import app

import unilayers.backend as registry
from tests.compare import assert_close
from tests.conftest import require_backend
from tests.test_new_backend import PAGE, code_of_page
from unilayers import Sequential, layers, ops
from unilayers.backend import Backend, backend_names
from unilayers.callbacks import LambdaCallback
from unilayers.compare import Comparison, Record, compare, difference, read_record
from unilayers.compare.machine import machine
from unilayers.compare.record import Lines, from_plain, peak_memory, plain
from unilayers.compare.report import markdown, overview, progress
from unilayers.compare.run import Job, _do
from unilayers.compare.trace import examined, layer_outputs
from unilayers.errors import BackendError, UnilayersError
from unilayers.graph import OPS
from unilayers.recipe import Recipe, load_recipe
from unilayers.recipe.cost import cost
from unilayers.spec import Spec
from unilayers.training.steps import Batch
from unilayers.utils import charts

STEPS = 4
DEEP = """\
name: deep
data: {dataset: blobs, n: 60, features: 4, validation_split: 0.2}
model:
  - Input: {shape: [4]}
  - Dense: {units: 8, activation: relu, name: first}
  - BatchNormalization: {name: norm}
  - Dense: {units: 6, activation: tanh, name: bent}
  - Dropout: {rate: 0.3}
  - Dense: {units: 3, name: last}
loss: {SparseCategoricalCrossentropy: {from_logits: true}}
optimizer: {Adam: {learning_rate: 1e-2}}
metrics: [accuracy]
fit: {epochs: 3, batch_size: 16}
"""


@contextmanager
def wrong_in(op: str, factor: float) -> Iterator[Backend]:
    """A backend that is right but for one op, whose floats are too large by a factor; composite ops are run as one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_loaded", dict(registry._loaded))
        names: dict[str, Any] = {"__name__": "wrong_engine"}
        exec(compile(code_of_page(), str(PAGE), "exec"), names)
        table, toy, record = names["TABLE"], names["Toy"], OPS[op]

        def as_recorded(*toys: Any, **attrs: Any) -> Any:
            made = record.reference(*(t.data for t in toys), **attrs)  # type: ignore[misc]
            specs = record.infer(*(Spec(t.shape, str(t.dtype)) for t in toys), **attrs)
            several = isinstance(specs, tuple)
            found = [toy(np.asarray(a, s.dtype)) for a, s in zip(made, specs, strict=True)] if several else []
            return tuple(found) if several else toy(np.asarray(made, specs.dtype))

        right = table.get(op, as_recorded)

        def wrong(*toys: Any, **attrs: Any) -> Any:
            made = right(*toys, **attrs)
            first = made[0] if isinstance(made, tuple) else made
            first = toy(np.asarray(first.data * factor, first.dtype))
            return (first, *made[1:]) if isinstance(made, tuple) else first

        table[op] = wrong
        yield registry.get_backend("toy")


@pytest.fixture
def wrong() -> Iterator[Backend]:
    """A backend that is right but for one op: its tanh is a thousandth too large."""
    with wrong_in("tanh", 1.001) as backend:
        yield backend


def losses(recipe: Recipe, backend: str, steps: int) -> list[float]:
    """Of separate training: the loss of each batch."""
    model, parts, found = recipe.build(), recipe.parts(), list[float]()

    def keep(batch: int, logs: dict[str, float]) -> None:
        found.append(logs["batch_loss"])
        model.stop_training = len(found) == steps

    watch = LambdaCallback(on_train_batch_end=keep)
    model.fit(*parts.train, batch_size=recipe.batch_size, epochs=9, callbacks=[watch], verbose=0, backend=backend)
    return found


# ---- the figures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", backend_names())
def test_figures_are_those_of_separate_trainings(name: str, tmp_path: Path) -> None:
    require_backend(name)
    recipe = Recipe(DEEP)
    found = compare(recipe, ["numpy", name], steps=STEPS, in_process=True, out=tmp_path / "c")
    for record, backend in zip(found.records, ("numpy", name), strict=True):
        assert record.problem == "" and record.end["ended"]
        assert record.curve("loss") == losses(recipe, backend, STEPS)  # bit for bit
        assert [s["step"] for s in record.steps] == [1, 2, 3, 4]
        assert [s["epoch"] for s in record.steps] == [1, 1, 1, 2]  # 48 samples are 3 batches
        assert [e["step"] for e in record.epochs] == [3, 4]
        assert record.epochs[0]["values"].keys() == {"loss", "accuracy", "val_loss", "val_accuracy"}
        assert record.begin["environment"]["backend"] == backend
        assert record.end["flops"] == cost(recipe, recipe.build()).training_step
        assert record.end["peak_flops"] == machine(backend, "cpu", "float32").flops
    first, second = (np.array(r.curve("loss")) for r in found.records)
    assert found.differences[found.records[1].name]["loss"].largest == (np.abs(second - first) / first).max()
    assert_close(second, first, rtol=1e-4, atol=0, what="losses")
    found.require()


def test_each_in_a_process_of_its_own(tmp_path: Path) -> None:
    require_backend("torch")
    looks: list[int] = []
    recipe = load_recipe("digits-mlp", ["fit.epochs=1"])
    found = compare(
        recipe, ["numpy", "torch"], steps=STEPS, tolerance=1e-4, out=tmp_path / "c",
        watch=lambda records: looks.append(sum(len(r.steps) for r in records)),
    )  # fmt: skip
    assert [r.problem for r in found.records] == ["", ""] and looks[-1] == 2 * STEPS
    assert found.records[0].curve("loss") == losses(recipe, "numpy", STEPS)
    for record in found.records:
        figures = record.figures()
        assert figures["import_seconds"] > 0 and figures["first_step_seconds"] > 0
        assert figures["peak_memory"] > 10e6
        low, middle, high = figures["step_seconds"]
        assert low <= middle <= high and figures["samples_per_second"] == 32 / middle
        assert "torch" in record.begin["environment"]["packages"] or record is found.reference
    assert found.records[0].end["peak_memory"] < found.records[1].end["peak_memory"]
    assert (tmp_path / "c" / "runs" / "torch" / "checkpoint.safetensors").is_file()
    head, [first, second] = progress(found.records)
    assert (head[:2], first[:2], second[:2]) == (["Engine", "Steps"], ["numpy", "4"], ["torch", "4"])
    assert first[-1] == "done" and progress([Record("jax", "jax")])[1] == [["jax", "0", "", "", "waits"]]


def test_a_trace_in_processes_of_their_own(tmp_path: Path) -> None:
    found = compare("digits-mlp", ["numpy", "numpy"], steps=STEPS, trace=True, out=tmp_path / "c")
    assert found.traced is not None and found.traced.step == STEPS and not found.traced.problems
    for places in (found.traced.places["numpy-2"], found.traced.compiled["numpy-2"]):
        assert len(places) == 5 + 1 + 6 + 4 and set(places.values()) == {0.0}  # layers, loss, weights, between layers


def test_step_times_leave_out_what_compiles() -> None:
    sizes, seconds = [16, 16, 9, 16, 16], [5.0, 1.0, 4.0, 3.0, 2.0]
    steps = [{"samples": n, "seconds": s, "values": {"loss": 1.0}} for n, s in zip(sizes, seconds, strict=True)]
    record = Record("a", "numpy", steps=steps)
    assert record.step_seconds == [1.5, 2.0, 2.5] and record.first_step == 5.0
    assert record.samples_per_second == 8.0 and record.flops_per_second is None
    record.take({"kind": "rates", "flops": 6e9, "peak_flops": 12e9})
    assert (record.flops_per_second, record.share_of_peak) == (3e9, 0.25)
    head, [row] = overview(Comparison("a", "", "float32", [record]))
    assert dict(zip(head, row, strict=True))["GFLOP/s"] == "3" and row[head.index("Of the peak")] == "25.0%"


def test_peak_memory_is_of_this_process() -> None:
    held = np.ones(300_000_000, "uint8")  # which a process that is started from here does not hold
    code = "import numpy, unilayers.compare.record as r; print(r.peak_memory()); x = numpy.ones(10**8, 'uint8')"
    code += "; print(r.peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < held.nbytes and after - before == pytest.approx(1e8, rel=0.1)
    assert (peak_memory() or 0) > held.nbytes


# ---- what is wrong is found -----------------------------------------------------------------------------------------


def test_the_gate_and_the_trace_name_step_and_layer(wrong: Backend, tmp_path: Path) -> None:
    found = compare(
        Recipe(DEEP), ["numpy", "toy"], steps=STEPS, tolerance=1e-6, trace=True, in_process=True, out=tmp_path / "c"
    )
    assert found.differences["toy"]["loss"].first == 1
    assert found.traced is not None
    place, by = found.traced.first("toy", 1e-6) or ("", 0.0)
    assert place == "output of bent" and by == pytest.approx(1e-3, rel=1e-3)
    places = found.traced.places["toy"]
    names = [p for p in places if p.startswith("output of ")]
    assert names == [f"output of {layer}" for layer in ("first", "norm", "bent", "dropout", "last")]
    assert max(places["output of first"], places["output of norm"]) < 1e-6
    assert {p for p in places if p.startswith("gradient of")} == {
        f"gradient of {v.path}" for v in Recipe(DEEP).build().trainable_weights
    }
    a, b = (losses(Recipe(DEEP), name, 1)[0] for name in ("numpy", "toy"))
    expected = f"toy departs from numpy at step 1: loss {b!r} instead of {a!r}, a relative difference of "
    where = f"first in the output of bent ({by:.3g}), by the op tanh of bent"
    assert found.problems == [f"{expected}{abs(b - a) / a:.3g}, {where}"]
    with pytest.raises(UnilayersError, match="toy departs from numpy at step 1"):
        found.require()


STACK = """\
name: stack
data: {dataset: digits, n: 64}
model:
  - Input: {shape: [8, 8, 1]}
  - Conv2D: {filters: 3, kernel_size: 3, name: conv1}
  - Conv2D: {filters: 3, kernel_size: 3, name: conv2}
  - MaxPooling2D: {name: pool}
  - LayerNormalization: {name: norm}
  - Flatten
  - Dense: {units: 8, activation: tanh, name: bent}
  - Dense: {units: 10, name: last}
loss: {SparseCategoricalCrossentropy: {from_logits: true}}
optimizer: {SGD: {learning_rate: 0.5}}
fit: {epochs: 2, batch_size: 16}
""".replace(", n: 64", "")
PLANTED = {  # by the op that is wrong: what is to be named
    "conv": ("output of conv1", "conv of conv1"),
    "max_pool": ("output of pool", "max_pool of pool"),
    "layer_norm": ("output of norm", "layer_norm of norm"),
    "matmul": ("output of bent", "matmul of bent"),
    "tanh": ("output of bent", "tanh of bent"),
    "sparse_softmax_cross_entropy": ("loss", "loss: sparse_softmax_cross_entropy"),
    "max_pool_grad": ("gradient through pool", "gradient of max_pool of pool: max_pool_grad"),
    "conv_input_grad": ("gradient through conv2", "gradient of conv of conv2: conv_input_grad"),
    "conv_kernel_grad": ("gradient of conv2/kernel", "gradient of conv of conv2: conv_kernel_grad"),
}


@pytest.mark.parametrize("op", PLANTED)
def test_a_wrong_kernel_is_caught_and_named(op: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command fails, and says on which backend, in which layer, by which op; the others agree."""
    monkeypatch.chdir(tmp_path)
    Path("stack.yaml").write_text(STACK)
    arguments = "compare stack.yaml -b numpy -b toy -b numpy --steps 4 --tolerance 1e-4 --trace --in-process -q --out c"
    with wrong_in(op, 1.05):
        result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert said.startswith("Error: compare: toy departs from numpy at step ") and said.count(" departs ") == 1
    place, by = PLANTED[op]
    assert f", first in the {place} (0.0" in said and f"), by the op {by}." in said


def test_a_wrong_update_is_told_from_a_wrong_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stack.yaml").write_text(STACK)
    arguments = "compare stack.yaml -b numpy -b toy --steps 3 --tolerance 1e-4 --trace --in-process -q --out c"
    with wrong_in("sgd_update", 1.05):
        result = CliRunner().invoke(app, arguments.split())
    said = " ".join(result.stderr.split())
    assert result.exit_code == 1 and "toy departs from numpy at step " in said and "at step 1:" not in said
    assert ", though from one state outputs and gradients agree: it is how weights are updated, " in said


def test_a_departure_that_comes_later(wrong: Backend, tmp_path: Path) -> None:
    """The tolerance lies between the differences of the steps."""
    found = compare(Recipe(DEEP), ["numpy", "toy"], in_process=True, out=tmp_path / "a")
    curve = found.differences["toy"]["loss"].curve
    assert len(curve) == 9
    step = next(i for i in range(1, 9) if curve[i] > max(curve[:i]))
    tolerance = (max(curve[:step]) + curve[step]) / 2
    found = compare(
        Recipe(DEEP), ["numpy", "toy"], tolerance=tolerance, trace=True, in_process=True, out=tmp_path / "b"
    )
    assert found.differences["toy"]["loss"].first == step + 1
    assert found.traced is not None and found.traced.step == step + 1
    assert f"at step {step + 1}:" in found.problems[0]
    # From one state, whatever had added up before: layers in front of the wrong op agree.
    places = found.traced.places["toy"]
    assert places["output of norm"] < 1e-6 < 5e-4 < places["output of bent"] < 2e-3


def test_what_is_looked_into_is_the_step_that_was_trained(tmp_path: Path) -> None:
    """The loss is that of the step, masks included; what layers give is what they give when they are called."""
    recipe = Recipe(DEEP)
    found = compare(recipe, ["numpy", "numpy"], steps=STEPS, trace=True, in_process=True, out=tmp_path / "c")
    with (
        np.load(tmp_path / "c" / "trace" / "numpy.npz") as file,
        np.load(tmp_path / "c" / "trace" / "state.npz") as kept,
    ):
        for name in ("loss", "compiled: loss"):
            wanted = np.asarray(found.reference.curve("loss")[-1], "float32")
            assert_close(file[name], wanted, rtol=1e-6, atol=0, what=name)
        model, y = recipe.build(), kept["input 0"]
        for variable, value in zip(model.trainable_weights, [kept[f"state {i}"] for i in range(8)], strict=True):
            variable.assign(value)
        for layer in model.layers[:3]:  # up to dropout
            y = ops.to_numpy(layer(y, training=True))
            for how in ("", "compiled: "):
                assert_close(file[f"{how}output of {layer.path}"], y, rtol=1e-5, atol=1e-6, what=layer.path)


def test_the_output_of_a_layer_is_what_others_take() -> None:
    """Not the penalty that it computes of it."""
    bent = layers.Dense(3, "tanh", activity_regularizer="l2", name="bent")
    model = Sequential([layers.Input((2,)), bent, layers.Dense(1, name="last")])
    model.compile("sgd", "mse")
    graph = examined(model, Batch(np.ones((1, 2), "float32"), np.ones((1, 1), "float32"))).graph
    found = layer_outputs(graph)
    assert list(found) == ["output of bent", "output of last"]
    assert found["output of bent"].node.op == "tanh"
    assert any(n.scope == "bent" and n.serial > found["output of bent"].node.serial and not n.part for n in graph.nodes)


def test_what_only_compiled_code_does_wrong(wrong: Backend, tmp_path: Path) -> None:
    """Ops are right one by one."""
    right = {"tanh": lambda x: type(x)(np.tanh(x.data))}
    registry.register_backend(replace(wrong, table={**wrong.table, **right}))
    found = compare(
        Recipe(DEEP), ["numpy", "toy"], steps=1, tolerance=1e-6, trace=True, in_process=True, out=tmp_path / "c"
    )
    assert found.traced is not None
    assert max(found.traced.places["toy"].values()) < 1e-6
    compiled = found.traced.compiled["toy"]
    assert compiled["output of norm"] < 1e-6 and compiled["output of bent"] == pytest.approx(1e-3, rel=1e-3)
    assert "first in the output of bent" in found.problems[0]


def test_differences() -> None:
    nan, inf = math.nan, math.inf
    assert difference(1.5, 1.0) == 0.5 and difference(0.5, -1.0) == 1.5
    assert difference([1.0, 3.0], [1.0, 2.0]) == 0.5
    assert difference(nan, nan) == difference(inf, inf) == difference(0.0, 0.0) == 0.0
    assert difference(nan, 1.0) == difference(1.0, nan) == difference(inf, -inf) == difference(1.0, 0.0) == inf
    assert difference([nan, 1.0], [nan, 2.0]) == 0.5
    assert difference([1.0], [1.0, 2.0]) == inf


# ---- engines that fail ----------------------------------------------------------------------------------------------


def test_an_engine_that_is_missing_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: Any = None) -> Backend:
        if name == "torch":
            raise BackendError("backend 'torch' needs the package 'torch'", fix="pip install 'unilayers[torch]'")
        return real(name)

    real = registry.get_backend
    monkeypatch.setattr("unilayers.compare.run.get_backend", missing)
    found = compare("digits-mlp", ["numpy", "torch", "numpy"], steps=2, trace=True, in_process=True, out=tmp_path / "c")
    head, rows = overview(found)
    state = dict(zip((row[0] for row in rows), (row[head.index("State")] for row in rows), strict=True))
    assert state["numpy"] == state["numpy-2"] == "done"
    assert state["torch"] == "backend 'torch' needs the package 'torch'. pip install 'unilayers[torch]'."
    assert found.differences["numpy-2"]["loss"].largest == 0.0
    assert found.traced is not None and set(found.traced.places) == {"numpy-2"}
    assert "unilayers[torch]" in (tmp_path / "c" / "report.html").read_text()
    with pytest.raises(UnilayersError, match="torch has not come to its end: backend 'torch' needs"):
        found.require()


def test_a_process_that_is_killed_leaves_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("digits-mlp", ["fit.epochs=100000"])
    (tmp_path / "records").mkdir()
    job = Job("train", "numpy", recipe.to_yaml(), "numpy", None, str(tmp_path))
    record = Record("numpy", "numpy")

    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    _do(job, record, lambda: started[0].kill() if len(record.steps) > 5 else None)
    assert record.problem.startswith("the process was killed by signal SIGKILL")
    assert len(record.steps) > 5 and not record.end
    path = tmp_path / "records" / "numpy.jsonl"
    assert read_record(path, "numpy", "numpy").curve("loss") == record.curve("loss")


def test_where_the_first_fails_the_next_is_the_reference(tmp_path: Path) -> None:
    backends = ["numpy:cuda:77", "numpy", "numpy"]
    found = compare("digits-mlp", backends, steps=2, trace=True, in_process=True, out=tmp_path / "a")
    assert "device 'cuda:77' is not available" in found.records[0].problem
    assert found.reference.name == "numpy"
    assert {n: len(d) for n, d in found.differences.items()} == {"numpy-cuda-77": 2, "numpy-2": 2}
    assert found.traced is not None and set(found.traced.places) == {"numpy-2"}
    assert "numpy is the reference" in markdown(found)


def test_nothing_that_ran_is_nothing_to_compare(tmp_path: Path) -> None:
    found = compare("digits-mlp", ["numpy:cuda:77"] * 2, trace=True, in_process=True, out=tmp_path / "c")
    assert found.traced is None and found.differences["numpy-cuda-77-2"] == {}
    assert Page((tmp_path / "c" / "report.html").read_text()).open == []
    result = CliRunner().invoke(app, ["compare", "digits-mlp", "-b", "numpy:cuda:77", "--out", str(tmp_path / "d")])
    assert result.exit_code == 1 and "numpy-cuda-77 has not come to its end" in result.stderr


@pytest.mark.parametrize(
    ("backends", "options", "said"),
    [
        (["numpy", "tourch"], {}, "compare: unknown backend 'tourch'. Did you mean 'torch'?"),
        ([], {}, "compare: no backend to train on. Name some: "),
        (["numpy"], {"steps": 0}, "compare: no steps to compare. Expected at least 1. Received 0."),
        (["numpy"], {"tolerance": -1}, "compare: bad tolerance. Expected a number at least 0. Received -1."),
        (["numpy"], {"tolerance": math.nan}, "compare: bad tolerance. Expected a number at least 0. Received nan."),
    ],
)
def test_what_cannot_be_compared(backends: list[str], options: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnilayersError) as error:
        compare("digits-mlp", backends, out=tmp_path / "c", **options)
    assert str(error.value).startswith(said)
    assert not (tmp_path / "c").exists()


def test_a_folder_that_is_used_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(UnilayersError, match="must be new or empty"):
        compare("digits-mlp", ["numpy"], out=tmp_path)


# ---- lines and reports ----------------------------------------------------------------------------------------------


def test_lines_are_exact_and_a_cut_one_is_none(tmp_path: Path) -> None:
    values = {"loss": 0.1 + 0.2, "bad": math.nan, "much": -math.inf, "each": np.array([1 / 3, math.inf])}
    text = json.dumps(plain(values), allow_nan=False)
    again = from_plain(json.loads(text))
    assert again["loss"] == 0.1 + 0.2 and again["each"] == [1 / 3, math.inf] and again["much"] == -math.inf
    assert math.isnan(again["bad"])
    path = tmp_path / "x.jsonl"
    lines = Lines(path)
    assert list(lines.new()) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert list(lines.new()) == [{"a": 1}, {"a": 2}]
    with path.open("a") as file:
        file.write(": 3}\n")
    assert list(lines.new()) == [{"a": 3}]


class Page(HTMLParser):
    """Tags that stay open, everything that could be loaded, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [a for a in attrs if a[0] in ("src", "href", "srcset", "data", "xlink:href", "action")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three trainings, one with <another> description, one that fails."""
    recipe = Recipe(DEEP.replace("name: deep", "name: deep\ndescription: a <b> & c"))
    folder = tmp_path_factory.mktemp("made") / "c"
    return compare(recipe, ["numpy", "numpy", "numpy:cuda:77"], trace=True, in_process=True, out=folder)


def test_the_page_loads_nothing_and_holds_the_figures(made: Comparison) -> None:
    assert made.folder is not None
    text = (made.folder / "report.html").read_text()
    page = Page(text)
    assert page.open == [] and page.loads == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(word not in text for word in ("http:", "https:", "url(", "@import"))
    assert "prefers-color-scheme: dark" in text
    assert all(cell in page.text for row in overview(made)[1] for cell in row)
    assert "a <b> & c" in page.text  # the recipe, as text
    assert text.count("<polyline") == 2 + 2 and "equal, bit for bit" in page.text  # losses, accuracies
    assert made.reference.begin["environment"]["packages"]["numpy"] in page.text


def test_json_goes_there_and_back(made: Comparison) -> None:
    assert made.folder is not None
    document = json.loads((made.folder / "report.json").read_text(), parse_constant=lambda x: pytest.fail(x))
    again = Comparison.from_plain(document)
    assert again == made and again.to_plain() == document
    assert again.records[0].curve("loss") == made.records[0].curve("loss")
    assert document["runs"][1]["differences"]["loss"]["largest"] == 0.0
    assert Recipe(document["recipe"]).resolved() == Recipe(made.recipe).resolved()
    assert markdown(again) == (made.folder / "report.md").read_text()


def test_not_a_number_is_said_and_shown(tmp_path: Path) -> None:
    overrides = ["optimizer.Adam.learning_rate=1e38", "model[1].Dense.activation=null"]
    found = compare(Recipe(DEEP, overrides=overrides), ["numpy", "numpy"], in_process=True, out=tmp_path / "c")
    assert not all(math.isfinite(v) for v in found.reference.curve("loss"))
    assert found.problems == []  # both alike
    document = json.loads((tmp_path / "c" / "report.json").read_text(), parse_constant=lambda x: pytest.fail(x))
    assert Comparison.from_plain(document).to_plain() == document
    assert Page((tmp_path / "c" / "report.html").read_text()).open == []


def test_charts() -> None:
    colours = {"a": 0, "b": 1}
    gap = charts.lines({"a": [1.0, 2.0, math.nan, 4.0, 5.0], "b": [3.0]}, colours)
    assert gap.count("<polyline") == 2 and gap.count("<circle") == 1
    assert "bit for bit" in charts.lines({"a": [0.0, 0.0]}, colours, log=True)
    peak = [1e-7] * 5000
    peak[2345] = 1e-2
    thin = charts.lines({"a": peak}, colours, log=True, level=1e-3)
    heights = [float(p.split(",")[1]) for p in thin.split('points="')[1].split('"')[0].split()]
    assert len(heights) <= charts.POINTS and min(heights) == charts.TOP  # the peak is not lost
    assert max(heights) == charts.HEIGHT - charts.BOTTOM
    assert "1e-07" in thin and 'class="level"' in thin
    for values in ([0.0, 0.0], [-1.0, -2.0], [1e-300, 2e-300], [1e30], [5.0, 5.0]):
        Page(charts.lines({"a": values}, colours))


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = "compare digits-mlp -b numpy -b numpy --steps 2 --in-process --tolerance 0 --trace"
    result = CliRunner().invoke(app, arguments.split())
    assert (result.exit_code, result.stderr) == (0, "")
    assert "numpy-2" in result.stdout
    [folder] = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-mlp-compare-")
    assert result.stdout.endswith(f"Reports: {folder.relative_to(tmp_path)}\n")
    assert {p.name for p in folder.iterdir()} == {
        "records", "runs", "trace", "report.json", "report.md", "report.html",
    }  # fmt: skip


def test_the_command_fails_where_an_engine_departs(
    wrong: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep.yaml").write_text(DEEP)
    arguments = "compare deep.yaml -b numpy -b toy --steps 2 --in-process --quiet"
    fine = CliRunner().invoke(app, [*arguments.split(), "--out", "a"])
    assert (fine.exit_code, fine.output) == (0, "")  # without a tolerance nothing is required
    result = CliRunner().invoke(app, [*arguments.split(), "--out", "b", "--tolerance", "1e-6"])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: compare: toy departs from numpy at step 1: loss ")
    assert (tmp_path / "b" / "report.html").is_file()
