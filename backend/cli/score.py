"""`python -m backend score --by timepoint`: scores with donor intervals, as a table or as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.errors import InputError
from backend.types import EXTERNAL, LABEL_LEVELS, PROTOCOLS, TIMEPOINTS, TRUTHS, Scope

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    import pandas as pd

    from backend.evaluation.description import Description, Kind
    from backend.evaluation.metrics import Metric
    from backend.evaluation.panel import Panel
    from backend.store.cache import Store

__all__ = ["add_arguments", "run"]

_OWNER: Final = "local"

_PREFERRED: Final = {"label_level": "lineage", "protocol": "donor", "budget": "equal"}
"""Taken when the user names none and results for it exist."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("--by", choices=("timepoint", "cell_type", "donor"), default="timepoint")
    parser.add_argument(
        "--dataset", help="id or name (default: the first dataset that is not simulated)"
    )
    parser.add_argument("--label-level", choices=LABEL_LEVELS, help="default: lineage")
    parser.add_argument("--protocol", choices=(*PROTOCOLS, EXTERNAL), help="default: donor")
    parser.add_argument("--budget", help="budget of training cells (default: equal)")
    parser.add_argument("--truth", choices=tuple(TRUTHS), default="all", help="cells to score")
    parser.add_argument(
        "--model", nargs="+", default=[], metavar="M", help="configurations (default: all)"
    )
    parser.add_argument(
        "--metric",
        metavar="KEY",
        help="a metric of docs/methods.md, such as accuracy (default: macro_f1); by cell type it is "
        "always the F1 of each",
    )
    parser.add_argument("--timepoint", nargs="+", default=[], choices=TIMEPOINTS, metavar="T")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="read only this folder of runs/ and datasets/, not the shipped and own results",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Score what the arguments name and print it."""
    from backend.evaluation import views
    from backend.evaluation.metrics import DEFAULT, metric_named
    from backend.store.cache import Store

    metric = metric_named(args.metric or DEFAULT)
    if args.by == "cell_type" and args.metric is not None:
        msg = "Cell types are scored by their F1, and a metric was named."
        raise InputError(msg, "Leave --metric out, or score --by timepoint or --by donor.")
    if args.results is not None and not args.results.is_dir():
        msg = f'There is no folder "{args.results}".'
        raise InputError(msg, "Name the folder that `run --out` wrote to.")
    store = (
        Store.open_default()
        if args.results is None
        else Store(":memory:", [("public", args.results)])
    )
    with store:
        store.sync()
        scope = _scope(store, args)
        known = list(views.configurations(store, scope)["configuration"])
        unknown = sorted(set(scope.configurations) - set(known))
        if unknown:
            msg = f"No results of {', '.join(unknown[:5])} here. Found: {', '.join(known)}."
            raise InputError(msg, "Choose one of them, or another protocol or label level.")
        report = _REPORTS[args.by](store, scope, metric)
        report = {**_head(store, scope, args.by), **report}
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False))
    else:
        _print(report, metric)
    return 0


def _scope(store: Store, args: argparse.Namespace) -> Scope:
    """Return the scope that the arguments name, the rest filled in from what there is."""
    from backend.evaluation import views

    choices = views.scope_choices(store, _OWNER)
    if choices.empty:
        msg = "There are no results yet."
        raise InputError(msg, "Make some with `python -m backend run`.")
    if args.dataset is not None:
        is_named = (choices["dataset_id"] == args.dataset) | (choices["name"] == args.dataset)
        if not is_named.any():
            pairs = choices[["dataset_id", "name"]].drop_duplicates().itertuples(index=False)
            found = ", ".join(f"{dataset_id} ({name})" for dataset_id, name in list(pairs)[:5])
            msg = f'No results for the dataset "{args.dataset}". Found: {found}.'
            raise InputError(msg, "Choose one of them by id or name.")
        choices = choices[is_named]
    choices = choices[choices["dataset_id"] == choices["dataset_id"].iloc[0]]
    for column, preferred in _PREFERRED.items():
        wanted = getattr(args, column)
        there = list(dict.fromkeys(choices[column]))
        if wanted is None:
            wanted = preferred if preferred in there else there[0]
        elif wanted not in there:
            what = column.replace("_", " ")
            msg = f'No results with {what} "{wanted}" for this choice. Found: {", ".join(there)}.'
            raise InputError(msg, "Choose one of them, or run the missing series.")
        choices = choices[choices[column] == wanted]
    row = choices.iloc[0]
    return Scope(
        dataset_id=row["dataset_id"],
        owner=_OWNER,
        label_level=row["label_level"],
        protocol=row["protocol"],
        budget=row["budget"],
        configurations=tuple(args.model),
        timepoints=tuple(args.timepoint),
        truth=args.truth,
    )


def _head(store: Store, scope: Scope, by: str) -> dict[str, Any]:
    from backend.evaluation import views

    made = views.provenance(store, scope)
    return {
        "by": by,
        "dataset": {
            "dataset_id": made.dataset_id,
            "name": made.dataset,
            "simulated": made.simulated,
            "source": made.source,
            "citation": made.citation,
        },
        "label_level": scope.label_level,
        "protocol": scope.protocol,
        "budget": scope.budget,
        "truth": scope.truth,
        "label_sources": made.label_sources,
        "cautions": list(made.cautions),
        "intervals": made.caption,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "types": list(panel.types),
        "n_types": panel.n_types,
        "text": panel.describe(),
        "excluded": panel.excluded,
        "slices": list(panel.slices),
        "skipped": panel.skipped,
        "sha256": panel.sha256,
    }


def _kind(kind: Kind, n_donors: int) -> dict[str, Any]:
    """Say whether scores compare or describe, and whom a description is about."""
    from backend.evaluation.description import COMPARISON, describes

    told: dict[str, Any] = {"kind": kind}
    return told if kind == COMPARISON else told | {"describes": describes(n_donors)}


def _described(descriptions: dict[str, Description]) -> dict[str, Any]:
    """Return what each slice is scored over, under a key that only descriptions have."""
    if not descriptions:
        return {}
    return {
        "descriptions": {
            name: {
                "types": list(one.types),
                "n_types": one.n_types,
                "text": one.describe(),
                "excluded": one.excluded,
                "n_cells": one.n_cells,
                "n_cells_scored": one.n_cells_scored,
                "n_donors": one.n_donors,
            }
            for name, one in descriptions.items()
        }
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values, NaN as None; a metric's value under the metric's own key."""
    return [
        {str(key): _plain(value) for key, value in row.items()}
        for row in _named(table).to_dict("records")
    ]


