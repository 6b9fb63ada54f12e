"""Checkpoints: one safetensors file with weights, optimizer state, configuration and position. Never pickle.

The format is the same whatever the file is called: ``model.safetensors``, ``model.keras``, ``model.weights.h5``.
"""

from __future__ import annotations

import json
import os
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from unilayers import layers, ops
from unilayers.callbacks import Callback
from unilayers.custom import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from unilayers.errors import CheckpointError, UnilayersError
from unilayers.models import Model
from unilayers.registry import plain, resolve, serialize
from unilayers.serialization import deserialize_keras_object, serialize_keras_object
from unilayers.spec import host_dtype
from unilayers.training.trainer import Position
from unilayers.variable import Variable

VERSION = 1
KEY = "unilayers"  # our entry in the file's metadata, a JSON text
FOREIGN = {b"PK": "a zip archive, as Keras writes", b"\x89HDF": "HDF5, as Keras writes"}  # by the first bytes


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


def save_model(
    model: Model,
    filepath: Any,
    overwrite: bool = True,
    zipped: bool | None = None,
    *,
    callbacks: Iterable[tuple[str, Callback]] = (),
) -> None:
    """Everything that is needed to go on: see ``Model.save``.

    Args:
        model: The model.
        filepath: The file.
        overwrite: Whether to replace a file that is there.
        zipped: Kept for Keras's signature.
        callbacks: Callbacks by name whose states are saved, too, for ``resume_fit``.
    """
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    built = {x.path: plain(x.get_build_config(), x.where) for x in model.layers_below if _writes(x, *BUILDING)}
    about = {
        "model": serialize(model),
        "inputs": model.seen_inputs,
        "build": built,
        "compile": compile_config(model),
        "position": asdict(model.position),
    }
    running = model._running_values() if model.position.of_epoch else {}
    others = _kept_by_layers(model) | {name: v.numpy() for name, v in running.items()}
    states = {name: _packed(callback.get_state(), others, name) for name, callback in callbacks}
    if any(states.values()):
        about["callbacks"] = {name: state for name, state in states.items() if state}
    _write(filepath, [*_plain_variables(model), *optimizer], about, overwrite, others)


def save_weights(model: Model, filepath: Any, overwrite: bool = True) -> None:
    """The model's variables alone."""
    _write(filepath, _plain_variables(model), {}, overwrite, _kept_by_layers(model))


BUILDING = ("get_build_config", "build_from_config")
KEEPING = ("save_own_variables", "load_own_variables")


def _writes(layer: layers.Layer, *methods: str) -> bool:
    """Whether the layer's class has written one of these methods itself."""
    return any(getattr(type(layer), name) is not getattr(layers.Layer, name) for name in methods)


def _plain_variables(model: Model) -> list[Variable]:
    """The variables that are kept as they are, by their paths."""
    own = {v for layer in model.layers_below if _writes(layer, *KEEPING) for v in layer._variables}
    return [v for v in model.variables if v not in own]


def _kept_by_layers(model: Model) -> dict[str, np.ndarray]:
    """What layers keep in their own way, as ``path:name``."""
    found: dict[str, np.ndarray] = {}
    for layer in model.layers_below:
        if _writes(layer, *KEEPING):
            store: dict[str, Any] = {}
            layer.save_own_variables(store)
            found |= {f"{layer.path}:{name}": ops.to_numpy(value) for name, value in store.items()}
    return found


def _load_by_layers(model: Model, tensors: Mapping[str, np.ndarray]) -> None:
    for layer in model.layers_below:
        if _writes(layer, *KEEPING):
            start = f"{layer.path}:"
            layer.load_own_variables({k.removeprefix(start): x for k, x in tensors.items() if k.startswith(start)})


