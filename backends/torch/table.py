"""Op name to PyTorch function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unilayers.graph.emit import Made, Overwriting
from unilayers.graph.loops import python_loops
from unilayers.ops.sorting import empty_segment
from unilayers.spec import dtype_name

from . import neural, recurrent, updates, windows
from .fuse import VIEWS
from .linalg import DECOMPOSITIONS

SAME_NAME = (
    "add floor_divide remainder maximum minimum logical_and logical_or logical_xor logical_not bitwise_and bitwise_or "
    "bitwise_xor bitwise_left_shift bitwise_right_shift isnan isinf isfinite abs floor ceil round exp expm1 log log1p "
    "sqrt rsqrt square reciprocal sin cos tan asin acos atan atan2 sinh cosh tanh erf matmul"
)
RENAMED = {
    "subtract": "sub", "multiply": "mul", "divide": "div", "power": "pow", "negative": "neg",
    "bitwise_invert": "bitwise_not", "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le",
    "greater": "gt", "greater_equal": "ge"
}  # fmt: skip

# ---- where PyTorch's own function differs ---------------------------------


def sign(x: Tensor) -> Tensor:
    """torch.sign(nan) is 0, which would hide a NaN."""
    return torch.where(x != x, x, torch.sign(x)) if x.is_floating_point() else torch.sign(x)


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """On the CPU torch.where branches at each element; picking by bits, b ^ (a ^ b) & mask, is five times faster."""
    plain = condition.shape == a.shape and b.shape in (a.shape, ()) and a.numel() > 4096
    if not plain or not a.is_cpu or not torch.is_inference_mode_enabled():  # autograd cannot follow bits
        return torch.where(condition, a, b)
    integer = _BITS[a.element_size()]
    mask, bits = astype(condition, integer).neg_(), b.view(integer)
    return mask.bitwise_and_(bits ^ a.view(integer)).bitwise_xor_(bits).view(a.dtype)


def astype(x: Tensor, dtype: Any) -> Tensor:
    """torch converts bools six times slower than the bytes they are."""
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return (x.view(torch.uint8) if x.dtype == torch.bool and dtype != torch.bool else x).to(dtype)


def over_axes(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reduction; PyTorch reads no axes as all of them."""

    def reduce(x: Tensor, axis: Sequence[int], keepdims: bool) -> Tensor:
        return function(x, axis, keepdims) if axis else x.clone()

    return reduce


def sum_(x: Tensor, axis: Sequence[int], keepdims: bool) -> Tensor:
    """PyTorch sums integers in int64 unless told."""
    return torch.sum(x, axis, keepdims, dtype=x.dtype)


def prod(x: Tensor, axis: Sequence[int], keepdims: bool) -> Tensor:
    """torch.prod takes one axis at a time."""
    for a in reversed(axis):
        x = torch.prod(x, a, keepdims, dtype=x.dtype)
    return x


# ---- shapes and indices ---------------------------------------------------


def slice_(x: Tensor, start: Sequence[int], stop: Sequence[int], step: Sequence[int]) -> Tensor:
    return x[tuple(map(slice, start, stop, step))]


def pad(x: Tensor, low: Sequence[int], high: Sequence[int], interior: Sequence[int], value: float) -> Tensor:
    """torch pads edges only, so what lies between neighbours is filled first."""
    if any(interior):
        wide = x.new_full([d + max(0, d - 1) * i for d, i in zip(x.shape, interior, strict=True)], value)
        wide[tuple(slice(None, None, i + 1) for i in interior)] = x
        x = wide
    edges = [n for pair in zip(reversed(low), reversed(high), strict=True) for n in pair]  # last axis first
    return torch.constant_pad_nd(x, edges, value)


def flat_index(indices: Tensor) -> Tensor:
    """torch indexes by int32 and int64 only."""
    indices = indices.reshape(-1)
    return indices if indices.dtype in (torch.int32, torch.int64) else indices.int()


