"""Decompositions of matrices and Fourier transforms, over an array module with NumPy's interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def decompositions(xp: Any) -> dict[str, Callable[..., Any]]:
    """Op name to function."""
    linalg = xp.linalg

    def symmetric(x: Any) -> Any:
        return (x + xp.swapaxes(x, -1, -2)) / 2

    def signs(v: Any) -> Any:
        """The sign of each column's first element above half of its largest one."""
        size = xp.abs(v)
        at = xp.argmax(size > size.max(-2, keepdims=True) / 2, -2)
        return xp.where(xp.take_along_axis(v, xp.expand_dims(at, -2), -2) < 0, -1, 1).astype(v.dtype)

    def eigh(x: Any) -> Any:
        values, vectors = linalg.eigh(symmetric(x))
        return values, vectors * signs(vectors)

    def svd(x: Any) -> Any:
        u, s, vh = linalg.svd(x, full_matrices=False)
        return u * signs(u), s, vh * xp.swapaxes(signs(u), -1, -2)

    def fourier(real: Any, imaginary: Any, inverse: bool) -> Any:
        y = (xp.fft.ifft if inverse else xp.fft.fft)(real + 1j * imaginary, norm="forward" if inverse else None)
        return y.real.astype(real.dtype), y.imag.astype(real.dtype)

    return {
        "fourier": fourier,
        "cholesky": lambda x: linalg.cholesky(symmetric(x)),
        "solve": linalg.solve,
        "triangular_solve": lambda a, b, lower: linalg.solve(xp.tril(a) if lower else xp.triu(a), b),
        "slogdet": linalg.slogdet,
        "qr": lambda x, complete: linalg.qr(x, mode="complete" if complete else "reduced"),
        "eigh": eigh,
        "svd": svd,
    }
