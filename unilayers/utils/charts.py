"""Charts as SVG to stand inside a page: curves, points and bars, in colours that the page's style says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TypeAlias

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 68, 30, 12, 34  # room for labels
POINTS = 600  # of a curve; of more, the largest of each stretch
ROW = 26  # of bars
WIDE = 20.0  # ratio of the largest to the least from which numbers are better seen as logarithms
MARGIN = 0.04  # of an axis, at its ends
WIDEST = 9.0  # stroke of the lowest of several curves
# Okabe and Ito's colours, which colour-blind people can tell apart; the same on dark paper; then with other dashes.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DARK = ("#5fb3e6", "#ff9d5c", "#4fd1a5", "#e7a7c9", "#f2bd4b", "#a5dbf8", "#f0f2f5")
DASHES = ("", "6 3", "2 2", "8 3 2 3")

STYLE = """
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--soft); }
.grid { stroke: var(--line); } .level { stroke: var(--soft); stroke-dasharray: 5 4; }
.line { fill: none; } .line.rest { stroke: var(--line); } .dot.rest, .bar.rest { fill: var(--faint); }
@media (max-width: 40rem) { svg text { font-size: 18px; } }
""" + "".join(
    f".line.c{i} {{ stroke: var(--c{i}); }} .bar.c{i}, .dot.c{i} {{ fill: var(--c{i}); }}\n" for i in range(len(LIGHT))
)
Values: TypeAlias = Sequence[float] | Sequence[tuple[float, float]]


def lines(
    curves: Mapping[str, Values],
    colours: Mapping[str, int],
    *,
    log: bool = False,
    level: float | None = None,
    dashes: Mapping[str, str] | None = None,
    marks: str = "",
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> str:
    """Curves over one another; values that are not finite are gaps.

    Args:
        curves: The values of each curve by its name: by step from 1 on, or pairs of a whole number and a value.
        colours: The number of each name's colour; a curve without one is faint.
        log: Whether heights are logarithms; what is 0 then lies on the lower edge.
        level: A height to mark.
        dashes: Strokes and gaps of those that are dashed, as SVG has them.
        marks: What the curves run over, such as ``epoch``: it is written below, and points are marked and tell theirs.
            If empty, points are not marked, and of curves that lie over one another all show.
        size: Width and height.

    Example:
        >>> lines({"numpy": [2.0, 1.0]}, {"numpy": 0}).count("<polyline")
        1
    """
    thinned = {name: _thinned(values) for name, values in curves.items()}
    shown = [y for points in thinned.values() for _, y in points if math.isfinite(y) and (y > 0 or not log)]
    if not shown and not (log and any(thinned.values())):
        return "<p>No values.</p>"
    if not shown:
        return "<p>No differences: all values are equal, bit for bit.</p>"
    xs = [x for points in thinned.values() for x, _ in points]
    marked = [*shown, *([level] if level else [])]
    frame = _Frame(_whole(xs), _decades(marked) if log else _round(marked), size, marks)
    found = frame.drawn()
    if level:
        found.append(frame.across(level, "level"))
    for above, (name, points) in zip(range(len(thinned))[::-1], thinned.items(), strict=True):
        label, dash = escape(name), (dashes or {}).get(name, "")
        colour = f"c{colours[name]}" if name in colours else "rest"
        wide = 1.8 if marks else 1.5 + min(1.5, (WIDEST - 1.5) / len(thinned)) * above
        stroke = f'stroke-width="{wide:.3g}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        for stretch in _stretches(points):
            places = [frame.at(x, y) for x, y in stretch]
            if len(stretch) > 1:
                at = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
                found.append(
                    f'<polyline class="line {colour}" {stroke} points="{at}"><title>{label}</title></polyline>'
                )
            for (x, y), (cx, cy) in zip(stretch, places, strict=True) if marks or len(stretch) == 1 else ():
                told = f"{label}, {marks} {x:g}: {y:.6g}" if marks else label
                found.append(_dot(cx, cy, colour, told, 2.5 if marks else 3))
    return _svg(size, found)


def dots(
    points: Iterable[tuple[float, float, str]],
    colours: Mapping[str, int],
    *,
    names: Mapping[float, str] | None = None,
    log: tuple[bool, bool] = (False, False),
) -> str:
    """Points that tell what they are.

    Args:
        points: Of each where it lies across, its height, and its name.
        colours: The number of each name's colour; a point without one is faint.
        names: What is written below, by where it lies across, in place of numbers.
        log: Whether what lies across, and heights, are logarithms.

    Example:
        >>> dots([(0.1, 2.0, "first"), (0.01, 1.0, "second")], {"second": 0}, log=(True, False)).count("<circle")
        2
    """
    found = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if not found:
        return "<p>No values.</p>"
    xs, ys = [x for x, _, _ in found], [y for _, y, _ in found]
    if names is not None:
        scale = _Scale(min(names) - 0.5, max(names) + 0.5, sorted(names), names=names)
    else:
        scale = (_decades(xs) if log[0] else _whole(xs) if all(x == int(x) for x in xs) else _round(xs)).wider()
    frame = _Frame(scale, _decades(ys) if log[1] else _round(ys))
    drawn = frame.drawn()
    for x, y, name in sorted(found, key=lambda p: p[2] in colours):  # those with a colour above the others
        colour = f"c{colours[name]}" if name in colours else "rest"
        drawn.append(_dot(*frame.at(x, y), colour, f"{escape(name)}: {y:.6g}", 4.5))
    return _svg(frame.size, drawn)


def bars(values: Mapping[str, float], colours: Mapping[str, int], unit: str) -> str:
    """A bar for each value, from 0 on, with the value beside it.

    Args:
        values: The values by name.
        colours: The number of each name's colour.
        unit: Of the values.

    Example:
        >>> bars({"numpy": 0.21, "torch": 0.5}, {"numpy": 0, "torch": 1}, "ms").count("<rect")
        2
    """
    left, room = 130, WIDTH - 130 - 110
    top = max(values.values(), default=0.0) or 1.0
    found = []
    for i, (name, value) in enumerate(values.items()):
        y, long = i * ROW + 4, max(1.0, room * value / top)
        found.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        found.append(f'<rect class="bar c{colours[name]}" x="{left}" y="{y}" width="{long:.1f}" height="{ROW - 8}"/>')
        found.append(f'<text x="{left + long + 6:.1f}" y="{y + 14}">{amount(value)} {escape(unit)}</text>')
    return _svg((WIDTH, len(values) * ROW + 8), found)


def keys(colours: Mapping[str, int], dashes: Mapping[str, str] | None = None) -> str:
    """Which colour is whose: a square for each name, or a stroke if some are dashed.

    Args:
        colours: The number of each name's colour.
        dashes: See `lines`.

    Example:
        >>> keys({"numpy": 0, "torch": 1}).count('class="key"')
        2
    """
    found = []
    for name, i in colours.items():
        if dashes is None:
            picture = f'<svg viewBox="0 0 10 10"><rect class="bar c{i}" width="10" height="10"/></svg>'
        else:
            dash = f'stroke-width="1.8" stroke-dasharray="{dashes.get(name, "")}"'
            picture = f'<svg class="stroke" viewBox="0 0 30 10"><path class="line c{i}" {dash} d="M0 5H30"/></svg>'
        found.append(f'<span class="key">{picture}{escape(name)}</span>')
    return f"<p>{' '.join(found)}</p>"


def wide(values: Iterable[float]) -> bool:
    """Whether numbers are so different that they are better seen as logarithms.

    Example:
        >>> wide([0.001, 0.1]), wide([1.0, 2.0]), wide([0.0, 1.0])
        (True, False, False)
    """
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) >= WIDE


def amount(value: float) -> str:
    """A number as people read it.

    Example:
        >>> amount(113_612.4), amount(0.28174)
        ('113,612', '0.282')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


