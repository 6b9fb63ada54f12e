"""What a value is before it has numbers: dtypes, symbolic dimensions and ``Spec(shape, dtype)``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from unilayers.errors import DTypeError, ShapeError, nearest

# ---- dtypes -----------------------------------------------------------------

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTS = ("int8", "uint8", "int16", "int32", "int64")
DTYPES = ("bool", *INTS, *FLOATS)
ITEMSIZE = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8}
ITEMSIZE |= {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


TEXT = "string"  # of inputs that layers read before the graph; no op takes it


def check_dtype(dtype: str) -> str:
    """The dtype's name, or a ``DTypeError`` that lists the valid ones."""
    name = dtype if isinstance(dtype, str) else dtype_name(dtype)
    if name not in DTYPES:
        raise DTypeError(f"unknown dtype {name!r}", fix=nearest(name, DTYPES))
    return name


@cache  # NumPy makes the name anew each time, which takes longer than a small op
def dtype_name(dtype: object) -> str:
    """The plain name of any framework's dtype object: ``torch.float32`` and ``np.dtype('f4')`` are ``'float32'``."""
    if isinstance(dtype, str):
        return dtype
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return name.rpartition(".")[2]


def is_float(dtype: str) -> bool:
    return dtype in FLOATS


def host_dtype(dtype: str) -> str:
    """The dtype of NumPy arrays that hold values of a dtype: NumPy has no bfloat16, and float32 has all its values."""
    return "float32" if dtype == "bfloat16" else dtype


def promote(*dtypes: str) -> str:
    """The dtype two or more operands are brought to: bool < integers < floats, wider wins within a kind.

    An integer never widens a float (int64 with float32 is float32), unlike NumPy's rule: a label or an index must
    not turn a float32 model into float64.

    Example:
        >>> promote("int64", "float32"), promote("float32", "float64"), promote("bool", "int32")
        ('float32', 'float64', 'int32')
    """
    result = dtypes[0]
    for other in dtypes[1:]:
        if result == other:
            continue
        if {result, other} == {"float16", "bfloat16"}:
            result = "float32"
        elif {result, other} == {"uint8", "int8"}:
            result = "int16"
        else:
            result = max(result, other, key=DTYPES.index)
    return result


# ---- dimensions -------------------------------------------------------------

Atom: TypeAlias = (
    "str | tuple[Dim | int, Dim | int]"  # a symbol's name, or (numerator, denominator) of a floor division
)


class Dim:
    """A dimension not known yet: a polynomial with integer coefficients over named symbols.

    ``Dim.symbol("batch") * 64 // 64`` is ``batch`` again, so shapes can be computed before the batch size is known.
    Results without symbols are plain ints. Division that does not come out even is kept as a floor-division atom.

    Example:
        >>> batch = Dim.symbol("batch")
        >>> batch * 8 // 4, (batch + 2).evaluate({"batch": 3})
        (2*batch, 5)
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[tuple[Atom, ...], int]) -> None:
        self.terms: tuple[tuple[tuple[Atom, ...], int], ...] = tuple(sorted(terms.items(), key=repr))
        self._hash = hash(self.terms)

    @staticmethod
    def symbol(name: str) -> Dim:
        return Dim({(name,): 1})

    def __add__(self, other: Dim | int) -> Dim | int:
        if not isinstance(other, (Dim, int)):
            return NotImplemented
        total = dict(self.terms)
        for monomial, k in _terms(other):
            total[monomial] = total.get(monomial, 0) + k
        return _simplest(total)

    def __mul__(self, other: Dim | int) -> Dim | int:
        if not isinstance(other, (Dim, int)):
            return NotImplemented
        total: dict[tuple[Atom, ...], int] = {}
        for m1, k1 in self.terms:
            for m2, k2 in _terms(other):
                m = tuple(sorted(m1 + m2, key=repr))
                total[m] = total.get(m, 0) + k1 * k2
        return _simplest(total)

    def __floordiv__(self, other: Dim | int) -> Dim | int:
        return _floordiv(self, other)

    def __rfloordiv__(self, other: int) -> Dim | int:
        return _floordiv(other, self)

    def __mod__(self, other: Dim | int) -> Dim | int:
        return self - self // other * other

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Dim | int:
        return self * -1

    def __sub__(self, other: Dim | int) -> Dim | int:
        return self + other * -1

    def __rsub__(self, other: int) -> Dim | int:
        return self * -1 + other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        def atom(a: Atom) -> str:
            return a if isinstance(a, str) else f"(({a[0]})//({a[1]}))"

        def term(monomial: tuple[Atom, ...], k: int) -> str:
            factors = [atom(a) for a in monomial]
            return "*".join(([str(k)] if k != 1 or not factors else []) + factors)

        return " + ".join(term(m, k) for m, k in self.terms)

    def symbols(self) -> set[str]:
        """The names that must be known before the dimension is a number."""
        found: set[str] = set()
        for monomial, _ in self.terms:
            for a in monomial:
                for part in (a,) if isinstance(a, str) else a:
                    found |= {part} if isinstance(part, str) else part.symbols() if isinstance(part, Dim) else set()
        return found

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The number this dimension is when the symbols have the given sizes."""

        def atom(a: Atom) -> int:
            if isinstance(a, str):
                return sizes[a]
            return evaluate(a[0], sizes) // evaluate(a[1], sizes)

        return sum(k * math.prod(atom(a) for a in monomial) for monomial, k in self.terms)


