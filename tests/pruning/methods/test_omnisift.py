"""omnisift: what survives is what the slow reading says; its selector is found, checked, and runs in bounded blocks."""

import dataclasses
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

import omniqa
from omniqa.errors import ModelError, UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.models.qwen2_5_omni.checkpoint import find_checkpoint
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens, Unreachable
from omniqa.pruning.contract import AuxNetwork
from omniqa.pruning.interleave import interleave
from omniqa.pruning.methods.omnisift import method as omnisift
from omniqa.pruning.methods.omnisift import selector as audio_selector
from omniqa.pruning.methods.omnisift.selector import AudioSelector
from omniqa.runtime.generation_options import GenerationOptions
from tests.models.qwen2_5_omni.clips import make_clip
from tests.pruning import reference
from tests.pruning.clip import media_tokens, random_network

LAYERS = 10
CLIPS = {  # counts, and how media_tokens spreads them
    "both": (ClipTokens(30, 8, 8), {}),
    "a single last grid": (ClipTokens(41, 9, 10), {"chunks": 5}),
    "one chunk": (ClipTokens(20, 3, 12), {"chunks": 1}),
    "one grid": (ClipTokens(12, 1, 20), {"chunks": 3}),
    "audio ends early": (ClipTokens(24, 8, 7), {"chunks": 8, "audio_chunks": 3}),
    "audio outlasts video": (ClipTokens(30, 2, 15), {"chunks": 6}),
    "one audio token a pair": (ClipTokens(4, 8, 9), {}),
    "no audio": (ClipTokens(0, 7, 12), {}),
    "no video": (ClipTokens(20, 0, 0), {}),
    "grids of one token": (ClipTokens(18, 10, 1), {}),
    "one token": (ClipTokens(1, 0, 0), {"chunks": 1}),
}
OPTIONS = [
    {"R": 0.1},
    {"R": 0.3},
    {"R": 0.8},
    {"R": 0.99},
    {"R": 0.5, "rho_v": 0.0},
    {"R": 0.5, "rho_v": 0.7},
    {"R": 0.5, "rho_v": 1.0},
    {"R": 0.5, "rho_v": 0.6, "rho_audio": 0.0},
    {"R": 0.5, "rho_v": 0.6, "rho_audio": 1.0},
    {"R": 0.4, "rho_audio": 0.8},
]


def make(R, **options):
    return registry.create("omnisift", R, **options)


def clip(name, seed=0):
    counts, spread = CLIPS[name]
    return media_tokens(counts, seed=seed, pruner=make(0.5), **spread)


def enter(tokens, R, **options):
    """Indices that enter layer 0; the error where R is out of reach."""
    method = make(R, **options)
    try:
        selected = method.prune_input(tokens, method.plan(tokens.counts, LAYERS))
    except Unreachable as error:
        return error
    assert selected.video_embeddings is selected.audio_embeddings is None
    return interleave(selected, tokens)[0].tolist()


def slow_enter(tokens, R, **options):
    weights = {name: weight.double().numpy() for name, weight in tokens.aux_network.state_dict().items()}
    modality = [int(kind == AUDIO) for kind in tokens.modality]
    parts = tokens.time_s.tolist(), tokens.tokens_per_grid, tokens.video.tolist(), tokens.audio.tolist()
    result = reference.omnisift(modality, *parts, weights, R, **options)
    return None if result is None else result[0]


def check_against_the_slow_reading(tokens, **options):
    fast, slow = enter(tokens, **options), slow_enter(tokens, **options)
    if slow is None:
        assert isinstance(fast, Unreachable)
    else:
        assert fast == slow


# --- against the slow reading ---


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", CLIPS)
def test_what_enters(shape, options):
    check_against_the_slow_reading(clip(shape), **options)


@pytest.mark.parametrize("shape", CLIPS)
def test_tokens_that_are_all_alike(shape):
    tokens = clip(shape)
    tokens.video.fill_(1.0)
    tokens.audio.fill_(1.0)
    for options in ({"R": 0.3}, {"R": 0.5, "rho_v": 0.6, "rho_audio": 0.4}):
        check_against_the_slow_reading(tokens, **options)


def test_a_picture_that_is_all_zero_loses_its_first_tokens():
    tokens = clip("no audio")
    tokens.video.zero_()
    assert enter(tokens, 0.5, rho_v=0.5) == [12 * grid + place for grid in range(7) for place in range(6, 12)]


def test_audio_before_the_first_grid_stays_and_later_audio_is_the_last_pairs():
    tokens = media_tokens(ClipTokens(40, 4, 6), pruner=make(0.5))
    late = tokens.time_s + 1.0 * (tokens.modality == VIDEO)  # pairs from 1 s and 5 s; audio from 0 to 8 s
    tokens = dataclasses.replace(tokens, time_s=late)
    assert omnisift.audio_of_pairs(tokens).tolist() == [20, 15]
    kept = enter(tokens, 0.5, rho_v=0.5, rho_audio=1.0)
    assert kept == slow_enter(tokens, 0.5, rho_v=0.5, rho_audio=1.0)
    assert late[kept][tokens.modality[kept] == AUDIO].tolist() == pytest.approx([0.2 * j for j in range(5)])


