"""Pictures: sizes, crops and parts, colours, blurring, and pixels taken from anywhere.

Pictures are ``(batch, height, width, channels)`` or, one alone, ``(height, width, channels)``; with
``data_format="channels_first"`` the channels come before the height.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.ops.conv import conv_padding, extent, is_first, per_axis
from unilayers.ops.special import floats
from unilayers.spec import is_float, public_shape

__all__ = [
    "affine_transform", "crop_images", "extract_patches", "extract_patches_3d", "gaussian_blur", "hsv_to_rgb",
    "map_coordinates", "pad_images", "perspective_transform", "resize", "rgb_to_grayscale", "rgb_to_hsv", "sobel_edges",
    "ssim",
]  # fmt: skip

Interpolation: TypeAlias = Literal["nearest", "bilinear"]
FillMode: TypeAlias = Literal["constant", "nearest", "reflect", "wrap"]
Format: TypeAlias = str | None

EXACT = "float32"  # places in a picture, unless its pixels are float64


def batched(images: Any, data_format: Format) -> tuple[Any, Callable[[Any], Any]]:
    """Pictures as a batch with the channels at the end, and a function that brings results back to how they came.

    Raises:
        ShapeError: if they have neither three nor four axes.
    """
    first, rank = is_first(data_format), len(ops.shape_of(images))
    if rank not in (3, 4):
        raise ShapeError(
            "not pictures", expected="(batch, height, width, channels) or (height, width, channels)",
            received=str(public_shape(ops.shape_of(images))),
        )  # fmt: skip
    x = ops.expand_dims(images, 0) if rank == 3 else images

    def restore(y: Any) -> Any:
        y = ops.moveaxis(y, -1, 1) if first else y
        return ops.squeeze(y, 0) if rank == 3 else y

    return ops.moveaxis(x, 1, -1) if first else x, restore


# ---- sampling -------------------------------------------------------------------------


def affine_transform(
    images: Any,
    transform: Any,
    interpolation: Interpolation = "bilinear",
    fill_mode: FillMode = "constant",
    fill_value: float = 0.0,
    data_format: Format = None,
) -> Any:
    """Pictures moved, turned and stretched: the pixel at ``(x, y)`` is taken from ``(a0 x + a1 y + a2, b0 x + b1 y +
    b2) / (c0 x + c1 y + 1)``, where x counts the columns.

    Args:
        images: The pictures.
        transform: a0, a1, a2, b0, b1, b2 and, unless they are 0, c0, c1: ``(8,)`` or ``(6,)`` for all pictures, or such
            a row for each.
        interpolation: "bilinear" between the four pixels around a place, or the "nearest" one.
        fill_mode: What is outside: "constant" the value, "nearest" the edge, "reflect" the picture mirrored with its
            edge repeated, "wrap" the other side.
        fill_value: The value for "constant".
        data_format: See the module.

    Returns:
        As the pictures.

    Example:
        >>> row = np.arange(4.0).reshape(1, 1, 4, 1)
        >>> affine_transform(row, np.array([[1.0, 0.0, -1.5, 0.0, 1.0, 0.0]]), fill_mode="nearest").ravel()
        array([0. , 0. , 0.5, 1.5])
    """
    images, restore = batched(images, data_format)
    images = floats(images)
    shape, exact = ops.shape_of(images), _exact(ops.dtype_of(images))
    transform = ops.astype(ops.convert_to_tensor(transform), exact)
    count: Any = ops.shape_of(transform)[-1]
    numbers: list[Any] = [ops.reshape(ops.getitem(transform, (..., i)), (-1, 1, 1)) for i in range(count)]
    y, x = (ops.astype(ops.arange(d, like=transform), exact) for d in shape[1:3])
    x, y = ops.reshape(x, (1, 1, shape[2])), ops.reshape(y, (1, shape[1], 1))

    def plane(a0: Any, a1: Any, a2: Any) -> Any:
        return ops.add(ops.add(ops.multiply(a0, x), ops.multiply(a1, y)), a2)

    columns, rows = plane(*numbers[:3]), plane(*numbers[3:6])
    if count == 8:
        depth = plane(numbers[6], numbers[7], 1.0)
        columns, rows = ops.divide(columns, depth), ops.divide(rows, depth)
    columns, rows = (ops.broadcast_to(places, shape[:3]) for places in (columns, rows))
    return restore(sample(images, rows, columns, interpolation, fill_mode, fill_value))


def sample(
    images: Any,
    rows: Any,
    columns: Any,
    interpolation: Interpolation = "bilinear",
    fill_mode: FillMode = "constant",
    fill_value: float = 0.0,
) -> Any:
    """Pixels of pictures at any places.

    Shapes: images ``(batch, height, width, channels)``, rows and columns ``(batch, h, w)`` -> ``(batch, h, w,
    channels)``.

    Args:
        images: The pictures; floats.
        rows: Where to look, counted in pixels from the centre of the first; float32 or float64.
        columns: Likewise.
        interpolation: See ``affine_transform``.
        fill_mode: See ``affine_transform``.
        fill_value: See ``affine_transform``.
    """
    batch, channels = ops.shape_of(images)[0], ops.shape_of(images)[-1]
    pixels = ops.reshape(images, (-1, channels))
    first = ops.multiply(ops.arange(batch, like=images), ops.size(images, (1, 2), "int32"))
    first = ops.reshape(first, (batch, 1, 1))
    total: Any = None
    for row, row_share in _neighbours(rows, interpolation):
        for column, column_share in _neighbours(columns, interpolation):
            y, inside_y = _held(row, ops.size(images, (1,), "int32"), fill_mode)
            x, inside_x = _held(column, ops.size(images, (2,), "int32"), fill_mode)
            at = ops.add(first, ops.add(ops.multiply(y, ops.size(images, (2,), "int32")), x))
            found = ops.take(pixels, at, 0)
            if fill_mode == "constant":
                found = ops.where(ops.expand_dims(ops.logical_and(inside_y, inside_x), -1), found, fill_value)
            if row_share is not None:
                share = ops.astype(ops.multiply(row_share, column_share), ops.dtype_of(images))
                found = ops.multiply(found, ops.expand_dims(share, -1))
            total = found if total is None else ops.add(total, found)
    return total


def _neighbours(places: Any, interpolation: str) -> list[tuple[Any, Any]]:
    """The pixels around places on one axis, and the share of each."""
    if interpolation == "nearest":
        return [(ops.astype(ops.round(places), "int32"), None)]
    below = ops.floor(places)
    share, index = ops.subtract(places, below), ops.astype(below, "int32")
    return [(index, ops.subtract(1.0, share)), (ops.add(index, 1), share)]


def _held(index: Any, size: Any, fill_mode: str) -> tuple[Any, Any]:
    """Indices brought into the picture, and which of them were in it."""
    if fill_mode == "wrap":
        return ops.remainder(index, size), None
    if fill_mode == "reflect":
        again = ops.remainder(index, ops.multiply(size, 2))
        return ops.minimum(again, ops.subtract(ops.subtract(ops.multiply(size, 2), 1), again)), None
    if fill_mode == "mirror":
        again = ops.remainder(index, ops.maximum(ops.multiply(ops.subtract(size, 1), 2), 1))
        return ops.minimum(again, ops.subtract(ops.multiply(ops.subtract(size, 1), 2), again)), None
    held = ops.minimum(ops.maximum(index, 0), ops.subtract(size, 1))
    return held, ops.equal(held, index)


# ---- sizes ---------------------------------------------------------------------------


def resize(
    images: Any,
    size: Sequence[int],
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: Format = None,
) -> Any:
    """Pictures of another size; the corners of the outermost pixels stay where they are.

    Args:
        images: The pictures.
        size: The new height and width.
        interpolation: "nearest", "bilinear", "bicubic", "lanczos3" or "lanczos5".
        antialias: Whether a smaller picture's pixel is an average over all that it covers.
        crop_to_aspect_ratio: Whether the largest part in the middle of the wanted shape is resized, so that nothing is
            distorted.
        pad_to_aspect_ratio: Whether as much is put around the pictures as gives them the wanted shape.
        fill_mode: What is put around: "constant".
        fill_value: Its value.
        data_format: See the module.

    Returns:
        The pictures, in their dtype; integers that are interpolated as floats.

    Raises:
        ShapeError: if the height or the width is not known.

    Engines: "nearest" takes the pixel at the corner in PyTorch, and the one at the centre in TensorFlow, in JAX and
    here. JAX averages by default where pictures become smaller; here ``antialias`` asks for it. PyTorch's cubic has a =
    -3/4; here it is -1/2, as in TensorFlow and JAX.

    Reference:
        Keys, Cubic convolution interpolation for digital image processing, 1981.

    Example:
        >>> resize(np.array([0.0, 4.0]).reshape(1, 1, 2, 1), (1, 4)).ravel()
        array([0., 1., 3., 4.])
    """
    known = ("nearest", *_KERNELS)
    if interpolation not in known or (crop_to_aspect_ratio and pad_to_aspect_ratio) or fill_mode != "constant":
        raise UnilayersError(
            "cannot resize so", where="ops.image.resize",
            expected=f"interpolation {', '.join(known)}; cropped or padded, not both; fill_mode 'constant'",
            received=f"interpolation={interpolation!r}, crop_to_aspect_ratio={crop_to_aspect_ratio}, "
            f"pad_to_aspect_ratio={pad_to_aspect_ratio}, fill_mode={fill_mode!r}",
        )  # fmt: skip
    images, restore = batched(images, data_format)
    if interpolation != "nearest":
        images = floats(images)
    if crop_to_aspect_ratio:
        images = crop_to_aspect(images, *size)
    if pad_to_aspect_ratio:
        images = pad_to_aspect(images, size[0], size[1], fill_value)
    dtype = ops.dtype_of(images)
    for axis, (have, wanted) in enumerate(zip(known_size(images), size, strict=True), 1):
        if have == wanted:
            continue
        if interpolation == "nearest":
            images = ops.take(images, (2 * np.arange(wanted) + 1) * have // (2 * wanted), axis)
        elif interpolation == "bilinear" and not (antialias and have > wanted):
            images = _between(images, axis, have, wanted)
        else:
            shares = _covered(have, wanted, *_KERNELS[interpolation], antialias).astype(_exact(dtype))
            images = ops.moveaxis(ops.tensordot(images, shares, ([axis], [1])), -1, axis)
    return restore(ops.astype(images, dtype))


def _exact(dtype: str) -> str:
    """What places and shares of pixels are computed in."""
    return "float64" if dtype == "float64" else EXACT


def _between(images: Any, axis: int, have: int, wanted: int) -> Any:
    """Values on the straight lines between neighbours along one axis."""
    places = np.clip((np.arange(wanted) + 0.5) * have / wanted - 0.5, 0, have - 1)
    below = np.floor(places).astype("int64")
    share = (places - below).reshape([-1 if a == axis else 1 for a in range(4)]).astype(_exact(ops.dtype_of(images)))
    lower, upper = ops.take(images, below, axis), ops.take(images, np.minimum(below + 1, have - 1), axis)
    return ops.add(ops.multiply(lower, 1 - share), ops.multiply(upper, share))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys's cubic with a = -1/2."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(reach: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.where(x < reach, np.sinc(x) * np.sinc(x / reach), 0)


# How much of an old pixel at a distance goes into a new one, and up to which distance.
_KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "bilinear": (lambda x: np.maximum(0, 1 - x), 1), "bicubic": (_cubic, 2),
    "lanczos3": (_lanczos(3), 3), "lanczos5": (_lanczos(5), 5),
}  # fmt: skip


def _covered(
    have: int, wanted: int, kernel: Callable[[np.ndarray], np.ndarray], reach: int, antialias: bool
) -> np.ndarray:
    """The share of each old pixel in each new one: ``(wanted, have)``. To average, the kernel is as much wider as the
    new pixels are."""
    scale = have / wanted
    width = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(wanted)[:, None] + 0.5) * scale
    shares = kernel(np.abs(np.arange(have)[None] + 0.5 - centres) / width)
    return np.asarray(shares / shares.sum(1, keepdims=True))


def crop(images: Any, top: Any, left: Any, height: int, width: int) -> Any:
    """A part of pictures ``(batch, height, width, channels)``; top and left are ints or scalars of a graph."""
    for axis, (start, size) in enumerate(((top, height), (left, width)), 1):
        if isinstance(start, int):
            images = ops.slice_axis(images, axis, start, start + size)
        else:
            images = ops.take(images, ops.add(ops.arange(size, like=images), start), axis)
    return images


def crop_to_aspect(images: Any, height: int, width: int) -> Any:
    """The largest part in the middle whose sides are as ``height`` to ``width``."""
    have_height, have_width = known_size(images)
    new_height = max(min(have_height, have_width * height // width), 1)
    new_width = max(min(have_width, have_height * width // height), 1)
    return crop(images, (have_height - new_height) // 2, (have_width - new_width) // 2, new_height, new_width)


def pad_to_aspect(images: Any, height: int, width: int, value: float) -> Any:
    """The pictures with as much around them as makes their sides as ``height`` to ``width``."""
    have_height, have_width = known_size(images)
    top = max(have_width * height // width - have_height, 0) // 2
    left = max(have_height * width // height - have_width, 0) // 2
    return ops.pad(images, [(0, 0), (top, top), (left, left), (0, 0)], constant_values=value)


def known_size(images: Any) -> tuple[int, int]:
    """The height and width, which must be known."""
    height, width = ops.shape_of(images)[1:3]
    if not (isinstance(height, int) and isinstance(width, int)):
        raise ShapeError(
            "the height and width of the pictures must be known", received=str(public_shape(ops.shape_of(images))),
            fix="Give them in Input(shape)",
        )  # fmt: skip
    return height, width


# ---- cropping and padding -------------------------------------------------------------


def _margins(
    size: Any, low: int | None, high: int | None, target: int | None, names: tuple[str, str, str], sign: int
) -> tuple[Any, Any]:
    """What is added (sign 1) or cut (-1) at both ends of an axis, of which two of three numbers are given."""
    if [low, high, target].count(None) != 1:
        raise ShapeError(
            "two of three numbers are needed", expected=", ".join(names), received=f"{low}, {high}, {target}"
        )
    if target is not None:
        rest = sign * (target - size)
        low, high = (rest - high, high) if low is None else (low, rest - low)
    if any(isinstance(n, int) and n < 0 for n in (low, high)):
        raise ShapeError("does not fit", expected=f"{', '.join(names)} not below 0", received=f"{low}, {high}")
    return low, high


def pad_images(
    images: Any, top_padding: int | None = None, left_padding: int | None = None, bottom_padding: int | None = None,
    right_padding: int | None = None, target_height: int | None = None, target_width: int | None = None,
    data_format: Format = None,
) -> Any:  # fmt: skip
    """Pictures with zeros around them.

    Args:
        images: The pictures.
        top_padding: Rows above. Of this, ``bottom_padding`` and ``target_height`` two are to be given.
        left_padding: Columns on the left. Of this, ``right_padding`` and ``target_width`` two are to be given.
        bottom_padding: Rows below.
        right_padding: Columns on the right.
        target_height: The new height.
        target_width: The new width.
        data_format: See the module.

    Raises:
        ShapeError: if the numbers do not fit.

    Example:
        >>> pad_images(np.ones((2, 2, 1)), 1, 0, target_height=4, target_width=3)[..., 0]
        array([[0., 0., 0.],
               [1., 1., 0.],
               [1., 1., 0.],
               [0., 0., 0.]])
    """
    x, restore = batched(images, data_format)
    height, width = ops.shape_of(x)[1:3]
    rows = _margins(height, top_padding, bottom_padding, target_height, _NAMES[0], 1)
    columns = _margins(width, left_padding, right_padding, target_width, _NAMES[1], 1)
    return restore(ops.pad(x, [(0, 0), rows, columns, (0, 0)]))


_NAMES = tuple((f"{low}_*", f"{high}_*", f"target_{size}") for low, high, size in (
    ("top", "bottom", "height"), ("left", "right", "width"),
))  # fmt: skip


def crop_images(
    images: Any, top_cropping: int | None = None, left_cropping: int | None = None, bottom_cropping: int | None = None,
    right_cropping: int | None = None, target_height: int | None = None, target_width: int | None = None,
    data_format: Format = None,
) -> Any:  # fmt: skip
    """Pictures without what is at their edges. Arguments as of ``pad_images``, with what is cut off."""
    x, restore = batched(images, data_format)
    height, width = ops.shape_of(x)[1:3]
    top, bottom = _margins(height, top_cropping, bottom_cropping, target_height, _NAMES[0], -1)
    left, right = _margins(width, left_cropping, right_cropping, target_width, _NAMES[1], -1)
    x = ops.slice_axis(x, 1, top, height - bottom)
    return restore(ops.slice_axis(x, 2, left, width - right))


# ---- patches -----------------------------------------------------------------------------


def _patches(x: Any, size: Any, strides: Any, dilation_rate: Any, padding: str) -> Any:
    spatial: Any = ops.shape_of(x)[1:-1]
    rank = len(spatial)
    window, gaps = per_axis(size, rank, "size"), per_axis(dilation_rate, rank, "dilation_rate")
    steps = window if strides is None else per_axis(strides, rank, "strides")
    if any(not isinstance(d, int) for d in spatial):
        raise ShapeError("the sizes of the pictures must be known", received=str(public_shape(ops.shape_of(x))))
    pairs = conv_padding(padding, spatial, window, steps, gaps)
    x = ops.pad(x, [(0, 0), *pairs, (0, 0)])
    sizes: Any = ops.shape_of(x)[1:-1]
    for axis, (n, k, step, gap) in enumerate(zip(sizes, window, steps, gaps, strict=True)):
        starts = np.arange(0, n - extent((k,), (gap,))[0] + 1, step)
        x = ops.take(x, (starts[:, None] + np.arange(k) * gap).astype(np.int32), 1 + 2 * axis)
    order = [0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1]
    x = ops.permute_dims(x, order)
    shape: Any = ops.shape_of(x)
    return ops.reshape(x, (*shape[: rank + 1], math.prod(shape[rank + 1 :])))


def extract_patches(
    images: Any, size: int | Sequence[int], strides: int | Sequence[int] | None = None,
    dilation_rate: int | Sequence[int] = 1, padding: str = "valid", data_format: Format = None,
) -> Any:  # fmt: skip
    """Parts of pictures, each as one row of numbers.

    Args:
        images: The pictures.
        size: Height and width of the parts, or one number for both.
        strides: Steps between them; None: their size, so that they touch.
        dilation_rate: Distance of the pixels of a part.
        padding: "valid" or "same", as of ``ops.conv``.
        data_format: See the module.

    Returns:
        ``(batch, rows, columns, height * width * channels)``.

    Example:
        >>> extract_patches(np.arange(8.0).reshape(2, 4, 1), 2)
        array([[[0., 1., 4., 5.],
                [2., 3., 6., 7.]]])
    """
    x, restore = batched(images, data_format)
    return restore(_patches(x, size, strides, dilation_rate, padding))


def extract_patches_3d(
    volumes: Any, size: int | Sequence[int], strides: int | Sequence[int] | None = None,
    dilation_rate: int | Sequence[int] = 1, padding: str = "valid", data_format: Format = None,
) -> Any:  # fmt: skip
    """Parts of volumes ``(batch, depth, height, width, channels)``, or of one of them; see ``extract_patches``."""
    single, first = len(ops.shape_of(volumes)) == 4, is_first(data_format)
    x = ops.expand_dims(volumes, 0) if single else volumes
    y = _patches(ops.moveaxis(x, 1, -1) if first else x, size, strides, dilation_rate, padding)
    y = ops.moveaxis(y, -1, 1) if first else y
    return ops.squeeze(y, 0) if single else y


# ---- colours -------------------------------------------------------------------------------


def _channels(images: Any, data_format: Format) -> tuple[list[Any], int]:
    """The three colours, and the axis along which they were."""
    axis, shape = -3 if is_first(data_format) else -1, ops.shape_of(images)
    if shape[axis] != 3:
        raise ShapeError("not three colours", expected=f"3 on axis {axis}", received=str(public_shape(shape)))
    return ops.unstack(images, axis=len(shape) + axis), axis


def rgb_to_grayscale(images: Any, data_format: Format = None) -> Any:
    """How bright colours look: ``0.2989 red + 0.587 green + 0.114 blue``, as one channel (ITU-R BT.601)."""
    dtype = ops.dtype_of(images)
    colours, axis = _channels(floats(images), data_format)
    red, green, blue = (ops.multiply(c, w) for c, w in zip(colours, (0.2989, 0.587, 0.114), strict=True))
    return ops.astype(ops.expand_dims(ops.add(ops.add(red, green), blue), axis), dtype)


def rgb_to_hsv(images: Any, data_format: Format = None) -> Any:
    """Red, green and blue as hue, saturation and value, all from 0 to 1.

    Reference: Smith, Color gamut transform pairs, 1978.

    Example:
        >>> rgb_to_hsv(np.array([0.0, 1.0, 0.0]).reshape(1, 1, 3)).ravel().round(4)
        array([0.3333, 1.    , 1.    ])
    """
    (red, green, blue), axis = _channels(floats(images), data_format)
    value = ops.maximum(ops.maximum(red, green), blue)
    spread = ops.subtract(value, ops.minimum(ops.minimum(red, green), blue))
    grey, black = ops.equal(spread, 0), ops.equal(value, 0)
    width = ops.where(grey, 1.0, spread)
    after_red = ops.divide(ops.subtract(green, blue), width)
    after_green = ops.add(ops.divide(ops.subtract(blue, red), width), 2.0)
    after_blue = ops.add(ops.divide(ops.subtract(red, green), width), 4.0)
    sixths = ops.where(ops.equal(value, red), after_red, ops.where(ops.equal(value, green), after_green, after_blue))
    hue = ops.remainder(ops.divide(ops.where(grey, 0.0, sixths), 6.0), 1.0)
    saturation = ops.where(black, 0.0, ops.divide(spread, ops.where(black, 1.0, value)))
    return ops.stack([hue, saturation, value], axis)


def hsv_to_rgb(images: Any, data_format: Format = None) -> Any:
    """Hue, saturation and value, all from 0 to 1, as red, green and blue: undoes ``rgb_to_hsv``.

    Example:
        >>> hsv_to_rgb(np.array([0.5, 1.0, 1.0]).reshape(1, 1, 3)).ravel()
        array([0., 1., 1.])
    """
    (hue, saturation, value), axis = _channels(floats(images), data_format)

    def colour(shift: float) -> Any:
        """1 for a third of the circle, 0 for the opposite third, straight lines between."""
        sixths = ops.remainder(ops.add(ops.multiply(hue, 6.0), shift), 6.0)
        share = ops.clip(ops.minimum(sixths, ops.subtract(4.0, sixths)), 0.0, 1.0)
        return ops.multiply(value, ops.subtract(1.0, ops.multiply(saturation, share)))

    return ops.stack([colour(5.0), colour(3.0), colour(1.0)], axis)


# ---- blurring, edges, likeness ------------------------------------------------------------------


def _filtered(x: Any, kernels: Sequence[np.ndarray], padding: str = "same") -> Any:
    """Each channel filtered along the rows by one row of weights, along the columns by the other."""
    channels: Any = ops.shape_of(x)[-1]
    for axis, weights in enumerate(kernels):
        kernel = np.reshape(weights, (-1, 1) if axis == 0 else (1, -1))[:, :, None, None]
        kernel = np.repeat(kernel, channels, 2).astype(ops.dtype_of(x))
        x = ops.depthwise_conv(x, kernel, padding=padding)
    return x


def _bell(size: int, sigma: float) -> np.ndarray:
    """A normal distribution on so many pixels, its sum 1."""
    weights = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def gaussian_blur(
    images: Any, kernel_size: Sequence[int] = (3, 3), sigma: Sequence[float] = (1.0, 1.0), data_format: Format = None
) -> Any:
    """Each pixel as an average of its neighbours, weighted by a normal distribution; zeros lie around the pictures.

    Args:
        images: The pictures.
        kernel_size: Over how many rows and columns.
        sigma: The standard deviations along both, in pixels.
        data_format: See the module.
    """
    x, restore = batched(images, data_format)
    return restore(_filtered(floats(x), [_bell(k, s) for k, s in zip(kernel_size, sigma, strict=True)]))


def sobel_edges(images: Any, data_format: Format = None) -> Any:
    """How pixels change down and to the right: ``(batch, height, width, channels, 2)``; zeros lie around the pictures.

    Reference: Sobel, Feldman, A 3x3 isotropic gradient operator for image processing, 1968.
    """
    x, _ = batched(images, data_format)
    x = ops.pad(floats(x), [(0, 0), (1, 1), (1, 1), (0, 0)])
    smooth, slope = np.array([1.0, 2.0, 1.0]), np.array([-1.0, 0.0, 1.0])
    y = ops.stack([_filtered(x, pair, "valid") for pair in ((slope, smooth), (smooth, slope))], -1)
    y = ops.moveaxis(y, 3, 1) if is_first(data_format) else y
    return ops.squeeze(y, 0) if len(ops.shape_of(images)) == 3 else y


def ssim(
    image1: Any, image2: Any, max_val: float = 1.0, filter_size: int = 11, filter_sigma: float = 1.5, k1: float = 0.01,
    k2: float = 0.03, data_format: Format = None,
) -> Any:  # fmt: skip
    """The structural similarity of pictures, 1 for equal ones: the mean over windows and channels.

    Args:
        image1: Pictures.
        image2: Pictures of the same shape.
        max_val: The range of the pixels.
        filter_size: Height and width of the windows, weighted by a normal distribution.
        filter_sigma: Its standard deviation.
        k1: Keeps the comparison of means from dividing by 0.
        k2: Keeps the comparison of variances from dividing by 0.
        data_format: See the module.

    Returns:
        A number for each picture.

    Reference:
        Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to structural similarity, 2004.
    """
    a, b = (floats(batched(x, data_format)[0]) for x in (image1, image2))
    bell = [_bell(filter_size, filter_sigma)] * 2

    def mean(x: Any) -> Any:
        return _filtered(x, bell, "valid")

    c1, c2 = (k1 * max_val) ** 2, (k2 * max_val) ** 2
    mean_a, mean_b = mean(a), mean(b)
    product, squares = mean_a * mean_b, ops.square(mean_a) + ops.square(mean_b)
    covariance = mean(a * b) - product
    variances = mean(ops.square(a) + ops.square(b)) - squares
    likeness = (product * 2.0 + c1) / (squares + c1) * ((covariance * 2.0 + c2) / (variances + c2))
    y = ops.mean(likeness, (1, 2, 3))
    return ops.squeeze(y, 0) if len(ops.shape_of(image1)) == 3 else y


# ---- pixels from anywhere ---------------------------------------------------------------------------


def perspective_transform(
    images: Any, start_points: Any, end_points: Any, interpolation: Interpolation = "bilinear", fill_value: float = 0,
    data_format: Format = None,
) -> Any:  # fmt: skip
    """Pictures seen from another side: four points of them come to lie at four others.

    Args:
        images: The pictures.
        start_points: Four points ``(x, y)`` of the pictures: ``(4, 2)``, or ``(batch, 4, 2)``.
        end_points: Where they are in the result.
        interpolation: As of ``affine_transform``.
        fill_value: What is outside of the pictures.
        data_format: See the module.
    """
    exact = _exact(ops.dtype_of(images))
    points = (ops.astype(ops.convert_to_tensor(p), exact) for p in (start_points, end_points))
    start, end = (ops.reshape(p, (-1, 4, 2)) for p in points)
    x, y = (ops.getitem(end, (..., slice(i, i + 1))) for i in (0, 1))
    zero, one = ops.zeros_like(x), ops.ones_like(x)
    rows = []
    for axis in (0, 1):  # an equation for each coordinate of each point: what is sought are the eight numbers
        wanted = ops.getitem(start, (..., slice(axis, axis + 1)))
        own, other = [x, y, one], [zero, zero, zero]
        sides = [*own, *other] if axis == 0 else [*other, *own]
        rows.append(ops.concat([*sides, ops.negative(x * wanted), ops.negative(y * wanted)], -1))
    right = ops.concat([ops.getitem(start, (..., axis)) for axis in (0, 1)], -1)
    transform = ops.solve(ops.concat(rows, -2), right)
    return affine_transform(images, transform, interpolation, "constant", fill_value, data_format)


def map_coordinates(
    inputs: Any, coordinates: Any, order: int, fill_mode: str = "constant", fill_value: float = 0
) -> Any:
    """Elements of an array at places between its elements.

    Args:
        inputs: Any array.
        coordinates: ``(axes, ...)``: the places, one row per axis of the inputs.
        order: 0 for the nearest element, 1 for straight lines between neighbours.
        fill_mode: What is outside: as of ``affine_transform``, or "mirror" as "reflect" without the edge repeated.
        fill_value: The value for "constant".

    Returns:
        An array of the shape that ``coordinates`` have behind their first axis.

    Example:
        >>> map_coordinates(np.array([0.0, 10.0, 20.0]), np.array([[0.5, 1.25, 3.0]]), 1, "nearest")
        array([ 5. , 12.5, 20. ])
    """
    shape: Any = ops.shape_of(inputs)
    places = list(coordinates) if isinstance(coordinates, (list, tuple)) else ops.unstack(coordinates, len(shape))
    modes = ("constant", "nearest", "reflect", "wrap", "mirror")
    if order not in (0, 1) or fill_mode not in modes or len(places) != len(shape):
        raise UnilayersError(
            "cannot look there", where="ops.image.map_coordinates",
            expected=f"order 0 or 1, {len(shape)} rows of coordinates, and a fill_mode {', '.join(modes)}",
            received=f"order {order!r}, {len(places)} rows, fill_mode {fill_mode!r}",
        )  # fmt: skip
    sizes = [d if isinstance(d, int) else ops.size_value(value=d, dtype="int32") for d in shape]
    flat, total = ops.reshape(inputs, (-1,)), None
    neighbours = [_neighbours(floats(p), "bilinear" if order else "nearest") for p in places]
    for corner in itertools.product(*neighbours):
        at: Any = 0
        inside: list[Any] = []
        for axis, (index, _) in enumerate(corner):
            held, within = _held(index, sizes[axis], fill_mode)
            at = ops.add(ops.multiply(at, sizes[axis]), held)
            inside.append(within)
        found = ops.take(flat, at, 0)
        if fill_mode == "constant":
            found = ops.where(_all(inside), found, fill_value)
        for _, share in corner:
            if share is not None:
                found = floats(found)
                found = ops.multiply(found, ops.astype(share, ops.dtype_of(found)))
        total = found if total is None else ops.add(total, found)
    return total if is_float(ops.dtype_of(inputs)) else ops.astype(total, ops.dtype_of(inputs))


def _all(conditions: Sequence[Any]) -> Any:
    y = conditions[0]
    for condition in conditions[1:]:
        y = ops.logical_and(y, condition)
    return y
