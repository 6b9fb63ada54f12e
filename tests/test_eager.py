"""Eager ops and tapes: the quick ways give what the general ones give, and a tape holds on to no more than it needs."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.autodiff import GradientTape, grad, hessian, jacobian, value_and_grad
from unilayers.backend import Backend
from unilayers.errors import GraphError, ShapeError, UnilayersError
from unilayers.graph import OPS, Graph, Value, constant, leaf
from unilayers.ops import define
from unilayers.ops.control import checkpoint, custom_gradient
from unilayers.ops.define import Box, bind
from unilayers.program import compile_graph
from unilayers.spec import Dim, Spec
from unilayers.variable import Trace, Variable, place_together, trace_into

RNG = np.random.default_rng(17)
X, Y, W = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))


def here(engine: Backend, *arrays: Any) -> list[Any]:
    return engine.put([np.asarray(a) for a in arrays], engine.device("cpu"))


def close(found: Any, expected: Any, what: str, tolerance: float = 1e-12) -> None:
    assert_close(ops.to_numpy(found), np.asarray(expected), rtol=tolerance, atol=tolerance, what=what)


# ---- dispatch -----------------------------------------------------------------------

FORMS: list[tuple[str, Callable[[Any], Any]]] = [
    ("arrays", lambda a: a),
    ("boxes", Box),
    ("variables", lambda a: Variable(ops.to_numpy(a), dtype=ops.dtype_of(a))),
    ("NumPy", ops.to_numpy),
]


@pytest.mark.parametrize("taped", [False, True], ids=["", "taped"])
@pytest.mark.parametrize(("dtype", "other"), [("float32", "float32"), ("float32", "float64"), ("int32", "float32")])
def test_every_form_of_operand(backend: Backend, dtype: str, other: str, taped: bool) -> None:
    """One of the operands is the engine's own array; the result is that of NumPy in the promoted dtype."""
    a, b = (X * 5).astype(dtype), (Y * 5).astype(other)
    own, beside = here(backend, a, b)
    expected = np.multiply(a.astype(ops.multiply(a, b).dtype), b.astype(ops.multiply(a, b).dtype))
    for name, form in FORMS:
        with GradientTape() if taped else GradientTape(persistent=True) as tape:
            found = [ops.multiply(own, form(beside)), ops.multiply(form(own), beside)]
            found += [ops.multiply(tape.watch(own), form(beside))] if taped else []
        for result in found:
            assert backend.device_of(define.unboxed(result)) == backend.device("cpu"), name
            close(result, expected, name, 1e-6)


@pytest.mark.parametrize("number", [2, 2.5, True, -0.0, 0.0, 0])
@pytest.mark.parametrize("dtype", ["float64", "int32", "bool"])
def test_numbers(backend: Backend, dtype: str, number: Any) -> None:
    """A number takes the dtype of the array unless its kind is wider, and 0.0, -0.0, 0 and False stay apart."""
    (x,) = here(backend, np.array([1, 0, 1]).astype(dtype))
    kind = {bool: "bool", int: "int32", float: ul.config.floatx()}[type(number)]
    wider = {"bool": kind, "int32": kind if kind == "float32" else dtype}.get(dtype, dtype)
    condition = here(backend, np.array([True, False, True]))[0]
    for _ in range(2):  # the second time from what was kept
        found = ops.to_numpy(ops.where(condition, x, number))
        expected = np.where([True, False, True], np.array([1, 0, 1], wider), np.array(number, wider))
        close(found, expected, f"where(c, {dtype}, {number})")
        assert np.signbit(found[1]) == np.signbit(expected[1]) if wider.startswith("float") else True


def test_numbers_are_not_shared_with_the_user() -> None:
    """A result that is a number given as it is can be written to without a change for the next caller."""
    first = ops.reshape(7.5, (1,))
    first[...] = 0
    assert float(ops.reshape(7.5, (1,))[0]) == 7.5