def test_an_audio_token_at_a_grids_very_time_is_that_grids():
    tokens = media_tokens(ClipTokens(8, 4, 6), chunks=4, pruner=make(0.5))  # a grid every 2 s, audio every second
    assert omnisift.audio_of_pairs(tokens).tolist() == [4, 4]


def test_bfloat16_is_compared_in_float32():
    tokens = clip("a single last grid")
    low = dataclasses.replace(tokens, video=tokens.video.bfloat16(), audio=tokens.audio.bfloat16())
    high = dataclasses.replace(tokens, video=low.video.float(), audio=low.audio.float())
    kept = enter(low, 0.4, rho_v=0.6)
    assert 0 < len(kept) < 131
    assert kept == enter(high, 0.4, rho_v=0.6)


def test_retention_1_needs_no_selector():
    tokens = dataclasses.replace(clip("both"), aux_network=None, time_s=None)
    assert make(1.0).needs == frozenset()
    assert enter(tokens, 1.0) == list(range(94))


def test_what_it_needs_and_does_not_get_is_said():
    tokens = clip("both")
    with pytest.raises(ValueError, match="needs MediaTokens"):
        enter(dataclasses.replace(tokens, aux_network=None), 0.4)
    with pytest.raises(ValueError, match="needs MediaTokens"):
        enter(dataclasses.replace(tokens, time_s=None), 0.4)


@pytest.mark.parametrize("options", [{"rho_v": -0.1}, {"rho_v": 1.1}, {"rho_audio": 2.0}, {"selector": 3}], ids=str)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=r"omnisift.*is not allowed"):
        make(0.4, **options)


def test_options_are_read_from_text():
    texts = ["rho_audio=0.4", "rho_v=none", "selector=some file.safetensors"]
    options = registry.parse_options("omnisift", texts)
    assert options == {"rho_audio": 0.4, "rho_v": None, "selector": "some file.safetensors"}
    assert make(0.3, **options).need(AuxNetwork).path == "some file.safetensors"
    with pytest.raises(UsageError, match=r"no option 'rho'.*selector \(text\|none, default none\)"):
        registry.parse_options("omnisift", ["rho=0.4"])


# --- landing on R ---

SHAPES = {  # counts, and how media_tokens spreads them
    "as usual": (ClipTokens(400, 32, 72), {"chunks": 16}),
    "much audio": (ClipTokens(900, 7, 64), {"chunks": 7}),
    "large grids": (ClipTokens(150, 10, 220), {"chunks": 5}),
    "picture alone": (ClipTokens(0, 12, 16), {"chunks": 6}),
}


def landed(shape, R):
    """The achieved retention, or the error."""
    counts, spread = SHAPES[shape]
    kept = enter(media_tokens(counts, d=16, pruner=make(R), **spread), R)
    return kept if isinstance(kept, Unreachable) else len(kept) / counts.n


