"""`python -m backend genes`: genes that separate failures from other cells."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.errors import InputError
from backend.evaluation.genes.contrast import AGAINST

if TYPE_CHECKING:
    import argparse

    from backend.evaluation.genes.separate import Separation

__all__ = ["add_arguments", "run"]

_SHOWN: Final = 20
_OWNER: Final = "local"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("--run", required=True, metavar="ID", help="any run of the series")
    parser.add_argument("--label", required=True, help="what the cells are")
    parser.add_argument("--predicted", required=True, help="what they are called instead")
    parser.add_argument(
        "--against", choices=tuple(AGAINST), default="label", help="what they are set against"
    )
    parser.add_argument("--timepoint", nargs="+", default=[], metavar="T")
    parser.add_argument(
        "--adjust-for-depth", action="store_true", help="explain by the depth of cells first"
    )
    parser.add_argument("--json", action="store_true", help="print every gene as JSON")


def run(args: argparse.Namespace) -> int:
    """Test the genes and print them."""
    from backend.evaluation.cells.columns import load_columns
    from backend.evaluation.cells.map_cells import load_cells
    from backend.evaluation.genes.contrast import contrast_of
    from backend.evaluation.genes.separate import separate
    from backend.store.attach import find_expression
    from backend.store.cache import Store, default_roots
    from backend.store.roots import is_url
    from backend.types import Scope

    with Store.open_default() as store:
        store.sync()
        runs = store.query("runs", owner=_OWNER)
        found = runs[runs["run_id"] == args.run]
        if found.empty:
            msg = f"There is no run {args.run[:40]} here."
            raise InputError(msg, "`python -m backend runs list` names those that there are.")
        row = found.iloc[0]
        scope = Scope(
            dataset_id=row["dataset_id"],
            label_level=row["label_level"],
            protocol=row["protocol"],
            budget=row["budget"],
            timepoints=tuple(args.timepoint),
            owner=_OWNER,
        )
        columns = load_columns(store, scope)
        cells = load_cells(store, scope, row["configuration"], columns=columns)
        contrast = contrast_of(
            cells, cells.in_scope(scope),
            label=args.label, predicted=args.predicted, against=args.against,
        )  # fmt: skip
    roots = [Path(root) for _, root in default_roots() if not is_url(root)]
    expression = find_expression(roots, row["dataset_id"])
    if expression is None:
        msg = "The counts of these cells are not kept here."
        hint = f"python -m backend data attach FILE.h5ad --dataset {row['dataset_id']}"
        raise InputError(msg, f"Attach the file that the results were made of: {hint}")
    result = separate(
        expression, contrast, cells.roles["donor"].codes, columns.n_counts,
        adjust_for_depth=args.adjust_for_depth,
    )  # fmt: skip
    report = _report(contrast.sentence, result)
    print(json.dumps(report, ensure_ascii=False, indent=1) if args.json else _text(report))
    return 0


def _report(sentence: str, result: Separation) -> dict[str, Any]:
    rows = result.table.to_dict("records")
    return {
        "contrast": sentence,
        "method": "paired pseudobulk" if result.is_paired else "rank sum of cells",
        "n_donors": result.n_donors,
        "adjusted_for_depth": result.is_depth_adjusted,
        "median_counts": {"failures": result.depth[0], "others": result.depth[1]},
        "notes": list(result.notes),
        "genes": [{key: _plain(value) for key, value in row.items()} for row in rows],
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(report: dict[str, Any]) -> str:
    depth = report["median_counts"]
    lines = [
        f"{report['contrast']}.",
        f"{report['method']}, donors with enough cells on both sides: {report['n_donors']}.",
        f"Median counts of a cell: {depth['failures']:,.0f} against {depth['others']:,.0f}.",
        *(f"note: {note}" for note in report["notes"]),
        f"{'gene':<16}{'log2 fold':>10}{'q':>10}{'failures':>10}{'others':>10}",
    ]
    for row in report["genes"][:_SHOWN]:
        q = "" if row["q_value"] is None else f"{row['q_value']:.1e}"
        lines.append(
            f"{row['gene']:<16}{row['log2_fold_change']:>10.2f}{q:>10}"
            f"{row['share_failures']:>10.0%}{row['share_others']:>10.0%}"
        )
    n_more = len(report["genes"]) - _SHOWN
    if n_more > 0:
        lines.append(f"{n_more:,} more genes were tested: --json gives all.")
    return "\n".join([*lines, "These genes separate; they are no reasons."])
