"""Compares rules for finding evidence in what nano attended to, and by layer: does it point to the true moment?

Counted are rightly answered questions with one true span. The rule that omniqa uses is measured by `omniqa eval nano`.

python benchmarks/evidence.py --clips 25 --scenes 2 --seconds 8
"""

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from omniqa.eval.evidence import Span, overlap
from omniqa.eval.nano import NanoClips
from omniqa.eval.questions import SetQuestion
from omniqa.eval.scoring import score
from omniqa.models.base import AUDIO, VIDEO
from omniqa.nano import world
from omniqa.nano.picture import centre
from omniqa.nano.scenes import Scene, Thing
from omniqa.pipeline.answer import Answer
from omniqa.pipeline.encoded_clip import EncodedClip
from omniqa.pipeline.engine import OmniQA
from omniqa.pipeline.load import load
from omniqa.pruning import registry
from omniqa.pruning.contract import AnyMethod
from omniqa.runtime.generation_options import GenerationOptions

NEUTRAL = "Describe what is shown and heard, scene by scene."
SENSES = ("video", "audio")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """What one prompt's rows attended to; L - 1 layers, C chunks in the order of the clip, 2 senses: video, audio.

    Attributes:
        asked, unasked: (L - 1, C, 2) attention of the last row, and of the first row behind the media.
        by_layer: (L - 1, C, 2) the positive differences of their tokens in each layer.
        surplus: (C, 2) the positive differences of the means over the layers: omniqa's rule.
        survival: (C, 2) the mean share of layers that computed a token.
    """

    asked: Array
    unasked: Array
    by_layer: Array
    surplus: Array
    survival: Array


@dataclass(frozen=True)
class Asked:
    """A rightly answered question.

    Attributes:
        true: its span.
        modality: "video", "audio" or "both".
        chunks: of the clip, in order.
        drawn, neutral: for the question, and for NEUTRAL about the same clip.
        region: how often the region of the strongest chunk that touches the span holds the asked shape's centre, over
            that chunk's frames, and the same for a region of that size anywhere; None if no single shape is asked for.
    """

    true: Span
    modality: str
    chunks: Sequence[Span]
    drawn: Drawn
    neutral: Drawn
    region: tuple[float, float] | None


Rule = Callable[[Asked], Array]  # (C,) scores of the chunks

RULES: dict[str, Rule] = {
    "last row - first row behind the media": lambda one: one.drawn.surplus.sum(1),
    "last row": lambda one: one.drawn.asked.mean(0).sum(1),
    "last row - neutral question's": lambda one: _positive(one.drawn.asked - one.neutral.asked).mean(0).sum(1),
    "survival": lambda one: one.drawn.survival.mean(1),
    "survival - neutral question's": lambda one: (one.drawn.survival - one.neutral.survival).mean(1),
}

# By how much a question points to each sense: (2,)
POINTERS: dict[str, Rule] = {
    "share of surplus": lambda one: _share(one.drawn.surplus.sum(0)),
    "share of surplus / neutral question's": lambda one: _ratio(one.drawn.surplus.sum(0), one.neutral.surplus.sum(0)),
    "share of attention / neutral question's": lambda one: _ratio(_of_senses(one.drawn), _of_senses(one.neutral)),
    "share of attention / first row's behind the media": lambda one: _ratio(
        _of_senses(one.drawn), one.drawn.unasked.mean(0).sum(0)
    ),
}


def layer_rules(layers: int) -> dict[str, Rule]:
    """omniqa's rule on single layers and on thirds of the depth; `layers` are all but the last."""
    parts = {f"layer {layer + 1}": slice(layer, layer + 1) for layer in range(layers)}
    edges = [round(layers * third / 3) for third in range(4)]
    parts |= {name: slice(*edges[k : k + 2]) for k, name in enumerate(("first third", "middle third", "last third"))}
    return {name: (lambda one, part=part: one.drawn.by_layer[part].mean(0).sum(1)) for name, part in parts.items()}


def _positive(values: Array) -> Array:
    return np.maximum(values, 0)


