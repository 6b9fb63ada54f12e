"""Dynamic batching measured: a binary Tree-LSTM over random Boolean expressions, folded and one tree after the other.

    python benchmarks/fold.py [--trees 64] [--leaves 10 40] [--units 64] [--rounds 5] [numpy torch tensorflow jax]

Contestants, all in this process and in turn: each tree by itself; folded, noted op by op; folded, with the cell as one
step (a `ul.function`). Every round has trees of its own, as in training, unless ``--same``. Printed are medians in
milliseconds and the ratio to each tree by itself, of the forward pass and of that with the gradients of all weights.

Reference:
    Tai, Socher, Manning, Improved Semantic Representations From Tree-Structured Long Short-Term Memory Networks, 2015,
    arXiv 1503.00075 (the N-ary cell for N = 2).
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import unilayers as ul
from unilayers import ops
from unilayers.backend import get_backend
from unilayers.ops import to_numpy
from unilayers.variable import Variable, place_together

Expression = Any  # 0 or 1, or (operator, expression, expression)
OPERATORS: dict[int, Callable[[int, int], int]] = {2: lambda a, b: a & b, 3: lambda a, b: a | b, 4: lambda a, b: a ^ b}


def expression(leaves: int, rng: random.Random) -> Expression:
    """A random expression with so many leaves, each split as likely as any other."""
    if leaves == 1:
        return rng.randrange(2)
    left = rng.randrange(1, leaves)
    return rng.choice(list(OPERATORS)), expression(left, rng), expression(leaves - left, rng)


def truth(e: Expression) -> int:
    return OPERATORS[e[0]](truth(e[1]), truth(e[2])) if isinstance(e, tuple) else e


class TreeLSTM:
    """The network: a state (h, c) for each node, and two scores from the root's h."""

    def __init__(self, units: int) -> None:
        rng = np.random.default_rng(0)

        def weight(*shape: int) -> Variable:
            return Variable((rng.normal(size=shape) / np.sqrt(shape[0])).astype("float32"))

        self.units = units
        self.words, self.kernel = weight(5, units), weight(units, 5 * units)
        self.recurrent, self.bias = weight(2 * units, 5 * units), weight(5 * units)
        self.scores = weight(units, 2)
        self.variables = [self.words, self.kernel, self.recurrent, self.bias, self.scores]

    def leaf(self, word: Any) -> tuple[Any, Any]:
        n = self.units
        gates = ops.add(ops.matmul(ops.take(self.words, word, 0), self.kernel), self.bias)
        c = ops.sigmoid(gates[:n]) * ops.tanh(gates[4 * n :])
        return ops.sigmoid(gates[3 * n : 4 * n]) * ops.tanh(c), c

    def node(self, word: Any, h1: Any, c1: Any, h2: Any, c2: Any) -> tuple[Any, Any]:
        n = self.units
        given = ops.matmul(ops.take(self.words, word, 0), self.kernel)
        gates = ops.add(given + ops.matmul(ops.concat([h1, h2]), self.recurrent), self.bias)
        i, f1, f2, o = (ops.sigmoid(gates[k * n : (k + 1) * n]) for k in range(4))
        c = i * ops.tanh(gates[4 * n :]) + f1 * c1 + f2 * c2
        return o * ops.tanh(c), c


def scores(model: TreeLSTM, leaf: Callable[..., Any], node: Callable[..., Any]) -> Callable[[Expression], Any]:
    def state(e: Expression) -> tuple[Any, Any]:
        if isinstance(e, tuple):
            return node(np.int32(e[0]), *state(e[1]), *state(e[2]))
        return leaf(np.int32(e))

    return lambda e: ops.matmul(state(e)[0], model.scores)


Trees = list[Expression]
Run = Callable[[Trees], Any]


def contestants(model: TreeLSTM) -> dict[str, Run]:
    plain = scores(model, model.leaf, model.node)
    compiled = scores(model, ul.function(model.leaf), ul.function(model.node))
    return {
        "each tree": lambda trees: ops.stack([plain(t) for t in trees]),
        "folded": lambda trees: ul.fold(plain, trees, stack=True),
        "folded, cell": lambda trees: ul.fold(compiled, trees, stack=True),
    }


def training(forward: Run, model: TreeLSTM) -> Run:
    def run(trees: Trees) -> Any:
        labels = np.array([truth(t) for t in trees], np.int32)
        with ul.GradientTape() as tape:
            loss = ops.mean(ops.sparse_softmax_cross_entropy(forward(trees), labels))
        return tape.gradient(loss, model.variables)

    return run


def measure(runs: dict[str, Run], batches: list[Trees], synchronize: Callable[[], None]) -> dict[str, float]:
    """Median milliseconds over all batches but the first, which warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for trees in batches:
        for name, run in runs.items():
            start = time.perf_counter()
            run(trees)
            synchronize()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tree-LSTM, folded and one tree after the other")
    parser.add_argument("backends", nargs="*", default=["numpy", "torch", "tensorflow", "jax"])
    parser.add_argument("--trees", type=int, default=64)
    parser.add_argument("--leaves", type=int, nargs=2, default=(10, 40))
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--same", action="store_true", help="the same trees in every round")
    parser.add_argument("--device")
    args = parser.parse_args()
    rng = random.Random(0)
    batches = [[expression(rng.randint(*args.leaves), rng) for _ in range(args.trees)] for _ in range(args.rounds + 1)]
    if args.same:
        batches = batches[:1] * len(batches)
    for name in args.backends:
        backend = get_backend(name)
        model = TreeLSTM(args.units)
        place_together(model.variables, backend, backend.device(args.device))
        forward = contestants(model)
        passes = {"forward": forward, "with gradients": {k: training(f, model) for k, f in forward.items()}}
        for what, runs in passes.items():
            found = [run(batches[0]) for run in runs.values()]
            numbers = [[to_numpy(y) for y in (f if isinstance(f, list) else [f])] for f in found]
            apart = max(float(np.abs(a - b).max()) for n in numbers[1:] for a, b in zip(numbers[0], n, strict=True))
            times = measure(runs, batches, backend.synchronize)
            print(f"{name}, {what} (results at most {apart:.1e} apart)")
            for who, t in times.items():
                print(f"  {who:14s}{t:10.1f} ms{times['each tree'] / t:8.1f} x")


if __name__ == "__main__":
    main()
