"""A slow, plain reading of methods.md, loop by loop on Python lists, to hold the package against.

Nothing here comes from `omniqa`; floats are Python's doubles, and R is the ratio that was meant (1/3, where
the double nearest to 1/3 was given), so that ties are ties.
"""

import math
from fractions import Fraction

import numpy as np

PAPER = {
    (28, 0.3): (0.0, 0.2, 0.5, 14),
    (28, 0.2): (0.02, 0.5, 0.5, 14),
    (36, 0.3): (0.0, 0.15, 0.5, 19),
    (36, 0.2): (0.02, 0.5, 0.55, 19),
}


# --- building blocks ---


def floor(x):
    return math.floor(x + 1e-9)


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    norms = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return dot / norms if norms else 0.0


def first(indices, k, key):
    """The k of `indices` with the smallest key; of equal keys the lower index."""
    return sorted(indices, key=lambda i: (key(i), i))[:k]


def ttm(video, rho):
    """video[grid][place] = embedding; keep[grid][place] = whether it stays."""
    keep = []
    for g, grid in enumerate(video):
        places = range(len(grid))
        if g % 4 == 0:
            chosen = places
        else:
            earlier = video[g - 2] if g % 4 == 2 else video[g - 1]
            chosen = first(places, floor((1 - rho) * len(grid)), lambda i, a=grid, b=earlier: cosine(a[i], b[i]))
        keep.append([i in set(chosen) for i in places])
    return keep


def top_audio(importance, k):
    return sorted(first(range(len(importance)), k, lambda j: -importance[j]))


