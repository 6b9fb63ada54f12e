"""What is told while something runs: lines that can be sent to the log instead, and a bar."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from unilayers.callbacks.base import on_one_line
from unilayers.config import is_interactive_logging_enabled


def message(text: str, end: str = "\n") -> None:
    """Print a line, or log it; see `config.disable_interactive_logging`."""
    if is_interactive_logging_enabled():
        sys.stdout.write(text + end)
        sys.stdout.flush()
    else:
        logging.getLogger("unilayers").info(text.strip("\r\n"))


class Progbar:
    """A bar of text for loops of one's own.

    Args:
        target: How many steps there are; None if that is not known.
        width: Of the bar, in characters.
        verbose: 1 bar, 2 one line at the end, 0 nothing.
        interval: Seconds between two looks at the screen.
        stateful_metrics: Names of values that are means already; of the others the mean over the steps is shown.
        stateless_metrics: The contrary: only these are averaged, where it is given.
        unit_name: What a step is called.

    Example:
        >>> bar = Progbar(2, verbose=2)
        >>> bar.update(1, [("loss", 3.0)])
        >>> bar.update(2, [("loss", 1.0)])
        2/2 - loss: 2.0000
    """

    def __init__(
        self,
        target: int | None,
        width: int = 20,
        verbose: int = 1,
        interval: float = 0.05,
        stateful_metrics: Iterable[str] | None = None,
        stateless_metrics: Iterable[str] | None = None,
        unit_name: str = "step",
    ) -> None:
        self.target, self.width, self.verbose, self.interval = target, width, verbose, interval
        self.stateful_metrics, self.unit_name = set(stateful_metrics or ()), unit_name
        self.stateless_metrics = None if stateless_metrics is None else set(stateless_metrics)
        self._sums: dict[str, tuple[float, float]] = {}  # by name, the weighted sum and the weight
        self._seen, self._shown, self._start = 0, -float("inf"), time.perf_counter()

    def update(
        self, current: int, values: Sequence[tuple[str, Any]] | None = None, finalize: bool | None = None
    ) -> None:
        """Say how far things are.

        Args:
            current: Number of the last step done.
            values: Pairs of name and value of the steps since the last call.
            finalize: Whether it was the last; the one at ``target`` is, if None.
        """
        weight = max(current - self._seen, 1)
        for name, value in values or ():
            total, count = self._sums.get(name, (0.0, 0.0))
            averaged = name in self.stateless_metrics if self.stateless_metrics is not None else (
                name not in self.stateful_metrics
            )  # fmt: skip
            self._sums[name] = (total + float(value) * weight, count + weight) if averaged else (float(value), 1.0)
        self._seen = current
        if finalize is None:
            finalize = self.target is not None and current >= self.target
        now = time.perf_counter()
        if self.verbose == 1 and (finalize or now - self._shown >= self.interval):
            self._shown = now
            rate = f"{(now - self._start) / max(current, 1):.3g}s/{self.unit_name}"
            message("\r" + " ".join(filter(None, [self._head(), self._bar(), rate, self._values()])), "\n" * finalize)
        elif self.verbose == 2 and finalize:
            message(" - ".join(filter(None, [self._head(), self._values()])))

    def add(self, n: int, values: Sequence[tuple[str, Any]] | None = None) -> None:
        """``update`` by so many steps more."""
        self.update(self._seen + n, values)

    def _head(self) -> str:
        return f"{self._seen}/{'?' if self.target is None else self.target}"

    def _bar(self) -> str:
        if not self.target:
            return ""
        filled = self.width * min(self._seen, self.target) // self.target
        return "━" * filled + "╌" * (self.width - filled)

    def _values(self) -> str:
        return on_one_line({name: total / count for name, (total, count) in self._sums.items()})