# ---- axes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """From where to where an axis goes, and what is written at it."""

    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False
    names: Mapping[float, str] = field(default_factory=dict)

    def part(self, value: float) -> float:
        """How far a value lies along the axis, from 0 to 1."""
        if self.log:
            return math.log10(value / self.low) / math.log10(self.high / self.low) if value > 0 else 0.0
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def wider(self) -> _Scale:
        """The same with room at its ends."""
        if self.log:
            room = (self.high / self.low) ** MARGIN
            return replace(self, low=self.low / room, high=self.high * room)
        room = MARGIN * (self.high - self.low)
        return replace(self, low=self.low - room, high=self.high + room)


@dataclass(frozen=True)
class _Frame:
    """Two axes of a chart."""

    xs: _Scale
    ys: _Scale
    size: tuple[int, int] = (WIDTH, HEIGHT)
    title: str = ""

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is drawn."""
        (width, height), below = self.size, BOTTOM + 12 * bool(self.title)
        across = LEFT + (width - LEFT - RIGHT) * self.xs.part(x)
        return across, height - below - (height - TOP - below) * self.ys.part(y)

    def across(self, y: float, kind: str) -> str:
        """A line over the whole width."""
        _, up = self.at(self.xs.low, y)
        return f'<line class="{kind}" x1="{LEFT}" x2="{self.size[0] - RIGHT}" y1="{up:.1f}" y2="{up:.1f}"/>'

    def drawn(self) -> list[str]:
        """Lines of the grid, and labels."""
        width, height = self.size
        found = []
        for y in self.ys.ticks:
            found.append(self.across(y, "grid"))
            up = self.at(self.xs.low, y)[1]
            found.append(f'<text x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{y:.6g}</text>')
        below = height - 12 - 14 * bool(self.title)
        for x in self.xs.ticks:
            label = escape(self.xs.names.get(x, f"{x:.6g}"))
            found.append(f'<text x="{self.at(x, self.ys.low)[0]:.1f}" y="{below}" text-anchor="middle">{label}</text>')
        if self.title:
            middle = (LEFT + width - RIGHT) / 2
            found.append(f'<text x="{middle}" y="{height - 6}" text-anchor="middle">{escape(self.title)}</text>')
        return found


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers, about six, from one not above ``low`` to one not below ``high``.

    Args:
        low: The least value.
        high: The largest.
        whole: Whether they are whole numbers.

    Example:
        >>> ticks(0.13, 1.07), ticks(1, 3, whole=True)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2], [1, 2, 3])
    """
    if high - low <= 1e-9 * max(abs(low), abs(high)) and not whole:  # a flat line has some room around it
        low, high = low - (0.1 * abs(low) or 1.0), high + (0.1 * abs(high) or 1.0)
    room = high - low or 1.0
    power = 10.0 ** math.floor(math.log10(room / 5))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= room / 6)
    step = max(1.0, float(round(step))) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [int(i * step) if whole else float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def _round(values: Sequence[float]) -> _Scale:
    """Ends at round numbers, that of small positive values at 0."""
    low, high = min(values), max(values)
    found = ticks(0.0 if 0 < low < 0.5 * high else low, high)
    return _Scale(found[0], found[-1], found)


def _whole(values: Sequence[float]) -> _Scale:
    """Ends where the values end; whole numbers are written."""
    low, high = min(values), max(values)
    return _Scale(low, high, [tick for tick in ticks(low, high, whole=True) if low <= tick <= high])


def _decades(values: Sequence[float]) -> _Scale:
    """Ends at powers of ten, or where they are few at 1, 2 or 5 times one."""
    first, last = (f(math.log10(v)) for f, v in ((math.floor, min(values)), (math.ceil, max(values))))
    last = max(last, first + 1)
    if last - first > 3:
        written = [10.0**e for e in range(first, last + 1, math.ceil((last - first) / 8))]
        return _Scale(10.0**first, 10.0**last, written, log=True)
    steps = [float(f"{m}e{e}") for e in range(first, last + 1) for m in (1, 2, 5)]
    low = max(step for step in steps if step <= min(values))
    high = min(step for step in steps if step >= max(values) and step > low)
    return _Scale(low, high, [step for step in steps if low <= step <= high], log=True)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _svg(size: tuple[int, int], parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img">{"".join(parts)}</svg>'


def _dot(x: float, y: float, colour: str, told: str, radius: float) -> str:
    return f'<circle class="dot {colour}" cx="{x:.2f}" cy="{y:.2f}" r="{radius}"><title>{told}</title></circle>'


def _thinned(values: Values) -> list[tuple[float, float]]:
    """Points; of many, the largest of each stretch, so that no peak is lost."""
    points = [p if isinstance(p, tuple) else (i, p) for i, p in enumerate(values, 1)]
    size = math.ceil(len(points) / POINTS) or 1
    groups = (points[i : i + size] for i in range(0, len(points), size))
    return [max(group, key=lambda p: p[1] if math.isfinite(p[1]) else -math.inf) for group in groups]


def _stretches(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The points between gaps."""
    found: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            found[-1].append(point)
        else:
            found.append([])
    return [stretch for stretch in found if stretch]
