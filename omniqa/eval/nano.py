"""nano's test set: clips drawn from their scripts as they are needed, no files."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from omniqa.errors import UsageError
from omniqa.eval.questions import SetQuestion
from omniqa.file_state import FileState
from omniqa.media.sampling import ClipOptions, smart_resize
from omniqa.media.timeline import frame_spacing, sample_times

if TYPE_CHECKING:
    import numpy as np

    from omniqa.media.clip import Clip
    from omniqa.nano.scenes import Script

Blind = Literal["none", "video", "audio"]
_DEFAULT = ClipOptions()
BLINDS = ("none", "video", "audio")
SMALLEST, LARGEST = 28, 1024  # pixels a side


@dataclass(frozen=True)
class NanoClips:
    """Clips of the test set, by their seeds.

    Attributes:
        seconds: length of each.
        scenes: in each.
        size: pixels a side.
        sampling: as for files; its range is the whole clip.
        blind: a control. "video": the picture is another clip's, 0 and 1, 2 and 3, … change theirs. "audio": all
            sounds are left out, and the room's noise alone is heard.

    Raises:
        UsageError: size or blind are out of range, or a clip can't have so many scenes.
    """

    seconds: float = 8.0
    scenes: int = 2
    size: int = 168
    sampling: ClipOptions = _DEFAULT
    blind: Blind = "none"

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            raise UsageError(
                f"The size of a clip is from {SMALLEST} to {LARGEST} pixels, not {self.size}.", field="size"
            )
        if self.blind not in BLINDS:
            raise UsageError(f"blind is {', '.join(BLINDS)}, not {self.blind}.", field="blind")
        self.script(0)

    def script(self, seed: int) -> "Script":
        """The script of a clip."""
        from omniqa.nano.scenes import draw

        return draw(seed, self.seconds, self.scenes)

    def questions(self, clips: int) -> list[SetQuestion]:
        """Questions about the first so many clips of the test set, with their chance level."""
        return [replace(question, number=number) for number, question in enumerate(self._questions(clips))]

    def _questions(self, clips: int) -> Iterator[SetQuestion]:
        from omniqa.nano import world

        for script in world.test_scripts(clips, self.seconds, self.scenes):
            for asked in world.questions(script):
                moments = "one" if len(asked.evidence) == 1 else "several"
                groups = {"task": asked.task, "kind": asked.kind, "modality": asked.modality, "moments": moments}
                chance = world.chance(asked.kind, choices=asked.options is not None)
                yield SetQuestion(
                    0,
                    str(script.seed),
                    asked.text,
                    asked.answer,
                    asked.options,
                    groups,
                    chance,
                    evidence=asked.evidence,
                )

    def source(self, clip: str, pixels: tuple[int, int]) -> "Clip":
        """Draw a clip, at the times and in the size at which frames of a file would be taken."""
        import numpy as np

        from omniqa.media.clip import Clip
        from omniqa.media.probe import AudioStream, MediaInfo, VideoStream
        from omniqa.nano.sound import RATE, waveform

        shown = self.script(int(clip) ^ 1 if self.blind == "video" else int(clip))
        heard = self.script(int(clip))
        heard = replace(heard, sounds=()) if self.blind == "audio" else heard
        end = Fraction(str(shown.seconds))
        video = VideoStream(Fraction(0), end, self.size, self.size, 0, None, "rawvideo")
        audio = AudioStream(Fraction(0), end, RATE, 1, "pcm_f32le")
        frames, times = self._frames(shown, pixels) if self.sampling.video else (np.zeros((0, 0, 0, 3), np.uint8), ())
        sound = waveform(heard) if self.sampling.audio else np.zeros(0, np.float32)
        return Clip(MediaInfo(f"nano {clip}", "arrays", end, video, audio), Fraction(0), end, frames, times, sound)

    def file(self, clip: str) -> FileState | None:
        """None: clips are drawn."""
        return None

    def _frames(self, script: "Script", pixels: tuple[int, int]) -> tuple["np.ndarray", tuple[Fraction, ...]]:
        """Pictures at the model's size, an even number; where that is one too many, the last comes twice."""
        import numpy as np

        from omniqa.media.resize import resize
        from omniqa.nano.picture import frame_at

        sampling = self.sampling
        times = sample_times(0, str(script.seconds), sampling.fps, sampling.max_frames)
        size = smart_resize(self.size, self.size, *sampling.pixels_of(len(times), pixels))
        frames = [resize(frame_at(script, float(time), self.size, self.size), size) for time in times]
        if len(frames) % 2:
            step = times[1] - times[0] if len(times) > 1 else frame_spacing(sampling.fps)
            frames, times = [*frames, frames[-1]], (*times, times[-1] + step)
        return np.stack(frames), times
