"""Update rules over all weights at once.

``put`` lays weights and slots one behind the other, and the planner does so with the gradients (``adjacent``). Where
that holds, a whole run of tensors is updated as one long vector, in blocks that stay in cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .contract import KERNELS, Array, Batch, Calls, Kernel, address, blocks, dense, scalar

BLOCK = 1 << 15  # elements: five float32 blocks fit into a second-level cache of 1 MB

Attrs = Mapping[str, Any]
# step(p, g, slots, new_p, new_slots, t, u) says the calls on blocks: the new arrays may be the old ones, t and u are
# free for use.
Step = Callable[[Array, Array, Sequence[Array], Array, Sequence[Array], Array, Array], None]


@dataclass
class Setting:
    """What a rule is made of. ``rate`` and ``part``, what part of the weights decays, are 0-d arrays that are filled
    anew at each run; ``constant(x)`` is a fixed one."""

    xp: Any
    attrs: Attrs
    rate: Array
    part: Array
    constant: Callable[[float], Array]

    def decay(self) -> Callable[[Array, Array, Array], Array]:
        """``f(p, new_p, t)`` gives the decayed weights: in ``new_p``, or p itself where nothing decays."""
        if not self.attrs["weight_decay"]:
            return lambda p, new_p, t: p
        multiply, subtract, part = self.xp.multiply, self.xp.subtract, self.part
        return lambda p, new_p, t: subtract(p, multiply(p, part, t), new_p)


def _rate(attrs: Attrs) -> Callable[..., float]:
    return lambda learning_rate: learning_rate


# ---- the rules: as the ops' expansions, into given memory ---------------------------


def _sgd(use: Setting) -> Step:
    multiply, subtract, add, decayed = use.xp.multiply, use.xp.subtract, use.xp.add, use.decay()
    rate, momentum, nesterov = use.rate, use.constant(use.attrs["momentum"]), use.attrs["nesterov"]

    def step(p: Array, g: Array, old: Any, new_p: Array, new: Any, t: Array, u: Array) -> None:
        p, move = decayed(p, new_p, u), multiply(g, rate, t)
        if old:
            new_m = subtract(multiply(old[0], momentum, new[0]), move, new[0])
            add(p, subtract(multiply(new_m, momentum, u), move, u) if nesterov else new_m, new_p)
        else:
            subtract(p, move, new_p)

    return step


def _rmsprop(use: Setting) -> Step:
    xp, attrs, decayed = use.xp, use.attrs, use.decay()
    multiply, subtract, add, divide, sqrt = xp.multiply, xp.subtract, xp.add, xp.divide, xp.sqrt
    rate, momentum, epsilon = use.rate, use.constant(attrs["momentum"]), use.constant(attrs["epsilon"])
    rho, rest = use.constant(attrs["rho"]), use.constant(1 - attrs["rho"])

    def step(p: Array, g: Array, old: Any, new_p: Array, new: Any, t: Array, u: Array) -> None:
        multiply(multiply(g, g, t), rest, t)
        spread = add(multiply(old[0], rho, new[0]), t, new[0])
        if attrs["centered"]:
            mean = add(multiply(old[-1], rho, new[-1]), multiply(g, rest, t), new[-1])
            spread = subtract(spread, multiply(mean, mean, t), t)
        move = divide(multiply(g, rate, u), sqrt(add(spread, epsilon, t), t), u)
        if attrs["momentum"] > 0:
            move = add(multiply(old[1], momentum, new[1]), move, new[1])
        subtract(decayed(p, new_p, t), move, new_p)

    return step


def _adagrad(use: Setting) -> Step:
    xp, decayed = use.xp, use.decay()
    multiply, subtract, add, divide, sqrt = xp.multiply, xp.subtract, xp.add, xp.divide, xp.sqrt
    rate, epsilon = use.rate, use.constant(use.attrs["epsilon"])

    def step(p: Array, g: Array, old: Any, new_p: Array, new: Any, t: Array, u: Array) -> None:
        total = add(old[0], multiply(g, g, t), new[0])
        move = divide(multiply(g, rate, u), sqrt(add(total, epsilon, t), t), u)
        subtract(decayed(p, new_p, t), move, new_p)

    return step


def _adam(use: Setting) -> Step:
    xp, amsgrad, decayed = use.xp, use.attrs["amsgrad"], use.decay()
    multiply, subtract, add, divide, sqrt = xp.multiply, xp.subtract, xp.add, xp.divide, xp.sqrt
    rest_1, rest_2 = use.constant(1 - use.attrs["beta_1"]), use.constant(1 - use.attrs["beta_2"])
    alpha, epsilon = use.rate, use.constant(use.attrs["epsilon"])

    def step(p: Array, g: Array, old: Any, new_p: Array, new: Any, t: Array, u: Array) -> None:
        m, v = old[0], old[1]
        m = add(m, multiply(subtract(g, m, t), rest_1, t), new[0])
        v = add(v, multiply(subtract(multiply(g, g, t), v, t), rest_2, t), new[1])
        spread = xp.maximum(old[2], v, out=new[2]) if amsgrad else v
        divide(m, add(sqrt(spread, t), epsilon, t), t)
        subtract(decayed(p, new_p, u), multiply(t, alpha, t), new_p)

    return step


def _alpha(attrs: Attrs) -> Callable[..., float]:
    """The rate with the correction of the moments' start at 0; both powers are 0 for a beta of 0."""
    sqrt, expm1 = math.sqrt, math.expm1
    log_1, log_2 = (math.log(attrs[b]) if attrs[b] > 0 else -math.inf for b in ("beta_1", "beta_2"))

    def alpha(learning_rate: float, iteration: float) -> float:
        t = iteration + 1
        return learning_rate * sqrt(-expm1(t * log_2)) / -expm1(t * log_1)

    return alpha


