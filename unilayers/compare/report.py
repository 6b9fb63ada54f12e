"""A comparison as a table, as Markdown, and as one page that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from unilayers.compare.comparison import LOSS, Comparison
from unilayers.compare.differences import difference
from unilayers.compare.record import Record
from unilayers.utils import charts
from unilayers.utils.pages import Table, figure, html_table, markdown_table, page

# ---- tables ---------------------------------------------------------------------------------------------------------


def overview(comparison: Comparison) -> Table:
    """A row for each engine: how it ended, its loss, its largest difference, times, rates and memory.

    The peak is that of a large matrix product on the same engine, see `Machine`.
    """
    head = ["Engine", "Device", "Steps", "Last loss", "Largest difference", f"First over {comparison.limit:g}"]
    head += ["Step (ms)", "Quartiles (ms)", "Samples/s", "GFLOP/s", "Of the peak", "First step (s)", "Import (s)"]
    head += ["Peak memory (MB)", "State"]
    rows = []
    for record in comparison.records:
        place = record.begin.get("environment", {}).get("device") or record.device or ""
        loss = _number(record.curve(LOSS)[-1], 6) if record.steps else ""
        times = [_number(1000 * s, 3) for s in record.step_seconds]
        quartiles = f"{times[0]} to {times[2]}" if times else ""
        rate = record.samples_per_second
        reached, share = record.flops_per_second, record.share_of_peak
        figures = ["" if rate is None else charts.amount(rate), "" if reached is None else charts.amount(reached / 1e9)]
        figures += ["" if share is None else f"{share:.1%}", _seconds(record.first_step)]
        figures += [_seconds(record.begin.get("import_seconds")), _memory(record)]
        row = [record.name, place, str(len(record.steps)), loss, *_departure(comparison, record)]
        rows.append([*row, times[1] if times else "", quartiles, *figures, state(record)])
    return head, rows


def progress(records: Sequence[Record]) -> Table:
    """A row for each engine while they train.

    Args:
        records: As far as they are.
    """
    rows = []
    for record in records:
        loss = _number(record.curve(LOSS)[-1], 4) if record.steps else ""
        times = [_number(1000 * s, 3) for s in record.step_seconds[1:2]]
        rows.append([record.name, str(len(record.steps)), loss, *(times or [""]), state(record)])
    return ["Engine", "Steps", "Loss", "Step (ms)", "State"], rows


def state(record: Record) -> str:
    """How far a training is, in words."""
    if record.problem:
        return record.problem
    if record.end.get("ended"):
        return "done"
    return "trains" if record.begin else "waits"


def _departure(comparison: Comparison, record: Record) -> tuple[str, str]:
    """The largest difference of the loss, and the first step that exceeds the tolerance."""
    if record is comparison.reference:
        return "reference", ""
    found = comparison.differences[record.name].get(LOSS)
    if found is None or not found.curve:
        return "", ""
    return f"{found.largest:.3g} (step {found.at})", "never" if found.first is None else f"step {found.first}"


def _memory(record: Record) -> str:
    sizes = {"": record.end.get("peak_memory"), " on the device": record.end.get("peak_device_memory")}
    return ", ".join(f"{size / 1e6:,.0f}{where}" for where, size in sizes.items() if size is not None)


def every_value(comparison: Comparison) -> Table:
    """A row for each engine and value: how far it is from the reference over all steps."""
    head = ["Engine", "Value", "Largest difference", "At step", f"First over {comparison.limit:g}"]
    return head, [
        [name, value, f"{d.largest:.3g}", str(d.at), "never" if d.first is None else f"step {d.first}"]
        for name, values in comparison.differences.items()
        for value, d in values.items()
        if d.curve
    ]


def epochs(comparison: Comparison) -> Table:
    """A row for each epoch and value, a column for each engine."""
    trained = [r for r in comparison.records if r.epochs]
    found: dict[tuple[int, str], dict[str, Any]] = {}
    reference = comparison.reference.name
    for record in trained:
        for epoch in record.epochs:
            for name, value in epoch["values"].items():
                found.setdefault((epoch["epoch"], name), {})[record.name] = value
    rows = []
    for (number, name), values in sorted(found.items(), key=lambda item: item[0][0]):
        apart = [difference(v, values[reference]) for v in values.values()] if reference in values else []
        largest = f"{max(apart):.3g}" if len(apart) > 1 else ""
        rows.append([str(number), name, *(_number(values.get(r.name), 7) for r in trained), largest])
    return ["Epoch", "Value", *(r.name for r in trained), "Largest difference"], rows


def places(comparison: Comparison) -> Table:
    """A row for each layer's output, the loss and each gradient, a column for each engine that was looked into."""
    traced = comparison.traced
    if traced is None:
        return ["Place"], []
    columns = {name: (traced.places[name], traced.compiled[name]) for name in traced.places}
    head = [f"{name}, {how}" for name in columns for how in ("op by op", "compiled")]
    names = next(iter(traced.places.values()), {})
    rows = [[place, *(f"{found[place]:.3g}" for both in columns.values() for found in both)] for place in names]
    return ["Place", *head], rows


def environments(comparison: Comparison) -> Table:
    """What the numbers may depend on besides the recipe, a column for each engine."""
    about = {r.name: dict(r.begin["environment"]) for r in comparison.records if "environment" in r.begin}
    flat = {name: {**found.pop("packages", {}), **found} for name, found in about.items()}
    keys = dict.fromkeys(key for found in flat.values() for key in found)
    return ["", *flat], [[key, *(str(found.get(key) or "") for found in flat.values())] for key in keys]


