"""What the docstrings say about a class and its arguments, for the schema's descriptions."""

from __future__ import annotations

import inspect
import re
from functools import cache

_HEADER = re.compile(r"^(\w+):(\s|$)")
_ARGUMENT = re.compile(r"^(\*{0,2}\w+)(?: \([^)]*\))?:\s*(.*)$")


@cache
def summary(cls: type) -> str:
    """The first paragraph of a class's docstring, on one line.

    Example:
        >>> from unilayers.layers import Dense
        >>> summary(Dense)
        'Every unit sees every input: activation(x @ kernel + bias).'
    """
    return _one_line((inspect.getdoc(cls) or "").partition("\n\n")[0].splitlines())


@cache
def arguments(cls: type) -> dict[str, str]:
    """The description of each argument in the ``Args`` sections of a class, its ``__init__`` and its bases.

    Example:
        >>> from unilayers.layers import Dropout
        >>> arguments(Dropout)["rate"], arguments(Dropout)["trainable"]
        ('Share of the elements to drop.', 'Whether the weights are updated in training.')
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for text in (base.__doc__, getattr(vars(base).get("__init__"), "__doc__", None)):
            found |= parse_arguments(text or "")
    return found


def parse_arguments(docstring: str) -> dict[str, str]:
    """The ``Args`` section of a Google-style docstring, each description on one line.

    Example:
        >>> parse_arguments("Sum.\\n\\nArgs:\\n    x: First,\\n      and more.\\n    y: Second.")
        {'x': 'First, and more.', 'y': 'Second.'}
    """
    found: dict[str, list[str]] = {}
    inside, indent, lines = False, 0, inspect.cleandoc(docstring).splitlines()
    for line in lines:
        header = _HEADER.match(line)
        if header:
            inside, indent = header[1] == "Args", 0
        elif inside and line.strip():
            indent = indent or len(line) - len(line.lstrip())
            argument = _ARGUMENT.match(line[indent:])
            if argument and len(line) - len(line.lstrip()) == indent:
                found[argument[1].lstrip("*")] = [argument[2]]
            elif found:
                found[next(reversed(found))].append(line)
    return {name: _one_line(texts) for name, texts in found.items()}


def _one_line(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines).replace("``", "").strip()
