"""nano's tokenizer: a small byte-level BPE of its world's words, with the model's special tokens.

Every byte is a token, so any question can be put into tokens, also one of words that the world does not know.
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer

from omniqa.models.qwen2_5_omni.template import SYSTEM_PROMPT
from omniqa.nano import world

FIRST_SPECIAL = 752  # ids below are bytes and merged words
VOCABULARY = 768  # a multiple of 64; the last few stay unused
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>",
)  # fmt: skip
_NAMED = {
    "image_token": "<|IMAGE|>", "audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>",
}  # fmt: skip
_CLIPS = 300  # whose questions the words are learned from


def make_tokenizer() -> Any:
    """The tokenizer, the same one every time."""
    return with_special_tokens(*_learn_words(), FIRST_SPECIAL)


def with_special_tokens(vocabulary: dict[str, int], merges: Any, first: int) -> Any:
    """Qwen's tokenizer over `vocabulary` and `merges`, the model's special tokens from id `first` on.

    Ids that the vocabulary leaves free below are filled with entries that no text can reach.
    """
    vocabulary = vocabulary | {f"<unused {index}>": index for index in range(len(vocabulary), first)}
    # The special tokens go in by number first; the tokenizer then finds its named ones already there.
    vocabulary |= {token: first + index for index, token in enumerate(SPECIAL_TOKENS)}
    tokenizer = _blank(vocabulary, merges)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS], special_tokens=True)
    return tokenizer


def _blank(vocabulary: dict[str, int], merges: Any) -> Any:
    return Qwen2Tokenizer(vocab=vocabulary, merges=merges, eos_token="<|im_end|>", extra_special_tokens=_NAMED)


def _learn_words() -> tuple[dict[str, int], Any]:
    """Ids by text and merges in order, of a BPE that cuts text into words as Qwen's does."""
    alphabet = sorted(ByteLevel.alphabet())
    qwen = _blank({char: index for index, char in enumerate(alphabet)}, []).backend_tokenizer
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = qwen.normalizer, qwen.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=FIRST_SPECIAL, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(_corpus(), trainer)
    model = json.loads(learner.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _corpus() -> Iterator[str]:
    """What is asked and answered about clips to train on, and the system prompt."""
    yield from [SYSTEM_PROMPT, "system\n", "user\n", "assistant\n"] * 10
    for script in islice(world.training_scripts(seconds=16, scenes=4), _CLIPS):
        for question in world.questions(script, rounds=2, every=True):
            yield question.prompt
            yield question.answer
