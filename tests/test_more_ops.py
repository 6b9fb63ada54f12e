"""Functions of Keras's names that are not ops of their own: against Keras, at once, in graphs, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.autodiff import value_and_grad
from unilayers.ops import more
from unilayers.structure import leaves_of

keras = pytest.importorskip("keras")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))
V, W = RNG.normal(size=5), RNG.uniform(0.5, 2, 4)
I = np.array([[0, 2, 1], [3, 3, 0]], np.int32)  # noqa: E741

# Arguments by name; the same for Keras.
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "absolute": [(X,)], "allclose": [(X, X + 1e-9), (X, Y)], "amax": [(X, 1)], "amin": [(X,)],
    "arccos": [(np.tanh(X),)], "arcsin": [(np.tanh(X),)], "arctan": [(X,)], "arctan2": [(X, Y)],
    "argsort": [(X,), (X, 0), (I,)], "array": [(X,)], "average": [(X,), (X, 0), (X, 1, W), (X, 0, np.abs(Y))],
    "bitwise_not": [(I,)], "cast": [(X, "int32")], "cbrt": [(X,)], "concatenate": [([X, Y], 1)],
    "convert_to_numpy": [(X,)], "convert_to_tensor": [(X,)], "copy": [(X,)], "count_nonzero": [(X,), (I, 1)],
    "cumprod": [(X, 1), (V,)], "cumsum": [(X, 0), (X,)], "deg2rad": [(X,)], "diag": [(V,), (V, -2), (X,), (X, 1)],
    "diagonal": [(X,), (X, -1), (RNG.normal(size=(2, 3, 4)), 0, 1, 2)], "diff": [(X,), (X, 2, 0)],
    "divide_no_nan": [(X, Y * (X > 0))], "dot": [(X, Y.T), (V, V), (2.0, V)], "dtype": [], "exp2": [(X,)],
    "eye": [(3,), (3, 4, 1)], "fliplr": [(X,)], "flipud": [(X,)], "hstack": [([X, Y],), ([V, V],)],
    "hypot": [(X, Y)], "in_top_k": [(np.array([1, 0, 3], np.int32), X, 2)], "inner": [(X, Y)],
    "isclose": [(X, X + 1e-9)], "left_shift": [(I, 2)], "linspace": [(0.0, 1.0, 5)], "log10": [(np.abs(X),)],
    "log2": [(np.abs(X),)], "logaddexp": [(X, Y)], "meshgrid": [(V, W)], "mod": [(X, 0.7)], "moments": [(X, 1)],
    "multi_hot": [(I, 4)], "nan_to_num": [(np.array([np.nan, np.inf, -np.inf, 1.0]), 0.5, 9.0, -9.0)], "ndim": [(X,)],
    "norm": [(X,), (X, None, 1), (X, 1, 0), (X, np.inf, 1), (X, 3, 1)], "normalize": [(X,), (X, 0)],
    "outer": [(V, W)], "ptp": [], "rad2deg": [(X,)], "ravel": [(X,)], "right_shift": [(I, 1)],
    "roll": [(X, 1), (X, -2, 1), (X, 7, 0)], "scatter": [(np.array([[0, 1], [2, 0], [0, 1]], np.int32), V[:3], (3, 2))],
    "segment_sum": [(X, np.array([1, 0, 1], np.int32), 3)], "select": [([X > 0.5, X > 0], [X, Y], 0.0)],
    "shape": [(X,)], "slice": [(X, (1, 0), (2, 3))], "slice_update": [(X, (1, 2), Y[:2, :2])],
    "sort": [(X,), (X, 0)], "swapaxes": [(RNG.normal(size=(2, 3, 4)), 0, -1)], "top_k": [(X, 2)],
    "trace": [(X,), (X, 1)], "tri": [(3,), (3, 4, -1)], "tril": [(X,), (X, 1)], "triu": [(X,), (X, -1)],
    "true_divide": [(X, Y)], "trunc": [(X * 3,)], "unstack": [(X,), (X, None, 1)], "vdot": [(V, V)],
    "vectorized_map": [], "vstack": [([X, Y],), ([V, V],)],
}  # fmt: skip


def keras_result(name: str, args: tuple[Any, ...]) -> list[np.ndarray]:
    if name == "average" and len(args) == 3:  # Keras on PyTorch does not take these
        return [np.average(args[0], args[1], args[2])]
    if name == "unstack":  # nor NumPy arrays here
        axis = args[2] if len(args) > 2 else 0
        return [np.take(args[0], i, axis) for i in range(args[0].shape[axis])]
    if name == "eye":
        return [np.eye(*args).astype("float32")]
    if name == "in_top_k":
        return [np.asarray(keras.ops.convert_to_numpy(keras.ops.in_top_k(args[0], args[1].astype("float32"), args[2])))]
    result = getattr(keras.ops, name)(*args)
    return [np.asarray(keras.ops.convert_to_numpy(x)) for x in leaves_of(result)]


def test_every_name_has_a_call() -> None:
    assert CALLS.keys() == set(more.__all__)


@pytest.mark.parametrize("name", [n for n, calls in CALLS.items() if calls])
def test_equals_keras(name: str) -> None:
    for args in CALLS[name]:
        found = [np.asarray(ops.to_numpy(x)) for x in leaves_of(getattr(ops, name)(*args))]
        for a, e in zip(found, keras_result(name, args), strict=True):
            # Keras computes most of these in float32 on PyTorch; dtypes are our own rule.
            assert a.shape == e.shape, f"{name}: {a.shape}, expected {e.shape}"
            assert_close(a.astype("float64"), e.astype("float64"), rtol=2e-6, atol=2e-6, what=name)


def compiled(name: str, args: tuple[Any, ...]) -> Callable[..., Any]:
    """The call as a function of its arrays, with what else it needs kept."""
    return lambda *arrays: getattr(ops, name)(*_filled(args, iter(arrays)))


def _filled(args: Any, arrays: Any) -> Any:
    if isinstance(args, (tuple, list)):
        return type(args)(_filled(a, arrays) for a in args)
    return next(arrays) if isinstance(args, np.ndarray) else args


HOST_ONLY = ("convert_to_numpy", "ndim", "shape", "dtype")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_in_a_graph_on_every_backend(backend: str) -> None:
    """All in one function, so that each engine compiles once."""
    engine = require_backend(backend)
    calls = [(n, a) for n, many in CALLS.items() for a in many[:1] if n not in HOST_ONLY]
    arrays = [[x for x in leaves_of(list(a)) if isinstance(x, np.ndarray)] for _, a in calls]

    @ul.function(backend=engine)
    def everything(given: list[list[Any]]) -> list[Any]:
        return [compiled(n, a)(*own) for (n, a), own in zip(calls, given, strict=True)]

    for (name, args), found in zip(calls, everything(arrays), strict=True):
        expected = [np.asarray(ops.to_numpy(x)) for x in leaves_of(getattr(ops, name)(*args))]
        for a, e in zip(leaves_of(found), expected, strict=True):
            assert_close(engine.get(a), e, rtol=1e-6, atol=1e-9, what=f"{name} on {backend}")


@pytest.mark.parametrize(
    "name", ["cumsum", "cumprod", "sort", "diag", "roll", "norm", "logaddexp", "slice_update", "tril"]
)
def test_gradients(name: str) -> None:
    args = CALLS[name][0]
    rng = np.random.default_rng(3)

    def total(x: Any) -> Any:
        y = getattr(ops, name)(x, *args[1:])
        return ops.sum(y * rng_weights(ops.shape(y)))

    def rng_weights(shape: Any) -> np.ndarray:
        return np.random.default_rng(5).normal(size=shape)

    x, way = args[0], rng.normal(size=args[0].shape)
    slope = float(np.sum(ops.to_numpy(value_and_grad(total)(x)[1]) * way))
    numeric = float((ops.to_numpy(total(x + 1e-6 * way)) - ops.to_numpy(total(x - 1e-6 * way))) / 2e-6)
    assert_close(np.asarray(slope), np.asarray(numeric), rtol=1e-6, atol=1e-7, what=name)
