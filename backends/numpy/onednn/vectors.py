"""Passes over whole vectors: update rules, sigmoid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from unilayers.backends.numpy.kernels import optimizer
from unilayers.backends.numpy.kernels.contract import Array, Calls, address, dense

from .contract import DST, INFERENCE, OTHER, OWN, SRC, accelerated, run
from .library import After, Layout, Library

ADD, MULTIPLY = 131056, 131057  # dnnl_binary_add, ...
ROOT, LINEAR, LOGISTIC, POWER = 37, 38, 41, 48  # dnnl_eltwise_sqrt, ...
NUMBER = Layout((1,), (1,))


# ---- sigmoid --------------------------------------------------------------------------------


def _sigmoid(library: Library, do: Calls, x: Array, y: Array) -> None:
    """In one pass, which takes vectors only."""
    whole = Layout((y.size,), (1,))
    if not x.flags.c_contiguous:
        do(np.copyto, y, x)
        x = y
    primitive = library.primitive("eltwise_forward", INFERENCE, LOGISTIC, whole, whole, 0.0, 0.0, After())
    run(do, primitive, {SRC: x, DST: y})


OWN["sigmoid"] = _sigmoid


# ---- update rules ---------------------------------------------------------------------------


class _Vectors:
    """Calls on whole vectors: ``x * y`` or ``x + y``, then further steps.

    A pass over all weights costs less than NumPy's many short ones in cache.
    """

    def __init__(self, library: Library, do: Calls) -> None:
        self._library, self._do = library, do

    def say(
        self, kind: int, x: Array, y: Array, result: Array, *steps: Any, beside: dict[int, Array] | None = None
    ) -> None:
        """One pass; ``beside`` has the further arrays by the numbers of the steps that take them."""
        layouts = [Layout((a.size,), (1,)) for a in (x, y, result)]
        arrays = {SRC: x, OTHER: y, DST: result} | {After.beside(i): a for i, a in (beside or {}).items()}
        run(self._do, self._library.primitive("binary", kind, *layouts, After(steps)), arrays)

    def number(self, value: float) -> Array:
        """A constant as a vector of one element."""
        return self._do.constant(("vector", value), lambda: np.full(1, value, "float32"))


def _update(
    library: Library, do: Calls, name: str, arrays: Any, count: int, attrs: Any, say: Callable[..., None]
) -> bool:
    """All weights, in as few vectors as they lie in: ``say(vectors, p, g, slots, minus_rate)`` updates one in place."""
    how = optimizer.UPDATES[name]
    scalars, tensors = arrays[: how.scalars], [dense(do, a) for a in arrays[how.scalars :]]
    groups = list(zip(*(tensors[i : i + count] for i in range(0, len(tensors), count)), strict=True))
    minus_rate, kept = (do.workspace((1,), "float32") for _ in range(2))
    rate_of, decay, vectors = how.rate(attrs), attrs["weight_decay"], _Vectors(library, do)

    def rates(minus_rate: Array, kept: Array, *given: Array) -> None:
        numbers = [float(x) for x in given]
        minus_rate[0], kept[0] = -rate_of(*numbers), 1 - numbers[0] * (decay or 0)

    do(rates, minus_rate, kept, *scalars)
    for p, g, *rest in optimizer.runs(do.xp, groups):
        old, new = (p, *rest[: len(rest) // 2]), rest[len(rest) // 2 :]
        for a, b in zip(old, new, strict=True):
            if address(a) != address(b):
                do(np.copyto, b, a)
        if decay:
            vectors.say(MULTIPLY, new[0], kept, new[0])
        say(vectors, new[0], g, new[1:], minus_rate)
    return True


@accelerated("adam_update")
def adam_update(library: Library, do: Calls, *arrays: Array, count: int, **attrs: Any) -> bool:
    if attrs["amsgrad"]:
        return False
    beta_1, beta_2, epsilon = attrs["beta_1"], attrs["beta_2"], attrs["epsilon"]

    def say(vectors: _Vectors, p: Array, g: Array, slots: Any, minus_rate: Array) -> None:
        m, v = slots
        whole = Layout((p.size,), (1,))
        vectors.say(MULTIPLY, g, vectors.number(1 - beta_1), m, ("sum", beta_1))
        vectors.say(MULTIPLY, g, g, v, ("eltwise", LINEAR, 1 - beta_2, 0.0), ("sum", beta_2))
        vectors.say(
            MULTIPLY, v, vectors.number(1.0), p, ("eltwise", ROOT, 0.0, 0.0), ("eltwise", LINEAR, 1.0, epsilon),
            ("eltwise", POWER, 1.0, -1.0), ("binary", MULTIPLY, whole), ("binary", MULTIPLY, NUMBER), ("sum", 1.0),
            beside={3: m, 4: minus_rate},
        )  # fmt: skip

    return _update(library, do, "adam_update", arrays, count, attrs, say)


@accelerated("sgd_update")
def sgd_update(library: Library, do: Calls, *arrays: Array, count: int, **attrs: Any) -> bool:
    if attrs["nesterov"]:
        return False

    def say(vectors: _Vectors, p: Array, g: Array, slots: Any, minus_rate: Array) -> None:
        if slots:
            vectors.say(MULTIPLY, g, minus_rate, slots[0], ("sum", attrs["momentum"]))
            vectors.say(ADD, p, slots[0], p)
        else:
            vectors.say(MULTIPLY, g, minus_rate, p, ("sum", 1.0))

    return _update(library, do, "sgd_update", arrays, count, attrs, say)
