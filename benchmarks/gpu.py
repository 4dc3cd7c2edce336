"""Time, memory and floors on a GPU, beside transformers' own forward in the same process.

    python -m benchmarks.gpu --shape 7b --shape 3b --json gpu.json --plot gpu.png
    python -m benchmarks.gpu --shape tiny --device cpu          # the same way at a small size, by the wall clock

Weights are random, in the true shapes, made on the device in bfloat16: they cost the time and memory of the published
ones. The clip is 64 s: 128 frames of 252x448 (64 grids of 144 tokens) and 1600 audio tokens; then 384 s with 768
frames; then 30 s to 30 min at two frames a second and R = 0.3, until the memory ends. Pixels, log-mel and text are
random. Medians of --repeats runs after --warmup, all cases in turn, by CUDA events.

Stages: vision and audio encoder, input pruning (audio importance included), the decoder's layers in four groups; then
decoding, token by token. The floor of a stage is the operations that it can't do without, counted from the tokens that
each layer really computed, over the matrix rate measured in the same run. The floor of a decoding step is the bytes of
the decoder's weights and of the cache over the copying rate measured in the same run. transformers' encoders, decoder
and head are called as its own forward calls them, with all tokens, by flash_attention_2 or sdpa, whichever is faster.

Prints Markdown tables.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from benchmarks.make_checkpoint import AUDIO, MROPE_SECTION, ROPE, TEXT, VISION
from omniqa.models.base import AUDIO as IS_AUDIO
from omniqa.models.base import VIDEO as IS_VIDEO
from omniqa.models.decode_step import CAPTURE_AFTER, DecodeStep
from omniqa.models.decoder import Decoder
from omniqa.models.prefill_rows import PrefillInput
from omniqa.models.qwen2_5_omni.audio import AudioEncoder
from omniqa.models.qwen2_5_omni.config import read_config
from omniqa.models.qwen2_5_omni.flops import ModelShape
from omniqa.models.qwen2_5_omni.vision import VisionEncoder, patchify
from omniqa.pruning import registry
from omniqa.pruning.budget import Unreachable
from omniqa.pruning.contract import AnyMethod, AudioAttention, Kept, MediaTokens
from omniqa.pruning.interleave import interleave
from omniqa.runtime.attention import select_attention
from omniqa.runtime.kv_cache import KVCache
from omniqa.runtime.matmul_rate import matmul_rate

SHAPES = {"7b": "7b", "3b": "3b", "tiny": "small"}  # and what make_checkpoint calls them
HEAD, TAIL = 30, 40  # text tokens before and after the media; of the latter the question's
GROUPS = 4  # of decoder layers that are timed together
FPS, MEL_PER_SECOND, TOKENS_PER_SECOND, CHUNK_S = 2, 100, 25, 2
PATCH, MERGE = 14, 2
CASES = (("omnidrop", 1.0), ("omnidrop", 0.3), ("omnidrop", 0.2), ("omnizip", 0.3), ("dash", 0.3))
SWEEP_S = (30, 60, 120, 240, 480, 900, 1800)


@dataclass(frozen=True)
class Clip:
    """Random pixels (F, H, W, 3) uint8 and log-mel (bins, frames) float32."""

    frames: np.ndarray
    mel: np.ndarray

    @classmethod
    def of(cls, seconds: int, frames: int, height: int, width: int) -> "Clip":
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (frames, height, width, 3), np.uint8)
        return cls(pixels, random.standard_normal((128, seconds * MEL_PER_SECOND), np.float32))

    @property
    def grids(self) -> int:
        return len(self.frames) // 2

    @property
    def tokens_per_grid(self) -> int:
        return self.frames.shape[1] * self.frames.shape[2] // (PATCH * MERGE) ** 2

    @property
    def audio(self) -> int:
        return self.mel.shape[1] * TOKENS_PER_SECOND // MEL_PER_SECOND


class Marks:
    """Moments on the device: CUDA events where there are some, else the wall clock."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._names: list[str] = []
        self._moments: list[Any] = []

    def mark(self, name: str) -> None:
        """What came since the mark before was `name`."""
        moment: Any = time.perf_counter()
        if self._cuda:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._names.append(name)
        self._moments.append(moment)

    def seconds(self) -> dict[str, float]:
        """Seconds by name, once the device has done all of it; the first mark's name is not among them."""
        if self._cuda:
            torch.cuda.synchronize()
        total: dict[str, float] = {}
        pairs = zip(self._moments[:-1], self._moments[1:], self._names[1:], strict=True)
        for before, after, name in pairs:
            took = before.elapsed_time(after) / 1e3 if self._cuda else after - before
            total[name] = total.get(name, 0.0) + took
        return total