def test_composites_are_kept_by_dtype_shape_and_attributes(backend: Backend) -> None:
    """Attributes that are equal but not the same, and the same op at other shapes and dtypes."""
    for _ in range(3):
        for x in (X, X.astype("float32"), X[:2], X[0]):
            for slope in (0.25, 1, True):
                found = ops.leaky_relu(here(backend, x)[0], negative_slope=slope)
                close(found, np.where(x > 0, x, x * np.asarray(slope, x.dtype)), f"slope {slope}", 1e-6)
            close(ops.gelu(here(backend, x)[0]), ops.gelu(x), "gelu", 1e-6)


def test_kept_expansions_follow_the_default_dtype(backend: Backend) -> None:
    """And the kind of a number: 1 keeps integers, 1.0 makes floats of them."""
    (x,) = here(backend, np.array([-3, 0, 5], "int32"))
    for dtype in ("float32", "float64") * 3:
        with ul.config.dtype_scope(dtype):
            assert ops.dtype_of(ops.clip(x, minimum=-1.0, maximum=1.0)) == dtype
            assert ops.dtype_of(ops.clip(x, minimum=-1, maximum=1)) == "int32"


def test_errors_are_ours_in_every_form(backend: Backend) -> None:
    (a,) = here(backend, X)
    for x in (a, Box(a), Variable(X, dtype="float64")):
        with pytest.raises(ShapeError, match=r"op 'matmul': matrices do not fit. Expected \(..., n, k\)"):
            ops.matmul(x, a)
    with pytest.raises(UnilayersError, match="not an array of any installed backend"):
        ops.add(a, object())


@pytest.mark.parametrize("name", ["jax", "tensorflow"])
def test_other_frameworks_traces_leave_nothing_behind(name: str) -> None:
    """Numbers and expansions met first inside a trace of another framework are not kept from there."""
    engine = require_backend(name)
    framework = pytest.importorskip(name)

    def f(x: Any) -> Any:
        for _ in range(3):
            x = ops.multiply(ops.elu(x), 0.7251)
        return ops.sum(x)

    plain = X.astype("float32")
    (x,) = here(engine, plain)
    for _ in range(3):
        compiled = {"jax": "jit", "tensorflow": "function"}[name]
        close(getattr(framework, compiled)(lambda x: f(x))(x), f(plain), "inside", 1e-5)
        close(f(x), f(plain), "outside", 1e-5)


def test_inference_tensors_are_not_kept() -> None:
    """PyTorch's autograd refuses constants that were made in its inference mode."""
    engine = require_backend("torch")
    import torch

    (x,) = here(engine, X)
    with torch.inference_mode():
        for _ in range(3):
            ops.multiply(ops.silu(x), 0.3717)
    wanted = x.clone().requires_grad_()
    y = ops.sum(ops.multiply(ops.silu(wanted), 0.3717))
    expected = grad(lambda v: ops.sum(ops.multiply(ops.silu(v), 0.3717)))(X)
    close(torch.autograd.grad(y, wanted)[0], expected, "autograd")


def test_variables_are_read_where_they_were_read_last(backend: Backend) -> None:
    """One copy serves until the value changes, by assignment or as the variable finds a place."""
    v = Variable(X, dtype="float64", name="v")
    (y,) = here(backend, Y)
    place = backend, backend.device("cpu")
    assert v.as_operand(*place) is v.as_operand(*place)
    close(ops.add(y, v), X + Y, "first")
    v.assign(Y)
    close(ops.add(y, v), Y + Y, "after an assignment")
    v.assign(ops.add(y, 1.0))
    close(ops.add(y, v), Y + Y + 1.0, "after an assignment of the engine's array")
    close(v.numpy(), Y + 1.0, "read")
    v.numpy()[...] = 0
    close(ops.add(v, X), X + Y + 1.0, "on the default backend")
    place_together([v], *place)
    close(ops.add(y, v), Y + Y + 1.0, "in a store")
    v.assign(X)
    close(ops.add(y, v), X + Y, "assigned in a store")


# ---- gradients on a tape ------------------------------------------------------------


def test_a_variable_read_twice_has_one_gradient(backend: Backend) -> None:
    v = Variable(X, dtype="float64")
    with GradientTape() as tape:
        (y,) = here(backend, Y)
        total = ops.sum(v * v * y)
    close(tape.gradient(total, v), 2 * X * Y, "gradient")


