"""The graphs of training: forward, loss, gradients, optimizer update and metric update traced into ONE graph."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unilayers import losses, metrics, ops
from unilayers.autodiff import gradients
from unilayers.config import dtype_scope
from unilayers.errors import UnilayersError
from unilayers.graph import Value, leaf, scope
from unilayers.layers.base import training_phase
from unilayers.program import Program
from unilayers.spec import Dim, DimLike, Spec, is_float
from unilayers.structure import leaves_of, map_structure, pack_like
from unilayers.variable import Trace, Variable, current_trace, trace_into

if TYPE_CHECKING:
    from unilayers.models.model import Model


@dataclass
class Batch:
    """The data of one step: arrays, or the symbolic inputs that stand for them.

    Args:
        x: Model inputs, in the model's structure.
        y: Targets, one per output, or nothing.
        weight: Per-sample weights, one per output, or nothing.
    """

    x: Any
    y: Any = None
    weight: Any = None

    @property
    def leaves(self) -> list[Any]:
        return [v for v in (*leaves_of(self.x), *leaves_of(self.y), *leaves_of(self.weight)) if v is not None]

    @property
    def signature(self) -> tuple[Any, ...]:
        """What a traced graph depends on: presence, rank, feature sizes and dtypes, not the batch size."""
        return _form(self.x), _form(self.y), _form(self.weight)


def packed(batch: Batch) -> Any:
    """A batch as a model's own steps take it: x alone (``(x,)`` if it is a list), ``(x, y)``, or ``(x, y, weight)``."""
    if batch.weight is not None:
        return batch.x, batch.y, batch.weight
    if batch.y is not None:
        return batch.x, batch.y
    return (batch.x,) if isinstance(batch.x, (list, tuple)) else batch.x


def _form(part: Any) -> Any:
    """The nesting of data, with the shape of a sample and the dtype of each array."""
    if isinstance(part, Mapping):
        return tuple((k, _form(x)) for k, x in part.items())
    if isinstance(part, (list, tuple)):
        return tuple(map(_form, part))
    return None if part is None else (tuple(ops.shape_of(part)[1:]), ops.dtype_of(part))


def inputs_like(structure: Any, prefix: str, float_dtype: str, batch: DimLike | None = None) -> Any:
    """Fresh graph inputs ``prefix0``, ``prefix1``... for arrays: batch size left open unless given, floats in one
    dtype."""
    number = iter(range(1000))

    def fresh(array: Any) -> Value | None:
        if array is None:
            return None
        size = Dim.symbol("batch") if batch is None else batch
        spec = Spec((size, *ops.shape_of(array)[1:]), _input_dtype(array, float_dtype))
        return leaf("input", f"{prefix}{next(number)}", spec)

    return map_structure(fresh, structure)


def _input_dtype(array: Any, float_dtype: str) -> str:
    dtype = ops.dtype_of(array)
    return float_dtype if is_float(dtype) else dtype


def input_dtypes(model: Model, batch: Batch) -> list[str]:
    """The dtypes that a step takes the leaves of a batch in."""
    taken = batch.x if model.graph_inputs is None else model.graph_inputs
    declared = [v.dtype if isinstance(v, Value) else _input_dtype(v, model.data_dtype) for v in leaves_of(taken)]
    others = Batch(None, batch.y, batch.weight).leaves
    return [*declared, *(_input_dtype(v, model.data_dtype) for v in others)]


def sized(inputs: Any, data: Batch) -> Any:
    """Inputs with the sizes of the data, but for the batch's, where symbols could not be compared: several inputs of
    unknown sizes, or targets for each step of one. A program is traced for each form of data anyway."""

    def unknown(value: Value) -> bool:
        return any(isinstance(d, Dim) for d in value.shape[1:])

    def one(value: Value, array: Any) -> Value:
        shape = (value.shape[0], *ops.shape_of(array)[1:])
        fits = unknown(value) and len(shape) == value.ndim
        return leaf("input", value.node.attrs["name"], Spec(shape, value.dtype)) if fits else value

    stepwise = any(len(ops.shape_of(y)) > 2 for y in leaves_of(data.y) if y is not None)
    several = sum(map(unknown, leaves_of(inputs))) > 1
    return pack_like(inputs, map(one, leaves_of(inputs), leaves_of(data.x))) if several or stepwise else inputs


