"""Variables: named state that ops can read, wherever it lives now; and the trace that makes it graph state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np

from unilayers import ops
from unilayers.backend import Array, Backend, get_backend
from unilayers.config import floatx
from unilayers.errors import ShapeError
from unilayers.graph import Graph, Value, leaf, tracing
from unilayers.graph.operators import Operators
from unilayers.ops.define import DEFER, SERIALS, TAPES, TRACE, Box, home, host_of, unboxed
from unilayers.spec import Spec, check_dtype, dtype_name, host_dtype, is_float

_AUTOCAST: ContextVar[str | None] = ContextVar("autocast", default=None)
_PLACE: ContextVar[tuple[Backend, str] | None] = ContextVar("place", default=None)


@contextmanager
def reading_at(place: tuple[Backend, str] | None) -> Iterator[None]:
    """Inside the block variables that were not put on any device yet are read on this one; None changes nothing."""
    token = _PLACE.set(place or _PLACE.get())
    try:
        yield
    finally:
        _PLACE.reset(token)


@contextmanager
def autocast(dtype: str | None) -> Iterator[None]:
    """Inside the block float variables are read in this dtype, if that is not None; they stay what they are, and what
    is assigned to them is cast to their own dtype. Layers that compute in another dtype than their weights' call
    themselves in such a block.

    Example:
        >>> v = Variable(np.ones(2), name="scale")
        >>> with autocast("float16"):
        ...     v.dtype, ops.multiply(v, 2.0)
        ('float16', array([2., 2.], dtype=float16))
        >>> v.dtype, v.numpy()
        ('float32', array([1., 1.], dtype=float32))
    """
    token = _AUTOCAST.set(dtype)
    try:
        yield
    finally:
        _AUTOCAST.reset(token)


def autocast_dtype() -> str | None:
    """The dtype that float variables are read in now; None: their own."""
    return _AUTOCAST.get()


class Store:
    """State on one device: the arrays of a group of variables, put there together.

    Variables read through their store, so a training loop can replace the arrays at every step without telling them.
    ``packed`` is false once an array was replaced from outside and the group no longer is as ``put`` laid it out;
    ``foreign`` are the numbers of such arrays, which may share memory with others.
    """

    def __init__(self, backend: Backend, device: str, arrays: list[Array]) -> None:
        self.backend, self.device, self.arrays = backend, device, arrays
        self.packed = True
        self.foreign: set[int] = set()

    def own(self) -> None:
        """Copy foreign arrays, before a compiled step overwrites its state."""
        for i in self.foreign:
            self.arrays[i] = self.copied(i)
        self.foreign.clear()

    def copied(self, index: int) -> Array:
        """A copy of an array, on the device."""
        given = self.arrays[index]
        copied = self.backend.table["identity"](given)
        if copied is not given:
            return copied
        host = given if isinstance(given, np.ndarray) else self.backend.get(given)
        return self.backend.put_as([host], [dtype_name(given.dtype)], self.device)[0]


class Variable(Operators):
    """A named array that a model keeps: a weight, an optimizer slot, a metric's sum.

    Args:
        initial: The value, or a function ``f(path) -> array`` called at the first read, when the path is known.
        shape: Shape, if ``initial`` is a function.
        dtype: Dtype; the default float dtype if None.
        trainable: Whether gradients are wanted.
        name: Short name: ``kernel``.
        path: Full name, or a function that gives it.
        autocast: Whether layers that compute in another dtype read it in that one.

    Example:
        >>> v = Variable(np.zeros(2), name="total")
        >>> v.assign([1.0, 2.0])
        >>> v.numpy()
        array([1., 2.], dtype=float32)
    """

    made: ClassVar[int] = 0  # how many there have been: what has come to be since can be seen by it

    def __init__(
        self,
        initial: Any,
        shape: Sequence[int] | None = None,
        dtype: str | None = None,
        trainable: bool = True,
        name: str = "variable",
        path: str | Callable[[], str] = "",
        autocast: bool = True,
    ) -> None:
        self.name, self.trainable = name, trainable
        self.serial = next(SERIALS)
        self._dtype = check_dtype(dtype or floatx())
        self.autocast = autocast and is_float(self._dtype)
        self._path = path
        self._initial: Any = initial if callable(initial) else None
        self._host: np.ndarray | None = None if callable(initial) else np.array(initial, self._host_dtype)
        self.shape: tuple[int, ...] = tuple(shape if shape is not None else np.shape(initial))
        self.store: Store | None = None
        self.index = 0
        self._copy: tuple[Backend, str, Array] | None = None  # without a store: the value where it was read last
        self.regularizer: Any = None
        self.constraint: Any = None
        self.is_weight = True  # counters and the like are kept and saved, but are no weights
        Variable.made += 1
        trace = current_trace()
        if trace is not None:
            trace.created.append(self)

    @property
    def path(self) -> str:
        """The name that is unique in the model: ``conv2d/kernel``."""
        return (self._path() if callable(self._path) else self._path) or self.name

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> str:
        """The dtype that the variable is read in: its own, unless a layer computes in another one; see `autocast`."""
        return self.cast_to or self._dtype

    @property
    def cast_to(self) -> str | None:
        """The dtype that the variable is read in now if that is not its own."""
        wanted = _AUTOCAST.get()
        return wanted if wanted is not None and self.autocast and wanted != self._dtype else None

    @property
    def spec(self) -> Spec:
        """Shape and dtype as they are kept."""
        return Spec(self.shape, self._dtype)

    @property
    def _host_dtype(self) -> str:
        return host_dtype(self._dtype)

    def __repr__(self) -> str:
        return f"<Variable {self.path} {self.spec}>"

    # ---- reading

    def numpy(self) -> np.ndarray:
        """The current value as a NumPy array of its own."""
        if self.store is not None:
            return self.store.backend.get(self.store.arrays[self.index])
        return self._materialised().copy()

    def copied(self) -> Array:
        """A copy of the current value, where it is."""
        return self.numpy() if self.store is None else self.store.copied(self.index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype=dtype)

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __len__(self) -> int:
        return self.shape[0]

    def _materialised(self) -> np.ndarray:
        if self._host is None and self._copy is not None:
            self._host = self._copy[0].get(self._copy[2])
        if self._host is None:
            self._host = np.asarray(self._initial(self.path), self._host_dtype)
            if self._host.shape != self.shape:
                raise ShapeError(
                    "initializer gave another shape",
                    where=self.path,
                    expected=str(self.shape),
                    received=str(self._host.shape),
                )
        return self._host

    @property
    def drawn(self) -> bool:
        """Whether the initial value exists already."""
        return self.store is not None or self._host is not None or self._copy is not None

    def forget(self) -> None:
        """Draw the initial value again at the next read, by the path that the variable has then; for one without a
        store whose value came from its initializer."""
        if self._initial is not None and self.store is None:
            self._host = self._copy = None

    def place(self) -> tuple[Backend, str]:
        """The backend and device the value is on now."""
        if self.store is not None:
            return self.store.backend, self.store.device
        here = _PLACE.get()
        return here if here is not None else ((backend := get_backend()), home(backend))

    def as_operand(self, backend: Backend | None, device: str | None) -> Any:
        """What an op computes with: a symbolic value in a trace, else the array on ``backend``, boxed under a tape. A
        cast is an op itself, so that gradients come back in the variable's own dtype."""
        trace, wanted = TRACE.get(), self.cast_to
        if trace is not None:
            found = trace.read(self)
        else:
            array = self._array(backend, device)
            found = Box(array, self) if TAPES.get() else array
        return found if wanted is None else ops.astype(found, wanted)

    def _array(self, backend: Backend | None, device: str | None) -> Array:
        """The array on a backend and device; None: where it is."""
        store = self.store
        if store is not None:
            if (backend is None or backend is store.backend) and (device is None or device == store.device):
                return store.arrays[self.index]
            backend, device = backend or store.backend, device or store.device
            return backend.put_as([self.numpy()], [self._dtype], device)[0]
        if backend is None or device is None:
            here, where = self.place()
            backend, device = backend or here, device or where
        copy = self._copy
        if copy is None or copy[0] is not backend or copy[1] != device:
            self._copy = copy = (backend, device, *backend.put_as([self._materialised()], [self._dtype], device))
        return copy[2]

    # ---- writing

    def assign(self, value: Any) -> None:
        """Replace the value; in a trace this becomes an update of the graph.

        Raises:
            ShapeError: if the shape differs.
        """
        shape = tuple(ops.shape_of(value))
        if shape != self.shape:
            raise ShapeError(
                "value does not fit the variable", where=self.path, expected=str(self.shape), received=str(shape)
            )
        if (ask := getattr(DEFER.get(), "ask", None)) is not None:
            ask()  # what was noted reads the value as it was
        trace = current_trace()
        if trace is not None:
            trace.assign(self, value)
        elif self.store is None:
            self._keep(unboxed(value))
        else:
            self.store.arrays[self.index] = self._converted(value, self.store)
            self.store.packed = False
            self.store.foreign.add(self.index)

    def _keep(self, value: Any) -> None:
        """Take a value without a store: an engine's array stays where it is until somebody wants it elsewhere."""
        host = host_of(value)
        if host is None or host.guest or dtype_name(value.dtype) != self._dtype:
            self._host, self._copy = ops.to_numpy(value).astype(self._host_dtype), None
        else:
            self._host, self._copy = None, (host.backend, host.device_of(value), value)

    def _converted(self, value: Any, store: Store) -> Array:
        value = value.array if isinstance(value, Box) else value
        if (
            store.backend.device_of(value) == store.device
            and dtype_name(value.dtype) == self._dtype
            and not isinstance(value, np.ndarray)
        ):
            return value
        return store.backend.put_as([ops.to_numpy(value)], [self._dtype], store.device)[0]

    def assign_add(self, value: Any) -> None:
        """Add to the value."""
        self.assign(ops.add(self, value))

    def assign_sub(self, value: Any) -> None:
        """Subtract from the value."""
        self.assign(ops.subtract(self, value))


