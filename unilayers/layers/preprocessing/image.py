"""Preprocessing of pictures: sizes and crops, and random changes in training, the same on every backend.

What is random follows from the seed, the layer's path and how often the layer was called in training. Pictures are
``(batch, height, width, channels)`` or, one alone, ``(height, width, channels)``; with "channels_first" the channels
come before the height.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any, Literal, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import Value
from unilayers.hints import PositiveInt
from unilayers.layers.base import Layer, current_phase
from unilayers.layers.spatial import DataFormat
from unilayers.ops.image import (
    EXACT,
    FillMode,
    Interpolation,
    affine_transform,
    crop,
    crop_to_aspect,
    known_size,
    pad_to_aspect,
    resize,
)
from unilayers.random import Seed
from unilayers.spec import INTS, public_shape
from unilayers.structure import leaves_of
from unilayers.variable import current_trace

Factor: TypeAlias = float | tuple[float, float]

# ---- layers that change the size --------------------------------------------------------


class ImageLayer(Layer, abstract=True):
    """Base of layers on one picture or a batch, whose subclass declares ``data_format`` and computes ``changed(x,
    training)`` for x ``(batch, height, width, channels)``.

    A layer may be called with ``{"images": x, "labels": y}`` too: then it gives a dict with the pictures changed.
    """

    def check_input(self, x: Any) -> None:
        if isinstance(x, Mapping):
            if "images" not in x or not x.keys() <= {"images", "labels"}:
                raise UnilayersError(
                    "not pictures with their labels", expected="the keys images and labels", received=", ".join(x),
                    fix="Boxes and masks of parts of a picture are not supported",
                )  # fmt: skip
            x = x["images"]
        if len(ops.shape_of(x)) not in (3, 4):
            raise ShapeError(
                "not pictures", expected="3 axes, or 4 with the batch", received=str(public_shape(ops.shape_of(x)))
            )

    def changed(self, x: Any, training: bool) -> Any:
        """The output for a batch of pictures with the channels last."""
        raise NotImplementedError

    def call(self, x: Any, training: bool = False) -> Any:
        if isinstance(x, Mapping):
            return {**x, "images": self.call(x["images"], training)}
        return self.on_batch(x, lambda images: self.changed(images, training))

    def on_batch(self: Any, x: Any, change: Callable[[Any], Any]) -> Any:
        """What a function of a batch of pictures with the channels last makes of x."""
        single, first = len(ops.shape_of(x)) == 3, self.data_format == "channels_first"
        x = ops.expand_dims(x, 0) if single else x
        x = ops.moveaxis(x, 1, -1) if first else x
        y = change(x)
        y = ops.moveaxis(y, -1, 1) if first else y
        return ops.squeeze(y, 0) if single else y


class Resizing(ImageLayer):
    """Pictures of another size. Integers stay integers of their dtype, rounded.

    Shapes: x ``(batch, height, width, channels)`` -> the same with the new height and width; one picture likewise.

    Args:
        height: The new height.
        width: The new width.
        interpolation: "bilinear" or "nearest".
        crop_to_aspect_ratio: Whether to cut pictures of another shape at the sides instead of distorting them.
        pad_to_aspect_ratio: Whether to fill them up at the sides instead.
        fill_mode: With what: only "constant".
        fill_value: The constant.
        antialias: Whether "bilinear" averages over all that a smaller picture's pixel covers.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        UnilayersError: if both crop_to_aspect_ratio and pad_to_aspect_ratio are set.
        ShapeError: if x has another number of axes, or its height or width is not known.

    Example:
        >>> Resizing(1, 4)(np.array([[[0.0], [4.0]]], "float32")).ravel()
        array([0., 1., 3., 4.], dtype=float32)
    """

    height: PositiveInt
    width: PositiveInt
    interpolation: Interpolation = "bilinear"
    crop_to_aspect_ratio: bool = False
    pad_to_aspect_ratio: bool = False
    fill_mode: Literal["constant"] = "constant"
    fill_value: float = 0.0
    antialias: bool = False
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise UnilayersError("crop_to_aspect_ratio and pad_to_aspect_ratio are both set", where="Resizing")

    def changed(self, x: Any, training: bool) -> Any:
        dtype, size = ops.dtype_of(x), (self.height, self.width)
        y = ops.astype(x, self.compute_dtype)
        if self.crop_to_aspect_ratio:
            y = crop_to_aspect(y, *size)
        elif self.pad_to_aspect_ratio:
            y = pad_to_aspect(y, *size, self.fill_value)
        y = resize(y, size, self.interpolation, self.antialias)
        if dtype not in INTS:
            return y
        limits = np.iinfo(dtype)
        return ops.astype(ops.clip(ops.round(y), minimum=float(limits.min), maximum=float(limits.max)), dtype)


class CenterCrop(ImageLayer):
    """The middle of pictures; of smaller ones, the largest part of the wanted shape, resized.

    Shapes: x ``(batch, height, width, channels)`` -> the same with the new height and width, floats; one picture
    likewise.

    Args:
        height: The new height.
        width: The new width.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes, or its height or width is not known.

    Example:
        >>> CenterCrop(1, 2)(np.arange(4.0).reshape(1, 4, 1)).ravel()
        array([1., 2.], dtype=float32)
    """

    height: PositiveInt
    width: PositiveInt
    data_format: DataFormat = None

    def changed(self, x: Any, training: bool) -> Any:
        return center_crop(ops.astype(x, self.compute_dtype), self.height, self.width)


def center_crop(images: Any, height: int, width: int) -> Any:
    """The middle of pictures; of smaller ones, the largest part of the wanted shape, resized."""
    have_height, have_width = known_size(images)
    if have_height >= height and have_width >= width:
        return crop(images, (have_height - height) // 2, (have_width - width) // 2, height, width)
    return resize(crop_to_aspect(images, height, width), (height, width))


# ---- random layers ----------------------------------------------------------------------


class OnData(Layer, abstract=True):
    """Base of layers that work in training only, but, as in Keras, also where they are called by themselves, not in a
    model, and not told ``training``: that is how they are used on data."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("training") is None and current_phase() is None:
            symbolic = any(isinstance(x, Value) for x in leaves_of([list(args), kwargs]))
            if current_trace() is not None or not symbolic:
                kwargs["training"] = True
        return super().__call__(*args, **kwargs)


