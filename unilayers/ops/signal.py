"""Fourier transforms. Complex arrays are pairs ``(real, imaginary)`` of arrays, as everywhere here."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.graph import Sample
from unilayers.ops.define import dtype_of, primitive, shape_of
from unilayers.spec import Spec, is_float, public_shape

__all__ = [
    "extract_sequences", "fft", "fft2", "fourier", "ifft2", "irfft", "istft", "overlap_sequences", "rfft", "stft",
]  # fmt: skip

Pair: TypeAlias = tuple[Any, Any]

# ---- the one primitive ------------------------------------------------------------


def _fourier_infer(real: Spec, imaginary: Spec, *, inverse: bool) -> tuple[Spec, Spec]:
    if real.dtype not in ("float32", "float64"):
        raise DTypeError("Fourier transforms need float32 or float64", received=real.dtype, fix="Use ops.astype")
    if real.shape != imaginary.shape or not real.shape:
        raise ShapeError(
            "real and imaginary parts differ, or have no axis", expected="two equal shapes (..., n)",
            received=f"{real.shape} and {imaginary.shape}",
        )  # fmt: skip
    return real, imaginary


def _fourier_vjp(g: Any, y: Any, real: Any, imaginary: Any, *, inverse: bool) -> Any:
    """The adjoint of a sum of rotations is the sum of the rotations backwards."""
    parts = [ops.zeros_like(real) if part is None else part for part in g]
    return ops.fourier(*parts, inverse=not inverse)


def _fourier_reference(real: np.ndarray, imaginary: np.ndarray, inverse: bool) -> Pair:
    n = real.shape[-1]
    turns = np.exp((2j if inverse else -2j) * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
    y = (real + 1j * imaginary) @ turns
    return y.real, y.imag


def _fourier_cost(real: Spec, imaginary: Spec, *, inverse: bool) -> Any:
    n = real.shape[-1]
    return real.size * (5 * max(1, math.ceil(math.log2(n))) if isinstance(n, int) else 5)


@primitive(
    infer=_fourier_infer, vjp=_fourier_vjp, reference=_fourier_reference, cost=_fourier_cost, promotes=0,
    samples=lambda rng: [Sample((*rng.normal(size=(2, 2, 6)),), {"inverse": inverse}) for inverse in (False, True)],
)  # fmt: skip
def fourier(real: Any, imaginary: Any, *, inverse: bool = False) -> Any:
    """``y[k] = sum over n of x[n] * exp(-2 pi i k n / N)`` along the last axis; with ``inverse`` the other way round,
    and not divided by N."""
    return (real, imaginary), {"inverse": bool(inverse)}


# ---- transforms of complex and of real arrays -----------------------------------------


def _floats(x: Any) -> Any:
    return x if is_float(dtype_of(x)) else ops.astype(x, ops.floatx())


def _pair(x: Any, where: str) -> Pair:
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise UnilayersError(
            "a complex array is needed", where=f"ops.{where}", expected="a pair (real, imaginary)",
            received=type(x).__name__,
        )  # fmt: skip
    return _floats(x[0]), _floats(x[1])


def fft(x: Pair) -> Pair:
    """The discrete Fourier transform along the last axis.

    Args:
        x: The real and the imaginary part, ``(..., n)``.

    Returns:
        Such a pair.

    Example:
        >>> real, imaginary = fft((np.array([1.0, 0.0, -1.0, 0.0]), np.zeros(4)))
        >>> real
        array([0., 2., 0., 2.])
    """
    return fourier(*_pair(x, "fft"))


def _rows_and_columns(x: Pair, inverse: bool) -> Pair:
    y = fourier(*x, inverse=inverse)
    y = fourier(*map(ops.matrix_transpose, y), inverse=inverse)
    return tuple(map(ops.matrix_transpose, y))


def fft2(x: Pair) -> Pair:
    """The discrete Fourier transform along the last two axes; see ``fft``."""
    return _rows_and_columns(_pair(x, "fft2"), False)


def ifft2(x: Pair) -> Pair:
    """The inverse of ``fft2``."""
    real, imaginary = _rows_and_columns(_pair(x, "ifft2"), True)
    rows, columns = shape_of(real)[-2:]
    return real / (rows * columns), imaginary / (rows * columns)


def _of_length(x: Any, length: int | None) -> Any:
    """x with its last axis cut, or filled with zeros at its end."""
    size: Any = shape_of(x)[-1]
    if length is None or size == length:
        return x
    if size > length:
        return ops.getitem(x, (..., slice(0, length)))
    return ops.pad(x, [(0, 0)] * (len(shape_of(x)) - 1) + [(0, length - size)])


def rfft(x: Any, fft_length: int | None = None) -> Pair:
    """The Fourier transform of real numbers along the last axis, of which one half says all.

    Args:
        x: ``(..., n)``.
        fft_length: x is cut to this length, or filled with zeros; None: n.

    Returns:
        Real and imaginary part, ``(..., fft_length // 2 + 1)``.

    Example:
        >>> real, imaginary = rfft(np.array([1.0, 2.0, 0.0]), fft_length=4)
        >>> real, imaginary
        (array([ 3.,  1., -1.]), array([ 0., -2.,  0.]))
    """
    x = _of_length(_floats(x), fft_length)
    half = shape_of(x)[-1] // 2 + 1
    real, imaginary = fourier(x, ops.zeros_like(x))
    return tuple(ops.getitem(part, (..., slice(0, half))) for part in (real, imaginary))


def irfft(x: Pair, fft_length: int | None = None) -> Any:
    """The inverse of ``rfft``.

    Args:
        x: Real and imaginary part, ``(..., k)``.
        fft_length: How many real numbers there were; None: ``2 * (k - 1)``.

    Example:
        >>> irfft(rfft(np.array([1.0, 2.0, 5.0, 0.0])))
        array([1., 2., 5., 0.])
    """
    real, imaginary = _pair(x, "irfft")
    length: Any = 2 * (shape_of(real)[-1] - 1) if fft_length is None else fft_length
    real, imaginary = (_of_length(part, length // 2 + 1) for part in (real, imaginary))
    # The other half is the mirror of this one; what has no partner in it has no imaginary part.
    alone = np.zeros(length // 2 + 1, dtype_of(real))
    alone[0] = 1
    alone[length // 2 :] = length % 2 == 0
    twice = (2 - alone).astype(dtype_of(real))
    real = _of_length(ops.multiply(real, twice), length)
    imaginary = _of_length(ops.multiply(imaginary, (2 * (1 - alone)).astype(dtype_of(real))), length)
    return fourier(real, imaginary, inverse=True)[0] / length


# ---- pieces of a sequence, and their transforms ------------------------------------------


def _starts(size: Any, length: int, stride: int, where: str) -> np.ndarray:
    if not isinstance(size, int) or size < length or stride < 1:
        raise ShapeError(
            "cannot cut sequences", where=f"ops.{where}",
            expected=f"a known size of at least {length}, and a stride of at least 1",
            received=f"size {public_shape((size,))[0]}, stride {stride}",
        )  # fmt: skip
    return np.arange(0, size - length + 1, stride)


def extract_sequences(x: Any, sequence_length: int, sequence_stride: int) -> Any:
    """Pieces of the last axis, one beginning ``sequence_stride`` after the other.

    Shapes: x ``(..., n)`` -> ``(..., 1 + (n - sequence_length) // sequence_stride, sequence_length)``.

    Raises:
        ShapeError: if the last axis is not known or shorter than a piece.

    Example:
        >>> extract_sequences(np.arange(5), 3, 2)
        array([[0, 1, 2],
               [2, 3, 4]])
    """
    starts = _starts(shape_of(x)[-1], sequence_length, sequence_stride, "extract_sequences")
    places = starts[:, None] + np.arange(sequence_length)
    return ops.take(x, places.astype(np.int32), -1)


def overlap_sequences(x: Any, sequence_stride: int) -> Any:
    """Pieces laid one ``sequence_stride`` after the other, and added up: the adjoint of ``extract_sequences``.

    Shapes: x ``(..., count, length)`` -> ``(..., (count - 1) * sequence_stride + length)``.
    """
    count, length = shape_of(x)[-2:]
    if not isinstance(count, int) or not isinstance(length, int):
        raise ShapeError("the number and length of the sequences must be known", where="ops.overlap_sequences")
    size = (count - 1) * sequence_stride + length
    places = np.arange(count)[:, None] * sequence_stride + np.arange(length)
    return ops.take_grad(x, places.astype(np.int32), axis=len(shape_of(x)) - 2, size=size)


def _window(window: Any, length: int, fft_length: int, like: Any) -> Any:
    """A window of ``length`` in the middle of ``fft_length`` elements."""
    if window is None:
        found: Any = np.ones(length)
    elif isinstance(window, str):
        if window not in ("hann", "hamming"):
            raise UnilayersError(
                "unknown window",
                where="ops.stft",
                expected="'hann', 'hamming', None or an array",
                received=repr(window),
            )
        offset = 0.5 if window == "hann" else 0.54
        found = offset - (1 - offset) * np.cos(2 * np.pi * np.arange(length) / length)
    else:
        found = window
    if tuple(shape_of(found)) != (length,) or length > fft_length:
        raise ShapeError(
            "the window does not fit", where="ops.stft", expected=f"a window of sequence_length {length}, up to "
            f"fft_length {fft_length}", received=str(shape_of(found)),
        )  # fmt: skip
    found = found.astype(dtype_of(like)) if isinstance(found, np.ndarray) else ops.astype(found, dtype_of(like))
    left = (fft_length - length) // 2
    return ops.pad(found, [(left, fft_length - length - left)])


def stft(
    x: Any, sequence_length: int, sequence_stride: int, fft_length: int, window: Any = "hann", center: bool = True
) -> Pair:
    """The short-time Fourier transform: ``rfft`` of pieces of a sequence, each faded in and out by a window.

    Args:
        x: ``(..., n)``.
        sequence_length: How long the window is.
        sequence_stride: How far the windows are apart.
        fft_length: How long the transformed pieces are, at least ``sequence_length``: the window is in their middle.
        window: "hann", "hamming", None for ones, or ``(sequence_length,)`` numbers.
        center: Whether the sequence is mirrored at its ends, so that the middle of piece i is at ``i *
            sequence_stride``.

    Returns:
        Real and imaginary part, ``(..., pieces, fft_length // 2 + 1)``.

    Reference:
        Allen, Short term spectral analysis, synthesis, and modification by discrete Fourier transform, 1977.

    Example:
        >>> real, imaginary = stft(np.sin(np.arange(16.0)), 4, 2, 8)
        >>> real.shape
        (9, 5)
    """
    x = _floats(x)
    if center:
        x = ops.pad(x, [(0, 0)] * (len(shape_of(x)) - 1) + [(fft_length // 2, fft_length // 2)], mode="reflect")
    pieces = extract_sequences(x, fft_length, sequence_stride)
    return rfft(ops.multiply(pieces, _window(window, sequence_length, fft_length, x)), fft_length)


def istft(
    x: Pair, sequence_length: int, sequence_stride: int, fft_length: int, length: int | None = None,
    window: Any = "hann", center: bool = True,
) -> Any:  # fmt: skip
    """The inverse of ``stft``: the pieces are windowed again, added up, and divided by the sum of the squared windows.

    Args:
        x: Real and imaginary part, ``(..., pieces, fft_length // 2 + 1)``.
        sequence_length: As of ``stft``.
        sequence_stride: As of ``stft``.
        fft_length: As of ``stft``.
        length: How long the result is; None: as the pieces reach.
        window: As of ``stft``.
        center: As of ``stft``.

    Reference:
        Griffin, Lim, Signal estimation from modified short-time Fourier transform, 1984.

    Example:
        >>> x = np.sin(np.arange(16.0))
        >>> bool(np.allclose(istft(stft(x, 4, 2, 8), 4, 2, 8, length=16), x))
        True
    """
    pieces = irfft(x, fft_length)
    shade = _window(window, sequence_length, fft_length, pieces)
    y = overlap_sequences(ops.multiply(pieces, shade), sequence_stride)
    count: Any = shape_of(pieces)[-2]
    total = overlap_sequences(ops.multiply(ops.square(shade), np.ones((count, 1), dtype_of(pieces))), sequence_stride)
    y = ops.where(ops.greater(total, 1e-8), ops.divide(y, ops.maximum(total, 1e-8)), y)
    start = fft_length // 2 if center else 0
    size: Any = shape_of(y)[-1]
    stop = size - start if length is None else start + length
    if stop > size:
        y = ops.pad(y, [(0, 0)] * (len(shape_of(y)) - 1) + [(0, stop - size)])
    return ops.getitem(y, (..., slice(start, stop)))
