"""What a recipe may say: its keys with their kinds and defaults, and the check of a whole document."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from unilayers import callbacks, losses, metrics, optimizers
from unilayers.backend import AUTO, EMBEDDED, VARIABLE, backend_names
from unilayers.data import Source, find
from unilayers.errors import UnilayersError, nearest
from unilayers.hints import Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from unilayers.layers.base import Layer, free_name
from unilayers.recipe.document import Cursor, dotted, shown
from unilayers.recipe.fields import IMPORT_PATH, Check, Checker, explained, recipe_name
from unilayers.registry import Configurable, Registry, snake_case

Names = Sequence[str]


class Section(Configurable, family="recipe section", immutable=True):
    """A part of a recipe with keys of its own; its fields are the keys."""


class Settings(Section):
    """A model, the data it learns from, and how it is trained.

    Args:
        name: What the recipe is called: names run folders; the file's name if left out.
        description: What it is for, for readers.
        seed: Of initial weights, the order of samples and dropout masks.
        dtype: Float dtype of weights and computation; mixed_bfloat16 and mixed_float16 keep the weights in float32 and
            compute in the shorter dtype.
        data: The data set with its options, and what is kept for validation.
        model: The layers, from the first to the last. Layers that say ``inputs`` make it a graph.
        outputs: Names of the layers whose outputs the model gives; the last layer if left out.
        loss: What training minimises; for several outputs a list, or a mapping by output.
        loss_weights: Factor of each output's loss: a list, or a mapping by output.
        optimizer: How the weights are updated.
        metrics: What is measured beside the loss; for several outputs a mapping by output.
        fit: How long and in which portions the model is trained.
        backend: The engine that runs it, or auto for the fastest; if left out what the variable UNILAYERS_BACKEND says,
            else numpy.
        device: The device of that engine: cpu, cuda, cuda:1.
        deterministic: Whether the engine may use only what gives the same bits in every run, which can be slower.
    """

    _: KW_ONLY
    name: str = "recipe"
    description: str = ""
    seed: NonNegativeInt = 0
    dtype: Literal["float32", "float64", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16"] = "float32"
    data: Any
    model: Any
    outputs: Names | None = None
    loss: Any
    loss_weights: Any = None
    optimizer: Any
    metrics: Any = ()
    fit: Any = None
    backend: str = EMBEDDED
    device: str = "cpu"
    deterministic: bool = False


class Data(Section):
    """The data set with its options, and what is kept for validation.

    Args:
        dataset: Name of a data set, or the path of a file or folder.
        validation_split: Share of the samples, taken from the end, to validate on.
        validation: Another data set to validate on: its name or path, or a mapping with its options.
    """

    dataset: str
    validation_split: Fraction = 0.0
    validation: Any = None


class Fit(Section):
    """How long and in which portions the model is trained.

    Args:
        epochs: How often all samples are gone through.
        batch_size: Samples in a step.
        shuffle: Whether the samples come in a new order each epoch.
        validation_freq: Validate every so many epochs.
        save_seconds: A checkpoint is written after each epoch, and in long ones whenever so many seconds have passed.
        callbacks: What looks on and acts: EarlyStopping, ReduceLROnPlateau, SwapEMAWeights, TerminateOnNaN; and
            ModelCheckpoint, CSVLogger and TensorBoard, which write into the run folder.
    """

    epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    shuffle: bool = True
    validation_freq: PositiveInt = 1
    save_seconds: PositiveFloat = 60.0
    callbacks: Any = ()


CALLBACKS = Registry("callback")
WRITING = {callbacks.CSVLogger: "filename", callbacks.ModelCheckpoint: "filepath", callbacks.TensorBoard: "log_dir"}
for _cls in (
    callbacks.EarlyStopping, callbacks.ReduceLROnPlateau, callbacks.SwapEMAWeights, callbacks.TerminateOnNaN, *WRITING,
):  # fmt: skip
    CALLBACKS.register(_cls)


def check(root: Cursor, checker: Checker) -> dict[str, Any]:
    """All settings of a recipe, every default written out.

    Raises:
        RecipeError: naming the place of the first thing that is wrong.
    """
    outputs = root.value.get("outputs")
    per_output = partial(_per_output, outputs=outputs if isinstance(outputs, list) else [])
    loss = partial(_objective, registry=losses.Loss.registry, get=losses.get, checker=checker)
    metric = partial(_objective, registry=metrics.Metric.registry, get=metrics.get, checker=checker)
    checks: dict[str, Check] = {
        "data": partial(_data, checker=checker),
        "model": partial(_model, checker=checker),
        "loss": partial(per_output, one=loss),
        "loss_weights": partial(per_output, one=partial(checker.value, float | None)),
        "optimizer": partial(checker.config, optimizers.Optimizer.registry),
        "metrics": partial(per_output, one=partial(_list_of, one=metric), spread=True),
        "fit": partial(_fit, checker=checker),
        "backend": _backend,
    }
    settings = checker.arguments(Settings, root, root, checks)
    settings["fit"] = settings["fit"] or checker.defaults(Fit)
    if "backend" not in root.value:
        settings["backend"] = os.environ.get(VARIABLE) or EMBEDDED
    if settings["outputs"] is not None or is_graph(settings["model"]):
        _connect(root.child("model"), settings)
    return settings


def _options(at: Cursor) -> None:
    if not isinstance(at.value, Mapping):
        raise at.error("not a mapping of options", received=shown(at.value))


def _list_of(at: Cursor, one: Check) -> list[Any]:
    """The check of each item; a single value counts as a list of one."""
    if at.value is None:
        return []
    return [one(child) for child in at.children()] if isinstance(at.value, list) else [one(at)]


def _fit(at: Cursor, checker: Checker) -> dict[str, Any]:
    if at.value is None:
        return {}
    _options(at)
    return checker.arguments(Fit, at, at, {"callbacks": partial(_list_of, one=partial(_callback, checker=checker))})


def _callback(at: Cursor, checker: Checker) -> dict[str, Any]:
    """A callback; what it writes lies in the run folder, so that a recipe touches nothing else."""
    found = checker.config(CALLBACKS, at)
    for path in paths_of(found).values():
        if not isinstance(path, str) or PurePath(path).is_absolute() or ".." in PurePath(path).parts:
            raise at.error("not a path in the run folder", expected="a relative one without ..", received=shown(path))
    return found


def paths_of(callback: Mapping[str, Any]) -> dict[str, Any]:
    """Where a callback in ``{name: arguments}`` writes, by the name of the argument."""
    key = WRITING.get(CALLBACKS.get(layer_name(callback)))
    return {} if key is None else {key: arguments_of_layer(callback)[key]}


def _backend(at: Cursor) -> str:
    names = [*backend_names(), AUTO]
    if at.value not in names:
        raise at.error(f"unknown backend {at.value!r}", fix=nearest(str(at.value), names))
    return at.value


# ---- data -----------------------------------------------------------------------------------------------------------

COMMON = tuple(Data.__annotations__)  # the keys that every data set has


def _data(at: Cursor, checker: Checker) -> dict[str, Any]:
    """The data set's own options, between its name and what every data set has."""
    _options(at)
    own = [key for key in at.value if key not in COMMON]
    common = checker.arguments(Data, at, at, {"validation": partial(_validation, checker=checker)}, ignore=own)
    if common["validation"] is not None and common["validation_split"]:
        raise at.child("validation").error("validation and validation_split at once", key=True, fix="Keep one of them")
    return _source(at, checker, ignore=COMMON) | {k: v for k, v in common.items() if k != "dataset"}


