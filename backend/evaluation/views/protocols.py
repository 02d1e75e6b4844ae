"""Protocols: how much the split flattered us."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.evaluation.optimism import Gap, optimism_gap
from backend.evaluation.views.results import OptimismScores
from backend.evaluation.views.series import Configuration, Reader, configurations_in
from backend.evaluation.views.source import Labels, load_counts, load_labels
from backend.evaluation.views.timepoints import interval_columns
from backend.evaluation.wording import gap_sentence

if TYPE_CHECKING:
    from backend.evaluation.panel import Panel
    from backend.types import Scope

__all__ = ["optimism"]

_SPREAD: Final = ["gap", "low", "high", "interval", "reason"]
_TYPE_COLUMNS: Final = [
    "configuration",
    "display_name",
    "cell_type",
    "random",
    "donor",
    *_SPREAD,
    "n_cells",
    "n_donors",
]


@dataclass(frozen=True)
class _Step:
    """Two protocols to compare, the more flattering one first."""

    first: str
    second: str
    names: tuple[str, str]

    def columns(self) -> list[str]:
        return [
            "configuration",
            "display_name",
            self.first,
            self.second,
            *_SPREAD,
            f"n_train_{self.first}",
            f"n_train_{self.second}",
            "n_donors",
            "n_cells",
            "n_seeds",
        ]


_OPTIMISM: Final = _Step("random", "donor", ("random", "donor-held-out"))
_STUDY: Final = _Step("donor", "study", ("donor-held-out", "study-held-out"))


def optimism(store: Reader, scope: Scope) -> OptimismScores:
    """Compare protocols for each configuration: same cells, types, budget and seeds.

    The scope's own protocol does not matter here. Configurations are matched by name and by
    (split seed, seed); one without a complete partner is named in `notes`. A negative gap is kept.
    """
    labels = load_labels(store, scope)
    panel = labels.panel(scope, pooled=True)
    simulated = bool(labels.dataset["simulated"])
    rows, types, sentences, notes = [], [], [], list(labels.notes(panel))
    pairs, apart = _pairs(store, scope, _OPTIMISM)
    notes += apart
    for first, second, gap, by_type in _gaps(store, scope, labels, panel, pairs):
        rows.append(_row(_OPTIMISM, first, second, gap, labels))
        types += _type_rows(first, by_type, labels)
        sentences.append(
            gap_sentence(
                first.key,
                gap.first,
                gap.second,
                gap.gap,
                types=panel.describe(),
                n_cells=labels.n_cells,
                simulated=simulated,
                names=_OPTIMISM.names,
            )
        )
        notes += _unequal(first, second)
    study_rows, study_notes = _study(store, scope, labels, panel)
    study_of = {row["configuration"]: row["study"] for row in study_rows}
    gaps = pd.DataFrame(rows, columns=_OPTIMISM.columns())
    return OptimismScores(
        gaps=gaps.assign(study=gaps["configuration"].map(study_of).astype(float)),
        by_type=pd.DataFrame(types, columns=_TYPE_COLUMNS),
        study=pd.DataFrame(study_rows, columns=_STUDY.columns()),
        sentences=tuple(sentences),
        panel=panel,
        notes=tuple(dict.fromkeys([*notes, *study_notes])),
        cautions=labels.cautions,
    )


def _matched(item: Configuration, keep: set[tuple[int, int]]) -> Configuration:
    """Keep the series of some replicates, in the order of the replicates."""
    found = sorted(
        (replicate, series, seed)
        for replicate, series, seed in zip(item.replicates, item.series, item.seeds, strict=True)
        if replicate in keep
    )
    return Configuration(
        **{
            **item.__dict__,
            "series": tuple(series for _, series, _ in found),
            "seeds": tuple(seed for _, _, seed in found),
            "replicates": tuple(replicate for replicate, _, _ in found),
        }
    )


def _shared(
    step: _Step, first: Configuration | None, second: Configuration | None
) -> set[tuple[int, int]]:
    """Return the replicates that both sides have under the same number of folds."""
    if first is None or second is None:
        return set()
    # A study split has at most as many folds as studies, so there the number may differ.
    if step is not _STUDY and first.n_folds != second.n_folds:
        return set()
    return set(first.replicates) & set(second.replicates)


def _pairs(
    store: Reader, scope: Scope, step: _Step
) -> tuple[list[tuple[Configuration, Configuration]], list[str]]:
    sides = [
        {item.key: item for item in configurations_in(store, scope, protocol=protocol)}
        for protocol in (step.first, step.second)
    ]
    pairs, apart = [], []
    for key in sorted(sides[0].keys() | sides[1].keys()):
        first, second = sides[0].get(key), sides[1].get(key)
        shared = _shared(step, first, second)
        if first is not None and second is not None and shared:
            pairs.append((_matched(first, shared), _matched(second, shared)))
        else:
            apart.append(
                f"{key}: no complete pair of {step.names[0]} and {step.names[1]} series with "
                f"budget {scope.budget} and the same seed."
            )
    return pairs, apart


def _gaps(
    store: Reader,
    scope: Scope,
    labels: Labels,
    panel: Panel,
    pairs: list[tuple[Configuration, Configuration]],
) -> list[tuple[Configuration, Configuration, Gap, dict[str, Gap]]]:
    series = [name for pair in pairs for item in pair for name in item.series]
    counts = load_counts(store, scope, series, labels)
    return [
        (
            first,
            second,
            *optimism_gap(counts.of(first.series), counts.of(second.series), panel),
        )
        for first, second in pairs
    ]


def _row(
    step: _Step, first: Configuration, second: Configuration, gap: Gap, labels: Labels
) -> dict[str, Any]:
    return {
        "configuration": first.key,
        "display_name": first.display_name,
        step.first: gap.first,
        step.second: gap.second,
        "gap": gap.gap.value,
        **interval_columns(gap.gap),
        f"n_train_{step.first}": np.rint(first.n_train),
        f"n_train_{step.second}": np.rint(second.n_train),
        "n_donors": labels.n_donors,
        "n_cells": labels.n_cells,
        "n_seeds": len(first.series),
    }


def _type_rows(
    item: Configuration, by_type: dict[str, Gap], labels: Labels
) -> list[dict[str, Any]]:
    support = labels.counts.sum(axis=0)
    return [
        {
            "configuration": item.key,
            "display_name": item.display_name,
            "cell_type": name,
            "random": gap.first,
            "donor": gap.second,
            "gap": gap.gap.value,
            **interval_columns(gap.gap),
            "n_cells": int(support[:, labels.types.index(name)].sum()),
            "n_donors": gap.gap.n_donors,
        }
        for name, gap in by_type.items()
    ]


def _unequal(first: Configuration, second: Configuration) -> list[str]:
    if abs(first.n_train - second.n_train) <= 1.0:
        return []
    sizes = f"{first.n_train:,.0f} and {second.n_train:,.0f} cells a fold"
    return [f"{first.key}: training sizes differ ({sizes}), so the gap also holds their effect."]


def _study(
    store: Reader, scope: Scope, labels: Labels, panel: Panel
) -> tuple[list[dict[str, Any]], list[str]]:
    studies = labels.studies
    if len(studies) < 2:
        return [], ["Study gap: one study: not measurable here."]
    pairs, apart = _pairs(store, scope, _STUDY)
    if not pairs:
        return [], ["Study gap: no complete study-held-out series."]
    rows, notes = [], list(apart)
    for first, second, gap, _ in _gaps(store, scope, labels, panel, pairs):
        rows.append(_row(_STUDY, first, second, gap, labels))
        notes += _unequal(first, second)
    notes.append(
        f"Study gap over {len(studies)} studies: donors are redrawn, studies are fixed, "
        "so its interval says nothing about another study."
    )
    return rows, notes
