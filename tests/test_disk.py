"""Disks that are full, folders that cannot be written to, checkpoints that are not what they should be: a clear error,
and the checkpoint before stays as good as it was."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import unilayers as ul
from tests.test_callbacks import X, Y, make
from tests.test_cli import fail
from tests.test_recipes import SMALL, changed, comparable, files
from tests.test_saving import joined, parted
from unilayers import callbacks
from unilayers.errors import CheckpointError, UnilayersError
from unilayers.recipe import Recipe, open_run
from unilayers.recipe.run import CHECKPOINT, HISTORY
from unilayers.saving import VERSION

REASONS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO]
STAGES = ["open", "write", "sync", "replace"]


class Full(io.BufferedWriter):
    """A file that takes a part of what is written and no more."""

    reason = 0

    def write(self, content: Any) -> int:
        super().write(content[: len(content) // 2])
        raise OSError(self.reason, os.strerror(self.reason))


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, stage: str, reason: int, name: str) -> Iterator[None]:
    """Inside the block files with this in their names cannot be written, by one of the steps that it takes."""
    if stage == "sync" and sys.platform != "linux":
        pytest.skip("a file that is open does not tell its name")
    opened, replaced, synced = Path.open, Path.replace, os.fsync

    def refuse() -> None:
        raise OSError(reason, os.strerror(reason))

    def open_(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if name not in path.name or mode[0] not in "xaw":
            return opened(path, mode, *rest, **more)
        if stage == "open":
            refuse()
        if stage != "write":
            return opened(path, mode, *rest, **more)
        file = Full(io.FileIO(path, mode.replace("b", "")))
        file.reason = reason
        return file if "b" in mode else io.TextIOWrapper(file, "utf-8", write_through=True)

    def replace(path: Path, target: Any) -> Any:
        return refuse() if stage == "replace" and name in path.name else replaced(path, target)

    def sync(number: int) -> None:
        if stage == "sync" and name in str(Path(f"/proc/self/fd/{number}").readlink()):
            refuse()
        synced(number)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_)
        patch.setattr(Path, "replace", replace)
        patch.setattr(os, "fsync", sync)
        yield


def require_as_if_nothing_had_been(run: Path, tmp_path: Path) -> None:
    """The run goes on, and ends as one that was never cut."""
    Recipe(SMALL).train(run, resume=True, verbose=0)
    Recipe(SMALL).train(tmp_path / "whole", verbose=0)
    assert comparable(run) == comparable(tmp_path / "whole")
    ours, expected = (load_file(folder / CHECKPOINT) for folder in (run, tmp_path / "whole"))
    assert {k: x.tobytes() for k, x in ours.items()} == {k: x.tobytes() for k, x in expected.items()}


@pytest.mark.parametrize("reason", REASONS, ids=lambda r: errno.errorcode[r])
@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_that_cannot_be_written(
    stage: str, reason: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    Recipe(SMALL).train(run, epochs=1, verbose=0)
    before = (run / CHECKPOINT).read_bytes()
    with failing(monkeypatch, stage, reason, CHECKPOINT), pytest.raises(CheckpointError) as caught:
        Recipe(SMALL).train(run, resume=True, verbose=0)
    said = f"{run / CHECKPOINT}: cannot write the checkpoint. Received [Errno {reason}] {os.strerror(reason)}"
    assert str(caught.value).startswith(said)
    assert (run / CHECKPOINT).read_bytes() == before
    assert not [path for path in run.iterdir() if path.name.startswith(".")]  # nothing half written is left
    open_run(run)
    require_as_if_nothing_had_been(run, tmp_path)


@pytest.mark.parametrize("name", ["recipe.yaml", "environment.json", HISTORY])
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_cannot_be_written(name: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    Recipe(SMALL).train(run, epochs=1, verbose=0)
    before = files(run)
    with failing(monkeypatch, stage, errno.ENOSPC, name), pytest.raises(UnilayersError) as caught:
        Recipe(SMALL).train(run, resume=True, verbose=0)
    assert str(caught.value).startswith(f"{run}: cannot write the run. Received [Errno 28] No space left on device")
    assert (run / name).read_bytes() == before[name] and (run / CHECKPOINT).read_bytes() == before[CHECKPOINT]
    require_as_if_nothing_had_been(run, tmp_path)


def test_a_line_of_the_history_that_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    begun = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: stack.__enter__() if epoch == 1 else None)
    stack = failing(monkeypatch, "write", errno.ENOSPC, HISTORY)
    with pytest.raises(UnilayersError, match="cannot write the run"):
        Recipe(SMALL).train(run, callbacks=[begun], verbose=0)
    stack.__exit__(None, None, None)
    lines = (run / HISTORY).read_text().splitlines()
    assert len(lines) == 2 and not lines[1].endswith("}")
    require_as_if_nothing_had_been(run, tmp_path)


@pytest.mark.parametrize("double", [False, True])
def test_backups_and_checkpoints_of_callbacks(double: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = callbacks.BackupAndRestore(tmp_path, double_checkpoint=double, delete_checkpoint=False)
    best = callbacks.ModelCheckpoint(tmp_path / "best.safetensors")
    stack = failing(monkeypatch, "write", errno.ENOSPC, "backup")
    begun = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: stack.__enter__() if epoch == 2 else None)
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        make().fit(X, Y, epochs=4, verbose=0, callbacks=[begun, best, keep])
    stack.__exit__(None, None, None)
    ul.load_model(tmp_path / "best.safetensors")
    whole = make().fit(X, Y, epochs=4, verbose=0).history["loss"]
    rest = make().fit(X, Y, epochs=4, verbose=0, callbacks=[keep])
    assert (rest.epoch, rest.history["loss"]) == ([2, 3], whole[2:])


LIMITED = """
import resource, sys
from unilayers.callbacks import LambdaCallback
from unilayers.recipe import load_recipe

