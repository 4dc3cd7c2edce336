"""Early choices are compared with TTM's on the same clip."""

import omniqa
from benchmarks import early_choice
from omniqa.eval.nano import NanoClips


def test_after_the_last_block_both_choices_agree_most_and_kept_embeddings_are_nearest():
    qa = omniqa.load("nano", device="cpu")
    clip = NanoClips().source("0", qa.pixels)
    first, last = (early_choice.compare(qa, clip, 0.3, block) for block in (0, qa.model.vision_depth - 1))
    assert 0 < first.agreed < last.agreed <= 1
    assert first.error > last.error > 0
    assert first.chance == last.chance < first.agreed
