"""Optimizer steps by fused and multi-tensor kernels, written into parameters and slots."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor

from unilayers.graph import OPS, Node

from .layout import like, without_gaps


def overwritten(scalars: int) -> Callable[[Node], Sequence[int]]:
    """For an update op with so many scalars: the operands its outputs go into, which are all tensors but gradients."""

    def written(node: Node) -> Sequence[int]:
        grads = range(scalars + node.attrs["count"], scalars + 2 * node.attrs["count"])
        return [i for i in range(scalars, len(node.inputs)) if i not in grads]

    return written


def keeping(update: Callable[..., Any], scalars: int) -> Callable[..., Any]:
    """The same update on copies: its operands stay as they are."""

    def call(*operands: Tensor, **attrs: Any) -> Any:
        return update(*operands[:scalars], *(x.clone() for x in operands[scalars:]), **attrs)

    return call


def _lists(tensors: Sequence[Tensor], count: int) -> list[list[Tensor]]:
    """Parameters, gradients and each slot."""
    return [list(tensors[i : i + count]) for i in range(0, len(tensors), count)]


def _number(scalar: Tensor) -> Any:
    """A scalar as a Python number, unless asking for it would wait for the device."""
    return scalar.item() if scalar.is_cpu else scalar


def _shrink(params: list[Tensor], learning_rate: Any, weight_decay: float) -> None:
    torch._foreach_mul_(params, 1 - learning_rate * weight_decay)


# ---- what fused kernels take -------------------------------------------------------


class _Fused:
    """The tensors that a fused kernel is to write: looked at only when others come than the last time.

    It takes one dtype, no gaps, and slots that are in memory as their parameter; off the CPU it reads the step size as
    float32.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._known: list[Tensor] = []
        self._strides: list[Any] = []

    def takes(self, tensors: list[Tensor]) -> bool:
        """Whether these parameters and slots go into the kernel."""
        if len(tensors) == len(self._known) and all(map(is_, tensors, self._known)):
            return True
        params, *slots = _lists(tensors, self._count)
        dtypes = {x.dtype for x in tensors}
        known = len(dtypes) == 1 and (params[0].is_cpu or dtypes == {torch.float32})
        alike = all(x.stride() == p.stride() for xs in slots for x, p in zip(xs, params, strict=True))
        if not (known and alike and all(map(without_gaps, params))):
            return False
        self._known, self._strides = tensors, [p.stride() for p in params]
        return True

    def laid(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """Gradients in memory as the parameters are."""
        triples = zip(grads, self._known, self._strides, strict=False)
        return [g if g.stride() == s else like(g, p) for g, p, s in triples]


# ---- SGD ----------------------------------------------------------------------------


def sgd_updating(count: int, momentum: float, nesterov: bool, weight_decay: float) -> Callable[..., Any]:
    """torch's kernel keeps a velocity without the learning rate: v = momentum * v + (1 - dampening) * g, and then
    p -= rate * v. With a rate of -1 and a dampening of 1 + rate it is Keras's."""
    fused = _Fused(count)
    told = {"weight_decay": 0.0, "momentum": momentum, "nesterov": False, "maximize": False, "is_first_step": False}

    def update(learning_rate: Tensor, *tensors: Tensor) -> Any:
        rate, (params, grads, *slots) = _number(learning_rate), _lists(tensors, count)
        if weight_decay:
            _shrink(params, rate, weight_decay)
        if not momentum:
            _descend(params, grads, rate)
            return params
        written = [*params, *slots[0]]
        if not nesterov and params[0].is_cpu and fused.takes(written):
            torch._fused_sgd_(params, fused.laid(grads), slots[0], lr=-1.0, dampening=1 + rate, **told)
            return written
        torch._foreach_mul_(slots[0], momentum)
        _descend(slots[0], grads, rate)
        torch._foreach_add_(params, slots[0], alpha=momentum if nesterov else 1.0)
        if nesterov:
            _descend(params, grads, rate)
        return written

    return update


def _descend(xs: list[Tensor], grads: list[Tensor], rate: Any) -> None:
    """x -= rate * g."""
    if isinstance(rate, Tensor):
        torch._foreach_sub_(xs, torch._foreach_mul(grads, rate))
    else:
        torch._foreach_add_(xs, grads, alpha=-rate)


# ---- Adam -----------------------------------------------------------------------


def adam_updating(
    count: int, beta_1: float, beta_2: float, epsilon: float, amsgrad: bool, weight_decay: float
) -> Callable[..., Any]:
    """torch's kernel corrects the bias of v before epsilon is added, Keras after it: so the kernel is told that very
    many steps are done, when nothing is left to correct, and gets the corrected step size as its learning rate."""
    attrs: dict[str, Any] = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "amsgrad": amsgrad}
    attrs |= {"count": count, "weight_decay": weight_decay}
    fused, steps = _Fused(count), list[Tensor]()
    first, second = (math.log(beta) if beta > 0 else -math.inf for beta in (beta_1, beta_2))

    def update(learning_rate: Tensor, iteration: Tensor, *tensors: Tensor) -> Any:
        nonlocal steps
        params, grads, rest = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        written = [*params, *rest]
        if not fused.takes(written):
            expand: Any = OPS["adam_update"].expand
            return expand(learning_rate, iteration, *tensors, **attrs)
        if not steps or steps[0].device != params[0].device:
            steps = [torch.full((), 1e9, dtype=torch.float32, device=params[0].device)] * count
        rate, t = _number(learning_rate), _number(iteration) + 1
        if weight_decay:
            _shrink(list(params), rate, weight_decay)
        torch._fused_adam_(
            params, fused.laid(grads), rest[:count], rest[count : 2 * count], rest[2 * count :], steps,
            weight_decay=0.0, eps=epsilon, lr=rate * _correction(t, first, second), beta1=beta_1, beta2=beta_2,
            amsgrad=amsgrad, maximize=False,
        )  # fmt: skip
        return written

    return update


def _correction(t: Any, first: float, second: float) -> Any:
    """sqrt(1 - beta_2**t) / (1 - beta_1**t), from the logarithms of the betas."""
    if isinstance(t, Tensor):
        t = t.float()
        return torch.sqrt(-torch.expm1(t * second)) / -torch.expm1(t * first)
    return math.sqrt(-math.expm1(t * second)) / -math.expm1(t * first)
