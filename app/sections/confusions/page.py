"""The parts of the Confusions page: its choices, pictures, and the cells that they select."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import streamlit as st

from app import cache
from app.components import errors, figure, tables
from app.components.heatmap import FEW_DONORS
from app.components.selection_links import cells_of_selection, drop_link, opened
from app.components.selection_panel import selection_panel
from app.sections.confusions.charts import (
    MOST_TYPES,
    Numbers,
    agreement_grid,
    matrix,
    meant_by,
    ordered_types,
)
from app.sections.confusions.flow import flow, flow_words
from app.state import CELL_TYPE, choose_one
from backend.evaluation.cells.selection import SavedSelection, scope_json
from backend.evaluation.outcomes import CORRECT, WRONG
from backend.evaluation.views import AGREEMENTS
from backend.evaluation.wording import plain, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.evaluation.views import Confusions
    from backend.types import Scope

__all__ = [
    "FLOWS",
    "MODEL_WIDTH",
    "PREDICTED",
    "WIDTH",
    "choose_beside",
    "choose_cells",
    "choose_flow",
    "choose_numbers",
    "choose_order",
    "disagreement",
    "pictures",
    "selected",
    "tables_of",
]

PREDICTED: Final = "predicted"
_BESIDE: Final = "beside"
_KIND: Final = "kind"
_AGREEMENT: Final = "models_are"
_OF: Final = "of"
_MOST_BESIDE: Final = 16
"""Types up to which two pictures have room beside each other."""

FLOWS: Final = ("mistakes", "all cells")
WIDTH: Final = 200
MODEL_WIDTH: Final = 226
"""Of a choice of models, whose names are longer: a cut one may be two."""
_NONE: Final = "none"

_AGREEMENT_PREDICATES: Final = dict(
    zip(
        AGREEMENTS,
        (
            {"outcome": [CORRECT], "other_outcome": [CORRECT]},
            {"outcome": [CORRECT], "other_outcome": list(WRONG)},
            {"outcome": list(WRONG), "other_outcome": [CORRECT]},
            {"outcome": list(WRONG), "other_outcome": list(WRONG), "agreement": ["same"]},
            {"outcome": list(WRONG), "other_outcome": list(WRONG), "agreement": ["different"]},
        ),
        strict=True,
    )
)


def choose_beside(models: Mapping[str, str], configuration: str) -> str | None:
    """Draw the choice of a second model; None: no second one."""
    others = {_NONE: "No other model"} | {k: v for k, v in models.items() if k != configuration}
    chosen = st.selectbox(
        "Beside it",
        list(others),
        format_func=others.__getitem__,
        key=_BESIDE,
        bind="query-params",
        width=MODEL_WIDTH,
    )
    return None if chosen == _NONE else chosen


def choose_numbers() -> str:
    """Draw the choice of what the matrix shows."""
    keys = {title: key for key, title in Numbers.items()}
    return keys[choose_one("Numbers", list(keys), "numbers")]


def choose_flow() -> str:
    """Draw the choice of the cells that the flow shows."""
    return choose_one("Flow of", FLOWS, "flow")


def choose_order() -> str:
    """Draw the choice of the order of types."""
    return choose_one("Order of types", ("size", "lineage"), "order")


def _types_of(views: Sequence[Confusions], order: str) -> list[str]:
    """Return the types of all views in one order."""
    return list(dict.fromkeys(name for view in views for name in ordered_types(view, order)))


def _outlined(chosen: SavedSelection | None) -> dict[str, dict[str, Sequence[str]]]:
    """Return per model which labels and predictions are chosen."""
    if chosen is None or chosen.predicate is None:
        return {}
    asked = {key: list(chosen.predicate.get(key, ())) for key in ("label", "predicted")}
    return {str(chosen.scope["configuration"]): asked}


def _pick(point: Mapping[str, Any], *, view: Confusions, types: Sequence[str]) -> None:
    """Select the cells of a clicked cell or ribbon."""
    drop_link()
    st.session_state[CELL_TYPE] = meant_by(view, types, point["label"])
    st.session_state[PREDICTED] = meant_by(view, types, point["predicted"])
    st.session_state[_KIND] = []
    st.session_state[_AGREEMENT] = _NONE
    st.session_state[_OF] = view.configuration


def _pick_agreement(point: Mapping[str, Any]) -> None:
    drop_link()
    st.session_state[CELL_TYPE] = [point["cell_type"]]
    st.session_state[PREDICTED] = []
    st.session_state[_KIND] = []
    st.session_state[_AGREEMENT] = point["agreement"]


def pictures(
    views: Sequence[Confusions], chosen: SavedSelection | None, *, numbers: str, order: str, of: str
) -> None:
    """Draw matrix and flow of each model, two models side by side in the same order.

    Parameters
    ----------
    chosen
        What is selected, to be outlined.
    numbers, order, of
        What the matrix shows, the order of types, and of which cells the flow is.
    """
    types = _types_of(views, order)
    mistakes = of == FLOWS[0]
    picked = _outlined(chosen)
    drawn = [
        [
            partial(_matrix, view, types, numbers, picked.get(view.configuration, {})),
            partial(_flow, view, types, picked.get(view.configuration, {}), mistakes=mistakes),
        ]
        for view in views
    ]
    # One model: its two pictures beside each other. Two models: the same picture of both.
    rows = drawn if len(drawn) == 1 else [list(row) for row in zip(*drawn, strict=True)]
    is_wide = len(types) > _MOST_BESIDE
    width: int | Literal["stretch"] = 530 if len(drawn) == 1 else 455
    for row in rows:
        with st.container(horizontal=not is_wide, gap="small"):
            for draw in row:
                with st.container(width="stretch" if is_wide else width):
                    draw()
                width = width if len(drawn) == 2 else "stretch"
    words = [flow_words(view, types, mistakes=mistakes) for view in views]
    unable = any((view.labels.n_folds_able == 0).any() for view in views)
    absent = any(view.predictions.is_absent.any() for view in views)
    folded = f" Types beyond the {MOST_TYPES - 1} largest are one row." * (len(types) > MOST_TYPES)
    st.caption(
        "A click on a cell or ribbon selects its cells. Colour: kind of error; strength: how many. "
        f"Grey rows: fewer than 20 cells. {FEW_DONORS}: one or two donors."
        + " ⊘: the model cannot output this type." * unable
        + " ∅: predicted, but no cell here is labelled so." * absent
        + folded
        + f" {words[0]}" * (len(views) == 1)
    )


def _matrix(
    view: Confusions, types: Sequence[str], numbers: str, picked: Mapping[str, Sequence[str]]
) -> None:
    largest = view.cells.head(1)
    figure.draw(
        partial(matrix, view, types=types, numbers=numbers, picked=picked),
        name=f"confusion-matrix-{view.configuration}",
        title=f"Label against prediction, {view.display_name}",
        alt_text=f"Matrix of labels (rows) against predictions (columns) of {view.display_name} over "
        f"{view.n_cells:,} cells of {plural(view.n_donors, 'donor')}; most cells: "
        f"{largest.label.iloc[0]} called {largest.predicted.iloc[0]}. The table below says the same.",
        select=("label", "predicted"),
        on_pick=partial(_pick, view=view, types=types),
    )


def _flow(
    view: Confusions,
    types: Sequence[str],
    picked: Mapping[str, Sequence[str]],
    *,
    mistakes: bool,
) -> None:
    if mistakes and view.n_wrong == 0:
        st.markdown(f"##### From label to prediction, {plain(view.display_name)}")
        st.markdown("Every labelled cell is called rightly, so there is no mistake to draw.")
        return
    figure.draw(
        partial(flow, view, types=types, mistakes=mistakes, picked=picked),
        name=f"confusion-flow-{view.configuration}",
        title=f"From label to prediction, {view.display_name}",
        alt_text=f"Flow of {'wrong' if mistakes else 'all'} cells of {view.display_name} from label "
        "(left) to prediction (right), a ribbon for each pair, coloured by kind of error. "
        "The table below says the same.",
        select=("label", "predicted"),
        on_pick=partial(_pick, view=view, types=types),
    )


def disagreement(
    scope: Scope, models: Mapping[str, str], first: str, second: str, order: str
) -> None:
    """Show on which cells two models are right, by type."""
    with errors.shown_to_user():
        found = cache.disagreement(scope, first, second)
        view = cache.confusions(scope, first)
    st.markdown("##### Where the two models disagree")
    st.markdown(found.sentence)
    if not found.n_cells:
        return
    names = _agreement_names(models[first], models[second])
    agreement = st.session_state.get(_AGREEMENT)
    picked = {"agreement": [agreement] if agreement in AGREEMENTS else []}
    if types := st.session_state.get(CELL_TYPE):
        picked["cell_type"] = types
    figure.draw(
        partial(
            agreement_grid, found, names=names, order=ordered_types(view, order), picked=picked
        ),
        name=f"disagreement-{first}-{second}",
        title=f"Right and wrong, {models[first]} and {models[second]}",
        alt_text="Table of cells by type and by which of the two models is right; the table below "
        "says the same.",
        select=("cell_type", "agreement"),
        on_pick=_pick_agreement,
    )
    st.caption("Strength: share of the type's cells. A click selects the cells.")
    tables.show(
        found.types,
        name="disagreement",
        alt_text="Cells by type and by which of the two models is right",
        columns=("cell_type", "agreement", "n_cells", "n_donors", "row_share", "is_small"),
        labels={"agreement": f"first: {models[first]}, second: {models[second]}"},
        folded="The same numbers as a table",
    )


def _agreement_names(first: str, second: str) -> dict[str, str]:
    texts = (
        "Both right", f"Only {first}", f"Only {second}", "Both wrong, same type",
        "Both wrong, other types",
    )  # fmt: skip
    return dict(zip(AGREEMENTS, texts, strict=True))


def choose_cells(
    scope: Scope, views: Sequence[Confusions], models: Mapping[str, str], order: str
) -> SavedSelection | None:
    """Draw the choice of cells by label, prediction and kind; None when nothing is chosen.

    A click on a picture sets the same choices, so they can be used without a mouse.
    """
    st.markdown("##### Choose cells")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        types = _types_of(views, order)
        labels = _choose("Labelled as", types, CELL_TYPE)
        predicted = _choose("Predicted as", types, PREDICTED)
        kinds = _choose("Kind of error", views[0].kinds.kind.tolist(), _KIND)
        agreement, of, against = _NONE, views[0].configuration, None
        if len(views) == 2:
            names = {v.configuration: models[v.configuration] for v in views}
            agreement = _choose_one_of(
                "The two models", {_NONE: "Any"} | _agreement_names(*names.values()), _AGREEMENT
            )
            if agreement == _NONE:
                of = _choose_one_of("Predictions of", names, _OF)
            else:
                against = views[1].configuration
    given = {"label": labels, "predicted": predicted, "error_kind": kinds}
    predicate = {key: values for key, values in given.items() if values}
    predicate |= _AGREEMENT_PREDICATES.get(agreement, {})
    if not predicate:
        return None
    return SavedSelection(
        kind="predicate",
        predicate=predicate,
        scope=scope_json(scope, configuration=of, against=against),
    )


def _choose(label: str, options: Sequence[str], key: str) -> list[str]:
    return st.multiselect(
        label,
        options,
        key=key,
        bind="query-params",
        placeholder="All",
        width=WIDTH,
        on_change=drop_link,
    )


def _choose_one_of(label: str, names: Mapping[str, str], key: str) -> str:
    return st.selectbox(
        label,
        list(names),
        format_func=names.__getitem__,
        key=key,
        bind="query-params",
        width=WIDTH,
        on_change=drop_link,
    )


def selected(scope: Scope, chosen: SavedSelection | None, configuration: str) -> None:
    """Show the cells that the address or the choices name."""
    linked = opened()
    selection = linked or chosen
    if selection is None:
        st.markdown("No cells are chosen. Click a cell of the matrix or a ribbon, or choose above.")
        return
    with errors.shown_to_user():
        cells = cells_of_selection(selection, configuration)
    if linked is not None:
        st.button("Close this selection", key="selection.close", on_click=drop_link)
    shown = str(selection.scope.get("configuration", configuration))
    selection_panel(
        scope,
        cells,
        title=selection.name or selection.describe(),
        selection=selection,
        configuration=shown,
        page="confusions",
    )


def tables_of(views: Sequence[Confusions]) -> None:
    """Show kinds of error, pairs and types of each model as tables."""
    for view in views:
        name = plain(view.display_name)
        st.markdown(f"##### Kinds of error, {name}")
        tables.show(
            view.kinds,
            name=f"kinds-{view.configuration}",
            alt_text=f"Cells by kind of error of {view.display_name}, with donors",
            columns=("kind", "n_cells", "n_donors", "share", "share_of_wrong"),
            labels={"kind": "Kind"},
        )
        tables.show(
            view.cells,
            name=f"confusions-{view.configuration}",
            alt_text=f"Labels against predictions of {view.display_name}, largest first",
            columns=(
                "label", "predicted", "n_cells", "n_donors", "row_share", "column_share", "kind",
                "is_small",
            ),
            labels={"kind": "Kind"},
            folded=f"Every pair of {name}: the same numbers as the pictures",
        )  # fmt: skip
        tables.show(
            view.labels,
            name=f"labels-{view.configuration}",
            alt_text=f"Labels with the cells that {view.display_name} calls rightly",
            columns=("cell_type", "n_cells", "n_donors", "n_right", "is_small", "note"),
            labels={"note": "Note"},
            folded=f"Labels and what {name} can output",
        )
