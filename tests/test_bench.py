"""Engines side by side: that what is timed is what is said, and that ratios are right; no speed."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from unilayers.cli.app import app

from tests.compare import assert_close
from tests.conftest import require_backend
from unilayers import networks
from unilayers.backend import Backend, backend_names, get_backend
from unilayers.errors import BackendError, UnilayersError
from unilayers.program import compile_graph, sizes_of
from unilayers.recipe.cost import flops
from unilayers.timing import Bench, Result, bench, report
from unilayers.timing import engines as benches
from unilayers.timing.engines import FILE, GROUPS, HOST, MEMORY, NETWORKS, READY, WAYS, keeping, measured
from unilayers.training import steps
from unilayers.training.steps import Batch

SMALL = {  # as the functions of the benchmarks, in a size for tests
    "vgg": lambda: networks.vgg(16, (32, 32, 3), 4, 8),
    "resnet18": lambda: networks.resnet(18, (16, 16, 3), 4, (2, 2, 4, 4), True),
    "resnet50": lambda: networks.resnet(50, (32, 32, 3), 4, (2, 2, 4, 4)),
}


# ---- networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "depth", "trained", "operations"),
    [  # as torchvision's documentation has them: numbers in weights; GFLOPS, where a product with its sum counts one
        (networks.vgg, 16, 138_357_544, 15.47), (networks.vgg, 19, 143_667_240, 19.63),
        (networks.resnet, 18, 11_689_512, 1.81), (networks.resnet, 50, 25_557_032, 4.09),
    ],
)  # fmt: skip
def test_networks_are_the_well_known_ones(build: Any, depth: int, trained: int, operations: float) -> None:
    model = build(depth)
    assert sum(math.prod(v.shape) for v in model.trainable_weights) == trained
    program, _ = steps.predict_program(model, np.zeros((1, 224, 224, 3), "float32"))
    counted = flops(program.graph, sizes_of(program.graph.inputs, [(1, 224, 224, 3)]))
    assert counted == pytest.approx(2e9 * operations, rel=0.02)


def test_the_deepest_has_its_layers() -> None:
    model = networks.resnet(200)
    kernels = [v for v in model.trainable_weights if v.path.endswith("kernel") and "conv4" not in v.path]
    assert len(kernels) == 200 and model.output_shape == (None, 1000)


@pytest.mark.parametrize("name", SMALL)
def test_networks_are_those_of_keras(name: str) -> None:
    """Built by the same function of Keras's layers, with the same weights."""
    require_backend("torch")
    import keras

    builders = {
        "vgg": lambda: networks.vgg(16, (32, 32, 3), 4, 8, keras),
        "resnet18": lambda: networks.resnet(18, (16, 16, 3), 4, (2, 2, 4, 4), True, keras),
        "resnet50": lambda: networks.resnet(50, (32, 32, 3), 4, (2, 2, 4, 4), False, keras),
    }
    ours, theirs = SMALL[name](), builders[name]()
    for layer in ours.layers:
        if layer.weights:
            theirs.get_layer(layer.name).set_weights(layer.get_weights())
    x = np.random.default_rng(0).random((2, *ours.input_shape[1:]), dtype=np.float32)
    assert_close(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), rtol=1e-4, atol=1e-5, what=name)


@pytest.mark.parametrize("name", backend_names())
def test_every_engine_times_a_network(name: str) -> None:
    require_backend(name)
    [found] = measured("mlp", name, "cpu", 3, 0.01)
    result = Result(**json.loads(json.dumps(found)))
    assert (result.case, result.backend, result.device, result.samples) == ("mlp", name, "cpu", 3)
    assert result.problem == "" and [*result.seconds] == ["forward", "forward + backward"]
    assert all(0 < low <= middle <= high for low, middle, high in result.seconds.values())
    assert result.flops > 3 * 2 * 2 * (784 * 512 + 512 * 512 + 512 * 10)  # forward, and two products backward but one


