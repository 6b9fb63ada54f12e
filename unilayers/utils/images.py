"""Pictures in files, as Pillow's images and as arrays."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import DataError, UnilayersError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
GREY = ("L", "I;16", "I")  # grey with 8, 16 or 32 bits, which are kept
FILTERS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")


def pillow() -> Any:
    """The module ``PIL.Image``.

    Raises:
        UnilayersError: if Pillow is not installed, with the command that does it.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        fix = "Install it with: pip install 'unilayers[images]'"
        raise UnilayersError("pictures need the package 'pillow'", fix=fix) from None
    return Image


def load_img(
    path: str | bytes | PathLike[str] | IO[bytes],
    color_mode: Literal["grayscale", "rgb", "rgba"] = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> Image:
    """A picture from a file, as a Pillow image.

    Args:
        path: The file, by name or open.
        color_mode: "grayscale" (8 bits, or the 16 or 32 it has), "rgb" or "rgba".
        target_size: ``(height, width)`` to bring it to.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        keep_aspect_ratio: Whether to cut it at the sides rather than to distort it.

    Raises:
        DataError: if there is no such file, or none with a picture.
        UnilayersError: for an unknown ``color_mode`` or ``interpolation``, or without Pillow.
    """
    images = pillow()
    for name, word, valid in (("color_mode", color_mode, MODES), ("interpolation", interpolation, FILTERS)):
        if word not in valid:
            raise UnilayersError(f"unknown {name} {word!r}", where="load_img", fix=nearest(str(word), valid))
    source = path.decode() if isinstance(path, bytes) else path
    try:
        with images.open(source) as file:
            picture = file.convert(MODES[color_mode]) if color_mode != "grayscale" or file.mode not in GREY else file
            picture.load()
    except (OSError, images.DecompressionBombError) as error:
        raise DataError("no picture that can be read", where=str(source), received=str(error)) from None
    if target_size is None or picture.size == target_size[::-1]:
        return picture
    height, width = target_size
    box = None
    if keep_aspect_ratio:
        w, h = picture.size
        kept_w, kept_h = min(w, int(h * width / height)), min(h, int(w * height / width))
        left, top = int((w - kept_w) / 2), int((h - kept_h) / 2)
        box = (left, top, left + kept_w, top + kept_h)
    return picture.resize((width, height), images.Resampling[interpolation.upper()], box=box)


def img_to_array(img: Any, data_format: str | None = None, dtype: Any = None) -> np.ndarray:
    """A Pillow image as an array.

    Shapes: ``(height, width, channels)``, one channel for grey; with "channels_first" ``(channels, height, width)``.

    Args:
        img: The image.
        data_format: "channels_last" (also None) or "channels_first".
        dtype: The default float dtype if None.

    Raises:
        DataError: for an array that has other than two or three axes.
    """
    x = np.asarray(img, dtype=dtype or floatx())
    if x.ndim not in (2, 3):
        raise DataError("not a picture", where="img_to_array", expected="2 or 3 axes", received=f"shape {x.shape}")
    if _first(data_format, "img_to_array"):
        return x[None] if x.ndim == 2 else x.transpose(2, 0, 1)
    return x[..., None] if x.ndim == 2 else x


def array_to_img(x: Any, data_format: str | None = None, scale: bool = True, dtype: Any = None) -> Image:
    """An array as a Pillow image: grey, RGB or RGBA by its 1, 3 or 4 channels.

    Args:
        x: ``(height, width, channels)``, or with "channels_first" ``(channels, height, width)``.
        data_format: "channels_last" (also None) or "channels_first".
        scale: Whether to stretch the values to 0 to 255; else they are taken as they are.
        dtype: Of the computation; the default float dtype if None.

    Raises:
        DataError: for another number of axes or channels.
    """
    images = pillow()
    a = np.asarray(ops.to_numpy(x), dtype=dtype or floatx())
    if a.ndim == 3 and _first(data_format, "array_to_img"):
        a = a.transpose(1, 2, 0)
    if a.ndim != 3 or a.shape[2] not in (1, 3, 4):
        expected = "3 axes with 1, 3 or 4 channels"
        raise DataError("not a picture", where="array_to_img", expected=expected, received=f"shape {a.shape}")
    if scale:
        a = a - a.min()
        a = a / (a.max() or 1) * 255
    if a.shape[2] == 1:
        wide = a.max() > 255  # more than 8 bits hold
        return images.fromarray(a[..., 0].astype("int32" if wide else "uint8"))
    return images.fromarray(a.astype("uint8"))


def save_img(
    path: str | PathLike[str] | IO[bytes],
    x: Any,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **kwargs: Any,
) -> None:
    """Write an array as a picture.

    Args:
        path: The file; its suffix decides the format.
        x: See `array_to_img`.
        data_format: "channels_last" (also None) or "channels_first".
        file_format: "png", "jpeg"...; needed for an open file.
        scale: Whether to stretch the values to 0 to 255.
        **kwargs: For Pillow's ``save``: ``quality=95``.
    """
    picture = array_to_img(x, data_format, scale)
    suffix = file_format or ("" if isinstance(path, io.IOBase) else Path(path).suffix[1:])  # type: ignore[arg-type]
    if suffix.lower() in ("jpg", "jpeg"):
        suffix = "jpeg"
        picture = picture.convert("RGB") if picture.mode == "RGBA" else picture  # JPEG knows no transparency
    picture.save(path, format=suffix or None, **kwargs)


def smart_resize(
    x: Any, size: tuple[int, int], interpolation: str = "bilinear", data_format: str | None = None, **kwargs: Any
) -> Any:
    """Pictures brought to a size without distortion: what is too wide or too high is cut off at both sides.

    Shapes: x ``(height, width, channels)`` or ``(batch, height, width, channels)`` -> the same with the new size.

    Args:
        x: The pictures.
        size: ``(height, width)``.
        interpolation: "bilinear" or "nearest".
        data_format: "channels_last" (also None) or "channels_first".
        **kwargs: None is known; kept for Keras's signature.

    Example:
        >>> smart_resize(np.ones((4, 8, 3), "float32"), (2, 2)).shape
        (2, 2, 3)
    """
    from unilayers.layers import Resizing

    if kwargs:
        raise UnilayersError(f"unknown argument {next(iter(kwargs))!r}", where="smart_resize")
    return Resizing(*size, interpolation, crop_to_aspect_ratio=True, data_format=data_format)(x)  # type: ignore[arg-type]


def _first(data_format: str | None, where: str) -> bool:
    if data_format not in (None, "channels_last", "channels_first"):
        valid = ["channels_last", "channels_first"]
        raise UnilayersError(f"unknown data_format {data_format!r}", where=where, fix=nearest(str(data_format), valid))
    return data_format == "channels_first"
