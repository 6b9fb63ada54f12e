"""Boxes in rows, so that arrows between them point one way: the layered drawing of a graph.

Reference:
    Sugiyama, Tagawa and Toda, Methods for visual understanding of hierarchical system structures, 1981.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]  # across the rows, and along them from the first to the last

SWEEPS = 12  # over the rows, to find an order with few crossings
STEPS, PUSHES = 60, 4  # of the columns towards their neighbours, and away from each other at each


@dataclass
class Layout:
    """Where things are.

    Args:
        centres: Of the boxes.
        routes: The points of each edge, from border to border: out of its row straight, to the next row in a curve,
            through that or to a box in it straight, and so on. None for an edge from a box to itself.
        size: Of the whole.
    """

    centres: list[Point]
    routes: list[list[Point] | None]
    size: Point


def layered(sizes: Sequence[Point], edges: Sequence[tuple[int, int]], gaps: Point, lane: float) -> Layout:
    """A layout in which boxes do not overlap, no edge runs through a box, and few edges cross.

    Args:
        sizes: Of the boxes: across and along.
        edges: Pairs of box numbers; cycles are allowed.
        gaps: Between boxes of a row, and between rows.
        lane: What an edge that passes a row takes of it.

    Example:
        >>> layered([(4, 2), (4, 2)], [(0, 1)], gaps=(1, 3), lane=1).centres
        [(2.0, 1.0), (2.0, 6.0)]
    """
    turned = _backward(len(sizes), edges)
    forward = [(b, a) if i in turned else (a, b) for i, (a, b) in enumerate(edges)]
    rank = _ranks(len(sizes), [e for e in forward if e[0] != e[1]])
    # An edge over several rows gets a narrow place of its own in each of them.
    widths, ranks = [w for w, _ in sizes], list(rank)
    chains: list[list[int]] = []
    links: list[tuple[int, int, float]] = []
    for a, b in forward:
        if a == b:
            chains.append([])
            continue
        places = list(range(len(widths), len(widths) + rank[b] - rank[a] - 1))
        widths += [lane] * len(places)
        ranks += range(rank[a] + 1, rank[b])
        chain = [a, *places, b]
        # Long edges are kept straight in their inner part; where one leaves a box, the short ones decide.
        links += [
            (u, v, 8.0 if u in places and v in places else 1.0 if places else 3.0) for u, v in itertools.pairwise(chain)
        ]
        chains.append(chain)
    rows = _ordered(ranks, links)
    across = _placed(rows, widths, links, gaps[0], lane)
    tops, along = [], 0.0
    for row in rows:
        height = max(sizes[i][1] if i < len(sizes) else 0.0 for i in row)
        tops.append((along, height))
        along += height + gaps[1]
    left = min(across[i] - widths[i] / 2 for i in range(len(widths)))
    across = [x - left for x in across]

    def middle(i: int) -> float:
        return tops[ranks[i]][0] + tops[ranks[i]][1] / 2

    routes: list[list[Point] | None] = []
    for number, chain in enumerate(chains):
        if not chain:
            routes.append(None)
            continue
        a, b = chain[0], chain[-1]
        points = [(across[a], middle(a) + sizes[a][1] / 2)]
        for i in chain:
            top, height = tops[ranks[i]]
            points += [(across[i], top), (across[i], top + height)]
        points = [points[0], *points[2:-1], (across[b], middle(b) - sizes[b][1] / 2)]
        routes.append(points[::-1] if number in turned else points)
    size = (max(x + w / 2 for x, w in zip(across, widths, strict=True)), along - gaps[1])
    return Layout([(across[i], middle(i)) for i in range(len(sizes))], routes, size)


def _backward(n: int, edges: Sequence[tuple[int, int]]) -> set[int]:
    """The numbers of edges that close a cycle, in the order in which the boxes were given."""
    out: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for number, (a, b) in enumerate(edges):
        out[a].append((number, b))
    state, found = [0] * n, set()  # 0 not seen, 1 on the way, 2 done
    for root in range(n):
        stack = [(root, 0)] if not state[root] else []
        while stack:
            node, i = stack.pop()
            state[node] = 1
            if i == len(out[node]):
                state[node] = 2
                continue
            stack.append((node, i + 1))
            number, to = out[node][i]
            if state[to] == 1 and to != node:
                found.add(number)
            elif state[to] == 0:
                stack.append((to, 0))
    return found


def _ranks(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The row of each box: below all that lead to it; then as near to what follows as shortens its edges."""
    above: list[list[int]] = [[] for _ in range(n)]
    below: list[list[int]] = [[] for _ in range(n)]
    for a, b in edges:
        above[b].append(a)
        below[a].append(b)
    waiting = [len(set_) for set_ in above]
    order = [i for i in range(n) if not waiting[i]]
    for i in order:
        for b in below[i]:
            waiting[b] -= 1
            if not waiting[b]:
                order.append(b)
    rank = [0] * n
    for i in order:
        rank[i] = max((rank[a] + 1 for a in above[i]), default=0)
    follows = [False] * n  # whether all that leads to a box leads nowhere else, and so can go down with it
    for i in order:
        follows[i] = all(follows[a] and len(below[a]) == 1 for a in above[i])
    for i in reversed(order):
        if len(below[i]) > len(above[i]) or (follows[i] and below[i]):
            rank[i] = min(rank[b] for b in below[i]) - 1
    return rank


