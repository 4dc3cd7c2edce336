"""omniqa: answers questions about videos, from picture and sound."""

__version__ = "0.1.0"
