"""Tables: readable on the page, complete as CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app.components import export
from app.state import current_source
from backend.evaluation.metrics import metric_of
from backend.protocols import PROTOCOLS, tested_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from app.state import Source

__all__ = ["show"]

_SCORES: Final = {
    "accuracy": "Accuracy",
    "weighted_f1": "Weighted F1",
    "macro_f1": "Macro-F1",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "low": "95 % low",
    "high": "95 % high",
    "gap": "Gap",
    "before": "Before",
    "after": "After",
    "confidence": "Confidence",
    "labelled_share": "Labelled share",
    "predicted_share": "Predicted share",
    "difference": "Difference",
    "share": "Share",
    "top_donor_share": "Largest donor's share",
    "hit_rate": "Right",
    "share_of_all": "Share of all",
    "row_share": "Share of the label",
    "column_share": "Share of the prediction",
    "share_of_wrong": "Share of wrong cells",
    "label_share": "Neighbours with the label",
    "confidence_right": "Confidence when right",
    "confidence_wrong": "Confidence when wrong",
    "probability": "Probability",
    "expected": "Expected",
    "error": "Expected − measured",
    "median_error": "Off by, median",
    "largest_error": "Off by, at most",
}

_GENES: Final = {
    "log2_fold_change": ("log2 fold change", "%.2f"),
    "q_value": ("q", "%.1e"),
    "p_value": ("p", "%.1e"),
    "share_failures": ("Failures with a count", "percent"),
    "share_others": ("Others with a count", "percent"),
    "mean_failures": ("Failures, per 10,000", "%.2f"),
    "mean_others": ("Others, per 10,000", "%.2f"),
}
"""Columns of genes: heading, and how numbers are written."""

_COUNTS: Final = {
    "n_cells": "Cells",
    "n_donors": "Donors",
    "n_types": "Types",
    "n_types_scored": "Types scored",
    "n_predicted": "Predicted cells",
    "n_right": "Right cells",
    "n_label_leads": "More with the label",
    "n_prediction_leads": "More with the prediction",
    "n_predicted_absent": "Predicted, not labelled here",
    "n_seeds": "Seeds",
    "n_label": "Labelled cells",
    "n_cells_before": "Cells before",
    "n_folds_done": "Folds done",
    "n_folds": "Folds",
}
_WORDS: Final = {
    "display_name": "Model",
    "configuration": "Key",
    "cell_type": "Cell type",
    "timepoint": "Timepoint",
    "donor": "Donor",
    "sample": "Sample",
    "interval": "Interval",
    "status_text": "Folds",
    "convergence": "Training",
    "label": "Label",
    "predicted": "Predicted",
    "outcome": "Outcome",
    "cell_id": "Cell",
    "genotype": "Genotype",
    "label_source": "Label source",
    "column": "Column",
    "is_small": "Small",
    "init": "Init",
    "notes": "Notes",
    "kind": "What is lost",
    "reason": "Note",
    "reference": "Against",
}


def _labels_of(frame: pd.DataFrame) -> dict[str, str]:
    """Return the headings that the rows themselves name: of their metric, and of protocols."""
    title = metric_of(frame).title if "metric" in frame else "F1"
    labels = {f"n_train_{key}": f"Training cells a fold, {tested_on(key)}" for key in PROTOCOLS}
    return (
        labels
        | {"value": title}
        | {key: f"{title}, {tested_on(key)}" for key in _protocols_in(frame)}
    )


def _protocols_in(frame: pd.DataFrame) -> set[str]:
    """Return the columns of scores under a protocol; elsewhere `donor` is a word."""
    return set(PROTOCOLS) & set(frame.columns) if "gap" in frame else set()


def _column_config(frame: pd.DataFrame, labels: dict[str, str]) -> dict[str, Any]:
    labels = _labels_of(frame) | labels
    config: dict[str, Any] = {}
    for column in frame.columns:
        if column == "value" or column in _SCORES or column in _protocols_in(frame):
            config[column] = st.column_config.NumberColumn(
                labels.get(column) or _SCORES[column], format="%.2f"
            )
        elif column in _GENES:
            title, written = _GENES[column]
            config[column] = st.column_config.NumberColumn(title, format=written)
        elif column in _COUNTS or (column in labels and column.startswith("n_train_")):
            config[column] = st.column_config.NumberColumn(
                labels.get(column) or _COUNTS[column], format="localized"
            )
        elif column in labels or column in _WORDS:
            config[column] = labels.get(column) or _WORDS[column]
    return config


def show(
    frame: pd.DataFrame,
    *,
    name: str,
    alt_text: str,
    columns: Sequence[str] | None = None,
    labels: dict[str, str] | None = None,
    height: int | str = "auto",
    folded: str = "",
    whole: Callable[[], pd.DataFrame] | None = None,
    source: Source | None = None,
) -> None:
    """Show a table and a CSV download of all its rows and columns.

    Parameters
    ----------
    name
        Part of the file name and of the widget key, unique on the page.
    columns
        Columns on the page, in order; the file holds all of them. None shows all.
    labels
        Headings that differ from the usual ones.
    folded
        Title of an expander to put the table in; empty shows it open.
    whole
        Gives the rows of the file when the page shows only some of them.
    source
        What the table is made from, when that is not the scope of the sidebar.
    """
    source = source or current_source()
    with st.expander(folded) if folded else st.container():
        _show(frame, name, alt_text, columns, labels or {}, height, whole, source)


def _show(
    frame: pd.DataFrame,
    name: str,
    alt_text: str,
    columns: Sequence[str] | None,
    labels: dict[str, str],
    height: int | str,
    whole: Callable[[], pd.DataFrame] | None,
    source: Source,
) -> None:
    shown = [c for c in columns if c in frame.columns] if columns else list(frame.columns)
    if source.simulated:
        st.badge("Simulated data", color="orange")
    st.dataframe(
        frame,
        hide_index=True,
        column_order=shown,
        column_config=_column_config(frame, labels),
        height=height,
        key=f"table.{name}",
        alt=alt_text,
        placeholder="–",
    )
    st.download_button(
        "CSV",
        data=lambda: export.csv_bytes(frame if whole is None else whole(), source),
        file_name=export.file_name(source, name, "csv"),
        mime="text/csv",
        key=f"csv.{name}",
        type="tertiary",
        icon=":material/download:",
        on_click="ignore",
        help="Download these numbers with their source",
    )
