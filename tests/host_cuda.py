"""CUDA's part of CuPy over NumPy: kernels in CUDA C are compiled by the host's compiler, and threads run in turn.

Threads of a block are fibers: each runs to the next ``__syncthreads`` and then waits for the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from unilayers.backends.numpy.cuda.expressions import PRELUDE

COMPILER = shutil.which("g++")
NVCC = shutil.which("nvcc")

HEADER = """
#include <math.h>
#include <ucontext.h>
#ifdef __F16C__
#include <immintrin.h>
static inline float host_from_half(unsigned short h) { return _cvtsh_ss(h); }
static inline unsigned short host_to_half(float f) { return _cvtss_sh(f, 0); }
#else
static inline float host_from_half(unsigned short h) { __fp16 x; __builtin_memcpy(&x, &h, 2); return x; }
static inline unsigned short host_to_half(float f) { __fp16 x = f; unsigned short h; __builtin_memcpy(&h, &x, 2); return h; }
#endif
#define from_half host_from_half
#define to_half host_to_half
#define __global__
#define __device__
#define __shared__ static
struct Dim { unsigned x; };
static Dim threadIdx, blockIdx, blockDim, gridDim;
template <class T> static T atomicAdd(T* p, T x) { T old = *p; *p += x; return old; }

enum { MOST = 256, STACK = 1 << 15 };
static ucontext_t scheduler, fiber[MOST];
static bool finished[MOST];
static char stacks[MOST][STACK];
static void (*body)(void**);
static void** given;
static void begin() { body(given); finished[threadIdx.x] = true; }
static void __syncthreads() { swapcontext(&fiber[threadIdx.x], &scheduler); }

static void run_block() {
    for (unsigned t = 0; t < blockDim.x; t++) {
        finished[t] = false;
        getcontext(&fiber[t]);
        fiber[t].uc_stack.ss_sp = stacks[t];
        fiber[t].uc_stack.ss_size = STACK;
        fiber[t].uc_link = &scheduler;
        makecontext(&fiber[t], begin, 0);
    }
    for (bool more = true; more;) {
        more = false;
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++)
            if (!finished[threadIdx.x]) { more = true; swapcontext(&scheduler, &fiber[threadIdx.x]); }
    }
}
static void run(void (*f)(void**), void** arrays, unsigned grid, unsigned block, bool waiting) {
    body = f; given = arrays; gridDim.x = grid; blockDim.x = block;
    for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++) {
        if (waiting) run_block();
        else for (threadIdx.x = 0; threadIdx.x < block; threadIdx.x++) f(arrays);
    }
}
"""

_SIGNATURE = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
_compiled: dict[str, Any] = {}
_folder = tempfile.TemporaryDirectory(prefix="host-kernels-")


def compile_kernels(bodies: Iterable[str]) -> None:
    """Compile kernels, all together, for ``RawKernel``."""
    named = {_SIGNATURE.search(b): b for b in bodies}
    text, names = HEADER + PRELUDE, []
    for match, body in named.items():
        assert match is not None
        name, parameters = match.groups()
        if name in _compiled or name in names:
            continue
        types = [p.rpartition(" ")[0] for p in parameters.split(", ")]
        call = ", ".join(f"({t})p[{i}]" for i, t in enumerate(types))
        waiting = "true" if "__syncthreads" in body else "false"
        text += body + f"static void call_{name}(void** p) {{ {name}({call}); }}\n"
        text += f'extern "C" void run_{name}(void** p, unsigned grid, unsigned block) '
        text += f"{{ run(call_{name}, p, grid, block, {waiting}); }}\n"
        names.append(name)
    if names:
        path = Path(_folder.name) / f"{len(_compiled)}.cc"
        path.write_text(text)
        assert COMPILER is not None
        f16 = ["-mf16c"] if " f16c " in Path("/proc/cpuinfo").read_text() else []
        options = ["-O1", "-w", "-fwrapv", "-ffp-contract=off", "-shared", "-fPIC", "-std=c++17", *f16]
        subprocess.run([COMPILER, *options, str(path), "-o", str(path.with_suffix(".so"))], check=True)
        library = ctypes.CDLL(str(path.with_suffix(".so")))
        _compiled.update((name, library[f"run_{name}"]) for name in names)


class RawKernel:
    """``cupy.RawKernel``. All that were made are compiled when one is first called."""

    waiting: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        self.name, self.count = name, len(_SIGNATURE.search(code)[2].split(","))  # type: ignore[index]
        self.waiting[name] = code.removeprefix(PRELUDE)

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any]) -> None:
        if self.name not in _compiled:
            compile_kernels(self.waiting.values())
            self.waiting.clear()
        assert len(args) == self.count
        assert all(type(a) is np.ndarray for a in args), "a device takes arrays only"
        assert 0 < grid[0] < 1 << 31
        pointers = (ctypes.c_void_p * len(args))(*(a.ctypes.data for a in args))
        _compiled[self.name](pointers, ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]))


class OtherUfunc:
    """A ufunc as CuPy has it: results by position or keyword; ``reduce`` for sums and products only."""

    def __init__(self, name: str) -> None:
        self.__name__, self._function = name, getattr(np, name)

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> Any:
        operands, given = args[: self._function.nin], args[self._function.nin :]
        return self._function(*operands, out=out if not given else given[0], dtype=dtype, casting=casting)

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        assert self.__name__ in ("add", "multiply")
        return self._function.reduce(array, axis, dtype, out, keepdims)

    def at(self, a: Any, indices: Any, b: Any) -> None:
        self._function.at(a, indices, b)


class OtherModule(ModuleType):
    """NumPy with the narrower signatures of CuPy, as far as kernels call them, and its ``RawKernel``."""

    ndarray = np.ndarray
    RawKernel = RawKernel
    lib = SimpleNamespace(
        stride_tricks=SimpleNamespace(as_strided=lambda *args: np.lib.stride_tricks.as_strided(*args[:3])),
    )
    cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDeviceCount=lambda: 1, deviceSynchronize=lambda: None),
        Device=lambda number: contextlib.nullcontext(),
    )

    def take(self, a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
        return np.take(a, indices, axis, out, "raise")

    def argmax(self, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return np.argmax(a, axis, out, keepdims=keepdims)

    def argmin(self, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return np.argmin(a, axis, out, keepdims=keepdims)

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        return OtherUfunc(name) if isinstance(found, np.ufunc) else found
