"""Objects that look on while a model trains: Keras's hooks, and the common callbacks."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

HOOKS = (
    "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_train_batch_begin", "on_train_batch_end",
    "on_test_begin", "on_test_end", "on_test_batch_begin", "on_test_batch_end",
    "on_predict_begin", "on_predict_end", "on_predict_batch_begin", "on_predict_batch_end",
)  # fmt: skip


class Callback:
    """Base class: override the hooks you need. ``self.model`` and ``self.params`` are set before training.

    ``on_train_batch_end(batch, logs)``: ``logs`` is read from the device only when you index it; ``loss`` and metrics
    are running means of the epoch, ``batch_loss`` is this batch's loss.
    """

    model: Any = None
    params: Mapping[str, Any] = {}

    def set_model(self, model: Any) -> None:
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        self.params = params

    def on_train_begin(self, logs: Any = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Any = None) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Before an epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """After an epoch and its validation; ``logs`` has all values."""

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a training step (Keras's short name)."""

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a training step (Keras's short name)."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a training step."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a training step."""
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        """Before an evaluation."""

    def on_test_end(self, logs: Any = None) -> None:
        """After an evaluation."""

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a step of an evaluation."""

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a step of an evaluation."""

    def on_predict_begin(self, logs: Any = None) -> None:
        """Before a prediction."""

    def on_predict_end(self, logs: Any = None) -> None:
        """After a prediction."""

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a step of a prediction."""

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a step of a prediction."""


class CallbackList:
    """Several callbacks as one; hooks that nobody overrides cost nothing."""

    def __init__(self, callbacks: Sequence[Callback], model: Any, params: Mapping[str, Any]) -> None:
        self._hooks: dict[str, list[Callable[..., None]]] = {name: [] for name in HOOKS}
        for callback in callbacks:
            callback.set_model(model)
            callback.set_params(params)
            for name in HOOKS:
                if _overrides(type(callback), name):
                    self._hooks[name].append(getattr(callback, name))

    def call(self, hook: str, *args: Any) -> None:
        """Call one hook of every callback that has it."""
        for function in self._hooks[hook]:
            function(*args)

    batch_end = call


def _overrides(cls: type, hook: str) -> bool:
    short = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}.get(hook, hook)
    return any(getattr(cls, name) is not getattr(Callback, name) for name in (hook, short))


class History(Callback):
    """Keeps the values of every epoch in ``history`` (name to list) and the epoch numbers in ``epoch``."""

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class LambdaCallback(Callback):
    """A callback from functions: ``LambdaCallback(on_epoch_end=lambda epoch, logs: ...)``."""

    def __init__(self, **hooks: Callable[..., None]) -> None:
        from unilayers.errors import UnilayersError, nearest

        self._given = hooks
        for name in hooks:
            if name not in HOOKS:
                raise UnilayersError(f"unknown hook {name!r}", where="LambdaCallback", fix=nearest(name, HOOKS))

        def forward(name: str) -> Callable[..., None]:
            return lambda self, *args: self._given[name](*args)

        # A class of its own, so that only the given hooks count as overridden.
        self.__class__ = type("LambdaCallback", (LambdaCallback,), {name: forward(name) for name in hooks})


class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of each epoch.

    Args:
        schedule: ``schedule(epoch, learning_rate) -> learning_rate``, or of the epoch alone.
    """

    def __init__(self, schedule: Callable[..., float]) -> None:
        self.schedule = schedule

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        now = float(self.model.optimizer.learning_rate)
        try:
            value = self.schedule(epoch, now)
        except TypeError:
            value = self.schedule(epoch)
        self.model.optimizer.learning_rate = float(value)


class TerminateOnNaN(Callback):
    """Stops training when the loss of a batch is NaN or infinite."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["batch_loss"]):
            print(f"Batch {batch}: loss is {logs['batch_loss']}, training stops.")
            self.model.stop_training = True


