"""Activations: composites of elementwise ops and reductions, with the gradients that are shorter or more stable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.graph import Sample
from unilayers.ops.define import composite, dtype_of, per_element, require_float, shape_of
from unilayers.spec import Shape, Spec, normalize_axis

__all__ = [
    "celu", "elu", "exponential", "gelu", "gelu_grad", "glu", "glu_", "hard_shrink", "hard_sigmoid", "hard_silu",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "log_softmax_", "log_softmax_grad", "mish",
    "relu", "relu6", "relu_grad", "selu", "sigmoid", "sigmoid_grad", "silu", "silu_grad", "soft_shrink", "softmax",
    "softmax_", "softmax_grad", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "sparsemax_",
    "squareplus", "tanh_shrink", "threshold",
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


def _gradient(
    reference: Function, flops: int, attrs: tuple[dict[str, Any], ...] = ({},)
) -> Callable[[Function], Function]:
    """Define the gradient of an elementwise activation as an op, which a backend may list: of g, and of y or x."""

    def samples(rng: np.random.Generator) -> list[Sample]:
        ends = np.array([-80.0, -3.0, 0.0, 0.5, 1.0, 80.0])
        return [
            *(Sample((rng.normal(size=(3, 5)), rng.normal(size=(3, 5))), a) for a in attrs),
            Sample((rng.normal(size=6), ends), attrs[0], False),
        ]

    return composite(infer=float_spec, cost=per_element(flops), reference=reference, samples=samples, promotes=0)


def _gate(g: Any, open_: Any) -> Any:
    """g where the gate is open, else 0."""
    return ops.where(open_, g, 0.0)


# ---- piecewise linear ---------------------------------------------------------


@_activation(lambda x: np.where(x > 0, x, 0.0), vjp=lambda g, y, x: ops.relu_grad(g, y), flops=1)
def relu(x: Any) -> Any:
    """max(x, 0); gradient 0 at 0.

    Engines: The gradient at NaN is 1 in PyTorch, also here, and 0 in the others.
    """
    return ops.maximum(x, 0.0)


@_gradient(lambda g, y: np.where(y > 0, g, 0.0), 1)
def relu_grad(g: Any, y: Any) -> Any:
    """The gradient of ``y = relu(x)`` to x, from that of y."""
    return _gate(g, y > 0)


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
    """x above 0, else negative_slope * x.

    Engines: The slope is 0.01 by default in PyTorch and JAX, and 0.2 in TensorFlow and here. At 0 the gradient is 1 in
    JAX, and the slope in the others and here.
    """
    return ops.where(x > 0, x, x * negative_slope)


@_activation(
    lambda x: np.clip(x / 6 + 0.5, 0, 1),
    vjp=lambda g, y, x: _gate(g * (1 / 6), ops.logical_and(x > -3.0, x < 3.0)), flops=4,
)  # fmt: skip
def hard_sigmoid(x: Any) -> Any:
    """x / 6 + 1/2, kept inside [0, 1]."""
    return ops.minimum(ops.maximum(x * (1 / 6) + 0.5, 0.0), 1.0)


def _hard_silu_vjp(g: Any, y: Any, x: Any) -> Any:
    return ops.where(x >= 3.0, g, _gate(g * (x * (1 / 3) + 0.5), x > -3.0))


@_activation(lambda x: x * np.clip(x / 6 + 0.5, 0, 1), vjp=_hard_silu_vjp, flops=5)
def hard_silu(x: Any) -> Any:
    """x * hard_sigmoid(x), also called hard swish; gradient 0 at -3 and 1 at 3.

    Reference: Howard et al., Searching for MobileNetV3, 2019, arXiv 1905.02244.
    """
    return x * ops.minimum(ops.maximum(x * (1 / 6) + 0.5, 0.0), 1.0)


@_activation(
    lambda x: np.clip(x, -1, 1), vjp=lambda g, y, x: _gate(g, ops.logical_and(x > -1.0, x < 1.0)), flops=2
)  # fmt: skip
def hard_tanh(x: Any) -> Any:
    """x, kept inside [-1, 1]; gradient 0 at -1 and 1.

    Engines: The gradient at -1 and 1 is 1 in JAX, and 0 in PyTorch and here.
    """
    return ops.minimum(ops.maximum(x, -1.0), 1.0)


_SHRINK = ({"threshold": 0.5}, {"threshold": 2.0})


@_activation(
    lambda x, threshold=0.5: np.where(np.abs(x) > threshold, x, 0.0),
    vjp=lambda g, y, x, *, threshold: _gate(g, ops.abs(x) > threshold), flops=2, attrs=_SHRINK,
)  # fmt: skip
def hard_shrink(x: Any, *, threshold: float = 0.5) -> Any:
    """x where abs(x) is above the threshold, else 0; gradient 0 at the threshold."""
    return ops.where(ops.abs(x) <= threshold, 0.0, x)  # in this order NaN stays NaN


@_activation(
    lambda x, threshold=0.5: np.sign(x) * np.maximum(np.abs(x) - threshold, 0),
    vjp=lambda g, y, x, *, threshold: _gate(g, ops.abs(x) > threshold), flops=3, attrs=_SHRINK,
)  # fmt: skip
def soft_shrink(x: Any, *, threshold: float = 0.5) -> Any:
    """x moved towards 0 by the threshold, and 0 within it; gradient 0 at the threshold."""
    return x - ops.minimum(ops.maximum(x, -threshold), threshold)


@_activation(
    lambda x, threshold, default_value: np.where(x > threshold, x, default_value),
    vjp=lambda g, y, x, *, threshold, default_value: _gate(g, x > threshold), flops=1,
    attrs=({"threshold": 0.3, "default_value": -1.5},),
)  # fmt: skip
def threshold(x: Any, *, threshold: float, default_value: float) -> Any:
    """x above the threshold, else ``default_value``; gradient 0 at the threshold."""
    return ops.where(x <= threshold, default_value, x)  # in this order NaN stays NaN


@_activation(
    lambda x: np.clip((x + 1) / 2, 0, 1), flops=4,
    vjp=lambda g, y, x: _gate(g * 0.5, ops.logical_and(x > -1.0, x < 1.0)),
)  # fmt: skip
def sparse_sigmoid(x: Any) -> Any:
    """(x + 1) / 2, kept inside [0, 1]; gradient 0 at -1 and 1."""
    return ops.minimum(ops.maximum(x * 0.5 + 0.5, 0.0), 1.0)


@_activation(
    lambda x: np.where(x < -1, 0.0, np.where(x < 1, (x + 1) ** 2 / 4, x)), flops=5,
    vjp=lambda g, y, x: g * ops.sparse_sigmoid(x),
)  # fmt: skip
def sparse_plus(x: Any) -> Any:
    """0 up to -1, x from 1 on, and (x + 1)**2 / 4 between: a smooth relu whose gradient is sparse_sigmoid."""
    return ops.where(x >= 1.0, x, ops.square(ops.maximum(x + 1.0, 0.0)) * 0.25)


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


@_activation(
    lambda x, alpha=1.0: np.where(x > 0, x, alpha * (np.exp(np.minimum(x, 0) / alpha) - 1)),
    vjp=lambda g, y, x, *, alpha: ops.where(x > 0, g, g * (y * (1 / alpha) + 1.0)), flops=5,
    attrs=({"alpha": 1.0}, {"alpha": 0.3}),
)  # fmt: skip
def celu(x: Any, *, alpha: float = 1.0) -> Any:
    """x above 0, else alpha * (exp(x / alpha) - 1): an elu whose gradient is continuous at 0 for every alpha.

    Reference: Barron, Continuously Differentiable Exponential Linear Units, 2017, arXiv 1704.07483.
    """
    return ops.where(x > 0, x, ops.expm1(ops.minimum(x, 0.0) * (1 / alpha)) * alpha)


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


@_activation(lambda x: np.exp(-np.logaddexp(0, -x)), vjp=lambda g, y, x: ops.sigmoid_grad(g, y), flops=4)
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow.

    Engines: At -inf it is 0, but on the NumPy backend the smallest number that needs no overflow, 6e-39 in float32.
    """
    small = ops.minimum(ops.negative(x), _EXP_LIMIT[dtype_of(x)])
    return ops.reciprocal(ops.exp(small) + 1.0)


