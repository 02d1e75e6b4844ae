"""Confusions: what cells are mistaken for, and how bad that is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.data.labels import to_lineage
from backend.evaluation.f1 import SMALL_CELLS, SMALL_DONORS
from backend.evaluation.outcomes import CORRECT, KINDS, error_kind
from backend.evaluation.views.series import Reader, rows_of_series, series_of, shown_series
from backend.evaluation.views.source import load_labels
from backend.evaluation.wording import plain, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.types import Scope

__all__ = ["AGREEMENTS", "Confusions", "Disagreement", "confusions", "disagreement"]

AGREEMENTS: Final = (
    "both right",
    "only the first right",
    "only the second right",
    "both wrong, same type",
    "both wrong, other types",
)
"""How two models can stand to the label of a cell, in the order of charts."""

_NAMED: Final = 3
_NO_DONOR: Final = ""


@dataclass(frozen=True, eq=False)
class Confusions:
    """Labels against predictions of one series.

    Parameters
    ----------
    cells
        `label`, `predicted`, `n_cells`, `n_donors`, `row_share` (of the label's cells),
        `column_share` (of the cells predicted as it), `kind` (see `outcomes`), `is_small`.
        Pairs without a cell have no row.
    labels
        `cell_type`, `n_cells`, `n_donors`, `n_right`, `is_small` (fewer than 20 cells or 3 donors),
        `n_folds_able` of `n_folds` whose model can output the type, `note`; largest first.
    predictions
        `cell_type`, `n_cells`, `n_donors`, `is_absent` (no cell here is labelled so), `note`;
        largest first.
    kinds
        `kind`, `n_cells`, `n_donors`, `share` of the scored cells, `share_of_wrong`; every kind
        that can occur, also at 0.
    """

    configuration: str
    display_name: str
    series_id: str
    seed: int
    n_seeds: int
    status_text: str
    cells: pd.DataFrame
    labels: pd.DataFrame
    predictions: pd.DataFrame
    kinds: pd.DataFrame
    n_cells: int
    n_donors: int
    sentences: tuple[str, ...]
    cautions: tuple[str, ...]

    @property
    def n_wrong(self) -> int:
        """Cells whose prediction differs from their label."""
        return self.n_cells - int(self.labels["n_right"].sum())


@dataclass(frozen=True, eq=False)
class Disagreement:
    """On which labelled cells two series are right.

    Parameters
    ----------
    types
        `cell_type`, `agreement` (one of `AGREEMENTS`), `n_cells`, `n_donors`, `row_share` (of the
        type's cells), `is_small`; rows at 0 are left out.
    totals
        `agreement`, `n_cells`, `n_donors`, `share`; all of them.
    """

    first: str
    second: str
    types: pd.DataFrame
    totals: pd.DataFrame
    n_cells: int
    n_donors: int
    sentence: str


def confusions(
    store: Reader, scope: Scope, configuration: str, seed: int | None = None
) -> Confusions:
    """Return labels against predictions of one series over the scored cells of the scope.

    Parameters
    ----------
    configuration, seed
        The series, one at a time: the lowest complete seed by default.

    Raises
    ------
    InputError
        If there is no such configuration or seed.
    """
    row = shown_series(store, scope, configuration, seed)
    series = series_of(store, scope)
    series_id = str(row["series_id"])
    slices = rows_of_series(store, "confusion_slices", scope, [series_id])
    counted = (
        slices.assign(donor=slices["donor"].fillna(_NO_DONOR))
        .groupby(["label", "predicted", "donor"], as_index=False)["n"]
        .sum()
    )
    cells = _counts(counted, ["label", "predicted"])
    labels = _counts(counted, ["label"]).rename(columns={"label": "cell_type"})
    predictions = _counts(counted, ["predicted"]).rename(columns={"predicted": "cell_type"})
    of_label = cells["label"].map(labels.set_index("cell_type")["n_cells"])
    of_prediction = cells["predicted"].map(predictions.set_index("cell_type")["n_cells"])
    cells["row_share"] = cells["n_cells"] / of_label
    cells["column_share"] = cells["n_cells"] / of_prediction
    cells["kind"] = [
        error_kind(label, predicted)
        for label, predicted in zip(cells["label"], cells["predicted"], strict=True)
    ]
    counted["kind"] = _kinds_of(counted, cells)
    right = cells[cells["label"] == cells["predicted"]].set_index("label")["n_cells"]
    labels["n_right"] = labels["cell_type"].map(right).fillna(0).astype(int)
    labels["is_small"] = (labels["n_cells"] < SMALL_CELLS) | (labels["n_donors"] < SMALL_DONORS)
    cells["is_small"] = cells["label"].map(labels.set_index("cell_type")["is_small"])
    _add_abilities(store, scope, series_id, labels)
    predictions["is_absent"] = ~predictions["cell_type"].isin(labels["cell_type"])
    predictions["note"] = np.where(predictions["is_absent"], "no cell here is labelled so", "")
    n_cells, n_donors = int(counted["n"].sum()), int(counted["donor"].nunique())
    kinds = _kinds(counted, scope, n_cells)
    view = Confusions(
        configuration=configuration,
        display_name=str(row["display_name"]),
        series_id=series_id,
        seed=int(row["seed"]),
        n_seeds=int((series["configuration"] == configuration).sum()),
        status_text=str(row["status_text"]),
        cells=cells,
        labels=labels,
        predictions=predictions,
        kinds=kinds,
        n_cells=n_cells,
        n_donors=n_donors,
        sentences=(),
        cautions=load_labels(store, scope).cautions,
    )
    return replace(view, sentences=_sentences(view))


def _counts(counted: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return cells and donors of each group, largest first."""
    grouped = counted.groupby(by, sort=True)
    counts = pd.DataFrame(
        {"n_cells": grouped["n"].sum().astype(int), "n_donors": grouped["donor"].nunique()}
    ).reset_index()
    return counts.sort_values("n_cells", ascending=False, kind="stable", ignore_index=True)


def _kinds_of(counted: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    kinds = {
        (label, predicted): kind
        for label, predicted, kind in zip(
            cells["label"], cells["predicted"], cells["kind"], strict=True
        )
    }
    return [kinds[pair] for pair in zip(counted["label"], counted["predicted"], strict=True)]


def _kinds(counted: pd.DataFrame, scope: Scope, n_cells: int) -> pd.DataFrame:
    found = _counts(counted, ["kind"]).set_index("kind")
    # At lineage level malignant and normal are one type; and without a type of an unknown family
    # there is nothing to say about it.
    is_possible = {KINDS[1]: scope.label_level == "fine", KINDS[4]: KINDS[4] in found.index}
    names = [kind for kind in KINDS if is_possible.get(kind, True)]
    table = found.reindex(names).fillna(0).astype(int).rename_axis("kind").reset_index()
    n_wrong = int(table["n_cells"][table["kind"] != CORRECT].sum())
    table["share"] = table["n_cells"] / n_cells if n_cells else np.nan
    of_wrong = table["n_cells"] / n_wrong if n_wrong else np.nan
    table["share_of_wrong"] = np.where(table["kind"] == CORRECT, np.nan, of_wrong)
    return table


def _add_abilities(store: Reader, scope: Scope, series_id: str, labels: pd.DataFrame) -> None:
    """Say of each label how many folds' models can output it at all."""
    runs = store.query("runs", owner=scope.owner, dataset_id=scope.dataset_id)
    runs = runs[
        (runs["series_id"] == series_id)
        & (runs["status"] == "done")
        & runs["problem"].isna()
        & runs["is_current"].astype(bool)
        & (runs["fold"] >= 0)
    ].drop_duplicates("fold")
    able = [
        {to_lineage(name) if scope.label_level == "lineage" else name for name in classes}
        for classes in runs["classes"]
    ]
    labels["n_folds"] = len(able)
    labels["n_folds_able"] = [
        sum(cell_type in classes for classes in able) for cell_type in labels["cell_type"]
    ]
    labels["note"] = [
        "the model cannot output this type"
        if n == 0
        else f"the models of {total - n} of {total} folds cannot output this type"
        if n < total
        else ""
        for n, total in zip(labels["n_folds_able"], labels["n_folds"], strict=True)
    ]


def _share(n: int, total: int) -> str:
    return f"{n:,} ({n / total:.0%})" if total else f"{n:,}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(plain(name) for name in names[:_NAMED]) + more


def _sentences(view: Confusions) -> tuple[str, ...]:
    """Say in Markdown how many cells are wrong, how badly, and which mistakes are commonest."""
    name, support = plain(view.display_name), plural(view.n_donors, "donor")
    if not view.n_cells:
        return (f"**{name}** has no scored cell in this choice ({view.status_text}).",)
    n_wrong = view.n_wrong
    if n_wrong == 0:
        first = f"**{name}** calls all {view.n_cells:,} labelled cells ({support}) rightly."
    else:
        first = (
            f"**{name}** is wrong on {n_wrong:,} of {view.n_cells:,} labelled cells "
            f"({n_wrong / view.n_cells:.0%}; {support})."
        )
    if view.n_seeds > 1:
        first += f" Seed {view.seed} of {view.n_seeds} seeds is shown."
    sentences = [first]
    if len(view.labels) == 1:
        only = plain(view.labels["cell_type"].iloc[0])
        sentences.append(f"Every labelled cell is {only}; there is no other type to compare with.")
    if n_wrong:
        wrong = view.kinds[(view.kinds["kind"] != CORRECT) & (view.kinds["n_cells"] > 0)]
        parts = [f"{row.kind} {_share(int(row.n_cells), n_wrong)}" for row in wrong.itertuples()]
        sentences.append(f"Of the wrong cells: {'; '.join(parts)}.")
        common = view.cells[view.cells["kind"] != CORRECT].head(_NAMED)
        parts = [
            f"{plain(row.label)} called {plain(row.predicted)} ({plural(int(row.n_cells), 'cell')}, "
            f"{plural(int(row.n_donors), 'donor')})"
            for row in common.itertuples()
        ]
        sentences.append(f"Most often: {'; '.join(parts)}.")
    unable = view.labels[view.labels["n_folds_able"] == 0]
    if len(unable):
        sentences.append(
            f"The model cannot output {_named(unable['cell_type'].tolist())}: no training fold has "
            f"it ({plural(int(unable['n_cells'].sum()), 'cell')}, all of them wrong)."
        )
    absent = view.predictions[view.predictions["is_absent"]]
    if len(absent):
        sentences.append(
            f"Predicted although no cell here is labelled so: {_named(absent['cell_type'].tolist())} "
            f"({plural(int(absent['n_cells'].sum()), 'cell')})."
        )
    return tuple(sentences)


def disagreement(store: Reader, scope: Scope, first: str, second: str) -> Disagreement:
    """Return on which labelled cells of the scope two configurations are right.

    Only cells with a test prediction of both count.

    Raises
    ------
    InputError
        If one of them is not there.
    """
    ours, others = (shown_series(store, scope, name) for name in (first, second))
    rows = store.query(
        "disagreement",
        owner=scope.owner,
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_id=str(ours["series_id"]),
        other_id=str(others["series_id"]),
        timepoints=list(scope.timepoints) or None,
        truth=scope.truth,
    ).rename(columns={"label": "cell_type"})
    rows["donor"] = rows["donor"].fillna(_NO_DONOR)
    is_right, is_other_right, is_same = (
        rows[name].to_numpy(dtype=bool) for name in ("is_right", "other_is_right", "is_same")
    )
    choice = np.select(
        [is_right & is_other_right, is_right, is_other_right, is_same], [0, 1, 2, 3], default=4
    )
    rows["agreement"] = np.asarray(AGREEMENTS, dtype=object)[choice]
    types = _counts(rows, ["cell_type", "agreement"])
    labels = _counts(rows, ["cell_type"]).set_index("cell_type")
    types["row_share"] = types["n_cells"] / types["cell_type"].map(labels["n_cells"])
    is_small = (labels["n_cells"] < SMALL_CELLS) | (labels["n_donors"] < SMALL_DONORS)
    types["is_small"] = types["cell_type"].map(is_small).astype(bool)
    totals = _counts(rows, ["agreement"]).set_index("agreement").reindex(list(AGREEMENTS))
    totals = totals.fillna(0).astype(int).reset_index()
    n_cells = int(totals["n_cells"].sum())
    totals["share"] = totals["n_cells"] / n_cells if n_cells else np.nan
    return Disagreement(
        first=first,
        second=second,
        types=types,
        totals=totals,
        n_cells=n_cells,
        n_donors=int(rows["donor"].nunique()),
        sentence=_disagreement_sentence(
            totals, n_cells, int(rows["donor"].nunique()), ours, others
        ),
    )


def _disagreement_sentence(
    totals: pd.DataFrame, n_cells: int, n_donors: int, ours: Any, others: Any
) -> str:
    names = [plain(row["display_name"]) for row in (ours, others)]
    if not n_cells:
        return f"No labelled cell has a prediction of both **{names[0]}** and **{names[1]}**."
    n = dict(zip(totals["agreement"], totals["n_cells"].astype(int), strict=True))
    both_wrong = n[AGREEMENTS[3]] + n[AGREEMENTS[4]]
    return (
        f"Of {n_cells:,} labelled cells ({plural(n_donors, 'donor')}) that both predict, only "
        f"**{names[0]}** is right on {_share(n[AGREEMENTS[1]], n_cells)}, only **{names[1]}** on "
        f"{_share(n[AGREEMENTS[2]], n_cells)}; both are wrong on {_share(both_wrong, n_cells)}, "
        f"with the same type on {n[AGREEMENTS[3]]:,} of them."
    )
