"""Callbacks that write files: checkpoints, backups, tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from unilayers.callbacks.base import Callback, Saver
from unilayers.callbacks.watch import Monitor
from unilayers.errors import CheckpointError, UnilayersError, nearest


class Every:
    """Counts training steps: whether something is due after this one.

    Args:
        freq: ``"epoch"`` (never after a step) or a number of steps.
        where: Named in the error for anything else.
    """

    def __init__(self, freq: str | int, where: str) -> None:
        if freq != "epoch" and (not isinstance(freq, int) or isinstance(freq, bool) or freq < 1):
            raise UnilayersError(
                "not a frequency", where=where, expected="'epoch' or a number of batches", received=repr(freq)
            )
        self.freq, self.steps = freq, 0

    def due(self) -> bool:
        """Count one step."""
        self.steps += 1
        if self.steps != self.freq:
            return False
        self.steps = 0
        return True


class ModelCheckpoint(Monitor):
    """Saves the model after epochs or batches. A file is written whole or not at all; folders are made as needed.

    Args:
        filepath: Where to; may hold ``{epoch}``, ``{batch}`` and log names: ``"best-{val_loss:.3f}.safetensors"``.
        monitor: Name of the value that ``save_best_only`` compares.
        verbose: 1 prints what is saved.
        save_best_only: Whether to save only when it improved.
        save_weights_only: Whether to leave out optimizer state and configuration.
        mode: ``min``, ``max``, or ``auto``: less is better for a loss, and for a metric what its ``direction`` says.
        save_freq: ``"epoch"``, or after how many batches; counted on from one epoch to the next.
        initial_value_threshold: The value that the first one saved must beat.
    """

    state_names = ("best", "_every.steps")

    def __init__(
        self,
        filepath: str | PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, best=initial_value_threshold)
        self.filepath, self.verbose = str(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.save_freq, self._epoch = save_freq, 0
        self._every = Every(save_freq, "ModelCheckpoint.save_freq")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._every.due():
            self._save({"batch": batch + 1}, logs or {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        if self.save_freq == "epoch":
            self._save({}, logs or {})

    def _save(self, place: Mapping[str, int], logs: Mapping[str, Any]) -> None:
        if self.save_best_only:
            value = self.value(logs)
            if value is not None and np.ndim(value) == 0 and not self.improved(value):
                return
        try:
            path = self.filepath.format_map(_Names(logs, {"epoch": self._epoch + 1, **place}))
        except KeyError as error:
            raise UnilayersError(
                f"no value for {error} in the name of the file", where="ModelCheckpoint.filepath",
                fix=nearest(str(error.args[0]), ["epoch", *place, *logs]),
            ) from None  # fmt: skip
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)
        if self.verbose:
            print(f"Epoch {self._epoch + 1}: saved {path}")


class _Names(dict[str, Any]):
    """What a file's name may hold; logs are read from the device only where they are named."""

    def __init__(self, logs: Mapping[str, Any], place: Mapping[str, int]) -> None:
        super().__init__(place)
        self._logs = logs

    def __missing__(self, key: str) -> Any:
        return self._logs[key]


class BackupAndRestore(Saver):
    """Saves all of the training state, so that the same ``fit`` goes on where a broken one was saved last, and gives
    what an unbroken one gives: also in the middle of an epoch, with its other batches and its running values, and with
    the states of the other callbacks (see ``Callback.state_names``).

    Args:
        backup_dir: A folder for this run alone.
        save_freq: ``"epoch"``, or after how many batches; counted on from one epoch to the next.
        double_checkpoint: Whether to keep the backup before the last, too, for a file system that may lose the last.
        delete_checkpoint: Whether the backup is removed when training has ended.

    Raises:
        CheckpointError: if the backup is damaged, and there is none before it.
    """

    state_names = ("_every.steps",)

    def __init__(
        self,
        backup_dir: Any,
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        self.path = Path(backup_dir) / "backup.safetensors"
        self.previous = self.path.with_name("previous.safetensors")
        self.save_freq = save_freq
        self.double_checkpoint, self.delete_checkpoint = double_checkpoint, delete_checkpoint
        self._every = Every(save_freq, "BackupAndRestore.save_freq")

    def on_train_begin(self, logs: Any = None) -> None:
        self._every, self._due = Every(self.save_freq, "BackupAndRestore.save_freq"), False
        there = [path for path in (self.path, self.previous) if path.is_file()]
        if not there:
            return
        from unilayers.saving import load_state

        model = self.model
        if not model.built:
            raise UnilayersError(
                "a model without weights cannot be restored", where="BackupAndRestore",
                fix="Call it on a batch of data before fit",
            )  # fmt: skip
        begun = model.position.epoch
        try:
            load_state(model, there[0])
        except CheckpointError:
            if len(there) == 1:
                raise
            del there[0]
            load_state(model, there[0])
        model.start_epoch += model.position.epoch - begun
        self.go_on(there[0])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._every.due():
            self._due = True
        last = batch + 1 == self.params.get("steps") or self.model.stop_training
        if self._due and not last:  # after the last one, the epoch is completed first
            self._save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._due or self.save_freq == "epoch":
            self._save()

    def _save(self) -> None:
        if self.double_checkpoint and self.path.is_file():
            self.path.replace(self.previous)
        self._due = False
        self.save(self.path)

    def on_train_end(self, logs: Any = None) -> None:
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)
            self.previous.unlink(missing_ok=True)


class CSVLogger(Callback):
    """Writes the values of each epoch into a table, line by line. Training that is cut and resumed goes on with the
    table as it was when the checkpoint was saved.

    Args:
        filename: The file.
        separator: Stands between values.
        append: Whether to go on with a file that is there.
    """

    state_names = ("_names", "_size")

    def __init__(self, filename: str | PathLike[str], separator: str = ",", append: bool = False) -> None:
        self.path, self.separator, self.append = Path(filename), separator, append

    def on_train_begin(self, logs: Any = None) -> None:
        self._names: list[str] | None = None
        self._size = 0  # of what counts in the file, in bytes
        if self.append and self.path.is_file() and self.path.stat().st_size:
            self._size = self.path.stat().st_size
            with self.path.open(newline="") as file:
                self._names = next(csv.reader(file, delimiter=self.separator))[1:]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = dict(logs or {})
        with self.path.open("a", newline="") as file:
            if file.tell() < self._size:  # it was taken away
                self._names, self._size = None, 0
            file.truncate(self._size)  # what an earlier training left, or this one after its checkpoint
            table = csv.writer(file, delimiter=self.separator, lineterminator="\n")
            if self._names is None:
                self._names = sorted(values)
                table.writerow(["epoch", *self._names])
            table.writerow([epoch, *(values.get(name, "NA") for name in self._names)])
        self._size = self.path.stat().st_size
