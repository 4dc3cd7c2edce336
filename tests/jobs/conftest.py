"""A small nano of random weights, tiny clips, and ways to run a batch on them."""

import pytest

import omniqa
from omniqa.jobs import runfile
from omniqa.jobs.clips import Paths, Shard, files_now, find
from omniqa.jobs.jsonl_store import JSON_LINES
from omniqa.jobs.questions import for_all
from omniqa.jobs.results import ResultFile
from omniqa.jobs.rows import BatchRows
from omniqa.jobs.runner import FailurePolicy, Job, Runner
from omniqa.media.sampling import ClipOptions
from omniqa.pruning import registry
from omniqa.pruning.variants import MethodVariant
from omniqa.runtime.generation_options import GenerationOptions
from tests.eval.conftest import nano  # noqa: F401 (a fixture)
from tests.media.clips import Audio, Video, grey, tone, write_clip

SAMPLING = ClipOptions(fps=1)
QUESTIONS = ("What is seen?", "What is heard?")


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A folder of three clips of two seconds, one of them deep inside and without a suffix, and a text file."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "sub" / "deep").mkdir(parents=True)
    for number, name in enumerate(["a.mp4", "b.mkv", "sub/deep/c"]):
        frames = [grey(3 * number + index, 112, 112) for index in range(20)]
        sound = Audio(tone(2.0, 300 + 100 * number, 16000), rate=16000)
        write_clip(folder / f"{name}.mp4", Video(frames, 10), sound).rename(folder / name)
    (folder / "notes").write_text("no clip\n")
    return folder


@pytest.fixture(scope="session")
def qa(nano):  # noqa: F811
    return omniqa.load(str(nano), device="cpu", dtype="float32")


@pytest.fixture
def start(media, tmp_path):
    """A batch that goes on where the last one with the same file ended."""
    opened = []

    def make(names=None, questions=QUESTIONS, path=None, tokens=3, prefetch=1, sampling=SAMPLING, **options):
        while opened:
            opened.pop().close()
        tasks = for_all(find(names or [str(media)]), questions)
        column = MethodVariant("", registry.create("omnidrop", 0.4))
        decoding = GenerationOptions(tokens)
        settings = runfile.make_settings("nano", "auto", sampling, decoding, runfile.method_settings(column.pruner))
        now = files_now((task.clip for task in tasks), Paths(sampling))
        options = {"shard": Shard(), "asked": runfile.summary(tasks), "now": now} | options
        layout = options.pop("layout", JSON_LINES)
        opened.append(ResultFile(path or tmp_path / "out.jsonl", layout, settings, **options))
        mine = [task for task in tasks if options["shard"].takes(task.clip.name)]
        rows, policy = BatchRows(opened[0].settings), FailurePolicy(halve_frames=True)
        return Job(mine, [column], Runner(Paths(sampling), decoding, rows, policy, prefetch), opened[0])

    yield make
    for results in opened:
        results.close()
