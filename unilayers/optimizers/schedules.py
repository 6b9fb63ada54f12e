"""Learning rates that change with time: functions of the number of steps done, computed inside the training graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import UnilayersError
from unilayers.hints import NonNegativeFloat, PositiveInt
from unilayers.ops import dtype_of
from unilayers.registry import Configurable, deserializer, resolve
from unilayers.registry import serialize as serialize
from unilayers.spec import is_float


class LearningRateSchedule(Configurable, family="schedule", immutable=True):
    """Base class: ``schedule(step)`` is the learning rate of the step after ``step`` steps.

    Given as an optimizer's ``learning_rate`` it is part of the training graph: the device computes it, and a saved run
    goes on with the right value.

    Example:
        >>> class Halving(LearningRateSchedule):
        ...     start: float
        ...     def __call__(self, step):
        ...         return self.start / ops.power(2.0, step)
        >>> from unilayers.optimizers import SGD
        >>> SGD(Halving(1.0)).learning_rate
        Halving(start=1.0)
    """

    def __call__(self, step: Any) -> Any:
        """The learning rate after ``step`` steps: a number, or a scalar where ``step`` is one."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(step)")


def get(identifier: Any, *, where: str = "") -> LearningRateSchedule | None:
    """The schedule for a name with arguments, an instance, or None.

    Example:
        >>> get({"CosineDecay": {"initial_learning_rate": 0.1, "decay_steps": 100}})
        CosineDecay(initial_learning_rate=0.1, decay_steps=100)
    """
    return resolve(LearningRateSchedule.registry, identifier, where=where)


deserialize = deserializer(get)


def _time(step: Any) -> Any:
    """The step as a float."""
    if isinstance(step, (int, float)):
        return np.asarray(step, "float64")
    return step if is_float(dtype_of(step)) else ops.astype(step, floatx())


