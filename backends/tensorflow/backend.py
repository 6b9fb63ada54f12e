"""The hooks of the TensorFlow backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context, execute  # what the public ways call in the end, at half their price
from tensorflow.python.framework.ops import EagerTensor

from unilayers.backend import Backend, Executable
from unilayers.graph import Graph
from unilayers.graph.emit import straight_line

from .hardware import HARDWARE
from .table import TABLE


@cache
def _gpus() -> int:
    """How many GPUs there are; asked before TensorFlow starts, so that it does not take all of their memory."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # somebody has started TensorFlow already, with their own choice
            break
    return len(gpus)


def devices() -> list[str]:
    return ["cpu", *(f"cuda:{i}" for i in range(_gpus()))]


def _place(device: str) -> str:
    """TensorFlow's name of a device, for ``tf.device``."""
    _gpus()
    return device.replace("cuda", "GPU").replace("cpu", "CPU:0")


@cache
def _full_name(device: str) -> str:
    """The name that a tensor on a device gives for it."""
    with tf.device(_place(device)):
        return str(tf.identity(tf.zeros(())).device)


def put(arrays: Sequence[np.ndarray], device: str) -> list[Any]:
    with tf.device(_place(device)):  # private copies, as TensorFlow may keep the very buffer it is given
        return [tf.constant(np.array(a, order="C")) for a in arrays]


def feed(arrays: Sequence[np.ndarray], device: str, owned: bool) -> list[Any]:
    """TensorFlow may keep the very buffer it is given."""
    place = _full_name(device)
    return [EagerTensor(a if owned else np.array(a, order="C"), place, None) for a in arrays]


def get(array: Any) -> np.ndarray:
    """bfloat16 comes as float32, which holds every value of it: NumPy has no such dtype."""
    return np.array(array, "float32" if array.dtype == tf.bfloat16 else None)


def device_of(array: object) -> str | None:
    if not isinstance(array, tf.Tensor):
        return None
    kind, _, index = array.device.rpartition("/device:")[2].partition(":")  # "" while a function is traced
    return f"cuda:{index}" if kind == "GPU" else "cpu"


def compile(graph: Graph, device: str) -> Executable:
    """Traces the graph at once, and runs the traced function as the op it is: ``tf.function`` would look at its
    arguments one by one, which takes longer than a small step."""
    place, states = _place(device), len(graph.state)

    @tf.function(autograph=False)
    def step(*arrays: Any) -> list[Any]:
        # straight_line runs in here, so that constants become nodes of TensorFlow's graph, which it folds.
        with tf.device(place):
            state, outputs = straight_line(graph, TABLE, tf.constant)(list(arrays[:states]), arrays[states:])
        return [*state, *outputs.values()]

    leaves = (*graph.state, *graph.inputs)
    traced = step.get_concrete_function(*(tf.TensorSpec(v.shape, v.dtype) for v in leaves))
    there, function, count, names = context.context(), traced.inference_fn, len(traced.outputs), list(graph.outputs)
    attrs = tuple(chain(*there.function_call_options.as_attrs().items()))

    def run(state: list[Any], inputs: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        found = execute.execute(function.name, count, [*state, *inputs], attrs, there) if count else []
        return found[:states], dict(zip(names, found[states:], strict=True))

    def run_there(state: list[Any], inputs: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        with tf.device(place):
            return run(state, inputs)

    return run_there if _gpus() else run


def synchronize() -> None:
    tf.test.experimental.sync_devices()


def memory(device: str) -> dict[str, int]:
    if not device.startswith("cuda"):
        return {}
    info = tf.config.experimental.get_memory_info(_place(device))
    return {"in_use": info["current"], "peak": info["peak"]}


def native_grad(f: Callable[..., Any], arrays: Sequence[Any], cotangent: Any) -> list[Any]:
    """Gradient of ``f(*arrays)`` by tf.GradientTape: an array per float array, None for the others."""
    wanted = [x for x in arrays if x.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(wanted)
        y = f(*arrays)
    found = iter(tape.gradient(y, wanted, cotangent, unconnected_gradients=tf.UnconnectedGradients.ZERO))
    # A gradient may come as rows with their indices, which is not a tensor yet.
    return [tf.convert_to_tensor(next(found)) if x.dtype.is_floating else None for x in arrays]


BACKEND = Backend(
    "tensorflow", TABLE, devices, put, get, device_of, compile, ("tensorflow",), synchronize, memory, native_grad,
    feed=feed, hardware=HARDWARE,
)  # fmt: skip