def _number(value: Any, digits: int) -> str:
    """A number with so many digits; of several the mean; nothing for none."""
    return "" if value is None else f"{float(np.mean(value)):.{digits}g}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _explained(comparison: Comparison) -> Iterator[str]:
    """What the tables mean, in sentences."""
    yield (
        f"All engines began with the same weights and took the same batches and masks; {comparison.reference.name} is "
        "the reference. A difference is that of the loss of a step, relative to the reference's."
    )
    if comparison.problems:
        yield from (problem + "." for problem in comparison.problems)
    else:
        yield f"No engine departs from it by more than {comparison.limit:g} at any step."


def _about_trace(comparison: Comparison) -> list[str]:
    traced = comparison.traced
    if traced is None:
        return []
    text = f"Step {traced.step} once more, from the state that {comparison.reference.name} had before it"
    found = [f"{text}: op by op, and compiled. A difference is max |a - b| / max |b|."]
    for name in traced.places:
        where = traced.where(name, comparison.limit) or f"nowhere more than {comparison.limit:g}"
        found.append(f"{name}: {where}.")
    return found + [f"{name} could not be looked into: {problem}." for name, problem in traced.problems.items()]


def _parts(comparison: Comparison) -> Iterator[tuple[str, list[str], Table]]:
    """The sections both reports have: title, sentences, table."""
    yield "Where it comes from", _about_trace(comparison), places(comparison)
    yield "Every value of the steps", [], every_value(comparison)
    yield "Epochs", [], epochs(comparison)
    yield "Environment", [], environments(comparison)


# ---- Markdown -------------------------------------------------------------------------------------------------------


def markdown(comparison: Comparison) -> str:
    """The report as Markdown.

    Args:
        comparison: The comparison.
    """
    names = ", ".join(r.name for r in comparison.records)
    found = [f"# {comparison.name} on {names}", *_explained(comparison), markdown_table(overview(comparison))]
    for title, sentences, table in _parts(comparison):
        if sentences or table[1]:
            found += [f"## {title}", *sentences, *([markdown_table(table)] if table[1] else [])]
    return "\n\n".join([*found, "## Recipe", f"```yaml\n{comparison.recipe}```"]) + "\n"


# ---- HTML -----------------------------------------------------------------------------------------------------------


def html(comparison: Comparison) -> str:
    """The report as one page: nothing is loaded from anywhere.

    Args:
        comparison: The comparison.
    """
    names = [r.name for r in comparison.records]
    colours = {name: i % len(charts.LIGHT) for i, name in enumerate(names)}
    title = escape(f"{comparison.name} on {', '.join(names)}")
    first, *others = [escape(text) for text in _explained(comparison)]
    said = "".join(f'<p class="{"bad" if comparison.problems else ""}">{text}</p>' for text in others)
    body = [f"<h1>{title}</h1><p>{first}</p>{said}", html_table(overview(comparison)), charts.keys(colours)]
    body.append(f'<div class="charts">{"".join(_charts(comparison, colours))}</div>')
    for heading, sentences, table in _parts(comparison):
        if sentences or table[1]:
            text = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
            body.append(f"<h2>{heading}</h2>{text}{html_table(table) if table[1] else ''}")
    body.append(f"<h2>Recipe</h2><pre>{escape(comparison.recipe)}</pre>")
    return page(title, body)


def _charts(comparison: Comparison, colours: Mapping[str, int]) -> Iterator[str]:
    trained = [r for r in comparison.records if r.steps]
    yield figure("Loss of each step", charts.lines({r.name: r.curve(LOSS) for r in trained}, colours))
    apart = {name: d[LOSS].curve for name, d in comparison.differences.items() if LOSS in d and d[LOSS].curve}
    if apart:
        heading = f"Relative difference from {comparison.reference.name} (dashed: {comparison.limit:g})"
        yield figure(heading, charts.lines(apart, colours, log=True, level=comparison.limit))
    for name in trained[0].values if trained else ():
        if name != LOSS and np.ndim(trained[0].curve(name)) == 1:
            yield figure(
                f"{name}, so far in the epoch", charts.lines({r.name: r.curve(name) for r in trained}, colours)
            )
    figures = {r.name: r.figures() for r in comparison.records}
    wanted = [
        ("Step, median", {n: 1000 * f["step_seconds"][1] for n, f in figures.items() if f["step_seconds"]}, "ms"),
        ("Samples in a second", _known(figures, "samples_per_second"), ""),
        ("GFLOP in a second", _known(figures, "flops_per_second", 1e-9), ""),
        ("Of what a matrix product reaches", _known(figures, "share_of_peak", 100), "%"),
        ("First step, which compiles", _known(figures, "first_step_seconds"), "s"),
        ("Import", _known(figures, "import_seconds"), "s"),
        ("Peak memory of the process", _known(figures, "peak_memory", 1e-6), "MB"),
        ("Peak memory of the device", _known(figures, "peak_device_memory", 1e-6), "MB"),
    ]
    yield from (figure(heading, charts.bars(values, colours, unit)) for heading, values, unit in wanted if values)


def _known(figures: Mapping[str, Mapping[str, Any]], key: str, factor: float = 1.0) -> dict[str, float]:
    return {name: factor * f[key] for name, f in figures.items() if f[key] is not None and math.isfinite(f[key])}
