"""Pooling over one, two or three spatial axes, and its gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.graph import Sample
from unilayers.ops.conv import (
    Padding,
    Pairs,
    Sizes,
    conv_padding,
    is_first,
    names_itself,
    per_axis,
    reference_pad,
    reference_windows,
    turned,
    window_counts,
)
from unilayers.ops.define import composite, dtype_of, primitive, require_float, shape_of
from unilayers.spec import Shape, Spec, host_dtype

__all__ = [
    "adaptive_average_pool", "adaptive_avg_pool", "adaptive_avg_pool_", "adaptive_max_pool", "adaptive_max_pool_",
    "average_pool", "avg_pool", "avg_pool_", "avg_pool_grad", "max_pool", "max_pool_", "max_pool_grad",
]  # fmt: skip

# ---- shape rules ------------------------------------------------------------


def _pool_shape(x: Shape, *, window: Sizes, strides: Sizes, padding: Pairs) -> Shape:
    if len(x) < 3:
        raise ShapeError("nothing to pool", expected="(batch, *spatial, channels)", received=str(x))
    for k, pair in zip(window, padding, strict=False):
        if any(isinstance(p, int) and not 0 <= p < k for p in pair):
            raise ShapeError("padding must be smaller than the window", expected=f"0 to {k - 1}", received=str(pair))
    return (x[0], *window_counts(x[1:-1], window, strides, padding, (1,) * len(window)), x[-1])


def _infer(x: Spec, *, window: Sizes, strides: Sizes, padding: Pairs) -> Spec:
    require_float(x.dtype)
    return x.with_shape(_pool_shape(x.shape, window=window, strides=strides, padding=padding))


def _max_grad_infer(g: Spec, x: Spec, y: Spec, *, window: Sizes, strides: Sizes, padding: Pairs) -> Spec:
    _expect(_pool_shape(x.shape, window=window, strides=strides, padding=padding), g.shape, y.shape)
    return x


def _avg_grad_infer(g: Spec, *, shape: Shape, window: Sizes, strides: Sizes, padding: Pairs) -> Spec:
    _expect(_pool_shape(shape, window=window, strides=strides, padding=padding), g.shape)
    return g.with_shape(shape)


def _expect(shape: Shape, *found: Shape) -> None:
    for s in found:
        if tuple(s) != tuple(shape):
            raise ShapeError(
                "a gradient does not have the shape of the pooled array", expected=f"{shape}", received=f"{s}"
            )


# ---- gradients --------------------------------------------------------------


def _max_vjp(g: Any, y: Any, x: Any, **attrs: Any) -> tuple[Any]:
    return (ops.max_pool_grad(g, x, y, **attrs),)


def _max_grad_vjp(
    c: Any, _: Any, g: Any, x: Any, y: Any, *, window: Sizes, strides: Sizes, padding: Pairs
) -> tuple[Any, None, None]:
    """Back to g: of c, the element where x has the first maximum of each window; which one that is has no gradient."""
    edges = [(0, 0), *padding, (0, 0)]
    wide_x, wide_c = ops.pad(x, edges, constant_values=-math.inf), ops.pad(c, edges)
    picked: Any = 0.0
    open_: Any = None
    for tap in itertools.product(*(range(k) for k in window)):
        hit = ops.equal(_tap(wide_x, tap, strides, shape_of(y)), y)
        first = hit if open_ is None else ops.logical_and(hit, open_)
        picked = ops.where(first, _tap(wide_c, tap, strides, shape_of(y)), picked)
        missed = ops.logical_not(hit)
        open_ = missed if open_ is None else ops.logical_and(open_, missed)
    return picked, None, None


def _tap(x: Any, tap: Sizes, strides: Sizes, out: Shape) -> Any:
    """The elements at one place of every window of the padded x."""
    steps, sizes = (1, *strides, 1), shape_of(x)
    start = (0, *tap, 0)
    stop = [sizes[0], *(t + (n - 1) * s + 1 for t, n, s in zip(tap, out[1:-1], strides, strict=True)), sizes[-1]]
    return ops.slice_(x, start=start, stop=stop, step=steps)


def _avg_vjp(g: Any, y: Any, x: Any, **attrs: Any) -> tuple[Any]:
    return (ops.avg_pool_grad(g, shape=shape_of(x), **attrs),)


def _avg_grad_vjp(c: Any, y: Any, g: Any, *, shape: Shape, **attrs: Any) -> tuple[Any]:
    return (ops.avg_pool_(c, **attrs),)


# ---- references: window by window ---------------------------------------------


def _reference(reduce: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """A pooling by its definition; padded elements are NaN, which ``reduce`` skips."""

    def reference(x: np.ndarray, window: Sizes, strides: Sizes, padding: Any) -> np.ndarray:
        shape: Any = _pool_shape(x.shape, window=window, strides=strides, padding=padding)
        y = np.zeros(shape, x.dtype)
        padded = reference_pad(x, padding, math.nan)
        for at, where in _windows(x.shape, window, strides, padding):
            y[(slice(None), *at)] = reduce(padded[where], axis=tuple(range(1, x.ndim - 1)))
        return y

    return reference


def _windows(shape: Sizes, window: Sizes, strides: Sizes, padding: Any) -> Iterator[Any]:
    return reference_windows(shape[1:-1], window, strides, padding, (1,) * len(window))


def _inside(padded: np.ndarray, shape: Sizes, padding: Any) -> np.ndarray:
    return padded[(slice(None), *(slice(low, low + n) for (low, _), n in zip(padding, shape[1:-1], strict=True)))]


def _max_grad_reference(
    g: np.ndarray, x: np.ndarray, y: np.ndarray, window: Sizes, strides: Sizes, padding: Any
) -> np.ndarray:
    padded, result = reference_pad(x, padding, -math.inf), reference_pad(np.zeros_like(x), padding, 0.0)
    for at, where in _windows(x.shape, window, strides, padding):
        for b, c in np.ndindex(x.shape[0], x.shape[-1]):
            best = np.unravel_index(np.argmax(padded[where][b, ..., c]), window)  # argmax takes the first of ties
            result[(b, *(o * s + k for o, s, k in zip(at, strides, best, strict=True)), c)] += g[(b, *at, c)]
    return _inside(result, x.shape, padding)


def _avg_grad_reference(g: np.ndarray, shape: Sizes, window: Sizes, strides: Sizes, padding: Any) -> np.ndarray:
    real = reference_pad(np.ones(shape, g.dtype), padding, 0.0)
    result = np.zeros_like(real)
    for at, where in _windows(shape, window, strides, padding):
        count = real[where].sum(tuple(range(1, g.ndim - 1)), keepdims=True)
        result[where] += g[(slice(None), *at)].reshape(count.shape) / count * real[where]
    return _inside(result, shape, padding)


# ---- samples ----------------------------------------------------------------

# x, window, strides, padding
_CASES: list[tuple[Any, ...]] = [
    ((2, 7, 3), (3,), (2,), ((1, 1),)),
    ((2, 4, 6, 3), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((2, 5, 5, 2), (3, 2), (2, 1), ((1, 1), (0, 1))),
    ((1, 5, 7, 2), (2, 2), (3, 2), ((0, 0), (1, 0))),  # elements that no window sees
    ((1, 3, 4, 2, 2), (2, 2, 2), (1, 2, 1), ((0, 1), (0, 0), (1, 0))),
]


def _cases(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    for x, *rest in _CASES:
        yield (
            rng.permutation(math.prod(x)).reshape(x) / 7.0,
            dict(zip(("window", "strides", "padding"), rest, strict=True)),
        )


_TIES = (
    np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0]).reshape(1, 6, 1),
    {"window": (2,), "strides": (2,), "padding": ((0, 0),)},
)


def _max_grad_samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for x, attrs in [*_cases(rng), _TIES]:
        y = _reference(np.nanmax)(x, **attrs)
        found.append(Sample((rng.normal(size=y.shape), x, y), attrs, (0,) if attrs is not _TIES[1] else False))
    return found


def _avg_grad_samples(rng: np.random.Generator) -> list[Sample]:
    shapes = [(x.shape, a, _pool_shape(x.shape, **a)) for x, a in _cases(rng)]
    return [Sample((rng.normal(size=out),), {"shape": shape, **a}) for shape, a, out in shapes]  # type: ignore[arg-type]


# ---- ops --------------------------------------------------------------------


def _prepare(window: Any, strides: Any, padding: Any) -> dict[str, Any]:
    return {"window": tuple(window), "strides": tuple(strides), "padding": tuple(tuple(p) for p in padding)}


def _cost(x: Spec, *, window: Sizes, **attrs: Any) -> Any:
    return _infer(x, window=window, **attrs).size * math.prod(window)


def _grad_cost(g: Spec, *others: Spec, window: Sizes, **attrs: Any) -> Any:
    return g.size * math.prod(window)


@primitive(
    infer=_infer, vjp=_max_vjp, cost=_cost, reference=_reference(np.nanmax),
    samples=lambda rng: [Sample((x,), a) for x, a in _cases(rng)] + [Sample((_TIES[0],), _TIES[1], False)],
)  # fmt: skip
def max_pool_(x: Any, *, window: Sizes, strides: Sizes, padding: Pairs) -> Any:
    """The largest element of each window of x ``(batch, *spatial, channels)``; padding never wins."""
    attrs = _prepare(window, strides, padding)
    _pool_shape(shape_of(x), **attrs)
    return (x,), attrs


@primitive(
    infer=_max_grad_infer, vjp=_max_grad_vjp, cost=_grad_cost, reference=_max_grad_reference, samples=_max_grad_samples,
    promotes=0,
)  # fmt: skip
def max_pool_grad(g: Any, x: Any, y: Any, *, window: Sizes, strides: Sizes, padding: Pairs) -> Any:
    """The gradient of ``y = max_pool(x)`` to x, from that of y: to the first maximum, row by row, of each window."""
    return (g, x, y), _prepare(window, strides, padding)


@primitive(
    infer=_infer, vjp=_avg_vjp, cost=_cost, reference=_reference(np.nanmean),
    samples=lambda rng: [Sample((x,), a) for x, a in _cases(rng)],
)  # fmt: skip
def avg_pool_(x: Any, *, window: Sizes, strides: Sizes, padding: Pairs) -> Any:
    """The mean of each window of x ``(batch, *spatial, channels)``; padded positions do not count."""
    attrs = _prepare(window, strides, padding)
    _pool_shape(shape_of(x), **attrs)
    return (x,), attrs


@primitive(
    infer=_avg_grad_infer, vjp=_avg_grad_vjp, cost=_grad_cost, reference=_avg_grad_reference, samples=_avg_grad_samples
)
def avg_pool_grad(g: Any, *, shape: Shape, window: Sizes, strides: Sizes, padding: Pairs) -> Any:
    """The gradient of ``avg_pool`` to its input of ``shape``, from the gradient g of its result."""
    return (g,), {"shape": tuple(shape), **_prepare(window, strides, padding)}


@names_itself
def max_pool(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    data_format: str | None = None,
) -> Any:
    """The largest element of each window; padding never wins.

    Args:
        inputs: ``(batch, *spatial, channels)``.
        pool_size: Size of the windows, one int or one per spatial axis.
        strides: Steps between windows; None: as the window, so that windows touch.
        padding: "valid", "same", an int, or per axis an int or a (low, high) pair, smaller than the window.
        data_format: "channels_last" (also None), or "channels_first" for ``(batch, channels, *spatial)``.

    Returns:
        ``(batch, *counts, channels)``. Its gradient goes to the first maximum of each window, row by row.

    Raises:
        ShapeError: a window larger than the padded input, or padding as large as the window.

    Engines: TensorFlow passes over NaN, and gives the smallest finite float for a window of -inf; the others give NaN
    and -inf. So it is here, and which element of a window with NaN gets the gradient is the engine's, too. Ties are
    alike in all.

    Example:
        >>> import numpy as np
        >>> ops.max_pool(np.array([1.0, 3.0, 2.0, 5.0, 4.0]).reshape(1, 5, 1), 2, padding="same").ravel()
        array([3., 5., 4.])
    """
    if is_first(data_format):
        return turned(max_pool, inputs, pool_size, strides, padding)
    return max_pool_(inputs, **_normalised(inputs, pool_size, strides, padding))


@names_itself
def avg_pool(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    data_format: str | None = None,
) -> Any:
    """The mean of each window; padded positions do not count. Arguments as of ``max_pool``.

    Engines: PyTorch counts padded positions by default; here they do not count, as in TensorFlow. float16 is added up
    in float32 by PyTorch and in float16 by TensorFlow; here in float16, which overflows beyond 65504.

    Example:
        >>> import numpy as np
        >>> ops.avg_pool(np.array([1.0, 3.0, 2.0, 5.0, 4.0]).reshape(1, 5, 1), 2, padding="same").ravel()
        array([2. , 3.5, 4. ])
    """
    if is_first(data_format):
        return turned(avg_pool, inputs, pool_size, strides, padding)
    return avg_pool_(inputs, **_normalised(inputs, pool_size, strides, padding))


average_pool = avg_pool


def _normalised(x: Any, window: Any, strides: Any, padding: Padding) -> dict[str, Any]:
    shape = shape_of(x)
    axes = len(shape) - 2
    sizes = per_axis(window, axes, "window")
    steps = per_axis(strides, axes, "strides") if strides is not None else sizes
    return {"window": sizes, "strides": steps, "padding": conv_padding(padding, shape[1:-1], sizes, steps, (1,) * axes)}


# ---- a given number of windows ---------------------------------------------------


def _edges(size: int, count: int) -> list[tuple[int, int]]:
    """Where each of ``count`` windows over ``size`` elements begins and ends: as even as can be, overlapping."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _adaptive_infer(x: Spec, *, sizes: Sizes) -> Spec:
    require_float(x.dtype)
    if len(sizes) != x.ndim - 2 or any(not isinstance(d, int) for d in x.shape[1:-1]):
        raise ShapeError(
            "cannot pool to these sizes", expected=f"{len(sizes)} known sizes between batch and channels",
            received=str(x.shape),
        )  # fmt: skip
    return x.with_shape((x.shape[0], *sizes, x.shape[-1]))


