"""A graph made runnable: specialised for each batch size at its first call, compiled by a backend, run on a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.backend import Array, Backend, Executable, node_runner
from unilayers.errors import DataError
from unilayers.graph import OPS, Graph, Node, Value
from unilayers.graph.passes import lower, optimise, specialise
from unilayers.memory import out_of_memory
from unilayers.ops.define import bind, name_of
from unilayers.spec import Dim, host_dtype, public_shape
from unilayers.variable import Store, Variable, place_together


def compile_graph(graph: Graph, backend: Backend, device: str, sizes: Mapping[str, int] | None = None) -> Executable:
    """A graph as a function ``f(state, inputs) -> (state, outputs)`` of a backend's arrays.

    Args:
        graph: Any graph; composite ops that the backend does not list are expanded.
        backend: The engine.
        device: A device of it.
        sizes: Values of the symbolic sizes, ``{"batch": 64}``.
    """

    ready = optimise(specialise(graph, sizes or {}), backend.table, node_runner(backend, device))
    return backend.compile(ready, device)


def sizes_of(inputs: Sequence[Value], shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """What the symbolic sizes of a graph's inputs are for arrays of the given shapes.

    Raises:
        DataError: if an array does not fit its input, or two inputs disagree about a size.
    """
    sizes: dict[str, int] = {}
    for value, shape in zip(inputs, shapes, strict=True):
        fits = len(shape) == value.ndim
        for want, have in zip(value.shape, shape, strict=False):
            if isinstance(want, int):
                fits &= want == have
            elif isinstance(want, Dim) and len(want.symbols()) == 1:
                fits &= sizes.setdefault(next(iter(want.symbols())), have) == have
        if not fits:
            raise DataError(
                f"input {value.node.attrs['name']!r} has the wrong shape",
                expected=str(public_shape(value.shape)),
                received=f"{tuple(shape)}" + (f" with sizes {sizes}" if sizes else ""),
            )
    return sizes


def interpretable(graph: Graph, inputs: Sequence[Any]) -> Graph:
    """A graph for inputs of these shapes, its ops as they were traced, as ``interpret`` takes it."""
    graph = specialise(graph, sizes_of(graph.inputs, [x.shape for x in inputs]))
    # Without an operand an op run by itself would not know where.
    return lower(graph, [name for name, op in OPS.items() if op.operands])


def interpret(
    graph: Graph, backend: Backend, device: str, state: Sequence[Array], inputs: Sequence[Any]
) -> Iterator[tuple[Node, list[Array], list[Array]]]:
    """Run a graph node by node: each op by itself, neither expanded, merged nor fused.

    Slow, but every value can be looked at: for finding where something comes from.

    Args:
        graph: What ``interpretable`` gives.
        backend: The engine.
        device: A device of it.
        state: The values of the state; they are not changed.
        inputs: Arrays, of any engine.

    Yields:
        Each node with its operands and its results, as arrays of the backend. One that nobody reads any more is freed.
    """
    dtypes = [v.dtype for v in graph.inputs]
    cast = [x if ops.dtype_of(x) == d else ops.astype(x, d) for x, d in zip(inputs, dtypes, strict=True)]
    leaves = zip((*graph.state, *graph.inputs), moved([*state, *cast], backend, device), strict=True)
    values: dict[Value, Array] = dict(leaves)
    last = {v: node for node in graph.nodes for v in node.inputs}
    for node in graph.nodes:
        operands = [values[v] for v in node.inputs]
        if node.op in ("input", "state"):
            made = [values[node.outputs[0]]]
        elif node.op == "constant":
            made = backend.put([node.attrs["value"].array], device)
        elif not operands:
            made = backend.put(node_runner(backend, device)(node, []), device)
        else:
            found = bind(OPS[node.op], operands, dict(node.attrs))
            made = list(found) if node.multiple else [found]
        values.update(zip(node.outputs, made, strict=True))
        yield node, operands, made
        for v in node.inputs:
            if last[v] is node:
                values.pop(v, None)


@dataclass
class Link:
    """A program with a store and inputs of some form.

    Args:
        store: Where its state is.
        forms: Class, shape and dtype of each input.
        function: The compiled function.
        host: Whether the inputs are NumPy arrays of dtypes that NumPy has.
        casts: The numbers of inputs of other dtypes than the program's, with these.
        indices: Where in the store its variables are.
        whole: Whether they are all of the store, in its order.
    """

    store: Store
    forms: list[Any]
    function: Executable
    host: bool
    casts: list[tuple[int, str]]
    indices: list[int]
    whole: bool
    _picked: list[Array] = field(default_factory=list)

    def state(self, arrays: list[Array]) -> list[Array]:
        """The program's part of the store's arrays. The list stays the same object as long as its arrays do, so that a
        compiled function can link to them once."""
        found = [arrays[i] for i in self.indices]
        if len(found) != len(self._picked) or not all(map(is_, found, self._picked)):
            self._picked = found
        return self._picked


class Program:
    """A traced graph with the variables behind its state.

    Args:
        graph: The graph.
        variables: One per entry of ``graph.state``, in order.
        structure: How the outputs are nested, if that is known: anything in the place of each.
    """

    def __init__(self, graph: Graph, variables: Sequence[Variable], structure: Any = None) -> None:
        self.graph, self.variables, self.structure = graph, list(variables), structure
        self._dtypes = [v.dtype for v in graph.inputs]
        self._compiled: dict[tuple[Any, ...], Executable] = {}
        self._link: Link | None = None

    def traced(self) -> Program:
        """The whole step as one traced graph: this one."""
        return self

    def executable(self, backend: Backend, device: str, shapes: Sequence[Sequence[int]]) -> Executable:
        """The compiled function for inputs of these shapes."""
        key = (backend.name, device, *map(tuple, shapes))
        if key not in self._compiled:
            self._compiled[key] = compile_graph(self.graph, backend, device, sizes_of(self.graph.inputs, shapes))
        return self._compiled[key]

    def forget(self, backend: Backend, device: str, shapes: Sequence[Sequence[int]]) -> None:
        """Let go of the compiled function for inputs of these shapes."""
        self._compiled.pop((backend.name, device, *map(tuple, shapes)), None)
        self._link = None

    def place(self, backend: Backend, device: str, together: Sequence[Variable] | None = None) -> Store:
        """Bring the state (or a larger group that contains it) onto a device."""
        group = list(together if together is not None else self.variables)
        return place_together(group, backend, device)

    def placed(self, store: Store) -> bool:
        """Whether the state is in this store, if it went there together."""
        return not self.variables or self.variables[0].store is store

    def run(self, store: Store, inputs: Sequence[Any], owned: bool = False) -> dict[str, Array]:
        """One run: reads and updates the state in ``store``, returns the outputs as the backend's arrays.

        Args:
            store: Holds all of this program's variables.
            inputs: NumPy arrays, or arrays of the backend on the store's device.
            owned: Whether nobody else writes to the NumPy arrays, now or later, so that they need no copy.
        """
        if store.foreign:
            store.own()
        try:
            return self._run(store, inputs, owned)
        except Exception as error:
            if not store.backend.hardware.exhausted(error):
                raise
            shapes = [tuple(x.shape) for x in inputs]
            sizes = sizes_of(self.graph.inputs, shapes)
            raise out_of_memory(self.graph, store.backend, store.device, sizes, shapes) from error

    def _run(self, store: Store, inputs: Sequence[Any], owned: bool) -> dict[str, Array]:
        forms = [(x.__class__, x.shape, x.dtype) for x in inputs]
        link = self._link
        if link is None or link.store is not store or link.forms != forms:
            link = self._link = self._linked(store, inputs, forms)
        if link.host:
            for i, dtype in link.casts:
                inputs = [*inputs[:i], inputs[i].astype(dtype), *inputs[i + 1 :]]
            inputs = store.backend.fed(inputs, store.device, owned)
        else:
            inputs = moved(inputs, store.backend, store.device, self._dtypes)
        if link.whole:
            store.arrays, outputs = link.function(store.arrays, inputs)
            return outputs
        state = link.state(store.arrays)
        new, outputs = link.function(state, inputs)
        if new is not state:
            for i, array in zip(link.indices, new, strict=True):
                store.arrays[i] = array
        return outputs

    def _linked(self, store: Store, inputs: Sequence[Any], forms: list[Any]) -> Link:
        """What a run needs that is the same as long as the store and the forms of the inputs are."""
        assert all(v.store is store for v in self.variables), "a variable is not in the store"
        function = self.executable(store.backend, store.device, [x.shape for x in inputs])
        host = all(isinstance(x, np.ndarray) for x in inputs) and [*map(host_dtype, self._dtypes)] == self._dtypes
        casts = [(i, d) for i, d in enumerate(self._dtypes) if host and name_of(inputs[i].dtype) != d]
        indices = [v.index for v in self.variables]
        whole = indices == list(range(len(store.arrays)))
        return Link(store, forms, function, host, casts, indices, whole)

    def call(self, backend: Backend, device: str, inputs: Sequence[Any], owned: bool = False) -> dict[str, Array]:
        """One run with every variable where it lives: one that is elsewhere is copied here, and back if it gets a new
        value; one that was never placed is placed here.

        Args:
            backend: The engine.
            device: A device of it.
            inputs: Arrays of the inputs' dtypes, of any engine.
            owned: See ``run``.
        """
        fresh = [v for v in self.variables if v.store is None]
        if fresh:  # weights side by side, as optimizers like them
            place_together(sorted(fresh, key=lambda v: not v.trainable), backend, device)
        stores = [v.store for v in self.variables if v.store is not None]  # which is all, by now
        one = stores[0] if stores else Store(backend, device, [])
        if one.backend is backend and one.device == device and all(s is one for s in stores):
            return self.run(one, inputs, owned)
        for store in stores:
            store.own()
        away = [v for v in self.variables if v.place() != (backend, device)]
        put = backend.put_as([v.numpy() for v in away], [v.spec.dtype for v in away], device)
        copies = dict(zip(away, put, strict=True))
        state = [copies.get(v, s.arrays[v.index]) for v, s in zip(self.variables, stores, strict=True)]
        function = self.executable(backend, device, [x.shape for x in inputs])
        new, outputs = function(list(state), moved(inputs, backend, device, self._dtypes))
        for i, (v, store) in enumerate(zip(self.variables, stores, strict=True)):
            if v not in copies:
                store.arrays[v.index] = new[i]
            elif self.graph.state[i].node.attrs["name"] in self.graph.updates:
                v.assign(backend.get(new[i]))
        return outputs


def moved(arrays: Sequence[Any], backend: Backend, device: str, dtypes: Sequence[str] | None = None) -> Sequence[Array]:
    """Arrays of any engine as the backend's on a device; the same objects where they are that already.

    Args:
        arrays: The arrays.
        backend: The engine.
        device: A device of it.
        dtypes: Of the values, where NumPy arrays stand for others; see `spec.host_dtype`.
    """
    away = [i for i, x in enumerate(arrays) if backend.device_of(x) != device]
    if not away:
        return arrays
    wanted = [ops.dtype_of(arrays[i]) if dtypes is None else dtypes[i] for i in away]
    there = dict(zip(away, backend.put_as([ops.to_numpy(arrays[i]) for i in away], wanted, device), strict=True))
    return [there.get(i, x) for i, x in enumerate(arrays)]
