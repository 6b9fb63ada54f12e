"""Elementwise ops: arithmetic, comparisons, logic, bits, and the functions of one variable."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError
from unilayers.graph import OPS, Sample
from unilayers.graph.record import Op, register
from unilayers.ops.define import _named, bind, broadcast_spec, composite, per_element, primitive, require_float, same_spec
from unilayers.spec import FLOATS, INTS, Spec, check_dtype, is_float

erf_reference = np.vectorize(math.erf, otypes=[float])

# ---- families ---------------------------------------------------------------


def _unary(
    name: str, doc: str, vjp: Callable[..., Any], reference: Callable[..., Any],
    domain: tuple[float, float] = (-2.0, 2.0), *, flops: int = 1, floats_only: bool = True, smooth: bool = True,
    tolerance: float = 1e-5,
) -> Callable[..., Any]:  # fmt: skip
    """One op of one variable. ``domain`` is where the samples are drawn; ``vjp(g, y, x)`` gives one gradient."""

    def infer(x: Spec) -> Spec:
        if floats_only:
            require_float(name, x.dtype)
        return x

    def samples(rng: np.random.Generator) -> list[Sample]:
        low, high = domain
        return [Sample((rng.uniform(low, high, (3, 4)),), differentiable=smooth), Sample((rng.uniform(low, high, ()),), {}, smooth)]

    def prepare(x: Any) -> Any:
        return (x,), {}

    op = register(
        Op(name, infer, lambda g, y, x: (vjp(g, y, x),), None, per_element(flops), reference, samples, {}, ("x",),
           None, tolerance, 2, doc)
    )  # fmt: skip

    def call(x: Any) -> Any:
        return bind(op, (x,), {})

    return _define(call, op)


def _define(call: Callable[..., Any], op: Op) -> Callable[..., Any]:
    call.__doc__ = op.doc
    return _named(call, call, op)


def _sample_pair(rng: np.random.Generator, low: float, high: float, dtype: str, smooth: bool) -> list[Sample]:
    def draw(*shape: int) -> np.ndarray:
        values = rng.uniform(low, high, shape)
        if dtype == "float64":
            return values
        return (values > (low + high) / 2) if dtype == "bool" else np.round(values).astype(dtype)

    shapes = [((3, 4), (3, 4)), ((3, 1), (4,)), ((2, 3), ())]
    return [Sample((draw(*a), draw(*b)), differentiable=smooth) for a, b in shapes]


def _binary(
    name: str, doc: str, vjp: Callable[..., Any] | None, reference: Callable[..., Any],
    domain: tuple[float, float] = (-2.0, 2.0), *, result: str = "", dtype: str = "float64", allowed: tuple[str, ...] = (),
    smooth: bool = True,
) -> Callable[..., Any]:  # fmt: skip
    """One broadcasting op of two operands; ``result`` is a fixed result dtype, ``dtype`` that of the samples."""

    def infer(a: Spec, b: Spec) -> Spec:
        spec = broadcast_spec(a, b)
        if allowed and spec.dtype not in allowed:
            raise DTypeError(f"cannot take {spec.dtype}", expected=" or ".join(allowed))
        return spec.with_dtype(result) if result else spec

    op = register(
        Op(name, infer, vjp, None, per_element(1), reference, lambda rng: _sample_pair(rng, *domain, dtype, smooth), {},
           ("a", "b"), 0, 1e-5, 2, doc)
    )  # fmt: skip

    def call(a: Any, b: Any) -> Any:
        return bind(op, (a, b), {})

    return _define(call, op)


# ---- arithmetic -------------------------------------------------------------

NUMBERS = (*INTS, *FLOATS)

add = _binary("add", "a + b, broadcast.", lambda g, y, a, b: (g, g), np.add, allowed=NUMBERS)
subtract = _binary("subtract", "a - b, broadcast.", lambda g, y, a, b: (g, ops.negative(g)), np.subtract, allowed=NUMBERS)
multiply = _binary("multiply", "a * b, broadcast.", lambda g, y, a, b: (g * b, g * a), np.multiply, allowed=NUMBERS)
_divide = _binary(
    "divide", "a / b for floats, broadcast; integers are brought to the default float dtype first.",
    lambda g, y, a, b: (g / b, ops.negative(g * y / b)), np.divide, (0.5, 2.0), allowed=FLOATS,
)  # fmt: skip


def divide(a: Any, b: Any) -> Any:
    """a / b, broadcast; integers are brought to the default float dtype first."""
    if not is_float(ops.dtype_of(a)) and not is_float(ops.dtype_of(b)):
        a = ops.astype(a, ops.floatx())
    return _divide(a, b)


floor_divide = _binary(
    "floor_divide", "The largest integer not above a / b.", lambda g, y, a, b: (None, None), np.floor_divide, (1.0, 9.0),
    allowed=NUMBERS, smooth=False,
)  # fmt: skip
remainder = _binary(
    "remainder", "a - floor(a / b) * b: the sign of b, as Python's %.",
    lambda g, y, a, b: (g, ops.negative(g * ops.floor(a / b))), np.remainder, (1.1, 9.0), allowed=NUMBERS, smooth=False,
)  # fmt: skip


def _power_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    positive = ops.where(a > 0, a, ops.ones_like(a))
    return g * b * ops.power(a, b - 1), ops.where(a > 0, g * y * ops.log(positive), ops.zeros_like(y))


power = _binary("power", "a to the b, broadcast.", _power_vjp, np.power, (0.5, 2.0), allowed=NUMBERS)


def _select_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """Gradient of max and min: to the operand that was taken; ties share it half and half."""
    half = ops.multiply(ops.astype(ops.equal(a, b), y.dtype), 0.5)
    to_a = ops.where(ops.equal(a, b), half, ops.astype(ops.equal(y, a), y.dtype))
    return g * to_a, g * (1.0 - to_a)


maximum = _binary("maximum", "The larger of a and b; a tie shares the gradient equally.", _select_vjp, np.maximum, allowed=NUMBERS)
minimum = _binary("minimum", "The smaller of a and b; a tie shares the gradient equally.", _select_vjp, np.minimum, allowed=NUMBERS)


def _arctan2_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    scale = g / (a * a + b * b)
    return scale * b, ops.negative(scale * a)


atan2 = _binary("atan2", "The angle of the point (b, a), in radians.", _arctan2_vjp, np.arctan2, (0.5, 2.0), allowed=FLOATS)

# ---- comparison, logic, bits ------------------------------------------------


def _none(g: Any, y: Any, *inputs: Any) -> tuple[None, ...]:
    return (None,) * len(inputs)


for _name, _doc in {
    "equal": "a == b", "not_equal": "a != b", "less": "a < b", "less_equal": "a <= b",
    "greater": "a > b", "greater_equal": "a >= b",
}.items():  # fmt: skip
    globals()[_name] = _binary(
        _name, f"{_doc}, elementwise, as bool.", _none, getattr(np, _name), (0.0, 4.0), result="bool", dtype="int32", smooth=False
    )
for _name in ("logical_and", "logical_or", "logical_xor"):
    globals()[_name] = _binary(
        _name, f"{_name[8:]} of two bools.", _none, getattr(np, _name), (0.0, 1.0), dtype="bool", allowed=("bool",), smooth=False
    )
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    globals()[_name] = _binary(
        _name, f"{_name[8:]} of the bits of two integers or bools.", _none, getattr(np, _name), (-9.0, 9.0), dtype="int32",
        allowed=("bool", *INTS), smooth=False,
    )  # fmt: skip
bitwise_left_shift = _binary(
    "bitwise_left_shift", "Bits of a moved left by b.", _none, np.left_shift, (0.0, 9.0), dtype="int32", allowed=INTS, smooth=False
)
bitwise_right_shift = _binary(
    "bitwise_right_shift", "Bits of a moved right by b; the sign is kept.", _none, np.right_shift, (0.0, 9.0), dtype="int32",
    allowed=INTS, smooth=False,
)  # fmt: skip


def _logical_not_infer(x: Spec) -> Spec:
    if x.dtype != "bool":
        raise DTypeError("needs a bool operand", received=x.dtype)
    return x


@primitive(
    infer=_logical_not_infer, vjp=_none, cost=per_element(), reference=np.logical_not,
    samples=lambda rng: [Sample((rng.uniform(size=(3, 4)) > 0.5,), differentiable=False)],
)  # fmt: skip
def logical_not(x: Any) -> Any:
    """not x, elementwise, for bools."""
    return (x,), {}


@primitive(
    infer=same_spec, vjp=_none, cost=per_element(), reference=np.invert,
    samples=lambda rng: [Sample((rng.integers(-9, 9, (3, 4), dtype=np.int32),), differentiable=False)],
)  # fmt: skip
def bitwise_invert(x: Any) -> Any:
    """Every bit of an integer flipped; not x for bools."""
    return (x,), {}


def _test(name: str, doc: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    """An op float -> bool."""
    values = np.array([0.0, 1.0, np.inf, -np.inf, np.nan])
    op = register(
        Op(name, lambda x: x.with_dtype("bool"), _none, None, per_element(), reference,
           lambda rng: [Sample((values,), differentiable=False)], {}, ("x",), None, 0.0, 2, doc)
    )  # fmt: skip
    return _define(lambda x: bind(op, (x,), {}), op)


isnan = _test("isnan", "Whether x is not a number.", np.isnan)
isinf = _test("isinf", "Whether x is infinite.", np.isinf)
isfinite = _test("isfinite", "Whether x is neither infinite nor NaN.", np.isfinite)

# ---- one variable -----------------------------------------------------------

negative = _unary("negative", "-x.", lambda g, y, x: ops.negative(g), np.negative, floats_only=False)
abs = _unary("abs", "|x|; gradient 0 at 0.", lambda g, y, x: g * ops.sign(x), np.abs, (0.2, 2.0), floats_only=False)
sign = _unary("sign", "-1, 0 or 1.", lambda g, y, x: None, np.sign, floats_only=False, smooth=False)
floor = _unary("floor", "The largest integer not above x.", lambda g, y, x: None, np.floor, smooth=False)
ceil = _unary("ceil", "The smallest integer not below x.", lambda g, y, x: None, np.ceil, smooth=False)
round = _unary("round", "The nearest integer, ties to even.", lambda g, y, x: None, np.round, smooth=False)
exp = _unary("exp", "e to the x.", lambda g, y, x: g * y, np.exp)
expm1 = _unary("expm1", "exp(x) - 1, exact near 0.", lambda g, y, x: g * (y + 1.0), np.expm1)
log = _unary("log", "Natural logarithm.", lambda g, y, x: g / x, np.log, (0.3, 3.0))
log1p = _unary("log1p", "log(1 + x), exact near 0.", lambda g, y, x: g / (x + 1.0), np.log1p, (-0.5, 3.0))
sqrt = _unary("sqrt", "Square root.", lambda g, y, x: g * 0.5 / y, np.sqrt, (0.3, 3.0))
rsqrt = _unary("rsqrt", "1 / sqrt(x).", lambda g, y, x: g * -0.5 * y / x, lambda x: 1 / np.sqrt(x), (0.3, 3.0))
square = _unary("square", "x * x.", lambda g, y, x: g * 2.0 * x, np.square, floats_only=False)
reciprocal = _unary("reciprocal", "1 / x.", lambda g, y, x: ops.negative(g * y * y), np.reciprocal, (0.5, 2.0))
sin = _unary("sin", "Sine, x in radians.", lambda g, y, x: g * ops.cos(x), np.sin)
cos = _unary("cos", "Cosine, x in radians.", lambda g, y, x: ops.negative(g * ops.sin(x)), np.cos)
tan = _unary("tan", "Tangent, x in radians.", lambda g, y, x: g * (y * y + 1.0), np.tan, (-1.2, 1.2))
asin = _unary("asin", "Arc sine.", lambda g, y, x: g * ops.rsqrt(1.0 - x * x), np.arcsin, (-0.8, 0.8))
acos = _unary("acos", "Arc cosine.", lambda g, y, x: ops.negative(g * ops.rsqrt(1.0 - x * x)), np.arccos, (-0.8, 0.8))
atan = _unary("atan", "Arc tangent.", lambda g, y, x: g / (x * x + 1.0), np.arctan)
sinh = _unary("sinh", "Hyperbolic sine.", lambda g, y, x: g * ops.cosh(x), np.sinh)
cosh = _unary("cosh", "Hyperbolic cosine.", lambda g, y, x: g * ops.sinh(x), np.cosh)
tanh = _unary("tanh", "Hyperbolic tangent.", lambda g, y, x: g * (1.0 - y * y), np.tanh)
erf = _unary(
    "erf", "The error function.", lambda g, y, x: g * (2 / math.sqrt(math.pi)) * ops.exp(ops.negative(x * x)), erf_reference, flops=8
)

# ---- selection, casts -------------------------------------------------------


def _where_infer(condition: Spec, a: Spec, b: Spec) -> Spec:
    if condition.dtype != "bool":
        raise DTypeError("the condition must be bool", received=condition.dtype)
    return broadcast_spec(condition, a, b)


def _where_vjp(g: Any, y: Any, c: Any, a: Any, b: Any) -> tuple[Any, ...]:
    zero = ops.zeros_like(g)
    return None, ops.where(c, g, zero), ops.where(c, zero, g)


def _where_samples(rng: np.random.Generator) -> list[Sample]:
    c = rng.uniform(size=(3, 4)) > 0.5
    return [Sample((c, rng.normal(size=(3, 4)), rng.normal(size=(4,)))), Sample((c, rng.normal(size=(3, 1)), rng.normal(size=())))]


@primitive(infer=_where_infer, vjp=_where_vjp, cost=per_element(), reference=np.where, samples=_where_samples, promotes=1)
def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b; all three broadcast."""
    return (condition, a, b), {}


