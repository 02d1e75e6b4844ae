"""What a checkpoint has seen of the cells that a run validates and tests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.errors import SplitError
from backend.models.catalogue import find_checkpoint
from backend.models.inhouse import is_inhouse, read_cells, read_pretraining
from backend.splits import TEST, VALID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from backend.models.inhouse import Pretraining
    from backend.splits import Split
    from backend.training.progress import Fold
    from backend.types import Series

__all__ = ["PUBLIC_NOTE", "Origin", "Overlap", "check_overlap", "find_overlap", "inhouse_note"]

PUBLIC_NOTE: Final = "public checkpoint: pre-training overlap cannot be excluded"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Validation and test cells of a fold that pre-training has seen, and their donors.

    Cells are counted by fingerprint: the same genes and counts, whatever the file and the cell
    id. Donors are named under the protocol `donor` only.
    """

    n_valid: int = 0
    n_test: int = 0
    donors: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.n_valid or self.n_test or self.donors)

    @property
    def text(self) -> str:
        """What was seen, as part of a sentence."""
        parts = [
            f"{n:,} {role} {'cell' if n == 1 else 'cells'}"
            for role, n in (("validation", self.n_valid), ("test", self.n_test))
            if n
        ]
        if self.donors:
            more = " …" if len(self.donors) > 5 else ""
            noun = "donor" if len(self.donors) == 1 else "donors"
            parts.append(f"the {noun} {', '.join(self.donors[:5])}{more}")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class Origin:
    """What every view of a series must say of the checkpoint that it starts from.

    badge : ends the name of the series; not empty where an overlap was allowed
    notes : sentences for the run of each fold
    """

    badge: str = ""
    notes: Mapping[Fold, tuple[str, ...]] = field(default_factory=dict)


def find_overlap(
    folder: Path, fingerprints: np.ndarray, donors: np.ndarray, split: Split, fold: Fold
) -> Overlap:
    """Compare the cells of an in-house checkpoint with those that a fold keeps apart.

    Parameters
    ----------
    folder
        Of the checkpoint.
    fingerprints, donors
        (n_cells,) of the cells of the split, in its order.
    """
    if fold == "final":
        return Overlap()
    # 0 is the fingerprint of a cell without counts: any two of them are "the same".
    is_seen = np.isin(fingerprints, read_cells(folder)) & (fingerprints != 0)
    is_valid, is_test = split.cells(fold, VALID), split.cells(fold, TEST)
    shared: set[str] = set()
    if split.protocol == "donor":
        held_out = set(donors[is_valid | is_test].astype(str))
        shared = held_out & set(read_pretraining(folder).donors)
    return Overlap(
        int((is_seen & is_valid).sum()), int((is_seen & is_test).sum()), tuple(sorted(shared))
    )


def check_overlap(
    adata: AnnData,
    rows: np.ndarray,
    split: Split,
    series: Series,
    folds: Sequence[Fold],
    *,
    is_allowed: bool,
) -> Origin:
    """Refuse folds whose validation or test cells a checkpoint has seen.

    Parameters
    ----------
    rows
        (n_cells,) row in `adata` of each cell of the split.
    is_allowed
        Say so on every view instead.

    Raises
    ------
    SplitError
        If there is an overlap that was not allowed.
    ModelUnavailable
        If there is no such checkpoint for a fold.
    """
    if series.checkpoint is None:
        return Origin()
    found: dict[Fold, Path] = {}
    for fold in folds:
        entry = find_checkpoint(
            series.model, series.checkpoint, split_sha256=split.sha256, fold=fold
        )
        found[fold] = Path(entry.folder)
    if not any(is_inhouse(folder) for folder in found.values()):
        return Origin(notes=dict.fromkeys(folds, (PUBLIC_NOTE,)))
    origins = {fold: read_pretraining(folder) for fold, folder in found.items()}
    if any(origin.fold is None for origin in origins.values()):
        # One checkpoint for all folds: the badge must not depend on which of them are asked for.
        found |= dict.fromkeys(range(split.folds), found[folds[0]])
    from backend.data.fingerprint import cell_fingerprints

    fingerprints = cell_fingerprints(adata)[rows]
    donors = adata.obs["donor"].astype(str).to_numpy()[rows]
    overlaps = {
        fold: find_overlap(folder, fingerprints, donors, split, fold)
        for fold, folder in found.items()
    }
    notes = {}
    for fold in folds:
        seen = f"pre-trained on {overlaps[fold].text} of fold {fold}"
        if overlaps[fold] and not is_allowed:
            msg = f'The checkpoint "{series.checkpoint}" was {seen}.'
            hint = (
                "Pre-train on the training cells of each fold (`python -m backend pretrain "
                f"--protocol {split.protocol} --fold all`), or accept it with --allow-overlap: "
                "every view then says so."
            )
            raise SplitError(msg, hint)
        own = inhouse_note(origins[fold], series.dataset_id)
        notes[fold] = (f"overlap: {seen}", own) if overlaps[fold] else (own,)
    return Origin(", overlap" if any(overlaps.values()) else "", notes)


def inhouse_note(origin: Pretraining, dataset_id: str) -> str:
    """Say which cells an in-house checkpoint has seen.

    Parameters
    ----------
    dataset_id
        Of the dataset that the run is on.
    """
    which = "this dataset" if origin.dataset_id == dataset_id else f'"{origin.dataset_name}"'
    if origin.simulated:
        which += " (simulated)"
    if origin.fold == "final":
        part = ", all cells of the split"
    elif origin.fold is not None:
        part = f", the training cells of fold {origin.fold}"
    else:
        part = ""
    chosen = f" with {origin.cells}" if origin.cells else ""
    return (
        f"in-house checkpoint: pre-trained on {origin.n_cells:,} cells of {which}{part}{chosen}; "
        "published weights not used"
    )
