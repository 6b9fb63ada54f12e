"""What a sweep tries: paths in a recipe with values or ranges, and the points that they span."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from unilayers.errors import RecipeError, UnilayersError
from unilayers.recipe.document import read_value

Point: TypeAlias = dict[str, Any]  # a value for each path
BACKEND = "backend"  # the path whose values may name a device, too: torch:cuda
MOST = 10_000  # trials
_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})")


@dataclass(frozen=True)
class Range:
    """Numbers to be drawn, whole ones if both ends are.

    Args:
        low: The least.
        high: The largest.
        log: Whether their logarithms are evenly spread, not they themselves.
    """

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{'log:' * self.log}{self.low}..{self.high}"

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, rng: np.random.Generator) -> float:
        """One of the numbers."""
        if self.whole and not self.log:
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        low, high = self.low - 0.5 * self.whole, self.high + 0.5 * self.whole  # each whole number has its room
        x = math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else rng.uniform(low, high)
        return self.rounded(min(max(x, self.low), self.high))

    def rounded(self, x: float) -> float:
        """A number as it is tried and shown: whole, or with six digits."""
        return round(x) if self.whole else min(max(float(f"{x:.6g}"), self.low), self.high)


@dataclass(frozen=True)
class Axis:
    """One path in the recipe, and what it is set to.

    Args:
        path: As in ``--set``.
        values: The values, or a range to draw from.

    Raises:
        RecipeError: for a value that stands twice.
    """

    path: str
    values: Sequence[Any] | Range

    def __post_init__(self) -> None:
        written = [json.dumps(value) for value in self.listed]
        for value in written:
            if written.count(value) > 1:
                raise RecipeError("a value that stands twice", where=f"sweep: {self.path}", received=value)

    @property
    def listed(self) -> Sequence[Any]:
        """The values; none of a range."""
        return () if isinstance(self.values, Range) else self.values

    @property
    def varies(self) -> bool:
        """Whether there is more than one value."""
        return isinstance(self.values, Range) or len(self.listed) > 1

    def draw(self, rng: np.random.Generator) -> Any:
        """One of the values."""
        if isinstance(self.values, Range):
            return self.values.draw(rng)
        return self.values[int(rng.integers(len(self.values)))]

    def plain(self) -> Any:
        """The values as JSON has them."""
        return str(self.values) if isinstance(self.values, Range) else list(self.values)


def parse_axis(text: str) -> Axis:
    """The path and the values in ``path=values``, as the command line takes them.

    The values are the items of a YAML list without its brackets: a comma between them, but none within brackets,
    braces or quotes. ``1..5`` stands for 1, 2, 3, 4, 5; ``0.1..0.5`` for numbers to be drawn between these, ``log:`` in
    front of a range for numbers whose logarithms are evenly spread.

    Raises:
        RecipeError: for a text that is none, values that stand twice, ranges that are none.

    Example:
        >>> parse_axis("seed=1..3,7").values, parse_axis("model[1].Conv2D.kernel_size=[3, 3],[5, 5]").values
        ((1, 2, 3, 7), ([3, 3], [5, 5]))
        >>> parse_axis("optimizer.Adam.learning_rate=log:1e-4..1e-1").values
        Range(low=0.0001, high=0.1, log=True)
    """
    where = f"--set {text}"
    path, equals, right = text.partition("=")
    if not equals or not path.strip():
        expected = "path=values, as in optimizer.Adam.learning_rate=0.01,0.001 or seed=1..5"
        raise RecipeError("no values to try", where=where, expected=expected)
    items = read_value(f"[{right}]", where) or [None]
    found: list[Any] = []
    for item in items:
        match = _RANGE.fullmatch(item) if isinstance(item, str) else None
        if match is None:
            found.append(item)
            continue
        log, (low, high) = bool(match[1]), (float(x) if set(x) & set(".eE") else int(x) for x in match.groups()[1:])
        if not low < high or (log and low <= 0):
            expected = "the least before the largest" + ", both more than 0" * log
            raise RecipeError("a range without numbers", where=where, expected=expected, received=item)
        drawn = Range(low, high, log)
        if drawn.whole and not log and high - low < MOST:
            found += range(int(low), int(high) + 1)
        elif len(items) == 1:
            return Axis(path.strip(), drawn)
        else:
            raise RecipeError("a range to draw from beside other values", where=where, received=item)
    return Axis(path.strip(), tuple(found))


class Space:
    """All points that a sweep may try.

    Args:
        axes: The paths with their values; of each path one axis.

    Raises:
        UnilayersError: if a path has several axes, or none has more than one value.

    Example:
        >>> space = Space([parse_axis("seed=1..2"), parse_axis("fit.batch_size=16,32")])
        >>> space.size, next(space.grid())
        (4, {'seed': 1, 'fit.batch_size': 16})
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.axes = list(axes)
        paths = [axis.path for axis in axes]
        for path in paths:
            if paths.count(path) > 1:
                fix = f"Put all its values into one: --set {path}=1,2"
                raise UnilayersError(f"{path!r} is given {paths.count(path)} times", where="sweep", fix=fix)
        if not self.varied:
            fix = "Name several, as in --set seed=1..5 or -b numpy -b torch"
            raise UnilayersError("nothing to try, there is one value of each", where="sweep", fix=fix)

    @property
    def varied(self) -> list[str]:
        """The paths with more than one value."""
        return [axis.path for axis in self.axes if axis.varies]

    @property
    def ranges(self) -> list[Axis]:
        """The axes whose numbers are drawn."""
        return [axis for axis in self.axes if isinstance(axis.values, Range)]

    @property
    def size(self) -> float:
        """The number of points; infinite if there are ranges."""
        return math.inf if self.ranges else math.prod(len(axis.listed) for axis in self.axes)

    def grid(self) -> Iterator[Point]:
        """All points, the last axis fastest.

        Raises:
            UnilayersError: if there are ranges, or far too many points.
        """
        if self.ranges:
            received = ", ".join(f"{axis.path}={axis.values}" for axis in self.ranges)
            fix = "List the values, or draw from the range with --random N or --search N"
            raise UnilayersError("a range has no grid", where="sweep", received=received, fix=fix)
        if self.size > MOST:
            fix = "Draw some of them with --random N or --search N"
            raise UnilayersError(
                "too many trials", where="sweep", expected=f"up to {MOST:,}", received=f"{self.size:,}", fix=fix
            )
        for values in product(*(axis.listed for axis in self.axes)):
            yield dict(zip((axis.path for axis in self.axes), values, strict=True))

    def draws(self, seed: Sequence[int]) -> Iterator[Point]:
        """Points at random, none twice; the same ones for the same seed."""
        rng, seen = np.random.default_rng(list(seed)), set[str]()
        while len(seen) < self.size:
            point = {axis.path: axis.draw(rng) for axis in self.axes}
            if (key := json.dumps(point)) not in seen:
                seen.add(key)
                yield point

    def require(self, count: int) -> None:
        """Raise a ``UnilayersError`` unless there are so many points."""
        if not 1 <= count <= min(self.size, MOST):
            expected = f"from 1 to {min(self.size, MOST):,} trials"
            fix = "Leave --random and --search out to try them all" if count > self.size else ""
            problem = "no such number of trials"
            raise UnilayersError(problem, where="sweep", expected=expected, received=str(count), fix=fix)


def overrides(point: Mapping[str, Any]) -> list[str]:
    """A point as overrides of a recipe.

    Example:
        >>> overrides({"backend": "torch:cuda:1", "fit.batch_size": 16})
        ['backend="torch"', 'device="cuda:1"', 'fit.batch_size=16']
    """
    found = []
    for path, value in point.items():
        if path == BACKEND and isinstance(value, str) and ":" in value:
            name, _, device = value.partition(":")
            found += [f"{path}={json.dumps(name)}", f"device={json.dumps(device)}"]
        elif isinstance(value, float) and not math.isfinite(value):
            found.append(f"{path}={'.nan' if math.isnan(value) else '.inf' if value > 0 else '-.inf'}")
        else:
            found.append(f"{path}={json.dumps(value)}")
    return found


def shown(value: Any) -> str:
    """A value in a table.

    Example:
        >>> shown(0.00031), shown([3, 3]), shown("relu"), shown(None)
        ('0.00031', '[3, 3]', 'relu', 'null')
    """
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)
