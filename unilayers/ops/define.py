"""How ops are defined and called.

``@primitive`` and ``@composite`` turn a function into an op: its record goes into ``OPS``, and the name that users call
dispatches. On a symbolic value the call records a node; on arrays it runs at once on the arrays' own backend.
"""

from __future__ import annotations

import inspect
import itertools
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache, lru_cache, update_wrapper, wraps
from typing import Any, Protocol

import numpy as np

from unilayers.backend import Backend, backend_of, get_backend, ready
from unilayers.config import floatx
from unilayers.errors import BackendError, DTypeError, UnilayersError
from unilayers.graph import OPS, Const, Graph, Op, Sample, Value, constant, is_tracing, make_node, schedule, tracing
from unilayers.graph.emit import straight_line
from unilayers.graph.node import leaf
from unilayers.graph.operators import Operators
from unilayers.graph.passes import attrs_unknown, eliminate_common, lower, simplify
from unilayers.graph.record import no_cost, register
from unilayers.spec import Dim, Shape, Spec, broadcast_shapes, check_dtype, dtype_name, is_float, promote

# ---- operands ---------------------------------------------------------------


SERIALS = itertools.count()  # numbers by which tapes tell boxes and variables apart; never given twice


class Box(Operators):
    """A concrete array under a gradient tape: operators on it are recorded ops.

    ``source`` is the variable it shows, or None. All boxes of one variable have its serial number. ``mask`` is set by
    layers, see ``layers.base``.
    """

    __slots__ = ("__weakref__", "array", "mask", "serial", "source")

    def __init__(self, array: Any, source: Any = None) -> None:
        self.array, self.source = array, source
        self.serial: int = next(SERIALS) if source is None else source.serial

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> str:
        return name_of(self.array.dtype)

    @property
    def ndim(self) -> int:
        return len(self.array.shape)

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array."""
        return to_numpy(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype=dtype)

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.dtype} {self.numpy()!r}>"


class Readable(Protocol):
    """What a variable offers ops: a symbolic value while tracing, else its array on a backend, boxed under a tape."""

    serial: int
    trainable: bool

    def place(self) -> tuple[Backend, str]: ...
    def as_operand(self, backend: Backend | None, device: str | None) -> Any: ...


class Recorder(Protocol):
    """A gradient tape, as the dispatcher sees it."""

    def watches(self, box: Box) -> bool: ...
    def record(
        self, op: Op, inputs: Sequence[Any], arrays: Sequence[Any], watched: tuple[bool, ...], attrs: dict[str, Any],
        outputs: Sequence[Box], multiple: bool, place: Place,
    ) -> None:  # fmt: skip
        """``inputs`` holds boxes where there are some; ``arrays`` is what the op computed with."""
        ...


class Tracer(Protocol):
    """A trace that turns what is done with variables into a graph, as control flow sees it.

    Attributes:
        current: The present value of every variable that was assigned to.
        losses: Scalars that layers added to the loss.
    """

    current: dict[Any, Value]
    losses: list[Value]

    def read(self, variable: Any) -> Value: ...


TAPES: ContextVar[tuple[Recorder, ...]] = ContextVar("tapes", default=())
TRACE: ContextVar[Any] = ContextVar("trace", default=None)  # a Tracer, or None
DEFER: ContextVar[Any] = ContextVar("defer", default=None)  # takes the calls of ops to run them later, or None


def to_numpy(x: Any) -> np.ndarray:
    """Any array, box, variable or number as a NumPy array."""
    if isinstance(x, Box):
        x = x.array
    if hasattr(x, "as_operand"):
        x = x.as_operand(None, None)
        return to_numpy(x)
    if isinstance(x, (np.ndarray, np.generic, int, float, bool, list, tuple)):
        return np.asarray(x)
    backend = backend_of(x)
    if backend is None:
        raise UnilayersError("not an array of any installed backend", received=type(x).__name__)
    return backend.get(x)


def shape_of(x: Any) -> Shape:
    """The shape of anything ops accept; symbolic sizes are ``Dim``."""
    return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)


def dtype_of(x: Any) -> str:
    """The dtype name of anything ops accept; Python numbers count as floatx, int32 or bool."""
    if hasattr(x, "dtype"):
        return name_of(x.dtype)
    if isinstance(x, (bool, int, float, Dim)):
        return _weak(x)
    return np.asarray(x).dtype.name


name_of = lru_cache(maxsize=256)(dtype_name)  # NumPy takes a microsecond to name a dtype


def _weak(x: bool | int | float | Dim) -> str:
    return "bool" if isinstance(x, bool) else "int32" if isinstance(x, (int, Dim)) else floatx()


def _is_weak(x: Any) -> bool:
    return isinstance(x, (bool, int, float, Dim)) and not isinstance(x, np.generic)


def _common_dtype(operands: Sequence[Any]) -> str:
    """The dtype operands are promoted to; a Python number only changes the kind (int to float), never the width."""
    strong = [dtype_of(x) for x in operands if not _is_weak(x)]
    weak = [_weak(x) for x in operands if _is_weak(x)]
    if not strong:
        return promote(*weak)
    target = promote(*strong)
    for w in weak:
        if (is_float(w) and not is_float(target)) or (target == "bool" and w != "bool"):
            target = w
    return target


# ---- kinds of operands ------------------------------------------------------


class Host:
    """Whose arrays those of some type are. Arrays of one host compute together as they are.

    Attributes:
        backend: The backend.
        at_once: Its functions for eager use only.
        table: Its functions.
        guest: Whether they are NumPy's, which move to the arrays of others.
    """

    __slots__ = ("at_once", "backend", "guest", "table")

    def __init__(self, backend: Backend, guest: bool) -> None:
        self.backend, self.guest, self.table, self.at_once = backend, guest, backend.table, backend.at_once

    def device_of(self, array: Any) -> str:
        return "cpu" if self.guest else self.backend.device_of(array) or ""


Place = tuple[Backend, str]  # where an op runs: a backend and a device of it

# Kinds beside hosts.
SYMBOL, BOX, READABLE, NUMBER, OTHER = "symbol", "box", "readable", "number", "other"

_HOSTS: dict[type, Host] = {}  # by the array types met so far
_KINDS: dict[type, Any] = {}  # the hosts, and the kinds of all other types met
_host = cache(Host)


def _kind(x: Any) -> Any:
    """The host of an array, or which other kind of operand x is; decided once for each type."""
    cls = type(x)
    found = _KINDS.get(cls)
    if found is not None:
        return found
    if isinstance(x, (Value, Dim)):
        found = SYMBOL
    elif isinstance(x, Box):
        found = BOX
    elif hasattr(x, "as_operand"):
        found = READABLE
    elif _is_weak(x):
        found = NUMBER
    else:
        backend = None if isinstance(x, (list, tuple)) else backend_of(x)
        if backend is None:
            return OTHER
        found = _HOSTS[cls] = _host(backend, isinstance(x, (np.ndarray, np.generic)))
    _KINDS[cls] = found
    return found


def host_of(x: Any) -> Host | None:
    """The host of an array; None for anything else."""
    found = _KINDS.get(type(x)) or _kind(x)
    return found if found.__class__ is Host else None


# ---- masks --------------------------------------------------------------------
# A mask says which time steps of a (batch, time, ...) value count: bools of shape (batch, time). It travels on symbolic
# values and on boxes, from layer to layer.


def mask_of(x: Any) -> Any:
    """The mask that a layer has put on a value, or None."""
    return getattr(x, "mask", None) if isinstance(x, (Value, Box)) else None


def with_mask(x: Any, mask: Any) -> Any:
    """The value with a mask; a concrete array in a box."""
    x = x if isinstance(x, (Value, Box)) else Box(x)
    x.mask = mask
    return x


# ---- dispatch ---------------------------------------------------------------


def bind(op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """Apply ``op``: record it if any operand is symbolic (or tracing is on and there is none), else run it."""
    later = DEFER.get()
    if later is not None:
        return later.record(op, operands, attrs)
    # Most calls have arrays of one engine and one dtype: nothing is to be moved, promoted or recorded.
    host = None
    for x in operands:
        found = _HOSTS.get(type(x))
        if found is None or (found is not host and host is not None):
            return _bind(op, operands, attrs)
        host = found
    if host is None or op.bodies:
        return _bind(op, operands, attrs)
    function = host.at_once.get(op.name) or host.table.get(op.name)
    if function is None:
        return _bind(op, operands, attrs)
    if op.promotes is not None and len(operands) > 1:
        dtype = operands[-1].dtype
        for x in operands[op.promotes : -1]:
            if x.dtype != dtype:
                return _bind(op, operands, attrs)
    try:
        return function(*operands, **attrs)
    except Exception as error:
        raise _explain(op, operands, attrs, error) from error


def _bind(op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    if op.promotes == 0 and len(operands) == 2:
        pair = _with_number(*operands)
        if pair is not None:
            return bind(op, pair, attrs)
    kinds = []
    reads = not operands
    for x in operands:
        kind = _KINDS.get(type(x)) or _kind(x)
        if kind is SYMBOL:
            return _record(op, operands, attrs)
        if kind is READABLE:
            reads = True
        kinds.append(kind)
    if reads and (is_tracing() or (not operands and attrs_unknown(attrs))):
        return _record(op, operands, attrs)
    return _run(op, operands, kinds, attrs)


def _record(op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    values = [x.as_operand(None, None) if hasattr(x, "as_operand") else x for x in operands]
    if op.promotes is not None:
        target = _common_dtype(values[op.promotes :])
    for i, x in enumerate(values):
        promoted = op.promotes is not None and i >= op.promotes
        if not isinstance(x, Value):
            dtype = target if promoted else dtype_of(x)
            size = make_node(OPS["size_value"], (), {"value": x, "dtype": dtype}) if isinstance(x, Dim) else ()
            values[i] = size[0] if size else constant(to_numpy(x), dtype)
        elif promoted and x.dtype != target:
            values[i] = make_node(OPS["astype"], (x,), {"dtype": target})[0]
    outputs = make_node(op, values, attrs)
    return outputs if outputs[0].node.multiple else outputs[0]


# ---- running at once --------------------------------------------------------


def _run(op: Op, operands: Sequence[Any], kinds: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """Run on arrays; boxes among the operands make boxes of the results, and the tapes that watch them record."""
    tapes = TAPES.get()
    gathered = _gather(op, operands, kinds)
    place, readable = gathered[:2] if gathered else _gather_any(operands)
    watching = _watching(tapes, readable) if tapes else ()
    if watching and op.expand is not None and op.vjp is None:  # recorded as its parts
        return op.expand(
            *(x if x.__class__ is Box or _is_weak(x) else boxed(_array(x, None, *place)) for x in readable), **attrs
        )
    if gathered:
        arrays = gathered[2]
    else:
        readable, arrays = _promoted(op, readable, place, bool(watching))
        watching = _watching(tapes, readable) if watching else ()  # casts are recorded, too
    try:
        result = _compute(op, arrays, place, attrs)
    except Exception as error:
        raise _explain(op, arrays, attrs, error) from error
    for x in readable:
        if x.__class__ is Box:
            break
    else:
        return result
    if isinstance(result, (tuple, list)):
        outputs: Any = tuple([Box(r) for r in result])
        for tape, watched in watching:
            tape.record(op, readable, arrays, watched, attrs, outputs, True, place)
        return outputs
    output = Box(result)
    for tape, watched in watching:
        tape.record(op, readable, arrays, watched, attrs, (output,), False, place)
    return output


Watching = Sequence[tuple[Recorder, tuple[bool, ...]]]


def _watching(tapes: Sequence[Recorder], readable: Sequence[Any]) -> Watching:
    """The tapes that watch some operand, each with which ones. All are asked: asking starts to watch a variable."""
    found = []
    for tape in tapes:
        watched = tuple([x.__class__ is Box and tape.watches(x) for x in readable])
        if True in watched:
            found.append((tape, watched))
    return found


def _compute(op: Op, arrays: Sequence[Any], place: Place, attrs: dict[str, Any]) -> Any:
    """The op on arrays that are in place: by the backend's function, or by what the op expands to."""
    function = place[0].at_once.get(op.name) or place[0].table.get(op.name)
    if function is not None:
        return function(*arrays, **(ready(attrs, op.bodies, *place) if op.bodies else attrs))
    plan = _expansion(op, arrays, place, attrs)
    if plan is not None:
        return plan(arrays)
    assert op.expand is not None, op
    result = op.expand(*map(boxed, arrays), **attrs)
    return tuple(map(unboxed, result)) if isinstance(result, (tuple, list)) else unboxed(result)


