"""Reports: tables in Markdown and HTML, and pages that need nothing but themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

from unilayers.saving import write_atomically

from . import charts

Table: TypeAlias = tuple[list[str], list[list[str]]]  # the head and the rows
FOLDED = 48  # rows above which a table is folded away


def _colours(found: Sequence[str]) -> str:
    return " ".join(f"--c{i}: {colour};" for i, colour in enumerate(found))


STYLE = f"""
:root {{ color-scheme: light dark; --ink: #1c2128; --soft: #5b6572; --faint: #aab3bf; --line: #dde2e8; --paper: #fff;
  {_colours(charts.LIGHT)} }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e4e8ee; --soft: #9aa5b3; --faint: #56606d; --line: #343b45; --paper: #15181d;
    {_colours(charts.DARK)} }}
}}
body {{ margin: 2rem auto; max-width: 76rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }}
h1 {{ font-size: 1.5rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.1rem; margin-top: 2rem; }} h3 {{ font-size: 0.95rem; margin: 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }}
th, td {{ text-align: left; padding: 0.25rem 0.7rem 0.25rem 0; border-bottom: 1px solid var(--line); }}
th {{ color: var(--soft); font-weight: 600; vertical-align: bottom; }}
.scroll {{ overflow-x: auto; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); gap: 1.5rem; }}
.bad {{ font-weight: 600; }}
.key {{ display: inline-block; margin-right: 1rem; }}
.key svg {{ width: 0.8rem; height: 0.8rem; margin-right: 0.3rem; }}
.key svg.stroke {{ width: 30px; height: 10px; }}
pre {{ overflow-x: auto; padding: 0.8rem; border: 1px solid var(--line); border-radius: 6px; font-size: 13px; }}
{charts.STYLE}"""


def page(title: str, body: Sequence[str]) -> str:
    """A page that loads nothing from anywhere, on light or dark paper as the reader has it.

    Args:
        title: As HTML.
        body: Pieces of HTML.
    """
    head = '<meta charset="utf-8"/><meta name="viewport" content="width=device-width"/>'
    head, text = f"{head}<title>{title}</title><style>{STYLE}</style>", "\n".join(body)
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{text}\n</body>\n</html>\n'


def html_table(table: Table) -> str:
    """A table as HTML; a long one is folded away.

    Example:
        >>> html_table((["a"], [["<b>"]])).count("<td>&lt;b&gt;</td>")
        1
    """
    head, rows = table
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    found = f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
    return found if len(rows) <= FOLDED else f"<details><summary>{len(rows)} rows</summary>{found}</details>"


def markdown_table(table: Table) -> str:
    """A table as Markdown.

    Example:
        >>> print(markdown_table((["a"], [["b|c"]])))
        | a |
        | --- |
        | b\\|c |
    """
    head, rows = table
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def figure(heading: str, picture: str) -> str:
    """A chart with its heading, for the grid of charts."""
    return f"<div><h3>{escape(heading)}</h3>{picture}</div>"


def write_reports(folder: Path, plain: Any, markdown: str, html: str) -> None:
    """Write ``report.json``, ``report.md`` and ``report.html``, each at once.

    Args:
        folder: Where to.
        plain: What JSON can say.
        markdown, html: The other two.
    """
    told = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    for name, text in {"report.json": told, "report.md": markdown, "report.html": html}.items():
        write_atomically(folder / name, text.encode())
