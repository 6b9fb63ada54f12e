"""Normalization, with gradients in one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.graph import Sample
from unilayers.ops.define import composite, require_float, shape_of
from unilayers.spec import Shape, Spec, normalize_axes, normalize_axis

__all__ = [
    "batch_norm", "batch_norm_", "batch_norm_grad", "batch_norm_inference", "batch_norm_inference_", "group_norm",
    "group_norm_", "layer_norm", "layer_norm_", "layer_norm_grad", "rms_norm", "rms_norm_", "unit_norm",
]  # fmt: skip

Axes = tuple[int, ...]


def _others(ndim: int, axes: Axes) -> Axes:
    return tuple(a for a in range(ndim) if a not in axes)


def _features(shape: Shape, axes: Axes) -> Shape:
    """The sizes along ``axes``."""
    return tuple(shape[a] for a in axes)


def _along(features: Any, x: Any, axes: Axes) -> Any:
    """An array over ``axes`` of x, reshaped to broadcast against x."""
    shape = shape_of(x)
    return ops.reshape(features, tuple(d if a in axes else 1 for a, d in enumerate(shape)))


def _check(x: Spec, shape: Shape, **given: Spec) -> None:
    require_float(x.dtype)
    for what, spec in given.items():
        if tuple(spec.shape) != tuple(shape):
            raise ShapeError(f"{what} does not fit x {x.shape}", expected=str(shape), received=str(spec.shape))


def _standardised(x: Any, axes: Axes, epsilon: float) -> tuple[Any, Any, Any, Any]:
    """(x - mean) / std over ``axes``; 1 / std; mean; variance: the last three with ``axes`` of size 1."""
    mean = ops.mean(x, axes, keepdims=True)
    centred = x - mean
    variance = ops.mean(ops.square(centred), axes, keepdims=True)
    inverse = ops.rsqrt(variance + epsilon)
    return centred * inverse, inverse, mean, variance


def _input_gradient(g: Any, unit: Any, inverse: Any, axes: Axes) -> Any:
    """Back through the standardisation: what is along its mean and its scale is taken out of g."""
    mean, slope = ops.mean(g, axes, keepdims=True), ops.mean(g * unit, axes, keepdims=True)
    return (g - mean - unit * slope) * inverse


def _reference_unit(x: np.ndarray, axes: Axes, epsilon: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean, variance = np.mean(x, axes, keepdims=True), np.var(x, axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon), mean, variance


def _samples(
    cases: list[tuple[tuple[int, ...], Axes]], over: Callable[[int, Axes], Axes]
) -> Callable[..., list[Sample]]:
    """``over(ndim, axes)`` names the axes that gamma and beta have."""

    def draw(rng: np.random.Generator) -> Iterator[Sample]:
        for shape, axes in cases:
            features = _features(shape, over(len(shape), axes))
            x, gamma, beta = rng.normal(1.0, 2.0, shape), rng.uniform(0.5, 2, features), rng.normal(size=features)  # type: ignore[arg-type]
            yield Sample((x, gamma, beta), {"axes": axes, "epsilon": 1e-3})

    return lambda rng: list(draw(rng))


# ---- batch normalization --------------------------------------------------------


def _batch_infer(x: Spec, gamma: Spec, beta: Spec, *, axes: Axes, epsilon: float) -> tuple[Spec, Spec, Spec]:
    features = _features(x.shape, _others(x.ndim, axes))
    _check(x, features, gamma=gamma, beta=beta)
    return x, x.with_shape(features), x.with_shape(features)


def _batch_vjp(g: Any, y: Any, x: Any, gamma: Any, beta: Any, *, axes: Axes, epsilon: float) -> tuple[Any, Any, Any]:
    kept = _others(len(shape_of(x)), axes)
    gy, g_mean, g_variance = g
    count = ops.size(x, axes)
    to_x = to_gamma = to_beta = None
    if gy is not None:
        to_x, to_gamma, to_beta = ops.batch_norm_grad(gy, x, gamma, axes=axes, epsilon=epsilon)
    if g_mean is not None:
        to_x = _plus(to_x, ops.broadcast_to(_along(g_mean / count, x, kept), shape_of(x)))
    if g_variance is not None:
        to_x = _plus(to_x, (x - ops.mean(x, axes, keepdims=True)) * _along(g_variance * 2.0 / count, x, kept))
    return to_x, to_gamma, to_beta


def _plus(a: Any, b: Any) -> Any:
    return b if a is None else a + b


def _batch_reference(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, axes: Axes, epsilon: float
) -> tuple[np.ndarray, ...]:
    unit, mean, variance = _reference_unit(x, axes, epsilon)
    gamma, beta = gamma.reshape(mean.shape), beta.reshape(mean.shape)
    return gamma * unit + beta, np.squeeze(mean, axes), np.squeeze(variance, axes)


_BATCHES = _samples([((6, 3), (0,)), ((2, 3, 2, 4), (0, 1, 2)), ((2, 3, 4), (0, 2))], _others)


@composite(
    infer=_batch_infer, vjp=_batch_vjp, reference=_batch_reference, cost=lambda x, *a, **k: 7 * x.size, promotes=0,
    samples=_BATCHES,
)  # fmt: skip
def batch_norm_(x: Any, gamma: Any, beta: Any, *, axes: Axes, epsilon: float) -> tuple[Any, Any, Any]:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta with the statistics of the batch, and these statistics.

    Shapes: gamma, beta, mean and variance have the axes of x that are not in ``axes``: one, the features, as a rule.
    """
    features = _others(len(shape_of(x)), axes)
    unit, _, mean, variance = _standardised(x, axes, epsilon)
    y = unit * _along(gamma, x, features) + _along(beta, x, features)
    return y, ops.reshape(mean, shape_of(gamma)), ops.reshape(variance, shape_of(gamma))


