"""Finding a Qwen2.5-Omni checkpoint and checking it, before a single weight is read.

Only the Thinker is needed. Of a hub checkpoint, only the shards that hold a `thinker.*` tensor are downloaded,
and of those only the Thinker's tensors are read.
"""

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omniqa.errors import ModelError, OutOfMemoryError
from omniqa.media.sampling import PIXELS
from omniqa.sequence.units import POSITIONS_PER_SECOND, SECONDS_PER_CHUNK

HUB_7B = "Qwen/Qwen2.5-Omni-7B"
HUB_3B = "Qwen/Qwen2.5-Omni-3B"
KNOWN_LAYERS = {HUB_7B: 28, HUB_3B: 36}
NANO = "nano"  # the checkpoint that comes with the package
_NANO_FOLDER = Path(__file__).parents[1] / "nano" / "checkpoint"
# The 7B Thinker is 17.9 GB in bfloat16; the rest is room for activations and the KV cache of a long clip.
GPU_BYTES_FOR_7B = 22 * 1024**3

PIXEL_BOUNDS = "video_preprocessor_config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZERS = (("tokenizer.json", "tokenizer_config.json"), ("vocab.json", "merges.txt", "tokenizer_config.json"))
THINKER = "thinker."  # what the names of its tensors begin with, in a Thinker saved alone by transformers too
_PARTS = ("model.", "visual.", "audio_tower.", "lm_head.")  # its own tensors, after that
ARCHITECTURES = {"qwen2_5_omni": THINKER, "qwen2_5_omni_thinker": ""}
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that has been checked.

    name: what the user called it.
    folder: where its files are.
    tensors: the Thinker's tensors, hub name → shard file.
    elements: how many numbers they hold together.
    stored_bytes: their size as stored.
    added: tensors that stand among the Thinker's without being its own, hub name → shard file: networks that were
        trained beside it.
    """

    name: str
    folder: Path
    tensors: dict[str, Path]
    elements: int
    stored_bytes: int
    added: dict[str, Path]


def default_model(gpu_bytes: int | None) -> str:
    """The hub id to use where the user names none: 7B on a GPU (`gpu_bytes` in all) that fits it, else 3B."""
    return HUB_7B if gpu_bytes is not None and gpu_bytes >= GPU_BYTES_FOR_7B else HUB_3B


def cached(model: str) -> bool:
    """Whether the hub's local cache holds (at least the configuration of) `model`."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)


def _is_here(model: str, file: str) -> bool:
    """Whether a file of a model needs no download."""
    if _folder(model) is not None:
        return True
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, file), str)


def decoder_layers(model: str) -> int:
    """Decoder layers of a model, from its configuration alone; the two on the hub are known without it.

    Raises ModelError as find_checkpoint does.
    """
    if model in KNOWN_LAYERS:
        return KNOWN_LAYERS[model]
    return thinker_config(model)["text_config"]["num_hidden_layers"]


def thinker_config(model: str) -> dict[str, Any]:
    """The Thinker's part of a model's configuration. Raises ModelError as find_checkpoint does."""
    config = _read_json(model, _locator(model), "config.json")
    _check_architecture(model, config)
    return config.get("thinker_config", config)


def pixel_bounds(model: str) -> tuple[int, int]:
    """Fewest and most pixels of a frame: a folder's own, as transformers reads them, or the published models'.

    Raises ModelError for a file that is not JSON.
    """
    folder = _folder(model)
    if folder is None or not (folder / PIXEL_BOUNDS).exists():
        return PIXELS
    size = _read_json(model, _locator(model), PIXEL_BOUNDS).get("size", {})
    return size.get("shortest_edge", PIXELS[0]), size.get("longest_edge", PIXELS[1])


def find_checkpoint(model: str, on_step: Callable[[str], None] = lambda step: None) -> Checkpoint:
    """Resolve a folder or a hub id (from the local cache, or downloaded) and check it.

    on_step: gets the name of each step that may take long, as it begins.

    Raises ModelError where there is no such model, it has another architecture, or files are missing or cut short.
    """
    on_step(f"looking up {model}")
    locate = _locator(model)
    return _check(model, _located(model, locate, "config.json").parent, locate, on_step)


def check_name(model: str) -> None:
    """Raise ModelError unless `model` is a folder, NANO, or looks like a hub id."""
    if _folder(model) is None and not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise ModelError(f"There is no folder {model}, and it is not a hub id such as {HUB_7B}.")


def _folder(model: str) -> Path | None:
    folder = _NANO_FOLDER if model == NANO else Path(model).expanduser()
    return folder if folder.is_dir() else None


def _locator(model: str) -> Callable[[str], Path]:
    """How to find a file of `model`, a folder or a hub id."""
    check_name(model)
    folder = _folder(model)
    if folder is not None:
        return lambda name: folder / name
    return lambda name: _hub_file(model, name)


def require_memory(checkpoint: Checkpoint, item_bytes: int, available: int, where: str) -> None:
    """Raise OutOfMemoryError if the weights, at `item_bytes` a number, exceed the `available` bytes."""
    needed = checkpoint.elements * item_bytes
    if needed > available:
        raise OutOfMemoryError(
            f"{checkpoint.name} needs {needed / 1e9:.1f} GB for its weights and {available / 1e9:.1f} GB are free "
            f"on the {where}. Use a smaller model, --dtype bfloat16, or another --device."
        )


