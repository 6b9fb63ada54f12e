"""Convolutions over one, two or three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.hints import NonNegativeInt, PositiveInt
from unilayers.initializers import InitializerLike
from unilayers.layers.affine import ActivationLike, Affine, ConstraintLike, RegularizerLike
from unilayers.layers.spatial import DataFormat, Sizes, Spatial, per_axis

Padding: TypeAlias = (
    Literal["valid", "same", "causal"]
    | NonNegativeInt
    | Sequence[NonNegativeInt | tuple[NonNegativeInt, NonNegativeInt]]
)


class Windowed(Affine, Spatial, abstract=True):
    """Base of all convolutions: checks the window's fields, and activates when the channels are back in their place."""

    def __post_init__(self: Any) -> None:
        super().__post_init__()
        self.check_sizes("kernel_size")
        self.check_steps()
        if isinstance(self.padding, Sequence) and not isinstance(self.padding, str):
            self.check_sizes("padding")
        if self.padding == "causal" and self.rank != 1:
            raise UnilayersError("causal padding needs one spatial axis", where=repr(self))

    def window(self: Any) -> tuple[int, ...]:
        """The window's size per spatial axis."""
        return per_axis(self.kernel_size, self.rank)

    def channels(self, input_shape: Any) -> int:
        """The number of input channels, which must be known."""
        return self.known_size(input_shape, 1 if self.channels_first else -1)

    def call(self, x: Any) -> Any:
        return self.activate(super().call(x))  # softmax is over the last axis, whatever the data format


# ---- convolution ------------------------------------------------------------


