"""Ops that move elements without computing: reshape, permute, broadcast, join, cut, pad."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.graph import Sample
from unilayers.ops.define import composite, primitive, shape_of
from unilayers.spec import Dim, DimLike, Shape, Spec, broadcast_shapes, normalize_axes, normalize_axis


def _one(rng: np.random.Generator, shape: tuple[int, ...], *attrs: dict[str, Any]) -> list[Sample]:
    return [Sample((rng.normal(size=shape),), a) for a in attrs]


# ---- one array, another shape -----------------------------------------------


def _reshape_infer(x: Spec, *, shape: Shape) -> Spec:
    if Spec(shape).size != x.size:
        raise ShapeError("cannot reshape", expected=f"{x.size} elements", received=f"{x.shape} to {shape}")
    return x.with_shape(shape)


@primitive(
    infer=_reshape_infer, vjp=lambda g, y, x, *, shape: (ops.reshape(g, shape_of(x)),),
    reference=lambda x, shape: np.reshape(x, shape),
    samples=lambda rng: _one(rng, (2, 3, 4), {"shape": (6, 4)}, {"shape": (24,)}, {"shape": (2, 1, 12)}),
)  # fmt: skip
def reshape(x: Any, newshape: Any, *more: Any) -> Any:
    """x with another shape, elements in row-major order; one size may be -1."""
    shape = [newshape, *more] if isinstance(newshape, (int, Dim)) else list(newshape)
    shape = [-1 if d is None else d for d in shape]
    if shape.count(-1) > 1:
        raise ShapeError("only one size can be inferred", where="op 'reshape'", received=str(tuple(shape)))
    if -1 in shape:
        known = Spec(tuple(d for d in shape if d != -1)).size
        total = Spec(shape_of(x)).size
        if not isinstance(known, Dim) and (known == 0 or (isinstance(total, int) and total % known)):
            raise ShapeError("cannot reshape", where="op 'reshape'", received=f"{shape_of(x)} to {tuple(shape)}")
        shape[shape.index(-1)] = total // known
    return (x,), {"shape": tuple(shape)}


def _permute_infer(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError("not a permutation", expected=f"each of 0..{x.ndim - 1} once", received=str(axes))
    return x.with_shape(x.shape[a] for a in axes)


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=lambda i: axes[i]))


@primitive(
    infer=_permute_infer, vjp=lambda g, y, x, *, axes: (ops.permute_dims(g, _inverse(axes)),),
    reference=np.transpose,
    samples=lambda rng: _one(rng, (2, 3, 4), {"axes": (2, 0, 1)}, {"axes": (0, 2, 1)}),
)  # fmt: skip
def permute_dims(x: Any, axes: Sequence[int]) -> Any:
    """x with its axes in another order: result axis i is axis ``axes[i]`` of x."""
    return (x,), {"axes": tuple(normalize_axis(a, len(shape_of(x))) for a in axes)}


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """``permute_dims`` with NumPy's default: all axes reversed."""
    return permute_dims(x, axes if axes is not None else tuple(range(len(shape_of(x))))[::-1])


