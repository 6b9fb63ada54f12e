"""A recipe's values against the fields of the classes they configure; what passes is written out with every default."""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from unilayers.errors import RecipeError, UnilayersError, nearest
from unilayers.hints import check_value, describe, fits
from unilayers.recipe.document import Cursor, dotted, shown
from unilayers.registry import Registry, defaults_of, hints_of, parameters, plain

Check = Callable[[Cursor], Any]
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # my_module:MyLayer
WORDS = {"yes": True, "no": False, "on": True, "off": False}  # truth values in YAML 1.1, words in 1.2
OPEN = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Checker:
    """Checks values and writes them out in full.

    Args:
        allow_imports: Whether a class may be imported by its path ``module:Class``, which runs that module.
        folders: Where modules are looked for first.
    """

    allow_imports: bool = False
    folders: tuple[Path, ...] = ()

    # ---- classes

    def config(self, registry: Registry, at: Cursor, special: Mapping[str, Check] | None = None) -> dict[str, Any]:
        """What a name or ``{name: arguments}`` at ``at`` configures, as ``{name: all arguments}``.

        Args:
            registry: The family.
            at: The place.
            special: Checks of further keys beside the class's own arguments.
        """
        cls, given = self._class(registry, at)
        arguments = self.arguments(cls, at, given, special or {})
        own = {name: value for name, value in arguments.items() if name not in (special or {})}
        with explained(at if given is None else given, own):
            create(cls, own)
        return {recipe_name(registry, cls): arguments}

    def _class(self, registry: Registry, at: Cursor) -> tuple[type, Cursor | None]:
        """The class that is named, and where its arguments stand, if there are any."""
        value = at.value
        if isinstance(value, str):
            return self.named(registry, at), None
        expected = f"a name or {{name: arguments}} of {_article(registry.family)}"
        if not isinstance(value, Mapping):
            raise at.error(f"not {_article(registry.family)}", expected=expected, received=shown(value))
        if len(value) != 1:
            received, fix = f"the keys {', '.join(value) or '(none)'}", ""
            if {"name", "inputs"} & set(value):
                fix = "Write name and inputs among the arguments: {Dense: {units: 10, name: head, inputs: body}}"
            elif value and all(name in registry for name in value):
                fix = f"Keep one; to replace it: --set '{dotted(at.path)}={{{list(value)[-1]}: {{...}}}}'"
            place = list(at.children())[-1] if value else at
            raise place.error(
                f"names no single {registry.family}", key=True, expected=expected, received=received, fix=fix
            )
        given = at.child(next(iter(value)))
        cls = self.named(registry, given, str(given.path[-1]))
        if given.value is not None and not isinstance(given.value, Mapping):
            raise given.error("arguments without names", expected="{argument: value}", received=shown(given.value))
        return cls, given

    def named(self, registry: Registry, at: Cursor, name: str | None = None) -> type:
        """The class called ``name``, or as the value at ``at`` says; imported if that is allowed."""
        key = name is not None
        name = at.value if name is None else name
        if not isinstance(name, str):
            raise at.error(f"not a name of {_article(registry.family)}", received=shown(name))
        if name not in registry and IMPORT_PATH.fullmatch(name):
            self._import(name, registry, partial(at.error, key=key))
        if name not in registry:
            raise at.error(f"unknown {registry.family} {name!r}", key=key, fix=nearest(name, registry.names()))
        return registry.get(name)

    def _import(self, name: str, registry: Registry, refuse: Callable[..., RecipeError]) -> None:
        if not self.allow_imports:
            fix = "Importing runs that module's code: say --allow-imports (allow_imports=True) if you trust it"
            raise refuse(f"{registry.family} {name!r} is not part of unilayers", fix=fix)
        try:
            with importable(self.folders):
                importlib.import_module(name.partition(":")[0])
        except ImportError as error:
            fix = f"Looked in {', '.join(map(str, self.folders))} and in Python's path" if self.folders else ""
            raise refuse(f"cannot import {name!r}: {error}", fix=fix) from error
        if name not in registry:
            problem = f"the module has no {registry.family} {name.partition(':')[2]!r}"
            raise refuse(problem, expected=f"a subclass of {registry.base.__name__}")

    # ---- arguments

    def arguments(
        self,
        cls: type,
        at: Cursor,
        given: Cursor | None,
        special: Mapping[str, Check] | None = None,
        ignore: Collection[str] = (),
    ) -> dict[str, Any]:
        """All arguments of a class, in its order: those that are given, checked, and the defaults of the others.

        Args:
            cls: The class.
            at: The place to name where an argument is missing.
            given: The mapping of arguments, if there is one.
            special: Checks that take the place of the field's own, and checks of keys that are no fields.
            ignore: Keys that somebody else checks.
        """
        accepted, hints, special = parameters(cls), hints_of(cls), special or {}
        known = [n for n, p in accepted.items() if p.kind not in OPEN] + [n for n in special if n not in accepted]
        children = {c.path[-1]: c for c in given.children() if c.path[-1] not in ignore} if _mapping(given) else {}
        further = [c for name, c in children.items() if name not in known]
        if further and all(p.kind is not Parameter.VAR_KEYWORD for p in accepted.values()):
            name = str(further[0].path[-1])
            raise further[0].error(f"unknown key {name!r}", key=True, fix=nearest(name, [*known, *ignore]))
        usual = self.defaults(cls)
        found: dict[str, Any] = {}
        for name in known:
            if name in children:
                check = special.get(name) or partial(self.value, hints.get(name, Any))
                found[name] = check(children[name])
            elif name in usual:
                found[name] = usual[name]
            elif name in accepted:
                place = given if _mapping(given) else at
                raise place.error(f"missing key {name!r}", key=True)
        return found | {str(c.path[-1]): c.value for c in further}

    def value(self, hint: Any, at: Cursor) -> Any:
        """The value at ``at``, checked against an annotation; what names an object of a family is written out."""
        value = at.value
        for registry in families_in(hint):
            if isinstance(value, (str, Mapping)):
                return self.config(registry, at)
        item = _item_hint(hint)
        if isinstance(value, list) and item is not None and any(families_in(item)):
            return [self.value(item, child) for child in at.children()]
        if isinstance(value, str) and value.lower() in WORDS and fits(True, hint) and not fits(value, hint):
            fix = f"Write {str(WORDS[value.lower()]).lower()}"
            raise at.error("a value that does not fit", expected=describe(hint), received=shown(value), fix=fix)
        with explained(at, ()):
            check_value(value, hint, "")
        return value

    def defaults(self, cls: type) -> dict[str, Any]:
        """The defaults of a class's arguments, with the defaults of the classes they name."""
        hints = hints_of(cls)
        return {name: self._default(hints.get(name, Any), plain(value)) for name, value in defaults_of(cls).items()}

    def _default(self, hint: Any, value: Any) -> Any:
        for registry in families_in(hint):
            if isinstance(value, str):
                cls = registry.get(value)
                return {recipe_name(registry, cls): self.defaults(cls)}
        return value


