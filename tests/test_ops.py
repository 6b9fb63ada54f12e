"""Every op on every backend against its own reference; all of it derived from the records."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.autodiff import grad, gradients
from unilayers.backend import Backend
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.graph import OPS, Graph, Node, Op, Sample, Value, constant, leaf, make_node
from unilayers.graph.node import LEAVES
from unilayers.graph.passes import Replace, map_attr, rewrite, specialise
from unilayers.graph.serialize import from_json, to_json
from unilayers.graph.verify import verify
from unilayers.ops.conv import conv_padding
from unilayers.ops.define import bind
from unilayers.ops.random import threefry_2x32
from unilayers.program import compile_graph
from unilayers.spec import Dim, Spec, evaluate, is_float

NAMES = [name for name in OPS if name not in LEAVES]

# ---- what the records give ------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Call:
    """A sample in one dtype, with its expected results."""

    dtype: str
    inputs: tuple[np.ndarray, ...]
    attrs: Mapping[str, Any]
    specs: tuple[Spec, ...]
    expected: tuple[np.ndarray, ...]
    multiple: bool


def samples(op: Op) -> list[Sample]:
    assert op.samples is not None, f"op {op.name!r} has no samples"
    return op.samples(np.random.default_rng(7))


def in_dtype(array: Any, dtype: str) -> np.ndarray:
    """Float arrays in the dtype under test, the others as they are."""
    array = np.asarray(array)
    return array.astype(dtype) if is_float(array.dtype.name) else array


def with_bodies(op: Op, attrs: Mapping[str, Any], replace: Replace) -> dict[str, Any]:
    """Attributes with their bodies rewritten."""
    return {k: map_attr(v, lambda body: rewrite(body, replace)) if k in op.bodies else v for k, v in attrs.items()}


def attrs_in_dtype(op: Op, attrs: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Attributes with their bodies, which samples give in float64, in the dtype under test."""

    def replace(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Any:
        if node.op == "input" and is_float(attrs["dtype"]):
            return make_node(OPS["input"], (), {**attrs, "dtype": dtype})
        if node.op == "constant" and is_float(node.outputs[0].dtype):
            return (constant(attrs["value"].array, dtype),)
        to_float = node.op == "astype" and is_float(attrs["dtype"])
        return make_node(OPS[node.op], inputs, {"dtype": dtype} if to_float else attrs)

    return with_bodies(op, attrs, replace)


def as_tuple(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def calls(op: Op, dtype: str) -> Iterator[Call]:
    """The reference always computes in float64, from inputs that are exact in the dtype."""
    assert op.reference is not None, f"op {op.name!r} has no reference"
    for sample in samples(op):
        inputs = tuple(in_dtype(x, dtype) for x in sample.inputs)
        attrs = attrs_in_dtype(op, {**op.defaults, **sample.attrs}, dtype)
        inferred = op.infer(*(Spec(x.shape, x.dtype.name) for x in inputs), **attrs)
        result = as_tuple(op.reference(*(in_dtype(x, "float64") for x in inputs), **sample.attrs))
        specs = as_tuple(inferred)
        expected = tuple(np.asarray(r).astype(s.dtype) for r, s in zip(result, specs, strict=True))
        yield Call(dtype, inputs, attrs, specs, expected, isinstance(inferred, tuple))


def check(op: Op, results: Any, call: Call, how: str) -> None:
    compared = len(call.specs) - (op.kept if call.attrs.get("keeps") else 0)  # what is kept is an engine's own matter
    assert len(results) == len(call.specs)
    for k, (result, spec, expected) in enumerate(zip(results[:compared], call.specs, call.expected, strict=False)):
        what = f"{op.name}{dict(call.attrs) or ''} in {call.dtype}, output {k}, {how}"
        assert Spec(result.shape, result.dtype.name) == spec, f"{what}: {result.dtype}{result.shape}, inferred {spec}"
        tolerance = op.tolerance * (1 if call.dtype == "float32" else 1e-7)
        finite = np.abs(expected[np.isfinite(expected)]).astype(float)
        assert_close(result, expected, rtol=tolerance, atol=tolerance * finite.max(initial=0.0), what=what)


def dtypes_of(op: Op) -> tuple[str, ...]:
    """Both precisions, or one if the op takes no floats."""
    floats = any(is_float(np.asarray(x).dtype.name) for sample in samples(op) for x in sample.inputs)
    return ("float64", "float32") if floats else ("float64",)


def all_calls(op: Op) -> list[Call]:
    return [call for dtype in dtypes_of(op) for call in calls(op, dtype)]


def one_op_graph(op: Op) -> Graph:
    """A graph with the op applied to every sample in every precision."""
    inputs, outputs = [], {}
    for i, call in enumerate(all_calls(op)):
        leaves = [leaf("input", f"x{i}_{j}", Spec(x.shape, x.dtype.name)) for j, x in enumerate(call.inputs)]
        inputs += leaves
        outputs |= {f"y{i}_{k}": v for k, v in enumerate(make_node(op, leaves, call.attrs))}
    return Graph(tuple(inputs), (), outputs)


def runner(graph: Graph, backend: Backend) -> Callable[[Sequence[np.ndarray]], dict[str, np.ndarray]]:
    """The graph compiled, as a function of NumPy arrays."""
    device = backend.device("cpu")
    function = compile_graph(graph, backend, device)

    def run(arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        _, outputs = function([], backend.put(arrays, device))
        return {name: backend.get(array) for name, array in outputs.items()}

    return run


def check_graph(op: Op, graph: Graph, backend: Backend, how: str) -> None:
    found = all_calls(op)
    outputs = runner(verify(graph), backend)([x for call in found for x in call.inputs])
    for i, call in enumerate(found):
        check(op, [outputs[f"y{i}_{k}"] for k in range(len(call.specs))], call, how)


# ---- the records -----------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_record_is_complete(name: str) -> None:
    op = OPS[name]
    assert op.doc and op.samples is not None and op.reference is not None
    assert samples(op), "no sample"
    for call in calls(op, "float64"):
        assert call.attrs.keys() == op.defaults.keys()
        assert (len(call.specs) > 1) <= call.multiple
        cost = op.cost(*(Spec(x.shape, x.dtype.name) for x in call.inputs), **call.attrs)
        assert cost >= 0 and not isinstance(cost, Dim)


# ---- values ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_eager(backend: str, name: str) -> None:
    engine, op = require_backend(backend), OPS[name]
    device = engine.device("cpu")
    for call in all_calls(op):
        arrays = engine.put(call.inputs, device)
        before = [engine.get(a) for a in arrays]
        results = as_tuple(bind(op, arrays, dict(call.attrs)))
        assert all(engine.device_of(r) == device for r in results) or not arrays
        check(op, [np.asarray(ops.to_numpy(r)) for r in results], call, f"eager on {backend}")
        for a, b in zip(arrays, before, strict=True):
            assert_close(engine.get(a), b, rtol=0, atol=0, what=f"operand of {name} after the call")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled(backend: str, name: str) -> None:
    """The graph that is compiled has been through JSON."""
    graph = from_json(to_json(one_op_graph(OPS[name])))
    check_graph(OPS[name], graph, require_backend(backend), f"compiled on {backend}")


@pytest.mark.parametrize("name", [name for name in NAMES if OPS[name].composite])
def test_expansion(name: str) -> None:
    """Composite ops by primitives alone, whatever a backend would run fused."""
    numpy = require_backend("numpy")
    primitives = {k: f for k, f in numpy.table.items() if not OPS[k].composite}
    bare = dataclasses.replace(numpy, table=primitives)
    check_graph(OPS[name], one_op_graph(OPS[name]), bare, "expanded")


# ---- symbolic sizes and JSON --------------------------------------------------------


def with_batch(op: Op, call: Call) -> Iterator[tuple[list[Spec], dict[str, Any]]]:
    """The call's specs and attributes with the first size unknown: where it recurs, and in the first operand alone."""
    batch, size = Dim.symbol("batch"), call.inputs[0].shape[0]

    def unknown(shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return (batch, *shape[1:]) if shape[:1] == (size,) else shape

    def unknown_inputs(node: Node, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Any:
        if node.op == "input":
            return make_node(OPS["input"], (), {**attrs, "shape": unknown(attrs["shape"])})
        return make_node(OPS[node.op], inputs, attrs)

    attrs = dict(call.attrs)
    if isinstance(attrs.get("shape"), tuple):
        attrs["shape"] = unknown(attrs["shape"])
    with suppress(UnilayersError):
        attrs = with_bodies(op, attrs, unknown_inputs)
    for which in (slice(None), slice(1)):
        shapes = [x.shape for x in call.inputs]
        shapes[which] = map(unknown, shapes[which])
        specs = [Spec(s, x.dtype.name) for s, x in zip(shapes, call.inputs, strict=True)]
        yield specs, attrs
        yield specs, dict(call.attrs)


def permitted(op: Op, specs: list[Spec], attrs: dict[str, Any]) -> Graph | None:
    leaves = [leaf("input", f"x{i}", s) for i, s in enumerate(specs)]
    try:
        outputs = make_node(op, leaves, attrs)
    except UnilayersError:
        return None
    return Graph(tuple(leaves), (), {f"y{i}": v for i, v in enumerate(outputs)})


@pytest.mark.parametrize("name", [n for n in NAMES if OPS[n].operands])
def test_symbolic_batch(name: str) -> None:
    """A graph of unknown batch size survives JSON and, specialised, has the specs of the concrete one."""
    op, tried = OPS[name], 0
    for call in calls(op, "float64"):
        if not call.inputs[0].shape or call.inputs[0].shape[0] < 2:
            continue
        for graph in (permitted(op, *variant) for variant in with_batch(op, call)):
            if graph is None or not graph.symbols:
                continue
            tried += 1
            again = from_json(to_json(graph))
            assert str(again) == str(graph)
            fixed = verify(specialise(again, {"batch": call.inputs[0].shape[0]}))
            assert tuple(v.spec for v in fixed.outputs.values()) == call.specs
    scalars = all(not call.inputs[0].shape for call in calls(op, "float64"))
    assert tried or scalars, "no sample allows an unknown batch size"


# ---- functions that are not ops of their own ------------------------------------------

X = np.arange(24.0).reshape(2, 3, 4) * 7 % 11
A, B = X[0], X[1].T

# ours, and NumPy's
FUNCTIONS: list[tuple[str, Callable[[], Any], Any]] = [
    ("mean", lambda: ops.mean(X, (0, 2)), np.mean(X, (0, 2))),
    ("mean of integers", lambda: ops.mean(X.astype("int32"), -1), np.mean(X, -1).astype("float32")),
    ("var", lambda: ops.var(X, 1, keepdims=True), np.var(X, 1, keepdims=True)),
    ("std", lambda: ops.std(X), np.std(X)),
    ("sum of bools", lambda: ops.sum(X > 5, 0), np.sum(X > 5, 0, dtype="int32")),
    ("logsumexp", lambda: ops.logsumexp(X, 1), np.log(np.exp(X).sum(1))),
    ("transpose", lambda: ops.transpose(X), X.T),
    ("matrix_transpose", lambda: ops.matrix_transpose(X), X.swapaxes(-1, -2)),
    ("moveaxis", lambda: ops.moveaxis(X, 0, -1), np.moveaxis(X, 0, -1)),
    ("expand_dims", lambda: ops.expand_dims(X, -1), X[..., None]),
    ("squeeze", lambda: ops.squeeze(X[:1]), X[0]),
    ("squeeze one", lambda: ops.squeeze(X[:1, :1], 1), X[:1, 0]),
    ("stack", lambda: ops.stack([A, A + 1], 1), np.stack([A, A + 1], 1)),
    ("split", lambda: ops.split(X, 2, -1)[1], np.split(X, 2, -1)[1]),
    ("repeat", lambda: ops.repeat(X, 3, 1), np.repeat(X, 3, 1)),
    ("tile", lambda: ops.tile(X, (1, 2, 3)), np.tile(X, (1, 2, 3))),
    (
        "pad",
        lambda: ops.pad(A, [(1, 0), (0, 2)], constant_values=5.0),
        np.pad(A, [(1, 0), (0, 2)], constant_values=5.0),
    ),
    ("flip", lambda: ops.flip(X), np.flip(X)),
    ("reshape", lambda: ops.reshape(X, (4, -1)), X.reshape(4, -1)),
    ("matmul of vectors", lambda: ops.matmul(A[0], A[1]), A[0] @ A[1]),
    ("matmul of a stack", lambda: ops.matmul(X, B), X @ B),
    ("tensordot", lambda: ops.tensordot(X, B, 1), np.tensordot(X, B, 1)),
    ("tensordot of axes", lambda: ops.tensordot(X, A, ((1, 2), (0, 1))), np.tensordot(X, A, ((1, 2), (0, 1)))),
    ("vecdot", lambda: ops.vecdot(A, A + 1, 0), (A * (A + 1)).sum(0)),
    ("divide integers", lambda: ops.divide(X.astype("int32"), 4), (X / 4).astype("float32")),
    ("one_hot", lambda: ops.one_hot(np.array([1, 3, -1]), 3), np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], "float32")),
    ("full_like", lambda: ops.full_like(X, 3), np.full_like(X, 3)),
    ("arange", lambda: ops.arange(2, 9, 3), np.arange(2, 9, 3, dtype="int32")),
]


@pytest.mark.parametrize(("ours", "numpys"), [f[1:] for f in FUNCTIONS], ids=[f[0] for f in FUNCTIONS])
def test_function(ours: Callable[[], Any], numpys: Any) -> None:
    assert_close(ours(), numpys, rtol=1e-12 if np.asarray(numpys).dtype == "float64" else 1e-6, atol=0, what="ours")


ALL = slice(None)
KEYS: list[Any] = [
    0, -1, np.int64(1), slice(1, None), slice(None, None, 2), (0, 1), (ALL, -1), (Ellipsis, 2), (None, 1),
    (1, None, Ellipsis), (ALL, slice(None, None, -1)), (ALL, slice(2, 0, -2)), (ALL, slice(5, 0, -1), slice(-3, -1)),
    (slice(0, 0),), (0, 1, 2), (ALL, ALL, slice(3, 0, -2)), np.array([1, 0, 1]),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_getitem(key: Any) -> None:
    assert_close(ops.getitem(X, key), X[key], rtol=0, atol=0, what="x[key]")


# ---- padding, errors ----------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_same_padding(window: int, dilation: int, stride: int) -> None:
    """Against the two properties that define it, and as little and as even as possible."""
    reach = (window - 1) * dilation + 1
    batch = Dim.symbol("length")
    for size in range(1, 12):
        ((low, high),) = conv_padding("same", (size,), (window,), (stride,), (dilation,))
        outputs = -(-size // stride)
        assert (size + low + high - reach) // stride + 1 == outputs
        assert 0 <= high - low <= 1
        assert low + high == 0 or (size + low + high - 1 - reach) // stride + 1 < outputs  # one less is too little
        if reach >= stride:
            ((low_, high_),) = conv_padding("same", (batch,), (window,), (stride,), (dilation,))
            assert [evaluate(p, {"length": size}) for p in (low_, high_)] == [low, high]


def test_other_paddings() -> None:
    def padding(mode: Any) -> Any:
        return conv_padding(mode, (8, 9), (3, 2), (1, 1), (2, 1))

    assert padding("valid") == ((0, 0), (0, 0))
    assert padding("causal") == ((4, 0), (1, 0))
    assert padding(2) == ((2, 2), (2, 2))
    assert padding((1, (0, 2))) == ((1, 1), (0, 2))


def test_symbolic_same_padding_of_a_far_stride() -> None:
    with pytest.raises(ShapeError, match="'same' padding of an unknown size"):
        conv_padding("same", (Dim.symbol("length"),), (2,), (3,), (1,))


WRONG: list[tuple[Callable[[], Any], type[UnilayersError], str]] = [
    (
        lambda: ops.conv(np.ones((1, 5, 5, 3)), np.ones((3, 3, 2, 4))), ShapeError,
        "op 'conv': channels do not fit the kernel. Expected channels = kernel.shape[-2] * groups, and filters a "
        "multiple of groups. Received x (1, 5, 5, 3), kernel (3, 3, 2, 4), groups 1.",
    ),
    (
        lambda: ops.conv(np.ones((1, 2, 3)), np.ones((3, 3, 4))), ShapeError,
        "op 'conv': the window is larger than the padded input. Expected at least 3 on spatial axis 0. Received size 2 "
        "with padding (0, 0). Use a smaller window or padding='same'.",
    ),
    (
        lambda: ops.conv(np.ones((1, 5, 3)), np.ones((3, 3, 4)), padding="smae"), ShapeError,
        "op 'conv': unknown padding. Expected 'valid', 'same', 'causal' or sizes. Received 'smae'.",
    ),
    (
        lambda: ops.conv(np.ones((1, 5, 3)), np.ones((3, 3, 4)), strides=(1, 2)), ShapeError,
        "op 'conv': strides does not fit. Expected one int >= 1, or 1 of them. Received (1, 2).",
    ),
    (
        lambda: ops.max_pool(np.ones((1, 4, 4, 1)), 2, padding=2), ShapeError,
        "op 'max_pool': padding must be smaller than the window. Expected 0 to 1. Received (2, 2).",
    ),
    (
        lambda: ops.matmul(np.ones((2, 3)), np.ones((2, 3))), ShapeError,
        "op 'matmul': matrices do not fit. Expected (..., n, k) times (..., k, m). Received (2, 3) times (2, 3).",
    ),
    (
        lambda: ops.slice_axis(leaf("input", "x", Spec((4,))), 0, 1, 6), ShapeError,
        "op 'slice': slice outside the array. Expected inside 0 to 4. Received 1 to 6.",
    ),
    (
        lambda: ops.relu(leaf("input", "x", Spec((4,), "int32"))), DTypeError,
        "op 'relu': needs a float operand. Received int32. Use ops.astype(x, 'float32').",
    ),
    (
        lambda: ops.dropout(leaf("input", "x", Spec((4,))), 0, rate=1.5, key=(0, 0)), UnilayersError,
        "op 'dropout': not a rate. Expected 0 to 1. Received 1.5.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[w[2].partition(". ")[0] for w in WRONG])
def test_error(call: Callable[[], Any], error: type[UnilayersError], message: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message


# ---- random numbers -------------------------------------------------------------------

# Key, counter, result: published with the generator (Random123, kat_vectors, threefry2x32 with 20 rounds).
KNOWN_ANSWERS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN_ANSWERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_threefry(backend: str, key: tuple[int, int], counter: tuple[int, int], answer: tuple[int, int]) -> None:
    engine = require_backend(backend)
    words = engine.put([np.array([c], np.uint32).astype(np.int32) for c in counter], engine.device("cpu"))
    found = [engine.get(w).astype(np.uint32) for w in threefry_2x32(key, *words)]
    assert [int(w[0]) for w in found] == list(answer)


def test_threefry_is_that_of_jax() -> None:
    prng = pytest.importorskip("jax.extend.random")
    key, size = np.array([0x12345678, 0x9ABCDEF0], np.uint32), 1000
    first, second = np.arange(size, dtype=np.uint32), np.full(size, 77, np.uint32)
    theirs = np.asarray(prng.threefry_2x32(key, np.concatenate([first, second]))).reshape(2, size)
    ours = threefry_2x32((int(key[0]), int(key[1])), first.astype(np.int32), second.astype(np.int32))
    assert_close(np.stack(ours).astype(np.uint32), theirs, rtol=0, atol=0, what="words")
    lanes = ops.random_bits(77, key=(int(key[0]), int(key[1])), shape=(4 * size,)).astype(np.int64).reshape(size, 2, 2)
    assert_close(lanes[..., 0] + lanes[..., 1] * 65536, theirs.T.astype(np.int64), rtol=0, atol=0, what="lanes")


def test_random_numbers_are_even() -> None:
    """Means and correlations within five standard deviations."""
    n = 40_000
    u = ops.random_uniform(5, key=(1, 2), shape=(n,), dtype="float32")
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    for other in (np.roll(u, 1), ops.random_uniform(6, key=(1, 2), shape=(n,), dtype="float32")):
        assert abs(np.corrcoef(u, other)[0, 1]) < 5 / math.sqrt(n)
    dropped = ops.dropout(np.ones(n, np.float32), 0, rate=0.3, key=(4, 5)) == 0
    assert abs(dropped.mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / n)


def test_shorter_draw_is_the_beginning_of_a_longer_one() -> None:
    long = ops.random_bits(3, key=(8, 9), shape=(70_003,))
    short = ops.random_bits(3, key=(8, 9), shape=(10, 13))
    assert_close(short.ravel(), long[:130], rtol=0, atol=0, what="bits")


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_is_bit_equal(backend: str, dtype: str) -> None:
    values = [np.random.default_rng(3).normal(size=(37, 11)).astype(dtype), np.array(-2, np.int32)]
    x, counter = (leaf("input", f"x{i}", Spec(v.shape, v.dtype.name)) for i, v in enumerate(values))
    graph = Graph((x, counter), (), {"y": ops.dropout(x, counter, rate=0.37, key=(2**32 - 1, 6))})
    here, there = (runner(graph, require_backend(name))(values)["y"] for name in ("numpy", backend))
    assert_close(there, here, rtol=0, atol=0, what="dropout")


# ---- conventions ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("function", "x", "gradient"),
    [
        (ops.relu, [0.0, -0.0], [0.0, 0.0]),
        (ops.abs, [0.0, -0.0], [0.0, 0.0]),
        (lambda x: ops.clip(x, minimum=0.0, maximum=1.0), [0.0, 1.0, 2.0], [1.0, 1.0, 0.0]),
        (lambda x: ops.maximum(x, 1.0), [1.0, 2.0, 0.0], [0.5, 1.0, 0.0]),
        (lambda x: ops.max(x), [3.0, 1.0, 3.0], [0.5, 0.0, 0.5]),
        (lambda x: ops.max_pool(ops.reshape(x, (1, 4, 1)), 2), [1.0, 1.0, 0.0, 2.0], [1.0, 0.0, 0.0, 1.0]),
        (lambda x: ops.power(x, 0.0), [0.0, 2.0], [0.0, 0.0]),
        (lambda x: ops.power(x, 2.0), [0.0, -2.0], [0.0, -4.0]),
    ],
)
def test_gradient_at_a_tie(backend: str, function: Callable[..., Any], x: list[float], gradient: list[float]) -> None:
    """Decided once, and the same on a tape and in a graph."""
    engine, values = require_backend(backend), np.array(x)
    eager = grad(lambda v: ops.sum(function(v)))(engine.put([values], engine.device("cpu"))[0])
    symbol = leaf("input", "x", Spec(values.shape, "float64"))
    graph = Graph((symbol,), (), {"g": gradients(function(symbol), [symbol])[0]})
    for found in (engine.get(eager), runner(graph, engine)([values])["g"]):
        assert_close(found, np.array(gradient), rtol=0, atol=0, what="gradient")


def test_comparison_notices_differences() -> None:
    x = np.array([1.0, np.nan, np.inf])
    assert_close(x, x.copy(), rtol=0, atol=0, what="x")
    wrong = [np.array(v) for v in ([1.001, np.nan, np.inf], [1, 0, np.inf], [1, np.nan, -np.inf])]
    for other in (x[:2], x.astype("float32"), *wrong):
        with pytest.raises(AssertionError, match="x"):
            assert_close(other, x, rtol=1e-6, atol=1e-6, what="x")
    with pytest.raises(AssertionError, match="worst at \\(1,\\)"):
        assert_close(np.array([5, 6]), np.array([5, 7]), rtol=1, atol=1, what="integers")
