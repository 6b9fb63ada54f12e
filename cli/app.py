"""The Typer app: the commands, and how errors are told."""

from __future__ import annotations

import errno
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unilayers.errors import UnilayersError

from .backends import backends
from .bench import bench
from .check import check
from .compare import compare
from .diff import diff
from .evaluate import evaluate
from .plot import plot
from .predict import predict
from .recipes import recipes
from .runs import runs
from .schema import schema
from .show import show
from .sweep import sweep
from .time import time
from .train import train

INTERRUPTED = 130  # what shells return for Ctrl-C


class Group(TyperGroup):
    """Every error of the user's is one message and exit code 1, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            typer.echo(f"Interrupted. {getattr(error, 'fix', '')}".rstrip(), err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (UnilayersError, OSError) as error:
            if ctx.params.get("traceback") or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            typer.secho("Error: ", fg="red", err=True, nl=False)
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    train, sweep, compare, time, bench, evaluate, predict, check, show, recipes, backends, schema, plot, diff
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)
app.add_typer(runs)


def _version(wanted: bool) -> None:
    if wanted:
        from unilayers import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def unilayers(
    traceback: Annotated[
        bool, typer.Option("--traceback", envvar="UNILAYERS_TRACEBACK", help="Show where in the code an error arose.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Train neural networks from YAML recipes, on any engine.

    Start with: unilayers train digits-cnn
    """
