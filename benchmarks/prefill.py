"""From a file to the first token, beside transformers with qwen-omni-utils on the same checkpoint and clip, in turn.

    python benchmarks/make_checkpoint.py 3b 3b-random
    python -m benchmarks.prefill 3b-random CLIP --retention 1.0 --retention 0.3 --retention 0.2 --runs 3 --json out.json
    python -m benchmarks.prefill 3b-random --slides 16 --retention 0.3 --runs 3
    python -m benchmarks.prefill 3b-random --grow 8 --grow 30 --grow 120 --retention 0.3 --runs 1 --plot growth.png
    python -m benchmarks.prefill 3b-random CLIP --encoders --runs 3
    python -m benchmarks.prefill 3b-random --grow 16 --retention 1.0 --retention 0.3 --retention 0.2 --quantize int8

Without CLIP, a clip is made: --slides SECONDS shows a new picture every four seconds, --grow SECONDS one that always
moves. transformers runs in a process of its own (benchmarks/theirs.py) that needs torchvision, qwen-omni-utils and a
reader of video files; --path names folders that they lie in where the environment lacks them. Both sides take as many
frames of the same size. Floors are operations over the best matrix rate measured in the same run.
transformers' process is started for each round, after omniqa's runs: memory then need not hold both models. Before it
counts, each side answers about a short clip in each round. --theirs-dtype gives transformers the precision in which it
is fastest on this machine, where that is not the checkpoint's own.
--quantize adds rows of the same checkpoint in 8 bits, in turn with the others. Their floors are of the float rate, too.
Both models lie in one process then: its peak memory counts what was read of either.
--vision-block adds rows that prune before that block of the vision encoder; their floors are of what is left to do.
--encoders runs the encoders alone, both sides on the same arrays in one process, and needs none of these packages.
It also tells, on a CPU, which of torch's operators take omniqa's time.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

import omniqa
from benchmarks import encoders
from benchmarks.rows import THEIRS, Rates, Run, make_rows, operations, record, table
from benchmarks.theirs import Theirs, TheirsError
from omniqa.bench.run import reset_rss_peak
from omniqa.media.sampling import ClipOptions
from omniqa.models.qwen2_5_omni.flops import ModelShape
from omniqa.pipeline.answer import Answer
from omniqa.pipeline.engine import OmniQA
from omniqa.pruning import registry
from omniqa.runtime.device import QUANTIZATIONS
from omniqa.runtime.generation_options import GenerationOptions
from omniqa.runtime.upcast import UpcastLinear
from tests.media.clips import Audio, Video, tone, write_clip

QUESTIONS = ("What is seen, and what is heard?", "What happens at the end?")
INT8 = ", int8"
FIRST = GenerationOptions(max_new_tokens=1)
RETENTIONS = [1.0, 0.3]
SLIDE_S = 4
SHORT_S, SHORT_FRAMES = 2, 4


def make_clip(path: Path, seconds: int, slides: bool) -> Path:
    """A clip at 4 frames a second: every frame another one, or the same for four seconds."""
    pictures = []
    for number in range(4 * seconds):
        random = np.random.default_rng(number // (4 * SLIDE_S) if slides else number)
        pictures.append(random.integers(0, 256, (9, 16, 3), np.uint8).repeat(28, 0).repeat(28, 1))
    # Every picture is a keyframe of its own quality: what stands still is then the same, bit by bit.
    lossless = {"qp": "0", "g": "1"} if slides else {}
    return write_clip(path, Video(pictures, 4, options=lossless), Audio(tone(float(seconds))))


@dataclass(frozen=True)
class Bench:
    """Both sides. quantized: the same model in 8 bits. theirs: starts transformers' process; None leaves it out."""

    qa: OmniQA
    quantized: OmniQA | None
    theirs: Callable[[], Theirs] | None
    short: Path  # the clip that each side answers about before anything counts
    sampling: ClipOptions
    retentions: list[float]
    blocks: list[int]
    questions: Sequence[str]
    runs: int

    def measure(self, clip: Path) -> dict[str, Any]:
        """Every run on the clip, sides in turn, and rows of medians."""
        rates = Rates(self.qa.model.dtype, self.qa.model.device)
        found: dict[str, list[Run]] = {THEIRS: []} if self.theirs else {}
        note = ""
        for _ in range(self.runs):
            rates.measure()
            self._warm_up()
            for name, qa, retention, block in self._cases():
                runs, answer = self.ours(qa, clip, retention, block)
                for run, suffix in zip(runs, ("", ", second question"), strict=False):
                    found.setdefault(f"{name}{suffix}", []).append(run)
            if self.theirs and not note:
                try:
                    found[THEIRS].append(self.ask_theirs(clip, answer))
                except TheirsError as error:
                    note = str(error)
            rates.measure()  # the best counts: other work may have disturbed the first
        return {"rates": rates.best, "rows": make_rows(found, rates.fastest, note), "runs": record(found)}

    def _cases(self) -> Iterator[tuple[str, OmniQA, float, int | None]]:
        """Name, model, retention and the block of the vision encoder, None for none, of all that is measured."""
        for retention in self.retentions:
            for block in (None, *(self.blocks if retention < 1 else ())):
                name = f"R = {retention:g}" + ("" if block is None else f", b = {block}")
                yield name, self.qa, retention, block
                if self.quantized:
                    yield f"{name}{INT8}", self.quantized, retention, block

    def ours(self, qa: OmniQA, clip: Path, retention: float, block: int | None = None) -> tuple[list[Run], Answer]:
        """The first question about a file, others about the clip as it is encoded then; and the first's answer."""
        options = {} if block is None else {"vision_block": block}
        pruner = registry.create("none" if retention == 1 else "omnidrop", retention, **options)
        rss_is_ours = reset_rss_peak()
        video = qa.encode(clip, self.sampling, method=pruner)
        answers = qa.ask_all(video, self.questions, pruner, decoding=FIRST, count_encoding=True)
        first = next(answers)
        reset_rss_peak()
        work = operations(self._shape, **_work(first), rule=video.rule)
        if block is not None and first.stats.media.grids_reused:
            del work["vision_encoder"]  # of a rule, tokens of all grids are counted
        # What a second question computes depends on what the first one left, so it has no floor.
        return [_run(first, work, rss_is_ours), *(_run(second, {}, rss_is_ours) for second in answers)], first

    def _warm_up(self) -> None:
        """omniqa answers about the short clip: weights are read, libraries started."""
        for qa in filter(None, (self.qa, self.quantized)):
            self.ours(qa, self.short, retention=1.0)

    def ask_theirs(self, clip: Path, answer: Answer) -> Run:
        """transformers on the same question, with as many frames of `answer`'s size. Raises TheirsError."""
        assert self.theirs
        media = answer.stats.media
        sound = answer.stats.tokens.audio > 0
        size = (media.height, media.width)
        with self.theirs() as theirs:
            theirs.ask(self.short, QUESTIONS[0], SHORT_FRAMES, size, sound=True)
            told = theirs.ask(clip, QUESTIONS[0], media.frames, size, sound)
        tokens, grids = told["tokens"], told.pop("grids")
        lengths = [float(sum(tokens.values()))] * self.qa.model.layers
        work = operations(self._shape, tokens, grids, tokens["video"] // grids, lengths)
        return Run(**told, operations=work)

    @property
    def _shape(self) -> ModelShape:
        return ModelShape.of(str(self.qa.model.checkpoint.folder))


def _work(answer: Answer) -> dict[str, Any]:
    """What was computed for a first question; equal grids are encoded once."""
    tokens, media = answer.stats.tokens, answer.stats.media
    lengths = [tokens.text + share * (tokens.audio + tokens.video) for share in answer.retention.per_layer]
    tokens_per_grid = tokens.video // max(1, media.grids)
    return {
        "tokens": _counts(answer),
        "grids": media.grids - media.grids_reused,
        "tokens_per_grid": tokens_per_grid,
        "lengths": lengths,
    }


def _counts(answer: Answer) -> dict[str, int]:
    tokens = answer.stats.tokens
    return {"text": tokens.text, "audio": tokens.audio, "video": tokens.video}


def _run(answer: Answer, work: dict[str, float], rss_is_ours: bool) -> Run:
    stats = answer.stats
    return Run(
        seconds=stats.timing_s,
        tokens=_counts(answer),
        first_token=next(iter(answer.token_ids), None),
        peak_rss_bytes=stats.peak_rss_bytes if rss_is_ours else None,
        peak_device_bytes=stats.peak_device_bytes,
        operations=work,
    )


def plot(path: Path, growth: dict[int, dict[str, Any]]) -> None:
    """Seconds and memory over the clip's length, a line each."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    lines: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for seconds, found in growth.items():
        for row in found["rows"]:
            lines.setdefault(row["name"], []).extend([(seconds, row)] if row["runs"] else [])
    for name, points in lines.items():
        lengths = [seconds for seconds, _ in points]
        left.plot(lengths, [row["seconds"]["time_to_first_token"] for _, row in points], "o-", label=name)
        peaks = [row["peak_device_bytes"] or row["peak_rss_bytes"] or float("nan") for _, row in points]
        right.plot(lengths, [peak / 1e9 for peak in peaks], "o-", label=name)
    left.set(xlabel="length of the clip, s", ylabel="to the first token, s")
    right.set(xlabel="length of the clip, s", ylabel="peak memory, GB")
    left.legend()
    figure.tight_layout()
    figure.savefig(path)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder or a hub id")
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--slides", type=int, help="seconds of a clip of slides")
    parser.add_argument("--grow", type=int, action="append", default=[], help="seconds of a clip that moves; repeats")
    parser.add_argument("--retention", type=float, action="append", help="repeats; 1.0 and 0.3 where not given")
    parser.add_argument("--vision-block", type=int, action="append", default=[], help="prune there, too; repeats")
    parser.add_argument("--one-question", action="store_true", help="leave out the second about the encoded clip")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--max-frames", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"))
    parser.add_argument(
        "--theirs-dtype", choices=("bfloat16", "float32"), help="of transformers; --dtype where not given"
    )
    parser.add_argument("--quantize", choices=QUANTIZATIONS, help="also with weights like that")
    parser.add_argument("--weights-cache", type=Path, help="where these are kept; as omniqa does where not given")
    parser.add_argument("--threads", type=int, help="of each side; as torch chooses where not given")
    parser.add_argument("--encoders", action="store_true", help="the encoders alone")
    parser.add_argument("--without-transformers", action="store_true", help="omniqa alone")
    parser.add_argument(
        "--path", type=Path, action="append", default=[], help="a folder of packages for transformers' side; repeats"
    )
    parser.add_argument("--json", type=Path, help="write every run here")
    parser.add_argument("--plot", type=Path, help="write time and memory over the lengths of --grow here")
    given = parser.parse_args(arguments)
    if not (given.clip or given.slides or given.grow):
        parser.error("there is no clip: name one, or have one made by --slides or --grow")
    if given.plot and (given.encoders or not given.grow):
        parser.error("--plot shows what --grow measures; give both, without --encoders")
    return given


def clips(given: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """What is measured, by title. Clips are made by another process: the memory of that would count as the answers'."""
    found = {} if given.clip is None else {str(given.clip): given.clip}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as maker:
        if given.slides:
            slides = maker.submit(make_clip, folder / "slides.mp4", given.slides, slides=True)
            found[f"slides, {given.slides} s"] = slides.result()
        for length in given.grow:
            grown = maker.submit(make_clip, folder / f"{length}.mp4", length, slides=False)
            found[_grown(length)] = grown.result()
    return found


def _grown(length: int) -> str:
    return f"{length} s"


def measure_all(given: argparse.Namespace, theirs: Callable[[], Theirs] | None, folder: Path) -> dict[str, Any]:
    """What was found, by the clip's title; tables are printed as they come."""
    qa = omniqa.load(given.model, device=given.device, dtype=given.dtype)
    sampling = ClipOptions(fps=given.fps, max_frames=given.max_frames)
    quantized = given.quantize and omniqa.load(
        given.model, device=given.device, dtype=given.dtype, quantize=given.quantize, weights_cache=given.weights_cache
    )
    short = make_clip(folder / "short.mp4", SHORT_S, slides=False)
    retentions = given.retention or RETENTIONS
    questions = QUESTIONS[: 1 if given.one_question else None]
    bench = Bench(qa, quantized, theirs, short, sampling, retentions, given.vision_block, questions, given.runs)
    wide = any(isinstance(module, UpcastLinear) for module in qa.model.module.modules())
    precision = str(torch.float32 if wide else qa.model.dtype).removeprefix("torch.")
    print(f"omniqa multiplies matrices in {precision}", flush=True)
    done: dict[str, Any] = {}
    for title, clip in clips(given, folder).items():
        found = encoders.measure(qa, clip, sampling, given.runs) if given.encoders else bench.measure(clip)
        rates = ", ".join(f"{rate / 1e12:.3f} TFLOP/s in {name}" for name, rate in found["rates"].items())
        print(f"\n## {title}\n\nmatrix rates measured in this run: {rates}; medians of {given.runs} runs\n")
        print((encoders.table if given.encoders else table)(found), flush=True)
        done[title] = found
    return done


def surroundings(given: argparse.Namespace, about: dict[str, Any] | None) -> dict[str, Any]:
    """What the figures depend on."""
    packages = ("omniqa", "torch", "transformers", "numpy", "av")
    return {
        "date": date.today().isoformat(),
        "command": [sys.executable.rsplit("/", 1)[-1], "-m", "benchmarks.prefill", *sys.argv[1:]],
        "machine": {"processor": platform.machine(), "cpus": os.cpu_count()},
        "threads": torch.get_num_threads(),
        "model": given.model,
        "device": given.device,
        "versions": {package: version(package) for package in packages},
        "transformers": about,
    }


class TheirSide:
    """Starts transformers' process, as often as it is called, and keeps what the last one told about itself."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.about: dict[str, Any] | None = None
        self._given = given

    def __call__(self) -> Theirs:
        """A process that has loaded the checkpoint. Raises TheirsError."""
        given = self._given
        dtype = given.theirs_dtype or given.dtype
        theirs = Theirs(given.model, dtype, given.device, torch.get_num_threads(), given.path)
        self.about = theirs.about
        return theirs


def main(arguments: list[str] | None = None) -> None:
    given = parse(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    theirs = None if given.without_transformers or given.encoders else TheirSide(given)
    with tempfile.TemporaryDirectory() as folder:
        done = measure_all(given, theirs, Path(folder))
    if given.json:
        about = theirs.about if theirs else None
        given.json.write_text(json.dumps(surroundings(given, about) | {"clips": done}, indent=1))
    if given.plot:
        plot(given.plot, {length: done[_grown(length)] for length in given.grow})


if __name__ == "__main__":
    main()
