"""Accuracy on sets of questions about clips, for several pruning methods side by side."""
