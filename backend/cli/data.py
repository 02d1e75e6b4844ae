"""`python -m backend data`: import, check, simulate and subset datasets."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.cli.roles import add_role_arguments, roles_of
from backend.data.problems import some
from backend.data.stand_in import LIKE, STAGES
from backend.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator


__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    geo = actions.add_parser("import-geo", help="read the files of GEO GSE116256 into one .h5ad")
    geo.add_argument("folder", type=Path, metavar="DIR", help="folder with the files from GEO")
    geo.add_argument("out", type=Path, metavar="OUT.h5ad")
    geo.add_argument(
        "--clinical",
        type=Path,
        metavar="CSV",
        help="sample,timepoint of samples; the only way to Relapse",
    )

    check = actions.add_parser("check", help="say whether a file can be used; exit code 0 or 2")
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--quick", action="store_true", help="look at samples of the values only")
    check.add_argument(
        "--for",
        dest="purpose",
        choices=("train", "evaluate", "predict"),
        default="train",
        help="what the file is for: train needs cell type and donor, evaluate the cell type",
    )
    add_role_arguments(check)

    simulate = actions.add_parser("simulate", help="write a simulated AML course")
    simulate.add_argument("out", type=Path, metavar="OUT.h5ad")
    simulate.add_argument(
        "--like",
        choices=LIKE,
        default=None,
        help="in the composition, columns and words of a published atlas; cells stay simulated",
    )
    simulate.add_argument(
        "--stage",
        choices=STAGES,
        default=None,
        help="of the atlas' file: first has 24 labels, final (default) also 19 and cleaned timepoints",
    )
    simulate.add_argument("--cells", type=int, default=6_000, metavar="N")
    simulate.add_argument(
        "--genes", type=int, default=None, metavar="G", help="default: 3,000; 18,000 with --like"
    )
    simulate.add_argument("--seed", type=int, default=0, metavar="S")

    subset = actions.add_parser("subset", help="draw a subset with stated shares, donors kept")
    subset.add_argument("source", type=Path, metavar="IN.h5ad")
    subset.add_argument("out", type=Path, metavar="OUT.h5ad")
    subset.add_argument("--by", default="timepoint", metavar="ROLE")
    subset.add_argument("--shares", required=True, metavar="VALUE=SHARE,…")
    subset.add_argument(
        "--cells", type=int, default=None, metavar="N", help="default: as many as can be"
    )
    subset.add_argument("--seed", type=int, default=0, metavar="S")
    add_role_arguments(subset)

    neighbours = actions.add_parser(
        "neighbours", help="add the nearest cells of each cell to the results of a dataset"
    )
    neighbours.add_argument("--dataset", type=Path, required=True, metavar="FILE.h5ad")
    neighbours.add_argument(
        "--out", type=Path, default=None, metavar="ROOT", help="default: FAULTLINE_HOME"
    )
    neighbours.add_argument("--seed", type=int, default=0, metavar="S")
    add_role_arguments(neighbours)

    attach = actions.add_parser(
        "attach", help="keep the counts by gene of a dataset that has results, for pages on genes"
    )
    attach.add_argument("file", type=Path, metavar="FILE.h5ad")
    attach.add_argument("--dataset", required=True, metavar="ID", help="as `runs list` names it")
    add_role_arguments(attach)

    profiles = actions.add_parser("profiles", help="list the published data sets that are known")

    for action in (geo, check, simulate, subset, neighbours, attach, profiles):
        action.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    return _ACTIONS[args.action](args)


def _import_geo(args: argparse.Namespace) -> int:
    from backend.data.geo import read_clinical
    from backend.data.profiles.vangalen2019 import VANGALEN2019

    clinical = read_clinical(args.clinical) if args.clinical else None
    with _progress("Reading samples") as progress:
        assert VANGALEN2019.import_folder is not None
        report = VANGALEN2019.import_folder(
            args.folder, args.out, clinical=clinical, progress=progress
        )
    if args.json:
        _print_json(report.to_json() | {"out": str(args.out)})
        return 0
    print(
        f"{args.out}: {report.n_cells:,} cells of {len(report.samples)} samples, "
        f"{report.n_genes:,} genes, {report.n_unlabelled:,} cells without label."
    )
    for why, names in report.folder.left_out_by_reason.items():
        print(f"note: {len(names)} left out ({why}): {', '.join(names)}.")
    if others := report.folder.other_files:
        print(f"note: {len(others)} left out (no file of a sample): {some(others)}.")
    _print_notes(report.notes)
    return 0


def _check(args: argparse.Namespace) -> int:
    from backend.data.isolated import check_isolated
    from backend.data.profiles import profile_named

    report = check_isolated(
        args.file,
        quick=args.quick,
        roles=roles_of(args),
        purpose=args.purpose,
        progress=_progress("Reading values"),
    )
    if args.json:
        _print_json(report.to_json())
        return 0 if report.is_usable else 2
    for problem in report.problems:
        print(f"error: {problem.message}", file=sys.stderr)
        print(f"hint:  {problem.hint}", file=sys.stderr)
    if not report.is_usable:
        return 2
    facts = report.facts
    print(f"{args.file}: usable to {args.purpose} ({report.mode} check, {report.seconds:.1f} s).")
    print(
        f"  {facts['n_cells']:,} cells, {facts['n_genes']:,} genes "
        f"({facts['n_genes_matched']:,} known, by {facts['gene_ids']}), "
        f"counts in {facts['counts']} ({facts['stored_as']})."
    )
    if (profile := profile_named(facts["profile"])) is not None:
        print(
            f"  Read as {profile.title} (profile {profile.key}, docs/{profile.page}); "
            "--role profile= reads it as any file."
        )
    found = ", ".join(f"{role} = {column}" for role, column in facts["roles"].items())
    print(f"  Roles: {found or 'none'}.")
    if facts["n_cell_types"]:
        print(
            f"  {facts['n_cell_types']} cell types; {facts['n_unlabelled']:,} cells without label."
        )
    if facts["n_donors"]:
        print(f"  {facts['n_donors']} donors.")
    elif may_be := facts["candidates"]["donor"]:
        print(f"  No donor column; by its values it may be {', '.join(may_be[:3])}.")
    if facts["timepoints"]:
        print("  " + ", ".join(f"{name} {n:,}" for name, n in facts["timepoints"].items()) + ".")
    _print_notes(report.notes)
    return 0


def _simulate(args: argparse.Namespace) -> int:
    n_genes = args.genes if args.genes is not None else 18_000 if args.like else 3_000
    facts: dict[str, Any] = {"n_cells": args.cells, "n_genes": n_genes, "seed": args.seed}
    with _progress("Simulating") as progress:
        if args.like:
            from backend.data.stand_in.file import write_stand_in

            stage = args.stage or STAGES[-1]
            facts |= {"like": args.like, "stage": stage}
            write_stand_in(
                args.out,
                args.cells,
                seed=args.seed,
                n_genes=n_genes,
                stage=stage,
                progress=progress,
            )
        elif args.stage:
            msg = "A stage is one of a published atlas' file, and none is named."
            raise InputError(msg, f"Add --like {LIKE[0]}, or leave out --stage.")
        else:
            from backend.data.simulate import write_simulated

            write_simulated(
                args.out, args.cells, seed=args.seed, n_genes=n_genes, progress=progress
            )
    if args.json:
        _print_json(facts | {"out": str(args.out), "simulated": True})
    else:
        shape = f" in the shape of {args.like}" if args.like else ""
        print(f"{args.out}: {args.cells:,} simulated cells{shape}, {n_genes:,} genes.")
    return 0


def _subset(args: argparse.Namespace) -> int:
    from backend.data.subset import parse_shares, write_subset

    shares = parse_shares(args.shares)
    with _progress("Drawing cells") as progress:
        report = write_subset(
            args.source,
            args.out,
            shares,
            by=args.by,
            n_cells=args.cells,
            seed=args.seed,
            roles=roles_of(args),
            progress=progress,
        )
    if args.json:
        _print_json(report.to_json() | {"out": str(args.out)})
        return 0
    print(
        f"{args.out}: {report.n_cells:,} of {report.parent_cells:,} cells, {report.n_donors} donors."
    )
    for name, n in report.cells.items():
        print(f"  {name}: {n:,} cells ({n / report.n_cells:.2%})")
    print(f"  Parent: dataset {report.parent}.")
    _print_notes(report.notes)
    return 0


def _neighbours(args: argparse.Namespace) -> int:
    from backend.config import home
    from backend.data import describe, load
    from backend.data.cell_map import components_of, nearest_cells
    from backend.store.neighbours import add_neighbours

    adata = load(args.dataset, roles_of(args))
    dataset_id = describe(adata).dataset_id
    nearest = nearest_cells(components_of(adata, seed=args.seed), seed=args.seed)
    folder = add_neighbours(args.out or home(), dataset_id, adata.obs_names, nearest)
    if args.json:
        n_cells, k = nearest.shape
        facts = {"dataset_id": dataset_id, "n_cells": n_cells, "n_neighbours": k}
        _print_json(facts | {"out": str(folder)})
    else:
        print(f"{folder}: the {nearest.shape[1]} nearest cells of {len(nearest):,} cells.")
    return 0


def _attach(args: argparse.Namespace) -> int:
    from backend.config import home
    from backend.store.attach import attach_expression
    from backend.store.cache import default_roots
    from backend.store.roots import is_url

    with _progress("Writing counts by gene") as progress:
        n_cells = attach_expression(
            args.file,
            args.dataset,
            roots=[Path(root) for _, root in default_roots() if not is_url(root)],
            home=home(),
            roles=roles_of(args),
            progress=progress,
        )
    if args.json:
        _print_json({"dataset_id": args.dataset, "n_cells": n_cells})
    else:
        print(f"{args.dataset}: counts by gene of {n_cells:,} cells.")
    return 0


def _profiles(args: argparse.Namespace) -> int:
    from backend.data.profiles import PROFILES

    rows = [
        {
            "key": one.key,
            "title": one.title,
            "accession": one.accession,
            "read_by": "data import-geo" if one.import_folder else "every command, by itself",
            "page": f"docs/{one.page}",
        }
        for one in PROFILES.values()
    ]
    if args.json:
        _print_json(rows)
    for row in () if args.json else rows:
        print(f"{row['key']}: {row['title']} ({row['accession']})")
        print(f"  Read by {row['read_by']}. See {row['page']}.")
    return 0


_ACTIONS = {
    "profiles": _profiles,
    "import-geo": _import_geo,
    "check": _check,
    "simulate": _simulate,
    "subset": _subset,
    "neighbours": _neighbours,
    "attach": _attach,
}


def _print_json(value: dict[str, Any] | list[dict[str, str]]) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        print(f"note: {note}")


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Draw a bar on stderr when that is a terminal; stdout stays for the report."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)

        def update(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{title}: {what}")

        yield update
