"""A model's sizes, and how many operations a clip costs, from its configuration alone. Free of torch.

Two operations for each product and sum of matrices and attention; the rest of the arithmetic is not worth counting.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from typing import Any

from omniqa.models.qwen2_5_omni.checkpoint import (
    HUB_3B,
    HUB_7B,
    stored_dtype,
    stored_quantization,
    thinker_config,
)
from omniqa.models.qwen2_5_omni.config import AudioConfig, TextConfig, ThinkerConfig, VisionConfig
from omniqa.models.qwen2_5_omni.tensors import is_inner_linear, thinker_tensors
from omniqa.models.stored_quantization import StoredQuantization
from omniqa.pruning.budget import ClipTokens, Plan
from omniqa.pruning.vision_rule import VisionRule

BFLOAT16 = "bfloat16"


def _published(text: TextConfig) -> ThinkerConfig:
    """The configuration of a published model, whose encoders are those of the other."""
    width = text.hidden_size
    return ThinkerConfig(text, VisionConfig(hidden_size=1280, out_hidden_size=width), AudioConfig(output_dim=width))


PUBLISHED = {
    HUB_7B: _published(TextConfig(
        hidden_size=3584, intermediate_size=18944, num_attention_heads=28, num_key_value_heads=4, num_hidden_layers=28,
        vocab_size=152064,
    )),
    HUB_3B: _published(TextConfig(
        hidden_size=2048, intermediate_size=11008, num_attention_heads=16, num_key_value_heads=2, num_hidden_layers=36,
        vocab_size=151936,
    )),
}  # fmt: skip
_PATCH = 1176  # numbers of one patch: 14 × 14 pixels, three colours, two frames
_MERGED = 4  # patches of a token
_WINDOW = 64  # patches of a vision window
_MEL_FRAMES = 4  # of an audio token


@dataclass(frozen=True)
class ModelShape:
    """The sizes that work and memory depend on.

    Attributes:
        width: of the decoder, d.
        mlp: of its MLPs.
        heads: of its queries.
        kv_heads: of its keys and values.
        layers: of the decoder.
        parameters: how many numbers the Thinker's weights hold.
        linear_parameters: how many of them those of linear layers do, all but `lm_head`.
        decoder_parameters: how many of these those of the decoder's layers do.
        head_parameters: how many `lm_head`'s does.
        tied: whether `lm_head`'s weight is that of the embeddings.
        vision: the vision encoder's configuration.
        audio: the audio encoder's configuration.
        stored: the dtype of the weights in the file, by torch's name.
        quantization: how they are quantised there.
    """

    width: int
    mlp: int
    heads: int
    kv_heads: int
    layers: int
    parameters: int
    linear_parameters: int
    decoder_parameters: int
    head_parameters: int
    tied: bool
    vision: dict[str, Any]
    audio: dict[str, Any]
    stored: str = BFLOAT16
    quantization: StoredQuantization | None = None

    @classmethod
    def of(cls, model: str) -> "ModelShape":
        """By a model's name; the two on the hub are known without their files. Raises ModelError."""
        if model in PUBLISHED:
            return cls.of_config(PUBLISHED[model])
        return cls.of_config(thinker_config(model), stored_dtype(model), stored_quantization(model))

    @classmethod
    def of_config(
        cls, config: ThinkerConfig, stored: str = BFLOAT16, quantization: StoredQuantization | None = None
    ) -> "ModelShape":
        """By the Thinker's configuration, and the form of its weights in the file."""
        text, tensors = config.text_config, list(thinker_tensors(config))
        linear = {name: prod(shape) for name, shape in tensors if is_inner_linear(name, shape)}
        return cls(
            width=text.hidden_size,
            mlp=text.intermediate_size,
            heads=text.num_attention_heads,
            kv_heads=text.kv_heads,
            layers=text.num_hidden_layers,
            parameters=sum(prod(shape) for _, shape in tensors),
            linear_parameters=sum(linear.values()),
            decoder_parameters=sum(size for name, size in linear.items() if name.startswith("model.")),
            head_parameters=text.vocab_size * text.hidden_size,
            tied=config.tie_word_embeddings,
            vision=asdict(config.vision_config),
            audio=asdict(config.audio_config),
            stored=stored,
            quantization=quantization,
        )

    @property
    def kv_width(self) -> int:
        """Numbers of one token's keys in one layer; as many are of its values."""
        return self.width // self.heads * self.kv_heads

    def work(self, plan: Plan, text: int, rule: VisionRule | None = None) -> dict[str, float]:
        """Operations by stage of a clip as planned, with `text` tokens of text.

        Args:
            rule: the method's; counts if it decides inside the vision encoder.
        """
        clip = plan.clip
        return {
            "vision_encoder": self.vision_encoder(clip.grids, clip.tokens_per_grid, rule),
            "audio_encoder": self.audio_encoder(_MEL_FRAMES * clip.n_audio),
            "prefill": self.prefill([kept + text for kept in plan.kept]),
        }

    def vision_encoder(self, grids: int, tokens_per_grid: int, rule: VisionRule | None = None) -> float:
        """Operations for `grids` grids of `tokens_per_grid` tokens: patches, blocks with their windows, merger.

        Args:
            rule: if it decides before a block, only the tokens that it keeps have matrix products from there on.
                Attention stays dense.
        """
        width, depth, patches = self.vision["hidden_size"], self.vision["depth"], _MERGED * tokens_per_grid
        tokens, early = grids * tokens_per_grid, depth if rule is None or rule.block is None else rule.block
        kept = tokens if rule is None or early == depth else sum(rule.counts(grids, tokens_per_grid))
        full = len(self.vision["fullatt_block_indexes"])
        block = 4 * width**2 + 3 * width * self.vision["intermediate_size"]
        products = tokens * (_PATCH * width + early * block) + kept * (depth - early) * block
        attention = 2 * width * (full * patches + (depth - full) * min(_WINDOW, patches))
        merged = _MERGED * width
        return 2.0 * (_MERGED * (products + tokens * attention) + kept * (merged**2 + merged * self.width))

    def early_block(self, rule: VisionRule | None) -> int | None:
        """The block of the vision encoder before which a rule decides; None if it does after the last, or is none."""
        block = None if rule is None else rule.block
        return block if block is not None and block < self.vision["depth"] else None

    def vision_bytes(
        self, clip: ClipTokens, item: int, upcast: bool, together: int, rule: VisionRule | None = None
    ) -> int:
        """The vision encoder's largest moment: pixels, attention or MLP of a batch.

        Args:
            clip: its tokens, at least one grid.
            item: bytes of a hidden state's numbers.
            upcast: products are computed in float32 all the same.
            together: patches that are encoded together, if a grid has no more.
            rule: the method's. If it decides before a block, `together` counts the patches that are kept.
        """
        patches, block, kept = _MERGED * clip.tokens_per_grid, self.early_block(rule), 1.0
        grids = max(1, together // patches)
        if rule is not None and block is not None:
            of_window = max(1, sum(rule.counts(rule.window, clip.tokens_per_grid)))
            grids = rule.window * max(1, together // (_MERGED * of_window))
            kept = 1.0 if block else of_window / (rule.window * clip.tokens_per_grid)
        patches *= min(clip.grids, grids)
        width = self.vision["hidden_size"]
        pixels = 4 * _PATCH * 4  # float32: normalised, cut into patches, in windows
        attention = width * (5 * item + 20)  # one of queries and keys turns in float32
        mlp = self.vision["intermediate_size"] * (8 if upcast else 3 * item) + 3 * width * item
        return round(patches * max(pixels, kept * max(attention, mlp)))

    def audio_importance_bytes(self, audio_tokens: int, item: int) -> int:
        """Keys and queries of the last audio layer, two positions a token, which stay for audio importance."""
        return 2 * audio_tokens * 2 * self.audio["d_model"] * item

    def audio_encoder(self, mel_frames: int) -> float:
        """Operations for log-mel of `mel_frames` frames: two convolutions, layers with windows of 2 s, projection."""
        audio, width, positions = self.audio, self.audio["d_model"], mel_frames // 2
        convolutions = mel_frames * 3 * audio["num_mel_bins"] * width + positions * 3 * width**2
        layer = 4 * width**2 + 2 * width * audio["encoder_ffn_dim"] + 2 * width * audio["n_window"]
        tokens = mel_frames / _MEL_FRAMES
        return 2.0 * (convolutions + positions * audio["encoder_layers"] * layer + tokens * width * self.width)

    def prefill(self, lengths: Sequence[float]) -> float:
        """Operations of the decoder where layer l holds `lengths`[l] tokens, text included.

        Queries, keys, values and causal attention of all, the rest of those that stay; of the last layer one row.
        """
        kv = self.kv_width
        project, rest = self.width * (self.width + 2 * kv), self.width**2 + 3 * self.width * self.mlp
        layers = (n * project + n * n * self.width + after * rest for n, after in pairwise(lengths))
        last = lengths[-1] * 2 * self.width * kv + self.width**2 + 2 * lengths[-1] * self.width + rest
        return 2.0 * (sum(layers) + last)