def _grad_infer(over: Callable[[int, Axes], Axes]) -> Callable[..., tuple[Spec, Spec, Spec]]:
    """Shape rule of a gradient to x, gamma and beta; ``over(ndim, axes)`` names the axes that gamma has."""

    def infer(g: Spec, x: Spec, gamma: Spec, *, axes: Axes, epsilon: float) -> tuple[Spec, Spec, Spec]:
        _check(x, _features(x.shape, over(x.ndim, axes)), gamma=gamma)
        if tuple(g.shape) != tuple(x.shape):
            raise ShapeError("g does not have the shape of x", expected=str(x.shape), received=str(g.shape))
        return x, gamma, gamma

    return infer


def _grad_samples(samples: Callable[..., list[Sample]]) -> Callable[..., list[Sample]]:
    """Those of the op, with a gradient of its result in front, and without beta."""
    return lambda rng: [
        Sample((rng.normal(size=s.inputs[0].shape), *s.inputs[:2]), s.attrs, s.differentiable) for s in samples(rng)
    ]


def _grad_reference(over: Callable[[int, Axes], Axes]) -> Callable[..., tuple[np.ndarray, ...]]:
    """By the matrix of all derivatives of one standardised group of numbers, for each group."""

    def reference(
        g: np.ndarray, x: np.ndarray, gamma: np.ndarray, axes: Axes, epsilon: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        features, rest = over(x.ndim, axes), _others(x.ndim, axes)
        wide = np.broadcast_to(gamma.reshape([d if a in features else 1 for a, d in enumerate(x.shape)]), x.shape)
        unit, _, _ = _reference_unit(x, axes, epsilon)
        to_x = np.zeros_like(x)
        for at in np.ndindex(*(x.shape[a] for a in rest)):
            index: list[Any] = [slice(None)] * x.ndim
            for a, i in zip(rest, at, strict=True):
                index[a] = i
            values, flow = x[tuple(index)].ravel(), (g * wide)[tuple(index)].ravel()
            n, centred = values.size, values - values.mean()
            deviation = np.sqrt(values.var() + epsilon)
            matrix = (np.eye(n) - 1 / n) / deviation - np.outer(centred, centred) / (n * deviation**3)
            to_x[tuple(index)] = (flow @ matrix).reshape(to_x[tuple(index)].shape)
        summed = _others(x.ndim, features)
        return to_x, np.sum(g * unit, summed), np.sum(g, summed)

    return reference


@composite(
    infer=_grad_infer(_others), reference=_grad_reference(_others), cost=lambda g, *a, **k: 11 * g.size, promotes=0,
    samples=_grad_samples(_BATCHES),
)  # fmt: skip
def batch_norm_grad(g: Any, x: Any, gamma: Any, *, axes: Axes, epsilon: float) -> tuple[Any, Any, Any]:
    """The gradients of ``batch_norm`` to x, gamma and beta, from that of its first result."""
    kept = _others(len(shape_of(x)), axes)
    unit, inverse, _, _ = _standardised(x, axes, epsilon)
    count = ops.size(x, axes)
    to_gamma, to_beta = ops.sum(g * unit, axes), ops.sum(g, axes)
    # The sums over the batch are those of gamma's and beta's gradients: nothing is summed twice.
    spread = unit * _along(to_gamma / count, x, kept) + _along(to_beta / count, x, kept)
    return (g - spread) * (_along(gamma, x, kept) * inverse), to_gamma, to_beta


def batch_norm(
    x: Any, gamma: Any, beta: Any, *, axes: int | tuple[int, ...], epsilon: float = 1e-3
) -> tuple[Any, Any, Any]:
    """Normalise x over the batch: gamma * (x - mean) / sqrt(variance + epsilon) + beta.

    Args:
        x: Any shape; floats.
        gamma: The scale, of the shape of x without ``axes``: ``(channels,)`` where ``axes`` are all but the last.
        beta: The offset, as gamma.
        axes: The axes whose mean and variance are taken, for example ``(0, 1, 2)`` for images.
        epsilon: Added to the variance.

    Returns:
        y, mean and variance; the variance divides by the number of elements, not by one less.

    Raises:
        ShapeError: if gamma or beta do not have the shape of x without ``axes``.

    Engines: The variance has the divisor N here; PyTorch's moving variance has N - 1. PyTorch's momentum is the share
    of the new statistics, that of layers here, as in Keras, the share of the old ones.

    Reference:
        Ioffe, Szegedy, Batch Normalization, 2015, arXiv 1502.03167.

    Example:
        >>> import numpy as np
        >>> y, mean, variance = batch_norm(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1), axes=0, epsilon=0.0)
        >>> y.ravel(), mean, variance
        (array([-1.,  1.]), array([2.]), array([1.]))
    """
    return batch_norm_(x, gamma, beta, axes=normalize_axes(axes, len(shape_of(x))), epsilon=float(epsilon))


def _inference_infer(
    x: Spec, gamma: Spec, beta: Spec, mean: Spec, variance: Spec, *, axes: Axes, epsilon: float
) -> Spec:
    features = _features(x.shape, _others(x.ndim, axes))
    _check(x, features, gamma=gamma, beta=beta, mean=mean, variance=variance)
    return x


def _inference_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((*s.inputs, rng.normal(size=n), rng.uniform(0.5, 2, n)), s.attrs)
        for s in _BATCHES(rng) for n in (s.inputs[1].shape,)
    ]  # fmt: skip


