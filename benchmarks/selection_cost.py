"""What choosing tokens at the input level costs, beside the prefill of full tokens, on this machine.

    python -m benchmarks.selection_cost --dtype float32
    python -m benchmarks.selection_cost --device cuda --prefill-seconds 1.9

The clip is 128 frames of 252x448, 64 grids of 9x16 tokens, with 64 s of sound, 1600 tokens.
For every method that chooses at the input level: seconds of `plan` and `prune_input`, and of the audio importance
that it asks of the encoder's last layer; medians, the methods in turn. A network that a method learns has random
weights. The embeddings are random walks: every place of
the picture changes a little from grid to grid, and so does the sound; every eight seconds all is new.

The prefill is the engine's own, on two decoder layers of the 3B shape with random weights: the first, which computes
all rows, counts for 35 of the 36 layers, the second for the last, of which only the last row is computed. So it is
an estimate from layers, not a run of the whole model. The floor is the operations of all layers over the matrix rate
measured in the same run.

Prints a Markdown table.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from benchmarks.make_checkpoint import AUDIO, MROPE_SECTION, ROPE, TEXT, VISION
from omniqa import errors
from omniqa.models.base import AUDIO as IS_AUDIO
from omniqa.models.base import VIDEO as IS_VIDEO
from omniqa.models.decoder import Decoder
from omniqa.models.prefill_rows import PrefillInput
from omniqa.models.qwen2_5_omni.audio import AudioEncoding
from omniqa.models.qwen2_5_omni.checkpoint import HUB_3B
from omniqa.models.qwen2_5_omni.flops import ModelShape
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens, Plan, Unreachable
from omniqa.pruning.contract import AnyMethod, AudioAttention, AuxNetwork, MediaTokens, Method
from omniqa.pruning.interleave import interleave
from omniqa.runtime.attention import select_attention
from omniqa.runtime.kv_cache import KVCache
from omniqa.runtime.matmul_rate import matmul_rate

SHAPE = TEXT["3b"]
WIDTH, LAYERS = SHAPE["hidden_size"], SHAPE["num_hidden_layers"]
HW = 9 * 16  # a frame of 252x448
HEADS, HEAD = 20, 64  # of the audio encoder
HEAD_TEXT, QUESTION = 32, 32  # text tokens before and after the media
GRIDS_PER_CHUNK, AUDIO_PER_CHUNK = 2, 50
NEW_EVERY = 8  # seconds


def random_walk(steps: int, new_every: int, *shape: int) -> Tensor:
    """(steps, *shape) float32: unit normal, each step's cosine to the one before about 0.9, unrelated at a cut."""
    walk = torch.randn(steps, *shape)
    for step in range(1, steps):
        if step % new_every:
            walk[step] = 0.9 * walk[step - 1] + (1 - 0.9**2) ** 0.5 * walk[step]
    return walk


