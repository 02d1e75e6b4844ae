"""Options that say what the columns of a file mean; every verb that reads one has the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.data.roles import Roles, parse_roles

if TYPE_CHECKING:
    import argparse

__all__ = ["add_role_arguments", "roles_of"]


def add_role_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--role`, `--timepoint` and `--round`."""
    parser.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="ROLE=COLUMN",
        help="column of one role, such as cell_type=annotation; the others stay guessed; "
        '"donor=" says that there is none, counts=layers/NAME chooses the matrix',
    )
    parser.add_argument(
        "--timepoint",
        action="append",
        default=[],
        metavar="VALUE=TIMEPOINT",
        dest="timepoints",
        help='what a value of the timepoint column means, such as "Day 0=Diagnosis"',
    )
    parser.add_argument(
        "--round",
        action="store_true",
        dest="is_rounded",
        help="round counts that are not whole, such as those after ambient RNA was taken off",
    )


def roles_of(args: argparse.Namespace) -> Roles | None:
    """Return the roles that were given, None without any."""
    return parse_roles(args.role, args.timepoints, is_rounded=args.is_rounded)