def matrix_transpose(x: Any) -> Any:
    """The last two axes exchanged."""
    n = len(shape_of(x))
    return permute_dims(x, (*range(n - 2), n - 1, n - 2))


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """One axis, or several, moved to other places, the others in order."""
    n = len(shape_of(x))
    sources, places = (
        [normalize_axis(a, n) for a in ((given,) if isinstance(given, int) else given)]
        for given in (source, destination)
    )
    axes = [a for a in range(n) if a not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        axes.insert(place, axis)
    return permute_dims(x, axes)


def expand_dims(x: Any, axis: int | Sequence[int]) -> Any:
    """x with a new axis of size 1 at ``axis``, or at each of them."""
    shape = list(shape_of(x))
    if isinstance(axis, int):
        shape.insert(normalize_axis(axis, len(shape) + 1), 1)
        return reshape(x, shape)
    for place in sorted(normalize_axis(a, len(shape) + len(axis)) for a in axis):
        shape.insert(place, 1)
    return reshape(x, shape)


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """x without the given axes of size 1 (None: all such axes)."""
    shape = shape_of(x)
    axes = [a for a, d in enumerate(shape) if d == 1] if axis is None else normalize_axes(axis, len(shape))
    wrong = [a for a in axes if shape[a] != 1]
    if wrong:
        raise ShapeError(
            "axis to squeeze is not of size 1", where="op 'squeeze'", received=f"axis {wrong[0]} of {shape}"
        )
    return reshape(x, tuple(d for a, d in enumerate(shape) if a not in axes))


def _broadcast_infer(x: Spec, *, shape: Shape) -> Spec:
    if broadcast_shapes(x.shape, shape) != tuple(shape):
        raise ShapeError("does not broadcast to the shape", expected=str(shape), received=str(x.shape))
    return x.with_shape(shape)


@primitive(
    infer=_broadcast_infer, vjp=lambda g, y, x, *, shape: (g,),  # the accumulator sums what was stretched
    reference=lambda x, shape: np.broadcast_to(x, shape),
    samples=lambda rng: [
        *_one(rng, (3, 1), {"shape": (2, 3, 4)}), *_one(rng, (2, 1, 3), {"shape": (2, 4, 3)}),
        *_one(rng, (), {"shape": (3,)}),
    ],
)  # fmt: skip
def broadcast_to(x: Any, shape: Any) -> Any:
    """x stretched to ``shape``."""
    return (x,), {"shape": tuple(shape)}


# ---- several arrays ---------------------------------------------------------


def _concat_infer(*xs: Spec, axis: int) -> Spec:
    first = xs[0].shape
    total: DimLike = 0
    for x in xs:
        if len(x.shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(x.shape, first, strict=True)) if i != axis
        ):
            raise ShapeError(
                "shapes to join differ",
                expected=f"equal sizes except on axis {axis}",
                received=", ".join(str(s.shape) for s in xs),
            )
        total = total + x.shape[axis]
    return Spec((*first[:axis], total, *first[axis + 1 :]), xs[0].dtype)


def _concat_vjp(g: Any, y: Any, *xs: Any, axis: int) -> tuple[Any, ...]:
    grads: list[Any] = []
    start: DimLike = 0
    for x in xs:
        stop = start + shape_of(x)[axis]
        grads.append(ops.slice_axis(g, axis, start, stop))
        start = stop
    return tuple(grads)


@primitive(
    infer=_concat_infer, vjp=_concat_vjp, reference=lambda *xs, axis: np.concatenate(xs, axis), promotes=0,
    samples=lambda rng: [Sample(tuple(rng.normal(size=(2, n)) for n in (3, 2, 1)), {"axis": 1})],
)  # fmt: skip
def concat_(*xs: Any, axis: int) -> Any:
    """Arrays joined along an axis they all have."""
    return xs, {"axis": axis}


def concat(xs: Sequence[Any], axis: int = 0) -> Any:
    """Arrays joined along an axis they all have."""
    return concat_(*xs, axis=normalize_axis(axis, len(shape_of(xs[0]))))


def stack(x: Sequence[Any], axis: int = 0) -> Any:
    """Arrays of one shape joined along a new axis."""
    return concat([expand_dims(part, axis) for part in x], normalize_axis(axis, len(shape_of(x[0])) + 1))


# ---- cutting and padding ----------------------------------------------------


