"""What a model needs, what fits a machine, and which model is taken if the user names none. Free of torch.

Every number follows from the sizes of what omniqa allocates; docs/memory.md has them beside measured runs.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from omniqa.errors import OutOfMemoryError
from omniqa.media.sampling import ClipOptions
from omniqa.memory import MORE_MEMORY
from omniqa.models.families import HUB_3B, HUB_7B, KNOWN_LAYERS, ModelShape
from omniqa.pipeline.token_estimate import HELD_WHOLE, tokens_of
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens, Plan
from omniqa.pruning.vision_rule import VisionRule
from omniqa.runtime.device import devices_of, split_layers
from omniqa.runtime.machine import Machine

GIB = 2**30
TEXT_TOKENS = 60  # system prompt, template and a short question
NEW_TOKENS = 128  # room for the answer
METHOD, RETENTION = "omnidrop", 0.3
CLIP_SECONDS, CLIP_SIZE = 60, (720, 1280)  # what is meant by "a one-minute clip"
LONGEST = 24 * 3600  # seconds that are looked for at most

_LIBRARIES = round(0.55 * GIB)  # resident code and data of torch, transformers, PyAV and librosa
_CUDA_CONTEXT = round(0.6 * GIB)  # what a process takes of a GPU before its first tensor; not measured here
_ITEM_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
_SCORES = {"cpu": 2**22, "cuda": 2**26}  # float32 attention probabilities held at once
_PATCHES = {"cpu": 2048, "cuda": 8192}  # that the vision encoder takes together
_BITS = {"int8": 8.0, "fp8": 8.0, "nf4": 4.5}  # of a weight, nf4's scales included
_SHORTER = ("a lower {max_frames} or {max_pixels} for long clips",)


@dataclass(frozen=True)
class Need:
    """Bytes that a model takes with a clip, at its peak.

    Attributes:
        weights: the Thinker's.
        kv_cache: keys and values of all layers, room for the answer included.
        activations: the most that stands between weights and cache at a time, the clip's embeddings included.
        overhead: libraries, or a GPU's context.
    """

    weights: int
    kv_cache: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.activations + self.overhead


@dataclass(frozen=True)
class ModelRequest:
    """What a user asks for, as far as memory depends on it.

    Attributes:
        model: a hub id, a folder or nano; None leaves it to omniqa.
        device: auto, cpu, cuda, cuda:N or several as cuda:0,cuda:1.
        dtype: auto, bfloat16 or float32.
        quantize: int8, fp8 or nf4; None for weights of dtype.
    """

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None


ANYTHING = ModelRequest()


@dataclass(frozen=True)
class Choice:
    """A model, and where it runs.

    Attributes:
        model: as it is named to `omniqa.load`.
        device: cpu, cuda, cuda:N or several as cuda:0,cuda:1.
        need: what it takes with a one-minute clip at the default options.
        free: bytes free there; None if nobody knows that device yet.
        warning: set if only the weights are sure to fit.
    """

    model: str
    device: str
    need: Need
    free: int | None
    warning: OutOfMemoryError | None = None

    @property
    def fits(self) -> bool:
        """Whether a one-minute clip fits."""
        return self.free is None or self.need.total <= self.free

    @property
    def weights_fit(self) -> bool:
        """Whether at least the weights do."""
        return self.free is None or self.need.weights <= self.free


def choose(machine: Machine, request: ModelRequest = ANYTHING) -> Choice:
    """The model and the device to use: the first that fits, of those that the user's words allow.

    Without a model: the 7B on the GPU, the 3B there, the 3B on the CPU. What the user names stays.

    Raises:
        OutOfMemoryError: not even the weights fit anywhere.
        ModelError: there is no such model.
    """
    choice = pick(machine, request)
    if not choice.weights_fit:
        raise OutOfMemoryError(_shortage(choice), advice=advice(machine, choice, request))
    return choice


def pick(machine: Machine, request: ModelRequest = ANYTHING) -> Choice:
    """The same, but where nothing fits, what needs least is given with a warning.

    Raises:
        ModelError: there is no such model.
    """
    options = [
        _option(machine, replace(request, model=model, device=device))
        for model, device in _candidates(machine, request)
    ]
    for option in options:
        if option.fits:
            return option
    option = next((option for option in options if option.weights_fit), options[-1])
    says = _shortage(option) if not option.weights_fit else _tight(option)
    warning = OutOfMemoryError(says, advice=advice(machine, option, request, _SHORTER))
    return replace(option, warning=warning)


def require_weights(machine: Machine, request: ModelRequest, size: int) -> None:
    """Make sure that weights of `size` bytes, as their files have them, fit where they go.

    Raises:
        OutOfMemoryError: they don't.
    """
    tried = _option(machine, request)
    tried = replace(tried, need=replace(tried.need, weights=size))
    if not tried.weights_fit:
        raise OutOfMemoryError(_shortage(tried), advice=advice(machine, tried, request))


def need(
    shape: ModelShape,
    plan: Plan,
    device: str = "cpu",
    dtype: str = "auto",
    quantize: str | None = None,
    rule: VisionRule | None = None,
) -> Need:
    """What a model takes for a clip that is pruned as planned.

    Args:
        shape: the model's sizes.
        plan: tokens by layer.
        device: as of Choice. On several, each has what its layers need, and a context.
        dtype: auto (as stored), bfloat16 or float32.
        quantize: as of ModelRequest.
        rule: the method's, if it prunes inside the vision encoder.
    """
    kind, count = device.partition(":")[0], len(devices_of(device))
    item = _item_bytes(shape, dtype)
    rows = [count + TEXT_TOKENS for count in plan.kept]
    upcasted = kind == "cpu" and item == 2  # products of bfloat16 are computed in float32 on most CPUs
    layer = _prefill(shape, rows, item, upcasted, kind)
    scratch = 0 if _is_int8_products(quantize, kind) else _scratch(shape, item, upcasted, quantize)
    encoder = _vision(shape, plan.clip, item, upcasted, kind, rule)
    return Need(
        weights=weight_bytes(shape, item, quantize, kind),
        kv_cache=sum(row + NEW_TOKENS for row in rows) * 2 * shape.kv_width * item,
        activations=_held(shape, plan, item, rule) + max(encoder, layer) + scratch + (count - 1) * (layer + scratch),
        overhead=_LIBRARIES if kind == "cpu" else count * _CUDA_CONTEXT,
    )


def layer_counts(shape: ModelShape, dtype: str, quantize: str | None, free: Sequence[int]) -> list[int]:
    """How many of a model's layers each of several GPUs gets, in a row: the first has the encoders, too.

    Args:
        shape: the model's sizes.
        dtype: auto (as stored), bfloat16 or float32.
        quantize: as of ModelRequest.
        free: bytes that each GPU has.
    """
    item = _item_bytes(shape, dtype)
    bits = _decoder_bits(shape, quantize, "cuda")
    layers = shape.decoder_parameters * (item if bits is None else bits / 8)
    others = weight_bytes(shape, item, quantize, "cuda") - layers
    return split_layers(shape.layers, layers / shape.layers, others, free)


def longest_clip(fits: Callable[[int], bool], most: int = LONGEST) -> int:
    """The longest clip that fits, in seconds: 0 if none of a second does, `most` if one of that length does.

    Args:
        fits: whether a clip of so many seconds does; if one does, shorter ones do.
        most: seconds.
    """
    return bisect_left(range(1, most + 1), True, key=lambda seconds: not fits(seconds))


def weight_bytes(shape: ModelShape, item: int, quantize: str | None = None, kind: str = "cpu") -> int:
    """Bytes of the weights in memory.

    Args:
        shape: the model's sizes.
        item: bytes of a weight that stays a float.
        quantize: as of ModelRequest; a scale for each output is too little to count.
        kind: cpu or cuda.
    """
    bits = _decoder_bits(shape, quantize, kind)
    if bits is None:
        return shape.parameters * item
    stored = shape.quantization
    head = shape.head_parameters if stored is None and _is_int8_products(quantize, kind) else 0
    encoders = head > 0 if stored is None else not stored.decoder_only
    quantized = shape.linear_parameters if encoders else shape.decoder_parameters
    floats = shape.parameters - quantized - (0 if shape.tied else head)  # embeddings stay as they are
    return floats * item + round((quantized + head) * bits / 8)


def _decoder_bits(shape: ModelShape, quantize: str | None, kind: str) -> float | None:
    """Bits of a weight of the decoder's layers; None if they stay floats."""
    if shape.quantization is not None:
        return shape.quantization.bits(kind == "cuda")
    return _BITS[quantize] if quantize else None


