"""Overview: where the models break on this data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.evaluation.description import COMPARISON, describes, is_grey
from backend.evaluation.f1 import f1_by_class, is_small
from backend.evaluation.intervals import CAPTION, MIN_DONORS, NO_INTERVALS, Estimate
from backend.evaluation.metrics import DEFAULT, metric_named
from backend.evaluation.views.results import Overview, Provenance, TimepointScores
from backend.evaluation.views.series import Configuration, Reader, configurations_in
from backend.evaluation.views.source import (
    NO_TIMEPOINT,
    Labels,
    Scored,
    load_labels,
    load_scored,
)
from backend.evaluation.views.timepoints import timepoint_scores
from backend.evaluation.wording import (
    TimepointScore,
    description_sentence,
    init_text,
    kind_text,
    label_sources_text,
    protocol_sentence,
    series_sentence,
)
from backend.store.cache import PUBLIC
from backend.store.imports import MODEL
from backend.types import EXTERNAL, TRUTHS

if TYPE_CHECKING:
    from backend.evaluation.description import Kind
    from backend.evaluation.metrics import Metric
    from backend.types import Scope

__all__ = ["COLLAPSE_F1", "overview", "provenance"]

COLLAPSE_F1: Final = 0.2
"""A type that is not small and scores below this is named as collapsed."""

_COLLAPSED: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "cell_type",
    "kind",
    "f1",
    "n_cells",
    "n_donors",
    "is_small",
]


def overview(store: Reader, scope: Scope, *, metric: str = DEFAULT) -> Overview:
    """Return the sentences, scores and warnings of the first page, one sentence a configuration."""
    chosen = metric_named(metric)
    scored = load_scored(store, scope)
    labels, configurations = scored.labels, scored.configurations
    result = timepoint_scores(scored, scope, chosen)
    return Overview(
        sentences=tuple(_sentence(item, result, labels, scope, chosen) for item in configurations),
        scores=result.scores,
        collapsed=_collapsed(scored, scope, result.kind),
        missing=result.missing,
        not_labelled=_not_labelled(labels),
        panel=result.panel,
        kind=result.kind,
        descriptions=result.descriptions,
        notes=result.notes,
        provenance=_provenance(scope, labels, configurations),
    )


def provenance(store: Reader, scope: Scope) -> Provenance:
    """Say where the numbers of this scope come from."""
    return _provenance(scope, load_labels(store, scope), configurations_in(store, scope))


def _estimate(row: Any, value: str) -> Estimate:
    return Estimate(
        float(getattr(row, value)),
        float(row.low),
        float(row.high),
        row.interval,
        int(row.n_donors),
        row.reason,
    )


def _sentence(
    item: Configuration, result: TimepointScores, labels: Labels, scope: Scope, metric: Metric
) -> str:
    differences = {
        row.timepoint: _estimate(row, "difference")
        for row in result.differences.itertuples()
        if row.configuration == item.key
    }
    described = result.descriptions
    scores = [
        TimepointScore(
            timepoint="" if row.timepoint == NO_TIMEPOINT else row.timepoint,
            estimate=_estimate(row, "value"),
            n_cells=int(row.n_cells),
            is_dots_only=row.timepoint in result.panel.skipped,
            difference=differences.get(row.timepoint),
            types=described[row.timepoint].describe() if described else "",
            no_score=described[row.timepoint].reason if described else "",
        )
        for row in result.scores.itertuples()
        if row.configuration == item.key
    ]
    simulated = bool(labels.dataset["simulated"])
    common: dict[str, Any] = {
        "metric": metric.label,
        "label_sources": label_sources_text(labels.sources, simulated=simulated),
        "simulated": simulated,
        "status": item.status_text,
        "is_complete": item.is_complete,
        "n_seeds": len(item.series),
        "truth": scope.truth,
    }
    if result.kind == COMPARISON:
        return series_sentence(item.key, scores, types=result.panel.describe(), **common)
    return description_sentence(item.key, scores, describes=describes(labels.n_donors), **common)


def _collapsed(scored: Scored, scope: Scope, scored_as: Kind) -> pd.DataFrame:
    """Name lost types; not those of `majority`, which loses all types but one by construction."""
    labels, counts = scored.labels, scored.counts
    by_donor = np.zeros((len(labels.timepoints), len(labels.donors), len(counts.types)), dtype=int)
    by_donor[:, :, [counts.types.index(name) for name in labels.types]] = labels.counts
    n_cells, n_donors = by_donor.sum(axis=1), (by_donor > 0).sum(axis=1)
    small = is_small(n_cells, n_donors)
    # One or two donors say nothing about others, but what fails in them can be described.
    unread = small if scored_as == COMPARISON else is_grey(n_cells)
    rows = []
    for item in scored.configurations:
        if not item.is_complete or item.model == "majority":
            continue
        series = [counts.series.index(name) for name in item.series]
        tp, n_label, n_predicted = (
            table[series].sum(axis=2) for table in (counts.tp, counts.n_label, counts.n_predicted)
        )
        f1 = f1_by_class(tp, n_label, n_predicted).mean(axis=0)
        never = n_predicted.sum(axis=0) == 0
        is_lost = (n_cells > 0) & (never | (f1 == 0) | ((f1 < COLLAPSE_F1) & ~unread))
        for place in zip(*np.nonzero(is_lost), strict=True):
            kind = "F1 0" if f1[place] == 0 else f"F1 below {COLLAPSE_F1:g}"
            rows.append(
                {
                    "configuration": item.key,
                    "display_name": item.display_name,
                    "timepoint": labels.timepoints[place[0]],
                    "cell_type": counts.types[place[1]],
                    "kind": "never predicted" if never[place] else kind,
                    "f1": float(f1[place]),
                    "n_cells": int(n_cells[place]),
                    "n_donors": int(n_donors[place]),
                    "is_small": bool(small[place]),
                }
            )
    table = pd.DataFrame(rows, columns=_COLLAPSED)
    if scope.cell_types:
        table = table[table["cell_type"].isin(scope.cell_types)]
    return table.reset_index(drop=True)


def _not_labelled(labels: Labels) -> tuple[str, ...]:
    info = labels.dataset.get("info")
    values = json.loads(info) if isinstance(info, str) else (info or {})
    return tuple(values.get("not_labelled") or ())


def _folds_text(configurations: list[Configuration]) -> str:
    """Say how many folds there are, with the names of the models that differ from most."""
    names: dict[str, list[str]] = {}
    for item in configurations:
        names.setdefault(item.status_text, []).append(item.display_name)
    usual = max(names, key=lambda text: len(names[text]), default="")
    return "; ".join(
        text if text == usual else f"{text} ({'; '.join(names[text])})"
        for text in sorted(names, key=lambda text: text != usual)
    )


def _provenance(scope: Scope, labels: Labels, configurations: list[Configuration]) -> Provenance:
    dataset = labels.dataset
    return Provenance(
        dataset_id=scope.dataset_id,
        dataset=str(dataset["name"]),
        simulated=bool(dataset["simulated"]),
        kind=kind_text(simulated=bool(dataset["simulated"]), is_upload=dataset["owner"] != PUBLIC),
        source=str(dataset.get("source") or ""),
        citation=str(dataset.get("citation") or ""),
        label_level=scope.label_level,
        label_sources=". ".join(
            text.removesuffix(".")
            for text in (
                label_sources_text(
                    labels.sources, prefix=False, simulated=bool(dataset["simulated"])
                ),
                *labels.cautions,
            )
            if text
        ),
        inits={
            item.key: init_text(
                preset=item.preset,
                init=item.init,
                checkpoint=item.checkpoint,
                display_name=item.display_name,
                is_imported=item.model == MODEL,
            )
            for item in configurations
        },
        protocol=protocol_sentence(scope.protocol),
        # How many cells another dataset's model was trained on stands with that model.
        budget="" if scope.protocol == EXTERNAL else scope.budget,
        folds=_folds_text(configurations),
        truth=TRUTHS[scope.truth],
        n_cells=labels.n_cells,
        n_donors=labels.n_donors,
        created_at=max((item.created_at for item in configurations), default=""),
        cautions=labels.cautions,
        caption=CAPTION if labels.n_donors >= MIN_DONORS else NO_INTERVALS,
    )
