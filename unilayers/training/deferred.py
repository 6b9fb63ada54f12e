"""Steps of a model's own Python that run as one compiled graph.

While the Python runs, its ops only note what they would do: the values they give know their shape and dtype, not their
numbers. Then the notes are the step's key. A key that came before has been turned into the graph of the whole step,
with loss, gradients and updates, and that is run. Whoever asks a value for its numbers has all that was noted run at
once, op by op and in order, and the rest of the step with it.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import UnilayersError
from unilayers.graph import OPS, Op, Value, is_tracing, leaf
from unilayers.layers.base import Layer, collect_losses, current_phase, training_phase
from unilayers.ops.define import DEFER, SERIALS, TAPES, TRACE, Box, _common_dtype, bind, host_of, mask_of, name_of
from unilayers.program import Program, moved
from unilayers.spec import Spec
from unilayers.structure import leaves_of, map_structure, pack_like
from unilayers.training import steps
from unilayers.training.steps import Batch, Objectives
from unilayers.variable import Store, Trace, Variable, trace_into

if TYPE_CHECKING:
    from unilayers.models.model import Model

NUMBERS = (bool, int, float)
PATIENCE = 16  # steps in turn that were like none before, after which nothing is noted any more
PROGRAMS = 128  # keys that are kept
STEPS = 8192  # calls that are kept
CONSTANTS = (bool, int, float, str)
_CAST = OPS["astype"]
# Attributes of layers that say nothing about what they compute.
INNER = frozenset(
    ("_built_for", "_compiled", "_losses", "_objectives", "_parent", "_place", "_programs", "_sublayers", "_variables")
)
BOOKKEEPING = frozenset(
    {"optimizer", "stop_training", "start_epoch", "start_batch", "history", "position", "seen_inputs", "built"}
)
IGNORED = INNER | BOOKKEEPING | {"_constructor_call"}

# ---- values ---------------------------------------------------------------------

_ARRAY, _SERIAL, _SOURCE = (Box.__dict__[name] for name in ("array", "serial", "source"))
_new = object.__new__


class Kind:
    """Shape and dtype, one object for each pair."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype


class Deferred(Box):
    """A box whose array has not been computed yet. It turns into an ordinary box when it has.

    The slot of the array holds the recording, the value's number in it, and its kind.
    """

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return _ARRAY.__get__(self)[2].shape

    @property
    def dtype(self) -> str:
        return _ARRAY.__get__(self)[2].dtype

    @property
    def ndim(self) -> int:
        return len(_ARRAY.__get__(self)[2].shape)

    array = property(lambda self: _computed(self).array)
    serial = property(lambda self: _computed(self).serial)
    source = property(lambda self: _computed(self).source)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _computed(self).__reduce_ex__(protocol)


def _computed(x: Any) -> Box:
    """The value as an ordinary box."""
    _ARRAY.__get__(x)[0].ask()
    if x.__class__ is Deferred:
        raise UnilayersError("a value of a step that failed", where="run_eagerly", fix="Ask for it before the error")
    return x


def _settle(x: Any, array: Any, serial: int, source: Any = None) -> None:
    """Turn a deferred value into an ordinary box."""
    _ARRAY.__set__(x, array)
    _SERIAL.__set__(x, serial)
    _SOURCE.__set__(x, source)
    x.__class__ = Box


# ---- what is noted --------------------------------------------------------------


class Hole:
    """Where the value of a reference goes, and that of its mask."""

    __slots__ = ("at", "mask")

    def __init__(self, at: int, mask: int | None = None) -> None:
        self.at, self.mask = at, mask


class OpStep:
    """A call of an op, without the values it is called with; ``operands`` has None in their places."""

    def __init__(self, op: Op, operands: Sequence[Any], attrs: dict[str, Any], multiple: bool) -> None:
        self.op, self.operands, self.attrs, self.multiple = op, operands, attrs, multiple
        self.kinds: list[Kind] = []

    def run(self, refs: Sequence[int], values: Sequence[Any]) -> list[Any]:
        """The results, of boxes or of symbolic values."""
        given = iter(refs)
        result = bind(self.op, [values[next(given)] if x is None else x for x in self.operands], dict(self.attrs))
        return list(result) if self.multiple else [result]


