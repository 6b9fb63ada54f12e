"""Times of layers: the pieces of a step compute what the step computes, and what is slow is found."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from unilayers.cli.app import app

import unilayers as ul
import unilayers.backend as registry
from tests.compare import assert_close
from tests.conftest import require_backend
from tests.test_compare import DEEP, Page
from tests.test_new_backend import PAGE, code_of_page
from unilayers import config, layers, ops
from unilayers.backend import Backend, backend_names, node_runner
from unilayers.compare import machine as machines
from unilayers.compare.machine import Machine, machine
from unilayers.compare.process import called
from unilayers.errors import UnilayersError
from unilayers.graph import OPS, Graph, leaf, scope, tracing
from unilayers.graph.passes import optimise, specialise
from unilayers.program import compile_graph, sizes_of
from unilayers.recipe import Recipe
from unilayers.recipe.cost import cost
from unilayers.spec import Spec
from unilayers.timing import Timing, clock, report, time_layers, time_recipe
from unilayers.timing import layers as timing
from unilayers.timing.clock import Runner
from unilayers.timing.cut import BACKWARD, FORWARD, LOSS, METRICS, OPTIMIZER, VIEWS, Piece, cut, layers_of
from unilayers.training import steps

BRANCHES = """\
name: branches
data: {dataset: digits, n: 40}
model:
  - Input: {shape: [8, 8, 1], name: image}
  - Conv2D: {filters: 3, kernel_size: 3, padding: same, activation: relu, inputs: [image], name: first}
  - MaxPooling2D: {inputs: [first], name: pool}
  - Conv2D: {filters: 3, kernel_size: 1, inputs: [pool], name: left}
  - BatchNormalization: {inputs: [left], name: norm}
  - Add: {inputs: [norm, pool], name: sum}
  - Reshape: {target_shape: [4, 12], inputs: [sum], name: rows}
  - Dropout: {rate: 0.2, inputs: [rows], name: some}
  - Bidirectional: {layer: {LSTM: {units: 3}}, inputs: [some], name: both}
  - Dense: {units: 10, inputs: [both], name: last, kernel_regularizer: l2}
outputs: [last]
loss: {SparseCategoricalCrossentropy: {from_logits: true}}
optimizer: adam
metrics: [accuracy]
fit: {batch_size: 6}
"""
RECIPES = {"branches": BRANCHES.replace(", n: 40", ""), "deep": DEEP}


class Twice(ul.Model):
    """Two layers, one of which is called twice, and a product outside of any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.shared = layers.Dense(4, name="once"), layers.Dense(4, "tanh", name="shared")

    def call(self, x: Any) -> Any:
        return self.once(self.shared(self.shared(x))) * 2.0


def nested() -> ul.Model:
    """A model in a model, and an embedding."""
    words = ul.Input((5,), dtype="int32")
    inner = ul.Sequential([ul.Input((5, 4)), layers.GRU(3, name="gru"), layers.Dense(4, name="deep")], name="inner")
    return ul.Model(words, inner(layers.Embedding(9, 4, name="words")(words)))


def of_recipe(name: str) -> tuple[ul.Model, steps.Batch]:
    recipe = Recipe(RECIPES[name])
    model, (x, y) = recipe.build(), recipe.parts().train
    return model, steps.Batch(x[:6].astype("float32"), y[:6])


def of_class(model: ul.Model, x: Any) -> tuple[ul.Model, steps.Batch]:
    model.compile("adam", "mse", metrics=["mae"])
    return model, steps.Batch(x, np.ones((6, 4), "float32"))


MODELS: dict[str, Callable[[], tuple[ul.Model, steps.Batch]]] = {
    "branches": lambda: of_recipe("branches"),
    "deep": lambda: of_recipe("deep"),
    "shared": lambda: of_class(Twice(), np.linspace(-1, 1, 24, dtype="float32").reshape(6, 4)),
    "nested": lambda: of_class(nested(), np.arange(30, dtype="int32").reshape(6, 5) % 9),
}


def step_of(name: str) -> tuple[ul.Model, steps.Batch, Any, Graph]:
    model, batch = MODELS[name]()
    program = steps.train_program(model, model._objectives, batch)
    shapes = [a.shape for a in batch.leaves]
    return model, batch, program, specialise(program.graph, sizes_of(program.graph.inputs, shapes))


