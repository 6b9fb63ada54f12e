"""Mixed precision under the names that Keras keeps for older scripts; see `dtype_policies` and `config`."""

from unilayers.config import dtype_policy, set_dtype_policy
from unilayers.dtype_policies import DTypePolicy
from unilayers.optimizers import LossScaleOptimizer

Policy = DTypePolicy
global_policy, set_global_policy = dtype_policy, set_dtype_policy

__all__ = [
    "DTypePolicy",
    "LossScaleOptimizer",
    "Policy",
    "dtype_policy",
    "global_policy",
    "set_dtype_policy",
    "set_global_policy",
]
