"""Tensors that are mapped from a file, and when their pages are given back."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from omniqa import tensor_file
from omniqa.tensor_file import read_mapped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process's maps")
MEBIBYTE = 2**20


def maps_of(path):
    """How many maps of a file this process has."""
    return Path("/proc/self/maps").read_text().count(str(path))


@pytest.fixture
def path(tmp_path):
    """A file of six large tensors, a small one after each."""
    tensors = {}
    for number in range(6):
        tensors[f"large.{number}"] = torch.full((2 * MEBIBYTE,), number, dtype=torch.uint8)
        tensors[f"small.{number}"] = torch.full((8,), number, dtype=torch.uint8)
    save_file(tensors, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def names(*kinds):
    return [f"{kind}.{number}" for number in range(6) for kind in kinds]


@pytest.mark.parametrize("group_bytes", [None, 1, 3 * MEBIBYTE, 100 * MEBIBYTE])
def test_every_tensor_is_read(path, group_bytes):
    tensors = read_mapped(path, names("large", "small"), group_bytes)
    assert list(tensors) == names("large", "small")
    assert all(bool((tensor == int(name[-1])).all()) for name, tensor in tensors.items())


def test_a_group_that_is_not_used_any_more_leaves_memory_though_small_tensors_of_it_stay(path):
    tensors = read_mapped(path, names("large", "small"), 4 * MEBIBYTE)
    assert maps_of(path) == 3
    for left, name in ((3, "large.0"), (2, "large.1"), (2, "large.2"), (1, "large.3")):
        del tensors[name]
        assert maps_of(path) == left
    assert bool((tensors["small.0"] == 0).all())


def test_without_groups_one_tensor_keeps_all(path):
    tensors = read_mapped(path, names("large", "small"))
    tensors = {"small.0": tensors["small.0"]}
    assert maps_of(path) == 1


def test_names_may_be_none(path):
    assert read_mapped(path, [], tensor_file.GROUP_BYTES) == {}