def _inference_reference(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray, axes: Axes,
    epsilon: float,
) -> np.ndarray:  # fmt: skip
    shape = [1 if a in axes else d for a, d in enumerate(x.shape)]
    gamma, beta, mean, variance = (v.reshape(shape) for v in (gamma, beta, mean, variance))
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


@composite(
    infer=_inference_infer, reference=_inference_reference, samples=_inference_samples, promotes=0,
    cost=lambda x, *a, **k: 2 * x.size,
)  # fmt: skip
def batch_norm_inference_(
    x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, *, axes: Axes, epsilon: float
) -> Any:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta with given statistics: a scale and an offset per feature."""
    features = _others(len(shape_of(x)), axes)
    # By name, not by operators: the statistics may be variables that are not on x's device.
    scale = ops.multiply(gamma, ops.rsqrt(ops.add(variance, epsilon)))
    offset = ops.subtract(beta, ops.multiply(mean, scale))
    return ops.add(ops.multiply(x, _along(scale, x, features)), _along(offset, x, features))


def batch_norm_inference(
    x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, *, axes: int | tuple[int, ...], epsilon: float = 1e-3
) -> Any:
    """Normalise x with given statistics: one scale and one offset per feature. Arguments as of ``batch_norm``."""
    axes = normalize_axes(axes, len(shape_of(x)))
    return batch_norm_inference_(x, gamma, beta, mean, variance, axes=axes, epsilon=float(epsilon))


# ---- layer normalization ----------------------------------------------------------


def _layer_infer(x: Spec, gamma: Spec, beta: Spec, *, axes: Axes, epsilon: float) -> Spec:
    _check(x, _features(x.shape, axes), gamma=gamma, beta=beta)
    return x


def _layer_vjp(g: Any, y: Any, x: Any, gamma: Any, beta: Any, *, axes: Axes, epsilon: float) -> tuple[Any, Any, Any]:
    return ops.layer_norm_grad(g, x, gamma, axes=axes, epsilon=epsilon)


def _layer_reference(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, axes: Axes, epsilon: float) -> np.ndarray:
    unit, _, _ = _reference_unit(x, axes, epsilon)
    shape = [d if a in axes else 1 for a, d in enumerate(x.shape)]
    return unit * gamma.reshape(shape) + beta.reshape(shape)


def _same_axes(ndim: int, axes: Axes) -> Axes:
    return axes


_LAYERS = _samples([((3, 5), (1,)), ((2, 3, 4), (2,)), ((2, 3, 4), (1, 2))], _same_axes)


@composite(
    infer=_layer_infer, vjp=_layer_vjp, reference=_layer_reference, cost=lambda x, *a, **k: 8 * x.size, promotes=0,
    samples=_LAYERS,
)  # fmt: skip
def layer_norm_(x: Any, gamma: Any, beta: Any, *, axes: Axes, epsilon: float) -> Any:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, each sample by itself; gamma and beta have the ``axes``."""
    unit, _, _, _ = _standardised(x, axes, epsilon)
    return unit * _along(gamma, x, axes) + _along(beta, x, axes)