# ---- the pieces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_pieces_compute_what_the_step_computes(backend: Backend, name: str) -> None:
    """Each is run with what the others give: every value between them, and all new state, are those of the step."""
    model, batch, program, graph = step_of(name)
    device = backend.device(None)
    graph = optimise(graph, backend.table, node_runner(backend, device))
    pieces = cut(graph, layers_of(model))
    across = list(dict.fromkeys(v for p in pieces.values() for v in p.gives))
    hosts = {v.node.attrs["name"]: x.numpy() for v, x in zip(graph.state, program.variables, strict=True)}

    def put(arrays: Any, values: Any) -> list[Any]:
        return backend.put_as(list(arrays), [v.dtype for v in values], device)

    inputs = put(batch.leaves, graph.inputs)
    looked = replace(graph, outputs={str(i): v for i, v in enumerate(across)})
    new, outputs = compile_graph(looked, backend, device)(put(hosts.values(), graph.state), inputs)
    wanted = {v.node.attrs["name"]: backend.get(a) for v, a in zip(graph.state, new, strict=True)}
    between = {v: outputs[str(i)] for i, v in enumerate(across)} | dict(zip(graph.inputs, inputs, strict=True))
    leaves = {v.node.attrs["name"]: v for v in graph.state}
    updated = set()
    for key, piece in pieces.items():
        own = piece.graph(leaves)
        zeros = [hosts.get(v.node.attrs["name"], np.zeros(v.shape)) for v in own.state]
        state, _ = compile_graph(own, backend, device)(put(zeros, own.state), [between[v] for v in piece.takes])
        found = {v.node.attrs["name"]: backend.get(a) for v, a in zip(own.state, state, strict=True)}
        given = [v for v in piece.gives if v not in piece.updates.values()]
        for value in given:
            have = found[f"gives {list(piece.gives).index(value)}"]
            assert_close(have, backend.get(between[value]), rtol=1e-4, atol=1e-6, what=f"{key} {value}")
        for updates in piece.updates:
            assert_close(found[updates], wanted[updates], rtol=1e-4, atol=1e-5, what=f"{key} {updates}")
        updated |= set(piece.updates)
    assert updated == set(graph.updates)


@pytest.mark.parametrize("name", MODELS)
def test_every_op_belongs_to_one_piece(name: str) -> None:
    model, _, _, graph = step_of(name)
    pieces = cut(graph, layers_of(model))
    nodes = [n for p in pieces.values() for n in p.nodes]
    assert len(set(nodes)) == len(nodes)
    assert set(nodes) == {n for n in graph.nodes if n.inputs and n.op not in VIEWS}


def test_rows_are_the_layers() -> None:
    rows = {}
    for name in MODELS:
        model, _, _, graph = step_of(name)
        rows[name] = {row for row, _ in cut(graph, layers_of(model))}
    others = {LOSS, METRICS, OPTIMIZER}
    assert rows["shared"] == {"once", "shared"} | others
    assert rows["nested"] == {"words", "inner/gru", "inner/deep"} | others
    # A reshape is no work.
    assert rows["branches"] == {"first", "pool", "left", "norm", "sum", "some", "both", "last"} | others


def piece_of(function: Callable[..., Any], *shapes: tuple[int, ...], dtypes: tuple[str, ...] = ()) -> Piece:
    """A function as the one piece of a step."""
    kinds = dtypes or ("float32",) * len(shapes)
    inputs = [leaf("input", f"x{i}", Spec(s, d)) for i, (s, d) in enumerate(zip(shapes, kinds, strict=True))]
    with tracing(), scope("mine"):
        graph = Graph(tuple(inputs), (), {"y": function(*inputs)})
    [piece] = cut(graph, ["mine"]).values()
    return piece


def test_counts() -> None:
    product = piece_of(ops.matmul, (3, 4), (4, 5))
    assert (product.flops, product.bytes) == (2 * 3 * 4 * 5, 4 * (12 + 20 + 15))
    inside = piece_of(lambda x: ops.exp(ops.reshape(x, (6,)) * 2.0), (2, 3))  # what stays inside is not moved
    assert (inside.flops, inside.bytes) == (6 + int(OPS["exp"].cost(inside.nodes[1].outputs[0].spec)), 4 * 12)
    rows = piece_of(lambda t, i: ops.take(t, i, axis=0), (1000, 8), (3,), dtypes=("float32", "int32"))
    assert rows.bytes == 4 * (3 * 8 + 3 + 3 * 8)


