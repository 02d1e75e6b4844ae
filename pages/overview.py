"""Overview: where do the models break on this data?"""

from functools import partial

import streamlit as st

from app import cache, nav
from app.components import errors, figure, frames, heatmap, provenance, tables
from app.components.averages_table import averages_table
from app.components.convergence import convergence_badges
from app.sections.overview.charts import score_dots
from app.sections.overview.words import (
    dots_words,
    landing_sentence,
    model_order,
    standing_out,
)
from app.state import (
    CELL_TYPE,
    CONFIGURATION,
    MODEL,
    TIMEPOINT,
    choose_model,
    current_metric,
    current_models,
    current_scope,
    go,
)
from backend.evaluation.wording import plain, plural

scope = current_scope()
models = current_models()
metric = current_metric()
with errors.shown_to_user():
    view = cache.overview(scope, metric.key)
    averages = cache.averages(scope)
    blasts = cache.blasts(scope)

if view.scores.empty:
    st.info(
        "No scored cells for this choice. Widen the timepoints, the models or the labels counted."
    )
    st.stop()

timepoints = frames.in_order(view.scores.timepoint, "timepoint")
st.markdown(f"**{landing_sentence(len(models), view.provenance, timepoints, view.missing)}**")
facts = standing_out(averages, blasts, view.missing, is_normal_only=view.panel.is_normal_only)
for column, (heading, text) in zip(st.columns(max(len(facts), 1)), facts, strict=False):
    column.markdown(f"**{heading}**  \n{text}")
provenance.described(view.kind, view.provenance.n_donors)
names = model_order(averages, list(view.scores.display_name))
figure.draw(
    partial(score_dots, view.scores, averages, models=names),
    name=f"{metric.key}-overview",
    title=f"{metric.title} by model and timepoint, and the type that each average hides",
    alt_text=f"Dot plot of {metric.label} from {metric.range[0]:g} to {metric.range[1]:g}, a row "
    "per model, foundation models first, and a dot per timepoint, with 95 % intervals over donors; "
    "at the right end the share of cells called right and the worst type with its F1.",
    select=("configuration", "timepoint"),
    on_pick=lambda dot: go("timepoints", **{MODEL: [dot["configuration"]]}),
)
st.caption(dots_words(view.scores, view.provenance.caption))
convergence_badges(view.scores)
provenance.types_note(view, metric, view.provenance.n_donors)
if absent := cache.absent_models(scope):
    st.caption(
        f"Not fitted with these labels, this test and training size: {plain(', '.join(absent))}."
    )

configuration = choose_model(models)
by_type = cache.f1_by_cell_type(scope, by="timepoint", configuration=configuration).scores
if by_type.f1.notna().any():
    answer = st.container()
    every_type = frames.readable_first(by_type)
    lost_first = every_type[: heatmap.MOST_COLUMNS]
    points = figure.draw(
        partial(
            heatmap.heatmap, by_type[by_type.cell_type.isin(lost_first)], row="column",
            column="cell_type", rows=timepoints, columns=lost_first, row_title="Timepoint",
            column_title="Cell type",
        ),
        name="f1-by-type",
        title=f"Which types {models[configuration]} loses, lost ones first: {len(lost_first)} of "
        f"{plural(len(every_type), 'type')}",
        alt_text="Heatmap of F1 from 0 to 1, a row per timepoint and a column per cell type, the "
        "worst type first. Every cell shows F1, then cells and donors.",
        select=("column", "cell_type"),
    )  # fmt: skip
    st.caption(
        "In each cell, with room: F1, then labelled cells / donors. Grey: fewer than 20 cells; types "
        "that are grey everywhere come last. "
        f"{heatmap.FEW_DONORS}: one or two donors. {heatmap.ONE_DONOR}: most cells are one donor's."
    )
    if points:
        answer.button(
            f"See the {plain(points[0]['cell_type'])} cells at {plain(points[0]['column'])}",
            key="overview.see",
            icon=":material/scatter_plot:",
            on_click=go,
            args=("failure_map",),
            kwargs={
                CELL_TYPE: [points[0]["cell_type"]],
                CONFIGURATION: configuration,
                TIMEPOINT: [points[0]["column"]],
            },
        )
with st.container(horizontal=True, gap="medium"):
    for page, label, icon in (
        ("failure_map", "See which cells fail", ":material/scatter_plot:"),
        ("confusions", "See what they are mistaken for", ":material/table_chart:"),
        ("evaluate", "Try your own sample", ":material/upload_file:"),
    ):
        st.page_link(nav.page_file(page), label=label, icon=icon)

with st.expander(f"In words: {plural(len(view.sentences), 'model')} one by one"):
    st.markdown("\n".join(f"- {frames.with_display_name(s, models)}" for s in view.sentences))
with st.expander(f"Types that collapse: {len(view.collapsed)} by model and timepoint"):
    if view.collapsed.empty:
        st.markdown("No type collapses in this choice.")
    else:
        frames.name_types(view.collapsed, by="kind")
        tables.show(
            view.collapsed,
            name="collapsed-types",
            alt_text="Cell types that are lost, by model and timepoint, with cells and donors",
            columns=(
                "cell_type", "display_name", "timepoint", "kind", "f1", "n_cells", "n_donors",
                "is_small",
            ),
        )  # fmt: skip
st.markdown(
    f"Not labelled in this dataset: {plain(', '.join(view.not_labelled))}. No score can be given "
    "for them."
    if view.not_labelled
    else "Every expected type is labelled."
)
with st.expander("Where the numbers come from"):
    provenance.strip(view.provenance, models)
tables.show(
    view.scores,
    name=f"{metric.key}-overview",
    alt_text=f"{metric.title} with interval, donors and cells per model and timepoint",
    columns=(
        "display_name", "timepoint", "value", "low", "high", "interval", "n_donors", "n_cells",
        "n_types_scored", "status_text", "convergence",
    ),
    folded="The same numbers as a table",
)  # fmt: skip
averages_table(averages)
provenance.caption(view.provenance)
