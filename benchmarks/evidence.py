"""Does the evidence of nano's answers point to the true moment and sense?

Counted are rightly answered questions with one true span.

python benchmarks/evidence.py --clips 25 --scenes 2 --seconds 8
"""

import argparse
from collections.abc import Iterator

from omniqa.eval.evidence import compare, means
from omniqa.eval.nano import NanoClips
from omniqa.eval.questions import SetQuestion
from omniqa.eval.scoring import score
from omniqa.nano import world
from omniqa.pipeline.answer import Answer
from omniqa.pipeline.engine import OmniQA, load
from omniqa.pruning import registry
from omniqa.pruning.contract import AnyMethod
from omniqa.runtime.generation_options import GenerationOptions


def right_answers(
    qa: OmniQA, clips: NanoClips, seed: int, method: AnyMethod
) -> Iterator[tuple[world.NanoQuestion, Answer]]:
    encoded = qa.encode(clips.source(str(seed), qa.pixels), method=method)
    asked = [one for one in world.questions(clips.script(seed)) if len(one.evidence) == 1 and one.kind != "description"]
    put = [SetQuestion(0, str(seed), one.text, one.answer, one.options) for one in asked]
    answers = qa.ask_all(encoded, [one.prompt() for one in put], method, decoding=GenerationOptions(max_new_tokens=16))
    for question, one, answer in zip(asked, put, answers, strict=True):
        if score(one, answer.text).correct:
            yield question, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="of the first clip; the test set begins at 0")
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--method", default="omnidrop")
    given = parser.parse_args()
    qa, method = load("nano"), registry.resolve(given.method)
    clips = NanoClips(seconds=given.seconds, scenes=given.scenes)
    step = qa.model.geometry.chunk_seconds
    whole = [(start, min(start + step, given.seconds)) for start in range(0, int(-(-given.seconds // 1)), step)]
    hits, senses = [], {"video": [], "audio": []}
    for seed in range(given.seed, given.seed + given.clips):
        for question, answer in right_answers(qa, clips, seed, method):
            chunks = [(chunk.start_s, chunk.end_s) for chunk in answer.evidence]
            named = answer.evidence_spans[0]
            hits.append(compare(chunks, (named.start_s, named.end_s), question.evidence[0], whole))
            if question.modality in senses:
                other = {"video": "audio", "audio": "video"}[question.modality]
                drawn = {sense: sum(getattr(chunk, sense) for chunk in answer.evidence) for sense in senses}
                senses[question.modality].append(drawn[question.modality] > drawn[other])
    print(f"{len(hits)} questions, {given.clips} clips of {given.scenes} scenes in {given.seconds:g} s, {method.name}")
    for name, value in means(hits).items():
        print(f"{name:8} {100 * value:5.1f} %")
    for sense, found in senses.items():
        print(f"{sense} questions point to {sense}: {sum(found)} of {len(found)}")


if __name__ == "__main__":
    main()
