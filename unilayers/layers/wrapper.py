"""Layers around another layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from unilayers.errors import UnilayersError
from unilayers.layers.base import Layer
from unilayers.registry import resolve

LayerLike: TypeAlias = Layer | str | Mapping[str, Any]


class Wrapper(Layer, abstract=True):
    """Base of layers that change what another layer does; subclass it and write ``call``.

    Args:
        layer: The layer: an object, a name, or ``{name: arguments}``.

    Example:
        >>> import numpy as np
        >>> class Twice(Wrapper):
        ...     def call(self, x):
        ...         return self.layer(self.layer(x))
        >>> Twice({"Rescaling": {"scale": 3.0}})(np.ones(1, "float32"))
        array([9.], dtype=float32)
    """

    layer: LayerLike

    def __post_init__(self) -> None:
        where = f"{type(self).__name__}.layer"
        self.layer = resolve(Layer.registry, self.layer, where=where)
        if self.layer is None:
            raise UnilayersError("needs a layer", where=where)

    def build(self, input_shape: Any) -> None:
        self.layer.compute_output_shape(input_shape)  # type: ignore[union-attr]
