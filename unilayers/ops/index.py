"""Picking elements by integer indices, and its reverse."""

from __future__ import annotations

from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.graph import Sample
from unilayers.ops.define import composite, primitive, shape_of
from unilayers.spec import INTS, DimLike, Spec, check_dtype, is_float, normalize_axis


def _integers(spec: Spec) -> None:
    if spec.dtype not in INTS:
        raise DTypeError("indices must be integers", received=spec.dtype, fix="Use ops.astype(i, 'int32')")


# ---- take: rows of a table --------------------------------------------------


def _take_infer(x: Spec, indices: Spec, *, axis: int) -> Spec:
    _integers(indices)
    return x.with_shape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _take_vjp(g: Any, y: Any, x: Any, indices: Any, *, axis: int) -> tuple[Any, None]:
    return ops.take_grad(g, indices, axis=axis, size=shape_of(x)[axis]), None


def _take_samples(rng: np.random.Generator) -> list[Sample]:
    i = np.array([[2, 0, 2], [1, 3, 0]], np.int32)
    return [Sample((rng.normal(size=(4, 3)), i), {"axis": 0}), Sample((rng.normal(size=(2, 4, 3)), i[0]), {"axis": 1})]


@primitive(infer=_take_infer, vjp=_take_vjp, reference=lambda x, i, axis: np.take(x, i, axis), samples=_take_samples)
def take_(x: Any, indices: Any, axis: int = 0) -> Any:
    """Elements of x at ``indices`` along ``axis``; 0 <= index < size. The embedding look-up."""
    return (x, indices), {"axis": normalize_axis(axis, len(shape_of(x)))}


def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Elements of x at ``indices`` along ``axis`` (None: of all in one row); indices below 0 count from the end.

    Engines: Below 0, PyTorch and TensorFlow raise where they select; here these count from the end, as in NumPy and
    JAX. An index that is not there gives NaN in JAX (of integers the smallest), also here, and raises in the others.
    """
    if axis is None:
        x, axis = x if len(shape_of(x)) == 1 else ops.reshape(x, (-1,)), 0
    return take_(x, _from_end(indices, x, axis), axis)


def _from_end(indices: Any, x: Any, axis: int) -> Any:
    """Indices along an axis of x, of which those below 0 count from the end, as numbers from 0."""
    if isinstance(indices, (int, list, tuple)):
        indices = np.asarray(indices, np.int32)
    dtype = ops.dtype_of(indices)
    if dtype not in INTS or dtype == "uint8" or (isinstance(indices, np.ndarray) and not np.any(indices < 0)):
        return indices
    if dtype in ("int8", "int16"):  # may have no room for the size
        indices = ops.astype(indices, "int32")
    if isinstance(indices, np.ndarray) and isinstance(shape_of(x)[axis], int):
        return np.where(indices < 0, indices + shape_of(x)[axis], indices)
    size = ops.size(x, (normalize_axis(axis, len(shape_of(x))),), ops.dtype_of(indices))
    return ops.where(ops.less(indices, 0), ops.add(indices, size), indices)


def _take_grad_infer(g: Spec, indices: Spec, *, axis: int, size: DimLike) -> Spec:
    return g.with_shape((*g.shape[:axis], size, *g.shape[axis + indices.ndim :]))


def _take_grad_reference(g: np.ndarray, indices: np.ndarray, axis: int, size: int) -> np.ndarray:
    y = np.zeros((*g.shape[:axis], size, *g.shape[axis + indices.ndim :]), g.dtype)
    for at in np.ndindex(indices.shape):
        y[(slice(None),) * axis + (indices[at],)] += g[(slice(None),) * axis + at]
    return y


def _take_grad_samples(rng: np.random.Generator) -> list[Sample]:
    i = np.array([[2, 0, 2], [1, 3, 0]], np.int32)
    g = rng.normal(size=(2, 3, 3))
    return [Sample((g, i), {"axis": 0, "size": 4}), Sample((g, i[0]), {"axis": 1, "size": 5})]


@primitive(
    infer=_take_grad_infer, vjp=lambda g, y, x, i, *, axis, size: (ops.take_(g, i, axis), None),
    cost=lambda g, i, **a: g.size, reference=_take_grad_reference, samples=_take_grad_samples,
)  # fmt: skip
def take_grad(g: Any, indices: Any, *, axis: int, size: DimLike) -> Any:
    """Sums g into zeros of ``size`` along ``axis`` at ``indices``; equal indices add up. The reverse of ``take``.

    Engines: An index outside raises in NumPy and PyTorch, in TensorFlow unless it is below 0, and is left out by JAX;
    NumPy counts those below 0 from the end. So it is here.
    """
    return (g, indices), {"axis": axis, "size": size}


# ---- one-hot, and one element a row -----------------------------------------


def _one_hot_infer(indices: Spec, *, num_classes: DimLike, axis: int, dtype: str) -> Spec:
    _integers(indices)
    at = axis % (indices.ndim + 1)
    return Spec((*indices.shape[:at], num_classes, *indices.shape[at:]), dtype)


def _one_hot_reference(i: np.ndarray, num_classes: int, axis: int, dtype: str) -> np.ndarray:
    return np.stack([i == c for c in range(num_classes)], axis).astype(dtype)


def _one_hot_samples(rng: np.random.Generator) -> list[Sample]:
    i = np.array([[0, 2], [1, -1], [3, 1]], np.int32)
    return [Sample((i,), {"num_classes": 3, "axis": a, "dtype": "float32"}, False) for a in (-1, 0, 1)]


@composite(infer=_one_hot_infer, reference=_one_hot_reference, samples=_one_hot_samples)
def one_hot_(indices: Any, *, num_classes: DimLike, axis: int = -1, dtype: str = "float32") -> Any:
    """1 at each index along a new axis, 0 elsewhere; an index outside gives a row of zeros."""
    at = axis % (len(shape_of(indices)) + 1)
    classes = ops.arange(num_classes, dtype=ops.dtype_of(indices), like=indices)
    classes = ops.reshape(classes, tuple(num_classes if a == at else 1 for a in range(len(shape_of(indices)) + 1)))
    return ops.astype(ops.equal(ops.expand_dims(indices, at), classes), dtype)


def one_hot(x: Any, num_classes: DimLike, axis: int = -1, dtype: str | None = None, sparse: bool = False) -> Any:
    """1 at each index along a new axis, 0 elsewhere; an index outside gives a row of zeros.

    Engines: PyTorch raises for a class outside; here it is a row of zeros, as in TensorFlow and JAX.
    """
    dense_only("one_hot", sparse=sparse)
    if is_float(ops.dtype_of(x)):
        x = ops.astype(x, "int32")
    return one_hot_(x, num_classes=num_classes, axis=axis, dtype=check_dtype(dtype or ops.floatx()))


def dense_only(where: str, **wanted: Any) -> None:
    """Refuses the sparse and ragged results that Keras's functions offer on some backends."""
    for name, value in wanted.items():
        if value:
            raise UnilayersError(f"arrays are dense here, so {name} cannot be {value}", where=f"ops.{where}")


