"""What video tokens receive in the vision encoder's last block: computed for methods that need it, exactly."""

import numpy as np
import pytest
import torch

from omniqa.cache.encodings import EncodingCache
from omniqa.cache.folder import CacheFolder
from omniqa.errors import UsageError
from omniqa.media.clip import Clip
from omniqa.models import encoded_media
from omniqa.pipeline.engine import OmniQA
from omniqa.pruning.budget import Plan
from omniqa.pruning.contract import Method, VisionAttention
from tests.models.qwen2_5_omni.clips import make_clip

QUESTION = "What happens?"


class Attending(Method):
    """Keeps every token; needs the video's attention."""

    name = "attending"
    paper = summary = ""

    @property
    def needs(self):
        return frozenset({VisionAttention()})

    def plan(self, clip, layers):
        return Plan.untouched(clip, layers)


def slowly(qa, clip):
    """By transformers' own encoder: the last block's attention maps over windows of two grids, wholly computed."""
    from omniqa.models.qwen2_5_omni.vision import patchify

    frames = (torch.from_numpy(clip.frames).float() - qa.vision_encoder._mean) / qa.vision_encoder._std
    rows, cols = frames.shape[1] // 14, frames.shape[2] // 14
    visual, seen, patches = qa.model.visual, {}, patchify(frames).flatten(0, 2)
    attention = visual.blocks[-1].attn
    hook = attention.register_forward_hook(
        lambda m, a, k, o: seen.update({"x": a[0] if a else k["hidden_states"]} | k), with_kwargs=True
    )
    grids = len(frames) // 2
    visual(patches, grid_thw=torch.tensor([[grids, rows, cols]]))
    hook.remove()
    heads = attention.num_heads
    q, k = (layer(seen["x"]).unflatten(-1, (heads, -1)) for layer in (attention.q, attention.k))
    cos, sin = (part[:, None].float() for part in seen["position_embeddings"])

    def turned(x):
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    q, k = turned(q), turned(k)
    tokens = [(row // 4, col // 4, row, col) for row in range(rows // 2) for col in range(cols // 2)]
    in_windows = torch.tensor(sorted(range(len(tokens)), key=tokens.__getitem__))
    size = 2 * rows * cols
    received = torch.cat(
        [
            (torch.einsum("ihd,jhd->hij", q[at : at + size], k[at : at + size]) / q.shape[-1] ** 0.5)
            .softmax(-1)
            .mean(0)
            .sum(0)
            for at in range(0, len(q), size)
        ]
    )
    by_token = received.view(-1, 4).mean(-1)
    return by_token.view(grids, -1)[:, in_windows.argsort()].flatten()


@pytest.mark.parametrize("frames", [2, 4, 6, 14])
def test_it_is_the_attention_received_over_windows_of_two_grids(qa, frames, monkeypatch):
    clip = make_clip(frames=frames, seed=frames)
    monkeypatch.setattr(encoded_media, "score_block", lambda device: 5000)  # several blocks of queries
    whole, attended = qa.encode(clip), qa.encode(clip, method=Attending(1.0))
    assert whole.video_attention is None
    assert attended.video_attention.shape == (len(whole.video),)
    torch.testing.assert_close(attended.video, whole.video, atol=1e-5, rtol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(attended.video_attention, slowly(qa, clip), atol=1e-5, rtol=1e-4)


def test_a_picture_that_stands_still_is_encoded_once(qa):
    frames = np.repeat(make_clip(frames=1).frames[:1], 10, axis=0)  # pairs of equal grids, and a last one alone
    clip = Clip.from_arrays(frames=frames, fps=2)
    attended = qa.encode(clip, method=Attending(1.0))
    assert (attended.summary.grids, attended.summary.grids_reused) == (5, 2)
    first, second, last = attended.video_attention.split([288, 288, 144])
    assert first.equal(second)
    assert len(last) == 144
    torch.testing.assert_close(attended.video, qa.encode(clip).video, atol=1e-5, rtol=1e-4)


def test_a_clip_encoded_without_it_is_a_usage_error_and_one_with_it_serves_all(qa):
    clip, method = make_clip(frames=4, seconds=2.0), Attending(1.0)
    with pytest.raises(UsageError, match="encode it with that method"):
        qa.ask(qa.encode(clip), QUESTION, method)
    video = qa.encode(clip, attended=True)
    answers = [qa.ask(video, QUESTION, one).token_ids for one in (method, "omnidrop")]
    assert answers == [qa.ask(clip, QUESTION, one).token_ids for one in (method, "omnidrop")]


def test_sound_alone_needs_none(qa):
    assert len(qa.encode(make_clip(seconds=2.0), method=Attending(1.0)).video_attention) == 0
    assert qa.ask(make_clip(seconds=2.0), QUESTION, Attending(1.0)).text is not None


def test_static_tokens_cant_be_reused_for_it(qa):
    with pytest.raises(UsageError, match="can't reuse static"):
        OmniQA(qa.name, qa.model, reuse_static=1.0).encode(make_clip(frames=4), method=Attending(1.0))


def test_the_cache_keeps_it_beside_the_clip_without_it(qa, tmp_path):
    cached = OmniQA(qa.name, qa.model, cache=EncodingCache(CacheFolder(tmp_path, 10**9)))
    clip, method = make_clip(frames=6, seconds=2.0), Attending(1.0)
    expected = qa.encode(clip, method=method)
    for entries, asked in ((1, None), (2, method), (2, method), (2, None)):
        found = cached.encode(clip, method=asked)
        assert len(list(tmp_path.glob("*.safetensors"))) == entries
        assert (found.video_attention is None) == (asked is None)
        if asked:
            torch.testing.assert_close(found.video_attention, expected.video_attention)
    assert "vision_encoder" not in cached.encode(clip, method=method).timing_s
