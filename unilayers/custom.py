"""Classes and functions of one's own, by the names that files know them by.

A class of a family (layer, loss, metric...) is known as soon as it is defined; this is for functions, for other names
and for scripts that say so in Keras's way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_REGISTERED: dict[str, Any] = {}
_SCOPE: ContextVar[Mapping[str, Any]] = ContextVar("custom_objects", default={})  # noqa: B039  (never written to)


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[T], T]:
    """A decorator that makes a class or function known as ``package>name``.

    Args:
        package: First part of the name.
        name: Second part; that of the class or function if None.

    Example:
        >>> @register_keras_serializable(package="physics")
        ... def energy(x):
        ...     return x * x
        >>> get_registered_name(energy), get_registered_object("physics>energy") is energy
        ('physics>energy', True)
    """

    def register(thing: T) -> T:
        _REGISTERED[f"{package}>{name or thing.__name__}"] = thing  # type: ignore[attr-defined]
        return thing

    return register


def get_custom_objects() -> dict[str, Any]:
    """All that is known for good, by name: a dict that may be changed."""
    return _REGISTERED


@contextmanager
def custom_object_scope(custom_objects: Mapping[str, Any] | None) -> Iterator[None]:
    """Further names inside a ``with`` block, which come before the known ones.

    Args:
        custom_objects: Classes and functions by name.

    Example:
        >>> from unilayers import activations
        >>> with custom_object_scope({"twice": lambda x: 2 * x}):
        ...     activations.get("twice")(4)
        8
    """
    token = _SCOPE.set({**_SCOPE.get(), **(custom_objects or {})})
    try:
        yield
    finally:
        _SCOPE.reset(token)


CustomObjectScope = custom_object_scope


def get_registered_name(obj: Any) -> str:
    """The name under which a class or function was registered, else its own."""
    return next((name for name, thing in _REGISTERED.items() if thing is obj), obj.__name__)


def get_registered_object(
    name: str, custom_objects: Mapping[str, Any] | None = None, module_objects: Mapping[str, Any] | None = None
) -> Any:
    """The class or function of that name, or None.

    Args:
        name: ``package>name``, or a name given in ``custom_objects`` or a scope.
        custom_objects: Looked in first after the scope.
        module_objects: Looked in last.
    """
    for known in (_SCOPE.get(), custom_objects or {}, _REGISTERED, module_objects or {}):
        if name in known:
            return known[name]
    return None


def custom_object(name: Any) -> Any:
    """What a config's name stands for by registration or scope, or None; ``module:name`` is also found as ``name``."""
    if not isinstance(name, str) or not (_REGISTERED or _SCOPE.get()):
        return None
    found = get_registered_object(name)
    if found is None and (":" in name or ">" in name):
        found = get_registered_object(re.split("[:>.]", name)[-1])
        if found is None:
            found = next((x for x in _REGISTERED.values() if _is_called(x, name)), None)
    return found


def with_own_functions(config: Any) -> Any:
    """A config with the function for every ``module:function`` in it that names one of one's own."""
    if isinstance(config, Mapping):
        return {key: with_own_functions(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [with_own_functions(value) for value in config]
    found = custom_object(config) if isinstance(config, str) and ":" in config else None
    return config if found is None or isinstance(found, type) else found


def _is_called(thing: Any, full_name: str) -> bool:
    return f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}" == full_name
