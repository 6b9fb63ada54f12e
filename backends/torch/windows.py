"""Convolution and pooling by aten kernels.

Data is channels-last and stays so: aten gets channels-first *views* of it, which is its ``channels_last`` format.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from unilayers.backends.spatial import Ints, Pairs, inside, padded_shape, planar

from .neural import with_statistics

aten = torch.ops.aten

# Orders of axes by their number: data to channels-first and back, kernels (*spatial, in, out) to (out, in, *spatial)
# and back.
_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}
_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
_OUT_IN = {3: (2, 1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}
_IN_OUT = {3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}


def _first(x: Tensor) -> Tensor:
    return x.permute(_FIRST[x.ndim])


def _last(x: Tensor) -> Tensor:
    return x.permute(_LAST[x.ndim])


def _symmetric(padding: Pairs) -> bool:
    """Whether aten can pad this by itself."""
    return all(low == high for low, high in padding)


def _pad(x: Tensor, padding: Pairs, value: float = 0.0) -> Tensor:
    """Channels-last x with ``value`` around its spatial axes."""
    if not any(map(any, padding)):
        return x
    return torch.constant_pad_nd(x, [0, 0, *(n for pair in reversed(padding) for n in pair)], value)


# ---- convolution ------------------------------------------------------------


def _settings(strides: Ints, padding: Pairs, dilation: Ints, groups: int) -> tuple[Any, ...]:
    """aten's arguments from ``stride`` on."""
    return strides, [low for low, _ in padding], dilation, False, [0] * len(padding), groups


