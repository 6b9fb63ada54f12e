"""Callbacks that write files: checkpoints, backups, tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from unilayers.callbacks.base import Callback
from unilayers.callbacks.watch import Monitor
from unilayers.errors import UnilayersError


class ModelCheckpoint(Monitor):
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


class BackupAndRestore(Callback):
    """Saves all of the training state after each epoch, so that the same ``fit`` begins where a broken one stopped.

    Args:
        backup_dir: A folder for this run alone.
        save_freq: ``"epoch"``.
        delete_checkpoint: Whether the backup is removed when training has ended.
    """

    def __init__(self, backup_dir: Any, save_freq: str = "epoch", delete_checkpoint: bool = True) -> None:
        if save_freq != "epoch":
            raise UnilayersError(
                "a backup is made after each epoch", where="BackupAndRestore.save_freq", expected="'epoch'",
                received=repr(save_freq),
            )  # fmt: skip
        self.path = Path(backup_dir) / "backup.safetensors"
        self.delete_checkpoint = delete_checkpoint

    def on_train_begin(self, logs: Any = None) -> None:
        if self.path.is_file():
            from unilayers.saving import load_state  # it knows models, which are above callbacks

            begun = self.model.position.epoch
            load_state(self.model, self.path)
            self.model.start_epoch += self.model.position.epoch - begun

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.model.save(self.path)

    def on_train_end(self, logs: Any = None) -> None:
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)


class CSVLogger(Callback):
    """Writes the values of each epoch into a table, line by line.

    Args:
        filename: The file.
        separator: Stands between values.
        append: Whether to go on with a file that is there.
    """

    def __init__(self, filename: Any, separator: str = ",", append: bool = False) -> None:
        self.path, self.separator, self.append = Path(filename), separator, append

    def on_train_begin(self, logs: Any = None) -> None:
        self._names: list[str] | None = None
        if self.append and self.path.is_file() and self.path.stat().st_size:
            with self.path.open(newline="") as file:
                self._names = next(csv.reader(file, delimiter=self.separator))[1:]
        else:
            self.path.write_text("")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = dict(logs or {})
        with self.path.open("a", newline="") as file:
            table = csv.writer(file, delimiter=self.separator, lineterminator="\n")
            if self._names is None:
                self._names = sorted(values)
                table.writerow(["epoch", *self._names])
            table.writerow([epoch, *(values.get(name, "NA") for name in self._names)])