def _slice_infer(x: Spec, *, start: tuple[DimLike, ...], stop: tuple[DimLike, ...], step: tuple[int, ...]) -> Spec:
    sizes = [(e - s + (k - 1)) // k if k > 1 else e - s for s, e, k in zip(start, stop, step, strict=True)]
    if len(sizes) != x.ndim:
        raise ShapeError("one start, stop and step per axis", expected=str(x.ndim), received=str(len(sizes)))
    for s, e, d in zip(start, stop, x.shape, strict=True):
        if (isinstance(s, int) and s < 0) or (isinstance(e, int) and isinstance(d, int) and e > d):
            raise ShapeError("slice outside the array", expected=f"inside 0 to {d}", received=f"{s} to {e}")
    return x.with_shape(max(0, d) if isinstance(d, int) else d for d in sizes)


def _slice_reference(x: np.ndarray, start: Any, stop: Any, step: Any) -> np.ndarray:
    return x[tuple(slice(*t) for t in zip(start, stop, step, strict=True))]


def _slice_vjp(g: Any, y: Any, x: Any, *, start: Any, stop: Any, step: Any) -> tuple[Any]:
    shape, out = shape_of(x), shape_of(y)
    interior = tuple(k - 1 for k in step)
    high = tuple(d - s - _spread(n, k) for d, s, n, k in zip(shape, start, out, step, strict=True))
    return (ops.pad_(g, low=tuple(start), high=high, interior=interior, value=0.0),)


@primitive(
    infer=_slice_infer, vjp=_slice_vjp, reference=_slice_reference,
    samples=lambda rng: _one(
        rng, (5, 6), {"start": (1, 0), "stop": (4, 6), "step": (1, 1)},
        {"start": (0, 1), "stop": (5, 6), "step": (2, 3)},
    ),
)  # fmt: skip
def slice_(x: Any, *, start: Any, stop: Any, step: Any) -> Any:
    """x[start:stop:step] on every axis, with 0 <= start <= stop <= size and step >= 1."""
    return (x,), {"start": tuple(start), "stop": tuple(stop), "step": tuple(step)}


def slice_axis(x: Any, axis: int, start: DimLike, stop: DimLike, step: int = 1) -> Any:
    """x[start:stop:step] along one axis."""
    shape = shape_of(x)
    ends = {normalize_axis(axis, len(shape)): (start, stop, step)}
    picks = [ends.get(a, (0, d, 1)) for a, d in enumerate(shape)]
    return slice_(x, start=[p[0] for p in picks], stop=[p[1] for p in picks], step=[p[2] for p in picks])


def split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """x cut along an axis: into so many equal parts, or in front of each of the given places."""
    axis = normalize_axis(axis, len(shape_of(x)))
    size, parts = shape_of(x)[axis], indices_or_sections
    if not isinstance(parts, int):
        at = [i + size if i < 0 else i if isinstance(size, Dim) else min(i, size) for i in map(int, parts)]
        spans = itertools.pairwise([0, *at, size])
        return [slice_axis(x, axis, a, max(a, b) if isinstance(b, int) else b) for a, b in spans]  # type: ignore[type-var]
    if size % parts != 0:
        raise ShapeError(
            "cannot split evenly", where="op 'split'", expected=f"a multiple of {parts}", received=str(size)
        )
    each = size // parts
    return [slice_axis(x, axis, i * each, (i + 1) * each) for i in range(parts)]


def _spread(size: DimLike, step: int) -> DimLike:
    """How far so many elements reach when they are ``step`` apart."""
    return 0 if size == 0 else (size - 1) * step + 1


def _pad_infer(x: Spec, *, low: Any, high: Any, interior: Any, value: float) -> Spec:
    if not len(low) == len(high) == len(interior) == x.ndim:
        raise ShapeError(
            "one padding per axis", expected=str(x.ndim), received=f"{len(low)}, {len(high)}, {len(interior)}"
        )
    return x.with_shape(
        a + b + (_spread(d, i + 1) if i else d) for d, a, b, i in zip(x.shape, low, high, interior, strict=True)
    )


def _pad_reference(x: np.ndarray, low: Any, high: Any, interior: Any, value: float) -> np.ndarray:
    sizes = [d + a + b + max(0, d - 1) * i for d, a, b, i in zip(x.shape, low, high, interior, strict=True)]
    y = np.full(sizes, value, x.dtype)
    y[tuple(slice(a, a + (d - 1) * (i + 1) + 1, i + 1) for d, a, i in zip(x.shape, low, interior, strict=True))] = x
    return y


def _pad_vjp(g: Any, y: Any, x: Any, *, low: Any, high: Any, interior: Any, value: float) -> tuple[Any]:
    step = tuple(i + 1 for i in interior)
    stop = tuple(a + _spread(d, k) for a, d, k in zip(low, shape_of(x), step, strict=True))
    return (ops.slice_(g, start=low, stop=stop, step=step),)


@primitive(
    infer=_pad_infer, vjp=_pad_vjp, reference=_pad_reference,
    samples=lambda rng: _one(
        rng, (2, 3), {"low": (1, 0), "high": (0, 2), "interior": (0, 0), "value": 0.0},
        {"low": (0, 1), "high": (1, 1), "interior": (1, 2), "value": -1.0},
    ),
)  # fmt: skip
def pad_(x: Any, *, low: Any, high: Any, interior: Any, value: float = 0.0) -> Any:
    """x with ``value`` around it and, ``interior`` many, between neighbours, per axis; sizes are not negative."""
    return (x,), {"low": tuple(low), "high": tuple(high), "interior": tuple(interior), "value": float(value)}


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: float | None = None) -> Any:
    """x with further elements around it.

    Args:
        x: Any array.
        pad_width: A (before, after) pair per axis; or one pair, or one number, for all axes.
        mode: "constant" for one value everywhere, "edge" for the outermost element again and again, "reflect" and
            "symmetric" for the elements as in a mirror, the outermost one once or twice.
        constant_values: The value of "constant"; None for 0.

    Raises:
        ShapeError: if the pairs do not fit, or for a mirror along an axis of unknown size.

    Example:
        >>> pad(np.array([1, 2, 3]), 2, mode="reflect"), pad(np.array([1, 2, 3]), (0, 2), constant_values=9)
        (array([3, 2, 1, 2, 3, 2, 1]), array([1, 2, 3, 9, 9]))
    """
    axes = len(shape_of(x))
    if isinstance(pad_width, (int, np.integer, Dim)):
        pad_width = ((pad_width, pad_width),) * axes
    elif len(pad_width) == 2 and not isinstance(pad_width[0], (tuple, list, np.ndarray)):
        pad_width = (pad_width,) * axes
    low, high = [p[0] for p in pad_width], [p[-1] for p in pad_width]
    if mode == "constant":
        return pad_(x, low=low, high=high, interior=[0] * len(low), value=constant_values or 0.0)
    if mode not in ("edge", "reflect", "symmetric") or constant_values is not None:
        raise ShapeError(
            "cannot pad so", where="op 'pad'", expected="mode 'constant', or 'edge', 'reflect', 'symmetric' without "
            "constant_values", received=f"mode={mode!r}, constant_values={constant_values!r}",
        )  # fmt: skip
    for axis, (size, before, after) in enumerate(zip(shape_of(x), low, high, strict=True)):
        if before or after:
            if not isinstance(size, int):
                raise ShapeError(f"axis {axis} is of unknown size", where="op 'pad'", expected="a known size")
            x = ops.take(x, np.pad(np.arange(size, dtype=np.int32), (before, after), mode), axis)  # type: ignore[call-overload]
    return x


