"""Activations as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unilayers import activations, ops
from unilayers.hints import NonNegativeFloat, PositiveInt
from unilayers.initializers import InitializerLike
from unilayers.layers.affine import Activated, ActivationLike, ConstraintLike, RegularizerLike
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

    supports_masking = True

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

    supports_masking = True

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

    supports_masking = True

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

    supports_masking = True

    def call(self, x: Any) -> Any:
        return ops.elu(x, alpha=self.alpha)


class PReLU(Layer):
    """x above 0, else ``alpha * x`` with a slope that is learned for each place of a sample.

    Shapes: x ``(batch, ...)`` -> the same; alpha as x without the batch, with size 1 on the shared axes.

    Args:
        alpha_initializer: Initial values of ``alpha``.
        alpha_regularizer: Penalty on ``alpha``.
        alpha_constraint: Where updates may move ``alpha``.
        shared_axes: Axes along which all places have one slope, such as ``(1, 2)`` for images; the batch is axis 0.

    Reference:
        He et al., Delving Deep into Rectifiers, 2015, arXiv 1502.01852.

    Example:
        >>> import numpy as np
        >>> PReLU("ones")(np.array([[-3.0, 2.0]], "float32"))
        array([[-3.,  2.]], dtype=float32)
    """

    alpha_initializer: InitializerLike = "Zeros"
    alpha_regularizer: RegularizerLike = None
    alpha_constraint: ConstraintLike = None
    shared_axes: PositiveInt | Sequence[PositiveInt] | None = None

    supports_masking = True

    def build(self, input_shape: Any) -> None:
        shared = [self.shared_axes] if isinstance(self.shared_axes, int) else self.shared_axes or ()
        axes = range(1, len(input_shape))
        self.alpha = self.add_weight(
            [1 if axis in shared else self.known_size(input_shape, axis) for axis in axes],
            self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
            name="alpha",
        )

    def call(self, x: Any) -> Any:
        self.require_ndim(x, exactly=len(self.alpha.shape) + 1)
        for axis, size in enumerate(self.alpha.shape, 1):
            if size > 1:
                self.require_size(x, axis, size)
        return ops.where(ops.greater(x, 0.0), x, ops.multiply(x, self.alpha))


class Softmax(Layer):
    """``exp(x)`` over its sum along an axis: positive numbers that add up to 1.

    Called with ``mask``, which broadcasts to x, the elements where it is False count as absent: they become 0, and
    the others add up to 1.

    Args:
        axis: The axis, or several that are taken together.

    Example:
        >>> import numpy as np
        >>> Softmax()(np.zeros((1, 4), "float32"))
        array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
        >>> Softmax()(np.zeros((1, 4), "float32"), mask=np.array([True, True, False, False]))
        array([[0.5, 0.5, 0. , 0. ]], dtype=float32)
    """

    axis: int | Sequence[int] = -1

    supports_masking = True

    def call(self, x: Any, mask: Any = None) -> Any:
        if mask is None:
            return self.normalised(x)
        mask = mask if ops.dtype_of(mask) == "bool" else ops.greater(mask, 0.5)
        lowest = -3e4 if self.compute_dtype == "float16" else -1e9
        # The second where is for rows that are masked as a whole.
        return ops.where(mask, self.normalised(ops.where(mask, x, lowest)), 0.0)

    def normalised(self, x: Any) -> Any:
        """The softmax of x over ``axis``."""
        if isinstance(self.axis, int):
            return ops.softmax(x, self.axis)
        return ops.exp(ops.subtract(x, ops.logsumexp(x, tuple(self.axis), keepdims=True)))
