"""Penalties on weights, added to the training loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.hints import NonNegativeFloat
from unilayers.ops import dtype_of, shape_of
from unilayers.registry import Configurable, deserializer, resolve
from unilayers.registry import serialize as serialize

EPSILON = 1e-7  # Keras's fuzz factor: shorter rows are not stretched to norm 1


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


deserialize = deserializer(get)


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


class OrthogonalRegularizer(Regularizer):
    """``factor`` times the mean of ``abs(cosine)`` over all pairs of rows: draws them to be orthogonal.

    A row of zeros is orthogonal to all. A weight of one row, which has no pairs, costs 0 (NaN in Keras).

    Args:
        factor: Factor.
        mode: Whether the pairs are of rows or of columns.

    Raises:
        ShapeError: if the weight is not a matrix.

    Example:
        >>> import numpy as np
        >>> float(OrthogonalRegularizer(1.0)(np.array([[1.0, 0.0], [3.0, 4.0]])).round(4))
        0.6
    """

    factor: NonNegativeFloat = 0.01
    mode: Literal["rows", "columns"] = "rows"

    def __call__(self, x: Any) -> Any:
        shape = shape_of(x)
        if len(shape) != 2:
            raise ShapeError("not a matrix", where=repr(self), expected="two axes", received=str(tuple(shape)))
        axis = 1 if self.mode == "rows" else 0
        unit = ops.unit_norm(x, axis, EPSILON)
        turned = ops.permute_dims(unit, (1, 0))
        cosines = ops.matmul(unit, turned) if axis else ops.matmul(turned, unit)
        size = int(shape[1 - axis])  # type: ignore[arg-type]  # weights have no symbolic sizes
        others = (1 - np.eye(size)).astype(dtype_of(x))
        return ops.multiply(ops.sum(ops.multiply(ops.abs(cosines), others)), self.factor / max(size * (size - 1), 1))


# The names that Keras has beside those of the classes.
l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer


class _Function(Regularizer):
    """A plain function of the weight as a regularizer."""

    function: Callable[..., Any]

    def __call__(self, x: Any) -> Any:
        return self.function(x)
