"""How sure an accuracy is, and whether two of them differ."""

from dataclasses import dataclass
from math import comb, sqrt

Z95 = 1.959963984540054  # of the normal distribution, 95 % lie within so many standard deviations


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval (low, high) of a share; (0, 1) where n is 0. It counts questions as independent."""
    if not n:
        return 0.0, 1.0
    share = correct / n
    spread = Z95 * sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    middle, scale = share + Z95**2 / (2 * n), 1 + Z95**2 / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


@dataclass(frozen=True)
class Paired:
    """Two methods on the same n questions.

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