@pytest.mark.parametrize("R", [0.1, 0.2, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_lands_on_R_or_names_its_floor(shape, R):
    outcome = landed(shape, R)
    if isinstance(outcome, Unreachable):
        assert shape == "picture alone"  # steps of a sixteenth, and no audio to make up for them
        assert f"floor here is {outcome.floor:.4f}" in str(outcome)
        assert landed(shape, outcome.nearest) == pytest.approx(outcome.nearest)
    else:
        assert abs(outcome - R) <= 0.01 + 1e-9


def test_the_floor_is_a_twentieth_of_the_video():
    tokens = clip("both")
    with pytest.raises(UsageError, match=r"omnisift can't bring this clip to retention 0.05; its floor here is 0.0851"):
        make(0.05).prune_input(tokens, make(0.05).plan(tokens.counts, LAYERS))


def test_without_video_any_retention_but_1_is_refused_by_the_plan():
    with pytest.raises(UsageError, match=r"its floor here is 1.0000"):
        make(0.7).plan(ClipTokens(50, 0, 0), LAYERS)
    assert make(0.7, rho_v=0.5).plan(ClipTokens(50, 0, 0), LAYERS).layers == LAYERS


# --- the selector ---


def test_the_selector_has_the_published_ones_size_and_names():
    network = AudioSelector(3584)
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_856_321
    assert {name.split(".")[0] for name in network.state_dict()} == {
        *("v_proj", "v_norm", "a_proj", "a_norm", "cross_attn", "post_attn_norm", "score_head"),
    }


SIZES = torch.tensor([3, 0, 7, 1, 12]), torch.tensor([4, 5, 6, 2, 3])  # audio and video tokens of five pairs


@pytest.fixture
def scored():
    """A random selector, and what it is to score."""
    network = random_network(make(0.5), 16)
    random = torch.Generator().manual_seed(1)
    audio, video = (torch.randn(int(sizes.sum()), 16, generator=random) for sizes in SIZES)
    return network, (audio, SIZES[0], video, SIZES[1])


def test_scores_are_the_slow_readings(scored):
    network, (audio, audio_sizes, video, video_sizes) = scored
    weights = {name: weight.double().numpy() for name, weight in network.state_dict().items()}
    heard, seen = audio.split(audio_sizes.tolist()), video.split(video_sizes.tolist())
    expected = [
        score
        for xs, ys in zip(heard, seen, strict=True)
        for score in reference.omnisift_scores(weights, xs.tolist(), ys.tolist())
    ]
    scores = network(audio, audio_sizes, video, video_sizes)
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("piece", "rows"), [(2, 4), (5, 1), (4, 7), (1024, 4096)])
def test_blocks_leave_no_seam(scored, monkeypatch, piece, rows):
    network, inputs = scored
    expected = network(*inputs)
    monkeypatch.setattr(audio_selector, "_PIECE", piece)
    monkeypatch.setattr(audio_selector, "_BLOCK_ROWS", rows)
    torch.testing.assert_close(network(*inputs), expected)


def test_blocks_of_pairs_leave_no_seam(monkeypatch):
    video = torch.randn(9, 6, 8, generator=torch.Generator().manual_seed(0))
    whole = omnisift.repetition(video)
    monkeypatch.setattr(omnisift, "_BLOCK_PAIRS", 1)
    assert omnisift.repetition(video).equal(whole)


def test_equal_tokens_in_a_row_tie_within_a_pair(monkeypatch):
    audio = torch.tensor([5.0, 5.0, 5.0, 5.0, 6.0, 6.0, 5.0])[:, None].expand(-1, 3)
    pair = torch.tensor([0, 0, 1, 1, 1, 1, 1])
    assert omnisift._first_of_equals(audio, pair).tolist() == [0, 0, 2, 2, 4, 4, 6]
    monkeypatch.setattr(omnisift, "_BLOCK", 2)
    assert omnisift._first_of_equals(audio, pair).tolist() == [0, 0, 2, 2, 4, 4, 6]


def test_every_weight_of_the_selector_can_be_trained(scored):
    _, inputs = scored
    network = AudioSelector(16)
    network(*inputs).sigmoid().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_scores_of_a_clip_reach_the_selectors_weights():
    tokens = dataclasses.replace(clip("both"), aux_network=AudioSelector(8))
    kept = omnisift.keep_video(tokens.video.unflatten(0, (-1, tokens.tokens_per_grid)), 0.5)
    scores = omnisift.audio_scores(tokens.aux_network, tokens, omnisift.audio_of_pairs(tokens), kept)
    assert scores.shape == (30,)
    assert scores.requires_grad


# --- where the selector comes from ---

SMALL = 128  # width of the small checkpoint


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the small checkpoint, to put a selector into."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


@pytest.fixture(scope="module")
def weights():
    """A random selector's, that fits the small checkpoint."""
    return random_network(make(0.5), SMALL, seed=7).state_dict()


def put_inside(folder, weights, dtype=torch.float32):
    """Store the weights as the published checkpoint does."""
    named = {f"thinker.compressor.{name}": weight.to(dtype) for name, weight in weights.items()}
    save_file(named, folder / "model-extra.safetensors")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] |= dict.fromkeys(named, "model-extra.safetensors")
    index.write_text(json.dumps(content))


def load(folder, dtype="float32"):
    return omniqa.load(str(folder), device="cpu", dtype=dtype)


def ask(qa, method="omnisift", retention=0.3, **options):
    clip = make_clip(frames=6, seconds=3.0)
    return qa.ask(
        clip, "What happens?", method, retention, options=options, decoding=GenerationOptions(max_new_tokens=2)
    )


def survivors(qa, **options):
    return ask(qa, **options).trace.alive[0].tolist()


def test_it_answers_with_a_selector_from_any_of_the_three_places(copy, weights, tmp_path):
    named, other = tmp_path / "named.safetensors", tmp_path / "other.safetensors"
    save_file(weights, named)
    save_file({f"thinker.compressor.{name}": -weight for name, weight in weights.items()}, other)
    from_file = survivors(load(copy), selector=str(named))
    save_file({f"compressor.{name}": weight for name, weight in weights.items()}, copy / "omnisift.safetensors")
    from_beside = survivors(load(copy))
    shutil.copy(other, copy / "omnisift.safetensors")
    from_other = survivors(load(copy))
    put_inside(copy, weights)
    qa = load(copy)
    from_inside = survivors(qa)
    assert from_file == from_beside == from_inside != from_other
    assert survivors(qa, selector=str(other)) == from_other