class Model:
    """A Thinker of random weights, and omniqa's drivers around it."""

    def __init__(self, shape: str, device: torch.device, dtype: torch.dtype, attention: str) -> None:
        name = SHAPES[shape]
        make = Qwen2_5OmniThinkerConfig
        self.config = make(
            text_config=TEXT[name] | {"rope_parameters": ROPE | {"mrope_section": MROPE_SECTION[name]}},
            vision_config=VISION[name] | {"out_hidden_size": TEXT[name]["hidden_size"]},
            audio_config=AUDIO[name] | {"output_dim": TEXT[name]["hidden_size"]},
            pad_token_id=0,
        )
        with torch.device(device):
            module = Qwen2_5OmniThinkerForConditionalGeneration._from_config(self.config, dtype=dtype)
        self.module = module.to(device).eval().requires_grad_(False)
        inner = module.model if hasattr(module.model, "language_model") else None  # transformers after 5.17
        self.text = inner.language_model if inner else module.model
        self.visual = inner.visual if inner else module.visual
        self.tower = inner.audio_tower if inner else module.audio_tower
        self.device, self.dtype = device, dtype
        self.attention = select_attention(attention, device, dtype)
        self.vision_encoder = VisionEncoder(self.visual, self.attention)
        self.audio_encoder = AudioEncoder(self.tower, self.attention)
        self.decoder = Decoder(self.text, module.lm_head, self.attention)

    @property
    def layers(self) -> int:
        return len(self.text.layers)

    @property
    def weight_bytes(self) -> int:
        return _bytes(self.module.parameters())

    @property
    def step_bytes(self) -> int:
        """The weights that a decoding step reads: the decoder's layers and the head."""
        return _bytes(self.text.layers.parameters()) + _bytes(self.module.lm_head.parameters())


def _bytes(tensors: Any) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


# --- floors ---


def shape_of(model: Model) -> ModelShape:
    """What the model's work is counted by."""
    return ModelShape.of_config(read_config(json.loads(model.config.to_json_string()))[1])


def copy_rate(model: Model) -> float:
    """Measured bytes a second that are read and written by a copy, best of ten."""
    size = 2**30 if model.device.type == "cuda" else 2**22
    x = torch.zeros(size, dtype=torch.uint8, device=model.device)
    y = torch.empty_like(x)
    return 2 * size / _fastest(model.device, lambda: y.copy_(x))


def _fastest(device: torch.device, action: Callable[[], object]) -> float:
    action()
    seconds = []
    for _ in range(10):
        marks = Marks(device)
        marks.mark("start")
        action()
        marks.mark("run")
        seconds.append(marks.seconds()["run"])
    return min(seconds)


# --- one run ---


@dataclass
class Run:
    """What one run took. lengths: tokens in each decoder layer, text included. cache_bytes: what the cache holds."""

    seconds: dict[str, float]
    lengths: list[int] = field(default_factory=list)
    cache_bytes: int = 0
    step_s: float | None = None
    allocated: int | None = None
    reserved: int | None = None


