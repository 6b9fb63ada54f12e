"""Every op by name. On symbolic values a call records a node; on arrays it runs at once on the arrays' own backend.

Names follow the Python array API standard. Values are positional, attributes are keywords.
"""

# ruff: noqa: F401, F403
from unilayers.config import floatx
from unilayers.graph import OPS, Value, constant

from unilayers.ops.define import Box, dtype_of, shape_of, to_numpy  # isort: skip
from unilayers.ops.activation import *
from unilayers.ops.attention import *
from unilayers.ops.control import *
from unilayers.ops.conv import *
from unilayers.ops.create import *
from unilayers.ops.decompositions import *
from unilayers.ops.elementwise import *
from unilayers.ops.index import *
from unilayers.ops.linalg import *
from unilayers.ops.losses import *
from unilayers.ops.neural import *
from unilayers.ops.norm import *
from unilayers.ops.optimizer import *
from unilayers.ops.pool import *
from unilayers.ops.random import *
from unilayers.ops.rearranging import *
from unilayers.ops.recurrent import *
from unilayers.ops.reduce import *
from unilayers.ops.shape import *
from unilayers.ops.signal import *
from unilayers.ops.sorting import *
from unilayers.ops.special import *
from unilayers.ops.statistics import *

from unilayers.ops.more import *  # isort: skip  (its names shape and norm take the place of the modules)
from unilayers.ops import image, linalg, nn, numpy  # isort: skip  (namespaces)
