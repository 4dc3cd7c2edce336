"""The Thinker over clips with many questions each, with gradients: what nano's training computes.

A row holds a clip once and then its questions, each a block that sees the clip and itself. So attention comes in two
parts: the clip's tokens over the clip, and the questions' over the clip and the chunk of text around them, which no
block is longer than. Nothing is computed between blocks that do not see each other.
"""

from collections import Counter, deque
from collections.abc import Generator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniqa.models.base import AUDIO, TEXT, VIDEO
from omniqa.models.qwen2_5_omni.audio import AudioEncoder, token_count
from omniqa.models.qwen2_5_omni.thinker import Thinker
from omniqa.models.qwen2_5_omni.vision import VisionEncoder
from omniqa.nano.kinds import KINDS
from omniqa.runtime.attention import SdpaAttention, rotate
from training.nano.batches import PADDING, Batch, Media

_NO_BLOCK = -2  # before the first chunk of text


class MatmulAttention(SdpaAttention):
    """Attention in plain products: on a CPU they are faster backwards than torch's own kernel."""

    name = "matmul"

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.dense."""
        q, k, v = (x.transpose(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
        return ((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2)


class BlockModel:
    """The Thinker over a batch of clips with many questions each, with gradients.

    The encoders run as at inference; the decoder is the same modules over padded rows. B clips, rows of N tokens, the
    first M of them the clip's; C chunks of W tokens of text; H heads, KV key heads, D their size.
    """

    def __init__(self, thinker: Thinker, bf16: bool = False) -> None:
        self.thinker = thinker
        self.bf16 = bf16
        self.attention = SdpaAttention() if thinker.device.type == "cuda" else MatmulAttention()
        config = thinker.config.get_text_config()
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads

    def logits(self, batch: Batch, media_visible_layers: range | None = None) -> Tensor:
        """What is said at every token to be learned: (tokens, vocabulary), float32, clip after clip.

        Args:
            media_visible_layers: the layers in which text sees audio and video tokens; None: all.
        """
        (last,) = deque(self.states(batch, media_visible_layers), maxlen=1)
        return self._said(last, before(batch.learned))

    def loss(self, batch: Batch, media_visible_layers: range | None = None, embedded: Tensor | None = None) -> Tensor:
        """Cross entropy of the tokens to be learned and of the verdicts on options, summed.

        Args:
            media_visible_layers: see `logits`.
            embedded: see `states`.
        """
        (last,) = deque(self.states(batch, media_visible_layers, embedded), maxlen=1)
        return self.loss_of(last, batch)

    def loss_of(self, last: Tensor, batch: Batch) -> Tensor:
        """The same, of the last of the `states`."""
        judged = batch.verdict >= 0
        next_ids = torch.where(judged, batch.verdict, batch.ids.roll(-1, dims=1))
        where = before(batch.learned) | judged
        return F.cross_entropy(self._said(last, where), next_ids[where].to(last.device), reduction="sum")

    def states(
        self, batch: Batch, media_visible_layers: range | None = None, embedded: Tensor | None = None
    ) -> Generator[Tensor, None, None]:
        """(B, N, d) after each layer, one after the other.

        Args:
            media_visible_layers: see `logits`.
            embedded: (B, N, d), in the place of what `embed` gives.
        """
        device = self.thinker.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            x = self.embed(batch) if embedded is None else embedded
            rotary = self._rotary(x, batch.positions.to(device))
            seeing, blind = ([_added(mask, x) for mask in _visible(batch, blind)] for blind in (False, True))
        for number, layer in enumerate(self.thinker.decoder.layers):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                x = self._layer(
                    layer,
                    x,
                    rotary,
                    seeing if media_visible_layers is None or number in media_visible_layers else blind,
                )
            yield x

    def looks(self, state: Tensor, batch: Batch, layer: int) -> Tensor:
        """How much each head of a layer looks at each audio and video token from each token of text.

        Args:
            state: (B, N, d), what the layer gets. Gives the logarithms of shares that sum to 1, (B, H, N - M, M)
                float32.
        """
        attention, tokens = self.thinker.decoder.layers[layer].self_attn, batch.clip_tokens
        h = self.thinker.decoder.layers[layer].input_layernorm(state)
        cos, sin = self._rotary(state, batch.positions.to(state.device))
        q, k = (
            rotate(project(h[:, place]).unflatten(-1, (heads, -1)), cos[:, place], sin[:, place]).float()
            for project, heads, place in (
                (attention.q_proj, self.heads, slice(tokens, None)),
                (attention.k_proj, self.kv_heads, slice(0, tokens)),
            )
        )
        q = (
            q.unflatten(2, (self.kv_heads, -1)).permute(0, 2, 3, 1, 4) * attention.head_dim**-0.5
        )  # (B, KV, G, N - M, D)
        scores = (q @ k.permute(0, 2, 3, 1)[:, :, None]).flatten(1, 2)
        media = (batch.modality[:, :tokens] != TEXT).to(state.device)
        return scores.masked_fill(~media[:, None, None], float("-inf")).log_softmax(-1)

    def _said(self, last: Tensor, where: Tensor) -> Tensor:
        """What is said after the tokens at `where`, (B, N) bool: (tokens, vocabulary), float32."""
        with torch.autocast(last.device.type, torch.bfloat16, enabled=self.bf16):
            return self.thinker.lm_head(self.thinker.decoder.norm(last[where.to(last.device)])).float()

    def embed(self, batch: Batch) -> Tensor:
        """(B, N, d): text from the table, audio and video from the encoders."""
        device = self.thinker.device
        x = self.thinker.decoder.embed_tokens(batch.ids.to(device))
        for kind, encode in ((VIDEO, self.encode_video), (AUDIO, self.encode_audio)):
            place = (batch.modality == kind).to(device)[:, :, None]
            x = x.masked_scatter(place, encode(batch.media).to(x.dtype))
        return x

    def encode_video(self, media: Sequence[Media]) -> Tensor:
        """(tokens of all clips, d)."""
        frames = torch.cat([torch.from_numpy(clip.frames) for clip in media])
        return VisionEncoder(self.thinker.visual, self.attention)._encode_grids(frames).flatten(0, 1)

    def encode_audio(self, media: Sequence[Media]) -> Tensor:
        """(tokens of all clips, d): windows of one length are encoded together, then put back in order."""
        encoder = AudioEncoder(self.thinker.audio_tower, self.attention)
        windows = [window for clip in media for window in torch.from_numpy(clip.mel).split(encoder.window, dim=1)]
        encoded: list[Tensor] = [torch.empty(0)] * len(windows)
        for length in {window.shape[1] for window in windows}:
            places = [place for place, window in enumerate(windows) if window.shape[1] == length]
            same = torch.stack([windows[place] for place in places]).to(self.thinker.device)
            tokens = encoder._encode_windows(same)[0].unflatten(0, (len(places), token_count(length)))
            for place, embeddings in zip(places, tokens, strict=True):
                encoded[place] = embeddings
        return torch.cat(encoded)

    def _rotary(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each (B, N, 1, D), of positions (3, B, N)."""
        cos, sin = self.thinker.decoder.rotary_emb(x, positions)
        return cos[:, :, None], sin[:, :, None]

    def _layer(self, layer: Any, x: Tensor, rotary: tuple[Tensor, Tensor], masks: Sequence[Tensor]) -> Tensor:
        """One layer of the decoder over (B, N, d)."""
        attention, h = layer.self_attn, layer.input_layernorm(x)
        q = rotate(attention.q_proj(h).unflatten(-1, (self.heads, -1)), *rotary)
        k = rotate(attention.k_proj(h).unflatten(-1, (self.kv_heads, -1)), *rotary)
        v = attention.v_proj(h).unflatten(-1, (self.kv_heads, -1))
        x = x + attention.o_proj(_attend(q.to(v.dtype), k.to(v.dtype), v, *masks).flatten(2))
        return x + layer.mlp(layer.post_attention_layernorm(x))