def test_what_is_watched() -> None:
    fixed, free = Variable(X, dtype="float64", trainable=False), Variable(Y, dtype="float64")
    with GradientTape(persistent=True) as tape:
        total = ops.sum(fixed * free)
    assert tape.gradient(total, fixed) is None
    close(tape.gradient(total, free), X, "trainable")
    with GradientTape() as tape:
        tape.watch(fixed)
        total = ops.sum(fixed * free)
    close(tape.gradient(total, {"a": [fixed], "b": free})["a"][0], Y, "watched")


def test_sources_may_be_on_the_way() -> None:
    with GradientTape(persistent=True) as tape:
        x = tape.watch(X)
        h = x * 3.0
        y = ops.sum(ops.square(h))
    to_h, to_x = tape.gradient(y, [h, x])
    close(to_h, 6 * X, "by an intermediate value")
    close(to_x, 18 * X, "by the first")
    close(tape.gradient(h, x, Y), 3 * Y, "with a gradient that flows in")
    assert tape.gradient(x, h) is None
    close(tape.gradient(x, x), np.ones_like(X), "by itself")


def test_stop_gradient() -> None:
    with GradientTape(persistent=True) as tape:
        x = tape.watch(X)
        y = ops.sum(x * ops.stop_gradient(x * x))
        constant_ = ops.sum(ops.stop_gradient(x))
    close(tape.gradient(y, x), X * X, "gradient")
    assert tape.gradient(constant_, x) is None


def test_integers_and_comparisons_carry_no_gradient() -> None:
    with GradientTape(persistent=True) as tape:
        x = tape.watch(X)
        count = ops.astype(ops.argmax(x, 1), "float64")
        kept = ops.sum(ops.where(x > 0, x, 0.0))
    assert tape.gradient(count, x) is None
    close(tape.gradient(kept, x), (X > 0).astype(float), "gradient")


def test_guests_on_a_tape(backend: Backend) -> None:
    """A NumPy array that is watched moves to the engine's arrays; so does its gradient."""
    (y,) = here(backend, Y.astype("float32"))
    with GradientTape() as tape:
        x = tape.watch(X)
        total = ops.sum(ops.multiply(x, y) * x)
    close(tape.gradient(total, x), 2 * X * Y.astype("float32"), "gradient", 1e-6)


def test_several_outputs_of_which_one_is_used(backend: Backend) -> None:
    gamma, beta = np.ones(4), np.zeros(4)
    arrays = here(backend, X, gamma, beta)

    def at(which: int, x: Any) -> Any:
        return ops.sum(ops.batch_norm(x, *arrays[1:], axes=0)[which] * here(backend, W.ravel()[:4])[0])

    for which in range(3):
        found = grad(lambda x, which=which: at(which, x))(arrays[0])
        symbol = leaf("input", "x", Spec(X.shape, "float64"))
        y = ops.sum(ops.batch_norm(symbol, constant(gamma), constant(beta), axes=0)[which] * constant(W.ravel()[:4]))
        graph = Graph((symbol,), (), {"g": ul.autodiff.gradients(y, [symbol])[0]})
        expected = compile_graph(graph, require_backend("numpy"), "cpu")([], [X])[1]["g"]
        close(found, expected, f"of output {which}")


ORDERS: list[tuple[str, Callable[[Any], Any]]] = [
    ("power", lambda x: ops.sum(x**4)),
    ("softmax", lambda x: ops.sum(ops.softmax(x, -1) * Y)),
    ("gelu", lambda x: ops.sum(ops.gelu(x) * x)),
    ("matmul", lambda x: ops.sum(ops.tanh(ops.matmul(x, W)))),
]


@pytest.mark.parametrize(("name", "f"), ORDERS, ids=[o[0] for o in ORDERS])
def test_second_derivatives(name: str, f: Callable[[Any], Any]) -> None:
    """Against central differences of the first."""
    v, step = RNG.normal(size=X.shape), 1e-5
    found = grad(lambda x: ops.sum(grad(f)(x) * v))(X)
    numeric = (grad(f)(X + step * v) - grad(f)(X - step * v)) / (2 * step)
    close(found, numeric, name, 1e-7)


