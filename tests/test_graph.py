"""Specs, symbolic sizes, graphs: printing, verification, passes, JSON."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compare import assert_close
from unilayers import ops
from unilayers.autodiff import gradients
from unilayers.backend import get_backend
from unilayers.errors import GraphError, ShapeError
from unilayers.graph import OPS, Graph, Value, constant, leaf, make_node
from unilayers.graph.passes import eliminate_common, fold_constants, lower, optimise, simplify, specialise
from unilayers.graph.serialize import from_json, to_json
from unilayers.graph.verify import verify
from unilayers.program import compile_graph
from unilayers.spec import Dim, Spec, broadcast_shapes, promote

BATCH = Dim.symbol("batch")

# ---- symbolic sizes -----------------------------------------------------------

small = st.integers(-6, 6)


@st.composite
def dims(draw: st.DrawFn, depth: int = 3) -> tuple[object, object]:
    """An expression over two symbols, and the function that computes it from numbers."""
    if depth == 0 or draw(st.booleans()):
        which = draw(st.sampled_from(["a", "b", "number"]))
        if which == "number":
            n = draw(small)
            return n, lambda sizes: n
        return Dim.symbol(which), lambda sizes: sizes[which]
    (x, fx), (y, fy) = draw(dims(depth - 1)), draw(dims(depth - 1))
    op = draw(st.sampled_from(["+", "-", "*", "//"]))
    if op == "//":
        k = draw(st.integers(1, 5))
        return x // k, lambda sizes: fx(sizes) // k
    compute = {"+": lambda p, q: p + q, "-": lambda p, q: p - q, "*": lambda p, q: p * q}[op]
    return compute(x, y), lambda sizes: compute(fx(sizes), fy(sizes))


@given(dims(), st.integers(1, 9), st.integers(1, 9))
def test_symbolic_arithmetic_agrees_with_numbers(pair: tuple, a: int, b: int) -> None:
    symbolic, numeric = pair
    sizes = {"a": a, "b": b}
    found = symbolic.evaluate(sizes) if isinstance(symbolic, Dim) else symbolic
    assert found == numeric(sizes)


def test_equal_sizes_are_equal_however_they_were_computed() -> None:
    assert BATCH * 64 // 64 == BATCH
    assert (BATCH * 3 - 2) // 3 == BATCH - 1 and (BATCH * 3 + 4) // 3 == BATCH + 1
    assert (BATCH + 2) * 3 - 6 == BATCH * 3
    assert hash(BATCH * 2) == hash(BATCH + BATCH)
    assert (BATCH * 12) // (BATCH * 4) == 3
    assert BATCH - BATCH == 0


def test_promotion_never_widens_a_float_by_an_integer() -> None:
    assert promote("int64", "float32") == "float32"
    assert promote("float16", "float64") == "float64"
    assert promote("bool", "uint8") == "uint8"


def test_broadcast_error_names_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(4,\)"):
        broadcast_shapes((2, 3), (4,))


# ---- random graphs --------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A small graph over a (batch, 4) input and a (4,) state, with an update and several outputs."""
    x, w = leaf("input", "x", Spec((BATCH, 4), "float64")), leaf("state", "w", Spec((4,), "float64"))
    pool: list[Value] = [x, w, constant(np.array(0.5))]
    for _ in range(draw(st.integers(1, 10))):
        a, b = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        kind = draw(
            st.sampled_from(["add", "multiply", "subtract", "tanh", "sum", "flip", "reshape", "where", "softplus"])
        )
        match kind:
            case "add" | "multiply" | "subtract":
                pool.append(getattr(ops, kind)(a, b))
            case "tanh" | "softplus":
                pool.append(getattr(ops, kind)(a))
            case "sum":
                pool.append(ops.sum(a, axis=a.ndim - 1, keepdims=True) if a.ndim else a * 2.0)
            case "flip":
                pool.append(ops.flip(a, a.ndim - 1) if a.ndim else a + 1.0)
            case "reshape":
                pool.append(ops.reshape(a, (-1,)) if a.ndim == 1 else ops.reshape(ops.reshape(a, (-1,)), a.shape))
            case "where":
                pool.append(ops.where(a > b, a, b))
    total = ops.sum(ops.tanh(pool[-1]))
    grads = gradients(total, [w])
    return Graph((x,), (w,), {"total": total, "last": pool[-1]}, {"w": w - grads[0] * 0.1})


def run(graph: Graph, rows: int = 3) -> dict[str, np.ndarray]:
    backend = get_backend("numpy")
    rng = np.random.default_rng(0)
    state = backend.put([rng.normal(size=4)], "cpu")
    new, outputs = compile_graph(graph, backend, "cpu", {"batch": rows})(state, [rng.normal(size=(rows, 4))])
    return {k: backend.get(v) for k, v in outputs.items()} | {"new w": backend.get(new[0])}


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_passes_keep_the_numbers_and_the_rules(graph: Graph) -> None:
    verify(graph)
    expected = run(graph)
    concrete = specialise(graph, {"batch": 3})
    for change in (lambda g: lower(g, ()), eliminate_common, simplify, lambda g: optimise(g, (), reference_run)):
        changed = verify(change(concrete))
        for name, value in run(changed).items():
            assert_close(value, expected[name], rtol=1e-12, atol=1e-12, what=f"{name} after {change}")


def reference_run(node: object, arrays: list[np.ndarray]) -> list[np.ndarray]:
    result = OPS[node.op].reference(*arrays, **node.attrs)  # type: ignore[attr-defined, misc]
    return [np.asarray(result)]


@settings(max_examples=30, deadline=None)
@given(graphs())
def test_json_round_trip(graph: Graph) -> None:
    again = verify(from_json(to_json(graph)))
    assert str(again) == str(graph)
    assert to_json(again) == to_json(graph)


