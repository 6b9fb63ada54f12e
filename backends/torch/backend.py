"""The hooks of the PyTorch backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from unilayers.backend import Backend, Executable, node_runner
from unilayers.graph import OPS, Graph, Node, Value, tracing
from unilayers.graph.emit import own_results, straight_line
from unilayers.graph.passes import as_values, optimise, rewrite

from .cuda import replayed
from .fuse import JOINED, VIEWS, fuse
from .hardware import HARDWARE
from .layout import kernels_of, laying
from .neural import fits
from .table import OVERWRITING, TABLE, tensor


def devices() -> list[str]:
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *cuda, *(["mps:0"] if torch.backends.mps.is_available() else [])]


def put(arrays: Sequence[np.ndarray], device: str) -> list[torch.Tensor]:
    """Copies to the device; a copy to CUDA is only queued, as the driver has taken the source when the call returns."""
    if torch.is_inference_mode_enabled():  # what is put there then may be kept, and used outside of it
        with torch.inference_mode(False):
            return put(arrays, device)
    if device == "cpu":
        return list(map(tensor, arrays))
    queued = device.startswith("cuda")
    return [tensor(a).to(device, non_blocking=queued) for a in arrays]


def feed(arrays: Sequence[np.ndarray], device: str, owned: bool) -> list[torch.Tensor]:
    """What is on the CPU has been read when a call returns; a step on CUDA brings its inputs there itself."""
    if device.startswith("cuda"):
        return list(arrays)
    if device != "cpu":
        return put(arrays, device)
    return [torch.from_numpy(a if a.flags.carray else np.array(a, order="C")) for a in arrays]


def get(array: torch.Tensor) -> np.ndarray:
    """bfloat16 comes as float32, which holds every value of it: NumPy has no such dtype."""
    array = array.detach() if array.requires_grad else array
    array = array.float() if array.dtype == torch.bfloat16 else array
    return np.array(array.numpy()) if array.is_cpu else array.cpu().numpy()


def device_of(array: object) -> str | None:
    return str(array.device) if isinstance(array, torch.Tensor) else None


def _where_kernels_fit(graph: Graph, device: str) -> Graph:
    """The graph with ops expanded that the table lists, but has no kernel for in their form, or on this device."""

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Sequence[Value] | None:
        expand = OPS[node.op].expand
        return None if expand is None or fits(node, device) else as_values(expand(*inputs, **attrs))

    with tracing():
        expanded = rewrite(graph, replace)
    return graph if expanded is graph else optimise(expanded, TABLE, node_runner(BACKEND, device))


def compile(graph: Graph, device: str) -> Executable:
    graph = own_results(_where_kernels_fit(graph, device), VIEWS)
    kernels = kernels_of(graph, {name: written for name, (_, written) in OVERWRITING.items()})
    step = straight_line(fuse(graph, device), {**TABLE, **JOINED}, lambda a: put([a], device)[0], OVERWRITING, VIEWS)
    step = laying(step, kernels)

    def run(state: list[Any], inputs: Sequence[Any]) -> Any:
        with torch._C._InferenceMode(True):  # what torch.inference_mode does, at a third of its cost
            return step(state, inputs)

    return replayed(run, graph.inputs, device) if device.startswith("cuda") else run


def synchronize() -> None:
    if torch.cuda.is_initialized():
        for i in range(torch.cuda.device_count()):
            torch.cuda.synchronize(i)
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def memory(device: str) -> dict[str, int]:
    if not device.startswith("cuda"):
        return {}
    return {"in_use": torch.cuda.memory_allocated(device), "peak": torch.cuda.max_memory_allocated(device)}


def native_grad(f: Callable[..., Any], arrays: Sequence[torch.Tensor], cotangent: Any) -> list[Any]:
    """Gradient of ``f(*arrays)`` by torch.autograd: an array per float array, None for the others.

    Args:
        f: A function of tensors that returns one tensor or a tuple of them.
        arrays: Where to differentiate.
        cotangent: What flows into each output: one array, or a tuple of them.
    """
    with torch.inference_mode(False):
        leaves = [a.clone().requires_grad_(a.is_floating_point()) for a in arrays]
        y = f(*leaves)
        outputs, flow = (y, cotangent) if isinstance(y, (tuple, list)) else ((y,), (cotangent,))
        wanted = [x for x in leaves if x.requires_grad]
        ways = [(y, g.clone()) for y, g in zip(outputs, flow, strict=True) if y.requires_grad]
        found = iter(torch.autograd.grad([y for y, _ in ways], wanted, [g for _, g in ways], materialize_grads=True))
        return [next(found) if x.requires_grad else None for x in leaves]


BACKEND = Backend(
    "torch", TABLE, devices, put, get, device_of, compile, ("torch",), synchronize, memory, native_grad, feed=feed,
    hardware=HARDWARE,
)  # fmt: skip
