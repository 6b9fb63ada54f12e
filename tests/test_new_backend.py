"""docs/new-backend.md is true: the backend it builds trains a network, and is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import unilayers.backend as registry
from tests.compare import assert_close
from tests.test_ops import NAMES, all_calls, as_tuple, check, check_graph, one_op_graph
from unilayers.backend import Backend
from unilayers.callbacks import LambdaCallback
from unilayers.graph import OPS
from unilayers.graph.serialize import from_json, to_json
from unilayers.ops.define import bind
from unilayers.recipe import load_recipe

PAGE = Path(__file__).parents[1] / "docs" / "new-backend.md"
STEPS = 20
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
PRIMITIVES = [name for name in NAMES if not OPS[name].composite]


def code_of_page() -> str:
    """The page's Python blocks, without those that show a session."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return "\n".join(block for block in blocks if not block.startswith(">>>"))


@pytest.fixture(scope="module")
def toy() -> Iterator[Backend]:
    """The page's backend, registered while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_loaded", dict(registry._loaded))
        exec(compile(code_of_page(), str(PAGE), "exec"), {"__name__": "toy_engine"})
        yield registry.get_backend("toy")


def test_the_page_is_short() -> None:
    lines = [line for line in code_of_page().splitlines() if line.strip()]
    assert len(lines) < 100 and max(map(len, lines)) <= 120


def test_it_has_primitives_only(toy: Backend) -> None:
    assert toy.table.keys() == set(PRIMITIVES)


@pytest.mark.parametrize("name", NAMES)
def test_every_op_compiled(toy: Backend, name: str) -> None:
    check_graph(OPS[name], from_json(to_json(one_op_graph(OPS[name]))), toy, "compiled on toy")


@pytest.mark.parametrize("name", NAMES)
def test_every_op_at_once(toy: Backend, name: str) -> None:
    """Expansions, too, although the engine's arrays have no operators."""
    for call in all_calls(OPS[name]):
        results = as_tuple(bind(OPS[name], toy.put(call.inputs, "cpu"), dict(call.attrs)))
        arrays = [r if isinstance(r, np.ndarray) else toy.get(r) for r in results]
        check(OPS[name], arrays, call, "eager on toy")


def first_losses(backend: str, dtype: str) -> list[float]:
    recipe = load_recipe("digits-cnn", [f"dtype={dtype}"])
    model, data, losses = recipe.build(), recipe.data(), []

    def keep(batch: int, logs: dict[str, float]) -> None:
        losses.append(logs["batch_loss"])
        model.stop_training = len(losses) == STEPS

    watch = LambdaCallback(on_train_batch_end=keep)
    model.fit(data.x, data.y, batch_size=32, epochs=1, callbacks=[watch], verbose=0, backend=backend)
    assert len(losses) == STEPS and losses[-1] < 0.95 * losses[0]
    return losses


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_it_trains(toy: Backend, dtype: str) -> None:
    found, expected = (np.array(first_losses(name, dtype)) for name in (toy.name, "numpy"))
    assert_close(found, expected, rtol=TOLERANCE[dtype], atol=0, what=f"losses in {dtype}")