def _named(table: pd.DataFrame) -> pd.DataFrame:
    from backend.evaluation.metrics import metric_of

    if "metric" not in table:
        return table
    return table.rename(columns={"value": metric_of(table).key}).drop(columns="metric")


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _by_timepoint(store: Store, scope: Scope, metric: Metric) -> dict[str, Any]:
    from backend.evaluation import views

    result = views.overview(store, scope, metric=metric.key)
    scores = views.scores_by_timepoint(store, scope, metric=metric.key)
    return {
        **_kind(result.kind, result.provenance.n_donors),
        "panel": _panel(result.panel),
        **_described(result.descriptions),
        "sentences": list(result.sentences),
        "scores": _rows(scores.scores),
        "differences": _rows(scores.differences),
        "donors": _rows(scores.donors),
        "missing": list(scores.missing),
        "notes": list(scores.notes),
    }


def _by_cell_type(store: Store, scope: Scope, _: Metric) -> dict[str, Any]:
    from backend.evaluation import views

    result = views.f1_by_cell_type(store, scope)
    return {
        **_kind(result.kind, result.n_donors),
        "scores": _rows(result.scores.rename(columns={"column": "display_name"})),
        "never_predicted": _rows(result.never_predicted.drop(columns="column")),
        "zero_f1": _rows(result.zero_f1.drop(columns="column")),
        "notes": [f"{name}: {status}" for name, status in result.status.items()],
    }


