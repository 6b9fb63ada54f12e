"""Where a difference comes from: the same step from the same state on each engine, op by op, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unilayers import config, ops
from unilayers.autodiff import gradients
from unilayers.backend import get_backend
from unilayers.callbacks import Callback
from unilayers.compare.differences import difference
from unilayers.errors import UnilayersError
from unilayers.graph import Graph, Node, Value, scope
from unilayers.graph.node import LEAVES
from unilayers.models import Model
from unilayers.program import Program, compile_graph, interpret, interpretable, sizes_of
from unilayers.recipe import Recipe
from unilayers.spec import is_float
from unilayers.structure import leaves_of
from unilayers.training import steps
from unilayers.training.steps import Batch
from unilayers.variable import Trace, trace_into

STATE = "state.npz"
OUTPUT, LOSS, GRADIENT, THROUGH = "output of ", "loss", "gradient of ", "gradient through "
COMPILED, OP = "compiled: ", "op "  # in files, before a place, and before the number of an op
SAMPLED = 4096  # numbers of the results of an op that are looked at, evenly spread


@dataclass(frozen=True)
class Traced:
    """How far apart engines are within one step that all begin with the same state and data.

    The step runs twice: op by op, where one that is wrong shows, and compiled, where what compilers join shows. Where
    engines agree in both and not in training, small differences of earlier steps have added up.

    Args:
        step: The step, from 1 on.
        places: By engine, by place: ``output of <layer>`` in the order of the forward pass, ``loss``, then in the order
            of the backward pass ``gradient of <weight>`` and ``gradient through <layer>``, which is what a layer hands
            on to those before it; the difference is ``max |a - b| / max |b|``, op by op.
        compiled: The same of the compiled step.
        problems: Why an engine could not be looked into.
        ops: By engine, the difference of each op's result, as far as a sample of it shows, in the order of the step; by
            number and name, ``12 tanh of bent``, ``31 gradient of tanh of bent: multiply``.
    """

    step: int
    places: Mapping[str, Mapping[str, float]]
    compiled: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    ops: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def first(self, name: str, tolerance: float) -> tuple[str, float] | None:
        """The first place where an engine differs by more than the tolerance, and by how much; or None.

        Args:
            name: Of the engine.
            tolerance: The largest difference that is none.
        """
        compiled = self.compiled.get(name, {})
        found = ((place, max(d, compiled.get(place, 0.0))) for place, d in self.places.get(name, {}).items())
        return next(((place, d) for place, d in found if d > tolerance), None)

    def where(self, name: str, tolerance: float) -> str:
        """The first place and the first op that differ, in words; empty if none does.

        Args:
            name: Of the engine.
            tolerance: The largest difference that is none.
        """
        place, op = self.first(name, tolerance), self.first_op(name, tolerance)
        found = f"first in the {place[0]} ({place[1]:.3g})" if place else ""
        return f"{found}, by the op {op}" if place and op else found

    def first_op(self, name: str, tolerance: float) -> str | None:
        """The first op whose result differs by more than the tolerance, run by itself; or None.

        Args:
            name: Of the engine.
            tolerance: The largest difference that is none.
        """
        found = self.ops.get(name, {}).items()
        return next((op.partition(" ")[2] for op, d in found if d > tolerance), None)


class KeepState(Callback):
    """Keeps state and data before a step in a file, and stops training after it.

    Args:
        step: The step, from 1 on.
        path: The file.
    """

    def __init__(self, step: int, path: Path) -> None:
        self._step, self._path = step, path

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.model.position.step + 1 != self._step:
            return
        program, arrays, _ = self.model._running
        state = {f"state {i}": v.numpy() for i, v in enumerate(program.traced().variables)}
        inputs = {f"input {i}": x for i, x in enumerate(arrays)}
        np.savez(self._path, **state, **inputs)
        self.model.stop_training = True


def look_into(recipe: Recipe, state: Path, found: Path) -> None:
    """Run a step, and keep the outputs of all layers, the loss and all gradients in a file: op by op, then compiled.

    Args:
        recipe: The recipe, with the engine.
        state: What `KeepState` has kept.
        found: The file.
    """
    backend = get_backend(recipe.backend)
    device = backend.device(recipe.device)
    with np.load(state) as file:
        kept = {name: file[name] for name in file.files}
    given, inputs = ([a for name, a in kept.items() if name.startswith(kind)] for kind in ("state", "input"))
    model, data = recipe.build(), recipe.parts()
    with config.dtype_scope(recipe.dtype):
        program = examined(model, model._data(data.train[0][:1], data.train[1][:1]))
    variables, whole = program.variables, program.graph
    inputs = backend.put_as(inputs, [v.dtype for v in whole.inputs], device)
    if len(variables) > len(given):
        raise UnilayersError("the step reads more state than training has", where=recipe.name)

    def place() -> list[Any]:
        return backend.put_as(given[: len(variables)], [v.dtype for v in variables], device)

    arrays: dict[str, Any] = {}
    graph = interpretable(whole, inputs)
    wanted, samples = places_of(graph), dict[str, Any]()
    for node, _, results in interpret(graph, backend, device, place(), inputs):
        made = dict(zip(node.outputs, results, strict=True))
        arrays |= {name: ops.to_numpy(made[v]) for name, v in wanted.items() if v in made}
        if node.op not in LEAVES:
            samples[f"{OP}{len(samples)} {named(node)}"] = np.concatenate([_sample(made[v]) for v in node.outputs])
    whole = replace(whole, outputs=places_of(whole))
    function = compile_graph(whole, backend, device, sizes_of(whole.inputs, [x.shape for x in inputs]))
    _, outputs = function(place(), inputs)
    arrays = {name: arrays[name] for name in wanted}  # in their order
    arrays |= {COMPILED + name: backend.get(outputs[name]) for name in wanted}
    np.savez(found, **arrays, **samples)


def _sample(array: Any) -> np.ndarray:
    """Some of an array's numbers, evenly spread."""
    flat = ops.to_numpy(array).ravel()
    return np.asarray(flat[:: -(-flat.size // SAMPLED) or 1], "float64")


def named(node: Node) -> str:
    """An op and where it comes from, for people.

    Args:
        node: The op.
    """
    around = " of ".join(filter(None, (node.part, node.scope)))
    return f"{around}: {node.op}" if node.part else f"{node.op} of {node.scope}" if node.scope else node.op


def examined(model: Model, batch: Batch) -> Program:
    """A training step without its update, with the gradient of each trained weight among its outputs.

    Args:
        model: A compiled model.
        batch: Data of the form that is trained with.
    """
    objectives = model._objectives
    steps.prepare(model, objectives, batch)
    trace, inputs = Trace(steps.state_of(model, objectives)), steps.symbolic(model, batch)
    trained = model.trainable_weights
    with trace_into(trace):
        outputs = leaves_of(model(inputs.x, training=True))
        terms = [*objectives.total_loss(inputs, outputs), *trace.losses, *model.all_regularization_losses()]
        with scope(part="total"):
            loss = steps.total(terms)
        found = gradients(loss, [trace.leaf(v) for v in trained])
        named = {GRADIENT + v.path: g for v, g in reversed([*zip(trained, found, strict=True)])}
        graph = Graph(tuple(inputs.leaves), tuple(trace.leaves.values()), {LOSS: loss, **named})
    return Program(graph, trace.variables)


def layer_outputs(graph: Graph) -> dict[str, Value]:
    """What each layer gives to what is outside of it, in the order of the forward pass.

    Args:
        graph: A graph whose nodes know where they come from.
    """
    forward = [n for n in graph.nodes if not n.part and n.op not in LEAVES]
    users = [n for n in graph.nodes if n.part in ("", "loss")]
    outside = {*graph.outputs.values(), *(v for n in users for v in n.inputs if v.node.scope != n.scope)}
    found: dict[str, Value] = {}
    for node in forward:
        floats = [v for v in node.outputs if is_float(v.dtype) and v in outside]
        if node.scope and floats:
            found.pop(OUTPUT + node.scope, None)  # the order is that of the last
            found[OUTPUT + node.scope] = floats[0]
    return found


def places_of(graph: Graph) -> dict[str, Value]:
    """Everything that engines are compared by, in the order of a step: outputs of layers, the loss, gradients.

    Args:
        graph: What `examined` gives, or the same specialised.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    gradients = {name: v for name, v in graph.outputs.items() if name != LOSS} | handed_on(graph)
    ordered = sorted(gradients.items(), key=lambda item: order[item[1].node])
    return {**layer_outputs(graph), LOSS: graph.outputs[LOSS], **dict(ordered)}


def handed_on(graph: Graph) -> dict[str, Value]:
    """What each layer, or the loss, hands on in the backward pass to what is before it.

    Args:
        graph: A graph whose nodes know where they come from.
    """
    own, found = set(graph.outputs.values()), dict[Value, str]()
    for node in graph.nodes:
        for v in node.inputs:
            before = v.node
            back = node.part.startswith("gradient") and before.part.startswith("gradient")
            if back and before.scope != node.scope and v not in own and is_float(v.dtype) and before.op not in LEAVES:
                found[v] = THROUGH + (before.scope or "the loss")
    times = Counter[str]()
    places = {}
    for v, name in found.items():
        times[name] += 1
        places[name if times[name] == 1 else f"{name} ({times[name]})"] = v
    return places


def compared(reference: Path, other: Path) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """The difference of two files of `look_into`: at each place op by op, at each compiled, and of each op.

    Args:
        reference: The file that is compared with.
        other: The file that is compared.
    """
    kinds: dict[str, dict[str, float]] = {"": {}, COMPILED: {}, OP: {}}
    with np.load(reference) as a, np.load(other) as b:
        for name in a.files:
            kind = next(kind for kind in (COMPILED, OP, "") if name.startswith(kind))
            kinds[kind][name.removeprefix(kind)] = difference(b[name], a[name])
    return kinds[""], kinds[COMPILED], kinds[OP]
