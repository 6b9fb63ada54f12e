"""Small changes of arrays that scripts make before training: one-hot labels, unit lengths, sequences of one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from unilayers import ops
from unilayers.errors import DataError
from unilayers.graph import Value
from unilayers.ops.define import Box


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Class numbers as one-hot rows.

    Shapes: x ``(...)`` or ``(..., 1)`` -> ``(..., num_classes)``; float64 for plain numbers and NumPy arrays, as in
    Keras, and of the default float dtype for symbolic values.

    Args:
        x: Whole numbers from 0.
        num_classes: How many classes there are; one more than the largest number if None.

    Raises:
        DataError: for numbers out of range.

    Example:
        >>> to_categorical([0, 2])
        array([[1., 0., 0.],
               [0., 0., 1.]])
    """
    if isinstance(x, (Value, Box)):
        if num_classes is None:
            raise DataError("the number of classes is not known from a symbolic value", where="to_categorical")
        return ops.one_hot(ops.astype(x, "int32"), num_classes)
    labels = ops.to_numpy(x).astype(np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    classes = num_classes or int(labels.max(initial=0)) + 1
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            "labels out of range",
            where="to_categorical",
            expected=f"0 to {classes - 1}",
            received=f"{labels.min()} to {labels.max()}",
        )
    result = np.zeros((labels.size, classes))
    result[np.arange(labels.size), labels.ravel()] = 1
    return result.reshape(*labels.shape, classes)


def normalize(x: Any, axis: int = -1, order: int = 2) -> Any:
    """Vectors of length 1 along an axis; those of length 0 stay.

    Shapes: x ``(...)`` -> the same.

    Args:
        x: Numbers.
        axis: Along which the vectors lie.
        order: Of the norm: 2 is the Euclidean one.

    Example:
        >>> normalize([[3.0, 4.0], [0.0, 0.0]])
        array([[0.6, 0.8],
               [0. , 0. ]])
    """
    if isinstance(x, (Value, Box)):
        return ops.normalize(x, axis=axis, order=order)
    x = np.atleast_1d(ops.to_numpy(x))
    length = np.linalg.norm(x, order, axis, keepdims=True)
    return x / np.where(length == 0, 1, length)


def pad_sequences(
    sequences: Sequence[Sequence[Any]],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: Literal["pre", "post"] = "pre",
    truncating: Literal["pre", "post"] = "pre",
    value: Any = 0.0,
) -> np.ndarray:
    """Sequences of different lengths as one array.

    Args:
        sequences: Of numbers, or of arrays of one shape.
        maxlen: The common length; that of the longest sequence if None.
        dtype: Of the result; ``object`` for texts.
        padding: Whether shorter ones are filled up before ("pre") or after.
        truncating: Whether longer ones lose their head ("pre") or their tail.
        value: What they are filled up with.

    Returns:
        ``(len(sequences), maxlen, ...)``.

    Raises:
        DataError: for entries of different shapes, something that is no sequence, or another word than pre and post.

    Example:
        >>> pad_sequences([[1], [2, 3, 4]], maxlen=2)
        array([[0, 1],
               [3, 4]], dtype=int32)
    """
    for name, word in (("padding", padding), ("truncating", truncating)):
        if word not in ("pre", "post"):
            raise DataError(
                "unknown side", where=f"pad_sequences({name}=)", expected="pre or post", received=repr(word)
            )
    for i, sequence in enumerate(sequences):
        if not hasattr(sequence, "__len__"):
            raise DataError("not a sequence", where=f"pad_sequences(sequences[{i}])", received=repr(sequence))
    length = max(map(len, sequences), default=0) if maxlen is None else maxlen
    shape = next((np.shape(s)[1:] for s in sequences if len(s)), ())
    if isinstance(value, str) and not (np.dtype(dtype) == object or np.dtype(dtype).kind == "U"):
        raise DataError(
            "a text does not fit the dtype", where="pad_sequences(value=)", received=f"{value!r} for {dtype}",
            fix="Pass dtype=object",
        )  # fmt: skip
    result = np.full((len(sequences), length, *shape), value, dtype=dtype)
    for i, sequence in enumerate(sequences):
        kept = np.asarray(sequence[max(0, len(sequence) - length) :] if truncating == "pre" else sequence[:length])
        if not len(kept):
            continue
        if kept.shape[1:] != shape:
            where = f"pad_sequences(sequences[{i}])"
            raise DataError("entries of another shape", where=where, expected=str(shape), received=str(kept.shape[1:]))
        if padding == "post":
            result[i, : len(kept)] = kept
        else:
            result[i, -len(kept) :] = kept
    return result
