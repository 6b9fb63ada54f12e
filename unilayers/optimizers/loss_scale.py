"""Loss scaling, which keeps small gradients in the range of float16."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from unilayers import ops
from unilayers.hints import PositiveFloat, PositiveInt
from unilayers.optimizers.base import Optimizer, get
from unilayers.variable import Variable

OptimizerLike = Optimizer | str | Mapping[str, Any]


class LossScaleOptimizer(Optimizer):
    """Another optimizer, for gradients computed in float16: the loss is multiplied by a scale before it is
    differentiated, so that small gradients do not become zero, and the gradients are divided by it.

    The scale is found on the way. A step with a gradient that is not finite is left out, and the scale is halved; after
    ``dynamic_growth_steps`` good steps in turn it is doubled. ``compile`` puts one around the optimizer of a model with
    the policy ``mixed_float16``. In a ``train_step`` of your own, differentiate ``optimizer.scale_loss(loss)``.

    Args:
        inner_optimizer: What updates the weights: an object, a name or ``{name: arguments}``. Clipping, decay and so on
            are its own; its ``loss_scale_factor`` is set to None.
        initial_scale: The scale at the start; better too high than too low, as it falls fast and grows slowly.
        dynamic_growth_steps: After so many good steps in turn the scale is doubled.
        name: The class's name in snake_case if None.

    Reference:
        Micikevicius et al., Mixed Precision Training, 2018, arXiv 1710.03740.

    Example:
        >>> import numpy as np
        >>> v, optimizer = Variable(np.ones(1)), LossScaleOptimizer("sgd", initial_scale=8.0)
        >>> for g in (8.0, np.inf):
        ...     optimizer.apply([np.array([g], "float32")], [v])
        >>> v.numpy(), float(optimizer.dynamic_scale), int(optimizer.iterations)
        (array([0.99], dtype=float32), 4.0, 1)
    """

    def __init__(
        self,
        inner_optimizer: OptimizerLike,
        initial_scale: PositiveFloat = 2.0**15,
        dynamic_growth_steps: PositiveInt = 2000,
        name: str | None = None,
    ) -> None:
        inner = get(inner_optimizer, where="LossScaleOptimizer.inner_optimizer")
        assert inner is not None
        self.inner_optimizer = inner
        super().__init__(inner.learning_rate, use_ema=inner.use_ema, name=name)
        inner.loss_scale_factor = None
        self.initial_scale, self.dynamic_growth_steps = float(initial_scale), dynamic_growth_steps
        self._iterations = inner._iterations
        self.dynamic_scale = Variable(
            self.initial_scale, (), "float32", False, name="scale", path="optimizer/dynamic_scale"
        )
        self.step_counter = Variable(0, (), "int32", False, name="step_counter", path="optimizer/step_counter")

    def _read_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    def _write_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    # ---- state

    def build(self, variables: Iterable[Variable]) -> None:
        """Create the inner optimizer's state for these variables; see ``Optimizer.build``."""
        self.inner_optimizer.build(variables)
        self.built = True

    def extend(self, variables: Iterable[Variable]) -> None:
        """Create the inner optimizer's state for further variables."""
        self.inner_optimizer.extend(variables)

    @property
    def variables(self) -> list[Variable]:
        """The inner optimizer's variables, the scale, and the count of good steps; none before ``build``."""
        inner = self.inner_optimizer.variables
        return [*inner, self.dynamic_scale, self.step_counter] if inner else []

    def exclude_from_weight_decay(
        self, var_list: Iterable[Variable] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Choose weights that do not decay; see ``Optimizer.exclude_from_weight_decay``."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list: Iterable[Variable]) -> None:
        """Put the averages in the place of the weights; see ``Optimizer.finalize_variable_values``."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def swap_averages(self) -> None:
        """Exchange the weights and their averages."""
        self.inner_optimizer.swap_averages()

    # ---- a step

    def scale_loss(self, loss: Any) -> Any:
        """The loss to be differentiated: times the scale."""
        return ops.multiply(loss, self.dynamic_scale)

    def apply(self, grads: Sequence[Any], trainable_variables: Iterable[Variable] | None = None) -> None:
        """Make one step, unless a gradient is not finite; see ``Optimizer.apply``."""
        variables = trainable_variables
        if variables is not None:
            variables = list(variables)
            if not self.built:
                self.build(variables)
        there = [ops.all(ops.isfinite(g)) for g in grads if g is not None]
        finite = reduce(ops.logical_and, there) if there else True
        scale, counter = self.dynamic_scale, self.step_counter

        def update() -> None:
            self.inner_optimizer.apply([None if g is None else ops.divide(g, scale) for g in grads], variables)
            count = ops.add(counter, 1)
            grown = ops.greater_equal(count, self.dynamic_growth_steps)
            counter.assign(ops.where(grown, 0, count))
            scale.assign(ops.where(grown, ops.multiply(scale, 2.0), scale))

        def skip() -> None:
            counter.assign(ops.zeros_like(counter))
            scale.assign(ops.multiply(scale, 0.5))

        ops.cond(finite, update, skip)
