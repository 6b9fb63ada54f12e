"""How long each layer takes in a training step, forward and backward, and how long it must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from unilayers import config
from unilayers.backend import Backend, get_backend, node_runner
from unilayers.compare.machine import CLOCKS, Machine, machine
from unilayers.compare.process import called
from unilayers.compare.run import check_backends, named
from unilayers.errors import UnilayersError, nearest
from unilayers.graph import Graph, Value
from unilayers.graph.passes import eliminate_common, optimise, simplify, specialise
from unilayers.models import Model
from unilayers.program import compile_graph, sizes_of
from unilayers.recipe import Recipe, load_recipe
from unilayers.recipe.run import environment_of
from unilayers.structure import map_structure
from unilayers.timing.clock import Runner, empty, in_turns, quartiles
from unilayers.timing.cut import BACKWARD, FORWARD, Key, cut, layers_of
from unilayers.training import steps

SECONDS = 5.0
STEP, CALL = ("step", ""), ("call", "")  # beside the pieces


@dataclass(frozen=True)
class Part:
    """One direction of a layer.

    Args:
        seconds: Lower quartile, median, upper quartile.
        flops: Floating-point operations.
        bytes: Bytes that come in and go out.
        floor: Seconds below which the machine cannot do it, see `Machine`.
    """

    seconds: Sequence[float] = (0.0, 0.0, 0.0)
    flops: int = 0
    bytes: int = 0
    floor: float = 0.0

    @property
    def median(self) -> float:
        """Seconds."""
        return self.seconds[1]

    @property
    def distance(self) -> float | None:
        """How many times the floor it takes; None where there is nothing to do."""
        return self.median / self.floor if self.floor else None


@dataclass(frozen=True)
class Row:
    """A layer, or what is in a step besides layers.

    Args:
        name: The layer's path; ``[loss]`` with what is outside of layers, ``[optimizer]``, ``[metrics]``.
        kind: The layer's class; empty for what is no layer.
        forward: There; of optimizer and metrics all they do.
        backward: And back: gradients for its inputs and its weights.
    """

    name: str
    kind: str
    forward: Part
    backward: Part

    @property
    def median(self) -> float:
        """Seconds of both."""
        return self.forward.median + self.backward.median

    @property
    def flops(self) -> int:
        """Floating-point operations of both."""
        return self.forward.flops + self.backward.flops


@dataclass(frozen=True)
class Timing:
    """Where the time of a training step goes on one engine.

    Args:
        name: What reports call it: the engine, with the device where one was asked for.
        model: The model's name.
        batch_size: Samples in the batch.
        rows: The parts of the step, in the order of the forward pass.
        step: Seconds of the whole step, compiled as training does: lower quartile, median, upper quartile.
        call: Seconds of a call that computes nothing; they are taken off the time of every part.
        machine: What the engine reaches on the device at best.
        environment: What the numbers depend on.
        problem: Why there are none; empty if there are.
    """

    name: str
    model: str
    batch_size: int
    rows: Sequence[Row] = ()
    step: Sequence[float] = (0.0, 0.0, 0.0)
    call: float = 0.0
    machine: Machine | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def total(self) -> float:
        """Seconds of all parts, each run by itself."""
        return sum(row.median for row in self.rows)

    @property
    def flops(self) -> int:
        """Floating-point operations of the step."""
        return sum(row.flops for row in self.rows)

    def share(self, row: Row) -> float:
        """The share of a row in the time of all.

        Args:
            row: One of the rows.
        """
        return row.median / self.total if self.total else 0.0

    def to_plain(self) -> dict[str, Any]:
        """Everything as JSON has it, with figures that follow from the rest."""
        rows = []
        for row in self.rows:
            parts = {way: {**asdict(p), "distance": p.distance} for way, p in _ways(row)}
            rows.append({"name": row.name, "kind": row.kind, "share": self.share(row), **parts})
        return {**asdict(self), "rows": rows, "total": self.total, "flops": self.flops}

    @classmethod
    def from_plain(cls, document: Mapping[str, Any]) -> Timing:
        """What ``to_plain`` has given.

        Args:
            document: A dictionary.
        """

        def part(found: Mapping[str, Any]) -> Part:
            return Part(**{k: v for k, v in found.items() if k != "distance"})

        rows = [Row(r["name"], r["kind"], part(r[FORWARD]), part(r[BACKWARD])) for r in document["rows"]]
        own = {k: v for k, v in document.items() if k not in ("total", "flops", "rows", "machine")}
        return cls(**own, rows=rows, machine=document["machine"] and Machine(**document["machine"]))


def _ways(row: Row) -> list[tuple[str, Part]]:
    return [(FORWARD, row.forward), (BACKWARD, row.backward)]


def time_layers(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    seconds: float = SECONDS,
    clock: str = "wall",
    name: str | None = None,
) -> Timing:
    """Time every layer of a compiled model in a training step on one batch, and the step as a whole.

    The step is traced and lowered for the engine as ``fit`` does it, then cut: what a layer does forward is a graph of
    its own, what it does backward (the gradients for its inputs and weights) another, and so are loss, optimizer and
    metrics. Each is compiled by itself and run with the values that it has in the step, in turns with the
    others. So a part is timed in the company of nothing else: what an engine gains by computing neighbours together
    (an addition inside the loop of the next layer) shows as a step that is shorter than the sum of its parts.

    A layer that only gives data another shape has nothing to compute, and no row. Nothing is trained: the model is as
    it was.

    Args:
        model: A compiled model.
        x: Inputs of one batch.
        y: Its targets.
        backend: The engine; None: as the model was compiled.
        device: A device of it; None: its first.
        seconds: How long to time, more or less.
        clock: ``wall``; ``processor``, the time that all threads of the process have had: on a machine that others use
            it says, with one thread, what that would need on a quiet one. It sees nothing of what a GPU does.
        name: What reports call it; the engine's name if None.

    Raises:
        UnilayersError: for data that does not fit the model, or a model with nothing to minimise.

    Example:
        >>> from unilayers import Input, Sequential, layers
        >>> model = Sequential([Input((20,)), layers.Dense(30, "relu", name="hidden"), layers.Dense(1, name="last")])
        >>> model.compile("adam", "mse")
        >>> found = time_layers(model, np.zeros((8, 20)), np.zeros((8, 1)), backend="numpy", seconds=0.1)
        >>> [row.name for row in found.rows], found.rows[0].forward.flops
        (['hidden', 'last', '[loss]', '[optimizer]', '[metrics]'], 10080)
    """
    engine = get_backend(backend or model._place[0])
    place = engine.device(device or (None if backend else model._place[1]))
    batch = model._data(x, y)
    program = steps.train_program(model, model._objectives, batch)
    arrays = engine.put_as(batch.leaves, [v.dtype for v in program.graph.inputs], place)
    graph = specialise(program.graph, sizes_of(program.graph.inputs, [a.shape for a in arrays]))
    kinds = layers_of(model)
    counted = cut(simplify(eliminate_common(graph)), kinds)  # the same on every engine
    lowered = optimise(graph, engine.table, node_runner(engine, place))
    hosts = {v.node.attrs["name"]: variable.numpy() for v, variable in zip(graph.state, program.variables, strict=True)}
    runners = _runners(lowered, kinds, engine, place, arrays, hosts)
    times = in_turns(runners, seconds, clock)
    calls = times[CALL]
    best = machine(engine.name, place, model.compute_dtype, clock)

    def part(key: Key) -> Part:
        if key not in counted:
            return Part()
        piece = counted[key]
        own = [max(0.0, t - c) for t, c in zip(times.get(key, calls), calls, strict=True)]
        return Part(quartiles(own), piece.flops, piece.bytes, best.floor(piece.flops, piece.bytes))

    names = dict.fromkeys(row for way in (FORWARD, BACKWARD) for row, w in counted if w == way)
    ordered = sorted(names, key=lambda row: row.startswith("["))
    rows = [Row(row, kinds.get(row, ""), part((row, FORWARD)), part((row, BACKWARD))) for row in ordered]
    return Timing(
        name or engine.name, model.name or "", len(batch.leaves[0]), rows, quartiles(times[STEP]), quartiles(calls)[1],
        best, environment_of(engine.name, place),
    )  # fmt: skip


def _runners(
    graph: Graph, rows: Mapping[str, str], backend: Backend, device: str, inputs: list[Any], state: dict[str, Any]
) -> dict[Key, Runner]:
    """What is timed: each piece with the values that it has in the step, the step, and an empty call."""
    pieces = cut(graph, rows)
    across = dict.fromkeys(v for piece in pieces.values() for v in piece.takes if v.node.op != "input")
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
    if across:
        looked = replace(graph, outputs={str(i): v for i, v in enumerate(across)}, updates={})
        placed = backend.put_as([*state.values()], [v.dtype for v in graph.state], device)
        _, found = compile_graph(looked, backend, device)(placed, inputs)
        values |= {v: found[str(i)] for i, v in enumerate(across)}
    leaves = {v.node.attrs["name"]: v for v in graph.state}
    runners = {
        key: Runner(piece.graph(leaves), backend, device, [values[v] for v in piece.takes], state)
        for key, piece in pieces.items()
    }
    whole = Runner(graph, backend, device, inputs, state, again=True)
    return {CALL: empty(backend, device), STEP: whole, **runners}


# ---- recipes --------------------------------------------------------------------------------------------------------


def time_recipe(
    recipe: Recipe | str | PathLike[str],
    backends: Sequence[str],
    *,
    device: str | None = None,
    batch_size: int | None = None,
    seconds: float = SECONDS,
    clock: str = "wall",
    in_process: bool = False,
) -> list[Timing]:
    """Time the layers of a recipe's model on several engines, each in a fresh process; see `time_layers`.

    Args:
        recipe: The recipe, or what ``load_recipe`` takes.
        backends: The engines, each with a device if wanted: ``torch``, ``torch:cuda``.
        device: Device of those that are named without one; None: the recipe's.
        batch_size: Samples in the batch; None: as the recipe says. Data is repeated where there is too little.
        seconds: How long to time on each, more or less.
        clock: See `time_layers`.
        in_process: Time all in this process.

    Raises:
        UnilayersError: for names that are no engines. What goes wrong on an engine is its timing's ``problem``.

    Example:
        >>> [found] = time_recipe("digits-mlp", ["numpy"], batch_size=4, seconds=0.1, in_process=True)
        >>> found.batch_size, found.rows[-1].name, found.problem
        (4, '[metrics]', '')
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_backends(backends, "time")
    size = loaded.batch_size if batch_size is None else batch_size
    check_settings("time", size, seconds, clock)
    found = []
    for name, backend, place in named(backends, device):
        resolved = loaded.changed(f"backend={backend}", *([f"device={place}"] if place else []))
        told = {
            "text": resolved.to_yaml(), "allow_imports": loaded.allow_imports, "size": size, "seconds": seconds,
            "folder": loaded.folder and str(loaded.folder), "clock": clock, "name": name,
        }  # fmt: skip
        result, problem = called(__name__, "timed", told, own=not in_process)
        empty = Timing(name, loaded.name, size, environment={"backend": backend, "device": place}, problem=problem)
        found.append(empty if problem else Timing.from_plain(result))
    return found


def check_settings(where: str, batch_size: int, seconds: float, clock: str) -> None:
    """Raise a ``UnilayersError`` for a batch of no samples, no time to measure in, or no clock.

    Args:
        where: What the error begins with.
        batch_size: Samples in a batch.
        seconds: How long to time.
        clock: The clock's name.
    """
    if batch_size < 1 or not seconds > 0:
        raise UnilayersError(
            "nothing to time", where=where, expected="at least one sample and more than no seconds",
            received=f"batch_size={batch_size}, seconds={seconds}",
        )  # fmt: skip
    if clock not in CLOCKS:
        raise UnilayersError(f"no clock {clock!r}", where=where, fix=nearest(clock, CLOCKS))


def timed(text: str, allow_imports: bool, folder: str | None, size: int, **told: Any) -> dict[str, Any]:
    """What a process does: the timing of a resolved recipe's model, as JSON has it."""
    recipe = Recipe(text, allow_imports=allow_imports, folder=None if folder is None else Path(folder))
    model, data = recipe.build(), recipe.parts().train
    x, y = (map_structure(lambda a: a[np.arange(size) % len(a)], part) for part in data)
    with config.dtype_scope(recipe.dtype):
        return time_layers(model, x, y, **told).to_plain()
