"""``unilayers plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="What to draw, as the history names it; loss and val_loss if not given.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file: .png or .svg by matplotlib, .html a page of its own.")] = Path(
        "curves.html"
    ),
) -> None:
    """Draw the curves of runs over one another."""
    from unilayers.runs import draw
    from unilayers.runs.curves import METRICS

    typer.echo(f"Wrote {draw(runs, out, metric or METRICS)}")
