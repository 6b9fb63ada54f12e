"""Preprocessing that mixes or erases parts of pictures, and chains of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unilayers import ops
from unilayers.errors import DTypeError, UnilayersError
from unilayers.hints import PositiveFloat, PositiveInt
from unilayers.layers.base import Layer
from unilayers.layers.preprocessing.color import (
    AutoContrast,
    Equalization,
    RandomColorDegeneration,
    RandomPosterization,
    RandomSharpness,
    Range,
    Solarization,
    clipped,
)
from unilayers.layers.preprocessing.image import (
    EXACT,
    Factor,
    Interpolation,
    OnData,
    RandomBrightness,
    RandomContrast,
    RandomImageLayer,
    RandomRotation,
    RandomShear,
    RandomTranslation,
    share_bounds,
    within,
)
from unilayers.layers.spatial import DataFormat
from unilayers.layers.wrapper import LayerLike
from unilayers.random import Seed, beta_at, order_at
from unilayers.registry import resolve
from unilayers.spec import is_float


def boxes(images: Any, widths: Any, heights: Any, u: Any, v: Any) -> tuple[Any, Any]:
    """Which pixels lie in a box, one for each picture, and the box's share of the area.

    Shapes: images ``(batch, height, width, channels)``, the others ``(batch,)`` -> ``(batch, height, width, 1)`` and
    ``(batch,)``.

    Args:
        images: Only their shape counts.
        widths: Of the boxes, as shares of the pictures' width.
        heights: Likewise.
        u: Where the room beside the boxes is divided, from 0 to 1.
        v: Likewise above them.
    """
    inside: Any = True
    for axis, share, place in ((1, heights, v), (2, widths, u)):
        whole = ops.size(images, (axis,), EXACT)
        length = ops.multiply(share, whole)
        start = ops.multiply(place, ops.subtract(whole, length))
        line = ops.reshape(
            ops.arange(ops.shape_of(images)[axis], like=images), [-1 if a == axis else 1 for a in range(4)]
        )
        at = ops.astype(line, EXACT)
        start, end = (ops.reshape(e, (-1, 1, 1, 1)) for e in (start, ops.add(start, length)))
        inside = ops.logical_and(inside, ops.logical_and(ops.greater_equal(at, start), ops.less(at, end)))
    return inside, ops.multiply(widths, heights)


class RandomErasing(RandomImageLayer):
    """In training, a random box of each picture is filled, with a probability.

    Shapes: x ``(batch, height, width, channels)`` -> the same, floats; one picture likewise.

    Args:
        factor: The probability, drawn for each picture: between two bounds from 0 to 1, or up to one number.
        scale: The squares of the box's width and height as shares of the picture's, from 0 to 1: between two bounds, or
            up to one number.
        fill_value: A number, or one for each channel; None: normal noise, the largest value its standard deviation.
        value_range: The least and the largest value of a channel; what is filled in is clipped to it.
        seed: Seed of the boxes; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.

    Reference:
        Zhong et al., Random Erasing Data Augmentation, 2017, arXiv 1708.04896.

    Example:
        >>> import numpy as np
        >>> x = np.ones((4, 4, 1), "float32")
        >>> int(RandomErasing((1.0, 1.0), (0.25, 0.25), fill_value=7.0)(x).sum())  # 4 of 16 pixels
        40
    """

    factor: Factor = 1.0
    scale: Factor = (0.02, 0.33)
    fill_value: float | Sequence[float] | None = None
    value_range: Range = (0, 255)
    seed: Seed = None
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        given = {"factor": self.factor, "scale": self.scale}
        self._bounds = [share_bounds(f, f"RandomErasing.{name}") for name, f in given.items()]

    def disturbed(self, x: Any) -> Any:
        batch = ops.shape_of(x)[0]
        probability, threshold, width, height, u, v = self.uniform(6, batch)
        probability = within(probability, self._bounds[0])
        width, height = (ops.sqrt(within(side, self._bounds[1])) for side in (width, height))
        inside, _ = boxes(x, width, height, u, v)
        chosen = ops.reshape(ops.less(threshold, probability), (batch, 1, 1, 1))
        return ops.where(ops.logical_and(inside, chosen), clipped(self._filling(x), self.value_range), x)

    def _filling(self, x: Any) -> Any:
        shape, dtype = ops.shape_of(x), ops.dtype_of(x)
        if self.fill_value is None:
            counter, key = self.next_random(self.seed)
            noise = ops.random_normal(counter, key=key, shape=shape, dtype=EXACT)
            return ops.astype(ops.multiply(noise, float(self.value_range[1])), dtype)
        values = ops.astype(ops.array(self.fill_value), dtype)
        return ops.broadcast_to(values, shape)


# ---- two pictures as one --------------------------------------------------------------


class MixingLayer(RandomImageLayer, abstract=True):
    """Base of layers that mix each picture with another one of the batch, and their labels likewise.

    The subclass computes ``mixture``.
    """

    def mixture(self, x: Any, others: Any) -> tuple[Any, Any]:
        """The mixed pictures, and the share of the first in each: ``(batch,)``."""
        raise NotImplementedError

    def disturbed(self, x: Any) -> Any:
        return self._mixed(x)[0]

    def call(self, x: Any, training: bool = False) -> Any:
        if not isinstance(x, Mapping) or "labels" not in x or not training or len(ops.shape_of(x["images"])) == 3:
            return super().call(x, training)
        labels = x["labels"]
        if len(ops.shape_of(labels)) < 2 and not is_float(ops.dtype_of(labels)):
            raise DTypeError(
                "numbers of classes cannot be mixed", expected="labels as vectors or floats",
                received=f"{ops.dtype_of(labels)} labels", fix="Use ops.one_hot(labels, num_classes)",
            )  # fmt: skip
        found: list[Any] = []

        def change(images: Any) -> Any:
            mixed, order, share = self._mixed(ops.astype(images, self.compute_dtype))
            given = ops.astype(labels, self.compute_dtype)
            share = ops.astype(ops.reshape(share, (-1, *[1] * (len(ops.shape_of(given)) - 1))), self.compute_dtype)
            found.append(_between(given, ops.take(given, order, 0), share))
            return mixed

        return {"images": self.on_batch(x["images"], change), "labels": found[0]}

    def _mixed(self: Any, x: Any) -> tuple[Any, Any, Any]:
        counter, key = self.next_random(self.seed)
        order = order_at(counter, key, ops.shape_of(x)[0])
        mixed, share = self.mixture(x, ops.take(x, order, 0))
        return mixed, order, share

    def beta(self: Any, x: Any, alpha: Any) -> Any:
        """A number of a beta distribution with twice the same parameter, for each picture."""
        counter, key = self.next_random(self.seed)
        alpha = ops.broadcast_to(ops.astype(alpha, EXACT), (ops.shape_of(x)[0],))
        return beta_at(counter, key, alpha, alpha, EXACT)


def _between(a: Any, b: Any, share: Any) -> Any:
    return ops.add(ops.multiply(a, share), ops.multiply(b, ops.subtract(1.0, share)))


class MixUp(MixingLayer):
    """In training, each picture is a weighted mean of itself and another one of the batch, and so are the labels.

    Shapes: x ``(batch, height, width, channels)``, or ``{"images": x, "labels": y}`` with labels as vectors -> the
    same, floats. One picture stays as it is.

    Args:
        alpha: The weight has a beta distribution with twice this parameter.
        data_format: "channels_last" (also None) or "channels_first".
        seed: Seed of the partners and weights; the model's if None.

    Raises:
        ShapeError: if x has another number of axes.
        DTypeError: for labels that are numbers of classes.

    Reference:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, 2017, arXiv 1710.09412.

    Example:
        >>> import numpy as np
        >>> x = np.eye(2, dtype="float32")
        >>> y = MixUp()({"images": x.reshape(2, 1, 2, 1), "labels": x})
        >>> bool((y["images"].reshape(2, 2) == y["labels"]).all())
        True
    """

    alpha: PositiveFloat = 0.2
    data_format: DataFormat = None
    seed: Seed = None

    def mixture(self, x: Any, others: Any) -> tuple[Any, Any]:
        share = self.beta(x, self.alpha)
        return _between(x, others, ops.reshape(ops.astype(share, ops.dtype_of(x)), (-1, 1, 1, 1))), share


class CutMix(MixingLayer):
    """In training, a box of each picture is taken from another one of the batch, and the labels are mixed by area.

    Shapes: x ``(batch, height, width, channels)``, or ``{"images": x, "labels": y}`` with labels as vectors -> the
    same, floats. One picture stays as it is.

    Args:
        factor: The share of the area that stays has a beta distribution with twice this parameter, drawn for each
            picture: between two bounds from 0 to 1, or up to one number.
        seed: Seed of the partners and boxes; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes.
        DTypeError: for labels that are numbers of classes.

    Reference:
        Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, 2019, arXiv
        1905.04899.

    Example:
        >>> import numpy as np
        >>> y = CutMix()(np.arange(8.0).reshape(2, 2, 2, 1))
        >>> sorted(set((y % 4 - np.arange(4).reshape(1, 2, 2, 1)).ravel().tolist()))  # pixels keep their places
        [0.0]
    """

    factor: Factor = 1.0
    seed: Seed = None
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        self._bounds = share_bounds(self.factor, "CutMix.factor")

    def mixture(self, x: Any, others: Any) -> tuple[Any, Any]:
        alpha, u, v = self.uniform(3, ops.shape_of(x)[0])
        stays = self.beta(x, ops.add(within(alpha, self._bounds), 1e-6))
        side = ops.sqrt(ops.subtract(1.0, stays))
        inside, share = boxes(x, side, side, u, v)
        return ops.where(inside, others, x), ops.subtract(1.0, share)


# ---- several layers -----------------------------------------------------------------------


class RandAugment(RandomImageLayer):
    """In training, a few changes are made to the pictures, one after the other, each drawn from eleven kinds for the
    whole batch: shear, translation, rotation, brightness, loss of colour, contrast, sharpness, posterization,
    solarization, and contrast spread by range or by frequency.

    Shapes: x ``(batch, height, width, 3)`` -> the same, floats; one picture likewise.

    Args:
        value_range: The least and the largest value of a channel.
        num_ops: How many changes.
        factor: Their strength, from 0 to 1: between two bounds, or up to one number.
        interpolation: "bilinear" or "nearest", for those that move pixels.
        seed: Seed of all that is drawn; the model's if None.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has another number of axes or channels.

    Reference:
        Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space, 2019, arXiv
        1909.13719.

    Example:
        >>> import numpy as np
        >>> x = np.zeros((2, 4, 4, 3), "float32")
        >>> RandAugment()(x).shape, bool((RandAugment()(x, training=False) == x).all())
        ((2, 4, 4, 3), True)
    """

    value_range: Range = (0, 255)
    num_ops: PositiveInt = 2
    factor: Factor = 0.5
    interpolation: Interpolation = "bilinear"
    seed: Seed = None
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        f = share_bounds(self.factor, "RandAugment.factor")
        moved: dict[str, Any] = {"interpolation": self.interpolation, "seed": self.seed}
        coloured: dict[str, Any] = {"value_range": self.value_range, "seed": self.seed}
        self.parts: list[Any] = [
            RandomShear(f, f, **moved),
            RandomTranslation(f, f, **moved),
            RandomRotation(f, **moved),
            RandomBrightness(f, **coloured),
            RandomColorDegeneration(f, **coloured),
            RandomContrast(f, **coloured),
            RandomSharpness(f, **coloured),
            RandomPosterization(max(1, int(8 * f[1])), **coloured),
            Solarization(f, f, **coloured),
            AutoContrast(self.value_range),
            Equalization(self.value_range),
        ]

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        for part in self.parts:
            if isinstance(part, RandomImageLayer):
                part.random_counter()

    def disturbed(self, x: Any) -> Any:
        for u in self.uniform(self.num_ops, 1):
            kind = ops.astype(ops.floor(ops.multiply(ops.reshape(u, ()), float(len(self.parts)))), "int32")
            x = ops.switch(kind, [lambda images, part=part: part(images, training=True) for part in self.parts], x)
        return x


class Pipeline(OnData):
    """Layers one after the other, as one layer: a chain of preprocessing that is used on data or in a model.

    Args:
        layers: The layers, first one first: objects, names or ``{name: arguments}``.

    Example:
        >>> import numpy as np
        >>> chain = Pipeline([{"Rescaling": {"scale": 2.0}}, {"Rescaling": {"scale": 1.0, "offset": 1.0}}])
        >>> chain(np.array([1.0, 2.0], "float32"))
        array([3., 5.], dtype=float32)
    """

    layers: Sequence[LayerLike]

    def __post_init__(self) -> None:
        self.layers = [resolve(Layer.registry, layer, where="Pipeline.layers") for layer in self.layers]
        if any(layer is None for layer in self.layers):
            raise UnilayersError("needs layers", where="Pipeline.layers")

    def call(self, x: Any, training: bool = False) -> Any:
        for layer in self.layers:
            x = layer(x)  # type: ignore[operator]
        return x
