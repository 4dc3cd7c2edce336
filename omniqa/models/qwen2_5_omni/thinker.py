"""Loading the Thinker alone, through transformers' own module definitions.

The modules stay as transformers has them and hold the weights; the drivers beside this file run them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from omniqa.errors import ModelError, first_line
from omniqa.memory import is_out_of_memory
from omniqa.models.qwen2_5_omni.checkpoint import Checkpoint
from omniqa.models.qwen2_5_omni.template import ChatTemplate
from omniqa.models.qwen2_5_omni.tokenizer import load_tokenizer
from omniqa.runtime.upcast import float32_is_faster, upcast


@dataclass(frozen=True)
class Thinker:
    """A loaded Thinker: transformers' modules by their part in the work, and what surrounds them.

    module: the whole Qwen2_5OmniThinkerForConditionalGeneration.
    decoder, visual, audio_tower, lm_head: its parts, wherever this version of transformers keeps them.
    eos: ids that end an answer.
    checkpoint: where all of it came from.
    """

    module: nn.Module
    decoder: Any
    visual: Any
    audio_tower: Any
    lm_head: nn.Linear
    config: Any
    tokenizer: Any
    template: ChatTemplate
    eos: frozenset[int]
    checkpoint: Checkpoint

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights, and with them the activations, are stored as."""
        return self.lm_head.weight.dtype

    @property
    def layers(self) -> int:
        """Number of decoder layers, L."""
        return len(self.decoder.layers)


def load_thinker(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype | None = None) -> Thinker:
    """Load the Thinker of a checked checkpoint onto `device`, for inference.

    dtype: float32 or bfloat16; None keeps what is stored (float16 becomes bfloat16). On the CPU, weights that keep
    their dtype stay in the mapped files and are paged in as they are first used; products of bfloat16 are computed in
    float32 where the CPU is faster at that.
    Raises ModelError for a tokenizer that can't be used.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # its notes are about its own defaults; what matters is checked below
    logging.disable_progress_bar()
    dtype = dtype or stored_dtype(checkpoint)
    tokenizer = load_tokenizer(checkpoint.name, checkpoint.folder, checkpoint.config.text_config.vocab_size)
    template = ChatTemplate.of(tokenizer)
    config = checkpoint.config.for_transformers()
    _check_ids(checkpoint.name, config, template)
    module = _load_module(checkpoint, config, dtype).to(device).requires_grad_(False).eval()
    if device.type == "cpu" and dtype == torch.bfloat16 and float32_is_faster():
        upcast(module)
    inner = module.model if hasattr(module.model, "language_model") else None  # transformers after 5.17
    return Thinker(
        module=module,
        decoder=inner.language_model if inner else module.model,
        visual=inner.visual if inner else module.visual,
        audio_tower=inner.audio_tower if inner else module.audio_tower,
        lm_head=module.lm_head,
        config=config,
        tokenizer=tokenizer,
        template=template,
        eos=checkpoint.end_tokens | {template.special.im_end},
        checkpoint=checkpoint,
    )


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """What a checkpoint's weights are loaded as if the user names no other dtype."""
    return torch.float32 if checkpoint.stored_bytes >= 4 * checkpoint.elements else torch.bfloat16


def _load_module(checkpoint: Checkpoint, config: Any, dtype: torch.dtype) -> Any:
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    module: Any
    report: dict[str, Any]
    config._attn_implementation = "sdpa"
    module, report = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(  # type: ignore[misc]
        None, config=config, state_dict=read_tensors(checkpoint.tensors), dtype=dtype, output_loading_info=True
    )
    missing = sorted(report["missing_keys"])
    if missing:  # this version of transformers has more of them than omniqa knows of
        raise ModelError(f"{checkpoint.name} lacks {len(missing)} tensors of the Thinker, {missing[0]} among them.")
    return module


def read_tensors(stored: Mapping[str, Path]) -> dict[str, torch.Tensor]:
    """Tensors by name, each from the file that `stored` says, and still mapped there.

    Raises ModelError for a file that safetensors does not read, though its header was found to be right.
    """
    by_shard: dict[Path, list[str]] = {}
    for name, path in stored.items():
        by_shard.setdefault(path, []).append(name)
    tensors: dict[str, torch.Tensor] = {}
    for path, names in by_shard.items():
        try:
            with safe_open(path, framework="pt") as shard:
                tensors |= {name: shard.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"{path.parent}: {path.name} can't be read ({first_line(error)}).") from error
    return tensors


def _check_ids(name: str, config: Any, template: ChatTemplate) -> None:
    """The media tokens of tokenizer and configuration must be the same."""
    special = template.special
    if (special.audio, special.video) != (config.audio_token_id, config.video_token_id):
        raise ModelError(
            f"{name}: the tokenizer numbers audio and video {special.audio} and {special.video}, "
            f"the configuration {config.audio_token_id} and {config.video_token_id}."
        )
