"""The interleaved token sequence: ids, modality, chunk, time, and 3-D positions.

Audio and video are interleaved in chunks of two seconds by their true times: V1 A1 V2 A2 …. One position is
40 ms. All of it is computed in integers and fractions, so no chunk border depends on float rounding.
"""

import numpy as np
from numpy.typing import NDArray

from omniqa.models.base import AUDIO, TEXT, VIDEO, MediaShape, PromptText, TokenLayout
from omniqa.models.qwen2_5_omni.geometry import GEOMETRY
from omniqa.models.qwen2_5_omni.template import ChatTemplate


def build_layout(template: ChatTemplate, shape: MediaShape, question: str | PromptText) -> TokenLayout:
    """Lay out system prompt, media and question.

    Equal to transformers' processor and `get_rope_index` for the same frames and rate wherever grids lie at
    most a chunk apart and the last piece is also the latest; where they are not, grids go into the chunk of
    their true time and the text starts after the highest position of either stream.
    """
    prompt = PromptText.of(question)
    head = template.head(prompt)
    bos, eos = _brackets(template, shape)
    media_at = len(head) + len(bos)
    first = len(head) + 1  # both opening tokens share one position, as both closing tokens do
    modality, chunk, seconds, positions = _interleave(shape)
    closing = first + int(positions.max()) + 1
    tail, words = template.tail(prompt)

    special = template.special
    media_ids = np.where(modality == VIDEO, special.video, special.audio)
    media = slice(media_at, media_at + len(modality))
    around = (media_at, len(eos) + len(tail))
    text_before = [*range(len(head)), *[len(head)] * len(bos)]
    text_after = [*[closing] * len(eos), *range(closing + 1, closing + 1 + len(tail))]
    text_at = media.stop + len(eos)
    return TokenLayout(
        ids=np.concatenate([[*head, *bos], media_ids, [*eos, *tail]]).astype(np.int64),
        positions=np.concatenate(
            [np.tile(text_before, (3, 1)), positions + first, np.tile(text_after, (3, 1))], axis=1
        ).astype(np.int64),
        modality=np.pad(modality, around, constant_values=TEXT).astype(np.int8),
        chunk=np.pad(chunk, around, constant_values=-1),
        time_s=np.pad(seconds, around, constant_values=np.nan),
        media=media,
        question=slice(text_at + words.start, text_at + words.stop),
        shape=shape,
        earlier=len(eos) + words.start if prompt.turns else 0,
    )


def _brackets(template: ChatTemplate, shape: MediaShape) -> tuple[list[int], list[int]]:
    """Opening and closing tokens around the media."""
    special = template.special
    bos = [special.vision_bos] * bool(shape.grids) + [special.audio_bos] * bool(shape.audio_tokens)
    eos = [special.audio_eos] * bool(shape.audio_tokens) + [special.vision_eos] * bool(shape.grids)
    return bos, eos


_PER_SECOND = GEOMETRY.positions_per_second
_PER_CHUNK = _PER_SECOND * GEOMETRY.chunk_seconds


def _interleave(
    shape: MediaShape,
) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Modality, chunk, seconds and (3, n) positions of the media tokens, in sequence order, positions from 0."""
    grid_position = [int(_PER_SECOND * t) for t in shape.grid_times]  # ⌊25·t⌋, t ≥ 0
    video_t = np.repeat(np.array(grid_position, np.int64), shape.tokens_per_grid)
    rows, cols = np.divmod(
        np.arange(shape.video_tokens, dtype=np.int64) % max(shape.tokens_per_grid, 1), max(shape.cols, 1)
    )
    audio_t = np.arange(shape.audio_tokens, dtype=np.int64)

    modality = np.repeat(np.array([VIDEO, AUDIO], np.int8), [shape.video_tokens, shape.audio_tokens])
    positions = np.concatenate([np.stack([video_t, rows, cols]), np.tile(audio_t, (3, 1))], axis=1)
    seconds = np.concatenate(
        [np.repeat([float(t) for t in shape.grid_times], shape.tokens_per_grid), audio_t / _PER_SECOND]
    )
    chunk = positions[0] // _PER_CHUNK
    order = np.lexsort((modality, chunk))  # stable: within a chunk video first, each stream in its own order
    return modality[order], chunk[order], seconds[order], positions[:, order]
