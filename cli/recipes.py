"""``unilayers recipes``."""

from __future__ import annotations


def recipes() -> None:
    """List the recipes that come with unilayers."""
    from unilayers.recipe import load_recipe, shipped

    from .report import table

    table(["Recipe", "What it is"], [(name, " ".join(load_recipe(name).description.split())) for name in shipped()])
