"""oneDNN through its C API: a library of fast kernels that the compiler uses where it is installed.

Nothing here knows graphs. A ``Library`` is the loaded file with an engine and a stream; a ``Primitive`` one of its
kernels, made for given layouts; a ``Call`` a primitive with the memory it works on. Kernels that say such calls are in
``accelerated``.
"""

from __future__ import annotations

import ctypes
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from unilayers.errors import BackendError

VARIABLE = "UNILAYERS_ONEDNN"  # "off"; "on": it must be there; a path; nothing: it is used where it is found
FILE = "libdnnl.so.3"
# How OpenMP's threads wait for work: a few microseconds awake, since kernels follow one another closely, then asleep,
# since NumPy's own threads want the cores.
WAIT = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000"}
F32 = 3  # dnnl_f32

Pointer = ctypes.c_void_p
Dims = ctypes.c_int64 * 12
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Sizes, and strides in elements; without strides, any that suit the primitive best."""

    shape: Sizes
    strides: Sizes | None = None
    dtype: int = F32

    @classmethod
    def of(cls, array: np.ndarray) -> Layout:
        return cls(array.shape, tuple(s // array.itemsize for s in array.strides))


@dataclass(frozen=True)
class After:
    """What a primitive does to its result, in order.

    Args:
        steps: ``("sum", scale)``: add what is there already, times a number; ``("eltwise", kind, alpha, beta)``;
            ``("binary", kind, layout)``: with a further array, whose argument's number ``beside`` gives.
    """

    steps: tuple[tuple[Any, ...], ...] = ()

    @staticmethod
    def beside(step: int) -> int:
        """The number of the further array of a step."""
        return 32768 * (step + 1) | 2  # DNNL_ARG_ATTR_MULTIPLE_POST_OP(step) | DNNL_ARG_SRC_1


class Desc:
    """A layout in the library's own form."""

    def __init__(self, library: Library, pointer: Pointer) -> None:
        self.library, self.pointer = library, pointer

    def __del__(self) -> None:
        self.library.file.dnnl_memory_desc_destroy(self.pointer)

    def same(self, other: Desc) -> bool:
        return bool(self.library.file.dnnl_memory_desc_equal(self.pointer, other.pointer))

    @property
    def nbytes(self) -> int:
        return int(self.library.file.dnnl_memory_desc_get_size(self.pointer))


class Library:
    """oneDNN, loaded.

    Args:
        path: Of the file, or its name, as the system's loader takes it.

    Attributes:
        version: ``"3.2.0"``, for example.

    Raises:
        OSError: if it cannot be loaded, is something else, or was built to run on anything but threads.
    """

    def __init__(self, path: str) -> None:
        self.path, self.file = path, _opened(path)
        try:
            functions = {name: getattr(self.file, f"dnnl_{name}") for name in _SIGNATURES}
        except AttributeError as error:
            raise OSError(f"{path}: {error}") from None
        for name, (result, *arguments) in _SIGNATURES.items():
            functions[name].restype, functions[name].argtypes = result, arguments
        about = self.file.dnnl_version().contents
        self.version = f"{about.major}.{about.minor}.{about.patch}"
        if about.runtime not in THREADED:
            raise OSError(f"{path}: oneDNN {self.version} runs on SYCL devices; what is needed is a build for threads")
        self.engine, self.stream = Pointer(), Pointer()
        self.check(self.file.dnnl_engine_create(ctypes.byref(self.engine), 1, 0))  # dnnl_cpu
        self.check(self.file.dnnl_stream_create(ctypes.byref(self.stream), self.engine, 1))
        self.primitive = lru_cache(maxsize=1024)(partial(Primitive, self))
        self.desc, self._after = cache(self._make_desc), cache(self._make_after)

    def check(self, status: int) -> None:
        """Raise if a function of the library did not succeed."""
        if status:
            raise BackendError(
                f"oneDNN {self.version} failed with status {status}", where="backend 'numpy'",
                fix=f"Set {VARIABLE}=off to go on without it",
            )  # fmt: skip

    def _make_desc(self, layout: Layout) -> Desc:
        found, sizes = Pointer(), (len(layout.shape), Dims(*layout.shape), layout.dtype)
        if layout.strides is None:
            status = self.file.dnnl_memory_desc_create_with_tag(ctypes.byref(found), *sizes, 1)  # dnnl_format_tag_any
        else:
            strides = Dims(*layout.strides)
            status = self.file.dnnl_memory_desc_create_with_strides(ctypes.byref(found), *sizes, strides)
        self.check(status)
        return Desc(self, found)

    def _make_after(self, after: After) -> Pointer:
        file, found, steps = self.file, Pointer(), Pointer()
        self.check(file.dnnl_primitive_attr_create(ctypes.byref(found)))
        self.check(file.dnnl_primitive_attr_set_scratchpad_mode(found, 1))  # working memory is given, too
        self.check(file.dnnl_post_ops_create(ctypes.byref(steps)))
        for kind, *how in after.steps:
            if kind == "sum":
                self.check(file.dnnl_post_ops_append_sum(steps, *how, 0, 0))
            elif kind == "eltwise":
                self.check(file.dnnl_post_ops_append_eltwise(steps, *how))
            else:
                self.check(file.dnnl_post_ops_append_binary(steps, how[0], self.desc(how[1]).pointer))
        self.check(file.dnnl_primitive_attr_set_post_ops(found, steps))
        return found

    def plain(self, value: Any) -> Any:
        """An argument of a constructor as ``ctypes`` takes it."""
        match value:
            case Layout():
                return self.desc(value).pointer
            case After():
                return self._after(value)
            case Desc():
                return value.pointer
            case Primitive():
                return value.desc
            case tuple():
                return Dims(*value)
            case "engine":
                return self.engine
        return value


