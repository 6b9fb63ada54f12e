"""Time of one training step on the embedded backend: the generated step, plain table calls, and steps written by hand.

    python benchmarks/numpy_step.py [--peers FOLDER] [--rounds 7] [--seconds 0.3] [W1 W2 W3 W7 ...]

All contestants run in this process, in turn, ``rounds`` times; printed are medians and the ratio of medians to ours.
``--peers`` is a folder with hand-written steps (``impl_numpy.py`` with ``build(contestant, workload)``).
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.autodiff import gradients
from unilayers.backend import get_backend
from unilayers.graph import Graph, Value, leaf, tracing
from unilayers.graph.emit import straight_line
from unilayers.graph.passes import optimise
from unilayers.program import compile_graph
from unilayers.spec import Spec

Params = dict[str, Value]

# ---- workloads --------------------------------------------------------------------


@dataclass
class Workload:
    """A model with its loss: parameter shapes, input and label specs, ``loss(params, x, y, counter)``."""

    name: str
    params: dict[str, tuple[int, ...]]
    x: tuple[int, ...]
    y: Spec
    loss: Callable[[Params, Value, Value, Value], Value]
    adam: bool = True


def _dense(p: Params, x: Value, i: int) -> Value:
    return ops.add(ops.matmul(x, p[f"kernel_{i}"]), p[f"bias_{i}"])


def _mlp(name: str, batch: int, *sizes: int) -> Workload:
    params: dict[str, tuple[int, ...]] = {}
    for i, (a, b) in enumerate(pairwise(sizes)):
        params |= {f"kernel_{i}": (a, b), f"bias_{i}": (b,)}
    last = len(sizes) - 2

    def loss(p: Params, x: Value, y: Value, counter: Value) -> Value:
        for i in range(last):
            x = ops.relu(_dense(p, x, i))
        return ops.mean(ops.sparse_softmax_cross_entropy(_dense(p, x, last), y))

    return Workload(name, params, (batch, sizes[0]), Spec((batch,), "int32"), loss)


def _two_layers(p: Params, x: Value, y: Value, counter: Value) -> Value:
    prediction = ops.matmul(ops.relu(ops.matmul(x, p["w1"])), p["w2"])
    return ops.mean(ops.square(ops.subtract(prediction, y)))


def _convnet(p: Params, x: Value, y: Value, counter: Value) -> Value:
    for i in range(2):
        x = ops.relu(ops.add(ops.conv(x, p[f"kernel_{i}"]), p[f"bias_{i}"]))
        x = ops.max_pool(x, 2)
    x = ops.reshape(x, (x.shape[0], -1))
    x = ops.dropout(x, counter, rate=0.5, key=(1, 2))
    return ops.mean(ops.sparse_softmax_cross_entropy(_dense(p, x, 2), y))


def _conv_params(channels: int) -> dict[str, tuple[int, ...]]:
    first = {"kernel_0": (3, 3, channels, 32), "bias_0": (32,), "kernel_1": (3, 3, 32, 64), "bias_1": (64,)}
    return {**first, "kernel_2": (1600, 10), "bias_2": (10,)}


WORKLOADS = {
    w.name: w
    for w in [
        Workload("W1", {"w1": (1000, 100), "w2": (100, 1000)}, (64, 1000), Spec((64, 1000)), _two_layers, adam=False),
        _mlp("W2", 128, 784, 512, 512, 10),
        Workload("W3", _conv_params(1), (128, 28, 28, 1), Spec((128,), "int32"), _convnet),
        _mlp("W7", 32, 64, 32, 10),
        _mlp("mlp-256x5", 64, 100, 256, 256, 256, 256, 5),
    ]
}


def training_graph(w: Workload) -> Graph:
    """Forward, loss, gradients and the optimizer's update as one graph."""
    x, y = leaf("input", "x", Spec(w.x)), leaf("input", "y", w.y)
    params = {k: leaf("state", k, Spec(s)) for k, s in w.params.items()}
    iteration, rate = leaf("state", "iterations", Spec((), "int32")), leaf("state", "learning_rate", Spec(()))
    slots = (
        [leaf("state", f"{slot}/{k}", Spec(s)) for slot in ("m", "v") for k, s in w.params.items()] if w.adam else []
    )
    with tracing():
        loss = w.loss(params, x, y, iteration)
        tensors = [*params.values(), *gradients(loss, list(params.values())), *slots]
        if w.adam:
            new = ops.adam_update(rate, iteration, *tensors, count=len(params))
        else:
            new = ops.sgd_update(rate, *tensors, count=len(params))
        updates = {v.node.attrs["name"]: n for v, n in zip([*params.values(), *slots], new, strict=True)}
        updates["iterations"] = iteration + 1
    return Graph((x, y), (*params.values(), iteration, rate, *slots), {"loss": loss}, updates)


