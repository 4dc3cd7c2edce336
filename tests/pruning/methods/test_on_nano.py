"""On a clip that nano has encoded and a question that it scores tokens by, too, what survives is the slow reading's."""

import numpy as np
import pytest
import torch

import omniqa
from omniqa.media.clip import Clip
from omniqa.models.base import AUDIO
from omniqa.nano import world
from omniqa.pruning import registry
from omniqa.pruning.contract import AuxNetwork
from tests.pruning import reference
from tests.pruning.clip import random_network
from tests.pruning.methods import test_omnisift, test_one_stage
from tests.pruning.methods.test_omnidrop import OPTIONS, slow_survivors

QUESTION = "Which coloured shape is shown while you hear the chirp?"


@pytest.fixture(scope="module")
def qa():
    return omniqa.load("nano", device="cpu")


@pytest.fixture(scope="module")
def clip(qa):
    """Seen through much noise: where a picture stands still, tokens tie but for float32's last digit."""
    script = world.draw(seed=7, seconds=5, scenes=2)
    frames = world.frames(script, fps=2, height=112, width=112)
    noise = np.random.default_rng(0).normal(0, 60, frames.shape)
    frames = (frames + noise).clip(0, 255).astype(np.uint8)
    return qa.encode(Clip.from_arrays(frames, waveform=world.waveform(script)))


@pytest.fixture
def run(qa, clip, monkeypatch):
    """Asks, and gives what the method was given, the indices alive at each layer, and the scores by layer and token."""

    def run(name, R, **options):
        method = registry.create(name, R, **options)
        given = []
        choose = type(method).prune_input
        monkeypatch.setattr(type(method), "prune_input", lambda *args: given.append(args[1]) or choose(*args))
        result = qa.prefiller.prefill(clip, QUESTION, method).result
        (tokens,) = given
        scores = torch.full((qa.model.layers - 1, len(tokens.modality)), torch.nan)
        for layer, seen in enumerate(result.scores[:-1]):
            if seen is not None:
                scores[layer, result.alive[layer]] = seen
        return tokens, [alive.tolist() for alive in result.alive], scores

    return run


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("R", [0.2, 0.5])
def test_omnidrop(run, qa, options, R):
    tokens, alive, scores = run("omnidrop", R, **options)
    assert alive == slow_survivors(tokens.counts, tokens, qa.model.layers, R, scores, **options)


@pytest.mark.parametrize("R", [0.2, 0.5])
def test_fastv(run, qa, R):
    tokens, alive, scores = run("fastv", R)
    counts = reference.fastv(len(tokens.modality), qa.model.layers, R)
    assert alive[2] == reference.top_audio(scores[1].tolist(), counts[2])
    assert [len(indices) for indices in alive] == counts


# dash's floor depends on the embeddings, and noise as strong as here leaves it little that is alike.
@pytest.mark.parametrize(("name", "R"), [("omnizip", 0.6), ("omnizip", 0.8), ("dash", 0.9), ("dash", 0.6)])
def test_omnizip_and_dash(run, name, R):
    tokens, alive, _ = run(name, R)
    test_one_stage.check_against_the_slow_reading(name, tokens, R=R)
    assert alive[0] == alive[-1] == test_one_stage.enter(name, tokens, R)[0]


@pytest.mark.parametrize("R", [0.6, 0.8])
def test_dycoke(run, R):
    tokens, alive, _ = run("dycoke", R)
    tokens_per_grid, video = tokens.tokens_per_grid, tokens.video.tolist()
    rho = reference.dycoke_rho(tokens.counts.n_audio, tokens.counts.grids, tokens_per_grid, R)
    stays = reference.ttm([video[grid : grid + tokens_per_grid] for grid in range(0, len(video), tokens_per_grid)], rho)
    kept = [place for place, stay in enumerate(stay for grid in stays for stay in grid) if stay]
    modality = [int(kind == AUDIO) for kind in tokens.modality]
    assert alive[0] == alive[-1] == reference.in_sequence(modality, kept, range(tokens.counts.n_audio), {})[0]


@pytest.mark.parametrize("R", [0.3, 0.5])
def test_omnisift_with_any_selector(run, qa, monkeypatch, R):
    method = registry.create("omnisift", R)
    selector = random_network(method, qa.model.lm_head.in_features)
    monkeypatch.setitem(qa.prefiller.aux_networks, method.need(AuxNetwork), selector)
    tokens, alive, _ = run("omnisift", R)
    test_omnisift.check_against_the_slow_reading(tokens, R=R)
    assert alive[0] == alive[-1] == test_omnisift.enter(tokens, R)


@pytest.mark.parametrize("R", [0.3, 0.5])
def test_omnisift_with_the_selector_that_comes_with_nano(run, R):
    tokens, alive, _ = run("omnisift", R)
    test_omnisift.check_against_the_slow_reading(tokens, R=R)
    assert alive[0] == alive[-1] == test_omnisift.enter(tokens, R)
