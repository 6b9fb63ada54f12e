"""Texts as a model's inputs: the layers that read them work on the host, before the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from unilayers.graph import Value
from unilayers.layers.preprocessing.encoding import is_text, texts_of
from unilayers.spec import TEXT


class Ready(tuple[Any, ...]):
    """A model's inputs after the layers that read texts: what its graph begins with."""


def reads_text(values: list[Any]) -> bool:
    """Whether symbolic values have texts among them."""
    return any(isinstance(v, Value) and v.dtype == TEXT for v in values)


def as_texts(x: Any, declared: Value) -> Any:
    """Texts as an array with the axes that the input has; anything else as it is.

    Args:
        x: Data for one input.
        declared: The input.
    """
    if not is_text(x):
        return x
    texts = texts_of(x)
    return texts[:, np.newaxis] if texts.ndim == 1 and declared.ndim == 2 else texts
