"""What is true of a clip, read off its script: the material that questions are made of."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise

from omniqa.nano.scenes import SOUNDS, Scene, Script, Sound, Thing

Span = tuple[float, float]

CLEARLY_LATER = 0.3  # seconds between two beginnings, for one to count as the earlier


@dataclass(frozen=True)
class Shown:
    """A thing that is in one scene only."""

    thing: Thing
    index: int
    scene: Scene

    @property
    def label(self) -> str:
        """What it is called: "red circle"."""
        return self.thing.label

    @property
    def span(self) -> Span:
        """When it is shown."""
        return self.scene.start, self.scene.end


@dataclass(frozen=True)
class SoundSource:
    """All sounds of one kind, or all times that one word is spoken.

    Attributes:
        name: what it is called in a question: "bell", "word tiger".
        kind: one of SOUNDS.
        events: the sounds.
    """

    name: str
    kind: str
    events: tuple[Sound, ...]

    @property
    def span(self) -> Span:
        """From its first beginning to its last end."""
        return min(sound.start for sound in self.events), max(sound.end for sound in self.events)

    @property
    def times(self) -> tuple[Span, ...]:
        """When it is heard."""
        return tuple((sound.start, sound.end) for sound in self.events)


class Facts:
    """What is true of the clip of a script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.scenes, self.sounds, self.seconds = script.scenes, script.sounds, script.seconds

    @cached_property
    def things(self) -> list[Shown]:
        """Every thing in every scene, also if it comes more than once."""
        return [Shown(thing, index, scene) for index, scene in enumerate(self.scenes) for thing in scene.things]

    @cached_property
    def single_things(self) -> list[Shown]:
        """The things that are shown in one scene only."""
        often = Counter(shown.label for shown in self.things)
        return [shown for shown in self.things if often[shown.label] == 1]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What the things are called, each once."""
        return tuple(dict.fromkeys(shown.label for shown in self.things))

    @cached_property
    def kinds(self) -> dict[str, SoundSource]:
        """The kinds of sound that are heard."""
        heard = {kind: tuple(sound for sound in self.sounds if sound.kind == kind) for kind in SOUNDS}
        return {kind: SoundSource(kind, kind, events) for kind, events in heard.items() if events}

    @cached_property
    def words(self) -> dict[str, SoundSource]:
        """The words that are spoken."""
        events = self.kinds["voice"].events if "voice" in self.kinds else ()
        spoken = dict.fromkeys(sound.word for sound in events)
        by_word = {word: tuple(event for event in events if event.word == word) for word in spoken}
        return {word: SoundSource(f"word {word}", "voice", said) for word, said in by_word.items()}

    @cached_property
    def sources(self) -> list[SoundSource]:
        """Whatever can be heard and named: kinds, and words."""
        return [*self.kinds.values(), *self.words.values()]

    @cached_property
    def runs(self) -> list[SoundSource]:
        """The sounds in order, equal ones in a row taken together."""
        runs = groupby(self.sounds, lambda sound: sound.kind)
        return [SoundSource(kind, kind, tuple(events)) for kind, events in runs]

    def scene_of(self, source: SoundSource) -> int | None:
        """Index of the one scene in which all of a source lies, if there is one."""
        start, end = source.span
        inside = [index for index, scene in enumerate(self.scenes) if scene.start <= start and end <= scene.end]
        return inside[0] if inside else None

    def heard_in(self, scene: Scene) -> list[Sound]:
        """The sounds that are heard at some time of a scene."""
        return [sound for sound in self.sounds if sound.start < scene.end and sound.end > scene.start]

    def third_of(self, span: Span, share: float) -> int | None:
        """0, 1 or 2: the third of the clip in which at least `share` of a span lies, if there is one."""
        length = span[1] - span[0]
        edges = [third * self.seconds / 3 for third in range(4)]
        for third, (start, end) in enumerate(pairwise(edges)):
            if min(end, span[1]) - max(start, span[0]) >= share * length - 1e-9:
                return third
        return None
