"""Arguments and options that several commands take, and the overrides they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Recipe: TypeAlias = Annotated[
    str, typer.Argument(help="A recipe file, or the name of a shipped recipe.", show_default=False)
]
Run: TypeAlias = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]
Backend: TypeAlias = Annotated[
    str | None, typer.Option(help="Engine to run on: numpy, torch, tensorflow...; auto trains on the fastest.")
]
Device: TypeAlias = Annotated[str | None, typer.Option(help="Device of the engine: cpu, cuda, cuda:1...")]
Dtype: TypeAlias = Annotated[str | None, typer.Option(help="Float dtype: float32, float64, mixed_bfloat16...")]
Backends: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        "-b",
        metavar="ENGINE[:DEVICE]",
        help="An engine, as in -b numpy -b torch:cuda.",
        show_default=False,
    ),
]
InProcess: TypeAlias = Annotated[
    bool, typer.Option("--in-process", help="No process for each engine: quicker, but times and memory are shared.")
]
Clock: TypeAlias = Annotated[
    str, typer.Option(metavar="wall|processor", help="processor: for a machine that others use too, with one thread.")
]
JsonFile: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything as JSON.")]
BatchSize: TypeAlias = Annotated[int | None, typer.Option(help="Samples in a step.")]
Set: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace a value, as in optimizer.Adam.learning_rate=0.01."),
]
AllowImports: TypeAlias = Annotated[
    bool,
    typer.Option("--allow-imports", help="Let the recipe import classes of yours, my_module:MyLayer: runs that code."),
]


def overrides(set_: Sequence[str] | None, **options: object) -> list[str]:
    """What ``--set`` says, then what the options say; ``fit__epochs`` stands for ``fit.epochs``."""
    given = {name.replace("__", "."): value for name, value in options.items() if value is not None}
    return [*(set_ or ()), *(f"{path}={value}" for path, value in given.items())]


def write(path: Path | None, text: str) -> None:
    """Write what an option wants in a file, and say so; nothing if it was not given."""
    if path is not None:
        path.write_text(text if text.endswith("\n") else f"{text}\n", "utf-8")
        typer.echo(f"Wrote {path}")