def _write(
    path: Any,
    variables: Sequence[Variable],
    about: Mapping[str, Any],
    overwrite: bool,
    others: Mapping[str, np.ndarray],
) -> None:
    from safetensors.numpy import save

    if not overwrite and Path(path).exists():
        raise CheckpointError("the file is there already", where=str(path), fix="Pass overwrite=True to replace it")
    tensors = {name: np.array(x, order="C") for name, x in others.items()}
    for v in variables:
        if v.path in tensors:
            raise CheckpointError(f"two variables are called {v.path!r}", fix="Give the layers names of their own")
        tensors[v.path] = np.array(v.numpy(), order="C")
    metadata = {KEY: json.dumps({"version": VERSION, **about})}
    try:
        write_atomically(Path(path), save(tensors, metadata))
    except OSError as error:
        raise CheckpointError("cannot write the checkpoint", where=str(path), received=str(error)) from None


ARRAY = "$array"  # the key of a mapping that stands for an array among the tensors


def _packed(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    """A value of a callback's state as JSON has it; its arrays are put aside, by the names that stand in their place.

    Args:
        value: The value.
        arrays: Takes the arrays.
        where: What the value is called.
    """
    if isinstance(value, (np.bool_, np.number)):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.isbuiltin == 1 and value.dtype.kind in "biuf":
        name = f"callbacks/{where}"
        while name in arrays:
            name += "'"
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, (list, tuple)):
        return [_packed(item, arrays, f"{where}.{i}") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) and key != ARRAY for key in value):
        return {key: _packed(item, arrays, f"{where}.{key}") for key, item in value.items()}
    raise CheckpointError(
        "a callback's state that cannot be saved",
        where=where,
        expected="numbers, texts, truth values, None, arrays, lists and dicts of these",
        received=f"{_short(value)} of type {type(value).__name__}",
    )