def test_the_answer_is_the_methods_own_choice(copy, weights):
    put_inside(copy, weights)
    qa = load(copy)
    answer = ask(qa)
    trace = answer.trace
    assert answer.method == "omnisift"
    assert answer.retention.achieved == pytest.approx(trace.alive.mean())
    assert abs(answer.retention.achieved - 0.3) <= 0.01
    assert (trace.alive == trace.alive[0]).all()
    encoded = qa.encode(make_clip(frames=6, seconds=3.0))
    arrays = {name: weight.double().numpy() for name, weight in weights.items()}
    modality = [int(kind == AUDIO) for kind in trace.modality]
    parts = encoded.video.tolist(), encoded.audio.embeddings.tolist()
    kept, _ = reference.omnisift(modality, trace.time_s.tolist(), encoded.shape.tokens_per_grid, *parts, arrays, 0.3)
    assert trace.alive[0].nonzero()[0].tolist() == kept


def test_without_a_selector_it_says_how_to_get_one_before_anything_is_encoded(qa, monkeypatch):
    monkeypatch.setattr(qa.encoder, "encode", None)
    with pytest.raises(ModelError, match=r"no compressor.\* tensors.*no omnisift.safetensors.*selector=FILE"):
        survivors(qa)
    assert ModelError.exit_code == 4


def test_a_checkpoint_with_a_selector_is_the_same_model_and_says_nothing(checkpoint, copy, weights, capfd, recwarn):
    put_inside(copy, weights, torch.bfloat16)
    plain, found = find_checkpoint(str(checkpoint)), find_checkpoint(str(copy))
    assert (found.elements, found.stored_bytes) == (plain.elements, plain.stored_bytes)
    assert {name.removeprefix("thinker.compressor.") for name in found.added} == set(weights)
    assert not plain.added
    qa = load(copy, "auto")
    assert qa.model.dtype == torch.float32
    assert ask(qa, "none", 1.0).token_ids == ask(load(checkpoint), "none", 1.0).token_ids
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert survivors(qa)  # bfloat16 weights are computed with in float32


def test_a_bfloat16_model_scores_in_float32(copy, weights):
    put_inside(copy, weights)
    qa = load(copy, "bfloat16")
    assert abs(ask(qa).retention.achieved - 0.3) <= 0.01
    (network,) = qa.prefiller.aux_networks.values()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def damaged(weights, key, weight):
    rest = {name: value for name, value in weights.items() if name != key}
    return rest if weight is None else rest | {key: weight}


@pytest.mark.parametrize(
    ("key", "weight", "complaint"),
    [
        ("a_norm.bias", None, r"compressor.a_norm.bias is missing"),
        ("v_proj.weight", torch.zeros(512, 64), r"compressor.v_proj.weight is \[512, 64\].*needs \[512, 128\]"),
        ("score_head.2.weight", torch.zeros(1, 512), r"compressor.score_head.2.weight is \[1, 512\]"),
        ("score_head.2.bias", torch.zeros(1, dtype=torch.int64), r"compressor.score_head.2.bias is of int64"),
        ("cross_attn.extra", torch.zeros(2), r"compressor.cross_attn.extra is none of the weights"),
    ],
)
def test_weights_that_are_not_the_selectors_are_named(qa, weights, tmp_path, key, weight, complaint):
    path = tmp_path / "selector.safetensors"
    save_file(damaged(weights, key, weight), path)
    with pytest.raises(ModelError, match=f"selector.safetensors: {complaint}"):
        survivors(qa, selector=str(path))


def test_the_first_wrong_key_is_the_one_that_is_named(qa, weights, tmp_path):
    path = tmp_path / "selector.safetensors"
    save_file(damaged(weights, "v_norm.weight", torch.zeros(3)) | {"a_proj.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match=r"v_norm\.weight"):
        survivors(qa, selector=str(path))


def test_files_that_are_none_are_told(qa, tmp_path):
    with pytest.raises(ModelError, match=r"there is no file .*missing.safetensors"):
        survivors(qa, selector=str(tmp_path / "missing.safetensors"))
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ModelError, match=r"text.safetensors is not a safetensors file"):
        survivors(qa, selector=str(tmp_path / "text.safetensors"))
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(ModelError, match=r"pipe.safetensors can't be read \(it is a pipe"):
        survivors(qa, selector=str(tmp_path / "pipe.safetensors"))


def test_a_selector_is_read_once_for_all_retentions(copy, weights):
    put_inside(copy, weights)
    qa = load(copy)
    for R in (0.2, 0.3, 1.0):
        ask(qa, retention=R)
    assert len(qa.prefiller.aux_networks) == 1
