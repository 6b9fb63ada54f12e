"""A recipe's text as plain values that remember where they stand: YAML in, values with marks and ``--set`` out.

The YAML is that of version 1.2's core schema, safe by construction: only mappings, lists, strings, numbers, true, false
and null come out of it. ``1e-3`` is a number; ``no`` and ``on`` are words, not truth values; a key may stand once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from unilayers.errors import RecipeError

Path = tuple[str | int, ...]
MAX_VALUES = 100_000  # aliases that name each other can stand for more values than fit into memory


@dataclass
class Document:
    """Values, and for each the place that a message should name.

    Args:
        value: Nested dicts, lists and scalars.
        source: The file's name, or what stands for it.
        marks: Where the value at a path stands: ``file:line:column``, or the override that set it.
        key_marks: Where the key at a path stands.
    """

    value: Any
    source: str
    marks: dict[Path, str] = field(default_factory=dict)
    key_marks: dict[Path, str] = field(default_factory=dict)

    def mark(self, path: Path, *, key: bool = False) -> str:
        """The place of the value (or its key) at ``path``; of the nearest value around it if it is not written."""
        if key and path in self.key_marks:
            return self.key_marks[path]
        return next((self.marks[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.marks), self.source)


@dataclass(frozen=True)
class Cursor:
    """One value of a document with its path; what the checks walk with."""

    document: Document
    path: Path = ()

    @property
    def value(self) -> Any:
        value = self.document.value
        for step in self.path:
            value = value[step]
        return value

    def child(self, step: str | int) -> Cursor:
        return Cursor(self.document, (*self.path, step))

    def children(self) -> Iterator[Cursor]:
        """A cursor for each entry of the mapping or list."""
        value = self.value
        return map(self.child, value if isinstance(value, Mapping) else range(len(value)))

    def replace(self, value: Any) -> None:
        """Put another value here; what is new in it counts as written where the old value was."""
        parent = Cursor(self.document, self.path[:-1]).value
        parent[self.path[-1]] = value

    def where(self, *, key: bool = False) -> str:
        """``file:line:column: dotted.path``."""
        mark, path = self.document.mark(self.path, key=key), dotted(self.path)
        return f"{mark}: {path}" if path else mark

    def error(
        self, problem: str, *, key: bool = False, expected: str = "", received: str = "", fix: str = ""
    ) -> RecipeError:
        """A `RecipeError` that names this place."""
        return RecipeError(problem, where=self.where(key=key), expected=expected, received=received, fix=fix)


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it.

    Example:
        >>> dotted(("model", 2, "Dense", "units"))
        'model[2].Dense.units'
    """
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def shown(value: Any) -> str:
    """A value in a message: short, with its type.

    Example:
        >>> shown([1, 2]), shown({"a": 1}), shown("x"), shown(None)
        ('[1, 2] (a list)', "{'a': 1} (a mapping)", "'x' (a string)", 'nothing')
    """
    if value is None:
        return "nothing"
    text = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."
    kinds = {
        dict: "a mapping",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "an int",
        float: "a number",
    }
    return f"{text} ({kinds.get(type(value), type(value).__name__)})"


# ---- reading --------------------------------------------------------------------------------------------------------


def parse(text: str | bytes, source: str) -> Document:
    """The document in a YAML text.

    Raises:
        RecipeError: naming line and column, for text that is not YAML, holds no single mapping, or uses what recipes
            do not have (tags, keys that are no strings, a key twice).
    """
    import yaml

    try:
        node = yaml.compose(text.encode() if isinstance(text, str) else text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, source) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError("not readable as UTF-8 text", where=source, received=str(error).splitlines()[0]) from None
    document = Document({}, source)
    if node is None:
        raise RecipeError("the recipe is empty", where=source, fix="See a shipped one with: unilayers show digits-cnn")
    document.value = _Builder(document).value(node, ())
    if not isinstance(document.value, dict):
        raise Cursor(document).error(
            "not a recipe", expected="a mapping: name, data, model...", received=shown(document.value)
        )
    return document


