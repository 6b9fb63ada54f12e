"""Where NaN and infinities come from: the callback that stops at them, and the search for the first op."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.autodiff import GradientTape
from unilayers.backend import Array, Backend, get_backend
from unilayers.callbacks.base import Callback
from unilayers.errors import NonFiniteError
from unilayers.graph import OPS, Graph, Op, leaf, tracing
from unilayers.graph.node import SCOPE
from unilayers.graph.passes import as_values, named
from unilayers.ops.define import DEFER, Box, bind, home, spec_of, unboxed
from unilayers.program import Program, interpret, interpretable
from unilayers.spec import is_float
from unilayers.variable import Variable

# ---- the search ---------------------------------------------------------------


@dataclass(eq=False)
class Fault:
    """An op whose result is not finite although its operands are, or a value that was bad from the start.

    Args:
        op: The op, or ``input`` or ``state``.
        name: Of an input or a state.
        scope, part: Where the op comes from, see `unilayers.graph.Node`.
        operands: What the op computed with; or the value.
        attrs: The op's attributes.
        turned: The op that made NaN of the infinity, if that was another.
    """

    op: str
    name: str = ""
    scope: str = ""
    part: str = ""
    operands: Sequence[Array] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    turned: Fault | None = None


def badness(array: Any) -> str:
    """``nan``, ``inf`` or nothing, by what an array holds."""
    if not is_float(ops.dtype_of(array)):
        return ""
    with np.errstate(all="ignore"):
        values = ops.to_numpy(array).astype("float64")
        return "" if np.isfinite(values).all() else "nan" if np.isnan(values).any() else "inf"


class Trail:
    """Follows values that are not finite through the ops of a step, in the order in which they run.

    The origin of a bad value is the first op that made a value like it from finite ones. An infinity that somebody
    wrote down, as masks and padding do, is no fault as long as no NaN comes of it: then the op that makes it one is.
    """

    def __init__(self) -> None:
        self.bad: dict[Hashable, str] = {}
        self._origin: dict[Hashable, tuple[int, Fault]] = {}  # with its place in the order
        self._count = 0

    def start(self, key: Hashable, array: Any, kind: str, name: str) -> None:
        """A value that is there at the beginning: an ``input`` or a ``state``."""
        self.bad[key] = found = badness(array)
        if found:
            self._origin[key] = (-1, Fault(kind, name, operands=[array]))

    def step(
        self, op: str, origin: tuple[str, str], attrs: Mapping[str, Any], inputs: Sequence[Hashable],
        operands: Sequence[Any], outputs: Sequence[Hashable], results: Sequence[Any],
    ) -> None:  # fmt: skip
        """One op: what it took and made, by keys and as arrays."""
        self._count += 1
        before = {k: self.bad[k] for k in inputs if self.bad.get(k)}
        for key, array in zip(outputs, results, strict=True):
            self.bad[key] = found = badness(array)
            if not found:
                continue
            # NaN comes of NaN; an infinity beside it has no part in it.
            same = [k for k, b in before.items() if b == "nan"] if found == "nan" else list(before)
            new = found == "nan" and not same
            sources = [self._origin[k] for k in (same or before) if k in self._origin]
            here = Fault(op, "", *origin, list(operands), attrs)
            if sources:
                number, fault = min(sources, key=lambda s: s[0])
                if new and fault.turned is None:
                    fault = replace(fault, turned=here)
                self._origin[key] = number, fault
            elif new or not (before or op == "constant" or _infinite(attrs)):
                self._origin[key] = self._count, here

    def first(self, keys: Sequence[Hashable]) -> Fault | None:
        """The earliest origin of values, or None."""
        found = [self._origin[k] for k in keys if k in self._origin]
        return min(found, key=lambda s: s[0])[1] if found else None


def _infinite(attrs: Mapping[str, Any]) -> bool:
    return any(isinstance(a, float) and math.isinf(a) for a in attrs.values())


def search(graph: Graph, backend: Backend, device: str, state: Sequence[Array], inputs: Sequence[Any]) -> Fault | None:
    """The first fault in a graph: behind its outputs if one is bad, else behind its updates, those of metrics aside.

    Args:
        graph: The graph, as it was traced.
        backend: The engine to look on.
        device: A device of it.
        state: The values of the state.
        inputs: The values of the inputs.
    """
    trail, graph = Trail(), interpretable(graph, inputs)
    with np.errstate(all="ignore"):
        for node, operands, results in interpret(graph, backend, device, state, inputs):
            if node.op in ("input", "state"):
                trail.start(node.outputs[0], results[0], node.op, node.attrs["name"])
            else:
                trail.step(node.op, node.origin, node.attrs, node.inputs, operands, node.outputs, results)
    updated = [v for v in graph.updates.values() if v.node.part != "metrics"]
    return trail.first([*graph.outputs.values()]) or trail.first(updated)


def inside(fault: Fault, backend: Backend, device: str) -> Fault | None:
    """The first fault in what a composite op expands to; None if there is none."""
    op = OPS[fault.op]
    if op.expand is None:
        return None
    leaves = [leaf("input", f"x{i}", spec_of(a)) for i, a in enumerate(fault.operands)]
    with tracing():
        graph = Graph(tuple(leaves), (), named(as_values(op.expand(*leaves, **fault.attrs))))
    found = search(graph, backend, device, (), fault.operands)
    return None if found is None or found.op == "input" else inside(found, backend, device) or found


class Watch:
    """Follows the ops that run at once inside its ``with`` block, for steps that cannot be traced.

    Args:
        state: Variables that the step reads.
        inputs: The leaves of the data, with their names.
    """

    def __init__(self, state: Sequence[Variable], inputs: Mapping[str, Any]) -> None:
        self._trail, self._kept = Trail(), list[Any]()
        self._updated: list[Hashable] = []
        self._calls: list[tuple[Fault, list[Any], list[Any]]] = []  # ops before the update: what each took and made
        for v in state:
            self._trail.start(self._key(v), v.numpy(), "state", v.path)
        self._named = [(name, ops.to_numpy(x)) for name, x in inputs.items()]

    def _key(self, x: Any) -> Hashable:
        array = unboxed(x.as_operand(None, None) if isinstance(x, Variable) else x)
        self._kept.append(array)  # so that its number is not given again
        return id(array)

    def __enter__(self) -> Watch:
        self._token = DEFER.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        DEFER.reset(self._token)

    def call(self, owner: Any, args: Any, kwargs: Any) -> Any:
        """Layers run their own Python."""
        return NotImplemented

    def record(self, op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Run an op and look at what it made."""
        token = DEFER.set(None)
        try:
            result = bind(op, operands, attrs)
            keys = [self._key(x) for x in operands]
            for key, x in zip(keys, operands, strict=True):
                if key not in self._trail.bad:
                    self._begin(key, x)
            made = [unboxed(y) for y in (result if isinstance(result, (tuple, list)) else [result])]
            outputs = [self._key(y) for y in made]
            arrays = [unboxed(x.as_operand(None, None) if isinstance(x, Variable) else x) for x in operands]
            self._trail.step(op.name, SCOPE.get(), attrs, keys, arrays, outputs, made)
            if SCOPE.get()[1] == "update":
                self._updated += outputs
            else:
                fault = Fault(op.name, "", SCOPE.get()[0], f"gradient of {op.name}", arrays, attrs)
                results = result if isinstance(result, (tuple, list)) else [result]
                taken, kept = ([x for x in xs if isinstance(x, (Box, Variable))] for xs in (operands, results))
                self._calls.append((fault, taken, kept))
        finally:
            DEFER.reset(token)
        return result

    def _begin(self, key: Hashable, x: Any) -> None:
        """A value that no op has made: data, or a number."""
        array = ops.to_numpy(x)
        name = next((n for n, a in self._named if a.shape == array.shape and np.array_equal(a, array, True)), None)
        if name is not None:
            self._trail.start(key, array, "input", name)
        else:
            self._trail.bad[key] = badness(array)

    def first(self, outputs: Mapping[str, Any], tape: GradientTape) -> Fault | None:
        """The first fault behind the results of the step, else behind the updates.

        Args:
            outputs: The results.
            tape: A persistent one, active while the step ran.
        """
        fault = self._trail.first([self._key(x) for x in outputs.values()])
        return fault or self._backward(outputs.get("loss"), tape) or self._trail.first(self._updated)

    def _backward(self, loss: Any, tape: GradientTape) -> Fault | None:
        """The op nearest to the loss that makes a bad gradient of a good one."""
        target = next((y for *_, made in reversed(self._calls) for y in made if unboxed(y) is loss), None)
        if target is None:
            return None
        known = {x.serial: x for _, taken, made in self._calls for x in (*taken, *made)}
        found = tape.gradient(target, list(known.values()))
        flows = {serial: g for serial, g in zip(known, found, strict=True) if g is not None}
        bad = {serial for serial, g in flows.items() if badness(g)}
        for fault, taken, made in reversed(self._calls):
            arrives = [y.serial in flows and y.serial not in bad for y in made]
            if (
                made
                and all(arrives)
                and any(x.serial in bad for x in taken)
                and _spoils(fault, [flows[y.serial] for y in made])
            ):
                return fault
        return None


