"""Kernels for CUDA devices without one: the same text by the host's compiler, every op, random graphs and training."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unilayers.backends.numpy.cuda import CupyQueue, join, without_branches
from unilayers.backends.numpy.cuda.expressions import ABSENT, EXPRESSIONS, PRELUDE, TYPES, known
from unilayers.backends.numpy.link import LinkedStep
from unilayers.backends.numpy.loops import functions
from unilayers.backends.replay import Replayed

from tests import host_cuda
from tests.compare import assert_close
from tests.test_numpy_backend import (
    BACKEND,
    SAMPLES,
    arrays_of,
    assert_same,
    by_seed,
    graph_of,
    naive,
)
from tests.test_ops import attrs_in_dtype
from unilayers import ops
from unilayers.autodiff import gradients
from unilayers.callbacks import LambdaCallback
from unilayers.errors import UnilayersError
from unilayers.graph import OPS, Graph, leaf, tracing
from unilayers.graph.passes import lower
from unilayers.graph.verify import verify
from unilayers.recipe import load_recipe
from unilayers.spec import Spec

ROOT = Path(__file__).parents[1]
needs_compiler = pytest.mark.skipif(host_cuda.COMPILER is None, reason="no g++ to compile kernels for the host")


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for CuPy."""
    found = host_cuda.OtherModule("cupy")
    monkeypatch.setitem(sys.modules, "cupy", found)
    return found


def on_device(graph: Graph, xp: Any) -> LinkedStep:
    """The compiled graph, without the passes that would tidy it up first, not recorded."""
    return LinkedStep(lower(verify(graph), BACKEND.table), xp, functions(xp), join)


def kernels(step: LinkedStep) -> list[str]:
    return [a.op for a in step.plan.actions if a.op not in ("load", "store", "return")]


# ---- expressions --------------------------------------------------------------------------


def test_every_elementwise_op_has_an_expression_or_is_named() -> None:
    found = {n for n, op in OPS.items() if not op.composite and op.cost.__qualname__.startswith("per_element.")}
    assert len(found) > 50
    assert found - {"astype"} - EXPRESSIONS.keys() == ABSENT.keys()


EDGES = {
    "f": [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1.5, 3.0, 100.0, np.inf, -np.inf, np.nan],
    "i": [0, 1, -1, 2, -2, 3, 7, -7, 100, 127, -128, 31],
    "u": [0, 1, 2, 3, 4, 5, 7, 8, 100, 127, 200, 255],
    "b": [False, True, True, False],
}
CLOSE = {"float16": 2e-3, "float32": 3e-7, "float64": 1e-15}


def combinations() -> Iterator[tuple[str, str]]:
    for name in EXPRESSIONS:
        for dtype in TYPES:
            if known(name, [dtype]):
                yield name, dtype


def expression_graph(name: str, dtype: str) -> tuple[Graph, list[np.ndarray]] | None:
    """An op on pairs of awkward numbers of a dtype, if it takes that."""
    op, edges = OPS[name], np.array(EDGES[dtype[0]]).astype(dtype)
    count = 2 if name == "where" else len(op.operands)
    arrays = [a.reshape(-1).copy() for a in np.meshgrid(*[edges] * count)]
    if "shift" in name:
        arrays[1] = np.abs(arrays[1]) % 20
    if name == "power" and dtype[0] in "iu":
        arrays[1] = np.abs(arrays[1].astype("int64")).astype(dtype) % 4
    if name == "where":
        arrays.insert(0, arrays[0] > arrays[1])
    try:
        return graph_of(name, {}, arrays), arrays
    except UnilayersError:
        return None


@needs_compiler
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_expressions_agree_with_numpy_for_every_dtype(cupy: Any) -> None:
    cases = [(n, d, *found) for n, d in combinations() if (found := expression_graph(n, d)) is not None]
    assert len(cases) > 250
    steps = [on_device(graph, cupy) for _, _, graph, _ in cases]
    for step in steps:
        step._link([])  # so that all kernels are compiled together
    for (name, dtype, graph, arrays), step in zip(cases, steps, strict=True):
        assert kernels(step) == ["chain"], name
        _, found = step([], arrays)
        _, wanted = naive(graph)([], arrays)
        close = CLOSE.get(dtype, 0.0) * (8 if name in ("tan", "power", "sinh", "cosh", "erf") else 2)
        assert_close(found["y0"], wanted["y0"], rtol=close, atol=close, what=f"{name} of {dtype}")