def _of_senses(drawn: Drawn) -> Array:
    return drawn.asked.mean(0).sum(0)


def _share(parts: Array) -> Array:
    return parts / max(parts.sum(), 1e-12)


def _ratio(parts: Array, others: Array) -> Array:
    return _share(parts) / np.maximum(_share(others), 1e-12)


def hit_rate(rule: Rule, asked: Iterable[Asked]) -> tuple[float, float]:
    """How often the strongest chunk touches the true span, and a random one."""
    top, chance = [], []
    for one in asked:
        touching = [overlap(chunk, one.true) > 0 for chunk in one.chunks]
        top.append(touching[int(np.argmax(rule(one)))])
        chance.append(sum(touching) / len(touching))
    return fmean(top), fmean(chance)


def pointing(rule: Rule, asked: Iterable[Asked]) -> dict[str, tuple[int, int]]:
    """Of the questions about one sense, how many point to it, and how many there are."""
    found = {sense: [int(np.argmax(rule(one))) == k for one in asked if one.modality == sense]
             for k, sense in enumerate(SENSES)}  # fmt: skip
    return {sense: (sum(hits), len(hits)) for sense, hits in found.items()}


def gather(qa: OmniQA, clips: NanoClips, seeds: Iterable[int], method: AnyMethod) -> Iterator[Asked]:
    """Ask about clips, and keep what the rightly answered questions with one true span drew attention to."""
    for seed in seeds:
        encoded = qa.encode(clips.source(str(seed), qa.pixels), method=method)
        script = clips.script(seed)
        neutral, spans = drawn_by(qa, encoded, NEUTRAL, method), chunk_spans(qa, encoded)
        for question, answer in right_answers(qa, encoded, script, method):
            drawn = drawn_by(qa, encoded, question.prompt, method)
            region = region_hit(script, question, answer, encoded)
            yield Asked(question.evidence[0], question.modality, spans, drawn, neutral, region)


def right_answers(
    qa: OmniQA, encoded: EncodedClip, script: world.Script, method: AnyMethod
) -> Iterator[tuple[world.NanoQuestion, Answer]]:
    """The rightly answered questions with one true span."""
    asked = [one for one in world.questions(script) if len(one.evidence) == 1 and one.kind != "description"]
    put = [SetQuestion(0, encoded.name, one.text, one.answer, one.options) for one in asked]
    answers = qa.ask_all(encoded, [one.prompt() for one in put], method, decoding=GenerationOptions(max_new_tokens=16))
    for question, one, answer in zip(asked, put, answers, strict=True):
        if score(one, answer.text).correct:
            yield question, answer


def drawn_by(qa: OmniQA, encoded: EncodedClip, prompt: str, method: AnyMethod) -> Drawn:
    """What a prompt's rows attended to."""
    prefilled = qa.prefiller.prefill(encoded, prompt, method, reuse_prefix=True)
    trace = prefilled.trace
    asked, unasked = (rows.astype(np.float64) for rows in prefilled.attention)
    chunks = np.unique(trace.chunk)
    of = np.stack([trace.chunk == chunk for chunk in chunks])[:, None] & np.stack(
        [trace.modality == sense for sense in (VIDEO, AUDIO)]
    )  # (C, 2, n)
    sums = lambda values: np.einsum("csn,...n->...cs", of, values)  # noqa: E731
    return Drawn(
        sums(asked),
        sums(unasked),
        sums(_positive(asked - unasked)),
        sums(_positive((asked - unasked).mean(0))),
        sums(trace.alive.mean(0)) / np.maximum(of.sum(2), 1),
    )


