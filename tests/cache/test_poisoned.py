"""Whatever stands in an entry's place, the answer is the one without a cache, and the entry is made anew."""

import json
import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from omniqa.cache.encodings import DTYPES, EncodingCache, as_bytes
from omniqa.cache.entry import METADATA, content_digest, read_header
from omniqa.cache.folder import SUFFIX, CacheFolder
from omniqa.errors import OutOfMemoryError
from omniqa.pipeline.engine import OmniQA
from omniqa.pruning import registry
from omniqa.runtime.generation_options import GenerationOptions
from tests.models.qwen2_5_omni.clips import make_clip

SEEDS = range(5)
TERA = 2**40


class Entry(NamedTuple):
    """A sound entry, taken apart. about, tensors: of its header. other: another clip's entry."""

    path: Path
    content: bytes
    header: dict[str, Any]
    payload: bytes
    other: bytes

    def write(self, header: Any, payload: bytes | None = None) -> None:
        """The same with another header; an object, or its text."""
        text = (header if isinstance(header, str) else json.dumps(header)).encode()
        self.path.write_bytes(struct.pack("<Q", len(text)) + text + (self.payload if payload is None else payload))

    def told(self) -> tuple[str, dict[str, Any]]:
        """The digest, and what is said about the clip."""
        digest, _, about = self.header["__metadata__"][METADATA].partition(" ")
        return digest, json.loads(about)

    def tell(self, about: dict[str, Any] | str) -> None:
        """Say something else about the clip."""
        text = about if isinstance(about, str) else json.dumps(about)
        self.write(self.header | {"__metadata__": {METADATA: f"{self.told()[0]} {text}"}})

    def forge(self, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> None:
        """Another entry whose digest is right: what is said about the clip and its tensors, changed."""
        about = self.told()[1]
        with safe_open(self.path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        change(about, tensors)
        text = json.dumps(about)
        described = {name: (DTYPES[one.dtype], tuple(one.shape)) for name, one in tensors.items()}
        digest = content_digest(text, described, lambda name: [as_bytes(tensors[name])])
        save_file({name: one.contiguous() for name, one in tensors.items()}, self.path, {METADATA: f"{digest} {text}"})


def _with(tree: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    """A copy of nested objects with one entry changed."""
    first, *rest = path
    return tree | {first: _with(tree[first], *rest, value=value) if rest else value}


def truncated(entry, k):
    entry.path.write_bytes(entry.content[: (0, 3, 8, len(entry.content) // 2, -1)[k]])


def header_flipped(entry, k):
    data, length = bytearray(entry.content), struct.unpack("<Q", entry.content[:8])[0]
    at = (0, 2, 8, 9 + length // 3, 8 + 2 * length // 3)[k]
    data[at] ^= 1 << k
    entry.path.write_bytes(data)


def payload_flipped(entry, k):
    data, chance = bytearray(entry.content), random.Random(k)
    data[-1 - chance.randrange(len(entry.payload))] ^= 1 << chance.randrange(8)
    entry.path.write_bytes(data)


def wrong_dtype(entry, k):
    if k < 2:  # the header says so, of as many bytes or of others
        entry.write(_with(entry.header, "video", "dtype", value=("I32", "F16")[k]))
        return
    kinds = (torch.bfloat16, torch.float16)
    entry.forge(lambda about, tensors: tensors.update({("video", "keys")[k % 2]: _as(tensors, k, kinds[k % 2])}))


def _as(tensors, k, dtype):
    return tensors[("video", "keys")[k % 2]].to(dtype)


def wrong_shape(entry, k):
    rows, width = entry.header["video"]["shape"]
    if k < 2:
        entry.write(_with(entry.header, "video", "shape", value=([width, rows], [rows * width])[k]))
        return

    def change(about, tensors):
        name = ("video", "audio", "queries")[k - 2]
        tensors[name] = (tensors[name][:-1], tensors[name][..., :-1], tensors[name].flatten(1))[k - 2]

    entry.forge(change)


def terabytes(entry, k):
    end = entry.header["video"]["data_offsets"][1]
    if k == 0:
        entry.path.write_bytes(struct.pack("<Q", TERA) + entry.content[8:])
    elif k == 1:
        entry.write(_with(entry.header, "video", "shape", value=[TERA, 64]))
    elif k == 2:
        entry.write(_with(entry.header, "video", "data_offsets", value=[end - 4, end + TERA]))
    elif k == 3:  # the file has them, as a hole on the disk
        os.truncate(entry.path, TERA)
    else:
        entry.tell(entry.told()[1] | {"rows": TERA, "cols": TERA})


def negative(entry, k):
    about = entry.told()[1]
    if k == 0:
        entry.write(_with(entry.header, "video", "shape", value=[-1, -entry.header["video"]["shape"][1]]))
    elif k == 1:
        entry.write(_with(entry.header, "audio", "data_offsets", value=[-8, 8]))
    elif k == 2:
        entry.forge(lambda about, tensors: about.update(rows=-about["rows"], cols=-about["cols"]))
    elif k == 3:
        entry.forge(lambda about, tensors: about.update(window=-1))
    else:
        entry.tell(about | {"audio_tokens": -1})


def bad_json(entry, k):
    deep = "[" * 100_000 + "]" * 100_000
    entry.write(("{", "[]", deep, "null", json.dumps(entry.header) + "x")[k])


def bad_text_about_the_clip(entry, k):
    about = entry.told()[1]
    entry.tell(("", "[1]", "null", json.dumps(about)[:-1], json.dumps({"name": "clip"}))[k])


def not_a_number(entry, k):
    def change(about, tensors):
        if k < 2:
            about["summary"]["duration_s"] = (float("nan"), float("inf"))[k]
        elif k == 2:
            about["start_s"] = float("-inf")
        else:
            tensors[("video", "queries")[k % 2]].view(-1)[k] = (float("nan"), float("inf"))[k % 2]

    entry.forge(change)


def named_twice(entry, k):
    text, about = json.dumps(entry.header), json.dumps(entry.told()[1])
    tensor = json.dumps(entry.header["video"])
    if k < 3:
        added = (f'"video": {tensor}', f'"audio": {tensor}', '"__metadata__": {}')[k]
        entry.write(f"{{{added}, {text[1:]}")
    else:
        entry.tell(f"{{{('{0}rows{0}: 1', '{0}key{0}: {0}x{0}')[k - 3].format(chr(34))}, {about[1:]}")


def tensors_missing_or_too_many(entry, k):
    def change(about, tensors):
        if k < 3:
            del tensors[("video", "audio", "keys")[k]]
        elif k == 3:
            tensors["more"] = torch.zeros(2)
        else:
            about["window"] = None

    entry.forge(change)


def of_another_key(entry, k):
    if k < 2:
        entry.path.write_bytes(entry.other)
    else:
        entry.forge(lambda about, tensors: about.update(key=("", "../../etc/passwd", "0" * 40)[k - 2]))


def other_types(entry, k):
    values = {"name": 5, "rows": True, "grid_times": ["1e999999999"], "summary": [], "cols": 1.5}
    name, value = list(values.items())[k]
    entry.forge(lambda about, tensors: about.update({name: value}))


def overlapping(entry, k):
    """Every tensor has the bytes that its shape takes, and they are not where they belong."""
    places = {name: one["data_offsets"] for name, one in entry.header.items() if name != "__metadata__"}
    (first, (_, size)), *_ = sorted(places.items(), key=lambda item: item[1])
    if k < 3:
        moved = (4, size, 10**15)[k]
        places = {first: [moved, moved + size]}
        entry.write(_with(entry.header, first, "data_offsets", value=places[first]))
    else:
        entry.write(entry.header, entry.payload + bytes(k) if k == 3 else bytes(8) + entry.payload)


def no_file(entry, k):
    entry.path.unlink()
    if k == 0:
        os.mkfifo(entry.path)
    elif k == 1:
        entry.path.mkdir()
    elif k == 2:
        with socket.socket(socket.AF_UNIX) as one:
            here = os.getcwd()
            os.chdir(entry.path.parent)  # a socket's name has at most 107 bytes
            one.bind(entry.path.name)
            os.chdir(here)
    elif k == 3:
        try:
            os.mknod(entry.path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero, which never ends
        except PermissionError:
            entry.path.symlink_to("/dev/zero")
    else:
        entry.path.touch()


def links(entry, k):
    entry.path.unlink()
    beside = entry.path.parent / "beside"
    beside.unlink(missing_ok=True)
    if k == 0:
        entry.path.symlink_to(entry.path.name)
    elif k == 1:
        beside.symlink_to(entry.path.name)
        entry.path.symlink_to(beside.name)
    elif k == 2:
        os.mkfifo(beside)
        entry.path.symlink_to(beside.name)
    elif k == 3:
        entry.path.symlink_to("/dev/zero")
    else:
        entry.path.symlink_to(entry.path.parent)


def unreadable(entry, k):
    entry.path.chmod((0, 0o200, 0o100, 0, 0o300)[k])
    if os.geteuid() == 0:  # whom no permission stops
        entry.path.write_bytes(entry.content[:-1])


POISONS = (
    truncated, header_flipped, payload_flipped, wrong_dtype, wrong_shape, terabytes, negative, bad_json,
    bad_text_about_the_clip, not_a_number, named_twice, tensors_missing_or_too_many, of_another_key, other_types,
    overlapping, no_file, links, unreadable,
)  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    return make_clip(frames=2, seconds=1.0)


@pytest.fixture
def folder(tmp_path):
    return CacheFolder(tmp_path / "cache", 10**9)


@pytest.fixture
def answer(qa, folder, clip):
    """The answer about the clip with the cache in its folder, and what was warned of."""
    cached = OmniQA(qa.name, qa.model, cache=EncodingCache(folder))

    def call(about=clip):
        told = cached.ask(about, "What?", decoding=GenerationOptions(2)).to_dict() | {"timing_s": None, "memory": None}
        return told | {"media": told["media"] | {"warnings": []}}, told["media"]["warnings"]

    return call


@pytest.fixture
def entry(answer, folder):
    """The clip's entry, written."""
    answer(make_clip(frames=2, seconds=1.0, seed=1))
    (other,) = (path.read_bytes() for path in folder.folder.glob(f"*{SUFFIX}"))
    for path in folder.folder.iterdir():
        path.unlink()
    answer()
    (path,) = folder.folder.glob(f"*{SUFFIX}")
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return Entry(path, content, json.loads(content[8 : 8 + length]), content[8 + length :], other)


@pytest.fixture(scope="module")
def uncached(qa, clip):
    told = qa.ask(clip, "What?", decoding=GenerationOptions(2)).to_dict() | {"timing_s": None, "memory": None}
    assert told["media"]["warnings"] == []
    return told


@pytest.mark.parametrize("poison", POISONS)
def test_the_answer_is_the_one_without_a_cache_and_the_entry_is_made_anew(answer, entry, uncached, poison):
    for k in SEEDS:
        poison(entry, k)
        found, warnings = answer()
        assert found == uncached, k
        assert [("in the cache is damaged and was removed" in warning) for warning in warnings] == [True], (k, warnings)
        assert not entry.path.is_symlink()
        assert entry.path.read_bytes() == entry.content, k
    assert answer() == (uncached, [])


def test_a_folder_with_something_in_it_is_left_alone_and_costs_no_answer(answer, entry, uncached):
    entry.path.unlink()
    entry.path.mkdir()
    (entry.path / "mine").touch()
    found, warnings = answer()
    assert found == uncached
    assert ["damaged and was removed" in warnings[0], "could not be kept" in warnings[1]] == [True, True]
    assert (entry.path / "mine").exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(12, "Cannot allocate memory"), RuntimeError("can't allocate memory: 9 bytes")]
)
def test_memory_that_runs_out_while_an_entry_is_read_is_no_damage(answer, entry, monkeypatch, error):
    def no_room(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("omniqa.cache.encodings._read", no_room)
        with pytest.raises(OutOfMemoryError):
            answer()
    assert entry.path.read_bytes() == entry.content


@torch.inference_mode()
def test_what_is_not_finite_is_answered_as_ever_and_not_kept(qa, folder):
    video = qa.encode(make_clip(frames=2, seconds=1.0))
    for tensor in (video.video, video.audio.embeddings, video.audio.queries, video.audio.keys):
        kept = tensor.flatten()[3].clone()
        for value in (float("nan"), float("inf")):
            tensor.view(-1)[3] = value
            assert "NaN or infinity" in EncodingCache(folder).add("key", video.name, video)
        tensor.view(-1)[3] = kept
    assert not folder.folder.exists()
    assert EncodingCache(folder).add("key", video.name, video) is None


def test_listing_and_clearing_never_wait_and_leave_what_is_not_theirs(answer, entry, folder):
    os.mkfifo(folder.path("a"))
    folder.path("b").symlink_to("/dev/zero")
    folder.path("c").mkdir()
    folder.path("d").write_bytes(struct.pack("<Q", TERA))
    (folder.folder / "mine").touch()
    assert [(one.path.name[:1], "name" in one.about) for one in folder.entries() if len(one.path.name) < 30] == [
        ("d", False)
    ]
    folder.shrink()
    assert len(folder.clear()) == 2
    assert [path.name for path in folder.folder.iterdir()] == ["mine"]


# --- the mask of a clip that was pruned while it was encoded ---


@pytest.fixture
def pruned(qa, tmp_path):
    """A model with a cache, a method whose rule prunes the clip early, the clip, and its entry."""
    cached = OmniQA(qa.name, qa.model, cache=EncodingCache(CacheFolder(tmp_path, 10**9)))
    method, clip = registry.create("dycoke", 0.7, vision_block=1), make_clip(frames=12, seconds=3.0)
    cached.encode(clip, method=method)
    (path,) = tmp_path.glob(f"*{SUFFIX}")
    with path.open("rb") as file:
        header = read_header(file)
    told = {METADATA: f"{header.digest} {header.text}"}
    return cached, method, clip, Entry(path, path.read_bytes(), {"__metadata__": told}, b"", b"")


def swapped(keep):
    """As many tokens of each grid, but others."""
    grid = keep.view(-1, 144)[1]
    kept, dropped = grid.nonzero().flatten()[0], (grid == 0).nonzero().flatten()[0]
    grid[kept], grid[dropped] = 0, 1


def moved(keep):
    """As many tokens, but not of each grid."""
    grids = keep.view(-1, 144)
    grids[0, 0] = 0
    grids[1, (grids[1] == 0).nonzero().flatten()[0]] = 1


def fewer(keep):
    keep[keep.nonzero().flatten()[0]] = 0


def no_truth(keep):
    keep[(keep == 0).nonzero().flatten()[0]] = 2


@pytest.mark.parametrize("change", [moved, fewer, no_truth])
def test_a_mask_that_the_rule_does_not_give_is_refused_even_if_its_digest_is_right(pruned, change):
    cached, method, clip, entry = pruned
    expected = cached.encode(clip, method=method)
    entry.forge(lambda about, tensors: change(tensors["keep"]))
    found = cached.encode(clip, method=method)
    assert any("damaged and was removed (its video tokens" in warning for warning in found.summary.warnings)
    assert found.keep.equal(expected.keep)
    assert not cached.encode(clip, method=method).summary.warnings


@pytest.mark.parametrize("change", [swapped, moved, fewer, no_truth])
def test_a_mask_that_was_changed_after_it_was_written_is_refused_by_its_digest(pruned, change):
    cached, method, clip, entry = pruned
    expected = cached.encode(clip, method=method)
    with safe_open(entry.path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    change(tensors["keep"])
    save_file(tensors, entry.path, entry.header["__metadata__"])
    found = cached.encode(clip, method=method)
    assert any("does not fit its digest" in warning for warning in found.summary.warnings)
    assert found.keep.equal(expected.keep)
