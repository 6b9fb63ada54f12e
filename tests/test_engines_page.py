"""Where engines differ: the page is what the docstrings say, and every backend does what they say."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.autodiff import grad, gradients
from unilayers.backend import Backend
from unilayers.graph import Graph, Value, leaf
from unilayers.graph.verify import verify
from unilayers.ops.notes import engines_note, notes, page
from unilayers.program import compile_graph
from unilayers.spec import Spec, is_float

PAGE = Path(__file__).parents[1] / "docs" / "engines.md"
NAN, INF = math.nan, math.inf

# ---- the page ---------------------------------------------------------------------


def test_the_page_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text() == page(), "write it with: python -m unilayers.ops.notes > docs/engines.md"


def test_every_section_is_on_the_page() -> None:
    sources = [f.read_text() for f in Path(inspect.getfile(ops)).parent.glob("*.py") if f.name != "notes.py"]
    written = sum(len(re.findall(r'^\s*Engines: |engines="', source, re.MULTILINE)) for source in sources)
    assert written == len(notes())


@pytest.mark.parametrize("name", notes())
def test_a_section_is_short_and_names_an_engine_or_another_op(name: str) -> None:
    note = notes()[name]
    assert len(re.findall(r"[.;](?= |$)", note)) <= 6 and note.endswith("."), note
    other = re.search(r"[Aa]s for ``(\w+)``", note)
    assert re.search("NumPy|PyTorch|TensorFlow|JAX|[Ee]ach engine", note) or (other and other[1] in notes()), note


def test_sections_of_docstrings() -> None:
    assert engines_note("What.\n\nEngines: One\nand two.\n\nReference: None.") == "One and two."
    assert engines_note("What.\n\n    Engines:\n        One.\n\n    Example:\n        >>> 1") == "One."
    assert engines_note("What engines do.\n\nArgs:\n    x: Engines: none.") == ""


# ---- values at the edges, spelled by hand -------------------------------------------

Case = tuple[Callable[..., Any], tuple[np.ndarray, ...], tuple[np.ndarray, ...]]  # function, operands, results


def floats(*values: Any) -> np.ndarray:
    return np.array(values, "float32")


def integers(*values: Any) -> np.ndarray:
    return np.array(values, "int32")


def bools(*values: bool) -> np.ndarray:
    return np.array(values)


MIXED = floats(NAN, 1, -INF, NAN, INF, 0)
ROWS = floats([1, NAN, NAN], [NAN, 1, 2], [5, 2, NAN])
ENDS = floats([-INF, -INF], [0, -INF], [INF, 0])
OUTSIDE, THREE = integers(0, -1, 3, 0), floats(1, 2, 4, 8)
SHORT = np.array([100, 100], "int8")

VALUES: dict[str, Case] = {
    "max of NaN": (lambda x: ops.max(x, 1), (ROWS,), (floats(NAN, NAN, NAN),)),
    "min of NaN": (lambda x: ops.min(x, 1), (ROWS,), (floats(NAN, NAN, NAN),)),
    "maximum of NaN": (ops.maximum, (floats(1, NAN), floats(NAN, 1)), (floats(NAN, NAN),)),
    "argmax of NaN": (lambda x: ops.argmax(x, 1), (ROWS,), (integers(1, 0, 2),)),
    "argmin of NaN": (lambda x: ops.argmin(x, 1), (ROWS,), (integers(1, 0, 2),)),
    "argmax of ties": (ops.argmax, (floats(1, 3, 3, 0),), (np.array(1, "int32"),)),
    "argsort of NaN": (ops.argsort, (MIXED,), (integers(2, 5, 1, 4, 0, 3),)),
    "argsort of ties": (ops.argsort, (np.tile(floats(1, 0), 20),), (integers(*range(1, 40, 2), *range(0, 40, 2)),)),
    "sort of NaN": (ops.sort, (MIXED,), (floats(-INF, 0, 1, INF, NAN, NAN),)),
    "top_k of NaN": (lambda x: ops.top_k(x, 3), (MIXED,), (floats(NAN, NAN, INF), integers(0, 3, 4))),
    "top_k of ties": (lambda x: ops.top_k(x, 2), (floats(1, 2, 2, 2),), (floats(2, 2), integers(1, 2))),
    "top_k of the smallest integer": (
        lambda x: ops.top_k(x, 2), (integers(-(2**31), 5, 1),), (integers(5, 1), integers(1, 2)),
    ),
    "sign": (ops.sign, (floats(NAN, 0, -INF),), (floats(NAN, 0, -1),)),
    "relu": (ops.relu, (floats(NAN, -1, 0),), (floats(NAN, 0, 0),)),
    "round": (ops.round, (floats(0.5, 1.5, 2.5, -0.5),), (floats(0, 2, 2, -0.0),)),
    "clip": (lambda x: ops.clip(x, 1, -1), (floats(-2, 0, 2, NAN),), (floats(-1, -1, -1, NAN),)),
    "power": (ops.power, (floats(0, -8, -2, 1), floats(0, 0.5, 2, NAN)), (floats(1, NAN, 4, 1),)),
    "floor_divide of integers": (ops.floor_divide, (integers(7, -7), integers(-2, 2)), (integers(-4, -4),)),
    "floor_divide by 0": (ops.floor_divide, (floats(1, -1, 0), floats(0, 0, 0)), (floats(INF, -INF, NAN),)),
    "floor_divide that rounds": (
        ops.floor_divide, (np.array([1.0]), np.array([0.1])), (np.array([9.0]),),
    ),
    "remainder": (ops.remainder, (integers(7, -7), integers(-2, 2)), (integers(-1, 1),)),
    "add of bools": (ops.add, (bools(True, True, False), bools(True, False, False)), (bools(True, True, False),)),
    "multiply of bools": (ops.multiply, (bools(True, True), bools(True, False)), (bools(True, False),)),
    "maximum of bools": (ops.maximum, (bools(True, False), bools(False, False)), (bools(True, False),)),
    "minimum of bools": (ops.minimum, (bools(True, True), bools(True, False)), (bools(True, False),)),
    "max of bools": (ops.max, (bools(True, False),), (np.array(True),)),
    "min of bools": (ops.min, (bools(True, False),), (np.array(False),)),
    "an integer and a float": (ops.add, (np.array([1]), floats(0.5)), (floats(1.5),)),
    "sum of small integers": (ops.sum, (SHORT,), (np.array(200, "int32"),)),
    "prod of small integers": (ops.prod, (SHORT,), (np.array(10_000, "int32"),)),
    "cumsum of bools": (ops.cumsum, (bools(True, True),), (integers(1, 2),)),
    "mean of integers": (ops.mean, (integers(1, 2),), (np.float32(1.5),)),
    "mean of float16": (ops.mean, (np.ones(70_000, "float16"),), (np.float16(1),)),
    "var": (ops.var, (floats(1, 2),), (np.float32(0.25),)),
    "median": (ops.median, (floats(1, 2, 3, 10),), (np.float32(2.5),)),
    "logsumexp": (lambda x: ops.logsumexp(x, 1), (ENDS,), (floats(-INF, 0, INF),)),
    "logaddexp": (ops.logaddexp, (floats(-INF, INF, 0), floats(-INF, INF, -INF)), (floats(-INF, INF, 0),)),
    "take": (lambda x, i: ops.take(x, i, 0), (THREE, integers(-1, 0, -4)), (floats(8, 1, 1),)),
    "take of a later axis": (
        lambda x, i: ops.take(x, i, 1), (floats([1, 2], [3, 4]), integers(-1, 0)), (floats([2, 1], [4, 3]),),
    ),
    "take_along_axis": (
        lambda x, i: ops.take_along_axis(x, i, 0), (THREE, integers(-1, 0, -4)), (floats(8, 1, 1),),
    ),
    "take by int8": (
        lambda x, i: ops.take(x, i, 0), (np.arange(200.0), np.array([-1, 127], "int8")), (np.array([199.0, 127.0]),),
    ),
    "indexing": (lambda x, i: ops.getitem(x, i), (THREE, integers(-1, 0)), (floats(8, 1),)),
    "one_hot": (lambda i: ops.one_hot(i, 2), (integers(2, -1, 1),), (floats([0, 0], [0, 0], [0, 1]),)),
    "segment_sum": (lambda x, i: ops.segment_sum(x, i, 3), (THREE, OUTSIDE), (floats(9, 0, 0),)),
    "segment_max": (lambda x, i: ops.segment_max(x, i, 3), (THREE, OUTSIDE), (floats(8, -INF, -INF),)),
    "segment_min": (lambda x, i: ops.segment_min(x, i, 3), (THREE, OUTSIDE), (floats(1, INF, INF),)),
    "segment_prod": (lambda x, i: ops.segment_prod(x, i, 3), (THREE, OUTSIDE), (floats(8, 1, 1),)),
    "segment_max of NaN": (
        lambda x, i: ops.segment_max(x, i, 2), (floats(1, NAN, 4, 3), integers(0, 0, 0, 1)), (floats(NAN, 3),),
    ),
    "scatter": (lambda x, i: ops.scatter(i, x, (3,)), (floats(1, 2, 4), integers([0], [0], [2])), (floats(3, 0, 4),)),
    "avg_pool": (
        lambda x: ops.avg_pool(x, 2, padding="same"), (floats([[1], [3], [4]]),), (floats([[2], [4]]),),
    ),
    "conv": (
        lambda x, k: ops.conv(x, k, 2, "same"), (floats([[0], [1], [2], [3]]), floats([[1]], [[10]], [[100]])),
        (floats([[210], [32]]),),
    ),
    "sparse_softmax_cross_entropy": (
        ops.sparse_softmax_cross_entropy, (np.zeros((3, 2), "float32"), integers(0, -1, 2)),
        (floats(math.log(2), NAN, NAN),),
    ),
    "sparse_categorical_crossentropy": (
        ops.sparse_categorical_crossentropy, (integers(0, -1, 2), np.full((3, 2), 0.5, "float32")),
        (floats(math.log(2), NAN, NAN),),
    ),
    "gelu": (ops.gelu, (floats(1),), (floats(0.841192),)),
    "leaky_relu": (ops.leaky_relu, (floats(-1),), (floats(-0.2),)),
    "softplus": (ops.softplus, (np.array([25.0]),), (np.array([25 + math.exp(-25)]),)),
    "resize": (
        lambda x: ops.image.resize(x, (1, 2), interpolation="nearest"), (floats([[[0], [1], [2], [3]]]),),
        (floats([[[1], [3]]]),),
    ),
    "eigh": (
        ops.eigh, (np.array([[2.0, 2.0], [0.0, 2.0]]),),
        (np.array([1.0, 3.0]), np.array([[1.0, 1.0], [-1.0, 1.0]]) * math.sqrt(0.5)),
    ),
    "cholesky": (ops.cholesky, (np.array([[4.0, 4.0], [0.0, 2.0]]),), (np.array([[2.0, 0.0], [1.0, 1.0]]),)),
}  # fmt: skip

# Gradients of the sum of the first result, to each operand of floats.
GRADIENTS: dict[str, Case] = {
    "max": (ops.max, (floats(1, 3, 3),), (floats(0, 0.5, 0.5),)),
    "min": (ops.min, (floats(1, 1, 3),), (floats(0.5, 0.5, 0),)),
    "maximum": (ops.maximum, (floats(1, 2), floats(1, 0)), (floats(0.5, 1), floats(0.5, 0))),
    "minimum": (ops.minimum, (floats(1, 2), floats(1, 0)), (floats(0.5, 0), floats(0.5, 1))),
    "abs": (ops.abs, (floats(0, -2),), (floats(0, -1),)),
    "relu": (ops.relu, (floats(0, 1),), (floats(0, 1),)),
    "relu6": (ops.relu6, (floats(0, 6, 1),), (floats(0, 0, 1),)),
    "leaky_relu": (ops.leaky_relu, (floats(0),), (floats(0.2),)),
    "hard_tanh": (ops.hard_tanh, (floats(-1, 1),), (floats(0, 0),)),
    "hard_sigmoid": (ops.hard_sigmoid, (floats(-3, 3),), (floats(0, 0),)),
    "hard_silu": (ops.hard_silu, (floats(-3, 3),), (floats(0, 1),)),
    "clip": (lambda x: ops.clip(x, -1, 1), (floats(-2, -1, 1, 2),), (floats(0, 1, 1, 0),)),
    "power": (
        ops.power, (floats(0, -2, 0), floats(0, 2, 2)), (floats(0, -4, 0), floats(0, 0, 0)),
    ),
    "prod of one 0": (ops.prod, (floats(0, 2, 3),), (floats(6, 0, 0),)),
    "prod of two": (ops.prod, (floats(0, 0, 3),), (floats(0, 0, 0),)),
    "logsumexp": (lambda x: ops.logsumexp(x, 1), (ENDS[:2],), (floats([0, 0], [1, 0]),)),
    "logaddexp": (ops.logaddexp, (floats(1), floats(1)), (floats(0.5), floats(0.5))),
    "max_pool": (lambda x: ops.max_pool(x, 2), (floats([[1], [1], [0], [2]]),), (floats([[1], [0], [0], [1]]),)),
    "take": (lambda x, i: ops.take(x, i, 0), (floats(1, 2), integers(-1, 0, -1)), (floats(1, 2),)),
    "take_along_axis": (lambda x, i: ops.take_along_axis(x, i, 0), (floats(1, 2), integers(-1, 1)), (floats(0, 2),)),
    "segment_max": (lambda x: ops.segment_max(x, integers(0, 0, 1), 2), (floats(1, 1, 4),), (floats(0.5, 0.5, 1),)),
    "segment_sum": (lambda x: ops.segment_sum(x, OUTSIDE, 3), (THREE,), (floats(1, 0, 0, 1),)),
    "sparse_softmax_cross_entropy": (
        lambda x: ops.sparse_softmax_cross_entropy(x, integers(2)), (floats([0, 0]),), (floats([0.5, 0.5]),),
    ),
}  # fmt: skip


def as_tuple(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def check(results: Any, expected: tuple[np.ndarray, ...], what: str) -> None:
    for found, wanted in zip(results, expected, strict=True):
        assert_close(found, wanted, rtol=1e-6 if wanted.dtype == np.float32 else 1e-13, atol=0, what=what)


def sum_of(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arrays: ops.sum(as_tuple(function(*arrays))[0])


def slopes(function: Callable[..., Any], operands: tuple[Value, ...]) -> Any:
    return gradients(sum_of(function)(*operands), [x for x in operands if is_float(x.dtype)])


each_value, each_slope = (pytest.mark.parametrize("name", cases) for cases in (VALUES, GRADIENTS))
everywhere = pytest.mark.parametrize("backend", BACKENDS)


@everywhere
@each_value
def test_values_at_once(backend: str, name: str) -> None:
    engine, (function, operands, expected) = require_backend(backend), VALUES[name]
    results = as_tuple(function(*engine.put(operands, engine.device("cpu"))))
    check([engine.get(y) for y in results], expected, name)


@everywhere
@each_slope
def test_gradients_at_once(backend: str, name: str) -> None:
    engine, (function, operands, expected) = require_backend(backend), GRADIENTS[name]
    argnums = tuple(i for i, x in enumerate(operands) if is_float(x.dtype.name))
    found = as_tuple(grad(sum_of(function), argnums)(*engine.put(operands, engine.device("cpu"))))
    check([engine.get(g) for g in found], expected, name)


@everywhere
@pytest.mark.parametrize(("cases", "of"), [(VALUES, lambda f, x: f(*x)), (GRADIENTS, slopes)], ids=["values", "slopes"])
def test_all_in_one_graph(backend: str, cases: dict[str, Case], of: Callable[..., Any]) -> None:
    engine: Backend = require_backend(backend)
    inputs, outputs, arrays, expected = [], {}, [], {}
    for name, (function, operands, wanted) in cases.items():
        leaves = tuple(
            leaf("input", f"{name} {i}", Spec(x.shape, x.dtype.name)) for i, x in enumerate(operands)
        )  # fmt: skip
        results = as_tuple(of(function, leaves))
        outputs |= {f"{name}: {i}": y for i, y in enumerate(results)}
        expected |= {f"{name}: {i}": y for i, y in enumerate(wanted)}
        inputs += leaves
        arrays += operands
    device = engine.device("cpu")
    _, found = compile_graph(verify(Graph(tuple(inputs), (), outputs)), engine, device)([], engine.put(arrays, device))
    assert found.keys() == expected.keys()
    for name, y in found.items():
        check([engine.get(y)], (expected[name],), name)


@everywhere
@pytest.mark.parametrize("pick", [ops.take, ops.take_along_axis])
@pytest.mark.parametrize("index", [3, -4])
def test_an_index_that_is_not_there(backend: str, pick: Any, index: int) -> None:
    """No element of another place is ever taken: an error, or NaN where compiled code cannot raise."""
    engine = require_backend(backend)
    x, i = engine.put((THREE[:3], integers(index)), engine.device("cpu"))
    try:
        found = engine.get(pick(x, i, 0))
    except Exception as error:
        assert re.search(r"index|indices", str(error)), error
    else:
        assert np.isnan(found).all()
