"""How sure an accuracy is, and whether two of them differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

Z95 = 1.959963984540054  # of the normal distribution, 95 % lie within so many standard deviations

_AT_ONCE = 250  # draws of all clips that are held at a time


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval (low, high) of a share; (0, 1) where n is 0. It counts questions as independent."""
    return _wilson(correct / n, n) if n else (0.0, 1.0)


def _wilson(share: float, n: float) -> tuple[float, float]:
    spread = Z95 * sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    middle, scale = share + Z95**2 / (2 * n), 1 + Z95**2 / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


@dataclass(frozen=True)
class Paired:
    """Two methods on the same n questions.

    Attributes:
        first_only, second_only: questions that only one of them has right.
    """

    n: int
    first_only: int
    second_only: int

    @property
    def difference(self) -> float:
        """The first's accuracy minus the second's."""
        return (self.first_only - self.second_only) / self.n if self.n else 0.0

    @property
    def exact_p(self) -> float:
        """McNemar's exact test, two-sided: how likely is so uneven a split of the questions that tell them apart."""
        m, ways, tail = self.first_only + self.second_only, 1, 0
        for k in range(min(self.first_only, self.second_only) + 1):
            tail += ways
            ways = ways * (m - k) // (k + 1)  # of choosing k + 1 of m
        return min(1.0, 2 * tail / 2**m)

    @property
    def mid_p(self) -> float:
        """The same as a mid-p value, which is less conservative: what is observed counts half."""
        m, k = self.first_only + self.second_only, min(self.first_only, self.second_only)
        observed = comb(m, k) / 2**m
        if self.first_only == self.second_only:
            return 1 - observed / 2 if m else 1.0
        return self.exact_p - observed


def clustered(counts: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """A 95 % interval (low, high) of a share whose questions come in clusters, such as those about one clip.

    Wilson's interval for as many independent questions as the clustered ones are worth: n over the design effect, which
    is the cluster-robust variance over that of independent questions. It is never narrower than Wilson's; one cluster
    alone is worth one question.

    Args:
        counts: of each cluster, the right answers and the questions.
    """
    counts = [(right, size) for right, size in counts if size]
    n, right = sum(size for _, size in counts), sum(right for right, _ in counts)
    if len(counts) < 2 or right in (0, n):  # without variance nothing tells how questions hang together
        worth = min(n, len(counts))
        return _wilson(right / n, worth) if n else (0.0, 1.0)
    share = right / n
    robust = len(counts) / (len(counts) - 1) * sum((got - size * share) ** 2 for got, size in counts) / n**2
    independent = share * (1 - share) / (n - 1)
    return _wilson(share, n / max(1.0, robust / independent))


@dataclass(frozen=True)
class Bootstrap:
    """What resampled clips say of the difference of two methods: its 95 % interval, and a two-sided p-value."""

    low: float
    high: float
    p: float


def paired_bootstrap(counts: Sequence[tuple[int, int]], draws: int = 10_000, seed: int = 0) -> Bootstrap | None:
    """Draw clips with replacement, and see how the difference of two methods' accuracies varies.

    Args:
        counts: of each clip, how many more questions the first method has right, and the questions.
        draws: how many times all clips are drawn.
        seed: makes the draws repeatable.

    Returns:
        The percentile interval, and twice the smaller tail beyond no difference; None with fewer than two clips.
    """
    import numpy as np

    if len(counts) < 2:
        return None
    more, sizes = np.array(counts, dtype=np.float64).T
    random, clips = np.random.default_rng(seed), len(counts)
    drawn = []
    for start in range(0, draws, _AT_ONCE):
        times = random.multinomial(clips, np.full(clips, 1 / clips), size=min(_AT_ONCE, draws - start))
        drawn.append((times @ more) / (times @ sizes))
    differences = np.concatenate(drawn)
    low, high = np.quantile(differences, (0.025, 0.975))
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return Bootstrap(float(low), float(high), min(1.0, 2 * (int(tail) + 1) / (draws + 1)))
