"""Families of classes that declare their hyperparameters once: initializers, layers, losses, metrics, optimizers...

A family is one base class, a subclass of `Configurable` made with ``family="..."``. Each class of the family declares
its hyperparameters as annotated fields and nothing else; from the fields follow its ``__init__``, the checks of the
values, ``get_config``/``from_config``, ``repr``, equality (immutable families) and the recipe's schema, and the class
is found by name:

>>> from unilayers.hints import NonNegativeFloat
>>> class Regularizer(Configurable, family="regularizer", immutable=True):
...     "Penalty on a weight."
>>> class L2(Regularizer, aliases=("ridge",)):
...     "The sum of squares times l2."
...     l2: NonNegativeFloat = 0.01
>>> def get(identifier):
...     return resolve(Regularizer.registry, identifier)
>>> get("l2") == get("ridge") == get(L2) == get(L2(0.01)) == get({"class_name": "L2", "config": {"l2": 0.01}})
True
>>> get({"L2": {"l2": 0.1}}), L2(0.1).get_config()
(L2(l2=0.1), {'l2': 0.1})

A family whose objects change (layers, optimizers) leaves out ``immutable``:

    class Layer(Configurable, family="layer"):
        _: KW_ONLY
        name: str | None = None

    class Dense(Layer):
        units: PositiveInt
        _: KW_ONLY
        regularizer: Regularizer | str | Mapping | None = None      # kept as given: resolve it where it is used

    Dense(0)    # Dense.units: a value that does not fit. Expected an int at least 1. Received 0 (int).

Rules worth knowing:

- Fields that a family's base declares for all (a layer's ``name``) stand after ``_: KW_ONLY``, so that a subclass may
  still declare fields without a default.
- Work that must follow the fields goes in ``__post_init__``. Immutable families cannot assign there.
- A class may write its own ``__init__`` the Keras way. It, and all below it, are then left alone: their config is the
  arguments the constructor was called with. A hand-written ``get_config`` always wins.
- ``abstract=True``, or a name with a leading underscore, keeps a class out of the registry.
- A class from outside the package never takes a built-in's name: it is then found as ``"module:Class"``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from os import PathLike, fspath
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import numpy as np

from .custom import custom_object, with_own_functions
from .errors import UnilayersError, nearest
from .hints import check_value

T = TypeVar("T", bound="Configurable")


def snake_case(name: str) -> str:
    """The snake_case form of a CamelCase name, as Keras names its objects.

    Example:
        >>> [snake_case(name) for name in ("Conv2D", "LayerNormalization", "ReLU")]
        ['conv2d', 'layer_normalization', 're_lu']
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


