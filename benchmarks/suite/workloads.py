"""What is run: sizes, initial weights and batches, which are the same for every contestant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unilayers.networks import RESNET, residual_blocks

BATCHES = 8  # different ones, taken in turn
HEADS = 2  # of the transformer
NORM = 1e-5, 1e-6  # epsilon of batch and of layer normalization
ADAM = 1e-12  # epsilon, which frameworks add at different places: so small that this makes no difference
DROPOUT = {"convnet": 0.5, "transformer": 0.1}
Weights = dict[str, list[np.ndarray]]


@dataclass(frozen=True)
class Workload:
    """A network of some sizes and what is done with it.

    Args:
        name: As ``--only`` takes it.
        kind: What network it is: ``dense``, ``convnet``, ``resnet``, ``bottleneck``, ``lstm``, ``gru`` or
            ``transformer``.
        sizes: Widths, in the network's own order, see ``weights``.
        batch: Samples in a batch.
        shape: Of a sample.
        rate: Learning rate.
        optimizer: ``sgd``, ``momentum`` or ``adam``; None: only the forward pass is run, from NumPy to NumPy.
        title: What a reader is told.
        steps: Steps in an epoch of ``fit``.
        checked: Steps whose losses are compared at the start.
        tolerance: How far, relatively, these may be from those of the contestant compared with.
    """

    name: str
    kind: str
    sizes: tuple[int, ...]
    batch: int
    shape: tuple[int, ...]
    rate: float
    optimizer: str | None
    title: str
    steps: int = 100
    checked: int = 6
    tolerance: float = 3e-4

    @property
    def training(self) -> bool:
        return self.optimizer is not None

    @property
    def regression(self) -> bool:
        """Whether the loss is the mean squared error, else the cross-entropy of classes."""
        return self.name == "W1"

    @property
    def dropout(self) -> float:
        return DROPOUT.get(self.kind, 0.0) if self.training else 0.0


def _inference(of: Workload, batch: int) -> Workload:
    title = f"inference, batch {batch}: {of.title.partition(', batch')[0]}"
    return replace(of, name=f"{of.name}i{batch}", batch=batch, optimizer=None, title=title, tolerance=1e-4)


_W2 = Workload("W2", "dense", (784, 512, 512, 10), 128, (784,), 1e-3, "adam", "MLP 784-512-512-10, batch 128, Adam")
_W3 = Workload(
    "W3", "convnet", (32, 64, 10), 128, (28, 28, 1), 1e-3, "adam", "convnet 28x28, batch 128, Adam", steps=25
)
_W4 = Workload(
    "W4", "resnet", (64, 128, 256, 512, 10), 32, (32, 32, 3), 0.01, "momentum",
    "ResNet-18 for 32x32, batch 32, SGD with momentum", steps=6, checked=3, tolerance=3e-3,
)  # fmt: skip
_W5 = Workload("W5", "lstm", (128, 10), 64, (64, 32), 1e-3, "adam", "LSTM(128), 64 steps, batch 64, Adam", steps=25)
_ALL = (
    Workload("W1", "dense", (1000, 100, 1000), 64, (1000,), 10.0, "sgd", "1000-100-1000 without bias, batch 64, SGD"),
    _W2,
    _W3,
    _W4,
    _W5,
    replace(_W5, name="W5g", kind="gru", title="GRU(128), 64 steps, batch 64, Adam"),
    Workload(
        "W6", "transformer", (20000, 32, 32, 32, 20, 2), 32, (200,), 1e-3, "adam",
        "transformer block on texts of 200 tokens, batch 32, Adam", steps=25,
    ),
    Workload("W7", "dense", (64, 32, 10), 32, (64,), 1e-3, "adam", "MLP 64-32-10, batch 32, Adam", steps=250),
    *(_inference(w, batch) for w in (_W2, _W3, _W4) for batch in (1, w.batch)),
)  # fmt: skip
WORKLOADS = {w.name: w for w in _ALL}
RESNET_50 = Workload(  # for devices: on a CPU a step takes seconds
    "R50", "bottleneck", (64, 128, 256, 512, 1000), 64, (224, 224, 3), 0.01, "momentum",
    "ResNet-50 for 224x224, batch 64, SGD with momentum", steps=6, checked=2, tolerance=1e-2,
)  # fmt: skip


def short(w: Workload) -> Workload:
    """The same in a size that says nothing about speed, to see whether it works."""
    sizes = {
        "dense": tuple(min(s, 12) for s in w.sizes),
        "convnet": (3, 4, 10),
        "resnet": (4, 4, 8, 8, 10),
        "bottleneck": (4, 4, 8, 8, 10),
        "lstm": (6, 10),
        "gru": (6, 10),
        "transformer": (30, 8, 4, 6, 5, 2),
    }[w.kind]
    shape = {
        "dense": (12,), "convnet": (12, 12, 1), "resnet": (16, 16, 3), "bottleneck": (64, 64, 3), "lstm": (5, 4),
        "gru": (5, 4), "transformer": (7,),
    }[w.kind]  # fmt: skip
    return replace(w, sizes=sizes, shape=shape, batch=min(w.batch, 6), steps=3)


# ---- weights ------------------------------------------------------------------------------------------------


def weights(w: Workload) -> Weights:
    """Initial weights by layer, in the order and the layout of ``layer.get_weights()``.

    Sizes are, of ``dense``, the widths from the input on; of ``convnet``, the filters and classes; of ``resnet``, the
    filters of the four stages and the classes (of ``bottleneck``, the narrow ones); of ``lstm`` and ``gru``, the units
    and classes; of ``transformer``, words, width, width of a head, width of the inner layer, width of the head's hidden
    layer, classes.
    """
    rng = np.random.default_rng(0)

    def kernel(*shape: int, inputs: int | None = None) -> np.ndarray:
        limit = math.sqrt(6 / ((inputs or math.prod(shape[:-1])) + shape[-1]))
        return rng.uniform(-limit, limit, shape).astype("float32")

    def bias(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.01, shape).astype("float32")

    def norm(width: int, moving: bool = False) -> list[np.ndarray]:
        found = [1 + bias(width), bias(width)]
        return [*found, 10 * bias(width), 1 + 10 * np.abs(bias(width))] if moving else found

    if w.kind == "dense":
        pairs = enumerate(zip(w.sizes[:-1], w.sizes[1:], strict=True))
        return {f"dense{i}": [kernel(a, b)] if w.regression else [kernel(a, b), bias(b)] for i, (a, b) in pairs}
    if w.kind == "convnet":
        first, second, classes = w.sizes
        size = ((w.shape[0] - 2) // 2 - 2) // 2
        return {
            "conv1": [kernel(3, 3, w.shape[-1], first), bias(first)],
            "conv2": [kernel(3, 3, first, second), bias(second)],
            "dense": [kernel(size * size * second, classes), bias(classes)],
        }
    if w.kind == "resnet":
        found: Weights = {"conv0": [kernel(3, 3, w.shape[-1], w.sizes[0])], "norm0": norm(w.sizes[0], True)}
        for name, inputs, filters, stride in blocks(w):
            found |= {f"{name}_conv1": [kernel(3, 3, inputs, filters)], f"{name}_norm1": norm(filters, True)}
            found |= {f"{name}_conv2": [kernel(3, 3, filters, filters)], f"{name}_norm2": norm(filters, True)}
            if stride > 1 or inputs != filters:
                found |= {f"{name}_conv3": [kernel(1, 1, inputs, filters)], f"{name}_norm3": norm(filters, True)}
        return found | {"dense": [kernel(w.sizes[3], w.sizes[4]), bias(w.sizes[4])]}
    if w.kind == "bottleneck":
        found = {"conv0": [kernel(7, 7, w.shape[-1], w.sizes[0])], "norm0": norm(w.sizes[0], True)}
        for name, before, narrow, stride in bottlenecks(w):
            convs = [(1, before, narrow), (3, narrow, narrow), (1, narrow, 4 * narrow), (1, before, 4 * narrow)]
            count = 4 if stride > 1 or before != 4 * narrow else 3
            for i, (size, inputs, filters) in enumerate(convs[:count], 1):
                found |= {
                    f"{name}_conv{i}": [kernel(size, size, inputs, filters)],
                    f"{name}_norm{i}": norm(filters, True),
                }
        return found | {"dense": [kernel(4 * w.sizes[3], w.sizes[4]), bias(w.sizes[4])]}
    if w.kind in ("lstm", "gru"):
        units, classes = w.sizes
        gates = 4 if w.kind == "lstm" else 3
        biases = bias(gates * units) if w.kind == "lstm" else bias(2, gates * units)
        cells = [kernel(w.shape[-1], gates * units), kernel(units, gates * units), biases]
        return {"cells": cells, "dense": [kernel(units, classes), bias(classes)]}
    words, width, head, inner, hidden, classes = w.sizes
    attention: list[np.ndarray] = []
    for _ in range(3):
        attention += kernel(width, HEADS, head, inputs=width), bias(HEADS, head)
    return {
        "embed": [rng.uniform(-0.05, 0.05, (n, width)).astype("float32") for n in (words, w.shape[0])],
        "attention": [*attention, kernel(HEADS, head, width), bias(width)],
        "norm1": norm(width),
        "inner1": [kernel(width, inner), bias(inner)],
        "inner2": [kernel(inner, width), bias(width)],
        "norm2": norm(width),
        "dense1": [kernel(width, hidden), bias(hidden)],
        "dense2": [kernel(hidden, classes), bias(classes)],
    }


def blocks(w: Workload) -> list[tuple[str, int, int, int]]:
    """The residual blocks: name, filters before, filters, stride."""
    return list(residual_blocks(RESNET[18], w.sizes[:4]))


def bottlenecks(w: Workload) -> list[tuple[str, int, int, int]]:
    """The residual blocks of ResNet-50: name, filters before, narrow filters, stride."""
    found, before = [], w.sizes[0]
    for stage, (narrow, count) in enumerate(zip(w.sizes[:4], (3, 4, 6, 3), strict=True)):
        for i in range(count):
            found.append((f"block{len(found)}", before, narrow, 2 if stage and not i else 1))
            before = 4 * narrow
    return found


# ---- data ---------------------------------------------------------------------------------------------------


def batches(w: Workload) -> list[tuple[Any, ...]]:
    """Batches ``(x, y)``; ``(x,)`` where nothing is trained. Images have their channels last."""
    rng, found = np.random.default_rng(1), list[tuple[Any, ...]]()
    for _ in range(BATCHES):
        if w.kind == "transformer":
            x = rng.integers(0, w.sizes[0], (w.batch, *w.shape)).astype("int32")
        else:
            x = rng.random((w.batch, *w.shape), dtype=np.float32)
        if w.regression:
            y = rng.random((w.batch, w.sizes[-1]), dtype=np.float32)
        else:
            y = rng.integers(0, w.sizes[-1], w.batch).astype("int32")
        found.append((x, y) if w.training else (x,))
    return found


def epoch(w: Workload) -> Sequence[np.ndarray]:
    """The batches over and over, as the arrays of an epoch of ``fit``."""
    data = batches(w)
    return [np.concatenate([data[i % BATCHES][part] for i in range(w.steps)]) for part in range(len(data[0]))]
