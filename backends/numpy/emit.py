"""A plan as source text: one flat Python function of calls on arrays that all exist before it runs."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unilayers.graph import Value

from .action import Action
from .arena import Storage
from .direct import TEXT
from .plan import Plan
from .scalars import Scalars

Array = Any


class Writer:
    """Writes a step, and gathers the objects that its names stand for.

    A kernel says its calls to the writer as it would to ``Immediate``; each becomes a line.

    Args:
        plan: What to write.
        xp: NumPy or CuPy.
        arrays: The array of every value.
        cut: ``cut(storage, shape, dtype)`` is an array in the arena.
        constants: Arrays that kernels share and only read; new ones are added.
        filling: Whether the step writes its outputs into arrays that come behind its inputs, and returns nothing.
    """

    def __init__(
        self, plan: Plan, xp: Any, arrays: Mapping[Value, Array], cut: Callable[..., Array],
        constants: dict[Any, Array], filling: bool = False,
    ) -> None:  # fmt: skip
        self.plan, self.library, self.xp, self.arrays, self._cut = plan, plan.library, xp, arrays, cut
        self._constants, self._filling = constants, filling
        self.namespace: dict[str, Any] = {}
        self._names: dict[Any, str] = {}
        self._count: dict[str, int] = {}
        self._lines: list[str] = []
        self._place = ""
        self._given: list[tuple[Storage, tuple[int, ...], Any]] = []
        self._scalars = Scalars(plan, self) if xp is np else None
        for v in (*plan.graph.inputs, *plan.graph.state):
            if v in arrays:
                self._name_value(v, v.node.attrs["name"])

    def source(self) -> str:
        """The step's text."""
        returned: dict[str, str] = {}
        loaded = [a for a in self.plan.actions if a.op == "load"]
        given = {a.attrs["position"]: f"{self.name(self.arrays[a.outputs[0]])}_in" for a in loaded}
        given |= {i: self.name(self.arrays[v]) for i, v in enumerate(self.plan.graph.inputs) if v in self.plan.direct}
        inputs = [given.get(i, "_") for i in range(len(self.plan.graph.inputs))]
        inputs += [f"out{i}" for i in range(len(self.plan.graph.outputs)) if self._filling]
        if given or self._filling:
            self._lines.append(f"[{', '.join(inputs)}] = inputs")
        for i, v in enumerate(self.plan.graph.inputs):
            if v in self.plan.direct:
                self._take(v, given[i])
        for action in self.plan.actions:
            arrays = [self.arrays[v] for v in (*action.inputs, *action.outputs)]
            match action.op:
                case "load":
                    self._load(arrays[0], given[action.attrs["position"]])
                case "store":
                    self(self.xp.copyto, arrays[1], arrays[0])
                case "return":
                    name = action.attrs["name"]
                    returned[name] = left = f"out{[*self.plan.graph.outputs].index(name)}"
                    self._fill(left, arrays[0])
                case _ if self._scalars is not None and self._scalars.can(action):
                    self._lines += self._scalars.lines(action)
                case _:
                    self._write(action, arrays)
        outputs = ", ".join(f"{k!r}: {returned[k]}" for k in self.plan.graph.outputs)
        lines = [*self._lines, "return" if self._filling else f"return state, {{{outputs}}}"]
        return "def step(state, inputs):\n" + "".join(f"    {line}\n" for line in lines)

    def _fill(self, output: str, array: Array) -> None:
        fill = f"{self._function(self.xp.copyto)}({output}, {self.name(array)})"
        self._lines.append(fill if self._filling else f"{output} = {self.name(array)}.copy()")

    def _load(self, buffer: Array, given: str) -> None:
        name = self.name(buffer)
        inline = isinstance(buffer, np.ndarray)  # what load() does there, without the call
        self._lines.append(f"{name}[...] = {given}" if inline else f"{self.name(load)}({name}, {given})")

    def _take(self, value: Value, name: str) -> None:
        """Use an input as it comes, and make the views of it that are needed."""
        dtype = self.name(self.arrays[value].dtype, value.dtype)
        self._lines.append(f"if {name}.dtype is not {dtype}: {name} = {name}.astype({dtype})")
        needed = {v for a in self.plan.actions for v in a.inputs}
        for v in self.plan.views.get(value, ())[::-1]:
            if v in needed:
                needed.add(v.node.inputs[0])
        for v in self.plan.views.get(value, ()):
            if v in needed and v.node.op in TEXT:
                text = TEXT[v.node.op].format(x=self.name(self.arrays[v.node.inputs[0]]), **v.node.attrs)
                self._name_value(v, "v")
                self._lines.append(f"{self.name(self.arrays[v])} = {text}")

    def _write(self, action: Action, arrays: list[Array]) -> None:
        for v in (*action.inputs, *action.outputs):
            self._name_value(v, "c" if v.node.op == "constant" else "v")
        self._place, self._given = self.name(arrays[-1]), list(action.workspaces)
        begin = len(self._lines)
        self.plan.kernel(action).build(self, *arrays, **action.attrs)
        if len(self._lines) > begin + 1:
            self._lines.insert(begin, f"# {action.op}")

    # ---- what kernels see

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        said = [self._text(a) for a in args] + [f"{k}={self._text(v)}" for k, v in kwargs.items()]
        self._lines.append(f"{self._function(function)}({', '.join(said)})")

    def workspace(self, shape: tuple[int, ...], dtype: Any) -> Array:
        storage, planned, dtype = self._given.pop(0)
        assert tuple(shape) == planned, "the kernel asks for other memory than it did when the step was planned"
        array = self._cut(storage, shape, dtype)
        self.name(array, "w")
        return array

    def constant(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Array:
        if key not in self._constants:
            self._constants[key] = self.xp.asarray(make())
        self.name(self._constants[key], "c")
        return self._constants[key]

    # ---- names

    def name(self, thing: Any, hint: str = "", key: Any = None) -> str:
        """The name of an object in the step; a new one on the first call."""
        key = id(thing) if key is None else key
        if key not in self._names:
            hint = hint or (f"{self._place}_" if self._place else "x")
            self._names[key] = name = self._unused(hint)
            self.namespace[name] = thing
        return self._names[key]

    def _unused(self, hint: str) -> str:
        """The hint, with a number where it is taken or ends in a way that asks for one."""
        numbered = hint in ("v", "c", "w") or hint.endswith("_") or keyword.iskeyword(hint) or hint in RESERVED
        name = hint
        while numbered or name in self.namespace:
            numbered = False
            self._count[hint] = self._count.get(hint, 0) + 1
            name = f"{hint}{self._count[hint]}"
        return name

    def _name_value(self, value: Value, hint: str) -> None:
        self.name(self.arrays[value], re.sub(r"\W", "_", f"_{hint}" if hint[:1].isdigit() else hint) or "x")

    def _function(self, function: Callable[..., Any]) -> str:
        owner, plain = getattr(function, "__self__", None), getattr(function, "__name__", "call")
        if isinstance(owner, self.xp.ndarray):
            return f"{self.name(owner)}.{plain}"
        if owner is not None and hasattr(owner, "__name__") and not isinstance(owner, type(np)):
            return self.name(function, f"{owner.__name__}_{plain}", (id(owner), plain))
        return self.name(function, re.sub(r"\W", "_", plain))

    def _text(self, value: Any) -> str:
        """An argument as a literal, or as a name."""
        plain = isinstance(value, (bool, int, str, type(None))) or (isinstance(value, float) and math.isfinite(value))
        if plain or (isinstance(value, tuple) and all(isinstance(v, int) for v in value)):
            return repr(value)
        return self.name(value)


RESERVED = ("state", "inputs", "step", "_")


def load(buffer: Array, given: Any) -> None:
    """Copy an input into its buffer; from the host, too."""
    if isinstance(given, np.ndarray) and not isinstance(buffer, np.ndarray):
        buffer.set(given)
    else:
        buffer[...] = given