class ExponentialDecay(LearningRateSchedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``.

    Args:
        initial_learning_rate: The rate at the start.
        decay_steps: After so many steps the rate is multiplied by ``decay_rate`` once.
        decay_rate: The factor.
        staircase: Whether it falls at once every ``decay_steps`` steps instead of a little at each.
        name: Kept for Keras's signature.

    Example:
        >>> float(ExponentialDecay(0.1, 10, 0.5)(20))
        0.025
    """

    initial_learning_rate: float
    decay_steps: PositiveInt
    decay_rate: float
    staircase: bool = False
    name: str | None = "ExponentialDecay"

    def __call__(self, step: Any) -> Any:
        part = ops.divide(_time(step), float(self.decay_steps))
        part = ops.floor(part) if self.staircase else part
        return ops.multiply(ops.power(self.decay_rate, part), self.initial_learning_rate)


class InverseTimeDecay(LearningRateSchedule):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``.

    Args:
        initial_learning_rate: The rate at the start.
        decay_steps: How many steps count as one.
        decay_rate: How fast it falls.
        staircase: Whether it falls only every ``decay_steps`` steps.
        name: Kept for Keras's signature.
    """

    initial_learning_rate: float
    decay_steps: PositiveInt
    decay_rate: float
    staircase: bool = False
    name: str | None = "InverseTimeDecay"

    def __call__(self, step: Any) -> Any:
        part = ops.divide(_time(step), float(self.decay_steps))
        part = ops.floor(part) if self.staircase else part
        return ops.divide(self.initial_learning_rate, ops.add(ops.multiply(part, self.decay_rate), 1.0))


class PolynomialDecay(LearningRateSchedule):
    """From ``initial_learning_rate`` to ``end_learning_rate`` along ``(1 - step / decay_steps) ** power``.

    Args:
        initial_learning_rate: The rate at the start.
        decay_steps: Steps until the end.
        end_learning_rate: The rate from then on.
        power: 1 is a straight line.
        cycle: Whether to go back, each time the end is reached, to a way twice, three times... as long.
        name: Kept for Keras's signature.
    """

    initial_learning_rate: float
    decay_steps: PositiveInt
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False
    name: str | None = "PolynomialDecay"

    def __call__(self, step: Any) -> Any:
        time, length = _time(step), float(self.decay_steps)
        if self.cycle:
            turns = ops.maximum(ops.ceil(ops.divide(time, length)), 1.0)
            part = ops.divide(time, ops.multiply(turns, length))
        else:
            part = ops.divide(ops.minimum(time, length), length)
        left = ops.power(ops.subtract(1.0, part), self.power)
        return ops.add(ops.multiply(left, self.initial_learning_rate - self.end_learning_rate), self.end_learning_rate)


class PiecewiseConstantDecay(LearningRateSchedule):
    """One rate until each boundary, the last one after it: ``values[i]`` while ``step <= boundaries[i]``.

    Args:
        boundaries: Steps, rising.
        values: Rates, one more than boundaries.
        name: Kept for Keras's signature.

    Raises:
        UnilayersError: if their numbers do not fit.

    Example:
        >>> schedule = PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.1])
        >>> [float(schedule(step)) for step in (0, 10, 11, 25)]
        [1.0, 1.0, 0.5, 0.1]
    """

    boundaries: Sequence[float]
    values: Sequence[float]
    name: str | None = "PiecewiseConstant"

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise UnilayersError(
                "one value more than boundaries is needed", where=type(self).__name__,
                received=f"{len(self.boundaries)} boundaries, {len(self.values)} values",
            )  # fmt: skip

    def __call__(self, step: Any) -> Any:
        time = _time(step)
        rate = ops.full_like(time, float(self.values[-1]))
        for boundary, value in list(zip(self.boundaries, self.values, strict=False))[::-1]:
            rate = ops.where(ops.less_equal(time, float(boundary)), float(value), rate)
        return rate


class CosineDecay(LearningRateSchedule):
    """Half a cosine from ``initial_learning_rate`` (or the target of a warm-up) down to ``alpha`` times that.

    Args:
        initial_learning_rate: The rate at the start.
        decay_steps: Length of the fall.
        alpha: The lowest rate, as a part of the highest.
        name: Kept for Keras's signature.
        warmup_target: The rate at the end of a linear warm-up; None for no warm-up.
        warmup_steps: Length of the warm-up, which comes before the fall.

    Reference:
        Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2016, arXiv:1608.03983.

    Example:
        >>> [round(float(CosineDecay(1.0, 10)(step)), 3) for step in (0, 5, 10, 15)]
        [1.0, 0.5, 0.0, 0.0]
    """

    initial_learning_rate: float
    decay_steps: PositiveInt
    alpha: float = 0.0
    name: str | None = "CosineDecay"
    warmup_target: float | None = None
    warmup_steps: NonNegativeFloat = 0

    def _fall(self, time: Any, top: float) -> Any:
        part = ops.divide(ops.minimum(time, float(self.decay_steps)), float(self.decay_steps))
        wave = ops.multiply(ops.add(ops.cos(ops.multiply(part, math.pi)), 1.0), 0.5)
        return ops.multiply(ops.add(ops.multiply(wave, 1 - self.alpha), self.alpha), top)

    def __call__(self, step: Any) -> Any:
        time = _time(step)
        if self.warmup_target is None:
            return self._fall(time, self.initial_learning_rate)
        length = float(self.warmup_steps)
        climb = self.warmup_target - self.initial_learning_rate
        rising = ops.add(ops.multiply(ops.divide(time, max(length, 1e-30)), climb), self.initial_learning_rate)
        falling = self._fall(ops.subtract(time, length), self.warmup_target)
        return ops.where(ops.less(time, length), rising, falling)


class CosineDecayRestarts(LearningRateSchedule):
    """Cosine falls one after the other, each longer and lower than the last.

    Args:
        initial_learning_rate: The rate at the start.
        first_decay_steps: Length of the first fall.
        t_mul: Each fall is so many times as long as the one before.
        m_mul: Each fall begins at so many times the rate of the one before.
        alpha: The lowest rate, as a part of ``initial_learning_rate``.
        name: Kept for Keras's signature.

    Reference:
        Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2016, arXiv:1608.03983.
    """

    initial_learning_rate: float
    first_decay_steps: PositiveInt
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: str | None = "SGDRDecay"

    def __call__(self, step: Any) -> Any:
        done = ops.divide(_time(step), float(self.first_decay_steps))
        if self.t_mul == 1.0:
            turn = ops.floor(done)
            part = ops.subtract(done, turn)
        else:
            grown = ops.log(ops.add(ops.multiply(done, self.t_mul - 1), 1.0))
            turn = ops.floor(ops.divide(grown, math.log(self.t_mul)))
            length = ops.power(self.t_mul, turn)
            before = ops.divide(ops.subtract(length, 1.0), self.t_mul - 1)
            part = ops.divide(ops.subtract(done, before), length)
        wave = ops.multiply(ops.add(ops.cos(ops.multiply(part, math.pi)), 1.0), 0.5)
        height = ops.multiply(ops.multiply(wave, ops.power(self.m_mul, turn)), 1 - self.alpha)
        return ops.multiply(ops.add(height, self.alpha), self.initial_learning_rate)
