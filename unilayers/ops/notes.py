"""What engines differ in: the ``Engines:`` sections of the ops' docstrings, as one page.

``python -m unilayers.ops.notes > docs/engines.md`` writes the page.
"""

from __future__ import annotations

import inspect
import re

from unilayers import ops

_SECTION = re.compile(r"^Engines:\s+((?:\S.*(?:\n|$))+)", re.MULTILINE)

INTRODUCTION = """# What engines differ in

NumPy, PyTorch, TensorFlow and JAX do not agree on every edge case. This is where, and what each op does here: the same
on every backend, unless its line says otherwise ("also here"). Engines were observed on the CPU.

The table is made from the `Engines:` sections of the ops' docstrings by
`python -m unilayers.ops.notes > docs/engines.md`.

| op | what engines differ in, and what it does here |
|---|---|
"""


def engines_note(docstring: str) -> str:
    """The ``Engines:`` section of a docstring on one line; empty if there is none.

    Example:
        >>> engines_note("A sum.\\n\\nEngines: They differ;\\nhere it is 0.\\n\\nExample:\\n    >>> 0")
        'They differ; here it is 0.'
    """
    found = _SECTION.search(inspect.cleandoc(docstring))
    return " ".join(found[1].split()) if found else ""


def notes() -> dict[str, str]:
    """The section of each op that has one, by the op's name, in alphabetical order; of several names, its own."""
    found = {}
    for prefix, module in (("", ops), ("image.", ops.image)):
        for name, function in vars(module).items():
            own = callable(function) and not name.startswith("_") and function.__name__ == name
            note = engines_note(function.__doc__ or "") if own else ""
            if note and not (prefix and name in found):
                found[prefix + name] = note
    return dict(sorted(found.items()))


def page() -> str:
    """The page in Markdown."""
    rows = (f"| `{name}` | {note.replace('``', '`').replace('|', chr(92) + '|')} |" for name, note in notes().items())
    return INTRODUCTION + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page(), end="")
