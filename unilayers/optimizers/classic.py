"""Gradient descent, and steps scaled by sums of squared gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unilayers import ops
from unilayers.hints import Fraction, NonNegativeFloat, NonPositiveFloat, Probability
from unilayers.optimizers.base import Optimizer, Rate


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for; see `Optimizer` for the common arguments.

    Without momentum ``w -= learning_rate * g``. With it a velocity is kept, ``m = momentum * m - learning_rate * g``,
    and ``w += m``, or with Nesterov's look ahead ``w += momentum * m - learning_rate * g``.

    Args:
        learning_rate: Step size.
        momentum: Part of the last step that is repeated.
        nesterov: Whether to look ahead.

    Reference:
        Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.

    Example:
        >>> import numpy as np
        >>> from unilayers.variable import Variable
        >>> v = Variable(np.array([1.0, 2.0]))
        >>> SGD(0.5).apply([np.array([1.0, -2.0], "float32")], [v]); v.numpy()
        array([0.5, 3. ], dtype=float32)
    """

    learning_rate: Rate = 0.01
    momentum: Probability = 0.0
    nesterov: bool = False

    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0} if self.momentum else {}

    def update(self, learning_rate: Any, tensors: Sequence[Any], count: int, weight_decay: float) -> Sequence[Any]:
        return ops.sgd_update(
            learning_rate, *tensors, count=count, momentum=self.momentum, nesterov=self.nesterov,
            weight_decay=weight_decay,
        )  # fmt: skip


class RMSprop(Optimizer):
    """Steps divided by the root of a moving average of squared gradients.

    ``v = rho * v + (1 - rho) * g**2``; ``w -= learning_rate * g / sqrt(v + epsilon)``.

    Args:
        learning_rate: Step size.
        rho: Decay of the moving averages.
        momentum: Part of the last step that is repeated.
        epsilon: Keeps the divisor from 0; added inside the root.
        centered: Whether v is made a variance, by taking the squared moving average of gradients from it.

    Reference:
        Tieleman and Hinton, Lecture 6.5: RMSprop, 2012; centered: Graves, 2013, arXiv:1308.0850.
    """

    rho: Fraction = 0.9
    momentum: Probability = 0.0
    epsilon: NonNegativeFloat = 1e-7
    centered: bool = False

    def slots(self) -> Mapping[str, float]:
        wanted = {"velocity": True, "momentum": bool(self.momentum), "average_gradient": self.centered}
        return {name: 0.0 for name, kept in wanted.items() if kept}

    def update(self, learning_rate: Any, tensors: Sequence[Any], count: int, weight_decay: float) -> Sequence[Any]:
        return ops.rmsprop_update(
            learning_rate, *tensors, count=count, rho=self.rho, momentum=self.momentum, epsilon=self.epsilon,
            centered=self.centered, weight_decay=weight_decay,
        )  # fmt: skip


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients so far.

    ``a += g**2``; ``w -= learning_rate * g / sqrt(a + epsilon)``.

    Args:
        learning_rate: Step size.
        initial_accumulator_value: What the sums start from.
        epsilon: Keeps the divisor from 0; added inside the root.

    Reference:
        Duchi et al., Adaptive subgradient methods for online learning and stochastic optimization, 2011.
    """

    initial_accumulator_value: NonNegativeFloat = 0.1
    epsilon: NonNegativeFloat = 1e-7

    def slots(self) -> Mapping[str, float]:
        return {"accumulator": self.initial_accumulator_value}

    def update(self, learning_rate: Any, tensors: Sequence[Any], count: int, weight_decay: float) -> Sequence[Any]:
        return ops.adagrad_update(learning_rate, *tensors, count=count, epsilon=self.epsilon, weight_decay=weight_decay)


class Adadelta(Optimizer):
    """Steps as long as the recent ones were, along gradients divided by the root of a moving average of their squares.

    ``a = rho * a + (1 - rho) * g**2``; ``d = sqrt(b + epsilon) / sqrt(a + epsilon) * g``;
    ``b = rho * b + (1 - rho) * d**2``; ``w -= learning_rate * d``.

    Args:
        learning_rate: Step size; the paper's is 1.
        rho: Decay of the moving averages.
        epsilon: Keeps roots and divisor from 0.

    Reference:
        Zeiler, Adadelta: an adaptive learning rate method, 2012, arXiv:1212.5701.
    """

    rho: Fraction = 0.95
    epsilon: NonNegativeFloat = 1e-7

    def slots(self) -> Mapping[str, float]:
        return {"accumulated_grad": 0.0, "accumulated_delta_var": 0.0}

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        squares, moves = slots
        squares = squares * self.rho + ops.square(gradient) * (1 - self.rho)
        move = gradient * ops.sqrt(moves + self.epsilon) / ops.sqrt(squares + self.epsilon)
        return parameter - move * learning_rate, squares, moves * self.rho + ops.square(move) * (1 - self.rho)


class Ftrl(Optimizer):
    """Follow the regularised leader: for large sparse linear models; weights stay at 0 while their evidence is small.

    With ``n`` the sum of squares and ``z`` the linear part, in each step: ``n' = n + g**2``;
    ``z += g + 2 * shrinkage * w - (n'**-p - n**-p) / learning_rate * w``;
    ``w = (clip(z, -l1, l1) - z) / (n'**-p / learning_rate + 2 * l2 + beta / learning_rate)``.

    Args:
        learning_rate: Step size.
        learning_rate_power: p, how fast the step size falls with n; at most 0.
        initial_accumulator_value: What n starts from.
        l1_regularization_strength: Below this z keeps its weight at 0.
        l2_regularization_strength: Draws weights to 0 in every step.
        l2_shrinkage_regularization_strength: The same, felt only by weights that have a gradient.
        beta: Further l2, divided by twice the learning rate.

    Reference:
        McMahan et al., Ad click prediction: a view from the trenches, 2013.
    """

    learning_rate_power: NonPositiveFloat = -0.5
    initial_accumulator_value: NonNegativeFloat = 0.1
    l1_regularization_strength: NonNegativeFloat = 0.0
    l2_regularization_strength: NonNegativeFloat = 0.0
    l2_shrinkage_regularization_strength: NonNegativeFloat = 0.0
    beta: NonNegativeFloat = 0.0

    def slots(self) -> Mapping[str, float]:
        return {"accumulator": self.initial_accumulator_value, "linear": 0.0}

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        squares, linear = slots
        l1, p = self.l1_regularization_strength, -self.learning_rate_power
        pulled = gradient + parameter * (2 * self.l2_shrinkage_regularization_strength)
        more = squares + ops.square(gradient)
        linear = linear + pulled - (ops.power(more, p) - ops.power(squares, p)) / learning_rate * parameter
        l2 = ops.divide(self.beta / 2, learning_rate) + self.l2_regularization_strength
        curve = ops.power(more, p) / learning_rate + l2 * 2.0
        return (ops.clip(linear, minimum=-l1, maximum=l1) - linear) / curve, more, linear
