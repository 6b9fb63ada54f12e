"""Which backends the tests run on, and what happens where one is not installed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from unilayers import (
    config,
    ops,  # noqa: F401  (the records that a backend's table is checked against)
)
from unilayers.backend import Backend, backend_names, get_backend
from unilayers.errors import BackendError
from unilayers.random import default_seed, set_random_seed

collect_ignore_glob = ["scripts/*"]  # programs for Keras, which test_scripts runs
BACKENDS = backend_names()
EXPECTED = [name for name in os.environ.get("UNILAYERS_EXPECT_BACKENDS", "").split(",") if name]
_REASON = "backend not installed: "
NO_DEVICE = "no such CUDA device for backend "


def require_backend(name: str) -> Backend:
    """The backend, or a skipped test where its framework is not installed.

    With ``UNILAYERS_EXPECT_BACKENDS=numpy,torch`` these must be there: the test fails instead. A backend that is
    installed and broken always fails.
    """
    try:
        return get_backend(name)
    except BackendError as error:
        if "needs the package" not in str(error):
            raise
        if name in EXPECTED:
            pytest.fail(f"UNILAYERS_EXPECT_BACKENDS names {name}: {error}")
        pytest.skip(_REASON + name)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every registered backend in turn."""
    return require_backend(request.param)


@pytest.fixture(autouse=True)
def _same_defaults() -> Iterator[None]:
    """A test that sets the default seed, dtype or policy does not set it for others."""
    before = default_seed()
    with config.dtype_scope(None):
        yield
    if default_seed() != before:
        set_random_seed(before)


# For tests of very many programs: on engines that take long to compile each they are among the slow ones.
EACH = [pytest.param(b, marks=[pytest.mark.slow] * (b in ("tensorflow", "jax"))) for b in BACKENDS]
each_backend = pytest.mark.parametrize("backend", EACH, indirect=True)
each_name = pytest.mark.parametrize("backend", EACH)


def pytest_sessionstart(session: pytest.Session) -> None:
    unknown = sorted(set(EXPECTED) - set(BACKENDS))
    if unknown:
        raise pytest.UsageError(f"UNILAYERS_EXPECT_BACKENDS names unregistered backends: {unknown}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests each missing backend cost, and each without a CUDA device."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    for told, why in ((_REASON, "is not installed"), (NO_DEVICE, "sees no CUDA device")):
        missing = Counter(r.partition(told)[2] for r in reasons if told in r)
        for name, count in sorted(missing.items()):
            terminalreporter.write_line(f"backend {name} {why}: {count} tests skipped")
