"""Callbacks that act on what they see: the learning rate, and when to stop."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.callbacks.base import Callback
from unilayers.errors import UnilayersError, nearest


class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of each epoch.

    Args:
        schedule: ``schedule(epoch, learning_rate) -> learning_rate``, or of the epoch alone.
        verbose: 1 prints each learning rate.
    """

    state_names = ("_epoch",)
    _epoch: int | None = None

    def __init__(self, schedule: Callable[..., Any], verbose: int = 0) -> None:
        self.schedule, self.verbose = schedule, verbose
        try:
            inspect.signature(schedule).bind(0, 0.0)
            self._takes_rate = True
        except (TypeError, ValueError):
            self._takes_rate = False

    def on_train_begin(self, logs: Any = None) -> None:
        self._epoch = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self._epoch:  # it had begun when training was cut
            return
        self._epoch = epoch
        now = (float(self.model.optimizer.learning_rate),) if self._takes_rate else ()
        given = self.schedule(epoch, *now)
        rate = np.asarray(ops.to_numpy(given)) if given is not None else np.asarray("nothing")
        if rate.size != 1 or rate.dtype.kind not in "fiu":
            raise UnilayersError(
                "the schedule gives no learning rate", where="LearningRateScheduler.schedule", expected="a number",
                received=repr(given),
            )  # fmt: skip
        self.model.optimizer.learning_rate = float(rate.item())
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate is {rate.item():g}")


class Monitor(Callback):
    """Shared by callbacks that compare one value over the epochs.

    Args:
        monitor: Name of the value.
        mode: ``min``, ``max``, or ``auto``: less is better for a loss, and for a metric what its ``direction`` says.
        min_delta: Smaller changes do not count.
        best: The value to beat at first.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0, best: float | None = None) -> None:
        if mode not in ("auto", "min", "max"):
            raise UnilayersError(
                "unknown mode", where=type(self).__name__, expected="auto, min or max", received=repr(mode)
            )
        self.monitor, self.mode, self.min_delta, self.best = monitor, mode, abs(min_delta), best

    def value(self, logs: Mapping[str, Any] | None) -> float | None:
        """The value in the logs; a warning and None if it is not there, as in epochs without validation."""
        if logs is not None and self.monitor in logs:
            return logs[self.monitor]
        near = nearest(self.monitor, logs) if logs else "There are no values"
        warnings.warn(f"{type(self).__name__}: nothing called {self.monitor!r} to monitor. {near}", stacklevel=3)
        return None

    def improved(self, value: float) -> bool:
        """Whether ``value`` is better than the best so far; then it becomes the best."""
        better = self.better(value, self.best)
        if better:
            self.best = value
        return better

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value beats another, or is the first, by at least ``min_delta``."""
        sign = self._sign  # which may raise, also at the first value
        return than is None or sign * value + self.min_delta < sign * than

    @property
    def _sign(self) -> float:
        """1 if less is better, else -1."""
        if self.mode != "auto":
            return 1.0 if self.mode == "min" else -1.0
        name = self.monitor.removeprefix("val_")
        if name == "loss" or name.endswith("_loss"):
            return 1.0
        known = dict(getattr(getattr(self.model, "_objectives", None), "all_metrics", ()))
        known |= {m.name: m for m in getattr(self.model, "metrics", ()) if m.name not in known}
        direction = getattr(known.get(name), "direction", None)
        if direction is None:
            raise UnilayersError(
                f"nothing says whether {self.monitor!r} is better when larger or smaller", where=type(self).__name__,
                fix="Pass mode='max' or mode='min'",
            )  # fmt: skip
        return 1.0 if direction == "down" else -1.0


class EarlyStopping(Monitor):
    """Stops when a value has not improved for ``patience`` epochs.

    Args:
        monitor: Name of the value.
        min_delta: Smaller changes do not count.
        patience: Epochs to wait.
        verbose: 1 prints when it stops, and which epoch's weights are restored.
        mode: ``min``, ``max``, or ``auto``: less is better for a loss, and for a metric what its ``direction`` says.
        baseline: Until a value beats it, no improvement starts the waiting anew.
        restore_best_weights: Whether to go back to the weights of the best epoch.
        start_from_epoch: Epochs before watching begins.
    """

    state_names = ("best", "wait", "stopped_epoch", "best_epoch", "best_weights")

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch

    def on_train_begin(self, logs: Any = None) -> None:
        self.best, self.wait, self.stopped_epoch = None, 0, 0
        self.best_epoch, self.best_weights = 0, None

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        if self.wait < self.patience:  # which may be another now
            self.stopped_epoch = 0
        elif self.stopped_epoch:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value = self.value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        better = self.improved(value)
        if better:
            self.best_epoch = epoch
            self.best_weights = self.model.get_weights() if self.restore_best_weights else None
            if self.baseline is None or self.better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience:
            self.stopped_epoch, self.model.stop_training = epoch, True

    def on_train_end(self, logs: Any = None) -> None:
        if self.verbose and self.stopped_epoch:
            print(f"Epoch {self.stopped_epoch + 1}: stopped early")
        if self.best_weights is not None:
            if self.verbose:
                print(f"The weights are those of epoch {self.best_epoch + 1}, the best")
            self.model.set_weights(self.best_weights)


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by a factor when a value has not improved for some epochs.

    Args:
        monitor: Name of the value.
        factor: What the learning rate is multiplied by, less than 1.
        patience: Epochs to wait.
        verbose: 1 prints each reduction.
        mode: ``min``, ``max``, or ``auto``: less is better for a loss, and for a metric what its ``direction`` says.
        min_delta: Smaller changes do not count.
        cooldown: Epochs after a reduction in which nothing is counted.
        min_lr: The learning rate does not fall below this.
    """

    state_names = ("best", "wait", "_resting")

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
        logs = {} if logs is None else logs
        logs["learning_rate"] = rate = float(self.model.optimizer.learning_rate)
        value = self.value(logs)
        if value is None:
            return
        if self._resting:
            self._resting -= 1
            self.wait = 0
        if self.improved(value):
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

    state_names = ("_swapped",)

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
