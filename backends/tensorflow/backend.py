"""The hooks of the TensorFlow backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from unilayers.backend import Backend, Executable
from unilayers.graph import Graph
from unilayers.graph.emit import straight_line

from .hardware import HARDWARE
from .table import TABLE

# Ops without a kernel for the GPU run on the CPU, as everywhere in TensorFlow 2.
_SOFT = tf.compat.v1.ConfigProto(allow_soft_placement=True).SerializeToString()


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


def put(arrays: Sequence[np.ndarray], device: str) -> list[Any]:
    with tf.device(_place(device)):  # private copies, as TensorFlow may keep the very buffer it is given
        return [tf.constant(np.array(a, order="C")) for a in arrays]


def get(array: Any) -> np.ndarray:
    """bfloat16 comes as float32, which holds every value of it: NumPy has no such dtype."""
    return np.array(array, "float32" if array.dtype == tf.bfloat16 else None)


def device_of(array: object) -> str | None:
    if not isinstance(array, tf.Tensor):
        return None
    kind, _, index = array.device.rpartition("/device:")[2].partition(":")  # "" while a function is traced
    return f"cuda:{index}" if kind == "GPU" else "cpu"


def compile(graph: Graph, device: str) -> Executable:
    """Traces the graph at once, and calls the traced function as the op it is: ``tf.function`` would look at its
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
    dtypes = [v.dtype for v in (*graph.state, *graph.outputs.values())]

    def run(state: list[Any], inputs: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        with tf.device(place):
            call = tf.raw_ops.StatefulPartitionedCall
            results = call(args=[*state, *inputs], Tout=dtypes, f=traced, config_proto=_SOFT) if dtypes else []
        return results[:states], dict(zip(graph.outputs, results[states:], strict=True))

    return run


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
    hardware=HARDWARE,
)  # fmt: skip
