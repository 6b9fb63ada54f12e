"""How much code a layer, an op, a loss... and a backend take: ``python benchmarks/size.py``, from the project's root.

A line counts if it holds code: no blank lines, comments, docstrings. What stands behind an entry of a registry is
counted where it is written, so what several share counts for none of them; the total of a folder has everything.
"""

from __future__ import annotations

import ast
import inspect
import io
import statistics
import textwrap
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(text: str) -> int:
    """How many lines of a source hold code.

    Example:
        >>> code_lines('def f():\\n    "Says nothing."\\n\\n    return 1  # one\\n')
        2
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SKIPPED:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            first = node.body[0]
            lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def of(thing: Any) -> int:
    """The code lines of a class or function, decorators included."""
    return code_lines(textwrap.dedent(inspect.getsource(thing)))


def spread(name: str, counts: Iterable[int]) -> tuple[str, ...]:
    """A row: how many, median, smallest, largest, sum."""
    found = sorted(counts)
    return name, str(len(found)), f"{statistics.median(found):.0f}", str(found[0]), str(found[-1]), f"{sum(found):,}"


def main() -> None:
    from unilayers import callbacks, constraints, initializers, layers, losses, metrics, ops, optimizers, regularizers
    from unilayers.graph import OPS

    console = Console(width=110)
    families = {
        "layer": layers.Layer, "loss": losses.Loss, "metric": metrics.Metric, "optimizer": optimizers.Optimizer,
        "schedule": optimizers.schedules.LearningRateSchedule, "initializer": initializers.Initializer,
        "regularizer": regularizers.Regularizer, "constraint": constraints.Constraint,
    }  # fmt: skip
    table = Table("kind", "how many", "median", "least", "most", "in all", title="Lines of code of one of a kind")
    for name, family in families.items():
        classes = {cls for cls in family.registry if cls.__module__.startswith("unilayers.")}
        table.add_row(*spread(name, map(of, classes)))
    told = [c for c in vars(callbacks).values() if inspect.isclass(c) and issubclass(c, callbacks.Callback)]
    table.add_row(*spread("callback", map(of, set(told))))
    for name, composite in (("op of other ops", True), ("op, a primitive", False)):
        names = [op.name for op in OPS.values() if op.composite is composite and hasattr(ops, op.name)]
        table.add_row(*spread(name, (of(inspect.unwrap(getattr(ops, n))) for n in names)))
    console.print(table)

    backends = Table("backend", "files", "lines", "of these the table", title="Lines of code of a backend")
    for folder in sorted(p for p in (ROOT / "backends").iterdir() if (p / "table.py").is_file()):
        files = sorted(folder.rglob("*.py"))
        lines = [code_lines(p.read_text()) for p in files]
        own = code_lines((folder / "table.py").read_text())
        backends.add_row(folder.name, str(len(files)), f"{sum(lines):,}", str(own))
    console.print(backends)

    parts = Table("part", "files", "lines", title="Lines of code in all")
    for top in ("unilayers", "backends", "cli", "tests", "benchmarks"):
        files = [p for p in sorted((ROOT / top).rglob("*.py")) if "scripts" not in p.parts]
        parts.add_row(top, str(len(files)), f"{sum(code_lines(p.read_text()) for p in files):,}")
    console.print(parts)


if __name__ == "__main__":
    main()
