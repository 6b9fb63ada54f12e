"""Normalization over the batch, over each sample, and of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from unilayers import initializers, ops
from unilayers.errors import ShapeError, UnilayersError, nearest
from unilayers.hints import NonNegativeFloat, PositiveFloat, PositiveInt, Probability, check_value
from unilayers.initializers import InitializerLike, TruncatedNormal
from unilayers.layers.affine import ConstraintLike, RegularizerLike
from unilayers.layers.base import Layer, in_dtype, widened
from unilayers.layers.wrapper import Wrapper
from unilayers.spec import normalize_axes, normalize_axis, promote
from unilayers.variable import Variable, autocast


class Normalization(Layer, abstract=True):
    """Base of the normalizations: the learned scale ``gamma`` and offset ``beta``, of the sizes of x along some axes.

    A subclass declares the fields ``center`` and ``scale``, and an initializer, a regularizer and a constraint each for
    ``beta`` and ``gamma``, at the places that they have among its arguments.
    """

    def add_gamma_and_beta(self: Any, shape: tuple[int, ...]) -> None:
        """Create those of the two that are wanted."""
        self.gamma = self._weight("gamma", shape) if self.scale else None
        self.beta = self._weight("beta", shape) if self.center else None

    def _weight(self, name: str, shape: tuple[int, ...]) -> Variable:
        initializer, regularizer, constraint = (
            getattr(self, f"{name}_{what}") for what in ("initializer", "regularizer", "constraint")
        )
        return self.add_weight(
            shape, initializer, regularizer=regularizer, constraint=constraint, name=name, autocast=False
        )

    def gamma_and_beta(self: Any, shape: Sequence[int]) -> tuple[Any, Any]:
        """Both; ones and zeros for what is not learned."""
        dtype = promote(self.variable_dtype, "float32")
        gamma = np.ones(shape, dtype) if self.gamma is None else self.gamma
        beta = np.zeros(shape, dtype) if self.beta is None else self.beta
        return gamma, beta


class BatchNormalization(Normalization):
    """Each channel with mean 0 and variance 1, times ``gamma`` plus ``beta``.

    In training the mean and the variance (divisor N) are those of the batch, and moving averages of them are kept:
    ``moving = momentum * moving + (1 - momentum) * batch``. In inference the moving averages are used; so they are in
    training, unchanged, if the layer or one around it has ``trainable = False``.

    With ``renorm`` the normalized batch is corrected in training, times r plus d, to what moving averages of its mean
    and standard deviation would make of it, so that small batches train as inference will see them. The gradient takes
    r and d for constants.

    Shapes: x any shape -> the same; all weights ``(x.shape[axis],)``.

    Args:
        axis: The channels' axis; 1 for channels-first images.
        momentum: Weight of the past in the moving averages.
        epsilon: Added to the variance.
        center: Whether ``beta`` is added.
        scale: Whether to multiply by ``gamma``.
        beta_initializer: Initial values of ``beta``.
        gamma_initializer: Initial values of ``gamma``.
        moving_mean_initializer: Initial values of the moving mean.
        moving_variance_initializer: Initial values of the moving variance.
        beta_regularizer: Penalty on ``beta``.
        gamma_regularizer: Penalty on ``gamma``.
        beta_constraint: Where updates may move ``beta``.
        gamma_constraint: Where updates may move ``gamma``.
        renorm: Whether to correct the batch by moving averages.
        renorm_clipping: Bounds of the correction: r stays between ``"rmin"`` and ``"rmax"``, d between minus and plus
            ``"dmax"``; what is left out is not bounded.
        renorm_momentum: Weight of the past in the moving averages of the correction.
        synchronized: Whether the devices of a distributed step share their statistics; a step on one device has
            nothing to share.

    Raises:
        ShapeError: if x has no such axis, or another size there than at the first call.
        UnilayersError: for other keys in ``renorm_clipping``, and for bounds that leave nothing.

    Reference:
        Ioffe, Szegedy, Batch Normalization, 2015, arXiv 1502.03167. Ioffe, Batch Renormalization, 2017, arXiv
        1702.03275.

    Example:
        >>> x = np.array([[1.0], [3.0]], "float32")
        >>> layer = BatchNormalization(epsilon=1e-7)
        >>> layer(x, training=True).ravel(), layer.moving_mean.numpy()
        (array([-1.,  1.], dtype=float32), array([0.02], dtype=float32))
    """

    axis: int = -1
    momentum: Probability = 0.99
    epsilon: PositiveFloat = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: InitializerLike = "zeros"
    gamma_initializer: InitializerLike = "ones"
    moving_mean_initializer: InitializerLike = "zeros"
    moving_variance_initializer: InitializerLike = "ones"
    beta_regularizer: RegularizerLike = None
    gamma_regularizer: RegularizerLike = None
    beta_constraint: ConstraintLike = None
    gamma_constraint: ConstraintLike = None
    renorm: bool = False
    renorm_clipping: Mapping[str, float] | None = None
    renorm_momentum: Probability = 0.99
    synchronized: bool = False

    supports_masking = True

    def __post_init__(self) -> None:
        bounds, where = self.renorm_clipping or {}, "BatchNormalization.renorm_clipping"
        for key, bound in bounds.items():
            if key not in ("rmax", "rmin", "dmax"):
                raise UnilayersError(f"unknown key {key!r}", where=where, fix=nearest(key, ("rmax", "rmin", "dmax")))
            check_value(bound, NonNegativeFloat, f"{where}[{key!r}]")
        if bounds.get("rmin", 0.0) > bounds.get("rmax", math.inf):
            raise UnilayersError(
                "the bounds leave nothing", where=where, expected="rmin <= rmax", received=repr(dict(bounds))
            )

    def build(self, input_shape: Any) -> None:
        shape = (self.known_size(input_shape, self.axis),)
        self.add_gamma_and_beta(shape)
        self.moving_mean, self.moving_variance = (
            self.add_weight(shape, initializer, trainable=False, name=name, autocast=False)
            for name, initializer in (
                ("moving_mean", self.moving_mean_initializer),
                ("moving_variance", self.moving_variance_initializer),
            )
        )
        if self.renorm:
            self.moving_stddev = self.add_weight(shape, self._initial_stddev, trainable=False, name="moving_stddev")
            self.renorm_mean = self.add_weight(shape, self.moving_mean_initializer, trainable=False, name="renorm_mean")
            self.renorm_stddev = self.add_weight(shape, self._initial_stddev, trainable=False, name="renorm_stddev")

    def _initial_stddev(self, shape: tuple[int, ...], dtype: str, generator: np.random.Generator) -> np.ndarray:
        variance = initializers.get(self.moving_variance_initializer)
        assert variance is not None
        return np.sqrt(variance(shape, dtype, generator=generator))

    def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        size = self.moving_mean.shape[0]
        axis = normalize_axis(self.axis, len(ops.shape_of(x)))
        self.require_size(x, axis, size)
        others = tuple(a for a in range(len(ops.shape_of(x))) if a != axis)
        gamma, beta = self.gamma_and_beta((size,))
        given, x = ops.dtype_of(x), widened(x)
        if not training or self.frozen:
            y = ops.batch_norm_inference(
                x, gamma, beta, self.moving_mean, self.moving_variance, axes=others, epsilon=self.epsilon
            )
            return in_dtype(y, given)
        if mask is None and not self.renorm:
            y, mean, variance = ops.batch_norm(x, gamma, beta, axes=others, epsilon=self.epsilon)
        else:
            mean, variance = ops.moments(x, others) if mask is None else _moments(x, mask, others)
            if self.renorm:
                r, d = self._correction(mean, ops.sqrt(ops.add(variance, self.epsilon)))
                gamma, beta = ops.multiply(gamma, r), ops.add(ops.multiply(gamma, d), beta)
            y = ops.batch_norm_inference(x, gamma, beta, mean, variance, axes=others, epsilon=self.epsilon)
        _follow(self.moving_mean, mean, self.momentum)
        if self.renorm:  # the average is of the standard deviation, as in the paper
            stddev = ops.sqrt(ops.add(variance, self.epsilon))
            _follow(self.renorm_mean, mean, self.renorm_momentum)
            _follow(self.renorm_stddev, stddev, self.renorm_momentum)
            _follow(self.moving_stddev, stddev, self.momentum)
            self.moving_variance.assign(ops.relu(ops.subtract(ops.square(self.moving_stddev), self.epsilon)))
        else:
            _follow(self.moving_variance, variance, self.momentum)
        return in_dtype(y, given)

    def _correction(self, mean: Any, stddev: Any) -> tuple[Any, Any]:
        """Factor and offset of the normalized batch."""
        bounds = self.renorm_clipping or {}
        usual = ops.maximum(self.renorm_stddev, math.sqrt(self.epsilon))
        r, d = ops.divide(stddev, usual), ops.divide(ops.subtract(mean, self.renorm_mean), usual)
        r = ops.clip(r, minimum=bounds.get("rmin"), maximum=bounds.get("rmax"))
        if (most := bounds.get("dmax")) is not None:
            d = ops.clip(d, minimum=-most, maximum=most)
        return ops.stop_gradient(r), ops.stop_gradient(d)

    @property
    def frozen(self) -> bool:
        """Whether this layer or one around it is not trainable."""
        layer: Layer | None = self
        while layer is not None and layer.trainable:
            layer = layer._parent
        return layer is not None


def _follow(moving: Variable, value: Any, momentum: float) -> None:
    moving.assign(ops.add(ops.multiply(moving, momentum), ops.multiply(value, 1.0 - momentum)))


def _moments(x: Any, mask: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean and variance over ``axes`` of the steps that the mask, which lacks the last axis, lets through."""
    taken = ops.expand_dims(mask, -1)
    weights = ops.broadcast_to(ops.astype(taken, ops.dtype_of(x)), ops.shape_of(x))
    count = ops.maximum(ops.sum(weights, axes, keepdims=True), 1.0)
    mean = ops.divide(ops.sum(ops.where(taken, x, 0.0), axes, keepdims=True), count)
    distance = ops.where(taken, ops.square(ops.subtract(x, mean)), 0.0)
    variance = ops.divide(ops.sum(distance, axes, keepdims=True), count)
    return ops.squeeze(mean, axes), ops.squeeze(variance, axes)


