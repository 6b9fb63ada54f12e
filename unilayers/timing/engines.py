"""Engines and devices side by side: on well-known networks, on matrix products, and fed with data well and badly."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from unilayers import networks
from unilayers.backend import Backend, backend_names, get_backend, version_of
from unilayers.compare.machine import product
from unilayers.compare.process import called
from unilayers.compare.run import check_backends
from unilayers.compare.trace import LOSS, examined
from unilayers.data.pipeline import Pipeline
from unilayers.errors import UnilayersError, nearest
from unilayers.graph import Graph, leaf
from unilayers.graph.passes import specialise
from unilayers.models import Model
from unilayers.program import sizes_of
from unilayers.recipe.cost import flops
from unilayers.timing.clock import Clock, Runner, in_turns, quartiles
from unilayers.timing.layers import check_settings
from unilayers.training import steps
from unilayers.training.steps import Batch

BATCH_SIZE, SECONDS = 16, 2.0
MATMUL, FEEDING = "matmul", "feeding"
SIZES = tuple(2**i for i in range(7, 14))  # rows of matrices
LONGEST = 1.0  # seconds that one product may take


Turns = Callable[[Mapping[Any, Any]], dict[Any, list[float]]]  # `in_turns`, with time and clock


@dataclass(frozen=True)
class Network:
    """A network that is timed.

    Args:
        title: What a reader is told.
        build: Makes it.
        classes: Outputs.
        large: Whether it takes a while on a laptop.
    """

    title: str
    build: Callable[[], Model]
    classes: int = 1000
    large: bool = True


NETWORKS = {
    "mlp": Network("MLP 784-512-512-10", networks.dense, 10, False),
    "convnet": Network("convnet, 28x28", networks.convnet, 10, False),
    "lstm": Network("LSTM(128), 64 steps", networks.recurrent, 10, False),
    "resnet-18-small": Network(
        "ResNet-18 for 32x32", partial(networks.resnet, 18, (32, 32, 3), 10, small=True), 10, False
    ),
    "vgg-16": Network("VGG-16", partial(networks.vgg, 16)),
    "vgg-19": Network("VGG-19", partial(networks.vgg, 19)),
    "resnet-18": Network("ResNet-18", partial(networks.resnet, 18)),
    "resnet-50": Network("ResNet-50", partial(networks.resnet, 50)),
    "resnet-200": Network("ResNet-200", partial(networks.resnet, 200)),
}
GROUPS = {
    "small": [name for name, network in NETWORKS.items() if not network.large],
    "large": [name for name, network in NETWORKS.items() if network.large],
}
CHOICES = (*GROUPS, *NETWORKS, MATMUL, FEEDING)


@dataclass(frozen=True)
class Result:
    """One case on one device of one engine.

    Args:
        case: The network, the size of the matrices, or how data is fed.
        backend: The engine.
        device: The device.
        seconds: By what was timed, of which the last is what ratios are of: lower quartile, median, upper quartile.
        flops: Floating-point operations of the last.
        samples: Of a batch; 0 where there is none.
        problem: Why there are no times; empty if there are.
    """

    case: str
    backend: str
    device: str
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    flops: int = 0
    samples: int = 0
    problem: str = ""

    @property
    def median(self) -> float | None:
        """Seconds of what was timed last, or None."""
        return [*self.seconds.values()][-1][1] if self.seconds else None


@dataclass(frozen=True)
class Bench:
    """Cases of one kind on several engines and devices.

    Args:
        kind: ``networks``, ``matmul`` or ``feeding``.
        results: Case by case.
        environment: Date, processor and versions.
    """

    kind: str
    results: Sequence[Result]
    environment: Mapping[str, Any] = field(default_factory=dict)

    def ratio(self, result: Result) -> float | None:
        """How many times as long as the fastest of its case it takes; of feeding, as the first way on its device.

        Args:
            result: One of the results.
        """
        same = [r for r in self.results if r.case == result.case and r.median]
        if self.kind == FEEDING:
            same = [r for r in self.results if (r.backend, r.device) == (result.backend, result.device) and r.median][
                :1
            ]
        least = min((r.median for r in same if r.median), default=None)
        return result.median / least if result.median and least else None

    def over_cpu(self, result: Result) -> float | None:
        """How many times as long the same engine takes on the CPU, for another device.

        Args:
            result: One of the results.
        """
        cpu = [r for r in self.results if (r.case, r.backend, r.device) == (result.case, result.backend, "cpu")]
        other = result.device != "cpu" and cpu and cpu[0].median and result.median
        return cpu[0].median / result.median if other and cpu[0].median and result.median else None

    def to_plain(self) -> dict[str, Any]:
        """Everything as JSON has it, with the ratios."""
        rows = [{**asdict(r), "ratio": self.ratio(r), "over_cpu": self.over_cpu(r)} for r in self.results]
        return {"kind": self.kind, "environment": dict(self.environment), "results": rows}


def bench(
    what: Sequence[str] = ("small",),
    backends: Sequence[str] | None = None,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    seconds: float = SECONDS,
    clock: str = "wall",
    in_process: bool = False,
    watch: Callable[[str], None] = lambda doing: None,
) -> list[Bench]:
    """Time engines and devices side by side, each engine in fresh processes.

    Of a network, its forward pass with the loss, and this with all gradients, on random pictures: what an optimizer
    adds is not there. Of ``matmul``, products of square matrices in float32. Of ``feeding``, training steps of a small
    network whose data comes in one way or another, see `WAYS`.

    Args:
        what: Names of networks, ``small`` and ``large`` for several, ``matmul``, ``feeding``.
        backends: The engines, each with a device if wanted: ``torch``, ``torch:cuda``; None: all that are installed.
        device: Device of those that are named without one; None: one of each kind that there is.
        batch_size: Samples in a batch; None: 16.
        seconds: How long to time each, more or less.
        clock: See `time_layers`.
        in_process: Time all in this process.
        watch: Called with what is about to be timed.

    Raises:
        UnilayersError: for unknown names, or a batch of no samples. What goes wrong on an engine is in its results.

    Example:
        >>> [found] = bench(["mlp"], ["numpy"], batch_size=2, seconds=0.01, in_process=True)
        >>> [(r.case, r.backend, r.device, [*r.seconds]) for r in found.results]
        [('mlp', 'numpy', 'cpu', ['forward', 'forward + backward'])]
    """
    where = "bench"
    unknown = [name for name in what if name not in CHOICES]
    if unknown:
        raise UnilayersError(f"no benchmark {unknown[0]!r}", where=where, fix=nearest(unknown[0], CHOICES))
    size = BATCH_SIZE if batch_size is None else batch_size
    check_settings(where, size, seconds, clock)
    if backends is not None:
        check_backends(backends, where)
    places = [(name, place or device) for name, _, place in (b.partition(":") for b in backends or backend_names())]
    asked = dict.fromkeys(name for given in what for name in GROUPS.get(given, [given]))
    kinds = {
        "networks": [name for name in asked if name in NETWORKS],
        **{kind: [kind] for kind in (MATMUL, FEEDING) if kind in asked},
    }
    found = []
    for kind, cases in kinds.items():
        results: list[Result] = []
        for case in cases:
            for backend, place in places:
                watch(f"{case} on {backend}{f' ({place})' if place else ''}")
                told: dict[str, Any] = {"case": case, "backend": backend, "device": place, "batch_size": size}
                told |= {"seconds": seconds, "clock": clock}
                made, problem = called(__name__, "measured", told, own=not in_process)
                missing = backends is None and "needs the package" in problem
                if not missing:
                    results += [Result(**r) for r in made or [{**_of(case, backend, place or ""), "problem": problem}]]
        if cases:
            ordered = dict.fromkeys(r.case for r in results)
            results = [r for case in ordered for r in results if r.case == case]
            found.append(Bench(kind, results, _environment([b for b, _ in places], clock)))
    return found


def _of(case: str, backend: str, device: str) -> dict[str, Any]:
    return {"case": case, "backend": backend, "device": device}


def _environment(backends: Sequence[str], clock: str) -> dict[str, Any]:
    """Date, processor, versions, and variables that decide on threads and kernels. Engines are not imported."""
    packages = {name: version_of(name) for name in dict.fromkeys(("unilayers", "numpy", *backends))}
    told = {k: v for k, v in sorted(os.environ.items()) if k.endswith("_THREADS") or k.startswith("OPENBLAS_")}
    return {
        "date": date.today().isoformat(), "processor": processor(), "cpu_count": os.cpu_count(),
        "clock": clock, "python": platform.python_version(), **{k: v for k, v in packages.items() if v}, **told,
    }  # fmt: skip


def processor() -> str:
    """The model of the processor."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


