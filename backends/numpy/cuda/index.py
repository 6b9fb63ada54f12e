"""Kernels that are no programs: gradients of look-ups, and updates of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

from unilayers.backends.numpy.action import Action
from unilayers.backends.numpy.choices import DETERMINISTIC
from unilayers.backends.numpy.kernels import Kernel
from unilayers.backends.numpy.kernels.contract import Array, Calls, dense

from .expressions import TYPES
from .launch import Launch
from .source import MOST_BLOCKS, THREADS, Source, finished
from .updates import SCALARS, update

ADDED = ("float32", "float64", "int32")  # what devices can add to in memory that others add to


def own_kernels(action: Action) -> Kernel | None:
    """The kernel for a single action, where there is one."""
    if action.op in SCALARS:
        return update(action.op)
    return _TAKE_GRAD if action.op == "take_grad" and action.outputs[0].dtype in ADDED else None


def _take_grad(do: Calls, g: Array, indices: Array, y: Array, *, axis: int, size: int) -> None:
    """Every element added where it was taken from; in which order, a device decides anew each time, unless it is told
    not to."""
    g, indices = dense(do, g), dense(do, indices)
    after = math.prod(g.shape[axis + indices.ndim :])
    kind = in_order if DETERMINISTIC.get() else scatter
    do(y.fill, 0)
    do(Launch(do.xp, kind(g.dtype.name, indices.dtype.name, g.size, indices.size, after, size)), g, indices, y)


def scatter(dtype: str, index: str, total: int, taken: int, after: int, size: int) -> Source:
    """``y[b, indices[n], a] += g[b, n, a]``, each as it comes.

    Args:
        dtype: Of g and y.
        index: Dtype of the indices.
        total: Elements of g.
        taken: How many indices there are.
        after: Elements behind the axis.
        size: Of the axis in y.
    """
    add = f"atomicAdd(&y0[(b * {size} + at) * {after} + i % {after}], a0[i]);"
    return _each("scatter", dtype, index, total, taken, after, size, [add])


def in_order(dtype: str, index: str, total: int, taken: int, after: int, size: int) -> Source:
    """The same, all that goes to one place added by the thread that has the first of it: as long as it takes to look
    at all indices for each element, but with the same bits every time. The arguments are those of ``scatter``."""
    lines = [
        "bool first = true;",
        "for (long long q = 0; q < n && first; q++) first = a1[q] != at;",
        "if (!first) continue;",
        f"{TYPES[dtype]} sum = 0;",
        f"for (long long q = n; q < {taken}; q++)",
        f"    if (a1[q] == at) sum += a0[(b * {taken} + q) * {after} + i % {after}];",
        f"y0[(b * {size} + at) * {after} + i % {after}] = sum;",
    ]
    return _each("ordered", dtype, index, total, taken, after, size, lines)


def _each(
    kind: str, dtype: str, index: str, total: int, taken: int, after: int, size: int, lines: Iterable[str]
) -> Source:
    """A kernel with these lines for each element of g whose index is inside."""
    t = TYPES[dtype]
    body = [
        f"for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < {total}; "
        "i += (long long)gridDim.x * blockDim.x) {",
        f"    const long long n = i / {after} % {taken}, b = i / {after * taken}, at = a1[n];",
        f"    if (at < 0 || at >= {size}) continue;",
        *(f"    {line}" for line in lines),
        "}",
    ]
    parameters = f"const {t}* a0, const {TYPES[index]}* a1, {t}* y0"
    return finished(kind, parameters, body, min(MOST_BLOCKS, -(-total // THREADS)), THREADS)


_TAKE_GRAD = Kernel(_take_grad)
