"""Which audio and video tokens enter the decoder, and which leave it after each layer."""
