"""Runs: what was run, with what, and is it healthy?"""

import streamlit as st

from app import cache
from app.components import errors, jobs, saved_selections
from app.identity import identity
from app.sections.runs import cards, form

who = identity()
job_id = st.query_params.get(jobs.JOB)
jobs.apply_view()
view = st.segmented_control(
    "Show",
    jobs.VIEWS,
    default="Runs",
    required=True,
    key=jobs.VIEW,
    bind="query-params",
    label_visibility="collapsed",
)
if view == "Start a run":
    with errors.shown_to_user():
        form.draw()
    st.stop()
if view == "Saved selections":
    with errors.shown_to_user():
        saved_selections.show()
    st.stop()
if view == "Jobs":
    with errors.shown_to_user():
        if job_id:
            st.button(
                "All jobs", icon=":material/arrow_back:", type="tertiary", on_click=jobs.leave
            )
            jobs.one_job(job_id)
        else:
            jobs.all_of_owner()
            jobs.your_data()
    st.stop()

with errors.shown_to_user():
    overview = cache.runs_overview(who.owner)
if overview.runs.empty:
    st.info("Nothing was run yet. Choose “Start a run”, or see `python -m backend run --help`.")
    st.stop()
st.markdown(overview.sentence)
cards.overview_table(overview.series)

st.markdown("##### One series")
chosen = cards.choose_series(overview.series)
with errors.shown_to_user():
    cards.series_card(chosen, overview.runs[overview.runs.series_id == chosen.series_id])
