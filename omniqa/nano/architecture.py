"""A small Thinker of Qwen2.5-Omni, untrained, and how it is written in the hub's file layout."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.utils import logging

from omniqa.models.qwen2_5_omni.checkpoint import PIXEL_BOUNDS, find_checkpoint
from omniqa.models.qwen2_5_omni.thinker import Thinker, load_thinker
from omniqa.nano.tokenizer import VOCABULARY

HEAD = 64  # size of a decoder's head, so of its mRoPE sections, too
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [16, 8, 8]}  # half of the head is for time
_INITIAL = 0.04  # standard deviation of untrained weights
PREPROCESSOR = {
    "processor_class": "Qwen2_5OmniProcessor", "feature_extractor_type": "WhisperFeatureExtractor",
    "image_processor_type": "Qwen2VLImageProcessor", "chunk_length": 300, "dither": 0.0, "feature_size": 128,
    "hop_length": 160, "n_fft": 400, "n_samples": 4800000, "nb_max_frames": 30000, "padding_side": "left",
    "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 16000,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "max_pixels": 12845056, "min_pixels": 3136, "merge_size": 2, "patch_size": 14, "temporal_patch_size": 2,
}  # fmt: skip

SIDES = (112, 168)  # smallest and largest side of the square frames it is trained on
VIDEO_PREPROCESSOR = {
    "video_processor_type": "Qwen2VLVideoProcessor",
    "size": {"shortest_edge": SIDES[0] ** 2, "longest_edge": SIDES[1] ** 2},
}


@dataclass(frozen=True)
class NanoConfig:
    """How large a Thinker is. Both encoders have 4 heads."""

    layers: int = 14
    heads: int = 3
    kv_heads: int = 1
    mlp: int = 384
    encoder_layers: int = 4
    encoder_width: int = 128
    encoder_mlp: int = 256

    @property
    def width(self) -> int:
        """Of the decoder."""
        return self.heads * HEAD


def make_config(config: NanoConfig, tokenizer: Any) -> Any:
    """The Thinker's configuration; ids are the tokenizer's."""

    def token(text: str) -> int:
        return tokenizer.convert_tokens_to_ids(text)

    make: Any = Qwen2_5OmniThinkerConfig  # what else it takes is kept as it is
    return make(
        text_config={
            "vocab_size": VOCABULARY, "hidden_size": config.width, "intermediate_size": config.mlp,
            "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads, "rope_parameters": ROPE, "initializer_range": _INITIAL,
            "max_position_embeddings": 32768, "max_window_layers": config.layers,
        },
        vision_config={
            "depth": config.encoder_layers, "hidden_size": config.encoder_width,
            "intermediate_size": config.encoder_mlp, "num_heads": 4,
            "out_hidden_size": config.width, "initializer_range": _INITIAL,
            # Every second block, as windows of 112 px cut up what is larger than that.
            "fullatt_block_indexes": [*range(1, config.encoder_layers, 2)],
        },
        audio_config={
            "encoder_layers": config.encoder_layers, "d_model": config.encoder_width, "output_dim": config.width,
            "encoder_attention_heads": 4, "encoder_ffn_dim": config.encoder_mlp, "initializer_range": _INITIAL,
        },
        audio_token_index=token("<|AUDIO|>"), image_token_index=token("<|IMAGE|>"),
        video_token_index=token("<|VIDEO|>"), audio_start_token_id=token("<|audio_bos|>"),
        audio_end_token_id=token("<|audio_eos|>"), vision_start_token_id=token("<|vision_bos|>"),
        vision_end_token_id=token("<|vision_eos|>"), user_token_id=token("<|im_start|>"),
        eos_token_id=token("<|im_end|>"),
    )  # fmt: skip


def untrained(config: NanoConfig, tokenizer: Any, device: torch.device, seed: int = 0) -> Thinker:
    """A Thinker of random weights in float32, ready to be trained; it went through files, as `omniqa.load` reads."""
    torch.manual_seed(seed)
    module = Qwen2_5OmniThinkerForConditionalGeneration._from_config(
        make_config(config, tokenizer), dtype=torch.float32
    )
    with TemporaryDirectory() as folder:
        save(module, tokenizer, Path(folder))
        thinker = load_thinker(find_checkpoint(folder), device, torch.float32)
        for weight in thinker.module.parameters():
            weight.data = weight.data.clone()  # away from the files
    thinker.module.requires_grad_(True).train()
    return thinker


def save(module: Any, tokenizer: Any, folder: Path) -> None:
    """Write a whole checkpoint; no file of it is ever half there."""
    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".new-") as new:
        module.save_pretrained(new)
        tokenizer.save_pretrained(new)
        (Path(new) / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2))
        (Path(new) / PIXEL_BOUNDS).write_text(json.dumps(VIDEO_PREPROCESSOR, indent=2))
        for path in Path(new).iterdir():
            path.chmod(0o644)  # some are written for their owner alone
            os.replace(path, folder / path.name)
