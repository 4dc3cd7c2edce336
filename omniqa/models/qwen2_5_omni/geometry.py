"""What Qwen2.5-Omni counts pictures, sound and time in."""

from omniqa.models.base import STANDARD

GEOMETRY = STANDARD
