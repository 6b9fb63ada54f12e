"""Activation functions by name: thin names over ``ops``, for symbolic values and arrays of every backend alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from unilayers import ops
from unilayers.custom import custom_object
from unilayers.errors import UnilayersError, nearest
from unilayers.registry import deserializer

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

    As in Keras, a ``max_value`` together with a threshold below 0 also cuts off what lies between the two.

    Example:
        >>> import numpy as np
        >>> relu(np.array([-1.0, 2.0, 8.0]), 0.5, max_value=6.0)
        array([-0.5,  2. ,  6. ])
    """
    if threshold == 0:
        if max_value == 6 and not negative_slope:
            return ops.relu6(x)
        y = ops.leaky_relu(x, negative_slope=negative_slope) if negative_slope else ops.relu(x)
        return y if max_value is None else ops.clip(y, maximum=max_value)
    above = x if max_value is None else ops.clip(x, minimum=0.0, maximum=max_value)
    below = ops.multiply(ops.subtract(x, threshold), negative_slope) if negative_slope else 0.0
    return ops.where(ops.less_equal(x, threshold), below, above)  # in this order NaN stays NaN


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x above 0, else ``negative_slope * x``."""
    return ops.leaky_relu(x, negative_slope=negative_slope)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, else ``alpha * (exp(x) - 1)``."""
    return ops.elu(x, alpha=alpha)


def gelu(x: Any, approximate: bool = False) -> Any:
    """x times the normal distribution function of x; ``approximate`` takes its tanh form."""
    return ops.gelu(x, approximate=approximate)


def celu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, else ``alpha * (exp(x / alpha) - 1)``."""
    return ops.celu(x, alpha=alpha)


def squareplus(x: Any, b: float = 4) -> Any:
    """``(x + sqrt(x**2 + b)) / 2``: a smooth relu."""
    return ops.squareplus(x, b=b)


def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x where ``abs(x)`` is above the threshold, else 0."""
    return ops.hard_shrink(x, threshold=threshold)


def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x moved towards 0 by the threshold, and 0 within it."""
    return ops.soft_shrink(x, threshold=threshold)


def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """x above the threshold, else ``default_value``.

    Example:
        >>> import numpy as np
        >>> threshold(np.array([-1.0, 2.0, 8.0]), 2.0, -3.0)
        array([-3., -3.,  8.])
    """
    return ops.threshold(x, threshold=threshold, default_value=default_value)


# ---- functions of x alone, or of an axis: the ops themselves ------------------------

exponential = ops.exponential
glu = ops.glu
hard_sigmoid = ops.hard_sigmoid
hard_silu = hard_swish = ops.hard_silu
hard_tanh = ops.hard_tanh
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
sparse_plus = ops.sparse_plus
sparse_sigmoid = ops.sparse_sigmoid
sparsemax = ops.sparsemax
tanh = ops.tanh
tanh_shrink = ops.tanh_shrink

BUILTIN: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        celu, elu, exponential, gelu, glu, hard_shrink, hard_sigmoid, hard_silu, hard_tanh, leaky_relu, linear,
        log_sigmoid, log_softmax, mish, relu, relu6, selu, sigmoid, silu, soft_shrink, softmax, softplus, softsign,
        sparse_plus, sparse_sigmoid, sparsemax, squareplus, tanh, tanh_shrink, threshold,
    )
} | {"hard_swish": hard_silu, "swish": silu}  # fmt: skip
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
        found = custom_object(identifier) or BUILTIN.get(identifier) or BUILTIN.get(identifier.lower())
        found = found or _registered.get(identifier)
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


def serialize(activation: Callable[..., Any]) -> Any:
    """What ``get`` finds the activation by: a name, under which a function of your own is registered.

    Raises:
        UnilayersError: for a lambda or a function inside another, which has no name of its own.

    Example:
        >>> serialize(relu)
        'relu'
    """
    kept = nameable(activation)
    return kept if isinstance(kept, str) else name_of(register(activation))


deserialize = deserializer(get)


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
