"""Make shapes.mp4: a red square crosses from the left, then a blue disc falls; a low tone, then two high beeps.

python sample_media/make_shapes.py
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FPS, SECONDS, RATE = 448, 252, 12, 8, 16000


def picture(time: float) -> np.ndarray:
    """The frame at `time`: uint8 (HEIGHT, WIDTH, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frame = np.full((HEIGHT, WIDTH, 3), (225, 225, 215), np.uint8)
    if time < 4:
        left = -60 + 120 * time
        frame[(abs(y - 126) < 35) & (x >= left) & (x < left + 70)] = (205, 40, 35)
    else:
        frame[(x - 224) ** 2 + (y + 40 - 75 * (time - 4)) ** 2 < 40**2] = (35, 70, 200)
    return frame


def sound() -> np.ndarray:
    """The whole sound: float32 (1, RATE · SECONDS)."""
    time = np.arange(RATE * SECONDS) / RATE
    low = (time < 3) * np.sin(2 * np.pi * 220 * time)
    beeps = (((time > 5) & (time < 5.4)) | ((time > 6) & (time < 6.4))) * np.sin(2 * np.pi * 1320 * time)
    return (0.3 * (low + beeps)).astype(np.float32)[None]


def main() -> None:
    """Write the clip beside this file."""
    with av.open(str(Path(__file__).with_name("shapes.mp4")), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for index in range(FPS * SECONDS):
            frame = av.VideoFrame.from_ndarray(picture(index / FPS))
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = av.AudioFrame.from_ndarray(sound(), format="fltp", layout="mono")
        samples.sample_rate, samples.pts = RATE, 0
        container.mux(audio.encode(samples))
        container.mux(audio.encode())


if __name__ == "__main__":
    main()
