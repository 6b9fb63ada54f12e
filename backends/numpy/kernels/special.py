"""Functions that NumPy does not have, from those it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .contract import Array, Calls, blocks, dense, first, kernel, scalar
from .elementwise import ROW, bits

# Two polynomials by the dtype's name, fitted here at Chebyshev nodes in 50-digit arithmetic:
# - up to 1, erf(x) = x * near(x**2);
# - from 1 to 6, erf(x) = 1 - exp(-x**2) * far((x - r) / (x + r)) with r = sqrt(6); beyond, erf is 1 in float64.
# Largest relative errors, rounding included: 1.7e-7 in float32, 2.9e-16 in float64.
ERF_ROOT = math.sqrt(6)
ERF_NEAR = {
    "float32": (
        1.1283791261787373, -0.37612343775327806, 0.11280316652505075, -0.02671505423226643, 0.004921762027877231,
        -0.0005648059865503044,
    ),
    "float64": (
        1.1283791670955126, -0.37612638903183543, 0.11283791670945006, -0.02686617064323777, 0.0052239776071164225,
        -0.0008548325975389692, 0.00012055294904839707, -1.492473690741966e-05, 1.6447424703317362e-06,
        -1.6208483801871705e-07, 1.3720064546777686e-08, -7.795898827002142e-10,
    ),
}  # fmt: skip
ERF_FAR = {
    "float32": (
        0.2146263390698206, -0.3768738597603545, 0.25166700672037534, -0.12146931845551044, 0.036300434604267455,
        -0.0020639620465203045, -0.0027693775306040147,
    ),
    "float64": (
        0.2146263390698206, -0.3768742538656741, 0.25166683742194385, -0.1214514028401136, 0.03630813149958038,
        -0.0022689267635532537, -0.002857462291335844, 0.0006855385996366975, 0.0002949764158791299,
        -0.00010325576697563005, -4.669800281800159e-05, 1.3437594994306461e-05, 9.527082899054719e-06,
        -1.100381120215999e-06, -1.796045010922934e-06,
    ),
}  # fmt: skip


@kernel("erf", overwrites=first)
def erf(do: Calls, x: Array, y: Array) -> None:
    """Both polynomials, block by block, and the right one picked by its bits."""
    if not x.size:
        return
    if x.dtype.name not in ERF_NEAR:  # float16
        wide = do.workspace(x.shape, "float32")
        do(do.xp.copyto, wide, x)
        erf(do, wide, wide)
        do(do.xp.copyto, y, wide, "same_kind")
        return
    x, y = dense(do, x).reshape(-1), y.reshape(-1)
    size = min(ROW, x.size)
    work = [do.workspace((size,), x.dtype) for _ in range(4)]
    mask, near = do.workspace((size,), f"i{x.dtype.itemsize}"), do.workspace((size,), "bool")
    do(_Erf(do, x.dtype), list(blocks(size, (x, y), (*work, mask, near))))


class _Erf:
    """``f(parts)``: each has a block of the operand, of the result, and of the work arrays."""

    __name__ = "erf"

    def __init__(self, do: Calls, dtype: Any) -> None:
        self.xp, self.one = do.xp, scalar(do, 1, dtype)
        self.six, self.root = scalar(do, 6, dtype), scalar(do, ERF_ROOT, dtype)
        self.near, self.far = ([scalar(do, c, dtype) for c in table[dtype.name]] for table in (ERF_NEAR, ERF_FAR))

    def __call__(self, parts: Sequence[tuple[Array, ...]]) -> None:
        for part in parts:
            self.block(*part)

    def block(self, x: Array, y: Array, *work: Array) -> None:
        xp, (a, square, small, large, mask, near) = self.xp, work
        xp.minimum(xp.absolute(x, a), self.six, out=a)
        xp.less_equal(a, self.one, near)
        xp.multiply(a, a, square)
        xp.multiply(x, self.polynomial(self.near, square, small), small)
        t = xp.divide(xp.subtract(a, self.root, large), xp.add(a, self.root, a), a)
        self.polynomial(self.far, t, large)
        xp.multiply(large, xp.exp(xp.negative(square, square), square), large)
        xp.copysign(xp.subtract(self.one, large, large), x, large)
        # large ^ ((small ^ large) & mask)
        xp.negative(near.view("i1"), mask)
        xp.bitwise_and(xp.bitwise_xor(bits(small), bits(large), bits(small)), mask, mask)
        xp.bitwise_xor(bits(large), mask, bits(y))

    def polynomial(self, coefficients: Sequence[Array], x: Array, y: Array) -> Array:
        self.xp.multiply(x, coefficients[-1], y)
        for c in coefficients[-2:0:-1]:
            self.xp.add(y, c, y)
            self.xp.multiply(y, x, y)
        return self.xp.add(y, coefficients[0], y)
