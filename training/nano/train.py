"""Trains nano on its world: python -m training.nano.train --out DIR --hours H.

DIR becomes a checkpoint that `omniqa ask --model DIR` and transformers load; DIR/training holds the log and what is
needed to go on after an end of any kind with --resume.
"""

import argparse
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import torch

from omniqa import terminal
from omniqa.errors import OmniqaError, UsageError
from omniqa.nano import world
from omniqa.nano.architecture import NanoConfig, save, untrained
from omniqa.nano.kinds import KINDS
from omniqa.nano.tokenizer import make_tokenizer
from training.nano.batches import Batch, BatchSpec, make_batch, produce
from training.nano.blocks import BlockModel, Score, score
from training.nano.gradient_workers import Learned, Step, gradients_from_workers, gradients_here
from training.nano.naming import Named, TokenLabeler, make_named

VISIBLE_LAYERS = (0.36, 0.6)  # of the layers: between these, text shall find what it needs of audio and video tokens
BLIND_BEFORE, BLIND_AFTER = 0.85, 0.6  # of the steps, in which it must; once single scenes are named right
NAMES_SHARE = 0.15  # of the steps after the first stage that are of it; earlier stages have a share of the others
NAMED_MICRO_BATCHES = 5  # times as many clips fit where things are only named
NAMED_MP4 = 0.2  # times as many of them go through a file, which takes longer than naming
MOST_CLIPS = 128  # a step, so that no two steps have the same
TEST_CLIPS, TEST_SIZE = 32, 168
WARMUP, DECAY = 50, 0.3  # steps; share of the time
TEST_EVERY, SAVE_EVERY, LOG_EVERY = 300.0, 120.0, 15.0  # seconds
NAMING = ("scene recognition", "audio recognition")


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        scenes: in each clip.
        seconds: shortest and longest clip.
        sizes: pixels a side, each as often.
        blocks: questions a clip, at most; in a stage with none, the encoders learn to name things.
        clips: a step, of 4 s; of longer ones there are fewer.
        earlier: share of the steps that are of the stages between the first and this one, the later ones more often;
            in the last stage much of it, for with 0.15 two scenes were forgotten over four.
        tasks: what must be answered right before the next stage begins,
        enough: in this share of questions; or else, this share of the whole time must be over:
        latest: 1 for the last stage.
    """

    scenes: int
    seconds: tuple[float, float]
    sizes: tuple[int, ...]
    blocks: int
    clips: int = 8
    earlier: float = 0.15
    tasks: tuple[str, ...] = NAMING
    enough: float = 0.9
    latest: float = 1.0


STAGES = (
    Stage(scenes=1, seconds=(1.5, 2.5), sizes=(112, 112, 140, 168), blocks=0, clips=12, latest=0.17),
    Stage(scenes=1, seconds=(3, 5), sizes=(112, 112, 140, 168), blocks=8, latest=0.3),
    Stage(
        scenes=2,
        seconds=(5, 9),
        sizes=(112, 112, 140, 168),
        blocks=12,
        tasks=(*NAMING, "order", "source localisation"),
        latest=0.9,
    ),
    Stage(scenes=4, seconds=(8, 16), sizes=(112, 140, 168), blocks=16, earlier=0.5),
)


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        hours: in all.
        micro_batch: clips computed at a time.
        rate: learning rate.
        workers: processes that learn, or on a GPU make clips; 0 does all in this one.
        mp4_share: of the clips, goes through an mp4 file.
        bf16: compute in bfloat16, keep weights in float32.
    """

    hours: float
    micro_batch: int = 1
    rate: float = 2e-3
    workers: int = 2
    mp4_share: float = 0.1
    bf16: bool = False


@dataclass
class Progress:
    """How far it is."""

    step: int = 0
    seconds: float = 0.0
    stage: int = 0


def share_right(scores: Score, tasks: Sequence[str] = ()) -> float:
    """Of all questions of these tasks; without any, of all but the description."""
    counted = [
        numbers
        for kind, numbers in scores.items()
        if KINDS[kind].task in tasks or (not tasks and kind != "description")
    ]
    return sum(right for right, _ in counted) / max(1, sum(asked for _, asked in counted))


