"""The Thinker's configuration as a typed structure: every entry that omniqa or transformers computes with, in bounds.

Defaults are those of transformers' own classes. What omniqa's drivers take for granted may have that one value only.
Nothing else of config.json is handed on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from omniqa.models.qwen2_5_omni.geometry import GEOMETRY
from omniqa.models.stored_quantization import SETTINGS, StoredQuantization, read_quantization
from omniqa.typed_json import (
    WrongEntry,
    either,
    entry,
    flag,
    list_of,
    number,
    only,
    optional,
    quotable,
    record,
    text,
    whole,
)

THINKER = "thinker."  # what the names of its tensors begin with, in a Thinker saved alone by transformers too
ARCHITECTURES = {"qwen2_5_omni": THINKER, "qwen2_5_omni_thinker": ""}

# Some four times the largest model of any kind that is published; what is beyond is no model.
_VOCABULARY = 2**20
_WIDTH = 2**15
_MLP = 2**18
_DEPTH = 512
_POSITIONS = 2**14  # of sound: their table is computed, not stored
_HEADS = whole(1, 1024)
_TOKEN = whole(0, _VOCABULARY - 1)
END_TOKENS = optional(either(list_of(_TOKEN, 1, 64), _TOKEN))
_SPREAD = number(0, 100)  # of untrained weights
_THETA = number(1, 1e12)


@dataclass(frozen=True)
class Rope:
    """Rotary positions. mrope_section: pairs of a head's numbers that turn by time, row and column."""

    mrope_section: tuple[int, int, int] = entry(list_of(whole(0, _WIDTH), 3, 3))
    rope_theta: float | None = entry(_THETA, None)
    rope_type: str = entry(only("default", "mrope"), "default", ("type",))
    partial_rotary_factor: float = entry(only(1), 1)


@dataclass(frozen=True)
class VisionRope:
    """Rotary positions of the vision encoder, which never change."""

    rope_theta: float = entry(only(10000), 10000)
    rope_type: str = entry(only("axial", "default"), "default", ("type",))


@dataclass(frozen=True)
class TextConfig:
    """The decoder's configuration."""

    vocab_size: int = entry(whole(1, _VOCABULARY), 152064)
    hidden_size: int = entry(whole(1, _WIDTH), 3584)
    intermediate_size: int = entry(whole(1, _MLP), 18944)
    num_hidden_layers: int = entry(whole(1, _DEPTH), 28)
    num_attention_heads: int = entry(_HEADS, 28)
    num_key_value_heads: int | None = entry(optional(_HEADS), 4)
    head_dim: int | None = entry(optional(whole(1, _WIDTH)), None)
    hidden_act: str = entry(only("silu"), "silu")
    max_position_embeddings: int = entry(whole(1, 2**30), 32768)
    initializer_range: float = entry(_SPREAD, 0.02)
    rms_norm_eps: float = entry(number(0, 1), 1e-6)
    rope_parameters: Rope | None = entry(optional(record(Rope)), None)
    rope_scaling: Rope | None = entry(optional(record(Rope)), None)  # the hub's older form, with rope_theta beside it
    rope_theta: float = entry(_THETA, 1e6)
    use_sliding_window: bool = entry(only(False), False)
    layer_types: tuple[str, ...] | None = entry(optional(list_of(only("full_attention"), 1, _DEPTH)), None)
    eos_token_id: int | tuple[int, ...] | None = entry(END_TOKENS, None)
    tie_word_embeddings: bool = entry(flag, True)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Numbers of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rope(self) -> Rope | None:
        """Rotary positions, in whichever form they are written."""
        return self.rope_parameters or self.rope_scaling

    def rope_for_transformers(self) -> dict[str, Any] | None:
        """Rotary positions as transformers writes them."""
        if self.rope is None:
            return None
        theta = self.rope.rope_theta or self.rope_theta
        return {"rope_type": "default", "rope_theta": float(theta), "mrope_section": list(self.rope.mrope_section)}