@_gradient(lambda g, y: g * (y - y**2), 3)
def sigmoid_grad(g: Any, y: Any) -> Any:
    """The gradient of ``y = sigmoid(x)`` to x, from that of y."""
    return g * y * (1.0 - y)


@_activation(lambda x: np.logaddexp(0, x), vjp=lambda g, y, x: g * ops.sigmoid(x), flops=5)
def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow.

    Engines: Above 20 PyTorch gives x itself, also in float64; here the rest is added as in the others.
    """
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


@_activation(lambda x: x * np.exp(-np.logaddexp(0, -x)), vjp=lambda g, y, x: ops.silu_grad(g, x), flops=5)
def silu(x: Any) -> Any:
    """x * sigmoid(x), also called swish.

    Engines: At -inf it is NaN in PyTorch, TensorFlow and JAX, also here, and -inf on the NumPy backend.

    Reference: Elfwing, Uchibe, Doya, Sigmoid-Weighted Linear Units, 2017, arXiv 1702.03118.
    """
    return x * ops.sigmoid(x)


def _silu_grad_reference(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    s = np.exp(-np.logaddexp(0, -x))
    return g * s * (1 + x * np.exp(-np.logaddexp(0, x)))


@_gradient(_silu_grad_reference, 9)
def silu_grad(g: Any, x: Any) -> Any:
    """The gradient of ``silu(x)`` to x, from that of its result."""
    s = ops.sigmoid(x)
    return g * (s + x * s * (1.0 - s))


@_activation(lambda x: x * np.tanh(np.logaddexp(0, x)), flops=8)
def mish(x: Any) -> Any:
    """x * tanh(softplus(x)).

    Reference: Misra, Mish: A Self Regularized Non-Monotonic Activation Function, 2019, arXiv 1908.08681.
    """
    return x * ops.tanh(ops.softplus(x))


@_activation(lambda x: x - np.tanh(x), vjp=lambda g, y, x: g * ops.square(x - y), flops=2)
def tanh_shrink(x: Any) -> Any:
    """x - tanh(x)."""
    return x - ops.tanh(x)


def _root(x: Any, b: float) -> Any:
    """sqrt(x**2 + b); float16 has no room for the square."""
    wide = ops.astype(x, "float32") if dtype_of(x) == "float16" else x
    return ops.astype(ops.sqrt(ops.square(wide) + b), dtype_of(x))


@_activation(
    lambda x, b=4.0: (x + np.sqrt(x**2 + b)) / 2, flops=4, attrs=({"b": 4.0}, {"b": 0.5}),
    vjp=lambda g, y, x, *, b: g * (x / _root(x, b) * 0.5 + 0.5),
)  # fmt: skip
def squareplus(x: Any, *, b: float = 4.0) -> Any:
    """(x + sqrt(x**2 + b)) / 2: a smooth relu without exponentials; b is how smooth it is.

    Reference: Barron, Squareplus: A Softplus-Like Algebraic Rectifier, 2021, arXiv 2112.11687.
    """
    return (x + _root(x, b)) * 0.5


_ROOT_2_OVER_PI, _CUBIC = math.sqrt(2 / math.pi), 0.044715  # of the paper's tanh form


def _gelu_reference(x: np.ndarray, approximate: bool = True) -> np.ndarray:
    if approximate:
        return x / 2 * (1 + np.tanh(_ROOT_2_OVER_PI * (x + _CUBIC * x**3)))
    return x / 2 * np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)), otypes=[float])(x)


def _normal_cdf(x: Any) -> Any:
    return ops.erf(x * math.sqrt(0.5)) * 0.5 + 0.5


def _tanh_inside(x: Any) -> Any:
    return (ops.square(x) * x * _CUBIC + x) * _ROOT_2_OVER_PI


_FORMS = ({"approximate": False}, {"approximate": True})


@_activation(_gelu_reference, vjp=lambda g, y, x, **form: ops.gelu_grad(g, x, **form), flops=12, attrs=_FORMS)
def gelu(x: Any, *, approximate: bool = True) -> Any:
    """x times the normal distribution function of x; ``approximate`` takes its tanh form.

    Engines: PyTorch and TensorFlow take the exact form by default, JAX the tanh form, as here.

    Reference: Hendrycks, Gimpel, Gaussian Error Linear Units, 2016, arXiv 1606.08415.
    """
    return x * (ops.tanh(_tanh_inside(x)) * 0.5 + 0.5 if approximate else _normal_cdf(x))


def _gelu_grad_reference(g: np.ndarray, x: np.ndarray, approximate: bool = True) -> np.ndarray:
    if approximate:
        inside = _ROOT_2_OVER_PI * (x + _CUBIC * x**3)
        slope = _ROOT_2_OVER_PI * (1 + 3 * _CUBIC * x**2)
        return g * ((1 + np.tanh(inside)) / 2 + x * slope / np.cosh(inside.clip(-300, 300)) ** 2 / 2)
    share = np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)) / 2, otypes=[float])(x)
    return g * (share + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))


@_gradient(_gelu_grad_reference, 20, _FORMS)
def gelu_grad(g: Any, x: Any, *, approximate: bool = True) -> Any:
    """The gradient of ``gelu(x)`` to x, from that of its result."""
    if approximate:
        t = ops.tanh(_tanh_inside(x))
        slope = (ops.square(x) * (3 * _CUBIC) + 1.0) * _ROOT_2_OVER_PI
        return g * (t * 0.5 + 0.5 + x * (1.0 - t * t) * slope * 0.5)
    density = ops.exp(ops.square(x) * -0.5) * (1 / math.sqrt(2 * math.pi))
    return g * (_normal_cdf(x) + x * density)


def linear(x: Any) -> Any:
    """x itself: no activation."""
    return x


def exponential(x: Any) -> Any:
    """e to the x."""
    return ops.exp(x)


# ---- gated linear unit ----------------------------------------------------------


def _half(shape: Shape, axis: int) -> int:
    size = shape[axis]
    if not isinstance(size, int) or size % 2:
        raise ShapeError("cannot be halved", expected=f"an even size of axis {axis}", received=str(tuple(shape)))
    return size // 2


def _glu_infer(x: Spec, *, axis: int) -> Spec:
    require_float(x.dtype)
    half = _half(x.shape, axis)
    return x.with_shape(half if a == axis else d for a, d in enumerate(x.shape))


def _glu_reference(x: np.ndarray, axis: int) -> np.ndarray:
    value, gate = np.split(x, 2, axis)
    return value * np.exp(-np.logaddexp(0, -gate))


def _glu_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.normal(size=(3, 4)),), {"axis": 1}), Sample((rng.normal(size=(2, 2, 3)),), {"axis": 1}),
        Sample((np.array([2.0, -3.0, 80.0, -80.0]),), {"axis": 0}, False),
    ]  # fmt: skip


@composite(infer=_glu_infer, reference=_glu_reference, samples=_glu_samples)
def glu_(x: Any, *, axis: int) -> Any:
    """The first half of x along an axis times the sigmoid of the second half."""
    half = _half(shape_of(x), axis)
    return ops.slice_axis(x, axis, 0, half) * ops.sigmoid(ops.slice_axis(x, axis, half, 2 * half))


def glu(x: Any, axis: int = -1) -> Any:
    """Gated linear unit: the first half of x along ``axis`` times the sigmoid of the second half.

    Raises:
        ShapeError: if the size along ``axis`` is odd or not known.

    Reference: Dauphin, Fan, Auli, Grangier, Language Modeling with Gated Convolutional Networks, 2016,
    arXiv 1612.08083.

    Example:
        >>> import numpy as np
        >>> glu(np.array([2.0, 4.0, 0.0, 800.0]))
        array([1., 4.])
    """
    return glu_(x, axis=normalize_axis(axis, len(shape_of(x))))


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


@composite(
    infer=float_spec, vjp=lambda g, y, x, *, axis: (ops.softmax_grad(g, y, axis=axis),), cost=per_element(5),
    samples=_axis_samples, reference=lambda x, axis: np.exp(_log_softmax_reference(x, axis)),
)  # fmt: skip
def softmax_(x: Any, *, axis: int) -> Any:
    """exp(x) over its sum along an axis, without overflow."""
    _, e = _shifted(x, axis)
    return e / ops.sum(e, axis, keepdims=True)


@composite(
    infer=float_spec, vjp=lambda g, y, x, *, axis: (ops.log_softmax_grad(g, y, axis=axis),), cost=per_element(5),
    samples=_axis_samples, reference=_log_softmax_reference,
)  # fmt: skip
def log_softmax_(x: Any, *, axis: int) -> Any:
    """The logarithm of softmax along an axis, exact also where softmax rounds to 0."""
    low, e = _shifted(x, axis)
    return low - ops.log(ops.sum(e, axis, keepdims=True))


def _of_results(reference: Function) -> Callable[..., list[Sample]]:
    """Samples of the gradient of an op with an axis: g, and y as the op gives it."""

    def draw(rng: np.random.Generator) -> list[Sample]:
        found = [s for s in _axis_samples(rng) if s.differentiable]
        return [Sample((rng.normal(size=s.inputs[0].shape), reference(*s.inputs, **s.attrs)), s.attrs) for s in found]

    return draw


def _softmax_reference(x: np.ndarray, axis: int) -> np.ndarray:
    return np.exp(_log_softmax_reference(x, axis))


@composite(
    infer=float_spec, cost=per_element(4), samples=_of_results(_softmax_reference), promotes=0,
    reference=lambda g, y, axis: y * g - y * np.sum(y * g, axis, keepdims=True),
)  # fmt: skip
def softmax_grad(g: Any, y: Any, *, axis: int) -> Any:
    """The gradient of ``y = softmax(x)`` to x, from that of y."""
    return y * (g - ops.sum(g * y, axis, keepdims=True))


@composite(
    infer=float_spec, cost=per_element(4), samples=_of_results(_log_softmax_reference), promotes=0,
    reference=lambda g, y, axis: g - np.exp(y) * np.sum(g, axis, keepdims=True),
)  # fmt: skip
def log_softmax_grad(g: Any, y: Any, *, axis: int) -> Any:
    """The gradient of ``y = log_softmax(x)`` to x, from that of y."""
    return g - ops.exp(y) * ops.sum(g, axis, keepdims=True)


def softmax(x: Any, axis: int | Sequence[int] = -1) -> Any:
    """exp(x) over its sum along ``axis``: positive numbers that add up to 1, without overflow.

    Several axes are taken together.

    Example:
        >>> import numpy as np
        >>> softmax(np.array([1000.0, 1000.0]))
        array([0.5, 0.5])
    """
    if not isinstance(axis, int):
        return ops.exp(log_softmax(x, axis))
    return softmax_(x, axis=normalize_axis(axis, len(shape_of(x))))


def log_softmax(x: Any, axis: int | Sequence[int] = -1) -> Any:
    """The logarithm of softmax along ``axis`` (or several together), exact also where softmax rounds to 0."""
    if not isinstance(axis, int):
        return ops.subtract(x, ops.logsumexp(x, tuple(axis), keepdims=True))
    return log_softmax_(x, axis=normalize_axis(axis, len(shape_of(x))))


# ---- sparsemax ------------------------------------------------------------------


def _sparsemax_reference(x: np.ndarray, axis: int) -> np.ndarray:
    """By sorting, as the paper has it."""
    x = np.moveaxis(x, axis, -1)
    y = np.zeros_like(x)
    for row in np.ndindex(x.shape[:-1]):
        down = np.sort(x[row])[::-1]
        above = np.cumsum(down) - 1
        k = max(i for i in range(1, len(down) + 1) if down[i - 1] * i > above[i - 1])
        y[row] = np.maximum(x[row] - above[k - 1] / k, 0)
    return np.moveaxis(y, -1, axis)


def _sparsemax_vjp(g: Any, y: Any, x: Any, *, axis: int) -> tuple[Any]:
    """g less its mean over the support, on the support."""
    support = ops.astype(y > 0, dtype_of(y))
    mean = ops.sum(g * support, axis, keepdims=True) / ops.sum(support, axis, keepdims=True)
    return ((g - mean) * support,)


def _sparsemax_samples(rng: np.random.Generator) -> list[Sample]:
    ends = np.array([[1000.0, 1000.25, -1000.0], [-50.0, -50.0, -50.0], [0.0, 1.0, 2.0], [0.0, 80.0, 0.0]])
    return [
        Sample((rng.normal(size=(3, 5)),), {"axis": 1}), Sample((rng.normal(size=(2, 3, 4)),), {"axis": 1}),
        Sample((ends,), {"axis": 1}, False),
    ]  # fmt: skip


@composite(
    infer=float_spec, vjp=_sparsemax_vjp, cost=lambda x, *, axis: 3 * x.size * x.shape[axis],
    samples=_sparsemax_samples, reference=_sparsemax_reference,
)  # fmt: skip
def sparsemax_(x: Any, *, axis: int) -> Any:
    """The point of the probability simplex that is nearest to x, along an axis."""
    # An element belongs to the support if those above it stick out by less than 1 in all. Comparing all pairs finds
    # that without sorting: n * n comparisons, which for the few classes of an output cost less than a sort.
    low = x - ops.stop_gradient(ops.max(x, axis, keepdims=True))
    excess = ops.maximum(ops.expand_dims(low, axis) - ops.expand_dims(low, axis + 1), 0.0)
    support = ops.astype(ops.sum(excess, axis + 1) < 1.0, dtype_of(x))
    tau = (ops.sum(low * support, axis, keepdims=True) - 1.0) / ops.sum(support, axis, keepdims=True)
    return ops.maximum(low - tau, 0.0)


def sparsemax(x: Any, axis: int = -1) -> Any:
    """Probabilities like softmax, of which many are exactly 0: the nearest point of the probability simplex.

    Time and memory grow with the square of the size along ``axis``. Keras up to 3.15.1 takes another threshold where
    more than one probability is not 0, and its results then do not add up to 1; later versions have this one.

    Reference: Martins, Astudillo, From Softmax to Sparsemax, 2016, arXiv 1602.02068.

    Example:
        >>> import numpy as np
        >>> sparsemax(np.array([0.5, 1.0, -1.0]))
        array([0.25, 0.75, 0.  ])
    """
    return sparsemax_(x, axis=normalize_axis(axis, len(shape_of(x))))
