"""Which audio and video tokens enter the decoder, and which leave it after each layer.

What a method's file needs is here: `from omniqa.pruning import Kept, Method, Plan`. See docs/methods.md.
"""

from omniqa.pruning.budget import ClipTokens, Plan, Unreachable
from omniqa.pruning.contract import Kept, LayerSignals, MediaTokens, Method
from omniqa.pruning.vision_rule import VisionRule

__all__ = ["ClipTokens", "Kept", "LayerSignals", "MediaTokens", "Method", "Plan", "Unreachable", "VisionRule"]
