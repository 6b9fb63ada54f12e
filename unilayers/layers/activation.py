"""Activations as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unilayers import activations, ops
from unilayers.hints import NonNegativeFloat
from unilayers.layers.affine import Activated, ActivationLike
from unilayers.layers.base import Layer


class Activation(Activated):
    """An activation function by name, element by element unless the function is softmax.

    Args:
        activation: A name, a function or a layer.

    Example:
        >>> import numpy as np
        >>> Activation("relu")(np.array([-1.0, 2.0], "float32"))
        array([0., 2.], dtype=float32)
    """

    activation: ActivationLike

    def call(self, x: Any) -> Any:
        return self.activate(x)


class ReLU(Layer):
    """x above the threshold, at most ``max_value``; else ``negative_slope * (x - threshold)``.

    Args:
        max_value: Upper limit; None for none.
        negative_slope: Slope below the threshold.
        threshold: Where the linear part begins.

    Example:
        >>> import numpy as np
        >>> ReLU(max_value=6.0, negative_slope=0.5)(np.array([-1.0, 2.0, 8.0], "float32"))
        array([-0.5,  2. ,  6. ], dtype=float32)
    """

    max_value: NonNegativeFloat | None = None
    negative_slope: NonNegativeFloat = 0.0
    threshold: NonNegativeFloat = 0.0

    def call(self, x: Any) -> Any:
        return activations.relu(x, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(Layer):
    """x above 0, else ``negative_slope * x``.

    Args:
        negative_slope: Slope below 0.

    Example:
        >>> import numpy as np
        >>> LeakyReLU(0.5)(np.array([-1.0, 2.0], "float32"))
        array([-0.5,  2. ], dtype=float32)
    """

    negative_slope: NonNegativeFloat = 0.3

    def call(self, x: Any) -> Any:
        return ops.leaky_relu(x, negative_slope=self.negative_slope)


class ELU(Layer):
    """x above 0, else ``alpha * (exp(x) - 1)``.

    Args:
        alpha: Minus the limit for small x.

    Reference:
        Clevert et al., Fast and Accurate Deep Network Learning by Exponential Linear Units, 2015, arXiv 1511.07289.

    Example:
        >>> import numpy as np
        >>> ELU()(np.array([-100.0, 2.0], "float32"))
        array([-1.,  2.], dtype=float32)
    """

    alpha: float = 1.0

    def call(self, x: Any) -> Any:
        return ops.elu(x, alpha=self.alpha)


class Softmax(Layer):
    """``exp(x)`` over its sum along an axis: positive numbers that add up to 1.

    Args:
        axis: The axis, or several that are taken together.

    Example:
        >>> import numpy as np
        >>> Softmax()(np.zeros((1, 4), "float32"))
        array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    axis: int | Sequence[int] = -1

    def call(self, x: Any) -> Any:
        if isinstance(self.axis, int):
            return ops.softmax(x, self.axis)
        return ops.exp(ops.subtract(x, ops.logsumexp(x, tuple(self.axis), keepdims=True)))
