"""On CUDA devices: every op, training beside the CPU, the same bits twice, and memory over a long run.

Each engine is tried on each device; where an engine sees none, its tests are skipped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, NO_DEVICE, require_backend
from tests.test_ops import all_calls, check, one_op_graph
from unilayers import layers
from unilayers.backend import Backend
from unilayers.callbacks import LambdaCallback
from unilayers.graph import OPS
from unilayers.program import compile_graph
from unilayers.recipe import load_recipe

pytestmark = pytest.mark.gpu

DEVICES = max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))
# Relative difference of the training loss from the CPU's, over the first 100 steps: products are summed in another
# order, and tensor cores round float16 products.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9, "mixed_float16": 5e-2}

Place = tuple[Backend, str]


@pytest.fixture(
    params=[(name, f"cuda:{i}") for name in BACKENDS for i in range(DEVICES)], ids=lambda place: "-".join(place)
)
def place(request: pytest.FixtureRequest) -> Place:
    """An engine and a device of it."""
    name, device = request.param
    backend = require_backend(name)
    if device not in backend.devices():
        pytest.skip(f"{NO_DEVICE}{name}")
    return backend, device


# ---- ops --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(n for n, op in OPS.items() if op.samples is not None))
def test_every_op(name: str, place: Place) -> None:
    op, (backend, device) = OPS[name], place
    calls = all_calls(op)
    step = compile_graph(one_op_graph(op), backend, device)
    inputs = backend.put([x for call in calls for x in call.inputs], device)
    for turn in range(3):  # as it is, recorded, replayed
        _, outputs = step([], inputs)
        found = {key: backend.get(array) for key, array in outputs.items()}
        for i, call in enumerate(calls):
            results = [found[f"y{i}_{k}"] for k in range(len(call.specs))]
            check(op, results, call, f"{backend.name} on {device}, run {turn}")


# ---- training -----------------------------------------------------------------------------------


def losses(recipe: str, backend: str, device: str, dtype: str, steps: int = 100, **settings: Any) -> list[float]:
    """The losses of the first steps of a shipped recipe."""
    loaded, found = load_recipe(recipe, [f"dtype={dtype}", *(f"{k}={v}" for k, v in settings.items())]), []
    model, data = loaded.build(), loaded.data()

    def keep(batch: int, logs: dict[str, float]) -> None:
        found.append(logs["batch_loss"])
        model.stop_training = len(found) == steps

    watch = LambdaCallback(on_train_batch_end=keep)
    model.fit(data.x, data.y, batch_size=16, epochs=9, callbacks=[watch], verbose=0, backend=backend, device=device)
    assert len(found) == steps
    return found


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("recipe", ["digits-mlp", "digits-cnn"])
def test_training_follows_the_cpu(recipe: str, dtype: str, place: Place) -> None:
    backend, device = place
    found, wanted = (np.array(losses(recipe, backend.name, on, dtype)) for on in (device, "cpu"))
    assert_close(found, wanted, rtol=TOLERANCE[dtype], atol=0, what=f"losses of {recipe} in {dtype}")


@pytest.fixture
def deterministic(place: Place) -> Iterator[None]:
    place[0].hardware.deterministic(True)
    yield
    place[0].hardware.deterministic(False)


@pytest.mark.usefixtures("deterministic")
def test_deterministic_runs_give_the_same_bits(place: Place) -> None:
    backend, device = place

    def weights() -> list[np.ndarray]:
        model = ul.Sequential(
            [
                ul.Input((12,), dtype="int32"),
                layers.Embedding(20, 16),
                layers.LayerNormalization(),
                layers.Conv1D(16, 3, activation="relu"),
                layers.Dropout(0.3),
                layers.Flatten(),
                layers.Dense(5),
            ],
            seed=0,
        )
        loss = ul.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, backend=backend.name, device=device)
        rng = np.random.default_rng(0)
        model.fit(rng.integers(0, 20, (256, 12)), rng.integers(0, 5, 256), epochs=5, verbose=0)
        return model.get_weights()

    for a, b in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_memory_does_not_grow_over_ten_thousand_steps(place: Place) -> None:
    backend, device = place
    model = ul.Sequential([ul.Input((64,)), layers.Dense(32, activation="relu"), layers.Dropout(0.1), layers.Dense(10)])
    loss = ul.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], backend=backend.name, device=device)
    rng, found = np.random.default_rng(0), []
    x, y = rng.normal(size=(32 * 1000, 64)).astype("float32"), rng.integers(0, 10, 32 * 1000)

    def note(epoch: int, logs: Any) -> None:
        backend.synchronize()
        found.append(next(iter(backend.memory(device).values()), 0))

    model.fit(x, y, epochs=10, verbose=0, callbacks=[LambdaCallback(on_epoch_end=note)])
    assert len(found) == 10
    assert found[-1] <= found[1] + 2**20, f"bytes after each 1,000 steps: {found}"


def test_memory_that_runs_out_is_told(place: Place) -> None:
    (backend, device), many = place, 2**20
    model = ul.Sequential([ul.Input((1,)), layers.Dense(many)], seed=0)
    with pytest.raises(ul.errors.OutOfMemoryError, match="room for about"):
        model.predict(np.zeros((many, 1)), batch_size=many, verbose=0, backend=backend.name, device=device)
