"""An OpenAI-compatible server of one model, and its page."""
