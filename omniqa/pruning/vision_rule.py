"""Which video tokens a method keeps, decided while the vision encoder runs. Free of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from omniqa.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VisionRule(ABC):
    """A choice of video tokens that looks at a window of grids at a time and at nothing else.

    Equal rules keep equal tokens: a rule is part of an encoded clip's identity, and of its key in the cache. So a
    subclass is a frozen dataclass of all that decides.

    Attributes:
        window: grids that are looked at together, counted from the video's first.
        references: for each grid of a window, the grid of that window whose token at the same place represents a
            dropped one; it does not come later. A grid that names itself keeps all. Needed with a block alone.
        block: the vision encoder's block before which the rule decides, 0 for the first. From there on only kept
            tokens are computed. None, or the encoder's depth: it decides on the embeddings that the encoder gives.
    """

    window: ClassVar[int]
    references: ClassVar[tuple[int, ...]]

    block: int | None = field(default=None, kw_only=True)

    @abstractmethod
    def counts(self, grids: int, tokens_per_grid: int) -> tuple[int, ...]:
        """How many tokens it keeps of each of a video's grids: (grids,), by arithmetic alone."""

    @abstractmethod
    def keep(self, grids: Tensor, represented: Tensor | None = None) -> Tensor:
        """Which tokens it keeps, as many of each grid as `counts` says.

        Args:
            grids: (grids, tokens_per_grid, d) of one window or several; the video's last may be shorter. Embeddings,
                or with a block the hidden states of each token's patches, one after the other.
            represented: (grids, tokens_per_grid) bool, tokens that are represented by an earlier grid's already; they
                are dropped first. None: none is.

        Returns:
            (grids, tokens_per_grid) bool.
        """

    def check_block(self, depth: int) -> None:
        """Make sure that a vision encoder of `depth` blocks has the rule's block.

        Raises:
            UsageError: it has fewer.
        """
        if self.block is not None and not 0 <= self.block <= depth:
            raise UsageError(
                f"vision_block={self.block} is not allowed: this model's vision encoder has {depth} blocks. Give 0 to "
                f"{depth}, or none."
            )

    @property
    def identity(self) -> str:
        """What tells it from every other rule, also from one of the same name in another file."""
        return f"{type(self).__module__} {self!r}"
