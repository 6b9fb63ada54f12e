"""Decompositions of matrices, and what follows from them: systems of equations, inverses, determinants, ranks.

All work on stacks of matrices ``(..., n, m)`` of float32 or float64. Where a decomposition leaves signs open they are
fixed, so that every backend gives the same factors. The gradients are those of Giles, An extended collection of matrix
derivative results for forward and reverse mode automatic differentiation, 2008, unless another source is named; they
are not defined where singular values or eigenvalues coincide, or where a matrix to invert is singular.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.graph import Sample
from unilayers.ops.define import composite, dtype_of, primitive, shape_of
from unilayers.spec import Shape, Spec, broadcast_shapes, is_float, public_shape

__all__ = [
    "cholesky", "cholesky_", "cholesky_inverse", "det", "eigh", "inv", "logdet", "lstsq", "matrix_rank", "pinv",
    "pinv_", "qr", "qr_", "singular_values", "slogdet", "solve", "solve_", "solve_triangular", "svd", "svd_",
    "triangular_solve",
]  # fmt: skip

# ---- rules shared ---------------------------------------------------------------


def _matrices(x: Spec) -> None:
    if x.dtype not in ("float32", "float64"):
        raise DTypeError("decompositions need float32 or float64", received=x.dtype, fix="Use ops.astype")
    if x.ndim < 2:
        raise ShapeError("not a matrix", expected="(..., n, m)", received=str(x.shape))


def _square(x: Spec) -> None:
    _matrices(x)
    if x.shape[-1] != x.shape[-2] or not isinstance(x.shape[-1], int):
        raise ShapeError("not a square matrix", expected="(..., n, n) with a known n", received=str(x.shape))


def _cubed(x: Spec, *others: Spec, **attrs: Any) -> Any:
    """The cost of most of them: proportional to the size of the matrix times its smaller side."""
    return 2 * x.size * min((d for d in x.shape[-2:] if isinstance(d, int)), default=1)


def _turn(x: Any) -> Any:
    return ops.matrix_transpose(x)


def _symmetric(x: Any) -> Any:
    return (x + _turn(x)) * 0.5


def _mask(x: Any, mask: np.ndarray) -> Any:
    """x with its matrices multiplied by a constant one."""
    return ops.multiply(x, mask.astype(dtype_of(x)))


def _eye(x: Any, size: int) -> np.ndarray:
    """A unit matrix of x's dtype."""
    return np.eye(size, dtype=dtype_of(x))


def _sizes(x: Any, where: str) -> tuple[int, int]:
    """Rows and columns, which must be known."""
    shape = shape_of(x)
    if len(shape) < 2 or not isinstance(shape[-2], int) or not isinstance(shape[-1], int):
        raise ShapeError(
            "the sizes of the matrices must be known", where=f"ops.{where}", expected="(..., n, m)",
            received=str(public_shape(shape)),
        )  # fmt: skip
    return shape[-2], shape[-1]


def _units(x: Any) -> Any:
    """As many unit matrices as x has matrices."""
    return ops.zeros_like(x) + _eye(x, shape_of(x)[-1])  # type: ignore[arg-type]


def _floats(x: Any) -> Any:
    return x if is_float(dtype_of(x)) else ops.astype(x, ops.floatx())


def _well(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Matrices that are far from singular."""
    wide = np.broadcast_to(np.eye(shape[-2], shape[-1]), shape)
    return np.asarray(rng.normal(size=shape) + 3 * wide)


def _positive(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Symmetric matrices with positive eigenvalues."""
    x = rng.normal(size=shape)
    return np.asarray(x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1]) * shape[-1])


# ---- symmetric, positive: Cholesky ------------------------------------------------


def _cholesky_infer(x: Spec) -> Spec:
    _square(x)
    return x


def _cholesky_vjp(g: Any, y: Any, x: Any) -> tuple[Any]:
    """Murray, Differentiation of the Cholesky decomposition, 2016, arXiv 1602.07527."""
    size: Any = shape_of(x)[-1]
    inner = _mask(ops.matmul(_turn(y), g), np.tri(size) - 0.5 * np.eye(size))
    left = ops.triangular_solve(_turn(y), inner, lower=False)
    return (_symmetric(_turn(ops.triangular_solve(_turn(y), _turn(left), lower=False))),)


def _cholesky_reference(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.cholesky((x + np.swapaxes(x, -1, -2)) / 2))


