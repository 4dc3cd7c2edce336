"""Trains the selector of omnisift for nano: python -m training.nano.sift --model DIR --hours H.

nano itself stays as it is. The selector's kept audio tokens are multiplied by a mask that is 1 in what it gives and the
score's sigmoid in what it learns from (straight-through); the loss is that of the answers without what was dropped.
The weights are written beside the checkpoint, where omnisift looks for them.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import cast

import torch
from safetensors.torch import save_file
from torch import Tensor

import omniqa
from omniqa import terminal
from omniqa.models.base import AUDIO, VIDEO
from omniqa.models.qwen2_5_omni.layout import build_layout
from omniqa.models.qwen2_5_omni.thinker import Thinker
from omniqa.nano import world
from omniqa.pruning.contract import MediaTokens
from omniqa.pruning.methods.omnisift.method import FILE, audio_of_pairs, audio_scores, audio_to_drop, keep_video
from omniqa.pruning.methods.omnisift.selector import AudioSelector
from training.nano.batches import PADDING, Batch, BatchSpec, make_batch
from training.nano.blocks import BlockModel

CLIPS = 8  # a step
RATE, WARMUP, DECAY = 1e-3, 20, 0.3  # learning rate; steps; share of the time
RHO_AUDIO, RHO_VIDEO = (0.2, 0.6), (0.4, 0.9)  # shares that leave, drawn anew for each clip
LOG_EVERY = 15.0  # seconds


class SelectorTraining:
    """A selector, and the frozen model that it learns from."""

    def __init__(self, model: BlockModel) -> None:
        self.model = model
        self.model.thinker.module.requires_grad_(False)
        torch.manual_seed(0)
        self.selector = AudioSelector(model.thinker.lm_head.in_features).to(model.thinker.device)
        self.optimizer = torch.optim.AdamW(self.selector.parameters(), RATE, (0.9, 0.98), weight_decay=0.01)

    def run(self, hours: float) -> None:
        """Train until the time is over."""
        begun = said = time.monotonic()
        step = 0
        while (passed := (time.monotonic() - begun) / (3600 * hours)) < 1:
            loss = self.step(step, min(1.0, (step + 1) / WARMUP, (1 - passed) / DECAY))
            step += 1
            if time.monotonic() - said > LOG_EVERY:
                said = time.monotonic()
                terminal.write(f"step {step}, {said - begun:.0f} s, loss {loss:.4f}\n")

    def step(self, number: int, rate: float) -> float:
        """Learn from a few clips of two scenes; give the loss."""
        self.optimizer.param_groups[0]["lr"] = RATE * rate
        total, tokens = 0.0, 0
        for seed in range(CLIPS * number, CLIPS * (number + 1)):
            rng = Random(f"sift {seed}")
            spec = BatchSpec(
                world.FIRST_TRAINING_SEED + seed, 1, rng.randint(8, 16) / 2, 2, rng.choice((112, 140, 168))
            )
            batch = make_batch(spec, self.model.thinker.template)
            loss = self.loss(batch, rng.uniform(*RHO_AUDIO), rng.uniform(*RHO_VIDEO))
            loss.backward()
            total, tokens = total + float(loss.detach()), tokens + int(batch.learned.sum())
        for weight in self.selector.parameters():
            if weight.grad is not None:
                weight.grad /= tokens
        torch.nn.utils.clip_grad_norm_(self.selector.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total / tokens

    def loss(self, batch: Batch, rho_audio: float, rho_video: float) -> Tensor:
        """Cross entropy of the answers about one clip, by what is kept of it."""
        with torch.no_grad():
            embedded = self.model.embed(batch)
        tokens = self._tokens(batch, embedded[0])
        kept_video = keep_video(tokens.video.unflatten(0, (-1, tokens.tokens_per_grid)), rho_video)
        sizes = audio_of_pairs(tokens)
        probability = audio_scores(self.selector, tokens, sizes, kept_video).sigmoid()
        kept_audio = _highest(probability.detach(), sizes, rho_audio)
        weight = kept_audio + probability - probability.detach()

        modality = batch.modality[0].to(embedded.device)
        scale = torch.ones(len(modality), device=embedded.device)
        scale = scale.masked_scatter(modality == AUDIO, weight)
        block = batch.block.clone()
        block[0, batch.modality[0] == VIDEO] = torch.where(kept_video.flatten().cpu(), 0, PADDING)
        block[0, batch.modality[0] == AUDIO] = torch.where(kept_audio.cpu() > 0, 0, PADDING)
        return self.model.loss(replace(batch, block=block), embedded=embedded * scale[None, :, None])

    def _tokens(self, batch: Batch, embedded: Tensor) -> MediaTokens:
        """The clip of a batch of one, as the methods get it."""
        shape = batch.media[0].shape
        layout = build_layout(self.model.thinker.template, shape, "?")
        modality = batch.modality[0].to(embedded.device)
        return MediaTokens(
            modality=torch.from_numpy(layout.modality[layout.media]).to(embedded.device),
            chunk=torch.from_numpy(layout.chunk[layout.media]).to(embedded.device),
            tokens_per_grid=shape.tokens_per_grid,
            video=embedded[modality == VIDEO],
            audio=embedded[modality == AUDIO],
            time_s=torch.from_numpy(layout.time_s[layout.media]),
        )

    def save(self, folder: Path) -> Path:
        """Write the weights beside the checkpoint."""
        path = folder / FILE
        save_file({name: tensor.contiguous() for name, tensor in self.selector.state_dict().items()}, path)
        path.chmod(0o644)  # it is written for its owner alone
        return path


def _highest(score: Tensor, sizes: Tensor, rho_audio: float) -> Tensor:
    """(n_audio,) float32: 1 for the tokens of each pair that stay, 0 for those with the lowest scores."""
    kept = [
        torch.ones_like(pair).scatter_(0, pair.argsort()[: audio_to_drop(len(pair), rho_audio)], 0)
        for pair in score.split(sizes.tolist())
    ]
    return torch.cat(kept)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.nano.sift", description="Train omnisift's selector.")
    parser.add_argument("--model", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--hours", type=float, required=True, help="time in all")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu or cuda")
    given = parser.parse_args(arguments)
    thinker = cast(Thinker, omniqa.load(str(given.model), given.device).model)
    training = SelectorTraining(BlockModel(thinker))
    training.run(given.hours)
    terminal.write(f"{training.save(given.model)}\n")


if __name__ == "__main__":
    main()
