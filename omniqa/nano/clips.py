"""Clips of nano's world as files: mp4 with a JSONL of questions beside them."""

import json
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from omniqa.errors import UsageError
from omniqa.nano.picture import frame_at
from omniqa.nano.questions import NanoQuestion, questions
from omniqa.nano.scenes import Script
from omniqa.nano.sound import RATE, waveform

FRAME_RATE = 10
QUESTIONS = "questions.jsonl"
_SOUND_PIECE = 1024  # samples
SMALLEST, LARGEST = 56, 1024  # pixels a side


def make_clips(folder: Path, scripts: Iterable[Script], size: int = 168) -> Iterator[Path]:
    """Write clips and their questions, one clip at each step.

    Args:
        folder: where to; made if it is not there. Files of the same names are replaced.
        scripts: the clips.
        size: pixels a side.

    Yields:
        each clip's file, written.

    Raises:
        UsageError: the size is odd or out of range, or the folder can't be written to.
    """
    if size % 2 or not SMALLEST <= size <= LARGEST:
        raise UsageError(f"The size of a clip is an even number from {SMALLEST} to {LARGEST}, not {size}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / QUESTIONS).open("w", encoding="utf-8") as file:
            for number, script in enumerate(scripts):
                path = write_clip(folder / f"clip-{number:05d}.mp4", script, size)
                for question in questions(script):
                    file.write(json.dumps(_as_dict(path.name, question), ensure_ascii=False) + "\n")
                yield path
    except (OSError, av.FFmpegError) as error:
        raise UsageError(f"{folder} can't be written to: {error.strerror or error}.") from error


def write_clip(
    path: Path, script: Script, size: int = 168, frame_rate: int = FRAME_RATE, supersampling: int = 1
) -> Path:
    """Write one clip, H.264 and AAC at 16 kHz, with the index in front.

    Args:
        path: the file, replaced if it exists.
        script: the clip.
        size: pixels a side, an even number.
        frame_rate: frames a second.
        supersampling: each pixel is the mean of this many squared; 2 and more give smooth edges.

    Returns:
        `path`.
    """
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=frame_rate, options={"preset": "veryfast"})
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        pictures = _video_frames(script, size, frame_rate, supersampling)
        for stream, pieces in ((video, pictures), (sound, _sound_frames(script))):
            for piece in pieces:
                container.mux(stream.encode(piece))  # type: ignore[arg-type]  # each its own kind of piece
            container.mux(stream.encode())
    return path


def _video_frames(script: Script, size: int, frame_rate: int, supersampling: int) -> Iterator[av.VideoFrame]:
    fine = size * supersampling
    for number in range(round(script.seconds * frame_rate)):
        picture = frame_at(script, number / frame_rate, fine, fine)
        if supersampling > 1:
            blocks = picture.reshape(size, supersampling, size, supersampling, 3)
            picture = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, frame_rate)
        yield frame


def _sound_frames(script: Script) -> Iterator[av.AudioFrame]:
    samples = waveform(script)
    for first in range(0, len(samples), _SOUND_PIECE):
        piece = np.ascontiguousarray(samples[None, first : first + _SOUND_PIECE])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.pts, frame.sample_rate, frame.time_base = first, RATE, Fraction(1, RATE)
        yield frame


def _as_dict(video: str, question: NanoQuestion) -> dict[str, Any]:
    """One line of the questions' file."""
    return {
        "video": video,
        "question": question.text,
        "answer": question.answer,
        **({"options": question.options} if question.options else {}),
        "domain": "nano",
        "task": question.task,
        "kind": question.kind,
        "modality": question.modality,
        "evidence": question.evidence,
    }
