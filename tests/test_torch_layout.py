"""PyTorch: kernels of convolutions lie in memory as aten reads them, from the first step on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import require_backend
from unilayers import layers

RNG = np.random.default_rng(0)
X = RNG.random((12, 8, 8, 3)).astype("float32")
Y = RNG.integers(0, 4, 12)


def new_model(optimizer: Any) -> Any:
    model = ul.Sequential(
        [
            ul.Input((8, 8, 3)),
            layers.Conv2D(6, 3, kernel_regularizer="l2"),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2DTranspose(4, 3, strides=2),
            layers.Conv2D(8, (2, 3), strides=(2, 1), groups=2),
            layers.Flatten(),
            layers.Dense(4),
        ],
        seed=1,
    )
    model.compile(optimizer, ul.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def laid(variable: Any) -> bool:
    return variable.store.arrays[variable.index].permute(3, 0, 1, 2).is_contiguous()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", {"Adam": {"clipnorm": 0.5, "amsgrad": True}}])
def test_training_is_that_of_numpy_with_kernels_laid_for_aten(optimizer: Any) -> None:
    require_backend("torch")
    found, wanted = new_model(optimizer), new_model(optimizer)
    told = {"epochs": 3, "batch_size": 5, "verbose": 0}
    losses = found.fit(X, Y, backend="torch", **told).history["loss"]
    assert losses == pytest.approx(wanted.fit(X, Y, backend="numpy", **told).history["loss"], rel=1e-5)
    kernels = [v for v in found.weights if len(v.shape) == 4]
    assert len(kernels) == 4 and all(map(laid, kernels))
    for mine, theirs in zip(found.get_weights(), wanted.get_weights(), strict=True):
        assert_close(np.ascontiguousarray(mine), theirs, rtol=1e-3, atol=1e-5, what="weight")


def test_the_slots_of_fused_optimizers_lie_like_their_kernels() -> None:
    require_backend("torch")
    model = new_model("adam")
    model.fit(X, Y, backend="torch", verbose=0)
    slots = [v for v in model.optimizer.variables if len(v.shape) == 4]
    assert len(slots) == 8 and all(map(laid, slots))
    before = [v.store.arrays[v.index].data_ptr() for v in (*slots, *model.weights)]
    model.fit(X, Y, backend="torch", epochs=2, verbose=0)  # written in place from then on
    assert [v.store.arrays[v.index].data_ptr() for v in (*slots, *model.weights)] == before


def test_a_checkpoint_of_kernels_so_laid_is_an_ordinary_one(tmp_path: Any) -> None:
    require_backend("torch")
    model = new_model("adam")
    model.fit(X, Y, backend="torch", verbose=0)
    model.save(tmp_path / "m.safetensors")
    again = ul.load_model(tmp_path / "m.safetensors")
    assert_close(again.predict(X, backend="numpy"), model.predict(X), rtol=1e-4, atol=1e-5, what="predict")
    told = {"epochs": 2, "batch_size": 5, "verbose": 0}
    there = again.fit(X, Y, backend="numpy", **told).history["loss"]
    assert there == pytest.approx(model.fit(X, Y, backend="torch", **told).history["loss"], rel=1e-5)
