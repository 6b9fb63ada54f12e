"""Every op on every backend against its own reference; all of it derived from the records."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.backend import Backend
from unilayers.errors import UnilayersError
from unilayers.graph import OPS, Graph, Op, Sample, leaf, make_node
from unilayers.graph.node import LEAVES
from unilayers.graph.passes import specialise
from unilayers.graph.serialize import from_json, to_json
from unilayers.graph.verify import verify
from unilayers.ops.conv import conv_padding
from unilayers.ops.define import bind
from unilayers.ops.random import threefry_2x32
from unilayers.program import compile_graph
from unilayers.spec import Dim, Spec, is_float

NAMES = [name for name in OPS if name not in LEAVES]
COMPOSITES = [name for name in NAMES if OPS[name].composite]
DTYPES = ("float32", "float64")

# ---- what the records give ------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Call:
    """A sample in one dtype, with its expected results."""

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


def as_tuple(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def calls(op: Op, dtype: str) -> Iterator[Call]:
    """The reference always computes in float64, from inputs that are exact in the dtype."""
    assert op.reference is not None, f"op {op.name!r} has no reference"
    for sample in samples(op):
        inputs = tuple(in_dtype(x, dtype) for x in sample.inputs)
        attrs = {**op.defaults, **sample.attrs}
        inferred = op.infer(*(Spec(x.shape, x.dtype.name) for x in inputs), **attrs)
        result = as_tuple(op.reference(*(in_dtype(x, "float64") for x in inputs), **sample.attrs))
        specs = as_tuple(inferred)
        expected = tuple(np.asarray(r).astype(s.dtype) for r, s in zip(result, specs, strict=True))
        yield Call(inputs, attrs, specs, expected, isinstance(inferred, tuple))


def check(op: Op, dtype: str, results: Any, call: Call, how: str) -> None:
    for k, (result, spec, expected) in enumerate(zip(results, call.specs, call.expected, strict=True)):
        what = f"{op.name}{dict(call.attrs) or ''} output {k}, {how}"
        assert Spec(result.shape, result.dtype.name) == spec, f"{what}: {result.dtype}{result.shape}, inferred {spec}"
        tolerance = op.tolerance * (1 if dtype == "float32" else 1e-7)
        finite = np.abs(expected[np.isfinite(expected)]).astype(float)
        assert_close(result, expected, rtol=tolerance, atol=tolerance * finite.max(initial=0.0), what=what)


def one_op_graph(op: Op, dtype: str) -> Graph:
    """A graph with the op applied to every sample."""
    inputs, outputs = [], {}
    for i, call in enumerate(calls(op, dtype)):
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


def check_graph(op: Op, dtype: str, graph: Graph, backend: Backend, how: str) -> None:
    found = list(calls(op, dtype))
    outputs = runner(verify(graph), backend)([x for call in found for x in call.inputs])
    for i, call in enumerate(found):
        check(op, dtype, [outputs[f"y{i}_{k}"] for k in range(len(call.specs))], call, how)


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_eager(backend: str, name: str, dtype: str) -> None:
    engine, op = require_backend(backend), OPS[name]
    device = engine.device("cpu")
    for call in calls(op, dtype):
        arrays = engine.put(call.inputs, device)
        before = [engine.get(a) for a in arrays]
        results = as_tuple(bind(op, arrays, dict(call.attrs)))
        assert all(engine.device_of(r) == device for r in results) or not arrays
        check(op, dtype, [np.asarray(ops.to_numpy(r)) for r in results], call, f"eager on {backend}")
        for a, b in zip(arrays, before, strict=True):
            assert_close(engine.get(a), b, rtol=0, atol=0, what=f"operand of {name} after the call")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled(backend: str, name: str, dtype: str) -> None:
    """The graph that is compiled has been through JSON."""
    graph = from_json(to_json(one_op_graph(OPS[name], dtype)))
    check_graph(OPS[name], dtype, graph, require_backend(backend), f"compiled on {backend}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", COMPOSITES)
def test_expansion(name: str, dtype: str) -> None:
    """Composite ops by primitives alone, whatever a backend would run fused."""
    numpy = require_backend("numpy")
    primitives = {k: f for k, f in numpy.table.items() if not OPS[k].composite}
    bare = dataclasses.replace(numpy, table=primitives)
    check_graph(OPS[name], dtype, one_op_graph(OPS[name], dtype), bare, "expanded")


# ---- symbolic sizes and JSON --------------------------------------------------------


def with_batch(op: Op, call: Call) -> Iterator[tuple[list[Spec], dict[str, Any]]]:
    """The call's specs and attributes with the first size unknown: where it recurs, and in the first operand alone."""
    batch, size = Dim.symbol("batch"), call.inputs[0].shape[0]

    def unknown(shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return (batch, *shape[1:]) if shape[:1] == (size,) else shape

    attrs = dict(call.attrs)
    if isinstance(attrs.get("shape"), tuple):
        attrs["shape"] = unknown(attrs["shape"])
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
