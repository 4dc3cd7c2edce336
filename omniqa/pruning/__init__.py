"""Which audio and video tokens enter the decoder, and which leave it after each layer.

What a method's file needs is here: `from omniqa.pruning import Kept, Method, Plan`. See docs/add-a-method.md.
"""

from omniqa.pruning.budget import ClipTokens, Plan, Unreachable
from omniqa.pruning.contract import (
    AudioAttention,
    AuxNetwork,
    HiddenStates,
    Kept,
    LayerKept,
    LayerKeys,
    LayerSignals,
    MediaTokens,
    Method,
    QueryEmbeddings,
    Scores,
    Signal,
    Times,
    VisionAttention,
)
from omniqa.pruning.vision_rule import VisionRule

__all__ = [
    "AudioAttention",
    "AuxNetwork",
    "ClipTokens",
    "HiddenStates",
    "Kept",
    "LayerKept",
    "LayerKeys",
    "LayerSignals",
    "MediaTokens",
    "Method",
    "Plan",
    "QueryEmbeddings",
    "Scores",
    "Signal",
    "Times",
    "Unreachable",
    "VisionAttention",
    "VisionRule",
]
