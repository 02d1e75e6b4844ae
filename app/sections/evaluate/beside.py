"""Beside the reference: where a sample lies among the donors that its models were measured with."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import pandas as pd
import streamlit as st

from app import cache
from app.components import figure, tables
from app.sections.evaluate.beside_charts import among_donors, shares_in_range
from backend.evaluation.views import MALIGNANT, expected_table
from backend.evaluation.wording import plain, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from app.state import Source
    from backend.evaluation.views import Answer, BesideReference, Composition, Expected
    from backend.types import Scope

__all__ = ["composition", "expected", "in_order", "scores"]

T = TypeVar("T", "BesideReference", "Composition")
Of = TypeVar("Of", "Answer", "BesideReference", "Composition", "Expected")

_SAID: Final = 6
"""Sentences on the page; the table has every donor."""
_LABELS: Final = {
    "who": "Whose",
    "value": "Macro-F1",
    "place": "Compared with",
    "share": "Share",
    "low": "Lowest reference donor",
    "high": "Highest reference donor",
    "reference": "Reference timepoint",
    "n_reference_donors": "Reference donors",
    "n_types": "Types",
    "n_donors": "Reference donors",
}


def in_order(found: Iterable[Of], scope: Scope) -> list[Of]:
    """Return what is said of single models as all pages list them: foundation models first."""
    models = cache.configurations(scope)
    baselines = set(models.configuration[models.is_baseline.astype(bool)])
    return sorted(
        found, key=lambda one: (one.configuration in baselines, one.display_name.casefold())
    )


def scores(scope: Scope, source: Source) -> None:
    """Show each donor's macro-F1 and F1 by type among those of the reference's donors."""
    found = in_order(cache.ask("beside_reference", scope), scope)
    if not found:
        return
    st.markdown("##### Beside the reference")
    compared = [one for one in found if not one.reason]
    for reason in dict.fromkeys(one.reason for one in found if one.reason):
        names = ", ".join(plain(one.display_name) for one in found if one.reason == reason)
        st.caption(f"Nothing to compare with for {names}: {plain(reason)}.")
    if not compared:
        return
    shown = _choose(compared, "evaluate.beside.model")
    st.markdown("\n".join(f"- {sentence}" for sentence in shown.sentences[:_SAID]))
    st.caption(
        "Reference donors were held out of the model that scored them. Each is scored over the "
        "types of the sample, and has 20 labelled cells of at least half of them."
    )
    for table, row, value, title, name in (
        (shown.dots, "place", "value", "Macro-F1", "beside-reference"),
        (shown.types, "cell_type", "f1", "F1", "types-beside-reference"),
    ):
        order = list(dict.fromkeys(table.loc[table["who"] == "sample", row]))
        figure.draw(
            partial(among_donors, table, row=row, value=value, title=title, order=order),
            name=name,
            title=f"{title} {'by cell type, ' if row == 'cell_type' else ''}among reference donors",
            alt_text=f"{title} of the sample as diamonds among {len(table)} scores of donors.",
            source=source,
        )
        tables.show(
            table, name=name, alt_text=f"{title} of sample and reference donors.", labels=_LABELS,
            folded="Table", source=source,
        )  # fmt: skip


def expected(scope: Scope, source: Source) -> None:
    """Say which accuracy is to be expected of each model, and how far off such guesses were."""
    found = in_order(cache.ask("expected_accuracy", scope), scope)
    if not found:
        return
    st.markdown("##### Accuracy to expect")
    table = expected_table(found)
    if not table.empty:
        st.caption(
            "The file has no labels, so this is a guess from confidence, not a measured accuracy. "
            "Beside it stands how far off the same guess was on donors held out of the model."
        )
        tables.show(
            table,
            name="expected-accuracy",
            alt_text="Expected accuracy of every model, and how far off such guesses were.",
            labels=_LABELS | {"reference": "Tried on"},
            source=source,
        )
    # Mostly one for all models: those of one reference lack the same timepoints.
    said = list(dict.fromkeys(one.caution() for one in found if one.caution()))
    said += [f"**{plain(one.display_name)}**: {one.sentence()}" for one in found if one.reason]
    for text in said:
        st.markdown(text)
    errors = [
        one.errors.assign(display_name=one.display_name) for one in found if not one.errors.empty
    ]
    if errors:
        tables.show(
            pd.concat(errors, ignore_index=True),
            name="expected-accuracy-errors",
            alt_text="Expected and measured accuracy of every reference donor.",
            columns=["display_name", "donor", "expected", "accuracy", "error", "n_cells"],
            labels=_LABELS,
            folded="How far off the same guess was, reference donor by donor",
            source=source,
        )


def composition(scope: Scope, source: Source) -> None:
    """Show what the cells of each donor are called, beside the range of the reference's donors."""
    answers: list[Composition] = [
        one for one in cache.ask("compositions", scope) if len(one.shares)
    ]
    found = in_order(answers, scope)
    if not found:
        return
    st.markdown("##### What the cells are called")
    shown = _choose(found, "evaluate.composition.model")
    donors = shown.shares[["donor", "timepoint", "reference"]].drop_duplicates()
    names = [
        f"{row.donor} · {row.timepoint}"
        + (
            f", beside {row.reference}"
            if isinstance(row.reference, str) and row.reference != row.timepoint
            else ""
        )
        for row in donors.itertuples()
    ]
    place = st.selectbox("Donor", names, key="evaluate.composition.donor", width=420)
    row = donors.iloc[names.index(place)]
    same = (shown.shares["donor"] == row["donor"]) & (shown.shares["timepoint"] == row["timepoint"])
    if isinstance(row["reference"], str):
        same &= shown.shares["reference"] == row["reference"]
    rows = shown.shares[same].sort_values("share", ascending=False)
    n = int(rows["n_cells"].iloc[0])
    malignant = rows.loc[rows["cell_type"] == MALIGNANT, "share"]
    if len(malignant):
        told = f"Called malignant: {malignant.iloc[0]:.1%} of {plural(n, 'cell')}."
    else:
        told = f"{plural(n, 'cell')}. This model has no malignant types, so there is no malignant share."
    n_donors = int(rows["n_reference_donors"].iloc[0])
    if n_donors:
        told += f" Range of {plural(n_donors, 'donor')} held out of the model ({row['reference']})."
    st.caption(told)
    figure.draw(
        partial(shares_in_range, rows, order=list(rows["cell_type"])),
        name="composition",
        title=f"Predicted composition of {place}",
        alt_text=f"Share of {len(rows)} predicted types of {place} beside reference donors.",
        source=source,
    )
    tables.show(
        shown.shares, name="composition", alt_text="Predicted shares of every donor.",
        labels=_LABELS, folded="Table of all donors", source=source,
    )  # fmt: skip


def _choose(found: Sequence[T], key: str) -> T:
    names = {one.configuration: one.display_name for one in found}
    if len(found) == 1:
        return found[0]
    chosen = st.selectbox("Model", list(names), format_func=names.__getitem__, key=key, width=320)
    return next(one for one in found if one.configuration == chosen)
