"""The published methods, one file or folder each. `omniqa.pruning.registry` finds them here; there is no list."""