CASTS = [(a, b) for a in TYPES for b in TYPES]


@needs_compiler
def test_casts_agree_with_numpy(cupy: Any) -> None:
    cases = []
    for source, target in CASTS:
        values = [0, 1, 2, 7, 100] if target != "bool" else [0, 1, 2, 0, 7]
        values += [-1, -3] if source[0] in "if" and target[0] in "if" else []
        x = np.array(values).astype(source)
        step = on_device(graph_of("astype", {"dtype": target}, [x]), cupy)
        step._link([])
        cases.append((x, target, step))
    for x, target, step in cases:
        np.testing.assert_array_equal(step([], [x])[1]["y0"], x.astype(target))


# ---- every op -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled_samples() -> dict[str, LinkedStep]:
    """The steps of all samples, whose kernels are compiled together."""
    xp, found = host_cuda.OtherModule("cupy"), {}
    for parameter in SAMPLES:
        name, index, dtype = parameter.values
        op = OPS[str(name)]
        assert op.samples is not None
        sample = op.samples(np.random.default_rng(0))[index]
        graph = graph_of(op.name, attrs_in_dtype(op, sample.attrs, str(dtype)), arrays_of(sample, str(dtype)))
        found[str(parameter.id)] = step = on_device(graph, xp)
        step._link([])
    host_cuda.compile_kernels(host_cuda.RawKernel.waiting.values())
    return found


