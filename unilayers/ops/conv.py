"""Convolution over one, two or three spatial axes, its two gradients, and padding in the field's words.

All three ops are bilinear, so each one's gradients are the other two, to any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, ParamSpec

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import Sample
from unilayers.ops.define import primitive, require_float, shape_of
from unilayers.spec import Dim, DimLike, Shape, Spec

__all__ = [
    "conv", "conv_", "conv_input_grad", "conv_kernel_grad", "conv_padding", "conv_transpose", "depthwise_conv",
    "separable_conv",
]  # fmt: skip

Sizes = tuple[int, ...]
Pairs = tuple[tuple[DimLike, DimLike], ...]
P = ParamSpec("P")
Padding = str | int | Sequence[int | Sequence[int]]

# ---- windows: shared with pooling -------------------------------------------


def names_itself(function: Callable[P, Any]) -> Callable[P, Any]:
    """Decorator: an error that does not say where yet names this op."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return function(*args, **kwargs)
        except UnilayersError as error:
            raise (error if error.where else error.inside(f"op '{function.__name__}'")) from None

    return call


def per_axis(value: int | Sequence[int], count: int, what: str) -> Sizes:
    """One positive int per spatial axis: an int counts for every axis.

    Raises:
        ShapeError: wrong number of entries, or an entry below 1.
    """
    sizes = (value,) * count if isinstance(value, (int, np.integer)) else tuple(value)
    if len(sizes) != count or any(s < 1 for s in sizes):
        raise ShapeError(f"{what} does not fit", expected=f"one int >= 1, or {count} of them", received=repr(value))
    return tuple(int(s) for s in sizes)


def extent(window: Sizes, dilation: Sizes) -> Sizes:
    """How far a window with gaps reaches, per axis."""
    return tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))