def _validation(at: Cursor, checker: Checker) -> dict[str, Any] | None:
    if at.value is None:
        return None
    if isinstance(at.value, str):
        at.replace({"dataset": at.value})
    _options(at)
    if "dataset" not in at.value:
        raise at.error("missing key 'dataset'", key=True)
    return _source(at, checker, ignore=["dataset"])


def _source(at: Cursor, checker: Checker, ignore: Sequence[str]) -> dict[str, Any]:
    """The data set's name and all its options; a path stands for the data set that reads what lies there."""
    place, registry = at.child("dataset"), Source.registry
    name = place.value
    if isinstance(name, str) and name not in registry and not IMPORT_PATH.fullmatch(name):
        if "path" in at.value:
            raise at.child("path").error("a path beside a data set that is one", key=True, received=shown(name))
        with explained(place, ()):
            name = snake_case(_reader(name).__name__)
        at.replace({"path": place.value, **at.value, "dataset": name})
    cls: Any = checker.named(registry, place)
    options = checker.arguments(cls, at, at, ignore=ignore)
    with explained(at, options):
        cls.from_config(options)
    written = recipe_name(registry, cls)
    return {"dataset": written if ":" in written else snake_case(written)} | options


def _reader(path: str) -> type[Source]:
    """The class that reads what lies, or by its suffix will lie, at a path."""
    claims = [cls for cls in Source.registry if cls.claims(Path(path).expanduser())]
    return claims[0] if claims else type(find(path))


# ---- model ----------------------------------------------------------------------------------------------------------