def run_omniqa(model: Model, clip: Clip, pruner: AnyMethod, new_tokens: int) -> Run:
    """Encoders, input pruning, prefill and `new_tokens` steps."""
    marks = Marks(model.device)
    marks.mark("start")
    video = model.vision_encoder.encode(clip.frames).flatten(0, 1)
    marks.mark("vision")
    sound = model.audio_encoder.encode(clip.mel)
    marks.mark("audio")
    signal = pruner.need(AudioAttention)
    chunk, modality = layout(clip, model.device)
    received = sound.attention_received(signal.scope) if signal else None
    tokens = MediaTokens(modality, chunk, clip.tokens_per_grid, video, sound.embeddings, received)
    plan = pruner.plan(tokens.counts, model.layers)
    prompt = make_prompt(model, tokens, pruner.prune_input(tokens, plan))
    marks.mark("input pruning")
    cache = KVCache(model.layers, new_tokens)

    def layer_done(share: float) -> None:
        number = round(share * model.layers) - 1
        marks.mark(group_name(model.layers, number))

    model.decoder.prefill(prompt, pruner, plan, cache, layer_done)
    lengths = list(cache.lengths)
    seconds = marks.seconds()
    return Run(seconds, lengths, cache.bytes, decode(model, cache, new_tokens))


def layout(clip: Clip, device: torch.device) -> tuple[Tensor, Tensor]:
    """Chunk and modality of each audio and video token in sequence order, chunk by chunk."""
    seconds = clip.mel.shape[1] / MEL_PER_SECOND
    grid = (torch.arange(clip.grids) * (seconds / clip.grids) / CHUNK_S).long().repeat_interleave(clip.tokens_per_grid)
    sound = torch.arange(clip.audio) // (TOKENS_PER_SECOND * CHUNK_S)
    chunk = torch.cat([grid, sound])
    modality = torch.tensor([IS_VIDEO, IS_AUDIO]).repeat_interleave(torch.tensor([len(grid), len(sound)]))
    order = chunk.argsort(stable=True)
    return chunk[order].to(device), modality[order].to(device)


def make_prompt(model: Model, tokens: MediaTokens, kept: Kept) -> PrefillInput:
    """The prompt with random text around what enters."""
    device = model.device
    keep, embeddings = interleave(kept, tokens)
    text = torch.randn(HEAD + TAIL, embeddings.shape[1], device=device, dtype=embeddings.dtype) * 0.02
    places = torch.arange(HEAD + len(tokens.modality) + TAIL, device=device)
    end = HEAD + len(tokens.modality)
    places = torch.cat([places[:HEAD], HEAD + keep, places[end:]])
    return PrefillInput(
        embeddings=torch.cat([text[:HEAD], embeddings, text[HEAD:]]),
        positions=places.expand(3, -1),
        media=slice(HEAD, HEAD + len(keep)),
        question=torch.arange(-TAIL + 4, -8, device=device),
        index=keep,
        modality=tokens.modality,
        chunk=tokens.chunk,
        max_chunk=int(tokens.chunk.max()),
    )


