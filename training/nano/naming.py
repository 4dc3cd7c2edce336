"""What the encoders learn before anything is asked: to name what is shown and heard, in words of the model's own head.

Each embedding is read as the decoder's last layer is, by its norm and lm_head. Video tokens say the colour, shape and
motion of what lies on them, or the sign; audio tokens the sounds and the word that are heard then. It takes the
encoders alone, so it is several times faster than answers, which are learned soon where things have names.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omniqa.models.base import AUDIO, STANDARD
from training.nano.batches import FPS, Batch, BatchSpec, Media, make_media
from training.nano.blocks import BlockModel, before
from training.nano.truth import HEARD, SEEN, heard, seen

_RARE = 5.0  # weight of a name that is true, of which there are few
_EARLY = 0.3  # of the decoder's layers, after which audio tokens shall know what is shown
_SHOWN_WEIGHT, _LOOKS_WEIGHT = 2.0, 1.0  # of that, beside the answers; of a layer's looking at the evidence
_MIDDLE, _MIDDLE_WEIGHT = 0.6, 0.5  # of the layers, after which answers shall be known; of that


@dataclass(frozen=True)
class Named:
    """Clips, and what is true of each of their tokens.

    seen: (grids, tokens_per_grid, SEEN) float32, 1 where it lies on the token, NaN throughout where a scene ends
        inside the grid.
    heard: (audio tokens, HEARD) float32, 1 where it is heard then.
    """

    media: tuple[Media, ...]
    seen: Tensor
    heard: Tensor


def make_named(spec: BatchSpec) -> Named:
    """Make clips and say what is in them, of the picture in the first grid only: the next would show little else."""
    scripts, media = make_media(spec)
    pairs = [(script, _first_grid(one)) for script, one in zip(scripts, media, strict=True)]
    return Named(
        media=tuple(one for _, one in pairs),
        seen=torch.from_numpy(np.concatenate([seen(script, one.shape, FPS) for script, one in pairs])),
        heard=torch.from_numpy(np.concatenate([heard(script, one.shape) for script, one in pairs])),
    )


def _first_grid(media: Media) -> Media:
    shape = replace(media.shape, grid_times=media.shape.grid_times[:1])
    return replace(media, frames=media.frames[:2], shape=shape)


class TokenLabeler:
    """Reads names off the embeddings of a model's encoders."""

    def __init__(self, model: BlockModel) -> None:
        self.model = model
        encode = model.thinker.template.encode
        self.seen, self.heard = ([encode(f" {name}", False)[-1] for name in names] for names in (SEEN, HEARD))

    def names(self, named: Named) -> tuple[Tensor, Tensor]:
        """(grids, tokens_per_grid, SEEN) and (audio tokens, HEARD), float32: above 0 where it says so."""
        thinker, clips = self.model.thinker, named.media
        with torch.autocast(thinker.device.type, torch.bfloat16, enabled=self.model.bf16):
            norm, weight = thinker.decoder.norm, thinker.lm_head.weight
            seen = norm(self.model.encode_video(clips)) @ weight[self.seen].T
            heard = norm(self.model.encode_audio(clips)) @ weight[self.heard].T
        return seen.float().unflatten(0, (-1, clips[0].shape.tokens_per_grid)), heard.float()

    def loss(self, named: Named) -> Tensor:
        """Cross entropy of the names, a mean over video tokens and one over audio tokens, times the number of clips."""
        seen, heard = self.names(named)
        seen_true, heard_true = (truth.to(seen.device) for truth in (named.seen, named.heard))
        known = ~seen_true.isnan().flatten(1).any(1)
        return len(named.media) * (_mistaken(seen[known], seen_true[known]) + _mistaken(heard, heard_true))

    def answers_loss(self, batch: Batch, media_visible_layers: range | None) -> Tensor:
        """BlockModel.loss, and what leads to answers. Arguments as there.

        Early in the decoder audio tokens say what is shown while they are heard: sights and sounds are brought together
        in the clip, once, and not anew by every question. Soon after, one layer's first head looks at the evidence, and
        all heads of the next layers do: what they would see elsewhere is mistaken for the answer. By the middle the
        answer is said already: things are looked up in the layers for it.
        """
        states = list(self.model.states(batch, media_visible_layers))
        early, middle = (round(share * len(states)) - 1 for share in (_EARLY, _MIDDLE))
        beside = _SHOWN_WEIGHT * self._shown_mistaken(states[early], batch)
        for layer in range(early + 2, middle + 1):
            looks = self.model.looks(states[layer - 1], batch, layer)
            finding = looks if layer > early + 2 else looks[:, :1]
            beside += _LOOKS_WEIGHT * looked_past(finding, batch)
        answers = self.model.loss_of(states[-1], batch) + _MIDDLE_WEIGHT * self.model.loss_of(states[middle], batch)
        return answers + int(batch.learned.sum()) * beside

    def _shown_mistaken(self, state: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy of what audio tokens say is shown. state: (B, N, d) after some layer."""
        thinker = self.model.thinker
        with torch.autocast(thinker.device.type, torch.bfloat16, enabled=self.model.bf16):
            audio = state[(batch.modality == AUDIO).to(state.device)]
            shown = thinker.decoder.norm(audio) @ thinker.lm_head.weight[self.seen].T
        return _mistaken(shown.float(), batch.shown.to(shown.device))

    @torch.no_grad()
    def right(self, named: Named) -> tuple[float, float]:
        """Of the grids and of the audio tokens, the shares of which all names are right."""
        seen, heard = self.names(named)
        known = ~named.seen.isnan().flatten(1).any(1)
        pairs = ((seen[known].amax(1), named.seen[known].amax(1)), (heard, named.heard))
        grids, tokens = (float(((said.cpu() > 0) == (true > 0)).all(1).float().mean()) for said, true in pairs)
        return grids, tokens


def looked_past(looks: Tensor, batch: Batch) -> Tensor:
    """Mean over heads, tokens said and options of -log of the share of looks that falls on the evidence.

    Args:
        looks: see BlockModel.looks. Looked from is wherever a token of an answer is said, and the end of an option's
            line.
    """
    rows = (before(batch.learned) | (batch.verdict >= 0))[:, batch.clip_tokens :].nonzero().tolist()
    length = torch.where(batch.modality == AUDIO, 1 / STANDARD.audio_tokens_per_second, 2 / FPS)[:, : batch.clip_tokens]
    begins = batch.time_s[:, : batch.clip_tokens]
    missed = []
    for clip, row in rows:
        spans = batch.evidence[clip][int(batch.block[clip, batch.clip_tokens + row]) - 1]
        during = [(begins[clip] < end) & (begins[clip] + length[clip] > start) for start, end in spans]
        if during:
            evidence = torch.stack(during).any(0).to(looks.device)
            missed.append(-looks[clip, :, row, evidence].logsumexp(-1).mean())
    return torch.stack(missed).mean() if missed else looks.new_zeros(())


def _mistaken(said: Tensor, truth: Tensor) -> Tensor:
    """Mean cross entropy; 0 where there is nothing to be named."""
    rare = torch.tensor(_RARE, device=said.device)
    return F.binary_cross_entropy_with_logits(said, truth, pos_weight=rare) if len(said) else said.sum()
