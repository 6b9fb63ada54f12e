"""``einsum`` against NumPy's, on floats and integers, and what it says about equations that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compare import assert_close
from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.graph import leaf
from unilayers.spec import Dim, Spec, public_shape

Shapes = list[tuple[int, ...]]

EQUATIONS: list[tuple[str, Shapes]] = [
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ij,jk->ki", [(2, 3), (3, 4)]),
    ("i,j", [(2,), (3,)]),
    ("i,i->i", [(3,), (3,)]),
    ("i,i", [(3,), (3,)]),
    ("ij->j", [(2, 3)]),
    ("ij->", [(2, 3)]),
    ("ba", [(2, 3)]),
    ("...ba", [(2, 3, 4)]),
    ("...ij,...jk->...ik", [(5, 2, 3), (4, 1, 3, 2)]),
    ("a...b,b...c->c...a", [(2, 1, 3), (3, 4, 5)]),
    ("iii->i", [(3, 3, 3)]),
    ("iijj->ij", [(2, 2, 3, 3)]),
    ("iijj", [(2, 2, 3, 3)]),
    ("aab,b->a", [(2, 2, 3), (1,)]),
    ("ab,bc->ac", [(2, 1), (3, 4)]),
    ("ab,bc,cd,de->ae", [(2, 3), (3, 4), (4, 5), (5, 2)]),
    ("ab,ab,ab->ab", [(2, 3)] * 3),
    ("ab,ab,ab->a", [(2, 3)] * 3),
    ("abc,adc,bde->ae", [(2, 3, 4), (2, 5, 4), (3, 5, 6)]),
    ("ij,kl->", [(2, 3), (4, 5)]),
    (" i j , j -> i ", [(2, 3), (3,)]),
    (",", [(), ()]),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS, ids=[e for e, _ in EQUATIONS])
def test_einsum_is_that_of_numpy(equation: str, shapes: Shapes) -> None:
    rng = np.random.default_rng(0)
    for draw in (lambda s: rng.normal(size=s), lambda s: rng.integers(0, 5, s).astype("int32")):
        arrays = [draw(s) for s in shapes]
        wanted = np.asarray(np.einsum(equation, *arrays))
        assert_close(ops.einsum(equation, *arrays), wanted, rtol=1e-12, atol=1e-12, what=equation)


def test_einsum_of_one_dtype_and_of_unknown_sizes() -> None:
    a, b = np.ones((2, 3), "float32"), np.ones((3, 4))
    assert ops.einsum("ij,jk", a, b).dtype == "float64"
    batch, time = Dim.symbol("batch"), Dim.symbol("time")
    x, w = leaf("input", "x", Spec((batch, time, 3), "float32")), leaf("input", "w", Spec((3, 4), "float32"))
    for equation, shape in (("btc,cd->btd", (None, None, 4)), ("...c,cd->d...", (4, None, None))):
        assert public_shape(ops.einsum(equation, x, w).shape) == shape


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ij,jk", [(2, 3)], "as many terms as operands are needed. Received 'ij,jk' for shapes (2, 3)."),
        (
            "ij", [(2,)],
            "the term 'ij' does not fit its operand. Received 'ij' for shapes (2,). Write a letter per axis.",
        ),
        (
            "i1", [(2, 3)],
            "the term 'i1' does not fit its operand. Received 'i1' for shapes (2, 3). Write a letter per axis.",
        ),
        (
            "ij->ijk", [(2, 3)],
            "each label of the result must be in a term, and once in the result. Received 'ij->ijk' for shapes (2, 3).",
        ),
        (
            "ij->ii", [(2, 3)],
            "each label of the result must be in a term, and once in the result. Received 'ij->ii' for shapes (2, 3).",
        ),
        ("ij,jk", [(2, 3), (4, 5)], "axis 'j' has two sizes, 3 and 4. Received 'ij,jk' for shapes (2, 3), (4, 5)."),
    ],
)  # fmt: skip
def test_einsum_says_what_does_not_fit(equation: str, shapes: Shapes, message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        ops.einsum(equation, *(np.ones(s) for s in shapes))
    assert str(caught.value) == f"op 'einsum': {message}"
