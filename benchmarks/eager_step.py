"""Time of a training step with ``run_eagerly=True``, beside the compiled step and idiomatic PyTorch.

    python benchmarks/eager_step.py [--backends torch numpy] [--models mlp convnet] [--rounds 9] [--seconds 0.3]

All contestants run in this process, in turn, ``rounds`` times; printed are medians and best times, and their ratios.
Each step is a batch of 32 from NumPy: forward, loss, gradients, Adam. Ours keeps the running mean of the loss, too.

Ours runs as a ``Sequential`` and as a subclassed model, whose written ``call`` applies activations by ops; and as one
that looks at a number in each step, so that it runs op by op.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import unilayers as ul
from unilayers import layers, ops
from unilayers.backend import get_backend
from unilayers.training.steps import Batch

BATCH = 32
KINDS = ("compiled", "eager", "written", "looking")
Run = Callable[[int], Any]

MODELS: dict[str, tuple[tuple[int, ...], Callable[[], list[Any]]]] = {
    "mlp": ((64,), lambda: [layers.Dense(32, activation="relu"), layers.Dense(10)]),
    "convnet": (
        (8, 8, 1),
        lambda: [
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(10),
        ],
    ),
}


def data(model: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((BATCH, *MODELS[model][0]), dtype=np.float32), rng.integers(0, 10, BATCH).astype("int32")


class Written(ul.Model):
    """The layers of a model, each called by Python of its own, activations as ops."""

    def __init__(self, parts: list[Any], look: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parts, self.look = parts, look
        self.active = [getattr(p, "activation", None) is not None for p in parts]
        for part, active in zip(parts, self.active, strict=True):
            if active:
                part.activation = None

    def call(self, x: Any) -> Any:
        for part, active in zip(self.parts, self.active, strict=True):
            x = part(x)
            if active:
                x = ops.relu(x)
        if self.look:
            float(x[0, 0])
        return x


def ours(model: str, backend: str, kind: str) -> Run:
    """The step that ``fit`` runs for each batch."""
    shape, make = MODELS[model]
    x, y = data(model)
    eager = kind != "compiled"
    if kind in ("compiled", "eager"):
        net: Any = ul.Sequential([ul.Input(shape), *make()], seed=0)
    else:
        net = Written(make(), kind == "looking", seed=0)
    loss = ul.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile("adam", loss, run_eagerly=eager, backend=backend)
    for _ in range(4):
        net.train_on_batch(x, y)
    program, engine = net._program("train", Batch(x, y)), get_backend(backend)
    store = net._store(engine, engine.device(None))

    def run(count: int) -> None:
        for _ in range(count):
            program.run(store, [x, y])
        engine.synchronize()

    return run


def pytorch(model: str) -> Run:
    """The usual loop of a PyTorch program."""
    import torch
    from torch import nn

    x, y = data(model)
    if model == "mlp":
        net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    else:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25), nn.Linear(144, 10)
        )
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), 1e-3)

    def run(count: int) -> None:
        for _ in range(count):
            inputs, labels = torch.from_numpy(x), torch.from_numpy(y).long()
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()

    return run


def measure(contestants: dict[str, Run], rounds: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Median and least microseconds a step; the contestants take turns."""
    counts = {}
    for name, run in contestants.items():
        run(20)
        begin = time.perf_counter()
        run(20)
        counts[name] = max(5, int(20 * seconds / (time.perf_counter() - begin)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            begin = time.perf_counter()
            run(counts[name])
            times[name].append((time.perf_counter() - begin) / counts[name] * 1e6)
    return {name: (statistics.median(found), min(found)) for name, found in times.items()}


def profile(run: Run, count: int = 300) -> None:
    """Print where the time of a step goes."""
    run(20)
    profiler = cProfile.Profile()
    profiler.runcall(run, count)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["torch", "numpy"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="per contestant and round")
    parser.add_argument("--profile", action="store_true", help="print a profile of the step instead")
    args = parser.parse_args()
    for model in args.models:
        contestants = {"PyTorch": pytorch(model)}
        for backend in args.backends:
            if args.profile:
                profile(ours(model, backend, "eager"))
            contestants |= {f"{backend} {kind}": ours(model, backend, kind) for kind in KINDS}
        if args.profile:
            continue
        times = measure(contestants, args.rounds, args.seconds)
        print(f"{model}, batch {BATCH}, microseconds a step (median, best): PyTorch", *_rounded(times["PyTorch"]))
        for backend in args.backends:
            compiled = times[f"{backend} compiled"]
            print(f"  {backend:12s} compiled", *_rounded(compiled))
            for kind in KINDS[1:]:
                found = times[f"{backend} {kind}"]
                median, best = (a / b for a, b in zip(found, compiled, strict=True))
                print(f"    {kind:10s}", *_rounded(found), f"  / compiled {median:5.2f} {best:5.2f}")


def _rounded(times: tuple[float, float]) -> list[str]:
    return [f"{t:7.0f}" for t in times]


if __name__ == "__main__":
    main()
