"""Runs that were kept: found, read as far as they can be, drawn over one another, compared.

>>> from unilayers.recipe import load_recipe
>>> result = load_recipe("spirals-mlp", ["fit.epochs=2"]).train("runs/first", verbose=0)
>>> [run.name for run in find_runs("runs")], find_runs("runs")[0].done
(['spirals-mlp'], 2)
>>> compare_states("runs/first", "runs/first").same
True
"""

from unilayers.runs.curves import Curve, curves, draw
from unilayers.runs.difference import (
    Difference,
    HistoryDifference,
    SettingDifference,
    TensorDifference,
    compare_states,
    setting_differences,
)
from unilayers.runs.folder import Best, Run, find_runs, read_run

__all__ = [
    "Best",
    "Curve",
    "Difference",
    "HistoryDifference",
    "Run",
    "SettingDifference",
    "TensorDifference",
    "compare_states",
    "curves",
    "draw",
    "find_runs",
    "read_run",
    "setting_differences",
]