@primitive(
    infer=_cholesky_infer, vjp=_cholesky_vjp, reference=_cholesky_reference, cost=_cubed, tolerance=1e-4,
    samples=lambda rng: [Sample((_positive(rng, 2, 3, 3),))],
)  # fmt: skip
def cholesky_(x: Any) -> Any:
    """The lower triangular L with ``L @ L^T`` = the symmetric part of x, which has to be positive definite."""
    return (x,), {}


def cholesky(x: Any, upper: bool = False) -> Any:
    """The triangular factor of symmetric, positive definite matrices.

    Args:
        x: ``(..., n, n)``; of matrices that are not symmetric, the symmetric part is taken.
        upper: False for the lower triangular L with ``x = L @ L^T``, True for its transpose.

    Returns:
        ``(..., n, n)``. Where x is not positive definite, NaN or an error: as the backend has it.

    Raises:
        ShapeError: if the matrices are not square.

    Engines: NumPy, PyTorch and TensorFlow read the lower triangle; here both count, by their mean, as in JAX. A matrix
    that is not positive definite raises in NumPy and PyTorch and gives NaN in TensorFlow and JAX, also here.

    Example:
        >>> cholesky(np.array([[4.0, 2.0], [2.0, 10.0]]))
        array([[2., 0.],
               [1., 3.]])
    """
    y = cholesky_(_floats(x))
    return _turn(y) if upper else y


def cholesky_inverse(x: Any, upper: bool = False) -> Any:
    """The inverse of the matrix whose Cholesky factor is x.

    Args:
        x: ``(..., n, n)``, lower triangular.
        upper: Whether x is the upper triangular one.

    Example:
        >>> cholesky_inverse(np.array([[2.0, 0.0], [0.0, 1.0]]))
        array([[0.25, 0.  ],
               [0.  , 1.  ]])
    """
    x = _floats(x)
    root = triangular_solve(x, _units(x), lower=not upper)
    return ops.matmul(root, _turn(root)) if upper else ops.matmul(_turn(root), root)


# ---- systems of equations ------------------------------------------------------------


def _solve_infer(a: Spec, b: Spec) -> Spec:
    _square(a)
    if b.ndim != a.ndim or b.shape[:-1] != a.shape[:-1]:
        raise ShapeError(
            "the sides of the equation do not fit", expected="(..., n, n) and (..., n, k)",
            received=f"{a.shape} and {b.shape}",
        )  # fmt: skip
    return b


def _solve_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    to_b = ops.solve_(_turn(a), g)
    return ops.negative(ops.matmul(to_b, _turn(y))), to_b


def _solve_samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample((_well(rng, 2, 3, 3), rng.normal(size=(2, 3, 2))))]


@primitive(
    infer=_solve_infer, vjp=_solve_vjp, reference=np.linalg.solve, cost=_cubed, promotes=0, samples=_solve_samples,
    tolerance=1e-4,
)  # fmt: skip
def solve_(a: Any, b: Any) -> Any:
    """The x with ``a @ x = b``, of stacks of matrices with equal leading axes."""
    return (a, b), {}


def _triangular_infer(a: Spec, b: Spec, *, lower: bool) -> Spec:
    return _solve_infer(a, b)


def _triangular_vjp(g: Any, y: Any, a: Any, b: Any, *, lower: bool) -> tuple[Any, Any]:
    to_b = ops.triangular_solve(_turn(a), g, lower=not lower)
    size: Any = shape_of(a)[-1]
    keep = np.tri(size) if lower else np.tri(size).T
    return _mask(ops.negative(ops.matmul(to_b, _turn(y))), keep), to_b


def _triangular_reference(a: np.ndarray, b: np.ndarray, lower: bool) -> np.ndarray:
    return np.asarray(np.linalg.solve(np.tril(a) if lower else np.triu(a), b))


@primitive(
    infer=_triangular_infer, vjp=_triangular_vjp, reference=_triangular_reference, promotes=0, tolerance=1e-4,
    cost=lambda a, b, *, lower: a.shape[-1] * b.size,
    samples=lambda rng: [Sample(_solve_samples(rng)[0].inputs, {"lower": lower}) for lower in (True, False)],
)  # fmt: skip
def triangular_solve(a: Any, b: Any, *, lower: bool) -> Any:
    """The x with ``a @ x = b``, where only the lower or upper triangle of a is looked at."""
    return (a, b), {"lower": bool(lower)}


