"""Penalties on weights, added to the training loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unilayers import ops
from unilayers.hints import NonNegativeFloat
from unilayers.registry import Configurable, resolve


class Regularizer(Configurable, family="regularizer", immutable=True):
    """Base class: ``regularizer(weight)`` is a scalar.

    Example:
        >>> import numpy as np
        >>> class Largest(Regularizer):
        ...     def __call__(self, x):
        ...         return ops.max(ops.abs(x))
        >>> float(Largest()(np.array([1.0, -3.0])))
        3.0
    """

    def __call__(self, x: Any) -> Any:
        """The penalty of the weight x, as a scalar in x's dtype."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(x)")


def get(identifier: Any, *, where: str = "") -> Regularizer | None:
    """The regularizer for a name, ``{name: arguments}``, a class, an instance, a function of the weight, or None.

    Example:
        >>> get({"L2": {"l2": 0.1}}), get("l1")
        (L2(l2=0.1), L1())
    """
    return resolve(Regularizer.registry, identifier, where=where, wrap=_Function)


class L1(Regularizer):
    """``l1 * sum(abs(x))``: draws weights to 0.

    Args:
        l1: Factor.
    """

    l1: NonNegativeFloat = 0.01

    def __call__(self, x: Any) -> Any:
        return ops.multiply(ops.sum(ops.abs(x)), self.l1)


class L2(Regularizer):
    """``l2 * sum(x**2)``: keeps weights small.

    Args:
        l2: Factor.

    Example:
        >>> import numpy as np
        >>> float(L2(0.5)(np.array([1.0, 2.0])))
        2.5
    """

    l2: NonNegativeFloat = 0.01

    def __call__(self, x: Any) -> Any:
        return ops.multiply(ops.sum(ops.square(x)), self.l2)


class L1L2(Regularizer):
    """``l1 * sum(abs(x)) + l2 * sum(x**2)``.

    Args:
        l1: Factor of the first.
        l2: Factor of the second.
    """

    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0

    def __call__(self, x: Any) -> Any:
        return ops.add(L1(self.l1)(x), L2(self.l2)(x))


class _Function(Regularizer):
    """A plain function of the weight as a regularizer."""

    function: Callable[..., Any]

    def __call__(self, x: Any) -> Any:
        return self.function(x)
