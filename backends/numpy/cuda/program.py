"""A few ops as one kernel will run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from .expressions import literal

REDUCTIONS = {
    "sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum", "all": "logical_and", "any": "logical_or",
}  # fmt: skip
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """A value of a program.

    Args:
        op: An elementwise op or a reduction; ``operand``; ``constant`` (attribute ``text``); ``column``: the number of
            an element in its row; ``random_bits``.
        args: The numbers of the items it is computed from.
        dtype: Its dtype.
        attrs: Of an operand, ``to``: the shape it is stretched to, and ``row``: whether it has one element a row.
    """

    op: str
    args: tuple[int, ...]
    dtype: str
    attrs: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Any:
        return dict(self.attrs)[name]


@dataclass
class Program:
    """Items over arrays of one shape, whose last axes make up rows.

    Args:
        shape: Of most values. Others have one element a row.
        trailing: How many axes a row has.

    Attributes:
        items: Each comes after those it is computed from.
        results: The numbers of those to be written, and whether they have one element a row.
    """

    shape: Shape
    trailing: int = 0
    items: list[Item] = field(default_factory=list)
    results: list[tuple[int, bool]] = field(default_factory=list)
    _known: dict[Item, int] = field(default_factory=dict)

    @property
    def lead(self) -> Shape:
        """The axes over which the rows go."""
        return self.shape[: len(self.shape) - self.trailing]

    @property
    def rows(self) -> int:
        return prod(self.lead)

    @property
    def width(self) -> int:
        return prod(self.shape[len(self.lead) :])

    def add(self, op: str, args: tuple[int, ...], dtype: str, **attrs: Any) -> int:
        """The number of an item, which is the same where the item is."""
        return self._number(Item(op, args, dtype, tuple(attrs.items())))

    def constant(self, value: float, dtype: str) -> int:
        return self.add("constant", (), dtype, text=literal(value, dtype))

    def operand(self, dtype: str, to: Shape, row: bool) -> int:
        """A further operand."""
        self.items.append(Item("operand", (), dtype, (("to", to), ("row", row))))
        return len(self.items) - 1

    def _number(self, item: Item) -> int:
        if item not in self._known:
            self.items.append(item)
            self._known[item] = len(self.items) - 1
        return self._known[item]

    @property
    def operands(self) -> Mapping[int, Item]:
        return {i: item for i, item in enumerate(self.items) if item.op == "operand"}
