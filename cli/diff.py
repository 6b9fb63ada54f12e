"""``unilayers diff``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer


def diff(
    a: Annotated[Path, typer.Argument(help="A run folder or a checkpoint.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another.", show_default=False)],
    tolerance: Annotated[
        float, typer.Option(help="Difference up to which numbers are the same, as a share of a tensor's largest one.")
    ] = 0.0,
    limit: Annotated[int, typer.Option(min=1, help="Tensors to list, from the first that differs.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two runs or checkpoints; exit code 1 if weights, optimizer state or history differ."""
    from dataclasses import asdict

    from unilayers.runs import compare_states

    from .report import json_text

    found = compare_states(a, b, tolerance)
    if json:
        typer.echo(json_text({"same": found.same} | asdict(found)))
    else:
        _report(found, limit)
    if not found.same:
        raise typer.Exit(1)


def _report(found: Any, limit: int) -> None:
    from .report import brief, table

    for part, count in found.compared.items():
        parted = [one for one in found.parted if one.part == part]
        near = sum(one.part == part for one in found.tensors) - len(parted)
        within = f", {near} within the tolerance" if near else ""
        typer.echo(f"{part}: {len(parted)} of {count} tensors differ{within}")
    if found.parted:
        typer.echo()
        rows = [(one.name, *_measure(one), one.problem) for one in found.parted[:limit]]
        table(["Tensor", "Elements", "Absolute", "Relative", ""], rows, right=(1, 2, 3))
        if len(found.parted) > limit:
            typer.echo(f"... and {len(found.parted) - limit} more")
    if found.history:
        typer.echo(f"\nThe histories part in epoch {found.history.epoch}:")
        values = [(name, *map(_value, pair)) for name, pair in found.history.values.items()]
        table(["Value", "First", "Second"], values, right=(1, 2))
    sections = {"Position": found.position, "Setting": found.settings, "Environment": found.environment}
    for title, differences in sections.items():
        if differences:
            typer.echo()
            table([title, "First", "Second"], [(one.path, brief(one.a), brief(one.b)) for one in differences])
    for problem in found.problems:
        typer.echo(f"Not compared: {problem}.")
    if found.same:
        typer.echo("The same numbers" + (f" within {found.tolerance:g}." if found.tolerance else ", bit for bit."))


def _measure(one: Any) -> Sequence[str]:
    return (f"{one.elements}/{one.size}", f"{one.absolute:.3g}", f"{one.relative:.3g}") if one.size else ("", "", "")


def _value(value: float | None) -> str:
    return "none" if value is None else f"{value:.9g}"
