"""OmniSift (arXiv 2602.04804): `method.py` prunes, `selector.py` is the trained network that scores audio."""

from omniqa.pruning.methods.omnisift.method import OmniSift

__all__ = ["OmniSift"]
