"""Training one recipe with many settings, several at a time, each in a fresh process; and going on after a break."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from os import PathLike
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

from unilayers.callbacks import Callback
from unilayers.compare.process import child, how_it_ended, in_words
from unilayers.compare.record import Lines, plain
from unilayers.errors import RecipeError, UnilayersError, nearest
from unilayers.recipe import Interrupted, Recipe, load_recipe
from unilayers.recipe.run import RECIPE, read_lines
from unilayers.runs import Run
from unilayers.runs.folder import direction_of
from unilayers.saving import write_atomically
from unilayers.sweep.report import html, markdown
from unilayers.sweep.search import require_optuna, suggest
from unilayers.sweep.space import BACKEND, Axis, Point, Space, overrides, parse_axis
from unilayers.sweep.trial import DONE, FAILED, TRAINS, Sweep, Trial
from unilayers.utils.pages import write_reports

Watch = Callable[[Sweep], None]
PLAN = "sweep.json"
INTERVAL = 0.25  # seconds between looks at the processes
PROBES = 16  # points of a search whose recipes are checked before it begins
PATIENCE = 60.0  # seconds that an interrupted trial has to finish its step and save
DIRECTIONS = {"min": "down", "max": "up"}


@dataclass(frozen=True)
class Job:
    """What one process does; JSON on its standard input.

    Args:
        recipe: The resolved recipe.
        run: The run folder; a run that is in it is resumed.
        record: The file that says what came of it.
        monitor: The value that counts.
        allow_imports: See ``load_recipe``.
        modules: See ``Recipe.folder``.
    """

    recipe: str
    run: str
    record: str
    monitor: str
    allow_imports: bool = False
    modules: str | None = None


def sweep(
    recipe: Recipe | str | PathLike[str],
    axes: Sequence[str | Axis] = (),
    backends: Sequence[str] = (),
    *,
    random: int | None = None,
    search: int | None = None,
    jobs: int = 1,
    monitor: str | None = None,
    mode: str = "auto",
    in_process: bool = False,
    out: str | PathLike[str] | None = None,
    watch: Watch | None = None,
) -> Sweep:
    """Train a recipe with all combinations of some settings, or with some of them, and say which is the best.

    A trial that fails says why in its row; the others are trained nevertheless. Called again with the same arguments,
    a sweep that was interrupted goes on where it was: trials that are done are not repeated, those that were cut are
    resumed, those that failed are tried once more. The folder holds ``runs`` (a run folder of each trial), ``records``
    (what came of each, and what it printed), ``sweep.json`` and the reports ``report.json``, ``report.md`` and
    ``report.html``.

    Args:
        recipe: The recipe, or what ``load_recipe`` takes.
        axes: What is varied, as ``parse_axis`` takes it: ``"seed=1..5"``.
        backends: Engines to train on, each with a device if wanted: ``torch:cuda``.
        random: Draw so many combinations at random.
        search: Try so many combinations, each where the ones before it make a good score likely; needs Optuna.
        jobs: How many trials are trained at once; they share the cores.
        monitor: The value that counts, as the history names it, at its best epoch: ``val_loss``, or ``loss`` where
            nothing is kept for validation, if None.
        mode: ``min`` if less of it is better, ``max`` if more is; ``auto``: as its metric says.
        in_process: Train all in this process, one after the other: quicker for small recipes.
        out: The folder; ``runs/<name>-sweep-<key>`` if None, with a key of all that is asked for.
        watch: Called now and then with all trials, as far as they are.

    Raises:
        UnilayersError: for values that no recipe can have, numbers that make no sense, a folder with something else.

    Example:
        >>> found = sweep("spirals-mlp", ["seed=1..2", "fit.epochs=2"], in_process=True)
        >>> [trial.state for trial in found.trials], found.best in found.trials
        (['done', 'done'], True)
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    wanted = [axis if isinstance(axis, Axis) else parse_axis(axis) for axis in axes]
    if backends:
        wanted.append(Axis(BACKEND, tuple(backends)))
    space, how, count = _checked(Space(wanted), random, search, jobs)
    loaded = loaded.changed(*overrides({axis.path: axis.listed[0] for axis in wanted if not axis.varies}))
    counts, direction = _counted(loaded, monitor, mode)
    text, axes_told = loaded.to_yaml(), {axis.path: axis.plain() for axis in wanted}
    about = {"recipe": text, "axes": axes_told, "how": how, "monitor": counts, "direction": direction}
    folder = _folder(out, loaded.name, about)
    found = Sweep(loaded.name, text, wanted, how, counts, direction, folder)
    points = [] if how == "search" else _points(space, how, count, loaded.seed)
    jobs_of = _Jobs(loaded, found, space, points)
    for part in ("records", "runs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _go_on(found, jobs_of, about, count, jobs, in_process, watch)
    return found


def _go_on(
    found: Sweep, jobs_of: _Jobs, about: Mapping[str, Any], count: int, jobs: int, in_process: bool, watch: Watch | None
) -> None:
    """Do what is not done yet, and report."""
    folder = found.folder
    write_atomically(folder / PLAN, (json.dumps(about, indent=1) + "\n").encode())
    numbers = range(1, count + 1)
    for number in numbers if jobs_of.points else takewhile(lambda n: _record(folder, n).is_file(), numbers):
        found.trials.append(jobs_of.trial(number))

    def tell() -> None:
        if watch is not None:
            watch(found)

    try:
        (_one_by_one if in_process else _at_once)(jobs_of, count, jobs, tell)
    except KeyboardInterrupt:
        fix = f"Go on with the same command; what is done is in {folder}"
        raise Interrupted(folder, fix) from None
    finally:
        write_reports(found.folder, found.to_plain(), markdown(found), html(found))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse to begin while another process is at work on the same sweep, where the system has locks for that."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    number = os.open(folder / "records", os.O_RDONLY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "Let it end, or interrupt it"
            raise UnilayersError("another process is at work on this sweep", where=str(folder), fix=fix) from None
        yield
    finally:
        os.close(number)


# ---- what is asked for ----------------------------------------------------------------------------------------------


def _checked(space: Space, random: int | None, search: int | None, jobs: int) -> tuple[Space, str, int]:
    """The space, how it is gone through, and how many trials that makes."""
    if random is not None and search is not None:
        raise UnilayersError("--random beside --search", where="sweep", fix="Keep one of them")
    if jobs < 1:
        raise UnilayersError("no such number of jobs", where="sweep", expected="at least 1", received=str(jobs))
    given = random if search is None else search
    if given is not None:
        space.require(given)
    if search is not None:
        require_optuna()
        return space, "search", search
    return (space, "grid", len(list(space.grid()))) if random is None else (space, "random", random)


def _points(space: Space, how: str, count: int, seed: int) -> list[Point]:
    if how == "grid":
        return list(space.grid())
    drawn = space.draws([seed])
    return [next(drawn) for _ in range(count)]


def _counted(recipe: Recipe, monitor: str | None, mode: str) -> tuple[str, str]:
    """The name of the value that counts, and whether more of it is better."""
    if mode not in ("auto", *DIRECTIONS):
        raise UnilayersError("unknown mode", where="sweep", expected="auto, min or max", received=repr(mode))
    data = recipe.settings["data"]
    name = monitor or ("val_loss" if data["validation_split"] or data["validation"] else "loss")
    direction = DIRECTIONS.get(mode) or direction_of(name, recipe.settings["metrics"])
    if direction is None:
        problem = f"nothing says whether {name!r} is better when larger or smaller"
        raise UnilayersError(problem, where="sweep", fix="Say --mode max or --mode min")
    return name, direction


def _folder(out: str | PathLike[str] | None, name: str, about: Mapping[str, Any]) -> Path:
    """The folder, which is new or holds a sweep for the same."""
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    folder = Path("runs", f"{name}-sweep-{key}") if out is None else Path(out).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / PLAN).is_file()):
        raise UnilayersError("the folder must be new or empty", where=str(folder), fix="Choose another")
    if (folder / PLAN).is_file():
        try:
            before = json.loads((folder / PLAN).read_text("utf-8"))
        except ValueError as error:
            problem = f"{PLAN} is damaged ({error})"
            raise UnilayersError(problem, where=str(folder), fix="Choose another folder") from None
        other = [key for key in about if not isinstance(before, dict) or before.get(key) != plain(about[key])]
        if other:
            problem = f"there is another sweep in this folder, with another {', another '.join(other)}"
            raise UnilayersError(problem, where=str(folder), fix="Choose another folder")
    return folder


