"""Beside a score: whether the network behind it had stopped improving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import streamlit as st

from backend.evaluation.wording import plain
from backend.types import STOPPED_IMPROVING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["convergence_badges"]

_DONE: Final = "green"
_OPEN: Final = "orange"


def convergence_badges(scores: pd.DataFrame) -> None:
    """Say of each network among the scores how its training ended; nothing for baselines.

    Parameters
    ----------
    scores
        Rows with `display_name` and `convergence`, such as those of `TimepointScores`.
    """
    said = scores[["display_name", "convergence"]].drop_duplicates()
    said = said[said.convergence != ""]
    if said.empty:
        return
    lines = []
    for text, part in said.groupby("convergence", sort=False):
        colour = _DONE if text == STOPPED_IMPROVING else _OPEN
        names = "; ".join(plain(name) for name in part.display_name)
        if len(part) == len(said) > 1:
            names = f"all {len(said)}"
        lines.append(f":{colour}-badge[{text}] {names}")
    st.markdown(
        "Training of the networks: " + " · ".join(lines),
        help="Stopped improving: the best epoch by the validation cells was followed by as many "
        "epochs without a better one as the fit waits for. A network that was still improving "
        "might score higher after a longer training. The numbers stand on the Runs page.",
    )