@primitive(
    infer=lambda x, *, axes: x, vjp=lambda g, y, x, *, axes: (ops.flip(g, axes),),
    reference=lambda x, axes: np.flip(x, axes),
    samples=lambda rng: _one(rng, (2, 3, 2), {"axes": (1,)}, {"axes": (0, 2)}),
)  # fmt: skip
def flip(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """x in reverse order along one axis or several (None: all)."""
    return (x,), {"axes": normalize_axes(axis, len(shape_of(x)))}


def repeat(x: Any, repeats: int | Sequence[int], axis: int | None = None) -> Any:
    """Each element along ``axis`` (None: of all in one row) repeated in place: a b -> a a b b.

    ``repeats`` is one number, or one for each element.
    """
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    shape = shape_of(x)
    axis = normalize_axis(axis, len(shape))
    if not isinstance(repeats, (int, Dim)):
        if len(repeats) not in (1, shape[axis]):
            raise ShapeError(
                "repeats does not fit", where="op 'repeat'", expected=f"one number, or {shape[axis]}",
                received=str(len(repeats)),
            )  # fmt: skip
        if len(repeats) > 1:
            return ops.take(x, np.repeat(np.arange(len(repeats), dtype=np.int32), repeats), axis)
        repeats = int(repeats[0])
    wide = broadcast_to(expand_dims(x, axis + 1), (*shape[: axis + 1], repeats, *shape[axis + 1 :]))
    return reshape(wide, (*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]))