class LayerNormalization(Normalization):
    """Each sample with mean 0 and variance 1 (divisor N) over some axes, times ``gamma`` plus ``beta``.

    Shapes: x any shape -> the same; gamma and beta have the sizes of x along ``axis``.

    Args:
        axis: The axis or axes to take mean and variance over.
        epsilon: Added to the variance.
        center: Whether ``beta`` is added.
        scale: Whether to multiply by ``gamma``.
        beta_initializer: Initial values of ``beta``.
        gamma_initializer: Initial values of ``gamma``.
        beta_regularizer: Penalty on ``beta``.
        gamma_regularizer: Penalty on ``gamma``.
        beta_constraint: Where updates may move ``beta``.
        gamma_constraint: Where updates may move ``gamma``.

    Raises:
        ShapeError: if x has no such axis, or another size there than at the first call.

    Reference:
        Ba, Kiros, Hinton, Layer Normalization, 2016, arXiv 1607.06450.

    Example:
        >>> LayerNormalization(epsilon=1e-7)(np.array([[1.0, 3.0], [10.0, 30.0]], "float32"))
        array([[-1.,  1.],
               [-1.,  1.]], dtype=float32)
    """

    axis: int | Sequence[int] = -1
    epsilon: PositiveFloat = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: InitializerLike = "zeros"
    gamma_initializer: InitializerLike = "ones"
    beta_regularizer: RegularizerLike = None
    gamma_regularizer: RegularizerLike = None
    beta_constraint: ConstraintLike = None
    gamma_constraint: ConstraintLike = None

    supports_masking = True

    def build(self, input_shape: Any) -> None:
        axes = normalize_axes(self.axis, len(input_shape))
        self._sizes = tuple(self.known_size(input_shape, a) for a in axes)
        self.add_gamma_and_beta(self._sizes)

    def call(self, x: Any) -> Any:
        axes = normalize_axes(self.axis, len(ops.shape_of(x)))
        for axis, size in zip(axes, self._sizes, strict=True):
            self.require_size(x, axis, size)
        y = ops.layer_norm(widened(x), *self.gamma_and_beta(self._sizes), axes=axes, epsilon=self.epsilon)
        return in_dtype(y, ops.dtype_of(x))


