"""The benchmark for devices, without one: contestants compute the same, tables are written rightly; no speed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import contestants
from benchmarks.gpu.contestants import BY_HAND, CHOSEN, OURS, by_hand, event_clock
from benchmarks.gpu.report import Report
from benchmarks.suite.contestant import Steps
from benchmarks.suite.runner import deviation
from benchmarks.suite.worker import builder
from benchmarks.suite.workloads import WORKLOADS, short
from tests import host_cuda
from tests.conftest import require_backend


def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if command.engines()[0]:
        pytest.skip("there is a device")
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().out
    assert "There is no CUDA device here, so nothing was run." in said
    assert all(f"{name.partition(':')[2]}: " in said for name in OURS)
    assert not (tmp_path / "out").exists()


def results(make: Callable[[], Any], count: int = 3) -> list[Any]:
    return [r.ravel().tolist() for r in make().results(count)]


@pytest.mark.parametrize("name", [name for name in CHOSEN if name != "R50"])
def test_programs_by_hand_compute_what_the_suite_does(name: str) -> None:
    require_backend("torch")
    w = short(CHOSEN[name])
    wanted = results(lambda: builder("torch:eager")(w, dropout=False))
    assert deviation(results(lambda: by_hand(w, "eager", "cpu", False)), wanted) < 1e-5


def test_resnet_50_is_the_same_in_all_words() -> None:
    """Over one step: fifty layers normalized over six samples make much of a little rounding, already in that one."""
    require_backend("torch")
    w = short(CHOSEN["R50"])
    wanted = results(lambda: builder("torch:eager")(w), 2)
    still = results(lambda: builder("torch:eager")(replace(w, rate=0.0)), 2)
    learned = deviation(still, wanted)
    assert learned > 0.03
    for make in (lambda: by_hand(w, "eager", "cpu", False), lambda: builder("unilayers:numpy")(w)):
        assert deviation(results(make, 2), wanted) < 0.2 * learned


def test_the_built_in_backend_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    if host_cuda.COMPILER is None:
        pytest.skip("no g++ to compile kernels for the host")
    require_backend("torch")
    monkeypatch.setitem(sys.modules, "cupy", host_cuda.OtherModule("cupy"))
    w = short(WORKLOADS["W3"])
    wanted = results(lambda: builder("torch:eager")(w, dropout=False))
    found = results(lambda: contestants.build("unilayers:numpy", w, dropout=False))
    assert deviation(found, wanted) < 1e-5


def test_the_clock_is_the_device_s() -> None:
    now = iter([0.0, 1.5, 4.0])

    class Event:
        def record(self) -> None:
            self.at = next(now)

        def synchronize(self) -> None:
            assert self.at >= 0

    clock = event_clock(Event, lambda a, b: (b.at - a.at) * 1e3)
    assert (clock(), clock()) == (1.5, 4.0)


def made(losses: list[float], seconds: float) -> Callable[..., Any]:
    """A contestant whose steps give these losses and take so long, by a clock that only it moves."""

    def make(clock: list[float]) -> Steps:
        given = iter(losses * 1000)

        def step(x: Any) -> float:
            clock[0] += seconds
            return next(given)

        return Steps(step, [(0,)], np.asarray)

    return make


def test_tables_hold_what_was_measured(tmp_path: Path) -> None:
    clock = [0.0]
    same = [1.0, 0.5]
    kinds = {"torch:eager": (same, 4e-3), "torch:graph": (same, 2e-3), "unilayers:torch": (same, 1e-3)}
    kinds["unilayers:jax"] = [1.0, 0.7], 1e-3

    def make(name: str, w: Any, **options: Any) -> Steps:
        if name not in kinds:
            raise RuntimeError("CUDA error: no kernel image\nand more")
        return made(*kinds[name])(clock)

    w = replace(WORKLOADS["W7"], checked=2)
    found = command.run(
        w, [*kinds, "unilayers:numpy"], 3, 0.1, make, lambda name: lambda: clock[0], lambda name: 12.0
    )  # fmt: skip
    Report({"device": "a card"}, [(w, found)]).write(tmp_path)
    text = (tmp_path / "results.md").read_text()
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in text.splitlines()
            if line.startswith("| ")}  # fmt: skip
    assert rows["torch:eager"][0] == "4.00" and rows["torch:eager"][3] == "2.00"
    assert rows["torch:graph"][0] == "2.00" and rows["torch:graph"][3] == "1.00"
    assert rows["unilayers:torch"][0] == "1.00" and rows["unilayers:torch"][3] == "0.500"
    assert "computes something else" in rows["unilayers:jax"][6] and rows["unilayers:jax"][3] == ""
    assert rows["unilayers:numpy"][0] == "did not run: RuntimeError: CUDA error: no kernel image"
    data = json.loads((tmp_path / "results.json").read_text())
    assert [len(r["turns"]) for r in data["workloads"][0]["results"]] == [3, 3, 3, 3, 0]
    assert data["workloads"][0]["results"][0]["turns"][0]["memory_mb"] == 12.0


def test_the_command_with_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the device: engines that see one, tests that pass, contestants that run on the CPU."""
    require_backend("torch")
    runs = []

    def build(name: str, w: Any, *, dropout: bool = True) -> Any:
        return builder(name if name.startswith("unilayers") else "torch:eager")(w, dropout=dropout)

    def tests(command: list[str], **options: Any) -> Any:
        runs.append(command)
        return SimpleNamespace(stdout="1 passed", returncode=0)

    monkeypatch.setattr(command, "engines", lambda: (["numpy", "torch"], ["jax: JAX finds no device"]))
    monkeypatch.setattr(command, "DEVICE", "cpu")
    monkeypatch.setattr(command.run, "__defaults__", (build, lambda name: _clock(), None))
    monkeypatch.setattr(command.subprocess, "run", tests)
    assert (
        command.main(["--short", "--only", "W7,W3", "--rounds", "2", "--seconds", "0.01", "--out", str(tmp_path)]) == 0
    )
    assert "gpu" in runs[0] and (tmp_path / "tests.txt").read_text() == "1 passed"
    data = json.loads((tmp_path / "results.json").read_text())
    names = [r["name"] for r in data["workloads"][1]["results"]]
    assert names == [*BY_HAND, "unilayers:numpy", "unilayers:torch"]
    assert not any(r["error"] for w in data["workloads"] for r in w["results"])
    assert data["settings"]["not seen by"] == ["jax: JAX finds no device"]


def _clock() -> Any:
    from time import perf_counter

    return perf_counter
