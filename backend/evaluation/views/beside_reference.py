"""Beside the reference: a sample's own F1 and composition among those of the reference's donors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.data.labels import is_malignant_label
from backend.data.vocabularies import ABSTAINED
from backend.evaluation.description import is_grey
from backend.evaluation.f1 import f1_by_class
from backend.evaluation.views.model_source import model_source
from backend.evaluation.views.series import configurations_in
from backend.evaluation.views.source import (
    NO_DONOR,
    NO_TIMEPOINT,
    in_clinical_order,
    load_counts,
    load_labels,
)
from backend.evaluation.wording import number, plain, plural

if TYPE_CHECKING:
    from backend.evaluation.views.series import Configuration, Reader
    from backend.types import Scope

__all__ = ["MALIGNANT", "BesideReference", "Composition", "beside_reference", "compositions"]

MALIGNANT: Final = "all malignant types"
_TRIM: Final = 0.1
_DOTS: Final = ["place", "who", "donor", "timepoint", "value", "n_types", "n_cells"]
_TYPES: Final = ["cell_type", "who", "donor", "timepoint", "f1", "n_cells"]
_SHARES: Final = [
    "donor",
    "timepoint",
    "cell_type",
    "n_cells",
    "share",
    "reference",
    "low",
    "high",
    "n_reference_donors",
]


@dataclass(frozen=True)
class BesideReference:
    """One model: its scores on a sample among those on the donors it was measured with.

    Parameters
    ----------
    reference
        Name of the dataset of the model's series.
    dots
        Macro-F1 of one donor at one timepoint: `place` names the sample's donor and timepoint,
        `who` is "sample" or "reference", `n_types` the types that the value is over.
    types
        F1 of a type in one donor at one timepoint, 20 labelled cells and more.
    sentences
        One a place.
    reason
        Why there is nothing to compare with; empty otherwise.
    """

    configuration: str
    display_name: str
    reference: str
    dots: pd.DataFrame
    types: pd.DataFrame
    sentences: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Composition:
    """One model: shares of its calls by donor and timepoint, beside the reference's donors.

    `shares` has one row a donor, timepoint and type: `share` (0-1) of the donor's called cells;
    `low` to `high`, the range of that share over `n_reference_donors` at the timepoint `reference`.
    Where the model has malignant types, the row `MALIGNANT` is their sum.
    """

    configuration: str
    display_name: str
    reference: str
    shares: pd.DataFrame
    has_malignant: bool

    def lines(self, n_types: int) -> list[str]:
        """Say which types are the most frequent of each donor, a line a donor and timepoint."""
        said = []
        shares = self.shares.drop_duplicates(["donor", "timepoint", "cell_type"])
        for (donor, timepoint), rows in shares.groupby(["donor", "timepoint"], sort=True):
            called = rows[(rows["cell_type"] != MALIGNANT) & (rows["share"] > 0)]
            called = called.sort_values(["share", "cell_type"], ascending=[False, True])
            named = ", ".join(
                f"{row.cell_type} {row.share:.0%}" for row in called[:n_types].itertuples()
            )
            n_cells = int(rows["n_cells"].iloc[0])
            rest = len(called) - n_types
            more = f" and {plural(rest, 'more type')}" if rest > 0 else ""
            place = str(donor) if timepoint == NO_TIMEPOINT else f"{donor} · {timepoint}"
            said.append(f"{place} ({plural(n_cells, 'cell')}): {named}{more}.")
        return said


def _scores(store: Reader, scope: Scope, series_id: str) -> pd.DataFrame:
    """Return F1 by donor, timepoint and type that has 20 labelled cells there."""
    labels = load_labels(store, scope)
    counts = load_counts(store, scope, [series_id], labels)
    parts = []
    for timepoint in labels.timepoints:
        tallies = counts.of([series_id], timepoint)
        f1 = f1_by_class(tallies.tp, tallies.n_label, tallies.n_predicted)[0]
        n_cells = tallies.n_label[0]
        rows, columns = np.nonzero(~is_grey(n_cells))
        parts.append(
            pd.DataFrame(
                {
                    "cell_type": np.asarray(tallies.types, dtype=object)[columns],
                    "donor": np.asarray(tallies.donors, dtype=object)[rows],
                    "timepoint": timepoint,
                    "f1": f1[rows, columns],
                    "n_cells": n_cells[rows, columns],
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_TYPES)


def _of_models(store: Reader, scope: Scope) -> list[tuple[Configuration, str]]:
    """Return the complete configurations of the scope with the series that is shown of each."""
    return [(item, item.series[0]) for item in configurations_in(store, scope) if item.series]


def beside_reference(store: Reader, scope: Scope) -> tuple[BesideReference, ...]:
    """Set every donor of an upload among the donors of each model's donor-held-out series.

    A reference donor is scored over the types of the sample's donor, at the same timepoint where
    the reference has it, at each of its timepoints otherwise. Of these types it needs at least
    half with 20 labelled cells.
    """
    found = []
    for item, series_id in _of_models(store, scope):
        source = model_source(store, scope, series_id)
        none = pd.DataFrame(columns=_DOTS), pd.DataFrame(columns=_TYPES), ()
        if source is None:
            continue
        if source.reason:
            name = source.name
            found.append(
                BesideReference(item.key, item.display_name, name, *none, reason=source.reason)
            )
            continue
        own = _scores(store, scope, series_id)
        theirs = _scores(store, source.scope, source.series_id)
        dots, sentences = _dots(own, theirs, source.name)
        shared = theirs["cell_type"].isin(own["cell_type"]) & theirs["timepoint"].isin(
            dots.loc[dots["who"] == "reference", "timepoint"]
        )
        types = pd.concat(
            [own.assign(who="sample"), theirs[shared].assign(who="reference")], ignore_index=True
        )
        found.append(
            BesideReference(
                item.key,
                item.display_name,
                source.name,
                dots,
                types[_TYPES],
                sentences,
                "" if len(own) else "no donor has a type with 20 labelled cells",
            )
        )
    return tuple(found)


def _dots(
    own: pd.DataFrame, theirs: pd.DataFrame, reference: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    rows: list[tuple[object, ...]] = []
    sentences = []
    order = in_clinical_order(theirs["timepoint"].unique())
    for (donor, timepoint), mine in own.groupby(["donor", "timepoint"], sort=True):
        place = str(donor) if timepoint == NO_TIMEPOINT else f"{donor} · {timepoint}"
        value = float(mine["f1"].mean())
        n_types = len(mine)
        support = int(mine["n_cells"].sum())
        rows.append((place, "sample", donor, timepoint, value, n_types, support))
        same = theirs[theirs["cell_type"].isin(mine["cell_type"])]
        told = []
        for other in [timepoint] if timepoint in order else order:
            donors = same[same["timepoint"] == other].groupby("donor")
            scores = donors.agg(
                f1=("f1", "mean"), n_types=("f1", "size"), n_cells=("n_cells", "sum")
            )
            scores = scores[2 * scores["n_types"] >= n_types]
            rows += [
                (place, "reference", row.Index, other, row.f1, row.n_types, row.n_cells)
                for row in scores.itertuples()
            ]
            told.append(_range(scores["f1"].to_numpy(dtype=float), str(other)))
        told = told or ["no donor of it has a type with 20 labelled cells"]
        sentences.append(
            f"{plain(place)}: macro-F1 {number(value)} ({plural(n_types, 'type')}, "
            f"{plural(support, 'cell')}); {'; '.join(told)} ({plain(reference)})."
        )
    return pd.DataFrame(rows, columns=_DOTS), tuple(sentences)


def _range(values: np.ndarray, timepoint: str) -> str:
    """Say between which values most donors lie: a tenth is left out at either end."""
    which = f"{timepoint} donor" if timepoint != NO_TIMEPOINT else "donor"
    if not len(values):
        return f"no {which} has half of these types"
    cut = int(len(values) * _TRIM)
    kept = np.sort(values)[cut : len(values) - cut]
    if len(values) == 1:
        return f"the one {which} has {number(kept[0])}"
    return (
        f"{len(kept)} of {len(values)} {which}s lie between {number(kept[0])} and "
        f"{number(kept[-1])}"
    )


def compositions(store: Reader, scope: Scope) -> tuple[Composition, ...]:
    """Return what each model calls the cells of each donor, beside the reference's donors.

    The reference's shares are of the same model's calls on donors that were held out of it.
    """
    found = []
    for item, series_id in _of_models(store, scope):
        own = _shares(store, scope, series_id)
        source = model_source(store, scope, series_id)
        theirs = own.iloc[:0]
        if source is not None and not source.reason:
            theirs = _shares(store, source.scope, source.series_id)
        shares, has_malignant = _with_ranges(own, theirs)
        name = "" if source is None else source.name
        found.append(Composition(item.key, item.display_name, name, shares, has_malignant))
    return tuple(found)


def _shares(store: Reader, scope: Scope, series_id: str) -> pd.DataFrame:
    rows = store.query(
        "predicted_counts",
        owner=scope.owner,
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_ids=[series_id],
        timepoints=list(scope.timepoints) or None,
    )
    rows = rows[rows["cell_type"] != ABSTAINED]
    rows = rows.assign(
        donor=rows["donor"].fillna(NO_DONOR), timepoint=rows["timepoint"].fillna(NO_TIMEPOINT)
    )
    malignant = rows[[is_malignant_label(str(name)) for name in rows["cell_type"]]]
    if len(malignant):
        total = malignant.groupby(["donor", "timepoint"], as_index=False)["n"].sum()
        rows = pd.concat([rows, total.assign(cell_type=MALIGNANT)], ignore_index=True)
    whole = rows[rows["cell_type"] != MALIGNANT].groupby(["donor", "timepoint"])["n"].sum()
    rows = rows.join(whole.rename("n_cells"), on=["donor", "timepoint"])
    return rows.assign(share=rows["n"] / rows["n_cells"])[
        ["donor", "timepoint", "cell_type", "n_cells", "share"]
    ]


def _with_ranges(own: pd.DataFrame, theirs: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    order = in_clinical_order(theirs["timepoint"].unique())
    types = sorted(set(own["cell_type"]) | set(theirs["cell_type"]))
    parts = []
    for (donor, timepoint), mine in own.groupby(["donor", "timepoint"], sort=True):
        of_type = mine.set_index("cell_type")["share"].reindex(types).fillna(0.0)
        for other in [timepoint] if timepoint in order else (order or [None]):
            wide = (
                theirs[theirs["timepoint"] == other]
                .pivot_table(index="donor", columns="cell_type", values="share")
                .reindex(columns=types)
                .fillna(0.0)
            )
            parts.append(
                pd.DataFrame(
                    {
                        "donor": donor,
                        "timepoint": timepoint,
                        "cell_type": types,
                        "n_cells": int(mine["n_cells"].iloc[0]),
                        "share": of_type.to_numpy(),
                        "reference": other,
                        "low": wide.min().to_numpy() if len(wide) else np.nan,
                        "high": wide.max().to_numpy() if len(wide) else np.nan,
                        "n_reference_donors": len(wide),
                    }
                )
            )
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_SHARES)
    return table[_SHARES], MALIGNANT in types
