"""Convolution and pooling over an array module with NumPy's interface, channels last, any number of spatial axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Sizes = tuple[int, ...]
Pairs = Sequence[tuple[int, int]]


def windowed(xp: Any) -> dict[str, Callable[..., Any]]:
    """The table's entries for convolution and pooling."""
    as_strided = xp.lib.stride_tricks.as_strided

    def padded(x: Any, padding: Pairs, value: float = 0.0) -> Any:
        if not any(low or high for low, high in padding):
            return x
        y = xp.full(_padded_shape(x.shape, padding), value, x.dtype)
        y[_inside(x.shape, padding)] = x
        return y

    # ---- convolution: columns of windows, then one matrix product ------------

    def columns(x: Any, window: Sizes, strides: Sizes, padding: Pairs, dilation: Sizes) -> tuple[Any, Sizes]:
        """The windows as rows ``(batch * counts, elements, channels)``, and ``(batch, *counts)``."""
        x = padded(x, padding)
        lead = (len(x), *_counts(x.shape, window, strides, dilation))
        steps = x.strides[1:-1]
        view = as_strided(
            x, (*lead, *window, x.shape[-1]),
            (x.strides[0], *(b * s for b, s in zip(steps, strides, strict=True)),
             *(b * d for b, d in zip(steps, dilation, strict=True)), x.strides[-1]),
        )  # fmt: skip
        return view.reshape(math.prod(lead), math.prod(window), x.shape[-1]), lead

    def by_group(rows: Any, groups: int) -> Any:
        """``(rows, elements, channels)`` as one matrix per group, or one for all."""
        n, elements, channels = rows.shape
        if groups == 1:
            return rows.reshape(n, elements * channels)
        parts = rows.reshape(n, elements, groups, channels // groups).transpose(2, 0, 1, 3)
        return parts.reshape(groups, n, elements * channels // groups)

    def filters_by_group(kernel: Any, groups: int) -> Any:
        """``(..., filters)`` as one matrix per group, or one for all."""
        rows, filters = math.prod(kernel.shape[:-1]), kernel.shape[-1]
        if groups == 1:
            return kernel.reshape(rows, filters)
        return kernel.reshape(rows, groups, filters // groups).transpose(1, 0, 2)

    def ungrouped(y: Any) -> Any:
        return y if y.ndim == 2 else y.transpose(1, 0, 2).reshape(y.shape[1], y.shape[0] * y.shape[2])

    def conv(x: Any, kernel: Any, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int) -> Any:
        rows, lead = columns(x, kernel.shape[:-2], strides, padding, dilation)
        y = xp.matmul(by_group(rows, groups), filters_by_group(kernel, groups))
        return ungrouped(y).reshape(*lead, kernel.shape[-1])

    def conv_kernel_grad(
        x: Any, g: Any, shape: Sizes, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int
    ) -> Any:
        rows, _ = columns(x, shape[:-2], strides, padding, dilation)
        grad = xp.matmul(by_group(rows, groups).swapaxes(-1, -2), filters_by_group(g, groups))
        return ungrouped(grad).reshape(shape)

    def conv_input_grad(
        g: Any, kernel: Any, shape: Sizes, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int
    ) -> Any:
        rows = filters_by_group(g, groups)
        taps = kernel.reshape(-1, *kernel.shape[-2:])
        result = xp.zeros(_padded_shape(shape, padding), g.dtype)
        for part, tap in zip(taps, _taps(kernel.shape[:-2], strides, dilation, g.shape), strict=True):
            back = xp.matmul(rows, filters_by_group(part, groups).swapaxes(-1, -2))
            result[tap] += ungrouped(back).reshape(*g.shape[:-1], shape[-1])
        return result[_inside(shape, padding)]

    # ---- pooling: one strided view per place in the window --------------------

    def max_pool(x: Any, window: Sizes, strides: Sizes, padding: Pairs) -> Any:
        wide, taps = pool_taps(x, window, strides, padding, -math.inf)
        y = wide[next(taps)].copy()
        for tap in taps:
            xp.maximum(y, wide[tap], out=y)
        return y

    def pool_taps(x: Any, window: Sizes, strides: Sizes, padding: Pairs, value: float) -> tuple[Any, Iterator[Any]]:
        wide = padded(x, padding, value)
        ones = (1,) * len(window)
        return wide, _taps(window, strides, ones, (0, *_counts(wide.shape, window, strides, ones), 0))

    def max_pool_grad(g: Any, x: Any, y: Any, window: Sizes, strides: Sizes, padding: Pairs) -> Any:
        wide, taps = pool_taps(x, window, strides, padding, -math.inf)
        result = xp.zeros(wide.shape, g.dtype)
        missed = xp.ones(y.shape, bool)  # windows whose maximum was not met yet
        for tap in taps:
            hit = xp.equal(wide[tap], y)
            hit &= missed
            missed ^= hit
            result[tap] += g * hit
        return result[_inside(x.shape, padding)]

    def counted(shape: Sizes, window: Sizes, strides: Sizes, padding: Pairs, dtype: Any) -> Any:
        """How many real elements each window sees, to broadcast against the result."""
        if not any(low or high for low, high in padding):
            return xp.asarray(math.prod(window), dtype)
        real, taps = pool_taps(xp.ones((1, *shape[1:-1], 1), dtype), window, strides, padding, 0.0)
        return sum(real[tap] for tap in taps)

    def avg_pool(x: Any, window: Sizes, strides: Sizes, padding: Pairs) -> Any:
        wide, taps = pool_taps(x, window, strides, padding, 0.0)
        y = wide[next(taps)].copy()
        for tap in taps:
            y += wide[tap]
        y /= counted(x.shape, window, strides, padding, x.dtype)
        return y

    def avg_pool_grad(g: Any, shape: Sizes, window: Sizes, strides: Sizes, padding: Pairs) -> Any:
        share = g / counted(shape, window, strides, padding, g.dtype)
        result = xp.zeros(_padded_shape(shape, padding), g.dtype)
        for tap in _taps(window, strides, (1,) * len(window), g.shape):
            result[tap] += share
        return result[_inside(shape, padding)]

    return {
        "conv": conv, "conv_input_grad": conv_input_grad, "conv_kernel_grad": conv_kernel_grad,
        "max_pool": max_pool, "max_pool_grad": max_pool_grad, "avg_pool": avg_pool, "avg_pool_grad": avg_pool_grad,
    }  # fmt: skip


def _padded_shape(shape: Sizes, padding: Pairs) -> Sizes:
    return (shape[0], *(n + low + high for n, (low, high) in zip(shape[1:-1], padding, strict=True)), shape[-1])


def _inside(shape: Sizes, padding: Pairs) -> tuple[slice, ...]:
    """Where the array lies in its padded version."""
    return (slice(None), *(slice(low, low + n) for (low, _), n in zip(padding, shape[1:-1], strict=True)))


def _counts(shape: Sizes, window: Sizes, strides: Sizes, dilation: Sizes) -> Sizes:
    sizes = zip(shape[1:-1], window, strides, dilation, strict=True)
    return tuple((n - (k - 1) * d - 1) // s + 1 for n, k, s, d in sizes)


def _taps(window: Sizes, strides: Sizes, dilation: Sizes, out: Sizes) -> Iterator[tuple[slice, ...]]:
    """For each place in the window, row by row: where the windows have it in the padded input."""
    for at in itertools.product(*(range(k) for k in window)):
        axes = zip(at, dilation, strides, out[1:-1], strict=True)
        yield (slice(None), *(slice(t * d, t * d + max(0, (n - 1) * s + 1), s) for t, d, s, n in axes))
