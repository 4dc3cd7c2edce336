"""A small random nano."""

import pytest


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
