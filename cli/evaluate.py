"""``unilayers evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def evaluate(
    run: options.Run,
    data: Annotated[str | None, typer.Option(help="Another data set: its name or path.")] = None,
    part: Annotated[
        str | None, typer.Option(help="train, validation or test; the last of these that there is if not given.")
    ] = None,
    backend: options.Backend = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    set_: options.Set = None,
    allow_imports: options.AllowImports = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the model of a run on data."""
    import json as format_json

    from unilayers.recipe import evaluate_run, open_run

    from .report import scores

    changes = options.overrides(set_, backend=backend, device=device, fit__batch_size=batch_size)
    recipe, model = open_run(run, changes, allow_imports)
    name, samples, found = evaluate_run(recipe, model, data=data, part=part)
    if json:
        typer.echo(format_json.dumps({"part": name, "samples": samples, **found}))
    else:
        typer.echo(f"{name} ({samples:,} samples): {scores(found)}")
