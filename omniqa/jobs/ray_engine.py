"""Asks on many machines or GPUs, by Ray Data: a pool of actors, each with the model loaded once.

What is asked, how, and what a line holds is the business of `omniqa.jobs.runner` here as there; the process that runs
the command alone writes.
"""

import logging
import math
import os
import pickle
import platform
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from omniqa.errors import ModelError, OmniqaError, UsageError
from omniqa.jobs.jsonl_store import Row
from omniqa.jobs.rows import ClipRequest, known
from omniqa.jobs.runner import Job, Runner, Todo

if TYPE_CHECKING:
    from omniqa.pipeline.engine import OmniQA

Load = Callable[[], "OmniQA"]  # loads the model, wherever it is called; it can be pickled

# Clips that an actor is given at a time: it decodes ahead among them, and they are done again where it is killed.
_TOGETHER = 8
_RETRIES = 3  # of clips whose actor was killed; then each is tried by itself, as often
_STDERR = 2  # the descriptor
_HERE = "local"  # the address of a cluster of this machine alone, for this process
_STORE_BYTES = 2**29  # for what goes between processes: names, questions, lines
# Set by the user, they win. Nothing is sent anywhere; what Ray's core says goes into its own log files; actors that are
# started here work with the priority of the command.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}


@dataclass(frozen=True)
class Actors:
    """How many there are, and what CPU cores and GPUs each asks Ray for."""

    count: int
    cpus: int
    gpus: float


@dataclass(frozen=True)
class Pool:
    """What actors are wanted, and where they run.

    Attributes:
        actors: how many; None is one for every share of `gpus` that the cluster has, or one where it has none.
        cpus, gpus: what each asks Ray for; gpus None is 1 where the cluster has any.
        address: of a cluster that is running; None is what RAY_ADDRESS says, or else this machine, for as long as
            needed.

    Raises:
        UsageError: a number makes no sense.
    """

    actors: int | None = None
    cpus: int = 1
    gpus: float | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise UsageError(f"There must be at least one actor, not {self.actors}.", field="actors")
        if self.cpus < 1:
            raise UsageError(f"An actor needs at least one CPU core, not {self.cpus}.", field="cpus")
        if self.gpus is not None and (self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus))):
            raise UsageError(
                f"An actor can have 0 GPUs, a part of one, or a whole number of them, not {self.gpus:g}.", field="gpus"
            )

    def sized(self, gpus: float) -> Actors:
        """What that is on a cluster with so many GPUs."""
        each = self.gpus if self.gpus is not None else float(gpus >= 1)
        fitting = int(gpus / each) if each else 1
        return Actors(self.actors or max(1, fitting), self.cpus, each)


class _Report(NamedTuple):
    """What an actor says: after each line, and at the end of what it was given.

    Attributes:
        left_out: files that turned out to be no media.
        waited_s: how long the model waited for decoding since the last one.
    """

    row: Row | None
    waited_s: float
    left_out: tuple[str, ...] = ()
    error: Exception | None = None


class Worker:
    """An actor. It runs in the folder that the command was given in, so that names mean the same."""

    def __init__(self, runner: Runner, load: Load, folder: str) -> None:
        self._runner = runner
        self._error: Exception | None = None
        try:
            self._qa = _load_in(folder, load)
        except OmniqaError as error:  # raised here, it would reach the user wrapped in others
            self._error = error

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        """Answer what a batch of clips is asked; both sides are pickled in a column of bytes."""
        for report in self._reports(map(pickle.loads, batch["todo"])):
            yield {"report": [pickle.dumps(report)]}

    def _reports(self, todos: Iterable[Todo]) -> Iterator[_Report]:
        runner, known, waited = self._runner, len(self._runner.left_out), self._runner.waited_s
        error = self._error
        if error is None:
            try:
                for row in runner.ask(self._qa, todos):
                    yield _Report(row, runner.waited_s - waited)
                    waited = runner.waited_s
            except OmniqaError as raised:
                error = raised
            except Exception as raised:  # noqa: BLE001  whatever it is, it ends the run, and not all can be pickled
                error = RuntimeError(f"{type(raised).__name__}: {raised}")
        yield _Report(None, runner.waited_s - waited, tuple(runner.left_out)[known:], error)


def _load_in(folder: str, load: Load) -> "OmniQA":
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(
            f"The machine {platform.node()} has no folder {folder}. Start the command in one that all machines see."
        ) from error
    return load()


