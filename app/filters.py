"""The filters in the sidebar: those that change what a page shows, and only those.

A filter that a page does not draw keeps its value, so that it stands on the next page as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app import address
from app.identity import identity
from app.state import (
    BUDGET,
    DATASET,
    LABEL_LEVEL,
    METRIC,
    MODEL,
    PROTOCOL,
    TIMEPOINT,
    TRUTH,
    Source,
    ordered,
    remember,
    remember_metric,
)
from backend.evaluation.metrics import DEFAULT, METRICS
from backend.evaluation.wording import budget_meaning, budget_text, level_text
from backend.protocols import EXTERNAL, PROTOCOLS, protocol_label, protocol_text, tested_on
from backend.types import LABEL_LEVELS, TIMEPOINTS, TRUTHS, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import pandas as pd

__all__ = ["FILTERS", "narrowed", "reset", "sidebar_metric", "sidebar_scope"]

FILTERS: Final = (DATASET, LABEL_LEVEL, PROTOCOL, BUDGET, TRUTH, MODEL, TIMEPOINT)
"""In the order in which they are drawn: what is counted before what hides rows."""

_NARROWING: Final = {MODEL: [], TIMEPOINT: [], TRUTH: "all"}
"""Filters that leave out cells or models, with the value that leaves out none."""
_KEPT: Final = "faultline.filters"

_LEVEL_WORDS: Final = {
    "lineage": "malignant types counted with their normal counterpart",
    "fine": "as the authors gave them, malignant states apart",
}


def _unique_labels(names: Mapping[str, str]) -> dict[str, str]:
    """Return id → label; a name that occurs twice is followed by its id."""
    seen = list(names.values())
    return {k: name if seen.count(name) == 1 else f"{name} ({k})" for k, name in names.items()}


def _listed(words: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {meaning}" for name, meaning in words.items())


def _choose_kept(
    label: str,
    options: Sequence[str],
    key: str,
    *,
    default: str | None = None,
    word: str,
    help_text: str,
    text_of: Callable[[str], str],
    is_drawn: bool,
) -> str:
    """Draw a choice of one that the address always holds; a single option needs no widget."""
    first = default if default in options else options[0]
    address.ask(key, {name: name for name in options}, first, word)
    chosen: str = st.session_state[key]
    if len(options) > 1 and is_drawn:
        # A row of joined buttons breaks in two where it does not fit; single ones may wrap.
        draw = st.segmented_control if len(options) < 3 else st.pills
        drawn = draw(label, options, required=True, key=key, help=help_text, format_func=text_of)
        # A click into buttons that just gave way to others leaves none of them chosen.
        chosen = drawn if drawn in options else chosen
    address.write(key, chosen)
    return chosen


def _known(value: Any, texts: Mapping[str, str], default: Any) -> Any:
    """Return a value, or of several those, that are there to choose; else the default."""
    if isinstance(value, list):
        return [name for name in value if name in texts]
    return value if value in texts else default


def _recall(key: str, texts: Mapping[str, str], default: Any) -> None:
    """Give a widget back what it held before pages that did not draw it."""
    if key not in st.session_state and key not in st.query_params:
        value = _known(st.session_state.get(_KEPT, {}).get(key, default), texts, default)
        if value != default:
            st.session_state[key] = value


def _undrawn(key: str, texts: Mapping[str, str], default: Any) -> Any:
    """Return what a filter holds on a page without it: what was kept, or what a link asked for."""
    kept = st.session_state.setdefault(_KEPT, {})
    asked = st.query_params.get_all(key)
    if key not in kept and asked:
        found = [name for name, text in texts.items() if text in asked]
        kept[key] = found if isinstance(default, list) else (found or [default])[0]
    return _known(kept.get(key, default), texts, default)


def _keep(key: str, value: Any) -> Any:
    st.session_state.setdefault(_KEPT, {})[key] = value
    return value


def _choose_many(
    label: str, texts: Mapping[str, str], key: str, *, everything: str, is_drawn: bool
) -> list[str]:
    """Draw a choice of several; none means all."""
    if not is_drawn:
        return _undrawn(key, texts, [])
    _recall(key, texts, [])
    address.check_listed(key, texts.values(), label.lower().removesuffix("s"))
    return _keep(
        key,
        st.multiselect(
            label,
            list(texts),
            format_func=texts.__getitem__,
            key=key,
            bind="query-params",
            placeholder=everything,
        ),
    )


def _choose_from(
    label: str,
    texts: Mapping[str, str],
    key: str,
    *,
    default: str,
    help_text: str,
    is_drawn: bool,
) -> str:
    """Draw a choice of one of many whose default is not in the address."""
    if not is_drawn:
        return _undrawn(key, texts, default)
    _recall(key, texts, default)
    address.check_listed(key, texts.values(), label.lower())
    return _keep(
        key,
        st.selectbox(
            label,
            list(texts),
            format_func=texts.__getitem__,
            key=key,
            bind="query-params",
            help=help_text,
        ),
    )


def _dataset_names(choices: pd.DataFrame) -> dict[str, str]:
    """Return id to label: real data, then simulated ones, then uploads with their date."""
    order = ["is_upload", "simulated", "name"]
    datasets = choices.drop_duplicates("dataset_id").sort_values(order)
    return _unique_labels(
        {
            row.dataset_id: f"{row.name} (uploaded {row.made_at[:10]})"
            if row.is_upload
            else row.name
            for row in datasets.itertuples(name="Dataset")
        }
    )


def _is_scored(rows: pd.DataFrame, n_scored_of: Callable[[Scope], int]) -> bool:
    """Say whether any cell of a dataset is scored; only an upload can have none."""
    if not rows["is_upload"].any():
        return True
    owner = identity().owner
    return any(
        n_scored_of(
            Scope(
                dataset_id=row.dataset_id,
                owner=owner,
                label_level=row.label_level,
                protocol=row.protocol,
                budget=row.budget,
            )
        )
        for row in rows.drop_duplicates(["protocol", "budget"]).itertuples()
    )


def sidebar_scope(
    choices: pd.DataFrame,
    models_of: Callable[[Scope], pd.DataFrame],
    timepoints_of: Callable[[Scope], Sequence[str]],
    n_scored_of: Callable[[Scope], int],
    *,
    drawn: Collection[str] = FILTERS,
    needs_labels: bool = True,
) -> Scope:
    """Draw the shared filters and return the scope they describe.

    Parameters
    ----------
    choices
        Combinations that have results: dataset_id, name, simulated, is_upload, label_level, protocol,
        budget, made_at.
    models_of, timepoints_of
        What a scope offers to narrow it.
    n_scored_of
        How many cells of a scope are scored; asked of uploads only.
    drawn
        Those of `FILTERS` that change what the page shows; the others keep their values.
    needs_labels
        Whether the page has nothing to show of cells without a label.
    """
    names = _dataset_names(choices)
    simulated = dict(zip(choices.dataset_id, choices.simulated.astype(bool), strict=True))
    titles = dict(zip(choices.dataset_id, choices.name, strict=True))
    titles = {key: titles[key] for key in names}
    if drawn:
        st.subheader("Filters", anchor=False)
    address.ask(DATASET, titles, next(iter(names)), "dataset")
    if DATASET in drawn:
        dataset_id = st.selectbox(
            "Dataset",
            list(names),
            format_func=names.__getitem__,
            key=DATASET,
            help="Simulated datasets are for a tour and for tests; they are never a finding.",
        )
    else:
        dataset_id = st.session_state[DATASET]
    address.write(DATASET, dataset_id)
    rows = choices[choices.dataset_id == dataset_id]
    is_scored = _is_scored(rows, n_scored_of)
    if not is_scored:
        # Nothing is counted, so what is counted is no choice; the map names cells at either level.
        drawn = set(drawn) - ({TRUTH, LABEL_LEVEL} if needs_labels else {TRUTH})
    label_level = _choose_kept(
        "Labels" if is_scored else "Types",
        ordered(rows.label_level, LABEL_LEVELS[::-1]),
        LABEL_LEVEL,
        word="label level",
        help_text=_listed(
            {f"{level_text(key)} (level `{key}`)": text for key, text in _LEVEL_WORDS.items()}
        ),
        text_of=level_text,
        is_drawn=LABEL_LEVEL in drawn,
    )
    rows = rows[rows.label_level == label_level]
    protocol = _choose_kept(
        "Tested on",
        ordered(rows.protocol, list(PROTOCOLS)),
        PROTOCOL,
        default="donor",
        word="protocol",
        help_text="Whose cells the models are tested on, the protocol:\n"
        + _listed(
            {
                f"{tested_on(key)} (`{key}`, {protocol_label(key)})": protocol_text(key)
                for key in (*PROTOCOLS, EXTERNAL)
            }
        ),
        text_of=tested_on,
        is_drawn=PROTOCOL in drawn,
    )
    budgets = ordered(rows[rows.protocol == protocol].budget, ("equal", "full"))
    budget = _choose_kept(
        "Training size",
        budgets,
        BUDGET,
        word="training size",
        help_text="How many cells the models were trained on, the budget:\n"
        + _listed({f"{budget_text(key)} (`{key}`)": budget_meaning(key) for key in budgets}),
        text_of=budget_text,
        is_drawn=BUDGET in drawn,
    )
    scope = Scope(
        dataset_id=dataset_id,
        owner=identity().owner,
        label_level=label_level,
        protocol=protocol,
        budget=budget,
    )
    truth = _choose_from(
        "Labels counted",
        TRUTHS,
        TRUTH,
        default="all",
        help_text=(
            "The truth: which cells are scored, by where their label came from. A mutant transcript "
            "proves that a cell is malignant; it does not prove its type."
        ),
        is_drawn=TRUTH in drawn,
    )
    models = models_of(scope)
    defaults = models.configuration[models.is_default.astype(bool)].tolist()
    labels = _unique_labels(dict(zip(models.configuration, models.display_name, strict=True)))
    chosen = _choose_many("Models", labels, MODEL, everything="All models", is_drawn=MODEL in drawn)
    found = {name: name for name in ordered(timepoints_of(scope), TIMEPOINTS)}
    timepoints = _choose_many(
        "Timepoints", found, TIMEPOINT, everything="All timepoints", is_drawn=TIMEPOINT in drawn
    )
    scope = scope.with_(
        configurations=tuple(chosen),
        timepoints=tuple(ordered(timepoints, TIMEPOINTS)),
        truth=truth,
    )
    source = Source(
        titles[dataset_id],
        simulated[dataset_id],
        label_level,
        protocol,
        truth,
        bool(rows["is_upload"].any()),
        dataset_id,
        # How many cells another dataset's model was trained on stands with that model.
        "" if protocol == EXTERNAL else budget,
        is_scored,
    )
    remember(
        scope,
        source,
        labels,
        defaults,
        complete=models.configuration[models.is_complete.astype(bool)],
        baselines=models.configuration[models.is_baseline.astype(bool)],
    )
    return scope


def sidebar_metric(*, is_drawn: bool) -> None:
    """Draw the choice of the metric, on pages whose scores are of it."""
    meanings = _listed({metric.title: metric.text for metric in METRICS.values()})
    remember_metric(
        _choose_from(
            "Metric",
            {key: metric.title for key, metric in METRICS.items()},
            METRIC,
            default=DEFAULT,
            help_text="Of scores over several types; a single type is always scored by its F1.\n"
            + meanings,
            is_drawn=is_drawn,
        )
    )


def narrowed(scope: Scope, models: Mapping[str, str]) -> list[str]:
    """Return in words what the filters leave out of a scope.

    Parameters
    ----------
    models
        Configuration to display name.
    """
    words: list[Iterable[str]] = [
        [models.get(name, name) for name in scope.configurations],
        scope.timepoints,
        [] if scope.truth == "all" else [TRUTHS[scope.truth].lower()],
    ]
    return [", ".join(part) for part in words if part]


def reset() -> None:
    """Take back what the filters leave out; for callbacks."""
    for key, value in _NARROWING.items():
        st.session_state[key] = value
        st.session_state.setdefault(_KEPT, {})[key] = value
