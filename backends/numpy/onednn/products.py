"""Matrix products."""

from __future__ import annotations

from unilayers.backends.numpy.kernels.contract import Array, Calls

from .contract import DST, SRC, WEIGHTS, accelerated, run
from .library import After, Layout, Library

FEW = 1 << 17  # multiplications: for fewer, a call costs more than it saves
SHORT = 4  # rows or columns: products with fewer are bound by memory, and BLAS is as fast


@accelerated("matmul")
def matmul(library: Library, do: Calls, a: Array, b: Array, y: Array) -> bool:
    if a.ndim < 2 or b.ndim < 2 or y.size * a.shape[-1] < FEW or min(y.shape[-2:]) < SHORT:
        return False
    if b.ndim == 2 < a.ndim and a.flags.c_contiguous and y.flags.c_contiguous:
        a, y = a.reshape(-1, a.shape[-1]), y.reshape(-1, y.shape[-1])
    if not all(map(_is_plain, (a, b, y))):
        return False
    layouts = [Layout.of(x.reshape((1,) * (y.ndim - x.ndim) + x.shape)) for x in (a, b)]
    run(do, library.primitive("matmul", *layouts, None, Layout.of(y), After()), {SRC: a, WEIGHTS: b, DST: y})
    return True


def _is_plain(x: Array) -> bool:
    """Whether BLAS would take each matrix as it is, and no axis repeats or turns back."""
    *_, rows, columns = x.strides
    by_rows = columns == x.itemsize and rows >= x.shape[-1] * x.itemsize
    by_columns = rows == x.itemsize and columns >= x.shape[-2] * x.itemsize
    return (by_rows or by_columns) and all(s > 0 for s, d in zip(x.strides, x.shape, strict=True) if d > 1)