def boxed(x: Any) -> Any:
    """An engine's array in a box, so that operators on it are ops, not whatever the engine makes of ``array * 0.1``.
    NumPy arrays and all else stay: NumPy's operators mean the same."""
    host = host_of(x)
    return x if host is None or host.guest else Box(x)


def unboxed(x: Any) -> Any:
    """The array in a box; anything else as it is."""
    return x.array if isinstance(x, Box) else x


# ---- operands as arrays of one place: the usual cases -----------------------

Gathered = tuple[Place, list[Any], list[Any]]  # where; the operands, variables read; the same as arrays, promoted


def _gather(op: Op, operands: Sequence[Any], kinds: Sequence[Any]) -> Gathered | None:
    """Arrays and boxes of one host, variables and numbers. None if something else has to be moved or cast."""
    readable, arrays = list(operands), list(operands)
    host = sample = None
    for i, kind in enumerate(kinds):
        if kind is BOX:
            arrays[i] = x = operands[i].array
            kind = _HOSTS.get(type(x)) or _kind(x)
        if kind.__class__ is Host:
            if host is None:
                host, sample = kind, arrays[i]
            elif kind is not host:
                return None
        elif kind is OTHER:
            return None
    if READABLE in kinds:
        if host is None:
            place = operands[kinds.index(READABLE)].place()
        else:
            place = (host.backend, host.device_of(sample))
            if host.guest and operands[kinds.index(READABLE)].place() != place:
                return None
        for i, kind in enumerate(kinds):
            if kind is READABLE:
                readable[i] = x = operands[i].as_operand(*place)
                arrays[i] = unboxed(x)
    elif host is None:
        return None
    else:
        place = (host.backend, host.device_of(sample))
    start, dtype = len(arrays) if op.promotes is None else op.promotes, None
    for i in range(start, len(arrays)):
        if kinds[i] is not NUMBER:
            if dtype is None:
                dtype = arrays[i].dtype
            elif arrays[i].dtype != dtype:
                return None
    if NUMBER in kinds:
        for i, kind in enumerate(kinds):
            if kind is NUMBER:
                array = _number(operands[i], dtype if i >= start else None, place)
                if array is None:
                    return None
                arrays[i] = array
    return place, readable, arrays