def group_name(layers: int, number: int) -> str:
    """The group that layer `number` is timed with."""
    bounds = [layers * group // GROUPS for group in range(GROUPS + 1)]
    group = next(group for group in range(GROUPS) if number < bounds[group + 1])
    return f"layers {bounds[group]}-{bounds[group + 1] - 1}"


def decode(model: Model, cache: KVCache, new_tokens: int) -> float:
    """Seconds of a step, of those after a graph would have been captured."""
    position = max(cache.lengths)
    steps, marks = DecodeStep(model.decoder, cache, position), Marks(model.device)
    warm = min(CAPTURE_AFTER + 2, new_tokens // 2)
    for count in range(new_tokens):
        if count == warm:
            marks.mark("start")
        int(steps(count).argmax())  # as generate does: the next token is known before its step
    marks.mark("steps")
    return marks.seconds()["steps"] / (new_tokens - warm)


def run_transformers(model: Model, clip: Clip, implementation: str) -> Run:
    """transformers' encoders, decoder and head with all tokens, as its own forward runs them."""
    model.module.set_attn_implementation(implementation)
    device, dtype = model.device, model.dtype
    frames = torch.from_numpy(clip.frames)
    rows, cols = frames.shape[1] // PATCH, frames.shape[2] // PATCH
    grid = torch.tensor([[clip.grids, rows, cols]], device=device)
    patches = torch.cat([patchify(part.float() / 255).flatten(0, 2).to(dtype) for part in frames.split(64)])
    mel, length = torch.from_numpy(clip.mel), torch.tensor([clip.mel.shape[1]], device=device)
    _, modality = layout(clip, device)
    marks = Marks(device)
    marks.mark("start")
    video = model.visual(patches.to(device), grid_thw=grid).pooler_output
    marks.mark("vision")
    sound = model.tower(mel.to(device, dtype), feature_lens=length).last_hidden_state
    marks.mark("audio")
    tokens = MediaTokens(modality, torch.zeros_like(modality).long(), clip.tokens_per_grid, video, sound)
    prompt = make_prompt(model, tokens, Kept())
    x, positions = prompt.embeddings[None], prompt.positions[:, None]
    out = model.text(inputs_embeds=x, position_ids=positions, use_cache=True).last_hidden_state
    model.module.lm_head(out[:, -1])
    marks.mark("decoder")
    return Run(marks.seconds(), [x.shape[1]] * model.layers)


# --- many runs ---


@dataclass
class Line:
    """A case and its runs. note: why there are none, or that the retention is another than was asked for."""

    name: str
    action: Callable[[], Run]
    note: str = ""
    runs: list[Run] = field(default_factory=list)

    def run(self, device: torch.device, count: bool) -> None:
        """Once more; a case that has run out of memory is not run again."""
        if self.note == OUT_OF_MEMORY:
            return
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            run = self.action()
        except torch.OutOfMemoryError:
            self.note = OUT_OF_MEMORY
            self.runs.clear()
            return
        if device.type == "cuda":
            run = replace(
                run,
                allocated=torch.cuda.max_memory_allocated(device),
                reserved=torch.cuda.max_memory_reserved(device),
            )
        if count:
            self.runs.append(run)


OUT_OF_MEMORY = "out of memory"


def our_line(model: Model, clip: Clip, method: str, retention: float, new_tokens: int) -> Line:
    """A case of omniqa, at the nearest retention where the asked one is out of the method's reach."""
    line = Line(f"{method} {retention:g}", lambda: Run({}))
    pruner = registry.create(method, retention)

    def action() -> Run:
        nonlocal pruner
        try:
            return run_omniqa(model, clip, pruner, new_tokens)
        except Unreachable as error:
            pruner = registry.create(method, error.nearest)
            line.note = f"at {error.nearest:.3f}, the nearest it reaches"
        return run_omniqa(model, clip, pruner, new_tokens)

    line.action = action
    return line


def their_lines(model: Model, clip: Clip) -> Iterator[Line]:
    """transformers with each of its implementations that can run here."""
    from transformers.utils import is_flash_attn_2_available

    names = ["sdpa"]
    if model.device.type == "cuda" and is_flash_attn_2_available():
        names.append("flash_attention_2")
    for name in names:
        yield Line(f"transformers, {name}", lambda name=name: run_transformers(model, clip, name))


def measure(model: Model, lines: Sequence[Line], repeats: int, warmup: int) -> None:
    """All lines in turn, so that a slow minute of the machine hits all alike."""
    for number in range(warmup + repeats):
        for line in lines:
            line.run(model.device, count=number >= warmup)


def summary(model: Model, clip: Clip, line: Line, rates: dict[str, float]) -> dict[str, Any]:
    """A line as JSON: medians, floors and ratios."""
    base = {"name": line.name, "note": line.note}
    if not line.runs:
        return base
    first, shape = line.runs[0], shape_of(model)
    seconds = {name: statistics.median(run.seconds[name] for run in line.runs) for name in first.seconds}
    total = statistics.median(sum(run.seconds.values()) for run in line.runs)
    floors = {
        "vision": shape.vision_encoder(clip.grids, clip.tokens_per_grid) / rates["matmul"],
        "audio": shape.audio_encoder(clip.mel.shape[1]) / rates["matmul"],
        "decoder": shape.prefill(first.lengths) / rates["matmul"],
    }
    decoder = sum(value for name, value in seconds.items() if name.startswith(("layers", "decoder")))
    spent = {"vision": seconds["vision"], "audio": seconds["audio"], "decoder": decoder}
    n = clip.grids * clip.tokens_per_grid + clip.audio
    result = base | {
        "retention": sum(length - HEAD - TAIL for length in first.lengths) / (len(first.lengths) * n),
        "seconds": seconds,
        "total_s": total,
        "floor_s": floors | {"total": sum(floors.values())},
        "ratio": {name: spent[name] / floors[name] for name in spent} | {"total": total / sum(floors.values())},
        "allocated_bytes": first.allocated,
        "reserved_bytes": first.reserved,
        "required_bytes": model.weight_bytes + first.cache_bytes,
        "tokens_in_layers": first.lengths,
    }
    if first.step_s is not None:
        step = statistics.median(run.step_s for run in line.runs if run.step_s is not None)
        floor = (model.step_bytes + first.cache_bytes) / rates["copy"]
        result["decoding"] = {"tokens_per_s": 1 / step, "floor_tokens_per_s": 1 / floor, "share": floor / step}
    return result


def measure_shape(shape: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything of one shape."""
    device = torch.device(arguments.device)
    model = Model(shape, device, torch.bfloat16, arguments.attention)
    rates = {"matmul": matmul_rate(model.dtype, model.device), "copy": copy_rate(model)}
    tiny = shape == "tiny"
    height, width = (56, 84) if tiny else (252, 448)
    clips = (
        {"128 frames": (8, 8), "768 frames": (12, 24)} if tiny else {"128 frames": (64, 128), "768 frames": (384, 768)}
    )
    tables: dict[str, Any] = {}
    for name, (seconds, frames) in clips.items():
        clip = Clip.of(seconds, frames, height, width)
        lines = [*their_lines(model, clip), *(our_line(model, clip, *case, arguments.new_tokens) for case in CASES)]
        measure(model, lines, arguments.repeats, arguments.warmup)
        tables[f"{frames} frames" if tiny else name] = [summary(model, clip, line, rates) for line in lines]
    return {
        "shape": shape,
        "attention": model.attention.title,
        "weight_bytes": model.weight_bytes,
        "rates": rates,
        "tables": tables,
        "sweep": sweep(model, rates, height, width, (4, 8) if tiny else SWEEP_S, arguments),
    }


def sweep(
    model: Model,
    rates: dict[str, float],
    height: int,
    width: int,
    lengths: Sequence[int],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Longer and longer clips at R = 0.3, to the first that does not fit."""
    rows = []
    for seconds in lengths:
        clip = Clip.of(seconds, seconds * FPS, height, width)
        line = our_line(model, clip, "omnidrop", 0.3, arguments.new_tokens)
        measure(model, [line], max(1, arguments.repeats // 3), min(1, arguments.warmup))
        rows.append({"clip_s": seconds} | summary(model, clip, line, rates))
        if line.note == OUT_OF_MEMORY:
            break
    return rows


# --- reports ---


def report(result: dict[str, Any]) -> None:
    """Markdown tables."""
    rates = result["rates"]
    print(
        f"\n## {result['shape']}\n\n{result['attention']}; matrix rate {rates['matmul'] / 1e12:.3g} TFLOP/s, copying "
        f"{rates['copy'] / 1e9:.4g} GB/s; weights {result['weight_bytes'] / 1e9:.4g} GB."
    )
    for name, rows in result["tables"].items():
        print(f"\n### {name}\n")
        _table([("", row) for row in rows], "")
    print("\n### Longer clips, omnidrop 0.3\n")
    _table([(f"{row['clip_s']} s", row) for row in result["sweep"]], " clip |")


def _table(rows: Sequence[tuple[str, dict[str, Any]]], first: str) -> None:
    print(
        f"|{first} case | R | vision s | audio s | input pruning s | decoder s | total s | floor s | ratio | tokens/s "
        "| of its floor | allocated GB | reserved GB | required GB |"
    )
    print("|" + "---|" * (first.count("|") + 1) + "---:|" * 12)
    for label, row in rows:
        start = f"| {label} | {row['name']}" if first else f"| {row['name']}"
        start += f" ({row['note']})" if row["note"] else ""
        if "seconds" not in row:
            print(f"{start} |" + " |" * 12)
            continue
        seconds, decoding = row["seconds"], row.get("decoding")
        decoder = sum(value for name, value in seconds.items() if name.startswith(("layers", "decoder")))
        cells = [f"{row['retention']:.3f}"]
        cells += [f"{x:.4g}" for x in (seconds["vision"], seconds["audio"], seconds.get("input pruning", 0.0), decoder)]
        cells += [f"{row['total_s']:.4g}", f"{row['floor_s']['total']:.4g}", f"{row['ratio']['total']:.2f}"]
        cells += [f"{decoding['tokens_per_s']:.4g}", f"{decoding['share']:.0%}"] if decoding else ["", ""]
        held = (row["allocated_bytes"], row["reserved_bytes"], row["required_bytes"])
        cells += ["" if x is None else f"{x / 1e9:.4g}" for x in held]
        print(f"{start} | {' | '.join(cells)} |")


def save_plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """A row a shape: the first clip's stages by case with their floors; time and memory of longer clips."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5 * len(results)), layout="constrained")
    for (stages, longer), result in zip(figure.subplots(len(results), 2, squeeze=False), results, strict=True):
        rows = [row for row in next(iter(result["tables"].values())) if "seconds" in row]
        names = [row["name"] for row in rows]
        left = np.zeros(len(rows))
        for stage in dict.fromkeys(name for row in rows for name in row["seconds"]):
            width = np.array([row["seconds"].get(stage, 0.0) for row in rows])
            stages.barh(names, width, left=left, label=stage)
            left += width
        stages.plot([row["floor_s"]["total"] for row in rows], names, "k|", markersize=18, label="floor")
        stages.set(xlabel="seconds to the first token", title=result["shape"])
        stages.invert_yaxis()
        stages.legend(fontsize="x-small")
        done = [row for row in result["sweep"] if "seconds" in row]
        minutes = [row["clip_s"] / 60 for row in done]
        longer.plot(minutes, [row["total_s"] for row in done], "o-", label="seconds")
        longer.plot(minutes, [row["floor_s"]["total"] for row in done], "--", label="floor, seconds")
        longer.set(xlabel="clip, minutes", ylabel="seconds", title="omnidrop, R = 0.3")
        memory = longer.twinx()
        held = [(row["allocated_bytes"] or row["required_bytes"]) / 1e9 for row in done]
        memory.plot(minutes, held, "s:", color="tab:red", label="GB")
        memory.set(ylabel="GB", ylim=(0, None))
        longer.legend(fontsize="x-small")
    figure.savefig(path, dpi=150)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), action="append", help="default: 7b and 3b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--attention", choices=("auto", "flash", "sdpa"), default="auto")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=64, help="decoding steps of every run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args(given)

    torch.manual_seed(0)
    results = []
    with torch.inference_mode():
        for shape in arguments.shape or ["7b", "3b"]:
            results.append(measure_shape(shape, arguments))
            report(results[-1])
            if arguments.json:  # after every shape: what is measured is not lost
                where = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "cpu"
                record = {"device": where, "torch": torch.__version__, "results": results}
                arguments.json.write_text(json.dumps(record, indent=1))
    if arguments.plot:
        save_plot(results, arguments.plot)


if __name__ == "__main__":
    main()
