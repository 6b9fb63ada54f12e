"""Functions called in fresh processes, so that engines share neither threads, memory nor warm caches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unilayers.errors import UnilayersError


@contextmanager
def child(
    module: str, function: str, told: Any, log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A fresh process that calls a function without arguments; it does not outlive the block.

    Args:
        module: Where the function is.
        function: Its name.
        told: What it finds on its standard input, as JSON.
        log: Takes what the process prints.
        variables: Of its environment, beside those of this one.
    """
    command = [sys.executable, "-c", f"from {module} import {function}; {function}()"]
    with log.open("w", encoding="utf-8") as file:
        environment = {**os.environ, **(variables or {})}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, text=True, env=environment)
    try:
        assert process.stdin is not None
        with process.stdin as pipe:
            json.dump(told, pipe)
        yield process
    finally:
        process.kill()
        process.wait()


def how_it_ended(code: int, log: Path) -> str:
    """In words, with the last line that a process printed.

    Args:
        code: Its exit code.
        log: What it printed.
    """
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    how = f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"the process was {how}" + (f"; its last words: {lines[-1].strip()}" if lines else "")


def in_words(error: Exception) -> str:
    """What went wrong, on one line."""
    text = str(error) if isinstance(error, UnilayersError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def called(module: str, function: str, arguments: Mapping[str, Any], own: bool = True) -> tuple[Any, str]:
    """Call a function in a fresh process: its result, and why there is none; what it prints is not seen.

    Args:
        module: Where the function is.
        function: Its name.
        arguments: Its arguments; they and the result must be JSON.
        own: False: in this process after all.

    Example:
        >>> called("math", "hypot", {}, own=False)
        (0.0, '')
        >>> called("json", "loads", {"s": "{"}, own=False)[1].partition(":")[0]
        'JSONDecodeError'
    """
    if not own:
        return _answer(module, function, arguments)
    with TemporaryDirectory() as folder:
        answer, log = Path(folder, "answer"), Path(folder, "log")
        with child(__name__, "main", [module, function, dict(arguments), str(answer)], log) as process:
            code = process.wait()
        if not answer.is_file():
            return None, how_it_ended(code, log)
        result, problem = json.loads(answer.read_text("utf-8"))
        return result, problem


def _answer(module: str, function: str, arguments: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        return getattr(import_module(module), function)(**arguments), ""
    except Exception as error:
        return None, in_words(error)


def main() -> None:
    """What a child process does: the call on its standard input."""
    *call, path = json.load(sys.stdin)
    Path(path).write_text(json.dumps(_answer(*call)), "utf-8")