class LayerStep:
    """A call of a built-in layer, without the values it is called with.

    Attributes:
        structure: The nesting of the results.
        count: How many results there are.
        masked: Which of them have masks; these come after the results.
        losses: How many terms are added to the loss; these come last.
    """

    def __init__(self, layer: Layer, phase: bool | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        numbers = itertools.count()

        def template(x: Any) -> Any:
            if x is None or x.__class__ in CONSTANTS:
                return x
            return Hole(next(numbers), None if mask_of(x) is None else next(numbers))

        self.layer, self.phase = layer, phase
        self._args, self._kwargs = map_structure(template, args), map_structure(template, kwargs)
        self.structure: Any = None
        self.count = self.losses = 0
        self.masked: list[int] = []
        self.kinds: list[Kind] = []

    @property
    def simple(self) -> bool:
        return self.structure is None and len(self.kinds) == 1

    def sign(self, specs: Sequence[Spec]) -> list[Spec]:
        """Find the specs of the results for values of these specs."""
        values = [leaf("input", f"x{i}", spec) for i, spec in enumerate(specs)]
        with trace_into(Trace()) as trace:
            result = self._result(range(len(values)), values)
        leaves = leaves_of(result)
        if trace.created or not all(isinstance(y, Value) for y in leaves):
            raise UnilayersError("not a function of the inputs", where=self.layer.where)
        masks = [mask_of(y) for y in leaves]
        self.structure, self.count, self.losses = map_structure(lambda _: None, result), len(leaves), len(trace.losses)
        self.masked = [i for i, m in enumerate(masks) if m is not None]
        return [v.spec for v in (*leaves, *(masks[i] for i in self.masked), *trace.losses)]

    def run(self, refs: Sequence[int], values: Sequence[Any]) -> list[Any]:
        """The results, of boxes or of symbolic values."""
        trace = TRACE.get()
        before = 0 if trace is None else len(trace.losses)
        with collect_losses() as added:
            result = leaves_of(self._result(refs, values))
        if trace is not None:
            added = trace.losses[before:]
            del trace.losses[before:]
        return [*result, *(mask_of(result[i]) for i in self.masked), *added]

    def _result(self, refs: Sequence[int], values: Sequence[Any]) -> Any:
        def fill(x: Any) -> Any:
            if x.__class__ is not Hole:
                return x
            value = values[refs[x.at]]
            value.mask = None if x.mask is None else values[refs[x.mask]]
            return value

        with training_phase(self.phase):
            return self.layer(*map_structure(fill, self._args), **map_structure(fill, self._kwargs))


Step = OpStep | LayerStep

# ---- one step -------------------------------------------------------------------


def _nobody() -> None:
    """In the place of a weak reference to a value that is in nobody's hands."""


class Recording:
    """The notes of one step. While it is active, calls of ops and layers come here.

    Args:
        memory: What is known from earlier steps.
        store: Where the model's state is.
        inputs: The leaves of the model's inputs.

    Attributes:
        inputs: These as deferred values.
        closed: Whether all that was noted has run, so that ops run at once.
        asked: Whether that was because somebody wanted numbers.
    """

    def __init__(self, memory: Memory, store: Store, inputs: Sequence[Any]) -> None:
        self._memory, self._store = memory, store
        self._notes: list[tuple[Step, Sequence[int], int]] = []  # what, on which values, the number of the first result
        self._arrays: list[tuple[int, Any]] = []  # the values that are arrays, with their numbers
        self._kinds: list[Kind] = []  # of all values
        self._holders: list[Any] = []  # weak references to the deferred values
        self._key: list[Any] = []
        self._values: list[Any] = []
        self._tapes: tuple[Any, ...] = ()
        self.structure: Any = None
        self._outputs: list[tuple[int, int]] = []
        self._added: list[Any] = []
        self._kept: list[int] = []
        self._count = len(inputs)
        self.closed = self.asked = False
        self.inputs = [self._deferred(self._array(x), self._kinds[-1]) for x in inputs]

    def __enter__(self) -> Recording:
        self._tapes = TAPES.get()
        self._token = DEFER.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        DEFER.reset(self._token)

    # ---- noting

    def record(self, op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """A call of an op: noted if it depends on what has not been computed, else run."""
        if self.closed or TRACE.get() is not None or is_tracing():
            return _at_once(op, operands, attrs)
        if op.bodies or TAPES.get() is not self._tapes:
            return self._give_up(op, operands, attrs)
        key: list[Any] = [op]
        refs: list[int] = []
        unknown = others = False
        for x in operands:
            cls = x.__class__
            if cls is Deferred:
                recording, number, kind = _ARRAY.__get__(x)
                if recording is self:
                    key.append(kind)
                    refs.append(number)
                    unknown = True
                else:
                    others = True
            elif cls in NUMBERS:
                key += cls, x or str(x)  # 0.0 and -0.0 are equal
            elif cls is Variable:
                if x.store is not self._store:  # it has just been created
                    self.settle()
                    return _at_once(op, operands, attrs)
                if x.cast_to is not None and op is not _CAST:
                    operands = [self._cast(v) if v.__class__ is Variable else v for v in operands]
                    return self.record(op, operands, attrs)
                key.append(x)
                unknown = unknown or bool(self._tapes)
            else:
                others = True
        if not unknown:
            return _at_once(op, operands, attrs)
        try:
            if others:
                key, refs = self._with_arrays(op, operands)
            for name, v in attrs.items():  # as in ops.define.signature
                key += name, v.__class__, v if v.__class__ is not float or v else str(v)
            signature = tuple(key)
            step = self._memory.steps.get(signature) or self._memory.op_step(signature, op, operands, attrs)
        except Exception:  # something that cannot be a key, or a wrong shape, which the op itself explains best
            return self._give_up(op, operands, attrs)
        made = self._note(step, refs)
        return tuple(made) if step.multiple else made[0]

    def _cast(self, variable: Variable) -> Any:
        """A variable in the dtype that the layer being called reads it in, as a note, since notes run outside of it."""
        dtype = variable.cast_to
        if dtype is None:
            return variable
        key = (_CAST, variable, dtype)
        step = self._memory.steps.get(key) or self._memory.op_step(key, _CAST, [variable], {"dtype": dtype})
        return self._note(step, ())[0]

    def _with_arrays(self, op: Op, operands: Sequence[Any]) -> tuple[list[Any], list[int]]:
        """The key and the references of a call that has arrays among its operands."""
        key: list[Any] = [op]
        refs: list[int] = []
        for x in operands:
            if x.__class__ in NUMBERS:
                key += x.__class__, x or str(x)
            elif x.__class__ is Variable:
                key.append(x)
            else:
                refs.append(self._reference(x))
                key.append(self._kinds[refs[-1]])
        return key, refs

    def call(self, owner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a layer, noted as one if all is known of it; else ``NotImplemented``: its Python shall run."""
        if self.closed or not isinstance(owner, Layer) or owner not in self._memory.plain:
            return NotImplemented
        if TRACE.get() is not None or is_tracing() or TAPES.get() is not self._tapes:
            return NotImplemented
        key: list[Any] = [owner, self._memory.stamp, current_phase()]
        refs: list[int] = []
        try:
            if len(args) == 1 and args[0].__class__ is Deferred:
                self._argument(args[0], key, refs)
            elif any([x.__class__ is Deferred for x in leaves_of([args, kwargs])]):  # noqa: C419
                self._nested(args, key, refs)
            else:
                return NotImplemented
            for name, x in kwargs.items():
                key.append(name)
                self._nested(x, key, refs)
            signature = tuple(key)
            if signature in self._memory.refused:
                return NotImplemented
            step = self._memory.steps.get(signature) or self._memory.layer_step(
                signature, owner, args, kwargs, [self._kinds[i] for i in refs]
            )
        except Exception:  # the layer's own Python explains it best
            return NotImplemented
        made = self._note(step, refs)
        if step.simple:
            return made[0]
        for term in made[len(made) - step.losses :]:
            owner.add_loss(term)
        for i, mask in zip(step.masked, made[step.count :], strict=False):
            made[i].mask = mask
        return pack_like(step.structure, made[: step.count])

    def _argument(self, x: Any, key: list[Any], refs: list[int]) -> None:
        """A deferred value or an array as an argument of a layer, with its mask."""
        refs.append(self._reference(x))
        key.append(self._kinds[refs[-1]])
        mask = mask_of(x)
        if mask is not None:
            refs.append(self._reference(mask))
            key += Hole, self._kinds[refs[-1]]

    def _nested(self, x: Any, key: list[Any], refs: list[int]) -> None:
        """An argument of a layer."""
        if x.__class__ in (list, tuple):
            key += x.__class__, len(x)
            for part in x:
                self._nested(part, key, refs)
        elif x.__class__ is dict:
            key += dict, len(x), *x
            for part in x.values():
                self._nested(part, key, refs)
        elif x is None or x.__class__ in CONSTANTS:
            key += x.__class__, x or str(x)
        else:
            self._argument(x, key, refs)

    def _note(self, step: Any, refs: Sequence[int]) -> list[Deferred]:
        self._notes.append((step, refs, len(self._kinds)))
        self._key.append(step)
        self._key += refs
        made = []
        for kind in step.kinds:
            self._kinds.append(kind)
            self._holders.append(_nobody)
            made.append(self._deferred(len(self._kinds) - 1, kind))
        return made

    def _deferred(self, number: int, kind: Kind) -> Deferred:
        made = _new(Deferred)
        _ARRAY.__set__(made, (self, number, kind))
        self._holders[number] = weakref.ref(made)
        return made

    def _array(self, array: Any) -> int:
        """The number of an array that becomes a value."""
        kind = self._memory.kind(tuple(array.shape), array.dtype)
        self._key.append(kind)
        self._kinds.append(kind)
        self._holders.append(_nobody)
        self._arrays.append((len(self._kinds) - 1, array))
        return len(self._kinds) - 1

    def _reference(self, x: Any) -> int:
        """The number of a value; an array becomes one."""
        if x.__class__ is Deferred:
            recording, number, _ = _ARRAY.__get__(x)
            if recording is self:
                return number
            x = _computed(x)
        if x.__class__ is Box and x.source is None:
            x = x.array
        if isinstance(x, (list, tuple)):
            return self._array(np.array(x))
        host = host_of(x)
        if host is None:
            raise TypeError(f"{type(x).__name__} is no array")
        # A copy, since the numbers may change before they are used. What has no method for it does not change.
        kept = x if host.guest else host.table["identity"](x)
        return self._array(x.copy() if kept is x and hasattr(x, "copy") else kept)

    # ---- running what was noted

    def ask(self) -> None:
        """Run all that was noted, since somebody wants to see numbers or changes what the notes depend on."""
        self.asked = self.asked or not self.closed
        self.settle()

    def _give_up(self, op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
        self.ask()
        return _at_once(op, operands, attrs)

    def settle(self) -> None:
        """Run all that was noted, op by op; from now on ops run at once."""
        if self.closed:
            return
        self.closed = True
        if DEFER.get() is self:
            DEFER.set(None)
        values = self._values = [None] * len(self._kinds)
        place = self._store.backend, self._store.device
        arrays = moved([a for _, a in self._arrays], *place)
        for (number, _), array in zip(self._arrays, arrays, strict=True):
            values[number] = Box(array)
        defer, tapes = DEFER.set(None), TAPES.set(self._tapes)
        try:
            for step, refs, first in self._notes:
                for i, y in enumerate(step.run(refs, values), first):
                    values[i] = y if isinstance(y, Box) else Box(y)
        finally:
            TAPES.reset(tapes)
            DEFER.reset(defer)
            for holder, value in zip(self._holders, values, strict=True):
                x = holder()
                if x is not None and value is not None:
                    _settle(x, value.array, value.serial, value.source)

    # ---- the end of the forward pass

    def seal(self, outputs: Any, added: Sequence[Any]) -> bool:
        """Take down what the forward pass gave, and the terms of the loss; whether it can be had without numbers."""
        self.inputs = []
        if outputs.__class__ is Deferred and not added and mask_of(outputs) is None:  # as in most models
            self._outputs = [(self._reference(outputs), -1)]
            return True
        leaves = leaves_of(outputs)
        if not all(x.__class__ is Deferred for x in leaves):
            return False
        if not all(x.__class__ is Deferred or x.__class__ in NUMBERS for x in added):
            return False
        self.structure = map_structure(lambda _: None, outputs)
        masks = [mask_of(x) for x in leaves]
        self._outputs = [
            (self._reference(x), -1 if m is None else self._reference(m)) for x, m in zip(leaves, masks, strict=True)
        ]
        self._added = [x if x.__class__ in NUMBERS else (self._reference(x),) for x in added]
        return True

    def key(self) -> tuple[Any, ...]:
        """Equal for steps that do the same, and of which the same values are still in somebody's hands."""
        self._kept = [i for i, holder in enumerate(self._holders) if holder() is not None]
        added = [(x.__class__, x or str(x)) for x in self._added]
        return (*self._key, _form(self.structure), *self._outputs, *added, "kept", *self._kept)

    def replay(self, inputs: Sequence[Value], others: Sequence[Value]) -> tuple[list[Any], list[Any], dict[str, Any]]:
        """In a trace: the outputs, the terms of the loss, and by name the values that somebody keeps."""
        values: list[Any] = [None] * len(self._kinds)
        given = [*inputs[: self._count], *others]
        for (number, _), value in zip(self._arrays, given, strict=True):
            values[number] = value
        for step, refs, first in self._notes:
            found = step.run(refs, values)
            values[first : first + len(found)] = found
        return *self._taken(values), {f"kept{i}": values[i] for i in self._kept}

    def results(self) -> tuple[Any, list[Any]]:
        """The outputs in their nesting and the terms of the loss, after ``settle``."""
        outputs, added = self._taken(self._values)
        return pack_like(self.structure, outputs), added

    def _taken(self, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        outputs = []
        for number, mask in self._outputs:
            outputs.append(values[number])
            outputs[-1].mask = None if mask < 0 else values[mask]
        return outputs, [values[x[0]] if x.__class__ is tuple else x for x in self._added]

    @property
    def others(self) -> list[Any]:
        """The arrays that were met beside the model's inputs."""
        return [a for _, a in self._arrays[self._count :]]

    def finish(self, outputs: Mapping[str, Any]) -> None:
        """Give what was computed to those who keep values."""
        self.closed = True
        for i in self._kept:
            x = self._holders[i]()
            if x is not None:
                _settle(x, outputs[f"kept{i}"], next(SERIALS))
        self._notes.clear()


def _at_once(op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    token = DEFER.set(None)
    try:
        return bind(op, operands, attrs)
    finally:
        DEFER.reset(token)


def _form(structure: Any) -> Any:
    """A nesting as a key."""
    if isinstance(structure, dict):
        return dict, *((k, _form(x)) for k, x in structure.items())
    if isinstance(structure, (list, tuple)):
        return type(structure), *map(_form, structure)
    return None


# ---- from step to step ------------------------------------------------------------


class Memory:
    """What steps of one kind have in common: the calls met so far, and the graphs of whole steps.

    Args:
        model: The model.
        objectives: Its losses and metrics.
        judged: Whether losses and metrics take part in a step.

    Attributes:
        on: Whether there is any use in noting.
        steps: Calls by what they are called with.
        refused: Calls of layers whose Python has to run.
        plain: Layers of which all is known, whose Python need not run.
        stamp: Another number when an attribute of something built in has changed.
    """

    def __init__(self, model: Model, objectives: Objectives, judged: bool) -> None:
        self._model, self._objectives, self._judged = model, objectives, judged
        self._kinds: dict[Any, Kind] = {}
        self._programs: dict[Any, Program | None] = {}
        self._stamps: dict[Any, int] = {}
        self._strange = 0  # how many steps in turn were like none before
        self._seen: list[Any] = []
        self._allowed = False
        self._judges: list[Any] | None = None  # optimizer, metrics and losses
        self.on = True
        self.steps: dict[Any, Any] = {}
        self.refused: set[Any] = set()
        self.plain: set[Layer] = set()
        self.stamp = 0

    def begin(
        self, store: Store, inputs: Sequence[Any], state: Sequence[Variable], trained: Sequence[Variable]
    ) -> Recording | None:
        """The recording of a step, if there shall be one.

        Args:
            store: Where the step runs.
            inputs: The leaves of the model's inputs.
            state: The model's state.
            trained: What of it is trained.
        """
        if not self.on or DEFER.get() is not None or TRACE.get() is not None:
            return None
        self._look(state, trained)
        if not self._allowed or not all([v.store is store for v in state]):  # noqa: C419
            return None
        return Recording(self, store, inputs)

    def program(self, recording: Recording, form: Batch, leaves: Sequence[Any], finish: Finish) -> Program | None:
        """The graph of a whole step like the recorded one; None if there was none like it before.

        Args:
            recording: The step.
            form: The nesting of its data.
            leaves: Its data.
            finish: What follows the forward pass.
        """
        key = (self.stamp, *[(x.shape, x.dtype) for x in leaves], *recording.key())
        if key not in self._programs:
            if len(self._programs) >= PROGRAMS:
                self._programs.clear()
            self._programs[key] = None
            self.miss()
            return None
        self._strange = 0
        found = self._programs[key]
        if found is None:
            tapes = TAPES.set(())
            try:
                found = self._programs[key] = self._traced(recording, form, leaves, finish)
            except Exception:  # op by op it becomes clear what is wrong, if anything is
                self.on = False
            finally:
                TAPES.reset(tapes)
        return found

    def miss(self) -> None:
        """Count a step that was like none before."""
        self._strange += 1
        self.on = self.on and self._strange < PATIENCE

    def _traced(self, recording: Recording, form: Batch, leaves: Sequence[Any], finish: Finish) -> Program:
        def symbols(name: str, arrays: Sequence[Any]) -> list[Value]:
            specs = [Spec(tuple(a.shape), name_of(a.dtype)) for a in arrays]
            return [leaf("input", f"{name}{i}", spec) for i, spec in enumerate(specs)]

        inputs, others = symbols("batch", leaves), symbols("array", recording.others)
        given = iter(inputs)
        parts = (form.x, form.y, form.weight)
        batch = Batch(*[map_structure(lambda a: None if a is None else next(given), part) for part in parts])
        trace = Trace(steps.state_of(self._model, self._objectives))
        with trace_into(trace):
            outputs, added, kept = recording.replay(inputs, others)
            graph = trace.graph([*inputs, *others], finish(batch, outputs, added) | kept)
        return Program(graph, trace.variables)

    # ---- calls

    def kind(self, shape: tuple[int, ...], dtype: Any) -> Kind:
        """The kind of arrays of a shape and dtype."""
        found = self._kinds.get((shape, dtype))
        if found is None:
            name = name_of(dtype)
            found = self._kinds[shape, dtype] = self._kinds.setdefault((shape, name), Kind(shape, name))
        return found

    def op_step(self, key: Any, op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> OpStep:
        """A call of an op that comes for the first time."""
        specs = [Spec(ops.shape_of(x), ops.dtype_of(x)) for x in operands]
        if op.promotes is not None and len(specs) > op.promotes:
            target = _common_dtype(operands[op.promotes :])
            specs[op.promotes :] = [s.with_dtype(target) for s in specs[op.promotes :]]
        found = _undisturbed(lambda: op.infer(*specs, **attrs))
        constants = [x if x.__class__ in NUMBERS or x.__class__ is Variable else None for x in operands]
        step = OpStep(op, constants, attrs, isinstance(found, (tuple, list)))
        return self._keep(key, step, found if step.multiple else [found])

    def layer_step(
        self, key: Any, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], kinds: Sequence[Kind]
    ) -> LayerStep:
        """A call of a layer that comes for the first time."""
        if not all(x.built for x in layer.layers_below):
            raise UnilayersError("not built", where=layer.where)
        step = LayerStep(layer, current_phase(), args, kwargs)
        specs = [Spec(k.shape, k.dtype) for k in kinds]
        try:
            return self._keep(key, step, _undisturbed(lambda: step.sign(specs)))
        except Exception:
            self.refused.add(key)
            raise

    def _keep(self, key: Any, step: Any, specs: Sequence[Spec]) -> Any:
        if not all(isinstance(d, int) for s in specs for d in s.shape):
            raise UnilayersError("the shape depends on the numbers")
        step.kinds = [self.kind(tuple(s.shape), s.dtype) for s in specs]  # type: ignore[arg-type]
        if len(self.steps) >= STEPS:
            self.steps.clear()
            self.refused.clear()
            self._programs.clear()
        self.steps[key] = step
        return step

    # ---- what notes depend on beside values

    def _look(self, state: Sequence[Variable], trained: Sequence[Variable]) -> None:
        """See what is built in and how it is set, unless nothing has changed."""
        below = self._model.layers_below
        if self._judges is None:
            metrics = [m for _, m in self._objectives.all_metrics]
            optimizer = self._model.optimizer
            inner = getattr(optimizer, "inner_optimizer", None)
            found = [optimizer, inner, *metrics, *self._objectives.resolved_losses] if self._judged else []
            self._judges = [x for x in found if x is not None]
        now = [
            Layer.changes,
            floatx(),
            *below,
            *state,
            *trained,
            *[v.constraint for v in state],
            *[v.regularizer for v in state],
        ]
        for x in self._judges:
            now += vars(x).values()
        if len(now) == len(self._seen) and all(map(is_, now, self._seen)):
            return
        self._seen = now
        rules = [x for v in state for x in (v.constraint, v.regularizer)]
        self._allowed = all(_built_in(x, set()) for x in (*self._judges, *rules))
        plain = {x for x in below if _plain(x)}
        self.plain = {x for x in below if plain.issuperset(x.layers_below)}
        settings = (
            floatx(),
            *state,
            *trained,
            *[(x, *_settings(x)) for x in below if _is_ours(type(x))],
            *map(_settings, self._judges),
            *map(_frozen, rules),
        )
        self.stamp = self._stamps.setdefault(settings, len(self._stamps))


Finish = Callable[[Batch, list[Any], list[Any]], dict[str, Any]]


class Same:
    """An object as a part of a key, equal to itself only."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.it is self.it

    def __hash__(self) -> int:
        return id(self.it)


def _frozen(x: Any) -> Any:
    """A setting as a key."""
    if x is None or x.__class__ in CONSTANTS:
        return x.__class__, x or str(x)
    if isinstance(x, (list, tuple)):
        return x.__class__, *map(_frozen, x)
    return Same(x)


def _settings(x: Any) -> tuple[Any, ...]:
    """The public attributes of an object, and the schedule of an optimizer."""
    names = [k for k in vars(x) if (k[0] != "_" or k == "_schedule") and k not in BOOKKEEPING]
    return tuple([(k, _frozen(vars(x)[k])) for k in names])


def _is_ours(x: Any) -> bool:
    """Whether a class or function is a part of this package."""
    return (getattr(x, "__module__", None) or "").startswith("unilayers.")


def _plain(layer: Layer) -> bool:
    """Whether a layer does what this package says, apart from the layers in it."""
    if not _is_ours(type(layer)) or type(layer).__module__.startswith("unilayers.layers.preprocessing"):
        return False
    return all(_built_in(v, set()) for k, v in vars(layer).items() if k not in IGNORED)


def _built_in(x: Any, seen: set[int]) -> bool:
    """Whether there is nothing in an object that was written outside of this package."""
    if x is None or x.__class__ in CONSTANTS or isinstance(x, (np.ndarray, np.generic, Variable, Value, Layer)):
        return True
    if id(x) in seen:
        return True
    seen.add(id(x))
    if isinstance(x, (list, tuple, set, frozenset)):
        return all(_built_in(v, seen) for v in x)
    if x.__class__ is dict:
        return all(_built_in(v, seen) for v in (*x, *x.values()))
    if isinstance(x, (type, FunctionType)):
        return _is_ours(x)
    own = {k: v for k, v in getattr(x, "__dict__", {}).items() if k != "_constructor_call"}
    return _is_ours(type(x)) and _built_in(own, seen)


def _undisturbed(run: Callable[[], Any]) -> Any:
    """What ``run`` gives when nothing is noted or recorded."""
    defer, tapes = DEFER.set(None), TAPES.set(())
    try:
        return run()
    finally:
        TAPES.reset(tapes)
        DEFER.reset(defer)
