"""A random clip as the encoders would hand it over, and a decoder's scores for it."""

import torch

from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import AuxNetwork, LayerSignals, MediaTokens
from omniqa.pruning.interleave import interleave


def media_tokens(clip: ClipTokens, chunks=4, d=8, seed=0, audio_chunks=None, pruner=None) -> MediaTokens:
    """Random embeddings, the two modalities interleaved chunk by chunk: V1 A1 V2 A2 …

    Grids spread over `chunks` chunks, audio over the first `audio_chunks` of them (None: all). pruner: the method
    that may need a network of its own, which is then random too.
    """
    random = torch.Generator().manual_seed(seed)
    of_grid = torch.arange(clip.grids).double() * chunks / max(clip.grids, 1)
    of_audio = torch.arange(clip.n_audio).double() * (audio_chunks or chunks) / max(clip.n_audio, 1)
    place = torch.cat([of_grid.repeat_interleave(clip.tokens_per_grid), of_audio])
    chunk = place.long()
    modality = torch.tensor([VIDEO] * clip.n_video + [AUDIO] * clip.n_audio)
    order = chunk.argsort(stable=True)
    return MediaTokens(
        modality=modality[order],
        chunk=chunk[order],
        tokens_per_grid=clip.tokens_per_grid,
        video=torch.randn(clip.n_video, d, generator=random),
        audio=torch.randn(clip.n_audio, d, generator=random),
        audio_attention=torch.rand(clip.n_audio, generator=random),
        video_attention=torch.rand(clip.n_video, generator=torch.Generator().manual_seed(seed + 1)),
        query=torch.randn(5, d, generator=torch.Generator().manual_seed(seed + 2)),
        time_s=2 * place[order],
        aux_network=random_network(pruner, d, seed) if pruner and pruner.need(AuxNetwork) else None,
    )


def random_network(pruner, d, seed=0):
    """The network that `pruner` needs, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return pruner.need(AuxNetwork).make(d).requires_grad_(False).eval()


def entered(pruner, tokens: MediaTokens, plan=None):
    """The indices that enter layer 0."""
    plan = pruner.plan(tokens.counts, 8) if plan is None else plan
    return interleave(pruner.prune_input(tokens, plan), tokens)[0]


def run_layers(pruner, plan, tokens: MediaTokens, entered, scores):
    """alive[l]: the indices alive at layer l, `pruner` choosing after each. scores: (L-1, n) float32."""
    alive = [entered]
    for layer in range(plan.layers - 1):
        now = alive[-1]
        seen = LayerSignals(
            tokens.modality[now],
            tokens.chunk[now],
            int(tokens.chunk.max()) if len(tokens.chunk) else 0,
            scores[layer][now],
        )
        alive.append(now[pruner.prune_layer(layer, seen, plan).keep] if plan.prunes(layer) else now)
    return alive
