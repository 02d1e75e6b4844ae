"""What a run is likely to cost: seconds and bytes, from finished runs or from guide numbers."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from backend.errors import InputError, StoreError
from backend.store.bundle import list_runs, read_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from backend.store.bundle import RunRecord
    from backend.store.roots import Location
    from backend.studies.planned_runs import Task

__all__ = [
    "GUIDES",
    "Cost",
    "Costs",
    "Guide",
    "bytes_at_work",
    "bytes_of_checkpoint",
    "bytes_of_run",
    "cell_passes",
    "check_disk",
]

_MIB: Final = 2**20
_GIB: Final = 2**30
_BATCH_SIZE: Final = 32
_BYTES_PER_TOKEN: Final = 8
_BYTES_PER_PREDICTION: Final = 64
_BYTES_PER_BUNDLE: Final = 64 * 2**10
_SPARE: Final = 1.1


MEASURED: Final = "measured: van Galen 2019, one core"
STATED: Final = "stated: 6 x parameters x tokens, and attention, at 100 TFLOP/s"


@dataclass(frozen=True, slots=True)
class Guide:
    """Guide numbers of a model or preset.

    ms     : milliseconds per training cell and epoch, validation and prediction included; one CPU
             core for baselines and `small` presets, one data-centre GPU for published sizes
    epochs : epochs when the settings name none
    mib    : size of the weights
    tokens : tokens of a cell at most
    source : where `ms` is from
    """

    ms: float
    epochs: int = 1
    mib: float = 0.0
    tokens: int = 0
    source: str = MEASURED


GUIDES: Final[Mapping[str, Guide]] = {
    "majority": Guide(0.02),
    "logreg": Guide(8),
    "celltypist": Guide(1.5),
    "hgb": Guide(1.8),
    "scgpt.small": Guide(1.5, 10, 2, 256),
    "geneformer.small": Guide(4.5, 10, 8, 256),
    "scbert.small": Guide(2.5, 10, 2, 1024),
    "scfoundation.small": Guide(3, 10, 2, 256),
    "scgpt.whole_human": Guide(10, 10, 200, 3001, STATED),
    "geneformer.v1_10m": Guide(2, 10, 40, 2048, STATED),
    "geneformer.v2_104m": Guide(40, 10, 400, 4096, STATED),
    "geneformer.v2_316m": Guide(110, 10, 1250, 4096, STATED),
    "scbert.panglao": Guide(30, 100, 32, 16907, STATED),
    "scfoundation.cell_01b": Guide(15, 20, 460, 19266, STATED),
}
"""By preset, or by model for baselines; `docs/plans.md` says where they are from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What all fits of one model and preset are likely to cost.

    n_train : training cells of a fit, on average
    epochs  : how often each is seen
    ms      : milliseconds per training cell and epoch, None without any guide
    hours   : of one GPU or one core, as `unit` says; None without any guide
    source  : where `ms` is from
    """

    key: str
    n_runs: int
    n_train: int
    epochs: float
    ms: float | None
    hours: float | None
    unit: str
    source: str


_UNKNOWN: Final = Guide(0, 10, 400, 4096)
"""Sizes for a preset without a guide; its time is not guessed."""


def cell_passes(key: str, n_train: int, settings: Mapping[str, Any]) -> int:
    """Return how often a training cell is seen in a run; `key` as in `GUIDES`."""
    guide = GUIDES.get(key, _UNKNOWN)
    passes = n_train * int(settings.get("epochs") or guide.epochs)
    if settings.get("max_steps"):
        batch_size = int(settings.get("batch_size") or _BATCH_SIZE)
        return min(passes, int(settings["max_steps"]) * batch_size)
    return passes


def check_disk(folder: Path, n_bytes: int) -> None:
    """Raise `InputError` when a folder's disk has less free space than is needed."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if n_bytes * _SPARE > free:
        msg = (
            f"The plan needs about {n_bytes * _SPARE / _GIB:.2f} GiB below `{folder}`, but only "
            f"{free / _GIB:.2f} GiB are free."
        )
        raise InputError(msg, "Free some space, give another --out, or leave runs out of the plan.")