def _by_donor(store: Store, scope: Scope, metric: Metric) -> dict[str, Any]:
    from backend.evaluation import views

    table = views.configurations(store, scope)
    names = scope.configurations or tuple(table["configuration"][table["is_default"].astype(bool)])
    results = [views.scores_by_donor(store, scope, name, metric=metric.key) for name in names]
    return {
        **_kind(results[0].kind, views.provenance(store, scope).n_donors),
        "panel": _panel(results[0].panel),
        "scores": [
            {"configuration": result.configuration, "display_name": result.display_name} | row
            for result in results
            for row in _rows(result.totals)
        ],
        "types": [
            {"configuration": result.configuration} | row
            for result in results
            for row in _rows(result.scores)
        ],
        "notes": [f"{result.configuration}: {result.status_text}" for result in results],
    }


_REPORTS: Final = {
    "timepoint": _by_timepoint,
    "cell_type": _by_cell_type,
    "donor": _by_donor,
}

_HEADINGS: Final = {
    "configuration": "model",
    "cell_type": "cell type",
    "f1": "F1",
    "low": "95 % interval",
    "n_types": "types",
    "n_donors": "donors",
    "n_cells": "cells",
}
_METRIC: Final = "metric"
"""Stands for the column of the metric."""
_PRINTED: Final = {
    "timepoint": ("configuration", "timepoint", _METRIC, "low", "n_donors", "n_cells"),
    "cell_type": ("configuration", "cell_type", "f1", "low", "n_donors", "n_cells"),
    "donor": ("configuration", "donor", "timepoint", _METRIC, "n_types", "n_cells"),
}
_WORDS: Final = ("configuration", "timepoint", "cell_type", "donor", "low")


def _print(report: dict[str, Any], metric: Metric) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    dataset = report["dataset"]
    kind = "simulated" if dataset["simulated"] else "real"
    console = Console()
    console.print(
        f"{dataset['name']} ({kind}), {report['label_level']} labels, "
        f"protocol {report['protocol']}, budget {report['budget']}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    columns = [metric.key if name == _METRIC else name for name in _PRINTED[report["by"]]]
    headings = {**_HEADINGS, metric.key: metric.label}
    for column in columns:
        side: Any = "left" if column in _WORDS else "right"
        table.add_column(headings.get(column, column), justify=side, no_wrap=True)
    for row in report["scores"]:
        table.add_row(*(_cell(row, column) for column in columns))
    console.print(table)
    for line in _footer(report):
        console.print(line.replace("*", ""), markup=False, highlight=False, soft_wrap=True)


def _footer(report: dict[str, Any]) -> Iterable[str]:
    yield from report.get("sentences", [])
    told = f"Kind: {report['kind']}"
    yield f"{told}; {report['describes']}." if "describes" in report else f"{told}."
    if "panel" in report and "describes" not in report:
        panel = report["panel"]
        left_out = "; ".join(f"{name}: {reason}" for name, reason in panel["excluded"].items())
        yield f"Panel: {panel['text']}." + (f" Left out: {left_out}." if left_out else "")
    if report.get("missing"):
        yield f"No data: {', '.join(report['missing'])}."
    yield from report.get("notes", [])
    yield f"Labels: {report['label_sources']}."
    yield report["intervals"]
    yield "Research use only. Not a medical device; not for diagnosis or treatment decisions."


def _cell(row: dict[str, Any], column: str) -> str:
    value = row[column]
    if column == "low":
        if value is None:
            return "none"
        few = " few donors" if row["interval"] == "few donors" else ""
        return f"{value:.3f}–{row['high']:.3f}{few}"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
