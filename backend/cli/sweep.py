"""`python -m backend sweep`: do every run of a plan, once."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from backend.store.roots import Location
    from backend.studies.costs import Costs
    from backend.studies.executors.common import Executor
    from backend.studies.plan import Plan
    from backend.studies.planned_runs import Task
    from backend.studies.prepare import Study
    from backend.training.progress import Outcome

__all__ = ["add_arguments", "run"]

_EXECUTORS: Final = ("local", "ray")
_COSTS: Final = ("what", "runs", "cells", "epochs", "ms", "hours", "ms from")
_HEAD: Final = ("state", "run", "what", "on", "fold", "seed", "cells", "time")


class _Stopped(KeyboardInterrupt):
    """A signal asked the sweep to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("plan", type=Path, help="a plan.toml; see docs/plans.md")
    parser.add_argument("--dataset", type=Path, help="take the place of the plan's dataset")
    parser.add_argument(
        "--out", help="folder or URL of the results (default: the plan's, else FAULTLINE_HOME)"
    )
    parser.add_argument("--executor", choices=_EXECUTORS, default="local")
    parser.add_argument(
        "--jobs", type=int, help="runs at a time (default: one a GPU, else one a core or so)"
    )
    parser.add_argument("--address", help="a Ray cluster (default: Ray is started here)")
    parser.add_argument("--dry-run", action="store_true", help="print the runs and stop")


