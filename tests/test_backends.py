"""What every backend promises: its hooks, compiled steps with state, and results beyond the samples of the records."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers.backend as registry
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.backend import GROUP, Backend, backend_names, backend_of, get_backend
from unilayers.errors import BackendError, UnilayersError
from unilayers.graph import OPS, Graph, Value, leaf, tracing
from unilayers.graph.emit import own_results, straight_line
from unilayers.graph.node import LEAVES
from unilayers.ops.define import bind
from unilayers.program import Program, compile_graph
from unilayers.spec import DTYPES, Dim, Spec, is_float
from unilayers.variable import Trace, Variable, place_together, trace_into

NUMPY_DTYPES = [d for d in DTYPES if d != "bfloat16"]


def equal(actual: Any, expected: Any, what: str) -> None:
    assert_close(actual, expected, rtol=0, atol=0, what=what)


# ---- moving arrays ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_put_and_get_copy(backend: Backend, dtype: str) -> None:
    values = (np.arange(6).reshape(2, 3) % 5).astype(dtype)
    source = values.copy()
    (array,) = backend.put([source], "cpu")
    source += np.ones((), dtype)
    first = backend.get(array)
    equal(first, values, "put must not alias its source")
    first[...] = np.zeros((), dtype)
    equal(backend.get(array), values, "get must not alias the array")


@pytest.mark.parametrize(
    "array",
    [np.array(1.5), np.zeros((0, 3)), np.arange(12.0).reshape(3, 4).T, np.arange(6.0)[::-2],
     np.broadcast_to(np.float32(2), (2, 2))],
    ids=["scalar", "empty", "transposed", "reversed", "broadcast"],
)  # fmt: skip
def test_put_takes_any_strides(backend: Backend, array: np.ndarray) -> None:
    array.flags.writeable = False
    equal(backend.get(backend.put([array], "cpu")[0]), array, "put and get")


def test_put_keeps_the_order(backend: Backend) -> None:
    arrays = [np.full(n, n) for n in (3, 1, 2)]
    for array, found in zip(arrays, backend.put(arrays, "cpu"), strict=True):
        equal(backend.get(found), array, "put")
    assert backend.put([], "cpu") == []


def test_arrays_know_their_backend(backend: Backend) -> None:
    (array,) = backend.put([np.ones(2)], "cpu")
    assert backend.device_of(array) == "cpu"
    assert backend_of(array) is backend
    assert all(backend.device_of(x) is None for x in (1.0, "x", None, [1.0], leaf("input", "x", Spec((2,)))))


@pytest.mark.parametrize("other", BACKENDS)
def test_arrays_of_others_are_foreign(backend: Backend, other: str) -> None:
    (array,) = require_backend(other).put([np.ones(2)], "cpu")
    assert (backend.device_of(array) is None) == (other != backend.name)


# ---- devices ------------------------------------------------------------------------


def test_devices(backend: Backend) -> None:
    assert backend.devices()[0] == backend.device(None) == backend.device("cpu") == "cpu"
    for name in backend.devices():
        (array,) = backend.put([np.ones(2)], name)
        assert backend.device_of(array) == name
        assert all(isinstance(v, int) for v in backend.memory(name).values())
    backend.synchronize()


def test_missing_device(backend: Backend) -> None:
    if "cuda:0" in backend.devices():
        pytest.skip("there is a GPU")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(BackendError) as caught:
            backend.device(name)
        assert str(caught.value) == (
            f"backend '{backend.name}': device '{name}' is not available. Devices here: {', '.join(backend.devices())}."
        )


@pytest.mark.gpu
def test_cuda_without_a_number(backend: Backend) -> None:
    if "cuda:0" not in backend.devices():
        pytest.skip("no GPU for this backend")
    assert backend.device("cuda") == "cuda:0"


# ---- compiled steps -----------------------------------------------------------------

RATE = 0.5
Values = dict[str, Any]


def step_graph(outputs: Callable[..., Values], updates: Callable[..., Values]) -> Graph:
    """A step of w by gradient descent, which may go in place, with more outputs and updates around it."""
    w, other = leaf("state", "w", Spec((2, 3))), leaf("state", "other", Spec((2, 3)))
    g = leaf("input", "g", Spec((2, 3)))
    with tracing():
        (new,) = ops.sgd_update(RATE, w, g, count=1)
        return Graph((g,), (w, other), outputs(w, new, g), {"w": new, **updates(w, new, g)})


def by_hand(outputs: Callable[..., Values], updates: Callable[..., Values], w: Any, gs: list[Any]) -> Iterator[Any]:
    """The same steps on NumPy arrays that nobody overwrites: outputs and states, step by step."""
    other = np.zeros_like(w)
    for g in gs:
        new = w - np.float32(RATE) * g
        found = {k: ops.to_numpy(v) for k, v in outputs(w, new, g).items()}
        state = {"w": new, "other": other, **updates(w, new, g)}
        w, other = (np.array(ops.to_numpy(state[k])) for k in ("w", "other"))
        yield found, (w, other)


def nothing(w: Any, new: Any, g: Any) -> Values:
    return {}


RESULTS: dict[str, tuple[Callable[..., Values], Callable[..., Values]]] = {
    "nothing else": (nothing, nothing),
    "the old weights": (lambda w, new, g: {"y": w}, nothing),
    "a view of the old weights": (lambda w, new, g: {"y": ops.reshape(w, (6,)), "z": ops.transpose(w)}, nothing),
    "old and new together": (lambda w, new, g: {"y": new - w, "z": ops.transpose(w) + ops.transpose(new)}, nothing),
    "the new weights": (lambda w, new, g: {"y": new, "z": ops.transpose(new)}, nothing),
    "one value twice": (lambda w, new, g: {"y": w + g, "z": w + g}, nothing),
    "an input": (lambda w, new, g: {"y": g}, nothing),
    "the old weights kept": (nothing, lambda w, new, g: {"other": w}),
    "a view of the old weights kept": (nothing, lambda w, new, g: {"other": ops.reshape(ops.reshape(w, (6,)), (2, 3))}),
    "the new weights kept": (nothing, lambda w, new, g: {"other": new}),
    "an input kept": (nothing, lambda w, new, g: {"other": g}),
    "a constant kept": (nothing, lambda w, new, g: {"other": np.ones((2, 3), "float32")}),
}


def as_values(made: Callable[..., Values]) -> Callable[..., Values]:
    """NumPy arrays among the results as constants of the graph."""
    return lambda *args: {k: ops.constant(v) if isinstance(v, np.ndarray) else v for k, v in made(*args).items()}


@pytest.mark.parametrize("case", RESULTS)
def test_results_stay_as_they_were(backend: Backend, case: str) -> None:
    """Outputs are looked at after the last step: no later step may have changed them, nor an input."""
    outputs, updates = RESULTS[case]
    rng = np.random.default_rng(3)
    w, *gs = rng.normal(size=(4, 2, 3)).astype("float32")
    function = compile_graph(step_graph(as_values(outputs), as_values(updates)), backend, "cpu")
    state, inputs = backend.put([w, np.zeros_like(w)], "cpu"), backend.put(gs, "cpu")
    found, states = [], []
    for g in inputs:
        state, out = function(state, [g])
        found.append(out)
        states.append([backend.get(s) for s in state])
    for (expected, kept), out, after in zip(by_hand(outputs, updates, w, gs), found, states, strict=True):
        assert out.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(backend.get(out[name]), value, rtol=1e-6, atol=1e-6, what=f"{case}: output {name}")
        for name, a, e in zip(("w", "other"), after, kept, strict=True):
            assert_close(a, e, rtol=1e-6, atol=1e-6, what=f"{case}: state {name}")
    for g, array in zip(gs, inputs, strict=True):
        equal(backend.get(array), g, f"{case}: an input")


@pytest.mark.parametrize("case", RESULTS)
def test_inputs_may_be_overwritten_after_a_call(backend: Backend, case: str) -> None:
    """One buffer holds the input of every step, and something else as soon as a call returns."""
    outputs, updates = RESULTS[case]
    rng = np.random.default_rng(3)
    w, *gs = rng.normal(size=(4, 2, 3)).astype("float32")
    function = compile_graph(step_graph(as_values(outputs), as_values(updates)), backend, "cpu")
    state, found, states = backend.put([w, np.zeros_like(w)], "cpu"), [], []
    buffer = np.empty(64, "float32")  # in which one of the places below is one that an engine may alias
    places = [buffer[i : i + 6].reshape(2, 3) for i in range(0, 48, 4)]
    for g, place in itertools.product(gs, places):
        place[...] = g
        state, out = function(state, backend.fed([place], "cpu"))
        place[...] = np.nan
        found.append(out)
        states.append([backend.get(s) for s in state])
    steps = by_hand(outputs, updates, w, [g for g in gs for _ in places])
    for (expected, kept), out, after in zip(steps, found, states, strict=True):
        for name, value in expected.items():
            assert_close(backend.get(out[name]), value, rtol=1e-5, atol=1e-6, what=f"{case}: output {name}")
        for name, a, e in zip(("w", "other"), after, kept, strict=True):
            assert_close(a, e, rtol=1e-5, atol=1e-6, what=f"{case}: state {name}")


def test_a_long_call_reads_its_input_as_it_was(backend: Backend) -> None:
    """An engine that computes after a call has returned must not read the caller's memory then."""
    x = leaf("input", "x", Spec((400, 400)))
    with tracing():
        y = x
        for _ in range(30):
            y = ops.tanh(ops.matmul(y, ops.transpose(x)))
        function = compile_graph(Graph((x,), (), {"y": ops.sum(y - x, 1)}), backend, "cpu")
    values = np.random.default_rng(2).normal(scale=0.05, size=(400, 400)).astype("float32")
    _, expected = function([], backend.put([values], "cpu"))
    found = []
    for _ in range(4):
        given = values.copy()
        found.append(function([], backend.fed([given], "cpu"))[1]["y"])
        given[...] = 7.0
    for y in found:
        equal(backend.get(y), backend.get(expected["y"]), "y")


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_inputs_of_any_dtype_and_strides(backend: Backend, dtype: str, owned: bool) -> None:
    values = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    fixed = values.copy()
    fixed.flags.writeable = False
    for array in (values, fixed, values.T, values[::-1, ::2], values[:0], values[1, 1, ...]):
        x = leaf("input", "x", Spec(array.shape, dtype))
        with tracing():
            y = ops.concat([ops.reshape(x, (-1,))] * 2)
        _, found = compile_graph(Graph((x,), (), {"y": y}), backend, "cpu")([], backend.fed([array], "cpu", owned))
        equal(backend.get(found["y"]), np.concatenate([array.reshape(-1)] * 2), f"{dtype} {array.strides}")


