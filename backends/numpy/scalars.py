"""Numbers are computed by Python itself: a ufunc takes ten times as long for one element as the interpreter does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from unilayers.graph import Value

from .action import Action

if TYPE_CHECKING:
    from .emit import Writer
    from .plan import Plan

FLOATS = ("float32", "float64")  # as Python's numbers are, or narrower: rounded when they are written
INTS = ("int8", "int16", "int32", "int64")
TEXT = {"add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}", "negative": "-{}"}


class Scalars:
    """Writes actions on single numbers as lines of Python.

    A number is read from memory once and then stands in a local variable; it is written to memory where something else
    than these lines reads it.

    Args:
        plan: The plan.
        writer: Who knows the names.
    """

    def __init__(self, plan: Plan, writer: Writer) -> None:
        self._plan, self._writer = plan, writer
        self._locals: dict[Value, str] = {}
        self._awaited = {plan.root(v) for a in plan.actions if not self.can(a) for v in a.inputs}

    def can(self, action: Action) -> bool:
        """Whether an action is on numbers, and Python has it with the same results."""
        if action.op not in TEXT or any(v.spec.size != 1 for v in (*action.inputs, *action.outputs)):
            return False
        (dtype,) = {v.dtype for v in (*action.inputs, *action.outputs)} or {""}
        divides = action.op == "divide"
        if divides and not (dtype in FLOATS and self._constant(action.inputs[1])):
            return False  # Python refuses to divide by 0
        return dtype in FLOATS or dtype in INTS

    def lines(self, action: Action) -> list[str]:
        """The lines of an action."""
        found: list[str] = []
        operands = [self._operand(v, found) for v in action.inputs]
        (result,) = action.outputs
        text = TEXT[action.op].format(*operands)
        if result.dtype in INTS:
            half = 1 << (8 * np.dtype(result.dtype).itemsize - 1)
            text = f"({text} + {half} & {2 * half - 1}) - {half}"  # around, as in arrays
        name = self._locals[result] = f"n{len(self._locals) + 1}"
        found.append(f"{name} = {text}")
        if result in self._awaited or self._plan.storage[result].kind != "arena":
            found.append(f"{self._writer.name(self._writer.arrays[result])}[...] = {name}")
        return found

    def _operand(self, value: Value, lines: list[str]) -> str:
        number = self._constant(value)
        if number is not None and math.isfinite(number):
            return f"({number!r})" if number < 0 else repr(number)
        value = self._plan.root(value) if self._plan.root(value) in self._locals else value
        if value not in self._locals:
            name = self._locals[value] = f"n{len(self._locals) + 1}"
            lines.append(f"{name} = {self._writer.name(self._writer.arrays[value])}.item()")
        return self._locals[value]

    def _constant(self, value: Value) -> float | int | None:
        root = self._plan.root(value)
        number: float | int = root.node.attrs["value"].array.item() if root.node.op == "constant" else 0
        return number or None