def place_together(variables: Sequence[Variable], backend: Backend, device: str) -> Store:
    """The store that holds exactly these variables, in order, on a device: their present one, or a new one."""
    store = variables[0].store if variables else None
    if (
        store is not None
        and store.packed
        and store.backend is backend
        and store.device == device
        and len(store.arrays) == len(variables)
        and all(v.store is store and v.index == i for i, v in enumerate(variables))
    ):
        return store
    arrays = backend.put_as([v.numpy() for v in variables], [v.spec.dtype for v in variables], device)
    store = Store(backend, device, arrays)
    for i, v in enumerate(variables):
        v.store, v.index, v._host, v._copy = store, i, None, None
    return store


# ---- tracing ----------------------------------------------------------------


class Trace:
    """Turns code that reads and assigns variables into a graph: every variable touched becomes state.

    Args:
        variables: Variables in the order the state shall have; others follow as they are met.

    Attributes:
        created: Variables made while this trace was recorded.
        losses: Scalars that layers added to the loss.
    """

    def __init__(self, variables: Sequence[Variable] = ()) -> None:
        self.leaves: dict[Variable, Value] = {}
        self.current: dict[Variable, Value] = {}
        self.created: list[Variable] = []
        self.losses: list[Value] = []
        self._names: set[str] = set()
        for v in variables:
            self.leaf(v)

    def leaf(self, variable: Variable) -> Value:
        """The state entry of a variable."""
        if variable not in self.leaves:
            name = variable.path
            if name in self._names:
                name = f"{name}#{len(self.leaves)}"
            self._names.add(name)
            self.leaves[variable] = leaf("state", name, variable.spec)
        return self.leaves[variable]

    def read(self, variable: Variable) -> Value:
        return self.current[variable] if variable in self.current else self.leaf(variable)

    def assign(self, variable: Variable, value: Any) -> None:
        self.leaf(variable)
        value = value if isinstance(value, Value) else ops.constant(ops.to_numpy(value))
        own = variable.spec.dtype
        self.current[variable] = ops.astype(value, own) if value.dtype != own else value

    def graph(self, inputs: Sequence[Value], outputs: Mapping[str, Value]) -> Graph:
        """The graph of everything traced so far."""
        updates = {
            self.leaves[v].node.attrs["name"]: value for v, value in self.current.items() if value is not self.leaves[v]
        }
        return Graph(tuple(inputs), tuple(self.leaves.values()), dict(outputs), updates)

    @property
    def variables(self) -> list[Variable]:
        """The variables behind ``graph().state``, in order."""
        return list(self.leaves)


def current_trace() -> Trace | None:
    """The trace being recorded, or None."""
    return TRACE.get()


@contextmanager
def trace_into(trace: Trace) -> Iterator[Trace]:
    """Record what runs inside the block into ``trace``."""
    token = TRACE.set(trace)
    try:
        with tracing():
            yield trace
    finally:
        TRACE.reset(token)
