"""Checkpoints that are quantised in their files: which formats, what they need, and what they take. Free of torch.

transformers' own quantizers load them (`omniqa.models.qwen2_5_omni.quantized`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from omniqa.errors import ModelError
from omniqa.models.hub import CONFIG
from omniqa.typed_json import WrongEntry, quotable

SETTINGS = "quantization_config"
_FLOAT_BITS = 16
_NF4_BITS = 4.5  # with a float32 for each 64 of them
_FOUR_BITS = ("load_in_4bit", "_load_in_4bit")


@dataclass(frozen=True)
class StoredFormat:
    """A format of quantised weights.

    Attributes:
        extra: omniqa's extra that installs what it needs.
        packages: the modules that it imports.
        skipped: the entry of its settings that lists linear layers that stay floats; None if it has none.
    """

    extra: str
    packages: tuple[str, ...]
    skipped: str | None = None


FORMATS = {
    "gptq": StoredFormat("gptq", ("accelerate", "optimum", "gptqmodel")),
    "awq": StoredFormat("awq", ("accelerate", "gptqmodel"), "modules_to_not_convert"),
    "bitsandbytes": StoredFormat("bnb", ("accelerate", "bitsandbytes"), "llm_int8_skip_modules"),
    "compressed-tensors": StoredFormat("compressed-tensors", ("accelerate", "compressed_tensors"), "ignore"),
    "torchao": StoredFormat("torchao", ("accelerate", "torchao"), "modules_to_not_convert"),
    "fp8": StoredFormat("fp8", ("accelerate",), "modules_to_not_convert"),
}


@dataclass(frozen=True)
class StoredQuantization:
    """How a checkpoint's weights are quantised.

    Attributes:
        method: the format's name in config.json.
        settings: the whole entry of config.json.
    """

    method: str
    settings: Mapping[str, Any]

    @property
    def format(self) -> StoredFormat | None:
        """What is known of the format; None if only transformers may know it."""
        return FORMATS.get(self.method)

    def bits(self, on_gpu: bool) -> float:
        """Bits of memory that a quantised weight takes once it is loaded, its share of scales and zeros included.

        transformers expands compressed-tensors, and on a CPU also FP8, to the dtype of the floats.
        """
        if self.method in ("gptq", "awq"):
            bits, group = self._number("bits", 4), self._number("group_size", 128)
            return bits + ((_FLOAT_BITS + bits) / group if group > 0 else 0)
        if self.method == "bitsandbytes":
            return _NF4_BITS if any(self.settings.get(name) for name in _FOUR_BITS) else 8
        if self.method == "torchao":
            return 4 + _FLOAT_BITS / 128 if "Int4" in str(self.settings.get("quant_type")) else 8
        return 8 if self.method == "fp8" and on_gpu else _FLOAT_BITS

    @property
    def decoder_only(self) -> bool:
        """Whether only the decoder's layers are quantised, as published in this format."""
        return self.method in ("gptq", "awq")

    def _number(self, name: str, usual: int) -> int:
        value = self.settings.get(name)
        return value if isinstance(value, int) else usual


def read_quantization(value: Any) -> StoredQuantization:
    """Reads the entry `quantization_config`. Raises WrongEntry."""
    if not isinstance(value, Mapping):
        raise WrongEntry("is no object", SETTINGS)
    in_bits = any(value.get(name) for name in ("load_in_4bit", "load_in_8bit"))  # bitsandbytes, before it had a name
    method = value.get("quant_method", "bitsandbytes" if in_bits else None)
    if not isinstance(method, str):
        raise WrongEntry("names no method", f"{SETTINGS}.quant_method")
    return StoredQuantization(method, value)


def require_packages(name: str, quantization: StoredQuantization) -> None:
    """Make sure that what a format needs is installed, before anything large is downloaded.

    Args:
        name: the checkpoint, for the message.
        quantization: how it is quantised.

    Raises:
        ModelError: something is missing; the advice names omniqa's extra.
    """
    known = quantization.format
    missing = [package for package in known.packages if find_spec(package) is None] if known else []
    if known and missing:
        raise ModelError(
            f"{name}: {CONFIG} says that it is quantised ({quantization.method}), and that needs {', '.join(missing)}.",
            advice=f"Install it by pip install 'omniqa[{known.extra}]'.",
        )


def require_packed(name: str, quantization: StoredQuantization, packed: Collection[str]) -> None:
    """Make sure that some layers (`packed`) of a checkpoint are quantised if its configuration says so.

    Raises:
        ModelError: all of them are floats.
    """
    if not packed:
        raise ModelError(
            f"{name}: {CONFIG} says that it is quantised ({quotable(quantization.method)}), but all its weights are "
            "floats.",
            advice=f"Take {SETTINGS} out of it, or get the checkpoint again.",
        )


def failed(name: str, quantization: StoredQuantization, reason: str) -> ModelError:
    """The error for quantised weights that transformers does not load."""
    return ModelError(
        f"{name}: transformers can't load these weights here, which {CONFIG} says are quantised by "
        f"{quotable(quantization.method)} ({quotable(reason)})."
    )
