"""Answer: how each model did on the cells of one dataset, all slices together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backend.evaluation.description import describe_slice, describes
from backend.evaluation.f1 import f1_by_class
from backend.evaluation.metrics import METRICS
from backend.evaluation.views.series import rows_of_series
from backend.evaluation.views.source import load_scored
from backend.evaluation.wording import number, plain, plural

if TYPE_CHECKING:
    from backend.evaluation.description import Description
    from backend.evaluation.tallies import Tallies
    from backend.evaluation.views.series import Reader
    from backend.evaluation.views.source import Labels
    from backend.types import Scope

__all__ = ["Answer", "Failing", "answers"]

_WORST: Final = 3
_CALLED: Final = 2


@dataclass(frozen=True, slots=True)
class Failing:
    """A type that a model fails on; `called` are its commonest wrong calls with their cells."""

    cell_type: str
    f1: float
    n_cells: int
    n_donors: int
    called: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Answer:
    """One model on one dataset, as a description of all its scored cells.

    Parameters
    ----------
    series
        Series that were scored.
    scores
        Every metric by key; NaN where no type has enough cells.
    description
        The types that are scored, with cells and donors.
    failing
        Up to three types, lowest F1 first; types without a mistake are left out.
    n_labelled
        Cells with a label of the file, scored or not.
    """

    configuration: str
    display_name: str
    series: tuple[str, ...]
    scores: dict[str, float]
    description: Description
    failing: tuple[Failing, ...]
    n_labelled: int

    @property
    def coverage(self) -> float:
        """Share (0–1) of the labelled cells that are scored; NaN without a labelled cell."""
        return self.description.n_cells / self.n_labelled if self.n_labelled else float("nan")

    def about(self) -> str:
        """Say in Markdown what is true of every model of the scope: which cells are scored."""
        one = self.description
        return (
            f"Scored: {one.n_cells:,} of {plural(self.n_labelled, 'labelled cell')} "
            f"({self.coverage:.0%}); {describes(one.n_donors)}."
        )

    def sentences(self) -> tuple[str, ...]:
        """Say in Markdown how the model did, on what, and where it fails most."""
        one = self.description
        on = f"{plural(one.n_donors, 'donor')}, {plural(one.n_cells_scored, 'cell')}"
        if one.reason:
            first = f"No score: {one.reason} ({plural(one.n_cells, 'labelled cell')})."
        else:
            first = (
                f"Accuracy {number(self.scores['accuracy'])}, macro-F1 "
                f"{number(self.scores['macro_f1'])} ({on}; {one.describe()})."
            )
        if not self.failing:
            return (first,)
        return first, f"Fails most on {'; '.join(map(_told, self.failing))}."


def _told(one: Failing) -> str:
    called = " and ".join(f"{plain(name)} ({n:,})" for name, n in one.called)
    support = f"{plural(one.n_cells, 'cell')}, {plural(one.n_donors, 'donor')}"
    told = f"{plain(one.cell_type)}, F1 {number(one.f1)} ({support})"
    return f"{told}, called {called}" if called else told


def answers(store: Reader, scope: Scope) -> tuple[Answer, ...]:
    """Describe every complete model of the scope over all its scored cells."""
    scored = load_scored(store, scope)
    labels, counts = scored.labels, scored.counts
    description = describe_slice(labels.counts.sum(axis=0), labels.types, chosen=scope.cell_types)
    found = []
    for item in scored.configurations:
        if not item.is_complete:
            continue
        tallies = counts.of(item.series)
        mask = tallies.mask(description.types)
        pooled = tallies.pooled()
        found.append(
            Answer(
                configuration=item.key,
                display_name=item.display_name,
                series=item.series,
                scores={
                    key: float(metric.score(*pooled, panel=mask).mean())
                    for key, metric in METRICS.items()
                },
                description=description,
                failing=_failing(store, scope, tallies, item.series, description.types),
                n_labelled=_n_labelled(labels),
            )
        )
    return tuple(found)


def _failing(
    store: Reader, scope: Scope, tallies: Tallies, series: tuple[str, ...], types: tuple[str, ...]
) -> tuple[Failing, ...]:
    """Return the types with the lowest F1, and what their cells are called under the first seed."""
    rows = rows_of_series(store, "confusion", scope, [series[0]])
    wrong = rows[rows["label"] != rows["predicted"]].sort_values(
        ["n", "predicted"], ascending=[False, True]
    )
    f1 = f1_by_class(*tallies.pooled()).mean(axis=0)
    support = tallies.n_label[0]
    order = sorted(
        (float(f1[i]), name, i) for i, name in enumerate(tallies.types) if name in set(types)
    )
    failing = []
    for value, name, i in [place for place in order if place[0] < 1][:_WORST]:
        called = wrong[wrong["label"] == name].head(_CALLED)
        failing.append(
            Failing(
                cell_type=name,
                f1=value,
                n_cells=int(support[:, i].sum()),
                n_donors=int((support[:, i] > 0).sum()),
                called=tuple(
                    (str(to), int(n))
                    for to, n in zip(called["predicted"], called["n"], strict=True)
                ),
            )
        )
    return tuple(failing)


def _n_labelled(labels: Labels) -> int:
    """Return the cells with a label of their own, those that no model could be scored on included."""
    info = labels.dataset.get("info")
    values = json.loads(info) if isinstance(info, str) else (info or {})
    told = values.get("evaluation") or {}
    left_out = int(told.get("n_unmapped") or 0) + int(told.get("n_in_training") or 0)
    return labels.n_cells + labels.n_without_timepoint + left_out
