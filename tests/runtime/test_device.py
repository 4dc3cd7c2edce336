"""Devices as the user names them."""

import pytest

import omniqa
from omniqa.errors import UsageError
from omniqa.runtime.device import check_device, devices_of


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:1", "cuda:0,cuda:1", "cuda:3,cuda:0,cuda:11"])
def test_one_device_or_several_gpus_are_taken(name):
    check_device(name)
    assert ",".join(devices_of(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "", ",", "cuda:0,", ",cuda:0", "cuda:0,,", "cuda:0,,cuda:1", "cpu,cuda:0", "cuda:0,cpu", "cuda:0,cuda:0",
        "cuda:1,cuda:01", "cuda,cuda:1", "auto,cuda:0", "cuda:0, cuda:1", "cuda:0;cuda:1", "cuda:0,cuda:1,cuda:0",
        "cuda:-1,cuda:0", "cuda:0,mps", "0,1", "cuda:0,1", "meta",
    ],
)  # fmt: skip
def test_malformed_devices_are_usage_errors(name):
    with pytest.raises(UsageError) as refusal:
        check_device(name)
    assert refusal.value.field == "device"


def test_gpus_that_are_not_there_are_usage_errors(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UsageError, match="no cuda:1: this machine has 1"):
        omniqa.load("nano", device="cuda:0,cuda:1")
