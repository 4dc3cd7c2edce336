"""Clips are found by what they are, whatever they are called; a shard is told by the name alone."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from omniqa.errors import UsageError
from omniqa.jobs.clips import ClipPath, Shard, find, is_media, listed, named_as_media
from tests.media.clips import Audio, Video, grey, tone, write_clip


def test_a_folder_gives_every_file_below_it_in_order(tmp_path):
    for name in ("b/2.mp4", "b/10", "a.txt", "Z.mp4", ".hidden.mp4", ".git/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [os.path.relpath(clip.path, tmp_path) for clip in find([str(tmp_path)])]
    assert names == ["Z.mp4", "a.txt", "b/10", "b/2.mp4"]


def test_each_clip_is_there_once_however_it_is_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    (tmp_path / "-b.mp4").touch()
    assert find(["a.mp4", "./a.mp4", "a.mp4"]) == [ClipPath("a.mp4", "a.mp4")]
    assert [clip.name for clip in find(["-b.mp4", ".", "./"])] == ["-b.mp4", "a.mp4"]
    assert not find([".", "a.mp4"])[1].found, "what is named is wanted, also where a folder has it"
    assert find(["gone.mp4"]) == [ClipPath("gone.mp4", "gone.mp4")], "what is wrong with it is told later"


def test_links_to_folders_are_not_followed_and_do_not_loop(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").touch()
    (tmp_path / "in" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert len(find([str(tmp_path)])) == 1


@pytest.mark.parametrize(("zero", "end"), [(True, b"\0"), (False, b"\n")])
def test_a_list_of_names_may_hold_any_bytes(zero, end):
    names = [b"plain.mp4", b"two words.mp4", b"--leading", b"\xff\xfe.mp4", "é 狗".encode()]
    if zero:
        names.append(b"new\nline.mp4")
    for last in (end, b""):
        assert [os.fsencode(name) for name in listed([end.join(names), last], zero)] == names


def test_media_is_told_by_content(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", Video([grey(0)] * 5, 5)).rename(tmp_path / "clip.txt")
    sound = write_clip(tmp_path / "sound.wav", None, Audio(tone(0.5), codec="pcm_s16le")).rename(tmp_path / "sound")
    assert is_media(str(clip))
    assert is_media(str(sound))
    Image.fromarray(grey(0)).save(tmp_path / "still.jpg")
    Image.fromarray(grey(0)).save(tmp_path / "still.png")
    (tmp_path / "text.mp4").write_text("no media\n" * 50)
    (tmp_path / "script.py").write_text("print('no media')\n")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{clip}\n")
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile '{clip}'\n")
    (tmp_path / "empty").touch()
    for name in ("still.jpg", "still.png", "text.mp4", "script.py", "list.m3u8", "list.ffconcat", "empty", "gone"):
        assert not is_media(str(tmp_path / name)), name


def test_what_was_asked_for_or_looks_like_media_is_never_left_out():
    assert named_as_media(ClipPath("x", "x"))
    assert named_as_media(ClipPath("x.MP4", "x.MP4", found=True))
    assert not named_as_media(ClipPath("x.txt", "x.txt", found=True))


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5", "", "1/3 "])
def test_no_other_shards(text):
    with pytest.raises(UsageError, match="I/N"):
        Shard.parse(text)


@given(st.lists(st.text(st.characters(codec="utf-8")), unique=True), st.integers(1, 20))
def test_every_clip_is_in_one_shard(names, count):
    shards = [Shard.parse(f"{index}/{count}") for index in range(1, count + 1)]
    assert all(sum(shard.takes(name) for shard in shards) == 1 for name in names)


def test_shards_stay_as_they_are():
    """The same on every machine and in every version: results of a year ago are gone on with."""
    assert [name for name in map(str, range(20)) if Shard(2, 4).takes(name)] == ["1", "14"]
    assert Shard(1, 2).takes(os.fsdecode(b"\xff")) != Shard(2, 2).takes(os.fsdecode(b"\xff"))


def test_shards_are_of_about_the_same_size():
    counts = [sum(Shard(index, 8).takes(f"clips/{n}.mp4") for n in range(8000)) for index in range(1, 9)]
    assert max(counts) - min(counts) < 200
