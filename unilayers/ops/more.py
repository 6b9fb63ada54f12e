"""Further functions of NumPy's and Keras's names, written with ops: they run and have gradients wherever those do."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.ops.define import dtype_of, put_beside, shape_of, to_numpy
from unilayers.ops.elementwise import (
    abs,
    acos,
    add,
    asin,
    astype,
    atan,
    atan2,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_right_shift,
    divide,
    exp,
    log,
    multiply,
    negative,
    power,
    remainder,
    subtract,
    where,
)
from unilayers.ops.index import dense_only
from unilayers.ops.rearranging import flat_places
from unilayers.ops.reduce import all, counted, max, mean, min, sum
from unilayers.ops.shape import broadcast_to, concat, expand_dims, flip, permute_dims, reshape, split
from unilayers.spec import is_float, normalize_axis

# ---- Keras's and NumPy's second names -------------------------------------------

absolute, cast, concatenate = abs, astype, concat
arccos, arcsin, arctan, arctan2 = acos, asin, atan, atan2
amax, amin = max, min
bitwise_not, left_shift, right_shift = bitwise_invert, bitwise_left_shift, bitwise_right_shift
mod, true_divide = remainder, divide


# ---- arrays and numbers -----------------------------------------------------------


def shape(x: Any) -> tuple[Any, ...]:
    """The shape of x; sizes that are not known yet are symbolic."""
    return tuple(shape_of(x))


def ndim(x: Any) -> int:
    """How many axes x has."""
    return len(shape_of(x))


def dtype(x: Any) -> str:
    """The name of x's dtype."""
    return dtype_of(x)


def convert_to_numpy(x: Any) -> np.ndarray:
    """Any concrete array as a NumPy array."""
    return to_numpy(x)


def convert_to_tensor(x: Any, dtype: str | None = None, sparse: bool | None = None, ragged: bool | None = None) -> Any:
    """x as an array that ops take; numbers and lists become NumPy arrays. ``sparse`` and ``ragged`` are for those who
    come from Keras: arrays are dense here."""
    dense_only("convert_to_tensor", sparse=sparse, ragged=ragged)
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
        x = x.astype(ops.floatx()) if x.dtype == np.float64 and dtype is None else x
    return x if dtype is None or dtype_of(x) == dtype else astype(x, dtype)


array = convert_to_tensor


def copy(x: Any) -> Any:
    """The same elements."""
    return ops.identity(x)


def eye(N: int, M: int | None = None, k: int = 0, dtype: str | None = None) -> Any:
    """An N by M matrix (None: N by N) with ones on a diagonal, ``k`` above the main one, and zeros elsewhere."""
    return _literal(np.eye(N, M, k), dtype)


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: str | None = None,
    axis: int = 0,
) -> Any:  # fmt: skip
    """``num`` numbers at equal distances from ``start`` to ``stop``, along a new axis where these are arrays.

    Args:
        start: The first number, or an array of them.
        stop: The last, or with ``endpoint=False`` the one after it.
        num: How many.
        endpoint: Whether ``stop`` is one of them.
        retstep: Whether the distance is returned, too, as a second result.
        dtype: Of the result.
        axis: Where the new axis is.
    """
    if isinstance(start, (int, float)) and isinstance(stop, (int, float)):
        y, step = np.linspace(start, stop, num, endpoint, retstep=True)
        return (_literal(y, dtype), step) if retstep else _literal(y, dtype)
    count = num - 1 if endpoint else num
    low, high = (x if is_float(dtype_of(x)) else astype(x, ops.floatx()) for x in (start, stop))
    step = divide(subtract(high, low), builtins.max(count, 1))
    whole = shape_of(add(low, step))
    places = np.arange(num).reshape(num, *(1,) * len(whole))
    y = add(broadcast_to(low, whole), multiply(step, _beside(step, places.astype(dtype_of(step)))))
    y = ops.moveaxis(y if dtype is None else astype(y, dtype), 0, axis)
    return (y, step) if retstep else y


