"""What a kernel is, and how it is run at once on arrays.

A kernel does not compute: it is given arrays for its operands and results and says which functions are to be called
on them, in order. Said to the compiler, the calls become lines of a generated step (see ``emit``); said to
``Immediate``, they run. So a kernel is written once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np

from unilayers.graph import OPS
from unilayers.spec import Spec

Array = Any


class Calls(Protocol):
    """Who listens to a kernel: ``do(function, *args)`` asks for one call, whose results go into arrays among ``args``.

    Kernels may look at shapes, dtypes and strides, never at values: those are not there yet. Operands and results reach
    a function among its arguments (in lists, too), not through its closure: the compiler looks for them there.

    ``library`` is oneDNN where the step uses it: what a kernel compiles itself may use it, too.
    """

    xp: Any
    library: Any

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None: ...

    def workspace(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array for this kernel's own use; holds nothing at first, and nothing is kept in it after the last call."""

    def constant(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Array:
        """The array that ``make()`` gives, made once for all kernels that ask by the same ``key``. Only to be read."""


Pairs = Iterable[tuple[int, int]]


@dataclass(frozen=True)
class Kernel:
    """How an op runs into given memory.

    Args:
        build: ``build(do, *operands, *results, **attrs)`` says the calls. Results do not overlap operands, except
            where ``overwrites`` allows it, and then exactly.
        overwrites: ``overwrites(operands, attrs)``, with their count, gives the pairs (result, operand) that may be one
            and the same array, all at once.
        adjacent: ``adjacent(operands, attrs)`` gives the operands that are worth lying one behind the other in memory;
            the compiler puts them so.
    """

    build: Callable[..., None]
    overwrites: Callable[[int, Mapping[str, Any]], Pairs] = lambda operands, attrs: ()
    adjacent: Callable[[int, Mapping[str, Any]], Iterable[int]] = lambda operands, attrs: ()


KERNELS: dict[str, Kernel] = {}  # by op name


def anywhere(operands: int, attrs: Mapping[str, Any]) -> Pairs:
    """``overwrites`` of a kernel whose result may take the place of any operand: elementwise, in one call."""
    return [(0, i) for i in range(operands)]


def first(operands: int, attrs: Mapping[str, Any]) -> Pairs:
    """``overwrites`` of a kernel whose result may take the place of the first operand only."""
    return [(0, 0)]


def kernel(name: str, **given: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: the function is the kernel of the op ``name``; the keywords are those of ``Kernel``."""

    def decorate(build: Callable[..., None]) -> Callable[..., None]:
        KERNELS[name] = Kernel(build, **given)
        return build

    return decorate


def from_function(name: str, function: Callable[..., Any], results: int) -> Kernel:
    """The kernel of an op that only has a function which returns new arrays: they are copied where they belong."""

    def build(do: Calls, *arrays: Array, **attrs: Any) -> None:
        copyto = do.xp.copyto

        def run(operands: tuple[Array, ...], into: tuple[Array, ...]) -> None:
            found = function(*operands, **attrs)
            for result, y in zip(into, found if isinstance(found, (tuple, list)) else (found,), strict=True):
                copyto(result, y)

        run.__name__ = name
        do(run, arrays[:-results], arrays[-results:])

    return Kernel(build)


# ---- what kernels have in common ---------------------------------------------------


def address(array: Array) -> int:
    """Where an array's first element is in memory."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def dense(do: Calls, x: Array) -> Array:
    """x, or a contiguous copy of it."""
    if x.flags.c_contiguous:
        return x
    copied = do.workspace(x.shape, x.dtype)
    do(do.xp.copyto, copied, x)
    return copied


spelled = lru_cache(maxsize=256)(str)  # a dtype's name, which NumPy takes longer to find than to add a few numbers


def ones(do: Calls, n: int, dtype: Any) -> Array:
    """A constant vector of ones."""
    return do.constant(("ones", n, spelled(dtype)), lambda: do.xp.ones(n, dtype))


def scalar(do: Calls, value: float, dtype: Any) -> Array:
    """A constant number, as the 0-d array that ufuncs take without conversion."""
    return do.constant(("scalar", value, spelled(dtype)), lambda: do.xp.asarray(value, dtype))


def divisor(n: int, limit: int) -> int:
    """The largest divisor of n that is at most ``limit``."""
    return next(k for k in range(min(n, limit), 0, -1) if n % k == 0)


def blocks(size: int, whole: Sequence[Array], work: Sequence[Array]) -> Iterator[tuple[Array, ...]]:
    """Arrays cut along their first axis: the parts that belong together, then work arrays of that length."""
    for start in range(0, len(whole[0]), size):
        parts = [a[start : start + size] for a in whole]
        yield *parts, *(w[: len(parts[0])] for w in work)


FEW = 16  # calls that a step may as well make in lines of their own


class Batch:
    """Gathers the calls of a loop over blocks, which the step then makes in one line: ``run_all(calls)``.

    It listens as ``do`` does, and asks ``do`` for memory.
    """

    def __init__(self, do: Calls) -> None:
        self.xp, self.library, self.workspace, self.constant = do.xp, do.library, do.workspace, do.constant
        self._do, self._calls = do, []  # type: ignore[var-annotated]

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._calls.append((partial(function, **kwargs) if kwargs else function, args))

    def run(self) -> None:
        if len(self._calls) > FEW:
            self._do(run_all, self._calls)
            return
        for function, args in self._calls:
            self._do(function, *args)


def run_all(calls: Iterable[tuple[Callable[..., Any], tuple[Any, ...]]]) -> None:
    for function, args in calls:
        function(*args)


# ---- listening without running --------------------------------------------------------


class Rehearsal:
    """Listens to a kernel on arrays that are never touched, and notes the workspaces it asks for."""

    xp = np

    def __init__(self, library: Any = None) -> None:
        self.library = library
        self.workspaces: list[np.ndarray] = []

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        pass

    def workspace(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        self.workspaces.append(np.empty(shape, dtype))
        return self.workspaces[-1]

    def constant(self, key: tuple[Any, ...], make: Callable[[], Any]) -> np.ndarray:
        return np.asarray(make())


# ---- running at once ----------------------------------------------------------------


class Immediate:
    """Runs a kernel's calls as they are said."""

    library = None

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)

    def workspace(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.xp.empty(shape, dtype)

    def constant(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Array:
        return self.xp.asarray(make())


def eager(name: str, xp: Any) -> Callable[..., Any]:
    """The kernel of an op as a function that returns new arrays, for a backend's table."""
    op, build, do, usual = OPS[name], KERNELS[name].build, Immediate(xp), xp.ndarray

    @lru_cache(maxsize=1024)  # small arrays would wait longer for their shapes than for their values
    def results_of(attrs: tuple[tuple[str, Any], ...], *given: Any) -> tuple[Any, bool]:
        shapes, dtypes = given[::2], given[1::2]
        found = op.infer(*(Spec(s, d.name) for s, d in zip(shapes, dtypes, strict=True)), **dict(attrs))
        specs = found if isinstance(found, tuple) else (found,)
        return [(s.shape, xp.dtype(s.dtype)) for s in specs], specs is found

    def call(*operands: Array, **attrs: Any) -> Any:
        arrays: list[Array] = []
        given: list[Any] = []
        for x in operands:
            if type(x) is not usual or not x.flags.c_contiguous:
                x = xp.ascontiguousarray(x).reshape(x.shape)
            arrays.append(x)
            given += x.shape, x.dtype
        made, several = results_of(tuple(attrs.items()), *given)
        results = [xp.empty(shape, dtype) for shape, dtype in made]
        with quiet(xp):
            build(do, *arrays, *results, **attrs)
        return tuple(results) if several else results[0]

    call.__name__ = name
    return call


def quiet(xp: Any) -> AbstractContextManager[Any]:
    """While active, infinities and NaNs come without NumPy's warnings. CuPy has none."""
    return np.errstate(all="ignore") if xp is np else nullcontext()