def thin(m, n0):
    return [j * n0 // m for j in range(m)]


def stay(n, dropped):
    return [i for i in range(n) if i not in set(dropped)]


def drop_lowest(scores, k, droppable=None):
    """The positions that stay. droppable: a list of bool, or None for all."""
    allowed = [i for i in range(len(scores)) if droppable is None or droppable[i]]
    return stay(len(scores), first(allowed, k, lambda i: scores[i]))


def drop_by_tds(scores, chunk, k, max_chunk, lam, droppable=None):
    """The positions that stay."""
    allowed = [i for i in range(len(scores)) if droppable is None or droppable[i]]
    if not allowed:
        return stay(len(scores), [])
    c_max = chunk[first(allowed, 1, lambda i: -scores[i])[0]]
    candidates = first(allowed, min(2 * k, max(k, len(allowed) - 1)), lambda i: scores[i])
    distance = [abs(c_max - c) / max_chunk if max_chunk else 0.0 for c in chunk]
    return stay(len(scores), first(candidates, k, lambda i: scores[i] + lam * distance[i]))


# --- omnidrop's schedule ---


def rates(p_init, p_final, t_mid, layers, beta=20.0, curve="sigmoid"):
    result = []
    for layer in range(layers - 1):
        x = layer / (layers - 2)
        if curve == "sigmoid":
            result.append(p_init + (p_final - p_init) * 1 / (1 + math.exp(-beta * (x - t_mid))))
        elif p_init == 0 and p_final == 0:
            result.append(0.0)
        else:
            start = p_final / 10 if p_init == 0 else p_init
            result.append(start * (p_final / start) ** x)
    return result


def alive(n0, ps, droppable=None):
    counts = [n0]
    for p in ps:
        k = floor(counts[-1] * p)
        if droppable is not None:
            k = min(k, droppable - (n0 - counts[-1]))
        counts.append(counts[-1] - k)
    return counts


def input_level(n_audio, grids, hw, share_audio, share_video):
    """(audio kept, video kept, rho)."""
    rho = min(1, (1 - share_video) / 0.75)
    video = 0
    for g in range(grids):
        video += hw if g % 4 == 0 else floor((1 - rho) * hw)
    return round(share_audio * n_audio), video, rho


def halve(low, high, true_at):
    """50 halvings towards the point where `true_at` turns true."""
    if true_at(low):
        return low, low
    for _ in range(50):
        middle = (low + high) / 2
        if true_at(middle):
            high = middle
        else:
            low = middle
    return low, high


def omnidrop(n_audio, grids, hw, layers, R, schedule="exact", curve="sigmoid", plp=True, guidance="text", beta=20.0):
    """The counts as a dict: keep_audio, keep_video, rho, thin_to, thin_audio, alive, l_div."""
    n = n_audio + grids * hw
    exact_R = Fraction(R).limit_denominator(10**9)
    goal = exact_R * n * layers  # as a sum over layers
    l_div = 19 if layers == 36 else layers // 2

    def done(kept, ps, thin_to=None):
        audio, video, rho = kept
        n0, thin_audio = audio + video, None
        if thin_to == n0:
            thin_to = None
        if thin_to is not None and guidance == "audio":
            thin_audio = math.ceil(Fraction(thin_to * audio, n0))
            audio = thin_audio
        n0 = n0 if thin_to is None else thin_to
        return {
            "keep_audio": kept[0],
            "keep_video": video,
            "rho": rho,
            "thin_to": thin_to,
            "thin_audio": thin_audio,
            "kept": alive(n0, ps, n0 - audio if guidance == "audio" else None),
            "l_div": l_div,
        }

    if R == 1:
        return done((n_audio, grids * hw, 0.0), [0.0] * (layers - 1))

    if not plp:

        def scaled(f):
            return input_level(n_audio, grids, hw, min(1, 0.7 * f), min(1, 0.4 * f))

        _, f = halve(0.0, 2.5, lambda f: sum(scaled(f)[:2]) >= max(1, exact_R * n))
        return done(scaled(f), [0.0] * (layers - 1), max(1, round(R * n)))

    def at(t):
        return input_level(n_audio, grids, hw, 0.7 + 0.3 * t, 0.4 + 0.6 * t)

    t = max(0, (min(1, 1.5 * R) - 0.45) / 0.55)
    if schedule == "paper":
        p_init, p_final, t_mid, l_div = PAPER[layers, R]
        return done(at(t), rates(p_init, p_final, t_mid, layers, beta, curve))

    kept = at(halve(t, 1.0, lambda t: sum(at(t)[:2]) >= exact_R * n)[1])
    p_init = 0.0 if R >= 0.25 else 0.02
    t_mid = 0.55 if layers == 36 and R < 0.25 else 0.5

    def ps(p_init, p_final):
        return rates(p_init, p_final, t_mid, layers, beta, curve)

    def total(p_init, p_final, thin_to=None):
        return sum(done(kept, ps(p_init, p_final), thin_to)["kept"])

    def nearer(low, high, total_at):
        low, high = halve(low, high, lambda p: total_at(p) <= goal)
        return high if abs(total_at(high) - goal) < abs(total_at(low) - goal) else low

    if total(p_init, 0.0) < goal:  # p_init alone drops too much
        return done(kept, ps(nearer(0.0, p_init, lambda p: total(p, 0.0)), 0.0))
    if total(p_init, 0.9) <= goal:
        return done(kept, ps(p_init, nearer(0.0, 0.9, lambda p: total(p_init, p))))
    if total(0.9, 0.9) <= goal:
        low = 0.09 if curve == "exp" and p_init == 0 else p_init
        return done(kept, ps(nearer(low, 0.9, lambda p: total(p, 0.9)), 0.9))
    m = sum(kept[:2])
    while m > 1 and total(0.9, 0.9, m) > goal:
        m -= 1
    return done(kept, ps(0.9, 0.9), m)


# --- omnidrop from end to end ---


def omnidrop_input(modality, hw, video, audio_importance, counts):
    """The indices into the sequence that enter layer 0. modality: 0 video, 1 audio; video[j]: embedding of video j."""
    grids = [video[g : g + hw] for g in range(0, len(video), hw)] if hw else []
    video_stays = [flag for grid in ttm(grids, counts["rho"]) for flag in grid]
    audio_stays = set(top_audio(audio_importance, counts["keep_audio"]))
    kept, seen_video, seen_audio = [], 0, 0
    for i, kind in enumerate(modality):
        if kind == 0:
            if video_stays[seen_video]:
                kept.append(i)
            seen_video += 1
        else:
            if seen_audio in audio_stays:
                kept.append(i)
            seen_audio += 1
    if counts["thin_to"] is None:
        return kept
    if counts["thin_audio"] is None:
        return [kept[j] for j in thin(counts["thin_to"], len(kept))]
    thinned = []
    for kind, m in ((1, counts["thin_audio"]), (0, counts["thin_to"] - counts["thin_audio"])):
        same = [i for i in kept if modality[i] == kind]
        thinned += [same[j] for j in thin(m, len(same))]
    return sorted(thinned)


def omnidrop_layers(modality, chunk, entered, scores, counts, tds=True, guidance="text", lam=0.2):
    """alive[l]: the indices alive at layer l. scores[l][i]: S of sequence index i at layer l."""
    alive_at = [list(entered)]
    for layer in range(len(counts["kept"]) - 1):
        now = alive_at[-1]
        k = counts["kept"][layer] - counts["kept"][layer + 1]
        s = [scores[layer][i] for i in now]
        droppable = [modality[i] == 0 for i in now] if guidance == "audio" else None
        if tds and layer >= counts["l_div"]:
            positions = drop_by_tds(s, [chunk[i] for i in now], k, max(chunk), lam, droppable)
        else:
            positions = drop_lowest(s, k, droppable)
        alive_at.append([now[j] for j in positions])
    return alive_at


# --- the methods of one stage ---


def nearest_ratio(low, high, total, goal):
    low, high = halve(low, high, lambda ratio: total(ratio) <= goal)
    return high if abs(total(high) - goal) < abs(total(low) - goal) else low


def near_enough(total, goal, n):
    return abs(total - goal) <= Fraction(1, 100) * n


def fastv(n, layers, R):
    """alive, by layer."""
    m = n if R == 1 else max(1, round(n * (R * layers - 2) / (layers - 2)))
    return [n] * 2 + [m] * (layers - 2)


def dycoke_rho(n_audio, grids, hw, R):
    """ρ, or None where no ρ comes within 0.01."""

    def total(rho):
        return n_audio + sum(hw if g % 4 == 0 else floor((1 - rho) * hw) for g in range(grids))

    n = n_audio + grids * hw
    goal = Fraction(R).limit_denominator(10**9) * n
    rho = nearest_ratio(0.0, 1.0, total, goal)
    return rho if near_enough(total(rho), goal, n) else None


def kept_audio(priority, rho_audio, share):
    """(dominant, anchors, others)."""
    n = len(priority)
    dominant = top_audio(priority, round((1 - rho_audio) * n))
    remaining = stay(n, dominant)
    m = len(remaining)
    count = min(round(share * n), m)
    step = max(1, m // count) if count else 1
    anchors = [remaining[j * step] for j in range(count)]
    return dominant, anchors, [i for i in remaining if i not in anchors]


def merged_anchors(audio, video, anchors, others, g):
    """New embedding by anchor, for those that have members."""
    members = {}
    for i in others:
        anchor = first(anchors, 1, lambda a, i=i: -cosine(audio[i], audio[a]))
        if anchor:
            members.setdefault(anchor[0], []).append(i)
    changed = {}
    for anchor, group in members.items():
        best = {i: max(cosine(audio[i], v) for v in video or [audio[anchor]]) for i in group}
        chosen = first(group, g, lambda i, best=best: -best[i])
        if not chosen:
            continue
        weights = [math.exp(best[i]) / sum(math.exp(best[j]) for j in chosen) for i in chosen]
        changed[anchor] = [
            (x + sum(w * audio[i][c] for w, i in zip(weights, chosen, strict=True))) / 2
            for c, x in enumerate(audio[anchor])
        ]
    return changed


def chunk_rates(rho_v, kept, audio, video, lo=None, hi=None):
    """kept, audio, video: tokens by chunk."""
    if lo is None:
        hi = min(1, rho_v + 0.10)
        lo = max(0, rho_v - 0.35) if rho_v <= 0.75 else 0.40 + 0.5 * (rho_v - 0.75)
    chunks = range(len(audio))
    heard = [c for c in chunks if audio[c] > 0]
    rate = {c: hi - (hi - lo) * (kept[c] / audio[c]) if audio[c] else rho_v for c in chunks}
    wanted = rho_v * sum(video[c] for c in heard)
    free = list(heard)
    if len(heard) > 2:
        lowest = first(heard, 1, lambda c: rate[c])[0]
        highest = first(heard, 1, lambda c: -rate[c])[0]
        free = [c for c in heard if c not in (lowest, highest)]

    def weighted(some):
        return sum(rate[c] * video[c] for c in some)

    left = wanted - weighted([c for c in heard if c not in free])
    if weighted(free) > 0:
        factor = left / weighted(free)
        for c in free:
            rate[c] = rate[c] * factor
    for c in free:
        rate[c] = min(max(rate[c], lo), hi)
    if len(heard) > 2 and sum(video[c] for c in free):
        amount = (left - weighted(free)) / sum(video[c] for c in free)
        for c in free:
            rate[c] = min(max(rate[c] + amount, lo), hi)
    return [rate[c] for c in chunks]


def density_times_delta(grid):
    hw = len(grid)
    distance = [[1 - cosine(a, b) for b in grid] for a in grid]
    k = min(5, hw - 1)
    density = []
    for i in range(hw):
        smallest = sorted(distance[i][j] for j in range(hw) if j != i)[:k]
        density.append(math.exp(-sum(smallest) / k) if k else 1.0)
    product = []
    for i in range(hw):
        denser = [distance[i][j] for j in range(hw) if density[j] > density[i]]
        others = [distance[i][j] for j in range(hw) if j != i]
        product.append(density[i] * (min(denser) if denser else max(others, default=0.0)))
    return product


def solve_both(count, R, n, rho_audio, rho_v):
    """(ρ_a, ρ_v), or None where none comes within 0.01. rho_v None: to be solved."""
    if rho_v is not None:
        return rho_audio, rho_v
    goal = Fraction(R).limit_denominator(10**9) * n
    rho_v = nearest_ratio(0.0, 0.95, lambda rho: count(rho_audio, rho), goal)
    reached = count(rho_audio, 0.95) <= goal <= count(rho_audio, 0.0)
    if not reached or not near_enough(count(rho_audio, rho_v), goal, n):
        rho_audio = nearest_ratio(0.0, 1.0, lambda rho: count(rho, rho_v), goal)
    return (rho_audio, rho_v) if near_enough(count(rho_audio, rho_v), goal, n) else None


def in_sequence(modality, video_kept, audio_kept, changed):
    """(indices into the sequence, new embedding by index)."""
    places = {kind: [i for i, k in enumerate(modality) if k == kind] for kind in (0, 1)}
    kept = sorted([places[0][j] for j in video_kept] + [places[1][j] for j in audio_kept])
    return kept, {places[1][j]: embedding for j, embedding in changed.items()}


def omnizip(modality, chunk, hw, video, audio, importance, R, rho_audio=0.45, rho_v=None, anchors=0.05, g=3, bounds=()):
    """(indices that enter layer 0, changed embeddings by index), or None where R is out of reach."""
    chunks = range(max(chunk) + 1)
    audio_chunk = [c for c, kind in zip(chunk, modality, strict=True) if kind == 1]
    video_chunk = [c for c, kind in zip(chunk, modality, strict=True) if kind == 0]

    def keep_of_chunk(rho_audio, rho_v):
        dominant, some, _ = kept_audio(importance, rho_audio, anchors)
        kept = [sum(audio_chunk[j] == c for j in dominant + some) for c in chunks]
        rates = chunk_rates(
            rho_v, kept, [audio_chunk.count(c) for c in chunks], [video_chunk.count(c) for c in chunks], *bounds
        )
        return [floor((1 - rate) * hw) for rate in rates], len(dominant) + len(some)

    def count(rho_audio, rho_v):
        keep, total = keep_of_chunk(rho_audio, rho_v)
        return total + sum(keep[video_chunk[start]] for start in range(0, len(video), hw or 1))

    solved = solve_both(count, R, len(modality), rho_audio, rho_v)
    if solved is None:
        return None
    keep, _ = keep_of_chunk(*solved)
    video_kept, before, t = [], None, 0
    for start in range(0, len(video), hw or 1):
        t = t + 1 if before == video_chunk[start] else 0
        before = video_chunk[start]
        grid = video[start : start + hw]
        if t % 2 == 0:
            score = density_times_delta(grid)
            chosen = first(range(hw), keep[before], lambda i, s=score: -s[i])
        else:
            earlier = video[start - hw : start]
            chosen = first(range(hw), keep[before], lambda i, a=grid, b=earlier: cosine(a[i], b[i]))
        video_kept += [start + i for i in chosen]
    dominant, some, others = kept_audio(importance, solved[0], anchors)
    return in_sequence(modality, video_kept, dominant + some, merged_anchors(audio, video, some, others, g))


def uniqueness(audio):
    n, d = len(audio), len(audio[0])

    def variance(c):
        mean = sum(x[c] for x in audio) / n
        return sum((x[c] - mean) ** 2 for x in audio) / n

    channels = first(range(d), d // 2, variance)
    rows = []
    for x in audio:
        norm = math.sqrt(sum(x[c] ** 2 for c in channels))
        rows.append([x[c] / norm if norm else 0.0 for c in channels])
    mean = [sum(row[c] for row in rows) / n for c in range(len(channels))]
    s = []
    for row in rows:
        far = sum((x - m) ** 2 for x, m in zip(row, mean, strict=True))
        s.append(sum(math.exp(-far / (2 * alpha)) for alpha in (1 / 8, 1 / 4, 1 / 2, 1, 2)))
    return [1 - x / max(s) for x in s]


def dash_audio(audio, importance):
    """(priority, cuts)."""
    priority, cuts, start = [], [], 0
    unique = uniqueness(audio) if audio else []
    for t in range(len(audio)):
        p = 1.0
        if t > 0:
            similarity = cosine(audio[t - 1], audio[t])
            p = min(max((1 - similarity) / 2, 0.0), 1.0)
            if similarity < 0.4 and t - start >= 30:
                cuts.append(t)
                start = t
        priority.append(0.4 * p + 0.3 * unique[t] + 0.3 * importance[t] / max(importance))
    return priority, cuts


def crowd(block):
    k = min(5, len(block) - 1)
    result = []
    for i, a in enumerate(block):
        highest = sorted((cosine(a, b) for j, b in enumerate(block) if j != i), reverse=True)[:k]
        result.append(sum(highest) / k if k else 0.0)
    return result


def dash(modality, hw, video, audio, importance, R, rho_audio=0.45, rho_v=None, anchors=0.05, g=3):
    """(indices that enter layer 0, changed embeddings by index), or None where R is out of reach."""
    priority, cuts = dash_audio(audio, importance)
    ends = [*cuts, len(audio)]
    segments, start = [], 0
    for end in ends:
        if audio:
            segments.append((start, end, start * len(video) // len(audio), end * len(video) // len(audio)))
        else:
            segments.append((0, 0, 0, len(video)))
        start = end

    def keep_of_segment(rho_audio, rho_v):
        dominant, some, _ = kept_audio(priority, rho_audio, anchors)
        keep = []
        for a0, a1, v0, v1 in segments:
            if not audio:
                rate = max(0.35, rho_v - 0.15)
            elif v1 - v0 < 2 * hw:
                keep.append(None)
                continue
            else:
                ret = sum(a0 <= j < a1 for j in dominant + some) / (a1 - a0)
                rate = min(max(rho_v + 0.1 * (0.5 - ret), 0.1), 0.95)
            keep.append(floor((1 - rate) * hw))
        return keep, len(dominant) + len(some)

    def count(rho_audio, rho_v):
        keep, total = keep_of_segment(rho_audio, rho_v)
        for (_, _, v0, v1), k in zip(segments, keep, strict=True):
            total += v1 - v0 if k is None or not hw else (v1 - v0) // hw * k
        return total

    solved = solve_both(count, R, len(modality), rho_audio, rho_v)
    if solved is None:
        return None
    video_kept = []
    for (_, _, v0, v1), k in zip(segments, keep_of_segment(*solved)[0], strict=True):
        if k is None:
            video_kept += range(v0, v1)
            continue
        for number in range((v1 - v0) // hw if hw else 0):
            at = v0 + number * hw
            block = video[at : at + hw]
            if number % 2 == 0:
                cost = crowd(block)
                chosen = first(range(hw), k, lambda i, cost=cost: cost[i])
            else:
                earlier = video[at - hw : at]
                chosen = first(range(hw), k, lambda i, a=block, b=earlier: cosine(a[i], b[i]))
            video_kept += [at + i for i in chosen]
    dominant, some, others = kept_audio(priority, solved[0], anchors)
    return in_sequence(modality, video_kept, dominant + some, merged_anchors(audio, video, some, others, g))


def omnisift_scores(weights, audio, seen):
    """The selector's scores of a pair's audio, before the sigmoid, from the embeddings of the video that survives."""

    def linear(name, vector):
        return weights[f"{name}.weight"] @ np.array(vector) + weights[f"{name}.bias"]

    def norm(name, vector):
        centred = vector - vector.mean()
        return centred / math.sqrt((centred**2).mean() + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def head(rows, number, vector):
        """One head's 64 numbers of the query (rows = 0), key (1) or value (2) of a vector."""
        at = slice(512 * rows + 64 * number, 512 * rows + 64 * (number + 1))
        return weights["cross_attn.in_proj_weight"][at] @ vector + weights["cross_attn.in_proj_bias"][at]

    video = [norm("v_norm", linear("v_proj", y)) for y in seen]
    keys = [[head(1, number, v) for v in video] for number in range(8)]
    values = [[head(2, number, v) for v in video] for number in range(8)]
    scores = []
    for x in audio:
        a = norm("a_norm", linear("a_proj", x))
        attended = []
        for number in range(8):
            query = head(0, number, a)
            power = [math.exp(query @ key / math.sqrt(64)) for key in keys[number]]
            total = sum(power)
            attended.append(sum(p / total * value for p, value in zip(power, values[number], strict=True)))
        y = norm("post_attn_norm", linear("cross_attn.out_proj", np.concatenate(attended)) + a)
        hidden = linear("score_head.0", y)
        scores.append(float(linear("score_head.2", hidden / (1 + np.exp(-hidden)))[0]))
    return scores


def omnisift(modality, time_s, hw, video, audio, weights, R, rho_audio=0.3, rho_v=None):
    """(indices that enter layer 0, none changed), or None where R is out of reach. weights: arrays by name."""
    grids = [video[g : g + hw] for g in range(0, len(video), hw)] if hw else []
    video_time = [t for t, kind in zip(time_s, modality, strict=True) if kind == 0]
    audio_time = [t for t, kind in zip(time_s, modality, strict=True) if kind == 1]
    starts = [video_time[g * hw] for g in range(0, len(grids), 2)]
    heard = []  # the audio tokens of each pair
    for pair, start in enumerate(starts):
        end = starts[pair + 1] if pair + 1 < len(starts) else math.inf
        heard.append([j for j, t in enumerate(audio_time) if start <= t < end])

    def dropped(m, rho_audio, rho_v):
        return floor(rho_audio * m) if m >= 2 and floor(rho_v * hw) < hw else 0

    def count(rho_audio, rho_v):
        kept = len(audio) - sum(dropped(len(tokens), rho_audio, rho_v) for tokens in heard)
        return kept + sum(hw - floor(rho_v * hw) for _ in grids)

    solved = solve_both(count, R, len(modality), rho_audio, rho_v)
    if solved is None:
        return None
    rho_audio, rho_v = solved
    video_gone, audio_gone = [], []
    for pair, tokens in enumerate(heard):
        seen = []
        for g in range(2 * pair, min(2 * pair + 2, len(grids))):
            if g % 2 == 0:
                mean = [sum(x[c] for x in grids[g]) / hw for c in range(len(grids[g][0]))]
                alike = [cosine(x, mean) for x in grids[g]]
            else:
                alike = [cosine(x, y) for x, y in zip(grids[g], grids[g - 1], strict=True)]
            gone = first(range(hw), floor(rho_v * hw), lambda i, alike=alike: -alike[i])
            video_gone += [g * hw + i for i in gone]
            seen += [x for i, x in enumerate(grids[g]) if i not in gone]
        leave = dropped(len(tokens), rho_audio, rho_v)
        if leave:
            scores = omnisift_scores(weights, [audio[j] for j in tokens], seen)
            score = dict(zip(tokens, scores, strict=True))
            stays = first(tokens, len(tokens) - leave, lambda j, score=score: -score[j])
            audio_gone += [j for j in tokens if j not in stays]
    return in_sequence(modality, stay(len(video), video_gone), stay(len(audio), audio_gone), {})