def _spoils(fault: Fault, flows: Sequence[Array]) -> bool:
    """Whether an op by itself makes bad gradients of those that arrive at its outputs."""
    with GradientTape(persistent=True) as tape:
        taken = [tape.watch(x) if is_float(ops.dtype_of(x)) else x for x in fault.operands]
        result = bind(OPS[fault.op], taken, dict(fault.attrs))
    made = result if isinstance(result, (tuple, list)) else [result]
    watched = [x for x in taken if isinstance(x, Box)]
    found = [g for y, flow in zip(made, flows, strict=True) for g in tape.gradient(y, watched, flow)]
    return any(g is not None and badness(g) for g in found)


# ---- the words ----------------------------------------------------------------

# Where an op is finite: the number of the operand, words for the values that it cannot take, and a test for these.
DOMAINS: dict[str, tuple[int, str, Callable[[np.ndarray], np.ndarray]]] = {
    "log": (0, "<= 0", lambda x: x <= 0),
    "log1p": (0, "<= -1", lambda x: x <= -1),
    "sqrt": (0, "< 0", lambda x: x < 0),
    "rsqrt": (0, "<= 0", lambda x: x <= 0),
    "reciprocal": (0, "0", lambda x: x == 0),
    "divide": (1, "0", lambda x: x == 0),
    "asin": (0, "outside of -1 to 1", lambda x: np.abs(x) > 1),
    "acos": (0, "outside of -1 to 1", lambda x: np.abs(x) > 1),
}


