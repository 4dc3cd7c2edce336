"""Encoded clips that stay in memory, shared by all whose clip has the same content."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from omniqa.media.sampling import ClipOptions
from omniqa.pipeline.encoded_clip import EncodedClip
from omniqa.pruning.contract import AnyMethod, needs_attended

if TYPE_CHECKING:
    from omniqa.pipeline.engine import OmniQA

Key = tuple[str, str, str, bool]  # content, what is taken of it, the rule of its encoding, whether it has attention


class ClipStore:
    """The clips asked about last, in at most so many bytes. Used in the model's thread alone.

    Attributes:
        hits: how often a clip was there.
        misses: how often it had to be encoded, or read from the cache on the disk.
    """

    def __init__(self, qa: "OmniQA", most_bytes: int) -> None:
        self.hits = self.misses = 0
        self._qa, self._most_bytes = qa, most_bytes
        self._clips: OrderedDict[Key, EncodedClip] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def bytes(self) -> int:
        """What they take, with what earlier questions left for the next."""
        return sum(held_bytes(clip) for clip in self._clips.values())

    def get(
        self, digest: str, sampling: ClipOptions, method: AnyMethod, encode: Callable[[], EncodedClip]
    ) -> tuple[EncodedClip, bool]:
        """A clip that the method can be asked by, and whether it was encoded for that now.

        Args:
            digest: of the file's content.
            sampling: what is taken of it.
            method: the one that will be asked by.
            encode: encodes it for the method.
        """
        taken = repr(sorted(sampling.settings.items()))
        for key, clip in self._clips.items():
            if key[:2] == (digest, taken) and self._serves(clip, method):
                self._clips.move_to_end(key)
                self.hits += 1
                return clip, False
        self.misses += 1
        self.trim(self._most_bytes // 2)  # room for the new one, which comes on top
        clip = encode()
        self._clips[digest, taken, repr(clip.rule), clip.video_attention is not None] = clip
        return clip, True

    def trim(self, most_bytes: int | None = None) -> None:
        """Free the clips not asked about for longest, until the rest is within bounds."""
        most = self._most_bytes if most_bytes is None else most_bytes
        while self._clips and self.bytes > most:
            self._clips.popitem(last=False)

    def _serves(self, clip: EncodedClip, method: AnyMethod) -> bool:
        lacks_attention = needs_attended(method) and clip.video_attention is None
        return not lacks_attention and self._qa.serves(clip, method)


def held_bytes(clip: EncodedClip) -> int:
    """Bytes of a clip's tensors, and of what its questions share."""
    sound = clip.audio
    audio = [] if sound is None else [sound.embeddings, sound.queries, sound.keys]
    parts = [clip.video, clip.keep, clip.added, clip.video_attention, *audio]
    return clip.shared.bytes + sum(part.nbytes for part in parts if isinstance(part, Tensor))
