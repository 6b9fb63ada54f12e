"""Kernels that let oneDNN do the work, in place of those in ``kernels`` where it is installed; float32 only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unilayers.spec import Spec

from .action import Action
from .kernels import optimizer
from .kernels.contract import KERNELS, Array, Calls, Immediate, Kernel, address, dense
from .kernels.elementwise import relu as plain_relu
from .onednn import After, Call, Layout, Library, Primitive, Unsupported

if TYPE_CHECKING:
    from .fuse import Rule, Scene

Sizes = tuple[int, ...]
Build = Callable[..., bool]

# Numbers of arguments, DNNL_ARG_...
SRC, OTHER, DST, WEIGHTS, BIAS, WORKSPACE, SCRATCHPAD = 1, 2, 17, 33, 41, 64, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS = 129, 145, 161

FORWARD, INFERENCE = 64, 96  # dnnl_forward_training, dnnl_forward_inference
DIRECT, LARGEST, MEAN = 1, 511, 1023  # dnnl_convolution_direct, dnnl_pooling_max, dnnl_pooling_avg_exclude_padding

FEW = 1 << 17  # multiplications: for fewer, a call costs more than it saves
SHORT = 4  # rows or columns: products with fewer are bound by memory, and BLAS is as fast
FEW_ROWS = 64  # windows: for fewer, it takes the longest to bring the filters into the layout that is wanted
THRESHOLDS = ("FEW", "SHORT", "FEW_ROWS")

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
        checked = arrays[optimizer.UPDATES[op].scalars :] if op in optimizer.UPDATES else arrays
        if not (all(map(_is_real, checked)) and _tried(BUILDS[op], library, do, *arrays, **attrs)):
            plain.build(do, *arrays, **attrs)

    return Kernel(build, plain.overwrites, plain.adjacent)


def _is_real(x: Array) -> bool:
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
        self, library: Library, x: Array, kernel: Array, y: Array, bias: Array = None, *,
        strides: Sizes, padding: Any, dilation: Sizes, groups: int,
    ) -> None:  # fmt: skip
        self._library, self._x, self.kernel, self._y = library, _images(x), _filters(kernel, groups), _images(y)
        self._bias = None if bias is None else Layout.of(bias)
        low, high = zip(*padding, strict=True)
        self._geometry = strides, tuple(d - 1 for d in dilation), low, high

    @property
    def _any(self) -> Layout:
        return Layout(self.kernel.shape)

    def forward(self) -> Primitive:
        return self._library.primitive(
            "convolution_forward", FORWARD, DIRECT, self._x, self._any, self._bias, self._y,
            *self._geometry, After(),
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
    return _forward(library, do, x, kernel, None, y, attrs)


@accelerated("conv_bias")
def conv_bias(
    library: Library, do: Calls, x: Array, kernel: Array, bias: Array, y: Array, *, relu: bool, **attrs: Any
) -> bool:
    if not _forward(library, do, x, kernel, bias.reshape(-1), y, attrs):
        return False
    if relu:
        plain_relu(do, y, y)  # the library's own turns NaN into 0
    return True


def _forward(library: Library, do: Calls, x: Array, kernel: Array, bias: Array, y: Array, attrs: Any) -> bool:
    if not _pays(x, y):
        return False
    x, kernel = dense(do, x), dense(do, kernel)
    how = _Convolution(library, x, kernel, y, bias, **attrs)
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


# ---- pooling ------------------------------------------------------------------------------


class _Pooling:
    """The primitives of one pooling.

    Args:
        kind: Which, DNNL_POOLING_...
        trained: Whether the places of maxima are noted for the gradient.
    """

    def __init__(
        self, library: Library, x: Array, y: Array, window: Sizes, strides: Sizes, padding: Any, kind: int = LARGEST,
        trained: bool = False,
    ) -> None:  # fmt: skip
        layouts = _images(x), _images(y)
        geometry = strides, window, (0,) * len(window), *zip(*padding, strict=True)
        prop = FORWARD if trained or kind != LARGEST else INFERENCE
        self.forward = library.primitive("pooling_forward", prop, kind, *layouts, *geometry, After())
        self._how = library, kind, *layouts, *geometry

    @property
    def backward(self) -> Primitive:
        library, *how = self._how
        return library.primitive("pooling_backward", *how, self.forward, After())

    @property
    def places(self) -> int:
        """Bytes that say where in each window the largest element was."""
        return self.forward.wanted(WORKSPACE).nbytes


def _max_pool_places(
    library: Library, do: Calls, x: Array, y: Array, places: Array, *, relu: bool, **attrs: Any
) -> None:
    """Maximum pooling that notes where in each window the largest element is; then perhaps a relu."""
    x = dense(do, x)
    run(do, _Pooling(library, x, y, **attrs, trained=True).forward, {SRC: x, DST: y, WORKSPACE: places})
    do(_spread_nan, x, y, attrs)
    if relu:
        plain_relu(do, y, y)


def _spread_nan(x: Array, y: Array, attrs: Any) -> None:
    """The library passes NaNs over, and infinities below: where there are any, NumPy takes the maximum again."""
    flat = x.reshape(-1)
    if not np.isfinite(np.dot(flat, flat)):
        KERNELS["max_pool"].build(Immediate(np), x, y, **attrs)


def _max_pool_grad_places(library: Library, do: Calls, g: Array, places: Array, result: Array, **attrs: Any) -> None:
    g = dense(do, g)
    run(
        do,
        _Pooling(library, result, g, **attrs, trained=True).backward,
        {DIFF_DST: g, WORKSPACE: places, DIFF_SRC: result},
    )


@accelerated("max_pool")
def max_pool(library: Library, do: Calls, x: Array, y: Array, **attrs: Any) -> bool:
    x = dense(do, x)
    if not _pool(library, do, LARGEST, x, y, **attrs):
        return False
    do(_spread_nan, x, y, attrs)
    return True


@accelerated("avg_pool")
def avg_pool(library: Library, do: Calls, x: Array, y: Array, **attrs: Any) -> bool:
    return _pool(library, do, MEAN, x, y, **attrs)


def _pool(library: Library, do: Calls, kind: int, x: Array, y: Array, **attrs: Any) -> bool:
    """Pooling whose gradient is not asked for, or needs nothing of it."""
    if not 3 <= x.ndim <= 5:
        return False
    x = dense(do, x)
    run(do, _Pooling(library, x, y, kind=kind, **attrs).forward, {SRC: x, DST: y})
    return True


@accelerated("avg_pool_grad")
def avg_pool_grad(library: Library, do: Calls, g: Array, y: Array, *, shape: Sizes, **attrs: Any) -> bool:
    if not 3 <= g.ndim <= 5:
        return False
    g = dense(do, g)
    run(do, _Pooling(library, y, g, kind=MEAN, **attrs).backward, {DIFF_DST: g, DIFF_SRC: y})
    return True


OWN |= {"max_pool_places": _max_pool_places, "max_pool_grad_places": _max_pool_grad_places}


# ---- elementwise ----------------------------------------------------------------------------


def _sigmoid(library: Library, do: Calls, x: Array, y: Array) -> None:
    whole = Layout((y.size,), (1,))
    if not x.flags.c_contiguous:
        do(np.copyto, y, x)
        x = y
    run(
        do, library.primitive("eltwise_forward", INFERENCE, LOGISTIC, whole, whole, 0.0, 0.0, After()), {SRC: x, DST: y}
    )


OWN["sigmoid"] = _sigmoid


# ---- update rules ---------------------------------------------------------------------------

ADD, MULTIPLY = 131056, 131057  # dnnl_binary_add, ...
ROOT, LINEAR, LOGISTIC, POWER = 37, 38, 41, 48  # dnnl_eltwise_sqrt, ...
NUMBER = Layout((1,), (1,))


class _Vectors:
    """Calls on whole vectors: ``x * y`` or ``x + y``, then further steps.

    A pass over all weights costs less than NumPy's many short ones in cache.
    """

    def __init__(self, library: Library, do: Calls) -> None:
        self._library, self._do = library, do

    def say(
        self, kind: int, x: Array, y: Array, result: Array, *steps: Any, beside: dict[int, Array] | None = None
    ) -> None:
        """One pass; ``beside`` has the further arrays by the numbers of the steps that take them."""
        of = {1: NUMBER}
        layouts = [of.get(a.size) or Layout((a.size,), (1,)) for a in (x, y, result)]
        arrays = {SRC: x, OTHER: y, DST: result} | {After.beside(i): a for i, a in (beside or {}).items()}
        run(self._do, self._library.primitive("binary", kind, *layouts, After(steps)), arrays)

    def number(self, value: float) -> Array:
        """A constant as a vector of one element."""
        return self._do.constant(("vector", value), lambda: np.full(1, value, "float32"))


def _update(
    library: Library, do: Calls, name: str, arrays: Any, count: int, attrs: Any, say: Callable[..., None]
) -> bool:
    """All weights, in as few vectors as they lie in: ``say(vectors, p, g, slots, minus_rate)`` updates one in place."""
    how = optimizer.UPDATES[name]
    scalars, tensors = arrays[: how.scalars], [dense(do, a) for a in arrays[how.scalars :]]
    groups = list(zip(*(tensors[i : i + count] for i in range(0, len(tensors), count)), strict=True))
    minus_rate, kept = (do.workspace((1,), "float32") for _ in range(2))
    rate_of, decay, vectors = how.rate(attrs), attrs["weight_decay"], _Vectors(library, do)

    def rates(minus_rate: Array, kept: Array, *given: Array) -> None:
        numbers = [float(x) for x in given]
        minus_rate[0], kept[0] = -rate_of(*numbers), 1 - numbers[0] * (decay or 0)

    do(rates, minus_rate, kept, *scalars)
    for p, g, *rest in optimizer.runs(do.xp, groups):
        old, new = (p, *rest[: len(rest) // 2]), rest[len(rest) // 2 :]
        for a, b in zip(old, new, strict=True):
            if address(a) != address(b):
                do(np.copyto, b, a)
        if decay:
            vectors.say(MULTIPLY, new[0], kept, new[0])
        say(vectors, new[0], g, new[1:], minus_rate)
    return True


@accelerated("adam_update")
def adam_update(library: Library, do: Calls, *arrays: Array, count: int, **attrs: Any) -> bool:
    if attrs["amsgrad"]:
        return False
    beta_1, beta_2, epsilon = attrs["beta_1"], attrs["beta_2"], attrs["epsilon"]

    def say(vectors: _Vectors, p: Array, g: Array, slots: Any, minus_rate: Array) -> None:
        m, v = slots
        whole = Layout((p.size,), (1,))
        vectors.say(MULTIPLY, g, vectors.number(1 - beta_1), m, ("sum", beta_1))
        vectors.say(MULTIPLY, g, g, v, ("eltwise", LINEAR, 1 - beta_2, 0.0), ("sum", beta_2))
        vectors.say(
            MULTIPLY, v, vectors.number(1.0), p, ("eltwise", ROOT, 0.0, 0.0), ("eltwise", LINEAR, 1.0, epsilon),
            ("eltwise", POWER, 1.0, -1.0), ("binary", MULTIPLY, whole), ("binary", MULTIPLY, NUMBER), ("sum", 1.0),
            beside={3: m, 4: minus_rate},
        )  # fmt: skip

    return _update(library, do, "adam_update", arrays, count, attrs, say)


@accelerated("sgd_update")
def sgd_update(library: Library, do: Calls, *arrays: Array, count: int, **attrs: Any) -> bool:
    if attrs["nesterov"]:
        return False

    def say(vectors: _Vectors, p: Array, g: Array, slots: Any, minus_rate: Array) -> None:
        if slots:
            vectors.say(MULTIPLY, g, minus_rate, slots[0], ("sum", attrs["momentum"]))
            vectors.say(ADD, p, slots[0], p)
        else:
            vectors.say(MULTIPLY, g, minus_rate, p, ("sum", 1.0))

    return _update(library, do, "sgd_update", arrays, count, attrs, say)


# ---- rules: see ``fuse`` --------------------------------------------------------------------


def _gate_pooled(scene: Scene, action: Action) -> None:
    """The gate of a relu before a maximum pooling: what is passed on goes to where the maximum was, so it can be cut
    off where that was not positive, before it is spread."""
    if action.op != "relu_gate":
        return
    kept, spread = action.inputs
    pool = scene.maker(spread, "max_pool_grad")
    if pool is not None and pool.inputs[1] is kept and scene.private(spread, action):
        g, _, y = pool.inputs
        gated = scene.plan.new_value(Spec(g.shape, g.dtype))
        scene.replace([pool, action], "max_pool_grad", (gated, kept, y), action.outputs, **pool.attrs)
        scene.replace([], "relu_gate", (y, g), (gated,))


def _note_places(scene: Scene, action: Action) -> None:
    """Maximum pooling and its gradient: the one notes the places for the other."""
    if action.op != "max_pool_grad":
        return
    g, x, y = action.inputs
    pool, library = scene.maker(y, "max_pool"), scene.plan.library
    if library is None or pool is None or pool.inputs[0] is not x or pool.attrs != action.attrs or not 3 <= x.ndim <= 5:
        return
    sketches = [scene.plan.sketch[v] for v in (g, x, y)]
    if not all(map(_is_real, sketches)) or scene.depends(x, action):
        return
    try:
        size = _Pooling(library, np.empty(x.shape, "float32"), sketches[2], **pool.attrs, trained=True).places
    except Unsupported:
        return
    places = scene.plan.new_value(Spec((size,), "uint8"))
    scene.replace([pool, action], "max_pool_places", (x,), (y, places), **pool.attrs, relu=False)
    scene.replace([], "max_pool_grad_places", (g, places), action.outputs, **pool.attrs)


def _relu_behind_pool(scene: Scene, action: Action) -> None:
    """A relu between a convolution and a maximum pooling: done behind that, where there is less of it."""
    if action.op != "max_pool_places" or action.attrs["relu"]:
        return
    conv = scene.maker(action.inputs[0], "conv_bias")
    if conv is not None and conv.attrs["relu"] and scene.private(action.inputs[0], action):
        scene.replace([conv], "conv_bias", conv.inputs, conv.outputs, **{**conv.attrs, "relu": False})
        scene.replace([action], action.op, action.inputs, action.outputs, **{**action.attrs, "relu": True})


def _sigmoids(scene: Scene, action: Action) -> None:
    """``1 / (exp(min(-x, bound)) + 1)`` in one pass."""
    if action.op != "reciprocal" or not _is_real(scene.plan.sketch[action.outputs[0]]):
        return
    chain, value = [action], action.inputs[0]
    for op, wanted in (("add", 1.0), ("exp", None), ("minimum", 88.0), ("negative", None)):
        maker = scene.maker(value, op)
        if maker is None or not scene.private(value, chain[-1]):
            return
        chain.append(maker)
        operands = [v for v in maker.inputs if scene.constant(v) is None] or [value]
        numbers = [n for v in maker.inputs for n in [scene.constant(v)] if n is not None]
        if (
            len(operands) != 1
            or operands[0].shape != value.shape
            or [float(n) for n in numbers] != [wanted] * len(numbers)
        ):
            return
        value = operands[0]
    scene.replace(chain, "sigmoid", (value,), action.outputs)


RULES: list[Rule] = [_sigmoids, _gate_pooled, _note_places, _relu_behind_pool]
