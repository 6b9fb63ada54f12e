"""Matrix products by BLAS, into given memory."""

from __future__ import annotations

from .contract import Array, Calls, kernel


@kernel("matmul")
def matmul(do: Calls, a: Array, b: Array, y: Array) -> None:
    a, b = for_blas(do, a), for_blas(do, b)
    if a.ndim == b.ndim == 2:
        do(do.xp.dot, a, b, y)  # the same product as matmul's, with less ado
    else:
        do(do.xp.matmul, a, b, out=y)


def for_blas(do: Calls, x: Array) -> Array:
    """x, or a contiguous copy where its matrices lie in memory in a way that BLAS cannot read as they are."""
    rows, columns = x.strides[-2:]
    item = x.dtype.itemsize
    by_rows = columns == item and rows >= x.shape[-1] * item
    by_columns = rows == item and columns >= x.shape[-2] * item
    if by_rows or by_columns or (1 in x.shape[-2:] and x.flags.c_contiguous) or not x.size:
        return x
    dense = do.workspace(x.shape, x.dtype)
    do(do.xp.copyto, dense, x)
    return dense
