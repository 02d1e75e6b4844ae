"""`python -m backend genes`: genes that separate failures from other cells."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.errors import InputError
from backend.evaluation.genes.contrast import AGAINST
from backend.types import TIMEPOINTS, Scope

if TYPE_CHECKING:
    import argparse

    from backend.evaluation.genes.failures import GenesOfFailures

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
    parser.add_argument("--timepoint", nargs="+", default=[], choices=TIMEPOINTS, metavar="T")
    parser.add_argument(
        "--adjust-for-depth", action="store_true", help="explain by the depth of cells first"
    )
    parser.add_argument("--json", action="store_true", help="print every gene as JSON")


def run(args: argparse.Namespace) -> int:
    """Test the genes and print them."""
    from backend.evaluation.cells.columns import load_columns
    from backend.evaluation.cells.map_cells import load_cells
    from backend.evaluation.genes.failures import genes_of_failures
    from backend.store.attach import find_expression
    from backend.store.cache import Store, default_roots
    from backend.store.roots import is_url

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
    roots = [Path(root) for _, root in default_roots() if not is_url(root)]
    expression = find_expression(roots, scope.dataset_id)
    if expression is None:
        msg = "The counts of these cells are not kept here."
        command = f"python -m backend data attach FILE.h5ad --dataset {scope.dataset_id}"
        raise InputError(msg, f"Attach the file that the results were made of: {command}")
    result = genes_of_failures(
        cells, columns, cells.in_scope(scope), expression,
        label=args.label, predicted=args.predicted, against=args.against,
        adjust_for_depth=args.adjust_for_depth,
    )  # fmt: skip
    print(json.dumps(_report(result), ensure_ascii=False, indent=1) if args.json else _text(result))
    return 0


def _report(result: GenesOfFailures) -> dict[str, Any]:
    rows = result.table.to_dict("records")
    return {
        "label": result.label,
        "predicted": result.predicted,
        "against": result.against,
        "sentences": list(result.sentences),
        "n_failures": result.n_failures,
        "n_others": result.n_others,
        "n_donors": result.n_donors,
        "donors_are_replicates": result.is_paired,
        "adjusted_for_depth": result.is_depth_adjusted,
        "median_counts": {"failures": result.depth[0], "others": result.depth[1]},
        "genes": [{key: _plain(value) for key, value in row.items()} for row in rows],
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(result: GenesOfFailures) -> str:
    lines = [
        *result.sentences,
        f"{'gene':<16}{'log2 fold':>10}{'q':>10}{'failures':>10}{'others':>8}",
    ]
    for row in result.table.head(_SHOWN).itertuples():
        q = f"{row.q_value:.1e}" if math.isfinite(row.q_value) else ""
        lines.append(
            f"{row.gene:<16}{row.log2_fold_change:>10.2f}{q:>10}"
            f"{row.share_failures:>10.0%}{row.share_others:>8.0%}  {row.marks}"
        )
    if (n_more := len(result.table) - _SHOWN) > 0:
        lines.append(f"{n_more:,} more genes were tested: --json gives all.")
    return "\n".join([*lines, "These genes separate; they are no reasons."])