def _number(x: bool | int | float, dtype: Any, place: Place) -> Any:
    """A Python number as an array: of the others' dtype, or None if it would change theirs; by itself (``dtype`` None)
    one of its own."""
    if dtype is None:
        return _scalar(x, _weak(x), place)
    name = name_of(dtype)
    if x.__class__ is float:
        if not is_float(name):
            return None
    elif name == "bool" and x.__class__ is not bool:
        return None
    try:
        return _kept_scalar(x, x or str(x), name, place)
    except NotLasting:
        return _scalar(x, name, place)


def _with_number(a: Any, b: Any) -> tuple[Any, Any] | None:
    """An array and a number, the most usual pair, as two arrays; None for other pairs."""
    host = _HOSTS.get(type(a))
    if host is not None:
        if _KINDS.get(type(b)) is NUMBER:
            b = _number(b, a.dtype, (host.backend, host.device_of(a)))
            return None if b is None or type(b) not in _HOSTS else (a, b)
    elif _KINDS.get(type(a)) is NUMBER:
        host = _HOSTS.get(type(b))
        if host is not None:
            a = _number(a, b.dtype, (host.backend, host.device_of(b)))
            return None if a is None or type(a) not in _HOSTS else (a, b)
    return None


def _scalar(x: bool | int | float, dtype: str, place: Place) -> Any:
    backend, device = place
    return backend.put_as([x], [dtype], device)[0]