def tile(x: Any, repeats: int | Sequence[int]) -> Any:
    """x repeated as a whole along each axis: a b -> a b a b. Fewer numbers than axes count for the last ones."""
    times = (repeats,) if isinstance(repeats, int) else tuple(repeats)
    shape = shape_of(x)
    if len(times) > len(shape):
        x = reshape(x, (*(1,) * (len(times) - len(shape)), *shape))
    for axis, n in enumerate(times, len(shape_of(x)) - len(times)):
        x = slice_axis(x, axis, 0, 0) if n == 0 else concat([x] * n, axis) if n > 1 else x
    return x


def _stretched(x: Any, axis: int, factor: int) -> Any:
    """x ``factor`` times as long: values on the straight lines between the centres of neighbours."""
    size = shape_of(x)[axis]
    before = concat([slice_axis(x, axis, 0, 1), slice_axis(x, axis, 0, size - 1)], axis)
    after = concat([slice_axis(x, axis, 1, size), slice_axis(x, axis, size - 1, size)], axis)
    phases = []
    for i in range(factor):
        offset = (i + 0.5) / factor - 0.5  # from the centre of the element it falls into
        share, neighbour = abs(offset), before if offset < 0 else after
        phases.append(x if offset == 0 else x * (1.0 - share) + neighbour * share)
    return reshape(stack(phases, axis + 1), (*shape_of(x)[:axis], size * factor, *shape_of(x)[axis + 1 :]))


def _upsample_reference(x: np.ndarray, factors: Sequence[int], linear: bool) -> np.ndarray:
    for axis, factor in enumerate(factors, 1):
        centres = (np.arange(x.shape[axis] * factor) + 0.5) / factor - 0.5
        lines = np.moveaxis(x, axis, -1)
        drawn = [np.interp(centres, np.arange(x.shape[axis]), lines[at]) for at in np.ndindex(lines.shape[:-1])]
        straight = np.moveaxis(np.reshape(drawn, (*lines.shape[:-1], len(centres))), -1, axis)
        x = straight if linear else np.repeat(x, factor, axis)
    return x


@composite(
    reference=_upsample_reference,
    samples=lambda rng: [
        *_one(rng, (2, 3, 2, 2), {"factors": (2, 3), "linear": True}, {"factors": (3, 1), "linear": False}),
        *_one(rng, (1, 1, 2), {"factors": (4,), "linear": True}),
    ],
)  # fmt: skip
def upsample_(x: Any, *, factors: tuple[int, ...], linear: bool) -> Any:
    """x ``(batch, *spatial, channels)`` with each spatial axis longer by a factor: repeated, or interpolated."""
    for axis, factor in enumerate(factors, 1):
        if factor > 1:
            x = _stretched(x, axis, factor) if linear else repeat(x, factor, axis)
    return x


def upsample(x: Any, factors: Sequence[int], linear: bool = False) -> Any:
    """x with each spatial axis longer by a factor.

    Args:
        x: ``(batch, *spatial, channels)``.
        factors: One per spatial axis.
        linear: Whether the new elements lie on straight lines between the centres of neighbours (and beyond the
            outermost are as these), not just repeat the nearest.

    Example:
        >>> x = np.array([0.0, 4.0]).reshape(1, 2, 1)
        >>> upsample(x, [2]).ravel(), upsample(x, [2], linear=True).ravel()
        (array([0., 0., 4., 4.]), array([0., 1., 3., 4.]))
    """
    return upsample_(x, factors=tuple(int(f) for f in factors), linear=bool(linear))