class RandomImageLayer(OnData, ImageLayer, abstract=True):
    """Base of layers that change pictures at random in training. The subclass declares the field ``seed``."""

    def build(self, input_shape: Any) -> None:
        self.random_counter()

    def changed(self, x: Any, training: bool) -> Any:
        x = ops.astype(x, self.compute_dtype)
        return self.disturbed(x) if training else self.undisturbed(x)

    def undisturbed(self, x: Any) -> Any:
        """The output in inference."""
        return x

    def disturbed(self, x: Any) -> Any:
        """The output in training."""
        raise NotImplementedError

    def uniform(self: Any, number: int, count: Any) -> list[Any]:
        """``number`` arrays of ``count`` random numbers from [0, 1), float32."""
        counter, key = self.next_random(self.seed)
        drawn = ops.random_uniform(counter, key=key, shape=(number, count), dtype=EXACT)
        return [ops.getitem(drawn, i) for i in range(number)]


def bounds_of(factor: Factor, low: float, high: float, where: str, *, open_low: bool = False) -> tuple[float, float]:
    """The least and the largest value that a factor stands for: of one number both signs."""
    least, most = sorted(factor) if isinstance(factor, Sequence) else (-abs(factor), abs(factor))
    given = factor if isinstance(factor, Sequence) else (factor,)
    if any(not low <= f <= high or (open_low and f == low) for f in given):
        raise UnilayersError(
            "a value that does not fit", where=where,
            expected=f"numbers {'above' if open_low else 'from'} {low:g} to {high:g}", received=repr(factor),
        )  # fmt: skip
    return float(least), float(most)


def share_bounds(factor: Factor, where: str) -> tuple[float, float]:
    """The least and the largest value that a factor from 0 to 1 stands for: of one number, from 0 to it."""
    return bounds_of(factor if isinstance(factor, Sequence) else (0.0, factor), 0.0, 1.0, where)


def within(u: Any, bounds: tuple[float, float]) -> Any:
    """Random numbers from [0, 1) as numbers between bounds."""
    return ops.add(ops.multiply(u, bounds[1] - bounds[0]), bounds[0])


def per_picture(values: Any, x: Any) -> Any:
    """A number for each picture, in the pictures' dtype, as an array that broadcasts to them."""
    return ops.reshape(ops.astype(values, ops.dtype_of(x)), (ops.shape_of(x)[0], 1, 1, 1))


