"""Reading a checkpoint's tokenizer: Qwen's, over the vocabulary, merges and added tokens of its files.

As transformers does it, what else tokenizer.json says about cutting text is left alone. No class that a file names is
looked up, and no code of the folder runs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omniqa.errors import ModelError
from omniqa.files import read_regular
from omniqa.models.qwen2_5_omni.template import SPECIAL_TEXTS
from omniqa.models.reading import read_json, unreadable
from omniqa.typed_json import (
    WrongEntry,
    either,
    entry,
    flag,
    list_of,
    mapping_of,
    number,
    only,
    optional,
    quotable,
    record,
    text,
    whole,
)

CONFIG = "tokenizer_config.json"
WHOLE = "tokenizer.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
TOKENIZERS = ((WHOLE, CONFIG), (VOCABULARY, MERGES, CONFIG))  # one file that has all, or the older pair
_MAX_BYTES = 2**26  # the published models' has a sixth of it
_ID = whole(0, 2**20)


@dataclass(frozen=True)
class AddedText:
    """A text that is cut out before all else, and is one token."""

    content: str = entry(text)
    id: int | None = entry(optional(_ID), None)
    special: bool = entry(flag, False)
    single_word: bool = entry(flag, False)
    lstrip: bool = entry(flag, False)
    rstrip: bool = entry(flag, False)
    normalized: bool = entry(flag, True)


_NAMED = optional(either(record(AddedText), text))


@dataclass(frozen=True)
class Vocabulary:
    """What a byte-level BPE knows: ids by token, and which pairs of tokens it merges, in order."""

    vocab: dict[str, int] = entry(lambda value: read_vocabulary(value))
    merges: list[tuple[str, str]] = entry(lambda value: read_merges(value))
    type: str = entry(only("BPE"), "BPE")


@dataclass(frozen=True)
class _Whole:
    """tokenizer.json."""

    model: Vocabulary = entry(record(Vocabulary))
    added_tokens: tuple[AddedText, ...] = entry(list_of(record(AddedText), 0, 2**16), ())


@dataclass(frozen=True)
class _Config:
    """tokenizer_config.json."""

    tokenizer_class: str | None = entry(optional(only("Qwen2Tokenizer", "Qwen2TokenizerFast")), None)
    add_prefix_space: bool | None = entry(optional(flag), None)
    # Not computed with: omniqa cuts no question short and knows the special tokens by their text.
    model_max_length: float | None = entry(optional(number(1, 1e31)), None)
    bos_token: str | AddedText | None = entry(_NAMED, None)
    eos_token: str | AddedText | None = entry(_NAMED, None)
    pad_token: str | AddedText | None = entry(_NAMED, None)
    unk_token: str | AddedText | None = entry(_NAMED, None)
    added_tokens_decoder: dict[str, AddedText] | None = entry(optional(mapping_of(record(AddedText))), None)


def load_tokenizer(name: str, folder: Path, vocab_size: int) -> Any:
    """transformers' Qwen2Tokenizer of a checkpoint's folder.

    Args:
        name: the checkpoint, for messages.
        vocab_size: rows of the model's embeddings; every id is below.

    Raises:
        ModelError: a file is missing or malformed, or the tokenizer is not one of Qwen2.5-Omni.
    """
    config = read_json(name, folder / CONFIG, record(_Config))
    file = WHOLE if (folder / WHOLE).exists() else VOCABULARY
    if file == WHOLE:
        read = read_json(name, folder / WHOLE, record(_Whole), _MAX_BYTES)
        known, added = read.model, read.added_tokens
    else:
        vocab = read_json(name, folder / VOCABULARY, read_vocabulary, _MAX_BYTES)
        known, added = Vocabulary(vocab, _merges_of_lines(name, folder / MERGES)), _numbered(name, config)
    try:
        _check(known, added, vocab_size)
    except ValueError as error:
        raise ModelError(f"{name}: {file}: {error}.") from error
    return _make(name, known, added, config.add_prefix_space)


def read_vocabulary(value: object) -> dict[str, int]:
    """Reads ids by token. Raises ValueError as readers do."""
    found: dict[str, int] = mapping_of(_ID)(value)
    if len(set(found.values())) < len(found):
        raise WrongEntry("gives several tokens one id")
    return found


def read_merges(value: object) -> list[tuple[str, str]]:
    """Reads pairs of tokens, each a list of two, or one text with a space between them."""
    if not isinstance(value, list):
        raise WrongEntry("is not a list")
    pairs = []
    for index, one in enumerate(value):
        pair = one.split(" ") if isinstance(one, str) else one
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise WrongEntry("is not a pair of tokens", f"[{index}]")
        pairs.append((pair[0], pair[1]))
    return pairs


def _merges_of_lines(name: str, path: Path) -> list[tuple[str, str]]:
    try:
        lines = read_regular(path, _MAX_BYTES).decode().split("\n")
        return read_merges([line for line in lines if line and not line.startswith("#version")])
    except OSError as error:
        raise unreadable(name, path, error) from error
    except ValueError as error:
        raise ModelError(f"{name}: {path.name}: {error}.") from error


def _numbered(name: str, config: _Config) -> tuple[AddedText, ...]:
    """The added tokens of the older pair of files; their ids are what the configuration has them under."""
    by_id = config.added_tokens_decoder or {}
    for key in by_id:
        if not (key.isascii() and key.isdecimal() and len(key) < 8):
            raise ModelError(f"{name}: {CONFIG}: added_tokens_decoder has an entry {quotable(key)}, which is no id.")
    return tuple(replace(token, id=int(key)) for key, token in by_id.items())


def _check(known: Vocabulary, added: Iterable[AddedText], vocab_size: int) -> None:
    """Check that the parts fit together and are Qwen2.5-Omni's. Raises ValueError."""
    from tokenizers.pre_tokenizers import ByteLevel

    bytes_lacking = [byte for byte in ByteLevel.alphabet() if byte not in known.vocab]
    if bytes_lacking:
        raise ValueError(f"the vocabulary lacks {len(bytes_lacking)} of the 256 single bytes")
    for index, (left, right) in enumerate(known.merges):
        if left not in known.vocab or right not in known.vocab or left + right not in known.vocab:
            raise ValueError(f"merge {index} is of tokens that are not in the vocabulary")
    if any(token.id is None for token in added):
        raise ValueError("an added token has no id")
    highest = max([*known.vocab.values(), *(token.id or 0 for token in added)])
    if highest >= vocab_size:
        raise ValueError(f"it has a token {highest}, and the model has {vocab_size} of them, counted from 0")
    special = {token.content for token in added if token.special}
    missing = [token for token in SPECIAL_TEXTS.values() if token not in special]
    if missing:
        raise ValueError(f"the special tokens lack {', '.join(missing)}: it is not a Qwen2.5-Omni tokenizer")


def _make(name: str, known: Vocabulary, added: Iterable[AddedText], add_prefix_space: bool | None) -> Any:
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    kinds = ("special", "single_word", "lstrip", "rstrip", "normalized")
    make: Any = Qwen2Tokenizer  # it takes merges as pairs, too
    tokenizer = make(
        vocab=known.vocab,
        merges=known.merges,
        eos_token="<|im_end|>",
        add_prefix_space=add_prefix_space,
        added_tokens_decoder={
            token.id: AddedToken(token.content, **{kind: getattr(token, kind) for kind in kinds}) for token in added
        },
    )
    numbered: Mapping[str, int] = tokenizer.get_vocab()
    for token in added:
        if numbered.get(token.content) != token.id:
            raise ModelError(
                f"{name}: the tokenizer's files number {quotable(token.content) or 'an empty token'} {token.id}, "
                f"where the vocabulary leaves {numbered.get(token.content, 'none')}."
            )
    return tokenizer
