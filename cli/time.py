"""``unilayers time``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def time(
    recipe: options.Recipe,
    backend: options.Backends = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seconds: Annotated[float, typer.Option(help="How long to time on each engine, more or less.")] = 5.0,
    clock: options.Clock = "wall",
    json: options.JsonFile = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with bars, which needs no net.")
    ] = None,
    dtype: options.Dtype = None,
    set_: options.Set = None,
    allow_imports: options.AllowImports = False,
    in_process: options.InProcess = False,
) -> None:
    """Time each layer of a training step, forward and backward: milliseconds, FLOPs, bytes, distance from the floor."""
    from unilayers.recipe import load_recipe
    from unilayers.timing import report, time_recipe

    from .report import json_text, table

    loaded = load_recipe(recipe, options.overrides(set_, dtype=dtype), allow_imports)
    told = {"device": device, "batch_size": batch_size, "seconds": seconds, "clock": clock, "in_process": in_process}
    found = time_recipe(loaded, backend or [loaded.backend], **told)  # type: ignore[arg-type]
    for timing in found:
        typer.echo(f"{report.title(timing)}\n")
        if timing.rows:
            head, rows = report.table(timing)
            table(head, rows, right=range(2, len(head)))
            typer.echo()
        typer.echo("\n".join(report.sentences(timing)) + "\n")
    options.write(json, json_text([timing.to_plain() for timing in found]))
    options.write(html, report.html(found))
    if all(timing.problem for timing in found):
        raise typer.Exit(1)