def limit(epoch, logs):
    if epoch == 1:  # bytes, more than history and recipe need, fewer than the checkpoint does
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))

load_recipe(sys.argv[1]).train(sys.argv[2], callbacks=[LambdaCallback(on_epoch_begin=limit)], verbose=0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_limit_of_the_system(tmp_path: Path) -> None:
    """Not made up: the system itself refuses to write more than a part of the file."""
    run = tmp_path / "run"
    (tmp_path / "small.yaml").write_text(SMALL)
    size = (Recipe(SMALL).train(tmp_path / "first", epochs=1, verbose=0).folder / CHECKPOINT).stat().st_size
    arguments = [str(tmp_path / "small.yaml"), str(run), str(size // 2)]
    done = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"CheckpointError: {run / CHECKPOINT}: cannot write the checkpoint. Received [Errno 27]" in done.stderr
    assert {path.name for path in run.iterdir()} == {CHECKPOINT, HISTORY, "recipe.yaml", "environment.json"}
    require_as_if_nothing_had_been(run, tmp_path)


@contextmanager
def as_somebody(*folders: Path) -> Iterator[None]:
    """Inside the block nobody may write into the folders, root neither."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    for folder in folders:
        folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other rights there")
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    run = tmp_path / "run"
    Recipe(SMALL).train(run, epochs=1, verbose=0)
    before = files(run)
    with as_somebody(run, tmp_path):
        with pytest.raises(UnilayersError, match="cannot make the run folder: Permission denied"):
            Recipe(SMALL).train(tmp_path / "new", verbose=0)
        with pytest.raises(
            UnilayersError, match=r"run: cannot write the run\. Received \[Errno 13\] Permission denied"
        ):
            Recipe(SMALL).train(run, resume=True, verbose=0)
        model = Recipe(SMALL).build()
        with pytest.raises(CheckpointError, match=r"cannot write the checkpoint\. Received \[Errno 13\]"):
            model.save(run / CHECKPOINT)
    assert files(run) == before
    require_as_if_nothing_had_been(run, tmp_path)


# ---- checkpoints that are not what they should be -------------------------------------------------------------------


def newer(content: bytes) -> bytes:
    header, about, values = parted(content)
    return joined(header, {**about, "version": VERSION + 1}, values)


def tampered(content: bytes) -> bytes:
    header, about, values = parted(content)
    return joined(header, {**about, "position": {"epoch": "1"}}, values)


DAMAGE = {
    "truncated": (lambda content: content[: len(content) // 2], "the checkpoint is damaged or not a safetensors file."),
    "empty": (lambda content: b"", "the checkpoint is damaged or not a safetensors file."),
    "tampered": (tampered, "its description is damaged. Expected a position of epoch, step"),
    "newer": (newer, f"written by a newer version of unilayers. Expected checkpoint version up to {VERSION}. "
                     f"Received {VERSION + 1}. Upgrade with: pip install -U unilayers."),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_run_with_another_checkpoint_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    run, (change, said) = tmp_path / "run", DAMAGE[kind]
    Recipe(SMALL).train(run, epochs=1, verbose=0)
    (run / CHECKPOINT).write_bytes(change((run / CHECKPOINT).read_bytes()))
    before = files(run)
    for use in (lambda: Recipe(SMALL).train(run, resume=True, verbose=0), lambda: open_run(run)):
        with pytest.raises(CheckpointError) as caught:
            use()
        assert str(caught.value).startswith(f"{run / CHECKPOINT}: {said}")
    assert fail("evaluate", run).startswith(f"{run / CHECKPOINT}: {said}")
    assert files(run) == before
    model = Recipe(SMALL).build()
    kept = model.get_weights()
    with pytest.raises(CheckpointError):
        model.load_weights(run / CHECKPOINT)
    assert all((a == b).all() for a, b in zip(kept, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("units: 8", "units: 9", "'dense/kernel' has another shape. Expected (4, 9). Received (4, 8)."),
        ("{units: 3}", "{units: 3, name: head}", "no value for 'head/kernel'."),
        ("Dropout: {rate: 0.25}", "BatchNormalization", "no value for 'batch_normalization/gamma'."),
        ("Adam: {learning_rate: 1e-2}", "SGD: {momentum: 0.5}", "another optimizer. Expected Adam. Received SGD."),
    ],
)
def test_a_checkpoint_of_another_model(old: str, new: str, said: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    Recipe(SMALL).train(run, epochs=1, verbose=0)
    before = files(run)
    with pytest.raises(CheckpointError) as caught:
        Recipe(changed(old, new)).train(run, resume=True, verbose=0)
    assert str(caught.value).startswith((f"{run / CHECKPOINT}: {said}", f"{run}: {said}"))
    assert files(run) == before
    require_as_if_nothing_had_been(run, tmp_path)
