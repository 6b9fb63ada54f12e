"""``unilayers check``."""

from __future__ import annotations

import typer

from . import options


def check(
    recipe: options.Recipe,
    batch_size: options.BatchSize = None,
    set_: options.Set = None,
    allow_imports: options.AllowImports = False,
) -> None:
    """Validate a recipe and its data; print shapes, parameters and FLOPs. Trains nothing."""
    from unilayers.models.summary import rows
    from unilayers.recipe import load_recipe
    from unilayers.recipe.cost import cost

    from .report import amount, data_line, table

    loaded = load_recipe(recipe, options.overrides(set_, fit__batch_size=batch_size), allow_imports)
    model = loaded.build()
    counts = cost(loaded, model)
    table(["Layer", "Output shape", "Parameters"], [(a, b, f"{n:,}") for a, b, n in rows(model)], right=(2,))
    lines = {
        "parameters": f"{counts.parameters:,} ({counts.trainable:,} trainable), {amount(counts.parameter_bytes, 'B')}",
        "forward": f"{amount(counts.forward, 'FLOP')} for a batch of {counts.batch_size}",
        "training step": f"{amount(counts.training_step, 'FLOP')} for a batch of {counts.batch_size}",
        "data": data_line(loaded, model),
    }
    typer.echo("\n" + "\n".join(f"{name + ':':<15}{text}" for name, text in lines.items()))
    typer.echo(f"\n{loaded.name} is valid.")
