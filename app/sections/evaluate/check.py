"""What the quick check says of a file, in plain words, and the roles of its columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import streamlit as st

from app import cache
from app.sections.evaluate import upload
from backend.data.roles import map_timepoint
from backend.evaluation.wording import plain, prose
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from app.sections.evaluate.upload import Chosen

__all__ = ["check", "choose_roles", "look", "map_timepoints", "name_of", "verdict"]

_ROLES: Final = {
    "cell_type": "Cell type (your label)",
    "donor": "Donor",
    "timepoint": "Timepoint",
    "study": "Study",
}
_KEPT: Final = ("sample", "day", "label_source", "genotype", "is_malignant", "sort")
_NO_TIMEPOINT: Final = "No timepoint"


def check(chosen: Chosen, gene_files: dict[str, str]) -> dict[str, Any]:
    """Look at the file; a file that cannot be used is removed, with the reason shown."""
    found = look(chosen, gene_files)
    if _is_roundable(found["problems"]):
        problem = found["problems"][0]
        st.warning(prose(problem["message"]), icon=":material/decimal_decrease:")
        st.markdown(
            "Programs that take off ambient RNA leave such values, and so do round trips through a "
            "logarithm. Raw counts are better; rounded ones can be read."
        )
        if st.button("Round to whole numbers", key="evaluate.do_round"):
            st.session_state[_rounds(chosen)] = True
            st.rerun()
        st.stop()
    if found["problems"]:
        stored = f'"{chosen.path.name}"'
        reasons = [
            prose(f"{problem['message']} {problem['hint']}".replace(stored, "The file"))
            for problem in found["problems"]
        ]
        kept = " The upload was deleted." if chosen.request.get("upload") else ""
        text = "\n\n".join(reasons)
        upload.forget(chosen, f"**{plain(chosen.name)}** cannot be used.{kept}\n\n{text}")
    return found


def look(chosen: Chosen, gene_files: dict[str, str]) -> dict[str, Any]:
    """Return what `inspect_upload` finds in the file with the columns that were chosen so far."""
    roles = st.session_state.get(f"evaluate.roles-{chosen.path}", "")
    if st.session_state.get(_rounds(chosen)):
        roles = json.dumps(json.loads(roles or "{}") | {"is_rounded": True}, sort_keys=True)
    found: dict[str, Any] = cache.inspected_upload(str(chosen.path), chosen.size, roles, gene_files)
    return found


def _rounds(chosen: Chosen) -> str:
    return f"evaluate.rounds-{chosen.path}"


def _is_roundable(problems: list[dict[str, str]]) -> bool:
    """Say whether rounding is all that a file lacks."""
    return [problem["code"] for problem in problems] == ["not_counts"] and any(
        "--round" in problem["hint"] for problem in problems
    )


def verdict(chosen: Chosen, found: dict[str, Any]) -> None:
    """Say what the file holds."""
    facts = found["facts"]
    st.markdown(
        f"The file can be used: {facts['n_cells']:,} cells, "
        f"{facts['n_genes']:,} genes, named by {plain(facts['gene_ids'].replace('ensembl', 'Ensembl id'))} "
        f"({facts['n_genes_matched']:,} are known). Counts are in {plain(facts['counts'])}."
    )
    if found["notes"]:
        with st.expander(f"What is changed or lost ({len(found['notes'])})"):
            st.markdown("\n".join(f"- {prose(note)}" for note in found["notes"]))
    st.caption(
        f"Checked in {facts['seconds']:.1f} s by its structure and samples of its values; every "
        "value is read before any prediction."
    )


def name_of(chosen: Chosen, found: dict[str, Any]) -> str:
    """Return what the file calls itself, or its own name where it says nothing."""
    said = str(found["facts"]["name"])
    return chosen.name.removesuffix(".h5ad") if said == chosen.path.stem else said


def choose_roles(chosen: Chosen, found: dict[str, Any]) -> dict[str, Any]:
    """Draw the columns that were guessed for the roles; return them as plain values."""
    guessed: dict[str, str] = found["facts"]["roles"]
    names = [column["name"] for column in found["columns"]]
    examples = {c["name"]: ", ".join(c["examples"]) for c in found["columns"]}
    roles: dict[str, Any] = {name: guessed[name] for name in _KEPT if name in guessed}

    def shown(name: str | None) -> str:
        if name is None:
            return "none"
        return f"{name} ({examples[name]} …)" if examples.get(name) else name

    places = st.columns(len(_ROLES))
    for place, (role, title) in zip(places, _ROLES.items(), strict=True):
        options = [None, *names]
        roles[role] = place.selectbox(
            title,
            options,
            index=options.index(guessed.get(role)) if guessed.get(role) in options else 0,
            format_func=shown,
            key=f"evaluate.role.{role}-{chosen.request}",
        )
    # "" says that the file has no such column; left out, it would be guessed again.
    given = {name: column or "" for name, column in roles.items()}
    if {name: column for name, column in given.items() if column} != guessed:
        st.session_state[f"evaluate.roles-{chosen.path}"] = json.dumps(given, sort_keys=True)
        st.rerun()
    _offer_columns(found["facts"]["candidates"], given)
    return given | {"is_rounded": bool(st.session_state.get(_rounds(chosen)))}


def _offer_columns(candidates: dict[str, list[str]], given: dict[str, str]) -> None:
    """Name columns whose values look like labels or donors, where another or none is chosen."""
    for role, words in (
        ("cell_type", "known cell types"),
        ("donor", "values that recur as donors do"),
    ):
        names = [name for name in candidates[role] if name not in given.values()]
        if (
            names
            and given.get(role) not in candidates[role]
            and (role != "donor" or not given[role])
        ):
            shown = ", ".join(f"**{plain(name)}**" for name in names[:3])
            st.info(f"{shown}: holds {words}. Choose it as {_ROLES[role]} if it is.")


def map_timepoints(found: dict[str, Any], key: str) -> dict[str, str]:
    """Draw the timepoints of the file beside the clinical ones; return those that were chosen."""
    counts: dict[str, int] = found["timepoints"]
    known: dict[str, str] = found["facts"].get("timepoint_words", {})
    unknown = [name for name in counts if map_timepoint(name, known) is None]
    if not unknown:
        return {}
    st.markdown(
        f"{len(unknown)} of {len(counts)} values of the timepoint column are not known. A day is "
        "never read as Relapse: say what they are, or leave them out."
    )
    edited = st.data_editor(
        pd.DataFrame(
            {
                "value": unknown,
                "n_cells": [counts[name] for name in unknown],
                "timepoint": _NO_TIMEPOINT,
            }
        ),
        hide_index=True,
        disabled=["value", "n_cells"],
        column_config={
            "value": "Value in the file",
            "n_cells": st.column_config.NumberColumn("Cells", format="localized"),
            "timepoint": st.column_config.SelectboxColumn(
                "Timepoint", options=[_NO_TIMEPOINT, *TIMEPOINTS], required=True
            ),
        },
        key=f"evaluate.timepoints-{key}",
    )
    chosen = dict(zip(edited["value"], edited["timepoint"], strict=True))
    return {value: name for value, name in chosen.items() if name != _NO_TIMEPOINT}
