"""Convolution and pooling by TensorFlow's kernels, and by other ops where they have gaps on the CPU.

The gaps: gradients of grouped or dilated convolution; groups, dilation and explicit padding of convolution over three
axes; pooling over three axes in float64.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import tensorflow as tf
from unilayers.backends.spatial import Ints, Pairs, inside, padded_shape, planar

raw = tf.raw_ops


def pad(x: Any, low: Ints, high: Ints, interior: Ints, value: float) -> Any:
    """tf.pad has no interior: neighbours are parted by padding each element with an axis of its own."""
    for axis, i in enumerate(interior):
        if i and x.shape[axis] > 1:
            shape = x.shape.as_list()
            edges = [(0, i if a == axis + 1 else 0) for a in range(len(shape) + 1)]
            parted = tf.pad(tf.expand_dims(x, axis + 1), edges, constant_values=tf.cast(value, x.dtype))
            shape[axis] *= i + 1
            x = tf.reshape(parted, shape)[(slice(None),) * axis + (slice(0, shape[axis] - i),)]
    return tf.pad(x, list(zip(low, high, strict=True)), constant_values=tf.cast(value, x.dtype))


def _pad(x: Any, padding: Pairs) -> Any:
    """Channels-last x with zeros around its spatial axes."""
    return tf.pad(x, [(0, 0), *padding, (0, 0)]) if any(map(any, padding)) else x


def _edges(padding: Pairs) -> dict[str, Any]:
    """The arguments of kernels that pad by themselves."""
    if not any(map(any, padding)):
        return {"padding": "VALID"}
    return {"padding": "EXPLICIT", "explicit_paddings": [0, 0, *itertools.chain(*padding), 0, 0]}


def _is_same(sizes: Ints, window: Ints, strides: Ints, padding: Pairs) -> bool:
    """Whether a padding is what TensorFlow calls SAME for spatial axes of these sizes."""

    def same(size: int, width: int, step: int) -> tuple[int, int]:
        whole = max((-(-size // step) - 1) * step + width - size, 0)
        return whole // 2, whole - whole // 2

    return [*map(same, sizes, window, strides)] == [*map(tuple, padding)]


def _steps(sizes: Ints) -> list[int]:
    return [1, *sizes, 1]


# ---- convolution ------------------------------------------------------------


@planar(1, 0, 1)
def conv(x: Any, kernel: Any, strides: Ints, padding: Pairs, dilation: Ints, groups: int) -> Any:
    if len(strides) == 2:
        gaps = _steps(dilation)
        return raw.Conv2D(input=x, filter=kernel, strides=_steps(strides), dilations=gaps, **_edges(padding))
    none = [0] * 5
    kernel = pad(kernel, none, none, [*(d - 1 for d in dilation), 0, 0], 0.0)  # a dilated kernel has zeros inside
    pairs = zip(tf.split(_pad(x, padding), groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([raw.Conv3D(input=a, filter=k, strides=_steps(strides), padding="VALID") for a, k in pairs], -1)


@planar(1, 0, 1)
def conv_input_grad(
    g: Any, kernel: Any, shape: Ints, strides: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Any:
    wide, common = padded_shape(shape, padding), {"filter": kernel, "out_backprop": g, "strides": _steps(strides)}
    if groups > 1 or max(dilation) > 1:
        return _transposed(g, kernel, wide, strides, dilation, groups)[inside(shape, padding)]
    if len(strides) == 2 and _is_same(shape[1:-1], kernel.shape[:2], strides, padding):
        return raw.Conv2DBackpropInput(input_sizes=shape, **common, padding="SAME")
    if len(strides) == 2:  # oneDNN's gradients have no other paddings
        return raw.Conv2DBackpropInput(input_sizes=wide, **common, padding="VALID")[inside(shape, padding)]
    return raw.Conv3DBackpropInputV2(input_sizes=wide, **common, padding="VALID")[inside(shape, padding)]


def _transposed(g: Any, kernel: Any, shape: Ints, strides: Ints, dilation: Ints, groups: int) -> Any:
    """Gradient of an unpadded convolution to its input, as a convolution of g, spread by the strides."""
    *window, c, f = kernel.shape
    low = [(k - 1) * d for k, d in zip(window, dilation, strict=True)]
    high = [d - (n - 1) * s - 1 for d, n, s in zip(shape[1:-1], g.shape[1:-1], strides, strict=True)]
    spread = pad(g, [0, *low, 0], [0, *high, 0], [0, *(s - 1 for s in strides), 0], 0.0)
    grouped = tf.reshape(tf.reverse(kernel, range(len(window))), (*window, c, groups, f // groups))
    order = [*range(len(window)), *(len(window) + a for a in (2, 1, 0))]
    turned = tf.reshape(tf.transpose(grouped, order), (*window, f // groups, groups * c))
    ones, none = [1] * len(window), [(0, 0)] * len(window)
    return conv(spread, turned, strides=ones, padding=none, dilation=dilation, groups=groups)


@planar(1, 1, 0)
def conv_kernel_grad(x: Any, g: Any, shape: Ints, strides: Ints, padding: Pairs, dilation: Ints, groups: int) -> Any:
    common = {"filter_sizes": shape, "out_backprop": g, "strides": _steps(strides)}
    if groups > 1 or max(dilation) > 1:
        return _products(_pad(x, padding), g, shape, strides, dilation, groups)
    if len(strides) == 2 and _is_same(x.shape[1:-1], shape[:2], strides, padding):
        return raw.Conv2DBackpropFilter(input=x, **common, padding="SAME")
    if len(strides) == 2:  # oneDNN's gradients have no other paddings
        return raw.Conv2DBackpropFilter(input=_pad(x, padding), **common, padding="VALID")
    return raw.Conv3DBackpropFilterV2(input=_pad(x, padding), **common, padding="VALID")


def _products(x: Any, g: Any, shape: Ints, strides: Ints, dilation: Ints, groups: int) -> Any:
    """Gradient of an unpadded convolution to its kernel: for each place in the window, one product over all windows."""
    *window, c, f = shape
    flat_g = tf.reshape(g, (-1, groups, f // groups))
    taps = []
    for tap in itertools.product(*map(range, window)):
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        ends = [a + (n - 1) * s + 1 for a, n, s in zip(starts, g.shape[1:-1], strides, strict=True)]
        seen = tf.reshape(x[(slice(None), *map(slice, starts, ends, strides))], (-1, groups, c))
        taps.append(tf.einsum("pgc,pgf->cgf", seen, flat_g))
    return tf.reshape(tf.stack(taps), shape)


# ---- pooling ----------------------------------------------------------------
# Over three axes it is done over the last two and then over the first: means and maxima come out the same, and so does
# the first maximum, row by row.


def _apart(window: Ints, strides: Ints, padding: Pairs) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings for the planes of a volume, and for its depth with the planes' axes as one."""
    planes = {"window": window[1:], "strides": strides[1:], "padding": padding[1:]}
    return planes, {"window": (window[0], 1), "strides": (strides[0], 1), "padding": (padding[0], (0, 0))}


