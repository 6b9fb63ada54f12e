"""The programs in ``scripts``, as people write them for Keras, run with the import changed; the slow tests run them by
Keras itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))
IMPORTS = {"import keras": "import unilayers as keras", "from keras import": "from unilayers import"}


def run(text: str, name: str) -> Any:
    """What the script calls its score."""
    scope: dict[str, Any] = {"__name__": name}
    exec(compile(text, name, "exec"), scope)
    return np.asarray(scope["score"], dtype="float64")


def ours(path: Path) -> str:
    """The script with the import changed, and nothing else."""
    text = path.read_text()
    for theirs, mine in IMPORTS.items():
        text = re.sub(rf"^{theirs}\b", mine, text, flags=re.MULTILINE)
    return text


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_runs_with_the_import_changed(path: Path) -> None:
    assert np.isfinite(run(ours(path), path.stem)).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_the_script_is_one_for_keras(path: Path) -> None:
    pytest.importorskip("keras")
    assert run(path.read_text(), path.stem).shape == run(ours(path), path.stem).shape


def test_there_are_as_many_as_were_promised() -> None:
    assert len(SCRIPTS) >= 20
