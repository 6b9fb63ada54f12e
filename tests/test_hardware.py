"""Devices: what engines say of them, determinism, and running out of memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.conftest import BACKENDS, require_backend
from unilayers import layers
from unilayers.backend import Backend
from unilayers.backend import _loaded as registered
from unilayers.errors import OutOfMemoryError, RecipeError
from unilayers.graph import Graph
from unilayers.hardware import Facts
from unilayers.memory import largest_batch, needed
from unilayers.program import compile_graph
from unilayers.recipe import load_recipe

# ---- what there is --------------------------------------------------------------------------


def test_every_engine_knows_its_devices_or_why_there_are_none(backend: Backend) -> None:
    devices = backend.devices()
    assert backend.hardware.facts("cpu").memory > 2**27
    assert (backend.hardware.missing() == "") == any(d.startswith("cuda") for d in devices)


def test_cupy_says_why_it_has_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from unilayers.backends.numpy import hardware

    def count() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver")

    runtime = type("runtime", (), {"getDeviceCount": staticmethod(count)})
    cupy = type("cupy", (), {"cuda": type("cuda", (), {"runtime": runtime})})
    monkeypatch.setattr(hardware, "find_spec", lambda name: object())
    monkeypatch.setattr(hardware, "import_module", lambda name: cupy)
    assert hardware.missing() == "CuPy finds no device: cudaErrorInsufficientDriver"
    runtime.getDeviceCount = staticmethod(lambda: 1)
    runtime.getDeviceProperties = staticmethod(
        lambda number: {"name": b"a card", "totalGlobalMem": 2**34, "major": 9, "minor": 0}
    )
    assert hardware.missing() == ""
    assert hardware.facts("cuda:0") == Facts("a card", 2**34, "9.0")


# ---- determinism ------------------------------------------------------------------------------


def test_torch_is_told_to_be_deterministic_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_backend("torch")
    import torch

    seen = []
    recipe = load_recipe("digits-mlp", ["deterministic=true", "backend=torch", "fit.epochs=1"])
    watch = ul.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    recipe.train(tmp_path / "run", callbacks=[watch], verbose=0)
    assert seen and all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
    assert load_recipe(tmp_path / "run" / "recipe.yaml").settings["deterministic"] is True


def test_jax_compiles_deterministic_steps() -> None:
    engine = require_backend("jax")
    from unilayers.backends.jax import hardware

    assert hardware.options() is None
    engine.hardware.deterministic(True)
    try:
        assert hardware.options() == {"xla_gpu_deterministic_ops": True}
        model = ul.Sequential([ul.Input((4,)), layers.Dense(3)], seed=0)
        assert model.predict(np.ones((2, 4)), verbose=0, backend="jax").shape == (2, 3)
    finally:
        engine.hardware.deterministic(False)
    assert hardware.options() is None


def test_tensorflow_is_told_to_be_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = require_backend("tensorflow")
    import tensorflow as tf

    calls = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(1))
    engine.hardware.deterministic(True)
    engine.hardware.deterministic(False)
    assert calls == [1]


def test_deterministic_needs_one_engine(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="deterministic: with backend 'auto' another run may be on another engine"):
        load_recipe("digits-mlp", ["deterministic=true", "backend=auto"]).train(tmp_path / "run", verbose=0)


# ---- memory -------------------------------------------------------------------------------------


def graph_of_training(units: int = 32) -> Graph:
    from unilayers.training.steps import Batch, Objectives, train_program

    model = ul.Sequential([ul.Input((16,)), layers.Dense(units, activation="tanh"), layers.Dense(4)], seed=0)
    model.compile("adam", "mse")
    objectives = Objectives("mse")
    return train_program(model, objectives, Batch(np.zeros((2, 16), "float32"), np.zeros((2, 4), "float32"))).graph


def test_needed_memory_grows_with_the_batch_and_is_near_the_plan() -> None:
    graph, engine = graph_of_training(), require_backend("numpy")
    state = sum(int(v.spec.nbytes) for v in graph.state)  # type: ignore[arg-type]
    small, large = (needed(graph, {"batch": b}) for b in (64, 4096))
    assert state < small < large
    plan = compile_graph(graph, engine, "cpu", {"batch": 4096}).plan  # type: ignore[attr-defined]
    assert 0.7 < large / (state + plan.arena_bytes) < 2.0


def test_the_batch_that_fits() -> None:
    graph = graph_of_training()
    sizes = {"batch": 1000}
    room = needed(graph, {"batch": 128})
    assert largest_batch(graph, sizes, room) == 128
    assert largest_batch(graph, sizes, room - 1) == 64
    assert largest_batch(graph, sizes, 0) == 512  # nothing is known of the device
    assert largest_batch(graph, sizes, 100) == 0
    assert largest_batch(graph, {"batch": 1}, room) == 0


def errors_of(name: str) -> list[Exception]:
    """What an engine raises where memory runs out."""
    if name == "torch":
        import torch

        on_cpu = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return [torch.cuda.OutOfMemoryError("CUDA out of memory."), on_cpu]
    if name == "tensorflow":
        import tensorflow as tf

        return [tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")]
    if name == "jax":
        return [RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.")]
    return [np._core._exceptions._ArrayMemoryError((1 << 50,), np.dtype("float32"))]


@pytest.mark.parametrize("name", BACKENDS)
def test_each_engine_knows_its_errors(name: str) -> None:
    engine = require_backend(name)
    assert all(engine.hardware.exhausted(error) for error in [MemoryError(), *errors_of(name)])
    assert not engine.hardware.exhausted(RuntimeError("shapes do not match"))


@pytest.mark.parametrize("name", BACKENDS)
def test_a_run_that_is_out_of_memory_keeps_its_checkpoint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, steps = require_backend(name), []

    def compile(graph: Graph, device: str) -> Any:
        step = engine.compile(graph, device)

        def run(state: Any, inputs: Any) -> Any:
            if graph.updates and len(inputs) == 2:
                steps.append(1)
            if len(steps) > 20:
                raise errors_of(name)[0]
            return step(state, inputs)

        return run

    monkeypatch.setitem(registered, "scarce", dataclasses.replace(engine, name="scarce", compile=compile))
    recipe = load_recipe("digits-mlp", ["backend=scarce", "fit.batch_size=256", "fit.epochs=9"])
    with pytest.raises(OutOfMemoryError) as caught:
        recipe.train(tmp_path / "run", verbose=0)
    said = str(caught.value)
    assert "backend 'scarce', cpu: memory ran out in a step on inputs of shapes (256, 8, 8, 1), (256,)" in said
    assert "Expected room for about" in said and "A batch of 128 would fit: batch_size=128" in said
    assert caught.value.__cause__ is not None and engine.hardware.exhausted(caught.value.__cause__)
    again = load_recipe(tmp_path / "run" / "recipe.yaml", [f"backend={name}", "fit.batch_size=128", "fit.epochs=3"])
    result = again.train(tmp_path / "run", resume=True, verbose=0)
    assert 0 < result.trained < 3 and result.model.position.epoch == 3
