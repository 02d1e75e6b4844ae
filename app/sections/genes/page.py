"""The parts of the Genes page: what is compared, what came of it, and where counts are missing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import streamlit as st

from app import address
from app.components import errors, figure, tables
from app.components.selection_links import cells_of_selection, opened
from app.sections.genes.charts import N_DOTS, dots, volcano
from app.state import choose_one
from backend.evaluation.genes.contrast import AGAINST
from backend.evaluation.wording import plain, plural

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from backend.evaluation.genes.failures import GenesOfFailures
    from backend.types import Scope

__all__ = [
    "MODEL_WIDTH",
    "choose_against",
    "choose_cells",
    "choose_depth",
    "choose_pair",
    "numbers",
    "pictures",
    "without_counts",
]

MODEL_WIDTH: Final = 226
_PAIR_WIDTH: Final = 330
_AGAINST: Final = {
    "the same label, rightly called": "label",
    "the predicted type": "predicted",
    "both": "both",
}
assert set(_AGAINST.values()) == set(AGAINST)


def without_counts(scope: Scope) -> None:
    """Say which one command lets this page answer."""
    st.info(
        "The counts of these cells are not kept here, so no gene can be compared. One command keeps "
        "them, from the file that the results were made of:"
    )
    st.code(f"python -m backend data attach FILE.h5ad --dataset {scope.dataset_id}", language=None)


def choose_cells(configuration: str) -> np.ndarray | None:
    """Return the cells of the selection in the address; None without one."""
    selection = opened()
    if selection is None:
        return None
    with errors.shown_to_user():
        cells = cells_of_selection(selection, configuration)
    name = plain(selection.name or selection.describe())
    st.markdown(f"Failures among {plural(len(cells), 'selected cell')}: {name}.")
    return cells


def choose_pair(pairs: pd.DataFrame) -> pd.Series:
    """Draw the choice of label and wrong call; return its row.

    Cells of several labels are compared one label at a time.
    """
    texts = [f"{row.label} → {row.predicted}" for row in pairs.itertuples()]
    address.check_listed("pair", texts, "pair")
    address.say_what_is_not_here()
    chosen = st.selectbox(
        "Label → called",
        texts,
        key="pair",
        bind="query-params",
        width=_PAIR_WIDTH,
        help="First the pairs of which enough donors can be compared, then those with most cells.",
    )
    return pairs.iloc[texts.index(chosen)]


def choose_against(pair: pd.Series) -> str:
    """Draw the choice of the cells that failures are set against, of those that there are."""
    n_of = {"label": pair.n_right, "predicted": pair.n_true, "both": min(pair.n_right, pair.n_true)}
    there = [title for title, key in _AGAINST.items() if n_of[key]]
    if not there:
        st.info(
            f"No {plain(pair.label)} is rightly called here, and no cell is labelled "
            f"{plain(pair.predicted)}: there is nothing to set these failures against. Choose others, "
            "or widen the timepoints."
        )
        st.stop()
    return _AGAINST[choose_one("Against", there, "against")]


def choose_depth() -> bool:
    """Draw whether depth explains first what it can."""
    return st.toggle(
        "Adjust for depth",
        key="adjust",
        bind="query-params",
        help="Lets the model explain by the counts of the cells before it asks what separates them.",
    )


def pictures(view: GenesOfFailures) -> None:
    """Draw the volcano and the first genes on both sides."""
    n_found = int((view.table["q_value"] < 0.05).sum())
    names = ", ".join(view.table["gene"].head(5))
    pair = f"{view.label} called {view.predicted}"
    with st.container(horizontal=True, gap="small"):
        with st.container(width=620):
            figure.draw(
                partial(volcano, view),
                name="genes-volcano",
                title="Genes that separate the failures",
                alt_text=f"Fold change against p-value of {len(view.table):,} genes, {pair} against "
                f"others; {n_found:,} separate; first by p-value: {names}.",
            )
        with st.container():
            figure.draw(
                partial(dots, view),
                name="genes-dots",
                title=f"The first {min(N_DOTS, len(view.table))} genes on both sides",
                alt_text=f"Share of cells with a count and mean of the first genes, {pair} beside "
                f"others: {names}.",
            )
    st.caption(
        "Genes that separate are no reasons: the failures were chosen by a model that read these "
        "genes. What a gene is known to mark is from a list of this project, see Methods."
    )


def numbers(view: GenesOfFailures) -> None:
    """Show every tested gene, with its file."""
    tables.show(
        view.table,
        name="genes",
        alt_text="Every tested gene with fold change, p- and q-value, shares and means of both sides "
        "and the number of donors that agree in sign",
        columns=(
            "gene", "marks", "log2_fold_change", "q_value", "share_failures", "share_others",
            "mean_failures", "mean_others", "n_donors_same_sign", "p_value",
        ),
        labels={
            "gene": "Gene",
            "marks": "Known to mark",
            "n_donors_same_sign": f"Donors that agree, of {view.n_donors}",
        },
        height=420,
    )  # fmt: skip
