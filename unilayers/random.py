"""Random numbers keyed by a seed and a path: they depend neither on the backend nor on the order of creation."""

from __future__ import annotations

import struct
from hashlib import blake2b

import numpy as np

from .errors import UnilayersError

_default_seed = 0


def default_seed() -> int:
    """The seed used where none is given: 0, or what `set_random_seed` set.

    Example:
        >>> default_seed()
        0
    """
    return _default_seed


def set_random_seed(seed: int) -> None:
    """Set the default seed, for all threads; NumPy's and the frameworks' own generators are left alone.

    Raises:
        UnilayersError: if ``seed`` is not an int of at least 0.
    """
    global _default_seed
    _default_seed = _checked(seed)


def key_of(seed: int, path: str) -> tuple[int, int]:
    """Two 32-bit words that stand for ``(seed, path)``; the same on every machine and Python.

    Reference:
        Aumasson et al., BLAKE2: simpler, smaller, fast as MD5, 2013, RFC 7693.

    Example:
        >>> key_of(7, "dense/kernel")
        (2097763111, 2895452837)
    """
    first, second = struct.unpack("<2I", blake2b(f"{_checked(seed)}\0{path}".encode(), digest_size=8).digest())
    return first, second


def generator(seed: int, path: str) -> np.random.Generator:
    """A NumPy generator at the start of the stream of ``(seed, path)``; the stream is counter-based (Philox 4x64).

    Reference:
        Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011.

    Example:
        >>> generator(7, "a").random() == generator(7, "a").random() != generator(7, "b").random()
        True
    """
    return np.random.Generator(np.random.Philox(key=np.array(key_of(seed, path), dtype=np.uint64)))


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of ``n`` samples in an epoch: int64 ``(n,)``, a function of ``(n, seed, epoch)`` alone.

    Example:
        >>> sorted(permutation(4, seed=7, epoch=0).tolist())
        [0, 1, 2, 3]
    """
    return generator(seed, f"epoch/{epoch}").permutation(n)


def _checked(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UnilayersError(
            "not a seed", where="seed", expected="an int of at least 0", received=f"{seed!r} ({type(seed).__name__})"
        )
    return int(seed)