@contextmanager
def cluster(pool: Pool) -> Iterator[Actors]:
    """Join the cluster, or start one on this machine that ends with this block; gives the actors to have.

    Where Ray is running in this process already, that is used and left running.

    Raises:
        UsageError: Ray is not installed, nothing answers at the address, or this machine lacks the GPUs.
    """
    if find_spec("ray") is None:
        raise UsageError("engine ray needs Ray: pip install 'omniqa[ray]'.", field="engine")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data

    _hush()
    ours = not ray.is_initialized()
    address = pool.address or os.environ.get("RAY_ADDRESS") or _HERE
    if ours:
        _join(pool, address)
    try:
        gpus = ray.cluster_resources().get("GPU", 0)
        actors = pool.sized(gpus)
        if address == _HERE and actors.gpus > gpus:  # elsewhere, machines may join later
            raise UsageError(f"An actor is to have {actors.gpus:g} GPUs, and this machine has {gpus:g}.")
        yield actors
    finally:
        if ours:
            ray.shutdown()


def _join(pool: Pool, address: str) -> None:
    import ray

    own: dict[str, Any] = {}
    if address == _HERE:
        cores = max(os.cpu_count() or 1, (pool.actors or 1) * pool.cpus)  # Ray counts them; it does not pin
        own = {"num_cpus": cores, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        with _no_stderr():
            ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "can't be started here" if address == _HERE else f"can't be reached at {address}"
        raise UsageError(f"Ray {where} ({error}).") from error


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Nothing on stderr, not even what a library writes past Python; what goes wrong is raised."""
    kept = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nowhere)


def _hush() -> None:
    """Leave what Ray Data says of itself to its log file."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


def go_on(job: Job, load: Load, actors: Actors) -> Generator[Row, None, None]:
    """Ask on the cluster what is missing; gives every line once it is written, in the order in which they come.

    Raises what `Job.write` and `Runner.ask` raise, and ModelError where no actor stays alive.

    Args:
        load: loads the model, in each actor.
        actors: as `cluster` gave them.
    """
    return job.write(_lines(job, load, actors))


def _lines(job: Job, load: Load, actors: Actors) -> Generator[Row, None, None]:
    before = len(job.results.known)
    todos = list(job.missing())
    if todos:
        yield from _round(job, todos, load, actors, _TOGETHER)
    # Where actors were killed again and again, each clip by itself shows which one does.
    todos = list(job.missing())
    files = {todo.clip.path: job.runner.clips.file(todo.clip.path) for todo in todos}
    if todos:
        yield from _round(job, todos, load, actors, 1)
    lost = list(job.missing())
    if lost and len(job.results.known) == before:
        raise ModelError("All Ray actors were killed before they answered anything; memory may have run out.")
    for todo in lost:
        for request in todo.requests:
            error = f"{todo.clip.path} was given up: whichever process was asked about it was killed."
            assert job.results.model is not None  # of the lines that came
            asked = ClipRequest(todo.clip, request, files[todo.clip.path])
            yield job.runner.rows.failed(asked, error, job.results.model)


def _round(job: Job, todos: Sequence[Todo], load: Load, actors: Actors, together: int) -> Generator[Row, None, None]:
    """Ask about each of these clips, so many of them together; those whose actors died too often give no lines."""
    from ray.exceptions import RayError

    try:
        for report in _reports(job.runner, todos, load, actors, together):
            job.runner.waited_s += report.waited_s
            job.runner.left_out.update(dict.fromkeys(report.left_out))
            if report.error is not None:
                raise report.error
            if report.row is not None and known(report.row).key not in job.results.known:
                yield report.row
    except RayError as error:
        raise ModelError(f"Ray gave up: {error}") from error


def _reports(
    runner: Runner, todos: Sequence[Todo], load: Load, actors: Actors, together: int
) -> Generator[_Report, None, None]:
    import ray.data

    count = min(actors.count, len(todos))
    together = max(1, min(together, len(todos) // (2 * count)))
    clips = ray.data.from_items(
        [{"todo": pickle.dumps(todo)} for todo in todos], override_num_blocks=math.ceil(len(todos) / together)
    )
    clips.context.enable_progress_bars = False
    clips.context.target_max_block_size = 1  # each line comes at once, and not with the others of its task
    clips.context.max_errored_blocks = -1  # clips whose actor is killed too often give no lines; the others go on
    clips.context.max_consecutive_actor_init_deaths = _RETRIES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray has no other way yet to bound the retries
        answered = clips.map_batches(
            Worker,
            fn_constructor_args=(runner, load, os.getcwd()),
            batch_size=None,
            # Alone, a task whose actor dies takes no other with it.
            compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2 if together > 1 else 1),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus,
            ray_remote_args_fn=lambda: {"max_task_retries": _RETRIES},
        )
    for batch in answered.iter_batches(batch_size=None, prefetch_batches=0):
        yield from map(pickle.loads, batch["report"])
