"""A slow reference of the pruned decoder: transformers' own layers with full attention maps, survivors chosen by the
plain reading of the methods in tests.pruning.reference."""

import torch

from omniqa.models.base import AUDIO, VIDEO
from tests.pruning import reference


def media_embeddings(qa, clip, layout):
    """transformers' own encoders: the clip's tokens in sequence order, and audio importance by a full map."""
    from omniqa.media.mel import log_mel
    from omniqa.models.qwen2_5_omni.vision import patchify

    media = torch.from_numpy(layout.modality[layout.media])
    parts, importance = torch.zeros(len(media), qa.model.lm_head.weight.shape[1]), []
    if len(clip.frames):
        frames = (torch.from_numpy(clip.frames).float() - qa.vision_encoder._mean) / qa.vision_encoder._std
        grid = torch.tensor([[len(frames) // 2, frames.shape[1] // 14, frames.shape[2] // 14]])
        parts[media == VIDEO] = qa.model.visual(patchify(frames).flatten(0, 2), grid_thw=grid).pooler_output
    if len(clip.waveform):
        mel = torch.from_numpy(log_mel(clip.waveform))
        tower, seen = qa.model.audio_tower, {}
        last = tower.layers[-1].self_attn
        hook = last.register_forward_hook(lambda m, a, k, o: seen.update(x=k["hidden_states"]), with_kwargs=True)
        parts[media == AUDIO] = tower(mel, feature_lens=torch.tensor([mel.shape[1]])).last_hidden_state
        hook.remove()
        q, k = (p(seen["x"]).unflatten(-1, (last.num_heads, -1)).transpose(0, 1) for p in (last.q_proj, last.k_proj))
        received = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1).mean(0).sum(0)
        importance = received[: len(received) // 2 * 2].view(-1, 2).mean(-1).tolist()
    return parts, importance


def run_layer(qa, number, x, positions, hidden=None):
    """One of transformers' decoder layers over (N, d); its output and its full attention map (heads, N, N).

    hidden: (N, N) bool, keys that a row does not see although they come before it.
    """
    layer, model = qa.model.decoder.layers[number], qa.model.decoder
    attention = layer.self_attn
    rotary = model.rotary_emb(x[None], positions[:, None])
    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)[None, None]
    if hidden is not None:
        mask = mask.masked_fill(hidden, float("-inf"))
    before = attention.config._attn_implementation
    attention.config._attn_implementation = "eager"
    try:
        _, maps = attention(layer.input_layernorm(x[None]), attention_mask=mask, position_embeddings=rotary)
        out = layer(x[None], attention_mask=mask, position_embeddings=rotary)
    finally:
        attention.config._attn_implementation = before
    return (out[0] if isinstance(out, tuple) else out)[0], maps[0]


def logits(qa, x):
    return qa.model.lm_head(qa.model.decoder.norm(x))


def scores(maps, rows, places):
    """Mean over heads and those rows that see a place, of the attention from row to place."""
    total = maps.mean(0)[rows][:, places].sum(0)
    seen = (torch.tensor(rows)[:, None] >= torch.tensor(places)).sum(0)
    return (total / seen.clamp(min=1)).tolist()


def forward(qa, layout, media, entered, choose, rows_of):
    """The pruned prefill. choose(l, alive, S) gives the tokens that stay; rows_of(sequence) the scoring rows.

    Returns per layer the clip's tokens alive in it, and the logits of the last row.
    """
    start, n = layout.media.start, layout.media.stop - layout.media.start
    ids = torch.from_numpy(layout.ids)
    table = qa.model.decoder.embed_tokens(ids)
    table[start : start + n] = media
    keep = [*range(start), *(start + i for i in entered), *range(start + n, len(ids))]
    x, alive = table[keep], [list(entered)]
    layers = len(qa.model.decoder.layers)
    for number in range(layers):
        x, maps = run_layer(qa, number, x, torch.from_numpy(layout.positions)[:, keep])
        if number == layers - 1:
            break
        places = [j for j, place in enumerate(keep) if start <= place < start + n]
        s = scores(maps, rows_of(keep), places)
        stays = choose(number, alive[-1], s)
        kept = {start + alive[-1][j] for j in stays}
        rest = [j for j, place in enumerate(keep) if not start <= place < start + n or place in kept]
        x, keep = x[rest], [keep[j] for j in rest]
        alive.append([alive[-1][j] for j in stays])
    return alive, logits(qa, x)[-1]


def recompute(qa, layout, media, alive, generated, cached=None):
    """Logits of the last row with `generated` appended, every layer holding exactly the tokens of alive[l].

    cached: those of them that generated tokens see; None: all.
    """
    start, n = layout.media.start, layout.media.stop - layout.media.start
    ids = torch.cat([torch.from_numpy(layout.ids), torch.tensor(generated, dtype=torch.long)])
    table = qa.model.decoder.embed_tokens(ids)
    table[start : start + n] = media
    more = layout.next_position + torch.arange(len(generated)).expand(3, -1)
    positions = torch.cat([torch.from_numpy(layout.positions), more], dim=1)
    x, before = table, list(range(len(ids)))
    for number, index in enumerate(alive):
        keep = [*range(start), *(start + i for i in index), *range(start + n, len(ids))]
        place = {p: j for j, p in enumerate(before)}
        x = x[[place[p] for p in keep]]
        hidden = torch.zeros(len(keep), len(keep), dtype=torch.bool)
        if cached is not None:
            seen = set(cached[number])
            gone = torch.tensor([start <= p < start + n and p - start not in seen for p in keep])
            hidden[len(keep) - len(generated) :] = gone
        x, _ = run_layer(qa, number, x, positions[:, keep], hidden)
        before = keep
    return logits(qa, x)[-1]


def omnidrop_choice(counts, layout, tds=True, guidance="text", lam=0.2):
    """`choose` of the plain reading of OmniDrop."""
    modality = layout.modality[layout.media].tolist()
    chunk = layout.chunk[layout.media].tolist()

    def choose(number, alive, s):
        k = counts["kept"][number] - counts["kept"][number + 1]
        droppable = [modality[i] == VIDEO for i in alive] if guidance == "audio" else None
        if tds and number >= counts["l_div"]:
            return reference.drop_by_tds(s, [chunk[i] for i in alive], k, max(chunk), lam, droppable)
        return reference.drop_lowest(s, k, droppable)

    return choose
