"""Order: sorting, ranks, and what is found by them; reductions of rows by the number of their segment."""

from __future__ import annotations

from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.graph import Sample
from unilayers.ops.define import dtype_of, primitive, shape_of, to_numpy
from unilayers.spec import FLOATS, INTS, Spec, is_float, normalize_axis

__all__ = [
    "argpartition", "argsort", "argsort_", "in_top_k", "searchsorted", "segment_max", "segment_min", "segment_prod",
    "segment_reduce", "segment_sum", "sort", "top_k",
]  # fmt: skip

# ---- order ------------------------------------------------------------------------


def _argsort_infer(x: Spec, *, axis: int) -> Spec:
    if x.dtype not in (*INTS, *FLOATS):
        raise DTypeError("cannot be put in order", expected="numbers", received=x.dtype)
    return x.with_dtype("int32")


def _argsort_samples(rng: np.random.Generator) -> list[Sample]:
    ties = rng.integers(0, 3, (3, 5)).astype("int32")
    return [Sample((rng.normal(size=(3, 4)),), {"axis": 0}, False), Sample((ties,), {"axis": 1}, False)]


@primitive(
    infer=_argsort_infer, vjp=lambda g, y, x, *, axis: (None,), samples=_argsort_samples,
    cost=lambda x, *, axis: x.size, reference=lambda x, axis: np.argsort(x, axis, kind="stable"),
)  # fmt: skip
def argsort_(x: Any, *, axis: int) -> Any:
    """The places of the elements along an axis in rising order, equal ones as they stand (int32)."""
    return (x,), {"axis": axis}


def argsort(x: Any, axis: int | None = -1) -> Any:
    """The places of the elements along ``axis`` (None: of all in one row) in rising order, equal ones as they stand
    (int32).

    Engines: TensorFlow leaves NaN at any place; here it comes last, as in the others. By default NumPy and PyTorch mix
    up equal elements; here they keep their order.
    """
    if dtype_of(x) == "bool":
        x = ops.astype(x, "int32")
    if axis is None:
        x, axis = ops.reshape(x, (-1,)), 0
    return argsort_(x, axis=normalize_axis(axis, len(shape_of(x))))


def sort(x: Any, axis: int | None = -1) -> Any:
    """The elements along ``axis`` (None: all in one row) in rising order.

    Engines: TensorFlow leaves NaN at any place; here it comes last, as in the others.
    """
    if axis is None:
        x, axis = ops.reshape(x, (-1,)), 0
    return ops.take_along_axis_(x, argsort(x, axis), axis)


def argpartition(x: Any, kth: int, axis: int | None = -1) -> Any:
    """The places of the elements in an order in which none before place ``kth`` is larger, and none after it smaller,
    than the one there: the rising order."""
    return argsort(x, axis)


def top_k(x: Any, k: int, sorted: bool = True) -> tuple[Any, Any]:
    """The ``k`` largest elements of the last axis, the largest first, and their places (int32); of equal ones the first
    come first.

    Engines: Of equal elements PyTorch takes any; here the first ones come first, as in TensorFlow and JAX. NaN counts
    as the largest.
    """
    last = len(shape_of(x)) - 1
    # Rising from the end, so that of equal ones the first is the last: -x would overflow for the smallest integer.
    rising = argsort(ops.flip(x, last), -1)
    places = ops.slice_axis(ops.flip(rising, last), last, 0, k)
    places = ops.subtract(ops.size(x, (last,), "int32") - 1, places)
    return ops.take_along_axis_(x, places, -1), places


def in_top_k(targets: Any, predictions: Any, k: int) -> Any:
    """Whether the prediction for the target is among the ``k`` largest of its row.

    Engines: TensorFlow says no for every row with a NaN or an infinity; here only where the prediction for the target
    is one.
    """
    mine = ops.take_along_axis(predictions, ops.expand_dims(targets, -1), -1)
    larger = ops.sum(ops.greater(predictions, mine), -1)
    return ops.logical_and(ops.less(larger, k), ops.isfinite(ops.squeeze(mine, -1)))


def searchsorted(sorted_sequence: Any, values: Any, side: str = "left") -> Any:
    """Where values would have to be inserted so that a sequence stays in rising order (int32).

    Args:
        sorted_sequence: ``(n,)`` in rising order.
        values: Any shape.
        side: "left" for the first such place, "right" for the last.

    Example:
        >>> row = np.array([1.0, 2.0, 2.0, 3.0])
        >>> searchsorted(row, np.array([2.0, 5.0])).tolist(), searchsorted(row, np.array([2.0, 5.0]), "right").tolist()
        ([1, 4], [3, 4])
    """
    if side not in ("left", "right") or len(shape_of(sorted_sequence)) != 1:
        raise UnilayersError(
            "cannot search", where="ops.searchsorted", expected="one sequence, and side 'left' or 'right'",
            received=f"a sequence of shape {shape_of(sorted_sequence)}, side {side!r}",
        )  # fmt: skip
    compare = ops.less if side == "left" else ops.less_equal
    return ops.sum(compare(sorted_sequence, ops.expand_dims(values, -1)), -1)


# ---- segments ------------------------------------------------------------------------

KINDS = ("max", "min", "prod")
_STEPS: dict[str, Any] = {"max": np.maximum, "min": np.minimum, "prod": np.multiply}


def empty_segment(kind: str, dtype: str) -> float | int:
    """What the reduction of no element is: the number that changes no other."""
    if kind == "prod":
        return 1
    sign = -1 if kind == "max" else 1
    if is_float(dtype):
        return sign * float("inf")
    return int(np.iinfo(dtype).min if kind == "max" else np.iinfo(dtype).max)


