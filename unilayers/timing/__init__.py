"""Where the time of a training step goes, layer by layer, and how engines and devices do on well-known networks.

>>> [found] = time_recipe("digits-mlp", ["numpy"], seconds=0.1, in_process=True)
>>> [row.name for row in found.rows]
['dense', 'dropout', 'dense_1', 'dense_2', '[loss]', '[optimizer]', '[metrics]']
"""

from unilayers.timing.engines import Bench, Result, bench
from unilayers.timing.layers import Part, Row, Timing, time_layers, time_recipe

__all__ = ["Bench", "Part", "Result", "Row", "Timing", "bench", "time_layers", "time_recipe"]
