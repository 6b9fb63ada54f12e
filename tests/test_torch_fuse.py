"""PyTorch: graphs rewritten for aten's kernels compute what they computed before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.test_gradients import DIFFERENTIABLE, cases
from unilayers import layers, ops
from unilayers.autodiff import gradients
from unilayers.graph import OPS, Graph, Node, Value, leaf, make_node, tracing
from unilayers.graph.emit import Made, straight_line
from unilayers.program import compile_graph
from unilayers.spec import Spec, is_float

torch = pytest.importorskip("torch")

from unilayers.backends.torch import backend, fuse, neural  # noqa: E402

TORCH = backend.BACKEND
Build = Callable[..., Any]


def array(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).normal(size=shape).astype(dtype)


def graph_of(build: Build, arrays: list[np.ndarray]) -> Graph:
    inputs = [leaf("input", f"x{i}", Spec(a.shape, a.dtype.name)) for i, a in enumerate(arrays)]
    with tracing():
        found = build(*inputs)
    found = found if isinstance(found, (tuple, list)) else (found,)
    return Graph(tuple(inputs), (), {f"y{i}": v for i, v in enumerate(found)})


def both(graph: Graph, arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, set[str]]:
    """What PyTorch computes of a graph, rewritten and expanded to primitives; and the ops of the rewritten one."""
    ran: list[Node] = []
    whole = fuse.fuse

    def watched(lowered: Graph, device: str) -> Graph:
        ran.extend((result := whole(lowered, device)).nodes)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(backend, "fuse", watched)
        placed = TORCH.put(arrays, "cpu")
        _, outputs = compile_graph(graph, TORCH, "cpu")([], placed)
    for before, after in zip(arrays, placed, strict=True):
        assert_close(TORCH.get(after), before, rtol=0, atol=0, what="operand, after the step")
    found = {k: TORCH.get(v) for k, v in outputs.items()}
    with monkeypatch.context() as patch:
        patch.setattr(fuse, "RULES", [])
        primitives = {k: f for k, f in TORCH.table.items() if not OPS[k].composite}
        function = compile_graph(graph, dataclasses.replace(TORCH, table=primitives), "cpu")
        _, outputs = function([], TORCH.put(arrays, "cpu"))
    return found, {k: TORCH.get(v) for k, v in outputs.items()}, {n.op for n in ran}


def same(found: Any, expected: Any, what: str, rtol: float = 1e-9) -> None:
    for name, wanted in expected.items():
        scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=1.0))
        assert_close(found[name], wanted, rtol=rtol, atol=rtol * scale, what=f"{what}, {name}")


# ---- an op and its gradient, from the records ---------------------------------------------


def with_gradients(name: str) -> Iterator[tuple[Graph, list[np.ndarray], bool]]:
    """Graphs of an op, its gradients and theirs again; and whether PyTorch has a kernel for the op in this form."""
    for case in cases(OPS[name]):
        flows = list(case.cotangents)

        def build(*values: Value, case: Any = case) -> list[Value]:
            x, u = list(values[: len(case.inputs)]), values[len(case.inputs) :]
            y = make_node(case.op, x, case.attrs)
            wanted = [x[i] for i in case.wanted]
            first = gradients(y, wanted, u)
            again = sum((ops.sum(ops.square(g)) for g in first), start=ops.zeros((), "float64"))
            return [*y, *first, *gradients(again, wanted)]

        graph = graph_of(build, [*case.inputs, *flows])
        node = next(n for n in graph.nodes if n.op == name)
        yield graph, [*case.inputs, *flows], neural.fits(node, "cpu") and len(case.attrs.get("window", "ab")) > 1


@pytest.mark.parametrize("name", fuse.PAIRS)
def test_an_op_keeps_what_its_gradient_needs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in DIFFERENTIABLE
    kept = 0
    for graph, arrays, fits in with_gradients(name):
        found, expected, ran = both(graph, arrays, monkeypatch)
        same(found, expected, name)
        assert (f"{name}_kept" in ran) == (f"{name}_from" in ran) == fits
        kept += fits
    assert kept, "no sample has the kernel's form"


@pytest.mark.parametrize("name", neural.FITS)
def test_every_kernel_is_reached_by_a_sample(name: str) -> None:
    samples: Any = OPS[name].samples
    nodes = []
    for s in samples(np.random.default_rng(0)):
        inputs = [leaf("input", "x", Spec(x.shape, x.dtype.name)) for x in map(np.asarray, s.inputs)]
        nodes.append(make_node(OPS[name], inputs, {**OPS[name].defaults, **s.attrs})[0].node)
    assert any(neural.fits(n, "cpu") for n in nodes)
    assert not neural.FITS[name][1] or not any(neural.fits(n, "cuda:0") for n in nodes)


@pytest.mark.parametrize("odd", [None, 4, 3, -1, -100])
def test_labels_that_are_no_class(odd: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array([[2, 0], [1 if odd is None else odd, 1]], "int64")

    def build(logits: Value, labels: Value, g: Value) -> list[Value]:
        y = ops.sparse_softmax_cross_entropy(logits, labels)
        return [y, *gradients(y, [logits], [g])]

    arrays = [array(2, 2, 3), labels, array(2, 2)]
    found, expected, ran = both(graph_of(build, arrays), arrays, monkeypatch)
    assert "sparse_softmax_cross_entropy_kept" in ran
    assert np.isnan(found["y0"]).tolist() == [[False, False], [odd is not None, False]]
    assert np.isfinite(found["y1"]).all()
    same(found, expected, "losses")


# ---- what a rule joins, and what it leaves ---------------------------------------------------

X, W, B = array(5, 4), array(4, 6), array(6)
IMAGE, KERNEL, FILTERS = array(2, 7, 6, 3), array(3, 3, 3, 4), array(4)
IMAGES = [IMAGE, KERNEL, FILTERS]
COUNTER = np.array(3, "int32")


def pooled(x: Value) -> Value:
    return ops.max_pool(x, 2)


def image_net(x: Value, kernel: Value, bias: Value, size: int = 2, strides: int = 2) -> list[Value]:
    y = ops.max_pool(ops.relu(ops.conv(x, kernel) + bias), size, strides)
    return [y, *gradients(ops.sum(ops.square(y)), [x, kernel, bias])]


def padded_net(x: Value, kernel: Value, low: int = 1, high: int = 1, value: float = 0.0) -> list[Value]:
    wide = ops.pad(x, [(0, 0), (low, high), (low, high), (0, 0)], constant_values=value)
    y = ops.conv(wide, kernel, strides=2)
    return [y, *gradients(ops.sum(ops.square(y)), [x, kernel])]


def dropped(x: Value, counter: Value) -> list[Value]:
    y = ops.dropout(ops.square(x), counter, rate=0.3, key=(1, 2))
    return [y, *gradients(ops.sum(ops.square(y)), [x])]


def relu_slope(x: Value) -> Value:
    return gradients(ops.sum(ops.square(ops.relu(ops.square(x) - 1.0))), [x])[0]


# What is built, its operands, the joined ops that must be in it, and ops that must not.
JOINS: dict[str, tuple[Build, list[np.ndarray], str, str]] = {
    "affine": (lambda x, w, b: x @ w + b, [X, W, B], "linear", "matmul add"),
    "large products": (
        lambda x, w, b: (ops.relu(x @ w + b), x @ (w * 2.0) + b, ops.transpose(x) @ (x @ ops.abs(w))),
        [array(130, 210, dtype="float32"), array(210, 96, dtype="float32"), array(96, dtype="float32")],
        "large_matmul large_linear large_linear_relu", "matmul linear linear_relu",
    ),
    "large products with NaN": (
        lambda x, w, b: ops.relu(x @ w + b), [np.where(array(130, 1) > 1, np.nan, array(130, 210)).astype("float32"),
        array(210, 96, dtype="float32"), array(96, dtype="float32")], "large_linear_relu", "linear_relu",
    ),
    "large products in float64": (
        lambda x, w: x @ w, [array(130, 210), array(210, 96)], "matmul", "large_matmul",
    ),
    "a row and a large matrix": (
        lambda x, w: x @ w, [array(1, 1500, dtype="float32"), array(1500, 1500, dtype="float32")],
        "matmul", "large_matmul",
    ),
    "bias first": (lambda x, w, b: b + x @ w, [X, W, B], "linear", "matmul add"),
    "affine and relu": (lambda x, w, b: ops.relu(x @ w + b), [X, W, B], "linear_relu", "matmul add relu"),
    "heads": (
        lambda x, w, b: ops.relu(ops.reshape(x @ w, (5, 2, 3)) + b), [X, W, array(2, 3)], "linear_relu", "matmul relu",
    ),
    "one bias for rows": (lambda x, w, b: x @ w + b, [X, W, array(5, 6)], "matmul add_into", "linear"),
    "bias of one number": (lambda x, w, b: x @ w + b, [X, W, array(1)], "matmul add_into", "linear"),
    "bias of part of a row": (
        lambda x, w, b: ops.reshape(x @ w, (5, 2, 3)) + b, [X, W, array(3)], "matmul add_into", "linear",
    ),
    "product read twice": (
        lambda x, w, b: (lambda y: (y + b, ops.exp(y)))(x @ w), [X, W, B], "matmul add", "linear add_into",
    ),
    "product returned": (lambda x, w, b: (lambda y: (y + b, y))(x @ w), [X, W, B], "matmul add", "linear add_into"),
    "a kernel for rows of all batches": (lambda x, w, b: x @ w + b, [array(2, 5, 4), W, B], "linear", "matmul add"),
    "batches of matrices": (
        lambda x, w, b: x @ w + b, [array(2, 5, 4), array(2, 4, 6), B], "matmul add_into", "linear",
    ),
    "affine read before relu": (
        lambda x, w, b: (lambda y: (ops.relu(y), ops.exp(y)))(x @ w + b), [X, W, B], "linear relu", "linear_relu",
    ),
    "convolution": (image_net, IMAGES, "conv_bias relu_into max_pool_kept relu_grad_into", "add conv"),
    "windows that overlap": (
        lambda *x: image_net(*x, size=3, strides=1), IMAGES, "conv_bias relu_into max_pool_from", "conv",
    ),
    "relu read beside pooling": (
        lambda x: (lambda y: (pooled(y), ops.exp(y)))(ops.relu(x)), [IMAGE], "max_pool relu", "relu_into",
    ),
    "relu pooled twice": (
        lambda x: (lambda y: (pooled(y), ops.max_pool(y, 3)))(ops.relu(x)), [IMAGE], "max_pool relu", "relu_into",
    ),
    "convolution, normalised": (
        lambda x, k, *features: ops.batch_norm_inference(ops.conv(x, k), *features, axes=(0, 1, 2)),
        [IMAGE, KERNEL, *(np.abs(array(4, seed=i)) for i in range(4))], "conv_norm", "conv batch_norm_inference",
    ),
    "convolution, rows normalised": (
        lambda x, k, *features: ops.batch_norm_inference(ops.conv(x, k), *features, axes=(0, 2, 3)),
        [IMAGE, KERNEL, *(np.abs(array(5, seed=i)) for i in range(4))], "conv batch_norm_inference", "conv_norm",
    ),
    "zeros around": (padded_net, [IMAGE, KERNEL], "conv conv_kernel_grad conv_input_grad", "pad slice"),
    "zeros on one side": (lambda *x: padded_net(*x, low=0), [IMAGE, KERNEL], "pad slice", ""),
    "ones around": (lambda *x: padded_net(*x, value=1.0), [IMAGE, KERNEL], "pad", ""),
    "dropout": (dropped, [array(5, 7, dtype="float32"), COUNTER], "dropout_mask", "random_bits greater_equal"),
    "dropout in float64": (dropped, [array(5, 7), COUNTER], "dropout_mask", "random_bits greater_equal"),
    "bits read, too": (
        lambda x, c: (*dropped(x, c), ops.random_bits(c, key=(1, 2), shape=(5, 7))), [array(5, 7), COUNTER],
        "random_bits", "dropout_mask",
    ),
    "moving average": (lambda x, y: x * 0.9 + y * 0.1, [X, array(5, 4, seed=1)], "blend", "add multiply"),
    "average of what is computed": (
        lambda x, y: ops.exp(x) * 0.9 + y * 0.1, [X, array(5, 4, seed=1)], "add_into", "blend",
    ),
    "no average of integers": (
        lambda x, y: x * 3 + y * -2, [np.arange(4, dtype="int32"), np.arange(4, dtype="int32")], "add_into", "blend",
    ),
    "no average": (lambda x, y: x * 0.9 + y * 0.2, [X, array(5, 4, seed=1)], "add_into multiply", "blend"),
    "average of a row": (lambda x, y: x * 0.9 + y * 0.1, [X, array(4)], "add_into multiply", "blend"),
    "sum reshaped": (lambda x: ops.reshape(ops.sum(x, 1, keepdims=True), (5,)), [X], "float_sum", "reshape sum"),
    "sum reshaped otherwise": (
        lambda x: ops.reshape(ops.sum(x, 1, keepdims=True), (1, 5)), [X], "float_sum reshape", "",
    ),
    "sum of integers": (lambda x: ops.sum(x, 0), [np.arange(6, dtype="int32").reshape(2, 3)], "sum", "float_sum"),
    "sum over nothing": (lambda x: ops.sum(x, ()) * 2.0, [X], "sum", "float_sum"),
    "transpose": (lambda x: ops.transpose(x) * 2.0, [X], "transpose", "permute_dims"),
    "in place": (
        lambda x: ops.relu(ops.exp(x) - x) * ops.square(x), [X], "subtract_into relu_into multiply_into", "",
    ),
    "slope in place": (relu_slope, [X], "relu_grad_into", "relu_grad"),
    "in place through views": (
        lambda x: ops.reshape(ops.transpose(ops.exp(x)), (2, 10)) + 1.0, [X], "add_into", "add",
    ),
    "not into a stretched array": (
        lambda x, y: ops.broadcast_to(ops.exp(x), (5, 4)) + y, [array(4), X], "add", "add_into",
    ),
    "not into a cut of one": (
        lambda x, y: ops.reshape(ops.broadcast_to(ops.exp(x), (5, 4)), (5, 1, 4)) + y, [array(4), array(5, 1, 4)],
        "add", "add_into",
    ),
    "not into operands": (lambda x: (x + 1.0, ops.transpose(x) * 2.0), [X], "add multiply", "add_into multiply_into"),
    "not into what a product of nothing shows": (lambda x: ops.prod(x, ()) + 1.0, [X], "prod add_into", ""),
    "not into one of several results": (
        lambda x: (lambda y: (y[0] + 1.0, y[1] * 2.0))(ops.qr(x)), [X], "add multiply", "add_into multiply_into",
    ),
    "not into what a view shows": (
        lambda x: (lambda y: (y + 1.0, ops.exp(ops.transpose(y))))(ops.square(x)), [X], "add", "add_into",
    ),
    "not into both operands": (lambda x: (lambda y: y * y)(ops.exp(x)), [X], "multiply", "multiply_into"),
    "not into a smaller array": (lambda x, y: ops.exp(x) + y, [array(4), X], "add", "add_into"),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINS)
def test_joined_ops_compute_what_the_parts_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, arrays, wanted, unwanted = JOINS[name]
    found, expected, ran = both(graph_of(build, arrays), arrays, monkeypatch)
    same(found, expected, name, 1e-9 if is_float(found["y0"].dtype.name) and found["y0"].itemsize > 4 else 1e-6)
    assert set(wanted.split()) <= ran and not set(unwanted.split()) & ran, sorted(ran)


def test_every_joined_op_has_a_case() -> None:
    pairs = {f"{name}_{part}" for name in fuse.PAIRS for part in ("kept", "from")}
    assert {
        op for _, _, wanted, _ in JOINS.values() for op in wanted.split()
    } | pairs | neural.KERNELS.keys() >= fuse.JOINED.keys()


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operands that are read again, views of them and shapes that are stretched, in any order."""
    rng = np.random.default_rng(seed)
    unary = [
        ops.relu, ops.exp, ops.transpose, lambda x: ops.reshape(x, (3, 3)), lambda x: ops.sum(x, 0, keepdims=True) + x,
        lambda x: ops.broadcast_to(ops.sum(x, 0), (3, 3)),
        lambda x: ops.reshape(ops.sum(x, 1, keepdims=True), (3,)) + x,
    ]  # fmt: skip
    binary = [ops.add, ops.subtract, ops.multiply, ops.matmul, ops.relu_grad]

    def build(*inputs: Value) -> list[Value]:
        values: list[Any] = list(inputs)
        for _ in range(14):
            a, b = (values[i] for i in rng.integers(max(0, len(values) - 5), len(values), 2))
            chosen = rng.integers(0, len(unary) + len(binary))
            made = unary[chosen](a) if chosen < len(unary) else binary[chosen - len(unary)](a, b)
            values.append(ops.tanh(made) if rng.random() < 0.3 else made)
        picked = rng.choice(np.arange(2, len(values)), 3, replace=False)
        return [values[-1], *(values[i] for i in picked)]

    arrays = [array(3, 3, seed=seed), array(3, 3, seed=seed + 1)]
    with np.errstate(all="ignore"):
        found, expected, _ = both(graph_of(build, arrays), arrays, monkeypatch)
    same(found, expected, f"seed {seed}")


