"""Functions compiled: traced once for each form of their arguments, then run as one graph on any backend."""

from __future__ import annotations

import inspect
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial, update_wrapper
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.backend import Backend, backend_of, get_backend
from unilayers.config import floatx
from unilayers.errors import BackendError, GraphError, UnilayersError
from unilayers.graph import Graph, Value, is_tracing, leaf
from unilayers.layers.base import current_phase
from unilayers.ops.define import DEFER, TAPES, Box, boxed
from unilayers.program import Program
from unilayers.spec import Spec, check_dtype, dtype_name
from unilayers.structure import map_structure
from unilayers.variable import Trace, Variable, autocast_dtype, current_trace, trace_into

KEPT = 64  # signatures; the one that was not used for longest goes
MANY = 16  # traces after which a warning says that tracing is what takes the time


def function(
    fn: Callable[..., Any] | None = None, *, backend: str | Backend | None = None, device: str | None = None
) -> Any:
    """Compile a function of arrays: it is traced once for each form of its arguments, and then runs as one graph.

    Arrays among the arguments (of NumPy or any engine, also inside lists, tuples and dicts) are the graph's inputs;
    shapes and dtypes belong to the form, the numbers in them do not. All else, Python numbers included, is fixed when
    the function is traced: another number is another form. So is a NumPy array that the function finds elsewhere.

    Variables that the function reads or assigns are state: each call finds their present values and leaves the new
    ones. So a training step with its gradients and its optimizer can be one function. Print, append to a list and so on
    happen only while it is traced.

    Called on symbolic values, or while something else is traced, the function becomes part of that graph. Under a
    `GradientTape` that watches an argument or a variable it reads, it runs op by op, so that it is differentiated.

    Args:
        fn: Written with ops or operators; returns arrays, numbers and Nones, nested as it likes. If left out, the
            result is a decorator.
        backend: Where to run. None: the engine of the array arguments, else that of the variables, else the default.
        device: A device of it.

    Returns:
        A `Function`, called like ``fn``; its arrays are the backend's.

    Example:
        >>> @function
        ... def shifted(x, by=1):
        ...     return {"sum": ops.sum(x) + by, "all": x + by}
        >>> shifted(np.array([1.0, 2.0]))
        {'sum': array(4.), 'all': array([2., 3.])}
        >>> print(shifted.graphs[0])
        input x: float64[2]
        v1: float64[] = sum(x, axis=(0,), keepdims=False)
        v2: float64[] = constant(value=1.)
        v3: float64[] = add(v1, v2)
        v4: float64[] = constant(value=1.)
        v5: float64[2] = add(x, v4)
        return sum = v3
        return all = v5
    """
    if fn is None:
        return partial(function, backend=backend, device=device)
    return Function(fn, backend, device)


@dataclass
class _Traced:
    """A graph with its variables, and the result's nesting with the outputs' names (or None) in it."""

    program: Program
    structure: Any

    def pack(self, outputs: Mapping[str, Any], finish: Callable[[Any], Any]) -> Any:
        if isinstance(self.structure, str):
            return finish(outputs[self.structure])
        return map_structure(lambda name: None if name is None else finish(outputs[name]), self.structure)


