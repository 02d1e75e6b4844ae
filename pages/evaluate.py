"""Evaluate: how do models do on my file?"""

import streamlit as st

from app import cache
from app.components import evaluate_check, evaluate_file, evaluate_job, evaluate_models
from app.identity import identity
from backend.types import EXTERNAL, PROTOCOLS

who = identity()
if not who.may_write:
    st.info(who.reason, icon=":material/lock:")
    st.stop()
if evaluate_job.JOB in st.query_params:
    evaluate_job.watch()
    st.stop()

evaluate_file.privacy()
st.markdown("##### 1 · File")
chosen = evaluate_file.choose()
if chosen is None:
    st.stop()
evaluate_file.show(chosen)

if chosen.kind == "table":
    name = st.text_input("Name of the dataset", "Imported predictions", key="evaluate.name")
    protocol = st.selectbox(
        "How were cells kept apart?",
        [EXTERNAL, *PROTOCOLS],
        format_func=lambda word: "not known" if word == EXTERNAL else word,
        key="evaluate.protocol",
        help="Shown with the results as you state it; nothing of it can be checked here.",
    )
    if st.button("Import", type="primary", key="evaluate.import"):
        evaluate_job.start(
            {"action": "import", "protocol": protocol} | chosen.request | {"name": name}
        )
    st.stop()

models, gene_files = cache.stored_models(who.owner)
if models.empty:
    st.info(
        "There is no stored model to evaluate. Fit one with "
        "`python -m backend run --dataset FILE --model logreg --fold final --out DIR`."
    )
    st.stop()
found = evaluate_check.check(chosen, gene_files)

st.markdown("##### 2 · Check")
evaluate_check.verdict(chosen, found)

st.markdown("##### 3 · Columns")
roles = evaluate_check.choose_roles(chosen, found)
timepoints = evaluate_check.map_timepoints(found, str(chosen.request))

st.markdown("##### 4 · Models and labels")
runs = evaluate_models.choose_models(models, found)
if not runs:
    st.info("Choose at least one model.")
    st.stop()
labels = {}
if found["labels"]:
    labels = evaluate_models.map_labels(found["labels"], models, runs, f"{chosen.request}{runs}")
else:
    st.warning("No column holds your labels, so the cells are predicted and nothing is scored.")

st.markdown("##### 5 · Evaluate")
name = st.text_input(
    "Name of the dataset", evaluate_check.name_of(chosen, found), key="evaluate.name"
)
words = "Evaluate" if found["labels"] else "Predict"
if st.button(words, type="primary", key="evaluate.start"):
    evaluate_job.start(
        {
            "action": "evaluate",
            "roles": roles | {"timepoints": timepoints},
            "labels": labels,
            "runs": runs,
            "scored": bool(found["labels"]),
        }
        | chosen.request
        | {"name": name}
    )
