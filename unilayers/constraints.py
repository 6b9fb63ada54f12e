"""Constraints on weights: where an update has moved a weight to, and where it may be.

``constraint(w)`` gives the nearest allowed weight, or one like it, in w's shape and dtype. It is applied to the whole
weight after each update; no gradient flows through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from unilayers import ops
from unilayers.hints import NonNegativeFloat, Probability
from unilayers.ops import shape_of
from unilayers.registry import Configurable, deserializer, resolve
from unilayers.registry import serialize as serialize
from unilayers.spec import normalize_axes

EPSILON = 1e-7  # Keras's fuzz factor, added to norms before a division by them

Axis: TypeAlias = int | Sequence[int]


class Constraint(Configurable, family="constraint", immutable=True):
    """Base class: ``constraint(weight)`` is the weight that takes its place.

    Example:
        >>> import numpy as np
        >>> class AtMostOne(Constraint):
        ...     def __call__(self, w):
        ...         return ops.minimum(w, 1.0)
        >>> AtMostOne()(np.array([0.5, 3.0]))
        array([0.5, 1. ])
    """

    def __call__(self, w: Any) -> Any:
        """The weight as the constraint allows it, in w's shape and dtype."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(w)")


def get(identifier: Any, *, where: str = "") -> Constraint | None:
    """The constraint for a name, ``{name: arguments}``, a class, an instance, a function of the weight, or None.

    Example:
        >>> get("non_neg"), get({"MaxNorm": {"max_value": 3}})
        (NonNeg(), MaxNorm(max_value=3))
    """
    return resolve(Constraint.registry, identifier, where=where, wrap=_Function)


deserialize = deserializer(get)


class NonNeg(Constraint):
    """Negative weights become 0.

    Example:
        >>> import numpy as np
        >>> NonNeg()(np.array([-1.0, 2.0]))
        array([0., 2.])
    """

    def __call__(self, w: Any) -> Any:
        return ops.maximum(w, 0.0)


class MinMaxNorm(Constraint):
    """The norms of vectors of weights stay between two limits.

    With a rate below 1 only this part of the way back is gone at each update. As in Keras, 1e-7 is added to the norm
    that is divided by: a vector of zeros stays as it is, and one within the limits shrinks by about 1e-7 / norm.

    Args:
        min_value: The smallest norm.
        max_value: The largest norm.
        rate: How much of the way back to the limit is gone.
        axis: The axis, or axes, along which the norm is taken: 0, the inputs, for the kernel of a dense layer;
            ``(0, 1, 2)`` for that of a two-dimensional convolution.

    Example:
        >>> import numpy as np
        >>> MinMaxNorm(1.0, 2.0)(np.array([[3.0, 0.0], [4.0, 0.5]])).round(4)
        array([[1.2, 0. ],
               [1.6, 1. ]])
    """

    min_value: NonNegativeFloat = 0.0
    max_value: NonNegativeFloat = 1.0
    rate: Probability = 1.0
    axis: Axis = 0

    def __call__(self, w: Any) -> Any:
        norms = _norms(w, self.axis)
        desired = ops.clip(norms, minimum=float(self.min_value), maximum=float(self.max_value))
        if self.rate != 1:
            desired = ops.add(ops.multiply(desired, self.rate), ops.multiply(norms, 1 - self.rate))
        return _scaled(w, desired, norms)


class MaxNorm(Constraint):
    """Vectors of weights with a greater norm are scaled down to it.

    As in Keras, 1e-7 is added to the norm that is divided by, so that a vector within the limit shrinks by about
    1e-7 / norm.

    Args:
        max_value: The largest norm.
        axis: The axis, or axes, along which the norm is taken; see `MinMaxNorm`.

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, Dropout, 2014, section 5.1.

    Example:
        >>> import numpy as np
        >>> MaxNorm(2.0)(np.array([[3.0, 0.6], [4.0, 0.8]])).round(4)
        array([[1.2, 0.6],
               [1.6, 0.8]])
    """

    max_value: NonNegativeFloat = 2
    axis: Axis = 0

    def __call__(self, w: Any) -> Any:
        norms = _norms(w, self.axis)
        return _scaled(w, ops.minimum(norms, float(self.max_value)), norms)


class UnitNorm(Constraint):
    """Vectors of weights are scaled to norm 1; a vector of zeros stays as it is.

    Args:
        axis: The axis, or axes, along which the norm is taken; see `MinMaxNorm`.

    Example:
        >>> import numpy as np
        >>> UnitNorm()(np.array([[3.0, 0.0], [4.0, 0.0]])).round(4)
        array([[0.6, 0. ],
               [0.8, 0. ]])
    """

    axis: Axis = 0

    def __call__(self, w: Any) -> Any:
        return ops.divide(w, ops.add(_norms(w, self.axis), EPSILON))


# The names that Keras has beside those of the classes.
max_norm, min_max_norm, non_neg, unit_norm = MaxNorm, MinMaxNorm, NonNeg, UnitNorm


class _Function(Constraint):
    """A plain function of the weight as a constraint."""

    function: Callable[..., Any]

    def __call__(self, w: Any) -> Any:
        return self.function(w)


def _norms(w: Any, axis: Axis) -> Any:
    return ops.sqrt(ops.sum(ops.square(w), normalize_axes(axis, len(shape_of(w))), keepdims=True))


def _scaled(w: Any, desired: Any, norms: Any) -> Any:
    return ops.multiply(w, ops.divide(desired, ops.add(norms, EPSILON)))
