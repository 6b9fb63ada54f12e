"""Layers that disturb training so that the model generalises, and penalties on what layers compute.

What is random follows from the seed, the layer's path and how often the layer was called in training: it is the same on
every backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unilayers import ops
from unilayers.hints import Fraction, NonNegativeFloat, PositiveInt, Probability
from unilayers.layers.affine import penalise
from unilayers.layers.base import Layer
from unilayers.layers.spatial import DataFormat, Spatial
from unilayers.ops.activation import SELU_ALPHA, SELU_SCALE
from unilayers.random import Seed, dropped, mask_shape
from unilayers.regularizers import L1L2


class Disturbing(Layer, abstract=True):
    """Base of layers that give x itself in inference, and ``disturbed(x, counter, key)`` in training.

    The subclass declares the field ``seed``.
    """

    supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.random_counter()

    def call(self: Any, x: Any, training: bool = False) -> Any:
        return self.disturbed(x, *self.next_random(self.seed)) if training and self.disturbs() else x

    def disturbs(self: Any) -> bool:
        """Whether the arguments ask for any disturbance."""
        return bool(self.rate > 0)

    def disturbed(self, x: Any, counter: Any, key: tuple[int, int]) -> Any:
        """x with the random numbers that the counter and the key give."""
        raise NotImplementedError(f"{type(self).__name__} has no disturbed(x, counter, key)")


# ---- elements that are dropped ------------------------------------------------


class Dropout(Disturbing):
    """In training, each element is 0 with probability ``rate`` and otherwise times ``1 / (1 - rate)``, so that the
    mean stays; in inference, x itself.

    The mask follows from the seed, the layer's path and how often the layer was called in training: it is the same on
    every backend.

    Shapes: x any shape -> the same.

    Args:
        rate: Share of the elements to drop.
        noise_shape: Shape of the mask, which broadcasts to x; None at an axis stands for x's size. ``(None, 1, None)``
            drops whole rows of ``(batch, time, channels)``.
        seed: Seed of the masks; the model's if None.

    Raises:
        ShapeError: if ``noise_shape`` does not broadcast to x.

    Reference:
        Srivastava et al., Dropout, 2014, Journal of Machine Learning Research 15.

    Example:
        >>> import numpy as np
        >>> x = np.ones((2, 3), "float32")
        >>> bool((Dropout(0.5)(x) == x).all()), set(Dropout(0.5)(np.ones(100, "float32"), training=True).tolist())
        (True, {0.0, 2.0})
    """

    rate: Probability
    noise_shape: Sequence[PositiveInt | None] | None = None
    seed: Seed = None

    def disturbed(self, x: Any, counter: Any, key: tuple[int, int]) -> Any:
        return dropped(x, self.rate, self.noise_shape, counter, key)


class SpatialDropout(Disturbing, Spatial, abstract=True):
    """Base of the dropouts of whole channels: neighbours in a picture are too alike to be dropped one by one.

    Shapes: x ``(batch, *spatial, channels)`` -> the same; with "channels_first" the channels follow the batch.

    Args:
        rate: Share of the channels to drop.
        data_format: "channels_last" (also None) or "channels_first"; not for one spatial axis.
        seed: Seed of the masks; the model's if None.

    Raises:
        ShapeError: if x has the wrong number of axes.

    Reference:
        Tompson et al., Efficient Object Localization Using Convolutional Networks, 2014, arXiv 1411.4280.
    """

    rate: Probability

    def disturbed(self, x: Any, counter: Any, key: tuple[int, int]) -> Any:
        ones = (1,) * self.rank
        noise_shape = (None, None, *ones) if self.channels_first else (None, *ones, None)
        return dropped(x, self.rate, noise_shape, counter, key)


class SpatialDropout1D(SpatialDropout):
    """Dropout of whole channels over one spatial axis. Arguments, shapes and errors as of ``SpatialDropout``."""

    rank = 1
    channels_first = False
    seed: Seed = None


class SpatialDropout2D(SpatialDropout):
    """Dropout of whole channels over two spatial axes. Arguments, shapes and errors as of ``SpatialDropout``.

    Example:
        >>> import numpy as np
        >>> y = SpatialDropout2D(0.5)(np.ones((2, 3, 3, 8), "float32"), training=True)
        >>> bool((y == y[:, :1, :1]).all())
        True
    """

    rank = 2
    data_format: DataFormat = None
    seed: Seed = None


class SpatialDropout3D(SpatialDropout):
    """Dropout of whole channels over three spatial axes. Arguments, shapes and errors as of ``SpatialDropout``."""

    rank = 3
    data_format: DataFormat = None
    seed: Seed = None


class AlphaDropout(Disturbing):
    """In training, each element is replaced with probability ``rate`` by the least value that selu takes, and all are
    scaled and shifted so that mean 0 and variance 1 stay; in inference, x itself. For nets with selu.

    Shapes: x any shape -> the same.

    Args:
        rate: Share of the elements to replace.
        noise_shape: Shape of the mask, which broadcasts to x; None at an axis stands for x's size.
        seed: Seed of the masks; the model's if None.

    Raises:
        ShapeError: if ``noise_shape`` does not broadcast to x.

    Reference:
        Klambauer et al., Self-Normalizing Neural Networks, 2017, arXiv 1706.02515.

    Example:
        >>> import numpy as np
        >>> len(set(AlphaDropout(0.5)(np.ones(100, "float32"), training=True).tolist()))
        2
    """

    rate: Fraction
    noise_shape: Sequence[PositiveInt | None] | None = None
    seed: Seed = None

    def disturbed(self, x: Any, counter: Any, key: tuple[int, int]) -> Any:
        shape = ops.shape_of(x)
        wanted = shape if self.noise_shape is None else mask_shape(self.noise_shape, shape)
        least = -SELU_ALPHA * SELU_SCALE
        scale = ((1 - self.rate) * (1 + self.rate * least**2)) ** -0.5
        kept = ops.greater_equal(ops.random_bits(counter, key=key, shape=wanted), round(self.rate * 65536))
        return ops.add(ops.multiply(ops.where(kept, x, least), scale), -scale * least * self.rate)


# ---- noise ----------------------------------------------------------------------


class GaussianNoise(Disturbing):
    """In training, x plus normal noise of mean 0; in inference, x itself.

    Shapes: x any shape -> the same.

    Args:
        stddev: Standard deviation of the noise.
        seed: Seed of the noise; the model's if None.

    Example:
        >>> import numpy as np
        >>> y = GaussianNoise(0.5)(np.zeros(10000, "float32"), training=True)
        >>> bool(abs(y.mean()) < 0.02 and abs(y.std() - 0.5) < 0.02)
        True
    """

    stddev: NonNegativeFloat
    seed: Seed = None

    def disturbs(self) -> bool:
        return self.stddev > 0

    def disturbed(self, x: Any, counter: Any, key: tuple[int, int]) -> Any:
        noise = ops.random_normal(counter, key=key, shape=ops.shape_of(x), dtype=ops.dtype_of(x))
        return ops.add(x, ops.multiply(noise, self.stddev))


class GaussianDropout(Disturbing):
    """In training, x times normal noise of mean 1 and variance ``rate / (1 - rate)``, as dropout's factors have them;
    in inference, x itself.

    Shapes: x any shape -> the same.

    Args:
        rate: The rate of a dropout of this variance.
        seed: Seed of the noise; the model's if None.

    Reference:
        Srivastava et al., Dropout, 2014, Journal of Machine Learning Research 15.
    """

    rate: Fraction
    seed: Seed = None

    def disturbed(self, x: Any, counter: Any, key: tuple[int, int]) -> Any:
        noise = ops.random_normal(counter, key=key, shape=ops.shape_of(x), dtype=ops.dtype_of(x))
        return ops.multiply(x, ops.add(ops.multiply(noise, math.sqrt(self.rate / (1 - self.rate))), 1.0))


# ---- penalties ------------------------------------------------------------------


class ActivityRegularization(Layer):
    """x itself; adds ``l1 * sum(abs(x)) + l2 * sum(x**2)``, over the size of the batch, to the loss.

    Shapes: x any shape -> the same.

    Args:
        l1: Factor of the first sum.
        l2: Factor of the second.

    Example:
        >>> import numpy as np
        >>> layer = ActivityRegularization(l1=0.5)
        >>> _ = layer(np.array([[1.0, -3.0]], "float32"))
        >>> [float(loss) for loss in layer.take_losses()]
        [2.0]
    """

    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0

    supports_masking = True

    def call(self, x: Any) -> Any:
        penalise(self, x, L1L2(self.l1, self.l2))
        return x
