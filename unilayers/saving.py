"""Checkpoints: one safetensors file with weights, optimizer state, configuration and position. Never pickle."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from unilayers import layers, optimizers
from unilayers.errors import CheckpointError, UnilayersError
from unilayers.models import Model
from unilayers.registry import plain, resolve, serialize
from unilayers.training.trainer import Position
from unilayers.variable import Variable

VERSION = 1
KEY = "unilayers"  # our entry in the file's metadata, a JSON text


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# ---- writing ----------------------------------------------------------------


def save_model(model: Model, path: Any, *, running: bool = False) -> None:
    """Everything that is needed to go on: see ``Model.save``.

    Args:
        model: The model.
        path: The file.
        running: Whether to keep, too, what the metrics have summed up, to go on in the middle of an epoch.
    """
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    about = {
        "model": serialize(model),
        "inputs": model.seen_inputs,
        "compile": _compile_config(model),
        "position": asdict(model.position),
    }
    _write(path, [*model.variables, *optimizer], about, model._running_values() if running else {})


def save_weights(model: Model, path: Any) -> None:
    """The model's variables alone."""
    _write(path, model.variables, {})


def _write(
    path: Any, variables: Sequence[Variable], about: Mapping[str, Any], others: Mapping[str, Variable] | None = None
) -> None:
    from safetensors.numpy import save

    tensors = {name: v.numpy() for name, v in (others or {}).items()}
    for v in variables:
        if v.path in tensors:
            raise CheckpointError(f"two variables are called {v.path!r}", fix="Give the layers names of their own")
        tensors[v.path] = np.array(v.numpy(), order="C")
    metadata = {KEY: json.dumps({"version": VERSION, **about})}
    try:
        write_atomically(Path(path), save(tensors, metadata))
    except OSError as error:
        raise CheckpointError("cannot write the checkpoint", where=str(path), received=str(error)) from None


def _compile_config(model: Model) -> Any:
    if model.optimizer is None:
        return None
    given = dict(model._compiled)
    given["optimizer"] = serialize(model.optimizer)
    try:
        return {name: plain(value, f"compile({name}=...)") for name, value in given.items()}
    except UnilayersError:
        return None  # a loss that is a local function: the rest can still be saved


# ---- reading ----------------------------------------------------------------


def read(path: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the description in a checkpoint.

    Raises:
        CheckpointError: no such file, damaged, not ours, or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CheckpointError("no such checkpoint", where=str(path))
    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            "the checkpoint is damaged or not a safetensors file", where=str(path), received=str(error)
        ) from None
    if KEY not in metadata:
        raise CheckpointError("not a checkpoint of unilayers", where=str(path), expected=f"metadata {KEY!r}")
    about = json.loads(metadata[KEY])
    if about["version"] > VERSION:
        raise CheckpointError(
            "written by a newer version of unilayers",
            where=str(path),
            expected=f"checkpoint version up to {VERSION}",
            received=str(about["version"]),
            fix="Upgrade with: pip install -U unilayers",
        )
    return tensors, about


def load_weights(model: Model, path: Any) -> None:
    """Set a model's variables from a file; see ``Model.load_weights``."""
    tensors, _ = read(path)
    _assign(model.variables, tensors, path)


def load_state(model: Model, path: Any, *, running: bool = False) -> None:
    """Set weights, optimizer state and position of a model that is built and compiled, to go on training it.

    Args:
        model: The model.
        path: The file.
        running: Whether to go on with what the metrics had summed up.
    """
    tensors, about = read(path)
    variables = list(model.variables)
    if model.optimizer is not None and any(name.startswith("optimizer/") for name in tensors):
        if not model.optimizer.variables:
            model.optimizer.build(model.trainable_weights)
        variables += model.optimizer.variables
    _assign(variables, tensors, path)
    model.position = Position(**about.get("position", {}))
    if running and model.position.batch:
        model._resume_values({name: x for name, x in tensors.items() if name.startswith("metrics/")})


def _assign(variables: Sequence[Variable], tensors: Mapping[str, np.ndarray], path: Any) -> None:
    """All or nothing: every variable must be there with its shape before the first is set."""
    for v in variables:
        if v.path not in tensors:
            raise CheckpointError(
                f"no value for {v.path!r}",
                where=str(path),
                expected=f"{len(variables)} variables of this model",
                received=f"{len(tensors)} tensors, such as {', '.join(list(tensors)[:3])}",
                fix="Is it the checkpoint of another model?",
            )
        if tensors[v.path].shape != v.shape:
            raise CheckpointError(
                f"{v.path!r} has another shape",
                where=str(path),
                expected=str(v.shape),
                received=str(tensors[v.path].shape),
            )
    for v in variables:
        v.assign(tensors[v.path])


def load_model(path: Any, *, allow_imports: bool = False) -> Any:
    """The model that ``Model.save`` wrote: same architecture, weights, optimizer state and position.

    Args:
        path: The file.
        allow_imports: Whether classes from outside unilayers may be imported by the name in the file. Importing runs
            that module's code, so allow it for files you trust; classes already defined are found without it.

    Raises:
        CheckpointError: if the file is not a whole checkpoint.
    """
    _, about = read(path)
    if "model" not in about:
        raise CheckpointError(
            "the file holds weights only", where=str(path), fix="Build the model and call load_weights"
        )
    if allow_imports:
        import_named(about["model"])
    model = resolve(layers.Layer.registry, about["model"], where=str(path))
    model.run_eagerly = (about.get("compile") or {}).get("run_eagerly", False)
    if about.get("inputs") is not None:
        model.build_from_shapes(about["inputs"])
    elif model.input_structure is not None:
        model.ensure_built()
    if about.get("compile"):
        told = dict(about["compile"])
        model.compile(optimizers.get(told.pop("optimizer")), told.pop("loss"), told.pop("metrics"), **told)
    load_state(model, path)
    return model


def import_named(config: Any) -> None:
    """Import the modules of every ``module:Class`` name in a config."""
    import importlib

    if isinstance(config, Mapping):
        for name, value in config.items():
            if ":" in str(name):
                importlib.import_module(str(name).partition(":")[0])
            import_named(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            import_named(value)
