"""A sweep as a table, as Markdown, and as one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from unilayers.sweep.space import Axis, shown
from unilayers.sweep.trial import DONE, FAILED, TRAINS, WAITS, Sweep, Trial
from unilayers.utils import charts
from unilayers.utils.pages import Table, figure, html_table, markdown_table, page

COLOURED = len(charts.LIGHT)  # of the best trials; the others are faint
SHOWN = 12  # rows of trials that are done, while others are trained


# ---- tables ---------------------------------------------------------------------------------------------------------


def overview(sweep: Sweep) -> Table:
    """A row for each trial, the best first."""
    names = list(dict.fromkeys(name for trial in sweep.trials for name in trial.scores if name != sweep.monitor))
    head = ["Trial", *sweep.short.values(), sweep.monitor, "Epoch", "Epochs", "Time (s)", *names, "State"]
    rows = []
    for trial in sweep.ranked:
        seconds = f"{trial.run.seconds:.1f}" if trial.run.epochs else ""
        scores = [_number(trial.scores.get(name)) for name in names]
        rows.append([*_start(sweep, trial), seconds, *scores, state(trial)])
    return head, rows


def progress(sweep: Sweep) -> Table:
    """The trials that are trained, and the best of those that are done, with how many there are.

    Args:
        sweep: As far as it is.
    """
    head = ["Trial", *sweep.short.values(), sweep.monitor, "Epoch", "Epochs", "State"]
    ranked = sweep.ranked
    shown_now = [t for t in ranked if t.state == TRAINS] + [t for t in ranked if t.state == DONE][:SHOWN]
    shown_now += [t for t in ranked if t.state == FAILED][:SHOWN]
    rows = [[*_start(sweep, trial), state(trial)] for trial in shown_now]
    counts = {name: sum(t.state == name for t in ranked) for name in (DONE, FAILED, TRAINS, WAITS)}
    told = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    return head, [*rows, [f"{len(ranked)}", *[""] * (len(head) - 2), told]]


def _start(sweep: Sweep, trial: Trial) -> list[str]:
    best, done = sweep.score(trial), len(trial.run.epochs)
    score = [_number(best.value), str(best.epoch)] if best is not None else ["", ""]
    return [trial.name, *(shown(trial.values[path]) for path in sweep.varied), *score, str(done or "")]


def state(trial: Trial) -> str:
    """How far a trial is, in words."""
    return trial.problem or trial.state


def seeds(sweep: Sweep) -> Table:
    """A row for each setting that was trained with several seeds."""
    rows = []
    for name, trials in sweep.groups().items():
        values = np.array([best.value for trial in trials if (best := sweep.score(trial)) is not None])
        spread = f"{values.std(ddof=1):.3g}" if len(values) > 1 else ""
        rows.append([name, str(len(values)), *map(_number, (values.mean(), values.min(), values.max())), spread])
    return ["Setting", "Seeds", f"Mean {sweep.monitor}", "Least", "Most", "Standard deviation"], rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{float(np.mean(value)):.5g}"


def _explained(sweep: Sweep) -> Iterator[str]:
    """What the tables mean, in sentences."""
    how = {"grid": "all combinations", "random": "drawn at random", "search": "searched for"}[sweep.how]
    better = "less is better" if sweep.direction == "down" else "more is better"
    yield f"{len(sweep.trials)} trials, {how}. What counts is {sweep.monitor} at its best epoch; {better}."
    if (best := sweep.best) is not None and (score := sweep.score(best)) is not None:
        reached = f"{sweep.monitor} {score.value:.5g} in epoch {score.epoch}"
        yield f"Best: trial {best.name} ({sweep.label(best)}) with {reached}."
    else:
        yield "No trial has a score yet."
    if left := sum(trial.state in (TRAINS, WAITS) for trial in sweep.trials):
        yield f"{left} are not done."
    if failed := sum(trial.state == FAILED for trial in sweep.trials):
        yield f"{failed} failed; the last column says why."


# ---- Markdown -------------------------------------------------------------------------------------------------------


def markdown(sweep: Sweep) -> str:
    """The report as Markdown.

    Args:
        sweep: The sweep.
    """
    found = [f"# {_title(sweep)}", *_explained(sweep), markdown_table(overview(sweep))]
    if (table := seeds(sweep))[1]:
        found += ["## Over seeds", markdown_table(table)]
    return "\n\n".join([*found, "## Recipe", f"```yaml\n{sweep.recipe}```"]) + "\n"


def _title(sweep: Sweep) -> str:
    return f"{sweep.name}: {', '.join(sweep.short.values())}"


# ---- HTML -----------------------------------------------------------------------------------------------------------


def html(sweep: Sweep) -> str:
    """The report as one page: nothing is loaded from anywhere.

    Args:
        sweep: The sweep.
    """
    title = escape(_title(sweep))
    body = [f"<h1>{title}</h1>", *(f"<p>{escape(text)}</p>" for text in _explained(sweep)), html_table(overview(sweep))]
    ranked = [trial for trial in sweep.ranked if sweep.score(trial) is not None]
    names = {trial.number: f"{trial.name}: {sweep.label(trial)}" for trial in ranked}
    colours = {names[trial.number]: i for i, trial in enumerate(ranked[:COLOURED])}
    if ranked:
        body += [charts.keys(colours), f'<div class="charts">{"".join(_charts(sweep, ranked, names, colours))}</div>']
    if (table := seeds(sweep))[1]:
        body += ["<h2>Over seeds</h2>", html_table(table)]
    return page(title, [*body, f"<h2>Recipe</h2><pre>{escape(sweep.recipe)}</pre>"])


def _charts(sweep: Sweep, ranked: list[Trial], names: dict[int, str], colours: dict[str, int]) -> Iterator[str]:
    curves = {names[t.number]: t.run.values(sweep.monitor) for t in reversed(ranked)}  # the best above the others
    log = charts.wide(value for curve in curves.values() for _, value in curve)
    yield figure(f"{sweep.monitor} of each epoch", charts.lines(curves, colours, log=log, marks="epoch"))
    heights = {t.number: best.value for t in ranked if (best := sweep.score(t)) is not None}
    up = charts.wide(heights.values())
    for axis in (axis for axis in sweep.axes if axis.varies):
        across, below = _across(axis, [t.values[axis.path] for t in ranked])
        points = [(x, heights[t.number], names[t.number]) for x, t in zip(across, ranked, strict=True)]
        picture = charts.dots(points, colours, names=below, log=(below is None and charts.wide(across), up))
        yield figure(f"{sweep.monitor} by {axis.path}", picture)
    if len(sweep.trials) > 2:
        points = [(float(n), height, names[n]) for n, height in heights.items()]
        yield figure(f"{sweep.monitor} of each trial", charts.dots(points, colours, log=(False, up)))


def _across(axis: Axis, values: list[Any]) -> tuple[list[float], dict[float, str] | None]:
    """Where values of an axis lie across, and what is written below where they are not numbers."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in [*values, *axis.listed]):
        return [float(v) for v in values], None
    written = [shown(value) for value in axis.listed]
    return [float(written.index(shown(v))) for v in values], dict(enumerate(written))