def _opened(path: str) -> ctypes.CDLL:
    """The file. OpenMP's threads sleep while they wait, if nobody said otherwise: they would spin, and NumPy's BLAS has
    threads of its own, which then wait for a processor."""
    set_here = {} if WAIT.keys() & os.environ.keys() else WAIT
    try:
        os.environ.update(set_here)  # read once, when OpenMP is loaded
        return ctypes.CDLL(path)
    finally:
        for name in set_here:
            del os.environ[name]


_P, _I, _F = Pointer, ctypes.c_int, ctypes.c_float
_PP = ctypes.POINTER(Pointer)


class Argument(ctypes.Structure):
    _fields_ = [("number", _I), ("memory", _P)]


class Version(ctypes.Structure):
    _fields_ = [("major", _I), ("minor", _I), ("patch", _I), ("hash", ctypes.c_char_p), ("runtime", ctypes.c_uint)]


THREADED = (1, 2, 4)  # DNNL_RUNTIME_SEQ, _OMP, _TBB
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "version": (ctypes.POINTER(Version),),
    "engine_create": (_I, _PP, _I, ctypes.c_size_t),
    "stream_create": (_I, _PP, _P, ctypes.c_uint),
    "memory_desc_create_with_tag": (_I, _PP, _I, _P, _I, _I),
    "memory_desc_create_with_strides": (_I, _PP, _I, _P, _I, _P),
    "memory_desc_clone": (_I, _PP, _P),
    "memory_desc_destroy": (_I, _P),
    "memory_desc_equal": (_I, _P, _P),
    "memory_desc_get_size": (ctypes.c_size_t, _P),
    "memory_create": (_I, _PP, _P, _P, _P),
    "memory_set_data_handle": (_I, _P, _P),
    "memory_destroy": (_I, _P),
    "primitive_attr_create": (_I, _PP),
    "primitive_attr_set_scratchpad_mode": (_I, _P, _I),
    "primitive_attr_set_post_ops": (_I, _P, _P),
    "post_ops_create": (_I, _PP),
    "post_ops_append_eltwise": (_I, _P, _I, _F, _F),
    "post_ops_append_binary": (_I, _P, _I, _P),
    "post_ops_append_sum": (_I, _P, _F, ctypes.c_int32, _I),
    "primitive_desc_query": (_I, _P, _I, _I, _P),
    "primitive_desc_query_md": (_P, _P, _I, _I),
    "primitive_desc_destroy": (_I, _P),
    "primitive_create": (_I, _PP, _P),
    "primitive_destroy": (_I, _P),
    "primitive_execute": (_I, _P, _P, _I, _P),
    "reorder_primitive_desc_create": (_I, _PP, _P, _P, _P, _P, _P),
    "binary_primitive_desc_create": (_I, _PP, _P, _I, _P, _P, _P, _P),
    "matmul_primitive_desc_create": (_I, _PP, _P, _P, _P, _P, _P, _P),
    "convolution_forward_primitive_desc_create": (_I, _PP, _P, _I, _I, *[_P] * 9),
    "convolution_backward_data_primitive_desc_create": (_I, _PP, _P, _I, *[_P] * 9),
    "convolution_backward_weights_primitive_desc_create": (_I, _PP, _P, _I, *[_P] * 10),
    "eltwise_forward_primitive_desc_create": (_I, _PP, _P, _I, _I, _P, _P, _F, _F, _P),
    "eltwise_backward_primitive_desc_create": (_I, _PP, _P, _I, _P, _P, _P, _F, _F, _P, _P),
    "batch_normalization_forward_primitive_desc_create": (_I, _PP, _P, _I, _P, _P, _F, ctypes.c_uint, _P),
    "batch_normalization_backward_primitive_desc_create": (_I, _PP, _P, _I, _P, _P, _P, _F, ctypes.c_uint, _P, _P),
    "layer_normalization_forward_primitive_desc_create": (_I, _PP, _P, _I, _P, _P, _P, _F, ctypes.c_uint, _P),
    "layer_normalization_backward_primitive_desc_create": (_I, _PP, _P, _I, *[_P] * 4, _F, ctypes.c_uint, _P, _P),
    "pooling_forward_primitive_desc_create": (_I, _PP, _P, _I, _I, *[_P] * 8),
    "pooling_backward_primitive_desc_create": (_I, _PP, _P, _I, *[_P] * 9),
    "softmax_forward_primitive_desc_create": (_I, _PP, _P, _I, _I, _P, _P, _I, _P),
    "softmax_backward_primitive_desc_create": (_I, _PP, _P, _I, _P, _P, _P, _I, _P, _P),
    "lstm_forward_primitive_desc_create": (_I, _PP, _P, _I, _I, *[_P] * 11, ctypes.c_uint, _P),
    "lstm_backward_primitive_desc_create": (_I, _PP, _P, _I, _I, *[_P] * 22, ctypes.c_uint, _P, _P),
}


