"""The wheel holds everything and works away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PREFIX = {
    "backends": "unilayers/backends",
    "cli": "unilayers/cli",
    "recipes": "unilayers/recipes",
    "unilayers": "unilayers",
}


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    run("git", "clone", "--quiet", str(ROOT), str(source), cwd=out)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source), cwd=out)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_source_recipe_and_data_file(wheel: Path) -> None:
    tracked = run("git", "ls-files", *PREFIX, cwd=ROOT).split()
    expected = {f.replace(top, PREFIX[top], 1) for f in tracked for top in [f.split("/")[0]]}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert expected <= packed, sorted(expected - packed)


@pytest.mark.slow
def test_the_wheel_trains_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    bin_ = tmp_path / "venv" / "bin"
    run(str(bin_ / "pip"), "install", "--quiet", str(wheel), cwd=tmp_path)
    out = run(str(bin_ / "unilayers"), "train", "digits-mlp", "--epochs", "1", "--out", "run", cwd=tmp_path)
    assert "val_accuracy" in out
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "recipe.yaml", "history.jsonl", "checkpoint.safetensors", "environment.json",
    }  # fmt: skip
    packages = run(str(bin_ / "pip"), "list", cwd=tmp_path).lower()
    assert not any(name in packages for name in ("torch", "tensorflow", "jax", "scipy"))