# ---- in a process ---------------------------------------------------------------------------------------------------


def measured(
    case: str, backend: str, device: str | None, batch_size: int, seconds: float, clock: str = "wall"
) -> list[dict[str, Any]]:
    """What a process does: the results of a case on one device of an engine, or on one of each kind, as JSON has it."""
    engine = get_backend(backend)
    there = {d.partition(":")[0]: d for d in reversed(engine.devices())} if device is None else {"": device}
    measure = {MATMUL: _products, FEEDING: _ways}.get(case, _network)
    found: list[Result] = []
    for place in map(engine.device, reversed(there.values())):
        try:
            found += measure(case, engine, place, batch_size, partial(in_turns, seconds=seconds, clock=clock))
        except Exception as error:  # a device that has too little memory, say: the others are timed nevertheless
            text = " ".join(f"{type(error).__name__}: {error}".split())
            found.append(Result(case, engine.name, place, problem=text[:300]))
    return [asdict(result) for result in found]


def _network(case: str, backend: Backend, device: str, batch_size: int, turns: Turns) -> Iterator[Result]:
    model, batch = _made(case, batch_size)
    program = examined(model, batch)
    whole = specialise(program.graph, sizes_of(program.graph.inputs, [a.shape for a in batch.leaves]))
    inputs = backend.put_as(batch.leaves, [v.dtype for v in whole.inputs], device)
    hosts = {v.node.attrs["name"]: x.numpy() for v, x in zip(whole.state, program.variables, strict=True)}
    graphs = {"forward": replace(whole, outputs={LOSS: whole.outputs[LOSS]}), "forward + backward": whole}
    times = {}
    for name, graph in graphs.items():
        times[name] = quartiles(turns({name: Runner(keeping(graph), backend, device, inputs, hosts)})[name])
    yield Result(case, backend.name, device, times, flops(whole, {}), batch_size)


