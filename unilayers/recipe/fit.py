"""Whether a recipe's model and its data belong together, said before training begins."""

from __future__ import annotations

from typing import Any

import numpy as np

from unilayers import losses
from unilayers.data import Dataset, check
from unilayers.models import Model
from unilayers.recipe.fields import explained
from unilayers.recipe.recipe import Parts, Recipe
from unilayers.recipe.sections import INPUT, layer_name
from unilayers.spec import public_shape
from unilayers.structure import leaves_of


def check_fit(recipe: Recipe, model: Model, data: Dataset, parts: Parts) -> None:
    """Raise unless the model can be trained on the data.

    Raises:
        RecipeError: if the samples do not have the input's shape, or the labels are no classes of an output.
    """
    inputs = [i for i, layer in enumerate(recipe.settings["model"]) if layer_name(layer) == INPUT]
    if len(inputs) > 1:
        raise recipe.at("model", inputs[1]).error(
            "a data set gives one array of samples, and the model has several inputs",
            fix="Train it from Python: model = load_recipe(...).build(); model.fit({'a': ..., 'b': ...}, y)",
        )
    shape = public_shape(leaves_of(model.input_structure)[0].shape)[1:]
    outputs = leaves_of_shapes(model.output_shape)
    for x, y in filter(None, (parts.train, parts.validation, parts.test)):
        with explained(recipe.at("model", inputs[0], INPUT), ()):
            check(x, feature_shape=shape)
        for i, output in enumerate(outputs):
            _check_labels(recipe, i, output, data, x, y)


def leaves_of_shapes(shapes: Any) -> list[tuple[int | None, ...]]:
    """The shapes in a structure of them, which are tuples themselves."""
    if isinstance(shapes, tuple) and all(d is None or isinstance(d, int) for d in shapes):
        return [shapes]
    return [s for part in (shapes.values() if isinstance(shapes, dict) else shapes) for s in leaves_of_shapes(part)]


def _check_labels(recipe: Recipe, number: int, shape: tuple[int | None, ...], data: Dataset, x: Any, y: Any) -> None:
    """Labels must be class numbers that the output has."""
    loss = loss_of(recipe, number, shape, y)
    place = _output_place(recipe, number)
    if isinstance(loss, losses.SparseCategoricalCrossentropy):
        classes = shape[loss.axis]
        if classes and data.num_classes and data.num_classes > classes:
            raise place.error(
                f"too few outputs for the classes of {data.name!r}",
                expected=f"at least {data.num_classes}",
                received=f"output shape {shape}",
            )
        ignored = loss.ignore_class
        labels = y if ignored is None else np.where(np.asarray(y) == ignored, 0, y)
        if y.dtype.kind == "f" and data.num_classes is None:
            raise recipe.at("loss").error(
                f"the targets of {data.name!r} are numbers, not class numbers",
                expected="integers",
                received=f"{y.dtype} of shape {y.shape}",
                fix="Use a loss for numbers, such as MeanSquaredError",
            )
        with explained(recipe.at("loss"), ()):
            check(x, labels, num_classes=classes)
    elif isinstance(loss, losses.BinaryCrossentropy) and y.dtype.kind in "iub":
        with explained(recipe.at("loss"), ()):
            check(x, y, num_classes=2)


def loss_of(recipe: Recipe, number: int, shape: tuple[int | None, ...], y: Any) -> Any:
    """The loss of one output, as far as a recipe can tell."""
    given = recipe.settings["loss"]
    names = recipe.settings["outputs"] or []
    if isinstance(given, list):
        given = given[number]
    elif isinstance(given, dict) and names and set(given) <= set(names):
        given = given.get(names[number])
    return losses.get(given, y, np.empty((1, *(d or 1 for d in shape[1:]))))


def _output_place(recipe: Recipe, number: int) -> Any:
    model, names = recipe.settings["model"], recipe.settings["outputs"]
    index = len(model) - 1
    if names:
        index = next(i for i, layer in enumerate(model) if next(iter(layer.values()))["name"] == names[number])
    return recipe.at("model", index, layer_name(model[index]))
