"""One recipe trained on several engines, each in a process of its own, and what is the same and what is not.

>>> comparison = compare("digits-mlp", ["numpy", "numpy"], steps=3, in_process=True)
>>> [record.name for record in comparison.records], comparison.differences["numpy-2"]["loss"].largest
(['numpy', 'numpy-2'], 0.0)
"""

from unilayers.compare.comparison import Comparison
from unilayers.compare.differences import Difference, difference
from unilayers.compare.record import Record, read_record
from unilayers.compare.run import compare
from unilayers.compare.trace import Traced

__all__ = ["Comparison", "Difference", "Record", "Traced", "compare", "difference", "read_record"]
