"""Convolution and pooling by XLA's windowed ops; the gradients of linear ones are their transposes, which JAX has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from unilayers.backends.spatial import Ints, Pairs

_SPATIAL = {1: "W", 2: "HW", 3: "DHW"}
PLACES = 16  # in a window, up to which each is a pass of its own


def transpose(linear: Callable[[Any], Any], shape: Ints, g: Any) -> Any:
    """``g`` through the transpose of a linear function of an array of ``shape``."""
    (x,) = jax.linear_transpose(linear, jax.ShapeDtypeStruct(shape, g.dtype))(g)
    return x


# ---- convolution ------------------------------------------------------------


def conv(x: Any, kernel: Any, strides: Ints, padding: Pairs, dilation: Ints, groups: int) -> Any:
    """In full float32 also on a GPU, where XLA would round operands to 10 bits."""
    spatial = _SPATIAL[len(strides)]
    data = f"N{spatial}C"
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=(data, f"{spatial}IO", data),
        feature_group_count=groups, precision=lax.Precision.HIGHEST,
    )  # fmt: skip


def conv_input_grad(g: Any, kernel: Any, shape: Ints, **attrs: Any) -> Any:
    return transpose(lambda x: conv(x, kernel, **attrs), shape, g)


def conv_kernel_grad(x: Any, g: Any, shape: Ints, **attrs: Any) -> Any:
    return transpose(lambda kernel: conv(x, kernel, **attrs), shape, g)


# ---- pooling ----------------------------------------------------------------


def _reduce(x: Any, start: float, function: Any, window: Ints, strides: Ints, padding: Pairs) -> Any:
    """``function`` over each window of channels-last x, padded with ``start``."""
    edges = [(0, 0), *padding, (0, 0)]
    return lax.reduce_window(x, x.dtype.type(start), function, (1, *window, 1), (1, *strides, 1), edges)


def max_pool(x: Any, window: Ints, strides: Ints, padding: Pairs) -> Any:
    return _reduce(x, -jnp.inf, lax.max, window, strides, padding)


def max_pool_grad(g: Any, x: Any, y: Any, window: Ints, strides: Ints, padding: Pairs) -> Any:
    """g goes to the first maximum of each window, row by row. On the CPU, XLA's own way to do that takes ten times as
    long as one pass for each place in the window; on large windows these would be too many.

    The places of the maxima are found in x alone: where XLA computes x twice, it may round differently, and then y is
    found nowhere.
    """
    if math.prod(window) > PLACES:
        return jax.vjp(lambda x: max_pool(x, window, strides, padding), x)[1](g)[0]
    around = [(0, 0), *padding, (0, 0)]
    wide = jnp.pad(x, around, constant_values=-jnp.inf)
    real = jnp.pad(jnp.ones((1, *x.shape[1:-1], 1), bool), around)
    best, first, total = jnp.full(g.shape, -jnp.inf, x.dtype), jnp.full(g.shape, -1, "int8"), jnp.zeros_like(x)
    axes = [*zip(x.shape[1:-1], g.shape[1:-1], strides, (low for low, _ in padding), strict=True)]
    places = [[*zip(place, axes, strict=True)] for place in itertools.product(*map(range, window))]
    for i, starts in enumerate(places):
        seen = (slice(None), *(slice(p, p + (n - 1) * step + 1, step) for p, (_, n, step, _) in starts))
        value = wide[seen]
        better = real[seen] & ((first < 0) | (value > best) | (jnp.isnan(value) & ~jnp.isnan(best)))
        best, first = jnp.where(better, value, best), jnp.where(better, jnp.int8(i), first)
    for i, starts in enumerate(places):
        edges = [(p - low, size + low - p - (n - 1) * step - 1, step - 1) for p, (size, n, step, low) in starts]
        total += lax.pad(jnp.where(first == i, g, 0), g.dtype.type(0), [(0, 0, 0), *edges, (0, 0, 0)])
    return total


def _sums(x: Any, **attrs: Any) -> Any:
    return _reduce(x, 0, lax.add, **attrs)


def _counts(dtype: Any, shape: Ints, **attrs: Any) -> Any:
    """How many positions that are not padding each window covers."""
    return _sums(jnp.ones((1, *shape[1:-1], 1), dtype), **attrs)


def avg_pool(x: Any, **attrs: Any) -> Any:
    return _sums(x, **attrs) / _counts(x.dtype, x.shape, **attrs)


def avg_pool_grad(g: Any, shape: Ints, **attrs: Any) -> Any:
    return transpose(lambda x: _sums(x, **attrs), shape, g / _counts(g.dtype, shape, **attrs))
