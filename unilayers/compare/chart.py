"""Charts as SVG to stand inside a page: curves and bars, in colours that the page's style says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 34  # room for labels
POINTS = 600  # of a curve; of more, the largest of each stretch
ROW = 26  # of bars


def lines(
    curves: Mapping[str, Sequence[float]], colours: Mapping[str, int], *, log: bool = False, level: float | None = None
) -> str:
    """Curves over one another, by step from 1 on; values that are not finite are gaps.

    Args:
        curves: The values of each curve by its name.
        colours: The number of each name's colour.
        log: Whether heights are logarithms; what is 0 then lies on the lower edge.
        level: A height to mark.

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
    marked = [*shown, *([level] if level else [])]
    low, high = (_decades if log else _round)(min(marked), max(marked))
    last = max(len(values) for values in curves.values())

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((x - 1) / (last - 1) if last > 1 else 0.5)

    def up(y: float) -> float:
        part = (math.log10(y / low) / math.log10(high / low) if y > 0 else 0.0) if log else (y - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part

    found = []
    for y in _ticks(low, high, log):
        found.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>')
        found.append(f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for x in sorted({1, (last + 1) // 2, last}):
        found.append(f'<text x="{across(x):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{x}</text>')
    if level:
        found.append(
            f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(level):.1f}" y2="{up(level):.1f}"/>'
        )
    for above, (name, points) in zip(range(len(thinned))[::-1], thinned.items(), strict=True):
        for stretch in _stretches(points):
            at = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in stretch)
            colour, title = f"c{colours[name]}", f"<title>{escape(name)}</title>"
            wide = f'stroke-width="{1.5 + 1.5 * above}"'  # those that lie over one another all show
            if len(stretch) > 1:
                found.append(f'<polyline class="line {colour}" {wide} points="{at}">{title}</polyline>')
            else:
                cx, _, cy = at.partition(",")
                found.append(f'<circle class="dot {colour}" cx="{cx}" cy="{cy}" r="3">{title}</circle>')
    return _svg(HEIGHT, found)


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
    return _svg(len(values) * ROW + 8, found)


def amount(value: float) -> str:
    """A number as people read it.

    Example:
        >>> amount(113_612.4), amount(0.28174)
        ('113,612', '0.282')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _svg(height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _thinned(values: Sequence[float]) -> list[tuple[int, float]]:
    """Points ``(step, value)``; of many, the largest of each stretch, so that no peak is lost."""
    size = math.ceil(len(values) / POINTS) or 1
    points = list(enumerate(values, 1))
    groups = (points[i : i + size] for i in range(0, len(points), size))
    return [max(group, key=lambda p: p[1] if math.isfinite(p[1]) else -math.inf) for group in groups]


def _stretches(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """The points between gaps."""
    found: list[list[tuple[int, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            found[-1].append(point)
        else:
            found.append([])
    return [stretch for stretch in found if stretch]


def _decades(low: float, high: float) -> tuple[float, float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return 10.0**first, 10.0 ** max(last, first + 1)


def _round(low: float, high: float) -> tuple[float, float]:
    """Ends at round numbers, that of small positive values at 0."""
    low = 0.0 if 0 < low < 0.5 * high else low
    if high - low <= 1e-9 * abs(high):  # all one value, or nearly
        low, high = low - (0.1 * abs(low) or 1.0), high + (0.1 * abs(high) or 1.0)
    step = _step(low, high)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _step(low: float, high: float) -> float:
    """1, 2 or 5 times a power of ten, about a fifth of the range."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= rough)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        first, last = round(math.log10(low)), round(math.log10(high))
        return [10.0**e for e in range(first, last + 1, math.ceil((last - first) / 8))]
    step = _step(low, high)
    return [low + i * step for i in range(round((high - low) / step) + 1)]
