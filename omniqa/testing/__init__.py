"""Small untrained checkpoints in the layout of Qwen2.5-Omni, for tests, benchmarks and the training of nano."""