@lru_cache(maxsize=4096, typed=True)  # typed, since 1 and 1.0 are equal, and with the sign of 0.0 in the second
def _kept_scalar(x: bool | int | float, exact: Any, dtype: str, place: Place) -> Any:
    """A number beside arrays: the op's result cannot be this very array, so that one serves for all."""
    return _lasting(_scalar(x, dtype, place), place[0])


class NotLasting(Exception):
    """Arrays made inside another framework's trace stand for nothing outside of it."""


def _lasting(array: Any, backend: Backend) -> Any:
    try:
        backend.get(array)
    except Exception as error:  # each framework has its own
        raise NotLasting from error
    return array


# ---- operands as arrays of one place: all cases -----------------------------


def _gather_any(operands: Sequence[Any]) -> tuple[Place, list[Any]]:
    """Where any operands compute, and the operands with variables read."""
    place = _place(operands)
    return place, [x.as_operand(*place) if hasattr(x, "as_operand") else x for x in operands]


def _promoted(op: Op, readable: Sequence[Any], place: Place, taped: bool) -> tuple[list[Any], list[Any]]:
    """The operands, and the same as arrays, moved and promoted. Casts of boxes are ops that a tape sees."""
    dtypes: list[str | None] = [None] * len(readable)
    if op.promotes is not None and len(readable) > op.promotes:
        target = _common_dtype(readable[op.promotes :])
        dtypes[op.promotes :] = [target] * (len(readable) - op.promotes)
    if taped:
        readable = [
            bind(OPS["astype"], (x,), {"dtype": d}) if isinstance(x, Box) and d and x.dtype != d else x
            for x, d in zip(readable, dtypes, strict=True)
        ]
    arrays = [_array(x, d, *place) for x, d in zip(readable, dtypes, strict=True)]
    return [_with_array(x, a) if isinstance(x, Box) else x for x, a in zip(readable, arrays, strict=True)], arrays


