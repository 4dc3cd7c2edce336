"""From scripts to what is trained on: clips with many questions each, laid out as the package lays them out.

A row of a batch is a clip: system prompt and media once, then its questions with their answers, each in a block of its
own. All blocks begin at the same position, so that each is what `omniqa ask` would give the model.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omniqa.media.clip import sample
from omniqa.media.mel import log_mel
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import STANDARD, TEXT, MediaShape, TokenLayout
from omniqa.models.qwen2_5_omni.audio import token_count
from omniqa.models.qwen2_5_omni.layout import build_layout
from omniqa.models.qwen2_5_omni.template import ChatTemplate
from omniqa.nano import world
from omniqa.nano.clips import write_clip
from omniqa.nano.facts import Facts, Span
from omniqa.nano.finding import THINGS
from omniqa.nano.questions import LETTERS, NanoQuestion
from omniqa.nano.scenes import COLOURS, SHAPES, SOUNDS, Scene, Script, draw
from omniqa.nano.words import WORDS
from training.nano.truth import shown as shown_while_heard

BatchT = TypeVar("BatchT")
FPS = 2
SAMPLING = ClipOptions(
    fps=FPS, min_pixels=STANDARD.token_pixels**2
)  # frames at their own size: `omniqa ask --min-pixels 784`
CLIP, PADDING = 0, -1  # values of `block` that are no question's
NONE = -1  # where no verdict is given
_WEIGHT_OF_BOTH = 2.0  # of questions that need picture and sound, when questions are picked
_ROUNDS = 3  # of questions, to pick from


@dataclass(frozen=True)
class Asked:
    """A question as the model gets it, and the answer it shall give.

    judged: of a checklist: only its verdicts, "yes" and "no", are learned.
    right: of each option, whether it is the answer; learned at the end of the option's line, so that the letter is
        picked from what has been judged.
    evidence: when that is shown or heard which tells the answer; none where it is the whole clip.
    """

    kind: str
    prompt: str
    answer: str
    judged: bool = False
    right: tuple[bool, ...] = ()
    evidence: tuple[Span, ...] = ()

    @classmethod
    def of(cls, question: NanoQuestion) -> "Asked":
        """A question of the world."""
        right = tuple(letter == question.answer for letter in LETTERS) if question.options else ()
        evidence = question.evidence if question.kind != "description" else ()
        return cls(question.kind, question.prompt, question.answer, right=right, evidence=evidence)


@dataclass(frozen=True)
class Media:
    """A clip as the encoders take it in.

    Attributes:
        frames: uint8 (F, H, W, 3), F even.
        mel: float32 (128, T).
        shape: the tokens that they become.
    """

    frames: NDArray[np.uint8]
    mel: NDArray[np.float32]
    shape: MediaShape


@dataclass(frozen=True)
class Row:
    """A clip's tokens and those of its questions, one after the other.

    Attributes:
        ids: (N,).
        positions: (3, N).
        modality: (N,), VIDEO, AUDIO or TEXT.
        block: (N,), CLIP for what all questions share, then 1, 2, … for the tokens of each question and its answer.
        learned: (N,) bool, the tokens that the model shall give: answers, and <|im_end|> after them.
        verdict: (N,), at the end of an option's line the id of "yes" or "no", which it would say there; NONE elsewhere.
        time_s: (N,), when an audio or video token begins; NaN for text.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    modality: NDArray[np.int8]
    block: NDArray[np.int64]
    learned: NDArray[np.bool_]
    verdict: NDArray[np.int64]
    time_s: NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """B clips in rows of one length N: shapes as in Row with B before N, frames of all clips of one size.

    Attributes:
        clip_tokens: the first of each row; they hold the clip and what all questions share, padded at its end.
        chunk: what comes after is padded to a multiple of this number, and no block is longer.
        kinds: of each clip, the kind of question of block 1, 2, ….
        evidence: of each clip, that of block 1, 2, ….
        shown: (audio tokens of all clips, SEEN) float32, what is shown while they are heard.
    """

    media: tuple[Media, ...]
    ids: Tensor
    positions: Tensor
    modality: Tensor
    block: Tensor
    learned: Tensor
    verdict: Tensor
    time_s: Tensor
    clip_tokens: int
    chunk: int
    kinds: tuple[tuple[str, ...], ...]
    evidence: tuple[tuple[tuple[Span, ...], ...], ...]
    shown: Tensor


@dataclass(frozen=True)
class BatchSpec:
    """What is in a batch; equal specs give equal batches.

    Attributes:
        seed: of the first clip; the others follow.
        clips: how many.
        seconds: length of each.
        scenes: in each.
        size: pixels a side.
        blocks: questions a clip, at most; 0 where things are only to be named.
        mp4_share: of the clips that are written to an mp4 file and read again, with what that does to them.
    """

    seed: int
    clips: int
    seconds: float
    scenes: int
    size: int
    blocks: int = 16
    mp4_share: float = 0.0


