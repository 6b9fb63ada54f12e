"""Products of matrices and tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.graph import Sample
from unilayers.ops.define import composite, dtype_of, namespace, primitive, require_float, shape_of
from unilayers.spec import Shape, Spec, broadcast_shapes, is_float

__all__ = ["einsum", "einsum_", "matmul", "matmul_", "tensordot", "vecdot"]

__getattr__, __dir__ = namespace(__name__)  # the decompositions, too, are ops of this name in Keras


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


def matmul(x1: Any, x2: Any) -> Any:
    """Matrix product over the last two axes, the axes before broadcast; a vector counts as a row or a column.

    A stack of rows times one matrix is computed as one product.

    Engines: On a GPU JAX rounds float32 operands unless told not to, as it is here.
    """
    a, b = x1, x2
    na, nb = len(shape_of(a)), len(shape_of(b))
    if na == 1:
        return ops.squeeze(matmul(ops.expand_dims(a, 0), b), -2 if nb > 1 else -1)
    if nb == 1:
        return ops.squeeze(matmul(a, ops.expand_dims(b, -1)), -1)
    if na > 2 and nb == 2:
        *lead, k = shape_of(a)
        return ops.reshape(matmul_(ops.reshape(a, (-1, k)), b), (*lead, shape_of(b)[-1]))
    return matmul_(a, b)


def tensordot(x1: Any, x2: Any, axes: int | Sequence[int | Sequence[int]] = 2) -> Any:
    """Sum of products over the given axes: the last ``axes`` of x1 with the first of x2, or a list of axes of each."""
    a, b = x1, x2
    sa, sb = shape_of(a), shape_of(b)
    if isinstance(axes, int):
        pairs: list[Sequence[int]] = [range(len(sa) - axes, len(sa)), range(axes)]
    else:
        pairs = [[over] if isinstance(over, int) else over for over in axes]
    over_a, over_b = [x % len(sa) for x in pairs[0]], [x % len(sb) for x in pairs[1]]
    free_a = [i for i in range(len(sa)) if i not in over_a]
    free_b = [i for i in range(len(sb)) if i not in over_b]
    inner = math.prod(sa[i] for i in over_a)
    left = ops.reshape(ops.permute_dims(a, free_a + over_a), (-1, inner))
    right = ops.reshape(ops.permute_dims(b, over_b + free_b), (inner, -1))
    return ops.reshape(matmul_(left, right), (*(sa[i] for i in free_a), *(sb[i] for i in free_b)))


def vecdot(x1: Any, x2: Any, axis: int = -1) -> Any:
    """Sum of the products of corresponding elements along ``axis``."""
    return ops.sum(ops.multiply(x1, x2), axis)


# ---- einsum -----------------------------------------------------------------

_Labels: TypeAlias = list[str | int]  # one per axis; those that an ellipsis stands for are -1 for the last, -2, ...


def _wrong(problem: str, equation: str, shapes: Sequence[Shape], fix: str = "") -> ShapeError:
    received = f"{equation!r} for shapes {', '.join(map(str, shapes))}"
    return ShapeError(problem, where="op 'einsum'", received=received, fix=fix)


def _parse(equation: str, shapes: Sequence[Shape]) -> tuple[list[_Labels], _Labels]:
    """The labels of each operand's axes, and of the result's."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise _wrong("as many terms as operands are needed", equation, shapes)
    operands = []
    for term, shape in zip(terms, shapes, strict=True):
        head, dots, tail = term.partition("...")
        hidden = len(shape) - len(head) - len(tail)
        if hidden < 0 or (hidden and not dots) or not all(map(str.isalpha, head + tail)):
            raise _wrong(f"the term {term!r} does not fit its operand", equation, shapes, "Write a letter per axis")
        operands.append([*head, *range(-hidden, 0), *tail])
    known = [label for labels in operands for label in labels]
    hidden = -min((label for label in known if isinstance(label, int)), default=0)
    if not arrow:
        return operands, [*range(-hidden, 0), *sorted(c for c in known if isinstance(c, str) and known.count(c) == 1)]
    head, dots, tail = right.partition("...")
    output = [*head, *(range(-hidden, 0) if dots else ()), *tail]
    if len(set(output)) < len(output) or not set(output) <= set(known):
        raise _wrong("each label of the result must be in a term, and once in the result", equation, shapes)
    return operands, output


def _sizes(operands: Sequence[_Labels], shapes: Sequence[Shape], equation: str) -> dict[str | int, Any]:
    """The size of each label; a size of 1 stretches."""
    sizes: dict[str | int, Any] = {}
    for labels, shape in zip(operands, shapes, strict=True):
        for label, size in zip(labels, shape, strict=True):
            if 1 not in (size, sizes.get(label, 1)) and sizes[label] != size:
                raise _wrong(f"axis {label!r} has two sizes, {sizes[label]} and {size}", equation, shapes)
            sizes[label] = sizes.get(label, 1) if size == 1 else size
    return sizes


def _diagonal(x: Any, labels: _Labels) -> tuple[Any, _Labels]:
    """x with each label once: only elements with equal places on the axes of one label stay."""
    for label in [c for c in labels if labels.count(c) > 1]:
        while labels.count(label) > 1:
            at, again = [i for i, c in enumerate(labels) if c == label][:2]
            size, axes = shape_of(x)[at], range(len(labels))
            row, column = (
                ops.reshape(ops.arange(size, like=x), [size if i == a else 1 for i in axes]) for a in (at, again)
            )
            x = ops.sum(ops.where(ops.equal(row, column), x, ops.zeros_like(x)), again)
            labels = labels[:again] + labels[again + 1 :]
    return x, labels


