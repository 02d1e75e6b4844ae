"""Runs: what was run, with what, and is it healthy?"""

import streamlit as st

from app import cache
from app.components import errors, jobs, run_cards, run_form
from app.identity import identity

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
        run_form.draw()
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
run_cards.overview_table(overview.series)

st.markdown("##### One series")
chosen = run_cards.choose_series(overview.series)
with errors.shown_to_user():
    run_cards.series_card(chosen, overview.runs[overview.runs.series_id == chosen.series_id])