def _sides(a: Any, b: Any) -> tuple[Any, Any, bool]:
    """Both sides as floats and with the same leading axes, and whether b was a vector."""
    a, b = _floats(a), _floats(b)
    vector = len(shape_of(b)) == 1 or len(shape_of(b)) == len(shape_of(a)) - 1
    b = ops.expand_dims(b, -1) if vector else b
    lead = broadcast_shapes(shape_of(a)[:-2], shape_of(b)[:-2])
    return _stacked(a, lead), _stacked(b, lead), vector


def _stacked(x: Any, lead: Shape) -> Any:
    shape = (*lead, *shape_of(x)[-2:])
    return x if tuple(shape_of(x)) == shape else ops.broadcast_to(x, shape)


def solve(a: Any, b: Any) -> Any:
    """The x with ``a @ x = b``.

    Args:
        a: ``(..., n, n)``.
        b: ``(..., n, k)``, or vectors: ``(n,)``, or one axis fewer than a.

    Returns:
        As b, its leading axes broadcast against those of a.

    Raises:
        ShapeError: if the sides do not fit.

    Engines: For a singular matrix NumPy, PyTorch and TensorFlow raise and JAX gives NaN or infinity, also here.

    Example:
        >>> solve(np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([4.0, 5.0]))
        array([2., 3.])
    """
    a, b, vector = _sides(a, b)
    return ops.squeeze(solve_(a, b), -1) if vector else solve_(a, b)


def solve_triangular(a: Any, b: Any, lower: bool = False) -> Any:
    """The x with ``a @ x = b`` for triangular matrices: ``lower`` ones, or upper ones. Arguments as of ``solve``.

    The other triangle is not looked at.

    Engines: A 0 on the diagonal gives infinity, but raises on the NumPy backend.

    Example:
        >>> solve_triangular(np.array([[2.0, 9.0], [1.0, 1.0]]), np.array([4.0, 5.0]), lower=True)
        array([2., 3.])
    """
    a, b, vector = _sides(a, b)
    y = triangular_solve(a, b, lower=lower)
    return ops.squeeze(y, -1) if vector else y


def inv(x: Any) -> Any:
    """The inverse of matrices ``(..., n, n)``.

    Example:
        >>> inv(np.array([[2.0, 0.0], [0.0, 4.0]]))
        array([[0.5 , 0.  ],
               [0.  , 0.25]])
    """
    x = _floats(x)
    return solve_(x, _units(x))


# ---- determinants ----------------------------------------------------------------------


def _slogdet_infer(x: Spec) -> tuple[Spec, Spec]:
    _square(x)
    return x.with_shape(x.shape[:-2]), x.with_shape(x.shape[:-2])


def _slogdet_vjp(g: Any, y: Any, x: Any) -> tuple[Any]:
    if g[1] is None:
        return (None,)
    return (_turn(inv(x)) * ops.expand_dims(g[1], (-2, -1)),)


@primitive(
    infer=_slogdet_infer, vjp=_slogdet_vjp, reference=np.linalg.slogdet, cost=_cubed, tolerance=1e-4,
    samples=lambda rng: [Sample((_well(rng, 2, 3, 3)[:, ::-1],)), Sample((_well(rng, 2, 2),))],
)  # fmt: skip
def slogdet(x: Any) -> Any:
    """The sign of the determinant of matrices, and the logarithm of its absolute value (-inf for 0)."""
    return (x,), {}


def det(x: Any) -> Any:
    """The determinant of matrices ``(..., n, n)``.

    Example:
        >>> float(det(np.array([[2.0, 0.0], [0.0, -4.0]]))).__round__(6)
        -8.0
    """
    sign, size = slogdet(_floats(x))
    return ops.multiply(sign, ops.exp(size))


def logdet(x: Any) -> Any:
    """The logarithm of the absolute value of the determinant of matrices ``(..., n, n)``."""
    return slogdet(_floats(x))[1]


# ---- orthogonal and triangular: QR ------------------------------------------------------


def _qr_infer(x: Spec, *, complete: bool) -> tuple[Spec, Spec]:
    _matrices(x)
    *lead, rows, columns = x.shape
    if not isinstance(rows, int) or not isinstance(columns, int) or rows < columns:
        raise ShapeError("cannot decompose", expected="(..., n, m) with known n >= m", received=str(x.shape))
    size = rows if complete else columns
    return x.with_shape((*lead, rows, size)), x.with_shape((*lead, size, columns))


