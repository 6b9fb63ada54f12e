"""Objects that look on while a model trains: Keras's hooks, the history, the progress bar."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from unilayers.errors import UnilayersError, nearest
from unilayers.structure import leaves_of

Hook = Callable[..., Any]
HOOKS = (
    "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_train_batch_begin", "on_train_batch_end",
    "on_test_begin", "on_test_end", "on_test_batch_begin", "on_test_batch_end",
    "on_predict_begin", "on_predict_end", "on_predict_batch_begin", "on_predict_batch_end",
)  # fmt: skip
SHORT = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}  # further names


class Callback:
    """Base class: override the hooks you need. ``self.model`` and ``self.params`` are set before training.

    ``on_train_batch_end(batch, logs)``: ``logs`` is read from the device only when you index it; ``loss`` and metrics
    are running means of the epoch, ``batch_loss`` is this batch's loss.

    Attributes:
        state_names: Names of the attributes that training which is cut and resumed goes on with, such as a count of
            epochs: numbers, texts, truth values, None, arrays, and lists and dicts of these. They are saved with the
            model by what can resume a training, and set again after ``on_train_begin``.

    Example:
        >>> class Count(Callback):
        ...     state_names = ("steps",)
        ...     def on_train_begin(self, logs=None):
        ...         self.steps = 0
        ...     def on_train_batch_end(self, batch, logs=None):
        ...         self.steps += 1
        >>> count = Count()
        >>> count.set_state({"steps": 7})
        >>> count.get_state()
        {'steps': 7}
    """

    model: Any = None
    params: Mapping[str, Any] = {}
    state_names: Sequence[str] = ()

    def set_model(self, model: Any) -> None:
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        self.params = params

    def get_state(self) -> dict[str, Any]:
        """What training that is resumed goes on with: the attributes of ``state_names``, by their names."""
        return {name: reduce(getattr, name.split("."), self) for name in self.state_names}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on with what ``get_state`` gave; called after ``on_train_begin``. Override both for what is no attribute.

        Args:
            state: Values by name; arrays are NumPy's, tuples have become lists.
        """
        for name in self.state_names:
            *path, last = name.split(".")
            setattr(reduce(getattr, path, self), last, state[name])

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


class Saver(Callback):
    """A callback that saves all that a training needs to go on. At each hook it comes after the others, which have then
    done what they do, and it knows them.

    Attributes:
        others: All callbacks of the training.
    """

    others: Sequence[Callback] = ()

    def get_state(self) -> dict[str, Any]:
        rate = self.model.optimizer.learning_rate
        return super().get_state() | ({"learning_rate": float(rate)} if isinstance(rate, float) else {})

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        exact, rounded = state.get("learning_rate"), self.model.optimizer.learning_rate
        if exact is not None and isinstance(rounded, float) and np.float32(exact) == np.float32(rounded):
            self.model.optimizer.learning_rate = exact  # the number whose float32 is among the tensors

    def save(self, path: Any) -> None:
        """Save the model with optimizer state and position, and the states of all callbacks."""
        from unilayers.saving import save_model  # it knows models, which are above callbacks

        save_model(self.model, path, callbacks=numbered(self.others))

    def go_on(self, path: Any) -> None:
        """Let training, which is about to begin, go on where it was when the file was saved: in the middle of an epoch
        if it was there, with the values of the metrics and the states of the callbacks. One that had been stopped stays
        stopped. The state of the model is that of the file already.

        Raises:
            CheckpointError: if the file is damaged.
        """
        from unilayers.saving import resume_fit

        resume_fit(self.model, path, numbered(self.others))
        if self.model.stop_training:
            self.model.start_epoch = self.params["epochs"]


def numbered(callbacks: Iterable[Callback]) -> Iterator[tuple[str, Callback]]:
    """Callbacks with names that are the same when training is resumed: their classes'; of several of one, numbered."""
    seen = Counter[str]()
    for callback in callbacks:
        name = type(callback).__qualname__
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}", callback