def test_one_program_for_inputs_of_many_forms(backend: Backend) -> None:
    """What a program keeps from the last call is right for the next one only if that is like it."""
    w, x = Variable(np.zeros(2), name="w"), leaf("input", "x", Spec((Dim.symbol("batch"), 2)))
    other, trace = Variable(np.ones(3), name="other"), Trace()
    with trace_into(trace):
        w.assign_add(ops.sum(x, 0))
        program = Program(trace.graph((x,), {"y": ops.multiply(x, 2.0)}), trace.variables)
    total, rng = np.zeros(2, "float32"), np.random.default_rng(5)
    for turn in range(24):
        data = rng.normal(size=(turn % 3 + 1, 2)).astype(("float32", "float64")[turn % 2])
        total += data.sum(0).astype("float32")
        store = place_together(((w,), (other, w), (w, other))[turn // 8], backend, "cpu")
        given = data if turn % 4 else backend.put([data.astype("float32")], "cpu")[0]
        found = program.run(store, [given], owned=turn % 5 == 0)
        doubled = (2 * data).astype("float32")
        assert_close(backend.get(found["y"]), doubled, rtol=1e-6, atol=1e-6, what=f"outputs of turn {turn}")
        assert_close(w.numpy(), total, rtol=1e-5, atol=1e-5, what=f"state after turn {turn}")
        if turn % 6 == 0:
            w.assign(total)
    equal(other.numpy(), np.ones(3, "float32"), "what the program does not use")


def test_states_exchanged(backend: Backend) -> None:
    a, b = leaf("state", "a", Spec((2,))), leaf("state", "b", Spec((2,)))
    function = compile_graph(Graph((), (a, b), {}, {"a": b, "b": a}), backend, "cpu")
    state = backend.put([np.zeros(2, "float32"), np.ones(2, "float32")], "cpu")
    for first in (1, 0, 1):
        state, outputs = function(state, [])
        assert [int(backend.get(s)[0]) for s in state] == [first, 1 - first] and outputs == {}


def test_a_graph_of_constants(backend: Backend) -> None:
    with tracing():
        graph = Graph((), (), {"y": ops.full((2,), 3.0) + 1.0})
    state, outputs = compile_graph(graph, backend, "cpu")([], [])
    assert list(state) == []
    equal(backend.get(outputs["y"]), np.full(2, 4.0, "float32"), "y")


def test_two_functions_share_a_state(backend: Backend) -> None:
    """A step that overwrites the weights, and a look at them, whose results must not move with later steps."""
    w, g = leaf("state", "w", Spec((2, 3))), leaf("input", "g", Spec((2, 3)))
    look = compile_graph(Graph((), (w,), {"w": w, "view": ops.transpose(w)}), backend, "cpu")
    with tracing():
        train = compile_graph(Graph((g,), (w,), {}, {"w": ops.sgd_update(RATE, w, g, count=1)[0]}), backend, "cpu")
    state, (g_array,) = (
        backend.put([np.zeros((2, 3), "float32")], "cpu"),
        backend.put([np.ones((2, 3), "float32")], "cpu"),
    )
    seen = []
    for _ in range(3):
        state, _ = train(state, [g_array])
        state, out = look(state, [])
        seen.append(out)
    for n, out in enumerate(seen, 1):
        equal(backend.get(out["w"]), np.full((2, 3), -RATE * n, "float32"), "w")
        equal(backend.get(out["view"]), np.full((3, 2), -RATE * n, "float32"), "view")


# ---- training steps: backends agree, also in turns -------------------------------------


def adam_graph(dtype: str, amsgrad: bool, weight_decay: float) -> tuple[Graph, list[np.ndarray]]:
    """Two parameters moved by Adam along given gradients, with the initial state."""
    shapes = [(3, 4), (5,)]
    names = [f"{slot}{i}" for slot in ("p", "m", "v", *(["top"] if amsgrad else [])) for i in range(2)]
    tensors = [leaf("state", n, Spec(shapes[i % 2], dtype)) for i, n in enumerate(names)]
    grads = [leaf("input", f"g{i}", Spec(s, dtype)) for i, s in enumerate(shapes)]
    count = leaf("state", "iteration", Spec((), "int32"))
    with tracing():
        new = ops.adam_update(
            np.array(1e-2, dtype), count, *tensors[:2], *grads, *tensors[2:], count=2, epsilon=1e-3, amsgrad=amsgrad,
            weight_decay=weight_decay,
        )  # fmt: skip
        updates = {**dict(zip(names, new, strict=True)), "iteration": count + 1}
    rng = np.random.default_rng(5)
    initial = [rng.normal(size=t.shape) * (i < 2) for i, t in enumerate(tensors)]
    state = [*(a.astype(dtype) for a in initial), np.zeros((), "int32")]
    return Graph(tuple(grads), (*tensors, count), {}, updates), state


def adam_by_hand(state: list[Any], grads: list[Any], t: int, amsgrad: bool, weight_decay: float) -> list[np.ndarray]:
    """Keras's definition, epsilon after the bias correction of both moments."""
    new = [np.array(s, "float64") for s in state]
    slots = [new[i : i + 2] for i in range(0, len(new), 2)]
    for i, g in enumerate(grads):
        p, m, v, *top = (slot[i] for slot in slots)
        p *= 1 - 1e-2 * weight_decay
        m[...] = 0.9 * m + 0.1 * g
        v[...] = 0.999 * v + 0.001 * g * g
        if amsgrad:
            top[0][...] = np.maximum(top[0], v)
        p -= 1e-2 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(top[0] if amsgrad else v) + 1e-3)
    return new


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("amsgrad", "weight_decay"), [(False, 0.0), (True, 0.1)])
def test_adam_from_step_to_step(backend: Backend, amsgrad: bool, weight_decay: float, dtype: str) -> None:
    graph, state = adam_graph(dtype, amsgrad, weight_decay)
    function = compile_graph(graph, backend, "cpu")
    arrays, expected = backend.put(state, "cpu"), list(state[:-1])
    rng = np.random.default_rng(6)
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    for t in range(1, 6):
        grads = [rng.normal(size=v.shape).astype(dtype) for v in graph.inputs]
        arrays, _ = function(arrays, backend.put(grads, "cpu"))
        expected = adam_by_hand(expected, grads, t, amsgrad, weight_decay)
        for array, e in zip(arrays, expected, strict=False):
            assert_close(backend.get(array), e.astype(dtype), rtol=tolerance, atol=tolerance, what=f"step {t}")
    assert int(backend.get(arrays[-1])) == 5


