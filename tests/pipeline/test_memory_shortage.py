"""What runs where memory is short: rows in blocks after an out-of-memory, and encoders that wait elsewhere."""

import pytest
import torch

import omniqa
from omniqa.errors import OutOfMemoryError, UsageError
from omniqa.pipeline.encode import ClipEncoder
from omniqa.pipeline.engine import OmniQA
from omniqa.pipeline.prefill import MLP_ROWS
from omniqa.pruning import registry
from tests.models.qwen2_5_omni.clips import make_clip

QUESTION = "What happens?"


@pytest.fixture
def own(qa):
    return OmniQA(qa.name, qa.model)


def logits(qa, clip, **options):
    return qa.prefiller.prefill(clip, QUESTION, registry.create("omnidrop", 0.5), **options).result.logits


@pytest.fixture
def short(monkeypatch, qa):
    """A decoder whose first MLP has no room for more rows than a block; gives what it was called with."""
    rows, mlp = [], qa.model.decoder.layers[0].mlp
    forward = mlp.forward

    def multiply(x):
        rows.append(len(x))
        if len(x) > MLP_ROWS:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(x)

    monkeypatch.setattr(mlp, "forward", multiply)
    monkeypatch.setattr("omniqa.pipeline.prefill.MLP_ROWS", MLP_ROWS)
    return rows


@pytest.mark.parametrize("reuse_prefix", [False, True])
def test_a_prefill_that_runs_out_of_memory_is_run_again_in_blocks(own, qa, short, reuse_prefix, monkeypatch):
    clip = own.encode(make_clip(frames=24, seconds=12.0))
    found = logits(own, clip, reuse_prefix=reuse_prefix)
    assert short[0] > MLP_ROWS
    assert max(short[1:]) <= MLP_ROWS
    assert own.decoder.mlp_rows == MLP_ROWS
    monkeypatch.undo()
    torch.testing.assert_close(found, logits(OmniQA(qa.name, qa.model), clip), atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_in_blocks_either_is_out_of_memory(own, monkeypatch):
    def full(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    clip = own.encode(make_clip(frames=4, seconds=2.0))
    monkeypatch.setattr(own.model.decoder.layers[1].mlp, "forward", full)
    with pytest.raises(OutOfMemoryError):
        logits(own, clip)


def test_another_error_is_not_tried_again(own, monkeypatch):
    def wrong(x):
        raise RuntimeError("shapes do not fit")

    clip = own.encode(make_clip(frames=4, seconds=2.0))
    monkeypatch.setattr(own.model.decoder.layers[1].mlp, "forward", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        logits(own, clip)
    assert own.decoder.mlp_rows is None


def test_offloaded_encoders_are_on_the_device_while_a_clip_is_encoded_and_only_then(qa, monkeypatch):
    events = []
    monkeypatch.setattr(ClipEncoder, "_move", lambda self, device: events.append(str(device)))
    own = OmniQA(qa.name, qa.model, offload="encoders")
    assert events == ["cpu"]
    encode = own.audio_encoder.encode
    monkeypatch.setattr(own.audio_encoder, "encode", lambda *given: events.append("encode") or encode(*given))
    own.encode(make_clip(frames=2, seconds=2.0))
    assert events == ["cpu", str(own.model.device), "encode", "cpu"]


def test_offloaded_encoders_are_moved_as_whole_modules(qa, monkeypatch):
    moved = []
    for part in qa.model.encoders:
        monkeypatch.setattr(part, "to", lambda device, part=part: moved.append((part, device.type)))
    OmniQA(qa.name, qa.model, offload="encoders")
    assert moved == [(part, "cpu") for part in qa.model.encoders]


@pytest.mark.parametrize(("offload", "device"), [("decoder", "auto"), ("encoders", "cpu")])
def test_what_can_not_be_offloaded_is_a_usage_error(offload, device):
    with pytest.raises(UsageError, match=r"^offload"):
        omniqa.load("nano", device=device, offload=offload)
