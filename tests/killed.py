"""A program that trains a recipe in processes that are killed again and again.

Arguments: the recipe, the folder of a run, where to write the count, and how often to kill. A killed process dies at a
call of some Python function, drawn among all those of a whole run, or among those with which files are written: a fast
machine kills as often as a slow one. When a run has come to its end it is renamed to ``FOLDER-1``, ``FOLDER-2``..., and
the next one begins.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from unilayers.backend import get_backend
from unilayers.callbacks import LambdaCallback
from unilayers.recipe import load_recipe
from unilayers.saving import write_atomically


def in_a_process(recipe: str, folder: Path, writing: bool, last: int | None, count: Path | None = None) -> bool:
    """Begin the run or go on with it; whether it came to its end.

    Args:
        recipe, folder: What to train, and where.
        writing: Whether calls count only where a file is written.
        last: The call at which it dies, counted from the end of its first step; None to live.
        count: Where to write how many calls there were.
    """
    process = os.fork()  # the framework is imported already, but has started nothing
    if process == 0:
        calls = 0

        def look(frame: FrameType, event: str, argument: object) -> None:
            nonlocal calls
            calls += not writing or frame.f_code is write_atomically.__code__
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)

        def begin(batch: int, logs: Any) -> None:
            if sys.getprofile() is None:
                sys.setprofile(look)

        callbacks = [LambdaCallback(on_train_batch_end=begin)]
        load_recipe(recipe).train(folder, resume=(folder / "recipe.yaml").is_file(), callbacks=callbacks, verbose=0)
        sys.setprofile(None)
        if count is not None:
            count.write_text(str(calls))
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    if status != 0 and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        raise SystemExit(f"the run in {folder} ended with status {status}")
    return status == 0


def main(recipe: str, name: str, count: str, wanted: str) -> None:
    get_backend(load_recipe(recipe).backend)
    folder, rng, kills, runs, calls = Path(name), np.random.default_rng(0), 0, 0, []
    for writing in (False, True):
        in_a_process(recipe, Path(f"{name}-{'whole' if writing else 0}"), writing, None, Path(count))
        calls.append(int(Path(count).read_text()))
    while kills < int(wanted):
        while not in_a_process(recipe, folder, bool(kills % 2), int(rng.integers(1, calls[kills % 2]))):
            kills += 1
        runs += 1
        folder.rename(f"{name}-{runs}")
    Path(count).write_text(f"{runs} {kills}")


if __name__ == "__main__":
    main(*sys.argv[1:])
