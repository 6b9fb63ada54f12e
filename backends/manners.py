"""How a framework is to behave while it is loaded: it leaves the environment as it was, and says nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def same_environment(**settings: str) -> Iterator[None]:
    """Variables that a framework sets inside the block are gone after it.

    Args:
        settings: Variables to set for the block, where the user has not.
    """
    before = dict(os.environ)
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in [n for n in os.environ if n not in before]:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def silence() -> Iterator[None]:
    """What is written to the error stream inside the block, also from C++, is lost. Exceptions are not."""
    with suppress(Exception):
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no such stream
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
