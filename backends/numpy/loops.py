"""Branches and loops in a step: each body is a step of its own on the same memory.

A loop's values live in its results: the body's step has them as its state and updates them in place, as a training
step does its weights. Constants are state, too, that never changes, and slices are inputs, read where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import repeat
from typing import Any
from weakref import WeakKeyDictionary

from unilayers.graph import OPS, Graph, leaf, make_node

from .kernels import FUSED, eager
from .kernels.contract import Array, Calls, Pairs, dense, kernel
from .link import Linker
from .plan import Plan
from .table import numpy_like


@cache
def functions(xp: Any) -> Mapping[str, Callable[..., Any]]:
    """What runs each op at once, over NumPy or CuPy."""
    table = numpy_like(xp)  # which its loops look into, so it stays this very object
    table.update((name, eager(name, xp)) for name in (*FUSED, "erf"))
    return table


# ---- bodies -----------------------------------------------------------------------


class Part:
    """A body as a step, linked to the arrays it works on when they are first there.

    Args:
        plan: Made by ``planned``.
        xp: NumPy or CuPy.
    """

    def __init__(self, plan: Plan, xp: Any) -> None:
        self._plan, self._xp = plan, xp
        self._linked: tuple[list[Array], Callable[..., Any]] | None = None

    def step(self, memory: Array, arrays: list[Array]) -> Callable[..., Any]:
        """The step for these arrays; the same list stands for the same arrays."""
        if self._linked is None or self._linked[0] is not arrays:
            self._linked = arrays, Linker(self._plan, self._xp, filling=True).link(memory, arrays)
        return self._linked[1]


_plans: WeakKeyDictionary[Graph, dict[Any, Plan]] = WeakKeyDictionary()


def planned(
    xp: Any, library: Any, body: Graph, inputs: Collection[int] = (), carried: int = 0, results: bool = False
) -> Plan:
    """The plan of a body whose operands stay where they are.

    Args:
        xp: NumPy or CuPy.
        library: oneDNN, where it is to be used.
        body: Its inputs become state.
        inputs: The numbers of those that come anew with every run.
        carried: So many of the results are the new values of the first operands.
        results: Whether the results have memory of their own instead: further state, before the operands.
    """
    known, key = _plans.setdefault(body, {}), (xp, library, tuple(inputs), carried, results)
    if key not in known:
        graph = _with_state(body, inputs, carried, results)
        known[key] = Plan(graph, functions(xp), direct=True, apart=True, library=library)
    return known[key]


def _with_state(body: Graph, inputs: Collection[int], carried: int, results: bool) -> Graph:
    new = {v: leaf("state", f"s{i}", v.spec) for i, v in enumerate(body.inputs) if i not in inputs}
    state = tuple(new.values())
    for node in body.nodes:  # not ``rewrite``: bodies inside may have the very same inputs, which are theirs
        if node.op == "input":
            new.setdefault(node.outputs[0], node.outputs[0])
        else:
            new.update(
                zip(node.outputs, make_node(OPS[node.op], (new[v] for v in node.inputs), node.attrs), strict=True)
            )
    made = [new[v] for v in body.outputs.values()]
    if results:
        into = [leaf("state", f"r{i}", v.spec) for i, v in enumerate(made)]
        return Graph((), (*into, *state), {}, {f"r{i}": v for i, v in enumerate(made)})
    updates = {f"s{i}": v for i, v in enumerate(made[:carried])}
    outputs = {str(i): v for i, v in enumerate(made[carried:])}
    return Graph(tuple(body.inputs[i] for i in inputs), state, outputs, updates)


# ---- kernels ------------------------------------------------------------------------


def _in_place(operands: int, attrs: Mapping[str, Any]) -> Pairs:
    """A loop's values may begin where they end."""
    return [(i, i) for i in range(attrs["carried"])]


def _begin(do: Calls, values: Iterable[Array], results: Iterable[Array]) -> None:
    for x, y in zip(values, results, strict=True):
        if x is not y:
            do(do.xp.copyto, y, x)


@kernel("switch")
def switch(do: Calls, index: Array, *arrays: Array, branches: tuple[Graph, ...]) -> None:
    count = len(branches[0].inputs)
    plans = [planned(do.xp, do.library, b, results=True) for b in branches]
    memory = do.workspace((max(p.arena_bytes for p in plans),), "uint8")
    operands = [dense(do, x) for x in arrays[:count]]
    do(_Switch([Part(p, do.xp) for p in plans]), index, memory, [*arrays[count:], *operands])


class _Switch:
    __name__ = "switch"

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts

    def __call__(self, index: Array, memory: Array, arrays: list[Array]) -> None:
        part = self.parts[min(max(int(index), 0), len(self.parts) - 1)]
        part.step(memory, arrays)(arrays, ())


@kernel("while_loop", overwrites=_in_place)
def while_loop(do: Calls, *arrays: Array, cond: Graph, body: Graph, carried: int, maximum: int | None) -> None:
    count = len(body.inputs)
    values, results = arrays[:carried], arrays[count:]
    test, step = planned(do.xp, do.library, cond), planned(do.xp, do.library, body, carried=carried)
    memory = do.workspace((max(test.arena_bytes, step.arena_bytes),), "uint8")
    constants = [dense(do, x) for x in arrays[carried:count]]
    _begin(do, values, results)
    run = _While(Part(test, do.xp), Part(step, do.xp), maximum)
    do(run, memory, [*results, *constants], [do.workspace((), "bool")])


class _While:
    __name__ = "while_loop"

    def __init__(self, test: Part, body: Part, maximum: int | None) -> None:
        self.test, self.body, self.maximum = test, body, maximum

    def __call__(self, memory: Array, arrays: list[Array], verdict: list[Array]) -> None:
        test, body = self.test.step(memory, arrays), self.body.step(memory, arrays)
        for _ in repeat(None) if self.maximum is None else repeat(None, self.maximum):
            test(arrays, verdict)
            if not verdict[0]:
                break
            body(arrays, ())


@kernel("scan", overwrites=_in_place)
def scan(do: Calls, *arrays: Array, body: Graph, carried: int, scanned: int, reverse: bool) -> None:
    count, rows = len(body.inputs), range(carried, carried + scanned)
    values, results, ys = arrays[:carried], arrays[count : count + carried], arrays[count + carried :]
    plan = planned(do.xp, do.library, body, inputs=rows, carried=carried)
    memory = do.workspace((plan.arena_bytes,), "uint8")
    constants = [dense(do, x) for x in arrays[rows.stop : count]]
    _begin(do, values, results)
    run = _Scan(Part(plan, do.xp), reverse)
    do(run, memory, [*results, *constants], *arrays[rows.start : rows.stop], *ys)


class _Scan:
    __name__ = "scan"

    def __init__(self, part: Part, reverse: bool) -> None:
        self.part, self.reverse = part, reverse

    def __call__(self, memory: Array, arrays: list[Array], *sequences: Array) -> None:
        step, turns = self.part.step(memory, arrays), range(len(sequences[0]))
        for t in reversed(turns) if self.reverse else turns:
            step(arrays, [a[t, ...] for a in sequences])  # rows of a vector as arrays, too
