"""What an engine reaches on a device at best: the rate of a large matrix product, and that of a copy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.backend import Backend, get_backend
from unilayers.graph import Graph, Value, leaf, tracing
from unilayers.program import compile_graph
from unilayers.spec import Spec, host_dtype

SMALLEST, LARGEST = 256, 8192  # rows of a matrix
LONGEST = 0.3  # seconds that one product may take
REPEATS = 5
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}  # the second: of all threads of the process
COPIED = 1 << 22, 1 << 25  # numbers in float32: what allocators keep for the next call, and more than caches hold


@dataclass(frozen=True)
class Machine:
    """The rates that others are measured against.

    Args:
        flops: Floating-point operations in a second, of the best of some matrix products.
        bytes: Bytes read and written in a second, of the best of some long vectors that are doubled.
        dtype: Of the matrices.
    """

    flops: float
    bytes: float
    dtype: str

    def floor(self, flops: int, moved: int) -> float:
        """Seconds below which nothing with so many operations and bytes can be done at these rates.

        Args:
            flops: Floating-point operations.
            moved: Bytes that must be read or written.

        Example:
            >>> Machine(1e9, 1e8, "float32").floor(3_000_000, 100_000)
            0.003
        """
        return max(flops / self.flops, moved / self.bytes)


@cache
def machine(backend: str, device: str, dtype: str = "float32", clock: str = "wall") -> Machine:
    """Measure an engine on a device, which takes about a second; once in a process.

    Args:
        backend: The engine.
        device: The full name of a device of it.
        dtype: Of the matrices.
        clock: One of `CLOCKS`.

    Example:
        >>> found = machine("numpy", "cpu")
        >>> found.flops > 1e8, found.bytes > 1e7
        (True, True)
    """
    engine = get_backend(backend)
    best, size, seconds, now = 0.0, SMALLEST, 0.0, CLOCKS[clock]
    while size <= LARGEST and 8 * seconds < LONGEST:
        seconds = least(product(engine, device, size, dtype), now)
        best, size = max(best, 2 * size**3 / seconds), 2 * size
    copies = {n: _runner(engine, device, lambda x: ops.multiply(x, 2.0), [(n,)], "float32") for n in COPIED}
    return Machine(best, max(2 * 4 * n / least(copy, now) for n, copy in copies.items()), dtype)


def product(backend: Backend, device: str, size: int, dtype: str) -> Callable[[], None]:
    """A function that multiplies two square matrices, and returns when that is done.

    Args:
        backend: The engine.
        device: A device of it.
        size: Rows of a matrix.
        dtype: Of the numbers.
    """
    return _runner(backend, device, ops.matmul, [(size, size)] * 2, dtype)


def _runner(
    backend: Backend, device: str, function: Callable[..., Value], shapes: list[tuple[int, ...]], dtype: str
) -> Callable[[], None]:
    """A compiled function of arrays of ones that keeps its result where the last one was, as a training step does."""
    inputs = [leaf("input", f"x{i}", Spec(shape, dtype)) for i, shape in enumerate(shapes)]
    with tracing():
        result = function(*inputs)
    kept = leaf("state", "kept", result.spec)
    compiled = compile_graph(Graph(tuple(inputs), (kept,), {}, {"kept": result}), backend, device)
    held: Any = backend.put_as([np.zeros(result.shape, host_dtype(dtype))], [dtype], device)
    given = backend.put_as([np.ones(shape, host_dtype(dtype)) for shape in shapes], [dtype] * len(shapes), device)

    def run() -> None:
        nonlocal held
        held, _ = compiled(held, given)
        backend.synchronize()

    return run


def least(run: Callable[[], None], now: Callable[[], float] = time.perf_counter) -> float:
    """The fewest seconds of some calls, after one that is not counted: what else the machine does only adds.

    Args:
        run: What is called.
        now: The clock.
    """
    run()
    found = math.inf
    for _ in range(REPEATS):
        start = now()
        run()
        found = min(found, now() - start)
    return found