def _added(mask: Tensor, x: Tensor) -> Tensor:
    """A bool mask as what is added to scores, in the type and place of x."""
    dtype = torch.bfloat16 if torch.is_autocast_enabled(x.device.type) else x.dtype
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, float("-inf")).to(x.device)


def _attend(q: Tensor, k: Tensor, v: Tensor, clip_mask: Tensor, text_mask: Tensor) -> Tensor:
    """q and result (B, N, H, D), k and v (B, N, KV, D), clip_mask (B, M, M), text_mask (B, C, W, M + 2 W)."""
    tokens, (chunks, width) = clip_mask.shape[1], text_mask.shape[1:3]
    q = (q * q.shape[-1] ** -0.5).transpose(1, 2).unflatten(1, (k.shape[2], -1))  # (B, KV, G, N, D)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    clip = _product(q[:, :, :, :tokens], k[:, :, :tokens], v[:, :, :tokens], clip_mask[:, None, None])

    rows = q[:, :, :, tokens:].unflatten(3, (chunks, width)).transpose(2, 3)  # (B, KV, C, G, W, D)
    keys, values = (_around(x, tokens, chunks) for x in (k, v))
    text = _product(rows, keys, values, text_mask[:, None, :, None]).transpose(2, 3).flatten(3, 4)
    return torch.cat([clip, text], dim=3).flatten(1, 2).transpose(1, 2)


