"""Update rules: one op moves all weights of a model by one optimizer step.

The operands are a few scalars, then ``count`` parameters, their ``count`` gradients, and ``count`` tensors of each slot
in turn; the results are the new parameters and the new slots in the same order. The expansions are Keras's definitions,
tensor by tensor; a backend may list a fused version. Their gradient is that of the expansion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.graph import Sample
from unilayers.ops.define import composite, dtype_of
from unilayers.spec import Spec, promote

__all__ = ["adagrad_update", "adam_update", "rmsprop_update", "sgd_update"]

Step = Callable[..., Sequence[Any]]


def each(step: Step, tensors: Sequence[Any], count: int) -> tuple[Any, ...]:
    """``step(p, g, *slots) -> (p, *slots)`` for every parameter; the results grouped as the operands are."""
    groups = [tensors[i : i + count] for i in range(0, len(tensors), count)]
    done = [step(*one) for one in zip(*groups, strict=True)]
    return tuple(new for group in zip(*done, strict=True) for new in group)


def _rules(
    scalars: int,
    slots: Callable[[dict[str, Any]], int],
    reference: Callable[..., Step],
    cases: list[dict[str, Any]],
    flops: int,
) -> dict[str, Any]:
    """The record of an update op.

    Args:
        scalars: How many operands come before the tensors: the learning rate, and perhaps the iteration.
        slots: How many slots there are for given attributes.
        reference: ``reference(*scalars, **attrs)`` gives the step of one tensor in plain NumPy.
        cases: Attributes of the samples.
        flops: Operations per weight.
    """

    def infer(*specs: Spec, count: int, **attrs: Any) -> tuple[Spec, ...]:
        tensors, wanted = specs[scalars:], count * (2 + slots(attrs))
        if len(tensors) != wanted or any(s.shape for s in specs[:scalars]):
            raise ShapeError(
                "operands do not fit",
                expected=f"scalars: {scalars}, tensors: {wanted}",
                received=", ".join(map(repr, specs)),
            )
        for i, t in enumerate(tensors):
            if t.shape != tensors[i % count].shape:
                raise ShapeError(
                    "a gradient or slot does not fit its parameter", expected=repr(tensors[i % count]), received=repr(t)
                )
        return tuple(tensors[i % count] for i in range(wanted) if not count <= i < 2 * count)

    def samples(rng: np.random.Generator) -> list[Sample]:
        found, shapes = [], [(2, 3), (4,)]
        for attrs in cases:
            numbers = (np.array(0.05), np.array(3, np.int32))[:scalars]
            tensors = [rng.normal(size=s) for _ in range(2) for s in shapes]
            # The first slot is a mean of squares where there is one: above the square of a mean in another slot.
            tensors += [rng.uniform(0.5, 1.0, s) + 2.0 * (k == 0) for k in range(slots(attrs)) for s in shapes]
            floats = (0, *range(scalars, scalars + len(tensors)))
            found.append(Sample((*numbers, *tensors), {"count": len(shapes), **attrs}, floats))
        return found

    def by_definition(*operands: Any, count: int, **attrs: Any) -> tuple[Any, ...]:
        return each(reference(*operands[:scalars], **attrs), operands[scalars:], count)

    def cost(*specs: Spec, count: int, **attrs: Any) -> Any:
        return sum(p.size * flops for p in specs[scalars : scalars + count])

    return {"infer": infer, "cost": cost, "reference": by_definition, "samples": samples, "order": 1}


def _as(x: Any, dtype: str) -> Any:
    return x if isinstance(x, (int, float)) else ops.astype(x, dtype)


def _decayed(p: Any, learning_rate: Any, weight_decay: float) -> Any:
    """Decoupled weight decay, before the step."""
    return p - p * weight_decay * _as(learning_rate, dtype_of(p)) if weight_decay else p


# ---- SGD ----------------------------------------------------------------------


def _sgd_reference(lr: Any, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> Step:
    def step(p: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        p = p * (1 - lr * weight_decay)
        if not momentum:
            return (p - lr * g,)
        m = momentum * slots[0] - lr * g
        return (p + momentum * m - lr * g if nesterov else p + m), m

    return step


@composite(
    **_rules(
        1, lambda attrs: int(attrs["momentum"] != 0), _sgd_reference, flops=5,
        cases=[
            {"momentum": m, "nesterov": n, "weight_decay": w}
            for m, n, w in [(0.0, False, 0.0), (0.9, False, 0.1), (0.9, True, 0.0)]
        ],
    )
)  # fmt: skip
def sgd_update(
    learning_rate: Any, *tensors: Any, count: int, momentum: float = 0.0, nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[Any, ...]:  # fmt: skip
    """Gradient descent: p - learning_rate * g; with momentum m = momentum * m - learning_rate * g, p + m.

    Slots: the velocity m, if ``momentum`` is not 0. ``nesterov`` steps to p + momentum * m - learning_rate * g.

    Engines: In PyTorch the learning rate multiplies the velocity when it is used; here, as in Keras, the gradient that
    enters it. Weight decay is added to the gradient in PyTorch; here it is decoupled.

    Example:
        >>> import numpy as np
        >>> sgd_update(0.1, np.array([1.0]), np.array([2.0]), count=1)
        (array([0.8]),)
    """

    def step(p: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        move = g * _as(learning_rate, dtype_of(p))
        p = _decayed(p, learning_rate, weight_decay)
        if not momentum:
            return (p - move,)
        m = slots[0] * momentum - move
        return p + (m * momentum - move if nesterov else m), m

    return each(step, tensors, count)


# ---- RMSprop --------------------------------------------------------------------


def _rmsprop_reference(
    lr: Any, rho: float, momentum: float, epsilon: float, centered: bool, weight_decay: float = 0.0
) -> Step:
    def step(p: Any, g: Any, v: Any, *slots: Any) -> tuple[Any, ...]:
        rest = list(slots)
        v = rho * v + (1 - rho) * g**2
        spread = v
        if centered:
            rest[-1] = rho * slots[-1] + (1 - rho) * g
            spread = v - rest[-1] ** 2
        move = lr * g / (spread + epsilon) ** 0.5
        if momentum:
            move = rest[0] = momentum * slots[0] + move
        return p * (1 - lr * weight_decay) - move, v, *rest

    return step


def _rmsprop_slots(attrs: dict[str, Any]) -> int:
    return 1 + int(attrs["momentum"] > 0) + int(attrs["centered"])


@composite(
    **_rules(
        1, _rmsprop_slots, _rmsprop_reference, flops=10,
        cases=[
            {"rho": 0.9, "momentum": m, "epsilon": 1e-3, "centered": c, "weight_decay": w}
            for m, c, w in [(0.0, False, 0.0), (0.8, False, 0.1), (0.8, True, 0.0)]
        ],
    )
)  # fmt: skip
def rmsprop_update(
    learning_rate: Any, *tensors: Any, count: int, rho: float = 0.9, momentum: float = 0.0, epsilon: float = 1e-7,
    centered: bool = False, weight_decay: float = 0.0,
) -> tuple[Any, ...]:  # fmt: skip
    """RMSprop: v = rho * v + (1 - rho) * g**2, p - learning_rate * g / sqrt(v + epsilon).

    Slots: the velocity v; the momentum, if ``momentum`` is above 0; the average gradient, if ``centered``, whose square
    is taken from v under the root.

    Engines: PyTorch adds epsilon after the root; here, as in Keras, it is under the root.

    Reference: Hinton, Neural Networks for Machine Learning, lecture 6e, 2012.
    """

    def step(p: Any, g: Any, v: Any, *slots: Any) -> tuple[Any, ...]:
        new = list(slots)
        v = v * rho + ops.square(g) * (1 - rho)
        spread = v
        if centered:
            new[-1] = slots[-1] * rho + g * (1 - rho)
            spread = v - ops.square(new[-1])
        move = g * _as(learning_rate, dtype_of(p)) / ops.sqrt(spread + epsilon)
        if momentum > 0:
            move = new[0] = slots[0] * momentum + move
        return _decayed(p, learning_rate, weight_decay) - move, v, *new

    return each(step, tensors, count)


# ---- Adagrad ----------------------------------------------------------------------


def _adagrad_reference(lr: Any, epsilon: float, weight_decay: float = 0.0) -> Step:
    def step(p: Any, g: Any, a: Any) -> tuple[Any, Any]:
        return p * (1 - lr * weight_decay) - lr * g / (a + g**2 + epsilon) ** 0.5, a + g**2

    return step


@composite(
    **_rules(
        1, lambda attrs: 1, _adagrad_reference, [{"epsilon": 1e-7, "weight_decay": w} for w in (0.0, 0.1)], flops=7
    )
)
def adagrad_update(
    learning_rate: Any, *tensors: Any, count: int, epsilon: float = 1e-7, weight_decay: float = 0.0
) -> tuple[Any, ...]:
    """Adagrad: a = a + g**2, p - learning_rate * g / sqrt(a + epsilon). Slot: the accumulator a.

    Engines: PyTorch adds epsilon after the root; here, as in Keras, it is under the root.

    Reference: Duchi, Hazan, Singer, Adaptive Subgradient Methods, 2011.
    """

    def step(p: Any, g: Any, a: Any) -> tuple[Any, Any]:
        a = a + ops.square(g)
        move = g * _as(learning_rate, dtype_of(p)) / ops.sqrt(a + epsilon)
        return _decayed(p, learning_rate, weight_decay) - move, a

    return each(step, tensors, count)


# ---- Adam -------------------------------------------------------------------------


def _adam_reference(
    lr: Any, iteration: Any, beta_1: float, beta_2: float, epsilon: float, amsgrad: bool = False,
    weight_decay: float = 0.0,
) -> Step:  # fmt: skip
    t = int(iteration) + 1

    def step(p: Any, g: Any, m: Any, v: Any, *top: Any) -> tuple[Any, ...]:
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g**2
        largest = np.maximum(top[0], v) if amsgrad else v
        scale = lr * (1 - beta_2**t) ** 0.5 / (1 - beta_1**t)
        p = p * (1 - lr * weight_decay) - scale * m / (largest**0.5 + epsilon)
        return (p, m, v, largest) if amsgrad else (p, m, v)

    return step


def _one_minus_power(beta: float, t: Any) -> Any:
    """1 - beta**t. Early in the training 1 - power(beta, t) would lose most of float32's digits."""
    return ops.negative(ops.expm1(t * (math.log(beta) if beta > 0 else -math.inf)))


