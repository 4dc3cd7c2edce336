"""Methods side by side on one clip: time, tokens, memory, and agreement with full tokens. Built on the engine."""
