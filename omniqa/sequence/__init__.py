"""From grids and audio tokens to the interleaved token layout that the decoder reads."""