def _is_int8_products(quantize: str | None, kind: str) -> bool:
    """Whether bytes are multiplied, those of encoders and `lm_head` too; others are dequantised for each product."""
    return quantize == "int8" and kind == "cpu"


@lru_cache
def minute(layers: int) -> Plan:
    """The plan for one minute of HD video with sound, at the default options, in a decoder of `layers` layers."""
    clip = tokens_of(CLIP_SIZE, CLIP_SECONDS, CLIP_SECONDS, ClipOptions())
    plan: Plan = registry.create(METHOD, RETENTION).plan(clip, layers)
    return plan


def requirements() -> dict[tuple[str, str], Need]:
    """What the published models need for a one-minute clip, by model and device (cuda, cpu)."""
    found = {}
    for model, device in product((HUB_7B, HUB_3B), ("cuda", "cpu")):
        shape = ModelShape.of(model)
        found[model, device] = need(shape, minute(shape.layers), device)
    return found


def advice(machine: Machine, tried: Choice, request: ModelRequest = ANYTHING, smaller_clip: Sequence[str] = ()) -> str:
    """What to do if `tried` has too little memory: only what was not done already, and what would fit.

    Args:
        machine: what is free.
        tried: what was to be used, or ran out of memory.
        request: as the user gave it.
        smaller_clip: advice that would make the clip smaller, if its weights fit.

    Returns:
        A sentence in the form of an error's advice, with options in braces.
    """
    ways = _ways(machine, tried, request)
    if smaller_clip and tried.weights_fit:
        ways += smaller_clip
    if not ways:
        return MORE_MEMORY
    return f"Use {', or '.join(ways)}."


