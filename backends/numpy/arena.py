"""Where values live: stretches of memory, and one arena that holds those whose lifetimes allow them to share it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


@dataclass(eq=False)
class Storage:
    """A stretch of memory for one value and whatever may take its place.

    Args:
        kind: ``arena``, ``state`` or ``constant``; only an arena's storage is placed by the plan.
        nbytes: Its size.
        start, stop: The first and the last action that need its content; both are included.
        offset: Where it begins in the arena, or in ``inside``.
        inside: The larger storage it is a part of.
    """

    kind: str
    nbytes: int
    start: int = -1
    stop: int = -1
    offset: int = 0
    inside: Storage | None = None
    parts: list[Storage] = field(default_factory=list)

    @property
    def whole(self) -> Storage:
        """The storage that is placed: this one, or the one it is a part of."""
        return self.inside or self

    @property
    def begin(self) -> int:
        """Its offset in the arena."""
        return self.offset + (self.inside.offset if self.inside else 0)

    def touch(self, time: int) -> None:
        """Keep the content alive at an action."""
        whole = self.whole
        whole.start = time if whole.start < 0 else min(whole.start, time)
        whole.stop = max(whole.stop, time)


def together(sizes: Sequence[int]) -> list[Storage]:
    """Storages of these sizes, one right behind the other, inside one larger storage."""
    whole = Storage("arena", sum(sizes))
    offset = 0
    for nbytes in sizes:
        whole.parts.append(Storage("arena", nbytes, offset=offset, inside=whole))
        offset += nbytes
    return whole.parts


def _room(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def lower_bound(storages: Iterable[Storage]) -> int:
    """Bytes that are alive at the fullest moment: no arena can be smaller."""
    change: dict[int, int] = {}
    for s in storages:
        change[s.start] = change.get(s.start, 0) + _room(s.nbytes)
        change[s.stop + 1] = change.get(s.stop + 1, 0) - _room(s.nbytes)
    level = peak = 0
    for time in sorted(change):
        level += change[time]
        peak = max(peak, level)
    return peak


def place(storages: Iterable[Storage]) -> int:
    """Give every storage an offset so that those alive at the same time do not overlap; returns the arena's size.

    The largest come first, each at the lowest gap it fits into: close to the lower bound in practice.

    Reference: Pisarchyk, Lee, Efficient Memory Management for Deep Neural Net Inference, 2020, arXiv 2001.03288.
    """
    order = sorted(storages, key=lambda s: (-s.nbytes, s.start))
    start, stop, low, high = (np.zeros(len(order), np.int64) for _ in range(4))
    size = 0
    for i, s in enumerate(order):
        alive = np.flatnonzero((start[:i] <= s.stop) & (stop[:i] >= s.start))
        room = _room(s.nbytes)
        s.offset = _first_gap(low[alive], high[alive], room)
        start[i], stop[i], low[i], high[i] = s.start, s.stop, s.offset, s.offset + room
        size = max(size, s.offset + room)
    return size


def _first_gap(low: np.ndarray, high: np.ndarray, room: int) -> int:
    """The lowest offset at which ``room`` bytes are free between the intervals ``low..high``."""
    at = 0
    for i in np.argsort(low, kind="stable"):
        if low[i] - at >= room:
            break
        at = max(at, int(high[i]))
    return at