@needs_compiler
@pytest.mark.parametrize(("name", "index", "dtype"), SAMPLES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_op(name: str, index: int, dtype: str, compiled_samples: dict[str, LinkedStep]) -> None:
    op = OPS[name]
    assert op.samples is not None
    sample, other = (op.samples(np.random.default_rng(seed))[index] for seed in (0, 1))
    arrays = arrays_of(sample, dtype)
    step = compiled_samples[f"{name}-{index}-{dtype}"]
    step([], arrays_of(other, dtype))  # leaves its traces in the buffers
    _, found = step([], arrays)
    _, wanted = naive(graph_of(name, attrs_in_dtype(op, sample.attrs, dtype), arrays))([], arrays)
    for key, value in wanted.items():
        assert_same(found[key], value, max(1.0, op.tolerance / 1e-5))


@needs_compiler
@pytest.mark.parametrize("name", ["sgd_update", "rmsprop_update", "adagrad_update", "adam_update"])
def test_weights_that_lie_together_are_updated_by_one_kernel(name: str, cupy: Any) -> None:
    op = OPS[name]
    assert op.samples is not None
    sample = op.samples(np.random.default_rng(0))[0]
    scalars, count = len(op.operands) - 1, sample.attrs["count"]
    arrays = arrays_of(sample, "float32")
    leaves = tuple(leaf("state", f"s{i}", Spec(a.shape, a.dtype.name)) for i, a in enumerate(arrays))
    with tracing():
        results = getattr(ops, name)(*leaves, **sample.attrs)
    kept = [i for i in range(scalars, len(arrays)) if not 0 <= i - scalars - count < count]  # but for the gradients
    graph = Graph((), leaves, {}, {f"s{i}": r for i, r in zip(kept, results, strict=True)})
    step = on_device(graph, cupy)
    state, _ = step(BACKEND.put(arrays, "cuda:0"), [])
    wanted, _ = naive(graph)(arrays, [])
    assert count > 1
    assert step.source.count("chain(") == 1
    for found, value in zip(state, wanted, strict=True):
        assert_same(found.get(), value)


@needs_compiler
@pytest.mark.parametrize("ordered", [False, True])
def test_gradients_of_look_ups_can_be_added_in_order(ordered: bool, cupy: Any) -> None:
    g, at = leaf("input", "g", Spec((2, 50, 3), "float32")), leaf("input", "at", Spec((50,), "int32"))
    with tracing():
        y = ops.take_grad(g, at, axis=1, size=7)
    graph, rng = Graph((g, at), (), {"y": y}), np.random.default_rng(0)
    given = [rng.normal(size=(2, 50, 3)).astype("float32"), rng.integers(0, 7, 50).astype("int32")]
    BACKEND.hardware.deterministic(ordered)
    try:
        step = on_device(graph, cupy)
        _, found = step([], given)
    finally:
        BACKEND.hardware.deterministic(False)
    assert ("ordered(" in step.source, "scatter(" in step.source) == (ordered, not ordered)
    np.testing.assert_array_equal(found["y"], naive(graph)([], given)[1]["y"])


# ---- what is joined -----------------------------------------------------------------------


def test_a_chain_is_one_kernel_also_across_broadcasting_and_casts(cupy: Any) -> None:
    x, b = leaf("input", "x", Spec((64, 32), "float32")), leaf("state", "b", Spec((32,), "float32"))
    with tracing():
        y = ops.relu(x + b) * ops.astype(x > 0.5, "float32") - ops.where(x < 0.0, ops.exp(x), 2.0)
    step = on_device(Graph((x,), (b,), {"y": y}), cupy)
    assert kernels(step) == ["chain"]
    (chain,) = [a for a in step.plan.actions if a.op == "chain"]
    assert len(chain.outputs) == 1  # what is between stays in registers
    assert len(chain.inputs) == 2


def test_row_ops_join_with_what_surrounds_them(cupy: Any) -> None:
    x, g = (leaf("input", n, Spec((64, 32), "float32")) for n in "xg")
    w = leaf("state", "w", Spec((32,), "float32"))
    with tracing():
        centred = x - ops.mean(x, -1, keepdims=True)
        y = centred * ops.rsqrt(ops.mean(ops.square(centred), -1, keepdims=True) + 1e-3) * w
        (gradient,) = gradients(ops.sum(y * g), [x])
        shares = ops.softmax(x * 0.5) * g
    assert kernels(on_device(Graph((x,), (w,), {"y": y}), cupy)) == ["chain"]
    assert kernels(on_device(Graph((x, g), (w,), {"gradient": gradient}), cupy)) == ["chain"]
    assert kernels(on_device(Graph((x, g), (), {"shares": shares}), cupy)) == ["chain"]


def test_cross_entropy_and_its_gradient_are_one_kernel(cupy: Any) -> None:
    x, y = leaf("input", "x", Spec((64, 10), "float32")), leaf("input", "y", Spec((64,), "int32"))
    with tracing():
        losses = ops.sparse_softmax_cross_entropy(x, y)
        (gradient,) = gradients(ops.sum(losses), [x])
    assert kernels(on_device(Graph((x, y), (), {"losses": losses, "gradient": gradient}), cupy)) == ["chain"]


def test_a_kernel_does_not_wait_for_itself(cupy: Any) -> None:
    """What is needed by a product that the other half of the chain needs cannot be in the same kernel."""
    x = leaf("input", "x", Spec((8, 8), "float64"))
    with tracing():
        a = ops.tanh(x)
        y = a + ops.exp(ops.matmul(a, x))
    step = on_device(Graph((x,), (), {"y": y}), cupy)
    assert kernels(step) == ["chain", "matmul", "chain"]


@needs_compiler
def test_rows_are_not_written_over_what_other_rows_read(cupy: Any) -> None:
    """A bias that dies has the layout of the sums over rows, but each row reads all of it."""
    table, x = leaf("input", "table", Spec((9,), "float64")), leaf("input", "x", Spec((4, 4), "float64"))
    at = leaf("input", "at", Spec((4,), "int32"))
    with tracing():
        y = ops.exp(ops.take(table, at))
        bias = ops.take(ops.concat([y, table], 0), at)  # made by no kernel of ours
        sums = ops.sum(ops.tanh(x) + bias, 1)
    graph = Graph((table, x, at), (), {"sums": sums})
    rng = np.random.default_rng(0)
    given = [rng.normal(size=9), rng.normal(size=(4, 4)), np.array([3, 0, 8, 5], "int32")]
    _, found = on_device(graph, cupy)([], given)
    assert_same(found["sums"], naive(graph)([], given)[1]["sums"])


@needs_compiler
def test_a_row_is_written_when_all_threads_have_read_it(cupy: Any) -> None:
    x, w = leaf("input", "x", Spec((40, 40), "float64")), leaf("input", "w", Spec((40, 40), "float64"))
    with tracing():
        h = ops.matmul(w, x[:, :1])
        scale = ops.tanh(h)
        y, z = x * scale, scale + 1.0
        sums = ops.sum(ops.transpose(y), 1)  # along rows, as y could be, too, but of another kernel
    graph = Graph((x, w), (), {"y": y, "z": z, "sums": sums})
    step, rng = on_device(graph, cupy), np.random.default_rng(0)
    given = [rng.normal(size=(40, 40)), rng.normal(size=(40, 40)) / 40]
    _, found = step([], given)
    assert kernels(step) == ["matmul", "chain", "chain"]
    assert step.plan.storage[h] is step.plan.storage[z]
    for key, value in naive(graph)([], given)[1].items():
        assert_same(found[key], value)


@needs_compiler
def test_seeded_graphs(cupy: Any) -> None:
    seeds, cases = range(150), []
    for seed in seeds:
        graph = by_seed(seed)
        step = on_device(graph, cupy)
        rng = np.random.default_rng(seed)
        states = [rng.normal(size=v.shape) for v in graph.state]
        there = step._link(BACKEND.put(states, "cuda:0"))
        cases.append((seed, graph, step, states, there))
    assert sum("chain" in kernels(step) for _, _, step, _, _ in cases) > 100
    for seed, graph, step, states, there in cases:
        theirs, rng = naive(graph), np.random.default_rng(seed)
        for _ in range(2):
            inputs = [rng.normal(size=v.shape) for v in graph.inputs]
            there, found = step(there, inputs)
            states, wanted = theirs([np.array(a) for a in states], inputs)
            for key, value in wanted.items():
                assert_same(found[key].get(), value, 10, f"{key} of seed {seed}")
            for a, b in zip(there, states, strict=True):
                assert_same(a.get(), b, 10, f"state of seed {seed}")


# ---- the device's compiler ------------------------------------------------------------------


@pytest.mark.skipif(host_cuda.NVCC is None, reason="no nvcc")
@pytest.mark.usefixtures("compiled_samples")
def test_the_cuda_compiler_takes_every_kernel(tmp_path: Path) -> None:
    bodies = dict(host_cuda.RawKernel.seen)
    assert {name.partition("_")[0] for name in bodies} >= {"chain", "rows", "scatter"}
    path = tmp_path / "kernels.cu"
    path.write_text(PRELUDE + "".join(bodies.values()))
    command = [
        str(host_cuda.NVCC),
        "-std=c++17",
        "-diag-suppress=186",
        "-ptx",
        "-arch=sm_75",
        str(path),
        "-o",
        str(tmp_path / "kernels.ptx"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    assert "warning" not in done.stderr, done.stderr[:3000]
    ptx = (tmp_path / "kernels.ptx").read_text()
    assert all(f".entry {name}(" in ptx for name in bodies)


# ---- whole steps ----------------------------------------------------------------------------


def first_losses(name: str, device: str, dtype: str, steps: int) -> tuple[list[float], list[np.ndarray]]:
    """The losses of the first steps of a shipped recipe, and the weights after them."""
    recipe = load_recipe(name, [f"dtype={dtype}"])
    model, data, found = recipe.build(), recipe.data(), []

    def keep(batch: int, logs: dict[str, float]) -> None:
        found.append(logs["batch_loss"])
        model.stop_training = len(found) == steps

    watch = LambdaCallback(on_train_batch_end=keep)
    model.fit(data.x, data.y, batch_size=32, epochs=1, callbacks=[watch], verbose=0, backend="numpy", device=device)
    assert len(found) == steps
    return found, model.get_weights()


@needs_compiler
@pytest.mark.parametrize(("dtype", "close"), [("float32", 2e-5), ("float64", 1e-12), ("mixed_float16", 2e-2)])
@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn"])
def test_training_gives_the_losses_of_the_cpu(name: str, dtype: str, close: float, cupy: Any) -> None:
    host_cuda.log.clear()
    (found, weights), (wanted, others) = (first_losses(name, device, dtype, 20) for device in ("cuda", "cpu"))
    assert_close(np.array(found), np.array(wanted), rtol=close, atol=0, what="losses")
    for a, b in zip(weights, others, strict=True):
        assert_close(a, b, rtol=0, atol=close, what="weights")
    assert found[-1] < found[0]
    assert host_cuda.log.count("launch") == 19  # all but the first step were one launch


def test_a_step_is_recorded_once_and_replayed(cupy: Any) -> None:
    x, w = leaf("input", "x", Spec((4, 3), "float32")), leaf("state", "w", Spec((3, 2), "float32"))
    with tracing():
        y = ops.matmul(x, w)
    graph = Graph((x,), (w,), {"y": y}, {"w": w - 0.5 * ops.matmul(ops.transpose(x), y)})
    step = BACKEND.compile(graph, "cuda:0")
    host, there = naive(graph), BACKEND.put([np.ones((3, 2), "float32")], "cuda:0")
    wanted, rng, kept = [np.ones((3, 2), "float32")], np.random.default_rng(0), []
    host_cuda.log.clear()
    for _ in range(5):
        given = rng.normal(size=(4, 3)).astype("float32")
        there, found = step(there, [given])
        wanted, expected = host(wanted, [given])
        kept.append((found["y"], expected["y"]))
        assert_close(there[0].get(), np.asarray(wanted[0]), rtol=1e-6, atol=1e-6, what="state")
    for a, b in kept:  # later runs leave what earlier ones returned
        assert_close(a.get(), b, rtol=1e-6, atol=1e-6, what="output")
    assert host_cuda.log.count("begin") == host_cuda.log.count("end") == 1
    assert host_cuda.log.count("launch") == 4
    others = BACKEND.put([np.zeros((3, 2), "float32")], "cuda:0")
    others, found = step(others, [given])  # other state: recorded anew
    others, found = step(others, [given])
    assert host_cuda.log.count("begin") == 2
    assert not found["y"].get().any()


def test_batches_travel_on_a_stream_of_their_own(cupy: Any) -> None:
    x = leaf("input", "x", Spec((4,), "float32"))
    step = BACKEND.compile(Graph((x,), (), {"y": ops.tanh(x)}), "cuda:0")
    host_cuda.log.clear()
    host_cuda.Event.count = 0
    for i in range(3):
        step([], [np.full(4, i, "float32")])
    a, b = 1, 3  # the events of two rounds: arrived, and one further, taken
    rounds = [
        [f"host waits for {e}", f"copying waits for {e + 1}", f"copying records {e}", f"main waits for {e}",
         f"main records {e + 1}"] for e in (a, b, a)
    ]  # fmt: skip
    assert [entry for entry in host_cuda.log if entry not in ("begin", "end", "launch")] == [
        entry for turn in rounds for entry in turn
    ]


def test_a_step_that_looks_at_values_runs_as_it_is(cupy: Any) -> None:
    x = leaf("input", "x", Spec((4,), "float32"))
    with tracing():
        (y,) = ops.while_loop(lambda y: ops.max(y) < 10.0, lambda y: (y * 2.0,), (x,))
    graph = Graph((x,), (), {"y": y})
    step = Replayed(on_device(graph, cupy), CupyQueue(cupy), graph.inputs)
    for value, wanted in ((1.0, 16.0), (3.0, 12.0), (2.0, 16.0), (11.0, 11.0)):
        _, found = step([], [np.full(4, value, "float32")])
        np.testing.assert_array_equal(found["y"].get(), np.full(4, wanted, "float32"))
    assert "cudaErrorStreamCapture" in step.why


@pytest.mark.parametrize("index", [-1, 0, 1, 2, 7])
def test_cheap_branches_are_all_computed(index: int, cupy: Any) -> None:
    x, i = leaf("input", "x", Spec((4,), "float32")), leaf("input", "i", Spec((), "int32"))
    with tracing():
        branches = [lambda x: (x + 1.0, x), lambda x: (x * 2.0, -x), lambda x: (ops.exp(x), x - 3.0)]
        y, z = ops.switch(i, branches, x)
    graph = lower(Graph((x, i), (), {"y": y, "z": z}), BACKEND.table)
    flat = without_branches(graph)
    assert {n.op for n in graph.nodes} > {"switch"} and "switch" not in {n.op for n in flat.nodes}
    given = [np.linspace(-1, 1, 4, dtype="float32"), np.array(index, "int32")]
    wanted = naive(graph)([], given)[1]
    for key, value in naive(flat)([], given)[1].items():
        assert_same(value, wanted[key])
    step = on_device(flat, cupy)
    for key, value in step([], given)[1].items():
        assert_same(value, wanted[key])


@pytest.mark.slow
@needs_compiler
def test_the_tests_for_devices_run() -> None:
    """Those that are skipped where there is no device, on the stand-in: some ops, training, determinism."""
    some = "numpy and (follows or deterministic or (every_op and (softmax or conv or qr or adam)))"
    command = [sys.executable, "-m", "pytest", "-p", "tests.stand_in", "-p", "no:cacheprovider", "-k", some]
    done = subprocess.run([*command, "tests/test_gpu.py"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout
