"""Statistics: quantiles, counts, correlations, distances; and reductions that leave out what is not a number."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import Value, is_tracing
from unilayers.ops.define import dtype_of, shape_of, to_numpy
from unilayers.ops.elementwise import add, divide, equal, isnan, multiply, subtract, where
from unilayers.ops.reduce import max, mean, min, place_of, prod, sum
from unilayers.ops.sorting import searchsorted, sort
from unilayers.ops.special import floats
from unilayers.spec import is_float, normalize_axes, normalize_axis

__all__ = [
    "bincount", "cdist", "corrcoef", "correlate", "digitize", "histogram", "median", "nanargmax", "nanargmin",
    "nancumprod", "nancumsum", "nanmax", "nanmean", "nanmedian", "nanmin", "nanpercentile", "nanprod", "nanquantile",
    "nanstd", "nansum", "nanvar", "percentile", "psnr", "quantile", "trapezoid",
]  # fmt: skip

Axis = int | Sequence[int] | None

# ---- quantiles ---------------------------------------------------------------------

METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(x: Any, q: Any, axis: Axis, method: str, keepdims: bool, where_: str, skip: bool) -> Any:
    """Quantiles of the numbers along the axes; of all, or with ``skip`` of those that are not NaN."""
    if method not in METHODS:
        raise UnilayersError(
            "unknown method", where=f"ops.{where_}", expected=" or ".join(map(repr, METHODS)), received=repr(method)
        )
    x = floats(x)
    shape, dtype = shape_of(x), dtype_of(x)
    axes = normalize_axes(axis if axis is None or isinstance(axis, int) else tuple(axis), len(shape))
    rest = tuple(a for a, _ in enumerate(shape) if a not in axes)
    rows = ops.reshape(
        ops.permute_dims(x, (*rest, *axes)), (*(shape[a] for a in rest), math.prod(shape[a] for a in axes))
    )
    if not isinstance(shape_of(rows)[-1], int):
        raise ShapeError("the sizes along the axes must be known", where=f"ops.{where_}", received=str(shape))
    missing = isnan(rows)
    ordered = sort(where(missing, math.inf, rows))
    last: Any = shape_of(rows)[-1] - 1
    if skip:
        last = ops.maximum(subtract(last, sum(ops.astype(missing, dtype), -1, keepdims=True)), 0.0)
    single = not shape_of(q)
    share = ops.astype(ops.reshape(ops.convert_to_tensor(q), (-1,)), dtype)
    place = multiply(share, last) if skip else multiply(share, float(last))
    place = add(place, ops.zeros_like(ops.slice_axis(rows, -1, 0, 1)))  # one place of each share in each row

    def at(places: Any) -> Any:
        return ops.take_along_axis(ordered, ops.astype(places, "int32"), -1)

    if method == "nearest":
        y = at(ops.round(place))
    elif method in ("lower", "higher"):
        y = at(ops.floor(place) if method == "lower" else ops.ceil(place))
    else:
        low, high = at(ops.floor(place)), at(ops.ceil(place))
        weight = 0.5 if method == "midpoint" else subtract(place, ops.floor(place))
        same = equal(low, high)  # also where both are infinite
        y = add(low, multiply(subtract(where(same, 0.0, high), where(same, 0.0, low)), weight))
    none = ops.all(missing, -1, keepdims=True) if skip else ops.any(missing, -1, keepdims=True)
    y = ops.moveaxis(where(none, math.nan, y), -1, 0)
    if keepdims:
        y = ops.reshape(y, (shape_of(y)[0], *(1 if a in axes else d for a, d in enumerate(shape))))
    return ops.squeeze(y, 0) if single else y


def quantile(x: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The numbers below which a share of all lies.

    Args:
        x: Any array; NaN makes the result NaN.
        q: The share, from 0 to 1, or a vector of them.
        axis: The axis or axes along which; None: all.
        method: What is taken between two numbers: "linear" on the straight line between them, the "lower", the
            "higher", their "midpoint" or the "nearest".
        keepdims: Whether the axes stay, with size 1.

    Returns:
        One number for each place of the other axes; for a vector of shares, these along a new first axis.

    Raises:
        UnilayersError: for another method, or a size along the axes that is not known.

    Example:
        >>> quantile(np.array([1.0, 2.0, 5.0, 8.0]), np.array([0.5, 0.9]))
        array([3.5, 7.1])
    """
    return _quantile(x, q, axis, method, keepdims, "quantile", False)


def percentile(x: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False) -> Any:
    """``quantile`` of ``q`` per cent."""
    return _quantile(x, _hundredth(q), axis, method, keepdims, "percentile", False)


def median(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The number in the middle, or between the two there; see ``quantile``.

    Engines: Of an even number PyTorch takes the lower of the two in the middle; here their mean, as in NumPy and JAX.
    """
    return _quantile(x, 0.5, axis, "linear", keepdims, "median", False)


def nanquantile(x: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False) -> Any:
    """``quantile`` without what is NaN."""
    return _quantile(x, q, axis, method, keepdims, "nanquantile", True)


def nanpercentile(x: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False) -> Any:
    """``percentile`` without what is NaN."""
    return _quantile(x, _hundredth(q), axis, method, keepdims, "nanpercentile", True)


def nanmedian(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """``median`` without what is NaN."""
    return _quantile(x, 0.5, axis, "linear", keepdims, "nanmedian", True)


def _hundredth(q: Any) -> Any:
    return divide(ops.convert_to_tensor(q), 100.0)


# ---- reductions without NaN ----------------------------------------------------------


def _filled(x: Any, value: float) -> Any:
    """x with a number in place of NaN."""
    return where(isnan(x), value, x) if is_float(dtype_of(x)) else x


def _counted(x: Any, axis: Any, keepdims: bool) -> Any:
    """How many are not NaN, as floats."""
    return sum(ops.astype(equal(x, x), dtype_of(x)), axis, keepdims)


def nansum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """``sum`` without what is NaN; 0 for nothing."""
    return sum(_filled(x, 0), axis, keepdims)


def nanprod(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """``prod`` without what is NaN; 1 for nothing."""
    return prod(_filled(x, 1), axis, keepdims)


def _extreme(x: Any, axis: Any, keepdims: bool, reduce: Callable[..., Any], worst: float) -> Any:
    if not is_float(dtype_of(x)):
        return reduce(x, axis, keepdims)
    return where(ops.all(isnan(x), axis, keepdims), math.nan, reduce(_filled(x, worst), axis, keepdims))


def nanmax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """``max`` without what is NaN; NaN for nothing."""
    return _extreme(x, axis, keepdims, max, -math.inf)


def nanmin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """``min`` without what is NaN; NaN for nothing."""
    return _extreme(x, axis, keepdims, min, math.inf)


def nanmean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """``mean`` without what is NaN; NaN for nothing."""
    if not is_float(dtype_of(x)):
        return mean(x, axis, keepdims)
    count = _counted(x, axis, keepdims)
    return where(equal(count, 0), math.nan, divide(nansum(x, axis, keepdims), ops.maximum(count, 1.0)))


def nanvar(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """``var`` without what is NaN; NaN for nothing."""
    if not is_float(dtype_of(x)):
        return ops.var(x, axis, keepdims)
    middle = divide(nansum(x, axis, True), ops.maximum(_counted(x, axis, True), 1.0))
    square = ops.square(where(isnan(x), 0.0, subtract(_filled(x, 0), middle)))
    count = _counted(x, axis, keepdims)
    return where(equal(count, 0), math.nan, divide(sum(square, axis, keepdims), ops.maximum(count, 1.0)))


def nanstd(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The square root of ``nanvar``."""
    return ops.sqrt(nanvar(x, axis, keepdims))


def _place(x: Any, axis: int | None, keepdims: bool, find: Callable[..., Any], worst: float) -> Any:
    def found(x: Any, axis: int) -> Any:
        return where(ops.all(isnan(x), axis), -1, find(_filled(x, worst), axis))

    return place_of(found if is_float(dtype_of(x)) else find, x, axis, keepdims)


def nanargmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """``argmax`` without what is NaN; -1 for nothing."""
    return _place(x, axis, keepdims, ops.argmax, -math.inf)


def nanargmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """``argmin`` without what is NaN; -1 for nothing."""
    return _place(x, axis, keepdims, ops.argmin, math.inf)


def nancumsum(x: Any, axis: int | None = None, dtype: str | None = None) -> Any:
    """``cumsum``, in which NaN counts as 0."""
    return ops.cumsum(_filled(x, 0), axis, dtype)


def nancumprod(x: Any, axis: int | None = None, dtype: str | None = None) -> Any:
    """``cumprod``, in which NaN counts as 1."""
    return ops.cumprod(_filled(x, 1), axis, dtype)


# ---- counts --------------------------------------------------------------------------


def bincount(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Any:
    """How often each integer from 0 occurs.

    Args:
        x: ``(n,)`` or ``(batch, n)`` integers, none below 0.
        weights: As x; then they are added up instead.
        minlength: How many integers are counted at least. In a graph, where the largest cannot be seen, exactly.
        sparse: Must be False.

    Returns:
        int32, or as the weights: one count per integer, for each row of a batch.

    Raises:
        ShapeError: in a graph without ``minlength``.

    Example:
        >>> bincount(np.array([0, 2, 2])), bincount(np.array([0, 2]), weights=np.array([0.5, 1.0]), minlength=4)
        (array([1, 0, 2], dtype=int32), array([0.5, 0. , 1. , 0. ]))
    """
    ops.dense_only("bincount", sparse=sparse)
    length = minlength
    if isinstance(x, Value) or is_tracing():
        if not minlength:
            raise ShapeError("the largest number is not known in a graph", where="ops.bincount", fix="Give minlength")
    else:
        length = builtins.max(minlength, int(np.max(to_numpy(x), initial=-1)) + 1)
    weights = ops.ones_like(x, "int32") if weights is None else weights
    weights = where(ops.less(x, length), weights, 0)
    inside, shape = ops.minimum(x, length - 1), shape_of(x)
    if len(shape) == 1:
        return ops.take_grad(weights, inside, axis=0, size=length)
    starts = multiply(ops.arange(shape[0], dtype=dtype_of(x), like=x), length)
    flat = ops.reshape(add(inside, ops.expand_dims(starts, -1)), (-1,))
    counts = ops.take_grad(ops.reshape(weights, (-1,)), flat, axis=0, size=shape[0] * length)
    return ops.reshape(counts, (shape[0], length))


def digitize(x: Any, bins: Any) -> Any:
    """Between which of the ``bins``, ``(n,)`` in rising order, numbers lie: how many are not above each (int32).

    Example:
        >>> digitize(np.array([0.5, 1.0, 3.5]), np.array([1.0, 2.0, 3.0])).tolist()
        [0, 1, 3]
    """
    return searchsorted(bins, x, "right")


def histogram(x: Any, bins: int | Sequence[float] = 10, range: tuple[float, float] | None = None) -> tuple[Any, Any]:
    """How many numbers lie between neighbours of a row of edges.

    Args:
        x: Any shape.
        bins: How many intervals of equal length, or their edges in rising order.
        range: The first and last edge; None: the smallest and largest number.

    Returns:
        The counts (int32), and the edges: one more. The last edge belongs to the last interval.

    Example:
        >>> counts, edges = histogram(np.array([0.0, 1.0, 1.5, 4.0]), bins=2)
        >>> counts.tolist(), edges
        ([3, 1], array([0., 2., 4.]))
    """
    x = ops.reshape(floats(x), (-1,))
    if isinstance(bins, int):
        low, high = (min(x), max(x)) if range is None else (ops.full_like(min(x), edge) for edge in range)
        flat = equal(low, high)
        edges = ops.linspace(where(flat, low - 0.5, low), where(flat, high + 0.5, high), bins + 1)
        count = bins
    else:
        edges = ops.astype(ops.convert_to_tensor(bins), dtype_of(x))
        count = int(shape_of(edges)[0]) - 1  # type: ignore[arg-type]
    inner = ops.slice_axis(edges, 0, 1, count)
    first, last = ops.getitem(edges, 0), ops.getitem(edges, count)
    inside = ops.logical_and(ops.greater_equal(x, first), ops.less_equal(x, last))
    return ops.take_grad(ops.astype(inside, "int32"), digitize(x, inner), axis=0, size=count), edges


# ---- correlation, distance, area --------------------------------------------------------


def corrcoef(x: Any) -> Any:
    """The correlation of each row of x with each, from -1 to 1: ``(variables, samples) -> (variables, variables)``."""
    x = floats(x)
    if len(shape_of(x)) == 1:
        return divide(ops.var(x), ops.var(x))
    centred = subtract(x, mean(x, -1, keepdims=True))
    unit = divide(centred, ops.sqrt(sum(ops.square(centred), -1, keepdims=True)))
    return ops.clip(ops.matmul(unit, ops.matrix_transpose(unit)), -1.0, 1.0)


def correlate(x1: Any, x2: Any, mode: str = "valid") -> Any:
    """The sums of products of two sequences, one moved along the other.

    Args:
        x1: ``(n,)``.
        x2: ``(m,)``.
        mode: "valid" where they overlap wholly, "same" for the middle ``max(n, m)`` places, "full" wherever they touch.

    Example:
        >>> correlate(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0]), "full")
        array([1., 2., 3., 0.])
    """
    if mode not in ("valid", "same", "full"):
        raise UnilayersError(
            "unknown mode", where="ops.correlate", expected="'valid', 'same' or 'full'", received=repr(mode)
        )
    x1, x2 = floats(x1), floats(x2)
    long, short = (x1, x2) if shape_of(x1)[0] >= shape_of(x2)[0] else (x2, x1)  # type: ignore[operator]
    size: Any = shape_of(short)[0]
    around = {"valid": (0, 0), "same": (size // 2, size - 1 - size // 2), "full": (size - 1, size - 1)}[mode]
    y = ops.conv(ops.reshape(long, (1, -1, 1)), ops.reshape(short, (-1, 1, 1)), padding=[around])
    y = ops.reshape(y, (-1,))
    return y if long is x1 else ops.flip(y)


def cdist(x: Any, y: Any) -> Any:
    """The Euclidean distance of each row of x from each of y: ``(..., n, d)`` and ``(..., m, d)`` -> ``(..., n, m)``.

    Two rows that are equal have the distance 0, and its gradient is 0, too.
    """
    apart = subtract(ops.expand_dims(floats(x), -2), ops.expand_dims(floats(y), -3))
    square = sum(ops.square(apart), -1)
    same = equal(square, 0)
    return where(same, 0.0, ops.sqrt(where(same, 1.0, square)))


def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Any:
    """The area below straight lines between neighbours along ``axis``.

    Args:
        y: The heights.
        x: Where they are: a vector along the axis, or as y; None: ``dx`` apart.
        dx: The distance of neighbours where x is not given.
        axis: Along which.

    Example:
        >>> float(trapezoid(np.array([1.0, 2.0, 3.0]))), float(trapezoid(np.array([1.0, 3.0]), np.array([0.0, 2.0])))
        (4.0, 4.0)
    """
    y = floats(y)
    axis = normalize_axis(axis, len(shape_of(y)))
    size: Any = shape_of(y)[axis]
    means = multiply(add(ops.slice_axis(y, axis, 1, size), ops.slice_axis(y, axis, 0, size - 1)), 0.5)
    if x is None:
        return multiply(sum(means, axis), dx)
    widths = ops.diff(x, axis=axis if len(shape_of(x)) > 1 else 0)
    if len(shape_of(x)) == 1:
        widths = ops.reshape(widths, tuple(-1 if a == axis else 1 for a, _ in enumerate(shape_of(y))))
    return sum(multiply(means, widths), axis)


def psnr(x1: Any, x2: Any, max_val: float) -> Any:
    """The peak signal-to-noise ratio of two arrays, in decibels: ``10 log10(max_val**2 / mean((x1 - x2)**2))``."""
    wrong = mean(ops.square(subtract(floats(x1), floats(x2))))
    return subtract(20 * math.log10(max_val), multiply(ops.log10(wrong), 10.0))
