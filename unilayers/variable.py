"""Variables: named state that ops can read, wherever it lives now; and the trace that makes it graph state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np

from unilayers import ops
from unilayers.autodiff import Replay
from unilayers.backend import Array, Backend, get_backend
from unilayers.config import floatx
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import Graph, Value, leaf, tracing
from unilayers.graph.operators import Operators
from unilayers.ops.define import DEFER, SERIALS, TAPES, TRACE, Box, home, host_of, unboxed
from unilayers.registry import Configurable
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
        initializer: The value; or what draws it when it is first read: an initializer, its name, or a function
            ``f(shape, dtype)``.
        shape: Shape; needed if there is no value yet.
        dtype: Dtype; if None that of the value, but the default float dtype for float64 and int32 for int64, and the
            default float dtype if there is no value yet.
        trainable: Whether gradients are wanted.
        autocast: Whether layers that compute in another dtype read it in that one.
        aggregation: Kept for Keras's signature; has no effect.
        synchronization: Likewise.
        name: Short name: ``kernel``. If None that of the attribute of a layer that it is assigned to.
        path: Full name, or a function that gives it.

    Raises:
        ShapeError: without a shape, or with one that the value does not have.

    Example:
        >>> v = Variable("zeros", shape=(2,), name="total")
        >>> v.assign([1.0, 2.0])
        array([1., 2.], dtype=float32)
        >>> v, v[0] + v.value
        (<Variable total float32[2]>, array([2., 3.], dtype=float32))
    """

    made: ClassVar[int] = 0  # how many there have been: what has come to be since can be seen by it

    def __init__(
        self,
        initializer: Any,
        shape: Sequence[int] | None = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        aggregation: str | None = "none",
        synchronization: str | None = "auto",
        name: str | None = None,
        *,
        path: str | Callable[[], str] = "",
    ) -> None:
        self.named, self.name, self.trainable = name is not None, name or "variable", trainable
        self.serial = next(SERIALS)
        self._path = path
        self._initial = self._drawing(initializer)
        value = None if self._initial else ops.to_numpy(initializer)
        self._dtype = _dtype_for(value) if dtype is None else check_dtype(dtype_name(dtype))
        self.autocast = autocast and is_float(self._dtype)
        self.aggregation, self.synchronization, self.overwrite_with_gradient = aggregation, synchronization, False
        self._host: np.ndarray | None = None if value is None else np.array(value, self._host_dtype)
        self.shape: tuple[int, ...] = self._checked_shape(shape)
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

    def _drawing(self, initializer: Any) -> Callable[..., Any] | None:
        """What draws the initial value, ``f(shape, dtype)``; None if it is there."""
        if not isinstance(initializer, (str, Mapping, Configurable)):
            return initializer if callable(initializer) else None
        from unilayers import initializers, random  # which stand above variables

        found = initializers.get(initializer, where="Variable.initializer")  # type: ignore[arg-type]
        assert found is not None

        def draw(shape: Sequence[int], dtype: str) -> np.ndarray:
            stream = self.path if self.named or self._path else f"{self.path}#{self.serial}"
            return found(shape, dtype, generator=random.generator(random.default_seed(), stream))

        return draw

    def _checked_shape(self, shape: Sequence[int] | None) -> tuple[int, ...]:
        if self._host is None:
            if shape is None:
                raise ShapeError("the shape is missing", where=repr(self.name), fix="Say Variable(initializer, shape)")
            return tuple(shape)
        if shape is not None and tuple(shape) != self._host.shape:
            raise ShapeError(
                "the value has another shape", where=repr(self.name), expected=str(tuple(shape)),
                received=str(self._host.shape),
            )  # fmt: skip
        return self._host.shape

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

    @property
    def value(self) -> Any:
        """The current value: symbolic in a trace, else an array."""
        return ops.identity(self)

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
            self._host = self.draw()
        return self._host

    def draw(self) -> np.ndarray:
        """The initial value, drawn by the initializer that the variable must have."""
        assert self._initial is not None
        drawn = np.asarray(ops.to_numpy(self._initial(self.shape, dtype=self._host_dtype)), self._host_dtype)
        if drawn.shape != self.shape:
            raise ShapeError(
                "initializer gave another shape", where=self.path, expected=str(self.shape), received=str(drawn.shape)
            )
        return drawn

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
        trace = TRACE.get()
        if trace is not None and self in trace.current:  # with a value of a scope's
            value = unboxed(trace.current[self])
            host = host_of(value)
            if host is not None and not host.guest:
                return host.backend, host.device_of(value)
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

    def assign(self, value: Any) -> Any:
        """Replace the value; in a trace this becomes an update of the graph. Gives the value as it is now.

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
            return trace.read(self)
        if self.store is None:
            return self._keep(unboxed(value))
        self.store.arrays[self.index] = new = self._converted(value, self.store)
        self.store.packed = False
        self.store.foreign.add(self.index)
        return new

    def _keep(self, value: Any) -> Any:
        """Take a value without a store: an engine's array stays where it is until somebody wants it elsewhere."""
        host = host_of(value)
        if host is None or host.guest or dtype_name(value.dtype) != self._dtype:
            self._host, self._copy = (kept := ops.to_numpy(value).astype(self._host_dtype)), None
            return kept
        self._host, self._copy = None, (host.backend, host.device_of(value), value)
        return value

    def _converted(self, value: Any, store: Store) -> Array:
        value = value.array if isinstance(value, Box) else value
        if (
            store.backend.device_of(value) == store.device
            and dtype_name(value.dtype) == self._dtype
            and not isinstance(value, np.ndarray)
        ):
            return value
        return store.backend.put_as([ops.to_numpy(value)], [self._dtype], store.device)[0]

    def assign_add(self, value: Any) -> Any:
        """Add to the value; see ``assign``."""
        return self.assign(ops.add(self, value))

    def assign_sub(self, value: Any) -> Any:
        """Subtract from the value; see ``assign``."""
        return self.assign(ops.subtract(self, value))


