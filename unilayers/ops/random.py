"""Counter-based random numbers as integer arithmetic: the same bits on every backend, and no generator to keep.

A draw is a function of a key (which stream), a counter (how often it was drawn from) and the element's place.

Reference:
    Salmon, Moraes, Dror, Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, 2011 (Threefry-2x32 with 20 rounds).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.graph import Sample
from unilayers.ops.define import composite, dtype_of, require_float, shape_of
from unilayers.spec import Dim, DimLike, Shape, Spec, check_dtype

__all__ = [
    "dropout", "random_bits", "random_bits_", "random_normal", "random_normal_", "random_uniform", "random_uniform_",
    "threefry_2x32",
]  # fmt: skip

Key = tuple[int, int]

LANES = 4  # 16-bit numbers in one block of two 32-bit words
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
ROUND_GROUPS = 5  # of four rounds each
# How many of 32 random bits a float dtype takes: what its significand holds, so that every value is exact and below 1.
_UNIFORM_BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 32}


# ---- the block function --------------------------------------------------------


def _signed(word: int) -> int:
    """A 32-bit word as the int32 with the same bits."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word


def _rotate_left(x: Any, by: int) -> Any:
    # The right shift keeps the sign, so the bits it drags in are cleared.
    low = ops.bitwise_and(ops.bitwise_right_shift(x, 32 - by), (1 << by) - 1)
    return ops.bitwise_or(ops.bitwise_left_shift(x, by), low)


def threefry_2x32(key: Key, a: Any, b: Any) -> tuple[Any, Any]:
    """Two random 32-bit words from two counter words, for every element of the int32 arrays a and b, which broadcast.

    Args:
        key: Two words, 0 to 2**32 - 1.
        a: First counter word; at least one axis, since integers wrap around silently in arrays only.
        b: Second counter word, likewise.

    Example:
        >>> import numpy as np
        >>> words = threefry_2x32((0, 0), np.zeros(1, "int32"), np.zeros(1, "int32"))
        >>> [hex(int(w[0]) & 0xFFFFFFFF) for w in words]
        ['0x6b200159', '0x99ba4efe']
    """
    words = (*key, PARITY ^ key[0] ^ key[1])
    a, b = a + _signed(words[0]), b + _signed(words[1])
    for group in range(ROUND_GROUPS):
        for by in ROTATIONS[group % 2]:
            a = a + b
            b = ops.bitwise_xor(_rotate_left(b, by), a)
        a = a + _signed(words[(group + 1) % 3])
        b = b + _signed(words[(group + 2) % 3] + group + 1)
    return a, b


def _threefry_reference(key: Key, a: np.ndarray, b: int) -> np.ndarray:
    """The same by Python's own integers, word by word: ``(len(a), 2)`` of uint32."""

    def block(x: int, y: int) -> tuple[int, int]:
        keys = [*key, 0x1BD11BDA ^ key[0] ^ key[1]]
        x, y = (x + keys[0]) % 2**32, (y + keys[1]) % 2**32
        for r in range(20):
            by = [13, 15, 26, 6, 17, 29, 16, 24][r % 8]
            x = (x + y) % 2**32
            y = ((y << by | y >> (32 - by)) % 2**32) ^ x
            if r % 4 == 3:
                s = r // 4 + 1
                x, y = (x + keys[s % 3]) % 2**32, (y + keys[(s + 1) % 3] + s) % 2**32
        return x, y

    return np.array([block(int(n) % 2**32, int(b) % 2**32) for n in a], np.uint32).reshape(-1, 2)


# ---- bits ---------------------------------------------------------------------


def _check_counter(counter: Spec) -> None:
    if counter.shape != () or counter.dtype not in ("int32", "int64"):
        raise ShapeError("the counter must be an integer scalar", expected="int32[]", received=repr(counter))


def _bits_infer(counter: Spec, *, key: Key, shape: Shape) -> Spec:
    _check_counter(counter)
    if len(key) != 2 or any(not 0 <= word < 1 << 32 for word in key):
        raise UnilayersError("not a key", expected="two ints of 32 bits", received=repr(key))
    return Spec(shape, "int32")