def _segment_infer(data: Spec, segment_ids: Spec, *, kind: str, size: Any) -> Spec:
    if segment_ids.dtype not in INTS or data.dtype not in (*INTS, *FLOATS):
        raise DTypeError(
            "needs numbers, and integers for their segments", received=f"{data.dtype}, {segment_ids.dtype}"
        )
    if not data.shape or segment_ids.shape != data.shape[:1] or kind not in KINDS:
        raise ShapeError(
            "one segment per row", expected="(n, ...) and (n,)", received=f"{data.shape} and {segment_ids.shape}"
        )
    return data.with_shape((size, *data.shape[1:]))


def _segment_vjp(g: Any, y: Any, data: Any, segment_ids: Any, *, kind: str, size: Any) -> tuple[Any, None]:
    """To the largest (smallest) elements in equal shares. The gradient of a product is not defined at 0."""
    result = ops.take_(y, segment_ids, 0)
    if kind == "prod":
        return ops.take_(g, segment_ids, 0) * result / data, None
    hit = ops.astype(ops.equal(data, result), dtype_of(g))
    count = ops.maximum(ops.take_grad(hit, segment_ids, axis=0, size=size), 1.0)
    return ops.take_(g / count, segment_ids, 0) * hit, None


def _segment_reference(data: np.ndarray, segment_ids: np.ndarray, kind: str, size: int) -> np.ndarray:
    y: Any = np.full((size, *data.shape[1:]), empty_segment(kind, data.dtype.name), data.dtype)
    for i, row in zip(segment_ids, data, strict=True):
        y[i] = _STEPS[kind](y[i], row)
    return np.asarray(y)


def _segment_samples(rng: np.random.Generator) -> list[Sample]:
    x, ids = rng.uniform(0.5, 2, (4, 2)), np.array([1, 0, 1, 0], np.int32)
    full, gap = [Sample((x, ids), {"kind": k, "size": 2}) for k in KINDS], [0, 2, 2, 0]
    return [*full, *(Sample((x, np.array(gap, np.int32)), {"kind": k, "size": 4}, False) for k in KINDS)]


@primitive(
    infer=_segment_infer, vjp=_segment_vjp, reference=_segment_reference, samples=_segment_samples,
    cost=lambda data, ids, **attrs: data.size,
)  # fmt: skip
def segment_reduce(data: Any, segment_ids: Any, *, kind: str, size: Any) -> Any:
    """The largest, smallest element or the product ("max", "min", "prod") of the rows with each segment number below
    ``size``; of a segment without rows, what changes no other number."""
    return (data, segment_ids), {"kind": kind, "size": size}


def _segments(segment_ids: Any, num_segments: Any, where: str) -> Any:
    """The number of segments; of concrete arrays it can be seen."""
    if num_segments is not None:
        return num_segments
    from unilayers.graph import Value, is_tracing

    if isinstance(segment_ids, Value) or is_tracing():
        raise ShapeError(
            "how many segments there are is not known in a graph", where=f"ops.{where}", fix="Give num_segments"
        )
    return int(np.max(to_numpy(segment_ids), initial=-1)) + 1


def segment_sum(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """The sums of the rows with each number.

    Args:
        data: ``(n, ...)``.
        segment_ids: ``(n,)`` integers from 0.
        num_segments: How many numbers there are; None: as many as the largest says, where that can be seen.
        sorted: Whether the numbers are in rising order; it changes nothing.

    Returns:
        ``(num_segments, ...)``.

    Engines: A number outside is left out by JAX, also by TensorFlow where it is below 0, and raises in PyTorch and else
    in TensorFlow; here its row is left out.

    Example:
        >>> x, ids = np.array([1.0, 2.0, 4.0]), np.array([0, 2, 0])
        >>> segment_sum(x, ids), segment_max(x, ids)
        (array([5., 0., 2.]), array([  4., -inf,   2.]))
    """
    size = _segments(segment_ids, num_segments, "segment_sum")
    return ops.take_grad(*_known(data, segment_ids, size, 0), axis=0, size=size)


def _reduced(kind: str, data: Any, segment_ids: Any, num_segments: int | None) -> Any:
    size = _segments(segment_ids, num_segments, f"segment_{kind}")
    return segment_reduce(*_known(data, segment_ids, size, empty_segment(kind, dtype_of(data))), kind=kind, size=size)


def _known(data: Any, segment_ids: Any, size: int, nothing: float) -> tuple[Any, Any]:
    """The rows and their segments; a row whose number is no segment's becomes one that changes nothing."""
    known = ops.logical_and(ops.greater_equal(segment_ids, 0), ops.less(segment_ids, size))
    row = ops.reshape(known, (*shape_of(segment_ids), *(1,) * (len(shape_of(data)) - 1)))
    return ops.where(row, data, nothing), ops.where(known, segment_ids, 0)


def segment_max(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """The largest of the rows with each number, -inf (of integers the smallest one) for none; see ``segment_sum``.

    Engines: TensorFlow passes over NaN, and gives the smallest finite float for no rows; here it is NaN and -inf, as in
    JAX. Numbers outside as for ``segment_sum``.
    """
    return _reduced("max", data, segment_ids, num_segments)


def segment_min(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """The smallest of the rows with each number, inf (of integers the largest one) for none; see ``segment_sum``.

    Engines: As for ``segment_max``.
    """
    return _reduced("min", data, segment_ids, num_segments)


def segment_prod(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """The product of the rows with each number, 1 for none; see ``segment_sum``."""
    return _reduced("prod", data, segment_ids, num_segments)
