"""What the layers of categories share: indices as vectors, search in a sorted table, data to adapt to, texts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError, UnilayersError
from unilayers.graph import Value
from unilayers.layers.base import Layer, is_tensor
from unilayers.ops.define import unboxed
from unilayers.spec import INTS

Encoding: TypeAlias = Literal["int", "one_hot", "multi_hot", "count"]
Salt: TypeAlias = int | Sequence[int] | None


def encoded(indices: Any, mode: str, depth: int, dtype: str, weights: Any = None) -> Any:
    """Indices as they are, or as vectors of ``depth``; an index outside counts nowhere.

    Shapes: indices ``(..., n)`` -> for "one_hot" ``(..., n, depth)``, or ``(..., depth)`` where n is 1 and not the only
    axis; for "multi_hot" and "count" ``(..., depth)``.

    Args:
        indices: Integers.
        mode: "int", "one_hot", "multi_hot" (1 for each index that is there) or "count" (how often it is there).
        depth: Length of the vectors.
        dtype: Of the result.
        weights: What each element counts, for "count"; shape as indices.

    Example:
        >>> encoded(np.array([[0, 2, 2]]), "count", 4, "float32")
        array([[1., 0., 2., 0.]], dtype=float32)
    """
    if mode == "int":
        return ops.astype(indices, dtype)
    shape = ops.shape_of(indices)
    if mode == "one_hot":
        if len(shape) > 1 and shape[-1] == 1:
            indices = ops.squeeze(indices, -1)
        return ops.one_hot(indices if shape else ops.reshape(indices, (1,)), depth, dtype=dtype)
    hot = ops.one_hot(indices if shape else ops.reshape(indices, (1,)), depth, dtype=dtype)
    if mode == "multi_hot":
        return ops.max(hot, -2)
    if weights is not None:
        hot = ops.multiply(hot, ops.expand_dims(ops.astype(weights, dtype), -1))
    return ops.sum(hot, -2)


def as_integers(x: Any, dtype: str = "int64") -> Any:
    """x as integers of the dtype; floats are cut off."""
    return x if ops.dtype_of(x) == dtype else ops.astype(x, dtype)


def count_not_above(table: np.ndarray, x: Any) -> Any:
    """How many numbers of a sorted table are not above each element of x, as int32; for NaN all.

    Example:
        >>> count_not_above(np.array([0.0, 1.0, 5.0]), np.array([-1.0, 1.0, 9.0]))
        array([0, 2, 3], dtype=int32)
    """
    found = ops.zeros_like(x, "int32")
    for bit in reversed(range(len(table).bit_length())):  # a binary search with the same steps for all elements
        further = ops.add(found, 1 << bit)
        there = ops.take(table, ops.subtract(ops.minimum(further, len(table)), 1))
        on = ops.logical_and(ops.less_equal(further, len(table)), ops.logical_not(ops.less(x, there)))
        found = ops.where(on, further, found)
    return found


# ---- arguments ------------------------------------------------------------------------


def refuse(layer: Layer, **arguments: Any) -> None:
    """Raise for arguments of Keras's that are set and have no meaning here: sparse and ragged results."""
    for name, value in arguments.items():
        if value:
            raise UnilayersError(
                f"{name} results are not supported", where=f"{type(layer).__name__}.{name}", expected="False",
                received=repr(value), fix="Use the dense result",
            )  # fmt: skip


def key_of_salt(salt: Salt, where: str) -> tuple[int, int] | None:
    """The salt as the two numbers of a key."""
    if salt is None:
        return None
    given = (salt, salt) if isinstance(salt, int) else tuple(salt)
    if len(given) != 2:
        raise UnilayersError("not a salt", where=where, expected="an int or two ints", received=repr(salt))
    return given[0], given[1]


def integer_dtype(layer: Layer, default: str) -> str:
    """The dtype of a layer's integer results: the layer's own if that is one of integers."""
    return layer.dtype if layer.dtype in INTS else default


# ---- data ---------------------------------------------------------------------------


def batches_of(data: Any, steps: int | None = None, whole: type | tuple[type, ...] = ()) -> Iterator[Any]:
    """The batches of data that a layer adapts to: an array is one, else each item of the iterable (of a pair the
    first).

    Args:
        data: An array of any engine, or an iterable of batches: a list, a generator, a data set.
        steps: How many batches to take; None: all.
        whole: Types that are one batch beside arrays.
    """
    if is_tensor(data) or isinstance(data, whole):
        yield data
        return
    for batch in itertools.islice(data, steps):
        yield batch[0] if isinstance(batch, tuple) else batch


def floats_of(batch: Any) -> np.ndarray:
    """A batch as float64."""
    return np.asarray(ops.to_numpy(batch), "float64")


# ---- texts --------------------------------------------------------------------------


def is_text(x: Any) -> bool:
    """Whether x is a text, or a list or array of texts."""
    while isinstance(x, (list, tuple)) and x:
        x = x[0]
    if isinstance(x, (str, bytes)):
        return True
    x = unboxed(x)
    if isinstance(x, Value) or not hasattr(x, "dtype"):
        return False
    name = str(getattr(x.dtype, "name", x.dtype))  # NumPy: str32, bytes8, object, StringDType128; TensorFlow: string
    return name.lower().startswith(("str", "bytes", "object"))


def texts_of(x: Any, encoding: str = "utf-8") -> np.ndarray:
    """Texts as a NumPy array of Python's strings.

    Args:
        x: A text, nested lists of texts, or an array of texts or bytes; TensorFlow's too.
        encoding: Of bytes.

    Raises:
        DTypeError: for anything else, symbolic values of a graph among them.

    Example:
        >>> texts_of([["a", b"b"]]).tolist()
        [['a', 'b']]
    """
    x = unboxed(x)
    if not is_text(x) and np.size(x) != 0:
        raise DTypeError(
            "texts are read before the graph", expected="an array or a list of strings",
            received=f"a value of a graph, {x.spec}" if isinstance(x, Value) else f"{ops.dtype_of(x)}",
            fix="Call the layer on the data first, and train the model on the integers that it gives",
        )  # fmt: skip
    array = np.asarray(x.numpy() if hasattr(x, "numpy") else x, dtype=object)
    decoded = [t.decode(encoding) if isinstance(t, bytes) else str(t) for t in array.ravel()]
    result = np.empty(array.size, dtype=object)
    result[:] = decoded
    return result.reshape(array.shape)
