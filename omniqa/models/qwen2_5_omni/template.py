"""The chat template of Qwen2.5-Omni as token ids, split at the media and at the question."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omniqa.errors import ModelError
from omniqa.models.base import OWN_SYSTEM_TEXT, PromptText

SYSTEM_PROMPT = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory "
    "and visual inputs, as well as generating text and speech."
)

_DEFAULT_SYSTEM = "You are a helpful assistant."  # what the published chat template puts where no message has the role

SPECIAL_TEXTS = {
    "im_start": "<|im_start|>", "im_end": "<|im_end|>", "audio": "<|AUDIO|>", "audio_bos": "<|audio_bos|>",
    "audio_eos": "<|audio_eos|>", "video": "<|VIDEO|>", "vision_bos": "<|vision_bos|>", "vision_eos": "<|vision_eos|>",
}  # fmt: skip


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that structure the prompt, as the checkpoint's own tokenizer numbers them."""

    im_start: int
    im_end: int
    audio: int
    audio_bos: int
    audio_eos: int
    video: int
    vision_bos: int
    vision_eos: int

    @classmethod
    def of(cls, tokenizer: Any) -> "SpecialTokens":
        """Look every token up by its text. Raises ModelError naming those the tokenizer lacks."""
        vocabulary = tokenizer.get_vocab()
        missing = [text for text in SPECIAL_TEXTS.values() if text not in vocabulary]
        if missing:
            raise ModelError(f"The tokenizer lacks {', '.join(missing)}: it is not a Qwen2.5-Omni tokenizer.")
        return cls(**{name: vocabulary[text] for name, text in SPECIAL_TEXTS.items()})


_NO_WORDS = PromptText("")


@dataclass(frozen=True)
class ChatTemplate:
    """Turns words into ids around the media.

    `encode` maps a string to ids; with `special=True` it reads `<|…|>` in it as special tokens. Words that are given
    are always encoded without them, so that none can open a turn or fake a media token.
    """

    encode: Callable[[str, bool], list[int]]
    special: SpecialTokens

    @classmethod
    def of(cls, tokenizer: Any) -> "ChatTemplate":
        """Build from a transformers tokenizer."""

        def encode(text: str, special: bool) -> list[int]:
            return tokenizer(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"]

        return cls(encode, SpecialTokens.of(tokenizer))

    def head(self, prompt: PromptText = _NO_WORDS) -> list[int]:
        """Ids from the start to the media, which are not included."""
        given = _DEFAULT_SYSTEM if prompt.system is None else prompt.system
        system = self.encode(f"system\n{given.replace(OWN_SYSTEM_TEXT, SYSTEM_PROMPT)}", False)
        user = self.encode(f"user\n{prompt.before_media}", False)
        start, end = self.special.im_start, self.special.im_end
        return [start, *system, end, *self.encode("\n", False), start, *user]

    def tail(self, prompt: PromptText) -> tuple[list[int], slice]:
        """Ids after the media's end tokens, and which of them are the user's words of the last turn.

        Words are encoded together with the line break in front of them, as they are in a whole prompt.
        """
        opening = self.encode("user\n", False)
        between = self.encode("<|im_end|>\n<|im_start|>", True)
        ids, words = [], self.encode(prompt.questions[0], False)
        start = 0
        for turn, question in zip(prompt.turns, prompt.questions[1:], strict=True):
            ids += [*words, *between, *self.encode(f"assistant\n{turn.answer}", False), *between]
            words = self.encode(f"user\n{question}", False)
            start = len(ids) + (len(opening) if words[: len(opening)] == opening else len(opening) - 1)
        stop = len(ids) + len(words)
        return [*ids, *words, *between, *self.encode("assistant\n", False)], slice(start, stop)
