"""Inputs, dense and embedding layers, and the plain wrappers: Identity, Lambda."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import UnilayersError
from unilayers.graph import Value, leaf
from unilayers.hints import PositiveInt
from unilayers.initializers import InitializerLike
from unilayers.layers.affine import ActivationLike, Affine, RegularizerLike
from unilayers.layers.base import Layer
from unilayers.spec import INTS, Dim, Spec, public_shape

# ---- inputs -----------------------------------------------------------------


def Input(
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    *,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
) -> Value:
    """The symbolic input of a model.

    Sizes that are None stay open. Two inputs with the same name (or none) have the same open sizes on the same axes;
    give inputs names of their own where these may differ.

    Args:
        shape: Shape of one sample, the batch axis left out.
        batch_size: Size of the batch axis; any if None.
        dtype: The default float dtype if None.
        batch_shape: Shape with the batch axis, in place of ``shape`` and ``batch_size``.
        name: The input's name: ``input`` if None.

    Example:
        >>> Input((8, 8, 1))
        <Value input shape=(None, 8, 8, 1) dtype=float32>
    """
    return InputLayer(shape, batch_size, batch_shape=batch_shape, dtype=dtype, name=name).symbolic_input()


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
        return leaf("input", name, Spec(shape, self.dtype or floatx()))

    @classmethod
    def of(cls, value: Value) -> InputLayer:
        """The input layer that a symbolic input comes from."""
        batch, *shape = public_shape(value.shape)
        return cls(shape, batch, dtype=value.dtype, name=value.node.attrs["name"])

    def call(self, x: Any) -> Any:
        return x


# ---- layers with weights ----------------------------------------------------


class Dense(Affine):
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

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, at_least=2)

    def build(self, input_shape: Any) -> None:
        self.add_kernel_and_bias((self.known_size(input_shape, -1), self.units))

    def call(self, x: Any) -> Any:
        self.require_size(x, -1, self.kernel.shape[0])
        return self.activate(self.add_bias(ops.matmul(x, self.kernel)))


class Embedding(Layer):
    """A vector for each integer: row ``x`` of a table.

    Shapes: x ``(batch, ...)`` of integers in ``[0, input_dim)``, embeddings ``(input_dim, output_dim)`` ->
    ``(batch, ..., output_dim)``. Floats are truncated to integers.

    Args:
        input_dim: Number of rows: the largest index plus 1.
        output_dim: Length of the vectors.
        embeddings_initializer: Initial values; an array of the table's shape starts from given vectors.
        embeddings_regularizer: Penalty on the table.

    Example:
        >>> import numpy as np
        >>> table = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
        >>> Embedding(3, 2, embeddings_initializer=table)(np.array([2, 1]))
        array([[3., 4.],
               [1., 2.]], dtype=float32)
    """

    input_dim: PositiveInt
    output_dim: PositiveInt
    embeddings_initializer: InitializerLike = "uniform"
    embeddings_regularizer: RegularizerLike = None

    def build(self, input_shape: Any) -> None:
        self.embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            name="embeddings",
        )

    def call(self, x: Any) -> Any:
        indices = x if ops.dtype_of(x) in INTS else ops.astype(x, "int32")
        return ops.take(self.embeddings, indices, axis=0)


# ---- wrappers ---------------------------------------------------------------


class Identity(Layer):
    """x itself; a placeholder.

    Example:
        >>> import numpy as np
        >>> Identity()(np.ones(2, "float32"))
        array([1., 1.], dtype=float32)
    """

    def call(self, x: Any) -> Any:
        return x


class Lambda(Layer):
    """A Python function as a layer. Write it with ``ops`` or operators, and it works on every backend.

    It can hold no weights, and a recipe or a saved model cannot contain it: subclass ``Layer`` for that.

    Args:
        function: ``function(x, **arguments)``; it may take ``training`` too.
        output_shape: Not needed, since shapes follow from the function; accepted as Keras has it.
        arguments: Further keyword arguments of the function.

    Example:
        >>> import numpy as np
        >>> Lambda(lambda x, power: x**power, arguments={"power": 2})(np.array([3.0], "float32"))
        array([9.], dtype=float32)
    """

    function: Callable[..., Any]
    output_shape: Any = None
    _: KW_ONLY
    arguments: Mapping[str, Any] | None = None

    def call(self, x: Any, training: bool = False) -> Any:
        keywords = dict(self.arguments or {})
        if "training" in inspect.signature(self.function).parameters:
            keywords["training"] = training
        return self.function(x, **keywords)