def _qr_vjp(g: Any, y: Any, x: Any, *, complete: bool) -> tuple[Any]:
    """Walter, Lehmann, Algorithmic differentiation of linear algebra functions, 2010, arXiv 1001.1654."""
    rows, columns = shape_of(x)[-2:]
    if complete and rows != columns:
        raise UnilayersError("the complete Q has no gradient", where="op 'qr'", fix="Use mode='reduced'")
    q, r = y
    to_q = ops.zeros_like(q) if g[0] is None else g[0]
    inner = ops.negative(ops.matmul(_turn(to_q), q))
    inner = inner if g[1] is None else inner + ops.matmul(r, _turn(g[1]))
    low, below = np.tri(columns), np.tri(columns, k=-1)  # type: ignore[arg-type]
    mirrored = _mask(inner, low) + _turn(_mask(inner, below))
    total = to_q + ops.matmul(q, mirrored)
    return (_turn(ops.triangular_solve(r, _turn(total), lower=False)),)


def _qr_reference(x: np.ndarray, complete: bool = False) -> Any:
    return np.linalg.qr(x, mode="complete" if complete else "reduced")


@primitive(
    infer=_qr_infer, vjp=_qr_vjp, reference=_qr_reference, cost=_cubed, tolerance=1e-4,
    samples=lambda rng: [
        Sample((_well(rng, 2, 4, 3),), {"complete": False}), Sample((_well(rng, 3, 2),), {"complete": True}, False),
    ],
)  # fmt: skip
def qr_(x: Any, *, complete: bool) -> Any:
    """Orthonormal columns Q and an upper triangular R with ``x = Q @ R``, of matrices that are not wide."""
    return (x,), {"complete": bool(complete)}


def qr(x: Any, mode: str = "reduced") -> tuple[Any, Any]:
    """Matrices as a product ``Q @ R`` of orthonormal columns and an upper triangular matrix.

    Args:
        x: ``(..., n, m)``.
        mode: "reduced" for Q ``(..., n, k)`` and R ``(..., k, m)`` with ``k = min(n, m)``, "complete" for Q ``(..., n,
            n)`` and R ``(..., n, m)``, whose further columns of Q have no gradient.

    Example:
        >>> q, r = qr(np.array([[3.0, 1.0], [4.0, 2.0]]))
        >>> (q @ r).round(6), abs(float(r[0, 0]))
        (array([[3., 1.],
               [4., 2.]]), 5.0)
    """
    if mode not in ("reduced", "complete"):
        raise UnilayersError("unknown mode", where="ops.qr", expected="'reduced' or 'complete'", received=repr(mode))
    x = _floats(x)
    rows, columns = _sizes(x, "qr")
    if rows >= columns:
        return qr_(x, complete=mode == "complete")
    q, r = qr_(ops.getitem(x, (..., slice(0, rows))), complete=False)
    return q, ops.concat([r, ops.matmul(_turn(q), ops.getitem(x, (..., slice(rows, columns))))], -1)


# ---- eigenvalues of symmetric matrices ---------------------------------------------------


def _over_differences(values: Any) -> Any:
    """1 / (values[j] - values[i]) at row i and column j, 0 on the diagonal."""
    size: Any = shape_of(values)[-1]
    unit = _eye(values, size)
    return ops.divide(1.0 - unit, ops.expand_dims(values, -2) - ops.expand_dims(values, -1) + unit)


def _eigh_infer(x: Spec) -> tuple[Spec, Spec]:
    _square(x)
    return x.with_shape(x.shape[:-1]), x


def _eigh_vjp(g: Any, y: Any, x: Any) -> tuple[Any]:
    values, vectors = y
    inner = ops.zeros_like(x)
    if g[0] is not None:
        inner = inner + ops.expand_dims(g[0], -1) * _eye(x, shape_of(x)[-1])  # type: ignore[arg-type]
    if g[1] is not None:
        inner = inner + _over_differences(values) * ops.matmul(_turn(vectors), g[1])
    return (_symmetric(ops.matmul(ops.matmul(vectors, inner), _turn(vectors))),)


def _signs(vectors: np.ndarray) -> np.ndarray:
    """For the references: the sign of each column's first element that is above half of its largest one."""
    signs = np.ones((*vectors.shape[:-2], 1, vectors.shape[-1]))
    for *at, column in np.ndindex(*vectors.shape[:-2], vectors.shape[-1]):
        v = vectors[(*at, slice(None), column)]
        signs[(*at, 0, column)] = next(np.sign(e) for e in v if abs(e) > abs(v).max() / 2)
    return signs