def getitem(x: Any, key: Any) -> Any:
    """``x[key]`` for ints, slices, None and Ellipsis; an integer array picks along the first axis (see ``take``)."""
    if isinstance(key, list) or (hasattr(key, "dtype") and shape_of(key) != ()):
        return ops.take(x, key, axis=0)
    shape = tuple(shape_of(x))
    # Before Python 3.12 slices cannot be looked up, so their parts are.
    parts = tuple([k.__reduce__()[1] if type(k) is slice else k for k in (key if type(key) is tuple else (key,))])
    plan = _PLANS.get((shape, parts))
    if plan is None:
        if len(_PLANS) > 4096:
            _PLANS.clear()
        plan = _PLANS[shape, parts] = _slicing(shape, key)
    flips, cut, result = plan
    if flips:
        x = flip(x, flips)
    if cut is not None:
        start, stop, step = cut
        x = slice_(x, start=start, stop=stop, step=step)
    return x if result is None else reshape(x, result)


def _slicing(shape: Shape, key: Any) -> tuple[list[int], Any, Any]:
    """What indexing does: axes to flip; start, stop and step of the slice or None; the shape after it or None."""
    keys = [int(k) if isinstance(k, np.integer) else k for k in (key if isinstance(key, tuple) else (key,))]
    count = sum(k is not None and k is not Ellipsis for k in keys)
    fill = [slice(None)] * (len(shape) - count)
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), None)
    keys = keys + fill if at is None else keys[:at] + fill + keys[at + 1 :]
    start: list[DimLike] = []
    stop: list[DimLike] = []
    result: list[DimLike] = []
    step: list[int] = []
    flips: list[int] = []
    axis = 0
    for k in keys:
        if k is None:
            result.append(1)
            continue
        d = shape[axis]
        s, e, n, flipped = _range(k, d, axis)
        if flipped:
            flips.append(axis)
        start.append(s)
        stop.append(e)
        step.append(n)
        if isinstance(k, slice):
            result.append((e - s + (n - 1)) // n if n > 1 else e - s)
        axis += 1
    sizes = [(e - s + (n - 1)) // n if n > 1 else e - s for s, e, n in zip(start, stop, step, strict=True)]
    whole = all(s == 0 and e == d and n == 1 for s, e, n, d in zip(start, stop, step, shape, strict=True))
    cut = None if whole else (tuple(start), tuple(stop), tuple(step))
    return flips, cut, None if result == sizes else tuple(result)


_PLANS: dict[Any, tuple[list[int], Any, Any]] = {}


def _range(key: Any, size: DimLike, axis: int) -> tuple[DimLike, DimLike, int, bool]:
    """An int or slice as start, stop, step >= 1 and whether the axis is flipped first."""
    if isinstance(key, int):
        if isinstance(size, int) and not -size <= key < size:
            raise ShapeError(
                "index out of range", where="op 'getitem'", expected=f"below {size} on axis {axis}", received=str(key)
            )
        at = key + size if key < 0 else key
        return at, at + 1, 1, False
    if not isinstance(key, slice):
        raise ShapeError(
            "cannot index with this", where="op 'getitem'", expected="int, slice, None, ...", received=repr(key)
        )
    step = 1 if key.step is None else key.step
    if isinstance(size, int):
        r = range(*key.indices(size))
        if step < 0:
            first = size - 1 - r.start  # in the flipped axis
            return first, first + (len(r) * -step + step + 1 if len(r) else 0), -step, True
        return r.start, max(r.stop, r.start), step, False
    if step < 0:
        raise ShapeError("a symbolic axis cannot be reversed by slicing", where="op 'getitem'", fix="Use ops.flip")
    start = 0 if key.start is None else key.start + size if key.start < 0 else key.start
    stop = size if key.stop is None else key.stop + size if key.stop < 0 else key.stop
    return start, stop, step, False
