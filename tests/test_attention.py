"""Attention layers against Keras: outputs, weights, gradients, masks; the same on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.autodiff import GradientTape
from unilayers.errors import ShapeError, UnilayersError
from unilayers.layers import attention
from unilayers.structure import leaves_of, map_structure

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
Q, V, K = (RNG.normal(size=s).astype("float32") for s in ((2, 5, 8), (2, 7, 6), (2, 7, 4)))
WIDE = RNG.normal(size=(2, 3, 4, 8)).astype("float32")
SEEN = RNG.random((2, 5, 7)) > 0.3
SEEN[..., 0] = True
STEPS = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
HEADS, GROUPS = {"num_heads": 3, "key_dim": 4}, {"head_dim": 4, "num_query_heads": 4, "num_key_value_heads": 2}

CASES: list[tuple[str, dict[str, Any], tuple[Any, ...], dict[str, Any]]] = [
    ("MultiHeadAttention", HEADS, (Q, V), {}),
    ("MultiHeadAttention", {**HEADS, "value_dim": 5, "output_shape": 9}, (Q, V, K),
     {"attention_mask": SEEN, "return_attention_scores": True}),
    ("MultiHeadAttention", {**HEADS, "use_bias": False}, (Q, Q), {"use_causal_mask": True}),
    ("MultiHeadAttention", {**HEADS, "use_gate": True}, (Q, Q),
     {"use_causal_mask": True, "attention_mask": SEEN[..., :5]}),
    ("MultiHeadAttention", {**HEADS, "sliding_window": 2}, (Q, Q), {"use_causal_mask": True}),
    ("MultiHeadAttention", HEADS, (WIDE, WIDE), {"return_attention_scores": True}),
    ("MultiHeadAttention", {**HEADS, "attention_axes": (2,)}, (WIDE, WIDE), {}),
    ("MultiHeadAttention", HEADS, (Q, Q), {"value_mask": STEPS, "key_mask": STEPS}),
    ("GroupQueryAttention", GROUPS, (Q, V), {}),
    ("GroupQueryAttention", {**GROUPS, "use_gate": True}, (Q, V), {"attention_mask": SEEN}),
    ("Attention", {"use_scale": True}, ([Q, Q],), {}),
    ("Attention", {"score_mode": "concat", "use_scale": True}, ([Q, Q],),
     {"use_causal_mask": True, "return_attention_scores": True}),
    ("Attention", {}, ([Q, Q, Q * 2],), {"mask": [STEPS, STEPS]}),
    ("AdditiveAttention", {}, ([Q, Q],), {}),
    ("AdditiveAttention", {"use_scale": False}, ([Q, Q],), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kwargs", "inputs", "call"), CASES)
def test_equals_keras(name: str, kwargs: dict[str, Any], inputs: tuple[Any, ...], call: dict[str, Any]) -> None:
    ours, theirs = getattr(attention, name)(**kwargs), getattr(keras.layers, name)(**kwargs)
    ours(*inputs, **call), theirs(*inputs, **call)
    weights = [RNG.normal(size=w.shape).astype("float32") * 0.5 for w in theirs.get_weights()]
    ours.set_weights(weights), theirs.set_weights(weights)
    tensors = map_structure(lambda x: torch.tensor(x, requires_grad=True), inputs)
    expected = leaves_of(theirs(*tensors, **call))
    sum((v * v).sum() for v in expected).backward()
    by_keras = [*expected, *(w.value.grad for w in theirs.trainable_weights), *(x.grad for x in leaves_of(tensors))]
    with GradientTape() as tape:
        watched = map_structure(tape.watch, inputs)
        found = leaves_of(ours(*watched, **call))
        total = sum((ops.sum(v * v) for v in found), start=0.0)
    grads = tape.gradient(total, [*ours.trainable_weights, *leaves_of(watched)])
    scale = max(float(e.detach().abs().max()) for e in by_keras)  # some gradients are 0 but for rounding
    for i, (a, e) in enumerate(zip([*found, *grads], by_keras, strict=True)):
        assert_close(np.asarray(ops.to_numpy(a)), e.detach().numpy(), rtol=1e-4, atol=1e-5 * scale, what=f"result {i}")
    again = type(ours).from_config(ours.get_config())
    again(*inputs, **call)
    assert [w.shape for w in again.weights] == [w.shape for w in ours.weights]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_transformer_block_trains_as_in_keras(backend: str) -> None:
    """With masks of padding, from the embedding to the pooled answer."""
    require_backend(backend)
    rng = np.random.default_rng(1)
    ids = rng.integers(1, 9, (8, 6)).astype("int32")
    ids[:4, 4:] = 0
    y = rng.integers(0, 2, 8).astype("int32")

    def build(module: Any, heads: Any) -> Any:
        inputs = module.Input((6,), dtype="int32")
        x = module.layers.Embedding(9, 8, mask_zero=True)(inputs)
        z = heads(num_heads=2, key_dim=4)(x, x)
        x = module.layers.LayerNormalization()(module.layers.Add()([x, z]))
        x = module.layers.Dense(2)(module.layers.GlobalAveragePooling1D()(x))
        return module.Model(inputs, x)

    ours = build(ul, attention.MultiHeadAttention)
    theirs = build(keras, keras.layers.MultiHeadAttention)
    ours.set_weights(theirs.get_weights())
    losses = []
    for model, module, place in ((ours, ul, {"backend": backend}), (theirs, keras, {})):
        loss = module.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=module.optimizers.SGD(0.1), loss=loss)
        losses.append(model.fit(ids, y, epochs=3, batch_size=4, shuffle=False, verbose=0, **place).history["loss"])
    assert_close(*map(np.array, losses), rtol=2e-5, atol=0, what="losses")


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "numpy"])
def test_dropped_weights_are_equal_everywhere(backend: str) -> None:
    require_backend(backend)

    def losses(name: str) -> np.ndarray:
        inputs = ul.Input((5, 8))
        model = ul.Model(inputs, attention.MultiHeadAttention(2, 3, dropout=0.4)(inputs, inputs), seed=4)
        model.compile("sgd", "mse")
        return np.array(model.fit(Q, Q, epochs=4, verbose=0, backend=name).history["loss"])

    assert_close(losses(backend), losses("numpy"), rtol=1e-5, atol=0, what="losses")


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"Expected \[query, value\]"):
        attention.Attention()(Q)
    with pytest.raises(UnilayersError, match="query heads cannot be shared out evenly"):
        attention.GroupQueryAttention(4, 3, 2)