def _made(case: str, batch_size: int) -> tuple[Model, Batch]:
    """A network, compiled, and a batch of random data."""
    network, rng = NETWORKS[case], np.random.default_rng(0)
    model = network.build()
    model.compile("sgd", _crossentropy())
    shape = model.input_shape[1:]
    x = rng.random((batch_size, *shape), dtype=np.float32)
    return model, Batch(x, rng.integers(0, network.classes, batch_size).astype("int32"))


def _crossentropy() -> Any:
    from unilayers.losses import SparseCategoricalCrossentropy

    return SparseCategoricalCrossentropy(from_logits=True)


def keeping(graph: Graph) -> Graph:
    """The graph with its outputs written into state, where memory is there already, as in training.

    Args:
        graph: Specialised; it updates nothing.
    """
    kept = {f"kept {name}": v for name, v in graph.outputs.items()}
    slots = [leaf("state", name, v.spec) for name, v in kept.items()]
    return Graph(graph.inputs, (*graph.state, *slots), {}, kept)


def _products(case: str, backend: Backend, device: str, batch_size: int, turns: Turns) -> Iterator[Result]:
    for size in SIZES:
        run = product(backend, device, size, "float32")
        times = quartiles(turns({size: Calls(run)})[size])
        yield Result(str(size), backend.name, device, {"product": times}, 2 * size**3)
        if 8 * times[1] > LONGEST:
            return


class Calls:
    """A function that is timed in turns with others.

    Args:
        function: What is called; it returns when everything is done.
        steps: How many steps it does.
    """

    def __init__(self, function: Callable[[], None], steps: int = 1) -> None:
        self._function, self._steps = function, steps
        function()  # what is made at the first call

    def run(self, now: Clock = time.perf_counter) -> float:
        """Seconds of a step by a clock."""
        start = now()
        self._function()
        return (now() - start) / self._steps


# ---- feeding --------------------------------------------------------------------------------------------------------

FED, STEPS = "mlp", 16  # the network, steps of a run
READY, MEMORY, HOST, FILE, AHEAD = (
    "batches on the device",
    "batches from memory",
    "weights through the host",
    "batches from files",
    "batches from files, read ahead",
)
WAYS = {
    READY: "The batches lie on the device: nothing is fed. What the others are compared with.",
    MEMORY: "NumPy arrays, copied to the device at each step: what `fit` does with arrays.",
    HOST: "As before, and at each step all weights are fetched as NumPy arrays and set again.",
    FILE: "A compressed file for each batch, opened and read when the step wants it.",
    AHEAD: "The same files, read by a thread while the steps before are computed (`Pipeline.prefetch`).",
}


def _ways(case: str, backend: Backend, device: str, batch_size: int, turns: Turns) -> Iterator[Result]:
    model, batch = _made(FED, batch_size)
    program = steps.train_program(model, model._objectives, batch)
    store = program.place(backend, device, steps.state_of(model, model._objectives))
    ready = backend.put_as(batch.leaves, [v.dtype for v in program.graph.inputs], device)

    def step(arrays: Sequence[Any]) -> None:
        program.run(store, arrays)

    def through_host() -> None:
        step(batch.leaves)
        model.set_weights(model.get_weights())

    def over(batches: Pipeline) -> Callable[[], None]:
        def go() -> None:
            for arrays in batches:
                step(arrays)
            backend.synchronize()

        return go

    def times(function: Callable[[], None]) -> Callable[[], None]:
        def go() -> None:
            for _ in range(STEPS):
                function()
            backend.synchronize()

        return go

    with _files(batch) as from_files:
        runs = {
            READY: times(lambda: step(ready)),
            MEMORY: times(lambda: step(batch.leaves)),
            HOST: times(through_host),
            FILE: over(from_files),
            AHEAD: over(from_files.prefetch(4)),
        }
        found = turns({way: Calls(run, STEPS) for way, run in runs.items()})
    operations = flops(program.graph, sizes_of(program.graph.inputs, [a.shape for a in batch.leaves]))
    for way, each in found.items():
        yield Result(way, backend.name, device, {"step": quartiles(each)}, operations, batch_size)


@contextmanager
def _files(batch: Batch) -> Iterator[Pipeline]:
    """Batches that lie in a file each, for so many steps as are timed together."""
    with TemporaryDirectory() as folder:
        names = ("x", "y")
        for i in range(STEPS):
            np.savez_compressed(Path(folder, f"{i}.npz"), **dict(zip(names, batch.leaves, strict=True)))

        def load(i: int) -> tuple[Any, ...]:
            with np.load(Path(folder, f"{i}.npz")) as file:
                return tuple(file[name] for name in names)

        yield Pipeline.of_samples(STEPS, load)
