"""The text of a program's kernel.

One thread an element; or, where elements of a row are summed up or compared, one block a row. There each thread goes
over its elements of the row once for every reduction that needs others first, and computes anew what it needs: that
costs less than to keep it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from .expressions import INFINITE, TYPES, kind, text
from .program import REDUCTIONS, Item, Program, Shape

Array = Any
ONE, ROW, FULL = range(3)  # how many values an item has: one, one a row, one an element
THREADS = 256
MOST_BLOCKS = 1 << 14  # of kernels whose threads go on to further elements


@dataclass(frozen=True)
class Source:
    """A kernel's text, and how many threads it wants.

    Args:
        name: Of its function, which belongs to the text: the same for the same.
        body: The function.
        grid, block: Blocks, and threads in each; no blocks where there is nothing to do.
    """

    name: str
    body: str
    grid: int
    block: int


def finished(kind: str, parameters: str, lines: Iterable[str], grid: int, block: int) -> Source:
    """A kernel from its lines."""
    code = "".join(f"    {line}\n" for line in lines)
    name = f"{kind}_{hashlib.sha256((parameters + code).encode()).hexdigest()[:16]}"
    return Source(name, f'extern "C" __global__ void {name}({parameters}) {{\n{code}}}\n', grid, block)


def memory_type(dtype: str) -> str:
    return "unsigned short" if dtype == "float16" else TYPES[dtype]


def source(program: Program, operands: Sequence[Array], results: Sequence[Array]) -> Source:
    """The kernel of a program over arrays like these: shapes and strides are written into it."""
    return _Writer(program, operands, results).source()


class _Writer:
    def __init__(self, program: Program, operands: Sequence[Array], results: Sequence[Array]) -> None:
        self.program, self.items, self.results = program, program.items, results
        levels = {row for _, row in program.results}
        self.by_row = len(levels) > 1 or any(item.op in REDUCTIONS for item in self.items)
        # The axes that threads, or blocks, are counted over, and those inside.
        self.outer: Shape = program.lead if self.by_row or levels == {True} else program.shape
        self.inner: Shape = program.shape[len(self.outer) :] if self.by_row else ()
        self.arrays = dict(zip(program.operands, operands, strict=True))
        self.strides = {i: _strides(x, self.items[i]["to"]) for i, x in self.arrays.items()}
        self.places, self.depths = self._survey()
        self.integer = "long long" if max(prod(program.shape), self._reach()) >= 1 << 30 else "int"

    def _reach(self) -> int:
        """How many elements apart the first and the last of an operand are."""
        ends = zip((self.items[i]["to"] for i in self.strides), self.strides.values(), strict=True)
        return max((sum(abs(s) * (d - 1) for s, d in zip(strides, to, strict=True)) for to, strides in ends), default=0)

    def _survey(self) -> tuple[list[int], list[int]]:
        """How many values each item has, and how many passes over the row come before it."""
        places: list[int] = []
        depths: list[int] = []
        for i, item in enumerate(self.items):
            place, depth = (
                max((places[a] for a in item.args), default=ONE),
                max((depths[a] for a in item.args), default=0),
            )
            if item.op == "operand":
                inner, outer = self._parts(i)
                place = FULL if any(inner) or (any(outer) and not self.by_row) else ROW if any(outer) else ONE
            elif item.op in ("column", "random_bits"):
                place = FULL
            elif item.op in REDUCTIONS:
                place, depth = ROW, depth + 1
            places.append(place)
            depths.append(depth)
        return places, depths

    def _parts(self, i: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """An operand's strides along the inner and along the outer axes."""
        strides, outer = self.strides[i], len(self.outer)
        whole = self.by_row and not self.items[i]["row"]
        return (strides[outer:] if whole else ()), (*strides[:outer], *(0,) * (outer - len(strides)))

    # ---- the whole

    def source(self) -> Source:
        parameters = ", ".join(
            [f"const {memory_type(self.items[i].dtype)}* a{i}" for i in self.arrays]
            + [f"{memory_type(x.dtype.name)}* y{n}" for n, x in enumerate(self.results)]
        )
        size = prod(self.outer)
        if self.by_row:
            block = min(THREADS, max(32, 1 << max(0, self.program.width - 1).bit_length()))
            lines = self._rows(block)
            return finished("rows", parameters, lines, size, block)
        return finished("chain", parameters, self._flat(size), min(MOST_BLOCKS, -(-size // THREADS)), THREADS)

    def _flat(self, size: int) -> list[str]:
        once = [i for i, place in enumerate(self.places) if place == ONE]
        each = [i for i, place in enumerate(self.places) if place == FULL]
        t = self.integer
        lines = [*self._define(once)]
        lines.append(
            f"for ({t} i = blockIdx.x * ({t})blockDim.x + threadIdx.x; i < {size}; i += ({t})gridDim.x * blockDim.x) {{"
        )
        lines += [f"    {line}" for line in (*self._define(each), *self._stores("i", False), *self._stores("i", True))]
        return [*lines, "}"]

    def _rows(self, block: int) -> list[str]:
        lines = [f"[[maybe_unused]] const {self.integer} i = blockIdx.x;"]
        for depth in range(max(self.depths, default=0) + 1):
            few = [
                n for n, p in enumerate(self.places) if p < FULL and self.depths[n] == depth and not self._reduces(n)
            ]
            lines += self._define(few)
            ready = [n for n in range(len(self.items)) if self._reduces(n) and self.depths[n] == depth + 1]
            lines += self._reduce(ready, block)
        full = [number for number, row in self.program.results if not row]
        if full:
            lines += self._over_columns([*self._define(self._needed(full)), *self._stores("i", False)])
        stores = self._stores("i", True)
        if stores:  # where they lie over operands, these must have been read by all
            lines += ["__syncthreads();", f"if (threadIdx.x == 0) {{ {' '.join(stores)} }}"]
        return lines

    def _reduces(self, number: int) -> bool:
        return self.items[number].op in REDUCTIONS

    # ---- parts

    def _over_columns(self, body: Iterable[str]) -> list[str]:
        begin = f"for (int j = threadIdx.x; j < {self.program.width}; j += blockDim.x) {{"
        return [begin, *(f"    {line}" for line in body), "}"]

    def _reduce(self, numbers: Sequence[int], block: int) -> list[str]:
        """Reductions in one pass: each thread its own elements, then the threads' results as a tree."""
        if not numbers:
            return []
        lines, body = [], self._define(self._needed([self.items[n].args[0] for n in numbers]))
        tree, last = [], []
        for n in numbers:
            item = self.items[n]
            dtype = "float32" if item.dtype == "float16" else item.dtype
            t, join = TYPES[item.dtype], REDUCTIONS[item.op]
            lines.append(f"{t} v{n} = {_start(item)};")
            body.append(f"v{n} = {text(join, [f'v{n}', f'v{item.args[0]}'], [dtype] * 2, dtype, {})};")
            lines.append(f"__shared__ {t} s{n}[{block}];")
            pair = [f"s{n}[threadIdx.x]", f"s{n}[threadIdx.x + n]"]
            tree.append(f"{pair[0]} = {text(join, pair, [dtype] * 2, dtype, {})};")
            end = f"rounded_half(s{n}[0])" if item.dtype == "float16" else f"s{n}[0]"
            last.append(f"v{n} = {end};")
        fill = [f"s{n}[threadIdx.x] = v{n};" for n in numbers]
        loop = (
            f"for (int n = {block // 2}; n; n /= 2) {{ if (threadIdx.x < n) {{ {' '.join(tree)} }} __syncthreads(); }}"
        )
        return [*lines, *self._over_columns(body), *fill, "__syncthreads();", loop, *last]

    def _needed(self, numbers: Iterable[int]) -> list[int]:
        """The items with a value an element that these are computed from, and they themselves."""
        found: set[int] = set()
        stack = list(numbers)
        while stack:
            n = stack.pop()
            if n not in found and self.places[n] == FULL:
                found.add(n)
                stack.extend(self.items[n].args)
        return sorted(found)

    def _define(self, numbers: Iterable[int]) -> list[str]:
        return [f"const {TYPES[self.items[n].dtype]} v{n} = {self._value(n)};" for n in numbers]

    def _value(self, n: int) -> str:
        item = self.items[n]
        match item.op:
            case "operand":
                inner, outer = self._parts(n)
                at = _sum(_index("i", self.outer, outer), _index("j", self.inner, inner))
                return f"from_half(a{n}[{at}])" if item.dtype == "float16" else f"a{n}[{at}]"
            case "constant":
                return str(item["text"])
            case "column":
                return "j" if self.by_row else f"i % {self.program.width}"
            case "random_bits":
                place = f"(unsigned long long)i * {self.program.width} + j" if self.by_row else "i"
                first, second = item["key"]
                return f"random_bits((unsigned)v{item.args[0]}, {place}, {first}u, {second}u)"
            case op:
                args = [f"v{a}" for a in item.args]
                return text(op, args, [self.items[a].dtype for a in item.args], item.dtype, dict(item.attrs))

    def _stores(self, at: str, rows: bool) -> list[str]:
        found = []
        for number, ((n, row), y) in enumerate(zip(self.program.results, self.results, strict=True)):
            if row == rows:
                strides = _strides(y, tuple(y.shape))
                inner = () if row or not self.by_row else strides[len(self.outer) :]
                place = _sum(_index("i", self.outer, strides[: len(self.outer)]), _index("j", self.inner, inner))
                value = f"to_half(v{n})" if self.items[n].dtype == "float16" else f"v{n}"
                found.append(f"y{number}[{place}] = {value};")
        return found


def _start(item: Item) -> str:
    """What a reduction begins with."""
    t, signed = TYPES[item.dtype], kind(item.dtype) == "i"
    match item.op:
        case "sum" | "any":
            return f"({t})0"
        case "prod" | "all":
            return f"({t})1"
        case "max" | "min" if kind(item.dtype) == "f":
            return f"({t})({'-' if item.op == 'max' else ''}{INFINITE})"
    info = np.iinfo(item.dtype) if item.dtype != "bool" else None
    low, high = (f"({t})((({t})1) << {info.bits - 1})", "") if info and signed else (f"({t})0", f"({t})~({t})0")
    return low if item.op == "max" else (f"({t})~{low}" if signed else high)


# ---- where elements are ---------------------------------------------------------------


def _strides(x: Array, to: Shape) -> tuple[int, ...]:
    """How many elements further the next one along each axis is, where x is stretched to a shape."""
    missing = len(to) - x.ndim
    own = [0 if d == 1 else s // x.dtype.itemsize for d, s in zip(x.shape, x.strides, strict=True)]
    return (0,) * missing + tuple(own)


def _index(variable: str, sizes: Sequence[int], strides: Sequence[int]) -> str:
    """An element's place, from its number among all along these axes."""
    axes: list[tuple[int, int]] = []
    for size, stride in zip(sizes, strides, strict=False):
        if size == 1:
            continue
        if axes and axes[-1][1] == stride * size:  # one long axis
            axes[-1] = (axes[-1][0] * size, stride)
        else:
            axes.append((size, stride))
    after = [1, *accumulate((size for size, _ in axes[::-1]), lambda a, b: a * b)]
    terms = []
    for k, ((size, stride), below) in enumerate(zip(axes, after[len(axes) - 1 :: -1] if axes else (), strict=True)):
        if stride:
            at = variable if below == 1 else f"{variable} / {below}"
            at = at if k == 0 else f"{at} % {size}"
            terms.append(at if stride == 1 else f"({at}) * {stride}")
    return " + ".join(terms) or "0"


def _sum(*terms: str) -> str:
    return " + ".join(t for t in terms if t != "0") or "0"
