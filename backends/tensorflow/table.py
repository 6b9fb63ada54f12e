"""Op name to TensorFlow function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from unilayers.ops.sorting import empty_segment

from . import windows
from .control import control
from .linalg import DECOMPOSITIONS

NAMES: dict[Any, str] = {
    tf: "subtract divide equal not_equal less less_equal greater greater_equal "
    "floor round exp sqrt square sin cos tan asin acos atan atan2 sinh cosh tanh where identity stop_gradient reshape "
    "broadcast_to",
    tf.math: "ceil expm1 log log1p rsqrt reciprocal erf logical_and logical_or logical_xor logical_not",
}
RENAMED: dict[str, Callable[..., Any]] = {
    "remainder": tf.math.floormod, "negative": tf.negative, "power": tf.pow, "isnan": tf.math.is_nan,
    "isinf": tf.math.is_inf, "isfinite": tf.math.is_finite, "bitwise_left_shift": tf.bitwise.left_shift,
    "bitwise_right_shift": tf.bitwise.right_shift, "matmul": tf.matmul,
}  # fmt: skip

# ---- where TensorFlow's own function differs ----------------------------------


def floor_divide(a: Any, b: Any) -> Any:
    """tf rounds a / b before it takes the floor, so that 1 // 0.1 would be 10; without the remainder it is exact."""
    if not a.dtype.is_floating:
        return tf.math.floordiv(a, b)
    return tf.where(tf.equal(b, 0), a / b, tf.round((a - tf.math.floormod(a, b)) / b))


def widened(function: Callable[..., Any]) -> Callable[..., Any]:
    """tf has no uint8 kernel for some arithmetic; int32's low bits are the same."""

    def call(*arrays: Any) -> Any:
        if arrays[0].dtype != tf.uint8:
            return function(*arrays)
        return tf.cast(function(*(tf.cast(a, tf.int32) for a in arrays)), tf.uint8)

    return call


def or_bools(numeric: Callable[..., Any], logical: Callable[..., Any]) -> Callable[..., Any]:
    """tf keeps the bits of integers and of bools apart, and does not compute with bools."""
    return lambda *arrays: (logical if arrays[0].dtype == tf.bool else numeric)(*arrays)


def of_numbers(function: Callable[..., Any], of_bools: Callable[..., Any]) -> Callable[..., Any]:
    """tf has no smallest and largest of bools."""
    return lambda x, axis, keepdims: (of_bools if x.dtype == tf.bool else function)(x, axis, keepdims)


# ---- order: NaN is above all numbers, where tf's answer depends on its place ------


def arg_extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    def find(x: Any, axis: int) -> Any:
        y = function(x, axis, tf.int32)
        if not x.dtype.is_floating:
            return y
        nan = tf.cast(tf.math.is_nan(x), tf.int32)
        return tf.where(tf.reduce_max(nan, axis) > 0, tf.argmax(nan, axis, tf.int32), y)

    return find


def argsort(x: Any, axis: int) -> Any:
    """By the numbers with infinity for NaN, and then, without changing that order, by what is NaN."""
    if not x.dtype.is_floating:
        return tf.argsort(x, axis, stable=True)
    nan = tf.math.is_nan(x)

    def in_two() -> Any:
        order = tf.argsort(tf.where(nan, tf.constant(float("inf"), x.dtype), x), axis, stable=True)
        last = tf.argsort(take_along_axis(tf.cast(nan, tf.int32), order, axis), axis, stable=True)
        return take_along_axis(order, last, axis)

    return tf.cond(tf.reduce_any(nan), in_two, lambda: tf.argsort(x, axis, stable=True))


# ---- indices --------------------------------------------------------------------


def slice_(x: Any, start: Sequence[int], stop: Sequence[int], step: Sequence[int]) -> Any:
    return x[tuple(map(slice, start, stop, step))]


def wide_index(indices: Any) -> Any:
    """tf does not index by integers of 8 bits."""
    return indices if indices.dtype.size > 1 else tf.cast(indices, tf.int32)


def take_grad(g: Any, indices: Any, axis: int, size: int) -> Any:
    """tf sums segments of the leading axes only."""
    n = indices.shape.rank
    front = [*range(axis, axis + n), *range(axis), *range(axis + n, g.shape.rank)]
    y = tf.math.unsorted_segment_sum(tf.transpose(g, front), wide_index(indices), size)
    return tf.transpose(y, [*range(1, axis + 1), 0, *range(axis + 1, y.shape.rank)])