def test_backends_in_turns() -> None:
    """All backends step through one graph in one process, a step each at a time, as if each were alone."""
    graph, state = adam_graph("float64", False, 0.0)
    there = [require_backend(name) for name in BACKENDS]
    functions = [compile_graph(graph, b, "cpu") for b in there]
    alone, mixed = ([b.put(state, "cpu") for b in there] for _ in range(2))
    grads = [np.random.default_rng(t).normal(size=v.shape) for t in range(3) for v in graph.inputs]
    rounds = [grads[i : i + 2] for i in range(0, len(grads), 2)]
    for i, b in enumerate(there):
        for g in rounds:
            alone[i], _ = functions[i](alone[i], b.put(g, "cpu"))
    for g in rounds:
        for i, b in enumerate(there):
            mixed[i], _ = functions[i](mixed[i], b.put(g, "cpu"))
    for b, a, m in zip(there, alone, mixed, strict=True):
        for x, y, z in zip(a, m, mixed[0], strict=True):
            equal(b.get(y), b.get(x), f"{b.name}, in turns and alone")
            assert_close(b.get(y), there[0].get(z), rtol=1e-12, atol=1e-12, what=f"{b.name} and {there[0].name}")


# ---- overwriting: which steps may go in place -------------------------------------------


def written_in_place(graph: Graph) -> bool:
    """Whether a straight line of ``graph`` takes the overwriting variant of ``sgd_update``."""
    views, plain = {"reshape", "permute_dims"}, {n: (lambda *a, **k: None) for n in OPS}
    overwriting = {"sgd_update": (lambda *a, **k: taken.append(True) or (None,), lambda node: (1,))}
    taken: list[bool] = []
    plain["sgd_update"] = lambda *a, **k: (None,)
    step = straight_line(own_results(graph, views), plain, lambda a: a, overwriting, views)
    step([None] * len(graph.state), [None] * len(graph.inputs))
    return bool(taken)


