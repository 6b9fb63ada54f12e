"""Further functions of single numbers, by the names of NumPy and Keras: written with ops, so with their gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.graph import Sample
from unilayers.ops.activation import float_spec
from unilayers.ops.define import composite, dtype_of, per_element
from unilayers.ops.elementwise import NUMBERS, abs, add, divide, equal, less, log1p, multiply, sqrt, subtract, where
from unilayers.spec import is_float

__all__ = [
    "angle", "arccosh", "arcsinh", "arctanh", "conj", "conjugate", "erfc", "erfinv", "fabs", "fmax", "fmin", "fmod",
    "gcd", "heaviside", "imag", "isneginf", "isposinf", "isreal", "lcm", "ldexp", "logaddexp2", "real", "saturate_cast",
    "signbit", "sinc",
]  # fmt: skip


def floats(x: Any) -> Any:
    """x, integers and bools as the default float dtype."""
    return x if is_float(dtype_of(x)) else ops.astype(x, ops.floatx())


# ---- inverse hyperbolic functions ---------------------------------------------------


def arcsinh(x: Any) -> Any:
    """The inverse of ``sinh``: log(x + sqrt(x**2 + 1)), exact near 0."""
    size = abs(floats(x))
    square = multiply(size, size)
    return multiply(ops.sign(x), log1p(add(size, divide(square, add(sqrt(add(square, 1.0)), 1.0)))))


def arccosh(x: Any) -> Any:
    """The inverse of ``cosh`` for x >= 1: log(x + sqrt(x**2 - 1)), exact near 1."""
    above = subtract(floats(x), 1.0)
    return log1p(add(above, multiply(sqrt(above), sqrt(add(above, 2.0)))))


def arctanh(x: Any) -> Any:
    """The inverse of ``tanh`` for -1 < x < 1."""
    x = floats(x)
    return multiply(subtract(log1p(x), log1p(ops.negative(x))), 0.5)


# ---- error function -------------------------------------------------------------------


def _polynomial(x: Any, *coefficients: float) -> Any:
    """By Horner's rule, the highest power first."""
    y: Any = coefficients[0]
    for c in coefficients[1:]:
        y = y * x + c
    return y


# erfc(x) * exp(x**2) for x from 0.5 to 4, and beyond: quotients of polynomials, the highest power first.
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_FAR = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip
_SLOPE = 2 / math.sqrt(math.pi)


@composite(
    infer=float_spec, cost=per_element(40), reference=np.vectorize(math.erfc, otypes=[float]),
    vjp=lambda g, y, x: (g * -_SLOPE * ops.exp(ops.negative(x * x)),),
    samples=lambda rng: [
        Sample((rng.uniform(-2, 3, (3, 4)),)),
        Sample((np.array([-6.0, -0.5, 0.0, 0.4, 0.6, 3.9, 4.1, 5.0]),), {}, False),
    ],
)  # fmt: skip
def erfc(x: Any) -> Any:
    """1 - erf(x), exact where it is small.

    Reference: Cody, Rational Chebyshev approximations for the error function, 1969.
    """
    size = ops.maximum(ops.abs(x), 0.5)
    middle = ops.minimum(size, 4.0)
    scaled = _polynomial(middle, *_MIDDLE[0]) / _polynomial(middle, *_MIDDLE[1])
    inverse = 1.0 / ops.square(ops.maximum(size, 4.0))
    series = inverse * _polynomial(inverse, *_FAR[0]) / _polynomial(inverse, *_FAR[1])
    far = (1 / math.sqrt(math.pi) - series) / ops.maximum(size, 4.0)
    tail = ops.where(size < 4.0, scaled, far) * ops.exp(ops.negative(ops.square(size)))
    return ops.where(ops.abs(x) < 0.5, 1.0 - ops.erf(x), ops.where(x < 0.0, 2.0 - tail, tail))


# Of w = -log(1 - x**2), below 5 and beyond: the highest power first.
_INNER = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_OUTER = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


def _erfinv_reference(x: np.ndarray) -> np.ndarray:
    """By bisection."""
    low, high = np.full(x.shape, -6.0), np.full(x.shape, 6.0)
    for _ in range(80):
        middle = (low + high) / 2
        below = np.vectorize(math.erf, otypes=[float])(middle) < x
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


@composite(
    infer=float_spec, cost=per_element(60), reference=_erfinv_reference, tolerance=1e-5,
    vjp=lambda g, y, x: (g * ops.exp(y * y) / _SLOPE,),
    samples=lambda rng: [
        Sample((rng.uniform(-0.9, 0.9, (3, 4)),)), Sample((np.array([0.0, 0.999, -0.98]),), {}, False),
    ],
)  # fmt: skip
def erfinv(x: Any) -> Any:
    """The inverse of the error function, for -1 < x < 1.

    An approximation in single precision, and two steps of Newton's method.

    Reference: Giles, Approximating the erfinv function, 2012.
    """
    size = ops.where(ops.abs(x) < 1.0, ops.abs(x), 0.5)
    rest = 1.0 - size
    w = ops.negative(ops.log(rest * (1.0 + size)))
    near, far = ops.minimum(w, 5.0) - 2.5, ops.sqrt(ops.maximum(w, 5.0)) - 3.0
    y = ops.where(w < 5.0, _polynomial(near, *_INNER), _polynomial(far, *_OUTER)) * size
    for _ in range(2):  # of erf(y) = size; far out of log(erfc(y)) = log(1 - size), which is nearly a parabola
        slope, tail = ops.exp(ops.negative(y * y)) * _SLOPE, ops.erfc(y)
        inner, outer = size - ops.erf(y), tail * ops.log(tail / rest)
        y = y + ops.where(size < 0.5, inner, outer) / slope
    y = ops.sign(x) * y
    edge = ops.where(ops.equal(x, 1.0), math.inf, ops.where(ops.equal(x, -1.0), -math.inf, math.nan))
    return ops.where(ops.abs(x) < 1.0, y, edge)


