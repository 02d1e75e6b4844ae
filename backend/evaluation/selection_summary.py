"""What a set of cells is made of: composition, confusions, hits, confidence, quality, neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.data.labels import to_lineage
from backend.errors import InputError
from backend.evaluation.error_kinds import error_kind
from backend.evaluation.neighbours import sides_of
from backend.evaluation.text import plain
from backend.evaluation.views.failures import outcomes_of, threshold_of
from backend.evaluation.views.series import all_shown_series, shown_series
from backend.evaluation.wording import plural
from backend.store.cache import probabilities
from backend.store.neighbours import neighbours_of

if TYPE_CHECKING:
    from backend.store.cache import Store
    from backend.types import Scope

__all__ = [
    "Neighbourhood",
    "SelectionSummary",
    "probability_vector",
    "selected_rows",
    "summarise_selection",
]

ROLES: Final = ("label", "timepoint", "donor", "genotype", "label_source")
"""What `composition` counts cells by."""

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
_MEASURES: Final = {"n_counts": "Counts a cell", "n_genes": "Genes a cell"}


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


def _mask(store: Store, scope: Scope, cells: np.ndarray) -> str:
    """Return a 0 or 1 for every cell of the dataset, as the queries take them.

    Raises
    ------
    InputError
        If the dataset is not there, or has no such cell.
    """
    datasets = store.query("datasets", owner=scope.owner)
    sizes = datasets.loc[datasets["dataset_id"] == scope.dataset_id, "n_cells"]
    if sizes.empty:
        msg = f"The dataset {scope.dataset_id} is not here any more."
        raise InputError(msg, "Choose another dataset.")
    n_cells = int(sizes.iloc[0])
    rows = np.asarray(cells, dtype=np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= n_cells):
        msg = f"The dataset has {n_cells:,} cells; cell {rows.max():,} is not one of them."
        raise InputError(msg, "Select the cells again.")
    mask = np.full(n_cells, ord("0"), dtype=np.uint8)
    mask[rows] = ord("1")
    return mask.tobytes().decode("ascii")


def summarise_selection(
    store: Store, scope: Scope, cells: np.ndarray, configuration: str
) -> SelectionSummary:
    """Return what some cells have in common.

    Parameters
    ----------
    cells
        Values of `cell_index`; at least one.
    configuration
        The model whose confusions and neighbours are told.

    Raises
    ------
    InputError
        If there are no cells, or if dataset or model are gone.
    """
    if not len(cells):
        msg = "No cell is selected."
        raise InputError(msg, "Select cells first.")
    mask = _mask(store, scope, cells)
    row = shown_series(store, scope, configuration)
    about: dict[str, Any] = {"owner": scope.owner, "dataset_id": scope.dataset_id}
    level = about | {"label_level": scope.label_level}
    whole: dict[str, Any] = {"timepoints": list(scope.timepoints) or None, "truth": scope.truth}
    series_id = str(row["series_id"])
    quality = store.query("selection_quality", cells=mask, **about)
    composition = _composition(
        store.query("selection_composition", cells=mask, **level),
        store.query("selection_composition", **level, **whole),
    )
    confusion = store.query("selection_confusion", series_id=series_id, cells=mask, **level)
    total = confusion["n_cells"].sum()
    confusion["share"] = confusion["n_cells"] / total if total else np.nan
    confusion["kind"] = [
        error_kind(label, predicted)
        for label, predicted in zip(confusion["label"], confusion["predicted"], strict=True)
    ]
    hits = _hits(store, scope, mask)
    name = str(row["display_name"])
    n_cells, n_donors = int(quality["n_cells"].iloc[0]), int(quality["n_donors"].iloc[0])
    return SelectionSummary(
        n_cells=n_cells,
        n_donors=n_donors,
        configuration=configuration,
        display_name=name,
        sentences=_sentences(n_cells, n_donors, composition, confusion, name),
        composition=composition,
        confusion=confusion,
        hits=hits,
        quality=_quality(quality, store.query("selection_quality", **about, **whole)),
        neighbourhood=_neighbourhood(store, scope, series_id, np.asarray(cells)),
    )


def _composition(inside: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Join the counts of the selection and of the scope; a missing value is "not known"."""
    for table in (inside, whole):
        table["value"] = table["value"].fillna("not known")
        totals = table.groupby("role")["n_cells"].transform("sum")
        table["share"] = table["n_cells"] / totals
    around = whole.set_index(["role", "value"])["share"]
    keys = pd.MultiIndex.from_frame(inside[["role", "value"]])
    return inside.assign(share_of_all=around.reindex(keys).to_numpy())