def test_a_tape_of_later_sees_the_gradient_of_an_earlier_one() -> None:
    with GradientTape(persistent=True) as first:
        x = first.watch(X)
        y = ops.sum(x**3)
    with GradientTape() as second:
        second.watch(x)
        g = ops.sum(first.gradient(y, x))
    close(second.gradient(g, x), 6 * X, "second derivative")


def test_used_up() -> None:
    with GradientTape() as tape:
        x = tape.watch(X)
        y = ops.sum(x)
    tape.gradient(y, x)
    with pytest.raises(UnilayersError) as caught:
        tape.gradient(y, x)
    assert str(caught.value) == ("the tape was used up by an earlier gradient call. Use GradientTape(persistent=True).")


# ---- what a tape holds --------------------------------------------------------------


@contextmanager
def no_collector() -> Iterator[None]:
    """Objects die when their last reference goes, or not at all."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive(references: list[weakref.ref[Any]]) -> list[bool]:
    return [r() is not None for r in references]


LINEAR = [
    ("add", lambda x, c: x + c),
    ("scale", lambda x, c: ops.multiply(x, 0.5)),
    ("reshape", lambda x, c: ops.reshape(ops.reshape(x, (4, 3)), (3, 4)) - c),
    ("relu of the result", lambda x, c: x - ops.stop_gradient(c)),
]


@pytest.mark.parametrize("backend_name", [b for b in BACKENDS if b in ("numpy", "torch")])
@pytest.mark.parametrize(("name", "f"), LINEAR, ids=[n for n, _ in LINEAR])
def test_a_chain_of_linear_ops_keeps_nothing(backend_name: str, name: str, f: Callable[[Any, Any], Any]) -> None:
    engine = require_backend(backend_name)
    x, c = here(engine, X, Y)
    with no_collector(), GradientTape() as tape:
        y = tape.watch(x)
        references = []
        for _ in range(6):
            y = f(y, c)
            references.append(weakref.ref(y.array))
        assert alive(references) == [False] * 5 + [True]
        assert tape.gradient(ops.sum(y), y) is not None


@pytest.mark.parametrize("backend_name", [b for b in BACKENDS if b in ("numpy", "torch")])
def test_each_rule_keeps_what_it_reads(backend_name: str) -> None:
    engine = require_backend(backend_name)

    def kept(f: Callable[[Any], Any]) -> list[bool]:
        """Whether the input and the output of an op stay."""
        with no_collector(), GradientTape() as tape:
            h = tape.watch(here(engine, np.abs(X))[0]) + 0.0
            y = f(h)
            references = [weakref.ref(h.array), weakref.ref(y.array)]
            y, h = y * 1.0, None
            del y
            found = alive(references)
        assert tape is not None
        return found

    w = here(engine, W)[0]
    assert kept(ops.exp) == [False, True]
    assert kept(ops.sin) == [True, False]
    assert kept(ops.sqrt) == [False, True]
    assert kept(lambda x: ops.matmul(x, w)) == [False, False]
    assert kept(lambda x: ops.sum(x, 0)) == [False, False]
    assert kept(ops.relu) == [False, True]
    assert kept(lambda x: ops.softmax(x, -1)) == [False, True]


@pytest.mark.parametrize("persistent", [False, True])
def test_arrays_go_as_the_backward_pass_comes_to_them(persistent: bool) -> None:
    """Seen from inside: a function with a gradient of its own counts what is left."""
    counts: list[int] = []
    references: list[weakref.ref[Any]] = []

    @custom_gradient
    def look(x: Any) -> Any:
        def pull(g: Any) -> Any:
            counts.append(sum(alive(references)))
            return g

        return ops.identity(x), pull

    with no_collector():
        with GradientTape(persistent) as tape:
            y = x = tape.watch(X.copy())
            for _ in range(5):
                y = ops.exp(look(y * 0.1))  # exp keeps its result
                references.append(weakref.ref(y.array))
            y = ops.sum(y)
        tape.gradient(y, x)
    assert counts == ([5] * 5 if persistent else [4, 3, 2, 1, 0])


def test_gradients_go_once_they_have_flowed_on() -> None:
    flows: list[weakref.ref[Any]] = []
    counts: list[int] = []

    @custom_gradient
    def look(x: Any) -> Any:
        def pull(g: Any) -> Any:
            counts.append(sum(alive(flows)))
            flows.append(weakref.ref(g.array))
            return g * 2.0

        return x, pull

    with no_collector():
        with GradientTape() as tape:
            y = x = tape.watch(X.copy())
            for _ in range(5):
                y = look(y) * 3.0
            y = ops.sum(y)
        tape.gradient(y, x)
    assert max(counts) <= 1


def test_gradients_nobody_asked_for_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's weights watch themselves; their gradients are left out where only the input's is wanted."""
    w = Variable(W, dtype="float64")
    engine = require_backend("numpy")
    calls: list[tuple[int, ...]] = []

    def counted(a: Any, b: Any) -> Any:
        calls.append(a.shape)
        return np.matmul(a, b)

    monkeypatch.setitem(engine.table, "matmul", counted)  # type: ignore[arg-type]
    with GradientTape(persistent=True) as tape:
        x = tape.watch(np.ones((5, 4)))
        y = ops.sum(ops.matmul(x, w))
    for sources, products in ((x, 1), (w, 1), ([x, w], 2)):
        calls.clear()
        tape.gradient(y, sources)
        assert len(calls) == products