ALONE: dict[str, Callable[[Value, Value, Value], Values]] = {
    "nothing else": nothing,
    "old weights read before": lambda w, new, g: {"y": ops.sum(ops.transpose(w))},
    "old weights returned": lambda w, new, g: {"y": w},  # copied before
    "new weights read": lambda w, new, g: {"y": ops.sum(new)},
    "new weights returned": lambda w, new, g: {"y": new},  # copied after
}
NOT_ALONE: dict[str, Callable[[Value, Value, Value], Values]] = {
    "old weights read after": lambda w, new, g: {"y": new - w},
    "a view of them read after": lambda w, new, g: {"y": ops.matmul(new, ops.transpose(w))},
}


@pytest.mark.parametrize(("name", "expected"), [(n, True) for n in ALONE] + [(n, False) for n in NOT_ALONE])
def test_in_place_only_where_nobody_looks(name: str, expected: bool) -> None:
    assert written_in_place(step_graph((ALONE | NOT_ALONE)[name], nothing)) is expected


def test_in_place_only_into_the_state_it_replaces() -> None:
    w, other, g = (leaf(k, n, Spec((2, 3))) for k, n in (("state", "w"), ("state", "other"), ("input", "g")))

    def graph(target: Value, gradient: Value, name: str) -> Graph:
        with tracing():
            return Graph((g,), (w, other), {}, {name: ops.sgd_update(RATE, target, gradient, count=1)[0]})

    assert written_in_place(graph(w, g, "w"))
    assert not written_in_place(graph(w, g, "other")), "the new value belongs to another state"
    assert not written_in_place(graph(g, w, "w")), "an input would be overwritten"
    assert not written_in_place(graph(w, w, "w")), "the gradient would be overwritten"
    assert not written_in_place(graph(w, ops.reshape(ops.reshape(w, (6,)), (2, 3)), "w")), "a view of it, too"


