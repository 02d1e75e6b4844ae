"""The scope that all pages share, between sidebar, URL and session.

The keys of the shared filters are the public names of URL parameters; treat them as an
interface. Session state holds only the chosen words and ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import streamlit as st

from app import address
from backend.evaluation.metrics import DEFAULT, METRICS
from backend.evaluation.wording import budget_text, level_text
from backend.protocols import protocol_label, tested_on
from backend.types import TIMEPOINTS, TRUTHS, Scope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from backend.evaluation.metrics import Metric

__all__ = [
    "BUDGET",
    "BY",
    "CELL_TYPE",
    "CONFIGURATION",
    "DATASET",
    "LABEL_LEVEL",
    "METRIC",
    "MODEL",
    "PROTOCOL",
    "REFERENCE",
    "TIMEPOINT",
    "TRUTH",
    "Source",
    "choose_model",
    "choose_one",
    "course",
    "current_metric",
    "current_models",
    "current_scope",
    "current_source",
    "go",
    "models_in_order",
    "ordered",
    "pop_target",
    "remember",
    "remember_metric",
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
    is_scored: bool = True
    """Whether any of its cells has a score; uploads without labels have none."""

    @property
    def kind(self) -> str:
        """What files say of the data."""
        return "SIMULATED" if self.simulated else "uploaded" if self.is_upload else "real"

    @property
    def line(self) -> str:
        """One line for captions and pictures."""
        kind = "SIMULATED DATA, not a finding" if self.simulated else f"{self.kind} data"
        return (
            f"{self.dataset} ({kind}); labels {level_text(self.label_level)}; tested on "
            f"{tested_on(self.protocol)} ({protocol_label(self.protocol)}); "
            f"{'; '.join(text for text in (budget_text(self.budget), TRUTHS[self.truth].lower()) if text)}"
        )


def ordered(values: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return distinct values in a given order, those that it lacks by name at the end."""
    present = set(values)
    return [v for v in order if v in present] + sorted(present - set(order))


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


def remember_metric(key: str) -> None:
    """Keep the metric that the pages of this session show."""
    st.session_state[_METRIC] = key


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
    """Return configuration → display name of the models in scope.

    Foundation models come first, then baselines, each by name: the order of pictures and lists.
    """
    wanted = current_scope().configurations or st.session_state[_DEFAULTS]
    baselines = st.session_state[_BASELINES]
    shown = [(k, name) for k, name in st.session_state[_MODELS].items() if k in wanted]
    return dict(sorted(shown, key=lambda item: (item[0] in baselines, item[1].casefold())))


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


def models_in_order(
    models: Iterable[str], complete: Collection[str], baselines: Collection[str]
) -> list[str]:
    """Return configurations, those with all folds first, among them foundation models first."""
    return sorted(models, key=lambda name: (name not in complete, name in baselines))


def choose_model(
    models: Mapping[str, str],
    *,
    key: str = CONFIGURATION,
    label: str = "Model",
    width: int | Literal["stretch"] = "stretch",
) -> str:
    """Draw the choice of one model and return its configuration.

    The model that a page shows is kept over pages. Without a choice it is the first foundation
    model with all folds, by name; never the best one on these cells. The address always names it,
    because another model can be the first one later.
    """
    complete, baselines = st.session_state[_COMPLETE], st.session_state[_BASELINES]
    keys = models_in_order(models, complete, baselines)
    first = keys[0]
    if key == CONFIGURATION:
        kept = _model_of(st.session_state.get(_CHOSEN, ""))
        first = next((name for name in keys if _model_of(name) == kept), first)
    address.ask(key, {name: models[name] for name in keys}, first, "model")
    address.say_what_is_not_here()
    chosen = st.selectbox(label, keys, format_func=models.__getitem__, key=key, width=width)
    address.write(key, models[chosen])
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
    return ordered(found, TIMEPOINTS)
