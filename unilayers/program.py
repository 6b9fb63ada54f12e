"""A graph made runnable: specialised for each batch size at its first call, compiled by a backend, run on a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.backend import Array, Backend, Executable, node_runner
from unilayers.errors import DataError
from unilayers.graph import Graph, Value
from unilayers.graph.passes import optimise, specialise
from unilayers.spec import Dim, dtype_name, public_shape
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


class Program:
    """A traced graph with the variables behind its state.

    Args:
        graph: The graph.
        variables: One per entry of ``graph.state``, in order.
        structure: How the outputs are nested, if that is known: anything in the place of each.
    """

    def __init__(self, graph: Graph, variables: Sequence[Variable], structure: Any = None) -> None:
        self.graph, self.variables, self.structure = graph, list(variables), structure
        self._compiled: dict[tuple[Any, ...], Executable] = {}
        self._picked: tuple[Store | None, list[int], list[Array]] = (None, [], [])

    def executable(self, backend: Backend, device: str, shapes: Sequence[Sequence[int]]) -> Executable:
        """The compiled function for inputs of these shapes."""
        key = (backend.name, device, *map(tuple, shapes))
        if key not in self._compiled:
            self._compiled[key] = compile_graph(self.graph, backend, device, sizes_of(self.graph.inputs, shapes))
        return self._compiled[key]

    def forget(self, backend: Backend, device: str, shapes: Sequence[Sequence[int]]) -> None:
        """Let go of the compiled function for inputs of these shapes."""
        self._compiled.pop((backend.name, device, *map(tuple, shapes)), None)

    def place(self, backend: Backend, device: str, together: Sequence[Variable] | None = None) -> Store:
        """Bring the state (or a larger group that contains it) onto a device."""
        group = list(together if together is not None else self.variables)
        return place_together(group, backend, device)

    def placed(self, store: Store) -> bool:
        """Whether the state is in this store, if it went there together."""
        return not self.variables or self.variables[0].store is store

    def run(self, store: Store, inputs: Sequence[Any]) -> dict[str, Array]:
        """One run: reads and updates the state in ``store``, returns the outputs as the backend's arrays.

        Args:
            store: Holds all of this program's variables.
            inputs: NumPy arrays, or arrays of the backend on the store's device.
        """
        backend = store.backend
        if store.foreign:
            store.own()
        host = [
            i
            for i, x in enumerate(inputs)
            if isinstance(x, np.ndarray) and dtype_name(x.dtype) != self.graph.inputs[i].dtype
        ]
        inputs = [x.astype(self.graph.inputs[i].dtype) if i in host else x for i, x in enumerate(inputs)]
        function = self.executable(backend, store.device, [x.shape for x in inputs])
        inputs = moved(inputs, backend, store.device)
        state, whole = self._state(store)
        new, outputs = function(state, inputs)
        if whole:
            store.arrays = new
        elif new is not state:
            for i, array in zip(self._picked[1], new, strict=True):
                store.arrays[i] = array
        return outputs

    def call(self, backend: Backend, device: str, inputs: Sequence[Any]) -> dict[str, Array]:
        """One run with every variable where it lives: one that is elsewhere is copied here, and back if it gets a new
        value; one that was never placed is placed here.

        Args:
            backend: The engine.
            device: A device of it.
            inputs: Arrays of the inputs' dtypes, of any engine.
        """
        fresh = [v for v in self.variables if v.store is None]
        if fresh:  # weights side by side, as optimizers like them
            place_together(sorted(fresh, key=lambda v: not v.trainable), backend, device)
        stores = [v.store for v in self.variables if v.store is not None]  # which is all, by now
        one = stores[0] if stores else Store(backend, device, [])
        if one.backend is backend and one.device == device and all(s is one for s in stores):
            return self.run(one, inputs)
        for store in stores:
            store.own()
        away = [v for v in self.variables if v.place() != (backend, device)]
        copies = dict(zip(away, backend.put([v.numpy() for v in away], device), strict=True))
        state = [copies.get(v, s.arrays[v.index]) for v, s in zip(self.variables, stores, strict=True)]
        function = self.executable(backend, device, [x.shape for x in inputs])
        new, outputs = function(list(state), moved(inputs, backend, device))
        for i, (v, store) in enumerate(zip(self.variables, stores, strict=True)):
            if v not in copies:
                store.arrays[v.index] = new[i]
            elif self.graph.state[i].node.attrs["name"] in self.graph.updates:
                v.assign(backend.get(new[i]))
        return outputs

    def _state(self, store: Store) -> tuple[list[Array], bool]:
        """This program's state as a list, and whether that is all of the store. The list stays the same object as
        long as its arrays do, so that a compiled function can link to them once."""
        known, indices, picked = self._picked
        if known is not store:
            indices = [v.index for v in self.variables]
            assert all(v.store is store for v in self.variables), "a variable is not in the store"
            picked = []
        if indices == list(range(len(store.arrays))):
            self._picked = (store, indices, [])
            return store.arrays, True
        arrays = [store.arrays[i] for i in indices]
        if len(picked) != len(arrays) or any(a is not b for a, b in zip(arrays, picked, strict=True)):
            picked = arrays
        self._picked = (store, indices, picked)
        return picked, False


def moved(arrays: Sequence[Any], backend: Backend, device: str) -> Sequence[Array]:
    """Arrays of any engine as the backend's on a device; the same objects where they are that already."""
    away = [i for i, x in enumerate(arrays) if backend.device_of(x) != device]
    if not away:
        return arrays
    there = dict(zip(away, backend.put([ops.to_numpy(arrays[i]) for i in away], device), strict=True))
    return [there.get(i, x) for i, x in enumerate(arrays)]
