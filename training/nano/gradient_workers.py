"""Where gradients come from: this process, with clips made in the background, or several processes that do both.

On a CPU several processes of one thread each are faster than several threads of one process, and are not held up by
each other; on a GPU one process computes.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, tee
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing import get_context

from omniqa.models.qwen2_5_omni.template import ChatTemplate
from omniqa.nano.architecture import NanoConfig, untrained
from omniqa.nano.tokenizer import make_tokenizer
from training.nano.batches import Batch, BatchSpec, end_with_parent, make_batch, produce
from training.nano.blocks import BlockModel
from training.nano.naming import Named, TokenLabeler, make_named

# Memory that is given back to the system after each operation has to be cleared by it before the next; glibc shall keep
# it. Read when a process starts.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


@dataclass(frozen=True)
class Step:
    """What one step of training learns from. media_visible_layers: see BlockModel.logits."""

    specs: tuple[BatchSpec, ...]
    media_visible_layers: range | None


@dataclass(frozen=True)
class Learned:
    """What has been added to the weights' gradients: those of a loss summed over `parts`, tokens to be said or clips.

    Attributes:
        loss: that sum.
        clips: how many it came from.
    """

    loss: float
    parts: int
    clips: int


def gradients_here(steps: Iterator[Step], model: BlockModel, workers: int) -> Generator[Learned, None, None]:
    """After each step the gradients have been added up; `workers` processes make the clips, 0 makes them here."""
    steps, ahead = tee(steps)
    specs, labeler = chain.from_iterable(step.specs for step in ahead), TokenLabeler(model)
    with closing(produce(specs, make, model.thinker.tokenizer, workers)) as batches:
        for step in steps:
            yield _sum([_learn(labeler, next(batches), step.media_visible_layers) for _ in step.specs])


def gradients_from_workers(
    steps: Iterator[Step], module: nn.Module, config: NanoConfig, bf16: bool, workers: int
) -> Generator[Learned, None, None]:
    """The same with `workers` processes, each of which makes clips and computes what follows from them.

    They take specs as they get ready. The weights of `module` and all gradients move into shared memory.
    """
    torch.set_num_threads(1)  # several would wait for each other wherever something else runs
    weights = _flat(module)
    gradients = torch.zeros(workers + 1, len(weights)).share_memory_()
    _bind(module, weights, gradients[0])
    os.environ.update({name: value for name, value in _MALLOC.items() if name not in os.environ})
    context = get_context("spawn")
    numbers = context.Queue()
    for number in range(workers):
        numbers.put(number + 1)
    setting = (config, bf16, weights, gradients, numbers)
    with ProcessPoolExecutor(workers, context, _start_worker, setting) as pool:
        try:
            for step in steps:
                given = [pool.submit(_work, spec, step.media_visible_layers) for spec in step.specs]
                learned = _sum([one.result() for one in as_completed(given)])
                gradients[0] += gradients[1:].sum(0)
                gradients[1:] = 0
                yield learned
        finally:
            pool.shutdown(cancel_futures=True)


def make(spec: BatchSpec, template: ChatTemplate) -> Batch | Named:
    """What a spec asks for: questions, or names alone."""
    return make_batch(spec, template) if spec.blocks else make_named(spec)


def _learn(labeler: TokenLabeler, batch: Batch | Named, media_visible_layers: range | None) -> Learned:
    if isinstance(batch, Named):
        loss, parts = labeler.loss(batch), len(batch.media)
    else:
        loss, parts = labeler.answers_loss(batch, media_visible_layers), int(batch.learned.sum())
    loss.backward()
    return Learned(float(loss.detach()), parts, len(batch.media))


def _sum(parts: Sequence[Learned]) -> Learned:
    return Learned(sum(p.loss for p in parts), sum(p.parts for p in parts), sum(p.clips for p in parts))


def _flat(module: nn.Module) -> Tensor:
    """All weights one after the other, in shared memory."""
    return torch.cat([weight.detach().flatten() for weight in module.parameters()]).share_memory_()


def _bind(module: nn.Module, weights: Tensor, gradients: Tensor) -> None:
    """From now on the module's weights and their gradients are parts of these."""
    start = 0
    for weight in module.parameters():
        part = slice(start, start + weight.numel())
        weight.data = weights[part].view_as(weight)
        weight.grad = gradients[part].view_as(weight)
        start = part.stop


_worker: list[tuple[TokenLabeler, ChatTemplate]] = []  # of a worker process, what it learns with


def _start_worker(config: NanoConfig, bf16: bool, weights: Tensor, gradients: Tensor, numbers: Any) -> None:
    torch.set_num_threads(1)
    end_with_parent()
    tokenizer = make_tokenizer()
    thinker = untrained(config, tokenizer, torch.device("cpu"))
    _bind(thinker.module, weights, gradients[numbers.get()])
    _worker[:] = [(TokenLabeler(BlockModel(thinker, bf16)), thinker.template)]


def _work(spec: BatchSpec, media_visible_layers: range | None) -> Learned:
    labeler, template = _worker[0]
    return _learn(labeler, make(spec, template), media_visible_layers)