# ---- numbers and their parts --------------------------------------------------------------


def fabs(x: Any) -> Any:
    """The absolute value, as floats."""
    return abs(floats(x))


def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), and 1 at 0."""
    x = floats(x)
    zero = equal(x, 0)
    angle = multiply(where(zero, 1.0, x), math.pi)
    return where(zero, 1.0, divide(ops.sin(angle), angle))


def heaviside(x1: Any, x2: Any) -> Any:
    """0 where x1 is below 0, 1 where it is above, and x2 where it is 0."""
    x1 = floats(x1)
    step = ops.astype(ops.greater(x1, 0), dtype_of(x1))
    return where(ops.isnan(x1), x1, where(equal(x1, 0), x2, step))


def signbit(x: Any) -> Any:
    """Whether the sign of x is minus, that of -0.0, too."""
    return less(ops.atan2(x, -1.0) if is_float(dtype_of(x)) else x, 0)


def isposinf(x: Any) -> Any:
    """Whether x is infinite and above 0."""
    return equal(floats(x), math.inf)


def isneginf(x: Any) -> Any:
    """Whether x is infinite and below 0."""
    return equal(floats(x), -math.inf)


def fmax(x1: Any, x2: Any) -> Any:
    """The larger of two numbers; of a number and NaN, the number."""
    x1, x2 = floats(x1), floats(x2)
    return where(ops.isnan(x1), x2, where(ops.isnan(x2), x1, ops.maximum(x1, x2)))


def fmin(x1: Any, x2: Any) -> Any:
    """The smaller of two numbers; of a number and NaN, the number."""
    x1, x2 = floats(x1), floats(x2)
    return where(ops.isnan(x1), x2, where(ops.isnan(x2), x1, ops.minimum(x1, x2)))


def fmod(x1: Any, x2: Any) -> Any:
    """What a division towards 0 leaves: with the sign of x1, as C has it."""
    return multiply(ops.sign(x1), ops.remainder(abs(x1), abs(x2)))


def ldexp(x1: Any, x2: Any) -> Any:
    """x1 * 2**x2."""
    return multiply(floats(x1), ops.power(2.0, ops.astype(x2, dtype_of(floats(x1)))))


def logaddexp2(x1: Any, x2: Any) -> Any:
    """log2(2**x1 + 2**x2), without overflow."""
    return divide(ops.logaddexp(multiply(x1, math.log(2)), multiply(x2, math.log(2))), math.log(2))


def gcd(x1: Any, x2: Any) -> Any:
    """The greatest common divisor of integers, by Euclid's algorithm."""

    def step(a: Any, b: Any) -> tuple[Any, Any]:
        done = equal(b, 0)
        return where(done, a, b), where(done, b, ops.remainder(a, where(done, 1, b)))

    a, b = abs(add(x1, ops.zeros_like(x2))), abs(add(x2, ops.zeros_like(x1)))
    return ops.while_loop(lambda a, b: ops.any(ops.not_equal(b, 0)), step, (a, b))[0]


def lcm(x1: Any, x2: Any) -> Any:
    """The least common multiple of integers."""
    divisor = gcd(x1, x2)
    return multiply(ops.floor_divide(abs(x1), where(equal(divisor, 0), 1, divisor)), abs(x2))


def saturate_cast(x: Any, dtype: str) -> Any:
    """x as another dtype; what that cannot hold becomes its smallest or largest number.

    Example:
        >>> saturate_cast(np.array([-3.0, 7.5, 300.0]), "uint8")
        array([  0,   7, 255], dtype=uint8)
    """
    source = dtype_of(x)
    if dtype not in NUMBERS or source not in NUMBERS:
        return ops.astype(x, dtype)
    if is_float(dtype):
        if not is_float(source) or np.dtype(source).itemsize <= np.dtype(dtype).itemsize:
            return ops.astype(x, dtype)
        limits: Any = np.finfo(dtype)
        return ops.astype(ops.clip(x, float(limits.min), float(limits.max)), dtype)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if is_float(source):  # the largest float that is not above the limit
        top = float(np.asarray(high, source))
        top = float(np.nextafter(np.asarray(high, source), 0)) if top > high else top
        return ops.astype(ops.clip(x, float(low), top), dtype)
    own = np.iinfo(source)
    return ops.astype(ops.clip(x, max(low, int(own.min)), min(high, int(own.max))), dtype)


# ---- complex numbers, of which all here are real ---------------------------------------------


def real(x: Any) -> Any:
    """x: numbers are real here."""
    return ops.identity(x)


def conj(x: Any) -> Any:
    """x: the conjugate of a real number is that number."""
    return ops.identity(x)


conjugate = conj


def imag(x: Any) -> Any:
    """0 for every number: all are real here."""
    return ops.zeros_like(x)


def isreal(x: Any) -> Any:
    """True for every number: all are real here."""
    return ops.ones_like(x, "bool")


def angle(x: Any) -> Any:
    """The angle of numbers in the complex plane: pi for those below 0, else 0."""
    return ops.atan2(ops.zeros_like(floats(x)), floats(x))
