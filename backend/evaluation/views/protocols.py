"""Protocols: how much the split flattered us."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.errors import InputError
from backend.evaluation.f1 import f1_by_class
from backend.evaluation.intervals import Estimate, leave_one_out, paired_difference
from backend.evaluation.metrics import DEFAULT, metric_named
from backend.evaluation.views.results import OptimismScores
from backend.evaluation.views.series import Configuration, Reader, configurations_in
from backend.evaluation.views.source import Labels, load_counts, load_labels
from backend.evaluation.views.timepoints import interval_columns
from backend.evaluation.wording import budget_text, gap_sentence, plain
from backend.protocols import PROTOCOLS, Protocol

if TYPE_CHECKING:
    from backend.evaluation.metrics import Metric
    from backend.evaluation.panel import Panel
    from backend.evaluation.tallies import Tallies
    from backend.types import Scope

__all__ = ["Gap", "optimism", "optimism_gap"]

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


@dataclass(frozen=True, slots=True)
class Gap:
    """A score under two protocols and their difference; a negative gap is kept as it is."""

    first: float
    second: float
    gap: Estimate


@dataclass(frozen=True)
class _Step:
    """Two protocols to compare, the more flattering one first."""

    first: Protocol
    second: Protocol

    def columns(self) -> list[str]:
        return [
            "configuration",
            "display_name",
            "metric",
            self.first.key,
            self.second.key,
            *_SPREAD,
            f"n_train_{self.first.key}",
            f"n_train_{self.second.key}",
            "n_donors",
            "n_cells",
            "n_seeds",
        ]


_OPTIMISM: Final = _Step(PROTOCOLS["random"], PROTOCOLS["donor"])


def _other_steps() -> list[_Step]:
    """Return every comparison that the registry names beside the optimism gap."""
    return [
        _Step(PROTOCOLS[second.compared_with], second)
        for second in PROTOCOLS.values()
        if second.compared_with and second is not _OPTIMISM.second
    ]


@dataclass(frozen=True)
class _Scored:
    """What every comparison shares."""

    store: Reader
    scope: Scope
    labels: Labels
    panel: Panel
    metric: Metric


def optimism(store: Reader, scope: Scope, *, metric: str = DEFAULT) -> OptimismScores:
    """Compare protocols for each configuration: same cells, types, budget and seeds.

    The scope's own protocol does not matter here. Configurations are matched by name and by
    (split seed, seed); one without a complete partner is named in `notes`. A negative gap is kept.
    """
    labels = load_labels(store, scope)
    panel = labels.panel(scope, pooled=True)
    given = _Scored(store, scope, labels, panel, metric_named(metric))
    rows, types, sentences, notes = [], [], [], list(labels.notes(panel))
    pairs, apart = _pairs(given, _OPTIMISM)
    notes += apart
    for first, second, gap, by_type in _gaps(given, pairs):
        rows.append(_row(given, _OPTIMISM, first, second, gap))
        types += _type_rows(first, by_type, labels)
        sentences.append(
            gap_sentence(
                first.key,
                gap.first,
                gap.second,
                gap.gap,
                metric=given.metric.label,
                types=panel.describe(),
                n_cells=labels.n_cells,
                simulated=bool(labels.dataset["simulated"]),
                names=(f"on {_OPTIMISM.first.tested_on}", f"on {_OPTIMISM.second.tested_on}"),
            )
        )
        notes += _unequal(first, second)
    gaps = pd.DataFrame(rows, columns=_OPTIMISM.columns())
    others = {}
    for step in _other_steps():
        table, said = _other(given, step)
        notes += said
        value_of = dict(zip(table["configuration"], table[step.second.key], strict=True))
        gaps[step.second.key] = gaps["configuration"].map(value_of).astype(float)
        if len(table):
            others[step.second.key] = table
    return OptimismScores(
        gaps=gaps,
        by_type=pd.DataFrame(types, columns=_TYPE_COLUMNS),
        others=others,
        sentences=tuple(sentences),
        panel=panel,
        notes=tuple(dict.fromkeys(notes)),
        cautions=labels.cautions,
    )


def optimism_gap(
    first: Tallies, second: Tallies, panel: Panel, metric: Metric
) -> tuple[Gap, dict[str, Gap]]:
    """Compare two protocols of one configuration on one panel, paired by donor.

    Parameters
    ----------
    first, second
        Counts of the more and of the less flattering protocol (random, donor), with seeds on the
        leading axis in the same order. Every cell is tested once under each, so labels agree.
    panel
        The one panel for both.

    Returns
    -------
    The gap of the metric, and the gap of each panel type's F1.

    Raises
    ------
    InputError
        If the two were not scored on the same labels.
    """
    if (
        first.donors != second.donors
        or first.types != second.types
        or not np.array_equal(first.n_label, second.n_label)
    ):
        msg = "The two protocols were not scored on the same cells."
        raise InputError(msg, "Compare complete series of the same dataset, label level and seeds.")
    mask = first.mask(panel.types)
    statistic = metric.statistic(mask)
    pair = [leave_one_out(part, statistic).mean_over_seeds() for part in (first, second)]
    difference = paired_difference(*pair, bounds=metric.difference_range)
    total = Gap(float(pair[0].value), float(pair[1].value), difference)
    by_class = [leave_one_out(part, f1_by_class).mean_over_seeds() for part in (first, second)]
    n_donors = (first.n_label[0] > 0).sum(axis=0)
    by_type = {}
    for index in np.flatnonzero(mask).tolist():
        a, b = by_class[0].at(index), by_class[1].at(index)
        gap = paired_difference(a, b, n_donors=int(n_donors[index]))
        by_type[first.types[index]] = Gap(float(a.value), float(b.value), gap)
    return total, by_type


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
    is_free = step.second.unit not in ("cell", "donor")
    if not is_free and first.n_folds != second.n_folds:
        return set()
    return set(first.replicates) & set(second.replicates)


def _pairs(
    given: _Scored, step: _Step
) -> tuple[list[tuple[Configuration, Configuration]], list[str]]:
    sides = [
        {
            item.key: item
            for item in configurations_in(given.store, given.scope, protocol=protocol.key)
        }
        for protocol in (step.first, step.second)
    ]
    pairs, apart = [], []
    for key in sorted(sides[0].keys() | sides[1].keys()):
        first, second = sides[0].get(key), sides[1].get(key)
        shared = _shared(step, first, second)
        if first is not None and second is not None and shared:
            pairs.append((_matched(first, shared), _matched(second, shared)))
        else:
            item = first or second
            apart.append(item.display_name if item is not None else key)
    if not apart:
        return pairs, []
    note = (
        f"Not tested both on {step.first.tested_on} and on {step.second.tested_on} with the same "
        f"seed and {budget_text(given.scope.budget)}: {'; '.join(map(plain, apart))}."
    )
    return pairs, [note]


def _gaps(
    given: _Scored, pairs: list[tuple[Configuration, Configuration]]
) -> list[tuple[Configuration, Configuration, Gap, dict[str, Gap]]]:
    series = [name for pair in pairs for item in pair for name in item.series]
    counts = load_counts(given.store, given.scope, series, given.labels)
    return [
        (
            first,
            second,
            *optimism_gap(
                counts.of(first.series), counts.of(second.series), given.panel, given.metric
            ),
        )
        for first, second in pairs
    ]


def _row(
    given: _Scored, step: _Step, first: Configuration, second: Configuration, gap: Gap
) -> dict[str, Any]:
    return {
        "configuration": first.key,
        "display_name": first.display_name,
        "metric": given.metric.key,
        step.first.key: gap.first,
        step.second.key: gap.second,
        "gap": gap.gap.value,
        **interval_columns(gap.gap),
        f"n_train_{step.first.key}": np.rint(first.n_train),
        f"n_train_{step.second.key}": np.rint(second.n_train),
        "n_donors": given.labels.n_donors,
        "n_cells": given.labels.n_cells,
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


def _other(given: _Scored, step: _Step) -> tuple[pd.DataFrame, list[str]]:
    """Return the gaps of one more comparison, and what must be said of them."""
    name, empty = step.second.key.capitalize(), pd.DataFrame(columns=step.columns())
    is_by_study, studies = step.second.unit == "study", given.labels.studies
    if is_by_study and len(studies) < 2:
        return empty, [f"{name} gap: one study: not measurable here."]
    pairs, notes = _pairs(given, step)
    if not pairs:
        return empty, [f"{name} gap: no complete {step.second.label} series."]
    rows = []
    for first, second, gap, _ in _gaps(given, pairs):
        rows.append(_row(given, step, first, second, gap))
        notes += _unequal(first, second)
    if is_by_study:
        notes.append(
            f"{name} gap over {len(studies)} studies: donors are redrawn, studies are fixed, "
            "so its interval says nothing about another study."
        )
    return pd.DataFrame(rows, columns=step.columns()), notes
