"""The two hash functions that put words and numbers into bins: FarmHash's 64-bit fingerprint, and SipHash-2-4.

The formulas are written once: for Python's integers, which hash a text of any length, and for arrays of 64-bit words,
which hash the decimal form of integers inside a graph. So a number and its text are in the same bin.

Reference:
    Pike, Introducing FarmHash, 2014 (Fingerprint64). Aumasson, Bernstein, SipHash: a fast short-input PRF, 2012.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unilayers import ops

WORD = (1 << 64) - 1
K0, K1, K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
SIP_START = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
CROSS_START, CROSS_FACTOR = 0xDECAFCAFFE, 0xC6A4A7935BD1E995  # as TensorFlow has them
DIGITS = 19  # of the largest 64-bit integer
BYTES = 24  # for its sign and its digits, in whole words


class Words:
    """An int64 array whose elements count as unsigned words: sums and products wrap, shifts drag in zeros."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __add__(self, other: Any) -> Words:
        return Words(ops.add(self.array, _signed(other)))

    def __mul__(self, other: Any) -> Words:
        return Words(ops.multiply(self.array, _signed(other)))

    def __xor__(self, other: Any) -> Words:
        return Words(ops.bitwise_xor(self.array, _signed(other)))

    def __and__(self, other: Any) -> Words:
        return self if isinstance(other, int) and other == WORD else Words(ops.bitwise_and(self.array, _signed(other)))

    def __or__(self, other: Any) -> Words:
        return Words(ops.bitwise_or(self.array, _signed(other)))

    def __lshift__(self, by: int) -> Words:
        return Words(ops.bitwise_left_shift(self.array, by))

    def __rshift__(self, by: int) -> Words:
        return Words(ops.bitwise_right_shift(self.array, by)) & ((1 << 64 - by) - 1)

    __radd__, __rmul__ = __add__, __mul__


def _signed(x: Any) -> Any:
    """The operand as arrays of int64 hold it."""
    if isinstance(x, Words):
        return x.array
    x &= WORD
    return x - (1 << 64) if x >> 63 else x


# ---- formulas, for integers and for Words -------------------------------------------


def _rotated(x: Any, by: int) -> Any:
    """x turned to the right."""
    return x >> by | x << (64 - by) & WORD


def _mixed(x: Any) -> Any:
    return x ^ x >> 47


def _pair(u: Any, v: Any, factor: Any) -> Any:
    """Two words as one."""
    a = _mixed((u ^ v) * factor & WORD)
    b = _mixed((v ^ a) * factor & WORD)
    return b * factor & WORD


def _three(n: Any, first: Any, middle: Any, last: Any) -> Any:
    """FarmHash of 1 to 3 bytes."""
    return _mixed((first + (middle << 8)) * K2 & WORD ^ (n + (last << 2)) * K0 & WORD) * K2 & WORD


def _seven(n: Any, start: Any, end: Any) -> Any:
    """Of 4 to 7 bytes: the first four and the last four."""
    return _pair(n + (start << 3), end, n * 2 + K2)


def _sixteen(n: Any, start: Any, end: Any) -> Any:
    """Of 8 to 16: the first and the last word."""
    factor, a = n * 2 + K2 & WORD, start + K2 & WORD
    c = _rotated(end, 37) * factor + a & WORD
    return _pair(c, (_rotated(a, 25) + end) * factor & WORD, factor)


def _four(a: Any, b: Any, c: Any, d: Any, factor: Any) -> tuple[Any, Any]:
    """Four words as two."""
    first = _rotated(a + b & WORD, 43) + _rotated(c, 30) + d & WORD
    return first, a + _rotated(b + K2 & WORD, 18) + c & WORD


def _thirtytwo(n: Any, start: Any, second: Any, last: Any, end: Any) -> Any:
    """Of 17 to 32: the first two words and the last two."""
    factor = n * 2 + K2 & WORD
    return _pair(*_four(start * K1 & WORD, second, end * factor & WORD, last * K2 & WORD, factor), factor)


def _sip_rounds(state: Sequence[Any], count: int) -> list[Any]:
    a, b, c, d = state
    for _ in range(count):
        a, c = a + b & WORD, c + d & WORD
        b, d = _rotated(b, 64 - 13) ^ a, _rotated(d, 64 - 16) ^ c
        a = _rotated(a, 32)
        c, a = c + b & WORD, a + d & WORD
        b, d = _rotated(b, 64 - 17) ^ c, _rotated(d, 64 - 21) ^ a
        c = _rotated(c, 32)
    return [a, b, c, d]


def _sip_absorbed(state: Sequence[Any], word: Any) -> list[Any]:
    """The state after one more word."""
    a, b, c, d = _sip_rounds([*state[:3], state[3] ^ word], 2)
    return [a ^ word, b, c, d]


def _sip_result(state: Sequence[Any]) -> Any:
    a, b, c, d = _sip_rounds([state[0], state[1], state[2] ^ 0xFF, state[3]], 4)
    return a ^ b ^ c ^ d