def _hits(store: Store, scope: Scope, mask: str) -> pd.DataFrame:
    """Return the hit rate of every configuration of the scope, by name."""
    shown = all_shown_series(store, scope)
    counts = store.query(
        "selection_hits",
        owner=scope.owner,
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_ids=shown["series_id"].tolist(),
        cells=mask,
    ).set_index("series_id")
    kept = ["configuration", "display_name", "series_id", "status_text"]
    table = shown[kept].join(counts, on="series_id")
    numbers = ["n_cells", "n_right", "n_donors"]
    table[numbers] = table[numbers].fillna(0).astype(int)
    table["hit_rate"] = np.where(
        table["n_cells"] > 0, table["n_right"] / table["n_cells"].clip(lower=1), np.nan
    )
    return table.drop(columns="series_id")


def _quality(inside: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for measure, title in _MEASURES.items():
        for words, table in (("selected", inside), ("all in scope", whole)):
            for n, quartiles in zip(table["n_cells"], table[measure], strict=True):
                low, median, high = (float(value) for value in quartiles)
                rows.append((title, words, int(n), low, median, high))
    return pd.DataFrame(rows, columns=["measure", "cells", "n_cells", "low", "median", "high"])


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
    store: Store, scope: Scope, series_id: str, cells: np.ndarray
) -> Neighbourhood | None:
    neighbours = neighbours_of(store, scope.dataset_id, owner=scope.owner)
    if neighbours is None:
        return None
    types = store.query(
        "selection_types",
        owner=scope.owner,
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_id=series_id,
    )
    codes, names = pd.factorize(pd.concat([types["label"], types["predicted"]]))
    labels, predicted = np.split(codes + 1, 2)  # 0: none
    sides = sides_of(neighbours, labels, predicted, cells)
    is_known = ~np.isnan(sides.label) & ~np.isnan(sides.predicted)
    is_wrong = is_known & (labels[cells] != predicted[cells])
    is_right = is_known & (labels[cells] == predicted[cells])
    k = neighbours.shape[1]
    sentences = []
    if is_right.any():
        sentences.append(
            f"Of the {k} nearest neighbours of the {int(is_right.sum()):,} cells that are called "
            f"rightly, {sides.label[is_right].mean():.0%} carry their label, on average."
        )
    if is_wrong.any():
        n_wrong = int(is_wrong.sum())
        n_doubted = int((sides.prediction_leads & is_wrong).sum())
        of_those = "Of those" if sentences else f"Of the {k} nearest neighbours"
        n_kept = int((sides.label_leads & is_wrong).sum())
        sentences.append(
            f"{of_those} of the {n_wrong:,} cells that are called wrongly, "
            f"{sides.label[is_wrong].mean():.0%} carry the label and "
            f"{sides.predicted[is_wrong].mean():.0%} the prediction. For {n_kept:,} of these cells "
            f"({n_kept / n_wrong:.0%}) more neighbours carry the label: the model's mistake. For "
            f"{n_doubted:,} ({n_doubted / n_wrong:.0%}) more carry the prediction: look at the label."
        )
    if not sentences:
        sentences.append("No selected cell has a label, a prediction and labelled neighbours.")
    rows = pd.DataFrame(
        {
            "label": labels[cells],
            "predicted": predicted[cells],
            "label_share": sides.label,
            "predicted_share": sides.predicted,
            "prediction_leads": sides.prediction_leads,
            "label_leads": sides.label_leads,
        }
    )[is_wrong]
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
    for column in ("label", "predicted"):
        pairs[column] = names.to_numpy(dtype=object)[pairs[column].to_numpy(dtype=int) - 1]
    pairs = pairs.sort_values("n_cells", ascending=False, kind="stable", ignore_index=True)
    return Neighbourhood(k=k, sentences=tuple(sentences), pairs=pairs)


def selected_rows(
    store: Store,
    scope: Scope,
    cells: np.ndarray,
    configuration: str,
    *,
    limit: int | None = None,
) -> pd.DataFrame:
    """Return selected cells with all that is known of them, wrong and confident ones first.

    Parameters
    ----------
    limit
        At most so many rows; all by default.

    Returns
    -------
    `cell_id`, `label`, `predicted`, `confidence`, `outcome`, `donor`, `timepoint`, `study`,
    `sample`, `day`, `label_source`, `genotype`, `n_counts`, `n_genes`, `umap_x`, `umap_y`, `fold`,
    `configuration`, `cell_index`, `run_id`.
    """
    series_id = str(shown_series(store, scope, configuration)["series_id"])
    rows = store.query(
        "selection_rows",
        owner=scope.owner,
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_id=series_id,
        cells=_mask(store, scope, cells),
        limit=limit,
    )
    rows["outcome"] = outcomes_of(rows, threshold_of(store, scope, series_id)).astype(str)
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
