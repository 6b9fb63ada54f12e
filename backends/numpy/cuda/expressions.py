"""Each elementwise op as an expression of C, by the kind of its first operand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unilayers.ops.random import PARITY, ROTATIONS, ROUND_GROUPS
from unilayers.spec import ITEMSIZE

# What a value is in a register, by dtype. In memory float16 is two bytes; it is computed with as float and rounded.
TYPES = {
    "bool": "bool", "int8": "signed char", "uint8": "unsigned char", "int16": "short", "int32": "int",
    "int64": "long long", "float16": "float", "float32": "float", "float64": "double",
}  # fmt: skip
UNSIGNED = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long"}  # by bytes
INFINITE = "(-log(0.0))"

_FUNCTIONS = "exp expm1 log log1p sqrt sin cos tan asin acos atan sinh cosh tanh erf floor ceil".split()  # noqa: SIM905
_WRAPPING = "({T})(({U}){a} %s ({U}){b})"  # what overflows is defined for numbers without sign only
_EITHER = "{a} > {b} || {a} != {a} ? {a} : {b}"

# {a}, {b}, {c} are the operands, {T} is the type of the first, {U} the same without sign, {R} the type of the result.
# The keys are kinds of dtypes: f, i, u, b.
EXPRESSIONS: Mapping[str, Mapping[str, str]] = {
    "add": {"f": "{a} + {b}", "iu": _WRAPPING % "+", "b": "{a} || {b}"},
    "subtract": {"f": "{a} - {b}", "iu": _WRAPPING % "-"},
    "multiply": {"f": "{a} * {b}", "iu": _WRAPPING % "*", "b": "{a} && {b}"},
    "divide": {"f": "{a} / {b}"},
    "floor_divide": {"f": "floor_divide({a}, {b})", "iu": "whole_divide({a}, {b})"},
    "remainder": {"f": "remainder_of({a}, {b})", "iu": "whole_remainder({a}, {b})"},
    "power": {"f": "pow({a}, {b})", "iu": "whole_power({a}, {b})"},
    "maximum": {"fiub": _EITHER},
    "minimum": {"fiub": _EITHER.replace(">", "<")},
    "atan2": {"f": "atan2({a}, {b})"},
    "equal": {"fiub": "{a} == {b}"},
    "not_equal": {"fiub": "{a} != {b}"},
    "less": {"fiub": "{a} < {b}"},
    "less_equal": {"fiub": "{a} <= {b}"},
    "greater": {"fiub": "{a} > {b}"},
    "greater_equal": {"fiub": "{a} >= {b}"},
    "logical_and": {"b": "{a} && {b}"},
    "logical_or": {"b": "{a} || {b}"},
    "logical_xor": {"b": "{a} != {b}"},
    "logical_not": {"b": "!{a}"},
    "bitwise_and": {"iub": "{a} & {b}"},
    "bitwise_or": {"iub": "{a} | {b}"},
    "bitwise_xor": {"iub": "{a} ^ {b}"},
    "bitwise_left_shift": {"iu": "({U}){b} < 8 * sizeof({T}) ? ({T})(({U}){a} << {b}) : ({T})0"},
    "bitwise_right_shift": {"iu": "({U}){b} < 8 * sizeof({T}) ? ({T})({a} >> {b}) : ({T})({a} < 0 ? -1 : 0)"},
    "bitwise_invert": {"iu": "~{a}", "b": "!{a}"},
    "isnan": {"f": "{a} != {a}"},
    "isinf": {"f": "{a} == {a} && {a} - {a} != 0"},
    "isfinite": {"f": "{a} - {a} == 0"},
    "negative": {"f": "-{a}", "iu": "({T})(({U})0 - ({U}){a})"},
    "abs": {"f": "fabs({a})", "iu": "{a} < 0 ? ({T})(({U})0 - ({U}){a}) : {a}"},
    "sign": {"fiu": "{a} != {a} ? {a} : ({T})(({a} > 0) - ({a} < 0))"},
    "round": {"f": "rint({a})"},
    "rsqrt": {"f": "1 / sqrt({a})"},
    "square": {"f": "{a} * {a}", "iu": "({T})(({U}){a} * ({U}){a})"},
    "reciprocal": {"f": "1 / {a}"},
    "where": {"b": "{a} ? {b} : {c}"},
    "relu": {"fiu": "{a} > 0 || {a} != {a} ? {a} : ({T})0"},
    **{name: {"f": f"{name}({{a}})"} for name in _FUNCTIONS},
}

ABSENT: Mapping[str, str] = {}  # elementwise ops without an expression, and why


def kind(dtype: str) -> str:
    return dtype[0]


def text(op: str, operands: Sequence[str], dtypes: Sequence[str], result: str, attrs: Mapping[str, Any]) -> str:
    """The expression for the result of an op, in a type as wide as its register.

    Args:
        op: Its name, or ``astype``.
        operands: Their names in C.
        dtypes: Theirs.
        result: The result's dtype.
        attrs: The op's attributes.
    """
    form = _cast(dtypes[0], result) if op == "astype" else _form(op, dtypes[0])
    assert form is not None, f"{op} of {dtypes} has no expression"
    whole = form.format(
        **dict(zip("abc", operands, strict=False)), T=TYPES[dtypes[0]], U=UNSIGNED[ITEMSIZE[dtypes[0]]], R=TYPES[result]
    )
    return f"rounded_half({whole})" if result == "float16" else f"({TYPES[result]})({whole})"


def known(op: str, dtypes: Sequence[str]) -> bool:
    """Whether an op of operands of these dtypes has an expression."""
    readable = len(dtypes) > 0 and all(d in TYPES for d in dtypes)
    return readable and (op == "astype" or _form(op, dtypes[0]) is not None)


def _form(op: str, dtype: str) -> str | None:
    forms = EXPRESSIONS.get(op, {})
    return next((form for kinds, form in forms.items() if kind(dtype) in kinds), None)


def _cast(dtype: str, result: str) -> str:
    if result == "bool":
        return "{a} != 0"
    narrowing = kind(dtype) == "f" and kind(result) in "iu"
    return "(long long){a}" if narrowing else "{a}"  # so that what is too large wraps around


def literal(value: Any, dtype: str) -> str:
    """A number as C writes it."""
    number = float(value) if kind(dtype) == "f" else int(value)
    if number != number:
        return f'({TYPES[dtype]})nan("")'
    if number in (float("inf"), float("-inf")):
        return f"({TYPES[dtype]})({'-' if number < 0 else ''}{INFINITE})"
    if dtype == "int64":
        return f"({TYPES[dtype]}){int(number) % (1 << 64)}ULL"
    return f"({TYPES[dtype]})({number!r})"


# ---- what the expressions call --------------------------------------------------------


def _threefry() -> str:
    """Two random words from a key and a counter; see ``ops.random``."""
    lines = [f"const unsigned k2 = {PARITY}u ^ k0 ^ k1;", "a += k0; b += k1;"]
    for group in range(ROUND_GROUPS):
        lines += [f"a += b; b = (b << {by} | b >> {32 - by}) ^ a;" for by in ROTATIONS[group % 2]]
        lines.append(f"a += k{(group + 1) % 3}; b += k{(group + 2) % 3} + {group + 1}u;")
    return "\n    ".join(lines)


PRELUDE = """
#ifndef from_half
__device__ inline float from_half(unsigned short h) {
    float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f;
}
__device__ inline unsigned short to_half(float f) {
    unsigned short h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f)); return h;
}
#endif
__device__ inline float rounded_half(float f) { return from_half(to_half(f)); }