def _hub_file(repo: str, name: str) -> Path:
    """The file from the hub's local cache, downloaded first where it is not there."""
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its retries; what comes of them is told below
    cached = try_to_load_from_cache(repo, name)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(repo, name))
    except errors.GatedRepoError as error:
        raise ModelError(f"{repo} is gated: accept its terms on the hub and log in with `hf auth login`.") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"The hub has no model {repo} (or it is private: log in with `hf auth login`).") from error
    except errors.RemoteEntryNotFoundError as error:
        raise FileNotFoundError(f"the hub's {repo} has no such file") from error
    except OSError as error:  # no network, offline mode, a server's error: all of them are
        raise ModelError(
            f"{repo} is not in the local cache and can't be downloaded ({type(error).__name__}). "
            f"Connect to the network once, or give --model a folder."
        ) from error


def _check(name: str, folder: Path, locate: Callable[[str], Path], on_step: Callable[[str], None]) -> Checkpoint:
    prefix = _check_architecture(name, _read_json(name, locate, "config.json"))
    shard_of = _shards(name, locate, prefix)
    shards: dict[str, Path] = {}
    for number, shard in enumerate(wanted := sorted(set(shard_of.values())), 1):
        if not _is_here(name, shard):
            on_step(f"downloading shard {number} of {len(wanted)} of {name}")
        shards[shard] = _located(name, locate, shard)
    headers = {shard: read_header(name, path) for shard, path in shards.items()}
    missing = [tensor for tensor, shard in shard_of.items() if tensor not in headers[shard]]
    if missing:
        raise ModelError(f"{name}: {shard_of[missing[0]]} lacks the tensor {missing[0]} that the index puts there.")
    _fetch_tokenizer(name, locate)
    own = {tensor: shard for tensor, shard in shard_of.items() if tensor.removeprefix(THINKER).startswith(_PARTS)}
    sizes = [_size(headers[shard][tensor]) for tensor, shard in own.items()]
    return Checkpoint(
        name=name,
        folder=folder,
        tensors={tensor: shards[shard] for tensor, shard in own.items()},
        elements=sum(elements for elements, _ in sizes),
        stored_bytes=sum(stored for _, stored in sizes),
        added={tensor: shards[shard] for tensor, shard in shard_of.items() if tensor not in own},
    )


def _check_architecture(name: str, config: dict[str, Any]) -> str:
    """Check the configuration; give the prefix of the Thinker's tensors."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ModelError(f"{name} is a {kind or 'model of unknown type'}; omniqa runs Qwen2.5-Omni (qwen2_5_omni).")
    if "quantization_config" in config:
        raise ModelError(f"{name} is quantised, which omniqa can't run yet. Use the bfloat16 checkpoint.")
    thinker = config.get("thinker_config", config)
    clock = (thinker.get("position_id_per_seconds", 25), thinker.get("seconds_per_chunk", 2))
    if clock != (POSITIONS_PER_SECOND, SECONDS_PER_CHUNK):
        raise ModelError(f"{name} counts {clock[0]} positions a second in chunks of {clock[1]} s, not 25 in 2 s.")
    return ARCHITECTURES[kind]


def _shards(name: str, locate: Callable[[str], Path], prefix: str) -> dict[str, str]:
    """The Thinker's tensors, and those that stand among them, name → shard file name."""
    try:
        weight_map = _read_json(name, locate, INDEX)["weight_map"]
    except FileNotFoundError:
        header = read_header(name, _located(name, locate, SINGLE))
        weight_map = dict.fromkeys(header, SINGLE)
    thinker = {tensor: shard for tensor, shard in weight_map.items() if tensor.startswith(prefix)}
    if not thinker:
        raise ModelError(f"{name} holds no {prefix}* tensors: it is not a whole Qwen2.5-Omni checkpoint.")
    return thinker


def _located(name: str, locate: Callable[[str], Path], file: str) -> Path:
    try:
        path = locate(file)
        if path.exists():
            return path
    except FileNotFoundError as error:
        raise ModelError(f"{name} lacks {file}: {error}.") from error
    raise ModelError(f"{name} lacks {file}. Download the checkpoint again; omniqa reads safetensors only.")


def _fetch_tokenizer(name: str, locate: Callable[[str], Path]) -> None:
    """Make sure that the tokenizer's files are on disk: one self-contained file, or the older pair."""
    for files in TOKENIZERS:
        try:
            if all(locate(file).exists() for file in files):
                return
        except FileNotFoundError:
            continue  # this checkpoint has the other set, or none
    raise ModelError(f"{name} has no tokenizer ({' or '.join(' with '.join(files) for files in TOKENIZERS)}).")


def _read_json(name: str, locate: Callable[[str], Path], file: str) -> dict[str, Any]:
    """Read a JSON file. Raises FileNotFoundError for a missing index, ModelError otherwise."""
    try:
        text = (locate(file) if file == INDEX else _located(name, locate, file)).read_text(encoding="utf-8")
        return json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{name}: {file} is not valid JSON. Download the checkpoint again.") from error


def read_header(name: str, path: Path) -> dict[str, Any]:
    """Read a safetensors header: tensor → dtype, shape, offsets. Raises ModelError if the file is cut short."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= size - 8:
            raise ModelError(f"{name}: {path.name} is not a safetensors file, or is cut short. Download it again.")
        try:
            header = json.loads(file.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ModelError(f"{name}: {path.name} has a broken header. Download it again.") from error
    header.pop("__metadata__", None)
    end = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    if size < end:
        raise ModelError(f"{name}: {path.name} has {size} of {end} bytes: it is cut short. Download it again.")
    return header


def _size(tensor: dict[str, Any]) -> tuple[int, int]:
    """Elements and stored bytes of a tensor, from its header entry."""
    stored = tensor["data_offsets"][1] - tensor["data_offsets"][0]
    if tensor["dtype"] not in ITEM_BYTES:
        raise ModelError(f"Weights are stored as {tensor['dtype']}; omniqa reads {', '.join(ITEM_BYTES)}.")
    return stored // ITEM_BYTES[tensor["dtype"]], stored
