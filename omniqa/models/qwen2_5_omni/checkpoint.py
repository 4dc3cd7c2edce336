"""Finding a Qwen2.5-Omni checkpoint and checking it, before a single weight is read.

Only the Thinker is needed. Of a hub checkpoint, only the shards that hold a `thinker.*` tensor are downloaded,
and of those only the Thinker's tensors are read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

from omniqa.errors import ModelError
from omniqa.models.hub import CONFIG, HUB_3B, HUB_7B, NANO, ModelFiles, cached, check_name, files_of
from omniqa.models.qwen2_5_omni.config import (
    END_TOKENS,
    THINKER,
    ThinkerConfig,
    as_ids,
    find_quantization,
    read_config,
)
from omniqa.models.qwen2_5_omni.geometry import GEOMETRY
from omniqa.models.qwen2_5_omni.preprocessor import check_preprocessor, read_pixel_bounds
from omniqa.models.qwen2_5_omni.tensors import (
    FLOATS,
    Shape,
    StoredTensor,
    group_by_layer,
    read_header,
    stray_layer,
    thinker_tensors,
)
from omniqa.models.qwen2_5_omni.tokenizer import TOKENIZERS
from omniqa.models.reading import read_json
from omniqa.models.stored_quantization import StoredQuantization, require_packages, require_packed
from omniqa.typed_json import WrongEntry, entry, mapping_of, optional, quotable, record, text

__all__ = [
    "HUB_3B", "HUB_7B", "NANO", "THINKER", "Checkpoint", "cached", "check_name", "decoder_layers", "find_checkpoint",
    "pixel_bounds", "read_header", "thinker_config",
]  # fmt: skip

KNOWN_LAYERS = {HUB_7B: 28, HUB_3B: 36}

PREPROCESSOR = "preprocessor_config.json"
PIXEL_BOUNDS = "video_preprocessor_config.json"
GENERATION = "generation_config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CARD = "README.md"
_WEIGHT = ".weight"
_OPTIONAL = (PREPROCESSOR, PIXEL_BOUNDS, GENERATION)  # small files that a checkpoint may lack


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that has been checked.

    name: what the user called it.
    folder: where its files are.
    config: the Thinker's configuration.
    end_tokens: ids that end an answer, as its files say.
    tensors: the Thinker's tensors, hub name → shard file.
    elements: how many numbers they hold together.
    stored_bytes: their size as stored.
    added: tensors that stand among the Thinker's without being its own, hub name → shard file: networks that were
        trained beside it.
    float32: whether its floats are stored as float32 or wider.
    quantization: how its weights are quantised; None if all are floats.
    packed: names, without the hub's prefix, of the layers whose weights are.
    """

    name: str
    folder: Path
    config: ThinkerConfig
    end_tokens: frozenset[int]
    tensors: dict[str, Path]
    elements: int
    stored_bytes: int
    added: dict[str, Path]
    float32: bool = False
    quantization: StoredQuantization | None = None
    packed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Generation:
    """generation_config.json."""

    eos_token_id: int | tuple[int, ...] | None = entry(END_TOKENS, None)


@dataclass(frozen=True)
class _Stored:
    """The dtype in config.json."""

    dtype: str | None = entry(optional(text), None, ("torch_dtype",))


def _shard_name(value: object) -> str:
    """Reads the name of a file beside the index: nothing that leads elsewhere."""
    if (
        not isinstance(value, str)
        or not value.endswith(".safetensors")
        or value.startswith(".")
        or not PurePosixPath(value).name == PureWindowsPath(value).name == value
    ):
        shown = f'"{quotable(value)}"' if isinstance(value, str) else "no text"
        raise WrongEntry(f"is {shown}, not the name of a safetensors file in the folder")
    return value


@dataclass(frozen=True)
class _Index:
    """model.safetensors.index.json: the shard of each tensor."""

    weight_map: dict[str, str] = entry(mapping_of(_shard_name))


def decoder_layers(model: str) -> int:
    """Decoder layers of a model, from its configuration alone; the two on the hub are known without it.

    Raises ModelError as find_checkpoint does.
    """
    if model in KNOWN_LAYERS:
        return KNOWN_LAYERS[model]
    return thinker_config(model).text_config.num_hidden_layers


def thinker_config(model: str) -> ThinkerConfig:
    """The Thinker's part of a model's configuration. Raises ModelError as find_checkpoint does."""
    return read_json(model, _required(model, files_of(model), CONFIG), read_config)[1]


