"""Decompositions of matrices, and Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def symmetric(x: Any) -> Any:
    return (x + tf.linalg.matrix_transpose(x)) / 2


def signs(v: Any) -> Any:
    """The sign of each column's first element above half of its largest one."""
    rows = tf.linalg.matrix_transpose(v)
    size = tf.abs(rows)
    at = tf.argmax(tf.cast(size > tf.reduce_max(size, -1, keepdims=True) / 2, tf.int32), -1)
    first = tf.gather(rows, at, batch_dims=at.shape.rank)
    return tf.expand_dims(tf.where(first < 0, -tf.ones_like(first), tf.ones_like(first)), -2)


def eigh(x: Any) -> tuple[Any, Any]:
    values, vectors = tf.linalg.eigh(symmetric(x))
    return values, vectors * signs(vectors)


def svd(x: Any) -> tuple[Any, Any, Any]:
    s, u, v = tf.linalg.svd(x)
    turn = signs(u)
    return u * turn, s, tf.linalg.matrix_transpose(v * turn)


def fourier(real: Any, imaginary: Any, inverse: bool) -> tuple[Any, Any]:
    """The inverse is the transform of the parts exchanged, which TensorFlow does not divide by the length."""
    x = tf.complex(imaginary, real) if inverse else tf.complex(real, imaginary)
    y = tf.signal.fft(x)
    return (tf.math.imag(y), tf.math.real(y)) if inverse else (tf.math.real(y), tf.math.imag(y))


DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    "fourier": fourier,
    "cholesky": lambda x: tf.linalg.cholesky(symmetric(x)),
    "solve": tf.linalg.solve,
    "triangular_solve": lambda a, b, lower: tf.linalg.triangular_solve(a, b, lower=lower),
    "slogdet": lambda x: tuple(tf.linalg.slogdet(x)),
    "qr": lambda x, complete: tuple(tf.linalg.qr(x, full_matrices=complete)),
    "eigh": eigh,
    "svd": svd,
}
