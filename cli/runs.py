"""``unilayers runs`` and ``unilayers runs show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import options

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Listing(TyperGroup):
    """A group that lists where no command is named: ``runs FOLDER`` is ``runs list FOLDER``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        named = first in self.commands or first in ctx.help_option_names
        return super().parse_args(ctx, args if named else ["list", *args])


runs = typer.Typer(cls=Listing, name="runs", help="List the runs in a folder, or show one: unilayers runs show RUN.")


@runs.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, also in the folders inside.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List runs, the newest first; the command where none is named: unilayers runs FOLDER."""
    from unilayers.runs import find_runs

    from .report import json_text, table

    found = find_runs(folder)
    if json:
        typer.echo(json_text([_facts(run) for run in found]))
        return
    if not found:
        typer.echo(f"No runs in {folder}.")
        return
    head = ["When", "Run", "Recipe", "Backend", "Device", "Epochs", "Best", "Time"]
    damaged = any(run.problems for run in found)
    rows = [
        (
            f"{run.started.astimezone():%Y-%m-%d %H:%M}" if run.started else "?",
            str(run.folder.relative_to(folder.expanduser())),
            run.name or "?",
            run.backend,
            run.device,
            f"{run.done}/{run.wanted or '?'}",
            f"{run.best.name} {run.best.value:.4g}" if run.best else "",
            _time(run.seconds),
            *(["; ".join(run.problems)] if damaged else []),
        )
        for run in found
    ]
    table([*head, *(["Problems"] if damaged else [])], rows, right=(5, 7))


@runs.command()
def show(
    run: options.Run,
    last: Annotated[int, typer.Option(min=0, help="Epochs of the history to print, from its end.")] = 10,
    json: Json = False,
) -> None:
    """Show a run: settings that are not the defaults, environment, the last epochs, scores."""
    from unilayers.runs import read_run

    from .report import brief, json_text, table

    found = read_run(run)
    lines = found.epochs[max(0, len(found.epochs) - last) :]
    if json:
        told = {"settings": found.changes(), "environment": found.environment, "history": lines}
        typer.echo(json_text(_facts(found) | told))
        return
    epochs = f"{found.done} of {found.wanted or '?'} epochs"
    typer.echo(f"{found.name or '?'} on {found.backend} ({found.device}): {epochs}, {_time(found.seconds)}")
    for problem in found.problems:
        typer.echo(f"Problem: {problem}.")
    for title, facts in (("Setting", found.changes()), ("Environment", found.environment)):
        if facts:
            typer.echo()
            table([title, ""], [(path, brief(value)) for path, value in facts.items()])
    if lines:
        typer.echo()
        values = {name: dict(found.values(name)) for name in [*found.names, "seconds"]}
        rows = [(str(e), *(_number(values[n].get(e)) for n in values)) for e in (line["epoch"] for line in lines)]
        table(["Epoch", *values], rows, right=range(len(values) + 1))
    if found.best:
        typer.echo(f"\nBest {found.best.name}: {found.best.value:.6g} in epoch {found.best.epoch}")


def _facts(run: Any) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "started": run.started and run.started.isoformat(),
        "recipe": run.name,
        "backend": run.backend,
        "device": run.device,
        "epochs": run.done,
        "wanted": run.wanted,
        "best": run.best and run.best._asdict(),
        "seconds": run.seconds,
        "problems": run.problems,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _time(seconds: float) -> str:
    """Seconds as people say them: ``3.2 s``, ``4:05``, ``1:04:05``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
