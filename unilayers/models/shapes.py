"""What the layers of a model take and give, seen in one symbolic run of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unilayers import ops
from unilayers.layers.base import Layer, is_tensor
from unilayers.spec import public_shape
from unilayers.structure import leaves_of, map_structure
from unilayers.variable import Trace, trace_into

if TYPE_CHECKING:
    from unilayers.models.model import Model


@dataclass(frozen=True)
class Ports:
    """The first call of a layer: structures of ``(shape, dtype)``, None in a shape for the batch.

    Args:
        inputs: Of its first argument.
        outputs: Of its result.
    """

    inputs: Any
    outputs: Any


def ports(model: Model) -> dict[Layer, Ports]:
    """The ports of the model and of each layer below it; a layer that was not called has none.

    Empty for a model whose inputs are not declared, unless they are known from data and it does not run op by op.
    """
    inputs = model.input_leaves(None) if model.input_structure is not None else None
    if inputs is None and not model.run_eagerly:  # then its call may be one that cannot be traced
        inputs = model.remembered_leaves()
    found: dict[Layer, Ports] = {}
    if inputs is None:
        return found

    def watch(layer: Layer) -> Any:
        inner = layer.call

        def call(*args: Any, **kwargs: Any) -> Any:
            y = inner(*args, **kwargs)
            found.setdefault(layer, Ports(_specs(args[0] if args else None), _specs(y)))
            return y

        return call

    layers = {layer: vars(layer).get("call") for layer in model.layers_below}
    for layer in layers:
        object.__setattr__(layer, "call", watch(layer))
    try:
        if model.only_on is None:
            with trace_into(Trace()):
                model(inputs)
        elif hasattr(model, "as_graph"):
            model.as_graph()
    finally:
        for layer, own in layers.items():
            object.__delattr__(layer, "call")
            if own is not None:
                object.__setattr__(layer, "call", own)
    for layer in (*layers, *model.layers):  # those that no graph has: inputs, what reads texts, an engine's own code
        if layer not in found and layer._calls:
            call = layer._calls[0]
            found[layer] = Ports(_specs(call.args[0] if call.args else None), _specs(call.outputs))
    return found


def shape_text(structure: Any) -> str:
    """Shapes as text: ``(None, 3)``, or several with a comma between; ``?`` for none.

    Example:
        >>> shape_text([((None, 3), "float32"), ((None,), "int32")])
        '(None, 3), (None,)'
    """
    return ", ".join(str(shape) for shape, _ in spec_list(structure)) or "?"


def spec_list(structure: Any) -> list[Any]:
    """The pairs of shape and dtype in a structure of such."""
    if structure is None:
        return []
    if isinstance(structure, tuple) and len(structure) == 2 and isinstance(structure[1], str):
        return [structure]
    parts = structure.values() if isinstance(structure, dict) else structure
    return [spec for part in parts for spec in spec_list(part)]


def _specs(structure: Any) -> Any:
    def spec(x: Any) -> Any:
        return (public_shape(ops.shape_of(x)), ops.dtype_of(x)) if is_tensor(x) else None

    return map_structure(spec, structure) if leaves_of(structure) else None