def _dtype_for(value: np.ndarray | None) -> str:
    """The dtype of a variable that is told none."""
    name = "float64" if value is None else dtype_name(value.dtype)
    return {"float64": floatx(), "int64": "int32"}.get(name) or check_dtype(name)


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


class StatelessScope(Replay):
    """Inside the block variables have given values, and what is assigned to them stays in the scope: state as a value.

    Args:
        state_mapping: Pairs of a variable and its value.
        collect_losses: Kept for Keras's signature: ``losses`` holds what layers add to the loss in any case.
        initialize_variables: Kept for Keras's signature.

    Raises:
        ShapeError: if a value does not fit its variable.

    Example:
        >>> v = Variable(np.zeros(2), name="total")
        >>> with StatelessScope([(v, np.ones(2, "float32"))]) as scope:
        ...     y = v.assign_add([1.0, 2.0])
        >>> v.numpy(), scope.get_current_value(v)
        (array([0., 0.], dtype=float32), array([2., 3.], dtype=float32))
    """

    def __init__(
        self,
        state_mapping: Iterable[tuple[Variable, Any]] | None = None,
        collect_losses: bool = False,
        initialize_variables: bool = True,
    ) -> None:
        super().__init__({})
        for variable, value in state_mapping or ():
            self.add_update((variable, value))

    def add_update(self, update: tuple[Variable, Any]) -> None:
        """Give a variable a value, as a pair of both."""
        variable, value = update
        if (shape := tuple(ops.shape_of(value))) != variable.shape:
            raise ShapeError(
                "value does not fit the variable", where=variable.path, expected=str(variable.shape),
                received=str(shape),
            )  # fmt: skip
        self.current[variable] = value

    def get_current_value(self, variable: Variable) -> Any:
        """The value of a variable in the scope; None if it was given none and none was assigned."""
        found = self.current.get(variable)
        return found if TAPES.get() else unboxed(found)

    def __enter__(self) -> StatelessScope:
        self._outer = TRACE.get()
        self._token = TRACE.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        TRACE.reset(self._token)


def stateless(
    state: Sequence[tuple[Sequence[Variable], Sequence[Any]]], run: Callable[[], Any], where: str
) -> tuple[Any, list[list[Any]], list[Any]]:
    """A function with given values of variables in place of their own.

    Args:
        state: Groups of variables, and of their values.
        run: The function.
        where: The place to name in errors.

    Returns:
        Its result, the values of the groups after it, and what layers added to the loss.

    Raises:
        UnilayersError: if there are more values than variables, or less.
    """
    for variables, values in state:
        if len(variables) != len(values):
            raise UnilayersError(
                "another number of values than of variables", where=where, expected=f"{len(variables)} values",
                received=f"{len(values)}", fix="Build it, and pass values of all its variables in their order",
            )  # fmt: skip
    pairs = [pair for variables, values in state for pair in zip(variables, values, strict=True)]
    with StatelessScope(pairs) as scope:
        result = run()
    found = [[scope.get_current_value(v) for v in variables] for variables, _ in state]
    return result, found, scope.losses


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
