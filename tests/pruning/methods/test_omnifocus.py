"""omnifocus: what enters is what a slow, plain reading of the text says, and it is the question's own."""

import math
from dataclasses import replace

import pytest
import torch

import omniqa
from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import QueryEmbeddings
from omniqa.pruning.methods.omnifocus import OmniFocus, chunk_counts
from tests.models.qwen2_5_omni.clips import make_clip
from tests.pruning.clip import entered, media_tokens

CLIPS = {
    "both": (ClipTokens(130, 7, 20), {"chunks": 4}),
    "sound ends early": (ClipTokens(60, 8, 16), {"chunks": 6, "audio_chunks": 2}),
    "sound outlasts the picture": (ClipTokens(220, 2, 30), {"chunks": 5}),
    "one chunk": (ClipTokens(40, 2, 25), {"chunks": 1}),
    "no sound": (ClipTokens(0, 9, 24), {}),
    "no picture": (ClipTokens(170, 0, 0), {}),
    "chunks of a token": (ClipTokens(6, 6, 1), {"chunks": 6}),
}


def norm(x):
    length = math.sqrt(sum(a * a for a in x))
    return [a / length for a in x] if length else x


def cos(x, y):
    return sum(a * b for a, b in zip(norm(x), norm(y), strict=True))


def mean(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def slow_modality(own, other, query, total):
    """Places kept; own, other: lists of (embedding, chunk)."""
    if not own:
        return []
    q = norm(mean([norm(word) for word in query]))
    chunks = sorted({chunk for _, chunk in own})
    s = [max(cos(x, q) for x, chunk in own if chunk == number) for number in chunks]
    powers = [math.exp(value) for value in s]
    c = [1 - power / sum(powers) for power in powers]
    spread = [(value - min(c)) / (max(c) - min(c)) if max(c) > min(c) else 0.0 for value in c]
    rates = [0.35 + 0.40 * value for value in spread]
    sizes = [sum(chunk == number for _, chunk in own) for number in chunks]
    low, high = -1.0, 1.0
    for _ in range(60):
        delta = (low + high) / 2
        kept = sum(n * (1 - min(1, max(0, rate + delta))) for n, rate in zip(sizes, rates, strict=True))
        low, high = (delta, high) if kept > total else (low, delta)
    shares = [n * (1 - min(1, max(0, rate + high))) for n, rate in zip(sizes, rates, strict=True)]
    counts = [math.floor(share + 1e-9) for share in shares]
    while sum(counts) < total:
        rest = [round(share - count, 9) for share, count in zip(shares, counts, strict=True)]
        counts[rest.index(max(rest))] += 1
    result = []
    for number, k in zip(chunks, counts, strict=True):
        mine = [j for j, (_, chunk) in enumerate(own) if chunk == number]
        beside = [x for x, chunk in other if chunk == number]
        first = sorted(mine, key=lambda j: (-cos(own[j][0], mean(beside)), j))[: k // 2] if beside else []
        centre = mean([own[j][0] for j in mine])
        second = [j for j in sorted(mine, key=lambda j: (cos(own[j][0], centre), j)) if j not in first]
        result += first + second[: k - len(first)]
    return sorted(result)


def slow_entering(tokens, r_video, r_audio):
    modality, chunk = tokens.modality.tolist(), tokens.chunk.tolist()
    places = {m: [j for j, kind in enumerate(modality) if kind == m] for m in (VIDEO, AUDIO)}
    rows = {VIDEO: tokens.video.tolist(), AUDIO: tokens.audio.tolist()}
    parts = {m: [(x, chunk[j]) for x, j in zip(rows[m], places[m], strict=True)] for m in places}
    kept = []
    for own, other, share in ((VIDEO, AUDIO, r_video), (AUDIO, VIDEO, r_audio)):
        total = round(share * len(parts[own]))
        kept += [places[own][j] for j in slow_modality(parts[own], parts[other], tokens.query.tolist(), total)]
    return sorted(kept)


@pytest.mark.parametrize("R", [0.05, 0.2, 0.3, 0.55, 0.9])
@pytest.mark.parametrize("name", CLIPS)
def test_what_enters_is_what_the_plain_reading_says(name, R):
    counts, spread = CLIPS[name]
    for seed in range(3):
        tokens = media_tokens(counts, seed=seed, **spread)
        plan = OmniFocus(R).plan(counts, 28)
        index = entered(OmniFocus(R), tokens, plan).tolist()
        assert index == slow_entering(tokens, R, R)
        assert plan.kept == (len(index),) * 28


@pytest.mark.parametrize(("r_video", "r_audio"), [(0.1, 0.6), (0.0, 1.0), (1.0, 0.0), (0.25, None)])
def test_budgets_can_be_set_for_each_modality(r_video, r_audio):
    counts, spread = CLIPS["both"]
    tokens, method = media_tokens(counts, **spread), OmniFocus(0.3, r_video=r_video, r_audio=r_audio)
    index = entered(method, tokens, method.plan(counts, 28)).tolist()
    assert index == slow_entering(tokens, r_video, 0.3 if r_audio is None else r_audio)
    with pytest.raises(UsageError, match="from 0 to 1"):
        OmniFocus(0.3, r_video=1.5)


def test_tokens_and_chunks_that_are_all_alike_are_taken_by_their_index():
    tokens = media_tokens(ClipTokens(40, 4, 10), chunks=4)
    tokens = replace(tokens, video=torch.ones(40, 8), audio=torch.ones(40, 8), query=torch.ones(3, 8))
    kept = entered(OmniFocus(0.5), tokens, OmniFocus(0.5).plan(tokens.counts, 28))
    assert [(index // 10) % 2 for index in kept.tolist()] == ([0] * 5 + [1] * 5) * 4
    assert [index % 10 for index in kept.tolist()] == list(range(5)) * 8


def test_counts_come_to_the_total_and_never_exceed_a_chunk():
    random = torch.Generator().manual_seed(0)
    for _ in range(200):
        sizes = torch.randint(1, 40, (7,), generator=random).tolist()
        rates = (0.35 + 0.4 * torch.rand(7, generator=random)).tolist()
        for total in (0, 1, sum(sizes) // 3, sum(sizes) - 1, sum(sizes)):
            counts = chunk_counts(rates, sizes, total)
            assert sum(counts) == total
            assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))


def test_it_needs_the_question(monkeypatch):
    assert OmniFocus(0.3).needs == {QueryEmbeddings()}
    tokens = replace(media_tokens(ClipTokens(40, 4, 10)), query=None)
    with pytest.raises(ValueError, match=r"omnifocus needs MediaTokens\.query"):
        entered(OmniFocus(0.3), tokens, OmniFocus(0.3).plan(tokens.counts, 28))


@pytest.fixture(scope="module")
def nano():
    return omniqa.load("nano", device="cpu", dtype="float32")


def test_each_question_chooses_its_own_tokens_also_about_a_clip_encoded_once(nano):
    video = nano.encode(make_clip(frames=16, seconds=8.0))
    questions = ("Which digits are said?", "What colour is the square?")
    answers = list(nano.ask_all(video, questions, OmniFocus(0.3)))
    assert not (answers[0].trace.alive == answers[1].trace.alive).all()
    for question, answer in zip(questions, answers, strict=True):
        fresh = nano.ask(make_clip(frames=16, seconds=8.0), question, OmniFocus(0.3))
        assert (fresh.trace.alive == answer.trace.alive).all()
        assert fresh.token_ids == answer.token_ids
        assert answer.retention.achieved == pytest.approx(0.3, abs=0.01)
