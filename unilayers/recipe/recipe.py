"""The recipe: found, read, checked; then built into a model, fed with its data, trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unilayers import config, losses, metrics, optimizers
from unilayers.data import Dataset, Source, split
from unilayers.errors import RecipeError, nearest
from unilayers.layers.base import Layer
from unilayers.models import Functional, Model, Sequential
from unilayers.recipe.document import Cursor, override, parse, to_yaml
from unilayers.recipe.fields import Checker, create, explained
from unilayers.recipe.sections import CALLBACKS, INPUT, arguments_of_layer, check, layer_name, paths_of
from unilayers.registry import Registry, resolve

if TYPE_CHECKING:
    from unilayers.recipe.run import Result

SHIPPED = "unilayers.recipes"  # the package that holds the recipes found by name
SUFFIXES = (".yaml", ".yml")


# ---- finding --------------------------------------------------------------------------------------------------------


def shipped() -> dict[str, str]:
    """The recipes that come with the package: their YAML by name.

    Example:
        >>> "digits-cnn" in shipped()
        True
    """
    found = (f for f in files(SHIPPED).iterdir() if f.name.endswith(SUFFIXES))
    return {f.name.rpartition(".")[0]: f.read_text("utf-8") for f in sorted(found, key=lambda f: f.name)}


def load_recipe(
    path_or_name: str | PathLike[str], overrides: Sequence[str] = (), allow_imports: bool = False
) -> Recipe:
    """Read and check a recipe.

    Args:
        path_or_name: The path of a YAML file, or the name of a shipped recipe.
        overrides: Values to replace: ``"optimizer.Adam.learning_rate=0.01"``, ``"model[3].Dropout.rate=0.5"``.
        allow_imports: Whether classes may be imported by their path ``module:Class``. Importing runs that module's
            code, so allow it for recipes you trust.

    Raises:
        RecipeError: naming file, line, column and dotted path of what is wrong.

    Example:
        >>> load_recipe("digits-cnn", ["fit.epochs=2"]).settings["fit"]["epochs"]
        2
    """
    path = Path(fspath(path_or_name)).expanduser()
    if path.suffix not in SUFFIXES and not path.is_file():
        known = shipped()
        name = str(path_or_name)
        if name not in known:
            raise RecipeError(f"no recipe {name!r}", fix=nearest(name, known), expected="a file or a shipped recipe")
        return Recipe(known[name], f"{name}.yaml", overrides, allow_imports)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"cannot read the recipe: {error.strerror}", where=str(path_or_name)) from None
    return Recipe(text, str(path_or_name), overrides, allow_imports, folder=path.absolute().parent)


# ---- the recipe -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """The samples and targets of a recipe, by what they are for; None where there are none."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray] | None = None
    test: tuple[np.ndarray, np.ndarray] | None = None


