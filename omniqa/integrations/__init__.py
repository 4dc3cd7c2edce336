"""omniqa inside other programs."""