def conv_with(
    strides: Ints, padding: Pairs, dilation: Ints, groups: int, epsilon: float | None = None
) -> Callable[..., Tensor]:
    """The convolution with these attributes, as a function of x, kernel and perhaps bias; or, with ``epsilon``, of x,
    kernel and what its result is normalised by: gamma, beta, mean and variance."""
    ndim, symmetric = len(strides) + 2, _symmetric(padding)
    settings = _settings(strides, padding if symmetric else [(0, 0)] * len(padding), dilation, groups)
    first, last, out_in, convolution = _FIRST[ndim], _LAST[ndim], _OUT_IN[ndim], torch.convolution
    met: tuple[Any, Any] = None, None  # the kernel, as a rule the same at every step, and aten's view of it

    def plain(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        nonlocal met
        known = met
        if known[0] is not kernel:
            known = met = kernel, kernel.permute(out_in)
        x = x if symmetric else _pad(x, padding)
        return convolution(x.permute(first), known[1], bias, *settings)

    def conv(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        return plain(x, kernel, bias).permute(last)

    def conv_norm(x: Tensor, kernel: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        y = plain(x, kernel, None)
        return with_statistics(y, gamma, beta, mean, variance, epsilon or 0.0).permute(last)

    return conv if epsilon is None else conv_norm


def conv_input_grad_with(
    shape: Ints, strides: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient to the input with these attributes, as a function of g and kernel."""
    ndim, own, cut = len(shape), _symmetric(padding), inside(shape, padding)
    settings = _settings(strides, padding if own else [(0, 0)] * len(padding), dilation, groups)
    first, last, out_in, backward = _FIRST[ndim], _LAST[ndim], _OUT_IN[ndim], aten.convolution_backward.default
    wide = shape if own else padded_shape(shape, padding)

    def input_grad(g: Tensor, kernel: Tensor) -> Tensor:
        x = g.new_empty(wide).permute(first)  # aten wants an x, of which it reads the shape and the strides
        weight = kernel.permute(out_in)
        y = backward(g.permute(first), x, weight, None, *settings, [True, False, False])[0].permute(last)
        return y if own else y[cut]

    return input_grad


def conv_kernel_grad_with(
    shape: Ints, strides: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient to the kernel with these attributes, as a function of x and g."""
    ndim, own = len(shape), _symmetric(padding)
    settings = _settings(strides, padding if own else [(0, 0)] * len(padding), dilation, groups)
    first, in_out, backward = _FIRST[ndim], _IN_OUT[ndim], aten.convolution_backward.default
    laid = shape[-1], *shape[:-1]  # of a kernel that is laid for aten, which reads its shape and strides only

    def kernel_grad(x: Tensor, g: Tensor) -> Tensor:
        x, weight = x if own else _pad(x, padding), g.new_empty(laid).movedim(-1, 1)
        flow = backward(g.permute(first), x.permute(first), weight, None, *settings, [False, True, False])
        return flow[1].permute(in_out)

    return kernel_grad


# ---- pooling: aten's kernels for one axis have no gradient, so that is run as two ----


def _halves(window: Ints, padding: Pairs) -> bool:
    """Whether aten can pad maxima by itself: equally, and by half a window at most."""
    return _symmetric(padding) and all(2 * low <= w for (low, _), w in zip(padding, window, strict=True))


def _unbeaten(x: Tensor, window: Ints, padding: Pairs) -> tuple[Tensor, Pairs]:
    """x and the padding left to aten; -inf never wins."""
    if _halves(window, padding):
        return x, padding
    return _pad(x, padding, float("-inf")), [(0, 0)] * len(padding)


def _max_pool(x: Tensor, window: Ints, strides: Ints, padding: Pairs) -> Any:
    """Maxima and their places; of equal ones aten takes the first, row by row."""
    kernel = aten.max_pool2d_with_indices if len(window) == 2 else aten.max_pool3d_with_indices
    return kernel(_first(x), window, strides, [low for low, _ in padding])


def max_pooling(window: Ints, strides: Ints, padding: Pairs) -> Callable[[Tensor], Tensor]:
    """The maxima of windows with these attributes, as a function of x."""
    kernel = (torch.max_pool1d, torch.max_pool2d, torch.max_pool3d)[len(window) - 1]
    own, (first, last) = _halves(window, padding), (_FIRST[len(window) + 2], _LAST[len(window) + 2])
    pads = [low for low, _ in padding] if own else [0] * len(window)

    def max_pool(x: Tensor) -> Tensor:
        x = x if own else _pad(x, padding, float("-inf"))
        return kernel(x.permute(first), window, strides, pads).permute(last)

    return max_pool


@planar(1, 1, 1, 1)
def max_pool_grad(g: Tensor, x: Tensor, y: Tensor, window: Ints, strides: Ints, padding: Pairs) -> Tensor:
    """The places of the maxima are found again."""
    return max_pool_from(g, x, max_pool_kept(x, window, strides, padding)[1], window, strides, padding)


def max_pool_kept(x: Tensor, window: Ints, strides: Ints, padding: Pairs) -> tuple[Tensor, Tensor]:
    """The maxima, and their places for the gradient; over two or three axes."""
    x, padding = _unbeaten(x, window, padding)
    y, places = _max_pool(x, window, strides, padding)
    return _last(y), places


def max_pool_from(g: Tensor, x: Tensor, places: Tensor, window: Ints, strides: Ints, padding: Pairs) -> Tensor:
    wide, left = _unbeaten(x, window, padding)
    kernel = aten.max_pool2d_with_indices_backward if len(window) == 2 else aten.max_pool3d_with_indices_backward
    pads = [low for low, _ in left]
    grad = _last(kernel(_first(g), _first(wide), window, strides, pads, [1] * len(window), False, places))
    return grad if wide is x else grad[inside(x.shape, padding)]


def _known(x: Tensor) -> Tensor:
    """aten averages over three axes on the CPU in float32 and float64 only."""
    narrow = x.ndim == 5 and x.device.type == "cpu" and x.dtype in (torch.float16, torch.bfloat16)
    return x.float() if narrow else x


def _sums(x: Tensor, window: Ints, strides: Ints) -> Tensor:
    kernel = aten.avg_pool2d if len(window) == 2 else aten.avg_pool3d
    return _last(kernel(_first(_known(x)), window, strides, [0] * len(window), False, True, 1)).to(x.dtype)


def _counts(like: Tensor, shape: Ints, window: Ints, strides: Ints, padding: Pairs) -> Tensor:
    """How many positions that are not padding each window covers."""
    return _sums(_pad(like.new_ones((1, *shape[1:-1], 1)), padding), window, strides)


@planar(1, 1)
def avg_pool(x: Tensor, window: Ints, strides: Ints, padding: Pairs) -> Tensor:
    return _sums(_pad(x, padding), window, strides) / _counts(x, x.shape, window, strides, padding)


@planar(1, 1)
def avg_pool_grad(g: Tensor, shape: Ints, window: Ints, strides: Ints, padding: Pairs) -> Tensor:
    kernel = aten.avg_pool2d_backward if len(window) == 2 else aten.avg_pool3d_backward
    shares = _known(g / _counts(g, shape, window, strides, padding))
    wide = _first(shares.new_empty(padded_shape(shape, padding)))
    grad = _last(kernel(_first(shares), wide, window, strides, [0] * len(window), False, True, 1))
    return grad[inside(shape, padding)].to(g.dtype)
