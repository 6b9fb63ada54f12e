"""Convolution and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
from unilayers.backends.numpy.kernels.contract import KERNELS, Array, Calls, Immediate, dense
from unilayers.backends.numpy.kernels.elementwise import relu as plain_relu

from .contract import (
    BIAS,
    DIFF_DST,
    DIFF_SRC,
    DIFF_WEIGHTS,
    DST,
    FORWARD,
    INFERENCE,
    OWN,
    SRC,
    WEIGHTS,
    WORKSPACE,
    Fitted,
    Sizes,
    accelerated,
    run,
)  # fmt: skip
from .library import After, Layout, Library, Primitive

DIRECT, LARGEST, MEAN = 1, 511, 1023  # dnnl_convolution_direct, dnnl_pooling_max, dnnl_pooling_avg_exclude_padding
FEW_ROWS = 64  # windows: for fewer, it takes the longest to bring the filters into the layout that is wanted

# ---- convolution ------------------------------------------------------------------------


def _images(x: Array) -> Layout:
    """``(batch, *spatial, channels)`` as the library has it: channels before the spatial axes."""
    return Layout.of(x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1)))


def _filters(kernel: Array, groups: int) -> Layout:
    """``(*window, channels, filters)`` as the library has it: filters, channels, window; groups before all."""
    window = range(kernel.ndim - 2)
    if groups == 1:
        return Layout.of(kernel.transpose(kernel.ndim - 1, kernel.ndim - 2, *window))
    parted = kernel.reshape(*kernel.shape[:-1], groups, kernel.shape[-1] // groups)
    return Layout.of(parted.transpose(kernel.ndim - 1, kernel.ndim, kernel.ndim - 2, *window))


class _Convolution:
    """The primitives of one convolution; they share its geometry."""

    def __init__(
        self, library: Library, x: Array, kernel: Array, y: Array, bias: Array = None, *,
        strides: Sizes, padding: Any, dilation: Sizes, groups: int,
    ) -> None:  # fmt: skip
        self._library, self._x, self.kernel, self._y = library, _images(x), _filters(kernel, groups), _images(y)
        self._bias = None if bias is None else Layout.of(bias)
        low, high = zip(*padding, strict=True)
        self._geometry = strides, tuple(d - 1 for d in dilation), low, high

    @property
    def _any(self) -> Layout:
        return Layout(self.kernel.shape)

    def forward(self) -> Primitive:
        return self._library.primitive(
            "convolution_forward", FORWARD, DIRECT, self._x, self._any, self._bias, self._y,
            *self._geometry, After(),
        )  # fmt: skip

    def to_input(self) -> Primitive:
        return self._library.primitive(
            "convolution_backward_data", DIRECT, self._x, self._any, self._y, *self._geometry,
            self.forward(), After(),
        )  # fmt: skip

    def to_kernel(self) -> Primitive:
        return self._library.primitive(
            "convolution_backward_weights", DIRECT, self._x, self._any, None, self._y,
            *self._geometry, self.forward(), After(),
        )  # fmt: skip


def _pays(x: Array, y: Array) -> bool:
    """Whether the library knows a convolution of x to y, and it has windows enough for it."""
    return 3 <= x.ndim <= 5 and y.size // y.shape[-1] >= FEW_ROWS


@accelerated("conv")
def conv(library: Library, do: Calls, x: Array, kernel: Array, y: Array, **attrs: Any) -> bool:
    return _forward(library, do, x, kernel, None, y, attrs)


@accelerated("conv_bias")
def conv_bias(
    library: Library, do: Calls, x: Array, kernel: Array, bias: Array, y: Array, *, relu: bool, **attrs: Any
) -> bool:
    if not _forward(library, do, x, kernel, bias.reshape(-1), y, attrs):
        return False
    if relu:
        plain_relu(do, y, y)  # the library's own turns NaN into 0
    return True


def _forward(library: Library, do: Calls, x: Array, kernel: Array, bias: Array, y: Array, attrs: Any) -> bool:
    if not _pays(x, y):
        return False
    x, kernel = dense(do, x), dense(do, kernel)
    how = _Convolution(library, x, kernel, y, bias, **attrs)
    primitive = how.forward()
    filters = Fitted(do, primitive, WEIGHTS, kernel, how.kernel).fill()
    run(do, primitive, {SRC: x, WEIGHTS: filters, DST: y} | ({} if bias is None else {BIAS: bias}))
    return True


@accelerated("conv_input_grad")
def conv_input_grad(
    library: Library, do: Calls, g: Array, kernel: Array, y: Array, *, shape: Sizes, **attrs: Any
) -> bool:
    if not _pays(y, g) or shape[-1] == 1:
        return False
    g, kernel = dense(do, g), dense(do, kernel)
    how = _Convolution(library, y, kernel, g, **attrs)
    primitive = how.to_input()
    filters = Fitted(do, primitive, WEIGHTS, kernel, how.kernel).fill()
    run(do, primitive, {DIFF_DST: g, WEIGHTS: filters, DIFF_SRC: y})
    return True


@accelerated("conv_kernel_grad")
def conv_kernel_grad(library: Library, do: Calls, x: Array, g: Array, y: Array, *, shape: Sizes, **attrs: Any) -> bool:
    if not _pays(x, g):
        return False
    x, g = dense(do, x), dense(do, g)
    how = _Convolution(library, x, y, g, **attrs)
    primitive = how.to_kernel()
    grad = Fitted(do, primitive, DIFF_WEIGHTS, y, how.kernel)
    run(do, primitive, {SRC: x, DIFF_DST: g, DIFF_WEIGHTS: grad.array})
    grad.read()
    return True


# ---- pooling ------------------------------------------------------------------------------


class Pooling:
    """The primitives of one pooling.

    Args:
        kind: Which, DNNL_POOLING_...
        trained: Whether the places of maxima are noted for the gradient.
    """

    def __init__(
        self, library: Library, x: Array, y: Array, window: Sizes, strides: Sizes, padding: Any, kind: int = LARGEST,
        trained: bool = False,
    ) -> None:  # fmt: skip
        layouts = _images(x), _images(y)
        geometry = strides, window, (0,) * len(window), *zip(*padding, strict=True)
        prop = FORWARD if trained or kind != LARGEST else INFERENCE
        self.forward = library.primitive("pooling_forward", prop, kind, *layouts, *geometry, After())
        self._library, self._how = library, (kind, *layouts, *geometry)

    @property
    def backward(self) -> Primitive:
        return self._library.primitive("pooling_backward", *self._how, self.forward, After())

    @property
    def places(self) -> int:
        """Bytes that say where in each window the largest element was."""
        return self.forward.wanted(WORKSPACE).nbytes


def _max_pool_places(
    library: Library, do: Calls, x: Array, y: Array, places: Array, *, relu: bool, **attrs: Any
) -> None:
    """Maximum pooling that notes where in each window the largest element is; then perhaps a relu."""
    x = dense(do, x)
    run(do, Pooling(library, x, y, **attrs, trained=True).forward, {SRC: x, DST: y, WORKSPACE: places})
    do(_spread_nan, x, y, attrs)
    if relu:
        plain_relu(do, y, y)


def _spread_nan(x: Array, y: Array, attrs: Any) -> None:
    """The library passes NaNs over, and infinities below: where there are any, NumPy takes the maximum again."""
    flat = x.reshape(-1)
    if not np.isfinite(np.dot(flat, flat)):
        KERNELS["max_pool"].build(Immediate(np), x, y, **attrs)


def _max_pool_grad_places(library: Library, do: Calls, g: Array, places: Array, result: Array, **attrs: Any) -> None:
    g = dense(do, g)
    run(
        do,
        Pooling(library, result, g, **attrs, trained=True).backward,
        {DIFF_DST: g, WORKSPACE: places, DIFF_SRC: result},
    )


@accelerated("max_pool")
def max_pool(library: Library, do: Calls, x: Array, y: Array, **attrs: Any) -> bool:
    x = dense(do, x)
    if not _pool(library, do, LARGEST, x, y, **attrs):
        return False
    do(_spread_nan, x, y, attrs)
    return True


@accelerated("avg_pool")
def avg_pool(library: Library, do: Calls, x: Array, y: Array, **attrs: Any) -> bool:
    return _pool(library, do, MEAN, x, y, **attrs)


def _pool(library: Library, do: Calls, kind: int, x: Array, y: Array, **attrs: Any) -> bool:
    """Pooling whose gradient is not asked for, or needs nothing of it."""
    if not 3 <= x.ndim <= 5:
        return False
    x = dense(do, x)
    run(do, Pooling(library, x, y, kind=kind, **attrs).forward, {SRC: x, DST: y})
    return True


@accelerated("avg_pool_grad")
def avg_pool_grad(library: Library, do: Calls, g: Array, y: Array, *, shape: Sizes, **attrs: Any) -> bool:
    if not 3 <= g.ndim <= 5:
        return False
    g = dense(do, g)
    run(do, Pooling(library, y, g, kind=MEAN, **attrs).backward, {DIFF_DST: g, DIFF_SRC: y})
    return True


OWN |= {"max_pool_places": _max_pool_places, "max_pool_grad_places": _max_pool_grad_places}
