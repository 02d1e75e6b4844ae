"""`python -m backend store`: the query cache, and whether the bundles are as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from backend.store.cache import Store
    from backend.store.sync import SyncReport

__all__ = ["add_arguments", "run"]

_MOST: Final = 5
"""Problems of a bundle that a line names; `--json` has all."""


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
    for action, help_line in (
        ("verify", "compare every file of all bundles with the sha256 that its bundle lists"),
        ("seal", "list the sha256 of the files of bundles that have no list yet"),
    ):
        sub = actions.add_parser(action, help=help_line, description=help_line)
        sub.add_argument(
            "roots", nargs="*", type=Path, metavar="FOLDER",
            help="folders that hold runs/ and datasets/ (default: shipped, own and users')",
        )  # fmt: skip
        sub.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run one action; `verify` returns 1 when a bundle is not as it was written."""
    from backend.store.cache import Store

    if args.action in ("verify", "seal"):
        return _verify(args) if args.action == "verify" else _seal(args)

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


def _roots(args: argparse.Namespace) -> list[Path]:
    from backend.store.cache import default_roots

    for root in args.roots:
        if not root.is_dir():
            msg = f"There is no folder `{root}`."
            raise InputError(msg, "Give folders that hold `runs/` and `datasets/`.")
    return list(args.roots) or [Path(root) for _, root in default_roots()]


def _verify(args: argparse.Namespace) -> int:
    from backend.store.seals import verify

    report = {str(root): verify(root) for root in _roots(args)}
    wrong = {
        f"{root}/{name}": problems
        for root, bundles in report.items()
        for name, problems in bundles.items()
        if problems
    }
    n = sum(map(len, report.values()))
    if args.json:
        print(json.dumps({"n_bundles": n, "wrong": wrong}, indent=1))
    else:
        for name, problems in wrong.items():
            more = f"; {len(problems) - _MOST:,} more" if len(problems) > _MOST else ""
            print(f"{name}: {'; '.join(problems[:_MOST])}{more}")
        print(f"{n - len(wrong):,} of {n:,} bundles are as they were written.")
    return 1 if wrong else 0


def _seal(args: argparse.Namespace) -> int:
    from backend.store.seals import seal

    sealed = {str(root): seal(root) for root in _roots(args)}
    if args.json:
        print(json.dumps(sealed, indent=1))
    else:
        for root, n in sealed.items():
            print(f"{root}: {n:,} bundles got the sha256 of their files.")
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
