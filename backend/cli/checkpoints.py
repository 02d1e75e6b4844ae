"""`python -m backend checkpoints`: list, verify and register the authors' files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from backend.models.base import LoadReport
    from backend.models.checkpoints import FileCheck

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    shown = actions.add_parser("list", help="show published files and registered checkpoints")
    shown.add_argument("model", nargs="?", help="only this model")
    add = actions.add_parser("add", help="check a folder and register it; nothing is copied")
    verify = actions.add_parser("verify", help="compare a folder with the published files")
    for sub in (add, verify):
        sub.add_argument("model", help="scgpt, geneformer, scbert or scfoundation")
        sub.add_argument("folder", type=Path, metavar="DIR", help="folder from the authors")
        sub.add_argument(
            "--preset", help="published checkpoint to compare with (default: best fit)"
        )
    add.add_argument("--name", help="name for `run --checkpoint` (default: the preset's)")
    for sub in (shown, add, verify):
        sub.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run one action; `verify` returns 1 when a file differs or a needed one is missing."""
    if args.action == "list":
        return _list(args)
    return _add(args) if args.action == "add" else _verify(args)


def _list(args: argparse.Namespace) -> int:
    from backend.models import catalogue
    from backend.models.registry import model_class

    models = catalogue.models_with_files()
    if args.model is not None:
        catalogue.require_files(args.model)
        models = {args.model: model_class(args.model)}
    entries = [entry for key in models for entry in catalogue.registered(key)]
    if args.json:
        files = [asdict(file) for model in models.values() for file in model.checkpoint_files]
        print(
            json.dumps({"published": files, "registered": [asdict(e) for e in entries]}, indent=1)
        )
        return 0
    for model in models.values():
        print(model.display_name)
        for file in model.checkpoint_files:
            size = "size not known" if file.size is None else f"{file.size:>13,} bytes"
            digest = f"sha256 {file.sha256[:12]}…" if file.sha256 else "sha256 not known"
            print(f"  {file.preset:<24} {file.name:<36} {size:>20}  {digest}")
        print(f"  {model.checkpoint_files[0].source}")
    print("Registered:" if entries else "Registered: none")
    for entry in entries:
        kind = "as published" if entry.is_published else "differs from the published files"
        if entry.is_inhouse:
            kind = "in-house, one for each fold" if entry.is_series else "in-house"
        print(f"  {entry.model} {entry.name}: {entry.preset}, {kind}, {entry.folder}")
    return 0


def _describe(check: FileCheck) -> dict[str, Any]:
    return {
        "name": check.file.name,
        "status": check.status,
        "text": check.text,
        "size": check.size,
        "sha256": check.sha256,
        "is_required": check.file.is_required,
    }


def _verify(args: argparse.Namespace) -> int:
    from backend.models import catalogue

    checks = catalogue.verify(args.model, args.folder, args.preset)
    is_good = all(
        check.status in ("same", "unknown")
        or (check.status == "missing" and not check.file.is_required)
        for check in checks
    )
    if args.json:
        values = {"preset": checks[0].file.preset, "is_good": is_good}
        print(json.dumps(values | {"files": [_describe(check) for check in checks]}, indent=1))
        return 0 if is_good else 1
    print(f"Compared with {checks[0].file.preset}:")
    for check in checks:
        print(f"  {check.file.name:<36} {check.text}")
    if not is_good:
        print(checks[0].file.source)
    return 0 if is_good else 1


def _add(args: argparse.Namespace) -> int:
    from backend.models import catalogue

    entry, report = catalogue.add(args.model, args.folder, name=args.name, preset=args.preset)
    if args.json:
        print(json.dumps({"registered": asdict(entry), "load_report": asdict(report)}, indent=1))
        return 0
    print(f'Registered {entry.model} "{entry.name}" ({entry.preset}) in {entry.folder}.')
    for line in _report_lines(report):
        print(f"  {line}")
    if not entry.is_published and not entry.is_inhouse:
        print("  Its files differ from the published ones: see `checkpoints verify`.")
    print(f"Use it: run --model {entry.model} --init pretrained --checkpoint {entry.name} …")
    return 0


def _report_lines(report: LoadReport) -> list[str]:
    lines = [
        f"{report.n_loaded} tensors loaded: {report.share_loaded:.1%} of the backbone's parameters",
        f"{len(report.renamed)} of them renamed",
        f"{len(report.dropped)} of the file not used: {', '.join(report.dropped[:5]) or 'none'}",
        f"{len(report.fresh)} of the network left fresh: {', '.join(report.fresh[:5]) or 'none'}",
    ]
    return [*lines, *report.notes]
