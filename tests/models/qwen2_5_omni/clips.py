"""Small clips as arrays, for tests that compare models and not media."""

import numpy as np

from omniqa.media.clip import Clip

HEIGHT, WIDTH = 252, 448  # multiples of 28 within the model's pixel bounds: 144 tokens a grid


def make_clip(frames: int = 0, seconds: float = 0.0, seed: int = 0) -> Clip:
    """Random blocks of colour at 2 frames a second, and a noisy sweep."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (frames, 9, 16, 3), np.uint8)
    pictures = blocks.repeat(28, axis=1).repeat(28, axis=2) if frames else None
    time = np.arange(round(seconds * 16000)) / 16000
    sound = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time) + 0.01 * random.standard_normal(len(time))
    return Clip.from_arrays(frames=pictures, waveform=sound.astype(np.float32) if seconds else None)


CLIPS = {
    "both": {"frames": 10, "seconds": 5.3},
    "longer sound": {"frames": 4, "seconds": 5.0},
    "video only": {"frames": 8},
    "audio only": {"seconds": 4.7},
}
