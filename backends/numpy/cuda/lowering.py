"""What an action of a plan is in a program: how it reads its operands, and the items it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from unilayers.backends.numpy.action import Action

from unilayers.graph import Value

from .expressions import TYPES, known
from .program import REDUCTIONS, Program, Shape

WIDEST = 1 << 13  # elements of a row, for which one block is enough
FEW_ROWS, FEW_ELEMENTS = 64, 1 << 16  # fewer rows than that keep a device busy only if there is little to do


@dataclass(frozen=True)
class Domain:
    """What the actions of one kernel have in common: the shape of most values, and how many of its axes are a row."""

    shape: Shape
    trailing: int = 0

    @property
    def lead(self) -> Shape:
        return self.shape[: len(self.shape) - self.trailing]

    def is_rows(self, shape: Shape) -> bool:
        """Whether values of a shape have one element a row."""
        return shape != self.shape and shape in (self.lead, self.lead + (1,) * self.trailing)


@dataclass(frozen=True)
class Read:
    """How an action reads an operand.

    Args:
        value: The operand.
        to: The shape it is stretched to.
        row: Whether one element a row is read.
    """

    value: Value
    to: Shape
    row: bool


def sizes(value: Value) -> Shape:
    """The shape of a value in a plan."""
    return value.shape  # type: ignore[return-value]  # specialised: all are numbers


def own_domain(action: Action) -> Domain | None:
    """The domain that an action can only be run in: that of what goes along rows."""
    if action.op in REDUCTIONS:
        (x,), axes = action.inputs, action.attrs["axis"]
        last = tuple(range(x.ndim - len(axes), x.ndim))
        return _rows(sizes(x), len(axes)) if axes and tuple(sorted(axes)) == last else None
    if action.op in ALONG_ROWS:
        shape = sizes(action.outputs[0] if action.op == "one_hot" else action.inputs[0])
        return _rows(shape, 1) if action.attrs.get("axis", -1) in (-1, len(shape) - 1) else None
    return None


def _rows(shape: Shape, trailing: int) -> Domain | None:
    domain = Domain(shape, trailing)
    rows, width = prod(domain.lead), prod(shape[len(domain.lead) :])
    fits = 0 < width <= WIDEST and (rows >= FEW_ROWS or rows * width <= FEW_ELEMENTS)
    return domain if fits else None


def elementwise(action: Action) -> bool:
    """Whether an action computes each element from those at its place."""
    dtypes = [v.dtype for v in action.inputs]
    if action.op == "random_bits":
        return True
    return known(action.op, dtypes) and all(v.dtype in TYPES for v in action.outputs)


def may_be_in(action: Action, domain: Domain) -> bool:
    """Whether an elementwise action can be run in a domain."""
    shape = sizes(action.outputs[0])
    return shape == domain.shape or (action.op != "random_bits" and domain.is_rows(shape))


def lowerable(action: Action) -> bool:
    """Whether an action can be a part of a kernel at all."""
    if action.op in REDUCTIONS or action.op in ALONG_ROWS:
        return own_domain(action) is not None and all(v.dtype in TYPES for v in (*action.inputs, *action.outputs))
    return elementwise(action)


def reads(action: Action, domain: Domain) -> list[Read]:
    """How an action in a domain reads its operands."""
    if action.op in REDUCTIONS or action.op in ALONG_ROWS:
        return [Read(v, sizes(v), v.shape != domain.shape) for v in action.inputs]
    out = sizes(action.outputs[0])
    return [Read(v, out, domain.is_rows(out)) for v in action.inputs]


def lower(program: Program, action: Action, args: list[int]) -> list[int]:
    """Add an action to a program; gives the items that are its results."""
    out = action.outputs[0]
    match action.op:
        case op if op in ALONG_ROWS:
            return list(ALONG_ROWS[op](_Rows(program, action), *args))
        case op if op in REDUCTIONS:
            return [program.add(op, tuple(args), out.dtype)]
        case "random_bits":
            return [program.add("random_bits", tuple(args), out.dtype, key=tuple(action.attrs["key"]))]
        case op:
            return [program.add(op, tuple(args), out.dtype)]


# ---- ops along rows -------------------------------------------------------------------


class _Rows:
    """Writes an op along rows as items of the dtype of its first result."""

    def __init__(self, program: Program, action: Action) -> None:
        self.program, self.action = program, action
        self.dtype = action.outputs[0].dtype

    def __call__(self, op: str, *args: int, dtype: str = "") -> int:
        return self.program.add(op, args, dtype or self.dtype)

    def softmax(self, x: int) -> tuple[int, int, int]:
        """The shifted logits, their exponentials, and the sum of these."""
        low = self("subtract", x, self("max", x))
        e = self("exp", low)
        return low, e, self("sum", e)

    def hot(self, labels: int) -> int:
        """Whether an element is that of its row's label."""
        dtype = self.program.items[labels].dtype
        wide = self("astype", labels, dtype="int64") if dtype != "int64" else labels
        return self("equal", self("column", dtype="int64"), wide, dtype="bool")


def _softmax(do: _Rows, x: int) -> Iterator[int]:
    _, e, total = do.softmax(x)
    yield do("divide", e, total)


def _log_softmax(do: _Rows, x: int) -> Iterator[int]:
    low, _, total = do.softmax(x)
    yield do("subtract", low, do("log", total))


def _softmax_cross_entropy(do: _Rows, x: int, labels: int) -> Iterator[int]:
    low, _, total = do.softmax(x)
    yield do("negative", do("sum", do("multiply", do("subtract", low, do("log", total)), labels)))


def _sparse_softmax_cross_entropy(do: _Rows, x: int, labels: int) -> Iterator[int]:
    """NaN for a label that is no class: no element of the row is that of the label."""
    low, _, total = do.softmax(x)
    hot = do.hot(labels)
    picked = do("sum", do("where", hot, low, do.program.constant(0.0, do.dtype)))
    losses = do("subtract", do("log", total), picked)
    yield do("where", do("any", hot, dtype="bool"), losses, do.program.constant(float("nan"), do.dtype))


def _one_hot(do: _Rows, labels: int) -> Iterator[int]:
    yield do("astype", do.hot(labels))


ALONG_ROWS: dict[str, Callable[..., Iterator[int]]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "sparse_softmax_cross_entropy": _sparse_softmax_cross_entropy,
    "one_hot": _one_hot,
}
