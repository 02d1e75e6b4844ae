"""Overview: where do the models break on this data?"""

from functools import partial

import streamlit as st

from app import cache, nav
from app.components import errors, figure, frames, provenance, tables
from app.components.selection_links import page_links
from app.sections.overview.charts import score_dots
from app.state import MODEL, current_metric, current_models, current_scope, go
from backend.evaluation.wording import plain

scope = current_scope()
models = current_models()
metric = current_metric()
with errors.shown_to_user():
    view = cache.overview(scope, metric.key)

if view.scores.empty:
    st.info("No scored cells for this choice. Widen the timepoints, the models or the truth.")
    st.stop()

provenance.described(view.kind, view.provenance.n_donors)
said = "\n".join(f"- {frames.with_display_name(s, models)}" for s in view.sentences)
# Many sentences would push the picture off the screen.
is_long = len(view.sentences) > 4
if not is_long:
    st.markdown(said)
figure.draw(
    partial(score_dots, view.scores),
    name=f"{metric.key}-overview",
    title=f"{metric.title} by model and timepoint",
    alt_text=f"Dot plot of {metric.label} from {metric.range[0]:g} to {metric.range[1]:g}, a row "
    "per model and a dot per timepoint, with "
    "95 % intervals over donors; the sentences beside it say the same.",
    select=("configuration", "timepoint"),
    on_pick=lambda dot: go("timepoints", **{MODEL: [dot["configuration"]]}),
)
st.caption(
    "A click on a dot opens its model on the Timepoints page. Open dots have no interval (fewer "
    "than 5 donors); dashed intervals rest on 5–9 donors. " + view.provenance.caption
)
if is_long:
    with st.expander(f"In words: each of the {len(view.sentences)} models"):
        st.markdown(said)
provenance.types_note(view, metric)
st.page_link(
    nav.page_file("timepoints"),
    label="See the clinical course of these models",
    icon=":material/timeline:",
)
page_links()

st.markdown("##### Types that collapse")
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
        folded=f"All {len(view.collapsed)} by timepoint, with F1, cells and donors",
    )  # fmt: skip
st.markdown("##### Not labelled in this dataset")
st.markdown(
    f"{plain(', '.join(view.not_labelled))}. No score can be given for them."
    if view.not_labelled
    else "Every expected type is labelled."
)
provenance.strip(view.provenance, models)

st.markdown("##### The same numbers as a table")
tables.show(
    view.scores,
    name=f"{metric.key}-overview",
    alt_text=f"{metric.title} with interval, donors and cells per model and timepoint",
    columns=(
        "display_name", "timepoint", "value", "low", "high", "interval", "n_donors", "n_cells",
        "n_types_scored", "status_text",
    ),
)  # fmt: skip
