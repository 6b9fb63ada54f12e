"""A run: training by a recipe, with everything that happened kept in one folder."""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from unilayers import config
from unilayers.backend import AUTO, get_backend, version_of
from unilayers.callbacks import Callback
from unilayers.callbacks.base import Saver
from unilayers.data import load
from unilayers.errors import CheckpointError, UnilayersError, nearest
from unilayers.models import Model
from unilayers.recipe.fit import check_fit
from unilayers.recipe.recipe import Parts, Recipe, load_recipe
from unilayers.saving import load_state, write_atomically

RECIPE, HISTORY, CHECKPOINT, ENVIRONMENT = "recipe.yaml", "history.jsonl", "checkpoint.safetensors", "environment.json"
HEAD = "# The recipe of this run with every default written out. It can be trained again: unilayers train recipe.yaml\n"


@dataclass
class Result:
    """What came of a training.

    Args:
        folder: The run folder.
        model: The trained model.
        history: The values of each epoch by name, from the first epoch on.
        scores: Loss and metrics of the trained model: ``val_...`` on the validation part, ``test_...`` on the test
            part, or those of the last epoch where there is neither.
        trained: Epochs trained now; 0 if a run that is resumed had all its epochs already.
    """

    folder: Path
    model: Model
    history: dict[str, list[float]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    trained: int = 0


class Interrupted(KeyboardInterrupt):
    """Training was interrupted; ``folder`` holds what is needed to go on, and ``fix`` says how."""

    def __init__(self, folder: Path, fix: str = "") -> None:
        super().__init__(f"interrupted; the run is in {folder}")
        self.folder, self.fix = folder, fix or f"Go on with: unilayers train --resume {folder}"


def train(
    recipe: Recipe,
    out: str | PathLike[str] | None = None,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    verbose: int | str = "auto",
    retime: bool = False,
) -> Result:
    """Train by a recipe; see ``Recipe.train``."""
    if recipe.backend != AUTO:
        get_backend(recipe.backend).device(recipe.device)  # errors before anything is read
    folder = _existing(out) if resume else unused_folder(out, recipe.name)
    data = recipe.data()
    parts, model = recipe.parts(data), recipe.build()
    check_fit(recipe, model, data, parts)
    if resume:
        _restore(model, recipe, folder)
    done = model.position.epoch
    patience = Patience()
    recorder = Recorder(recipe, folder, patience, resume)
    with config.dtype_scope(recipe.dtype), _deterministic(recipe), patience:
        try:
            model.fit(
                *parts.train,
                batch_size=recipe.batch_size,
                epochs=recipe.epochs,
                shuffle=recipe.settings["fit"]["shuffle"],
                validation_data=parts.validation,
                validation_freq=recipe.settings["fit"]["validation_freq"],
                callbacks=[*recipe.callbacks(folder), *callbacks, recorder],
                verbose=verbose,
                retime=retime,
            )
        except KeyboardInterrupt:
            if not (folder / RECIPE).is_file():  # before the first step
                raise
            raise Interrupted(folder) from None
        recorder.save(folder / CHECKPOINT)  # callbacks may have changed the weights at the end
        history = read_history(folder)
        found = scores(recipe, model, parts) or _last(history)
        return Result(folder, model, history, found, model.position.epoch - done)


@contextmanager
def _deterministic(recipe: Recipe) -> Iterator[None]:
    """While active, the engine's deterministic algorithms are on, where the recipe says so."""
    if not recipe.settings["deterministic"]:
        yield
        return
    if recipe.backend == AUTO:
        raise recipe.at("deterministic").error(
            "with backend 'auto' another run may be on another engine", fix="Name a backend: --backend torch"
        )
    engine = get_backend(recipe.backend).hardware
    engine.deterministic(True)
    try:
        yield
    finally:
        engine.deterministic(False)


def scores(recipe: Recipe, model: Model, parts: Parts) -> dict[str, float]:
    """Loss and metrics on the validation and test parts, as far as there are any."""
    found: dict[str, float] = {}
    for prefix, part in (("val", parts.validation), ("test", parts.test)):
        if part is not None:
            values = model.evaluate(*part, batch_size=recipe.batch_size, verbose=0, return_dict=True)
            found |= {f"{prefix}_{name}": value for name, value in values.items()}
    return found


def open_run(
    folder: str | PathLike[str], overrides: Sequence[str] = (), allow_imports: bool = False
) -> tuple[Recipe, Model]:
    """The recipe and the trained model of a run folder.

    Args:
        folder: The run folder.
        overrides: Values to replace in its recipe.
        allow_imports: See ``load_recipe``.

    Raises:
        UnilayersError: if it is no run folder, or its checkpoint is missing, damaged or of another model.
    """
    recipe = load_recipe(recipe_file(folder), overrides, allow_imports)
    model = recipe.build()
    with config.dtype_scope(recipe.dtype):
        load_state(model, Path(folder) / CHECKPOINT)
    return recipe, model


def evaluate_run(
    recipe: Recipe, model: Model, data: Any = None, part: str | None = None
) -> tuple[str, int, dict[str, float]]:
    """Loss and metrics of a trained model, with the name of what it was measured on and its number of samples.

    Args:
        recipe: The recipe.
        model: Its trained model.
        data: Another data set, all of which is taken: a name, a path, or what else ``data.load`` takes.
        part: ``train``, ``validation`` or ``test``; the last of these that there is if None.

    Raises:
        UnilayersError: if there is no such part, or the data does not fit the model.
    """
    dataset = recipe.data() if data is None else load(data)
    parts = recipe.parts(dataset) if data is None else Parts((dataset.x, dataset.y))
    check_fit(recipe, model, dataset, parts)
    found = {name: value for name, value in vars(parts).items() if value is not None}
    name = part or list(found)[-1]
    if name not in found:
        raise UnilayersError(f"no part {name!r}", where=recipe.name, fix=nearest(name, found))
    x, y = found[name]
    with config.dtype_scope(recipe.dtype):
        values = model.evaluate(x, y, batch_size=recipe.batch_size, verbose=0, return_dict=True)
    return name if data is None else dataset.name, len(x), values


# ---- the folder -----------------------------------------------------------------------------------------------------


class Patience:
    """Inside the block Ctrl-C is only noted, so that the step can end and be saved; the second one interrupts at once.

    Attributes:
        asked: Whether it was pressed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # elsewhere no signal arrives
            self._before = signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class Recorder(Saver):
    """Writes the run folder while the model trains; made when training starts, so that no error leaves one behind.

    Its recipe names the backend that was chosen, so that the run is resumed, or repeated, on that one.

    Args:
        recipe: What is trained.
        folder: Where to.
        patience: Says whether to stop after the step.
        resume: Whether to go on where the run in the folder stopped.
    """

    def __init__(self, recipe: Recipe, folder: Path, patience: Patience, resume: bool = False) -> None:
        self.recipe, self.folder, self._patience, self._resume = recipe, folder, patience, resume
        self._every: float = recipe.settings["fit"]["save_seconds"]

    def on_train_begin(self, logs: Any = None) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnilayersError(f"cannot make the run folder: {error.strerror}", where=str(self.folder)) from None
        with self._writing():
            self._begin()
        self._saved = time.perf_counter()
        self.model.start_epoch = self.model.position.epoch
        if self._resume and (self.folder / CHECKPOINT).is_file():
            self.go_on(self.folder / CHECKPOINT)

    def _begin(self) -> None:
        backend, device = self.params["backend"], self.params["device"]
        recipe = self.recipe.changed(f"backend={backend}") if self.recipe.backend == AUTO else self.recipe
        self._write(RECIPE, HEAD + recipe.to_yaml())
        environment = _after(self.folder / ENVIRONMENT, environment_of(backend, device))
        self._write(ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
        done = [line for line in read_lines(self.folder) if line["epoch"] <= self.model.position.epoch]
        self._write(HISTORY, "".join(json.dumps(line) + "\n" for line in done))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        due = self._patience.asked or time.perf_counter() - self._saved > self._every
        last = batch + 1 == self.params["steps"] or self.model.stop_training
        if due and not last:  # after the last one the epoch ends first
            self._save()

    def _save(self) -> None:
        self.save(self.folder / CHECKPOINT)
        self._saved = time.perf_counter()
        if self._patience.asked:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {name: _as_json(v) for name, v in (logs or {}).items()}
        line = {"epoch": epoch + 1, **values, "seconds": round(time.perf_counter() - self._start, 4)}
        with self._writing(), (self.folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        # After its line: what a crash in between leaves is an epoch without a checkpoint, which is done again.
        self._save()

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.folder / name, text.encode())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnilayersError("cannot write the run", where=str(self.folder), received=str(error)) from None


def unused_folder(out: str | PathLike[str] | None, name: str) -> Path:
    """The folder for something new: ``out``, or ``runs/<name>-<time>`` if None.

    Raises:
        UnilayersError: if there is something in it already.
    """
    if out is None:
        stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        names = (Path("runs", stem + end) for end in ("", *(f"-{i}" for i in range(2, 1000))))
        return next(folder for folder in names if not folder.exists())
    folder = Path(out).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        run = (folder / RECIPE).is_file()
        fix = f"Go on with it: unilayers train --resume {folder}; or choose another folder" if run else "Choose another"
        problem = "there is a run in this folder already" if run else "the run folder must be new or empty"
        raise UnilayersError(problem, where=str(folder), fix=fix)
    return folder


def recipe_file(folder: str | PathLike[str]) -> Path:
    """The resolved recipe in a run folder.

    Raises:
        UnilayersError: if the folder holds no run.
    """
    return _existing(folder) / RECIPE


def _existing(folder: str | PathLike[str] | None) -> Path:
    if folder is None:
        raise UnilayersError(
            "no run folder to go on with", where="resume", fix="Name it: train(out=folder, resume=True)"
        )
    found = Path(folder).expanduser()
    if not (found / RECIPE).is_file():
        problem = "not a run folder" if found.is_dir() else "no such run folder"
        raise UnilayersError(problem, where=str(folder), expected=f"a folder with {RECIPE} and {CHECKPOINT}")
    return found


def _restore(model: Model, recipe: Recipe, folder: Path) -> None:
    """Bring a new model to where the run stopped; a run without a checkpoint starts again."""
    if not (folder / CHECKPOINT).is_file():
        return
    wanted = model.optimizer.learning_rate
    before = load_recipe(folder / RECIPE, allow_imports=recipe.allow_imports).settings["optimizer"]
    (old,), (new,) = before, recipe.settings["optimizer"]
    if old != new:  # whose state may have the same names, and means something else
        fix = "Its arguments may differ, its class may not; train a new run with another one"
        raise CheckpointError("another optimizer", where=str(folder), expected=old, received=new, fix=fix)
    with config.dtype_scope(recipe.dtype):
        load_state(model, folder / CHECKPOINT)
    if recipe.settings["optimizer"] != before:  # the checkpoint's rate would win over the one now asked for
        model.optimizer.learning_rate = wanted


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of the history in a run folder, as far as they are whole."""
    path = folder / HISTORY
    texts = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [json.loads(text) for text in texts if text.endswith("}")]  # a line cut short by a crash is none


def read_history(folder: str | PathLike[str]) -> dict[str, list[float]]:
    """The values of each epoch by name, as a run folder has them."""
    found: dict[str, list[float]] = {}
    for line in read_lines(Path(folder)):
        for name, value in line.items():
            found.setdefault(name, []).append(math.nan if value is None else value)
    return found


def _last(history: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: values[-1] for name, values in history.items() if name not in ("epoch", "seconds")}


# ---- environment ----------------------------------------------------------------------------------------------------


def environment_of(backend: str, device: str) -> dict[str, Any]:
    """What the numbers may depend on besides the recipe."""
    packages = ("unilayers", "numpy", *get_backend(backend).packages)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "backend": backend,
        "device": device,
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in dict.fromkeys(packages)} | get_backend(backend).libraries(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
    }


def _as_json(value: Any) -> Any:
    """A number, or several; null for one that is not finite, which JSON cannot write."""
    if np.ndim(value):
        return [_as_json(v) for v in value]
    return float(value) if math.isfinite(value) else None


def _after(path: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of a run; those in which it was trained before it was resumed are kept in ``before``."""
    if not path.is_file():
        return dict(now)
    earlier = json.loads(path.read_text("utf-8"))
    return {**now, "before": [*earlier.pop("before", []), earlier]}
