"""The hooks of the JAX backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unilayers.backend import Backend, Executable
from unilayers.graph import Graph
from unilayers.graph.emit import own_results, straight_line

from .hardware import HARDWARE, options
from .precision import in_64_bits
from .table import TABLE, VIEWS

_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"


@cache
def _devices() -> dict[str, Any]:
    """JAX's devices by their names here. The first question starts JAX, which must leave other engines some memory."""
    chosen = _PREALLOCATE in os.environ
    os.environ.setdefault(_PREALLOCATE, "false")  # JAX reads it as it starts, and would take three quarters of a GPU
    try:
        found = {"cpu": jax.devices("cpu")[0]}
        with suppress(RuntimeError):  # JAX has no such devices
            found.update({f"cuda:{d.id}": d for d in jax.devices("cuda")})
        return found
    finally:
        if not chosen:
            del os.environ[_PREALLOCATE]


def devices() -> list[str]:
    return list(_devices())


@in_64_bits
def put(arrays: Sequence[np.ndarray], device: str) -> list[Any]:
    """Copies: JAX may keep the very buffer it is given."""
    return jax.device_put([np.array(a, order="C") for a in arrays], _devices()[device])


def feed(arrays: Sequence[np.ndarray], device: str, owned: bool) -> Sequence[Any]:
    """Compiled functions take NumPy's arrays, which they may read later; those of 64 bits only where these are on."""
    if any(a.dtype.itemsize > 4 for a in arrays):
        return put(arrays, device)
    return arrays if owned else [np.array(a, order="C") for a in arrays]


def get(array: Any) -> np.ndarray:
    """bfloat16 comes as float32, which holds every value of it: NumPy has no such dtype."""
    return np.array(array, "float32" if array.dtype == jnp.bfloat16 else None)


def device_of(array: object) -> str | None:
    """While a function is traced, its arrays are on the device that it is traced for."""
    if not isinstance(array, jax.Array):
        return None
    traced = isinstance(array, jax.core.Tracer)
    device = jax.config.jax_default_device if traced else next(iter(array.devices()))
    return "cpu" if device is None or device.platform == "cpu" else f"cuda:{device.id}"


@in_64_bits
def compile(graph: Graph, device: str) -> Executable:
    """Compiles at once. State that gets a new value is donated, so that XLA may write that into the old one's memory;
    other state is only read."""
    graph = own_results(graph, VIEWS)
    step = straight_line(graph, TABLE, jnp.asarray)
    moving = [i for i, v in enumerate(graph.state) if graph.updates.get(v.node.attrs["name"], v) is not v]
    fixed = sorted({*range(len(graph.state))} - {*moving})
    states, count, names = len(graph.state), len(moving), list(graph.outputs)

    def pure(*arrays: Any) -> list[Any]:  # flat, as JAX takes a nesting apart at each call
        new, outputs = step(list(arrays[:states]), arrays[states:])
        return [*(new[i] for i in moving), *outputs.values()]

    place = jax.sharding.SingleDeviceSharding(_devices()[device])
    leaves = [jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=place) for v in (*graph.state, *graph.inputs)]
    with jax.default_device(_devices()[device]):
        compiled = jax.jit(pure, donate_argnums=moving, compiler_options=options()).lower(*leaves).compile()

    def run(state: list[Any], inputs: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        found = compiled(*state, *inputs)
        new, outputs = found[:count], dict(zip(names, found[count:], strict=True))
        for i in fixed:
            new.insert(i, state[i])
        return new, outputs

    return run


def synchronize() -> None:
    """JAX waits for arrays, not for devices."""
    for platform in {d.platform for d in _devices().values()}:
        jax.block_until_ready(jax.live_arrays(platform))


def memory(device: str) -> dict[str, int]:
    stats = _devices()[device].memory_stats()
    return {"in_use": stats["bytes_in_use"], "peak": stats["peak_bytes_in_use"]} if stats else {}


@in_64_bits
def native_grad(f: Callable[..., Any], arrays: Sequence[Any], cotangent: Any) -> list[Any]:
    """Gradient of ``f(*arrays)`` by jax.vjp: an array per float array, None for the others."""
    wanted = [jnp.issubdtype(x.dtype, jnp.floating) for x in arrays]

    def of_floats(*floats: Any) -> Any:
        given = iter(floats)
        return f(*(next(given) if w else x for x, w in zip(arrays, wanted, strict=True)))

    _, pull = jax.vjp(of_floats, *(x for x, w in zip(arrays, wanted, strict=True) if w))
    found = iter(pull(cotangent))
    return [next(found) if w else None for w in wanted]


BACKEND = Backend(
    "jax", TABLE, devices, put, get, device_of, compile, ("jax", "jaxlib"), synchronize, memory, native_grad, feed=feed,
    hardware=HARDWARE,
)  # fmt: skip
