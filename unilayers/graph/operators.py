"""Python's operators and common array methods for all that ops accept: symbolic values, boxed arrays, variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _binary(name: str, swapped: bool = False) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        from unilayers import ops  # here, since ops are built on this module

        function = getattr(ops, name)
        return function(other, self) if swapped else function(self, other)

    return method


def _unary(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        from unilayers import ops

        return getattr(ops, name)(self, *args, **kwargs)

    return method


class Operators:
    """Mixin: ``x + y``, ``x @ w``, ``x[...]``, ``x.reshape(...)`` and so on call the op of that name."""

    __slots__ = ()
    __array_priority__ = 1000  # so that numpy_array + value comes to us

    __add__, __radd__ = _binary("add"), _binary("add", swapped=True)
    __sub__, __rsub__ = _binary("subtract"), _binary("subtract", swapped=True)
    __mul__, __rmul__ = _binary("multiply"), _binary("multiply", swapped=True)
    __truediv__, __rtruediv__ = _binary("divide"), _binary("divide", swapped=True)
    __floordiv__, __rfloordiv__ = _binary("floor_divide"), _binary("floor_divide", swapped=True)
    __mod__, __rmod__ = _binary("remainder"), _binary("remainder", swapped=True)
    __pow__, __rpow__ = _binary("power"), _binary("power", swapped=True)
    __matmul__, __rmatmul__ = _binary("matmul"), _binary("matmul", swapped=True)
    __and__, __rand__ = _binary("bitwise_and"), _binary("bitwise_and", swapped=True)
    __or__, __ror__ = _binary("bitwise_or"), _binary("bitwise_or", swapped=True)
    __xor__, __rxor__ = _binary("bitwise_xor"), _binary("bitwise_xor", swapped=True)
    __lshift__, __rshift__ = _binary("bitwise_left_shift"), _binary("bitwise_right_shift")
    __lt__, __le__ = _binary("less"), _binary("less_equal")
    __gt__, __ge__ = _binary("greater"), _binary("greater_equal")
    __neg__, __abs__, __invert__ = _unary("negative"), _unary("abs"), _unary("bitwise_invert")
    __getitem__ = _unary("getitem")

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> Any:
        """TensorFlow asks for this in ``tensor * value``. It may not read the numbers by itself, as no tape would see
        it: refused, it hands the operation over to ``value.__rmul__(tensor)``, as other engines do unasked."""
        raise TypeError(f"{type(self).__name__} is not a TensorFlow tensor")

    sum, mean, max, min = _unary("sum"), _unary("mean"), _unary("max"), _unary("min")
    astype, reshape = _unary("astype"), _unary("reshape")
    # == and hash stay Python's identity, since values are dictionary keys; ops.equal compares elements.
