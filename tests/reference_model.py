"""The reference: transformers' own processor, forward and generate, used the way its documentation says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Qwen2_5OmniProcessor, WhisperFeatureExtractor

from omniqa.models.qwen2_5_omni.template import SYSTEM_PROMPT

HEAD = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"
VIDEO = "<|vision_bos|><|VIDEO|><|vision_eos|>"
AUDIO = "<|audio_bos|><|AUDIO|><|audio_eos|>"


def make_processor(folder: Path) -> Qwen2_5OmniProcessor:
    """transformers' processor over the checkpoint's tokenizer."""
    pytest.importorskip("torchvision", reason="transformers' video processor needs torchvision; `make test` has it")
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        feature_extractor=WhisperFeatureExtractor(
            feature_size=128,
            sampling_rate=16000,
            hop_length=160,
            chunk_length=300,
            n_fft=400,
            return_attention_mask=True,
        ),
        tokenizer=AutoTokenizer.from_pretrained(folder),
    )


def inputs(processor: Qwen2_5OmniProcessor, frames: np.ndarray, waveform: np.ndarray, question: str, fps: float = 2.0):
    """Model inputs for frames (F, H, W, 3) uint8 and 16 kHz sound; either may be empty."""
    both = len(frames) and len(waveform)
    arguments = {"text": [HEAD + (VIDEO if len(frames) else AUDIO) + question + TAIL], "return_tensors": "pt"}
    if len(frames):
        arguments["videos"] = [torch.from_numpy(frames).permute(0, 3, 1, 2)]
        arguments["videos_kwargs"] = {"fps": fps, "do_sample_frames": False}
    if len(waveform):
        arguments["audio"] = [waveform]
    if both and _new_processor():
        arguments |= {"load_audio_from_video": True, "audio_from_video_indices": [0]}
    elif both:
        arguments["use_audio_in_video"] = True
    batch = dict(processor(**arguments))
    batch.pop("num_audio_tokens", None)
    return batch | ({"use_audio_in_video": True} if both else {})


def positions(module, batch) -> torch.Tensor:
    """get_rope_index of those inputs: (3, N)."""
    owner = module if hasattr(module, "get_rope_index") else module.model
    mask = batch.get("feature_attention_mask")
    ids, _ = owner.get_rope_index(
        batch["input_ids"],
        None,
        batch.get("video_grid_thw"),
        batch["attention_mask"],
        batch.get("use_audio_in_video", False),
        None if mask is None else mask.sum(-1),
        batch.get("video_second_per_grid"),
    )
    return ids[:, 0]


def _new_processor() -> bool:
    from transformers.models.qwen2_5_omni import processing_qwen2_5_omni

    return hasattr(processing_qwen2_5_omni.Qwen2_5OmniProcessor, "replace_video_with_audio_token")
