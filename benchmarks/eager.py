"""What an eager op costs beyond the engine's own call, and what a step under a tape costs beside compiled ones.

    OMP_NUM_THREADS=1 python benchmarks/eager.py [--backends numpy torch] [--rounds 9] [--milliseconds 4] [--ops add]

Small arrays, so that calling is what takes the time. All contestants of an op run in this process, in turn, ``rounds``
times; printed are medians of the processor time of a call in microseconds, and the differences to the
native call: what a good user of that engine would write.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.autodiff import GradientTape, gradients
from unilayers.backend import Backend, backend_names, get_backend
from unilayers.errors import BackendError
from unilayers.graph import Graph, leaf
from unilayers.ops.define import Box
from unilayers.program import compile_graph
from unilayers.spec import Spec
from unilayers.variable import Variable

Call = Callable[[], Any]
TAPE_LENGTH = 32  # ops on one tape
COLUMNS = ("native", "table", "eager", "boxed", "taped")

# ---- measuring ----------------------------------------------------------------------


def timed(calls: dict[str, Call], rounds: int, seconds: float) -> dict[str, float]:
    """Median microseconds of processor time of each call; all take turns."""
    counts = {}
    for name, call in calls.items():
        call(), call()  # the second builds what is kept
        start, n = time.process_time(), 0
        while time.process_time() - start < seconds / 4:
            call()
            n += 1
        counts[name] = max(1, 4 * n)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(counts[name]):
                call()
            found[name].append((time.process_time() - start) / counts[name] * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def taped(function: Callable[[Any], Any], x: Any) -> Call:
    """``TAPE_LENGTH`` calls of an op on a tape of their own."""

    def call() -> None:
        with GradientTape() as tape:
            box = tape.watch(x)
            for _ in range(TAPE_LENGTH):
                function(box)

    return call


# ---- ops ------------------------------------------------------------------------------


@dataclass
class Case:
    """An op, and how the engines' own users write it.

    Args:
        name: Printed.
        ours: Function of x.
        table: The entry of the backend's table and its arguments; None where the op is made of several.
        native: Backend name to function of x.
    """

    name: str
    ours: Callable[[Any], Any]
    table: tuple[str, tuple[Any, ...], dict[str, Any]] | None
    native: dict[str, Callable[[Any], Any]]


def cases(backend: Backend) -> list[Case]:
    rng = np.random.default_rng(0)
    normal = [rng.normal(size=s).astype("float32") for s in ((8, 16), (8, 16), (16, 8), (16,))]
    _, y, w, v = backend.put(normal, backend.device("cpu"))
    (i,) = backend.put([np.array([3, 1, 2], "int32")], backend.device("cpu"))
    (c,) = backend.put([rng.normal(size=(8, 16)) > 0], backend.device("cpu"))
    kernel = Variable(normal[2])
    keep = {"keepdims": False}
    native: dict[str, dict[str, Callable[[Any], Any]]] = {"numpy": native_numpy(y, w, v, i, c)}
    if "torch" in sys.modules:
        native["torch"] = native_torch(y, w, v, i, c)

    def case(name: str, ours: Callable[[Any], Any], table: str | None = None, *args: Any, **attrs: Any) -> Case:
        own = {b: known[name] for b, known in native.items() if name in known}
        return Case(name, ours, (table, args, attrs) if table and table in backend.table else None, own)

    return [
        case("add", lambda x: ops.add(x, y), "add", y),
        case("add a bias", lambda x: ops.add(x, v), "add", v),
        case("multiply by a number", lambda x: ops.multiply(x, 0.5), "multiply", 0.5),
        case("divide", lambda x: ops.divide(x, y), "divide", y),
        case("maximum with 0", lambda x: ops.maximum(x, 0.0)),
        case("greater", lambda x: ops.greater(x, y), "greater", y),
        case("where", lambda x: ops.where(c, x, y)),
        case("astype", lambda x: ops.astype(x, "float64"), "astype", dtype="float64"),
        case("square", ops.square, "square"),
        case("exp", ops.exp, "exp"),
        case("tanh", ops.tanh, "tanh"),
        case("relu", ops.relu, "relu"),
        case("sigmoid", ops.sigmoid, "sigmoid"),
        case("silu", ops.silu, "silu"),
        case("gelu", ops.gelu, "gelu"),
        case("softmax", ops.softmax, "softmax", axis=1),
        case("log_softmax", ops.log_softmax, "log_softmax", axis=1),
        case("layer_norm", lambda x: ops.layer_norm(x, v, v)),
        case("matmul", lambda x: ops.matmul(x, w), "matmul", w),
        case("matmul with a variable", lambda x: ops.matmul(x, kernel), "matmul", w),
        case("sum", lambda x: ops.sum(x, 1), "sum", axis=(1,), **keep),
        case("mean", lambda x: ops.mean(x, 1)),
        case("max", lambda x: ops.max(x, 1), "max", axis=(1,), **keep),
        case("argmax", lambda x: ops.argmax(x, 1), "argmax", axis=1),
        case("reshape", lambda x: ops.reshape(x, (16, 8)), "reshape", shape=(16, 8)),
        case("transpose", ops.transpose, "permute_dims", axes=(1, 0)),
        case("expand_dims", lambda x: ops.expand_dims(x, 0), "reshape", shape=(1, 8, 16)),
        case("concat", lambda x: ops.concat([x, y], 1), "concat", y, axis=1),
        case("getitem", lambda x: ops.getitem(x, slice(2, 5))),
        case("take", lambda x: ops.take(x, i, 0), "take", i, axis=0),
    ]


def native_numpy(y: Any, w: Any, v: Any, i: Any, c: Any) -> dict[str, Callable[[Any], Any]]:
    def softmax(x: Any) -> Any:
        e = np.exp(x - x.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def log_softmax(x: Any) -> Any:
        x = x - x.max(1, keepdims=True)
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    def layer_norm(x: Any) -> Any:
        x = x - x.mean(1, keepdims=True)
        return x / np.sqrt(np.square(x).mean(1, keepdims=True) + 1e-3) * v + v

    return {
        "add": lambda x: np.add(x, y),
        "add a bias": lambda x: np.add(x, v),
        "multiply by a number": lambda x: np.multiply(x, 0.5),
        "divide": lambda x: np.divide(x, y),
        "maximum with 0": lambda x: np.maximum(x, 0.0),
        "greater": lambda x: np.greater(x, y),
        "where": lambda x: np.where(c, x, y),
        "astype": lambda x: x.astype("float64"),
        "square": np.square,
        "exp": np.exp,
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0.0),
        "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
        "silu": lambda x: x / (1.0 + np.exp(-x)),
        "softmax": softmax,
        "log_softmax": log_softmax,
        "layer_norm": layer_norm,
        "matmul": lambda x: np.matmul(x, w),
        "matmul with a variable": lambda x: np.matmul(x, w),
        "sum": lambda x: np.sum(x, 1),
        "mean": lambda x: np.mean(x, 1),
        "max": lambda x: np.max(x, 1),
        "argmax": lambda x: np.argmax(x, 1),
        "reshape": lambda x: x.reshape(16, 8),
        "transpose": lambda x: np.transpose(x),
        "expand_dims": lambda x: np.expand_dims(x, 0),
        "concat": lambda x: np.concatenate([x, y], 1),
        "getitem": lambda x: x[2:5],
        "take": lambda x: np.take(x, i, 0),
    }


def native_torch(y: Any, w: Any, v: Any, i: Any, c: Any) -> dict[str, Callable[[Any], Any]]:
    import torch
    import torch.nn.functional as F

    return {
        "add": lambda x: torch.add(x, y),
        "add a bias": lambda x: torch.add(x, v),
        "multiply by a number": lambda x: torch.mul(x, 0.5),
        "divide": lambda x: torch.div(x, y),
        "maximum with 0": lambda x: torch.clamp_min(x, 0.0),
        "greater": lambda x: torch.gt(x, y),
        "where": lambda x: torch.where(c, x, y),
        "astype": lambda x: x.to(torch.float64),
        "square": torch.square,
        "exp": torch.exp,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
        "gelu": F.gelu,
        "softmax": lambda x: torch.softmax(x, 1),
        "log_softmax": lambda x: torch.log_softmax(x, 1),
        "layer_norm": lambda x: F.layer_norm(x, (16,), v, v, 1e-3),
        "matmul": lambda x: torch.matmul(x, w),
        "matmul with a variable": lambda x: torch.matmul(x, w),
        "sum": lambda x: torch.sum(x, 1),
        "mean": lambda x: torch.mean(x, 1),
        "max": lambda x: torch.amax(x, 1),
        "argmax": lambda x: torch.argmax(x, 1),
        "reshape": lambda x: x.reshape(16, 8),
        "transpose": lambda x: x.permute(1, 0),
        "expand_dims": lambda x: x.unsqueeze(0),
        "concat": lambda x: torch.cat([x, y], 1),
        "getitem": lambda x: x[2:5],
        "take": lambda x: torch.index_select(x, 0, i),
    }


def compare_ops(backend: Backend, wanted: Sequence[str], rounds: int, seconds: float) -> None:
    rng = np.random.default_rng(1)
    (x,) = backend.put([rng.normal(size=(8, 16)).astype("float32")], backend.device("cpu"))
    box = Box(x)
    print(f"\n{backend.name:<24}{''.join(f'{c:>8}' for c in COLUMNS)}   beyond native:")
    worst: dict[str, tuple[float, str]] = {}
    for case in cases(backend):
        if wanted and case.name not in wanted:
            continue
        calls: dict[str, Call] = {}
        if backend.name in case.native:
            calls["native"] = lambda f=case.native[backend.name]: f(x)  # type: ignore[misc]
        if case.table is not None and not any(isinstance(a, float) for a in case.table[1]):
            name, args, attrs = case.table
            calls["table"] = lambda f=backend.table[name], a=args, k=attrs: f(x, *a, **k)  # type: ignore[misc]
        calls["eager"] = lambda f=case.ours: f(x)  # type: ignore[misc]
        calls["boxed"] = lambda f=case.ours: f(box)  # type: ignore[misc]
        calls["taped"] = taped(case.ours, x)
        found = timed(calls, rounds, seconds)
        found["taped"] /= TAPE_LENGTH
        columns = [f"{found[k]:8.2f}" if k in found else f"{'-':>8}" for k in COLUMNS]
        base = found.get("native", found.get("table"))
        beyond = {k: found[k] - base for k in COLUMNS[2:]} if base is not None else {}
        differences = "  ".join(f"{k} {v:+.2f}" for k, v in beyond.items())
        print(f"  {case.name:<22}{''.join(columns)}   {differences}", flush=True)
        for kind, difference in beyond.items():
            worst[kind] = max(worst.get(kind, (-1e9, "")), (difference, case.name))
    print("  worst: " + ", ".join(f"{kind} {d:+.2f} ({name})" for kind, (d, name) in worst.items()))


# ---- a step of a small network ----------------------------------------------------------


def compare_steps(backend: Backend, rounds: int, seconds: float) -> None:
    """Loss and gradients of 64 -> 64 -> 10 on 32 samples."""
    rng = np.random.default_rng(2)
    shapes = [(64, 64), (64,), (64, 10), (10,)]
    start = [(rng.normal(size=s) * 0.1).astype("float32") for s in shapes]
    weights = [Variable(a, name=f"w{n}") for n, a in enumerate(start)]
    data = [rng.normal(size=(32, 64)).astype("float32"), rng.integers(0, 10, 32).astype("int32")]
    x, labels = backend.put(data, backend.device("cpu"))

    def loss(a: Any, b: Any, c: Any, d: Any, x: Any, labels: Any) -> Any:
        h = ops.relu(ops.add(ops.matmul(x, a), b))
        return ops.mean(ops.sparse_softmax_cross_entropy(ops.add(ops.matmul(h, c), d), labels))

    def eager() -> Any:
        with GradientTape() as tape:
            y = loss(*weights, x, labels)  # type: ignore[call-arg]
        return tape.gradient(y, weights)

    symbols = [leaf("state", f"w{n}", Spec(s)) for n, s in enumerate(shapes)]
    inputs = [leaf("input", f"x{n}", Spec(a.shape, a.dtype.name)) for n, a in enumerate(data)]
    y = loss(*symbols, *inputs)
    outputs = {"loss": y, **{f"g{n}": g for n, g in enumerate(gradients(y, symbols))}}
    step = compile_graph(Graph(tuple(inputs), tuple(symbols), outputs), backend, backend.device("cpu"))
    state = backend.put(start, backend.device("cpu"))
    calls: dict[str, Call] = {"eager tape": eager, "compiled": lambda: step(state, [x, labels])}
    if backend.name == "torch":
        calls["native autograd"] = native_step(start, x, labels)
    found = timed(calls, rounds, max(seconds, 0.01))
    print(
        f"  loss and gradients of a small network: {', '.join(f'{k} {v:.0f} us' for k, v in found.items())}", flush=True
    )


def native_step(start: Sequence[np.ndarray], x: Any, labels: Any) -> Call:
    import torch
    import torch.nn.functional as F

    a, b, c, d = weights = [torch.tensor(w, requires_grad=True) for w in start]
    long = labels.long()

    def step() -> Any:
        y = F.cross_entropy(torch.relu(x @ a + b) @ c + d, long)
        return torch.autograd.grad(y, weights)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="*", default=[n for n in backend_names() if n in ("numpy", "torch")])
    parser.add_argument("--ops", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--milliseconds", type=float, default=4.0)
    given = parser.parse_args()
    for name in given.backends:
        try:
            backend = get_backend(name)
        except BackendError as error:
            print(f"{name}: {error}")
            continue
        compare_ops(backend, given.ops, given.rounds, given.milliseconds / 1000)
        compare_steps(backend, given.rounds, given.milliseconds / 1000)


if __name__ == "__main__":
    main()
