"""Recurrent layers: a cell makes one step, a layer runs it over a sequence with ``ops.scan``.

The built-in cells multiply the whole sequence by their input kernel at once, before the loop; inside it only the
recurrent product is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from unilayers import activations, initializers, ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import Value, is_tracing
from unilayers.hints import PositiveInt, Probability
from unilayers.initializers import InitializerLike
from unilayers.layers.affine import ActivationLike, ConstraintLike, RegularizerLike, penalise
from unilayers.layers.base import Layer, is_tensor
from unilayers.ops.define import put_beside
from unilayers.random import Seed
from unilayers.registry import arguments_of, parameters, resolve, snake_case
from unilayers.structure import leaves_of, map_structure, pack_like
from unilayers.variable import Variable


def _function(activation: Any) -> Any:
    """What an ``activation`` argument stands for."""
    is_layer = isinstance(activation, Mapping)
    return resolve(Layer.registry, activation) if is_layer else activations.get(activation)


# ---- cells ------------------------------------------------------------------


class _First(Layer, abstract=True):
    """The arguments that the built-in cells and their layers have in common; in three parts, for Keras's order."""

    units: PositiveInt
    activation: ActivationLike = "tanh"


class _Second(Layer, abstract=True):
    recurrent_activation: ActivationLike = "sigmoid"


class _Rest(Layer, abstract=True):
    use_bias: bool = True
    kernel_initializer: InitializerLike = "glorot_uniform"
    recurrent_initializer: InitializerLike = "orthogonal"
    bias_initializer: InitializerLike = "zeros"
    kernel_regularizer: RegularizerLike = None
    recurrent_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None
    kernel_constraint: ConstraintLike = None
    recurrent_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None
    dropout: Probability = 0.0
    recurrent_dropout: Probability = 0.0
    seed: Seed = None


