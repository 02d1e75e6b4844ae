"""Runs on the Runs page: the table of series, and the card of each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app import cache
from app.components import tables, training_curves
from app.identity import identity
from app.state import Source
from backend.config import home
from backend.errors import FaultlineError
from backend.evaluation.views.runs import curves_of
from backend.evaluation.wording import budget_text, level_text, plain, plural
from backend.protocols import tested_on
from backend.store.bundle import delete_run

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from backend.evaluation.views.runs import RunCard

__all__ = ["choose_series", "overview_table", "series_card"]

SERIES: Final = "series"
"""URL parameter: the series that the page shows."""
_MESSAGE: Final = "runs.message"
_EVERYTHING: Final = Source("all datasets", False, "all", "all", "all")  # noqa: FBT003
_STATES: Final = {"done": "green", "failed": "red"}


def overview_table(series: pd.DataFrame) -> None:
    """Show a row a series: status, init, training cells, time and memory."""
    tables.show(
        series,
        name="series",
        alt_text="Every series with its folds, init, training cells, time and memory",
        columns=(
            "display_name", "status_text", "dataset", "protocol", "label_level", "budget", "init",
            "genes_matched", "share_loaded", "n_train_max", "wall_seconds", "peak_memory_mib", "device", "seed", "created_at",
        ),
        labels={
            "dataset": "Dataset", "protocol": "Protocol", "label_level": "Label level",
            "budget": "Training size",
            "genes_matched": "Genes matched", "share_loaded": "Weights loaded",
            "n_train_max": "Training cells", "wall_seconds": "Seconds, all fits",
            "peak_memory_mib": "Memory, MiB", "device": "Device", "seed": "Seed",
            "created_at": "Made", "status_text": "Status",
        },
        source=_EVERYTHING,
    )  # fmt: skip


def _text(row: Any) -> str:
    seed = f", seed {row.seed}" if row.seed else ""
    return (
        f"{row.display_name} on {row.dataset}: tested on {tested_on(row.protocol)}, labels "
        f"{level_text(row.label_level)}, {budget_text(row.budget)}{seed} ({row.series_id[:6]})"
    )


def choose_series(series: pd.DataFrame) -> Any:
    """Draw the choice of one series; return its row."""
    names = {row.series_id: _text(row) for row in series.itertuples()}
    chosen = st.selectbox(
        "Series", list(names), format_func=names.__getitem__, key=SERIES, bind="query-params"
    )
    return next(row for row in series.itertuples() if row.series_id == chosen)


def series_card(row: Any, runs: pd.DataFrame) -> None:
    """Show one series: its curves, then a card for each of its runs."""
    source = Source(
        str(row.dataset), bool(row.simulated), str(row.label_level), str(row.protocol), "all"
    )
    run_ids = tuple(runs.sort_values("fold")["run_id"])
    cards = cache.run_cards(identity().owner, run_ids)
    failed = [card for card in cards if card.record.status == "failed"]
    if text := st.session_state.pop(_MESSAGE, None):
        st.warning(text)
    for card in failed:
        st.markdown(f":material/error: Fold {card.record.fold} failed: {plain(card.record.reason)}")
    curves = curves_of(cards)
    if curves.empty:
        st.caption("No curves: this model is fitted without epochs.")
    training_curves.draw(curves, name=f"curves-{row.series_id}", source=source)
    for card in cards:
        _card(card)


def _facts(card: RunCard) -> dict[str, str]:
    """Return what a run is made of, in words."""
    run, load = card.record, card.load or {}
    facts = {
        "Made": plain(f"{run.created_at} on {run.device}"),
        "Trained on": f"{run.n_train:,} cells of {plural(run.n_train_donors, 'donor')}; "
        f"{run.n_valid:,} validation and {run.n_test:,} test cells",
    }
    if run.wall_seconds is not None:
        facts["Took"] = f"{run.wall_seconds:,.1f} s, {run.peak_memory_mib or 0:,.0f} MiB"
    if run.preset is not None:
        start = f"{run.init} from {run.checkpoint}" if run.checkpoint else run.init
        facts["Weights"] = plain(f"{run.preset}, {start}")
    if genes := load.get("genes"):
        share = genes["n_matched"] / max(1, genes["n_genes"])
        facts["Genes matched"] = f"{genes['n_matched']:,} of {genes['n_genes']:,} ({share:.0%})"
    if "share_loaded" in load and run.init != "scratch":
        facts["Loaded from the checkpoint"] = f"{load['share_loaded']:.1%} of the backbone"
    if run.convergence is not None:
        ended = run.convergence
        facts["Training ended"] = plain(
            f"{ended['state']}: best of {ended['last_epoch']} epochs was {ended['best_epoch']} by "
            f"{ended['select_by']} ({ended['best']:.3f}, at the end {ended['last']:.3f}); at most "
            f"{ended['max_epochs']} epochs, or {ended['patience']} without a better one"
        )
    if run.chosen:
        facts["Chosen on training cells"] = plain(
            "; ".join(f"{name} {value}" for name, value in run.chosen.items())
        )
    if run.settings:
        facts["Settings"] = plain(", ".join(f"{k}={v}" for k, v in sorted(run.settings.items())))
    facts |= {
        "Split": f"{run.protocol}, {run.folds} folds, seed {run.split_seed}, budget {run.budget}; "
        f"sha256 `{run.split_sha256}`",
        "Checkpoint": f"sha256 `{run.checkpoint_sha256}`" if run.checkpoint_sha256 else "",
        "Classes": f"{len(run.classes)}: {plain(', '.join(run.classes))}" if run.classes else "",
        "Versions": ", ".join(
            f"{name} {version}" for name, version in sorted(run.versions.items())
        ),
        "Notes": plain("; ".join(run.notes)),
    }
    return {name: text for name, text in facts.items() if text}


def _own_root(run_id: str) -> Path | None:
    """Return the folder below which the visitor may delete this run, or None."""
    who = identity()
    if not who.may_write:
        return None
    roots = [home() / "users" / who.owner, *([home()] if who.role == "local" else [])]
    return next((root for root in roots if (root / "runs" / run_id).is_dir()), None)


def _delete(run_id: str) -> None:
    root = _own_root(run_id)
    if root is None:
        st.session_state[_MESSAGE] = "This run is not yours to delete."
        return
    try:
        delete_run(root, run_id)
    except FaultlineError as error:
        st.session_state[_MESSAGE] = str(error)
    cache.refresh()


def _card(card: RunCard) -> None:
    run = card.record
    colour = _STATES[run.status]
    fold = "Final fit on all donors" if run.fold == "final" else f"Fold {run.fold}"
    with st.expander(f":{colour}-badge[{run.status}] {fold} · `{run.run_id}`"):
        if run.status == "failed":
            st.markdown(f"**Failed ({plain(run.error_kind)}).** {plain(run.reason)}")
        st.markdown("\n".join(f"- **{name}.** {text}" for name, text in _facts(card).items()))
        if card.log:
            st.code(card.log, language=None)
        if _own_root(run.run_id) is not None:
            st.button(
                "Delete this run", icon=":material/delete:", type="tertiary", on_click=_delete,
                args=(run.run_id,), key=f"runs.delete.{run.run_id}",
                help="Its predictions are removed from all pages.",
            )  # fmt: skip