def conv_padding(
    mode: Padding, shape: Sequence[DimLike], window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Pairs:
    """Padding as one (low, high) pair per spatial axis.

    "same" is TensorFlow's and Keras's rule: ``ceil(size / stride)`` outputs, the odd element at the end. It may stay
    symbolic where the window reaches at least as far as the stride.

    Args:
        mode: "valid" (none), "same", "causal" (all in front), an int for all sides, or per axis an int or a pair.
        shape: The spatial sizes of the input.
        window: The window's size per axis.
        strides: Steps between windows.
        dilation: Distance of the window's elements.

    Raises:
        ShapeError: unknown mode, a pair too few or below 0, or a symbolic size for which "same" has no closed form.

    Example:
        >>> conv_padding("same", (28, 5), (3, 2), (2, 1), (1, 1))
        ((0, 1), (0, 1))
    """
    axes = list(zip(shape, extent(tuple(window), tuple(dilation)), strides, strict=True))
    if mode == "valid":
        return ((0, 0),) * len(axes)
    if mode == "causal":
        return tuple((reach - 1, 0) for _, reach, _ in axes)
    if mode == "same":
        totals = [_same_total(*axis) for axis in axes]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(mode, str):
        raise ShapeError("unknown padding", expected="'valid', 'same', 'causal' or sizes", received=repr(mode))
    sides = [mode] * len(axes) if isinstance(mode, (int, np.integer)) else list(mode)
    pairs = [(s, s) if isinstance(s, (int, np.integer, Dim)) else tuple(s) for s in sides]
    if len(pairs) != len(axes) or any(len(p) != 2 or any(isinstance(n, int) and n < 0 for n in p) for p in pairs):
        raise ShapeError(
            "padding does not fit", expected=f"an int, or {len(axes)} ints or pairs, none below 0", received=repr(mode)
        )
    return tuple((low, high) for low, high in pairs)


def _same_total(size: DimLike, reach: int, stride: int) -> DimLike:
    total = (-(-size // stride) - 1) * stride + reach - size
    if isinstance(total, int):
        return max(total, 0)
    if reach >= stride:  # then it cannot be negative
        return total
    raise ShapeError(
        "'same' padding of an unknown size, with a stride beyond the window", expected="a size, or a stride up to the "
        f"window's reach of {reach}", received=f"size {size}, stride {stride}",
    )  # fmt: skip


def window_counts(spatial: Shape, window: Sizes, strides: Sizes, padding: Pairs, dilation: Sizes) -> Shape:
    """How many windows fit, per spatial axis: the output's sizes.

    Raises:
        ShapeError: attributes for another number of axes, or a window larger than the padded input.
    """
    if not len(spatial) == len(window) == len(strides) == len(padding) == len(dilation):
        raise ShapeError(
            "one entry per spatial axis", expected=f"{len(spatial)} of each",
            received=f"window {window}, strides {strides}, padding {padding}, dilation {dilation}",
        )  # fmt: skip
    counts: list[DimLike] = []
    for axis, (size, reach) in enumerate(zip(spatial, extent(window, dilation), strict=True)):
        room = size + padding[axis][0] + padding[axis][1] - reach
        if isinstance(room, int) and room < 0:
            raise ShapeError(
                "the window is larger than the padded input", expected=f"at least {reach} on spatial axis {axis}",
                received=f"size {size} with padding {padding[axis]}", fix="Use a smaller window or padding='same'",
            )  # fmt: skip
        counts.append(room // strides[axis] + 1)
    return tuple(counts)


def reference_windows(spatial: Sizes, window: Sizes, strides: Sizes, padding: Any, dilation: Sizes) -> Iterator[Any]:
    """For the reference functions: each output position and the index of its window in the padded input."""
    counts = window_counts(spatial, window, strides, padding, dilation)
    for at in np.ndindex(*counts):  # type: ignore[arg-type]
        picks = [o * s + np.arange(k) * d for o, s, k, d in zip(at, strides, window, dilation, strict=True)]
        yield at, (slice(None), *np.ix_(*picks))


def reference_pad(x: np.ndarray, padding: Any, value: float) -> np.ndarray:
    """For the reference functions: x with its spatial axes padded."""
    return np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=value)


# ---- shape rules ------------------------------------------------------------


def _conv_shape(x: Shape, kernel: Shape, *, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int) -> Shape:
    if len(x) != len(kernel) or len(x) < 3:
        raise ShapeError(
            "x and kernel do not fit", expected="x (batch, *spatial, channels) and kernel (*window, channels / groups, "
            "filters)", received=f"{x} and {kernel}",
        )  # fmt: skip
    if x[-1] != kernel[-2] * groups or kernel[-1] % groups:
        raise ShapeError(
            "channels do not fit the kernel", received=f"x {x}, kernel {kernel}, groups {groups}",
            expected="channels = kernel.shape[-2] * groups, and filters a multiple of groups",
        )  # fmt: skip
    return (x[0], *window_counts(x[1:-1], kernel[:-2], strides, padding, dilation), kernel[-1])  # type: ignore[arg-type]


def _conv_infer(x: Spec, kernel: Spec, *, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int) -> Spec:
    require_float(x.dtype)
    return x.with_shape(
        _conv_shape(x.shape, kernel.shape, strides=strides, padding=padding, dilation=dilation, groups=groups)
    )


def _expect(found: Shape, shape: Shape, what: str) -> None:
    if tuple(found) != tuple(shape):
        raise ShapeError(
            f"{what} does not have the shape of the convolution's result", expected=f"{shape}", received=f"{found}"
        )


def _input_grad_infer(
    g: Spec, kernel: Spec, *, shape: Shape, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int
) -> Spec:
    out = _conv_shape(shape, kernel.shape, strides=strides, padding=padding, dilation=dilation, groups=groups)
    _expect(g.shape, out, "g")
    return g.with_shape(shape)


def _kernel_grad_infer(
    x: Spec, g: Spec, *, shape: Shape, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int
) -> Spec:
    out = _conv_shape(x.shape, shape, strides=strides, padding=padding, dilation=dilation, groups=groups)
    _expect(g.shape, out, "g")
    return g.with_shape(shape)


# ---- gradients --------------------------------------------------------------


def _conv_vjp(g: Any, y: Any, x: Any, kernel: Any, **attrs: Any) -> tuple[Any, Any]:
    return (
        ops.conv_input_grad(g, kernel, shape=shape_of(x), **attrs),
        ops.conv_kernel_grad(x, g, shape=shape_of(kernel), **attrs),
    )


def _input_grad_vjp(c: Any, y: Any, g: Any, kernel: Any, *, shape: Shape, **attrs: Any) -> tuple[Any, Any]:
    return ops.conv_(c, kernel, **attrs), ops.conv_kernel_grad(c, g, shape=shape_of(kernel), **attrs)


def _kernel_grad_vjp(c: Any, y: Any, x: Any, g: Any, *, shape: Shape, **attrs: Any) -> tuple[Any, Any]:
    return ops.conv_input_grad(g, c, shape=shape_of(x), **attrs), ops.conv_(x, c, **attrs)


# ---- references: the definition, window by window -------------------------------


def _reference_groups(channels: int, filters: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """The input channels and the filters of each group."""
    c, f = channels // groups, filters // groups
    return ((slice(i * c, i * c + c), slice(i * f, i * f + f)) for i in range(groups))


def _conv_reference(
    x: np.ndarray, kernel: np.ndarray, strides: Sizes, padding: Any, dilation: Sizes, groups: int
) -> np.ndarray:
    geometry = (x.shape[1:-1], kernel.shape[:-2], strides, padding, dilation)
    y = np.zeros((len(x), *window_counts(*geometry), kernel.shape[-1]), x.dtype)
    padded = reference_pad(x, padding, 0.0)
    for at, window in reference_windows(*geometry):
        for c, f in _reference_groups(x.shape[-1], kernel.shape[-1], groups):
            y[(slice(None), *at, f)] = np.tensordot(padded[window][..., c], kernel[..., f], x.ndim - 1)
    return y


def _input_grad_reference(
    g: np.ndarray, kernel: np.ndarray, shape: Sizes, strides: Sizes, padding: Any, dilation: Sizes, groups: int
) -> np.ndarray:
    padded = reference_pad(np.zeros(shape, g.dtype), padding, 0.0)
    for at, window in reference_windows(shape[1:-1], kernel.shape[:-2], strides, padding, dilation):
        part = padded[window]
        for c, f in _reference_groups(shape[-1], kernel.shape[-1], groups):
            part[..., c] += np.tensordot(g[(slice(None), *at, f)], kernel[..., f], ((1,), (kernel.ndim - 1,)))
        padded[window] = part
    inside = (slice(low, low + n) for (low, _), n in zip(padding, shape[1:-1], strict=True))
    return padded[(slice(None), *inside)]


def _kernel_grad_reference(
    x: np.ndarray, g: np.ndarray, shape: Sizes, strides: Sizes, padding: Any, dilation: Sizes, groups: int
) -> np.ndarray:
    padded, kernel = reference_pad(x, padding, 0.0), np.zeros(shape, g.dtype)
    for at, window in reference_windows(x.shape[1:-1], shape[:-2], strides, padding, dilation):
        for c, f in _reference_groups(x.shape[-1], shape[-1], groups):
            kernel[..., f] += np.tensordot(padded[window][..., c], g[(slice(None), *at, f)], ((0,), (0,)))
    return kernel


# ---- samples ----------------------------------------------------------------

# x, kernel, strides, padding, dilation, groups
_CASES: list[tuple[Any, ...]] = [
    ((2, 7, 3), (3, 3, 4), (2,), ((1, 2),), (1,), 1),
    ((2, 9, 2), (2, 1, 4), (1,), ((4, 0),), (3,), 2),
    ((2, 5, 6, 3), (3, 2, 3, 4), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((2, 5, 4, 2), (1, 1, 2, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((1, 6, 7, 4), (3, 3, 2, 6), (2, 3), ((1, 1), (0, 2)), (2, 1), 2),
    ((2, 4, 4, 3), (3, 3, 1, 3), (1, 2), ((1, 1), (0, 1)), (1, 1), 3),
    ((2, 7, 5, 2), (2, 2, 2, 2), (3, 3), ((0, 0), (0, 0)), (1, 1), 1),  # rows that no window sees
    ((1, 3, 4, 3, 2), (2, 2, 2, 2, 2), (1, 2, 1), ((1, 0), (0, 1), (0, 0)), (1, 1, 1), 1),
]


def _cases(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]]:
    for x, kernel, *rest in _CASES:
        attrs = dict(zip(("strides", "padding", "dilation", "groups"), rest, strict=True))
        y = _conv_shape(x, kernel, **attrs)
        yield rng.normal(size=x), rng.normal(size=kernel), rng.normal(size=y), attrs  # type: ignore[arg-type]


# ---- ops --------------------------------------------------------------------


def _prepare(strides: Any, padding: Any, dilation: Any, groups: int) -> dict[str, Any]:
    pairs = tuple(tuple(p) for p in padding)
    return {"strides": tuple(strides), "padding": pairs, "dilation": tuple(dilation), "groups": groups}


@primitive(
    infer=_conv_infer, vjp=_conv_vjp, reference=_conv_reference, promotes=0,
    cost=lambda x, k, **a: 2 * _conv_infer(x, k, **a).size * math.prod(k.shape[:-1]),
    samples=lambda rng: [Sample((x, k), a) for x, k, _, a in _cases(rng)],
)  # fmt: skip
def conv_(x: Any, kernel: Any, *, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int) -> Any:
    """Cross-correlation of x with a kernel: what deep learning calls convolution.

    Shapes: x ``(batch, *spatial, channels)``, kernel ``(*window, channels / groups, filters)`` -> ``(batch, *counts,
    filters)``; one entry of ``strides``, ``padding`` (pairs) and ``dilation`` per spatial axis.
    """
    attrs = _prepare(strides, padding, dilation, groups)
    _conv_shape(shape_of(x), shape_of(kernel), **attrs)
    return (x, kernel), attrs


@primitive(
    infer=_input_grad_infer, vjp=_input_grad_vjp, reference=_input_grad_reference, promotes=0,
    cost=lambda g, k, *, shape, **a: 2 * g.size * math.prod(k.shape[:-1]),
    samples=lambda rng: [Sample((g, k), {"shape": x.shape, **a}) for x, k, g, a in _cases(rng)],
)  # fmt: skip
def conv_input_grad(
    g: Any, kernel: Any, *, shape: Shape, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int
) -> Any:
    """The gradient of ``conv`` to its input of ``shape``, from the gradient g of its result: transposed convolution."""
    return (g, kernel), {"shape": tuple(shape), **_prepare(strides, padding, dilation, groups)}


@primitive(
    infer=_kernel_grad_infer, vjp=_kernel_grad_vjp, reference=_kernel_grad_reference, promotes=0,
    cost=lambda x, g, *, shape, **a: 2 * g.size * math.prod(shape[:-1]),
    samples=lambda rng: [Sample((x, g), {"shape": k.shape, **a}) for x, k, g, a in _cases(rng)],
)  # fmt: skip
def conv_kernel_grad(
    x: Any, g: Any, *, shape: Shape, strides: Sizes, padding: Pairs, dilation: Sizes, groups: int
) -> Any:
    """The gradient of ``conv`` to its kernel of ``shape``, from the gradient g of its result."""
    return (x, g), {"shape": tuple(shape), **_prepare(strides, padding, dilation, groups)}


def is_first(data_format: str | None) -> bool:
    """Whether the channels follow the batch; None stands for "channels_last"."""
    if data_format not in (None, "channels_last", "channels_first"):
        raise ShapeError(
            "unknown data_format", expected="'channels_last' or 'channels_first'", received=repr(data_format)
        )
    return data_format == "channels_first"


def turned(function: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
    """``function`` of x with the channels moved to the end, and those of its result back to where they were."""
    return ops.moveaxis(function(ops.moveaxis(x, 1, -1), *args, **kwargs), -1, 1)


@names_itself
def conv(
    inputs: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
    groups: int | None = None,
) -> Any:
    """Convolution (cross-correlation) with a kernel, over one, two or three spatial axes.

    Args:
        inputs: ``(batch, *spatial, channels)``.
        kernel: ``(*window, channels / groups, filters)``.
        strides: Steps between windows, one int or one per axis.
        padding: "valid", "same", "causal", an int, or per axis an int or a (low, high) pair; zeros are added.
        data_format: "channels_last" (also None), or "channels_first" for inputs and results ``(batch, channels,
            *spatial)``.
        dilation_rate: Distance of the kernel's elements in the input.
        groups: Channels and filters are cut into so many groups that do not see each other; None: as many as the
            kernel's shape says.

    Returns:
        ``(batch, *counts, filters)``; with "same", ``counts = ceil(spatial / strides)``.

    Raises:
        ShapeError: if kernel, channels, groups and sizes do not fit.

    Engines: PyTorch has no "same" with strides; here it is TensorFlow's, with the odd element at the end. On a GPU JAX
    rounds float32 operands unless told not to, as it is here.

    Example:
        >>> import numpy as np
        >>> x = np.arange(5.0).reshape(1, 5, 1)
        >>> ops.conv(x, np.ones((3, 1, 1)), padding="same").ravel()
        array([1., 3., 6., 9., 7.])
    """
    if is_first(data_format):
        return turned(conv, inputs, kernel, strides, padding, None, dilation_rate, groups)
    shape, sizes = shape_of(inputs), shape_of(kernel)
    if groups is None:
        groups = shape[-1] // sizes[-2] if isinstance(shape[-1], int) and isinstance(sizes[-2], int) else 1
        groups = max(groups, 1)
    spatial = len(shape) - 2
    steps, gaps = per_axis(strides, spatial, "strides"), per_axis(dilation_rate, spatial, "dilation_rate")
    if len(shape_of(kernel)) != spatial + 2 or spatial < 1:
        _conv_shape(shape, shape_of(kernel), strides=steps, padding=(), dilation=gaps, groups=groups)
    pairs = conv_padding(padding, shape[1:-1], shape_of(kernel)[:-2], steps, gaps)  # type: ignore[arg-type]
    return conv_(inputs, kernel, strides=steps, padding=pairs, dilation=gaps, groups=groups)


# ---- other convolutions, by the same ops ----------------------------------------


def _transpose_crop(padding: str, reach: int, stride: int, extra: int | None) -> tuple[int, int]:
    """What is cut from both ends of ``(size - 1) * stride + reach`` elements; below 0 for zeros that are added."""
    if padding == "valid":
        return 0, -(max(stride - reach, 0) if extra is None else extra)
    # "same": stride * size elements, or (size - 1) * stride + reach % 2 + extra.
    total = reach - stride if extra is None else reach - reach % 2 - extra
    low = max(total // 2, 0)
    return low, total - low


@names_itself
def conv_transpose(
    inputs: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    output_padding: int | Sequence[int] | None = None,
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
) -> Any:
    """Transposed convolution: spreads each element over a window, as ``conv`` gathers a window into one.

    It is the gradient of ``conv`` to its input; the sizes are Keras's.

    Args:
        inputs: ``(batch, *spatial, channels)``.
        kernel: ``(*window, filters, channels)``.
        strides: Steps between the windows in the result, one int or one per axis.
        padding: "valid" for ``(size - 1) * stride + max(reach, stride)`` elements, where ``reach = (window - 1) *
            dilation_rate + 1``, or "same" for ``size * stride``.
        output_padding: Further elements at the end, fewer than the stride: "valid" then has ``(size - 1) * stride +
            reach + output_padding`` elements, "same" ``(size - 1) * stride + reach % 2 + output_padding``.
        data_format: As of ``conv``.
        dilation_rate: Distance of the kernel's elements in the result.

    Returns:
        ``(batch, *sizes, filters)``.

    Raises:
        ShapeError: if kernel and channels do not fit, for another padding, or an ``output_padding`` as large as the
            stride.

    Engines: PyTorch cuts an equal padding from both ends and has no "same"; the sizes here are Keras's for every
    backend.

    Reference:
        Dumoulin, Visin, A guide to convolution arithmetic for deep learning, 2016, arXiv 1603.07285.

    Example:
        >>> import numpy as np
        >>> ops.conv_transpose(np.array([1.0, 10.0]).reshape(1, 2, 1), np.ones((3, 1, 1)), strides=2).ravel()
        array([ 1.,  1., 11., 10., 10.])
    """
    if is_first(data_format):
        return turned(conv_transpose, inputs, kernel, strides, padding, output_padding, None, dilation_rate)
    shape, window = shape_of(inputs), tuple(shape_of(kernel)[:-2])
    axes = len(shape) - 2
    steps, gaps = per_axis(strides, axes, "strides"), per_axis(dilation_rate, axes, "dilation_rate")
    extra = [output_padding] * axes if output_padding is None or isinstance(output_padding, int) else output_padding
    if padding not in ("valid", "same"):
        raise ShapeError("unknown padding", expected="'valid' or 'same'", received=repr(padding))
    if len(window) != axes or shape_of(kernel)[-1] != shape[-1]:
        raise ShapeError(
            "x and kernel do not fit", expected="x (batch, *spatial, channels) and kernel (*window, filters, "
            "channels)", received=f"{shape} and {shape_of(kernel)}",
        )  # fmt: skip
    if len(extra) != axes or any(e is not None and not 0 <= e < s for e, s in zip(extra, steps, strict=True)):
        raise ShapeError(
            "output_padding does not fit", expected=f"{axes} numbers from 0, below the strides {steps}",
            received=repr(output_padding),
        )  # fmt: skip
    reaches = extent(window, gaps)  # type: ignore[arg-type]
    crops = [_transpose_crop(padding, *axis) for axis in zip(reaches, steps, extra, strict=True)]
    sizes = [
        (size - 1) * step + reach - low - high
        for size, step, reach, (low, high) in zip(shape[1:-1], steps, reaches, crops, strict=True)
    ]
    return ops.conv_input_grad(
        inputs, kernel, shape=(shape[0], *sizes, shape_of(kernel)[-2]), strides=steps,
        padding=[(low, max(high, 0)) for low, high in crops], dilation=gaps, groups=1,
    )  # fmt: skip


def depthwise_conv(
    inputs: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
) -> Any:
    """Convolution of each channel by itself with kernels of its own: ``conv`` with a group per channel.

    Args:
        inputs: ``(batch, *spatial, channels)``.
        kernel: ``(*window, channels, multiplier)``.
        strides: As of ``conv``.
        padding: As of ``conv``.
        data_format: As of ``conv``.
        dilation_rate: As of ``conv``.

    Returns:
        ``(batch, *counts, channels * multiplier)``, the results of one channel side by side.

    Example:
        >>> import numpy as np
        >>> ops.depthwise_conv(np.ones((1, 4, 2)), np.array([[[1.0, 2.0], [3.0, 4.0]]]))[0, 0]
        array([1., 2., 3., 4.])
    """
    sizes: Any = shape_of(kernel)
    *window, channels, multiplier = sizes
    kernel = ops.reshape(kernel, (*window, 1, channels * multiplier))
    return ops.conv(inputs, kernel, strides, padding, data_format, dilation_rate, groups=channels)


def separable_conv(
    inputs: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
) -> Any:
    """``depthwise_conv``, then a convolution with windows of 1 that mixes the channels.

    Args:
        inputs: ``(batch, *spatial, channels)``.
        depthwise_kernel: ``(*window, channels, multiplier)``.
        pointwise_kernel: ``(1, ..., channels * multiplier, filters)``.
        strides: As of ``conv``.
        padding: As of ``conv``.
        data_format: As of ``conv``.
        dilation_rate: As of ``conv``.
    """
    y = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return ops.conv(y, pointwise_kernel, data_format=data_format)
