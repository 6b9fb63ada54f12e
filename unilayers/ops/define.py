"""How ops are defined and called.

``@primitive`` and ``@composite`` turn a function into an op: its record goes into ``OPS``, and the name that users call
dispatches. On a symbolic value the call records a node; on arrays it runs at once on the arrays' own backend.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import update_wrapper
from typing import Any, Protocol

import numpy as np

from unilayers.backend import Backend, backend_of, get_backend, ready
from unilayers.config import floatx
from unilayers.errors import BackendError, DTypeError, UnilayersError
from unilayers.graph import OPS, Op, Sample, Value, constant, is_tracing, make_node, schedule, tracing
from unilayers.graph.node import leaf
from unilayers.graph.operators import Operators
from unilayers.graph.passes import attrs_unknown
from unilayers.graph.record import no_cost, register
from unilayers.spec import Shape, Spec, broadcast_shapes, check_dtype, dtype_name, is_float, promote

# ---- operands ---------------------------------------------------------------


class Box(Operators):
    """A concrete array under a gradient tape: operators on it are recorded ops. ``source`` is the variable it shows."""

    __slots__ = ("array", "source")

    def __init__(self, array: Any, source: Any = None) -> None:
        self.array, self.source = array, source

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> str:
        return dtype_name(self.array.dtype)

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

    def as_operand(self, backend: Backend | None, device: str | None) -> Any: ...


class Recorder(Protocol):
    """A gradient tape, as the dispatcher sees it."""

    def watches(self, box: Box) -> bool: ...
    def record(
        self, op: Op, inputs: Sequence[Any], attrs: dict[str, Any], outputs: Sequence[Box], multiple: bool
    ) -> None: ...


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
        return dtype_name(x.dtype)
    if isinstance(x, (bool, int, float)):
        return _weak(x)
    return np.asarray(x).dtype.name


def _weak(x: bool | int | float) -> str:
    return "bool" if isinstance(x, bool) else "int32" if isinstance(x, int) else floatx()


def _is_weak(x: Any) -> bool:
    return isinstance(x, (bool, int, float)) and not isinstance(x, np.generic)


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


# ---- dispatch ---------------------------------------------------------------


def bind(op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """Apply ``op``: record it if any operand is symbolic (or tracing is on and there is none), else run it."""
    if any(isinstance(x, Value) for x in operands):
        return _record(op, operands, attrs)
    if is_tracing() and (not operands or any(hasattr(x, "as_operand") for x in operands)):
        return _record(op, operands, attrs)
    if not operands and attrs_unknown(attrs):
        return _record(op, operands, attrs)
    return _run(op, operands, attrs)


def _record(op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    values = [x.as_operand(None, None) if hasattr(x, "as_operand") else x for x in operands]
    if op.promotes is not None:
        target = _common_dtype(values[op.promotes :])
    for i, x in enumerate(values):
        promoted = op.promotes is not None and i >= op.promotes
        if not isinstance(x, Value):
            dtype = target if promoted else _weak(x) if _is_weak(x) else None
            values[i] = constant(to_numpy(x), dtype)
        elif promoted and x.dtype != target:
            values[i] = make_node(OPS["astype"], (x,), {"dtype": target})[0]
    outputs = make_node(op, values, attrs)
    return outputs if outputs[0].node.multiple else outputs[0]


def _run(op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    backend, device = _place(operands)
    if op.bodies:
        attrs = ready(attrs, op.bodies, backend, device)
    tapes = TAPES.get()
    readable = [x.as_operand(backend, device) if hasattr(x, "as_operand") else x for x in operands]
    taped = bool(tapes) and any(isinstance(x, Box) for x in readable)
    function = backend.table.get(op.name)
    if op.expand is not None and (function is None or taped) and not (taped and op.vjp is not None):
        moved = [x if isinstance(x, Box) or _is_weak(x) else _array(x, None, backend, device) for x in readable]
        return _expand(op, moved, attrs)
    # Under a tape a composite with a rule of its own is one step, fused or not, as it is in a graph.
    dtypes: list[str | None] = [None] * len(readable)
    if op.promotes is not None and len(readable) > op.promotes:
        target = _common_dtype(readable[op.promotes :])
        dtypes[op.promotes :] = [target] * (len(readable) - op.promotes)
    if taped:  # casts must be recorded too
        readable = [
            bind(OPS["astype"], (x,), {"dtype": d}) if isinstance(x, Box) and d and x.dtype != d else x
            for x, d in zip(readable, dtypes, strict=True)
        ]
    arrays = [_array(x, d, backend, device) for x, d in zip(readable, dtypes, strict=True)]
    try:
        result = function(*arrays, **attrs) if function else _expand(op, arrays, attrs)
    except Exception as error:
        raise _explain(op, arrays, attrs, error) from error
    if not any(isinstance(x, Box) for x in readable):
        return result
    outputs = tuple(Box(r) for r in (result if isinstance(result, (tuple, list)) else (result,)))
    for tape in tapes:
        watched = [tape.watches(x) for x in readable if isinstance(x, Box)]  # each: asking starts to watch a variable
        if any(watched):
            inputs = [x if isinstance(x, Box) else a for x, a in zip(readable, arrays, strict=True)]
            tape.record(op, inputs, attrs, outputs, isinstance(result, (tuple, list)))
    return outputs if isinstance(result, (tuple, list)) else outputs[0]


def _expand(op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """The op's expansion on arrays: what it does by operators are ops, too."""
    assert op.expand is not None, op
    result = op.expand(*(boxed(x) for x in operands), **attrs)
    if any(isinstance(x, Box) for x in operands):
        return result
    return tuple(map(unboxed, result)) if isinstance(result, (tuple, list)) else unboxed(result)


