"""The model: a layer that can be compiled, trained, saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import UnilayersError, nearest
from unilayers.graph import Value, leaf
from unilayers.layers.base import Layer, training_phase
from unilayers.registry import serialize, snake_case
from unilayers.spec import host_dtype, promote, public_shape
from unilayers.structure import leaves_of, map_structure
from unilayers.training.steps import inputs_like
from unilayers.training.trainer import Trainer
from unilayers.variable import Trace, trace_into


def data_dtype(compute_dtype: str) -> str:
    """The dtype of data for a model that computes in this one: shorter floats are for what is computed of them."""
    return promote(compute_dtype, "float32")


class Model(Trainer, Layer, abstract=True):
    """A layer with ``compile``, ``fit``, ``evaluate``, ``predict`` and ``save``.

    ``Model(inputs, outputs)`` makes a functional model from symbolic values. To write your own, subclass it, create
    layers in ``__init__`` and use them in ``call``.

    Args:
        name: Name; made from the class name if None.
        trainable: Whether training updates the weights.
        dtype: Dtype policy of all layers that do not set their own; see `Layer`.
        seed: Of initial weights, random masks and batch order; the default seed (``set_random_seed``) if None.

    Example:
        >>> from unilayers import Input, layers
        >>> x = Input((4,))
        >>> model = Model(x, layers.Dense(2)(x))
        >>> model.predict(np.ones((3, 4)), verbose=0).shape
        (3, 2)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is Model and (args or "inputs" in kwargs):
            from unilayers.models.functional import Functional

            return super().__new__(Functional, *args, **kwargs)
        return super().__new__(cls, *args, **kwargs)

    def __init__(
        self, *, name: str | None = None, trainable: bool = True, dtype: str | None = None, seed: int | None = None
    ) -> None:
        Layer.__init__(self, name=name or snake_case(type(self).__name__), trainable=trainable, dtype=dtype)
        self._auto_name = None if name else self.name
        self.seed = seed
        self.seen_inputs: Any = None
        self._init_training()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @property
    def path(self) -> str:
        return "" if self._parent is None else super().path

    @property
    def where(self) -> str:
        return f"model {self.name!r}"

    @property
    def root_seed(self) -> int:
        if self.seed is not None:
            return self.seed
        return super().root_seed

    @property
    def layers(self) -> list[Layer]:
        """The layers directly inside the model."""
        return list(self._sublayers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by name or by position."""
        if index is not None:
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise UnilayersError(
            f"no layer {name!r}", where=self.where, fix=nearest(str(name), [str(x.name) for x in self.layers])
        )

    # ---- inputs

    @property
    def data_dtype(self) -> str:
        """The dtype that float data come to the model in, and in which its losses are: that of computation, float32 for
        shorter ones."""
        return data_dtype(self.compute_dtype)

    @property
    def input_structure(self) -> Any:
        """The declared inputs: symbolic values in their structure, or None if any data is taken as it comes."""
        return None

    def input_leaves(self, x: Any) -> Any:
        """Fresh graph inputs for data ``x``: the declared inputs, or what the data looks like."""
        declared = self.input_structure

        def fresh(value: Value) -> Value:
            return leaf("input", value.node.attrs["name"], value.spec)

        if declared is not None:
            return map_structure(fresh, declared)
        return inputs_like(x, "x", self.data_dtype)

    def ensure_built(self, x: Any = None) -> None:
        """Create all weights, from the declared inputs or from data."""
        if self.built and all(layer.built for layer in self.layers_below):
            return
        inputs = self.input_leaves(x)
        with trace_into(Trace()):
            self(inputs)
        self.remember_inputs(inputs)

    def remember_inputs(self, x: Any) -> None:
        """Keep the shapes of data that the model was built for, so that it can be built again without."""
        if self.input_structure is None:
            self.seen_inputs = map_structure(
                lambda v: {"shape": list(ops.shape_of(v)[1:]), "dtype": ops.dtype_of(v)}, x
            )

    def build_from_shapes(self, seen: Any) -> None:
        """Create the weights for inputs of remembered shapes (``seen_inputs``)."""

        def array(x: Mapping[str, Any]) -> np.ndarray:
            return np.zeros((1, *x["shape"]), host_dtype(x["dtype"]))

        def restore(x: Any) -> Any:
            if isinstance(x, dict) and set(x) == {"shape", "dtype"}:
                return array(x)
            return {k: restore(v) for k, v in x.items()} if isinstance(x, dict) else [restore(v) for v in x]

        data = restore(seen)
        if not self.run_eagerly:
            return self.ensure_built(data)
        with training_phase(False):  # its call may be one that cannot be traced
            self(data)
        self.remember_inputs(data)

    def arranged(self, x: Any) -> Any:
        """Data given as a dict, in the order of the declared inputs; anything else as it is."""
        declared = self.input_structure
        if not isinstance(x, Mapping) or declared is None:
            return x
        names = list(declared) if isinstance(declared, dict) else [v.node.attrs["name"] for v in leaves_of(declared)]
        return {name: x[name] for name in names} if set(names) <= set(x) else x

    @property
    def input_shape(self) -> Any:
        """Shape of the input, None for the batch; a structure of shapes for several inputs."""
        return map_structure(lambda v: public_shape(v.shape), self.input_structure)

    @property
    def output_shape(self) -> Any:
        """Shape of the output, None for the batch."""
        with trace_into(Trace()):
            y = self(self.input_leaves(None))
        return map_structure(lambda v: public_shape(v.shape), y)

    # ---- looking at it

    def summary(self, print_fn: Any = None) -> None:
        """Print each layer with its output shape and parameter count."""
        from unilayers.models.summary import summary

        (print_fn or print)(summary(self))

    # ---- keeping it

    def to_json(self) -> str:
        """The architecture as text, without weights; ``models.model_from_json`` reads it."""
        return json.dumps(serialize(self))

    def save(self, path: Any) -> None:
        """Write weights, optimizer state, configuration and training position to one safetensors file, atomically."""
        from unilayers.saving import save_model

        save_model(self, path)

    def load_weights(self, path: Any) -> None:
        """Read the weights (not the optimizer state) of a file that ``save`` wrote."""
        from unilayers.saving import load_weights

        load_weights(self, path)

    def save_weights(self, path: Any) -> None:
        """Write the weights only."""
        from unilayers.saving import save_weights

        save_weights(self, path)