def _adaptive_reference(reduce: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def reference(x: np.ndarray, sizes: Sizes) -> np.ndarray:
        y = np.zeros((x.shape[0], *sizes, x.shape[-1]), x.dtype)
        for at in np.ndindex(*sizes):
            spans = zip(at, x.shape[1:-1], sizes, strict=True)
            window = tuple(slice(math.floor(i * n / k), math.ceil((i + 1) * n / k)) for i, n, k in spans)
            y[(slice(None), *at)] = reduce(x[(slice(None), *window)], axis=tuple(range(1, x.ndim - 1)))
        return y

    return reference


def _adaptive_samples(rng: np.random.Generator) -> list[Sample]:
    cases = [((2, 7, 3), (4,)), ((2, 6, 5, 2), (3, 4)), ((1, 2, 3, 4, 1), (3, 1, 4))]
    return [Sample((rng.permutation(math.prod(shape)).reshape(shape) / 7.0,), {"sizes": k}) for shape, k in cases]


def _evened(x: Any, sizes: Sizes, weigh: bool) -> tuple[Any, Sizes]:
    """x with the windows side by side, all of one length, and that length per axis: where a window is shorter, its last
    element follows again, as 0 if ``weigh``; then the others are weighed so that the mean stays that of the window."""
    window = []
    for axis, count in enumerate(sizes, 1):
        size: Any = shape_of(x)[axis]
        edges = _edges(size, count)
        longest = max(stop - start for start, stop in edges)
        window.append(longest)
        if size % count:
            places = [min(start + i, stop - 1) for start, stop in edges for i in range(longest)]
            x = ops.take(x, np.array(places, np.int32), axis)
            if weigh:
                weights = [
                    longest / (stop - start) if i < stop - start else 0.0
                    for start, stop in edges
                    for i in range(longest)
                ]
                shape = [len(weights) if a == axis else 1 for a in range(len(shape_of(x)))]
                dtype = dtype_of(x)
                x = ops.multiply(x, np.array(weights, host_dtype(dtype)).reshape(shape))
                x = x if dtype_of(x) == dtype else ops.astype(x, dtype)
    return x, tuple(window)


def _adaptive_cost(x: Spec, *, sizes: Sizes) -> Any:
    return 2 * x.size


@composite(infer=_adaptive_infer, cost=_adaptive_cost, reference=_adaptive_reference(np.max), samples=_adaptive_samples)
def adaptive_max_pool_(x: Any, *, sizes: Sizes) -> Any:
    """The largest element of each of so many windows per spatial axis."""
    even, window = _evened(x, sizes, False)
    return ops.max_pool(even, window)


@composite(
    infer=_adaptive_infer, cost=_adaptive_cost, reference=_adaptive_reference(np.mean), samples=_adaptive_samples
)
def adaptive_avg_pool_(x: Any, *, sizes: Sizes) -> Any:
    """The mean of each of so many windows per spatial axis."""
    even, window = _evened(x, sizes, True)
    return ops.avg_pool(even, window)


@names_itself
def adaptive_max_pool(inputs: Any, output_size: int | Sequence[int], data_format: str | None = None) -> Any:
    """The largest element of each window, where the number of windows is given and their size follows.

    Args:
        inputs: ``(batch, *spatial, channels)``; the spatial sizes must be known.
        output_size: How many windows, one int or one per spatial axis. Of n elements, window i of k reaches from
            ``floor(i n / k)`` to ``ceil((i + 1) n / k)``: neighbours may overlap by one element.
        data_format: As of ``max_pool``.

    Returns:
        ``(batch, *output_size, channels)``. Its gradient goes to the first maximum of each window.

    Raises:
        ShapeError: if the sizes do not fit or a spatial size is not known.

    Example:
        >>> import numpy as np
        >>> ops.adaptive_max_pool(np.array([1.0, 3.0, 2.0, 5.0, 4.0]).reshape(1, 5, 1), 2).ravel()
        array([3., 5.])
    """
    if is_first(data_format):
        return turned(adaptive_max_pool, inputs, output_size)
    return adaptive_max_pool_(inputs, sizes=per_axis(output_size, len(shape_of(inputs)) - 2, "output_size"))


@names_itself
def adaptive_avg_pool(inputs: Any, output_size: int | Sequence[int], data_format: str | None = None) -> Any:
    """The mean of each window, where the number of windows is given. Arguments as of ``adaptive_max_pool``.

    Example:
        >>> import numpy as np
        >>> ops.adaptive_avg_pool(np.array([1.0, 3.0, 2.0, 5.0, 5.0]).reshape(1, 5, 1), 2).ravel()
        array([2., 4.])
    """
    if is_first(data_format):
        return turned(adaptive_avg_pool, inputs, output_size)
    return adaptive_avg_pool_(inputs, sizes=per_axis(output_size, len(shape_of(inputs)) - 2, "output_size"))


adaptive_average_pool = adaptive_avg_pool