def chunk_spans(qa: OmniQA, encoded: EncodedClip) -> list[Span]:
    """The clip's chunks in order, in seconds."""
    step, end = qa.model.geometry.chunk_seconds, encoded.summary.duration_s
    return [(float(start), min(start + step, end)) for start in range(0, int(-(-end // 1)), step)]


def region_hit(
    script: world.Script, question: world.NanoQuestion, answer: Answer, encoded: EncodedClip
) -> tuple[float, float] | None:
    """See `Asked.region`."""
    found = asked_shape(script, question)
    chunk = next((one for one in answer.evidence if overlap((one.start_s, one.end_s), question.evidence[0])), None)
    if found is None or chunk is None or chunk.region is None:
        return None
    scene, thing = found
    times = [float(time) for pair in encoded.shape.grid_times for time in (pair, pair + encoded_step(encoded))]
    times = [time for time in times if chunk.start_s <= time < chunk.end_s and scene.start <= time < scene.end]
    if not times:
        return None
    sides = encoded.summary.picture_width, encoded.summary.picture_height
    points = np.array([centre(thing, time - scene.start) for time in times]) * sides
    tokens = (sides[0] / encoded.shape.cols, sides[1] / encoded.shape.rows)
    return holds(chunk.region, points), holds_anywhere(chunk.region, points, sides, tokens)


def encoded_step(encoded: EncodedClip) -> float:
    """Seconds from a frame to the next."""
    return 1 / encoded.summary.fps if encoded.summary.fps else 0.0


def asked_shape(script: world.Script, question: world.NanoQuestion) -> tuple[Scene, Thing] | None:
    """The one shape of the true span's scene whose colour and shape question and answer name; None if there is none."""
    words = set(re.findall(r"\w+", f"{question.text} {question.meaning}".lower()))
    scenes = [scene for scene in script.scenes if (scene.start, scene.end) == question.evidence[0]]
    named = [(scene, one) for scene in scenes for one in scene.things if words.issuperset(one.label.split())]
    return named[0] if len(named) == 1 else None


def holds(region: Sequence[float], points: Array) -> float:
    """The share of points (n, 2) that lie in a region."""
    left, top, right, bottom = region
    x, y = points.T
    return float(((left <= x) & (x < right) & (top <= y) & (y < bottom)).mean())


def holds_anywhere(region: Sequence[float], points: Array, sides: Sequence[int], tokens: Sequence[float]) -> float:
    """The same for a region of that size, averaged over all places where it may lie, a token apart."""
    left, top, right, bottom = region
    width, height = right - left, bottom - top
    found = [
        holds((x, y, x + width, y + height), points)
        for x in np.arange(0, sides[0] - width + tokens[0] / 2, tokens[0])
        for y in np.arange(0, sides[1] - height + tokens[1] / 2, tokens[1])
    ]
    return fmean(found)


def show(asked: Sequence[Asked]) -> None:
    """Print what was found, as rows of Markdown tables."""
    layers = len(asked[0].drawn.asked)
    print("\n| rule | top % | chance % |\n|---|---:|---:|")
    for name, rule in (RULES | layer_rules(layers)).items():
        top, chance = hit_rate(rule, asked)
        print(f"| {name} | {100 * top:.1f} | {100 * chance:.1f} |")
    print("\n| sense by | picture questions to video | sound questions to audio |\n|---|---:|---:|")
    for name, rule in POINTERS.items():
        shares = (f"{hits} of {count}" for hits, count in pointing(rule, asked).values())
        print(f"| {name} | {' | '.join(shares)} |")
    regions = [one.region for one in asked if one.region is not None]
    if regions:
        held, chance = (100 * fmean(column) for column in zip(*regions, strict=True))
        print(f"\nregion holds the shape's centre: {held:.1f} % of {len(regions)} questions, chance {chance:.1f} %")


def main() -> None:
    """Ask, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="of the first clip; the test set begins at 0")
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--method", default="omnidrop")
    given = parser.parse_args()
    qa, method = load("nano", "cpu"), registry.resolve(given.method)
    clips = NanoClips(seconds=given.seconds, scenes=given.scenes)
    asked = list(gather(qa, clips, range(given.seed, given.seed + given.clips), method))
    print(f"{len(asked)} questions, {given.clips} clips of {given.scenes} scenes in {given.seconds:g} s, {method.name}")
    show(asked)


if __name__ == "__main__":
    main()