def test_what_is_timed_is_the_gradient(backend: Backend) -> None:
    """Kept where the engine keeps state: the loss and every gradient, as training computes them."""
    model = networks.dense((6, 5, 4))
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    batch = Batch(rng.random((3, 6), dtype=np.float32), rng.random((3, 4), dtype=np.float32))
    program = benches.examined(model, batch)
    graph = keeping(benches.specialise(program.graph, sizes_of(program.graph.inputs, [(3, 6), (3, 4)])))
    hosts = [v.numpy() for v in program.variables]
    hosts += [np.zeros(v.shape, "float32") for v in graph.state[len(hosts) :]]
    device = backend.device(None)
    new, outputs = compile_graph(graph, backend, device)(backend.put(hosts, device), backend.put(batch.leaves, device))
    found = {v.node.attrs["name"]: backend.get(a) for v, a in zip(graph.state, new, strict=True)}
    assert outputs == {} and sum(name.startswith("kept ") for name in found) == 1 + 4
    before = model.get_weights()
    loss = model.train_on_batch(batch.x, batch.y, backend="numpy")
    assert_close(found["kept loss"], np.asarray(loss, "float32"), rtol=1e-5, atol=0, what="loss")
    for variable, a, b in zip(model.trainable_weights, before, model.get_weights(), strict=True):
        gradient = found[f"kept gradient of {variable.path}"]
        assert_close(gradient, (a - b) / np.float32(0.01), rtol=1e-3, atol=1e-4, what=variable.path)


# ---- products, feeding ----------------------------------------------------------------------------------------------


def test_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "SIZES", (4, 8))
    [found] = bench(["matmul"], ["numpy"], seconds=0.01, in_process=True)
    assert [(r.case, r.flops) for r in found.results] == [("4", 128), ("8", 1024)]
    monkeypatch.setattr(benches, "LONGEST", 0.0)  # the next would take longer
    [found] = bench(["matmul"], ["numpy"], seconds=0.01, in_process=True)
    assert [r.case for r in found.results] == ["4"]