class Function:
    """A compiled function; see `function`, which makes it.

    Attributes:
        fn: The function as it was given.
        backend: Where it shall run, or None.
        device: The device, or None.
    """

    def __init__(self, fn: Callable[..., Any], backend: str | Backend | None = None, device: str | None = None) -> None:
        if not callable(fn):
            raise UnilayersError("not a function", where="ul.function", received=repr(fn))
        update_wrapper(self, fn, updated=())
        self.fn, self.backend, self.device = fn, backend, device
        self._name: str = getattr(fn, "__name__", None) or type(fn).__name__
        self._traced: OrderedDict[Any, _Traced] = OrderedDict()
        self._count = 0
        self._owner: Any = None

    def __repr__(self) -> str:
        return f"<function {self._name}, traced for {len(self._traced)} forms of its arguments>"

    def __reduce__(self) -> Any:  # a copy begins without graphs
        return Function, (self.fn, self.backend, self.device)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method: a function of its own for each object, kept by the object and gone with it."""
        if instance is None:
            return self
        if not hasattr(instance, "__dict__"):
            return types.MethodType(self, instance)
        key = f"_function_{self._name}"
        bound = vars(instance).get(key)
        if bound is None or bound._owner is not instance or bound.fn.__func__ is not self.fn:
            bound = Function(types.MethodType(self.fn, instance), self.backend, self.device)
            bound._owner = instance
            vars(instance)[key] = bound
        return bound

    @property
    def graphs(self) -> list[Graph]:
        """The graphs kept, one for each form of arguments; printing one shows it."""
        return [traced.program.graph for traced in self._traced.values()]

    def trace(self, *args: Any, **kwargs: Any) -> Graph:
        """The graph for arguments like these, without running it.

        ``to_json`` of it can be kept, and ``compile_graph`` of that run by a process that does not have the function.
        """
        arrays: list[Any] = []
        return self._find(_form((args, kwargs), arrays), args, kwargs).program.graph

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current_trace() is not None or is_tracing():
            return self.fn(*args, **kwargs)
        later = DEFER.get()
        if later is not None:
            noted = later.call(self.fn, args, kwargs)
            return self.fn(*args, **kwargs) if noted is NotImplemented else noted
        arrays: list[Any] = []
        try:
            form = _form((args, kwargs), arrays)
        except UnilayersError as error:
            raise error.inside(self._where) from None
        if any(isinstance(x, Value) for x in arrays) or _watched(arrays):
            return self._op_by_op(args, kwargs)
        traced = self._find(form, args, kwargs)
        if TAPES.get() and any(v.trainable for v in traced.program.variables):
            return self._op_by_op(args, kwargs)
        found = self._run(traced, [x.array if isinstance(x, Box) else x for x in arrays])
        boxes = any(isinstance(x, Box) for x in arrays)  # the caller's operators are ops, and shall stay so
        return traced.pack(found, boxed if boxes else _same)

    def _op_by_op(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.fn(*map_structure(boxed, args), **map_structure(boxed, kwargs))

    # ---- running

    def _run(self, traced: _Traced, arrays: Sequence[Any]) -> dict[str, Any]:
        try:
            backend, device = self._place(arrays, traced.program.variables)
            return traced.program.call(backend, device, arrays)
        except UnilayersError as error:
            raise error.inside(self._where) from None

    def _place(self, arrays: Sequence[Any], variables: Sequence[Variable]) -> tuple[Backend, str]:
        """Where to run: as told, else where engine's arrays among the arguments are, else where variables are."""
        there: tuple[Backend, str] | None = None
        wanted = get_backend(self.backend) if self.backend is not None else None
        hosts = [x for x in arrays if not isinstance(x, (np.ndarray, np.generic))]
        found = [(b, b.device_of(x) or "") for x in hosts if (b := backend_of(x)) is not None]
        if wanted is None and len({b.name for b, _ in found}) > 1:
            raise BackendError(
                f"arrays of two backends among the arguments: {' and '.join(sorted({b.name for b, _ in found}))}",
                fix="Convert one of them, or say where to run: ul.function(f, backend=...)",
            )
        placed = [(v.store.backend, v.store.device) for v in variables if v.store is not None]
        there = next((p for p in (*found, *placed) if wanted in (None, p[0])), None)
        if there is not None and self.device is None:
            return there
        backend = wanted or (there[0] if there else get_backend())
        return backend, _device(backend, self.device)

    # ---- tracing

    @property
    def _where(self) -> str:
        return f"function {self._name!r}"

    def _find(self, form: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Traced:
        key = (form, floatx(), autocast_dtype(), current_phase())
        traced = self._traced.get(key)
        if traced is not None:
            self._traced.move_to_end(key)
            return traced
        self._count_trace()
        tapes = TAPES.set(())  # symbolic values are differentiated by the tapes inside the function only
        try:
            traced, created = self._trace_once(args, kwargs)
            if created:  # what is created at the first call must be there at the next
                traced, again = self._trace_once(args, kwargs)
                if again:
                    raise UnilayersError(
                        f"creates the variable {again[0].path!r} anew whenever it is traced",
                        fix="Create variables outside, or only at the first call: if self.v is None: self.v = ...",
                    )
        except UnilayersError as error:
            raise error.inside(self._where) from None
        finally:
            TAPES.reset(tapes)
        self._traced[key] = traced
        if len(self._traced) > KEPT:
            self._traced.popitem(last=False)
        return traced

    def _count_trace(self) -> None:
        self._count += 1
        if self._count == MANY:
            warnings.warn(
                f"{self._where} was traced {MANY} times, which takes far longer than running it: numbers, strings and "
                "other objects among the arguments are part of what a trace is made for, and so are array shapes. "
                "Pass numbers that change as arrays, and pad data to a few shapes",
                stacklevel=4,
            )

    def _trace_once(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Traced, list[Variable]]:
        """The graph, and the variables that were created on the way."""
        inputs: list[Value] = []
        names: set[str] = set()

        def symbolic(x: Any, path: str) -> Any:
            if not _is_array(x):
                return x
            name = path if path not in names else f"{path}#{len(names)}"
            names.add(name)
            inputs.append(leaf("input", name, Spec(tuple(x.shape), _dtype(x.dtype))))
            return inputs[-1]

        trace = Trace()
        with trace_into(trace):
            paths = _positions(self.fn, len(args))
            given = [_map_paths(symbolic, x, path, sort=True) for x, path in zip(args, paths, strict=True)]
            named = {k: _map_paths(symbolic, kwargs[k], k, sort=True) for k in sorted(kwargs)}
            outputs: dict[str, Value] = {}
            result = self.fn(*given, **{k: named[k] for k in kwargs})
            structure = _map_paths(partial(_output, outputs), result, "")
        graph = trace.graph(inputs, outputs)
        _check_leaves(graph)
        return _Traced(Program(graph, trace.variables), structure), trace.created


# ---- arguments ----------------------------------------------------------------


class _Same:
    """An object as part of a key: equal to itself only, and alive as long as the key."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.it is self.it


_BY_VALUE = (int, bool, str, bytes, type(None), complex, type(...), range, frozenset, np.dtype)


def _form(x: Any, arrays: list[Any]) -> Any:
    """A key for arguments: the nesting, shapes and dtypes of arrays, and all else as it is. Fills ``arrays``."""
    kind = type(x)
    if kind is np.ndarray:
        arrays.append(x)
        return x.shape, _dtype(x.dtype)
    if kind is float:  # 0.0 and -0.0 are equal, NaN and NaN are not
        return kind, x.hex()
    if kind in _BY_VALUE:
        return kind, x
    if isinstance(x, dict):
        return kind, *((k, _form(x[k], arrays)) for k in sorted(x, key=str))
    if isinstance(x, (list, tuple)):
        return kind, *(_form(part, arrays) for part in x)
    if _is_array(x):
        arrays.append(x)
        return tuple(x.shape), _dtype(x.dtype)
    if isinstance(x, types.MethodType):  # made anew whenever it is looked up
        return kind, _Same(x.__self__), _Same(x.__func__)
    if isinstance(x, slice):
        return kind, *(_form(part, arrays) for part in (x.start, x.stop, x.step))
    return kind, _Same(x)


def _is_array(x: Any) -> bool:
    if isinstance(x, (np.ndarray, Value, Box)):
        return True
    if isinstance(x, np.generic):
        return not isinstance(x, (str, bytes))
    return hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, Variable) and backend_of(x) is not None


@cache
def _dtype(dtype: Any) -> str:
    return check_dtype(dtype_name(dtype))


@cache
def _device(backend: Backend, device: str | None) -> str:
    return backend.device(device)


def _watched(arrays: Sequence[Any]) -> bool:
    tapes = TAPES.get()
    return bool(tapes) and any(t.watches(x) for x in arrays if isinstance(x, Box) for t in tapes)


def _positions(fn: Callable[..., Any], count: int) -> list[str]:
    """Names for positional arguments: those of the parameters, ``args/0``... for the rest."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have none
        parameters = []
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    return (plain + [f"{rest}/{i}" for i in range(count)])[:count]


def _map_paths(change: Callable[[Any, str], Any], x: Any, path: str, *, sort: bool = False) -> Any:
    """``change(leaf, path)`` for each leaf of nested lists, tuples and dicts; dicts in the order of keys if asked."""
    before = f"{path}/" if path else ""
    if isinstance(x, dict):
        keys = sorted(x, key=str) if sort else list(x)
        changed = {k: _map_paths(change, x[k], f"{before}{k}", sort=sort) for k in keys}
        return {k: changed[k] for k in x}
    if isinstance(x, (list, tuple)):
        parts = [_map_paths(change, part, f"{before}{i}", sort=sort) for i, part in enumerate(x)]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return change(x, path)


# ---- results ------------------------------------------------------------------


def _same(x: Any) -> Any:
    return x


def _output(outputs: dict[str, Value], x: Any, path: str) -> Any:
    """Enter a leaf of the result among the outputs, under its path, and give its name there; None for None."""
    if x is None:
        return None
    x = x.array if isinstance(x, Box) else x
    if isinstance(x, Variable):
        x = ops.identity(x)
    elif isinstance(x, (bool, int, float)) or (_is_array(x) and not isinstance(x, Value)):
        x = ops.constant(x if isinstance(x, (bool, int)) else _host(x))
    if not isinstance(x, Value):
        raise UnilayersError(
            "the result is not an array" if not path else f"the result at {path!r} is not an array",
            expected="arrays, numbers and Nones, nested in lists, tuples and dicts",
            received=f"{type(x).__name__} {x!r}",
        )
    name = path or "output"
    name = name if name not in outputs else f"{name}#{len(outputs)}"
    outputs[name] = x
    return name


def _host(x: Any) -> np.ndarray:
    return np.asarray(x, floatx()) if isinstance(x, float) and not isinstance(x, np.generic) else ops.to_numpy(x)


def _check_leaves(graph: Graph) -> None:
    known = {v.node for v in (*graph.inputs, *graph.state)}
    stray = [n for n in graph.nodes if n.op in ("input", "state") and n not in known]
    if stray:
        raise GraphError(
            "a symbolic value from outside is used",
            received=f"{stray[0].attrs['name']!r}",
            fix="Pass it as an argument; keep what shall last from call to call in a Variable",
        )


__all__ = ["Function", "function"]
