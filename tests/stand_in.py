"""A plugin for pytest, ``-p tests.stand_in``: CuPy's stand-in from the start, so that tests for devices run without."""

import sys

from tests.host_cuda import OtherModule


def pytest_configure() -> None:
    sys.modules["cupy"] = OtherModule("cupy")
