"""The Thinker: finding and loading it, and driving its encoders and decoder."""
