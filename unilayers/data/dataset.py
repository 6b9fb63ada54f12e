"""Samples and targets in memory: what a data set is, how it is checked, split and cut into batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unilayers import random
from unilayers.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, targets and what is known of them.

    Args:
        x: Samples ``(n, *feature_shape)``; float32, or the integers that were read.
        y: Targets ``(n, ...)``; int32 labels from 0, or float32 numbers.
        name: What it is called in messages.
        num_classes: How many classes the labels have; None where the targets are numbers.
        x_test: Samples kept apart for the final evaluation.
        y_test: Their targets.
        class_names: What the labels stand for, where that is known.

    Example:
        >>> Dataset(np.zeros((5, 2)), np.zeros(5), name="zeros")
        Dataset('zeros': x float64 (5, 2), y float64 (5,))
    """

    x: np.ndarray
    y: np.ndarray
    name: str = "data"
    num_classes: int | None = None
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x.shape[1:]

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        parts = [
            f"{name} {a.dtype} {a.shape}" for name in ("x", "y", "x_test") if (a := getattr(self, name)) is not None
        ]
        classes = [f"{self.num_classes} classes"] if self.num_classes else []
        return f"Dataset({self.name!r}: {', '.join(parts + classes)})"


def check(
    x: Any,
    y: Any = None,
    *,
    num_classes: int | None = None,
    feature_shape: Sequence[int | None] | None = None,
    where: str = "data",
) -> None:
    """Raise unless samples and targets can be trained on.

    Args:
        x: Samples ``(n, ...)``.
        y: Targets ``(n, ...)``; None where there are none.
        num_classes: Labels must be whole numbers from 0 to this, excluded; one-hot targets ``(n, num_classes)`` pass.
        feature_shape: The shape each sample must have; None in it leaves an axis free.
        where: The place to name in errors.

    Raises:
        DataError: for no samples, lengths that differ, values that are no numbers, NaN or infinity, another feature
            shape, labels out of range.

    Example:
        >>> check([[1.0], [float("nan")]], [0, 1])
        Traceback (most recent call last):
        unilayers.errors.DataError: data: x has 1 value that is NaN or infinite. Received nan at index (1, 0).
    """
    x = as_numbers(x, "x", where)
    if feature_shape is not None:
        _check_feature_shape(x, tuple(feature_shape), where)
    if y is None:
        return
    y = as_numbers(y, "y", where)
    if len(x) != len(y):
        raise DataError(
            "x and y differ in length",
            where=where,
            expected="a target for each sample",
            received=f"{len(x)} samples and {len(y)} targets",
        )
    one_hot = y.ndim > 1 and num_classes is not None and num_classes > 1 and y.shape[-1] == num_classes
    if num_classes is not None and not one_hot:
        _check_labels(y, num_classes, where)


def as_numbers(values: Any, name: str, where: str) -> np.ndarray:
    """``values`` as an array of at least one sample, all of them finite numbers.

    Raises:
        DataError: if they are not, where ``name`` says which values are meant.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"{name} is not an array: {error}", where=where) from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} holds no numbers", where=where, expected="a number dtype", received=f"{array.dtype}")
    if not array.ndim or not len(array):
        raise DataError(f"{name} has no samples", where=where, received=f"shape {array.shape}")
    if array.dtype.kind == "f":
        _check_each(np.isfinite(array), array, f"{name} has {{count}} that {{is_are}} NaN or infinite", where)
    return array


def split_index(n: int, fraction: float, *, where: str = "validation_split") -> int:
    """How many of ``n`` samples, from the first, are trained on when the last ``fraction`` is kept for validation.

    Raises:
        DataError: if one of the parts would be empty.

    Example:
        >>> split_index(1797, 0.1)
        1617
    """
    at = math.floor(n * (1.0 - fraction)) if 0 < fraction < 1 else 0
    if not 0 < at < n:
        raise DataError(
            "no split into two parts",
            where=where,
            expected="a fraction between 0 and 1 that leaves samples in both parts",
            received=f"{fraction!r} of {n} samples",
        )
    return at


def split(
    x: np.ndarray, y: np.ndarray, fraction: float
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """``(x, y)`` to train on and ``(x, y)`` to validate on: the last ``fraction`` of the samples, before any shuffling.

    Raises:
        DataError: if one of the parts would be empty.

    Example:
        >>> split(np.arange(4), np.arange(4) * 10, 0.25)[1]
        (array([3]), array([30]))
    """
    at = split_index(len(x), fraction)
    return (x[:at], y[:at]), (x[at:], y[at:])


def batches(n: int, batch_size: int, seed: int = 0, epoch: int = 0, shuffle: bool = True) -> Iterator[np.ndarray]:
    """The indices of each batch of an epoch, in an order that ``(n, seed, epoch)`` alone decides.

    The last batch is the shorter one. ``itertools.islice(batches(...), k, None)`` goes on at batch ``k``.

    Raises:
        DataError: if ``batch_size`` is not at least 1.

    Example:
        >>> [len(indices) for indices in batches(10, 4)]
        [4, 4, 2]
    """
    if batch_size < 1:
        raise DataError("no batches of this size", where="batch_size", expected="at least 1", received=repr(batch_size))
    order = random.permutation(n, seed, epoch) if shuffle else np.arange(n)
    return (order[start : start + batch_size] for start in range(0, n, batch_size))


# ---- details ------------------------------------------------------------------------------------------------------


def _check_labels(y: np.ndarray, num_classes: int, where: str) -> None:
    expected = f"labels 0 to {num_classes - 1} for {num_classes} classes"
    if y.dtype.kind == "f":
        _check_each(y == np.floor(y), y, "y has {count} that {is_are} no label", where, expected)
    _check_each((y >= 0) & (y < num_classes), y, "y has {count} that {is_are} out of range", where, expected)


def _check_each(good: np.ndarray, values: np.ndarray, problem: str, where: str, expected: str = "") -> None:
    if good.all():
        return
    bad = np.argwhere(~good)
    first = tuple(int(i) for i in bad[0])
    count = f"{len(bad)} value{'s' if len(bad) > 1 else ''}"
    raise DataError(
        problem.format(count=count, is_are="are" if len(bad) > 1 else "is"),
        where=where,
        expected=expected,
        received=f"{values[first]} at index {first[0] if len(first) == 1 else first}",
    )


def _check_feature_shape(x: np.ndarray, shape: tuple[int | None, ...], where: str) -> None:
    found = x.shape[1:]
    if len(found) == len(shape) and all(want in (None, got) for want, got in zip(shape, found, strict=True)):
        return
    fix = ""
    if None not in shape and math.prod(found) == math.prod(shape):  # type: ignore[arg-type]
        fix = f"The samples have the right number of values: x.reshape({(-1, *shape)}) may be what is meant."
    raise DataError(
        "x has another feature shape",
        where=where,
        expected=f"(n, {', '.join('any' if size is None else str(size) for size in shape)})",
        received=f"{x.shape}",
        fix=fix,
    )
