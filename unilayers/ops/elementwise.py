"""Elementwise ops: arithmetic, comparisons, logic, bits, and the functions of one variable."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError
from unilayers.graph import Sample
from unilayers.graph.record import Op, register
from unilayers.ops.define import (
    _named,
    also,
    bind,
    broadcast_spec,
    composite,
    dtype_of,
    per_element,
    primitive,
    require_float,
    same_spec,
)
from unilayers.spec import FLOATS, INTS, Spec, check_dtype, is_float

NUMBERS = (*INTS, *FLOATS)
ALL = ("bool", *NUMBERS)

Function = Callable[..., Any]  # what users call

erf_reference = np.vectorize(math.erf, otypes=[float])

# ---- families ---------------------------------------------------------------


def _unary(
    name: str, doc: str, vjp: Callable[..., Any], reference: Callable[..., Any],
    domain: tuple[float, float] = (-2.0, 2.0), *, flops: int = 1, floats_only: bool = True, smooth: bool = True,
    tolerance: float = 1e-5, engines: str = "",
) -> Callable[..., Any]:  # fmt: skip
    """One op of one variable. ``domain`` is where the samples are drawn; ``vjp(g, y, x)`` gives one gradient;
    ``engines`` is what engines differ in, and what the op does."""

    def infer(x: Spec) -> Spec:
        if x.dtype not in (FLOATS if floats_only else NUMBERS):
            raise DTypeError(f"cannot take {x.dtype}", expected=" or ".join(FLOATS if floats_only else NUMBERS))
        return x

    def samples(rng: np.random.Generator) -> list[Sample]:
        low, high = domain
        return [
            Sample((rng.uniform(low, high, (3, 4)),), differentiable=smooth),
            Sample((rng.uniform(low, high, ()),), {}, smooth),
        ]

    def prepare(x: Any) -> Any:
        return (x,), {}

    op = register(
        Op(name, infer, lambda g, y, x: (vjp(g, y, x),), None, per_element(flops), reference, samples, {}, ("x",),
           None, tolerance, 2, _documented(doc, engines))
    )  # fmt: skip

    def call(x: Any) -> Any:
        return bind(op, (x,), {})

    return _define(call, op)


def _documented(doc: str, engines: str) -> str:
    return f"{doc}\n\nEngines: {engines}" if engines else doc


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
    domain: tuple[float, float] = (-2.0, 2.0), *, result: str = "", dtype: str = "float64",
    allowed: tuple[str, ...] = (), smooth: bool = True, operands: tuple[str, str] = ("x1", "x2"), engines: str = "",
) -> Callable[..., Any]:  # fmt: skip
    """One broadcasting op of two operands; ``result`` is a fixed result dtype, ``dtype`` that of the samples;
    ``engines`` is what engines differ in, and what the op does."""

    def infer(a: Spec, b: Spec) -> Spec:
        spec = broadcast_spec(a, b)
        if allowed and spec.dtype not in allowed:
            raise DTypeError(f"cannot take {spec.dtype}", expected=" or ".join(allowed))
        return spec.with_dtype(result) if result else spec

    op = register(
        Op(name, infer, vjp, None, per_element(1), reference, lambda rng: _sample_pair(rng, *domain, dtype, smooth), {},
           operands, 0, 1e-5, 2, _documented(doc, engines))
    )  # fmt: skip

    def call(x1: Any, x2: Any) -> Any:
        return bind(op, (x1, x2), {})

    def of_bits(x: Any, y: Any) -> Any:
        return bind(op, (x, y), {})

    return _define(call if operands == ("x1", "x2") else of_bits, op)


# ---- arithmetic -------------------------------------------------------------

add: Function = _binary(
    "add", "a + b, broadcast; of bools, whether one is true.", lambda g, y, a, b: (g, g), np.add, allowed=ALL,
    engines="An int32 and a float32 make float64 in NumPy, float32 in PyTorch and JAX, and an error in TensorFlow; "
    "here, and in all ops of several operands, no integer widens a float. TensorFlow cannot add bools; here, as in the "
    "others, they are joined by or.",
)  # fmt: skip
subtract: Function = _binary(
    "subtract", "a - b, broadcast.", lambda g, y, a, b: (g, ops.negative(g)), np.subtract, allowed=NUMBERS
)
multiply: Function = _binary(
    "multiply", "a * b, broadcast; of bools, whether both are true.", lambda g, y, a, b: (g * b, g * a), np.multiply,
    allowed=ALL, engines="TensorFlow cannot multiply bools; here, as in the others, they are joined by and.",
)  # fmt: skip
_divide: Function = _binary(
    "divide", "a / b for floats, broadcast; integers are brought to the default float dtype first.",
    lambda g, y, a, b: (g / b, ops.negative(g * y / b)), np.divide, (0.5, 2.0), allowed=FLOATS,
)  # fmt: skip


def divide(x1: Any, x2: Any) -> Any:
    """x1 / x2, broadcast; integers are brought to the default float dtype first."""
    if not is_float(ops.dtype_of(x1)) and not is_float(ops.dtype_of(x2)):
        x1 = ops.astype(x1, ops.floatx())
    return _divide(x1, x2)


floor_divide: Function = _binary(
    "floor_divide", "The largest integer not above a / b.", lambda g, y, a, b: (None, None), np.floor_divide,
    (1.0, 9.0), allowed=NUMBERS, smooth=False,
    engines="TensorFlow rounds a / b first, so that 1 // 0.1 is 10; here it is 9, as in the others. By the integer 0, "
    "PyTorch and TensorFlow raise, NumPy gives 0 and JAX -1 or -2, also here.",
)  # fmt: skip
remainder: Function = _binary(
    "remainder", "a - floor(a / b) * b: the sign of b, as Python's %.",
    lambda g, y, a, b: (g, ops.negative(g * ops.floor(a / b))), np.remainder, (1.1, 9.0), allowed=NUMBERS, smooth=False,
    engines="By the integer 0, PyTorch and TensorFlow raise, NumPy and JAX give 0, also here.",
)  # fmt: skip


def _power_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """By a: 0 where b is 0, also at a = 0. By b: 0 where a is not positive, as y is not real on both sides of b."""
    to_a = g * b * ops.power(a, ops.where(ops.equal(b, 0), 1.0, b - 1))
    return to_a, ops.where(a > 0, g * y * ops.log(ops.where(a > 0, a, 1.0)), 0.0)


power: Function = _binary(
    "power", "a to the b, broadcast.", _power_vjp, np.power, (0.5, 2.0), allowed=NUMBERS,
    engines="An integer to a negative power raises in NumPy and TensorFlow, and is rounded towards 0 in PyTorch and "
    "compiled JAX, also here. At 0 ** 0 the gradient to the base is NaN in TensorFlow and JAX, and 0 in PyTorch and "
    "here; that to the exponent of a negative base is NaN in PyTorch and JAX, and 0 in TensorFlow and here.",
)  # fmt: skip


def _select_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """Gradient of max and min: to the operand that was taken; ties share it half and half."""
    half = ops.multiply(ops.astype(ops.equal(a, b), y.dtype), 0.5)
    to_a = ops.where(ops.equal(a, b), half, ops.astype(ops.equal(y, a), y.dtype))
    return g * to_a, g * (1.0 - to_a)


maximum: Function = _binary(
    "maximum", "The larger of a and b; a tie shares the gradient equally.", _select_vjp, np.maximum, allowed=ALL,
    engines="In a tie TensorFlow gives the gradient to the first operand; here both get half, as in PyTorch and JAX. "
    "TensorFlow has none of bools; here it is or, as in the others.",
)  # fmt: skip
minimum: Function = _binary(
    "minimum", "The smaller of a and b; a tie shares the gradient equally.", _select_vjp, np.minimum, allowed=ALL,
    engines="In a tie TensorFlow gives the gradient to the first operand; here both get half, as in PyTorch and JAX. "
    "TensorFlow has none of bools; here it is and, as in the others.",
)  # fmt: skip


def _arctan2_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    scale = g / (a * a + b * b)
    return scale * b, ops.negative(scale * a)


atan2: Function = _binary(
    "atan2", "The angle of the point (b, a), in radians.", _arctan2_vjp, np.arctan2, (0.5, 2.0), allowed=FLOATS
)

# ---- comparison, logic, bits ------------------------------------------------


def _none(g: Any, y: Any, *inputs: Any) -> tuple[None, ...]:
    return (None,) * len(inputs)


def _compare(name: str, doc: str) -> Callable[..., Any]:
    return _binary(name, doc, _none, getattr(np, name), (0.0, 4.0), result="bool", dtype="int32", smooth=False)


def truth(x: Any) -> Any:
    """x as bools: whether its elements are not 0."""
    return x if dtype_of(x) == "bool" else not_equal(x, 0)


def _logical(name: str, doc: str) -> Callable[..., Any]:
    of_bools = _binary(name, doc, _none, getattr(np, name), (0.0, 1.0), dtype="bool", allowed=("bool",), smooth=False)

    def call(x1: Any, x2: Any) -> Any:
        return of_bools(truth(x1), truth(x2))

    return _define(call, of_bools.op)  # type: ignore[attr-defined]


def _bitwise(
    name: str,
    doc: str,
    domain: tuple[float, float] = (-9.0, 9.0),
    numpy_name: str = "",
    allowed: tuple[str, ...] = ("bool", *INTS),
    engines: str = "",
) -> Callable[..., Any]:
    reference = getattr(np, numpy_name or name)
    return _binary(
        name, doc, _none, reference, domain, dtype="int32", allowed=allowed, smooth=False, operands=("x", "y"),
        engines=engines,
    )  # fmt: skip


equal: Function = _compare("equal", "a == b, elementwise, as bool.")
not_equal: Function = _compare("not_equal", "a != b, elementwise, as bool.")
less: Function = _compare("less", "a < b, elementwise, as bool.")
less_equal: Function = _compare("less_equal", "a <= b, elementwise, as bool.")
greater: Function = _compare("greater", "a > b, elementwise, as bool.")
greater_equal: Function = _compare("greater_equal", "a >= b, elementwise, as bool.")
logical_and: Function = _logical("logical_and", "x1 and x2, as bool; numbers count as true where they are not 0.")
logical_or: Function = _logical("logical_or", "x1 or x2, as bool; see ``logical_and``.")
logical_xor: Function = _logical("logical_xor", "Whether exactly one of x1 and x2 is true; see ``logical_and``.")
bitwise_and: Function = _bitwise("bitwise_and", "And of the bits of two integers or bools.")
bitwise_or: Function = _bitwise("bitwise_or", "Or of the bits of two integers or bools.")
bitwise_xor: Function = _bitwise("bitwise_xor", "Exclusive or of the bits of two integers or bools.")
bitwise_left_shift: Function = _bitwise(
    "bitwise_left_shift", "Bits of a moved left by b.", (0.0, 9.0), "left_shift", INTS,
    engines="By a number below 0, or by all bits or more, TensorFlow takes the nearest number that is allowed, while "
    "nothing is left in the others, also here.",
)  # fmt: skip
bitwise_right_shift: Function = _bitwise(
    "bitwise_right_shift", "Bits of a moved right by b; the sign is kept.", (0.0, 9.0), "right_shift", INTS,
    engines="By a number below 0 TensorFlow does not move at all, while only the sign is left in the others, also "
    "here.",
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
    """not x, as bool; numbers count as true where they are not 0."""
    return (truth(x),), {}


def _invert_infer(x: Spec) -> Spec:
    if x.dtype not in ("bool", *INTS):
        raise DTypeError("needs integers or bools", received=x.dtype)
    return x


@primitive(
    infer=_invert_infer, vjp=_none, cost=per_element(), reference=np.invert,
    samples=lambda rng: [Sample((rng.integers(-9, 9, (3, 4), dtype=np.int32),), differentiable=False)],
)  # fmt: skip
def bitwise_invert(x: Any) -> Any:
    """Every bit of an integer flipped; not x for bools."""
    return (x,), {}


def _test(name: str, doc: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    """An op float -> bool."""
    values = np.array([0.0, 1.0, np.inf, -np.inf, np.nan])

    def infer(x: Spec) -> Spec:
        require_float(x.dtype)
        return x.with_dtype("bool")

    op = register(
        Op(name, infer, _none, None, per_element(), reference,
           lambda rng: [Sample((values,), differentiable=False)], {}, ("x",), None, 0.0, 2, doc)
    )  # fmt: skip
    return _define(lambda x: bind(op, (x,), {}), op)


isnan: Function = _test("isnan", "Whether x is not a number.", np.isnan)
isinf: Function = _test("isinf", "Whether x is infinite.", np.isinf)
isfinite: Function = _test("isfinite", "Whether x is neither infinite nor NaN.", np.isfinite)

# ---- one variable -----------------------------------------------------------

negative: Function = _unary("negative", "-x.", lambda g, y, x: ops.negative(g), np.negative, floats_only=False)
abs: Function = _unary(
    "abs", "|x|; gradient 0 at 0.", lambda g, y, x: g * ops.sign(x), np.abs, (0.2, 2.0), floats_only=False,
    engines="The gradient at 0 is 1 in JAX, and 0 in PyTorch, in TensorFlow and here.",
)  # fmt: skip
sign: Function = _unary(
    "sign", "-1, 0 or 1; NaN of NaN.", lambda g, y, x: None, np.sign, floats_only=False, smooth=False,
    engines="PyTorch gives 0 for NaN; here it is NaN, as in the others.",
)  # fmt: skip
floor: Function = _unary("floor", "The largest integer not above x.", lambda g, y, x: None, np.floor, smooth=False)
ceil: Function = _unary("ceil", "The smallest integer not below x.", lambda g, y, x: None, np.ceil, smooth=False)
_round: Function = _unary("round", "The nearest integer, ties to even.", lambda g, y, x: None, np.round, smooth=False)
exp: Function = _unary("exp", "e to the x.", lambda g, y, x: g * y, np.exp)
expm1: Function = _unary("expm1", "exp(x) - 1, exact near 0.", lambda g, y, x: g * (y + 1.0), np.expm1)
log: Function = _unary("log", "Natural logarithm.", lambda g, y, x: g / x, np.log, (0.3, 3.0))
log1p: Function = _unary("log1p", "log(1 + x), exact near 0.", lambda g, y, x: g / (x + 1.0), np.log1p, (-0.5, 3.0))
sqrt: Function = _unary("sqrt", "Square root.", lambda g, y, x: g * 0.5 / y, np.sqrt, (0.3, 3.0))
rsqrt: Function = _unary(
    "rsqrt", "1 / sqrt(x).", lambda g, y, x: g * -0.5 * y / x, lambda x: 1 / np.sqrt(x), (0.3, 3.0)
)
square: Function = _unary("square", "x * x.", lambda g, y, x: g * 2.0 * x, np.square, floats_only=False)
reciprocal: Function = _unary(
    "reciprocal", "1 / x.", lambda g, y, x: ops.negative(g * y * y), np.reciprocal, (0.5, 2.0)
)
sin: Function = _unary("sin", "Sine, x in radians.", lambda g, y, x: g * ops.cos(x), np.sin)
cos: Function = _unary("cos", "Cosine, x in radians.", lambda g, y, x: ops.negative(g * ops.sin(x)), np.cos)
tan: Function = _unary("tan", "Tangent, x in radians.", lambda g, y, x: g * (y * y + 1.0), np.tan, (-1.2, 1.2))
asin: Function = _unary("asin", "Arc sine.", lambda g, y, x: g * ops.rsqrt(1.0 - x * x), np.arcsin, (-0.8, 0.8))
acos: Function = _unary(
    "acos", "Arc cosine.", lambda g, y, x: ops.negative(g * ops.rsqrt(1.0 - x * x)), np.arccos, (-0.8, 0.8)
)
atan: Function = _unary("atan", "Arc tangent.", lambda g, y, x: g / (x * x + 1.0), np.arctan)
sinh: Function = _unary("sinh", "Hyperbolic sine.", lambda g, y, x: g * ops.cosh(x), np.sinh)
cosh: Function = _unary("cosh", "Hyperbolic cosine.", lambda g, y, x: g * ops.sinh(x), np.cosh)
tanh: Function = _unary("tanh", "Hyperbolic tangent.", lambda g, y, x: g * (1.0 - y * y), np.tanh)
erf: Function = _unary(
    "erf",
    "The error function.",
    lambda g, y, x: g * (2 / math.sqrt(math.pi)) * ops.exp(ops.negative(x * x)),
    erf_reference,
    flops=8,
)


def round(x: Any, decimals: int = 0) -> Any:
    """The nearest number with so many decimals (below 0: tens, hundreds...), ties to even."""
    if not decimals:
        return _round(x)
    return divide(_round(multiply(x, 10.0**decimals)), 10.0**decimals)


# ---- selection, casts -------------------------------------------------------


def _where_infer(condition: Spec, a: Spec, b: Spec) -> Spec:
    if condition.dtype != "bool":
        raise DTypeError("the condition must be bool", received=condition.dtype)
    return broadcast_spec(condition, a, b)


def _where_vjp(g: Any, y: Any, c: Any, a: Any, b: Any) -> tuple[Any, ...]:
    return None, ops.where(c, g, 0.0), ops.where(c, 0.0, g)


def _where_samples(rng: np.random.Generator) -> list[Sample]:
    c = rng.uniform(size=(3, 4)) > 0.5
    return [
        Sample((c, rng.normal(size=(3, 4)), rng.normal(size=(4,)))),
        Sample((c, rng.normal(size=(3, 1)), rng.normal(size=()))),
    ]


@primitive(
    infer=_where_infer, vjp=_where_vjp, cost=per_element(), reference=np.where, samples=_where_samples, promotes=1
)
def where_(condition: Any, x1: Any, x2: Any) -> Any:
    """x1 where the condition holds, else x2; all three broadcast."""
    return (condition, x1, x2), {}


def where(condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """x1 where the condition (bools, or numbers that are not 0) holds, else x2; all three broadcast.

    With the condition alone, the places where it holds, see ``nonzero``.
    """
    if x1 is None and x2 is None:
        return ops.nonzero(condition)
    return bind(_WHERE, (truth(condition), x1, x2), {})


_WHERE = where_.op  # type: ignore[attr-defined]


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
    """x as another dtype; float to integer truncates toward zero.

    Engines: JAX makes NaN 0 and what an integer dtype cannot hold its nearest limit; the others leave it to the
    processor (the smallest int32 for all of these on x86). So it is here: ``saturate_cast`` clips first.
    """
    return (x,), {"dtype": check_dtype(dtype)}


@primitive(
    infer=same_spec,
    vjp=lambda g, y, x: (g,),
    reference=lambda x: x,
    samples=lambda rng: [Sample((rng.normal(size=(2, 3)),))],
)
def identity_(x: Any) -> Any:
    """x itself, as a value of its own."""
    return (x,), {}


def identity(n: Any, dtype: str | None = None) -> Any:
    """Ones on the diagonal of an n by n matrix, for an int n; any other value itself, as a value of its own."""
    return ops.eye(n, dtype=dtype) if isinstance(n, int) else identity_(n)


@primitive(
    infer=same_spec, vjp=lambda g, y, x: (None,), reference=lambda x: x,
    samples=lambda rng: [Sample((rng.normal(size=(2, 3)),), differentiable=False)],
)  # fmt: skip
def stop_gradient(variable: Any) -> Any:
    """The value itself, through which no gradient flows."""
    return (variable,), {}


def _clip_vjp(g: Any, y: Any, x: Any, *, minimum: float | None, maximum: float | None) -> tuple[Any]:
    if minimum is not None:
        g = ops.where(x >= minimum, g, 0.0)
    return (g if maximum is None else ops.where(x <= maximum, g, 0.0),)


@composite(
    infer=same_spec, vjp=_clip_vjp, cost=per_element(2),
    reference=lambda x, minimum=None, maximum=None: np.clip(x, minimum, maximum),
    samples=lambda rng: [
        *(Sample((rng.uniform(-2, 2, (3, 5)),), a) for a in ({"minimum": -1.0, "maximum": 0.7}, {"minimum": 0.0}, {})),
        Sample((np.array([-2, 0, 3], np.int32),), {"minimum": -1, "maximum": 2}, False),
    ],
)  # fmt: skip
def clip_(x: Any, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """x kept inside [minimum, maximum], None for no limit; the gradient is 0 outside, and g on the limits."""
    low = x if minimum is None else ops.maximum(x, minimum)
    return low if maximum is None else ops.minimum(low, maximum)


@also(minimum="x_min", maximum="x_max")
def clip(x: Any, x_min: Any = None, x_max: Any = None) -> Any:
    """x kept inside [x_min, x_max], None for no limit; the gradient is 0 outside, and g on limits that are numbers.

    Args:
        x: Any numbers.
        x_min: The lower limit, a number or an array that broadcasts against x; ``minimum`` is another name.
        x_max: The upper limit; ``maximum`` is another name.

    Engines: On a limit the gradient is 1 in PyTorch and TensorFlow and 1/2 in JAX; here 1. Where the lower limit is
    above the upper one, TensorFlow gives the lower and the others the upper, as here.
    """
    if all(limit is None or isinstance(limit, (int, float)) for limit in (x_min, x_max)):
        return clip_(x, minimum=x_min, maximum=x_max)
    low = x if x_min is None else ops.maximum(x, x_min)
    return low if x_max is None else ops.minimum(low, x_max)