_ADAM_CASES = [
    {"beta_1": b, "beta_2": 0.999, "epsilon": 1e-3, "amsgrad": a, "weight_decay": w}
    for b, a, w in [(0.9, False, 0.0), (0.9, True, 0.1), (0.0, False, 0.0)]
]


@composite(**_rules(2, lambda attrs: 2 + int(attrs["amsgrad"]), _adam_reference, _ADAM_CASES, flops=12))
def adam_update(
    learning_rate: Any, iteration: Any, *tensors: Any, count: int, beta_1: float = 0.9, beta_2: float = 0.999,
    epsilon: float = 1e-7, amsgrad: bool = False, weight_decay: float = 0.0,
) -> tuple[Any, ...]:  # fmt: skip
    """Adam: m and v follow g and g**2, p - alpha * m / (sqrt(v) + epsilon).

    With t = iteration + 1: m += (g - m) * (1 - beta_1), v += (g**2 - v) * (1 - beta_2), and alpha = learning_rate *
    sqrt(1 - beta_2**t) / (1 - beta_1**t). With ``weight_decay`` (AdamW) p first becomes p - learning_rate *
    weight_decay * p. ``iteration`` is an integer scalar, the number of steps done before.

    Slots: momentum m; velocity v; the largest velocity so far, if ``amsgrad``, which then stands for v in the step.

    Engines: PyTorch adds epsilon (1e-8) after the bias correction of v, Keras (1e-7) before it, as here. Weight decay
    is added to the gradient in PyTorch's Adam; here it is decoupled, as in its AdamW.

    Reference: Kingma, Ba, Adam, 2014, arXiv 1412.6980; Loshchilov, Hutter, Decoupled Weight Decay Regularization, 2017,
    arXiv 1711.05101; Reddi, Kale, Kumar, On the Convergence of Adam and Beyond, 2018.
    """

    @cache
    def alpha(dtype: str) -> Any:
        wide = promote(dtype, "float32")  # a narrower float cannot count the iterations
        t = ops.astype(iteration, wide) + 1.0
        scale = ops.sqrt(_one_minus_power(beta_2, t)) / _one_minus_power(beta_1, t)
        return ops.astype(_as(learning_rate, wide) * scale, dtype)

    def step(p: Any, g: Any, m: Any, v: Any, *top: Any) -> tuple[Any, ...]:
        m = m + (g - m) * (1 - beta_1)
        v = v + (ops.square(g) - v) * (1 - beta_2)
        largest = ops.maximum(top[0], v) if amsgrad else v
        p = _decayed(p, learning_rate, weight_decay) - m * alpha(dtype_of(p)) / (ops.sqrt(largest) + epsilon)
        return (p, m, v, largest) if amsgrad else (p, m, v)

    return each(step, tensors, count)