def _eigh_reference(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh((x + np.swapaxes(x, -1, -2)) / 2)
    return values, vectors * _signs(vectors)


@primitive(
    infer=_eigh_infer, vjp=_eigh_vjp, reference=_eigh_reference, cost=lambda x: 9 * x.size * x.shape[-1],
    samples=lambda rng: [Sample((_well(rng, 2, 3, 3),))], tolerance=1e-4,
)  # fmt: skip
def eigh(x: Any) -> Any:
    """Eigenvalues in rising order and orthonormal eigenvectors of symmetric matrices.

    Shapes: x ``(..., n, n)`` -> values ``(..., n)``, vectors ``(..., n, n)`` as columns: ``x @ vectors = vectors *
    values``. Of matrices that are not symmetric the symmetric part is taken. In each vector the first element above
    half of the largest one is positive.

    Engines: NumPy, PyTorch and TensorFlow read the lower triangle; here both count, by their mean, as in JAX. The signs
    of vectors are free; here the first element above half of the largest is positive.

    Example:
        >>> values, vectors = eigh(np.array([[2.0, 0.0], [0.0, 1.0]]))
        >>> values
        array([1., 2.])
    """
    return (_floats(x),), {}


# ---- singular values -----------------------------------------------------------------------


def _svd_infer(x: Spec) -> tuple[Spec, Spec, Spec]:
    _matrices(x)
    *lead, rows, columns = x.shape
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise ShapeError("cannot decompose", expected="(..., n, m) of known sizes", received=str(x.shape))
    size = min(rows, columns)
    return x.with_shape((*lead, rows, size)), x.with_shape((*lead, size)), x.with_shape((*lead, size, columns))


def _svd_vjp(g: Any, y: Any, x: Any) -> tuple[Any]:
    u, s, vh = y
    rows, columns = shape_of(x)[-2:]
    size: Any = shape_of(s)[-1]
    over, row, column = _over_differences(ops.square(s)), ops.expand_dims(s, -2), ops.expand_dims(s, -1)
    inner, more = ops.zeros_like(ops.matmul(_turn(u), u)), []
    if g[1] is not None:
        inner = inner + ops.expand_dims(g[1], -1) * _eye(x, size)
    if g[0] is not None:
        slope = ops.matmul(_turn(u), g[0])
        inner = inner + over * (slope - _turn(slope)) * row
        if rows > size:
            more.append(ops.matmul((g[0] - ops.matmul(u, slope)) / row, vh))
    if g[2] is not None:
        slope = ops.matmul(vh, _turn(g[2]))
        inner = inner + column * over * (slope - _turn(slope))
        if columns > size:
            more.append(ops.matmul(u, (g[2] - ops.matmul(_turn(slope), vh)) / column))
    return (sum(more, start=ops.matmul(ops.matmul(u, inner), vh)),)


def _svd_reference(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return u * _signs(u), s, vh * np.swapaxes(_signs(u), -1, -2)


@primitive(
    infer=_svd_infer, vjp=_svd_vjp, reference=_svd_reference, cost=lambda x: 7 * _cubed(x), tolerance=1e-4,
    samples=lambda rng: [Sample((_well(rng, 2, 3, 2),)), Sample((_well(rng, 2, 4),))],
)  # fmt: skip
def svd_(x: Any) -> Any:
    """Matrices as ``(u * s) @ vh``: orthonormal columns, singular values in falling order, orthonormal rows."""
    return (x,), {}


def svd(x: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """The singular values of matrices, and their directions: ``x = (u * s) @ vh``.

    Args:
        x: ``(..., n, m)``.
        full_matrices: Whether u and vh are square, with further orthonormal columns or rows that have no gradient.
        compute_uv: False for s alone.

    Returns:
        u ``(..., n, k)``, s ``(..., k)`` in falling order, vh ``(..., k, m)`` with ``k = min(n, m)``. In each column of
        u the first element above half of the largest one is positive.

    Engines: The signs of the vectors differ between TensorFlow and the others; here the first element of a left vector
    above half of its largest is positive.

    Example:
        >>> svd(np.array([[0.0, 2.0], [3.0, 0.0]]), compute_uv=False)
        array([3., 2.])
    """
    u, s, vh = svd_(_floats(x))
    if not compute_uv:
        return s
    if full_matrices:
        rows, columns = _sizes(x, "svd")
        u = _completed(u) if rows > columns else u
        vh = _turn(_completed(_turn(vh))) if rows < columns else vh
    return u, s, vh


def _completed(columns: Any) -> Any:
    """Orthonormal columns with further ones, until the matrix is square."""
    q, _ = qr_(ops.stop_gradient(columns), complete=True)
    rows, size = shape_of(columns)[-2:]
    return ops.concat([columns, ops.getitem(q, (..., slice(size, rows)))], -1)


def singular_values(x: Any) -> Any:
    """The singular values of matrices, in falling order."""
    return svd(x, compute_uv=False)


def matrix_rank(x: Any, tol: float | None = None) -> Any:
    """How many singular values of matrices are above ``tol``; None: above the largest one times its rounding error.

    Example:
        >>> int(matrix_rank(np.array([[1.0, 2.0], [2.0, 4.0]])))
        1
    """
    s = singular_values(x)
    if tol is None:
        tol = ops.max(s, -1, keepdims=True) * _share(s, None, _sizes(x, "matrix_rank"))
    return ops.sum(ops.greater(s, tol), -1)


# ---- pseudo-inverse --------------------------------------------------------------------------


def _pinv_infer(x: Spec, *, rcond: float) -> Spec:
    _svd_infer(x)
    return x.with_shape((*x.shape[:-2], x.shape[-1], x.shape[-2]))


def _pinv_vjp(g: Any, y: Any, x: Any, *, rcond: float) -> tuple[Any]:
    """Golub, Pereyra, The differentiation of pseudo-inverses, 1973; where the rank does not change."""
    back, turned = _turn(g), _turn(y)
    left = ops.matmul(back - ops.matmul(ops.matmul(x, y), back), ops.matmul(y, turned))
    right = ops.matmul(ops.matmul(turned, y), back - ops.matmul(ops.matmul(back, y), x))
    return (left + right - ops.matmul(ops.matmul(turned, g), turned),)


@composite(
    infer=_pinv_infer, vjp=_pinv_vjp, cost=lambda x, **attrs: 9 * _cubed(x), tolerance=1e-4,
    reference=lambda x, rcond: np.linalg.pinv(x, rcond),
    samples=lambda rng: [Sample((_well(rng, *s),), {"rcond": 1e-6}) for s in ((2, 3, 2), (2, 3))],
)  # fmt: skip
def pinv_(x: Any, *, rcond: float) -> Any:
    """The Moore-Penrose pseudo-inverse of matrices; singular values up to ``rcond`` of the largest count as 0."""
    u, s, vh = ops.svd_(x)
    kept = ops.greater(s, ops.max(s, -1, keepdims=True) * rcond)
    inverse = ops.where(kept, 1.0 / ops.where(kept, s, 1.0), 0.0)
    return ops.matmul(_turn(vh) * ops.expand_dims(inverse, -2), _turn(u))


def pinv(x: Any, rcond: float | None = None) -> Any:
    """The Moore-Penrose pseudo-inverse.

    Args:
        x: ``(..., n, m)``.
        rcond: Singular values up to this share of the largest count as 0; None: the larger side times the dtype's
            rounding error.

    Returns:
        ``(..., m, n)``. Its gradient holds where the rank does not change.

    Example:
        >>> pinv(np.array([[2.0], [0.0]])).round(6)
        array([[0.5, 0. ]])
    """
    x = _floats(x)
    return pinv_(x, rcond=_share(x, rcond, _sizes(x, "pinv")))


def _share(x: Any, rcond: float | None, sizes: tuple[int, int]) -> float:
    """What counts as 0 beside 1: as given, or what rounding leaves of it in matrices of this size."""
    return float(max(sizes) * np.finfo(dtype_of(x)).eps) if rcond is None else float(rcond)


def lstsq(a: Any, b: Any, rcond: float | None = None) -> Any:
    """The x that makes the squares of ``a @ x - b`` smallest; of several, the shortest.

    Args:
        a: ``(n, m)``.
        b: ``(n, k)`` or ``(n,)``.
        rcond: As of ``pinv``.

    Example:
        >>> lstsq(np.array([[1.0], [1.0]]), np.array([1.0, 3.0])).round(6)
        array([2.])
    """
    return ops.matmul(pinv(a, rcond), _floats(b))
