"""Long runs do not grow: memory after 20,000 steps is that after 1,000."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import BACKENDS, require_backend

STEPS = 1000  # in an epoch
EPOCHS = {"compiled": 20, "eager": 20, "own step": 20}
ALLOWED = 2 * 2**20  # bytes: what allocators and counters take now and then, a tenth of a kilobyte a step

PROGRAM = """
import gc, json, sys
import numpy as np
import unilayers as ul
from unilayers import layers

backend, kind, steps, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

class Own(ul.Sequential):
    def train_step(self, data):
        x, y = data
        with ul.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}

class Memory(ul.callbacks.Callback):
    found = []
    def on_epoch_end(self, epoch, logs=None):
        gc.collect()
        with open("/proc/self/statm") as file:
            self.found.append(int(file.read().split()[1]) * 4096)

rng = np.random.default_rng(0)
x, y = rng.normal(size=(32 * 50, 64)).astype("float32"), rng.integers(0, 10, 32 * 50)
batches = [(x[i : i + 32], y[i : i + 32]) for i in range(0, len(x), 32)]

def stream():
    while True:
        yield from batches

model = (Own if kind == "own step" else ul.Sequential)(
    [ul.Input((64,)), layers.Dense(32, activation="relu"), layers.Dropout(0.1), layers.Dense(10)]
)
loss = ul.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"], run_eagerly=kind == "eager", backend=backend)
model.fit(stream(), steps_per_epoch=steps, epochs=epochs, verbose=0, callbacks=[Memory()])
assert model.position.step == steps * epochs
print(json.dumps(Memory.found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", EPOCHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_does_not_grow(backend: str, kind: str) -> None:
    require_backend(backend)
    command = [sys.executable, "-c", PROGRAM, backend, kind, str(STEPS), str(EPOCHS[kind])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found[-1] - found[0] <= ALLOWED, f"bytes after each {STEPS} steps: {found}"