def make_batch(spec: BatchSpec, template: ChatTemplate) -> Batch:
    """Make clips, pick questions, lay all out."""
    scripts, media = make_media(spec)
    rng = Random(f"questions {spec}")
    asked = [pick(script, spec.blocks, rng) for script in scripts]
    return collate(template, scripts, media, asked)


def make_media(spec: BatchSpec) -> tuple[list[Script], list[Media]]:
    """The clips of a spec, some of them through a file."""
    rng = Random(f"files {spec}")
    scripts = [draw(spec.seed + number, spec.seconds, spec.scenes) for number in range(spec.clips)]
    media = [from_mp4(s, spec.size) if rng.random() < spec.mp4_share else rendered(s, spec.size) for s in scripts]
    return scripts, media


def rendered(script: Script, size: int) -> Media:
    """A clip as it is drawn."""
    frames = world.frames(script, fps=FPS, height=size, width=size)
    return _media(frames, [Fraction(k, FPS) for k in range(len(frames))], world.waveform(script))


def from_mp4(script: Script, size: int) -> Media:
    """A clip through an mp4 file, read as `omniqa ask` reads it."""
    with TemporaryDirectory(prefix="omniqa-nano-") as folder:
        clip = sample(write_clip(Path(folder) / "clip.mp4", script, size), SAMPLING)
    return _media(clip.frames, clip.frame_times, clip.waveform)


def _media(frames: NDArray[np.uint8], times: Iterable[Fraction], waveform: NDArray[np.float32]) -> Media:
    """`times` of the frames; where their number is odd, the last one comes twice."""
    if len(frames) % 2:
        frames = np.concatenate([frames, frames[-1:]])
    mel = log_mel(waveform)
    rows, cols = frames.shape[1] // STANDARD.token_pixels, frames.shape[2] // STANDARD.token_pixels
    return Media(frames, mel, MediaShape(tuple(times)[::2], rows, cols, token_count(mel.shape[1])))


def pick(script: Script, blocks: int, rng: Random) -> list[Asked]:
    """The description, checklists and lists, then questions; those that need both senses are picked more often."""
    asked = world.questions(script, _ROUNDS)
    described = next(one for one in asked if one.kind == "description")  # in one of its wordings
    others = [one for one in asked if one.kind != "description"]
    others.sort(key=lambda one: rng.random() ** (1 / (_WEIGHT_OF_BOTH if one.modality == "both" else 1)), reverse=True)
    picked = [Asked.of(one) for one in [described, *others[: blocks - 1]]]
    return [picked[0], *check(script, rng), *picked[1:]]


def check(script: Script, rng: Random) -> list[Asked]:
    """Two checklists, what is heard and what is shown, so that judging is learned, which options ask for; two lists.

    The lists name what is shown by shape, with colour and motion ("ring red left and star blue up; …"), and by sound
    ("bell red ring, hum blue star"): what questions look up, and the description has in another order.
    """
    heard = {name for sound in script.sounds for name in (sound.kind, sound.word)}
    shown = {thing.label for scene in script.scenes for thing in scene.things}
    names = {name for label in shown for name in label.split()}
    near = [label for label in THINGS if label not in shown and names & set(label.split())]
    sounds = [*SOUNDS, *rng.sample(WORDS, 1), *(heard & set(WORDS))]
    things = [*rng.sample(COLOURS, 2), *rng.sample(SHAPES, 2), *shown, *rng.sample(near, min(3, len(near)))]
    return [
        _checklist(sounds, heard, rng),
        _checklist(things, shown | names, rng),
        Asked("list", "List the shapes.", "; ".join(map(_by_shape, script.scenes))),
        Asked("list", "List the sounds.", ", ".join(_by_sound(Facts(script)))),
    ]


def _by_shape(scene: Scene) -> str:
    things = sorted(scene.things, key=lambda thing: SHAPES.index(thing.shape))
    return " and ".join(f"{thing.shape} {thing.colour} {thing.motion}" for thing in things)


def _by_sound(facts: Facts) -> Iterator[str]:
    """Sounds of one scene only."""
    placed = [(source, facts.scene_of(source)) for source in facts.kinds.values()]
    for source, index in sorted(placed, key=lambda one: one[0].span):
        if index is not None:
            yield f"{source.name} {' and '.join(thing.label for thing in facts.scenes[index].things)}"


def _checklist(items: Iterable[str], there: set[str], rng: Random) -> Asked:
    shuffled = sorted(set(items))
    rng.shuffle(shuffled)
    verdicts = ",".join(f" {item} {'yes' if item in there else 'no'}" for item in shuffled)
    return Asked("check", "Check.", verdicts, judged=True)


