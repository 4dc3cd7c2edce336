"""A small random nano, and a few seconds of its world."""

from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True)
def _one_thread():
    """So little work is slowed down by several threads where other tests run beside."""
    if not find_spec("torch"):
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def nano(tmp_path_factory):
    """Folder of a small nano of random weights."""
    import torch

    from omniqa.nano.architecture import NanoConfig, save, untrained
    from omniqa.nano.tokenizer import make_tokenizer

    config = NanoConfig(layers=5, heads=2, mlp=128, encoder_layers=2, encoder_width=64, encoder_mlp=64)
    folder = tmp_path_factory.mktemp("nano")
    tokenizer = make_tokenizer()
    save(untrained(config, tokenizer, torch.device("cpu")).module, tokenizer, folder)
    return folder
