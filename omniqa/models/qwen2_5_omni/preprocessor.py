"""What a checkpoint's preprocessors do to pictures and sound: omniqa does one thing, and refuses all others."""

from dataclasses import dataclass

from omniqa.models.qwen2_5_omni.geometry import GEOMETRY
from omniqa.typed_json import WrongEntry, entry, only, optional, record, row_of, whole

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
_PIXELS = whole(1, 2**31)
_LENGTH = whole(1, 2**40)


@dataclass(frozen=True)
class _Preprocessor:
    """preprocessor_config.json: of frames and of sound."""

    image_mean: tuple[float, ...] = entry(row_of(*map(only, IMAGE_MEAN)), IMAGE_MEAN)
    image_std: tuple[float, ...] = entry(row_of(*map(only, IMAGE_STD)), IMAGE_STD)
    patch_size: int = entry(only(14), 14)
    temporal_patch_size: int = entry(only(2), 2)
    merge_size: int = entry(only(2), 2)
    sampling_rate: int = entry(only(16000), 16000)
    feature_size: int = entry(only(128), 128)
    hop_length: int = entry(only(160), 160)
    n_fft: int = entry(only(400), 400)
    dither: float = entry(only(0), 0)
    # Not computed with: omniqa's clips may be longer, and its bounds are those of a video's frames.
    min_pixels: int | None = entry(optional(_PIXELS), None)
    max_pixels: int | None = entry(optional(_PIXELS), None)
    chunk_length: int | None = entry(optional(_LENGTH), None)
    n_samples: int | None = entry(optional(_LENGTH), None)
    nb_max_frames: int | None = entry(optional(_LENGTH), None)


@dataclass(frozen=True)
class _Size:
    """Fewest and most pixels of a frame."""

    shortest_edge: int = entry(_PIXELS, GEOMETRY.min_pixels)
    longest_edge: int = entry(_PIXELS, GEOMETRY.max_pixels)


@dataclass(frozen=True)
class _VideoPreprocessor:
    """video_preprocessor_config.json."""

    size: _Size | None = entry(optional(record(_Size)), None)
    image_mean: tuple[float, ...] = entry(row_of(*map(only, IMAGE_MEAN)), IMAGE_MEAN)
    image_std: tuple[float, ...] = entry(row_of(*map(only, IMAGE_STD)), IMAGE_STD)
    patch_size: int = entry(only(14), 14)
    temporal_patch_size: int = entry(only(2), 2)
    merge_size: int = entry(only(2), 2)


def check_preprocessor(value: object) -> None:
    """Check the value of preprocessor_config.json.

    Raises:
        ValueError: it asks for something else than omniqa does; the message goes on after the file's name.
    """
    record(_Preprocessor)(value)


def read_pixel_bounds(value: object) -> tuple[int, int]:
    """Fewest and most pixels of a frame, from the value of video_preprocessor_config.json.

    Raises:
        ValueError: it is malformed or asks for something else than omniqa does.
    """
    size = record(_VideoPreprocessor)(value).size
    if size is None:
        return GEOMETRY.pixel_bounds
    if size.longest_edge < max(size.shortest_edge, GEOMETRY.token_pixels**2):
        raise WrongEntry(f"is {size.longest_edge}, less than a frame needs", "size.longest_edge")
    return size.shortest_edge, size.longest_edge
