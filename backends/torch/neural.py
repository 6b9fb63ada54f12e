"""Normalization, attention, cross-entropy and dropout by aten's kernels.

Most have three forms: the op alone; the op that gives, besides, what its gradient needs (``..._kept``); the gradient
from that (``..._from``). A graph with both the op and its gradient runs the last two, see ``fuse``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from unilayers.backends.numpy.backend import TABLE as HOST

from unilayers.graph import OPS, Node
from unilayers.ops.define import name_of

aten = torch.ops.aten
Axes = Sequence[int]

# ---- where a kernel fits --------------------------------------------------------
# The conditions are asked of values when a graph is compiled, and of tensors when an op runs by itself.


def _known(x: Any) -> bool:
    """Whether it has a dtype that all kernels take."""
    return name_of(x.dtype) in ("float32", "float64")


def _one_feature_axis(x: Any, *others: Any, axes: Axes, epsilon: float) -> bool:
    """Whether x, or its gradient, is averaged over all axes but one, and over more than one element."""
    return _known(x) and len(axes) == len(x.shape) - 1 and math.prod(x.shape[a] for a in axes) > 1


def _last_axes(x: Any, *others: Any, axes: Axes, epsilon: float) -> bool:
    return _known(x) and axes[0] == len(x.shape) - len(axes)


def _heads(*operands: Any, count: int = 3, **attrs: Any) -> bool:
    """Whether there is no mask, and queries, keys and values are ``(batch, heads, time, size)`` of one size. (aten
    takes a mask, too, but gives a query that may see nothing a gradient.)"""
    q, k, v = operands[-3:]
    return len(operands) == count and len(q.shape) == 4 and q.shape[:2] == k.shape[:2] and k.shape == v.shape and (
        q.shape[3] == k.shape[3] and 0 not in (*q.shape, *k.shape) and _known(q)
    )  # fmt: skip


def _gradient_of_heads(*operands: Any, **attrs: Any) -> bool:
    return _heads(*operands, count=4, **attrs)


def _anything(*operands: Any, **attrs: Any) -> bool:
    return True


Fits = Callable[..., bool]
# Of the composite ops in the table, those whose kernel does not take everything: what it takes, and whether it runs on
# the CPU only.
FITS: dict[str, tuple[Fits, bool]] = {
    "batch_norm": (_one_feature_axis, False),
    "batch_norm_grad": (_one_feature_axis, False),
    "batch_norm_inference": (_one_feature_axis, False),
    "layer_norm": (_last_axes, False),
    "layer_norm_grad": (_last_axes, False),
    "attention": (_heads, True),
    "attention_grad": (_gradient_of_heads, True),
    "sparse_softmax_cross_entropy": (lambda logits, labels: _known(logits), True),
    "sparse_softmax_cross_entropy_grad": (lambda g, logits, labels: _known(logits), True),
    "random_bits": (_anything, True),
}


def fits(node: Node, device: str) -> bool:
    """Whether the table's function for a node is a kernel, on this device."""
    condition, on_cpu = FITS.get(node.op, (_anything, False))
    return condition(*node.inputs, **node.attrs) and (device == "cpu" or not on_cpu)