def tri(N: int, M: int | None = None, k: int = 0, dtype: str | None = None) -> Any:
    """An N by M matrix (None: N by N) with ones at and below a diagonal, zeros elsewhere."""
    return _literal(np.tri(N, M, k), dtype)


def _literal(x: np.ndarray, dtype: str | None) -> Any:
    from unilayers.ops.create import literal

    return literal(x, dtype or ops.floatx())


def _beside(x: Any, array: np.ndarray) -> Any:
    """A constant for ops with x."""
    from unilayers.graph import Value, constant, is_tracing

    return constant(array) if isinstance(x, Value) or is_tracing() else put_beside(x, array)


# ---- elementwise --------------------------------------------------------------------


def exp2(x: Any) -> Any:
    """2**x."""
    return exp(multiply(x, math.log(2.0)))


def log2(x: Any) -> Any:
    """The logarithm to base 2."""
    return multiply(log(x), 1 / math.log(2.0))


def log10(x: Any) -> Any:
    """The logarithm to base 10."""
    return multiply(log(x), 1 / math.log(10.0))


def logaddexp(x1: Any, x2: Any) -> Any:
    """log(exp(x1) + exp(x2)), without overflow."""
    apart = where(ops.equal(x1, x2), 0.0, subtract(x1, x2))  # infinity less itself would be NaN
    return add(ops.maximum(x1, x2), ops.log1p(exp(negative(abs(apart)))))


def divide_no_nan(x1: Any, x2: Any) -> Any:
    """x1 / x2, and 0 where x2 is 0."""
    zero = ops.equal(x2, 0)
    return where(zero, 0.0, divide(x1, where(zero, 1.0, x2)))


def cbrt(x: Any) -> Any:
    """The cube root."""
    return multiply(ops.sign(x), power(abs(x), 1 / 3))


def hypot(x1: Any, x2: Any) -> Any:
    """sqrt(x1**2 + x2**2)."""
    return ops.sqrt(add(ops.square(x1), ops.square(x2)))


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """NaN and infinities replaced; infinities by the dtype's largest numbers if not given."""
    largest = float(np.finfo(dtype_of(x)).max)
    x = where(ops.isnan(x), nan, x)
    infinite = ops.isinf(x)
    x = where(ops.logical_and(infinite, ops.greater(x, 0.0)), largest if posinf is None else posinf, x)
    return where(ops.logical_and(infinite, ops.less(x, 0.0)), -largest if neginf is None else neginf, x)


def isclose(x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Where x1 and x2 are equal but for ``atol + rtol * abs(x2)``; with ``equal_nan``, also where both are NaN."""
    near = ops.less_equal(abs(subtract(x1, x2)), add(multiply(abs(x2), rtol), atol))
    near = ops.logical_and(near, ops.isfinite(astype(x2, "float32") if not is_float(dtype_of(x2)) else x2))
    same = ops.logical_or(ops.equal(x1, x2), near)
    if not equal_nan:
        return same
    return ops.logical_or(same, ops.logical_and(ops.not_equal(x1, x1), ops.not_equal(x2, x2)))


def allclose(x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether x1 and x2 are close everywhere."""
    return all(isclose(x1, x2, rtol, atol, equal_nan))


def trunc(x: Any) -> Any:
    """x without its fraction."""
    return multiply(ops.sign(x), ops.floor(abs(x)))


def deg2rad(x: Any) -> Any:
    """Degrees as radians."""
    return multiply(x, math.pi / 180)


def rad2deg(x: Any) -> Any:
    """Radians as degrees."""
    return multiply(x, 180 / math.pi)


# ---- shape --------------------------------------------------------------------------


def ravel(x: Any) -> Any:
    """All elements along one axis."""
    return reshape(x, (-1,))


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """x with two axes exchanged."""
    order = list(range(ndim(x)))
    a, b = normalize_axis(axis1, len(order)), normalize_axis(axis2, len(order))
    order[a], order[b] = b, a
    return permute_dims(x, tuple(order))


def unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Any]:
    """The slices of x along ``axis``."""
    size = shape_of(x)[axis] if num is None else num
    if not isinstance(size, int):
        raise ShapeError("the number of slices is not known", where="ops.unstack", fix="Use ops.scan or ops.map")
    return [ops.squeeze(part, axis) for part in split(x, size, axis)]


