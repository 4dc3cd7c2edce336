"""From a file to the first token, beside transformers' own modules on the same weights, in turn in one process.

    python benchmarks/make_checkpoint.py 3b 3b-random
    python -m benchmarks.prefill 3b-random CLIP --retention 1.0 --retention 0.3 --retention 0.2 --runs 3 --json out.json
    python -m benchmarks.prefill 3b-random --slides 16 --retention 0.3 --runs 3
    python -m benchmarks.prefill 3b-random --grow 8 --grow 30 --grow 120 --retention 0.3 --runs 1 --plot growth.png

Without CLIP, a clip is made: --slides SECONDS shows a new picture every four seconds, --grow SECONDS one that always
moves. transformers gets omniqa's frames, log-mel, ids and positions: its row is the time of its modules alone, with
nothing for decoding and preprocessing. Floors are operations over the matrix rate measured in the same run.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import omniqa
from benchmarks.ask import layer_lengths
from omniqa.bench.run import reset_rss_peak
from omniqa.engine import OmniQA
from omniqa.media.clip import sample_clip
from omniqa.media.mel import log_mel
from omniqa.media.sampling import Sampling
from omniqa.model.decoding import Decoding
from omniqa.model.rate import matmul_rate
from omniqa.model.vision import patchify
from omniqa.model.work import ModelShape
from omniqa.pruning import registry
from omniqa.sequence.layout import build_layout
from omniqa.sequence.units import AUDIO, VIDEO
from omniqa.stats import peak_rss_bytes
from tests.media.clips import Audio, Video, tone, write_clip

QUESTIONS = ("What is seen, and what is heard?", "What happens at the end?")
FIRST = Decoding(max_new_tokens=1)
SIZE = (252, 448)
SLIDE_S = 4


def make_clip(path: Path, seconds: int, slides: bool) -> Path:
    """A clip at 4 frames a second: every frame another one, or the same for four seconds."""
    pictures = []
    for number in range(4 * seconds):
        random = np.random.default_rng(number // (4 * SLIDE_S) if slides else number)
        pictures.append(random.integers(0, 256, (9, 16, 3), np.uint8).repeat(28, 0).repeat(28, 1))
    # Every picture is a keyframe of its own quality: what stands still is then the same, bit by bit.
    lossless = {"qp": "0", "g": "1"} if slides else {}
    return write_clip(path, Video(pictures, 4, options=lossless), Audio(tone(float(seconds))))


class Theirs:
    """transformers' modules over what omniqa takes from a clip."""

    def __init__(self, qa: OmniQA, clip: Path, sampling: Sampling) -> None:
        thinker = qa.thinker
        taken = sample_clip(clip, sampling.within(qa.pixels))
        frames = torch.from_numpy(taken.frames).float()
        encoder = qa.vision_encoder
        self._thinker = thinker
        self._patches = patchify((frames - encoder._mean.cpu()) / encoder._std.cpu()).flatten(0, 2).to(thinker.dtype)
        self._grid = torch.tensor([[len(frames) // 2, frames.shape[1] // 14, frames.shape[2] // 14]])
        self._mel = torch.from_numpy(log_mel(taken.waveform)).to(thinker.dtype)
        self._layout = build_layout(thinker.template, qa.prepare(taken).shape, QUESTIONS[0])

    @torch.inference_mode()
    def run(self) -> dict[str, float]:
        """Seconds by stage, all tokens kept."""
        thinker, layout = self._thinker, self._layout
        times = [time.perf_counter()]
        video = thinker.visual(self._patches, grid_thw=self._grid).pooler_output
        times.append(time.perf_counter())
        audio = thinker.audio_tower(self._mel, feature_lens=torch.tensor([self._mel.shape[1]])).last_hidden_state
        times.append(time.perf_counter())
        x = thinker.decoder.embed_tokens(torch.from_numpy(layout.ids))
        x[torch.from_numpy(layout.modality == VIDEO)] = video
        x[torch.from_numpy(layout.modality == AUDIO)] = audio
        places = torch.from_numpy(layout.positions)[:, None]
        hidden = thinker.decoder(inputs_embeds=x[None], position_ids=places, use_cache=True).last_hidden_state
        thinker.lm_head(hidden[0, -1])
        times.append(time.perf_counter())
        seconds = dict(zip(("vision_encoder", "audio_encoder", "prefill"), np.diff(times).tolist(), strict=True))
        return seconds | {"time_to_first_token": times[-1] - times[0]}


def ours(qa: OmniQA, clip: Path, sampling: Sampling, retention: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first question about a file, and a second about the clip as it is encoded then."""
    pruner = registry.create("none" if retention == 1 else "omnidrop", retention)
    begun = time.perf_counter()
    video = qa.encode(clip, sampling)
    encoding = time.perf_counter() - begun
    answers = [next(qa.ask_all(video, [question], pruner, decoding=FIRST)).to_dict() for question in QUESTIONS]
    first = answers[0]
    first["timing_s"] |= {
        stage: video.timing_s.get(stage, 0.0) for stage in ("decode", "vision_encoder", "audio_encoder")
    }
    first["timing_s"]["time_to_first_token"] += encoding
    return first, answers[1]


def measure(qa: OmniQA, clip: Path, sampling: Sampling, retentions: list[float], runs: int) -> list[dict[str, Any]]:
    """A row of medians for transformers, for each retention, and for a second question at each."""
    theirs, found = Theirs(qa, clip, sampling), dict[str, list[dict[str, Any]]]()
    for _ in range(runs):
        reset_rss_peak()
        found.setdefault("transformers", []).append({"timing_s": theirs.run(), "peak": peak_rss_bytes()})
        for retention in retentions:
            reset_rss_peak()
            first, second = ours(qa, clip, sampling, retention)
            found.setdefault(f"R = {retention:g}", []).append(first | {"peak": peak_rss_bytes()})
            found.setdefault(f"R = {retention:g}, second question", []).append(second | {"peak": peak_rss_bytes()})
    rate, shape = matmul_rate(qa.thinker.dtype), ModelShape.of(str(qa.thinker.checkpoint.folder))
    whole, rows = 0.0, []
    for name, all_runs in found.items():
        stages = ("decode", "vision_encoder", "audio_encoder", "prefill", "time_to_first_token")
        row: dict[str, Any] = {
            stage: statistics.median(run["timing_s"].get(stage, 0.0) for run in all_runs) for stage in stages
        }
        whole = whole or row["time_to_first_token"]
        answer = all_runs[0]
        row |= {"name": name, "times faster": whole / row["time_to_first_token"], "rate": rate}
        row |= {"peak_rss_bytes": max(run["peak"] for run in all_runs)}
        if "retention" in answer:
            row["prefill floor"] = shape.prefill(layer_lengths(answer)) / rate
            media = answer["media"]
            hw = answer["tokens"]["video"] // max(1, media["grids"])
            row["vision floor"] = shape.vision_encoder(media["grids"], hw) / rate
            row["grids"], row["grids_reused"] = media["grids"], media["grids_reused"]
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A Markdown table on stdout."""
    stages = ("decode", "vision_encoder", "vision floor", "audio_encoder", "prefill", "prefill floor",
              "time_to_first_token", "times faster")  # fmt: skip
    print(f"\nmatrix rate measured in this run: {rows[0]['rate'] / 1e12:.3f} TFLOP/s\n")
    print(f"| | {' | '.join(stages)} | peak RSS GB |\n|---|{'---:|' * (len(stages) + 1)}")
    for row in rows:
        cells = [f"{row[stage]:.2f}" if stage in row else "" for stage in stages]
        print(f"| {row['name']} | {' | '.join(cells)} | {row['peak_rss_bytes'] / 1e9:.2f} |", flush=True)


def plot(path: Path, growth: dict[int, list[dict[str, Any]]]) -> None:
    """Seconds and memory over the clip's length, a line each."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    for number, row in enumerate(next(iter(growth.values()))):
        rows = [one[number] for one in growth.values()]
        left.plot(list(growth), [one["time_to_first_token"] for one in rows], "o-", label=row["name"])
        right.plot(list(growth), [one["peak_rss_bytes"] / 1e9 for one in rows], "o-", label=row["name"])
    left.set(xlabel="length of the clip, s", ylabel="to the first token, s")
    right.set(xlabel="length of the clip, s", ylabel="peak memory, GB")
    left.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--slides", type=int, help="seconds of a clip of slides")
    parser.add_argument("--grow", type=int, action="append", default=[], help="seconds of a clip that moves; repeats")
    parser.add_argument("--retention", type=float, action="append", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--max-frames", type=int, default=128)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()

    qa = omniqa.load(given.model, device="cpu", dtype=given.dtype)
    sampling, done = Sampling(fps=given.fps, max_frames=given.max_frames), dict[str, list[dict[str, Any]]]()
    with tempfile.TemporaryDirectory() as folder:
        clips = {} if given.clip is None else {str(given.clip): given.clip}
        if given.slides:
            clips[f"slides, {given.slides} s"] = make_clip(Path(folder) / "slides.mp4", given.slides, slides=True)
        for seconds in given.grow:
            clips[f"{seconds} s"] = make_clip(Path(folder) / f"{seconds}.mp4", seconds, slides=False)
        for name, clip in clips.items():
            done[name] = measure(qa, clip, sampling, given.retention, given.runs)
            print(f"\n## {name}")
            show(done[name])
    if given.json:
        given.json.write_text(json.dumps(done, indent=1))
    if given.plot:
        plot(given.plot, {seconds: done[f"{seconds} s"] for seconds in given.grow})


if __name__ == "__main__":
    main()