def read_value(text: str, source: str) -> Any:
    """The value in a line of YAML, such as the right side of an override.

    Raises:
        RecipeError: for text that is not YAML, at ``source``.

    Example:
        >>> read_value("[1e-3, {a: no}]", "here")
        [0.001, {'a': 'no'}]
    """
    try:
        return parse(f"value: {text}", source).value["value"]
    except RecipeError as error:
        error.where = source  # line and column of a single line say nothing
        raise


class _Builder:
    """Turns composed nodes into values and writes down where they stand."""

    def __init__(self, document: Document) -> None:
        self.document, self.count = document, 0
        self.open: list[Any] = []  # the nodes around the present one: an alias to one of them has no end

    def value(self, node: Any, path: Path) -> Any:
        import yaml

        self.document.marks[path] = self._place(node)
        self.count += 1
        if self.count > MAX_VALUES or any(n is node for n in self.open):
            raise self._error(node, path, "aliases that stand for too much", fix="Write the values out")
        self.open.append(node)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
            raise self._error(node, path, "a tag that recipes do not have", received=node.tag)
        if isinstance(node, yaml.MappingNode):
            found: Any = self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            found = [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        else:
            found = self._scalar(node, path)
        self.open.pop()
        return found

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str) or key_node.tag != _TAG + "str":
                raise self._error(
                    key_node, path, "a key that is not a name", received=f"{key!r}" if isinstance(key, str) else ""
                )
            if key in found:
                first = self.document.key_marks[(*path, key)].removeprefix(f"{self.document.source}:").partition(":")[0]
                raise self._error(
                    key_node, (*path, key), f"the key {key!r} stands twice", received=f"first in line {first}"
                )
            self.document.key_marks[(*path, key)] = self._place(key_node)
            found[key] = self.value(value_node, (*path, key))
        return found

    def _scalar(self, node: Any, path: Path) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind not in _SCALARS:
            raise self._error(node, path, "a tag that recipes do not have", received=node.tag)
        try:
            return _SCALARS[kind](node.value)
        except (ValueError, KeyError):  # an explicit tag on something else: !!int abc
            raise self._error(node, path, f"not of kind {kind}", received=repr(node.value)) from None

    def _place(self, node: Any) -> str:
        return f"{self.document.source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _error(self, node: Any, path: Path, problem: str, **parts: str) -> RecipeError:
        where = ": ".join(filter(None, (self._place(node), dotted(path))))
        return RecipeError(problem, where=where, **parts)


_TAG = "tag:yaml.org,2002:"
# The core schema of YAML 1.2: how plain scalars are read, with the characters they can start with ("": nothing there).
RESOLVERS: Mapping[str, tuple[str, list[str]]] = {
    "null": (r"~|null|Null|NULL|", [*"~nN", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
}
_SCALARS: Mapping[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": lambda text: int(text, 0) if text[:2] in ("0o", "0x") else int(text),
    "float": lambda text: float(text.replace(".", "", 1) if text[-1:].isalpha() else text),  # .inf, .nan
    "str": str,
}


def add_resolvers(cls: Any) -> None:
    """Make a loader or dumper class of PyYAML read or quote plain scalars as recipes do."""
    for kind, (pattern, starts) in RESOLVERS.items():
        cls.add_implicit_resolver(_TAG + kind, re.compile(f"^(?:{pattern})$"), starts)


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    add_resolvers(Loader)
    return Loader


def _syntax_error(error: Any, source: str) -> RecipeError:
    mark = error.problem_mark or error.context_mark
    where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
    problem = str(error.problem or error)
    if "'\\t'" in problem:
        return RecipeError("a tab where YAML wants spaces", where=where, fix="Indent with spaces")
    if "single document" in str(error.context):
        return RecipeError("more than one document", where=where, fix="Keep what is above the line '---'")
    context = f" ({error.context})" if error.context else ""
    return RecipeError(f"not valid YAML: {problem}{context}", where=where)


# ---- writing --------------------------------------------------------------------------------------------------------


def to_yaml(value: Any) -> str:
    """YAML that `parse` reads back to the same value; the innermost mappings and lists stand on one line."""
    import yaml

    return yaml.dump(value, Dumper=_dumper(), sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)


@cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what either version of YAML would take for something else than a string."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar(_TAG + "str", value, style="|" if "\n" in value else None)

    add_resolvers(Dumper)
    Dumper.add_representer(str, text)
    return Dumper


# ---- overrides ------------------------------------------------------------------------------------------------------

Step = str | int
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?\d+)\]")


