"""What a set of cells is made of, wherever one is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    import numpy as np

    from backend.evaluation.selections import SavedSelection
    from backend.types import Scope

__all__ = ["selection_panel"]


def selection_panel(
    scope: Scope,
    cells: np.ndarray,
    *,
    title: str,
    selection: SavedSelection | None,
    configuration: str | None = None,
) -> None:
    """Show what some cells have in common.

    Parameters
    ----------
    scope
        What the page shows.
    cells
        Values of `cell_index`.
    title
        What the cells are, in the user's words; shown as text.
    selection
        How they were chosen, so that they can be saved under a link; None where they cannot.
    configuration
        The model whose predictions are shown; by default the first one with all folds.
    """
    st.markdown("##### Selected cells")
    st.text(title)
    if not len(cells):
        st.info("No cell is selected.")
        return
    st.markdown(f"**{len(cells):,} cells** are selected.")
