"""What NumPy lacks: the error function, and Threefry's random bits as unsigned integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from unilayers.ops.random import LANES, PARITY, ROTATIONS, ROUND_GROUPS, Key

# ---- error function -----------------------------------------------------------

_FAR, _SHIFT = 6.0, 2.0  # erf is 1 in float64 beyond 6; 1 / (x + 2) makes the tail nearly linear
_LOW, _HIGH = 1 / (_FAR + _SHIFT), 1 / (1.0 + _SHIFT)
_DEGREES = {"float64": (18, 20), "float32": (11, 8)}  # of the two series; errors 6e-16 and 1e-9


@cache
def _erf_series(dtype: str) -> tuple[list[float], list[float]]:
    """Coefficients: of erf(x) / x in x**2 below 1, by Taylor; of erfc(x) * exp(x**2) beyond, by interpolation."""
    terms, degree = _DEGREES[dtype]
    near = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(terms)]

    def tail(u: Any) -> Any:
        x = 1 / ((u + 1) / 2 * (_HIGH - _LOW) + _LOW) - _SHIFT
        return np.array([math.erfc(v) * math.exp(v * v) for v in x])

    chebyshev = np.polynomial.chebyshev
    return near, chebyshev.cheb2poly(chebyshev.chebinterpolate(tail, degree)).tolist()


def erf_like(xp: Any) -> Callable[[Any], Any]:
    """erf over an array module."""

    def polynomial(coefficients: list[float], u: Any) -> Any:
        y = xp.full_like(u, coefficients[-1])
        for c in reversed(coefficients[:-1]):
            y *= u
            y += c
        return y

    def erf(x: Any) -> Any:
        dtype = "float64" if x.dtype == "float64" else "float32"
        near, far = _erf_series(dtype)
        size = xp.minimum(xp.abs(xp.asarray(x, dtype)), _FAR)
        square = xp.square(size)
        u = 1 / (xp.maximum(size, 1.0) + _SHIFT)
        u = (u - _LOW) * (2 / (_HIGH - _LOW)) - 1
        below = polynomial(near, xp.minimum(square, 1.0)) * size
        beyond = 1 - xp.exp(-square) * polynomial(far, u)
        return xp.copysign(xp.where(size < 1, below, beyond), x).astype(x.dtype)

    return erf


# ---- random bits --------------------------------------------------------------

_CHUNK = 1 << 14  # blocks at a time, so that the words stay in the cache


def random_bits_like(xp: Any) -> Callable[..., Any]:
    """``random_bits`` over an array module: the words as uint32, shifted without sign, in place."""

    def scramble(a: Any, b: Any, key: Key) -> None:
        keys = (*key, PARITY ^ key[0] ^ key[1])
        a += keys[0]
        b += keys[1]
        spare = xp.empty_like(b)
        for group in range(ROUND_GROUPS):
            for by in ROTATIONS[group % 2]:
                a += b
                xp.left_shift(b, by, out=spare)
                b >>= 32 - by
                b |= spare
                b ^= a
            a += keys[(group + 1) % 3]
            b += (keys[(group + 2) % 3] + group + 1) % (1 << 32)

    def random_bits(counter: Any, key: Key, shape: tuple[int, ...]) -> Any:
        size = math.prod(shape)
        words = xp.empty((-(-size // LANES), 2), "<u4")  # little-endian: the lower half is the first lane
        for start in range(0, len(words), _CHUNK):
            part = words[start : start + _CHUNK]
            a = xp.arange(start, start + len(part), dtype="uint32")
            b = xp.empty_like(a)
            b[...] = counter.astype("uint32")
            scramble(a, b, key)
            part[:, 0], part[:, 1] = a, b
        return words.view("<u2").reshape(-1)[:size].astype("int32").reshape(shape)

    return random_bits
