"""Penalties on weights, added to the training loss."""

from __future__ import annotations

from typing import Any

from unilayers import ops
from unilayers.hints import NonNegativeFloat
from unilayers.registry import Configurable, resolve


class Regularizer(Configurable, family="regularizer", immutable=True):
    """Base class: ``regularizer(weight)`` is a scalar."""

    def __call__(self, x: Any) -> Any:
        """The penalty of the weight x, as a scalar in x's dtype."""
        raise NotImplementedError


def get(identifier: Any, *, where: str = "") -> Regularizer | None:
    """The regularizer for a name, ``{name: arguments}``, an instance, or None.

    Example:
        >>> get({"L2": {"l2": 0.1}})
        L2(l2=0.1)
    """
    return resolve(Regularizer.registry, identifier, where=where)


class L1(Regularizer):
    """``l1 * sum(abs(x))``.

    Args:
        l1: Factor.
    """

    l1: NonNegativeFloat = 0.01

    def __call__(self, x: Any) -> Any:
        return ops.sum(ops.abs(x)) * self.l1


class L2(Regularizer):
    """``l2 * sum(x**2)``.

    Args:
        l2: Factor.

    Example:
        >>> import numpy as np
        >>> round(float(L2(0.5)(np.array([1.0, 2.0]))), 6)
        2.5
    """

    l2: NonNegativeFloat = 0.01

    def __call__(self, x: Any) -> Any:
        return ops.sum(ops.square(x)) * self.l2


class L1L2(Regularizer, aliases=("l1_l2",)):
    """``l1 * sum(abs(x)) + l2 * sum(x**2)``.

    Args:
        l1: Factor of the first.
        l2: Factor of the second.
    """

    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0

    def __call__(self, x: Any) -> Any:
        return L1(self.l1)(x) + L2(self.l2)(x)
