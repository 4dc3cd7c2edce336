"""A clip that was encoded once is answered from the cache, with the same answer; what is damaged is encoded anew."""

import json
import multiprocessing
import os
import time
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

import omniqa
from omniqa.cache.encodings import EncodingCache, clip_key, encoder_identity, file_key
from omniqa.cache.folder import SUFFIX, CacheFolder
from omniqa.errors import OutOfMemoryError
from omniqa.media.sampling import ClipOptions
from omniqa.pipeline.engine import OmniQA
from omniqa.runtime.generation_options import GenerationOptions
from tests.media.cases import damaged
from tests.media.clips import Audio, Video, grey, tone, write_clip
from tests.media.faults import Faults
from tests.models.qwen2_5_omni.clips import CLIPS, make_clip
from tests.near import near

SAMPLING = ClipOptions(fps=1, min_pixels=784)
SHORT = GenerationOptions(4)


@pytest.fixture
def folder(tmp_path):
    return CacheFolder(tmp_path / "cache", 10**9)


@pytest.fixture
def cached(qa, folder):
    """The small model, with a cache."""
    return OmniQA(qa.name, qa.model, cache=EncodingCache(folder))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_clip(path, Video([grey(i % 8, 112, 168) for i in range(30)], 10), Audio(tone(3.0)))


@pytest.fixture
def no_encoders(monkeypatch):
    """Call it, and neither a decoder of media nor an encoder may run from then on."""

    def call():
        def refuse(*given, **named):
            raise AssertionError("this was done already")

        monkeypatch.setattr("omniqa.pipeline.preprocess.sample", refuse)
        monkeypatch.setattr("omniqa.models.qwen2_5_omni.vision.VisionEncoder._encode_grids", refuse)
        monkeypatch.setattr("omniqa.models.qwen2_5_omni.audio.AudioEncoder._encode_windows", refuse)

    return call


def files(folder):
    return sorted(folder.folder.glob(f"*{SUFFIX}")) if folder.folder.is_dir() else []


def timeless(answer):
    return answer.to_dict() | {"timing_s": None, "memory": None}


def test_the_same_file_again_skips_decoding_and_both_encoders(cached, folder, clip, tmp_path, no_encoders):
    first = cached.ask(clip, "What is seen?", sampling=SAMPLING, decoding=SHORT)
    moved = tmp_path / "the same under another name.mp4"
    moved.write_bytes(clip.read_bytes())
    no_encoders()
    again = cached.ask(moved, "What is seen?", sampling=SAMPLING, decoding=SHORT)
    assert timeless(again) == near(timeless(first)) | {"video": str(moved)}
    timing = again.stats.timing_s
    assert (timing["decode"], timing["vision_encoder"], timing["audio_encoder"]) == (0, 0, 0)
    assert timing["time_to_first_token"] > timing["cache"] > 0
    assert len(files(folder)) == 1


@pytest.mark.parametrize("kind", CLIPS)
def test_what_is_read_is_what_was_written(qa, folder, kind):
    cache = EncodingCache(folder)
    video = qa.encode(make_clip(**CLIPS[kind]))
    assert cache.add("key", video.name, video) is None
    read = cache.find("key").media
    assert (read.shape, read.summary, read.start_s) == (video.shape, video.summary, video.start_s)
    assert torch.equal(read.video, video.video)
    assert (read.audio is None) == (video.audio is None)
    if read.audio:
        assert torch.equal(read.audio.embeddings, video.audio.embeddings)
        torch.testing.assert_close(read.audio.attention_received("global"), video.audio.attention_received("global"))


def test_another_sampling_model_or_precision_is_another_clip(qa, clip):
    thinker = qa.model
    parts = (thinker.visual, thinker.audio_tower)
    identity = encoder_identity(parts)
    assert identity == encoder_identity(parts)
    keys = {file_key(clip, SAMPLING, identity), file_key(clip, replace(SAMPLING, fps=2), identity)}
    keys |= {file_key(clip, replace(SAMPLING, start=1), identity), file_key(clip, SAMPLING, encoder_identity(parts, 3))}
    half = [torch.nn.ModuleList([torch.nn.Linear(3, 3)]).to(torch.bfloat16)]
    full = [torch.nn.ModuleList([torch.nn.Linear(3, 3)])]
    assert encoder_identity(half) != encoder_identity(full)
    assert len(keys) == 4


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_other_weights_are_another_model(size):
    part = torch.nn.Linear(size, 1, bias=False)
    before = encoder_identity([part])
    with torch.no_grad():
        part.weight.mul_(1.0001)
    assert encoder_identity([part]) != before


def test_frames_at_hand_are_known_by_what_they_show(cached, no_encoders):
    first = cached.encode(make_clip(frames=4, seconds=2.0))
    other = clip_key(make_clip(frames=4, seconds=2.0, seed=1), "")
    assert other != clip_key(make_clip(frames=4, seconds=2.0), "")
    no_encoders()
    assert torch.equal(cached.encode(make_clip(frames=4, seconds=2.0)).video, first.video)


