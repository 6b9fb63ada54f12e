"""The NumPy backend with oneDNN beside the NumPy backend without: every op that it takes over, and training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from unilayers.backends.numpy.onednn import Library, in_use, library, products, windows
from unilayers.backends.numpy.onednn.contract import BUILDS
from unilayers.backends.numpy.onednn.library import VARIABLE

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import EXPECTED
from tests.test_numpy_backend import SAMPLES, arrays_of, graph_of, planned
from tests.test_training import DIGITS_RECIPES, first_losses
from unilayers.errors import BackendError
from unilayers.graph import OPS, Graph, Value, leaf, tracing
from unilayers.spec import Spec

Arrays = list[np.ndarray]
RNG = np.random.default_rng(3)


def _missing() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE, raising=False)
        return "" if library() else f"oneDNN: {in_use()}"


MISSING = _missing()
needs_library = pytest.mark.skipif(bool(MISSING), reason=MISSING or "-")


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile with oneDNN."""
    monkeypatch.setenv(VARIABLE, "on")


@pytest.fixture
def no_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let oneDNN take what is too small to pay."""
    for module, name in ((products, "FEW"), (products, "SHORT"), (windows, "FEW_ROWS")):
        monkeypatch.setattr(module, name, 0)


def run_both(graph: Graph, arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, str]:
    """Outputs with oneDNN and without, and the source of the step with it."""
    monkeypatch.setenv(VARIABLE, "off")
    _, plain = planned(graph)([], arrays)
    monkeypatch.setenv(VARIABLE, "on")
    step = planned(graph)
    step([], [np.zeros_like(a) for a in arrays])  # leaves its traces in the buffers
    _, found = step([], arrays)
    return found, plain, step.source


def assert_same(found: Any, wanted: Any, what: str) -> None:
    """Close for float32, relatively to the largest element: sums are added up in another order."""
    finite = np.abs(wanted[np.isfinite(wanted)]).astype(float)
    assert_close(found, wanted, rtol=1e-5, atol=1e-5 * finite.max(initial=0.0), what=what)


# ---- every op ---------------------------------------------------------------------

TAKEN = [p for p in SAMPLES if p.values[0] in BUILDS]


@needs_library
@pytest.mark.usefixtures("no_thresholds")
@pytest.mark.parametrize(("name", "index", "dtype"), TAKEN)
def test_every_op_taken_over(name: str, index: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op = OPS[name]
    assert op.samples is not None
    sample = op.samples(np.random.default_rng(0))[index]
    arrays = arrays_of(sample, dtype)
    found, plain, _ = run_both(graph_of(name, dict(sample.attrs), arrays), arrays, monkeypatch)
    for key, value in plain.items():
        assert_same(found[key], value, f"{name} {dict(sample.attrs)}")


@needs_library
@pytest.mark.usefixtures("no_thresholds")
@pytest.mark.parametrize("name", sorted(BUILDS.keys() & OPS.keys()))
def test_the_library_does_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 some sample of each op is its work, in float64 none."""
    monkeypatch.setenv(VARIABLE, "on")
    used: dict[str, bool] = {"float32": False, "float64": False}
    for p in TAKEN:
        if p.values[0] == name:
            sample = OPS[name].samples(np.random.default_rng(0))[p.values[1]]  # type: ignore[misc]
            arrays = arrays_of(sample, dtype := str(p.values[2]))
            step = planned(graph_of(name, dict(sample.attrs), arrays))
            step([], arrays)
            used[dtype] |= "onednn" in step.source
    assert used == {"float32": True, "float64": False}