class Unsupported(Exception):
    """The library has no fast kernel for this."""


class Primitive:
    """A kernel made for given layouts.

    Args:
        library: Where it comes from.
        kind: What its descriptor's constructor is called after ``dnnl_``.
        given: What that takes, in forms that ``Library.plain`` knows.

    Raises:
        Unsupported: if there is none, or only a slow one.
    """

    def __init__(self, library: Library, kind: str, *given: Any) -> None:
        self.library, self.kind, self.desc, self._pointer = library, kind, Pointer(), Pointer()
        make = getattr(library.file, f"dnnl_{kind}_primitive_desc_create")
        self.wanted = cache(self._wanted)
        self.given = given  # a descriptor may refer to others
        engine = () if kind == "reorder" else (library.engine,)
        status = make(ctypes.byref(self.desc), *engine, *map(library.plain, given))
        if status == 3 or (not status and self.name.startswith("ref") and kind[:4] != "lstm"):  # dnnl_unimplemented
            raise Unsupported(kind)
        library.check(status)

    @property
    def pointer(self) -> Pointer:
        """The kernel itself: compiled when it is asked for."""
        if not self._pointer:
            self.library.check(self.library.file.dnnl_primitive_create(ctypes.byref(self._pointer), self.desc))
        return self._pointer

    def _wanted(self, argument: int) -> Desc:
        """The layout in which it takes an argument: ``wanted``."""
        found, pointer = Pointer(), self.library.file.dnnl_primitive_desc_query_md(self.desc, 255, argument)
        self.library.check(self.library.file.dnnl_memory_desc_clone(ctypes.byref(found), pointer))
        return Desc(self.library, found)

    @property
    def name(self) -> str:
        """How it does it, in the library's words."""
        found = ctypes.c_char_p()
        self.library.check(self.library.file.dnnl_primitive_desc_query(self.desc, 8, 0, ctypes.byref(found)))
        return (found.value or b"").decode()

    def __del__(self) -> None:
        if self._pointer:
            self.library.file.dnnl_primitive_destroy(self._pointer)
        if self.desc:
            self.library.file.dnnl_primitive_desc_destroy(self.desc)


