"""Kernels and rules that use oneDNN: how they are said, and what they have in common; float32 only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from unilayers.backends.numpy.kernels.contract import KERNELS, Array, Calls, Kernel
from unilayers.backends.numpy.kernels.optimizer import UPDATES

from .library import Call, Layout, Library, Primitive, Unsupported

Sizes = tuple[int, ...]
Build = Callable[..., bool]

# Numbers of arguments, DNNL_ARG_...
SRC, OTHER, DST, WEIGHTS, BIAS, WORKSPACE, SCRATCHPAD = 1, 2, 17, 33, 41, 64, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS = 129, 145, 161

FORWARD, INFERENCE = 64, 96  # dnnl_forward_training, dnnl_forward_inference

BUILDS: dict[str, Build] = {}  # by op name
OWN: dict[str, Callable[..., None]] = {}  # by names that only the rules below bring in


def accelerated(name: str) -> Callable[[Build], Build]:
    """Decorator: the function says an op's calls, or returns False where the plain kernel is the better one."""

    def decorate(build: Build) -> Build:
        BUILDS[name] = build
        return build

    return decorate


def kernel(library: Library, op: str) -> Kernel | None:
    """The kernel of an op that uses the library, where it can; or None."""
    if op in OWN:
        return Kernel(partial(OWN[op], library))
    if op not in BUILDS:
        return None
    plain = KERNELS[op]

    def build(do: Calls, *arrays: Array, **attrs: Any) -> None:
        checked = arrays[UPDATES[op].scalars :] if op in UPDATES else arrays
        if not (all(map(is_real, checked)) and _tried(BUILDS[op], library, do, *arrays, **attrs)):
            plain.build(do, *arrays, **attrs)

    return Kernel(build, plain.overwrites, plain.adjacent)


def is_real(x: Array) -> bool:
    """Whether the library takes an array: float32, not empty."""
    return bool(x.dtype == "float32" and x.size)


def _tried(build: Build, *args: Any, **attrs: Any) -> bool:
    """Whether a kernel was said: not where the library has nothing, or only a reference implementation."""
    try:
        return build(*args, **attrs)
    except Unsupported:
        return False


# ---- saying calls -------------------------------------------------------------------


def run(do: Calls, primitive: Primitive, arrays: dict[int, Array]) -> None:
    """One call of a primitive on arrays by their arguments' numbers, with its working memory."""
    nbytes = primitive.wanted(SCRATCHPAD).nbytes
    if nbytes:
        arrays = {**arrays, SCRATCHPAD: do.workspace((nbytes,), "uint8")}
    do(Call(primitive, list(arrays), list(arrays.values())), *arrays.values())


class Fitted:
    """An array in the layout that a primitive wants for an argument: itself, or memory for a copy."""

    def __init__(self, do: Calls, primitive: Primitive, argument: int, array: Array, layout: Layout) -> None:
        wanted = primitive.wanted(argument)
        self.array, self._do, self._plain, self._library = array, do, array, primitive.library
        self._copied = None if wanted.same(self._library.desc(layout)) else (layout, wanted)
        if self._copied:
            self.array = do.workspace((wanted.nbytes,), "uint8")

    def fill(self) -> Array:
        """Say that the copy is to be made."""
        if self._copied:
            layout, wanted = self._copied
            reorder = self._library.primitive("reorder", layout, "engine", wanted, "engine", None)
            run(self._do, reorder, {SRC: self._plain, DST: self.array})
        return self.array

    def read(self) -> None:
        """Say that the result is to be brought to where it belongs."""
        if self._copied:
            layout, wanted = self._copied
            reorder = self._library.primitive("reorder", wanted, "engine", layout, "engine", None)
            run(self._do, reorder, {SRC: self.array, DST: self._plain})
