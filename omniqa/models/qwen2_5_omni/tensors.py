"""The tensors of a checkpoint: which the configuration asks for, and which a safetensors file says that it holds.

All of it is arithmetic on names and shapes. Nothing is allocated for a tensor before its bytes are known to be there.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from omniqa import tensor_file
from omniqa.errors import ModelError
from omniqa.files import open_regular
from omniqa.models.qwen2_5_omni.config import AudioConfig, TextConfig, ThinkerConfig, VisionConfig

Shape = tuple[int, ...]
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # what weights may be stored as, and the bytes of one
_PACKED = {"I64": 8, "I32": 4, "I16": 2}  # what quantised ones may be, beside types of one byte
# Extra tensors elsewhere do no harm; more layers than the configuration has mean that one of the two is wrong.
_LAYER = re.compile(r"(model\.layers|visual\.blocks|audio_tower\.layers)\.[0-9]+\.")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a safetensors header describes it."""

    dtype: str
    shape: Shape

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        """How many bytes they take in the file."""
        return self.elements * (FLOATS | _PACKED).get(self.dtype, 1)


def read_header(name: str, path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file.

    Args:
        name: the checkpoint, for messages.
        path: the file.

    Raises:
        ModelError: the file can't be read, is cut short, or its header is malformed.
    """
    try:
        with open_regular(path) as file:
            tensors = tensor_file.read_header(file).tensors
    except OSError as error:
        raise ModelError(f"{name}: {path.name} can't be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise ModelError(f"{name}: {path.name} {error}. Download it again.") from error
    return {tensor: StoredTensor(*about) for tensor, about in tensors.items()}


def thinker_tensors(config: ThinkerConfig) -> Iterator[tuple[str, Shape]]:
    """Name, without the hub's prefix, and shape of every tensor that the Thinker needs."""
    yield from _decoder(config.text_config)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.text_config.vocab_size, config.text_config.hidden_size)
    yield from _vision_encoder(config.vision_config)
    yield from _audio_encoder(config.audio_config)


def is_inner_linear(name: str, shape: Shape) -> bool:
    """Whether a tensor is the weight of a linear layer of the decoder's layers or an encoder."""
    inside = name.startswith(("model.layers.", "visual.", "audio_tower."))
    return inside and len(shape) == 2 and "audio_bos_eos_token" not in name


def group_by_layer(names: Iterable[str], layers: Iterable[str]) -> dict[str, list[str]]:
    """The names of some tensors by the layer that they belong to, of these: a.b.scales and a.b.weight.map are a.b's."""
    found: dict[str, list[str]] = {layer: [] for layer in layers}
    for name in names:
        parts = name.split(".")
        owner = next((one for end in range(len(parts)) if (one := ".".join(parts[:end])) in found), None)
        if owner is not None:
            found[owner].append(name)
    return found


def _decoder(config: TextConfig) -> Iterator[tuple[str, Shape]]:
    width, kv = config.hidden_size, config.kv_heads * config.head_size
    yield "model.embed_tokens.weight", (config.vocab_size, width)
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}"
        yield from _linear(f"{at}.self_attn.q_proj", width, width)
        yield from _linear(f"{at}.self_attn.k_proj", kv, width)
        yield from _linear(f"{at}.self_attn.v_proj", kv, width)
        yield f"{at}.self_attn.o_proj.weight", (width, width)
        yield from _gated_mlp(f"{at}.mlp", width, config.intermediate_size, bias=False)
        yield f"{at}.input_layernorm.weight", (width,)
        yield f"{at}.post_attention_layernorm.weight", (width,)
    yield "model.norm.weight", (width,)


def _vision_encoder(config: VisionConfig) -> Iterator[tuple[str, Shape]]:
    width, patch = config.hidden_size, config.patch_size
    merged = width * config.spatial_merge_size**2
    yield "visual.patch_embed.proj.weight", (width, config.in_channels, config.temporal_patch_size, patch, patch)
    for block in range(config.depth):
        at = f"visual.blocks.{block}"
        for part in ("q", "k", "v", "proj"):
            yield from _linear(f"{at}.attn.{part}", width, width)
        yield from _gated_mlp(f"{at}.mlp", width, config.intermediate_size, bias=True)
        yield f"{at}.norm1.weight", (width,)
        yield f"{at}.norm2.weight", (width,)
    yield "visual.merger.ln_q.weight", (width,)
    yield from _linear("visual.merger.mlp.0", merged, merged)
    yield from _linear("visual.merger.mlp.2", config.out_hidden_size, merged)


def _audio_encoder(config: AudioConfig) -> Iterator[tuple[str, Shape]]:
    width = config.d_model
    yield "audio_tower.conv1.weight", (width, config.num_mel_bins, 3)
    yield "audio_tower.conv1.bias", (width,)
    yield "audio_tower.conv2.weight", (width, width, 3)
    yield "audio_tower.conv2.bias", (width,)
    yield "audio_tower.audio_bos_eos_token.weight", (2, config.output_dim)
    for layer in range(config.encoder_layers):
        at = f"audio_tower.layers.{layer}"
        for part in ("q_proj", "v_proj", "out_proj"):
            yield from _linear(f"{at}.self_attn.{part}", width, width)
        yield f"{at}.self_attn.k_proj.weight", (width, width)
        yield from _layer_norm(f"{at}.self_attn_layer_norm", width)
        yield from _linear(f"{at}.fc1", config.encoder_ffn_dim, width)
        yield from _linear(f"{at}.fc2", width, config.encoder_ffn_dim)
        yield from _layer_norm(f"{at}.final_layer_norm", width)
    yield from _layer_norm("audio_tower.ln_post", width)
    yield from _linear("audio_tower.proj", config.output_dim, width)


def _gated_mlp(name: str, width: int, inner: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield from _linear(f"{name}.gate_proj", inner, width, bias)
    yield from _linear(f"{name}.up_proj", inner, width, bias)
    yield from _linear(f"{name}.down_proj", width, inner, bias)


def _linear(name: str, out: int, into: int, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def _layer_norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def stray_layer(names: Iterable[str]) -> str | None:
    """The first of some names, of tensors that nothing needs, that is a layer's; None if there is none."""
    return next((name for name in sorted(names) if _LAYER.match(name)), None)
