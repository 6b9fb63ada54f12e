"""Kernels that let oneDNN do the work, in place of those in ``kernels`` where it is installed; float32 only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .kernels.contract import KERNELS, Array, Calls, Kernel, dense
from .onednn import After, Call, Layout, Library, Primitive

Sizes = tuple[int, ...]
Build = Callable[..., bool]

# Numbers of arguments, DNNL_ARG_...
SRC, DST, WEIGHTS, BIAS, SCRATCHPAD = 1, 17, 33, 41, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS = 129, 145, 161

FORWARD, FORWARD_INFERENCE, DIRECT = 64, 96, 1

BUILDS: dict[str, Build] = {}  # by op name


def accelerated(name: str) -> Callable[[Build], Build]:
    """Decorator: the function says an op's calls, or returns False where the plain kernel is the better one."""

    def decorate(build: Build) -> Build:
        BUILDS[name] = build
        return build

    return decorate


def kernel(library: Library, op: str) -> Kernel | None:
    """The kernel of an op that uses the library, where it can; or None."""
    if op not in BUILDS:
        return None
    plain = KERNELS[op]

    def build(do: Calls, *arrays: Array, **attrs: Any) -> None:
        if not all(a.dtype == "float32" and a.size for a in arrays) or not BUILDS[op](library, do, *arrays, **attrs):
            plain.build(do, *arrays, **attrs)

    return Kernel(build, plain.overwrites, plain.adjacent)


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
        library, wanted = primitive.library, primitive.wanted(argument)
        self.array, self._do, self._plain = array, do, array
        self._there = self._back = None
        if not wanted.same(library.desc(layout)):
            self.array = do.workspace((wanted.nbytes,), "uint8")
            self._there = library.primitive("reorder", layout, "engine", wanted, "engine", None)
            self._back = library.primitive("reorder", wanted, "engine", layout, "engine", None)

    def fill(self) -> Array:
        """Say that the copy is to be made."""
        if self._there is not None:
            run(self._do, self._there, {SRC: self._plain, DST: self.array})
        return self.array

    def read(self) -> None:
        """Say that the result is to be brought to where it belongs."""
        if self._back is not None:
            run(self._do, self._back, {SRC: self.array, DST: self._plain})


# ---- matrix products ------------------------------------------------------------------

FEW = 1 << 17  # multiplications: for fewer, a call costs more than it saves
FEW_ROWS = 64  # of columns: for fewer windows, to bring the filters into the layout wanted takes the longest
SHORT = 4  # rows or columns: products with fewer are bound by memory, and BLAS is as fast


@accelerated("matmul")
def matmul(library: Library, do: Calls, a: Array, b: Array, y: Array) -> bool:
    return product(library, do, a, b, y, After())


def product(library: Library, do: Calls, a: Array, b: Array, y: Array, after: After, bias: Array = None) -> bool:
    if a.ndim < 2 or b.ndim < 2 or y.size * a.shape[-1] < FEW or min(y.shape[-2:]) < SHORT:
        return False
    if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous and y.flags.c_contiguous:
        a, y = a.reshape(-1, a.shape[-1]), y.reshape(-1, y.shape[-1])
    ndim = y.ndim
    if not all(_is_matrix(x) for x in (a, b, y)):
        return False
    layouts = [Layout.of(x.reshape((1,) * (ndim - x.ndim) + x.shape) if x.ndim < ndim else x) for x in (a, b, y)]
    arrays = {SRC: a, WEIGHTS: b, DST: y}
    if bias is not None:
        arrays[BIAS] = bias
    vector = None if bias is None else Layout((1,) * (ndim - 1) + bias.shape, (bias.size,) * (ndim - 1) + (1,))
    run(do, library.primitive("matmul", layouts[0], layouts[1], vector, layouts[2], after), arrays)
    return True


def _is_matrix(x: Array) -> bool:
    """Whether BLAS would take each matrix as it is: one of its axes without gaps, the other without overlaps."""
    rows, columns = x.strides[-2:]
    size = x.itemsize
    return (columns == size and rows >= x.shape[-1] * size) or (rows == size and columns >= x.shape[-2] * size)


# ---- convolution ------------------------------------------------------------------------


def _images(x: Array) -> Layout:
    """``(batch, *spatial, channels)`` as the library has it: channels before the spatial axes."""
    return Layout.of(x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1)))


