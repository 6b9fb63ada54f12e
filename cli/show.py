"""``unilayers show``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def show(
    recipe: options.Recipe,
    source: Annotated[bool, typer.Option("--source", help="As it is written, with its comments.")] = False,
    set_: options.Set = None,
    allow_imports: options.AllowImports = False,
) -> None:
    """Print a recipe with every default written out."""
    from unilayers.recipe import load_recipe

    loaded = load_recipe(recipe, set_ or (), allow_imports)
    typer.echo(loaded.source if source else loaded.to_yaml(), nl=False)