def _cause(fault: Fault) -> str:
    """What about the operands made the op fail."""
    arrays = [ops.to_numpy(a) for a in fault.operands]
    if fault.op in DOMAINS:
        number, words, test = DOMAINS[fault.op]
        wrong = test(arrays[number])
        if wrong.any():
            worst = arrays[number][wrong].min()
            return f"input {number} has values {words} ({wrong.sum()} of {wrong.size}, such as {worst:.4g})"
    ranges = [f"{a.min():.4g} to {a.max():.4g}" for a in arrays if a.size and a.dtype.kind != "b"]
    return f"its inputs are {' and '.join(ranges)}" if ranges else "it has no inputs"


class Words:
    """Puts faults into words.

    Args:
        model: The model whose step it was.
        rows: The numbers of the batch's samples in the data, if they are known.
        backend: Where composite ops are looked into.
        device: A device of it.
    """

    def __init__(self, model: Any, rows: Any, backend: Backend, device: str) -> None:
        self._layers = {layer.path: layer for layer in model.layers_below if layer.path}
        self._rows, self._place = rows, (backend, device)

    def place(self, fault: Fault) -> str:
        """Where an op comes from."""
        layer = self._layers.get(fault.scope)
        where = f"layer {fault.scope!r} ({type(layer).__name__})" if layer is not None else "the model itself"
        if fault.part.startswith("gradient of"):
            where = f"the gradient of op {fault.part.split()[-1]!r}" + (f" in {where}" if layer is not None else "")
        elif fault.part:
            where = {"loss": "the loss", "update": "the optimizer's update"}.get(fault.part, f"the {fault.part}")
        return where if fault.part == f"gradient of {fault.op}" else f"{where}, op {fault.op!r}"

    def of(self, fault: Fault) -> str:
        """A fault in a sentence, without a full stop."""
        if fault.op == "input":
            array = ops.to_numpy(fault.operands[0])
            wrong = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
            rows = range(self._rows.start, self._rows.stop) if isinstance(self._rows, slice) else self._rows
            number = f", number {rows[wrong[0]]} of the data" if rows is not None else ""
            more = f", and in {len(wrong) - 1} more" if len(wrong) > 1 else ""
            what = f"{fault.name!r} has {badness(array)} in sample {wrong[0]} of the batch"
            return f"It is in the data: {what}{number}{more}"
        if fault.op == "state":
            return f"{fault.name!r} was {badness(fault.operands[0])} before this batch"
        inner = inside(fault, *self._place)
        cause = f", in it {inner.op!r}: {_cause(inner)}" if inner is not None else f": {_cause(fault)}"
        turned = "" if fault.turned is None else f"; it turns to nan in {self.place(fault.turned)}"
        return f"First in {self.place(fault)}{cause}{turned}"


# ---- the callback -------------------------------------------------------------


@dataclass(eq=False)
class Before:
    """A step before it runs.

    Args:
        batch: Its number in the epoch.
        program: What runs.
        inputs: The leaves of the data.
        rows: Numbers of the samples.
        state: Copies of the state, on its device.
    """

    batch: int
    program: Any
    inputs: Sequence[Any]
    rows: Any
    state: dict[Variable, Any]

    def value(self, variable: Variable) -> Any:
        """The value before the step; of one that the step has created, its initial value as far as that is known."""
        if variable in self.state:
            return self.state[variable]
        return variable.numpy() if variable._initial is None else variable.draw()