def in_gib(size: int) -> str:
    """A size in words: "8.8 GiB"."""
    return f"{size / GIB:.1f} GiB"


def place(device: str) -> str:
    """Whose memory a device has, in words."""
    if device == "cpu":
        return "in this machine's memory"
    return "on the GPU" if len(devices_of(device)) == 1 else "on the GPUs"


def _candidates(machine: Machine, request: ModelRequest) -> Iterator[tuple[str, str]]:
    """Models and devices in the order in which they are tried."""
    has_gpu = machine.gpu_free_bytes is not None
    if request.device != "auto":
        devices = [request.device]
    else:
        devices = [*(["cuda"] if has_gpu else []), "cpu"]
    for device in devices:
        if request.model is not None:
            yield request.model, device
        elif device == "cpu":
            yield HUB_3B, device
        else:
            yield from ((HUB_7B, device), (HUB_3B, device))


def _option(machine: Machine, request: ModelRequest) -> Choice:
    """What a request, whose model and device are named, takes."""
    shape, device = ModelShape.of(str(request.model)), request.device
    taken = need(shape, minute(shape.layers), device, request.dtype, request.quantize)
    return Choice(str(request.model), device, taken, machine.free_on(device))


def _ways(machine: Machine, tried: Choice, request: ModelRequest) -> list[str]:
    """Options that make room with the fewest changes to what was tried."""
    asked = replace(request, model=tried.model, device=tried.device)
    sizes, devices, precisions = [("", asked.model)], [("", asked.device)], [("", asked.dtype, asked.quantize)]
    smaller = need(ModelShape.of(HUB_3B), minute(KNOWN_LAYERS[HUB_3B]), tried.device, asked.dtype, asked.quantize)
    if smaller.weights < tried.need.weights:
        sizes.append((f'{{model="{HUB_3B}"}}', HUB_3B))
    if tried.device != "cpu":
        devices.append(('{device="cpu"}', "cpu"))
    if asked.dtype == "float32":
        precisions.append(('{dtype="bfloat16"}', "bfloat16", asked.quantize))
    found: dict[int, list[str]] = {}
    for (size, model), (where, device), (precision, dtype, quantize) in product(sizes, devices, precisions):
        words = [word for word in (size, where, precision) if word]
        if words and _option(machine, ModelRequest(model, device, dtype, quantize)).fits:
            found.setdefault(len(words), []).append(" ".join(words))
    return found[min(found)] if found else []