def _with_array(box: Box, array: Any) -> Box:
    """The box, where its array has been moved to."""
    if array is box.array:
        return box
    moved = Box(array)
    moved.source, moved.serial = box.source, box.serial
    return moved


def _place(operands: Sequence[Any]) -> Place:
    """Where an eager op runs: where its arrays are. NumPy arrays and variables are guests: they move to the others."""
    hosts: list[Place] = []
    guests: list[Place] = []
    for x in operands:
        x = unboxed(x)
        if _is_weak(x) or isinstance(x, (list, tuple)):
            continue
        if hasattr(x, "as_operand"):
            guests.append(x.place())
            continue
        backend = backend_of(x)
        if backend is None:
            raise UnilayersError("not an array of any installed backend", received=type(x).__name__)
        place = (backend, backend.device_of(x) or "")
        (guests if isinstance(x, (np.ndarray, np.generic)) else hosts).append(place)
    names = {b.name for b, _ in hosts}
    if len(names) > 1:
        raise BackendError(
            f"arrays of two backends in one op: {' and '.join(sorted(names))}", fix="Convert one of them"
        )
    if hosts or guests:
        return (hosts or guests)[0]
    backend = get_backend()
    return backend, home(backend)


@cache
def home(backend: Backend) -> str:
    """The device that a backend uses unless told."""
    return backend.device(None)


