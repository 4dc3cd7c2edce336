"""OmniDrop (arXiv 2605.14458): `method.py` prunes, `schedule.py` solves how many tokens each layer holds."""

from omniqa.pruning.methods.omnidrop.method import OmniDrop

__all__ = ["OmniDrop"]
