"""The model: a layer that can be compiled, trained, saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.custom import custom_object_scope, with_own_functions
from unilayers.errors import UnilayersError, nearest
from unilayers.graph import Value, leaf
from unilayers.layers.base import Layer, training_phase
from unilayers.registry import serialize, snake_case
from unilayers.spec import Dim, Spec, host_dtype, promote, public_shape
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

    # ---- inputs and outputs

    @property
    def output_layers(self) -> list[Layer | None]:
        """The layers that make the outputs, which name them, as far as that is known; None for an op."""
        return []

    @property
    def data_dtype(self) -> str:
        """The dtype that float data come to the model in, and in which its losses are: that of computation, float32 for
        shorter ones."""
        return data_dtype(self.compute_dtype)

    @property
    def input_structure(self) -> Any:
        """The declared inputs: symbolic values in their structure, or None if any data is taken as it comes."""
        return None

    @property
    def graph_inputs(self) -> Any:
        """What the graph begins with: the declared inputs; where these are texts, what the layers that read them give.

        ``arranged`` brings data to this form."""
        return self.input_structure

    def input_leaves(self, x: Any) -> Any:
        """Fresh graph inputs for data ``x``: the declared inputs, or what the data looks like."""
        declared = self.graph_inputs

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
        if self.only_on is not None:  # which no trace can have
            zeros = map_structure(
                lambda v: np.zeros([d if isinstance(d, int) else 1 for d in v.shape], v.dtype), inputs
            )
            with training_phase(False), self.without_drawing():
                self(zeros)
        else:
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

        data = _restored(seen, lambda shape, dtype: np.zeros((1, *shape), host_dtype(dtype)))
        if not self.run_eagerly:
            return self.ensure_built(data)
        with training_phase(False):  # its call may be one that cannot be traced
            self(data)
        self.remember_inputs(data)

    def remembered_leaves(self) -> Any:
        """Fresh graph inputs like the data that the model was built for, or None if there was none."""

        def fresh(shape: Sequence[int], dtype: str) -> Value:
            return leaf("input", "x", Spec((Dim.symbol("batch"), *shape), dtype))

        return None if self.seen_inputs is None else _restored(self.seen_inputs, fresh)

    def arranged(self, x: Any) -> Any:
        """Data as the graph takes it: a dict in the order of the declared inputs, with texts read."""
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
        inputs = self.input_leaves(None)
        if self.only_on is not None:
            y = self._try_examples((inputs,), {})
        else:
            with trace_into(Trace()):
                y = self(inputs)
        return map_structure(lambda v: public_shape(v.shape), y)

    # ---- looking at it

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Print each layer with its output shape and parameter count.

        Args:
            line_length: Characters in a line; as many as are needed if None. Longer entries are cut.
            positions: Where each column ends, in characters or as fractions of the line.
            print_fn: Takes the text in place of ``print``.
            expand_nested: Whether to list the layers of models that are layers, too, indented.
            show_trainable: Whether to say which layers are trained.
            layer_range: Names of the first and the last layer to list, or patterns of names.

        Raises:
            UnilayersError: for a range that no layer is in.
        """
        from unilayers.models.summary import summary

        text = summary(self, line_length, positions, expand_nested, show_trainable, layer_range)
        (print_fn or print)(text)

    # ---- keeping it

    def to_json(self) -> str:
        """The architecture as text, without weights; ``models.model_from_json`` reads it."""
        return json.dumps(serialize(self))

    def get_compile_config(self) -> dict[str, Any] | None:
        """What ``compile`` was told, as plain data; None if it was not called or with a function without a name."""
        from unilayers.saving import compile_config

        return compile_config(self)

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """``compile`` with what ``get_compile_config`` gave."""
        self.compile(**with_own_functions(config))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The model with that config, built anew.

        Args:
            config: What ``get_config`` gave.
            custom_objects: Classes and functions by name that come before the known ones.
        """
        if cls is Model and "steps" in config:  # that of Model(inputs, outputs)
            from unilayers.models.functional import Functional

            return Functional.from_config(config, custom_objects)
        with custom_object_scope(custom_objects):
            return super().from_config(config)

    def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None) -> None:
        """Write weights, optimizer state, configuration and training position to one file, atomically.

        Args:
            filepath: The file. Its content is safetensors whatever its suffix, ``.keras`` included.
            overwrite: Whether a file that is there may be replaced.
            zipped: Taken for the sake of scripts: it is always one file.

        Raises:
            CheckpointError: if it cannot be written.
        """
        from unilayers.saving import save_model

        save_model(self, filepath, overwrite)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False) -> None:
        """Read the weights (not the optimizer state) of a file that ``save`` or ``save_weights`` wrote.

        Args:
            filepath: The file.
            skip_mismatch: Whether weights without a value of their shape in the file are left as they are, with a
                warning; else that is an error, and no weight is changed.

        Raises:
            CheckpointError: for a file that cannot be read or is of another model.
        """
        from unilayers.saving import load_weights

        load_weights(self, filepath, skip_mismatch)

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Write the weights only.

        Args:
            filepath: The file. Its content is safetensors whatever its suffix, ``.weights.h5`` included.
            overwrite: Whether a file that is there may be replaced.
        """
        from unilayers.saving import save_weights

        save_weights(self, filepath, overwrite)


def _restored(seen: Any, make: Callable[[Any, str], Any]) -> Any:
    """Remembered inputs, with ``make(shape, dtype)`` for each."""
    if isinstance(seen, Mapping):
        if set(seen) == {"shape", "dtype"}:
            return make(seen["shape"], seen["dtype"])
        return {key: _restored(value, make) for key, value in seen.items()}
    return [_restored(value, make) for value in seen]
