"""The curves of runs over one another: a picture by matplotlib, or a page that needs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path

from unilayers.errors import UnilayersError, nearest
from unilayers.runs.folder import Run, read_run
from unilayers.saving import write_atomically
from unilayers.utils.figures import encoded

FORMATS = ("png", "svg", "html")
METRICS = ("loss", "val_loss")
# Okabe and Ito's colours, which colour-blind people can tell apart; then the same with other dashes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("", "6 3", "2 2", "8 3 2 3")


@dataclass(frozen=True)
class Curve:
    """One value over the epochs of one run.

    Args:
        label: Run and value, as the legend names them.
        colour: One for each run.
        dash: One for each value; lengths of strokes and gaps as in SVG.
        points: Epochs and values; NaN where a value was not finite.
    """

    label: str
    colour: str
    dash: str
    points: list[tuple[int, float]]

    def pieces(self) -> Iterator[list[tuple[int, float]]]:
        """The runs of points between those that are not finite."""
        piece: list[tuple[int, float]] = []
        for point in [*self.points, (0, math.nan)]:
            if math.isfinite(point[1]):
                piece.append(point)
            elif piece:
                yield piece
                piece = []


def curves(runs: Iterable[Run | str | PathLike[str]], metrics: Sequence[str] = METRICS) -> list[Curve]:
    """The curves of some values of some runs; a run that has no such value has no such curve.

    Args:
        runs: Runs or their folders.
        metrics: Names in their histories.

    Raises:
        UnilayersError: if there is no run, or a name that no run has, unless it is one of the default two.
    """
    found = [run if isinstance(run, Run) else read_run(run) for run in runs]
    if not found or not metrics:
        raise UnilayersError("nothing to draw", where="plot", expected="at least one run and one metric")
    known = {name for run in found for name in run.names}
    drawn = [name for name in metrics if name in known]
    missing = [name for name in metrics if name not in known and not (drawn and tuple(metrics) == METRICS)]
    if missing:
        fix = nearest(missing[0], known) if known else "Is any epoch complete?"
        raise UnilayersError(f"no run has a metric {missing[0]!r}", where="plot", fix=fix)
    short = [run.folder.resolve().name for run in found]
    labels = short if len(set(short)) == len(short) else [str(run.folder) for run in found]
    return [
        Curve(
            f"{label} {name}" if len(drawn) > 1 else label,
            COLOURS[i % len(COLOURS)],
            DASHES[(k + i // len(COLOURS)) % len(DASHES)],
            run.values(name),
        )
        for i, (run, label) in enumerate(zip(found, labels, strict=True))
        for k, name in enumerate(drawn)
        if name in run.names
    ]


def draw(runs: Iterable[Run | str | PathLike[str]], out: str | PathLike[str], metrics: Sequence[str] = METRICS) -> Path:
    """Draw curves over one another into a file.

    Args:
        runs: Runs or their folders.
        out: The file; its suffix is the format: ``.png`` and ``.svg`` by matplotlib, ``.html`` a page of its own.
        metrics: Names in their histories.

    Raises:
        UnilayersError: for another format, without matplotlib where it is needed, or if there is nothing to draw.
    """
    path = Path(out).expanduser()
    kind = path.suffix[1:].lower()
    if kind not in FORMATS:
        raise UnilayersError(f"unknown format {kind!r}", where=str(out), expected=f"a file {', '.join(FORMATS)}")
    found = curves(runs, metrics)
    content = _page(found, metrics) if kind == "html" else _picture(found, metrics, kind)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UnilayersError(f"cannot write the curves: {error.strerror}", where=str(out)) from None
    return path


def _picture(found: Sequence[Curve], metrics: Sequence[str], kind: str) -> bytes:
    try:
        from matplotlib import figure as figures
        from matplotlib import ticker
    except ModuleNotFoundError:
        fix = "Install it with: pip install 'unilayers[plot]', or write a .html file"
        raise UnilayersError(f"a .{kind} file of curves needs the package 'matplotlib'", fix=fix) from None
    figure = figures.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel=", ".join(metrics))
    for curve in found:
        strokes = tuple(map(float, curve.dash.split()))
        x, y = zip(*curve.points, strict=True)
        # A label that begins with _ would be left out; one with two dollars would be a formula.
        label = " " * curve.label.startswith("_") + curve.label.replace("$", r"\$")
        axes.plot(x, y, color=curve.colour, linestyle=(0, strokes) if strokes else "-", marker=".", label=label)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return encoded(figure, kind, dpi=120)


# ---- the page -------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 860, 460, 70, 45, 10
STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em;max-width:900px}svg{width:100%}text{font-size:12px;fill:#444}"
    "table{border-collapse:collapse}td,th{padding:2px 10px;text-align:right}td:first-child,"
    "th:first-child{text-align:left}"
)


def _page(found: Sequence[Curve], metrics: Sequence[str]) -> bytes:
    title = escape(", ".join(metrics))
    rows = []
    for curve in found:
        _, last = curve.points[-1]
        finite = [value for _, value in curve.points if math.isfinite(value)]
        low, high = (f"{f(finite):.6g}" if finite else "" for f in (min, max))
        key = f'<svg viewBox="0 0 30 10" style="width:30px;height:10px"><path d="M0 5H30" {_stroke(curve)}/></svg>'
        cells = f"<td>{last:.6g}</td><td>{low}</td><td>{high}</td>"
        rows.append(f"<tr><td>{key} {escape(curve.label)}</td>{cells}</tr>")
    head = "<tr><th>curve</th><th>last</th><th>least</th><th>most</th></tr>"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"</head><body><h1>{title}</h1>\n{_svg(found, title)}\n<table>{head}{''.join(rows)}</table></body></html>\n"
    ).encode()


def _stroke(curve: Curve) -> str:
    return f'fill="none" stroke="{curve.colour}" stroke-width="1.8" stroke-dasharray="{curve.dash}"'


def _svg(found: Sequence[Curve], title: str) -> str:
    """The curves with axes; a point tells its epoch and value where the pointer rests on it."""
    points = [p for curve in found for piece in curve.pieces() for p in piece] or [(0, 0.0)]
    epochs, values = zip(*points, strict=True)
    x_from, x_to = min(epochs), max(epochs)
    xs, ys = ticks(x_from, x_to, whole=True), ticks(min(values), max(values))

    def x_of(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 20) * ((x - x_from) / (x_to - x_from) if x_to > x_from else 0.5), 2)

    def y_of(y: float) -> float:
        return round(HEIGHT - BELOW - (HEIGHT - BELOW - ABOVE) * (y - ys[0]) / (ys[-1] - ys[0]), 2)

    parts = [f'<path d="M{LEFT} {y_of(y)}H{WIDTH - 20}" stroke="#ddd"/>' for y in ys]
    parts += [f'<text x="{LEFT - 8}" y="{y_of(y) + 4}" text-anchor="end">{y:.6g}</text>' for y in ys]
    shown = [x for x in xs if x_from <= x <= x_to]
    parts += [f'<text x="{x_of(x)}" y="{HEIGHT - BELOW + 20}" text-anchor="middle">{x:g}</text>' for x in shown]
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 5}" text-anchor="middle">epoch</text>')
    for curve in found:
        for piece in curve.pieces():
            parts.append(f'<path d="M{"L".join(f"{x_of(x)} {y_of(y)}" for x, y in piece)}" {_stroke(curve)}/>')
            for x, y in piece:
                told = f"<title>{escape(curve.label)}, epoch {x}: {y:.6g}</title>"
                parts.append(f'<circle cx="{x_of(x)}" cy="{y_of(y)}" r="2.5" fill="{curve.colour}">{told}</circle>')
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">\n{body}\n</svg>'


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers, about six, from one not above ``low`` to one not below ``high``.

    Example:
        >>> ticks(0.13, 1.07), ticks(1, 3, whole=True)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2], [1, 2, 3])
    """
    room = max(high - low, 1e-9 * max(abs(low), abs(high))) or 1.0  # a flat line has some room around it
    power = 10.0 ** math.floor(math.log10(room / 5))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= room / 6)
    step = max(1.0, float(round(step))) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [int(i * step) if whole else float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]
