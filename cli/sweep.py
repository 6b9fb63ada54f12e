"""``unilayers sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def sweep(
    recipe: options.Recipe,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUES",
            show_default=False,
            help="Values to try: optimizer.Adam.learning_rate=1e-4,1e-3 or seed=1..5. A comma inside [], {} or quotes "
            "belongs to a value: [3,3],[5,5]. Numbers to be drawn: 0.1..0.5, log:1e-5..1e-1.",
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", "-b", metavar="ENGINE[:DEVICE]", show_default=False, help="An engine to try."),
    ] = None,
    random: Annotated[int | None, typer.Option(metavar="N", help="Draw N combinations, in place of all.")] = None,
    search: Annotated[
        int | None, typer.Option(metavar="N", help="Try N combinations, each by what was found before; with Optuna.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Trials to train at once.")] = 1,
    monitor: Annotated[
        str | None, typer.Option(help="The value that counts, at its best epoch; val_loss or loss if not given.")
    ] = None,
    mode: Annotated[str, typer.Option(help="min or max: whether less or more of it is better.")] = "auto",
    in_process: Annotated[
        bool, typer.Option("--in-process", help="No process for each trial: quicker for small recipes.")
    ] = False,
    dtype: options.Dtype = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs in all.")] = None,
    batch_size: options.BatchSize = None,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/RECIPE-sweep-KEY if not given.")] = None,
    allow_imports: options.AllowImports = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but problems.")] = False,
) -> None:
    """Train a recipe with many settings; show which is the best. Run again, it goes on where it was."""
    from unilayers.errors import UnilayersError
    from unilayers.recipe import load_recipe
    from unilayers.sweep import sweep
    from unilayers.sweep.report import overview, progress

    from .report import live_table, table

    changes = options.overrides(None, dtype=dtype, fit__epochs=epochs, fit__batch_size=batch_size)
    loaded = load_recipe(recipe, changes, allow_imports)
    told = {"random": random, "search": search, "jobs": jobs, "monitor": monitor, "mode": mode, "out": out}
    with live_table(not quiet, progress) as watch:
        found = sweep(loaded, set_ or (), backend or (), in_process=in_process, watch=watch, **told)  # type: ignore[arg-type]
    if not quiet:
        head, rows = overview(found)
        table(head, rows, right=range(1 + len(found.varied), len(head) - 1))
        typer.echo(f"Reports: {found.folder}")
    if found.best is None:
        raise UnilayersError(f"no trial has come to its end: {found.trials[0].problem}", where="sweep")
