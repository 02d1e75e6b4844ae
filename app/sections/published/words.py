"""What a study reports beside what is found here, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from backend.evaluation.views import NOT_RUN
from backend.evaluation.wording import number, plain, plural, range_text

if TYPE_CHECKING:
    from backend.evaluation.published import Study
    from backend.evaluation.views import Published

__all__ = ["beside_sentences", "rows_in_words"]


def beside_sentences(view: Published) -> list[str]:
    """Say what of the study's statements has something beside it here, and what has nothing.

    Returns
    -------
    Sentences in Markdown. Nothing is said to agree: the runs, the cells and the average
    differ.
    """
    judged = view.rows[view.rows["beside"].isin(["within", "not within"])]
    said = []
    for (timepoint, words), rows in judged.groupby(["timepoint", "published"], sort=False):
        low, high = rows["value"].min(), rows["value"].max()
        found = number(low) if number(low) == number(high) else range_text(low, high)
        name = rows["model"].iloc[0]
        support = (
            f"{plural(int(rows['n_donors'].max()), 'donor')}, "
            f"{plural(int(rows['n_cells'].max()), 'cell')}"
        )
        who = "" if len(rows) == 1 else f" of {len(rows)} series"
        said.append(
            f"{plain(name)} at {plain(timepoint)}: {plain(words)} published, macro-F1 {found}{who} "
            f"here ({support})"
        )
    text = f"**{_study(view.study)}** {'; '.join(said)}." if said else ""
    absent = (
        f"Not in this dataset: {plain(', '.join(view.absent))}. Nothing is filled in."
        if view.absent
        else ""
    )
    not_run = sorted(set(view.rows.loc[view.rows["beside"] == NOT_RUN, "model"]))
    lacking = (
        f"{plain(view.study.title)} speaks of {plain(', '.join(not_run))}, which was not run here."
        if not_run
        else ""
    )
    return [sentence for sentence in (text, lacking, absent) if sentence]


def _study(study: Study) -> str:
    return f"{plain(study.title)}, beside this data."


def rows_in_words(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows for a table: what is spoken of in one column, models by their names."""
    of = rows["timepoint"].where(rows["timepoint"] != "", rows["cell_type"])
    return rows.assign(
        of=of,
        figure="Figure " + rows["figure"],
        model=rows["model"].replace("", "all models"),
        interval=[
            range_text(low, high) if pd.notna(low) else ""
            for low, high in zip(rows["low"], rows["high"], strict=True)
        ],
    )
