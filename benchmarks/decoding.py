"""Tokens a second while an answer is written, beside the floor that the memory's bandwidth sets.

    python benchmarks/make_checkpoint.py wide wide-random
    python -m benchmarks.decoding wide-random --threads 2

A step reads every weight of the decoder's layers and of lm_head once, so the floor is their bytes over the bandwidth,
which is measured in the same run: the best of sums over 0.5 GB. Seconds are the median step's. Operators are shares of
torch's own time. The cache holds --tokens tokens a layer. One thread is timed by its own time, which other work on the
machine disturbs less.
"""

import argparse
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

import omniqa
from omniqa.models.decode_step import DecodeStep
from omniqa.pipeline.engine import OmniQA
from omniqa.runtime.int8 import Int8Linear
from omniqa.runtime.kv_cache import KVCache

STEPS, WARM = 12, 3
SHOWN = 6


def clock() -> float:
    """Seconds, of this thread if it is the only one."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def bandwidth() -> float:
    """Bytes a second that are read from memory, the best of five."""
    x = torch.ones(2**27)
    seconds = []
    for _ in range(5):
        start = clock()
        x.sum()
        seconds.append(clock() - start)
    return x.numel() * 4 / min(seconds)


def weight_bytes(qa: OmniQA) -> int:
    """Of the decoder's layers and lm_head."""
    total = 0
    for module in [*qa.decoder.model.layers.modules(), qa.decoder.lm_head]:
        if isinstance(module, Int8Linear):
            total += module.in_features * module.out_features
        else:
            total += sum(weight.numel() * weight.element_size() for weight in module.parameters(recurse=False))
    return total


@torch.inference_mode()
def make_step(qa: OmniQA, tokens: int) -> DecodeStep:
    """A step on a cache of random keys and values."""
    decoder, layers = qa.decoder, qa.model.layers
    cache = KVCache(layers, STEPS + 2 * WARM + 2)
    for layer in range(layers):
        filled = torch.randn(tokens, decoder.kv_heads, decoder.head_size).to(qa.model.dtype)
        cache.reserve(layer, tokens, filled)
        cache.append(layer, filled, filled)
    return DecodeStep(decoder, cache, tokens)


def measure(qa: OmniQA, tokens: int) -> tuple[float, list[tuple[str, float]]]:
    """Seconds of the median step, and the shares of the operators that take most."""
    step, seconds = make_step(qa, tokens), []
    for number in range(WARM + STEPS):
        start = clock()
        step(1)
        if number >= WARM:
            seconds.append(clock() - start)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(WARM):
            step(1)
    spent = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    whole = sum(spent.values())
    shares = sorted(((share / whole, name) for name, share in spent.items()), reverse=True)
    return statistics.median(seconds), [(name, share) for share, name in shares[:SHOWN]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder")
    parser.add_argument("--tokens", type=int, default=1000, help="in the cache")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=("float", "int8"), help="the weights; both where not given")
    parser.add_argument("--weights-cache", help="where quantised weights are kept")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rate = bandwidth()
    print(f"memory: {rate / 1e9:.1f} GB/s, {given.threads} threads\n")
    print(
        "| weights | read a step, GB | floor, ms | step, ms | over floor | operators |\n|---|---:|---:|---:|---:|---|"
    )
    for quantize in {None: (None, "int8"), "float": (None,), "int8": ("int8",)}[given.only]:
        qa = omniqa.load(given.model, device="cpu", quantize=quantize, weights_cache=given.weights_cache)
        size = weight_bytes(qa)
        seconds, operators = measure(qa, given.tokens)
        floor = size / rate
        told = ", ".join(f"{name.removeprefix('aten::')} {100 * share:.0f} %" for name, share in operators)
        name = quantize or str(qa.model.dtype).removeprefix("torch.")
        print(
            f"| {name} | {size / 1e9:.2f} | {1e3 * floor:.0f} | {1e3 * seconds:.0f} | {seconds / floor:.2f} | {told} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