def test_what_is_fed_badly_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that take 5 ms to read, weights that take 3 ms to fetch: a step of 6 ms hides what is read ahead."""
    load, fetch, run = np.load, benches.Model.get_weights, benches.steps.Program.run

    def late(function: Any, seconds: float) -> Any:
        return lambda *args, **kwargs: (time.sleep(seconds), function(*args, **kwargs))[1]

    monkeypatch.setattr(np, "load", late(load, 0.005))
    monkeypatch.setattr(benches.Model, "get_weights", late(fetch, 0.003))
    monkeypatch.setattr(benches.steps.Program, "run", late(run, 0.006))
    monkeypatch.setattr(benches, "STEPS", 8)
    [found] = bench(["feeding"], ["numpy"], batch_size=2, seconds=0.01, in_process=True)
    seconds = {r.case: r.median or 0.0 for r in found.results}
    assert [*seconds] == [*WAYS]
    assert seconds[HOST] - seconds[MEMORY] > 0.002 and seconds[FILE] - seconds[MEMORY] > 0.004
    assert seconds["batches from files, read ahead"] < seconds[FILE] - 0.002
    assert [found.ratio(r) for r in found.results] == [s / seconds[READY] for s in seconds.values()]


# ---- ratios, tables, the command ------------------------------------------------------------------------------------


def made(kind: str = "networks") -> Bench:
    times = {("a", "one", "cpu"): 4.0, ("a", "one", "cuda:0"): 0.5, ("a", "two", "cpu"): 2.0, ("b", "two", "cpu"): 3.0}
    results = [Result(*key, {"forward": [1.0] * 3, "all": [t, t, t]}, 10**9, 8) for key, t in times.items()]
    return Bench(kind, [*results, Result("b", "one", "cpu", problem="no memory")], {"date": "2000-01-01"})


def test_ratios() -> None:
    found = made()
    assert [found.ratio(r) for r in found.results] == [8.0, 1.0, 4.0, 1.0, None]
    assert [found.over_cpu(r) for r in found.results] == [None, 8.0, None, None, None]
    assert [made("feeding").ratio(r) for r in found.results] == [1.0, 1.0, 1.0, 1.5, None]


def test_tables() -> None:
    head, rows = report.bench_table(made())
    table = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["All ms"] for row in table] == ["4,000", "500", "2,000", "3,000", ""]
    assert [row["Samples/s"] for row in table] == ["2", "16", "4", "2.67", ""]
    assert [row["GFLOP/s"] for row in table] == ["0.25", "2", "0.5", "0.333", ""]
    assert [row["CPU / this"] for row in table] == ["", "8.00", "", "", ""]
    assert table[-1]["Problem"] == "no memory"
    text = report.bench_markdown([made()])
    assert "date 2000-01-01. Batch of 8." in text and text.count("\n|") == 2 + len(rows)


def test_one_of_each_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = replace(get_backend("numpy"), devices=lambda: ["cpu", "cuda:0", "cuda:1"])
    monkeypatch.setattr(benches, "get_backend", lambda name: engine)
    found = measured("mlp", "numpy", None, 2, 0.01)
    assert [(r["device"], bool(r["problem"])) for r in found] == [("cpu", False), ("cuda:0", True)]  # no CuPy here


def test_engines_that_are_not_installed_are_left_out_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Backend:
        if name == "numpy":
            return get_backend(name)
        raise BackendError(f"backend {name!r} needs the package {name!r}", fix=f"pip install 'unilayers[{name}]'")

    monkeypatch.setattr(benches, "get_backend", missing)
    [found] = bench(["mlp"], batch_size=2, seconds=0.01, in_process=True)
    assert [r.backend for r in found.results] == ["numpy"]
    [found] = bench(["mlp"], ["torch"], batch_size=2, seconds=0.01, in_process=True)
    assert [r.problem for r in found.results] == [
        "backend 'torch' needs the package 'torch'. pip install 'unilayers[torch]'."
    ]


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        (["vgg16"], {}, "bench: no benchmark 'vgg16'. Did you mean 'vgg-16'?"),
        (["mlp"], {"backends": ["tourch"]}, "bench: unknown backend 'tourch'. Did you mean 'torch'?"),
        (["mlp"], {"batch_size": 0}, "bench: nothing to time. Expected at least one sample"),
    ],
)
def test_what_cannot_be_timed(what: list[str], options: dict[str, Any], said: str) -> None:
    with pytest.raises(UnilayersError) as error:
        bench(what, **options)
    assert str(error.value).startswith(said)


def test_groups() -> None:
    assert [NETWORKS[name].title for name in GROUPS["large"]] == [
        "VGG-16", "VGG-19", "ResNet-18", "ResNet-50", "ResNet-200",
    ]  # fmt: skip
    assert set(GROUPS["small"]) | set(GROUPS["large"]) == set(NETWORKS)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own."""
    monkeypatch.chdir(tmp_path)
    arguments = "bench mlp -b numpy -b numpy:cuda:77 --batch-size 4 --seconds 0.05 --json b.json --md b.md"
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 0 and "mlp on numpy (cuda:77)" in result.stderr
    assert "MLP 784-512-512-10" in result.stdout and "Wrote b.md" in result.stdout
    [document] = json.loads(Path("b.json").read_text())
    first, second = document["results"]
    assert first["seconds"]["forward + backward"][1] > 0 and first["ratio"] == 1.0 and first["samples"] == 4
    assert "device 'cuda:77' is not available" in second["problem"]
    assert "| MLP 784-512-512-10 | numpy | cpu |" in Path("b.md").read_text()
    failed = CliRunner().invoke(app, ["bench", "mlp", "-b", "numpy:cuda:77", "--in-process"])
    assert failed.exit_code == 1
