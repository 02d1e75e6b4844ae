"""Where the numbers come from, in one strip; and what stands beside every page's scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import streamlit as st

from backend.evaluation.description import DESCRIPTION, describes
from backend.evaluation.wording import budget_meaning, plain, plural

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd

    from backend.evaluation.description import Description, Kind
    from backend.evaluation.metrics import Metric
    from backend.evaluation.panel import Panel
    from backend.evaluation.views import Overview, Provenance, TimepointScores

__all__ = ["caption", "described", "panel_note", "series_notes", "strip", "types_note"]


_MOST_NAMED: Final = 6
"""Types left out that a caption names; the others stand in its help."""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentences(*texts: str) -> str:
    """Join texts into sentences, each with a full stop."""
    cleaned = (text.strip().rstrip(".") for text in texts if text and text.strip())
    return " ".join(f"{text}." for text in cleaned)


def strip(provenance: Provenance, models: Mapping[str, str]) -> None:
    """Show dataset, kind, label source, init, protocol, folds and counts as labelled facts."""
    inits = "; ".join(
        f"{plain(models.get(key, key))}: {plain(t)}" for key, t in provenance.inits.items()
    )
    facts = {
        "Dataset": _sentences(
            f"{plain(provenance.dataset)} ({provenance.kind}): {provenance.n_cells:,} scored "
            f"cells, {plural(provenance.n_donors, 'donor')}",
            plain(provenance.source),
            plain(provenance.citation),
        ),
        "Labels": _sentences(
            f"{provenance.label_level.capitalize()} level",
            _capital(plain(provenance.label_sources or "no labels")),
            provenance.truth,
        ),
        "Protocol": _sentences(
            provenance.protocol,
            _capital(plain(provenance.folds)),
            provenance.budget
            and f"Training size `{provenance.budget}`: {budget_meaning(provenance.budget)}",
        ),
        "Init": _sentences(inits),
        "Runs made": _sentences(provenance.created_at[:10]),
    }
    st.markdown("\n".join(f"- **{name}.** {text}" for name, text in facts.items() if text))


def caption(provenance: Provenance, *, tested: str = "") -> None:
    """Close a page with one line on the source of its numbers.

    `tested` says how they were tested on a page that compares protocols.
    """
    if not provenance.n_cells:
        st.caption(
            _sentences(
                f"{plain(provenance.dataset)} ({provenance.kind}): no cell is scored",
                plain(provenance.citation),
                f"Runs made {provenance.created_at[:10]}",
            )
        )
        return
    st.caption(
        _sentences(
            f"{plain(provenance.dataset)} ({provenance.kind}): {provenance.n_cells:,} scored "
            f"cells, {plural(provenance.n_donors, 'donor')}",
            f"{provenance.label_level.capitalize()} labels: {plain(provenance.label_sources or 'none')}",
            *((tested,) if tested else (provenance.protocol, _capital(plain(provenance.folds)))),
            provenance.caption,
            plain(provenance.citation),
            f"Runs made {provenance.created_at[:10]}",
        )
    )


def described(kind: Kind, n_donors: int) -> None:
    """Say whom scores are about where the choice allows no comparison."""
    if kind == DESCRIPTION:
        st.markdown(
            ":material/person: No cell type has enough cells and donors at every timepoint for a "
            f"comparison: this page {describes(n_donors)}."
        )


def panel_note(panel: Panel, metric: Metric) -> None:
    """Say over which types a metric is taken, and why others are not in it."""
    st.caption(
        f"{metric.title} over {panel.describe()}, chosen from the labels before any score."
        + _left_out(panel),
        help=_every_left_out([panel]),
    )


def types_note(view: Overview | TimepointScores, metric: Metric, n_donors: int) -> None:
    """Say over which types the scores of a view of `n_donors` are taken, by panel or timepoint."""
    if view.kind != DESCRIPTION:
        panel_note(view.panel, metric)
        return
    # Whom the page describes stands above its picture; here only what differs by timepoint.
    texts = [
        f"{name}: {one.over()}"
        + ("" if one.n_donors == n_donors else f" of {plural(one.n_donors, 'donor')}")
        + f".{_left_out(one)}"
        for name, one in view.descriptions.items()
    ]
    st.caption(
        f"{metric.title} of each timepoint over its own types. {' '.join(texts)}",
        help=_every_left_out(list(view.descriptions.values())),
    )


def _left_out(types: Panel | Description) -> str:
    """Return " Left out: …", or nothing; of many types the first ones."""
    texts = [f"{plain(name)}: {plain(why)}" for name, why in types.excluded.items()]
    more = f"; and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return f" Left out: {'; '.join(texts[:_MOST_NAMED])}{more}." if texts else ""


def _every_left_out(types: Collection[Panel | Description]) -> str | None:
    """Return all types left out, a line each, where a caption names only the first ones."""
    every = {name: why for one in types for name, why in one.excluded.items()}
    if all(len(one.excluded) <= _MOST_NAMED for one in types):
        return None
    return "\n".join(f"- {plain(name)}: {plain(why)}" for name, why in every.items())


def series_notes(series: pd.DataFrame) -> None:
    """Name series with missing or failed folds: they have no headline number."""
    for row in series[~series.is_complete.astype(bool)].itertuples():
        st.markdown(
            f":material/warning: {plain(row.display_name)}: "
            + _sentences(f"{row.status_text}, so no headline number", plain(row.notes))
        )