def _unpacked(value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    """What ``_packed`` was given."""
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return tensors[value[ARRAY]]
        return {key: _unpacked(item, tensors) for key, item in value.items()}
    return value


def compile_config(model: Model) -> Any:
    """What the model was compiled with, as plain data; see ``Model.get_compile_config``."""
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
    """The tensors and the description in a checkpoint. Nothing in the file is run, and nothing larger is allocated.

    Raises:
        CheckpointError: no such file, damaged, not ours, or of a newer version.
    """
    with _opened(path) as file:
        about = _about(file, path)
        return {name: _tensor(file, name) for name in file.keys()}, about  # noqa: SIM118


def describe(path: Any) -> dict[str, Any]:
    """The description in a checkpoint, without its tensors.

    Raises:
        CheckpointError: as ``read`` does.
    """
    with _opened(path) as file:
        return _about(file, path)


def _tensor(file: Any, name: str) -> np.ndarray:
    """A tensor of a dtype that is NumPy's own, whatever has been added to it."""
    with suppress(TypeError, AttributeError):
        found: np.ndarray = file.get_tensor(name)
        if found.dtype.isbuiltin == 1:
            return found
    raise ValueError(f"tensor {name!r} in {file.get_slice(name).get_dtype()}, a dtype that NumPy does not have")


def _about(file: Any, path: Any) -> dict[str, Any]:
    metadata = file.metadata() or {}
    with Path(path).open("rb") as raw:  # a tensor, or our entry, may stand twice, which safetensors takes
        json.loads(raw.read(int.from_bytes(raw.read(8), "little")), object_pairs_hook=_unique)
    if KEY not in metadata:
        raise CheckpointError("not a checkpoint of unilayers", where=str(path), expected=f"metadata {KEY!r}")
    try:
        about = json.loads(metadata[KEY], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "JSON", str(error)) from None
    if not isinstance(about, dict) or not _is_count(about.get("version")):
        raise _unreadable(path, "a mapping with its version", _short(about))
    if about["version"] > VERSION:
        raise CheckpointError(
            "written by a newer version of unilayers",
            where=str(path),
            expected=f"checkpoint version up to {VERSION}",
            received=str(about["version"]),
            fix="Upgrade with: pip install -U unilayers",
        )
    for name, empty in (("model", {}), ("compile", None), ("position", {}), ("callbacks", {})):
        if not isinstance(about.get(name, empty), (dict, type(empty))):
            raise _unreadable(path, f"a mapping {name!r}", _short(about[name]))
    known = [f.name for f in fields(Position)]
    for name, value in about.get("position", {}).items():
        if name not in known or not _is_count(value):
            raise _unreadable(path, f"a position of {', '.join(known)}, each a count", f"{name}: {_short(value)}")
    return about


@contextmanager
def _opened(path: Any) -> Iterator[Any]:
    """The file, opened; what goes wrong while it is read is told as what is wrong with it."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CheckpointError("no such checkpoint", where=str(path))
    try:
        with safe_open(str(path), framework="np") as file:
            yield file
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, RecursionError, MemoryError) as error:
        head = b""
        with suppress(OSError), Path(path).open("rb") as raw:
            head = raw.read(4)
        foreign = next((what for start, what in FOREIGN.items() if head.startswith(start)), "")
        raise CheckpointError(
            "the checkpoint is damaged or not a safetensors file",
            where=str(path),
            received=foreign or str(error),
            fix="Build the model here and set_weights with those that Keras's get_weights gives" if foreign else "",
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The mapping of a JSON text, in which no key may stand twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return found


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _short(value: Any) -> str:
    return repr(value)[:80]


def _unreadable(path: Any, expected: str, received: str) -> CheckpointError:
    return CheckpointError("its description is damaged", where=str(path), expected=expected, received=received)


def load_weights(model: Model, filepath: Any, skip_mismatch: bool = False) -> None:
    """Set a model's variables from a file; see ``Model.load_weights``."""
    tensors, _ = read(filepath)
    variables = _plain_variables(model)
    if skip_mismatch:
        fitting = [v for v in variables if v.path in tensors and tensors[v.path].shape == v.shape]
        left = [v.path for v in variables if v not in fitting]
        if left:
            warnings.warn(f"{filepath}: no value that fits {', '.join(left)}; left as they are", stacklevel=3)
        variables = fitting
    _assign(variables, tensors, filepath)
    _load_by_layers(model, tensors)


def load_state(model: Model, path: Any) -> None:
    """Set weights, optimizer state and position of a model that is built and compiled, to go on training it; in the
    middle of an epoch what the metrics had summed up, too."""
    tensors, about = read(path)
    variables = _plain_variables(model)
    _check([(v.path, v) for v in variables], tensors, path)
    if model.optimizer is not None and any(name.startswith("optimizer/") for name in tensors):
        if not model.optimizer.variables:
            model.optimizer.build(model.trainable_weights)
        variables += model.optimizer.variables
    at = about.get("position", {})
    if at.get("of_epoch"):
        _check([(n, v) for n, v in model._running_values().items() if n in tensors], tensors, path)
    _assign(variables, tensors, path)
    _load_by_layers(model, tensors)
    model.position = Position(**{"sweep": at.get("epoch", 0)} | at)  # which were one, before there were sweeps
    if model.position.of_epoch:
        _resume(model, tensors)


def resume_fit(model: Model, path: Any, callbacks: Iterable[tuple[str, Callback]] = ()) -> None:
    """Let a ``fit`` that is about to begin go on where the one was that wrote the file: in the middle of an epoch with
    its next batch and what the metrics had summed up, and with the states of the callbacks. The state of the model is
    for ``load_state`` to set before.

    Args:
        model: The model.
        path: The file.
        callbacks: Those of this ``fit`` by name. One that the file knows nothing of begins anew.

    Raises:
        CheckpointError: if the file is damaged.
    """
    tensors, about = read(path)
    model.start_batch = model.position.of_epoch
    if model.start_batch:
        _resume(model, tensors)
    states = about.get("callbacks", {})
    for name, callback in callbacks:
        if name in states:
            try:
                callback.set_state(_unpacked(states[name], tensors))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                received = f"{type(error).__name__}: {error}"
                raise CheckpointError(f"no state of {name} in it", where=str(path), received=received) from error


def _resume(model: Model, tensors: Mapping[str, np.ndarray]) -> None:
    model._resume_values({name: x for name, x in tensors.items() if name.startswith("metrics/")})


def _assign(variables: Sequence[Variable], tensors: Mapping[str, np.ndarray], path: Any) -> None:
    """All or nothing: every variable must be there with its shape before the first is set."""
    _check([(v.path, v) for v in variables], tensors, path)
    for v in variables:
        v.assign(tensors[v.path])


def _check(variables: Sequence[tuple[str, Variable]], tensors: Mapping[str, np.ndarray], path: Any) -> None:
    """There is a value for each variable, by its name in the file, of its shape and kind of dtype."""
    for name, v in variables:
        if name not in tensors:
            raise CheckpointError(
                f"no value for {name!r}",
                where=str(path),
                expected=f"{len(variables)} variables of this model",
                received=f"{len(tensors)} tensors, such as {', '.join(list(tensors)[:3])}",
                fix="Is it the checkpoint of another model?",
            )
        if tensors[name].shape != v.shape:
            raise CheckpointError(
                f"{name!r} has another shape",
                where=str(path),
                expected=str(v.shape),
                received=str(tensors[name].shape),
            )
        if tensors[name].dtype.kind != np.dtype(host_dtype(v.dtype)).kind:
            raise CheckpointError(
                f"{name!r} has a dtype of another kind",
                where=str(path),
                expected=v.dtype,
                received=str(tensors[name].dtype),
            )


def load_model(
    filepath: Any,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
    *,
    allow_imports: bool = False,
) -> Any:
    """The model that ``Model.save`` wrote: same architecture, weights, optimizer state and position.

    Args:
        filepath: The file.
        custom_objects: Classes and functions of one's own by name, where they are known by no other way: a class is
            known once it is defined, a function if it is registered.
        compile: Whether to compile it as it was and to take up the optimizer's state.
        safe_mode: Taken for the sake of scripts: nothing in a file is ever run as code.
        allow_imports: Whether classes from outside unilayers may be imported by the name in the file. Importing runs
            that module's code, so allow it for files you trust; classes already defined are found without it.

    Raises:
        CheckpointError: if the file is not a whole checkpoint.
        UnilayersError: for a class or function that is not known.
    """
    _, about = read(filepath)
    if "model" not in about:
        raise CheckpointError(
            "the file holds weights only", where=str(filepath), fix="Build the model and call load_weights"
        )
    if allow_imports:
        import_named(about["model"])
    with custom_object_scope(custom_objects):
        try:
            model = _described(about, filepath, compile)
        except UnilayersError:
            raise
        except Exception as error:
            received = f"{type(error).__name__}: {error}"
            raise CheckpointError("no model can be made of it", where=str(filepath), received=received) from error
    load_state(model, filepath)
    return model


def _described(about: Mapping[str, Any], path: Any, compile: bool) -> Model:
    """The model in a description, with its first weights."""
    model = resolve(layers.Layer.registry, about["model"], where=str(path))
    if not isinstance(model, Model):
        raise CheckpointError("its description is of no model", where=str(path), received=type(model).__name__)
    for layer in model.layers_below:
        if not layer.built and about.get("build", {}).get(layer.path) is not None:
            layer.build_from_config(about["build"][layer.path])
            object.__setattr__(layer, "built", True)
    model.run_eagerly = (about.get("compile") or {}).get("run_eagerly", False)
    if about.get("inputs") is not None:
        model.build_from_shapes(about["inputs"])
    elif model.input_structure is not None:
        model.ensure_built()
    if compile and about.get("compile"):
        model.compile_from_config(about["compile"])
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


__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]
