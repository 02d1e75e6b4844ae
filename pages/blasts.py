"""Blasts: are leukaemic cells called normal?"""

from functools import partial

import streamlit as st

from app import cache
from app.components import errors, figure, provenance, tables
from app.components.course_lines import bars_words, course_lines
from app.components.frames import with_donor_names
from app.components.selection_links import open_buttons, page_links
from app.sections.blasts import mutants
from app.sections.blasts.charts import by_course, patient_shares, state_bars
from app.sections.blasts.selections import cells_missed, cells_of_state
from app.sections.blasts.words import RATES, blast_sentences
from app.state import (
    choose_model,
    choose_one,
    course,
    current_models,
    current_scope,
    current_source,
)
from backend.evaluation.metrics import MALIGNANCY_METRICS
from backend.evaluation.wording import plain

scope = current_scope()
with errors.shown_to_user():
    view = cache.blasts(scope)

if not view.malignant:
    is_narrowed = bool(scope.timepoints) or scope.truth != "all"
    st.info(
        f"{'This choice holds' if is_narrowed else 'This dataset labels'} no malignant cells "
        "(`X-like`), so blasts and normal cells cannot be told apart here. "
        + (
            "Widen the timepoints or the labels counted."
            if is_narrowed
            else "Choose another dataset."
        )
    )
    st.stop()
if view.rates.empty:
    st.info(
        "No model here was trained to tell malignant states apart (labels as given), with this test "
        "and training size. "
        + (
            "Evaluate the file with a model that tells malignant cells apart (fine labels)."
            if current_source().is_upload
            else "Choose others, or widen the timepoints or the labels counted."
        )
    )
    st.stop()

models = dict(zip(view.rates.configuration, view.rates.display_name, strict=True))
with st.container(horizontal=True, vertical_alignment="bottom"):
    configuration = choose_model(models, width=320)
    asked = RATES[choose_one("Picture", list(RATES), key="blasts.rate")]
model = models[configuration]
mine = view.rates[view.rates.configuration == configuration]
st.markdown("\n".join(f"- {text}" for text in blast_sentences(mine, view.missing)))
rates = view.rates[view.rates.metric == asked]
metric = MALIGNANCY_METRICS[asked]
figure.draw(
    partial(
        course_lines,
        rates,
        view.donors[view.donors.metric == asked].assign(seed=0),
        models=list(current_models().values()),
        timepoints=[t for t in course(rates.timepoint) if t in set(rates.timepoint) | set(view.missing)],
    ),
    name=f"blasts-{asked}",
    title=f"{metric.title}: {metric.text}",
    alt_text=f"Line chart of {metric.label} from 0 to 1 over the timepoints, a line per model, "
    "small marks for single donors, bars for 95 % intervals.",
)  # fmt: skip
st.caption(
    "A malignant cell counts as found when it is called any malignant state, by the labels as given. "
    f"Large marks: all donors pooled; small marks: one donor each. {bars_words(rates)}"
)
tables.show(
    view.rates,
    name="blasts-rates",
    alt_text="Sensitivity and specificity by model and timepoint with interval, donors and cells",
    columns=(
        "display_name", "timepoint", "metric", "value", "low", "high", "interval", "n_donors",
        "n_cells", "top_donor_share", "status_text",
    ),
    labels={"value": "Value", "metric": "Rate"},
    folded="The same numbers as a table",
)  # fmt: skip

shares = with_donor_names(view.shares[view.shares.configuration == configuration])
shares = by_course(shares)
answer = st.container()
points = figure.draw(
    partial(patient_shares, shares, donors=list(shares.donor_name)),
    name="blasts-by-patient",
    title=f"Malignant share of each patient, labelled and called by {model}",
    alt_text="Two marks per patient and timepoint, the labelled and the called malignant share, "
    "joined by a line.",
    select=("donor_name",),
)
if points:
    row = shares[shares.donor_name == points[0]["donor_name"]].iloc[0]
    with answer.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Malignant cells of {plain(row.donor_name)} that are called normal:")
        cells = cells_missed(row, view, configuration, scope)
        open_buttons(cells, name="blasts", configuration=configuration, label_level="fine")
else:
    st.caption("A click on a patient leads to the malignant cells that are called normal.")
tables.show(
    shares,
    name="blasts-by-patient",
    alt_text="Labelled and called malignant share of every patient with cells",
    columns=("donor", "timepoint", "labelled_share", "predicted_share", "n_malignant", "n_cells"),
    labels={"n_malignant": "Malignant cells", "predicted_share": "Called malignant"},
    folded="The same numbers as a table",
)

states = view.states[view.states.configuration == configuration]
answer = st.container()
points = figure.draw(
    partial(state_bars, states),
    name="blasts-states",
    title=f"What {model} calls each malignant state",
    alt_text="A bar per malignant state, split by what its cells are called.",
    select=("label", "called"),
)
if points:
    with answer.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{plain(points[0]['label'])} called {plain(points[0]['called'])}:")
        cells = cells_of_state(points[0], states, scope)
        open_buttons(cells, name="states", configuration=configuration, label_level="fine")
else:
    page_links(label_level="fine")
tables.show(
    states,
    name="blasts-states",
    alt_text="Cells of each malignant state by what they are called, with donors",
    columns=("label", "predicted", "called", "share", "n_cells", "n_donors", "top_donor_share"),
    labels={"called": "Kind", "n_cells": "Cells"},
    folded="The same numbers as a table",
)

mutants.show(view.mutants, configuration, model)
provenance.caption(cache.provenance(scope))
