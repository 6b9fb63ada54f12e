"""Counter-based random bits: Threefry-2x32 on unsigned words, in blocks that stay in cache."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from unilayers.ops.random import LANES, PARITY, ROTATIONS, ROUND_GROUPS

from .contract import KERNELS, Array, Calls, blocks, kernel

BLOCK = 1 << 15  # words


@kernel("random_bits")
def random_bits(do: Calls, counter: Array, y: Array, *, key: tuple[int, int], shape: tuple[int, ...]) -> None:
    """Word pairs in a row, seen as 16-bit numbers, are the lanes in order (on little-endian machines)."""
    count = -(-y.size // LANES)
    if not count:
        return
    words = do.workspace((count, 2), "uint32")
    numbers = do.constant(("first words", count, key[0]), lambda: np.arange(count, dtype="u4") + np.uint32(key[0]))
    size = min(BLOCK, count)
    a, b, t = (do.workspace((size,), "uint32") for _ in range(3))
    second = do.workspace((), "uint32")
    do(do.xp.copyto, second, counter, "unsafe")
    do(_threefry(do, key), second, list(blocks(size, (numbers, words), (a, b, t))))
    do(do.xp.copyto, y.reshape(-1), words.reshape(-1).view("uint16")[: y.size])


def _threefry(do: Calls, key: tuple[int, int]) -> Any:
    """``f(counter, parts)`` fills the words of each block."""
    xp = do.xp
    add, or_, xor, left, right = xp.add, xp.bitwise_or, xp.bitwise_xor, xp.left_shift, xp.right_shift
    words = (*key, PARITY ^ key[0] ^ key[1])

    def word(value: int) -> Array:
        value &= 0xFFFFFFFF
        return do.constant(("scalar", value, "uint32"), lambda: xp.asarray(value, "uint32"))

    rounds = []
    for group in range(ROUND_GROUPS):
        turns = [(word(by), word(32 - by)) for by in ROTATIONS[group % 2]]
        rounds.append((turns, word(words[(group + 1) % 3]), word(words[(group + 2) % 3] + group + 1)))
    first = word(key[1])

    def threefry(counter: Array, parts: list[tuple[Array, ...]]) -> None:
        start = add(counter, first)
        for numbers, out, a, b, t in parts:
            xp.copyto(a, numbers)
            b[...] = start
            for turns, key_a, key_b in rounds:
                for by, rest in turns:
                    add(a, b, a)
                    left(b, by, t)
                    right(b, rest, b)
                    or_(b, t, b)
                    xor(b, a, b)
                add(a, key_a, a)
                add(b, key_b, b)
            out[:, 0] = a
            out[:, 1] = b

    return threefry


if sys.byteorder != "little":
    del KERNELS["random_bits"]  # the op's expansion runs instead
