"""Evaluate: how do models do on my file?"""

import streamlit as st

from app import cache
from app.identity import identity
from app.sections.evaluate import check, job, model_choice, table, upload

who = identity()
if not who.may_write:
    st.info(who.reason, icon=":material/lock:")
    st.stop()
if job.JOB in st.query_params:
    job.watch()
    st.stop()

upload.privacy()
st.markdown("##### 1 · File")
chosen = upload.choose()
if chosen is None:
    st.stop()
upload.show(chosen)

if chosen.kind == "table":
    if request := table.choose(chosen, who.owner):
        job.start(request)
    st.stop()

models, gene_files = cache.stored_models(who.owner)
if models.empty:
    st.info(
        "There is no stored model to evaluate. Fit one with "
        "`python -m backend run --dataset FILE --model logreg --fold final --out DIR`."
    )
    st.stop()
found = check.check(chosen, gene_files)

st.markdown("##### 2 · Check")
check.verdict(chosen, found)

st.markdown("##### 3 · Columns")
roles = check.choose_roles(chosen, found)
timepoints = check.map_timepoints(found, str(chosen.request))

st.markdown("##### 4 · Models and labels")
runs = model_choice.choose_models(models, found)
if not runs:
    st.info("Choose at least one model.")
    st.stop()
labels = {}
if found["labels"]:
    labels = model_choice.map_labels(
        found["labels"], models, runs, f"{chosen.request}{runs}", upload.kept(chosen)
    )
else:
    st.warning(
        "No column holds your labels, so nothing is scored. The cells are named: their composition, "
        "the accuracy to expect and the share outside what the models know are the answer."
    )

st.markdown("##### 5 · Evaluate")
donor_names = model_choice.choose_donor_names(found["donors"], models, runs)
is_ready = model_choice.confirm_few(found["labels"], models, runs, labels)
name = st.text_input("Name of the dataset", check.name_of(chosen, found), key="evaluate.name")
words = "Evaluate" if found["labels"] else "Predict"
if st.button(words, type="primary", key="evaluate.start", disabled=not is_ready):
    upload.keep(chosen, labels)
    job.start(
        {
            "action": "evaluate",
            "roles": roles | {"timepoints": timepoints},
            "labels": labels,
            "runs": runs,
            "donor_names": donor_names,
            "scored": bool(found["labels"]),
        }
        | chosen.request
        | {"name": name}
    )
