"""The disk is looked at before a download."""

import pytest

from omniqa.errors import StorageError
from omniqa.models import disk
from omniqa.models.qwen2_5_omni.checkpoint import HUB_3B, HUB_7B


@pytest.fixture
def hub(monkeypatch):
    """Let the hub know files by their sizes; None: it does not answer."""

    class File:
        def __init__(self, path, size):
            self.path, self.size = path, size

    def know(sizes):
        def get_paths_info(self, repo, paths):
            if sizes is None:
                raise ConnectionError("no network")
            return [File(path, sizes[path]) for path in paths]

        monkeypatch.setattr("huggingface_hub.HfApi.get_paths_info", get_paths_info)

    return know


def test_the_hub_says_how_large_the_files_are(hub, monkeypatch):
    hub({"a": 5 * disk.GIB, "b": 2 * disk.GIB, "c": 99 * disk.GIB})
    monkeypatch.setattr(disk, "disk_free", lambda folder: 7 * disk.GIB)
    disk.require_disk("Somebody/model", ["a", "b"])
    monkeypatch.setattr(disk, "disk_free", lambda folder: 7 * disk.GIB - 1)
    with pytest.raises(StorageError, match=r"needs 7\.0 GiB of disk, and 7\.0 GiB are free") as raised:
        disk.require_disk("Somebody/model", ["a", "b"])
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(("model", "size"), [(HUB_7B, 16.6), (HUB_3B, 8.8)])
def test_without_the_hub_the_weights_own_size_counts(hub, monkeypatch, model, size):
    hub(None)
    assert disk.download_bytes(model, ["a"]) / disk.GIB == pytest.approx(size, abs=0.1)