def symbolic(model: Model, batch: Batch) -> Batch:
    """Graph inputs for a batch of data: the model's declared inputs, targets and weights as they come."""
    dtype, x = model.data_dtype, model.input_leaves(batch.x)
    x = sized(x, batch)
    size = leaves_of(x)[0].shape[0]  # a model may declare the size of its batches
    return Batch(x, inputs_like(batch.y, "y", dtype, size), inputs_like(batch.weight, "weight", dtype, size))


# ---- what compile() was told ------------------------------------------------


@dataclass
class Objectives:
    """The losses and metrics of a compiled model, lined up with its outputs.

    Args:
        loss: A loss, or a list or dict of them, as given to ``compile``.
        metrics: Metrics of all outputs, or a list or dict of lists.
        loss_weights: Factor of each output's loss.
        weighted_metrics: Metrics that take the sample weights into account; the others do not.
    """

    loss: Any = None
    metrics: Any = None
    loss_weights: Any = None
    weighted_metrics: Any = None
    names: list[str] = field(default_factory=list)
    resolved_losses: list[Any] = field(default_factory=list)
    resolved_metrics: list[list[tuple[Any, bool]]] = field(default_factory=list)
    tracked: list[Any] = field(default_factory=list)
    built: bool = False

    def build(self, names: Sequence[str], y: Any, outputs: Sequence[Any], tracked: Sequence[Any] = ()) -> None:
        """Resolve losses and metrics, once the outputs are known.

        Args:
            names: Names of the outputs.
            y: Targets.
            outputs: The outputs.
            tracked: Metrics that layers keep themselves.
        """
        if self.built:
            return
        self.names = list(names)
        targets = _aligned(y, self.names)
        given = _per_output(self.loss, self.names, "loss", spread=False)
        self.resolved_losses = [losses.get(*one) for one in zip(given, targets, outputs, strict=True)]
        self.weights = [
            1.0 if w is None else float(w)
            for w in _per_output(self.loss_weights, self.names, "loss_weights", spread=False)
        ]
        plain = _per_output(self.metrics, self.names, "metrics", spread=True)
        weighted = _per_output(self.weighted_metrics, self.names, "weighted_metrics", spread=True)
        self.resolved_metrics = [
            [(metrics.get(m, y_true=t, y_pred=p), wants) for given, wants in pairs for m in _as_list(given)]
            for pairs, t, p in zip(_flagged(plain, weighted), targets, outputs, strict=True)
        ]
        self.loss_tracker = metrics.Mean(name="loss")
        told = [m for group in self.resolved_metrics for m, _ in group]
        self.tracked = [m for m in tracked if all(m is not other for other in told)]
        self.built = True

    @property
    def all_metrics(self) -> list[tuple[str, Any]]:
        """The loss tracker and every metric, with the names they have in logs; of one name, they are numbered."""
        if not self.built:
            return []
        found: dict[str, Any] = {"loss": self.loss_tracker}
        for output, group in zip(self.names, self.resolved_metrics, strict=True):
            prefix = f"{output}_" if len(self.names) > 1 else ""
            for metric, weighted in group:
                name = f"{prefix}{metric.name}"
                if weighted and name in found:
                    name = f"{prefix}weighted_{metric.name}"
                found[_free(name, found)] = metric
        for metric in self.tracked:
            found[_free(metric.name, found)] = metric
        return list(found.items())

    @scope(part="loss")
    def total_loss(self, batch: Batch, outputs: Sequence[Any]) -> list[Any]:
        """The weighted loss of each output."""
        targets = _aligned(batch.y, self.names)
        weights = _aligned(batch.weight, self.names)
        terms = []
        for i, (loss, y_pred) in enumerate(zip(self.resolved_losses, outputs, strict=True)):
            if loss is None:
                continue
            if targets[i] is None:
                raise UnilayersError(
                    "no targets for an output with a loss", where=f"output {self.names[i]!r}", fix="Pass y to fit"
                )
            value = loss(targets[i], y_pred, sample_weight=weights[i])
            terms.append(value * self.weights[i] if self.weights[i] != 1.0 else value)
        return terms

    @scope(part="metrics")
    def track_loss(self, batch: Batch, loss: Any, size: Any = None) -> None:
        """Take the loss of a batch into its running mean; ``size`` is the batch's as a scalar, if that is at hand."""
        if size is None:
            size = ops.size(batch.leaves[0], (0,), ops.dtype_of(loss))
            size = size if isinstance(size, Value) else float(size)
        self.loss_tracker.update_state(loss, sample_weight=size)

    @scope(part="metrics")
    def update_metrics(self, batch: Batch, outputs: Sequence[Any]) -> None:
        """Take one batch into the running values of the metrics."""
        targets, weights = _aligned(batch.y, self.names), _aligned(batch.weight, self.names)
        for group, y_true, y_pred, w in zip(self.resolved_metrics, targets, outputs, weights, strict=True):
            for metric, takes_weights in group:
                metric.update_state(y_true, y_pred, sample_weight=w if takes_weights else None)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    names = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
    return next(n for n in names if n not in taken)