def hstack(xs: Sequence[Any]) -> Any:
    """Joined along the second axis; vectors along the first."""
    return concat(list(xs), 0 if ndim(xs[0]) == 1 else 1)


def vstack(xs: Sequence[Any]) -> Any:
    """Joined along the first axis; vectors as rows."""
    return concat([expand_dims(x, 0) if ndim(x) == 1 else x for x in xs], 0)


def fliplr(x: Any) -> Any:
    """Reversed along the second axis."""
    return flip(x, 1)


def flipud(x: Any) -> Any:
    """Reversed along the first axis."""
    return flip(x, 0)


def roll(x: Any, shift: int, axis: int | None = None) -> Any:
    """Elements moved along ``axis`` by ``shift`` places; what leaves at the end comes in at the start."""
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), shape_of(x))
    size: Any = shape_of(x)[axis]
    at = -shift % size if size else 0
    if not at:
        return copy(x)
    axis = normalize_axis(axis, ndim(x))
    return concat([ops.slice_axis(x, axis, at, size), ops.slice_axis(x, axis, 0, at)], axis)


def meshgrid(*xs: Any, indexing: str = "xy") -> list[Any]:
    """Coordinates of a grid from the coordinates of its axes."""
    sizes = [shape_of(x)[0] for x in xs]
    order = list(range(len(xs)))
    if indexing == "xy" and len(xs) > 1:
        order[0], order[1] = 1, 0
    whole = tuple(sizes[i] for i in order)
    found = []
    for i, x in enumerate(xs):
        place = tuple(sizes[i] if j == i else 1 for j in order)
        found.append(broadcast_to(reshape(x, place), whole))
    return found


def slice(inputs: Any, start_indices: Sequence[int], shape: Sequence[int]) -> Any:
    """The part of an array that begins at ``start_indices`` and has this shape."""
    return ops.getitem(inputs, tuple(builtins.slice(s, s + n) for s, n in zip(start_indices, shape, strict=True)))


def slice_update(inputs: Any, start_indices: Sequence[int], updates: Any) -> Any:
    """``inputs`` with a part replaced by ``updates``."""
    sizes: Any = shape_of(updates)
    low = tuple(start_indices)
    high = tuple(n - s - m for n, s, m in zip(shape_of(inputs), low, sizes, strict=True))
    width = list(zip(low, high, strict=True))
    inside = ops.pad(ops.ones_like(updates, "float32"), width)
    return where(ops.greater(inside, 0.5), ops.pad(updates, width), inputs)


# ---- matrices ------------------------------------------------------------------------


