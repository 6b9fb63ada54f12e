"""Rules that join actions into those that only oneDNN has: see ``fuse``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from unilayers.backends.numpy.action import Action

from unilayers.spec import Spec

from .contract import is_real
from .library import Unsupported
from .windows import Pooling

if TYPE_CHECKING:
    from unilayers.backends.numpy.fuse import Rule, Scene


def _gate_pooled(scene: Scene, action: Action) -> None:
    """The gate of a relu before a maximum pooling: what is passed on goes to where the maximum was, so it can be cut
    off where that was not positive, before it is spread."""
    if action.op != "relu_gate":
        return
    kept, spread = action.inputs
    pool = scene.maker(spread, "max_pool_grad")
    if pool is not None and pool.inputs[1] is kept and scene.private(spread, action):
        g, _, y = pool.inputs
        gated = scene.plan.new_value(Spec(g.shape, g.dtype))
        scene.replace([pool, action], "max_pool_grad", (gated, kept, y), action.outputs, **pool.attrs)
        scene.replace([], "relu_gate", (y, g), (gated,))


def _note_places(scene: Scene, action: Action) -> None:
    """Maximum pooling and its gradient: the one notes the places for the other."""
    if action.op != "max_pool_grad":
        return
    g, x, y = action.inputs
    pool, library = scene.maker(y, "max_pool"), scene.plan.library
    if library is None or pool is None or pool.inputs[0] is not x or pool.attrs != action.attrs or not 3 <= x.ndim <= 5:
        return
    sketches = [scene.plan.sketch[v] for v in (g, x, y)]
    if not all(map(is_real, sketches)):
        return
    try:
        size = Pooling(library, np.empty(x.shape, "float32"), sketches[2], **pool.attrs, trained=True).places
    except Unsupported:
        return
    places = scene.plan.new_value(Spec((size,), "uint8"))
    scene.replace([pool, action], "max_pool_places", (x,), (y, places), **pool.attrs, relu=False)
    scene.replace([], "max_pool_grad_places", (g, places), action.outputs, **pool.attrs)


def _relu_behind_pool(scene: Scene, action: Action) -> None:
    """A relu between a convolution and a maximum pooling: done behind that, where there is less of it."""
    if action.op != "max_pool_places" or action.attrs["relu"]:
        return
    conv = scene.maker(action.inputs[0], "conv_bias")
    if conv is not None and conv.attrs["relu"] and scene.private(action.inputs[0], action):
        scene.replace([conv], "conv_bias", conv.inputs, conv.outputs, **{**conv.attrs, "relu": False})
        scene.replace([action], action.op, action.inputs, action.outputs, **{**action.attrs, "relu": True})


def _sigmoids(scene: Scene, action: Action) -> None:
    """``1 / (exp(min(-x, bound)) + 1)`` in one pass."""
    if action.op != "reciprocal" or not is_real(scene.plan.sketch[action.outputs[0]]):
        return
    chain, value = [action], action.inputs[0]
    for op, wanted in (("add", 1.0), ("exp", None), ("minimum", 88.0), ("negative", None)):
        maker = scene.maker(value, op)
        if maker is None or not scene.private(value, chain[-1]):
            return
        chain.append(maker)
        operands = [v for v in maker.inputs if scene.constant(v) is None]
        numbers = [float(n) for v in maker.inputs for n in [scene.constant(v)] if n is not None]
        if len(operands) != 1 or operands[0].shape != value.shape or numbers != ([] if wanted is None else [wanted]):
            return
        value = operands[0]
    scene.replace(chain, "sigmoid", (value,), action.outputs)


RULES: list[Rule] = [_sigmoids, _gate_pooled, _note_places, _relu_behind_pool]
