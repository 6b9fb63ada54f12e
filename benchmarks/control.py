"""Time of a recurrent network that is a ``scan`` in the graph, beside the same network in each framework's own words.

    python benchmarks/control.py [--steps 64] [--batch 64] [--units 128] [--rounds 40] [--seconds 0.05] [numpy ...]

An Elman network, ``h = tanh(x @ w + h @ u + b)`` over the steps, is run forward (all h are returned) and trained by one
step of SGD on the mean square of all h. The other side of each comparison is what one would write by hand: loops in
Python with autograd for PyTorch, ``lax.scan`` and ``jax.grad`` under jit, ``tf.while_loop`` with a tape under
tf.function, loops with derivatives worked out by hand for NumPy. Both run in turn; printed are medians in milliseconds,
and ratios of these and of the shortest times, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.autodiff import gradients
from unilayers.backend import get_backend
from unilayers.graph import Graph, leaf, tracing
from unilayers.program import compile_graph
from unilayers.spec import Spec

RATE = 0.1
Run = Callable[[], Any]


@dataclass
class Task:
    """Sizes and data: an input (steps, batch, units) and the weights w, u, b."""

    steps: int
    batch: int
    units: int

    def __post_init__(self) -> None:
        rng, n = np.random.default_rng(0), self.units
        self.x = rng.normal(size=(self.steps, self.batch, n)).astype("float32")
        self.weights = [(rng.normal(size=s) / np.sqrt(n)).astype("float32") for s in ((n, n), (n, n), (n,))]

    @property
    def start(self) -> np.ndarray:
        return np.zeros((self.batch, self.units), "float32")


# ---- ours -------------------------------------------------------------------------


def ours(task: Task, name: str) -> dict[str, Run]:
    backend = get_backend(name)
    x = leaf("input", "x", Spec(task.x.shape))
    state = [leaf("state", k, Spec(a.shape)) for k, a in zip("wub", task.weights, strict=True)]
    w, u, b = state
    with tracing():
        start = ops.zeros(task.start.shape)
        _, hs = ops.scan(lambda h, row: (ops.tanh(row @ w + h @ u + b),) * 2, start, x)
        loss = ops.mean(ops.square(hs))
        new = ops.sgd_update(np.float32(RATE), *state, *gradients(loss, state), count=3)
    graphs = {
        "forward": Graph((x,), tuple(state), {"y": hs}),
        "training step": Graph((x,), tuple(state), {"loss": loss}, dict(zip("wub", new, strict=True))),
    }
    return {what: _runner(graph, backend, task) for what, graph in graphs.items()}


def _runner(graph: Graph, backend: Any, task: Task) -> Run:
    function = compile_graph(graph, backend, "cpu")
    state, inputs = backend.put(task.weights, "cpu"), backend.put([task.x], "cpu")

    def run() -> Any:
        nonlocal state
        state, outputs = function(state, inputs)
        return backend.get(next(iter(outputs.values())))

    return run


# ---- theirs -------------------------------------------------------------------------


def by_hand_numpy(task: Task) -> dict[str, Run]:
    x = task.x
    w, u, b = (a.copy() for a in task.weights)

    def forward() -> np.ndarray:
        hs, h = np.empty_like(x), task.start
        for t, row in enumerate(x):
            h = np.tanh(row @ w + h @ u + b)
            hs[t] = h
        return hs

    def train() -> Any:
        hs = forward()
        gw, gu, gb, g = np.zeros_like(w), np.zeros_like(u), np.zeros_like(b), task.start
        for t in range(task.steps - 1, -1, -1):
            g = (g + hs[t] * np.float32(2 / hs.size)) * (1 - hs[t] ** 2)
            gw += x[t].T @ g
            gb += g.sum(0)
            if t:
                gu += hs[t - 1].T @ g
                g = g @ u.T
        for a, d in ((w, gw), (u, gu), (b, gb)):
            a -= RATE * d
        return np.mean(hs**2)

    return {"forward": forward, "training step": train}


def by_hand_torch(task: Task) -> dict[str, Run]:
    import torch

    x = torch.from_numpy(task.x)
    w, u, b = weights = [torch.from_numpy(a.copy()).requires_grad_() for a in task.weights]

    def network() -> torch.Tensor:
        h, hs = torch.zeros(task.batch, task.units), []
        for row in x.unbind():
            h = torch.tanh(row @ w + h @ u + b)
            hs.append(h)
        return torch.stack(hs)

    def train() -> Any:
        loss = network().square().mean()
        found = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for a, g in zip(weights, found, strict=True):
                a -= RATE * g
        return loss.item()

    return {"forward": lambda: torch.inference_mode()(network)().numpy(), "training step": train}


def by_hand_tensorflow(task: Task) -> dict[str, Run]:
    import tensorflow as tf

    x = tf.constant(task.x)
    weights = [tf.Variable(a) for a in task.weights]

    def network(w: Any, u: Any, b: Any) -> Any:
        rows = tf.TensorArray(tf.float32, task.steps, element_shape=task.start.shape).unstack(x)
        hs = tf.TensorArray(tf.float32, task.steps, element_shape=task.start.shape)

        def step(t: Any, h: Any, hs: Any) -> Any:
            h = tf.tanh(rows.read(t) @ w + h @ u + b)
            return t + 1, h, hs.write(t, h)

        start = (tf.constant(0), tf.constant(task.start), hs)
        return tf.while_loop(lambda t, *_: t < task.steps, step, start, maximum_iterations=task.steps)[2].stack()

    @tf.function(autograph=False)
    def forward() -> Any:
        return network(*weights)

    @tf.function(autograph=False)
    def train() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(network(*(tf.identity(v) for v in weights))))
        for v, g in zip(weights, tape.gradient(loss, weights), strict=True):
            v.assign_sub(RATE * g)
        return loss

    return {"forward": lambda: forward().numpy(), "training step": lambda: train().numpy()}


def by_hand_jax(task: Task) -> dict[str, Run]:
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(task.x)
    weights = [jnp.array(a) for a in task.weights]

    def network(weights: Any, x: Any) -> Any:
        w, u, b = weights

        def step(h: Any, row: Any) -> Any:
            h = jnp.tanh(row @ w + h @ u + b)
            return h, h

        return jax.lax.scan(step, jnp.zeros(task.start.shape), x)[1]

    def step(weights: Any, x: Any) -> Any:
        loss, found = jax.value_and_grad(lambda p: jnp.mean(jnp.square(network(p, x))))(weights)
        return loss, [a - RATE * g for a, g in zip(weights, found, strict=True)]

    forward, training = jax.jit(network), jax.jit(step, donate_argnums=0)

    def train() -> Any:
        nonlocal weights
        loss, weights = training(weights, x)
        return float(loss)

    fixed = [jnp.array(a) for a in task.weights]
    return {"forward": lambda: np.array(forward(fixed, x)), "training step": train}


THEIRS: dict[str, Callable[[Task], dict[str, Run]]] = {
    "numpy": by_hand_numpy,
    "torch": by_hand_torch,
    "tensorflow": by_hand_tensorflow,
    "jax": by_hand_jax,
}

# ---- measuring ------------------------------------------------------------------------


def measure(runs: Sequence[Run], rounds: int, seconds: float) -> list[tuple[float, float]]:
    """Milliseconds a call, of all in turn: the median and the shortest."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for run, found in zip(runs, times, strict=True):
            start = time.perf_counter()
            while time.perf_counter() - start < seconds:
                begin = time.perf_counter()
                run()
                found.append((time.perf_counter() - begin) * 1e3)
    return [(statistics.median(found), min(found)) for found in times]


def compare(name: str, task: Task, rounds: int, seconds: float) -> None:
    mine, theirs = ours(task, name), THEIRS[name](task)
    for what in mine:
        for turn in range(3):  # the same numbers, step after step
            np.testing.assert_allclose(mine[what](), theirs[what](), rtol=1e-3, atol=1e-4, err_msg=f"{name}, {turn}")
        (a, least_a), (b, least_b) = measure([mine[what], theirs[what]], rounds, seconds)
        ratios = f"ratio {a / b:.2f}, of the shortest {least_a / least_b:.2f}"
        print(f"{name:<11} {what:<14} ours {a:7.2f} ms   theirs {b:7.2f} ms   {ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for size, value in (("steps", 64), ("batch", 64), ("units", 128), ("rounds", 40)):
        parser.add_argument(f"--{size}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("backends", nargs="*", default=list(THEIRS))
    args = parser.parse_args()
    for name in args.backends:
        compare(name, Task(args.steps, args.batch, args.units), args.rounds, args.seconds)


if __name__ == "__main__":
    main()
