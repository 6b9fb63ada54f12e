"""Keras's names: which there are, what their arguments are called, and that calls as users write them mean the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import leaf
from unilayers.ops.define import also
from unilayers.spec import Dim, Spec
from unilayers.structure import leaves_of

keras = pytest.importorskip("keras")

# What is left out. There are no complex dtypes here.
LEFT_OUT = {
    "ops": {"eig", "i0", "jvp", "lu_factor", "nextafter", "polar", "view", "view_as_complex", "view_as_real"},
    "ops.image": {"elastic_transform", "scale_and_translate"},
}
LEFT_OUT["ops.linalg"] = LEFT_OUT["ops.nn"] = LEFT_OUT["ops.numpy"] = LEFT_OUT["ops"]


def names_of(module: Any) -> set[str]:
    return {n for n in dir(module) if n[0] != "_"}


def found_by(root: Any, name: str) -> Any:
    for part in name.split("."):
        root = getattr(root, part)
    return root


@pytest.mark.parametrize("module", ["ops", "ops.image", "ops.linalg", "ops.nn", "ops.numpy"])
def test_every_name_is_here(module: str) -> None:
    import unilayers

    missing = {n for n in names_of(found_by(keras, module)) if not hasattr(found_by(unilayers, module), n)}
    assert missing == LEFT_OUT[module] & names_of(found_by(keras, module))


def test_namespaces_are_the_same_functions() -> None:
    assert ops.nn.relu is ops.relu and ops.numpy.sum is ops.sum and ops.linalg.qr is ops.qr
    assert "relu" in dir(ops.nn) and "_Any" not in dir(ops.nn)
    with pytest.raises(AttributeError, match=r"unilayers\.ops\.nn' has no attribute 'rleu'"):
        ops.nn.rleu  # noqa: B018


SHARED = [n for n in sorted(names_of(keras.ops)) if callable(getattr(keras.ops, n)) and hasattr(ops, n)]
SHARED += [f"image.{n}" for n in sorted(names_of(keras.ops.image)) if hasattr(ops.image, n)]


@pytest.mark.parametrize("name", SHARED)
def test_arguments(name: str) -> None:
    """Each argument at Keras's place, with Keras's name and default; what is ours comes behind them."""
    theirs, own = (inspect.signature(found_by(o, name)).parameters.values() for o in (keras.ops, ops))
    placed = [p for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name: p for p in own}
    for i, p in enumerate(theirs):
        if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            continue
        if p.kind is p.KEYWORD_ONLY:
            assert p.name in named, f"{name} has no argument {p.name}"
            found = named[p.name]
        else:
            assert i < len(placed) and placed[i].name == p.name, f"{name}: {p.name} is not number {i} of {list(named)}"
            found = placed[i]
        assert p.default in (p.empty, found.default), f"{name}: {p.name} is {found.default}, not {p.default}"


# ---- calls as they are written ---------------------------------------------------------

RNG = np.random.default_rng(0)
X, Y, CUBE = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)), RNG.normal(size=(2, 3, 4))
I = np.array([[0, 2, 1], [3, 3, 0]], np.int32)  # noqa: E741
GAPS = np.where(X > 0.5, np.nan, X)
ROWS, PICTURES = RNG.normal(size=(2, 9, 4)).astype("float32"), RNG.normal(size=(2, 6, 7, 4)).astype("float32")
KERNEL, GROUPED = (RNG.normal(size=s).astype("float32") for s in ((3, 2, 4, 6), (3, 2, 2, 6)))
EACH, MIXED = (RNG.normal(size=s).astype("float32") for s in ((3, 2, 4, 2), (1, 1, 8, 3)))
FIRST = np.moveaxis(PICTURES, -1, 1).copy()

WRITTEN: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("clip", (X,), {"x_min": -0.5, "x_max": 0.5}), ("clip", (X, -0.1, 0.3), {}), ("pad", (X, ((1, 0), (0, 2))), {}),
    ("pad", (X, ((1, 2), (2, 1)), "reflect"), {}),
    *(
        (name, (X,), how) for name in ("argmax", "argmin")
        for how in ({}, {"axis": 0}, {"axis": 1, "keepdims": True}, {"keepdims": True})
    ),
    ("max", (X, 1), {"initial": 0.5}), ("min", (X,), {"initial": -9.0}), ("max", (), {"x": X, "axis": (0, 1)}),
    ("where", (X > 0,), {"x1": X, "x2": Y}), ("where", (I, 2.0, 1.0), {}), ("full", ((2, 3),), {"fill_value": 2.0}),
    ("full", ((3, 4), X[0]), {}), ("full_like", (X,), {"fill_value": 2.0}),
    ("one_hot", (I,), {"num_classes": 4, "axis": 0, "dtype": "int32"}), ("multi_hot", (I, 4), {"dtype": "int32"}),
    ("reshape", (X,), {"newshape": (4, -1)}), ("round", (X, 2), {}), ("round", (X * 100, -1), {}),
    ("split", (X,), {"indices_or_sections": [1, 3], "axis": 1}), ("split", (X, 2, 1), {}),
    ("stack", (), {"x": [X, Y], "axis": -1}), ("flip", (X,), {"axis": 1}), ("eye", (3,), {"M": 4, "k": 1}),
    ("tri", (), {"N": 3, "M": 2}), ("identity", (3,), {}), ("identity", (), {"n": 2, "dtype": "int32"}),
    ("prod", (I,), {"axis": 1, "dtype": "float32"}), ("isclose", (GAPS, GAPS), {"equal_nan": True}),
    ("allclose", (GAPS, GAPS), {"equal_nan": True}), ("isclose", (GAPS, GAPS), {}),
    ("linspace", (0, 1), {"num": 5, "retstep": True}), ("linspace", (X, Y, 4, False), {}),
    ("logical_and", (I, I[::-1].copy()), {}), ("logical_not", (I,), {}), ("all", (I, 1), {}),
    ("any", (I,), {"axis": 0}), ("repeat", (X, 2), {}), ("repeat", (X, 2, 1), {}), ("tile", (X, 2), {}),
    ("tile", (X, (2, 1, 3)), {}), ("take", (X, I), {}), ("take", (X, [[0, -1]]), {"axis": 1}), ("take", (X, 2, 1), {}),
    ("take_along_axis", (X, np.array([3, 1])), {}), ("moveaxis", (CUBE, (0, 1), (2, 0)), {}),
    ("moveaxis", (CUBE,), {"source": 0, "destination": -1}), ("expand_dims", (X,), {"axis": 1}),
    ("tensordot", (X, Y), {"axes": ((1,), (1,))}), ("einsum", ("ij,kj->ik", X, Y), {}),
    ("matmul", (), {"x1": X, "x2": Y.T.copy()}), ("dot", (), {"x1": X, "x2": Y.T.copy()}),
    ("arange", (0.5, 3.0, 0.5), {}), ("arange", (2, 9), {"step": 3}), ("arange", (5,), {"dtype": "float32"}),
    ("elu", (X, 2.0), {}), ("leaky_relu", (X,), {"negative_slope": 0.1}), ("gelu", (X,), {}), ("gelu", (X, False), {}),
    ("threshold", (X, 0.1, 0.2), {}), ("celu", (), {"x": X, "alpha": 0.5}), ("relu", (), {"x": X}),
    ("logsumexp", (X,), {"axis": 1}), ("moments", (X,), {"axes": [0, 1], "keepdims": True, "synchronized": False}),
    ("bitwise_and", (), {"x": I, "y": 2}), ("conv", (PICTURES, KERNEL), {"strides": 2, "padding": "same"}),
    ("conv", (PICTURES, KERNEL, 1, "valid", None, (2, 1)), {}), ("conv", (PICTURES, GROUPED), {}),
    ("conv", (), {"inputs": FIRST, "kernel": KERNEL, "data_format": "channels_first"}),
    ("conv_transpose", (PICTURES, np.swapaxes(KERNEL, 2, 3).copy(), 2, "same"), {}),
    ("conv_transpose", (FIRST, np.swapaxes(KERNEL, 2, 3).copy()), {"data_format": "channels_first", "strides": 2}),
    ("depthwise_conv", (PICTURES, EACH), {"padding": "same", "dilation_rate": 2}),
    ("depthwise_conv", (FIRST, EACH), {"data_format": "channels_first"}),
    ("separable_conv", (PICTURES, EACH, MIXED), {"strides": 2}),
    ("separable_conv", (FIRST, EACH, MIXED, 1, "valid", "channels_first"), {}),
    *(
        (name, (PICTURES,), how) for name in ("max_pool", "average_pool")
        for how in ({"pool_size": 2}, {"pool_size": (3, 2), "strides": 1})
    ),
    ("max_pool", (FIRST, 2, 1, "valid", "channels_first"), {}),
    ("average_pool", (ROWS,), {"pool_size": 3, "strides": 2}), ("adaptive_max_pool", (FIRST, 3, "channels_first"), {}),
    ("adaptive_average_pool", (PICTURES,), {"output_size": (2, 3)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "kwargs"), WRITTEN, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRITTEN)])
def test_means_the_same(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    found = [np.asarray(ops.to_numpy(x)) for x in leaves_of(getattr(ops, name)(*args, **kwargs))]
    theirs = [np.asarray(keras.ops.convert_to_numpy(x)) for x in leaves_of(getattr(keras.ops, name)(*args, **kwargs))]
    for a, e in zip(found, theirs, strict=True):
        assert a.shape == e.shape, f"{name}: {a.shape}, expected {e.shape}"
        assert_close(a.astype("float64"), e.astype("float64"), rtol=2e-6, atol=5e-6, what=name)


BY_NUMPY: list[tuple[Any, Any]] = [
    (ops.clip(X, Y - 1, Y + 1), np.clip(X, Y - 1, Y + 1)),
    (ops.clip(X, x_min=0.0), np.maximum(X, 0)),
    (ops.clip(X, minimum=-0.1, maximum=0.1), np.clip(X, -0.1, 0.1)),
    (ops.pad(X, 1, constant_values=3.0), np.pad(X, 1, constant_values=3.0)),
    (ops.pad(X, (1, 2)), np.pad(X, (1, 2))),
    *((ops.pad(X, ((1, 2), (0, 3)), m), np.pad(X, ((1, 2), (0, 3)), m)) for m in ("edge", "symmetric", "reflect")),
    (ops.min(X, 1, True, initial=-1.0), np.min(X, 1, keepdims=True, initial=-1.0)),
    (ops.linspace(X, Y, 5, axis=1), np.linspace(X, Y, 5, axis=1)),
    (ops.take(X, [0, -1]), np.take(X, [0, -1])),
    (ops.repeat(X, [1, 0, 2], 0), np.repeat(X, [1, 0, 2], 0)),
    (ops.expand_dims(X, (0, 2)), np.expand_dims(X, (0, 2))),
    (ops.tensordot(X, Y, (1, 1)), np.tensordot(X, Y, (1, 1))),
    (ops.stop_gradient(variable=X), X),
    (ops.rearrange(CUBE, "a ... c -> c (a ...)"), CUBE.transpose(2, 0, 1).reshape(4, 6)),
    (ops.split(X, [1, -1], 1)[1], np.split(X, [1, -1], 1)[1]),
]


@pytest.mark.parametrize(("found", "expected"), BY_NUMPY)
def test_means_the_same_as_in_numpy(found: Any, expected: Any) -> None:
    """What Keras on PyTorch does not take, or takes for something else."""
    assert_close(found, expected, rtol=1e-14, atol=0, what="result")


# ---- what cannot be ------------------------------------------------------------------------

SYMBOL = leaf("input", "x", Spec((Dim.symbol("batch"), 4), "float32"))

WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ops.relu(), TypeError, "ops.relu() lacks 'x'; its arguments are x"),
    (lambda: ops.elu(X, 1.0, 2.0), TypeError, "ops.elu() takes fewer; its arguments are x, alpha"),
    (lambda: ops.elu(X, 1.0, alpha=2.0), TypeError, "ops.elu() takes 'alpha' once; its arguments are x, alpha"),
    (lambda: ops.elu(X, beta=2.0), TypeError, "ops.elu() has no argument 'beta'; it takes ['alpha']"),
    (lambda: ops.clip(X, 0.0, minimum=0.0, x_min=0.0), TypeError, "clip() takes 'x_min' or 'minimum', not both"),
    (
        lambda: ops.one_hot(I, 4, sparse=True), UnilayersError,
        "ops.one_hot: arrays are dense here, so sparse cannot be True.",
    ),
    (
        lambda: ops.conv(PICTURES, KERNEL, data_format="first"), ShapeError,
        "op 'conv': unknown data_format. Expected 'channels_last' or 'channels_first'. Received 'first'.",
    ),
    (
        lambda: ops.nonzero(SYMBOL), ShapeError,
        "ops.nonzero: the size of the result depends on the elements, which a graph does not know. Call it outside of "
        "the graph, or mask with ops.where.",
    ),
    (
        lambda: ops.segment_sum(X, leaf("input", "i", Spec((3,), "int32"))), ShapeError,
        "ops.segment_sum: how many segments there are is not known in a graph. Give num_segments.",
    ),
    (
        lambda: ops.pad(SYMBOL, 1, mode="reflect"), ShapeError,
        "op 'pad': axis 0 is of unknown size. Expected a known size.",
    ),
    (
        lambda: ops.cholesky(SYMBOL), ShapeError,
        "op 'cholesky': not a square matrix. Expected (..., n, n) with a known n. Received (batch, 4).",
    ),
    (
        lambda: ops.pinv(SYMBOL), ShapeError,
        "ops.pinv: the sizes of the matrices must be known. Expected (..., n, m). Received (None, 4).",
    ),
    (
        lambda: ops.rearrange(X, "a (b c) -> a b c", b=3), UnilayersError,
        "ops.rearrange: cannot rearrange by 'a (b c) -> a b c'. Expected sizes that make 4. Received (b c) with {'b': "
        "3}.",
    ),
    (
        lambda: ops.quantile(X, 0.5, method="cubic"), UnilayersError,
        "ops.quantile: unknown method. Expected 'linear' or 'lower' or 'higher' or 'midpoint' or 'nearest'. Received "
        "'cubic'.",
    ),
    (
        lambda: ops.fft(X), UnilayersError,
        "ops.fft: a complex array is needed. Expected a pair (real, imaginary). Received ndarray.",
    ),
    (
        lambda: ops.image.resize(X, (2, 2)), ShapeError,
        "not pictures. Expected (batch, height, width, channels) or (height, width, channels). Received (3, 4).",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[w[2].partition(";")[0][:40] for w in WRONG])
def test_error(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message


def test_further_names_of_arguments() -> None:
    @also(old="new")
    def call(x: int, new: int = 0) -> tuple[int, int]:
        return x, new

    assert call(1, old=2) == call(1, new=2) == call(1, 2) == (1, 2)
    assert [*inspect.signature(call).parameters] == ["x", "new"]