def families_in(hint: Any) -> Iterator[Registry]:
    """The families whose objects an annotation takes, directly or as one option of a union."""
    origin = get_origin(hint)
    if origin is Annotated or origin in (Union, types.UnionType):
        for option in get_args(hint)[: 1 if origin is Annotated else None]:
            yield from families_in(option)
    elif isinstance(hint, type) and hasattr(hint, "registry"):
        yield hint.registry


def _item_hint(hint: Any) -> Any:
    """The annotation of the items of a sequence, or None."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return next(filter(None, map(_item_hint, arguments)), None)
    return arguments[0] if origin in (list, tuple, Sequence) and arguments else None


def _mapping(at: Cursor | None) -> TypeGuard[Cursor]:
    return at is not None and isinstance(at.value, Mapping)


@contextmanager
def explained(at: Cursor, arguments: Collection[str]) -> Iterator[None]:
    """Errors raised inside name the recipe's place: that of the argument, if the error says which."""
    try:
        yield
    except UnilayersError as error:
        name = error.where.partition(" > ")[0].rpartition(".")[2]
        place = at.child(name) if name in arguments and _mapping(at) and name in at.value else at
        raise place.error(error.problem, expected=error.expected, received=error.received, fix=error.fix) from error


def create(cls: type[Any], arguments: Mapping[str, Any]) -> Any:
    """The object with these arguments."""
    return cls.from_config(arguments) if hasattr(cls, "from_config") else cls(**arguments)


@contextmanager
def importable(folders: Sequence[Path]) -> Iterator[None]:
    """Modules in these folders can be imported inside the block."""
    added = [str(f) for f in folders if str(f) not in sys.path]
    sys.path[:0] = added
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def recipe_name(registry: Registry, cls: type) -> str:
    """The name that a resolved recipe uses for a class: it must lead back to it in a new process too."""
    if cls.__module__.partition(".")[0] != "unilayers":
        return f"{cls.__module__}:{cls.__qualname__}"
    short = cls.__name__.removesuffix("Layer")  # InputLayer is Input
    return short if short in registry and registry.get(short) is cls else cls.__name__


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