class RandomFlip(RandomImageLayer):
    """In training, each picture is mirrored with probability 1/2; in both directions independently of each other.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        mode: "horizontal" (left and right change), "vertical" (top and bottom), or "horizontal_and_vertical".
        seed: Seed of the choices; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> x = np.arange(3.0, dtype="float32").reshape(1, 3, 1)
        >>> layer = RandomFlip("horizontal")
        >>> {tuple(layer(x).ravel().tolist()) for _ in range(20)} == {(0.0, 1.0, 2.0), (2.0, 1.0, 0.0)}
        True
    """

    mode: Literal["horizontal", "vertical", "horizontal_and_vertical"] = "horizontal_and_vertical"
    seed: Seed = None
    data_format: DataFormat = None

    def disturbed(self, x: Any) -> Any:
        draws = self.uniform(2, ops.shape_of(x)[0])
        for name, axis, u in zip(("vertical", "horizontal"), (1, 2), draws, strict=True):
            if name in self.mode:
                turned = ops.reshape(ops.less(u, 0.5), (ops.shape_of(x)[0], 1, 1, 1))
                x = ops.where(turned, ops.flip(x, axis), x)
        return x


class AffineLayer(RandomImageLayer, abstract=True):
    """Base of layers that move pixels by a random matrix for each picture.

    The subclass declares the fields ``interpolation``, ``fill_mode`` and ``fill_value``.
    """

    def matrix(self, x: Any) -> Sequence[Any]:
        """The six numbers of ``affine_transform``, each a scalar or one per picture."""
        raise NotImplementedError

    def disturbed(self: Any, x: Any) -> Any:
        count = ops.shape_of(x)[0]
        entries = self.matrix(x)
        some = next(e for e in entries if ops.shape_of(e))
        whole = [e if ops.shape_of(e) else ops.full_like(some, e) for e in entries]
        matrix = ops.concat([ops.reshape(e, (count, 1)) for e in whole], 1)
        return affine_transform(x, matrix, self.interpolation, self.fill_mode, self.fill_value)


def _last(x: Any, axis: int) -> Any:
    """The index of the last pixel along an axis, as a float."""
    size = ops.size(x, (axis,), EXACT)
    return float(size - 1) if isinstance(size, int) else ops.subtract(size, 1.0)


class RandomRotation(AffineLayer):
    """In training, each picture is turned around its centre by a random angle.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        factor: The angles, as shares of a full turn, from -1 to 1: between two bounds, or one number and its negative.
            Positive angles turn counter-clockwise.
        fill_mode: What comes in from outside: "reflect" the picture mirrored with its edge repeated, "constant" the
            fill value, "nearest" the edge, "wrap" the other side.
        interpolation: "bilinear" or "nearest".
        seed: Seed of the angles; the model's if None.
        fill_value: The value for "constant".
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> x = np.arange(4.0, dtype="float32").reshape(2, 2, 1)
        >>> RandomRotation((0.25, 0.25))(x)[..., 0].round(3)
        array([[1., 3.],
               [0., 2.]], dtype=float32)
    """

    factor: Factor
    fill_mode: FillMode = "reflect"
    interpolation: Interpolation = "bilinear"
    seed: Seed = None
    fill_value: float = 0.0
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        self._bounds = bounds_of(self.factor, -1.0, 1.0, "RandomRotation.factor")

    def matrix(self, x: Any) -> Sequence[Any]:
        [u] = self.uniform(1, ops.shape_of(x)[0])
        angle = ops.multiply(within(u, self._bounds), 2 * math.pi)
        c, s = ops.cos(angle), ops.sin(angle)
        middle_x, middle_y = (ops.multiply(_last(x, axis), 0.5) for axis in (2, 1))
        # The centre stays where it is.
        a2 = ops.subtract(middle_x, ops.subtract(ops.multiply(c, middle_x), ops.multiply(s, middle_y)))
        b2 = ops.subtract(middle_y, ops.add(ops.multiply(s, middle_x), ops.multiply(c, middle_y)))
        return c, ops.negative(s), a2, s, c, b2


