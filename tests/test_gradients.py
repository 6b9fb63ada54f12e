"""Every gradient rule: against finite differences, to second order, on a tape, and against the frameworks' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, EACH, each_name, require_backend
from tests.test_ops import NAMES, as_tuple, runner, samples
from unilayers import ops
from unilayers.autodiff import GradientTape, gradients
from unilayers.backend import Backend
from unilayers.graph import OPS, Graph, Op, Sample, Value, leaf, make_node
from unilayers.graph.verify import verify
from unilayers.ops.define import bind
from unilayers.spec import Spec, is_float

STEP = 1e-5  # of the central differences: their error is about STEP**2, and 1e-16 / STEP from rounding
PRECISION = 1e-7  # of a comparison with them, relative to the largest term


@dataclass(frozen=True)
class Case:
    """A differentiable sample in float64, with random cotangents."""

    op: Op
    inputs: tuple[np.ndarray, ...]
    attrs: dict[str, Any]
    wanted: tuple[int, ...]  # the inputs to differentiate by
    cotangents: tuple[np.ndarray, ...]
    multiple: bool

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        return as_tuple(bind(self.op, inputs, self.attrs))[: len(self.cotangents)]


def _case(op: Op, sample: Sample, rng: np.random.Generator) -> Case:
    inputs = tuple(map(np.asarray, sample.inputs))
    attrs = {**op.defaults, **sample.attrs}
    floats = tuple(i for i, x in enumerate(inputs) if is_float(x.dtype.name))
    wanted = floats if sample.differentiable is True else tuple(sample.differentiable or ())
    specs = op.infer(*(Spec(x.shape, x.dtype.name) for x in inputs), **attrs)
    results = as_tuple(specs)[: -op.kept if attrs.get("keeps") else None]  # nothing flows into what is kept
    cotangents = tuple(rng.normal(size=s.shape) for s in results)  # type: ignore[arg-type]
    return Case(op, inputs, attrs, wanted, cotangents, isinstance(specs, tuple))


def cases(op: Op) -> Iterator[Case]:
    rng = np.random.default_rng(11)
    return (_case(op, s, rng) for s in samples(op) if s.differentiable)


DIFFERENTIABLE = [n for n in NAMES if OPS[n].differentiable and any(s.differentiable for s in samples(OPS[n]))]


def _leaves(name: str, arrays: Iterator[np.ndarray] | tuple[np.ndarray, ...]) -> list[Value]:
    return [leaf("input", f"{name}{i}", Spec(a.shape, a.dtype.name)) for i, a in enumerate(arrays)]


def _dot(a: list[Any], b: list[Any]) -> Any:
    return sum((ops.sum(x * y) for x, y in zip(a, b, strict=True)), start=ops.zeros((), "float64"))


# ---- finite differences ---------------------------------------------------------


def derivatives(case: Case, order: int) -> tuple[Graph, list[np.ndarray], list[np.ndarray]]:
    """A graph of F = <u, op(x)>, its derivative G along v and, for order 2, the derivative H of G along w.

    Returns:
        The graph with the outputs F, G, H; values of its inputs (x, u, v, w); and the direction of G and H: v for the
        wanted x, then w for the wanted x and u, in the places of the inputs they belong to.
    """
    rng = np.random.default_rng(13)
    x, u = _leaves("x", case.inputs), _leaves("u", case.cotangents)
    wanted = [x[i] for i in case.wanted]
    along = [rng.normal(size=case.inputs[i].shape) for i in case.wanted]
    further = [rng.normal(size=a.shape) for a in (*along, *case.cotangents)]
    v, w = _leaves("v", along), _leaves("w", further)
    y = make_node(case.op, x, case.attrs)[: len(u)]
    first = _dot(gradients(y, wanted, u), v)
    outputs = {"F": _dot(list(y), u), "G": first}
    if order >= 2:
        outputs["H"] = _dot(gradients(first, [*wanted, *u]), w)
    graph = Graph((*x, *u, *v, *w), (), outputs)
    return graph, [*case.inputs, *case.cotangents, *along, *further], [*along, *further]


def moved(case: Case, values: list[np.ndarray], directions: list[np.ndarray], step: float) -> list[np.ndarray]:
    """The inputs x (and, with as many directions, u) moved along the directions."""
    places = [*case.wanted, *range(len(case.inputs), len(case.inputs) + len(case.cotangents))]
    result = list(values)
    for i, d in zip(places, directions, strict=False):
        result[i] = values[i] + step * d
    return result


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_finite_differences(name: str) -> None:
    op, numpy = OPS[name], require_backend("numpy")
    for case in cases(op):
        graph, values, directions = derivatives(case, op.order)
        run = runner(verify(graph), numpy)
        here = run(values)
        along, further = directions[: len(case.wanted)], directions[len(case.wanted) :]
        for low, high, way in (("F", "G", along), ("G", "H", further))[: op.order]:
            up, down = (run(moved(case, values, way, s)) for s in (STEP, -STEP))
            numeric = (up[low] - down[low]) / (2 * STEP)
            scale = max(1.0, abs(float(here[high])), abs(float(here[low])))
            what = f"{name}{case.attrs}: derivative of {low}"
            assert_close(here[high], numeric, rtol=0, atol=PRECISION * scale, what=what)


WITH_RULE = [name for name in DIFFERENTIABLE if OPS[name].vjp is not None]


@pytest.mark.parametrize("name", WITH_RULE)
def test_wrong_rule_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finite differences reach every rule: one that is off by a thousandth fails."""
    op = OPS[name]

    def off(*args: Any, **attrs: Any) -> list[Any]:
        return [g if g is None else g * 1.001 for g in op.vjp(*args, **attrs)]  # type: ignore[misc]

    monkeypatch.setitem(OPS, name, replace(op, vjp=off, order=1))
    with pytest.raises(AssertionError, match="derivative of F"):
        test_finite_differences(name)


