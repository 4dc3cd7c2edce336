"""What `batch` and `eval` have in common: which part is asked, and on what machines."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from omniqa.cli import options
from omniqa.cli.console import console
from omniqa.cli.loading import fitting, load_model, load_silently, say_what_it_knows
from omniqa.cli.words import counted
from omniqa.errors import UsageError
from omniqa.jobs import ray_engine
from omniqa.jobs.clips import Shard
from omniqa.jobs.jsonl_store import Row
from omniqa.jobs.runner import Job

PLAIN, RAY = "plain", "ray"

ASKED, WORK = "What is asked", "How it is done"
_MANY = "Many machines"

Prefetch = Annotated[
    int,
    typer.Option(
        min=0,
        help="Clips that are decoded ahead of the one that the model works on, each in a thread of its own.",
        envvar="OMNIQA_PREFETCH",
        rich_help_panel=WORK,
    ),
]


@dataclass(frozen=True)
class JobFlags:
    """Which part of a job this is, and what it runs on."""

    shard: Annotated[
        str | None,
        typer.Option(
            help="Only part I of N, told by each clip's name; omniqa merge joins them.",
            metavar="I/N",
            envvar="OMNIQA_SHARD",
            rich_help_panel=ASKED,
        ),
    ] = None
    prefetch: Prefetch = 1
    engine: Annotated[
        str,
        typer.Option(
            metavar="plain|ray",
            help="plain: here, in this process. ray: by actors of a Ray cluster, each with the model loaded once.",
            envvar="OMNIQA_ENGINE",
            rich_help_panel=_MANY,
        ),
    ] = PLAIN
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="A running cluster, as auto or HOST:PORT. Default: RAY_ADDRESS, else one on this machine alone.",
            metavar="ADDRESS",
            envvar="OMNIQA_RAY_ADDRESS",
            rich_help_panel=_MANY,
        ),
    ] = None
    num_actors: Annotated[
        int | None,
        typer.Option(
            help="How many. Default: as many as GPUs go round, or 1 without any.",
            envvar="OMNIQA_NUM_ACTORS",
            rich_help_panel=_MANY,
        ),
    ] = None
    cpus_per_actor: Annotated[
        int,
        typer.Option(
            help="CPU cores that each asks Ray for; the model computes on so many where it has no GPU.",
            envvar="OMNIQA_CPUS_PER_ACTOR",
            rich_help_panel=_MANY,
        ),
    ] = 1
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(
            help="GPUs that each asks Ray for. Default: 1 where the cluster has any.",
            envvar="OMNIQA_GPUS_PER_ACTOR",
            rich_help_panel=_MANY,
        ),
    ] = None

    def part(self) -> Shard:
        """The part of the job; raises UsageError where there is none like that."""
        return Shard.parse(self.shard) if self.shard is not None else Shard()

    def pool(self) -> ray_engine.Pool | None:
        """The actors that are asked for; None where the work is done in this process. Raises UsageError."""
        if self.engine not in (PLAIN, RAY):
            raise UsageError(f"--engine is {PLAIN} or {RAY}, not {self.engine!r}.")
        if self.engine == PLAIN:
            return None
        return ray_engine.Pool(self.num_actors, self.cpus_per_actor, self.gpus_per_actor, self.ray_address)


@contextmanager
def answering(
    job: Job,
    pool: ray_engine.Pool | None,
    loading: options.ModelFlags,
    encoding: options.CacheFlags,
    smaller_clip: Sequence[str],
) -> Iterator[tuple[Generator[Row, None, None], int]]:
    """Load the model and ask what is missing.

    Args:
        job: what is asked.
        pool: the actors that answer; None is this process.
        loading: the model.
        encoding: what need not be encoded again.
        smaller_clip: options that would make a clip smaller than it is.

    Yields:
        The lines, each once it is written, and how many models answer at a time.
    """
    if pool is None:
        with fitting(loading, smaller_clip), closing(job.go_on(load_model(loading, encoding))) as lines:
            yield lines, 1
        return
    say_what_it_knows(loading.model)
    load = partial(load_silently, loading, encoding)
    with console.stdout_for_results(), ray_engine.cluster(pool) as actors:
        console.note(f"{counted(actors.count, 'Ray actor')}, {actors.cpus} CPU and {actors.gpus:g} GPU each")
        with closing(ray_engine.go_on(job, load, actors)) as lines:
            yield lines, actors.count