def stored_dtype(model: str) -> str:
    """torch's name of the dtype that the configuration says the weights are stored as; bfloat16 if it says nothing.

    Raises ModelError as find_checkpoint does.
    """
    said = read_json(model, _required(model, files_of(model), CONFIG), record(_Stored)).dtype
    return said or "bfloat16"


def stored_quantization(model: str) -> StoredQuantization | None:
    """How the configuration says that the weights are quantised; None if they are not. Raises ModelError."""
    return read_json(model, _required(model, files_of(model), CONFIG), find_quantization)


def pixel_bounds(model: str) -> tuple[int, int]:
    """Fewest and most pixels of a frame: the model's own, as transformers reads them, or the published models'.

    Raises:
        ModelError: a file is malformed.
    """
    path = files_of(model).here(PIXEL_BOUNDS)
    return GEOMETRY.pixel_bounds if path is None else read_json(model, path, read_pixel_bounds)


DOWNLOADING = "downloading"  # how a step begins that does


def find_checkpoint(
    model: str,
    on_step: Callable[[str], None] = lambda step: None,
    before_download: Callable[[str, list[str]], None] = lambda model, shards: None,
) -> Checkpoint:
    """Resolve a folder or a hub id (from the local cache, or downloaded) and check it.

    Args:
        on_step: gets the name of each step that may take long, as it begins.
        before_download: gets the model and the shards that have to be downloaded, if any; what it raises ends the
            search.

    Raises:
        ModelError: there is no such model, it has another architecture, or files are missing, cut short or malformed.
    """
    on_step(f"looking up {model}")
    files = files_of(model)
    optional = files.here if files.here(CONFIG) else files.find  # what was downloaded earlier needs no network
    path = _required(model, files, CONFIG)
    prefix, config = read_json(model, path, read_config)
    quantization = read_json(model, path, find_quantization)
    if quantization is not None:
        require_packages(model, quantization)
    read: dict[str, Path] = {file: found for file in _OPTIONAL if (found := optional(file))}
    if PREPROCESSOR in read:
        read_json(model, read[PREPROCESSOR], check_preprocessor)
    if PIXEL_BOUNDS in read:
        read_json(model, read[PIXEL_BOUNDS], read_pixel_bounds)
    generation = read_json(model, read[GENERATION], record(_Generation)) if GENERATION in read else _Generation()
    shards, stored = _stored_tensors(model, files, prefix, on_step, before_download)
    _fetch_tokenizer(model, files)
    own = _own_tensors(model, config, shards, stored, quantization is not None)
    if quantization is not None:
        require_packed(model, quantization, own.packed)
    floats = [stored[tensor] for tensor in own.plain]
    taken = own.names
    return Checkpoint(
        name=model,
        folder=path.parent,
        config=config,
        end_tokens=config.end_tokens | as_ids(generation.eos_token_id),
        tensors={tensor: shards[tensor] for tensor in taken},
        elements=sum(prod(shape) for _, shape in thinker_tensors(config)),
        stored_bytes=sum(stored[tensor].stored_bytes for tensor in taken),
        added={tensor: shard for tensor, shard in shards.items() if tensor not in taken},
        float32=sum(one.stored_bytes for one in floats) >= 4 * sum(one.elements for one in floats),
        quantization=quantization,
        packed=frozenset(own.packed),
    )


def _required(name: str, files: ModelFiles, file: str) -> Path:
    path = files.find(file)
    if path is None:
        raise ModelError(f"{name} lacks {file}. Download the checkpoint again; omniqa reads safetensors only.")
    return path


def _stored_tensors(
    name: str,
    files: ModelFiles,
    prefix: str,
    on_step: Callable[[str], None],
    before_download: Callable[[str, list[str]], None],
) -> tuple[dict[str, Path], dict[str, StoredTensor]]:
    """The Thinker's tensors, and those that stand among them: the shard of each, and what its header says."""
    shard_of = _shards(name, files, prefix)
    shards: dict[str, Path] = {}
    wanted = sorted(set(shard_of.values()))
    absent = [shard for shard in wanted if not files.here(shard)]
    if absent:
        files.find(CARD)  # which names the licence; a model may have none
        before_download(name, absent)
    for number, shard in enumerate(wanted, 1):
        if not files.here(shard):
            on_step(f"{DOWNLOADING} shard {number} of {len(wanted)} of {name}")
        shards[shard] = _required(name, files, shard)
    headers = {shard: read_header(name, path) for shard, path in shards.items()}
    for tensor, shard in shard_of.items():
        if tensor not in headers[shard]:
            raise ModelError(f"{name}: {shard} lacks the tensor {quotable(tensor)} that the index puts there.")
    return (
        {tensor: shards[shard] for tensor, shard in shard_of.items()},
        {tensor: headers[shard][tensor] for tensor, shard in shard_of.items()},
    )


