"""The numbers that the whole sequence is counted in, and what marks each token's kind."""

POSITIONS_PER_SECOND = 25  # one position id, and one audio token, is 40 ms
SECONDS_PER_CHUNK = 2
POSITIONS_PER_CHUNK = POSITIONS_PER_SECOND * SECONDS_PER_CHUNK

VIDEO, AUDIO, TEXT = 0, 1, 2  # the values of every `modality` array
