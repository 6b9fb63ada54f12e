"""What the engines' convolution and pooling share: nothing here depends on a framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

Ints = Sequence[int]
Pairs = Sequence[tuple[int, int]]

_FRONT = {"window": 1, "strides": 1, "dilation": 1, "padding": (0, 0)}  # what an axis of size 1 adds to an attribute


def planar(*places: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function of two or three spatial axes one axis too, by running it as two, the first of size 1.

    Args:
        places: Where that axis goes, in each operand and, last, in the result: 1 in data, 0 in kernels.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def any_rank(*arrays: Any, **attrs: Any) -> Any:
            if len(attrs["strides"]) > 1:
                return function(*arrays, **attrs)
            *operands, result = ((slice(None),) * place for place in places)
            wide = [a[(*before, None)] for a, before in zip(arrays, operands, strict=True)]
            lifted = {k: (_FRONT[k], *v) if k in _FRONT else v for k, v in attrs.items()}
            if "shape" in attrs:
                lifted["shape"] = (*attrs["shape"][: places[-1]], 1, *attrs["shape"][places[-1] :])
            return function(*wide, **lifted)[(*result, 0)]

        return any_rank

    return decorate


def padded_shape(shape: Ints, padding: Pairs) -> tuple[int, ...]:
    """The shape of channels-last data with padding around its spatial axes."""
    return (shape[0], *(d + low + high for d, (low, high) in zip(shape[1:-1], padding, strict=True)), shape[-1])


def inside(shape: Ints, padding: Pairs) -> tuple[slice, ...]:
    """The index of the data of ``shape`` inside what was padded."""
    return (slice(None), *(slice(low, low + d) for d, (low, _) in zip(shape[1:-1], padding, strict=True)))