def initial_state(w: Workload, rng: np.random.Generator) -> list[np.ndarray]:
    def draw(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return np.zeros(shape, "float32")
        limit = math.sqrt(6 / (math.prod(shape[:-1]) + shape[-1]))
        return rng.uniform(-limit, limit, shape).astype("float32")

    slots = [np.zeros(s, "float32") for _ in range(2) for s in w.params.values()] if w.adam else []
    rate = np.array(1e-3 if w.adam else 1e-2, "float32")
    return [*map(draw, w.params.values()), np.array(0, "int32"), rate, *slots]


def batches(w: Workload, rng: np.random.Generator, count: int = 8) -> list[list[np.ndarray]]:
    found = []
    for _ in range(count):
        labels = rng.integers(0, 5, w.y.shape).astype("int32") if w.y.dtype == "int32" else rng.normal(size=w.y.shape)  # type: ignore[arg-type]
        found.append([rng.random(w.x, dtype=np.float32), labels.astype(w.y.dtype)])
    return found


# ---- contestants ------------------------------------------------------------------

Run = Callable[[int], Any]


def ours(w: Workload) -> tuple[Run, Any]:
    backend = get_backend("numpy")
    step = compile_graph(training_graph(w), backend, "cpu")
    rng = np.random.default_rng(0)
    state, data = backend.put(initial_state(w, rng), "cpu"), batches(w, rng)

    def run(n: int, step: Any = step, state: Any = state, data: Any = data) -> Any:
        for i in range(n):
            state, outputs = step(state, data[i & 7])
        return outputs

    return run, step


def naive(w: Workload) -> Run:
    backend = get_backend("numpy")
    table = backend.table

    def fold(node: Any, arrays: Any) -> Any:
        found = table[node.op](*arrays, **node.attrs)
        return found if isinstance(found, (tuple, list)) else (found,)

    step = straight_line(optimise(training_graph(w), table, fold), table, lambda a: a)
    rng = np.random.default_rng(0)
    state, data = initial_state(w, rng), batches(w, rng)

    def run(n: int) -> Any:
        nonlocal state
        with np.errstate(all="ignore"):
            for i in range(n):
                state, outputs = step(state, data[i & 7])
        return outputs

    return run


def by_hand(folder: str, workload: str, names: Sequence[str]) -> dict[str, Run]:
    """Hand-written steps, if the folder has them for this workload."""
    sys.path.insert(0, folder)
    module = importlib.import_module("impl_numpy")
    found = {}
    for name in names:
        try:
            found[name] = module.build(name, workload)["run"]
        except Exception as error:  # a contestant that cannot run this workload is left out
            print(f"  {name}: {error!r}", file=sys.stderr)
    return found


# ---- timing -----------------------------------------------------------------------


def measure(contestants: dict[str, Run], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds a step, one figure a round; the contestants take turns."""
    counts = {}
    for name, run in contestants.items():
        run(3)
        begin = time.perf_counter()
        run(3)
        counts[name] = max(1, int(3 * seconds / (time.perf_counter() - begin)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            begin = time.perf_counter()
            run(counts[name])
            times[name].append((time.perf_counter() - begin) / counts[name] * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--peers", help="folder with hand-written steps")
    parser.add_argument("--contestants", default="np_static", help="which of them, by commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="per contestant and round")
    parser.add_argument("--source", action="store_true", help="print the generated step")
    parser.add_argument("--no-naive", action="store_true", help="leave the plain table calls out")
    args = parser.parse_args()
    for workload in args.workloads:
        w = WORKLOADS[workload]
        begin = time.perf_counter()
        run, step = ours(w)
        run(1)
        first = time.perf_counter() - begin
        if args.source:
            print(step.source)
        contestants = {"ours": run}
        if args.peers:
            contestants |= by_hand(args.peers, workload, args.contestants.split(","))
        if not args.no_naive:
            contestants["table calls"] = naive(w)
        times = measure(contestants, args.rounds, args.seconds)
        middle = {name: statistics.median(t) for name, t in times.items()}
        plan = step.plan
        print(
            f"{workload}: first step {first * 1e3:.0f} ms, arena {plan.arena_bytes / 1e6:.2f} MB = "
            f"{plan.arena_bytes / plan.lower_bound:.3f} of the lower bound"
        )
        for name, t in times.items():
            spread = f"{min(t):.4f} to {max(t):.4f}"
            print(f"  {name:14s} {middle[name]:9.4f} ms ({spread})   ours / this {middle['ours'] / middle[name]:.2f}")


if __name__ == "__main__":
    main()