def _planes(x: Any) -> Any:
    return tf.reshape(x, (-1, *x.shape[2:]))


def _columns(x: Any, depth: int) -> Any:
    return tf.reshape(x, (-1, depth, math.prod(x.shape[-3:-1]), x.shape[-1]))


@planar(1, 1)
def max_pool(x: Any, window: Ints, strides: Ints, padding: Pairs) -> Any:
    if len(window) == 3:
        return _pool_volume(max_pool, x, window, strides, padding)
    return raw.MaxPool(input=x, ksize=_steps(window), strides=_steps(strides), **_edges(padding))


def _pool_volume(pool: Any, x: Any, window: Ints, strides: Ints, padding: Pairs) -> Any:
    planes, depth = _apart(window, strides, padding)
    flat = pool(_planes(x), **planes)
    y = pool(_columns(flat, x.shape[1]), **depth)
    return tf.reshape(y, (x.shape[0], y.shape[1], *flat.shape[1:]))


@planar(1, 1, 1, 1)
def max_pool_grad(g: Any, x: Any, y: Any, window: Ints, strides: Ints, padding: Pairs) -> Any:
    if len(window) == 3:
        planes, depth = _apart(window, strides, padding)
        flat = max_pool(_planes(x), **planes)
        columns = (_columns(g, g.shape[1]), _columns(flat, x.shape[1]), _columns(y, y.shape[1]))
        flat_g = tf.reshape(max_pool_grad(*columns, **depth), flat.shape)
        return tf.reshape(max_pool_grad(flat_g, _planes(x), flat, **planes), x.shape)
    sizes = {"ksize": _steps(window), "strides": _steps(strides), **_edges(padding)}
    return raw.MaxPoolGrad(orig_input=x, orig_output=y, grad=g, **sizes)


def _counts(dtype: Any, shape: Ints, window: Ints, strides: Ints, padding: Pairs) -> Any:
    """How many positions that are not padding each window covers, as a share of the window."""
    real = _pad(tf.ones((1, *shape[1:-1], 1), dtype), padding)
    return raw.AvgPool(value=real, ksize=_steps(window), strides=_steps(strides), padding="VALID")


@planar(1, 1)
def avg_pool(x: Any, window: Ints, strides: Ints, padding: Pairs) -> Any:
    if len(window) == 3:
        return _pool_volume(avg_pool, x, window, strides, padding)
    y = raw.AvgPool(value=_pad(x, padding), ksize=_steps(window), strides=_steps(strides), padding="VALID")
    return y / _counts(x.dtype, x.shape, window, strides, padding) if any(map(any, padding)) else y


@planar(1, 1)
def avg_pool_grad(g: Any, shape: Ints, window: Ints, strides: Ints, padding: Pairs) -> Any:
    if len(window) == 3:
        planes, depth = _apart(window, strides, padding)
        n, d, h, w, c = shape
        columns = avg_pool_grad(_columns(g, g.shape[1]), shape=(n, d, math.prod(g.shape[2:4]), c), **depth)
        flat_g = tf.reshape(columns, (n * d, *g.shape[2:]))
        return tf.reshape(avg_pool_grad(flat_g, shape=(n * d, h, w, c), **planes), shape)
    if any(map(any, padding)):
        g = g / _counts(g.dtype, shape, window, strides, padding)
    sizes = {"ksize": _steps(window), "strides": _steps(strides), "padding": "VALID"}
    return raw.AvgPoolGrad(orig_input_shape=padded_shape(shape, padding), grad=g, **sizes)[inside(shape, padding)]
