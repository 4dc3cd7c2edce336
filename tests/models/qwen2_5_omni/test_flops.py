"""What a clip costs by its plan; tests/benchmarks/test_gpu.py holds the counts against torch's own."""

import json

import pytest
import torch

from omniqa.models.qwen2_5_omni.checkpoint import HUB_3B, HUB_7B, NANO, find_checkpoint, thinker_config
from omniqa.models.qwen2_5_omni.config import read_config
from omniqa.models.qwen2_5_omni.flops import ModelShape
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens, Plan

CLIP = ClipTokens(400, 16, 144)
PUBLISHED = {"3b": HUB_3B, "7b": HUB_7B}


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


@pytest.mark.parametrize(("block", "share"), [(0, 0.4), (16, 0.7), (32, 1.0), (None, 1.0)])
def test_a_rule_inside_the_vision_encoder_saves_the_matrix_products_of_what_it_drops(block, share):
    """At ρ = 0.8 a block costs (1 + 3·0.2)/4 of its products; attention and the patches' embedding stay as they are."""
    method = registry.create("omnidrop", 0.3, vision_block=block)
    plan, shape = method.plan(CLIP, 28), ModelShape.of(HUB_7B)
    work = shape.work(plan, 60, method.vision_rule(plan))
    whole = shape.work(plan, 60)
    assert work["vision_encoder"] / whole["vision_encoder"] == pytest.approx(share, abs=0.06)
    assert (work["audio_encoder"], work["prefill"]) == (whole["audio_encoder"], whole["prefill"])


@pytest.mark.parametrize("shape", ["small", "3b", "7b"])
def test_parameters_are_as_many_as_transformers_makes(shape):
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    from benchmarks.make_checkpoint import make_config, make_tokenizer

    config = make_config(shape, make_tokenizer(shape)).thinker_config
    with torch.device("meta"):
        module = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config)
    counted = sum(parameter.numel() for parameter in module.parameters())
    assert ModelShape.of_config(read_config(json.loads(config.to_json_string()))[1]).parameters == counted
    if shape in PUBLISHED:
        assert ModelShape.of(PUBLISHED[shape]).parameters == counted


def test_nanos_parameters_are_those_that_its_file_holds():
    assert ModelShape.of(NANO).parameters == find_checkpoint(NANO).elements
