"""The form that starts a training job: checked before anything is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app import cache, nav
from app.components import jobs
from app.identity import identity
from app.sections.runs import dataset
from backend.config import home, keep_days
from backend.errors import FaultlineError, InputError
from backend.evaluation.wording import budget_meaning, budget_text, level_text, prose
from backend.jobs.requests import list_plans
from backend.jobs.trainable_models import check_request
from backend.protocols import tested_on
from backend.training.settings import parse_settings
from backend.types import LABEL_LEVELS, MAX_SEED, PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["draw"]

_FITS: Final = {
    "folds": "All folds: scores on cells never trained on",
    "final": "One fit on all donors: saved to predict other files",
    "both": "Both",
}
_INITS: Final = {
    "scratch": "scratch: random weights",
    "pretrained": "pretrained: start from a checkpoint, train everything",
    "frozen": "frozen: keep a checkpoint's weights, train the head",
}
_BUDGETS: Final = ("equal", "full", "cap300", "cap500")
"""Offered; another `capN` can be typed."""
_ONE, _PLAN = "One model", "A plan of many runs"
_GAPS: Final = "runs.gaps"
"""What the folds of the request that was asked last would lack."""


def draw() -> None:
    """Draw the form; queue the job when it is right."""
    who = identity()
    if not who.may_write:
        st.info(who.reason, icon=":material/lock:")
        return
    st.caption(jobs.device_sentence())
    found = dataset.choices(who.owner)
    if not found:
        st.info(
            "There is nothing to train on yet. Upload a file of labelled cells on Evaluate; whoever "
            "runs this server can offer folders of `.h5ad` files in FAULTLINE_DATA_DIRS."
        )
        st.page_link(nav.page_file("evaluate"), label="Evaluate", icon=":material/upload_file:")
        return
    what = st.segmented_control("What", [_ONE, _PLAN], default=_ONE, required=True, key="runs.what")
    kind = "sweep" if what == _PLAN else "run"
    values = dataset.choose(found)
    if values is None:
        return
    is_own = "upload" in values
    settings = ""
    if kind == "sweep":
        values["plan"] = st.selectbox("Plan", list_plans(), key="runs.plan")
    else:
        chosen, settings = _choose_run(cache.trainable_models())
        values |= chosen
    values["is_shared"] = not is_own and _choose_audience(who.role)
    label = "Start the sweep" if kind == "sweep" else "Start training"
    if st.button(label, type="primary", key="runs.start"):
        _queue(kind, values, settings)
    _confirm(kind, values, settings)


def _choose_audience(role: str) -> bool:
    """Ask who may see the results; on a machine of one's own there is nobody else."""
    if role == "local":
        return True
    until = f"kept {keep_days():g} days"
    return (
        st.radio(
            "Who sees the results",
            [f"Only me ({until})", "Everyone on this server"],
            key="runs.audience",
            horizontal=True,
        )
        == "Everyone on this server"
    )


