"""Callbacks that act on what they see: the learning rate, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from unilayers.callbacks.base import Callback
from unilayers.errors import UnilayersError, nearest


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
        loss = logs["batch_loss" if "batch_loss" in logs else "loss"]  # a step of the model's own gives "loss" only
        if not math.isfinite(loss):
            print(f"Batch {batch}: loss is {loss}, training stops.")
            self.model.stop_training = True


class Monitor(Callback):
    """Shared by callbacks that compare one value over the epochs."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
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


class EarlyStopping(Monitor):
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


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by a factor when a value has not improved for some epochs.

    Args:
        monitor: Name of the value.
        factor: What the learning rate is multiplied by, less than 1.
        patience: Epochs to wait.
        verbose: 1 prints each reduction.
        mode: ``min``, ``max``, or ``auto`` by the name.
        min_delta: Smaller changes do not count.
        cooldown: Epochs after a reduction in which nothing is counted.
        min_lr: The learning rate does not fall below this.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise UnilayersError(
                "not a factor that reduces", where="ReduceLROnPlateau.factor", expected="more than 0, less than 1",
                received=repr(factor),
            )  # fmt: skip
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr

    def on_train_begin(self, logs: Any = None) -> None:
        self.best, self.wait, self._resting = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["learning_rate"] = rate = float(self.model.optimizer.learning_rate)
        if self._resting:
            self._resting -= 1
            self.wait = 0
        if self.improved(self.value(logs)):
            self.wait = 0
            return
        if self._resting:
            return
        self.wait += 1
        if self.wait < self.patience or rate <= self.min_lr:
            return
        self.model.optimizer.learning_rate = lower = max(rate * self.factor, self.min_lr)
        self._resting, self.wait = self.cooldown, 0
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate reduced to {lower:g}")


class SwapEMAWeights(Callback):
    """Evaluates with the moving averages of the weights, for an optimizer with ``use_ema``; training goes on with the
    weights themselves.

    Args:
        swap_on_epoch: Whether the averages are in place also while the callbacks of an epoch's end run, such as one
            that saves the model: put this one before it.
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        self.swap_on_epoch = swap_on_epoch

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if model.optimizer is not None and not model.optimizer.use_ema:
            raise UnilayersError(
                "the optimizer keeps no averages", where="SwapEMAWeights", fix="Make it with use_ema=True"
            )

    def on_train_begin(self, logs: Any = None) -> None:
        self._swapped = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.swap_on_epoch and self._swapped:
            self._swap()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.swap_on_epoch and not self._swapped:
            self._swap()

    def on_test_begin(self, logs: Any = None) -> None:
        self._swap()

    def on_test_end(self, logs: Any = None) -> None:
        self._swap()

    def on_predict_begin(self, logs: Any = None) -> None:
        self._swap()

    def on_predict_end(self, logs: Any = None) -> None:
        self._swap()

    def on_train_end(self, logs: Any = None) -> None:
        if self._swapped:
            self._swap()

    def _swap(self) -> None:
        self.model.optimizer.swap_averages()
        self._swapped = not getattr(self, "_swapped", False)