class Training:
    """A run: its model, its folder, and how far it is."""

    def __init__(self, out: Path, settings: Settings, device: torch.device, config: NanoConfig | None = None) -> None:
        self.out, self.settings, self.config = out, settings, config or NanoConfig()
        self.tokenizer = make_tokenizer()
        self.thinker = untrained(self.config, self.tokenizer, device)
        self.model = BlockModel(self.thinker, settings.bf16)
        matrices, others = _matrices(self.thinker.module)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(half, settings.rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
            for half in (matrices[::2], matrices[1::2])
        ]
        self.optimizers.append(torch.optim.AdamW(others, settings.rate, (0.9, 0.98), weight_decay=0.01))
        self.progress = Progress()
        self._tests: dict[int, list[Batch]] = {}
        (out / "training").mkdir(parents=True, exist_ok=True)

    @property
    def state(self) -> Path:
        """What a run is resumed from."""
        return self.out / "training" / "state.pt"

    def run(self, max_steps: int | None = None) -> None:
        """Train until the time is over, or as many steps in all; then write the checkpoint."""
        begun = time.monotonic() - self.progress.seconds
        tested = saved = logged = self.progress.seconds
        since, recent = self.progress.step, list[Learned]()
        with closing(self._learn()) as learning:
            while self.progress.seconds < 3600 * self.settings.hours and self.progress.step != max_steps:
                recent.append(next(learning))
                self.update(recent[-1].parts)
                self.progress.seconds = now = time.monotonic() - begun
                if now - logged >= LOG_EVERY:
                    self._log(
                        loss=sum(one.loss for one in recent) / sum(one.parts for one in recent),
                        steps_per_s=(self.progress.step - since) / (now - logged),
                        clips_per_s=sum(one.clips for one in recent) / (now - logged),
                    )
                    since, logged, recent = self.progress.step, now, []
                if now - tested >= TEST_EVERY:
                    self.test()
                    tested = time.monotonic() - begun
                if now - saved >= SAVE_EVERY:
                    self.save()
                    saved = time.monotonic() - begun
        self.save()
        save(self.thinker.module, self.tokenizer, self.out)

    def update(self, parts: int) -> None:
        """Change the weights by the gradients of a loss summed over so many parts, which are zero then."""
        gradients = {weight: weight.grad for weight in self.thinker.module.parameters() if weight.grad is not None}
        for weight, gradient in gradients.items():
            weight.grad = gradient.div_(parts) if gradient.any() else None  # what is idle stays as it is
        torch.nn.utils.clip_grad_norm_(list(gradients), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.settings.rate * self._rate()
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda optimizer: optimizer.step(), self.optimizers))
        for weight, gradient in gradients.items():
            weight.grad = gradient.zero_()  # the same one, for other processes may share it
        self.progress.step += 1

    def _learn(self) -> Generator[Learned, None, None]:
        """Gradients, step by step."""
        if self._gradient_workers:
            return gradients_from_workers(
                self._steps(), self.thinker.module, self.config, self.settings.bf16, self._gradient_workers
            )
        return gradients_here(self._steps(), self.model, self.settings.workers)

    @property
    def _gradient_workers(self) -> int:
        """How many other processes compute gradients; 0 where this one does."""
        return self.settings.workers if self.thinker.device.type == "cpu" else 0

    @property
    def middle(self) -> range:
        """The layers in which text shall look things up."""
        return range(*(round(share * self.thinker.layers) for share in VISIBLE_LAYERS))

    def test(self) -> None:
        """Measure on test clips of the present stage, and go to the next stage if that is enough."""
        stage, at = STAGES[self.progress.stage], self.progress.seconds / (3600 * self.settings.hours)
        if stage.blocks:
            scores = score(self.model, self._test_batches(self.progress.stage))
            self._log(right=share_right(scores), accuracy=_shares(scores))
            right = share_right(scores, stage.tasks)
        else:
            seen, heard = TokenLabeler(self.model).right(self._test_names())
            self._log(seen=seen, heard=heard)
            right = min(seen, heard)
        if self.progress.stage < len(STAGES) - 1 and (right >= stage.enough or at >= stage.latest):
            self.progress.stage += 1

    def final_test(self) -> None:
        """Measure on every stage's test clips; and, of the stage reached, with media in the first layers only."""
        for number in range(1, len(STAGES)):
            scores = score(self.model, self._test_batches(number))
            self._log(test_of_stage=number, right=share_right(scores), accuracy=_shares(scores))
        batches = self._test_batches(self.progress.stage)
        for first in range(self.thinker.layers + 1):
            right = share_right(score(self.model, batches, range(first)))
            self._log(test_of_stage=self.progress.stage, text_without_media_from_layer=first, right=right)

    def save(self) -> None:
        """Write what `resume` reads; if this is killed, the last one stays."""
        state = {
            "weights": self.thinker.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        new = self.state.with_suffix(".new")
        with new.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.state)

    def resume(self) -> None:
        """Go on where the last `save` was."""
        state = torch.load(self.state, map_location=self.thinker.device, weights_only=True)
        self.thinker.module.load_state_dict(state["weights"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    def _rate(self) -> float:
        """Of the learning rate: a short warm-up, then all of it, then down to nothing over the last of the time."""
        left = 1 - self.progress.seconds / (3600 * self.settings.hours)
        return min(1.0, (self.progress.step + 1) / WARMUP) * min(1.0, max(0.0, left / DECAY))

    def _steps(self) -> Iterator[Step]:
        """What is learned from next, of the stage that has been reached by then."""
        for number in count(self.progress.step):
            rng = Random(f"step {number}")
            stage = STAGES[self._stage_of_step(rng)]
            seconds = rng.randint(*(round(2 * s) for s in stage.seconds)) / 2
            together = self.settings.micro_batch * (1 if stage.blocks else NAMED_MICRO_BATCHES)
            beside, most = max(1, self._gradient_workers), max(MOST_CLIPS, together)
            parts = beside * max(1, round(stage.clips * 4 / seconds / together / beside))  # so that none waits
            first = BatchSpec(
                seed=world.FIRST_TRAINING_SEED + number * most,
                clips=together,
                seconds=seconds,
                scenes=stage.scenes,
                size=rng.choice(stage.sizes),
                blocks=stage.blocks,
                mp4_share=self.settings.mp4_share * (1 if stage.blocks else NAMED_MP4),
            )
            specs = (replace(first, seed=first.seed + part * together) for part in range(min(parts, most // together)))
            yield Step(tuple(specs), self._visible_layers(rng) if self.progress.stage > 1 else None)

    def _visible_layers(self, rng: Random) -> range:
        """The layers in which text sees audio and video tokens: not the first ones, or not the last, at times neither.

        What is looked up in the first layers, before sights and sounds are brought together, is of the whole clip.
        """
        early, late = (rng.random() < share for share in (BLIND_BEFORE, BLIND_AFTER))
        return range(self.middle.start if early else 0, self.middle.stop if late else self.thinker.layers)

    def _stage_of_step(self, rng: Random) -> int:
        """Mostly the stage that has been reached; names are forgotten where nothing asks for them."""
        reached = self.progress.stage
        if reached and rng.random() < NAMES_SHARE:
            return 0
        if reached > 1 and rng.random() < STAGES[reached].earlier:
            earlier = range(1, reached)
            return rng.choices(earlier, weights=earlier)[0]  # the later, the likelier
        return reached

    def _test_batches(self, stage: int) -> list[Batch]:
        """Clips of the fixed test set, made once."""
        if stage not in self._tests:
            scenes, seconds = STAGES[stage].scenes, STAGES[stage].scenes * 4
            spec = BatchSpec(0, 4, seconds, scenes, TEST_SIZE)
            specs = (replace(spec, seed=seed) for seed in range(0, TEST_CLIPS, spec.clips))
            self._tests[stage] = list(produce(specs, make_batch, self.tokenizer, workers=0))
        return self._tests[stage]

    def _test_names(self) -> Named:
        """Likewise, of the first stage."""
        return make_named(BatchSpec(0, 4 * TEST_CLIPS, 2, STAGES[0].scenes, TEST_SIZE, blocks=0))

    def _log(self, **numbers: Any) -> None:
        """A line in the log, and on the screen."""
        line = json.dumps({**asdict(self.progress), **_rounded(numbers)})
        with (self.out / "training" / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        terminal.write(line + "\n")


def _matrices(module: torch.nn.Module) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The matrices inside layers, which Muon is for, and all other weights."""
    matrices, others = list[torch.nn.Parameter](), list[torch.nn.Parameter]()
    for name, weight in module.named_parameters():
        (matrices if weight.ndim == 2 and re.search(r"\.(layers|blocks)\.", name) else others).append(weight)
    return matrices, others


def _shares(scores: Score) -> dict[str, list[float]]:
    """Of every kind, the share that is right, and how many were asked."""
    by_kind = defaultdict[str, list[float]](list)
    for kind, (right, asked) in scores.items():
        by_kind[kind] = [right / asked, asked]
    return by_kind


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def train(out: Path, settings: Settings, device: torch.device, resume: bool = False) -> None:
    """Train nano from nothing, or go on.

    Raises:
        UsageError: the folder holds a run that was not to be resumed, or none that could be.
    """
    state = out / "training" / "state.pt"
    if state.exists() and not resume:
        raise UsageError(f"{out} holds a run already: go on with --resume, or take another folder.")
    if resume and not state.exists():
        raise UsageError(f"{out} holds no run that could be resumed.")
    run = Training(out, settings, device)
    if resume:
        run.resume()
    run.run()
    run.final_test()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.nano.train", description="Train nano on its world.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--hours", type=float, required=True, help="time in all, earlier runs of --out included")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu or cuda")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--rate", type=float, default=Settings.rate, help="learning rate")
    parser.add_argument("--micro-batch", type=int, default=Settings.micro_batch, help="clips computed at a time")
    parser.add_argument(
        "--workers", type=int, default=Settings.workers, help="processes that learn, or make clips for a GPU"
    )
    parser.add_argument("--mp4-share", type=float, default=Settings.mp4_share, help="of the clips, sent through an mp4")
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = _parser().parse_args(arguments)
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings(
        hours=given.hours,
        micro_batch=given.micro_batch,
        rate=given.rate,
        workers=given.workers,
        mp4_share=given.mp4_share,
        bf16=given.bfloat16,
    )
    try:
        train(given.out, settings, torch.device(device), given.resume)
    except OmniqaError as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    main()