def _sip_start(salt: Sequence[int]) -> list[int]:
    return [(k & WORD) ^ s for k, s in zip((*salt, *salt), SIP_START, strict=True)]


# ---- texts ------------------------------------------------------------------------


def bucket(text: bytes, bins: int, salt: Sequence[int] | None = None) -> int:
    """The bin of a text: by FarmHash, or by SipHash with the two numbers of ``salt`` as its key.

    Example:
        >>> bucket(b"10", 1000), bucket(b"10", 1000, (1, 2))
        (862, 33)
    """
    return (fingerprint(text) if salt is None else siphash(text, salt)) % bins


def fingerprint(text: bytes) -> int:
    """FarmHash's 64-bit fingerprint.

    Example:
        >>> hex(fingerprint(b""))
        '0x9ae16a3b2f90404f'
    """
    n = len(text)

    def word(at: int, size: int = 8) -> int:
        return int.from_bytes(text[at % n : at % n + size], "little")

    if n > 64:
        return _long(text)
    if n > 32:
        return _sixtyfour(n, *(word(at) for at in (0, 8, 16, 24, -32, -24, -16, -8)))
    if n > 16:
        return int(_thirtytwo(n, word(0), word(8), word(-16), word(-8)))
    if n > 7:
        return int(_sixteen(n, word(0), word(-8)))
    if n > 3:
        return int(_seven(n, word(0, 4), word(-4, 4)))
    return int(_three(n, text[0], text[n >> 1], text[-1])) if n else K2


def _sixtyfour(n: int, *words: int) -> int:
    """Of 33 to 64 bytes: the first four words and the last four."""
    factor = n * 2 + K2 & WORD
    a, d = words[0] * K2 & WORD, words[6] * K2 & WORD
    c = words[7] * factor & WORD
    first, second = _four(a, words[1], c, d, factor)
    e = words[2] * factor & WORD
    g = (first + words[4]) * factor & WORD
    h = (_pair(first, second, factor) + words[5]) * factor & WORD
    left = _rotated(e + words[3] & WORD, 43) + _rotated(g, 30) + h & WORD
    return int(_pair(left, e + _rotated(words[3] + a & WORD, 18) + g & WORD, factor))