class RandomZoom(AffineLayer):
    """In training, each picture is made larger or smaller around its centre by a random factor.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        height_factor: What the height that is seen grows by, as a share above -1 and up to 1: between two bounds, or
            one number and its negative. Positive zooms out, negative in.
        width_factor: The same for the width; None: as the height, so that shapes stay.
        fill_mode: What comes in from outside: "reflect" the picture mirrored with its edge repeated, "constant" the
            fill value, "nearest" the edge, "wrap" the other side.
        interpolation: "bilinear" or "nearest".
        seed: Seed of the factors; the model's if None.
        fill_value: The value for "constant".
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> x = np.arange(5.0, dtype="float32").reshape(1, 5, 1)
        >>> RandomZoom((-0.5, -0.5))(x).ravel()
        array([1. , 1.5, 2. , 2.5, 3. ], dtype=float32)
    """

    height_factor: Factor
    width_factor: Factor | None = None
    fill_mode: FillMode = "reflect"
    interpolation: Interpolation = "bilinear"
    seed: Seed = None
    fill_value: float = 0.0
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        given = {"height_factor": self.height_factor, "width_factor": self.width_factor}
        self._bounds = [
            bounds_of(f, -1.0, 1.0, f"RandomZoom.{name}", open_low=True) for name, f in given.items() if f is not None
        ]

    def matrix(self, x: Any) -> Sequence[Any]:
        draws = self.uniform(len(self._bounds), ops.shape_of(x)[0])
        zooms = [ops.add(within(u, b), 1.0) for u, b in zip(draws, self._bounds, strict=True)]
        height, width = zooms[0], zooms[-1]
        shifts = [
            ops.multiply(ops.subtract(1.0, zoom), ops.multiply(_last(x, axis), 0.5))
            for zoom, axis in ((width, 2), (height, 1))
        ]
        return width, 0.0, shifts[0], 0.0, height, shifts[1]


class RandomTranslation(AffineLayer):
    """In training, each picture is moved by a random distance in both directions.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        height_factor: How far down, as a share of the height from -1 to 1: between two bounds, or one number and its
            negative.
        width_factor: How far to the right, as a share of the width, likewise.
        fill_mode: What comes in from outside: "reflect" the picture mirrored with its edge repeated, "constant" the
            fill value, "nearest" the edge, "wrap" the other side.
        interpolation: "bilinear" or "nearest".
        seed: Seed of the distances; the model's if None.
        fill_value: The value for "constant".
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> x = np.arange(4.0, dtype="float32").reshape(1, 4, 1)
        >>> RandomTranslation(0.0, (0.25, 0.25), fill_mode="wrap")(x).ravel()
        array([3., 0., 1., 2.], dtype=float32)
    """

    height_factor: Factor
    width_factor: Factor
    fill_mode: FillMode = "reflect"
    interpolation: Interpolation = "bilinear"
    seed: Seed = None
    fill_value: float = 0.0
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        given = {"height_factor": self.height_factor, "width_factor": self.width_factor}
        self._bounds = [bounds_of(f, -1.0, 1.0, f"RandomTranslation.{name}") for name, f in given.items()]

    def matrix(self, x: Any) -> Sequence[Any]:
        down, right = (
            ops.negative(ops.multiply(within(u, b), ops.size(x, (axis,), EXACT)))
            for u, b, axis in zip(self.uniform(2, ops.shape_of(x)[0]), self._bounds, (1, 2), strict=True)
        )
        return 1.0, 0.0, right, 0.0, 1.0, down


class RandomShear(AffineLayer):
    """In training, the rows of each picture are moved along each other by a random amount, and so are the columns.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        x_factor: By how many columns a row is moved against the one above it, from 0 to 1: between two bounds, or up to
            one number; to either side, for both factors the same one.
        y_factor: By how many rows a column is moved, likewise.
        interpolation: "bilinear" or "nearest".
        fill_mode: What comes in from outside: "reflect" the picture mirrored with its edge repeated, "constant" the
            fill value, "nearest" the edge, "wrap" the other side.
        fill_value: The value for "constant".
        data_format: "channels_last" (also None) or "channels_first".
        seed: Seed of the amounts; the model's if None.

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> x = np.arange(1.0, 5.0, dtype="float32").reshape(2, 2, 1)
        >>> y = RandomShear((1.0, 1.0), fill_mode="constant")(x)[..., 0].tolist()
        >>> y in ([[1.0, 2.0], [4.0, 0.0]], [[1.0, 2.0], [0.0, 3.0]])
        True
    """

    x_factor: Factor = 0.0
    y_factor: Factor = 0.0
    interpolation: Interpolation = "bilinear"
    fill_mode: FillMode = "reflect"
    fill_value: float = 0.0
    data_format: DataFormat = None
    seed: Seed = None

    def __post_init__(self) -> None:
        given = {"x_factor": self.x_factor, "y_factor": self.y_factor}
        self._bounds = [share_bounds(f, f"RandomShear.{name}") for name, f in given.items()]

    def matrix(self, x: Any) -> Sequence[Any]:
        u, v, side = self.uniform(3, ops.shape_of(x)[0])
        sign = ops.where(ops.greater(side, 0.5), -1.0, 1.0)
        along_x, along_y = (ops.multiply(within(n, b), sign) for n, b in zip((u, v), self._bounds, strict=True))
        return 1.0, along_x, 0.0, along_y, 1.0, 0.0


