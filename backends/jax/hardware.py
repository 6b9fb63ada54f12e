"""JAX's devices, and why there may be none."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar

import jax

from unilayers.hardware import Facts, Hardware, host, installed

DETERMINISTIC: ContextVar[bool] = ContextVar("deterministic", default=False)


def facts(device: str) -> Facts:
    if device == "cpu":
        return host()
    found = next(d for d in jax.devices("cuda") if f"cuda:{d.id}" == device)
    stats = found.memory_stats() or {}
    return Facts(found.device_kind, stats.get("bytes_limit", 0), getattr(found, "compute_capability", ""))


def missing() -> str:
    with suppress(RuntimeError):  # JAX has no such devices
        if jax.devices("cuda"):
            return ""
    if not any(installed(f"jax-cuda{version}-plugin") for version in (12, 13)):
        return "JAX's CUDA plugin is not installed: pip install 'jax[cuda13]'"
    return "JAX finds no device"


def exhausted(error: BaseException) -> bool:
    """JAX's errors come from XLA, with its words."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error))


def options() -> dict[str, bool | str] | None:
    """What XLA is told when it compiles a step."""
    return {"xla_gpu_deterministic_ops": True} if DETERMINISTIC.get() else None


def deterministic(on: bool) -> None:
    DETERMINISTIC.set(on)


HARDWARE = Hardware(facts, missing, exhausted, deterministic)
