"""``compile``, ``fit``, ``evaluate``, ``predict`` and their single-batch forms."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from unilayers import ops, optimizers
from unilayers.autodiff import GradientTape
from unilayers.backend import AUTO, Backend, get_backend
from unilayers.callbacks import Callback, CallbackList, History
from unilayers.callbacks.base import on_one_line
from unilayers.data.dataset import split_index
from unilayers.errors import DataError, UnilayersError
from unilayers.program import Program
from unilayers.structure import leaves_of, map_structure
from unilayers.training import steps
from unilayers.training.choice import asked, choose
from unilayers.training.custom import CustomProgram, unpacked
from unilayers.training.eager import EagerProgram
from unilayers.training.feed import (
    ArrayFeed,
    Feed,
    Rounds,
    StreamFeed,
    checked,
    is_stream,
    length,
    parts_of,
    weighted,
)
from unilayers.training.steps import Batch, Objectives
from unilayers.variable import Store, place_together


@dataclass
class Position:
    """How far training has come; saved with a checkpoint.

    Args:
        epoch: Epochs completed since the model was made.
        step: Training steps completed.
        sweep: Passes over the data completed; keys the order of the samples.
        batch: Batches of the present pass that are done.
        of_epoch: Steps of the present epoch that are done.
    """

    epoch: int = 0
    step: int = 0
    sweep: int = 0
    batch: int = 0
    of_epoch: int = 0


class Trainer:
    """Mixin of ``Model``: the training interface."""

    def _init_training(self) -> None:
        self.optimizer: Any = None
        self.stop_training = False
        self.start_epoch = self.start_batch = 0
        self.history: History | None = None
        self.position = Position()
        self._objectives = Objectives()
        self._running: Any = None  # the step that is being made: what runs, the data, the numbers of its samples
        self._awaited: Mapping[str, np.ndarray] = {}
        self._compiled: dict[str, Any] = {}
        self._programs: dict[Any, Any] = {}
        self._place: tuple[str | Backend | None, str | None] = (None, None)

    # ---- compile

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
        *,
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> None:
        """Say how the model is trained.

        Args:
            optimizer: Name, config or instance.
            loss: Name, config, instance or function ``(y_true, y_pred)``; a list or dict of them for several outputs.
            loss_weights: Factors of the outputs' losses.
            metrics: List of metrics (names, configs, instances); per output for several outputs.
            weighted_metrics: As ``metrics``, but these take ``sample_weight`` into account.
            run_eagerly: Whether the model's Python runs at each batch, not only once for a compiled graph. The numbers
                are the same, but ``call`` may print, stop at a breakpoint, and decide by values: ``if ops.sum(x) > 0``.
                Then ops run one by one, which is slower; while it does nothing of the kind, steps that are like ones
                before run as one graph. May also be changed later: ``model.run_eagerly = True``.
            steps_per_execution: Kept for Keras's signature: a step has no overhead that is worth sharing.
            jit_compile: Kept for Keras's signature: steps are compiled unless ``run_eagerly``.
            auto_scale_loss: Whether the optimizer of a model with the policy ``mixed_float16`` is put into a
                ``LossScaleOptimizer``.
            backend: Where to run unless a call says otherwise: ``numpy``, ``torch``, ``tensorflow``...; ``auto``: where
                ``fit`` takes the least time; see ``fit``.
            device: ``cpu``, ``cuda``, ``cuda:1``...
        """
        self.optimizer = optimizers.get(optimizer)
        scaled = auto_scale_loss and self.dtype_policy == "mixed_float16"  # type: ignore[attr-defined]
        if scaled and not isinstance(self.optimizer, optimizers.LossScaleOptimizer | None):
            self.optimizer = optimizers.LossScaleOptimizer(self.optimizer)
        told = {"loss": loss, "metrics": metrics, "loss_weights": loss_weights, "weighted_metrics": weighted_metrics}
        self._objectives = Objectives(**told)
        self._compiled = {"optimizer": self.optimizer, **told, "auto_scale_loss": auto_scale_loss}
        self._place = (backend, device)
        self.run_eagerly = run_eagerly
        self._programs.clear()

    @property
    def run_eagerly(self) -> bool:
        """Whether batches run op by op, each through the model's own Python; see ``compile``."""
        return self._compiled.get("run_eagerly", False) or self.only_on is not None  # type: ignore[attr-defined]

    @run_eagerly.setter
    def run_eagerly(self, value: bool) -> None:
        self._compiled.pop("run_eagerly", None)
        if value:
            self._compiled["run_eagerly"] = True

    @property
    def metrics_names(self) -> list[str]:
        """Names of the values that ``evaluate`` returns."""
        return [name for name, _ in self._objectives.all_metrics]

    @property
    def metrics(self) -> list[Any]:
        """The loss tracker, the metrics that ``compile`` was told, and those that layers keep."""
        found = [*(m for _, m in self._objectives.all_metrics), *self.tracked_metrics]
        return list({id(m): m for m in found}.values())

    @property
    def metrics_variables(self) -> list[Any]:
        """The variables of all ``metrics``."""
        return [v for m in self.metrics for v in m.variables]

    @property
    def tracked_metrics(self) -> list[Any]:
        """The metrics among the attributes of the model and its layers."""
        return super().metrics  # type: ignore[misc]

    def get_metrics_result(self) -> dict[str, Any]:
        """The values of ``metrics`` by name."""
        return {m.name: m.result() for m in self.metrics}

    def all_regularization_losses(self) -> list[Any]:
        """Penalties of all weights with a regularizer."""
        return self.regularization_losses()  # type: ignore[attr-defined]

    def _require_compiled(self) -> None:
        if self.optimizer is None:
            where: str = self.where  # type: ignore[attr-defined]
            raise UnilayersError(
                "the model is not compiled", where=where, fix="Call model.compile(optimizer, loss) first"
            )

    # ---- data and where to run

    def _data(self, x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
        return checked(Batch(self.arranged(x), y, sample_weight))  # type: ignore[attr-defined]

    def _stream(
        self, source: Any, y: Any, sample_weight: Any, batch_size: int | None,
        class_weight: Mapping[int, float] | None = None, shuffle: bool = False,
    ) -> StreamFeed:  # fmt: skip
        """A feed of what gives batches, which hold all that belongs to a sample."""
        told = {"y": y, "sample_weight": sample_weight, "batch_size": batch_size}
        beside = [name for name, value in told.items() if value is not None]
        if beside:
            raise DataError(
                f"{beside[0]} beside data that comes in batches", received=f"x of type {type(source).__name__}",
                fix="Let each batch be x, (x, y) or (x, y, sample_weight)",
            )  # fmt: skip

        def prepare(raw: Any) -> Batch:
            x, y, weight = parts_of(raw)
            return self._data(x, y, weighted(weight, y, class_weight))

        return StreamFeed(source, prepare, self.root_seed, shuffle)  # type: ignore[attr-defined]

    def _feed(self, x: Any, y: Any, sample_weight: Any, batch_size: int | None) -> Feed:
        """Data to go through once, in its order."""
        if is_stream(x):
            return self._stream(x, y, sample_weight, batch_size)
        return ArrayFeed(self._data(x, y, sample_weight), batch_size)

    def _training_feed(
        self, x: Any, y: Any, weights: tuple[Any, Any], batch_size: int | None, shuffle: bool | str, split: float
    ) -> tuple[Feed, Any]:
        """What ``fit`` trains on, and what a split of it leaves for validation."""
        sample_weight, class_weight = weights
        if is_stream(x):
            if split:
                raise DataError(
                    "validation_split needs arrays",
                    received=f"x of type {type(x).__name__}",
                    fix="Pass validation_data",
                )
            return self._stream(x, y, sample_weight, batch_size, class_weight, bool(shuffle)), None
        data, rest = self._data(x, y, weighted(sample_weight, y, class_weight)), None
        if split:
            data, held = _split(data, split)
            rest = (held.x, held.y, held.weight)
        return ArrayFeed(data, batch_size, self.root_seed, shuffle), rest  # type: ignore[attr-defined]

    def _held_feed(self, data: Any, batch_size: int | None, training: Feed) -> Feed | None:
        """What ``fit`` validates on: a tuple of arrays, or what gives batches; None where there is nothing."""
        if data is None:
            return None
        if is_stream(data):
            return self._feed(data, None, None, None)
        x, y, weight = parts_of(tuple(data))
        return self._feed(x, y, weight, None if is_stream(x) else batch_size or training.batch_size)

    def _where_to_run(self, backend: str | Backend | None, device: str | None) -> tuple[Backend, str]:
        """Backend and device: of the call, else of ``compile``, else where the weights are now, else the default."""
        if backend is None or backend == AUTO:
            backend = backend or self._place[0]
            device = device or self._place[1]
        elif (
            device is None
            and self._place[0] not in (None, AUTO)
            and get_backend(self._place[0]) is get_backend(backend)
        ):
            device = self._place[1]
        if backend is None or backend == AUTO:
            backend = self.only_on  # type: ignore[attr-defined]
        if backend is None:
            placed = [v.store for v in self.variables if v.store is not None]  # type: ignore[attr-defined]
            if placed and device is None:
                return placed[0].backend, placed[0].device
            backend = placed[0].backend if placed else None
        chosen = get_backend(backend)
        return chosen, chosen.device(device)

    def _store(self, backend: Backend, device: str) -> Store:
        state = steps.state_of(self, self._objectives)  # type: ignore[arg-type]
        # And what steps read that is no part of the model: the counter of numbers drawn without a seed.
        traced = [p.variables for p in self._programs.values() if isinstance(p, Program)]
        state = list(dict.fromkeys(v for group in (state, *traced) for v in group))
        store = state[0].store if state and self.run_eagerly else None
        # A step that replaces arrays one by one gains nothing from having them side by side again.
        if store is not None and all(v.store is store for v in state) and (store.backend, store.device) == (
            backend, device,
        ):  # fmt: skip
            return store
        return place_together(state, backend, device)

    def _own_step(self, kind: str) -> bool:
        """Whether the model has written this step, or a part of it, itself."""
        parts = (f"{kind}_step", "compute_loss", "compute_metrics")
        return kind != "predict" and any(getattr(type(self), p) is not getattr(Trainer, p) for p in parts)

    def _program(self, kind: str, batch: Batch) -> Program | EagerProgram | CustomProgram:
        """The traced program of one kind for this form of data, traced at the first call."""
        trained = tuple(map(id, self.trainable_weights)) if kind == "train" else ()  # type: ignore[attr-defined]
        key = (kind, batch.signature, trained, self.run_eagerly)
        if key not in self._programs:
            self._programs[key] = self._make_program(kind, batch)
        return self._programs[key]

    def _make_program(self: Any, kind: str, batch: Batch) -> Program | EagerProgram | CustomProgram:
        if self._own_step(kind):
            return CustomProgram(self, kind, batch)
        if self.run_eagerly:
            return EagerProgram(self, self._objectives, kind, batch)
        if kind == "predict":
            return steps.predict_program(self, batch.x)[0]
        return {"train": steps.train_program, "test": steps.test_program}[kind](self, self._objectives, batch)

    def _reset_metrics(self, store: Store, own: bool = False) -> None:
        if self.run_eagerly or own:
            return self.reset_metrics()
        if "reset" not in self._programs:
            self._programs["reset"] = steps.reset_program(self._objectives)
        self._programs["reset"].run(store, [])

    def reset_metrics(self) -> None:
        """Set all metrics back to zero."""
        for metric in self.metrics:
            metric.reset_state()

    def _running_values(self) -> dict[str, Any]:
        """The variables of the metrics, under names for a file."""
        return {f"metrics/{i}/{j}": v for i, m in enumerate(self.metrics) for j, v in enumerate(m.variables)}

    def _resume_values(self, values: Mapping[str, np.ndarray]) -> None:
        """Set running values; those of metrics that are not there yet when they come to be, in the same ``fit``."""
        there = self._running_values()
        self._awaited = {name: value for name, value in values.items() if name not in there}
        for name in there.keys() & values.keys():
            there[name].assign(values[name])

    def _results(self, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The values of all metrics; or of the logs of a model's own step."""
        if own is not None:
            return {name: float(ops.to_numpy(value)) for name, value in own.items()}
        return {name: _read(m) for name, m in self._objectives.all_metrics}

    # ---- steps

    def train_step(self: Any, data: Any) -> dict[str, Any]:
        """One training step. Override it to write your own, with ops and a `GradientTape`, for every backend.

        It is traced into one graph, or runs op by op with ``run_eagerly=True``. ``fit`` shows what it returns.

        Args:
            data: x, ``(x, y)`` or ``(x, y, sample_weight)``, as ``fit`` was given them.

        Returns:
            Scalars by name, such as ``{m.name: m.result() for m in self.metrics}``.
        """
        x, y, weight = unpacked(data)
        with GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight)
            scaled = self.optimizer.scale_loss(loss)
        trained = self.trainable_weights
        self.optimizer.apply(tape.gradient(scaled, trained), trained)
        return self._judged(x, y, y_pred, weight, loss)

    def predict_step(self: Any, data: Any) -> Any:
        """What ``predict`` gives for a batch. Override it to give something else than the outputs.

        Args:
            data: x, ``(x, y)`` or ``(x, y, sample_weight)``, as ``train_step`` takes it.
        """
        return self(unpacked(data)[0], training=False)

    def test_step(self: Any, data: Any) -> dict[str, Any]:
        """One evaluation step; see ``train_step``."""
        x, y, weight = unpacked(data)
        y_pred = self(x, training=False)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight)
        return self._judged(x, y, y_pred, weight, loss)

    def _judged(self: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any, loss: Any) -> dict[str, Any]:
        """The logs of a step whose loss is known."""
        if not self._objectives.built:
            steps.complete(self, self._objectives, y, y_pred)
        self._objectives.track_loss(Batch(x, y, sample_weight), loss)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def compute_loss(
        self: Any,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The loss that ``compile`` was told, with penalties and what layers have added. Override it for another.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: The model's outputs.
            sample_weight: Weight of each sample.
            training: Kept for Keras's signature.
        """
        outputs = leaves_of(y_pred)
        if not self._objectives.built:
            steps.complete(self, self._objectives, y, y_pred)
        batch = Batch(x, y, sample_weight)
        terms = [*self._objectives.total_loss(batch, outputs), *self.take_losses(), *self.all_regularization_losses()]
        steps.require_terms(self, terms)
        return steps.total(terms)

    def compute_metrics(self: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Take a batch into the metrics that ``compile`` was told; gives all values by name. Override it for others.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: The model's outputs.
            sample_weight: Weight of each sample.
        """
        outputs = leaves_of(y_pred)
        if not self._objectives.built:
            steps.complete(self, self._objectives, y, y_pred)
        self._objectives.update_metrics(Batch(x, y, sample_weight), outputs)
        return {name: m.result() for name, m in self._objectives.all_metrics}

    # ---- fit

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        backend: str | Backend | None = None,
        device: str | None = None,
        retime: bool = False,
    ) -> History:
        """Train for a number of epochs.

        The order of the samples depends on the seed and on how many epochs the model has been trained, so it is the
        same on every backend, and training that is cut into several calls sees what an uncut one sees.

        Args:
            x: Inputs: an array, or a list or dict of arrays for several inputs; the first axis counts samples. Or what
                gives batches ``(x, y)`` or ``(x, y, sample_weight)``: a ``utils.PyDataset``, a ``DataLoader`` of
                PyTorch, a ``tf.data.Dataset``, a generator, any iterable that is no list; then they alone say what a
                batch is.
            y: Targets: an array, list or dict.
            batch_size: Samples per step, 32 if None; the last batch of an epoch may be smaller.
            epochs: Epoch number to stop at, counted from ``initial_epoch``.
            verbose: 0 silent, 1 progress bar, 2 a line an epoch; ``auto`` is 1.
            callbacks: Objects with Keras's hooks.
            validation_split: Fraction of the samples, taken from the end, to validate on.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)`` to validate on, or what gives such batches.
            shuffle: Whether to go through the samples in a new order each epoch; ``"batch"``: in their order within
                batches. Data that comes in batches has its own order, except a ``PyDataset``, whose batches have
                numbers.
            class_weight: Weight of the samples of each class, by its number; 1 for those left out.
            sample_weight: Weight of each sample.
            initial_epoch: Number of the first epoch.
            steps_per_epoch: Steps in an epoch; the next epoch goes on from there. None: all batches. Needed for data
                without an end.
            validation_steps: How many batches to validate on; None: all.
            validation_batch_size: As ``batch_size``, for validation.
            validation_freq: Validate every so many epochs.
            backend: Engine to run on; state moves there and stays. ``auto``: the one on which this training takes the
                least time, found by trying; see `choose`. It is for models that run as one graph: with ``run_eagerly``,
                as in ``evaluate`` and ``predict``, it means where the weights are now, else the default.
            device: Device of that engine.
            retime: With ``auto``: time the engines again, whatever was measured before.

        Returns:
            The history: ``history.history["loss"]`` has a value an epoch.

        Raises:
            DataError: if lengths differ or shapes do not fit the model.
        """
        self._require_compiled()
        weights = (sample_weight, class_weight)
        feed, rest = self._training_feed(x, y, weights, batch_size, shuffle, validation_split)
        held = self._held_feed(rest if validation_data is None else validation_data, validation_batch_size, feed)
        program = self._program("train", feed.like)
        each = steps_per_epoch or feed.steps
        place = None
        if asked(self, backend):
            ahead = None if each is None else each * (epochs - initial_epoch)
            place = choose(program, feed, device or self._place[1], ahead, retime, print if verbose else None)
        engine, where = place or self._where_to_run(backend, device)
        self.history = History()
        told: dict[str, Any] = {"epochs": epochs, "steps": each, "verbose": verbose}
        told |= {"backend": engine.name, "device": where}
        hooks = CallbackList([callbacks or (), self.history], add_progbar=bool(verbose), model=self, **told)
        self.stop_training, self.start_epoch, self.start_batch, self._awaited = False, initial_epoch, 0, {}
        hooks.call("on_train_begin", {})
        rounds = Rounds(feed, self.position, steps_per_epoch)
        logs: dict[str, Any] = {}
        for epoch in range(self.start_epoch, epochs):  # a callback may have set it, and start_batch
            hooks.call("on_epoch_begin", epoch, {})
            last = self._train_epoch(rounds, program, (engine, where), hooks)
            if rounds.ran_out:
                warnings.warn(_ran_out(epoch), stacklevel=2)
                self.stop_training = True
                if last is None:
                    break
            self.position.epoch += 1
            logs = self._results(last if isinstance(program, CustomProgram) else None)
            if held is not None and (epoch + 1) % validation_freq == 0:
                found = self._evaluate(held, validation_steps, engine, where, hooks)
                logs |= {f"val_{k}": v for k, v in found.items()}
            hooks.call("on_epoch_end", epoch, logs)
            if self.stop_training:
                break
        if epochs > initial_epoch:
            self.optimizer.finalize_variable_values(self.trainable_weights)  # type: ignore[attr-defined]
        hooks.call("on_train_end", logs)
        return self.history

    def _train_epoch(
        self,
        rounds: Rounds,
        program: Program | EagerProgram | CustomProgram,
        place: tuple[Backend, str],
        hooks: CallbackList,
    ) -> dict[str, Any] | None:
        """Gives what the last step returned; None if there was no data for any.

        Args:
            rounds: The batches.
            program: That for batches of the first one's form.
            place: Backend and device.
            hooks: The callbacks.
        """
        own = isinstance(program, CustomProgram)
        begin, end = hooks.of("on_train_batch_begin"), hooks.of("on_train_batch_end")
        start, self.start_batch = self.start_batch, 0
        form, store, outputs = rounds.form, None, None
        for number, (arrays, like, rows) in rounds.epoch(start):
            if like is not form:
                program, form = self._program("train", like), like
            if store is None:
                store = Store(*place, []) if own else self._store(*place)
                if start == 0:  # else the running values go on
                    self._reset_metrics(store, own)
            self._running = (program, arrays, rows)
            for hook in begin:
                hook(number, {})
            if not program.placed(store):  # a callback moved the state, or the first step created some
                store = self._store(*place)
            outputs = program.run(store, arrays, rounds.owned)
            self.position.step += 1
            self.position.of_epoch = number + 1
            if end:
                logs = _BatchLogs(self, place[0], outputs, own)
                for hook in end:
                    hook(number, logs)
            if self.stop_training:
                break
        rounds.end_epoch()
        self.position.of_epoch, self._running = 0, None
        return outputs

    # ---- evaluate and predict

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Sequence[Callback] | None = None,
        return_dict: bool = False,
        *,
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> Any:
        """The loss and the metrics on data, in inference mode.

        Args:
            x: Inputs, or what gives batches; see ``fit``.
            y: Targets.
            batch_size: Samples per step, 32 if None; does not change the result.
            verbose: 0 is silent.
            sample_weight: Weight of each sample.
            steps: How many batches to take; None: all.
            callbacks: Objects with Keras's hooks.
            return_dict: Whether to return a dict by name instead of a list (or the loss alone).
            backend: Engine to run on.
            device: Device of that engine.
        """
        self._require_compiled()
        feed = self._feed(x, y, sample_weight, batch_size)
        engine, where = self._where_to_run(backend, device)
        hooks = CallbackList(callbacks, model=self, steps=steps or feed.steps)
        found = self._evaluate(feed, steps, engine, where, hooks)
        if verbose:
            print(on_one_line(found))
        values = list(found.values())
        return found if return_dict else values if len(values) > 1 else values[0]

    def _evaluate(
        self, feed: Feed, steps: int | None, engine: Backend, where: str, hooks: CallbackList
    ) -> dict[str, Any]:
        form = feed.like
        program = self._program("test", form)
        own = isinstance(program, CustomProgram)
        store = Store(engine, where, []) if own else self._store(engine, where)
        self._reset_metrics(store, own)
        hooks.call("on_test_begin", {})
        outputs = dict[str, Any]()
        for number, (arrays, like, _) in enumerate(islice(feed.batches(0), steps)):
            hooks.call("on_test_batch_begin", number, {})
            if like is not form:
                program, form = self._program("test", like), like
            if not program.placed(store):
                store = self._store(engine, where)
            outputs = program.run(store, arrays)
            hooks.call("on_test_batch_end", number, _BatchLogs(self, engine, outputs, own))
        found = self._results(outputs if own else None)
        hooks.call("on_test_end", found)
        return found

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Sequence[Callback] | None = None,
        *,
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> Any:
        """The outputs for data, in inference mode, as NumPy arrays; bfloat16 as float32, since NumPy does not have it.

        Args:
            x: Inputs, or what gives batches, of which targets are left aside; see ``fit``.
            batch_size: Samples per step, 32 if None.
            verbose: Kept for Keras's signature; nothing is printed.
            steps: How many batches to take; None: all.
            callbacks: Objects with Keras's hooks.
            backend: Engine to run on.
            device: Device of that engine.
        """
        feed: Feed
        if is_stream(x):
            feed = StreamFeed(x, lambda raw: self._data(parts_of(raw)[0]))
        else:
            feed = ArrayFeed(self._data(x), batch_size)
        engine, where = self._where_to_run(backend, device)
        form = feed.like
        program: Any = self._program("predict", form)
        store = self._predict_store(program, engine, where)
        hooks = CallbackList(callbacks, model=self, steps=steps or feed.steps)
        hooks.call("on_predict_begin", {})
        parts = []
        for number, (arrays, like, _) in enumerate(islice(feed.batches(0), steps)):
            hooks.call("on_predict_batch_begin", number, {})
            if like is not form:
                program, form = self._program("predict", like), like
            if not program.placed(store):
                store = self._predict_store(program, engine, where)
            outputs = program.run(store, arrays)
            parts.append([engine.get(outputs[str(i)]) for i in range(len(outputs))])
            hooks.call("on_predict_batch_end", number, {"outputs": parts[-1]})
        hooks.call("on_predict_end", {})
        joined = iter(np.concatenate(column) for column in zip(*parts, strict=True))
        return map_structure(lambda _: next(joined), program.structure)

    def _predict_store(self, program: Program | EagerProgram, engine: Backend, where: str) -> Store:
        """Where the forward pass finds its weights: where all state is already, or brought there with all of it."""
        stores = {v.store for v in program.variables}
        store = next(iter(stores), None)
        if len(stores) == 1 and store is not None and store.backend is engine and store.device == where:
            return store
        return self._store(engine, where) if program.variables else Store(engine, where, [])

    # ---- single batches

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False, *, backend: str | Backend | None = None, device: str | None = None,
    ) -> Any:  # fmt: skip
        """One training step; returns the loss and metrics of this batch alone, not a running mean.

        Args:
            x: Inputs of the batch.
            y: Targets.
            sample_weight: Weight of each sample.
            class_weight: Weight of the samples of each class, by its number.
            return_dict: Whether to return a dict by name.
            backend: Engine to run on.
            device: Device of that engine.
        """
        weights = weighted(sample_weight, y, class_weight)
        return self._on_batch("train", self._data(x, y, weights), return_dict, backend, device)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False,
        *, backend: str | Backend | None = None, device: str | None = None,
    ) -> Any:  # fmt: skip
        """Loss and metrics of one batch in inference mode; see ``train_on_batch``."""
        return self._on_batch("test", self._data(x, y, sample_weight), return_dict, backend, device)

    def _on_batch(self, kind: str, data: Batch, return_dict: bool, backend: Any, device: str | None) -> Any:
        self._require_compiled()
        engine, where = self._where_to_run(backend, device)
        program = self._program(kind, data)
        own = isinstance(program, CustomProgram)
        store = Store(engine, where, []) if own else self._store(engine, where)
        self._reset_metrics(store, own)
        outputs = program.run(store, data.leaves)
        self.position.step += kind == "train"
        found = self._results(outputs if own else None)
        values = list(found.values())
        return found if return_dict else values if len(values) > 1 else values[0]

    def predict_on_batch(self, x: Any, *, backend: str | Backend | None = None, device: str | None = None) -> Any:
        """The outputs for one batch."""
        return self.predict(x, batch_size=max(1, length(self._data(x))), verbose=0, backend=backend, device=device)


