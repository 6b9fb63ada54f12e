"""Convolutions over one, two or three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.hints import NonNegativeInt, PositiveInt
from unilayers.initializers import InitializerLike
from unilayers.layers.affine import ActivationLike, Affine, RegularizerLike
from unilayers.layers.spatial import DataFormat, Sizes, Spatial, per_axis

Padding: TypeAlias = (
    Literal["valid", "same", "causal"]
    | NonNegativeInt
    | Sequence[NonNegativeInt | tuple[NonNegativeInt, NonNegativeInt]]
)


class Conv(Affine, Spatial, abstract=True):
    """Base of the convolutions: ``activation(conv(x, kernel) + bias)``, a window that slides over the spatial axes.

    Shapes: x ``(batch, *spatial, channels)``, kernel ``(*kernel_size, channels // groups, filters)``, bias
    ``(filters,)`` -> ``(batch, *new_spatial, filters)``; with "channels_first" the channels follow the batch.

    Args:
        filters: Number of output channels.
        kernel_size: Size of the window: one int, or one per spatial axis.
        strides: Steps between windows, likewise.
        padding: "valid" adds nothing; "same" adds zeros so that the output has ``ceil(size / stride)`` elements, the
            odd one at the end; "causal" (one spatial axis only) adds all in front; or the zeros to add: an int, or per
            axis an int or a pair (low, high).
        data_format: "channels_last" (also None) or "channels_first".
        dilation_rate: Distance between the window's elements; with strides of 1 only.
        groups: Channels and filters are cut into so many groups that do not see each other.
        activation: A name, a function or a layer; None is linear.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the kernel.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the kernel.
        bias_regularizer: Penalty on the bias.

    Raises:
        UnilayersError: if ``filters`` is no multiple of ``groups``, or both strides and dilation are above 1.
        ShapeError: if x has the wrong number of axes or channels, or is smaller than the window.
    """

    filters: PositiveInt
    kernel_size: Sizes
    strides: Sizes = 1
    padding: Padding = "valid"
    data_format: DataFormat = None
    dilation_rate: Sizes = 1
    groups: PositiveInt = 1
    activation: ActivationLike = None
    use_bias: bool = True
    kernel_initializer: InitializerLike = "glorot_uniform"
    bias_initializer: InitializerLike = "zeros"
    kernel_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("kernel_size", "strides", "dilation_rate")
        if isinstance(self.padding, Sequence) and not isinstance(self.padding, str):
            self.check_sizes("padding")
        wrong = {
            "filters are no multiple of groups": self.filters % self.groups,
            "strides and dilation_rate are both above 1": max(per_axis(self.strides, self.rank)) > 1
            and max(per_axis(self.dilation_rate, self.rank)) > 1,
            "causal padding needs one spatial axis": self.padding == "causal" and self.rank != 1,
        }
        for problem in (text for text, holds in wrong.items() if holds):
            raise UnilayersError(problem, where=repr(self))

    def build(self, input_shape: Any) -> None:
        channels = self.known_size(input_shape, 1 if self.channels_first else -1)
        if channels % self.groups:
            raise ShapeError(
                "the channels cannot be cut into groups",
                expected=f"a multiple of groups={self.groups}",
                received=f"{channels} channels in {tuple(input_shape)}",
            )
        self.add_kernel_and_bias((*per_axis(self.kernel_size, self.rank), channels // self.groups, self.filters))

    def compute(self, x: Any) -> Any:
        self.require_size(x, -1, self.kernel.shape[-2] * self.groups)
        y = ops.conv(x, self.kernel, self.strides, self.padding, self.dilation_rate, self.groups)
        return self.add_bias(y)

    def call(self, x: Any) -> Any:
        # After the channels are back in their place, as it matters for softmax.
        return self.activate(super().call(x))


class Conv1D(Conv, aliases=("Convolution1D",)):
    """Convolution over one spatial axis, such as time. Arguments, shapes and errors as of ``Conv``.

    Example:
        >>> import numpy as np
        >>> Conv1D(4, 3, padding="causal")(np.ones((2, 10, 1), "float32")).shape
        (2, 10, 4)
    """

    rank = 1


class Conv2D(Conv, aliases=("Convolution2D",)):
    """Convolution over two spatial axes: height and width. Arguments, shapes and errors as of ``Conv``.

    Example:
        >>> import numpy as np
        >>> Conv2D(4, (3, 2), strides=2)(np.ones((2, 9, 8, 3), "float32")).shape
        (2, 4, 4, 4)
    """

    rank = 2


class Conv3D(Conv, aliases=("Convolution3D",)):
    """Convolution over three spatial axes. Arguments, shapes and errors as of ``Conv``.

    Example:
        >>> import numpy as np
        >>> Conv3D(4, 3, padding="same")(np.ones((2, 4, 4, 4, 1), "float32")).shape
        (2, 4, 4, 4, 4)
    """

    rank = 3