@dataclass(frozen=True)
class VisionConfig:
    """The vision encoder's configuration."""

    depth: int = entry(whole(1, _DEPTH), 32)
    hidden_size: int = entry(whole(1, _WIDTH), 3584)
    hidden_act: str = entry(only("silu"), "silu")
    intermediate_size: int = entry(whole(1, _MLP), 3420)
    num_heads: int = entry(_HEADS, 16)
    in_channels: int = entry(only(3), 3, ("in_chans",))
    patch_size: int = entry(only(14), 14)
    spatial_merge_size: int = entry(only(2), 2)
    temporal_patch_size: int = entry(only(2), 2)
    window_size: int = entry(whole(28, _WIDTH), 112)
    out_hidden_size: int = entry(whole(1, _WIDTH), 3584)
    fullatt_block_indexes: tuple[int, ...] = entry(list_of(whole(0, _DEPTH), 0, _DEPTH), (7, 15, 23, 31))
    rope_parameters: VisionRope | None = entry(optional(record(VisionRope)), None)
    initializer_range: float = entry(_SPREAD, 0.02)


@dataclass(frozen=True)
class AudioConfig:
    """The audio encoder's configuration."""

    num_mel_bins: int = entry(only(128), 128)
    encoder_layers: int = entry(whole(1, _DEPTH), 32)
    encoder_attention_heads: int = entry(_HEADS, 20)
    encoder_ffn_dim: int = entry(whole(1, _MLP), 5120)
    d_model: int = entry(whole(4, _WIDTH), 1280)
    activation_function: str = entry(only("gelu"), "gelu")
    scale_embedding: bool = entry(only(False), False)
    initializer_range: float = entry(_SPREAD, 0.02)
    max_source_positions: int = entry(whole(100, _POSITIONS), 1500)
    n_window: int = entry(only(100), 100)
    output_dim: int = entry(whole(1, _WIDTH), 3584)


@dataclass(frozen=True)
class ThinkerConfig:
    """The Thinker's configuration."""

    text_config: TextConfig = entry(record(TextConfig))
    vision_config: VisionConfig = entry(record(VisionConfig))
    audio_config: AudioConfig = entry(record(AudioConfig))
    audio_token_index: int = entry(_TOKEN, 151646, ("audio_token_id",))
    image_token_index: int = entry(_TOKEN, 151655, ("image_token_id",))
    video_token_index: int = entry(_TOKEN, 151656, ("video_token_id",))
    position_id_per_seconds: int = entry(only(GEOMETRY.positions_per_second), GEOMETRY.positions_per_second)
    seconds_per_chunk: int = entry(only(GEOMETRY.chunk_seconds), GEOMETRY.chunk_seconds)
    audio_start_token_id: int = entry(_TOKEN, 151647)
    audio_end_token_id: int = entry(_TOKEN, 151648)
    vision_start_token_id: int | None = entry(optional(_TOKEN), None)  # which only transformers asks for
    vision_end_token_id: int | None = entry(optional(_TOKEN), None)
    user_token_id: int = entry(_TOKEN, 872)
    eos_token_id: int | tuple[int, ...] | None = entry(END_TOKENS, None)
    initializer_range: float = entry(_SPREAD, 0.02)
    tie_word_embeddings: bool = entry(flag, False)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        own = as_ids(self.eos_token_id)
        return own or as_ids(self.text_config.eos_token_id)

    def for_transformers(self) -> Any:
        """The same as transformers' Qwen2_5OmniThinkerConfig."""
        from transformers import Qwen2_5OmniThinkerConfig

        values = _plain(asdict(self))
        values["text_config"]["rope_parameters"] = self.text_config.rope_for_transformers()
        for part, name in (
            ("text_config", "rope_scaling"), ("text_config", "rope_theta"), ("text_config", "head_dim"),
            ("text_config", "layer_types"), ("vision_config", "rope_parameters"),
        ):  # fmt: skip
            del values[part][name]
        for name in ("vision_start_token_id", "vision_end_token_id"):
            if values[name] is None:
                del values[name]
        make: Any = Qwen2_5OmniThinkerConfig
        return make(**values)


