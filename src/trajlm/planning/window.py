"""What a planner's model sees of a growing sequence: which tokens, at which positions.

Legend: D slots of a transition, L tokens of the sequence so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Window:
    """`published`: the last `context` x D - 1 tokens, cut by whole transitions; positions start
    anew at each cut (the authors' crop, which leaves `context` - 1 whole transitions in sight
    while the next begins). `full_block`: everything, which must fit `block` tokens.
    """

    kind: Literal["published", "full_block"]
    slots: int
    context: int
    block: int

    def __post_init__(self) -> None:
        longest = (self.block + 1) // self.slots
        if self.context > longest:
            raise UsageError(
                f"context: {self.context} transitions; the model's block holds {longest}"
            )
        if self.kind == "published" and self.context < 2:
            raise UsageError("context: a published window needs 2 transitions or more")

    @property
    def past(self) -> int:
        """Whole transitions before the current one that a plan starts from, at most."""
        return self.context - 1

    def first(self, length: int) -> int:
        """The first transition in sight of a sequence of `length` tokens."""
        if self.kind == "full_block":
            return 0
        over = length - (self.context * self.slots - 1)
        return max(0, -(-over // self.slots))

    def check(self, *, horizon: int) -> None:
        """Raise `UsageError` where past and plan do not fit the block."""
        longest = (self.block + 1) // self.slots - self.past
        if self.kind == "full_block" and horizon > longest:
            raise UsageError(
                f"horizon: {self.past} past transitions and a plan of {horizon} do not fit the model's "
                f"block of {(self.block + 1) // self.slots}; the largest horizon is {longest}, or "
                "take --policy.window published"
            )
