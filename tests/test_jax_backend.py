"""What is particular to JAX: its 64-bit switch, donated state, arrays inside its transformations."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.backend import Backend
from unilayers.graph import Graph, leaf, tracing
from unilayers.program import compile_graph
from unilayers.spec import Spec

pytestmark = pytest.mark.skipif("jax" not in BACKENDS, reason="backend not registered")


@pytest.fixture(scope="module")
def engine() -> Backend:
    return require_backend("jax")


def test_users_keep_their_precision(engine: Backend) -> None:
    """float64 comes out of ours, while JAX around it goes on in float32."""
    import jax.numpy as jnp

    (x,) = engine.put([np.array([0.1, 0.2])], "cpu")
    y = ops.var(ops.multiply(ops.softmax(x), 0.1))
    p = np.exp([0.1, 0.2]) / np.exp([0.1, 0.2]).sum()
    assert_close(engine.get(y), np.var(0.1 * p), rtol=1e-12, atol=0, what="var")
    assert jnp.arange(3).dtype == "int32" and jnp.ones(2).dtype == "float32"


def graph_of_a_step(dtype: str) -> Graph:
    """State that moves, state that stays, and an output of each kind."""
    w, rate = leaf("state", "w", Spec((3,), dtype)), leaf("state", "rate", Spec((), dtype))
    g = leaf("input", "g", Spec((3,), dtype))
    with tracing():
        new = w - rate * g
        return Graph((g,), (w, rate), {"old": w, "new": new, "rate": rate, "g": g}, {"w": new})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_state_that_moves_is_donated(engine: Backend, dtype: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # JAX warns of memory that it could not use
        step = compile_graph(graph_of_a_step(dtype), engine, "cpu")
    state = engine.put([np.ones(3, dtype), np.array(0.5, dtype)], "cpu")
    (g,) = engine.put([np.ones(3, dtype)], "cpu")
    seen: list[dict[str, Any]] = []
    for _ in range(3):
        before = state
        state, outputs = step(state, [g])
        assert before[0].is_deleted() and state[1] is before[1]
        seen.append(outputs)
    engine.synchronize()
    assert [float(engine.get(o["old"])[0]) for o in seen] == [1.0, 0.5, 0.0]
    assert [float(engine.get(o["new"])[0]) for o in seen] == [0.5, 0.0, -0.5]
    assert all(engine.get(o["rate"]) == 0.5 and not o["g"].is_deleted() for o in seen)


def test_a_look_donates_nothing(engine: Backend) -> None:
    w = leaf("state", "w", Spec((3,)))
    look = compile_graph(Graph((), (w,), {"w": w}), engine, "cpu")
    state = engine.put([np.ones(3, "float32")], "cpu")
    new, _ = look(state, [])
    assert new[0] is state[0] and not state[0].is_deleted()


def test_ops_inside_jax(engine: Backend) -> None:
    """A user's jit and grad go through our ops, eager code as it is."""
    import jax

    def f(x: Any) -> Any:
        return ops.sum(ops.square(ops.relu(x)))

    (x,) = engine.put([np.array([-1.0, 2.0], "float32")], "cpu")
    assert float(jax.jit(f)(x)) == 4.0
    np.testing.assert_array_equal(engine.get(jax.grad(f)(x)), np.array([0.0, 4.0], "float32"))


def test_put_keeps_nothing_of_its_source(engine: Backend) -> None:
    """JAX keeps a well-aligned array's very memory; ours must be a copy of any size and place."""
    for size in (1, 16, 1 << 16):
        raw = np.zeros(size * 8 + 64, "uint8")
        start = -raw.ctypes.data % 64
        source = raw[start : start + size * 8].view("float64")
        (array,) = engine.put([source], "cpu")
        source[...] = 1
        assert not engine.get(array).any()
