"""What the stages are called, in words. Free of torch."""

STAGE_NAMES = {
    "import": "starting",
    "load": "loading the model",
    "cache": "cache",
    "decode": "decoding",
    "preprocess": "log-mel",
    "vision_encoder": "vision encoder",
    "audio_encoder": "audio encoder",
    "input_pruning": "input pruning",
    "prefill": "prefill",
    "generate": "generating",
    "overlapped": "of these beside another",
    "time_to_first_token": "to the first token",
    "total": "in all",
    "measure": "measuring",
}
