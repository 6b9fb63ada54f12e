"""Preprocessing inside a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.layers.base import Layer


class Rescaling(Layer):
    """``x * scale + offset``, as floats: pixels 0 to 255 become 0 to 1 with a scale of 1/255.

    Shapes: x any shape and number type -> the same shape, floats.

    Args:
        scale: Factor; one number, or a list that broadcasts to x, such as one per channel.
        offset: What is added, likewise.

    Example:
        >>> Rescaling(1 / 255)(np.array([0, 255], "uint8"))
        array([0., 1.], dtype=float32)
    """

    scale: float | Sequence[Any]
    offset: float | Sequence[Any] = 0.0

    def call(self, x: Any) -> Any:
        scale, offset = (np.asarray(v, self.compute_dtype) for v in (self.scale, self.offset))
        return ops.add(ops.multiply(ops.astype(x, self.compute_dtype), scale), offset)
