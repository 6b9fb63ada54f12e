"""Elementwise kernels: NumPy's ufuncs, and what is put together from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from unilayers.backends.numpy.table import numpy_like

from .contract import KERNELS, Array, Batch, Calls, Kernel, anywhere, blocks, kernel, scalar, spelled

ROW = 8192  # elements: a row this long hides the cost of starting it, and stays in the first-level cache
BLOCK = 1 << 15  # elements: a few blocks of this size stay in the second-level cache
WORTH = 16384  # elements of a result from which on it pays to write a short operand into a row

# ---- ufuncs -------------------------------------------------------------------


def call_ufunc(do: Calls, name: str, *arrays: Array) -> None:
    """``name(*operands, result)``, arranged so that NumPy's inner loops are long and of the fast kind.

    NumPy starts an inner loop for every row: adding 32 biases to a batch of images takes six times as long as the same
    over rows of 8192, into which the biases are written 256 times. And its maximum is fast between arrays only.
    """
    function, (*operands, y) = getattr(do.xp, name), arrays
    if len(operands) == 2:
        a, b = operands
        if repeats(a, b, y, name):
            by_rows(do, function, a, row_of(do, b, y.size), y)
            return
        if repeats(b, a, y, name):
            by_rows(do, _swapped(function), b, row_of(do, a, y.size), y)
            return
    if name in EXTREMA:  # NumPy 2.4 warns when these get their result by position
        do(function, *operands, out=y)
    else:
        do(function, *operands, y)


EXTREMA = ("maximum", "minimum")


def repeats(x: Array, short: Array, y: Array, name: str = "") -> bool:
    """Whether x and y are contiguous and equal in shape, and ``short`` a vector along their last axes worth writing."""
    if x.shape != y.shape or not (x.flags.c_contiguous and y.flags.c_contiguous and short.flags.c_contiguous):
        return False
    if short.size == 1:
        return name in EXTREMA and y.size >= WORTH // 4
    shape = short.shape
    while shape[0] == 1:
        shape = shape[1:]
    return y.size >= WORTH and short.size <= ROW // 2 and shape == y.shape[y.ndim - len(shape) :]


def row_of(do: Calls, short: Array, size: int) -> Array:
    """A short vector written down again and again: a row for ``by_rows`` over ``size`` elements."""
    row = do.workspace((max(1, min(ROW, size) // short.size), short.size), short.dtype)
    do(do.xp.copyto, row, short.reshape(-1))
    return row.reshape(-1)


def by_rows(do: Calls, function: Any, x: Array, row: Array, y: Array) -> None:
    """``function(x, row, out=y)`` for contiguous x and y of any shape, the row repeated as often as it takes."""
    if not y.size:
        return
    x, y = x.reshape(-1), y.reshape(-1)
    whole = y.size // row.size * row.size
    shape = (whole // row.size, row.size) if whole > row.size else (whole,)  # NumPy is faster with one axis than two
    if whole:
        do(function, x[:whole].reshape(shape), row, out=y[:whole].reshape(shape))
    if whole < y.size:
        do(function, x[whole:], row[: y.size - whole], out=y[whole:])


def _swapped(function: Any) -> Any:
    def call(b: Array, a: Array, out: Array) -> None:
        function(a, b, out=out)

    call.__name__ = f"swapped_{function.__name__}"
    return call


def _ufunc(name: str) -> Kernel:
    return Kernel(lambda do, *arrays: call_ufunc(do, name, *arrays), anywhere)


UFUNCS = {op: f.__name__ for op, f in numpy_like(np).items() if isinstance(f, np.ufunc) and op != "matmul"}
KERNELS.update({op: _ufunc(name) for op, name in UFUNCS.items()})


@kernel("rsqrt", overwrites=anywhere)
def rsqrt(do: Calls, x: Array, y: Array) -> None:
    do(do.xp.sqrt, x, y)
    do(do.xp.reciprocal, y, y)


@kernel("reciprocal", overwrites=anywhere)
def reciprocal(do: Calls, x: Array, y: Array) -> None:
    do(do.xp.reciprocal, x, y)


@kernel("astype")
def astype(do: Calls, x: Array, y: Array, *, dtype: str) -> None:
    do(do.xp.copyto, y, x, "unsafe")


# ---- selection ----------------------------------------------------------------


def bits(x: Array) -> Array:
    """x as signed integers of the same width."""
    return x.view(f"i{x.dtype.itemsize}")


def select_mask(do: Calls, condition: Array, like: Array) -> Array:
    """Integers as wide as the elements of ``like``: all bits set where the condition holds, none elsewhere."""
    mask = do.workspace(like.shape, f"i{like.dtype.itemsize}")
    do(do.xp.negative, condition.view("i1"), mask)
    return mask


@kernel("where", overwrites=lambda operands, attrs: [(0, 1)])
def where(do: Calls, condition: Array, a: Array, b: Array, y: Array) -> None:
    """b ^ ((a ^ b) & mask) on the bits: no branch an element, many times faster than NumPy's masked copies."""
    mask = select_mask(do, condition, y)
    do(do.xp.bitwise_xor, bits(a), bits(b), bits(y))
    do(do.xp.bitwise_and, bits(y), mask, bits(y))
    do(do.xp.bitwise_xor, bits(y), bits(b), bits(y))


@kernel("gate", overwrites=lambda operands, attrs: [(0, 1)])
def gate(do: Calls, condition: Array, a: Array, y: Array) -> None:
    """Not an op: a where the condition holds, else 0 (see ``fuse``)."""
    do(do.xp.bitwise_and, bits(a), select_mask(do, condition, y), bits(y))


@kernel("relu_gate", overwrites=lambda operands, attrs: [(0, 1)])
def relu_gate(do: Calls, kept: Array, a: Array, y: Array) -> None:
    """Not an op: a where a relu's result is above 0, else 0 (see ``fuse``). Of its bits, seen as a number that is not
    negative, minus that number has the first set just where it is above 0; shifted, it is all of them."""
    flat = all(x.flags.c_contiguous for x in (kept, a, y))
    whole = [bits(x).reshape(-1) if flat else bits(x) for x in (kept, a, y)]
    if not y.size:
        return
    each, xp, size = Batch(do), do.xp, min(BLOCK, y.size) if flat else len(y)
    mask = do.workspace((size,) if flat else y.shape, whole[0].dtype)
    last = scalar(do, 8 * y.dtype.itemsize - 1, mask.dtype)
    for its, mine, result, work in blocks(size, whole, (mask,)):
        each(xp.negative, its, work)
        each(xp.right_shift, work, last, work)
        each(xp.bitwise_and, mine, work, result)
    each.run()


@kernel("relu", overwrites=anywhere)
def relu(do: Calls, x: Array, y: Array) -> None:
    """The zeros are a constant row: NumPy's maximum is fast only between two arrays."""
    if x.flags.c_contiguous:
        by_rows(do, do.xp.maximum, x, zeros(do, min(ROW, y.size), y.dtype), y)
    else:
        do(do.xp.maximum, x, scalar(do, 0, y.dtype), out=y)


def zeros(do: Calls, n: int, dtype: Any) -> Array:
    """A constant vector of zeros."""
    return do.constant(("zeros", n, spelled(dtype)), lambda: do.xp.zeros(n, dtype))
