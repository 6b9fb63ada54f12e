"""A plain stack of layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unilayers.errors import UnilayersError
from unilayers.graph import Value
from unilayers.layers.base import Layer
from unilayers.models.model import Model, data_dtype
from unilayers.registry import resolve, serialize


class Sequential(Model):
    """Layers applied one after the other.

    Args:
        layers: Layers, their names or configs; the first may be ``Input(shape)``, which fixes the input shape at once.
        name: Name of the model.
        trainable: Whether training updates the weights.
        dtype: Dtype policy of the layers.
        seed: Of initial weights, random masks and batch order.

    Example:
        >>> from unilayers import Input, layers
        >>> model = Sequential([Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
        >>> model.output_shape, model.count_params()
        ((None, 3), 67)
    """

    def __init__(
        self,
        layers: Iterable[Any] | None = None,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype, seed=seed)
        self._input: Value | None = None
        for layer in layers or ():
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Append a layer, its name or config, or an ``Input``."""
        if isinstance(layer, Value):
            return self._set_input(layer)
        layer = resolve(Layer.registry, layer, where=f"{self.where}[{len(self._sublayers)}]")
        declared = getattr(layer, "symbolic_input", None)
        if declared is not None:
            return self._set_input(declared())
        if any(layer is x for x in self._sublayers):
            raise UnilayersError("the same layer is added twice", where=self.where, received=repr(layer))
        self._adopt(layer)
        object.__setattr__(self, "built", False)
        if self._input is not None:
            self.ensure_built()

    def _set_input(self, value: Value) -> None:
        if self._sublayers or self._input is not None:
            raise UnilayersError("Input must come first, and once", where=self.where)
        self._input = value

    def pop(self) -> Layer:
        """Take the last layer off."""
        layer = self._sublayers.pop()
        layer._parent = None
        return layer

    def _taken_in(self, compute_dtype: str) -> str:
        return data_dtype(compute_dtype)  # the layers cast what they take

    @property
    def input_structure(self) -> Any:
        return self._input

    def call(self, x: Any) -> Any:
        for layer in self._sublayers:
            x = layer(x)
        return x

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"name": self.name, "layers": [serialize(layer) for layer in self._sublayers]}
        if self._input is not None:
            from unilayers.layers.core import InputLayer

            config["layers"].insert(0, serialize(InputLayer.of(self._input)))
        return config | _common(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        return cls(**config)


def _common(model: Model) -> dict[str, Any]:
    return {"trainable": model.trainable, "dtype": model.dtype_policy.name, "seed": model.seed}