class _Jobs:
    """Trials of a sweep with the recipes that they train.

    Raises:
        RecipeError: for a value that fits in no trial.
    """

    def __init__(self, recipe: Recipe, found: Sweep, space: Space, points: Sequence[Point]) -> None:
        self.recipe, self.sweep, self.space, self.points = recipe, found, space, points
        tried = points or list(islice(space.draws([0]), PROBES))
        made = [self._made(point) for point in tried]
        self._made_of = dict(enumerate(made, 1)) if points else {}
        for axis in self.space.axes:
            values: dict[str, list[str | RecipeError]] = {}
            for point, one in zip(tried, made, strict=True):
                name = "" if axis in self.space.ranges else json.dumps(point[axis.path])
                values.setdefault(name, []).append(one)
            for ones in values.values():
                if all(isinstance(one, RecipeError) for one in ones):
                    raise ones[0]  # type: ignore[misc]

    def _made(self, point: Point) -> str | RecipeError:
        """The resolved recipe of a point, or what is wrong with it."""
        try:
            return self.recipe.changed(*overrides(point)).to_yaml()
        except RecipeError as error:
            return error

    def trial(self, number: int) -> Trial:
        """A trial as its record says it is; one that has none is new."""
        run = Run(self.sweep.folder / "runs" / f"{number:03}")
        entries = list(Lines(_record(self.sweep.folder, number)).new())
        values = entries[0]["values"] if entries else self._next(number)
        trial = Trial(number, values, run)
        for entry in entries[1:]:
            if "scores" in entry:
                trial.state, trial.scores = DONE, entry["scores"]
        if trial.state == DONE:
            run.epochs = read_lines(run.folder)
        return trial

    def _next(self, number: int) -> Point:
        if self.points:
            return self.points[number - 1]
        found = self.sweep
        known = [(t, found.score(t)) for t in found.trials]
        finished = [(t.values, s.value if s and t.state == DONE and s.value == s.value else None)
                    for t, s in known if t.state in (DONE, FAILED)]  # fmt: skip
        running = [t.values for t, _ in known if t.state not in (DONE, FAILED)]
        return suggest(self.space, finished, running, found.direction == "up", (self.recipe.seed, number))

    def begin(self, trial: Trial) -> Job | None:
        """What is to be done for a trial, whose record begins; None if its recipe is wrong, which it then says."""
        found = self.sweep
        record = _record(found.folder, trial.number)
        broken = any("problem" in entry for entry in Lines(record).new())
        if broken and trial.run.folder.exists():  # a trial that failed begins anew, one that was cut goes on
            shutil.rmtree(trial.run.folder)
        write_atomically(record, (json.dumps({"values": plain(trial.values)}) + "\n").encode())
        made = self._made_of.get(trial.number) or self._made(trial.values)
        if isinstance(made, RecipeError):
            trial.state, trial.problem = FAILED, in_words(made)
            _add(record, {"problem": trial.problem})
            return None
        trial.state = TRAINS
        modules = None if self.recipe.folder is None else str(self.recipe.folder)
        told = (made, str(trial.run.folder), str(record), found.monitor, self.recipe.allow_imports, modules)
        return Job(*told)

    def look(self, trial: Trial) -> None:
        """How far a trial is."""
        trial.run.epochs = read_lines(trial.run.folder)
        for entry in Lines(_record(self.sweep.folder, trial.number)).new():
            if "scores" in entry:
                trial.state, trial.scores = DONE, entry["scores"]
            elif "problem" in entry:
                trial.state, trial.problem = FAILED, entry["problem"]


