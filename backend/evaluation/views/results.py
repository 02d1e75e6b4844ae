"""What each page question returns: frozen, picklable, every number with its n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from backend.evaluation.description import Description, Kind
    from backend.evaluation.panel import Panel

__all__ = [
    "CellTypeScores",
    "DonorScores",
    "ModelDifferences",
    "OptimismScores",
    "Overview",
    "Provenance",
    "TimepointScores",
]


@dataclass(frozen=True, eq=False)
class Provenance:
    """Where the numbers come from, in words.

    `kind` says whether data are real, simulated or somebody's upload. `inits` maps a configuration to what its model started from. `label_sources` ends with the
    `cautions`, which go beside every score; `caption` goes under every interval.
    """

    dataset_id: str
    dataset: str
    simulated: bool
    kind: str
    source: str
    citation: str
    label_level: str
    label_sources: str
    inits: dict[str, str]
    protocol: str
    budget: str
    folds: str
    truth: str
    n_cells: int
    n_donors: int
    created_at: str
    cautions: tuple[str, ...]
    caption: str


@dataclass(frozen=True, eq=False)
class TimepointScores:
    """A metric by timepoint: a comparison on one panel, or each timepoint described by itself.

    Parameters
    ----------
    kind
        "comparison", or "description" where no type can be compared.
    descriptions
        Timepoint to what it is scored over; empty for a comparison.
    scores
        `configuration`, `display_name`, `timepoint`, `metric` (its key), `value`, `low`, `high`,
        `interval`, `reason` (why there is no interval or score), `n_cells`, `n_donors`, `n_types_scored`,
        `n_types`, `n_seeds`, `label_source`, `status_text`, `convergence` (how a network's training
        ended, empty for a baseline).
    donors
        `configuration`, `display_name`, `timepoint`, `donor`, `seed`, `metric`, `value` (over the
        panel types that the donor has, or its own description), `n_cells`, `n_types`.
    differences
        `configuration`, `display_name`, `timepoint`, `reference`, `metric`, `difference`, `low`,
        `high`, `interval`, `reason`, `n_donors`: each later timepoint against the first one with a score.
    missing
        Timepoints without cells; drawn as "no data", never filled.
    """

    scores: pd.DataFrame
    donors: pd.DataFrame
    differences: pd.DataFrame
    panel: Panel
    kind: Kind
    descriptions: dict[str, Description]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    cautions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ModelDifferences:
    """Each configuration against one named reference, paired by donor, per timepoint.

    `differences` has `configuration`, `display_name`, `reference`, `timepoint`, `metric`,
    `difference`, `low`, `high`, `interval`, `reason`, `n_donors`.
    """

    reference: str
    differences: pd.DataFrame
    panel: Panel


@dataclass(frozen=True, eq=False)
class Overview:
    """The first page: sentences, scores by timepoint, what collapses and what is not labelled.

    `kind` and `descriptions` as in `TimepointScores`.

    `collapsed` has `configuration`, `display_name`, `timepoint`, `cell_type`, `kind` ("never
    predicted", "F1 0" or "F1 below 0.2"), `f1`, `n_cells`, `n_donors`, `is_small`.
    """

    sentences: tuple[str, ...]
    scores: pd.DataFrame
    collapsed: pd.DataFrame
    missing: tuple[str, ...]
    not_labelled: tuple[str, ...]
    panel: Panel
    kind: Kind
    descriptions: dict[str, Description]
    notes: tuple[str, ...]
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class CellTypeScores:
    """F1 of every type by model or by timepoint, hardest types first.

    Parameters
    ----------
    scores
        `cell_type`, `column` (display name or timepoint), `configuration`, `f1`, `precision`,
        `recall`, `low`, `high`, `interval`, `reason`, `n_cells`, `n_donors`, `top_donor_share`,
        `is_small`, `n_predicted_absent`.
    kind
        "description" where the scope allows no comparison.
    n_donors
        Donors with a labelled cell in the scope.
    never_predicted, zero_f1
        `cell_type`, `column`, `configuration`, `n_cells`, `n_donors`: types with labels that are
        never predicted, and types that are predicted but never rightly.
    """

    scores: pd.DataFrame
    kind: Kind
    n_donors: int
    never_predicted: pd.DataFrame
    zero_f1: pd.DataFrame
    status: dict[str, str]
    cautions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DonorScores:
    """One configuration, donor by donor.

    Parameters
    ----------
    scores
        `donor`, `timepoint`, `cell_type`, `f1`, `n_cells`, `is_small`.
    totals
        `donor`, `timepoint`, `metric`, `value` (over the panel types that the donor has, or over its
        own types with enough cells where `kind` is "description"), `n_types`, `n_cells`.
    composition
        `donor`, `timepoint`, `cell_type`, `labelled_share`, `predicted_share`, `difference`,
        `n_cells`: shares of the donor's labelled cells.
    """

    configuration: str
    display_name: str
    status_text: str
    scores: pd.DataFrame
    totals: pd.DataFrame
    composition: pd.DataFrame
    panel: Panel
    kind: Kind
    cautions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class OptimismScores:
    """What a random split flatters: the same cells, types, models and training sizes.

    Parameters
    ----------
    gaps
        `configuration`, `display_name`, `metric`, `random`, `donor`, `gap` (random - donor), `low`,
        `high`, `interval`, `reason`, `n_train_random`, `n_train_donor` (mean a fold), `n_donors`,
        `n_cells`, `n_seeds`, and the score under each other protocol (`study`), NaN where that was
        not run.
    by_type
        F1 of each type: `configuration`, `display_name`, `cell_type`, `random`, `donor`, `gap`, `low`, `high`,
        `interval`, `reason`, `n_cells`, `n_donors`.
    others
        The gap of each other protocol to the one that it is compared with, by its key, as `gaps`:
        `study` with the columns `donor`, `study`, `gap` (donor - study) and so on. A protocol whose
        gap is not measurable is left out, which `notes` says.
    """

    gaps: pd.DataFrame
    by_type: pd.DataFrame
    others: dict[str, pd.DataFrame]
    sentences: tuple[str, ...]
    panel: Panel
    notes: tuple[str, ...]
    cautions: tuple[str, ...]