def _read(metric: Any) -> Any:
    """What a metric says: a number, or an array where it says several."""
    value = ops.to_numpy(metric.result())
    return float(value.item()) if value.size == 1 else value


def _ran_out(epoch: int) -> str:
    return (
        f"the data ran out in epoch {epoch + 1}, where training ends. Give fit something that can be gone through "
        "again, not a generator, or one that gives steps_per_epoch * epochs batches."
    )


class _BatchLogs(Mapping[str, Any]):
    """Logs of a batch, fetched from the device only when somebody looks: the running means, and ``batch_loss``; or what
    a model's own step has returned."""

    def __init__(self, model: Any, backend: Backend, outputs: Mapping[str, Any], own: bool) -> None:
        self._model, self._backend, self._outputs, self._own = model, backend, outputs, own

    def __getitem__(self, key: str) -> Any:
        if self._own:
            return float(self._backend.get(self._outputs[key]))
        if key == "batch_loss":
            return float(self._backend.get(self._outputs["loss"]))
        for name, metric in self._model._objectives.all_metrics:
            if name == key:
                return _read(metric)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs if self._own else [*self._model.metrics_names, "batch_loss"])

    def __len__(self) -> int:
        return len(list(iter(self)))


# ---- data -------------------------------------------------------------------


def _split(data: Batch, fraction: float) -> tuple[Batch, Batch]:
    at = split_index(length(data), fraction)

    def part(rows: slice) -> Batch:
        return Batch(
            *(map_structure(lambda a: None if a is None else a[rows], p) for p in (data.x, data.y, data.weight))
        )

    return part(slice(0, at)), part(slice(at, None))