# ---- every backend: compiled, on a tape, and the framework's own --------------------


def gradients_on(backend: str, name: str) -> list[list[np.ndarray]]:
    """The gradients of all cases of an op, from one compiled graph."""
    inputs: list[Value] = []
    outputs, values = {}, []
    found = list(cases(OPS[name]))
    for n, case in enumerate(found):
        x, u = _leaves(f"x{n}_", case.inputs), _leaves(f"u{n}_", case.cotangents)
        y = make_node(case.op, x, case.attrs)[: len(u)]
        for i, g in enumerate(gradients(y, [x[i] for i in case.wanted], u)):
            outputs[f"g{n}_{i}"] = g
        inputs += [*x, *u]
        values += [*case.inputs, *case.cotangents]
    results = runner(Graph(tuple(inputs), (), outputs), require_backend(backend))(values)
    return [[results[f"g{n}_{i}"] for i in range(len(case.wanted))] for n, case in enumerate(found)]


@cache
def expected_gradients(name: str) -> list[list[np.ndarray]]:
    """The rules compiled on NumPy, which the finite differences check."""
    return gradients_on("numpy", name)


def check(case: Case, found: list[Any], expected: list[np.ndarray], how: str) -> None:
    for i, a, e in zip(case.wanted, found, expected, strict=True):
        scale = max(1.0, float(np.abs(e).max(initial=0.0)))
        assert_close(a, e, rtol=1e-10, atol=1e-11 * scale, what=f"{case.op.name}{case.attrs} by input {i}, {how}")


OTHERS = [b for b in BACKENDS if b != "numpy"]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("backend", OTHERS)
def test_compiled_gradient(backend: str, name: str) -> None:
    require_backend(backend)
    for case, here, there in zip(cases(OPS[name]), expected_gradients(name), gradients_on(backend, name), strict=True):
        check(case, there, here, f"compiled on {backend}")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@each_name
def test_tape(backend: str, name: str) -> None:
    engine = require_backend(backend)
    device = engine.device("cpu")
    for case, expected in zip(cases(OPS[name]), expected_gradients(name), strict=True):
        arrays, cotangents = engine.put(case.inputs, device), engine.put(case.cotangents, device)
        with GradientTape() as tape:
            x = [tape.watch(a) if i in case.wanted else a for i, a in enumerate(arrays)]
            total = sum((ops.sum(y * u) for y, u in zip(case(*x), cotangents, strict=True)), start=0.0)
        found = tape.gradient(total, [x[i] for i in case.wanted])
        unconnected = [np.zeros_like(case.inputs[i]) for i in case.wanted]
        values = [zero if g is None else ops.to_numpy(g) for g, zero in zip(found, unconnected, strict=True)]
        check(case, values, expected, f"tape on {backend}")


# ---- the frameworks' own gradients ----------------------------------------------------


def dilated_or_grouped(attrs: dict[str, Any]) -> bool:
    return max(attrs["dilation"]) > 1 or attrs["groups"] > 1


def padded(attrs: dict[str, Any]) -> bool:
    return any(map(any, attrs["padding"]))


def of_products(attrs: dict[str, Any]) -> bool:
    return attrs["kind"] == "prod"


def always(attrs: dict[str, Any]) -> bool:
    return True


# Where a framework's own gradient is missing or wrong, and for which attributes. These cases must fail.
NO_WITNESS: dict[tuple[str, str], tuple[str, Callable[[dict[str, Any]], bool]]] = {
    ("torch", "hard_sigmoid"): ("its backward takes 1/6 in float32, also for float64", always),
    ("torch", "sgd_update"): ("the fused kernel takes the learning rate as a number", always),
    ("torch", "adam_update"): (
        "the fused kernel takes the learning rate as a number",
        always,
    ),
    ("tensorflow", "conv"): ("no gradient of dilated or grouped convolution on the CPU", dilated_or_grouped),
    ("tensorflow", "conv_input_grad"): ("no gradient of dilated or grouped convolution on the CPU", dilated_or_grouped),
    ("jax", "while_loop"): ("no reverse derivative of a while loop", always),
    ("jax", "segment_reduce"): ("no gradient of products that are scattered", of_products),
    ("tensorflow", "max_pool_grad"): ("no second gradient of padded pooling", padded),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("backend", [p for p in EACH if p.values[0] in OTHERS])
def test_native(backend: str, name: str) -> None:
    """Our rule against the autograd of the framework, through the same table of functions."""
    engine = require_backend(backend)
    if engine.native_grad is None:
        pytest.skip(f"{backend} has no gradient of its own")
    _, without = NO_WITNESS.get((backend, name), ("", lambda attrs: False))
    for case, expected in zip(cases(OPS[name]), expected_gradients(name), strict=True):
        if not without(case.attrs):
            check(case, native(case, engine), expected, f"autograd of {backend}")
            continue
        with pytest.raises(Exception):  # noqa: B017
            check(case, native(case, engine), expected, f"autograd of {backend}")


def native(case: Case, engine: Backend) -> list[np.ndarray]:
    device = engine.device("cpu")
    cotangents = tuple(engine.put(case.cotangents, device))
    assert engine.native_grad is not None
    found = engine.native_grad(
        lambda *x: case(*x) if case.multiple else case(*x)[0],
        engine.put(case.inputs, device),
        cotangents if case.multiple else cotangents[0],
    )
    return [engine.get(found[i]) for i in case.wanted]


def test_every_deviation_is_an_op() -> None:
    assert all(backend in BACKENDS and name in DIFFERENTIABLE for backend, name in NO_WITNESS)
