"""Which cells of a file do not belong to what the models know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import streamlit as st

from app import cache
from app.components import export

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.state import Source

__all__ = ["EXPECTED", "draw", "share_text", "shares_text"]

EXPECTED: Final = (
    "Of a new donor from the same tissue, 5 % of the cells are expected to lie outside."
)
"""Stands once beside all shares."""

_BY: Final = {
    "donor": "Donor",
    "cell_type_fine": "Label in the file",
    "predicted": "Predicted type",
}


def share_text(share: float) -> str:
    """Say which share of the cells lies outside; `EXPECTED` says how many are to be expected."""
    return f"{share * 100:.1f} % of the cells lie outside its training data"


def shares_text(shares: Iterable[tuple[str, float]]) -> str:
    """Say of several models which share of the cells lies outside, by their names in Markdown."""
    said = "; ".join(f"{name} {share * 100:.1f} %" for name, share in shares)
    return f"Cells outside the training data of **each model**: {said}."


def draw(owner: str, dataset_id: str, names: Mapping[str, str], source: Source) -> None:
    """Draw the share of cells outside, by donor, label or prediction.

    Parameters
    ----------
    names
        Run id → display name of the models that keep where their training cells lie.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        run_id = st.selectbox(
            "Model", list(names), format_func=names.__getitem__, key="evaluate.outside.model",
            width=320,
        )  # fmt: skip
        options = [key for key in _BY if source.is_scored or key != "cell_type_fine"]
        by = st.segmented_control(
            "By", options, default="donor", format_func=_BY.__getitem__, required=True,
            key="evaluate.outside.by",
        )  # fmt: skip
    table = cache.outside(owner, dataset_id, run_id, by)
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            by: _BY[by],
            "n_cells": st.column_config.NumberColumn("Cells", format="localized"),
            "n_outside": st.column_config.NumberColumn("Outside", format="localized"),
            "share": st.column_config.ProgressColumn(
                "Share outside", format="percent", min_value=0.0, max_value=1.0
            ),
        },
        key="evaluate.outside.table",
    )
    st.download_button(
        "CSV",
        export.csv_bytes(table, source),
        file_name=export.file_name(source, f"outside-by-{by}", "csv"),
        mime="text/csv",
        icon=":material/download:",
        key="evaluate.outside.csv",
    )
    st.caption(
        "A cell is outside when it lies farther from the training cells than 95 % of the cells of "
        "donors that were left out of them. Predictions of such cells mean little."
    )