# ---- whole models ------------------------------------------------------------------------------


def convnet() -> Any:
    parts = [
        ul.Input((12, 12, 2)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.ZeroPadding2D(1),
        layers.Conv2D(5, 3, strides=2, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dropout(0.4),
        layers.Dense(7, activation="gelu"),
        layers.LayerNormalization(),
        layers.Dense(3),
    ]
    return ul.Sequential(parts, seed=3)


def transformer() -> Any:
    inputs = x = ul.Input((6, 8))
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
        x = layers.LayerNormalization()(x + layers.Dropout(0.2)(layers.Dense(8)(layers.Dense(16, "silu")(x))))
    return ul.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize(("net", "shape"), [(convnet, (12, 12, 2)), (transformer, (6, 8))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_models_train_as_on_numpy(net: Callable[[], Any], shape: tuple[int, ...], dtype: str) -> None:
    ul.set_random_seed(0)
    losses = {}
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, *shape)).astype(dtype), rng.integers(0, 3, 20)
    for name in ("numpy", "torch"):
        before = ul.config.floatx()
        ul.config.set_floatx(dtype)
        try:
            ul.set_random_seed(0)
            model = net()
            model.compile("adam", ul.losses.SparseCategoricalCrossentropy(from_logits=True))
            told = {"epochs": 4, "batch_size": 8, "verbose": 0, "shuffle": False}
            losses[name] = model.fit(x, y, backend=name, **told).history["loss"]
            losses[name].append(float(np.sum(model.predict(x, backend=name) ** 2)))
        finally:
            ul.config.set_floatx(before)
    assert losses["torch"] == pytest.approx(losses["numpy"], rel=2e-4 if dtype == "float32" else 1e-10)


# ---- functions made for a node --------------------------------------------------------------------


def test_a_function_is_made_once_for_each_node() -> None:
    made: list[int] = []

    def make(axes: tuple[int, ...]) -> Callable[[Any], Any]:
        made.append(len(axes))
        return lambda x: x.transpose(axes)

    graph = graph_of(lambda x: ops.permute_dims(ops.permute_dims(x, (1, 2, 0)), (1, 0, 2)), [array(2, 3, 4)])
    step = straight_line(graph, {"permute_dims": Made(make)}, lambda a: a)
    for _ in range(3):
        _, outputs = step([], [array(2, 3, 4)])
    assert made == [3, 3] and outputs["y0"].shape == (4, 3, 2)
    assert Made(make)(array(2, 3), axes=(1, 0)).shape == (3, 2)
