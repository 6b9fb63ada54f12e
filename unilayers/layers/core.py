"""Inputs, dense and embedding layers, and the plain wrappers: Identity, Lambda."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, field, replace
from typing import Any

from unilayers import initializers, ops
from unilayers.config import floatx
from unilayers.dtype_policies import DTypePolicy
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import Value, leaf
from unilayers.hints import PositiveFloat, PositiveInt
from unilayers.initializers import InitializerLike
from unilayers.layers.affine import ActivationLike, Affine, ConstraintLike, LowRank, RegularizerLike
from unilayers.layers.base import Layer, in_dtype
from unilayers.spec import INTS, Dim, Spec, public_shape

# ---- inputs -----------------------------------------------------------------


def Input(
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    sparse: bool | None = None,
    ragged: bool | None = None,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
    tensor: Value | None = None,
    optional: bool = False,
) -> Value:
    """The symbolic input of a model.

    Sizes that are None stay open. Two inputs with the same name (or none) have the same open sizes on the same axes;
    give inputs names of their own where these may differ.

    Args:
        shape: Shape of one sample, the batch axis left out.
        batch_size: Size of the batch axis; any if None.
        dtype: The default float dtype if None.
        sparse: Not supported; accepted as Keras has it.
        ragged: Likewise.
        batch_shape: Shape with the batch axis, in place of ``shape`` and ``batch_size``.
        name: The input's name: ``input`` if None.
        tensor: A symbolic input that is there already: it is given back.
        optional: Not supported, likewise: a model is called with all its inputs.

    Raises:
        UnilayersError: if neither or both of ``shape`` and ``batch_shape`` are given, for a ``tensor`` that is no
            symbolic input, and for what is not supported.

    Example:
        >>> Input((8, 8, 1))
        <Value input shape=(None, 8, 8, 1) dtype=float32>
    """
    for argument, value in {"sparse": sparse, "ragged": ragged, "optional": optional}.items():
        if value:
            raise UnilayersError(
                f"{argument} inputs are not supported", where="Input", fix="Use a dense one, always given"
            )
    if tensor is None:
        return InputLayer(shape, batch_size, batch_shape=batch_shape, dtype=dtype, name=name).symbolic_input()
    if not isinstance(tensor, Value) or tensor.node.op != "input" or tensor.origin is not None:
        raise UnilayersError(
            "not a symbolic input", where="Input.tensor", expected="what Input gives", received=repr(tensor),
            fix="Make an Input of its shape and dtype",
        )  # fmt: skip
    return tensor


class InputLayer(Layer, aliases=("Input",)):
    """What ``Input`` says, as a layer: for the head of a list of layers and for recipes.

    Shapes: x ``(batch, *shape)`` -> x, unchanged.

    Args:
        shape: Shape of one sample, the batch axis left out.
        batch_size: Size of the batch axis; any if None.
        batch_shape: Shape with the batch axis, in place of ``shape`` and ``batch_size``.

    Raises:
        UnilayersError: if neither or both of ``shape`` and ``batch_shape`` are given.

    Example:
        >>> InputLayer((4,), name="features").symbolic_input().shape
        (batch, 4)
    """

    shape: Sequence[PositiveInt | None] | None = None
    batch_size: PositiveInt | None = None
    batch_shape: Sequence[PositiveInt | None] | None = None

    def _start(self) -> None:
        super()._start()
        self._default_policy = DTypePolicy(floatx())  # data are not in the dtype of mixed computation

    def __post_init__(self) -> None:
        if (self.shape is None) == (self.batch_shape is None):
            raise UnilayersError(
                "give shape or batch_shape", where="Input", expected="one of the two", received=repr(self)
            )

    def symbolic_input(self) -> Value:
        """A new symbolic value of this shape."""
        sizes = self.batch_shape or (self.batch_size, *(self.shape or ()))
        name = self.name or "input"
        symbols = ["batch", *(f"{name}_{axis}" for axis in range(1, len(sizes)))]
        shape = tuple(Dim.symbol(s) if d is None else d for d, s in zip(sizes, symbols, strict=True))
        return leaf("input", name, Spec(shape, self.variable_dtype))

    @classmethod
    def of(cls, value: Value) -> InputLayer:
        """The input layer that a symbolic input comes from."""
        batch, *shape = public_shape(value.shape)
        return cls(shape, batch, dtype=value.dtype, name=value.node.attrs["name"])

    def call(self, x: Any) -> Any:
        return x


# ---- layers with weights ----------------------------------------------------


class Dense(Affine, LowRank):
    """Every unit sees every input: ``activation(x @ kernel + bias)``.

    Shapes: x ``(batch, ..., inputs)``, kernel ``(inputs, units)``, bias ``(units,)`` -> ``(batch, ..., units)``.

    Args:
        units: Width of the output.
        activation: A name, a function or a layer; None is linear.
        use_bias: Whether a bias is added.
        kernel_initializer: Initial values of the kernel.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the kernel.
        bias_regularizer: Penalty on the bias.
        activity_regularizer: Penalty on the output.
        kernel_constraint: Where updates may move the kernel.
        bias_constraint: Where updates may move the bias.
        lora_rank: Rank of a product that trains in the place of the kernel, which is frozen: see ``enable_lora``.
        lora_alpha: Factor of that product, over the rank; the rank if None.

    Raises:
        ShapeError: if x has fewer than two axes, or another last size than at the first call.

    Example:
        >>> import numpy as np
        >>> Dense(2, kernel_initializer="ones", bias_initializer="ones")(np.array([[1.0, 2.0, 3.0]], "float32"))
        array([[7., 7.]], dtype=float32)
    """

    units: PositiveInt
    activation: ActivationLike = None
    use_bias: bool = True
    kernel_initializer: InitializerLike = "glorot_uniform"
    bias_initializer: InitializerLike = "zeros"
    kernel_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None
    activity_regularizer: RegularizerLike = None
    kernel_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None
    lora_rank: PositiveInt | None = None
    lora_alpha: float | None = None

    supports_masking = True

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, at_least=2)

    def build(self, input_shape: Any) -> None:
        self.add_kernel_and_bias((self.known_size(input_shape, -1), self.units))
        self.start_lora()

    def call(self, x: Any) -> Any:
        self.require_size(x, -1, self.kernel.shape[0])
        return self.activate(self.add_bias(ops.matmul(x, self.adapted())))


EQUATION = re.compile(r"(\.\.\.|)([a-zA-Z]+)(\.\.\.|),([a-zA-Z]+)->(\.\.\.|)([a-zA-Z]+)(\.\.\.|)")


class EinsumDense(Affine, LowRank):
    """A dense layer over any axes: ``activation(einsum(equation, x, kernel) + bias)``.

    In the equation, letters name the axes of x, of the kernel, and of the output: "abc,cd->abd" is ``Dense`` for
    samples of two axes, and "abc,cde->abde" gives each place a matrix. ``...`` at the same end of x and the output
    stands for any axes that stay.

    Shapes: as the equation says; the kernel's sizes follow from x and ``output_shape``; the bias has the sizes of
    ``bias_axes``, and 1 on the axes between and after them.

    Args:
        equation: ``x,kernel->output``.
        output_shape: Sizes of the output without the batch, or without what ``...`` stands for; None for those that
            x has.
        activation: A name, a function or a layer; None is linear.
        bias_axes: Letters of the output's axes that the bias has; None for no bias.
        kernel_initializer: Initial values of the kernel; its fans are the sizes that are summed over, and the others.
        bias_initializer: Initial values of the bias.
        kernel_regularizer: Penalty on the kernel.
        bias_regularizer: Penalty on the bias.
        kernel_constraint: Where updates may move the kernel.
        bias_constraint: Where updates may move the bias.
        lora_rank: Rank of a product that trains in the place of the kernel, which is frozen: see ``enable_lora``.
        lora_alpha: Factor of that product, over the rank; the rank if None.
        activity_regularizer: Penalty on the output.

    Raises:
        UnilayersError: if the equation or ``bias_axes`` cannot be read.
        ShapeError: if x or ``output_shape`` does not fit the equation.

    Example:
        >>> import numpy as np
        >>> EinsumDense("abc,cde->abde", (None, 4, 5), bias_axes="de")(np.ones((2, 7, 3), "float32")).shape
        (2, 7, 4, 5)
    """

    equation: str
    output_shape: PositiveInt | Sequence[PositiveInt | None]
    activation: ActivationLike = None
    bias_axes: str | None = None
    kernel_initializer: InitializerLike = "glorot_uniform"
    bias_initializer: InitializerLike = "zeros"
    kernel_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None
    kernel_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None
    lora_rank: PositiveInt | None = None
    lora_alpha: float | None = None
    _: KW_ONLY
    activity_regularizer: RegularizerLike = None

    def __post_init__(self) -> None:
        super().__post_init__()
        found = EQUATION.fullmatch(self.equation.replace(" ", ""))
        if found is None or found[1] != found[5] or found[3] != found[7] or (found[1] and found[3]):
            raise UnilayersError(
                "not an equation of a dense layer", where="EinsumDense.equation", expected="x,kernel->output in "
                "letters, with ... at the same end of x and output if at all", received=repr(self.equation),
            )  # fmt: skip
        self._before, self._x, self._after, self._kernel, _, self._output, _ = found.groups()
        wrong = {
            "an axis of the kernel is in neither x nor the output": set(self._kernel) - {*self._x, *self._output},
            "an axis of the output is in neither x nor the kernel": set(self._output) - {*self._x, *self._kernel},
            "an axis of the bias is not in the output": set(self.bias_axes or "") - set(self._output),
        }
        for problem, letters in wrong.items():
            if letters:
                raise UnilayersError(problem, where=repr(self), received=", ".join(sorted(letters)))

    @property
    def use_bias(self) -> bool:
        """Whether there is a bias."""
        return self.bias_axes is not None

    def check_input(self, x: Any) -> None:
        least = len(self._x)
        self.require_ndim(x, at_least=least, exactly=None if self._before or self._after else least)

    def build(self, input_shape: Any) -> None:
        sizes = self._sizes(input_shape)
        unknown = [c for c in {*self._kernel, *(self.bias_axes or "")} if sizes.get(c) is None]
        if unknown:
            raise ShapeError(
                "the weights need a size that is not known",
                expected=f"a number for {', '.join(sorted(unknown))}",
                received=f"x {tuple(input_shape)}, output_shape {self.output_shape}",
            )
        summed, kept = ([i for i, c in enumerate(self._kernel) if (c in self._output) is k] for k in (False, True))
        self.kernel = self.add_weight(
            [sizes[c] for c in self._kernel],
            _with_fans(initializers.get(self.kernel_initializer, where="initializer of 'kernel'"), summed, kept),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        letters = self.bias_axes or ""
        first = min((self._output.index(c) for c in letters), default=0)
        hidden = len(input_shape) - len(self._x) if self._after else 0
        self.create_bias((*(sizes[c] if c in letters else 1 for c in self._output[first:]), *(1,) * hidden))
        self.start_lora()

    def _sizes(self, input_shape: Sequence[int | None]) -> dict[str, Any]:
        """The size of each letter; None where it is not known."""
        hidden = len(input_shape) - len(self._x)
        sizes = dict(zip(self._x, input_shape[hidden if self._before else 0 :], strict=False))
        given = (self.output_shape,) if isinstance(self.output_shape, int) else tuple(self.output_shape)
        named = self._output if self._before else self._output[1:]
        if len(given) != len(named):
            raise ShapeError("output_shape does not fit", expected=f"a size for each of {named}", received=str(given))
        for letter, size in zip(named, given, strict=True):
            if size is not None and sizes.setdefault(letter, size) not in (size, None):
                raise ShapeError(
                    "output_shape does not fit x", expected=f"{sizes[letter]} for {letter}", received=str(size)
                )
            sizes[letter] = sizes.get(letter) or size
        return sizes

    def call(self, x: Any) -> Any:
        return self.activate(self.add_bias(ops.einsum(self.equation, x, self.adapted())))


def _with_fans(initializer: Any, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    """The initializer, told which axes of the kernel count as inputs and as outputs unless it knows."""
    if not hasattr(initializer, "input_axes") or None not in (initializer.input_axes, initializer.output_axes):
        return initializer
    return replace(initializer, input_axes=tuple(inputs), output_axes=tuple(outputs))


class _Table(Layer, abstract=True):
    """The sizes of a table of vectors."""

    input_dim: PositiveInt
    output_dim: PositiveInt


class Embedding(_Table, LowRank):
    """A vector for each integer: row ``x`` of a table.

    Shapes: x ``(batch, ...)`` of integers in ``[0, input_dim)``, embeddings ``(input_dim, output_dim)`` ->
    ``(batch, ..., output_dim)``. Floats are truncated to integers.

    Args:
        input_dim: Number of rows: the largest index plus 1.
        output_dim: Length of the vectors.
        embeddings_initializer: Initial values; an array of the table's shape starts from given vectors.
        embeddings_regularizer: Penalty on the table.
        embeddings_constraint: Where updates may move the table.
        mask_zero: Whether 0 stands for no step: the layers that follow then get the mask of the others.
        lora_rank: Rank of a product that trains in the place of the table, which is frozen: see ``enable_lora``.
        lora_alpha: Factor of that product, over the rank; the rank if None.

    Example:
        >>> import numpy as np
        >>> table = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
        >>> Embedding(3, 2, embeddings_initializer=table)(np.array([2, 1]))
        array([[3., 4.],
               [1., 2.]], dtype=float32)
    """

    embeddings_initializer: InitializerLike = "uniform"
    embeddings_regularizer: RegularizerLike = None
    embeddings_constraint: ConstraintLike = None
    mask_zero: bool = False
    autocast: bool = field(default=False, kw_only=True)  # indices are numbers, and only the rows taken need a cast
    _: KW_ONLY
    lora_rank: PositiveInt | None = None
    lora_alpha: float | None = None

    adapts = "embeddings"

    def __post_init__(self) -> None:
        self.makes_masks = self.mask_zero  # type: ignore[misc]

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def build(self, input_shape: Any) -> None:
        self.embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
            name="embeddings",
        )
        self.start_lora()

    def call(self, x: Any) -> Any:
        indices = x if ops.dtype_of(x) in INTS else ops.astype(x, "int32")
        return in_dtype(self.adapted(lambda table: ops.take_(table, indices, axis=0)), self.compute_dtype)


class _Tied(_Table, abstract=True):
    tie_weights: bool = True


class ReversibleEmbedding(Embedding, _Tied):
    """An ``Embedding`` that also leads back: called with ``reverse=True``, it gives vectors a score for each row, their
    products with it. For language models whose first and last weights are one.

    Shapes: as of ``Embedding``; in reverse, x ``(batch, ..., output_dim)`` -> ``(batch, ..., input_dim)``.

    Args:
        tie_weights: Whether the way back has the same table, or one of its own, ``reverse_embeddings``.
        reverse_dtype: Float dtype of the way back; the layer's if None.
        logit_soft_cap: Keeps the scores between plus and minus this: ``tanh(score / cap) * cap``; None for no limits.

    Reference:
        Press, Wolf, Using the Output Embedding to Improve Language Models, 2016, arXiv 1608.05859.

    Example:
        >>> import numpy as np
        >>> layer = ReversibleEmbedding(3, 2, embeddings_initializer="ones")
        >>> layer(layer(np.array([2])), reverse=True)
        array([[2., 2., 2.]], dtype=float32)
    """

    reverse_dtype: str | None = None
    logit_soft_cap: PositiveFloat | None = None

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.reverse_embeddings = None
        if not self.tie_weights:
            shape = (self.output_dim, self.input_dim)
            self.reverse_embeddings = self.add_weight(shape, self.embeddings_initializer, name="reverse_embeddings")

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return super().compute_mask(inputs, previous_mask) if ops.dtype_of(inputs) in INTS else None  # not in reverse

    def call(self, x: Any, reverse: bool = False) -> Any:
        if not reverse:
            return super().call(x)
        self.require_size(x, -1, self.output_dim)
        kernel = self.reverse_embeddings
        if kernel is None:
            kernel = ops.matrix_transpose(self.adapted())
        dtype = self.reverse_dtype or self.compute_dtype
        scores = ops.matmul(in_dtype(x, dtype), in_dtype(kernel, dtype))
        cap = self.logit_soft_cap
        return scores if cap is None else ops.multiply(ops.tanh(ops.divide(scores, cap)), cap)


# ---- wrappers ---------------------------------------------------------------


class Identity(Layer):
    """x itself; a placeholder.

    Example:
        >>> import numpy as np
        >>> Identity()(np.ones(2, "float32"))
        array([1., 1.], dtype=float32)
    """

    supports_masking = True

    def call(self, x: Any) -> Any:
        return x


class Masking(Layer):
    """Leaves out steps: those whose features all have one value become 0, and the layers that follow get the mask of
    the others.

    Shapes: x ``(batch, ..., features)`` -> the same; the mask ``(batch, ...)``.

    Args:
        mask_value: The value.

    Example:
        >>> import numpy as np
        >>> Masking(-1.0)(np.array([[[1.0, 2.0], [-1.0, -1.0]]], "float32"))[0]
        array([[1., 2.],
               [0., 0.]], dtype=float32)
    """

    mask_value: float = 0.0

    makes_masks = True

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return ops.any(ops.not_equal(inputs, self.mask_value), -1)

    def call(self, x: Any) -> Any:
        return ops.where(ops.any(ops.not_equal(x, self.mask_value), -1, keepdims=True), x, 0.0)


class Lambda(Layer):
    """A Python function as a layer. Write it with ``ops`` or operators, and it works on every backend.

    It can hold no weights, and a recipe or a saved model cannot contain it: subclass ``Layer`` for that.

    Args:
        function: ``function(x, **arguments)``; it may take ``training`` too.
        output_shape: Not needed, since shapes follow from the function; accepted as Keras has it.
        mask: Mask of the output: an array, or a function of the input and its mask; None for none.
        arguments: Further keyword arguments of the function.

    Example:
        >>> import numpy as np
        >>> Lambda(lambda x, power: x**power, arguments={"power": 2})(np.array([3.0], "float32"))
        array([9.], dtype=float32)
    """

    function: Callable[..., Any]
    output_shape: Any = None
    mask: Any = None
    arguments: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.makes_masks = self.mask is not None  # type: ignore[misc]

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return self.mask(inputs, previous_mask) if callable(self.mask) else self.mask

    def call(self, x: Any, training: bool = False) -> Any:
        keywords = dict(self.arguments or {})
        if "training" in inspect.signature(self.function).parameters:
            keywords["training"] = training
        return self.function(x, **keywords)
