"""CuPy's devices, and why there may be none."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from unilayers.hardware import Facts, Hardware, host

from .choices import DETERMINISTIC


def facts(device: str) -> Facts:
    if device == "cpu":
        return host()
    cuda, number = import_module("cupy").cuda, int(device.partition(":")[2])
    properties = cuda.runtime.getDeviceProperties(number)
    name = properties["name"].decode()
    return Facts(name, properties["totalGlobalMem"], f"{properties['major']}.{properties['minor']}")


def missing() -> str:
    """Why CuPy has no device: it is not there, or says so itself."""
    if find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'unilayers[cuda]'"
    try:
        count = import_module("cupy").cuda.runtime.getDeviceCount()
    except Exception as error:  # no driver, a broken installation: each has its own class in CuPy
        return f"CuPy finds no device: {error}"
    return "" if count else "CuPy finds no device"


def deterministic(on: bool) -> None:
    DETERMINISTIC.set(on)


HARDWARE = Hardware(facts, missing, deterministic=deterministic)
