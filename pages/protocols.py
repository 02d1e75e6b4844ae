"""Protocols: how much did the split flatter the models?"""

from functools import partial

import streamlit as st

from app import cache
from app.components import errors, figure, frames, provenance, tables
from app.sections.protocols import charts
from app.sections.protocols.words import gap_sentence, notes_in_words
from app.state import current_metric, current_models, current_scope, current_source
from backend.evaluation.wording import plural
from backend.protocols import PROTOCOLS

scope = current_scope()
models = current_models()
metric = current_metric()
with errors.shown_to_user():
    view = cache.optimism(scope, metric.key)

slopes = charts.by_protocol(view.gaps)
if slopes.empty and current_source().is_upload:
    st.info(
        "This page compares tests on known patients with tests on new ones. Your file was tested "
        "in one way, so there is nothing to compare. For the models themselves, choose a dataset "
        "of the study in the sidebar."
    )
    st.stop()
if slopes.empty:
    st.info(
        "No gap can be measured here: it needs a model that was tested both on known and on new "
        "patients, and types with enough cells and donors. Widen the timepoints or the labels "
        "counted."
    )
    st.stop()

st.markdown(gap_sentence(view.gaps, metric))
if view.notes:
    st.caption(notes_in_words(view.notes, models))
names = list(models.values())
figure.draw(
    partial(
        charts.slopes,
        slopes,
        protocols=frames.in_order(slopes.protocol, "protocol"),
        models=names,
    ),
    name=f"{metric.key}-by-protocol",
    title=f"{metric.title} on known and on new patients, over the same types and cells",
    alt_text=f"Slope chart of {metric.label} from {metric.range[0]:g} to {metric.range[1]:g}, from "
    "cells split at random to donors held out, a line per model.",
)
provenance.panel_note(view.panel, metric)
with st.expander(f"In words: {plural(len(view.sentences), 'model')} one by one"):
    st.markdown("\n".join(f"- {frames.with_display_name(s, models)}" for s in view.sentences))

figure.draw(
    partial(
        charts.gap_dots,
        view.gaps,
        name="display_name",
        names=names,
        title=f"{metric.title}, known − new patients",
    ),
    name="optimism-gap",
    title=f"Optimism gap: {metric.label} on known minus on new patients",
    alt_text="Dot plot of the optimism gap per model with 95 % intervals around a line at 0.",
)
st.caption(
    "Right of 0: a test on known patients promises more than new patients keep. A gap below 0 is "
    "shown as it is. Bars: 95 % intervals, dashed with 5–9 donors; donors redrawn, fitted models "
    "fixed."
)
tables.show(
    view.gaps,
    name="optimism-gap",
    alt_text=f"{metric.title} under random and donor protocol and their difference per model",
    columns=(
        "display_name", "random", "donor", "gap", "low", "high", "interval", "n_donors", "n_cells",
        "n_train_random", "n_train_donor",
    ),
)  # fmt: skip

for key, table in view.others.items():
    milder = PROTOCOLS[PROTOCOLS[key].compared_with]
    st.markdown(f"##### From {milder.tested_on} to {PROTOCOLS[key].tested_on}")
    tables.show(
        table,
        name=f"{key}-gap",
        alt_text=f"{metric.title} under the protocols {milder.key} and {key} and their difference "
        "per model",
        columns=(
            "display_name", milder.key, key, "gap", "low", "high", "interval", "n_donors",
            "n_cells", f"n_train_{milder.key}", f"n_train_{key}",
        ),
    )  # fmt: skip

st.markdown("##### Type by type")
cell_type = st.selectbox(
    "Cell type", sorted(view.by_type.cell_type.unique()), key="protocol_type", bind="query-params"
)
of_type = charts.by_protocol(view.by_type[view.by_type.cell_type == cell_type])
figure.draw(
    partial(
        charts.slopes,
        of_type,
        protocols=frames.in_order(of_type.protocol, "protocol"),
        models=names,
        title=f"F1 of {cell_type}",
    ),
    name="f1-by-protocol-of-type",
    title=f"F1 of {cell_type} on known and on new patients",
    alt_text=f"Slope chart of the F1 of {cell_type} under each protocol, a line per model.",
)
tables.show(
    view.by_type,
    name="optimism-gap-by-type",
    alt_text="F1 under random and donor protocol and their difference per cell type and model",
    columns=(
        "cell_type", "display_name", "random", "donor", "gap", "low", "high", "n_donors", "n_cells",
    ),
    height=300,
)  # fmt: skip
provenance.caption(
    cache.provenance(scope),
    tested="Tested on known and on new patients: the same cells, types and seeds of a model in both",
)
