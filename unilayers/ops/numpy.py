"""``ops`` under the name that Keras gives to those of NumPy: ``ops.numpy.sum`` is ``ops.sum``."""

from __future__ import annotations

from unilayers.ops.define import namespace

__getattr__, __dir__ = namespace(__name__)
