"""Trains nano on its world: python -m omniqa.nano.train --out DIR --hours H.

DIR becomes a checkpoint that `omniqa ask --model DIR` and transformers load; DIR/training holds the log and what is
needed to go on after an end of any kind with --resume.
"""

import argparse
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniqa.errors import OmniqaError, UsageError
from omniqa.model.attention import SdpaAttention, rotate
from omniqa.model.audio import AudioEncoder, token_count
from omniqa.model.thinker import Thinker
from omniqa.model.vision import VisionEncoder
from omniqa.nano import world
from omniqa.nano.architecture import Shape, save, untrained
from omniqa.nano.batches import PADDING, Batch, Media, Order, produce
from omniqa.nano.kinds import KINDS
from omniqa.nano.tokenizer import make_tokenizer
from omniqa.sequence.units import AUDIO, TEXT, VIDEO

LATE = 0.4  # of the layers, the last ones, in which text shall do without audio and video tokens
BLIND_SHARE = 0.6  # of the steps in which it must
SIZES = (112, 140, 168)  # pixels a side; the largest half of the time
EARLIER_SHARE = 0.25  # of the batches that are of earlier stages
TEST_CLIPS, TEST_SIZE = 32, 168
WARMUP, DECAY = 100, 0.3  # steps; share of the time
TEST_EVERY, SAVE_EVERY, LOG_EVERY = 180.0, 120.0, 15.0  # seconds
NAMING = ("scene recognition", "audio recognition")


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        scenes: in each clip.
        seconds: shortest and longest clip.
        tasks: what must be answered right before the next stage begins,
        enough: in this share of questions; or else, this share of the whole time must be over:
        latest: 1 for the last stage.
    """

    scenes: int
    seconds: tuple[int, int]
    tasks: tuple[str, ...] = NAMING
    enough: float = 0.9
    latest: float = 1.0


STAGES = (
    Stage(scenes=1, seconds=(3, 5), latest=0.25),
    Stage(scenes=2, seconds=(5, 10), tasks=(*NAMING, "order"), latest=0.6),
    Stage(scenes=4, seconds=(8, 16)),
)


@dataclass(frozen=True)
class Settings:
    """How to train. `batch`: clips of 4 s a step; of longer clips there are fewer. `rate`: learning rate."""

    hours: float
    batch: int = 16
    rate: float = 1e-3
    workers: int = 1
    mp4_share: float = 0.1
    bf16: bool = True
    compiled: bool = False


@dataclass
class Progress:
    """How far it is."""

    step: int = 0
    seconds: float = 0.0
    stage: int = 0


class MatmulAttention(SdpaAttention):
    """Attention in plain products: on a CPU they are faster backwards than torch's own kernel."""

    name = "matmul"

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.dense."""
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return ((q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1) @ v).transpose(1, 2)


class BlockModel:
    """The Thinker over a batch of clips with many questions each, with gradients.

    The encoders run as at inference; the decoder is the same modules over padded rows with a mask. B clips, rows of N
    tokens, H heads, KV key heads, D their size.
    """

    def __init__(self, thinker: Thinker, bf16: bool = False, compiled: bool = False) -> None:
        self.thinker = thinker
        self.bf16 = bf16
        self.attention = SdpaAttention() if thinker.device.type == "cuda" else MatmulAttention()
        config = thinker.config.get_text_config()
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self._run_layer = torch.compile(self._layer, dynamic=True) if compiled else self._layer

    def logits(self, batch: Batch, blind_from: int | None = None) -> Tensor:
        """What is said at every token to be learned: (tokens, vocabulary), float32, clip after clip.

        blind_from: from this layer on, text does not see audio and video tokens.
        """
        device, decoder = self.thinker.device, self.thinker.decoder
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            x = self._embed(batch)
            rotary = self._rotary(x, batch.positions.to(device))
            seeing, blind = self._added(visible(batch)), self._added(_without_media(batch))
            for number, layer in enumerate(decoder.layers):
                sees_media = blind_from is None or number < blind_from
                x = self._run_layer(layer, x, rotary, seeing if sees_media else blind)
            before = batch.learned.roll(-1, dims=1).to(device)  # a token is said by the one before it
            return self.thinker.lm_head(decoder.norm(x[before])).float()

    def _embed(self, batch: Batch) -> Tensor:
        """(B, N, d): text from the table, audio and video from the encoders."""
        device = self.thinker.device
        x = self.thinker.decoder.embed_tokens(batch.ids.to(device))
        for kind, encode in ((VIDEO, self._video), (AUDIO, self._audio)):
            place = (batch.modality == kind).to(device)[:, :, None]
            x = x.masked_scatter(place, encode(batch.media).to(x.dtype))
        return x

    def _video(self, media: Sequence[Media]) -> Tensor:
        """(tokens of all clips, d)"""
        frames = torch.cat([torch.from_numpy(clip.frames) for clip in media])
        return VisionEncoder(self.thinker.visual, self.attention)._encode_grids(frames).flatten(0, 1)

    def _audio(self, media: Sequence[Media]) -> Tensor:
        """(tokens of all clips, d): windows of one length are encoded together, then put back in order."""
        encoder = AudioEncoder(self.thinker.audio_tower, self.attention)
        windows = [window for clip in media for window in torch.from_numpy(clip.mel).split(encoder.window, dim=1)]
        encoded: list[Tensor] = [torch.empty(0)] * len(windows)
        for length in {window.shape[1] for window in windows}:
            places = [place for place, window in enumerate(windows) if window.shape[1] == length]
            same = torch.stack([windows[place] for place in places]).to(self.thinker.device)
            tokens = encoder._encode_windows(same)[0].unflatten(0, (len(places), token_count(length)))
            for place, embeddings in zip(places, tokens, strict=True):
                encoded[place] = embeddings
        return torch.cat(encoded)

    def _added(self, mask: Tensor) -> Tensor:
        """A bool mask as what is added to scores, in their type."""
        zeros = torch.zeros(mask.shape, dtype=torch.bfloat16 if self.bf16 else torch.float32)
        return zeros.masked_fill_(~mask, float("-inf")).to(self.thinker.device)

    def _rotary(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each (B, N, 1, D), of positions (3, B, N)."""
        cos, sin = self.thinker.decoder.rotary_emb(x, positions)
        return cos[:, :, None], sin[:, :, None]

    def _layer(self, layer: Any, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """One layer of the decoder over (B, N, d)."""
        attention, h = layer.self_attn, layer.input_layernorm(x)
        q = rotate(attention.q_proj(h).unflatten(-1, (self.heads, -1)), *rotary)
        k = rotate(attention.k_proj(h).unflatten(-1, (self.kv_heads, -1)), *rotary)
        v = attention.v_proj(h).unflatten(-1, (self.kv_heads, -1))
        x = x + attention.o_proj(_attend(q.to(v.dtype), k.to(v.dtype), v, mask).flatten(2))
        return x + layer.mlp(layer.post_attention_layernorm(x))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q and result (B, N, H, D), k and v (B, N, KV, D), mask (B, N, N) to be added."""
    groups = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.is_cuda:
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, mask[:, None]).transpose(1, 2)
    tokens = q.shape[2]
    rows = q.unflatten(1, (-1, groups)).flatten(2, 3) * q.shape[-1] ** -0.5  # (B, KV, G·N, D): no key is repeated
    scores = (rows @ k.transpose(2, 3)).unflatten(2, (groups, tokens)) + mask[:, None, None]
    attended = scores.softmax(-1).to(v.dtype).flatten(2, 3) @ v
    return attended.unflatten(2, (groups, tokens)).flatten(1, 2).transpose(1, 2)


def visible(batch: Batch) -> Tensor:
    """(B, N, N) bool, which keys a row sees: what comes before, of the clip and of its own block only."""
    block, tokens = batch.block, batch.block.shape[1]
    shared = (block == 0)[:, None, :] & (block != PADDING)[:, :, None]
    same = block[:, :, None] == block[:, None, :]
    return (shared | same) & torch.ones(tokens, tokens, dtype=torch.bool).tril()


def _without_media(batch: Batch) -> Tensor:
    """The same where text does not see audio and video."""
    text = batch.modality == TEXT
    return visible(batch) & ~(text[:, :, None] & ~text[:, None, :])


def loss_of(model: BlockModel, batch: Batch, blind_from: int | None = None) -> Tensor:
    """Mean cross entropy of the tokens to be learned."""
    return F.cross_entropy(model.logits(batch, blind_from), batch.ids[batch.learned].to(model.thinker.device))


Score = dict[str, tuple[int, int]]


@torch.no_grad()
def score(model: BlockModel, batches: Sequence[Batch], blind_from: int | None = None) -> Score:
    """Of every kind of question, how many are answered right, and how many are asked.

    An answer counts where each of its tokens and the end is the likeliest one after the right tokens before it; that is
    the same as that greedy decoding gives this answer.
    """
    right, asked = Counter[str](), Counter[str]()
    for batch in batches:
        said = model.logits(batch, blind_from).argmax(-1).cpu()
        missed = (said != batch.ids[batch.learned]).nonzero()[:, 0]
        clip = batch.learned.nonzero()[:, 0]
        wrong = {(int(clip[token]), int(batch.block[batch.learned][token])) for token in missed}
        for row, kinds in enumerate(batch.kinds):
            asked.update(kinds)
            right.update(kind for number, kind in enumerate(kinds, start=1) if (row, number) not in wrong)
    return {kind: (right[kind], asked[kind]) for kind in KINDS if asked[kind]}


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

    def __init__(self, out: Path, settings: Settings, device: torch.device, shape: Shape | None = None) -> None:
        self.out, self.settings = out, settings
        self.tokenizer = make_tokenizer()
        self.thinker = untrained(shape or Shape(), self.tokenizer, device)
        self.model = BlockModel(self.thinker, settings.bf16, settings.compiled)
        self.optimizer = torch.optim.AdamW(
            self.thinker.module.parameters(), settings.rate, (0.9, 0.98), weight_decay=0.01
        )
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
        since, losses, clips = self.progress.step, list[Tensor](), 0
        with closing(produce(self._orders(), self.tokenizer, self.settings.workers)) as batches:
            while self.progress.seconds < 3600 * self.settings.hours and self.progress.step != max_steps:
                batch = next(batches)
                losses.append(self.step(batch))
                clips += len(batch.media)
                self.progress.seconds = now = time.monotonic() - begun
                if now - logged >= LOG_EVERY:
                    self._log(
                        loss=float(torch.stack(losses).mean()),
                        steps_per_s=(self.progress.step - since) / (now - logged),
                        clips_per_s=clips / (now - logged),
                    )
                    since, logged, losses, clips = self.progress.step, now, [], 0
                if now - tested >= TEST_EVERY:
                    self.test()
                    tested = time.monotonic() - begun
                if now - saved >= SAVE_EVERY:
                    self.save()
                    saved = time.monotonic() - begun
        self.save()
        save(self.thinker.module, self.tokenizer, self.out)

    def step(self, batch: Batch) -> Tensor:
        """Learn from one batch; give the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * self._rate()
        rng = Random(f"blind {self.progress.step}")
        loss = loss_of(self.model, batch, self.blind_from if rng.random() < BLIND_SHARE else None)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.thinker.module.parameters(), 1.0)
        self.optimizer.step()
        self.progress.step += 1
        return loss.detach()

    @property
    def blind_from(self) -> int:
        """The first of the late layers."""
        return self.thinker.layers - round(LATE * self.thinker.layers)

    def test(self) -> None:
        """Measure on test clips of the present stage, and go to the next stage if that is enough."""
        stage, at = STAGES[self.progress.stage], self.progress.seconds / (3600 * self.settings.hours)
        scores = score(self.model, self._test_batches(self.progress.stage))
        self._log(right=share_right(scores), accuracy=_shares(scores))
        if self.progress.stage < len(STAGES) - 1 and (
            share_right(scores, stage.tasks) >= stage.enough or at >= stage.latest
        ):
            self.progress.stage += 1

    def final_test(self) -> None:
        """Measure on every stage's test clips; and, of the stage reached, with media in the first layers only."""
        for number in range(len(STAGES)):
            scores = score(self.model, self._test_batches(number))
            self._log(test_of_stage=number, right=share_right(scores), accuracy=_shares(scores))
        batches = self._test_batches(self.progress.stage)
        for first in range(self.thinker.layers + 1):
            right = share_right(score(self.model, batches, first))
            self._log(test_of_stage=self.progress.stage, text_without_media_from_layer=first, right=right)

    def save(self) -> None:
        """Write what `resume` reads; if this is killed, the last one stays."""
        state = {
            "weights": self.thinker.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])

    def _rate(self) -> float:
        """Of the learning rate: a short warm-up, then all of it, then down to nothing over the last of the time."""
        left = 1 - self.progress.seconds / (3600 * self.settings.hours)
        return min(1.0, (self.progress.step + 1) / WARMUP) * min(1.0, max(0.0, left / DECAY))

    def _orders(self) -> Iterator[Order]:
        """A batch a step, of the stage that has been reached by then."""
        for number in count(self.progress.step):
            rng = Random(f"order {number}")
            earlier = self.progress.stage and rng.random() < EARLIER_SHARE
            stage = rng.randrange(self.progress.stage) if earlier else self.progress.stage
            seconds = rng.randint(*(2 * s for s in STAGES[stage].seconds)) / 2
            size = SIZES[-1] if rng.random() < 0.5 else rng.choice(SIZES[:-1])
            yield Order(
                seed=world.FIRST_TRAINING_SEED + number * self.settings.batch,
                clips=max(1, min(self.settings.batch, round(self.settings.batch * 4 / seconds))),
                seconds=seconds,
                scenes=STAGES[stage].scenes,
                size=size,
                mp4_share=self.settings.mp4_share,
            )

    def _test_batches(self, stage: int) -> list[Batch]:
        """Clips of the fixed test set, made once."""
        if stage not in self._tests:
            scenes, seconds = STAGES[stage].scenes, STAGES[stage].scenes * 4
            order = Order(0, 4, seconds, scenes, TEST_SIZE)
            orders = (replace(order, seed=seed) for seed in range(0, TEST_CLIPS, order.clips))
            self._tests[stage] = list(produce(orders, self.tokenizer, workers=0))
        return self._tests[stage]

    def _log(self, **numbers: Any) -> None:
        """A line in the log, and on the screen."""
        line = json.dumps({**asdict(self.progress), **_rounded(numbers)})
        with (self.out / "training" / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)


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
    parser = argparse.ArgumentParser(prog="python -m omniqa.nano.train", description="Train nano on its world.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--hours", type=float, required=True, help="time in all, earlier runs of --out included")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu or cuda")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--batch", type=int, default=Settings.batch, help="clips of 4 s a step, fewer of longer ones")
    parser.add_argument("--rate", type=float, default=Settings.rate, help="learning rate")
    parser.add_argument("--workers", type=int, default=Settings.workers, help="processes that make clips")
    parser.add_argument("--mp4-share", type=float, default=Settings.mp4_share, help="of the clips, sent through an mp4")
    parser.add_argument("--float32", action="store_true", help="compute in float32, not bfloat16")
    parser.add_argument("--compile", action="store_true", help="compile the decoder's layers")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = _parser().parse_args(arguments)
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings(
        hours=given.hours,
        batch=given.batch,
        rate=given.rate,
        workers=given.workers,
        mp4_share=given.mp4_share,
        bf16=not given.float32,
        compiled=given.compile,
    )
    try:
        train(given.out, settings, torch.device(device), given.resume)
    except OmniqaError as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    main()
