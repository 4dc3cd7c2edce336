"""Encoded clips on the disk, so that the same file need not be encoded again."""
