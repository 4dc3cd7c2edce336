"""The steps from a file to an answer: preprocess, encode, prefill, answer."""