# ---- beyond the samples: edges of dtypes ---------------------------------------------------

_INTS = np.array([[7, -7, 120, -128], [3, 3, -5, -1]])
_FLOATS = np.array(
    [[1.0, -1.0, np.nan, np.inf, -np.inf, 2.5, -2.5, 0.5, 1.5, -0.0], [0.1, 3, 1, 1, 2, -2, 2, 3, np.nan, 1]]
)


def _edges() -> Iterator[tuple[str, tuple[np.ndarray, ...], dict[str, Any]]]:
    for dtype in ("int8", "uint8", "int16", "int32", "int64"):
        a, b = (np.abs(_INTS) % 127 + 1 if dtype == "uint8" else _INTS).astype(dtype)
        top = np.array([np.iinfo(dtype).max, np.iinfo(dtype).min], dtype)
        for name in ("floor_divide", "remainder", "maximum", "bitwise_and", "bitwise_or", "bitwise_xor"):
            yield name, (a, b), {}
        for name in ("add", "subtract", "multiply"):
            yield name, (top, np.array([2, 3], dtype)), {}
        yield "power", (np.array([2, 3], dtype), np.array([3, 4], dtype)), {}
        yield "bitwise_left_shift", (a, np.array([0, 1, 2, 3], dtype)), {}
        yield "bitwise_right_shift", (a, np.array([0, 1, 2, 3], dtype)), {}
        for name in ("negative", "abs", "sign", "square", "bitwise_invert"):
            yield name, (a,), {}
        for name in ("sum", "prod", "max", "min"):
            yield name, (np.stack([top, top]),), {"axis": (0, 1), "keepdims": False}
        yield "take", (np.arange(6.0).reshape(3, 2), np.array([2, 0], dtype)), {"axis": 0}
        yield "take_grad", (np.arange(4.0).reshape(2, 2), np.array([1, 1], dtype)), {"axis": 0, "size": 3}
        yield "take_along_axis", (np.arange(6.0).reshape(2, 3), np.array([[2], [1]], dtype)), {"axis": 1}
        yield "astype", (np.array([0.0, 1.9, 100.5]),), {"dtype": dtype}
        yield "astype", (a,), {"dtype": "bool"}
        yield "pad", (a,), {"low": (1,), "high": (2,), "interior": (1,), "value": 3.0}
    for dtype in ("float32", "float64"):
        a, b = _FLOATS.astype(dtype)
        for name in ("maximum", "minimum", "floor_divide", "remainder", "less", "equal", "not_equal"):
            yield name, (a, b), {}
        for name in ("sign", "round", "floor", "ceil", "isnan", "isinf", "isfinite", "abs"):
            yield name, (a,), {}
        for name in ("sum", "max", "min"):
            yield name, (a.reshape(2, 5),), {"axis": (1,), "keepdims": False}
        yield "sum", (np.zeros((0, 3), dtype),), {"axis": (0,), "keepdims": False}
        yield "matmul", (np.zeros((2, 0), dtype), np.zeros((0, 3), dtype)), {}
    flags = np.array([True, False, True])
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "logical_xor"):
        yield name, (flags, flags[::-1].copy()), {}
    yield "bitwise_invert", (flags,), {}
    yield "concat", (flags, flags), {"axis": 0}
    yield "pad", (flags,), {"low": (1,), "high": (0,), "interior": (0,), "value": 0.0}


