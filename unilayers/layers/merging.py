"""Layers that make one value of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from string import ascii_letters
from typing import Any, ClassVar

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.layers.base import Layer
from unilayers.spec import normalize_axis, public_shape


class Merge(Layer, abstract=True):
    """Base of the layers on a list of inputs; here those that combine elements with equal places.

    Shapes: all inputs have one shape, or broadcast: sizes of 1 stretch, and axes that are missing are inserted after
    the batch.

    Raises:
        ShapeError: if the input is no list, or the shapes do not fit.
    """

    combine: ClassVar[Callable[[Any, Any], Any]]

    def check_input(self, x: Any) -> None:
        if not isinstance(x, (list, tuple)) or not x:
            raise ShapeError(
                "needs a list of inputs",
                received="an empty list" if isinstance(x, (list, tuple)) else "one value",
                fix="Call the layer on [a, b]",
            )

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """A step is there if it is in any input; no mask if an input has none."""
        return None if any(m is None for m in previous_mask) else reduce(ops.logical_or, previous_mask)

    def call(self, inputs: Sequence[Any]) -> Any:
        return reduce(type(self).combine, _aligned(inputs))


def _aligned(inputs: Sequence[Any]) -> list[Any]:
    """The inputs with equally many axes: those that are missing come after the batch."""
    shapes = [ops.shape_of(x) for x in inputs]
    axes = max(map(len, shapes))
    return [
        x if len(s) == axes else ops.reshape(x, (s[0], *(1,) * (axes - len(s)), *s[1:]))
        for x, s in zip(inputs, shapes, strict=True)
    ]


def _require_two(x: Sequence[Any]) -> None:
    if len(x) != 2:
        raise ShapeError("needs two inputs", received=str(len(x)))


class Add(Merge):
    """The sum of the inputs, element by element. Shapes as of ``Merge``.

    Example:
        >>> import numpy as np
        >>> Add()([np.float32([1, 2]), np.float32([10, 20]), np.float32([100, 200])])
        array([111., 222.], dtype=float32)
    """

    combine = ops.add


class Multiply(Merge):
    """The product of the inputs, element by element. Shapes as of ``Merge``.

    Example:
        >>> import numpy as np
        >>> Multiply()([np.float32([1, 2]), np.float32([10, 20])])
        array([10., 40.], dtype=float32)
    """

    combine = ops.multiply


class Maximum(Merge):
    """The largest of the inputs, element by element; ties share the gradient equally. Shapes as of ``Merge``.

    Example:
        >>> import numpy as np
        >>> Maximum()([np.float32([1, 5]), np.float32([3, 2])])
        array([3., 5.], dtype=float32)
    """

    combine = ops.maximum


class Minimum(Merge):
    """The smallest of the inputs, element by element; ties share the gradient equally. Shapes as of ``Merge``.

    Example:
        >>> import numpy as np
        >>> Minimum()([np.float32([1, 5]), np.float32([3, 2])])
        array([1., 2.], dtype=float32)
    """

    combine = ops.minimum


class Average(Merge):
    """The mean of the inputs, element by element. Shapes as of ``Merge``.

    Example:
        >>> import numpy as np
        >>> Average()([np.float32([1, 5]), np.float32([3, 2])])
        array([2. , 3.5], dtype=float32)
    """

    combine = ops.add

    def call(self, inputs: Sequence[Any]) -> Any:
        return ops.divide(super().call(inputs), len(inputs))


class Subtract(Merge):
    """The first of two inputs minus the second. Shapes as of ``Merge``.

    Raises:
        ShapeError: if there are not two inputs.

    Example:
        >>> import numpy as np
        >>> Subtract()([np.float32([1, 5]), np.float32([3, 2])])
        array([-2.,  3.], dtype=float32)
    """

    combine = ops.subtract

    def check_input(self, x: Any) -> None:
        super().check_input(x)
        _require_two(x)


class Concatenate(Merge):
    """The inputs one after the other along an axis.

    Shapes: equal except along ``axis``, where the sizes add up.

    Args:
        axis: The axis, the batch being 0.

    Raises:
        ShapeError: if the input is no list, or another axis differs.

    Example:
        >>> import numpy as np
        >>> Concatenate()([np.ones((2, 3), "float32"), np.ones((2, 1), "float32")]).shape
        (2, 4)
    """

    axis: int = -1

    def check_input(self, x: Any) -> None:
        super().check_input(x)
        shapes = [public_shape(ops.shape_of(value)) for value in x]
        if len(set(map(len, shapes))) > 1:
            raise ShapeError("inputs have different numbers of axes", received=", ".join(map(str, shapes)))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """A step is there if any of its features is; all steps of an input without a mask are."""
        masks = [_wide_mask(x, m) for x, m in zip(inputs, previous_mask, strict=True)]
        return ops.any(ops.concat(masks, self.axis), -1)

    def call(self, inputs: Sequence[Any]) -> Any:
        return ops.concat(inputs, self.axis)


def _wide_mask(x: Any, mask: Any) -> Any:
    """The mask in the shape of x."""
    if mask is None:
        return ops.ones_like(x, "bool")
    missing = len(ops.shape_of(x)) - len(ops.shape_of(mask))
    return ops.broadcast_to(ops.expand_dims(mask, -1) if missing else mask, ops.shape_of(x))


class Dot(Merge):
    """The sums of the products of two inputs along an axis of each, sample by sample.

    Shapes: x ``(batch, ...)`` and y ``(batch, ...)`` -> ``(batch, *rest of x, *rest of y)``, the axes that are summed
    left out; ``(batch, 1)`` if nothing else is left.

    Args:
        axes: The axis of both, or one each; the batch is axis 0 and stays.
        normalize: Whether to bring vectors along the axes to length 1 first: the result is then their cosine.

    Raises:
        ShapeError: if there are not two inputs, or the sizes along the axes differ.

    Example:
        >>> import numpy as np
        >>> Dot(axes=1)([np.float32([[1, 2], [3, 4]]), np.float32([[10, 20], [30, 40]])])
        array([[ 50.],
               [250.]], dtype=float32)
    """

    axes: int | tuple[int, int]
    normalize: bool = False

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None

    def check_input(self, x: Any) -> None:
        super().check_input(x)
        _require_two(x)
        for axis, value in zip(self._axes(x), x, strict=True):
            if axis == 0:
                raise ShapeError("the batch cannot be summed over", expected="axes from 1", received=str(self.axes))
            self.require_ndim(value, at_least=2)

    def _axes(self, inputs: Sequence[Any]) -> list[int]:
        axes = (self.axes, self.axes) if isinstance(self.axes, int) else self.axes
        return [normalize_axis(a, len(ops.shape_of(x))) for a, x in zip(axes, inputs, strict=True)]

    def call(self, inputs: Sequence[Any]) -> Any:
        axes, counts = self._axes(inputs), [len(ops.shape_of(x)) for x in inputs]
        a, b = [ops.unit_norm(x, axis) for x, axis in zip(inputs, axes, strict=True)] if self.normalize else inputs
        letters = iter(ascii_letters)
        terms = [[next(letters) for _ in range(n)] for n in counts]
        terms[1][0], terms[1][axes[1]] = terms[0][0], terms[0][axes[0]]
        rest = [c for term, axis in zip(terms, axes, strict=True) for i, c in enumerate(term) if i not in (0, axis)]
        y = ops.einsum(f"{''.join(terms[0])},{''.join(terms[1])}->{''.join([terms[0][0], *rest])}", a, b)
        return y if rest else ops.expand_dims(y, 1)


# ---- functional forms -------------------------------------------------------


def _function(layer: type[Merge], name: str) -> Callable[..., Any]:
    """``add(inputs, **kwargs)`` for ``Add(**kwargs)(inputs)``."""

    def function(inputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        return layer(*args, **kwargs)(inputs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{layer.__name__}(...)(inputs)``; further arguments are the layer's."
    return function


add = _function(Add, "add")
subtract = _function(Subtract, "subtract")
multiply = _function(Multiply, "multiply")
average = _function(Average, "average")
maximum = _function(Maximum, "maximum")
minimum = _function(Minimum, "minimum")
concatenate = _function(Concatenate, "concatenate")


def dot(inputs: Sequence[Any], axes: int | tuple[int, int] = -1, **kwargs: Any) -> Any:
    """``Dot(axes, ...)(inputs)``; further arguments are the layer's."""
    return Dot(axes, **kwargs)(inputs)
