"""``compile``, ``fit``, ``evaluate``, ``predict`` and their single-batch forms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unilayers import ops, optimizers
from unilayers.autodiff import GradientTape
from unilayers.backend import Backend, get_backend
from unilayers.callbacks import Callback, CallbackList, History, ProgressBar
from unilayers.callbacks.base import on_one_line
from unilayers.data.dataset import batches, split_index
from unilayers.errors import DataError, UnilayersError
from unilayers.program import Program
from unilayers.structure import leaves_of, map_structure
from unilayers.training import steps
from unilayers.training.custom import CustomProgram, unpacked
from unilayers.training.eager import EagerProgram
from unilayers.training.steps import Batch, Objectives
from unilayers.variable import Store, place_together


@dataclass
class Position:
    """How far training has come; saved with a checkpoint.

    Args:
        epoch: Epochs completed since the model was made; also keys the order of the samples.
        step: Training steps completed.
    """

    epoch: int = 0
    step: int = 0


class Trainer:
    """Mixin of ``Model``: the training interface."""

    def _init_training(self) -> None:
        self.optimizer: Any = None
        self.stop_training = False
        self.start_epoch = 0
        self.history: History | None = None
        self.position = Position()
        self._objectives = Objectives()
        self._compiled: dict[str, Any] = {}
        self._programs: dict[Any, Any] = {}
        self._place: tuple[str | Backend | None, str | None] = (None, None)

    # ---- compile

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        *,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        auto_scale_loss: bool = True,
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> None:
        """Say how the model is trained.

        Args:
            optimizer: Name, config or instance.
            loss: Name, config, instance or function ``(y_true, y_pred)``; a list or dict of them for several outputs.
            metrics: List of metrics (names, configs, instances); per output for several outputs.
            loss_weights: Factors of the outputs' losses.
            weighted_metrics: As ``metrics``, but these take ``sample_weight`` into account.
            run_eagerly: Whether the model's Python runs at each batch, not only once for a compiled graph. The numbers
                are the same, but ``call`` may print, stop at a breakpoint, and decide by values: ``if ops.sum(x) > 0``.
                Then ops run one by one, which is slower; while it does nothing of the kind, steps that are like ones
                before run as one graph. May also be changed later: ``model.run_eagerly = True``.
            auto_scale_loss: Whether the optimizer of a model with the policy ``mixed_float16`` is put into a
                ``LossScaleOptimizer``.
            backend: Where to run unless a call says otherwise: ``numpy``, ``torch``, ``tensorflow``...
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
        return self._compiled.get("run_eagerly", False)

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
        """The loss tracker and the metrics."""
        return [m for _, m in self._objectives.all_metrics]

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
        return _checked(Batch(self.arranged(x), y, sample_weight))  # type: ignore[attr-defined]

    def _where_to_run(self, backend: str | Backend | None, device: str | None) -> tuple[Backend, str]:
        """Backend and device: of the call, else of ``compile``, else where the weights are now, else the default."""
        if backend is None:
            backend = self._place[0]
            device = device or self._place[1]
        elif device is None and self._place[0] is not None and get_backend(self._place[0]) is get_backend(backend):
            device = self._place[1]
        if backend is None:
            placed = [v.store for v in self.variables if v.store is not None]  # type: ignore[attr-defined]
            if placed and device is None:
                return placed[0].backend, placed[0].device
            backend = placed[0].backend if placed else None
        chosen = get_backend(backend)
        return chosen, chosen.device(device)

    def _store(self, backend: Backend, device: str) -> Store:
        state = steps.state_of(self, self._objectives)  # type: ignore[arg-type]
        store = state[0].store if state and self.run_eagerly else None
        # A step that replaces arrays one by one gains nothing from having them side by side again.
        if store is not None and all(v.store is store for v in state) and (store.backend, store.device) == (
            backend, device,
        ):  # fmt: skip
            return store
        return place_together(state, backend, device)

    def _own_step(self, kind: str) -> bool:
        """Whether the model has written this step itself."""
        name = f"{kind}_step"
        return kind != "predict" and getattr(type(self), name) is not getattr(Trainer, name)

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
            loss = self.compute_loss(x, y, y_pred, weight)
            scaled = self.optimizer.scale_loss(loss)
        trained = self.trainable_weights
        self.optimizer.apply(tape.gradient(scaled, trained), trained)
        return self.compute_metrics(x, y, y_pred, weight, loss)

    def test_step(self: Any, data: Any) -> dict[str, Any]:
        """One evaluation step; see ``train_step``."""
        x, y, weight = unpacked(data)
        y_pred = self(x, training=False)
        loss = self.compute_loss(x, y, y_pred, weight)
        return self.compute_metrics(x, y, y_pred, weight, loss)

    def compute_loss(self: Any, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        """The loss that ``compile`` was told, with penalties and what layers have added.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: The model's outputs.
            sample_weight: Weight of each sample.
        """
        outputs = leaves_of(y_pred)
        if not self._objectives.built:
            steps.complete(self, self._objectives, y, y_pred)
        batch = Batch(x, y, sample_weight)
        terms = [*self._objectives.total_loss(batch, outputs), *self.take_losses(), *self.all_regularization_losses()]
        steps.require_terms(self, terms)
        return steps.total(terms)

    def compute_metrics(
        self: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, loss: Any = None
    ) -> dict[str, Any]:
        """Take a batch into the metrics that ``compile`` was told; gives their values by name.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: The model's outputs.
            sample_weight: Weight of each sample.
            loss: The loss, whose mean is kept, too.
        """
        outputs = leaves_of(y_pred)
        if not self._objectives.built:
            steps.complete(self, self._objectives, y, y_pred)
        self._objectives.update_metrics(Batch(x, y, sample_weight), outputs, ops.zeros(()) if loss is None else loss)
        return {name: m.result() for name, m in self._objectives.all_metrics}

    # ---- fit

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> History:
        """Train for a number of epochs.

        The order of the samples depends on the seed and on how many epochs the model has been trained, so it is the
        same on every backend, and training that is cut into several calls sees what an uncut one sees.

        Args:
            x: Inputs: an array, or a list or dict of arrays for several inputs; the first axis counts samples.
            y: Targets: an array, list or dict.
            batch_size: Samples per step; the last batch of an epoch may be smaller.
            epochs: Epoch number to stop at, counted from ``initial_epoch``.
            verbose: 0 silent, 1 progress bar, 2 a line an epoch; ``auto`` is 1.
            callbacks: Objects with Keras's hooks.
            validation_split: Fraction of the samples, taken from the end, to validate on.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)`` to validate on.
            shuffle: Whether to go through the samples in a new order each epoch.
            class_weight: Weight of the samples of each class, by its number; 1 for those left out.
            sample_weight: Weight of each sample.
            initial_epoch: Number of the first epoch.
            validation_batch_size: As ``batch_size``, for validation.
            validation_freq: Validate every so many epochs.
            backend: Engine to run on; state moves there and stays.
            device: Device of that engine.

        Returns:
            The history: ``history.history["loss"]`` has a value an epoch.

        Raises:
            DataError: if lengths differ or shapes do not fit the model.
        """
        self._require_compiled()
        data = self._data(x, y, _weighted(sample_weight, y, class_weight))
        if validation_split:
            data, held_out = _split(data, validation_split)
            validation_data = validation_data or (held_out.x, held_out.y, held_out.weight)
        held = self._data(*validation_data) if validation_data is not None else None
        engine, where = self._where_to_run(backend, device)
        program = self._program("train", data)
        count = _length(data)
        self.history = History()
        bar = [ProgressBar(verbose=1 if verbose == "auto" else int(verbose))] if verbose else []
        hooks = CallbackList(
            [self.history, *(callbacks or ()), *bar], self, {"epochs": epochs, "steps": math.ceil(count / batch_size)}
        )
        self.stop_training, self.start_epoch = False, initial_epoch
        hooks.call("on_train_begin", {})
        logs: dict[str, Any] = {}
        for epoch in range(self.start_epoch, epochs):  # a callback may have set it
            hooks.call("on_epoch_begin", epoch, {})
            last = self._train_epoch(program, data, (engine, where), batch_size, shuffle, hooks)
            self.position.epoch += 1
            logs = self._results(last if isinstance(program, CustomProgram) else None)
            if held is not None and (epoch + 1) % validation_freq == 0:
                found = self._evaluate(held, validation_batch_size or batch_size, engine, where, hooks)
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
        program: Program | EagerProgram | CustomProgram,
        data: Batch,
        place: tuple[Backend, str],
        batch_size: int,
        shuffle: bool,
        hooks: CallbackList,
    ) -> dict[str, Any]:
        """Gives what the last step returned."""
        own = isinstance(program, CustomProgram)
        store = Store(*place, []) if own else self._store(*place)
        self._reset_metrics(store, own)
        arrays, outputs = data.leaves, dict[str, Any]()
        for number, rows in enumerate(batches(_length(data), batch_size, self.root_seed, self.position.epoch, shuffle)):  # type: ignore[attr-defined]
            hooks.call("on_train_batch_begin", number, {})
            if not program.placed(store):  # a callback moved the state, or the first step created some
                store = self._store(*place)
            outputs = program.run(store, [a[rows] for a in arrays])
            self.position.step += 1
            hooks.batch_end("on_train_batch_end", number, _BatchLogs(self, place[0], outputs, own))
            if self.stop_training:
                break
        return outputs

    # ---- evaluate and predict

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int = 32,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        callbacks: Sequence[Callback] | None = None,
        return_dict: bool = False,
        *,
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> Any:
        """The loss and the metrics on data, in inference mode.

        Args:
            x: Inputs.
            y: Targets.
            batch_size: Samples per step; does not change the result.
            verbose: 0 is silent.
            sample_weight: Weight of each sample.
            callbacks: Objects with Keras's hooks.
            return_dict: Whether to return a dict by name instead of a list (or the loss alone).
            backend: Engine to run on.
            device: Device of that engine.
        """
        self._require_compiled()
        data = self._data(x, y, sample_weight)
        engine, where = self._where_to_run(backend, device)
        steps_ = math.ceil(_length(data) / batch_size)
        found = self._evaluate(data, batch_size, engine, where, CallbackList(callbacks or (), self, {"steps": steps_}))
        if verbose:
            print(on_one_line(found))
        values = list(found.values())
        return found if return_dict else values if len(values) > 1 else values[0]

    def _evaluate(
        self, data: Batch, batch_size: int, engine: Backend, where: str, hooks: CallbackList
    ) -> dict[str, Any]:
        program = self._program("test", data)
        own = isinstance(program, CustomProgram)
        store = Store(engine, where, []) if own else self._store(engine, where)
        self._reset_metrics(store, own)
        hooks.call("on_test_begin", {})
        arrays, outputs = data.leaves, dict[str, Any]()
        for number, rows in enumerate(_slices(_length(data), batch_size)):
            hooks.call("on_test_batch_begin", number, {})
            if not program.placed(store):
                store = self._store(engine, where)
            outputs = program.run(store, [a[rows] for a in arrays])
            hooks.batch_end("on_test_batch_end", number, _BatchLogs(self, engine, outputs, own))
        found = self._results(outputs if own else None)
        hooks.call("on_test_end", found)
        return found

    def predict(
        self,
        x: Any,
        batch_size: int = 32,
        verbose: int | str = "auto",
        callbacks: Sequence[Callback] | None = None,
        *,
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> Any:
        """The outputs for data, in inference mode, as NumPy arrays; bfloat16 as float32, since NumPy does not have it.

        Args:
            x: Inputs.
            batch_size: Samples per step.
            verbose: Kept for Keras's signature; nothing is printed.
            callbacks: Objects with Keras's hooks.
            backend: Engine to run on.
            device: Device of that engine.
        """
        data = self._data(x)
        engine, where = self._where_to_run(backend, device)
        program: Any = self._program("predict", data)
        store = self._predict_store(program, engine, where)
        hooks = CallbackList(callbacks or (), self, {"steps": math.ceil(_length(data) / batch_size)})
        hooks.call("on_predict_begin", {})
        parts = []
        for number, rows in enumerate(_slices(_length(data), batch_size)):
            hooks.call("on_predict_batch_begin", number, {})
            if not program.placed(store):
                store = self._predict_store(program, engine, where)
            outputs = program.run(store, [a[rows] for a in data.leaves])
            parts.append([engine.get(outputs[str(i)]) for i in range(len(outputs))])
            hooks.call("on_predict_batch_end", number, {})
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
        weights = _weighted(sample_weight, y, class_weight)
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
        return self.predict(x, batch_size=max(1, _length(Batch(x))), verbose=0, backend=backend, device=device)


def _read(metric: Any) -> Any:
    """What a metric says: a number, or an array where it says several."""
    value = ops.to_numpy(metric.result())
    return float(value.item()) if value.size == 1 else value


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


def _length(data: Batch) -> int:
    return len(data.leaves[0]) if data.leaves else 0


def _weighted(sample_weight: Any, y: Any, class_weight: Mapping[int, float] | None) -> Any:
    """Sample weights that also hold the weight of each sample's class: its label, or the largest of its row."""
    if class_weight is None:
        return sample_weight
    if y is None or isinstance(y, Mapping) or (isinstance(y, (list, tuple)) and any(hasattr(p, "shape") for p in y)):
        raise DataError("class_weight needs targets of one output", where="fit(class_weight=...)")
    labels = ops.to_numpy(y)
    labels = labels.argmax(-1) if labels.ndim > 1 and labels.shape[-1] > 1 else labels.reshape(len(labels), -1)[:, 0]
    weights = np.array([class_weight.get(int(c), 1.0) for c in labels], "float32")
    return weights if sample_weight is None else weights * ops.to_numpy(sample_weight)


def _slices(count: int, batch_size: int) -> Iterator[slice]:
    return (slice(i, min(i + batch_size, count)) for i in range(0, count, batch_size))


def _checked(data: Batch) -> Batch:
    """The data as arrays of one length.

    Raises:
        DataError: no samples, lengths that differ, or an array that is not numeric.
    """

    def array(x: Any) -> Any:
        if x is None:
            return None
        a = ops.to_numpy(x)
        if a.dtype == object or a.dtype.kind in "USO":
            raise DataError(
                "data is not numeric", received=f"dtype {a.dtype}", fix="Pass arrays of numbers with equal shapes"
            )
        return a.astype("int32") if a.dtype.kind in "iu" and a.dtype.itemsize == 8 else a

    converted = Batch(*(map_structure(array, _plain(part)) for part in (data.x, data.y, data.weight)))
    lengths = [len(a) if a.ndim else 0 for a in converted.leaves]
    if not lengths or lengths[0] == 0:
        raise DataError("no samples", received=f"shapes {[a.shape for a in converted.leaves]}")
    if len(set(lengths)) > 1:
        raise DataError(
            "arrays of different lengths", expected="as many targets and weights as inputs", received=str(lengths)
        )
    return converted


def _plain(part: Any) -> Any:
    """A list of numbers is an array, a list of arrays is several inputs."""
    if isinstance(part, (list, tuple)) and part and not any(hasattr(p, "shape") for p in part):
        return np.asarray(part)
    return part


def _split(data: Batch, fraction: float) -> tuple[Batch, Batch]:
    at = split_index(_length(data), fraction)

    def part(rows: slice) -> Batch:
        return Batch(
            *(map_structure(lambda a: None if a is None else a[rows], p) for p in (data.x, data.y, data.weight))
        )

    return part(slice(0, at)), part(slice(at, None))
