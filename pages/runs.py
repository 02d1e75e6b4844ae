"""Runs: what was run, with what, and is it healthy?"""

import streamlit as st

from app import cache
from app.components import errors, jobs, run_cards, run_form
from app.identity import identity

who = identity()
if job_id := st.query_params.get(jobs.JOB):
    with errors.shown_to_user():
        jobs.one_job(job_id)
        st.button(
            "All runs and jobs",
            icon=":material/arrow_back:",
            on_click=lambda: st.query_params.pop(jobs.JOB, None),
            type="tertiary",
            key="runs.back",
        )
    st.stop()

view = st.segmented_control(
    "Show",
    ["Runs", "Jobs", "Start a run"],
    default="Runs",
    required=True,
    key="runs_view",
    bind="query-params",
    label_visibility="collapsed",
)
if view == "Start a run":
    with errors.shown_to_user():
        run_form.draw()
    st.stop()
if view == "Jobs":
    with errors.shown_to_user():
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
