"""The suite of benchmarks: that all contestants compute the same, and that figures are judged rightly; no speed."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.__main__ import main
from benchmarks.suite.report import Report, judged
from benchmarks.suite.runner import ROOT, Result, Settings, deviation, environment, run
from benchmarks.suite.targets import comparisons, contestants, groups
from benchmarks.suite.worker import builder
from benchmarks.suite.workloads import WORKLOADS, short
from tests.conftest import BACKENDS, require_backend

COMPILED = ("compile", "xla")  # seconds each
NAMES = list(WORKLOADS)
AT_ONCE = ("numpy", "torch")  # the others compile every small network


def results(name: str, workload: str) -> list[Any]:
    w = replace(short(WORKLOADS[workload]), checked=3)
    return [r.ravel().tolist() for r in builder(name)(w, dropout=False).results(w.checked)]


@pytest.mark.parametrize("workload", NAMES)
@pytest.mark.parametrize("engine", [pytest.param(b, marks=[] if b in AT_ONCE else pytest.mark.slow) for b in BACKENDS])
def test_all_compute_the_same(workload: str, engine: str) -> None:
    require_backend(engine), require_backend("torch")
    wanted = results("torch:eager", workload)
    names = contestants(WORKLOADS[workload], f"unilayers:{engine}*,{engine}:*")
    if engine == "torch":  # on which the tests have Keras
        names += contestants(WORKLOADS[workload], "keras:torch:*")
    checked = [n for n in names if not n.endswith(COMPILED)]
    assert len(checked) >= 2
    for name in checked:
        assert deviation(results(name, workload), wanted) < 1e-5, name


def test_the_check_sees_another_computation() -> None:
    require_backend("torch")
    w = short(WORKLOADS["W7"])
    wanted = results("torch:eager", "W7")
    faster = [r.tolist() for r in builder("torch:eager")(replace(w, rate=0.01)).results(3)]
    assert deviation([[x] for x in faster], wanted) > w.tolerance
    assert deviation([[float("nan")]] * 3, wanted) == deviation(wanted[:2], wanted) == float("inf")


@pytest.mark.parametrize("workload", NAMES)
def test_who_is_compared_runs_side_by_side(workload: str) -> None:
    w = WORKLOADS[workload]
    together = groups(w, contestants(w))
    for c in comparisons(w):
        assert any(c.ours in group and set(group) & set(c.against) for group in together), c


def test_patterns_choose_contestants() -> None:
    w = WORKLOADS["W4"]
    assert contestants(w, "torch:*,unilayers:numpy") == [
        "torch:eager", "torch:fused", "torch:last", "torch:compile", "unilayers:numpy",
    ]  # fmt: skip
    assert groups(w, ["jax:jit", "unilayers:numpy"]) == [["unilayers:numpy"], ["jax:jit"]]
    assert groups(WORKLOADS["W7"], ["jax:jit", "unilayers:numpy"]) == [["jax:jit", "unilayers:numpy"], ["jax:jit"]]


def made(name: str, *turns: list[float], **more: Any) -> Result:
    """A result with the given blocks of each turn."""
    return Result(name, turns=[{"ms": ms, "memory_mb": 1.0, "idle_s": 0.0, "cpus": 1.0} for ms in turns], **more)


def test_ratios_are_of_the_same_round_and_the_fastest() -> None:
    w = WORKLOADS["W7"]
    group = [
        made("torch:eager", [9.0, 9.0], [9.0, 9.0]),
        made("torch:fused", [2.0, 4.0], [10.0, 10.0]),  # 3 and 10, at best 2
        made("unilayers:torch", [1.5, 1.5], [1.0, 3.0]),
        made("unilayers:torch:fit", [1.51, 1.51], [2.03, 2.03]),
    ]
    step, more = judged(w, [group])
    assert (step.base, step.met) == ("torch:fused", True)
    assert (step.value, step.low, step.least) == pytest.approx((0.35, 0.275, 0.5))
    assert (more.base, more.met) == ("unilayers:torch", True)
    assert more.value == pytest.approx(20.0)
    slow = judged(w, [[group[1], replace(group[2], turns=group[1].turns)]])
    assert [j.met for j in slow] == [False]


def test_what_went_wrong_is_told_and_not_compared() -> None:
    w = WORKLOADS["W7"]
    group = [
        made("torch:eager", [1.0]),
        made("torch:fused", [0.1], deviation=0.5, agrees=False),
        made("torch:compile", error="broken"),
        made("unilayers:torch", [0.75]),
    ]
    (only,) = judged(w, [group])
    assert (only.base, only.met) == ("torch:eager", False)
    text = Report({}, [(w, [group])]).markdown()
    assert "0 of 1 targets met" in text
    assert "**5e-01: computes something else**" in text
    assert "did not run: broken" in text


def test_processes_have_the_same_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    found = environment("keras:jax:fit", 3, "cache")
    assert "OPENBLAS_CORETYPE" not in found
    assert (found["KERAS_BACKEND"], found["OMP_NUM_THREADS"], found["TORCHINDUCTOR_CACHE_DIR"]) == ("jax", "3", "cache")


def run_short(tmp_path: Path, only: str, names: str) -> dict[str, Any]:
    assert main(["--short", "--only", only, "--contestants", names, "--out", str(tmp_path)]) == 0
    return json.loads((tmp_path / "results.json").read_text())


def test_the_command(tmp_path: Path) -> None:
    found = run_short(tmp_path, "W7", "unilayers:numpy*")
    (step, fit) = found["workloads"][0]["groups"][0]
    assert (step["name"], fit["name"]) == ("unilayers:numpy", "unilayers:numpy:fit")
    assert len(step["turns"]) == len(fit["turns"]) == 2
    assert [c["comparison"]["against"] for c in found["workloads"][0]["comparisons"]] == [["unilayers:numpy"]]


def test_one_that_dies_does_not_stop_the_others() -> None:
    how = Settings(rounds=1, seconds=0.01, short=True)
    dead, alive = run(WORKLOADS["W7"], ["unilayers:nothing", "unilayers:numpy"], how, [])
    assert dead.error == "ModuleNotFoundError: No module named 'unilayers.backends.nothing'"
    assert (alive.error, len(alive.turns)) == ("", 1)


@pytest.mark.slow
def test_the_command_with_another_framework(tmp_path: Path) -> None:
    require_backend("torch")
    found = run_short(tmp_path, "W3,W2i1", "unilayers:numpy,unilayers:torch:*,torch:eager")
    for w in found["workloads"]:
        (group,) = w["groups"]
        assert [r["error"] for r in group] == ["", "", ""]
        assert max(r["deviation"] for r in group) < 1e-5
    text = (tmp_path / "results.md").read_text() + json.dumps(found)
    assert "unilayers:torch:batch" in text
    assert platform.node() not in text
    assert str(ROOT) not in text