# ---- single rules ---------------------------------------------------------------


def test_dead_code_goes() -> None:
    x = leaf("input", "x", Spec((2,)))
    ops.exp(x)
    assert [n.op for n in Graph((x,), (), {"y": ops.tanh(x)}).nodes] == ["input", "tanh"]


def test_common_subexpressions_are_computed_once() -> None:
    x = leaf("input", "x", Spec((2,)))
    graph = eliminate_common(Graph((x,), (), {"y": ops.exp(x) + ops.exp(x)}))
    assert [n.op for n in graph.nodes].count("exp") == 1


def test_constants_are_folded() -> None:
    x = leaf("input", "x", Spec((2,)))
    graph = Graph((x,), (), {"y": x * ops.exp(constant(0.0))})
    graph = simplify(fold_constants(graph, reference_run))
    assert [n.op for n in graph.nodes] == ["input"]


def test_chains_of_reshapes_and_permutations_join() -> None:
    x = leaf("input", "x", Spec((2, 3, 4)))
    y = ops.reshape(ops.reshape(ops.permute_dims(ops.permute_dims(x, (1, 2, 0)), (2, 0, 1)), (24,)), (6, 4))
    assert [n.op for n in simplify(Graph((x,), (), {"y": y})).nodes] == ["input", "reshape"]


def test_symbolic_batch_is_specialised_everywhere() -> None:
    x = leaf("input", "x", Spec((BATCH, 2, 3)))
    graph = Graph((x,), (), {"y": ops.mean(ops.reshape(x, (-1, 3)))})
    assert graph.symbols == {"batch"}
    concrete = verify(specialise(graph, {"batch": 5}))
    assert concrete.symbols == frozenset()
    assert "batch" not in str(concrete)


def test_printing_names_everything() -> None:
    x, w = leaf("input", "x", Spec((BATCH, 2))), leaf("state", "w", Spec((2, 2)))
    text = str(Graph((x,), (w,), {"y": ops.matmul(x, w)}, {"w": w * 2.0}))
    assert text.splitlines() == [
        "input x: float32[batch, 2]",
        "state w: float32[2, 2]",
        "v2: float32[batch, 2] = matmul(x, w)",
        "v3: float32[] = constant(value=2.)",
        "v4: float32[2, 2] = multiply(w, v3)",
        "update w := v4",
        "return y = v2",
    ]


# ---- what the verifier catches ----------------------------------------------------


def _x() -> Value:
    return leaf("input", "x", Spec((2,)))


def _wrong_spec() -> Graph:
    x = _x()
    y = ops.exp(x)
    y.spec = Spec((3,))
    return Graph((x,), (), {"y": y})


def _unlisted_leaf() -> Graph:
    return Graph((), (), {"y": ops.exp(_x())})


def _wrong_update() -> Graph:
    w = leaf("state", "w", Spec((2,)))
    return Graph((), (w,), {}, {"w": ops.sum(w)})


def _same_name_twice() -> Graph:
    a, b = _x(), _x()
    return Graph((a, b), (), {"y": a + b})


def _wrong_attributes() -> Graph:
    x = _x()
    y = make_node(OPS["exp"], (x,), {})[0]
    y.node.attrs = {"axis": 1}
    return Graph((x,), (), {"y": y})


@pytest.mark.parametrize("make", [_wrong_spec, _unlisted_leaf, _wrong_update, _same_name_twice, _wrong_attributes])
def test_the_verifier_catches(make: object) -> None:
    with pytest.raises(GraphError):
        verify(make())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "not a saved graph"),
        ('{"format": "else"}', "not a saved graph"),
        ('{"format": "unilayers.graph", "version": 99}', "newer version"),
    ],
)
def test_unreadable_graphs_say_why(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        from_json(text)


def test_a_symbolic_value_has_no_truth_value() -> None:
    with pytest.raises(GraphError, match="no truth value"):
        bool(_x() > 0)


# ---- a training step as a file ------------------------------------------------------

RUN_SAVED = """
import sys, numpy as np
from pathlib import Path
from unilayers.backend import get_backend
from unilayers.graph.serialize import from_json
from unilayers.program import compile_graph
import unilayers.ops
graph = from_json(Path(sys.argv[1]).read_text())
data = np.load(sys.argv[2])
backend = get_backend("numpy")
state = backend.put([data[f"s{i}"] for i in range(len(graph.state))], "cpu")
step = compile_graph(graph, backend, "cpu", {"batch": len(data["y"])})
for _ in range(3):
    state, out = step(state, backend.put([data["x"], data["y"]], "cpu"))
    print(repr(float(out["loss"])))
"""


def test_a_saved_training_step_runs_without_the_code_that_made_it(tmp_path: object) -> None:
    from unilayers import Input, Sequential, layers, losses
    from unilayers.training.steps import Batch, train_program

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6)).astype("float32"), rng.integers(0, 3, 8).astype("int32")
    model = Sequential([Input((6,)), layers.Dense(5, activation="relu"), layers.Dropout(0.5), layers.Dense(3)], seed=1)
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True))
    program = train_program(model, model._objectives, Batch(x, y))
    (tmp_path / "step.json").write_text(to_json(program.graph))
    np.savez(tmp_path / "data.npz", x=x, y=y, **{f"s{i}": v.numpy() for i, v in enumerate(program.variables)})
    (tmp_path / "run.py").write_text(RUN_SAVED)
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "step.json"), str(tmp_path / "data.npz")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    store = program.place(get_backend("numpy"), "cpu")
    expected = [float(program.run(store, [x, y])["loss"]) for _ in range(3)]
    assert [float(line) for line in done.stdout.split()] == expected
