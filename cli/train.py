"""``unilayers train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the name of a shipped recipe.", show_default=False)
    ] = None,
    backend: options.Backend = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    seed: Annotated[int | None, typer.Option(help="Seed of initial weights, order of samples, dropout.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs in all.")] = None,
    batch_size: options.BatchSize = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/RECIPE-TIME if not given.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with this run, by its own recipe.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Use only what gives the same bits in every run.")
    ] = False,
    set_: options.Set = None,
    allow_imports: options.AllowImports = False,
    retime: Annotated[
        bool,
        typer.Option("--retime", help="With --backend auto: time the engines again, whatever was measured before."),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Let TensorBoard read the run folder: tensorboard --logdir RUN.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the final scores only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print the model too.")] = False,
) -> None:
    """Train by a recipe; keeps recipe, history, checkpoint and environment in a run folder."""
    from unilayers.errors import UnilayersError
    from unilayers.recipe import load_recipe, recipe_file

    from .report import Announce, scores

    if (recipe is None) == (resume is None):
        raise UnilayersError(
            "one recipe or one run" if recipe else "nothing to train",
            where="train",
            expected="RECIPE for a new run, or --resume RUN to go on with one",
            fix="See what there is with: unilayers recipes" if recipe is None else "",
        )
    if resume is not None and out is not None:
        raise UnilayersError("--out beside --resume", where="train", fix="A run is resumed in its own folder")
    changes = options.overrides(
        set_, backend=backend, device=device, dtype=dtype, seed=seed, fit__epochs=epochs, fit__batch_size=batch_size,
        deterministic="true" if deterministic else None,
    )  # fmt: skip
    source = str(recipe) if resume is None else recipe_file(resume)
    loaded = load_recipe(source, changes, allow_imports)
    if tensorboard:
        loaded = loaded.watched_by("TensorBoard")
    announce = [] if quiet else [Announce(loaded, summary=verbose)]
    result = loaded.train(
        out if resume is None else resume,
        resume=resume is not None,
        callbacks=announce,
        verbose=0 if quiet else 1,
        retime=retime,
    )
    if not result.trained:
        done = result.model.position.epoch
        stopped = f"Training had been stopped after {done} of {loaded.epochs} epochs; to go on, change fit.callbacks."
        all_done = f"All {loaded.epochs} epochs are trained already; ask for more with --epochs."
        typer.echo(stopped if done < loaded.epochs else all_done)
    typer.echo(scores(result.scores))
    if not quiet:
        typer.echo(f"Run folder: {result.folder}")
