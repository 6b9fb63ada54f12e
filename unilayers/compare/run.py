"""Training one recipe on several engines, one after the other, each in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from unilayers.backend import backend_names, get_backend, is_loaded
from unilayers.compare.comparison import Comparison
from unilayers.compare.process import child, how_it_ended, in_words
from unilayers.compare.record import Entry, Lines, Record, Recorder, plain
from unilayers.compare.report import html, markdown
from unilayers.compare.trace import STATE, KeepState, Traced, compared, look_into
from unilayers.errors import BackendError, UnilayersError, nearest
from unilayers.recipe import Recipe, load_recipe
from unilayers.recipe.run import environment_of, unused_folder
from unilayers.utils.pages import write_reports

Watch = Callable[[Sequence[Record]], None]
INTERVAL = 0.25  # seconds between looks at a process
TRAIN, KEEP, LOOK = "train", "keep", "look"  # what a process is for


@dataclass(frozen=True)
class Job:
    """What one process does; JSON on its standard input.

    Args:
        kind: ``train``; ``keep``: train until a step and keep the state before it; ``look``: look into a step from the
            state that was kept.
        name: What reports call the engine.
        recipe: The resolved recipe, with the engine in it.
        backend: The engine.
        device: A device of it, or None for its first.
        folder: Where everything is written.
        step: ``train``: the last step, or None; otherwise which step.
        allow_imports: See ``load_recipe``.
        modules: See ``Recipe.folder``.
        own: Whether the process does nothing else.
    """

    kind: str
    name: str
    recipe: str
    backend: str
    device: str | None
    folder: str
    step: int | None = None
    allow_imports: bool = False
    modules: str | None = None
    own: bool = True

    def path(self, ending: str) -> Path:
        """A file for what is written about this job."""
        return Path(self.folder, "records" if self.kind == TRAIN else "trace", self.name + ending)

    def load(self) -> Recipe:
        """The recipe."""
        folder = None if self.modules is None else Path(self.modules)
        return Recipe(self.recipe, allow_imports=self.allow_imports, folder=folder)


def compare(
    recipe: Recipe | str | PathLike[str],
    backends: Sequence[str],
    *,
    device: str | None = None,
    steps: int | None = None,
    tolerance: float | None = None,
    trace: bool = False,
    in_process: bool = False,
    out: str | PathLike[str] | None = None,
    watch: Watch | None = None,
) -> Comparison:
    """Train a recipe on several engines from the same weights, with the same batches and masks, and compare.

    An engine that is not installed, or fails, has a record that says so; the others are trained nevertheless. The
    folder holds ``records`` (JSON lines of each engine, written while it trains, and what it printed), ``runs`` (a run
    folder of each engine), ``trace`` and the reports ``report.json``, ``report.md`` and ``report.html``.

    Args:
        recipe: The recipe, or what ``load_recipe`` takes.
        backends: The engines, each with a device if wanted: ``torch``, ``torch:cuda``, ``torch:cuda:1``. The first is
            the reference; if it fails, the next. One may be named twice, which shows whether it repeats itself.
        device: Device of those that are named without one; None: the recipe's.
        steps: Steps after which training stops; None: as the recipe says.
        tolerance: The largest relative difference of the loss of a step from the reference that is no departure;
            None: one for the recipe's dtype, see `Comparison`.
        trace: Whether to look for where a difference comes from; see `Traced`.
        in_process: Train all in this process: quicker, but thread pools, memory and warm caches are shared.
        out: The folder; ``runs/<name>-compare-<time>`` if None. One that holds something is never written to.
        watch: Called now and then with all records, as far as they are.

    Raises:
        UnilayersError: for names that are no engines, or steps and tolerances that are not positive. What goes wrong
            on an engine is in its record; call ``Comparison.require`` to raise where one departs.

    Example:
        >>> comparison = compare("digits-mlp", ["numpy", "numpy"], steps=3, in_process=True)
        >>> comparison.require()
        >>> len(comparison.records[1].steps)
        3
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    _check(backends, steps, tolerance)
    folder = unused_folder(out, f"{loaded.name}-compare")
    jobs = [_job(loaded, *place, folder, steps, own=not in_process) for place in named(backends, device)]
    for part in ("records", "runs", *(["trace"] if trace else [])):
        (folder / part).mkdir(parents=True, exist_ok=True)
    records = [Record(job.name, job.backend, job.device) for job in jobs]

    def tell() -> None:
        if watch is not None:
            watch(records)

    for job, record in zip(jobs, records, strict=True):
        _do(job, record, tell)
        tell()
    comparison = Comparison(loaded.name, loaded.to_yaml(), loaded.dtype, records, tolerance)
    if trace and (step := comparison.step_to_trace) is not None:
        comparison.traced = _trace(jobs, records, step)
    write_reports(folder, comparison.to_plain(), markdown(comparison), html(comparison))
    comparison.folder = folder
    return comparison


def check_backends(backends: Sequence[str], where: str) -> None:
    """Raise a ``UnilayersError`` unless there are some, and all are engines.

    Args:
        backends: As ``compare`` takes them.
        where: What errors begin with.
    """
    if not backends:
        raise UnilayersError("no backend to train on", where=where, fix=f"Name some: {', '.join(backend_names())}")
    for given in backends:
        name = given.partition(":")[0]
        if name not in backend_names():
            raise BackendError(f"unknown backend {name!r}", where=where, fix=nearest(name, backend_names()))


