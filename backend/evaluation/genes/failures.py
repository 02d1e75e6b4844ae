"""Genes of the failures of a series: what there is to ask, and the answer in words and rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.evaluation.genes.contrast import contrast_of
from backend.evaluation.genes.separate import MIN_CELLS, MIN_DONORS, separate
from backend.evaluation.wording import plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backend.data.expression import Expression
    from backend.evaluation.cells.columns import CellColumns
    from backend.evaluation.cells.map_cells import MapCells
    from backend.evaluation.genes.contrast import Against
    from backend.evaluation.genes.separate import Separation

__all__ = ["FDR", "GenesOfFailures", "failed_pairs", "genes_of_failures", "markers"]

FDR: Final = 0.05
_DEPTH_RATIO: Final = 1.25
"""Ratio of median counts from which depth is named as an explanation."""
_NAMED: Final = 5


@dataclass(frozen=True, eq=False)
class GenesOfFailures:
    """What separates the failures of one label and one call.

    sentences : what was compared, what was found, what it may mean
    table : `Separation.table` with `marks`, what lineage a gene is known to mark, or ""
    n_failures, n_others : cells
    """

    label: str
    predicted: str
    against: Against
    sentences: tuple[str, ...]
    table: pd.DataFrame
    n_failures: int
    n_others: int
    n_donors: int
    is_paired: bool
    is_depth_adjusted: bool
    depth: tuple[float, float]


@cache
def markers() -> Mapping[str, str]:
    """Return gene → the cells that it is known to mark."""
    rows = pd.read_csv(Path(__file__).with_name("markers.csv"))
    return dict(zip(rows["gene"], rows["marks"], strict=True))


def failed_pairs(
    cells: MapCells, in_scope: np.ndarray, chosen: np.ndarray | None = None
) -> pd.DataFrame:
    """Return the pairs of label and wrong call, those whose donors can be compared first.

    Parameters
    ----------
    in_scope, chosen
        (n_cells,) bool: cells that count, and, where failures come from some only, these.

    Returns
    -------
    `label`, `predicted`, `n_cells`, `n_donors`, `n_paired`: donors with enough failures and enough
    rightly called cells of the label, and of what they can be set against: `n_right`, cells
    of the label that are rightly called, and `n_true`, cells of the predicted type.
    """
    label, predicted, donor = (cells.roles[key] for key in ("label", "predicted", "donor"))
    is_failed = (
        chosen & in_scope & cells.is_wrong if chosen is not None else in_scope & cells.is_wrong
    )
    rows = pd.DataFrame(
        {
            "label": label.codes[is_failed],
            "predicted": predicted.codes[is_failed],
            "donor": donor.codes[is_failed],
        }
    )
    grouped = rows.groupby(["label", "predicted"])["donor"].agg(["size", "nunique"]).reset_index()
    grouped.columns = pd.Index(["label", "predicted", "n_cells", "n_donors"])
    is_right = in_scope & (label.codes >= 0) & (label.codes == predicted.coded_as(label.names))
    n_right = np.bincount(label.codes[is_right], minlength=len(label.names))
    of_donor = pd.DataFrame({"label": label.codes[is_right], "donor": donor.codes[is_right]})
    right = of_donor.groupby(["label", "donor"]).size()
    failed = rows.groupby(["label", "predicted", "donor"]).size()
    enough = failed[failed >= MIN_CELLS].reset_index()
    is_paired = pd.MultiIndex.from_frame(enough[["label", "donor"]]).isin(
        right.index[right >= MIN_CELLS]
    )
    n_paired = enough[is_paired].groupby(["label", "predicted"]).size()
    n_labelled = np.bincount(label.codes[in_scope & (label.codes >= 0)], minlength=len(label.names))
    n_true = dict(zip(label.names, n_labelled, strict=True))
    names = [predicted.names[code] for code in grouped["predicted"]]
    pairs = pd.MultiIndex.from_frame(grouped[["label", "predicted"]])
    named = grouped.assign(
        n_paired=n_paired.reindex(pairs, fill_value=0).to_numpy(dtype=np.int64),
        n_right=n_right[grouped["label"].to_numpy(dtype=np.int64)],
        n_true=[int(n_true.get(name, 0)) for name in names],
        label=[label.names[code] for code in grouped["label"]],
        predicted=names,
    )
    return (
        named.assign(is_comparable=named["n_paired"] >= MIN_DONORS)
        .sort_values(
            ["is_comparable", "n_cells", "label", "predicted"],
            ascending=[False, False, True, True],
            ignore_index=True,
        )
        .drop(columns="is_comparable")
    )


def genes_of_failures(
    cells: MapCells,
    columns: CellColumns,
    in_scope: np.ndarray,
    expression: Expression,
    *,
    label: str,
    predicted: str,
    against: Against = "label",
    chosen: np.ndarray | None = None,
    adjust_for_depth: bool = False,
) -> GenesOfFailures:
    """Return the genes that separate the failures of one label and one call.

    Parameters
    ----------
    cells, columns
        Of one series, and of its dataset.
    in_scope, chosen
        (n_cells,) bool; see `contrast_of`.
    against, adjust_for_depth
        See `contrast_of` and `separate`.

    Raises
    ------
    InputError
        If one of the two sides has no cell.
    """
    contrast = contrast_of(
        cells, in_scope, label=label, predicted=predicted, against=against, chosen=chosen
    )
    found = separate(
        expression,
        contrast,
        cells.roles["donor"].codes,
        columns.n_counts,
        adjust_for_depth=adjust_for_depth,
    )
    known = markers()
    table = found.table.assign(marks=[known.get(gene, "") for gene in found.table["gene"]])
    return GenesOfFailures(
        label=label,
        predicted=predicted,
        against=against,
        sentences=(f"{contrast.sentence}.", *_sentences(found)),
        table=table,
        n_failures=int(contrast.is_failure.sum()),
        n_others=int(contrast.is_reference.sum()),
        n_donors=found.n_donors,
        is_paired=found.is_paired,
        is_depth_adjusted=found.is_depth_adjusted,
        depth=found.depth,
    )


def _sentences(found: Separation) -> list[str]:
    """Say what was found over how many donors, and what depth may explain."""
    tested = f"{len(found.table):,} genes tested"
    if not found.is_paired:
        first = ", ".join(found.table["gene"].head(_NAMED))
        said = [*found.notes, f"First by p-value: {first} ({tested})."]
    else:
        significant = found.table[found.table["q_value"] < FDR]
        named = ", ".join(significant["gene"].head(_NAMED))
        more = " and others" if len(significant) > _NAMED else ""
        said = [
            f"{plural(len(significant), 'gene')} of {tested} separate them at a false discovery "
            f"rate of {FDR:.0%}: {named}{more}."
            if len(significant)
            else f"No gene separates them at a false discovery rate of {FDR:.0%} ({tested}).",
            f"Replicates are the {found.n_donors} donors with {MIN_CELLS} cells or more on both sides.",
            *found.notes,
        ]
    failures, others = found.depth
    ratio = max(failures, others) / max(1.0, min(failures, others))
    if ratio >= _DEPTH_RATIO and not found.is_depth_adjusted:
        deeper = "more" if failures > others else "fewer"
        said.append(
            f"The failures have {deeper} counts ({failures:,.0f} against {others:,.0f} in the "
            "median cell), which may explain a part."
        )
    return said