@needs_library
@pytest.mark.usefixtures("no_thresholds")
@pytest.mark.parametrize("view", ["repeated", "flipped", "turned", "cut", "one"])
def test_products_of_views(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def net(a: Value, b: Value) -> Any:
        a = ul.ops.sin(a)  # in memory of its own, at which views look
        if view == "repeated":
            a = ul.ops.broadcast_to(ul.ops.getitem(a, slice(1)), (6, 9, 12))
        elif view == "flipped":
            a = ul.ops.flip(a, 0)
        elif view == "turned":
            a = ul.ops.permute_dims(a, (0, 2, 1))
        elif view == "cut":
            a = ul.ops.getitem(a, (slice(0, 6, 2), slice(2, 7)))
        else:
            a = ul.ops.getitem(a, 2)
        return ul.ops.matmul(a, b) if view != "turned" else ul.ops.matmul(a, ul.ops.getitem(b, slice(9)))

    arrays = [normal(6, 9, 12), normal(12, 8)]
    found, plain, _ = run_both(graph(net, *arrays), arrays, monkeypatch)
    for key, value in plain.items():
        assert_same(found[key], value, f"{view}, {key}")


# ---- windows ------------------------------------------------------------------------


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def graph(function: Callable[..., Any], *arrays: np.ndarray) -> Graph:
    """The gradients of a function's sum, weighted, after its value."""
    leaves = [leaf("input", f"x{i}", Spec(a.shape, a.dtype.name)) for i, a in enumerate(arrays)]
    with tracing():
        y = function(*leaves)
        found = ul.autodiff.gradients(ul.ops.sum(y * ul.ops.sin(y)), leaves)
    return Graph(tuple(leaves), (), {"y": y, **{f"g{i}": g for i, g in enumerate(found)}})


CONVOLUTIONS = {
    "valid": ((4, 12, 11, 5), (3, 3, 5, 8), {"padding": "valid"}),
    "same": ((4, 12, 11, 5), (3, 3, 5, 8), {"padding": "same"}),
    "one image": ((1, 16, 16, 3), (5, 5, 3, 7), {"padding": "same"}),
    "strides, padded on one side": ((3, 12, 12, 4), (3, 3, 4, 6), {"padding": "same", "strides": 2}),
    "uneven strides": ((3, 13, 10, 4), (2, 3, 4, 6), {"padding": "valid", "strides": (3, 2)}),
    "strides beyond the window": ((3, 13, 13, 4), (1, 1, 4, 6), {"padding": "valid", "strides": 2}),
    "dilation": ((2, 14, 14, 4), (3, 3, 4, 6), {"padding": "same", "dilation_rate": 2}),
    "groups": ((2, 10, 10, 6), (3, 3, 2, 9), {"padding": "same"}),
    "depthwise": ((2, 10, 10, 8), (3, 3, 1, 8), {"padding": "valid"}),
    "one channel": ((2, 10, 10, 1), (3, 3, 1, 16), {"padding": "valid"}),
    "1-d": ((5, 40, 4), (5, 4, 6), {"padding": "same"}),
    "3-d": ((2, 6, 7, 8, 3), (3, 3, 3, 3, 4), {"padding": "valid"}),
}


@needs_library
@pytest.mark.usefixtures("no_thresholds")
@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("end", ["plain", "bias", "relu"])
def test_convolutions_and_their_gradients(case: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, kernel, attrs = CONVOLUTIONS[case]

    def net(x: Value, k: Value, b: Value) -> Any:
        y = ul.ops.conv(x, k, **attrs)
        y = y if end == "plain" else y + b
        return ul.ops.relu(y) if end == "relu" else y

    arrays = [normal(*shape), normal(*kernel), normal(kernel[-1])]
    found, plain, source = run_both(graph(net, *arrays), arrays, monkeypatch)
    assert source.count("onednn") >= 3
    for key, value in plain.items():
        assert_same(found[key], value, f"{case}, {key}")


POOLINGS = {
    "pairs": ((4, 12, 12, 5), {"pool_size": 2}),
    "odd": ((4, 11, 13, 5), {"pool_size": 2}),
    "overlap": ((2, 13, 13, 4), {"pool_size": 3, "strides": 2}),
    "padded": ((2, 13, 12, 4), {"pool_size": 3, "strides": 2, "padding": "same"}),
    "one image": ((1, 8, 8, 16), {"pool_size": (2, 4)}),
    "1-d": ((3, 20, 4), {"pool_size": 2}),
    "3-d": ((2, 6, 6, 6, 3), {"pool_size": 2}),
}


@needs_library
@pytest.mark.parametrize("case", POOLINGS)
@pytest.mark.parametrize("kind", ["max_pool", "average_pool"])
@pytest.mark.parametrize("end", ["alone", "relu before"])
def test_poolings_and_their_gradients(case: str, kind: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole numbers, so that many are equal: the gradient goes to the first."""
    shape, attrs = POOLINGS[case]

    def net(x: Value) -> Any:
        return getattr(ul.ops, kind)(ul.ops.relu(x) if end == "relu before" else x, **attrs)

    arrays = [RNG.integers(-2, 3, shape).astype("float32")]
    found, plain, source = run_both(graph(net, *arrays), arrays, monkeypatch)
    assert source.count("onednn") == 2
    for key, value in plain.items():
        assert_same(found[key], value, f"{case}, {key}")


@needs_library
@pytest.mark.usefixtures("no_thresholds")
def test_a_relu_between_convolution_and_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    def net(x: Value, k: Value, b: Value) -> Any:
        return ul.ops.max_pool(ul.ops.relu(ul.ops.conv(x, k) + b), 2)

    arrays = [normal(4, 11, 11, 3), normal(3, 3, 3, 8), normal(8)]
    found, plain, source = run_both(graph(net, *arrays), arrays, monkeypatch)
    assert "max_pool_places" in source
    for key, value in plain.items():
        assert_same(found[key], value, key)


@needs_library
@pytest.mark.usefixtures("no_thresholds")
@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_what_is_not_finite_spreads_as_without(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def net(x: Value, k: Value, b: Value) -> Any:
        return ul.ops.max_pool(ul.ops.relu(ul.ops.conv(x, k) + b), 2)

    arrays = [normal(4, 11, 11, 3), np.abs(normal(3, 3, 3, 8)), normal(8)]
    arrays[0][1, 5, 5, 0] = bad
    arrays[0][2, :5, :5] = bad
    x = leaf("input", "x", Spec((2, 4, 4, 8), "float32"))
    with tracing():
        alone = Graph((x,), (), {"y": ul.ops.max_pool(x, 2)})
    few = np.full((2, 4, 4, 8), bad, "float32")
    few[1] = 1
    for each, given in ((graph(net, *arrays), arrays), (alone, [few])):
        found, plain, _ = run_both(each, given, monkeypatch)
        assert_same(found["y"], plain["y"], "y")
        assert not np.isfinite(plain["y"]).all() or bad < 0


@needs_library
@pytest.mark.usefixtures("no_thresholds", "on")
def test_inputs_that_lie_otherwise_are_read_right() -> None:
    x, k = leaf("input", "x", Spec((64, 32), "float32")), leaf("input", "k", Spec((32, 16), "float32"))
    with tracing():
        step = planned(Graph((x, k), (), {"y": ul.ops.matmul(x, k)}))
    a, b = normal(64, 32), normal(32, 16)
    for left in (a, np.asfortranarray(a), normal(128, 64)[::2, ::2], a[::-1], a.astype("float64")):
        for right in (b, np.asfortranarray(b)):
            _, found = step([], [left, right])
            assert_same(found["y"], (left @ right).astype("float32"), "y")
    assert "onednn" in step.source


@needs_library
@pytest.mark.parametrize("part", [slice(None), slice(3, 40)])
def test_sigmoids(part: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(30, 50) * 40
    x[0, :6] = np.nan, np.inf, -np.inf, 100, -100, 0
    each = graph(lambda x: ul.ops.sigmoid(ul.ops.getitem(x, (..., part))), x)
    found, plain, source = run_both(each, [x], monkeypatch)
    assert "onednn" in source and "reciprocal" not in source
    for key, value in plain.items():
        assert_same(found[key], value, key)


# ---- training -----------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize("recipe", DIGITS_RECIPES)
def test_first_hundred_losses_agree(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "FEW", 1 << 10)
    _, expected = first_losses(recipe, "numpy", "float32")
    monkeypatch.setenv(VARIABLE, "on")
    _, found = first_losses(recipe, "numpy", "float32")
    assert_close(np.array(found), np.array(expected), rtol=1e-4, atol=0, what=f"{recipe} with oneDNN")


@pytest.mark.skipif(not EXPECTED, reason="UNILAYERS_EXPECT_BACKENDS names nothing")
def test_it_is_installed_where_everything_is() -> None:
    assert not MISSING


# ---- choosing -------------------------------------------------------------------------


def test_off_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert library() is None and in_use() == f"off ({VARIABLE})"
    assert ul.get_backend("numpy").libraries() == {"oneDNN": in_use()}


@needs_library
def test_found_without_being_asked_for_and_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    found = library()
    assert isinstance(found, Library) and in_use() == found.version and found.version.startswith("3.")
    monkeypatch.setenv(VARIABLE, found.path)
    assert library() is found


def test_a_library_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/libdnnl.so.3")
    with pytest.raises(BackendError, match=r"oneDNN cannot be loaded.*no such file.*unilayers\[cpu\]"):
        library()
    monkeypatch.setenv(VARIABLE, "libc.so.6")
    with pytest.raises(BackendError, match=r"libc\.so\.6: .*dnnl_"):
        library()
    other = tmp_path / "libdnnl.so.3"
    other.write_bytes(b"no library")
    monkeypatch.setenv(VARIABLE, str(other))
    with pytest.raises(BackendError, match="too short"):
        library()
