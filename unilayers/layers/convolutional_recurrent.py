"""Recurrent layers over pictures: an LSTM whose products are convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.hints import PositiveInt, Probability
from unilayers.initializers import InitializerLike
from unilayers.layers.affine import ActivationLike, ConstraintLike, RegularizerLike
from unilayers.layers.base import Layer
from unilayers.layers.recurrent import GateCell, _Sequences, forget_bias, lstm_step
from unilayers.ops.conv import conv_padding, per_axis, window_counts
from unilayers.random import Seed
from unilayers.registry import arguments_of, parameters


class _Arguments(Layer, abstract=True):
    filters: PositiveInt
    kernel_size: PositiveInt | Sequence[PositiveInt]
    strides: PositiveInt | Sequence[PositiveInt] = 1
    padding: Literal["valid", "same"] = "valid"
    data_format: Literal["channels_last", "channels_first"] | None = None
    dilation_rate: PositiveInt | Sequence[PositiveInt] = 1
    activation: ActivationLike = "tanh"
    recurrent_activation: ActivationLike = "sigmoid"
    use_bias: bool = True
    kernel_initializer: InitializerLike = "glorot_uniform"
    recurrent_initializer: InitializerLike = "orthogonal"
    bias_initializer: InitializerLike = "zeros"
    unit_forget_bias: bool = True
    kernel_regularizer: RegularizerLike = None
    recurrent_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None
    activity_regularizer: RegularizerLike = None
    kernel_constraint: ConstraintLike = None
    recurrent_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None
    dropout: Probability = 0.0
    recurrent_dropout: Probability = 0.0
    seed: Seed = None


class _ConvLSTMCell(GateCell, _Arguments):
    """One step; its inputs have their channels last."""

    def build(self, input_shape: Any) -> None:
        spatial, filters = input_shape[1:-1], self.filters
        if None in spatial:
            raise ShapeError("the sizes of the pictures must be known", where=self.where, received=str(spatial))
        window, strides, dilation = (
            per_axis(getattr(self, name), len(spatial), name) for name in ("kernel_size", "strides", "dilation_rate")
        )
        self._how: dict[str, Any] = {"strides": strides, "dilation_rate": dilation}
        pads = conv_padding(self.padding, spatial, window, strides, dilation)
        counts = window_counts(spatial, window, strides, pads, dilation)
        self.state_size, self.state_shapes = [filters, filters], [(*counts, filters)] * 2
        self.create_weights((*window, self.known_size(input_shape, -1)), (*window, filters), 4 * filters)

    def initial_bias(self, width: int) -> tuple[tuple[int, ...], Any]:
        return (width,), forget_bias(self.bias_initializer) if self.unit_forget_bias else self.bias_initializer

    @property
    def output_size(self) -> int:
        """Channels of the output."""
        return self.filters

    def project(self, x: Any, masks: tuple[Any, Any]) -> Any:
        x = x if masks[0] is None else ops.multiply(x, masks[0])
        shape = ops.shape_of(x)
        rank = len(self._how["strides"])
        flat = shape if len(shape) == rank + 2 else (shape[0] * shape[1], *shape[2:])
        z = ops.conv(ops.reshape(x, flat), self.kernel, padding=self.padding, **self._how)
        z = z if self.bias is None else ops.add(z, self.bias)
        return z if flat is shape else ops.reshape(z, (*shape[:2], *ops.shape_of(z)[1:]))

    def step(self, z: Any, states: Sequence[Any], masks: tuple[Any, Any]) -> tuple[Any, list[Any]]:
        h, c = states
        z = ops.add(z, ops.conv(self._dropped(h, masks), self.recurrent_kernel, padding="same"))
        return lstm_step(z, c, self.activation, self.recurrent_activation)


class _ConvLSTM(_Arguments, _Sequences, abstract=True):
    """Base of the layers: they bring the channels last for the cell."""

    rank: ClassVar[int]

    def __post_init__(self) -> None:
        own, wanted = arguments_of(self), parameters(_ConvLSTMCell)
        given = {n: v for n, v in own.items() if n in wanted and n not in ("name", "trainable", "activity_regularizer")}
        self.cell = _ConvLSTMCell(**given, name="conv_lstm_cell")

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, exactly=self.rank + 3)

    def _turned(self, x: Any, back: bool = False) -> Any:
        """x with its channels last, or back where they were; steps before them stay."""
        if self.data_format != "channels_first":
            return x
        last = len(ops.shape_of(x)) - 1
        first = last - self.rank
        return ops.moveaxis(x, last, first) if back else ops.moveaxis(x, first, last)

    def build(self, input_shape: Any) -> None:
        if self.data_format == "channels_first":
            batch, time, channels, *spatial = input_shape
            input_shape = (batch, time, *spatial, channels)
        super().build(input_shape)

    def call(self, x: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        states = None if initial_state is None else [self._turned(s) for s in initial_state]
        y = super().call(self._turned(x), states, mask, training)
        if self.return_state:
            return tuple(self._turned(v, back=True) for v in y)
        return self._turned(y, back=True)


class ConvLSTM1D(_ConvLSTM):
    """`LSTM` over sequences of rows: its products are convolutions along one axis.

    Shapes: x ``(batch, time, steps, channels)`` -> ``(batch, new_steps, filters)``, with ``return_sequences``
    ``(batch, time, new_steps, filters)``.

    Args:
        filters: Channels of the state and of the output.
        kernel_size: The window, of both convolutions.
        strides: Steps between windows of the input's convolution.
        padding: Of the input's convolution; the state's keeps its size.
        data_format: Where the channels are; last if None.
        dilation_rate: Distance of the kernel's elements in the input.
        activation: Of the candidate and of the output.
        recurrent_activation: Of the gates.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the input kernel.
        recurrent_initializer: Initial values of the recurrent kernel.
        bias_initializer: Initial values of the bias.
        unit_forget_bias: Whether the bias of the forget gate starts at 1.
        kernel_regularizer: Penalty on the input kernel.
        recurrent_regularizer: Penalty on the recurrent kernel.
        bias_regularizer: Penalty on the bias.
        activity_regularizer: Penalty on the output.
        kernel_constraint: Constraint on the input kernel.
        recurrent_constraint: Constraint on the recurrent kernel.
        bias_constraint: Constraint on the bias.
        dropout: Share of the inputs to drop, in training; the same ones at all steps.
        recurrent_dropout: Share of the state to drop, in training.
        seed: Seed of the masks; the model's if None.
        return_sequences: Whether to return the output of every step, not only of the last.
        return_state: Whether to return the last states, too.
        go_backwards: Whether to begin at the end; outputs come in that order.
        stateful: Whether a batch starts with the states of the batch before; the size of batches must be known.
        unroll: Whether the loop is written out in the graph, for short sequences of known length.
        zero_output_for_mask: Whether the output of a masked step is 0 instead of that of the step before.

    Reference:
        Shi et al., Convolutional LSTM network, 2015, arXiv:1506.04214.

    Example:
        >>> import numpy as np
        >>> ConvLSTM1D(3, 2)(np.ones((2, 4, 6, 1), "float32")).shape
        (2, 5, 3)
    """

    rank = 1


class ConvLSTM2D(_ConvLSTM):
    """`LSTM` over sequences of pictures: its products are convolutions over two axes.

    Shapes: x ``(batch, time, height, width, channels)`` -> ``(batch, new_height, new_width, filters)``, with
    ``return_sequences`` ``(batch, time, new_height, new_width, filters)``.

    Args:
        filters: Channels of the state and of the output.
        kernel_size: The window, of both convolutions.
        strides: Steps between windows of the input's convolution.
        padding: Of the input's convolution; the state's keeps its size.
        data_format: Where the channels are; last if None.
        dilation_rate: Distance of the kernel's elements in the input.
        activation: Of the candidate and of the output.
        recurrent_activation: Of the gates.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the input kernel.
        recurrent_initializer: Initial values of the recurrent kernel.
        bias_initializer: Initial values of the bias.
        unit_forget_bias: Whether the bias of the forget gate starts at 1.
        kernel_regularizer: Penalty on the input kernel.
        recurrent_regularizer: Penalty on the recurrent kernel.
        bias_regularizer: Penalty on the bias.
        activity_regularizer: Penalty on the output.
        kernel_constraint: Constraint on the input kernel.
        recurrent_constraint: Constraint on the recurrent kernel.
        bias_constraint: Constraint on the bias.
        dropout: Share of the inputs to drop, in training; the same ones at all steps.
        recurrent_dropout: Share of the state to drop, in training.
        seed: Seed of the masks; the model's if None.
        return_sequences: Whether to return the output of every step, not only of the last.
        return_state: Whether to return the last states, too.
        go_backwards: Whether to begin at the end; outputs come in that order.
        stateful: Whether a batch starts with the states of the batch before; the size of batches must be known.
        unroll: Whether the loop is written out in the graph, for short sequences of known length.
        zero_output_for_mask: Whether the output of a masked step is 0 instead of that of the step before.

    Reference:
        Shi et al., Convolutional LSTM network, 2015, arXiv:1506.04214.

    Example:
        >>> import numpy as np
        >>> ConvLSTM2D(3, 2)(np.ones((2, 4, 6, 6, 1), "float32")).shape
        (2, 5, 5, 3)
    """

    rank = 2


class ConvLSTM3D(_ConvLSTM):
    """`LSTM` over sequences of volumes: its products are convolutions over three axes.

    Shapes: x ``(batch, time, depth, height, width, channels)`` -> ``(batch, *new, filters)``, with
    ``return_sequences`` ``(batch, time, *new, filters)``.

    Args:
        filters: Channels of the state and of the output.
        kernel_size: The window, of both convolutions.
        strides: Steps between windows of the input's convolution.
        padding: Of the input's convolution; the state's keeps its size.
        data_format: Where the channels are; last if None.
        dilation_rate: Distance of the kernel's elements in the input.
        activation: Of the candidate and of the output.
        recurrent_activation: Of the gates.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the input kernel.
        recurrent_initializer: Initial values of the recurrent kernel.
        bias_initializer: Initial values of the bias.
        unit_forget_bias: Whether the bias of the forget gate starts at 1.
        kernel_regularizer: Penalty on the input kernel.
        recurrent_regularizer: Penalty on the recurrent kernel.
        bias_regularizer: Penalty on the bias.
        activity_regularizer: Penalty on the output.
        kernel_constraint: Constraint on the input kernel.
        recurrent_constraint: Constraint on the recurrent kernel.
        bias_constraint: Constraint on the bias.
        dropout: Share of the inputs to drop, in training; the same ones at all steps.
        recurrent_dropout: Share of the state to drop, in training.
        seed: Seed of the masks; the model's if None.
        return_sequences: Whether to return the output of every step, not only of the last.
        return_state: Whether to return the last states, too.
        go_backwards: Whether to begin at the end; outputs come in that order.
        stateful: Whether a batch starts with the states of the batch before; the size of batches must be known.
        unroll: Whether the loop is written out in the graph, for short sequences of known length.
        zero_output_for_mask: Whether the output of a masked step is 0 instead of that of the step before.

    Reference:
        Shi et al., Convolutional LSTM network, 2015, arXiv:1506.04214.

    Example:
        >>> import numpy as np
        >>> ConvLSTM3D(3, 2)(np.ones((2, 2, 3, 3, 3, 1), "float32")).shape
        (2, 2, 2, 2, 3)
    """

    rank = 3
