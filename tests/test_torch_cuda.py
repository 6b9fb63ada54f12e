"""PyTorch on CUDA without a device: streams that run at once and recordings that run again stand in for CUDA's."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from unilayers.backends.replay import in_place

from tests.compare import assert_close
from tests.conftest import require_backend
from unilayers import ops
from unilayers.callbacks import LambdaCallback
from unilayers.graph import Graph, leaf, tracing
from unilayers.recipe import load_recipe
from unilayers.spec import Spec


def test_new_state_is_left_where_the_old_was() -> None:
    """Also where two states change places, and where one is returned as it came."""

    def step(state: list[Any], inputs: Any) -> Any:
        a, b, c = state
        return [b, a, c], {"sum": a + b}

    state = [np.zeros(2), np.ones(2), np.full(2, 7.0)]
    places = list(state)
    new, outputs = in_place(step, lambda there, value: np.copyto(there, value), np.copy)(state, [])
    assert all(a is b for a, b in zip(new, places, strict=True))
    np.testing.assert_array_equal(new, [[1.0, 1.0], [0.0, 0.0], [7.0, 7.0]])
    np.testing.assert_array_equal(outputs["sum"], [1.0, 1.0])


class Recording:
    """``torch.cuda.CUDAGraph``: its calls, which a replay makes again with results into the same tensors."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        launches.append(self)
        self.count = 0

    def replay(self) -> None:
        self.count += 1
        for call in self.calls:
            call()


launches: list[Recording] = []


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyTorch with a CUDA device that is the CPU; dispatched calls are recorded while a graph is."""
    require_backend("torch")
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from unilayers.backends.torch import backend, cuda, neural, updates

    class Stream:
        def __init__(self, device: str) -> None:
            pass

        def wait_event(self, event: Any) -> None:
            pass

        wait_stream = wait_event

    class Recorder(TorchDispatchMode):
        """Notes each call, and makes it again later with the results copied over those of the first time."""

        def __init__(self, graph: Recording) -> None:
            super().__init__()
            self.graph = graph

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = tensors((args, kwargs))
            before = [a.clone() for a in given]
            results = tensors(result := function(*args, **(kwargs or {})))

            def again() -> None:
                for old, new in zip(results, tensors(function(*args, **(kwargs or {}))), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

            self.graph.calls.append(again)
            for a, value in zip(given, before, strict=True) if not function.is_view else ():
                a.copy_(value)  # a recording does not run
            return result

    def tensors(nested: Any) -> list[Any]:
        return [x for x in torch.utils._pytree.tree_leaves(nested) if isinstance(x, torch.Tensor)]

    @contextlib.contextmanager
    def graph(recording: Recording, stream: Any) -> Any:
        with Recorder(recording):
            yield

    launches.clear()
    stand_in = SimpleNamespace(
        Stream=Stream,
        Event=lambda: SimpleNamespace(record=lambda stream: None, synchronize=lambda: None),
        CUDAGraph=Recording,
        graph=graph,
        stream=lambda stream: contextlib.nullcontext(),
        current_stream=lambda device: Stream(device),
    )

    class Module:
        cuda = stand_in

        def empty(self, shape: Any, dtype: Any, device: str = "cpu", pin_memory: bool = False) -> Any:
            return torch.empty(shape, dtype=dtype)

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(cuda, "torch", Module())
    monkeypatch.setattr(backend, "fits", lambda node, device: neural.fits(node, "cuda:0"))
    monkeypatch.setattr(updates, "_number", lambda scalar: scalar)  # as off the CPU, where reading it would wait
    return torch


def on_device(torch: Any) -> Any:
    """The backend as it is on CUDA."""
    from unilayers.backends.torch.cuda import replayed

    backend = require_backend("torch")

    def compile(graph: Graph, device: str) -> Any:
        return replayed(backend.compile(graph, device), graph.inputs, device)

    return dataclasses.replace(backend, compile=compile, feed=lambda arrays, device, owned: arrays)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_is_recorded_once_and_replayed(dtype: str, torch: Any) -> None:
    x, w = leaf("input", "x", Spec((4, 3), dtype)), leaf("state", "w", Spec((3, 2), dtype))
    with tracing():
        y = ops.matmul(x, w)
        graph = Graph((x,), (w,), {"y": y}, {"w": w - 0.5 * ops.matmul(ops.transpose(x), y)})
    backend = require_backend("torch")
    plain, step = backend.compile(graph, "cpu"), on_device(torch).compile(graph, "cpu")
    start = np.linspace(-1, 1, 6).reshape(3, 2)
    there, wanted = (backend.put_as([start], [dtype], "cpu") for _ in range(2))
    place, rng, kept = there[0], np.random.default_rng(0), []
    for _ in range(5):
        given = rng.normal(size=(4, 3)).astype("float32")
        there, found = step(there, [given])
        wanted, expected = plain(wanted, backend.put_as([given], [dtype], "cpu"))
        kept.append((backend.get(found["y"]), backend.get(expected["y"]), found["y"]))
        assert_close(backend.get(there[0]), backend.get(wanted[0]), rtol=1e-6, atol=1e-6, what="state")
    for a, b, tensor in kept:  # later runs leave what earlier ones returned
        assert_close(a, b, rtol=1e-6, atol=1e-6, what="output")
        np.testing.assert_array_equal(backend.get(tensor), a)
    assert there[0] is place
    assert [graph.count for graph in launches] == [4]


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn"])
def test_training_replayed_gives_the_same_losses(name: str, torch: Any) -> None:
    def first_losses(backend: Any) -> list[float]:
        recipe = load_recipe(name)
        model, data, found = recipe.build(), recipe.data(), []

        def keep(batch: int, logs: dict[str, float]) -> None:
            found.append(logs["batch_loss"])
            model.stop_training = len(found) == 12

        watch = LambdaCallback(on_train_batch_end=keep)
        model.fit(data.x, data.y, batch_size=32, epochs=1, callbacks=[watch], verbose=0, backend=backend)
        return found

    found, wanted = first_losses(on_device(torch)), first_losses("torch")
    assert_close(np.array(found), np.array(wanted), rtol=1e-6, atol=0, what="losses")
    assert max(graph.count for graph in launches) == 11
