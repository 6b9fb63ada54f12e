"""The command line: one short file a command, a thin shell over the Python interface."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: The words after the program's name; those of the process if None.
    """
    from .app import app

    app(args=arguments, prog_name="unilayers")