def make_tokens(grids: int, audio: int, device: str, dtype: torch.dtype) -> MediaTokens:
    """A clip with one grid a second and 25 audio tokens a second."""
    chunk = torch.cat(
        [(torch.arange(grids) // GRIDS_PER_CHUNK).repeat_interleave(HW), torch.arange(audio) // AUDIO_PER_CHUNK]
    )
    modality = torch.tensor([IS_VIDEO, IS_AUDIO]).repeat_interleave(torch.tensor([grids * HW, audio]))
    time_s = torch.cat([torch.arange(grids).repeat_interleave(HW), torch.arange(audio) / 25]).double()
    order = chunk.argsort(stable=True)
    return MediaTokens(
        modality=modality[order].to(device),
        chunk=chunk[order].to(device),
        tokens_per_grid=HW,
        video=random_walk(grids, NEW_EVERY, HW, WIDTH).flatten(0, 1).to(device, dtype),
        audio=random_walk(audio, NEW_EVERY * 25, WIDTH).to(device, dtype),
        time_s=time_s[order],
    )


def make_decoder(device: str, dtype: torch.dtype) -> Decoder:
    """Two layers of the 3B shape, random weights; the encoders beside them are small and never run."""
    make = Qwen2_5OmniThinkerConfig
    config = make(
        text_config=SHAPE
        | {"num_hidden_layers": 2, "vocab_size": 512, "rope_parameters": ROPE | {"mrope_section": MROPE_SECTION["3b"]}},
        vision_config=VISION["small"] | {"out_hidden_size": WIDTH},
        audio_config=AUDIO["small"] | {"output_dim": WIDTH},
        pad_token_id=0,
    )
    module = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, dtype=dtype).to(device).eval()
    inner = getattr(module.model, "language_model", module.model)  # transformers after 5.17, and before
    return Decoder(inner, module.lm_head, select_attention("auto", torch.device(device), dtype))


def prefill_seconds(tokens: MediaTokens, clock: "Clock", repeats: int, dtype: torch.dtype) -> float:
    """Seconds that the prefill of full tokens takes in all layers, from one full layer and the last."""
    device = tokens.video.device
    decoder = make_decoder(str(device), dtype)
    n = len(tokens.modality)
    rows = HEAD_TEXT + n + QUESTION
    prompt = PrefillInput(
        embeddings=torch.randn(rows, WIDTH, device=device, dtype=dtype),
        positions=torch.arange(rows, device=device).expand(3, -1),
        media=slice(HEAD_TEXT, HEAD_TEXT + n),
        question=torch.arange(-QUESTION, 0, device=device),
        index=torch.arange(n, device=device),
        modality=tokens.modality,
        chunk=tokens.chunk,
        max_chunk=int(tokens.chunk.max()),
    )
    plan, pruner = Plan.untouched(tokens.counts, 2), registry.create("none", 1.0)
    estimates = []
    for _ in range(repeats + 1):
        ends = [clock.now()]
        decoder.prefill(prompt, pruner, plan, KVCache(2, 0), lambda share, ends=ends: ends.append(clock.now()))
        start, first, last = ends
        estimates.append((LAYERS - 1) * (first - start) + last - first)
    return statistics.median(estimates[1:])


@dataclass(frozen=True)
class Clock:
    """Wall seconds, when the device has done what it was given."""

    device: str

    def now(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def time(self, action: Callable[[], object]) -> float:
        start = self.now()
        action()
        return self.now() - start


@dataclass
class Line:
    """A method at a retention, and the seconds that it took."""

    pruner: AnyMethod
    asked: float
    entered: int = 0

    def __post_init__(self) -> None:
        self.selection: list[float] = []
        self.importance: list[float] = []
        part = self.pruner.need(AuxNetwork)
        self.network = part.make(WIDTH).eval() if part else None

    def measure(self, tokens: MediaTokens, sound: AudioEncoding, clock: Clock) -> None:
        """Once more."""
        signal = self.pruner.need(AudioAttention)
        if self.network:
            self.network.to(clock.device)
        start = clock.now()
        importance = sound.attention_received(signal.scope) if signal else None
        ready = clock.now()
        given = replace(tokens, audio_attention=importance, aux_network=self.network)
        plan = self.pruner.plan(given.counts, LAYERS)
        index, _ = interleave(self.pruner.prune_input(given, plan), given)
        self.selection.append(clock.now() - ready)
        self.importance.append(ready - start)
        self.entered = len(index)


def make_lines(retentions: list[float], tokens: MediaTokens, sound: AudioEncoding, clock: Clock) -> list[Line]:
    """Every method with work at the input level, run once; at the nearest retention where the asked is out of reach."""
    lines = []
    for name, method in registry.methods().items():
        if method.prune_input is Method.prune_input:
            continue
        for retention in retentions:
            line = Line(registry.create(name, retention), retention)
            try:
                line.measure(tokens, sound, clock)
            except Unreachable as error:
                line = Line(registry.create(name, error.nearest), retention)
                line.measure(tokens, sound, clock)
            except errors.OmniqaError as error:
                print(f"{name} is left out: {error}\n")
                break
            lines.append(Line(line.pruner, retention))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retention", type=float, action="append", help="default: 0.3 and 0.2")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--prefill-repeats", type=int, default=2, help="after one that does not count")
    parser.add_argument("--prefill-seconds", type=float, help="of full tokens, measured elsewhere")
    parser.add_argument("--grids", type=int, default=64)
    parser.add_argument("--audio", type=int, default=1600, help="audio tokens")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    clock, dtype = Clock(arguments.device), getattr(torch, arguments.dtype)
    with torch.inference_mode():
        tokens = make_tokens(arguments.grids, arguments.audio, arguments.device, dtype)
        positions = torch.randn(2, 2 * arguments.audio, HEADS, HEAD).to(arguments.device, dtype)
        sound = AudioEncoding(tokens.audio, *positions, window=2 * AUDIO_PER_CHUNK)
        lines = make_lines(arguments.retention or [0.3, 0.2], tokens, sound, clock)
        for _ in range(arguments.repeats):
            for line in lines:
                line.measure(tokens, sound, clock)
        rate = matmul_rate(dtype, torch.device(arguments.device))
        prefill = arguments.prefill_seconds or prefill_seconds(tokens, clock, arguments.prefill_repeats, dtype)
    report(lines, tokens.counts, rate, prefill, arguments)


def report(lines: list[Line], clip: ClipTokens, rate: float, prefill: float, arguments: argparse.Namespace) -> None:
    shape = ModelShape.of(HUB_3B)
    floor = shape.prefill([HEAD_TEXT + QUESTION + clip.n_audio + clip.n_video] * LAYERS) / rate
    source = "given" if arguments.prefill_seconds else "estimated from two layers"
    print(
        f"{clip.n_video} video and {clip.n_audio} audio tokens of width {WIDTH}, {arguments.dtype} on "
        f"{arguments.device} ({torch.get_num_threads()} CPU threads). Matrix rate {rate / 1e12:.3f} TFLOP/s. Prefill "
        f"of full tokens in the 3B shape: {prefill:.3f} s ({source}; floor {floor:.3f} s). Medians of "
        f"{arguments.repeats}, the lowest and highest in brackets.\n"
    )
    print("| method | R asked | tokens in | plan and prune_input, s | audio importance, s | together, of prefill |")
    print("|---|---:|---:|---:|---:|---:|")
    for line in lines:
        together = statistics.median(map(sum, zip(line.selection, line.importance, strict=True)))
        mark = "" if line.pruner.retention == line.asked else f" (nearest {line.pruner.retention:.2f})"
        print(
            f"| {line.pruner.name} | {line.asked:g}{mark} | {line.entered} | {spread(line.selection)} | "
            f"{spread(line.importance)} | {together / prefill:.2%} |"
        )


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.4f} ({min(seconds):.4f}-{max(seconds):.4f})"


if __name__ == "__main__":
    main()
