"""Models as descriptions: copies of an architecture, and its text."""

from __future__ import annotations

import json
from typing import Any

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


def model_from_json(text: str) -> Any:
    """The model whose architecture ``Model.to_json`` wrote.

    Args:
        text: The description.

    Raises:
        UnilayersError: if it is none.
    """
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise UnilayersError("not a description of a model", expected="JSON", received=str(error)) from None
    model = resolve(Layer.registry, config)
    if not isinstance(model, Model):
        raise UnilayersError("not a description of a model", received=repr(model))
    return model


def save_model(model: Model, filepath: Any) -> None:
    """``model.save(filepath)``, as a function."""
    model.save(filepath)


def load_model(filepath: Any, **kwargs: Any) -> Any:
    """The model that ``save`` wrote; see `unilayers.load_model`."""
    from unilayers import saving  # it knows models

    return saving.load_model(filepath, **kwargs)
