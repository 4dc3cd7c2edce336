"""What a question draws attention to: the prompt's last row against the first behind the media."""

import torch

from omniqa.eval.nano import NanoClips
from omniqa.pipeline.load import load
from omniqa.pruning import registry


class Recording:
    """An attention that keeps the queries and keys of each layer."""

    def __init__(self, attention):
        self.attention, self.seen = attention, []

    def causal(self, q, keys, values):
        self.seen.append((q, keys))
        return self.attention.causal(q, keys, values)


def given_by(row, q, keys):
    """Attention (N,) that one row gives all tokens, averaged over heads, written out."""
    query = q[row - (len(keys) - len(q))]
    keys = keys[: row + 1].repeat_interleave(len(query) // keys.shape[1], 1)
    return ((query[None] * keys).sum(-1) * query.shape[1] ** -0.5).softmax(0).mean(1)


def test_surplus_is_the_last_rows_attention_less_that_of_the_first_row_behind_the_media():
    qa = load("nano", "cpu")
    clip = qa.encode(NanoClips(seconds=4, scenes=1).source("3", qa.pixels))
    method = registry.resolve("none")
    qa.decoder.attention = recording = Recording(qa.decoder.attention)
    alone = qa.prefiller.prefill(clip, "What is heard?", method)
    media, expected = alone.layout.media, torch.zeros(len(alone.trace.modality))
    for q, keys in recording.seen[:-1]:
        asked, unasked = (given_by(row, q, keys)[media] for row in (len(keys) - 1, media.stop))
        expected += (asked - unasked) / (qa.model.layers - 1)
    torch.testing.assert_close(alone.result.surplus, expected, atol=1e-5, rtol=1e-4)

    for _ in range(2):  # the second time from what the first has left
        shared = qa.prefiller.prefill(clip, "What is heard?", method, reuse_prefix=True)
    torch.testing.assert_close(shared.result.surplus, expected, atol=1e-5, rtol=1e-4)