def _ordered(ranks: Sequence[int], links: Sequence[tuple[int, int, float]]) -> list[list[int]]:
    """The rows, each in an order with few crossings: by the mean place of the neighbours, down and up in turn."""
    rows: list[list[int]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    for i, rank in enumerate(ranks):
        rows[rank].append(i)
    near: list[dict[int, list[int]]] = [{-1: [], 1: []} for _ in ranks]
    for a, b, _ in links:
        near[a][1].append(b)
        near[b][-1].append(a)
    best, least = [list(row) for row in rows], _crossings(rows, near)
    for sweep in range(SWEEPS):
        if not least:
            break
        side = -1 if sweep % 2 == 0 else 1
        for row in rows if side == -1 else reversed(rows):
            place = {i: k for r in rows for k, i in enumerate(r)}

            def wish(i: int, side: int = side, place: dict[int, int] = place) -> float:
                beside = near[i][side]
                return sum(place[j] for j in beside) / len(beside) if beside else place[i]

            row.sort(key=wish)
        count = _crossings(rows, near)
        if count < least:
            best, least = [list(row) for row in rows], count
    return best


def _crossings(rows: Sequence[Sequence[int]], near: Sequence[dict[int, list[int]]]) -> int:
    place = {i: k for row in rows for k, i in enumerate(row)}
    total = 0
    for row in rows:
        ends = [place[j] for i in row for j in sorted(near[i][1], key=place.__getitem__)]
        total += sum(a > b for k, a in enumerate(ends) for b in ends[k + 1 :])
    return total


def _placed(
    rows: Sequence[Sequence[int]],
    widths: Sequence[float],
    links: Sequence[tuple[int, int, float]],
    gap: float,
    lane: float,
) -> list[float]:
    """The centres across. What follows one another without branching stands in one column; each column moves towards
    the middle of its neighbours; columns that would overlap push each other apart, long edges and short ones most."""
    column = _columns(rows, links)
    count = max(column, default=-1) + 1
    apart = [
        (column[i], column[j], (widths[i] + widths[j]) / 2 + gap) for row in rows for i, j in itertools.pairwise(row)
    ]
    near: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for a, b, weight in links:
        if column[a] != column[b]:
            near[column[a]].append((column[b], weight))
            near[column[b]].append((column[a], weight))
    boxes = Counter(c for i, c in enumerate(column) if widths[i] > lane)
    mass = [0.05 + boxes[c] ** 2 for c in range(count)]
    x = _apart([0.0] * count, apart)
    for _ in range(STEPS):
        wishes = [_median([(x[d], w) for d, w in near[c]]) for c in range(count)]
        x = [at if wish is None else (at + wish) / 2 for at, wish in zip(x, wishes, strict=True)]
        for _ in range(PUSHES):
            for a, b, distance in apart:
                lacking = distance - (x[b] - x[a])
                if lacking > 0:
                    x[a] -= lacking * mass[b] / (mass[a] + mass[b])
                    x[b] += lacking * mass[a] / (mass[a] + mass[b])
    x = _apart(x, apart)
    return [x[c] for c in column]


def _columns(rows: Sequence[Sequence[int]], links: Sequence[tuple[int, int, float]]) -> list[int]:
    """The column of each box or place: shared along long edges, and from box to box where each is the other's only
    neighbour on that side; but never where two such lines would cross."""
    ways_out, ways_in = Counter(a for a, _, _ in links), Counter(b for _, b, _ in links)
    place = {i: k for row in rows for k, i in enumerate(row)}
    row_of = {i: r for r, row in enumerate(rows) for i in row}
    taken: list[list[tuple[int, int]]] = [[] for _ in rows]
    above: dict[int, int] = {}
    for a, b, _ in sorted(links, key=lambda link: -link[2]):
        here = taken[row_of[a]]
        crossing = any((place[a] - p) * (place[b] - q) <= 0 for p, q in here)
        if ways_out[a] == ways_in[b] == 1 and not crossing:
            here.append((place[a], place[b]))
            above[b] = a
    column = [-1] * len(place)
    for row in rows:
        for i in row:
            column[i] = column[above[i]] if i in above else max(column) + 1
    return column


def _apart(x: list[float], apart: Sequence[tuple[int, int, float]]) -> list[float]:
    """The places, moved to one side as far as the distances demand."""
    after: list[list[tuple[int, float]]] = [[] for _ in x]
    waiting = [0] * len(x)
    for a, b, distance in apart:
        after[a].append((b, distance))
        waiting[b] += 1
    moved = list(x)
    order = [c for c, n in enumerate(waiting) if not n]
    for c in order:
        for d, distance in after[c]:
            moved[d] = max(moved[d], moved[c] + distance)
            waiting[d] -= 1
            if not waiting[d]:
                order.append(d)
    return moved


def _median(values: list[tuple[float, float]]) -> float | None:
    """The weighted median; between two values of equal weight their mean."""
    if not values:
        return None
    half, below = sum(w for _, w in values) / 2, 0.0
    ordered = sorted(values)
    for k, (value, weight) in enumerate(ordered):
        below += weight
        if math.isclose(below, half):
            return (value + ordered[k + 1][0]) / 2
        if below > half:
            return value
    return ordered[-1][0]