def _model(at: Cursor, checker: Checker) -> list[dict[str, Any]]:
    """Each layer with all its arguments and a name."""
    if not isinstance(at.value, list) or not at.value:
        raise at.error("no layers", expected="a list of layers", received=shown(at.value))
    found = [checker.config(Layer.registry, child, {"inputs": _inputs}) for child in at.children()]
    if layer_name(found[0]) != INPUT:
        raise at.child(0).error(
            "the model does not begin with its input",
            expected="Input: {shape: [8, 8, 1]}",
            received=layer_name(found[0]),
        )
    taken: dict[str, int] = {}
    for i, layer in enumerate(found):
        name = arguments_of_layer(layer)["name"]
        if name is not None and taken.setdefault(name, i) != i:
            raise at.child(i).error(
                f"two layers are called {name!r}", received=f"the other is {dotted(at.child(taken[name]).path)}"
            )
    for i, layer in enumerate(found):
        arguments = arguments_of_layer(layer)
        if arguments["name"] is None:
            free = free_name(snake_case(layer_name(layer).rpartition(":")[2]), taken)
            arguments["name"], taken[free] = free, i
    return found


INPUT = "Input"


def layer_name(layer: Mapping[str, Any]) -> str:
    """The class's name in ``{name: arguments}``."""
    return next(iter(layer))


def arguments_of_layer(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in ``{name: arguments}``."""
    return next(iter(layer.values()))


def _inputs(at: Cursor) -> list[str]:
    names = [at.value] if isinstance(at.value, str) else at.value
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise at.error("not the names of layers", expected="a name or a list of names", received=shown(at.value))
    return names


def is_graph(model: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the layers are connected otherwise than one after the other."""
    inputs = [layer for layer in model if layer_name(layer) == INPUT]
    return len(inputs) > 1 or any("inputs" in arguments_of_layer(layer) for layer in model)


def _connect(at: Cursor, settings: dict[str, Any]) -> None:
    """Write out where each layer takes its input from, and what the outputs are; everything must lead somewhere."""
    model = settings["model"]
    names = [arguments_of_layer(layer)["name"] for layer in model]
    used: set[str] = set()
    for i, layer in enumerate(model):
        place, arguments = at.child(i), arguments_of_layer(layer)
        if layer_name(layer) == INPUT:
            if "inputs" in arguments:
                raise place.error("an Input with inputs")
            continue
        for name in arguments.setdefault("inputs", [names[i - 1]]):
            _require_name(name, names[:i], names, place)
        used.update(arguments["inputs"])
    outputs = settings["outputs"] = settings["outputs"] or [names[-1]]
    for i, name in enumerate(outputs):
        _require_name(name, names, names, Cursor(at.document, ("outputs", i)))
    for i, name in enumerate(names):
        if name not in used and name not in outputs:
            raise at.child(i).error(
                f"nothing uses the output of {name!r}", fix="Name it in another layer's inputs or in outputs"
            )


def _require_name(name: str, known: Sequence[str], later: Sequence[str], at: Cursor) -> None:
    if name not in known:
        problem = f"layer {name!r} comes later" if name in later else f"no layer is called {name!r}"
        raise at.error(problem, fix="" if name in later else nearest(name, known))


# ---- losses and metrics ---------------------------------------------------------------------------------------------


def _per_output(at: Cursor, one: Check, outputs: Sequence[str], spread: bool = False) -> Any:
    """One value, or one for each output: a mapping by output, or a list unless a list is one value (``spread``)."""
    value = at.value
    if isinstance(value, Mapping) and set(value) & set(outputs):
        for child in at.children():
            if child.path[-1] not in outputs:
                name = str(child.path[-1])
                raise child.error(f"no output is called {name!r}", key=True, fix=nearest(name, outputs))
        return {child.path[-1]: one(child) for child in at.children()}
    if isinstance(value, list) and not spread:
        if len(value) != max(1, len(outputs)):
            raise at.error(
                "not one entry for each output", expected=str(max(1, len(outputs))), received=str(len(value))
            )
        return [one(child) for child in at.children()]
    return one(at)


def _objective(at: Cursor, registry: Registry, get: Callable[..., Any], checker: Checker) -> Any:
    """A loss or a metric; a name that stands for several classes, by the shapes of the data, is kept."""
    name = at.value
    if name is None or (isinstance(name, str) and depends_on_shapes(get, name)):
        return name
    config = checker.config(registry, at)
    if isinstance(name, str) and getattr(get(name), "name", None) == name:
        arguments_of_layer(config)["name"] = name  # a metric given by name has this name in logs
    return config


def depends_on_shapes(get: Callable[..., Any], name: str) -> bool:
    def known(*shapes: Any) -> bool:
        try:
            return get(name, *shapes) is not None
        except UnilayersError:
            return False

    return known(np.zeros(1), np.zeros((1, 2))) and not known()
