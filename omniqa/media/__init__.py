"""From a file to frames at known times and 16 kHz mono sound, both on the file's clock."""