def _product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Plain attention of q (…, G, R, D) over k and v (…, S, D), the same for all G: no key is repeated."""
    scores = (q.flatten(-3, -2) @ k.transpose(-2, -1)).unflatten(-2, q.shape[-3:-1])
    return ((scores + mask).softmax(-1).to(v.dtype).flatten(-3, -2) @ v).unflatten(-2, q.shape[-3:-1])


def _around(x: Tensor, tokens: int, chunks: int) -> Tensor:
    """What each chunk's rows may see: (B, KV, C, M + 2 W, D) of (B, KV, N, D): clip, chunk before, chunk."""
    text = x[:, :, tokens:].unflatten(2, (chunks, -1))
    before = F.pad(text[:, :, :-1], (0, 0, 0, 0, 1, 0))
    clip = x[:, :, None, :tokens].expand(-1, -1, chunks, -1, -1)
    return torch.cat([clip, before, text], dim=3)


def _visible(batch: Batch, blind: bool) -> tuple[Tensor, Tensor]:
    """Which keys the clip's rows and those of text see; blind: without audio and video tokens where the row is text."""
    text = batch.modality[:, : batch.clip_tokens] == TEXT
    causal = torch.ones(batch.clip_tokens, batch.clip_tokens, dtype=torch.bool).tril()
    there = batch.block[:, : batch.clip_tokens] != PADDING
    hidden = text[:, :, None] & ~text[:, None, :] & torch.tensor(blind)
    return causal & there[:, None, :] & ~hidden, visible_to_text(batch, blind)


def visible_to_text(batch: Batch, blind: bool = False) -> Tensor:
    """(B, C, W, M + 2 W) bool, which keys a row of text sees: the clip, and what comes before it of its own block.

    Args:
        blind: of the clip only the text.
    """
    clip = batch.block[:, : batch.clip_tokens] != PADDING
    if blind:
        clip = clip & (batch.modality[:, : batch.clip_tokens] == TEXT)
    block = batch.block[:, batch.clip_tokens :].unflatten(1, (-1, batch.chunk))
    keys = torch.cat([F.pad(block[:, :-1], (0, 0, 1, 0), value=_NO_BLOCK), block], dim=2)
    earlier = torch.ones(batch.chunk, 2 * batch.chunk, dtype=torch.bool).tril(batch.chunk)
    own = (block[:, :, :, None] == keys[:, :, None, :]) & earlier
    return torch.cat([clip[:, None, None, :].expand(*block.shape, -1), own], dim=3)


def before(learned: Tensor) -> Tensor:
    """The tokens at which those at `learned`, (B, N) bool, are said: each by the one before it."""
    return learned.roll(-1, dims=1)


Score = dict[str, tuple[int, int]]


@torch.no_grad()
def score(model: BlockModel, batches: Sequence[Batch], media_visible_layers: range | None = None) -> Score:
    """Of every kind of question, how many are answered right, and how many are asked.

    An answer counts where each of its tokens and the end is the likeliest one after the right tokens before it; that is
    the same as that greedy decoding gives this answer.
    """
    right, asked = Counter[str](), Counter[str]()
    for batch in batches:
        said = model.logits(batch, media_visible_layers).argmax(-1).cpu()
        missed = (said != batch.ids[batch.learned]).nonzero()[:, 0]
        clip = batch.learned.nonzero()[:, 0]
        wrong = {(int(clip[token]), int(batch.block[batch.learned][token])) for token in missed}
        for row, kinds in enumerate(batch.kinds):
            asked.update(kinds)
            right.update(kind for number, kind in enumerate(kinds, start=1) if (row, number) not in wrong)
    return {kind: (right[kind], asked[kind]) for kind in KINDS if asked[kind]}
