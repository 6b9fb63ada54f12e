"""Normalization over the batch and over each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.hints import PositiveFloat, Probability
from unilayers.initializers import InitializerLike
from unilayers.layers.affine import RegularizerLike
from unilayers.layers.base import Layer
from unilayers.spec import normalize_axes, normalize_axis


class Normalization(Layer, abstract=True):
    """Base of the normalizations: the learned scale ``gamma`` and offset ``beta``, of the sizes of x along some axes.

    A subclass declares the fields ``center`` and ``scale``, and an initializer and a regularizer each for ``beta`` and
    ``gamma``, at the places that they have among its arguments.
    """

    def add_gamma_and_beta(self: Any, shape: tuple[int, ...]) -> None:
        """Create those of the two that are wanted."""
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_weight(
                shape, self.gamma_initializer, regularizer=self.gamma_regularizer, name="gamma"
            )
        if self.center:
            self.beta = self.add_weight(shape, self.beta_initializer, regularizer=self.beta_regularizer, name="beta")

    def gamma_and_beta(self: Any, shape: Sequence[int]) -> tuple[Any, Any]:
        """Both; ones and zeros for what is not learned."""
        gamma = np.ones(shape, self.compute_dtype) if self.gamma is None else self.gamma
        beta = np.zeros(shape, self.compute_dtype) if self.beta is None else self.beta
        return gamma, beta


class BatchNormalization(Normalization):
    """Each channel with mean 0 and variance 1, times ``gamma`` plus ``beta``.

    In training the mean and the variance (divisor N) are those of the batch, and moving averages of them are kept:
    ``moving = momentum * moving + (1 - momentum) * batch``. In inference the moving averages are used; so they are in
    training, unchanged, if the layer or one around it has ``trainable = False``.

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

    Raises:
        ShapeError: if x has no such axis, or another size there than at the first call.

    Reference:
        Ioffe, Szegedy, Batch Normalization, 2015, arXiv 1502.03167.

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

    def build(self, input_shape: Any) -> None:
        shape = (self.known_size(input_shape, self.axis),)
        self.add_gamma_and_beta(shape)
        self.moving_mean = self.add_weight(shape, self.moving_mean_initializer, trainable=False, name="moving_mean")
        self.moving_variance = self.add_weight(
            shape, self.moving_variance_initializer, trainable=False, name="moving_variance"
        )

    def call(self, x: Any, training: bool = False) -> Any:
        size = self.moving_mean.shape[0]
        axis = normalize_axis(self.axis, len(ops.shape_of(x)))
        self.require_size(x, axis, size)
        others = tuple(a for a in range(len(ops.shape_of(x))) if a != axis)
        gamma, beta = self.gamma_and_beta((size,))
        if not training or self.frozen:
            return ops.batch_norm_inference(
                x, gamma, beta, self.moving_mean, self.moving_variance, axes=others, epsilon=self.epsilon
            )
        y, mean, variance = ops.batch_norm(x, gamma, beta, axes=others, epsilon=self.epsilon)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(ops.add(ops.multiply(moving, self.momentum), ops.multiply(batch, 1.0 - self.momentum)))
        return y

    @property
    def frozen(self) -> bool:
        """Whether this layer or one around it is not trainable."""
        layer: Layer | None = self
        while layer is not None and layer.trainable:
            layer = layer._parent
        return layer is not None


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

    def build(self, input_shape: Any) -> None:
        axes = normalize_axes(self.axis, len(input_shape))
        self._sizes = tuple(self.known_size(input_shape, a) for a in axes)
        self.add_gamma_and_beta(self._sizes)

    def call(self, x: Any) -> Any:
        axes = normalize_axes(self.axis, len(ops.shape_of(x)))
        for axis, size in zip(axes, self._sizes, strict=True):
            self.require_size(x, axis, size)
        return ops.layer_norm(x, *self.gamma_and_beta(self._sizes), axes=axes, epsilon=self.epsilon)
