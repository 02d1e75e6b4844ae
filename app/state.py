"""The scope that all pages share, between sidebar, URL and session.

The keys of the shared filters are the public names of URL parameters; treat them as an
interface. Session state holds only the chosen words and ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import streamlit as st

from backend.types import LABEL_LEVELS, PROTOCOLS, TIMEPOINTS, TRUTHS, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pandas as pd

__all__ = [
    "CELL_TYPE",
    "CONFIGURATION",
    "OWNER",
    "PROTOCOL_WORDS",
    "REFERENCE",
    "Source",
    "choose_model",
    "choose_one",
    "course",
    "current_models",
    "current_scope",
    "current_source",
    "query_of",
    "remember",
    "sidebar_scope",
]

DATASET: Final = "dataset"
LABEL_LEVEL: Final = "label_level"
PROTOCOL: Final = "protocol"
BUDGET: Final = "budget"
MODEL: Final = "model"
TIMEPOINT: Final = "timepoint"
TRUTH: Final = "truth"
CONFIGURATION: Final = "show"
"""The one model that a page about cells or donors shows."""
REFERENCE: Final = "against"
"""The model that others are compared with."""
CELL_TYPE: Final = "cell_type"

OWNER: Final = "local"

_SCOPE: Final = "faultline.scope"
_MODELS: Final = "faultline.models"
_COMPLETE: Final = "faultline.complete_models"
_DEFAULTS: Final = "faultline.default_models"
_SOURCE: Final = "faultline.source"

PROTOCOL_WORDS: Final = {
    "random": "cells split at random: test donors were also trained on",
    "donor": "donors held out: no test donor was trained on",
    "study": "studies held out: no test study was trained on",
}
_LEVEL_WORDS: Final = {
    "lineage": "malignant types counted with their normal counterpart",
    "fine": "labels as the authors gave them",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What every chart, table and file says about where its numbers come from."""

    dataset: str
    simulated: bool
    label_level: str
    protocol: str
    truth: str

    @property
    def line(self) -> str:
        """One line for captions and pictures."""
        kind = "SIMULATED DATA, not a finding" if self.simulated else "real data"
        return (
            f"{self.dataset} ({kind}); {self.label_level} labels; protocol {self.protocol}; "
            f"{TRUTHS[self.truth].lower()}"
        )


def _unique_labels(names: Mapping[str, str]) -> dict[str, str]:
    """Return id → label; a name that occurs twice is followed by its id."""
    seen = list(names.values())
    return {k: name if seen.count(name) == 1 else f"{name} ({k})" for k, name in names.items()}


def _ordered(values: Iterable[str], order: Sequence[str]) -> list[str]:
    present = set(values)
    return [v for v in order if v in present] + sorted(present - set(order))