class _Monitor(Callback):
    """Shared by callbacks that compare one value over the epochs."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        from unilayers.errors import UnilayersError

        if mode not in ("auto", "min", "max"):
            raise UnilayersError(
                "unknown mode", where=type(self).__name__, expected="auto, min or max", received=repr(mode)
            )
        self.monitor = monitor
        larger = mode == "max" or (
            mode == "auto" and any(word in monitor for word in ("acc", "auc", "precision", "recall"))
        )
        self._sign = -1.0 if larger else 1.0
        self.min_delta = abs(min_delta)
        self.best: float | None = None

    def value(self, logs: Mapping[str, float]) -> float:
        from unilayers.errors import UnilayersError, nearest

        if self.monitor not in logs:
            raise UnilayersError(
                f"nothing called {self.monitor!r} to monitor",
                where=type(self).__name__,
                fix=nearest(self.monitor, logs),
            )
        return logs[self.monitor]

    def improved(self, value: float) -> bool:
        """Whether ``value`` is better than the best so far; then it becomes the best."""
        if self.best is None or self._sign * value < self._sign * self.best - self.min_delta:
            self.best = value
            return True
        return False


class EarlyStopping(_Monitor):
    """Stops when a value has not improved for ``patience`` epochs.

    Args:
        monitor: Name of the value.
        min_delta: Smaller changes do not count.
        patience: Epochs to wait.
        mode: ``min``, ``max``, or ``auto`` by the name.
        baseline: Value to beat at first.
        restore_best_weights: Whether to go back to the weights of the best epoch.
        start_from_epoch: Epochs before watching begins.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.baseline = patience, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch

    def on_train_begin(self, logs: Any = None) -> None:
        self.best, self.wait, self.stopped_epoch, self._weights = self.baseline, 0, 0, None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch < self.start_from_epoch:
            return
        if self.improved(self.value(logs)):
            self.wait = 0
            if self.restore_best_weights:
                self._weights = self.model.get_weights()
            return
        self.wait += 1
        if self.wait >= max(1, self.patience):
            self.stopped_epoch, self.model.stop_training = epoch, True

    def on_train_end(self, logs: Any = None) -> None:
        if self._weights is not None:
            self.model.set_weights(self._weights)


class ModelCheckpoint(_Monitor):
    """Saves the model after epochs.

    Args:
        filepath: Where to; may hold ``{epoch}`` and log names: ``"best-{val_loss:.3f}.safetensors"``.
        monitor: Name of the value that ``save_best_only`` compares.
        save_best_only: Whether to save only when it improved.
        save_weights_only: Whether to leave out optimizer state and configuration.
        mode: ``min``, ``max``, or ``auto`` by the name.
    """

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.filepath, self.verbose = str(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_best_only and not self.improved(self.value(logs)):
            return
        path = self.filepath.format(epoch=epoch + 1, **(logs or {}))
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved {path}")


class ProgressBar(Callback):
    """A bar for each epoch on a terminal, else a line for each; looks at the device a few times a second at most.

    Args:
        verbose: 1 bar, 2 lines only.
    """

    INTERVAL = 0.2  # seconds between looks

    def __init__(self, verbose: int = 1) -> None:
        self._bars = verbose == 1 and sys.stdout.isatty()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = self._looked = time.perf_counter()
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._bars or time.perf_counter() - self._looked < self.INTERVAL:
            return
        self._looked = time.perf_counter()
        steps = self.params.get("steps", 0)
        filled = int(24 * (batch + 1) / max(1, steps))
        bar = "━" * filled + "╌" * (24 - filled)
        shown = {k: logs[k] for k in logs if k != "batch_loss"}
        sys.stdout.write(f"\r{self._head()} {bar} {batch + 1}/{steps} {_values(shown)}\x1b[K")
        sys.stdout.flush()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        clear = "\r\x1b[K" if self._bars else ""
        print(f"{clear}{self._head()} {time.perf_counter() - self._start:.2f}s {_values(logs or {})}", flush=True)

    def _head(self) -> str:
        return f"Epoch {self._epoch + 1}/{self.params.get('epochs', '?')}"


def _values(logs: Mapping[str, float]) -> str:
    return " - ".join(f"{k}: {v:.4f}" for k, v in logs.items())