def _long(text: bytes) -> int:
    """Of more than 64 bytes: block by block of eight words."""

    def stirred(four: Sequence[int], a: int, b: int) -> tuple[int, int]:
        start = a + four[0] & WORD
        b = _rotated(b + start + four[3] & WORD, 21)
        a = start + four[1] + four[2] & WORD
        return a + four[3] & WORD, b + _rotated(a, 44) + start & WORD

    n, seed = len(text), 81
    y = seed * K1 + 113 & WORD
    z = _mixed(y * K2 + 113 & WORD) * K2 & WORD
    v, w = (0, 0), (0, 0)
    x = seed * K2 + int.from_bytes(text[:8], "little") & WORD

    def taken(at: int, factor: int, times: int) -> None:
        nonlocal x, y, z, v, w
        words = [int.from_bytes(text[at + 8 * i : at + 8 * i + 8], "little") for i in range(8)]
        x = _rotated(x + y + v[0] + words[1] & WORD, 37) * factor & WORD
        y = _rotated(y + v[1] + words[6] & WORD, 42) * factor & WORD
        x ^= w[1] * times & WORD
        y = y + v[0] * times + words[5] & WORD
        z = _rotated(z + w[0] & WORD, 33) * factor & WORD
        v = stirred(words[:4], v[1] * factor & WORD, x + w[0] & WORD)
        w = stirred(words[4:], z + w[1] & WORD, y + words[2] & WORD)
        z, x = x, z

    for at in range(0, (n - 1) // 64 * 64, 64):
        taken(at, K1, 1)
    factor = K1 + ((z & 0xFF) << 1) & WORD
    w = w[0] + (n - 1) % 64 & WORD, w[1]
    v = v[0] + w[0] & WORD, v[1]
    w = w[0] + v[0] & WORD, w[1]
    taken(n - 64, factor, 9)
    one = _pair(v[0], w[0], factor) + _mixed(y) * K0 + z & WORD
    return int(_pair(one, _pair(v[1], w[1], factor) + x & WORD, factor))


def siphash(text: bytes, salt: Sequence[int]) -> int:
    """SipHash-2-4 with a key of two 64-bit words.

    Example:
        >>> key = [int.from_bytes(bytes(range(i, i + 8)), "little") for i in (0, 8)]
        >>> hex(siphash(bytes(range(15)), key))  # the example of the paper
        '0xa129ca6149be45e5'
    """
    state = _sip_start(salt)
    padded = text + bytes(7 - len(text) % 8) + bytes([len(text) & 0xFF])
    for at in range(0, len(padded), 8):
        state = _sip_absorbed(state, int.from_bytes(padded[at : at + 8], "little"))
    return int(_sip_result(state))


# ---- integers -----------------------------------------------------------------------


def bucket_of_integers(x: Any, bins: int, salt: Sequence[int] | None = None) -> Any:
    """The bins of integers, as int64: those of their decimal texts.

    Shapes: x any shape of integers above ``-2**63`` -> the same.

    Args:
        x: The integers.
        bins: How many bins.
        salt: Key of SipHash; None: FarmHash.

    Example:
        >>> texts = [str(n).encode() for n in (7, -1200, 3 * 10**9)]
        >>> bins = bucket_of_integers(np.array([7, -1200, 3 * 10**9]), 100)
        >>> bins.tolist() == [bucket(text, 100) for text in texts]
        True
    """
    shape = ops.shape_of(x)
    flat = ops.reshape(ops.astype(x, "int64"), (-1,))
    texts = _Decimal(flat)
    return ops.reshape(_rest(texts.fingerprint() if salt is None else texts.siphash(salt), bins), shape)


def _rest(hashed: Any, bins: int) -> Any:
    """The remainders of words."""
    rest = ops.remainder(hashed, bins)  # of the signed word
    return ops.remainder(ops.add(rest, ops.where(ops.less(hashed, 0), np.int64((1 << 64) % bins), 0)), bins)


def bucket_of_pairs(features: Sequence[Any], bins: int) -> Any:
    """The bins of what several features are together, as int64: those of TensorFlow's crossed columns.

    Shapes: features of one shape -> the same.

    Args:
        features: Integers as they are, and of texts the fingerprints; int64.
        bins: How many bins.

    Example:
        >>> bucket_of_pairs([np.array([1, 2]), np.array([5, 5])], 10)
        array([3, 8])
    """
    total = Words(ops.full_like(features[0], _signed(CROSS_START)))
    for feature in features:
        word = (total ^ CROSS_FACTOR) ^ _mixed(Words(feature) * CROSS_FACTOR) * CROSS_FACTOR
        total = _mixed(_mixed(word * CROSS_FACTOR) * CROSS_FACTOR)
    return _rest(total.array, bins)


class _Decimal:
    """The decimal texts of integers ``(n,)``: their bytes as words, from the start and from the end."""

    def __init__(self, x: Any) -> None:
        negative, size = ops.expand_dims(ops.less(x, 0), 1), ops.expand_dims(ops.abs(x), 1)
        place = np.arange(BYTES)[None]  # from the end of the text
        powers = 10 ** np.minimum(place, DIGITS - 1)
        later = ops.logical_and(ops.greater_equal(size, powers), (place > 0) & (place < DIGITS))
        digits = ops.add(ops.sum(ops.astype(later, "int64"), 1, keepdims=True), 1)
        self.length = ops.add(digits, ops.astype(negative, "int64"))
        sign = ops.where(ops.logical_and(negative, ops.equal(digits, place)), ord("-"), 0)
        digit = ops.add(ops.remainder(ops.floor_divide(size, powers), 10), ord("0"))
        self.back = ops.where(ops.less(place, digits), digit, ops.astype(sign, "int64"))
        at = ops.subtract(ops.subtract(self.length, 1), place)
        front = ops.take_along_axis(self.back, ops.maximum(at, 0), 1)
        self.front = ops.where(ops.greater_equal(at, 0), front, 0)

    def word(self, at: int, size: int = 8) -> Words:
        """Bytes of each text as one word; ``at`` below 0 counts from the end."""
        if at < 0:
            taken = ops.flip(ops.slice_axis(self.back, 1, -at - size, -at), 1)
        else:
            taken = ops.slice_axis(self.front, 1, at, at + size)
        return Words(ops.sum(ops.bitwise_left_shift(taken, 8 * np.arange(size)), 1))

    def fingerprint(self) -> Any:
        length = ops.squeeze(self.length, 1)
        n, end = Words(length), self.word(-8)
        middle = Words(ops.where(ops.greater(length, 1), self.word(1, 1).array, self.word(0, 1).array))
        cases = {
            16: _thirtytwo(n, self.word(0), self.word(8), self.word(-16), end),
            7: _sixteen(n, self.word(0), end),
            3: _seven(n, self.word(0, 4), self.word(-4, 4)),
            0: _three(n, self.word(0, 1), middle, self.word(-1, 1)),
        }
        found = cases.pop(0).array
        for above, value in sorted(cases.items()):
            found = ops.where(ops.greater(length, above), value.array, found)
        return found

    def siphash(self, salt: Sequence[int]) -> Any:
        length = ops.squeeze(self.length, 1)
        whole = ops.floor_divide(length, 8)
        zeros = Words(ops.multiply(length, 0))
        state: list[Any] = [zeros + s for s in _sip_start(salt)]
        for i in range(BYTES // 8):
            last = ops.where(ops.equal(whole, i), ops.bitwise_left_shift(length, 56), 0)
            after = _sip_absorbed(state, self.word(8 * i) | Words(last))
            on = ops.greater_equal(whole, i)
            state = [Words(ops.where(on, a.array, b.array)) for a, b in zip(after, state, strict=True)]
        return _sip_result(state).array
