"""The scope that all pages share, between sidebar, URL and session.

The keys of the shared filters are the public names of URL parameters; treat them as an
interface. Session state holds only the chosen words and ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import streamlit as st

from app import address
from app.identity import identity
from backend.evaluation.metrics import DEFAULT, METRICS
from backend.protocols import EXTERNAL, PROTOCOLS, protocol_text
from backend.types import LABEL_LEVELS, TIMEPOINTS, TRUTHS, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pandas as pd

    from backend.evaluation.metrics import Metric

__all__ = [
    "BY",
    "CELL_TYPE",
    "CONFIGURATION",
    "DATASET",
    "LABEL_LEVEL",
    "METRIC",
    "MODEL",
    "REFERENCE",
    "TIMEPOINT",
    "Source",
    "choose_metric",
    "choose_model",
    "choose_one",
    "course",
    "current_metric",
    "current_models",
    "current_scope",
    "current_source",
    "go",
    "pop_target",
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
METRIC: Final = "metric"
CONFIGURATION: Final = "show"
"""The one model that a page about cells or donors shows."""
REFERENCE: Final = "against"
"""The model that others are compared with."""
CELL_TYPE: Final = "cell_type"

BY: Final = "by"
"""What the columns of the Cell types page are: models or timepoints."""

_SCOPE: Final = "faultline.scope"
_MODELS: Final = "faultline.models"
_COMPLETE: Final = "faultline.complete_models"
_BASELINES: Final = "faultline.baselines"
_CHOSEN: Final = "faultline.chosen_model"
_DEFAULTS: Final = "faultline.default_models"
_TARGET: Final = "faultline.target"
_SOURCE: Final = "faultline.source"
_METRIC: Final = "faultline.metric"

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
    is_upload: bool = False
    dataset_id: str = ""
    budget: str = ""

    @property
    def kind(self) -> str:
        """What files say of the data."""
        return "SIMULATED" if self.simulated else "uploaded" if self.is_upload else "real"

    @property
    def line(self) -> str:
        """One line for captions and pictures."""
        kind = "SIMULATED DATA, not a finding" if self.simulated else f"{self.kind} data"
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
        address.check_listed(key, options, label.lower())
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


def _choose_kept(
    label: str,
    options: Sequence[str],
    key: str,
    *,
    default: str | None = None,
    help_text: str,
) -> str:
    """Draw a choice of one that the address always holds."""
    first = default if default in options else options[0]
    address.ask(key, {name: name for name in options}, first, label.lower())
    chosen = first
    if len(options) > 1:
        chosen = st.segmented_control(label, options, required=True, key=key, help=help_text)
    address.write(key, chosen)
    return chosen


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


def sidebar_scope(
    choices: pd.DataFrame,
    models_of: Callable[[Scope], pd.DataFrame],
    timepoints_of: Callable[[Scope], Sequence[str]],
) -> Scope:
    """Draw the shared filters and return the scope they describe.

    Parameters
    ----------
    choices
        Combinations that have results: dataset_id, name, simulated, is_upload, label_level, protocol,
        budget, made_at.
    models_of, timepoints_of
        What a scope offers to narrow it.
    """
    names = _dataset_names(choices)
    simulated = dict(zip(choices.dataset_id, choices.simulated.astype(bool), strict=True))
    st.subheader("Filters", anchor=False)
    titles = dict(zip(choices.dataset_id, choices.name, strict=True))
    titles = {key: titles[key] for key in names}
    address.ask(DATASET, titles, next(iter(names)), "dataset")
    dataset_id = st.selectbox(
        "Dataset",
        list(names),
        format_func=names.__getitem__,
        key=DATASET,
        help="Simulated datasets are for a tour and for tests; they are never a finding.",
    )
    address.write(DATASET, dataset_id)
    rows = choices[choices.dataset_id == dataset_id]
    label_level = _choose_kept(
        "Label level",
        _ordered(rows.label_level, LABEL_LEVELS[::-1]),
        LABEL_LEVEL,
        help_text=_listed(_LEVEL_WORDS),
    )
    rows = rows[rows.label_level == label_level]
    protocol = _choose_kept(
        "Protocol",
        _ordered(rows.protocol, list(PROTOCOLS)),
        PROTOCOL,
        default="donor",
        help_text=_listed({key: protocol_text(key) for key in (*PROTOCOLS, EXTERNAL)}),
    )
    budgets = _ordered(rows[rows.protocol == protocol].budget, ("equal", "full"))
    budget = _choose_kept(
        "Training cells", budgets, BUDGET, help_text="How training cells were limited."
    )
    scope = Scope(
        dataset_id=dataset_id,
        owner=identity().owner,
        label_level=label_level,
        protocol=protocol,
        budget=budget,
    )
    models = models_of(scope)
    defaults = models.configuration[models.is_default.astype(bool)].tolist()
    labels = _unique_labels(dict(zip(models.configuration, models.display_name, strict=True)))
    address.check_listed(MODEL, labels.values(), "model")
    chosen = st.multiselect(
        "Models",
        list(labels),
        format_func=labels.__getitem__,
        key=MODEL,
        bind="query-params",
        placeholder="All models",
    )
    found = _ordered(timepoints_of(scope), TIMEPOINTS)
    address.check_listed(TIMEPOINT, found, "timepoint")
    timepoints = st.multiselect(
        "Timepoints",
        found,
        key=TIMEPOINT,
        bind="query-params",
        placeholder="All timepoints",
    )
    address.check_listed(TRUTH, TRUTHS.values(), "truth")
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
    is_upload = bool(rows["is_upload"].any())
    source = Source(
        titles[dataset_id],
        simulated[dataset_id],
        label_level,
        protocol,
        truth,
        is_upload,
        dataset_id,
        budget,
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


def remember(
    scope: Scope,
    source: Source,
    models: Mapping[str, str],
    defaults: Iterable[str],
    *,
    complete: Iterable[str],
    baselines: Iterable[str] = (),
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
    baselines
        Those that are no foundation models; a page about one model opens on a foundation model.
    """
    st.session_state[_SCOPE] = scope
    st.session_state[_SOURCE] = source
    st.session_state[_MODELS] = dict(models)
    st.session_state[_DEFAULTS] = list(defaults)
    st.session_state[_COMPLETE] = list(complete)
    st.session_state[_BASELINES] = list(baselines)