@dataclass(frozen=True)
class _Kind:
    """What config.json says that it configures."""

    model_type: str = entry(text, "model of unknown type")


def as_ids(value: int | tuple[int, ...] | None) -> frozenset[int]:
    """What END_TOKENS has read, as ids."""
    return frozenset() if value is None else frozenset([value] if isinstance(value, int) else value)


def read_config(value: Any) -> tuple[str, ThinkerConfig]:
    """The prefix of the Thinker's tensors, and its configuration, from the value of config.json.

    Raises:
        ValueError: it is another architecture's, or has an entry that is wrong; the message goes on after the file's
            name.
    """
    kind = record(_Kind)(value)
    if kind.model_type not in ARCHITECTURES:
        raise ValueError(f"it is a {quotable(kind.model_type)}; omniqa runs Qwen2.5-Omni (qwen2_5_omni)")
    inside = "thinker_config" in value
    try:
        config = record(ThinkerConfig)(value["thinker_config"] if inside else value)
        _check(config)
    except WrongEntry as error:
        raise error.below("thinker_config") if inside else error from error
    return ARCHITECTURES[kind.model_type], config


def find_quantization(value: Any) -> StoredQuantization | None:
    """How the weights are quantised, by the value of a config.json that `read_config` takes; None if they are floats.

    The entry may stand at the top, in thinker_config or in its text_config.

    Raises:
        ValueError: the entry is wrong; the message goes on after the file's name.
    """
    thinker = value.get("thinker_config", value)
    for place in (value, thinker, thinker.get("text_config", {})):
        if isinstance(place, Mapping) and place.get(SETTINGS) is not None:
            return read_quantization(place[SETTINGS])
    return None


def _check(config: ThinkerConfig) -> None:
    """What must go together."""
    text, vision, audio = config.text_config, config.vision_config, config.audio_config
    heads = text.num_attention_heads
    _divides(heads, text.hidden_size, "text_config.num_attention_heads", "hidden_size")
    _divides(text.kv_heads, heads, "text_config.num_key_value_heads", "num_attention_heads")
    _divides(vision.num_heads, vision.hidden_size, "vision_config.num_heads", "hidden_size")
    _divides(audio.encoder_attention_heads, audio.d_model, "audio_config.encoder_attention_heads", "d_model")
    if text.head_dim not in (None, text.head_size):
        raise WrongEntry(f"is {text.head_dim}, not hidden_size / num_attention_heads", "text_config.head_dim")
    if text.layer_types is not None and len(text.layer_types) != text.num_hidden_layers:
        raise WrongEntry(f"has {len(text.layer_types)} values, not num_hidden_layers", "text_config.layer_types")
    if text.rope is None:
        raise WrongEntry("is missing", "text_config.rope_parameters")
    if 2 * sum(text.rope.mrope_section) != text.head_size:
        raise WrongEntry(
            f"has the sum {sum(text.rope.mrope_section)}, not half of a head's {text.head_size} numbers",
            f"text_config.{'rope_scaling' if text.rope_parameters is None else 'rope_parameters'}.mrope_section",
        )
    if vision.hidden_size // vision.num_heads % 4:  # halves of a head turn by row and column, in pairs
        raise WrongEntry("gives heads whose size is no multiple of 4", "vision_config.num_heads")
    if audio.d_model % 2:
        raise WrongEntry(f"is {audio.d_model}, not even", "audio_config.d_model")
    for width, path in (
        (vision.out_hidden_size, "vision_config.out_hidden_size"),
        (audio.output_dim, "audio_config.output_dim"),
    ):
        if width != text.hidden_size:
            raise WrongEntry(f"is {width}, not text_config.hidden_size, which is {text.hidden_size}", path)


def _divides(part: int, whole_size: int, path: str, whole_name: str) -> None:
    if whole_size % part:
        raise WrongEntry(f"is {part}, which does not divide {whole_name}, {whole_size}", path)


def _plain(value: Any) -> Any:
    """The same with lists in place of tuples, as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
