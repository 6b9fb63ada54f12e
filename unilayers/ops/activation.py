"""Activations: composites of elementwise ops and reductions, with the gradients that are shorter or more stable."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.graph import Sample
from unilayers.ops.define import composite, dtype_of, per_element, require_float, shape_of
from unilayers.spec import Spec, normalize_axis

__all__ = [
    "elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "log_softmax_",
    "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softmax_", "softplus", "softsign",
]  # fmt: skip

Function = Callable[..., Any]


def float_spec(x: Spec, *others: Spec, **attrs: Any) -> Spec:
    """Shape rule: as the first operand, which must be floating."""
    require_float(x.dtype)
    return x


def _activation(
    reference: Function, *, vjp: Function | None = None, flops: int, attrs: tuple[dict[str, Any], ...] = ({},),
    tolerance: float = 1e-5,
) -> Callable[[Function], Function]:  # fmt: skip
    """Define an elementwise activation; ``vjp(g, y, x, **attrs)`` gives the one gradient."""
    rule = None if vjp is None else lambda g, y, x, **a: (vjp(g, y, x, **a),)

    def samples(rng: np.random.Generator) -> list[Sample]:
        smooth = [Sample((rng.uniform(-4, 4, (3, 5)),), a) for a in attrs]
        ends = np.array([-80.0, -20.0, -3.0, 0.0, 3.0, 6.0, 20.0, 80.0])  # kinks, saturation, overflow of exp
        return [*smooth, Sample((ends,), attrs[0], False), Sample((rng.normal(size=()),), attrs[0])]

    def decorate(expand: Function) -> Function:
        return composite(
            infer=float_spec, vjp=rule, cost=per_element(flops), reference=reference, samples=samples,
            tolerance=tolerance,
        )(expand)  # fmt: skip

    return decorate


def _gate(g: Any, open_: Any) -> Any:
    """g where the gate is open, else 0."""
    return ops.where(open_, g, 0.0)


# ---- piecewise linear ---------------------------------------------------------


@_activation(lambda x: np.where(x > 0, x, 0.0), vjp=lambda g, y, x: _gate(g, y > 0), flops=1)
def relu(x: Any) -> Any:
    """max(x, 0); gradient 0 at 0."""
    return ops.maximum(x, 0.0)


@_activation(lambda x: np.clip(x, 0, 6), vjp=lambda g, y, x: _gate(g, ops.logical_and(x > 0, x < 6.0)), flops=2)
def relu6(x: Any) -> Any:
    """min(max(x, 0), 6); gradient 0 at 0 and 6."""
    return ops.minimum(ops.maximum(x, 0.0), 6.0)


@_activation(
    lambda x, negative_slope=0.2: np.where(x > 0, x, negative_slope * x),
    vjp=lambda g, y, x, *, negative_slope: ops.where(x > 0, g, g * negative_slope),
    flops=2, attrs=({"negative_slope": 0.2}, {"negative_slope": 1.5}),
)  # fmt: skip
def leaky_relu(x: Any, *, negative_slope: float = 0.2) -> Any:
    """x above 0, else negative_slope * x."""
    return ops.where(x > 0, x, x * negative_slope)


@_activation(
    lambda x: np.clip(x / 6 + 0.5, 0, 1),
    vjp=lambda g, y, x: _gate(g * (1 / 6), ops.logical_and(x > -3.0, x < 3.0)), flops=4,
)  # fmt: skip
def hard_sigmoid(x: Any) -> Any:
    """x / 6 + 1/2, kept inside [0, 1]."""
    return ops.minimum(ops.maximum(x * (1 / 6) + 0.5, 0.0), 1.0)


# ---- exponential and sigmoid family ---------------------------------------------


def _elu_reference(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, alpha * (np.exp(np.minimum(x, 0)) - 1))


@_activation(
    _elu_reference, vjp=lambda g, y, x, *, alpha: ops.where(x > 0, g, g * (y + alpha)), flops=4,
    attrs=({"alpha": 1.0}, {"alpha": 0.3}),
)  # fmt: skip
def elu(x: Any, *, alpha: float = 1.0) -> Any:
    """x above 0, else alpha * (exp(x) - 1).

    Reference: Clevert, Unterthiner, Hochreiter, Fast and Accurate Deep Network Learning by Exponential Linear Units,
    2015, arXiv 1511.07289.
    """
    return ops.where(x > 0, x, ops.expm1(ops.minimum(x, 0.0)) * alpha)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # equations 14 of the paper


@_activation(
    lambda x: SELU_SCALE * _elu_reference(x, SELU_ALPHA), flops=5,
    vjp=lambda g, y, x: ops.where(x > 0, g * SELU_SCALE, g * (y + SELU_ALPHA * SELU_SCALE)),
)  # fmt: skip
def selu(x: Any) -> Any:
    """1.0507 * elu(x, alpha=1.6733): keeps mean 0 and variance 1 from layer to layer.

    Reference: Klambauer et al., Self-Normalizing Neural Networks, 2017, arXiv 1706.02515.
    """
    return ops.where(x > 0, x * SELU_SCALE, ops.expm1(ops.minimum(x, 0.0)) * (SELU_ALPHA * SELU_SCALE))


# Beyond these, exp(-x) leaves the dtype's range; 1 / exp(limit) is its smallest step anyway.
_EXP_LIMIT = {"float16": 11.0, "bfloat16": 88.0, "float32": 88.0, "float64": 709.0}


@_activation(lambda x: np.exp(-np.logaddexp(0, -x)), vjp=lambda g, y, x: g * y * (1.0 - y), flops=4)
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    small = ops.minimum(ops.negative(x), _EXP_LIMIT[dtype_of(x)])
    return ops.reciprocal(ops.exp(small) + 1.0)


@_activation(lambda x: np.logaddexp(0, x), vjp=lambda g, y, x: g * ops.sigmoid(x), flops=5)
def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return ops.maximum(x, 0.0) + ops.log1p(ops.exp(ops.negative(ops.abs(x))))


@_activation(lambda x: -np.logaddexp(0, -x), vjp=lambda g, y, x: g * ops.sigmoid(ops.negative(x)), flops=5)
def log_sigmoid(x: Any) -> Any:
    """log(1 / (1 + exp(-x))), exact also where the sigmoid rounds to 0."""
    return ops.negative(ops.softplus(ops.negative(x)))


def _softsign_vjp(g: Any, y: Any, x: Any) -> Any:
    return g / ops.square(ops.abs(x) + 1.0)


@_activation(lambda x: x / (1 + np.abs(x)), vjp=_softsign_vjp, flops=3)
def softsign(x: Any) -> Any:
    """x / (1 + |x|)."""
    return x / (ops.abs(x) + 1.0)


def _silu_vjp(g: Any, y: Any, x: Any) -> Any:
    s = ops.sigmoid(x)
    return g * (s + y * (1.0 - s))


@_activation(lambda x: x * np.exp(-np.logaddexp(0, -x)), vjp=_silu_vjp, flops=5)
def silu(x: Any) -> Any:
    """x * sigmoid(x), also called swish.

    Reference: Elfwing, Uchibe, Doya, Sigmoid-Weighted Linear Units, 2017, arXiv 1702.03118.
    """
    return x * ops.sigmoid(x)


@_activation(lambda x: x * np.tanh(np.logaddexp(0, x)), flops=8)
def mish(x: Any) -> Any:
    """x * tanh(softplus(x)).

    Reference: Misra, Mish: A Self Regularized Non-Monotonic Activation Function, 2019, arXiv 1908.08681.
    """
    return x * ops.tanh(ops.softplus(x))


_ROOT_2_OVER_PI, _CUBIC = math.sqrt(2 / math.pi), 0.044715  # of the paper's tanh form


def _gelu_reference(x: np.ndarray, approximate: bool = False) -> np.ndarray:
    if approximate:
        return x / 2 * (1 + np.tanh(_ROOT_2_OVER_PI * (x + _CUBIC * x**3)))
    return x / 2 * np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)), otypes=[float])(x)


def _normal_cdf(x: Any) -> Any:
    return ops.erf(x * math.sqrt(0.5)) * 0.5 + 0.5


def _tanh_inside(x: Any) -> Any:
    return (ops.square(x) * x * _CUBIC + x) * _ROOT_2_OVER_PI


def _gelu_vjp(g: Any, y: Any, x: Any, *, approximate: bool) -> Any:
    if approximate:
        t = ops.tanh(_tanh_inside(x))
        slope = (ops.square(x) * (3 * _CUBIC) + 1.0) * _ROOT_2_OVER_PI
        return g * (t * 0.5 + 0.5 + x * (1.0 - t * t) * slope * 0.5)
    density = ops.exp(ops.square(x) * -0.5) * (1 / math.sqrt(2 * math.pi))
    return g * (_normal_cdf(x) + x * density)


@_activation(_gelu_reference, vjp=_gelu_vjp, flops=12, attrs=({"approximate": False}, {"approximate": True}))
def gelu(x: Any, *, approximate: bool = False) -> Any:
    """x times the normal distribution function of x; ``approximate`` takes its tanh form.

    Reference: Hendrycks, Gimpel, Gaussian Error Linear Units, 2016, arXiv 1606.08415.
    """
    return x * (ops.tanh(_tanh_inside(x)) * 0.5 + 0.5 if approximate else _normal_cdf(x))


def linear(x: Any) -> Any:
    """x itself: no activation."""
    return x


def exponential(x: Any) -> Any:
    """e to the x."""
    return ops.exp(x)


# ---- softmax ------------------------------------------------------------------


def _shifted(x: Any, axis: int) -> tuple[Any, Any]:
    """x minus its largest element along the axis, and exp of that: shared by softmax and log_softmax."""
    low = x - ops.stop_gradient(ops.max(x, axis, keepdims=True))
    return low, ops.exp(low)


def _axis_samples(rng: np.random.Generator) -> list[Sample]:
    large = np.array([[1000.0, 1001.0, -1000.0], [-50.0, -50.0, -50.0]])
    return [
        Sample((rng.normal(size=(3, 5)),), {"axis": 1}), Sample((rng.normal(size=(2, 3, 4)),), {"axis": 1}),
        Sample((large,), {"axis": 1}, False),
    ]  # fmt: skip


def _log_softmax_reference(x: np.ndarray, axis: int) -> np.ndarray:
    return x - np.logaddexp.reduce(x, axis, keepdims=True)


def _softmax_vjp(g: Any, y: Any, x: Any, *, axis: int) -> tuple[Any]:
    return (y * (g - ops.sum(g * y, axis, keepdims=True)),)


def _log_softmax_vjp(g: Any, y: Any, x: Any, *, axis: int) -> tuple[Any]:
    return (g - ops.exp(y) * ops.sum(g, axis, keepdims=True),)


@composite(
    infer=float_spec, vjp=_softmax_vjp, cost=per_element(5), samples=_axis_samples,
    reference=lambda x, axis: np.exp(_log_softmax_reference(x, axis)),
)  # fmt: skip
def softmax_(x: Any, *, axis: int) -> Any:
    """exp(x) over its sum along an axis, without overflow."""
    _, e = _shifted(x, axis)
    return e / ops.sum(e, axis, keepdims=True)


@composite(
    infer=float_spec, vjp=_log_softmax_vjp, cost=per_element(5), samples=_axis_samples,
    reference=_log_softmax_reference,
)  # fmt: skip
def log_softmax_(x: Any, *, axis: int) -> Any:
    """The logarithm of softmax along an axis, exact also where softmax rounds to 0."""
    low, e = _shifted(x, axis)
    return low - ops.log(ops.sum(e, axis, keepdims=True))


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) over its sum along ``axis``: positive numbers that add up to 1, without overflow.

    Example:
        >>> import numpy as np
        >>> softmax(np.array([1000.0, 1000.0]))
        array([0.5, 0.5])
    """
    return softmax_(x, axis=normalize_axis(axis, len(shape_of(x))))


def log_softmax(x: Any, axis: int = -1) -> Any:
    """The logarithm of softmax along ``axis``, exact also where softmax rounds to 0."""
    return log_softmax_(x, axis=normalize_axis(axis, len(shape_of(x))))