class Call:
    """A primitive with places for the arrays it works on.

    Args:
        primitive: What runs.
        arguments: The numbers (``DNNL_ARG_...``) of the arrays, in the order in which they come.
        like: Arrays of those layouts; a call with others copies them first.
    """

    def __init__(self, primitive: Primitive, arguments: Sequence[int], like: Sequence[np.ndarray]) -> None:
        self._primitive, self._numbers, self._strides = primitive, arguments, [a.strides for a in like]
        self._arguments = (Argument * len(arguments))()
        self._arrays: list[Any] = [None] * len(arguments)
        file = primitive.library.file
        self._execute, self._set = file.dnnl_primitive_execute, file.dnnl_memory_set_data_handle
        self._given: Any = None
        self.__name__ = "onednn"

    def __call__(self, *arrays: np.ndarray) -> None:
        if self._given is None:
            self._prepare()
        for i, (old, new) in enumerate(zip(self._arrays, arrays)):  # noqa: B905  (the compiler wrote the call)
            if old is not new:
                self._bind(i, new)
        status = self._execute(*self._given)
        if status:
            self._primitive.library.check(status)

    def _prepare(self) -> None:
        """Compile the primitive and make places for the arrays: not before the first run, as some calls are only said
        and never run."""
        library = self._primitive.library
        for place, number in zip(self._arguments, self._numbers, strict=True):
            memory, desc = Pointer(), self._primitive.wanted(number)
            library.check(library.file.dnnl_memory_create(ctypes.byref(memory), desc.pointer, library.engine, None))
            place.number, place.memory = number, memory.value
        self._given = self._primitive.pointer, library.stream, len(self._numbers), self._arguments

    def _bind(self, i: int, array: np.ndarray) -> None:
        self._arrays[i] = array
        if array.strides != self._strides[i]:
            fitting = np.empty(array.shape, array.dtype)
            fitting[...] = array
            self._arrays[i] = array = fitting
        self._set(self._arguments[i].memory, array.__array_interface__["data"][0])

    def __del__(self) -> None:
        for place in self._arguments:
            self._primitive.library.file.dnnl_memory_destroy(place.memory)


# ---- finding it -----------------------------------------------------------------------


def library(xp: Any = np) -> Library | None:
    """The library, where it is installed and not switched off; None for CuPy. Loaded at the first call.

    Raises:
        BackendError: if ``UNILAYERS_ONEDNN`` demands it and it cannot be loaded.
    """
    found = _found(os.environ.get(VARIABLE, "")) if xp is np else None
    return found if isinstance(found, Library) else None


def in_use() -> str:
    """Which version compiled graphs use, or why none."""
    found = _found(os.environ.get(VARIABLE, ""))
    return found.version if isinstance(found, Library) else found


@cache
def _found(setting: str) -> Library | str:
    """The library for a value of the variable; or why there is none."""
    if setting == "off":
        return f"off ({VARIABLE})"
    failures = []
    for path in _places() if setting in ("", "on") else [setting]:
        try:
            return _load(path)
        except OSError as error:
            absent = str(error).startswith(f"{path}: cannot open")
            failures += [] if absent else [str(error)]
    if setting:
        raise BackendError(
            f"{VARIABLE}={setting}, but oneDNN cannot be loaded", where="backend 'numpy'",
            expected=f"'off', 'on' or the path of {FILE}", received=failures[0] if failures else "no such file",
            fix="Install it with: pip install 'unilayers[cpu]'",
        )  # fmt: skip
    return failures[0] if failures else "none (pip install 'unilayers[cpu]')"


_load = cache(Library)


def _places() -> Iterator[str]:
    """Where its packages and the system put it."""
    for folder in dict.fromkeys((sysconfig.get_path("data"), sys.prefix, site.getuserbase())):
        yield str(Path(folder) / "lib" / FILE)
    yield FILE