def _shards(name: str, files: ModelFiles, prefix: str) -> dict[str, str]:
    """The Thinker's tensors, and those that stand among them, name → shard file name."""
    index = files.here(INDEX) or (None if files.here(SINGLE) else files.find(INDEX))
    if index is not None:
        weight_map = read_json(name, index, record(_Index)).weight_map
    else:
        weight_map = dict.fromkeys(read_header(name, _required(name, files, SINGLE)), SINGLE)
    thinker = {tensor: shard for tensor, shard in weight_map.items() if tensor.startswith(prefix)}
    if not thinker:
        raise ModelError(f"{name} holds no {prefix}* tensors: it is not a whole Qwen2.5-Omni checkpoint.")
    return thinker


@dataclass(frozen=True)
class _OwnTensors:
    """The Thinker's tensors by their names in the files.

    plain: floats of the shapes that the configuration asks for.
    packed: what stands for the weights of quantised layers, by the layer's name without the hub's prefix.
    """

    plain: list[str]
    packed: dict[str, list[str]]

    @property
    def names(self) -> dict[str, None]:
        """All of them, in order."""
        return dict.fromkeys([*self.plain, *(name for names in self.packed.values() for name in names)])


def _own_tensors(
    name: str, config: ThinkerConfig, shards: dict[str, Path], stored: dict[str, StoredTensor], quantized: bool
) -> _OwnTensors:
    """The tensors that the configuration asks for.

    Raises:
        ModelError: one is missing, of another shape, or neither of floats nor quantised.
    """
    named = {
        tensor.removeprefix(THINKER): tensor for tensor in stored
    }  # a Thinker saved alone may have the prefix, too
    wanted = dict(thinker_tensors(config))
    packed = _packed_tensors(wanted, {bare: stored[tensor] for bare, tensor in named.items()}) if quantized else {}
    own = _OwnTensors([], {layer: [named.pop(bare) for bare in names] for layer, names in packed.items()})
    for bare, shape in wanted.items():
        if bare.removesuffix(_WEIGHT) in packed:
            continue
        tensor = named.pop(bare, None)
        if tensor is None:
            raise ModelError(f"{name} lacks the tensor {bare}, which {CONFIG} asks for.")
        found, shard = stored[tensor], shards[tensor].name
        if found.shape != shape:
            raise ModelError(
                f"{name}: the weights do not fit the configuration: in {shard}, {tensor} is {list(found.shape)}, not "
                f"{list(shape)}."
            )
        if found.dtype not in FLOATS:
            raise ModelError(f"{name}: {shard}: {tensor} is stored as {found.dtype}; omniqa reads {', '.join(FLOATS)}.")
        own.plain.append(tensor)
    stray = stray_layer(named)
    if stray is not None:
        raise ModelError(f"{name} holds the tensor {quotable(stray)}, a layer that {CONFIG} does not have.")
    return own


def _packed_tensors(wanted: Mapping[str, Shape], stored: Mapping[str, StoredTensor]) -> dict[str, list[str]]:
    """The tensors of each layer whose weight is stored as something else than floats of its shape.

    Each format has names of its own for them; transformers checks that they are all there.
    """
    matrices = {bare.removesuffix(_WEIGHT): bare for bare, shape in wanted.items() if len(shape) == 2}
    groups = group_by_layer(set(stored) - (set(wanted) - set(matrices.values())), matrices)
    return {
        layer: sorted(names)
        for layer, names in groups.items()
        if names and not _is_plain(names, stored, matrices[layer], wanted[matrices[layer]])
    }


def _is_plain(names: Sequence[str], stored: Mapping[str, StoredTensor], weight: str, shape: Shape) -> bool:
    """Whether the tensors of a layer, but for a bias, are its weight alone, as floats."""
    return list(names) == [weight] and stored[weight].dtype in FLOATS and stored[weight].shape == shape


def _fetch_tokenizer(name: str, files: ModelFiles) -> None:
    """Make sure that the tokenizer's files are on disk: one self-contained file, or the older pair."""
    if not any(all(files.find(file) for file in kind) for kind in TOKENIZERS):
        raise ModelError(f"{name} has no tokenizer ({' or '.join(' with '.join(kind) for kind in TOKENIZERS)}).")