def _record(folder: Path, number: int) -> Path:
    return folder / "records" / f"{number:03}.jsonl"


def _add(record: Path, entry: Mapping[str, Any]) -> None:
    with record.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain(entry)) + "\n")


# ---- one trial ------------------------------------------------------------------------------------------------------


class _Monitored(Callback):
    """Says at the first epoch that should have the value that counts if there is none."""

    def __init__(self, name: str, tell: Callable[[], None]) -> None:
        self.name, self._tell = name, tell

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._tell()
        if self.name not in logs and (not self.name.startswith("val_") or any(n.startswith("val_") for n in logs)):
            raise UnilayersError(f"no value {self.name!r} to monitor", where="sweep", fix=nearest(self.name, logs))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._tell()


def perform(job: Job, tell: Callable[[], None] = lambda: None) -> None:
    """Train a trial in this process, and write down what came of it.

    Args:
        job: What is to be done.
        tell: Called after each step.
    """
    folder, modules = Path(job.run), None if job.modules is None else Path(job.modules)
    try:
        text, resume = job.recipe, (folder / RECIPE).is_file()
        if resume:  # which names the engine where the recipe says auto
            text = (folder / RECIPE).read_text("utf-8")
        elif folder.exists():  # killed before anything was in it
            shutil.rmtree(folder)
        recipe = Recipe(text, allow_imports=job.allow_imports, folder=modules)
        result = recipe.train(folder, resume=resume, callbacks=[_Monitored(job.monitor, tell)], verbose=0)
        if job.monitor not in result.history:
            raise UnilayersError(f"no value {job.monitor!r} to monitor", fix=nearest(job.monitor, result.history))
    except Exception as error:
        _add(Path(job.record), {"problem": in_words(error)})
    else:
        _add(Path(job.record), {"scores": result.scores})