def _check(backends: Sequence[str], steps: int | None, tolerance: float | None) -> None:
    where = "compare"
    check_backends(backends, where)
    if steps is not None and steps < 1:
        raise UnilayersError("no steps to compare", where=where, expected="at least 1", received=str(steps))
    if tolerance is not None and not tolerance >= 0:
        raise UnilayersError("bad tolerance", where=where, expected="a number at least 0", received=str(tolerance))


def named(backends: Sequence[str], device: str | None) -> Iterator[tuple[str, str, str | None]]:
    """A name for each that no other has and that a file can have; the backend; the device.

    Args:
        backends: As ``compare`` takes them.
        device: Of those that are named without one.

    Example:
        >>> [*named(["torch", "torch:cuda", "torch"], None)]
        [('torch', 'torch', None), ('torch-cuda', 'torch', 'cuda'), ('torch-2', 'torch', None)]
    """
    taken: dict[str, int] = {}
    for given in backends:
        backend, _, own = given.partition(":")
        stem = given.replace(":", "-")
        taken[stem] = taken.get(stem, 0) + 1
        yield stem if taken[stem] == 1 else f"{stem}-{taken[stem]}", backend, own or device


def _job(
    recipe: Recipe, name: str, backend: str, device: str | None, folder: Path, steps: int | None, own: bool
) -> Job:
    there = [f"backend={backend}", *([f"device={device}"] if device else [])]
    # Resolved as it is trained: what the overrides were is in it.
    text, modules = recipe.changed(*there).to_yaml(), None if recipe.folder is None else str(recipe.folder)
    return Job(TRAIN, name, text, backend, device, str(folder), steps, recipe.allow_imports, modules, own)


# ---- one job --------------------------------------------------------------------------------------------------------


def perform(job: Job, tell: Callable[[], Any] = lambda: None) -> bool:
    """Do a job in this process; what goes wrong is its last line. Gives whether it came to its end.

    Args:
        job: The job.
        tell: Called after each line.
    """
    with job.path(".jsonl").open("a", encoding="utf-8") as file:

        def write(entry: Entry) -> None:
            _write(file, entry)
            tell()

        try:
            _KINDS[job.kind](job, write)
        except Exception as error:
            write({"kind": "problem", "problem": in_words(error)})
            return False
        write({"kind": "end", "ended": True})
        return True


def _write(file: TextIO, entry: Entry) -> None:
    file.write(json.dumps(plain(entry)) + "\n")
    file.flush()


def _train(job: Job, write: Callable[[Entry], None]) -> None:
    here = not job.own and is_loaded(job.backend)
    start = time.perf_counter()
    backend = get_backend(job.backend)
    seconds = None if here else time.perf_counter() - start
    recipe = job.load()
    environment = environment_of(job.backend, backend.device(recipe.device))
    recorder = Recorder(write, {"environment": environment, "import_seconds": seconds}, job.step, job.own)
    result = recipe.train(Path(job.folder, "runs", job.name), callbacks=[recorder], verbose=0)
    write({"kind": "scores", "scores": result.scores})


def _keep(job: Job, write: Callable[[Entry], None]) -> None:
    assert job.step is not None
    keeper = KeepState(job.step, Path(job.folder, "trace", STATE))
    with TemporaryDirectory() as folder:
        job.load().train(folder, callbacks=[keeper], verbose=0)


def _look(job: Job, write: Callable[[Entry], None]) -> None:
    look_into(job.load(), Path(job.folder, "trace", STATE), job.path(".npz"))


_KINDS = {TRAIN: _train, KEEP: _keep, LOOK: _look}


def main() -> None:
    """What a child process does: the job on its standard input."""
    sys.exit(not perform(Job(**json.load(sys.stdin))))


# ---- the processes --------------------------------------------------------------------------------------------------


def _do(job: Job, record: Record, tell: Callable[[], None]) -> None:
    """Do a job, in a process of its own unless it says otherwise, and follow its record."""
    lines = Lines(job.path(".jsonl"))

    def follow() -> None:
        for entry in lines.new():
            record.take(entry)
        tell()

    if not job.own:
        looked = time.perf_counter()

        def now_and_then() -> None:
            nonlocal looked
            if time.perf_counter() - looked > INTERVAL:
                follow()
                looked = time.perf_counter()

        perform(job, now_and_then)
        follow()
        return
    with child(__name__, "main", asdict(job), job.path(".log")) as process:
        while True:
            try:
                code = process.wait(INTERVAL)
            except subprocess.TimeoutExpired:
                code = None
            follow()
            if code is not None:
                break
    if not record.problem and not record.end.get("ended"):
        record.problem = how_it_ended(code, job.path(".log"))


def _trace(jobs: Sequence[Job], records: Sequence[Record], step: int) -> Traced:
    """Look into a step on each engine that came so far, from the state that the reference has before it."""
    problems: dict[str, str] = {}

    def do(job: Job, kind: str) -> bool:
        name = STATE.removesuffix(".npz") if kind == KEEP else job.name
        record = Record(job.name, job.backend, job.device)
        _do(replace(job, kind=kind, name=name, step=step), record, lambda: None)
        if record.problem:
            problems[job.name] = record.problem
        return not record.problem

    ran = [job for job, record in zip(jobs, records, strict=True) if len(record.steps) >= step]
    looked = [job for job in ran if do(job, LOOK)] if do(ran[0], KEEP) else []
    files = {job.name: Path(job.folder, "trace", f"{job.name}.npz") for job in looked}
    reference = files.pop(ran[0].name, None)
    if reference is None:  # nothing to compare with
        return Traced(step, {}, {}, problems)
    found = {name: compared(reference, path) for name, path in files.items()}
    by_op, compiled, each = ({name: parts[i] for name, parts in found.items()} for i in range(3))
    return Traced(step, by_op, compiled, problems, each)
