"""A file is probed once, and what is known of it is passed on as long as it holds."""

import os

import numpy as np
import pytest

from omniqa.errors import MediaError
from omniqa.media import probe
from omniqa.media.access import Access
from omniqa.media.clip import sample
from omniqa.media.sampling import ClipOptions
from omniqa.media.source import open_source
from tests.media.clips import Audio, Video, grey, tone, write_clip

SMALL = ClipOptions(min_pixels=784, max_pixels=16 * 784)


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", Video([grey(k) for k in range(24)], 12), Audio(tone(2)))


@pytest.fixture
def probes(monkeypatch):
    """The paths that are probed."""
    seen, read = [], probe._read_info
    monkeypatch.setattr(probe, "_read_info", lambda path, access: seen.append(str(path)) or read(path, access))
    return seen


def test_a_source_is_sampled_without_being_probed_again(clip, probes):
    source = open_source(clip)
    taken = sample(source, SMALL)
    assert probes == [str(clip)]
    assert source.seconds > 0
    whole = sample(clip, SMALL)
    assert np.array_equal(taken.frames, whole.frames)
    assert np.array_equal(taken.waveform, whole.waveform)
    assert taken.info == whole.info == source.info


def test_a_file_that_has_changed_is_probed_again(clip, probes):
    source = open_source(clip)
    write_clip(clip, Video([grey(k) for k in range(48)], 12), Audio(tone(4)))
    os.utime(clip, (0, 0))  # as if the copy kept its old time: it is not the old one
    assert len(sample(source, SMALL).frames) == 8
    assert len(probes) == 2


def test_another_way_of_opening_is_another_probe(clip, probes):
    source = open_source(clip)
    assert open_source(source) is source
    with pytest.raises(MediaError, match="audio track"):
        open_source(source, Access(audio_track=2))
    assert len(probes) == 2


def test_a_file_that_is_gone_is_an_error_and_not_remembered(clip):
    source = open_source(clip)
    clip.unlink()
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        sample(source, SMALL)


@pytest.mark.parametrize("cached", [False, True])
def test_one_question_probes_a_file_once(qa, clip, probes, cached, tmp_path):
    if cached:
        from omniqa.cache.encodings import EncodingCache
        from omniqa.cache.folder import CacheFolder
        from omniqa.pipeline.engine import OmniQA

        qa = OmniQA(qa.name, qa.model, cache=EncodingCache(CacheFolder(tmp_path / "cache", 10**9)))
    qa.ask(clip, "What is seen?", sampling=SMALL)
    assert probes == [str(clip)]
    source = open_source(clip)
    answer = qa.ask(source, "What is seen?", sampling=SMALL)
    assert len(probes) == 2
    assert answer.video == str(clip)
    assert cached or answer.stats.timing_s["decode"] >= source.seconds