def _guarded(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel of an op, which runs as its expansion where it does not fit, and where autograd is to follow it."""
    condition, on_cpu = FITS.get(name, (_anything, False))
    expand: Any = OPS[name].expand

    def call(*operands: Tensor, **attrs: Any) -> Any:
        followed = torch.is_grad_enabled() and any(x.requires_grad for x in operands)
        here = operands[0].is_cpu or not on_cpu
        return (kernel if here and not followed and condition(*operands, **attrs) else expand)(*operands, **attrs)

    return call


# ---- batch normalization ----------------------------------------------------------


def _orders(axes: Axes) -> tuple[Axes, Axes]:
    """The order of axes with the one that is not averaged over in the second place, and the order back."""
    first = list(axes)
    first.insert(1, next(a for a in range(len(axes) + 1) if a not in axes))
    return first, sorted(range(len(first)), key=first.__getitem__)


def batch_norm_keeping(axes: Axes, epsilon: float) -> Callable[..., Any]:
    """y, mean and variance, and 1 / std, as a function of x, gamma and beta.

    aten gives the variance only into a moving one, of which it is everything here, and with one less as its divisor.
    """
    (first, last), normalise = _orders(axes), torch.native_batch_norm

    def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Any:
        moving_mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
        y, mean, inverse = normalise(x.permute(first), gamma, beta, moving_mean, variance, True, 1.0, epsilon)
        count = x.numel() // gamma.numel()
        return y.permute(last), mean, variance.mul_((count - 1) / count), inverse

    return batch_norm


def batch_norm_gradient(axes: Axes, epsilon: float) -> Callable[..., Any]:
    """The gradients to x, gamma and beta, as a function of g, x, gamma, mean and 1 / std."""
    (first, last), backward = _orders(axes), aten.native_batch_norm_backward.default
    rest = True, epsilon, [True, True, True]

    def batch_norm_from(g: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor) -> Any:
        flow = backward(g.permute(first), x.permute(first), gamma, None, None, mean, inverse, *rest)
        return flow[0].permute(last), flow[1], flow[2]

    return batch_norm_from


def batch_norm_grad(g: Tensor, x: Tensor, gamma: Tensor, axes: Axes, epsilon: float) -> Any:
    _, mean, _, inverse = batch_norm_keeping(axes, epsilon)(x, gamma, gamma)
    return batch_norm_gradient(axes, epsilon)(g, x, gamma, mean, inverse)


def batch_norm_inference(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, axes: Axes, epsilon: float
) -> Tensor:
    first, last = _orders(axes)
    return with_statistics(x.permute(first), gamma, beta, mean, variance, epsilon).permute(last)


def with_statistics(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """Batch normalization of the second axis with given statistics."""
    return torch.batch_norm(x, gamma, beta, mean, variance, False, 0.0, epsilon, False)


# ---- layer normalization ------------------------------------------------------------


def layer_norm_kept(x: Tensor, gamma: Tensor, beta: Tensor, axes: Axes, epsilon: float) -> Any:
    """y; and mean and 1 / std."""
    return torch.native_layer_norm(x, gamma.shape, gamma, beta, epsilon)


def layer_norm_from(
    g: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor, axes: Axes, epsilon: float
) -> Any:
    # beta is of gamma's form, and nothing else about it is looked at.
    return aten.native_layer_norm_backward(g, x, gamma.shape, mean, inverse, gamma, gamma, [True, True, True])


def layer_norm_grad(g: Tensor, x: Tensor, gamma: Tensor, axes: Axes, epsilon: float) -> Any:
    _, mean, inverse = layer_norm_kept(x, gamma, gamma, axes, epsilon)
    return layer_norm_from(g, x, gamma, mean, inverse, axes, epsilon)


# ---- attention --------------------------------------------------------------------------


def attention_kept(query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: bool) -> Any:
    """y; and the logarithm of the sum of each row of weights."""
    return aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)


def attention_from(
    g: Tensor, query: Tensor, key: Tensor, value: Tensor, y: Tensor, sums: Tensor, scale: float | None, causal: bool
) -> Any:
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
    return backward(g, query, key, value, y, sums, 0.0, causal, scale=scale)


def attention_grad(g: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: bool) -> Any:
    y, sums = attention_kept(query, key, value, scale, causal)
    return attention_from(g, query, key, value, y, sums, scale, causal)


# ---- cross-entropy ------------------------------------------------------------------------

NO_LABEL = -(1 << 63)  # aten skips this label; others outside of the classes it reports


def losses_kept(logits: Tensor, labels: Tensor) -> Any:
    """The losses; and the logarithms of softmax and the labels, or None for these if some label is no class."""
    rows, places = torch.log_softmax(logits, -1), labels.long()
    if labels.ndim != 1:
        rows, places = rows.reshape(-1, rows.shape[-1]), places.reshape(-1)
    try:
        losses = torch._C._nn.nll_loss(rows, places, None, 0, NO_LABEL)
        return losses if labels.ndim == 1 else losses.reshape(labels.shape), rows, places
    except IndexError:
        expand: Any = OPS["sparse_softmax_cross_entropy"].expand
        return expand(logits, labels), rows, None


def losses_from(g: Tensor, logits: Tensor, labels: Tensor, rows: Tensor, places: Tensor | None) -> Tensor:
    if places is None:
        expand: Any = OPS["sparse_softmax_cross_entropy_grad"].expand
        return expand(g, logits, labels)
    total = rows.new_empty(())  # of which nothing is read
    flat = g if g.ndim == 1 else g.reshape(-1)
    to_logs = aten.nll_loss_backward.default(flat, rows, places, None, 0, NO_LABEL, total)
    found = torch._log_softmax_backward_data(to_logs, rows, 1, rows.dtype)
    return found if g.ndim == 1 else found.reshape(logits.shape)


def losses_grad(g: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    _, rows, places = losses_kept(logits, labels)
    return losses_from(g, logits, labels, rows, places)


# ---- random bits, and masks of them: integer arithmetic, in which NumPy is the faster ----------


def random_bits(counter: Tensor, key: tuple[int, int], shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(HOST["random_bits"](counter.numpy(), key=key, shape=tuple(shape)))


def dropout_mask(
    counter: Tensor, key: tuple[int, int], shape: Sequence[int], least: int, scale: float, dtype: str
) -> Tensor:
    """``scale`` where the random bits are at least ``least``, else 0."""
    bits = random_bits(counter, key, shape)
    if dtype != "float32":
        return (bits >= least).to(getattr(torch, dtype)).mul_(scale)
    # Comparing takes torch longer than this: all bits of a negative difference's sign, and of the scale where it is 0.
    kept = int(np.float32(scale).view(np.int32))
    return bits.sub_(least).bitwise_right_shift_(31).bitwise_not_().bitwise_and_(kept).view(torch.float32)


# ---- all of them ----------------------------------------------------------------------------

KERNELS: dict[str, Callable[..., Any]] = {
    "batch_norm": lambda *x, **attrs: batch_norm_keeping(**attrs)(*x)[:3],
    "batch_norm_grad": batch_norm_grad,
    "batch_norm_inference": batch_norm_inference,
    "layer_norm": lambda *x, **attrs: layer_norm_kept(*x, **attrs)[0],
    "layer_norm_grad": layer_norm_grad,
    "attention": lambda *x, **attrs: attention_kept(*x, **attrs)[0],
    "attention_grad": attention_grad,
    "sparse_softmax_cross_entropy": lambda *x: losses_kept(*x)[0],
    "sparse_softmax_cross_entropy_grad": losses_grad,
    **({"random_bits": random_bits} if sys.byteorder == "little" else {}),  # as NumPy's, whose it is
    "relu_grad": lambda g, y: aten.threshold_backward.default(g, y, 0.0),
    "sigmoid_grad": aten.sigmoid_backward.default,
    "silu_grad": aten.silu_backward.default,
    "gelu_grad": lambda g, x, approximate: aten.gelu_backward(g, x, approximate="tanh" if approximate else "none"),
    "softmax_grad": lambda g, y, axis: torch._softmax_backward_data(g, y, axis, y.dtype),
    "log_softmax_grad": lambda g, y, axis: torch._log_softmax_backward_data(g, y, axis, y.dtype),
}
TABLE = {name: _guarded(name, kernel) for name, kernel in KERNELS.items()}