def _flagged(plain: Sequence[Any], weighted: Sequence[Any]) -> list[list[tuple[Any, bool]]]:
    """Per output, what was given as metrics and as weighted metrics, with a flag for the second."""
    return [[(a, False), (b, True)] for a, b in zip(plain, weighted, strict=True)]


def _as_list(x: Any) -> list[Any]:
    return [] if x is None else list(x) if isinstance(x, (list, tuple)) else [x]


def _per_output(given: Any, names: Sequence[str], what: str, *, spread: bool) -> list[Any]:
    """One entry per output from a list, a dict by output name, or a single value."""
    if isinstance(given, Mapping) and (len(names) > 1 or set(given) <= set(names)):
        unknown = [k for k in given if k not in names]
        if unknown:
            raise UnilayersError(
                f"no output is called {unknown[0]!r}", where=f"compile({what}=...)", expected=str(list(names))
            )
        return [given.get(n) for n in names]
    if len(names) == 1:
        single = isinstance(given, (list, tuple)) and len(given) == 1 and not spread
        return [given[0] if single else given]
    if isinstance(given, (list, tuple)) and len(given) == len(names):
        return list(given)
    if given is None:
        return [None] * len(names)
    if isinstance(given, (list, tuple)):
        raise UnilayersError(
            f"{len(given)} entries for {len(names)} outputs", where=f"compile({what}=...)", expected=str(list(names))
        )
    return [given] * len(names)


def _aligned(data: Any, names: Sequence[str]) -> list[Any]:
    """Targets or weights in the order of the outputs."""
    if isinstance(data, Mapping):
        return [data.get(n) for n in names]
    found = leaves_of(data)
    return found if len(found) == len(names) else [found[0] if len(found) == 1 else None] * len(names)


def output_names(model: Model, outputs: Any) -> list[str]:
    """Names of the outputs: dict keys, the layers that made them, or ``output_0``..."""
    if isinstance(outputs, dict):
        return list(outputs)
    made = model.output_layers
    names = [f"output_{i}" if layer is None else str(layer.name) for i, layer in enumerate(made)]
    count = len(leaves_of(outputs))
    return names if len(names) == count == len(set(names)) else [f"output_{i}" for i in range(count)]


# ---- tracing ----------------------------------------------------------------


def prepare(model: Model, objectives: Objectives, batch: Batch) -> None:
    """Create everything a training graph reads: weights, metrics, optimizer slots. Nothing runs."""
    model.ensure_built(batch.x)
    inputs = symbolic(model, batch)
    with trace_into(Trace()), training_phase(False):
        outputs = model(inputs.x)
    complete(model, objectives, inputs.y, outputs)


def complete(model: Model, objectives: Objectives, y: Any, outputs: Any) -> None:
    """Create metrics and optimizer slots, once there are weights and outputs."""
    if not objectives.built:
        with dtype_scope(model.data_dtype):  # running sums keep what the model computes with
            objectives.build(output_names(model, outputs), y, leaves_of(outputs), model.tracked_metrics)
    if model._awaited:
        model._resume_values(model._awaited)
    if model.optimizer is not None and not model.optimizer.variables:
        model.optimizer.build(model.trainable_weights)


