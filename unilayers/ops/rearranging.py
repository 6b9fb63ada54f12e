"""Further ways to make, cut, join and move arrays, by the names of NumPy and Keras."""

from __future__ import annotations

import builtins
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import Value, is_tracing
from unilayers.ops.create import literal
from unilayers.ops.define import dtype_of, host_of, put_beside, shape_of, to_numpy
from unilayers.ops.elementwise import add, equal, multiply, subtract, where
from unilayers.ops.shape import concat, expand_dims, permute_dims, reshape, slice_axis, split
from unilayers.ops.special import floats
from unilayers.spec import broadcast_shapes, normalize_axis, public_shape
from unilayers.structure import leaves_of, pack_like

__all__ = [
    "append",
    "array_split",
    "associative_scan",
    "bartlett",
    "blackman",
    "cross",
    "depth_to_space",
    "diagflat",
    "dsplit",
    "dstack",
    "empty",
    "empty_like",
    "fold",
    "geomspace",
    "get_item",
    "hamming",
    "hanning",
    "hsplit",
    "is_tensor",
    "isin",
    "kaiser",
    "kron",
    "logspace",
    "nonzero",
    "rearrange",
    "rot90",
    "scatter_update",
    "space_to_depth",
    "unfold",
    "unique",
    "unravel_index",
    "vander",
    "vectorize",
    "vsplit",
]  # fmt: skip

# ---- making arrays ------------------------------------------------------------------


def empty(shape: Any, dtype: str | None = None) -> Any:
    """An array of the given shape; its elements are 0, as nothing here is left to chance."""
    return ops.zeros(shape, dtype)


def empty_like(x: Any, dtype: str | None = None) -> Any:
    """An array of the shape and dtype of x; its elements are 0."""
    return ops.zeros_like(x, dtype)


def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: float = 10, dtype: str | None = None,
    axis: int = 0,
) -> Any:  # fmt: skip
    """``base`` to the power of numbers at equal distances from ``start`` to ``stop``; see ``linspace``."""
    y = ops.power(float(base), ops.linspace(start, stop, num, endpoint, axis=axis))
    return y if dtype is None else ops.astype(y, dtype)


def geomspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: str | None = None, axis: int = 0
) -> Any:
    """Numbers from ``start`` to ``stop``, of the same sign, of which each is its predecessor times the same factor."""
    if isinstance(start, (int, float)) and isinstance(stop, (int, float)):
        return literal(np.geomspace(start, stop, num, endpoint).astype(dtype or ops.floatx()))
    first, last = (floats(ops.convert_to_tensor(x)) for x in (start, stop))
    powers = ops.linspace(ops.log(ops.abs(first)), ops.log(ops.abs(last)), num, endpoint, axis=axis)
    y = multiply(ops.exp(powers), ops.sign(last))
    return y if dtype is None else ops.astype(y, dtype)


def _window(x: Any, make: Callable[[int], np.ndarray]) -> Any:
    return literal(make(int(to_numpy(x))).astype(ops.floatx()))


def bartlett(x: Any) -> Any:
    """A window of x numbers: up to 1 in the middle along a straight line, and down again."""
    return _window(x, np.bartlett)


def blackman(x: Any) -> Any:
    """A window of x numbers: a sum of three cosines, 0 at its ends."""
    return _window(x, np.blackman)


def hamming(x: Any) -> Any:
    """A window of x numbers: a raised cosine, 0.08 at its ends."""
    return _window(x, np.hamming)


def hanning(x: Any) -> Any:
    """A window of x numbers: a raised cosine, 0 at its ends."""
    return _window(x, np.hanning)


def kaiser(x: Any, beta: float) -> Any:
    """A window of x numbers by Bessel functions; the larger ``beta``, the narrower it is."""
    return _window(x, lambda n: np.kaiser(n, beta))


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """The powers of a vector as the columns of a matrix, the highest first, or last if ``increasing``.

    Example:
        >>> vander(np.array([2.0, 3.0]), 3)
        array([[4., 2., 1.],
               [9., 3., 1.]])
    """
    count: Any = shape_of(x)[0] if N is None else N
    powers = [ops.ones_like(x)]
    for _ in range(1, count):
        powers.append(multiply(powers[-1], x))
    if not count:
        return slice_axis(expand_dims(x, 1), 1, 0, 0)
    return ops.stack(powers if increasing else powers[::-1], 1)


def diagflat(x: Any, k: int = 0) -> Any:
    """A matrix with all elements of x on a diagonal, ``k`` above the main one."""
    return ops.diag(reshape(x, (-1,)), k)


