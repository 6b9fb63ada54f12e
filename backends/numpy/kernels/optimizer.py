"""Update rules over all weights at once.

``put`` lays weights and slots one behind the other, and the planner does so with the gradients (``adjacent``). Where
that holds, a whole run of tensors is updated as one long vector, in blocks that stay in cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .contract import KERNELS, Array, Calls, Kernel, address, dense, scalar

BLOCK = 1 << 14  # elements: half a dozen float32 blocks fit into a core's second-level cache

Attrs = Mapping[str, Any]
# step(p, g, slots, new_p, new_slots, t, u) on blocks: the new arrays may be the old ones, t and u are free for use.
Step = Callable[[Array, Array, Sequence[Array], Array, Sequence[Array], Array, Array], None]


@dataclass
class Setting:
    """What a rule is made of: ``numbers`` are 0-d arrays, filled anew at each run; ``constant(x)`` is a fixed one."""

    xp: Any
    attrs: Attrs
    numbers: Sequence[Array]
    constant: Callable[[float], Array]

    def decay(self) -> Callable[[Array, Array, Array], Array]:
        """``f(p, new_p, t)`` gives the decayed weights: in ``new_p``, or p itself where nothing decays."""
        if not self.attrs["weight_decay"]:
            return lambda p, new_p, t: p
        multiply, subtract, part = self.xp.multiply, self.xp.subtract, self.numbers[1]
        return lambda p, new_p, t: subtract(p, multiply(p, part, t), new_p)


def _rate_and_decay(attrs: Attrs, learning_rate: float) -> tuple[float, float]:
    return learning_rate, learning_rate * attrs["weight_decay"]


# ---- the rules: as the ops' expansions, into given memory ---------------------------


def _sgd(use: Setting) -> Step:
    multiply, subtract, add, decayed = use.xp.multiply, use.xp.subtract, use.xp.add, use.decay()
    rate, momentum, nesterov = use.numbers[0], use.constant(use.attrs["momentum"]), use.attrs["nesterov"]

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
    rate, momentum, epsilon = use.numbers[0], use.constant(attrs["momentum"]), use.constant(attrs["epsilon"])
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
    rate, epsilon = use.numbers[0], use.constant(use.attrs["epsilon"])

    def step(p: Array, g: Array, old: Any, new_p: Array, new: Any, t: Array, u: Array) -> None:
        total = add(old[0], multiply(g, g, t), new[0])
        move = divide(multiply(g, rate, u), sqrt(add(total, epsilon, t), t), u)
        subtract(decayed(p, new_p, t), move, new_p)

    return step


def _adam(use: Setting) -> Step:
    xp, amsgrad, decayed = use.xp, use.attrs["amsgrad"], use.decay()
    multiply, subtract, add, divide, sqrt = xp.multiply, xp.subtract, xp.add, xp.divide, xp.sqrt
    rest_1, rest_2 = use.constant(1 - use.attrs["beta_1"]), use.constant(1 - use.attrs["beta_2"])
    alpha, epsilon = use.numbers[0], use.constant(use.attrs["epsilon"])

    def step(p: Array, g: Array, old: Any, new_p: Array, new: Any, t: Array, u: Array) -> None:
        m, v = old[0], old[1]
        m = add(m, multiply(subtract(g, m, t), rest_1, t), new[0])
        v = add(v, multiply(subtract(multiply(g, g, t), v, t), rest_2, t), new[1])
        spread = xp.maximum(old[2], v, out=new[2]) if amsgrad else v
        divide(m, add(sqrt(spread, t), epsilon, t), t)
        subtract(decayed(p, new_p, u), multiply(t, alpha, t), new_p)

    return step


def _alpha_and_decay(attrs: Attrs, learning_rate: float, iteration: float) -> tuple[float, float]:
    def one_minus_power(beta: float) -> float:
        return -math.expm1((iteration + 1) * math.log(beta)) if beta > 0 else 1.0

    scale = math.sqrt(one_minus_power(attrs["beta_2"])) / one_minus_power(attrs["beta_1"])
    return learning_rate * scale, learning_rate * attrs["weight_decay"]


# ---- from a rule to a kernel ----------------------------------------------------------


@dataclass
class Update:
    """An update op: operands before the tensors, slots for given attributes, numbers of a step, and its rule."""

    scalars: int
    slots: Callable[[Attrs], int]
    numbers: Callable[..., tuple[float, ...]]
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
            return enumerate(kept[self.scalars :])  # type: ignore[return-value]

        def adjacent(operands: int, attrs: Attrs) -> Iterable[int]:
            first = self.scalars + attrs["count"]
            return range(first, first + attrs["count"])

        return Kernel(build, overwrites, adjacent)

    def _update(self, do: Calls, name: str, scalars: Sequence[Array], groups: list[Any], attrs: Attrs) -> None:
        """Tensors of one dtype."""
        dtype, slots, numbers = groups[0][0].dtype, self.slots(attrs), self.numbers
        boxes = [do.workspace((), dtype) for _ in range(2)]
        size = min(BLOCK, sum(group[0].size for group in groups))
        t, u = (do.workspace((size,), dtype) for _ in range(2))
        step = self.rule(Setting(do.xp, attrs, boxes, lambda value: scalar(do, value, dtype)))
        blocks = []
        for run in runs(do.xp, groups):
            for i in range(0, run[0].size, size):
                p, g, *rest = (a[i : i + size] for a in run)
                blocks.append((p, g, rest[:slots], rest[slots], rest[slots + 1 :], t[: p.size], u[: p.size]))

        def update(*given: Array) -> None:
            for box, value in zip(boxes, numbers(attrs, *map(float, given)), strict=True):
                box[()] = value
            for block in blocks:
                step(*block)

        update.__name__ = name
        do(update, *scalars)


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


KERNELS.update(
    sgd_update=Update(1, lambda attrs: int(attrs["momentum"] != 0), _rate_and_decay, _sgd).kernel("sgd_update"),
    rmsprop_update=Update(
        1, lambda attrs: 1 + int(attrs["momentum"] > 0) + int(attrs["centered"]), _rate_and_decay, _rmsprop
    ).kernel("rmsprop_update"),
    adagrad_update=Update(1, lambda attrs: 1, _rate_and_decay, _adagrad).kernel("adagrad_update"),
    adam_update=Update(2, lambda attrs: 2 + int(attrs["amsgrad"]), _alpha_and_decay, _adam).kernel("adam_update"),
)
