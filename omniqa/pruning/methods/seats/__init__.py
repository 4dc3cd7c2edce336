"""SEATS (arXiv 2605.20035): `method.py` prunes, `schedule.py` counts, `selection.py` chooses tokens of a window."""

from omniqa.pruning.methods.seats.method import Seats

__all__ = ["Seats"]