def segment_reduce(data: Any, segment_ids: Any, kind: str, size: int) -> Any:
    """tf gives segments without rows the smallest or largest finite number, and passes over NaN."""
    ids = wide_index(segment_ids)
    y = getattr(tf.math, f"unsorted_segment_{kind}")(data, ids, size)
    if kind != "prod" and data.dtype.is_floating:
        y += tf.math.unsorted_segment_sum(tf.where(tf.math.is_nan(data), data, tf.zeros_like(data)), ids, size)
    count = tf.math.unsorted_segment_sum(tf.ones_like(ids), ids, size)
    some = tf.reshape(count > 0, [size] + [1] * (data.shape.rank - 1))
    return tf.where(some, y, tf.constant(empty_segment(kind, data.dtype.name), data.dtype))


def take_along_axis(x: Any, indices: Any, axis: int) -> Any:
    """tf gathers along the axis after those it walks in step."""
    last = x.shape.rank - 1
    order = [*(a for a in range(last + 1) if a != axis), axis]
    y = tf.gather(tf.transpose(x, order), wide_index(tf.transpose(indices, order)), batch_dims=last)
    return tf.transpose(y, [*range(axis), last, *range(axis, last)])


# ---- the table --------------------------------------------------------------------


def reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis, keepdims: function(x, axis, keepdims)


TABLE: dict[str, Callable[..., Any]] = {
    **{name: getattr(module, name) for module, names in NAMES.items() for name in names.split()},
    **RENAMED,
    **{name: widened(RENAMED[name]) for name in ("power", "negative")},
    **{name: widened(getattr(tf, name)) for name in ("abs", "sign")},
    **{name: reduction(getattr(tf, f"reduce_{name}")) for name in ("sum", "prod", "any", "all")},
    "max": of_numbers(tf.reduce_max, tf.reduce_any),
    "min": of_numbers(tf.reduce_min, tf.reduce_all),
    "add": or_bools(tf.add, tf.logical_or),
    "multiply": or_bools(tf.multiply, tf.logical_and),
    "maximum": or_bools(tf.maximum, tf.logical_or),
    "minimum": or_bools(tf.minimum, tf.logical_and),
    "bitwise_and": or_bools(tf.bitwise.bitwise_and, tf.logical_and),
    "bitwise_or": or_bools(tf.bitwise.bitwise_or, tf.logical_or),
    "bitwise_xor": or_bools(tf.bitwise.bitwise_xor, tf.math.logical_xor),
    "bitwise_invert": or_bools(tf.bitwise.invert, tf.logical_not),
    "floor_divide": floor_divide,
    "astype": lambda x, dtype: tf.cast(x, dtype),
    "permute_dims": lambda x, axes: tf.transpose(x, axes),
    "concat": lambda *xs, axis: tf.concat(xs, axis),
    "flip": lambda x, axes: tf.reverse(x, axes),
    "slice": slice_,
    "pad": windows.pad,
    "argmax": arg_extreme(tf.argmax),
    "argmin": arg_extreme(tf.argmin),
    "take": lambda x, indices, axis: tf.gather(x, wide_index(indices), axis=axis),
    "take_grad": take_grad,
    "take_along_axis": take_along_axis,
    "argsort": argsort,
    "segment_reduce": segment_reduce,
    "conv": windows.conv,
    "conv_input_grad": windows.conv_input_grad,
    "conv_kernel_grad": windows.conv_kernel_grad,
    "max_pool": windows.max_pool,
    "max_pool_grad": windows.max_pool_grad,
    "avg_pool": windows.avg_pool,
    "avg_pool_grad": windows.avg_pool_grad,
    **DECOMPOSITIONS,
}

# Composite ops that TensorFlow has as one kernel; not leaky_relu, whose slope it keeps in float32.
TABLE |= {
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "selu": tf.nn.selu,
    "sigmoid": tf.sigmoid,
    "softplus": tf.math.softplus,
    "softmax": lambda x, axis: tf.nn.softmax(x, axis),
    "log_softmax": lambda x, axis: tf.nn.log_softmax(x, axis),
}

TABLE |= control(TABLE)