def bytes_of_run(key: str, n_predicted: int, *, is_final: bool) -> int:
    """Return the likely size of a bundle."""
    guide = GUIDES.get(key, _UNKNOWN)
    weights = guide.mib * _MIB if is_final else 0
    return int(_BYTES_PER_BUNDLE + n_predicted * _BYTES_PER_PREDICTION + weights)


def bytes_of_checkpoint(key: str) -> int:
    """Return the likely size of a checkpoint that is made in-house."""
    return int(GUIDES.get(key, _UNKNOWN).mib * _MIB)


def bytes_at_work(keys: Iterable[str], n_cells: int, *, jobs: int) -> int:
    """Return what unfinished runs keep on disk at most; one key a run.

    The largest preset's state is the weights now and at the best epoch and two moments of the
    optimiser, and a new state is written beside the last one. A `small` preset chooses its genes
    on training cells, so that each run has tokens of its own; the others share theirs.
    """
    keys = list(keys)
    state = max((GUIDES.get(key, _UNKNOWN).mib for key in keys), default=0.0) * _MIB * 4 * 2
    small = [key for key in keys if key.endswith(".small")]
    shared = {key for key in keys if not key.endswith(".small")}
    tokens = sum(GUIDES.get(key, _UNKNOWN).tokens for key in [*small, *shared])
    return int(state * jobs + tokens * n_cells * _BYTES_PER_TOKEN)


class Costs:
    """Estimates for the runs of a plan.

    Parameters
    ----------
    root
        Finished runs below it give the speed of their model and preset.
    has_gpu
        Only runs of the same kind of device count.
    """

    def __init__(self, root: Location, *, has_gpu: bool) -> None:
        self._has_gpu = has_gpu
        self._ms = _measured(_records(root), has_gpu=has_gpu)

    def seconds(self, key: str, n_train: int, settings: Mapping[str, Any]) -> float | None:
        """Return the likely wall seconds of a run, or None for a preset without any guide."""
        if key in self._ms:
            ms = self._ms[key]
        elif key in GUIDES:
            ms = GUIDES[key].ms
        else:
            return None
        return ms / 1000 * cell_passes(key, n_train, settings)

    def table(self, planned: Iterable[Task]) -> list[Cost]:
        """Add up what fits of a plan are likely to cost, by model and preset, in their order."""
        fits: dict[str, list[Task]] = {}
        for each in planned:
            fits.setdefault(each.cost_key, []).append(each)
        return [self._cost(key, same) for key, same in fits.items()]

    def _cost(self, key: str, same: list[Task]) -> Cost:
        fits = [(each.n_train, each.series.settings) for each in same]
        n_train = sum(n for n, _ in fits)
        passes = sum(cell_passes(key, *fit) for fit in fits)
        seconds = [self.seconds(key, *fit) for fit in fits]
        guide = GUIDES.get(key)
        if key in self._ms:
            # A baseline uses no GPU, whatever the machine has.
            uses_gpu = self._has_gpu and same[0].uses_gpu
            source = f"measured: finished runs here, on a {'GPU' if uses_gpu else 'CPU'}"
        else:
            uses_gpu = guide is not None and guide.source == STATED
            source = "not known" if guide is None else guide.source
        return Cost(
            key=key,
            n_runs=len(same),
            n_train=round(n_train / len(same)),
            epochs=passes / n_train if n_train else 0.0,
            ms=self._ms.get(key, None if guide is None else guide.ms),
            hours=None if None in seconds else sum(each or 0.0 for each in seconds) / 3600,
            unit="GPU" if uses_gpu else "core",
            source=source,
        )


def _records(root: Location) -> Iterable[RunRecord]:
    for folder in list_runs(str(root)):
        try:
            yield read_run(folder)
        except StoreError:
            # Damaged bundles are the store's to report; here they only give no speed.
            continue


def _measured(records: Iterable[RunRecord], *, has_gpu: bool) -> dict[str, float]:
    found = defaultdict(list)
    for record in records:
        if record.status != "done" or not record.wall_seconds or not record.n_train:
            continue
        # A baseline uses no GPU.
        if record.preset is not None and (record.device != "cpu") != has_gpu:
            continue
        key = record.preset or record.model
        passes = cell_passes(key, record.n_train, record.settings)
        found[key].append(1000 * record.wall_seconds / passes)
    return {key: median(values) for key, values in found.items()}
