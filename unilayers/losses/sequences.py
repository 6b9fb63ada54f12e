"""Sequences of labels without places."""

from __future__ import annotations

from typing import Any

from unilayers import ops
from unilayers.losses.base import SampleLoss
from unilayers.losses.shapes import cast, floats


def ctc(y_true: Any, y_pred: Any) -> Any:
    """Connectionist temporal classification: -log of the probability that frames of logits spell the labels.

    See `ops.ctc_loss`, which also takes lengths, for the computation and for labels that the frames are too few for.

    Args:
        y_true: Labels from 1, ``(batch, labels)``, filled up with zeros.
        y_pred: Logits, ``(batch, frames, classes)``; class 0 is the blank.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    labels = cast(y_true, "int32")
    lengths = ops.sum(ops.astype(ops.not_equal(labels, 0), "int32"), axis=-1)
    return ops.ctc_loss(labels, floats(y_pred), lengths)


class CTC(SampleLoss):
    """Connectionist temporal classification: -log of the probability that frames of logits spell a sequence of labels.

    Labels, ``(batch, labels)``, count from 1 and are filled up with zeros; predictions are logits, ``(batch, frames,
    classes)``, of which class 0 is the blank. Labels that the frames are too few for cost infinity and have the
    gradient 0; see `ops.ctc_loss`.

    Reference:
        Graves, Fernandez, Gomez, Schmidhuber, Connectionist Temporal Classification, 2006.

    Example:
        >>> import numpy as np
        >>> round(float(CTC()(np.array([[1, 0]]), np.zeros((1, 2, 2)))), 4)  # three of four ways spell "1"
        0.2877
    """

    function = staticmethod(ctc)
    integer_labels = True