class CallbackList(Callback):
    """Several callbacks as one; hooks that nobody overrides cost nothing. Every hook can be called on it, so that a
    loop of your own can drive callbacks as ``fit`` does.

    Args:
        callbacks: Callbacks, in lists of any depth.
        add_history: Whether to add a `History` if there is none.
        add_progbar: Whether to add a `ProgbarLogger` if there is none.
        model: The model that is trained.
        params: What ``set_params`` gives each of them: ``epochs``, ``steps``, ``verbose``.

    Example:
        >>> hooks = CallbackList([LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs))], epochs=2)
        >>> hooks.on_epoch_end(0, {"loss": 0.5})
        0 {'loss': 0.5}
    """

    def __init__(
        self, callbacks: Any = None, add_history: bool = False, add_progbar: bool = False, model: Any = None,
        **params: Any,
    ) -> None:  # fmt: skip
        self.callbacks: list[Callback] = []
        self.model, self.params = model, params
        self._hooks: dict[str, list[Hook]] = {name: [] for name in HOOKS}
        for callback in leaves_of(callbacks) if callbacks is not None else ():
            self.append(callback)
        for wanted, kind in ((add_history, History), (add_progbar, ProgbarLogger)):
            if wanted and not any(isinstance(callback, kind) for callback in self.callbacks):
                self.append(kind())

    def append(self, callback: Callback) -> None:
        """Add a callback."""
        self.callbacks.append(callback)
        if self.model is not None:
            self._introduce(callback)
        callback.set_params(self.params)
        if isinstance(callback, Saver):
            callback.others = self.callbacks
        ordered = sorted(self.callbacks, key=lambda c: isinstance(c, Saver))
        self._hooks = {name: [getattr(c, name) for c in ordered if _overrides(type(c), name)] for name in HOOKS}

    def _introduce(self, callback: Callback) -> None:
        callback.set_model(self.model)
        if isinstance(callback, History):
            self.model.history = callback

    def set_model(self, model: Any) -> None:
        self.model = model
        for callback in self.callbacks:
            self._introduce(callback)

    def set_params(self, params: Mapping[str, Any]) -> None:
        self.params = dict(params)
        for callback in self.callbacks:
            callback.set_params(self.params)

    def of(self, hook: str) -> Sequence[Hook]:
        """One hook of every callback that has it; later ones join it."""
        return self._hooks[hook]

    def call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call one hook of every callback that has it."""
        for function in self._hooks[hook]:
            function(*args, **kwargs)


def _forward(hook: str) -> Callable[..., None]:
    def forward(self: CallbackList, *args: Any, **kwargs: Any) -> None:
        self.call(hook, *args, **kwargs)

    forward.__doc__ = getattr(Callback, hook).__doc__
    return forward


for _hook in HOOKS:
    setattr(CallbackList, _hook, _forward(_hook))


def _overrides(cls: type, hook: str) -> bool:
    return any(getattr(cls, name) is not getattr(Callback, name) for name in (hook, SHORT.get(hook, hook)))


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
    """A callback from functions.

    Args:
        on_epoch_begin: ``f(epoch, logs)``, called before each epoch.
        on_epoch_end: ``f(epoch, logs)``, called after each epoch and its validation.
        on_train_begin: ``f(logs)``, called before training.
        on_train_end: ``f(logs)``, called after training.
        on_train_batch_begin: ``f(batch, logs)``, called before each training step.
        on_train_batch_end: ``f(batch, logs)``, called after each training step.
        hooks: Functions for any other hook of `Callback`, by its name.

    Example:
        >>> shout = LambdaCallback(on_train_end=lambda logs: print("done", logs))
        >>> shout.on_train_end({"loss": 1.0})
        done {'loss': 1.0}
    """

    def __init__(
        self,
        on_epoch_begin: Hook | None = None,
        on_epoch_end: Hook | None = None,
        on_train_begin: Hook | None = None,
        on_train_end: Hook | None = None,
        on_train_batch_begin: Hook | None = None,
        on_train_batch_end: Hook | None = None,
        **hooks: Hook,
    ) -> None:
        for name in hooks:
            if name not in (*HOOKS, *SHORT.values()):
                raise UnilayersError(f"unknown hook {name!r}", where="LambdaCallback", fix=nearest(name, HOOKS))
        hooks |= {
            name: given
            for name, given in (
                ("on_epoch_begin", on_epoch_begin), ("on_epoch_end", on_epoch_end),
                ("on_train_begin", on_train_begin), ("on_train_end", on_train_end),
                ("on_train_batch_begin", on_train_batch_begin), ("on_train_batch_end", on_train_batch_end),
            )
            if given is not None
        }  # fmt: skip
        # A class of its own, so that only the given hooks count as overridden.
        self.__class__ = type("LambdaCallback", (LambdaCallback,), {k: staticmethod(f) for k, f in hooks.items()})


class ProgbarLogger(Callback):
    """A bar for each epoch on a terminal, else a line for each; looks at the device a few times a second at most.

    Args:
        verbose: 1 bar, 2 lines only; what ``fit`` was told if None.
    """

    INTERVAL = 0.2  # seconds between looks

    def __init__(self, verbose: int | None = None) -> None:
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        verbose = self.params.get("verbose", 1) if self.verbose is None else self.verbose
        self._bars = verbose in (1, "auto") and sys.stdout.isatty()
        self._start = self._looked = time.perf_counter()
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._bars or time.perf_counter() - self._looked < self.INTERVAL:
            return
        self._looked = time.perf_counter()
        steps = self.params.get("steps") or "?"  # data that comes in batches need not say how many
        filled = int(24 * (batch + 1) / steps) if isinstance(steps, int) else 0
        bar = "━" * filled + "╌" * (24 - filled)
        shown = {k: logs[k] for k in logs if k != "batch_loss"}
        sys.stdout.write(f"\r{self._head()} {bar} {batch + 1}/{steps} {on_one_line(shown)}\x1b[K")
        sys.stdout.flush()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        clear = "\r\x1b[K" if self._bars else ""
        print(f"{clear}{self._head()} {time.perf_counter() - self._start:.2f}s {on_one_line(logs or {})}", flush=True)

    def _head(self) -> str:
        return f"Epoch {self._epoch + 1}/{self.params.get('epochs', '?')}"


def on_one_line(logs: Mapping[str, Any]) -> str:
    """Logs on one line; of several values the mean.

    Example:
        >>> on_one_line({"loss": 0.25, "f1_score": np.array([0.5, 1.0])})
        'loss: 0.2500 - f1_score: 0.7500'
    """
    return " - ".join(f"{k}: {np.mean(v):.4f}" for k, v in logs.items())
