"""Layers that disturb training so that the model generalises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.hints import NonNegativeInt, PositiveInt, Probability
from unilayers.layers.base import Layer


class Dropout(Layer):
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
    seed: NonNegativeInt | None = None

    def build(self, input_shape: Any) -> None:
        self.random_counter()

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return x
        counter, key = self.next_random(self.seed)
        if self.noise_shape is None:
            return ops.dropout(x, counter, rate=self.rate, key=key)
        ones = ops.full(self._mask_shape(ops.shape_of(x)), 1.0, ops.dtype_of(x))
        return ops.multiply(x, ops.dropout(ones, counter, rate=self.rate, key=key))

    def _mask_shape(self, shape: Sequence[Any]) -> tuple[Any, ...]:
        wanted = list(self.noise_shape or ())
        if len(wanted) != len(shape) or any(n not in (None, 1, d) for n, d in zip(wanted, shape, strict=True)):
            raise ShapeError(
                "noise_shape does not broadcast to the input",
                expected="per axis None, 1 or the input's size",
                received=f"{tuple(wanted)} for {tuple(shape)}",
            )
        return tuple(d if n is None else n for n, d in zip(wanted, shape, strict=True))
