"""Where a difference comes from: the same step from the same state on each engine, op by op, layer by layer."""

from __future__ import annotations

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
from unilayers.graph import Graph, Value, scope
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
OUTPUT, LOSS, GRADIENT = "output of ", "loss", "gradient of "
COMPILED = "compiled: "  # in files, before a place


@dataclass(frozen=True)
class Traced:
    """How far apart engines are within one step that all begin with the same state and data.

    The step runs twice: op by op, where one that is wrong shows, and compiled, where what compilers join shows. Where
    engines agree in both and not in training, small differences of earlier steps have added up.

    Args:
        step: The step, from 1 on.
        places: By engine, by place: ``output of <layer>`` in the order of the forward pass, ``loss``, ``gradient of
            <weight>`` in the order of the backward pass; the difference is ``max |a - b| / max |b|``, op by op.
        compiled: The same of the compiled step.
        problems: Why an engine could not be looked into.
    """

    step: int
    places: Mapping[str, Mapping[str, float]]
    compiled: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    def first(self, name: str, tolerance: float) -> tuple[str, float] | None:
        """The first place where an engine differs by more than the tolerance, and by how much; or None.

        Args:
            name: Of the engine.
            tolerance: The largest difference that is none.
        """
        compiled = self.compiled.get(name, {})
        found = ((place, max(d, compiled.get(place, 0.0))) for place, d in self.places.get(name, {}).items())
        return next(((place, d) for place, d in found if d > tolerance), None)


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
    wanted = {**layer_outputs(graph), **graph.outputs}
    for node, _, results in interpret(graph, backend, device, place(), inputs):
        made = dict(zip(node.outputs, results, strict=True))
        arrays |= {name: ops.to_numpy(made[v]) for name, v in wanted.items() if v in made}
    whole = replace(whole, outputs={**layer_outputs(whole), **whole.outputs})
    function = compile_graph(whole, backend, device, sizes_of(whole.inputs, [x.shape for x in inputs]))
    _, outputs = function(place(), inputs)
    arrays = {name: arrays[name] for name in wanted}  # in their order
    arrays |= {COMPILED + name: backend.get(outputs[name]) for name in wanted}
    np.savez(found, **arrays)


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


def compared(reference: Path, other: Path) -> tuple[dict[str, float], dict[str, float]]:
    """The difference at each place of two files of `look_into`: op by op, and compiled.

    Args:
        reference: The file that is compared with.
        other: The file that is compared.
    """
    with np.load(reference) as a, np.load(other) as b:
        found = {name: difference(b[name], a[name]) for name in a.files}
    compiled = {name.removeprefix(COMPILED): d for name, d in found.items() if name.startswith(COMPILED)}
    return {name: d for name, d in found.items() if not name.startswith(COMPILED)}, compiled
