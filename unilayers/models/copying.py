"""Models as descriptions: copies of an architecture, and its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unilayers.custom import custom_object_scope
from unilayers.errors import UnilayersError
from unilayers.layers.base import Layer
from unilayers.models.model import Model
from unilayers.registry import resolve, serialize


def clone_model(model: Model) -> Any:
    """A new model with the same architecture and weights of its own, drawn anew; not compiled.

    Args:
        model: The model, of built-in layers or layers with a config.

    Example:
        >>> from unilayers import Input, Sequential, layers
        >>> model = Sequential([Input((4,)), layers.Dense(2)])
        >>> [layer.name for layer in clone_model(model).layers]
        ['dense']
    """
    return resolve(Layer.registry, serialize(model))


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model whose architecture ``Model.to_json`` wrote.

    Args:
        json_string: The description.
        custom_objects: Classes and functions by name that come before the known ones.

    Raises:
        UnilayersError: if it is none.
    """
    try:
        config = json.loads(json_string)
    except json.JSONDecodeError as error:
        raise UnilayersError("not a description of a model", expected="JSON", received=str(error)) from None
    with custom_object_scope(custom_objects):
        model = resolve(Layer.registry, config)
    if not isinstance(model, Model):
        raise UnilayersError("not a description of a model", received=repr(model))
    return model


def save_model(model: Model, filepath: Any, overwrite: bool = True, zipped: bool | None = None) -> None:
    """``model.save(filepath, overwrite)``, as a function."""
    model.save(filepath, overwrite, zipped)


def load_model(
    filepath: Any,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
    *,
    allow_imports: bool = False,
) -> Any:
    """The model that ``save`` wrote; see `unilayers.load_model`."""
    from unilayers import saving  # it knows models

    return saving.load_model(filepath, custom_objects, compile, safe_mode, allow_imports=allow_imports)
