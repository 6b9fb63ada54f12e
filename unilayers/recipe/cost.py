"""What a recipe's model costs, counted from the op records over its graphs; nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unilayers import config, losses
from unilayers.graph import OPS, Graph
from unilayers.graph.passes import eliminate_common, simplify, specialise
from unilayers.models import Model
from unilayers.recipe.fit import leaves_of_shapes, loss_of
from unilayers.recipe.recipe import Recipe
from unilayers.spec import ITEMSIZE, is_float, public_shape
from unilayers.structure import map_structure
from unilayers.training import steps


@dataclass(frozen=True)
class Cost:
    """Counts for one batch.

    Args:
        parameters: Numbers in the weights.
        trainable: Those that training updates.
        parameter_bytes: Bytes of the weights.
        forward: Floating-point operations of a prediction; a multiplication and an addition count two.
        training_step: Those of a whole step: forward, loss, gradients, update of weights and metrics.
        batch_size: Samples in the batch.
    """

    parameters: int
    trainable: int
    parameter_bytes: int
    forward: int
    training_step: int
    batch_size: int


def cost(recipe: Recipe, model: Model) -> Cost:
    """Count for a model that ``recipe.build()`` made; targets are taken as the losses want them, no data is read.

    Raises:
        UnilayersError: if the losses cannot take the outputs.
    """
    size = recipe.batch_size
    x = map_structure(lambda v: _sample(public_shape(v.shape), v.dtype), model.input_structure)
    y = [_target(recipe, i, s) for i, s in enumerate(leaves_of_shapes(model.output_shape))]
    with config.dtype_scope(recipe.dtype):
        forward, _ = steps.predict_program(model, x)
        training = steps.train_program(model, model._objectives, steps.Batch(x, y[0] if len(y) == 1 else y))
    weights = model.weights
    return Cost(
        model.count_params(),
        sum(int(np.prod(v.shape)) for v in model.trainable_weights),
        sum(int(np.prod(v.shape)) * ITEMSIZE[v.dtype] for v in weights),
        flops(forward.graph, _sizes(forward.graph, size)),
        flops(training.graph, _sizes(training.graph, size)),
        size,
    )


def flops(graph: Graph, sizes: Mapping[str, int]) -> int:
    """Floating-point operations of one run of a graph, equal expressions counted once.

    Args:
        graph: The graph.
        sizes: Values of its symbolic sizes.
    """
    graph = simplify(eliminate_common(specialise(graph, sizes)))
    return sum(int(OPS[n.op].cost(*(v.spec for v in n.inputs), **n.attrs)) for n in graph.nodes)


def _sizes(graph: Graph, batch_size: int) -> dict[str, int]:
    return {name: batch_size if name == "batch" else 1 for name in graph.symbols}


def _sample(shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
    """Stands for data of this shape; of floats only the kind matters, the model casts them."""
    return np.zeros([1 if d is None else d for d in shape], "float32" if is_float(dtype) else dtype)


def _target(recipe: Recipe, number: int, shape: tuple[int | None, ...]) -> np.ndarray:
    """A target as the loss of an output wants it."""
    loss = loss_of(recipe, number, shape, np.zeros(1, "int32"))
    if isinstance(loss, losses.SparseCategoricalCrossentropy):
        axis = loss.axis % len(shape)
        return _sample((*shape[:axis], *shape[axis + 1 :]), "int32")
    return _sample(shape, "float32")