class RandomContrast(RandomImageLayer):
    """In training, the distance of each picture's pixels from the mean of their channel is times a random factor.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        factor: How far the factor is from 1: up to one number from 0 to 1 below and above it, or of two numbers the
            smaller one below and the larger one above.
        value_range: The least and the largest value of a pixel; what comes out is clipped to it.
        seed: Seed of the factors; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> x = np.array([100.0, 110.0], "float32").reshape(1, 2, 1)
        >>> y = RandomContrast(0.5)(x).ravel()
        >>> float(y.mean()), bool(5 <= y[1] - y[0] <= 15)
        (105.0, True)
    """

    factor: Factor
    value_range: tuple[float, float] = (0, 255)
    seed: Seed = None
    _: KW_ONLY
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        least, most = bounds_of(self.factor, 0.0, 1.0, "RandomContrast.factor")
        self._bounds = (1.0 - abs(least), 1.0 + most)

    def disturbed(self, x: Any) -> Any:
        [u] = self.uniform(1, ops.shape_of(x)[0])
        mean = ops.mean(x, (1, 2), keepdims=True)
        y = ops.add(ops.multiply(ops.subtract(x, mean), per_picture(within(u, self._bounds), x)), mean)
        return ops.clip(y, minimum=float(self.value_range[0]), maximum=float(self.value_range[1]))


class RandomBrightness(RandomImageLayer):
    """In training, a random number is added to all pixels of each picture.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        factor: The number as a share of the value range, from -1 to 1: between two bounds, or one number and its
            negative.
        value_range: The least and the largest value of a pixel; what comes out is clipped to it.
        seed: Seed of the numbers; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> RandomBrightness((0.2, 0.2), (0.0, 1.0))(np.array([[[0.1], [0.9]]], "float32")).ravel()
        array([0.3, 1. ], dtype=float32)
    """

    factor: Factor
    value_range: tuple[float, float] = (0, 255)
    seed: Seed = None
    _: KW_ONLY
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        self._bounds = bounds_of(self.factor, -1.0, 1.0, "RandomBrightness.factor")

    def disturbed(self, x: Any) -> Any:
        least, most = sorted(map(float, self.value_range))
        [u] = self.uniform(1, ops.shape_of(x)[0])
        y = ops.add(x, per_picture(ops.multiply(within(u, self._bounds), most - least), x))
        return ops.clip(y, minimum=least, maximum=most)


class RandomCrop(RandomImageLayer):
    """In training, a part of the pictures at a random place, the same for the whole batch; in inference their middle.

    From pictures that are smaller, and in inference from all, the largest part of the wanted shape is taken and
    resized, so that the size is always the same.

    Shapes: x ``(batch, height, width, channels)`` -> the same with the new height and width, floats; one picture
    likewise.

    Args:
        height: The new height.
        width: The new width.
        seed: Seed of the places; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes, or its height or width is not known.

    Example:
        >>> layer = RandomCrop(1, 2)
        >>> x = np.arange(4.0, dtype="float32").reshape(1, 4, 1)
        >>> sorted({layer(x).ravel()[0].item() for _ in range(30)})
        [0.0, 1.0, 2.0]
    """

    height: PositiveInt
    width: PositiveInt
    seed: Seed = None
    data_format: DataFormat = None

    def undisturbed(self, x: Any) -> Any:
        return resize(crop_to_aspect(x, self.height, self.width), (self.height, self.width))

    def disturbed(self, x: Any) -> Any:
        have_height, have_width = known_size(x)
        if have_height < self.height or have_width < self.width:
            return self.undisturbed(x)
        draws = self.uniform(2, 1)
        room = (have_height - self.height + 1, have_width - self.width + 1)
        top, left = (ops.astype(ops.floor(ops.multiply(u, n)), "int32") for u, n in zip(draws, room, strict=True))
        return crop(x, top, left, self.height, self.width)
