"""``unilayers schema``."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON Schema of recipes, with which editors complete and explain them."""
    import json

    from unilayers.recipe.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