def _choose_run(models: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """Draw the choices of one series; return them, and the text of the settings."""
    names = {model["key"]: model["display_name"] for model in models}
    left, right = st.columns(2)
    with left:
        key = st.selectbox("Model", list(names), format_func=names.__getitem__, key="runs.model")
        model = next(model for model in models if model["key"] == key)
        values = {"model": key} | _choose_weights(model)
        fits = list(_FITS) if model["is_savable"] else ["folds"]
        values["fits"] = st.selectbox(
            "What to fit", fits, format_func=_FITS.__getitem__, key="runs.fits"
        )
        values["seed"] = st.number_input("Seed", 0, MAX_SEED, 0, key="runs.seed")
    with right:
        values["protocol"] = st.selectbox(
            "Tested on",
            list(PROTOCOLS),
            index=list(PROTOCOLS).index("donor"),
            key="runs.protocol",
            format_func=tested_on,
            help="The protocol:\n"
            + "\n".join(
                f"- {kept.tested_on} (`{key}`): {kept.text}" for key, kept in PROTOCOLS.items()
            ),
        )
        values["label_level"] = st.selectbox(
            "Labels",
            LABEL_LEVELS,
            index=1,
            key="runs.label_level",
            format_func=lambda key: f"{level_text(key)} ({key})",
        )
        values["folds"] = st.selectbox(
            "Folds",
            list(range(2, 11)),
            index=3,
            key="runs.folds",
            help="5: 70/10/20 %; 10: 80/10/10 %. At most as many as a timepoint has donors.",
        )
        values["budget"] = st.selectbox(
            "Training size",
            _BUDGETS,
            format_func=budget_text,
            key="runs.budget",
            accept_new_options=True,
            help="The budget; type `cap` and a number for another limit:\n"
            + "\n".join(
                f"- {budget_text(key)} (`{key}`): {budget_meaning(key)}" for key in _BUDGETS
            ),
        )
    settings = st.text_area(
        "Settings that differ from the model's own",
        key="runs.settings",
        placeholder="epochs=3\nlearning_rate=1e-4",
        help="One NAME=VALUE a line; they are checked before the job is queued.",
        height=100,
    )
    return values, settings


def _choose_weights(model: Mapping[str, Any]) -> dict[str, Any]:
    """Draw preset, init and checkpoint of a foundation model; a baseline has none."""
    if not model["presets"]:
        return {}
    names = model["presets"]
    small = next((i for i, name in enumerate(names) if name.endswith(".small")), 0)
    preset = st.selectbox("Preset", names, index=small, key="runs.preset")
    inits = list(_INITS) if model["checkpoints"] else ["scratch"]
    init = st.selectbox("Start from", inits, format_func=_INITS.__getitem__, key="runs.init")
    if not model["checkpoints"]:
        st.caption(
            f"No checkpoint of {model['display_name']} is registered: "
            f"`python -m backend checkpoints add {model['key']} DIR`."
        )
    values = {"preset": preset, "init": init}
    if init != "scratch":
        values["checkpoint"] = st.selectbox(
            "Checkpoint", model["checkpoints"], key="runs.checkpoint"
        )
    return values


def _queue(kind: str, values: dict[str, Any], settings: str) -> None:
    """Let the request be checked on its file, then queue it; show why not, or ask."""
    st.session_state.pop(_GAPS, None)
    request = dict(values)
    try:
        if kind == "run":
            request["settings"] = parse_settings([w for w in settings.split("\n") if w.strip()])
        with st.spinner("Checking that it can work on this file …"):
            found = check_request(kind, request, home(), identity().owner)
    except InputError as error:
        st.error(prose(f"{error.message} {error.hint}"), icon=":material/error:")
        return
    except FaultlineError as error:
        st.warning(prose(f"{error.message} {error.hint}"), icon=":material/hourglass:")
        return
    if found["gaps"]:
        st.session_state[_GAPS] = {"of": f"{values}{settings}", "request": request} | found
        return
    jobs.start(kind, request)


def _confirm(kind: str, values: dict[str, Any], settings: str) -> None:
    """Say what the folds would lack, with a number that lacks nothing; start only when told to."""
    found = st.session_state.get(_GAPS)
    if not found or found["of"] != f"{values}{settings}":
        return
    folds = found["folds"]
    st.warning(
        prose(" ".join(found["gaps"])) + f" {folds} folds would work.", icon=":material/rule:"
    )
    with st.container(horizontal=True):
        if kind == "run":
            st.button(
                f"Use {folds} folds", type="primary", on_click=_use_folds, args=(folds,),
                key="runs.use_folds",
            )  # fmt: skip
        if st.button("Start all the same", key="runs.all_the_same"):
            st.session_state.pop(_GAPS)
            jobs.start(kind, found["request"])


def _use_folds(folds: int) -> None:
    st.session_state["runs.folds"] = folds
    st.session_state.pop(_GAPS, None)
