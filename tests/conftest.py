"""What all tests share: a small random checkpoint in the hub's layout, and the real clips.

Where torch is not installed, a test that comes to need it is skipped, and its module is if its import does.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError

import pytest
from hypothesis import settings

from tests.browser import browser as browser

ROOT = Path(__file__).parents[1]
REAL_CLIPS = ROOT.parent / "shared" / "media"

# pytest's parent process loads readline, which puts the width of its terminal into the environment of the workers.
# Tables fit COLUMNS; a test that wants a width sets its own.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

# Two threads that wait for each other spin where other tests run beside: ten times the CPU time for work this small.
# This process and those that tests start have one.
os.environ["OMP_NUM_THREADS"] = "1"

# How long an example takes depends on what else the machine does, and no test may.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if find_spec("torch"):
    import torch

    torch.set_num_threads(1)
    # transformers' video processor needs torchvision, whose wheels do not go with every build of torch. `make test`
    # puts one beside the environment; what its missing C++ part would declare is declared here, before transformers
    # looks.
    TORCHVISION = Path(sys.prefix) / "torchvision"
    if TORCHVISION.is_dir():
        sys.path.append(str(TORCHVISION))
        _library = torch.library.Library("torchvision", "DEF")
        for _op in ("nms", "qnms"):
            _library.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
else:
    NEEDS_TORCH = "needs torch, which is not installed"

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(collector):
        report = yield
        if report.failed and "No module named 'torch'" in str(report.longrepr):
            report.outcome, report.longrepr = "skipped", (str(collector.path), 0, NEEDS_TORCH)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        """A test or its fixtures that ended in the missing import, in this process or one that it started."""
        report = yield
        error = call.excinfo.value if call.excinfo else None
        here = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        elsewhere = isinstance(error, CalledProcessError) and "No module named 'torch'" in str(error.stderr)
        if here or elsewhere:
            report.outcome, report.longrepr = "skipped", (str(item.path), item.location[1], NEEDS_TORCH)
        return report


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folder of a whole small Omni checkpoint, random weights, saved by transformers in several shards."""
    from benchmarks.make_checkpoint import make_checkpoint

    folder = tmp_path_factory.mktemp("small")
    make_checkpoint("small", folder, shard_size="800KB")
    return folder


@pytest.fixture(scope="session")
def qa(checkpoint):
    """The small checkpoint, loaded, in float32 on the CPU."""
    import omniqa

    return omniqa.load(str(checkpoint), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def real_clips():
    """The folder of real clips; tests that need it are skipped where it is absent."""
    if not REAL_CLIPS.is_dir():
        pytest.skip("the folder of real clips is not here")
    return REAL_CLIPS
