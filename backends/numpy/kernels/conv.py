"""Convolution as products of matrices: windows of the input are copied into columns, block by block.

A block of images is so small that its columns are still in cache when the product reads them, and so large that the
product runs at full speed. So the copy costs little, and the workspace is small.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .contract import Array, Batch, Calls, dense, kernel, ones, scalar
from .elementwise import ROW, bits, by_rows, row_of, zeros

COLUMN_BYTES = 1 << 20  # of a block's columns: what a core's second-level cache holds
RESULT_BYTES = 3 << 17  # of what is computed from them
WIDER = 1.35  # elements of a row for each window up to which its gradient is gathered
SHORT = 16  # elements: a copy of shorter runs is slow
BLOCK_ROWS = 192  # windows in a block that a product needs at least to run at full speed

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """The windows that a convolution sees.

    Args:
        x: The shape of the input, ``(batch, *spatial, channels)``.
        kernel: The shape of the kernel, ``(*window, channels / groups, filters)``.
        strides, padding, dilation, groups: As the op has them.
        every: The sizes of pools that touch, if the results are pooled. Then windows come in the order of their places
            in their pools, ``(images, *every, *pools)``, and those that no pool sees are left out.
    """

    x: Sizes
    kernel: Sizes
    strides: Sizes
    padding: tuple[tuple[int, int], ...]
    dilation: Sizes
    groups: int
    every: Sizes = ()

    @property
    def window(self) -> Sizes:
        return self.kernel[:-2]

    @cached_property
    def padded(self) -> Sizes:
        """The spatial sizes of the padded input."""
        return tuple(n + low + high for n, (low, high) in zip(self.x[1:-1], self.padding, strict=True))

    @cached_property
    def counts(self) -> Sizes:
        """How many windows, or pools of windows, there are on each axis."""
        axes = zip(self.padded, self.window, self.strides, self.dilation, self.pool, strict=True)
        return tuple(((n - (k - 1) * d - 1) // s + 1) // e for n, k, s, d, e in axes)

    @property
    def full(self) -> Sizes:
        """How many windows there are on each axis, with those that no pool sees."""
        return replace(self, every=()).counts

    @property
    def around(self) -> tuple[int, int]:
        """By how much the last axis of a gradient is widened on both sides, so that windows on it give the input's."""
        (low, high), reach = self.padding[-1], (self.window[-1] - 1) * self.dilation[-1]
        return reach - low, reach - high

    @property
    def pool(self) -> Sizes:
        return self.every or (1,) * len(self.window)

    @cached_property
    def lead(self) -> Sizes:
        """The windows of an image, in order."""
        return (*self.every, *self.counts)

    @property
    def is_padded(self) -> bool:
        return any(low or high for low, high in self.padding)

    @property
    def is_product(self) -> bool:
        """Whether each window is one element: then the input is the matrix of columns already."""
        ones = (1,) * len(self.window)
        return self.window == self.strides == ones and not self.is_padded and not self.every

    @property
    def inside(self) -> tuple[slice, ...]:
        """Where the input is in its padded version."""
        return (slice(None), *(slice(low, low + n) for n, (low, _) in zip(self.x[1:-1], self.padding, strict=True)))

    @cached_property
    def images(self) -> int:
        """How many images a block has."""
        windows, columns = math.prod(self.lead), math.prod(self.window) * self.kernel[-2]
        fitting = min(
            COLUMN_BYTES // max(4, 4 * windows * columns), RESULT_BYTES // max(4, 4 * windows * self.kernel[-1])
        )
        return max(1, min(self.x[0], max(fitting, -(-BLOCK_ROWS // max(1, windows)))))

    def blocks(self) -> Iterator[slice]:
        for start in range(0, self.x[0], self.images):
            yield slice(start, min(start + self.images, self.x[0]))

    def taps(self) -> Iterator[tuple[Sizes, tuple[slice, ...]]]:
        """For each place in the window: where the windows have it in the padded input."""
        for at in itertools.product(*map(range, self.window)):
            axes = zip(at, self.dilation, self.strides, self.counts, strict=True)
            yield at, (slice(None), *(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, s, n in axes))

    def channels(self, group: int) -> slice:
        return slice(group * self.kernel[-2], (group + 1) * self.kernel[-2])

    def windows(self, xp: Any, x: Array, group: int) -> Array:
        """A view of padded images: ``(images, *lead, *window, channels / groups)``."""
        steps = [b * s for b, s in zip(x.strides[1:-1], self.strides, strict=True)]
        strides = (
            x.strides[0], *(steps if self.every else ()), *(b * e for b, e in zip(steps, self.pool, strict=True)),
            *(b * d for b, d in zip(x.strides[1:-1], self.dilation, strict=True)), x.strides[-1],
        )  # fmt: skip
        shape = (len(x), *self.lead, *self.window, self.kernel[-2])
        return xp.lib.stride_tricks.as_strided(x[..., self.channels(group)], shape, strides)

    def runs(self, xp: Any, columns: Array, target: Array) -> Iterator[tuple[Array, Array]]:
        """Parts of columns ``(images, *lead, *window, channels)``, and views of as many places in padded images that
        they belong to. In each view no two places are the same, and what is contiguous is as long as can be: rows of
        windows, of every so many windows that these do not overlap."""
        axes, last, width = len(self.window) - 1, self.window[-1], self.dilation[-1]
        long = width == 1  # the row of a window is in one piece
        steps = [b * s for b, s in zip(target.strides[1:-1], self.strides, strict=True)]
        apart = -(-last // (self.strides[-1] * self.pool[-1])) if long else 1
        rows = itertools.product(*map(range, self.window[:-1]))
        whole = (slice(None),) * axes
        for at, tap, place, first in itertools.product(
            rows, range(1 if long else last), range(self.pool[-1]), range(min(apart, self.counts[-1]))
        ):
            lead = (*whole, place) if self.every else ()
            tail = slice(None) if long else slice(tap, tap + 1)
            part = columns[(slice(None), *lead, *whole, slice(first, None, apart), *at, tail)]
            start = [t * d for t, d in zip(at, self.dilation, strict=False)]
            start.append(tap * width + (first * self.pool[-1] + place) * self.strides[-1])
            strides = (
                target.strides[0], *(steps[:-1] if self.every else ()),
                *(b * e for b, e in zip(steps[:-1], self.pool, strict=False)), steps[-1] * self.pool[-1] * apart,
                *target.strides[-2:],
            )  # fmt: skip
            corner = target[(slice(None), *(slice(i, None) for i in start))]
            yield part, xp.lib.stride_tricks.as_strided(corner, part.shape, strides)


class Columns:
    """Memory for the columns of a block, and the copies that fill it.

    A copy runs along what is contiguous in the images: a row of the window with its channels. Where that is short, as
    with one channel, the columns are kept ``upright``: one row in memory for each element of the window, filled along
    the images' own rows.
    """

    def __init__(self, do: Calls, geometry: Geometry, dtype: Any, upright: bool = True) -> None:
        self.do, self.geometry, g = do, geometry, geometry
        self.upright = upright and g.window[-1] * g.kernel[-2] < min(SHORT, g.counts[-1])
        self.padded = do.workspace((g.images, *g.padded, g.x[-1]), dtype) if g.is_padded else None
        size = g.images * math.prod(g.lead) * math.prod(g.kernel[:-1])
        self.memory = None if g.is_product else do.workspace((size,), dtype)

    def of(self, x: Array, group: int) -> Array:
        """The matrix of columns of some images, one row a window."""
        g, n = self.geometry, len(x)
        if self.memory is None:
            return part(x, group, g.groups)
        if self.padded is not None:
            if group == 0:
                self.do(self.do.xp.copyto, self.padded[:n][g.inside], x)
            x = self.padded[:n]
        windows = g.windows(self.do.xp, x, group)
        if self.upright:
            outer = len(g.lead) + 1
            windows = windows.transpose(*range(outer, windows.ndim), *range(outer))
        self.do(self.do.xp.copyto, self.array(n, windows.shape), windows)
        elements = math.prod(g.kernel[:-1])
        return self.array(n, (elements, -1)).T if self.upright else self.array(n, (-1, elements))

    def array(self, n: int, shape: Sizes) -> Array:
        """The memory for the columns of n images."""
        assert self.memory is not None
        return self.memory[: self.memory.size // self.geometry.images * n].reshape(shape)


def part(x: Array, group: int, groups: int) -> Array:
    """The channels of a group, as a matrix."""
    size = x.shape[-1] // groups
    return x.reshape(-1, x.shape[-1])[:, group * size : (group + 1) * size]


class Product:
    """``product(a, b, y)`` is ``a @ b`` into y, which is contiguous only if there is one group."""

    def __init__(self, do: Calls, rows: int, columns: int, dtype: Any, groups: int) -> None:
        self.do, self.found = do, do.workspace((rows, columns), dtype) if groups > 1 else None

    def __call__(self, a: Array, b: Array, y: Array) -> None:
        dot, copyto = self.do.xp.dot, self.do.xp.copyto
        if self.found is None:
            self.do(dot, a, b, y)
            return
        self.do(dot, a, b, self.found[: len(a)])
        self.do(copyto, y, self.found[: len(a)])


# ---- kernels ----------------------------------------------------------------------


@kernel("conv")
def conv(do: Calls, x: Array, kernel: Array, y: Array, *, groups: int, **attrs: Any) -> None:
    convolve(do, x, kernel, y, lambda each, block: None, groups=groups, **attrs)


def convolve(
    do: Calls, x: Array, kernel: Array, y: Array, then: Callable[[Calls, Array], None], *, groups: int, **attrs: Any
) -> None:
    """Convolution; ``then(do, images)`` says what to do with each block of results while it is in cache."""
    x, kernel = dense(do, x), dense(do, kernel)
    g, each = Geometry(x.shape, kernel.shape, groups=groups, **attrs), Batch(do)
    columns, filters = Columns(each, g, x.dtype), kernel.shape[-1] // groups
    product = Product(each, g.images * math.prod(g.counts), filters, x.dtype, groups)
    _clear(do, columns.padded)
    for block in g.blocks():
        for group in range(groups):
            product(columns.of(x[block], group), part(kernel, group, groups), part(y[block], group, groups))
        then(each, y[block])
    each.run()


@kernel("conv_bias")
def conv_bias(do: Calls, x: Array, kernel: Array, bias: Array, y: Array, *, relu: bool, **attrs: Any) -> None:
    """Not an op: a convolution, a bias, and perhaps a relu (see ``fuse``)."""
    biases = row_of(do, bias, max(y.size, bias.size))
    floor = zeros(do, min(ROW, y.size), y.dtype)

    def then(each: Calls, images: Array) -> None:
        by_rows(each, do.xp.add, images, biases, images)
        if relu:
            by_rows(each, do.xp.maximum, images, floor, images)

    convolve(do, x, kernel, y, then, **attrs)


def _clear(do: Calls, padded: Array | None) -> None:
    if padded is not None:
        do(padded.fill, 0)


@kernel("conv_kernel_grad")
def conv_kernel_grad(do: Calls, x: Array, g: Array, y: Array, *, shape: Sizes, groups: int, **attrs: Any) -> None:
    """The sum of the blocks' products, columns transposed times gradient."""
    if not x.size:
        do(y.fill, 0)
        return
    x, g = dense(do, x), dense(do, g)
    geometry, each = Geometry(x.shape, shape, groups=groups, **attrs), Batch(do)
    columns = Columns(each, geometry, x.dtype)
    rows, filters = math.prod(shape[:-1]), shape[-1] // groups
    total = y.reshape(1, rows, filters) if groups == 1 else do.workspace((groups, rows, filters), y.dtype)
    one = do.workspace((rows, filters), y.dtype)
    _clear(do, columns.padded)
    for i, block in enumerate(geometry.blocks()):
        for group in range(groups):
            matrix = columns.of(x[block], group)
            each(do.xp.dot, matrix.T, part(g[block], group, groups), one if i else total[group])
            if i:
                each(do.xp.add, total[group], one, total[group])
    each.run()
    if groups > 1:
        do(do.xp.copyto, y.reshape(rows, groups, filters), total.transpose(1, 0, 2))


@kernel("conv_input_grad")
def conv_input_grad(do: Calls, g: Array, kernel: Array, y: Array, *, shape: Sizes, groups: int, **attrs: Any) -> None:
    g, kernel = dense(do, g), dense(do, kernel)
    geometry, each = Geometry(shape, kernel.shape, groups=groups, **attrs), Batch(do)
    if geometry.is_product:
        product = Product(each, math.prod(g.shape[:-1]), kernel.shape[-2], g.dtype, groups)
        for group in range(groups):
            product(part(g, group, groups), part(kernel, group, groups).T, part(y, group, groups))
    else:
        back = way_back(do, each, geometry, kernel)
        for block in geometry.blocks():
            back(g[block], y[block])
    each.run()


def way_back(do: Calls, each: Calls, geometry: Geometry, kernel: Array) -> Callable[[Array, Array], None]:
    """What turns the gradient of a block's results into that of its images, the faster way."""
    windows = geometry.x[0] * math.prod(geometry.lead)
    few = kernel.size > 2 * windows * kernel.shape[-1]  # so that turning the kernel round takes too long
    many = geometry.x[-2] > WIDER * geometry.counts[-1] * geometry.pool[-1]
    one_by_one = geometry.strides[-1] == 1 and min(geometry.around) >= 0 and geometry.groups == 1
    if one_by_one and not few and not many:
        return Gathered(do, each, geometry, kernel).back
    return Scattered(each, geometry, kernel).back


class Scattered:
    """The columns' gradients, added up where the windows lie."""

    def __init__(self, do: Calls, geometry: Geometry, kernel: Array) -> None:
        self.do, self.geometry, self.kernel = do, geometry, kernel
        self.columns = Columns(do, geometry, kernel.dtype, upright=False)

    def back(self, g: Array, y: Array) -> None:
        do, columns, geometry, kernel, n = self.do, self.columns, self.geometry, self.kernel, len(y)
        groups, elements = geometry.groups, math.prod(kernel.shape[:-1])
        target = y if columns.padded is None else columns.padded[:n]
        windows = columns.array(n, (n, *geometry.lead, *geometry.window, kernel.shape[-2]))
        do(target.fill, 0)
        for group in range(groups):
            matrix = columns.array(n, (-1, elements))
            do(do.xp.dot, part(g, group, groups), part(kernel, group, groups).T, matrix)
            for some, there in geometry.runs(do.xp, windows, target[..., geometry.channels(group)]):
                do(do.xp.add, there, some, there)
        if target is not y:
            do(do.xp.copyto, y, target[geometry.inside])


class Gathered:
    """Along the last axis a convolution of the gradient with the kernel turned round: then only as many results as the
    window has rows are added up, and whole rows of them."""

    def __init__(self, do: Calls, each: Calls, geometry: Geometry, kernel: Array) -> None:
        self.do, self.geometry, (low, high), dtype = each, geometry, geometry.around, kernel.dtype
        self.taps = list(itertools.product(*map(range, geometry.window[:-1])))
        size, filters, channels = geometry.window[-1], kernel.shape[-1], kernel.shape[-2]
        self.rows = tuple(c * e for c, e in zip(geometry.counts[:-1], geometry.pool, strict=False))
        self.wide = do.workspace((geometry.images, *self.rows, low + geometry.full[-1] + high, filters), dtype)
        places = (geometry.images, *self.rows, geometry.x[-2])
        self.columns = do.workspace((*places, size, filters), dtype)
        self.found = do.workspace((*places, channels), dtype)
        self.turned = do.workspace((len(self.taps), size, filters, channels), dtype)
        there = kernel.reshape(len(self.taps), size, channels, filters)[:, ::-1].transpose(0, 1, 3, 2)
        do(do.xp.copyto, self.turned, there)
        do(self.wide.fill, 0)

    def back(self, g: Array, y: Array) -> None:
        do, copyto, n = self.do, self.do.xp.copyto, len(y)
        wide, columns, found = self.wide[:n], self.columns[:n], self.found[:n]
        for part, there in self.laid(g, wide):
            do(copyto, there, part)
        step = wide.strides[-2]
        strides = (*wide.strides[:-1], step * self.geometry.dilation[-1], wide.strides[-1])
        do(copyto, columns, do.xp.lib.stride_tricks.as_strided(wide, columns.shape, strides))
        matrix, channels = columns.reshape(-1, math.prod(columns.shape[-2:])), y.shape[-1]
        if len(self.taps) > 1:
            do(y.fill, 0)
        for tap, turned in zip(self.taps, self.turned, strict=True):
            into = found if len(self.taps) > 1 else y
            do(do.xp.dot, matrix, turned.reshape(-1, channels), into.reshape(-1, channels))
            if into is not y:
                some, there = self.rows_of(tap)
                do(do.xp.add, y[there], found[some], y[there])

    def laid(self, g: Array, wide: Array) -> Iterator[tuple[Array, Array]]:
        """The gradient, and where it lies between the zeros; of pooled windows, for each place in the pools."""
        start, geometry = self.geometry.around[0], self.geometry
        if not geometry.every:
            yield g, wide[..., start : start + g.shape[-2], :]
            return
        for at in itertools.product(*map(range, geometry.every)):
            first = (*at[:-1], start + at[-1])
            ends = (a + c * e for a, c, e in zip(first, geometry.counts, geometry.every, strict=True))
            there = (slice(a, b, e) for a, b, e in zip(first, ends, geometry.every, strict=True))
            place = g.reshape(len(g), *geometry.lead, g.shape[-1])[(slice(None), *at)]
            yield place, wide[(slice(None), *there)]

    def rows_of(self, tap: Sizes) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Which rows of the products a place in the window sends where in the images, as far as they are inside."""
        some, there, g = [slice(None)], [slice(None)], self.geometry
        axes = zip(tap, self.rows, g.strides, g.dilation, g.padding, g.x[1:], strict=False)
        for t, count, stride, dilation, (low, _), size in axes:
            shift = t * dilation - low
            first, last = max(0, -(shift // stride)), min(count, (size - 1 - shift) // stride + 1)
            some.append(slice(first, max(first, last)))
            there.append(slice(first * stride + shift, max(0, (last - 1) * stride + shift + 1), stride))
        return tuple(some), tuple(there)


# ---- convolution, bias, relu and pools that touch, in one piece -----------------------


@kernel("conv_pool")
def conv_pool(do: Calls, x: Array, kernel: Array, bias: Array, *results: Array, **attrs: Any) -> None:
    """Not an op: the largest of each pool of a convolution's results with a bias, and not below 0 (see ``fuse``).

    Results: where the gradient is wanted, ``(images, places, *pools, filters)``: at the first place whether the pool's
    largest is above 0, at another whether that one is larger than all before it. Then the largest ones.
    """
    x, kernel, y = dense(do, x), dense(do, kernel), results[-1]
    g, each = Geometry(x.shape, kernel.shape, groups=1, **attrs), Batch(do)
    columns, places = Columns(each, g, x.dtype), math.prod(g.every)
    work = do.workspace((g.images, places, *y.shape[1:]), y.dtype)
    biases, floor = row_of(do, bias, max(y.size, bias.size)), zeros(do, min(ROW, y.size), y.dtype)
    _clear(do, columns.padded)
    for block in g.blocks():
        images, largest = x[block], y[block]
        found, above = work[: len(images)], results[0][block] if len(results) > 1 else None
        each(do.xp.dot, columns.of(images, 0), part(kernel, 0, 1), found.reshape(-1, kernel.shape[-1]))
        before = found[:, 0]
        for i in range(1, places):
            if above is not None:
                each(do.xp.less, before, found[:, i], above[:, i])
            each(do.xp.maximum, before, found[:, i], out=largest)
            before = largest
        by_rows(each, do.xp.add, largest, biases, largest)  # which changes nothing in the order of numbers
        by_rows(each, do.xp.maximum, largest, floor, largest)
        if above is not None:
            each(do.xp.greater, largest, scalar(do, 0, y.dtype), above[:, 0])
    each.run()


@kernel("conv_pool_grad")
def conv_pool_grad(
    do: Calls, g: Array, above: Array, x: Array, kernel: Array, *results: Array, wanted: Sequence[str], **attrs: Any
) -> None:
    """Not an op: the gradients to ``wanted``, some of kernel, bias and input, from that of ``conv_pool``'s largest
    ones. Those of the convolution's results are only there for a block of images at a time."""
    g, x, kernel, xp, each = dense(do, g), dense(do, x), dense(do, kernel), do.xp, Batch(do)
    geometry, into = Geometry(x.shape, kernel.shape, groups=1, **attrs), dict(zip(wanted, results, strict=True))
    images, filters = geometry.images, kernel.shape[-1]
    open_, rest = do.workspace((images, *g.shape[1:]), bits(g).dtype), do.workspace((images, *g.shape[1:]), g.dtype)
    spread = do.workspace((images, *above.shape[1:]), g.dtype)
    more = {k: do.workspace(y.shape, g.dtype) for k, y in into.items() if k != "input"}
    columns = Columns(each, geometry, g.dtype) if "kernel" in into else None
    back = way_back(do, each, geometry, kernel) if "input" in into else None
    _clear(do, columns.padded if columns else None)
    if not len(x):  # no block sets them
        for y in results:
            do(y.fill, 0)

    def add_up(name: str, i: int, a: Array, b: Array) -> None:
        total, one = (y.reshape(*a.shape[:-1], filters) for y in (into[name], more[name]))
        each(xp.dot, a, b, one if i else total)
        if i:
            each(xp.add, total, one, total)

    for i, block in enumerate(geometry.blocks()):
        n = len(x[block])
        mask, left, found = open_[:n], rest[:n], spread[:n]
        for place in (0, *range(above.shape[1] - 1, 0, -1)):
            each(xp.negative, above[block][:, place].view("i1"), mask)
            if place == 0:
                each(xp.bitwise_and, bits(g[block]), mask, bits(left))
                if "bias" in into:
                    rows = left.reshape(-1, filters)
                    add_up("bias", i, ones(do, len(rows), g.dtype), rows)
            else:
                each(xp.bitwise_and, bits(left), mask, bits(found[:, place]))
                each(xp.bitwise_xor, bits(left), bits(found[:, place]), bits(left if place > 1 else found[:, 0]))
        if columns is not None:
            add_up("kernel", i, columns.of(x[block], 0).T, found.reshape(-1, filters))
        if back is not None:
            back(found, into["input"][block])
    each.run()
