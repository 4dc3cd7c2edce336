"""Quantised weights on the disk: found again as they were, and refused if anything about them is not right."""

import json
import os

import pytest
import torch
from torch import nn

from omniqa.cache import weights
from omniqa.cache.weights import WeightsCache
from omniqa.cache.weights_file import SUFFIX, about, weights_folder
from omniqa.runtime.int8 import Int8Linear
from omniqa.runtime.int8_kernels import is_supported
from omniqa.runtime.quantize import quantize

pytestmark = pytest.mark.skipif(not is_supported(), reason="this torch has no FBGEMM")


def parts(seed=0):
    """Two modules with linear layers of odd sizes, one of which 8 bits change too much."""
    torch.manual_seed(seed)
    one = nn.Sequential(nn.Linear(33, 7), nn.GELU(), nn.Linear(7, 21, bias=False))
    other = nn.ModuleDict({"peaked": nn.Linear(500, 3), "plain": nn.Linear(21, 5)})
    with torch.no_grad():
        other["peaked"].weight[:, 0] = 300
    return [one.requires_grad_(False), other.requires_grad_(False)]


def quantized(folder, seed=0):
    """Such modules, quantised with a cache in `folder`; and what the cache said."""
    made = parts(seed)
    cache = WeightsCache(weights_folder(folder), "some model")
    quantize(made, cache)
    return made, cache.notes


def outputs(made):
    torch.manual_seed(9)
    one, other = made
    return [one(torch.randn(4, 33)), other["peaked"](torch.randn(4, 500)), other["plain"](torch.randn(4, 21))]


def same(made, others):
    return all(torch.equal(a, b) for a, b in zip(outputs(made), outputs(others), strict=True))


def entry(folder):
    (path,) = folder.glob(f"*{SUFFIX}")
    return path


@pytest.fixture
def kept(tmp_path):
    """The folder with an entry, and the modules that it was made of."""
    made, notes = quantized(tmp_path)
    assert notes == []
    return tmp_path, made


def test_weights_are_found_again_without_being_quantised(kept, monkeypatch):
    folder, made = kept
    monkeypatch.setattr("omniqa.runtime.quantize.quantize_weight", None)
    again, notes = quantized(folder)
    assert same(again, made)
    assert notes == []


def test_a_layer_that_8_bits_would_change_too_much_stays_in_float_also_when_found(kept):
    folder, made = kept
    for modules in (made, quantized(folder)[0]):
        assert type(modules[1]["peaked"]) is nn.Linear
        assert isinstance(modules[1]["plain"], Int8Linear)


def test_weights_of_another_checkpoint_get_an_entry_of_their_own(kept):
    folder, made = kept
    other, notes = quantized(folder, seed=1)
    assert not same(other, made)
    assert (notes, len(list(folder.iterdir()))) == ([], 2)


def test_another_version_of_the_kernel_does_not_find_them(kept, monkeypatch):
    folder, _ = kept
    monkeypatch.setattr("omniqa.runtime.quantize.Int8Products.name", "int8-fbgemm 0")
    quantized(folder)
    assert len(list(folder.iterdir())) == 2


def refused(folder, made):
    """Whether what lies in `folder` is said to be damaged, taken away, and made anew as it was."""
    again, notes = quantized(folder)
    assert same(again, made)
    assert len(notes) == 1
    assert "damaged and was removed" in notes[0]
    assert quantized(folder)[1] == []
    return True


def test_an_entry_under_another_key_is_refused(kept):
    folder, made = kept
    path = entry(folder)
    quantized(folder, seed=1)
    other = next(one for one in folder.iterdir() if one != path)
    other.replace(path)
    assert refused(folder, made)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.3, 0.6, 0.9, 0.999])
def test_a_changed_byte_is_noticed_wherever_it_is(kept, share):
    folder, made = kept
    content = bytearray(entry(folder).read_bytes())
    content[int(share * len(content))] ^= 1
    entry(folder).write_bytes(content)
    assert refused(folder, made)


@pytest.mark.parametrize("length", [0, 4, 100, -200, -1])
def test_a_file_that_is_cut_short_is_noticed(kept, length):
    folder, made = kept
    entry(folder).write_bytes(entry(folder).read_bytes()[:length])
    assert refused(folder, made)


@pytest.mark.parametrize("what", ["shape", "dtype", "more", "scales", "count", "deep", "list"])
def test_a_file_whose_digest_was_made_to_fit_is_still_checked(kept, what):
    folder, made = kept
    content = entry(folder).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    name = next(name for name, one in header.items() if one.get("dtype") == "I8")
    if what == "shape":
        header[name]["shape"].reverse()
    elif what == "dtype":
        header[name]["dtype"] = "U8"
    elif what == "more":
        header["more"] = {"dtype": "I8", "shape": [0], "data_offsets": [len(data)] * 2}
    elif what == "scales":
        data[:4] = b"\0\0\xc0\x7f"  # NaN
    elif what == "count":
        header["__metadata__"]["scales"] = str(10**15)
    elif what == "deep":
        header["__metadata__"] = header["__metadata__"] | {"scales": [[[]]]}
    else:
        header["__metadata__"] = header["__metadata__"] | {"key": ["list"]}
    header["__metadata__"]["digest"] = "0" * 64
    told = json.dumps(header, separators=(",", ":")).encode()
    digest = _digest_of(told, data, made)
    told = told.replace(b"0" * 64, digest, 1)
    entry(folder).write_bytes(len(told).to_bytes(8, "little") + told + data)
    assert refused(folder, made)


def _digest_of(header, data, made):
    import hashlib

    scales = 4 * sum(layer.out_features for layer in (made[0][0], made[0][2], made[1]["peaked"], made[1]["plain"]))
    values = hashlib.sha256(data[scales:]).digest()
    return hashlib.sha256(header + data[:scales] + values).hexdigest().encode()


@pytest.mark.skipif(os.name == "nt", reason="pipes and links are POSIX")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_not_read(kept, make):
    folder, made = kept
    path = entry(folder)
    path.unlink()
    make(path)
    assert refused(folder, made)


def test_a_folder_that_can_not_be_written_costs_a_note_and_nothing_else(tmp_path):
    place = tmp_path / "file"
    place.write_text("in the way")
    made, notes = quantized(place / "below")
    assert isinstance(made[0][0], Int8Linear)
    assert len(notes) == 1
    assert "could not be kept" in notes[0]


def test_a_disk_that_is_full_leaves_no_file_behind(tmp_path, monkeypatch):
    def full(self, name, weight):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights._Writer, "add", full)
    made, notes = quantized(tmp_path)
    assert isinstance(made[0][0], Int8Linear)
    assert "No space left" in notes[0]
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_interrupted_leaves_no_entry(tmp_path, monkeypatch):
    monkeypatch.setattr("omniqa.runtime.quantize.Int8Linear", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        quantized(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_list_tells_of_the_model(kept, tmp_path):
    assert about(entry(kept[0]))["name"] == "some model"
    broken = tmp_path / f"broken{SUFFIX}"
    broken.write_bytes(b"\xff" * 100)
    assert about(broken) == {}