class Registry:
    """The classes of one family by name; ``"glorot_uniform"``, ``"GlorotUniform"`` and ``"glorotuniform"`` are one.

    Args:
        family: What a member is called in messages: ``"initializer"``.
    """

    def __init__(self, family: str) -> None:
        self.family = family
        self.base: type = object
        self._by_key: dict[str, type] = {}
        self._names: dict[str, str] = {}  # key -> the name as it was declared

    def register(self, cls: type, *names: str) -> None:
        """Make ``cls`` known by its own name, its full name ``module:Class`` and ``names``.

        Raises:
            UnilayersError: if a built-in class would take the name of another built-in.
        """
        for name in (_full_name(cls), cls.__name__, *names):
            other = self._by_key.get(_key(name))
            if other is not None and _full_name(other) != _full_name(cls) and _is_builtin(other):
                if not _is_builtin(cls):
                    continue
                raise UnilayersError(f"{self.family} {name!r} is defined twice", where=_full_name(cls))
            self._by_key[_key(name)] = cls
            self._names[_key(name)] = name

    def get(self, name: str, *, where: str = "") -> type[Any]:
        """The class of that name.

        Raises:
            UnilayersError: if there is none; says the nearest name.
        """
        if _key(name) not in self._by_key:
            own = "Pass it in custom_objects, or import the module that defines it"
            fix = own if ":" in name else nearest(name, self.names())
            raise UnilayersError(f"unknown {self.family} {name!r}", where=where, fix=fix)
        return self._by_key[_key(name)]

    def names(self) -> list[str]:
        """Every name and alias, as declared, sorted; full names are left out."""
        return sorted(name for name in self._names.values() if ":" not in name)

    def name_of(self, cls: type) -> str:
        """The shortest name that leads back to ``cls``: its own, or ``module:Class`` when that is another's."""
        return cls.__name__ if self._by_key.get(_key(cls.__name__)) is cls else _full_name(cls)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _key(name) in self._by_key

    def __iter__(self) -> Iterator[type[Any]]:
        """The classes, each once, in the order of their definition."""
        return iter(dict.fromkeys(self._by_key.values()))

    def __len__(self) -> int:
        return len(set(self._by_key.values()))

    def __repr__(self) -> str:
        return f"Registry({self.family!r}, {len(self)} classes)"


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class Configurable:
    """Base of all families; the module's docstring says how to use it.

    Class arguments:
        family: Starts a family with this name and a registry of its own; the class itself is not registered.
        immutable: Instances are frozen dataclasses and compare by value; for the whole family, given with ``family``.
            (Type checkers want a word named ``frozen`` repeated by every subclass.)
        aliases: Further names of the class.
        abstract: Do not register this class.
    """

    registry: ClassVar[Registry]
    _immutable: ClassVar[bool] = False

    def __init_subclass__(
        cls, *, family: str = "", immutable: bool = False, aliases: tuple[str, ...] = (), abstract: bool = False
    ) -> None:
        super().__init_subclass__()
        if family:
            cls._immutable = immutable
            cls.registry = Registry(family)
            cls.registry.base = cls
        if not _hand_written_init(cls):
            dataclass(frozen=cls._immutable, eq=False, repr=False)(cls)
        # __new__ takes any arguments; what help() and inspect.signature should show is __init__.
        cls.__signature__ = inspect.Signature(list(parameters(cls).values()))  # type: ignore[attr-defined, arg-type]
        if not (family or abstract or cls.__name__.startswith("_")):
            cls.registry.register(cls, *aliases)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        try:
            given = cls.__signature__.bind(*args, **kwargs)  # type: ignore[attr-defined]
        except TypeError:  # __init__ says it better; and copy and pickle call __new__ without arguments
            return self
        hints = hints_of(cls)  # type: ignore[arg-type]
        for name, value in given.arguments.items():
            check_value(value, hints.get(name, Any), f"{cls.__name__}.{name}")
        if _hand_written_init(cls):
            object.__setattr__(self, "_constructor_call", given)
        return self

    def get_config(self) -> dict[str, Any]:
        """The arguments as plain data (JSON, YAML); an object among them is ``{class name: its config}``."""
        where = type(self).__name__
        return {name: plain(value, f"{where}.{name}") for name, value in arguments_of(self).items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The object with that config.

        Raises:
            UnilayersError: for an argument that the class does not have, lacks, or cannot take.
        """
        accepted = parameters(cls)  # type: ignore[arg-type]
        open_ended = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        for name in config:
            if name not in accepted and not open_ended:
                raise UnilayersError(f"unknown argument {name!r}", where=cls.__name__, fix=nearest(name, accepted))
        missing = [
            n for n, p in accepted.items() if p.default is p.empty and n not in config and p.kind not in _VARIADIC
        ]
        if missing:
            raise UnilayersError(f"missing argument {', '.join(map(repr, missing))}", where=cls.__name__)
        try:
            return cls(**config)
        except TypeError as error:
            if not open_ended:
                raise
            raise UnilayersError(str(error), where=cls.__name__) from error  # a name that **kwargs handed on

    def __repr__(self) -> str:
        usual = self._usual()
        shown = [f"{n}={v!r}" for n, v in arguments_of(self).items() if not any(_same(v, d) for d in usual.get(n, ()))]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _usual(self) -> dict[str, list[Any]]:
        """The values of arguments that ``repr`` leaves out."""
        usual = {n: [d] for n, d in defaults_of(type(self)).items()}
        usual.setdefault("name", []).append(snake_case(type(self).__name__))  # what an object without a name is called
        return usual

    def __eq__(self, other: object) -> bool:
        if not self._immutable or type(self) is not type(other):
            return self is other
        mine, theirs = arguments_of(self), arguments_of(other)
        return mine.keys() == theirs.keys() and all(_same(mine[name], theirs[name]) for name in mine)

    def __hash__(self) -> int:
        # Arguments may be lists or arrays, so the values of an immutable object do not enter its hash.
        return hash(type(self)) if self._immutable else object.__hash__(self)


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@cache
def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters by name, ``self`` left out; for declared fields and hand-written ``__init__``."""
    return dict(list(inspect.signature(cls.__init__).parameters.items())[1:])  # type: ignore[misc]


def defaults_of(cls: type) -> dict[str, Any]:
    """The defaults of the constructor's parameters that have one; a ``default_factory`` is called."""
    factories: dict[str, Any] = {} if _hand_written_init(cls) else {f.name: f.default_factory for f in fields(cls)}
    return {
        name: p.default if factories.get(name, MISSING) is MISSING else factories[name]()
        for name, p in parameters(cls).items()
        if p.default is not p.empty
    }


def arguments_of(instance: Configurable) -> dict[str, Any]:
    """The constructor's arguments that make ``instance`` again, as Python values, defaults included.

    Declared fields are read from the object, so a changed ``learning_rate`` shows; one that is shown by a property as
    something else is kept as given in the object's own attributes. A class with a hand-written ``__init__`` is
    remembered by the call that made it.
    """
    own = vars(instance)
    call: inspect.BoundArguments | None = own.get("_constructor_call")
    if call is None:
        return {n: own[n] if n in own else getattr(instance, n) for n in parameters(type(instance))}  # type: ignore[arg-type]
    call.apply_defaults()
    named = dict(call.arguments)
    for name, parameter in call.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(name)
        elif parameter.kind is parameter.VAR_POSITIONAL and named.pop(name):
            raise UnilayersError(
                f"arguments given as *{name} have no name",
                where=type(instance).__name__,
                fix="Write get_config and from_config, or take the arguments by name.",
            )
    return named


@cache
def hints_of(cls: type) -> dict[str, Any]:
    """The constructor's annotations by parameter name, evaluated; ``Any`` where that is not possible."""
    init = cls.__init__  # type: ignore[misc]
    if _hand_written_init(cls):
        scopes = [(inspect.get_annotations(init), getattr(init, "__globals__", {}))]
    else:  # each field in the module that declares it
        scopes = [
            (inspect.get_annotations(c), getattr(sys.modules.get(c.__module__), "__dict__", {}))
            for c in reversed(cls.__mro__)
        ]
    return {
        name: _evaluated(hint, scope)
        for annotations, scope in scopes
        for name, hint in annotations.items()
        if name in parameters(cls) and parameters(cls)[name].kind not in _VARIADIC
    }


def resolve(registry: Registry, identifier: Any, *, where: str = "", wrap: Callable[[Any], Any] | None = None) -> Any:
    """The object that ``identifier`` stands for; every family's ``get`` is one call of this.

    Args:
        registry: The family: ``Initializer.registry``.
        identifier: None (stays None), an object of the family, a class, a name, ``{name: arguments}``,
            ``{"class_name": name, "config": arguments}``, or a callable if ``wrap`` is given.
        where: The place to name in errors: ``"Dense.kernel_initializer"``.
        wrap: Makes an object of the family from a plain callable.

    Raises:
        UnilayersError: for unknown names and arguments, and for anything else.
    """
    if identifier is None or isinstance(identifier, registry.base):
        return identifier
    try:
        if isinstance(identifier, (str, Mapping)):
            name, config = (identifier, {}) if isinstance(identifier, str) else _name_and_config(registry, identifier)
            own = custom_object(name)
            if own is None or isinstance(own, type):
                cls: Any = own or registry.get(name)
                return cls.from_config(with_own_functions(config))
            return resolve(registry, own, where=where, wrap=wrap)
        if isinstance(identifier, type) and issubclass(identifier, registry.base):
            return identifier.from_config({})  # type: ignore[attr-defined]
        if callable(identifier) and wrap is not None:
            return wrap(identifier)
    except UnilayersError as error:
        raise (error.inside(where) if where else error) from None
    raise UnilayersError(
        f"not {_article(registry.family)}",
        where=where,
        expected=f"a name, {{name: arguments}}, or {_article(registry.family)} object",
        received=f"{identifier!r} ({type(identifier).__name__})",
    )


def serialize(instance: Any) -> Any:
    """``{class name: config}``, which `resolve` reads back; None for None, its full name for a function."""
    if not isinstance(instance, Configurable):
        return plain(instance)
    return {instance.registry.name_of(type(instance)): instance.get_config()}


def deserializer(get: Callable[[Any], Any]) -> Callable[..., Any]:
    """A family's ``deserialize``, made of its ``get``."""

    def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """What ``serialize`` gave, as an object again.

        Args:
            config: A name, ``{name: arguments}``, or ``{"class_name": name, "config": arguments}``.
            custom_objects: Classes and functions by name that come before the known ones. A class is known once it is
                defined, so only other names need this.
        """
        name, arguments = config, None
        if isinstance(config, Mapping):
            keras_form = "class_name" in config
            name = config["class_name"] if keras_form else next(iter(config), "")
            arguments = config.get("config") if keras_form else config.get(name)
        own = (custom_objects or {}).get(name) if isinstance(name, str) else None
        if own is None:
            return get(config)
        return own.from_config(arguments or {}) if isinstance(own, type) else own  # type: ignore[attr-defined]

    return deserialize


def plain(value: Any, where: str = "") -> Any:
    """``value`` as JSON and YAML can hold it: tuples and arrays become lists, functions their full name.

    Raises:
        UnilayersError: for a value with no such form.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Configurable):
        return serialize(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item, where) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "__qualname__"):
        return _full_name(value)
    raise UnilayersError(f"a {type(value).__name__} cannot be written into a config", where=where)


# ---- details ----------------------------------------------------------------------------------------------------


def _key(name: object) -> str:
    text = str(name)
    return text if ":" in text else text.replace("_", "").lower()


def _full_name(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _is_builtin(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __package__


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _hand_written_init(cls: type) -> bool:
    """Whether the class or one above it wrote ``__init__``; a generated one would then skip that code."""
    if not issubclass(cls, Configurable):
        return True
    bases = cls.__mro__[: cls.__mro__.index(Configurable)]
    return any("__init__" in vars(c) and "__dataclass_params__" not in vars(c) for c in bases)


def _evaluated(annotation: Any, scope: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, scope)
    except Exception:  # a name imported for type checkers only, or local to a function
        return Any


def _name_and_config(registry: Registry, identifier: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if "class_name" in identifier:
        return identifier["class_name"], identifier.get("config") or {}
    if len(identifier) != 1:
        raise UnilayersError(
            f"a mapping that names no single {registry.family}",
            expected="one entry {name: arguments}",
            received=f"the keys {', '.join(map(str, identifier)) or '(none)'}",
        )
    [(name, config)] = identifier.items()
    if config is not None and not isinstance(config, Mapping):
        raise UnilayersError(
            "arguments without names",
            where=str(name),
            expected="a mapping {argument: value}",
            received=f"{config!r} ({type(config).__name__})",
        )
    return name, config or {}


def _same(a: Any, b: Any) -> bool:
    """Equality of arguments; lists and tuples are one kind, as configs have only lists."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a is b or a == b)