class Conv(Windowed, abstract=True):
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
        activity_regularizer: Penalty on the output.
        kernel_constraint: Where updates may move the kernel.
        bias_constraint: Where updates may move the bias.

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
    activity_regularizer: RegularizerLike = None
    kernel_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filters % self.groups:
            raise UnilayersError("filters are no multiple of groups", where=repr(self))

    def build(self, input_shape: Any) -> None:
        channels = self.channels(input_shape)
        if channels % self.groups:
            raise ShapeError(
                "the channels cannot be cut into groups",
                expected=f"a multiple of groups={self.groups}",
                received=f"{channels} channels in {tuple(input_shape)}",
            )
        self.add_kernel_and_bias((*self.window(), channels // self.groups, self.filters))

    def compute(self, x: Any) -> Any:
        self.require_size(x, -1, self.kernel.shape[-2] * self.groups)
        y = ops.conv(x, self.kernel, self.strides, self.padding, dilation_rate=self.dilation_rate, groups=self.groups)
        return self.add_bias(y)


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


# ---- transposed convolution -------------------------------------------------


class _Transposing(Windowed, abstract=True):
    """The arguments that all transposed convolutions begin with; the next two come in either order, as Keras has it."""

    filters: PositiveInt
    kernel_size: Sizes
    strides: Sizes = 1
    padding: Literal["valid", "same"] = "valid"


class _PaddingThenFormat(_Transposing, abstract=True):
    output_padding: NonNegativeInt | Sequence[NonNegativeInt] | None = None
    data_format: DataFormat = None


class _FormatThenPadding(_Transposing, abstract=True):
    data_format: DataFormat = None
    output_padding: NonNegativeInt | Sequence[NonNegativeInt] | None = None


class ConvTranspose(_Transposing, abstract=True):
    """Base of the transposed convolutions: spread each element over a window, as the convolution with the same
    arguments gathers a window into one element; so sizes grow by the strides.

    Shapes: x ``(batch, *spatial, channels)``, kernel ``(*kernel_size, filters, channels)``, bias ``(filters,)`` ->
    ``(batch, *new_spatial, filters)``; with "channels_first" the channels follow the batch.

    Args:
        filters: Number of output channels.
        kernel_size: Size of the window: one int, or one per spatial axis.
        strides: Steps between windows in the output, likewise.
        padding: "valid" gives ``(size - 1) * stride + max(reach, stride)`` elements, where ``reach = (kernel_size - 1)
            * dilation_rate + 1``; "same" gives ``size * stride``.
        output_padding: Further elements at the end, fewer than the strides. "valid" then gives ``(size - 1) * stride +
            reach + output_padding`` elements, "same" ``(size - 1) * stride + reach % 2 + output_padding``.
        data_format: "channels_last" (also None) or "channels_first".
        dilation_rate: Distance between the window's elements; with strides of 1 only.
        activation: A name, a function or a layer; None is linear.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the kernel.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the kernel.
        bias_regularizer: Penalty on the bias.
        activity_regularizer: Penalty on the output.
        kernel_constraint: Where updates may move the kernel.
        bias_constraint: Where updates may move the bias.

    Raises:
        UnilayersError: if both strides and dilation are above 1, or ``output_padding`` is not below the strides.
        ShapeError: if x has the wrong number of axes or channels.
    """

    dilation_rate: Sizes = 1
    activation: ActivationLike = None
    use_bias: bool = True
    kernel_initializer: InitializerLike = "glorot_uniform"
    bias_initializer: InitializerLike = "zeros"
    kernel_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None
    activity_regularizer: RegularizerLike = None
    kernel_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None

    def __post_init__(self: Any) -> None:
        super().__post_init__()
        self.check_sizes("output_padding")
        extra = per_axis(0 if self.output_padding is None else self.output_padding, self.rank)
        if any(e >= s for e, s in zip(extra, per_axis(self.strides, self.rank), strict=True)):
            raise UnilayersError("output_padding is not below the strides", where=repr(self))

    def build(self, input_shape: Any) -> None:
        self.add_kernel_and_bias((*self.window(), self.filters, self.channels(input_shape)), self.filters)

    def compute(self: Any, x: Any) -> Any:
        self.require_size(x, -1, self.kernel.shape[-1])
        y = ops.conv_transpose(
            x, self.kernel, self.strides, self.padding, self.output_padding, dilation_rate=self.dilation_rate
        )
        return self.add_bias(y)


class Conv1DTranspose(ConvTranspose, _PaddingThenFormat, aliases=("Convolution1DTranspose",)):
    """Transposed convolution over one spatial axis. Arguments, shapes and errors as of ``ConvTranspose``.

    Example:
        >>> import numpy as np
        >>> Conv1DTranspose(4, 3, strides=2)(np.ones((2, 10, 1), "float32")).shape
        (2, 21, 4)
    """

    rank = 1


class Conv2DTranspose(ConvTranspose, _PaddingThenFormat, aliases=("Convolution2DTranspose",)):
    """Transposed convolution over two spatial axes. Arguments, shapes and errors as of ``ConvTranspose``.

    Example:
        >>> import numpy as np
        >>> Conv2DTranspose(4, 3, strides=2, padding="same")(np.ones((2, 5, 4, 3), "float32")).shape
        (2, 10, 8, 4)
    """

    rank = 2


class Conv3DTranspose(ConvTranspose, _FormatThenPadding, aliases=("Convolution3DTranspose",)):
    """Transposed convolution over three spatial axes. Arguments, shapes and errors as of ``ConvTranspose``.

    Example:
        >>> import numpy as np
        >>> Conv3DTranspose(4, 2)(np.ones((2, 3, 4, 5, 1), "float32")).shape
        (2, 4, 5, 6, 4)
    """

    rank = 3


# ---- channel by channel -----------------------------------------------------


class DepthwiseConv(Windowed, abstract=True):
    """Base of the depthwise convolutions: each channel by itself, with ``depth_multiplier`` windows of its own.

    Shapes: x ``(batch, *spatial, channels)``, kernel ``(*kernel_size, channels, depth_multiplier)``, bias ``(channels *
    depth_multiplier,)`` -> ``(batch, *new_spatial, channels * depth_multiplier)``, what comes of one channel side by
    side; with "channels_first" the channels follow the batch.

    Args:
        kernel_size: Size of the window: one int, or one per spatial axis.
        strides: Steps between windows, likewise.
        padding: "valid", "same", "causal" or the zeros to add, as of ``Conv``.
        depth_multiplier: Output channels per input channel.
        data_format: "channels_last" (also None) or "channels_first".
        dilation_rate: Distance between the window's elements; with strides of 1 only.
        activation: A name, a function or a layer; None is linear.
        use_bias: Whether a bias is added.
        depthwise_initializer: Initial values of the kernel.
        bias_initializer: Initial values of the bias.
        depthwise_regularizer: Penalty on the kernel.
        bias_regularizer: Penalty on the bias.
        activity_regularizer: Penalty on the output.
        depthwise_constraint: Where updates may move the kernel.
        bias_constraint: Where updates may move the bias.

    Raises:
        UnilayersError: if both strides and dilation are above 1.
        ShapeError: if x has the wrong number of axes or channels, or is smaller than the window.
    """

    kernel_size: Sizes
    strides: Sizes = 1
    padding: Padding = "valid"
    depth_multiplier: PositiveInt = 1
    data_format: DataFormat = None
    dilation_rate: Sizes = 1
    activation: ActivationLike = None
    use_bias: bool = True
    depthwise_initializer: InitializerLike = "glorot_uniform"
    bias_initializer: InitializerLike = "zeros"
    depthwise_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None
    activity_regularizer: RegularizerLike = None
    depthwise_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None

    def build(self, input_shape: Any) -> None:
        channels = self.channels(input_shape)
        self.kernel = self.add_weight(
            (*self.window(), channels, self.depth_multiplier),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
            name="kernel",
        )
        self.create_bias((channels * self.depth_multiplier,))

    def compute(self, x: Any) -> Any:
        self.require_size(x, -1, self.kernel.shape[-2])
        y = ops.depthwise_conv(x, self.kernel, self.strides, self.padding, dilation_rate=self.dilation_rate)
        return self.add_bias(y)


class DepthwiseConv1D(DepthwiseConv):
    """Depthwise convolution over one spatial axis. Arguments, shapes and errors as of ``DepthwiseConv``.

    Example:
        >>> import numpy as np
        >>> DepthwiseConv1D(3, depth_multiplier=2)(np.ones((2, 10, 5), "float32")).shape
        (2, 8, 10)
    """

    rank = 1


class DepthwiseConv2D(DepthwiseConv):
    """Depthwise convolution over two spatial axes. Arguments, shapes and errors as of ``DepthwiseConv``.

    Example:
        >>> import numpy as np
        >>> DepthwiseConv2D(3, padding="same")(np.ones((2, 9, 8, 5), "float32")).shape
        (2, 9, 8, 5)
    """

    rank = 2


class SeparableConv(Windowed, abstract=True):
    """Base of the separable convolutions: a depthwise convolution, then one with windows of 1 that mixes the channels.

    Shapes: x ``(batch, *spatial, channels)``, depthwise kernel ``(*kernel_size, channels, depth_multiplier)``,
    pointwise kernel ``(1, ..., channels * depth_multiplier, filters)``, bias ``(filters,)`` -> ``(batch, *new_spatial,
    filters)``; with "channels_first" the channels follow the batch.

    Args:
        filters: Number of output channels.
        kernel_size: Size of the depthwise window: one int, or one per spatial axis.
        strides: Steps between windows, likewise.
        padding: "valid", "same", "causal" or the zeros to add, as of ``Conv``.
        data_format: "channels_last" (also None) or "channels_first".
        dilation_rate: Distance between the window's elements; with strides of 1 only.
        depth_multiplier: Channels that the depthwise convolution makes of one.
        activation: A name, a function or a layer; None is linear.
        use_bias: Whether a bias is added.
        depthwise_initializer: Initial values of the depthwise kernel.
        pointwise_initializer: Initial values of the pointwise kernel.
        bias_initializer: Initial values of the bias.
        depthwise_regularizer: Penalty on the depthwise kernel.
        pointwise_regularizer: Penalty on the pointwise kernel.
        bias_regularizer: Penalty on the bias.
        activity_regularizer: Penalty on the output.
        depthwise_constraint: Where updates may move the depthwise kernel.
        pointwise_constraint: Where updates may move the pointwise kernel.
        bias_constraint: Where updates may move the bias.

    Raises:
        UnilayersError: if both strides and dilation are above 1.
        ShapeError: if x has the wrong number of axes or channels, or is smaller than the window.

    Reference:
        Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, 2016, arXiv 1610.02357.
    """

    filters: PositiveInt
    kernel_size: Sizes
    strides: Sizes = 1
    padding: Padding = "valid"
    data_format: DataFormat = None
    dilation_rate: Sizes = 1
    depth_multiplier: PositiveInt = 1
    activation: ActivationLike = None
    use_bias: bool = True
    depthwise_initializer: InitializerLike = "glorot_uniform"
    pointwise_initializer: InitializerLike = "glorot_uniform"
    bias_initializer: InitializerLike = "zeros"
    depthwise_regularizer: RegularizerLike = None
    pointwise_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None
    activity_regularizer: RegularizerLike = None
    depthwise_constraint: ConstraintLike = None
    pointwise_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None

    def build(self, input_shape: Any) -> None:
        channels = self.channels(input_shape)
        self.depthwise_kernel = self.add_weight(
            (*self.window(), channels, self.depth_multiplier),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
            name="depthwise_kernel",
        )
        self.pointwise_kernel = self.add_weight(
            (*(1,) * self.rank, channels * self.depth_multiplier, self.filters),
            self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
            constraint=self.pointwise_constraint,
            name="pointwise_kernel",
        )
        self.create_bias((self.filters,))

    def compute(self, x: Any) -> Any:
        self.require_size(x, -1, self.depthwise_kernel.shape[-2])
        y = ops.separable_conv(
            x, self.depthwise_kernel, self.pointwise_kernel, self.strides, self.padding,
            dilation_rate=self.dilation_rate,
        )  # fmt: skip
        return self.add_bias(y)


class SeparableConv1D(SeparableConv, aliases=("SeparableConvolution1D",)):
    """Separable convolution over one spatial axis. Arguments, shapes and errors as of ``SeparableConv``.

    Example:
        >>> import numpy as np
        >>> SeparableConv1D(4, 3)(np.ones((2, 10, 5), "float32")).shape
        (2, 8, 4)
    """

    rank = 1


class SeparableConv2D(SeparableConv, aliases=("SeparableConvolution2D",)):
    """Separable convolution over two spatial axes. Arguments, shapes and errors as of ``SeparableConv``.

    Example:
        >>> import numpy as np
        >>> SeparableConv2D(4, 3, strides=2)(np.ones((2, 9, 8, 5), "float32")).shape
        (2, 4, 3, 4)
    """

    rank = 2
