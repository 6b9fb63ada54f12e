"""PyTorch's devices, and why there may be none."""

from __future__ import annotations

import os

import torch

from unilayers.hardware import Facts, Hardware, host

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it as it starts; without it products may differ from run to run
TEXTS = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")


def facts(device: str) -> Facts:
    if not device.startswith("cuda"):
        return host() if device == "cpu" else Facts()
    found = torch.cuda.get_device_properties(device)
    return Facts(found.name, found.total_memory, f"{found.major}.{found.minor}")


def missing() -> str:
    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA: see https://pytorch.org/get-started/locally"
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return f"PyTorch finds no device: {error}"
    return "PyTorch finds no device"


def exhausted(error: BaseException) -> bool:
    """On the CPU there is no class for it, only words."""
    ran_out = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
    return ran_out or (isinstance(error, RuntimeError) and any(text in str(error) for text in TEXTS))


def deterministic(on: bool) -> None:
    """Ops without a deterministic kernel raise an error."""
    if on:
        os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.deterministic = on


HARDWARE = Hardware(facts, missing, exhausted, deterministic)