def total(terms: Sequence[Any]) -> Any:
    """The sum of the terms of a loss; 0 if there are none."""
    if not terms:
        return ops.zeros(())
    loss = terms[0]
    for term in terms[1:]:
        loss = ops.add(loss, term)
    return loss


def require_terms(model: Model, terms: Sequence[Any]) -> None:
    """Raise a ``UnilayersError`` if there is nothing to minimise."""
    if not terms:
        raise UnilayersError(
            "nothing to minimise", where=model.where, fix="Pass a loss to compile, or add_loss in a layer"
        )


def state_of(model: Model, objectives: Objectives | None) -> list[Variable]:
    """All state of a model in storage order: trained weights first, so that they and each kind of slot lie together."""
    trained = model.trainable_weights
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    sums = [v for _, m in objectives.all_metrics for v in m.variables] if objectives else []
    return list(dict.fromkeys([*trained, *model.variables, *optimizer, *sums]))


def train_program(model: Model, objectives: Objectives, batch: Batch) -> Program:
    """One training step: ``(state, batch) -> (state', {"loss": ...})``."""
    prepare(model, objectives, batch)
    trace = Trace(state_of(model, objectives))
    inputs = symbolic(model, batch)
    trained = model.trainable_weights
    with trace_into(trace):
        outputs = leaves_of(model(inputs.x, training=True))
        loss = learn(model, objectives, inputs, outputs, [*trace.losses, *model.all_regularization_losses()], trained)
        graph = trace.graph(inputs.leaves, {"loss": loss})
    return Program(graph, trace.variables)


def learn(
    model: Model,
    objectives: Objectives,
    batch: Batch,
    outputs: Sequence[Value],
    added: Sequence[Any],
    trained: Sequence[Variable],
) -> Value:
    """What follows the forward pass of a training step, in a trace: updates of weights and metrics. Gives the loss.

    Args:
        model: The model, which is built.
        objectives: Its losses and metrics.
        batch: The symbolic data.
        outputs: Those of the model.
        added: Further terms of the loss.
        trained: The weights to update.
    """
    terms = [*objectives.total_loss(batch, outputs), *added]
    require_terms(model, terms)
    loss = total(terms)
    if trained:
        trace = current_trace()
        assert trace is not None
        scaled = model.optimizer.scale_loss(loss)
        model.optimizer.apply(gradients(scaled, [trace.leaf(v) for v in trained]), trained)
    objectives.track_loss(batch, loss)
    objectives.update_metrics(batch, outputs)
    return loss


def test_program(model: Model, objectives: Objectives, batch: Batch) -> Program:
    """One evaluation step: updates the metrics only."""
    prepare(model, objectives, batch)
    trace, inputs = Trace(), symbolic(model, batch)
    with trace_into(trace):
        outputs = leaves_of(model(inputs.x, training=False))
        loss = judge(objectives, inputs, outputs, [*trace.losses, *model.all_regularization_losses()])
        graph = trace.graph(inputs.leaves, {"loss": loss})
    return Program(graph, trace.variables)


def judge(objectives: Objectives, batch: Batch, outputs: Sequence[Value], added: Sequence[Any]) -> Value:
    """What follows the forward pass of an evaluation step, in a trace; see ``learn``."""
    loss = total([*objectives.total_loss(batch, outputs), *added])
    objectives.track_loss(batch, loss)
    objectives.update_metrics(batch, outputs)
    return loss


def predict_program(model: Model, x: Any) -> tuple[Program, Any]:
    """The forward pass; with outputs in the structure that they are returned in, which the program has, too."""
    model.ensure_built(x)
    trace, inputs = Trace(), sized(model.input_leaves(x), Batch(x))
    with trace_into(trace):
        outputs = model.predict_step(packed(Batch(inputs)))
        graph = trace.graph(leaves_of(inputs), {str(i): v for i, v in enumerate(leaves_of(outputs))})
    return Program(graph, trace.variables, outputs), outputs


def reset_program(objectives: Objectives) -> Program:
    """Sets every metric back to zero, on the device."""
    trace = Trace()
    with trace_into(trace):
        for _, metric in objectives.all_metrics:
            metric.reset_state()
        graph = trace.graph((), {})
    return Program(graph, trace.variables)
