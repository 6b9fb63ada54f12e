"""``unilayers compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def compare(
    recipe: options.Recipe,
    backend: Annotated[
        list[str],
        typer.Option(
            "--backend",
            "-b",
            metavar="ENGINE[:DEVICE]",
            show_default=False,
            help="An engine, as in -b numpy -b torch:cuda. The first is the reference.",
        ),
    ],
    device: options.Device = None,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Fail if the loss of a step differs by more, relative to the reference.")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Look for the layer that a difference comes from.")] = False,
    in_process: options.InProcess = False,
    dtype: options.Dtype = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs in all.")] = None,
    batch_size: options.BatchSize = None,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/RECIPE-compare-TIME if not given.")] = None,
    set_: options.Set = None,
    allow_imports: options.AllowImports = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but problems.")] = False,
) -> None:
    """Train a recipe on several engines alike; show side by side what they compute, how fast, where they differ."""
    from unilayers.compare import compare
    from unilayers.compare.report import overview, progress
    from unilayers.recipe import load_recipe

    from .report import live_table, table

    changes = options.overrides(set_, dtype=dtype, fit__epochs=epochs, fit__batch_size=batch_size)
    loaded = load_recipe(recipe, changes, allow_imports)
    told = {"device": device, "steps": steps, "tolerance": tolerance, "trace": trace, "in_process": in_process}
    with live_table(not quiet, progress) as watch:
        found = compare(loaded, backend, out=out, watch=watch, **told)  # type: ignore[arg-type]
    if not quiet:
        head, rows = overview(found)
        table(head, rows, right=range(2, len(head) - 1))
        typer.echo(f"Reports: {found.folder}")
    if tolerance is not None or not any(record.steps for record in found.records):
        found.require()
