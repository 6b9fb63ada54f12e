"""``unilayers predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def predict(
    run: options.Run,
    samples: Annotated[Path, typer.Argument(help="Samples: an .npz, .npy or .csv file.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="An .npz, .npy or .csv file; CSV on the screen if not given.")
    ] = None,
    classes: Annotated[bool, typer.Option("--classes", help="The likeliest class of each sample only.")] = False,
    backend: options.Backend = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    allow_imports: options.AllowImports = False,
) -> None:
    """Write what the model of a run says about samples."""
    from unilayers.recipe import open_run
    from unilayers.recipe.tables import as_csv, likeliest, read_samples, write_arrays

    changes = options.overrides(None, backend=backend, device=device, fit__batch_size=batch_size)
    recipe, model = open_run(run, changes, allow_imports)
    outputs = model.predict(read_samples(samples, recipe, model), batch_size=recipe.batch_size, verbose=0)
    names = recipe.settings["outputs"] or ["y"]
    found = dict(zip(names, outputs if isinstance(outputs, list) else [outputs], strict=True))
    found = {name: likeliest(y) if classes else y for name, y in found.items()}
    if out is None:
        typer.echo(as_csv(found), nl=False)
    else:
        write_arrays(out, found)
        typer.echo(f"{', '.join(f'{name} {y.shape}' for name, y in found.items())} -> {out}")