class TerminateOnNaN(Callback):
    """Stops training when the loss of a batch is NaN or infinite, and says where that came from.

    The step is run again, op by op, from the state before it: the message names the layer and the op that was the first
    to make something that is not finite of what was, in the forward pass, the loss, the gradients or the update; or the
    sample of the data. An infinity that is written down, such as that of a mask, is not blamed unless NaN comes of it.

    For that it keeps a copy of the state before each of the last two batches, on the device: about as much memory as
    the weights and the optimizer's slots take, twice, and the time to copy them once a step.

    Args:
        raise_error: Whether to raise a ``NonFiniteError`` (a ``RuntimeError``), so that ``on_train_end`` of other
            callbacks does not run, instead of stopping after this batch.
        explain: Whether to look for the cause; if not, nothing is kept.
        weights: Whether to look at the trained weights after each batch, too, which costs reading them: a gradient that
            is not finite is then found in its own batch, not by the loss of the next.

    Example:
        >>> from unilayers import Sequential, layers
        >>> model = Sequential([layers.Dense(3), layers.Lambda(lambda x: ops.log(x), name="logs")], seed=0)
        >>> model.compile("sgd", "mse")
        >>> x = np.linspace(-1, 1, 8, dtype="float32").reshape(4, 2)
        >>> y = np.ones((4, 3), "float32")
        >>> model.fit(x, y, verbose=0, callbacks=[TerminateOnNaN()])  # doctest: +ELLIPSIS
        Batch 0: loss is nan. First in layer 'logs' (Lambda), op 'log': input 0 has values <= 0 (...); training stops.
        <unilayers.callbacks.base.History object at ...>
    """

    state_names = ("_stopped",)

    def __init__(self, raise_error: bool = False, explain: bool = True, weights: bool = False) -> None:
        self.raise_error, self.explain, self.weights = raise_error, explain, weights

    def on_train_begin(self, logs: Any = None) -> None:
        self._steps: deque[Before] = deque(maxlen=2)
        self._stopped = False

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self.model.stop_training |= self._stopped

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.explain and self.model._running is not None:
            program, inputs, rows = self.model._running
            self._steps.append(Before(batch, program, inputs, rows, {v: v.copied() for v in program.variables}))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        name = "batch_loss" if "batch_loss" in logs else "loss"  # a step of the model's own gives "loss" only
        problem = ""
        if name in logs and not math.isfinite(loss := logs[name]):
            problem = f"Batch {batch}: loss is {loss}"
        elif self.weights:
            bad = [v.path for v in self.model.trainable_weights if badness(v.numpy())]
            problem = f"Batch {batch}: {bad[0]!r} is not finite after the update" if bad else ""
        if not problem:
            return
        found = self._explained()
        text = f"{problem}. {found}" if found else problem
        if self.raise_error:
            raise NonFiniteError(text, where="TerminateOnNaN")
        print(f"{text}; training stops.")
        self._stopped = self.model.stop_training = True

    def _explained(self) -> str:
        if not self._steps:
            return ""
        step = self._steps[-1]
        fault, words = self._searched(step)
        if fault is not None and fault.op == "state" and len(self._steps) == 2:
            before = self._steps[0]
            earlier, its = self._searched(before)
            if earlier is not None:
                return f"Batch {before.batch} has made {fault.name!r} {badness(fault.operands[0])}. {its.of(earlier)}"
        return "It does not come up when the step runs op by op" if fault is None else words.of(fault)

    def _searched(self, step: Before) -> tuple[Fault | None, Words]:
        stores = [v.store for v in step.state if v.store is not None]
        backend = stores[0].backend if stores else get_backend()
        device = stores[0].device if stores else home(backend)
        words = Words(self.model, step.rows, backend, device)
        try:
            program: Program = step.program.traced()
        except Exception:  # whatever the model's own Python raises where it cannot be traced
            return self._watched(step), words
        state = [step.value(v) for v in program.variables]
        return search(program.graph, backend, device, state, step.inputs), words

    def _watched(self, step: Before) -> Fault | None:
        """Run the step again where it is, and put back what it has changed."""
        after = {v: v.copied() for v in step.program.variables}
        try:
            for v in after:
                v.assign(step.value(v))
            store = next(v.store for v in after if v.store is not None)
            names = {f"input {i}": x for i, x in enumerate(step.inputs)}
            watch = Watch(list(after), names)
            with np.errstate(all="ignore"), GradientTape(persistent=True) as tape:
                with watch:
                    outputs = step.program.run(store, step.inputs)
                return watch.first(outputs, tape)
        finally:
            for v, value in after.items():
                v.assign(value)
