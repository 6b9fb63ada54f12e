"""Optimizers that look at more than one element at a time, or at signs alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any

from unilayers import ops
from unilayers.hints import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat
from unilayers.ops import shape_of
from unilayers.optimizers.base import Optimizer
from unilayers.optimizers.schedules import LearningRateSchedule
from unilayers.variable import Variable


class Lion(Optimizer):
    """Steps of one length: the sign of gradient and momentum together.

    ``w -= learning_rate * sign(beta_1 * m + (1 - beta_1) * g)``; ``m = beta_2 * m + (1 - beta_2) * g``.

    Args:
        learning_rate: Step size; a third to a tenth of Adam's.
        beta_1: Part of the momentum in the step.
        beta_2: Decay of the momentum.

    Reference:
        Chen et al., Symbolic discovery of optimization algorithms, 2023, arXiv:2302.06675.
    """

    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.99

    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0}

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        (momentum,) = slots
        direction = ops.sign(momentum * self.beta_1 + gradient * (1 - self.beta_1))
        return parameter - direction * learning_rate, momentum * self.beta_2 + gradient * (1 - self.beta_2)


class Adafactor(Optimizer):
    """Adam without momentum that keeps, for matrices, the sums of squares of rows and columns only.

    The size of a step is relative to that of the weights: ``max(epsilon_2, rms(w)) * min(learning_rate, 1 / sqrt(t))``.

    Args:
        learning_rate: Step size; with ``relative_step`` and a plain number, at most ``1 / sqrt(t)``.
        beta_2_decay: The averages decay by ``1 - t**beta_2_decay``.
        epsilon_1: Added to squared gradients.
        epsilon_2: Least size of weights that is assumed.
        clip_threshold: Root mean square from which on a step is scaled down.
        relative_step: Whether the step size falls with the square root of time.

    Reference:
        Shazeer and Stern, Adafactor: adaptive learning rates with sublinear memory cost, 2018, arXiv:1804.04235.
    """

    beta_2_decay: float = -0.8
    epsilon_1: NonNegativeFloat = 1e-30
    epsilon_2: NonNegativeFloat = 1e-3
    clip_threshold: PositiveFloat = 1.0
    relative_step: bool = True

    def slots(self) -> Mapping[str, float]:
        return {"row": 0.0, "column": 0.0, "velocity": 0.0}

    def slot_shape(self, name: str, variable: Variable) -> tuple[int, ...]:
        """Rows and columns of the last two axes; of vectors the squares themselves are kept."""
        matrix, shape = variable.ndim >= 2, variable.shape
        factors = {"row": shape[:-1], "column": (*shape[:-2], *shape[-1:])} if matrix else {"velocity": shape}
        return factors.get(name, ())

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        row, column, velocity = slots
        time = self.time(gradient)
        limit = 1.0 / ops.sqrt(time)
        if self.relative_step and not isinstance(self.learning_rate, LearningRateSchedule):
            learning_rate = ops.minimum(learning_rate, limit)
        size = ops.maximum(_rms(parameter), self.epsilon_2) * ops.minimum(learning_rate, limit)
        keep = 1.0 - ops.power(time, self.beta_2_decay)
        squares = ops.square(gradient) + self.epsilon_1
        if len(shape_of(parameter)) >= 2:
            row = row * keep + ops.mean(squares, -1) * (1.0 - keep)
            column = column * keep + ops.mean(squares, -2) * (1.0 - keep)
            share = row / ops.mean(row, -1, keepdims=True)
            now = ops.expand_dims(share, -1) * ops.expand_dims(column, -2)
        else:
            now = velocity = velocity * keep + squares * (1.0 - keep)
        move = gradient / ops.sqrt(now)
        move = move / ops.maximum(_rms(move) / self.clip_threshold, 1.0)
        return parameter - move * size, row, column, velocity


def _rms(x: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(x)))


class Muon(Optimizer):
    """Steps of matrices made orthogonal; vectors, embeddings and all else go by `AdamW`.

    The momentum m of a matrix is replaced by the nearest orthogonal matrix, by a few Newton-Schulz steps, so that the
    step is as large in all directions.

    Args:
        learning_rate: Step size.
        adam_beta_1: Decay of AdamW's average of gradients.
        adam_beta_2: Decay of its average of their squares.
        adam_weight_decay: Weight decay of what goes by AdamW.
        epsilon: AdamW's.
        weight_decay: Weight decay of matrices.
        exclude_layers: Regular expressions; a weight whose path has a match goes by AdamW.
        exclude_embeddings: Whether weights with "embedding" in their path go by AdamW.
        muon_a: Of the Newton-Schulz step ``a * x + (b * x x^T + c * (x x^T)^2) x``.
        muon_b: Of the same.
        muon_c: Of the same.
        adam_lr_ratio: AdamW's step size as a multiple of the learning rate.
        momentum: Decay of the sum of gradients.
        ns_steps: How many Newton-Schulz steps to make.
        nesterov: Whether to look ahead.
        rms_rate: Size of a step's elements for a learning rate of 1, at full rank; None: that of an orthogonal matrix.

    Reference:
        Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; the step size: Liu et al., Muon is
        scalable for LLM training, 2025, arXiv:2502.16982.
    """

    adam_beta_1: Fraction = 0.9
    adam_beta_2: Fraction = 0.999
    adam_weight_decay: NonNegativeFloat | None = 0.004
    epsilon: NonNegativeFloat = 1e-7
    _: KW_ONLY
    weight_decay: NonNegativeFloat | None = 0.004
    exclude_layers: Sequence[str] | None = None
    exclude_embeddings: bool = True
    muon_a: float = 3.4445
    muon_b: float = -4.775
    muon_c: float = 2.0315
    adam_lr_ratio: NonNegativeFloat = 1
    momentum: Fraction = 0.95
    ns_steps: NonNegativeInt = 5
    nesterov: bool = True
    rms_rate: PositiveFloat | None = 0.2

    def _by_adam(self, variable: Variable) -> bool:
        embedding = self.exclude_embeddings and "embedding" in variable.path.lower()
        return variable.ndim != 2 or embedding or any(re.search(p, variable.path) for p in self.exclude_layers or ())

    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0, "velocity": 0.0}

    def slot_shape(self, name: str, variable: Variable) -> tuple[int, ...]:
        """Only AdamW keeps squares: by their shape a step knows which it is."""
        return variable.shape if name == "momentum" or self._by_adam(variable) else ()

    def decay_of(self, variable: Variable) -> float:
        decay = self.adam_weight_decay if self._by_adam(variable) else self.weight_decay
        return (decay or 0.0) if self.may_decay(variable) else 0.0

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        momentum, velocity = slots
        if len(shape_of(parameter)) != 2 or len(shape_of(velocity)) == 2:
            return self._adam_step(learning_rate * float(self.adam_lr_ratio), parameter, gradient, *slots)
        momentum = gradient + momentum * self.momentum
        sizes: Any = shape_of(parameter)
        move = _orthogonal(
            gradient + momentum * self.momentum if self.nesterov else momentum,
            self.ns_steps, (self.muon_a, self.muon_b, self.muon_c),
        )  # fmt: skip
        scale = 1.0 if self.rms_rate is None else max(sizes) ** 0.5 * self.rms_rate
        return parameter - move * (learning_rate * scale), momentum, velocity

    def _adam_step(
        self, learning_rate: Any, parameter: Any, gradient: Any, momentum: Any, velocity: Any
    ) -> Sequence[Any]:
        time, beta_1, beta_2 = self.time(gradient), self.adam_beta_1, self.adam_beta_2
        momentum = momentum + (gradient - momentum) * (1 - beta_1)
        velocity = velocity + (ops.square(gradient) - velocity) * (1 - beta_2)
        rate = learning_rate * ops.sqrt(1.0 - ops.power(beta_2, time)) / (1.0 - ops.power(beta_1, time))
        return parameter - momentum * rate / (ops.sqrt(velocity) + self.epsilon), momentum, velocity


def _orthogonal(x: Any, steps: int, coefficients: tuple[float, float, float]) -> Any:
    """About the orthogonal matrix nearest to x, by a quintic iteration that treats all singular values as one."""
    a, b, c = coefficients
    sizes: Any = shape_of(x)
    tall = sizes[0] > sizes[1]
    x = ops.transpose(x) if tall else x
    x = x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7)
    for _ in range(steps):
        square = ops.matmul(x, ops.transpose(x))
        x = x * a + ops.matmul(square * b + ops.matmul(square * c, square), x)
    return ops.transpose(x) if tall else x