class GateCell(Layer, abstract=True):
    """What the dense and the convolutional cells share: weights of gates, and masks for a whole sequence.

    A step is cut in two: ``project`` is what does not need the state, so that a layer can do it for all steps at once;
    ``step`` is the rest.
    """

    def create_weights(self: Any, x_shape: tuple[int, ...], h_shape: tuple[int, ...], width: int) -> None:
        """Kernels from input and state to the gates, which are ``width`` in all, their bias, and what masks need."""
        self.kernel = self.add_weight(
            (*x_shape, width), self.kernel_initializer, regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint, name="kernel",
        )  # fmt: skip
        self.recurrent_kernel = self.add_weight(
            (*h_shape, width), self.recurrent_initializer, regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint, name="recurrent_kernel",
        )  # fmt: skip
        self.bias = None
        if self.use_bias:
            shape, initial = self.initial_bias(width)
            self.bias = self.add_weight(
                shape, initial, regularizer=self.bias_regularizer, constraint=self.bias_constraint, name="bias"
            )
        if self.dropout or self.recurrent_dropout:
            self.random_counter()

    def initial_bias(self: Any, width: int) -> tuple[tuple[int, ...], Any]:
        """The shape of the bias, and its initializer."""
        return (width,), self.bias_initializer

    def draw(self: Any, x: Any, states: Sequence[Any], training: bool) -> tuple[Any, Any]:
        """The masks of input and state for one sequence: the same at all its steps; None where nothing is dropped.

        Args:
            x: The input of a step.
            states: The states before it.
            training: Whether anything is dropped.
        """
        masks: list[Any] = []
        for like, rate in ((x, self.dropout), (states[0], self.recurrent_dropout)):
            if not training or not rate:
                masks.append(None)
                continue
            counter, key = self.next_random(self.seed)
            masks.append(ops.dropout(ops.ones_like(like), counter, rate=rate, key=key))
        return masks[0], masks[1]

    def project(self, x: Any, masks: tuple[Any, Any]) -> Any:
        """What the inputs of one step, or of all steps along the first axis, contribute to the gates."""
        raise NotImplementedError

    def step(self, z: Any, states: Sequence[Any], masks: tuple[Any, Any]) -> tuple[Any, list[Any]]:
        """Output and new states, from what ``project`` gave for a step."""
        raise NotImplementedError

    def _dropped(self, h: Any, masks: tuple[Any, Any]) -> Any:
        return h if masks[1] is None else ops.multiply(h, masks[1])

    def call(self, x: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        states = list(states) if isinstance(states, (list, tuple)) else [states]
        masks = self.draw(x, states, training)
        return self.step(self.project(x, masks), states, masks)


class _GatedCell(GateCell, _Rest, _First, abstract=True):
    """Base of the built-in cells, whose products are those of matrices."""

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1

    @property
    def state_size(self) -> Any:
        """The width of each state."""
        return self.units if self.states == 1 else [self.units] * self.states

    @property
    def output_size(self) -> int:
        """The width of the output."""
        return self.units

    def build(self, input_shape: Any) -> None:
        self.create_weights((self.known_size(input_shape, -1),), (self.units,), self.units * self.gates)

    def project(self, x: Any, masks: tuple[Any, Any]) -> Any:
        """What the inputs of one step, or of all steps along the first axis, contribute to the gates."""
        x = x if masks[0] is None else ops.multiply(x, masks[0])
        z = ops.matmul(x, self.kernel)
        return z if self.bias is None else ops.add(z, self._input_bias())

    def _input_bias(self) -> Any:
        return self.bias

    def run(self, xs: Any, states: list[Any], masks: tuple[Any, Any], reverse: bool) -> tuple[Any, list[Any]] | None:
        """All steps as one op: the outputs along the first axis, and the last states. None if there is no such op."""
        return None

    def _operands(self, xs: Any, states: list[Any], masks: tuple[Any, Any], bias: tuple[int, ...]) -> list[Any]:
        """What ``ops.lstm`` and ``ops.gru`` take; zeros of a shape in the place of a bias that is not there."""
        xs = xs if masks[0] is None else ops.multiply(xs, masks[0])
        given = _zeros_beside(xs, bias) if self.bias is None else self.bias
        return [xs, *states, self.kernel, self.recurrent_kernel, given]

    def _is_usual(self, step: Any, masks: tuple[Any, Any]) -> bool:
        """Whether a step is as in the papers: these activations, no dropped state, and nothing of a subclass's own."""
        own: Any = self
        functions = [_function(own.activation), _function(own.recurrent_activation)]
        whole = type(self).step is step and type(self).project is _GatedCell.project
        return whole and functions == [activations.tanh, activations.sigmoid] and masks[1] is None


class SimpleRNNCell(_GatedCell):
    """One step of `SimpleRNN`: ``h' = activation(x @ kernel + h @ recurrent_kernel + bias)``.

    Shapes: x ``(batch, features)``, states ``[(batch, units)]`` -> output ``(batch, units)``, states.

    Args:
        units: Width of the state and of the output.
        activation: A name, a function or a layer.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the input kernel.
        recurrent_initializer: Initial values of the recurrent kernel.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the input kernel.
        recurrent_regularizer: Penalty on the recurrent kernel.
        bias_regularizer: Penalty on the bias.
        kernel_constraint: Constraint on the input kernel.
        recurrent_constraint: Constraint on the recurrent kernel.
        bias_constraint: Constraint on the bias.
        dropout: Share of the inputs to drop, in training.
        recurrent_dropout: Share of the state to drop, in training.
        seed: Seed of the masks; the model's if None.
    """

    def step(self, z: Any, states: Sequence[Any], masks: tuple[Any, Any]) -> tuple[Any, list[Any]]:
        (h,) = states
        h = _function(self.activation)(ops.add(z, ops.matmul(self._dropped(h, masks), self.recurrent_kernel)))
        return h, [h]


class _LSTMArguments(_Rest, _Second, _First, abstract=True):
    unit_forget_bias: bool = True


class LSTMCell(_LSTMArguments, _GatedCell):
    """One step of `LSTM`, with gates i, f, c, o in this order along the kernels' last axis.

    ``i, f, o = recurrent_activation(...)``; ``c' = f * c + i * activation(...)``; ``h' = o * activation(c')``.

    Shapes: x ``(batch, features)``, states ``[h, c]`` of ``(batch, units)`` each -> output ``(batch, units)``, states.

    Args:
        units: Width of the states and of the output.
        activation: Of the candidate and of the output.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the input kernel.
        recurrent_initializer: Initial values of the recurrent kernel.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the input kernel.
        recurrent_regularizer: Penalty on the recurrent kernel.
        bias_regularizer: Penalty on the bias.
        kernel_constraint: Constraint on the input kernel.
        recurrent_constraint: Constraint on the recurrent kernel.
        bias_constraint: Constraint on the bias.
        dropout: Share of the inputs to drop, in training.
        recurrent_dropout: Share of the state to drop, in training.
        seed: Seed of the masks; the model's if None.
        recurrent_activation: Of the gates.
        unit_forget_bias: Whether the bias of the forget gate starts at 1.

    Reference:
        Hochreiter and Schmidhuber, Long short-term memory, 1997; forget bias: Jozefowicz et al., 2015.
    """

    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2

    def initial_bias(self, width: int) -> tuple[tuple[int, ...], Any]:
        return (width,), forget_bias(self.bias_initializer) if self.unit_forget_bias else self.bias_initializer

    def step(self, z: Any, states: Sequence[Any], masks: tuple[Any, Any]) -> tuple[Any, list[Any]]:
        h, c = states
        z = ops.add(z, ops.matmul(self._dropped(h, masks), self.recurrent_kernel))
        return lstm_step(z, c, self.activation, self.recurrent_activation)

    def run(self, xs: Any, states: list[Any], masks: tuple[Any, Any], reverse: bool) -> tuple[Any, list[Any]] | None:
        if not self._is_usual(LSTMCell.step, masks):
            return None
        ys, *states = ops.lstm(*self._operands(xs, states, masks, (4 * self.units,)), reverse=reverse)
        return ys, states


def lstm_step(z: Any, c: Any, activation: Any, recurrent_activation: Any) -> tuple[Any, list[Any]]:
    """Output and states from the sums that go into the four gates, along the last axis, and the cell's old state."""
    activate, gate = _function(activation), _function(recurrent_activation)
    i, f, candidate, o = ops.split(z, 4, -1)
    c = ops.add(ops.multiply(gate(f), c), ops.multiply(gate(i), activate(candidate)))
    h = ops.multiply(gate(o), activate(c))
    return h, [h, c]


def forget_bias(usual: Any) -> Any:
    """An initializer of the biases of LSTM's gates: as usual, and 1 for the forget gate, the second of four."""
    usual = initializers.get(usual)

    def initial(shape: tuple[int, ...], dtype: str, **kwargs: Any) -> np.ndarray:
        values = np.array(usual(shape, dtype, **kwargs))
        units = len(values) // 4
        values[units : 2 * units] = 1
        return values

    return initial


class _GRUArguments(_Rest, _Second, _First, abstract=True):
    reset_after: bool = True


class GRUCell(_GRUArguments, _GatedCell):
    """One step of `GRU`, with gates z (update), r (reset), h (candidate) in this order along the kernels' last axis.

    ``h' = z * h + (1 - z) * activation(...)``. With ``reset_after`` the reset gate is applied to the recurrent product,
    and there are two biases, for inputs and state; else to the state before it.

    Shapes: x ``(batch, features)``, states ``[(batch, units)]`` -> output ``(batch, units)``, states.

    Args:
        units: Width of the state and of the output.
        activation: Of the candidate.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the input kernel.
        recurrent_initializer: Initial values of the recurrent kernel.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the input kernel.
        recurrent_regularizer: Penalty on the recurrent kernel.
        bias_regularizer: Penalty on the bias.
        kernel_constraint: Constraint on the input kernel.
        recurrent_constraint: Constraint on the recurrent kernel.
        bias_constraint: Constraint on the bias.
        dropout: Share of the inputs to drop, in training.
        recurrent_dropout: Share of the state to drop, in training.
        seed: Seed of the masks; the model's if None.
        recurrent_activation: Of the gates.
        reset_after: Whether the reset gate comes after the recurrent product, as in cuDNN and PyTorch.

    Reference:
        Cho et al., Learning phrase representations using RNN encoder-decoder, 2014, arXiv:1406.1078.
    """

    gates: ClassVar[int] = 3

    def initial_bias(self, width: int) -> tuple[tuple[int, ...], Any]:
        return (2, width) if self.reset_after else (width,), self.bias_initializer

    def _input_bias(self) -> Any:
        return ops.getitem(self.bias, 0) if self.reset_after else self.bias

    def step(self, z: Any, states: Sequence[Any], masks: tuple[Any, Any]) -> tuple[Any, list[Any]]:
        (h,) = states
        activate, gate = _function(self.activation), _function(self.recurrent_activation)
        seen, kernel, both = self._dropped(h, masks), self.recurrent_kernel, 2 * self.units
        x_gates, x_candidate = ops.getitem(z, (..., slice(both))), ops.getitem(z, (..., slice(both, None)))
        if self.reset_after:
            inner = ops.matmul(seen, kernel)
            inner = inner if self.bias is None else ops.add(inner, ops.getitem(self.bias, 1))
            gates = ops.getitem(inner, (..., slice(both)))
        else:
            gates = ops.matmul(seen, ops.getitem(kernel, (slice(None), slice(both))))
        update, reset = ops.split(gate(ops.add(x_gates, gates)), 2, -1)
        if self.reset_after:
            inner = ops.multiply(reset, ops.getitem(inner, (..., slice(both, None))))
        else:
            inner = ops.matmul(ops.multiply(reset, seen), ops.getitem(kernel, (slice(None), slice(both, None))))
        candidate = activate(ops.add(x_candidate, inner))
        h = ops.add(candidate, ops.multiply(update, ops.subtract(h, candidate)))
        return h, [h]

    def run(self, xs: Any, states: list[Any], masks: tuple[Any, Any], reverse: bool) -> tuple[Any, list[Any]] | None:
        if not self.reset_after or not self._is_usual(GRUCell.step, masks):
            return None
        ys, *states = ops.gru(*self._operands(xs, states, masks, (2, 3 * self.units)), reverse=reverse)
        return ys, states


class StackedRNNCells(Layer):
    """Cells one on top of the other, as one cell.

    Args:
        cells: Cells, the lowest first: objects or ``{name: arguments}``.

    Example:
        >>> layer = RNN(StackedRNNCells([GRUCell(3), GRUCell(2)]))
        >>> layer(np.ones((4, 5, 6), "float32")).shape
        (4, 2)
    """

    cells: Sequence[Layer | Mapping[str, Any]]

    def __post_init__(self) -> None:
        self.cells = [resolve(Layer.registry, c, where="StackedRNNCells.cells") for c in self.cells]

    @property
    def state_size(self) -> list[Any]:
        """The width of the states of each cell."""
        return [c.state_size for c in self.cells]  # type: ignore[union-attr]

    @property
    def output_size(self) -> int:
        """The width of the output: that of the last cell."""
        return _width(self.cells[-1])

    def build(self, input_shape: Any) -> None:
        for cell in self.cells:
            _build(cell, input_shape)
            input_shape = (input_shape[0], _width(cell))

    def draw(self, x: Any, states: Sequence[Any], training: bool) -> list[Any]:
        found = []
        for cell, own in zip(self.cells, states, strict=True):
            found.append(_draw(cell, x, _as_list(own), training))
            x = _zeros_beside(x, (ops.shape_of(x)[0], _width(cell)))  # only its shape is looked at
        return found

    def project(self, x: Any, masks: list[Any]) -> Any:
        return _project(self.cells[0], x, masks[0])

    def step(self, z: Any, states: Sequence[Any], masks: list[Any]) -> tuple[Any, list[Any]]:
        new, y = [], None
        for i, (cell, own, mask) in enumerate(zip(self.cells, states, masks, strict=True)):
            y, after = _step(cell, _project(cell, y, mask) if i else z, _as_list(own), mask)
            new.append(after if isinstance(own, (list, tuple)) else after[0])
        return y, new

    def call(self, x: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        masks = self.draw(x, states, training)
        return self.step(self.project(x, masks), states, masks)


# A cell of one's own has ``call(inputs, states)`` and ``state_size`` only: then all of it is the step.


def _cut(cell: Any) -> bool:
    return hasattr(cell, "project") and hasattr(cell, "step")


def _draw(cell: Any, x: Any, states: Sequence[Any], training: bool) -> Any:
    return cell.draw(x, states, training) if _cut(cell) else training


def _project(cell: Any, x: Any, masks: Any) -> Any:
    return cell.project(x, masks) if _cut(cell) else x


def _step(cell: Any, z: Any, states: Sequence[Any], masks: Any) -> tuple[Any, list[Any]]:
    if _cut(cell):
        return cell.step(z, states, masks)
    y, new = cell(z, list(states), training=masks) if isinstance(cell, Layer) else cell.call(z, list(states))
    return y, _as_list(new)


def _build(cell: Any, input_shape: Any) -> None:
    if isinstance(cell, Layer) and not cell.built:
        cell.build(input_shape)
        cell.built = True


def _as_list(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def _width(cell: Any) -> int:
    """The width of a cell's output."""
    size = getattr(cell, "output_size", None)
    return leaves_of(cell.state_size)[0] if size is None else size


# ---- layers over sequences -----------------------------------------------------


class _Sequences(Layer, abstract=True):
    """Base of layers that run ``self.cell`` over ``(batch, time, ...)``."""

    _: KW_ONLY
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    zero_output_for_mask: bool = False

    supports_masking: ClassVar[bool] = True

    if TYPE_CHECKING:
        cell: Any

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, at_least=3)

    def build(self, input_shape: Any) -> None:
        batch, _, *features = input_shape
        _build(self.cell, (batch, *features))
        self._kept: list[Variable] = []
        if self.stateful:
            if batch is None:
                raise ShapeError(
                    "a stateful layer must know the size of its batches", where=self.where,
                    fix="Give it in Input(batch_shape=...) or Input(shape, batch_size=...)",
                )  # fmt: skip
            shapes = [ops.shape_of(s) for s in leaves_of(self.get_initial_state(batch))]
            for i, shape in enumerate(shapes):
                kept = Variable(np.zeros(shape), None, self.compute_dtype, False, name=f"state_{i}")
                kept._path = lambda name=kept.name: self._join(name)
                kept.is_weight = False
                self._kept.append(kept)
                self._variables.append(kept)

    def get_initial_state(self, batch_size: Any) -> list[Any]:
        """The states before the first step: what the cell's method of this name gives, or zeros.

        Args:
            batch_size: How many sequences there are.
        """
        own = getattr(self.cell, "get_initial_state", None)
        if own is not None:
            return _as_list(own(batch_size=batch_size))
        shapes = getattr(self.cell, "state_shapes", None)
        if shapes is not None:
            return [ops.zeros((batch_size, *shape), self.compute_dtype) for shape in shapes]
        sizes = self.cell.state_size
        return _as_list(map_structure(lambda n: ops.zeros((batch_size, *_as_list(n)), self.compute_dtype), sizes))

    def reset_state(self) -> None:
        """Forget the states that a stateful layer has kept."""
        for v in self._kept:
            v.assign(np.zeros(v.shape))

    reset_states = reset_state

    def _first_states(self, x: Any, given: Any) -> list[Any]:
        sizes, batch = self.cell.state_size, ops.shape_of(x)[0]
        if given is not None:
            return _as_list(given)
        if self.stateful:
            return _as_list(pack_like(sizes, map(ops.identity, self._kept)))
        if getattr(self.cell, "get_initial_state", None) is not None:
            return self.get_initial_state(batch)
        shapes = getattr(self.cell, "state_shapes", None)  # of states that are no vectors
        if shapes is not None:
            return [_zeros_beside(x, (batch, *shape)) for shape in shapes]
        return _as_list(map_structure(lambda n: _zeros_beside(x, (batch, n)), sizes))

    def call(self, x: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        states = map_structure(self._cast, self._first_states(x, initial_state))
        xs = ops.moveaxis(x, 1, 0)
        context = _draw(self.cell, ops.getitem(xs, 0), states, training)
        masks = None if mask is None else ops.expand_dims(ops.astype(ops.transpose(_first_mask(mask)), "bool"), -1)
        last, states, ys = self._whole(xs, states, context, masks) or self._run(
            _project(self.cell, xs, context), states, context, masks
        )
        if self.stateful:
            for kept, now in zip(self._kept, leaves_of(states), strict=True):
                kept.assign(now)
        y = ops.moveaxis(ys, 0, 1) if self.return_sequences else last
        penalise(self, y, getattr(self, "activity_regularizer", None))
        return (y, *states) if self.return_state else y

    def _whole(self, xs: Any, states: list[Any], context: Any, masks: Any) -> tuple[Any, list[Any], Any] | None:
        """The same as ``_run``, by the cell's own op, if it has one for this."""
        if masks is not None or self.unroll or not isinstance(self.cell, _GatedCell):
            return None
        found = self.cell.run(xs, states, context, self.go_backwards)
        if found is None:
            return None
        ys, states = found
        return states[0], states, ops.flip(ys, 0) if self.go_backwards else ys

    def _run(self, z: Any, states: list[Any], context: Any, masks: Any) -> tuple[Any, list[Any], Any]:
        """The loop: the last output, the last states, all outputs along time."""
        width = ops.shape_of(leaves_of(states)[0])
        before = ops.broadcast_to(
            ops.full_like(ops.getitem(leaves_of(states)[0], (..., slice(1))), 0.0), (*width[:-1], _width(self.cell))
        )

        def step(carry: tuple[Any, Any], now: Any) -> tuple[tuple[Any, Any], Any]:
            previous, old = carry
            row, here = now if masks is not None else (now, None)
            y, new = _step(self.cell, row, old, context)
            if here is not None:
                seen = _reaching(here, y)
                y = ops.where(seen, y, ops.full_like(y, 0.0) if self.zero_output_for_mask else previous)
                new = pack_like(
                    new,
                    (ops.where(_reaching(here, a), a, b) for a, b in zip(leaves_of(new), leaves_of(old), strict=True)),
                )
            return (y, new), (y if self.return_sequences else None)

        rows = z if masks is None else (z, masks)
        if self.unroll:
            (last, states), ys = _unrolled(step, (before, states), rows, self.go_backwards)
        else:
            (last, states), ys = ops.scan(step, (before, states), rows, reverse=self.go_backwards)
        if self.go_backwards and ys is not None:
            ys = ops.flip(ys, 0)  # in the order in which they were made
        return last, list(states), ys

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        mask = _first_mask(previous_mask)
        if not self.return_sequences or mask is None:
            return None
        return ops.flip(mask, 1) if self.go_backwards else mask


def _zeros_beside(x: Any, shape: tuple[Any, ...]) -> Any:
    """Zeros of x's dtype where x is."""
    if isinstance(x, Value) or is_tracing():
        return ops.zeros(shape, ops.dtype_of(x))
    return put_beside(x, np.zeros(shape), ops.dtype_of(x))


def _first_mask(mask: Any) -> Any:
    return mask[0] if isinstance(mask, (list, tuple)) else mask


def _reaching(mask: Any, x: Any) -> Any:
    """A mask of shape (batch, 1) with as many axes as x."""
    extra = len(ops.shape_of(x)) - 2
    return ops.reshape(mask, (*ops.shape_of(mask), *[1] * extra)) if extra else mask


def _unrolled(step: Any, carry: Any, rows: Any, backwards: bool) -> tuple[Any, Any]:
    """The loop written out."""
    length = ops.shape_of(leaves_of(rows)[0])[0]
    if not isinstance(length, int):
        raise ShapeError("a loop over a length not yet known cannot be unrolled", fix="Give the length in Input(shape)")
    ys = []
    for t in reversed(range(length)) if backwards else range(length):
        carry, y = step(carry, map_structure(lambda x: ops.getitem(x, t), rows))  # noqa: B023
        ys.append(y)
    ys = ys[::-1] if backwards else ys
    return carry, None if ys[0] is None else ops.stack(ys)


class RNN(_Sequences):
    """Runs any cell over a sequence.

    A cell is a layer with ``state_size`` (an int, or a list of them) and ``call(inputs, states) -> (output, states)``.

    Shapes: x ``(batch, time, ...)`` -> ``(batch, units)``, or ``(batch, time, units)`` with ``return_sequences``; with
    ``return_state`` a tuple of that and the last states.

    Args:
        cell: The cell, or a list of cells to be stacked.
        return_sequences: Whether to return the output of every step, not only of the last.
        return_state: Whether to return the last states, too.
        go_backwards: Whether to begin at the end; outputs come in that order.
        stateful: Whether a batch starts with the states of the batch before; the size of batches must be known.
        unroll: Whether the loop is written out in the graph, for short sequences of known length.
        zero_output_for_mask: Whether the output of a masked step is 0 instead of that of the step before.

    Example:
        >>> class Adding(Layer):
        ...     state_size = 2
        ...     def call(self, inputs, states):
        ...         return states[0] + inputs, [states[0] + inputs]
        >>> RNN(Adding())(np.ones((1, 3, 2), "float32"))
        array([[3., 3.]], dtype=float32)
    """

    cell: Any

    def __post_init__(self) -> None:
        given = self.cell
        several = isinstance(given, (list, tuple))
        self.cell = StackedRNNCells(given) if several else _resolved(given, "RNN.cell")
        if not hasattr(self.cell, "state_size") or not hasattr(self.cell, "call"):
            raise UnilayersError(
                "not a cell", where="RNN.cell", expected="state_size and call(inputs, states)", received=repr(given)
            )


def _resolved(given: Any, where: str) -> Any:
    """A layer that may be given by its name."""
    return resolve(Layer.registry, given, where=where) if isinstance(given, (str, Mapping)) else given


class _OwnCell(_Sequences, abstract=True):
    """Base of layers that make their cell from their own arguments."""

    cell_class: ClassVar[type[_GatedCell]]

    _: KW_ONLY
    activity_regularizer: RegularizerLike = None
    use_cudnn: Literal["auto"] | bool = "auto"

    def __post_init__(self) -> None:
        own, wanted = arguments_of(self), parameters(self.cell_class)  # type: ignore[arg-type]
        shared = {n: v for n, v in own.items() if n in wanted and n not in ("name", "trainable")}
        self.cell = self.cell_class(**shared)


class SimpleRNN(_Rest, _First, _OwnCell):
    """A recurrent network with one matrix: ``h' = activation(x @ kernel + h @ recurrent_kernel + bias)``.

    Shapes: x ``(batch, time, features)`` -> ``(batch, units)``, or ``(batch, time, units)`` with ``return_sequences``.

    Args:
        units: Width of the state and of the output.
        activation: A name, a function or a layer.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the input kernel.
        recurrent_initializer: Initial values of the recurrent kernel.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the input kernel.
        recurrent_regularizer: Penalty on the recurrent kernel.
        bias_regularizer: Penalty on the bias.
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
        activity_regularizer: Penalty on the output.
        use_cudnn: Kept for Keras's signature; a backend decides by itself.

    Example:
        >>> SimpleRNN(3)(np.ones((2, 5, 4), "float32")).shape
        (2, 3)
    """

    cell_class = SimpleRNNCell


class LSTM(_LSTMArguments, _OwnCell):
    """Long short-term memory: a state that gates write to, forget from and read.

    Shapes: x ``(batch, time, features)`` -> ``(batch, units)``, or ``(batch, time, units)`` with ``return_sequences``;
    with ``return_state`` also h and c, each ``(batch, units)``.

    Args:
        units: Width of the states and of the output.
        activation: Of the candidate and of the output.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the input kernel.
        recurrent_initializer: Initial values of the recurrent kernel.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the input kernel.
        recurrent_regularizer: Penalty on the recurrent kernel.
        bias_regularizer: Penalty on the bias.
        kernel_constraint: Constraint on the input kernel.
        recurrent_constraint: Constraint on the recurrent kernel.
        bias_constraint: Constraint on the bias.
        dropout: Share of the inputs to drop, in training; the same ones at all steps.
        recurrent_dropout: Share of the state to drop, in training.
        seed: Seed of the masks; the model's if None.
        recurrent_activation: Of the gates.
        unit_forget_bias: Whether the bias of the forget gate starts at 1.
        return_sequences: Whether to return the output of every step, not only of the last.
        return_state: Whether to return the last states, too.
        go_backwards: Whether to begin at the end; outputs come in that order.
        stateful: Whether a batch starts with the states of the batch before; the size of batches must be known.
        unroll: Whether the loop is written out in the graph, for short sequences of known length.
        zero_output_for_mask: Whether the output of a masked step is 0 instead of that of the step before.
        activity_regularizer: Penalty on the output.
        use_cudnn: Kept for Keras's signature; a backend decides by itself.

    Reference:
        Hochreiter and Schmidhuber, Long short-term memory, 1997.

    Example:
        >>> y, h, c = LSTM(3, return_state=True)(np.ones((2, 5, 4), "float32"))
        >>> y.shape, bool((y == h).all())
        ((2, 3), True)
    """

    cell_class = LSTMCell


class GRU(_GRUArguments, _OwnCell):
    """Gated recurrent unit: as `LSTM` with two gates and one state.

    Shapes: x ``(batch, time, features)`` -> ``(batch, units)``, or ``(batch, time, units)`` with ``return_sequences``.

    Args:
        units: Width of the state and of the output.
        activation: Of the candidate.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the input kernel.
        recurrent_initializer: Initial values of the recurrent kernel.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the input kernel.
        recurrent_regularizer: Penalty on the recurrent kernel.
        bias_regularizer: Penalty on the bias.
        kernel_constraint: Constraint on the input kernel.
        recurrent_constraint: Constraint on the recurrent kernel.
        bias_constraint: Constraint on the bias.
        dropout: Share of the inputs to drop, in training; the same ones at all steps.
        recurrent_dropout: Share of the state to drop, in training.
        seed: Seed of the masks; the model's if None.
        recurrent_activation: Of the gates.
        reset_after: Whether the reset gate comes after the recurrent product, as in cuDNN and PyTorch.
        return_sequences: Whether to return the output of every step, not only of the last.
        return_state: Whether to return the last states, too.
        go_backwards: Whether to begin at the end; outputs come in that order.
        stateful: Whether a batch starts with the states of the batch before; the size of batches must be known.
        unroll: Whether the loop is written out in the graph, for short sequences of known length.
        zero_output_for_mask: Whether the output of a masked step is 0 instead of that of the step before.
        activity_regularizer: Penalty on the output.
        use_cudnn: Kept for Keras's signature; a backend decides by itself.

    Reference:
        Cho et al., Learning phrase representations using RNN encoder-decoder, 2014, arXiv:1406.1078.

    Example:
        >>> GRU(3, return_sequences=True)(np.ones((2, 5, 4), "float32")).shape
        (2, 5, 3)
    """

    cell_class = GRUCell


# ---- wrappers ------------------------------------------------------------------


class Bidirectional(Layer):
    """Two copies of a recurrent layer, one from each end, with their outputs merged step by step.

    Shapes: as the layer's, with twice the width for ``merge_mode="concat"``.

    Args:
        layer: The layer that goes forwards: an object or ``{name: arguments}``.
        merge_mode: ``concat``, ``sum``, ``mul``, ``ave``, or None for a list of both.
        backward_layer: The layer that goes backwards; a copy of ``layer`` if None.

    Raises:
        UnilayersError: if both go the same way, or differ in what they return.

    Reference:
        Schuster and Paliwal, Bidirectional recurrent neural networks, 1997.

    Example:
        >>> Bidirectional(GRU(3))(np.ones((2, 5, 4), "float32")).shape
        (2, 6)
    """

    layer: Any
    merge_mode: Literal["concat", "sum", "mul", "ave"] | None = "concat"
    backward_layer: Any = None

    supports_masking: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.layer = _resolved(self.layer, "Bidirectional.layer")
        if self.backward_layer is None:
            name = f"backward_{self.layer.name or snake_case(type(self.layer).__name__)}"
            config = {**self.layer.get_config(), "go_backwards": not self.layer.go_backwards, "name": name}
            self.backward_layer = type(self.layer).from_config(config)
        self.backward_layer = _resolved(self.backward_layer, "Bidirectional.backward_layer")
        for both in (self.layer, self.backward_layer):
            both.zero_output_for_mask = both.return_sequences
        if self.layer.go_backwards == self.backward_layer.go_backwards:
            raise UnilayersError("both layers go the same way", where="Bidirectional", fix="Set go_backwards in one")
        for what in ("return_sequences", "return_state", "stateful"):
            if getattr(self.layer, what) != getattr(self.backward_layer, what):
                raise UnilayersError(f"the two layers differ in {what}", where="Bidirectional")

    @property
    def forward_layer(self) -> Any:
        """The layer that goes forwards."""
        return self.layer

    def call(self, x: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        half = len(initial_state) // 2 if initial_state is not None else 0
        first, second = (initial_state[:half], initial_state[half:]) if half else (None, None)
        y = self.layer(x, initial_state=first, mask=mask, training=training)
        z = self.backward_layer(x, initial_state=second, mask=mask, training=training)
        states: tuple[Any, ...] = ()
        if self.layer.return_state:
            (y, *mine), (z, *theirs) = y, z
            states = (*mine, *theirs)
        if self.layer.return_sequences:
            z = ops.flip(z, 1)
        merged = self._merged(y, z)
        if not states:
            return merged
        return (*merged, *states) if self.merge_mode is None else (merged, *states)

    def _merged(self, y: Any, z: Any) -> Any:
        match self.merge_mode:
            case "concat":
                return ops.concat([y, z], -1)
            case "sum":
                return ops.add(y, z)
            case "ave":
                return ops.multiply(ops.add(y, z), 0.5)
            case "mul":
                return ops.multiply(y, z)
        return [y, z]

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return _first_mask(previous_mask) if self.layer.return_sequences else None


class TimeDistributed(Layer):
    """Applies one layer, with the same weights, to every time step.

    Shapes: x ``(batch, time, ...)`` -> ``(batch, time, ...)`` with the layer's output for each step.

    Args:
        layer: The layer: an object or ``{name: arguments}``.

    Example:
        >>> from unilayers.layers import Dense
        >>> TimeDistributed(Dense(2))(np.ones((3, 4, 5), "float32")).shape
        (3, 4, 2)
    """

    layer: Any

    supports_masking: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.layer = _resolved(self.layer, "TimeDistributed.layer")

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, at_least=2)

    def call(self, x: Any, training: bool = False) -> Any:
        batch, time, *rest = ops.shape_of(x)
        y = self.layer(ops.reshape(x, (batch * time, *rest)), training=training)
        return map_structure(lambda v: ops.reshape(v, (batch, time, *ops.shape_of(v)[1:])) if is_tensor(v) else v, y)
