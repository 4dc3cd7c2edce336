"""Qwen2.5-Omni: its checkpoint, encoders, decoder, prompt and token layout."""
