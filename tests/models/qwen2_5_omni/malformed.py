"""Kinds of malformed checkpoint, five variants or more each: what is done to a folder that is otherwise in order.

The folder is a copy of the small checkpoint, whose files may be links: an edit writes a new file in place of one.
"""

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Edit = Callable[[Path], None]
CONFIG, INDEX, TOKENIZER = "config.json", "model.safetensors.index.json", "tokenizer.json"
TOKENIZER_CONFIG, PREPROCESSOR = "tokenizer_config.json", "preprocessor_config.json"
PIXELS, GENERATION = "video_preprocessor_config.json", "generation_config.json"
GONE = object()
TEXT, VISION, AUDIO = (("thinker_config", f"{part}_config") for part in ("text", "vision", "audio"))
ROPE = (*TEXT, "rope_parameters")
DEEP = b"[" * 100_000


def write(folder: Path, name: str, content: bytes) -> None:
    """Write a new file, never through a link."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content)


def put(file: str, *path: Any) -> Edit:
    """Set an entry of a JSON file, named by its path; the last of `path` is the value, or GONE."""
    *names, last, value = path

    def edit(folder: Path) -> None:
        whole = inner = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        for name in names:
            inner = inner[name]
        if value is GONE:
            del inner[last]
        else:
            inner[last] = value
        write(folder, file, json.dumps(whole).encode())

    return edit


def all_of(*edits: Edit) -> Edit:
    """Make several edits, one after the other."""

    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


def text(file: str, *contents: bytes) -> list[Edit]:
    """Write each of the contents in place of a file."""
    return [lambda folder, content=content: write(folder, file, content) for content in contents]


def cut(file: str, *shares: float) -> list[Edit]:
    """Keep so much of a file."""

    def edit(folder: Path, share: float) -> None:
        content = (folder / file).read_bytes()
        write(folder, file, content[: int(share * len(content))])

    return [lambda folder, share=share: edit(folder, share) for share in shares]


def shard_of(folder: Path) -> Path:
    """The shard of the first tensor of the Thinker."""
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    return folder / weight_map[min(name for name in weight_map if name.startswith("thinker."))]


def shard_bytes(change: Callable[[bytes], bytes]) -> Edit:
    """Change the bytes of a shard."""

    def edit(folder: Path) -> None:
        shard = shard_of(folder)
        write(folder, shard.name, change(shard.read_bytes()))

    return edit


def header(change: Callable[[dict[str, Any], str], Any]) -> Edit:
    """Change the header of a shard, and with it nothing else: `change` gets it and a tensor's name."""

    def edited(content: bytes) -> bytes:
        length = struct.unpack("<Q", content[:8])[0]
        tensors = json.loads(content[8 : 8 + length])
        changed = change(tensors, min(name for name in tensors if name.startswith("thinker.")))
        encoded = json.dumps(tensors if changed is None else changed).encode()
        return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]

    return shard_bytes(edited)


def entry(**values: Any) -> Edit:
    """Change entries of one tensor in a shard's header."""
    return header(lambda tensors, name: tensors[name].update(values))


def offsets(change: Callable[[int, int], Any]) -> Edit:
    """Change one tensor's place."""
    return header(lambda tensors, name: tensors[name].update(data_offsets=change(*tensors[name]["data_offsets"])))


def header_length(length: int) -> Edit:
    """Claim another length of the header."""
    return shard_bytes(lambda content: struct.pack("<Q", length) + content[8:])


def added_token(wanted: str, **values: Any) -> Edit:
    """Change a token that tokenizer.json adds."""

    def edit(folder: Path) -> None:
        whole = json.loads((folder / TOKENIZER).read_text())
        next(token for token in whole["added_tokens"] if token["content"] == wanted).update(values)
        write(folder, TOKENIZER, json.dumps(whole).encode())

    return edit


def index(change: Callable[[dict[str, str], str], Any]) -> Edit:
    """Change the index: `change` gets the weight map and the first of the Thinker's tensors."""

    def edit(folder: Path) -> None:
        whole = json.loads((folder / INDEX).read_text())
        weight_map = whole["weight_map"]
        change(weight_map, min(name for name in weight_map if name.startswith("thinker.")))
        write(folder, INDEX, json.dumps(whole).encode())

    return edit


