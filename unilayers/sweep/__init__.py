"""One recipe trained with many settings: a grid, at random, or by a search; and which of them is the best.

>>> found = sweep("spirals-mlp", ["optimizer.Adam.learning_rate=0.005,0.0005", "fit.epochs=3"], in_process=True)
>>> [trial.state for trial in found.trials], found.best.values["optimizer.Adam.learning_rate"]
(['done', 'done'], 0.005)
"""

from unilayers.sweep.run import sweep
from unilayers.sweep.space import Axis, Range, Space, parse_axis
from unilayers.sweep.trial import Sweep, Trial

__all__ = ["Axis", "Range", "Space", "Sweep", "Trial", "parse_axis", "sweep"]
