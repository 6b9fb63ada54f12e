"""Sequences; see `unilayers.utils`."""

from unilayers.utils.arrays import pad_sequences

__all__ = ["pad_sequences"]