def shard_name(name: Any) -> Edit:
    """Say that a tensor is in another file."""
    return index(lambda weight_map, tensor: weight_map.update({tensor: name}))


def older_pair(
    vocab: Callable[[dict[str, int]], Any] = lambda vocab: vocab,
    merges: bytes = b"#version: 0.2\n",
    added: Callable[[dict[str, Any]], Any] = lambda added: added,
) -> Edit:
    """Lay the tokenizer out as the older pair of files, with changes."""

    def edit(folder: Path) -> None:
        whole = json.loads((folder / TOKENIZER).read_text())
        config = json.loads((folder / TOKENIZER_CONFIG).read_text())
        decoder = {str(token.pop("id")): token for token in whole["added_tokens"]}
        config["added_tokens_decoder"] = added(decoder)
        (folder / TOKENIZER).unlink()
        write(folder, "vocab.json", json.dumps(vocab(whole["model"]["vocab"])).encode())
        write(folder, "merges.txt", merges)
        write(folder, TOKENIZER_CONFIG, json.dumps(config).encode())

    return edit


def sparse(file: str) -> Edit:
    """Lay the tokenizer out as the older pair, with a file that claims a terabyte."""

    def edit(folder: Path) -> None:
        older_pair()(folder)
        os.truncate(folder / file, 2**40)

    return edit


