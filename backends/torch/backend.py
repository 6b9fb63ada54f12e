"""The hooks of the PyTorch backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from unilayers.backend import Backend, Executable
from unilayers.graph import Graph
from unilayers.graph.emit import own_results, straight_line

from .cuda import replayed
from .hardware import HARDWARE
from .layout import kernels_of, laying
from .table import AT_ONCE, OVERWRITING, TABLE, VIEWS, tensor


def devices() -> list[str]:
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *cuda, *(["mps:0"] if torch.backends.mps.is_available() else [])]


@torch.inference_mode(False)  # what is put there under a user's inference mode may be kept, and used outside of it
def put(arrays: Sequence[np.ndarray], device: str) -> list[torch.Tensor]:
    """Copies to the device; a copy to CUDA is only queued, as the driver has taken the source when the call returns."""
    queued = device.startswith("cuda")
    return [tensor(a).to(device, non_blocking=queued) for a in arrays]


def get(array: torch.Tensor) -> np.ndarray:
    """bfloat16 comes as float32, which holds every value of it: NumPy has no such dtype."""
    array = array.detach().float() if array.dtype == torch.bfloat16 else array.detach()
    return array.to("cpu", copy=True).numpy()


def device_of(array: object) -> str | None:
    return str(array.device) if isinstance(array, torch.Tensor) else None


def compile(graph: Graph, device: str) -> Executable:
    graph = own_results(graph, VIEWS)
    step = straight_line(graph, TABLE, lambda a: put([a], device)[0], OVERWRITING, VIEWS)
    kernels = kernels_of(graph, {name: written for name, (_, written) in OVERWRITING.items()})
    step = torch.inference_mode()(laying(step, kernels))
    return replayed(step, graph.inputs, device) if device.startswith("cuda") else step


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
    "torch", TABLE, devices, put, get, device_of, compile, ("torch",), synchronize, memory, native_grad, AT_ONCE,
    HARDWARE, lambda device: device.startswith("cuda"),
)  # fmt: skip
