"""Where the numbers come from, in one strip; and what stands under every page's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    import pandas as pd

    from backend.evaluation.panel import Panel
    from backend.evaluation.views import Provenance

__all__ = ["caption", "panel_note", "series_notes", "strip"]


def strip(provenance: Provenance) -> None:
    """Show dataset, kind, label source, init, protocol, folds and counts as labelled facts."""
    kind = "simulated, not a finding" if provenance.simulated else "real"
    inits = "; ".join(f"{name}: {init}" for name, init in dict(provenance.inits).items())
    facts = {
        "Dataset": f"{provenance.dataset} ({kind})",
        "Label source": provenance.label_sources,
        "Init": inits,
        "Protocol": provenance.protocol,
        "Folds": provenance.folds,
        "Cells and donors": f"{provenance.n_cells:,} cells, {provenance.n_donors:,} donors",
        "Citation": provenance.citation,
        "Runs made": provenance.created_at,
    }
    with st.container(border=True):
        st.markdown("**Where these numbers come from**")
        for name, value in facts.items():
            if value:
                st.caption(f"**{name}.** {value}")


def caption(provenance: Provenance) -> None:
    """Close a page with one line on the source of its numbers."""
    kind = "simulated data, not a finding" if provenance.simulated else "real data"
    st.caption(
        f"{provenance.dataset} ({kind}). {provenance.protocol}. {provenance.folds}. "
        f"{provenance.n_cells:,} cells, {provenance.n_donors:,} donors. Labels: "
        f"{provenance.label_sources}. {provenance.citation}. Runs made {provenance.created_at}."
    )


def panel_note(panel: Panel) -> None:
    """Say over which types a macro-F1 is taken, and why others are not in it."""
    excluded = "; ".join(f"{cell_type}: {reason}" for cell_type, reason in panel.excluded.items())
    st.caption(
        f"Macro-F1 over {panel.describe()}, chosen from the labels before any score."
        + (f" Left out: {excluded}." if excluded else "")
    )


def series_notes(series: pd.DataFrame) -> None:
    """Name series with missing or failed folds: they have no headline number."""
    for row in series[~series.is_complete.astype(bool)].itertuples():
        failed = f", {row.n_folds_failed} failed" if row.n_folds_failed else ""
        st.warning(f"{row.display_name}: {row.status_text}{failed}. No headline number.")