DimLike = int | Dim
Shape = tuple[DimLike, ...]


def _terms(value: DimLike) -> Iterable[tuple[tuple[Atom, ...], int]]:
    return value.terms if isinstance(value, Dim) else (((), value),)


def _simplest(terms: dict[tuple[Atom, ...], int]) -> DimLike:
    terms = {m: k for m, k in terms.items() if k}
    if not terms:
        return 0
    return terms[()] if set(terms) == {()} else Dim(terms)


def _floordiv(top: DimLike, bottom: DimLike) -> DimLike:
    if isinstance(bottom, int) and isinstance(top, Dim) and all(k % bottom == 0 for m, k in top.terms if m):
        # A constant that is left over is rounded down by itself: (3 n - 2) // 3 is n - 1.
        return _simplest({m: k // bottom for m, k in top.terms})
    if isinstance(bottom, Dim) and len(bottom.terms) == 1:
        (divisor, k_divisor), quotient = bottom.terms[0], {}
        for monomial, k in _terms(top):
            rest = list(monomial)
            if k % k_divisor or any(rest.count(a) < divisor.count(a) for a in divisor):
                break
            for a in divisor:
                rest.remove(a)
            quotient[tuple(rest)] = k // k_divisor
        else:
            return _simplest(quotient)
    return Dim({((top, bottom),): 1})


def evaluate(dim: DimLike, sizes: Mapping[str, int]) -> int:
    """``dim`` as a number: ints stay, symbols take their sizes."""
    return dim.evaluate(sizes) if isinstance(dim, Dim) else dim


# ---- spec -------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """Shape and dtype of a value in a graph.

    Args:
        shape: Sizes, each an int or a symbolic ``Dim`` (the batch).
        dtype: One of ``DTYPES``, or ``"string"`` for texts on their way to the layers that read them.

    Example:
        >>> Spec((Dim.symbol("batch"), 10), "float32")
        float32[batch, 10]
    """

    shape: Shape
    dtype: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.dtype != TEXT:
            check_dtype(self.dtype)

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> DimLike:
        """How many elements."""
        total: DimLike = 1
        for d in self.shape:
            total = total * d
        return total

    @property
    def nbytes(self) -> DimLike:
        return self.size * ITEMSIZE[self.dtype]

    def with_shape(self, shape: Iterable[DimLike]) -> Spec:
        return Spec(tuple(shape), self.dtype)

    def with_dtype(self, dtype: str) -> Spec:
        return Spec(self.shape, dtype)

    def specialise(self, sizes: Mapping[str, int]) -> Spec:
        return Spec(tuple(evaluate(d, sizes) for d in self.shape), self.dtype)


def public_shape(shape: Iterable[DimLike]) -> tuple[int | None, ...]:
    """The shape as Keras users write it: symbolic dimensions are None."""
    return tuple(None if isinstance(d, Dim) else d for d in shape)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that all operands broadcast to, right-aligned; 1 stretches to any size.

    Raises:
        ShapeError: if two sizes differ and neither is 1.
    """
    ndim = max(map(len, shapes))
    result: list[DimLike] = [1] * ndim
    for shape in shapes:
        for axis, d in enumerate(shape, ndim - len(shape)):
            if d != 1 and result[axis] != 1 and d != result[axis]:
                raise ShapeError(
                    "operands do not broadcast",
                    expected="equal sizes, or 1, on each right-aligned axis",
                    received=" and ".join(str(s) for s in shapes),
                )
            if result[axis] == 1:
                result[axis] = d
    return tuple(result)


def normalize_axis(axis: int, ndim: int) -> int:
    """``axis`` counted from the front.

    Raises:
        ShapeError: if it is outside ``-ndim..ndim-1``.
    """
    if not -ndim <= axis < ndim:
        raise ShapeError("axis out of range", expected=f"{-ndim} to {ndim - 1}", received=str(axis))
    return axis % ndim


def normalize_axes(axis: int | Iterable[int] | None, ndim: int) -> tuple[int, ...]:
    """Any way of naming axes (None means all) as a sorted tuple counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, int):
        return (normalize_axis(axis, ndim),)
    return tuple(sorted({normalize_axis(a, ndim) for a in axis}))