def lay_out(template: ChatTemplate, shape: MediaShape, asked: list[Asked]) -> Row:
    """The package's own layout of every question, the media's part taken once."""
    layouts = [build_layout(template, shape, one.prompt) for one in asked]
    first = layouts[0]
    shared = first.question.start  # system prompt, media and the tokens that close them
    rows = [Row(first.ids[:shared], first.positions[:, :shared], first.modality[:shared],
                np.full(shared, CLIP), np.zeros(shared, bool), np.full(shared, NONE),
                first.time_s[:shared])]  # fmt: skip
    no, yes = (template.encode(f" {word}", False)[0] for word in ("no", "yes"))
    (line_end,) = template.encode("\n", False)
    for number, (layout, one) in enumerate(zip(layouts, asked, strict=True), start=1):
        answer = [*template.encode(one.answer, False), template.special.im_end]
        row = _block(layout, answer, number, [no, yes] if one.judged else answer)
        ends = np.flatnonzero(row.ids == line_end)[: len(one.right)]  # "?" and the end of its line are one token
        row.verdict[ends] = np.where(one.right, yes, no)
        rows.append(row)
    joined = (np.concatenate([getattr(row, name) for row in rows], axis=-1) for name in Row.__dataclass_fields__)
    return Row(*joined)


def _block(layout: TokenLayout, answer: list[int], number: int, learned: list[int]) -> Row:
    """A question and its answer, of which the tokens among `learned` are learned."""
    start, asks, answers = layout.question.start, len(layout.ids) - layout.question.start, len(answer)
    following = np.tile(layout.next_position + np.arange(answers), (3, 1))
    return Row(
        ids=np.concatenate([layout.ids[start:], answer]),
        positions=np.concatenate([layout.positions[:, start:], following], axis=1),
        modality=np.full(asks + answers, TEXT, np.int8),
        block=np.full(asks + answers, number),
        learned=np.concatenate([np.zeros(asks, bool), np.isin(answer, learned)]),
        verdict=np.full(asks + answers, NONE),
        time_s=np.full(asks + answers, np.nan),
    )


def collate(template: ChatTemplate, scripts: list[Script], media: list[Media], asked: list[list[Asked]]) -> Batch:
    """Lay all clips out, pad their tokens to the longest clip's, and the questions' to the most, in whole chunks."""
    rows = [lay_out(template, one.shape, questions) for one, questions in zip(media, asked, strict=True)]
    shared = [int((row.block == CLIP).sum()) for row in rows]
    clip_tokens = max(shared)
    chunk = max(int(np.bincount(row.block)[1:].max()) for row in rows)
    chunks = max(-(-(len(row.ids) - start) // chunk) for row, start in zip(rows, shared, strict=True))

    def stack(name: str, padding: float) -> Tensor:
        arrays = []
        for row, start in zip(rows, shared, strict=True):
            clip, text = np.split(getattr(row, name), [start], axis=-1)
            arrays.append(np.concatenate([_padded(clip, clip_tokens, padding),
                                          _padded(text, chunks * chunk, padding)], axis=-1))  # fmt: skip
        return torch.from_numpy(np.stack(arrays))

    return Batch(
        media=tuple(media),
        ids=stack("ids", 0),
        positions=stack("positions", 0).transpose(0, 1).contiguous(),  # (3, B, N)
        modality=stack("modality", TEXT),
        block=stack("block", PADDING),
        learned=stack("learned", 0),
        verdict=stack("verdict", NONE),
        time_s=stack("time_s", np.nan),
        clip_tokens=clip_tokens,
        chunk=chunk,
        kinds=tuple(tuple(one.kind for one in questions) for questions in asked),
        evidence=tuple(tuple(one.evidence for one in questions) for questions in asked),
        shown=torch.from_numpy(
            np.concatenate([shown_while_heard(s, m.shape) for s, m in zip(scripts, media, strict=True)])
        ),
    )


def _padded(array: NDArray[Any], length: int, value: float) -> NDArray[Any]:
    """The last axis filled up to a length."""
    missing = length - array.shape[-1]
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)], constant_values=value)


_worker: list[ChatTemplate] = []  # of a worker process, the one that it lays out with


def produce(
    specs: Iterator[BatchSpec],
    make: Callable[[BatchSpec, ChatTemplate], BatchT],
    tokenizer: Any,
    workers: int,
    ahead: int = 3,
) -> Generator[BatchT, None, None]:
    """Batches in the order of `specs`, made in the background; 0 workers make them here, as they are asked for.

    Args:
        specs: without end; read up to `ahead` * `workers` further than batches are taken.
        make: what makes a batch, a function that another process can import.
        tokenizer: the model's.
        workers: processes.
        ahead: batches that each has to do.
    """
    if not workers:
        template = ChatTemplate.of(tokenizer)
        yield from (make(spec, template) for spec in specs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (tokenizer,)) as pool:
        waiting = deque(pool.submit(_work, make, spec) for spec in islice(specs, ahead * workers))
        try:
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(pool.submit(_work, make, spec) for spec in islice(specs, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(tokenizer: Any) -> None:
    torch.set_num_threads(1)
    end_with_parent()
    _worker[:] = [ChatTemplate.of(tokenizer)]


def end_with_parent() -> None:
    """A parent that was killed can't tell its workers, which would wait for ever."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def _work(make: Callable[[BatchSpec, ChatTemplate], BatchT], spec: BatchSpec) -> BatchT:
    return make(spec, _worker[0])
