"""What a clip costs by its plan; tests/benchmarks/test_gpu.py holds the counts against torch's own."""

import pytest

from omniqa.model.checkpoint import HUB_3B, HUB_7B, thinker_config
from omniqa.model.work import ModelShape
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens, Plan

CLIP = ClipTokens(400, 16, 144)


@pytest.mark.parametrize("model", [HUB_3B, HUB_7B])
def test_the_published_models_are_known_without_their_files(model):
    work = ModelShape.of(model).work(Plan.untouched(CLIP, 36), text=60)
    assert work["vision_encoder"] == pytest.approx(11.9e12, rel=0.03)
    assert set(work) == {"vision_encoder", "audio_encoder", "prefill"}


def test_a_folders_configuration_is_read(checkpoint):
    text = thinker_config(str(checkpoint)).text_config
    shape = ModelShape.of(str(checkpoint))
    assert (shape.width, shape.kv_heads) == (text.hidden_size, text.kv_heads)


def test_retention_changes_the_prefill_alone_and_nearly_in_proportion():
    shape = ModelShape.of(HUB_7B)
    full, less = (shape.work(registry.create("omnidrop", retention).plan(CLIP, 28), text=0) for retention in (1.0, 0.3))
    assert full["vision_encoder"] == less["vision_encoder"]
    assert full["audio_encoder"] == less["audio_encoder"]
    assert 0.25 < less["prefill"] / full["prefill"] < 0.33