def test_a_file_that_changes_while_it_is_read_is_answered_from_and_not_kept(
    cached, folder, clip, tmp_path, monkeypatch
):
    """The key is of the content before; what was decoded may be the content after."""
    path = tmp_path / "cam.mp4"
    path.write_bytes(clip.read_bytes())

    def slow(*given):
        os.utime(path, (0, 0))
        return file_key(*given)

    with monkeypatch.context() as patch:
        patch.setattr("omniqa.pipeline.preprocess.file_key", slow)
        cached.ask(path, "What?", sampling=SAMPLING, decoding=SHORT)
    assert files(folder) == []
    cached.ask(path, "What?", sampling=SAMPLING, decoding=SHORT)
    assert len(files(folder)) == 1


def test_a_folder_that_cannot_be_written_costs_no_answer(qa, tmp_path, clip):
    (tmp_path / "file").write_text("")
    broken = OmniQA(qa.name, qa.model, cache=EncodingCache(CacheFolder(tmp_path / "file" / "below", 10**9)))
    answer = broken.ask(clip, "What?", sampling=SAMPLING, decoding=SHORT)
    assert "could not be kept" in answer.stats.media.warnings[0]


def test_a_file_that_is_not_there_is_told_as_ever(cached, tmp_path):
    with pytest.raises(omniqa.errors.MediaError, match="was not found"):
        cached.ask(tmp_path / "none.mp4", "What?")


def entry(folder, key, size, age):
    """A file that looks like an entry, last used `age` seconds ago."""
    folder.folder.mkdir(exist_ok=True)
    path = folder.path(key)
    path.write_bytes(b"\0" * size)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_the_least_recently_used_entries_go_first(tmp_path):
    folder = CacheFolder(tmp_path, 2500)
    old, middle, new = (entry(folder, key, 1000, age) for key, age in (("a", 300), ("b", 200), ("c", 100)))
    folder.used(old)
    folder.shrink()
    assert (old.exists(), middle.exists(), new.exists()) == (True, False, True)
    assert [one.path for one in folder.entries()] == [old, new]


def test_what_a_crash_left_is_no_entry_and_goes_in_time(tmp_path):
    folder = CacheFolder(tmp_path, 10**6)
    young, old = folder.unfinished("young"), folder.unfinished("old")
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    assert folder.entries() == []
    folder.shrink()
    assert (young.exists(), old.exists()) == (True, False)


def test_clear_leaves_other_files_alone(tmp_path):
    folder = CacheFolder(tmp_path, 10**6)
    mine, other = entry(folder, "a", 10, 0), tmp_path / "holiday.safetensors"
    other.write_text("not ours")
    assert [one.path for one in folder.clear()] == [mine]
    assert (mine.exists(), other.exists()) == (False, True)


def _write_often(path, number):
    cache = EncodingCache(CacheFolder(path, 30_000))
    video = _small(number)
    for round in range(20):
        assert cache.add(f"key{round % 3}", "clip", video) is None
        found = cache.find(f"key{(round + 1) % 3}")
        assert found.warning is None
        assert found.media is None or bool((found.media.video == found.media.video[0, 0]).all())


def _small(number):
    from fractions import Fraction

    from omniqa.media.summary import MediaSummary
    from omniqa.models.base import MediaShape
    from omniqa.models.encoded_media import EncodedMedia

    summary = MediaSummary(1.0, 2, 2.0, 56, 56, 0.0, ())
    shape = MediaShape((Fraction(0),), 5, 10, 0)
    embeddings = torch.full((50, 64), float(number))
    return EncodedMedia(start_s=0.0, shape=shape, video=embeddings, audio=None, summary=summary)


def test_several_processes_write_read_and_evict_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_often, args=(tmp_path / "cache", number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_the_header_tells_about_the_clip_without_its_tensors(qa, folder):
    EncodingCache(folder).add("key", "arrays", qa.encode(make_clip(frames=4, seconds=2.0)))
    (one,) = folder.entries()
    assert one.about["name"] == "arrays"
    assert one.about["summary"]["frames"] == 4
    assert one.bytes == one.path.stat().st_size
    assert json.dumps(one.about)
    assert np.isclose(one.used, time.time(), atol=60)


def test_a_clip_read_with_damage_is_answered_from_and_not_kept(cached, folder, tmp_path):
    answer = cached.ask(damaged(tmp_path / "damaged"), "What?", sampling=SAMPLING, decoding=SHORT)
    assert any("Damaged" in warning for warning in answer.stats.media.warnings)
    assert files(folder) == []


def test_a_clip_whose_memory_runs_out_is_not_kept(cached, folder, clip, monkeypatch):
    """One packet for which there is no memory is no damage: there is no answer, and nothing in the cache."""
    room = Faults(av.error.MemoryError(12, "Cannot allocate memory"), at=25)
    with monkeypatch.context() as patch:
        room.put_in(patch)
        with pytest.raises(OutOfMemoryError):
            cached.ask(clip, "What?", sampling=SAMPLING, decoding=SHORT)
    assert files(folder) == []
    assert cached.ask(clip, "What?", sampling=SAMPLING, decoding=SHORT).stats.media.warnings == ()
    assert len(files(folder)) == 1


def test_a_clip_without_sound_is_kept(cached, folder, tmp_path):
    silent = write_clip(tmp_path / "silent.mp4", Video([grey(k, 112, 168) for k in range(8)], 4))
    cached.ask(silent, "What?", sampling=SAMPLING, decoding=SHORT)
    assert len(files(folder)) == 1
