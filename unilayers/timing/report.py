"""Timings as tables and as Markdown; those of layers also as one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from unilayers.timing.cut import BACKWARD, FORWARD
from unilayers.timing.engines import NETWORKS, Bench
from unilayers.timing.layers import Part, Timing
from unilayers.utils import charts
from unilayers.utils.pages import Table, figure, html_table, markdown_table, page


def table(timing: Timing) -> Table:
    """A row for each layer, one for each of what else is in a step, and the sum.

    Args:
        timing: The timing.
    """
    head = ["Layer", "Kind", "Forward ms", "Backward ms", "Share", "Forward MFLOP", "Backward MFLOP"]
    head += ["Forward MB", "Backward MB", "Forward / floor", "Backward / floor"]
    rows = []
    for row in timing.rows:
        both = (row.forward, row.backward)
        cells = [row.name, row.kind, *(_ms(p.median) for p in both), f"{timing.share(row):.1%}"]
        cells += [*(_millions(p.flops) for p in both), *(_millions(p.bytes) for p in both)]
        rows.append([*cells, *map(_distance, both)])
    sums = [(sum(p.median for p in ps), sum(p.flops for p in ps), sum(p.bytes for p in ps)) for ps in _ways(timing)]
    times, flops, moved = zip(*sums, strict=True)
    last = ["all parts", "", *map(_ms, times), "100.0%" if timing.total else "", *map(_millions, flops)]
    return head, [*rows, [*last, *map(_millions, moved), "", ""]]


def _ways(timing: Timing) -> list[list[Part]]:
    return [[row.forward for row in timing.rows], [row.backward for row in timing.rows]]


def sentences(timing: Timing) -> Iterator[str]:
    """What stands below the table: the step as a whole, and what the machine can do.

    Args:
        timing: The timing.
    """
    if timing.problem or timing.machine is None:
        yield f"{timing.name}: {timing.problem}"
        return
    low, median, high = (_ms(s) for s in timing.step)
    floor = timing.machine.floor(timing.flops, 0)
    reached = f"{charts.amount(timing.flops / timing.step[1] / 1e9)} GFLOP/s, {floor / timing.step[1]:.1%} of the peak"
    yield (
        f"The step as a whole takes {median} ms (quartiles {low} to {high}), its parts one by one {_ms(timing.total)} "
        f"ms; {charts.amount(timing.flops / 1e6)} MFLOP, {reached}."
    )
    best = timing.machine
    yield (
        f"Peak: {charts.amount(best.flops / 1e9)} GFLOP/s in a matrix product ({best.dtype}), "
        f"{charts.amount(best.bytes / 1e9)} GB/s in a copy. A call that does nothing takes {_ms(timing.call)} ms, "
        "which is taken off each part."
    )


def title(timing: Timing) -> str:
    """What was timed where.

    Args:
        timing: The timing.
    """
    device = timing.environment.get("device")
    return f"{timing.model} on {timing.name}{f' ({device})' if device else ''}, batch of {timing.batch_size}"


def html(timings: Sequence[Timing]) -> str:
    """The timings as one page with bars for each layer: nothing is loaded from anywhere.

    Args:
        timings: Those of one model.
    """
    body = ["<h1>Where the time of a training step goes</h1>"]
    for timing in timings:
        body.append(f"<h2>{escape(title(timing))}</h2>")
        body += [f"<p>{escape(text)}</p>" for text in sentences(timing)]
        if timing.rows:
            body += [f'<div class="charts">{"".join(_charts(timing))}</div>', html_table(table(timing))]
    return page(escape(f"{timings[0].model}: time by layer" if timings else "time by layer"), body)


def _charts(timing: Timing) -> Iterator[str]:
    ways = zip((FORWARD, BACKWARD), _ways(timing), strict=True)
    for number, (way, parts) in enumerate(ways):
        names = [row.name for row in timing.rows]
        times = {n: 1000 * p.median for n, p in zip(names, parts, strict=True) if p.median or p.flops or p.bytes}
        apart = {n: d for n, p in zip(names, parts, strict=True) if (d := p.distance) is not None}
        for heading, values, unit in ((f"{way}, time", times, "ms"), (f"{way}, time / floor", apart, "")):
            yield figure(heading.capitalize(), charts.bars(values, dict.fromkeys(values, number), unit))


# ---- engines and devices --------------------------------------------------------------------------------------------


def bench_table(bench: Bench) -> Table:
    """A row for each case on each device of each engine.

    Args:
        bench: What was timed.
    """
    timed = list(dict.fromkeys(name for r in bench.results for name in r.seconds))
    others = any(bench.over_cpu(r) for r in bench.results)
    head = [{"networks": "Network", "matmul": "Size"}.get(bench.kind, "How"), "Engine", "Device"]
    head += [f"{name.capitalize()} ms" for name in timed]
    head += [*(["Samples/s"] if bench.kind == "networks" else []), *(["GFLOP/s"] if bench.kind != "feeding" else [])]
    head += ["Times the first" if bench.kind == "feeding" else "Times the fastest", *(["CPU / this"] if others else [])]
    rows = []
    for r in bench.results:
        seconds = r.median
        cells = [_titled(r.case), r.backend, r.device]
        cells += [charts.amount(1000 * r.seconds[name][1]) if name in r.seconds else "" for name in timed]
        rates = {"networks": [float(r.samples), r.flops / 1e9], "matmul": [r.flops / 1e9]}.get(bench.kind, [])
        cells += ["" if seconds is None else charts.amount(rate / seconds) for rate in rates]
        cells += [_times(bench.ratio(r)), *([_times(bench.over_cpu(r))] if others else [])]
        rows.append([*cells, r.problem] if any(r.problem for r in bench.results) else cells)
    return [*head, *(["Problem"] if any(r.problem for r in bench.results) else [])], rows


def bench_markdown(benches: Sequence[Bench]) -> str:
    """The tables with date, processor and versions.

    Args:
        benches: What was timed.
    """
    found = []
    for bench in benches:
        about = ", ".join(f"{name} {value}" for name, value in bench.environment.items())
        batch = {r.samples for r in bench.results if r.samples}
        sizes = f" Batch of {batch.pop()}." if len(batch) == 1 else ""
        found += [f"## {bench.kind.capitalize()}", f"{about}.{sizes} Medians.", markdown_table(bench_table(bench))]
    return "\n\n".join(found) + "\n"


def _titled(case: str) -> str:
    return NETWORKS[case].title if case in NETWORKS else case


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3f}"


def _millions(number: int) -> str:
    return charts.amount(number / 1e6) if number else ""


def _distance(part: Part) -> str:
    return "" if part.distance is None else f"{part.distance:.1f}"
