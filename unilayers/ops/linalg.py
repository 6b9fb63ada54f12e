"""Products of matrices and tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.graph import Sample
from unilayers.ops.define import primitive, require_float, shape_of
from unilayers.spec import Spec, broadcast_shapes


def _matmul_infer(a: Spec, b: Spec) -> Spec:
    require_float(a.dtype)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            "matrices do not fit", expected="(..., n, k) times (..., k, m)", received=f"{a.shape} times {b.shape}"
        )
    return Spec((*broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), a.dtype)


def _matmul_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    return ops.matmul(g, ops.matrix_transpose(b)), ops.matmul(ops.matrix_transpose(a), g)


def _matmul_samples(rng: np.random.Generator) -> list[Sample]:
    shapes = [((3, 4), (4, 2)), ((2, 3, 4), (2, 4, 2)), ((2, 3, 4), (4, 2)), ((2, 1, 3, 4), (3, 4, 2))]
    return [Sample((rng.normal(size=a), rng.normal(size=b))) for a, b in shapes]


@primitive(
    infer=_matmul_infer, vjp=_matmul_vjp, cost=lambda a, b: 2 * _matmul_infer(a, b).size * a.shape[-1], promotes=0,
    reference=lambda a, b: np.einsum("...ik,...kj->...ij", a, b), samples=_matmul_samples,
)  # fmt: skip
def matmul_(a: Any, b: Any) -> Any:
    """Matrix product over the last two axes; the axes before broadcast."""
    return (a, b), {}


def matmul(a: Any, b: Any) -> Any:
    """Matrix product over the last two axes, the axes before broadcast; a vector counts as a row or a column.

    A stack of rows times one matrix is computed as one product.
    """
    na, nb = len(shape_of(a)), len(shape_of(b))
    if na == 1:
        return ops.squeeze(matmul(ops.expand_dims(a, 0), b), -2 if nb > 1 else -1)
    if nb == 1:
        return ops.squeeze(matmul(a, ops.expand_dims(b, -1)), -1)
    if na > 2 and nb == 2:
        *lead, k = shape_of(a)
        return ops.reshape(matmul_(ops.reshape(a, (-1, k)), b), (*lead, shape_of(b)[-1]))
    return matmul_(a, b)


def tensordot(a: Any, b: Any, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Any:
    """Sum of products over the given axes: the last ``axes`` of a with the first of b, or two lists of axes."""
    sa, sb = shape_of(a), shape_of(b)
    pairs = (range(len(sa) - axes, len(sa)), range(axes)) if isinstance(axes, int) else axes
    over_a, over_b = [x % len(sa) for x in pairs[0]], [x % len(sb) for x in pairs[1]]
    free_a = [i for i in range(len(sa)) if i not in over_a]
    free_b = [i for i in range(len(sb)) if i not in over_b]
    inner = math.prod(sa[i] for i in over_a)
    left = ops.reshape(ops.permute_dims(a, free_a + over_a), (-1, inner))
    right = ops.reshape(ops.permute_dims(b, over_b + free_b), (inner, -1))
    return ops.reshape(matmul_(left, right), (*(sa[i] for i in free_a), *(sb[i] for i in free_b)))


def vecdot(a: Any, b: Any, axis: int = -1) -> Any:
    """Sum of the products of corresponding elements along ``axis``."""
    return ops.sum(a * b, axis)
