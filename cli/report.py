"""What the commands print: tables, amounts, scores. Imported inside the commands, since it needs the library."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from unilayers.backend import Backend
from unilayers.callbacks import Callback
from unilayers.errors import DataError
from unilayers.graph import OPS
from unilayers.graph.node import LEAVES
from unilayers.recipe import Recipe, check_fit

if TYPE_CHECKING:
    from unilayers.utils.pages import Table

WIDE = 160  # columns for tables that do not go to a terminal


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table; ``right`` are the columns set to the right."""
    from rich.console import Console

    console = Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console = Console(width=WIDE, highlight=False)
    console.print(_table(head, rows, right))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> Any:
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(head):
        found.add_column(name, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        found.add_row(*(_plain(cell) for cell in row))
    return found


@contextmanager
def live_table(wanted: bool, progress: Callable[[Any], Table]) -> Iterator[Callable[[Any], None] | None]:
    """Inside its block a function that shows how far trainings are, on a terminal; None elsewhere, or if not wanted.

    Args:
        wanted: Whether it is.
        progress: Makes the table of what that function is given.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if not (wanted and console.is_terminal):
        yield None
        return
    with Live(console=console, transient=True, refresh_per_second=5) as live:
        yield lambda found: live.update(_table(*progress(found), right=()))


def _plain(cell: str) -> Any:
    from rich.text import Text

    return Text(cell)


def amount(number: int, unit: str) -> str:
    """A number in the unit's thousands.

    Example:
        >>> amount(1_917_568, "FLOP"), amount(512, "B")
        ('1.92 MFLOP', '512 B')
    """
    thousands = max(0, len(str(number)) - 1) // 3
    return f"{number / 1000**thousands:.3g} {' kMGTPE'[thousands].strip()}{unit}"


def scores(values: Mapping[str, Any]) -> str:
    """Loss and metrics on one line; of several values the mean."""
    means = {name: float(np.mean(value)) for name, value in values.items()}
    return " - ".join(f"{name}: {v:.4g}" if "loss" in name else f"{name}: {v:.4f}" for name, v in means.items())


def brief(value: Any) -> str:
    """A value of a recipe or an environment on one short line.

    Example:
        >>> brief({"Dense": {"units": 3}}), brief(None), brief("relu"), brief([1, 0.5])
        ('Dense: {units: 3}', 'null', 'relu', '[1, 0.5]')
    """
    if isinstance(value, Mapping):
        text = ", ".join(f"{name}: {_inner(inside)}" for name, inside in value.items())
    else:
        text = _inner(value)
    return text if len(text) <= 70 else f"{text[:67]}..."


def _inner(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_inner(inside)}' for name, inside in value.items())}}}"
    return value if isinstance(value, str) else json.dumps(value)


def json_text(value: Any) -> str:
    """JSON, indented; null for numbers that are not finite, which it cannot write."""

    def written(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: written(inside) for name, inside in value.items()}
        if isinstance(value, (list, tuple)):
            return [written(inside) for inside in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(written(value), indent=2)


def data_line(recipe: Recipe, model: Any) -> str:
    """What the data set holds, checked against the model; or why it cannot be read here, which is no recipe's fault."""
    try:
        data = recipe.data()
    except DataError as error:
        return f"not read: {error}"
    parts = recipe.parts(data)
    check_fit(recipe, model, data, parts)
    named = {"to train": parts.train, "to validate": parts.validation, "to test": parts.test}
    counts = ", ".join(f"{len(part[0]):,} {use}" for use, part in named.items() if part is not None)
    classes = f", {data.num_classes} classes" if data.num_classes else ""
    return f"{data.name}: {counts}; samples {data.feature_shape}{classes}"


def how_ops_run(backend: Backend) -> dict[str, str]:
    """For each op whether the backend lists it as a primitive, runs it fused, or has it expanded into others."""
    ways = {(False, True): "primitive", (True, True): "fused", (True, False): "expanded"}
    return {name: ways[op.composite, name in backend.table] for name, op in OPS.items() if name not in LEAVES}


class Announce(Callback):
    """Says before training what is trained on what."""

    def __init__(self, recipe: Recipe, summary: bool) -> None:
        self.recipe, self.summary = recipe, summary

    def on_train_begin(self, logs: Any = None) -> None:
        if self.summary:
            self.model.summary()
        recipe, steps = self.recipe, self.params.get("steps")
        typer.echo(
            f"{recipe.name} on {self.params['backend']} ({recipe.device}, {recipe.dtype}, seed {recipe.seed}): "
            f"{self.model.count_params():,} parameters, {steps} steps of {recipe.batch_size} an epoch"
        )
