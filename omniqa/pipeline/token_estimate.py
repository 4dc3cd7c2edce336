"""How many tokens a clip will have, told before any of it is decoded. Free of torch."""

from typing import TYPE_CHECKING

from omniqa.media.sampling import ClipOptions
from omniqa.media.timeline import Number, exact, sample_times
from omniqa.models.base import STANDARD, Geometry
from omniqa.pruning.budget import ClipTokens

if TYPE_CHECKING:
    from omniqa.media.probe import MediaInfo

HELD_WHOLE = 2**14  # video tokens of a clip up to which all are held while it is encoded


def estimate_tokens(info: "MediaInfo", sampling: ClipOptions, geometry: Geometry = STANDARD) -> ClipTokens:
    """Of a file, if it holds what it says."""
    picture, sound = info.video, info.audio
    size = (picture.height, picture.width) if picture else (0, 0)
    return tokens_of(size, picture.end if picture else 0, sound.end if sound else 0, sampling, geometry)


def tokens_of(
    size: tuple[int, int], seen: Number, heard: Number, sampling: ClipOptions, geometry: Geometry = STANDARD
) -> ClipTokens:
    """Of a picture, height and width in pixels, that ends at second `seen`, and a sound that ends at second `heard`."""
    start = exact(sampling.start)
    ends = [exact(end) if sampling.end is None else min(exact(end), exact(sampling.end)) for end in (seen, heard)]
    grids = tokens_per_grid = audio = 0
    if sampling.video and ends[0] > start:
        times = sample_times(start, ends[0], sampling.fps, sampling.max_frames)
        height, width = sampling.frame_size(*size, geometry, len(times))
        grids, tokens_per_grid = -(-len(times) // geometry.temporal_patch), height * width // geometry.token_pixels**2
    if sampling.audio and ends[1] > start:
        audio = int(geometry.audio_tokens_per_second * (ends[1] - start))
    return ClipTokens(audio, grids, tokens_per_grid)