@composite(
    infer=_grad_infer(_same_axes), reference=_grad_reference(_same_axes), cost=lambda g, *a, **k: 13 * g.size,
    promotes=0, samples=_grad_samples(_LAYERS),
)  # fmt: skip
def layer_norm_grad(g: Any, x: Any, gamma: Any, *, axes: Axes, epsilon: float) -> tuple[Any, Any, Any]:
    """The gradients of ``layer_norm`` to x, gamma and beta, from that of its result."""
    unit, inverse, _, _ = _standardised(x, axes, epsilon)
    samples = _others(len(shape_of(x)), axes)
    to_x = _input_gradient(g * _along(gamma, x, axes), unit, inverse, axes)
    return to_x, ops.sum(g * unit, samples), ops.sum(g, samples)


def layer_norm(x: Any, gamma: Any, beta: Any, *, axes: int | tuple[int, ...] = -1, epsilon: float = 1e-3) -> Any:
    """Normalise each sample of x: gamma * (x - mean) / sqrt(variance + epsilon) + beta.

    Args:
        x: Any shape; floats.
        gamma: The scale, of the sizes of x along ``axes``.
        beta: The offset, as gamma.
        axes: The axes whose mean and variance are taken.
        epsilon: Added to the variance.

    Raises:
        ShapeError: if gamma or beta do not have the shape of the normalised axes.

    Reference:
        Ba, Kiros, Hinton, Layer Normalization, 2016, arXiv 1607.06450.

    Example:
        >>> import numpy as np
        >>> layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), epsilon=0.0)
        array([[-1.,  1.]])
    """
    return layer_norm_(x, gamma, beta, axes=normalize_axes(axes, len(shape_of(x))), epsilon=float(epsilon))


