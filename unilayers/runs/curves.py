"""The curves of runs over one another: a picture by matplotlib, or a page that needs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path

from unilayers.errors import UnilayersError, nearest
from unilayers.runs.folder import Run, read_run
from unilayers.saving import write_atomically
from unilayers.utils import charts, pages
from unilayers.utils.charts import DASHES, LIGHT
from unilayers.utils.figures import encoded

FORMATS = ("png", "svg", "html")
METRICS = ("loss", "val_loss")


@dataclass(frozen=True)
class Curve:
    """One value over the epochs of one run.

    Args:
        label: Run and value, as the legend names them.
        colour: A number, one for each run.
        dash: One for each value; lengths of strokes and gaps as in SVG.
        points: Epochs and values; NaN where a value was not finite.
    """

    label: str
    colour: int
    dash: str
    points: list[tuple[int, float]]


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
            i % len(LIGHT),
            DASHES[(k + i // len(LIGHT)) % len(DASHES)],
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
        axes.plot(x, y, color=LIGHT[curve.colour], linestyle=(0, strokes) if strokes else "-", marker=".", label=label)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return encoded(figure, kind, dpi=120)


# ---- the page -------------------------------------------------------------------------------------------------------

SIZE = (720, 400)


def _page(found: Sequence[Curve], metrics: Sequence[str]) -> bytes:
    title = escape(", ".join(metrics))
    rows = []
    for curve in found:
        finite = [value for _, value in curve.points if math.isfinite(value)]
        low, high = (f"{f(finite):.6g}" if finite else "" for f in (min, max))
        rows.append([curve.label, f"{curve.points[-1][1]:.6g}", low, high])
    colours, dashes = {c.label: c.colour for c in found}, {c.label: c.dash for c in found}
    picture = charts.lines({c.label: c.points for c in found}, colours, dashes=dashes, marks="epoch", size=SIZE)
    picture = f'<div style="max-width: 56rem">{picture}</div>'
    told = pages.html_table((["curve", "last", "least", "most"], rows))
    return pages.page(title, [f"<h1>{title}</h1>", charts.keys(colours, dashes), picture, told]).encode()
