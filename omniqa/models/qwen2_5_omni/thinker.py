"""Loading the Thinker alone, through transformers' own module definitions.

The modules stay as transformers has them and hold the weights; the drivers beside this file run them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from omniqa.errors import ModelError
from omniqa.models.base import Geometry, GridSink, MediaShape, PromptText, TakeGrids, TokenLayout
from omniqa.models.decoder import Decoder
from omniqa.models.qwen2_5_omni.audio import AudioEncoder, token_count
from omniqa.models.qwen2_5_omni.aux_network import load_aux_network
from omniqa.models.qwen2_5_omni.checkpoint import Checkpoint, pixel_bounds
from omniqa.models.qwen2_5_omni.early_stream import EarlyStream
from omniqa.models.qwen2_5_omni.geometry import GEOMETRY
from omniqa.models.qwen2_5_omni.layout import build_layout
from omniqa.models.qwen2_5_omni.quantized import load_quantized
from omniqa.models.qwen2_5_omni.streaming import StreamingEncoder
from omniqa.models.qwen2_5_omni.template import ChatTemplate
from omniqa.models.qwen2_5_omni.tokenizer import load_tokenizer
from omniqa.models.qwen2_5_omni.vision import GridStream, VisionEncoder
from omniqa.models.qwen2_5_omni.vision_attention import AttendedStream
from omniqa.models.qwen2_5_omni.weights import read_tensors
from omniqa.pruning.contract import AuxNetwork
from omniqa.pruning.vision_rule import VisionRule
from omniqa.runtime.attention import Attention
from omniqa.runtime.int8 import Int8Linear
from omniqa.runtime.quantize import Scheme, WeightStore, quantize
from omniqa.runtime.upcast import float32_is_faster, upcast
from omniqa.tensor_file import GROUP_BYTES


@dataclass(frozen=True)
class Thinker:
    """A loaded Thinker: transformers' modules by their part in the work, and what surrounds them.

    Attributes:
        module: the whole Qwen2_5OmniThinkerForConditionalGeneration.
        decoder, visual, audio_tower, lm_head: its parts, wherever this version of transformers keeps them.
        end_tokens: ids that end an answer.
        checkpoint: where all of it came from.
        geometry: what it counts in, with its checkpoint's own pixel bounds.
    """

    module: nn.Module
    decoder: Any
    visual: Any
    audio_tower: Any
    lm_head: nn.Linear
    config: Any
    tokenizer: Any
    template: ChatTemplate
    end_tokens: frozenset[int]
    checkpoint: Checkpoint
    geometry: Geometry = GEOMETRY

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the activations are, and the weights that are not quantised."""
        return self.decoder.norm.weight.dtype

    @property
    def layers(self) -> int:
        """Number of decoder layers, L."""
        return len(self.decoder.layers)

    @property
    def width(self) -> int:
        """Width of the decoder's embeddings, d."""
        return len(self.decoder.norm.weight)

    @property
    def context(self) -> int:
        """Tokens that the decoder was made for."""
        return self.decoder.config.max_position_embeddings

    @property
    def encoders(self) -> tuple[nn.Module, nn.Module]:
        """The vision and the audio encoder's modules."""
        return self.visual, self.audio_tower

    @property
    def vision_depth(self) -> int:
        """Number of the vision encoder's blocks."""
        return len(self.visual.blocks)

    @property
    def audio_form(self) -> tuple[int, int, int]:
        """See `Model.audio_form`."""
        sound = self.audio_tower.config
        heads = sound.encoder_attention_heads
        return heads, sound.d_model // heads, sound.n_window

    def vision_encoder(self, attention: Attention) -> VisionEncoder:
        """What encodes frames."""
        return VisionEncoder(self.visual, attention)

    def vision_stream(
        self,
        encoder: VisionEncoder,
        reuse_static: float | None = None,
        rule: VisionRule | None = None,
        take: TakeGrids = lambda tokens, keep=None: None,
    ) -> GridSink:
        """What takes a clip's grids one by one; with `rule` it hands on what is kept of them, and frees them."""
        early = rule is not None and rule.block is not None and rule.block < self.vision_depth
        if early or reuse_static is not None:
            return EarlyStream(encoder, rule, reuse_static, take)
        return StreamingEncoder(encoder, rule.window, take) if rule else GridStream(encoder)

    def attended_stream(self, encoder: VisionEncoder) -> AttendedStream:
        """What takes a clip's grids one by one, and works out what each token receives."""
        return AttendedStream(encoder)

    def audio_encoder(self, attention: Attention) -> AudioEncoder:
        """What encodes a log-mel."""
        return AudioEncoder(self.audio_tower, attention)

    def decoder_stack(self, attention: Attention) -> Decoder:
        """The decoder."""
        return Decoder(self.decoder, self.lm_head, attention)

    def count_audio_tokens(self, mel_frames: int) -> int:
        """Audio tokens that so many frames of log-mel become: 50 a window of two seconds."""
        return token_count(mel_frames)

    def lay_out(self, shape: MediaShape, question: str | PromptText) -> TokenLayout:
        """The prompt's tokens."""
        return build_layout(self.template, shape, question)

    def decode_text(self, ids: Sequence[int]) -> str:
        """The text of generated token ids."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def load_aux_network(self, network: AuxNetwork) -> nn.Module:
        """A pruning method's own network, from its file, the checkpoint, or beside it. Raises ModelError."""
        return load_aux_network(network, self.checkpoint, self.width, self.device)