EDGES = list(_edges())


@pytest.mark.parametrize("name", sorted({e[0] for e in EDGES}))
def test_edges_of_dtypes(backend: Backend, name: str) -> None:
    """Wrapping, signs, NaN, infinities, half to even, empty axes: as NumPy's own function has them."""
    op = OPS[name]
    assert op.reference is not None
    for inputs, attrs in (e[1:] for e in EDGES if e[0] == name):
        with np.errstate(all="ignore"):
            expected = np.asarray(op.reference(*inputs, **attrs))
            (spec,) = [op.infer(*(Spec(x.shape, x.dtype.name) for x in inputs), **attrs)]
            result = backend.get(bind(op, backend.put(inputs, "cpu"), attrs))
        what = f"{name}({', '.join(x.dtype.name for x in inputs)}, {attrs}) on {backend.name}"
        assert_close(result, expected.astype(spec.dtype), rtol=1e-6, atol=0, what=what)


# Known deviations, on all processors or on some: checking would cost a second pass over the data. The NaN shows a step
# later, in the weights.
LOSES_NAN = {
    ("tensorflow", "max_pool"): ("TensorFlow's kernel on the CPU passes over NaN", True),
    ("tensorflow", "softmax"): (
        "oneDNN's kernel hides NaN where there is no AVX-512",
        False,
    ),
}