def _array(x: Any, dtype: str | None, backend: Backend, device: str) -> Any:
    """``x`` as an array of ``backend`` on ``device``, of ``dtype`` unless None."""
    x = unboxed(x)
    if _is_weak(x) or isinstance(x, (list, tuple)):
        a = np.asarray(x)
        dtype = dtype or (_weak(x) if _is_weak(x) else name_of(a.dtype))
        return backend.put_as([a], [dtype], device)[0]
    if backend.device_of(x) is None:
        x = backend.put_as([to_numpy(x)], [dtype_of(x)], device)[0]
    if dtype and name_of(x.dtype) != dtype:
        x = backend.table["astype"](x, dtype=dtype)
    return x


def put_beside(x: Any, array: np.ndarray, dtype: str | None = None) -> Any:
    """A NumPy array moved to where the concrete array x is, in a box if x is; of its dtype unless given."""
    backend, device = _place([x])
    moved = backend.put_as([array], [dtype or array.dtype.name], device)[0]
    return Box(moved) if isinstance(x, Box) else moved


def constant_beside(x: Any, value: Const) -> Any:
    """A constant of a graph as an operand beside the concrete array x."""
    own = value.array.dtype.name == value.dtype
    return value.array if own else put_beside(x, value.array, value.dtype)


def _explain(op: Op, arrays: Sequence[Any], attrs: dict[str, Any], error: Exception) -> Exception:
    """A message in our words where the shape rule knows what is wrong; the engine's own error otherwise."""
    if isinstance(error, UnilayersError):
        return error
    try:
        op.infer(*(Spec(tuple(a.shape), name_of(a.dtype)) for a in arrays), **attrs)
    except UnilayersError as ours:
        return ours.inside(f"op '{op.name}'")
    except Exception:
        return error
    return error


# ---- plans: graphs of a few ops, ready to run on arrays ---------------------

Plan = Callable[[Sequence[Any]], Any]
PLANS = 4096  # how many are kept of each kind


def signature(op: Op, arrays: Sequence[Any], place: Place, attrs: dict[str, Any]) -> tuple[Any, ...] | None:
    """What a plan for an op depends on, as a key; None if none is to be kept."""
    if op.bodies:
        return None
    parts = [op, *place, floatx()]
    for a in arrays:
        parts += a.shape, a.dtype
    for name, v in attrs.items():  # with the types, as 1, 1.0 and True are equal, and with the sign of 0.0
        parts += name, v.__class__, v if v.__class__ is not float or v else str(v)
    return tuple(parts)


class Plans(dict[Any, Any]):
    """Plans by signature; the oldest go when there are too many."""

    def keep(self, key: Any, plan: Any) -> Any:
        while len(self) >= PLANS:
            self.pop(next(iter(self)), None)
        self[key] = plan
        return plan


_expansions = Plans()
_met = Plans()  # signatures met once: a plan costs more than running op by op, so only the second call makes one


def _expansion(op: Op, arrays: Sequence[Any], place: Place, attrs: dict[str, Any]) -> Plan | None:
    """What a composite op expands to, as one function of arrays."""
    key = signature(op, arrays, place, attrs) if arrays else None
    if key is None:
        return None
    try:
        if key in _expansions:
            return _expansions[key]
    except TypeError:  # an attribute that cannot be hashed
        return None
    if key not in _met:
        return _met.keep(key, None)
    leaves = [leaf("input", f"x{i}", spec_of(a)) for i, a in enumerate(arrays)]
    with tracing():
        result = op.expand(*leaves, **attrs)  # type: ignore[misc]
    multiple = isinstance(result, (tuple, list))
    outputs = tuple(result) if multiple else (result,)
    try:
        plan = runnable(leaves, outputs, place)
    except NotLasting:
        return None
    if plan is None:
        return _expansions.keep(key, None)
    return _expansions.keep(key, plan if multiple else lambda arrays: plan(arrays)[0])


