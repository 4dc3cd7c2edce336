from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference

from omniqa.errors import MediaError
from omniqa.media.container import Damage, timed_frames
from omniqa.media.resize import resize
from omniqa.media.sampling import smart_resize
from tests.media.clips import real_clip

SIDES = st.integers(1, 5000)
BOUNDS = [(128 * 28 * 28, 768 * 28 * 28), (56 * 56, 28 * 28 * 1280), (28 * 28, 16 * 28 * 28)]


@given(SIDES, SIDES, st.sampled_from(BOUNDS))
def test_smart_resize_gives_the_numbers_of_transformers(height, width, bounds):
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(MediaError, match="long and thin"):
            smart_resize(height, width, *bounds)
    else:
        assert smart_resize(height, width, *bounds) == reference(height, width, 28, *bounds)


@given(st.integers(100, 4000), st.integers(100, 4000))
def test_every_frame_is_a_grid_of_cells_within_the_bounds(height, width):
    rows, cols = smart_resize(height, width)
    assert rows % 28 == cols % 28 == 0
    assert 128 <= rows * cols // 28**2 <= 768


def test_halves_are_rounded_to_even():
    assert smart_resize(490, 504) == (18 * 28, 504)  # 17.5 cells
    assert smart_resize(462, 504) == (16 * 28, 504)  # 16.5 cells


def test_a_frame_of_the_right_size_stays_as_it_is():
    frame = np.random.default_rng(0).integers(0, 256, (56, 84, 3), np.uint8)
    assert resize(frame, (56, 84)) is frame


def test_resizing_keeps_shape_type_and_flat_colours():
    frame = np.full((33, 57, 3), (10, 128, 250), np.uint8)
    sized = resize(frame, (280, 476))
    assert sized.shape == (280, 476, 3)
    assert sized.dtype == np.uint8
    assert (sized == frame[0, 0]).all()


@pytest.mark.parametrize("name", ["bbb_30s.webm", "rabbit320.mp4"])
def test_real_frames_differ_from_the_float_path_by_a_fifth_of_a_level(name):
    """The reference casts to float32, resizes, rounds and clamps; run with -s to see the difference."""
    total = most = count = 0
    for k, decoded in enumerate(islice(timed_frames(real_clip(name), "video", 0, Damage()), 200)):
        if k % 30:
            continue
        frame = decoded.frame.to_ndarray(format="rgb24")
        size = smart_resize(*frame.shape[:2])
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        wanted = interpolate(pixels, size, mode="bicubic", antialias=True).round().clamp(0, 255)
        difference = np.abs(resize(frame, size).astype(int) - wanted[0].permute(1, 2, 0).numpy())
        total, most, count = total + difference.mean(), max(most, difference.max()), count + 1
    print(f"\n{name}: mean absolute difference {total / count:.5f}, largest {most:.0f}, of 255")
    assert total / count < 0.25
    assert most <= 8
