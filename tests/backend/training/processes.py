"""What tests run in processes of their own, to kill them or to start them together."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from pathlib import Path

PRELOADED = ["torch", "lightning_fabric", "scanpy", "pyarrow.parquet"]
SETTINGS = {"epochs": 3, "batch_size": 8, "accumulate": 2, "learning_rate": 5e-3}


def context():
    """Return how processes start: forked from a server that has imported the heavy packages."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


def _one_thread():
    import torch

    torch.set_num_threads(1)


def _die_at(moment: str, count: int) -> None:
    """Kill this process at the `count`-th step, or in the middle of the `count`-th snapshot."""
    from backend.training import optimiser_step

    left = [count]

    def last_breath():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if moment == "step":
        step = optimiser_step.Stepper.step

        def step_and_die(self, *args, **options):
            total = step(self, *args, **options)
            last_breath()
            return total

        optimiser_step.Stepper.step = step_and_die
    elif moment == "snapshot":
        sync = os.fsync

        def sync_and_die(number):
            sync(number)
            last_breath()

        os.fsync = sync_and_die


def fit(folder: str, name: str, moment: str = "", count: int = 0) -> None:
    """Fit a tiny scGPT, going on from the snapshots in `folder`, and save it as `name`."""
    _one_thread()
    from backend.training.finetune import Classifier
    from backend.training.fit_workspace import FitWorkspace
    from tests.conftest import build_adata

    _die_at(moment, count)
    typer = Classifier("scgpt", "scgpt.small", settings=SETTINGS, device="cpu")
    typer.work_in(FitWorkspace(snapshots=Path(folder) / "fit", checkpoint_minutes=0.0))
    typer.fit(
        build_adata(90, n_donors=5),
        label_key="cell_type_lineage",
        valid=build_adata(seed=2),
        seed=1,
    )
    typer.save(Path(folder) / name)


def run(out: str, moment: str = "", count: int = 0) -> None:
    """Run two folds of a tiny series, and leave their bundles below `out`."""
    _one_thread()
    from backend.data import describe
    from backend.splits import make_split
    from backend.training.runs import run_series
    from backend.types import Series
    from tests.conftest import build_adata

    _die_at(moment, count)
    adata = build_adata(120, n_donors=9)
    info = describe(adata)
    split = make_split(adata.obs, "donor", dataset_id=info.dataset_id, folds=3)
    series = Series(
        dataset_id=info.dataset_id,
        protocol="donor",
        folds=3,
        model="scgpt",
        preset="scgpt.small",
        settings=SETTINGS,
    )
    run_series(
        adata,
        info,
        split,
        series,
        out=Path(out),
        folds=[0, 1],
        checkpoint_minutes=0.0,
    )


def tokenise(folder: str, barrier, answers) -> None:
    """Ask a cache for tokens at the same moment as another process; answer with their hash."""
    _one_thread()
    from backend.models.scgpt.model import ScGPT
    from backend.training.token_cache import TokenCache
    from tests.conftest import build_adata

    adata = build_adata(400, n_donors=5)
    model = ScGPT.scratch_on(ScGPT.presets["small"], adata, seed=0)
    cache = TokenCache.of(Path(folder), "d" * 16, adata)
    barrier.wait(60)
    tokens = cache.tokens(model, adata.obs_names[::-1], seed=0)
    digest = hashlib.sha256(tokens.lengths.tobytes())
    for row in range(len(tokens)):
        digest.update(tokens.take([row]).ids[0].tobytes())
    answers.put(digest.hexdigest())
