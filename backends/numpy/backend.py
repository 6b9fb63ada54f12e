"""The hooks of the embedded backend: NumPy on the CPU, CuPy on CUDA devices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from unilayers.backends.replay import Replayed

from unilayers.backend import Backend, Executable
from unilayers.graph import Graph, Node
from unilayers.graph.passes import fold_constants

from .emit import load
from .fuse import unstretch
from .hardware import HARDWARE
from .kernels.contract import quiet
from .link import LinkedStep, aligned
from .loops import functions
from .onednn import in_use

Array = Any

# ---- devices --------------------------------------------------------------------


class _Devices(list[str]):
    """``["cpu"]`` and then the CUDA devices: CuPy is imported only when someone reads past the first."""

    def __iter__(self) -> Iterator[str]:
        yield "cpu"
        yield from _cuda_devices()

    def __len__(self) -> int:
        return 1 + len(_cuda_devices())

    def __contains__(self, name: object) -> bool:
        return any(name == there for there in self)

    def __eq__(self, other: object) -> bool:
        return [*self] == other

    def __repr__(self) -> str:
        return repr([*self])


def devices() -> list[str]:
    return _Devices(["cpu"])


def _cuda_devices() -> list[str]:
    """The CUDA devices that CuPy can use now."""
    if "cupy" not in sys.modules and find_spec("cupy") is None:
        return []
    try:
        count = import_module("cupy").cuda.runtime.getDeviceCount()
    except Exception:  # no driver, no device, a broken installation: each has its own class in CuPy
        return []
    return [f"cuda:{i}" for i in range(count)]


def device_of(array: object) -> str | None:
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return f"cuda:{array.device.id}"
    return "cpu" if isinstance(array, (np.ndarray, np.generic)) else None


def module(device: str) -> Any:
    """The array module of a device: NumPy or CuPy."""
    return import_module("cupy") if device.startswith("cuda") else np


def on(device: str) -> AbstractContextManager[Any]:
    """While active, new CuPy arrays are made on this device."""
    return module(device).cuda.Device(int(device.partition(":")[2])) if device.startswith("cuda") else nullcontext()


# ---- arrays ---------------------------------------------------------------------


def put(arrays: Sequence[np.ndarray], device: str) -> list[Array]:
    """Copies, packed: all arrays of one dtype lie one behind the other in one buffer, in order, scalars last.

    So the weights of a model, and each slot of its optimizer, can be updated as one long vector.
    """
    hosts = [np.asarray(a) for a in arrays]
    found: dict[int, Array] = {}
    with on(device):
        for dtype in dict.fromkeys(a.dtype for a in hosts):
            mine = sorted((i for i, a in enumerate(hosts) if a.dtype == dtype), key=lambda i: hosts[i].size <= 1)
            flat, start = aligned(module(device), sum(hosts[i].nbytes for i in mine)).view(dtype), 0
            for i in mine:
                stop = start + hosts[i].size
                found[i] = flat[start:stop].reshape(hosts[i].shape)
                load(found[i], hosts[i])
                start = stop
    return [found[i] for i in range(len(hosts))]


def feed(arrays: Sequence[np.ndarray], device: str, owned: bool) -> Sequence[Array]:
    """A step on the CPU has read its inputs when the call returns; one on CUDA brings them there itself."""
    return arrays


def get(array: Array) -> np.ndarray:
    return np.array(array) if device_of(array) == "cpu" else array.get()


# ---- graphs ---------------------------------------------------------------------


def _wherever(name: str) -> Callable[..., Any]:
    """An op's function for the arrays it is given: NumPy's, or CuPy's if one of them is on a GPU."""
    on_host = functions(np)[name]

    def call(*arrays: Array, **attrs: Any) -> Any:
        if "cupy" not in sys.modules:
            return on_host(*arrays, **attrs)
        device = next((d for d in map(device_of, arrays) if d not in (None, "cpu")), "cpu")
        with on(device):
            return functions(module(device))[name](*arrays, **attrs)

    return call


SMALL = 4096  # elements: below, what a kernel does to be fast takes longer than it saves


def _softmax(x: np.ndarray, axis: int) -> Any:
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.divide(e, e.sum(axis, keepdims=True), out=e)


def _log_softmax(x: np.ndarray, axis: int) -> Any:
    y = x - x.max(axis, keepdims=True)
    return np.subtract(y, np.log(np.exp(y).sum(axis, keepdims=True)), out=y)


def _layer_norm(x: Array, gamma: Array, beta: Array, axes: Sequence[int], epsilon: float) -> Array:
    shape = [d if a in axes else 1 for a, d in enumerate(x.shape)]
    x = x - x.mean(axes, keepdims=True)
    scale = np.sqrt(np.square(x).mean(axes, keepdims=True) + epsilon)
    return x / scale * gamma.reshape(shape) + beta.reshape(shape)


def _when_small(name: str, small: Callable[..., Any]) -> Callable[..., Any]:
    """An op's function: plain NumPy where arrays are small."""
    large = TABLE[name]

    def call(x: Array, **attrs: Any) -> Any:
        if type(x) is not np.ndarray or not 0 < x.size <= SMALL:
            return large(x, **attrs)
        with quiet(np):
            return small(x, **attrs)

    return call


def compile(graph: Graph, device: str) -> Executable:
    table = functions(module(device))

    def run(node: Node, arrays: list[np.ndarray]) -> Sequence[np.ndarray]:
        result = table[node.op](*put(arrays, device), **node.attrs)
        return [get(r) for r in (result if isinstance(result, (tuple, list)) else (result,))]

    if device == "cpu":
        return LinkedStep(fold_constants(unstretch(graph), run), np, table)
    from .cuda import CupyQueue, join, without_branches

    with on(device):
        graph, xp = fold_constants(unstretch(without_branches(graph)), run), module(device)
        step = Replayed(LinkedStep(graph, xp, table, join), CupyQueue(xp), graph.inputs)

    def run_there(state: list[Array], inputs: Sequence[Array]) -> tuple[list[Array], dict[str, Array]]:
        with on(device):
            return step(state, inputs)

    return run_there


def synchronize() -> None:
    """NumPy has finished when a call returns; CuPy has only begun."""
    if "cupy" in sys.modules:
        sys.modules["cupy"].cuda.runtime.deviceSynchronize()


def memory(device: str) -> dict[str, int]:
    if not device.startswith("cuda"):
        return {}
    pool = module(device).get_default_memory_pool()
    return {"used": pool.used_bytes(), "peak": pool.total_bytes()}


TABLE = {name: _wherever(name) for name in functions(np)}
AT_ONCE = {
    "layer_norm": _layer_norm,
    "relu": _when_small("relu", lambda x: np.maximum(x, 0.0)),
    "softmax": _when_small("softmax", _softmax),
    "log_softmax": _when_small("log_softmax", _log_softmax),
}
BACKEND = Backend(
    "numpy", TABLE, devices, put, get, device_of, compile, ("numpy",), synchronize, memory, at_once=AT_ONCE, feed=feed,
    libraries=lambda: {"oneDNN": in_use()},
    hardware=HARDWARE,
)  # fmt: skip
