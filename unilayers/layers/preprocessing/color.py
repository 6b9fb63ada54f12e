"""Preprocessing of pictures' colours: random changes in training, and contrast spread over the range of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.hints import PositiveInt, Probability
from unilayers.layers.preprocessing.image import (
    EXACT,
    Factor,
    ImageLayer,
    OnData,
    RandomBrightness,
    RandomContrast,
    RandomImageLayer,
    bounds_of,
    per_picture,
    share_bounds,
    within,
)
from unilayers.layers.spatial import DataFormat
from unilayers.random import Seed
from unilayers.spec import public_shape

Range: TypeAlias = tuple[float, float]

BYTE = (0.0, 255.0)
LUMA = (0.2989, 0.587, 0.114)  # the shares of red, green and blue in brightness, as ITU-R BT.601 has them


# ---- colours ----------------------------------------------------------------------


def planes(images: Any) -> list[Any]:
    """Red, green and blue: ``(batch, height, width, 1)`` each.

    Raises:
        ShapeError: if there are not three channels.
    """
    if ops.shape_of(images)[-1] != 3:
        raise ShapeError(
            "not colours", expected="3 channels: red, green, blue", received=str(public_shape(ops.shape_of(images)))
        )
    return [ops.slice_axis(images, -1, i, i + 1) for i in range(3)]


def to_gray(images: Any) -> Any:
    """The brightness of pictures ``(batch, height, width, 3)``, as one channel; one channel stays as it is."""
    if ops.shape_of(images)[-1] == 1:
        return images
    r, g, b = (ops.multiply(plane, share) for plane, share in zip(planes(images), LUMA, strict=True))
    return ops.add(ops.add(r, g), b)


def to_hsv(images: Any) -> tuple[Any, Any, Any]:
    """Hue (a share of the full circle) and saturation, both from 0 to 1, and the value of the brightest channel.

    Example:
        >>> [float(x.ravel()[0].round(3)) for x in to_hsv(np.array([0.0, 4.0, 2.0]).reshape(1, 1, 1, 3))]
        [0.417, 1.0, 4.0]
    """
    r, g, b = planes(images)
    value = ops.maximum(ops.maximum(r, g), b)
    spread = ops.subtract(value, ops.minimum(ops.minimum(r, g), b))
    some = ops.greater(spread, 0.0)
    saturation = ops.where(some, ops.divide(spread, ops.where(ops.greater(value, 0.0), value, 1.0)), 0.0)
    norm = ops.divide(1 / 6, ops.where(some, spread, 1.0))
    hue = ops.where(
        ops.equal(value, g),
        ops.add(ops.multiply(norm, ops.subtract(b, r)), 1 / 3),
        ops.add(ops.multiply(norm, ops.subtract(r, g)), 2 / 3),
    )
    hue = ops.where(some, ops.where(ops.equal(value, r), ops.multiply(norm, ops.subtract(g, b)), hue), 0.0)
    return ops.where(ops.less(hue, 0.0), ops.add(hue, 1.0), hue), saturation, value


def from_hsv(hue: Any, saturation: Any, value: Any) -> Any:
    """Pictures with these hues, which may be any numbers, saturations and values."""
    sixth = ops.multiply(ops.subtract(hue, ops.floor(hue)), 6.0)

    def channel(middle: float, strongest: bool) -> Any:
        """The channel that at ``middle`` sixths of the circle is strongest, or missing."""
        distance = ops.abs(ops.subtract(sixth, middle))
        strength = ops.subtract(2.0, distance) if strongest else ops.subtract(distance, 1.0)
        strength = clipped(strength, (0.0, 1.0))
        return ops.multiply(value, ops.add(ops.subtract(1.0, saturation), ops.multiply(saturation, strength)))

    return ops.concat([channel(3.0, False), channel(2.0, True), channel(4.0, True)], -1)


def rescaled(images: Any, given: Range, wanted: Range) -> Any:
    """Values of one range as values of another."""
    if tuple(map(float, given)) == tuple(map(float, wanted)):
        return images
    factor = (wanted[1] - wanted[0]) / (given[1] - given[0])
    return ops.add(ops.multiply(ops.subtract(images, given[0]), factor), wanted[0])


def clipped(images: Any, bounds: Range) -> Any:
    """Values kept in a range."""
    return ops.clip(images, minimum=float(bounds[0]), maximum=float(bounds[1]))


def blurred(images: Any) -> Any:
    """Each pixel as the mean of itself, five times, and its eight neighbours; zeros are around the picture."""
    total = images
    for axis in (1, 2):
        size = ops.shape_of(images)[axis]
        wide = ops.pad(total, [(int(a == axis), int(a == axis)) for a in range(4)])
        first, second, third = (ops.slice_axis(wide, axis, i, size + i) for i in range(3))
        total = ops.add(ops.add(first, second), third)
    return ops.multiply(ops.add(total, ops.multiply(images, 4.0)), 1 / 13)


class ColorLayer(RandomImageLayer, abstract=True):
    """Base of layers that change the colours of each picture by one random share of what is possible.

    The subclass declares ``factor`` and computes ``recoloured``.
    """

    def __post_init__(self: Any) -> None:
        self._bounds = share_bounds(self.factor, f"{type(self).__name__}.factor")

    def disturbed(self, x: Any) -> Any:
        [u] = self.uniform(1, ops.shape_of(x)[0])
        return self.recoloured(x, within(u, self._bounds))

    def recoloured(self, x: Any, factor: Any) -> Any:
        """The pictures, changed by the share of each, float32 ``(batch,)``."""
        raise NotImplementedError

    def sometimes(self, x: Any, y: Any, probability: Any) -> Any:
        """y for each picture with its probability, else x."""
        [u] = self.uniform(1, ops.shape_of(x)[0])
        return ops.where(ops.reshape(ops.less(u, probability), (ops.shape_of(x)[0], 1, 1, 1)), y, x)


class RandomGrayscale(ColorLayer):
    """In training, each picture loses its colours with a probability; it keeps three channels, all of them the same.

    Shapes: x ``(batch, height, width, 3)`` -> the same, floats; one channel stays as it is; one picture likewise.

    Args:
        factor: The probability.
        data_format: "channels_last" (also None) or "channels_first".
        seed: Seed of the choices; the model's if None.

    Raises:
        ShapeError: if x has another number of axes or channels.

    Example:
        >>> RandomGrayscale(1.0)(np.array([[[10.0, 20.0, 30.0]]])).ravel().round(2)
        array([18.15, 18.15, 18.15], dtype=float32)
    """

    factor: Probability = 0.5
    data_format: DataFormat = None
    seed: Seed = None

    def __post_init__(self) -> None: ...

    def disturbed(self, x: Any) -> Any:
        return self.sometimes(x, ops.broadcast_to(to_gray(x), ops.shape_of(x)), self.factor)


class RandomHue(ColorLayer):
    """In training, the hues of each picture are turned by a random angle, to either side.

    Shapes: x ``(batch, height, width, 3)`` -> the same, floats; one picture likewise.

    Args:
        factor: The angle as a share of half a turn, from 0 to 1: between two bounds, or up to one number.
        value_range: The least and the largest value of a channel; what comes out is clipped to it.
        data_format: "channels_last" (also None) or "channels_first".
        seed: Seed of the angles; the model's if None.

    Raises:
        ShapeError: if x has another number of axes or channels.

    Example:
        >>> RandomHue((1.0, 1.0))(np.array([[[200.0, 0.0, 0.0]]])).ravel().round(2)  # red becomes cyan
        array([  0., 200., 200.], dtype=float32)
    """

    factor: Factor
    value_range: Range = (0, 255)
    data_format: DataFormat = None
    seed: Seed = None

    def recoloured(self, x: Any, factor: Any) -> Any:
        [u] = self.uniform(1, ops.shape_of(x)[0])
        return self.turned(x, ops.multiply(factor, ops.where(ops.greater(u, 0.5), -0.5, 0.5)))

    def turned(self, x: Any, angle: Any) -> Any:
        """The pictures with their hues turned by a share of the full circle for each."""
        hue, saturation, value = to_hsv(rescaled(x, self.value_range, (0.0, 1.0)))
        y = from_hsv(ops.add(hue, per_picture(angle, x)), saturation, value)
        return rescaled(clipped(y, (0.0, 1.0)), (0.0, 1.0), self.value_range)


class RandomSaturation(ColorLayer):
    """In training, the colours of each picture become stronger or paler: the saturation is times ``f / (1 - f)``.

    Shapes: x ``(batch, height, width, 3)`` -> the same, floats; one picture likewise.

    Args:
        factor: f, from 0 (gray) over 0.5 (as it is) to 1 (strongest): between two bounds, or up to one number.
        value_range: The least and the largest value of a channel.
        data_format: "channels_last" (also None) or "channels_first".
        seed: Seed of the factors; the model's if None.

    Raises:
        ShapeError: if x has another number of axes or channels.

    Example:
        >>> RandomSaturation((0.0, 0.0))(np.array([[[200.0, 100.0, 0.0]]])).ravel().round(2)
        array([200., 200., 200.], dtype=float32)
    """

    factor: Factor
    value_range: Range = (0, 255)
    data_format: DataFormat = None
    seed: Seed = None

    def recoloured(self, x: Any, factor: Any) -> Any:
        hue, saturation, value = to_hsv(rescaled(x, self.value_range, (0.0, 1.0)))
        times = ops.minimum(ops.divide(factor, ops.maximum(ops.subtract(1.0, factor), 1e-4)), 1e4)
        saturation = clipped(ops.multiply(saturation, per_picture(times, x)), (0.0, 1.0))
        return rescaled(clipped(from_hsv(hue, saturation, value), (0.0, 1.0)), (0.0, 1.0), self.value_range)


class RandomColorDegeneration(ColorLayer):
    """In training, each picture is mixed with what it looks like without colours.

    Shapes: x ``(batch, height, width, 3)`` -> the same, floats; one picture likewise.

    Args:
        factor: The share of the gray picture, from 0 to 1: between two bounds, or up to one number.
        value_range: The least and the largest value of a channel; what comes out is clipped to it.
        data_format: "channels_last" (also None) or "channels_first".
        seed: Seed of the shares; the model's if None.

    Raises:
        ShapeError: if x has another number of axes or channels.

    Example:
        >>> RandomColorDegeneration((0.5, 0.5))(np.array([[[100.0, 0.0, 0.0]]])).ravel().round(2)
        array([64.94, 14.95, 14.95], dtype=float32)
    """

    factor: Factor
    value_range: Range = (0, 255)
    data_format: DataFormat = None
    seed: Seed = None

    def recoloured(self, x: Any, factor: Any) -> Any:
        y = ops.add(x, ops.multiply(ops.subtract(to_gray(x), x), per_picture(factor, x)))
        return clipped(y, self.value_range)


class RandomInvert(ColorLayer):
    """In training, each picture is turned into its negative with a probability.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        factor: The probability, drawn for each picture: between two bounds from 0 to 1, or up to one number.
        value_range: The least and the largest value of a channel; the negative is their sum minus x.
        seed: Seed of the choices; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> RandomInvert((1.0, 1.0))(np.array([[[0.0, 55.0]]])).ravel()
        array([255., 200.], dtype=float32)
    """

    factor: Factor = 1.0
    value_range: Range = (0, 255)
    seed: Seed = None
    data_format: DataFormat = None

    def recoloured(self, x: Any, factor: Any) -> Any:
        return self.sometimes(x, ops.subtract(float(sum(self.value_range)), x), factor)


class RandomSharpness(ColorLayer):
    """In training, each picture is mixed with a blurred one, or moved away from it.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        factor: From 0 (blurred) over 0.5 (as it is) to 1 (sharpened): between two bounds, or up to one number.
        value_range: The least and the largest value of a channel; what comes out is clipped to it.
        data_format: "channels_last" (also None) or "channels_first".
        seed: Seed of the factors; the model's if None.

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> RandomSharpness((0.0, 0.0))(np.array([[[13.0], [130.0]]])).ravel().round(2)
        array([15., 51.], dtype=float32)
    """

    factor: Factor
    value_range: Range = (0, 255)
    data_format: DataFormat = None
    seed: Seed = None

    def recoloured(self, x: Any, factor: Any) -> Any:
        share = per_picture(ops.subtract(1.0, ops.multiply(factor, 2.0)), x)
        return clipped(ops.add(x, ops.multiply(ops.subtract(blurred(x), x), share)), self.value_range)


class RandomPosterization(ColorLayer):
    """In training, each picture keeps only the highest bits of its values, a random number of the eight.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        factor: How many bits, from 1 to 8: between two bounds, both included, or from 1 to one number.
        value_range: The least and the largest value of a channel.
        data_format: "channels_last" (also None) or "channels_first".
        seed: Seed of the numbers; the model's if None.

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> RandomPosterization((2, 2))(np.array([[[63.0], [64.0], [255.0]]])).ravel()
        array([  0.,  64., 192.], dtype=float32)
    """

    factor: Factor
    value_range: Range = (0, 255)
    data_format: DataFormat = None
    seed: Seed = None

    def __post_init__(self) -> None:
        given = self.factor if isinstance(self.factor, Sequence) else (1, self.factor)
        least, most = bounds_of(given, 1.0, 8.0, "RandomPosterization.factor")
        self._bounds = (float(int(least)), int(most) + 1.0)

    def recoloured(self, x: Any, factor: Any) -> Any:
        step = per_picture(ops.exp2(ops.subtract(8.0, ops.floor(factor))), x)
        values = ops.floor(rescaled(x, self.value_range, BYTE))
        return rescaled(ops.multiply(ops.floor(ops.divide(values, step)), step), BYTE, self.value_range)


class Solarization(RandomImageLayer):
    """In training, a random number is added to each picture, and what is then not below a random threshold is inverted.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        addition_factor: The number as a share of the value range, from 0 to 1: between two bounds, or up to one number.
        threshold_factor: The threshold, likewise.
        value_range: The least and the largest value of a channel; what comes out is clipped to it.
        seed: Seed of both; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> Solarization(0.0, (0.5, 0.5))(np.array([[[100.0], [200.0]]])).ravel()
        array([100.,  55.], dtype=float32)
    """

    addition_factor: Factor = 0.0
    threshold_factor: Factor = 0.0
    value_range: Range = (0, 255)
    seed: Seed = None
    _: KW_ONLY
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        given = {"addition_factor": self.addition_factor, "threshold_factor": self.threshold_factor}
        self._bounds = [share_bounds(f, f"Solarization.{name}") for name, f in given.items()]

    def disturbed(self, x: Any) -> Any:
        draws = zip(self.uniform(2, ops.shape_of(x)[0]), self._bounds, strict=True)
        added, threshold = (per_picture(ops.multiply(within(u, b), 255.0), x) for u, b in draws)
        return self.solarized(x, added, threshold)

    def solarized(self, x: Any, added: Any, threshold: Any) -> Any:
        """The pictures with a number added to each, and inverted from a threshold on; both for values up to 255."""
        y = clipped(ops.add(rescaled(x, self.value_range, BYTE), added), BYTE)
        return rescaled(ops.where(ops.less(y, threshold), y, ops.subtract(255.0, y)), BYTE, self.value_range)


class RandomColorJitter(RandomImageLayer):
    """In training, each picture changes in brightness, contrast, saturation and hue, one after the other.

    Shapes: x ``(batch, height, width, 3)`` -> the same, floats; one picture likewise.

    Args:
        value_range: The least and the largest value of a channel.
        brightness_factor: That of ``RandomBrightness``; None: the brightness stays.
        contrast_factor: That of ``RandomContrast``, likewise.
        saturation_factor: That of ``RandomSaturation``, likewise.
        hue_factor: That of ``RandomHue``, likewise.
        seed: Seed of all four; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes or channels.

    Example:
        >>> RandomColorJitter(saturation_factor=(0.0, 0.0))(np.array([[[200.0, 100.0, 0.0]]])).ravel().round(2)
        array([200., 200., 200.], dtype=float32)
    """

    value_range: Range = (0, 255)
    brightness_factor: Factor | None = None
    contrast_factor: Factor | None = None
    saturation_factor: Factor | None = None
    hue_factor: Factor | None = None
    seed: Seed = None
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        classes: dict[Any, Any] = {
            RandomBrightness: self.brightness_factor, RandomContrast: self.contrast_factor,
            RandomSaturation: self.saturation_factor, RandomHue: self.hue_factor,
        }  # fmt: skip
        self.parts = [c(f, value_range=self.value_range, seed=self.seed) for c, f in classes.items() if f is not None]

    def build(self, input_shape: Any) -> None:
        for part in self.parts:
            part.random_counter()

    def disturbed(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x, training=True)
        return x


# ---- contrast ---------------------------------------------------------------------------


class AutoContrast(ImageLayer):
    """Each channel of each picture spread over the whole range of values; one of equal values stays as it is.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        value_range: The least and the largest value of a channel.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> AutoContrast()(np.array([[[10.0], [15.0], [20.0]]])).ravel()
        array([  0. , 127.5, 255. ], dtype=float32)
    """

    value_range: Range = (0, 255)
    _: KW_ONLY
    data_format: DataFormat = None

    def changed(self, x: Any, training: bool) -> Any:
        x = ops.astype(x, self.compute_dtype)
        low, high = ops.min(x, (1, 2), keepdims=True), ops.max(x, (1, 2), keepdims=True)
        flat = ops.equal(low, high)
        share = ops.divide(ops.subtract(x, low), ops.where(flat, 1.0, ops.subtract(high, low)))
        return ops.where(flat, x, rescaled(share, (0.0, 1.0), self.value_range))


class Equalization(OnData, ImageLayer):
    """In training, the values of each channel of each picture are mapped so that all occur as often as can be.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        value_range: The least and the largest value of a channel.
        bins: How many values are told apart.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Example:
        >>> Equalization()(np.array([[[10.0], [11.0], [11.0], [12.0]]])).ravel()
        array([  0., 170., 170., 255.], dtype=float32)
    """

    value_range: Range = (0, 255)
    bins: PositiveInt = 256
    data_format: DataFormat = None

    def changed(self, x: Any, training: bool) -> Any:
        x = ops.astype(x, self.compute_dtype)
        return self.equalized(x) if training else x

    def equalized(self, x: Any) -> Any:
        """The pictures, equalized."""
        batch, _, _, channels = ops.shape_of(x)
        values = ops.astype(rescaled(x, self.value_range, BYTE), EXACT)
        place = ops.floor(ops.multiply(values, (self.bins - 1) / 255.0))
        place = ops.astype(ops.clip(place, minimum=0.0, maximum=float(self.bins - 1)), "int32")
        first = ops.reshape(ops.multiply(ops.arange(batch * channels, like=x), self.bins), (batch, 1, 1, channels))
        place = ops.reshape(ops.add(place, first), (-1,))  # of each pixel, in one table for all pictures and channels
        counts = ops.take_grad(ops.ones_like(place, EXACT), place, axis=0, size=batch * channels * self.bins)
        counts = ops.reshape(counts, (batch * channels, self.bins))
        below = ops.cumsum(counts, 1)
        least = ops.min(ops.where(ops.greater(below, 0.0), below, np.float32(2**31)), 1, keepdims=True)
        room = ops.subtract(ops.slice_axis(below, 1, self.bins - 1, self.bins), least)
        flat = ops.less_equal(room, 0.0)  # all pixels are in one bin
        table = ops.divide(ops.multiply(ops.subtract(below, least), 255.0), ops.where(flat, 1.0, room))
        table = ops.clip(ops.round(table), minimum=0.0, maximum=255.0)
        found = ops.reshape(ops.take(ops.reshape(table, (-1,)), place), ops.shape_of(x))
        found = ops.where(ops.reshape(flat, (batch, 1, 1, channels)), values, found)
        return ops.astype(rescaled(found, BYTE, self.value_range), ops.dtype_of(x))
