"""Objects as plain data that name their class, and back: ``serialize_keras_object`` and its reverse."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from unilayers.custom import custom_object, custom_object_scope, get_registered_name
from unilayers.errors import UnilayersError
from unilayers.registry import Configurable, Registry, parameters

HOMES = ("layers", "models", "losses", "metrics", "optimizers", "initializers", "regularizers", "constraints")


def serialize_keras_object(obj: Any) -> Any:
    """An object as plain data (JSON) from which `deserialize_keras_object` makes it again.

    Args:
        obj: A layer, model, loss, metric, optimizer...; a function with a name; an array; or plain data, which stays
            as it is, in lists, tuples and dicts too.

    Raises:
        UnilayersError: for a lambda, and for anything else.

    Example:
        >>> from unilayers import layers
        >>> serialize_keras_object(layers.Flatten(name="flat"))["class_name"]
        'Flatten'
        >>> deserialize_keras_object(serialize_keras_object((1, np.arange(2))))
        (1, array([0, 1]))
    """
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    if isinstance(obj, Mapping):
        return {str(name): serialize_keras_object(value) for name, value in obj.items()}
    if isinstance(obj, list):
        return [serialize_keras_object(value) for value in obj]
    if isinstance(obj, tuple):
        return {"class_name": "__tuple__", "config": {"value": [serialize_keras_object(value) for value in obj]}}
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, np.ndarray):
        return {"class_name": "__numpy__", "config": {"value": obj.tolist(), "dtype": str(obj.dtype)}}
    name = getattr(obj, "__name__", "")
    if callable(obj) and name and not isinstance(obj, type) and "<" not in name:
        return _named(obj, "function", name)
    if hasattr(obj, "get_config") and not isinstance(obj, type):
        known = obj.registry.name_of(type(obj)) if isinstance(obj, Configurable) else type(obj).__name__
        return _named(type(obj), known, obj.get_config())
    fix = "Define the function with def" if name == "<lambda>" else "Give its class a get_config"
    raise UnilayersError("cannot be written as plain data", received=f"{obj!r} ({type(obj).__name__})", fix=fix)


def deserialize_keras_object(
    config: Any, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True, **kwargs: Any
) -> Any:
    """The object of which `serialize_keras_object` made a description; also reads Keras's own of built-in classes.

    Args:
        config: The description.
        custom_objects: Classes and functions by name that come before the known ones.
        safe_mode: Taken for the sake of scripts: a description is never run as code.
        **kwargs: Likewise.

    Raises:
        UnilayersError: for a class or function that is not known.

    Example:
        >>> keras_wrote = {"module": "keras.losses", "class_name": "Huber", "config": {"delta": 0.5}}
        >>> deserialize_keras_object(keras_wrote)
        Huber(delta=0.5)
    """
    with custom_object_scope(custom_objects):
        return _made(_without_policies(config))


def _named(thing: Any, class_name: str, config: Any) -> dict[str, Any]:
    return {
        "module": thing.__module__,
        "class_name": class_name,
        "config": config,
        "registered_name": get_registered_name(thing),
    }


def _made(config: Any) -> Any:
    if isinstance(config, list):
        return [_made(part) for part in config]
    if not isinstance(config, Mapping):
        return config
    if "class_name" not in config:
        return {name: _made(value) for name, value in config.items()}
    name, inner = config["class_name"], config.get("config") or {}
    if name == "__tuple__":
        return tuple(_made(part) for part in inner["value"])
    if name == "__numpy__":
        return np.array(inner["value"], inner["dtype"])
    registered, home = config.get("registered_name"), str(config.get("module") or "")
    if name == "function":
        own = custom_object(registered) or custom_object(inner)
        return own if own is not None else _function(str(inner), home)
    own = custom_object(registered) or custom_object(name)
    if own is not None:
        return own.from_config(inner) if hasattr(own, "from_config") else own(**inner)
    cls = _class(name, home)
    known = parameters(cls)
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        # An option that only Keras has does no harm where it is off.
        inner = {name: value for name, value in inner.items() if name in known or value not in (None, False)}
    return cls.from_config(inner)


def _without_policies(config: Any) -> Any:
    """Keras's descriptions of dtype policies become their names."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy":
            return config["config"]["name"]
        return {key: _without_policies(value) for key, value in config.items()}
    return [_without_policies(value) for value in config] if isinstance(config, list) else config


def _class(name: str, home: str) -> Any:
    """The class of that name, of the family that its module tells if several have it."""
    for module in HOMES:
        import_module(f"unilayers.{module}")
    families: list[Registry] = [c.registry for c in Configurable.__subclasses__() if "registry" in vars(c)]
    holding = [registry for registry in families if name in registry]
    told = [r for r in holding if home.split(".")[1:2] == r.base.__module__.split(".")[1:2]]
    if len(told or holding) != 1:
        among = ", ".join(r.family for r in told or holding)
        problem = f"{name!r} is the name of several classes" if among else f"unknown class {name!r}"
        fix = "Add its 'module'" if among else "Pass it in custom_objects, or define it before"
        raise UnilayersError(problem, where="deserialize_keras_object", received=among, fix=fix)
    return (told or holding)[0].get(name)


def _function(name: str, home: str) -> Any:
    package, _, rest = home.partition(".")
    part = rest.removeprefix("src.").split(".")[0]
    if package in ("keras", __package__) and part in (*HOMES, "activations"):
        found = getattr(import_module(f"unilayers.{part}"), name, None)
        if callable(found):
            return found
    raise UnilayersError(
        f"unknown function {name!r}", where="deserialize_keras_object", fix="Pass it in custom_objects"
    )
