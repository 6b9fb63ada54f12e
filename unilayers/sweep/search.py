"""Where to look next, by what was found: Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from unilayers.errors import UnilayersError
from unilayers.sweep.space import Axis, Point, Range, Space

TRIES = 20  # for a point that was not tried yet


def require_optuna() -> Any:
    """The package, or a ``UnilayersError`` that says how to get it."""
    try:
        import optuna
    except ModuleNotFoundError:
        fix = "Install it with: pip install 'unilayers[search]'; or draw at random with --random N"
        raise UnilayersError("a search needs the package 'optuna'", where="sweep", fix=fix) from None
    return optuna


def suggest(
    space: Space,
    finished: Sequence[tuple[Point, float | None]],
    running: Sequence[Point],
    larger: bool,
    seed: Sequence[int],
) -> Point:
    """The point to try next; the same one for the same arguments.

    Args:
        space: Where to look.
        finished: Points with their scores; None for those that have none.
        running: Points whose scores are not known yet.
        larger: Whether larger scores are better.
        seed: Numbers for the generator.

    Raises:
        UnilayersError: if Optuna is not installed.

    Reference: Bergstra, Bardenet, Bengio, Kégl, Algorithms for Hyper-Parameter Optimization, 2011.
    """
    optuna = require_optuna()
    ways = {axis.path: _distribution(optuna, axis) for axis in space.axes if axis.varies}
    known = {json.dumps(point) for point in (*running, *(point for point, _ in finished))}
    for again in range(TRIES):
        number = int(np.random.SeedSequence([*seed, again]).generate_state(1)[0])
        point = _asked(optuna, space, ways, finished, running, larger, number)
        if json.dumps(point) not in known:
            return point
    return next(point for point in space.draws(seed) if json.dumps(point) not in known)


def _asked(
    optuna: Any, space: Space, ways: Any, finished: Any, running: Sequence[Point], larger: bool, seed: int
) -> Point:
    states, before = optuna.trial.TrialState, optuna.logging.get_verbosity()
    made = [(point, states.FAIL if score is None else states.COMPLETE, score) for point, score in finished]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar counts as experimental
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True)
            study = optuna.create_study(direction="maximize" if larger else "minimize", sampler=sampler)
            for point, state, score in [*made, *((point, states.RUNNING, None) for point in running)]:
                params = {axis.path: _as_asked(axis, point[axis.path]) for axis in space.axes if axis.varies}
                told = {"params": params, "distributions": ways, "state": state, "value": score}
                study.add_trial(optuna.trial.create_trial(**told))
            found = study.ask(ways).params
    finally:
        optuna.logging.set_verbosity(before)
    return {axis.path: _as_tried(axis, found.get(axis.path, 0)) for axis in space.axes}


def _distribution(optuna: Any, axis: Axis) -> Any:
    """Of a range its own; of values their numbers, as they need be nothing that Optuna knows."""
    kinds = optuna.distributions
    if isinstance(axis.values, Range):
        kind = kinds.IntDistribution if axis.values.whole else kinds.FloatDistribution
        return kind(axis.values.low, axis.values.high, log=axis.values.log)
    if _ordered(axis.values):
        return kinds.IntDistribution(0, len(axis.values) - 1)
    return kinds.CategoricalDistribution(range(len(axis.values)))


def _ordered(values: Sequence[Any]) -> bool:
    """Whether neighbours among the values are like one another: numbers that rise or fall."""
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    return numbers and list(values) in (sorted(values), sorted(values, reverse=True))


def _as_asked(axis: Axis, value: Any) -> Any:
    return value if isinstance(axis.values, Range) else list(axis.values).index(value)


def _as_tried(axis: Axis, found: Any) -> Any:
    return axis.values.rounded(found) if isinstance(axis.values, Range) else axis.values[found]