# ---- in a trace ---------------------------------------------------------------------


def traced(f: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """The result of a function of symbolic values, run on NumPy."""
    symbols = [leaf("input", f"x{i}", Spec(a.shape, a.dtype.name)) for i, a in enumerate(arrays)]
    trace = Trace()
    with trace_into(trace):
        y = f(*symbols)
    graph = trace.graph(symbols, {"y": y})
    state = [v.numpy() for v in trace.variables]
    return compile_graph(graph, require_backend("numpy"), "cpu")(state, list(arrays))[1]["y"]


def test_tape_in_a_trace() -> None:
    v = Variable(Y, dtype="float64", name="v")

    def f(x: Any) -> Any:
        with GradientTape(persistent=True) as tape:
            y = ops.sum(tape.watch(x) * v * v)
        assert tape.gradient(y, leaf("input", "other", Spec((2,)))) is None
        return ops.stack([tape.gradient(y, x), *tape.gradient(y, [v])])

    close(traced(f, X), np.stack([Y * Y, 2 * X * Y]), "gradients")


def test_tape_in_a_trace_differentiates_by_the_value_a_variable_has() -> None:
    v = Variable(Y, dtype="float64", name="v")

    def f(x: Any) -> Any:
        v.assign(x * 2.0)
        with GradientTape() as tape:
            y = ops.sum(ops.square(v.as_operand(None, None)))
        v.assign(x)
        return tape.gradient(y, v)

    close(traced(f, X), 4 * X, "gradient")


def test_nested_gradients_in_a_trace() -> None:
    f = grad(lambda x: ops.sum(grad(lambda x: ops.sum(x**4))(x)))
    close(traced(f, X), 12 * X**2, "second derivative")
    close(f(X), 12 * X**2, "the same, eagerly")


def test_the_same_value_twice() -> None:
    def f(x: Any) -> Any:
        a, b = grad(lambda a, b: ops.sum(a * b * b), (0, 1))(x, x)
        return ops.stack([a, b])

    for found in (f(X), traced(f, X)):
        close(found, np.stack([X * X, 2 * X * X]), "gradients")


def test_constants_in_a_trace() -> None:
    v = Variable(Y, dtype="float64", name="v")
    close(traced(lambda x: grad(lambda c: ops.sum(c * v * x))(np.ones_like(X)), X), X * Y, "gradient")


# ---- grad, jacobian, hessian ---------------------------------------------------------


def test_nested_arguments() -> None:
    def f(parameters: Any, x: Any) -> Any:
        return ops.sum(ops.matmul(x, parameters["dense"][0]) + parameters["dense"][1]) * parameters["scale"]

    parameters = {"dense": [W, np.zeros(2)], "scale": np.array(2.0), "none": None}
    value, (found, to_x) = value_and_grad(f, (0, 1))(parameters, X)
    close(value, (X @ W).sum() * 2, "value")
    assert list(found) == list(parameters) and found["none"] is None
    close(found["dense"][0], 2 * np.repeat(X.sum(0)[:, None], 2, 1), "kernel")
    close(found["dense"][1], np.full(2, 6.0), "bias")
    close(found["scale"], (X @ W).sum(), "scale")
    close(to_x, 2 * np.repeat(W.sum(1)[None], 3, 0), "x")


def test_unconnected_arguments_have_zeros() -> None:
    close(grad(lambda a, b: ops.sum(a), 1)(X, Y), np.zeros_like(Y), "zeros")
    close(traced(grad(lambda a, b: ops.sum(a), 1), X, Y), np.zeros_like(Y), "zeros, traced")


def test_jacobian(backend: Backend) -> None:
    """Of x -> tanh(x) @ W, element by element by its formula."""
    (x,) = here(backend, X)
    expected = np.einsum("ij,kl->ikjl", np.eye(3), W.T)[..., :] * (1 - np.tanh(X) ** 2)
    close(jacobian(lambda x: ops.matmul(ops.tanh(x), here(backend, W)[0]))(x), expected, "jacobian")


def test_jacobian_in_a_trace() -> None:
    expected = np.einsum("ij,kl->ikjl", np.eye(3), W.T)[..., :] * (1 - np.tanh(X) ** 2)
    close(traced(jacobian(lambda x: ops.matmul(ops.tanh(x), W)), X), expected, "jacobian")


def test_jacobian_of_several_by_several() -> None:
    found = jacobian(lambda a, b: {"sum": ops.sum(a, 1), "product": a * b}, (0, 1))(X, Y)
    close(found["sum"][0], np.einsum("ij,k->ijk", np.eye(3), np.ones(4)), "sum by a")
    close(found["sum"][1], np.zeros((3, 3, 4)), "sum by b")
    close(found["product"][1], np.einsum("ik,jl,ij->ijkl", np.eye(3), np.eye(4), X), "product by b")


def test_jacobian_of_nothing() -> None:
    found = jacobian(lambda x: x[:0])(X)
    assert found.shape == (0, 4, 3, 4) and found.dtype == X.dtype


def test_jacobian_of_unknown_size() -> None:
    x = leaf("input", "x", Spec((Dim.symbol("batch"),)))
    with pytest.raises(ShapeError) as caught, trace_into(Trace()):
        jacobian(lambda x: x * x)(x)
    assert str(caught.value) == "jacobian: the size of the result must be known. Received (batch,)."


def test_hessian() -> None:
    a = RNG.normal(size=(4, 4))

    def f(x: Any) -> Any:
        return ops.sum(x * ops.matmul(a, x)) + ops.sum(ops.exp(x))

    expected = a + a.T + np.diag(np.exp(X[0]))
    for found in (hessian(f)(X[0]), traced(hessian(f), X[0])):
        close(found, expected, "hessian")


# ---- functions with a gradient of their own -------------------------------------------


@custom_gradient
def log1pexp(x: Any) -> Any:
    e = ops.exp(x)
    return ops.log(ops.add(e, 1.0)), lambda g: g * (1.0 - 1.0 / (1.0 + e))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_custom_gradient(backend: Backend) -> None:
    (x,) = here(backend, X)
    close(log1pexp(x), np.log1p(np.exp(X)), "value")
    close(grad(lambda x: ops.sum(log1pexp(x)))(x), sigmoid(X), "first derivative")
    (large,) = here(backend, np.array([800.0]))
    with np.errstate(over="ignore"):
        close(grad(lambda x: ops.sum(log1pexp(x)))(large), np.ones(1), "where the usual rule gives nan")


@pytest.mark.parametrize("order", [2, 3])
def test_custom_gradient_of_higher_order(order: int) -> None:
    """Through the values that the pullback closes over."""
    f = log1pexp
    for _ in range(order):
        f = grad(lambda x, f=f: ops.sum(f(x)))
    s = sigmoid(X)
    close(f(X), {2: s * (1 - s), 3: s * (1 - s) * (1 - 2 * s)}[order], f"derivative {order}")


def test_custom_gradient_is_one_step_with_what_it_says() -> None:
    """Wrong on purpose, so that it can be told from the usual rule; None means no gradient."""

    @custom_gradient
    def f(pair: Any, c: Any) -> Any:
        a, b = pair

        def pull(to_product: Any, to_sum: Any) -> Any:
            return (to_product * 7.0, None), to_sum

        return (a * b, ops.sum(a)), pull

    with GradientTape(persistent=True) as tape:
        a, b, c = tape.watch(X), tape.watch(Y), tape.watch(np.array(1.0))
        product, total = f((a, b), c)
        y = ops.sum(product) + total * 5.0
    to_a, to_b, to_c = tape.gradient(y, [a, b, c])
    close(product, X * Y, "value")
    close(to_a, np.full_like(X, 7.0), "by a")
    assert to_b is None
    close(to_c, np.array(5.0), "by c")
    close(tape.gradient(product, a), np.full_like(X, 7.0), "of one output")
    assert tape.gradient(total, a) is not None


def test_custom_gradient_by_a_variable() -> None:
    v = Variable(X, dtype="float64")
    with GradientTape() as tape:
        y = ops.sum(log1pexp(v))
    close(tape.gradient(y, v), sigmoid(X), "gradient")


def test_custom_gradient_with_too_few() -> None:
    f = custom_gradient(lambda a, b: (a * b, lambda g: (g,)))
    with pytest.raises(GraphError) as caught:
        grad(lambda a: ops.sum(f(a, Y)))(X)
    assert str(caught.value) == (
        "custom_gradient: the pullback does not fit the arguments. Expected 2 gradients, None where there is none. "
        "Received 1."
    )


def test_custom_gradient_without_a_tape_is_the_value() -> None:
    close(log1pexp(X), np.log1p(np.exp(X)), "value")
    assert not isinstance(log1pexp(X), (Box, Value))


# ---- checkpoints ------------------------------------------------------------------------


def deep(x: Any, w: Any) -> Any:
    return ops.tanh(ops.matmul(ops.sin(ops.exp(x * 0.3)), w))


def test_checkpoint(backend: Backend) -> None:
    x, w = here(backend, X, RNG.normal(size=(4, 4)))
    v = Variable(ops.to_numpy(w), dtype="float64")

    def value(through: Callable[[Callable[..., Any]], Any]) -> Any:
        with GradientTape() as tape:
            first = tape.watch(x)
            h = through(lambda x: deep(x, v))(first)
            y = ops.sum(through(deep)(h, first[:1] * ops.reshape(first[0], (4, 1))))
        return tape.gradient(y, [first, v])

    for found, expected in zip(value(checkpoint), value(lambda f: f), strict=True):
        close(found, ops.to_numpy(expected), "gradient")


def test_checkpoint_of_higher_order() -> None:
    w = RNG.normal(size=(4, 4))
    again = checkpoint(lambda x: deep(x, w))
    close(hessian(lambda x: ops.sum(again(x)))(X), hessian(lambda x: ops.sum(deep(x, w)))(X), "hessian")


def test_checkpoint_keeps_its_arguments_only() -> None:
    references: list[weakref.ref[Any]] = []

    def block(x: Any) -> Any:
        for _ in range(3):
            x = ops.exp(x * 0.1)
            references.append(weakref.ref(x.array))
        return x

    with no_collector(), GradientTape() as tape:
        x = tape.watch(X)
        y = checkpoint(block)(x)
        assert alive(references[:3]) == [False, False, True]  # the result is the caller's
        found = tape.gradient(ops.sum(y), x)
    assert len(references) == 6  # it ran twice
    close(found, grad(lambda x: ops.sum(block(x)))(X), "gradient")


def test_checkpoint_of_the_same_argument_twice() -> None:
    f = checkpoint(lambda a, b: (a * b, b))

    def g(x: Any) -> Any:
        product, again = f(x, x)
        return ops.sum(product) + ops.sum(again * 3.0)

    close(grad(g)(X), 2 * X + 3, "gradient")


def test_checkpoint_repeats_random_masks() -> None:
    """The second run has the counters of the first, and does not count on."""
    from unilayers import layers

    layer, plain = (layers.Dropout(0.5, seed=3, name="drop") for _ in range(2))
    ones = np.ones((8, 8), "float32")
    for _ in range(3):
        with GradientTape() as tape:
            x = tape.watch(ones)
            y = checkpoint(lambda x: layer(x, training=True) * 1.0)(x)
            total = ops.sum(y)
        close(tape.gradient(total, x), ops.to_numpy(y), "the mask of the gradient")
        close(y, ops.to_numpy(plain(ones, training=True)), "the masks without a checkpoint")


def test_checkpoint_of_a_changed_variable() -> None:
    """What the second run reads is what the first one read."""
    v = Variable(X, dtype="float64", name="v")

    def f(x: Any) -> Any:
        y = ops.sum(x * v * v)
        v.assign_add(np.ones_like(X))
        return y

    with GradientTape() as tape:
        x = tape.watch(Y)
        y = checkpoint(f)(x)
    to_x, to_v = tape.gradient(y, [x, v])
    close(to_x, X * X, "by x")
    close(to_v, 2 * X * Y, "by the variable")
    close(v.numpy(), X + 1.0, "assigned once")


# ---- every op: a tape in pieces -------------------------------------------------------


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(define, "PLANS", 8)
    for n in range(1, 40):
        for _ in range(2):
            ops.elu(np.ones(n))
    for plans in (define._expansions, define._met):
        assert 0 < len(plans) <= 8


def test_attributes_that_cannot_be_keys_are_no_obstacle() -> None:
    """A list where a tuple belongs, given past the function that users call."""
    with GradientTape() as tape:
        x = tape.watch(X)
        y = bind(OPS["reshape"], (x,), {"shape": [2, 6]})
        total = ops.sum(y * y)
    close(tape.gradient(total, x), 2 * X, "gradient")


def test_steps_of_a_network_equal_finite_differences(backend: Backend) -> None:
    weights = [Variable(w, dtype="float64", name=f"w{i}") for i, w in enumerate((W, W[0], RNG.normal(size=(2, 3))))]
    labels = np.array([0, 2, 1], "int32")

    def loss() -> Any:
        a, b, c = weights
        logits = ops.matmul(ops.gelu(ops.add(ops.matmul(here(backend, X)[0], a), b)), c)
        return ops.mean(ops.sparse_softmax_cross_entropy(logits, here(backend, labels)[0]))

    with GradientTape() as tape:
        y = loss()
    found = tape.gradient(y, weights)
    for w, g in zip(weights, found, strict=True):
        value, along = w.numpy(), RNG.normal(size=w.shape)
        ends = []
        for step in (1e-5, -1e-5):
            w.assign(value + step * along)
            ends.append(float(ops.to_numpy(loss())))
        w.assign(value)
        slope = (ends[0] - ends[1]) / 2e-5
        close(np.sum(ops.to_numpy(g) * along), np.float64(slope), w.name, 1e-8)


def test_serial_numbers_are_never_given_twice() -> None:
    numbers = [Box(X).serial for _ in range(4)] + [Variable(X).serial, Box(X).serial]
    assert all(a < b for a, b in pairwise(numbers))


def test_a_number_beside_bfloat16() -> None:
    """Also where nobody has taught NumPy that dtype."""
    code = "import torch; from unilayers import ops\nprint(ops.add(torch.ones(2, dtype=torch.bfloat16), 1.0).tolist())"
    require_backend("torch")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[2.0, 2.0]\n", done.stderr


def test_a_tape_in_a_graph_sees_what_a_tape_sees_at_once() -> None:
    """What was computed before it began, also the update of a variable, is a constant to it."""

    def function(x: Any) -> tuple[Any, Any]:
        before = ops.sin(x)
        v.assign(ops.multiply(v, ops.sum(before)))
        with GradientTape() as tape:
            watched = tape.watch(x)
            y = ops.sum(before * watched * v)
        return tape.gradient(y, [watched, v])

    x = np.array([0.5, 1.5])
    v = Variable(2.0, (), "float64", name="v")
    at_once = [np.asarray(ops.to_numpy(g)) for g in function(x)]
    v = Variable(2.0, (), "float64", name="v")
    compiled = [np.asarray(g) for g in ul.function(function)(x)]
    total = np.sin(x).sum()
    expected = [np.sin(x) * 2.0 * total, np.asarray(np.sum(np.sin(x) * x))]
    for a, b, e in zip(at_once, compiled, expected, strict=True):
        assert_close(a, e, rtol=1e-12, atol=0, what="at once")
        assert_close(b, e, rtol=1e-12, atol=0, what="in a graph")