def _astype_infer(x: Spec, *, dtype: str) -> Spec:
    return x.with_dtype(dtype)


def _astype_vjp(g: Any, y: Any, x: Any, *, dtype: str) -> tuple[Any]:
    source = ops.dtype_of(x)
    return (ops.astype(g, source) if is_float(source) and is_float(dtype) else None,)


@primitive(
    infer=_astype_infer, vjp=_astype_vjp, reference=lambda x, dtype: x.astype(dtype),
    samples=lambda rng: [
        Sample((rng.uniform(-3, 3, (3, 4)),), {"dtype": d}, d == "float64") for d in ("float64", "int32", "float32")
    ] + [Sample((np.array([True, False]),), {"dtype": "float32"}, False)],
)  # fmt: skip
def astype(x: Any, dtype: str) -> Any:
    """x as another dtype; float to integer truncates toward zero."""
    return (x,), {"dtype": check_dtype(dtype)}


@primitive(
    infer=same_spec, vjp=lambda g, y, x: (g,), reference=lambda x: x, samples=lambda rng: [Sample((rng.normal(size=(2, 3)),))]
)
def identity(x: Any) -> Any:
    """x itself, as a value of its own."""
    return (x,), {}


@primitive(
    infer=same_spec, vjp=lambda g, y, x: (None,), reference=lambda x: x,
    samples=lambda rng: [Sample((rng.normal(size=(2, 3)),), differentiable=False)],
)  # fmt: skip
def stop_gradient(x: Any) -> Any:
    """x itself, through which no gradient flows."""
    return (x,), {}


@composite(
    reference=lambda x, minimum, maximum: np.clip(x, minimum, maximum),
    samples=lambda rng: [Sample((rng.uniform(-2, 2, (3, 5)),), {"minimum": -1.0, "maximum": 0.7})],
)
def clip(x: Any, *, minimum: float = -math.inf, maximum: float = math.inf) -> Any:
    """x kept inside [minimum, maximum]; the gradient is 0 outside."""
    return ops.minimum(ops.maximum(x, minimum), maximum)