# ---- joining and cutting ----------------------------------------------------------------


def append(x1: Any, x2: Any, axis: int | None = None) -> Any:
    """x2 behind x1 along ``axis``; None: all elements of both in one row."""
    return concat([reshape(x1, (-1,)), reshape(x2, (-1,))], 0) if axis is None else concat([x1, x2], axis)


def dstack(xs: Sequence[Any]) -> Any:
    """Joined along the third axis; vectors and matrices get one."""
    flat = [reshape(x, (1, -1)) if len(shape_of(x)) < 2 else x for x in xs]
    return concat([expand_dims(x, 2) if len(shape_of(x)) == 2 else x for x in flat], 2)


def array_split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """``split``, but into parts that may differ by one: the first ones are longer."""
    size = shape_of(x)[axis]
    if not isinstance(indices_or_sections, int) or not isinstance(size, int):
        return split(x, indices_or_sections, axis)
    each, more = divmod(size, indices_or_sections)
    return split(x, [each * i + builtins.min(i, more) for i in range(1, indices_or_sections)], axis)


def vsplit(x: Any, indices_or_sections: int | Sequence[int]) -> list[Any]:
    """``split`` along the first axis."""
    return split(x, indices_or_sections, 0)


def hsplit(x: Any, indices_or_sections: int | Sequence[int]) -> list[Any]:
    """``split`` along the second axis; a vector along its only one."""
    return split(x, indices_or_sections, 0 if len(shape_of(x)) == 1 else 1)


def dsplit(x: Any, indices_or_sections: int | Sequence[int]) -> list[Any]:
    """``split`` along the third axis."""
    return split(x, indices_or_sections, 2)


# ---- turning ---------------------------------------------------------------------------------