def main() -> None:
    """What a child process does: the job on its standard input. It ends when its parent does."""
    told = json.load(sys.stdin)
    parent = told.pop("parent")
    if hasattr(os, "setsid"):  # Ctrl-C is for the parent, which passes it on
        os.setsid()

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    perform(Job(**told))


# ---- all of them ----------------------------------------------------------------------------------------------------


def _left(jobs: _Jobs, count: int) -> Iterator[tuple[Trial, Job]]:
    """Trials that are to be trained, with what is to be done; in a search each is found when it is asked for."""
    found = jobs.sweep
    for number in range(1, count + 1):
        if number > len(found.trials):
            found.trials.append(jobs.trial(number))
        trial = found.trials[number - 1]
        if trial.state != DONE and (job := jobs.begin(trial)) is not None:
            yield trial, job


def _one_by_one(jobs: _Jobs, count: int, _: int, tell: Callable[[], None]) -> None:
    """In this process."""
    for trial, job in _left(jobs, count):
        looked = time.perf_counter()

        def now_and_then(trial: Trial = trial) -> None:
            nonlocal looked
            if time.perf_counter() - looked > INTERVAL:
                jobs.look(trial)
                tell()
                looked = time.perf_counter()

        perform(job, now_and_then)
        jobs.look(trial)
        tell()


def _at_once(jobs: _Jobs, count: int, most: int, tell: Callable[[], None]) -> None:
    """Several at a time, each in a process of its own."""
    left, running = _left(jobs, count), list[tuple[Trial, Popen[str], Path, ExitStack]]()
    threads = {} if most == 1 or "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(_threads(most))}
    try:
        while True:
            while len(running) < most and (one := next(left, None)) is not None:
                trial, job = one
                log, stack = Path(job.record).with_suffix(".log"), ExitStack()
                told = asdict(job) | {"parent": os.getpid()}
                process = stack.enter_context(child(__name__, "main", told, log, threads))
                running.append((trial, process, log, stack))
            if not running:
                break
            time.sleep(INTERVAL)
            for one_running in list(running):
                trial, process, log, stack = one_running
                code = process.poll()
                jobs.look(trial)
                if code is not None:
                    running.remove(one_running)
                    stack.close()
                    if trial.state == TRAINS:
                        trial.state, trial.problem = FAILED, how_it_ended(code, log)
                        _add(_record(jobs.sweep.folder, trial.number), {"problem": trial.problem})
            tell()
    except KeyboardInterrupt:
        _interrupt([process for _, process, _, _ in running])
        raise
    finally:
        for *_, stack in running:
            stack.close()
        for trial, *_ in running:
            jobs.look(trial)


def _threads(jobs: int) -> int:
    """Threads of one of several processes that share the cores."""
    return max(1, (os.cpu_count() or 1) // jobs)


def _interrupt(processes: Sequence[Popen[str]]) -> None:
    """Let processes finish their steps and save."""
    if os.name == "posix":
        for process in processes:
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except TimeoutExpired:
                break
