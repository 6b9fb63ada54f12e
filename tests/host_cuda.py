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
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
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
static inline unsigned short host_to_half(float f) {
    __fp16 x = f; unsigned short h; __builtin_memcpy(&h, &x, 2); return h;
}
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


class Device(np.ndarray):
    """An array on the device."""

    device = SimpleNamespace(id=0)

    def get(self) -> np.ndarray:
        return np.array(self)

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        assert type(arr) is np.ndarray
        assert _tape is None, "a copy from the host cannot be recorded here"
        np.ndarray.__setitem__(self, ..., arr)

    def __setitem__(self, at: Any, value: Any) -> None:
        issue(np.ndarray.__setitem__, self, at, value)

    def fill(self, value: Any) -> None:
        issue(np.ndarray.fill, self, value)

    def copy(self, order: Any = "C") -> Device:
        made = np.empty(self.shape, self.dtype).view(Device)
        issue(np.copyto, made, self)
        return made

    def item(self, *args: Any) -> Any:
        if _tape is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported")
        return super().item(*args)

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())


_tape: list[Callable[[], Any]] | None = None  # the calls of a recording
log: list[str] = []  # what was asked of streams and events


def issue(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A call now, or noted for later while a stream is recorded."""
    call = partial(function, *args, **kwargs)
    return call() if _tape is None else _tape.append(call)


class Stream:
    """``cupy.cuda.Stream``: what is queued runs at once, unless it is recorded."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.name = "copying" if non_blocking else "main"

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def wait_event(self, event: Event) -> None:
        log.append(f"{self.name} waits for {event.number}")

    def begin_capture(self, mode: Any = None) -> None:
        global _tape
        log.append("begin")
        _tape = []

    def end_capture(self) -> Any:
        global _tape
        calls, _tape = _tape, None
        log.append("end")

        def launch(stream: Any = None) -> None:
            log.append("launch")
            for call in calls or ():
                call()

        return SimpleNamespace(launch=launch)


class Event:
    """``cupy.cuda.Event``."""

    count = 0

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        Event.count += 1
        self.number = Event.count

    def record(self, stream: Stream) -> None:
        log.append(f"{stream.name} records {self.number}")

    def synchronize(self) -> None:
        log.append(f"host waits for {self.number}")


class RawKernel:
    """``cupy.RawKernel``. All that were made are compiled when one is first called."""

    waiting: dict[str, str] = {}  # noqa: RUF012
    seen: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        self.name, self.count = name, len(_SIGNATURE.search(code)[2].split(","))  # type: ignore[index]
        self.waiting[name] = self.seen[name] = code.removeprefix(PRELUDE)

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any]) -> None:
        if self.name not in _compiled:
            compile_kernels(self.waiting.values())
            self.waiting.clear()
        assert len(args) == self.count
        assert all(type(a) is Device for a in args), "a kernel takes arrays on the device only"
        assert 0 < grid[0] < 1 << 31
        pointers = (ctypes.c_void_p * len(args))(*(a.ctypes.data for a in args))
        issue(_compiled[self.name], pointers, ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]))


class OtherUfunc:
    """A ufunc as CuPy has it: results by position or keyword; ``reduce`` for sums and products only."""

    def __init__(self, name: str) -> None:
        self.__name__, self._function = name, getattr(np, name)

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> Any:
        operands, given = args[: self._function.nin], args[self._function.nin :]
        out = out if not given else given[0]
        return issue(self._function, *operands, out=out, dtype=dtype, casting=casting)

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        assert self.__name__ in ("add", "multiply")
        return issue(self._function.reduce, array, axis, dtype, out, keepdims)

    def at(self, a: Any, indices: Any, b: Any) -> None:
        issue(self._function.at, a, indices, b)


IN_PLACE = ("copyto", "dot", "sum", "prod", "max", "min", "any", "all")  # what kernels call, besides ufuncs


class OtherModule(ModuleType):
    """NumPy with the narrower signatures of CuPy, as far as kernels call them, and CuPy's own devices and kernels."""

    ndarray = Device
    RawKernel = RawKernel
    lib = SimpleNamespace(
        stride_tricks=SimpleNamespace(
            as_strided=lambda *args: np.lib.stride_tricks.as_strided(*args[:3], subok=True),
        ),
    )
    cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDeviceCount=lambda: 1, deviceSynchronize=lambda: None),
        Device=lambda number: contextlib.nullcontext(),
        Stream=Stream,
        Event=Event,
        MemoryPool=lambda: SimpleNamespace(malloc=None),
        using_allocator=lambda allocator: contextlib.nullcontext(),
        alloc_pinned_memory=bytearray,
    )

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(used_bytes=lambda: 0, total_bytes=lambda: 0)

    def empty(self, shape: Any, dtype: Any = "float64") -> Any:
        return np.empty(shape, dtype).view(Device)

    def asarray(self, a: Any, dtype: Any = None) -> Any:
        return np.asarray(a, dtype).view(Device)

    def take(self, a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
        return issue(np.take, a, indices, axis, out, "raise")

    def argmax(self, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return issue(np.argmax, a, axis, out, keepdims=keepdims)

    def argmin(self, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return issue(np.argmin, a, axis, out, keepdims=keepdims)

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, np.ufunc):
            return OtherUfunc(name)
        if name in IN_PLACE:
            return wraps(found)(partial(issue, found))
        if isinstance(found, ModuleType):  # fft, linalg
            return SimpleNamespace(**{k: _there(f) for k, f in vars(found).items() if callable(f)})
        return found if isinstance(found, type) or not callable(found) else _there(found)


def _there(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose results are on the device; recorded are only those that fill an array anew."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _tape is not None and any(isinstance(a, Device) for a in (*args, *kwargs.values())):
            raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {function.__name__}")
        found = function(*args, **kwargs)
        if not isinstance(found, np.ndarray):
            return found
        made = found.view(Device)
        if _tape is not None:
            issue(np.copyto, made, np.array(found))
        return made

    return call