def load_thinker(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    scheme: Scheme | None = None,
    store: WeightStore | None = None,
    layer_devices: Sequence[torch.device] = (),
) -> Thinker:
    """Load the Thinker of a checked checkpoint onto `device`, for inference.

    Args:
        dtype: float32 or bfloat16; None keeps what is stored (float16 becomes bfloat16). On the CPU, weights that keep
            their dtype stay in the mapped files and are paged in as they are first used; products of bfloat16 are
            computed in float32 where the CPU is faster at that.
        scheme: quantise the linear layers of the decoder, and of both encoders and `lm_head` if it says so. Weights
            are read and quantised one by one from the mapped files.
        store: where quantised weights are kept.
        layer_devices: of each layer of the decoder; empty puts them on `device` like all else.

    Raises:
        ModelError: the tokenizer can't be used.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # its notes are about its own defaults; what matters is checked below
    logging.disable_progress_bar()
    dtype = dtype or stored_dtype(checkpoint)
    tokenizer = load_tokenizer(checkpoint.name, checkpoint.folder, checkpoint.config.text_config.vocab_size)
    template = ChatTemplate.of(tokenizer)
    config = checkpoint.config.for_transformers()
    config._attn_implementation = "sdpa"
    _check_ids(checkpoint.name, config, template)
    if checkpoint.quantization is not None:
        module, report = load_quantized(checkpoint, config, device, dtype, layer_devices)
    else:
        module, report = _load_module(checkpoint, config, dtype if scheme is None else None)
    _require_all(checkpoint, report)
    module.requires_grad_(False).eval()
    inner = module.model if hasattr(module.model, "language_model") else None  # transformers after 5.17
    decoder = inner.language_model if inner else module.model
    visual, audio_tower = (inner.visual, inner.audio_tower) if inner else (module.visual, module.audio_tower)
    if scheme is not None:
        head = nn.ModuleDict({"lm_head": module.lm_head})
        module.lm_head = None  # so that its float weight can leave memory
        places = zip(decoder.layers, layer_devices, strict=False)
        elsewhere = {inner: place for layer, place in places for inner in layer.modules()}
        # The head first: while its large weight is quantised it stands in memory several times.
        parts = [head, decoder.layers, visual, audio_tower] if scheme.everywhere else [decoder.layers]
        quantize(parts, store, scheme, device, elsewhere, many_rows=[visual, audio_tower])
        module.lm_head = head["lm_head"]
        if isinstance(module.lm_head, Int8Linear):
            module.lm_head.finer = True  # one row goes through it at a time, so it costs nothing
        for weight in module.parameters():  # what is left; buffers keep the precision that they were made with
            weight.data = weight.data.to(dtype)
    if checkpoint.quantization is None:
        _place(module, decoder, device, layer_devices)
    if device.type == "cpu" and dtype == torch.bfloat16 and float32_is_faster():
        upcast(module)
    return Thinker(
        module=module,
        decoder=decoder,
        visual=visual,
        audio_tower=audio_tower,
        lm_head=module.lm_head,
        config=config,
        tokenizer=tokenizer,
        template=template,
        end_tokens=checkpoint.end_tokens | {template.special.im_end},
        checkpoint=checkpoint,
        geometry=_with_bounds(pixel_bounds(checkpoint.name)),
    )


def _place(module: Any, decoder: Any, device: torch.device, layer_devices: Sequence[torch.device]) -> None:
    """Move the layers of `decoder` to their own devices, if they have any, and all else to `device`."""
    layers = decoder.layers
    for layer, own in zip(layers, layer_devices, strict=False):
        layer.to(own)
    decoder.layers = nn.ModuleList() if layer_devices else layers
    module.to(device)
    decoder.layers = layers


def _with_bounds(pixels: tuple[int, int]) -> Geometry:
    return replace(GEOMETRY, min_pixels=pixels[0], max_pixels=pixels[1])


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """What a checkpoint's weights are loaded as if the user names no other dtype."""
    return torch.float32 if checkpoint.float32 else torch.bfloat16


def _load_module(checkpoint: Checkpoint, config: Any, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """transformers' module, on the CPU, and its report of what it loaded.

    dtype: None is that of the largest stored weight, so that they stay mapped, in groups: they are to be quantised.
    """
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    kind: Any = Qwen2_5OmniThinkerForConditionalGeneration
    tensors = read_tensors(checkpoint.tensors, GROUP_BYTES if dtype is None else None)
    dtype = dtype or max(tensors.values(), key=torch.Tensor.numel).dtype
    module, report = kind.from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True
    )
    return module, report


def _require_all(checkpoint: Checkpoint, report: Mapping[str, Any]) -> None:
    """Raise ModelError if a tensor was not there: transformers makes up what it misses."""
    missing = sorted(report["missing_keys"])
    if missing:  # this version of transformers has more of them than omniqa knows of, or the format has
        raise ModelError(f"{checkpoint.name} lacks {len(missing)} tensors of the Thinker, {missing[0]} among them.")


def _check_ids(name: str, config: Any, template: ChatTemplate) -> None:
    """The media tokens of tokenizer and configuration must be the same."""
    special = template.special
    if (special.audio, special.video) != (config.audio_token_id, config.video_token_id):
        raise ModelError(
            f"{name}: the tokenizer numbers audio and video {special.audio} and {special.video}, "
            f"the configuration {config.audio_token_id} and {config.video_token_id}."
        )
