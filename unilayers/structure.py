"""Nested lists, tuples and dicts of values: how arguments, results and the states of loops may be given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def map_structure(function: Callable[[Any], Any], structure: Any) -> Any:
    """Apply ``function`` to every leaf of nested lists, tuples (also named ones) and dicts.

    Example:
        >>> map_structure(lambda x: 2 * x, {"a": 1, "b": [2, (3,)]})
        {'a': 2, 'b': [4, (6,)]}
    """
    if isinstance(structure, (list, tuple)):
        parts = [map_structure(function, x) for x in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else type(structure)(parts)
    if isinstance(structure, dict):
        return {k: map_structure(function, x) for k, x in structure.items()}
    return function(structure)


def leaves_of(structure: Any) -> list[Any]:
    """The leaves of nested lists, tuples and dicts, in order."""
    if isinstance(structure, (list, tuple)):
        return [leaf for x in structure for leaf in leaves_of(x)]
    if isinstance(structure, dict):
        return [leaf for k in structure for leaf in leaves_of(structure[k])]
    return [structure]


def pack_like(structure: Any, leaves: Iterable[Any]) -> Any:
    """The leaves in the nesting of ``structure``: the reverse of ``leaves_of``."""
    given = iter(leaves)
    return map_structure(lambda _: next(given), structure)