def override(document: Document, text: str) -> None:
    """Set one value by ``path=value``: ``optimizer.Adam.learning_rate=0.01``, ``model[3].Dropout.rate=0.5``.

    The value is YAML. A step that names a class may turn a plain name into a mapping (``optimizer: adam`` takes
    ``optimizer.Adam.learning_rate``); whether the names exist is for the checks to say.

    Raises:
        RecipeError: for a path that leads nowhere.
    """
    source = f"--set {text}"
    path_text, equals, value_text = text.partition("=")
    steps = _steps(path_text.strip())
    if not equals or steps is None:
        expected = "path=value, as in optimizer.Adam.learning_rate=0.01 or model[3].Dropout.rate=0.5"
        raise RecipeError("not an override", where=source, expected=expected)
    value, path = read_value(value_text, source), _descend(document, steps, source)
    parent = _container(document.value, path[:-1])
    parent[path[-1]] = value
    for marks in (document.marks, document.key_marks):
        for old in [p for p in marks if p[: len(path)] == path]:
            del marks[old]
    for end in range(1, len(path) + 1):
        if path[:end] not in document.marks or end == len(path):
            document.marks[path[:end]] = document.key_marks[path[:end]] = source


def _steps(text: str) -> list[Step] | None:
    """The steps of a path, or None if it is none."""
    found: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None or (position == 0 and text[0] in ".["):
            return None
        name, index = match.groups()
        found.append(int(index) if index is not None else name)
        position = match.end()
    return found or None


def _descend(document: Document, steps: Sequence[Step], source: str) -> Path:
    """The path of real keys and indices that the steps stand for; mappings are made where there are none yet."""
    path: Path = ()
    value = document.value
    for i, step in enumerate(steps):
        if isinstance(value, list):
            path = (*path, _index(value, step, path, source))
        elif isinstance(value, dict):
            path = (*path, _key(value, step, path, source))
        else:
            fix = f"To replace it: --set '{dotted(path)}={{{step}: {{...}}}}'" if isinstance(value, str) else ""
            raise RecipeError("leads nowhere", where=f"{source}: {dotted(path)}", received=shown(value), fix=fix)
        if i + 1 < len(steps):
            value = _opened(document, path, steps[i + 1])
    return path


def _index(value: list[Any], step: Step, path: Path, source: str) -> int:
    try:
        index = int(step)
    except ValueError:
        fix = f"As in {dotted(path)}[0]"
        raise RecipeError(
            "a list has no names", where=f"{source}: {dotted(path)}", expected="an index", received=repr(step), fix=fix
        ) from None
    if not -len(value) <= index < len(value):
        raise RecipeError(
            "no such item",
            where=f"{source}: {dotted(path)}",
            expected=f"an index from 0 to {len(value) - 1}",
            received=str(index),
        )
    return index % len(value)


def _key(value: dict[str, Any], step: Step, path: Path, source: str) -> str:
    if isinstance(step, int):
        raise RecipeError("not a list", where=f"{source}: {dotted(path)}", received=shown(value))
    return step if step in value else next((key for key in value if same_name(key, step)), step)


def _opened(document: Document, path: Path, step: Step) -> Any:
    """The value at ``path`` as something that ``step`` can go into: a class's name or nothing becomes a mapping."""
    parent = _container(document.value, path[:-1])
    value = parent.get(path[-1]) if isinstance(parent, dict) else parent[path[-1]]
    if value is None and isinstance(step, str):
        value = parent[path[-1]] = {}
    elif isinstance(value, str) and isinstance(step, str) and same_name(value, step):
        value = parent[path[-1]] = {value: None}
    return value


def _container(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def same_name(a: str, b: str) -> bool:
    """Whether two spellings are one name to the registries: ``glorot_uniform`` and ``GlorotUniform``."""
    return a == b or (a.replace("_", "").lower() == b.replace("_", "").lower() and ":" not in a + b)


__all__ = ["Cursor", "Document", "dotted", "override", "parse", "read_value", "same_name", "shown", "to_yaml"]
