"""A plain stack of layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unilayers.custom import custom_object_scope
from unilayers.errors import UnilayersError
from unilayers.graph import Value
from unilayers.layers.base import Layer
from unilayers.layers.core import Input
from unilayers.layers.preprocessing.encoding import is_text, texts_of
from unilayers.models.model import Model, data_dtype
from unilayers.models.texts import Ready, as_texts, reads_text
from unilayers.registry import resolve, serialize
from unilayers.spec import TEXT
from unilayers.structure import leaves_of


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
        self._read: list[Value] = []  # what the layers that read texts give
        self._chain: tuple[Value, Any] | None = None  # the input and the output
        for layer in layers or ():
            self.add(layer)

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Append a layer, its name or config, or an ``Input``.

        Args:
            layer: The layer.
            rebuild: Whether to create its weights now, if the input's shape is known.
        """
        if isinstance(layer, Value):
            return self._set_input(layer)
        layer = resolve(Layer.registry, layer, where=f"{self.where}[{len(self._sublayers)}]")
        declared = getattr(layer, "symbolic_input", None)
        if declared is not None:
            return self._set_input(declared())
        if any(layer is x for x in self._sublayers):
            raise UnilayersError("the same layer is added twice", where=self.where, received=repr(layer))
        self._adopt(layer)
        self._chain = None
        self._read.clear()
        object.__setattr__(self, "built", False)
        if self._input is not None and rebuild:
            self.ensure_built()

    def _set_input(self, value: Value) -> None:
        if self._sublayers or self._input is not None:
            raise UnilayersError("Input must come first, and once", where=self.where)
        self._input = value

    def pop(self, rebuild: bool = True) -> Layer:
        """Take the last layer off.

        Args:
            rebuild: Kept for Keras's signature: what remains is built as it was.
        """
        layer = self._sublayers.pop()
        layer._parent, self._chain = None, None
        self._read.clear()
        return layer

    def as_graph(self) -> tuple[Value, Any]:
        """The symbolic input, and what the layers make of it, each of which has then an ``output``."""
        if self._chain is None:
            start = self._input
            if start is None:
                seen = self.seen_inputs
                if not isinstance(seen, dict) or "shape" not in seen:
                    raise UnilayersError(
                        "the input's shape is not known", where=self.where, fix="Begin with an Input, or call the model"
                    )
                start = Input(seen["shape"], dtype=seen["dtype"])
            x: Any = start
            for layer in self._sublayers:
                x = layer(x)
            self._chain = start, x
        return self._chain

    @property
    def output_layers(self) -> list[Layer | None]:
        return list(self._sublayers[-1:])

    @property
    def input(self) -> Value:
        """The symbolic input."""
        return self.as_graph()[0]

    @property
    def output(self) -> Any:
        """The symbolic output."""
        return self.as_graph()[1]

    @property
    def inputs(self) -> list[Value]:
        """The symbolic input, in a list."""
        return [self.input]

    @property
    def outputs(self) -> list[Any]:
        """The symbolic outputs, in a list."""
        return leaves_of(self.output)

    def _taken_in(self, compute_dtype: str) -> str:
        return data_dtype(compute_dtype)  # the layers cast what they take

    @property
    def input_structure(self) -> Any:
        return self._input

    @property
    def graph_inputs(self) -> Any:
        first = self._numbers()[0]
        return self._input if first is self._input else Ready([first])

    def _numbers(self) -> tuple[Any, int]:
        """What the graph begins with, and how many layers read texts before that."""
        value, count = self._input, 0
        while reads_text([value]) and count < len(self._sublayers):
            if count == len(self._read):
                self._read.append(self._sublayers[count](value))
            value = self._read[count]
            count += 1
        return value, count

    def arranged(self, x: Any) -> Any:
        if self._input is None and self._sublayers and is_text(x):  # the data says what the input is
            self._input = Input(texts_of(x).shape[1:] or (1,), dtype=TEXT)
        if not reads_text([self._input]):
            return super().arranged(x)
        assert self._input is not None
        x = as_texts(x, self._input)
        for layer in self._sublayers[: self._numbers()[1]]:
            x = layer(x)
        return Ready([x])

    def call(self, x: Any) -> Any:
        ready = isinstance(x, Ready)
        for layer in self._sublayers[self._numbers()[1] if ready else 0 :]:
            x = layer(x[0] if ready else x)
            ready = False
        return x

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"name": self.name, "layers": [serialize(layer) for layer in self._sublayers]}
        if self._input is not None:
            from unilayers.layers.core import InputLayer

            config["layers"].insert(0, serialize(InputLayer.of(self._input)))
        return config | _common(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        with custom_object_scope(custom_objects):
            return cls(**config)


def _common(model: Model) -> dict[str, Any]:
    return {"trainable": model.trainable, "dtype": model.dtype_policy.name, "seed": model.seed}