def boxed(x: Any) -> Any:
    """An engine's array in a box, so that operators on it are ops, not whatever the engine makes of ``array * 0.1``.
    NumPy arrays and all else stay: NumPy's operators mean the same."""
    plain = isinstance(x, (np.ndarray, np.generic, Box)) or not (hasattr(x, "shape") and hasattr(x, "dtype"))
    return x if plain or isinstance(x, Value) or hasattr(x, "as_operand") else Box(x)


def unboxed(x: Any) -> Any:
    """The array in a box; anything else as it is."""
    return x.array if isinstance(x, Box) else x


def _place(operands: Sequence[Any]) -> tuple[Backend, str]:
    """Where an eager op runs: where its arrays are. NumPy arrays and variables are guests: they move to the others."""
    hosts: list[tuple[Backend, str]] = []
    guests: list[tuple[Backend, str]] = []
    for x in operands:
        x = x.array if isinstance(x, Box) else x
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
    return backend, backend.device(None)


def _array(x: Any, dtype: str | None, backend: Backend, device: str) -> Any:
    """``x`` as an array of ``backend`` on ``device``, of ``dtype`` unless None."""
    x = x.array if isinstance(x, Box) else x
    if _is_weak(x) or isinstance(x, (list, tuple)):
        a = np.asarray(x)
        return backend.put([a.astype(dtype or (_weak(x) if _is_weak(x) else a.dtype))], device)[0]
    if backend.device_of(x) is None:
        x = backend.put([to_numpy(x)], device)[0]
    if dtype and dtype_name(x.dtype) != dtype:
        x = backend.table["astype"](x, dtype=dtype)
    return x


def put_beside(x: Any, array: np.ndarray) -> Any:
    """A NumPy array moved to where the concrete array x is, in a box if x is."""
    backend, device = _place([x])
    moved = backend.put([array], device)[0]
    return Box(moved) if isinstance(x, Box) else moved


def _explain(op: Op, arrays: Sequence[Any], attrs: dict[str, Any], error: Exception) -> Exception:
    """A message in our words where the shape rule knows what is wrong; the engine's own error otherwise."""
    if isinstance(error, UnilayersError):
        return error
    try:
        op.infer(*(Spec(tuple(a.shape), dtype_name(a.dtype)) for a in arrays), **attrs)
    except UnilayersError as ours:
        return ours.inside(f"op '{op.name}'")
    except Exception:
        return error
    return error


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
                promotes, tolerance, order, inspect.getdoc(expand) or "",
            )
        )  # fmt: skip

        def call(*args: Any, **kwargs: Any) -> Any:
            unknown = kwargs.keys() - defaults.keys()
            if unknown:
                raise TypeError(f"ops.{name}() has no argument {sorted(unknown)[0]!r}; it takes {sorted(defaults)}")
            return bind(op, args, {**defaults, **kwargs})

        return _named(call, expand, op)

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


__all__ = ["Box", "bind", "check_dtype", "composite", "dtype_of", "primitive", "shape_of", "to_numpy"]