def fifo(file: str) -> Edit:
    """Put a pipe in place of a file."""

    def edit(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return edit


def link(file: str, target: str) -> Edit:
    """Put a link in place of a file."""

    def edit(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return edit


def folder_for(file: str) -> Edit:
    """Put a folder in place of a file."""

    def edit(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).mkdir()

    return edit


def bind_socket(folder: Path) -> None:
    """Put a socket in place of the configuration."""
    (folder / CONFIG).unlink()
    before = os.getcwd()
    os.chdir(folder)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(CONFIG)
    finally:
        os.chdir(before)


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An object without one entry."""
    return lambda whole: {key: value for key, value in whole.items() if key != name}


def special_gone(text: str) -> Edit:
    """Leave a special token out of tokenizer.json."""

    def edit(folder: Path) -> None:
        whole = json.loads((folder / TOKENIZER).read_text())
        whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] != text]
        write(folder, TOKENIZER, json.dumps(whole).encode())

    return edit


def first_two_overlap(tensors: dict[str, Any], _: str) -> None:
    """Let the second tensor of a shard begin where the first does."""
    first, second = sorted(
        (name for name in tensors if name != "__metadata__"), key=lambda n: tensors[n]["data_offsets"]
    )[:2]
    size = tensors[second]["data_offsets"][1] - tensors[second]["data_offsets"][0]
    start = tensors[first]["data_offsets"][0]
    tensors[second]["data_offsets"] = [start, start + size]


# By kind: what every message of it names, and the edits.
KINDS: dict[str, tuple[str, list[Edit]]] = {
    "config that is no object": (CONFIG, text(CONFIG, b"null", b"[]", b"3", b'"text"', b"true")),
    "config that is no JSON": (CONFIG, text(CONFIG, b"", b"{", b"\xff\xfe{}", b'{"a": NaN}', DEEP)),
    "config nested or long without end": (
        CONFIG,
        text(
            CONFIG,
            b'{"a":' * 50_000,
            b'{"a":' * 200 + b"1" + b"}" * 200,
            b'{"thinker_config": ' + b"9" * 5000 + b"}",
            b" " * (2**24 + 1),
            b'{"a": "\\ud800"}',
        ),
    ),
    "parts that are no objects": (
        CONFIG,
        [put(CONFIG, *TEXT, None), put(CONFIG, *TEXT, []), put(CONFIG, *VISION, "x"), put(CONFIG, *AUDIO, 3),
         put(CONFIG, *TEXT, GONE), put(CONFIG, "thinker_config", None), put(CONFIG, "thinker_config", [])],
    ),
    "counts of nothing": (
        CONFIG,
        [put(CONFIG, *TEXT, "num_attention_heads", 0), put(CONFIG, *TEXT, "num_key_value_heads", 0),
         put(CONFIG, *VISION, "num_heads", -1), put(CONFIG, *AUDIO, "encoder_attention_heads", 0),
         put(CONFIG, *TEXT, "num_hidden_layers", 0), put(CONFIG, *VISION, "window_size", 0)],
    ),
    "heads that do not divide": (
        CONFIG,
        [put(CONFIG, *TEXT, "num_attention_heads", 3), put(CONFIG, *TEXT, "num_key_value_heads", 3),
         put(CONFIG, *VISION, "num_heads", 7), put(CONFIG, *AUDIO, "encoder_attention_heads", 5),
         put(CONFIG, *TEXT, "head_dim", 48), put(CONFIG, *VISION, "num_heads", 32)],
    ),
    "activations that nobody knows": (
        CONFIG,
        [put(CONFIG, *TEXT, "hidden_act", "swiglu9"), put(CONFIG, *TEXT, "hidden_act", None),
         put(CONFIG, *TEXT, "hidden_act", 3), put(CONFIG, *VISION, "hidden_act", "tanh"),
         put(CONFIG, *AUDIO, "activation_function", ["gelu"])],
    ),
    "depths without end": (
        CONFIG,
        [put(CONFIG, *TEXT, "num_hidden_layers", 10**6), put(CONFIG, *TEXT, "num_hidden_layers", 10**30),
         put(CONFIG, *TEXT, "num_hidden_layers", 513), put(CONFIG, *VISION, "depth", 10**9),
         put(CONFIG, *AUDIO, "encoder_layers", 10**6)],
    ),
    "sizes without end": (
        CONFIG,
        [put(CONFIG, *TEXT, "hidden_size", 2**40), put(CONFIG, *TEXT, "intermediate_size", 10**18),
         put(CONFIG, *TEXT, "vocab_size", 10**12), put(CONFIG, *AUDIO, "d_model", 2**31),
         put(CONFIG, *AUDIO, "max_source_positions", 10**9)],
    ),
    "sizes that are no whole numbers": (
        CONFIG,
        [put(CONFIG, *TEXT, "hidden_size", value) for value in (128.5, "128", True, None, [128])]
        + [put(CONFIG, *TEXT, "hidden_size", float(value)) for value in ("nan", "inf")],
    ),
    "numbers out of range": (
        CONFIG,
        [put(CONFIG, *TEXT, "rms_norm_eps", -1), put(CONFIG, *TEXT, "rms_norm_eps", 1e300),
         put(CONFIG, *ROPE, "rope_theta", 0), put(CONFIG, *ROPE, "rope_theta", "1e6"),
         put(CONFIG, *TEXT, "initializer_range", 10**400)],
    ),
    "rope scaling that omniqa has not": (
        CONFIG,
        [put(CONFIG, *ROPE, "rope_type", kind) for kind in ("yarn", "linear", "dynamic", "llama3", "longrope")]
        + [put(CONFIG, *ROPE, "partial_rotary_factor", 0.5)],
    ),
    "sections of a head that do not add up": (
        CONFIG,
        [put(CONFIG, *ROPE, "mrope_section", value) for value in ([1, 1, 1], [4, 6], [-4, 10, 10], "16", None, GONE)]
        + [put(CONFIG, *ROPE, GONE)],
    ),
    "other models": (
        CONFIG,
        [put(CONFIG, "model_type", value) for value in ("llama", None, ["qwen2_5_omni"], GONE)]
        + [all_of(put(CONFIG, "quantization_config", {"quant_method": "awq"}), put(CONFIG, "model_type", "qwen2_vl"))],
    ),
    "quantised in name only": (
        CONFIG,
        [put(CONFIG, "quantization_config", {"quant_method": method})
         for method in ("awq", "gptq", "fp8", "torchao", "bitsandbytes")]
        + [put(CONFIG, *place, "quantization_config", {"quant_method": "fp8"}) for place in (TEXT[:1], TEXT)]
        + [put(CONFIG, "quantization_config", value)
           for value in ({"quant_method": "abacus"}, {"load_in_8bit": True}, {}, "awq", {"quant_method": "x" * 10**6})],
    ),
    "token ids": (
        "",  # one of them fits the file, but not the tokenizer
        [put(CONFIG, "thinker_config", "audio_token_index", value) for value in (-1, 10**12, "x", None, 0)],
    ),
    "other geometry": (
        CONFIG,
        [put(CONFIG, "thinker_config", "position_id_per_seconds", 30), put(CONFIG, *VISION, "patch_size", 16),
         put(CONFIG, *AUDIO, "num_mel_bins", 80), put(CONFIG, *AUDIO, "n_window", 50),
         put(CONFIG, *TEXT, "use_sliding_window", True), put(CONFIG, *VISION, "out_hidden_size", 64),
         put(CONFIG, *TEXT, "layer_types", ["sliding_attention"] * 6)],
    ),
    "configurations that the weights do not fit": (
        "",
        [put(CONFIG, *TEXT, "intermediate_size", 264), put(CONFIG, *TEXT, "vocab_size", 384),
         put(CONFIG, *TEXT, "num_hidden_layers", 7), put(CONFIG, *TEXT, "num_hidden_layers", 5),
         put(CONFIG, *VISION, "depth", 5), put(CONFIG, *AUDIO, "encoder_ffn_dim", 64)],
    ),
    "preprocessors": (
        PREPROCESSOR,
        [*text(PREPROCESSOR, b"[]", b"{", b'{"image_mean": [NaN, 0, 0]}'), put(PREPROCESSOR, "image_mean", None),
         put(PREPROCESSOR, "sampling_rate", 8000), put(PREPROCESSOR, "max_pixels", -1),
         put(PREPROCESSOR, "image_std", [1, 1, 1])],
    ),
    "bounds of a frame": (
        PIXELS,
        [put(PIXELS, "size", value) for value in ([], 3, {"shortest_edge": 0}, {"longest_edge": "x"})]
        + [put(PIXELS, "size", {"shortest_edge": 10**6, "longest_edge": 10**5}), *text(PIXELS, b"nul")],
    ),
    "generation settings": (
        GENERATION,
        [*text(GENERATION, b"[]", b'{"eos_token_id":'), put(GENERATION, "eos_token_id", "x"),
         put(GENERATION, "eos_token_id", -1), put(GENERATION, "eos_token_id", []),
         put(GENERATION, "eos_token_id", [[1]])],
    ),
    "index": (
        INDEX,
        [*text(INDEX, b"null", b"{}", b'{"weight_map": []}', b'{"weight_map"', b'{"weight_map": {"thinker.x": 3}}')],
    ),
    "shards that are elsewhere": (
        INDEX,
        [shard_name(name) for name in ("/etc/a.safetensors", "../a.safetensors", "a/../b.safetensors", "", "passwd",
                                       "C:\\a.safetensors", ".a.safetensors")],
    ),
    "tensors that are missing": (
        "",
        [shard_name("model-00099-of-00099.safetensors"),
         index(lambda weight_map, tensor: weight_map.pop(tensor)),
         index(lambda weight_map, tensor: weight_map.update({"thinker.none": weight_map[tensor]})),
         index(lambda weight_map, tensor: [weight_map.pop(name) for name in [*weight_map]]),
         lambda folder: shard_of(folder).unlink(),
         header(lambda tensors, name: tensors.update({"thinker.renamed": tensors.pop(name)}))],
    ),
    "length of a header": (
        ".safetensors",
        [header_length(0), header_length(2**63), header_length(2**40), header_length(1),
         shard_bytes(lambda content: content[:7]), shard_bytes(lambda content: b"")],
    ),
    "header that is no header": (
        ".safetensors",
        [header(lambda tensors, name: []), header(lambda tensors, name: tensors.update({name: None})),
         header(lambda tensors, name: tensors[name].pop("dtype") and None),
         header(lambda tensors, name: {"a": tensors} | dict.fromkeys("bcd", 1)),
         shard_bytes(lambda content: struct.pack("<Q", len(DEEP)) + DEEP)],
    ),
    "places of tensors": (
        ".safetensors",
        [offsets(lambda start, end: [end, start]), offsets(lambda start, end: [start, 2**60]),
         offsets(lambda start, end: [-1, end]), offsets(lambda start, end: [start, end - 4]),
         offsets(lambda start, end: [float(start), end]), offsets(lambda start, end: [start]),
         offsets(lambda start, end: None), header(first_two_overlap)],
    ),
    "types and shapes of tensors": (
        ".safetensors",
        [entry(dtype="F99"), entry(dtype="I32"), entry(dtype="F16"), entry(dtype=None), entry(shape=[2**62, 2**62]),
         entry(shape=[-1, -1]), entry(shape=[1]), entry(shape="x"), entry(shape=[1] * 40)],
    ),
    "shards that are cut short or too long": (
        ".safetensors",
        [shard_bytes(lambda content, share=share: content[: int(share * len(content))]) for share in (0.1, 0.5, 0.999)]
        + [shard_bytes(lambda content: content + b"x"), shard_bytes(lambda content: content[:-1])],
    ),
    "tokenizer that is no JSON": (
        TOKENIZER, [*cut(TOKENIZER, 0, 0.3, 0.999), *text(TOKENIZER, b"\xff", DEEP)],
    ),
    "tokenizer that is no tokenizer": (
        TOKENIZER,
        [*text(TOKENIZER, b"null", b"[]", b"{}"), put(TOKENIZER, "model", []),
         put(TOKENIZER, "model", "type", "Unigram")],
    ),
    "vocabulary": (
        TOKENIZER,
        [put(TOKENIZER, "model", "vocab", value) for value in ([], {"a": "x"}, {"a": -1}, {"a": 1, "b": 1}, {"a": 1})]
        + [put(TOKENIZER, "model", "vocab", "beyond", 320)],
    ),
    "merges": (
        TOKENIZER,
        [put(TOKENIZER, "model", "merges", value)
         for value in (3, ["a"], [["a", "b", "c"]], [[1, 2]], [["a", "b"]], ["a "])],
    ),
    "special tokens": (
        "",
        [special_gone("<|AUDIO|>"), special_gone("<|im_end|>"), added_token("<|VIDEO|>", special=False),
         added_token("<|VIDEO|>", id=10), added_token("<|VIDEO|>", id=319), added_token("<|VIDEO|>", id=None),
         added_token("<|AUDIO|>", content="<|OTHER|>"), put(TOKENIZER, "added_tokens", {})],
    ),
    "tokenizer's settings": (
        TOKENIZER_CONFIG,
        [put(TOKENIZER_CONFIG, "tokenizer_class", value) for value in ("EvilTokenizer", "BertTokenizer", 3)]
        + [*text(TOKENIZER_CONFIG, b"[]", b"{"), put(TOKENIZER_CONFIG, "add_prefix_space", "x"),
           put(TOKENIZER_CONFIG, "eos_token", 3), put(TOKENIZER_CONFIG, "model_max_length", -1)],
    ),
    "older tokenizer files": (
        "",
        [older_pair(vocab=lambda vocab: [*vocab]), older_pair(vocab=without("a")), older_pair(merges=b"\xff"),
         older_pair(merges=b"a b c\n"), sparse("merges.txt"), older_pair(added=without("259")),
         older_pair(added=lambda added: {"x": added["259"]}), older_pair(added=lambda added: [*added])],
    ),
    "what is no file": (
        "",
        [fifo(CONFIG), fifo(INDEX), fifo(TOKENIZER), fifo(TOKENIZER_CONFIG), fifo(PREPROCESSOR), fifo(GENERATION),
         fifo(PIXELS), lambda folder: fifo(shard_of(folder).name)(folder), link(CONFIG, "/dev/zero"),
         link(TOKENIZER, "/dev/zero"), link(CONFIG, CONFIG), link(INDEX, "nowhere"), folder_for(CONFIG),
         folder_for(TOKENIZER), bind_socket],
    ),
}  # fmt: skip