def choose_metric(*, is_used: bool) -> Metric:
    """Draw the choice of the metric; greyed on a page whose scores are of another kind."""
    title_of = {key: metric.title for key, metric in METRICS.items()}
    meanings = _listed({metric.title: metric.text for metric in METRICS.values()})
    key = st.selectbox(
        "Metric",
        list(title_of),
        format_func=title_of.__getitem__,
        key=METRIC,
        bind="query-params",
        disabled=not is_used,
        help=f"Of scores over several types; a single type is always scored by its F1.\n{meanings}",
    )
    st.session_state[_METRIC] = key
    return METRICS[key]


def current_metric() -> Metric:
    """Return the metric of the sidebar."""
    return METRICS[st.session_state.get(_METRIC, DEFAULT)]


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


def go(page: str, **filters: str | Sequence[str]) -> None:
    """Ask for another page with some filters set; only for callbacks.

    A parameter that is bound to a widget can only be set through the widget's state, and that
    only before the widget is drawn. One whose widget was never drawn can only be put into the
    URL by hand. Hence both.

    Parameters
    ----------
    page
        Key of the page, see `app.nav`.
    filters
        URL name → value or values, as the widget's options name them.
    """
    models = st.session_state[_MODELS]
    fresh = {}
    for key, value in filters.items():
        if key not in st.session_state:
            fresh[key] = models.get(value, value) if isinstance(value, str) else list(value)
        st.session_state[key] = value if isinstance(value, str) else list(value)
    st.session_state[_TARGET] = (page, fresh)


def pop_target() -> tuple[str, dict[str, str | list[str]]] | None:
    """Return the page that a callback asked for and its new URL parameters, once."""
    return st.session_state.pop(_TARGET, None)


def choose_model(
    models: Mapping[str, str],
    *,
    key: str = CONFIGURATION,
    label: str = "Model",
    width: int | Literal["stretch"] = "stretch",
) -> str:
    """Draw the choice of one model and return its configuration.

    The model that a page shows is kept over pages. Without a choice it is the first foundation
    model with all folds, by name; never the best one on these cells.
    """
    complete, baselines = st.session_state[_COMPLETE], st.session_state[_BASELINES]
    # The first option is the default, and a default is not written into the URL.
    keys = sorted(models, key=lambda name: (name not in complete, name in baselines))
    if key == CONFIGURATION and key not in st.session_state and key not in st.query_params:
        kept = _model_of(st.session_state.get(_CHOSEN, ""))
        same = next((name for name in keys if _model_of(name) == kept), None)
        if same is not None:
            st.session_state[key] = same
    address.check_listed(key, models.values(), "model")
    address.say_what_is_not_here()
    chosen = st.selectbox(
        label,
        keys,
        format_func=models.__getitem__,
        key=key,
        bind="query-params",
        width=width,
    )
    if key == CONFIGURATION:
        st.session_state[_CHOSEN] = chosen
    return chosen


def _model_of(configuration: str) -> str:
    """Return a configuration without the label level or the folds that a scope adds to its key."""
    return configuration.partition("@")[0]


def course(scored: Iterable[str]) -> list[str]:
    """Return the timepoints to draw: the whole course, or those that the user chose."""
    found = set(scored)
    if not current_scope().timepoints and found & set(TIMEPOINTS):
        found |= set(TIMEPOINTS)
    return _ordered(found, TIMEPOINTS)