class Recipe:
    """A checked recipe.

    Args:
        text: The YAML.
        source: What messages call it: the file's name.
        overrides: See `load_recipe`.
        allow_imports: See `load_recipe`.
        folder: Where modules of the user's own are looked for, after the current folder.

    Raises:
        RecipeError: for the first thing that is wrong.

    Example:
        >>> recipe = load_recipe("digits-mlp", ["seed=1"])
        >>> recipe.name, recipe.seed, recipe.build().output_shape
        ('digits-mlp', 1, (None, 10))
    """

    def __init__(
        self,
        text: str | bytes,
        source: str = "recipe.yaml",
        overrides: Sequence[str] = (),
        allow_imports: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._text, self._source, self._overrides, self._folder = text, source, tuple(overrides), folder
        self.allow_imports = allow_imports
        document = parse(text, source)
        for one in self._overrides:
            override(document, one)
        document.value.setdefault("name", Path(source).stem)
        folders = (Path.cwd(), *([folder] if folder else []))
        self._root = Cursor(document)
        self.settings: dict[str, Any] = check(self._root, Checker(allow_imports, folders))

    def __repr__(self) -> str:
        return f"<Recipe {self.name!r}>"

    @property
    def source(self) -> str:
        """The YAML as it is written."""
        return self._text if isinstance(self._text, str) else self._text.decode()

    @property
    def folder(self) -> Path | None:
        """Where modules of the user's own are looked for, after the current folder."""
        return self._folder

    @property
    def name(self) -> str:
        return self.settings["name"]

    @property
    def description(self) -> str:
        return self.settings["description"]

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def dtype(self) -> str:
        return self.settings["dtype"]

    @property
    def backend(self) -> str:
        return self.settings["backend"]

    @property
    def device(self) -> str:
        return self.settings["device"]

    @property
    def epochs(self) -> int:
        return self.settings["fit"]["epochs"]

    @property
    def batch_size(self) -> int:
        return self.settings["fit"]["batch_size"]

    def changed(self, *overrides: str) -> Recipe:
        """The same recipe with further overrides."""
        return Recipe(self._text, self._source, (*self._overrides, *overrides), self.allow_imports, self._folder)

    def watched_by(self, callback: str) -> Recipe:
        """The same recipe with one more callback; itself if there is one of this class already.

        Args:
            callback: The name of its class.

        Example:
            >>> load_recipe("digits-mlp").watched_by("TerminateOnNaN").settings["fit"]["callbacks"]
            [{'TerminateOnNaN': {'raise_error': False, 'explain': True, 'weights': False}}]
        """
        there = self.settings["fit"]["callbacks"]
        if callback in map(layer_name, there):
            return self
        return self.changed(f"fit.callbacks={json.dumps([*there, callback])}")

    def at(self, *path: str | int) -> Cursor:
        """The place of a value, to be named in errors."""
        return Cursor(self._root.document, path)

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default written out, as plain data; a recipe made of it is the same."""
        return deepcopy(self.settings)

    def to_yaml(self) -> str:
        """The resolved recipe as YAML."""
        return to_yaml(self.resolved())

    # ---- model

    def build(self) -> Model:
        """A new model, compiled and with its first weights; the same at every call.

        Raises:
            RecipeError: naming the layer whose input does not fit.
        """
        settings = self.settings
        with config.dtype_scope(self.dtype):
            model = self._graph() if settings["outputs"] else self._stack()
            outputs = settings["outputs"] or ()
            loss = _each(settings["loss"], outputs, _one(losses.Loss.registry))
            measured = _each(settings["metrics"], outputs, _one(metrics.Metric.registry))
            optimizer = resolve(optimizers.Optimizer.registry, settings["optimizer"])
            weights, where = settings["loss_weights"], (self.backend, self.device)
            model.compile(optimizer, loss, weights, measured, backend=where[0], device=where[1])
        return model

    def _stack(self) -> Model:
        model = Sequential(**self._model_arguments())
        for i, described in enumerate(self.settings["model"]):
            with explained(self.at("model", i, layer_name(described)), ()):
                model.add(resolve(Layer.registry, described))
        return model

    def _graph(self) -> Model:
        values: dict[str, Any] = {}
        inputs = []
        for i, described in enumerate(self.settings["model"]):
            arguments = dict(arguments_of_layer(described))
            sources = [values[name] for name in arguments.pop("inputs", ())]
            with explained(self.at("model", i, layer_name(described)), ()):
                layer = resolve(Layer.registry, {layer_name(described): arguments})
                if layer_name(described) == INPUT:
                    inputs.append(layer.symbolic_input())
                    values[arguments["name"]] = inputs[-1]
                else:
                    values[arguments["name"]] = layer(_single(sources))
        outputs = [values[name] for name in self.settings["outputs"]]
        return Functional(_single(inputs), _single(outputs), **self._model_arguments())

    def _model_arguments(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "seed": self.seed}

    def callbacks(self, folder: Path) -> list[Any]:
        """New callbacks as ``fit.callbacks`` says.

        Args:
            folder: Where they write, if they do.
        """
        found = []
        for described in self.settings["fit"]["callbacks"]:
            paths = {name: str(folder / path) for name, path in paths_of(described).items()}
            found.append(create(CALLBACKS.get(layer_name(described)), arguments_of_layer(described) | paths))
        return found

    # ---- data

    def data(self) -> Dataset:
        """The data set, read and checked.

        Raises:
            DataError: for files that are missing or damaged, and for data that cannot be used.
        """
        return self._reader(self.settings["data"]).load()

    def parts(self, dataset: Dataset | None = None) -> Parts:
        """What is trained on, what is validated on, what is kept for the final evaluation.

        Args:
            dataset: The data set of ``data()``, if it is read already.
        """
        data = dataset or self.data()
        options = self.settings["data"]
        train, held = (data.x, data.y), None
        if options["validation_split"]:
            train, held = split(data.x, data.y, options["validation_split"])
        elif options["validation"]:
            other = self._reader(options["validation"]).load()
            held = other.x, other.y
        test = None if data.x_test is None or data.y_test is None else (data.x_test, data.y_test)
        return Parts(train, held, test)

    def _reader(self, options: Mapping[str, Any]) -> Source:
        own = {k: v for k, v in options.items() if k not in ("dataset", "validation_split", "validation")}
        return resolve(Source.registry, {options["dataset"]: own})

    # ---- training

    def train(
        self,
        out: str | PathLike[str] | None = None,
        backend: str | None = None,
        device: str | None = None,
        epochs: int | None = None,
        resume: bool = False,
        callbacks: Sequence[Any] = (),
        verbose: int | str = "auto",
        retime: bool = False,
    ) -> Result:
        """Do the whole job: read the data, build, train, and keep everything in a run folder.

        The folder holds ``recipe.yaml`` (resolved), ``history.jsonl`` (a line an epoch, as it happens),
        ``checkpoint.safetensors`` (after every epoch) and ``environment.json`` (versions, hardware).

        Args:
            out: The run folder; ``runs/<name>-<time>`` if None. One that holds something is never written to.
            backend: Engine, in place of the recipe's; ``auto`` for the fastest, which the folder then names.
            device: Device, in place of the recipe's.
            epochs: Epochs in all, in place of the recipe's.
            resume: Go on from the checkpoint in the folder ``out``.
            callbacks: Objects with Keras's hooks, beside the recipe's.
            verbose: 0 silent, 1 progress bar, 2 a line an epoch.
            retime: With the backend ``auto``: time the engines again.

        Raises:
            UnilayersError: before training starts, if anything does not fit.
        """
        from unilayers.recipe.run import train

        given = {"backend": backend, "device": device, "fit.epochs": epochs}
        recipe = self.changed(*(f"{path}={value}" for path, value in given.items() if value is not None))
        return train(recipe, out, resume=resume, callbacks=callbacks, verbose=verbose, retime=retime)


def _single(values: list[Any]) -> Any:
    """The value of a list of one, or the list."""
    return values[0] if len(values) == 1 else values


def _one(registry: Registry) -> Any:
    """A loss or metric object, or the name whose meaning depends on the data's shapes."""
    return lambda value: resolve(registry, value) if isinstance(value, Mapping) else value


def _each(settings: Any, outputs: Sequence[str], make: Any) -> Any:
    """``make`` of one configured object, or of each in lists and in mappings by output."""
    if isinstance(settings, list):
        return [_each(item, outputs, make) for item in settings]
    if isinstance(settings, Mapping) and set(settings) <= set(outputs):
        return {name: _each(item, (), make) for name, item in settings.items()}
    return make(settings)