def _bits_reference(counter: np.ndarray, key: Key, shape: tuple[int, ...]) -> np.ndarray:
    n = math.prod(shape)
    words = _threefry_reference(key, np.arange(-(-n // 4)), int(counter))
    lanes = np.stack([words & 0xFFFF, words >> 16], axis=-1)
    return lanes.ravel()[:n].reshape(shape).astype(np.int32)


def _bits_samples(rng: np.random.Generator) -> list[Sample]:
    shapes: list[tuple[int, ...]] = [(4, 5), (7,), (), (0, 3)]
    keys = [(0x13198A2E, 0xFFFFFFFF), (0, 7), (2**31, 1), (1, 2)]
    counters = [3, -1, 2**31 - 1, 0]
    return [
        Sample((np.array(c, np.int32),), {"key": k, "shape": s}, False)
        for c, k, s in zip(counters, keys, shapes, strict=True)
    ]


def _threefry_cost(counter: Spec, *, shape: Shape, **attrs: Any) -> Any:
    return Spec(shape).size * (20 * 7 // LANES)


@composite(infer=_bits_infer, cost=_threefry_cost, reference=_bits_reference, samples=_bits_samples)
def random_bits_(counter: Any, *, key: Key, shape: Shape) -> Any:
    """16 random bits per element, as int32 between 0 and 65535; equal on all backends.

    Element e is lane ``e % 4`` of the Threefry-2x32 block with the counter words ``(e // 4, counter)``: the lower and
    upper half of the first word, then of the second. So a shorter array is the beginning of a longer one.
    """
    size: DimLike = Spec(shape).size
    blocks = (size + (LANES - 1)) // LANES
    second = ops.reshape(ops.astype(counter, "int32"), (1,))
    words = threefry_2x32(key, ops.arange(blocks, like=counter), second)
    halves = [h for w in words for h in (w, ops.bitwise_right_shift(w, 16))]
    lanes = ops.bitwise_and(ops.stack(halves, axis=1), 0xFFFF)
    return ops.reshape(ops.slice_axis(ops.reshape(lanes, (blocks * LANES,)), 0, 0, size), tuple(shape))


def random_bits(counter: Any, *, key: Key, shape: Any) -> Any:
    """16 random bits per element, as int32 between 0 and 65535: a function of key, counter and the element's place.

    Args:
        counter: An integer scalar; add 1 to it for the next draw.
        key: Two ints of 32 bits that name the stream, as ``unilayers.random.key_of`` gives.
        shape: Of the result; may hold symbolic sizes. A shorter array is the beginning of a longer one.

    Engines: Each engine has generators of its own; here the bits are computed from integers, equal everywhere.

    Reference:
        Salmon, Moraes, Dror, Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, 2011.

    Example:
        >>> random_bits(0, key=(0, 0), shape=(4,)).tolist()  # the words 0x6b200159 and 0x99ba4efe
        [345, 27424, 20222, 39354]
    """
    shape = (shape,) if isinstance(shape, (int, Dim)) else tuple(shape)
    return random_bits_(counter, key=tuple(key), shape=shape)


# ---- uniform floats --------------------------------------------------------------


def _uniform_infer(counter: Spec, *, key: Key, shape: Shape, dtype: str) -> Spec:
    _check_counter(counter)
    if dtype not in _UNIFORM_BITS:
        raise DTypeError("not a float dtype", expected=" or ".join(_UNIFORM_BITS), received=dtype)
    return Spec(shape, dtype)


def _uniform_reference(counter: np.ndarray, key: Key, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    n, bits = math.prod(shape), _UNIFORM_BITS[dtype]
    lanes = _bits_reference(counter, key, (2 * n,)).astype(np.int64).reshape(n, 2)
    return (((lanes[:, 0] << 16 | lanes[:, 1]) >> (32 - bits)) / 2.0**bits).reshape(shape).astype(dtype)


def _uniform_samples(rng: np.random.Generator) -> list[Sample]:
    attrs = [{"key": (5, 2**32 - 1), "shape": (3, 5), "dtype": d} for d in ("float32", "float64", "float16")]
    return [Sample((np.array(9, np.int32),), a, False) for a in attrs]


@composite(
    infer=_uniform_infer, reference=_uniform_reference, samples=_uniform_samples, tolerance=0.0,
    cost=lambda counter, *, shape, **a: 2 * _threefry_cost(counter, shape=shape) + 4 * Spec(shape).size,
)  # fmt: skip
def random_uniform_(counter: Any, *, key: Key, shape: Shape, dtype: str) -> Any:
    """Floats from [0, 1), evenly spaced: 24 random bits each in float32, 32 in float64, exact and equal everywhere."""
    bits = _UNIFORM_BITS[dtype]
    lanes = ops.random_bits(counter, key=key, shape=(*shape, 2))
    last = len(shape)
    high, low = (ops.reshape(ops.slice_axis(lanes, last, i, i + 1), tuple(shape)) for i in (0, 1))
    if bits <= 16:
        return ops.astype(ops.bitwise_right_shift(high, 16 - bits), dtype) * 2.0**-bits
    # Two exact parts whose sum is exact too.
    low = ops.bitwise_right_shift(low, 32 - bits)
    return ops.astype(high, dtype) * 2.0**-16 + ops.astype(low, dtype) * 2.0**-bits


def random_uniform(counter: Any, *, key: Key, shape: Any, dtype: str | None = None) -> Any:
    """Random floats from [0, 1): a function of key, counter and the element's place, equal on all backends.

    Args:
        counter: An integer scalar; add 1 to it for the next draw.
        key: Two ints of 32 bits that name the stream.
        shape: Of the result; may hold symbolic sizes.
        dtype: Of the result; None: the default float dtype.

    Example:
        >>> random_uniform(0, key=(0, 0), shape=(2,), dtype="float64").round(4)
        array([0.0053, 0.3086])
    """
    shape = (shape,) if isinstance(shape, (int, Dim)) else tuple(shape)
    return random_uniform_(counter, key=tuple(key), shape=shape, dtype=check_dtype(dtype or ops.floatx()))


# ---- normal floats ---------------------------------------------------------------


def _normal_reference(counter: np.ndarray, key: Key, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    u = _uniform_reference(counter, key, (*shape, 2), dtype).astype("float64")
    return np.sqrt(-2 * np.log1p(-u[..., 0])) * np.cos(2 * np.pi * u[..., 1])


def _normal_samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample((np.array(9, np.int32),), {"key": (5, 2**32 - 1), "shape": (3, 5), "dtype": "float64"}, False)]


@composite(
    infer=_uniform_infer, reference=_normal_reference, samples=_normal_samples,
    cost=lambda counter, *, shape, **a: 4 * _threefry_cost(counter, shape=shape) + 20 * Spec(shape).size,
)  # fmt: skip
def random_normal_(counter: Any, *, key: Key, shape: Shape, dtype: str) -> Any:
    """Floats of mean 0 and variance 1, each from two of ``random_uniform``: equal on all backends but for rounding."""
    pairs = ops.random_uniform(counter, key=key, shape=(*shape, 2), dtype=dtype)
    last = len(shape)
    radius, angle = (ops.reshape(ops.slice_axis(pairs, last, i, i + 1), tuple(shape)) for i in (0, 1))
    # 1 - u is never 0.
    return ops.sqrt(ops.log1p(ops.negative(radius)) * -2.0) * ops.cos(angle * (2 * math.pi))


def random_normal(counter: Any, *, key: Key, shape: Any, dtype: str | None = None) -> Any:
    """Random floats of a normal distribution with mean 0 and variance 1, equal on all backends but for rounding.

    Args:
        counter: An integer scalar; add 1 to it for the next draw.
        key: Two ints of 32 bits that name the stream.
        shape: Of the result; may hold symbolic sizes.
        dtype: Of the result; None: the default float dtype.

    Reference:
        Box, Muller, A Note on the Generation of Random Normal Deviates, 1958.

    Example:
        >>> random_normal(0, key=(0, 0), shape=(2,), dtype="float64").round(4)
        array([-0.037 ,  0.0555])
    """
    shape = (shape,) if isinstance(shape, (int, Dim)) else tuple(shape)
    return random_normal_(counter, key=tuple(key), shape=shape, dtype=check_dtype(dtype or ops.floatx()))


# ---- dropout ----------------------------------------------------------------------


def _dropout_infer(x: Spec, counter: Spec, *, rate: float, key: Key) -> Spec:
    require_float(x.dtype)
    if not 0 <= rate <= 1:
        raise UnilayersError("not a rate", expected="0 to 1", received=str(rate))
    _bits_infer(counter, key=key, shape=())
    return x


def _dropout_vjp(g: Any, y: Any, x: Any, counter: Any, *, rate: float, key: Key) -> tuple[Any, None]:
    # Dropout is linear in x: its gradient is dropout again, with the same mask.
    return ops.dropout(g, counter, rate=rate, key=key), None


def _dropout_reference(x: np.ndarray, counter: np.ndarray, rate: float, key: Key) -> np.ndarray:
    keep = _bits_reference(counter, key, x.shape) >= round(rate * 65536)
    return x * keep / (1 - rate) if rate < 1 else np.zeros_like(x)


def _dropout_samples(rng: np.random.Generator) -> list[Sample]:
    counter = np.array(11, np.int32)
    return [Sample((rng.normal(size=(4, 6)), counter), {"rate": r, "key": (3, 4)}, (0,)) for r in (0.25, 0.0, 1.0)]


@composite(
    infer=_dropout_infer, vjp=_dropout_vjp, reference=_dropout_reference, samples=_dropout_samples,
    cost=lambda x, counter, **a: _threefry_cost(counter, shape=x.shape) + 3 * x.size,
)  # fmt: skip
def dropout(x: Any, counter: Any, *, rate: float, key: Key) -> Any:
    """x with a random share ``rate`` of its elements set to 0 and the others divided by 1 - rate.

    The mask is a function of key, counter and the element's place, so that it is equal on all backends: an element is
    kept where its ``random_bits`` are at least ``round(rate * 65536)``.

    Args:
        x: Any shape; floats.
        counter: An integer scalar; add 1 to it for another mask.
        rate: Between 0 and 1.
        key: Two ints of 32 bits that name the stream.

    Engines: Each engine draws masks from a generator of its own; here they are equal bit for bit, with the rate in
    steps of 1/65536. A dropped infinity is NaN in PyTorch and here, and 0 in TensorFlow.

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, Dropout, 2014.

    Example:
        >>> import numpy as np
        >>> dropout(np.ones(8), 0, rate=0.5, key=(0, 0))
        array([0., 0., 0., 2., 2., 0., 0., 2.])
    """
    bits = random_bits_(counter, key=key, shape=shape_of(x))
    scale = 1 / (1 - rate) if rate < 1 else 0.0
    keep = ops.greater_equal(bits, round(rate * 65536))
    return x * (ops.astype(keep, dtype_of(x)) * scale)
