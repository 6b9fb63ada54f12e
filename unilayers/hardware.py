"""What engines know of the devices they run on, beyond their names."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Facts:
    """A device.

    Args:
        name: The model, as its maker calls it.
        memory: Bytes it has; 0 if that is not known.
        capability: CUDA's compute capability, ``"9.0"``.

    Example:
        >>> str(Facts("a card", 80 * 2**30, "9.0"))
        'a card, 80 GiB, compute capability 9.0'
    """

    name: str = ""
    memory: int = 0
    capability: str = ""

    def __str__(self) -> str:
        memory = f"{self.memory / 2**30:.3g} GiB" if self.memory else ""
        capability = f"compute capability {self.capability}" if self.capability else ""
        return ", ".join(part for part in (self.name, memory, capability) if part)


def host() -> Facts:
    """This machine's processor and memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        memory = 0
    return Facts(platform.machine(), memory)


def of_host(device: str) -> Facts:
    """The facts of the one device that is always there."""
    return host() if device == "cpu" else Facts()


def exhausted(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, in Python's own words."""
    return isinstance(error, MemoryError)


@dataclass(frozen=True)
class Hardware:
    """What a backend knows of its devices.

    Args:
        facts: Those of a device.
        missing: Why there is no CUDA device, and what to do about it; empty where there is one.
        exhausted: Whether an exception says that a device's memory ran out.
        deterministic: ``deterministic(True)`` lets compiled graphs use only what gives the same bits in every run;
            ``False`` lets them choose again, as far as the engine can go back.
    """

    facts: Callable[[str], Facts] = of_host
    missing: Callable[[], str] = str
    exhausted: Callable[[BaseException], bool] = exhausted
    deterministic: Callable[[bool], None] = lambda on: None


def installed(package: str) -> bool:
    """Whether a distribution is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