def _along_infer(x: Spec, indices: Spec, *, axis: int) -> Spec:
    _integers(indices)
    rest = [(a, b) for i, (a, b) in enumerate(zip(x.shape, indices.shape, strict=False)) if i != axis]
    if x.ndim != indices.ndim or any(a != b for a, b in rest):
        raise ShapeError(
            "x and indices differ",
            expected=f"equal sizes except on axis {axis}",
            received=f"{x.shape} and {indices.shape}",
        )
    return x.with_shape(indices.shape)


def _along_vjp(g: Any, y: Any, x: Any, indices: Any, *, axis: int) -> tuple[Any, None]:
    """Each picked element gets its gradient; written with one-hot rows, so that every engine has it."""
    n = shape_of(x)[axis]
    hot = ops.one_hot(indices, n, axis=axis, dtype=ops.dtype_of(g))
    return ops.sum(ops.expand_dims(g, axis) * hot, axis + 1), None


@primitive(
    infer=_along_infer, vjp=_along_vjp, reference=lambda x, i, axis: np.take_along_axis(x, i, axis),
    samples=lambda rng: [Sample((rng.normal(size=(2, 4)), np.array([[3, 0, 3], [1, 2, 2]], np.int32)), {"axis": 1})],
)  # fmt: skip
def take_along_axis_(x: Any, indices: Any, axis: int = -1) -> Any:
    """One element of x per index: y[i, j] = x[i, indices[i, j]] for axis 1."""
    return (x, indices), {"axis": normalize_axis(axis, len(shape_of(x)))}


def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Any:
    """One element of x per index: y[i, j] = x[i, indices[i, j]] for axis 1. None: both in one row. Indices below 0
    count from the end.

    Engines: As for ``take``.
    """
    if axis is None:
        x, indices, axis = ops.reshape(x, (-1,)), ops.reshape(indices, (-1,)), 0
    return take_along_axis_(x, _from_end(indices, x, axis), axis)
