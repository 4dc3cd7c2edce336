"""From a choice by modality to the sequence that enters the decoder."""

import torch
from torch import Tensor

from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.contract import Kept, MediaTokens


def interleave(kept: Kept, media: MediaTokens) -> tuple[Tensor, Tensor]:
    """The kept tokens in sequence order.

    Returns:
        (m,) long, which of the n tokens they are, ascending; and (m, d), what they enter layer 0 with.

    Raises:
        ValueError: a mask or embeddings have not the shape that the clip takes, or a kept token is not here any more.
    """
    here = torch.ones(media.n_video, dtype=torch.bool, device=media.modality.device)
    here = here if media.video_keep is None else media.video_keep
    video = _mask(kept.video, here, "video")
    audio = _mask(kept.audio, torch.ones(len(media.audio), dtype=torch.bool, device=here.device), "audio")
    keep = torch.empty_like(media.modality, dtype=torch.bool)
    keep[media.places(VIDEO)], keep[media.places(AUDIO)] = video, audio
    index = keep.nonzero().flatten()
    parts = (
        _embeddings(kept.video_embeddings, media.video, video[here], "video"),
        _embeddings(kept.audio_embeddings, media.audio, audio, "audio"),
    )
    is_audio = media.modality[index] == AUDIO
    embeddings = parts[0].new_empty(len(index), parts[0].shape[1])
    embeddings[~is_audio], embeddings[is_audio] = parts
    return index, embeddings


def _mask(mask: Tensor | None, here: Tensor, name: str) -> Tensor:
    """A modality's mask; None is that of all tokens that are here."""
    if mask is None:
        return here
    if mask.shape != here.shape or mask.dtype != torch.bool:
        raise ValueError(f"Kept.{name} is {mask.dtype} {tuple(mask.shape)}, not a bool for each of {len(here)} tokens")
    if (mask & ~here).any():
        raise ValueError(f"Kept.{name} has tokens that the method's rule freed")
    return mask


def _embeddings(changed: Tensor | None, own: Tensor, mask: Tensor, name: str) -> Tensor:
    """What the kept tokens of a modality enter with."""
    unchanged = own[mask]
    if changed is None:
        return unchanged
    if changed.shape != unchanged.shape:
        raise ValueError(f"Kept.{name}_embeddings are {tuple(changed.shape)}, not {tuple(unchanged.shape)}")
    return changed.to(unchanged.dtype)
