"""The errors unilayers raises: one small hierarchy, one message form.

Every message reads ``<where>: <what is wrong>. Expected <rule>. Received <fact>. <likely fix>.``
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnilayersError(ValueError):
    """Base of all errors that a user's input can cause.

    Args:
        problem: What is wrong, without a full stop.
        where: The place: a layer, an op, a file and line, a recipe's dotted path.
        expected: The rule that was broken.
        received: What was found instead.
        fix: One likely remedy, or the nearest valid name.

    Example:
        >>> print(UnilayersError("unknown layer 'Dence'", where="model[0]", fix="Did you mean 'Dense'?"))
        model[0]: unknown layer 'Dence'. Did you mean 'Dense'?
    """

    def __init__(self, problem: str, *, where: str = "", expected: str = "", received: str = "", fix: str = "") -> None:
        self.problem, self.where, self.expected, self.received, self.fix = problem, where, expected, received, fix
        super().__init__(problem)

    def __str__(self) -> str:
        parts = [self.problem]
        if self.expected:
            parts.append(f"Expected {self.expected}")
        if self.received:
            parts.append(f"Received {self.received}")
        if self.fix:
            parts.append(self.fix)
        text = " ".join(part if part.endswith((".", "?", "!")) else part + "." for part in parts)
        return f"{self.where}: {text}" if self.where else text

    def inside(self, place: str) -> UnilayersError:
        """Add an outer place in front of ``where``, as the error travels up through layers and models."""
        self.where = f"{place} > {self.where}" if self.where else place
        return self


class ShapeError(UnilayersError):
    """Shapes that do not fit an op, a layer or a model."""


class DTypeError(UnilayersError):
    """A dtype that an op, a layer or a backend cannot take."""


class GraphError(UnilayersError):
    """A graph that breaks an invariant, or a saved graph that cannot be read."""


class BackendError(UnilayersError):
    """A backend or device that is unknown, not installed, or lacks an op."""


class DataError(UnilayersError):
    """Data that cannot be used: wrong shape, NaN, labels out of range, unreadable files."""


class RecipeError(UnilayersError):
    """A recipe that does not validate; ``where`` holds file, line and dotted path."""


class NonFiniteError(UnilayersError, RuntimeError):
    """Training that has come to NaN or infinity."""


class CheckpointError(UnilayersError):
    """A checkpoint that is damaged, of a newer version, or of another model."""


class OutOfMemoryError(UnilayersError, MemoryError):
    """A device without room for what a step needs."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A did-you-mean sentence for ``name``, or the list of valid names when none is near.

    Example:
        >>> nearest("Dence", ["Dense", "Dropout"])
        "Did you mean 'Dense'?"
    """
    names = sorted(valid)
    lowered = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {lowered[close[0]]!r}?"
    return f"Valid names: {', '.join(names)}"
