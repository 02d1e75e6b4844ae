"""`python -m backend store`: bring the query cache up to date, make it again, or describe it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from backend.store.cache import Store
    from backend.store.sync import SyncReport

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, help_line in (
        ("sync", "read new bundles, drop those that vanished"),
        ("rebuild", "throw the store file away and read all bundles again"),
        ("info", "say what the store holds and where it lies; changes nothing else"),
    ):
        sub = actions.add_parser(action, help=help_line, description=help_line)
        sub.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    from backend.store.cache import Store

    with Store.open_default() as store:
        if args.action == "info":
            values = store.info()
            if args.json:
                print(json.dumps(values, indent=1))
            else:
                _print_info(values)
            return 0
        report = _with_progress(
            store.rebuild if args.action == "rebuild" else store.sync, is_quiet=args.json
        )
        if args.json:
            print(json.dumps(report.to_json() | {"file": _file(store)}, indent=1))
        else:
            _print_report(report, store)
    return 0


def _file(store: Store) -> str | None:
    return None if store.path is None else str(store.path)


def _with_progress(work: Callable[..., SyncReport], *, is_quiet: bool) -> SyncReport:
    if is_quiet:
        return work()
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("Reading runs"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("runs", total=None)
        return work(lambda done, total: bar.update(task, completed=done, total=total))


def _print_report(report: SyncReport, store: Store) -> None:
    print(
        f"{report.n_datasets} datasets, {report.n_runs} runs ({report.n_failed} failed);"
        f" {report.n_added} bundles added, {report.n_changed} changed, {report.n_dropped} dropped"
        f" in {report.seconds:.1f} s."
    )
    for problem in report.problems:
        print(f"not used: {problem}")
    print(f"Store: {_file(store) or 'in memory, because no file could be written'}")


def _print_info(values: dict[str, Any]) -> None:
    size = f"{values['size_mib']:.1f} MiB" if values["file"] else "kept in memory"
    print(f"Store:    {values['file'] or 'none'} ({size}), version {values['version'] or 'empty'}")
    for root in values["roots"]:
        print(f"Root:     {root['owner']}: {root['location']}")
    print(
        f"Contents: {values['n_datasets']} datasets, {values['n_series']} series,"
        f" {values['n_runs']} runs ({values['n_failed']} failed),"
        f" {values['n_predictions']:,} predictions, {values['n_confusions']:,} confusion counts"
    )
    for problem in values["problems"]:
        print(f"not used: {problem}")
