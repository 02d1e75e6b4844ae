"""Timepoints: how does each model fall along the clinical course?"""

from functools import partial

import streamlit as st

from app import cache
from app.components import errors, figure, provenance, tables
from app.components.averages_table import averages_table
from app.components.convergence import convergence_badges
from app.components.course_lines import bars_words, course_lines
from app.components.selection_links import page_links
from app.sections.timepoints.patients import same_patients
from app.sections.timepoints.words import course_sentence
from app.state import (
    CONFIGURATION,
    REFERENCE,
    TIMEPOINT,
    choose_model,
    course,
    current_metric,
    current_models,
    current_scope,
    go,
)
from backend.evaluation.description import COMPARISON
from backend.evaluation.wording import plain, plural

scope = current_scope()
models = current_models()
metric = current_metric()
with errors.shown_to_user():
    view = cache.scores_by_timepoint(scope, metric.key)
    series = cache.series_table(scope)
    averages = cache.averages(scope)

if view.scores.empty:
    st.info(
        "No scored cells for this choice. Widen the timepoints, the models or the labels counted."
    )
    st.stop()

is_comparison = view.kind == COMPARISON
provenance.described(view.kind, view.donors.donor.nunique())
said = [course_sentence(view.scores, metric)] if is_comparison else []
if view.missing:
    said += [f"No data in this dataset: {plain(', '.join(view.missing))}. Nothing is filled in."]
st.markdown(" ".join(said))
# What describes a timepoint stands under the chart, with its types.
for note in view.notes if is_comparison else ():
    st.markdown(note)
provenance.series_notes(series)

figure.draw(
    partial(
        course_lines,
        view.scores,
        view.donors,
        timepoints=course(view.scores.timepoint),
        models=list(models.values()),
        has_lines=is_comparison,
    ),
    name=f"{metric.key}-by-timepoint",
    title=f"{metric.title} along the clinical course"
    if is_comparison
    else f"{metric.title} of each timepoint by itself",
    alt_text=f"{'Line chart' if is_comparison else 'Dots'} of {metric.label} from "
    f"{metric.range[0]:g} to {metric.range[1]:g} over Healthy, Diagnosis, Post-treatment and Relapse, "
    f"a {'line' if is_comparison else 'colour'} per model, small marks for single donors, bars for "
    f"95 % intervals. No data: {', '.join(view.missing) or 'none missing'}.",
    select=("configuration", "timepoint"),
    on_pick=lambda dot: go(
        "cell_types",
        **{TIMEPOINT: [dot["timepoint"]], CONFIGURATION: dot["configuration"]},
    ),
)
st.caption(
    "Large marks: all donors pooled; small marks: one donor each. "
    + bars_words(view.scores)
    + (
        ""
        if is_comparison
        else "Timepoints are scored over types of their own, so no line joins them and none is "
        "compared with another. "
    )
    + "A click on a large mark opens its timepoint on the Cell types page."
)
convergence_badges(view.scores)
provenance.types_note(view, metric, view.donors.donor.nunique())
page_links()
averages_table(averages, is_folded=False)
with errors.shown_to_user():
    same_patients(scope, models, metric)

tables.show(
    view.scores,
    name=f"{metric.key}-by-timepoint",
    alt_text=f"{metric.title} with interval, donors and cells per model and timepoint",
    columns=(
        "display_name", "timepoint", "value", "low", "high", "interval", "n_donors", "n_cells",
        "n_types_scored", "status_text", "convergence",
    ),
    folded=f"The numbers of the first picture: {metric.label} with its interval",
)  # fmt: skip
if is_comparison:
    tables.show(
        view.differences,
        name="change-along-course",
        alt_text=f"Difference of {metric.label} to the first timepoint with a score, per model",
        columns=(
            "display_name", "timepoint", "reference", "difference", "low", "high", "interval",
            "n_donors", "reason",
        ),
        labels={"difference": "Timepoint − reference"},
        folded="Change along the course, by model",
    )  # fmt: skip
with st.expander(f"Single donors ({plural(view.donors.donor.nunique(), 'donor')})"):
    tables.show(
        view.donors,
        name=f"{metric.key}-by-donor-and-timepoint",
        alt_text=f"{metric.title} of every single donor per model and timepoint",
        columns=("display_name", "timepoint", "donor", "value", "n_cells", "n_types", "seed"),
    )
if is_comparison and len(models) > 1:
    # Compared only while it is open: it takes as long as all the rest of the page.
    box = st.expander(
        "Models against one of them, paired by donor",
        expanded=REFERENCE in st.query_params,
        key="timepoints.paired",
        on_change="rerun",
    )
    with box, errors.shown_to_user():
        if box.open:
            reference = choose_model(models, key=REFERENCE, label="Against")
            tables.show(
                cache.model_differences(scope, reference, metric.key).differences,
                name="models-paired-by-donor",
                alt_text=f"Paired difference of {metric.label} to the chosen model, per model "
                "and timepoint",
                columns=(
                    "display_name", "timepoint", "difference", "low", "high", "interval",
                    "n_donors", "reason",
                ),
                labels={"difference": f"Model − {models[reference]}"},
            )  # fmt: skip
provenance.caption(cache.provenance(scope))