def take(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    rows = torch.index_select(x, axis, flat_index(indices))
    return rows.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def segment_reduce(data: Tensor, segment_ids: Tensor, kind: str, size: int) -> Tensor:
    y = data.new_full((size, *data.shape[1:]), empty_segment(kind, dtype_name(data.dtype)))
    places = segment_ids.long().reshape(-1, *(1,) * (data.ndim - 1)).expand_as(data)
    return y.scatter_reduce(0, places, data, {"max": "amax", "min": "amin", "prod": "prod"}[kind])


def take_grad(g: Tensor, indices: Tensor, axis: int, size: int) -> Tensor:
    rest = g.shape[axis + indices.ndim :]
    rows = g.reshape(*g.shape[:axis], indices.numel(), *rest)
    return g.new_zeros((*g.shape[:axis], size, *rest)).index_add_(axis, flat_index(indices), rows)


# ---- constants of bodies ----------------------------------------------------


def tensor(a: np.ndarray) -> Tensor:
    """A copy on the CPU."""
    own = np.array(a, order="C")  # a private copy: from_numpy shares memory
    if own.dtype.kind == "V" and own.dtype.name == "bfloat16":  # not a dtype of NumPy's own, so torch knows it not
        return torch.from_numpy(own.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(own)


def constant(a: np.ndarray, device: torch.device) -> Tensor:
    """Autograd, too, may meet it: a body is compiled where it first runs, and kept."""
    with torch.inference_mode(False):
        return tensor(a).to(device)


# ---- the table ------------------------------------------------------------

TABLE: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in SAME_NAME.split()},
    **{name: getattr(torch, theirs) for name, theirs in RENAMED.items()},
    "sign": sign,
    "sum": over_axes(sum_),
    "prod": over_axes(prod),
    "max": over_axes(torch.amax),
    "min": over_axes(torch.amin),
    "any": over_axes(torch.any),
    "all": over_axes(torch.all),
    "argmax": lambda x, axis: torch.argmax(x, axis).int(),
    "argmin": lambda x, axis: torch.argmin(x, axis).int(),
    "where": where,
    "astype": astype,
    "identity": torch.clone,
    "stop_gradient": lambda x: x,
    "reshape": lambda x, shape: x.reshape(shape),
    "permute_dims": lambda x, axes: x.permute(axes),
    "broadcast_to": lambda x, shape: x.expand(shape),
    "concat": lambda *xs, axis: torch.cat(xs, axis),
    "slice": slice_,
    "pad": pad,
    "flip": lambda x, axes: torch.flip(x, axes),
    "take": take,
    "take_grad": take_grad,
    "take_along_axis": lambda x, indices, axis: torch.gather(x, axis, indices.long()),
    "argsort": lambda x, axis: torch.argsort(x, dim=axis, stable=True).int(),
    "segment_reduce": segment_reduce,
    "conv": Made(windows.conv_with),
    "conv_input_grad": Made(windows.conv_input_grad_with),
    "conv_kernel_grad": Made(windows.conv_kernel_grad_with),
    "max_pool": Made(windows.max_pooling),
    "max_pool_grad": windows.max_pool_grad,
    "avg_pool": windows.avg_pool,
    "avg_pool_grad": windows.avg_pool_grad,
    **DECOMPOSITIONS,
    # Composite ops as one kernel.
    **neural.TABLE,
    "relu": torch.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x, negative_slope: F.leaky_relu(x, negative_slope),
    "hard_sigmoid": F.hardsigmoid,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x: F.softplus(x, threshold=50.0),  # beyond the default of 20 it would be off by 1e-10
    "gelu": lambda x, approximate: F.gelu(x, approximate="tanh" if approximate else "none"),
    "silu": F.silu,
    "softmax": lambda x, axis: torch.softmax(x, axis),
    "log_softmax": lambda x, axis: torch.log_softmax(x, axis),
    **{op.__name__: op for op in (recurrent.lstm, recurrent.lstm_grad, recurrent.gru, recurrent.gru_grad)},
    "sgd_update": updates.keeping(Made(updates.sgd_updating), scalars=1),
    "adam_update": updates.keeping(Made(updates.adam_updating), scalars=2),
}

# Some of TABLE's functions, written into the operands, with the numbers of those.
OVERWRITING: Overwriting = {
    "sgd_update": (Made(updates.sgd_updating), updates.overwritten(scalars=1)),
    "adam_update": (Made(updates.adam_updating), updates.overwritten(scalars=2)),
}

TABLE |= {
    "barrier": lambda x, *after: x,
    **python_loops(TABLE, constant, Tensor.item, lambda x: x.device, torch.unbind, torch.stack, VIEWS),
}
