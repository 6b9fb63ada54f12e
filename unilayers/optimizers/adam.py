"""Adam and its relatives: steps along a moving average of gradients, scaled by one of their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.hints import Fraction, NonNegativeFloat, NonNegativeInt
from unilayers.ops import dtype_of
from unilayers.optimizers.base import Optimizer, Rate
from unilayers.variable import Variable


class Adam(Optimizer):
    """Steps along a moving average of gradients, divided by the root of that of their squares; both bias-corrected.

    ``m += (1 - beta_1) * (g - m)``; ``v += (1 - beta_2) * (g**2 - v)``;
    ``w -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)`` in step t = 1, 2, ...

    Args:
        learning_rate: Step size.
        beta_1: Decay of the average of gradients.
        beta_2: Decay of the average of their squares.
        epsilon: Keeps the divisor from 0; it is the paper's "epsilon hat", so it is added before the bias correction.
        amsgrad: Whether v is replaced by its largest value so far.

    Reference:
        Kingma and Ba, Adam: a method for stochastic optimization, 2014, arXiv:1412.6980; amsgrad: Reddi et al., On the
        convergence of Adam and beyond, 2018, arXiv:1904.09237.
    """

    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: NonNegativeFloat = 1e-7
    amsgrad: bool = False

    def slots(self) -> Mapping[str, float]:
        return dict.fromkeys(("momentum", "velocity", *(["velocity_hat"] if self.amsgrad else [])), 0.0)

    def update(self, learning_rate: Any, tensors: Sequence[Any], count: int, weight_decay: float) -> Sequence[Any]:
        return ops.adam_update(
            learning_rate, self.iterations, *tensors, count=count, beta_1=self.beta_1, beta_2=self.beta_2,
            epsilon=self.epsilon, amsgrad=self.amsgrad, weight_decay=weight_decay,
        )  # fmt: skip


class AdamW(Adam):
    """`Adam` with weight decay.

    Args:
        learning_rate: Step size.
        weight_decay: Each step takes this part of the weight times the learning rate from the weight.
        beta_1: Decay of the average of gradients.
        beta_2: Decay of the average of their squares.
        epsilon: Keeps the divisor from 0.
        amsgrad: Whether v is replaced by its largest value so far.

    Reference:
        Loshchilov and Hutter, Decoupled weight decay regularization, 2019, arXiv:1711.05101.
    """

    weight_decay: NonNegativeFloat = 0.004


class _Averages(Optimizer, abstract=True):
    """Shared by those that keep an average of gradients and one of their squares."""

    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: NonNegativeFloat = 1e-7

    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0, "velocity": 0.0}

    def averages(self, gradient: Any, momentum: Any, velocity: Any) -> tuple[Any, Any]:
        """The next of both."""
        momentum = momentum + (gradient - momentum) * (1 - self.beta_1)
        return momentum, velocity + (ops.square(gradient) - velocity) * (1 - self.beta_2)


class Adamax(Optimizer):
    """`Adam` with the largest absolute gradient, which decays, in the place of the root of squares.

    ``m += (1 - beta_1) * (g - m)``; ``u = max(beta_2 * u, abs(g))``;
    ``w -= learning_rate / (1 - beta_1**t) * m / (u + epsilon)``.

    Args:
        learning_rate: Step size.
        beta_1: Decay of the average of gradients.
        beta_2: Decay of the largest gradient.
        epsilon: Keeps the divisor from 0.

    Reference:
        Kingma and Ba, Adam: a method for stochastic optimization, 2014, section 7.1, arXiv:1412.6980.
    """

    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: NonNegativeFloat = 1e-7

    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0, "norm": 0.0}

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        momentum, norm = slots
        momentum = momentum + (gradient - momentum) * (1 - self.beta_1)
        norm = ops.maximum(norm * self.beta_2, ops.abs(gradient))
        rate = learning_rate / (1.0 - ops.power(self.beta_1, self.time(gradient)))
        return parameter - momentum * rate / (norm + self.epsilon), momentum, norm


class Nadam(_Averages):
    """`Adam` with Nesterov's look ahead: the step takes the gradient's next average, with a momentum that warms up.

    ``u_t = beta_1 * (1 - 0.5 * 0.96**t)``, and U_t is the product of u_1 to u_t; with m and v as in Adam,
    ``d = u_{t+1} * m / (1 - U_{t+1}) + (1 - u_t) * g / (1 - U_t)``;
    ``w -= learning_rate * d / (sqrt(v / (1 - beta_2**t)) + epsilon)``.

    Args:
        learning_rate: Step size.
        beta_1: Decay of the average of gradients.
        beta_2: Decay of the average of their squares.
        epsilon: Keeps the divisor from 0.

    Reference:
        Dozat, Incorporating Nesterov momentum into Adam, 2016.
    """

    def scalars(self) -> Mapping[str, float]:
        return {"u_product": 1.0}

    def before_update(self) -> None:
        product = self.scalar("u_product")
        product.assign(ops.multiply(product, self._pull(self.time(product))))

    def _pull(self, time: Any) -> Any:
        return (1.0 - ops.power(0.96, time) * 0.5) * self.beta_1

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        momentum, velocity = self.averages(gradient, *slots)
        time = self.time(gradient)
        now, following = self._pull(time), self._pull(time + 1.0)
        product = ops.astype(self.scalar("u_product"), dtype_of(gradient))
        ahead = momentum * following / (1.0 - product * following) + gradient * (1.0 - now) / (1.0 - product)
        size = ops.sqrt(velocity / (1.0 - ops.power(self.beta_2, time))) + self.epsilon
        return parameter - ahead * learning_rate / size, momentum, velocity


class Lamb(_Averages):
    """`Adam` with a step size for each weight tensor, in proportion to its norm: for very large batches.

    The step d is Adam's, with both averages corrected; ``w -= learning_rate * norm(w) / norm(d) * d``.

    Args:
        learning_rate: Step size.
        beta_1: Decay of the average of gradients.
        beta_2: Decay of the average of their squares.
        epsilon: Keeps the divisor from 0.

    Reference:
        You et al., Large batch optimization for deep learning: training BERT in 76 minutes, 2019, arXiv:1904.00962.
    """

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        momentum, velocity = self.averages(gradient, *slots)
        time = self.time(gradient)
        size = ops.sqrt(velocity / (1.0 - ops.power(self.beta_2, time))) + self.epsilon
        move = momentum / (1.0 - ops.power(self.beta_1, time)) / size
        weight_norm, move_norm = (ops.sqrt(ops.sum(ops.square(x))) for x in (parameter, move))
        known = ops.logical_and(weight_norm > 0.0, move_norm > 0.0)
        ratio = ops.where(known, weight_norm / ops.where(known, move_norm, 1.0), 1.0)
        return parameter - move * (learning_rate * ratio), momentum, velocity


class ScheduleFreeAdamW(Optimizer):
    """`AdamW` without a schedule: the gradient is taken between the fast weights z and their average x over all steps.

    ``z -= learning_rate * g / (sqrt(v / (1 - beta_2**t)) + epsilon)``; ``x += (z - x) / t``; the weights that training
    sees are ``(1 - beta_1) * z + beta_1 * x``.

    Args:
        learning_rate: Step size.
        beta_1: How far the weights stand from z on the way to x.
        beta_2: Decay of the average of squared gradients.
        epsilon: Keeps the divisor from 0.
        warmup_steps: Steps in which the step size grows from 0 to its value.

    Reference:
        Defazio et al., The road less scheduled, 2024, arXiv:2405.15682.
    """

    learning_rate: Rate = 0.0025
    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: NonNegativeFloat = 1e-8
    warmup_steps: NonNegativeInt = 0

    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0, "velocity": 0.0}

    def initial_slot(self, name: str, value: float, variable: Variable) -> np.ndarray:
        return variable.numpy() if name == "momentum" else super().initial_slot(name, value, variable)

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        fast, velocity = slots
        time = self.time(gradient)
        if self.warmup_steps:
            learning_rate = learning_rate * ops.minimum(time / self.warmup_steps, 1.0)
        average = (parameter - fast * (1 - self.beta_1)) / self.beta_1
        velocity = velocity + (ops.square(gradient) - velocity) * (1 - self.beta_2)
        size = ops.sqrt(velocity / (1.0 - ops.power(self.beta_2, time))) + self.epsilon
        fast = fast - gradient * learning_rate / size
        average = average + (fast - average) / time
        return fast * (1 - self.beta_1) + average * self.beta_1, fast, velocity
