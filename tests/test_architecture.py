"""The shape of the house: who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import, at the top of its files, only what stands before it.
ORDER = [
    "errors",
    "structure",
    "tree",
    "spec",
    "dtype_policies",
    "config",
    "hints",
    "custom",
    "registry",
    "serialization",
    "graph",
    "hardware",
    "backend",
    "memory",
    "ops",
    "autodiff",
    "variable",
    "random",
    "program",
    "initializers",
    "regularizers",
    "constraints",
    "activations",
    "layers",
    "functions",
    "folding",
    "losses",
    "metrics",
    "optimizers",
    "mixed_precision",
    "callbacks",
    "data",
    "training",
    "models",
    "networks",
    "saving",
    "utils",
    "datasets",
    "preprocessing",
    "recipe",
    "runs",
    "compare",
    "timing",
    "sweep",
    "cli",
]
BELOW_BACKENDS = {"errors", "spec", "graph", "hardware", "backend", "ops", "backends"}
FRAMEWORKS = ("torch", "tensorflow", "jax", "cupy", "keras")


def _files() -> list[tuple[str, Path]]:
    """Every source file with the part of the house it belongs to."""
    core = [
        (p.relative_to(ROOT / "unilayers").parts[0].removesuffix(".py"), p) for p in (ROOT / "unilayers").rglob("*.py")
    ]
    return core + [(top, p) for top in ("backends", "cli", "recipes") for p in (ROOT / top).rglob("*.py")]


def _top_level_imports(path: Path) -> list[str]:
    """Absolute names of what a file imports when it is imported; ``if TYPE_CHECKING`` blocks do not count."""
    package = path.relative_to(ROOT).with_suffix("").parts
    package = package if package[0] == "unilayers" else ("unilayers", *package)
    found: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            # In a package's __init__ a relative import starts at the package itself, as it does in its modules.
            base = package[: len(package) - node.level] if node.level else ()
            prefix = ".".join((*base, *(node.module or "").split("."))).strip(".")
            found += [f"{prefix}.{a.name}" for a in node.names]
    return found


def _part(name: str) -> str | None:
    pieces = name.split(".")
    return pieces[1] if pieces[0] == "unilayers" and len(pieces) > 1 else None


@pytest.mark.parametrize(
    ("part", "path"), _files(), ids=lambda x: str(x.relative_to(ROOT)) if isinstance(x, Path) else ""
)
def test_imports_go_downward(part: str, path: Path) -> None:
    if part in ("__init__", "recipes"):
        return
    for name in _top_level_imports(path):
        target = _part(name)
        if target is None or target == part or target == "__version__":
            continue
        if part == "backends":
            assert target in BELOW_BACKENDS, f"{path}: a backend must not import {name}"
        else:
            assert target in ORDER, f"{path}: imports {name}, which has no place in the order"
            assert ORDER.index(target) < ORDER.index(part), f"{path}: {part} must not import {name}"


def test_every_part_has_a_place_in_the_order() -> None:
    parts = {part for part, _ in _files()} - {"__init__", "backends", "recipes"}
    assert parts == set(ORDER)


@pytest.mark.parametrize(
    ("part", "path"),
    [f for f in _files() if f[0] != "backends"],
    ids=lambda x: str(x.relative_to(ROOT)) if isinstance(x, Path) else "",
)
def test_no_backend_is_named_outside_its_folder(part: str, path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
            names = [c.value for c in compared if isinstance(c, ast.Constant)]
            assert not set(names) & {"numpy", *FRAMEWORKS}, f"{path}:{node.lineno} asks for a backend by name"


def _loaded_and_seconds(statement: str) -> tuple[set[str], float]:
    """Frameworks loaded by a statement in a fresh process, and the processor time it took beyond NumPy's import."""
    code = (
        "import time, sys, numpy\n"
        "start = time.process_time()\n"
        f"{statement}\n"
        "print(time.process_time() - start, *{m.partition('.')[0] for m in sys.modules})"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    ).stdout
    seconds, *modules = out.splitlines()[-1].split()
    return set(modules), float(seconds)


HELP = "import contextlib, unilayers.cli\nwith contextlib.suppress(SystemExit): unilayers.cli.main(['--help'])"


@pytest.mark.parametrize("statement", ["import unilayers", HELP], ids=["import", "help"])
def test_starting_is_light(statement: str) -> None:
    runs = [_loaded_and_seconds(statement) for _ in range(3)]
    assert not runs[0][0] & set(FRAMEWORKS)
    assert min(seconds for _, seconds in runs) < 0.3