@pytest.mark.parametrize("name", ["relu", "relu6", "sigmoid", "softplus", "gelu", "softmax", "log_softmax", "max_pool"])
def test_nan_is_not_lost(backend: Backend, name: str, request: pytest.FixtureRequest) -> None:
    """A training that diverges must show it."""
    if (backend.name, name) in LOSES_NAN:
        reason, everywhere = LOSES_NAN[backend.name, name]
        request.applymarker(pytest.mark.xfail(reason=reason, strict=everywhere))
    x = np.array([np.nan, 1.0, 2.0, 3.0], "float32").reshape(1, 2, 2, 1)
    attrs = {"softmax": {"axis": 1}, "log_softmax": {"axis": 1}, "gelu": {"approximate": False}}
    attrs["max_pool"] = {"window": (1, 2), "strides": (1, 2), "padding": ((0, 0), (0, 0))}
    y = backend.get(bind(OPS[name], backend.put([x], "cpu"), attrs.get(name, {})))
    lost = {"softmax": [0, 2], "log_softmax": [0, 2]}.get(name, [0])
    assert np.flatnonzero(np.isnan(y)).tolist() == lost


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
def test_large_arrays(backend: Backend, dtype: str) -> None:
    """Kernels may choose another way for large arrays, in compiled graphs only."""
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-9, 9, (50, 100)).astype(dtype) for _ in range(2))
    if is_float(dtype):
        a[0], b[1] = (np.nan, np.inf, -np.inf, -0.0) * 25, np.nan
    c = rng.uniform(size=(50, 100)) > 0.5
    leaves = [leaf("input", n, Spec(x.shape, x.dtype.name)) for n, x in (("c", c), ("a", a), ("b", b))]
    outputs = {
        "full": ops.where(*leaves),
        "scalar": ops.where(leaves[0], leaves[1], 0),
        "row": ops.where(leaves[0], leaves[1], leaves[2][:1]),
        "condition": ops.where(leaves[0][:1], leaves[1], leaves[2]),
        "cast": ops.astype(leaves[0], dtype),
    }
    _, found = compile_graph(Graph(tuple(leaves), (), outputs), backend, "cpu")([], backend.put([c, a, b], "cpu"))
    zero = np.zeros((), dtype)
    expected = {
        "full": np.where(c, a, b), "scalar": np.where(c, a, zero), "row": np.where(c, a, b[:1]),
        "condition": np.where(c[:1], a, b), "cast": c.astype(dtype),
    }  # fmt: skip
    for name, value in expected.items():
        equal(backend.get(found[name]), value, name)


# ---- beyond the samples: convolution and pooling ---------------------------------------------


def drawn_windows(seed: int) -> Iterator[tuple[str, tuple[np.ndarray, ...], dict[str, Any]]]:
    """Random convolutions and poolings: one to three axes, strides, dilation, groups, any padding, tied maxima."""
    rng = np.random.default_rng(seed)
    ndim = seed % 3 + 1

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(low, high, ndim).tolist())

    batch, groups = int(rng.integers(1, 3)), int(rng.choice([1, 2, 3]))
    depth, filters = (groups * int(n) for n in rng.integers(1, 3, 2))
    spatial, window, strides, dilation = sizes(5, 8 if ndim < 3 else 6), sizes(1, 3), sizes(1, 4), sizes(1, 4)
    pairs = tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (ndim, 2)))
    conv = {"strides": strides, "padding": pairs, "dilation": dilation, "groups": groups}
    x = rng.normal(size=(batch, *spatial, depth))
    kernel = rng.normal(size=(*window, depth // groups, filters))
    y = OPS["conv"].infer(Spec(x.shape, "float64"), Spec(kernel.shape, "float64"), **conv)
    g = rng.normal(size=y.shape)
    yield "conv", (x, kernel), conv
    yield "conv_input_grad", (g, kernel), {"shape": x.shape, **conv}
    yield "conv_kernel_grad", (x, g), {"shape": kernel.shape, **conv}
    window = sizes(2, 4)
    pairs = tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in window)
    pool = {"window": window, "strides": strides, "padding": pairs}
    x = rng.integers(-2, 3, x.shape).astype(float)
    y = OPS["max_pool"].reference(x, **pool)
    g = rng.normal(size=y.shape)
    yield "max_pool", (x,), pool
    yield "max_pool_grad", (g, x, y), pool
    yield "avg_pool", (x,), pool
    yield "avg_pool_grad", (g,), {"shape": x.shape, **pool}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(9))
def test_windows_beyond_the_samples(backend: Backend, seed: int, dtype: str) -> None:
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for name, inputs, attrs in drawn_windows(seed):
        arrays = [x.astype(dtype) for x in inputs]
        expected = np.asarray(OPS[name].reference(*(a.astype("float64") for a in arrays), **attrs)).astype(dtype)
        result = backend.get(bind(OPS[name], backend.put(arrays, "cpu"), attrs))
        atol = tolerance * max(1.0, float(np.abs(expected).max()))
        assert_close(result, expected, rtol=tolerance, atol=atol, what=f"{name}{attrs} on {backend.name}")