def spec_of(array: Any) -> Spec:
    return Spec(tuple(array.shape), name_of(array.dtype))


def runnable(inputs: Sequence[Value], outputs: Sequence[Value], place: Place) -> Plan | None:
    """A graph as a function of arrays that gives a tuple of arrays; None where a result would always be the same array.

    Raises:
        NotLasting: inside another framework's trace.
    """
    backend, device = place
    graph = Graph(tuple(inputs), (), {str(i): v for i, v in enumerate(outputs)})
    table: Mapping[str, Callable[..., Any]] = ChainMap({}, backend.at_once, backend.table)  # type: ignore[arg-type]
    graph = simplify(eliminate_common(lower(graph, table)))
    moving = set(graph.inputs)
    for node in graph.nodes:
        if any(v in moving for v in node.inputs):
            moving.update(node.outputs)
    if not all(v in moving for v in graph.outputs.values()):  # a kept constant must not get into the user's hands
        return None
    step = straight_line(graph, table, lambda a: _lasting(backend.put([a], device)[0], backend))
    return lambda arrays: tuple(step((), arrays)[1].values())  # type: ignore[arg-type]


# ---- definition -------------------------------------------------------------

Samples = Callable[[np.random.Generator], list[Sample]]


def _signature(function: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Operand names (``*xs`` for any number) and attribute defaults of an op's Python signature."""
    operands, defaults = [], {}
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            operands.append("*" + p.name)
        elif p.kind is p.KEYWORD_ONLY:
            defaults[p.name] = None if p.default is p.empty else p.default
        else:
            operands.append(p.name)
    return tuple(operands), defaults


def primitive(
    *,
    infer: Callable[..., Any],
    vjp: Callable[..., Any] | None = None,
    cost: Callable[..., Any] = no_cost,
    reference: Callable[..., Any] | None = None,
    samples: Samples | None = None,
    promotes: int | None = None,
    tolerance: float = 1e-5,
    order: int = 2,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Define an op that every backend has in its table.

    The decorated function checks and normalises the arguments and returns ``(operands, attrs)``.
    """

    def decorate(prepare: Callable[..., Any]) -> Callable[..., Any]:
        name = prepare.__name__.rstrip("_")
        operands, _ = _signature(prepare)
        op = register(
            Op(
                name, infer, vjp, None, cost, reference, samples, infer_defaults(infer), operands, promotes,
                tolerance, order, inspect.getdoc(prepare) or "",
            )
        )  # fmt: skip

        def call(*args: Any, **kwargs: Any) -> Any:
            values, attrs = prepare(*args, **kwargs)
            return bind(op, values, attrs)

        return _named(call, prepare, op)

    return decorate


def infer_defaults(infer: Callable[..., Any]) -> dict[str, Any]:
    """The attributes of a primitive are the keyword arguments of its shape rule."""
    return _signature(infer)[1]


def composite(
    *,
    infer: Callable[..., Any] | None = None,
    vjp: Callable[..., Any] | None = None,
    cost: Callable[..., Any] | None = None,
    reference: Callable[..., Any] | None = None,
    samples: Samples | None = None,
    promotes: int | None = None,
    tolerance: float = 1e-5,
    order: int = 2,
    kept: int = 0,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Define an op by its expansion: the decorated function, written with other ops.

    Without ``infer`` the output spec is that of the expansion; without ``vjp`` so is the gradient; without ``cost`` so
    is the cost.
    """

    def decorate(expand: Callable[..., Any]) -> Callable[..., Any]:
        name = expand.__name__.rstrip("_")
        operands, defaults = _signature(expand)

        def trace(*specs: Spec, **attrs: Any) -> tuple[list[Value], Any]:
            inputs = [leaf("input", f"x{i}", s) for i, s in enumerate(specs)]
            with tracing():
                return inputs, expand(*inputs, **attrs)

        def inferred(*specs: Spec, **attrs: Any) -> Any:
            _, result = trace(*specs, **attrs)
            return tuple(v.spec for v in result) if isinstance(result, (tuple, list)) else result.spec

        def summed_cost(*specs: Spec, **attrs: Any) -> Any:
            inputs, result = trace(*specs, **attrs)
            nodes = schedule(inputs, result if isinstance(result, (tuple, list)) else [result])
            return sum(OPS[n.op].cost(*(v.spec for v in n.inputs), **n.attrs) for n in nodes)

        op = register(
            Op(
                name, infer or inferred, vjp, expand, cost or summed_cost, reference, samples, defaults, operands,
                promotes, tolerance, order, inspect.getdoc(expand) or "", kept=kept,
            )
        )  # fmt: skip

        count = None if any(o.startswith("*") for o in operands) else len(operands)

        def call(*args: Any, **kwargs: Any) -> Any:
            if count is not None and len(args) != count:
                args, kwargs = _placed(op, args, kwargs)
            unknown = kwargs.keys() - defaults.keys()
            if unknown:
                raise TypeError(f"ops.{name}() has no argument {sorted(unknown)[0]!r}; it takes {sorted(defaults)}")
            return bind(op, args, {**defaults, **kwargs})

        call = _named(call, expand, op)
        if count is not None:
            parameters = inspect.signature(expand).parameters.values()
            call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
                [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in parameters]
            )
        return call

    return decorate


def _placed(op: Op, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Operands that came by name, brought to their places, and attributes that came by place, to their names."""
    names = (*op.operands, *op.defaults)
    given = dict(zip(names, args, strict=False))
    twice, missing = given.keys() & kwargs.keys(), op.operands[len(args) :]
    missing = tuple(n for n in missing if n not in kwargs)
    if len(args) > len(names) or twice or missing:
        what = f"lacks {missing[0]!r}" if missing else f"takes {sorted(twice)[0]!r} once" if twice else "takes fewer"
        raise TypeError(f"ops.{op.name}() {what}; its arguments are {', '.join(names)}")
    given |= kwargs
    return tuple(given.pop(n) for n in op.operands), given


def namespace(module: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a module under whose name all ops can be found, too."""

    def find(name: str) -> Any:
        from unilayers import ops

        if not name.startswith("_") and hasattr(ops, name):
            return getattr(ops, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    def names() -> list[str]:
        from unilayers import ops

        return [name for name in vars(ops) if not name.startswith("_")]

    return find, names


def also(**names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: further names under which arguments can be given, ``@also(minimum="x_min")``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for other in kwargs.keys() & names.keys():
                if names[other] in kwargs:
                    raise TypeError(f"{function.__name__}() takes {names[other]!r} or {other!r}, not both")
                kwargs[names[other]] = kwargs.pop(other)
            return function(*args, **kwargs)

        return call

    return decorate


def _named(call: Callable[..., Any], source: Callable[..., Any], op: Op) -> Callable[..., Any]:
    if source is not call:
        update_wrapper(call, source)
    call.__name__ = call.__qualname__ = op.name
    call.op = op  # type: ignore[attr-defined]
    return call


# ---- rules shared by families -----------------------------------------------


def same_spec(x: Spec, **attrs: Any) -> Spec:
    return x


def broadcast_spec(*specs: Spec) -> Spec:
    """Result of an elementwise op on promoted operands."""
    return Spec(broadcast_shapes(*(s.shape for s in specs)), specs[-1].dtype)


def per_element(flops: int = 1) -> Callable[..., Any]:
    """Cost rule: this many operations for each element of the broadcast operands."""

    def cost(*specs: Spec, **attrs: Any) -> Any:
        size: Any = Spec(broadcast_shapes(*(s.shape for s in specs)), "float32").size
        return size * flops

    return cost


def require_float(dtype: str) -> None:
    if not is_float(dtype):
        raise DTypeError("needs a float operand", received=dtype, fix="Use ops.astype(x, 'float32')")


__all__ = ["Box", "also", "bind", "check_dtype", "composite", "dtype_of", "primitive", "shape_of", "to_numpy"]