# ---- group normalization ----------------------------------------------------------


def _in_groups(x: Any, axis: int, groups: int) -> tuple[Any, Axes]:
    """x with the channels' axis cut into (groups, channels of a group), and the axes of one group of one sample."""
    shape = shape_of(x)
    x = ops.reshape(x, (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]))
    return x, _others(len(shape) + 1, (0, axis))


def _group_infer(x: Spec, gamma: Spec, beta: Spec, *, groups: int, axis: int, epsilon: float) -> Spec:
    _check(x, _features(x.shape, (axis,)), gamma=gamma, beta=beta)
    if groups < 1 or x.shape[axis] % groups != 0:
        raise ShapeError("the channels cannot be cut into groups", received=f"{x.shape[axis]} into {groups}")
    return x


def _group_vjp(
    g: Any, y: Any, x: Any, gamma: Any, beta: Any, *, groups: int, axis: int, epsilon: float
) -> tuple[Any, Any, Any]:
    shape = shape_of(x)
    wide, axes = _in_groups(x, axis, groups)
    unit, inverse, _, _ = _standardised(wide, axes, epsilon)
    scaled, _ = _in_groups(g * _along(gamma, x, (axis,)), axis, groups)
    to_x = ops.reshape(_input_gradient(scaled, unit, inverse, axes), shape)
    rest = _others(len(shape), (axis,))
    return to_x, ops.sum(g * ops.reshape(unit, shape), rest), ops.sum(g, rest)


def _group_reference(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, groups: int, axis: int, epsilon: float
) -> np.ndarray:
    last = np.moveaxis(x, axis, -1)
    y = np.empty_like(last)
    for sample in range(len(x)):
        for part in np.split(np.arange(x.shape[axis]), groups):
            values = last[sample, ..., part]
            y[sample, ..., part] = (values - values.mean()) / np.sqrt(values.var() + epsilon)
    return np.moveaxis(y * gamma + beta, -1, axis)


def _group_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axis, groups in [((2, 3, 4), 2, 2), ((3, 6), 1, 3), ((2, 4, 3), 1, 1)]:
        gamma, beta = rng.uniform(0.5, 2, shape[axis]), rng.normal(size=shape[axis])
        yield Sample((rng.normal(1.0, 2.0, shape), gamma, beta), {"groups": groups, "axis": axis, "epsilon": 1e-3})