def run(args: argparse.Namespace) -> int:
    """Do the runs; return 1 when one failed, 128 and the signal when one ended the sweep."""
    from backend.studies.lock import SweepLock
    from backend.studies.plan import read_plan
    from backend.studies.prepare import local_folder

    if args.jobs is not None and args.jobs < 1:
        msg = f"--jobs is {args.jobs}."
        raise InputError(msg, "Give a whole number from 1.")
    if args.address is not None and args.executor != "ray":
        msg = f"--address goes with --executor ray; the executor is {args.executor}."
        raise InputError(msg, "Add --executor ray, or leave out --address.")
    # What a plan costs can be known before its checkpoints are had.
    plan = read_plan(args.plan, dataset=args.dataset, is_tolerant=args.dry_run)
    out = _out(args, plan)
    if args.dry_run:
        return _do(args, plan, out)
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with SweepLock(local_folder(out), plan.name) as lock:
            if lock.notice:
                print(lock.notice)
            return _do(args, plan, out)
    except _Stopped as stopped:
        print("Stopped. Finished runs are kept; the same command goes on with the others.")
        return 128 + stopped.number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _: object) -> None:
    """Leave through every `finally`, once: workers are ended and the lock is removed."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise _Stopped(number)


def _out(args: argparse.Namespace, plan: Plan) -> Location:
    from backend.config import home
    from backend.store.roots import is_url

    given = args.out or plan.out
    if given is None:
        return home()
    if is_url(given):
        if args.executor != "ray":
            msg = f"--out is the URL {given}, but the local executor writes to a folder."
            raise InputError(msg, "Add --executor ray, or give a folder.")
        return str(given)
    folder = Path(given).expanduser()
    return (folder if args.out else args.plan.parent / folder).resolve()


def _do(args: argparse.Namespace, plan: Plan, out: Location) -> int:
    """Prepare, print the table, and execute unless it is a dry run."""
    from rich.console import Console

    from backend.cli.output import ProgressBar
    from backend.studies.costs import Costs, check_disk
    from backend.studies.prepare import local_folder, prepare

    console = Console(stderr=True)
    executor, jobs, has_gpu = _executor(args, plan)
    with console.status("Reading the plan") as status:
        study = prepare(plan, out, is_written=not args.dry_run, say=status.update)
    costs = Costs(out, has_gpu=has_gpu)
    _print_plan(study, costs, jobs)
    check_disk(local_folder(out), study.bytes_needed(jobs=jobs))
    if args.dry_run:
        return 0
    texts = {each.key: each.text for each in _planned(study) if not each.is_done}
    with ProgressBar(console, texts, is_listing=True) as bar:
        outcomes = study.execute(executor, bar.show)
    return _print_summary(study, outcomes)


def _executor(args: argparse.Namespace, plan: Plan) -> tuple[Executor, int, bool]:
    """Return the executor, how many runs it does at a time, and whether there is a GPU."""
    from os import cpu_count

    from backend.studies.executors.local import LocalExecutor, gpu_names

    gpus = gpu_names() if any(row.series.preset for row in plan.rows) else ()
    jobs = args.jobs or len(gpus) or max(1, (cpu_count() or 1) // plan.threads)
    if args.executor == "ray":
        from backend.studies.executors.ray import RayExecutor

        return (
            RayExecutor(address=args.address, jobs=jobs, threads=plan.threads),
            jobs,
            bool(gpus),
        )
    return LocalExecutor(jobs=jobs, threads=plan.threads, gpus=gpus), jobs, bool(gpus)


def _print_plan(study: Study, costs: Costs, jobs: int) -> None:
    """Print one line a checkpoint and run, then what all of them are likely to cost."""
    for line in _aligned([_HEAD, *(_row(each, costs) for each in _planned(study))]):
        print(line)
    states = Counter(each.state for each in study.runs)
    counts = ", ".join(f"{states[name]} {name}" for name in ("done", "to do", "failed before"))
    print(f"{len(study.runs)} runs: {counts}.")
    if study.checkpoints:
        n_made = sum(each.is_done for each in study.checkpoints)
        print(f"{len(study.checkpoints)} checkpoints: {n_made} registered.")
    if study.n_repeated:
        print(f"{study.n_repeated} runs are named more than once; each is done once.")
    _print_costs(study, costs, jobs)
    print(f"Threads of a run: {study.plan.threads}, whatever the number of jobs.")
    for note in study.notes:
        print(f"note: {note}")
    for warning in study.warnings:
        print(f"warning: {warning}")
    for gap in study.gaps:
        print(f"fold: {gap}")
    for model, name in study.plan.missing:
        print(f"missing: checkpoint {model} {name}; `checkpoints add {model} DIR` registers it")
    for run in study.runs:
        if run.state == "failed before":
            print(f"failed before: {run.text}: {run.reason}")


def _print_costs(study: Study, costs: Costs, jobs: int) -> None:
    """Print what is not done yet by model and preset, with its source, and all of it together."""
    waiting = [each for each in _planned(study) if not each.is_done]
    if table := costs.table(waiting):
        rows = [
            (
                cost.key,
                f"{cost.n_runs}",
                f"{cost.n_train:,}",
                f"{cost.epochs:.3g}",
                "?" if cost.ms is None else f"{cost.ms:.3g}",
                "?" if cost.hours is None else f"{cost.hours:,.1f} {cost.unit}",
                cost.source,
            )
            for cost in table
        ]
        print()
        for line in _aligned([_COSTS, *rows]):
            print(line)
    totals = []
    for unit in ("GPU", "core"):
        hours = [cost.hours for cost in table if cost.unit == unit]
        if hours:
            least = "at least " if None in hours else ""
            totals.append(f"{least}{sum(each or 0.0 for each in hours):,.1f} {unit} hours")
    seconds = [_seconds(each, costs) for each in waiting]
    least = "at least " if None in seconds else ""
    total = _time(sum(each or 0.0 for each in seconds) / jobs) or "nothing"
    needed = study.bytes_needed(jobs=jobs) / 2**20
    print(f"Estimated: {', '.join(totals) or 'nothing'}, {needed:,.0f} MiB of disk.")
    print(f"With {jobs} at a time: {least}{total}.")


def _planned(study: Study) -> list[Task]:
    return [*study.checkpoints, *study.runs]


def _seconds(planned: Task, costs: Costs) -> float | None:
    return costs.seconds(planned.cost_key, planned.n_train, planned.series.settings)


def _row(planned: Task, costs: Costs) -> tuple[str, ...]:
    time = "" if planned.is_done else _time(_seconds(planned, costs))
    numbers = (str(planned.fold), str(planned.series.seed), f"{planned.n_train:,}", time)
    return (planned.state, planned.run_id or "", planned.name, planned.fitted_on, *numbers)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _time(seconds: float | None) -> str:
    if not seconds:
        return ""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _print_summary(study: Study, outcomes: Sequence[Outcome]) -> int:
    """Print what became of everything; return the exit code."""
    made = {each.key for each in study.checkpoints}
    ended = Counter(each.status for each in outcomes if each.key not in made)
    skipped = ended["skipped"] + sum(each.is_done for each in study.runs)
    print(f"{ended['done']} done, {skipped} skipped, {ended['failed']} failed.")
    texts = {each.key: each.text for each in _planned(study)}
    failed = [each for each in outcomes if each.status == "failed"]
    for each in failed:
        print(f"failed: {texts[each.key]}: {each.reason}")
    retried = [each for each in outcomes if each.attempts > 1 and each.status != "failed"]
    for each in retried:
        print(f"needed {each.attempts} attempts: {texts[each.key]}")
    return 1 if failed else 0
