"""Activation functions by name: thin names over ``ops``, for symbolic values and arrays of every backend alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from unilayers import ops
from unilayers.errors import UnilayersError, nearest

ActivationLike: TypeAlias = Callable[..., Any] | str | None
F = TypeVar("F", bound=Callable[..., Any])

# ---- functions with arguments -------------------------------------------------


def relu(x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Any:
    """x above the threshold, at most ``max_value``; else ``negative_slope * (x - threshold)``.

    Args:
        x: Any float array or symbolic value.
        negative_slope: Slope below the threshold.
        max_value: Upper limit; None for none.
        threshold: Where the linear part begins.

    Example:
        >>> import numpy as np
        >>> relu(np.array([-1.0, 2.0, 8.0]), 0.5, max_value=6.0)
        array([-0.5,  2. ,  6. ])
    """
    if threshold == 0:
        y = ops.leaky_relu(x, negative_slope=negative_slope) if negative_slope else ops.relu(x)
    else:
        below = ops.multiply(ops.subtract(x, threshold), negative_slope) if negative_slope else ops.zeros_like(x)
        y = ops.where(ops.greater(x, threshold), x, below)
    return y if max_value is None else ops.minimum(y, max_value)


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x above 0, else ``negative_slope * x``."""
    return ops.leaky_relu(x, negative_slope=negative_slope)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, else ``alpha * (exp(x) - 1)``."""
    return ops.elu(x, alpha=alpha)


def gelu(x: Any, approximate: bool = False) -> Any:
    """x times the normal distribution function of x; ``approximate`` takes its tanh form."""
    return ops.gelu(x, approximate=approximate)


# ---- functions of x alone, and softmax: the ops themselves --------------------------

exponential = ops.exponential
hard_sigmoid = ops.hard_sigmoid
linear = ops.linear
log_sigmoid = ops.log_sigmoid
log_softmax = ops.log_softmax
mish = ops.mish
relu6 = ops.relu6
selu = ops.selu
sigmoid = ops.sigmoid
silu = swish = ops.silu
softmax = ops.softmax
softplus = ops.softplus
softsign = ops.softsign
tanh = ops.tanh

BUILTIN: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        elu, exponential, gelu, hard_sigmoid, leaky_relu, linear, log_sigmoid, log_softmax, mish, relu, relu6, selu,
        sigmoid, silu, softmax, softplus, softsign, tanh,
    )
} | {"swish": silu}  # fmt: skip
_registered: dict[str, Callable[..., Any]] = {}  # by "module:function"

# ---- names ------------------------------------------------------------------


def register(function: F) -> F:
    """Make a function of your own known, so that a saved model or a recipe can name it; usable as a decorator.

    Its name is then ``"module:function"``.

    Raises:
        UnilayersError: for a lambda or a function inside another, which has no name of its own.

    Example:
        >>> @register
        ... def squared_relu(x):
        ...     return ops.square(ops.relu(x))
        >>> get(name_of(squared_relu)) is squared_relu
        True
    """
    name = _full_name(function)
    if "<" in name:
        raise UnilayersError(
            "has no name by which it could be found again",
            where=f"activation {name}",
            fix="Define it with def in a module",
        )
    _registered[name] = function
    return function


def get(identifier: ActivationLike, *, where: str = "") -> Callable[..., Any]:
    """The function that ``identifier`` stands for: None is ``linear``, a function is itself.

    Raises:
        UnilayersError: if no activation has that name; says the nearest.

    Example:
        >>> get("relu") is relu, get(None) is linear
        (True, True)
    """
    if identifier is None:
        return linear
    if callable(identifier):
        return identifier
    if isinstance(identifier, str):
        found = BUILTIN.get(identifier) or BUILTIN.get(identifier.lower()) or _registered.get(identifier)
        if found is not None:
            return found
        fix = "Make it known with activations.register" if ":" in identifier else nearest(identifier, BUILTIN)
        raise UnilayersError(f"unknown activation {identifier!r}", where=where, fix=fix)
    raise UnilayersError(
        "not an activation",
        where=where,
        expected="a name or a function",
        received=f"{identifier!r} ({type(identifier).__name__})",
    )


def name_of(function: Callable[..., Any]) -> str:
    """The name by which ``get`` finds the function: ``"relu"``, or ``"module:function"`` for one of your own.

    Example:
        >>> name_of(relu)
        'relu'
    """
    return next((name for name, f in BUILTIN.items() if f is function), _full_name(function))


def nameable(function: Callable[..., Any]) -> ActivationLike:
    """What a layer keeps for a function given to it: a built-in's name, or the function itself, registered if it can
    be, so that the layer's config leads back to it."""
    name = name_of(function)
    if name in BUILTIN:
        return name
    return function if "<" in name else register(function)


def _full_name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', repr(function))}"
