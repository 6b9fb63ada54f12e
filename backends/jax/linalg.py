"""Decompositions of matrices, and Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax


def signs(v: Any) -> Any:
    """The sign of each column's first element above half of its largest one."""
    size = jnp.abs(v)
    at = jnp.argmax(size > size.max(-2, keepdims=True) / 2, -2, keepdims=True)
    return jnp.where(jnp.take_along_axis(v, at, -2) < 0, -1, 1).astype(v.dtype)


def eigh(x: Any) -> tuple[Any, Any]:
    values, vectors = jnp.linalg.eigh(x, symmetrize_input=True)
    return values, vectors * signs(vectors)


def svd(x: Any) -> tuple[Any, Any, Any]:
    u, s, vh = jnp.linalg.svd(x, full_matrices=False)
    return u * signs(u), s, vh * jnp.swapaxes(signs(u), -1, -2)


def fourier(real: Any, imaginary: Any, inverse: bool) -> tuple[Any, Any]:
    x = lax.complex(real, imaginary)
    y = jnp.fft.ifft(x, norm="forward") if inverse else jnp.fft.fft(x)
    return y.real, y.imag


DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    "fourier": fourier,
    "cholesky": lambda x: jnp.linalg.cholesky(x, symmetrize_input=True),
    "solve": jnp.linalg.solve,
    "triangular_solve": lambda a, b, lower: lax.linalg.triangular_solve(a, b, left_side=True, lower=lower),
    "slogdet": lambda x: tuple(jnp.linalg.slogdet(x)),
    "qr": lambda x, complete: tuple(jnp.linalg.qr(x, mode="complete" if complete else "reduced")),
    "eigh": eigh,
    "svd": svd,
}