# ---- from a rule to a kernel ----------------------------------------------------------


@dataclass
class Update:
    """An update op.

    Args:
        scalars: Operands before the tensors.
        slots: How many tensors are kept beside each weight, for given attributes.
        rate: ``rate(attrs)(*scalars)`` is the step size of a run.
        rule: What is done to a block.
    """

    scalars: int
    slots: Callable[[Attrs], int]
    rate: Callable[[Attrs], Callable[..., float]]
    rule: Callable[[Setting], Step]

    def kernel(self, name: str) -> Kernel:
        def build(do: Calls, *arrays: Array, count: int, **attrs: Any) -> None:
            scalars, tensors = arrays[: self.scalars], [dense(do, a) for a in arrays[self.scalars :]]
            groups = list(zip(*(tensors[i : i + count] for i in range(0, len(tensors), count)), strict=True))
            for dtype in dict.fromkeys(p.dtype for p in tensors[:count]):
                mine = [group for group in groups if group[0].dtype == dtype and group[0].size]
                if mine:
                    self._update(do, name, scalars, mine, attrs)

        def overwrites(operands: int, attrs: Attrs) -> Iterator[tuple[int, int]]:
            count = attrs["count"]
            kept = [i for i in range(operands) if not 0 <= i - self.scalars - count < count]
            return enumerate(kept[self.scalars :])

        def adjacent(operands: int, attrs: Attrs) -> Iterable[int]:
            first = self.scalars + attrs["count"]
            return range(first, first + attrs["count"])

        return Kernel(build, overwrites, adjacent)

    def _update(self, do: Calls, name: str, scalars: Sequence[Array], groups: list[Any], attrs: Attrs) -> None:
        """Tensors of one dtype."""
        dtype, slots, rate_of, decay = groups[0][0].dtype, self.slots(attrs), self.rate(attrs), attrs["weight_decay"]
        rate, decayed = (do.workspace((), dtype) for _ in range(2))
        size = min(BLOCK, sum(group[0].size for group in groups))
        t, u = (do.workspace((size,), dtype) for _ in range(2))
        each = Batch(do)
        step = self.rule(Setting(Said(each), attrs, rate, decayed, lambda value: scalar(do, value, dtype)))

        def begin(rate: Array, decayed: Array, *given: Array) -> None:
            numbers = [x.item() for x in given]
            rate[()] = rate_of(*numbers)
            if decay:
                decayed[()] = numbers[0] * decay

        begin.__name__ = f"begin_{name}"
        do(begin, rate, decayed, *scalars)
        for run in runs(do.xp, groups):
            for p, g, *rest in blocks(size, run, (t, u)):
                step(p, g, rest[:slots], rest[slots], rest[slots + 1 : -2], *rest[-2:])
        each.run()


class Said:
    """An array module whose functions are said to a listener. Each gives the array that its result will be in."""

    def __init__(self, do: Calls) -> None:
        self._do = do

    def __getattr__(self, name: str) -> Callable[..., Array]:
        function = getattr(self._do.xp, name)

        def say(*args: Array, **kwargs: Array) -> Array:
            self._do(function, *args, **kwargs)
            return kwargs.get("out", args[-1])

        return say


def runs(xp: Any, groups: Sequence[tuple[Array, ...]]) -> Iterator[list[Array]]:
    """Vectors over as many groups of arrays as lie one behind the other in memory, each array with its namesakes."""
    start = 0
    for i in range(1, len(groups) + 1):
        if i == len(groups) or not all(_follows(a, b) for a, b in zip(groups[i - 1], groups[i], strict=True)):
            size = sum(group[0].size for group in groups[start:i])
            yield [_vector(xp, a, size) for a in groups[start]]
            start = i


def _follows(a: Array, b: Array) -> bool:
    return address(a) + a.nbytes == address(b)


def _vector(xp: Any, first: Array, size: int) -> Array:
    """The memory from an array on as a vector."""
    flat = first.reshape(-1)
    return flat if flat.size == size else xp.lib.stride_tricks.as_strided(flat, (size,), flat.strides)


UPDATES = {
    "sgd_update": Update(1, lambda attrs: int(attrs["momentum"] != 0), _rate, _sgd),
    "rmsprop_update": Update(
        1, lambda attrs: 1 + int(attrs["momentum"] > 0) + int(attrs["centered"]), _rate, _rmsprop
    ),
    "adagrad_update": Update(1, lambda attrs: 1, _rate, _adagrad),
    "adam_update": Update(2, lambda attrs: 2 + int(attrs["amsgrad"]), _alpha, _adam),
}  # fmt: skip
KERNELS.update({name: update.kernel(name) for name, update in UPDATES.items()})
