"""Op name to JAX function. Composite ops are left to their expansions, which XLA fuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from unilayers.ops import OPS
from unilayers.ops.sorting import empty_segment

from . import control, windows
from .linalg import DECOMPOSITIONS
from .precision import in_64_bits

SAME_NAME = (
    "add subtract multiply divide floor_divide remainder power maximum minimum equal not_equal less less_equal greater "
    "greater_equal logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_invert "
    "bitwise_left_shift bitwise_right_shift isnan isinf isfinite negative abs sign floor ceil round exp expm1 log "
    "log1p sqrt square reciprocal sin cos tan asin acos atan atan2 sinh cosh tanh where reshape permute_dims "
    "broadcast_to"
)


def reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis, keepdims: function(x, axis, keepdims=keepdims)


def accumulation(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction that would widen small integers."""
    return lambda x, axis, keepdims: function(x, axis, x.dtype, keepdims=keepdims)


def pad(x: Any, low: Sequence[int], high: Sequence[int], interior: Sequence[int], value: float) -> Any:
    return lax.pad(x, x.dtype.type(value), list(zip(low, high, interior, strict=True)))


def along(x: Any, indices: Any, axis: int) -> Any:
    """x to be read and changed at indices along an axis, not counted from the end where they are below 0."""
    return x.at[(slice(None),) * axis + (indices,)]


def take(x: Any, indices: Any, axis: int) -> Any:
    """Compiled code cannot raise, so JAX gives NaN (of integers the smallest) for an index that is not there."""
    return along(x, indices, axis).get(mode="fill", wrap_negative_indices=False)


def take_along_axis(x: Any, indices: Any, axis: int) -> Any:
    """As ``take``; one that is below 0 is brought above the size, as JAX would count it from the end."""
    return jnp.take_along_axis(x, jnp.where(indices < 0, x.shape[axis], indices), axis, mode="fill")


def take_grad(g: Any, indices: Any, axis: int, size: int) -> Any:
    zeros = jnp.zeros((*g.shape[:axis], size, *g.shape[axis + indices.ndim :]), g.dtype)
    return along(zeros, indices, axis).add(g, wrap_negative_indices=False)


def segment_reduce(data: Any, segment_ids: Any, kind: str, size: int) -> Any:
    y = jnp.full((size, *data.shape[1:]), empty_segment(kind, data.dtype.name), data.dtype)
    return getattr(y.at[segment_ids], {"max": "max", "min": "min", "prod": "multiply"}[kind])(data)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(jnp, name) for name in SAME_NAME.split()},
    **{name: reduction(getattr(jnp, name)) for name in ("max", "min", "any", "all")},
    **{name: accumulation(getattr(jnp, name)) for name in ("sum", "prod")},
    "argmax": lambda x, axis: lax.argmax(x, axis, jnp.int32),
    "argmin": lambda x, axis: lax.argmin(x, axis, jnp.int32),
    "rsqrt": lax.rsqrt,
    "erf": lax.erf,
    "astype": lambda x, dtype: x.astype(dtype),
    "identity": jnp.copy,
    "stop_gradient": lax.stop_gradient,
    # In full float32 also on a GPU, as convolution.
    "matmul": lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST),
    "concat": lambda *xs, axis: jnp.concatenate(xs, axis),
    "flip": lambda x, axes: jnp.flip(x, axes),
    "slice": lambda x, start, stop, step: lax.slice(x, start, stop, step),
    "pad": pad,
    "take": take,
    "take_grad": take_grad,
    "take_along_axis": take_along_axis,
    "argsort": lambda x, axis: jnp.argsort(x, axis, stable=True).astype(jnp.int32),
    "segment_reduce": segment_reduce,
    "conv": windows.conv,
    "conv_input_grad": windows.conv_input_grad,
    "conv_kernel_grad": windows.conv_kernel_grad,
    "max_pool": windows.max_pool,
    "max_pool_grad": windows.max_pool_grad,
    "avg_pool": windows.avg_pool,
    "avg_pool_grad": windows.avg_pool_grad,
    **DECOMPOSITIONS,
    "barrier": control.barrier,
}
CONTROL: dict[str, Callable[..., Any]] = {
    "switch": control.switch,
    "while_loop": control.while_loop,
    "scan": control.scan,
}


# Each function as one compiled call, so that an eager op is one, too; in a larger jit they dissolve.
TABLE: dict[str, Callable[..., Any]] = {
    name: in_64_bits(jax.jit(function, static_argnames=tuple(OPS[name].defaults), inline=True))
    for name, function in FUNCTIONS.items()
}
TABLE |= {name: control.with_bodies(name, function, TABLE) for name, function in CONTROL.items()}

# Ops whose result may be an operand itself, where there is nothing to do.
VIEWS = frozenset({"stop_gradient", "reshape", "permute_dims", "broadcast_to", "slice", "astype", "barrier", *CONTROL})