class GroupNormalization(Normalization):
    """Each group of channels of each sample with mean 0 and variance 1 (divisor N), times ``gamma`` plus ``beta``.

    Shapes: x ``(batch, ...)`` -> the same; gamma and beta ``(x.shape[axis],)``.

    Args:
        groups: The channels are cut into so many groups; -1: each channel is a group (instance normalization).
        axis: The channels' axis.
        epsilon: Added to the variance.
        center: Whether ``beta`` is added.
        scale: Whether to multiply by ``gamma``.
        beta_initializer: Initial values of ``beta``.
        gamma_initializer: Initial values of ``gamma``.
        beta_regularizer: Penalty on ``beta``.
        gamma_regularizer: Penalty on ``gamma``.
        beta_constraint: Where updates may move ``beta``.
        gamma_constraint: Where updates may move ``gamma``.

    Raises:
        ShapeError: if x has no such axis, another size there than at the first call, or one that is no multiple of
            ``groups``.

    Reference:
        Wu, He, Group Normalization, 2018, arXiv 1803.08494.

    Example:
        >>> GroupNormalization(2, epsilon=1e-7)(np.array([[1.0, 3.0, 10.0, 30.0]], "float32"))
        array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    groups: PositiveInt | Literal[-1] = 32
    axis: int = -1
    epsilon: PositiveFloat = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: InitializerLike = "zeros"
    gamma_initializer: InitializerLike = "ones"
    beta_regularizer: RegularizerLike = None
    gamma_regularizer: RegularizerLike = None
    beta_constraint: ConstraintLike = None
    gamma_constraint: ConstraintLike = None

    supports_masking = True

    def build(self, input_shape: Any) -> None:
        self._size = self.known_size(input_shape, self.axis)
        self._groups = self._size if self.groups == -1 else self.groups
        if self._size % self._groups:
            raise ShapeError(
                "the channels cannot be cut into groups",
                expected=f"a multiple of groups={self.groups}",
                received=f"{self._size} channels in {tuple(input_shape)}",
            )
        self.add_gamma_and_beta((self._size,))

    def call(self, x: Any) -> Any:
        self.require_size(x, self.axis, self._size)
        gamma, beta = self.gamma_and_beta((self._size,))
        y = ops.group_norm(widened(x), gamma, beta, groups=self._groups, axis=self.axis, epsilon=self.epsilon)
        return in_dtype(y, ops.dtype_of(x))


class RMSNormalization(Layer):
    """Each sample with a mean square of 1 over some axes, times the learned ``scale``.

    Shapes: x any shape -> the same; scale has the sizes of x along ``axis``.

    Args:
        axis: The axis or axes to take the mean over.
        epsilon: Added to the mean square.

    Raises:
        ShapeError: if x has no such axis, or another size there than at the first call.

    Reference:
        Zhang, Sennrich, Root Mean Square Layer Normalization, 2019, arXiv 1910.07467.

    Example:
        >>> RMSNormalization()(np.array([[3.0, -3.0]], "float32")).round(3)
        array([[ 1., -1.]], dtype=float32)
    """

    axis: int | Sequence[int] = -1
    epsilon: PositiveFloat = 1e-6

    def build(self, input_shape: Any) -> None:
        axes = normalize_axes(self.axis, len(input_shape))
        sizes = [self.known_size(input_shape, a) for a in axes]
        self.scale = self.add_weight(sizes, "ones", name="scale", autocast=False)

    def call(self, x: Any) -> Any:
        axes = normalize_axes(self.axis, len(ops.shape_of(x)))
        for axis, size in zip(axes, self.scale.shape, strict=True):
            self.require_size(x, axis, size)
        y = ops.rms_norm(widened(x), self.scale, axes=axes, epsilon=self.epsilon)
        return in_dtype(y, ops.dtype_of(x))


class UnitNormalization(Layer):
    """Each sample with a Euclidean length of 1 along some axes; zeros stay zeros.

    Args:
        axis: The axis or axes along which the length is taken.

    Example:
        >>> UnitNormalization()(np.array([[3.0, 4.0]], "float32"))
        array([[0.6, 0.8]], dtype=float32)
    """

    axis: int | Sequence[int] = -1

    supports_masking = True

    def call(self, x: Any) -> Any:
        y = ops.unit_norm(widened(x), normalize_axes(self.axis, len(ops.shape_of(x))))
        return in_dtype(y, ops.dtype_of(x))


class SpectralNormalization(Wrapper):
    """Divides the kernel of a layer by its largest singular value, at each call in training.

    The kernel counts as a matrix of one column per output channel. The value is found by power iteration, which goes on
    from call to call; the gradient is that of the layer with the divided kernel. A kernel of zeros stays.

    Shapes: as the layer has them; ``vector_u`` ``(1, kernel.shape[-1])``.

    Args:
        layer: A layer with a ``kernel``, or an ``Embedding``.
        power_iterations: Steps of the iteration per call.

    Raises:
        UnilayersError: if the layer has no kernel.

    Reference:
        Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018, arXiv 1802.05957.

    Example:
        >>> from unilayers.layers import Dense
        >>> layer = SpectralNormalization(Dense(3), power_iterations=30)
        >>> _ = layer(np.ones((1, 4), "float32"), training=True)
        >>> round(float(np.linalg.norm(layer.layer.kernel.numpy(), 2)), 4)
        1.0
    """

    power_iterations: PositiveInt = 1

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        kernel = getattr(self.layer, "kernel", getattr(self.layer, "embeddings", None))
        if not isinstance(kernel, Variable):
            raise UnilayersError("needs a layer with a kernel or embeddings")
        self.kernel, shape = kernel, (1, kernel.shape[-1])
        self.vector_u = self.add_weight(shape, TruncatedNormal(stddev=0.02), trainable=False, name="vector_u")

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            with autocast(None):  # what is divided is the weight itself, not what is computed with
                kernel = ops.stop_gradient(self.kernel)
                u, divided = self._divided(kernel, ops.identity(self.vector_u))
                self.vector_u.assign(u)
                # The value is the divided kernel; for gradients, the weight itself.
                self.kernel.assign(ops.add(self.kernel, ops.subtract(divided, kernel)))
        return self.layer(x)  # type: ignore[operator]

    def _divided(self, kernel: Any, u: Any) -> tuple[Any, Any]:
        """The next u, and the kernel over its largest singular value."""
        matrix = ops.reshape(kernel, (-1, ops.shape_of(kernel)[-1]))
        empty = ops.logical_not(ops.any(ops.not_equal(matrix, 0.0)))
        found = u
        for _ in range(self.power_iterations):
            v = ops.unit_norm(ops.matmul(found, ops.matrix_transpose(matrix)))
            found = ops.unit_norm(ops.matmul(v, matrix))
        largest = ops.sum(ops.multiply(ops.matmul(v, matrix), found))
        return ops.where(empty, u, found), ops.divide(kernel, ops.where(empty, 1.0, largest))