@pytest.mark.parametrize("name", RECIPES)
def test_operations_are_those_of_the_whole_step(name: str) -> None:
    recipe = Recipe(RECIPES[name], overrides=["fit.batch_size=7"])
    [found] = time_recipe(recipe, ["numpy"], seconds=0.01, in_process=True)
    assert found.flops == cost(recipe, recipe.build()).training_step


# ---- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", backend_names())
def test_times_on_every_backend(name: str) -> None:
    require_backend(name)
    model, batch = MODELS["branches"]()
    before = model.get_weights()
    with config.dtype_scope("float32"):
        found = time_layers(model, batch.x, batch.y, backend=name, seconds=0.01)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert found.name == found.environment["backend"] == name and found.batch_size == 6 and found.problem == ""
    assert [(r.name, r.kind) for r in found.rows] == [
        ("first", "Conv2D"), ("pool", "MaxPooling2D"), ("left", "Conv2D"), ("norm", "BatchNormalization"),
        ("sum", "Add"), ("some", "Dropout"), ("both", "Bidirectional"), ("last", "Dense"),
        ("[loss]", ""), ("[optimizer]", ""), ("[metrics]", ""),
    ]  # fmt: skip
    assert math.isclose(sum(map(found.share, found.rows)), 1.0) and found.total > 0 < found.call
    assert found.step[0] <= found.step[1] <= found.step[2] and found.machine is not None
    for row in found.rows:
        for part in (row.forward, row.backward):
            assert part.floor == max(part.flops / found.machine.flops, part.bytes / found.machine.bytes)
            assert part.distance == (part.median / part.floor if part.floor else None)
    assert found.rows[0].forward.median > 0 < found.rows[0].backward.median
    document = json.loads(json.dumps(found.to_plain()))
    assert Timing.from_plain(document).to_plain() == document


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """A backend on which two ops take a hundredth of a second longer: tanh, and the gradient of a convolution."""
    monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    names: dict[str, Any] = {"__name__": "slow_engine"}
    exec(compile(code_of_page(), str(PAGE), "exec"), names)

    def late(right: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arrays: Any, **attrs: Any) -> Any:
            time.sleep(0.01)
            return right(*arrays, **attrs)

        return run

    for op in ("tanh", "conv_kernel_grad"):
        names["TABLE"][op] = late(names["TABLE"][op])
    return registry.get_backend("toy")


def test_what_is_slow_is_found(slow: Backend) -> None:
    body = [layers.Conv2D(2, 3, name="conv"), layers.Activation("tanh", name="bent"), layers.Flatten(), layers.Dense(1)]
    model = ul.Sequential([ul.Input((5, 5, 1)), *body])
    model.compile("sgd", "mse")
    found = time_layers(model, np.ones((2, 5, 5, 1)), np.ones((2, 1)), backend="toy", seconds=0.1)
    times = {(row.name, way): part.median for row in found.rows for way, part in
             ((FORWARD, row.forward), (BACKWARD, row.backward))}  # fmt: skip
    late = {key for key, seconds in times.items() if seconds > 0.009}
    assert late == {("bent", FORWARD), ("conv", BACKWARD)}
    assert found.step[1] > 0.018


def test_a_call_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(runners: Any, seconds: float, clock: str) -> dict[Any, list[float]]:
        return {key: [5.0, 7.0, 6.0] if key[1] else [2.0, 2.5, 8.0] for key in runners}

    monkeypatch.setattr(timing, "in_turns", told)
    model, batch = MODELS["deep"]()
    found = time_layers(model, batch.x, batch.y, backend="numpy")
    assert found.rows[0].forward.seconds == [1.5, 3.0, 3.75]  # of 3, 4.5 and none
    assert found.step == [2.25, 2.5, 5.25] and found.call == 2.5
    assert found.share(found.rows[0]) == 6.0 / found.total


