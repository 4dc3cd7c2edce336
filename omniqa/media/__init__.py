"""From a file to frames at known times and 16 kHz sound, both on the file's clock."""