# ---- the second opinion ------------------------------------------------------------------------


def test_native_grad(backend: Backend) -> None:
    if backend.native_grad is None:
        pytest.skip(f"{backend.name} has no gradient of its own")
    x, unused, i = backend.put([np.array([1.0, 2.0]), np.ones(3), np.array([1, 1], "int32")], "cpu")
    (g,) = backend.put([np.array([10.0, 1.0])], "cpu")
    found = backend.native_grad(lambda x, unused, i: ops.take(ops.square(x), i, 0), [x, unused, i], g)
    equal(backend.get(found[0]), np.array([0.0, 44.0]), "by x")
    equal(backend.get(found[1]), np.zeros(3), "by what is not used")
    assert found[2] is None
    found = backend.native_grad(lambda x: (ops.square(x), x * 3.0), [x], (g, g))
    equal(backend.get(found[0]), np.array([50.0, 7.0]), "of two results")


# ---- finding backends ------------------------------------------------------------------------------


def test_the_embedded_backend_comes_first() -> None:
    assert backend_names()[0] == "numpy" and get_backend(None).name == "numpy"


def test_the_environment_is_only_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNILAYERS_BACKEND", "tensorflw")
    assert get_backend("numpy").name == "numpy"
    with pytest.raises(BackendError) as caught:
        get_backend()
    assert str(caught.value) == "unknown backend 'tensorflw'. Did you mean 'tensorflow'?"


def test_a_framework_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lacking.py").write_text("import no_such_framework\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("fake", "lacking:BACKEND", GROUP)
    monkeypatch.setattr(registry, "_installed", lambda: {"fake": entry})
    with pytest.raises(BackendError) as caught:
        get_backend("fake")
    assert str(caught.value) == (
        "backend 'fake' needs the package 'no_such_framework'. Install it with: pip install 'unilayers[fake]'."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: {**table, "matmull": len}, "backend 'x': entries for unknown ops: ['matmull']."),
        (
            lambda table: {k: v for k, v in table.items() if k != "matmul"},
            "backend 'x': no entry for ['matmul'], and these ops have no expansion.",
        ),
    ],
)
def test_a_table_is_checked(change: Callable[[dict[str, Any]], dict[str, Any]], message: str) -> None:
    b = get_backend("numpy")
    with pytest.raises(BackendError) as caught:
        Backend("x", change(dict(b.table)), b.devices, b.put, b.get, b.device_of, b.compile)
    assert str(caught.value) == message


def test_every_primitive_has_an_entry_everywhere(backend: Backend) -> None:
    assert {n for n, op in OPS.items() if not op.composite} - set(LEAVES) <= backend.table.keys() <= OPS.keys()


def test_arrays_of_two_backends_do_not_mix() -> None:
    others = [require_backend(n) for n in BACKENDS if n != "numpy"][:2]
    if len(others) < 2:
        pytest.skip("needs two frameworks")
    a, b = (x.put([np.ones(2)], "cpu")[0] for x in others)
    with pytest.raises(UnilayersError) as caught:
        ops.add(a, b)
    assert str(caught.value) == (
        f"arrays of two backends in one op: {' and '.join(sorted(x.name for x in others))}. Convert one of them."
    )


def run_python(code: str) -> str:
    """What a fresh Python prints, stderr included; without the level of logging that JAX may have set in this one."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_registry_loads_no_framework() -> None:
    code = "import sys, unilayers.backend as b; b.backend_names(); print({'torch', 'tensorflow'} & set(sys.modules))"
    assert run_python(code) == "set()\n"


def test_backends_load_in_silence() -> None:
    """All in one process; they print nothing, also when they first compute, and leave the environment alone."""
    there = [name for name in BACKENDS if require_backend(name)]
    assert run_python(
        "import os; before = dict(os.environ)\n"
        "import numpy as np\n"
        "from unilayers import ops\n"
        "from unilayers.backend import get_backend\n"
        f"for b in map(get_backend, {there}):\n"
        "    ops.matmul(*b.put([np.ones((2, 2))] * 2, b.device(None)))\n"
        "assert dict(os.environ) == before\n"
    ) == ""  # fmt: skip