def _shortage(option: Choice) -> str:
    free = in_gib(option.free or 0)
    return (
        f"{option.model} needs {in_gib(option.need.weights)} for its weights alone, {in_gib(option.need.total)} with "
        f"a one-minute clip, and {free} are free {place(option.device)}."
    )


def _tight(option: Choice) -> str:
    return (
        f"{option.model} needs {in_gib(option.need.total)} with a one-minute clip, and {in_gib(option.free or 0)} are "
        f"free {place(option.device)}."
    )


def _item_bytes(shape: ModelShape, dtype: str) -> int:
    """Bytes of a weight once it is loaded; float16 is loaded as bfloat16."""
    return _ITEM_BYTES.get(shape.stored if dtype == "auto" else dtype, 4)


def _held(shape: ModelShape, plan: Plan, item: int, rule: VisionRule | None) -> int:
    """The encoded clip, as it waits for questions, and what enters layer 0 of it."""
    clip, entering = plan.clip, plan.kept[0]
    embedded = (_video_held(shape, clip, rule, entering) + clip.n_audio) * shape.width
    return (embedded + entering * shape.width) * item + shape.audio_importance_bytes(clip.n_audio, item)


def _video_held(shape: ModelShape, clip: ClipTokens, rule: VisionRule | None, most: int) -> int:
    """Video tokens of the encoded clip: all; of a long one, at `most` those that the input level keeps.

    What a rule drops inside the vision encoder is never made.
    """
    if rule is not None and shape.early_block(rule) is not None:
        return sum(rule.counts(clip.grids, clip.tokens_per_grid))
    return clip.n_video if clip.n_video <= HELD_WHOLE else min(clip.n_video, most)


def _vision(shape: ModelShape, clip: ClipTokens, item: int, upcasted: bool, kind: str, rule: VisionRule | None) -> int:
    """The vision encoder's largest moment: a batch of grids in it, or all parts made one."""
    if not clip.grids:
        return 0
    joined = _video_held(shape, clip, rule, HELD_WHOLE) * shape.width * item
    return max(shape.vision_bytes(clip, item, upcasted, _PATCHES[kind], rule), joined)


def _prefill(shape: ModelShape, rows: list[int], item: int, upcasted: bool, kind: str) -> int:
    """The largest moment of a layer: its MLP, or scores of the question's rows; hidden states beside either.

    Args:
        rows: tokens, text included, of each layer. Those that leave after a layer leave before its MLP.
    """
    most = rows[1] if len(rows) > 1 else 1
    # In float32: gate's result in its own dtype, up's in float32 and then in its own. Else: gate, up, their product.
    mlp = most * shape.mlp * (8 if upcasted else 3 * item)
    states = (4 * most + rows[0]) * shape.width * item  # input, attention's result, sum, norm; and the queries
    scores = 3 * 4 * min(_SCORES[kind], TEXT_TOKENS * shape.heads * rows[0]) + 4 * shape.kv_width * rows[0]
    return states + max(mlp, scores)


def _scratch(shape: ModelShape, item: int, upcasted: bool, quantize: str | None) -> int:
    """Room for the largest weights that are upcast or dequantised for a product."""
    merged, decoder = 4 * shape.vision["hidden_size"], shape.mlp * shape.width
    encoders = max(merged * merged, merged * shape.width)
    if quantize:
        return 4 * (decoder + encoders) if upcasted else decoder * item
    return 4 * max(decoder, encoders) if upcasted else 0
