"""Nested lists, tuples and dicts under the names of ``keras.tree``: dicts in the order of their sorted keys.

The package itself works on such structures by `unilayers.structure`, in the order in which dicts were written.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from unilayers.errors import UnilayersError


class MAP_TO_NONE:
    """What a function gives to ``traverse`` to put None in a place, as None itself means: go on below."""


def is_nested(structure: Any) -> bool:
    """Whether it is a list, tuple or dict.

    Example:
        >>> is_nested([]), is_nested("ab")
        (True, False)
    """
    return isinstance(structure, (list, tuple, dict))


def flatten(structure: Any) -> list[Any]:
    """The leaves, in order; None is one.

    Example:
        >>> flatten({"b": 1, "a": [2, (3, None)]})
        [2, 3, None, 1]
    """
    return [leaf for _, leaf in flatten_with_path(structure)]


def flatten_with_path(structure: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """The leaves, each with the keys and numbers that lead to it.

    Example:
        >>> flatten_with_path({"b": 1, "a": [2]})
        [(('a', 0), 2), (('b',), 1)]
    """
    if not is_nested(structure):
        return [((), structure)]
    return [((key, *path), leaf) for key, part in _parts(structure) for path, leaf in flatten_with_path(part)]


def map_structure(func: Callable[..., Any], *structures: Any, none_is_leaf: bool = True) -> Any:
    """The structure with ``func`` of every leaf, or of the leaves in the same place of several structures.

    Args:
        func: Takes as many arguments as there are structures.
        *structures: All of one form.
        none_is_leaf: Whether None is handed to ``func``; else it stays where all have None.

    Raises:
        UnilayersError: for structures of different forms.

    Example:
        >>> map_structure(lambda a, b: a + b, {"x": [1, 2]}, {"x": [10, 20]})
        {'x': [11, 22]}
    """
    for other in structures[1:]:
        assert_same_structure(structures[0], other)

    def apply(*leaves: Any) -> Any:
        return None if not none_is_leaf and all(leaf is None for leaf in leaves) else func(*leaves)

    return map_structure_up_to(structures[0], apply, *structures)


def map_structure_up_to(shallow_structure: Any, func: Callable[..., Any], *structures: Any) -> Any:
    """``func`` of what the structures have in the place of each leaf of a structure that may be less deep.

    Example:
        >>> map_structure_up_to([0, 0], len, [[1, 2], [3]])
        [2, 1]
    """
    if not is_nested(shallow_structure):
        return func(*structures)
    keys = [key for key, _ in _parts(shallow_structure)]
    for structure in structures:
        if not is_nested(structure) or [key for key, _ in _parts(structure)] != keys:
            raise UnilayersError("structures differ", expected=repr(shallow_structure), received=repr(structure))
    columns = [dict(_parts(structure)) for structure in structures]
    below = dict(_parts(shallow_structure))
    made = {key: map_structure_up_to(below[key], func, *(column[key] for column in columns)) for key in keys}
    return _rebuilt(shallow_structure, made)


def map_shape_structure(func: Callable[[Any], Any], structure: Any) -> Any:
    """The structure with ``func`` of every shape, which is a list or tuple of sizes and None.

    Example:
        >>> map_shape_structure(len, {"a": (None, 3), "b": (2,)})
        {'a': 2, 'b': 1}
    """
    if isinstance(structure, (list, tuple)) and all(d is None or isinstance(d, int) for d in structure):
        return func(tuple(structure))
    if not is_nested(structure):
        raise UnilayersError("not a shape", expected="sizes and None", received=repr(structure))
    return _rebuilt(structure, {key: map_shape_structure(func, part) for key, part in _parts(structure)})


def pack_sequence_as(structure: Any, flat_sequence: Iterable[Any]) -> Any:
    """Leaves in the form of a structure: the reverse of ``flatten``.

    Raises:
        UnilayersError: for another number of leaves.

    Example:
        >>> pack_sequence_as({"b": 0, "a": [0]}, [1, 2])
        {'b': 2, 'a': [1]}
    """
    leaves, wanted = list(flat_sequence), len(flatten(structure))
    if len(leaves) != wanted:
        raise UnilayersError(
            "leaves do not fit", where="pack_sequence_as", expected=str(wanted), received=str(len(leaves))
        )
    given = iter(leaves)
    return map_structure_up_to(structure, lambda _: next(given), structure)


def traverse(func: Callable[[Any], Any], structure: Any, top_down: bool = True) -> Any:
    """The structure with each part, leaf or not, replaced by what ``func`` says of it.

    Args:
        func: Gives None to leave a part and go on below, `MAP_TO_NONE` to put None there, else what takes its place.
        structure: The structure.
        top_down: Whether a part is asked about before what is in it; parts that took another's place are not gone into.

    Example:
        >>> traverse(lambda x: tuple(x) if isinstance(x, list) else None, [1, [2]], top_down=False)
        (1, (2,))
    """

    def asked(part: Any, otherwise: Callable[[], Any]) -> Any:
        found = func(part)
        if isinstance(found, MAP_TO_NONE) or found is MAP_TO_NONE:
            return None
        return otherwise() if found is None else found

    def below() -> Any:
        if not is_nested(structure):
            return structure
        return _rebuilt(structure, {key: traverse(func, part, top_down) for key, part in _parts(structure)})

    if top_down or not is_nested(structure):
        return asked(structure, below)
    rebuilt = below()
    return asked(rebuilt, lambda: rebuilt)


def lists_to_tuples(structure: Any) -> Any:
    """The structure with tuples for lists.

    Example:
        >>> lists_to_tuples([1, {"a": [2]}])
        (1, {'a': (2,)})
    """
    return traverse(lambda x: tuple(x) if isinstance(x, list) else None, structure, top_down=False)


def assert_same_structure(a: Any, b: Any, check_types: bool | None = None) -> None:
    """Raise unless two structures have the same form; dicts, ordered or not, are of one kind.

    Args:
        a: One structure.
        b: The other one.
        check_types: Taken for the sake of scripts: lists and tuples always differ.

    Raises:
        UnilayersError: naming the first place where they differ.
    """
    _same(a, b, ())


def assert_same_paths(a: Any, b: Any) -> None:
    """Raise unless the same keys and numbers lead to the leaves of two structures; a list may stand for a tuple.

    Raises:
        UnilayersError: naming the paths that only one has.
    """
    mine, theirs = ({path for path, _ in flatten_with_path(s)} for s in (a, b))
    if mine != theirs:
        raise UnilayersError(
            "paths differ", expected=str(sorted(mine, key=repr)), received=str(sorted(theirs, key=repr))
        )


def _same(a: Any, b: Any, path: tuple[Any, ...]) -> None:
    kinds = [dict if isinstance(x, dict) else type(x) if is_nested(x) else None for x in (a, b)]
    if kinds[0] is not kinds[1] or (kinds[0] and [k for k, _ in _parts(a)] != [k for k, _ in _parts(b)]):
        where = f"structure{''.join(f'[{key!r}]' for key in path)}"
        raise UnilayersError("structures differ", where=where, expected=repr(a), received=repr(b))
    if kinds[0]:
        for (key, x), (_, y) in zip(_parts(a), _parts(b), strict=True):
            _same(x, y, (*path, key))


def _parts(structure: Any) -> list[tuple[Any, Any]]:
    if isinstance(structure, OrderedDict):
        return list(structure.items())
    if isinstance(structure, dict):
        return sorted(structure.items(), key=lambda item: item[0])
    return list(enumerate(structure))


def _rebuilt(structure: Any, parts: dict[Any, Any]) -> Any:
    if isinstance(structure, dict):
        return type(structure)((key, parts[key]) for key in structure)
    return type(structure)(*parts.values()) if hasattr(structure, "_fields") else type(structure)(parts.values())