def test_a_step_begins_again(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would train on one batch until its gradients vanish."""
    monkeypatch.setattr(clock, "BLOCK", 0.1)  # so long that many runs fit in, also where the first one is disturbed
    number = leaf("state", "number", Spec((), "float32"))
    with tracing():
        graph = Graph((), (number,), {}, {"number": number + 1.0})
    start = {"number": np.asarray(5.0, "float32")}
    again, on = (Runner(graph, backend, backend.device(None), (), start, again=a) for a in (True, False))
    values = {}
    for name, runner in (("again", again), ("on", on)):
        values[name] = [runner.run() and float(backend.get(runner._state[0])) for _ in range(3)]
    assert len(set(values["again"])) == 1 and values["again"][0] == 5 + 1 + again._count
    assert values["on"][2] - values["on"][1] == values["on"][1] - values["on"][0] == on._count


def test_the_clock_of_the_processor(slow: Backend) -> None:
    """Which does not go on while a process waits."""
    model = ul.Sequential([ul.Input((4,)), layers.Activation("tanh", name="bent"), layers.Dense(1)])
    model.compile("sgd", "mse")
    found = time_layers(model, np.ones((2, 4)), np.ones((2, 1)), backend="toy", seconds=0.1, clock="processor")
    assert found.rows[0].name == "bent" and found.rows[0].forward.median < 0.005 and found.step[1] < 0.008


def test_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Machine(10.0, 4.0, "float32").floor(20, 4) == 2.0
    assert Machine(10.0, 4.0, "float32").floor(20, 40) == 10.0
    monkeypatch.setattr(machines, "least", lambda run, now: 0.01)
    monkeypatch.setattr(machines, "LARGEST", 512)
    monkeypatch.setattr(machines, "COPIED", (100, 1000))
    assert machine.__wrapped__("numpy", "cpu", "float32") == Machine(2 * 512**3 / 0.01, 8 * 1000 / 0.01, "float32")
    monkeypatch.setattr(machines, "LONGEST", 0.08)  # the next would take longer
    assert machine.__wrapped__("numpy", "cpu", "float32").flops == 2 * 256**3 / 0.01


def test_the_peak_is_that_of_numpy() -> None:
    """The same product, timed here."""
    x = np.ones((512, 512), "float32")
    seconds = machines.least(lambda: np.matmul(x, x, out=np.empty_like(x)) is None)
    found = machine("numpy", "cpu")
    assert 0.2 < found.flops * seconds / (2 * 512**3) < 20


# ---- recipes, processes, the command --------------------------------------------------------------------------------


def test_each_in_a_process_of_its_own(tmp_path: Path) -> None:
    first, second = time_recipe("digits-mlp", ["numpy", "numpy:cuda:77"], batch_size=2000, seconds=0.1)
    assert (first.batch_size, first.problem, first.rows[0].forward.flops) == (2000, "", 2000 * 128 * (2 * 64 + 2))
    assert second.problem.startswith("backend 'numpy': device 'cuda:77' is not available") and not second.rows
    page = Page(report.html([first, second]))
    assert page.open == [] and page.loads == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(cell in page.text for row in report.table(first)[1] for cell in row)
    assert second.problem in page.text


def test_a_process_that_dies_is_told() -> None:
    assert called("os", "abort", {}) == (None, "the process was killed by signal SIGABRT")
    assert called("math", "hypot", {"no": 1})[1].startswith("TypeError: ")
    assert called("json", "loads", {"s": "[1, 2]"}) == ([1, 2], "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backends": ["tourch"]}, "time: unknown backend 'tourch'. Did you mean 'torch'?"),
        ({"batch_size": 0}, "time: nothing to time. Expected at least one sample"),
        ({"seconds": -1.0}, "time: nothing to time. Expected at least one sample"),
        ({"clock": "procesor"}, "time: no clock 'procesor'. Did you mean 'processor'?"),
    ],
)
def test_what_cannot_be_timed(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UnilayersError) as error:
        time_recipe("digits-mlp", **{"backends": ["numpy"], **options})
    assert str(error.value).startswith(said)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep.yaml").write_text(DEEP)
    arguments = "time deep.yaml -b numpy --batch-size 5 --seconds 0.05 --in-process --json t.json --html t.html"
    result = CliRunner().invoke(app, arguments.split())
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("deep on numpy (cpu), batch of 5\n")
    assert all(word in result.stdout for word in ("first", "norm", "[optimizer]", "all parts", "Peak: "))
    [document] = json.loads(Path("t.json").read_text())
    assert [r["name"] for r in document["rows"]][:3] == ["first", "norm", "bent"] and document["flops"] > 0
    assert sum(r["share"] for r in document["rows"]) == pytest.approx(1)
    assert "<svg" in Path("t.html").read_text()
    missing = CliRunner().invoke(app, ["time", "deep.yaml", "-b", "numpy:cuda:77", "--in-process"])
    assert missing.exit_code == 1 and "is not available" in missing.stdout