@composite(
    infer=_group_infer, vjp=_group_vjp, reference=_group_reference, cost=lambda x, *a, **k: 8 * x.size, promotes=0,
    samples=lambda rng: list(_group_samples(rng)),
)  # fmt: skip
def group_norm_(x: Any, gamma: Any, beta: Any, *, groups: int, axis: int, epsilon: float) -> Any:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, each group of channels of each sample by itself."""
    wide, axes = _in_groups(x, axis, groups)
    unit, _, _, _ = _standardised(wide, axes, epsilon)
    return ops.reshape(unit, shape_of(x)) * _along(gamma, x, (axis,)) + _along(beta, x, (axis,))


def group_norm(x: Any, gamma: Any, beta: Any, *, groups: int, axis: int = -1, epsilon: float = 1e-3) -> Any:
    """Normalise each group of channels of each sample: gamma * (x - mean) / sqrt(variance + epsilon) + beta.

    Args:
        x: ``(batch, ...)`` with the channels on ``axis``; floats.
        gamma: The scale, ``(channels,)``.
        beta: The offset, as gamma.
        groups: The channels are cut into so many parts; mean and variance are over a part and all other axes but the
            batch.
        axis: The channels' axis.
        epsilon: Added to the variance.

    Raises:
        ShapeError: if the channels are no multiple of ``groups``, or gamma or beta have another shape.

    Reference:
        Wu, He, Group Normalization, 2018, arXiv 1803.08494.

    Example:
        >>> import numpy as np
        >>> group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), np.ones(4), np.zeros(4), groups=2, epsilon=0.0)
        array([[-1.,  1., -1.,  1.]])
    """
    axis = normalize_axis(axis, len(shape_of(x)))
    return group_norm_(x, gamma, beta, groups=groups, axis=axis, epsilon=float(epsilon))


# ---- by the size alone ------------------------------------------------------------


def _inverse_rms(x: Any, axes: Axes, epsilon: float) -> Any:
    return ops.rsqrt(ops.mean(ops.square(x), axes, keepdims=True) + epsilon)


def _rms_infer(x: Spec, scale: Spec, *, axes: Axes, epsilon: float) -> Spec:
    _check(x, _features(x.shape, axes), scale=scale)
    return x


def _rms_vjp(g: Any, y: Any, x: Any, scale: Any, *, axes: Axes, epsilon: float) -> tuple[Any, Any]:
    inverse = _inverse_rms(x, axes, epsilon)
    unit, scaled = x * inverse, g * _along(scale, x, axes)
    to_x = (scaled - unit * ops.mean(scaled * unit, axes, keepdims=True)) * inverse
    return to_x, ops.sum(g * unit, _others(len(shape_of(x)), axes))


def _rms_reference(x: np.ndarray, scale: np.ndarray, axes: Axes, epsilon: float) -> np.ndarray:
    shape = [d if a in axes else 1 for a, d in enumerate(x.shape)]
    return x / np.sqrt(np.mean(x**2, axes, keepdims=True) + epsilon) * scale.reshape(shape)


def _rms_samples(rng: np.random.Generator) -> list[Sample]:
    cases: list[tuple[Any, Axes]] = [((3, 5), (1,)), ((2, 3, 4), (1, 2)), ((2, 3, 4), (1,))]
    return [
        Sample((rng.normal(1.0, 2.0, s), rng.uniform(0.5, 2, [s[a] for a in axes])), {"axes": axes, "epsilon": 1e-3})
        for s, axes in cases
    ]


@composite(
    infer=_rms_infer, vjp=_rms_vjp, reference=_rms_reference, cost=lambda x, *a, **k: 5 * x.size, promotes=0,
    samples=_rms_samples,
)  # fmt: skip
def rms_norm_(x: Any, scale: Any, *, axes: Axes, epsilon: float) -> Any:
    """x / sqrt(mean of squares + epsilon) * scale, each sample by itself; scale has the ``axes``."""
    return x * _inverse_rms(x, axes, epsilon) * _along(scale, x, axes)


def rms_norm(x: Any, scale: Any, *, axes: int | tuple[int, ...] = -1, epsilon: float = 1e-6) -> Any:
    """Bring the root of the mean square of each sample to 1: x / sqrt(mean(x**2) + epsilon) * scale.

    Args:
        x: Any shape; floats.
        scale: Of the sizes of x along ``axes``.
        axes: The axes whose mean is taken.
        epsilon: Added to the mean square.

    Raises:
        ShapeError: if scale does not have the shape of the normalised axes.

    Reference:
        Zhang, Sennrich, Root Mean Square Layer Normalization, 2019, arXiv 1910.07467.

    Example:
        >>> import numpy as np
        >>> rms_norm(np.array([[3.0, -3.0]]), np.ones(2), epsilon=0.0)
        array([[ 1., -1.]])
    """
    return rms_norm_(x, scale, axes=normalize_axes(axes, len(shape_of(x))), epsilon=float(epsilon))


def unit_norm(x: Any, axis: int | tuple[int, ...] | None = -1, epsilon: float = 1e-12) -> Any:
    """x over its Euclidean length along ``axis`` (None: all axes); what is shorter than ``epsilon``, over ``epsilon``.

    Example:
        >>> import numpy as np
        >>> unit_norm(np.array([[3.0, 4.0], [0.0, 0.0]]))
        array([[0.6, 0.8],
               [0. , 0. ]])
    """
    square = ops.sum(ops.square(x), axis, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(square, epsilon**2)))