template <class T> __device__ inline T remainder_of(T a, T b) {
    T m = fmod(a, b);
    if (b == 0) return m;
    if (m == 0) return copysign((T)0, b);
    return (b < 0) != (m < 0) ? m + b : m;
}
template <class T> __device__ inline T floor_divide(T a, T b) {
    if (b == 0) return a / b;
    T m = fmod(a, b), d = (a - m) / b;
    if (m != 0 && (b < 0) != (m < 0)) d -= 1;
    if (d == 0) return copysign((T)0, a / b);
    T f = floor(d);
    return d - f > (T)0.5 ? f + 1 : f;
}
template <class T> __device__ inline T whole_divide(T a, T b) {
    if (b == 0) return 0;
    if (b == (T)-1 && (T)-1 < (T)0) return (T)(0ull - (unsigned long long)a);
    T q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}
template <class T> __device__ inline T whole_remainder(T a, T b) {
    if (b == 0 || (b == (T)-1 && (T)-1 < (T)0)) return 0;
    T m = a % b;
    return m != 0 && (m < 0) != (b < 0) ? m + b : m;
}
template <class T> __device__ inline T whole_power(T a, T b) {
    if (b < 0) return a == 1 ? 1 : a == (T)-1 ? (b % 2 != 0 ? a : (T)1) : (T)0;
    unsigned long long y = 1, x = a;
    for (unsigned long long n = b; n; n >>= 1, x *= x) if (n & 1) y *= x;
    return (T)y;
}
__device__ inline int random_bits(unsigned counter, unsigned long long place, unsigned k0, unsigned k1) {
    unsigned a = (unsigned)(place / 4), b = counter;
    THREEFRY
    unsigned lane = (unsigned)(place % 4), word = lane < 2 ? a : b;
    return lane % 2 ? word >> 16 : word & 0xffff;
}
""".replace("THREEFRY", _threefry())
