"""What the user has chosen for graphs that are compiled from then on."""

from contextvars import ContextVar

DETERMINISTIC: ContextVar[bool] = ContextVar("deterministic", default=False)