def _triangle(x: Any, k: int, lower: bool) -> Any:
    rows, columns = shape_of(x)[-2:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise ShapeError("the size of the matrices is not known", where="ops.tril")
    keep = np.tril(np.ones((rows, columns), bool), k) if lower else np.triu(np.ones((rows, columns), bool), k)
    return where(_beside(x, keep), x, ops.zeros_like(x))


def tril(x: Any, k: int = 0) -> Any:
    """Matrices with zeros above a diagonal."""
    return _triangle(x, k, True)


def triu(x: Any, k: int = 0) -> Any:
    """Matrices with zeros below a diagonal."""
    return _triangle(x, k, False)


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The elements on a diagonal, along a new last axis."""
    n = ndim(x)
    a, b = normalize_axis(axis1, n), normalize_axis(axis2, n)
    x = permute_dims(x, (*(i for i in range(n) if i not in (a, b)), a, b))
    rows, columns = shape_of(x)[-2:]
    first, second = builtins.max(-offset, 0), builtins.max(offset, 0)
    length = builtins.max(0, builtins.min(rows - first, columns - second))  # type: ignore[type-var]
    flat = reshape(x, (*shape_of(x)[:-2], rows * columns))
    places = np.array([(first + i) * columns + second + i for i in range(length)], np.int32)  # type: ignore[arg-type]
    return ops.take(flat, _beside(x, places), axis=-1)


def diag(x: Any, k: int = 0) -> Any:
    """A matrix with a vector on its diagonal, or the diagonal of a matrix."""
    if ndim(x) == 2:
        return diagonal(x, k)
    size: Any = shape_of(x)[0]
    side = size + builtins.abs(k)
    places = np.arange(size) + builtins.max(-k, 0), np.arange(size) + builtins.max(k, 0)
    flat = ops.take_grad(x, _beside(x, (places[0] * side + places[1]).astype(np.int32)), axis=0, size=side * side)
    return reshape(flat, (side, side))


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of a diagonal."""
    return sum(diagonal(x, offset, axis1, axis2), -1)


def dot(x1: Any, x2: Any) -> Any:
    """Products summed over the last axis of x1 and the last but one of x2."""
    if not ndim(x1) or not ndim(x2):
        return multiply(x1, x2)
    return ops.tensordot(x1, x2, ((ndim(x1) - 1,), (builtins.max(ndim(x2) - 2, 0),)))


def outer(x1: Any, x2: Any) -> Any:
    """All products of an element of x1 with one of x2."""
    return multiply(expand_dims(ravel(x1), 1), ravel(x2))


def inner(x1: Any, x2: Any) -> Any:
    """Products summed over the last axes."""
    return ops.tensordot(x1, x2, ((ndim(x1) - 1,), (ndim(x2) - 1,)))


def vdot(x1: Any, x2: Any) -> Any:
    """The sum of all products of elements at the same place."""
    return sum(multiply(ravel(x1), ravel(x2)))


# ---- reductions ------------------------------------------------------------------------


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The Euclidean norm, or that of another order of vectors: 1, 2, any number, or infinity.

    Engines: The gradient of the Euclidean norm at 0 is 0 in PyTorch, and NaN in TensorFlow, in JAX and here.
    """
    if ord in (None, 2, "fro"):
        return ops.sqrt(sum(ops.square(x), axis, keepdims))
    if ord in (math.inf, -math.inf):
        return (max if ord > 0 else min)(abs(x), axis, keepdims)
    if ord == 1:
        return sum(abs(x), axis, keepdims)
    return power(sum(power(abs(x), float(ord)), axis, keepdims), 1 / ord)


def normalize(x: Any, axis: int = -1, order: int = 2, epsilon: float | None = None) -> Any:
    """x divided by its norm along ``axis``."""
    return divide(x, ops.maximum(norm(x, order, axis, keepdims=True), 1e-7 if epsilon is None else epsilon))


def average(x: Any, axis: Any = None, weights: Any = None) -> Any:
    """The mean, weighted if weights are given."""
    if weights is None:
        return mean(x, axis)
    if ndim(weights) == 1 and ndim(x) > 1:
        place = normalize_axis(axis, ndim(x))
        weights = reshape(weights, tuple(d if a == place else 1 for a, d in enumerate(shape_of(x))))
    weights = broadcast_to(weights, shape_of(x))
    return divide(sum(multiply(x, weights), axis), sum(weights, axis))


def moments(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> tuple[Any, Any]:
    """Mean and variance; there is one replica, so ``synchronized`` changes nothing."""
    return mean(x, axes, keepdims), ops.var(x, axes, keepdims)


def count_nonzero(x: Any, axis: Any = None) -> Any:
    """How many elements are not 0."""
    return sum(ops.not_equal(x, 0), axis)


def ptp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest minus the smallest element."""
    return subtract(max(x, axis, keepdims), min(x, axis, keepdims))


def _cumulated(x: Any, axis: int | None, step: Any, start: Any) -> Any:
    if axis is None:
        x, axis = ravel(x), 0
    rows = ops.moveaxis(x, axis, 0)

    def add_one(total: Any, row: Any) -> tuple[Any, Any]:
        total = step(total, row)
        return total, total

    first = ops.full_like(ops.getitem(rows, 0), start)
    return ops.moveaxis(ops.scan(add_one, first, rows)[1], 0, axis)


def cumsum(x: Any, axis: int | None = None, dtype: str | None = None) -> Any:
    """Sums of the elements up to each, along ``axis``.

    Engines: float16 is summed in float16 by NumPy and TensorFlow and in something wider by PyTorch and JAX; here in
    float16.
    """
    return _cumulated(counted(x) if dtype is None else astype(x, dtype), axis, add, 0)


def cumprod(x: Any, axis: int | None = None, dtype: str | None = None) -> Any:
    """Products of the elements up to each, along ``axis``."""
    return _cumulated(counted(x) if dtype is None else astype(x, dtype), axis, multiply, 1)


def diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    """Differences of neighbours, ``n`` times."""
    axis = normalize_axis(axis, ndim(a))
    for _ in range(n):
        size: Any = shape_of(a)[axis]
        a = subtract(ops.slice_axis(a, axis, 1, size), ops.slice_axis(a, axis, 0, size - 1))
    return a


# ---- choices ---------------------------------------------------------------------------------


def multi_hot(
    inputs: Any, num_classes: int | None = None, axis: int = -1, dtype: str | None = None, sparse: bool = False
) -> Any:
    """1 for each class whose number is among the inputs; how many classes there are has to be given."""
    dense_only("multi_hot", sparse=sparse)
    if num_classes is None:
        raise ShapeError("the number of classes is not known", where="ops.multi_hot", fix="Give num_classes")
    hot = ops.one_hot(inputs, num_classes, dtype=dtype)
    return max(hot, ndim(inputs) - 1 if ndim(inputs) else 0) if ndim(inputs) else hot


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    """Of several arrays, for each element the first one whose condition holds."""
    y = default
    for condition, choice in list(zip(condlist, choicelist, strict=True))[::-1]:
        y = where(condition, choice, y)
    return y


def scatter(indices: Any, values: Any, shape: Sequence[int]) -> Any:
    """Zeros with values added at indices ``(count, axes)``."""
    sizes = tuple(shape)
    depth: Any = shape_of(indices)[-1]
    y = ops.take_grad(values, flat_places(indices, sizes), axis=0, size=math.prod(sizes[:depth]))
    return reshape(y, sizes)


def vectorized_map(function: Any, elements: Any) -> Any:
    """``function`` of each element along the first axis, stacked."""
    return ops.map(function, elements)


__all__ = [
    "absolute",
    "allclose",
    "amax",
    "amin",
    "arccos",
    "arcsin",
    "arctan",
    "arctan2",
    "array",
    "average",
    "bitwise_not",
    "cast",
    "cbrt",
    "concatenate",
    "convert_to_numpy",
    "convert_to_tensor",
    "copy",
    "count_nonzero",
    "cumprod",
    "cumsum",
    "deg2rad",
    "diag",
    "diagonal",
    "diff",
    "divide_no_nan",
    "dot",
    "dtype",
    "exp2",
    "eye",
    "fliplr",
    "flipud",
    "hstack",
    "hypot",
    "inner",
    "isclose",
    "left_shift",
    "linspace",
    "log2",
    "log10",
    "logaddexp",
    "meshgrid",
    "mod",
    "moments",
    "multi_hot",
    "nan_to_num",
    "ndim",
    "norm",
    "normalize",
    "outer",
    "ptp",
    "rad2deg",
    "ravel",
    "right_shift",
    "roll",
    "scatter",
    "select",
    "shape",
    "slice",
    "slice_update",
    "swapaxes",
    "trace",
    "tri",
    "tril",
    "triu",
    "true_divide",
    "trunc",
    "unstack",
    "vdot",
    "vectorized_map",
    "vstack",
]  # fmt: skip
