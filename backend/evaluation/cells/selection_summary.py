"""What a set of cells is made of: composition, confusions, hits, confidence, quality, neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.data.labels import to_lineage
from backend.errors import InputError
from backend.evaluation.cells import most_confident_first
from backend.evaluation.cells.selection_counts import (
    beside_whole,
    composition_of,
    confusion_of,
    count_donors,
    count_roles,
    hits_of,
    quality_of,
)
from backend.evaluation.cells.selection_source import StoreSource
from backend.evaluation.views.failures import outcomes_of
from backend.evaluation.wording import plain, plural
from backend.store.per_cell import probabilities

if TYPE_CHECKING:
    from backend.evaluation.cells import CellColumns, MapCells
    from backend.evaluation.cells.selection_source import Source
    from backend.store.cache import Store
    from backend.types import Scope

__all__ = [
    "Neighbourhood",
    "SelectionSummary",
    "probability_vector",
    "selected_rows",
    "summarise_selection",
]

_ROW_COLUMNS: Final = (
    "cell_id",
    "label",
    "predicted",
    "confidence",
    "outcome",
    "donor",
    "timepoint",
    "study",
    "sample",
    "day",
    "label_source",
    "genotype",
    "n_counts",
    "n_genes",
    "umap_x",
    "umap_y",
    "fold",
    "configuration",
    "cell_index",
    "run_id",
)


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """On whose side the neighbours of the selected cells are.

    Parameters
    ----------
    k
        Neighbours of each cell.
    sentences
        What they say, as Markdown.
    pairs
        `label`, `predicted`, `n_cells`, `label_share` and `predicted_share` (mean share of the
        labelled neighbours), `n_prediction_leads`, `n_label_leads`; wrong cells only, commonest
        first.
    """

    k: int
    sentences: tuple[str, ...]
    pairs: pd.DataFrame


@dataclass(frozen=True, eq=False)
class SelectionSummary:
    """What some cells of a scope have in common; every table with its n.

    Parameters
    ----------
    composition
        `role`, `value`, `n_cells`, `n_donors`, `share` (of the selection), `share_of_all` (of the
        cells of the scope).
    confusion
        `label`, `predicted`, `n_cells`, `n_donors`, `share`, `kind`, `confidence` (median) of one
        model.
    hits
        One row a model: `configuration`, `display_name`, `n_cells` (labelled and predicted),
        `n_right`, `hit_rate`, `n_donors`, `confidence`, `confidence_right`, `confidence_wrong`
        (medians), `status_text`.
    quality
        `measure`, `cells` ("selected" or "all in scope"), `n_cells`, `low` (lower quartile),
        `median`, `high` (upper quartile).
    neighbourhood
        None when the dataset's bundle has no neighbours.
    """

    n_cells: int
    n_donors: int
    configuration: str
    display_name: str
    sentences: tuple[str, ...]
    composition: pd.DataFrame
    confusion: pd.DataFrame
    hits: pd.DataFrame
    quality: pd.DataFrame
    neighbourhood: Neighbourhood | None


def _rows_of(cells: np.ndarray, n_cells: int) -> np.ndarray:
    """Return the cells, each once and in order.

    Raises
    ------
    InputError
        If the dataset has no such cell.
    """
    rows = np.asarray(cells, dtype=np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= n_cells):
        msg = f"The dataset has {n_cells:,} cells; cell {rows.max():,} is not one of them."
        raise InputError(msg, "Select the cells again.")
    is_chosen = np.zeros(n_cells, dtype=bool)
    is_chosen[rows] = True
    return np.flatnonzero(is_chosen)


def summarise_selection(
    store: Store,
    scope: Scope,
    cells: np.ndarray,
    configuration: str,
    *,
    source: Source | None = None,
) -> SelectionSummary:
    """Return what some cells have in common.

    Parameters
    ----------
    cells
        Values of `cell_index`; at least one.
    configuration
        The model whose confusions and neighbours are told.
    source
        Gives the columns of all cells; they are read from the store when it is left out.

    Raises
    ------
    InputError
        If there are no cells, or if dataset or model are gone.
    """
    if not len(cells):
        msg = "No cell is selected."
        raise InputError(msg, "Select cells first.")
    source = source or StoreSource(store)
    columns = source.columns(scope)
    rows = _rows_of(cells, len(columns))
    mapped = source.cells(scope, configuration)
    whole = source.whole(scope)
    composition = composition_of(count_roles(columns, scope.label_level, rows), whole.roles)
    confusion = confusion_of(columns, mapped, rows)
    n_donors = count_donors(columns, rows)
    return SelectionSummary(
        n_cells=len(rows),
        n_donors=n_donors,
        configuration=configuration,
        display_name=mapped.display_name,
        sentences=_sentences(len(rows), n_donors, composition, confusion, mapped.display_name),
        composition=composition,
        confusion=confusion,
        hits=_hits(source, scope, columns, rows),
        quality=beside_whole(quality_of(columns, "selected", rows), whole.quality),
        neighbourhood=_neighbourhood(source, scope, columns, mapped, rows),
    )


def _hits(source: Source, scope: Scope, columns: CellColumns, rows: np.ndarray) -> pd.DataFrame:
    """Return the hit rate of every configuration of the scope, by name."""
    shown = source.shown(scope)
    counts = [
        hits_of(source.hits(scope, series_id, len(columns)), columns, rows)
        for series_id in shown["series_id"]
    ]
    kept = shown[["configuration", "display_name", "status_text"]]
    return kept.join(pd.DataFrame(counts, index=shown.index))


def _sentences(
    n_cells: int, n_donors: int, composition: pd.DataFrame, confusion: pd.DataFrame, name: str
) -> tuple[str, ...]:
    """Say in Markdown what the cells are and how often the model is right on them."""
    n_times = int((composition["role"] == "timepoint").sum())
    text = f"**{plural(n_cells, 'cell')}** of {plural(n_donors, 'donor')}"
    text += f" at {plural(n_times, 'timepoint')}." if n_times else "."
    sentences = [text]
    largest = composition[composition["role"] == "donor"].head(1)
    if n_donors > 1 and len(largest) and largest["share"].iloc[0] >= 0.5:
        sentences.append(
            f"{largest['share'].iloc[0]:.0%} of them are of one donor, "
            f"{plain(largest['value'].iloc[0])}."
        )
    n_scored = int(confusion["n_cells"].sum())
    if not n_scored:
        return (*sentences, f"None has both a label and a prediction of **{plain(name)}**.")
    n_right = int(confusion["n_cells"][confusion["label"] == confusion["predicted"]].sum())
    told = f"**{plain(name)}** is right on {n_right:,} of {n_scored:,} labelled ones"
    if n_right == n_scored:
        told = f"**{plain(name)}** is right on all {n_scored:,} labelled ones"
    elif n_right == 0:
        told = f"**{plain(name)}** is wrong on all {n_scored:,} labelled ones"
    else:
        told += f" ({n_right / n_scored:.0%})"
    if n_scored < n_cells:
        told += f"; {n_cells - n_scored:,} have no label or no prediction"
    return (*sentences, told + ".")


def _neighbourhood(
    source: Source, scope: Scope, columns: CellColumns, mapped: MapCells, cells: np.ndarray
) -> Neighbourhood | None:
    counted = source.sides(scope, mapped.configuration)
    if counted is None:
        return None
    k, every = counted
    sides = every.of(cells)
    own, called = columns.roles[scope.label_level], mapped.roles["predicted"]
    labels, predicted = own.codes[cells].astype(np.int32), called.codes[cells]
    # The same code for the same word.
    place = {name: code for code, name in enumerate(own.names)}
    same = np.array([*(place.get(name, -2) for name in called.names), -1])[predicted]
    label_share, predicted_share = sides.label, sides.predicted
    is_known = ~np.isnan(label_share) & ~np.isnan(predicted_share)
    is_wrong, is_right = is_known & (labels != same), is_known & (labels == same)
    prediction_leads, label_leads = predicted_share > label_share, label_share > predicted_share
    sentences = []
    if is_right.any():
        sentences.append(
            f"Of the {k} nearest neighbours of the {int(is_right.sum()):,} cells that are called "
            f"rightly, {label_share[is_right].mean():.0%} carry their label, on average."
        )
    if is_wrong.any():
        n_wrong = int(is_wrong.sum())
        n_doubted = int((prediction_leads & is_wrong).sum())
        of_those = "Of those" if sentences else f"Of the {k} nearest neighbours"
        n_kept = int((label_leads & is_wrong).sum())
        sentences.append(
            f"{of_those} of the {n_wrong:,} cells that are called wrongly, "
            f"{label_share[is_wrong].mean():.0%} carry the label and "
            f"{predicted_share[is_wrong].mean():.0%} the prediction. For {n_kept:,} of these cells "
            f"({n_kept / n_wrong:.0%}) more neighbours carry the label: the model's mistake. For "
            f"{n_doubted:,} ({n_doubted / n_wrong:.0%}) more carry the prediction: look at the label."
        )
    if not sentences:
        sentences.append("No selected cell has a label, a prediction and labelled neighbours.")
    rows = pd.DataFrame(
        {
            "label": labels[is_wrong],
            "predicted": predicted[is_wrong],
            "label_share": label_share[is_wrong],
            "predicted_share": predicted_share[is_wrong],
            "prediction_leads": prediction_leads[is_wrong],
            "label_leads": label_leads[is_wrong],
        }
    )
    grouped = rows.groupby(["label", "predicted"])
    pairs = pd.DataFrame(
        {
            "n_cells": grouped.size(),
            "label_share": grouped["label_share"].mean(),
            "predicted_share": grouped["predicted_share"].mean(),
            "n_label_leads": grouped["label_leads"].sum(),
            "n_prediction_leads": grouped["prediction_leads"].sum(),
        }
    ).reset_index()
    for column, role in (("label", own), ("predicted", called)):
        pairs[column] = pd.Series([role.names[code] for code in pairs[column]], dtype=object)
    pairs = pairs.sort_values("n_cells", ascending=False, kind="stable", ignore_index=True)
    return Neighbourhood(k=k, sentences=tuple(sentences), pairs=pairs)


def selected_rows(
    store: Store,
    scope: Scope,
    cells: np.ndarray,
    configuration: str,
    *,
    limit: int | None = None,
    source: Source | None = None,
) -> pd.DataFrame:
    """Return selected cells with all that is known of them, wrong and confident ones first.

    Parameters
    ----------
    limit
        At most so many rows; all by default.
    source
        As in `summarise_selection`.

    Returns
    -------
    `cell_id`, `label`, `predicted`, `confidence`, `outcome`, `donor`, `timepoint`, `study`,
    `sample`, `day`, `label_source`, `genotype`, `n_counts`, `n_genes`, `umap_x`, `umap_y`, `fold`,
    `configuration`, `cell_index`, `run_id`.
    """
    mapped = (source or StoreSource(store)).cells(scope, configuration)
    chosen = _rows_of(cells, len(mapped))
    if limit is not None:
        chosen = most_confident_first(mapped, chosen, limit)
    rows = store.query(
        "selection_rows",
        owner=scope.owner,
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_id=mapped.series_id,
        # No cell and no filter look the same to the store.
        cell_indices=chosen if len(chosen) else [-1],
    )
    rows["outcome"] = outcomes_of(rows, mapped.threshold).astype(str)
    rows["configuration"] = configuration
    return rows[list(_ROW_COLUMNS)]


def probability_vector(store: Store, scope: Scope, cell_id: str, run_id: str) -> pd.DataFrame:
    """Return the probability of every class for one cell, from the bundle of the run that tested it.

    At lineage level the probabilities of a model of fine labels are summed by lineage, as its
    predictions are.

    Returns
    -------
    `cell_type`, `probability`; most probable first.

    Raises
    ------
    StoreError
        If the run is gone.
    InputError
        If the run did not predict this cell.
    """
    found = probabilities(store, run_id, [cell_id], owner=scope.owner).iloc[0]
    if found.isna().any():
        msg = f'The run {run_id} did not predict the cell "{cell_id[:60]}".'
        raise InputError(msg, "Choose one of the selected cells.")
    names = [to_lineage(name) if scope.label_level == "lineage" else name for name in found.index]
    summed = found.groupby(pd.Index(names), sort=False).sum()
    table = summed.rename("probability").rename_axis("cell_type").reset_index()
    return table.sort_values("probability", ascending=False, kind="stable", ignore_index=True)
