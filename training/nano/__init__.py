"""Trains nano on its world: `python -m training.nano.train`, from the root of the repository."""
