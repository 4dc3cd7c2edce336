"""seats: what survives is what a slow, plain reading of the text says."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import omniqa
from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.models.decode_step import DecodeStep
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens, Unreachable
from omniqa.pruning.contract import AudioAttention, Scores, VisionAttention
from omniqa.pruning.methods.seats import selection
from omniqa.pruning.methods.seats.method import Seats
from omniqa.pruning.methods.seats.schedule import AboveCeiling, drop_points, keep_factors
from tests.models.qwen2_5_omni import slow
from tests.models.qwen2_5_omni.clips import make_clip
from tests.pruning.clip import entered, media_tokens, run_layers

LAYERS = 14
CHUNKS = ClipTokens(n_audio=15 * 50, grids=15 * 2, tokens_per_grid=144)
CLIPS = {
    "both": (ClipTokens(130, 7, 20), {"chunks": 4}),
    "sound ends early": (ClipTokens(60, 8, 16), {"chunks": 6, "audio_chunks": 2}),
    "sound outlasts the picture": (ClipTokens(220, 2, 30), {"chunks": 5}),
    "one window": (ClipTokens(40, 2, 25), {"chunks": 1}),
    "no sound": (ClipTokens(0, 9, 24), {}),
    "no picture": (ClipTokens(170, 0, 0), {}),
    "a token a grid": (ClipTokens(120, 30, 1), {"chunks": 4}),
}


# --- a plain reading ---


def slow_points(layers):
    return {28: (16, 18, 20, 23), 48: (27, 31, 35, 39)}.get(
        layers, tuple(round(x * layers / 28) for x in (16, 18, 20, 23))
    )


def slow_budgets(n_video, n_audio, R, layers):
    if not n_audio or not n_video:
        return R, R
    rows = {0.10: (0.06, 0.35), 0.15: (0.10, 0.45), 0.25: (0.20, 0.55), 0.35: (0.30, 0.65)}
    if R in rows:
        return rows[R]
    row = [float(np.interp(R, list(rows), [pair[m] for pair in rows.values()])) for m in (0, 1)]
    ceiling = slow_points(layers)[3] / layers
    low, high = 0.0, 1e3
    for _ in range(200):
        f = (low + high) / 2
        mean = (min(ceiling, f * row[0]) * n_video + min(ceiling, f * row[1]) * n_audio) / (n_video + n_audio)
        low, high = (f, high) if mean < R else (low, f)
    return min(ceiling, low * row[0]), min(ceiling, low * row[1])


def slow_factors(r, layers):
    d1, d2, d3, h = slow_points(layers)
    entering = min(1, 1.4 * r)
    shares = [1, math.e, math.e**2]

    def levels(total):
        out = [entering]
        for share in shares:
            out.append(out[-1] - entering * total * share / sum(shares))
        return out

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        a, b, c, d = levels(middle)
        if d1 * a + (d2 - d1) * b + (d3 - d2) * c + (h - d3) * d > r * layers:
            low = middle
        else:
            high = middle
    a, b, c, d = levels(high)
    return b / a, c / b, d / c


def cos(x, y):
    norm = math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / norm if norm else 0.0


def slow_window(x, a, r):
    w = len(x)
    k = max(1, min(w, round((r * 1.4) * w)))
    if k == w:
        return list(range(w))
    D = [[(1 - cos(x[i], x[j])) * a[j] if i != j else 0.0 for j in range(w)] for i in range(w)]
    second = [sorted(D[i][j] for i in range(w))[1] for j in range(w)]
    picked = [second.index(max(second))]
    m = list(D[picked[0]])
    while len(picked) < k:
        for j in picked:
            m[j] = -math.inf
        picked.append(m.index(max(m)))
        m = [min(p, q) for p, q in zip(m, D[picked[-1]], strict=True)]
    return sorted(picked)


def slow_entering(x, a, size, r):
    kept = []
    for start in range(0, len(x), size):
        kept += [start + j for j in slow_window(x[start : start + size], a[start : start + size], r)]
    return kept


def top(places, scores, k):
    return sorted(places, key=lambda j: (-scores[j], j))[:k]


def slow_layer(modality, scores, keep):
    """Places kept of a sequence; keep: the share of each modality."""
    K = {m: max(1, round(keep[m] * modality.count(m))) if m in modality else 0 for m in (VIDEO, AUDIO)}
    runs = {VIDEO: [], AUDIO: []}
    for j, m in enumerate(modality):
        if not j or modality[j - 1] != m:
            runs[m].append([])
        runs[m][-1].append(j)
    count = max(len(runs[VIDEO]), len(runs[AUDIO]))
    if count == 1 or not K[VIDEO] or not K[AUDIO]:
        return sorted(j for m in K for j in top([j for j, kind in enumerate(modality) if kind == m], scores, K[m]))
    windows = [{m: runs[m][i] if i < len(runs[m]) else [] for m in K} for i in range(count)]
    w = {}
    for m in K:
        means = [sum(scores[j] for j in one[m]) / len(one[m]) if one[m] else 0.0 for one in windows]
        powers = [math.exp(mean / 0.1) for mean in means]
        w[m] = [power / sum(powers) for power in powers]
    total = K[VIDEO] + K[AUDIO]
    size = [len(one[VIDEO]) + len(one[AUDIO]) for one in windows]
    b = [min(size[i], max(1, round(total * (w[VIDEO][i] + w[AUDIO][i]) / 2))) for i in range(count)]
    while sum(b) > total and max(b) > 1:
        b[b.index(max(b))] -= 1
    while sum(b) < total and any(b[i] < size[i] for i in range(count)):
        least = min(b[i] for i in range(count) if b[i] < size[i])
        b[next(i for i in range(count) if b[i] == least and b[i] < size[i])] += 1
    kept = []
    for i, one in enumerate(windows):
        n_v, n_a = len(one[VIDEO]), len(one[AUDIO])
        fraction = w[VIDEO][i] * K[VIDEO] / (w[VIDEO][i] * K[VIDEO] + w[AUDIO][i] * K[AUDIO])
        v = min(n_v, round(b[i] * fraction))
        a = min(n_a, b[i] - v)
        more = min(n_v - v, b[i] - v - a)
        v += more
        a += min(n_a - a, b[i] - v - a)
        if n_v and v == 0:
            v = 1
            if a > 1:
                a -= 1
        if n_a and a == 0:
            a = 1
            if v > 1:
                v -= 1
        kept += top(one[VIDEO], scores, v) + top(one[AUDIO], scores, a)
    return sorted(kept)


def slow_alive(tokens, R, layers, scores):
    """alive[l]: indices of the sequence, by layer. scores: (L-1, n)."""
    modality = tokens.modality.tolist()
    places = {m: [j for j, kind in enumerate(modality) if kind == m] for m in (VIDEO, AUDIO)}
    r = dict(zip((VIDEO, AUDIO), slow_budgets(len(places[VIDEO]), len(places[AUDIO]), R, layers), strict=True))
    chosen = {
        VIDEO: slow_entering(
            tokens.video.tolist(), tokens.video_attention.tolist(), 2 * max(1, tokens.tokens_per_grid), r[VIDEO]
        ),
        AUDIO: slow_entering(tokens.audio.tolist(), tokens.audio_attention.tolist(), 50, r[AUDIO])
        if places[AUDIO]
        else [],
    }
    now = sorted(places[m][j] for m in chosen for j in chosen[m])
    factors = {m: slow_factors(r[m], layers) for m in chosen}
    points = slow_points(layers)
    alive = []
    for layer in range(layers):
        alive.append(now)
        if layer + 1 in points[:3]:
            keep = {m: factors[m][points.index(layer + 1)] for m in chosen}
            kept = slow_layer([modality[j] for j in now], [float(scores[layer][j]) for j in now], keep)
            now = [now[j] for j in kept]
        if layer + 1 == points[3]:
            now = []
    return alive


# --- against it ---


def clip(name, seed=0):
    counts, spread = CLIPS[name]
    tokens = media_tokens(counts, seed=seed, **spread)
    attention = torch.rand(counts.n_video, generator=torch.Generator().manual_seed(seed + 1))
    return replace(tokens, video_attention=attention)


@pytest.mark.parametrize("R", [0.06, 0.2, 0.3, 0.55, 0.8])
@pytest.mark.parametrize("name", CLIPS)
def test_survivors_are_those_of_the_plain_reading(name, R):
    tokens, method = clip(name), Seats(R)
    try:
        plan = method.plan(tokens.counts, LAYERS)
    except Unreachable as error:  # few tokens make wide steps
        plan = replace(method, retention=error.nearest).plan(tokens.counts, LAYERS)
        method, R = replace(method, retention=error.nearest), error.nearest
    scores = torch.rand(LAYERS - 1, tokens.counts.n, generator=torch.Generator().manual_seed(2)) * 0.4
    alive = run_layers(method, plan, tokens, entered(method, tokens, plan), scores)
    assert [index.tolist() for index in alive] == slow_alive(tokens, R, LAYERS, scores)
    assert len(alive[0]) == plan.kept[0]
    assert sum(map(len, alive)) / (LAYERS * tokens.counts.n) == pytest.approx(plan.retention, abs=0.01)
    assert not any(plan.kept[12:])


@pytest.mark.parametrize("R", [0.1, 0.15, 0.25, 0.35])
def test_published_budgets_are_used_as_they_are(R):
    tokens = media_tokens(replace(CHUNKS, tokens_per_grid=144, grids=6, n_audio=150), chunks=3)
    tokens = replace(tokens, video_attention=torch.rand(864, generator=torch.Generator().manual_seed(1)))
    method, plan = Seats(R), Seats(R).plan(tokens.counts, 28)
    scores = torch.rand(27, tokens.counts.n, generator=torch.Generator().manual_seed(2))
    alive = run_layers(method, plan, tokens, entered(method, tokens, plan), scores)
    assert [index.tolist() for index in alive] == slow_alive(tokens, R, 28, scores)


def test_equal_tokens_are_taken_by_their_index():
    keep = selection.keep_most_diverse(torch.ones(1, 6, 4), torch.ones(1, 6), 3)
    assert keep.tolist() == [[True] * 3 + [False] * 3]
    scores, modality = torch.ones(12), torch.tensor([VIDEO, VIDEO, AUDIO, AUDIO] * 3)
    assert selection.keep_of_layer(scores, modality, 3, 3).tolist() == [0, 2, 4, 6, 8, 10]


def test_windows_are_chosen_in_blocks_as_they_are_at_once(monkeypatch):
    tokens = clip("both")
    whole = selection.keep_of_windows(tokens.video, tokens.video_attention, 40, 0.3)
    monkeypatch.setattr(selection, "_ELEMENTS", 1)
    assert selection.keep_of_windows(tokens.video, tokens.video_attention, 40, 0.3).equal(whole)


# --- figures of the text ---


@pytest.mark.parametrize(
    ("layers", "factors"),
    [
        (28, (0.929839, 0.794891, 0.298590)),
        (48, (0.925528, 0.781274, 0.238988)),
        (36, (0.925575, 0.781424, 0.239655)),
        (14, (0.925742, 0.781953, 0.242008)),
    ],
)
def test_keep_factors_are_those_of_the_text_and_the_same_for_all_budgets(layers, factors):
    for budget in (0.06, 0.3, 0.65, 1 / 1.4):
        assert keep_factors(budget, layers) == pytest.approx(factors, abs=1e-6)
    assert drop_points(layers)[3] == {28: 23, 48: 39, 36: 30, 14: 12}[layers]


@pytest.mark.parametrize(("R", "achieved"), [(0.35, 0.3508), (0.25, 0.2515), (0.15, 0.1522), (0.10, 0.1014)])
def test_the_published_rows_achieve_what_the_text_says(R, achieved):
    assert round(Seats(R).plan(CHUNKS, 28).retention, 4) == achieved


@pytest.mark.parametrize("R", [0.02, 0.08, 0.12, 0.2, 0.3, 0.5, 0.7, 0.8, 23 / 28])
def test_any_other_retention_is_met_by_one_factor_up_to_the_ceiling(R):
    plan = Seats(R).plan(CHUNKS, 28)
    assert plan.retention == pytest.approx(R, abs=0.01)
    assert max(plan.r_video, plan.r_audio) <= 23 / 28
    assert (plan.r_video, plan.r_audio) == pytest.approx(slow_budgets(CHUNKS.n_video, CHUNKS.n_audio, R, 28))


def test_above_the_ceiling_is_an_error_that_names_it():
    with pytest.raises(AboveCeiling, match=r"its ceiling here is 0\.8214") as raised:
        Seats(0.9).plan(CHUNKS, 28)
    assert Seats(raised.value.nearest).plan(CHUNKS, 28).retention == 23 / 28
    assert Seats(1.0).plan(CHUNKS, 28).kept == (CHUNKS.n,) * 28


def test_a_published_row_far_from_its_retention_on_a_clip_is_an_error_that_names_what_it_comes_to():
    mostly_sound = ClipTokens(750, 30, 9)
    with pytest.raises(Unreachable, match="the nearest it reaches is") as raised:
        Seats(0.25).plan(mostly_sound, 28)
    nearest = raised.value.nearest
    assert Seats(nearest).plan(mostly_sound, 28).retention == pytest.approx(nearest, abs=0.01)


@pytest.mark.parametrize("layers", [4, 6, 10])
def test_too_few_layers_are_an_error(layers):
    with pytest.raises(UsageError, match="at least 11 layers"):
        Seats(0.3).plan(CHUNKS, layers)
    assert Seats(1.0).plan(CHUNKS, layers).retention == 1
    assert Seats(0.3).plan(CHUNKS, 11).retention == pytest.approx(0.3, abs=0.01)


def test_it_needs_both_encoders_attention_and_the_last_rows():
    assert Seats(0.3).needs == {AudioAttention("window"), VisionAttention(), Scores("last")}
    tokens = clip("both")
    for missing in ("video_attention", "audio_attention"):
        with pytest.raises(ValueError, match=f"seats needs MediaTokens.{missing}"):
            entered(Seats(0.3), replace(tokens, **{missing: None}), Seats(0.3).plan(tokens.counts, LAYERS))


# --- in a model ---


@pytest.fixture(scope="module")
def nano():
    return omniqa.load("nano", device="cpu", dtype="float32")


@pytest.mark.parametrize("kind", [{"frames": 8, "seconds": 4.0}, {"frames": 6}, {"seconds": 5.0}])
def test_the_last_layers_and_all_caches_hold_text_alone(nano, kind):
    clip, given = make_clip(**kind), []

    class Watched(Seats):
        def prune_input(self, media, plan):
            given.append(media)
            return super().prune_input(media, plan)

    method = Watched(0.3)
    prefilled = nano.prefiller.prefill(nano.encode(clip, method=method), "What happens?", method, max_new_tokens=3)
    layout, result, (tokens,) = prefilled.layout, prefilled.result, given
    alive = [index.tolist() for index in result.alive]
    scores = torch.zeros(13, len(tokens.modality))
    for layer in (7, 8, 9):
        scores[layer, result.alive[layer]] = result.scores[layer]
    assert alive == slow_alive(tokens, 0.3, 14, scores)
    assert [len(index) for index in alive[12:]] == [0, 0]
    text = len(layout.ids) - (layout.media.stop - layout.media.start)
    assert prefilled.cache.lengths == [text] * 14
    media = torch.empty(len(tokens.modality), nano.model.width)
    media[tokens.modality == VIDEO], media[tokens.modality == AUDIO] = tokens.video, tokens.audio
    generated, step = [], result.logits
    steps = DecodeStep(nano.decoder, prefilled.cache, layout.next_position)
    for _ in range(3):
        generated.append(int(step.argmax()))
        step = steps(generated[-1])
        with torch.inference_mode():
            expected = slow.recompute(nano, layout, media, alive, generated, [[]] * 14)
        assert (step - expected).abs().max() <= 1e-3


def test_an_answer_tells_what_was_computed(nano):
    answer = nano.ask(make_clip(frames=8, seconds=4.0), "What happens?", "seats", 0.3)
    assert answer.retention.achieved == pytest.approx(0.3, abs=0.01)
    assert answer.retention.per_layer[12:] == (0.0, 0.0)
    assert not answer.trace.cached.any()
    assert registry.create("seats", 1.0).plan(CHUNKS, 14).retention == 1


def test_further_questions_are_answered_as_if_asked_afresh(nano):
    clip, method = make_clip(frames=8, seconds=4.0), Seats(0.3)
    video = nano.encode(clip, method=method)
    for question in ("What happens?", "And who is heard at the end?"):
        again = nano.prefiller.prefill(video, question, method, reuse_prefix=True)
        fresh = nano.prefiller.prefill(video, question, method)
        assert [index.tolist() for index in again.result.alive] == [index.tolist() for index in fresh.result.alive]
        assert (again.result.logits - fresh.result.logits).abs().max() <= 1e-3
        assert again.cache.lengths == fresh.cache.lengths


def test_a_decoder_of_too_few_layers_is_refused_before_it_runs(qa):
    with pytest.raises(UsageError, match="at least 11 layers; this one has 6"):
        qa.ask(make_clip(frames=4, seconds=2.0), "What happens?", "seats", 0.3)
