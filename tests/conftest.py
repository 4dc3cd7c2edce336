"""What all tests share: a small random checkpoint in the hub's layout, and the real clips."""

import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
REAL_CLIPS = ROOT.parent / "shared" / "media"

# pytest's parent process loads readline, which puts the width of its terminal into the environment of the workers.
# Tables fit COLUMNS; a test that wants a width sets its own.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

# transformers' video processor needs torchvision, whose wheels do not go with every build of torch. `make test` puts
# one beside the environment; what its missing C++ part would declare is declared here, before transformers looks.
TORCHVISION = Path(sys.prefix) / "torchvision"
if TORCHVISION.is_dir():
    sys.path.append(str(TORCHVISION))
    _library = torch.library.Library("torchvision", "DEF")
    for _op in ("nms", "qnms"):
        _library.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

torch.set_num_threads(2)


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
