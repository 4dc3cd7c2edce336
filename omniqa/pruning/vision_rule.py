"""Which video tokens a method keeps, decided while the vision encoder runs. Free of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VisionRule(ABC):
    """A choice of video tokens that looks at a window of grids at a time and at nothing else.

    Equal rules keep equal tokens: a rule is part of an encoded clip's identity, and of its key in the cache. So a
    subclass is a frozen dataclass of all that decides.

    Attributes:
        window: grids that are looked at together, counted from the video's first.
    """

    window: ClassVar[int]

    @abstractmethod
    def counts(self, grids: int, tokens_per_grid: int) -> tuple[int, ...]:
        """How many tokens it keeps of each of a video's grids: (grids,), by arithmetic alone."""

    @abstractmethod
    def keep(self, grids: Tensor) -> Tensor:
        """Which tokens it keeps.

        Args:
            grids: (grids, tokens_per_grid, d) embeddings of one window or several; the video's last may be shorter.

        Returns:
            (grids, tokens_per_grid) bool.
        """

    @property
    def identity(self) -> str:
        """What tells it from every other rule, also from one of the same name in another file."""
        return f"{type(self).__module__} {self!r}"