def rot90(array: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    """Turned by ``k`` quarters of a circle, from the first of two axes to the second."""
    first, second = (normalize_axis(a, len(shape_of(array))) for a in axes)
    k %= 4
    if k == 2:
        return ops.flip(array, (first, second))
    if k == 1:
        return ops.swapaxes(ops.flip(array, second), first, second)
    return ops.flip(ops.swapaxes(array, first, second), second) if k else ops.identity(array)


def _axes_of(text: str, pattern: str) -> list[list[str]]:
    """The groups of names on one side of a pattern; a name alone is a group of one."""
    found = re.findall(r"\(([^()]*)\)|(\.\.\.|\w+)", text)
    if re.sub(r"\(([^()]*)\)|\.\.\.|\w+|\s", "", text):
        raise _wrong(pattern, "names, parentheses and '...'", text)
    return [[name] if name else inner.split() for inner, name in found]


def _wrong(pattern: str, expected: str, received: str) -> UnilayersError:
    return UnilayersError(
        f"cannot rearrange by {pattern!r}", where="ops.rearrange", expected=expected, received=received
    )


def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Any:
    """Axes moved, joined and cut, as a pattern of their names says.

    Args:
        tensor: Any array.
        pattern: The names of its axes, ``->``, and the same names in their new order. Names in parentheses share an
            axis; ``...`` stands for axes without a name, and 1 for an axis of size 1.
        axes_lengths: Sizes of names that share an axis; one of them may be left out.

    Raises:
        UnilayersError: for a pattern that does not fit.

    Reference:
        Rogozhnikov, Einops: Clear and reliable tensor manipulations with Einstein-like notation, 2022.

    Example:
        >>> x = np.arange(6).reshape(2, 3)
        >>> rearrange(x, "a b -> b a").shape, rearrange(x, "a (b c) -> (c a) b", c=3).tolist()
        ((3, 2), [[0], [3], [1], [4], [2], [5]])
    """
    left, arrow, right = pattern.partition("->")
    before, after = _axes_of(left, pattern), _axes_of(right, pattern)
    shape = shape_of(tensor)
    hidden = [f".{i}" for i in range(len(shape) - len(before) + 1)]
    before, after = (_with_hidden(side, hidden) for side in (before, after))
    names = [name for group in before for name in group if name != "1"]
    wanted = [name for group in after for name in group if name != "1"]
    if not arrow or len(before) != len(shape) or sorted(names) != sorted(wanted) or len(set(names)) < len(names):
        rule = "each axis of the array once on the left, and each of their names on the right"
        raise _wrong(pattern, rule, str(public_shape(shape)))
    if axes_lengths.keys() - set(names):
        raise _wrong(pattern, f"sizes of {', '.join(names)}", str(sorted(axes_lengths)))
    sizes: dict[str, Any] = dict(axes_lengths)
    for group, size in zip(before, shape, strict=True):
        unknown = [name for name in group if name != "1" and name not in sizes]
        known = math.prod(sizes[name] for name in group if name in sizes)
        if len(unknown) > 1 or (isinstance(size, int) and (size % known if unknown else size != known)):
            raise _wrong(pattern, f"sizes that make {size}", f"({' '.join(group)}) with {axes_lengths}")
        if unknown:
            sizes[unknown[0]] = size // known
    parted = reshape(tensor, tuple(sizes[name] for name in names))
    moved = permute_dims(parted, [names.index(name) for name in wanted])
    return reshape(moved, tuple(math.prod(sizes[name] for name in group if name != "1") for group in after))


def _with_hidden(groups: list[list[str]], hidden: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = []
    for group in groups:
        if group == ["..."]:
            found += [[name] for name in hidden]
        else:
            found.append([n for name in group for n in (hidden if name == "..." else [name])])
    return found


def space_to_depth(x: Any, block_size: int, data_format: str | None = "channels_last") -> Any:
    """Squares of pixels as one pixel with more channels.

    Shapes: x ``(batch, height, width, channels)`` -> ``(batch, height / block_size, width / block_size, block_size**2 *
    channels)``, the pixels of a square one behind the other; with "channels_first" the channels follow the batch, and
    the pixels of one channel are side by side.
    """
    from unilayers.ops.conv import is_first

    if is_first(data_format):
        return rearrange(x, "n c (h i) (w j) -> n (c i j) h w", i=block_size, j=block_size)
    return rearrange(x, "n (h i) (w j) c -> n h w (i j c)", i=block_size, j=block_size)


def depth_to_space(x: Any, block_size: int, data_format: str | None = "channels_last") -> Any:
    """Channels spread over squares of pixels: undoes ``space_to_depth``.

    Reference: Shi et al., Real-time single image and video super-resolution using an efficient sub-pixel convolutional
    neural network, 2016, arXiv 1609.05158.
    """
    from unilayers.ops.conv import is_first

    if is_first(data_format):
        return rearrange(x, "n (c i j) h w -> n c (h i) (w j)", i=block_size, j=block_size)
    return rearrange(x, "n h w (i j c) -> n (h i) (w j) c", i=block_size, j=block_size)


# ---- windows over pictures as columns -----------------------------------------------------------


def _both(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)  # type: ignore[return-value]


def _places(where_: str, size: Any, kernel: int, dilation: int, padding: int, stride: int) -> np.ndarray:
    """The padded pixels of each window along one axis: ``(windows, kernel)``."""
    reach = (kernel - 1) * dilation + 1
    if not isinstance(size, int) or size + 2 * padding < reach:
        raise ShapeError(
            "the windows do not fit", where=f"ops.{where_}", expected=f"a known size of at least {reach - 2 * padding}",
            received=str(public_shape((size,))[0]),
        )  # fmt: skip
    starts = np.arange(0, size + 2 * padding - reach + 1, stride)
    return np.asarray(starts[:, None] + np.arange(kernel) * dilation, np.int32)


def unfold(x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Windows of pictures as columns.

    Shapes: x ``(batch, channels, height, width)`` -> ``(batch, channels * window, windows)``, row by row.

    Args:
        x: The pictures.
        kernel_size: Height and width of the windows, or one number for both; so all that follow.
        dilation: Distance of a window's pixels.
        padding: Zeros on each side.
        stride: Steps between windows.

    Raises:
        ShapeError: if the windows do not fit or a size is not known.

    Example:
        >>> unfold(np.arange(6.0).reshape(1, 1, 2, 3), (2, 2))[0].T
        array([[0., 1., 3., 4.],
               [1., 2., 4., 5.]])
    """
    above, beside = _both(padding)
    each: Any = zip(shape_of(x)[2:], *map(_both, (kernel_size, dilation, padding, stride)), strict=True)
    rows, columns = (_places("unfold", *axis) for axis in each)
    x = ops.pad(x, [(0, 0), (0, 0), (above, above), (beside, beside)])
    x = ops.take(ops.take(x, columns, 3), rows, 2)  # batch, channels, windows, kernel, windows, kernel
    x = permute_dims(x, (0, 1, 3, 5, 2, 4))
    return reshape(x, (shape_of(x)[0], shape_of(x)[1] * rows.shape[1] * columns.shape[1], len(rows) * len(columns)))


def fold(x: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Columns laid back as windows of pictures, and added up where they overlap: the adjoint of ``unfold``.

    Shapes: x ``(batch, channels * window, windows)`` -> ``(batch, channels, *output_size)``.
    """
    height, width = _both(output_size)
    above, beside = _both(padding)
    each: Any = zip((height, width), *map(_both, (kernel_size, dilation, padding, stride)), strict=True)
    rows, columns = (_places("fold", *axis) for axis in each)
    (high, i), (wide, j) = rows.shape, columns.shape
    batch, size, count = shape_of(x)
    if count != high * wide or (isinstance(size, int) and size % (i * j)):
        raise ShapeError(
            "the columns do not fit the windows", where="ops.fold",
            expected=f"(batch, channels * {i * j}, {high * wide})", received=str(public_shape(shape_of(x))),
        )  # fmt: skip
    x = reshape(x, (batch, size // (i * j), i, j, high, wide))
    x = permute_dims(x, (0, 1, 4, 2, 5, 3))
    x = ops.take_grad(x, columns, axis=4, size=width + 2 * beside)
    x = ops.take_grad(x, rows, axis=2, size=height + 2 * above)
    return ops.getitem(x, (..., slice(above, above + height), slice(beside, beside + width)))


# ---- products -----------------------------------------------------------------------------------------


def kron(x1: Any, x2: Any) -> Any:
    """The Kronecker product: each element of x1 times all of x2, in its place.

    Example:
        >>> kron(np.array([[1, 10]]), np.array([[1], [2]]))
        array([[ 1, 10],
               [ 2, 20]])
    """
    n = builtins.max(len(shape_of(x1)), len(shape_of(x2)))
    a, b = ((*(1,) * (n - len(shape_of(x))), *shape_of(x)) for x in (x1, x2))
    left = reshape(x1, [d for size in a for d in (size, 1)])
    right = reshape(x2, [d for size in b for d in (1, size)])
    return reshape(multiply(left, right), [p * q for p, q in zip(a, b, strict=True)])


def cross(x1: Any, x2: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """The vector that stands at right angles on two others.

    Args:
        x1: Vectors of three numbers, or of two, whose third is 0.
        x2: As x1.
        axisa: The axis of x1 along which they are.
        axisb: That of x2.
        axisc: That of the result.
        axis: All three.

    Returns:
        Vectors of three numbers; of two vectors of two only the third number, without the axis.

    Example:
        >>> cross(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
        array([0., 0., 1.])
    """
    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    parts = [ops.unstack(x, axis=normalize_axis(a, len(shape_of(x)))) for x, a in ((x1, axisa), (x2, axisb))]
    if not all(len(p) in (2, 3) for p in parts):
        raise ShapeError(
            "not vectors in space", where="ops.cross", expected="2 or 3 numbers each",
            received=f"{len(parts[0])} and {len(parts[1])}",
        )  # fmt: skip
    flat = len(parts[0]) == len(parts[1]) == 2
    (a0, a1, a2), (b0, b1, b2) = (p if len(p) == 3 else [*p, ops.zeros_like(p[0])] for p in parts)
    third = subtract(multiply(a0, b1), multiply(a1, b0))
    if flat:
        return third
    first, second = subtract(multiply(a1, b2), multiply(a2, b1)), subtract(multiply(a2, b0), multiply(a0, b2))
    return ops.stack([first, second, third], axisc)


# ---- places ----------------------------------------------------------------------------------------------


def get_item(x: Any, key: Any) -> Any:
    """``x[key]``; see ``getitem``."""
    return ops.getitem(x, key)


def isin(x1: Any, x2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """Whether each element of x1 is one of x2 (or, with ``invert``, is not)."""
    found = ops.any(equal(expand_dims(x1, -1), reshape(x2, (-1,))), -1)
    return ops.logical_not(found) if invert else found


def unravel_index(indices: Any, shape: Sequence[int]) -> tuple[Any, ...]:
    """Places in an array whose elements are in one row, as one index per axis.

    Example:
        >>> unravel_index(np.array([3, 5]), (2, 3))
        (array([1, 1]), array([0, 2]))
    """
    found: list[Any] = []
    for size in tuple(shape)[::-1]:
        found.append(ops.remainder(indices, size))
        indices = ops.floor_divide(indices, size)
    return tuple(found[::-1])


def flat_places(indices: Any, shape: Sequence[int]) -> Any:
    """Places ``(..., axes)`` along the first axes of an array as numbers of rows."""
    depth: Any = shape_of(indices)[-1]
    strides = [math.prod(shape[i + 1 : depth]) for i in range(depth)]
    return ops.sum(multiply(indices, np.array(strides, dtype_of(indices))), -1)


def scatter_update(inputs: Any, indices: Any, updates: Any, reduction: str | None = None) -> Any:
    """``inputs`` with elements replaced, or changed, at some places.

    Args:
        inputs: Any array.
        indices: ``(count, axes)``: the places along the first axes.
        updates: ``(count, ...)``: what is to be there, along the other axes.
        reduction: None to replace (of several updates of one place, by the last); "add", "mul", "max" or "min" to
            change.

    Example:
        >>> scatter_update(np.zeros(4), np.array([[1], [3], [1]]), np.array([5.0, 6.0, 7.0]))
        array([0., 7., 0., 6.])
        >>> scatter_update(np.ones(4), np.array([[1], [3], [1]]), np.array([5.0, 6.0, 7.0]), "add")
        array([ 1., 13.,  1.,  7.])
    """
    if reduction not in (None, "add", "mul", "max", "min"):
        raise UnilayersError(
            "unknown reduction", where="ops.scatter_update", expected="None, 'add', 'mul', 'max' or 'min'",
            received=repr(reduction),
        )  # fmt: skip
    shape: Any = shape_of(inputs)
    depth: Any = shape_of(indices)[-1]
    places, rows = reshape(flat_places(indices, shape), (-1,)), math.prod(shape[:depth])
    old, new = reshape(inputs, (rows, *shape[depth:])), reshape(updates, (-1, *shape[depth:]))
    new = ops.astype(new, dtype_of(old))
    if reduction == "add":
        y = add(old, ops.take_grad(new, places, axis=0, size=rows))
    elif reduction is not None:
        kind = "prod" if reduction == "mul" else reduction
        step = {"mul": multiply, "max": ops.maximum, "min": ops.minimum}[reduction]
        y = step(old, ops.segment_reduce(new, places, kind=kind, size=rows))
    else:
        order = ops.arange(shape_of(places)[0], like=places)
        last = ops.segment_reduce(order, places, kind="max", size=rows)  # the number of the last update of each place
        hit = reshape(ops.greater_equal(last, 0), (-1, *(1,) * len(shape[depth:])))
        y = where(hit, ops.take(new, ops.maximum(last, 0), 0), old)
    return reshape(y, shape)


# ---- sizes that depend on the elements -------------------------------------------------------------------------


def _seen(x: Any, where_: str) -> np.ndarray:
    """The elements of a concrete array."""
    if isinstance(x, Value) or is_tracing():
        raise ShapeError(
            "the size of the result depends on the elements, which a graph does not know", where=f"ops.{where_}",
            fix="Call it outside of the graph, or mask with ops.where",
        )  # fmt: skip
    return to_numpy(x)


def nonzero(x: Any) -> tuple[Any, ...]:
    """The places of the elements that are not 0, as one vector (int32) per axis; not in graphs.

    Raises:
        ShapeError: in a graph.
    """
    return tuple(put_beside(x, places.astype(np.int32)) for places in np.nonzero(_seen(x, "nonzero")))


def unique(
    x: Any, sorted: bool = True, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False,
    axis: int | None = None, size: int | None = None, fill_value: Any = None,
) -> Any:  # fmt: skip
    """The different elements in rising order, each once; not in graphs.

    Args:
        x: Any array.
        sorted: The order is always the rising one.
        return_index: Whether to return where each occurs first.
        return_inverse: Whether to return which of them each element of x is.
        return_counts: Whether to return how often each occurs.
        axis: Compares slices along this axis; None: single elements.
        size: Of the result: what is more is cut off, what is missing filled.
        fill_value: With what; None: the smallest element.

    Raises:
        ShapeError: in a graph.

    Example:
        >>> unique(np.array([3, 1, 3]), return_counts=True)
        (array([1, 3]), array([1, 2], dtype=int32))
    """
    found = np.unique(_seen(x, "unique"), True, True, True, axis=axis)
    values, first, inverse, counts = found
    if size is not None:
        along = 0 if axis is None else axis
        missing = size - values.shape[along]
        values = np.take(values, np.arange(size), along, mode="clip")
        if missing > 0:
            rest: list[Any] = [slice(None)] * values.ndim
            rest[along] = slice(size - missing, None)
            values[tuple(rest)] = values.min() if fill_value is None else fill_value
            first, counts = np.pad(first, (0, missing)), np.pad(counts, (0, missing))
        first, counts = first[:size], counts[:size]
    extra = [(return_index, first), (return_inverse, inverse), (return_counts, counts)]
    results = [put_beside(x, values), *(put_beside(x, a.astype(np.int32)) for wanted, a in extra if wanted)]
    return tuple(results) if len(results) > 1 else results[0]


def is_tensor(x: Any) -> bool:
    """Whether x is an array of some backend, or a symbolic value."""
    return isinstance(x, Value) or hasattr(x, "as_operand") or hasattr(x, "array") or host_of(x) is not None


# ---- functions of functions ---------------------------------------------------------------------------------


def vectorize(pyfunc: Callable[..., Any], *, excluded: Any = None, signature: str | None = None) -> Callable[..., Any]:
    """A function of single numbers as one of arrays, which are brought to one shape.

    Args:
        pyfunc: Takes and returns scalars, and calls ops.
        excluded: Positions of arguments that are given as they are.
        signature: Not supported.

    Example:
        >>> vectorize(lambda a, b: ops.maximum(a, b))(np.array([1.0, 4.0]), np.array([[2.0], [5.0]]))
        array([[2., 4.],
               [5., 5.]])
    """
    if signature is not None:
        raise UnilayersError(
            "functions of more than single numbers cannot be vectorized",
            where="ops.vectorize",
            fix="Use ops.vectorized_map",
        )
    fixed = set(excluded or ())

    def call(*args: Any) -> Any:
        arrays = [a for i, a in enumerate(args) if i not in fixed]
        shape = broadcast_shapes(*(shape_of(a) for a in arrays))
        flat = tuple(reshape(ops.broadcast_to(ops.convert_to_tensor(a), shape), (-1,)) for a in arrays)

        def one(row: tuple[Any, ...]) -> Any:
            given = iter(row)
            return pyfunc(*(a if i in fixed else next(given) for i, a in enumerate(args)))

        y = ops.map(one, flat)
        return pack_like(y, [reshape(part, shape) for part in leaves_of(y)])

    return call


def associative_scan(f: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """All partial results of an operation whose order of evaluation does not matter, in logarithmic depth.

    Args:
        f: Of two slices of the elements (many at once, along ``axis``) to such slices: sums, products of matrices,
            maxima...
        elems: An array, or a structure of arrays of one size along ``axis``.
        reverse: Whether to begin at the end.
        axis: Along which.

    Returns:
        As ``elems``: at place i, ``f`` of all elements up to i.

    Reference:
        Blelloch, Prefix sums and their applications, 1990.

    Example:
        >>> associative_scan(lambda a, b: a * b, np.array([1, 2, 3, 4]))
        array([ 1,  2,  6, 24])
    """
    leaves = leaves_of(elems)
    place = [normalize_axis(axis, len(shape_of(x))) for x in leaves]
    size = shape_of(leaves[0])[place[0]]
    if not isinstance(size, int):
        raise ShapeError("the number of elements must be known", where="ops.associative_scan")
    if reverse:
        leaves = [ops.flip(x, a) for x, a in zip(leaves, place, strict=True)]

    def part(xs: Sequence[Any], start: int, stop: int, step: int = 1) -> list[Any]:
        return [slice_axis(x, a, start, stop, step) for x, a in zip(xs, place, strict=True)]

    def combined(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
        return leaves_of(f(pack_like(elems, list(a)), pack_like(elems, list(b))))

    def scanned(xs: Sequence[Any], n: int) -> list[Any]:
        if n < 2:
            return list(xs)
        odd = scanned(combined(part(xs, 0, n - 1, 2), part(xs, 1, n, 2)), n // 2)  # the results at 1, 3, 5...
        even = part(xs, 0, 1)
        if n > 2:
            later = combined(part(odd, 0, (n - 1) // 2), part(xs, 2, n, 2))
            even = [concat([x, y], a) for x, y, a in zip(even, later, place, strict=True)]
        return [_alternating(x, y, a, n) for x, y, a in zip(even, odd, place, strict=True)]

    found = scanned(leaves, size)
    if reverse:
        found = [ops.flip(x, a) for x, a in zip(found, place, strict=True)]
    return pack_like(elems, found)


def _alternating(even: Any, odd: Any, axis: int, size: int) -> Any:
    """The elements of both in turn: ``size`` in all."""
    places = [i // 2 + (i % 2) * ((size + 1) // 2) for i in range(size)]
    return ops.take(concat([even, odd], axis), np.array(places, np.int32), axis)
