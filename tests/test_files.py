"""A file that must be one is read; a pipe, a device and a folder are refused at once."""

import os
import sys

import pytest

from omniqa.files import read_regular


def test_a_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link") == b"content"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files there")
def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name, words in (("pipe", "a pipe"), ("device", "a device"), (".", "a folder")):
        with pytest.raises(OSError, match=f"it is {words}, not a file"):
            read_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "gone")


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_regular(tmp_path / "sparse", 10)
