"""Decompositions of matrices, and Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.linalg import cholesky, eigh, qr, slogdet, solve, solve_triangular, svd


def symmetric(x: Tensor) -> Tensor:
    return (x + x.mT) / 2


def signs(v: Tensor) -> Tensor:
    """The sign of each column's first element above half of its largest one."""
    size = v.abs()
    at = torch.argmax((size > size.amax(-2, True) / 2).byte(), -2, keepdim=True)  # the first of equal ones
    return torch.where(torch.take_along_dim(v, at, -2) < 0, -1, 1).to(v.dtype)


def signed_eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = eigh(symmetric(x))
    return values, vectors * signs(vectors)


def signed_svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vh = svd(x, full_matrices=False)
    return u * signs(u), s, vh * signs(u).mT


def fourier(real: Tensor, imaginary: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    x = torch.complex(real, imaginary)
    y = torch.fft.ifft(x, norm="forward") if inverse else torch.fft.fft(x)
    return y.real, y.imag


DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    "fourier": fourier,
    "cholesky": lambda x: cholesky(symmetric(x)),
    "solve": solve,
    "triangular_solve": lambda a, b, lower: solve_triangular(a, b, upper=not lower),
    "slogdet": lambda x: tuple(slogdet(x)),
    "qr": lambda x, complete: tuple(qr(x, "complete" if complete else "reduced")),
    "eigh": signed_eigh,
    "svd": signed_svd,
}
