"""The choice of stored models, and what the labels of a file mean to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import streamlit as st

from backend.evaluation.mapping import common_types, match_labels, ontology_version
from backend.evaluation.wording import plain, plural
from backend.models.baselines.expression import MIN_SHARE_OF_GENES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.evaluation.mapping import LabelMatch

__all__ = ["choose_donor_names", "choose_models", "confirm_few", "map_labels"]

_NOT_SCORED: Final = "not scored"
_FEW: Final = 2
"""Models whose facts stand open."""
_DONOR_NAMES: Final = {
    "ask": "other people if the study differs, otherwise the same",
    "other": "other people: scored",
    "same": "the same people: not scored",
}
_HOW: Final = {
    "exact": "same name",
    "spelling": "same name, written otherwise",
    "normal counterpart": "malignant form of it",
    "vocabulary": "listed",
    "synonym": "synonym",
    "narrower term": "narrower term",
    "chosen": "your choice",
    "none": "no type found",
}


def choose_models(models: pd.DataFrame, found: dict[str, Any]) -> list[str]:
    """Draw the stored models with the quality of their folds; return the run ids chosen."""
    names = {
        row.run_id: f"{row.display_name}, fitted on {row.trained_on} ({row.label_level})"
        for row in models.itertuples()
    }
    level = models["label_level"].mode().iloc[0]
    chosen = st.multiselect(
        "Models",
        list(names),
        default=models.loc[models["label_level"] == level, "run_id"].tolist(),
        format_func=names.__getitem__,
        key="evaluate.models",
    )
    facts = []
    for row in models[models["run_id"].isin(chosen)].itertuples():
        genes = found["genes"].get(row.run_id, {})
        if genes.get("n_known", 1) < MIN_SHARE_OF_GENES * genes.get("n_model", 1):
            st.warning(
                f"{plain(row.display_name)} cannot read this file: of its {genes['n_model']:,} genes the "
                f"file has {genes['n_known']:,}, and {MIN_SHARE_OF_GENES:.0%} are needed. It is "
                "left out."
            )
            chosen = [run_id for run_id in chosen if run_id != row.run_id]
            continue
        known = (
            f" Of its {genes['n_model']:,} genes the file has {genes['n_known']:,}."
            if genes.get("n_model")
            else ""
        )
        reference = "" if row.has_reference else " It cannot say which cells do not belong."
        facts.append(
            f"- **{plain(row.display_name)}**: {plural(row.n_train, 'training cell')} of "
            f"{plural(row.n_train_donors, 'donor')}. {row.quality[:1].upper()}{row.quality[1:]}.{known}{reference}"
        )
    if facts:
        # Many models would push the labels, which need a look, out of sight.
        with st.expander("Their training cells, scores and genes", expanded=len(facts) <= _FEW):
            st.markdown("\n".join(facts))
    levels = models.loc[models["run_id"].isin(chosen), "label_level"].unique()
    if len(levels) > 1:
        st.warning("Choose models of one label level: " + ", ".join(sorted(levels)) + ".")
        return []
    return chosen


def map_labels(
    counts: dict[str, int],
    models: pd.DataFrame,
    runs: Sequence[str],
    key: str,
    kept: dict[str, str | None],
) -> dict[str, str | None]:
    """Draw the labels with the types that they mean; return the user's own choices.

    `kept` are those of an earlier visit: they stand in the table where they still fit.

    What cannot be scored is listed here, before any score.
    """
    types = common_types(models.set_index("run_id").loc[list(runs), "types"])
    guessed = match_labels(counts, types)
    shown = {match.label: match.cell_type for match in guessed}
    shown |= {
        label: name for label, name in kept.items()
        if label in counts and (name is None or name in types)
    }  # fmt: skip
    table = pd.DataFrame(
        {
            "label": [match.label for match in guessed],
            "n_cells": [match.n_cells for match in guessed],
            "cell_type": [shown[match.label] or _NOT_SCORED for match in guessed],
            "how": [_why(match) for match in guessed],
        }
    )
    edited = st.data_editor(
        table,
        hide_index=True,
        disabled=["label", "n_cells", "how"],
        column_config={
            "label": "Label in the file",
            "n_cells": st.column_config.NumberColumn("Cells", format="localized"),
            "cell_type": st.column_config.SelectboxColumn(
                "Counts as", options=[_NOT_SCORED, *types], required=True
            ),
            "how": "Why",
        },
        key=f"evaluate.labels-{key}",
    )
    wanted = dict(zip(edited["label"], edited["cell_type"], strict=True))
    lost = {m.label: m.n_cells for m in guessed if wanted[m.label] == _NOT_SCORED}
    n = sum(counts.values())
    if lost:
        names = ", ".join(f"{plain(label)} ({plural(k, 'cell')})" for label, k in lost.items())
        st.warning(
            f"{sum(lost.values()):,} of {n:,} labelled cells are predicted and not scored, because "
            "the models cannot output their label: " + names,
            icon=":material/label_off:",
        )
    else:
        st.markdown(f"All {n:,} labelled cells have a type that the models can output.")
    never = sorted(set(types) - set(wanted.values()))
    if never:
        st.caption(f"Types without a labelled cell in this file: {plain(', '.join(never))}.")
    st.caption(f"Looked up in {ontology_version()}. A change in “Counts as” is kept.")
    return {
        match.label: None if wanted[match.label] == _NOT_SCORED else wanted[match.label]
        for match in guessed
        if wanted[match.label] != (match.cell_type or _NOT_SCORED)
    }


def choose_donor_names(donors: dict[str, int], models: pd.DataFrame, runs: Sequence[str]) -> str:
    """Ask who donors are whose names occur in training data; nothing is asked where none does."""
    known = {
        name for names in models.set_index("run_id").loc[list(runs), "donors"] for name in names
    }
    shared = sorted(known & set(donors))
    if not shared:
        return "ask"
    shown = plain(", ".join(shared[:5])) + (f" and {len(shared) - 5} more" if shared[5:] else "")
    return str(
        st.radio(
            f"{plural(len(shared), 'donor')} of the file ({shown}) bear names of training donors. "
            "They are",
            list(_DONOR_NAMES),
            format_func=_DONOR_NAMES.__getitem__,
            key="evaluate.donor_names",
            help="A name is no person: cells that were in training are never scored, whatever is "
            "said here.",
        )
    )


def confirm_few(
    counts: dict[str, int],
    models: pd.DataFrame,
    runs: Sequence[str],
    chosen: dict[str, str | None],
) -> bool:
    """Ask once more where under half of the labelled cells would be scored; say whether to go on."""
    if not counts:
        return True
    types = common_types(models.set_index("run_id").loc[list(runs), "types"])
    matches = match_labels(counts, types, given=chosen)
    n = sum(counts.values())
    n_scored = sum(match.n_cells for match in matches if match.cell_type is not None)
    if not n_scored:
        lost = ", ".join(plain(match.label) for match in matches[:10])
        st.error(
            f"None of the labels has a type that the models can output: {lost}. Map at least one, "
            "or choose another column for the cell type.",
            icon=":material/label_off:",
        )
        return False
    if 2 * n_scored >= n:
        return True
    return st.checkbox(
        f"Only {n_scored:,} of {plural(n, 'labelled cell')} ({n_scored / n:.0%}) would be scored: go on",
        key="evaluate.few",
    )


def _why(match: LabelMatch) -> str:
    why = _HOW[match.how] + (f" ({match.term})" if match.term else "")
    return why if match.suggestion is None else f"{why}; perhaps {match.suggestion}?"
