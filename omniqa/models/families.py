"""The model families that omniqa knows, under names that no caller has to know them by. Free of torch.

The command line and the pipeline take checkpoints, published names and sizes from here. Today there is one family; a
further one is asked here, by the architecture that a checkpoint names.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omniqa.models.hub import NANO as NANO
from omniqa.models.qwen2_5_omni.checkpoint import DOWNLOADING as DOWNLOADING
from omniqa.models.qwen2_5_omni.checkpoint import HUB_3B as HUB_3B
from omniqa.models.qwen2_5_omni.checkpoint import HUB_7B as HUB_7B
from omniqa.models.qwen2_5_omni.checkpoint import KNOWN_LAYERS as KNOWN_LAYERS
from omniqa.models.qwen2_5_omni.checkpoint import Checkpoint as Checkpoint
from omniqa.models.qwen2_5_omni.checkpoint import cached as cached
from omniqa.models.qwen2_5_omni.checkpoint import check_name as check_name
from omniqa.models.qwen2_5_omni.checkpoint import decoder_layers as decoder_layers
from omniqa.models.qwen2_5_omni.checkpoint import find_checkpoint as find_checkpoint
from omniqa.models.qwen2_5_omni.checkpoint import pixel_bounds as pixel_bounds
from omniqa.models.qwen2_5_omni.flops import ModelShape as ModelShape

if TYPE_CHECKING:
    import torch

    from omniqa.models.base import Model
    from omniqa.runtime.quantize import Scheme, WeightStore


def stored_dtype(checkpoint: Checkpoint) -> "torch.dtype":
    """What a checkpoint's weights are loaded as if the user names no other dtype."""
    from omniqa.models.qwen2_5_omni import thinker

    return thinker.stored_dtype(checkpoint)


def load_model(
    checkpoint: Checkpoint,
    device: "torch.device",
    dtype: "torch.dtype",
    *,
    scheme: "Scheme | None" = None,
    store: "WeightStore | None" = None,
    layer_devices: "Sequence[torch.device]" = (),
) -> "Model":
    """Load a checked checkpoint onto `device`, for inference.

    Args:
        checkpoint: which.
        device: where its weights go.
        dtype: what they become, if they stay floats.
        scheme: how its linear layers are quantised; None leaves them floats.
        store: where quantised weights are found or kept.
        layer_devices: of each layer of its decoder; empty puts them on `device` like all else.

    Raises:
        ModelError: it can't be loaded.
    """
    from omniqa.models.qwen2_5_omni import thinker

    return thinker.load_thinker(checkpoint, device, dtype, scheme=scheme, store=store, layer_devices=layer_devices)
