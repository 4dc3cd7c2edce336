"""Scripts: drawn the same each time, and never the same for tests and for training."""

import subprocess
import sys
from itertools import islice, pairwise

import pytest

from omniqa.errors import UsageError
from omniqa.nano import world
from omniqa.nano.scenes import SHORTEST_SCENE, draw


def test_the_same_arguments_give_the_same_script():
    assert draw(7, 8, 2) == draw(7, 8.0, 2)
    assert len({draw(seed) for seed in range(50)}) == 50


@pytest.mark.parametrize(("seconds", "scenes"), [(4, 1), (4, 2), (8, 4), (16, 8), (60, 20), (6, 4)])
def test_scenes_fill_the_clip_without_gaps(seconds, scenes):
    for seed in range(20):
        shown = draw(seed, seconds, scenes).scenes
        assert len(shown) == scenes
        assert shown[0].start == 0
        assert shown[-1].end == seconds
        assert all(a.end == b.start for a, b in pairwise(shown))
        assert all(scene.end - scene.start >= SHORTEST_SCENE - 1e-9 for scene in shown)


@pytest.mark.parametrize(("seconds", "scenes"), [(8, 0), (8, 6), (1, 1), (-4, 1)])
def test_what_has_no_time_is_refused(seconds, scenes):
    with pytest.raises(UsageError, match="one scene or more"):
        draw(0, seconds, scenes)


def test_training_never_draws_a_test_clip():
    tests = world.test_scripts(300)
    training = list(islice(world.training_scripts(), 300))
    assert not {script.seed for script in tests} & {script.seed for script in training}
    assert max(script.seed for script in tests) < world.FIRST_TRAINING_SEED <= min(s.seed for s in training)
    with pytest.raises(UsageError, match="for tests"):
        world.training_scripts(world.FIRST_TRAINING_SEED - 1)
    with pytest.raises(UsageError, match="test set"):
        world.test_scripts(world.FIRST_TRAINING_SEED + 1)


def test_the_test_set_is_fixed():
    assert world.test_scripts(3) == world.test_scripts(5)[:3]
    first = world.test_scripts(1, 8, 2)[0]
    assert world.description(first) == "orange square and blue diamond, chirp; green triangle, bell"


def test_the_world_needs_no_torch():
    code = "import sys, omniqa.nano.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
