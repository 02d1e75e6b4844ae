"""A table of predictions: what must be decided before it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import streamlit as st

from app import cache
from app.sections.evaluate import upload
from backend.evaluation.wording import plain, plural, prose
from backend.protocols import EXTERNAL, PROTOCOLS, tested_on

if TYPE_CHECKING:
    from app.sections.evaluate.upload import Chosen

__all__ = ["choose"]

_AS_WRITTEN: Final = "as written"


def choose(chosen: Chosen, owner: str) -> dict[str, Any] | None:
    """Draw what the table holds and the choices about it; return the request once asked for."""
    found = cache.inspected_table(str(chosen.path), chosen.size, owner)
    if problem := found.get("problem"):
        reason = prose(" ".join(problem).replace(f'"{chosen.path.name}"', "The file"))
        upload.forget(chosen, f"**{plain(chosen.name)}** cannot be used.\n\n{reason}")
    st.markdown(
        f"{plural(found['n_cells'], 'cell')} in {plural(found['n_rows'], 'row')}, "
        f"{found['n_unlabelled']:,} without a label."
    )
    if n := found["n_abstained"]:
        st.info(
            f"{n:,} of {found['n_rows']:,} predictions name no type. They count as wrong where the "
            "cell has a label; the share of cells that were named is shown with the results.",
            icon=":material/block:",
        )
    words = _words(found, str(chosen.request))
    add_to = _known(found)
    name = st.text_input("Name of the dataset", "Imported predictions", key="evaluate.name")
    protocol = st.selectbox(
        "What was the model tested on?",
        [EXTERNAL, *PROTOCOLS],
        format_func=lambda key: "not known" if key == EXTERNAL else f"{tested_on(key)} ({key})",
        key="evaluate.protocol",
        help="Shown with the results as you state it; nothing of it can be checked here.",
    )
    if not st.button("Import", type="primary", key="evaluate.import"):
        return None
    asked = {"protocol": protocol, "predicted_as": words, "add_to": add_to}
    return {"action": "import"} | asked | chosen.request | {"name": name}


def _words(found: dict[str, Any], key: str) -> dict[str, str]:
    """Draw predicted names beside the labels that they seem to mean; return those chosen."""
    offered: dict[str, str] = found["suggested"]
    if not offered:
        if found["types"] and not found["n_shared"]:
            st.warning(
                "No predicted name is a label of the table, so every cell counts as wrong. Write "
                "both in one vocabulary.",
                icon=":material/warning:",
            )
        return {}
    st.warning(
        f"Labels and predictions are written in two ways: {plural(len(offered), 'predicted name')} "
        "seem to mean a label. As written, each of their cells counts as wrong.",
        icon=":material/translate:",
    )
    counts = {match["label"]: match["n_cells"] for match in found["words"]}
    edited = st.data_editor(
        pd.DataFrame(
            {
                "predicted": list(offered),
                "n_rows": [counts[name] for name in offered],
                "label": list(offered.values()),
            }
        ),
        hide_index=True,
        disabled=["predicted", "n_rows"],
        column_config={
            "predicted": "Predicted name",
            "n_rows": st.column_config.NumberColumn("Rows", format="localized"),
            "label": st.column_config.SelectboxColumn(
                "Counts as", options=[_AS_WRITTEN, *found["types"]], required=True
            ),
        },
        key=f"evaluate.words-{key}",
    )
    wanted = dict(zip(edited["predicted"], edited["label"], strict=True))
    return {name: label for name, label in wanted.items() if label != _AS_WRITTEN}


def _known(found: dict[str, Any]) -> str | None:
    """Draw the datasets that hold the same cells; return the one to join."""
    if not found["known"]:
        return None
    names: dict[str | None, str] = {None: "a dataset of its own"}
    names |= {
        known[
            "dataset_id"
        ]: f"{known['name']} ({plural(known['n_cells'], 'cell')}, {known['share']:.0%})"
        for known in found["known"]
    }
    return st.selectbox(
        "Import into",
        list(names),
        format_func=names.__getitem__,
        key="evaluate.add_to",
        help="Datasets with cells of the same ids. A model that joins one is shown beside its other "
        "models, with that dataset's labels, donors and map.",
    )
