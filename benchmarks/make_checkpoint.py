"""Write a checkpoint of random weights in Qwen2.5-Omni's architecture and the hub's file layout.

    python benchmarks/make_checkpoint.py small OUT        1.4 million parameters, float32, for tests
    python benchmarks/make_checkpoint.py mid OUT          417 million, bfloat16, for long clips on a CPU
    python benchmarks/make_checkpoint.py wide OUT         the 3B's width, four layers, for memory: 446 million
    python benchmarks/make_checkpoint.py 3b OUT           the true 3B shape, bfloat16, real-size vocabulary
    python benchmarks/make_checkpoint.py 7b OUT           the true 7B shape, likewise

It is a whole Omni checkpoint (Thinker, talker, token2wav; the last two always small, for nothing here runs them),
saved by transformers itself, with a byte-level tokenizer that numbers the special tokens as the hub's does, and with
what transformers' own processor needs, so that it answers beside omniqa on the same files.
Its answers mean nothing: it exists to test loading and to measure time and memory.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration, Qwen2Tokenizer
from transformers.utils import logging

from omniqa.nano.architecture import PREPROCESSOR
from omniqa.nano.tokenizer import SPECIAL_TOKENS, with_special_tokens

FIRST_SPECIAL = {"small": 256, "mid": 256, "wide": 256, "3b": 151643, "7b": 151643}
TEXT: dict[str, dict[str, Any]] = {
    "small": {
        "vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.08,
    },
    "mid": {
        "vocab_size": 320, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 8, "num_key_value_heads": 2,
    },
    "wide": {
        "vocab_size": 320, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 4,
        "num_attention_heads": 16, "num_key_value_heads": 2,
    },
    "3b": {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "max_window_layers": 70,
    },
    "7b": {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4,
    },
}  # fmt: skip
MROPE_SECTION = {"small": [4, 6, 6], "mid": [16, 24, 24], "wide": [16, 24, 24], "3b": [16, 24, 24], "7b": [16, 24, 24]}
VISION: dict[str, dict[str, Any]] = {
    "small": {
        "depth": 4, "hidden_size": 64, "intermediate_size": 96, "num_heads": 4, "fullatt_block_indexes": [1, 3],
        "initializer_range": 0.08,
    },
    "mid": {
        "depth": 8, "hidden_size": 512, "intermediate_size": 1280, "num_heads": 8, "fullatt_block_indexes": [3, 7],
    },
    "wide": {"depth": 2, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "fullatt_block_indexes": [1]},
    "3b": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16},
    "7b": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16},
}  # fmt: skip
AUDIO: dict[str, dict[str, Any]] = {
    "small": {
        "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "d_model": 64,
        "initializer_range": 0.08,
    },
    "mid": {"encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048, "d_model": 512},
    "wide": {"encoder_layers": 2},
    "3b": {},
    "7b": {},
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 1e6}
TALKER = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "rope_parameters": ROPE | {"mrope_section": [2, 3, 3]},
}  # fmt: skip
TOKEN2WAV = {
    "dit_config": {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16, "emb_dim": 16,
        "num_embeds": 20, "enc_emb_dim": 8, "enc_dim": 8, "enc_channels": [8, 8, 8, 8, 24],
        "enc_attention_channels": 4, "enc_res2net_scale": 2, "enc_se_channels": 4,
    },
    "bigvgan_config": {"upsample_initial_channel": 32, "upsample_rates": [2, 2], "upsample_kernel_sizes": [4, 4]},
}  # fmt: skip

# Of messages whose content is a list of parts: Qwen2.5-Omni's turns, with one placeholder for each medium.
CHAT_TEMPLATE = (
    "{%- set places = {'video': '<|vision_bos|><|VIDEO|><|vision_eos|>',"
    " 'audio': '<|audio_bos|><|AUDIO|><|audio_eos|>', 'image': '<|vision_bos|><|IMAGE|><|vision_eos|>'} -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- for part in message['content'] -%}"
    "{{ part['text'] if part['type'] == 'text' else places[part['type']] }}"
    "{%- endfor -%}"
    "{{ '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def make_tokenizer(shape: str) -> Qwen2Tokenizer:
    """Every byte a token, unused entries up to the hub's first special id, then the special tokens."""
    vocabulary = {char: index for index, char in enumerate(sorted(ByteLevel.alphabet()))}
    return with_special_tokens(vocabulary, [], FIRST_SPECIAL[shape])


def make_config(shape: str, tokenizer: Qwen2Tokenizer) -> Qwen2_5OmniConfig:
    """The hub's configuration of that shape, ids from the tokenizer."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    width = TEXT[shape]["hidden_size"]
    shared = {
        "audio_token_index": ids["<|AUDIO|>"], "image_token_index": ids["<|IMAGE|>"],
        "video_token_index": ids["<|VIDEO|>"], "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_end_token_id": ids["<|audio_eos|>"], "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_end_token_id": ids["<|vision_eos|>"],
    }  # fmt: skip
    thinker = shared | {
        "text_config": TEXT[shape] | {"rope_parameters": ROPE | {"mrope_section": MROPE_SECTION[shape]}},
        "vision_config": VISION[shape] | {"out_hidden_size": width},
        "audio_config": AUDIO[shape] | {"output_dim": width},
        "user_token_id": ids["<|im_start|>"],
    }
    talker = TALKER | shared | {"embedding_size": width}
    return Qwen2_5OmniConfig(thinker_config=thinker, talker_config=talker, token2wav_config=TOKEN2WAV)


def make_checkpoint(shape: str, out: Path, seed: int = 0, shard_size: str = "4GB") -> None:
    """Write the checkpoint of `shape` into the folder `out`."""
    logging.set_verbosity_error()
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(shape)
    dtype = torch.float32 if shape == "small" else torch.bfloat16
    model = Qwen2_5OmniForConditionalGeneration._from_config(make_config(shape, tokenizer), dtype=dtype)
    model.save_pretrained(out, max_shard_size=shard_size)
    tokenizer.save_pretrained(out)
    (out / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2))
    (out / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(TEXT))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_checkpoint(arguments.shape, arguments.out, arguments.seed)
