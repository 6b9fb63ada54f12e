"""A compiled graph: its memory, the step generated for it, and the state arrays the step is linked to."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from operator import is_
from threading import Lock
from typing import Any

import numpy as np

from unilayers.errors import GraphError
from unilayers.graph import Graph
from unilayers.spec import Spec

from .arena import ALIGNMENT, Storage
from .emit import Writer
from .kernels.contract import address
from .onednn import library
from .plan import Join, Plan, Table

Array = Any
Result = tuple[list[Array], dict[str, Array]]


class LinkedStep:
    """``f(state, inputs) -> (state, outputs)`` for a graph.

    State is updated in place, and the list that came is returned. The step knows its state by the identity of the
    arrays; when others come it is linked again. One run at a time: the memory is shared between runs.

    Args:
        graph: Specialised and lowered.
        xp: NumPy or CuPy.
        table: Functions of that module, for ops without a kernel.
        join: What joins actions, see ``Plan``.

    Attributes:
        plan: Actions, and where values live; ``plan.arena_bytes`` and ``plan.lower_bound``.
        source: The text of the generated step; empty before the first run.
    """

    def __init__(self, graph: Graph, xp: Any, table: Table, join: Join | None = None) -> None:
        self.plan = Plan(graph, table, direct=xp is np, library=library(xp), join=join)
        self.source, self._xp = "", xp
        self._memory = aligned(xp, self.plan.arena_bytes)
        self._linker = Linker(self.plan, xp)
        self._linked: list[Array] = []
        self._step: Callable[..., Result] | None = None
        self._run, self._lock = silent_runner(xp), Lock()

    def __call__(self, state: list[Array], inputs: Sequence[Array]) -> Result:
        with self._lock:
            if self._step is None or not all(map(is_, state, self._linked)):
                state = self._link(state)
            return self._run(self._step, state, inputs)

    def _link(self, state: list[Array]) -> list[Array]:
        """Generate the step for these arrays. Returns them, or others in the place of those that cannot be kept."""
        state = usable(self._xp, self.plan.graph, state)
        self._step, self._linked = self._linker.link(self._memory, state), list(state)
        self.source = self._linker.source
        return state


class Linker:
    """Makes a plan's step for given arrays.

    Args:
        plan: What to do.
        xp: NumPy or CuPy.
        filling: Whether the step writes its outputs into arrays that come behind its inputs, and returns nothing.

    Attributes:
        source: The text of the last step.
    """

    def __init__(self, plan: Plan, xp: Any, filling: bool = False) -> None:
        self.plan, self.source, self._xp, self._filling = plan, "", xp, filling
        self._constants: dict[Any, Array] = {}
        self._fixed = {plan.storage[v]: xp.asarray(v.node.attrs["value"].array) for v in plan.constants()}
        self._memory: Array = None

    def link(self, memory: Array, state: Sequence[Array]) -> Callable[..., Result]:
        """The step ``f(state, inputs)`` for an arena, and for state that can be written to where it gets new values."""
        self._memory = memory
        owners = dict(zip((self.plan.storage[leaf] for leaf in self.plan.graph.state), state, strict=True))
        owners.update(self._fixed)
        arrays = self.plan.arrays(self._maker(owners), self._xp)
        writer = Writer(self.plan, self._xp, arrays, self._cut, self._constants, self._filling)
        self.source = writer.source()
        exec(compile(self.source, "<step>", "exec"), writer.namespace)
        step: Callable[..., Result] = writer.namespace["step"]
        return step

    def _maker(self, owners: dict[Storage, Array]) -> Callable[[Storage, Spec], Array]:
        """Gives values with memory of their own their arrays; one array where a value takes another's place."""
        made: dict[Any, Array] = {}

        def make(storage: Storage, spec: Spec) -> Array:
            key = (storage, spec)
            if key not in made:
                owner = owners.get(storage)
                if storage.kind == "input":
                    owner = np.empty(spec.shape, spec.dtype)  # only for its name
                cut = self._cut(storage, spec.shape, spec.dtype) if owner is None else _as_shape(owner, spec.shape)
                made[key] = cut
            return made[key]

        return make

    def _cut(self, storage: Storage, shape: Any, dtype: Any) -> Array:
        """An array in the arena."""
        part = self._memory[storage.begin : storage.begin + storage.nbytes]
        return part.view(dtype).reshape(shape)


def _as_shape(array: Array, shape: Any) -> Array:
    return array if array.shape == shape else array.reshape(shape)


# ---- memory ---------------------------------------------------------------------


def aligned(xp: Any, nbytes: int) -> Array:
    """Fresh bytes that begin at a cache line."""
    room = xp.empty(nbytes + ALIGNMENT, "uint8")
    start = -address(room) % ALIGNMENT
    return room[start : start + nbytes]


def usable(xp: Any, graph: Graph, state: list[Array]) -> list[Array]:
    """The state's arrays, with copies of those that cannot be updated in place: strided, read-only, sharing memory.

    Raises:
        GraphError: wrong number, shapes or dtypes.
    """
    if len(state) != len(graph.state):
        raise GraphError("wrong number of state arrays", expected=str(len(graph.state)), received=str(len(state)))
    found = [xp.asarray(a) for a in state]
    for leaf, a in zip(graph.state, found, strict=True):
        if tuple(a.shape) != leaf.shape or a.dtype.name != leaf.dtype:
            raise GraphError(
                "a state array does not fit", where=leaf.node.attrs["name"], expected=repr(leaf.spec),
                received=f"{a.dtype.name}{list(a.shape)}",
            )  # fmt: skip
    end = 0
    for i in sorted(range(len(found)), key=lambda i: address(found[i])):
        a = found[i]
        shares = a.nbytes > 0 and address(a) < end
        if shares or not a.flags.c_contiguous or not getattr(a.flags, "writeable", True):
            found[i] = xp.array(a, order="C")
        else:
            end = address(a) + a.nbytes
    return state if all(a is b for a, b in zip(found, state, strict=True)) else found


# ---- running --------------------------------------------------------------------


def silent_runner(xp: Any) -> Callable[..., Any]:
    """``run(step, *args)`` calls the step so that infinities and NaNs come without NumPy's warnings.

    From NumPy 2 on the error state belongs to the context, and entering a prepared one costs less than setting it.
    """
    if xp is not np:
        return lambda step, *args: step(*args)
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        context = contextvars.Context()
        context.run(np.seterr, all="ignore")
        return context.run

    def run(step: Callable[..., Any], *args: Any) -> Any:
        with np.errstate(all="ignore"):
            return step(*args)

    return run
