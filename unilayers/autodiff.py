"""Reverse-mode differentiation: one accumulation loop over recorded ops, for graphs and for eager tapes alike.

The rules stand in the op records and are written in ops, so gradients can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unilayers import ops
from unilayers.errors import GraphError, UnilayersError
from unilayers.graph import Op, Value, tracing
from unilayers.graph.record import OPS
from unilayers.ops.define import TAPES, Box, Place
from unilayers.spec import is_float


@dataclass
class Step:
    """One op that ran or was recorded: what the backward loop needs to know."""

    op: Op
    inputs: Sequence[Any]
    attrs: dict[str, Any]
    outputs: Sequence[Any]
    multiple: bool


def backward(steps: Iterable[Step], grads: dict[Hashable, Any], key: Callable[[Any], Hashable]) -> None:
    """Walk ``steps`` (last first) and fill ``grads`` with the gradient of every value on the way, by ``key(value)``."""
    for step in steps:
        g = [grads.get(key(y)) for y in step.outputs]
        if all(x is None for x in g):
            continue
        y = tuple(step.outputs)
        given = _pullback(step, tuple(g) if step.multiple else g[0], y if step.multiple else y[0])
        for x, gx in zip(step.inputs, given, strict=True):
            k = key(x)
            if gx is None or k is None:
                continue
            gx = unbroadcast(gx, ops.shape_of(x))
            grads[k] = ops.add(grads[k], gx) if grads.get(k) is not None else gx


def _pullback(step: Step, g: Any, y: Any) -> Sequence[Any]:
    if step.op.vjp is not None:
        return tuple(step.op.vjp(g, y, *step.inputs, **step.attrs))
    if step.op.expand is None:
        raise GraphError(f"op {step.op.name!r} has no gradient")
    # A composite without a rule: differentiate its expansion. Only symbolic steps come here; a tape sees the parts.
    inner = step.op.expand(*step.inputs, **step.attrs)
    outputs = list(inner) if step.multiple else [inner]
    wanted = [x for x in step.inputs if is_float(x.dtype)]
    found = iter(gradients(outputs, wanted, list(g) if step.multiple else [g]))
    return [next(found) if is_float(x.dtype) else None for x in step.inputs]


def unbroadcast(g: Any, shape: Sequence[Any]) -> Any:
    """Sum a gradient over the axes along which its value was stretched."""
    have = ops.shape_of(g)
    if tuple(have) == tuple(shape):
        return g
    extra = len(have) - len(shape)
    stretched = [a + extra for a, d in enumerate(shape) if d == 1 and have[a + extra] != 1]
    g = ops.sum(g, (*range(extra), *stretched), keepdims=True)
    return ops.reshape(g, tuple(shape))


# ---- graphs -----------------------------------------------------------------


def gradients(ys: Value | Sequence[Value], xs: Sequence[Value], grad_ys: Sequence[Any] | None = None) -> list[Value]:
    """Gradients of the sum of ``ys`` with respect to symbolic values ``xs``, as further nodes of the same graph.

    Args:
        ys: One value or several; floats.
        xs: The values to differentiate by.
        grad_ys: What flows into each y instead of ones; None entries count as no gradient.

    Returns:
        One value per x, of x's shape and dtype; zeros where y does not depend on x.
    """
    ys = [ys] if isinstance(ys, Value) else list(ys)
    with tracing():
        seeds = list(grad_ys) if grad_ys is not None else [ops.ones_like(y) for y in ys]
        grads: dict[Hashable, Any] = {}
        for y, g in zip(ys, seeds, strict=True):
            if g is not None:
                grads[y] = ops.add(grads[y], g) if y in grads else g
        path = _between(ys, set(xs))
        steps = (Step(OPS[n.op], n.inputs, dict(n.attrs), n.outputs, n.multiple) for n in path)
        needed = {v for n in path for v in n.outputs} | set(xs)
        backward(steps, grads, lambda v: v if v in needed else None)
        return [grads[x] if grads.get(x) is not None else ops.zeros_like(x) for x in xs]


def _between(ys: Sequence[Value], xs: set[Value]) -> list[Any]:
    """The nodes through which some y depends on some x, last first; xs are not looked behind."""
    depends: dict[Any, bool] = {}
    stack = [y.node for y in ys if y not in xs]
    while stack:
        node = stack[-1]
        if node in depends:
            stack.pop()
            continue
        unseen = [v.node for v in node.inputs if v not in xs and v.node not in depends]
        if unseen:
            stack.extend(unseen)
            continue
        depends[stack.pop()] = any(v in xs or depends[v.node] for v in node.inputs)
    return sorted((n for n, d in depends.items() if d), key=lambda n: -n.serial)


# ---- eager ------------------------------------------------------------------


class GradientTape:
    """Records the ops that run inside its ``with`` block, and differentiates them.

    Trainable variables are watched by themselves; ``watch`` an array to differentiate by it, and compute with what
    ``watch`` returns.

    Args:
        persistent: Whether ``gradient`` may be asked more than once; otherwise the record is freed by the first call.

    Example:
        >>> import numpy as np
        >>> with GradientTape() as tape:
        ...     x = tape.watch(np.array([1.0, 2.0]))
        ...     y = ops.sum(x * x)
        >>> tape.gradient(y, x)
        array([2., 4.])
    """

    def __init__(self, persistent: bool = False) -> None:
        self.persistent = persistent
        self._steps: list[Step] | None = []
        self._watched: set[int] = set()  # serial numbers

    def __enter__(self) -> GradientTape:
        self._token = TAPES.set((*TAPES.get(), self))
        return self

    def __exit__(self, *exc: object) -> None:
        TAPES.reset(self._token)

    def watch(self, x: Any) -> Any:
        """The array as a value whose use is recorded."""
        box = x if isinstance(x, Box) else Box(x)
        self._keep(box)
        return box

    def _keep(self, box: Box) -> None:
        self._watched.add(box.serial)

    def watches(self, box: Box) -> bool:
        if box.serial in self._watched:
            return True
        if box.source is not None and box.source.trainable:
            self._keep(box)
            return True
        return False

    def record(
        self, op: Op, inputs: Sequence[Any], watched: tuple[bool, ...], attrs: dict[str, Any],
        outputs: Sequence[Box], multiple: bool, place: Place,
    ) -> None:  # fmt: skip
        if self._steps is not None:
            self._steps.append(Step(op, inputs, attrs, outputs, multiple))
            for y in outputs:
                self._keep(y)

    def gradient(self, target: Any, sources: Any, output_gradients: Any = None) -> Any:
        """Gradient of the sum of ``target`` by each source: arrays of the sources' backend, None where unconnected.

        Args:
            target: A value computed inside the block.
            sources: A watched value or a variable, or a list of them.
            output_gradients: What flows into ``target`` instead of ones.
        """
        if self._steps is None:
            raise UnilayersError(
                "the tape was used up by an earlier gradient call", fix="Use GradientTape(persistent=True)"
            )
        many = isinstance(sources, (list, tuple))
        wanted = list(sources) if many else [sources]
        steps = self._steps
        if not self.persistent:
            self._steps = None
        grads: dict[Hashable, Any] = {}
        if isinstance(target, Box):
            # Boxed, so that operators in the rules are ops, too.
            flow = output_gradients if output_gradients is not None else ops.ones_like(target.array)
            grads[target.serial] = flow if isinstance(flow, Box) else Box(flow)
        # Outer tapes record this computation, so that it can be differentiated again; this tape must not.
        outer = tuple(t for t in TAPES.get() if t is not self)
        token = TAPES.set(outer)
        try:
            backward(
                reversed(steps), grads, lambda v: v.serial if isinstance(v, Box) and v.serial in self._watched else None
            )
        finally:
            TAPES.reset(token)
        found = [self._of(grads, s) for s in wanted]
        return found if many else found[0]

    def _of(self, grads: dict[Hashable, Any], source: Any) -> Any:
        total = grads.get(getattr(source, "serial", None))
        return total.array if isinstance(total, Box) and not TAPES.get() else total


def grad(function: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The gradient of a scalar function of arrays, as a function of the same arguments.

    Args:
        function: Written with ops or operators; returns one value.
        argnums: Which positional arguments to differentiate by.

    Example:
        >>> import numpy as np
        >>> grad(lambda x: ops.sum(x**3))(np.array([1.0, 2.0]))
        array([ 3., 12.])
    """

    def derivative(*args: Any, **kwargs: Any) -> Any:
        return value_and_grad(function, argnums)(*args, **kwargs)[1]

    return derivative


def value_and_grad(function: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The value of a function together with its gradient; see ``grad``."""
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def both(*args: Any, **kwargs: Any) -> Any:
        with GradientTape() as tape:
            # A fresh box each: the same array passed twice has two gradients.
            watched = [
                tape.watch(ops.identity(a) if isinstance(a, Box) else a) if i in positions else a
                for i, a in enumerate(args)
            ]
            y = function(*watched, **kwargs)
        found = tape.gradient(y, [watched[i] for i in positions])
        found = [ops.zeros_like(args[i]) if g is None else g for i, g in zip(positions, found, strict=True)]
        value = y.array if isinstance(y, Box) and not TAPES.get() else y
        return value, found[0] if isinstance(argnums, int) else tuple(found)

    return both