def _listed(words: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {meaning}" for name, meaning in words.items())


def choose_one(
    label: str,
    options: Sequence[str],
    key: str,
    *,
    default: str | None = None,
    help_text: str | None = None,
) -> str:
    """Draw a choice of one; a single option is a fact and needs no widget."""
    if len(options) == 1:
        return options[0]
    return st.segmented_control(
        label,
        options,
        default=default if default in options else options[0],
        required=True,
        key=key,
        help=help_text,
        bind="query-params",
    )


def sidebar_scope(
    choices: pd.DataFrame,
    models_of: Callable[[Scope], pd.DataFrame],
    timepoints_of: Callable[[Scope], Sequence[str]],
) -> Scope:
    """Draw the shared filters and return the scope they describe.

    Parameters
    ----------
    choices
        Combinations that have results: dataset_id, name, simulated, label_level, protocol, budget.
    models_of, timepoints_of
        What a scope offers to narrow it.
    """
    datasets = choices.drop_duplicates("dataset_id").sort_values(["simulated", "name"])
    names = _unique_labels(dict(zip(datasets.dataset_id, datasets.name, strict=True)))
    simulated = dict(zip(datasets.dataset_id, datasets.simulated.astype(bool), strict=True))
    st.subheader("Filters", anchor=False)
    dataset_id = st.selectbox(
        "Dataset",
        list(names),
        format_func=names.__getitem__,
        key=DATASET,
        bind="query-params",
        help="Simulated datasets are for a tour and for tests; they are never a finding.",
    )
    rows = choices[choices.dataset_id == dataset_id]
    label_level = choose_one(
        "Label level",
        _ordered(rows.label_level, LABEL_LEVELS[::-1]),
        LABEL_LEVEL,
        help_text=_listed(_LEVEL_WORDS),
    )
    rows = rows[rows.label_level == label_level]
    protocol = choose_one(
        "Protocol",
        _ordered(rows.protocol, PROTOCOLS),
        PROTOCOL,
        default="donor",
        help_text=_listed(PROTOCOL_WORDS),
    )
    budgets = _ordered(rows[rows.protocol == protocol].budget, ("equal", "full"))
    budget = choose_one(
        "Training cells", budgets, BUDGET, help_text="How training cells were limited."
    )
    scope = Scope(
        dataset_id=dataset_id,
        owner=OWNER,
        label_level=label_level,
        protocol=protocol,
        budget=budget,
    )
    models = models_of(scope)
    defaults = models.configuration[models.is_default.astype(bool)].tolist()
    labels = _unique_labels(dict(zip(models.configuration, models.display_name, strict=True)))
    chosen = st.multiselect(
        "Models",
        list(labels),
        format_func=labels.__getitem__,
        key=MODEL,
        bind="query-params",
        placeholder="All models",
    )
    timepoints = st.multiselect(
        "Timepoints",
        _ordered(timepoints_of(scope), TIMEPOINTS),
        key=TIMEPOINT,
        bind="query-params",
        placeholder="All timepoints",
    )
    truth = st.selectbox(
        "Truth",
        list(TRUTHS),
        format_func=TRUTHS.__getitem__,
        key=TRUTH,
        bind="query-params",
        help=(
            "Which cells are scored, by where their label came from. A mutant transcript proves "
            "that a cell is malignant; it does not prove its type."
        ),
    )
    scope = scope.with_(
        configurations=tuple(chosen),
        timepoints=tuple(_ordered(timepoints, TIMEPOINTS)),
        truth=truth,
    )
    source = Source(names[dataset_id], simulated[dataset_id], label_level, protocol, truth)
    remember(scope, source, labels, defaults, models.configuration[models.is_complete.astype(bool)])
    return scope


def remember(
    scope: Scope,
    source: Source,
    models: Mapping[str, str],
    defaults: Iterable[str],
    complete: Iterable[str],
) -> None:
    """Keep what the pages of this session read.

    Parameters
    ----------
    models
        Configuration → label of all models of the scope.
    defaults
        Those that are shown when the user chose none.
    complete
        Those that have all folds, so that a page about one model opens on one with scores.
    """
    st.session_state[_SCOPE] = scope
    st.session_state[_SOURCE] = source
    st.session_state[_MODELS] = dict(models)
    st.session_state[_DEFAULTS] = list(defaults)
    st.session_state[_COMPLETE] = list(complete)


def current_scope() -> Scope:
    """Return the scope of the sidebar."""
    return st.session_state[_SCOPE]


def current_source() -> Source:
    """Return what exports and captions say about the scope."""
    return st.session_state[_SOURCE]


def current_models() -> dict[str, str]:
    """Return configuration → display name of the models in scope."""
    wanted = current_scope().configurations or st.session_state[_DEFAULTS]
    return {k: name for k, name in st.session_state[_MODELS].items() if k in wanted}


def query_of(scope: Scope, **extra: str | Sequence[str] | None) -> dict[str, str | list[str]]:
    """Return the URL parameters that lead to `scope`; `extra` adds page-local ones."""
    labels = st.session_state[_MODELS]
    query: dict[str, str | list[str]] = {
        DATASET: current_source().dataset,
        LABEL_LEVEL: scope.label_level,
        PROTOCOL: scope.protocol,
        BUDGET: scope.budget,
        MODEL: [labels[c] for c in scope.configurations if c in labels],
        TIMEPOINT: list(scope.timepoints),
        TRUTH: TRUTHS[scope.truth],
    }
    query |= {k: v if isinstance(v, str) else list(v) for k, v in extra.items() if v is not None}
    return {key: value for key, value in query.items() if value}


def choose_model(
    models: Mapping[str, str], *, key: str = CONFIGURATION, label: str = "Model"
) -> str:
    """Draw the choice of one model, first one with all folds; return its configuration."""
    keys = list(models)
    complete = st.session_state[_COMPLETE]
    return st.selectbox(
        label,
        keys,
        index=next((i for i, key in enumerate(keys) if key in complete), 0),
        format_func=models.__getitem__,
        key=key,
        bind="query-params",
    )


def course(scored: Iterable[str]) -> list[str]:
    """Return the timepoints to draw: the whole course, or those that the user chose."""
    found = set(scored)
    if not current_scope().timepoints and found & set(TIMEPOINTS):
        found |= set(TIMEPOINTS)
    return _ordered(found, TIMEPOINTS)
