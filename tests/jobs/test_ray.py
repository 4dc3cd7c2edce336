"""On Ray's actors every question gets the line that it gets without, whoever is killed. Run with real Ray."""

import os
import pickle
import signal
from functools import partial

import pytest

from benchmarks.batch_kills import actors
from omniqa.errors import ModelError, UsageError
from omniqa.jobs import ray_engine
from omniqa.jobs.clips import Paths
from omniqa.jobs.ray_engine import Actors, Pool, Worker, cluster
from omniqa.jobs.rows import BatchRows
from omniqa.jobs.runner import FailurePolicy, Runner
from omniqa.media.sampling import ClipOptions
from omniqa.pipeline.load import load
from omniqa.runtime.generation_options import GenerationOptions
from tests.jobs.test_runner import timeless
from tests.near import near

MANY = [f"What is thing {number}?" for number in range(40)]


@pytest.fixture(scope="module")
def two_actors():
    with cluster(Pool(actors=2, address="local")) as actors:
        yield actors


@pytest.fixture
def loads(nano):
    return partial(load, str(nano), "cpu", "float32")


@pytest.fixture
def whole(start, qa, tmp_path):
    """The lines that the plain engine gives, by id."""

    def call(*given, **options):
        path = tmp_path / "whole.jsonl"
        list(start(*given, path=path, **options).go_on(qa))
        return near({row["id"]: row for row in timeless(path)})

    return call


class Deadly(Runner):
    """Whatever process decodes b.mkv is killed."""

    def ask(self, qa, todos):
        for todo in todos:
            if todo.clip.path.endswith("b.mkv"):
                os.kill(os.getpid(), signal.SIGKILL)
            yield from super().ask(qa, [todo])


def test_a_file_cut_off_anywhere_is_gone_on_with_and_gives_the_lines_of_the_plain_engine(
    start, qa, whole, two_actors, loads, media, tmp_path
):
    path, broken = tmp_path / "out.jsonl", tmp_path / "broken.mp4"
    broken.write_bytes((media / "a.mp4").read_bytes()[:800])
    names = [str(broken), str(media)]
    expected = whole(names)
    list(start(names).go_on(qa))
    path.write_bytes(path.read_bytes()[:-1000])
    cut = path.read_bytes().count(b"\n")
    batch = start(names)
    assert len(list(ray_engine.go_on(batch, loads, two_actors))) == len(expected) - cut > 0
    found = timeless(path)
    assert {row["id"]: row for row in found} == expected
    assert len(found) == len(expected)
    assert list(ray_engine.go_on(start(names), loads, two_actors)) == []


def test_an_actor_killed_in_the_middle_costs_no_line_and_doubles_none(start, whole, two_actors, loads, media, tmp_path):
    expected = whole(questions=MANY)
    batch = start(questions=MANY)
    rows = ray_engine.go_on(batch, loads, two_actors)
    next(rows)
    at_work = [actor for actor in actors() if actor.cmdline()[0].endswith(".submit")]
    at_work[0].kill()
    assert len(list(rows)) == len(expected) - 1
    found = timeless(tmp_path / "out.jsonl")
    assert {row["id"]: row for row in found} == expected
    assert len(found) == len(expected)
    assert list(batch.runner.left_out) == [str(media / "notes")]


def test_a_clip_that_kills_every_process_fails_by_itself(start, two_actors, loads, monkeypatch, tmp_path):
    monkeypatch.setattr(ray_engine, "_RETRIES", 0)
    batch = start()
    runner = batch.runner
    batch.runner = Deadly(runner.clips, runner.decoding, runner.rows, runner.policy)
    rows = list(ray_engine.go_on(batch, loads, Actors(1, 1, 0)))
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["failed"] * 2
    assert "b.mkv was given up" in rows[-1]["error"]


def test_what_is_wrong_with_the_model_or_the_folder_is_said_by_the_actor(tmp_path):
    runner = Runner(Paths(ClipOptions()), GenerationOptions(), BatchRows("settings"), FailurePolicy())
    here = os.getcwd()
    for name, folder, error in (("gone", here, ModelError), ("nano", str(tmp_path / "no"), UsageError)):
        (said,) = Worker(runner, partial(load, name), folder)({"todo": []})
        report = pickle.loads(said["report"][0])
        assert isinstance(report.error, error)
    assert os.getcwd() == here


def test_without_ray_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'omniqa\[ray\]'"), cluster(Pool()):
        pass


@pytest.mark.parametrize("given", [{"actors": 0}, {"cpus": 0}, {"gpus": -1.0}, {"gpus": 1.5}])
def test_numbers_that_make_no_sense_are_refused(given):
    with pytest.raises(UsageError):
        Pool(**given)


@pytest.mark.parametrize(
    ("pool", "gpus", "actors", "each"),
    [
        (Pool(), 0, 1, 0),
        (Pool(), 8, 8, 1),
        (Pool(gpus=2), 8, 4, 2),
        (Pool(gpus=0.5), 4, 8, 0.5),
        (Pool(actors=3), 8, 3, 1),
        (Pool(gpus=0), 8, 1, 0),
        (Pool(gpus=2), 1, 1, 2),
    ],
)
def test_the_pool_is_as_large_as_the_gpus_allow(pool, gpus, actors, each):
    assert pool.sized(gpus) == Actors(actors, 1, each)
