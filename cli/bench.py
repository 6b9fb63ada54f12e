"""``unilayers bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def bench(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHAT]...",
            help="small, large (VGG-16, VGG-19, ResNet-18, -50, -200), a network, matmul, feeding.",
            show_default="small",
        ),
    ] = None,
    backend: options.Backends = None,
    device: options.Device = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples in a step.", show_default="16")] = None,
    seconds: Annotated[float, typer.Option(help="How long to time each, more or less.")] = 2.0,
    clock: options.Clock = "wall",
    json: options.JsonFile = None,
    md: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables as Markdown.")] = None,
    in_process: options.InProcess = False,
) -> None:
    """Time every engine and device that is here: networks forward and backward, matrix products, ways to feed data."""
    from unilayers.timing import bench, report

    from .report import json_text, table

    told = {"device": device, "batch_size": batch_size, "seconds": seconds, "clock": clock, "in_process": in_process}
    found = bench(what or ("small",), backend, watch=lambda doing: typer.echo(doing, err=True), **told)  # type: ignore[arg-type]
    for one in found:
        head, rows = report.bench_table(one)
        typer.echo()
        table(head, rows, right=range(3, len(head) - ("Problem" in head)))
    options.write(json, json_text([one.to_plain() for one in found]))
    options.write(md, report.bench_markdown(found))
    if not any(r.seconds for one in found for r in one.results):
        raise typer.Exit(1)
