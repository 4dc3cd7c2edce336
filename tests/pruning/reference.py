"""A slow, plain reading of methods.md, loop by loop on Python lists, to hold the package against.

Nothing here comes from `omniqa`; floats are Python's doubles, and R is the ratio that was meant (1/3, where
the double nearest to 1/3 was given), so that ties are ties.
"""

import math
from fractions import Fraction

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
    candidates = first(allowed, min(2 * k, len(allowed)), lambda i: scores[i])
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
            "alive": alive(n0, ps, n0 - audio if guidance == "audio" else None),
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
        return sum(done(kept, ps(p_init, p_final), thin_to)["alive"])

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
    for layer in range(len(counts["alive"]) - 1):
        now = alive_at[-1]
        k = counts["alive"][layer] - counts["alive"][layer + 1]
        s = [scores[layer][i] for i in now]
        droppable = [modality[i] == 0 for i in now] if guidance == "audio" else None
        if tds and layer >= counts["l_div"]:
            positions = drop_by_tds(s, [chunk[i] for i in now], k, max(chunk), lam, droppable)
        else:
            positions = drop_lowest(s, k, droppable)
        alive_at.append([now[j] for j in positions])
    return alive_at