def _filters(kernel: Array, groups: int) -> Layout:
    """``(*window, channels, filters)`` as the library has it: filters, channels, window; groups before all."""
    window = range(kernel.ndim - 2)
    if groups == 1:
        return Layout.of(kernel.transpose(kernel.ndim - 1, kernel.ndim - 2, *window))
    parted = kernel.reshape(*kernel.shape[:-1], groups, kernel.shape[-1] // groups)
    return Layout.of(parted.transpose(kernel.ndim - 1, kernel.ndim, kernel.ndim - 2, *window))


class _Convolution:
    """The primitives of one convolution; they share its geometry."""

    def __init__(
        self, library: Library, x: Array, kernel: Array, y: Array, bias: Array = None, relu: bool = False, *,
        strides: Sizes, padding: Any, dilation: Sizes, groups: int,
    ) -> None:  # fmt: skip
        self._library, self._x, self.kernel, self._y = library, _images(x), _filters(kernel, groups), _images(y)
        self._bias, self._after = None if bias is None else Layout.of(bias), After(relu=relu)
        low, high = zip(*padding, strict=True)
        self._geometry = strides, tuple(d - 1 for d in dilation), low, high

    @property
    def _any(self) -> Layout:
        return Layout(self.kernel.shape)

    def forward(self) -> Primitive:
        return self._library.primitive(
            "convolution_forward", FORWARD, DIRECT, self._x, self._any, self._bias, self._y,
            *self._geometry, self._after,
        )  # fmt: skip

    def to_input(self) -> Primitive:
        return self._library.primitive(
            "convolution_backward_data", DIRECT, self._x, self._any, self._y, *self._geometry,
            self.forward(), After(),
        )  # fmt: skip

    def to_kernel(self) -> Primitive:
        return self._library.primitive(
            "convolution_backward_weights", DIRECT, self._x, self._any, None, self._y,
            *self._geometry, self.forward(), After(),
        )  # fmt: skip


def _pays(x: Array, y: Array) -> bool:
    """Whether the library knows a convolution of x to y, and it has windows enough for it."""
    return 3 <= x.ndim <= 5 and y.size // y.shape[-1] >= FEW_ROWS


@accelerated("conv")
def conv(library: Library, do: Calls, x: Array, kernel: Array, y: Array, **attrs: Any) -> bool:
    return _forward(library, do, x, kernel, None, y, False, attrs)


@accelerated("conv_bias")
def conv_bias(
    library: Library, do: Calls, x: Array, kernel: Array, bias: Array, y: Array, *, relu: bool, **attrs: Any
) -> bool:
    return _forward(library, do, x, kernel, bias.reshape(-1), y, relu, attrs)


def _forward(
    library: Library, do: Calls, x: Array, kernel: Array, bias: Array, y: Array, relu: bool, attrs: Any
) -> bool:
    if not _pays(x, y):
        return False
    x, kernel = dense(do, x), dense(do, kernel)
    how = _Convolution(library, x, kernel, y, bias, relu, **attrs)
    primitive = how.forward()
    filters = Fitted(do, primitive, WEIGHTS, kernel, how.kernel).fill()
    run(do, primitive, {SRC: x, WEIGHTS: filters, DST: y} | ({} if bias is None else {BIAS: bias}))
    return True


@accelerated("conv_input_grad")
def conv_input_grad(
    library: Library, do: Calls, g: Array, kernel: Array, y: Array, *, shape: Sizes, **attrs: Any
) -> bool:
    if not _pays(y, g) or shape[-1] == 1:
        return False
    g, kernel = dense(do, g), dense(do, kernel)
    how = _Convolution(library, y, kernel, g, **attrs)
    primitive = how.to_input()
    filters = Fitted(do, primitive, WEIGHTS, kernel, how.kernel).fill()
    run(do, primitive, {DIFF_DST: g, WEIGHTS: filters, DIFF_SRC: y})
    return True


@accelerated("conv_kernel_grad")
def conv_kernel_grad(library: Library, do: Calls, x: Array, g: Array, y: Array, *, shape: Sizes, **attrs: Any) -> bool:
    if not _pays(x, g):
        return False
    x, g = dense(do, x), dense(do, g)
    how = _Convolution(library, x, y, g, **attrs)
    primitive = how.to_kernel()
    grad = Fitted(do, primitive, DIFF_WEIGHTS, y, how.kernel)
    run(do, primitive, {SRC: x, DIFF_DST: g, DIFF_WEIGHTS: grad.array})
    grad.read()
    return True
