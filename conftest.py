"""For all tests: one thread per process, as they share the cores; examples run in a folder of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before any framework is loaded. TensorFlow imports Keras, which would then choose TensorFlow; and threads of several
# test processes that wait for each other cost more than they gain.
os.environ.setdefault("KERAS_BACKEND", "torch")
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(_name, "1")
# The NumPy backend's own kernels are what is tested, except where a test asks for oneDNN; "on" here asks for it always.
os.environ.setdefault("UNILAYERS_ONEDNN", "off")


@pytest.fixture(autouse=True)
def _own_folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
    yield
