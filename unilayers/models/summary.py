"""The table that ``model.summary()`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unilayers import ops
from unilayers.layers.base import Layer
from unilayers.spec import public_shape
from unilayers.structure import leaves_of, map_structure
from unilayers.variable import Trace, trace_into

if TYPE_CHECKING:
    from unilayers.models.model import Model


def output_shapes(model: Model) -> dict[Layer, Any]:
    """The output shape of each layer directly inside the model; a layer that was not called has none."""
    shapes: dict[Layer, Any] = {}

    def watch(layer: Layer) -> Any:
        inner = type(layer).call

        def call(*args: Any, **kwargs: Any) -> Any:
            y = inner(layer, *args, **kwargs)
            shapes.setdefault(layer, map_structure(lambda v: public_shape(ops.shape_of(v)), y))
            return y

        return call

    for layer in model.layers:
        object.__setattr__(layer, "call", watch(layer))
    try:
        with trace_into(Trace()):
            model(model.input_leaves(None))
    finally:
        for layer in model.layers:
            object.__delattr__(layer, "call")
    return shapes


def rows(model: Model) -> list[tuple[str, str, int]]:
    """Name and class, output shape, parameters of each layer."""
    shapes = output_shapes(model) if model.input_structure is not None else {}

    def text(layer: Layer) -> str:
        shape = shapes.get(layer)
        if shape is None:
            return "?"
        many = leaves_of(shape) and isinstance(shape, list)
        return ", ".join(map(str, shape)) if many else str(shape)

    return [(f"{x.name} ({type(x).__name__})", text(x), x.count_params()) for x in model.layers]


def summary(model: Model) -> str:
    """The whole table as text."""
    table = [("Layer", "Output shape", "Params"), *((a, b, f"{n:,}") for a, b, n in rows(model))]
    widths = [max(len(row[i]) for row in table) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {n:>{widths[2]}}" for a, b, n in table]
    total, trained = model.count_params(), sum(int(_size(v)) for v in model.trainable_weights)
    rule = "-" * max(map(len, lines))
    tail = f"Total params: {total:,} (trainable {trained:,}, fixed {total - trained:,})"
    return "\n".join([f"Model: {model.name!r}", rule, lines[0], rule, *lines[1:], rule, tail])


def _size(variable: Any) -> int:
    size = 1
    for d in variable.shape:
        size *= d
    return size