def _arranged(x: Any, labels: _Labels, groups: Sequence[_Labels]) -> Any:
    """x with its axes in the order of the groups, each group in one axis; axes of 1 for a label that x lacks."""
    order = [c for group in groups for c in group if c in labels]
    sizes = dict(zip(labels, shape_of(x), strict=True))
    if order != labels:
        x = ops.permute_dims(x, [labels.index(c) for c in order])
    shape = tuple(math.prod(sizes.get(c, 1) for c in group) for group in groups)
    return x if shape == tuple(shape_of(x)) else ops.reshape(x, shape)


def _contract(a: Any, a_labels: _Labels, b: Any, b_labels: _Labels, kept: Collection[str | int]) -> tuple[Any, _Labels]:
    """The product of two operands, summed over the labels that both have and nobody needs."""
    both = [c for c in a_labels if c in b_labels]
    batch, inner = [c for c in both if c in kept], [c for c in both if c not in kept]
    left, right = [c for c in a_labels if c not in both], [c for c in b_labels if c not in both]
    result = batch + left + right
    if inner and is_float(dtype_of(a)):
        stack = [[c] for c in batch]
        rows, columns = _arranged(a, a_labels, [*stack, left, inner]), _arranged(b, b_labels, [*stack, inner, right])
        sizes = dict(zip(a_labels + b_labels, shape_of(a) + shape_of(b), strict=True))
        return ops.reshape(ops.matmul_(rows, columns), tuple(sizes[c] for c in result)), result
    each = [[c] for c in result + inner]
    y = ops.multiply(_arranged(a, a_labels, each), _arranged(b, b_labels, each))
    return (ops.sum(y, tuple(range(len(result), len(each)))) if inner else y), result


def _einsum_samples(rng: np.random.Generator) -> list[Sample]:
    cases: list[tuple[str, list[tuple[int, ...]]]] = [
        ("abc,cd->abd", [(2, 3, 4), (4, 5)]),
        ("bqhd,bkhd->bhqk", [(2, 3, 2, 4), (2, 5, 2, 4)]),
        ("...a,...ba->b...", [(3, 4), (2, 1, 2, 4)]),
        ("iij,jk,k", [(3, 3, 2), (2, 4), (4,)]),
        ("ab,cb->ba", [(2, 3), (4, 1)]),
        ("ii", [(3, 3)]),
    ]
    return [Sample(tuple(rng.normal(size=s) for s in shapes), {"equation": e}) for e, shapes in cases]


@composite(
    promotes=0, samples=_einsum_samples, reference=lambda *xs, equation: np.einsum(equation, *xs)
)  # fmt: skip
def einsum_(*xs: Any, equation: str) -> Any:
    """Sums of products by an equation of labelled axes, from left to right, two operands at a time."""
    shapes = [shape_of(x) for x in xs]
    operands, output = _parse(equation, shapes)
    sizes = _sizes(operands, shapes, equation)
    terms = []
    for i, (x, labels) in enumerate(zip(xs, operands, strict=True)):
        # An axis of 1 that stretches is as good as none.
        shape, stretched = shape_of(x), [d == 1 and sizes[c] != 1 for c, d in zip(labels, shape_of(x), strict=True)]
        if any(stretched):
            x = ops.reshape(x, tuple(d for d, s in zip(shape, stretched, strict=True) if not s))
        x, labels = _diagonal(x, [c for c, s in zip(labels, stretched, strict=True) if not s])
        needed = {*output, *(c for j, others in enumerate(operands) if j != i for c in others)}
        terms.append(_summed(x, labels, needed))
    y, labels = terms[0]
    for i, (x, others) in enumerate(terms[1:], 2):
        kept = {*output, *(c for _, later in terms[i:] for c in later)}
        y, labels = _contract(y, labels, x, others, kept)
    y, labels = _summed(y, labels, output)
    return _arranged(y, labels, [[c] for c in output])


def _summed(x: Any, labels: _Labels, needed: Collection[str | int]) -> tuple[Any, _Labels]:
    """x without the labels that nobody needs."""
    over = tuple(i for i, c in enumerate(labels) if c not in needed)
    return (ops.sum(x, over), [c for c in labels if c in needed]) if over else (x, labels)


def einsum(subscripts: str, *operands: Any) -> Any:
    """Sums of products of operands whose axes are named by letters: Einstein's notation, as NumPy writes it.

    A letter that two operands share multiplies their elements place by place; what is not in the result is summed.
    A letter twice in one operand takes its diagonal; ``...`` stands for axes that broadcast; without ``->`` the
    result has the letters that occur once, in alphabetical order. Sizes of 1 stretch.

    Products are taken from left to right, two operands at a time, as matrix products where that is possible.

    Args:
        subscripts: A term of letters per operand, for example "bij,bjk->bik".
        operands: One array per term; they are brought to one dtype.

    Raises:
        ShapeError: if terms and operands do not fit.

    Example:
        >>> import numpy as np
        >>> a = np.arange(6.0).reshape(2, 3)
        >>> einsum("ij,kj->ik", a, a)
        array([[ 5., 14.],
               [14., 50.]])
        >>> float(einsum("ii", np.eye(3))), einsum("...i->i...", a).shape
        (3.0, (3, 2))
    """
    shapes = [shape_of(x) for x in operands]
    _sizes(_parse(subscripts, shapes)[0], shapes, subscripts)
    return einsum_(*operands, equation=subscripts)
