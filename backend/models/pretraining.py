"""What every objective of masked-expression pre-training keeps.

An objective hides part of a batch of cells and scores what the network makes of it. Each keeps to
its paper in the simplest form that a small model on some thousand cells can use;
`docs/pretraining.md` says what is left out. A model returns its own by `pretraining_objective()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from backend.errors import InputError

if TYPE_CHECKING:
    from backend.models.base import TokenBatch

__all__ = ["Objective", "choose"]


class Objective(nn.Module):
    """A network under its pre-training head, what is masked, and the loss.

    Attributes
    ----------
    text
        One sentence for `pretraining.json`.
    unused
        Patterns (`fnmatch`) of tensors that only pre-training needs.
    """

    text: ClassVar[str]
    unused: ClassVar[tuple[str, ...]]
    network: Any

    def __init__(self, model: Any, network: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.network = network

    def mask(self, cells: TokenBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the batch with a share hidden, and the hidden truth: what `forward` takes."""
        raise NotImplementedError

    def forward(self, **batch: Tensor) -> Tensor:
        """Return the mean loss over what was hidden."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors worth keeping, by the names of the model's own files."""
        return dict(self.network.state_dict())


def choose(is_eligible: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Draw each eligible place with probability `share`, and at least one of a batch.

    Raises
    ------
    InputError
        If no place is eligible.
    """
    draws = torch.rand(is_eligible.shape, generator=generator).masked_fill(~is_eligible, 2.0)
    chosen = draws < share
    if not chosen.any():
        if not is_eligible.any():
            msg = f"{len(is_eligible):,} cells of a batch have no gene to mask."
            raise InputError(msg, "Pre-train on cells with counts in known genes.")
        chosen = draws == draws.min()
    return chosen
